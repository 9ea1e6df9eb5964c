"""CNN14's sizes and independence, and the heads against the long way round."""

import functools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder import heads
from sepcl_keras.encoder.heads import CoincidenceHead, SimilarityHead, pairwise_logits
from sepcl_keras.encoder.network import CNN14, BatchNorm


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


@pytest.mark.parametrize("shape", [(2, 15_600), (2, 96, 63), (2, 96, 64, 1), (96, 64)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(BadInput, match=r"CNN14: log-mel patches of shape .*; expected \(clips, frames, 64\)"):
        CNN14(8, width=1)(np.zeros(shape, "float32"))


@pytest.mark.parametrize("sizes", [dict(width=0), dict(width=1.5), dict(embedding_dim=-1), dict(embedding_dim=None)])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(BadInput, match=f"CNN14: {next(iter(sizes))}=.*: expected a whole number of at least 1"):
        CNN14(**sizes)


def test_batch_norm_of_a_loud_band_that_hardly_changes():
    x = (-100 + 0.01 * np.random.default_rng(0).standard_normal((64, 96, 64))).astype("float32")
    x64 = x.astype("float64")
    mean, variance = x64.mean(axis=(0, 1)), x64.var(axis=(0, 1))
    layer = BatchNorm(momentum=0.0)
    # 100 is known to 8e-6 in float32, a thousandth of the deviation; JAX multiplies before it subtracts
    expected = (x64 - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(to_numpy(layer(x, training=True)), expected, atol=0.05)
    np.testing.assert_allclose(to_numpy(layer.moving_mean), mean, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.moving_variance), variance, rtol=0.02)


PROGRAM = """
import sys, keras, numpy as np
import sepcl_keras as sk
from keras.ops import convert_to_numpy as to_numpy
from sepcl_keras.encoder.objectives import ContrastiveModel
from sepcl_keras.separation.mixit import SeparationModel
from sepcl_keras.training.loop import Batches, fit

data = dict(np.load(sys.argv[1]))
encoder = sk.CNN14(8, width=1)
encoder.build((None, 96, 64))
for index, weight in enumerate(encoder.weights):
    weight.assign(data[f"weight{index}"])
patches = data["patches"]
found = {f"h{training}": to_numpy(encoder(patches, training=bool(training))) for training in (1, 0)}
encoder.save(sys.argv[2] + ".keras")
found["loaded"] = to_numpy(sk.load_encoder(sys.argv[2] + ".keras")(patches))
found["log_mel"] = to_numpy(sk.LogMel()(data["waveforms"]))
found["augmented"] = to_numpy(sk.SpecAugment(seed=0)(patches, training=True))
found["embedded"] = sk.embed(data["waveforms"], encoder)
sizes = dict(num_basis=8, frame_length=8, frame_step=4, bottleneck=4, hidden=4, dilations=(1,), repeats=1)
separator = sk.TDCNPlusPlus(**sizes)
separator.build((None, None))
for weight in separator.trainable_weights:
    weight.assign(np.full(weight.shape, 0.01))
found["channels"] = to_numpy(separator(data["waveforms"]))

class Pairs(Batches):
    def __getitem__(self, step):
        return ((patches[:2], patches[2:]),)

contrast = ContrastiveModel(encoder, augmentation=sk.SpecAugment(seed=0))
for model, kind, array, crop in (
    (contrast, Pairs, patches, 96),
    (SeparationModel(separator), Batches, data["waveforms"], 4000),
):
    try:
        losses = fit(model, lambda n: kind(array, crop, 2, n, 0), 2, 1e-3, show=False)["first_losses"]
        assert np.isfinite(losses).all()
    except sk.BadInput as error:
        print(error)
np.savez(sys.argv[2], **{name: value.astype("float64") for name, value in found.items()})
"""


@pytest.fixture(scope="module")
def under(tmp_path_factory):
    """A function of the settings in `keras.json` to what a process gives and says under them."""
    folder = tmp_path_factory.mktemp("keras")
    encoder, r = CNN14(8, width=1), np.random.default_rng(0)
    encoder.build((None, 96, 64))
    data = {f"weight{index}": to_numpy(weight) for index, weight in enumerate(encoder.weights)}
    data |= {"patches": r.standard_normal((4, 96, 64)), "waveforms": 0.1 * r.standard_normal((4, 15_600))}
    np.savez(folder / "data.npz", **{name: value.astype("float32") for name, value in data.items()})

    @functools.cache
    def run(**settings):
        name = "-".join(settings.values()) or "plain"
        home = folder / name
        home.mkdir()
        (home / "keras.json").write_text(json.dumps({"backend": keras.backend.backend()} | settings))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, folder / "data.npz", home / "found"],
            env=os.environ | {"KERAS_HOME": str(home), "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(np.load(home / "found.npz")), done.stdout

    return run


SETTINGS = [{"image_data_format": "channels_first"}, {"floatx": "float64"}, {"floatx": "float16"}]


@pytest.mark.once
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="compiles for minutes; passes when run by hand")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings.values())))
def test_what_keras_is_set_to_changes_no_numbers(under, settings):
    (expected, _), (found, said) = under(), under(**settings)
    half = settings.get("floatx") == "float16"
    assert ("floatx float16: expected float32" in said) == half
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=(0.05 if half else 1e-4) * np.abs(value).max(), err_msg=name
        )


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


