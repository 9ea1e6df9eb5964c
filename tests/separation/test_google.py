"""Google's names, shapes and checkpoints: the same outputs as their graph, and a refusal of what does not fit."""

import importlib.util
import sys
import zlib

import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.separation.google import from_google_checkpoint, load_google_weights
from sepcl_keras.separation.network import TDCNPlusPlus

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow reads its checkpoints"
)
GOLDEN = dict(num_sources=3, num_basis=24, bottleneck=32, hidden=48, dilations=(1, 2, 4), repeats=3)
FIRST, LAST = "conv_encoder/dense/kernel", "mix_weights/dense/kernel"
DEPTHWISE = "improved_tdcn/conv_block_4/tdcn_block/timeconv/separable_conv/depthwise_kernel"
DENSE = "improved_tdcn/conv_block_0/tdcn_block/dense1/dense/kernel"


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


def long_skip_weights(features, starts):
    """Weights of the long skips between all repeats, named as in the release."""
    r, weights = np.random.default_rng(5), {}
    for i in starts:
        for j in (start for start in starts if start > i):
            prefix = f"improved_tdcn/res_dense_{i}_to_{j}"
            weights[f"{prefix}/dense/kernel"] = r.standard_normal((features, features)) / np.sqrt(features)
            weights[f"{prefix}/dense/bias"] = 0.1 * r.standard_normal(features)
            weights[f"{prefix}/dense_scale/scale_layer"] = np.array(0.7)
    return {name: value.astype("float32") for name, value in weights.items()}


def write_checkpoint(prefix, weights):
    """A checkpoint by names, as TensorFlow 1 writes it: the weights, Adam's slots of each, its powers and the step."""
    import tensorflow as tf

    stored = dict(weights) | {"beta1_power": np.float32(0.5), "beta2_power": np.float32(0.6), "global_step": 123}
    for slot in ("Adam", "Adam_1"):
        stored |= {f"{name}/{slot}": np.full_like(value, np.nan) for name, value in weights.items()}
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(stored),
        shape_and_slices=[""] * len(stored),
        tensors=[tf.constant(value) for value in stored.values()],
    )


@pytest.fixture(scope="module")
def golden(goldens):
    return goldens["tdcnpp_google_default"]


@pytest.fixture(scope="module")
def weights(golden):
    return formula_weights(golden)


@pytest.fixture(scope="module")
def mixture():
    return (np.random.default_rng(0).standard_normal((2, 1, 800)) * 0.1).astype("float32")[:, 0]


def assert_golden(channels, golden):
    # The golden keeps samples 100 to 103 of the first example, found where its channels sum to the mixture.
    np.testing.assert_allclose(channels[0, :, 100:104], golden["output_head_per_source_example0"], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(channels, axis=-1), golden["output_norms"], atol=1e-5)


def test_equals_googles_graph(golden, weights, mixture):
    separator = TDCNPlusPlus(**GOLDEN)
    load_google_weights(separator, weights)
    assert separator.count_params() == golden["trainable"]
    assert_golden(to_numpy(separator(mixture)), golden)


@needs_tensorflow
def test_a_checkpoint_gives_googles_outputs(tmp_path, golden, weights, mixture):
    write_checkpoint(tmp_path / "model.ckpt-123", weights)
    separator = from_google_checkpoint(tmp_path / "model.ckpt-123", dilations=(1, 2, 4))
    assert separator.config == TDCNPlusPlus(**GOLDEN).config
    assert_golden(to_numpy(separator(mixture)), golden)


@needs_tensorflow
@pytest.mark.parametrize("name", ["", "model.ckpt-7", "model.ckpt-7.index"])  # the folder, or a file in it
def test_long_skips_tell_the_repeats(tmp_path, weights, mixture, name):
    weights = weights | long_skip_weights(32, (0, 3, 6))
    write_checkpoint(tmp_path / "model.ckpt-7", weights)
    (tmp_path / "inference.meta").touch()  # the release has one, and no file named checkpoint
    (tmp_path / "._model.ckpt-7.index").write_bytes(b"\0\5\x16\7")  # macOS puts such a file beside each it copies
    separator = from_google_checkpoint(tmp_path / name)
    expected = TDCNPlusPlus(**GOLDEN, long_skips=True)
    load_google_weights(expected, weights)
    assert separator.config == expected.config
    np.testing.assert_allclose(to_numpy(separator(mixture)), to_numpy(expected(mixture)), atol=1e-6)


