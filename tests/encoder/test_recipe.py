"""What the recipes draw: each from a stream of its own."""

import dataclasses
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from keras.random import SeedGenerator

from sepcl_keras.core.draws import stream
from sepcl_keras.core.files import read_json
from sepcl_keras.core.folders import CHECKPOINT
from sepcl_keras.course.profiles import PROFILES
from sepcl_keras.course.slides import read_rows
from sepcl_keras.encoder import recipe as encoders
from sepcl_keras.encoder.embedding import load_encoder
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.evaluation import classifiers
from sepcl_keras.evaluation.classifiers import label_curve, shallow_classifier
from sepcl_keras.evaluation.controls import random_projection
from sepcl_keras.evaluation.retrieval import query_by_example_map
from sepcl_keras.separation import recipe as separators
from sepcl_keras.training.loop import Batches
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.views.stored import Views, write_views

CLIPS = 12
PROFILE = SimpleNamespace(
    separator=dict(num_basis=8, frame_length=8, frame_step=4, bottleneck=4, hidden=4, dilations=(1,), repeats=1),
    separator_start="random", separator_seconds=1, sample_rate=100, separator_batch=4, separator_learning_rate=1e-3,
    snapshot_steps={"S2": 1}, embedding_dim=8, width=1, batch_size=2, supervised_steps=1, learning_rate=1e-3,
)  # fmt: skip


def test_separator_and_supervised_encoder_of_one_seed_do_not_draw_the_same_clips(monkeypatch, tmp_path):
    drawn = {}

    def fit(model, batches, steps, rate, loss, callbacks, *arguments, **options):
        data = batches(50)
        for callback in callbacks if isinstance(callbacks[0], encoders.BestEpoch) else ():
            callback.set_model(model)
            callback.on_epoch_end(0)
        drawn[type(model).__name__] = np.concatenate([data[step][0].reshape(4, -1)[:, 0] for step in range(50)])

    monkeypatch.setattr(encoders, "fit", fit)
    monkeypatch.setattr(separators, "fit", fit)
    numbered = np.arange(CLIPS, dtype="float32")
    separators.train_separator(np.repeat(numbered[:, None], 100, axis=1), PROFILE, 0, tmp_path)
    given = np.tile(numbered[:, None, None], (1, 100, 64)), np.eye(CLIPS)
    encoders.train_supervised(dict.fromkeys(("train", "validation"), given), PROFILE, 0)
    first, second = drawn.values()
    assert np.mean(first == second) < 0.2  # one in twelve by chance


def given():
    """Clips of two patches; those for validation have the labels of the first patch alone, and one of them is wrong."""
    rng, splits = np.random.default_rng(0), {}
    for split, clips in (("train", 16), ("validation", 10)):
        labels = np.eye(2, dtype="float32")[np.arange(clips) % 2]
        log_mel = rng.standard_normal((clips, 200, 64)).astype("float16")
        log_mel[::2, :96, :20] += 3
        splits[split] = log_mel, labels
    splits["validation"][1][3] = (1, 0)
    return splits


TRAINING = dataclasses.replace(
    PROFILES["smoke"], embedding_dim=8, width=1, batch_size=8, supervised_steps=100, learning_rate=1e-2
)


class Watched(keras.callbacks.Callback):
    """The weights of encoder and head at the ends of epochs; interrupts once, in an epoch of this number."""

    def __init__(self, stop=None):
        super().__init__()
        self.epochs, self.stop = {}, stop

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.stop:
            self.stop = None
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        encoder = next(layer for layer in self.model.layers if isinstance(layer, CNN14))
        self.epochs[epoch] = encoder.get_weights(), self.model.layers[-1].get_weights()


def train(monkeypatch, watched, seed, folder=None):
    fit = encoders.fit

    def watching(*arguments, **options):
        *rest, callbacks = arguments
        return fit(*rest, [*callbacks, watched], **options, show=False)

    with monkeypatch.context() as patch:
        patch.setattr(encoders, "fit", watching)
        return encoders.train_supervised(given(), TRAINING, seed, folder)


def validation_losses(watched):
    """By other copies of the networks, from the probabilities of their clips."""
    log_mel, labels = given()["validation"]
    losses, encoder = {}, encoders.new_encoder(8, 1, 9)
    for epoch, (weights, (kernel, bias)) in watched.epochs.items():
        encoder.set_weights(weights)
        patches = [to_numpy(encoder(log_mel[:, i : i + 96].astype("float32"))) for i in (0, 96)]
        logits = np.mean([np.maximum(h, 0).astype("float64") @ kernel + bias for h in patches], axis=0)
        chances = 1 / (1 + np.exp(-logits))
        losses[epoch] = -np.mean(np.where(labels, np.log(chances), np.log(1 - chances)))
    return losses


@pytest.fixture(scope="module")
def whole():
    """A training of the first seed whose best epoch is neither the first nor the last, else tests would tell nothing;
    which seed that is depends on how the processor rounds."""
    for seed in range(8):
        with pytest.MonkeyPatch.context() as monkeypatch:
            watched = Watched()
            encoder, history = train(monkeypatch, watched, seed)
        losses = validation_losses(watched)
        if min(losses, key=losses.get) not in (0, 3):
            break
    del history["clips_per_second"]
    return encoder.get_weights(), history, watched, losses, seed


