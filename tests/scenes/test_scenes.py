"""Banks and scenes: what a scene promises, what separates the splits, and every way a folder can be bad."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import combinations

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from sepcl_keras.core.checks import BadInput
from sepcl_keras.course.profiles import get_profile
from sepcl_keras.scenes import audio, banks, made_sounds, mixing
from sepcl_keras.scenes.banks import SPLITS, TABLES, Bank, Esc50Bank, Event, MadeBank, _read_places, open_bank
from sepcl_keras.scenes.layouts import Clip
from sepcl_keras.scenes.mixing import Scenes
from sepcl_keras.scenes.splits import split_clips

ESC10 = ROOT.parent / "shared" / "esc10"
PITCHES = {"dog": 300, "rain": 600, "rooster": 900, "clock_tick": 1_200, "sneezing": 1_500}


@pytest.fixture(scope="module")
def made():
    return MadeBank({"train": 3, "validation": 2, "test": 2})


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A folder like ESC-50: five classes, four folds, four formats, two clips of each recording."""
    folder = tmp_path_factory.mktemp("data") / "little"
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    rows, time = [], np.arange(44_100) / 44_100
    for fold, suffix in enumerate(("wav", "flac", "ogg", "mp3"), start=1):
        for target, (label, pitch) in enumerate(PITCHES.items()):
            for take in "AB":
                name = f"{fold}-{100 * fold + target}-{take}-{target}.{suffix}"
                sound = 0.1 * fold * np.sin(2 * np.pi * pitch * time)
                soundfile.write(folder / "audio" / name, np.concatenate([sound, np.zeros(22_050)]), 44_100)
                rows.append([name, fold, target, label, True, 100 * fold + target, take])
    write_table(folder, ["filename", "fold", "target", "category", "esc10", "src_file", "take"], rows)
    return folder


