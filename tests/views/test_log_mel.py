"""Log-mel against librosa and tf.signal, and against the trap of batch-wide floors."""

import keras
import numpy as np
import pytest

from sepcl_keras.core.checks import BadInput
from sepcl_keras.views.log_mel import LogMel, mel_matrix


@pytest.mark.parametrize("recipe, key, tolerance", [("panns", "panns_16k_db_slaney", 1e-3), ("vggish", "vggish", 1e-4)])
def test_equals_the_golden(goldens, recipe, key, tolerance):
    golden = goldens["logmel"][key]
    waveform = (np.random.default_rng(0).standard_normal(16_000) * 0.1).astype("float32")
    layer = LogMel(recipe)
    log_mel = np.asarray(layer(waveform[None]))[0]
    assert list(log_mel.shape) == golden["shape"] == [layer.frames(16_000), 64]
    assert log_mel.mean() == pytest.approx(golden["mean"], abs=tolerance)
    assert log_mel.std() == pytest.approx(golden["std"], abs=tolerance)
    np.testing.assert_allclose(log_mel.ravel()[:6], golden["head"], atol=tolerance)


@pytest.mark.parametrize("recipe, tolerance", [("panns", 1e-3), ("vggish", 1e-4)])
def test_bands_100_db_below_a_tone_are_right_too(recipe, tolerance):
    noise = 1e-5 * np.random.default_rng(0).standard_normal(16_000)
    tone = (0.9 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) + noise).astype("float32")
    samples, length = tone.astype("float64"), 512 if recipe == "panns" else 400
    if recipe == "panns":
        samples = np.pad(samples, 256, mode="reflect")
    frames = np.stack([samples[start : start + length] for start in range(0, len(samples) - length + 1, 160)])
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(length + 1)[:-1], 512))
    expected = {"panns": lambda: 10 * np.log10(np.maximum(spectrum**2 @ mel_matrix("panns"), 1e-10)),
                "vggish": lambda: np.log(spectrum @ mel_matrix("vggish") + 0.01)}[recipe]()  # fmt: skip
    log_mel = np.asarray(LogMel(recipe)(tone[None]))[0]
    if recipe == "panns":
        assert expected.min() < expected.max() - 100
    np.testing.assert_allclose(log_mel, expected, atol=tolerance)


@pytest.mark.parametrize("recipe", ["panns", "vggish"])
def test_a_quiet_clip_does_not_depend_on_a_loud_batch_mate(recipe):
    clips = np.random.default_rng(0).standard_normal((3, 4_000)).astype("float32") * [[1e-4], [1.0], [1e-2]]
    together = np.asarray(LogMel(recipe)(clips))
    for i in range(3):
        np.testing.assert_allclose(np.asarray(LogMel(recipe)(clips[i : i + 1]))[0], together[i], atol=1e-4)


def test_its_gradient_is_the_slope(value_and_gradients):
    rng = np.random.default_rng(0)
    clip, direction = (0.1 * rng.standard_normal((2, 1, 800))).astype("float32")
    layer = LogMel("panns")
    _, (gradient,) = value_and_gradients(lambda x: keras.ops.sum(layer(x)), clip)
    above, below = (float(np.asarray(layer(clip + sign * 1e-3 * direction)).sum(dtype="float64")) for sign in (1, -1))
    assert np.sum(gradient * direction) == pytest.approx((above - below) / 2e-3, rel=1e-2)


def test_a_tone_lights_the_band_that_holds_it():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype("float32")
    for recipe in ("panns", "vggish"):
        band = int(np.asarray(LogMel(recipe)(tone[None]))[0].mean(axis=0).argmax())
        assert band == mel_matrix(recipe)[32].argmax()  # 1 kHz is bin 32 of 512 at 16 kHz


def test_15600_samples_are_one_patch():
    assert LogMel("vggish").frames(15_600) == 96


def test_silence_is_finite_and_short_clips_are_refused():
    assert np.all(np.isfinite(np.asarray(LogMel("panns")(np.zeros((1, 800), "float32")))))
    with pytest.raises(BadInput, match="a clip of 399 samples; expected at least 400"):
        LogMel()(np.zeros((1, 399), "float32"))
    for recipe in ("mfcc", None, ["vggish"], b"vggish"):
        with pytest.raises(BadInput, match="LogMel: recipe=.*: expected one of vggish, panns"):
            LogMel(recipe)


@pytest.mark.parametrize("recipe", ["vggish", "panns"])
@pytest.mark.parametrize("shape", [(800,), (1, 1, 800)])
def test_waveforms_of_another_shape_are_refused(recipe, shape):
    with pytest.raises(BadInput, match=r"LogMel: waveforms of shape .*; expected \(clips, samples\)"):
        LogMel(recipe)(np.zeros(shape, "float32"))


@pytest.mark.once
def test_saved_and_loaded_it_gives_the_same(tmp_path, in_a_fresh_process):
    waveforms = np.random.default_rng(0).standard_normal((2, 1_600)).astype("float32")
    model = keras.Sequential([keras.Input((1_600,)), LogMel("panns")])
    model.save(tmp_path / "features.keras")
    np.testing.assert_allclose(
        in_a_fresh_process(tmp_path / "features.keras", waveforms), np.asarray(model(waveforms)), atol=1e-4
    )
