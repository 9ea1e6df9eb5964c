"""Metrics against hand counts, scikit-learn, closed forms, goldens; classifiers on problems with known answers."""

import itertools
import random
import warnings

import keras
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from sepcl_keras.core.checks import BadInput
from sepcl_keras.evaluation import classifiers
from sepcl_keras.evaluation.classifiers import PATIENCE, label_curve, linear_probe, shallow_classifier
from sepcl_keras.evaluation.controls import CONTROLS, log_mel_statistics, random_projection
from sepcl_keras.evaluation.metrics import average_precisions, d_prime, mean_average_precision
from sepcl_keras.evaluation.retrieval import query_by_example, query_by_example_draws, query_by_example_map


def column(*values):
    return np.array(values, float)[:, None]


def labelled_scores(clips=60, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((clips, classes)) < 0.3).astype("float32"), np.round(rng.random((clips, classes)), 1)


# --- average precision and d′


def test_average_precision_agrees_with_the_golden(goldens):
    golden = goldens["average_precision"]
    rng = np.random.default_rng(3)
    labels = rng.random((40, 3)) < 0.3
    scores = np.round(rng.random((40, 3)), 1)
    np.testing.assert_allclose(average_precisions(labels, scores), golden["per_class"], rtol=0, atol=1e-9)
    assert mean_average_precision(labels, scores) == pytest.approx(golden["macro"], abs=1e-9)
    tie = mean_average_precision(column(1, 0, 1, 0), column(0.5, 0.5, 0.5, 0.1))
    assert tie == pytest.approx(golden["tie_case_y1010_s_.5_.5_.5_.1"], abs=1e-9)


def test_average_precision_by_hand():
    # Ranked: positive, negative, positive, negative: (1/1 + 2/3) / 2.
    assert mean_average_precision(column(1, 0, 1, 0), column(4, 3, 2, 1)) == pytest.approx(5 / 6)
    # All tied: the share of positives.
    assert mean_average_precision(column(1, 0, 0, 0), column(0, 0, 0, 0)) == pytest.approx(1 / 4)


def test_classes_without_positives_are_skipped_not_counted_as_zero():
    labels, scores = labelled_scores()
    labels[:, 1] = 0
    found = average_precisions(labels, scores)
    assert np.isnan(found).tolist() == [False, True, False, False]
    expected = [average_precision_score(labels[:, c], scores[:, c]) for c in (0, 2, 3)]
    assert mean_average_precision(labels, scores) == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize("auc", [0.5, 0.75, 0.9, 0.1])
def test_d_prime_is_the_closed_form_of_a_known_auc(auc):
    # One positive above a share `auc` of twenty negatives.
    scores = column(20 * auc - 0.5, *range(20))
    assert d_prime(column(1, *[0] * 20), scores) == pytest.approx(np.sqrt(2) * norm.ppf(auc), abs=1e-9)


def test_d_prime_averages_classes_after_the_transform_and_skips_constant_ones():
    labels, scores = labelled_scores()
    labels[:, 1], labels[:, 2] = 0, 1
    each = [np.sqrt(2) * norm.ppf(roc_auc_score(labels[:, c], scores[:, c])) for c in (0, 3)]
    assert d_prime(labels, scores) == pytest.approx(np.mean(each), abs=1e-9)


def test_d_prime_of_perfect_and_inverted_scores_is_finite():
    labels = column(1, 1, 0, 0)
    assert d_prime(labels, labels) == pytest.approx(np.sqrt(2) * norm.ppf(1 - 1e-6))
    assert d_prime(labels, -labels) == pytest.approx(-np.sqrt(2) * norm.ppf(1 - 1e-6))


@pytest.mark.parametrize("metric", [mean_average_precision, d_prime])
def test_ranking_metrics_ignore_the_order_of_clips_and_any_increasing_map(metric):
    labels, scores = labelled_scores()
    order = np.random.default_rng(1).permutation(len(labels))
    assert metric(labels[order], scores[order]) == pytest.approx(metric(labels, scores), abs=1e-12)
    assert metric(labels, np.exp(3 * scores)) == pytest.approx(metric(labels, scores), abs=1e-12)


