"""MixIT against every assignment mixed in float64, an independent implementation, and by hand."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops

from sepcl_keras.core.checks import BadInput
from sepcl_keras.separation.mixit import MixIT, assignments


def golden_mixit_input():
    r = np.random.default_rng(7)
    estimates = (r.standard_normal((3, 4, 64)) * 0.1).astype("float32")
    mixtures = np.stack([estimates[:, 0] + estimates[:, 2], estimates[:, 1] + estimates[:, 3]], 1)
    return (mixtures + 0.05 * r.standard_normal((3, 2, 64))).astype("float32"), estimates


def decibel(reference, remix, tau=1e-3):
    return 10 * np.log10(np.sum((reference - remix) ** 2, -1) + tau * np.sum(reference**2, -1) + 1e-8)


def mean_absolute_error(reference, remix):
    return np.mean(np.abs(reference - remix), axis=-1)


def brute_force(references, estimates, loss=decibel):
    """Losses (clips, assignments) of every assignment mixed in float64, and the assignments in the same order."""
    references, estimates = references.astype("float64"), estimates.astype("float64")
    owners = np.array(list(itertools.product((0, 1), repeat=estimates.shape[1])))
    table = np.stack([owners == 0, owners == 1], axis=1).astype("float64")
    losses = [[loss(y, a @ s).mean() for a in table] for y, s in zip(references, estimates, strict=True)]
    return np.array(losses), table


def random_case(sources, seed, clips=4, samples=50):
    r = np.random.default_rng((sources, seed))
    return [r.standard_normal((clips, n, samples)).astype("float32") for n in (2, sources)]


def hidden_sources(sources, seed, noise, samples=1000):
    """References of sources whose levels spread over 60 dB; as estimates the sources, errors `noise` dB below each."""
    r = np.random.default_rng((sources, seed))
    hidden = r.standard_normal((4, sources, samples)) * 10 ** (-r.uniform(0, 60, (4, sources, 1)) / 20)
    owner = r.integers(0, 2, (4, 1, sources))
    references = np.concatenate([owner == 0, owner == 1], axis=1) @ hidden
    estimates = hidden * (1 + 10 ** (-noise / 20) * r.standard_normal(hidden.shape))
    return references.astype("float32"), estimates.astype("float32")


def to_numpy(*tensors):
    return [keras.ops.convert_to_numpy(tensor) for tensor in tensors]


def test_equals_the_golden(goldens):
    references, estimates = golden_mixit_input()
    golden = goldens["mixit"]
    np.testing.assert_allclose(
        *to_numpy(MixIT().call(references, estimates)), golden["thresholded_log_mse_30dB_per_example"], rtol=1e-6
    )
    remixes, _ = to_numpy(*MixIT().best_remix(references, estimates))
    np.testing.assert_allclose(remixes[0, 0, :6], golden["best_mix_head"], atol=1e-6)


@pytest.mark.parametrize("sources", [1, 2, 3, 4, 5, 8])
def test_equals_brute_force(sources):
    for seed in range(3):
        references, estimates = random_case(sources, seed)
        references[0, 1] = 0.0  # a silent mixture
        losses, table = brute_force(references, estimates)
        np.testing.assert_allclose(*to_numpy(MixIT().call(references, estimates)), losses.min(axis=1), rtol=1e-5)
        remixes, assignment = to_numpy(*MixIT().best_remix(references, estimates))
        np.testing.assert_array_equal(assignment, table[losses.argmin(axis=1)])
        np.testing.assert_allclose(remixes, assignment @ estimates, atol=1e-5)


@pytest.mark.parametrize("noise", [20, 60, 100])
@pytest.mark.parametrize("sources", [2, 5, 8])
def test_the_gram_matrix_costs_no_loss_near_perfect_estimates(sources, noise):
    """|y|² − 2a·yS′ + aSS′a′ cancels there; the threshold of 30 dB keeps what is left above float32's noise."""
    for seed in range(3):
        references, estimates = hidden_sources(sources, seed, noise)
        losses, _ = brute_force(references, estimates)
        (ours,) = to_numpy(MixIT().call(references, estimates))
        np.testing.assert_allclose(ours, losses.min(axis=1), atol=0.01)  # dB


