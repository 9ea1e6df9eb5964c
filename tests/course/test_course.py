"""The path: what is there and fits is loaded, what does not fit is made again, and nothing is half made."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core import backend
from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.folders import CHECKPOINT
from sepcl_keras.course import course as course_module
from sepcl_keras.course import data as data_module
from sepcl_keras.course.course import Course
from sepcl_keras.course.slides import read_rows
from sepcl_keras.scenes import audio
from sepcl_keras.separation.recipe import new_separator
from sepcl_keras.views.log_mel import LogMel

ESC10 = ROOT.parent / "shared" / "esc10"


@pytest.fixture
def course(tmp_path):
    return Course("smoke", "made", 0, tmp_path)


def counting(course, definition, calls):
    def make(folder):
        calls.append(definition)
        (folder / "x").write_text(str(definition))
        return {"made": len(calls)}

    return course.load_or_train("thing", definition, make, lambda folder: (folder / "x").read_text())


def test_an_artifact_is_made_once_then_loaded_then_made_again_when_its_definition_changes(course, tmp_path, capsys):
    calls = []
    assert counting(course, {"a": 1}, calls) == ("{'a': 1}", {"made": 1})
    assert counting(Course("smoke", "made", 0, tmp_path), {"a": 1}, calls) == ("{'a': 1}", {"made": 1})
    assert "thing: loaded from" in capsys.readouterr().out
    assert counting(course, {"a": 2}, calls) == ("{'a': 2}", {"made": 2})  # also within one course
    assert len(calls) == 2
    (course.folder / "thing" / "x").unlink()
    with pytest.raises(BadInput, match="thing: expected a whole artifact"):
        counting(Course("smoke", "made", 0, tmp_path), {"a": 2}, calls)


def test_a_failure_leaves_nothing_behind_and_the_old_artifact_in_place(course, tmp_path):
    counting(course, {"a": 1}, [])

    def fail(folder):
        (folder / "x").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Course("smoke", "made", 0, tmp_path).load_or_train("thing", {"a": 2}, fail, lambda folder: None)
    assert (course.folder / "thing" / "x").read_text() == "{'a': 1}"
    assert [path.name for path in course.folder.iterdir()] == ["thing"]


class Stopped(Exception):
    pass


def test_what_was_stopped_goes_on_with_the_same_definition_and_starts_anew_with_another(course, tmp_path):
    def stop(folder):
        (folder / CHECKPOINT).write_text("step 25")
        raise Stopped

    def go_on(folder):
        found.append([path.name for path in folder.iterdir()])

    found = []
    for definition in ({"a": 1}, {"a": 2}):
        with pytest.raises(Stopped):
            course.load_or_train("thing", {"a": 1}, stop, lambda folder: None)
        assert [path.name for path in course.folder.iterdir()] == [".thing.part"]
        Course("smoke", "made", 0, tmp_path).load_or_train("thing", definition, go_on, lambda folder: None)
        assert [path.name for path in course.folder.iterdir()] == ["thing"]
        assert [path.name for path in (course.folder / "thing").iterdir()] == ["manifest.json"]
        shutil.rmtree(course.folder / "thing")
    assert found == [[CHECKPOINT], []]


def test_an_artifact_stopped_when_whole_is_not_made_again(course, tmp_path, monkeypatch):
    replace = os.replace

    def not_of_folders(source, target):
        if os.path.isdir(source):
            raise Stopped
        replace(source, target)

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(os, "replace", not_of_folders)
        counting(course, {"a": 1}, [])
    assert [path.name for path in course.folder.iterdir()] == [".thing.part"]
    calls = []
    assert counting(Course("smoke", "made", 0, tmp_path), {"a": 1}, calls) == ("{'a': 1}", {"made": 1}) and not calls


@pytest.mark.parametrize("first_fails", [False, True])
def test_of_two_runs_one_makes_an_artifact_and_the_other_waits(course, tmp_path, capsys, waiting, first_fails):
    """The other loads it, or, where the first was stopped on the way, goes on from there."""

    def first(folder):
        (folder / CHECKPOINT).write_text("step 25")
        thread.start()
        assert waiting.wait(60)
        if first_fails:
            raise Stopped
        return "first"

    def second(folder):
        assert (folder / CHECKPOINT).read_text() == "step 25"
        return "second"

    def other_run():
        other = Course("smoke", "made", 0, tmp_path)
        found.append(other.load_or_train("thing", {"a": 1}, second, lambda folder: None))

    found, thread = [], threading.Thread(target=other_run)
    with pytest.raises(Stopped) if first_fails else contextlib.nullcontext():
        course.load_or_train("thing", {"a": 1}, first, lambda folder: None)
    thread.join()
    assert "thing: another run is making it" in capsys.readouterr().out
    assert found == [(None, "second" if first_fails else "first")]
    assert [path.name for path in (course.folder / "thing").iterdir()] == ["manifest.json"]


def test_every_training_gets_the_folder_its_checkpoint_stays_in(course, monkeypatch):
    def stop(*arguments, folder=None, **options):
        folder = folder or arguments[-1]
        (folder / CHECKPOINT).touch()
        raise Stopped

    for name in ("train_separator", "pretrain", "train_supervised"):
        monkeypatch.setattr(course_module, name, stop)
    monkeypatch.setattr(Course, "views", lambda self: None)
    monkeypatch.setattr(Course, "log_mel", lambda self, split: None)
    for train, part in (
        (course.snapshots, ".separator.part/separator"),
        (course.encoder, "encoders/.main.part/main"),
        (course.supervised_encoder, "encoders/.supervised.part/supervised"),
        (lambda: course.supervised_encoder(7), "encoders/.supervised-7.part/supervised-7"),
    ):
        with pytest.raises(Stopped):
            train()
        assert (course.folder / part / CHECKPOINT).exists()


def test_the_start_of_the_basis_is_part_of_what_defines_a_separator(course):
    before = course._separator_definition()
    course.profile = dataclasses.replace(course.profile, separator_start="random")
    assert course._separator_definition() != before


def test_results_are_kept_by_number(course):
    assert course.results("03") is None
    course.record("03", loss=1.5, first_losses=[1.0, 2.0])
    assert course.results("03") == {"loss": 1.5, "first_losses": [1.0, 2.0]}
    assert (course.folder / "results" / "03.json").exists()
    course.profile = dataclasses.replace(course.profile, width=course.profile.width + 1)
    assert course.results("03") is None  # numbers of other settings
    assert course.folder.parts[-3:] == ("smoke", "made", "seed0")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("huge", "made", 0), "PROFILE='huge': expected one of smoke, tiny"),
        (("smoke", "mad", 0), "DATA='mad'"),
        (("smoke", "made", -1), "SEED=-1: expected a whole number from 0 to 4294967295"),
        (("smoke", "made", "x"), "SEED='x': expected a whole number"),
    ],
)
def test_wrong_parameters_are_refused_in_one_sentence(arguments, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        Course(*arguments, tmp_path)


def test_a_row_learns_from_its_own_views(course, monkeypatch):
    for name in ("views", "source_views", "random_views", "shuffled_views"):
        monkeypatch.setattr(Course, name, lambda self, name=name: name)
    found = {name: course.views_of(row) for name, row in read_rows().items()}
    others = {
        "true sources": "source_views", "N random": "random_views", "S2 with shuffled places": "shuffled_views",
    }  # fmt: skip
    assert found == dict.fromkeys(found, "views") | others


@pytest.fixture
def short(monkeypatch):
    """Course whose trainings take a few steps."""
    profile = data_module.get_profile("smoke")
    steps = dict(snapshot_steps=dict(N=0, F=1, S1=2, S2=4), ablation_steps=2, separator_start="mdct")
    few = dataclasses.replace(profile, scenes=dict(train=24, validation=10, test=12), **steps)
    monkeypatch.setattr(data_module, "get_profile", lambda name: few)


@pytest.mark.once
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a whole course takes minutes on another backend")
def test_views_by_a_random_basis_and_of_shuffled_scenes_are_the_same_separators_on_other_inputs(short, tmp_path):
    course = Course("smoke", "made", 0, tmp_path)
    views, shuffled, by_random = course.views(), course.shuffled_views(), course.random_views()
    assert views.processors == shuffled.processors == ("N", "F", "S1", "S2") and by_random.processors == ("random",)
    np.testing.assert_array_equal(by_random.log_mel[:, 0], views.log_mel[:, 0])  # the same mixtures
    assert not np.array_equal(shuffled.log_mel[:, 0], views.log_mel[:, 0]) and len(shuffled) == len(views) == 24
    column = 1 + views.num_sources * 3
    separator, place = course.snapshots()[0]["S2"], 5
    for of, scenes in ((views, course.scenes["train"]), (shuffled, course.shuffled)):
        channels = to_numpy(separator(scenes[place].mixture[None]))[0]
        np.testing.assert_allclose(of.log_mel[place, column], to_numpy(LogMel()(channels[:1]))[0], atol=0.02)
    # N's basis is the MDCT of this profile; the other one is drawn, from the same seed each time.
    drawn, again, other = (new_separator(course.profile, seed, "random").get_weights() for seed in (0, 0, 1))
    differing = [not np.array_equal(*pair) for pair in zip(drawn, new_separator(course.profile, 0).get_weights())]
    assert 1 <= sum(differing) <= 2, "the basis, and that of the way back"
    assert all(np.array_equal(*pair) for pair in zip(drawn, again))
    assert not all(np.array_equal(*pair) for pair in zip(drawn, other))


@pytest.mark.once
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a whole course takes minutes on another backend")
def test_a_policy_is_that_of_the_encoders_that_are_trained_and_of_nothing_else(short, tmp_path):
    course, plain = Course("smoke", "made", 0, tmp_path), Course("smoke", "made", 0, tmp_path)
    course.policy = "mixed_bfloat16"
    before, (separators, _) = keras.config.dtype_policy().name, course.snapshots()
    encoder, _ = course.encoder("S2∨N joint", seed=1, show=False)
    supervised, _ = course.supervised_encoder(1)
    for network in (encoder, supervised):
        assert network.dtype_policy.name == "mixed_bfloat16"
        assert {layer.dtype_policy.name for layer in network._flatten_layers()} == {"mixed_bfloat16"}
        assert {str(variable.dtype) for variable in network.variables} == {"float32"}
        h = course.embeddings(network)["test"]
        assert h.dtype == np.float32 and np.isfinite(h).all()
    for separator in separators.values():
        assert {layer.dtype_policy.name for layer in separator._flatten_layers()} == {"float32"}
    assert keras.config.dtype_policy().name == before == course.untrained_encoder().dtype_policy.name
    other, _ = plain.encoder("S2∨N joint", seed=1, show=False)  # made anew, and not taken for the same
    assert other.dtype_policy.name == "float32"


def test_another_draw_has_other_scenes_and_the_course_keeps_its_own(tmp_path):
    plain, first, other = (
        Course("smoke", "made", 1, tmp_path),
        *(Course("smoke", "made", 1, tmp_path, n) for n in (0, 1)),
    )
    assert first.scenes["train"].definition == plain.scenes["train"].definition
    for split in ("train", "test"):
        assert other.scenes[split].definition != plain.scenes[split].definition
        assert other.scenes[split][0].mixture.tobytes() != plain.scenes[split][0].mixture.tobytes()
    assert other._data_definition() != plain._data_definition()
    assert other.shuffled.bank is other.bank and len(other.shuffled) == len(other.scenes["train"])


@pytest.mark.once
def test_few_recordings_get_few_test_scenes(tmp_path, monkeypatch):
    events = dict(train=4, validation=2, test=1)
    profile = dataclasses.replace(
        data_module.get_profile("smoke"), events_per_class=events, scenes=dict(train=250, validation=32, test=250)
    )
    monkeypatch.setattr(data_module, "get_profile", lambda name: profile)
    course = Course("smoke", "made", 0, tmp_path)
    assert {split: len(scenes) for split, scenes in course.scenes.items()} == dict(train=250, validation=32, test=216)
    events["test"] = 2  # twelve scenes for each of eighteen: room for all
    assert len(Course("smoke", "made", 0, tmp_path).scenes["test"]) == 250


def test_a_supervised_encoder_of_another_seed_is_of_the_ablations_size(course, monkeypatch):
    def train(given, profile, seed, folder):
        assert list(given) == ["train", "validation"]
        np.testing.assert_array_equal(given["validation"][1], course.labels["validation"])
        raise Stopped(profile.width, profile.supervised_steps, seed)

    sizes = dict(width=6, ablation_width=2, supervised_steps=5, ablation_steps=3)
    course.profile = dataclasses.replace(course.profile, **sizes)
    monkeypatch.setattr(course_module, "train_supervised", train)
    monkeypatch.setattr(Course, "log_mel", lambda self, split: None)
    for seed, expected in ((None, (6, 5, 0)), (3, (2, 3, 3))):
        with pytest.raises(Stopped) as stopped:
            course.supervised_encoder(seed)
        assert stopped.value.args == expected


def test_the_untrained_encoder_depends_on_the_seed_alone(course):
    one = course.untrained_encoder()
    keras.random.uniform((3,))  # somebody draws in between
    two = course.untrained_encoder()
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_damaged_network_is_named(course):
    def make(folder):
        (folder / "N.keras").write_bytes(b"PK")

    with pytest.raises(BadInput, match="network: expected a whole artifact, but .*; delete the folder"):
        course.load_or_train("network", {}, make, lambda folder: keras.saving.load_model(folder / "N.keras"))


@pytest.mark.once
@pytest.mark.skipif(not ESC10.exists(), reason="the recordings of ESC-10 are not beside this checkout")
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a whole course takes minutes on another backend")
def test_a_few_steps_on_real_recordings(tmp_path, monkeypatch):
    profile = data_module.get_profile("smoke")
    small = dataclasses.replace(profile, snapshot_steps=dict(N=0, F=1, S1=2, S2=4), pretraining_steps=4)
    monkeypatch.setattr(data_module, "get_profile", lambda name: small)
    course = Course("smoke", str(ESC10), 0, tmp_path)
    snapshots, history = course.snapshots()
    assert len(history["first_losses"]) == 4 and np.isfinite(history["loss"]).all()
    mixture = course.scenes["test"][0].mixture
    np.testing.assert_allclose(to_numpy(snapshots["S2"](mixture[None])).sum(axis=1)[0], mixture, atol=1e-5)
    for name in ("triplet joint", "mix-mix with mix-back", "S2∨F∨N joint d=1024"):
        encoder, history = course.encoder(read_rows()[name], seed=1, show=False)
        assert np.isfinite(history["loss"]).all() and encoder.embedding_dim == (1024 if "1024" in name else 32)
    encoder, history = course.encoder()
    results = course.evaluate(course.embeddings(encoder))
    for name in ("map", "linear_map", "d_prime"):
        low, high = results.pop(f"{name}_interval")
        assert low < results[name] < high
    assert np.isfinite(list(results.values())).all() and results["map"] > results["chance"]


def test_a_backend_that_is_slow_on_this_device_is_named(tmp_path, capsys):
    Course("smoke", "made", 0, tmp_path)
    said, name = capsys.readouterr().out, keras.backend.backend()
    assert (f"Keras runs on {name} on a CPU" in said) == (name != "tensorflow" and not backend.has_gpu())
    assert "oneDNN" not in said


@pytest.mark.once
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or backend.has_gpu() or sys.platform == "darwin",
    reason="oneDNN is TensorFlow's, on a CPU, and not on macOS",
)
@pytest.mark.parametrize(
    "asked, advised", [({}, False), ({"TF_ENABLE_ONEDNN_OPTS": "1"}, False), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, True)]
)
def test_the_library_asks_for_tensorflows_fast_convolutions_and_names_where_they_are_missing(asked, advised):
    environment = {key: value for key, value in os.environ.items() if key != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3"} | asked
    program = [sys.executable, "-c", "from sepcl_keras.core import backend; print(backend.advice())"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert ("TF_ENABLE_ONEDNN_OPTS=1, set before Keras is imported" in done.stdout) == advised


@pytest.mark.parametrize(("gpu", "cores", "number"), [(True, 8, 1), (False, 8, 4), (False, 2, 2), (False, 1, 1)])
def test_processes_side_by_side_need_a_core_each_and_a_gpu_is_for_one(monkeypatch, gpu, cores, number):
    monkeypatch.setattr(backend, "has_gpu", lambda: gpu)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert backend.processes(4) == number


@pytest.mark.once
def test_importing_the_library_prints_nothing():
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    program = [sys.executable, "-c", "import sepcl_keras"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_names_that_are_none_are_refused_with_those_that_are(course):
    for door, expected in (
        (lambda: course.encoder("S3"), "row='S3': expected one of .*S2∨F∨N joint"),
        (lambda: course.encoder(3), "row=3: expected one of"),
        (lambda: course.log_mel("nope"), "split='nope': expected one of train, validation, test"),
        (lambda: course.embeddings(None), "embeddings of None: expected a CNN14, or one of log-mel statistics"),
        (lambda: course.embeddings("nope"), "embeddings of 'nope': expected"),
        (lambda: course.record("03", x=float("nan")), "record 03: expected what JSON holds"),
        (lambda: course.record("03", x=np.zeros(3)), "record 03: expected what JSON holds"),
    ):
        with pytest.raises(BadInput, match=expected):
            door()
    assert not (course.folder / "results").exists()


def test_a_rows_name_stands_for_the_row(course, monkeypatch):
    asked = []
    monkeypatch.setattr(Course, "load_or_train", lambda self, name, definition, *rest, **kw: asked.append(definition))
    course.encoder("N joint", seed=1)
    course.encoder(read_rows()["N joint"], seed=1)
    assert asked[0] == asked[1]


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "[" * 100_000])
def test_a_manifest_or_results_of_another_kind_are_one_sentence(course, content):
    counting(course, {"a": 1}, [])
    (course.folder / "thing" / "manifest.json").write_text(content)
    with pytest.raises(BadInput, match="manifest.json: (holds .*; expected a JSON dict; delete|expected a readable)"):
        counting(Course("smoke", "made", 0, course.folder.parents[2]), {"a": 1}, [])
    (course.folder / "results").mkdir()
    (course.folder / "results" / "03.json").write_text(content)
    with pytest.raises(BadInput, match="03.json: "):
        course.results("03")


@pytest.mark.once
def test_log_mel_is_written_in_parts_and_its_damage_is_found(course, tmp_path):
    log_mel = course.log_mel("test")
    layer = keras.Sequential([LogMel()])
    scene = course.scenes["test"][5].mixture
    np.testing.assert_allclose(log_mel[5], to_numpy(layer(scene[None]))[0], atol=5e-3)
    folder = course.folder / "log_mel" / "test"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checked.json",
        "checksums.json",
        "log_mel.npy",
        "manifest.json",
    ]
    data = bytearray((folder / "log_mel.npy").read_bytes())
    data[-1000] ^= 1
    (folder / "log_mel.npy").write_bytes(data)
    again = Course("smoke", "made", 0, tmp_path)
    with pytest.raises(BadInput, match="log_mel.npy: changed since it was written.*; delete"):
        again.log_mel("test")
    (folder / "log_mel.npy").write_bytes(b"")
    with pytest.raises(BadInput, match="log_mel.npy: expected a whole array"):
        again.log_mel("test")


def esc_like(folder, level=0.5):
    """A data set of three classes and four folds, in the layout of ESC-50; a clip is a tone with noise."""
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    rng, lines = np.random.default_rng(0), ["filename,fold,category,src_file"]
    for fold in range(1, 5):
        for label in ("a", "b", "c"):
            for take in range(3):
                name = f"{fold}-{label}-{take}.wav"
                lines.append(f"{name},{fold},{label},{fold}{label}{take}")
                audio.write(folder / "audio" / name, level * rng.standard_normal(4_000).clip(-1, 1))
    (folder / "meta" / "esc50.csv").write_text("\n".join(lines))
    return folder


def test_data_of_one_name_and_data_called_made_have_folders_of_their_own(tmp_path):
    folders = [esc_like(tmp_path / "x" / "mine"), esc_like(tmp_path / "y" / "mine", 0.2), esc_like(tmp_path / "made")]
    found = {Course("smoke", str(data), 0, tmp_path / "out").folder for data in folders}
    assert len(found) == 3 and Course("smoke", "made", 0, tmp_path / "out").folder not in found
    assert sorted(folder.parent.name.partition("-")[0] for folder in found) == ["made", "mine", "mine"]
    copy = shutil.copytree(folders[0], tmp_path / "z" / "mine")
    assert Course("smoke", str(copy), 0, tmp_path / "out").folder in found  # the same sounds
