"""MixIT: the loss, in float32, and the model that trains a separator by it."""

import functools
import inspect
import itertools
import math

import keras
import numpy as np
from keras import ops

from sepcl_keras.core.checks import BadInput, check_axes, check_number
from sepcl_keras.training.step import TensorFlowStep

STABILISER = 1e-8  # inside the logarithm, as in the original: sums over time, not means


def assignments(num_estimates):
    """All ways to give each estimate to one of two references: (2 ** estimates, 2, estimates), zeros and ones."""
    to_second = np.array(list(itertools.product((0.0, 1.0), repeat=num_estimates)), "float32")
    return np.stack([1.0 - to_second, to_second], axis=1)


@functools.lru_cache
def quadratic_form(num_estimates):
    """How often each entry of yS′, then of SS′, counts in |y − aS|² under each assignment: (2, M + M², 2 ** M)."""
    table = assignments(num_estimates).transpose(1, 2, 0)  # (2, M, assignments)
    pairs = table[:, :, None] * table[:, None, :]  # (2, M, M, assignments)
    return np.concatenate([-2.0 * table, pairs.reshape(2, -1, table.shape[-1])], axis=1)


@keras.saving.register_keras_serializable(package="sepcl_keras")
class MixIT(keras.losses.Loss):
    """Mixture invariant training: the best remix of the estimates into the two references, by exact search.

    The loss of one reference y and its remix ŷ is the thresholded negative signal-to-noise ratio without its constant
    numerator, 10 log₁₀(Σ(y − ŷ)² + τ Σy² + 1e-8) in dB with τ = 10^(−max_snr / 10); the mean over the two references
    is minimised over the 2^M assignments. All sums come from one Gram matrix, so that no assignment but the winner is
    ever mixed; in float32 that finds the smallest loss to 0.01 dB, unless estimates cancel each other that are 20 dB
    above a reference. Another `base_loss` needs every remix: at M = 8 that is a hundred times slower.

    Args:
        max_snr: dB beyond which a better estimate earns nothing; a `base_loss` does not use it.
        base_loss: a function (references (..., samples), estimates (..., samples)) → losses (...) in place of the
            formula above, `keras.losses.mean_absolute_error` for instance. To be saved it must be registered.

    Call arguments are references (clips, 2, samples), the two mixtures that were summed, and estimates (clips, sources,
    samples) of at most 8 sources. Half precision is taken to float32. Raises `BadInput` for other shapes, a `max_snr`
    that is no number; on saving, a `base_loss` that is not registered.

    Source: Wisdom et al. 2020, `log_mse_loss` of its release.
    """

    def __init__(self, max_snr=30.0, base_loss=None, name="mixit", **kwargs):
        super().__init__(name=name, **kwargs)
        check_number("MixIT: max_snr", max_snr)
        self.max_snr, self.base_loss = max_snr, base_loss

    def call(self, references, estimates):
        """Losses (clips,), each under the clip's best assignment."""
        remixes, _ = self.best_remix(references, estimates)
        references = ops.cast(references, "float32")
        if self.base_loss is not None:
            return ops.mean(self.base_loss(references, remixes), axis=-1)
        error, energy = (ops.sum(ops.square(x), axis=-1) for x in (references - remixes, references))
        return ops.mean(self._decibel(error, energy), axis=-1)

    def best_remix(self, references, estimates):
        """The remixes with the smallest loss, (clips, 2, samples), and their assignment, (clips, 2, sources): a one
        where an estimate went to a reference, else a zero. Gradients flow through the remixes, none through the
        choice."""
        self._check(tuple(references.shape), tuple(estimates.shape))
        references, estimates = ops.cast(references, "float32"), ops.cast(estimates, "float32")
        search = self._search_gram if self.base_loss is None else self._search_mixes
        losses = search(ops.stop_gradient(references), ops.stop_gradient(estimates))  # (clips, assignments)
        table = ops.convert_to_tensor(assignments(estimates.shape[1]))
        assignment = ops.take(table, ops.argmin(losses, axis=-1), axis=0)
        return ops.matmul(assignment, estimates), assignment

    def _check(self, references, estimates):
        # None: not yet known, while TensorFlow traces
        differ = any(len({*pair} - {None}) > 1 for pair in zip(references[::2], estimates[::2], strict=False))
        if len(references) != 3 or len(estimates) != 3 or references[1] != 2 or differ:
            given = f"references of shape {references} and estimates of shape {estimates}"
            expected = "(clips, 2, samples) and (clips, sources, samples), of the same clips and samples"
            raise BadInput(f"MixIT: {given}; expected {expected}.")
        if estimates[1] > 8:
            raise BadInput(f"MixIT: {estimates[1]} estimates; expected at most 8, because every assignment is tried.")

    def _search_gram(self, references, estimates):
        sources = estimates.shape[1]
        turned = ops.transpose(estimates, (0, 2, 1))
        cross = ops.matmul(references, turned)  # (clips, 2, sources)
        gram = ops.reshape(ops.matmul(estimates, turned), (-1, 1, sources**2))
        terms = ops.concatenate([cross, ops.repeat(gram, 2, axis=1)], axis=-1)  # (clips, 2, M + M²)
        energy = ops.sum(ops.square(references), axis=-1, keepdims=True)
        # |y - aS|² = |y|² - 2 a·(yS') + a SS' a'. Not by `matmul`: on a GPU it may round these few numbers to ten bits,
        # and what is left of their difference near a perfect estimate would be noise.
        form = ops.convert_to_tensor(quadratic_form(sources))
        error = energy + ops.sum(terms[..., None] * form, axis=2)  # (clips, 2, assignments)
        return ops.mean(self._decibel(ops.maximum(error, 0.0), energy), axis=1)

    def _search_mixes(self, references, estimates):
        losses, table = [], assignments(estimates.shape[1])
        for start in range(0, len(table), 16):  # sixteen pairs of mixes in memory, not 2^M
            block = ops.convert_to_tensor(table[start : start + 16])
            remixes = ops.matmul(block, estimates[:, None])  # (clips, block, 2, samples)
            targets = ops.repeat(references[:, None], len(block), axis=1)
            losses.append(ops.mean(self.base_loss(targets, remixes), axis=-1))
        return ops.stop_gradient(ops.concatenate(losses, axis=1))

    def _decibel(self, error, energy):
        return 10.0 / math.log(10.0) * ops.log(error + 10 ** (-self.max_snr / 10) * energy + STABILISER)

    def get_config(self):
        if self.base_loss is not None:
            kind = self.base_loss if inspect.isfunction(self.base_loss) else type(self.base_loss)
            registered = keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is kind
            if not registered and not kind.__module__.startswith("keras."):
                known_by = "keras.saving.register_keras_serializable"
                raise BadInput(f"MixIT: base_loss {kind.__name__}; expected one registered by {known_by}, to be saved.")
        saved = {"max_snr": self.max_snr, "base_loss": keras.saving.serialize_keras_object(self.base_loss)}
        return super().get_config() | saved

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"base_loss": keras.saving.deserialize_keras_object(config.get("base_loss"))})


