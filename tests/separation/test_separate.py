"""Separating whole files: as the separator would, whatever the length, rate and order of channels in each piece."""

import os
import platform
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import soundfile
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.backend import processes
from sepcl_keras.core.checks import BadInput
from sepcl_keras.scenes import audio
from sepcl_keras.separation import separate
from sepcl_keras.separation.network import TDCNPlusPlus, start_from_mdct
from sepcl_keras.separation.separate import _in_order, _joined, _matched, _pieces, separate_file

RATE = 16_000


class Bands:
    """Splits a sound into bands of hertz by FFT and shuffles them in every piece; keeps the lengths it was given."""

    layers = ()

    def __init__(self, edges=(0, 500, 2_000, 8_001), shuffled=True):
        self.edges, self.config = edges, {"num_sources": len(edges) - 1}
        self.rng, self.lengths, self.shuffled = np.random.default_rng(0), [], shuffled

    def predict_on_batch(self, mixture):
        self.lengths.append(mixture.shape[1])
        spectrum, hertz = np.fft.rfft(mixture[0]), np.fft.rfftfreq(mixture.shape[1], 1 / RATE)
        bands = [spectrum * ((low <= hertz) & (hertz < high)) for low, high in zip(self.edges, self.edges[1:])]
        channels = np.fft.irfft(bands, mixture.shape[1]).astype("float32")
        return (self.rng.permutation(channels) if self.shuffled else channels)[None]


def three_tones(seconds, rate=RATE):
    """100, 1,000 and 3,000 Hz, each swelling at a pace of its own: (3, samples)."""
    time = np.arange(round(seconds * rate)) / rate
    swell = 0.2 + 0.1 * np.sin(2 * np.pi * np.array([[0.3], [0.7], [1.1]]) * time)
    return swell * np.sin(2 * np.pi * np.array([[100], [1_000], [3_000]]) * time)


def write(path, waveform, rate=RATE):
    soundfile.write(path, waveform.T, rate, subtype="FLOAT")
    return path


def read(outputs):
    return np.stack([soundfile.read(output, dtype="float32")[0] for output in outputs])


def agreement(reference, estimate):
    """SI-SNR in dB of each row, over samples, in float64."""
    reference, estimate = np.asarray(reference, "float64"), np.asarray(estimate, "float64")
    scale = np.sum(reference * estimate, axis=-1, keepdims=True) / np.sum(reference**2, axis=-1, keepdims=True)
    noise = np.sum((estimate - scale * reference) ** 2, axis=-1)
    return 10 * np.log10(np.sum((scale * reference) ** 2, axis=-1) / noise)


@pytest.fixture(scope="module")
def separator():
    """Untrained, but with a basis that rebuilds any signal and masks that open and close; 0.3 s of receptive field."""
    keras.utils.set_random_seed(0)
    sizes = dict(num_basis=64, frame_length=64, frame_step=32, bottleneck=16, hidden=32, dilations=(1, 2, 4, 8, 16))
    separator = TDCNPlusPlus(2, **sizes, repeats=2)
    separator.build((None, None))
    start_from_mdct(separator)
    separator.masks.kernel.assign(4 * separator.masks.kernel)
    return separator