@pytest.mark.parametrize("metric", [average_precisions, mean_average_precision, d_prime])
@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        (np.ones((4, 2)), np.ones((4, 3)), r"scores of shape \(4, 3\): expected \(4, 2\)"),
        (np.ones(4), np.ones(4), r"labels of shape \(4,\)"),
        (np.ones((0, 2)), np.ones((0, 2)), r"labels of shape \(0, 2\)"),
        (np.zeros((4, 2)), np.ones((4, 2)), "labels without a single positive"),
        (np.full((4, 2), 0.5), np.ones((4, 2)), "labels with other values than 0 and 1"),
        (np.eye(4), np.full((4, 4), np.nan), "scores with NaN"),
    ],
)
def test_bad_labels_and_scores_are_named(metric, labels, scores, says):
    with pytest.raises(BadInput, match=says):
        metric(labels, scores)


ODD = {
    "text": [["1", "0"], ["0", "1"]],
    "complex": [[1j, 0], [0, 1]],
    "dates": np.array([["2021-10-17", "2021-10-20"]] * 2, "datetime64[D]"),
    "ragged": [[1.0, 0.0], [1.0]],
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_are_no_real_numbers_is_refused(odd):
    right, clips = np.eye(2), np.eye(2)[:, None]
    calls = {
        "labels": [
            lambda: mean_average_precision(odd, right), lambda: d_prime(odd, right),
            lambda: query_by_example_map(right, odd), lambda: label_curve(right, odd, right, right),
            lambda: shallow_classifier(clips, odd, clips, right, clips, 0), lambda: linear_probe(right, odd, right),
        ],
        "scores": [lambda: mean_average_precision(right, odd), lambda: d_prime(right, odd)],
        "positives": [lambda: query_by_example(odd, right)],
        "embeddings": [lambda: query_by_example_map(odd, right)],
        "train": [lambda: linear_probe(odd, right, right), lambda: label_curve(odd, right, right, right)],
    }  # fmt: skip
    for name, doors in calls.items():
        for door in doors:
            with pytest.raises(BadInput, match=f"{name}( of .*)?: expected (real )?numbers"):
                door()


def test_d_prime_needs_a_class_with_both():
    with pytest.raises(BadInput, match="constant in every class"):
        d_prime(np.ones((4, 1)), np.arange(4.0)[:, None])


# --- query by example


def test_query_by_example_agrees_with_the_golden(goldens):
    golden = goldens["query_by_example"]
    rng = np.random.default_rng(5)
    positives = rng.standard_normal((8, 16)) + 0.5
    negatives = rng.standard_normal((10, 16))
    assert query_by_example(positives, negatives) == pytest.approx(golden["average_precision"], abs=1e-9)
    labels = column(*[1] * 8, *[0] * 10)
    found = query_by_example_map(np.concatenate([positives, negatives]), labels)
    assert found["map"] == pytest.approx(golden["average_precision"], abs=1e-9)
    assert found["chance"] == pytest.approx(golden["chance"], abs=1e-12)


def brute_force(positives, negatives):
    """Ranks distances one by one: the mean over relevant pairs of the precision at the pair's own distance."""

    def distance(a, b):
        return round(1 - float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))), 9)

    relevant = [distance(a, b) for a, b in itertools.combinations(positives, 2)]
    other = [distance(a, b) for a, b in itertools.product(positives, negatives)]
    hits = [(sum(r <= d for r in relevant), sum(o <= d for o in other)) for d in relevant]
    return np.mean([r / (r + o) for r, o in hits])


@pytest.mark.parametrize("seed", range(3))
def test_query_by_example_equals_brute_force_with_ties(seed):
    rng = np.random.default_rng(seed)
    # Few small integers: many embeddings share a direction, so that many cosines tie.
    positives, negatives = rng.integers(1, 4, (7, 3)), rng.integers(1, 4, (9, 3))
    assert query_by_example(positives, negatives) == pytest.approx(brute_force(positives, negatives), abs=1e-9)


