"""What goes wrong outside: files that are cut, not ours or too long, a full disk; and the page about it."""

import json
import os
import re
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from published import save, sound

from sepcl_keras.core.checks import BadInput
from sepcl_keras.scenes import audio, headers, recorded
from sepcl_keras.scenes.layouts import open_recordings
from sepcl_keras.scenes.splits import SPLITS

pytestmark = pytest.mark.filterwarnings("error")
RATE = 16_000
TONE = 0.2 * np.sin(np.arange(3 * RATE) * 0.1)


@pytest.fixture
def folder(tmp_path):
    """A folder of 12 sounds."""
    for k in range(12):
        save(tmp_path / "sounds" / f"{k}.wav", sound(k, 0.5)[0])
    return tmp_path / "sounds"


def refused(path, sentence):
    with pytest.raises(BadInput, match=sentence) as caught:
        recorded.pieces(path, RATE, RATE)
    assert "\n" not in str(caught.value)


CUT = {
    "wav": "its header tells of 96000 bytes of samples, but 47978 are there, as where a copy broke off; expected",
    "aiff": "its header tells of 96008 bytes of samples, but .* are there, as where a copy broke off; expected a whole",
    "mp3": r"ends 1\.\d+ s before it should, as where a copy broke off; expected a whole file",
    "flac": "expected a readable wav, ogg, flac or mp3 file",
    "ogg": "expected a readable wav, ogg, flac or mp3 file",
    "caf": "expected a readable wav, ogg, flac or mp3 file",
}


@pytest.mark.parametrize("suffix", CUT)
def test_half_a_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, TONE, RATE, format=suffix.upper())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, rf"a\.{suffix}: {CUT[suffix]}")


@pytest.mark.parametrize("size", [2 * len(TONE) + 8, 0x7FFFF000, 0xFFFFFFFF])
def test_a_header_that_counts_itself_or_was_written_into_a_pipe_is_taken(tmp_path, size):
    soundfile.write(tmp_path / "a.wav", TONE, RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    assert len(audio.read(tmp_path / "a.wav")) == len(TONE)


def test_no_channel_is_refused_and_eight_are_averaged(tmp_path):
    path = tmp_path / "a.wav"
    channels = TONE[:, None] * np.arange(8) / 8
    soundfile.write(path, channels, RATE, subtype="FLOAT", format="WAV")
    np.testing.assert_allclose(audio.read(path), channels.mean(axis=1), atol=1e-6)
    soundfile.write(path, TONE, RATE)
    content = bytearray(path.read_bytes())
    content[22:24] = bytes(2)
    path.write_bytes(content)
    refused(path, "a.wav: expected a readable wav, ogg, flac or mp3 file")


@pytest.mark.filterwarnings("ignore:.*samples up to")
@pytest.mark.parametrize("value, rate", [(np.nan, RATE), (np.inf, RATE), (3e38, RATE), (3.4e38, 44_100)])
def test_what_floats_cannot_hold_is_refused(tmp_path, value, rate):
    """Two channels of 3e38 are finite and their sum is not; 3.4e38 is, until it is resampled."""
    square = value * np.sign(np.sin(0.05 + np.arange(rate) * 0.1))[:, None] * np.ones(2 if value == 3e38 else 1)
    soundfile.write(tmp_path / "a.wav", square.astype("float32"), rate, subtype="FLOAT")
    refused(tmp_path / "a.wav", "a.wav: expected finite samples, but the file holds NaN or infinity")


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "mp3"])
def test_an_ending_of_another_format_does_not_matter(tmp_path, name):
    soundfile.write(tmp_path / f"a.{name}", TONE, RATE)
    expected = audio.read(tmp_path / f"a.{name}")
    for other in ("wav", "flac", "ogg", "mp3"):
        path = (tmp_path / f"a.{name}").rename(tmp_path / f"b.{other}")
        np.testing.assert_array_equal(audio.read(path), expected)
        path.rename(tmp_path / f"a.{name}")


@pytest.mark.once
def test_two_hours_take_the_memory_of_a_scene(tmp_path):
    second = 0.2 * np.sin(np.arange(1_000) * 0.3)
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 1_000, 1) as file:
        for _ in range(720):
            file.write(np.tile(second, 10))
    tracemalloc.start()
    try:
        ((first, waveform),) = recorded.pieces(tmp_path / "a.flac", 10_000, 1_000)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert audio.duration(tmp_path / "a.flac") == 7_200 and waveform.shape == (10_000,)
    assert most < 1e6 < 4 * 7_200_000 / 10, "all samples would be 29 MB"


UNREADABLE = """
import json, os, sys
from pathlib import Path
import numpy, soundfile
from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.files import _listed
from sepcl_keras.scenes import recorded
from sepcl_keras.scenes.layouts import open_recordings

folder = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
listing, said = open_recordings(folder), []
for path in (folder / "0.wav", folder / "private" / "a.wav"):
    try:
        recorded.pieces(path, 16_000, 16_000)
    except BadInput as error:
        said.append(str(error))
try:
    open_recordings(folder / "private")
except BadInput as error:
    said.append(str(error))
print(json.dumps([[clip.id for clip in listing.clips], listing.refused, _listed(folder)[2], said]))
"""


