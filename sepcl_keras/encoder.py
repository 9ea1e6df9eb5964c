"""CNN14, the encoder whose output h is the product, and the two heads that train it."""

import keras
from keras import ops

from sepcl_keras import narrow
from sepcl_keras.backend import block_of, fused_batch_norm, map_blocks, matmul
from sepcl_keras.features import MEL_BANDS, PATCH_FRAMES
from sepcl_keras.files import BadInput
from sepcl_keras.layers import Dense


@keras.saving.register_keras_serializable(package="sepcl_keras")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras' batch normalisation with PyTorch's defaults; fused where the backend is TensorFlow."""

    def __init__(self, epsilon=1e-5, momentum=0.9, **kwargs):
        super().__init__(epsilon=epsilon, momentum=momentum, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        return fused_batch_norm(self, inputs, bool(training) and self.trainable)


def convolved(layer, x):
    """What a convolution layer gives, in the way that is fast where we are."""
    x = ops.cast(x, layer.compute_dtype)
    kernel = ops.cast(layer.kernel, layer.compute_dtype)
    return narrow.convolve(x, kernel) if narrow.applies(x, kernel) else layer(x)


@keras.saving.register_keras_serializable(package="sepcl_keras")
class ConvBlock(keras.layers.Layer):
    """Two 3 × 3 convolutions, each with batch norm and ReLU, then average pooling.

    Input (clips, frames, mels, channels), output (clips, frames / pool, mels / pool, filters).
    """

    def __init__(self, filters, pool=2, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.pool = filters, pool
        inner = dict(dtype=self.dtype_policy)
        convolution = dict(kernel_size=3, padding="same", use_bias=False, **inner)
        self.conv1 = keras.layers.Conv2D(filters, name="conv1", **convolution)
        self.conv2 = keras.layers.Conv2D(filters, name="conv2", **convolution)
        self.bn1, self.bn2 = BatchNorm(name="bn1", **inner), BatchNorm(name="bn2", **inner)

    def build(self, input_shape):
        between = (*input_shape[:-1], self.filters)
        self.conv1.build(input_shape)
        for layer in (self.bn1, self.conv2, self.bn2):
            layer.build(between)

    def call(self, x, training=None):
        x = ops.relu(self.bn1(convolved(self.conv1, x), training=training))
        x = ops.relu(self.bn2(convolved(self.conv2, x), training=training))
        # The stride is said although it is the default: Keras on JAX takes none for all dimensions' and fails.
        return ops.average_pool(x, self.pool, self.pool) if self.pool > 1 else x

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "pool": self.pool}


@keras.saving.register_keras_serializable(package="sepcl_keras")
class CNN14(keras.Model):
    """Log-mel patches (clips, frames, 64) to embeddings h (clips, embedding_dim).

    PANNs' CNN14 with its 2,048-wide layer and classifier replaced by one linear bottleneck, as the slides have it:
    six convolution blocks, mean over mel bands, maximum plus mean over time. 96 frames or more.

    Args:
        embedding_dim: d, 128 in the paper (and 1,024).
        width: filters of the first block; 64 is the paper's, the last block has 32 times as many.

    Source: Kong et al. 2020, `Cnn14_16k`; the slides for the bottleneck.
    """

    def __init__(self, embedding_dim=128, width=64, **kwargs):
        super().__init__(**kwargs)
        self.embedding_dim, self.width = embedding_dim, width
        inner = dict(dtype=self.dtype_policy)
        self.bn0 = BatchNorm(name="bn0", **inner)  # one mean and variance a mel band
        self.blocks = [
            ConvBlock(width * 2**index, pool=2 if index < 5 else 1, name=f"conv_block{index + 1}", **inner)
            for index in range(6)
        ]
        self.bottleneck = Dense(embedding_dim, name="bottleneck", **inner)

    def build(self, input_shape):
        self.bn0.build((None, None, MEL_BANDS))
        shape = (None, None, MEL_BANDS, 1)
        for block in self.blocks:
            block.build(shape)
            shape = (None, None, shape[2] // block.pool, block.filters)
        self.bottleneck.build((None, shape[-1]))

    def call(self, log_mel, training=None):
        frames = log_mel.shape[1]
        if frames is not None and frames < PATCH_FRAMES:
            raise BadInput(f"CNN14: an input of {frames} frames; expected at least {PATCH_FRAMES}, one patch.")
        x = self.bn0(log_mel, training=training)[..., None]  # (clips, frames, mels, 1)
        for block in self.blocks:
            x = block(x, training=training)
        x = ops.mean(x, axis=2)  # (clips, frames / 32, filters)
        return self.bottleneck(ops.max(x, axis=1) + ops.mean(x, axis=1))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.embedding_dim)

    def get_config(self):
        return super().get_config() | {"embedding_dim": self.embedding_dim, "width": self.width}


@keras.saving.register_keras_serializable(package="sepcl_keras")
class SimilarityHead(keras.layers.Layer):
    """h (N, d) to z (N, units), where NT-Xent is applied: one hidden layer with ReLU, linear output."""

    def __init__(self, units=128, hidden=512, **kwargs):
        super().__init__(**kwargs)
        self.units, self.hidden = units, hidden
        self.first = Dense(hidden, activation="relu", dtype=self.dtype_policy, name="first")
        self.second = Dense(units, dtype=self.dtype_policy, name="second")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((input_shape[0], self.hidden))

    def call(self, h):
        return self.second(self.first(h))

    def get_config(self):
        return super().get_config() | {"units": self.units, "hidden": self.hidden}


def _in_blocks(x, size):
    """(rows, features) as (blocks, size, features), zeros below the last row."""
    return ops.reshape(ops.pad(x, ((0, -ops.shape(x)[0] % size), (0, 0))), (-1, size, ops.shape(x)[1]))


@ops.custom_gradient
def pairwise_logits(mixtures, channels, weights):
    """relu(a_i + b_j) · w for each row a_i of one array and b_j of the other, without ever holding all the pairs.

    The grid of pairs is made a few rows at a time, and made again for the gradient, which needs only its signs: with
    the upstream gradient g, A_i = Σ_j g_ij [a_i + b_j > 0] and B_j = Σ_i g_ij [a_i + b_j > 0] give all three gradients,
    w A_i, w B_j and Σ_i a_i A_i + Σ_j b_j B_j. What a block holds stays near the processor, so this is also faster.

    Args:
        mixtures: a, (N, hidden).
        channels: b, (K, hidden).
        weights: w, (hidden,), not a variable.

    Returns (N, K).
    """
    (rows, hidden), columns = ops.shape(mixtures), ops.shape(channels)[0]
    size = block_of(hidden * columns)

    def block(a):
        return matmul(ops.relu(a[:, None] + channels), weights[:, None])[..., 0]  # (size, K)

    def gradient(*arguments, upstream=None):  # torch gives the upstream gradient by name
        upstream = arguments[0] if upstream is None else upstream
        a, g = _in_blocks(mixtures, size), _in_blocks(ops.cast(upstream, "float32"), size)

        def add_block(index, sums):
            by_mixture, by_channel = sums
            active = ops.cast(channels > -a[index][:, None], "float32") * g[index][..., None]  # (size, K, hidden)
            row = ops.sum(active, axis=1)[None]
            return ops.slice_update(by_mixture, (index, 0, 0), row), by_channel + ops.sum(active, axis=0)

        zeros = ops.zeros_like(a, dtype="float32"), ops.zeros_like(channels, dtype="float32")
        by_mixture, by_channel = ops.fori_loop(0, ops.shape(a)[0], add_block, zeros)
        by_mixture = ops.reshape(by_mixture, (-1, hidden))[:rows]
        first, second, w = (ops.cast(each, "float32") for each in (mixtures, channels, weights))
        by_weight = ops.sum(first * by_mixture, axis=0) + ops.sum(second * by_channel, axis=0)
        return tuple(ops.cast(each, weights.dtype) for each in (w * by_mixture, w * by_channel, by_weight))

    logits = map_blocks(block, _in_blocks(mixtures, size))  # (blocks, size, K)
    return ops.reshape(logits, (-1, columns))[:rows], gradient


@keras.saving.register_keras_serializable(package="sepcl_keras")
class CoincidenceHead(keras.layers.Layer):
    """Logits (N, K): does mixture i coincide with channel j? From h of the mixtures (N, d) and the channels (K, d).

    An MLP on the pair [h_m, h_c] with one hidden layer and ReLU; in training K = N. Its first layer is split,
    W_m h_m + W_c h_c + b, so that the grid costs two N × hidden products instead of N² of them, and the grid is made a
    few rows at a time (see `pairwise_logits`).
    """

    def __init__(self, hidden=512, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.mixture = Dense(hidden, dtype=self.dtype_policy, name="mixture")
        self.channel = Dense(hidden, use_bias=False, dtype=self.dtype_policy, name="channel")
        self.output_layer = Dense(1, dtype=self.dtype_policy, name="output")

    def build(self, h_m_shape, h_c_shape):
        self.mixture.build(h_m_shape)
        self.channel.build(h_c_shape)
        self.output_layer.build((None, None, self.hidden))

    def call(self, h_m, h_c):
        weights = self.output_layer.kernel[:, 0]
        return pairwise_logits(self.mixture(h_m), self.channel(h_c), weights) + self.output_layer.bias

    def compute_output_shape(self, h_m_shape, h_c_shape):
        return (h_m_shape[0], h_c_shape[0])

    def get_config(self):
        return super().get_config() | {"hidden": self.hidden}
