"""The models that train an encoder: by contrast and coincidence, or by triplets."""

import math

import keras
from keras import ops

from sepcl_keras.core.checks import BadInput, check_alike, check_number, one_of
from sepcl_keras.core.draws import stream
from sepcl_keras.encoder.heads import CoincidenceHead, SimilarityHead
from sepcl_keras.encoder.losses import Coincidence, NTXent, Triplet
from sepcl_keras.training.step import TensorFlowStep
from sepcl_keras.views.augmentation import CONSTRAINTS


class TripletModel(TensorFlowStep, keras.Model):
    """Trains an encoder on triplets: an anchor, a positive made of it by a constraint, and a negative from the batch.

    It takes pairs of patches ((N, frames, mels), (N, frames, mels)), two moments of the same clip. The first is the
    anchor; for each, one of the listed constraints is drawn: a transformed anchor is the positive, or, for proximity,
    the second moment.

    Args:
        encoder: patches to h (N, d), here scaled to length one by the loss.
        constraints: names of `CONSTRAINTS`, each once; several at equal odds are the joint system.
        seed: of the draws: which constraint, and, each from a stream of its own, how strong.

    Raises `BadInput` for other constraints, or views of two shapes. Source: Jansen et al. 2018.
    """

    def __init__(self, encoder, constraints=tuple(CONSTRAINTS), seed=None, **kwargs):
        super().__init__(**kwargs)
        known = [name for name in CONSTRAINTS if isinstance(constraints, list | tuple) and name in constraints]
        if not known or len(known) < len(constraints):
            raise BadInput(f"constraints={constraints!r}: expected some of {', '.join(CONSTRAINTS)}, each once.")
        self.encoder, self.triplet, self.constraints = encoder, Triplet(), tuple(constraints)
        self.generator = keras.random.SeedGenerator(stream(seed, "TripletModel"))
        self.transforms = [CONSTRAINTS[name](seed=seed) for name in constraints if CONSTRAINTS[name]]
        watched = ("triplet", "alignment", "uniformity", "spread")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in watched}

    def call(self, views, training=None):
        anchors, others = views
        check_alike("TripletModel: views", anchors.shape, others.shape)
        candidates = [transform(anchors, training=training) for transform in self.transforms]
        candidates += [others] if "proximity" in self.constraints else []
        draws = keras.random.uniform((ops.shape(anchors)[0], 1, 1), dtype="float32", seed=self.generator)
        positives, drawn = candidates[0], ops.floor(draws * len(candidates))
        for index, candidate in enumerate(candidates[1:], start=1):
            positives = ops.where(drawn == index, candidate, positives)
        h = ops.split(self.encoder(ops.concatenate([anchors, positives]), training=training), 2)
        return {"h": (h[0], h[1])}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = self.triplet(*y_pred["h"])
        for name, value in (geometry(*y_pred["h"]) | {"triplet": loss}).items():
            self.trackers[name].update_state(value)
        return loss

    def chance(self, pairs):
        """The loss where all clips are on one point: the margin. Guessing at random costs about as much or more."""
        return {"triplet": self.triplet.margin}


AUGMENTED = {"both": slice(None), "first": slice(0, None, 2), "second": slice(1, None, 2)}  # of the views in turn


