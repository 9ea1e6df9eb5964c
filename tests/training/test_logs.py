"""What a training tells: gradient norms, a line for each epoch, log.csv, TensorBoard; across stops, on full disks."""

import csv

import keras
import numpy as np
import pytest
from keras import ops

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.objectives import ContrastiveModel
from sepcl_keras.training import loop
from sepcl_keras.training.loop import Batches
from sepcl_keras.training.step import TensorFlowStep


class Line(TensorFlowStep, keras.Model):
    """Its gradient is the row of data it is given; guessing gives its loss a value of 2.5."""

    def build(self, shape):
        self.a = self.add_weight(shape=(3,), initializer="zeros", name="a")

    def call(self, x, training=None):
        return ops.sum(x * self.a, axis=-1)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(y_pred)

    def chance(self, pairs):
        return {"loss": 2.5 * pairs}


def fit(gradient=(3.0, 0.0, 4.0), steps=60, **kwargs):
    data = np.array([gradient, gradient], "float32")
    return loop.fit(Line(), lambda n: Batches(data, 3, 2, n, 0), steps, 1e-3, **{"show": False} | kwargs)


def rows(folder):
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("gradient, norm", [((3000.0, 0.0, 4000.0), 5000.0), ((0.3, 0.4, 0.0), 0.5)])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_the_norm_of_the_gradient_is_the_one_before_clipping_and_scaling(gradient, norm, policy):
    keras.config.set_dtype_policy(policy)
    try:
        history = fit(gradient)
    finally:
        keras.config.set_dtype_policy("float32")
    tolerance = 1e-5 if policy == "float32" else 1e-3
    assert history["gradient_norm"] == pytest.approx([norm] * 3, rel=tolerance)


def test_a_line_for_each_epoch_shows_losses_beside_chance(capsys):
    history = fit(show=True)
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 3
        and lines[0].count("loss") == 1
        and lines[0].startswith(f"step 20 of 60: loss {history['loss'][0]:.3f} (chance 5.000), ")
    )
    assert lines[0].endswith(" clips/s") and "gradient_norm" not in lines[0] and lines[2].startswith("step 60 of 60: ")
    fit()
    assert capsys.readouterr().out == ""


def test_the_contrastive_log_holds_all_that_is_promised(tmp_path):
    from stopped_training import Neighbours

    from sepcl_keras.encoder.network import CNN14

    keras.utils.set_random_seed(0)
    log_mel = np.random.default_rng(0).standard_normal((16, 100, 64)).astype("float16")
    model = ContrastiveModel(CNN14(8, width=1))
    history = loop.fit(model, lambda n: Neighbours(log_mel, 96, 8, n, 0), 2, 1e-3, show=False, log=tmp_path)
    (row,) = rows(tmp_path)
    assert set(row) == set(history) - {"first_losses"} == {
        "step", "loss", "similarity", "similarity_chance", "coincidence", "coincidence_chance", "accuracy",
        "accuracy_chance", "alignment", "uniformity", "spread", "gradient_norm", "clips_per_second",
    }  # fmt: skip
    for name, value in row.items():
        assert float(value) == pytest.approx(history[name][0], rel=1e-6)
    assert float(row["similarity_chance"]) == pytest.approx(np.log(7)) and float(row["gradient_norm"]) > 0


class Stop(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def test_a_resumed_log_has_every_row_once(tmp_path):
    """Stopped after the second epoch's row was written and before its checkpoint; then with a row cut in two."""
    log, folder = tmp_path / "log", tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(folder=folder, log=log / "first", callbacks=[Stop(1)])
    history = None
    for cut in (False, True):
        place = log / str(cut)
        with pytest.raises(KeyboardInterrupt):
            fit(folder=folder / str(cut), log=place, callbacks=[Stop(1)])
        with open(place / "log.csv", "a", encoding="utf-8") as file:
            file.write("40,0.1,0.2,0.3,5,100\n" * 2 + "60,0." if cut else "40,0.1,0.2,0.3,5,100\n")
        history = fit(folder=folder / str(cut), log=place)
        assert [row["step"] for row in rows(place)] == ["20", "40", "60"]
        for name in ("loss", "gradient_norm", "clips_per_second"):
            assert [float(row[name]) for row in rows(place)] == pytest.approx(history[name], rel=1e-6)


def test_tensorboard_has_the_rows_too_or_one_sentence_says_why_not(tmp_path, capsys):
    folder, log = tmp_path / "checkpoint", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        fit(folder=folder, log=log, callbacks=[Stop(1)])
    history = fit(folder=folder, log=log)
    try:
        import tensorflow
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        assert f"{log}: no log for TensorBoard, which needs tensorflow and tensorboard" in capsys.readouterr().out
        assert not (log / "tensorboard").exists()
        return
    events = EventAccumulator(str(log / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    for name in ("loss", "gradient_norm"):
        tensors = events.Tensors(name)
        assert [event.step for event in tensors] == [20, 40, 60]
        values = [float(tensorflow.make_ndarray(event.tensor_proto)) for event in tensors]
        assert values == pytest.approx(history[name], rel=1e-6)


def test_a_full_disk_and_a_folder_that_is_a_file_are_one_sentence(tmp_path, room_for):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="log.csv: cannot be written .*; expected a folder with room"):
        fit(log=tmp_path / "file")
    # After the first epoch no file may grow beyond what the first row took.
    fill = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch and room_for(100))
    with pytest.raises(BadInput, match="log.csv: cannot be written .*; expected a folder with room"):
        fit(log=tmp_path / "log", callbacks=[fill])
    room_for(None)
    assert rows(tmp_path / "log")[0]["step"] == "20"
