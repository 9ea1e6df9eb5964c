"""Writes happen whole or not at all; fingerprints tell definitions apart."""

import pytest

from sepcl_keras.core.files import BadInput, atomic, fingerprint, read_json, write_json


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "deep" / "numbers.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["numbers.json"]


def test_what_the_file_system_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="numbers.json: cannot be written .*; expected a folder"):
        write_json(tmp_path / "file" / "numbers.json", {"a": 1})


def test_what_json_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "numbers.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "numbers.json").write_text("{")
    with pytest.raises(BadInput, match="numbers.json: expected a readable JSON file"):
        read_json(tmp_path / "numbers.json")


def test_fingerprints_ignore_the_order_of_keys_and_nothing_else():
    assert fingerprint({"a": 1, "b": (2, 3)}) == fingerprint({"b": [2, 3], "a": 1})
    assert len({fingerprint(d) for d in ({}, {"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": [1]})}) == 5
