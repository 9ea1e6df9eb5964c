"""Arrays on disk, row by row: added in an order that survives a stop, read in single stretches."""

import contextlib
import hashlib
import inspect
import os
import struct
import weakref
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from sepcl_keras.core.checks import BadInput, reason_of
from sepcl_keras.core.files import read_json, write_json, writing
from sepcl_keras.core.folders import PROGRESS, Sparing

CHECKSUMS = "checksums.json"
CHECKED = "checked.json"  # which files were found to have their checksums, by what would change with their bytes


class GrowingArrays:
    """Arrays `NAME.npy` that grow together by rows in `NAME.part`, and go on after a stop where they were on disk.

    Args:
        folder: path, made if need be; besides the arrays it holds the record of how far they have come.
        arrays: dict from name to (dtype, shape of the whole); None rows are as many as will have come at `finish`.
        mark: text that tells what is written from anything else; rows of another mark are written anew.

    Attributes:
        done: rows that a run before has left.
    """

    def __init__(self, folder, arrays, mark):
        self.folder, self.mark, self.done = Path(folder), mark, 0
        self.record, self.sparing, self.arrays = self.folder / PROGRESS, Sparing(), arrays
        self.number, *_ = next(iter(arrays.values()))[1]
        try:
            found = read_json(self.record, dict)
            if found["mark"] == mark:
                self.done, self.number = found["rows"], found.get("number", self.number)
        except (BadInput, KeyError, TypeError):
            pass  # none there, or broken: from the beginning
        self.rows = self.done
        self.parts, self.files = [self.folder / f"{name}.part" for name in arrays], []
        with writing(folder), contextlib.ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.number is None or self.done < self.number:
                for path, (dtype, shape) in zip(self.parts, arrays.values(), strict=True):
                    self.files.append(stack.enter_context(open(path, "r+b" if self.done else "w+b")))
                    self._cut(self.files[-1], np.dtype(dtype), shape)
            self.open_files = stack.pop_all()

    def _cut(self, file, dtype, shape):
        """Leaves of the file the rows done, and goes behind them."""
        write_header(file, dtype, (0 if self.number is None else self.number, *shape[1:]))
        size = file.tell() + self.done * int(np.prod(shape[1:])) * dtype.itemsize
        if file.seek(0, os.SEEK_END) < size:
            raise BadInput(f"{file.name}: shorter than {PROGRESS} says; expected what was left, or an empty folder.")
        file.truncate(size)
        file.seek(size)

    def add(self, *rows):
        """Adds rows to each array, and now and then, in a small share of the time, makes sure of them."""
        with writing(self.folder):
            for file, array in zip(self.files, rows, strict=True):
                file.write(array.tobytes())
            self.rows += len(rows[0])
            if self.sparing.due() or self.rows == self.number:
                self._keep({})
                self.sparing.done()

    def _keep(self, more):
        for file in self.files:  # on disk before the record says so
            file.flush()
            os.fsync(file.fileno())
        write_json(self.record, {"mark": self.mark, "rows": self.rows} | more)

    def close(self):
        with contextlib.suppress(OSError):  # what a full disk refuses once more; the record knows nothing of it
            self.open_files.close()

    def finish(self):
        """Gives the arrays, now whole, their names, and keeps a checksum of each in `checksums.json`."""
        with writing(self.folder):
            if self.number is None:
                for file, (dtype, shape) in zip(self.files, self.arrays.values(), strict=True):
                    file.seek(0)  # NumPy leaves room in a header for any number of rows
                    write_header(file, np.dtype(dtype), (self.rows, *shape[1:]))
                self._keep({"number": self.rows})
        self.close()
        with writing(self.folder):
            named = [path.with_suffix(".npy") for path in self.parts]
            whole = all(path.exists() for path in self.parts)  # else some got their names before a stop, with the sums
            if whole:
                sums = {name.name: checksum(path) for path, name in zip(self.parts, named, strict=True)}
                write_json(self.folder / CHECKSUMS, sums)
            for path, name in zip(self.parts, named, strict=True):
                if path.exists():
                    os.replace(path, name)
            if whole:
                write_json(self.folder / CHECKED, {name.name: _identity(name) for name in named})


