"""Recorded scenes: real clips used whole, whose sources nobody knows; and the events that the lessons mix of them."""

import collections
import os
import zlib

import numpy as np

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import fingerprint, progress, writing
from sepcl_keras.scenes import audio
from sepcl_keras.scenes.banks import EVENT_LEVEL, Bank, Event
from sepcl_keras.scenes.mixing import PEAK, Scene, multi_hot
from sepcl_keras.scenes.splits import SPLITS

CROPS = {"train": (0, 1), "validation": (2,), "test": (3, 4)}  # fifths of a scene, by what they are used for
MOST_RECORDINGS = 50  # to be told apart where there are no labels
MOST_CLASSES = 12  # of events to mix, the most frequent ones
WAVEFORMS = "waveforms.npy"


def pieces(path, samples, sample_rate, most=1):
    """The scenes (samples,) in a file: (first sample, waveform) of at most so many stretches, in their order.

    Of its stretches, as `stretches` has them, those with most sound. Memory does not grow with the file.
    """
    found = []
    for piece in stretches(path, samples, sample_rate):
        found = sorted([*found, piece], key=lambda piece: -float(np.square(piece[1], dtype=np.float64).sum()))[:most]
    return [(first, levelled(waveform, sample_rate)) for first, waveform in sorted(found)]


def stretches(path, samples, sample_rate):
    """(first sample, waveform) of all stretches of `samples` of a file that sound, one after the other.

    The rest at the end, and a recording that is shorter than one, is repeated until it is long enough, so that each
    crop holds sound; a rest of less than half is left out. Raises `BadInput` as `audio.read` does, of what lies within
    the file when it gets there.
    """
    waiting, first, heard, sounding = np.zeros(0, np.float32), 0, 0, 0
    for block in audio.blocks(path, sample_rate):
        waiting, heard = np.concatenate([waiting, block]), heard + len(block)
        while len(waiting) >= samples:
            if np.abs(waiting[:samples]).max() >= audio.SILENCE:
                sounding += 1
                yield first, waiting[:samples]
            waiting, first = waiting[samples:], first + samples
    if heard < audio.SHORTEST * sample_rate:
        raise BadInput(
            f"{path}: expected at least {audio.SHORTEST} s of sound, but it lasts {heard / sample_rate:.3f} s."
        )
    if (not first or len(waiting) >= samples // 2) and np.abs(waiting).max(initial=0.0) >= audio.SILENCE:
        yield first, np.resize(waiting, samples)
    elif not sounding:
        raise BadInput(f"{path}: expected sound, but the file is silent as one channel at {sample_rate} Hz.")


def place(name, first_second):
    """What a scene is called: its recording, and where in it, unless at its beginning."""
    return f"{name}, from {first_second:.1f} s" if first_second else name


def levelled(waveform, sample_rate):
    """The waveform at one active level, -20 dB of full scale, unless its peak forbids it."""
    gain = EVENT_LEVEL / audio.active_level(waveform, sample_rate)
    return waveform * np.float32(min(gain, PEAK / np.abs(waveform).max()))


def _order(clip):
    return zlib.crc32(clip.id.encode()), clip.id


def definition(listing, numbers, seconds, sample_rate):
    """What the recorded scenes of a listing depend on: the table, and the files that are looked at first."""
    said = [(c.id, c.labels, c.split, c.recording) for c in listing.clips]
    heads = []
    for split in SPLITS:
        for clip in sorted((c for c in listing.clips if c.split == split), key=_order)[: numbers[split]]:
            try:
                with open(clip.path, "rb") as file:
                    heads.append((os.fstat(file.fileno()).st_size, zlib.crc32(file.read(2**16))))
            except OSError as error:
                heads.append(str(error.strerror))
    sizes = {"numbers": numbers, "seconds": seconds, "sample_rate": sample_rate, "level": EVENT_LEVEL}
    return {"recordings": fingerprint([said, heads, listing.classes])} | sizes


def write_recordings(folder, listing, numbers, samples, sample_rate, show=True):
    """Writes the recorded scenes of a listing into `folder`, in one array, and returns what JSON can hold of them.

    Args:
        folder: path to be filled. listing: `Listing`. numbers: split → scenes at most; recordings are taken in an order
            that their names give, several scenes of one where there are too few recordings.
        samples: length of a scene. sample_rate: Hz.

    Returns a dict: `scenes`, split → list of (id, first second, recording, labels), and `refused`, id → why.
    """
    scenes, refused, total = {}, dict(listing.refused), 0
    with writing(folder / WAVEFORMS), open(folder / WAVEFORMS, "wb") as file:
        begin = _header(file, 2**31, samples)
        for split in SPLITS:
            clips = sorted((clip for clip in listing.clips if clip.split == split), key=_order)
            most, scenes[split] = -(-numbers[split] // len(clips)), []
            bar = progress(clips, f"recordings for {split}", "clip", show)
            for clip in bar:
                try:
                    found = pieces(clip.path, samples, sample_rate, most)
                except BadInput as error:
                    refused[clip.id] = str(error).removeprefix(f"{clip.path}: ")
                    continue
                for first, waveform in found[: numbers[split] - len(scenes[split])]:
                    file.write(waveform.astype("<f4").tobytes())
                    scenes[split].append((clip.id, first / sample_rate, clip.recording, list(clip.labels)))
                if len(scenes[split]) == numbers[split]:
                    break
            bar.close()
            if len(scenes[split]) < 8:
                raise BadInput(
                    f"{listing.name}: {len(scenes[split])} scenes for {split}; expected at least 8 that sound."
                )
            total += len(scenes[split])
        file.seek(0)
        if _header(file, total, samples) != begin:
            raise BadInput(f"{folder}: a header of another length; expected NumPy to leave room for its numbers.")
    return {"scenes": scenes, "refused": refused}


def _header(file, number, samples):
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (number, samples)})
    return file.tell()


