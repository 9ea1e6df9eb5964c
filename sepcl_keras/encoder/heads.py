"""The two heads that train the encoder: similarity and coincidence."""

import keras
from keras import ops

from sepcl_keras.core.backend import block_of, map_blocks, matmul
from sepcl_keras.core.dense import Dense


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

    The arrays are a (N, hidden) and b (K, hidden), the weights w (hidden,), not a variable; returns (N, K). The grid is
    made a few rows at a time, and made again for the gradient, which needs only its signs: with the upstream gradient
    g, A_i = Σ_j g_ij [a_i + b_j > 0] and B_j = Σ_i g_ij [a_i + b_j > 0] give all three gradients, w A_i, w B_j and
    Σ_i a_i A_i + Σ_j b_j B_j. What a block holds stays near the processor, so this is also faster.
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