@pytest.fixture
def little(pristine, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(pristine, tmp_path / "little")


def write_table(folder, header, rows):
    with open(folder / "meta" / "esc50.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def read_table(folder):
    with open(folder / "meta" / "esc50.csv", newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def change(folder, column, value, row=0):
    header, rows = read_table(folder)
    rows[row][header.index(column)] = value
    write_table(folder, header, rows)


def together(table):
    """Pairs of classes that some place lets meet."""
    with open(TABLES / table, newline="") as file:
        rows = list(csv.DictReader(file))
    places = [{row["label"] for row in rows if row["place"] == place} for place in {row["place"] for row in rows}]
    return {frozenset(pair) for labels in places for pair in combinations(labels, 2)}


# ---------------------------------------------------------------------------------------------------------- any scenes


@pytest.mark.parametrize("kind", ("made", "folder"))
def test_what_each_scene_promises(kind, made, pristine):
    bank = made if kind == "made" else Esc50Bank(pristine)
    some = Scenes(bank, "train", 60)
    assert len(some) == len(some.plans) == len(some.labels) == len(some.number_of_events) == 60
    for row, number, scene in zip(some.labels, some.number_of_events, some, strict=True):
        assert scene.mixture.shape == (80_000,) and scene.mixture.dtype == scene.sources.dtype == np.float32
        assert scene.sources.shape == (number, 80_000) and 1 <= number <= 3
        np.testing.assert_array_equal(scene.sources.sum(axis=0), scene.mixture)
        assert np.abs(scene.mixture).max() <= 1
        assert {bank.classes[i] for i in np.flatnonzero(row)} == set(scene.labels)
        assert len(set(scene.labels)) == len(set(scene.recordings)) == len(scene.onsets) == number
        assert set(scene.labels) <= set(bank.places[scene.place])
        for source, onset in zip(scene.sources, scene.onsets, strict=True):
            assert np.flatnonzero(source)[0] == pytest.approx(16_000 * onset, abs=1)


def test_sources_sound_as_labelled(pristine):
    for scene in Scenes(Esc50Bank(pristine), "test", 30):
        for source, label in zip(scene.sources, scene.labels, strict=True):
            spectrum = np.abs(np.fft.rfft(source))
            assert spectrum.argmax() / 5.0 == pytest.approx(PITCHES[label], abs=2)


def test_labels_need_no_sound(made, monkeypatch):
    monkeypatch.setattr(MadeBank, "load", lambda *_: pytest.fail("a sound was loaded"))
    some = Scenes(made, "validation", 50)
    assert some.labels.dtype == np.float32 and some.labels.shape == (50, len(made_sounds.CLASSES))
    np.testing.assert_array_equal(some.labels.sum(axis=1), some.number_of_events)
    assert set(np.unique(some.labels)) == {0.0, 1.0}


def test_numbers_of_events_follow_the_stated_probabilities(made):
    shares = np.bincount(Scenes(made, "train", 4_000).number_of_events, minlength=4) / 4_000
    np.testing.assert_allclose(shares, (0, 0.2, 0.45, 0.35), atol=0.03)  # four standard errors


@pytest.mark.parametrize("table", ("made.csv", "esc10.csv"))
def test_not_all_classes_meet_and_none_is_rare(table):
    """A bank of nothing but names has to do: scenes are drawn before a sound is loaded."""
    places = _read_places(TABLES / table)
    classes = sorted(set().union(*places.values()))
    events = {"train": [Event(label, f"{label} {i}", i) for label in classes for i in range(3)]}
    labels = Scenes(Bank("names", classes, places, events, 16_000, {}), "train", 4_000).labels
    often = labels.T @ labels
    met = {frozenset((classes[i], classes[j])) for i, j in np.argwhere(often) if i != j}
    assert met == together(table)
    assert len(met) < 0.8 * len(classes) * (len(classes) - 1) / 2
    assert np.diag(often).max() < 2.2 * np.diag(often).min()


def test_a_longer_list_begins_with_the_shorter(made):
    short, long = Scenes(made, "train", 5), Scenes(made, "train", 12)
    np.testing.assert_array_equal(short.labels, long.labels[:5])
    np.testing.assert_array_equal(short.mixtures(show=False), long.mixtures(show=False)[:5])


def test_scenes_are_the_same_each_time_in_any_order(made):
    again = MadeBank({"train": 3, "validation": 2, "test": 2})
    backwards = [Scenes(again, "test", 6)[i] for i in reversed(range(6))][::-1]
    np.random.seed(1)
    for scene, other in zip(Scenes(made, "test", 6), backwards, strict=True):
        np.testing.assert_array_equal(scene.sources, other.sources)
        assert scene.labels == other.labels and scene.onsets == other.onsets and scene.place == other.place


def test_splits_hold_different_scenes(made):
    first = {split: Scenes(made, split, 40).mixtures(show=False) for split in SPLITS}
    for one, other in combinations(first.values(), 2):
        assert not (one == other).all(axis=1).any()


def test_mixtures_renders_every_scene(made, capsys):
    some = Scenes(made, "train", 7, seconds=1.5)
    mixtures = some.mixtures()
    assert mixtures.shape == (7, 24_000) and mixtures.dtype == np.float32
    np.testing.assert_array_equal(mixtures, [scene.mixture for scene in some])
    assert "7/7" in capsys.readouterr().out


def test_an_index_outside_ends_a_loop(made):
    some = Scenes(made, "train", 3)
    np.testing.assert_array_equal(some[-1].mixture, some[np.int64(2)].mixture)
    with pytest.raises(IndexError):
        some[3]


def test_levels_lie_within_twelve_decibels(made):
    levels = []
    for scene in Scenes(made, "train", 80):
        if np.abs(scene.mixture).max() < 0.989:  # not scaled down
            levels += [audio.active_level(audio.trim_silence(source)) for source in scene.sources]
    decibels = 20 * np.log10(np.array(levels) / 0.1)
    assert len(levels) > 80
    assert -12.5 <= decibels.min() < -10.5 and -1.5 < decibels.max() <= 0.5
    assert np.mean(decibels) == pytest.approx(-6, abs=1.5)


def test_a_loud_scene_is_scaled_down_as_a_whole(made, monkeypatch):
    quiet = Scenes(made, "train", 20)[0]
    monkeypatch.setattr(mixing, "GAIN_DB", (40.0, 40.0))
    loud = [Scenes(made, "train", 20)[i] for i in range(20)]
    for scene in loud:
        assert np.abs(scene.mixture).max() == pytest.approx(0.99, abs=1e-5)
        np.testing.assert_array_equal(scene.sources.sum(axis=0), scene.mixture)
    assert loud[0].labels == quiet.labels and loud[0].onsets == quiet.onsets


def test_an_event_longer_than_the_scene_is_cut_where_it_sounds(little):
    """Three blips in a long file: whatever is cut out has to hold one of them."""
    long = np.zeros(20 * 16_000)
    for start in (16_000, 160_000, 300_000):
        long[start : start + 1_600] = np.sin(2 * np.pi * 500 * np.arange(1_600) / 16_000)
    _, rows = read_table(little)
    for row in rows:
        soundfile.write(little / "audio" / row[0], long, 16_000)
    starts = set()
    for scene in Scenes(Esc50Bank(little), "train", 30, seconds=1.0):
        assert scene.onsets == (0.0,) * len(scene.labels)
        assert (np.square(scene.sources).sum(axis=1) > 1e-3).all()
        starts |= {int(np.flatnonzero(source)[0]) for source in scene.sources}
    assert len(starts) > 10


@pytest.mark.parametrize(
    ("arguments", "reason"),
    (
        ({"split": "dev"}, "split='dev': expected one of train, validation, test"),
        ({"number": 0}, "positive number and length, not 0 scenes"),
        ({"seconds": 0.0}, r"not 4 scenes of 0\.0 s"),
        ({"seconds": float("nan")}, "not 4 scenes of nan s"),
        ({"sample_rate": 8_000}, "bank's rate of 16000 Hz, not 8000 Hz"),
    ),
)
def test_impossible_scenes_are_refused(made, arguments, reason):
    with pytest.raises(BadInput, match=reason):
        Scenes(made, **({"split": "train", "number": 4} | arguments))


# --------------------------------------------------------------------------------------------------------------- banks


def test_made_splits_share_no_event(made):
    events = {split: made.events(split) for split in SPLITS}
    assert {split: len(of) / len(made_sounds.CLASSES) for split, of in events.items()} == {
        "train": 3,
        "validation": 2,
        "test": 2,
    }
    everything = [event for of in events.values() for event in of]
    assert len({event.recording for event in everything}) == len(everything)
    rain = [made.load(event) for event in everything if event.label == "rain"]
    for one, other in combinations(rain, 2):
        assert len(one) != len(other) or not np.allclose(one, other)


def test_a_larger_made_bank_begins_with_the_smaller(made):
    larger = MadeBank({"train": 5, "validation": 2, "test": 2})
    event = made.events("train")[-1]
    assert event in larger.events("train")
    np.testing.assert_array_equal(made.load(event), larger.load(event))


def test_another_draw_makes_other_sounds_of_the_same_classes_and_the_first_stays_as_it_was(made):
    numbers = {"train": 3, "validation": 2, "test": 2}
    first, one, two = (MadeBank(numbers, draw=draw) for draw in (0, 1, 2))
    assert first.definition == made.definition and "draw" not in made.definition
    assert len({json.dumps(bank.definition, sort_keys=True) for bank in (first, one, two)}) == 3
    label, number = "rain", len(made.events("test"))
    np.testing.assert_array_equal(first.load(first.events("test")[-1]), made.load(made.events("test")[-1]))
    for split in SPLITS:
        events = [[event for event in bank.events(split) if event.label == label] for bank in (first, one, two)]
        assert [event.key for event in events[0]] == [(SPLITS.index(split), i) for i in range(numbers[split])]
        sounds = [bank.load(event) for bank, of in zip((first, one, two), events, strict=True) for event in of]
        assert len({sound.tobytes() for sound in sounds}) == 3 * numbers[split]
        assert all(len(bank.events(split)) == len(made.events(split)) for bank in (one, two))
    assert number == 2 * len(made_sounds.CLASSES)


def test_another_draw_plans_other_scenes_and_the_first_stays_as_it_was(made):
    numbers = {"train": 3, "validation": 2, "test": 2}
    banks_ = [MadeBank(numbers, draw=draw) for draw in (0, 1, 2)]
    scenes = [Scenes(bank, "train", 300) for bank in banks_]
    same = Scenes(made, "train", 300)
    assert [plan.events for plan in scenes[0].plans] == [plan.events for plan in same.plans]
    # Scene i of the course was always of these two numbers.
    rng = np.random.default_rng([SPLITS.index("train"), 7])
    assert list(made.places)[rng.integers(len(made.places))] == scenes[0].plans[7].place
    for one, other in combinations(scenes, 2):
        alike = [a.place == b.place and np.array_equal(a.draws, b.draws) for a, b in zip(one.plans, other.plans)]
        assert not any(alike)
        labels = (one.labels == other.labels).all(axis=1)
        assert labels.mean() < 0.2  # of one event in a fifth of the scenes, which may be the same by chance


@pytest.mark.parametrize("draw", (-1, 0.5, True, "1"))
def test_a_draw_is_a_whole_number(draw):
    with pytest.raises(BadInput, match="draw=.*: expected a whole number"):
        MadeBank({"train": 1, "validation": 1, "test": 1}, draw=draw)


@pytest.mark.parametrize("number", (3, 4, 5))
def test_draws_test_on_each_fold_with_each_other_for_validation_once(number):
    """The folds' numbers need not follow each other."""
    numbers = [2, 3, 5, 8, 13][:number]
    clips = [Clip(f"{fold}-{i}", None, ("dog",), fold, f"{fold}-{i}") for fold in numbers for i in range(fold)]
    found = []
    for draw in range(number * (number - 1)):
        kept, _, _ = split_clips(banks._turned(clips, draw), "folds")
        assert sorted(clip.id for clip in kept) == sorted(clip.id for clip in clips)
        folds = {split: {clip.id.split("-")[0] for clip in kept if clip.split == split} for split in SPLITS}
        assert (len(folds["test"]), len(folds["validation"]), len(folds["train"])) == (1, 1, number - 2)
        found.append((*folds["test"], *folds["validation"]))
    assert found[0] == (str(numbers[-1]), str(numbers[-2]))
    assert len(set(found)) == len(found) == number * (number - 1)
    tested = [test for test, _ in found[:number]]
    assert sorted(tested) == sorted(map(str, numbers))  # the first few draws test on all of them


def test_another_draw_of_a_folder_tests_on_another_fold_and_loses_no_clip(pristine):
    first, later = Esc50Bank(pristine, draw=0), [Esc50Bank(pristine, draw=draw) for draw in (1, 2, 3)]
    assert first.definition == Esc50Bank(pristine).definition and "draw" not in first.definition
    keys = sorted(event.key for split in SPLITS for event in first.events(split))
    tested = {"4"}
    for bank in later:
        assert sorted(event.key for split in SPLITS for event in bank.events(split)) == keys
        folds = {split: {event.key[0] for event in bank.events(split)} for split in SPLITS}
        assert [len(folds[split]) for split in SPLITS] == [2, 1, 1]
        tested |= folds["test"]
        assert bank.definition != first.definition and bank.places == first.places
    assert tested == {"1", "2", "3", "4"}
    assert open_bank(str(pristine), get_profile("smoke"), 2).definition == later[1].definition


def test_in_shuffled_scenes_any_classes_meet_and_the_events_are_the_same(made):
    plain, shuffled = (Scenes(made, "train", 3000, shuffled=how) for how in (False, True))

    def met(scenes):
        return scenes.labels.T @ scenes.labels > 0

    allowed = np.zeros((len(made.classes),) * 2, bool)
    for pair in map(sorted, together("made.csv")):
        one, other = map(made.classes.index, pair)
        allowed[one, other] = allowed[other, one] = True
    np.fill_diagonal(allowed, True)
    assert not (met(plain) & ~allowed).any() and (~allowed).any() and met(shuffled).all()
    for scenes in (plain, shuffled):
        assert {event for plan in scenes.plans for event in plan.events} == set(made.events("train"))
    shares = [np.bincount(scenes.number_of_events, minlength=4)[1:] / 3000 for scenes in (plain, shuffled)]
    np.testing.assert_allclose(shares[1], (0.2, 0.45, 0.35), atol=0.04)
    np.testing.assert_allclose(shuffled.labels.mean(axis=0), shuffled.labels.mean(), atol=0.03)  # as often each
    assert plain.definition | {"shuffled": True} == shuffled.definition and "shuffled" not in plain.definition


def test_every_made_class_has_a_home(made):
    assert made.name == "made" and made.classes == made_sounds.CLASSES
    homes = {label: sum(label in place for place in made.places.values()) for label in made.classes}
    assert min(homes.values()) == 1 and sum(number > 1 for number in homes.values()) > len(homes) / 2
    assert all(len(place) >= 3 for place in made.places.values())


def test_the_ten_classes_have_places_where_three_can_meet():
    places = _read_places(TABLES / "esc10.csv")
    assert len(set().union(*places.values())) == 10
    assert all(len(place) >= 3 for place in places.values())


def test_loaded_events_are_of_one_level_without_padding(pristine):
    bank = Esc50Bank(pristine)
    for split in SPLITS:
        for event in bank.events(split):
            waveform = bank.load(event)
            assert waveform.dtype == np.float32
            assert len(waveform) / 16_000 == pytest.approx(1.0, abs=0.06)  # of 1.5 s; lossy formats smear the edge
            assert audio.active_level(waveform) == pytest.approx(0.1, rel=1e-3)
            assert bank.load(event) is waveform


def test_a_kept_event_cannot_be_changed(made):
    with pytest.raises(ValueError, match="read-only"):
        made.load(made.events("train")[0])[0] = 1


def test_folds_become_splits_that_share_no_recording(pristine):
    bank = Esc50Bank(pristine)
    assert bank.name == "little" and bank.classes == tuple(sorted(PITCHES))
    folds = {split: {event.key[0] for event in bank.events(split)} for split in SPLITS}
    assert folds == {"train": {"1", "2"}, "validation": {"3"}, "test": {"4"}}
    recordings = {split: {event.recording for event in bank.events(split)} for split in SPLITS}
    assert {split: len(of) for split, of in recordings.items()} == {"train": 10, "validation": 5, "test": 5}
    assert not any(one & other for one, other in combinations(recordings.values(), 2))
    heard = {split: {r for scene in Scenes(bank, split, 40) for r in scene.recordings} for split in SPLITS}
    assert heard == recordings


def test_events_of_one_recording_do_not_meet(little):
    header, rows = read_table(little)
    for row in rows:
        if row[1] in "12" and row[3] in ("dog", "rain"):
            row[header.index("src_file")] = "a dog in the rain"
    write_table(little, header, rows)
    for plan in Scenes(Esc50Bank(little), "train", 400).plans:
        assert not {"dog", "rain"} <= {event.label for event in plan.events}


def test_other_classes_meet_anywhere(little):
    change(little, "category", "theremin")
    bank = Esc50Bank(little)
    assert set(bank.places) == {"anywhere"} and set(bank.places["anywhere"]) == {*PITCHES, "theremin"}
    # Only training holds a theremin: its scenes have one, the others still render.
    at = bank.classes.index("theremin")
    assert Scenes(bank, "train", 200).labels[:, at].any()
    assert not Scenes(bank, "test", 200).labels[:, at].any()


def test_src_file_may_be_absent_or_blank(little):
    header, rows = read_table(little)
    rows[0][header.index("src_file")] = ""
    write_table(little, header, rows)
    assert rows[0][0] in {event.recording for event in Esc50Bank(little).events("train")}
    keep = [header.index(name) for name in ("category", "fold", "filename")]
    write_table(little, [header[i] for i in keep], [[row[i] for i in keep] for row in rows])
    recordings = [event.recording for split in SPLITS for event in Esc50Bank(little).events(split)]
    assert sorted(recordings) == sorted(row[0] for row in rows)


def test_blank_and_repeated_rows_add_nothing(little):
    expected = Esc50Bank(little)
    header, rows = read_table(little)
    write_table(little, [f" {name} " for name in header], [rows[0], [], ["", "  "], *rows, rows[5]])
    text = (little / "meta" / "esc50.csv").read_bytes()
    (little / "meta" / "esc50.csv").write_bytes(b"\xef\xbb\xbf" + text)  # as spreadsheets save it
    bank = Esc50Bank(little)
    assert [bank.events(split) for split in SPLITS] == [expected.events(split) for split in SPLITS]
    assert bank.definition == expected.definition


def test_a_definition_changes_with_the_sounds_and_only_then(little, tmp_path, made):
    first = Esc50Bank(little).definition
    assert Esc50Bank(shutil.copytree(little, tmp_path / "elsewhere")).definition == first
    soundfile.write(next((little / "audio").iterdir()), np.ones(9_000), 16_000)
    assert Esc50Bank(little).definition != first
    assert MadeBank({"train": 4, "validation": 2, "test": 2}).definition != made.definition
    some = [Scenes(made, "train", 3), Scenes(made, "test", 3), Scenes(made, "train", 4), Scenes(made, "train", 3, 2.0)]
    assert len({json.dumps(scene.definition, sort_keys=True) for scene in some}) == 4


# ----------------------------------------------------------------------------------------------------------- bad input


def _without(column):
    def spoil(folder):
        header, rows = read_table(folder)
        at = header.index(column)
        write_table(folder, header[:at] + header[at + 1 :], [row[:at] + row[at + 1 :] for row in rows])

    return spoil


def _two_folds(folder):
    header, rows = read_table(folder)
    write_table(folder, header, [row for row in rows if row[1] in "12"])


def _one_class(folder):
    header, rows = read_table(folder)
    write_table(folder, header, [row for row in rows if row[3] == "dog"])


def _no_audio(folder):
    shutil.rmtree(folder / "audio")


def _no_sounds(folder):
    _no_audio(folder)
    (folder / "audio").mkdir()


def _repeated_otherwise(folder):
    header, rows = read_table(folder)
    write_table(folder, header, [*rows, [*rows[0][:3], "rain", *rows[0][4:]]])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    (
        (lambda folder: shutil.rmtree(folder), r"little: expected a folder with meta/esc50\.csv and audio/"),
        (lambda folder: shutil.rmtree(folder / "meta"), r"meta/esc50\.csv: expected a folder with meta/esc50\.csv"),
        (_no_audio, "audio: expected a folder with .* and audio/"),
        (_no_sounds, r"audio/1-100-A-0\.wav: expected a sound file"),
        (lambda folder: (folder / "audio" / "2-201-B-1.flac").unlink(), r"2-201-B-1\.flac: expected a sound file"),
        (_without("filename"), "expected a column filename, but found fold, target"),
        (_without("fold"), "expected a column fold, "),
        (_without("category"), "expected a column category, "),
        (lambda folder: (folder / "meta" / "esc50.csv").write_text(""), "column filename, but found an empty file"),
        (lambda folder: write_table(folder, read_table(folder)[0], []), "the table is empty"),
        (lambda folder: (folder / "meta" / "esc50.csv").write_bytes(b"\xff\xfe\x00"), "expected a readable CSV file"),
        (lambda folder: change(folder, "fold", "1.5"), "line 2: expected a whole number for fold, not '1.5'"),
        (lambda folder: change(folder, "fold", "one", 3), "line 5: expected a whole number for fold, not 'one'"),
        (lambda folder: change(folder, "fold", " "), "line 2: expected a value for fold"),
        (lambda folder: change(folder, "category", ""), "line 2: expected a value for category"),
        (lambda folder: change(folder, "filename", ""), "line 2: expected a value for filename"),
        (_repeated_otherwise, r"line 42: expected 1-100-A-0\.wav once"),
        (_two_folds, "at least 3 folds to train, validate and test, but found 2"),
        (_one_class, "at least 2 categories"),
    ),
)
def test_a_bad_folder_is_refused_when_it_is_opened(little, spoil, reason):
    spoil(little)
    with pytest.raises(BadInput, match=reason) as refused:
        Esc50Bank(little)
    message = str(refused.value)
    assert str(little) in message and message.endswith(".") and "\n" not in message


@pytest.mark.parametrize(
    ("waveform", "reason"),
    (
        (None, "readable wav"),
        (np.zeros(0), "no samples"),
        (np.zeros(16_000), "silent"),
        (np.full(16_000, np.nan), "NaN"),
        (np.ones(800), r"at least 0\.1 s"),
    ),
)
def test_a_bad_sound_is_named_when_it_is_loaded(little, waveform, reason):
    path = little / "audio" / "1-100-A-0.wav"
    if waveform is None:
        path.write_text("not a sound")
    else:
        soundfile.write(path, waveform, 16_000, subtype="FLOAT")
    bank = Esc50Bank(little)
    with pytest.raises(BadInput, match=rf"1-100-A-0\.wav: expected .*{reason}"):
        Scenes(bank, "train", 300).mixtures(show=False)


def test_open_bank_takes_made_or_a_folder(pristine, tmp_path):
    smoke = get_profile("smoke")
    bank = open_bank("made", smoke)
    assert isinstance(bank, MadeBank) and len(bank.events("test")) == 3 * len(made_sounds.CLASSES)
    assert isinstance(open_bank(str(pristine), smoke), Esc50Bank)
    for wrong in ("mad", str(tmp_path / "nowhere"), str(pristine / "meta" / "esc50.csv")):
        with pytest.raises(BadInput, match='DATA=.*expected "made" or a folder'):
            open_bank(wrong, smoke)


@pytest.mark.parametrize("numbers", ({"train": 3}, {"train": 3, "validation": 0, "test": 2}))
def test_a_made_bank_needs_events_in_each_split(numbers):
    with pytest.raises(BadInput, match="events_per_class=.*expected a positive number for each"):
        MadeBank(numbers)


@pytest.mark.parametrize(
    ("text", "reason"),
    (
        ("place,label\nshore,rain\n", "expected a column weight"),
        ("place,label,weight\nshore,rain,much\n", "line 2: expected a positive number for weight, not 'much'"),
        ("place,label,weight\nshore,rain,1\n\nshore,wind,-1\n", "line 4: expected a positive number for weight"),
        ("place,label,weight\nshore,rain,1\n", r"expected the classes of made_sounds\.py and no others, .*'dog_bark'"),
    ),
)
def test_a_bad_table_of_places_is_refused(tmp_path, monkeypatch, text, reason):
    (tmp_path / "made.csv").write_text(text)
    monkeypatch.setattr(banks, "TABLES", tmp_path)
    with pytest.raises(BadInput, match=rf"made\.csv.*{reason}"):
        MadeBank({"train": 1, "validation": 1, "test": 1})


# ------------------------------------------------------------------------------------------------------ real recordings


@pytest.mark.skipif(not ESC10.is_dir(), reason="The ESC-10 recordings are not at ../shared/esc10 on this machine.")
def test_real_recordings_make_scenes():
    bank = open_bank(ESC10, get_profile("tiny"))
    assert bank.name == "esc10" and len(bank.classes) == 10 and len(bank.places) > 3
    assert [len(bank.events(split)) for split in SPLITS] == [160, 80, 80]
    recordings = [{event.recording for event in bank.events(split)} for split in SPLITS]
    assert not any(one & other for one, other in combinations(recordings, 2))
    some = Scenes(bank, "test", 20)
    assert (Scenes(bank, "test", 400).labels.sum(axis=0) > 20).all()
    for scene in some:
        np.testing.assert_array_equal(scene.sources.sum(axis=0), scene.mixture)
        assert np.isfinite(scene.mixture).all() and 0.02 < np.abs(scene.mixture).max() < 1
        assert (np.square(scene.sources).mean(axis=1) > 0).all()


@pytest.mark.parametrize("how", [None, "leave out", "keep", "split anew"])
def test_recordings_in_several_splits_are_left_out_kept_or_split_anew(little, how, monkeypatch, capsys):
    """A clip of the test fold moves to a recording that training has, too."""
    plain = Esc50Bank(little)
    before = {split: {event.key for event in plain.events(split)} for split in SPLITS}
    assert "spanning" not in plain.definition and "split" not in capsys.readouterr().out
    recording = plain.events("test")[0].recording
    change(little, "src_file", recording)  # of the first row, a clip of training
    moved = read_table(little)[1][0][read_table(little)[0].index("filename")]
    if how:
        monkeypatch.setenv("SEPCL_SPANNING", how)
    bank = Esc50Bank(little)
    after = {split: {event.key for event in bank.events(split)} for split in SPLITS}
    homes = {split: {event.recording for event in bank.events(split)} for split in SPLITS}
    spans = {clip for clip in set().union(*before.values()) if clip == moved} | {
        event.key for event in plain.events("test") if event.recording == recording
    }
    assert f"{len(spans)} of {sum(map(len, before.values()))} clips are of 1 recordings" in capsys.readouterr().out
    assert bank.definition != plain.definition and bank.definition["spanning"] == (how or "leave out")
    if how == "keep":
        assert after == before and homes["train"] & homes["test"] == {recording}
    else:
        assert not homes["train"] & homes["test"] and not homes["train"] & homes["validation"]
        left = set() if how == "split anew" else {moved}  # the clip for training: those for testing stay
        assert set().union(*after.values()) == set().union(*before.values()) - left
        assert all(after.values())


def test_another_way_with_recordings_in_several_splits_is_refused(little, monkeypatch):
    monkeypatch.setenv("SEPCL_SPANNING", "ignore")
    with pytest.raises(BadInput, match="SEPCL_SPANNING='ignore': expected one of leave out, keep, split anew"):
        Esc50Bank(little)


@pytest.mark.parametrize("data", [None, 3, b"made", "a" * 5_000], ids=lambda value: type(value).__name__)
def test_data_that_is_no_path_is_refused(data):
    with pytest.raises(BadInput, match="expected a path"):
        open_bank(data, get_profile("smoke"))


@pytest.mark.once
def test_a_folder_or_sound_that_may_not_be_read_is_one_sentence(little):
    """As an ordinary user, for to root every folder is open; so not in pytest's folder, which others cannot enter."""
    program = """
import os, sys
from sepcl_keras.scenes.banks import BadInput, Esc50Bank

"".encode("utf-8-sig")  # Python's own files may be out of reach later
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Esc50Bank(sys.argv[1])
except BadInput as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder = shutil.copytree(little, f"{place}/little")
        closed = sorted(os.listdir(f"{folder}/audio"))[0]
        for path, rights in ((f"{folder}/audio/{closed}", 0), (f"{folder}/meta", 0), (folder, 0)):
            os.chmod(path, rights)
            command = [sys.executable, "-W", "ignore", "-c", program, folder]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0 and done.stdout.count("\n") == 1, done.stderr[-2000:]
            assert "Permission denied" in done.stdout
        os.chmod(folder, 0o755)
        os.chmod(f"{folder}/meta", 0o755)
