"""Recordings longer than a scene in shards: all of their scenes, none of a broken one, and no more memory for them."""

import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from views.test_prepare import KILLED, content, options, separator  # noqa: F401 (the fixture)
from views.test_shards import PROCESSORS, SAMPLES, SECONDS, Bands, Clip, write_sounds

from sepcl_keras.core.checks import BadInput
from sepcl_keras.prepare import main
from sepcl_keras.scenes import audio
from sepcl_keras.scenes.recorded import pieces
from sepcl_keras.views import preparation
from sepcl_keras.views.log_mel import LogMel
from sepcl_keras.views.preparation import Preparation, ShardWriter, write_shard
from sepcl_keras.views.stored import Views


def write_long(path, scenes, silent=(), seed=9):
    """So many scenes and a rest of 0.6 of one, each louder than the one before."""
    rng = np.random.default_rng(seed)
    sound = 0.001 * rng.standard_normal(round((scenes + 0.6) * SAMPLES))
    sound *= 1 + np.arange(len(sound)) // SAMPLES
    for number in silent:
        sound[number * SAMPLES : (number + 1) * SAMPLES] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    return sound.astype("float32")


def test_a_long_file_gives_all_its_scenes_in_order_as_the_course_has_them(tmp_path):
    sound = write_long(tmp_path / "long.wav", 7, silent=(2,))
    short = write_sounds(tmp_path / "short", 2)
    clips = [short[0], Clip("long.wav", tmp_path / "long.wav"), short[1]]
    about = write_shard(clips, {}, tmp_path / "a.npz", seconds=SECONDS, batch_size=4)
    assert about["clips"] == 9 and about["rejected"] == []
    scenes = pieces(tmp_path / "long.wav", SAMPLES, 16_000, most=100)
    assert [first // SAMPLES for first, _ in scenes] == [0, 1, 3, 4, 5, 6, 7], "all but the silent one, with the rest"
    with np.load(tmp_path / "a.npz") as shard:
        seconds = [number * SECONDS for number in (1, 3, 4, 5, 6, 7)]
        names = ["long.wav", *(f"long.wav, from {second:.1f} s" for second in seconds)]
        assert shard["ids"].tolist() == [short[0].id, *names, short[1].id]
        for row, number in ((1, 0), (4, 4), (6, 6)):
            stretch = sound[number * SAMPLES : (number + 1) * SAMPLES]
            stretch = stretch * np.float32(0.1 / audio.active_level(stretch))
            expected = np.asarray(LogMel()(stretch[None]))[0]
            np.testing.assert_allclose(shard["log_mel"][row, 0], expected, atol=4e-3)
        rest = np.asarray(LogMel()(np.stack([scenes[-1][1]])))[0]
        np.testing.assert_allclose(shard["log_mel"][7, 0], rest, atol=4e-3)


def test_the_scenes_of_a_long_file_do_not_depend_on_its_neighbours(tmp_path):
    write_long(tmp_path / "long.wav", 5)
    clips = [*write_sounds(tmp_path / "short", 3), Clip("long.wav", tmp_path / "long.wav")]
    write_shard(clips, PROCESSORS, tmp_path / "a.npz", seconds=SECONDS, batch_size=4)
    write_shard(clips[3:], PROCESSORS, tmp_path / "b.npz", seconds=SECONDS, batch_size=4)
    with np.load(tmp_path / "a.npz") as many, np.load(tmp_path / "b.npz") as alone:
        np.testing.assert_array_equal(many["log_mel"][3:], alone["log_mel"])
        np.testing.assert_array_equal(many["level"][3:], alone["level"])


def test_of_a_file_that_is_broken_at_its_end_no_scene_is_taken(tmp_path):
    sound = write_long(tmp_path / "nan.wav", 6)
    sound[-5] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, 16_000, subtype="FLOAT")
    clips = [*write_sounds(tmp_path / "short", 2), Clip("nan.wav", tmp_path / "nan.wav")]
    about = write_shard(clips, {}, tmp_path / "a.npz", seconds=SECONDS)
    assert about["rejected"] == [["nan.wav", "nan.wav: expected finite samples, but the file holds NaN or infinity."]]
    with np.load(tmp_path / "a.npz") as shard:
        assert shard["ids"].tolist() == [clip.id for clip in clips[:2]]


