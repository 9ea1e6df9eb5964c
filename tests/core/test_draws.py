"""Streams of one seed: which numbers are whose."""

import itertools

import numpy as np
import pytest

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.draws import generator, stream

PURPOSES = [("Shift",), ("Mixing",), ("TripletModel",), ("views", "order"), ("views", "order", 1), ("vieworder", 1)]


def test_streams_of_neighbouring_seeds_lie_farther_apart_than_a_training_is_long():
    starts = sorted([stream(seed, *purpose) for seed in range(10) for purpose in PURPOSES])
    assert np.diff([0, *starts]).min() > 10_000 and starts[-1] < 2**31
    assert 0.3 < np.mean(starts) / 2**31 < 0.7


def test_a_stream_is_of_its_seed_and_its_whole_purpose():
    made = [(1,), (1, "a"), (1, "a", "b"), (1, "ab"), (1, "a", 1), (11, "a"), (1, "a", 11), (1, "a", "1"), (1, 1, "a")]
    assert len({stream(*each) for each in made}) == len(made)
    assert stream(np.int64(7), "a") == stream(7, "a") == 1_470_052_865  # SHA-256 of "(7, 'a')", its upper 31 bits
    assert stream(2**32, "a") < 2**31
    assert stream(None, "a") is None


@pytest.mark.parametrize("seed", [0.5, True, "7", float("nan")])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(BadInput, match="seed=.*: expected a whole number"):
        stream(seed, "a")


def test_numpys_generators_differ_where_tuples_would_not():
    assert np.random.default_rng((5, 0, 0)).random() == np.random.default_rng(5).random()  # what a tuple is worth
    keys = [(5,), (5, 0), (5, 0, 0), (5, "order", 0), (5, "order", 1), (0, 5)]
    first = [generator(*key).random() for key in keys]
    assert len(set(first)) == len(keys)
    for one, other in itertools.combinations(keys, 2):
        assert abs(np.corrcoef(generator(*one).random(4_000), generator(*other).random(4_000))[0, 1]) < 0.06
    assert generator(*keys[3]).random() == first[3]
