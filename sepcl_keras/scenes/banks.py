"""Banks of sound events, made or recorded, and the tables of places where their classes meet."""

import dataclasses
import zlib
from pathlib import Path

import numpy as np

from sepcl_keras.core.checks import BadInput, check_number, path_of
from sepcl_keras.core.files import fingerprint
from sepcl_keras.core.tables import read_table, whole_number
from sepcl_keras.scenes import audio, made_sounds
from sepcl_keras.scenes.layouts import LAYOUTS, Clip
from sepcl_keras.scenes.splits import SPLITS, split_clips

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
    definition: a dict that changes when the sounds or the places do. sample_rate: Hz. draw: 0 for the course; each
    other number gives other scenes, of other made sounds or with other folds to test on: a replicate of a study.
    """

    def __init__(self, name, classes, places, events, sample_rate, definition, draw=0):
        check_number("draw", draw, least=0, whole=True)
        self.name, self.classes, self.places, self.sample_rate = name, tuple(classes), places, sample_rate
        self.draw, definition = draw, definition | ({"draw": draw} if draw else {})
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

    def __init__(self, events_per_class, sample_rate=16_000, draw=0):
        if set(events_per_class) != set(SPLITS) or min(events_per_class.values()) < 1:
            raise BadInput(f"events_per_class={events_per_class}: expected a positive number for each of {SPLITS}.")
        events = {}
        for index, split in enumerate(SPLITS):
            of_draw = (draw,) if draw else ()
            keys = [(index, number, *of_draw) for number in range(events_per_class[split])]
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
        super().__init__("made", made_sounds.CLASSES, places, events, sample_rate, definition, draw)

    def _sound(self, event):
        return made_sounds.make_event(event.label, event.key, self.sample_rate)


class Esc50Bank(Bank):
    """Recordings in the layout of ESC-50, `folder`/meta/esc50.csv and `folder`/audio/; its columns are
    filename, fold and category, and src_file where clips may share a recording.

    The last fold is for testing, the one before for validation, the others for training; other draws take other pairs
    of folds, until each fold has been tested on with each other one for validation. The table and the presence of
    its files are checked here, each sound when it is first loaded; both raise `BadInput` with the file's name.
    """

    def __init__(self, folder, sample_rate=16_000, draw=0):
        folder = path_of("path", folder)
        table, self._folder = folder / "meta" / "esc50.csv", folder / "audio"
        for path in (folder, table, self._folder):
            if not path_of("path", path).exists():
                raise BadInput(f"{path}: expected a folder with meta/esc50.csv and audio/, but this is not there.")
        clips = _read_recordings(table, self._folder)
        for clip in clips:
            if not path_of("path", clip.path).is_file():
                raise BadInput(f"{clip.path}: expected a sound file, as {table} says, but there is none.")
        classes = sorted({clip.labels[0] for clip in clips})
        places = _read_places(TABLES / "esc10.csv")
        if not set(classes) <= set().union(*places.values()):
            places = {"anywhere": dict.fromkeys(classes, 1.0)}
        try:
            contents = {clip.id: zlib.crc32(clip.path.read_bytes()) for clip in clips}
        except OSError as error:
            raise BadInput(f"{error.filename}: cannot be read ({error.strerror}); expected a sound file.") from None
        kept, spanning, notes = split_clips(_turned(clips, draw), table)
        for note in notes:
            print(f"{table}: {note}.")
        events = {split: [] for split in SPLITS}
        for clip in kept:
            events[clip.split].append(Event(clip.labels[0], clip.recording, clip.id))
        rows = {clip.id: [clip.labels[0], clip.split, clip.recording] for clip in clips}
        definition = {"recordings": fingerprint([rows, contents])} | ({"spanning": spanning} if spanning else {})
        super().__init__(folder.resolve().name, classes, places, events, sample_rate, definition, draw)

    def _sound(self, event):
        return audio.read(self._folder / event.key, self.sample_rate)


def open_bank(data, profile, draw=0):
    """The bank that `data` names: "made", or a folder in the layout of ESC-50; anything else raises `BadInput`."""
    if data == "made":
        return MadeBank(profile.events_per_class, profile.sample_rate, draw)
    folder = path_of("DATA", data)
    if not folder.is_dir():
        raise BadInput(f'DATA={str(data)!r}: expected "made" or a folder; these are taken: {LAYOUTS}.')
    return Esc50Bank(folder, profile.sample_rate, draw)


def _turned(clips, draw):
    """Clips whose folds are numbered anew, so that the last is the draw's to test on and the one before to validate."""
    folds = sorted({clip.split for clip in clips})
    number = len(folds)
    if number < 3:  # which `split_clips` refuses
        return clips
    test = folds[draw % number - 1]
    others = [fold for fold in folds if fold != test]
    validation = others[(draw % number + draw // number - 1) % (number - 1)]  # each round of test folds has another
    order = [fold for fold in others if fold != validation] + [validation, test]
    return [dataclasses.replace(clip, split=order.index(clip.split)) for clip in clips]


def holds_events(data):
    """Whether `data` names isolated events to mix, made or in the layout of ESC-50, and not recorded scenes."""
    return data == "made" or (path_of("DATA", data) / "meta" / "esc50.csv").exists()


def _read_places(path):
    """Place → {label: weight}, the table of the classes that meet."""
    places = {}
    for line, row in read_table(path, ("place", "label", "weight")):
        try:
            weight = float(row["weight"])
        except ValueError:
            weight = np.nan
        if not 0 < weight < np.inf:
            raise BadInput(f"{path}, line {line}: expected a positive number for weight, not {row['weight']!r}.")
        places.setdefault(row["place"], {})[row["label"]] = weight
    return places


def _read_recordings(table, folder):
    """The clips of an `esc50.csv`; a row that is there twice counts once."""
    clips = {}
    for line, row in read_table(table, ("filename", "fold", "category")):
        name, fold = row["filename"], whole_number(table, line, row, "fold")
        clip = Clip(name, folder / name, (row["category"],), fold, row.get("src_file") or name)
        if clips.setdefault(name, clip) != clip:
            raise BadInput(f"{table}, line {line}: expected {name} once, but an earlier row says otherwise of it.")
    if len({clip.labels for clip in clips.values()}) < 2:
        raise BadInput(f"{table}: expected at least 2 categories to tell apart, but found one.")
    return list(clips.values())