def weights_of(separator):
    """Weights of this separator's shapes, under Google's names and in Google's shapes."""
    from sepcl_keras.separation.google import _variables

    separator.build((None, None))
    r, weights = np.random.default_rng(6), {}
    for name, variable in _variables(separator).items():
        shape = tuple(variable.shape)
        if name.endswith("depthwise_kernel"):
            shape = (shape[0], 1, shape[1], 1)
        elif name.endswith(("gamma", "beta")):
            shape = (1,)
        weights[name] = (0.3 * r.standard_normal(shape)).astype("float32")
    return weights


@needs_tensorflow
@pytest.mark.parametrize("consistency", ["uniform", "energy"])
def test_sixteen_blocks_are_two_repeats_of_eight(tmp_path, mixture, consistency):
    """At 22.05 kHz, as in the bird models, a frame of 2.5 ms has 55 samples and the step of half of it 28."""
    sizes = dict(num_sources=4, num_basis=10, frame_length=55, frame_step=28, bottleneck=6, hidden=9, kernel_size=5)
    expected = TDCNPlusPlus(**sizes, repeats=2, consistency=consistency)
    weights = weights_of(expected)
    load_google_weights(expected, weights)
    write_checkpoint(tmp_path / "model.ckpt-1", weights)
    separator = from_google_checkpoint(tmp_path, consistency=consistency)
    assert separator.config == expected.config
    np.testing.assert_allclose(to_numpy(separator(mixture)), to_numpy(expected(mixture)), atol=1e-6)
    assert from_google_checkpoint(tmp_path, frame_step=11).config["frame_step"] == 11


@needs_tensorflow
def test_averages_stand_in_only_for_weights_that_were_not_kept(tmp_path, golden, weights, mixture):
    average = "/ExponentialMovingAverage"
    stored = {name + average if name in (FIRST, DENSE) else name: value for name, value in weights.items()}
    stored[LAST + average] = np.full_like(weights[LAST], np.nan)
    write_checkpoint(tmp_path / "model.ckpt", stored)
    assert_golden(to_numpy(from_google_checkpoint(tmp_path, dilations=(1, 2, 4))(mixture)), golden)


CHANGES = [
    (FIRST, None, "is missing"),
    ("initial_dense/dense_scale/scale_layer", None, r"is missing; expected an array of shape \(\)"),
    (DEPTHWISE, None, r"is missing; expected an array of shape \(3, 48, 1\)"),
    (DENSE, (48, 32), r"has shape \(48, 32\); expected \(32, "),  # as many numbers, transposed; a checkpoint's width
    (DENSE.replace("0", "7"), (48, 32), r"has shape \(48, 32\); expected \(32, 48\)"),
    (DEPTHWISE, (48, 1, 3, 1), r"has shape \(48, 1, 3, 1\); expected \(3, 48, 1\)"),
    ("conv_decoder/dense_1/kernel", (40, 24), r"has shape \(40, 24\); expected \(24, 40\)"),
    (LAST, (3, 32), r"has shape \(3, 32\); expected \(32, 3\)"),
]


def changed(weights, name, shape):
    return {key: value for key, value in weights.items() if key != name} | (
        {} if shape is None else {name: np.zeros(shape, "float32")}
    )


@pytest.mark.parametrize("name, shape, message", CHANGES)
def test_a_variable_that_does_not_fit_is_named_and_nothing_is_set(weights, name, shape, message):
    separator = TDCNPlusPlus(**GOLDEN)
    separator.build((None, None))
    before = separator.get_weights()
    with pytest.raises(BadInput, match=f"load_google_weights: {name} {message}"):
        load_google_weights(separator, changed(weights, name, shape))
    for one, other in zip(before, separator.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@needs_tensorflow
@pytest.mark.parametrize("name, shape, message", CHANGES)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tmp_path, weights, name, shape, message):
    write_checkpoint(tmp_path / "model.ckpt-1", changed(weights, name, shape))
    with pytest.raises(BadInput, match=f"model.ckpt-1: {name} {message}"):
        from_google_checkpoint(tmp_path / "model.ckpt-1", dilations=(1, 2, 4))