def noise(seconds, seed=0):
    """Noise in bursts, so that it is neither stationary nor silent for long."""
    r = np.random.default_rng(seed)
    gains = np.repeat(r.uniform(0.02, 0.3, round(seconds * 10)), RATE // 10)
    return (gains * r.standard_normal(len(gains))).astype("float32")


@pytest.mark.parametrize("samples", [1, 700, RATE, 2 * RATE])
def test_what_fits_in_a_piece_is_separated_whole(tmp_path, separator, samples):
    mixture = noise(2)[:samples]
    outputs = separate_file(write(tmp_path / "a.wav", mixture), tmp_path / "out", separator, piece_seconds=2)
    assert [output.name for output in outputs] == ["a_channel1.wav", "a_channel2.wav"]
    # As exactly as compiled and uncompiled numbers agree.
    np.testing.assert_allclose(read(outputs), to_numpy(separator(mixture[None]))[0], atol=2e-6)


def test_a_long_file_in_pieces_is_close_to_the_whole(tmp_path, separator):
    mixture = noise(12.3)
    whole = to_numpy(separator(mixture[None]))[0]
    path = write(tmp_path / "a.wav", mixture)
    agreements = []
    for seconds in (1.0, 2.0, 4.0):
        outputs = separate_file(path, tmp_path, separator, RATE, seconds, 0.5, overwrite=True)
        channels = read(outputs)
        assert channels.shape == whole.shape
        np.testing.assert_allclose(channels.sum(axis=0), mixture, atol=1e-4)
        agreements.append(agreement(whole, channels).min())
    assert agreements == sorted(agreements) and agreements[0] > 10, agreements
    assert agreement(whole, whole[::-1]).max() < 5  # the channels differ: agreement is no matter of course


@pytest.mark.parametrize("seconds", [2.0, 2.01, 3.5, 7.77])
def test_channels_that_change_places_are_put_back(tmp_path, seconds):
    tones = three_tones(seconds)
    path = write(tmp_path / "tones.wav", tones.sum(axis=0))
    bands = Bands()
    channels = read(separate_file(path, tmp_path / "out", bands, piece_seconds=2, overlap=0.25))
    assert len(bands.lengths) == 1 + np.ceil((seconds - 2) / 1.5)
    which = np.argmax(np.abs(channels @ tones.T), axis=0)  # tone → channel
    assert sorted(which) == [0, 1, 2]
    assert agreement(tones[:, 1_000:-1_000], channels[which, 1_000:-1_000]).min() > 25
    np.testing.assert_allclose(channels.sum(axis=0), tones.sum(axis=0), atol=1e-4)


def test_only_clear_cases_change_places():
    loud, quiet, other = three_tones(0.5) * [[1], [0.01], [0.01]]
    before, order = np.stack([loud, quiet, other]), np.arange(3)
    assert _matched(before, before, order).tolist() == [0, 1, 2]
    assert _matched(before, before[[2, 0, 1]], order).tolist() == [1, 2, 0]
    assert _matched(before, before[[2, 0, 1]], np.array([1, 2, 0])).tolist() == [1, 2, 0]
    # The quiet ones change places although what the loud one lacks is far more than what that repairs.
    assert _matched(before, np.stack([0.8 * loud, other, quiet]), order).tolist() == [0, 2, 1]
    # By an exchange with share p of the other in each, the squared difference goes from 2p² to 2(1 - p)².
    for share, expected in ((0.6, [0, 1, 2]), (0.65, [0, 1, 2]), (0.68, [0, 2, 1]), (0.9, [0, 2, 1])):
        mixed = np.stack([loud, (1 - share) * quiet + share * other, share * quiet + (1 - share) * other])
        assert _matched(before, mixed, order).tolist() == expected
    nothing = np.zeros((3, 100))
    assert _matched(nothing, nothing, np.array([2, 0, 1])).tolist() == [2, 0, 1]


def test_an_order_stays_through_silence(tmp_path):
    """The separator changes its order once; a pause as long as an overlap comes later."""

    class Once(Bands):
        def predict_on_batch(self, mixture):
            channels = super().predict_on_batch(mixture)
            return channels if len(self.lengths) == 1 else channels[:, [1, 2, 0]]

    tones = three_tones(9.5)
    tones[:, 3 * RATE : round(3.5 * RATE)] = 0  # the second overlap of pieces of 2 s every 1.5 s
    path = write(tmp_path / "a.wav", tones.sum(axis=0))
    channels = read(separate_file(path, tmp_path / "out", Once(shuffled=False), piece_seconds=2, overlap=0.25))
    assert agreement(tones, channels).min() > 15


def test_pieces_meet_where_the_fade_says():
    """By hand: pieces of 6 with 2 in common of a sound of 11, by a separator that tells them apart."""
    values = {0: 1.0, 4: 2.0, 5: 1.5}  # by a piece's first sample
    pieces = _pieces([np.arange(3.0), np.arange(3.0, 11.0)], length=6, hop=4)
    cut = [(piece.tolist(), new) for piece, new in pieces]
    assert cut == [([0, 1, 2, 3, 4, 5], 6), ([4, 5, 6, 7, 8, 9], 4), ([5, 6, 7, 8, 9, 10], 1)]
    arrays = ((np.array(piece, "float32"), new) for piece, new in cut)
    joined = _joined(arrays, lambda batch: (batch * 0 + values[batch[0, 0]])[:, None], overlap=2)
    rising = np.sin(np.pi / 8 * np.array([1, 3])) ** 2
    expected = [1] * 4 + [*(1 + rising)] + [2] * 2 + [*(2 - 0.5 * rising)] + [1.5]
    # The third piece begins at 5, but what it fades into is the end of the second, 8 and 9.
    np.testing.assert_allclose(np.concatenate(list(joined), axis=1)[0], expected, atol=1e-6)


def test_work_is_done_two_at_a_time_after_the_first_and_comes_in_order():
    drawn, later = [], threading.Event()
    two = keras.backend.backend() == "tensorflow" and processes(2) == 2

    def items():
        for item in range(8):
            drawn.append(item)
            yield item

    def square(item):
        if item == 0:
            assert drawn == [0]
        if item == 1 and two:
            assert later.wait(60)
        if item == 2:
            later.set()
        return item**2

    found = []
    for value in _in_order(square, items()):
        found.append(value)
        assert len(drawn) <= len(found) + 3  # no more are waiting
    assert found == [item**2 for item in range(8)]
    assert list(_in_order(square, [])) == []
    done = []
    results = _in_order(done.append, range(100))
    next(results), next(results)
    results.close()
    assert len(done) <= 5  # what waited is dropped


def test_no_piece_is_longer_than_asked_and_all_have_one_length(tmp_path):
    path = write(tmp_path / "a.wav", noise(30))
    bands = Bands()
    separate_file(path, tmp_path, bands, piece_seconds=2.5, overlap=0.2)
    assert set(bands.lengths) == {40_000} and len(bands.lengths) == 15


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    """The longest array that the reading, cutting and joining hold: counted where they grow one."""
    longest, concatenate = [], np.concatenate

    def counted(arrays, *arguments, **keywords):
        joined = concatenate(arrays, *arguments, **keywords)
        longest.append(joined.size)
        return joined

    path = write(tmp_path / "a.wav", noise(60))
    monkeypatch.setattr(np, "concatenate", counted)
    separate_file(path, tmp_path, Bands(), piece_seconds=2, overlap=0.25)
    assert max(longest) <= (2 + 1.5 + 1) * RATE  # a piece, what is new for the next, a block of reading


def test_any_rate_and_number_of_channels(tmp_path):
    """Stereo at 44.1 kHz: what is separated is the mean of both at 16 kHz, as `audio.read` gives it."""
    low, middle, high = three_tones(5, 44_100)
    path = write(tmp_path / "stereo.flac.wav", np.stack([2 * low + high, 2 * middle + high]), 44_100)
    outputs = separate_file(path, tmp_path, Bands(shuffled=False), piece_seconds=2, overlap=0.25)
    assert [output.name for output in outputs] == [f"stereo.flac_channel{number}.wav" for number in (1, 2, 3)]
    for output in outputs:
        info = soundfile.info(output)
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (RATE, 1, "FLOAT", 5 * RATE)
    channels = read(outputs)
    np.testing.assert_allclose(channels.sum(axis=0), audio.read(path), atol=1e-4)
    assert agreement(three_tones(5)[:, 1_000:-1_000], channels[:, 1_000:-1_000]).min() > 25


def test_what_exceeds_full_scale_is_kept(tmp_path):
    loud = 3 * noise(1)
    channels = read(separate_file(write(tmp_path / "a.wav", loud), tmp_path, Bands()))
    assert np.abs(channels).max() > 1
    np.testing.assert_allclose(channels.sum(axis=0), loud, atol=1e-4)


def test_silence_and_short_overlaps_of_silence_pass(tmp_path):
    sound = three_tones(6).sum(axis=0)
    sound[RATE : 5 * RATE] = 0
    channels = read(separate_file(write(tmp_path / "a.wav", sound), tmp_path, Bands(), RATE, 2, 0.25))
    np.testing.assert_allclose(channels.sum(axis=0), sound, atol=1e-4)


def test_a_recording_too_long_for_wav_becomes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(separate, "WAV_BYTES", 4 * RATE)
    for seconds, container in ((0.9, "WAV"), (1.1, "RF64")):
        path = write(tmp_path / "a.wav", noise(seconds))
        outputs = separate_file(path, tmp_path, Bands(), overwrite=True)
        assert soundfile.info(outputs[0]).format == container
        np.testing.assert_allclose(read(outputs).sum(axis=0), audio.read(path), atol=1e-4)


def test_nothing_is_overwritten_unasked(tmp_path):
    path, bands = write(tmp_path / "a.wav", noise(1)), Bands()
    (tmp_path / "a_channel2.wav").write_text("mine")
    with pytest.raises(BadInput, match="a_channel2.wav: expected no such file, or overwrite=True"):
        separate_file(path, tmp_path, bands)
    assert not bands.lengths and sorted(file.name for file in tmp_path.iterdir()) == ["a.wav", "a_channel2.wav"]
    assert (tmp_path / "a_channel2.wav").read_text() == "mine"
    assert read(separate_file(path, tmp_path, bands, overwrite=True)).shape == (3, RATE)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, room_for):
    path = write(tmp_path / "a.wav", three_tones(2).sum(axis=0))
    room_for(50_000)
    with pytest.raises(BadInput, match="out: cannot be written .*; expected a folder with room"):
        separate_file(path, tmp_path / "out", Bands(), show=False)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing_and_what_was_there(tmp_path, error):
    class Interrupted(Bands):
        def predict_on_batch(self, mixture):
            if len(self.lengths) >= 2:
                raise error
            return super().predict_on_batch(mixture)

    path = write(tmp_path / "a.wav", noise(8))
    out = tmp_path / "out"
    out.mkdir()
    (out / "a_channel1.wav").write_text("mine")
    with pytest.raises(error):
        separate_file(path, out, Interrupted(), RATE, 2, 0.25, overwrite=True)
    assert [file.name for file in out.iterdir()] == ["a_channel1.wav"]
    assert (out / "a_channel1.wav").read_text() == "mine"


