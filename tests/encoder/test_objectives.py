"""The training models: their losses, what they measure on the way, and their step, beside Keras' own."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.losses import Coincidence, NTXent, Triplet
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.encoder.objectives import ContrastiveModel, TripletModel, geometry
from sepcl_keras.separation.mixit import MixIT, SeparationModel
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.training.step import TensorFlowStep
from sepcl_keras.views.augmentation import CONSTRAINTS, SpecAugment

SEPARATOR = dict(num_basis=32, frame_length=32, frame_step=16, bottleneck=16, hidden=24, dilations=(1, 2, 4), repeats=1)


def pair_of_patches(n=6, seed=0):
    return tuple(np.random.default_rng(seed).standard_normal((2, n, 96, 64)).astype("float32"))


def contrastive(similarity=1.0, coincidence=1.0, **kwargs):
    keras.utils.set_random_seed(0)
    return ContrastiveModel(CNN14(16, width=2), similarity, coincidence, **kwargs)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, 0.5)])
def test_the_contrastive_loss_is_the_weighted_sum_of_its_tasks(weights):
    model, views = contrastive(*weights), pair_of_patches()
    outputs = model(views, training=True)
    expected = 0.0
    if weights[0]:
        expected += weights[0] * to_numpy(NTXent(0.2)(*outputs["z"]))
    if weights[1]:
        expected += weights[1] * to_numpy(Coincidence()(np.zeros((6, 6)), outputs["logits"]))
    assert to_numpy(model.compute_loss(views, y_pred=outputs)) == pytest.approx(expected, rel=1e-6)
    assert ("z" in outputs, "logits" in outputs) == (weights[0] > 0, weights[1] > 0)


def test_both_views_share_one_pass_and_its_batch_norm():
    model, views = contrastive(), pair_of_patches()
    h = model.encoder(np.concatenate(views), training=True)
    expected = model.coincidence_head(h[:6], h[6:])
    ours = model(views, training=True)["logits"]
    np.testing.assert_allclose(to_numpy(ours), to_numpy(expected), rtol=1e-4, atol=1e-5)


def test_the_custom_step_equals_gradient_descent_on_compute_loss():
    """One SGD step of `fit` against the same step spelled out here."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the written-out step is TensorFlow's")
    import tensorflow as tf

    views = pair_of_patches()
    fitted, by_hand = contrastive(), contrastive()
    fitted(views), by_hand(views)
    by_hand.set_weights(fitted.get_weights())
    fitted.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    loss = fitted.train_on_batch(views, return_dict=True)["loss"]
    with tf.GradientTape() as tape:
        expected = by_hand.compute_loss(views, y_pred=by_hand(views, training=True))
    gradients = tape.gradient(expected, by_hand.trainable_weights)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for ours, start, gradient in zip(fitted.trainable_weights, by_hand.trainable_weights, gradients, strict=True):
        np.testing.assert_allclose(ours, ops.subtract(start, 0.1 * gradient), rtol=1e-3, atol=1e-5)
    assert type(fitted).train_step is TensorFlowStep.train_step


def test_mixtures_of_mixtures_are_neighbours_summed():
    waveforms = np.random.default_rng(0).standard_normal((4, 200)).astype("float32")
    model = SeparationModel(TDCNPlusPlus(**SEPARATOR))
    channels = model(waveforms)
    np.testing.assert_allclose(to_numpy(channels).sum(axis=1), waveforms[0::2] + waveforms[1::2], atol=1e-5)
    references = np.stack([waveforms[0::2], waveforms[1::2]], axis=1)
    expected = to_numpy(MixIT()(references, channels))
    assert to_numpy(model.compute_loss(waveforms, y_pred=channels)) == pytest.approx(expected, rel=1e-6)


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_a_scaled_loss_takes_the_step_of_the_plain_one(policy):
    """Without the scale in the custom step, or with it twice, the step would be a thousand times off."""
    waveforms = 0.1 * np.random.default_rng(0).standard_normal((8, 800)).astype("float32")

    def moved(optimizer):
        keras.utils.set_random_seed(0)
        model = SeparationModel(TDCNPlusPlus(**SEPARATOR))
        model(waveforms)
        before = np.concatenate([to_numpy(v.value).ravel() for v in model.trainable_variables])
        model.compile(optimizer, jit_compile=False)
        model.train_on_batch(waveforms)
        return np.concatenate([to_numpy(v.value).ravel() for v in model.trainable_variables]) - before

    half = moved(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=1024.0))
    keras.config.set_dtype_policy("float32")
    single = moved(keras.optimizers.SGD(0.01))
    assert np.linalg.norm(half - single) < 0.05 * np.linalg.norm(single) and np.linalg.norm(single) > 1e-3


