"""SpecAugment: mild time warp, time masks and frequency masks, drawn anew for each patch."""

import keras
from keras import ops

from sepcl_keras.files import BadInput


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
        return ops.matmul(ops.cast(hat, log_mel.dtype), log_mel)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | self.sizes | {"seed": self.seed}
