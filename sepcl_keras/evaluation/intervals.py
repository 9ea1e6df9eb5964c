"""How sure a number is: intervals by drawing the test clips anew; differences paired by test clip and seed.

Clips are drawn again, with replacement (the bootstrap, Efron 1979); seeds are too few for that and show it by how far
they lie apart. Two runs that are compared share clips and seed, so that what moves both alike does not count. Clips
that share recordings count here as independent, so for other recordings the intervals are too narrow.
"""

import dataclasses

import numpy as np
from scipy.special import ndtri
from scipy.stats import t as student_t

from sepcl_keras.core.checks import BadInput
from sepcl_keras.evaluation.classifiers import linear_probe
from sepcl_keras.evaluation.metrics import AUC_MARGIN, d_prime, labels_and_scores, mean_average_precision
from sepcl_keras.evaluation.retrieval import query_by_example_map

RESAMPLES = 1000
LEVEL = 0.95


def draws(number, resamples=RESAMPLES, seed=0):
    """How often each of `number` things is drawn, (resamples, number): as many draws as there are things."""
    return np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), resamples)


def interval(values, measured):
    """The lower and the upper end of the 95 % interval around what was measured, from resampled values, NaN left out.

    A positive that is drawn twice has itself beside it in the ranking, so resampled mAP lies higher, by 0.01 (400
    clips) to 0.04 (50) in simulations. The interval is moved back by that: it then held the mean 93 times in 100.
    """
    ends = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + measured - np.nanmean(values)
    return [float(end) for end in ends]


def _ranked(labels, scores, weights):
    """For each class, down its ranking: what is drawn of the positives and of all, (resamples, ranks), ties as one."""
    for label, score in zip(labels.T, scores.T, strict=True):
        order = np.argsort(-score, kind="stable")
        last_of_ties = np.append(np.diff(score[order]) != 0, True)
        drawn = weights[:, order]
        positives, seen = np.cumsum(drawn * label[order], axis=1), np.cumsum(drawn, axis=1)
        yield positives[:, last_of_ties].astype("float64"), seen[:, last_of_ties].astype("float64")


def mean_average_precisions(labels, scores, weights):
    """Macro mAP (resamples,) of clips that count as often as `weights` (resamples, clips) say; a class is left out of a
    resample without a positive of it."""
    labels, scores = labels_and_scores(labels, scores)
    classes = []
    for positives, seen in _ranked(labels, scores, weights):
        gained = np.diff(positives, axis=1, prepend=0.0)
        precision = positives / np.maximum(seen, 1.0)  # where nothing is drawn yet, nothing is gained
        with np.errstate(invalid="ignore"):
            classes.append((gained * precision).sum(axis=1) / positives[:, -1])
    return _mean_of_defined(classes)


def d_primes(labels, scores, weights):
    """Macro d′ (resamples,), likewise; classes without a positive or without a negative are skipped."""
    labels, scores = labels_and_scores(labels, scores)
    classes = []
    for positives, seen in _ranked(labels, scores, weights):
        negatives = seen - positives
        gained, passed = (np.diff(some, axis=1, prepend=0.0) for some in (positives, negatives))
        above = negatives[:, -1:] - negatives + passed / 2  # negatives below each rank, half of those that tie
        with np.errstate(invalid="ignore"):
            auc = (gained * above).sum(axis=1) / (positives[:, -1] * negatives[:, -1])
        classes.append(np.sqrt(2.0) * ndtri(np.clip(auc, AUC_MARGIN, 1 - AUC_MARGIN)))
    return _mean_of_defined(classes)


def _mean_of_defined(classes):
    return np.ma.masked_invalid(np.array(classes)).mean(axis=0).filled(np.nan)  # (classes, resamples) → (resamples,)


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much higher one way to train scores than another, and the ends of its interval; `margin`: how much lower it
    may be and still count as no worse."""

    mean: float
    low: float
    high: float
    margin: float = 0.0

    @property
    def ends(self):
        """(mean, low, high)."""
        return self.mean, self.low, self.high

    @property
    def verdict(self):
        """`"holds"` where the interval lies above −margin, `"fails"` where it lies below, else `"undecided"`."""
        return "holds" if self.low > -self.margin else "fails" if self.high < -self.margin else "undecided"


def map_draws(labels, scores, resamples=RESAMPLES):
    """Macro mAP (1 + resamples,): as measured, then of test clips drawn anew, the same for runs on the same clips."""
    everything = np.ones((1, len(labels)), int)
    return mean_average_precisions(labels, scores, np.concatenate([everything, draws(len(labels), resamples)]))


def paired_difference(lower, higher, margin=0.0, level=LEVEL):
    """The `Difference` in macro mAP of `higher` over `lower`, paired by seed and by test clip; `level` of the interval.

    Both are `map_draws` of each seed, (seeds, 1 + resamples), the same seeds in the same order. Other test clips would
    change it by the deviation over their draws, 2.0 of which count on either side; other seeds by the standard error of
    the seeds' own differences, of which Student's t for so few is counted (12.7 for two seeds, 4.3 for three, 2.8 for
    five). Both add up by their squares. With one seed it knows nothing of other ones.
    """
    lower, higher = np.asarray(lower, "float64"), np.asarray(higher, "float64")
    if lower.shape != higher.shape or lower.ndim != 2 or not len(lower):
        raise BadInput(f"draws of shapes {lower.shape} and {higher.shape}: expected (seeds, 1 + resamples) twice.")
    gains, seeds = higher - lower, len(lower)
    mean, by_clips = float(gains[:, 0].mean()), np.nanvar(gains[:, 1:].mean(axis=0), ddof=1)
    by_seeds = gains[:, 0].var(ddof=1) / seeds if seeds > 1 else 0.0
    wide = student_t.ppf((1 + level) / 2, [np.inf, max(1, seeds - 1)])  # standard errors on either side
    reach = float(np.sqrt(wide**2 @ [by_clips, by_seeds]))
    return Difference(mean, mean - reach, mean + reach, margin)


def evaluate(embeddings, labels, scores, resamples=RESAMPLES):
    """The paper's evaluation of frozen embeddings on the test clips.

    Args: embeddings, split (train, test) → (clips, windows, d); labels, split → multi-hot (clips, classes); scores of
    the shallow classifier for the test clips, (clips, classes).

    Returns a dict: `map` and `d_prime` of the shallow classifier, `linear_map` of the linear probe, each with the ends
    of its 95 % interval over test clips as `…_interval`; `qbe` and `qbe_chance` of query by example; `chance` mAP (the
    share of positives); `skipped`, the number of classes without a positive. With `resamples` of 0, no intervals.
    """
    pooled, test = {split: h.mean(axis=1) for split, h in embeddings.items()}, labels["test"]
    linear = linear_probe(pooled["train"], labels["train"], pooled["test"])
    retrieval = query_by_example_map(pooled["test"], test)
    weights, results = draws(len(scores), resamples), {}
    precision = mean_average_precision, mean_average_precisions
    wanted = {"map": (*precision, scores), "d_prime": (d_prime, d_primes, scores), "linear_map": (*precision, linear)}
    for name, (metric, resampled, found) in wanted.items():
        results[name] = metric(test, found)
        if resamples:
            results[f"{name}_interval"] = interval(resampled(test, found, weights), results[name])
    present = test.any(axis=0)
    results |= {"skipped": int(np.sum(~present)), "chance": float(test[:, present].mean())}
    return results | {"qbe": retrieval["map"], "qbe_chance": retrieval["chance"]}
