"""The objectives: MixIT for the separator, NT-Xent, coincidence and triplets for the encoder. In float32."""

import functools
import inspect
import itertools
import math

import keras
import numpy as np
from keras import ops

from sepcl_keras.backend import full_precision
from sepcl_keras.files import BadInput

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
            formula above, `keras.losses.mean_absolute_error` for instance. To be saved it must be registered with
            Keras.

    Call arguments:
        references: (clips, 2, samples), the two mixtures that were summed.
        estimates: (clips, sources, samples), at most 8 sources. Half precision is taken to float32.

    Raises:
        BadInput: for other shapes; on saving, for a `base_loss` that is not registered.

    Source: Wisdom et al. 2020, `log_mse_loss` of its release.
    """

    def __init__(self, max_snr=30.0, base_loss=None, name="mixit", **kwargs):
        super().__init__(name=name, **kwargs)
        self.max_snr, self.base_loss = max_snr, base_loss

    def call(self, references, estimates):
        """Losses (clips,), each under the clip's best assignment."""
        remixes, _ = self.best_remix(references, estimates)
        references = ops.cast(references, "float32")
        if self.base_loss is not None:
            return ops.mean(self.base_loss(references, remixes), axis=-1)
        error = ops.sum(ops.square(references - remixes), axis=-1)
        return ops.mean(self._decibel(error, self._energy(references)), axis=-1)

    def best_remix(self, references, estimates):
        """The remixes with the smallest loss, (clips, 2, samples), and their assignment, (clips, 2, sources).

        The assignment holds a one where an estimate went to a reference, else a zero. Gradients flow through the
        remixes, none through the choice.
        """
        self._check(tuple(references.shape), tuple(estimates.shape))
        references, estimates = ops.cast(references, "float32"), ops.cast(estimates, "float32")
        search = self._search_gram if self.base_loss is None else self._search_mixes
        losses = search(ops.stop_gradient(references), ops.stop_gradient(estimates))  # (clips, assignments)
        table = ops.convert_to_tensor(assignments(estimates.shape[1]))
        assignment = ops.take(table, ops.argmin(losses, axis=-1), axis=0)
        return ops.matmul(assignment, estimates), assignment

    def _check(self, references, estimates):
        lengths = {references[-1], estimates[-1]} - {None}  # None: not yet known, while TensorFlow traces
        if len(references) != 3 or len(estimates) != 3 or references[1] != 2 or len(lengths) > 1:
            raise BadInput(
                f"MixIT: references of shape {references} and estimates of shape {estimates}; "
                "expected (clips, 2, samples) and (clips, sources, samples)."
            )
        if estimates[1] > 8:
            raise BadInput(f"MixIT: {estimates[1]} estimates; expected at most 8, because every assignment is tried.")

    def _search_gram(self, references, estimates):
        sources = estimates.shape[1]
        turned = ops.transpose(estimates, (0, 2, 1))
        cross = ops.matmul(references, turned)  # (clips, 2, sources)
        gram = ops.reshape(ops.matmul(estimates, turned), (-1, 1, sources**2))
        terms = ops.concatenate([cross, ops.repeat(gram, 2, axis=1)], axis=-1)  # (clips, 2, M + M²)
        energy = self._energy(references)[:, :, None]
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

    def _energy(self, references):
        return ops.sum(ops.square(references), axis=-1)

    def _decibel(self, error, energy):
        return 10.0 / math.log(10.0) * ops.log(error + 10 ** (-self.max_snr / 10) * energy + STABILISER)

    def get_config(self):
        if self.base_loss is not None:
            kind = self.base_loss if inspect.isfunction(self.base_loss) else type(self.base_loss)
            registered = keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is kind
            if not registered and not kind.__module__.startswith("keras."):
                raise BadInput(
                    f"MixIT: base_loss {kind.__name__}; expected one registered by "
                    "keras.saving.register_keras_serializable, else it cannot be saved."
                )
        saved = {"max_snr": self.max_snr, "base_loss": keras.saving.serialize_keras_object(self.base_loss)}
        return super().get_config() | saved

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"base_loss": keras.saving.deserialize_keras_object(config.get("base_loss"))})


def unit_rows(*arrays):
    """Each array (rows, d) in float32, its rows divided by their length; a row of zeros stays as it is.

    Its gradient stays finite too: `ops.normalize` would give what is not a number.
    """
    arrays = [ops.cast(x, "float32") for x in arrays]
    energies = [ops.sum(ops.square(x), axis=-1, keepdims=True) for x in arrays]
    return [x * ops.rsqrt(ops.where(e > 1e-30, e, ops.ones_like(e))) for x, e in zip(arrays, energies, strict=True)]


def check_pairs(name, first, second):
    """That two arrays have the same shape with two axes and at least two rows, as far as that is known."""
    lengths = {first[0], second[0]} - {None}  # None: not yet known, while TensorFlow traces
    if len(first) != 2 or first[1:] != second[1:] or len(lengths) > 1 or min(lengths, default=2) < 2:
        raise BadInput(f"{name} of shapes {first} and {second}; expected (N, d) twice, two pairs or more.")