def test_progress_counts_seconds_and_can_be_silenced(tmp_path, capsys):
    path = write(tmp_path / "a.wav", noise(7.4))
    separate_file(path, tmp_path / "one", Bands(), RATE, 2, 0.25, show=False)
    assert not "".join(capsys.readouterr())
    separate_file(path, tmp_path / "two", Bands(), RATE, 2, 0.25)
    shown = capsys.readouterr()
    assert "a.wav: 100%" in shown.out and "7/7" in shown.out and not shown.err


def test_bad_files_are_refused(tmp_path):
    path, out = tmp_path / "a.wav", tmp_path / "out"
    with pytest.raises(BadInput, match="a.wav: expected a sound file, but there is none"):
        separate_file(path, out, Bands())
    path.write_text("no sound")
    with pytest.raises(BadInput, match="a.wav: expected a readable wav"):
        separate_file(path, out, Bands())
    write(path, np.zeros(0))
    with pytest.raises(BadInput, match="a.wav: expected sound, but the file holds no samples"):
        separate_file(path, out, Bands())
    write(path, np.concatenate([noise(5), [np.inf]]))
    with pytest.raises(BadInput, match="a.wav: expected finite samples"):
        separate_file(path, out, Bands(), RATE, 2, 0.25)
    assert not out.exists() or not list(out.iterdir())
    write(path, noise(1))
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadInput, match="expected a folder, but .*file is a file"):
            separate_file(path, folder, Bands())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(sample_rate=0), "sample_rate=0: expected a whole number"),
        (dict(sample_rate=16_000.0), "sample_rate=16000.0: expected a whole number"),
        (dict(overlap=0), "overlap=0: expected a finite number above 0"),
        (dict(overlap=0.51), "overlap=0.51: expected an overlap of a sample to half a piece"),
        (dict(overlap=1e-7), "overlap=1e-07: expected an overlap of a sample to half a piece"),
        (dict(overlap=float("nan")), "overlap=nan: expected a finite number"),
        (dict(overlap=None), "overlap=None: expected a finite number"),
        (dict(piece_seconds="20"), "piece_seconds='20': expected a finite number"),
        (dict(piece_seconds=float("inf")), "piece_seconds=inf: expected a finite number"),
        (dict(piece_seconds=0), "piece_seconds=0: expected a finite number above 0"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(tmp_path, arguments, message):
    with pytest.raises(BadInput, match=message):
        separate_file(write(tmp_path / "a.wav", noise(1)), tmp_path, Bands(), **arguments)


def test_a_separator_gone_astray_is_named(tmp_path):
    class Broken(Bands):
        def predict_on_batch(self, mixture):
            return np.full((1, 3, mixture.shape[1]), np.nan)

    with pytest.raises(BadInput, match="the separator gives NaN or infinity"):
        separate_file(write(tmp_path / "a.wav", noise(1)), tmp_path / "out", Broken())
    assert not list((tmp_path / "out").iterdir())


def test_a_flac_that_does_not_say_its_length_is_separated_to_its_end(tmp_path, capsys):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(1.7), RATE)
    expected = soundfile.read(path, dtype="float32")[0]
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    outputs = separate_file(path, tmp_path / "out", Bands(), RATE, piece_seconds=0.5)
    total = sum(soundfile.read(output, dtype="float32")[0] for output in outputs)
    np.testing.assert_allclose(total, expected, atol=1e-5)
    assert "a.flac" in capsys.readouterr().out


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    """And what a run that is still at work has, is not."""
    path, folder = write(tmp_path / "a.wav", noise(0.5)), tmp_path / "out"
    folder.mkdir()
    killed = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = folder / f".a_channel1-{platform.node()}-{int(killed.stdout)}-x7y8z9.wav"
    kept = folder / f".a_channel1-{platform.node()}-{os.getpid()}-x7y8z9.wav"
    left.touch()
    kept.touch()
    separate_file(path, folder, Bands(), RATE, show=False)
    assert sorted(file.name for file in folder.iterdir()) == [
        kept.name,
        *(f"a_channel{number}.wav" for number in (1, 2, 3)),
    ]
