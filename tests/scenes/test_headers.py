"""Files whose sound is more or less than their beginning says: read as one whole decoding has them, or refused."""

import struct

import numpy as np
import pytest
import soundfile

from sepcl_keras.core.checks import BadInput
from sepcl_keras.scenes import audio, headers


def music(seconds=5.0, rate=44_100, channels=1, seed=0):
    """Tones and noise that come and go, (samples, channels): now and then an encoder needs many bits for them."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * rate))[:, None] / rate
    swell = np.sin(2 * np.pi * 0.9 * time) ** 2
    tones = sum(np.sin(2 * np.pi * f * time * (1 + 0.01 * time)) for f in 110.0 * 2 ** rng.uniform(0, 5, 6)) / 12
    return 0.5 * tones + 0.3 * swell * rng.standard_normal((len(time), channels))


def straight(path, rate):
    """What `audio.blocks` gives at the file's own rate."""
    return np.concatenate(list(audio.blocks(path, rate)))


@pytest.mark.parametrize("rate", (16_000, 44_100))
@pytest.mark.parametrize("channels", (1, 2))
@pytest.mark.parametrize(("mode", "compression"), (("VARIABLE", 0.55), ("VARIABLE", 0.99), ("CONSTANT", 0.95)))
def test_mp3s_that_borrow_bits_are_read_as_one_whole_decoding(tmp_path, rate, channels, mode, compression):
    path = tmp_path / "a.mp3"
    options = dict(format="MP3", bitrate_mode=mode, compression_level=compression)
    soundfile.write(path, music(rate=rate, channels=channels), rate, **options)
    whole, _ = soundfile.read(path, always_2d=True)  # in a single call
    np.testing.assert_allclose(straight(path, rate), whole.mean(axis=1), atol=1e-6)
    assert audio.duration(path) == pytest.approx(5.0, abs=0.08)


def frames_of(data):
    """Where the frames of an MP3 begin, by its own headers."""
    at, starts = 0, []
    while at < len(data):
        starts.append(at)
        at += headers._mp3_frame(data, at)[0]
    return starts


@pytest.mark.parametrize(("rate", "channels"), ((44_100, 1), (44_100, 2), (16_000, 1)))
@pytest.mark.parametrize("tags", (False, True))
def test_an_mp3_of_variable_rate_without_its_length_is_read_whole(tmp_path, rate, channels, tags):
    """libsndfile guesses the length by the rate of the first frame: of loud sound first, too little.

    With the length, and with what the encoder says of its delay, the same frames give the same samples, but those of
    the delay and of the padding: 576 of LAME's and 529 of the decoder's, and up to a whole frame.
    """
    path, number = tmp_path / "a.mp3", 8 * rate
    loud_first = music(8.0, rate, channels) * np.linspace(1, 0.001, number)[:, None] ** 3
    soundfile.write(path, loud_first, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.6)
    expected, _ = soundfile.read(path, always_2d=True)
    data = path.read_bytes()
    starts = frames_of(data)
    frames = data[starts[1] :]  # the first frame holds the length, and no sound
    tag = b"ID3\x04\0\0" + bytes((0, 0, 8, 0)) + bytes(1024)
    path.write_bytes(tag + frames + b"TAG" + bytes(125) if tags else frames)
    assert soundfile.info(path).duration < 7.5
    found, whole = straight(path, rate), (len(starts) - 1) * (1152 if rate > 24_000 else 576)
    assert len(found) == whole == round(audio.duration(path) * rate)
    assert len(expected) == number
    np.testing.assert_allclose(found[1105 : 1105 + number], expected.mean(axis=1), atol=1e-6)
    pytest.importorskip("tensorflow_io")
    in_graph, _ = audio.read_in_graph(path)
    np.testing.assert_allclose(in_graph[-whole + 1105 :][:number], expected.mean(axis=1), atol=1e-4)