@keras.saving.register_keras_serializable(package="sepcl_keras")
class NTXent(keras.losses.Loss):
    """Normalised temperature-scaled cross entropy over all 2N views.

    Each view is an anchor; its partner is the positive, the other 2N − 2 views are the negatives, and only the anchor
    itself is left out of the denominator. At chance, ln(2N − 1).

    Args:
        temperature: divides the cosine similarities.

    Call arguments:
        z_a, z_b: (N, d), one row a pair, at least two; they need not be normalised. A row of zeros is at cosine 0 to
            all others. Half precision is taken to float32.

    Raises:
        BadInput: for other shapes.

    Source: Chen et al. 2020; the slides' similarity loss.
    """

    def __init__(self, temperature=0.2, name="nt_xent", **kwargs):
        super().__init__(name=name, **kwargs)
        self.temperature = temperature

    def call(self, z_a, z_b):
        """Losses (2N,): the anchors of `z_a`, then those of `z_b`."""
        return self.losses(*self.logits(z_a, z_b))

    def losses(self, logits, positives):
        """The same, from what `logits` gives."""
        return ops.sparse_categorical_crossentropy(positives, logits, from_logits=True)

    def logits(self, z_a, z_b):
        """Scaled similarities (2N, 2N) with the diagonal at minus infinity, and each anchor's positive (2N,)."""
        check_pairs("NTXent: views", tuple(z_a.shape), tuple(z_b.shape))
        z = ops.concatenate(unit_rows(z_a, z_b), axis=0)  # (2N, d)
        views = ops.arange(ops.shape(z)[0])
        with full_precision():
            similarities = ops.matmul(z / self.temperature, ops.transpose(z))
        # -1e9 and not -inf: minus infinity times zero would not be a number.
        logits = ops.where(views[:, None] == views, -1e9, similarities)
        return logits, ops.roll(views, ops.shape(z_a)[0])

    def get_config(self):
        return super().get_config() | {"temperature": self.temperature}


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Coincidence(keras.losses.Loss):
    """Balanced binary cross entropy: does mixture i coincide with channel j?

    The N pairs of the diagonal are the positives, all N(N − 1) others the negatives; each group weighs the same
    whatever N. At chance, 2 ln 2.

    Call arguments:
        targets: ignored, zeros (N, N); it is there because Keras' losses take two arguments.
        logits: (N, N), mixtures along the first axis, channels along the second, N at least two. Half precision is
            taken to float32.

    Raises:
        BadInput: for other shapes.

    Source: the slides' coincidence loss; Jansen et al. 2020.
    """

    def __init__(self, name="coincidence", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, targets, logits):
        """Losses (N,), one a mixture: its positive plus the mean of its negatives."""
        shape = tuple(logits.shape)
        if len(shape) != 2 or len(set(shape) - {None}) > 1 or shape[0] == 1:
            raise BadInput(f"Coincidence: logits of shape {shape}; expected (N, N), two pairs or more.")
        logits = ops.cast(logits, "float32")
        pairs = ops.arange(ops.shape(logits)[0])
        # The diagonal is left out, not subtracted: what is small beside it would be lost.
        negatives = ops.where(pairs[:, None] == pairs, 0.0, ops.softplus(logits))
        others = ops.cast(ops.shape(logits)[0] - 1, "float32")
        return ops.softplus(-ops.diagonal(logits)) + ops.sum(negatives, axis=-1) / others


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Triplet(keras.losses.Loss):
    """Triplet hinge on the unit sphere, [|a − p|² − |a − n|² + margin]₊, with one semi-hard negative an anchor.

    The candidates of an anchor are the other rows' positives, in the batch. Its negative is the closest of those that
    are farther from it than its own positive; where none is, the farthest of all. (The closest of all would be the
    other choice, which early in training draws everything to one point.)

    Args:
        margin: how much farther than the positive, in squared distance (0 to 4), a negative should be.

    Call arguments:
        anchors, positives: (N, d), one row a pair, at least two; they need not be normalised. Half precision is taken
            to float32.

    Raises:
        BadInput: for other shapes.

    Source: Jansen et al. 2018 for margin and distance; Schroff et al. 2015 for the semi-hard negative; where there is
    none, the rule of TensorFlow Addons' `TripletSemiHardLoss`.
    """

    def __init__(self, margin=0.1, name="triplet", **kwargs):
        super().__init__(name=name, **kwargs)
        self.margin = margin

    def call(self, anchors, positives):
        """Losses (N,), one an anchor."""
        check_pairs("Triplet: anchors and positives", tuple(anchors.shape), tuple(positives.shape))
        anchors, positives = unit_rows(anchors, positives)
        chosen = ops.take(positives, self._negatives(anchors, positives), axis=0)
        near, far = (ops.sum(ops.square(anchors - other), axis=-1) for other in (positives, chosen))
        return ops.relu(near - far + self.margin)

    def _negatives(self, anchors, positives):
        """Which row of the positives is each anchor's negative, (N,); no gradient flows through the choice."""
        with full_precision():
            distances = -ops.matmul(ops.stop_gradient(anchors), ops.transpose(ops.stop_gradient(positives)))
        pairs = ops.arange(ops.shape(distances)[0])
        own = pairs[:, None] == pairs
        farther = distances > ops.diagonal(distances)[:, None]
        closest = ops.argmin(ops.where(farther, distances, 2.0), axis=-1)  # minus cosines: all others are below 2
        farthest = ops.argmax(ops.where(own, -2.0, distances), axis=-1)
        return ops.where(ops.any(farther, axis=-1), closest, farthest)

    def get_config(self):
        return super().get_config() | {"margin": self.margin}
