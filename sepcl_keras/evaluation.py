"""Numbers that say how good: average precision, d′, query by example, and the classifiers on frozen embeddings.

`labels` are multi-hot (clips, classes) with zeros and ones, `scores` (clips, classes) any finite numbers, the
larger the surer. Metrics are computed in double precision; equal scores share one rank, as in scikit-learn. Shapes
that do not fit, labels without a single positive, NaN in embeddings or scores: BadInput names the argument.
"""

import keras
import numpy as np
from scipy.special import ndtri
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from sepcl_keras.backend import number_of_devices
from sepcl_keras.embedding import windows as patches_of
from sepcl_keras.features import PATCH_FRAMES
from sepcl_keras.files import BadInput, numbers

AUC_MARGIN = 1e-6  # a perfect AUC would be an infinite d′; this limit is 6.72
BATCH = 512  # windows in training
SCORING_BATCH = 16_384  # windows at once when scoring: bounds memory, seldom splits
MOST_EPOCHS = 60
PATIENCE = 15  # epochs; with 5, luck alone put the same embeddings' mAP 0.012 apart (1,000 test scenes), now 0.003
LEARNING_RATE = 1e-3
PROBE_C = 0.1  # inverse strength of the L2 penalty; fixed, so that a probe has nothing to tune and compares fairly


def _multi_hot(name, labels):
    labels = numbers(name, labels, ("clips", "classes"))
    if not np.isin(labels, (0.0, 1.0)).all():
        raise BadInput(f"{name} with other values than 0 and 1: expected multi-hot (clips, classes).")
    if not labels.any():
        raise BadInput(f"{name} without a single positive: expected at least one class with positives.")
    return labels


def labels_and_scores(labels, scores):
    """Both as arrays (clips, classes) of one shape, or `BadInput`."""
    labels, scores = _multi_hot("labels", labels), numbers("scores", scores, ("clips", "classes"))
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
    """Macro d′: √2 Φ⁻¹(AUC) of each class, then the mean.

    AUC is clipped to [1e-6, 1 − 1e-6]; classes without positives or without negatives are skipped.
    """
    labels, scores = labels_and_scores(labels, scores)
    usable = np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))
    if not usable.size:
        raise BadInput("labels that are constant in every class: d′ needs a class with positives and negatives.")
    auc = np.array([roc_auc_score(labels[:, c], scores[:, c]) for c in usable])
    return float(np.mean(np.sqrt(2.0) * ndtri(np.clip(auc, AUC_MARGIN, 1.0 - AUC_MARGIN))))


def _unit(embeddings):
    """Rows of length one; a row of zeros stays zero, so that its cosine to everything is 0."""
    # Scaling by the largest entry first keeps squares of huge or tiny entries from over- or underflowing.
    largest = np.abs(embeddings).max(axis=-1, keepdims=True)
    embeddings = embeddings / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.where(length > 0, length, 1.0)


def query_by_example(positives, negatives):
    """Average precision of finding pairs of one class among pairs ranked by cosine.

    Args:
        positives: embeddings (P, d), P ≥ 2, of clips with the class.
        negatives: embeddings (Q, d), Q ≥ 1, of clips without it.

    Pairs (positive i, positive j), i < j, are relevant; pairs (positive, negative) are not. Cosines equal to twelve
    decimals are ties, so that equal embeddings (a collapsed encoder) score exactly chance: relevant pairs / pairs.
    """
    positives = numbers("positives", positives, ("clips", "d"))
    negatives = numbers("negatives", negatives, ("clips", "d"))
    if len(positives) < 2 or positives.shape[1] != negatives.shape[1]:
        raise BadInput(f"positives {positives.shape}, negatives {negatives.shape}: expected (P ≥ 2, d) and (Q, d).")
    positives, negatives = _unit(positives), _unit(negatives)
    relevant = (positives @ positives.T)[np.triu_indices(len(positives), k=1)]
    others = (positives @ negatives.T).ravel()
    # The order of additions inside a matrix product would otherwise break ties, and not at random.
    similarity = np.round(np.concatenate([relevant, others]), 12)
    return float(average_precision_score(np.repeat([1, 0], [relevant.size, others.size]), similarity))


