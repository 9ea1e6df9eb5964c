"""The optimizer: Adam's formula by hand, the schedule of its learning rate."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.training.optimizer import Adam, learning_rates


def test_the_learning_rate_climbs_straight_then_falls_as_a_cosine():
    schedule = learning_rates(2.0, 100, 10)
    by_hand = {0: 0.2, 5: 1.1, 10: 2.0, 55: 1.01, 100: 0.02, 200: 0.02}  # 55 is half-way down: (2 + 0.02) / 2
    by_hand[40] = 0.02 + 1.98 * 0.75  # a third of the way down: (1 + cos 60°) / 2
    for step, rate in by_hand.items():
        assert to_numpy(schedule(step)) == pytest.approx(rate, rel=1e-5), step


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_is_the_formula_of_its_paper(amsgrad):
    """Kingma and Ba 2015, algorithm 1, in float64; AMSGrad divides by the largest second moment so far."""
    rng = np.random.default_rng(0)
    shapes, rates = [(3, 4), (4,), ()], [0.1, 0.03, 0.3, 0.01, 0.2, 0.05]
    variables = [keras.Variable(rng.standard_normal(shape).astype("float32")) for shape in shapes]
    expected = [to_numpy(variable).astype("float64") for variable in variables]
    firsts, seconds, largest = ([np.zeros(shape) for shape in shapes] for _ in range(3))
    optimizer = Adam(0.0, amsgrad=amsgrad)
    for step, rate in enumerate(rates, start=1):
        gradients = [(rng.standard_normal(shape) * 10.0 ** (1 - step)).astype("float32") for shape in shapes]
        optimizer.learning_rate = rate
        optimizer.apply(list(map(keras.ops.convert_to_tensor, gradients)), variables)
        for i, gradient in enumerate(gradients):
            firsts[i] = 0.9 * firsts[i] + 0.1 * gradient
            seconds[i] = 0.999 * seconds[i] + 0.001 * np.square(gradient, dtype="float64")
            largest[i] = np.maximum(largest[i], seconds[i])
            second = (largest[i] if amsgrad else seconds[i]) / (1 - 0.999**step)
            expected[i] = expected[i] - rate * firsts[i] / (1 - 0.9**step) / (np.sqrt(second) + 1e-7)
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(to_numpy(variable), value, rtol=1e-4, atol=1e-5)