def test_mp3s_of_two_kinds_in_one_file_without_a_length_are_refused(tmp_path):
    whole = b""
    for rate in (44_100, 48_000):
        soundfile.write(tmp_path / "a.mp3", music(2.0, rate), rate, format="MP3", bitrate_mode="VARIABLE")
        data = (tmp_path / "a.mp3").read_bytes()
        whole += data[frames_of(data)[1] :]
    (tmp_path / "a.mp3").write_bytes(whole)
    with pytest.raises(BadInput, match="a.mp3: "):
        audio.read(tmp_path / "a.mp3")


@pytest.mark.parametrize(("suffix", "options"), (
    ("mp3", dict(format="MP3")),
    ("mp3", dict(format="MP3", bitrate_mode="VARIABLE", compression_level=0.7)),
    ("ogg", dict(format="OGG", subtype="VORBIS")),
    ("opus", dict(format="OGG", subtype="OPUS")),
    ("flac", dict(format="FLAC")),
))  # fmt: skip
@pytest.mark.parametrize("number", (2, 3))
def test_files_written_one_after_the_other_are_refused(tmp_path, suffix, options, number):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, music(2.0, 48_000), 48_000, **options)
    assert audio.duration(path) == pytest.approx(2.0, abs=0.1)
    audio.read(path)
    path.write_bytes(path.read_bytes() * number)
    for door in (audio.read, audio.duration, lambda path: next(audio.blocks(path))):
        with pytest.raises(BadInput, match="a.* more sound is there than its beginning says"):
            door(path)


def test_an_mp3_behind_a_large_tag_lasts_as_long_as_it_sounds(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, music(3.0), 44_100, format="MP3", bitrate_mode="CONSTANT", compression_level=0.9)
    data, size = path.read_bytes(), 3_000_000
    tag = b"ID3\x04\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    path.write_bytes(tag + data[frames_of(data)[1] :])
    assert audio.duration(path) == pytest.approx(3.0, abs=0.1)
    assert len(straight(path, 44_100)) / 44_100 == pytest.approx(3.0, abs=0.1)


def test_a_flac_that_does_not_say_its_length_is_read_to_its_end(tmp_path):
    path, rate = tmp_path / "a.flac", 22_050
    soundfile.write(path, music(3.3, rate), rate)
    expected, _ = soundfile.read(path, dtype="float32")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert audio.duration(path) is None
    np.testing.assert_allclose(straight(path, rate), expected, atol=1e-6)
    assert len(audio.read(path)) == pytest.approx(3.3 * 16_000, abs=2)