@pytest.mark.parametrize("rows, columns, size", [(13, 13, 4), (5, 9, 2), (9, 5, 3), (4, 4, 4), (3, 6, 8), (2, 2, 1)])
def test_the_grid_in_blocks_is_exact_values_and_gradients(rows, columns, size, monkeypatch, value_and_gradients):
    """Against NumPy in double precision, with rows that fill no block and grids that are not square."""
    monkeypatch.setattr(heads, "block_of", lambda numbers: size)
    r = np.random.default_rng(rows)
    a, b, w, g = (r.standard_normal(shape) for shape in ((rows, 7), (columns, 7), (7,), (rows, columns)))
    pairs = a[:, None] + b
    active = (pairs > 0) * g[..., None]  # (rows, columns, hidden)
    arrays = [x.astype("float32") for x in (a, b, w)]
    logits = to_numpy(pairwise_logits(*(ops.convert_to_tensor(x) for x in arrays)))
    np.testing.assert_allclose(logits, np.maximum(pairs, 0) @ w, rtol=1e-5, atol=1e-5)
    _, gradients = value_and_gradients(
        lambda *x: ops.sum(ops.multiply(pairwise_logits(*x), g.astype("float32"))), *arrays
    )
    expected = w * active.sum(axis=1), w * active.sum(axis=0), np.sum(active * pairs, axis=(0, 1))
    for gradient, by_hand in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, by_hand, rtol=1e-5, atol=1e-5)


def test_a_mixture_of_a_grid_does_not_depend_on_the_other_mixtures():
    """What several devices ask for: some mixtures against the channels of all, the rows of the whole grid."""
    h_m, h_c = np.random.default_rng(0).standard_normal((2, 11, 3)).astype("float32")
    head = CoincidenceHead(hidden=6)
    whole = to_numpy(head(h_m, h_c))
    np.testing.assert_allclose(to_numpy(head(h_m[4:7], h_c)), whole[4:7], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_the_coincidence_head_learns_in_half_precision_as_in_full(dtype, value_and_gradients):
    h_m, h_c = np.random.default_rng(0).standard_normal((2, 6, 8)).astype("float32")
    full, half = CoincidenceHead(hidden=16), CoincidenceHead(hidden=16, dtype=dtype)
    full.build(h_m.shape, h_c.shape), half.build(h_m.shape, h_c.shape)
    half.set_weights(full.get_weights())

    def objective(head):
        return lambda *h: ops.mean(ops.square(ops.cast(head(*h), "float32") - 1.0))

    expected, gradients = value_and_gradients(objective(full), h_m, h_c)
    value, rough = value_and_gradients(objective(half), h_m, h_c)
    assert value == pytest.approx(expected, rel=0.03)
    for ours, theirs in zip(rough, gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())


def test_the_coincidence_head_trains_where_the_number_of_pairs_is_open():
    """As in `fit`: TensorFlow then knows neither side of the grid while it traces."""
    first, second = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([first, second], CoincidenceHead(hidden=4)(first, second))
    assert model.output_shape == (None, None)
    h = np.random.default_rng(0).standard_normal((2, 10, 3)).astype("float32")
    before = to_numpy(model([*h]))
    model.compile("sgd", lambda targets, logits: ops.mean(ops.square(logits - 3.0)))
    # Three batches of four, four and two rows, with targets of any shape.
    losses = model.fit([*h], np.zeros((10, 1)), batch_size=4, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and not np.array_equal(to_numpy(model([*h])), before)


@pytest.mark.once
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
    np.testing.assert_allclose(to_numpy(layer.moving_variance), 0.9 + 0.1 * variance, rtol=1e-4)
    plain = keras.layers.BatchNormalization(epsilon=1e-5)
    plain.build(shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(to_numpy(layer(x)), to_numpy(plain(x)), atol=1e-5)
