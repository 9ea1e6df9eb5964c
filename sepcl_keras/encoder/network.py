"""CNN14, the encoder whose output h is the product."""

import keras
import numpy as np
from keras import ops

from sepcl_keras.core.backend import fused_batch_norm
from sepcl_keras.core.checks import BadInput, check_axes, check_number, one_of
from sepcl_keras.core.dense import Dense
from sepcl_keras.core.saved import Network
from sepcl_keras.encoder import kernels
from sepcl_keras.views.log_mel import MEL_BANDS, PATCH_FRAMES, PATCH_SAMPLES, RECIPES, SAMPLE_RATE


@keras.saving.register_keras_serializable(package="sepcl_keras")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras' batch normalisation over the last axis with PyTorch's defaults; fused where the backend is TensorFlow.

    The variance is the mean squared distance from the mean: Keras on torch has the mean square less the squared mean,
    which in float32 may be negative.
    """

    def __init__(self, epsilon=1e-5, momentum=0.9, **kwargs):
        super().__init__(epsilon=epsilon, momentum=momentum, **kwargs)

    def call(self, inputs, training=None, mask=None):
        of_batch = bool(training) and self.trainable
        if keras.backend.backend() == "tensorflow" and self.compute_dtype != "float64":
            y, mean, variance = fused_batch_norm(self, inputs, of_batch)
        else:
            x = ops.cast(inputs, "float64" if self.compute_dtype == "float64" else "float32")
            axes = tuple(range(len(x.shape) - 1))
            statistics = (ops.mean(x, axes), ops.var(x, axes)) if of_batch else (self.moving_mean, self.moving_variance)
            mean, variance, beta, gamma = (ops.cast(part, x.dtype) for part in (*statistics, self.beta, self.gamma))
            y = ops.batch_normalization(x, mean, variance, -1, beta, gamma, self.epsilon)
        if of_batch:
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + ops.cast(batch, moving.dtype) * (1.0 - self.momentum))
        return ops.cast(y, self.compute_dtype)


def convolved(layer, x):
    """What a convolution layer gives, in the way that is fast where we are."""
    x = ops.cast(x, layer.compute_dtype)
    kernel = ops.cast(layer.kernel, layer.compute_dtype)
    return kernels.convolve(x, kernel) if kernels.applies(x, kernel) else layer(x)


@keras.saving.register_keras_serializable(package="sepcl_keras")
class ConvBlock(keras.layers.Layer):
    """Two 3 × 3 convolutions, each with batch norm and ReLU, then average pooling.

    Input (clips, frames, mels, channels), output (clips, frames / pool, mels / pool, filters).
    """

    def __init__(self, filters, pool=2, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.pool = filters, pool
        inner = dict(dtype=self.dtype_policy)
        convolution = dict(kernel_size=3, padding="same", use_bias=False, data_format="channels_last", **inner)
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
        return ops.average_pool(x, self.pool, self.pool, data_format="channels_last") if self.pool > 1 else x

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "pool": self.pool}


@keras.saving.register_keras_serializable(package="sepcl_keras")
class CNN14(Network):
    """Log-mel patches (clips, frames, 64) to embeddings h (clips, embedding_dim).

    PANNs' CNN14 with its 2,048-wide layer and classifier replaced by one linear bottleneck, as the slides have it:
    six convolution blocks, mean over mel bands, maximum plus mean over time. 96 frames or more.

    Args:
        embedding_dim: d, 128 in the paper (and 1,024).
        width: filters of the first block; 64 is the paper's, the last block has 32 times as many.
        recipe: of the log-mel it takes, a name of `LogMel`'s; nothing is computed by it here, but `embed` and exports
            make their log-mel so. Files of before it was kept are of `"vggish"`.
        window: samples that make one embedding, 15,600 or more: what `embed` cuts sounds into and exports take. Files
            of before it was kept are of 15,600; PANNs' checkpoints, trained on clips of 10 s, of 160,000.
        sample_rate: Hz, of the sounds, to which `embed_files` resamples: 16,000, the rate of both recipes, and in files
            of before it was kept. It stands in the file so that one of another rate is refused, not misread.

    Source: Kong et al. 2020, `Cnn14_16k`; the slides for the bottleneck.
    """

    def __init__(
        self, embedding_dim=128, width=64, recipe="vggish", window=PATCH_SAMPLES, sample_rate=SAMPLE_RATE, **kwargs
    ):
        super().__init__(**kwargs)
        check_number("CNN14: embedding_dim", embedding_dim, least=1, whole=True)
        check_number("CNN14: width", width, least=1, whole=True)
        check_number("CNN14: window", window, least=PATCH_SAMPLES, whole=True)
        self.embedding_dim, self.width, self.recipe = embedding_dim, width, one_of("recipe", recipe, RECIPES)
        self.window, self.sample_rate = int(window), RECIPES[recipe]["rate"]
        if sample_rate != self.sample_rate:
            raise BadInput(f"CNN14: sample_rate={sample_rate}: expected {self.sample_rate}, of the log-mel {recipe!r}.")
        inner = dict(dtype=self.dtype_policy)
        self.bn0 = BatchNorm(name="bn0", **inner)  # one mean and variance a mel band
        pools = enumerate((2, 2, 2, 2, 2, 1))
        self.blocks = [ConvBlock(width * 2**i, pool, name=f"conv_block{i + 1}", **inner) for i, pool in pools]
        self.bottleneck = Dense(embedding_dim, name="bottleneck", **inner)

    def build(self, input_shape):
        self.bn0.build((None, None, MEL_BANDS))
        shape = (None, None, MEL_BANDS, 1)
        for block in self.blocks:
            block.build(shape)
            shape = (None, None, shape[2] // block.pool, block.filters)
        self.bottleneck.build((None, shape[-1]))
        self.freeze()

    def call(self, log_mel, training=None):
        check_axes("CNN14: log-mel patches", log_mel.shape, "clips", "frames", MEL_BANDS)
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
        names = "embedding_dim", "width", "recipe", "window", "sample_rate"
        return super().get_config() | {name: getattr(self, name) for name in names}


def scale_and_shift(norm):
    """What batch normalisation multiplies by and adds outside training, (channels,) each, in double precision."""
    gamma, beta, mean, variance = (array_of(v) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def array_of(variable):
    """Its value in double precision."""
    return np.asarray(ops.convert_to_numpy(variable.value), "float64")