@pytest.mark.once
@pytest.mark.skipif(os.name != "posix", reason="rights of another kind")
def test_what_an_ordinary_user_may_not_read_is_told():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are their owner's alone
        folder = Path(name)
        folder.chmod(0o755)
        for path in [folder / f"{k}.wav" for k in range(12)] + [folder / "private" / "a.wav"]:
            save(path, sound(1, 0.5)[0])
        (folder / "0.wav").chmod(0)
        (folder / "private").chmod(0)
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", UNREADABLE, name],
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
                capture_output=True, text=True,
            )  # fmt: skip
        finally:
            (folder / "private").chmod(0o700)
    assert done.returncode == 0, done.stderr[-2000:]
    ids, of_listing, of_embedding, (file, inner, whole) = json.loads(done.stdout.splitlines()[-1])
    assert len(ids) == 12 and "0.wav" in ids, "read later, and refused then"
    assert of_listing == of_embedding == {"private": "a folder that cannot be listed (Permission denied)"}
    assert "0.wav: expected a readable wav, ogg, flac or mp3 file" in file
    assert "expected a path that the system takes (Permission denied)" in inner
    assert "found none at any depth; .: a folder that cannot be listed (Permission denied)" in whole


def test_a_link_to_a_folder_is_told_and_not_followed(folder, tmp_path):
    save(tmp_path / "elsewhere" / "a.wav", sound(1, 0.5)[0])
    (folder / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    listing = open_recordings(folder)
    assert len(listing.clips) == 12
    assert listing.refused == dict.fromkeys(["loop", "more"], "a link to a folder, which is not followed")


def test_long_names_and_names_that_are_no_utf_8(folder):
    refused(folder / f"{'x' * 300}.wav", "expected a path that the system takes")
    save(folder / f"{'y' * 251}.wav", sound(1, 0.5)[0])
    try:
        os.rename(os.fsencode(folder / "0.wav"), os.fsencode(folder) + b"/caf\xe9.wav")
    except OSError:
        pytest.skip("a file system of UTF-8 alone")
    clips = {clip.id: clip for clip in open_recordings(folder).clips}
    assert {"y" * 251 + ".wav", "caf\\xe9.wav"} < set(clips) and len(clips) == 13
    assert len(recorded.pieces(clips["caf\\xe9.wav"].path, RATE, RATE)) == 1


@pytest.mark.parametrize(
    "rows, sentence",
    [
        (["0.wav,dog", "1.wav,dog,cat"], "line 3: 3 cells under 2 columns; expected quotes around a cell that holds"),
        (["0.wav,dog", '"1.wav,dog', "2.wav,cat"], r"line 4: expected a readable CSV file \(unexpected end of data\)"),
    ],
)
def test_what_a_table_would_lose_is_refused(folder, rows, sentence):
    (folder / "clips.csv").write_text("\n".join(["filename,labels", *rows]) + "\n")
    with pytest.raises(BadInput, match=f"clips.csv, {sentence}"):
        open_recordings(folder)
    (folder / "clips.csv").write_text("filename,labels\n" + "".join(f'{k}.wav,"dog,cat",,\n' for k in range(12)))
    assert open_recordings(folder).classes == ("cat", "dog")


def test_a_full_disk_under_recordings_is_one_sentence(tmp_path, room_for):
    for k in range(60):
        save(tmp_path / "sounds" / f"{k}.wav", sound(k, 0.5)[0])
    listing = open_recordings(tmp_path / "sounds")
    room_for(100_000)
    with pytest.raises(BadInput, match="waveforms.npy: cannot be written .*; expected a folder with room that is ours"):
        recorded.write_recordings(tmp_path, listing, dict.fromkeys(SPLITS, 8), RATE, RATE, show=False)
    room_for(None)
    found = recorded.write_recordings(tmp_path, listing, dict.fromkeys(SPLITS, 8), RATE, RATE, show=False)
    assert np.load(tmp_path / recorded.WAVEFORMS).shape == (24, RATE) and not found["refused"]


def test_a_file_that_vanishes_while_it_is_opened_is_told(tmp_path, monkeypatch):
    path, mapped = tmp_path / "a.wav", headers.mapped
    soundfile.write(path, TONE, RATE)

    def gone(name):
        path.unlink()
        return mapped(name)

    monkeypatch.setattr(headers, "mapped", gone)
    refused(path, r"a.wav: expected a file that stays while it is read \(No such file or directory\)")
    refused(path, "a.wav: expected a sound file, but there is none")


def test_a_file_that_is_cut_while_it_is_read_is_told(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.tile(TONE, 10), RATE)
    blocks = audio.blocks(path)
    next(blocks)
    os.truncate(path, 4 * RATE)
    with pytest.raises(BadInput, match=r"a.wav: ends 28\.\d+ s before it should, .* or somebody changes it"):
        list(blocks)


PAGE = (ROOT / "data" / "FAULTS.md").read_text(encoding="utf-8")


def test_each_test_that_the_page_names_is_there():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| input")]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            text = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{path}::{name}"
