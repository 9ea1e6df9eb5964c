"""Patches changed while training, each by a draw of its own: SpecAugment, and what the triplet system of 2018 does."""

import math

import keras
from keras import ops

from sepcl_keras.core.backend import matmul
from sepcl_keras.core.checks import check_axes, check_number
from sepcl_keras.core.draws import stream
from sepcl_keras.views.log_mel import LOG_OFFSET


class Augmentation(keras.layers.Layer):
    """What all layers below share: they change log-mel patches (clips, frames, mels) in training, each patch by a draw
    of its own, and pass them on otherwise. The number of frames may be open. Two layers of one class with one `seed`
    draw the same, as Keras' own do. Arguments out of range and another number of axes are `BadInput`."""

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed, self.generator = seed, keras.random.SeedGenerator(stream(seed, type(self).__name__))

    def call(self, log_mel, training=None):
        check_axes(f"{type(self).__name__}: patches", log_mel.shape, "clips", "frames", "mels")
        return ops.cast(self.changed(log_mel), log_mel.dtype) if training else log_mel

    def draws(self, *shape):
        """Two sets of uniform numbers, (2, *shape)."""
        return keras.random.uniform((2, *shape), dtype="float32", seed=self.generator)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"seed": self.seed}


@keras.saving.register_keras_serializable(package="sepcl_keras")
class SpecAugment(Augmentation):
    """Warps and masks log-mel patches.

    Order: time warp, time masks, frequency masks. Masked cells take the mean of their patch, where the batch norm
    expects it.

    Args:
        time_warp: largest shift of the warp's one inner point, in frames.
        time_masks, time_width: number of masks and largest width in frames.
        frequency_masks, frequency_width: number of masks and largest width in mel bands.

    Source: Park et al. 2019, scaled to patches of 96 frames; the warp is the piecewise-linear one of lingvo.
    """

    def __init__(
        self, time_warp=6, time_masks=2, time_width=12, frequency_masks=2, frequency_width=8, seed=None, **kwargs
    ):
        super().__init__(seed, **kwargs)
        self.sizes = dict(
            time_warp=time_warp, time_masks=time_masks, time_width=time_width,
            frequency_masks=frequency_masks, frequency_width=frequency_width,
        )  # fmt: skip
        for name, value in self.sizes.items():
            check_number(f"SpecAugment: {name}", value, least=0, whole=True)

    def changed(self, log_mel):
        (clips, frames, mels), sizes = ops.shape(log_mel), self.sizes
        x = self.warp(log_mel) if sizes["time_warp"] else log_mel
        in_time = self._masks(clips, sizes["time_masks"], sizes["time_width"], frames)
        in_frequency = self._masks(clips, sizes["frequency_masks"], sizes["frequency_width"], mels)
        masked = in_time[:, :, None] | in_frequency[:, None]  # (clips, frames, mels)
        return ops.where(masked, ops.mean(x, axis=(1, 2), keepdims=True), x)

    def _masks(self, clips, masks, width, size):
        """(clips, size), true where one of the masks lies: width in 0 … `width`, start anywhere it fits."""
        if not masks:
            return ops.zeros((clips, size), dtype="bool")
        draws, position, size = self.draws(clips, masks, 1), _numbered(size), ops.cast(size, "float32")
        widths = ops.floor(draws[0] * (ops.minimum(size, float(width)) + 1))
        starts = ops.floor(draws[1] * (size - widths + 1))
        return ops.any((position >= starts) & (position < starts + widths), axis=1)

    def warp(self, log_mel):
        """Moves one inner frame of each patch by up to `time_warp` frames; both ends stay, and patches too short."""
        clips, frames = ops.shape(log_mel)[:2]
        draws, last = self.draws(clips, 1), ops.maximum(ops.cast(frames, "float32") - 1.0, 2.0)
        origin = 1.0 + draws[0] * (last - 2.0)
        target = ops.clip(origin + (2.0 * draws[1] - 1.0) * self.sizes["time_warp"], 1.0, last - 1.0)
        frame = _numbered(frames)  # of the output
        before, after = frame * origin / target, last - (last - frame) * (last - origin) / (last - target)
        source = ops.where(frame < target, before, after)  # (clips, frames): where each output frame comes from
        # Linear interpolation as a matrix with at most two entries a row: one small product on any backend.
        hat = ops.relu(1.0 - ops.abs(source[:, :, None] - frame))
        return matmul(ops.cast(hat, log_mel.dtype), log_mel)

    def get_config(self):
        return super().get_config() | self.sizes


def _numbered(size):
    """0.0, 1.0, … below `size`."""
    return ops.cast(ops.arange(size, dtype="int32"), "float32")


def _magnitudes(log_mel):
    return ops.relu(ops.exp(ops.cast(log_mel, "float32")) - LOG_OFFSET)


# From here on what makes a positive of an anchor in the triplet system, on patches of the recipe "vggish"; energies are
# squares of mel magnitudes. Source: Jansen et al. 2018, as far as second-hand accounts give it.


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Noise(Augmentation):
    """Every cell's magnitude grows by a factor 1 + |ε|, ε normal with deviation 0.5, drawn for each cell."""

    def changed(self, log_mel):
        noise = keras.random.normal(ops.shape(log_mel), stddev=0.5, dtype="float32", seed=self.generator)
        return ops.log(_magnitudes(log_mel) * (1.0 + ops.abs(noise)) + LOG_OFFSET)


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Shift(Augmentation):
    """Time goes round by any number of frames; frequency moves by at most ten bands, silence fills what is left."""

    BANDS = 10

    def changed(self, log_mel):
        clips, frames, mels = ops.shape(log_mel)
        draws = self.draws(clips)
        by_frames = ops.cast(ops.floor(draws[0] * ops.cast(frames, "float32")), "int32")[:, None]
        by_bands = ops.cast(ops.floor(draws[1] * (2 * self.BANDS + 1)), "int32")[:, None] - self.BANDS
        sources = (ops.arange(frames, dtype="int32") - by_frames) % frames  # (clips, frames): where each comes from
        x = ops.take_along_axis(log_mel, sources[:, :, None], axis=1)
        sources = ops.arange(mels, dtype="int32") - by_bands  # (clips, mels)
        x = ops.take_along_axis(x, ops.clip(sources, 0, mels - 1)[:, None], axis=2)
        there = (sources >= 0) & (sources < mels)
        return ops.where(there[:, None], x, math.log(LOG_OFFSET))


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Mixing(Augmentation):
    """Adds another patch of the batch, scaled to `low` to `high` times the patch's own energy, drawn for each patch.

    A mixture has the classes of its parts: 0.25 is the triplet system's. From 0 to 0.05 it is mix-back (Fonseca et
    al. 2020), a background.
    """

    def __init__(self, low=0.25, high=0.25, **kwargs):
        super().__init__(**kwargs)
        check_number("Mixing: low", low, least=0)
        check_number("Mixing: high", high, least=low)
        self.low, self.high = low, high

    def changed(self, log_mel):
        clips = ops.shape(log_mel)[0]
        draws = self.draws(clips)
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
