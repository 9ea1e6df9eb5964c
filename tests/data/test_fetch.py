"""Fetching data sets: whole or not at all, gone on with after a kill or a full disk, from anywhere, once."""

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tarfile

import fetch
import pytest
from conftest import ROOT
from little_sets import INSIDE, SET, known, left, written, zipped

from sepcl_keras.core.checks import BadInput


def test_data_set_is_whole_said_and_left_alone_the_second_time(esc50, server, tmp_path, capsys):
    out = tmp_path / "out"
    assert fetch.main(["esc50", str(out)]) == 0
    content = written(out / "ESC-50")
    record = json.loads(content.pop("fetched.json"))
    assert content == INSIDE and os.listdir(out) == ["ESC-50"]
    size, checksum = known(esc50)
    place = f"{server.url}e.zip"
    assert record == {"e.zip": {"from": place, "bytes": size, "sha256": checksum[7:], "checked": checksum}}
    capsys.readouterr()
    assert fetch.main(["esc50", str(out)]) == 0 and len(server.asked) == 1
    assert "there already" in capsys.readouterr().out


def test_folder_of_the_readers_own_is_left_alone(esc50, server, tmp_path, capsys):
    (tmp_path / "ESC-50").mkdir()
    (tmp_path / "ESC-50" / "mine.txt").write_text("mine")
    assert fetch.main(["esc50", str(tmp_path)]) == 2 and not server.asked
    assert "without fetched.json" in capsys.readouterr().err and (tmp_path / "ESC-50" / "mine.txt").exists()


def test_wrong_file_is_found_removed_and_may_be_vouched_for(esc50, server, tmp_path):
    (tmp_path / "other").mkdir()
    other = zipped(tmp_path / "other" / "e.zip", {**SET, "top/LICENSE": b"BY"}).read_bytes()
    assert len(other) == len(esc50)
    server.files["e.zip"], out = other, tmp_path / "out"
    digest = hashlib.sha256(other).hexdigest()
    with pytest.raises(BadInput, match=rf"sha256 {digest}; expected .*--sha256 e\.zip={digest} if"):
        fetch.fetch("esc50", out)
    assert not left(out)
    fetch.fetch("esc50", out, sha256=[f"e.zip={digest.upper()}"])
    assert (out / "ESC-50" / "LICENSE").read_bytes() == b"BY"
    with pytest.raises(BadInput, match=r"--sha256 x=1: expected \[NAME=\]HEX"):
        fetch.fetch("esc50", tmp_path / "out2", sha256=["x=1"])


def test_full_disk_is_one_sentence_and_keeps_what_came(esc50, server, tmp_path, room_for, capsys):
    out = tmp_path / "out"
    room_for(100_000)
    code = fetch.main(["esc50", str(out)])
    room_for(None)
    error = capsys.readouterr().err
    assert code == 2 and "cannot be written" in error and error.count("\n") == 1
    kept = (out / ".ESC-50.archives" / "e.zip.partial").stat().st_size
    assert 0 < kept <= 100_000
    fetch.fetch("esc50", out)
    assert server.asked[1] == (f"bytes={kept}-", '"one"') and set(INSIDE) < set(written(out / "ESC-50"))


def test_disk_that_is_full_while_unpacking_keeps_the_archive(esc50, server, tmp_path, room_for):
    out = tmp_path / "out"
    large = zipped(tmp_path / "large.zip", {**SET, "top/audio/1.wav": bytes(400_000)}).read_bytes()
    server.files["e.zip"], digest = large, hashlib.sha256(large).hexdigest()
    room_for(200_000)
    with pytest.raises(BadInput, match=r"1\.wav: cannot be written"):
        fetch.fetch("esc50", out, sha256=[digest])
    room_for(None)
    assert left(out) == [".ESC-50.archives/e.zip"]
    fetch.fetch("esc50", out, sha256=[digest])
    assert len(server.asked) == 1 and set(INSIDE) < set(written(out / "ESC-50"))


# The package itself would load Keras and its backend first, which takes seconds and is not what is tested.
PROGRAM = """
import dataclasses, sys, types
root, url, out, size, checksum = sys.argv[1:]
package = sys.modules["sepcl_keras"] = types.ModuleType("sepcl_keras")
package.__path__ = [root + "/sepcl_keras"]
sys.path.insert(0, root + "/data")
import downloads, fetch
blocks = downloads._blocks

def told(*arguments):
    for block in blocks(*arguments):
        yield block
        print("written", flush=True)

downloads._blocks = told
known = fetch.DATA_SETS["esc50"]
fetch.DATA_SETS["esc50"] = dataclasses.replace(
    known, home=url + "{}", parts={"e.zip": (int(size), checksum)}, clips=2)
sys.exit(fetch.main(["esc50", out]))
"""


