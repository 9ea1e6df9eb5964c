"""TDCN++ against algebra and against its own promises; against Google's graph in test_google.py."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from keras.ops import convert_to_tensor as to_tensor

from sepcl_keras.core.checks import BadInput
from sepcl_keras.separation.network import (
    CONSISTENCY,
    TDCNPlusPlus,
    energy_weights,
    mixture_consistency,
    start_from_mdct,
)

SMALL = dict(num_basis=16, frame_length=8, frame_step=4, bottleneck=8, hidden=12, dilations=(1, 2), repeats=2)


def raw_sources(separator, mixture):
    """Sources (clips, sources, samples) before mixture consistency, by a loop in float64; the last block's output."""
    c = separator.config
    x = keras.ops.relu(separator.frame(mixture) @ separator.encoder.kernel)
    coefficients, x = to_numpy(x).astype("float64"), separator.initial(x)
    for block in separator.blocks:
        x = block(x)
    last = to_numpy(x).astype("float64")
    masks = 1 / (1 + np.exp(-last @ to_numpy(separator.masks.kernel).astype("float64")))
    sources = np.zeros((len(mixture), c["num_sources"], mixture.shape[1] + c["frame_length"]))
    for source, mask in enumerate(np.split(masks, c["num_sources"], axis=-1)):
        frames = (mask * coefficients) @ to_numpy(separator.decoder.kernel).astype("float64")
        for index in range(frames.shape[1]):
            start = index * c["frame_step"]
            sources[:, source, start : start + c["frame_length"]] += frames[:, index]
    return sources[..., : mixture.shape[1]], last


@pytest.mark.parametrize(
    "sources, long_skips, parameters",
    [(2, False, 8_672_257), (4, False, 8_803_841), (2, True, 9_067_015), (4, True, 9_198_599)],
)
def test_has_the_papers_size(sources, long_skips, parameters):
    separator = TDCNPlusPlus(sources, long_skips=long_skips)
    separator.build((None, 16_000))
    assert separator.count_params() == parameters
    assert separator.receptive_field == 40_840


@pytest.mark.parametrize("consistency", ["uniform", "energy"])
def test_only_predicted_weights_have_a_layer(consistency):
    separator = TDCNPlusPlus(4, long_skips=True, consistency=consistency)
    separator.build((None, None))
    assert separator.count_params() == 9_198_599 - 256 * 4
    assert not hasattr(separator, "weighting")


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 101])  # a frame has 8
@pytest.mark.parametrize(
    "step, long_skips, consistency", [(4, False, "predicted"), (3, True, "uniform"), (2, False, "energy")]
)
def test_channels_sum_to_the_mixture_at_any_length(samples, step, long_skips, consistency):
    mixture = np.random.default_rng(samples).standard_normal((2, samples)).astype("float32")
    sizes = SMALL | dict(frame_step=step, long_skips=long_skips, consistency=consistency)
    channels = to_numpy(TDCNPlusPlus(3, **sizes)(mixture))
    assert channels.shape == (2, 3, samples) and np.isfinite(channels).all()
    np.testing.assert_allclose(channels.sum(axis=1), mixture, atol=1e-5)


@pytest.mark.parametrize("length, step", [(8, 4), (8, 2), (8, 8), (8, 3), (8, 5), (8, 7), (55, 28)])
@pytest.mark.parametrize("samples", [1, 8, 9, 17, 300])
def test_frames_and_their_sum_equal_a_loop(length, step, samples):
    separator = TDCNPlusPlus(1, **SMALL | dict(frame_length=length, frame_step=step))
    signal = np.random.default_rng(0).standard_normal((2, samples)).astype("float32")
    count = 1 + max(0, int(np.ceil((samples - length) / step)))  # the fewest frames that reach the last sample
    padded = np.pad(signal, ((0, 0), (0, count * step + length)))
    frames = np.stack([padded[:, i * step : i * step + length] for i in range(count)], axis=1)
    np.testing.assert_array_equal(to_numpy(separator.frame(signal)), frames)
    total = np.zeros_like(padded)
    for i in range(count):
        total[:, i * step : i * step + length] += frames[:, i]
    rebuilt = to_numpy(separator.overlap_add(to_tensor(frames[:, None]), samples))
    np.testing.assert_allclose(rebuilt[:, 0], total[:, :samples], atol=1e-5)