def test_loud_estimates_that_cancel_each_other_cost_little():
    """A pair 10 dB above everything else, of which only the sum counts: the hardest case for the Gram matrix."""
    for seed in range(4):
        references, estimates = hidden_sources(8, seed, 40)
        loud = 3 * np.random.default_rng(seed).standard_normal((4, 1, 1000)).astype("float32")
        estimates = np.concatenate([estimates[:, :6], estimates[:, 6:7] + loud, -loud], axis=1)
        losses, _ = brute_force(references, estimates)
        (ours,) = to_numpy(MixIT().call(references, estimates))
        np.testing.assert_allclose(ours, losses.min(axis=1), atol=0.5)  # dB; 0.08 measured


def test_permuted_estimates_give_the_same_loss_and_the_permuted_assignment():
    references, estimates = random_case(6, 0)
    order = np.random.default_rng(0).permutation(6)
    (_, one), (_, two) = MixIT().best_remix(references, estimates), MixIT().best_remix(references, estimates[:, order])
    np.testing.assert_array_equal(*to_numpy(ops.take(one, order, axis=2), two))
    losses = MixIT().call(references, estimates), MixIT().call(references, estimates[:, order])
    np.testing.assert_allclose(*to_numpy(*losses), rtol=1e-6)


def test_swapped_references_give_the_same_loss_and_the_swapped_remixes():
    references, estimates = random_case(6, 1)
    one, two = MixIT().best_remix(references, estimates), MixIT().best_remix(references[:, ::-1], estimates)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(*to_numpy(ops.flip(a, axis=1), b), rtol=1e-6)
    losses = MixIT().call(references, estimates), MixIT().call(references[:, ::-1], estimates)
    np.testing.assert_allclose(*to_numpy(*losses), rtol=1e-6)


