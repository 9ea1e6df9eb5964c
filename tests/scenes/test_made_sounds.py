"""Made sounds: pure functions of a seed, valid waveforms, the physics of their names, wide variation in a class."""

import csv
import functools

import numpy as np
import pytest
import scipy.signal

from sepcl_keras.core.checks import BadInput
from sepcl_keras.scenes import made_sounds
from sepcl_keras.scenes.banks import TABLES
from sepcl_keras.scenes.made_sounds import CLASSES, make_event

RATE = 16_000


def take(seed=0, seconds=None, rate=RATE):
    """Building blocks with a random stream of their own; `seconds` fixes the length."""
    event = made_sounds._Event("rain", seed, rate)
    if seconds:
        event.seconds, event.samples = seconds, round(seconds * rate)
        event.time = np.arange(event.samples) / rate
    return event


@functools.cache
def events(name, number=10):
    """The first `number` events of a class."""
    return [make_event(name, seed) for seed in range(number)]


def power(signal, size=None):
    """Power spectrum (frequencies,) and its frequencies in Hz."""
    windowed = signal * np.hanning(len(signal))
    size = size or len(signal)
    return np.abs(np.fft.rfft(windowed, size)) ** 2, np.fft.rfftfreq(size, 1 / RATE)


def envelope(signal, rate=400):
    """RMS envelope at `rate` Hz."""
    step = RATE // rate
    return np.sqrt(np.mean(signal[: len(signal) // step * step].reshape(-1, step) ** 2, 1))


def modulation_peak(signal, low, high):
    """The strongest modulation of the envelope between `low` and `high` Hz."""
    shape = envelope(signal)
    spectrum = np.abs(np.fft.rfft((shape - shape.mean()) * np.hanning(len(shape)), 8192))
    frequency = np.fft.rfftfreq(8192, 1 / 400)
    inside = (frequency >= low) & (frequency <= high)
    return frequency[inside][spectrum[inside].argmax()]


def peak_track(signal):
    """Strongest frequency of each loud frame, in octaves."""
    frequency, _, spectrum = scipy.signal.stft(signal, RATE, nperseg=1024, noverlap=768, boundary=None, padded=False)
    spectrum = np.abs(spectrum)
    loud = spectrum.max(0) > 0.1 * spectrum.max()
    return np.log2(frequency[1:][spectrum[1:].argmax(0)[loud]])


def periodicity(signal, shortest=0.2, longest=1.4):
    """Highest autocorrelation of the envelope's rises at a lag between `shortest` and `longest` seconds, 0–1."""
    rises = np.maximum(np.diff(np.log(envelope(signal, 200) + 1e-2)), 0)
    rises = scipy.signal.lfilter(np.hanning(7), 1, rises - rises.mean())
    lags = np.correlate(rises, rises, "full")[len(rises) - 1 :]
    shares = lags / lags[0] * len(rises) / np.arange(len(rises), 0, -1)
    return shares[int(shortest * 200) : min(int(longest * 200), int(0.75 * len(rises)))].max()


def crest(signal):
    """Peak over median of the envelope, in dB: high for separate events, low for a steady sound."""
    shape = envelope(signal, 200)
    return 20 * np.log10(shape.max() / (np.median(shape) + 1e-6))


# Interface


def test_the_table_of_classes_is_the_one_in_the_code():
    with open(TABLES / "made_classes.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(row["label"] for row in rows) == CLASSES
    assert all(row["idea"].strip() for row in rows)
    assert len(set(CLASSES)) == len(CLASSES) >= 16


@pytest.mark.parametrize("name", CLASSES)
def test_events_are_valid_waveforms_and_functions_of_the_seed(name):
    state = np.random.get_state()[1].copy()
    for seed in range(12):
        event = make_event(name, seed)
        assert event.dtype == np.float32 and event.ndim == 1
        assert 2 * RATE - 1 <= len(event) <= 5 * RATE + 1
        assert np.isfinite(event).all()
        assert np.abs(event).max() == pytest.approx(0.9, abs=1e-6)
        assert np.sqrt(np.mean(event**2)) > 0.003
        assert abs(event.mean()) < 0.002
    np.testing.assert_array_equal(event, make_event(name, seed))
    np.testing.assert_array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("seed", [92, 291, 334])
def test_a_dog_barks_quickly_for_as_long_as_it_likes(seed):
    event = make_event("dog_bark", seed)  # 22 barks or more
    assert np.abs(event).max() == pytest.approx(0.9, abs=1e-6) and len(event) > 4 * RATE
    assert np.sqrt(np.mean(event[-RATE:] ** 2)) > 0.01  # the last second is not silent


@pytest.mark.parametrize("name", CLASSES)
def test_other_seeds_are_other_events(name):
    events = [make_event(name, seed) for seed in (3, 4, (3, 4), (3, 0), (0, 3), 2**70)]
    for i, one in enumerate(events):
        for other in events[:i]:
            assert len(one) != len(other) or not np.allclose(one, other, atol=1e-3)
    np.testing.assert_array_equal(make_event(name, (3, 4)), make_event(name, np.array([3, 4])))


def test_classes_do_not_share_random_streams():
    assert len({len(make_event(name, 0)) for name in CLASSES}) > len(CLASSES) // 2


@pytest.mark.parametrize("name", CLASSES)
def test_another_sample_rate_keeps_the_length_in_seconds(name):
    for seed in range(3):
        length = len(make_event(name, seed)) / RATE
        for rate in (22_050, 48_000):
            assert len(make_event(name, seed, sample_rate=rate)) / rate == pytest.approx(length, abs=1e-4)


@pytest.mark.parametrize("name", ["siren", "bird_song", "church_bell"])
def test_another_sample_rate_keeps_the_drawn_parameters(name):
    # Before room and microphone these have no noise in them: only the sampling differs.
    for seed in range(3):
        low, high = (getattr(made_sounds._Event(name, seed, rate), name)() for rate in (RATE, 4 * RATE))
        low, high = envelope(low, 50), envelope(scipy.signal.resample_poly(high, 1, 4), 50)
        number = min(len(low), len(high)) - 1
        assert np.corrcoef(low[1:number], high[1:number])[0, 1] > 0.95


def test_bad_input_is_named():
    with pytest.raises(BadInput) as error:
        make_event("didgeridoo", 0)
    assert "'didgeridoo'" in str(error.value)
    assert all(name in str(error.value) for name in CLASSES)
    for hidden in ("noise", "record", "__init__"):  # building blocks are no classes
        with pytest.raises(BadInput):
            make_event(hidden, 0)
    with pytest.raises(BadInput, match="sample_rate=8000.*16000"):
        make_event("rain", 0, sample_rate=8000)


# Building blocks


def test_modes_are_the_sum_of_damped_sines():
    frequencies, decays = np.array([220.0, 523.25, 1700.0]), np.array([0.5, 0.2, 0.05])
    body = take().modes(frequencies, decays, 1.0, 1.0)
    time = np.arange(body.shape[1]) / RATE
    expected = sum(np.exp(-time / d) * np.sin(2 * np.pi * f * time) for f, d in zip(frequencies, decays, strict=True))
    assert body.shape[0] == 1 and body.shape[1] >= RATE
    np.testing.assert_allclose(body[0], expected, atol=1e-9)


def test_pings_rise_in_pitch():
    steady, rising = (take().pings(np.array([500.0]), np.array([0.05]), rise)[0] for rise in (0.0, 0.2))

    def crossings(signal):
        return np.flatnonzero((signal[:-1] <= 0) & (signal[1:] > 0)) / RATE

    np.testing.assert_allclose(np.diff(crossings(steady)), 1 / 500, atol=2 / RATE)
    # The factor is 1 + 0.2 after one decay, 1 + 0.6 after three.
    late = crossings(rising)
    assert np.interp(0.05, late[1:], 1 / np.diff(late)) == pytest.approx(600, rel=0.05)
    assert np.interp(0.15, late[1:], 1 / np.diff(late)) == pytest.approx(800, rel=0.05)


def test_pulses_have_harmonics_that_fall_by_e_every_edge():
    event = take(seconds=1.0)
    spectrum = np.abs(np.fft.rfft(event.pulses(np.full(RATE, 100.0), 500.0)))
    harmonics = spectrum[100:2100:100]
    assert harmonics.sum() > 50 * np.delete(spectrum[:2100], np.arange(0, 2100, 100)).sum()
    np.testing.assert_allclose(harmonics[5:] / harmonics[:-5], np.exp(-1), rtol=1e-3)


def test_noise_lies_in_its_band():
    spectrum, frequency = power(take(seconds=4.0).noise(500, 2000))
    inside, far = (frequency > 400) & (frequency < 2500), (frequency < 100) | (frequency > 7500)
    assert spectrum[inside].mean() > 50 * spectrum[far].mean()


def test_poisson_onsets_are_as_irregular_as_they_should_be():
    event = take(seconds=4.0)
    onsets = np.sort(event.poisson(500))
    gaps = np.diff(onsets)
    assert onsets[0] >= 0 and onsets[-1] <= 4
    assert len(onsets) == pytest.approx(2000, abs=5 * np.sqrt(2000))
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.1)  # exponential
    early = event.poisson(500, np.where(event.time < 2, 9.0, 1.0))
    assert np.mean(early < 2) == pytest.approx(0.9, abs=0.04)


def test_beats_are_even_without_jitter_and_never_too_many():
    event = take(seconds=3.0)
    np.testing.assert_allclose(np.diff(event.beats(4.0)), 0.25)
    assert len(event.beats(4.0, 0.2, most=3)) == 3
    jittered = np.diff(event.beats(4.0, 0.2))
    assert jittered.std() > 0.005 and np.all(np.abs(jittered - 0.25) <= 0.05 + 1e-9)


def test_resonances_have_unit_gain_at_their_frequency():
    event = take(seconds=1.0)
    heard = event.resonate(np.sin(2 * np.pi * 1000 * event.time), np.array([1000.0]), np.array([100.0]))
    assert np.abs(heard[RATE // 2 :]).max() == pytest.approx(1, abs=0.01)
    aside = event.resonate(np.sin(2 * np.pi * 2000 * event.time), np.array([1000.0]), np.array([100.0]))
    assert np.abs(aside[RATE // 2 :]).max() < 0.1


# Physics


def test_a_siren_glides_and_a_cricket_does_not():
    def spans(name):
        return [np.subtract(*np.quantile(peak_track(event), [0.95, 0.05])) for event in events(name)]

    assert min(spans("siren")) > 0.2  # octaves
    assert max(spans("cricket")) < 0.15


def test_a_siren_is_bright_and_a_cricket_is_pure():
    def share_of_the_peak(name):  # the 300 Hz around it, of 64 ms at the loudest moment
        shares = []
        for event in events(name):
            start = envelope(event, 50)[:-4].argmax() * RATE // 50
            spectrum, frequency = power(event[start : start + 1024])
            shares.append(spectrum[np.abs(frequency - frequency[spectrum.argmax()]) <= 150].sum() / spectrum.sum())
        return np.median(shares)

    assert share_of_the_peak("cricket") > 0.85 > share_of_the_peak("siren")


def test_wings_and_rotors_beat_at_their_rates():
    for event in events("cricket"):
        assert 20 <= modulation_peak(event, 15, 150) <= 70
    for event in events("helicopter"):
        assert 7 <= modulation_peak(event, 3, 30) <= 28


def test_a_clock_is_periodic_and_a_fire_is_not():
    def median(name):
        return np.median([periodicity(event) for event in events(name)])

    assert median("clock_tick") > 0.8
    assert max(median("crackling_fire"), median("rain")) < 0.4


def test_blows_stand_apart_and_horns_and_rain_do_not():
    def median(name):
        return np.median([crest(event) for event in events(name)])

    blows = {name: median(name) for name in ("clock_tick", "door_knock", "footsteps", "dog_bark")}
    flows = {name: median(name) for name in ("siren", "rain", "sea_waves", "wind")}
    assert min(blows.values()) > max(flows.values()) + 3, (blows, flows)  # dB


def test_a_bell_rings_down_with_inharmonic_partials_and_low_ones_last():
    fallen, brighter = [], []
    for seed in range(10):
        event = made_sounds._Event("church_bell", seed, RATE)
        event.beats = lambda *arguments: np.zeros(1)  # a single stroke
        bell = event.church_bell()
        spectrum, frequency = power(bell, 1 << 17)
        peaks, _ = scipy.signal.find_peaks(spectrum, 1e-3 * spectrum.max(), distance=400)
        ratios = frequency[peaks][1:] / frequency[peaks][0]
        assert len(ratios) >= 3
        assert np.abs(ratios - np.round(ratios)).max() > 0.1
        fallen.append(envelope(bell, 10)[-2] / envelope(bell, 10)[0])
        (early, pitch), (late, _) = power(bell[:8000]), power(bell[-8000:])
        brighter.append((early @ pitch / early.sum()) / (late @ pitch / late.sum()))
    assert max(fallen) < 0.8
    assert np.median(brighter) > 1.1


def test_waves_swell_slowly_and_frying_flickers():
    def slow_share(name):  # modulation below 3 Hz within modulation below 50 Hz
        shares = []
        for event in events(name):
            shape = envelope(event, 100)
            spectrum = np.abs(np.fft.rfft((shape - shape.mean()) * np.hanning(len(shape)))) ** 2
            shares.append(spectrum[np.fft.rfftfreq(len(shape), 0.01) < 3].sum() / spectrum.sum())
        return np.median(shares)

    assert slow_share("sea_waves") > 0.8 > slow_share("frying") > slow_share("rain")


def test_voices_are_harmonic_and_frying_is_not():
    def harmonicity(name):  # highest autocorrelation at a pitch period of 100–1,000 Hz in the loudest 64 ms
        found = []
        for event in events(name):
            start = max(0, np.argmax(envelope(event, 50)) * 320 - 352)
            frame = event[start : start + 1024] * np.hanning(len(event[start : start + 1024]))
            lags = np.correlate(frame, frame, "full")[len(frame) - 1 :]
            first = np.argmax(lags < 0)
            found.append(lags[max(first, 16) : 160].max() / lags[0])
        return np.median(found)

    assert min(harmonicity("dog_bark"), harmonicity("baby_cry")) > 0.5 > harmonicity("frying")


# Variation


@pytest.fixture(scope="module")
def pictures():
    """Average log spectrum (classes, events, bands), centroid in Hz and length in seconds (classes, events)."""
    edges = np.geomspace(80, 8000, 31)
    spectra, centroids, lengths = [], [], []
    for name in CLASSES:
        for seed in range(100, 124):
            event = make_event(name, seed)
            frequency, density = scipy.signal.welch(event, RATE, nperseg=1024)
            bands = [density[(frequency >= e) & (frequency <= 1.17 * e + 8)].mean() for e in edges[:-1]]
            spectra.append(10 * np.log10(np.array(bands) / density.mean() + 1e-5))
            centroids.append((frequency * density).sum() / density.sum())
            lengths.append(len(event) / RATE)
    shape = len(CLASSES), 24
    return np.reshape(spectra, (*shape, 30)), np.reshape(centroids, shape), np.reshape(lengths, shape)


@pytest.mark.once
def test_events_of_one_class_vary_widely(pictures):
    _, centroids, lengths = pictures
    for name, centroid, length in zip(CLASSES, centroids, lengths, strict=True):
        low, high = np.quantile(centroid, [0.1, 0.9])
        assert high > 1.4 * low, name
        assert length.max() > 2 * length.min(), name


def test_the_average_spectrum_does_not_give_the_class_away(pictures):
    spectra = pictures[0]
    train, test = spectra[:, ::2].mean(1), spectra[:, 1::2]
    nearest = np.linalg.norm(test[:, :, None] - train, axis=-1).argmin(-1)
    accuracy = np.mean(nearest == np.arange(len(CLASSES))[:, None])
    assert 2 / len(CLASSES) < accuracy < 0.55
