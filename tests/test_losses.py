"""The losses against independent implementations, brute force and cases small enough for pencil and paper."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops

from sepcl_keras.files import BadInput
from sepcl_keras.losses import Coincidence, MixIT, NTXent, assignments


def golden_mixit_input():
    r = np.random.default_rng(7)
    estimates = (r.standard_normal((3, 4, 64)) * 0.1).astype("float32")
    mixtures = np.stack([estimates[:, 0] + estimates[:, 2], estimates[:, 1] + estimates[:, 3]], 1)
    return (mixtures + 0.05 * r.standard_normal((3, 2, 64))).astype("float32"), estimates


def brute_force_mixit(references, estimates, tau=1e-3):
    """Every assignment mixed, in float64."""
    references, estimates = references.astype("float64"), estimates.astype("float64")
    best = []
    for y, s in zip(references, estimates, strict=True):
        losses = []
        for owner in itertools.product((0, 1), repeat=len(s)):
            remix = np.stack([s[np.equal(owner, r)].sum(axis=0) for r in (0, 1)])
            error, energy = ((y - remix) ** 2).sum(-1), (y**2).sum(-1)
            losses.append(np.mean(10 * np.log10(error + tau * energy + 1e-8)))
        best.append(min(losses))
    return np.array(best)


def test_mixit_equals_the_golden(goldens):
    references, estimates = golden_mixit_input()
    golden = goldens["mixit"]
    np.testing.assert_allclose(
        MixIT().call(ops.convert_to_tensor(references), ops.convert_to_tensor(estimates)),
        golden["thresholded_log_mse_30dB_per_example"],
        rtol=1e-6,
    )
    remix = np.asarray(ops.matmul(MixIT().best_assignment(references, estimates), estimates))
    best_mix = np.asarray(golden["best_mix_head"])
    np.testing.assert_allclose(remix[0, 0, :6], best_mix, atol=1e-6)


@pytest.mark.parametrize("sources", [1, 2, 3, 4, 8])
def test_mixit_equals_brute_force(sources):
    r = np.random.default_rng(sources)
    estimates = r.standard_normal((4, sources, 50)).astype("float32")
    references = r.standard_normal((4, 2, 50)).astype("float32")
    references[0, 1] = 0.0  # a silent mixture
    losses = MixIT().call(ops.convert_to_tensor(references), ops.convert_to_tensor(estimates))
    np.testing.assert_allclose(losses, brute_force_mixit(references, estimates), rtol=1e-5)


def test_mixit_does_not_mind_the_order_of_channels_or_mixtures():
    references, estimates = golden_mixit_input()
    loss = float(MixIT()(references, estimates))
    assert float(MixIT()(references, estimates[:, ::-1])) == pytest.approx(loss, rel=1e-6)
    assert float(MixIT()(references[:, ::-1], estimates)) == pytest.approx(loss, rel=1e-6)


def test_mixit_by_hand():
    """Two samples: channel 0 is mixture 1, channel 1 is half of mixture 0; the errors are 0 and 1/4 of the energy."""
    references = np.float32([[[2.0, 0.0], [0.0, 4.0]]])
    estimates = np.float32([[[0.0, 4.0], [1.0, 0.0]]])
    np.testing.assert_array_equal(MixIT().best_assignment(references, estimates), [[[0, 1], [1, 0]]])
    expected = (10 * math.log10(1 + 0.001 * 4 + 1e-8) + 10 * math.log10(0.001 * 16 + 1e-8)) / 2
    assert float(MixIT()(references, estimates)) == pytest.approx(expected, rel=1e-6)


def test_mixit_tries_every_assignment_and_refuses_too_many():
    assert len({tuple(a[1]) for a in assignments(3)}) == 8
    np.testing.assert_array_equal(assignments(3).sum(axis=1), 1)
    with pytest.raises(BadInput, match="9 estimates; expected at most 8"):
        MixIT()(np.zeros((1, 2, 4)), np.zeros((1, 9, 4)))


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
