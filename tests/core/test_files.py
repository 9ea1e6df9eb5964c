"""Bad input is found and named; writes happen whole or not at all; fingerprints tell definitions apart."""

import os
from pathlib import Path

import numpy as np
import pytest

from sepcl_keras.core.checks import BadInput, array, numbers, one_of, path_of
from sepcl_keras.core.files import atomic, fingerprint, read_json, write_json

pytestmark = pytest.mark.once

NOT_REAL = {
    "text": ["0.5", "1"],
    "bytes": [b"1"],
    "complex": np.array([1 + 2j]),
    "dates": np.array(["2021-10-17"], "datetime64[D]"),
    "durations": np.array([3], "timedelta64[s]"),
    "objects": np.array([1, None]),
    "a dict": {"a": 1},
    "ragged": [[1.0, 2.0], [3.0]],
    "nothing": None,
}


@pytest.mark.parametrize("values", NOT_REAL.values(), ids=NOT_REAL)
def test_what_are_no_real_numbers_is_refused_in_one_sentence(values):
    with pytest.raises(BadInput, match="scores( of .*)?: expected (real )?numbers") as caught:
        array("scores", values)
    assert "\n" not in str(caught.value)


def test_numbers_of_any_kind_are_taken():
    for values in ([[1, 2]], np.array([[True, False]]), np.array([[1, 2]], "float16"), np.array([[1, 2]], ">i2")):
        np.testing.assert_array_equal(numbers("x", values, ("a", "b")), np.array(values, "float64"))
    with pytest.raises(BadInput, match="x with NaN or infinity"):
        numbers("x", [1e300], ("a",), "float32")
    half = pytest.importorskip("ml_dtypes").bfloat16
    assert array("x", np.ones(3, half)).dtype == np.float32


def test_a_tensor_of_torch_that_has_a_gradient_is_taken():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(numbers("x", torch.arange(3.0, requires_grad=True), ("a",)), [0, 1, 2])


@pytest.mark.parametrize("value", ["c", ["a"], None, 1])
def test_another_word_than_those_known_is_refused(value):
    assert one_of("way", "b", ("a", "b")) == "b"
    with pytest.raises(BadInput, match="way=.*: expected one of a, b"):
        one_of("way", value, {"a": 1, "b": 2})


class Odd:
    def __fspath__(self):
        return b"bytes"


@pytest.mark.parametrize(
    "value",
    [None, 5, 1.5, b"name", ["name"], "", "x" * 5_000, "a/" * 3_000, "a\0b", "\ud800", Odd()],
    ids=lambda value: type(value).__name__,
)
def test_what_can_be_no_path_is_refused_in_a_short_sentence(value):
    with pytest.raises(BadInput, match="^path=.*: expected a path") as caught:
        path_of("path", value)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_a_path_begins_at_home_after_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert path_of("path", "~/a/b.keras") == path_of("path", Path("~/a/b.keras")) == tmp_path / "a" / "b.keras"
    assert path_of("path", "~no-such-user.keras") == Path("~no-such-user.keras")
    (tmp_path / "file").touch()
    assert path_of("path", os.fspath(tmp_path / "file" / "below")) == tmp_path / "file" / "below"  # nothing is there


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
