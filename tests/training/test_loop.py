"""Training: what the models learn, by which schedule, and that one seed gives one run."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as to_numpy
from stopped_training import Neighbours

from sepcl_keras.core.backend import feed
from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.draws import stream
from sepcl_keras.course.profiles import PROFILES
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.encoder.objectives import ContrastiveModel
from sepcl_keras.encoder.recipe import pretrain, train_supervised
from sepcl_keras.separation.mixit import MixIT, SeparationModel
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.separation.recipe import Snapshots, train_separator
from sepcl_keras.training.loop import Batches, fit
from sepcl_keras.training.step import TensorFlowStep
from sepcl_keras.views.augmentation import SpecAugment

SEPARATOR = dict(num_basis=32, frame_length=32, frame_step=16, bottleneck=16, hidden=24, dilations=(1, 2, 4), repeats=1)


def test_pretraining_learns_to_tell_clips_apart():
    """Clips that are constant stripes at a band of their own: soon each view finds its partner."""
    bands = np.zeros((8, 96, 64), "float32")
    for clip in range(8):
        bands[clip, :, 8 * clip : 8 * clip + 8] = 3.0

    class Pairs(keras.utils.PyDataset):
        def __len__(self):
            return 20

        def __getitem__(self, step):
            noise = np.random.default_rng(step).standard_normal((2, 8, 96, 64))
            return ((*(bands + noise).astype("float32"),),)

    encoder, history = pretrain(
        lambda steps: Pairs(), 16, 2, 40, 3e-3, 0, similarity=1.0, coincidence=1.0, augmentation=None, show=False
    )
    assert history["similarity"][-1] < 0.6 * np.log(15) and history["coincidence"][-1] < 0.7 * 2 * np.log(2)
    assert history["accuracy"][-1] > 0.6 and len(history["first_losses"]) == 10
    h = to_numpy(ops.normalize(encoder(bands), axis=-1))
    assert (h @ h.T - 2 * np.eye(8)).max() < 0.98  # not collapsed


@pytest.mark.parametrize("loss", [None, "mse"])
def test_what_is_fed_is_what_keras_would_feed_itself(loss):
    """Each batch weighs as its epoch and step say, so that losses tell which batches came, in which order."""

    class Weighed(keras.utils.PyDataset):
        epoch = 0

        def __len__(self):
            return 4

        def __getitem__(self, step):
            x = np.full((2, 1), 10.0 * self.epoch + step, "float32")
            return (x, np.zeros((2, 1), "float32")) if loss else (x,)

        def on_epoch_end(self):
            self.epoch += 1

    class Total(keras.Model):
        def build(self, shape):
            self.weight = self.add_weight(shape=(), initializer="ones")

        def call(self, x):
            return ops.multiply(x, self.weight)

        if loss is None:

            def compute_loss(self, x, y, y_pred, sample_weight, **kwargs):
                return ops.mean(ops.square(y_pred))

    seen = []
    for fed in (False, True):
        model, data = Total(), Weighed()
        model.compile(keras.optimizers.SGD(0.0), loss, jit_compile=False)
        x, steps_per_epoch = feed(data) if fed else (data, None)
        history = model.fit(x, initial_epoch=1, epochs=4, steps_per_epoch=steps_per_epoch, shuffle=False, verbose=0)
        seen.append(history.history["loss"])
    np.testing.assert_allclose(seen[1], seen[0], rtol=1e-6)
    assert len(seen[0]) == 3


def small_profile(**sizes):
    return dataclasses.replace(
        PROFILES["smoke"], separator=SEPARATOR, separator_seconds=0.05, separator_batch=8, **sizes
    )


def test_mixit_learns_to_pull_tones_apart_and_keeps_its_snapshots(tmp_path):
    """Low and high tones, each clip one of them: the separator learns without ever hearing a reference."""
    rng, time = np.random.default_rng(0), np.arange(1600) / 16_000
    pitches = np.where(np.arange(64) % 2, rng.uniform(300, 500, 64), rng.uniform(3000, 5000, 64))
    clips = np.sin(2 * np.pi * (pitches[:, None] * time + rng.random((64, 1)))).astype("float32") * 0.3
    profile = small_profile(snapshot_steps=dict(N=0, F=5, S1=20, S2=80), separator_learning_rate=5e-3)
    history = train_separator(clips, profile, 0, tmp_path)
    assert history["snr"][-1] > history["snr"][0] + 2.0  # backends start from other random weights: 2.5 to 4
    snapshots = {name: keras.saving.load_model(tmp_path / f"{name}.keras") for name in ("N", "F", "S1", "S2")}
    # Over all 32 mixtures: a single one may get worse between two snapshots, and on which backend it does is chance.
    references = np.stack([clips[0::2], clips[1::2]], axis=1)
    mixtures = references.sum(axis=1)
    losses = {name: to_numpy(MixIT()(references, separator(mixtures))) for name, separator in snapshots.items()}
    assert losses["S2"] < losses["S1"] - 1.0 < losses["N"] - 2.0
    np.testing.assert_allclose(to_numpy(snapshots["S2"](mixtures)).sum(axis=1), mixtures, atol=1e-5)


@pytest.mark.once
def test_one_seed_is_one_run_and_another_seed_another(tmp_path):
    clips = quiet_noise(16, 1600)
    profile = small_profile(snapshot_steps=dict(N=0, F=1, S1=2, S2=4))
    losses = []
    for run, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(run)
        folder.mkdir()
        losses.append(train_separator(clips, profile, seed, folder)["first_losses"])
    assert losses[0] == losses[1] != losses[2]
    log_mel = np.random.default_rng(0).standard_normal((16, 120, 64)).astype("float16")
    runs = []
    for seed in (0, 0, 1):

        def pairs(steps, seed=seed):
            return Neighbours(log_mel, 96, 8, steps, seed)

        encoder, history = pretrain(
            pairs, 8, 2, 4, 1e-3, seed, similarity=1.0, coincidence=1.0, augmentation="SpecAugment", show=False
        )
        runs.append((history["first_losses"], encoder.get_weights()[0].tolist()))
    assert runs[0] == runs[1] != runs[2]


def test_a_diverged_training_is_named():
    log_mel = np.random.default_rng(0).standard_normal((16, 120, 64)).astype("float16")
    with pytest.raises(BadInput, match="training diverged"):
        pretrain(
            lambda steps: Neighbours(log_mel, 96, 8, steps, 0), 8, 2, 3, 1e38, 0,
            similarity=1.0, coincidence=0.0, augmentation=None, show=False,
        )  # fmt: skip


PAPERS_BASIS = SEPARATOR | dict(num_basis=256, frame_length=40, frame_step=20)


def test_the_papers_basis_trains_from_random_weights(tmp_path):
    clips = quiet_noise(8, 1600)
    profile = dataclasses.replace(
        small_profile(snapshot_steps=dict(N=0, F=1, S1=2, S2=3), separator_start="random"), separator=PAPERS_BASIS
    )
    history = train_separator(clips, profile, 0, tmp_path)
    assert np.isfinite(history["loss"]).all()
    start = keras.saving.load_model(tmp_path / "N.keras").encoder.kernel
    keras.utils.set_random_seed(stream(0, "weights of the separator"))
    fresh = TDCNPlusPlus(**PAPERS_BASIS)
    fresh.build((None, None))
    np.testing.assert_array_equal(to_numpy(start), to_numpy(fresh.encoder.kernel))


@pytest.mark.parametrize(
    "start, message", [("mdct", "start_from_mdct: 256 basis functions"), ("dct", "separator_start='dct': expected")]
)
def test_a_start_that_does_not_fit_is_refused(tmp_path, start, message):
    profile = dataclasses.replace(small_profile(separator_start=start), separator=PAPERS_BASIS)
    with pytest.raises(BadInput, match=message):
        train_separator(np.zeros((8, 1600), "float32"), profile, 0, tmp_path)


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def quiet_noise(*shape):
    """Noise at 20 dB below full scale. At full scale MixIT gives the random network's two channels to one reference.

    That remix is the mixture whatever the weights, so that all gradients would be zero.
    """
    return 0.1 * np.random.default_rng(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"], indirect=True)
@pytest.mark.parametrize("task", ["separation", "contrast"])
def test_half_precision_trains_with_losses_in_float32(policy, task):
    def first_loss():
        keras.utils.set_random_seed(0)
        if task == "separation":
            model, data = (
                SeparationModel(TDCNPlusPlus(**SEPARATOR)),
                Batches(quiet_noise(16, 800), 700, 8, 12, 0),
            )
        else:
            model = ContrastiveModel(CNN14(16, width=2), augmentation=SpecAugment(seed=0))
            data = Neighbours(quiet_noise(16, 100, 64), 96, 8, 12, 0)
        x = data[0][0]
        outputs = model(x, training=True)
        return model, data, outputs, model.compute_loss(x, y_pred=outputs)

    model, data, outputs, loss = first_loss()
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    if task == "separation":
        assert model.separator.masks.compute_dtype == policy.removeprefix("mixed_")
        x = data[0][0]  # neither the mixtures nor the channels are rounded on their way
        np.testing.assert_allclose(to_numpy(outputs).sum(axis=1), x[0::2] + x[1::2], atol=1e-6)
    else:
        assert keras.backend.standardize_dtype(outputs["logits"].dtype) == policy.removeprefix("mixed_")
    before = [to_numpy(variable.value).copy() for variable in model.trainable_variables]
    losses = fit(model, lambda steps: data, 12, 1e-3, show=False)["first_losses"]
    assert np.isfinite(losses).all() and len(losses) == 10
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    assert to_numpy(model.optimizer.iterations.value) >= 9  # a step may overflow and be left out
    for variable, start in zip(model.trainable_variables, before, strict=True):
        assert variable.dtype == "float32" and not np.array_equal(to_numpy(variable.value), start), variable.path
    keras.config.set_dtype_policy("float32")
    tolerance = 2e-3 if task == "separation" else 0.03
    assert to_numpy(loss) == pytest.approx(to_numpy(first_loss()[-1]), abs=tolerance)


class Line(TensorFlowStep, keras.Model):
    """The gradient of its loss is the same at every step: the one row of the data, its last entry for `b`."""

    def build(self, shape):
        self.a = self.add_weight(shape=(2,), initializer="zeros", name="a")
        self.b = self.add_weight(shape=(), initializer="zeros", name="b")

    def call(self, x, training=None):
        return ops.sum(x[:, :2] * self.a, axis=-1) + x[:, 2] * self.b

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(y_pred)


def train_line(gradient, steps, learning_rate):
    model, row = Line(), np.array([gradient], "float32")
    fit(model, lambda in_epoch: Batches(row, 3, 1, in_epoch, 0), steps, learning_rate, show=False)
    return model


@pytest.mark.parametrize(
    "gradient, used",
    [
        ((3000.0, 0.0, 4000.0), (3.0, 0.0, 4.0)),  # norm 5,000 over both variables: each loses what makes it 5
        ((0.0, 6.0, 8.0), (0.0, 3.0, 4.0)),
        ((0.3, 0.0, -0.4), (0.3, 0.0, -0.4)),  # below 5 nothing is touched
    ],
)
def test_a_gradient_is_cut_to_norm_5_over_all_variables(gradient, used):
    """Adam's first moment after one step is a tenth of the gradient it was given."""
    optimizer = train_line(gradient, 1, 1e-3).optimizer
    moments = [to_numpy(v.value) for v in optimizer.variables if "momentum" in v.path]
    np.testing.assert_allclose(np.concatenate([np.ravel(moment) for moment in moments]), np.multiply(used, 0.1), 1e-5)


