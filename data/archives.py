"""Unpacks zip, split zip and tar.gz files that are not trusted: plain files and folders only, all inside one folder."""

import bisect
import contextlib
import functools
import io
import itertools
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from pathlib import Path

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import progress, writing

BLOCK = 1 << 20  # bytes read at a time
FULL = 0xFFFFFFFF  # in a zip's list: the number is longer, and stands in the zip64 field
ENTRY = struct.Struct("<4s6H3L5H2L")  # of a zip's list, without name, extra fields and comment
END = struct.Struct("<4s4H2LH")
LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
# What the standard library raises at files that are cut off, damaged or in a form it does not know.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


@contextlib.contextmanager
def _reading(path):
    """Inside, whatever keeps the archive at `path` from being read is `BadInput`."""
    try:
        yield
    except BadInput:
        raise
    except DAMAGE as error:
        raise BadInput(f"{path}: expected a whole archive that Python reads ({str(error).rstrip('.')}).") from None


class Joined(io.RawIOBase):
    """Open files read as one, each after the one before."""

    def __init__(self, files):
        super().__init__()
        self._files, self._at = files, 0
        lengths = (file.seek(0, io.SEEK_END) for file in files)
        self.starts = [0, *itertools.accumulate(lengths)]  # in bytes; the last is where all ends

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        place = (0, self._at, self.starts[-1])[whence] + offset
        if place < 0:
            raise OSError(f"no place {place}")
        self._at = place
        return place

    def readinto(self, buffer):
        if self._at >= self.starts[-1]:
            return 0
        number = bisect.bisect_right(self.starts, self._at) - 1
        self._files[number].seek(self._at - self.starts[number])
        count = self._files[number].readinto(memoryview(buffer)[: self.starts[number + 1] - self._at])
        self._at += count
        return count

    def bytes_at(self, disk, offset, count):
        """`count` bytes from byte `offset` of file number `disk`, through later files if need be."""
        if disk >= len(self._files) or self.starts[disk] + offset + count > self.starts[-1]:
            raise zipfile.BadZipFile(f"a place in file {disk + 1} that is not there")
        self.seek(self.starts[disk] + offset)
        content = b""
        while len(content) < count:  # a read ends where a file does
            content += self.read(count - len(content))
        return content


def _entry(listing, at, starts):
    """The entry at byte `at` of a split zip's list as one of a zip in one file, and where the next begins."""
    mark, *head, crc, packed, size, named, extra, said, disk, text, kind, offset = ENTRY.unpack_from(listing, at)
    if mark != b"PK\1\2":
        raise zipfile.BadZipFile("a list of other length than it says")
    middle = at + ENTRY.size + named
    end = middle + extra
    name, fields, others, wide = listing[at + ENTRY.size : middle], listing[middle:end], b"", b""
    while len(fields) >= 4:
        key, length = struct.unpack_from("<2H", fields)
        field, fields = fields[: 4 + length], fields[4 + length :]
        wide, others = (field[4:], others) if key == 1 else (wide, others + field)
    numbers = []
    for number, form in ((size, "<Q"), (packed, "<Q"), (offset, "<Q"), (disk, "<L")):
        if number == (FULL if form == "<Q" else 0xFFFF):
            (number,), wide = struct.unpack_from(form, wide), wide[struct.calcsize(form) :]
        numbers.append(number)
    size, packed, offset, disk = numbers
    if disk >= len(starts) - 1:
        raise zipfile.BadZipFile(f"a member in file {disk + 1} of {len(starts) - 1}")
    fields = struct.pack("<2H3Q", 1, 24, size, packed, starts[disk] + offset) + others
    head = ENTRY.pack(mark, *head, crc, FULL, FULL, named, len(fields), 0, 0, text, kind, FULL)
    return head + name + fields, end + said


