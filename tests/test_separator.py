"""TDCN++ against Google's graph, against algebra, and against its own promises."""

import zlib

import keras
import numpy as np
import pytest

from sepcl_keras.files import BadInput
from sepcl_keras.separator import TDCNPlusPlus, load_google_weights, mixture_consistency, start_from_mdct

SMALL = dict(num_basis=16, frame_length=8, frame_step=4, bottleneck=8, hidden=12, dilations=(1, 2), repeats=2)


def formula_weights(golden):
    """Weights by the goldens' formula: a normal draw seeded by the variable's name, times a stated factor."""
    scalars, weights = dict(golden["scalars"]), {}
    for name, shape in golden["variables"]:
        r = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if name in scalars:
            weights[name] = scalars[name]
        elif name.endswith("depthwise_kernel"):
            weights[name] = r / np.sqrt(shape[0])
        elif name.endswith("gamma"):
            weights[name] = 1 + 0.1 * r
        elif name.endswith(("beta", "bias")):
            weights[name] = 0.1 * r
        else:
            weights[name] = r / np.sqrt(np.prod(shape[:-1]))
    return {name: np.asarray(value, "float32") for name, value in weights.items()}


def test_equals_googles_graph(goldens):
    golden = goldens["tdcnpp_google_default"]
    # The golden keeps samples 100 to 103 of the first example, found where its channels sum to the mixture.
    separator = TDCNPlusPlus(3, num_basis=24, bottleneck=32, hidden=48, dilations=(1, 2, 4), repeats=3)
    load_google_weights(separator, formula_weights(golden))
    assert separator.count_params() == golden["trainable"]
    mixture = (np.random.default_rng(0).standard_normal((2, 1, 800)) * 0.1).astype("float32")[:, 0]
    channels = np.asarray(separator(mixture))
    np.testing.assert_allclose(channels[0, :, 100:104], golden["output_head_per_source_example0"], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(channels, axis=-1), golden["output_norms"], atol=1e-5)


@pytest.mark.parametrize(
    "sources, long_skips, parameters",
    [(2, False, 8_672_257), (4, False, 8_803_841), (2, True, 9_067_015), (4, True, 9_198_599)],
)
def test_has_the_papers_size(sources, long_skips, parameters):
    separator = TDCNPlusPlus(sources, long_skips=long_skips)
    separator.build((None, 16_000))
    assert separator.count_params() == parameters
    assert separator.receptive_field == 40_840


@pytest.mark.parametrize("samples", [3, 8, 9, 101, 400])
@pytest.mark.parametrize("long_skips", [False, True])
def test_channels_sum_to_the_mixture_at_any_length(samples, long_skips):
    mixture = np.random.default_rng(samples).standard_normal((2, samples)).astype("float32")
    channels = np.asarray(TDCNPlusPlus(3, long_skips=long_skips, **SMALL)(mixture))
    assert channels.shape == (2, 3, samples)
    np.testing.assert_allclose(channels.sum(axis=1), mixture, atol=1e-5)


def test_an_example_does_not_depend_on_its_batch_mates():
    mixture = np.random.default_rng(1).standard_normal((3, 200)).astype("float32")
    separator = TDCNPlusPlus(2, **SMALL)
    together = np.asarray(separator(mixture))
    for size in (1, 2):
        np.testing.assert_allclose(np.asarray(separator(mixture[:size])), together[:size], atol=1e-6)


def test_mixture_consistency_equals_the_golden(goldens):
    golden = goldens["mixture_consistency"]
    r = np.random.default_rng(7)
    estimates = (r.standard_normal((3, 4, 64)) * 0.1).astype("float32")
    noise = r.standard_normal((3, 2, 64))
    mixtures = np.stack([estimates[:, 0] + estimates[:, 2], estimates[:, 1] + estimates[:, 3]], 1) + 0.05 * noise
    weights = np.tile(np.float32([0.5, 0.2, 0.2, 0.1]), (3, 1))
    consistent = np.asarray(mixture_consistency(mixtures.astype("float32")[:, 0], estimates, weights))
    np.testing.assert_allclose(consistent.ravel()[:6], golden["weights_.5_.2_.2_.1_head"], atol=1e-6)


def test_half_precision_keeps_the_sum_in_float32():
    mixture = np.random.default_rng(2).standard_normal((1, 64)).astype("float32")
    channels = np.asarray(TDCNPlusPlus(2, dtype="mixed_bfloat16", **SMALL)(mixture))
    assert channels.dtype == np.float32
    np.testing.assert_allclose(channels.sum(axis=1), mixture, atol=1e-5)


def test_saved_and_loaded_it_separates_the_same(tmp_path, in_a_fresh_process):
    separator = TDCNPlusPlus(2, long_skips=True, **SMALL)
    mixture = np.random.default_rng(3).standard_normal((1, 100)).astype("float32")
    channels = np.asarray(separator(mixture))
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
    rebuilt = np.asarray(separator.overlap_add(frames, 640))[0, 0]
    np.testing.assert_allclose(rebuilt[32:-32], signal[0, 32:-32], atol=1e-5)  # the ends lie in one frame only
    tone = np.sin(2 * np.pi * 3_000 * np.arange(640) / 16_000).astype("float32")[None]
    energy = np.square(separator.encoder(separator.frame(tone))).sum(axis=(0, 1))
    bands = energy[:32] + energy[32:]
    assert bands.argmax() == pytest.approx(3_000 / 250 - 0.5, abs=1)  # 32 bands of 250 Hz
    with pytest.raises(BadInput, match="16 basis functions on frames of 8 samples every 4"):
        start_from_mdct(TDCNPlusPlus(2, **SMALL))


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(BadInput, match="frame_length=40; expected a multiple of frame_step=16"):
        TDCNPlusPlus(frame_length=40, frame_step=16)
    separator = TDCNPlusPlus(2, **SMALL)
    with pytest.raises(BadInput, match="conv_encoder/dense/kernel is missing"):
        load_google_weights(separator, {})
    with pytest.raises(BadInput, match=r"kernel has shape \(3, 3\)"):
        load_google_weights(separator, {"conv_encoder/dense/kernel": np.zeros((3, 3))})