def test_by_hand():
    """Two samples: channel 0 is mixture 1, channel 1 is half of mixture 0; the errors are 0 and 1/4 of the energy."""
    references = np.float32([[[2.0, 0.0], [0.0, 4.0]]])
    estimates = np.float32([[[0.0, 4.0], [1.0, 0.0]]])
    remixes, assignment = to_numpy(*MixIT().best_remix(references, estimates))
    np.testing.assert_array_equal(assignment, [[[0, 1], [1, 0]]])
    np.testing.assert_array_equal(remixes, [[[1, 0], [0, 4]]])
    expected = (10 * math.log10(1 + 0.001 * 4 + 1e-8) + 10 * math.log10(0.001 * 16 + 1e-8)) / 2
    assert float(MixIT()(references, estimates)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("owner", [0, 1])
def test_all_estimates_may_go_to_one_mixture_beside_a_silent_one(owner):
    _, estimates = random_case(4, 2)
    references = np.zeros((4, 2, 50), "float32")
    references[:, owner] = estimates.sum(axis=1)
    _, assignment = to_numpy(*MixIT().best_remix(references, estimates))
    assert (assignment[:, owner] == 1).all() and not assignment[:, 1 - owner].any()
    expected = (10 * np.log10(1e-3 * np.sum(references**2, axis=(1, 2)) + 1e-8) - 80) / 2  # −80 dB: the stabiliser
    np.testing.assert_allclose(*to_numpy(MixIT().call(references, estimates)), expected, rtol=1e-5)


def test_the_gradient_is_that_of_the_winner_mixed_directly(value_and_gradients):
    references, estimates = random_case(5, 3)
    _, (gradient,) = value_and_gradients(lambda s: ops.mean(MixIT().call(references, s)), estimates)
    losses, table = brute_force(references, estimates)
    winner = table[losses.argmin(axis=1)]  # (clips, 2, sources)
    y, s = references.astype("float64"), estimates.astype("float64")
    error = winner @ s - y
    scale = (error**2).sum(-1) + 1e-3 * (y**2).sum(-1) + 1e-8
    expected = winner.transpose(0, 2, 1) @ (10 / math.log(10) * 2 * error / scale[..., None]) / 2 / len(y)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    # and the formula is the slope of the exact search itself
    step = 1e-5 * np.random.default_rng(0).standard_normal(s.shape)
    slope = [brute_force(y, s + sign * step)[0].min(axis=1).mean() for sign in (1, -1)]
    assert np.sum(expected * step) == pytest.approx((slope[0] - slope[1]) / 2, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_taken_to_float32_before_anything_is_summed(dtype):
    references, estimates = random_case(4, 4)
    half = ops.cast(50 * estimates, dtype)  # energies beyond float16's 65,504
    losses, _ = brute_force(50 * references, *to_numpy(ops.cast(half, "float32")))
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        ours = MixIT().call(50 * references, half)
        mean = MixIT()(50 * references, half)
    finally:
        keras.config.set_dtype_policy(policy)
    assert keras.backend.standardize_dtype(ours.dtype) == keras.backend.standardize_dtype(mean.dtype) == "float32"
    np.testing.assert_allclose(*to_numpy(ours), losses.min(axis=1), rtol=1e-5)
    assert float(mean) == pytest.approx(losses.min(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("sources", [1, 2, 5, 8])
def test_another_base_loss_equals_brute_force(sources, value_and_gradients):
    references, estimates = random_case(sources, 5)
    references, estimates = np.concatenate([references, references[:, ::-1]]), np.concatenate([estimates, estimates])
    mixit = MixIT(base_loss=keras.losses.mean_absolute_error)
    losses, table = brute_force(references, estimates, mean_absolute_error)
    np.testing.assert_allclose(*to_numpy(mixit.call(references, estimates)), losses.min(axis=1), rtol=1e-5)
    winner = table[losses.argmin(axis=1)]
    np.testing.assert_array_equal(to_numpy(*mixit.best_remix(references, estimates))[1], winner)
    _, (gradient,) = value_and_gradients(lambda s: ops.mean(mixit.call(references, s)), estimates)
    expected = winner.transpose(0, 2, 1) @ np.sign(winner @ estimates - references) / (2 * 50 * len(references))
    np.testing.assert_allclose(gradient, expected, atol=1e-7)


def test_no_assignment_but_the_winner_is_mixed():
    """No tensor on the way is larger than the estimates themselves, though there are 256 assignments."""
    references, estimates = random_case(8, 6, samples=16_000)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(MixIT().call).get_concrete_function(*map(tf.constant, (references, estimates))).graph
        sizes = [tensor.shape.num_elements() for each in graph.get_operations() for tensor in each.outputs]
    elif keras.backend.backend() == "jax":
        import jax

        equations = jax.make_jaxpr(MixIT().call)(references, estimates).eqns
        sizes = [variable.aval.size for equation in equations for variable in equation.outvars]
    else:
        pytest.skip("torch keeps no graph that could be asked")
    assert len(sizes) > 10 and max(sizes) == estimates.size


@keras.saving.register_keras_serializable(package="tests")
def squared_error(references, estimates):
    return ops.sum(ops.square(references - estimates), axis=-1)


@pytest.mark.parametrize(
    "base_loss",
    [None, squared_error, keras.losses.mean_absolute_error, keras.losses.MeanSquaredError(reduction=None)],
    ids=["none", "registered", "function of Keras", "object of Keras"],
)
def test_config_round_trip(base_loss):
    loss = MixIT(max_snr=20.0, base_loss=base_loss)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert copy.get_config() == loss.get_config() and copy.max_snr == 20.0
    references, estimates = random_case(3, 7)
    np.testing.assert_array_equal(*to_numpy(copy.call(references, estimates), loss.call(references, estimates)))


def test_saving_refuses_a_base_loss_that_could_not_be_read_back():
    def mine(references, estimates):
        return ops.sum(references - estimates, axis=-1)

    for base_loss, name in ((mine, "mine"), (lambda y, s: mine(y, s), "<lambda>")):
        with pytest.raises(BadInput, match=f"base_loss {name}; expected one registered"):
            keras.saving.serialize_keras_object(MixIT(base_loss=base_loss))


def test_tries_every_assignment_and_refuses_too_many():
    assert len({tuple(a[1]) for a in assignments(3)}) == 8
    np.testing.assert_array_equal(assignments(3).sum(axis=1), 1)
    with pytest.raises(BadInput, match="9 estimates; expected at most 8"):
        MixIT()(np.zeros((1, 2, 4)), np.zeros((1, 9, 4)))


@pytest.mark.parametrize("max_snr", [None, float("nan"), float("inf"), "30"])
def test_a_threshold_that_is_no_number_is_refused(max_snr):
    with pytest.raises(BadInput, match="MixIT: max_snr=.*: expected a finite number"):
        MixIT(max_snr)


@pytest.mark.parametrize(
    "shapes",
    [((1, 3, 8), (1, 4, 8)), ((1, 2, 9), (1, 4, 8)), ((2, 8), (4, 8)), ((1, 2, 8), (3, 4, 8)), ((3, 2, 8), (1, 4, 8))],
)
def test_other_shapes_are_refused(shapes):
    with pytest.raises(BadInput, match=r"expected \(clips, 2, samples\) and \(clips, sources, samples\)"):
        MixIT().call(*map(np.zeros, shapes))