@pytest.mark.parametrize("consistency", CONSISTENCY)
def test_an_example_does_not_depend_on_its_batch_mates(consistency):
    """At the paper's depth, dilations and long skips, and at its width but for the basis."""
    mixture = np.random.default_rng(1).standard_normal((3, 400)).astype("float32")
    separator = TDCNPlusPlus(2, num_basis=64, bottleneck=64, hidden=96, long_skips=True, consistency=consistency)
    together = to_numpy(separator(mixture))
    for size in (1, 2):
        np.testing.assert_allclose(to_numpy(separator(mixture[:size])), together[:size], atol=1e-5)
    # In a batch of one size the numbers are the same to the last bit, whatever the others are: loud, silent or broken.
    others = np.stack([mixture[0], np.zeros(400, "float32"), np.full(400, np.nan, "float32")])
    np.testing.assert_array_equal(to_numpy(separator(others))[0], together[0])
    others[1:] = 1e3 * mixture[1:]
    np.testing.assert_array_equal(to_numpy(separator(others))[0], together[0])


def test_mixture_consistency_equals_the_golden(goldens):
    golden = goldens["mixture_consistency"]
    r = np.random.default_rng(7)
    estimates = (r.standard_normal((3, 4, 64)) * 0.1).astype("float32")
    noise = r.standard_normal((3, 2, 64))
    mixtures = np.stack([estimates[:, 0] + estimates[:, 2], estimates[:, 1] + estimates[:, 3]], 1) + 0.05 * noise
    weights = np.tile(np.float32([0.5, 0.2, 0.2, 0.1]), (3, 1))
    mixture, estimates, weights = map(to_tensor, (mixtures[:, 0].astype("float32"), estimates, weights))
    consistent = to_numpy(mixture_consistency(mixture, estimates, weights))
    np.testing.assert_allclose(consistent.ravel()[:6], golden["weights_.5_.2_.2_.1_head"], atol=1e-6)


def test_energy_weights_equal_the_golden_and_a_hand_computation(goldens):
    r = np.random.default_rng(7)
    estimates = (r.standard_normal((3, 4, 64)) * 0.1).astype("float32")
    noise = r.standard_normal((3, 2, 64))
    mixture = to_tensor((estimates[:, 0] + estimates[:, 2] + 0.05 * noise[:, 0]).astype("float32"))
    estimates = to_tensor(estimates)
    consistent = to_numpy(mixture_consistency(mixture, estimates, energy_weights(estimates)))
    np.testing.assert_allclose(consistent.ravel()[:6], goldens["mixture_consistency"]["power_weights_head"], atol=1e-6)
    # Energies 4, 1 and 0, then silence: 4 / 5, 1 / 5, nothing; then thirds instead of 0 / 0.
    sources = np.zeros((2, 3, 6), "float32")
    sources[0, 0], sources[0, 1] = 2.0, [1, -1, 1, -1, 1, -1]
    np.testing.assert_allclose(to_numpy(energy_weights(sources)), [[0.8, 0.2, 0], [1 / 3] * 3], atol=1e-6)


@pytest.mark.parametrize("consistency", CONSISTENCY)
def test_what_is_missing_is_shared_out_as_asked(consistency):
    mixture = np.random.default_rng(8).standard_normal((2, 90)).astype("float32")
    separator = TDCNPlusPlus(4, **SMALL, consistency=consistency)
    channels = to_numpy(separator(mixture)).astype("float64")
    plain, last = raw_sources(separator, mixture)
    shares = np.full((2, 4), 0.25)
    if consistency == "energy":
        energy = np.mean(plain**2, axis=-1)
        shares = energy / energy.sum(axis=1, keepdims=True)
    elif consistency == "predicted":
        logits = last.mean(axis=1) @ to_numpy(separator.weighting.kernel).astype("float64")
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    missing = mixture - plain.sum(axis=1)
    expected = plain + shares[:, :, None] * missing[:, None]
    assert np.abs(missing).max() > 0.1
    np.testing.assert_allclose(channels, expected, atol=1e-5)


