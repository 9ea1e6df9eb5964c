"""Banks of sound events, made or recorded, and the tables of places where their classes meet."""

import csv
import dataclasses
import os
import zlib
from pathlib import Path

import numpy as np

from sepcl_keras.core.checks import BadInput, path_of
from sepcl_keras.core.files import fingerprint
from sepcl_keras.scenes import audio, made_sounds

SPLITS = ("train", "validation", "test")
TABLES = Path(__file__).parent / "tables"  # of the places where classes meet
EVENT_LEVEL = 0.1  # active level that a bank gives each event, -20 dB of full scale


@dataclasses.dataclass(frozen=True)
class Event:
    """One sound of a bank: its class, the recording it is from (two events may share one), how the bank finds it."""

    label: str
    recording: str
    key: str | tuple


class Bank:
    """Sound events by split.

    name: what the data is called. classes: tuple of all labels. places: place → {label: weight}, the classes that meet.
    definition: a dict that changes when the sounds or the places do. sample_rate: Hz.
    """

    def __init__(self, name, classes, places, events, sample_rate, definition):
        self.name, self.classes, self.places, self.sample_rate = name, tuple(classes), places, sample_rate
        self.definition = {"classes": list(classes), "places": places, "sample_rate": sample_rate, "level": EVENT_LEVEL}
        self.definition |= definition
        self._events = events
        self._waveforms = {}

    def events(self, split):
        """The events of a split, "train", "validation" or "test"; another name raises `BadInput`."""
        if split not in SPLITS:
            raise BadInput(f"split={split!r}: expected one of {', '.join(SPLITS)}.")
        return list(self._events[split])

    def load(self, event):
        """The sound of `event`, float32 (samples,), without silence around it, at one level; kept in memory."""
        if event not in self._waveforms:
            waveform = audio.trim_silence(self._sound(event))
            waveform = waveform * np.float32(EVENT_LEVEL / audio.active_level(waveform, self.sample_rate))
            waveform.flags.writeable = False  # every later call gives the same array
            self._waveforms[event] = waveform
        return self._waveforms[event]


class MadeBank(Bank):
    """Events made by `sounds`: `events_per_class` of each class, a dict split → number; no seed is in two splits."""

    def __init__(self, events_per_class, sample_rate=16_000):
        if set(events_per_class) != set(SPLITS) or min(events_per_class.values()) < 1:
            raise BadInput(f"events_per_class={events_per_class}: expected a positive number for each of {SPLITS}.")
        events = {}
        for index, split in enumerate(SPLITS):
            keys = [(index, number) for number in range(events_per_class[split])]
            events[split] = [
                Event(name, f"{name} {split} {key[1]}", key) for name in made_sounds.CLASSES for key in keys
            ]
        table = TABLES / "made.csv"
        places = _read_places(table)
        if differing := set(made_sounds.CLASSES) ^ set().union(*places.values()):
            raise BadInput(
                f"{table}: expected the classes of made_sounds.py and no others, but {sorted(differing)} differ."
            )
        definition = {"events_per_class": events_per_class, "sounds": made_sounds.IDENTITY}
        super().__init__("made", made_sounds.CLASSES, places, events, sample_rate, definition)

    def _sound(self, event):
        return made_sounds.make_event(event.label, event.key, self.sample_rate)


class Esc50Bank(Bank):
    """Recordings in the layout of ESC-50, `folder`/meta/esc50.csv and `folder`/audio/; its columns are
    filename, fold and category, and src_file where clips may share a recording.

    The last fold is for testing, the one before for validation, the others for training. The table and the presence of
    its files are checked here, each sound when it is first loaded; both raise `BadInput` with the file's name.
    """

    def __init__(self, folder, sample_rate=16_000):
        folder = path_of("path", folder)
        table, self._folder = folder / "meta" / "esc50.csv", folder / "audio"
        for path in (folder, table, self._folder):
            if not path_of("path", path).exists():
                raise BadInput(f"{path}: expected a folder with meta/esc50.csv and audio/, but this is not there.")
        rows = _read_recordings(table)
        for filename in rows:
            if not path_of("path", self._folder / filename).is_file():
                raise BadInput(f"{self._folder / filename}: expected a sound file, as {table} says, but there is none.")
        classes = sorted({label for label, _, _ in rows.values()})
        places = _read_places(TABLES / "esc10.csv")
        if not set(classes) <= set().union(*places.values()):
            places = {"anywhere": dict.fromkeys(classes, 1.0)}
        events, spanning = _split_by_folds(rows, table)
        try:
            contents = {filename: zlib.crc32((self._folder / filename).read_bytes()) for filename in rows}
        except OSError as error:
            raise BadInput(f"{error.filename}: cannot be read ({error.strerror}); expected a sound file.") from None
        definition = {"recordings": fingerprint([rows, contents])} | ({"spanning": spanning} if spanning else {})
        super().__init__(folder.resolve().name, classes, places, events, sample_rate, definition)

    def _sound(self, event):
        return audio.read(self._folder / event.key, self.sample_rate)