def test_query_by_example_by_hand():
    # The relevant pair has cosine 1, the two others 0; then it has 0, as one of the others, and the third has 1.
    assert query_by_example([[1, 0], [2, 0]], [[0, 3]]) == 1.0
    assert query_by_example([[1, 0], [0, 1]], [[1, 0]]) == pytest.approx(1 / 3)


def test_a_collapsed_encoder_scores_chance_exactly():
    one = np.random.default_rng(0).standard_normal(128).astype("float32")
    labels = (np.random.default_rng(1).random((150, 3)) < 0.2).astype("float32")
    for embeddings in (np.tile(one, (150, 1)), np.zeros((150, 128), "float32")):
        found = query_by_example_map(embeddings, labels)
        assert found["map"] == pytest.approx(found["chance"], abs=1e-12)


def test_random_embeddings_score_near_the_printed_chance():
    rng = np.random.default_rng(0)
    found = query_by_example_map(rng.standard_normal((400, 64)), rng.random((400, 6)) < 0.3)
    assert found["chance"] == pytest.approx(99 / 299)  # 100 positives, 100 negatives: 4,950 of 14,950 pairs
    assert found["map"] == pytest.approx(found["chance"], abs=0.03)


def test_query_by_example_ignores_clip_order_length_and_rotation():
    rng = np.random.default_rng(0)
    embeddings, labels = rng.standard_normal((60, 8)), rng.random((60, 3)) < 0.4
    expected = query_by_example_map(embeddings, labels)["map"]
    order = rng.permutation(60)
    rotation, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    stretched = embeddings * rng.uniform(0.1, 10, (60, 1))
    assert query_by_example_map(embeddings[order], labels[order])["map"] == pytest.approx(expected, abs=1e-12)
    assert query_by_example_map(stretched @ rotation, labels)["map"] == pytest.approx(expected, abs=1e-9)


def test_query_by_example_draws_by_seed_and_skips_poor_classes():
    rng = np.random.default_rng(0)
    embeddings, labels = rng.standard_normal((80, 8)), rng.random((80, 4)) < 0.5
    labels[:, 1], labels[:, 2] = False, True
    labels[5, 1] = True  # one positive only; class 2 has no negative
    found, again, other = (query_by_example_map(embeddings, labels, seed=s, most=10) for s in (3, 3, 4))
    np.testing.assert_array_equal(found["per_class"], again["per_class"])
    assert found["map"] != other["map"]
    assert np.isnan(found["per_class"]).tolist() == [False, True, True, False]
    assert found["map"] == pytest.approx(np.nanmean(found["per_class"]))
    alone = query_by_example_map(embeddings, labels[:, :1], seed=3, most=10)
    assert alone["per_class"][0] == found["per_class"][0]


def weighted_brute_force(positives, negatives, of_positives, of_negatives):
    """Goes through thresholds from the nearest pair to the farthest; a pair counts as the product of its clips."""

    def cosine(a, b):
        return round(float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))), 9)

    clips = list(zip(positives, of_positives, strict=True))
    pairs = [(cosine(a, b), v * w, True) for (a, v), (b, w) in itertools.combinations(clips, 2)]
    others = zip(negatives, of_negatives, strict=True)
    pairs += [(cosine(a, b), v * w, False) for (a, v), (b, w) in itertools.product(clips, others)]
    total, recall, area = sum(weight for _, weight, relevant in pairs if relevant), 0.0, 0.0
    for threshold in sorted({found for found, _, _ in pairs}, reverse=True):
        gained = sum(weight for found, weight, relevant in pairs if relevant and found >= threshold)
        passed = sum(weight for found, weight, relevant in pairs if not relevant and found >= threshold)
        area += (gained / total - recall) * gained / (gained + passed)
        recall = gained / total
    return area


