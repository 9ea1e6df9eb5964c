"""Recorded scenes: what is taken of a file, what is refused, crops in place of labels, events to mix."""

import numpy as np
import pytest
from published import KINDS, RATE, save, sound

from sepcl_keras.core.checks import BadInput
from sepcl_keras.scenes import recorded
from sepcl_keras.scenes.audio import active_level
from sepcl_keras.scenes.layouts import open_recordings
from sepcl_keras.scenes.mixing import Scenes
from sepcl_keras.scenes.splits import SPLITS

pytestmark = pytest.mark.filterwarnings("error")
ALL = dict.fromkeys(SPLITS, 1000)


def written(folder, name, numbers=ALL, seconds=5.0):
    KINDS[name](folder / name)
    listing = open_recordings(folder / name)
    target = folder / "made"
    target.mkdir()
    found = recorded.write_recordings(target, listing, numbers, round(seconds * RATE), RATE, show=False)
    return listing, found, np.load(target / recorded.WAVEFORMS)


def scenes_of(listing, found, waveforms):
    made, first = {}, 0
    for split, rows in found["scenes"].items():
        part = waveforms[first : first + len(rows)]
        made[split], first = recorded.RecordedScenes(split, part, rows, listing.classes, RATE, {}), first + len(rows)
    return made


