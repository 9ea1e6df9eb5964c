"""Which clips a folder holds, and what is said of them: published layouts, a reader's tables, folders of sounds."""

import itertools
import shutil

import numpy as np
import pytest
from published import KINDS, save, sound

from sepcl_keras.core.checks import BadInput
from sepcl_keras.scenes.layouts import open_recordings
from sepcl_keras.scenes.splits import SPLITS

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A small data set of each kind, by name; not to be written to."""
    root = tmp_path_factory.mktemp("sets")
    for name, make in KINDS.items():
        make(root / name)
    return root


def by_split(listing):
    return {split: {clip.id for clip in listing.clips if clip.split == split} for split in SPLITS}


@pytest.mark.once
def test_urbansound8k(sets):
    listing = open_recordings(sets / "urbansound8k")
    assert listing.layout == "UrbanSound8K" and len(listing.clips) == 119 and len(listing.classes) == 6
    assert listing.refused == {"1000-1-1-0.wav": "listed, but no sound file of its name is here"}
    found = by_split(listing)
    folds = {
        split: {int(clip.path.parent.name[4:]) for clip in listing.clips if clip.split == split} for split in SPLITS
    }
    assert folds == {"train": set(range(1, 9)), "validation": {9}, "test": {10}}
    assert sum(map(len, found.values())) == 119
    by_id = {clip.id: clip for clip in listing.clips}
    assert by_id["1003-0-0-0.wav"].labels == (sound(6, 0.1)[1],) and by_id["1003-0-0-0.wav"].recording == "1003"


def test_fsd50k(sets):
    listing = open_recordings(sets / "fsd50k")
    assert listing.layout == "FSD50K" and set(listing.refused) == {"102"}
    found = by_split(listing)
    assert found["test"] == {str(100 + k) for k in range(0, 120, 4)}
    assert found["validation"] == {str(100 + k) for k in range(1, 120, 4)}
    assert found["train"] == {str(100 + k) for k in range(120) if k % 4 > 1} - {"102"}
    clip = next(clip for clip in listing.clips if clip.id == "101")
    assert clip.labels == (sound(1, 0.1)[1], "Animal") and set(clip.labels) < set(listing.classes)


def test_audioset(sets):
    listing = open_recordings(sets / "audioset")
    gone = {k for k in range(120) if k % 9 == 8}
    assert listing.layout == "AudioSet" and len(listing.clips) == 120 - len(gone) and len(listing.refused) == len(gone)
    assert any(clip.id.startswith("-") for clip in listing.clips)
    found = by_split(listing)
    assert found["test"] == {c.id for c in listing.clips if int(c.id[1:4]) % 4 == 0}
    assert found["validation"] and len(found["validation"]) < len(found["train"]) / 3
    assert all(clip.labels[1] == "Inside, small room" and len(clip.labels) == 2 for clip in listing.clips)
    # Each habit of naming a file finds its clip.
    assert {int(clip.id[1:4]) % 5 for clip in listing.clips} == set(range(5))


def test_a_folder_of_sounds_without_labels(sets):
    listing = open_recordings(sets / "field")
    assert listing.classes == () and len(listing.clips) == 91 and not listing.refused
    assert all(clip.labels == () and clip.recording == clip.id for clip in listing.clips)
    assert any("subfolders were not taken as labels" in note for note in listing.notes)
    sizes = {split: len(ids) for split, ids in by_split(listing).items()}
    assert sizes == {"train": 55, "validation": 18, "test": 18}
    again = open_recordings(sets / "field")
    assert by_split(again) == by_split(listing), "dealt out by the names alone"


def test_subfolders_as_labels(sets, monkeypatch):
    listing = open_recordings(sets / "subfolders", labels="subfolders")
    assert len(listing.classes) == 6 and all(clip.labels == (clip.path.parent.name,) for clip in listing.clips)
    for split in SPLITS:
        assert {clip.labels[0] for clip in listing.clips if clip.split == split} == set(listing.classes)
    monkeypatch.setenv("SEPCL_LABELS", "subfolders")
    assert open_recordings(sets / "subfolders").classes == listing.classes
    monkeypatch.setenv("SEPCL_LABELS", "files")
    with pytest.raises(BadInput, match="SEPCL_LABELS='files': expected subfolders"):
        open_recordings(sets / "subfolders")


def test_a_table_of_the_readers_own(sets):
    listing = open_recordings(sets / "table")
    assert listing.layout == "a folder with clips.csv" and {"indoors", "outdoors"} < set(listing.classes)
    found = by_split(listing)
    assert found["test"] == {f"clips/{k}.wav" for k in range(0, 90, 5)}
    # The recording of clips 0 (test) and 1 (validation) is kept for testing alone.
    assert found["validation"] == {f"clips/{k}.wav" for k in range(1, 90, 5)} - {"clips/1.wav"}
    assert any("2 of 90 clips are of 1 recordings" in note for note in listing.notes)
    kept = by_split(open_recordings(sets / "table", spanning="keep"))
    assert kept["validation"] == found["validation"] | {"clips/1.wav"}
    anew = open_recordings(sets / "table", spanning="split anew")
    homes = {}
    for clip in anew.clips:
        homes.setdefault(clip.recording, set()).add(clip.split)
    assert len(anew.clips) == 90 and all(len(splits) == 1 for splits in homes.values())


@pytest.fixture
def own(tmp_path):
    """A folder of 12 sounds and a function that writes its table."""
    for k in range(12):
        save(tmp_path / f"{k}.wav", sound(k, 0.5)[0])

    def write(lines, name="clips.csv", ending="\n", mark=""):
        (tmp_path / name).write_bytes((mark + ending.join(lines) + ending).encode("utf-8"))
        return tmp_path

    return write


def test_names_of_columns_are_mapped(own, monkeypatch):
    folder = own(["file,tags,part", *(f'{k}.wav,"a; b",{k % 3 + 1}' for k in range(12))])
    with_names = open_recordings(folder, columns={"filename": "file", "labels": "tags", "fold": "part"})
    assert with_names.classes == ("a", "b") and {len(ids) for ids in by_split(with_names).values()} == {4}
    monkeypatch.setenv("SEPCL_COLUMNS", "filename=file, labels=tags, fold=part")
    assert by_split(open_recordings(folder)) == by_split(with_names)
    monkeypatch.setenv("SEPCL_COLUMNS", "name=file")
    with pytest.raises(BadInput, match="SEPCL_COLUMNS: name=file; expected NAME=COLUMN"):
        open_recordings(folder)
    monkeypatch.setenv("SEPCL_COLUMNS", "filename=clip")
    with pytest.raises(BadInput, match="expected a CSV file with a column clip"):
        open_recordings(folder)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_tables_as_programs_write_them(own, delimiter):
    """With a byte order mark, CRLF, cells in quotes, blank lines."""
    lines = [delimiter.join(("filename", "labels")), *(delimiter.join((f'"{k}.wav"', "x")) for k in range(12)), ""]
    listing = open_recordings(own(lines, ending="\r\n", mark="\ufeff"))
    assert len(listing.clips) == 12 and listing.classes == ("x",)


def test_a_table_without_file_names_is_not_passed_over_in_silence(own):
    listing = open_recordings(own(["sound,label", "0.wav,x"]))
    assert len(listing.clips) == 12 and any("clips.csv has no column filename" in note for note in listing.notes)


TABLES = {
    "twice, otherwise": (["filename,labels", "0.wav,x", "1.wav,x", "0.wav,y"], "line 4: expected 0.wav once"),
    "fold no number": (
        ["filename,fold", *(f"{k}.wav,{k % 4}" for k in range(11)), "11.wav,x"],
        "line 13.*whole number",
    ),
    "some splits": (["filename,split", "0.wav,train", "1.wav,"], "a split or fold for each clip or for none"),
    "another split": (["filename,split", *(f"{k}.wav,later" for k in range(12))], "split 'later'; expected"),
    "no test": (["filename,split", *(f"{k}.wav,train" for k in range(12))], "no clip is left in test; expected"),
    "two folds": (["filename,fold", *(f"{k}.wav,{k % 2}" for k in range(12))], "at least 3 folds"),
    "no file": (["filename", "x.wav", "y.wav"], "none of the 2 clips listed is here"),
    "empty": (["filename"], "the table is empty"),
}


@pytest.mark.parametrize("name", TABLES, ids=str)
def test_tables_that_contradict_themselves(own, name):
    lines, sentence = TABLES[name]
    with pytest.raises(BadInput, match=sentence):
        open_recordings(own(lines))


def test_two_tables_are_refused(own):
    own(["filename", "0.wav"])
    with pytest.raises(BadInput, match="a.csv, clips.csv each have a column filename"):
        open_recordings(own(["filename", "0.wav"], name="a.csv"))


def test_a_name_that_two_folders_have(own):
    folder = own(["filename", "0.wav", "a.wav"])
    for k in (1, 2):
        save(folder / str(k) / "a.wav", sound(k, 0.5)[0])
    with pytest.raises(BadInput, match="line 3: 2 files are called a.wav; expected a path"):
        open_recordings(folder)


def test_no_sounds_and_no_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.raises(BadInput, match="expected sound files .* but found none"):
        open_recordings(tmp_path)
    with pytest.raises(BadInput, match="expected .made. or a folder; these are taken"):
        open_recordings(tmp_path / "notes.txt")


UNKNOWN = {
    "fsd50k": ("FSD50K.ground_truth/eval.csv", "Animal", "Anima", "expected labels of vocabulary.csv, not 'Anima'"),
    "audioset": ("eval_segments.csv", "/m/00abc", "/m/zz", "expected labels of class_labels_indices.csv, not '/m/zz'"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_labels_that_no_vocabulary_has(sets, tmp_path, name):
    folder = shutil.copytree(sets / name, tmp_path / name)
    table, word, other, sentence = UNKNOWN[name]
    (folder / table).write_text((folder / table).read_text().replace(word, other, 1))
    with pytest.raises(BadInput, match=sentence):
        open_recordings(folder)


def test_a_missing_column(sets, tmp_path):
    folder = shutil.copytree(sets / "urbansound8k", tmp_path / "u")
    table = folder / "metadata" / "UrbanSound8K.csv"
    table.write_text(table.read_text().replace("fsID", "id", 1))
    with pytest.raises(BadInput, match="expected a column fsID, but found slice_file_name, id"):
        open_recordings(folder)


def test_no_recording_is_in_two_splits(sets, monkeypatch):
    for name in KINDS:
        listing = open_recordings(sets / name)
        homes = {split: {clip.recording for clip in listing.clips if clip.split == split} for split in SPLITS}
        assert all(not homes[a] & homes[b] for a, b in itertools.combinations(SPLITS, 2)), name


def test_what_is_shown_adds_up(sets):
    rows = dict(open_recordings(sets / "audioset").table())
    assert rows["clips listed"] == 120 == rows["refused"] + sum(rows[split] for split in SPLITS)
    assert np.sum([number for what, number in rows.items() if what.startswith("refused: ")]) == rows["refused"]