def joined(files):
    """A split zip, its files open and in order, as one stream that `zipfile` reads.

    The list at a split zip's end gives for each member the number of a file (its disk) and a place in that file.
    `zipfile` takes the second for a place in the one file it knows, so files put together by `cat` it reads wrong or
    not at all. Here the files follow each other, and after them comes their list once more with places in the whole.
    Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.12 to 4.3.16, 4.4.11 to 4.4.24, 4.5.3 and 8.
    """
    whole = Joined(files)
    length = min(whole.starts[-1] - whole.starts[-2], END.size + 0xFFFF)
    tail = whole.bytes_at(len(files) - 1, whole.starts[-1] - whole.starts[-2] - length, length)
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise zipfile.BadZipFile("no list of members at the end of the last file")
    _, last, disk, _, count, size, offset, _ = END.unpack_from(tail, at)
    if tail[max(at - LOCATOR.size, 0) : at].startswith(b"PK\6\7"):
        _, at_disk, place, _ = LOCATOR.unpack_from(tail, at - LOCATOR.size)
        mark, *_, last, disk, _, count, size, offset = END64.unpack(whole.bytes_at(at_disk, place, END64.size))
        if mark != b"PK\6\6":
            raise zipfile.BadZipFile("no zip64 end where the archive says")
    if last + 1 != len(files):
        raise zipfile.BadZipFile(f"an archive of {last + 1} files, of which {len(files)} are given")
    listing, entries, at = whole.bytes_at(disk, offset, size), [], 0
    for _ in range(count):
        entry, at = _entry(listing, at, whole.starts)
        entries.append(entry)
    body, end = b"".join(entries), whole.starts[-1]
    body += END64.pack(b"PK\6\6", END64.size - 12, 45, 45, 0, 0, count, count, len(body), end)
    body += LOCATOR.pack(b"PK\6\7", 0, end + len(body) - END64.size, 1)
    body += END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, FULL, FULL, 0)
    return io.BufferedReader(Joined([*files, io.BytesIO(body)]))


def _zip_members(paths):
    """Yields (name, is a folder, size in bytes, is a plain file or folder, function that opens it)."""
    with _reading(paths[-1]), contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "rb")) for path in paths]
        archive = stack.enter_context(zipfile.ZipFile(files[0] if len(files) == 1 else joined(files)))
        for info in archive.infolist():
            plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            yield info.filename, info.is_dir(), info.file_size, plain, functools.partial(archive.open, info)


def _tar_members(path):
    """As `_zip_members`."""
    with _reading(path), tarfile.open(path, "r:gz") as archive:
        for info in archive:
            plain = info.isreg() or info.isdir()
            yield info.name, info.isdir(), info.size, plain, functools.partial(archive.extractfile, info)
        while archive.fileobj.read(BLOCK):  # gzip's checksum comes last, and tarfile leaves at what it takes for an end
            pass


def _content(archive, opened, size):
    """Yields the bytes of a member of `archive`, `size` in all."""
    with _reading(archive), opened() as source:
        left = size
        while chunk := source.read(min(BLOCK, left + 1)):
            left -= len(chunk)
            yield chunk
        if left:
            raise EOFError("a member of other length than it says")


def _parts(archive, name):
    """A member's name as its parts, or `BadInput` for one that could lie outside the folder or names a drive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.search(r"[\\:\0]", name):
        raise BadInput(f"{archive}: holds {name!r}; expected names of files inside the folder only.")
    return parts


def unpack(paths, folder, room):
    """Unpacks one archive, `paths` its files in order, into the new or empty `folder`.

    Gives the bytes it wrote. Names outside the folder, links, devices, two members of one name (also where only a
    system that ignores case takes them for one), more than `room` bytes in all, and damage raise `BadInput`; what was
    written by then stays for the caller to remove.
    """
    archive, kinds, total = Path(paths[-1]), {}, 0
    members = _zip_members(paths) if archive.suffix == ".zip" else _tar_members(paths[0])
    with contextlib.closing(members):
        for name, is_folder, size, plain, opened in progress(members, f"Unpacking {archive.name}", "file"):
            parts = _parts(archive, name)
            if not plain:
                raise BadInput(f"{archive}: holds {name!r}, a link or a device; expected plain files and folders only.")
            total += size
            if total > room:
                raise BadInput(f"{archive}: unpacks to more than {room:,} bytes; expected no more than that.")
            for depth in range(1, len(parts) + 1):
                key = unicodedata.normalize("NFC", "/".join(parts[:depth])).casefold()
                inner = is_folder or depth < len(parts)
                if not (inner and kinds.setdefault(key, True)) and (inner or key in kinds):
                    raise BadInput(f"{archive}: holds {name!r} twice; expected each name once.")
                kinds[key] = inner
            target = folder.joinpath(*parts)
            with writing(target):
                (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
                if not is_folder:
                    with open(target, "xb") as file:
                        for chunk in _content(archive, opened, size):
                            file.write(chunk)
    return total