def query_by_example_map(embeddings, labels, seed=0, most=100):
    """Mean of `query_by_example` over classes.

    Args:
        embeddings: (clips, d).
        labels: (clips, classes) multi-hot.
        seed: which clips are drawn where there are more than `most`.
        most: clips with the class, and clips without it, that are used at most.

    Returns:
        dict: `map`, `chance` (the mean over the same classes of relevant pairs / pairs) and `per_class` (classes,), NaN
        for a class with fewer than two positives or without negatives.
    """
    embeddings, labels = numbers("embeddings", embeddings, ("clips", "d")), _multi_hot("labels", labels)
    if len(embeddings) != len(labels):
        raise BadInput(f"labels with {len(labels)} clips: expected {len(embeddings)}, as in the embeddings.")
    per_class, chance = np.full((2, labels.shape[1]), np.nan)
    for c, label in enumerate(labels.T):
        rng = np.random.default_rng((seed, c))  # one stream a class: adding classes changes no other class
        with_class, without = (
            clips if len(clips) <= most else rng.choice(clips, most, replace=False)
            for clips in (np.flatnonzero(label), np.flatnonzero(label == 0))
        )
        if len(with_class) < 2 or not len(without):
            continue
        per_class[c] = query_by_example(embeddings[with_class], embeddings[without])
        # P(P−1)/2 relevant pairs beside P·Q others
        chance[c] = (len(with_class) - 1) / (len(with_class) - 1 + 2 * len(without))
    if np.isnan(per_class).all():
        raise BadInput("labels in which no class has two positives and a negative: expected at least one such class.")
    return dict(map=float(np.nanmean(per_class)), chance=float(np.nanmean(chance)), per_class=per_class)


def _statistics(features):
    """Mean and deviation (d,) of rows (n, d); a feature that never changes has deviation 1 and so stays near zero."""
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    return mean, np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6), deviation, 1.0)


def _same(name, found, expected, axis):
    if found != expected:
        raise BadInput(f"{name} with {found} {axis}: expected {expected}, as in train and its labels.")


def linear_probe(train, train_labels, test):
    """Probabilities (clips, classes), float64, of one logistic regression a class on embeddings (clips, d).

    Features are standardised by `train`; the L2 penalty is fixed (C = 0.1). A class that is the same for all training
    clips gets that value, 0 or 1, as its score everywhere.
    """
    train, test = numbers("train", train, ("clips", "d")), numbers("test", test, ("clips", "d"))
    train_labels = _multi_hot("train_labels", train_labels)
    _same("train_labels", len(train_labels), len(train), "clips")
    _same("test", test.shape[1], train.shape[1], "features")
    mean, deviation = _statistics(train)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    scores = np.repeat(train_labels[:1], len(test), axis=0)  # constant classes keep these
    for c in np.flatnonzero(np.ptp(train_labels, axis=0)):
        with threadpool_limits(1):  # such small products are faster on one thread, many times beside TensorFlow's
            probe = LogisticRegression(C=PROBE_C, solver="lbfgs", max_iter=10_000).fit(train, train_labels[:, c])
        scores[:, c] = probe.predict_proba(test)[:, 1]
    return scores


LABEL_CHOICES = 5  # of clips that keep their labels, for a mean


def label_curve(train, labels, test, test_labels, counts=(1, 5, 20), seed=0):
    """Macro mAP of the `linear_probe` with few labels: a dict from `str(count)` to the mean over five choices of clips.

    Args:
        train, test: embeddings (clips, d). labels, test_labels: multi-hot (clips, classes).
        counts: positives of each class that are chosen, all of them where it has fewer. A chosen clip keeps the labels
            of all its classes, so that a class gets at least so many; the other clips are not used.
        seed: of the choices; those of smaller counts lie in those of larger ones.
    """
    found = {count: [] for count in counts}
    for choice in range(LABEL_CHOICES):
        rng = np.random.default_rng((seed, choice))
        positives = [rng.permutation(np.flatnonzero(label)) for label in labels.T]
        for count, maps in found.items():
            chosen = np.unique(np.concatenate([clips[:count] for clips in positives]))
            maps.append(mean_average_precision(test_labels, linear_probe(train[chosen], labels[chosen], test)))
    return {str(count): float(np.mean(maps)) for count, maps in found.items()}


def _clip_scores(model, clips):
    """Scores (clips, classes) of clips (clips, windows, d): the mean over each clip's windows."""
    windows = clips.reshape(-1, clips.shape[-1])
    parts = [
        keras.ops.convert_to_numpy(model(windows[i : i + SCORING_BATCH], training=False))
        for i in range(0, len(windows), SCORING_BATCH)
    ]
    return np.concatenate(parts).reshape(*clips.shape[:2], -1).mean(axis=1)


