"""Intervals: resampled metrics are those of scikit-learn on the clips drawn, and verdicts follow from the intervals."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from sepcl_keras.core.checks import BadInput
from sepcl_keras.evaluation import intervals
from sepcl_keras.evaluation.metrics import d_prime, mean_average_precision

pytestmark = pytest.mark.once


def cases(seed, clips=40, classes=5, ties=True):
    rng = np.random.default_rng(seed)
    labels = (rng.random((clips, classes)) < 0.3).astype(float)
    labels[0], labels[1] = 1, 0
    scores = rng.normal(size=(clips, classes)) + labels
    return labels, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_resampled_metrics_are_scikit_learns_on_the_clips_drawn(seed, ties):
    labels, scores = cases(seed, ties=ties)
    weights = intervals.draws(len(labels), 20, seed)
    ours = intervals.mean_average_precisions(labels, scores, weights), intervals.d_primes(labels, scores, weights)
    for resample, drawn in enumerate(weights):
        usable = [c for c in range(5) if drawn @ labels[:, c]]
        expected = [average_precision_score(labels[:, c], scores[:, c], sample_weight=drawn) for c in usable]
        assert ours[0][resample] == pytest.approx(np.mean(expected), abs=1e-9)
        repeated = np.repeat(np.arange(len(labels)), drawn)  # the same, as clips that are there more than once
        assert ours[0][resample] == pytest.approx(mean_average_precision(labels[repeated], scores[repeated]), abs=1e-9)
        assert ours[1][resample] == pytest.approx(d_prime(labels[repeated], scores[repeated]), abs=1e-9)


def test_every_clip_once_is_the_metric_itself():
    labels, scores = cases(0)
    once = np.ones((1, len(labels)), int)
    (ours,) = intervals.mean_average_precisions(labels, scores, once)
    assert ours == pytest.approx(mean_average_precision(labels, scores), abs=1e-12)


def test_a_resample_without_a_single_positive_is_left_out():
    labels, scores = np.array([[1.0], [0.0]]), np.array([[0.9], [0.1]])
    values = intervals.mean_average_precisions(labels, scores, np.array([[0, 2], [1, 1], [2, 0]]))
    np.testing.assert_array_equal(values, [np.nan, 1.0, 1.0])
    assert intervals.interval(values, 0.9) == pytest.approx([0.9, 0.9])


def test_intervals_hold_the_mean_over_tests_about_as_often_as_they_say():
    def one(seed):
        rng = np.random.default_rng(seed)
        labels = (rng.random((100, 4)) < 0.2).astype(float)
        return labels, 0.8 * labels + rng.normal(size=labels.shape)

    mean = np.mean([mean_average_precision(*one(1000 + seed)) for seed in range(500)])
    covered = 0
    for seed in range(100):
        labels, scores = one(seed)
        measured = mean_average_precision(labels, scores)
        resampled = intervals.mean_average_precisions(labels, scores, intervals.draws(100, 300, seed))
        low, high = intervals.interval(resampled, measured)
        assert low < measured < high
        covered += low <= mean <= high
    assert 88 <= covered <= 99  # of 95 expected, give or take three standard deviations


def draws_of(labels, runs):
    return np.array([intervals.map_draws(labels, scores, 300) for scores in runs])


def test_draws_begin_with_what_was_measured_and_are_pairs():
    labels, scores = cases(3, clips=60)
    ours = intervals.map_draws(labels, scores, 5)
    assert ours[0] == pytest.approx(mean_average_precision(labels, scores), abs=1e-12)
    np.testing.assert_array_equal(ours[1:], intervals.mean_average_precisions(labels, scores, intervals.draws(60, 5)))


def test_a_difference_is_paired_by_seed_and_clip():
    labels, scores = cases(1, clips=200, ties=False)
    rng = np.random.default_rng(0)
    lower = scores + rng.normal(size=(3, *scores.shape))  # three seeds that differ by much
    better = lower + 0.5 * labels  # each of them a little better, on the same clips
    lower_draws, better_draws = draws_of(labels, lower), draws_of(labels, better)
    difference = intervals.paired_difference(lower_draws, better_draws)
    assert difference.verdict == "holds" and difference.low < difference.mean < difference.high
    reverse = intervals.paired_difference(better_draws, lower_draws)
    assert reverse.verdict == "fails" and reverse.mean == pytest.approx(-difference.mean)
    assert intervals.paired_difference(better_draws, lower_draws, margin=1.0).verdict == "holds"  # no worse by more
    same = intervals.paired_difference(lower_draws, lower_draws)
    assert same == intervals.Difference(0.0, 0.0, 0.0) and same.verdict == "undecided"
    expected = [
        mean_average_precision(labels, b) - mean_average_precision(labels, a)
        for a, b in zip(lower, better, strict=True)
    ]
    assert difference.mean == pytest.approx(np.mean(expected), abs=1e-12)


def test_with_one_seed_the_interval_is_the_deviation_of_the_paired_draws():
    labels, scores = cases(1, clips=200, ties=False)
    better = scores + 0.1 * labels  # nearly the same ranking, on the same clips
    lower, higher = draws_of(labels, [scores]), draws_of(labels, [better])
    difference = intervals.paired_difference(lower, higher)
    paired = (higher - lower)[0, 1:].std(ddof=1)
    assert difference.high - difference.mean == pytest.approx(1.959964 * paired, rel=1e-6)
    unpaired = np.hypot(higher[0, 1:].std(ddof=1), lower[0, 1:].std(ddof=1))
    assert paired < 0.3 * unpaired
    wider = intervals.paired_difference(lower, higher, level=0.99)
    assert wider.high - wider.mean == pytest.approx(2.575829 * paired, rel=1e-6)


def test_where_only_seeds_differ_the_interval_is_students():
    rng = np.random.default_rng(0)
    gains = rng.normal(0.01, 0.02, 4)
    lower = np.full((4, 11), 0.5)  # no test clips would change anything
    difference = intervals.paired_difference(lower, lower + gains[:, None])
    expected = stats.ttest_rel(lower[:, 0] + gains, lower[:, 0]).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("of_seeds", [0.0, 0.01, 0.03])
def test_intervals_of_differences_hold_the_truth_as_often_as_they_say(seeds, of_seeds):
    rng, covered, cases, of_clips = np.random.default_rng(1), 0, 2000, 0.01
    for _ in range(cases):
        shift = rng.normal(0, of_clips)  # of these test clips, the same for all seeds
        measured = 0.02 + shift + rng.normal(0, of_seeds, seeds)
        drawn = measured[:, None] + rng.normal(0, of_clips, 200)  # the same draws for all seeds, too
        higher = np.concatenate([measured[:, None], drawn], axis=1)
        difference = intervals.paired_difference(np.zeros_like(higher), higher)
        covered += difference.low <= 0.02 <= difference.high
    assert covered / cases >= 0.93  # too wide, where few seeds agree by luck, is on the safe side


def test_seeds_that_disagree_decide_nothing():
    labels, scores = cases(2, clips=200, ties=False)
    up, down = scores + 0.5 * labels, scores - 0.5 * labels
    alike, apart = draws_of(labels, [scores] * 2), draws_of(labels, [up, down])
    assert intervals.paired_difference(alike, apart).verdict == "undecided"


@pytest.mark.parametrize("shapes", [((2, 4), (3, 4)), ((4,), (4,)), ((0, 4), (0, 4))])
def test_draws_that_do_not_pair_are_refused(shapes):
    with pytest.raises(BadInput, match="expected \\(seeds, 1 \\+ resamples\\) twice"):
        intervals.paired_difference(*(np.zeros(shape) for shape in shapes))
