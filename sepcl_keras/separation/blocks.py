"""What TDCN++ is built of: scaled dense layers, PReLU with normalisation over time, dilated convolutions, blocks."""

import keras
from keras import ops

from sepcl_keras.core.backend import matmul
from sepcl_keras.core.dense import Dense
from sepcl_keras.separation import kernels
from sepcl_keras.separation.kernels import EPSILON


class ScaledDense(keras.layers.Layer):
    """A dense layer over the last axis, times one learned number."""

    def __init__(self, units, use_bias=False, initial_scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.dense = Dense(units, use_bias=use_bias, dtype=self.dtype_policy, name="dense")
        self.initial_scale = initial_scale

    def build(self, input_shape):
        self.dense.build(input_shape)
        initial = keras.initializers.Constant(self.initial_scale)
        self.scale = self.add_weight(shape=(), initializer=initial, name="scale")

    @property
    def kernel(self):
        """The dense layer's kernel times the number: fewer products than with what comes out."""
        return self.dense.kernel * self.scale

    def call(self, x):
        y = matmul(x, self.kernel)
        return y + self.dense.bias * self.scale if self.dense.use_bias else y


class PReLUNorm(keras.layers.Layer):
    """PReLU with one slope, then a normalisation over time alone, each example and feature by itself, with one gamma
    and one beta. Input and output (clips, frames, features)."""

    def build(self, input_shape):
        self.slope = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.1), name="slope")
        self.gamma = self.add_weight(shape=(), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(), initializer="zeros", name="beta")

    def call(self, x):
        x = kernels.prelu(x, self.slope)
        # Not by `ops.moments`: on torch it takes the squared mean from the mean square, and rounds variances away.
        x = x - ops.mean(x, axis=1, keepdims=True)
        variance = ops.mean(ops.square(x), axis=1, keepdims=True)
        return x * (ops.rsqrt(variance + EPSILON) * self.gamma) + self.beta


class DilatedDepthwise(keras.layers.Layer):
    """Depthwise convolution over time, `same` padding, as shifted multiplies: faster than grouped convolutions."""

    def __init__(self, kernel_size, dilation, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size, self.dilation = kernel_size, dilation

    def build(self, input_shape):
        # Keras' depthwise kernel: its fans are those of shape (kernel, features, 1).
        self.kernel = self.add_weight(shape=(self.kernel_size, input_shape[-1], 1), name="kernel")
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, x):
        frames, reach = ops.shape(x)[1], (self.kernel_size - 1) * self.dilation
        padded = ops.pad(x, ((0, 0), (reach // 2, reach - reach // 2), (0, 0)))
        starts = (k * self.dilation for k in range(self.kernel_size))
        return sum(padded[:, at : at + frames] * self.kernel[k, :, 0] for k, at in enumerate(starts)) + self.bias


class TDCNBlock(keras.layers.Layer):
    """Dense up, PReLU, norm, dilated depthwise convolution, PReLU, norm, dense down, added to the input."""

    def __init__(self, hidden, kernel_size, dilation, index, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.up = ScaledDense(hidden, dtype=self.dtype_policy, name="up")
        self.first = PReLUNorm(dtype=self.dtype_policy, name="first")
        self.convolution = DilatedDepthwise(kernel_size, dilation, dtype=self.dtype_policy, name="convolution")
        self.second = PReLUNorm(dtype=self.dtype_policy, name="second")
        self.index = index

    def build(self, input_shape):
        hidden = (*input_shape[:-1], self.hidden)
        # 0.9 to the power of the block's index over all repeats: deep blocks begin almost as the identity.
        self.down = ScaledDense(input_shape[-1], initial_scale=0.9**self.index, dtype=self.dtype_policy, name="down")
        self.up.build(input_shape)
        for layer in (self.first, self.convolution, self.second, self.down):
            layer.build(hidden)

    def call(self, x, training=None):
        u = self.up(x)  # (clips, frames, hidden)
        if kernels.applies(u):
            return x + self._fused(u, training is not False)
        return x + self.down(self.second(self.convolution(self.first(u))))

    def _fused(self, u, training):
        """The same, in fewer passes over memory."""
        first, second, convolution = self.first, self.second, self.convolution
        reach = (convolution.kernel_size - 1) * convolution.dilation
        offsets = tuple(k * convolution.dilation - reach // 2 for k in range(convolution.kernel_size))
        weights = first.slope, first.gamma, first.beta, convolution.kernel[:, :, 0], convolution.bias, second.slope
        weights = (ops.cast(weight, "float32") for weight in weights)
        p, mean, variance = kernels.activated_convolution(offsets, training)(u, *weights)
        # The second normalisation goes into the kernel after it, which is smaller than the clip.
        scale = ops.rsqrt(variance + EPSILON) * ops.cast(second.gamma, "float32")  # (clips, hidden)
        offset = ops.cast(second.beta, "float32") - mean * scale
        kernel = self.down.kernel
        scaled = ops.cast(scale, kernel.dtype)[:, :, None] * kernel
        return matmul(p, scaled) + matmul(ops.cast(offset, kernel.dtype), kernel)[:, None]
