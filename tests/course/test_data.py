"""The course on recorded scenes: what it learns from, what it is judged by, and what it says that it cannot."""

import dataclasses

import keras
import numpy as np
import pytest
from published import KINDS

from sepcl_keras.core.checks import BadInput
from sepcl_keras.course import data as data_module
from sepcl_keras.course.course import Course
from sepcl_keras.course.slides import read_rows
from sepcl_keras.scenes.splits import SPLITS

pytestmark = pytest.mark.once

SMALL = dict(snapshot_steps=dict(N=0, F=1, S1=2, S2=4), pretraining_steps=4, supervised_steps=4, ablation_steps=2)
SMALL["scenes"] = dict(train=24, validation=10, test=12)


@pytest.fixture
def open_course(tmp_path, monkeypatch):
    small = dataclasses.replace(data_module.get_profile("smoke"), **SMALL)
    monkeypatch.setattr(data_module, "get_profile", lambda name: small)

    def open_(kind, **arguments):
        if not (tmp_path / kind).exists():
            KINDS[kind](tmp_path / kind)
        return Course("smoke", str(tmp_path / kind), 0, tmp_path / "out", **arguments)

    return open_


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a whole course takes minutes on another backend")
@pytest.mark.parametrize("kind", ["field", "audioset"])
def test_a_few_steps_on_recorded_scenes(open_course, kind, capsys):
    course = open_course(kind)
    assert [len(course.scenes[split]) for split in SPLITS] == [24, 10, 12]
    views = course.views()
    assert views.log_mel.shape[0] == 24
    encoder, history = course.encoder(read_rows()["S2∨F∨N joint"], seed=1, show=False)
    assert np.isfinite(history["loss"]).all()
    supervised, _ = course.supervised_encoder()
    for network in (encoder, supervised):
        results = course.evaluate(course.embeddings(network))
        assert 0 < results["map"] <= 1 and 0 < results["qbe"] <= 1 and results["skipped"] < len(course.classes)
    records = course.separation(most=2)
    assert {"mixture", "ideal", "N", "S2"} <= set(records)
    with pytest.raises(BadInput, match="recorded scenes have no known sources"):
        course.source_views()
    course.record("08", map=results["map"])
    said = dict(course.about_data())
    assert said["scenes for test"] == 12 and ("none" in said["labels"]) == (kind == "field")
    assert any("Nobody gave labels" in sentence for sentence in course.about_scenes()) == (kind == "field")
    capsys.readouterr()
    assert open_course(kind).results("08") == {"map": results["map"]}
    assert "making it now" not in capsys.readouterr().out, "recordings are read once"


def test_without_labels_recordings_of_the_test_are_told_apart(open_course):
    course = open_course("field")
    labels = course.labels
    assert len(course.classes) == 12 == labels["test"].shape[1]
    assert [len(labels[split]) for split in SPLITS] == [24, 12, 24]
    assert set(course.classes) == {recording for (recording,) in course.scenes["test"].recordings}
    assert course.log_mel("train").shape[:2] == (24, 98), "crops of a second"


def test_other_files_make_another_folder_of_artifacts(open_course):
    before = open_course("field")
    path = next(clip.path for clip in before.listing.clips if clip.id == before.scenes["train"].ids[0])
    path.write_bytes(path.read_bytes() + b"\0\0")
    after = open_course("field")
    assert before.folder != after.folder


def test_a_profile_that_wants_more_recordings_is_told(open_course, monkeypatch):
    small = data_module.get_profile("smoke")
    monkeypatch.setattr(data_module, "get_profile", lambda name: dataclasses.replace(small, batch_size=25))
    with pytest.raises(BadInput, match="24 scenes to train with; expected 25 or more"):
        open_course("field")
