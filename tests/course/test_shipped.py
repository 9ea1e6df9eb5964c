"""What the library ships: that it fits today's settings, loads on this backend, and stays out where it does not fit."""

import contextlib
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import fingerprint, read_json, write_json
from sepcl_keras.course import artifacts, shipped
from sepcl_keras.course import course as course_module
from sepcl_keras.course.course import Course
from sepcl_keras.encoder.network import CNN14

NAMES = ("separator", "encoders/main")
BASELINE = read_json(ROOT / "tests" / "baselines" / "tiny.json")["first_losses"]


class Trained(Exception):
    """Raised where a training would begin."""


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    def begin(*arguments, **options):
        raise Trained

    monkeypatch.delenv("SEPCL_TRAIN", raising=False)
    monkeypatch.setattr(course_module, "train_separator", begin)
    monkeypatch.setattr(course_module.Course, "views", begin)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to ship from, with nothing in it."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.fixture
def copied(folder):
    """The same with copies of what the library ships."""
    shutil.copytree(ROOT / "sepcl_keras" / "course" / "shipped", folder)
    return folder


def test_the_files_are_those_of_todays_settings_and_small():
    files = sorted(path.name for path in shipped.FOLDER.iterdir())
    assert len(files) == 3 and files[0] == "MODEL_CARD.md"
    assert sum(path.stat().st_size for path in shipped.FOLDER.iterdir()) <= 12e6
    card = (shipped.FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert all(name in card for name in files[1:])


def test_they_are_taken_instead_of_a_training_and_kept_as_any_artifact(tmp_path, capsys):
    """Where this fails after a change of the recipe, `python -m sepcl_keras.course.ship` makes them anew."""
    course = Course("tiny", "made", 0, tmp_path)
    snapshots, history = course.snapshots()
    encoder, pretraining = course.encoder()
    said = capsys.readouterr().out
    for name in NAMES:
        (file,) = shipped.FOLDER.glob(f"{name.replace('/', '_')}-*.npz")
        assert f"{name}: taken from {file.name}, which comes with the library" in said
        assert read_json(course.folder / name / "manifest.json")["shipped"] == file.name
    assert list(snapshots) == ["N", "F", "S1", "S2"]
    x = np.random.default_rng(0).standard_normal((1, 8_000)).astype("float32")
    for separator in snapshots.values():
        assert {weight.dtype for weight in separator.weights} == {"float32"}
        channels = keras.ops.convert_to_numpy(separator(x))
        assert channels.shape == (1, 2, 8_000) and np.isfinite(channels).all()
        np.testing.assert_allclose(channels.sum(axis=1), x, atol=1e-5)
    assert np.isfinite(keras.ops.convert_to_numpy(encoder(np.zeros((1, 96, 64), "float32")))).all()
    # What the notebooks draw of a training. Its first losses tell today's recipe from another.
    assert {"step", "loss", "snr"} <= set(history) and history["step"][-1] == 3000 and len(history["loss"]) == 120
    assert {"similarity_chance", "accuracy", "spread", "uniformity", "gradient_norm"} <= set(pretraining)
    recorded = BASELINE["03/first_losses"]
    np.testing.assert_allclose(history["first_losses"][: len(recorded)], recorded, rtol=1e-4)
    Course("tiny", "made", 0, tmp_path).snapshots()
    assert "separator: loaded from" in capsys.readouterr().out


def test_what_is_made_of_a_shipped_separator_is_told_from_what_is_made_of_a_trained_one(tmp_path, monkeypatch):
    course = Course("tiny", "made", 0, tmp_path)
    taken, results = course._on_separator(), course._results_mark()
    monkeypatch.setenv("SEPCL_TRAIN", "1")
    assert course._on_separator() == course._separator_definition() != taken
    assert course._results_mark() != results


@pytest.mark.once
def test_what_was_trained_here_goes_before_what_is_shipped(tmp_path, monkeypatch, capsys):
    course = Course("tiny", "made", 0, tmp_path)
    course.snapshots()
    monkeypatch.setenv("SEPCL_TRAIN", "1")
    with pytest.raises(Trained):
        Course("tiny", "made", 0, tmp_path).snapshots()
    capsys.readouterr()

    def train(mixtures, profile, seed, folder):
        for name in profile.snapshot_steps:
            shutil.copy(course.folder / "separator" / f"{name}.keras", folder)
        return {"loss": ["trained"]}

    monkeypatch.setattr(course_module, "train_separator", train)
    monkeypatch.setattr(type(course.scenes["train"]), "mixtures", lambda self: None)
    Course("tiny", "made", 0, tmp_path).snapshots()
    assert "separator: not made yet with these settings; making it now" in capsys.readouterr().out
    monkeypatch.delenv("SEPCL_TRAIN")
    assert Course("tiny", "made", 0, tmp_path).snapshots()[1] == {"loss": ["trained"]}
    assert "separator: loaded from" in capsys.readouterr().out


def test_a_training_that_ends_while_another_run_waits_is_not_replaced(tmp_path, monkeypatch):
    course = Course("tiny", "made", 0, tmp_path)
    definition = course._separator_definition()

    @contextlib.contextmanager
    def waited(folder, mark):
        assert mark != fingerprint(definition), "a shipped file was to be taken"
        write_json(folder / "manifest.json", {"fingerprint": fingerprint(definition), "history": "trained"})
        yield folder.with_name("part")

    monkeypatch.setattr(artifacts, "atomic_folder", waited)
    assert course.load_or_train("separator", definition, None, lambda folder: 1, networks=dict) == (1, "trained")


@pytest.mark.parametrize("arguments", [("smoke", "made", 0), ("tiny", "made", 1)])
def test_another_profile_or_seed_is_trained(arguments, tmp_path):
    course = Course(*arguments, tmp_path)
    assert course.shipped_file("separator", course._separator_definition()) is None
    with pytest.raises(Trained):
        course.encoder()


def test_other_settings_than_those_of_the_file_are_trained(copied, tmp_path):
    course = Course("tiny", "made", 0, tmp_path / "out")
    definition = course._separator_definition()
    assert course.shipped_file("separator", definition)
    for changed in ({"steps": {"S2": 1}}, {"seconds": 4.0}, {"running": {"backend": "jax", "policy": "mixed_float16"}}):
        assert course.shipped_file("separator", definition | changed) is None
    other = {"code": "another", "running": {"backend": "another", "policy": "float32"}}
    assert course.shipped_file("separator", definition | other), "neither code nor backend is a setting"


@pytest.mark.once
def test_a_damaged_file_is_left_out_with_one_sentence(copied, tmp_path, capsys):
    (file,) = copied.glob("separator-*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(Trained):
        Course("tiny", "made", 0, tmp_path / "out").snapshots()
    said = capsys.readouterr().out
    assert said.count("is damaged, since its checksum is not the one in its name; it is left out") == 1
    assert "separator: not made yet with these settings; making it now" in said


def small(width=2):
    encoder = CNN14(8, width)
    encoder.build((None, 96, 64))
    return encoder


def test_half_precision_is_within_its_bound_and_keeps_what_float16_could_not(folder, tmp_path):
    encoder, twin = small(), small()
    encoder.bn0.moving_variance.assign(np.geomspace(1e-9, 1e9, 64))
    path = shipped.write("a/b", {"x": 1, "code": "c"}, {"encoder.keras": encoder}, {"loss": [1.5]})
    assert path.parent == folder and shipped.find("a/b", {"x": 1, "code": "d"}) == path
    (tmp_path / "out").mkdir()
    assert shipped.unpack(path, {"encoder.keras": twin}, tmp_path / "out") == {"loss": [1.5]}
    loaded = keras.saving.load_model(tmp_path / "out" / "encoder.keras")
    for before, after, network in zip(encoder.get_weights(), loaded.get_weights(), encoder.weights, strict=True):
        if before.ndim < 2:
            np.testing.assert_array_equal(before, after)
        else:
            error = np.abs(before - after).max() / np.sqrt(np.mean(before**2))
            assert 0 < error <= 1 / 256, network.path  # half a step, of which the root mean square has at least 128
            np.testing.assert_array_equal(after, after.astype("float16"))


def test_writing_is_the_same_bytes_twice_and_takes_the_place_of_older_files(folder):
    encoder = small()
    old = shipped.write("a", {"x": 1}, {"encoder.keras": encoder}, {})
    assert shipped.write("a", {"x": 1}, {"encoder.keras": encoder}, {}) == old
    new = shipped.write("a", {"x": 2}, {"encoder.keras": encoder}, {})
    assert [path.name for path in folder.iterdir()] == [new.name] != [old.name]


def test_a_file_of_a_network_that_has_changed_is_refused_in_one_sentence(folder, tmp_path):
    path = shipped.write("a", {}, {"encoder.keras": small(2)}, {})
    with pytest.raises(BadInput, match=r"holds \d+ numbers for encoder.keras; expected \d+.*SEPCL_TRAIN=1 trains"):
        shipped.unpack(path, {"encoder.keras": small(3)}, tmp_path)


@pytest.mark.once
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a whole course takes minutes on another backend")
def test_one_command_trains_ships_measures_and_writes_the_card(tmp_path):
    """At the smoke profile, in a process of its own that writes beside the test."""
    program = f"""
import sys
from pathlib import Path
from sepcl_keras.course import ship, shipped
shipped.FOLDER = Path({str(tmp_path / "shipped")!r})
sys.exit(ship.main(["--profile", "smoke", "--out", {str(tmp_path / "out")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    card = (tmp_path / "shipped" / "MODEL_CARD.md").read_text(encoding="utf-8")
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "shipped").iterdir())
    assert names == ["MODEL_CARD.md", "encoders_main", "separator"]
    assert "nan" not in card and card.count("| S2, half |") == card.count("| main, half |") == 1
    manifests = [read_json(tmp_path / "out" / "smoke" / "made" / "seed0" / name / "manifest.json") for name in NAMES]
    assert not [manifest for manifest in manifests if "shipped" in manifest]
    assert_halves_do_as_the_trained_ones(card, 0.1, 0.1)


def assert_halves_do_as_the_trained_ones(card, decibels, map_difference):
    """The lines "name, half" and "name, trained" of a card."""
    lines = {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in card.splitlines())}
    for name, bound in dict.fromkeys(("N", "F", "S1", "S2"), decibels).items() | {("main", map_difference)}:
        half, trained = (np.array(lines[f"{name}, {kind}"], float) for kind in ("half", "trained"))
        assert half.shape == (3,)
        np.testing.assert_allclose(half, trained, rtol=0, atol=bound)


def test_the_card_says_that_half_precision_costs_next_to_nothing():
    card = (shipped.FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert_halves_do_as_the_trained_ones(card, 0.02, 0.003)
