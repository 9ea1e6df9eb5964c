"""The fused middle of a TDCN++ block against the plain layers and TensorFlow's own gradient of them."""

import keras
import numpy as np
import pytest

from sepcl_keras.core.backend import inference
from sepcl_keras.separation import kernels
from sepcl_keras.separation.blocks import TDCNBlock
from sepcl_keras.separation.network import TDCNPlusPlus

if keras.backend.backend() != "tensorflow":
    pytest.skip("the fused passes are for TensorFlow alone", allow_module_level=True)
tf = pytest.importorskip("tensorflow")


@pytest.fixture(autouse=True)
def _small_arrays_too(monkeypatch):
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)


def block_with(slopes, dilation, dtype="float32", features=12):
    """A block whose numbers differ from their initial values, so that each has a part in the result."""
    block = TDCNBlock(features, kernel_size=3, dilation=dilation, index=1, dtype=dtype)
    block.build((None, None, 8))
    r = np.random.default_rng(dilation)
    for layer, slope in zip((block.first, block.second), slopes):
        layer.slope.assign(slope)
        layer.gamma.assign(1.0 + 0.3 * r.standard_normal())
        layer.beta.assign(0.3 * r.standard_normal())
    block.convolution.bias.assign(r.standard_normal(features))
    return block


def value_and_gradients(block, x, d_y, training=None):
    """Output of the block, and the gradients of x and of every weight, in a graph."""

    @tf.function(autograph=False)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = block(x, training=training)
        return [y, *tape.gradient(y, [x, *(v.value for v in block.trainable_variables)], d_y)]

    return [np.asarray(tf.cast(value, "float32")) for value in run(tf.constant(x))]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "clips, frames, dilation, slopes",
    [
        (2, 83, 4, (0.1, 0.3)),
        (1, 64, 1, (0.0, -0.2)),  # ReLU, whose slope still has a gradient; a negative slope
        (3, 9, 2, (1.0, 0.1)),  # fewer frames than stretches
        (2, 33, 64, (0.1, 0.1)),  # the outer taps always lie beyond the clip
        (1, 1, 1, (0.1, 0.1)),
    ],
)
def test_equals_the_plain_layers_and_their_traced_gradient(clips, frames, dilation, slopes, training, monkeypatch):
    block = block_with(slopes, dilation)
    r = np.random.default_rng(frames)
    x, d_y = r.standard_normal((2, clips, frames, 8)).astype("float32")
    ours = value_and_gradients(block, x, d_y, training)
    monkeypatch.setattr(kernels, "applies", lambda u: False)
    plain = value_and_gradients(block, x, d_y)
    names = ["y", "x", *(v.path for v in block.trainable_variables)]
    for name, a, b in zip(names, ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * max(1.0, np.abs(b).max()), err_msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_a_loud_constant_does_not_drown_the_variance(training, monkeypatch):
    block = block_with((0.1, 0.1), 2)
    x = (300.0 + np.random.default_rng(0).standard_normal((2, 80, 8))).astype("float32")
    ours = value_and_gradients(block, x, np.ones_like(x), training)
    monkeypatch.setattr(kernels, "applies", lambda u: False)
    np.testing.assert_allclose(ours[0], value_and_gradients(block, x, np.ones_like(x))[0], atol=2e-2, rtol=1e-3)


def test_half_precision_is_no_worse_than_the_plain_layers(monkeypatch):
    block, full = (block_with((0.1, 0.1), 2, dtype) for dtype in ("mixed_bfloat16", "float32"))
    full.set_weights(block.get_weights())
    x, d_y = np.random.default_rng(0).standard_normal((2, 2, 400, 8)).astype("float32")
    half = value_and_gradients(block, tf.cast(x, "bfloat16"), tf.cast(d_y, "bfloat16"))
    monkeypatch.setattr(kernels, "applies", lambda u: False)
    plain = value_and_gradients(block, tf.cast(x, "bfloat16"), tf.cast(d_y, "bfloat16"))
    exact = value_and_gradients(full, x, d_y)

    def error(values):  # over all values and gradients, each by its own size
        return np.mean([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(values, exact, strict=True)])

    assert error(half) < 1.5 * error(plain)


@pytest.mark.parametrize(
    "shape, applies",
    [((1, 10, 10), True), ((1, 9, 10), False), ((None, 10, 10), True), ((1, None, 10), False)],
)
def test_is_for_graphs_and_large_arrays_of_known_length(shape, applies, monkeypatch):
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 100)
    found = []
    tf.function(lambda u: found.append(kernels.applies(u)), autograph=False).get_concrete_function(tf.TensorSpec(shape))
    assert found == [applies]
    assert not kernels.applies(tf.zeros((1, 10, 10)))  # not in a graph


def test_fit_reaches_it(monkeypatch):
    """Keras leaves the number of clips open in `fit`; the fused passes must be taken all the same."""
    calls, applies = [], kernels.applies
    monkeypatch.setattr(kernels, "applies", lambda u: calls.append(applies(u)) or calls[-1])

    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return (np.ones((2, 50, 8), "float32"), np.ones((2, 50, 8), "float32"))

    model = keras.Sequential([block_with((0.1, 0.1), 1)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(Data(), verbose=0)
    assert calls[-1]


def test_separation_of_a_fixed_length_reaches_the_passes_without_a_gradient(monkeypatch):
    """Keras' `predict` traces the first length as it is, and tells the layers that nobody trains."""
    asked, made = [], kernels.activated_convolution
    monkeypatch.setattr(
        kernels, "activated_convolution", lambda offsets, training: asked.append(training) or made(offsets, training)
    )
    separator = TDCNPlusPlus(num_basis=8, bottleneck=8, hidden=12, dilations=(1, 2), repeats=1)
    mixture = np.random.default_rng(0).standard_normal((1, 900)).astype("float32")
    channels = inference(separator)(mixture)
    assert asked and not any(asked)
    np.testing.assert_allclose(channels, separator(mixture), atol=1e-5)  # not in a graph: by the plain layers