def shallow_classifier(train, labels, validation, validation_labels, test, seed, hidden=512):
    """Scores (clips, classes), float32, of a network with one hidden layer on frozen embeddings.

    Args:
        train, validation, test: embeddings (clips, windows, d); the number of windows may differ between them.
        labels, validation_labels: (clips, classes) multi-hot; each window is trained with its clip's labels.
        seed: of the initial weights and the order of batches; no global random state is read or changed.
        hidden: width of the hidden layer.

    Standardisation by `train`, dense, ReLU, dense, sigmoid; binary cross-entropy, Adam. A clip's score is the mean of
    its windows' scores. Training stops after 60 epochs, or when validation mAP has not risen for fifteen; the best
    epoch's weights score `test`.
    """
    train, validation, test = (
        numbers(name, values, ("clips", "windows", "d"), np.float32)
        for name, values in (("train", train), ("validation", validation), ("test", test))
    )
    labels, validation_labels = _multi_hot("labels", labels), _multi_hot("validation_labels", validation_labels)
    _same("labels", len(labels), len(train), "clips")
    _same("validation_labels", len(validation_labels), len(validation), "clips")
    _same("validation_labels", validation_labels.shape[1], labels.shape[1], "classes")
    _same("validation", validation.shape[2], train.shape[2], "features")
    _same("test", test.shape[2], train.shape[2], "features")

    windows = train.reshape(-1, train.shape[2])
    targets = np.repeat(labels.astype("float32"), train.shape[1], axis=0)
    mean, deviation = _statistics(windows)
    rng = np.random.default_rng(seed)
    first, second = (keras.initializers.GlorotUniform(seed=int(s)) for s in rng.integers(2**31, size=2))
    model = keras.Sequential(
        [
            keras.Input((train.shape[2],), dtype="float32"),
            keras.layers.Normalization(mean=mean, variance=deviation**2, dtype="float32"),
            keras.layers.Dense(hidden, activation="relu", kernel_initializer=first, dtype="float32"),
            keras.layers.Dense(labels.shape[1], activation="sigmoid", kernel_initializer=second, dtype="float32"),
        ]
    )
    # Compiling with XLA would take longer than the training; JAX alone needs it, for there it means tracing at all.
    jit = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.Adam(LEARNING_RATE), "binary_crossentropy", jit_compile=jit)

    devices = number_of_devices()
    batch_size = BATCH // devices * devices
    best, best_epoch, weights = -1.0, 0, None
    for epoch in range(MOST_EPOCHS):
        # Batches are drawn here because `fit` would shuffle by the global seed.
        order = rng.permutation(len(windows))
        order = np.resize(order, len(order) + -len(order) % devices)  # its first ones again
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            model.train_on_batch(windows[batch], targets[batch])
        reached = mean_average_precision(validation_labels, _clip_scores(model, validation))
        if reached > best:
            best, best_epoch, weights = reached, epoch, model.get_weights()
        elif epoch - best_epoch >= PATIENCE:
            break
    model.set_weights(weights)
    return _clip_scores(model, test)


def log_mel_statistics(log_mels, windows):
    """The control without an encoder: each mel band's mean and deviation, (clips, windows, 2 × mels), float32.

    Each clip of `log_mels` (clips, frames, mels) is cut into so many `windows`, as equal as the frames allow.
    """
    if log_mels.ndim != 3 or not 1 <= windows <= log_mels.shape[1]:
        raise BadInput(f"log_mels {log_mels.shape}, windows {windows}: expected (clips, frames, mels), 1 to frames.")
    parts = np.array_split(log_mels, windows, axis=1)
    statistics = [[part.mean(axis=1, dtype="float32"), part.std(axis=1, dtype="float32")] for part in parts]
    return np.stack([np.concatenate(both, axis=-1) for both in statistics], axis=1)


def random_projection(log_mels, d, seed=0):
    """The control of a network without layers: each patch times one matrix of random numbers.

    `log_mels` (clips, frames, mels), also a memory map, is cut into patches as for an encoder. Returns float32 (clips,
    windows, d). Distances stay about what they were (lemma of Johnson and Lindenstrauss), so this says how far those
    between bare patches go.
    """
    size = PATCH_FRAMES * log_mels.shape[2]
    matrix = np.random.default_rng(seed).standard_normal((size, d), "float32") / d**0.5
    clips = (patches_of(log_mels[i : i + 1]).reshape(-1, size) for i in range(len(log_mels)))
    return np.stack([patches.astype("float32") @ matrix for patches in clips])


CONTROLS = {  # without a network: functions of log-mel (clips, frames, mels), d and seed to (clips, windows, features)
    "log-mel statistics": lambda log_mels, d, seed=0: log_mel_statistics(log_mels, log_mels.shape[1] // PATCH_FRAMES),
    "random projection": random_projection,
}
