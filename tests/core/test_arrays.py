"""Arrays on disk: read whole to be checked once, and again as soon as anything was done to the file."""

import os
import shutil

import numpy as np
import pytest

from sepcl_keras.core import arrays
from sepcl_keras.core.arrays import GrowingArrays, StoredArray
from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import read_json

ROWS = np.arange(40, dtype="float32").reshape(10, 4)


@pytest.fixture
def path(tmp_path):
    growing = GrowingArrays(tmp_path / "kept", {"a": ("float32", (10, 4)), "b": ("float32", (10, 4))}, "mark")
    growing.add(ROWS, -ROWS)
    growing.finish()
    return tmp_path / "kept" / "a.npy"


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read whole."""
    found, checksum = [], arrays.checksum

    def counting(path):
        found.append(path.name)
        return checksum(path)

    monkeypatch.setattr(arrays, "checksum", counting)
    return found


def opened(path):
    return StoredArray(path, "float32", 2).array


def turn(path, place=-5):
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def test_what_was_just_written_is_opened_without_reading_it(path, reads):
    for _ in range(2):
        np.testing.assert_array_equal(opened(path), ROWS)
    np.testing.assert_array_equal(opened(path.with_name("b.npy")), -ROWS)
    assert reads == []


def test_a_copy_is_read_whole_once(path, reads, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(path.parent, copy)  # with the times of its files
    for _ in range(3):
        for name in ("a.npy", "b.npy"):
            opened(copy / name)
    assert reads == ["a.npy", "b.npy"]
    turn(copy / "a.npy")
    with pytest.raises(BadInput, match="a.npy: changed since it was written, by its checksum; delete its folder"):
        opened(copy / "a.npy")


def test_a_folder_that_takes_its_name_is_not_read_again(path, reads):
    os.replace(path.parent, path.parent.with_name("whole"))
    opened(path.parent.with_name("whole") / "a.npy")
    assert reads == []


@pytest.mark.parametrize("way", ["written", "time set back", "put in its place", "cut off", "grown"])
def test_what_was_done_to_a_file_is_found_when_it_is_opened(path, way):
    opened(path)
    before = path.stat()
    if way == "cut off":
        os.truncate(path, before.st_size - 16)
    elif way == "grown":
        path.write_bytes(path.read_bytes() + bytes(16))
    elif way == "put in its place":
        shutil.copy2(path, path.with_name("other"))
        turn(path.with_name("other"))
        os.utime(path.with_name("other"), ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(path.with_name("other"), path)
    else:
        turn(path)
    if way == "time set back":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):  # nor is a note left that it is whole
        with pytest.raises(BadInput, match="a.npy: (changed since it was written|expected a whole array)"):
            opened(path)


def test_a_file_that_was_only_touched_is_read_once_more(path, reads):
    os.utime(path, ns=(1, 1))
    opened(path)
    opened(path)
    assert reads == ["a.npy"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a.npy": 3}', None])
def test_notes_that_are_missing_or_broken_are_made_again(path, reads, content):
    notes = path.with_name("checked.json")
    whole = read_json(notes)
    notes.unlink() if content is None else notes.write_text(content)
    opened(path)
    opened(path)
    assert reads == ["a.npy"]
    assert read_json(notes)["a.npy"] == whole["a.npy"]


def test_a_folder_that_may_not_be_written_is_read_each_time(path, reads, monkeypatch):
    path.with_name("checked.json").unlink()

    def refused(path, content):
        raise BadInput(f"{path}: cannot be written.")

    monkeypatch.setattr(arrays, "write_json", refused)
    for _ in range(2):
        np.testing.assert_array_equal(opened(path), ROWS)
    assert reads == ["a.npy", "a.npy"]


def test_a_file_that_is_cut_off_while_it_is_open_is_refused_where_it_is_read(path):
    stored = StoredArray(path, "float32", 2)
    os.truncate(path, path.stat().st_size - 16)
    np.testing.assert_array_equal(stored.read(np.array([4]), (4,)), ROWS[1:2])
    if hasattr(os, "preadv"):
        with pytest.raises(BadInput, match="a.npy: ends early"):
            stored.read(np.array([36]), (4,))
