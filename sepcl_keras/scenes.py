"""Banks of sound events, made or recorded, and the scenes that mix one to three of them by a table of places."""

import csv
import dataclasses
import inspect
import operator
import zlib
from pathlib import Path

import numpy as np

from sepcl_keras import audio, sounds
from sepcl_keras.files import ROOT, BadInput, fingerprint, progress

SPLITS = ("train", "validation", "test")
EVENT_PROBABILITIES = (0.2, 0.45, 0.35)  # of one, two and three events; MixIT needs some scenes of a single one
GAIN_DB = (-12.0, 0.0)  # of an event in a scene, against the level below
EVENT_LEVEL = 0.1  # active level that a bank gives each event, -20 dB of full scale
PEAK = 0.99  # a scene that would exceed it is scaled down as a whole


@dataclasses.dataclass(frozen=True)
class Event:
    """One sound of a bank: its class, the recording it is from (two events may share one), how the bank finds it."""

    label: str
    recording: str
    key: str | tuple


@dataclasses.dataclass(frozen=True)
class Plan:
    """A scene before anything sounds: what is in it, and random numbers in 0..1, `draws` (events, 3).

    The draws of an event stand for its level, its place in the scene and, should it be longer, what is cut from it.
    """

    place: str
    events: tuple[Event, ...]
    draws: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scene:
    """`mixture` (samples,) is the sum of `sources` (events, samples), float32, which the other fields follow."""

    mixture: np.ndarray
    sources: np.ndarray
    labels: tuple[str, ...]
    onsets: tuple[float, ...]  # seconds
    place: str
    recordings: tuple[str, ...]


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
            events[split] = [Event(name, f"{name} {split} {key[1]}", key) for name in sounds.CLASSES for key in keys]
        table = ROOT / "data" / "scenes_made.csv"
        places = _read_places(table)
        if differing := set(sounds.CLASSES) ^ set().union(*places.values()):
            raise BadInput(f"{table}: expected the classes of sounds.py and no others, but {sorted(differing)} differ.")
        # The source stands for the sounds: whoever edits a class must not be given networks trained on the old one.
        definition = {"events_per_class": events_per_class, "sounds": fingerprint(inspect.getsource(sounds))}
        super().__init__("made", sounds.CLASSES, places, events, sample_rate, definition)

    def _sound(self, event):
        return sounds.make_event(event.label, event.key, self.sample_rate)


class Esc50Bank(Bank):
    """Recordings in the layout of ESC-50, `folder`/meta/esc50.csv and `folder`/audio/; its columns are
    filename, fold and category, and src_file where clips may share a recording.

    The last fold is for testing, the one before for validation, the others for training. The table and the presence of
    its files are checked here, each sound when it is first loaded; both raise `BadInput` with the file's name.
    """

    def __init__(self, folder, sample_rate=16_000):
        folder = Path(folder)
        table, self._folder = folder / "meta" / "esc50.csv", folder / "audio"
        for path, found in ((folder, folder.is_dir()), (table, table.is_file()), (self._folder, self._folder.is_dir())):
            if not found:
                raise BadInput(f"{path}: expected a folder with meta/esc50.csv and audio/, but this is not there.")
        rows = _read_recordings(table)
        for filename in rows:
            if not (self._folder / filename).is_file():
                raise BadInput(f"{self._folder / filename}: expected a sound file, as {table} says, but there is none.")
        classes = sorted({label for label, _, _ in rows.values()})
        places = _read_places(ROOT / "data" / "scenes_esc10.csv")
        if not set(classes) <= set().union(*places.values()):
            places = {"anywhere": dict.fromkeys(classes, 1.0)}
        events = _split_by_folds(rows, table)
        contents = {filename: zlib.crc32((self._folder / filename).read_bytes()) for filename in rows}
        definition = {"recordings": fingerprint([rows, contents])}
        super().__init__(folder.resolve().name, classes, places, events, sample_rate, definition)

    def _sound(self, event):
        return audio.read(self._folder / event.key, self.sample_rate)


def open_bank(data, profile):
    """The bank that `data` names: "made", or a folder in the layout of ESC-50; anything else raises `BadInput`."""
    if data == "made":
        return MadeBank(profile.events_per_class, profile.sample_rate)
    if not Path(data).expanduser().is_dir():
        raise BadInput(f'DATA={str(data)!r}: expected "made" or a folder with meta/esc50.csv and audio/ as in ESC-50.')
    return Esc50Bank(Path(data).expanduser(), profile.sample_rate)


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


