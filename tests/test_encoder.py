"""CNN14 against PANNs' own output, and the heads against the long way round."""

import zlib

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.encoder import CNN14, BatchNorm, CoincidenceHead, SimilarityHead, load_panns_weights
from sepcl_keras.features import LogMel
from sepcl_keras.files import BadInput


def formula_weights():
    """PANNs' names and shapes, filled by the goldens' formula."""
    shapes = {}

    def batch_norm(name, size):
        shapes.update({f"{name}.{field}": (size,) for field in ("weight", "bias", "running_mean", "running_var")})

    batch_norm("bn0", 64)
    channels = (1, 64, 128, 256, 512, 1024, 2048)
    for block in range(1, 7):
        for number, (size_in, size_out) in enumerate(
            ((channels[block - 1], channels[block]), (channels[block],) * 2), 1
        ):
            shapes[f"conv_block{block}.conv{number}.weight"] = (size_out, size_in, 3, 3)
            batch_norm(f"conv_block{block}.bn{number}", size_out)
    shapes |= {"fc1.weight": (2048, 2048), "fc1.bias": (2048,)}
    weights = {}
    for name, shape in shapes.items():
        r = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith("running_var"):
            r = 1 + 0.1 * np.abs(r)
        elif len(shape) > 1:
            r /= np.sqrt(np.prod(shape[1:]))
        else:
            r = 0.1 * r + (1 if ".weight" in name else 0)
        weights[name] = r.astype("float32")
    return weights


def test_equals_panns_block_by_block(goldens):
    golden = goldens["cnn14_16k_eval_forward"]
    encoder = CNN14(embedding_dim=2048)
    load_panns_weights(encoder, formula_weights())
    waveforms = (np.random.default_rng(0).standard_normal((2, 15_360)) * 0.1).astype("float32")
    x = encoder.bn0(LogMel("panns")(waveforms), training=False)[..., None]
    stages = {}
    for block in encoder.blocks:
        x = block(x, training=False)
        stages[block.name] = to_numpy(x).transpose(0, 3, 1, 2)  # PyTorch's layout
    for name, value in stages.items():
        expected = golden[name]
        assert list(value.shape) == expected["shape_torch_layout"]
        assert value.mean() == pytest.approx(expected["mean"], rel=1e-4)
        assert value.std() == pytest.approx(expected["std"], rel=1e-4)
        np.testing.assert_allclose(value[0].ravel()[:6], expected["head_of_example_0"], rtol=1e-4, atol=1e-4)
    h = to_numpy(encoder(LogMel("panns")(waveforms), training=False))
    expected = golden["fc1_before_relu"]
    np.testing.assert_allclose(h[0, :6], expected["head"], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(h, axis=-1), expected["norm_per_example"], rtol=1e-4)


@pytest.mark.parametrize("dim, parameters", [(128, 75_739_712), (1024, 77_575_616)])
def test_has_the_papers_size(dim, parameters):
    encoder = CNN14(embedding_dim=dim)
    encoder.build((None, 96, 64))
    assert sum(np.prod(w.shape) for w in encoder.trainable_weights) == parameters


def test_an_example_does_not_depend_on_its_batch_mates_outside_training():
    patches = np.random.default_rng(0).standard_normal((3, 96, 64)).astype("float32")
    encoder = CNN14(embedding_dim=8, width=2)
    together = to_numpy(encoder(patches))
    for size in (1, 2):
        np.testing.assert_allclose(to_numpy(encoder(patches[:size])), together[:size], atol=1e-5)


def test_takes_long_inputs_and_refuses_short_ones():
    encoder = CNN14(embedding_dim=8, width=2)
    assert encoder(np.zeros((1, 333, 64), "float32")).shape == (1, 8)
    with pytest.raises(BadInput, match="an input of 95 frames; expected at least 96"):
        encoder(np.zeros((1, 95, 64), "float32"))


