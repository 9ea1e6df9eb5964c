"""TDCN++, the separator: learned basis, dilated convolution blocks, masks, mixture consistency."""

import functools

import keras
import numpy as np
from keras import ops

from sepcl_keras.core.checks import BadInput, check_axes, check_number, one_of
from sepcl_keras.core.dense import Dense
from sepcl_keras.core.saved import Network
from sepcl_keras.separation.blocks import ScaledDense, TDCNBlock

CONSISTENCY = ("predicted", "uniform", "energy")


def mixture_consistency(mixture, sources, weights):
    """The sources (clips, sources, samples), to which what they lack of the mixture (clips, samples) is shared out by
    weights (clips, sources) that sum to one, so that they sum to the mixture."""
    missing = mixture - ops.sum(sources, axis=1)
    return sources + ops.expand_dims(weights, 2) * ops.expand_dims(missing, 1)  # no [:, None]: LiteRT has none


def energy_weights(sources):
    """Weights (clips, sources) in proportion to the energy of `sources` (clips, sources, samples); even for silence."""
    energy = ops.mean(ops.square(sources), axis=-1) + 1e-8  # the original's floor, 80 dB below a full-scale square wave
    return energy / ops.sum(energy, axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="sepcl_keras")
class TDCNPlusPlus(Network):
    """Separates mixtures (clips, samples) into channels (clips, sources, samples) that sum to the mixture.

    Args:
        num_sources: channels to make, M. num_basis: learned basis functions.
        frame_length, frame_step: of the basis, in samples.
        bottleneck, hidden: features between and inside the blocks.
        kernel_size, dilations, repeats: of the depthwise convolutions; `dilations` are used in each repeat.
        long_skips: add the input of each repeat, through a dense layer of its own, to that of every later one.
        consistency: how what the sources lack of the mixture is shared out among them: by weights `"predicted"` from
            the last block's output, `"uniform"`, or in proportion to each source's `"energy"` over time.

    Raises `BadInput` for a step longer than a frame, an unknown consistency, or a mixture of another rank.

    Source: the MixIT release of google-research/sound-separation; Kavalerov et al. 2019, Wisdom et al. 2020.
    """

    def __init__(
        self, num_sources=2, num_basis=256, frame_length=40, frame_step=20, bottleneck=256, hidden=512,
        kernel_size=3, dilations=(1, 2, 4, 8, 16, 32, 64, 128), repeats=4, long_skips=False,
        consistency="predicted", **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.autocast = False  # the mixture stays float32, so that the channels can sum to it; the layers cast
        one_of("TDCNPlusPlus: consistency", consistency, CONSISTENCY)
        self.config = dict(
            num_sources=num_sources, num_basis=num_basis, frame_length=frame_length, frame_step=frame_step,
            bottleneck=bottleneck, hidden=hidden, kernel_size=kernel_size, dilations=tuple(dilations),
            repeats=repeats, long_skips=long_skips, consistency=consistency,
        )  # fmt: skip
        sizes = {k: v for k, v in self.config.items() if k not in ("dilations", "long_skips", "consistency")}
        for name, value in [*sizes.items(), *(("dilations", dilation) for dilation in self.config["dilations"])]:
            check_number(f"TDCNPlusPlus: {name}", value, least=1, whole=True)
        if frame_step > frame_length:
            raise BadInput(f"TDCNPlusPlus: frame_step={frame_step}; expected 1 to frame_length={frame_length}.")
        dense = dict(use_bias=False, dtype=self.dtype_policy)
        self.encoder = Dense(num_basis, activation="relu", name="encoder", **dense)
        self.initial = ScaledDense(bottleneck, use_bias=True, dtype=self.dtype_policy, name="initial")
        self.blocks = [
            TDCNBlock(hidden, kernel_size, dilation, index, dtype=self.dtype_policy, name=f"block_{index}")
            for index, dilation in enumerate(tuple(dilations) * repeats)
        ]
        self.starts = tuple(range(0, len(self.blocks), len(dilations)))
        pairs = [(i, j) for j in self.starts for i in self.starts if i < j] if long_skips else []
        self.skips = {
            f"{i}_{j}": ScaledDense(bottleneck, use_bias=True, dtype=self.dtype_policy, name=f"skip_{i}_{j}")
            for i, j in pairs
        }
        self.masks = Dense(num_sources * num_basis, activation="sigmoid", name="masks", **dense)
        self.decoder = Dense(frame_length, name="decoder", **dense)
        if consistency == "predicted":
            self.weighting = Dense(num_sources, name="weighting", **dense)

    def build(self, input_shape):
        c = self.config
        inner = (None, None, c["bottleneck"])
        self.encoder.build((None, None, c["frame_length"]))
        self.initial.build((None, None, c["num_basis"]))
        for layer in (*self.blocks, *self.skips.values(), self.masks):
            layer.build(inner)
        self.decoder.build((None, None, None, c["num_basis"]))
        if c["consistency"] == "predicted":
            self.weighting.build((None, c["bottleneck"]))
        self.freeze()

    @property
    def overlap(self):
        """How many frames cover one sample, away from the ends; their last step may be shorter than the others."""
        return -(-self.config["frame_length"] // self.config["frame_step"])

    def frame(self, waveforms):
        """(clips, samples) to overlapping frames (clips, frames, frame_length), zeros after the end."""
        length, step = self.config["frame_length"], self.config["frame_step"]
        frames = 1 + (ops.shape(waveforms)[-1] - length + step - 1) // step
        frames = ops.maximum(frames, 1) if ops.is_tensor(frames) else max(frames, 1)
        hops = frames + self.overlap - 1
        padded = ops.pad(waveforms, ((0, 0), (0, 2 * self.overlap * step)))[:, : hops * step]
        chunks = ops.reshape(padded, (-1, hops, step))
        whole = ops.concatenate([chunks[:, k : k + frames] for k in range(self.overlap)], axis=-1)
        return whole[..., :length]

    def overlap_add(self, frames, samples):
        """(clips, sources, frames, frame_length) to waveforms (clips, sources, samples)."""
        step, sources, overlap = self.config["frame_step"], self.config["num_sources"], self.overlap
        rest = overlap * step - self.config["frame_length"]
        if rest:
            frames = ops.pad(frames, ((0, 0), (0, 0), (0, 0), (0, rest)))
        # Split and not sliced: TensorFlow's gradient of slices fills an array with zeros for each.
        chunks = enumerate(ops.split(frames, overlap, axis=-1))
        total = sum(ops.pad(chunk, ((0, 0), (0, 0), (k, overlap - 1 - k), (0, 0))) for k, chunk in chunks)
        return ops.reshape(total, (-1, sources, ops.shape(total)[2] * step))[:, :, :samples]

    def call(self, mixture, training=None):
        return self.by_blocks(mixture, [functools.partial(block, training=training) for block in self.blocks])

    def by_blocks(self, mixture, blocks):
        """What `call` gives, by these functions of x (clips, frames, bottleneck) in the places of the blocks."""
        c = self.config
        check_axes("TDCNPlusPlus: a mixture", mixture.shape, "clips", "samples")
        coefficients = self.encoder(self.frame(mixture))  # (clips, frames, basis)
        x = self.initial(coefficients)  # (clips, frames, bottleneck)
        repeat_inputs = {}
        for index, block in enumerate(blocks):
            if self.skips and index in self.starts:
                for earlier, y in repeat_inputs.items():
                    x = x + self.skips[f"{earlier}_{index}"](y)
                repeat_inputs[index] = x
            x = block(x)
        masks = self.masks(x)
        masks = ops.reshape(masks, (-1, ops.shape(masks)[1], c["num_sources"], c["num_basis"]))
        masked = masks * ops.expand_dims(coefficients, 2)
        masked = ops.transpose(masked, (0, 2, 1, 3))  # (clips, sources, frames, basis)
        sources = self.overlap_add(self.decoder(masked), ops.shape(mixture)[-1])
        # In float32 whatever the policy: the sum over channels is the mixture to the last bits.
        mixture, sources = ops.cast(mixture, "float32"), ops.cast(sources, "float32")
        if c["consistency"] == "predicted":
            weights = ops.softmax(ops.cast(self.weighting(ops.mean(x, axis=1)), "float32"))
        elif c["consistency"] == "energy":
            weights = energy_weights(sources)
        else:
            weights = ops.full((1, c["num_sources"]), 1 / c["num_sources"])
        return mixture_consistency(mixture, sources, weights)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.config["num_sources"], input_shape[1])

    def get_config(self):
        return super().get_config() | self.config

    @property
    def receptive_field(self):
        """Samples of the mixture that one frame sees through the convolutions (the normalisation sees the clip)."""
        c = self.config
        frames = 1 + (c["kernel_size"] - 1) * sum(c["dilations"]) * c["repeats"]
        return (frames - 1) * c["frame_step"] + c["frame_length"]


def start_from_mdct(separator):
    """Sets the untrained basis of a `TDCNPlusPlus` to cosines that rebuild any signal, instead of random numbers.

    Each cosine of the modified discrete cosine transform stands twice, with both signs, because the encoder's ReLU
    keeps one; the decoder is the transpose, and overlapping frames add up to the input. The original spends its first
    thousands of steps on finding such a basis. It has as many functions as a frame has samples, and frames overlap by
    half; anything else is refused.
    """
    basis, length, step = (separator.config[name] for name in ("num_basis", "frame_length", "frame_step"))
    if basis != length or length != 2 * step:
        given = f"{basis} basis functions on frames of {length} samples every {step}"
        raise BadInput(f"start_from_mdct: {given}; expected as many functions as samples, half as many between frames.")
    sample, band = np.arange(length)[:, None] + 0.5, np.arange(step) + 0.5
    window = np.sin(np.pi * sample / length) * np.sqrt(2 / step)
    cosines = window * np.cos(np.pi / step * (sample + step / 2) * band)  # (samples, bands)
    kernel = np.concatenate([cosines, -cosines], axis=1)
    separator.encoder.kernel.assign(kernel)
    separator.decoder.kernel.assign(kernel.T)