class RecordedScenes:
    """Recorded scenes of a split: a sequence of `Scene` whose `sources` are None, for nobody knows them.

    Args:
        waveforms: (scenes, samples), a memory map. rows: (id, first second, recording, labels) of each.
        classes: of the labels, none where there are no labels. definition: a dict that changes when the scenes do.

    Attributes: as of `Scenes`; `labels` is None without classes, `number_of_events` counts labels.
    """

    def __init__(self, split, waveforms, rows, classes, sample_rate, definition):
        self.split, self.waveforms, self.sample_rate = split, waveforms, sample_rate
        self.samples, self.ids = waveforms.shape[1], [row[0] for row in rows]
        self.recordings = [(row[2],) for row in rows]
        self._rows, self.classes, self.definition = rows, tuple(classes), definition | {"split": split}
        self.labels = multi_hot([row[3] for row in rows], classes) if classes else None
        self.number_of_events = np.array([len(row[3]) for row in rows])

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        name, first, recording, labels = self._rows[index]
        named = place(name, first)
        return Scene(np.array(self.waveforms[index]), None, tuple(labels), (0.0,) * len(labels), named, (recording,))

    def mixtures(self, show=True):
        """The waveforms of all scenes, float32 (scenes, samples)."""
        return np.array(self.waveforms)


class Crops(RecordedScenes):
    """Fifths of recorded scenes that have no labels; the recording a crop is of stands for one.

    Nobody said what is heard, but other crops of a recording belong to it: that can be asked of an embedding. Of scenes
    held out, crops 1 and 2 are for training a classifier, 3 for validation, 4 and 5 for testing. Crops of one recording
    that follow each other are more alike than two recordings of one class: this is the easier task.
    """

    def __init__(self, scenes, split):
        known = list(dict.fromkeys(recording for (recording,) in scenes.recordings))[:MOST_RECORDINGS]
        size = scenes.samples // 5
        chosen = [index for index, (recording,) in enumerate(scenes.recordings) if recording in known]
        rows, waveforms = [], []
        for index in chosen:
            for fifth in CROPS[split]:
                waveforms.append(scenes.waveforms[index, fifth * size : (fifth + 1) * size])
                first = fifth * size / scenes.sample_rate
                rows.append((scenes.ids[index], first, *scenes.recordings[index], scenes.recordings[index]))
        mine = scenes.definition | {"crops": split}
        super().__init__(split, np.stack(waveforms), rows, known, scenes.sample_rate, mine)
        self.recordings = [(f"crop {index}",) for index in range(len(rows))]  # no other crop shares a sound with it


class RecordingBank(Bank):
    """Recorded scenes as if each were one event, for lessons on mixing and for scores that need known sources.

    A recording may hold several sounds; mixed with another it is one of two sources all the same. Its class is its
    first label. Where fewer than three classes are known, recordings are dealt into groups, A to L.
    """

    def __init__(self, name, scenes, sample_rate):
        first = {
            split: [next(iter(one[index].labels), None) for index in range(len(one))] for split, one in scenes.items()
        }
        counts = collections.Counter(first["train"])
        everywhere = [label for label, _ in counts.most_common() if label and all(label in f for f in first.values())]
        self._scenes, groups = scenes, len(everywhere) < 3
        classes = [f"group {letter}" for letter in "ABCDEFGHIJKL"] if groups else sorted(everywhere[:MOST_CLASSES])
        events = {split: [] for split in SPLITS}
        for split, one in scenes.items():
            for index, (recording,) in enumerate(one.recordings):
                label = classes[index % len(classes)] if groups else first[split][index]
                if label in classes:
                    events[split].append(Event(label, recording, (split, index)))
        places = {"anywhere": dict.fromkeys(classes, 1.0)}
        super().__init__(name, classes, places, events, sample_rate, scenes["train"].definition)

    def _sound(self, event):
        split, index = event.key
        return np.array(self._scenes[split].waveforms[index])
