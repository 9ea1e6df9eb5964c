"""A separator whose blocks multiply 8-bit integers, for a CPU that does so natively: TensorFlow (tf.*) alone.

The products are TensorFlow's own `QuantizedMatMulWithBias`, which oneDNN computes. Before each, every frame becomes
integers by a scale of its own, its largest magnitude 127, and every column of the matrix likewise; what is constant
over time is taken off before. All else stays float32: normalisations, convolutions, what goes around a block, and what
stands before the first and after the last one, 3 % of the products. Compiled passes over memory as in `kernels.py`.
"""

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
from keras import ops

from sepcl_keras.core.backend import has_gpu, inference, processes
from sepcl_keras.core.checks import BadInput, check_number, numbers
from sepcl_keras.separation.kernels import EPSILON, activated_moments, kernel, prelu, sum_over_time, taken

LEAST_SNR = 20.0  # dB of each channel against float32's
INTEGERS = "8-bit integers"
WIDE = 256  # features of bottleneck and hidden from which on it is faster: below, the passes over memory cost more
CPU = Path("/proc/cpuinfo")
MAX, ZERO = 127, 128  # of the integers: what is kept of a number x is x / scale + 128, unsigned


def why_float32(separator):
    """Why integers are no choice for this separator here, in words; None where they are."""
    narrow = min(separator.config["bottleneck"], separator.config["hidden"])
    if keras.backend.backend() != "tensorflow":
        return f"Keras runs on {keras.backend.backend()}, not TensorFlow"
    if has_gpu():
        return "a GPU computes"
    if separator.dtype_policy.compute_dtype != "float32":
        return f"the separator computes in {separator.dtype_policy.compute_dtype}"
    if narrow < WIDE:
        return f"a network of {narrow} features is no slower so"
    try:
        flags = next(line for line in CPU.read_text(encoding="utf-8").splitlines() if line.startswith("flags")).split()
    except (OSError, StopIteration):
        flags = []
    return None if {"avx512_vnni", "avx_vnni"} & set(flags) else "this processor has no VNNI, products of integers"


def fast_separator(separator, samples):
    """The `FastSeparator` of a separator for clips of so many samples.

    Raises `BadInput` where it would be no faster (see `why_float32`), and where a channel of a clip of tones and noise
    keeps less than 20 dB of signal-to-noise ratio against float32's.
    """
    check_number("samples", samples, least=1, whole=True)
    reason = why_float32(separator)
    if reason:
        raise BadInput(f"fast_separator: {reason}; expected a wide TDCN++ on a CPU that multiplies 8-bit integers.")
    fast = FastSeparator(separator, samples)
    if not fast.snr >= LEAST_SNR:
        raise BadInput(
            f"fast_separator: a channel keeps {fast.snr:.1f} dB of signal-to-noise ratio against float32; expected "
            f"{LEAST_SNR:g} or more. The separator itself is the one to take."
        )
    return fast


class FastSeparator:
    """Channels (clips, sources, samples) of clips (clips, samples), one on each core; with the weights of the moment.

    Clips of another length than `samples` go through the separator itself: compiling takes seconds for each length.

    Attributes:
        config: the separator's. snr: the least over its channels, in dB, of one clip against float32.
    """

    def __init__(self, separator, samples):
        import tensorflow as tf

        if not separator.built:
            separator.build((None, None))
        if not all(np.isfinite(_array(weight)).all() for weight in separator.weights):
            raise BadInput("fast_separator: weights with NaN or infinity; expected a network that is trained.")
        self.config, self.samples, self._exact = separator.config, samples, inference(separator)
        blocks = [_block(block) for block in separator.blocks]
        self._fast = tf.function(lambda clip: separator.by_blocks(clip, blocks), autograph=False)
        clip = _first_clip(samples)
        try:
            self.snr = float(channel_snr(self._exact(clip), self(clip)).min())
        except tf.errors.OpError:  # without oneDNN the operation has a kernel that gives nothing
            raise BadInput(
                "fast_separator: TensorFlow multiplies no integers; expected TF_ENABLE_ONEDNN_OPTS=1."
            ) from None

    def __call__(self, clips):
        clips = numbers("mixtures", clips, ("clips", "samples"), "float32")
        if clips.shape[1] != self.samples:
            return self._exact(clips)
        with ThreadPoolExecutor(processes(len(clips)), "separating") as pool:
            return np.concatenate([*pool.map(lambda clip: self._fast(clip[None]).numpy(), clips)])


def channel_snr(reference, channels):
    """Signal-to-noise ratio in dB of channels (…, samples); infinite for equal ones, even of silence."""
    signal, noise = (np.square(x, dtype="float64").sum(axis=-1) for x in (reference, channels - reference))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(noise == 0, np.inf, 10 * np.log10(signal / noise))


def _first_clip(samples):
    """Decaying chords over quiet noise, (1, samples) at 16 kHz: loud and quiet moments, as in what is to come."""
    time, rng = np.arange(samples) / 16_000, np.random.default_rng(0)
    chords = sum(np.sin(2 * np.pi * pitch * time) for pitch in (220.0, 554.4, 1318.5)) * np.exp(-5 * (time % 0.7))
    clip = 0.1 * chords + 0.01 * rng.standard_normal(samples)
    return clip[None].astype("float32")


