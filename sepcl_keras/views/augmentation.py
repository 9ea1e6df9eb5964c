"""Patches changed while training, each by a draw of its own: SpecAugment, and what the triplet system of 2018 does."""

import math

import keras
from keras import ops

from sepcl_keras.core.backend import matmul
from sepcl_keras.core.files import BadInput
from sepcl_keras.views.log_mel import LOG_OFFSET


@keras.saving.register_keras_serializable(package="sepcl_keras")
class SpecAugment(keras.layers.Layer):
    """Warps and masks log-mel patches (clips, frames, mels) while training; each patch has its own draw.

    Order: time warp, time masks, frequency masks. Masked cells take the mean of their patch, which says nothing
    about what stood there and stays where the batch norm expects it.

    Args:
        time_warp: largest shift of the warp's one inner point, in frames.
        time_masks, time_width: number of masks and largest width in frames.
        frequency_masks, frequency_width: number of masks and largest width in mel bands.
        seed: of the layer's own generator.

    Source: Park et al. 2019, scaled to patches of 96 frames; the warp is the piecewise-linear one of lingvo.
    """

    def __init__(
        self, time_warp=6, time_masks=2, time_width=12, frequency_masks=2, frequency_width=8, seed=None, **kwargs
    ):
        super().__init__(**kwargs)
        sizes = dict(
            time_warp=time_warp, time_masks=time_masks, time_width=time_width,
            frequency_masks=frequency_masks, frequency_width=frequency_width,
        )  # fmt: skip
        for name, value in sizes.items():
            if value < 0:
                raise BadInput(f"SpecAugment({name}={value}): expected zero or more.")
        self.sizes, self.seed = sizes, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, log_mel, training=None):
        if not training:
            return log_mel
        clips, (frames, mels), sizes = ops.shape(log_mel)[0], log_mel.shape[1:], self.sizes
        x = self.warp(log_mel) if sizes["time_warp"] and frames > 2 else log_mel
        in_time = self._masks(clips, sizes["time_masks"], sizes["time_width"], frames)
        in_frequency = self._masks(clips, sizes["frequency_masks"], sizes["frequency_width"], mels)
        masked = in_time[:, :, None] | in_frequency[:, None]  # (clips, frames, mels)
        return ops.where(masked, ops.mean(x, axis=(1, 2), keepdims=True), x)

    def _masks(self, clips, masks, width, size):
        """(clips, size), true where one of the masks lies: width in 0 … `width`, start anywhere it fits."""
        if not masks:
            return ops.zeros((clips, size), dtype="bool")
        draws = keras.random.uniform((2, clips, masks, 1), seed=self.generator)
        widths = ops.floor(draws[0] * (min(width, size) + 1))
        starts = ops.floor(draws[1] * (size - widths + 1))
        position = ops.arange(size, dtype=draws.dtype)
        return ops.any((position >= starts) & (position < starts + widths), axis=1)

    def warp(self, log_mel):
        """Moves one inner frame of each patch by up to `time_warp` frames; both ends stay."""
        clips, last = ops.shape(log_mel)[0], log_mel.shape[1] - 1
        draws = keras.random.uniform((2, clips, 1), seed=self.generator)
        reach = self.sizes["time_warp"]
        origin = 1.0 + draws[0] * (last - 2)
        target = ops.clip(origin + (2.0 * draws[1] - 1.0) * reach, 1.0, last - 1.0)
        frame = ops.arange(last + 1, dtype=draws.dtype)  # of the output
        source = ops.where(
            frame < target, frame * origin / target, last - (last - frame) * (last - origin) / (last - target)
        )  # (clips, frames): where each output frame comes from
        # Linear interpolation as a matrix with at most two entries a row: one small product on any backend.
        hat = ops.relu(1.0 - ops.abs(source[:, :, None] - frame))
        return matmul(ops.cast(hat, log_mel.dtype), log_mel)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | self.sizes | {"seed": self.seed}


def _magnitudes(log_mel):
    return ops.relu(ops.exp(ops.cast(log_mel, "float32")) - LOG_OFFSET)


class Constraint(keras.layers.Layer):
    """What the layers below share. They take log-mel patches (clips, frames, mels) of the recipe `"vggish"`, draw anew
    for each patch, and pass it on outside training. Energies are squares of mel magnitudes.

    Source: Jansen et al. 2018, as far as second-hand accounts give it.
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed, self.generator = seed, keras.random.SeedGenerator(seed)

    def call(self, log_mel, training=None):
        return ops.cast(self.changed(log_mel), log_mel.dtype) if training else log_mel

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"seed": self.seed}


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Noise(Constraint):
    """Every cell's magnitude grows by a factor 1 + |ε|, ε normal with deviation 0.5, drawn for each cell."""

    def changed(self, log_mel):
        noise = keras.random.normal(ops.shape(log_mel), stddev=0.5, dtype="float32", seed=self.generator)
        return ops.log(_magnitudes(log_mel) * (1.0 + ops.abs(noise)) + LOG_OFFSET)


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Shift(Constraint):
    """Time goes round by any number of frames; frequency moves by at most ten bands, silence fills what is left."""

    BANDS = 10

    def changed(self, log_mel):
        clips, (frames, mels) = ops.shape(log_mel)[0], log_mel.shape[1:]
        draws = keras.random.uniform((2, clips), dtype="float32", seed=self.generator)
        by_frames = ops.cast(ops.floor(draws[0] * frames), "int32")[:, None]
        by_bands = ops.cast(ops.floor(draws[1] * (2 * self.BANDS + 1)), "int32")[:, None] - self.BANDS
        sources = (ops.arange(frames, dtype="int32") - by_frames) % frames  # (clips, frames): where each comes from
        x = ops.take_along_axis(log_mel, sources[:, :, None], axis=1)
        sources = ops.arange(mels, dtype="int32") - by_bands  # (clips, mels)
        x = ops.take_along_axis(x, ops.clip(sources, 0, mels - 1)[:, None], axis=2)
        there = (sources >= 0) & (sources < mels)
        return ops.where(there[:, None], x, math.log(LOG_OFFSET))


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Mixing(Constraint):
    """Adds another patch of the batch, scaled to `low` to `high` times the patch's own energy, drawn for each patch.

    A mixture has the classes of its parts: 0.25 is the triplet system's. From 0 to 0.05 it is mix-back (Fonseca et
    al. 2020), a background.
    """

    def __init__(self, low=0.25, high=0.25, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= low <= high:
            raise BadInput(f"Mixing(low={low}, high={high}): expected 0 ≤ low ≤ high.")
        self.low, self.high = low, high

    def changed(self, log_mel):
        clips = ops.shape(log_mel)[0]
        draws = keras.random.uniform((2, clips), dtype="float32", seed=self.generator)
        others = ops.cast(ops.floor(draws[0] * ops.cast(clips - 1, "float32")), "int32") + 1
        partners = (ops.arange(clips, dtype="int32") + others) % ops.maximum(clips, 1)  # never itself, if there are two
        energy = ops.square(_magnitudes(log_mel))
        level = ops.sum(energy, axis=(1, 2), keepdims=True)
        share = (self.low + (self.high - self.low) * draws[1])[:, None, None]
        gain = share * level / (ops.take(level, partners, axis=0) + 1e-12)
        return ops.log(ops.sqrt(energy + gain * ops.take(energy, partners, axis=0)) + LOG_OFFSET)

    def get_config(self):
        return super().get_config() | {"low": self.low, "high": self.high}


CONSTRAINTS = {"noise": Noise, "shift": Shift, "mixing": Mixing, "proximity": None}  # None: another moment of the clip
