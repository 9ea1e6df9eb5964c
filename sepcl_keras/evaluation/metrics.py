"""Numbers that say how good scores are: average precision and d′.

`labels` are multi-hot (clips, classes), `scores` (clips, classes) any finite numbers, the larger the surer. Metrics are
in double precision; equal scores share one rank, as in scikit-learn. `BadInput` names the argument that does not fit.
"""

import numpy as np
from scipy.special import ndtri
from sklearn.metrics import average_precision_score, roc_auc_score

from sepcl_keras.core.checks import BadInput, numbers

AUC_MARGIN = 1e-6  # a perfect AUC would be an infinite d′; this limit is 6.72


def multi_hot(name, labels):
    labels = numbers(name, labels, ("clips", "classes"))
    if not np.isin(labels, (0.0, 1.0)).all():
        raise BadInput(f"{name} with other values than 0 and 1: expected multi-hot (clips, classes).")
    if not labels.any():
        raise BadInput(f"{name} without a single positive: expected at least one class with positives.")
    return labels


def labels_and_scores(labels, scores):
    """Both as arrays (clips, classes) of one shape, or `BadInput`."""
    labels, scores = multi_hot("labels", labels), numbers("scores", scores, ("clips", "classes"))
    if labels.shape != scores.shape:
        raise BadInput(f"scores of shape {scores.shape}: expected {labels.shape}, the shape of the labels.")
    return labels, scores


def average_precisions(labels, scores):
    """Average precision of each class (classes,), float64; NaN where a class has no positives."""
    labels, scores = labels_and_scores(labels, scores)
    found = np.full(labels.shape[1], np.nan)
    for c in np.flatnonzero(labels.any(axis=0)):
        found[c] = average_precision_score(labels[:, c], scores[:, c])
    return found


def mean_average_precision(labels, scores):
    """Macro mAP: the unweighted mean of `average_precisions` over the classes that have positives."""
    return float(np.nanmean(average_precisions(labels, scores)))


def d_prime(labels, scores):
    """Macro d′: the mean of √2 Φ⁻¹(AUC), AUC within 1e-6 and 1 − 1e-6, over classes with positives and negatives."""
    labels, scores = labels_and_scores(labels, scores)
    usable = np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))
    if not usable.size:
        raise BadInput("labels that are constant in every class: d′ needs a class with positives and negatives.")
    auc = np.array([roc_auc_score(labels[:, c], scores[:, c]) for c in usable])
    return float(np.mean(np.sqrt(2.0) * ndtri(np.clip(auc, AUC_MARGIN, 1.0 - AUC_MARGIN))))