def test_what_is_watched_beside_the_losses_is_what_its_definitions_say():
    """Alignment and uniformity by the formulas of Wang and Isola's code, spelled out pair by pair."""
    model, views = contrastive(), pair_of_patches()
    outputs = model(views, training=True)
    model.compute_loss(views, y_pred=outputs)
    h = [to_numpy(view).astype("float64") for view in outputs["h"]]
    h = [view / np.linalg.norm(view, axis=1, keepdims=True) for view in h]
    apart = [[np.sum((a - b) ** 2) for i, a in enumerate(view) for b in view[i + 1 :]] for view in h]
    cosines = [a @ b for view in h for i, a in enumerate(view) for b in view[i + 1 :]]
    z = np.concatenate([to_numpy(view) for view in outputs["z"]])
    scores = keras.utils.normalize(z) @ keras.utils.normalize(z).T - 9 * np.eye(12)
    expected = {
        "alignment": np.mean([np.sum((a - b) ** 2) for a, b in zip(*h, strict=True)]),
        "uniformity": np.mean([np.log(np.mean(np.exp(-2 * np.array(squares)))) for squares in apart]),
        "spread": 1 - np.mean(cosines),
        "accuracy": np.mean(scores.argmax(axis=1) == (np.arange(12) + 6) % 12),
        "similarity": to_numpy(NTXent(0.2)(*outputs["z"])),
        "coincidence": to_numpy(Coincidence()(np.zeros((6, 6)), outputs["logits"])),
    }
    watched = {metric.name: to_numpy(metric.result()) for metric in model.metrics}
    assert set(watched) == set(expected)
    for name, value in expected.items():
        assert watched[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert model.chance(6) == pytest.approx({"similarity": np.log(11), "accuracy": 1 / 11, "coincidence": np.log(4)})
    assert set(contrastive(coincidence=0.0).chance(6)) == {"similarity", "accuracy"}


def test_spread_is_zero_in_collapse_and_one_without_direction():
    points, rng = np.ones((50, 8), "float32"), np.random.default_rng(0)
    same = geometry(points, 3 * points)
    assert [float(same[name]) for name in ("alignment", "uniformity", "spread")] == pytest.approx([0, 0, 0], abs=1e-5)
    noise = geometry(*rng.standard_normal((2, 400, 512)).astype("float32"))
    assert float(noise["spread"]) == pytest.approx(1.0, abs=0.01)
    assert float(noise["alignment"]) == pytest.approx(2.0, abs=0.05)
    assert float(noise["uniformity"]) == pytest.approx(-4.0, abs=0.05)  # all at right angles: distance 2, squared


class Mark(keras.layers.Layer):
    """An augmentation that one can see: zeros."""

    def call(self, patches, training=None):
        return patches * 0.0 if training else patches


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("augmented, marked", [("both", (0, 1)), ("first", (0,)), ("second", (1,))])
def test_the_chosen_views_are_augmented_and_the_last_pair_is_for_coincidence(number, augmented, marked):
    views = (*pair_of_patches(), *pair_of_patches(seed=1))[:number]
    model, plain = contrastive(augmentation=Mark(), augmented=augmented), contrastive()
    by_hand = [view * (index % 2 not in marked) for index, view in enumerate(views)]
    ours, expected = model(views, training=True), plain(by_hand, training=True)
    h = ops.split(plain.encoder(np.concatenate(by_hand), training=True), number)
    grid = plain.coincidence_head(h[-2], h[-1])
    for name in ("h", "z", "logits"):
        np.testing.assert_allclose(to_numpy(ops.stack(ours[name])), to_numpy(ops.stack(expected[name])), 1e-4, 1e-5)
    np.testing.assert_allclose(to_numpy(ours["logits"]), to_numpy(grid), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_numpy(ours["h"][0]), to_numpy(h[0]), rtol=1e-4, atol=1e-5)


def test_no_task_an_unknown_choice_of_views_and_a_third_array_are_refused():
    with pytest.raises(BadInput, match="similarity=0, coincidence=0: expected at least one weight above zero"):
        contrastive(similarity=0, coincidence=0)
    with pytest.raises(BadInput, match="augmented='all': expected one of both, first, second"):
        contrastive(augmented="all")
    with pytest.raises(BadInput, match="augmented=.*: expected one of both, first, second"):
        contrastive(augmented=["both"])
    model = contrastive()
    model(pair_of_patches())
    with pytest.raises(BadInput, match="3 arrays of patches; expected"):
        model((*pair_of_patches(), pair_of_patches()[0]))


def triplets(*constraints, **kwargs):
    keras.utils.set_random_seed(0)
    return TripletModel(CNN14(16, width=2), constraints, seed=0, **kwargs)


def test_proximity_alone_is_the_triplet_loss_on_the_two_views():
    model, views = triplets("proximity"), pair_of_patches()
    h = model.encoder(np.concatenate(views), training=True)
    model = triplets("proximity")  # the moving averages have moved
    outputs = model(views, training=True)
    for ours, expected in zip(outputs["h"], (h[:6], h[6:]), strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(expected), rtol=1e-4, atol=1e-5)
    expected = to_numpy(Triplet(0.1)(*outputs["h"]))
    assert to_numpy(model.compute_loss(views, y_pred=outputs)) == pytest.approx(expected, rel=1e-6)
    assert model.chance(6) == {"triplet": 0.1}
    assert float(to_numpy(model.trackers["triplet"].result())) == pytest.approx(expected, rel=1e-6)


def test_each_anchor_draws_one_of_the_constraints():
    class Seen(keras.layers.Layer):
        def call(self, x, training=None):
            return ops.reshape(x, (-1, 8 * 64))

    (anchors, others) = np.random.default_rng(0).standard_normal((2, 400, 8, 64)).astype("float32")
    model = TripletModel(Seen(), ("shift", "noise", "proximity"), seed=3)
    first, positives = (np.reshape(to_numpy(h), (-1, 8, 64)) for h in model((anchors, others), training=True)["h"])
    np.testing.assert_array_equal(first, anchors)
    near = (positives == others).all(axis=(1, 2))
    assert near.mean() == pytest.approx(1 / 3, abs=0.08)
    same = (positives[~near] == anchors[~near]).all(axis=(1, 2))  # transformed; few shifts are by nothing
    assert same.mean() < 0.05


class Flat(keras.layers.Layer):
    """An encoder that hides nothing."""

    def call(self, x, training=None):
        return ops.reshape(x, (-1, FRAMES * BANDS))


FRAMES, BANDS, CLIPS = 96, 41, 1000
SUBSETS = [*itertools.combinations(("noise", "shift", "mixing", "proximity"), 2), tuple(CONSTRAINTS)]


def drawn_strengths(constraints, seed):
    """Constraint → the strengths, in 0 to 1 and by right uniform, of the patches that drew it.

    Each patch is silence but for one cell of magnitude one, in a place of its own, so that what was done shows: the
    cell is louder, elsewhere, or a second one beside it, in the partner's place. The second moment is loud all over.
    """
    place = np.stack([np.arange(CLIPS) % FRAMES, 10 + np.arange(CLIPS) // FRAMES], axis=1)  # frame and band
    anchors = np.full((CLIPS, FRAMES, BANDS), np.log(0.01), "float32")
    anchors[np.arange(CLIPS), *place.T] = np.log(1.01)
    model = TripletModel(Flat(), constraints, seed=seed)
    _, positives = model((anchors, np.zeros_like(anchors)), training=True)["h"]
    magnitudes = np.exp(np.reshape(to_numpy(positives), anchors.shape)) - 0.01
    found = {name: [] for name in constraints}
    for index, patch in enumerate(magnitudes):
        cells = np.argwhere(patch > 0.3)
        loudness = patch[tuple(place[index])]
        if len(cells) > 2:
            found["proximity"].append(0.0)
        elif len(cells) == 2:
            (partner,) = np.flatnonzero((place[:, None] == cells).all(axis=2).any(axis=1) & (np.arange(CLIPS) != index))
            found["mixing"].append((partner - index) % CLIPS / CLIPS)
        elif loudness > 1 + 1e-5:
            found["noise"].append(math.erf((loudness - 1) / 0.5 / math.sqrt(2)))
        else:
            (cell,) = cells
            found["shift"].append((cell[0] - place[index][0]) % FRAMES / FRAMES)
    return found


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("constraints", SUBSETS, ids="-".join)
def test_which_constraint_is_drawn_says_nothing_of_its_strength(constraints, seed):
    found = drawn_strengths(constraints, seed)
    share = CLIPS / len(constraints)
    for name, strengths in found.items():
        assert abs(len(strengths) - share) < 4 * np.sqrt(share)
        if name != "proximity":
            counts, _ = np.histogram(strengths, bins=8, range=(0, 1))
            expected = len(strengths) / 8
            assert np.sum((counts - expected) ** 2 / expected) < 24.3, name  # chi-square of 7: one in a thousand
            assert min(strengths) < 0.04 and max(strengths) > 0.96


def test_a_models_draws_are_not_those_of_other_layers_of_its_seed():
    """Twenty calls each: nothing drawn by one is drawn by another, whatever the seed, at the same call or later."""
    seen = []
    for seed in range(4):
        model = TripletModel(Flat(), ("noise", "shift", "mixing"), seed=seed)
        generators = [model.generator, SpecAugment(seed=seed).generator]
        generators += [layer.generator for layer in model.transforms]
        if not seed:  # on torch, Keras' layers of several seeds share draws among themselves
            generators.append(keras.layers.Dropout(0.5, seed=seed).seed_generator)
        for generator in generators:
            seen += [to_numpy(keras.random.uniform((8,), seed=generator)).tobytes() for _ in range(20)]
    assert len(set(seen)) == len(seen) == (4 * 5 + 1) * 20


@pytest.mark.parametrize("model", [ContrastiveModel, TripletModel])
def test_views_of_different_shapes_are_refused(model):
    model, (first, second) = model(CNN14(16, width=1)), pair_of_patches()
    model((first, second))
    for other in (first[:1], first[:4], first[:, :, :63], first[..., None]):
        with pytest.raises(BadInput, match=r"views of shapes .*; expected the same for all"):
            model((first, other))


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf, None, "1"])
@pytest.mark.parametrize("name", ["similarity", "coincidence"])
def test_weights_that_are_none_are_refused(name, weight):
    with pytest.raises(BadInput, match=f"{name}=.*: expected a finite number of at least 0"):
        contrastive(**{name: weight})


@pytest.mark.parametrize("constraints", [(), ("echo",), ("noise", "noise"), None, "noise", 5, (["noise"],)])
def test_constraints_that_are_none_unknown_or_doubled_are_refused(constraints):
    with pytest.raises(BadInput, match="expected some of noise, shift, mixing, proximity, each once"):
        TripletModel(CNN14(16, width=2), constraints)
