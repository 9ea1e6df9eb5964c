"""The objectives: MixIT for the separator, NT-Xent and coincidence prediction for the encoder. All in float32."""

import itertools
import math

import keras
import numpy as np
from keras import ops

from sepcl_keras.files import BadInput

STABILISER = 1e-8  # inside the logarithm, as in the original: sums over time, not means


def assignments(num_estimates):
    """All ways to give each estimate to one of two references: (2 ** estimates, 2, estimates), zeros and ones."""
    to_second = np.array(list(itertools.product((0.0, 1.0), repeat=num_estimates)), "float32")
    return np.stack([1.0 - to_second, to_second], axis=1)


@keras.saving.register_keras_serializable(package="sepcl_keras")
class MixIT(keras.losses.Loss):
    """Mixture invariant training: the best remix of the estimates into the two references, by exact search.

    The loss of one reference y and its remix ŷ is the thresholded negative signal-to-noise ratio without its constant
    numerator, 10 log₁₀(Σ(y − ŷ)² + τ Σy² + 1e-8) in dB with τ = 10^(−max_snr / 10); the mean over the two references
    is minimised over the 2^M assignments.

    All sums come from one Gram matrix, so that no assignment but the winner is ever mixed.

    Args:
        max_snr: dB beyond which a better estimate earns nothing.

    Call arguments:
        references: (clips, 2, samples), the two mixtures that were summed.
        estimates: (clips, sources, samples), at most 8 sources.

    Source: Wisdom et al. 2020, `log_mse_loss` of its release.
    """

    def __init__(self, max_snr=30.0, name="mixit", **kwargs):
        super().__init__(name=name, **kwargs)
        self.max_snr = max_snr

    def call(self, references, estimates):
        """Losses (clips,) in dB, each under the clip's best assignment."""
        remixes = ops.matmul(self.best_assignment(references, estimates), estimates)  # (clips, 2, samples)
        error = ops.sum(ops.square(references - remixes), axis=-1)
        return ops.mean(self._decibel(error, self._energy(references)), axis=-1)

    def best_assignment(self, references, estimates):
        """The assignment with the smallest loss, (clips, 2, sources) of zeros and ones; no gradient flows through."""
        sources = estimates.shape[1]
        if sources > 8:
            raise BadInput(f"MixIT: {sources} estimates; expected at most 8, because every assignment is tried.")
        references, estimates = ops.stop_gradient(references), ops.stop_gradient(estimates)
        table = ops.convert_to_tensor(assignments(sources))  # (assignments, 2, sources)
        cross = ops.matmul(references, ops.transpose(estimates, (0, 2, 1)))  # (clips, 2, sources)
        gram = ops.matmul(estimates, ops.transpose(estimates, (0, 2, 1)))  # (clips, sources, sources)
        energy = self._energy(references)  # (clips, 2)
        # |y - aS|² = |y|² - 2 a·(yS') + a SS' a'
        error = (
            energy[:, None]
            - 2.0 * ops.einsum("arm,brm->bar", table, cross)
            + ops.einsum("arm,bmn,arn->bar", table, gram, table)
        )
        losses = ops.mean(self._decibel(ops.maximum(error, 0.0), energy[:, None]), axis=-1)  # (clips, assignments)
        return ops.take(table, ops.argmin(losses, axis=-1), axis=0)

    def _energy(self, references):
        return ops.sum(ops.square(references), axis=-1)

    def _decibel(self, error, energy):
        return 10.0 / math.log(10.0) * ops.log(error + 10 ** (-self.max_snr / 10) * energy + STABILISER)

    def get_config(self):
        return super().get_config() | {"max_snr": self.max_snr}


@keras.saving.register_keras_serializable(package="sepcl_keras")
class NTXent(keras.losses.Loss):
    """Normalised temperature-scaled cross entropy over all 2N views.

    Each view is an anchor; its partner is the positive, the other 2N − 2 views are the negatives, and only the anchor
    itself is left out of the denominator. At chance, ln(2N − 1).

    Args:
        temperature: divides the cosine similarities.

    Call arguments:
        z_a, z_b: (N, d), one row a pair; they need not be normalised.

    Source: Chen et al. 2020; the slides' similarity loss.
    """

    def __init__(self, temperature=0.2, name="nt_xent", **kwargs):
        super().__init__(name=name, **kwargs)
        self.temperature = temperature

    def call(self, z_a, z_b):
        """Losses (2N,): the anchors of `z_a`, then those of `z_b`."""
        logits, positives = self.logits(z_a, z_b)
        return ops.logsumexp(logits, axis=-1) - ops.take_along_axis(logits, positives[:, None], axis=-1)[:, 0]

    def logits(self, z_a, z_b):
        """Scaled similarities (2N, 2N) with the diagonal at minus infinity, and each anchor's positive (2N,)."""
        z = ops.cast(ops.concatenate([z_a, z_b], axis=0), "float32")  # (2N, d)
        z = ops.normalize(z, axis=-1)
        views = ops.shape(z)[0]
        similarities = ops.matmul(z, ops.transpose(z)) / self.temperature
        # -1e9 and not -inf: logsumexp's gradient of -inf is not a number on some backends.
        logits = similarities - 1e9 * ops.eye(views, dtype=similarities.dtype)
        return logits, ops.mod(ops.arange(views) + views // 2, views)

    def get_config(self):
        return super().get_config() | {"temperature": self.temperature}


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Coincidence(keras.losses.Loss):
    """Balanced binary cross entropy: does mixture i coincide with channel j?

    The N pairs of the diagonal are the positives, all N(N − 1) others the negatives; each group weighs the same
    whatever N. At chance, 2 ln 2.

    Call arguments:
        targets: ignored, zeros (N, N); it is there because Keras' losses take two arguments.
        logits: (N, N), mixtures along the first axis, channels along the second.

    Source: the slides' coincidence loss; Jansen et al. 2020.
    """

    def __init__(self, name="coincidence", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, targets, logits):
        """Losses (N,), one a mixture: its positive plus the mean of its negatives."""
        positives = ops.diagonal(logits)
        others = ops.cast(ops.shape(logits)[0] - 1, logits.dtype)
        negatives = ops.sum(ops.softplus(logits), axis=-1) - ops.softplus(positives)
        return ops.softplus(-positives) + negatives / others
