"""The middle of a TDCN++ block for TensorFlow on a CPU: a few compiled passes over memory, the gradient written out."""

import functools

import keras
from keras import ops

from sepcl_keras.core.backend import has_gpu, start_xla

EPSILON = 1e-3  # of the normalisation, as in the original
WORTH_COMPILING = 20_000  # numbers in one clip's array; below this, XLA takes longer to compile than it ever saves
STRETCHES = 16


def applies(u):
    """Whether to use this module for u (clips, frames, features): while TensorFlow traces a graph for a CPU.

    JAX and XLA on a GPU fuse by themselves; torch and TensorFlow without a graph would run each small step alone.
    """
    frames, features = u.shape[1:]
    if keras.backend.backend() != "tensorflow" or frames is None or frames * features < WORTH_COMPILING:
        return False
    import tensorflow as tf

    return not tf.executing_eagerly() and not has_gpu()


def kernel(function):
    """`function` of arrays, compiled by XLA for itself.

    A whole network in one XLA program takes minutes to compile on a CPU, and its fusions compute the same thing again
    wherever it is used. Kernels avoid both, and leave the matrix products between them to oneDNN.
    """

    @functools.cache
    def compiled():
        import tensorflow as tf

        start_xla()
        return tf.function(function, jit_compile=True, autograph=False)

    return lambda *arrays: compiled()(*arrays)


def float32(*arrays):
    return [ops.cast(x, "float32") for x in arrays]


def sum_over_time(function, *arrays):
    """Sum over axis 1 of the elementwise `function` of arrays (clips, frames, features): (clips, features).

    Sixteen stretches of frames are added up side by side first: XLA's own loops take two to five times as long.
    """
    frames = arrays[0].shape[1]
    stretch = frames // STRETCHES
    rest = ops.sum(function(*(x[:, STRETCHES * stretch :] for x in arrays)), axis=1)
    if not stretch:
        return rest
    parts = [function(*(x[:, k * stretch : (k + 1) * stretch] for x in arrays)) for k in range(STRETCHES)]
    return ops.sum(sum(parts), axis=1) + rest


def prelu(x, slope):
    return ops.maximum(x, 0.0) + slope * ops.minimum(x, 0.0)


def not_zero(slope):
    """The slope, or a tiny number instead of zero: what is multiplied by it can be divided by it again."""
    return ops.where(slope == 0.0, 1e-20, slope)


def slopes(x, slope):
    """The derivative of PReLU at x."""
    return ops.where(x > 0.0, 1.0, not_zero(slope))


def moments(x, slope):
    """Mean and variance over time (clips, features) of PReLU(x), x (clips, frames, features)."""
    first = prelu(x[:, :1], slope)  # taken off first: squares of what hardly changes would round its variance away
    mean = sum_over_time(lambda x: prelu(x, slope) - first, x) / x.shape[1]
    square = sum_over_time(lambda x: ops.square(prelu(x, slope) - first), x) / x.shape[1]
    return mean + first[:, 0], ops.maximum(square - ops.square(mean), 0.0)


def shifted(x, by):
    """x (clips, frames, features), each frame replaced by the one `by` frames later, zeros beyond the clip."""
    frames = x.shape[1]
    by = max(-frames, min(by, frames))
    padded = ops.pad(x, ((0, 0), (max(-by, 0), max(by, 0)), (0, 0)))
    return padded[:, :frames] if by < 0 else padded[:, by:]


def taken(x, by):
    """What `shifted` gives, without padding: faster in a kernel that writes a single array, slower in the others."""
    frames = x.shape[1]
    there = ops.arange(frames) + by
    inside = (there >= 0) & (there < frames)
    return ops.where(inside[:, None], ops.take(x, ops.clip(there, 0, frames - 1), axis=1), 0.0)


@kernel
def activated_moments(x, slope):
    (x,) = float32(x)
    return moments(x, slope)


@kernel
def negative_part(d_x, x):
    """Sums over time (clips, features) of d_x · min(x, 0)."""
    d_x, x = float32(d_x, x)
    return sum_over_time(lambda d, x: d * ops.minimum(x, 0.0), d_x, x)


@kernel
def through_moments(d_p, d_mean, d_variance, mean, z, slope):
    """The gradient of z from those of p = PReLU(z) and of p's mean and variance over time."""
    dtype = z.dtype
    d_p, z = float32(d_p, z)
    by_activation = 2.0 / z.shape[1] * d_variance
    constant = d_mean / z.shape[1] - by_activation * mean
    d_z = (d_p + prelu(z, slope) * by_activation[:, None] + constant[:, None]) * slopes(z, slope)
    return ops.cast(d_z, dtype)