def open_bank(data, profile):
    """The bank that `data` names: "made", or a folder in the layout of ESC-50; anything else raises `BadInput`."""
    if data == "made":
        return MadeBank(profile.events_per_class, profile.sample_rate)
    folder = path_of("DATA", data)
    if not folder.is_dir():
        raise BadInput(f'DATA={str(data)!r}: expected "made" or a folder with meta/esc50.csv and audio/ as in ESC-50.')
    return Esc50Bank(folder, profile.sample_rate)


def _read_table(path, columns):
    """Rows of a CSV file as (line number, dict), without blank rows and the space around cells."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: expected a readable CSV file ({error}).") from None
    (_, names), *lines = [line for line in lines if any(line[1])] or [(0, [])]
    for column in columns:
        if column not in names:
            raise BadInput(f"{path}: expected a column {column}, but found {', '.join(names) or 'an empty file'}.")
    if not lines:
        raise BadInput(f"{path}: expected rows under its header, but the table is empty.")
    rows = [(line, dict(zip(names, cells))) for line, cells in lines]
    for line, row in rows:
        for column in columns:
            if not row.get(column):
                raise BadInput(f"{path}, line {line}: expected a value for {column}, but the cell is empty.")
    return rows


def _read_places(path):
    """Place → {label: weight}, the table of the classes that meet."""
    places = {}
    for line, row in _read_table(path, ("place", "label", "weight")):
        try:
            weight = float(row["weight"])
        except ValueError:
            weight = np.nan
        if not 0 < weight < np.inf:
            raise BadInput(f"{path}, line {line}: expected a positive number for weight, not {row['weight']!r}.")
        places.setdefault(row["place"], {})[row["label"]] = weight
    return places


def _read_recordings(table):
    """File name → [label, fold, recording]; a row that is there twice counts once."""
    rows = {}
    for line, row in _read_table(table, ("filename", "fold", "category")):
        try:
            fold = int(row["fold"])
        except ValueError:
            raise BadInput(f"{table}, line {line}: expected a whole number for fold, not {row['fold']!r}.") from None
        filename = row["filename"]
        entry = [row["category"], fold, row.get("src_file") or filename]
        if rows.setdefault(filename, entry) != entry:
            raise BadInput(f"{table}, line {line}: expected {filename} once, but an earlier row says otherwise of it.")
    if len({label for label, _, _ in rows.values()}) < 2:
        raise BadInput(f"{table}: expected at least 2 categories to tell apart, but found one.")
    return rows


SPANNING = ("leave out", "keep", "split anew")  # what to do with recordings that span splits


def _split_by_folds(rows, table):
    """Split → events, and how recordings that span splits were dealt with, None where there are none.

    Such clips would be heard in training and tested on. They are left out, unless `SEPCL_SPANNING` says to keep the
    folds as they are, or to split all recordings anew, class by class in an order that their names give.
    """
    folds = sorted({fold for _, fold, _ in rows.values()})
    if len(folds) < 3:
        raise BadInput(f"{table}: expected at least 3 folds to train, validate and test, but found {len(folds)}.")
    names = dict.fromkeys(folds, "train") | {folds[-2]: "validation", folds[-1]: "test"}
    splits, how = {}, os.environ.get("SEPCL_SPANNING", SPANNING[0])
    for _, fold, recording in rows.values():
        splits.setdefault(recording, set()).add(names[fold])
    spanning = {recording for recording, found in splits.items() if len(found) > 1}
    if how not in SPANNING:
        raise BadInput(f"SEPCL_SPANNING={how!r}: expected one of {', '.join(SPANNING)}.")
    of_rows = {filename: names[fold] for filename, (_, fold, _) in rows.items()}
    if spanning and how == "split anew":
        anew = _split_anew(rows, len(folds))
        of_rows = {filename: anew[recording] for filename, (_, _, recording) in rows.items()}
    elif spanning and how == "leave out":
        of_rows = {filename: split for filename, split in of_rows.items() if rows[filename][2] not in spanning}
    if spanning:
        clips = sum(recording in spanning for _, _, recording in rows.values())
        print(
            f"{table}: {clips} of {len(rows)} clips are of {len(spanning)} recordings that are in more than one split "
            f"(SEPCL_SPANNING={how!r}; others: {', '.join(other for other in SPANNING if other != how)})."
        )
    events = {split: [] for split in SPLITS}
    for filename, split in of_rows.items():
        events[split].append(Event(rows[filename][0], rows[filename][2], filename))
    if not all(events.values()):
        raise BadInput(
            f"{table}: no clip is left in {next(s for s in SPLITS if not events[s])}; expected some in each."
        )
    return events, how if spanning else None


def _split_anew(rows, folds):
    """Recording → split: a fold's share of each class for testing, as much for validation, no recording in two."""
    label_of = {}
    for label, _, recording in rows.values():
        label_of.setdefault(recording, label)
    split_of = {}
    for label in dict.fromkeys(label_of.values()):
        recordings = sorted((r for r in label_of if label_of[r] == label), key=lambda r: (zlib.crc32(r.encode()), r))
        share = max(1, round(len(recordings) / folds))
        for index, recording in enumerate(recordings):
            # The first goes to training, so that a class of one recording is learned at all.
            split_of[recording] = "test" if 0 < index <= share else "validation" if 0 < index <= 2 * share else "train"
    return split_of
