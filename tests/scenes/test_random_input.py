"""Random bytes and tables: whatever a file holds, what comes is sound, or one sentence of ours."""

import os

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published import sound

from sepcl_keras.core.checks import BadInput
from sepcl_keras.scenes import audio, recorded
from sepcl_keras.scenes.layouts import open_recordings

CASES = int(os.environ.get("SEPCL_CASES", 60))  # 5,000 take minutes
many = settings(
    max_examples=CASES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
KINDS = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ALAW"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None),
         ("AIFF", "PCM_24"), ("AU", "PCM_16"), ("W64", "PCM_16"), ("CAF", "PCM_16")]  # fmt: skip


def refused_or_sound(path):
    try:
        waveform = audio.read(path)
        assert waveform.dtype == np.float32 and waveform.ndim == 1 and np.isfinite(waveform).all()
        for _, scene in recorded.pieces(path, 8000, 16_000, most=2):
            assert scene.shape == (8000,) and np.isfinite(scene).all()
    except BadInput as error:
        assert str(path) in str(error) and "expected" in str(error)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A short sound in each format, as bytes."""
    folder, found = tmp_path_factory.mktemp("whole"), []
    for container, subtype in KINDS:
        path = folder / f"a.{container.lower()}"
        soundfile.write(path, sound(1, 0.3)[0], 16_000, format=container, subtype=subtype)
        found.append(path.read_bytes())
    return found


@many
@given(
    content=st.binary(max_size=400), begin=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd"])
)
def test_random_bytes(tmp_path, content, begin):
    path = tmp_path / "a.wav"
    path.write_bytes(begin + content)
    refused_or_sound(path)


@many
@pytest.mark.filterwarnings("ignore:.*samples up to")  # a turned bit may make a float large
@given(data=st.data())
def test_files_that_are_cut_or_have_bits_turned(tmp_path, whole, data):
    content = bytearray(data.draw(st.sampled_from(whole)))
    content = content[: data.draw(st.integers(1, len(content)))]
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(content))
    refused_or_sound(path)


words = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)
cells = st.one_of(words, st.sampled_from(["0.wav", "1.wav", "train", "val", "test", "1", "2", "3", "", "a,b", '"']))
headers = st.lists(
    st.sampled_from(["filename", "labels", "split", "fold", "recording", "x", ""]), min_size=1, max_size=5
)


@many
@given(header=headers, rows=st.lists(st.lists(cells, max_size=5), max_size=8), delimiter=st.sampled_from(",;\t"))
def test_random_tables(tmp_path, header, rows, delimiter):
    for k in range(3):
        (tmp_path / f"{k}.wav").write_bytes(b"")  # found, and refused only when it is read
    lines = [delimiter.join(row) for row in [header, *rows]]
    (tmp_path / "clips.csv").write_text("\n".join(lines), encoding="utf-8")
    try:
        listing = open_recordings(tmp_path)
        assert listing.clips and {clip.split for clip in listing.clips} == {"train", "validation", "test"}
    except BadInput as error:
        assert str(error)


@many
@given(content=st.binary(max_size=300), which=st.integers(0, 2))
def test_random_bytes_as_published_tables(tmp_path, content, which):
    (tmp_path / "0.wav").write_bytes(b"")
    name = ("metadata/UrbanSound8K.csv", "FSD50K.ground_truth/dev.csv", "eval_segments.csv")[which]
    for other in ("metadata", "FSD50K.ground_truth"):
        (tmp_path / other).mkdir(exist_ok=True)
    (tmp_path / "FSD50K.ground_truth" / "eval.csv").write_bytes(content)
    for path in ("metadata/UrbanSound8K.csv", "FSD50K.ground_truth/dev.csv", "eval_segments.csv"):
        (tmp_path / path).unlink(missing_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput):
        open_recordings(tmp_path)