def test_killed_run_is_gone_on_with(esc50, server, tmp_path):
    out, server.tricks = tmp_path / "out", ["stalls"]
    arguments = [sys.executable, "-c", PROGRAM, ROOT, server.url, out, *known(esc50)]
    with subprocess.Popen([str(x) for x in arguments], stdout=subprocess.PIPE, text=True) as run:
        next(line for line in run.stdout if line.endswith("written\n"))
        run.kill()
    kept = (out / ".ESC-50.archives" / "e.zip.partial").stat().st_size
    fetch.fetch("esc50", out)
    assert kept and server.asked[-1][0] == f"bytes={kept}-"
    assert set(INSIDE) < set(written(out / "ESC-50")) and os.listdir(out) == ["ESC-50"]


def test_archive_of_other_content_leaves_nothing(esc50, tmp_path):
    path = zipped(tmp_path / "x.zip", {"top/audio/1.wav": b"x", "top/meta/esc50.csv": b"", "top/LICENSE": b""})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match="1 wav files; expected 2"):
        fetch.fetch("esc50", tmp_path / "out", [str(path)], [digest])
    path = zipped(tmp_path / "x.zip", {"top/audio/1.wav": b"x"})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match=r"expected audio, meta/esc50\.csv, LICENSE in its archives"):
        fetch.fetch("esc50", tmp_path / "out", [str(path)], [digest])
    path = zipped(tmp_path / "x.zip", {**SET, "../evil": b"x"})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match="inside the folder only"):
        fetch.fetch("esc50", tmp_path / "out", [str(path)], [digest])
    assert not left(tmp_path / "out") and not (tmp_path / "out" / "evil").exists() and path.exists()


@pytest.mark.parametrize("source", ["home", "folder", "files", "addresses"])
def test_data_set_of_many_parts_from_everywhere(source, fsd50k, server, tmp_path):
    given = {
        "home": None, "folder": [str(tmp_path)], "files": [str(tmp_path / name) for name in fsd50k],
        "addresses": [server.url],
    }[source]  # fmt: skip
    fetch.fetch("fsd50k", tmp_path / "out", given)
    folder = tmp_path / "out" / "FSD50K"
    assert sorted(os.listdir(folder)) == ["FSD50K." + x for x in
        ("dev_audio", "doc", "eval_audio", "ground_truth", "metadata")] + ["fetched.json"]  # fmt: skip
    record = json.loads((folder / "fetched.json").read_text())
    assert {name: entry["sha256"] for name, entry in record.items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in fsd50k.items()
    }
    assert len(server.asked) == (len(fsd50k) if source in ("home", "addresses") else 0)
    assert all((tmp_path / name).exists() for name in fsd50k)


@pytest.mark.parametrize(
    "given, message",
    [
        (["ftp://a/b"], "begins with http"),
        (["nowhere"], "a file or a folder that is there"),
        (["EMPTY"], r"none of it is FSD50K\.doc\.zip; expected each of"),
        (["http://127.0.0.1/other.zip"], r"none of it is FSD50K\.doc\.zip"),
    ],
)
def test_source_that_is_none(given, message, fsd50k, tmp_path):
    (tmp_path / "EMPTY").mkdir()
    with contextlib.chdir(tmp_path), pytest.raises(BadInput, match=message):
        fetch.fetch("fsd50k", tmp_path / "out", given)
    assert not (tmp_path / "out").exists()


def test_tar_data_set_from_a_file(tmp_path, monkeypatch):
    for name, content in {"audio/fold1/1.wav": b"w", "metadata/UrbanSound8K.csv": b"c"}.items():
        (tmp_path / "UrbanSound8K" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "UrbanSound8K" / name).write_bytes(content)
    with tarfile.open(tmp_path / "u.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "UrbanSound8K", "UrbanSound8K")
    known_set = fetch.DATA_SETS["urbansound8k"]
    parts = {"UrbanSound8K.tar.gz": known((tmp_path / "u.tar.gz").read_bytes(), "md5")}
    monkeypatch.setitem(fetch.DATA_SETS, "urbansound8k", dataclasses.replace(known_set, parts=parts, clips=1))
    fetch.fetch("urbansound8k", tmp_path / "out", [str(tmp_path / "u.tar.gz")])
    assert (tmp_path / "out" / "UrbanSound8K" / "audio" / "fold1" / "1.wav").read_bytes() == b"w"


def test_table_is_complete():
    for name, data_set in fetch.DATA_SETS.items():
        for part, (size, checksum) in data_set.parts.items():
            kind, digits = checksum.split(":")
            assert len(digits) == {"md5": 32, "sha256": 64}[kind] and int(digits, 16) and size > 0, (name, part)