class ContrastiveModel(TensorFlowStep, keras.Model):
    """Trains an encoder on pairs of patches ((N, frames, mels), (N, frames, mels)).

    With four arrays instead of two, the first pair is for similarity and the second, other crops of the same clips, for
    coincidence.

    Args:
        encoder: patches to h (N, d); shared by all views and both tasks.
        similarity, coincidence: weights of NT-Xent on z and of coincidence prediction on h; zero leaves a task out.
        temperature: of NT-Xent.
        augmentation: a layer for patches, or None; each patch gets a draw of its own.
        augmented: which view of a pair it is for, `"both"`, `"first"` or `"second"`.

    Raises `BadInput` for another `augmented`, a negative weight, two of zero, another number of arrays, several shapes.
    """

    def __init__(
        self, encoder, similarity=1.0, coincidence=1.0, temperature=0.2, augmentation=None, augmented="both", **kwargs
    ):
        super().__init__(**kwargs)
        one_of("augmented", augmented, AUGMENTED)
        check_number("similarity", similarity, least=0)
        check_number("coincidence", coincidence, least=0)
        if not similarity and not coincidence:
            raise BadInput("similarity=0, coincidence=0: expected at least one weight above zero.")
        self.encoder, self.augmentation, self.augmented = encoder, augmentation, augmented
        self.similarity, self.coincidence = similarity, coincidence
        watched = ["alignment", "uniformity", "spread"]
        if similarity:
            self.similarity_head, self.nt_xent = SimilarityHead(name="similarity_head"), NTXent(temperature)
            watched += ["similarity", "accuracy"]
        if coincidence:
            self.coincidence_head, self.balanced_entropy = CoincidenceHead(name="coincidence_head"), Coincidence()
            watched += ["coincidence"]
        self.trackers = {name: keras.metrics.Mean(name=name) for name in watched}

    def call(self, views, training=None):
        if len(views) not in (2, 4):
            raise BadInput(f"ContrastiveModel: {len(views)} arrays of patches; expected a pair, or two.")
        check_alike("ContrastiveModel: views", *(view.shape for view in views))
        views = list(views)
        if self.augmentation is not None:
            chosen = views[AUGMENTED[self.augmented]]
            patches = self.augmentation(ops.concatenate(chosen), training=training)
            views[AUGMENTED[self.augmented]] = ops.split(patches, len(chosen))
        # One joint forward pass: all views share the batch norm's statistics. Normalised apart, what sets mixtures and
        # channels apart would be hidden in training and come back with the running statistics.
        h = ops.split(self.encoder(ops.concatenate(views), training=training), len(views))  # (N, d) each
        outputs = {"h": (h[0], h[1])}
        if self.similarity:
            outputs["z"] = (self.similarity_head(h[0]), self.similarity_head(h[1]))
        if self.coincidence:
            outputs["logits"] = self.coincidence_head(h[-2], h[-1])  # (N, N)
        return outputs

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        weighted, watched = [], geometry(*y_pred["h"])
        if self.similarity:
            logits, positives = self.nt_xent.logits(*y_pred["z"])
            loss = ops.mean(self.nt_xent.losses(logits, positives))
            right = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), ops.cast(positives, "int32"))
            watched |= {"similarity": loss, "accuracy": ops.mean(ops.cast(right, "float32"))}
            weighted.append(self.similarity * loss)
        if self.coincidence:
            logits = y_pred["logits"]
            loss = self.balanced_entropy(ops.zeros_like(logits), logits)
            watched["coincidence"] = loss
            weighted.append(self.coincidence * loss)
        for name, tracker in self.trackers.items():
            tracker.update_state(watched[name])
        # Not by `+`: TensorFlow would merge that with the metric's running sum, in an order that changes between runs.
        return ops.sum(ops.stack(weighted))

    def chance(self, pairs):
        """What guessing gives for a batch of so many pairs: a dict from a metric's name to its value."""
        others = 2 * pairs - 1
        values = {"similarity": math.log(others), "accuracy": 1 / others, "coincidence": 2 * math.log(2)}
        return {name: value for name, value in values.items() if name in self.trackers}


def geometry(h_a, h_b):
    """How the embeddings (N, d) of N pairs lie on the sphere, once scaled to length one; no gradient flows.

    Returns a dict of scalars: `alignment`, the mean squared distance of partners; `uniformity`, the logarithm of the
    mean of exp(−2 · squared distance) over all pairs of different clips in a view, mean of both views (both of Wang and
    Isola 2020); `spread`, one minus the mean cosine of those pairs, 0 where all clips are on one point and 1 where they
    point anywhere.
    """
    h = ops.normalize(ops.cast(ops.stop_gradient(ops.stack([h_a, h_b])), "float32"), axis=-1)  # (2, N, d)
    different = 1.0 - ops.eye(ops.shape(h)[1], dtype="float32")
    pairs = ops.sum(different)
    cosines = ops.matmul(h, ops.transpose(h, (0, 2, 1)))  # (2, N, N)
    # The squared distance of two points on the sphere is 2 − 2 cos.
    potential = ops.sum(ops.exp(4.0 * cosines - 4.0) * different, axis=(1, 2)) / pairs
    return {
        "alignment": ops.mean(ops.sum(ops.square(h[0] - h[1]), axis=-1)),
        "uniformity": ops.mean(ops.log(potential)),
        "spread": 1.0 - ops.mean(ops.sum(cosines * different, axis=(1, 2)) / pairs),
    }
