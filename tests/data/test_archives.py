"""Archives: split zips are read as their parts say, and nothing leaves the folder, whatever an archive claims."""

import io
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile

import archives
import numpy as np
import pytest
from little_sets import cut, written, zipped

from sepcl_keras.core.checks import BadInput

NOISE = np.random.default_rng(0)
FILES = {
    "set/a.wav": NOISE.bytes(90_000),
    "set/sub/b.wav": b"",
    "set/sub/c.csv": b"1,2\n" * 30_000,
    "set/d.wav": NOISE.bytes(150_000),
}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("length", [70_000, 100_001, 10_000_000])
def test_split_zip_is_what_went_into_it(length, wide, tmp_path):
    paths = cut(zipped(tmp_path / "x.zip", FILES), length, wide)
    assert len(paths) == {70_000: 4, 100_001: 3, 10_000_000: 1}[length]
    archives.unpack(paths, tmp_path / "out", 10**6)
    assert written(tmp_path / "out") == FILES


def test_split_zip_put_together_by_cat_is_not_what_zipfile_reads(tmp_path):
    """Why `joined` is needed."""
    paths = cut(zipped(tmp_path / "x.zip", FILES), 70_000)
    together = io.BytesIO(b"".join(path.read_bytes() for path in paths))
    with zipfile.ZipFile(together) as archive:
        assert archive.namelist() == list(FILES) and archive.testzip() == "set/a.wav"  # the first that is wrong
    wide = cut(zipped(tmp_path / "y.zip", FILES), 70_000, wide=True)
    with pytest.raises(zipfile.BadZipFile, match="multiple disks"):
        zipfile.ZipFile(io.BytesIO(b"".join(path.read_bytes() for path in wide)))


@pytest.mark.skipif(not shutil.which("zip"), reason="Info-ZIP's zip is not installed")
@pytest.mark.parametrize("more", [(), ("-fz",), ("-0",)])
def test_split_zip_of_info_zip(more, tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    subprocess.run(["zip", "-q", "-r", "-s", "64k", *more, "x.zip", "set"], cwd=tmp_path, check=True)
    paths = [*sorted(tmp_path.glob("x.z[0-9]*")), tmp_path / "x.zip"]
    assert len(paths) > 3
    archives.unpack(paths, tmp_path / "out", 10**6)
    assert written(tmp_path / "out") == FILES


def test_split_zip_without_a_part_or_with_a_wrong_list_is_refused(tmp_path):
    paths = cut(zipped(tmp_path / "x.zip", FILES), 70_000)
    with pytest.raises(BadInput, match=r"x\.zip: expected a whole archive .*of 4 files, of which 3"):
        archives.unpack(paths[1:], tmp_path / "out", 10**6)
    good = paths[-1].read_bytes()
    for at in range(len(good) - 330, len(good), 7):  # in the list and what follows it
        paths[-1].write_bytes(good[:at] + bytes([good[at] ^ 0x5A]) + good[at + 1 :])
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        try:
            archives.unpack(paths, tmp_path / "out", 10**6)
        except BadInput as error:
            assert "\n" not in str(error)
    paths[-1].write_bytes(good[:-40])
    with pytest.raises(BadInput, match="no list of members"):
        archives.unpack(paths, tmp_path / "out", 10**6)


def member(name, kind=tarfile.REGTYPE, content=b"x"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, "a" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "", len(content)
    return info, content


def make(path, members):
    """An archive of tar members, as `path`'s name says; a zip has their names, contents and whether they are links."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for info, content in members:
                entry = zipfile.ZipInfo(info.name)
                entry.create_system = 3
                kinds = {tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.FIFOTYPE: stat.S_IFIFO}
                entry.external_attr = (kinds.get(info.type, stat.S_IFREG) | 0o644) << 16
                archive.writestr(entry, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for info, content in members:
                archive.addfile(info, io.BytesIO(content))
    return path


WRONG = {
    "up": ([member("../evil")], "inside the folder only"),
    "up, deeper": ([member("set/../../evil")], "inside the folder only"),
    "absolute": ([member("/tmp/evil")], "inside the folder only"),
    "of a drive": ([member("C:evil")], "inside the folder only"),
    "with backslashes": ([member("..\\evil")], "inside the folder only"),
    "link": ([member("a"), member("b", tarfile.SYMTYPE, b"")], "'b', a link or a device"),
    "device": ([member("b", tarfile.CHRTYPE, b"")], "a link or a device"),
    "pipe": ([member("b", tarfile.FIFOTYPE, b"")], "a link or a device"),
    "twice": ([member("a/x"), member("a/./x")], "holds 'a/./x' twice"),
    "twice but for case": ([member("a/x"), member("A/X")], "holds 'A/X' twice"),
    "file and folder": ([member("a"), member("a/x")], "holds 'a/x' twice"),
    "folder and file": ([member("a/x"), member("a")], "holds 'a' twice"),
    "too much": ([member("a", content=bytes(600)), member("b", content=bytes(500))], "to more than 1,000 bytes"),
}


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
@pytest.mark.parametrize("case", WRONG)
def test_what_an_archive_may_not_hold(case, name, tmp_path):
    members, message = WRONG[case]
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in" / name, members)
    with pytest.raises(BadInput, match=message) as caught:
        archives.unpack([path], tmp_path / "deep" / "out", 1_000)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    left = {path.name for path in tmp_path.rglob("*")} - {"in", name, "deep", "out", "a", "x"}
    assert not left


def test_hard_link_in_a_tar_is_refused(tmp_path):
    path = make(tmp_path / "x.tar.gz", [member("a"), member("b", tarfile.LNKTYPE, b"")])
    with pytest.raises(BadInput, match="'b', a link or a device"):
        archives.unpack([path], tmp_path / "out", 1_000)


def test_zip_bomb_stops_at_its_own_word_and_at_the_room(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a": bytes(5_000)})
    with pytest.raises(BadInput, match="more than 4,999 bytes"):
        archives.unpack([path], tmp_path / "out", 4_999)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<L", 5_000), struct.pack("<L", 10)))  # says it holds ten bytes
    with pytest.raises(BadInput, match="expected a whole archive"):
        archives.unpack([path], tmp_path / "out2", 4_999)
    assert (tmp_path / "out2" / "a").stat().st_size <= 10


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_archive_that_is_cut_off_damaged_or_none(name, tmp_path):
    path = make(tmp_path / name, [member(key, content=content) for key, content in FILES.items()])
    whole = path.read_bytes()
    archives.unpack([path], tmp_path / "whole", 10**6)
    assert written(tmp_path / "whole") == FILES
    middle = len(whole) // 2
    for number, content in enumerate(
        (whole[:middle], whole[:middle] + bytes(99) + whole[middle + 99 :], b"<html>", b"")
    ):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="expected a whole archive"):
            archives.unpack([path], tmp_path / f"out{number}", 10**6)


def test_encrypted_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a": b"x"})
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        raw[raw.index(mark) + at] |= 1
    path.write_bytes(raw)
    with pytest.raises(BadInput, match="encrypted"):
        archives.unpack([path], tmp_path / "out", 10**6)
