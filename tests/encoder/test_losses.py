"""The encoder's losses against independent implementations and cases small enough for pencil and paper."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.losses import Coincidence, NTXent, Triplet
from sepcl_keras.separation.mixit import MixIT


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5, 1.0])
def test_ntxent_equals_the_golden(goldens, temperature):
    z = np.random.default_rng(11).standard_normal((2, 6, 5)).astype("float32")
    expected = goldens["ntxent"]["values"][str(temperature)]
    assert float(NTXent(temperature)(z[0], z[1])) == pytest.approx(expected, rel=1e-6)


def test_ntxent_by_hand():
    """N = 2 in the plane: each anchor meets its positive at cosine 1 and two negatives at cosine 0."""
    z = np.float32([[1, 0], [0, 3]])
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    np.testing.assert_allclose(NTXent(0.5).call(z, 2 * z), [expected] * 4, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ntxent_of_identical_rows_is_chance_and_finite_at_low_temperature(dtype):
    rows = ops.cast(np.ones((6, 5)), dtype)
    assert float(NTXent(0.01)(rows, rows)) == pytest.approx(math.log(11), rel=1e-6)


def test_coincidence_equals_the_golden(goldens):
    golden = goldens["coincidence_prediction"]
    logits = np.random.default_rng(6).standard_normal((6, 6))
    assert float(Coincidence()(np.zeros((6, 6)), logits)) == pytest.approx(golden["loss"], rel=1e-6)
    assert float(Coincidence()(np.zeros((6, 6)), np.zeros((6, 6)))) == pytest.approx(2 * math.log(2), rel=1e-6)


def test_coincidence_by_hand():
    """Diagonal at probability 3/4; of the six others one row at 1/2, the rest near 0."""
    logits = np.full((3, 3), -60.0)
    logits[0] = 0.0
    np.fill_diagonal(logits, math.log(3))
    expected = -math.log(0.75) + 2 * math.log(2) / 6
    assert float(Coincidence()(np.zeros((3, 3)), logits)) == pytest.approx(expected, rel=1e-5)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def nt_xent_by_numpy(z_a, z_b, temperature):
    """Each anchor by itself, in double precision: minus the logarithm of the positive's share."""
    z = unit(np.concatenate([z_a, z_b]).astype(np.float64))
    views, losses = len(z), []
    for anchor in range(views):
        others = np.delete(np.arange(views), anchor)
        logits = z[others] @ z[anchor] / temperature
        positive = logits[others == (anchor + views // 2) % views][0]
        losses.append(np.log(np.sum(np.exp(logits - logits.max()))) + logits.max() - positive)
    return np.mean(losses)


def coincidence_by_numpy(logits):
    logits = logits.astype(np.float64)
    own = np.eye(len(logits), dtype=bool)
    return np.mean(np.logaddexp(0, -logits[own])) + np.mean(np.logaddexp(0, logits[~own]))


def triplet_by_numpy(anchors, positives, margin):
    anchors, positives = unit(anchors.astype(np.float64)), unit(positives.astype(np.float64))
    losses = []
    for index, anchor in enumerate(anchors):
        near = np.sum((anchor - positives[index]) ** 2)
        distances = np.sum((np.delete(positives, index, axis=0) - anchor) ** 2, axis=1)
        farther = distances[distances > near]
        losses.append(max(0, near - (farther.min() if len(farther) else distances.max()) + margin))
    return np.mean(losses)


def difference_quotients(function, *arrays, step=1e-6):
    """The gradient of a function of arrays, one entry at a time."""
    arrays = [x.astype(np.float64) for x in arrays]
    gradients = [np.zeros_like(x) for x in arrays]
    for array, gradient in zip(arrays, gradients):
        for index in np.ndindex(array.shape):
            kept, values = array[index], []
            for sign in (1, -1):
                array[index] = kept + sign * step
                values.append(function(*arrays))
            array[index], gradient[index] = kept, (values[0] - values[1]) / (2 * step)
    return gradients


def assert_value_and_gradient(result, expected, gradients, tolerance=1e-4):
    value, ours = result
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-4)
    for gradient, theirs in zip(ours, gradients, strict=True):
        np.testing.assert_allclose(gradient, theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("temperature, pairs", [(0.2, 7), (0.01, 7), (0.2, 2), (0.01, 2)])
def test_ntxent_and_its_gradient_equal_a_loop_in_double_precision(temperature, pairs, value_and_gradients):
    z = np.random.default_rng(pairs).standard_normal((2, pairs, 4)).astype("float32")
    function = lambda z_a, z_b: nt_xent_by_numpy(z_a, z_b, temperature)  # noqa: E731
    # At temperature 0.01 float32's last digit of a cosine is already a hundred times as much of a logit.
    assert_value_and_gradient(
        value_and_gradients(NTXent(temperature), *z), function(*z), difference_quotients(function, *z), 1e-3
    )


def test_coincidence_and_its_gradient_equal_numpy(value_and_gradients):
    logits = 3 * np.random.default_rng(0).standard_normal((6, 6)).astype("float32")
    function = lambda logits: Coincidence()(np.zeros((6, 6)), logits)  # noqa: E731
    assert_value_and_gradient(
        value_and_gradients(function, logits),
        coincidence_by_numpy(logits),
        difference_quotients(coincidence_by_numpy, logits),
    )


def test_coincidence_of_sure_logits_is_finite_and_keeps_what_is_small(value_and_gradients):
    """Positives at 10,000 beside negatives at −5: the loss is the negatives' alone, 0.0067."""
    logits = np.where(np.eye(5, dtype=bool), 1e4, -5.0).astype("float32")
    for sign in (1, -1):
        value, (gradient,) = value_and_gradients(lambda x: Coincidence()(ops.zeros_like(x), x), sign * logits)
        assert value == pytest.approx(coincidence_by_numpy(sign * logits), rel=1e-4)
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("pairs", [2, 3, 9, 40])
def test_triplet_and_its_gradient_equal_brute_force(pairs, value_and_gradients):
    r = np.random.default_rng(pairs)
    anchors = r.standard_normal((pairs, 5)).astype("float32")
    positives = anchors + r.standard_normal((pairs, 5)).astype("float32")  # some positives near, some farthest of all
    function = lambda a, p: triplet_by_numpy(a, p, 0.3)  # noqa: E731
    assert_value_and_gradient(
        value_and_gradients(Triplet(0.3), anchors, positives),
        function(anchors, positives),
        difference_quotients(function, anchors, positives),
        1e-3,
    )


def test_triplet_by_hand():
    """In the plane, squared distance 2 − 2 cos. The second anchor's positive is opposite to it: none is farther."""
    circle = lambda *degrees: np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)  # noqa: E731
    anchors, positives = circle(0, 90, 0), circle(30, 270, 40)
    distance = lambda degrees: 2 - 2 * math.cos(math.radians(degrees))  # noqa: E731
    expected = [
        distance(30) - distance(40) + 0.1,  # 40° is the closest of those beyond 30°
        4 - distance(60) + 0.1,  # 30° is farther away than 40°
        distance(40) - distance(90) + 0.1,  # 30° is closer than the positive and left out, 270° remains: no loss
    ]
    np.testing.assert_allclose(Triplet(0.1).call(anchors, 5 * positives), np.maximum(expected, 0), atol=1e-6)


def test_triplet_of_identical_rows_is_the_margin(value_and_gradients):
    rows = np.tile(np.float32([[0.3, -2.0, 0.7]]), (6, 1))
    value, gradients = value_and_gradients(Triplet(margin=0.2), rows, rows)
    assert value == pytest.approx(0.2, abs=1e-6)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize("loss", [NTXent(0.01), NTXent(0.2), Triplet()])
def test_rows_of_zeros_give_finite_values_and_gradients(loss, value_and_gradients):
    z = np.random.default_rng(0).standard_normal((2, 5, 4)).astype("float32")
    z[0, 1] = z[1, 1] = z[1, 3] = 0.0
    for views in (z, np.zeros_like(z)):
        value, gradients = value_and_gradients(loss, *views)
        assert np.isfinite(value) and all(np.all(np.isfinite(gradient)) for gradient in gradients)
    everything_alike = math.log(9) if isinstance(loss, NTXent) else loss.margin
    assert value == pytest.approx(everything_alike, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("loss", [NTXent(0.01), NTXent(0.2), Triplet(), Coincidence()])
def test_half_precision_costs_nothing_but_the_rounding_of_the_input(loss, dtype, value_and_gradients):
    """By `call` too, which Keras does not cast for: sums of 300² small numbers in half precision would be far off."""
    half = ops.cast(20 * np.random.default_rng(0).standard_normal((2, 300, 300)), dtype)
    full = ops.cast(half, "float32")
    losses = loss.call(half[0], half[1])
    assert keras.backend.standardize_dtype(losses.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(losses), ops.convert_to_numpy(loss.call(*full)), rtol=1e-6)
    (_, (ours,)), (_, (theirs,)) = (
        value_and_gradients(lambda x: ops.mean(loss.call(x[0], x[1])), each) for each in (half, full)
    )
    assert np.all(np.isfinite(ours)) and np.abs(theirs).max() > 0
    np.testing.assert_allclose(ours, theirs, rtol=0.01, atol=1e-4 * np.abs(theirs).max() + 1e-7)


def test_losses_of_4096_pairs_are_right(value_and_gradients):
    """Against what is known in closed form: each pair on one of eight axes, so that all cosines are zero or one."""
    pairs = 4096
    z = np.zeros((pairs, 8), "float32")
    z[np.arange(pairs), np.arange(pairs) % 8] = 1.0
    same, other = 2 * pairs // 8 - 1, 2 * pairs * 7 // 8
    value, gradients = value_and_gradients(NTXent(0.1), z, z)
    assert value == pytest.approx(math.log(same * math.exp(10) + other) - 10, rel=1e-5)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert float(Triplet()(z, z)) == 0.0  # positives at distance zero, the closest of the farther ones at two
    assert float(Coincidence()(z[:, :1], np.zeros((pairs, pairs), "float32"))) == pytest.approx(
        2 * math.log(2), rel=1e-5
    )


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="other backends round no factors, or not by choice")
@pytest.mark.parametrize("loss", [NTXent(), Triplet()])
def test_similarities_and_their_gradient_are_full_products_on_a_gpu_too(loss):
    import jax

    z = np.zeros((4, 3), "float32")
    program = str(jax.make_jaxpr(jax.value_and_grad(lambda z: loss(z, z)))(z))
    assert program.count("dot_general") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0


@pytest.mark.parametrize("temperature", [0, -0.1, math.nan, math.inf, None])
def test_a_temperature_not_above_zero_is_refused(temperature):
    with pytest.raises(BadInput, match="NTXent: temperature=.*: expected a finite number above 0"):
        NTXent(temperature)


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf, None])
def test_a_margin_below_zero_is_refused(margin):
    with pytest.raises(BadInput, match="Triplet: margin=.*: expected a finite number of at least 0"):
        Triplet(margin)


def test_shapes_that_make_no_pairs_are_refused():
    one, two, odd = (np.zeros(shape, "float32") for shape in ((1, 3), (2, 3), (2, 4)))
    for loss in (NTXent(), Triplet()):
        for first, second in ((one, one), (one, two), (two, odd), (two[0], two[0])):
            with pytest.raises(BadInput, match=r"expected \(N, d\) twice, two pairs or more"):
                loss.call(first, second)
    for logits in (one, np.zeros((1, 1), "float32"), two):
        with pytest.raises(BadInput, match=r"Coincidence: logits of shape .*; expected \(N, N\), two pairs or more"):
            Coincidence().call(logits, logits)


@pytest.mark.parametrize("loss", [MixIT(max_snr=20.0), NTXent(temperature=0.3), Coincidence(), Triplet(0.2)])
def test_config_round_trip(loss):
    config = keras.saving.serialize_keras_object(loss)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == loss.get_config()