def _split_by_folds(rows, table):
    folds = sorted({fold for _, fold, _ in rows.values()})
    if len(folds) < 3:
        raise BadInput(f"{table}: expected at least 3 folds to train, validate and test, but found {len(folds)}.")
    names = dict.fromkeys(folds, "train") | {folds[-2]: "validation", folds[-1]: "test"}
    events, home = {split: [] for split in SPLITS}, {}
    for filename, (label, fold, recording) in rows.items():
        split = names[fold]
        if home.setdefault(recording, split) != split:
            raise BadInput(f"{table}: expected recording {recording} in one split, not {home[recording]} and {split}.")
        events[split].append(Event(label, recording, filename))
    return events


class Scenes:
    """`number` scenes of a split, each `seconds` long: a sequence of `Scene`, rendered when asked for.

    Scene i depends on the bank, the split and i alone, whatever the number and the seed of a training.

    plans: list of `Plan`. labels: float32 (scenes, classes), 1 where a class is in the scene. number_of_events: int
    (scenes,). definition: a dict that changes when the scenes do. Raises `BadInput` for no scenes, no length, and a
    rate that is not the bank's.
    """

    def __init__(self, bank, split, number, seconds=5.0, sample_rate=16_000):
        if number < 1 or not seconds * sample_rate >= 1:
            raise BadInput(f"Scenes: expected a positive number and length, not {number} scenes of {seconds} s.")
        if sample_rate != bank.sample_rate:
            raise BadInput(f"Scenes: expected the bank's rate of {bank.sample_rate} Hz, not {sample_rate} Hz.")
        self.bank, self.split, self.sample_rate = bank, split, sample_rate
        self.samples = round(seconds * sample_rate)
        self.plans = _draw_plans(bank, split, number)
        column = {label: index for index, label in enumerate(bank.classes)}
        self.labels = np.zeros((number, len(column)), np.float32)
        for row, plan in zip(self.labels, self.plans):
            row[[column[event.label] for event in plan.events]] = 1
        self.number_of_events = np.array([len(plan.events) for plan in self.plans])
        self.definition = {"bank": bank.definition, "split": split, "number": number, "seconds": seconds}
        self.definition |= {"probabilities": EVENT_PROBABILITIES, "gain_db": GAIN_DB, "peak": PEAK}

    def __len__(self):
        return len(self.plans)

    def __getitem__(self, index):
        plan = self.plans[operator.index(index)]
        sources = np.zeros((len(plan.events), self.samples), np.float32)
        onsets = []
        for source, event, (level, position, cut) in zip(sources, plan.events, plan.draws):
            waveform = _crop(self.bank.load(event), self.samples, position, cut)
            onset = int(position * (self.samples - len(waveform) + 1))
            source[onset : onset + len(waveform)] = waveform * 10 ** (np.interp(level, (0, 1), GAIN_DB) / 20)
            onsets.append(onset / self.sample_rate)
        peak = np.abs(sources.sum(axis=0)).max()
        if peak > PEAK:
            sources *= PEAK / peak
        labels, recordings = zip(*((event.label, event.recording) for event in plan.events))
        return Scene(sources.sum(axis=0), sources, labels, tuple(onsets), plan.place, recordings)

    def mixtures(self, show=True):
        """The mixtures of all scenes, float32 (scenes, samples), with a progress bar."""
        mixtures = np.empty((len(self), self.samples), np.float32)
        for index in progress(range(len(self)), f"{self.split} scenes", "scene", show):
            mixtures[index] = self[index].mixture
        return mixtures


def _crop(waveform, samples, position, cut):
    """At most `samples` of `waveform` (samples,), around a moment drawn by energy, so that a label is always heard."""
    if len(waveform) <= samples:
        return waveform
    energy = np.cumsum(np.square(waveform, dtype=np.float64))
    moment = np.searchsorted(energy, cut * energy[-1])
    start = np.clip(int(moment - position * samples), 0, len(waveform) - samples)
    return waveform[start : start + samples]


def _draw_plans(bank, split, number):
    by_label = {}
    for event in bank.events(split):
        by_label.setdefault(event.label, []).append(event)
    # A folder may lack classes, and a split may lack some of the folder's.
    weights = {place: {k: w for k, w in table.items() if k in by_label} for place, table in bank.places.items()}
    weights = {place: table for place, table in weights.items() if table}
    return [_draw_plan(np.random.default_rng([SPLITS.index(split), i]), weights, by_label) for i in range(number)]


def _draw_plan(rng, weights, by_label):
    """A place, classes that meet there, an event of each: all of different classes and different recordings."""
    place = list(weights)[rng.integers(len(weights))]
    labels = list(weights[place])
    likelihood = np.array(list(weights[place].values()))
    number = min(1 + rng.choice(len(EVENT_PROBABILITIES), p=EVENT_PROBABILITIES), len(labels))
    events = []
    for label in rng.choice(labels, number, replace=False, p=likelihood / likelihood.sum()):
        taken = {event.recording for event in events}
        free = [event for event in by_label[label] if event.recording not in taken]
        if free:
            events.append(free[rng.integers(len(free))])
    return Plan(place, tuple(events), rng.random((len(events), 3)))