class _Matrix:
    """A kernel (inner, outer) as integers, each column by a scale of its own."""

    def __init__(self, matrix):
        self.scales = np.maximum(np.abs(matrix).max(axis=0), 1e-30) / MAX
        self.integers = np.round(matrix / self.scales).astype("int8")
        self.zeros = (-ZERO * self.integers.astype("float32").sum(axis=0)).astype("float32")  # whole numbers

    def product(self, x):
        """x (clips, frames, inner), uint8, times the integers: int32; `restored` makes numbers of it."""
        import tensorflow as tf

        rows = tf.bitcast(tf.reshape(x, (-1, x.shape[2])), tf.quint8)
        columns = tf.bitcast(tf.constant(self.integers), tf.qint8)
        # The ranges say what the integers stand for: themselves.
        y, *_ = tf.raw_ops.QuantizedMatMulWithBias(
            a=rows, b=columns, bias=np.zeros(len(self.scales), "float32"), min_a=0.0, max_a=255.0, min_b=-127.0,
            max_b=127.0, Toutput=tf.qint32, input_quant_mode="SCALED",
        )  # fmt: skip
        return tf.reshape(tf.bitcast(y, tf.int32), (*x.shape[:2], len(self.scales)))


def _block(block):
    """The block as a function of x (clips, frames, features), a tensor of TensorFlow."""
    first, second, convolution = block.first, block.second, block.convolution
    gamma, beta = _array(second.gamma), _array(second.beta)
    matrix = _array(block.up.kernel)
    up, down = _Matrix(matrix), _Matrix(gamma * _array(block.down.kernel))
    constant = beta * _array(block.down.kernel).sum(axis=0)  # the second normalisation's, behind the product
    reach = (convolution.kernel_size - 1) * convolution.dilation
    offsets = tuple(k * convolution.dilation - reach // 2 for k in range(convolution.kernel_size))
    slope, taps, bias, slope2 = map(_array, (first.slope, convolution.kernel[:, :, 0], convolution.bias, second.slope))
    gamma1, beta1 = _array(first.gamma), _array(first.beta)

    def run(x):
        mean = _mean(x)
        integers, scales = _quantised(x, mean, ops.ones_like(mean))
        u = up.product(integers), scales, ops.matmul(mean, matrix)[:, None]
        mean, variance = _moments(*u, up.zeros, up.scales, slope)
        scale = ops.rsqrt(variance + EPSILON) * gamma1
        p = _convolved(offsets)(*u, up.zeros, up.scales, slope, scale, beta1 - mean * scale, taps, bias, slope2)
        mean, variance = activated_moments(p, 1.0)
        integers, scales = _quantised(p, mean, ops.rsqrt(variance + EPSILON))
        return _added(x, down.product(integers), scales, constant, down.zeros, down.scales)

    return run


def _array(variable):
    return np.asarray(ops.convert_to_numpy(variable), "float32")


def _restored(y, row_scales, constants, zeros, scales):
    """Numbers (clips, frames, features) of a product of integers: each frame and column has its scale."""
    return (ops.cast(y, "float32") + zeros) * (row_scales * scales) + constants


@kernel
def _mean(x):
    return sum_over_time(lambda x: x, x) / x.shape[1]


@kernel
def _quantised(x, mean, factor):
    """(x - mean) · factor, x (clips, frames, features), as integers of 1 to 255, and the scale of each frame."""
    x = (x - mean[:, None]) * factor[:, None]
    part = math.gcd(x.shape[2], 64)  # side by side as in `sum_over_time`; XLA's own maximum takes three times as long
    parts = [ops.abs(x[:, :, at : at + part]) for at in range(0, x.shape[2], part)]
    largest = ops.max(functools.reduce(ops.maximum, parts), axis=-1, keepdims=True)
    scales = ops.maximum(largest, 1e-30) / MAX
    return ops.cast(x / scales + (ZERO + 0.5), "uint8"), scales


@kernel
def _moments(y, row_scales, constants, zeros, scales, slope):
    """Mean and variance over time of PReLU, as `kernels.moments` has them."""

    def activated(y, row_scales):
        return prelu(_restored(y, row_scales, constants, zeros, scales), slope)

    first = activated(y[:, :1], row_scales[:, :1])
    mean = sum_over_time(lambda *rows: activated(*rows) - first, y, row_scales) / y.shape[1]
    square = sum_over_time(lambda *rows: ops.square(activated(*rows) - first), y, row_scales) / y.shape[1]
    return mean + first[:, 0], ops.maximum(square - ops.square(mean), 0.0)


@functools.cache
def _convolved(offsets):
    @kernel
    def convolved(y, row_scales, constants, zeros, scales, slope, scale, offset, taps, bias, slope2):
        u = _restored(y, row_scales, constants, zeros, scales)
        n = prelu(u, slope) * scale[:, None] + offset[:, None]
        return prelu(sum(taken(n, by) * taps[k] for k, by in enumerate(offsets)) + bias, slope2)

    return convolved


@kernel
def _added(x, y, row_scales, constants, zeros, scales):
    return x + _restored(y, row_scales, constants, zeros, scales)