@pytest.mark.once
def test_the_supervised_encoder_is_that_of_the_epoch_with_the_least_validation_loss(whole):
    weights, history, watched, losses, _ = whole
    best = min(losses, key=losses.get)
    assert len(losses) == len(history["loss"]) == 4 and best not in (0, 3), "else the test tells nothing"
    for ours, expected in zip(weights, watched.epochs[best][0], strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.once
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_supervised_training_that_goes_on_knows_its_best_epoch(whole, monkeypatch, tmp_path, stop):
    """Also where it was stopped between the best epoch and its checkpoint, and where nothing is left to train."""
    weights, history, _, losses, seed = whole
    best = min(losses, key=losses.get)
    watched = Watched(stop)
    with pytest.raises(KeyboardInterrupt):
        train(monkeypatch, watched, seed, tmp_path)
    shutil.copy(tmp_path / CHECKPOINT, tmp_path / "kept")
    for _ in range(2):  # the second time all is done
        encoder, continued = train(monkeypatch, watched, seed, tmp_path)
        del continued["clips_per_second"]
        assert continued == history
        for ours, expected in zip(encoder.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, expected)
    assert read_json(tmp_path / "best.json", dict) == {"validation_loss": pytest.approx(losses[best]), "epoch": best}
    shutil.move(tmp_path / "kept", tmp_path / CHECKPOINT)  # older than the best epoch, perhaps
    for ours, expected in zip(train(monkeypatch, watched, seed, tmp_path)[0].get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, expected)
    for ours, expected in zip(load_encoder(tmp_path / "encoder.keras").get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, expected)


class Halves(keras.Model):
    """Two channels that are halves of the mixture."""

    def __init__(self):
        super().__init__()
        self.config = {"num_sources": 2}

    def call(self, mixture):
        return keras.ops.stack([mixture / 2, mixture / 2], axis=1)


class Stopped(Exception):
    pass


def model_of(monkeypatch, row, seed):
    """The built model that a row, or the supervised control, would train."""

    def fit(model, batches, *arguments, **options):
        patches = np.zeros((2, 96, 64), "float32")
        model(patches if row is None else (patches, patches), training=False)
        raise Stopped(model)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(encoders, "fit", fit)
        if row is None:
            encoders.train_supervised(given(), TRAINING, seed)
        augmentation, constraints = row.augmentation, row.constraints
        encoders.pretrain(None, 8, 1, 1, 1e-3, seed, augmentation=augmentation, constraints=constraints)
    return stopped.value.args[0]


@pytest.mark.parametrize("name", ["S2∨F∨N joint", "triplet joint", None])
def test_generators_and_initialisers_of_a_model_start_apart_and_apart_from_the_next_seeds(monkeypatch, name):
    starts, number = [], 0
    for seed in (1, 2):
        model = model_of(monkeypatch, name and read_rows()[name], seed)
        layers = model._flatten_layers()
        generators = {id(v): v for layer in layers for v in vars(layer).values() if isinstance(v, SeedGenerator)}
        states = [int(to_numpy(generator.state.value)[0]) for generator in generators.values()]
        drawn = [v for layer in layers for v in vars(layer).values() if isinstance(v, keras.initializers.Initializer)]
        seeds = [int(each.seed) for each in {id(v): v for v in drawn}.values() if hasattr(each, "seed")]
        starts += states + seeds
        number = len(states), len(seeds)
        kernels = [to_numpy(v.value) for v in model.trainable_variables if len(v.shape) > 1]
        starts += [float(kernel.ravel()[0]) for kernel in kernels]
    assert number[0] == (4 if name == "triplet joint" else 1) and number[1] >= (1 if name is None else 0)
    assert len(set(starts)) == len(starts)


def test_streams_of_one_run_and_of_the_next_seed_begin_with_other_numbers(monkeypatch, tmp_path):
    rng, default_rng, begun = np.random.default_rng(0), np.random.default_rng, []
    mixtures = rng.standard_normal((8, 20_000)).astype("float32")
    write_views(tmp_path, mixtures, {"N": Halves()})
    views, labels = Views(tmp_path), np.eye(2)[np.arange(8) % 2]
    h = rng.standard_normal((8, 1, 3))

    def recorded(seed=None):
        begun.append(default_rng(seed).random())
        return default_rng(seed)

    def composition(seed):
        ViewPairs(views, "composition", batch_size=4, seed=seed)._read(0)

    def channels(seed):
        ViewPairs(views, "mix-chan", ("N",), batch_size=4, seed=seed, reject_quiet=True)._read(0)

    uses = {
        composition: 4,  # order, draws, in place of quiet ones and what is composed
        lambda seed: shallow_classifier(h, labels, h, labels, h, seed, hidden=2): 1,
        lambda seed: label_curve(h[:, 0], labels, h[:, 0], labels, (1,), seed): 5,
        lambda seed: query_by_example_map(h[:, 0], labels, seed, resamples=2): 3,
        lambda seed: random_projection(views.log_mel[:, 0], 2, seed): 1,
        lambda seed: Batches(mixtures, 9, 2, 1, stream(seed, "supervised"))[0]: 1,
        lambda seed: Batches(mixtures, 9, 2, 1, stream(seed, "separator"))[0]: 1,
    }
    monkeypatch.setattr(classifiers, "MOST_EPOCHS", 1)
    monkeypatch.setattr(np.random, "default_rng", recorded)
    found = []
    for seed in (1, 2):
        for use, number in uses.items():
            use(seed)
            assert len(begun) == number
            found += begun
            begun.clear()
    assert len(set(found)) == len(found) == 2 * sum(uses.values())
    channels(1)
    assert set(begun) < set(found)  # rows of one seed share what they may: the same order, crops and channels
