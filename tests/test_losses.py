"""The encoder's losses against independent implementations and cases small enough for pencil and paper."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from sepcl_keras.losses import Coincidence, MixIT, NTXent


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


@pytest.mark.parametrize("loss", [MixIT(max_snr=20.0), NTXent(temperature=0.3), Coincidence()])
def test_config_round_trip(loss):
    config = keras.saving.serialize_keras_object(loss)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == loss.get_config()