def test_short_recordings_are_repeated_and_long_ones_cut(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.02, 23 * RATE).astype("float32")
    save(tmp_path / "short.wav", noise[: 2 * RATE], subtype="FLOAT")
    ((first, waveform),) = recorded.pieces(tmp_path / "short.wav", 5 * RATE, RATE)
    assert first == 0 and waveform.shape == (5 * RATE,)
    np.testing.assert_allclose(waveform[: 2 * RATE], waveform[2 * RATE : 4 * RATE])
    scale = waveform[0] / noise[0]
    np.testing.assert_allclose(waveform[: 2 * RATE], noise[: 2 * RATE] * scale, rtol=1e-5)
    assert active_level(waveform, RATE) == pytest.approx(0.1, rel=1e-4)

    noise[10 * RATE : 15 * RATE] *= 4  # the third of four stretches and a rest of 3 s
    save(tmp_path / "long.wav", noise, subtype="FLOAT")
    firsts = [first // RATE for first, _ in recorded.pieces(tmp_path / "long.wav", 5 * RATE, RATE, most=9)]
    assert firsts == [0, 5, 10, 15, 20], "with the rest, repeated"
    assert [first // RATE for first, _ in recorded.pieces(tmp_path / "long.wav", 5 * RATE, RATE)] == [10], "the loudest"
    save(tmp_path / "less.wav", noise[: 22 * RATE], subtype="FLOAT")
    assert len(recorded.pieces(tmp_path / "less.wav", 5 * RATE, RATE, most=9)) == 4, "a rest of 2 of 5 s is left out"


def test_the_peak_of_a_recording_stays_below_full_scale(tmp_path):
    waveform = np.full(5 * RATE, 1e-4, "float32")
    waveform[::RATE] = 0.5  # clicks, 74 dB above the rest
    save(tmp_path / "clicks.wav", waveform, subtype="FLOAT")
    ((_, found),) = recorded.pieces(tmp_path / "clicks.wav", 5 * RATE, RATE)
    assert np.abs(found).max() <= 0.99 + 1e-6


@pytest.mark.parametrize(
    ("waveform", "sentence"),
    [(np.zeros(RATE), "the file is silent"), (0.1 * np.ones(160), "at least 0.1 s of sound, but it lasts 0.010 s")],
    ids=["silent", "short"],
)
def test_no_scene(tmp_path, waveform, sentence):
    save(tmp_path / "a.wav", waveform)
    with pytest.raises(BadInput, match=sentence):
        recorded.pieces(tmp_path / "a.wav", 5 * RATE, RATE)


def test_each_clip_that_cannot_be_used_is_named_with_the_reason(tmp_path):
    listing, found, waveforms = written(tmp_path, "fsd50k")
    assert set(found["refused"]) == {"102", "103", "104"}
    assert "no sound file" in found["refused"]["102"] and "silent" in found["refused"]["103"]
    assert found["refused"]["104"].startswith("expected at least 0.1 s")
    assert waveforms.shape == (sum(map(len, found["scenes"].values())), 5 * RATE) and np.isfinite(waveforms).all()
    ids = {row[0] for rows in found["scenes"].values() for row in rows}
    assert ids | set(found["refused"]) == {str(100 + k) for k in range(120)} and not ids & set(found["refused"])
    assert len({row[0] for row in found["scenes"]["train"]}) == 58, "60 less the one without a file and the silent one"


def test_rows_and_waveforms_belong_together(tmp_path):
    listing, found, waveforms = written(tmp_path, "audioset", dict.fromkeys(SPLITS, 12))
    scenes, paths = scenes_of(listing, found, waveforms), {clip.id: clip.path for clip in listing.clips}
    assert [len(scenes[split]) for split in SPLITS] == [12, 12, 12]
    for split in SPLITS:
        for index, (name, first, recording, labels) in enumerate(found["scenes"][split]):
            pieces = dict(recorded.pieces(paths[name], 5 * RATE, RATE, most=9))
            np.testing.assert_array_equal(scenes[split][index].mixture, pieces[round(first * RATE)])
            assert scenes[split].labels[index].sum() == len(labels) == 2
            assert scenes[split][index].sources is None and scenes[split][index].recordings == (recording,)


def test_the_same_listing_gives_the_same_scenes_and_another_number_a_beginning(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    _, few, _ = written(tmp_path / "a", "urbansound8k", dict.fromkeys(SPLITS, 8))
    _, more, _ = written(tmp_path / "b", "urbansound8k", dict.fromkeys(SPLITS, 10))
    for split in SPLITS:
        assert more["scenes"][split][:8] == few["scenes"][split]


def test_too_few_that_sound(tmp_path):
    for k in range(9):
        save(tmp_path / "field" / f"{k}.wav", sound(k)[0])
    listing = open_recordings(tmp_path / "field")
    with pytest.raises(BadInput, match="field: 1 scenes for train; expected at least 8 that sound"):
        recorded.write_recordings(tmp_path, listing, ALL | {"train": 1}, RATE, RATE, show=False)


def test_crops_of_recordings_stand_for_labels(tmp_path):
    listing, found, waveforms = written(tmp_path, "field")
    test = scenes_of(listing, found, waveforms)["test"]
    crops = {split: recorded.Crops(test, split) for split in SPLITS}
    recordings = {recording for (recording,) in test.recordings}
    for split, share in (("train", 2), ("validation", 1), ("test", 2)):
        assert len(crops[split]) == share * len(test) and crops[split].samples == RATE
        assert set(crops[split].classes) == recordings and (crops[split].labels.sum(axis=1) == 1).all()
        assert len(set(crops[split].recordings)) == len(crops[split]), "no crop bars another"
    whole = np.concatenate([crops["train"][0].mixture, crops["train"][1].mixture, crops["validation"][0].mixture])
    np.testing.assert_array_equal(whole, test[0].mixture[: 3 * RATE])
    np.testing.assert_array_equal(crops["test"][1].mixture, test[0].mixture[4 * RATE :])
    assert crops["test"][0].labels == test.recordings[0]


@pytest.mark.parametrize("name", ["field", "urbansound8k"])
def test_recordings_are_mixed_where_sources_must_be_known(tmp_path, name):
    listing, found, waveforms = written(tmp_path, name)
    scenes = scenes_of(listing, found, waveforms)
    bank = recorded.RecordingBank("b", scenes, RATE)
    assert (bank.classes[0] == "group A") == (name == "field")
    for split in SPLITS:
        assert {event.label for event in bank.events(split)} <= set(bank.classes)
        mixed = Scenes(bank, split, 12)
        for scene in mixed:
            np.testing.assert_allclose(scene.sources.sum(axis=0), scene.mixture, atol=1e-6)
            assert len(set(scene.recordings)) == len(scene.recordings)
        assert {recording for found in mixed.recordings for recording in found} <= {
            r for (r,) in scenes[split].recordings
        }