# Of 40 steps up to a rate of 1: two of warm-up, 38 of decay.
RATES = [0.1, 0.55] + [0.01 + 0.99 * (1 + np.cos(np.pi * step / 38)) / 2 for step in range(38)]


def test_fit_trains_by_this_schedule():
    """Under a constant gradient each of Adam's steps is the learning rate: the way gone is their sum."""
    model = train_line((1.0, -1.0, 1.0), 40, 1e-2)
    np.testing.assert_allclose(to_numpy(model.a.value), [-1e-2 * sum(RATES), 1e-2 * sum(RATES)], rtol=1e-4)
    np.testing.assert_allclose(to_numpy(model.b.value), -1e-2 * sum(RATES), rtol=1e-4)


def test_a_snapshot_holds_the_weights_of_its_step(tmp_path):
    """Not those of the epoch's beginning, which on JAX is all that the variables know until one asks."""

    class Kept(Line):
        def save(self, path):
            path.write_text(str(float(to_numpy(self.b.value))))

    model, steps = Kept(), dict(N=0, F=1, S1=7, S2=33)  # epochs of 20
    data, snapshots = np.ones((1, 3), "float32"), Snapshots(model, steps, tmp_path)
    fit(model, lambda n: Batches(data, 3, 1, n, 0), 40, 1e-2, callbacks=[snapshots], show=False)
    for name, step in steps.items():
        assert float((tmp_path / f"{name}.keras").read_text()) == pytest.approx(-1e-2 * sum(RATES[:step]), rel=1e-4)


