"""Classifiers on frozen embeddings: the shallow network, the linear probe, the curve over few labels."""

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from sepcl_keras.core.backend import number_of_devices
from sepcl_keras.core.checks import BadInput, check_number, numbers
from sepcl_keras.core.draws import generator
from sepcl_keras.evaluation.metrics import mean_average_precision, multi_hot

BATCH = 512  # windows in training
SCORING_BATCH = 16_384  # windows at once when scoring: bounds memory, seldom splits
MOST_EPOCHS = 60
PATIENCE = 15  # epochs; with 5, luck alone put the same embeddings' mAP 0.012 apart (1,000 test scenes), now 0.003
LEARNING_RATE = 1e-3
PROBE_C = 0.1  # inverse strength of the L2 penalty; fixed, so that a probe has nothing to tune and compares fairly


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
    train_labels = multi_hot("train_labels", train_labels)
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

    Embeddings are (clips, d), labels multi-hot (clips, classes). `counts`: positives of each class that are chosen, all
    of them where it has fewer; a chosen clip keeps the labels of all its classes. `seed`: of the choices; those of
    smaller counts lie in those of larger ones.
    """
    train, labels = numbers("train", train, ("clips", "d")), multi_hot("labels", labels)
    _same("labels", len(labels), len(train), "clips")
    found = {count: [] for count in counts}
    for choice in range(LABEL_CHOICES):
        rng = generator(seed, "label curve", choice)
        positives = [rng.permutation(np.flatnonzero(label)) for label in labels.T]
        for count, maps in found.items():
            chosen = np.unique(np.concatenate([clips[:count] for clips in positives]))
            maps.append(mean_average_precision(test_labels, linear_probe(train[chosen], labels[chosen], test)))
    return {str(count): float(np.mean(maps)) for count, maps in found.items()}


def _clip_scores(model, clips):
    """Scores (clips, classes) of clips (clips, windows, d): the mean over each clip's windows and all networks."""
    windows = clips.reshape(-1, clips.shape[-1])
    parts = (windows[i : i + SCORING_BATCH] for i in range(0, len(windows), SCORING_BATCH))
    scores = [keras.ops.convert_to_numpy(keras.ops.sigmoid(model(part, training=False))) for part in parts]
    return np.concatenate(scores).reshape(*clips.shape[:2], *scores[0].shape[1:]).mean(axis=(1, 2))


def _cross_entropy(targets, logits):
    """Of targets (windows, classes) and logits (windows, networks, classes), for each network the mean; their sum."""
    targets = keras.ops.expand_dims(keras.ops.cast(targets, logits.dtype), 1)
    return keras.ops.sum(keras.ops.mean(keras.ops.softplus(logits) - targets * logits, axis=(0, 2)))


def shallow_classifier(train, labels, validation, validation_labels, test, seed, hidden=512, initialisations=1):
    """Scores (clips, classes), float32, of networks with one hidden layer on frozen embeddings.

    Args:
        train, validation, test: embeddings (clips, windows, d); the number of windows may differ between them.
        labels, validation_labels: (clips, classes) multi-hot; each window is trained with its clip's labels.
        seed: of the initial weights and the order of batches. hidden: width of the hidden layer.
        initialisations: networks, trained side by side on the same batches, whose mean scores count: the luck of one
            put the same embeddings' mAP 0.003 to 0.010 apart.

    Standardisation by `train`, dense, ReLU, dense, sigmoid; binary cross-entropy, Adam. A clip's score is the mean of
    its windows' scores. Training stops after 60 epochs, or when validation mAP has not risen for fifteen; the best
    epoch's weights score `test`.
    """
    given = {"train": train, "validation": validation, "test": test}
    given = [numbers(name, values, ("clips", "windows", "d"), np.float32) for name, values in given.items()]
    train, validation, test = given
    labels, validation_labels = multi_hot("labels", labels), multi_hot("validation_labels", validation_labels)
    _same("labels", len(labels), len(train), "clips")
    _same("validation_labels", len(validation_labels), len(validation), "clips")
    _same("validation_labels", validation_labels.shape[1], labels.shape[1], "classes")
    _same("validation", validation.shape[2], train.shape[2], "features")
    _same("test", test.shape[2], train.shape[2], "features")
    check_number("initialisations", initialisations, least=1, whole=True)

    windows = train.reshape(-1, train.shape[2])
    targets = np.repeat(labels.astype("float32"), train.shape[1], axis=0)
    mean, deviation = _statistics(windows)
    rng, n, blank = generator(seed, "shallow classifier"), initialisations, {"kernel_initializer": "zeros"}
    model = keras.Sequential([
        keras.Input((train.shape[2],), dtype="float32"),
        keras.layers.Normalization(mean=mean, variance=deviation**2, dtype="float32"),
        keras.layers.EinsumDense("bd,ndh->bnh", (n, hidden), "relu", bias_axes="nh", dtype="float32", **blank),
        keras.layers.EinsumDense("bnh,nhc->bnc", (n, labels.shape[1]), bias_axes="nc", dtype="float32", **blank),
    ])  # fmt: skip
    # Drawn here, because initialisers without a seed would draw from the global one.
    kernels = {layer: [] for layer in model.layers[1:]}
    for _ in range(initialisations):
        for layer, drawn in kernels.items():
            glorot = keras.initializers.GlorotUniform(seed=int(rng.integers(2**31)))
            drawn.append(keras.ops.convert_to_numpy(glorot(layer.kernel.shape[1:])))
    for layer, drawn in kernels.items():
        layer.kernel.assign(np.stack(drawn))
    # Compiling with XLA would take longer than the training; JAX alone needs it, for there it means tracing at all.
    jit = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.Adam(LEARNING_RATE), _cross_entropy, jit_compile=jit)

    devices = number_of_devices()
    batch_size = BATCH // devices * devices
    best, best_epoch, weights = -1.0, 0, None
    for epoch in range(MOST_EPOCHS):
        order = rng.permutation(len(windows))  # here, because `fit` would shuffle by the global seed
        order = np.resize(order, len(order) + -len(order) % devices)  # its first ones again
        for batch in np.split(order, range(batch_size, len(order), batch_size)):
            model.train_on_batch(windows[batch], targets[batch])
        reached = mean_average_precision(validation_labels, _clip_scores(model, validation))
        if reached > best:
            best, best_epoch, weights = reached, epoch, model.get_weights()
        elif epoch - best_epoch >= PATIENCE:
            break
    model.set_weights(weights)
    return _clip_scores(model, test)
