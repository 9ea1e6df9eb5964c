"""Reading and writing of sound files: formats, rates, every way a file can be bad, and TensorFlow's own decoding."""

import numpy as np
import pytest
import soundfile

from sepcl_keras.core.checks import BadInput
from sepcl_keras.scenes import audio

FORMATS = ("wav", "flac", "ogg", "mp3")


def tone(seconds=0.5, rate=16_000, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def project(waveform, hertz, rate):
    """Amplitude of a sine of `hertz` in the middle half of `waveform`, by projection."""
    middle = waveform[len(waveform) // 4 : 3 * len(waveform) // 4]
    turns = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / rate)
    return 2 * abs(np.mean(middle * turns))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", (8_000, 16_000, 44_100))
def test_each_format_and_rate_gives_the_same_tone(tmp_path, suffix, rate):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(rate=rate), rate)
    waveform = audio.read(path)
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert len(waveform) / 16_000 == pytest.approx(0.5, abs=0.001)
    assert project(waveform, 440.0, 16_000) == pytest.approx(0.5, abs=0.02)


def test_resampling_removes_what_the_new_rate_cannot_hold(tmp_path):
    both = tone(rate=44_100) + tone(rate=44_100, hertz=15_000.0)
    soundfile.write(tmp_path / "both.wav", both, 44_100, subtype="FLOAT")
    waveform = audio.read(tmp_path / "both.wav")
    assert project(waveform, 440.0, 16_000) == pytest.approx(0.5, abs=1e-3)
    assert project(waveform, 1_000.0, 16_000) < 1e-3  # where 15 kHz would fold to


def test_channels_are_averaged(tmp_path):
    left, right = tone(), tone(hertz=1_000.0)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(tmp_path / "stereo.wav"), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", (8_000, 16_000, 44_100))
@pytest.mark.parametrize("seconds", (0.2, 1.0, 2.37))
def test_in_blocks_the_sound_is_the_same(tmp_path, rate, seconds):
    sound = np.random.default_rng(0).uniform(-1, 1, (round(seconds * rate), 2))
    soundfile.write(tmp_path / "a.flac", sound, rate)
    blocks = list(audio.blocks(tmp_path / "a.flac"))
    assert max(map(len, blocks)) < 17_000 and min(map(len, blocks)) > 0
    np.testing.assert_allclose(np.concatenate(blocks), audio.read(tmp_path / "a.flac"), atol=1e-6)
    assert audio.duration(tmp_path / "a.flac") == pytest.approx(seconds, abs=1e-4)


def test_in_blocks_short_and_silent_sounds_pass(tmp_path):
    for samples in (1, 40_000):
        soundfile.write(tmp_path / "a.wav", np.zeros(samples), 16_000)
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks(tmp_path / "a.wav"))), np.zeros(samples))


def test_in_blocks_bad_files_are_refused(tmp_path):
    path = tmp_path / "bad.wav"
    with pytest.raises(BadInput, match="expected a sound file, but there is none"):
        next(audio.blocks(path))
    path.write_bytes(b"nothing of the kind")
    for reading in (lambda: next(audio.blocks(path)), lambda: audio.duration(path)):
        with pytest.raises(BadInput, match="expected a readable wav, ogg, flac or mp3 file"):
            reading()
    for samples in (0, 1):  # one sample at 44.1 kHz is less than half a sample at 16 kHz
        soundfile.write(path, np.zeros(samples), 44_100)
        with pytest.raises(BadInput, match="no samples at 16000 Hz"):
            list(audio.blocks(path))
    soundfile.write(path, np.concatenate([tone(1.5), [np.nan]]), 16_000, subtype="FLOAT")
    with pytest.raises(BadInput, match="expected finite samples"):
        list(audio.blocks(path))


def test_write_then_read_differs_by_16_bits_only(tmp_path):
    waveform = np.random.default_rng(0).uniform(-0.99, 0.99, 8_000).astype(np.float32)
    audio.write(tmp_path / "new" / "a.wav", waveform)
    assert soundfile.info(tmp_path / "new" / "a.wav").subtype == "PCM_16"
    np.testing.assert_allclose(audio.read(tmp_path / "new" / "a.wav"), waveform, atol=1 / 32_768)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, room_for):
    room_for(1_000)
    with pytest.raises(BadInput, match="a.wav: cannot be written .*; expected a folder with room"):
        audio.write(tmp_path / "a.wav", tone())
    room_for(None)
    assert not list(tmp_path.iterdir())


def test_write_clips_instead_of_wrapping_around(tmp_path):
    audio.write(tmp_path / "a.wav", 4 * tone())
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav"), np.clip(4 * tone(), -1, 1), atol=1 / 16_384)


@pytest.mark.parametrize("bad", (np.full(4_000, np.nan), np.array([0.1, np.inf]), np.zeros((2, 4_000)), np.zeros(0)))
def test_write_refuses_and_leaves_what_was_there(tmp_path, bad):
    path = tmp_path / "a.wav"
    audio.write(path, tone())
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"a\.wav: expected "):
        audio.write(path, bad)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def _text(path):
    path.write_text("no sound at all")