def test_crops_are_inside_the_clips_and_come_with_their_labels():
    array = np.arange(12)[:, None] * 1000 + np.arange(50)[None]
    batches = Batches(array, 10, 5, 4, 0, targets=np.arange(12) % 2)
    x, y = batches[0]
    clips = (x // 1000).astype(int)
    assert x.shape == (5, 10) and (clips == clips[:, :1]).all() and len(set(clips[:, 0])) == 5
    np.testing.assert_array_equal(np.diff(x), 1.0)
    np.testing.assert_array_equal(y, clips[:, 0] % 2)
    np.testing.assert_array_equal(batches[0][0], x)
    batches.on_epoch_end()
    assert not np.array_equal(batches[0][0], x)


def test_the_supervised_control_learns_its_labels():
    labels = np.eye(2, dtype="float32")[np.arange(16) % 2]
    log_mel = np.random.default_rng(0).standard_normal((16, 120, 64)).astype("float16")
    log_mel[::2, :, :20] += 3
    profile = dataclasses.replace(PROFILES["smoke"], batch_size=8, supervised_steps=30, learning_rate=3e-3)
    _, history = train_supervised(dict.fromkeys(("train", "validation"), (log_mel, labels)), profile, 0)
    assert history["loss"][-1] < 0.6 * np.log(2)