def test_axes_of_length_one_do_not_count(golden, weights, mixture):
    separator = TDCNPlusPlus(**GOLDEN)
    weights = dict(weights)
    weights[DEPTHWISE] = weights[DEPTHWISE].transpose(1, 0, 2, 3)  # (1, 3, 48, 1)
    weights[FIRST] = weights[FIRST][None, None]  # (1, 1, 40, 24)
    load_google_weights(separator, weights)
    assert_golden(to_numpy(separator(mixture)), golden)


@needs_tensorflow
def test_other_networks_are_refused(tmp_path, weights):
    prefix = tmp_path / "model.ckpt-1"
    write_checkpoint(prefix, weights)
    with pytest.raises(BadInput, match="9 blocks, 8 to a repeat; expected a multiple"):
        from_google_checkpoint(prefix)
    with pytest.raises(BadInput, match="9 blocks, 0 to a repeat; expected a multiple"):
        from_google_checkpoint(prefix, dilations=())
    write_checkpoint(prefix, weights | {"conv_tasnet/dense/kernel": np.zeros((2, 2), "float32")})
    with pytest.raises(BadInput, match="conv_tasnet/dense/kernel has no place"):
        from_google_checkpoint(prefix, dilations=(1, 2, 4))
    write_checkpoint(prefix, weights | {FIRST: np.zeros(40, "float32")})
    with pytest.raises(BadInput, match=rf"{FIRST} has shape \(40,\); expected two axes"):
        from_google_checkpoint(prefix, dilations=(1, 2, 4))
    without_blocks = {name: value for name, value in weights.items() if "improved_tdcn" not in name}
    write_checkpoint(prefix, without_blocks)
    with pytest.raises(BadInput, match=f"{DENSE} is missing"):
        from_google_checkpoint(prefix)


@needs_tensorflow
def test_missing_and_damaged_files_are_refused(tmp_path, weights):
    with pytest.raises(BadInput, match="nowhere.ckpt.index: expected a TensorFlow checkpoint, but there is none"):
        from_google_checkpoint(tmp_path / "nowhere.ckpt")
    with pytest.raises(BadInput, match="one checkpoint, NAME.index, but it holds 0"):
        from_google_checkpoint(tmp_path)
    prefix = tmp_path / "model.ckpt-1"
    write_checkpoint(prefix, weights)
    index, data = prefix.with_name("model.ckpt-1.index"), prefix.with_name("model.ckpt-1.data-00000-of-00001")
    whole = index.read_bytes(), data.read_bytes()
    flipped = bytes([whole[1][0] ^ 1]) + whole[1][1:]
    for damaged in (b"", b"odd" * 100, whole[0][: len(whole[0]) // 2]):
        index.write_bytes(damaged)
        with pytest.raises(BadInput, match="model.ckpt-1: expected a readable TensorFlow checkpoint"):
            from_google_checkpoint(prefix, dilations=(1, 2, 4))
    index.write_bytes(whole[0])
    for damaged in (b"", whole[1][:1000], flipped):
        data.write_bytes(damaged)
        with pytest.raises(BadInput, match="model.ckpt-1: expected a readable TensorFlow checkpoint"):
            from_google_checkpoint(prefix, dilations=(1, 2, 4))
    data.unlink()
    with pytest.raises(BadInput, match="model.ckpt-1: expected a readable TensorFlow checkpoint"):
        from_google_checkpoint(prefix, dilations=(1, 2, 4))
    write_checkpoint(tmp_path / "model.ckpt-2", weights)
    with pytest.raises(BadInput, match="one checkpoint, NAME.index, but it holds 2"):
        from_google_checkpoint(tmp_path)


@pytest.mark.parametrize("path", [None, 7, b"model.ckpt", "x" * 5_000])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(BadInput, match="path=.*: expected a path"):
        from_google_checkpoint(path)


def test_without_tensorflow_one_sentence_says_so(tmp_path, monkeypatch):
    (tmp_path / "model.ckpt-1.index").touch()
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(BadInput, match="reading a TensorFlow checkpoint needs TensorFlow, which is not installed"):
        from_google_checkpoint(tmp_path)
