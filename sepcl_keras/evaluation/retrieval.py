"""Query by example: average precision of pairs ranked by cosine."""

import numpy as np
from sklearn.metrics import average_precision_score

from sepcl_keras.core.checks import BadInput, numbers
from sepcl_keras.core.draws import generator
from sepcl_keras.evaluation.metrics import multi_hot
from sepcl_keras.evaluation.search import unit


def _similarities(positives, negatives):
    """Cosines of pairs of positives i < j, and of each positive and negative, to twelve decimals."""
    positives = numbers("positives", positives, ("clips", "d"))
    negatives = numbers("negatives", negatives, ("clips", "d"))
    if len(positives) < 2 or positives.shape[1] != negatives.shape[1]:
        raise BadInput(f"positives {positives.shape}, negatives {negatives.shape}: expected (P ≥ 2, d) and (Q, d).")
    positives, negatives = unit(positives), unit(negatives)
    relevant = (positives @ positives.T)[np.triu_indices(len(positives), k=1)]
    # The order of additions inside a matrix product would otherwise break ties, and not at random.
    return np.round(relevant, 12), np.round((positives @ negatives.T).ravel(), 12)


def query_by_example(positives, negatives):
    """Average precision of finding pairs of one class among pairs ranked by cosine.

    `positives` (P, d), P ≥ 2, are embeddings of clips with the class, `negatives` (Q, d), Q ≥ 1, of clips without it.
    Pairs (positive i, positive j), i < j, are relevant; pairs (positive, negative) are not. Cosines equal to twelve
    decimals are ties, so that equal embeddings (a collapsed encoder) score exactly chance: relevant pairs / pairs.
    """
    relevant, others = _similarities(positives, negatives)
    return float(average_precision_score(np.repeat([1, 0], [relevant.size, others.size]), np.append(relevant, others)))


def query_by_example_draws(positives, negatives, weights_of_positives, weights_of_negatives):
    """`query_by_example` (resamples,) of clips that count as the weights (resamples, clips) say, a pair as the product
    of its two.

    With weights of the Bayesian bootstrap (Rubin 1981), which are positive, that is how other clips would have changed
    it. A bootstrap that draws whole clips would pair a clip with itself.
    """
    relevant, others = _similarities(positives, negatives)
    first, second = np.triu_indices(len(positives), k=1)
    similarity = np.append(relevant, others)
    order = np.argsort(-similarity, kind="stable")
    last_of_ties = np.append(np.diff(similarity[order]) != 0, True)
    found = []
    for of_positives, of_negatives in zip(weights_of_positives, weights_of_negatives, strict=True):
        gained = np.append(of_positives[first] * of_positives[second], np.zeros(others.size))[order]
        passed = np.append(np.zeros(relevant.size), np.outer(of_positives, of_negatives).ravel())[order]
        gained, passed = (np.cumsum(each)[last_of_ties] for each in (gained, passed))
        found.append(np.sum(np.diff(gained, prepend=0.0) * gained / (gained + passed)) / gained[-1])
    return np.array(found)


def query_by_example_map(embeddings, labels, seed=0, most=100, resamples=0):
    """Mean of `query_by_example` over classes, of embeddings (clips, d) and multi-hot labels (clips, classes).

    At most `most` clips with the class, and as many without it, are used, drawn by the seed. Returns a dict: `map`,
    `chance` (the mean over the same classes of relevant pairs / pairs), `per_class` (classes,), NaN for a class with
    fewer than two positives or without negatives, and `draws` (resamples,): what other clips would have given, by
    `query_by_example_draws` with a weight for each clip that all its classes share.
    """
    embeddings, labels = numbers("embeddings", embeddings, ("clips", "d")), multi_hot("labels", labels)
    if len(embeddings) != len(labels):
        raise BadInput(f"labels with {len(labels)} clips: expected {len(embeddings)}, as in the embeddings.")
    (per_class, chance), draws = np.full((2, labels.shape[1]), np.nan), []
    weights = generator(seed, "weights of clips").standard_exponential((resamples, len(labels)))
    for c, label in enumerate(labels.T):
        rng = generator(seed, "query by example", c)  # one stream a class: adding classes changes no other class
        sides = np.flatnonzero(label), np.flatnonzero(label == 0)
        with_class, without = (s if len(s) <= most else rng.choice(s, most, replace=False) for s in sides)
        if len(with_class) < 2 or not len(without):
            continue
        per_class[c] = query_by_example(embeddings[with_class], embeddings[without])
        # P(P−1)/2 relevant pairs beside P·Q others
        chance[c] = (len(with_class) - 1) / (len(with_class) - 1 + 2 * len(without))
        if resamples:
            sides = (embeddings[side] for side in (with_class, without)), (weights[:, s] for s in (with_class, without))
            draws.append(query_by_example_draws(*sides[0], *sides[1]))
    if np.isnan(per_class).all():
        raise BadInput("labels in which no class has two positives and a negative: expected at least one such class.")
    draws = np.mean(draws, axis=0) if resamples else np.empty(0)
    return dict(map=float(np.nanmean(per_class)), chance=float(np.nanmean(chance)), per_class=per_class, draws=draws)