@functools.cache
def activated_convolution(offsets, training):
    """PReLU, normalisation over time, depthwise convolution, PReLU: a function with its gradient.

    Args:
        offsets: tap k of the convolution reads the frame `offsets[k]` later, zeros beyond the clip.
        training: whether what the gradient needs is kept; else fewer passes do. A traced one takes four times as many.

    The function takes u (clips, frames, features), slope, gamma, beta, taps (taps, features), bias (features,) and the
    second slope; it returns p (clips, frames, features) and its mean and variance over time (clips, features).
    """

    def convolved(u, slope, scale, offset, taps, bias, shifted=shifted):
        (u,) = float32(u)
        n = prelu(u, slope) * scale[:, None] + offset[:, None]
        return sum(shifted(n, by) * taps[k] for k, by in enumerate(offsets)) + bias

    @kernel
    def with_z(*arrays):
        *arrays, slope2 = arrays
        z = convolved(*arrays)
        return ops.cast(z, arrays[0].dtype), ops.cast(prelu(z, slope2), arrays[0].dtype)

    @kernel
    def without_z(*arrays):
        *arrays, slope2 = arrays
        return ops.cast(prelu(convolved(*arrays, shifted=taken), slope2), arrays[0].dtype)

    def normalisation(u, slope, gamma, beta):
        mean, variance = activated_moments(u, slope)
        inverse = ops.rsqrt(variance + EPSILON)
        scale = inverse * gamma
        return mean, inverse, scale, beta - mean * scale

    @kernel
    def sums(d_z, z, u, slope):
        d_z, z, u = float32(d_z, z, u)
        frames = u.shape[1]
        total, products, seen = sum_over_time(lambda d: d, d_z), [], []
        for by in (max(-frames, min(by, frames)) for by in offsets):
            # frames whose tap lies inside the clip, and what it reads there
            here, there = d_z[:, max(-by, 0) : frames - max(by, 0)], u[:, max(by, 0) : frames - max(-by, 0)]
            seen.append(sum_over_time(lambda d: d, here) if by else total)
            products.append(sum_over_time(lambda d, u: d * prelu(u, slope), here, there))
        negative = sum_over_time(lambda d, z: d * ops.minimum(z, 0.0), d_z, z)
        return total, ops.stack(products), ops.stack(seen), negative

    @kernel
    def backward(d_z, u, slope, taps, scale, by_activation, constant):
        dtype = u.dtype
        d_z, u = float32(d_z, u)
        d_n = sum(shifted(d_z, -by) * taps[k] for k, by in enumerate(offsets))
        d_p = d_n * scale[:, None] + prelu(u, slope) * by_activation[:, None] + constant[:, None]
        return ops.cast(d_p * slopes(u, slope), dtype)

    @ops.custom_gradient
    def function(u, slope, gamma, beta, taps, bias, slope2):
        frames = u.shape[1]
        mean, inverse, scale, offset = normalisation(u, slope, gamma, beta)
        z, p = with_z(u, slope, scale, offset, taps, bias, slope2)
        mean2, variance2 = activated_moments(z, slope2)

        def gradient(d_p, d_mean2, d_variance2):
            d_z = through_moments(d_p, d_mean2, d_variance2, mean2, z, slope2)
            total, products, seen, negative = sums(d_z, z, u, slope)  # products, seen (taps, clips, features)
            d_taps = ops.sum(scale * products + offset * seen, axis=1)
            d_offset = ops.sum(taps[:, None] * seen, axis=0)  # (clips, features)
            # of the deviation from the mean, in units of its standard deviation
            d_gamma = (ops.sum(taps[:, None] * products, axis=0) - mean * d_offset) * inverse
            by_activation = -scale * inverse * d_gamma / frames
            constant = -scale * d_offset / frames - by_activation * mean
            d_u = backward(d_z, u, slope, taps, scale, by_activation, constant)
            d_slope = ops.sum(negative_part(d_u, u)) / not_zero(slope)
            d_slope2 = ops.sum(negative) / not_zero(slope2)
            return d_u, d_slope, ops.sum(d_gamma), ops.sum(d_offset), d_taps, ops.sum(total, axis=0), d_slope2

        return (p, mean2, variance2), gradient

    def inference(u, slope, gamma, beta, taps, bias, slope2):
        _, _, scale, offset = normalisation(u, slope, gamma, beta)
        p = without_z(u, slope, scale, offset, taps, bias, slope2)
        return p, *activated_moments(p, 1.0)

    return function if training else inference