def test_a_file_that_breaks_while_its_scenes_are_taken_ends_with_a_sentence_and_no_shard(tmp_path, monkeypatch):
    write_long(tmp_path / "long.wav", 5)
    whole, reads = preparation.stretches, []

    def stretches(path, *sizes):
        reads.append(path)
        for number, piece in enumerate(whole(path, *sizes)):
            if len(reads) == 2 and number == 3:
                raise BadInput(f"{path}: ends before it should.")
            yield piece

    monkeypatch.setattr(preparation, "stretches", stretches)
    with pytest.raises(BadInput, match="long.wav: ends before it should. It was whole a moment ago"):
        write_shard([Clip("long.wav", tmp_path / "long.wav")], {}, tmp_path / "out" / "a.npz", seconds=SECONDS)
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.once
@pytest.mark.parametrize("where, when", [("separate", 6), ("write", 2)])
def test_killed_within_a_long_file_and_started_again_ends_with_the_same_bytes(
    separator,  # noqa: F811
    tmp_path, where, when,
):  # fmt: skip
    """Of 30 scenes, in batches of eight by three processors: killed in the second batch, or within the file."""
    write_long(tmp_path / "data" / "long.wav", 30)
    write_sounds(tmp_path / "data", 3)
    arguments = lambda out: [str(tmp_path / "data"), str(out), *options("--separator", separator)]  # noqa: E731
    assert main(arguments(tmp_path / "through"))["clips"] == 34
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, where, str(when), *arguments(tmp_path / "killed")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert not [*(tmp_path / "killed").glob("shard-*.npz")]
    assert main(arguments(tmp_path / "killed"))["clips"] == 34
    assert content(tmp_path / "killed") == content(tmp_path / "through")
    views = Views(tmp_path / "killed")
    assert len(views) == 34 and views.shape[1] == 7


def test_a_preparation_of_when_long_files_gave_one_scene_is_not_gone_on_with(tmp_path, monkeypatch):
    clips = write_sounds(tmp_path / "data", 3)
    monkeypatch.setattr(preparation, "FORMAT", "sepcl_keras shard 1")
    Preparation(clips, ShardWriter({}, SECONDS), tmp_path / "views")
    monkeypatch.undo()
    with pytest.raises(BadInput, match="plan.json: of another preparation, by its recipe"):
        Preparation(clips, ShardWriter({}, SECONDS), tmp_path / "views")


@pytest.mark.once
def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path, monkeypatch):
    """What NumPy holds; log-mel is made by a stand-in, because tracing its small arrays would take minutes."""
    peaks, writer = [], ShardWriter({"low": Bands(1000)}, SECONDS, batch_size=4)
    shape = (writer.views, writer.recipe["frames"], 64)
    monkeypatch.setattr(
        writer, "_made", lambda batch, _: (np.ones((len(batch), *shape), "f2"), np.zeros((len(batch), shape[0]), "f4"))
    )
    for minutes in (10, 40):
        with soundfile.SoundFile(tmp_path / f"{minutes}.wav", "w", 16_000, 1, "PCM_U8") as file:
            for _ in range(minutes):
                file.write(0.1 * np.random.default_rng(0).standard_normal(960_000))
        tracemalloc.start()
        about = writer([Clip("a", tmp_path / f"{minutes}.wav")], tmp_path / f"{minutes}.npz")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert about["clips"] == minutes * 48
    assert peaks[1] < 1.2 * peaks[0] < 25e6  # of which NumPy writes by 16; 40 minutes are 154, their views here 92