def test_the_split_coincidence_head_equals_the_mlp_on_each_pair():
    r = np.random.default_rng(0)
    h_m, h_c = r.standard_normal((2, 5, 3)).astype("float32")
    head = CoincidenceHead(hidden=7)
    logits = to_numpy(head(h_m, h_c))
    kernel = np.concatenate(
        [to_numpy(head.mixture.kernel), to_numpy(head.channel.kernel)]
    )  # of the unsplit first layer
    for i in range(5):
        for j in range(5):
            hidden = np.maximum(np.concatenate([h_m[i], h_c[j]]) @ kernel + to_numpy(head.mixture.bias), 0)
            logit = hidden @ to_numpy(head.output_layer.kernel)[:, 0] + to_numpy(head.output_layer.bias)[0]
            assert logits[i, j] == pytest.approx(logit, abs=1e-5)


def test_saved_and_loaded_they_give_the_same(tmp_path, in_a_fresh_process):
    patches = np.random.default_rng(0).standard_normal((2, 96, 64)).astype("float32")
    encoder = CNN14(embedding_dim=8, width=2)
    h = to_numpy(encoder(patches))
    encoder.save(tmp_path / "encoder.keras")
    np.testing.assert_allclose(in_a_fresh_process(tmp_path / "encoder.keras", patches), h, atol=1e-6)
    first, second = keras.Input((8,)), keras.Input((8,))
    heads = keras.Model([first, second], CoincidenceHead(4)(SimilarityHead(8, 4)(first), second))
    expected = to_numpy(heads([h, h]))
    heads.save(tmp_path / "heads.keras")
    np.testing.assert_allclose(in_a_fresh_process(tmp_path / "heads.keras", h, h), expected, atol=1e-6)


def test_panns_names_that_do_not_fit_are_refused():
    weights = formula_weights()
    encoder = CNN14(embedding_dim=16)
    weights["conv_block2.bn1.bias"] = np.zeros(3)
    with pytest.raises(BadInput, match=r"conv_block2.bn1.bias has shape \(3,\); expected \(128,\)"):
        load_panns_weights(encoder, weights)
    del weights["bn0.weight"]
    with pytest.raises(BadInput, match="bn0.weight is missing"):
        load_panns_weights(encoder, weights)


def test_half_precision_gives_finite_embeddings():
    h = CNN14(embedding_dim=8, width=2, dtype="mixed_bfloat16")(np.ones((2, 96, 64), "float32"))
    assert np.all(np.isfinite(to_numpy(ops.cast(h, "float32"))))


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 3)])
def test_the_fused_batch_norm_is_batch_normalisation(shape):
    """Against NumPy in training, and against Keras' own layer outside it."""
    x = np.random.default_rng(0).standard_normal(shape).astype("float32") * 3 + 1
    layer = BatchNorm()
    layer.build(shape)
    layer.gamma.assign(np.linspace(0.5, 2, shape[-1]))
    layer.beta.assign(np.linspace(-1, 1, shape[-1]))
    axes = tuple(range(len(shape) - 1))
    mean, variance = x.mean(axis=axes), x.var(axis=axes)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * to_numpy(layer.gamma) + to_numpy(layer.beta)
    np.testing.assert_allclose(to_numpy(layer(x, training=True)), expected, atol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.moving_mean), 0.1 * mean, rtol=1e-4)
    count = x.size / shape[-1]
    # TensorFlow's fused operation keeps the unbiased variance, as PyTorch does; Keras elsewhere the biased one.
    unbiased = count / (count - 1) if keras.backend.backend() == "tensorflow" else 1.0
    np.testing.assert_allclose(to_numpy(layer.moving_variance), 0.9 + 0.1 * variance * unbiased, rtol=1e-4)
    plain = keras.layers.BatchNormalization(epsilon=1e-5)
    plain.build(shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(to_numpy(layer(x)), to_numpy(plain(x)), atol=1e-5)