@pytest.mark.parametrize("seed", range(3))
def test_weighted_queries_equal_brute_force_with_ties(seed):
    rng = np.random.default_rng(seed)
    positives, negatives = rng.integers(1, 4, (7, 3)), rng.integers(1, 4, (9, 3))
    whole = rng.integers(1, 5, (2, 7)), rng.integers(1, 5, (2, 9))
    parts = rng.standard_exponential((2, 7)), rng.standard_exponential((2, 9))
    weights = [np.concatenate(both) for both in zip(whole, parts, strict=True)]
    found = query_by_example_draws(positives, negatives, *weights)
    expected = [weighted_brute_force(positives, negatives, *each) for each in zip(*weights, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    even = query_by_example_draws(positives, negatives, np.full((2, 7), [[1], [0.3]]), np.full((2, 9), [[1], [2.5]]))
    assert even[0] == pytest.approx(query_by_example(positives, negatives), abs=1e-12)
    assert even[1] != pytest.approx(even[0], abs=1e-3)  # as many negatives more as they weigh more


def test_a_weight_of_a_negative_is_so_many_of_it():
    rng = np.random.default_rng(0)
    positives, negatives, weights = rng.standard_normal((6, 4)), rng.standard_normal((5, 4)), np.array([1, 3, 2, 5, 4])
    (found,) = query_by_example_draws(positives, negatives, np.ones((1, 6)), weights[None])
    assert found == pytest.approx(query_by_example(positives, np.repeat(negatives, weights, axis=0)), abs=1e-12)


def test_draws_of_query_by_example_spread_as_new_clips_would():
    """Embeddings of two classes, one in twice as many clips; the interval would else be too narrow or too wide."""
    rng, directions = np.random.default_rng(0), np.random.default_rng(1).standard_normal((2, 6))

    def clips():
        labels = rng.random((50, 2)) < (0.25, 0.5)
        return 0.8 * labels @ directions + rng.standard_normal((50, 6)), labels

    new = [query_by_example_map(*clips())["map"] for _ in range(150)]
    drawn = [query_by_example_map(*clips(), seed=seed, resamples=60) for seed in range(15)]
    assert all(found["draws"].shape == (60,) for found in drawn)
    spread = np.sqrt(np.mean([found["draws"].var(ddof=1) for found in drawn]))
    assert 0.75 < spread / np.std(new, ddof=1) < 1.33
    shifts = [found["draws"].mean() - found["map"] for found in drawn]
    assert abs(np.mean(shifts)) < 0.5 * spread
    embeddings, labels = clips()
    found, again, none = (query_by_example_map(embeddings, labels, seed=4, resamples=n) for n in (5, 5, 0))
    np.testing.assert_array_equal(found["draws"], again["draws"])
    assert found["map"] == none["map"] and none["draws"].shape == (0,)
    assert len(set(found["draws"])) == 5


def test_all_classes_of_a_draw_share_their_clips_weights():
    """A class and the same one again: their mean spreads as each of them alone, draw by draw."""
    rng = np.random.default_rng(0)
    embeddings, label = rng.standard_normal((30, 4)), rng.random((30, 1)) < 0.4
    one = query_by_example_map(embeddings, label, resamples=20)["draws"]
    two = query_by_example_map(embeddings, np.repeat(label, 2, axis=1), resamples=20)["draws"]
    np.testing.assert_allclose(two, one, atol=1e-12)


def test_bad_queries_are_named():
    with pytest.raises(BadInput, match=r"positives \(1, 2\)"):
        query_by_example(np.ones((1, 2)), np.ones((3, 2)))
    with pytest.raises(BadInput, match=r"negatives \(3, 4\)"):
        query_by_example(np.ones((2, 2)), np.ones((3, 4)))
    with pytest.raises(BadInput, match="embeddings with NaN"):
        query_by_example_map(np.full((3, 2), np.nan), np.eye(3))
    with pytest.raises(BadInput, match="labels with 3 clips: expected 4"):
        query_by_example_map(np.ones((4, 2)), np.eye(3))
    with pytest.raises(BadInput, match="no class has two positives"):
        query_by_example_map(np.ones((3, 2)), np.eye(3))


# --- classifiers


def blobs(clips, seed, windows=3, xor=False):
    """Two features around (±2, ±2) and two classes: the signs, or with `xor` whether they agree and whether not."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (clips, 2))
    embeddings = 2 * signs[:, None] + 0.7 * rng.standard_normal((clips, windows, 2))
    agree = signs[:, 0] == signs[:, 1]
    labels = np.stack([agree, ~agree], axis=1) if xor else signs > 0
    return embeddings.astype("float32"), labels.astype("float32")


def classify(train, validation, test, seed=0):
    return shallow_classifier(*train, *validation, test[0], seed=seed, hidden=64)


@pytest.fixture(scope="module")
def xor():
    return blobs(400, 0, xor=True), blobs(100, 1, xor=True), blobs(200, 2, xor=True)


def test_both_classifiers_separate_what_is_linearly_separable():
    train, validation, test = blobs(200, 0), blobs(60, 1), blobs(100, 2)
    shallow = classify(train, validation, test)
    linear = linear_probe(train[0].mean(axis=1), train[1], test[0].mean(axis=1))
    for scores in (shallow, linear):
        assert scores.shape == test[1].shape
        assert ((scores >= 0) & (scores <= 1)).all()
        assert mean_average_precision(test[1], scores) > 0.99
    assert shallow.dtype == np.float32


def test_only_the_hidden_layer_solves_xor(xor):
    train, validation, test = xor
    linear = linear_probe(train[0].mean(axis=1), train[1], test[0].mean(axis=1))
    assert mean_average_precision(test[1], linear) < 0.75
    assert mean_average_precision(test[1], classify(*xor)) > 0.95


def test_shallow_classifier_is_a_function_of_its_seed_and_leaves_the_global_one_alone(xor):
    small = tuple((clips[:60], labels[:60]) for clips, labels in xor)

    def draws():
        return [random.random(), *np.random.random(2), *keras.ops.convert_to_numpy(keras.random.uniform((2,)))]

    keras.utils.set_random_seed(7)
    undisturbed = draws()
    keras.utils.set_random_seed(7)
    first = classify(*small, seed=1)
    assert draws() == undisturbed
    np.testing.assert_array_equal(classify(*small, seed=1), first)  # the global state is another one now
    assert np.abs(classify(*small, seed=2) - first).max() > 1e-4


def test_a_clip_scores_the_mean_of_its_windows_alone(xor, monkeypatch):
    monkeypatch.setattr(classifiers, "MOST_EPOCHS", 5)
    train, validation, test = ((clips[:60], labels[:60]) for clips, labels in xor)
    whole = classify(train, validation, test)
    each = [classify(train, validation, (test[0][:, w : w + 1],)) for w in range(3)]
    np.testing.assert_allclose(np.mean(each, axis=0), whole, atol=1e-6)
    monkeypatch.setattr(classifiers, "SCORING_BATCH", 7)
    np.testing.assert_allclose(classify(train, validation, test), whole, atol=1e-5)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(classify(train, validation, (test[0][order],)), whole[order], atol=1e-5)


def test_the_best_epoch_is_kept(xor, monkeypatch):
    seen = []

    def falling(labels, scores):
        seen.append(scores)
        return 1.0 / len(seen)  # the first epoch stays the best

    monkeypatch.setattr(classifiers, "mean_average_precision", falling)
    train, validation, _ = xor
    scores = shallow_classifier(*train, *validation, validation[0], seed=0, hidden=16)
    assert len(seen) == 1 + PATIENCE
    np.testing.assert_allclose(scores, seen[0], atol=1e-6)


def forward(weights, network, windows):
    """Logits (windows, classes) of one of several networks, by hand; `windows` as the first layer of them sees them."""
    first, bias, second, last = (np.asarray(each[network], "float64") for each in weights)
    return np.maximum(windows @ first + bias, 0) @ second + last


def by_hand(windows, statistics):
    mean, variance = (np.asarray(each, "float64") for each in statistics)
    return (windows.astype("float64") - mean) / np.sqrt(variance)


def test_several_networks_score_their_mean_and_each_has_weights_of_its_own(xor, monkeypatch):
    monkeypatch.setattr(classifiers, "MOST_EPOCHS", 3)
    clip_scores, models = classifiers._clip_scores, []

    def kept(model, clips):
        models.append(model)
        return clip_scores(model, clips)

    monkeypatch.setattr(classifiers, "_clip_scores", kept)
    (train, labels), validation, (test, _) = ((clips[:80], labels[:80]) for clips, labels in xor)
    scores = shallow_classifier(train, labels, *validation, test, seed=0, hidden=16, initialisations=4)
    weights = [keras.ops.convert_to_numpy(v.value) for v in models[-1].trainable_variables]
    assert [each.shape for each in weights] == [(4, 2, 16), (4, 16), (4, 16, 2), (4, 2)]
    flat = train.reshape(-1, 2)
    windows = by_hand(test.reshape(-1, 2), (flat.mean(axis=0), flat.var(axis=0)))
    each = [1 / (1 + np.exp(-forward(weights, network, windows))) for network in range(4)]
    each = [clips.reshape(80, 3, 2).mean(axis=1) for clips in each]
    np.testing.assert_allclose(scores, np.mean(each, axis=0), atol=1e-5)
    for one, other in itertools.combinations(range(4), 2):
        assert np.abs(weights[0][one] - weights[0][other]).mean() > 0.1
        assert np.abs(weights[2][one] - weights[2][other]).mean() > 0.1
        assert np.abs(each[one] - each[other]).max() > 1e-3
    assert np.abs(scores - each[0]).max() > 1e-3


def test_each_of_several_networks_starts_by_glorot_and_learns_as_if_alone(xor, monkeypatch):
    """Adam in NumPy, for one network after the other, on the batches that all of them saw."""
    monkeypatch.setattr(classifiers, "MOST_EPOCHS", 3)
    monkeypatch.setattr(classifiers, "mean_average_precision", lambda labels, scores: len(batches))  # the last is kept
    train_on_batch, batches, kept = keras.Sequential.train_on_batch, [], []

    def watched(model, x, y):
        if not batches:
            kept.append([keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables])
            kept.append(model)
        batches.append((x, y))
        return train_on_batch(model, x, y)

    monkeypatch.setattr(keras.Sequential, "train_on_batch", watched)
    (train, labels), validation, _ = xor
    shallow_classifier(train, labels, *validation, validation[0], seed=0, hidden=40, initialisations=2)
    start, model = kept
    found = [keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables]
    for kernel, size in ((start[0], 2 + 40), (start[2], 40 + 2)):
        limit = np.sqrt(6 / size)
        assert np.abs(kernel).max() < limit and np.abs(kernel).mean() == pytest.approx(limit / 2, rel=0.2)
    assert len(batches) == 9 and not any(each.any() for each in (start[1], start[3]))
    flat = train.reshape(-1, 2)
    for network in range(2):
        weights = [each[network].astype("float64") for each in start]
        first, second = ([np.zeros_like(each) for each in weights] for _ in range(2))
        for step, (x, y) in enumerate(batches, start=1):
            x = by_hand(x, (flat.mean(axis=0), flat.var(axis=0)))
            hidden = np.maximum(x @ weights[0] + weights[1], 0)
            error = (1 / (1 + np.exp(-(hidden @ weights[2] + weights[3]))) - y) / y.size
            back = error @ weights[2].T * (hidden > 0)
            for i, slope in enumerate((x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0))):
                first[i] += 0.1 * (slope - first[i])
                second[i] += 0.001 * (slope**2 - second[i])
                unbiased = first[i] / (1 - 0.9**step), second[i] / (1 - 0.999**step)
                weights[i] -= 1e-3 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-7)
        for ours, expected in zip(found, weights, strict=True):
            np.testing.assert_allclose(ours[network], expected, atol=2e-4)  # a step is 1e-3, of nine


def test_the_loss_of_several_networks_is_the_sum_of_theirs(value_and_gradients):
    rng = np.random.default_rng(0)
    targets = (rng.random((5, 3)) < 0.4).astype("float32")
    logits = (3 * rng.standard_normal((5, 2, 3))).astype("float32")
    chances = 1 / (1 + np.exp(-logits.astype("float64")))
    each = [-np.mean(np.where(targets, np.log(p), np.log(1 - p))) for p in chances.transpose(1, 0, 2)]

    def loss(x):
        return classifiers._cross_entropy(targets, x)

    value, (slope,) = value_and_gradients(loss, logits)
    assert value == pytest.approx(sum(each), rel=1e-5)
    np.testing.assert_allclose(slope, (chances - targets[:, None]) / 15, atol=1e-6)
    extreme, (slope,) = value_and_gradients(loss, np.full((5, 2, 3), 1e4, "float32"))
    assert extreme == pytest.approx(2e4 * np.mean(1 - targets), rel=1e-5) and np.isfinite(slope).all()


@pytest.mark.parametrize("number", [0, 1.5, True, "4"])
def test_initialisations_are_a_whole_number(xor, number):
    train, validation, test = xor
    with pytest.raises(BadInput, match="initialisations=.*: expected a whole number of at least 1"):
        shallow_classifier(*train, *validation, test[0], seed=0, initialisations=number)


def test_probes_ignore_units_and_dead_features():
    train, _, test = blobs(200, 0), None, blobs(100, 2)
    pooled, asked = train[0].mean(axis=1), test[0].mean(axis=1)
    expected = linear_probe(pooled, train[1], asked)

    def rescaled(x):
        return np.concatenate([x * [1e3, 1e-3] + [5.0, -2.0], np.full((len(x), 1), 0.1)], axis=1)

    np.testing.assert_allclose(linear_probe(rescaled(pooled), train[1], rescaled(asked)), expected, atol=1e-3)
    # The network too: a feature a million times larger must weigh the same.
    uneven = [np.float32([1024, 1 / 1024]) * x for x in (train[0], test[0])]
    found, expected = (
        shallow_classifier(a, train[1], a, train[1], b, seed=0, hidden=64) for a, b in (uneven, (train[0], test[0]))
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    dead = [np.concatenate([x, np.zeros_like(x[..., :1])], axis=-1) for x in (train[0], test[0])]
    dead[1][..., 2] = 1e-3  # what never moved in training may move a little later
    scores = shallow_classifier(dead[0], train[1], dead[0], train[1], dead[1], seed=0, hidden=64)
    assert mean_average_precision(test[1], scores) > 0.99


def test_linear_probe_gives_constant_classes_their_value_and_never_warns():
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((40, 200)), rng.standard_normal((9, 200))  # more features than clips: separable
    labels = (rng.random((40, 4)) < 0.4).astype("float32")
    labels[:, 1], labels[:, 2] = 0, 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = linear_probe(train, labels, test)
    assert (scores[:, 1] == 0).all() and (scores[:, 2] == 1).all()
    assert (np.ptp(scores[:, [0, 3]], axis=0) > 0).all()


def test_bad_training_input_is_named(xor):
    (clips, labels), validation, test = xor
    with pytest.raises(BadInput, match="labels with 399 clips: expected 400"):
        shallow_classifier(clips, labels[1:], *validation, test[0], seed=0)
    with pytest.raises(BadInput, match="test with 1 features: expected 2"):
        shallow_classifier(clips, labels, *validation, test[0][..., :1], seed=0)
    with pytest.raises(BadInput, match=r"train of shape .*clips, windows, d"):
        shallow_classifier(clips[:, 0], labels, *validation, test[0], seed=0)
    with pytest.raises(BadInput, match="validation_labels without a single positive"):
        shallow_classifier(clips, labels, validation[0], 0 * validation[1], test[0], seed=0)
    with pytest.raises(BadInput, match="test with NaN"):
        linear_probe(clips[:, 0], labels, np.full((3, 2), np.nan))
    with pytest.raises(BadInput, match="train_labels with 399 clips: expected 400"):
        linear_probe(clips[:, 0], labels[1:], test[0][:, 0])


# --- the control without an encoder


def test_log_mel_statistics_by_hand():
    log_mels = np.array([[[0, 1], [2, 1], [5, -3], [5, 3]]], "float16")  # (1 clip, 4 frames, 2 mels)
    found = log_mel_statistics(log_mels, number=2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[[1, 1, 1, 0], [5, 0, 0, 3]]])


def test_log_mel_statistics_use_every_frame_and_full_precision():
    log_mels = (np.random.default_rng(0).standard_normal((2, 498, 64)) - 10).astype("float16")
    found = log_mel_statistics(log_mels, number=5)
    assert found.shape == (2, 5, 128)
    last = log_mels[:, -99:].astype("float64")  # 498 frames: three windows of 100, two of 99
    np.testing.assert_allclose(found[:, -1], np.concatenate([last.mean(axis=1), last.std(axis=1)], axis=-1), rtol=1e-5)


@pytest.mark.parametrize(("shape", "windows"), [((2, 3), 1), ((2, 3, 4), 0), ((2, 3, 4), 4)])
def test_bad_log_mels_are_named(shape, windows):
    with pytest.raises(BadInput, match="log_mels"):
        log_mel_statistics(np.ones(shape), windows)


def test_a_random_projection_keeps_distances_and_depends_on_the_seed_alone():
    log_mels = np.random.default_rng(0).standard_normal((6, 200, 64)).astype("float16")
    h = random_projection(log_mels, 2000)
    assert h.shape == (6, 2, 2000) and h.dtype == np.float32
    patches = log_mels[:, :192].astype("float32").reshape(12, -1)
    between, kept = (np.linalg.norm(x[:, None] - x, axis=-1) for x in (patches, h.reshape(12, -1)))
    different = ~np.eye(12, dtype=bool)
    np.testing.assert_allclose(kept[different] / between[different], 1.0, atol=0.1)
    np.testing.assert_array_equal(random_projection(log_mels[2:3], 2000)[0], h[2])
    assert np.abs(random_projection(log_mels, 2000, seed=1) - h).max() > 1


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_without_a_network_take_log_mel_in_half_precision_and_give_windows(name):
    log_mels = np.random.default_rng(0).standard_normal((3, 300, 64)).astype("float16")
    h = CONTROLS[name](log_mels, 128)
    assert h.shape == (3, 3, 128) and h.dtype == np.float32 and np.isfinite(h).all()


def test_label_curve_rises_with_labels_to_the_probe_with_all_of_them():
    rng = np.random.default_rng(0)
    labels = np.eye(3)[rng.integers(0, 3, 90)]
    train = labels @ rng.normal(size=(3, 8)) + rng.normal(0, 1.5, (90, 8))
    test = train + rng.normal(0, 1.0, train.shape)
    curve = label_curve(train, labels, test, labels, counts=(1, 5, 90))
    assert curve["1"] < curve["5"] < curve["90"]
    assert curve["90"] == pytest.approx(mean_average_precision(labels, linear_probe(train, labels, test)))
    assert curve == label_curve(train, labels, test, labels, counts=(1, 5, 90))
    again = label_curve(train, labels, test, labels, counts=(5,))
    assert again["5"] == curve["5"] and label_curve(train, labels, test, labels, counts=(5,), seed=1) != again


def test_a_chosen_clip_keeps_all_its_labels_and_each_class_has_its_number(monkeypatch):
    labels = (np.random.default_rng(0).random((60, 3)) < 0.4).astype(float)
    labels[:, 2] = [1.0] * 3 + [0.0] * 57  # a class with fewer than asked for
    seen = []
    monkeypatch.setattr(classifiers, "linear_probe", lambda train, of, test: seen.append(of) or np.zeros(labels.shape))
    label_curve(np.zeros((60, 2)), labels, np.zeros((60, 2)), labels, counts=(1, 5))
    for chosen, least in zip(seen, (1, 5) * 5, strict=True):
        assert (chosen.sum(axis=0) >= [least, least, min(least, 3)]).all()
        assert len(chosen) <= 2 * least + min(least, 3)