def write_header(file, dtype, shape):
    """What stands in an .npy file before the numbers of an array in rows."""
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def checksum(path):
    """The CRC-32 of a file's bytes: a second or so for each 2 GB that are in memory."""
    total = 0
    with open(path, "rb") as file:
        while block := file.read(2**20):
            total = zlib.crc32(block, total)
    return total


def _identity(path):
    """Size, times and number of a file: whatever is written to it, or put in its place, changes one of them."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _check(path):
    """Refuses a file that is not what `checksums.json` beside it says, and notes in `checked.json` that it is.

    Until something is done to the file, or it is copied, that note stands for reading all of it.
    """
    sums, notes = path.with_name(CHECKSUMS), path.with_name(CHECKED)
    expected = read_json(sums, dict).get(path.name) if sums.exists() else None
    known, seen = {}, _identity(path)
    with contextlib.suppress(BadInput):  # none there, or broken
        known = read_json(notes, dict)
    if expected is None or known.get(path.name) == seen:
        return
    if checksum(path) != expected:
        raise BadInput(f"{path}: changed since it was written, by its checksum; delete its folder to make it anew.")
    with contextlib.suppress(BadInput):  # a folder that is not ours: the next one reads all of it again
        write_json(notes, known | {path.name: seen})


class StoredArray:
    """An array on disk of which single stretches are read, each with one call to the system.

    Where `checksums.json` beside it knows its checksum, the file is compared with it here, once as long as nobody
    touches it: who wrote it, or checked it before, left a note. Without a checksum, it is taken as it is. With the name
    of a `member`, it is that array of an uncompressed `.npz`, which is not checked here.

    A memory map would do, but slowly where the file is not in memory yet: the system then fetches 128 KB around each
    page of 4, one page after the other. Its pages would also count as the process's own memory.

    Attributes:
        array: a memory map of it, for a look here and there.
    """

    def __init__(self, path, dtype, ndim, member=None):
        self.path = path
        try:
            self.array = _mapped(path, member) if member else np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # a file can be broken in more ways than zip and NumPy have names for
            raise BadInput(f"{path}: expected a whole array ({reason_of(error)}).") from None
        if not member:
            _check(Path(path))
        if self.array.dtype != dtype or self.array.ndim != ndim or not self.array.flags.c_contiguous:
            found = f"{self.array.dtype} of shape {self.array.shape}"
            raise BadInput(f"{path}: {found}; expected {np.dtype(dtype)} with {ndim} axes.")
        self._flat = self.array.reshape(-1)
        if hasattr(os, "preadv"):
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)

    def read(self, firsts, shape):
        """Stretches (N, *shape) that begin at these elements (N,) of the array, counted as if it were flat."""
        stretches = np.empty((len(firsts), *shape), self.array.dtype)
        if not hasattr(self, "_file"):  # Windows
            for stretch, first in zip(stretches, firsts, strict=True):
                stretch.flat = self._flat[first : first + stretch.size]
            return stretches
        offsets = (self.array.offset + firsts * self.array.itemsize).tolist()
        if hasattr(os, "posix_fadvise"):  # all are asked for before the first is waited for
            for offset in offsets:
                os.posix_fadvise(self._file, offset, stretches[0].nbytes, os.POSIX_FADV_WILLNEED)
        for stretch, offset in zip(stretches, offsets, strict=True):
            if os.preadv(self._file, [stretch], offset) != stretch.nbytes:
                raise BadInput(f"{self.path}: ends early; expected a file that nobody changes while it is read.")
        return stretches


def _mapped(path, member):
    """A memory map of one array in an uncompressed `.npz`."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        entry = archive.getinfo(f"{member}.npy")
        file.seek(entry.header_offset + 26)  # in the header before the array: how long its name and extras are
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        if entry.compress_type != zipfile.ZIP_STORED or np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("compressed, or of another version")
        shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if in_columns else "C")


def digest(arrays):
    """Twelve hexadecimal digits that stand for the bytes of a nest of arrays, or of a generator of arrays."""
    total = hashlib.sha256()
    for array in arrays if inspect.isgenerator(arrays) else keras.tree.flatten(arrays):
        total.update(np.ascontiguousarray(keras.ops.convert_to_numpy(array)).tobytes())
    return total.hexdigest()[:12]