def _raw(path):
    path.write_bytes(bytes(range(200)))


def _cut_flac(path):
    soundfile.write(path, tone(), 16_000, format="FLAC")
    path.write_bytes(path.read_bytes()[:2_000])


def _waveform(waveform, rate=16_000):
    return lambda path: soundfile.write(path, waveform, rate, format="WAV", subtype="FLOAT")


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    (
        ("missing.wav", lambda path: None, "there is none"),
        ("folder.wav", lambda path: path.mkdir(), "there is none"),
        ("nothing.ogg", lambda path: path.touch(), "readable wav, ogg, flac or mp3"),
        ("nothing.mp3", lambda path: path.touch(), "readable wav, ogg, flac or mp3"),
        ("text.wav", _text, "readable wav, ogg, flac or mp3"),
        ("bytes.raw", _raw, "readable wav, ogg, flac or mp3"),
        ("cut.flac", _cut_flac, "readable wav, ogg, flac or mp3"),
        ("empty.wav", _waveform(np.zeros(0)), "no samples"),
        ("nan.wav", _waveform(np.where(np.arange(8_000) == 4_000, np.nan, tone())), "NaN or infinity"),
        ("inf.wav", _waveform(np.where(np.arange(8_000) == 4_000, -np.inf, tone())), "NaN or infinity"),
        ("short.wav", _waveform(tone(0.09)), "at least 0.1 s"),
        ("short44.wav", _waveform(tone(0.09, 44_100), 44_100), "at least 0.1 s"),
        ("zeros.wav", _waveform(np.zeros(16_000)), "silent"),
        ("hum.wav", _waveform(1e-5 * tone()), "silent"),
        ("opposite.wav", _waveform(np.stack([tone(), -tone()], axis=1)), "silent"),
        ("bat.wav", _waveform(tone(rate=48_000, hertz=20_000.0) * np.hanning(24_000), 48_000), "silent"),
    ),
)
def test_bad_files_are_named_with_what_was_expected(tmp_path, name, make, reason):
    make(tmp_path / name)
    with pytest.raises(BadInput, match=reason) as refused:
        audio.read(tmp_path / name)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / name}: expected ")
    assert message.endswith(".") and "\n" not in message


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    (
        ("wav", "PCM_16"),
        ("wav", "PCM_24"),
        ("wav", "FLOAT"),
        ("flac", "PCM_16"),
        ("flac", "PCM_24"),
        ("ogg", "VORBIS"),
        ("mp3", "MPEG_LAYER_III"),
    ),
)
def test_tensorflow_io_decodes_as_soundfile_does(tmp_path, suffix, subtype):
    pytest.importorskip("tensorflow_io")
    rng = np.random.default_rng(0)
    stereo = tone(rate=22_050)[:, None] * [1.0, 0.3] + rng.normal(0, 0.01, (11_025, 2))
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, stereo, 22_050, subtype=subtype)
    waveform, rate = audio.read_in_graph(path)
    expected, _ = soundfile.read(path, dtype="float32")
    assert int(rate) == 22_050 and waveform.dtype.name == "float32"
    np.testing.assert_allclose(waveform.numpy(), expected.mean(axis=1), atol=1e-4)


def test_tensorflow_io_reads_within_a_larger_graph(tmp_path):
    pytest.importorskip("tensorflow_io")
    import tensorflow as tf

    soundfile.write(tmp_path / "a.ogg", tone(), 16_000)

    @tf.function
    def power():
        waveform, rate = audio.read_in_graph(tmp_path / "a.ogg")
        return tf.reduce_mean(waveform**2), rate

    mean, rate = power()
    assert float(mean) == pytest.approx(0.125, abs=0.005) and int(rate) == 16_000


def test_read_in_graph_refuses_before_tensorflow_sees_the_file(tmp_path):
    with pytest.raises(BadInput, match="there is none"):
        audio.read_in_graph(tmp_path / "missing.wav")
    _text(tmp_path / "text.wav")
    with pytest.raises(BadInput, match="readable wav"):
        audio.read_in_graph(tmp_path / "text.wav")


def test_trim_silence_takes_the_edges_and_keeps_the_pauses():
    bark = tone(0.2) + np.float32(0.01)
    waveform = np.concatenate([np.zeros(1_000), bark, np.zeros(3_000), bark, np.full(500, 1e-4)]).astype(np.float32)
    np.testing.assert_array_equal(audio.trim_silence(waveform), waveform[1_000:-500])
    np.testing.assert_array_equal(audio.trim_silence(np.zeros(9)), np.zeros(9))


def test_active_level_counts_only_what_sounds():
    hum = tone(1.0, hertz=500.0)  # whole periods in a frame: RMS 0.5 / sqrt(2)
    bark = np.concatenate([hum[:3_200], np.zeros(12_800, np.float32)])
    assert audio.active_level(hum) == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)
    assert audio.active_level(bark) == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)
    assert audio.active_level(3 * bark) == pytest.approx(3 * audio.active_level(bark), rel=1e-6)
    assert audio.active_level(np.full(7, 0.2, np.float32)) == pytest.approx(0.2)  # shorter than a frame
