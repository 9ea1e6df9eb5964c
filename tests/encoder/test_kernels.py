"""Convolutions over narrow maps, as matrix products, against Keras' own convolution and its gradient."""

import keras
import numpy as np
import pytest

from sepcl_keras.encoder import kernels
from sepcl_keras.encoder.network import CNN14, ConvBlock

if keras.backend.backend() != "tensorflow":
    pytest.skip("these products are for TensorFlow alone", allow_module_level=True)
tf = pytest.importorskip("tensorflow")


def value_and_gradients(convolve, x, kernel, d_y):
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = convolve(x, kernel)
    return [np.asarray(tf.cast(value, "float32")) for value in (y, *tape.gradient(y, [x, kernel], d_y))]


def own(x, kernel):
    return keras.ops.conv(x, kernel, padding="same")


def case(clips, frames, bands, channels=5, filters=7, dtype="float32"):
    r = np.random.default_rng(frames)
    shapes = (clips, frames, bands, channels), (3, 3, channels, filters), (clips, frames, bands, filters)
    return [tf.cast(r.standard_normal(shape), dtype) for shape in shapes]


@pytest.mark.parametrize("clips, frames, bands", [(2, 3, 2), (1, 6, 4), (3, 1, 2), (2, 2, 1), (1, 1, 1), (2, 31, 2)])
def test_equals_kerass_convolution_and_its_gradient(clips, frames, bands):
    arguments = case(clips, frames, bands)
    for a, b in zip(
        value_and_gradients(kernels.convolve, *arguments), value_and_gradients(own, *arguments), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_clips_and_frames_may_be_open_in_a_graph():
    x, kernel, d_y = case(2, 3, 2)
    signature = [tf.TensorSpec((None, None, 2, 5)), tf.TensorSpec(kernel.shape), tf.TensorSpec((None, None, 2, 7))]

    @tf.function(input_signature=signature, autograph=False)
    def run(x, kernel, d_y):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = kernels.convolve(x, kernel)
        return [y, *tape.gradient(y, [x, kernel], d_y)]

    for a, b in zip(run(x, kernel, d_y), value_and_gradients(own, x, kernel, d_y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_half_precision_is_about_as_exact_as_kerass_convolution():
    x, kernel, d_y = case(2, 6, 4, 128, 16, "bfloat16")
    exact = value_and_gradients(own, *(tf.cast(a, "float32") for a in (x, kernel, d_y)))
    ours, kerass = value_and_gradients(kernels.convolve, x, kernel, d_y), value_and_gradients(own, x, kernel, d_y)
    for a, b, c in zip(ours, kerass, exact, strict=True):
        assert np.linalg.norm(a - c) < 2.0 * np.linalg.norm(b - c)


@pytest.mark.parametrize("bands, channels, applies", [(4, 128, True), (8, 128, False), (2, 64, False)])
def test_is_for_narrow_maps_of_many_channels(bands, channels, applies):
    assert kernels.applies(tf.zeros((1, 3, bands, channels)), tf.zeros((3, 3, channels, 1))) is applies


def test_the_encoder_takes_it_in_its_last_blocks(monkeypatch):
    shapes, convolve = [], kernels.convolve
    monkeypatch.setattr(kernels, "convolve", lambda x, kernel: shapes.append(x.shape[2:]) or convolve(x, kernel))
    encoder, patches = CNN14(embedding_dim=8, width=16), np.random.default_rng(0).standard_normal((2, 96, 64))
    h = encoder(patches)
    assert shapes == [(4, 128), (4, 256), (2, 256), (2, 512)]
    monkeypatch.setattr(kernels, "applies", lambda x, kernel: False)
    np.testing.assert_allclose(h, encoder(patches), atol=1e-5)


def test_both_ways_give_a_block_the_same_dtype(monkeypatch):
    block = ConvBlock(8, pool=1, dtype="mixed_bfloat16")
    block.build((None, 3, 2, 128))
    y = block(np.zeros((1, 3, 2, 128), "float32"))
    monkeypatch.setattr(kernels, "applies", lambda x, kernel: False)
    assert y.dtype == block(np.zeros((1, 3, 2, 128), "float32")).dtype == "bfloat16"
