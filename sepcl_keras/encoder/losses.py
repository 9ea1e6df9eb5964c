"""The losses of the encoder: NT-Xent, coincidence, triplets. In float32."""

import keras
from keras import ops

from sepcl_keras.core.backend import full_precision
from sepcl_keras.core.checks import BadInput, check_number


def unit_rows(*arrays):
    """Each array (rows, d) in float32, its rows divided by their length; a row of zeros stays as it is, with a finite
    gradient, unlike that of `ops.normalize`."""
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
        temperature: divides the cosine similarities; above zero.

    Call arguments z_a, z_b are (N, d), one row a pair, at least two; they need not be normalised. A row of zeros is at
    cosine 0 to all others. Half precision is taken to float32; other shapes are `BadInput`.

    Source: Chen et al. 2020; the slides' similarity loss.
    """

    def __init__(self, temperature=0.2, name="nt_xent", **kwargs):
        super().__init__(name=name, **kwargs)
        check_number("NTXent: temperature", temperature, above=0)
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

    Call arguments are targets (N, N), ignored, there because Keras' losses take two, and logits (N, N), mixtures along
    the first axis, channels along the second, N at least two. Half precision is taken to float32; other shapes are
    `BadInput`.

    Source: the slides' coincidence loss; Jansen et al. 2020.
    """

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

    Call arguments anchors, positives are (N, d), one row a pair, at least two; they need not be normalised. Half
    precision is taken to float32; other shapes are `BadInput`.

    Source: Jansen et al. 2018 for margin and distance; Schroff et al. 2015 for the semi-hard negative; where there is
    none, the rule of TensorFlow Addons' `TripletSemiHardLoss`.
    """

    def __init__(self, margin=0.1, name="triplet", **kwargs):
        super().__init__(name=name, **kwargs)
        check_number("Triplet: margin", margin, least=0)
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