@pytest.mark.parametrize("consistency", CONSISTENCY)
def test_silence_is_separated_into_silence(consistency):
    silence = np.zeros((2, 50), "float32")
    channels = to_numpy(TDCNPlusPlus(3, **SMALL, consistency=consistency)(silence))
    np.testing.assert_array_equal(channels, np.zeros((2, 3, 50)))


def test_half_precision_keeps_the_sum_in_float32():
    mixture = np.random.default_rng(2).standard_normal((1, 64)).astype("float32")
    channels = to_numpy(TDCNPlusPlus(2, dtype="mixed_bfloat16", **SMALL)(mixture))
    assert channels.dtype == np.float32
    np.testing.assert_allclose(channels.sum(axis=1), mixture, atol=1e-5)


@pytest.mark.once
def test_saved_and_loaded_it_separates_the_same(tmp_path, in_a_fresh_process):
    separator = TDCNPlusPlus(2, long_skips=True, consistency="energy", **SMALL)
    mixture = np.random.default_rng(3).standard_normal((1, 100)).astype("float32")
    channels = to_numpy(separator(mixture))
    separator.save(tmp_path / "separator.keras")
    assert (
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(separator)).config == separator.config
    )
    np.testing.assert_allclose(in_a_fresh_process(tmp_path / "separator.keras", mixture), channels, atol=1e-6)


def test_the_starting_basis_rebuilds_any_signal_and_tells_pitches_apart():
    separator = TDCNPlusPlus(2, num_basis=64, frame_length=64, frame_step=32, bottleneck=8, hidden=8, repeats=1)
    separator.build((None, None))
    start_from_mdct(separator)
    signal = np.random.default_rng(0).standard_normal((1, 640)).astype("float32")
    coefficients = separator.encoder(separator.frame(signal))
    frames = separator.decoder(coefficients)[:, None]  # (clips, 1, frames, frame_length)
    separator.config["num_sources"] = 1
    rebuilt = to_numpy(separator.overlap_add(frames, 640))[0, 0]
    np.testing.assert_allclose(rebuilt[32:-32], signal[0, 32:-32], atol=1e-5)  # the ends lie in one frame only
    tone = np.sin(2 * np.pi * 3_000 * np.arange(640) / 16_000).astype("float32")[None]
    energy = np.square(to_numpy(separator.encoder(separator.frame(tone)))).sum(axis=(0, 1))
    bands = energy[:32] + energy[32:]
    assert bands.argmax() == pytest.approx(3_000 / 250 - 0.5, abs=1)  # 32 bands of 250 Hz
    with pytest.raises(BadInput, match="16 basis functions on frames of 8 samples every 4"):
        start_from_mdct(TDCNPlusPlus(2, **SMALL))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(frame_step=41), "frame_step=41; expected 1 to frame_length=40"),
        (dict(frame_step=0), "frame_step=0: expected a whole number of at least 1"),
        (dict(num_sources=2.5), "num_sources=2.5: expected a whole number of at least 1"),
        (dict(dilations=(1, 0)), "dilations=0: expected a whole number of at least 1"),
        (dict(consistency="magsq"), "consistency='magsq': expected one of predicted, uniform, energy"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(BadInput, match=message):
        TDCNPlusPlus(**arguments)


@pytest.mark.parametrize("shape", [(400,), (2, 1, 400)])
def test_a_mixture_of_another_rank_is_refused(shape):
    with pytest.raises(BadInput, match=r"a mixture of shape .*400.*; expected \(clips, samples\)"):
        TDCNPlusPlus(2, **SMALL)(np.zeros(shape, "float32"))