def test_a_rate_that_holds_no_sound_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", music(0.5), 1)
    with pytest.raises(BadInput, match="stored at 1 Hz; expected a rate of 1000 Hz or more"):
        audio.read(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", music(0.5, 2_000), 2_000)
    assert len(audio.read(tmp_path / "b.wav")) == 8_000


def test_a_wav_of_a_recorder_that_lost_power_is_told(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, music(0.5), 44_100)
    data = bytearray(path.read_bytes())
    data[40:44] = bytes(4)  # of the chunk with the samples
    path.write_bytes(data)
    with pytest.raises(BadInput, match="tells of no samples, but 44100 bytes follow"):
        audio.read(path)


def test_floats_that_are_integers_are_warned_of(tmp_path):
    soundfile.write(tmp_path / "a.wav", 20_000 * music(0.5, 16_000), 16_000, subtype="FLOAT")
    with pytest.warns(UserWarning, match="a.wav: samples up to .*; expected floats in the range -1 to 1"):
        audio.read(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", 3 * music(0.5, 16_000), 16_000, subtype="FLOAT")  # loud, and meant
    audio.read(tmp_path / "b.wav")


def wav(path, samples, before=b"", after=b"", extra=b""):
    """A 16-bit wav at 16 kHz with chunks before and after its samples, and more bytes in its first chunk."""
    layout = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16) + extra
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + before
    body += b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes() + after
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


LIST = b"LIST" + struct.pack("<I", 16) + b"INFOISFT" + struct.pack("<I", 4) + b"abc\0"
NOTE = b"note" + struct.pack("<I", 3) + b"abc\0"
FACT = b"fact" + struct.pack("<I", 4) + bytes(4)


@pytest.mark.parametrize(
    ("chunks", "stored"),
    (
        ({}, "int16"), (dict(extra=b"\0\0"), "int16"), (dict(before=FACT), "int16"), (dict(after=LIST), "int16"),
        (dict(before=LIST), None), (dict(before=NOTE), None), (dict(before=NOTE + FACT), None),
    ),
)  # fmt: skip
def test_tensorflow_io_gets_the_layouts_of_wav_that_it_reads_right(tmp_path, chunks, stored):
    pytest.importorskip("tensorflow_io")
    samples = (music(0.3, 16_000)[:, 0] * 20_000).astype("<i2")
    wav(tmp_path / "a.wav", samples, **chunks)
    with headers.mapped(tmp_path / "a.wav") as data:
        assert headers.graph_type(data, "WAV", "PCM_16") == stored
    waveform, rate = audio.read_in_graph(tmp_path / "a.wav")
    np.testing.assert_array_equal(np.asarray(waveform), samples / np.float32(32_768))
    assert int(rate) == 16_000


ENCODINGS = {
    "wav": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"),
    "flac": ("PCM_S8", "PCM_16", "PCM_24"),
    "ogg": ("VORBIS", "OPUS"),
    "mp3": ("MPEG_LAYER_III",),
    "aiff": ("PCM_16",),
    "au": ("PCM_16", "FLOAT"),
    "caf": ("PCM_16",),
    "w64": ("PCM_16",),
    "rf64": ("PCM_16",),
}


@pytest.mark.parametrize(("suffix", "encoding"), [(s, e) for s, found in ENCODINGS.items() for e in found])
@pytest.mark.parametrize("channels", (1, 2, 3))
def test_both_readers_give_the_same_samples(tmp_path, suffix, encoding, channels):
    """Whoever decodes; an odd number of samples, because chunks of odd length are filled up."""
    pytest.importorskip("tensorflow_io")
    if channels > 2 and suffix == "mp3":
        pytest.skip("MP3 holds two channels at most")
    path = tmp_path / f"a.{suffix}"
    sound = np.clip(music(0.3, 48_000, channels)[:14_401], -0.9, 0.9)
    soundfile.write(path, sound, 48_000, subtype=encoding, format={"aiff": "AIFF"}.get(suffix, suffix.upper()))
    waveform, rate = audio.read_in_graph(path)
    assert int(rate) == 48_000
    lossy = encoding in ("VORBIS", "MPEG_LAYER_III")
    np.testing.assert_allclose(np.asarray(waveform), straight(path, 48_000), atol=1e-5 if lossy else 1e-7)


@pytest.mark.parametrize("rate", (0, -1, "x", float("nan"), None, 16_000.5, True))
def test_a_rate_that_is_no_number_of_samples_is_refused(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", music(0.5), 44_100)
    with pytest.raises(BadInput, match="sample_rate=.*: expected a whole number of at least 1"):
        audio.read(tmp_path / "a.wav", rate)


@pytest.mark.parametrize(
    "path", (None, 5, 1.5, b"a.wav", "a" * 5_000, ["a.wav"]), ids=lambda value: type(value).__name__
)
def test_what_is_no_path_is_refused_in_a_sentence_of_bounded_length(path):
    for door in (audio.read, audio.duration, audio.read_in_graph, lambda path: audio.write(path, np.zeros(9))):
        with pytest.raises(BadInput, match="expected a path") as caught:
            door(path)
        assert len(str(caught.value)) < 300


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    audio.write("~/a.wav", music(0.5)[:, 0])
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"] and len(audio.read("~/a.wav"))


def test_what_is_written_is_rounded(tmp_path):
    waveform = np.random.default_rng(0).uniform(-0.9, 0.9, 20_000).astype("float32")
    audio.write(tmp_path / "a.wav", waveform)
    steps = soundfile.read(tmp_path / "a.wav", dtype="int16")[0] - waveform.astype("float64") * 32_768
    assert np.abs(steps).max() <= 0.501 and abs(steps.mean()) < 0.01
