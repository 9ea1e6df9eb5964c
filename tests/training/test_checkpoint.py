"""What was stopped goes on: a training ends where one never stopped would, an artifact is whole or not there."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras import ops

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import read_json
from sepcl_keras.core.folders import CHECKPOINT, atomic_folder
from sepcl_keras.core.saved import save_model
from sepcl_keras.course.profiles import PROFILES
from sepcl_keras.encoder import recipe
from sepcl_keras.encoder.recipe import new_encoder, train_supervised
from sepcl_keras.training.loop import Batches, fit
from sepcl_keras.training.step import TensorFlowStep

PROGRAM = ROOT / "tests" / "stopped_training.py"


def run(folder, *where):
    """Runs the program to its end, or to where it kills itself; returns what it printed."""
    command = [sys.executable, "-W", "ignore", str(PROGRAM), str(folder), *map(str, where)]
    done = subprocess.run(command, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True)
    assert done.returncode == (-9 if where else 0), done.stderr[-2000:]
    return done.stdout


def weights(path):
    return [ops.convert_to_numpy(variable) for variable in keras.saving.load_model(path).variables]


@pytest.mark.once
def test_trainings_killed_on_the_way_end_bit_for_bit_where_others_end(tmp_path):
    """Killed with a snapshot half written, then while the encoder trains, with SpecAugment."""
    run(tmp_path / "whole")
    folder = tmp_path / "stopped"
    run(folder, "snapshot", "S1")
    assert sorted(path.name for path in (folder / "separator").glob("[!.]*")) == ["F.keras", "N.keras", CHECKPOINT]
    untrained = (folder / "separator" / "N.keras").read_bytes()
    said = run(folder, "encoder", 35)
    assert "resumed at step 20 of 60" in said and said.count("resumed") == 1
    said = run(folder)
    assert "resumed at step 60 of 60" in said and "resumed at step 20 of 60" in said
    assert (folder / "separator" / "N.keras").read_bytes() == untrained  # kept, not written again
    for name in ("separator", "encoder"):
        history, expected = (read_json(place / name / "history.json") for place in (folder, tmp_path / "whole"))
        assert history.pop("clips_per_second") != expected.pop("clips_per_second")
        assert history == expected and len(history["loss"]) == 3
    for name in ("separator/N", "separator/F", "separator/S1", "separator/S2", "encoder/encoder"):
        for ours, whole in zip(
            weights(folder / f"{name}.keras"), weights(tmp_path / "whole" / f"{name}.keras"), strict=True
        ):
            np.testing.assert_array_equal(ours, whole, err_msg=name)


class Line(TensorFlowStep, keras.Model):
    """The smallest model there is that draws random numbers: its loss is the mean of noise times weight."""

    def __init__(self, size=3):
        super().__init__()
        self.size, self.generator = size, keras.random.SeedGenerator(7)

    def build(self, shape):
        self.weight = self.add_weight(shape=(self.size,), initializer="ones", name="weight")

    def call(self, x, training=None):
        return x * self.weight * keras.random.uniform((self.size,), seed=self.generator, dtype=x.dtype)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y_pred))


class Stop(keras.callbacks.Callback):
    """Does something at the end of a step of the first epoch that is trained, or of a later one."""

    def __init__(self, step, do):
        super().__init__()
        self.step, self.do = step, do

    def on_train_batch_end(self, batch, logs=None):
        if ops.convert_to_numpy(self.model.optimizer.iterations.value) == self.step:
            self.do()


def train(folder, steps=60, learning_rate=0.1, size=3, seed=0, callbacks=()):
    """A training of a few milliseconds a step; three epochs of 20. Returns the weight and the history."""
    model, data = Line(size), np.random.default_rng(seed).standard_normal((8, size)).astype("float32")
    history = fit(
        model, lambda in_epoch: Batches(data, size, 4, in_epoch, seed), steps, learning_rate,
        callbacks=callbacks, show=False, folder=folder,
    )  # fmt: skip
    del history["clips_per_second"]  # the one thing that chance decides
    return ops.convert_to_numpy(model.weight), history


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.once
def test_a_supervised_training_goes_on_with_its_spec_augment(tmp_path, capsys, monkeypatch):
    labels = np.eye(2, dtype="float32")[np.arange(8) % 2]
    log_mel = np.random.default_rng(0).standard_normal((8, 100, 64)).astype("float16")
    profile = dataclasses.replace(PROFILES["smoke"], batch_size=4, width=1, supervised_steps=40, learning_rate=1e-3)

    def supervised(folder):
        given = dict.fromkeys(("train", "validation"), (log_mel, labels))
        encoder, history = train_supervised(given, profile, 0, folder)
        del history["clips_per_second"]
        return [ops.convert_to_numpy(weight) for weight in encoder.weights], history

    expected, history = supervised(tmp_path / "whole")
    fit = recipe.fit
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recipe, "fit", lambda *a, **k: fit(*a[:-1], [*a[-1], Stop(30, interrupt)], **k))
        supervised(tmp_path / "stopped")
    again, continued = supervised(tmp_path / "stopped")
    assert "resumed at step 20 of 40\n" in capsys.readouterr().out and continued == history
    for ours, whole in zip(again, expected, strict=True):
        np.testing.assert_array_equal(ours, whole)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training's weight, its history and its last checkpoint's bytes."""
    folder = tmp_path_factory.mktemp("whole")
    return *train(folder), (folder / CHECKPOINT).read_bytes()


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16"])
def test_a_training_goes_on_in_the_same_process_too(tmp_path, capsys, policy):
    """In half precision the optimizer also has a scale of the loss to go on with, and steps it left out."""
    keras.config.set_dtype_policy(policy)
    try:
        weight, history = train(None)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, callbacks=[Stop(30, interrupt)])
        assert "resumed" not in capsys.readouterr().out
        again, continued = train(tmp_path)
        assert "resumed at step 20 of 60\n" in capsys.readouterr().out
        done, once_more = train(tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    assert "resumed at step 60 of 60\n" in capsys.readouterr().out
    assert history == continued == once_more and history["step"] == [20, 40, 60] and len(history["first_losses"]) == 10
    np.testing.assert_array_equal(again, weight)
    np.testing.assert_array_equal(done, weight)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize(
    "other, named",
    [
        (dict(learning_rate=0.2), "learning_rate"),
        (dict(steps=80), "steps"),
        (dict(seed=1), "first_batch"),
        (dict(size=4), "first_batch, variables"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_and_kept(tmp_path, whole, other, named):
    (tmp_path / CHECKPOINT).write_bytes(whole[2])
    with pytest.raises(BadInput, match=f"{CHECKPOINT}: a checkpoint of another training, by its {named}; expected"):
        train(tmp_path, **other)
    assert (tmp_path / CHECKPOINT).read_bytes() == whole[2]


def test_an_archive_that_is_no_checkpoint_is_refused(tmp_path):
    np.savez(tmp_path / CHECKPOINT, notes=np.zeros(3))
    with pytest.raises(BadInput, match="a checkpoint of another training"):
        train(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "pickled"])
def test_a_broken_checkpoint_is_named_and_training_starts_from_the_beginning(tmp_path, whole, capsys, damage):
    weight, history, content = whole
    path, middle = tmp_path / CHECKPOINT, content.index(b"NUMPY") + 135  # one of the first array's numbers
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"empty": b"", "cut": content[:-50], "flipped": flipped, "pickled": content}[damage])
    if damage == "pickled":
        with zipfile.ZipFile(path) as archive:
            header = archive.read("header.json")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.json", header)
            with archive.open("0.npy", "w") as file:
                np.lib.format.write_array(file, np.array([Path], dtype=object), allow_pickle=True)
    again, repeated = train(tmp_path)
    printed = capsys.readouterr().out
    assert f"{CHECKPOINT}: a broken checkpoint (" in printed and "resumed" not in printed
    np.testing.assert_array_equal(again, weight)
    assert repeated == history and zipfile.is_zipfile(path)


def test_a_full_disk_is_one_sentence_and_leaves_the_last_checkpoint(tmp_path, capsys, room_for):
    size = 200_000
    with pytest.raises(BadInput, match=f"{CHECKPOINT}: cannot be written .*; expected a folder with room"):
        train(tmp_path, size=size, callbacks=[Stop(50, lambda: room_for(1_000_000))])
    room_for(None)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    train(tmp_path, size=size)
    assert "resumed at step" in capsys.readouterr().out


def test_a_network_that_finds_no_room_is_one_sentence_and_leaves_the_one_before(tmp_path, room_for):
    path = tmp_path / "encoder.keras"
    encoder = new_encoder(8, 1, 0)
    save_model(encoder, path)
    before = path.read_bytes()
    room_for(len(before) // 2)
    with pytest.raises(BadInput, match="encoder.keras: cannot be written .*; expected a folder with room"):
        save_model(encoder, path)
    room_for(None)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["encoder.keras"]


@pytest.mark.once
def test_a_folder_without_the_right_to_write_is_one_sentence_and_keeps_its_checkpoint(capsys):
    """As an ordinary user, for to root every folder is open; so not in pytest's folder, which others cannot enter."""
    program = """
import os, sys
from training.test_checkpoint import BadInput, Stop, interrupt, train

for _ in range(2):  # the second time it reads the checkpoint: Python's own files may be out of reach later
    try:
        train(sys.argv[1], callbacks=[Stop(30, interrupt)])
    except KeyboardInterrupt:
        pass
os.chmod(sys.argv[1], 0o555)
if os.geteuid() == 0:
    os.setuid(65534)
try:
    train(sys.argv[1])
except BadInput as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROGRAM.parent), *sys.path])}
        command = [sys.executable, "-W", "ignore", "-c", program, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        os.chmod(folder, 0o755)
        assert done.returncode == 0, done.stderr[-2000:]
        sentence = "cannot be written (Permission denied); expected a folder with room that is ours."
        resumed = "resumed at step 20 of 60"
        assert done.stdout.splitlines() == [resumed, resumed, f"{folder}/{CHECKPOINT}: {sentence}"]
        assert os.listdir(folder) == [CHECKPOINT]
        train(folder)
    assert f"{resumed}\n" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=f"{CHECKPOINT}: cannot be written .*; expected"):
        train(tmp_path / "file" / "folder")
    with pytest.raises(BadInput, match="cannot be written .*; expected"), atomic_folder(tmp_path / "file" / "x", "m"):
        pass


def stopped(folder, mark, files):
    """Leaves of an artifact what a killed run would."""
    part = folder.with_name(f".{folder.name}.part")
    (part / folder.name).mkdir(parents=True)
    (part / "mark").write_text(mark)
    for name in files:
        (part / folder.name / name).write_text("half")
    return part


def test_a_folder_is_given_again_with_a_checkpoint_of_the_same_mark_and_empty_otherwise(tmp_path):
    folder = tmp_path / "thing"
    for mark, files, left in (
        ("a", [CHECKPOINT, "N.keras", ".S1-abc.keras"], ["N.keras", CHECKPOINT]),  # but for a write that was cut short
        ("a", ["manifest.json", "N.keras"], ["N.keras", "manifest.json"]),  # whole, and killed while it took its place
        ("a", ["log_mel.npy"], []),  # nothing says how far it came
        ("b", [CHECKPOINT, "N.keras"], []),  # of other settings
    ):
        part = stopped(folder, mark, files)
        with atomic_folder(folder, "a") as content:
            assert sorted(path.name for path in content.iterdir()) == left
            (content / "N.keras").write_text("whole")
        assert [path.name for path in tmp_path.iterdir()] == ["thing"] and not part.exists()
        assert not (folder / CHECKPOINT).exists() and (folder / "N.keras").read_text() == "whole"
        shutil.rmtree(folder)


def test_a_failure_keeps_the_part_only_where_it_can_go_on(tmp_path):
    folder = tmp_path / "thing"
    for names, kept in ((["x"], []), (["x", CHECKPOINT], [".thing.part"])):
        with pytest.raises(RuntimeError), atomic_folder(folder, "a") as content:
            for name in names:
                (content / name).touch()
            raise RuntimeError
        assert [path.name for path in tmp_path.iterdir()] == kept


@pytest.mark.once
def test_a_second_run_waits_and_finds_what_the_first_made(tmp_path, capsys, waiting):
    found = []

    def second():
        with atomic_folder(tmp_path / "thing", "a") as content:  # and leaves it empty
            found.extend(path.name for path in [*(tmp_path / "thing").iterdir(), *content.iterdir()])

    with atomic_folder(tmp_path / "thing", "a") as content:
        (content / "x").touch()
        with atomic_folder(tmp_path / "other", "b") as other:  # of something else
            (other / "y").touch()
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(60) and not found
    thread.join()
    said = capsys.readouterr().out
    assert said == f"{tmp_path / 'thing'}: another run is making it; waiting for that one to end.\n"
    assert found == ["x"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "thing"]
    assert [path.name for path in (tmp_path / "thing").iterdir()] == ["x"]