class SeparationModel(TensorFlowStep, keras.Model):
    """Trains a separator by MixIT on batches of waveforms (2N, samples): neighbours become mixtures of mixtures."""

    def __init__(self, separator, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # in mixed precision too, mixtures and references are summed in float32
        self.separator, self.mixit = separator, MixIT()
        # The loss moves with the level of what a batch holds; the signal-to-noise ratio of the best remix does not.
        self.snr_tracker = keras.metrics.Mean(name="snr")

    @staticmethod
    def pair(waveforms):
        """(2N, samples) to the references (N, 2, samples)."""
        check_axes("SeparationModel: waveforms", waveforms.shape, "clips", "samples")
        clips = waveforms.shape[0]
        if (clips or 0) % 2:
            raise BadInput(f"SeparationModel: {clips} waveforms; expected an even number, two for a mixture.")
        return ops.reshape(waveforms, (-1, 2, waveforms.shape[-1]))

    def call(self, waveforms, training=None):
        """Channels (N, sources, samples) of the N mixtures of mixtures."""
        return self.separator(ops.sum(self.pair(waveforms), axis=1), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        references = self.pair(x)
        losses = self.mixit.call(references, y_pred)  # (N,)
        level = 10.0 * ops.mean(ops.log10(ops.sum(ops.square(references), axis=-1) + STABILISER), axis=-1)
        self.snr_tracker.update_state(level - losses)
        return ops.mean(losses)
