"""Scenes that mix one to three events of a bank by a table of places."""

import dataclasses
import operator

import numpy as np

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import progress
from sepcl_keras.scenes.banks import Event
from sepcl_keras.scenes.splits import SPLITS

EVENT_PROBABILITIES = (0.2, 0.45, 0.35)  # of one, two and three events; MixIT needs some scenes of a single one
GAIN_DB = (-12.0, 0.0)  # of an event in a scene, against the level below
PEAK = 0.99  # a scene that would exceed it is scaled down as a whole


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
    """`mixture` (samples,) is the sum of `sources` (events, samples), float32, which the other fields follow.

    Of a recorded scene nobody knows the sources, and they are None.
    """

    mixture: np.ndarray
    sources: np.ndarray | None
    labels: tuple[str, ...]
    onsets: tuple[float, ...]  # seconds
    place: str
    recordings: tuple[str, ...]


class Scenes:
    """`number` scenes of a split, each `seconds` long: a sequence of `Scene`, rendered when asked for.

    Scene i depends on the bank, the split and i alone, whatever the number and the seed of a training. With `shuffled`,
    any of the bank's classes meet, wherever they belong.

    plans: list of `Plan`. labels: float32 (scenes, classes), 1 where a class is in the scene. number_of_events: int
    (scenes,). recordings: those in each scene. classes: of the labels. definition: a dict that changes with the scenes.
    Raises `BadInput` for no scenes, no length, and a rate that is not the bank's.
    """

    def __init__(self, bank, split, number, seconds=5.0, sample_rate=16_000, shuffled=False):
        if number < 1 or not seconds * sample_rate >= 1:
            raise BadInput(f"Scenes: expected a positive number and length, not {number} scenes of {seconds} s.")
        if sample_rate != bank.sample_rate:
            raise BadInput(f"Scenes: expected the bank's rate of {bank.sample_rate} Hz, not {sample_rate} Hz.")
        self.bank, self.split, self.sample_rate = bank, split, sample_rate
        self.samples = round(seconds * sample_rate)
        places = {"anywhere": dict.fromkeys(bank.classes, 1.0)} if shuffled else bank.places
        self.plans = _draw_plans(bank, split, number, places)
        self.classes = bank.classes
        self.labels = multi_hot([[event.label for event in plan.events] for plan in self.plans], bank.classes)
        self.recordings = [tuple(event.recording for event in plan.events) for plan in self.plans]
        self.number_of_events = np.array([len(plan.events) for plan in self.plans])
        self.definition = {"bank": bank.definition, "split": split, "number": number, "seconds": seconds}
        self.definition |= {"probabilities": EVENT_PROBABILITIES, "gain_db": GAIN_DB, "peak": PEAK}
        self.definition |= {"shuffled": True} if shuffled else {}

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


def multi_hot(labels, classes):
    """Float32 (scenes, classes), 1 where a class is among a scene's labels."""
    column = {label: index for index, label in enumerate(classes)}
    found = np.zeros((len(labels), len(column)), np.float32)
    for row, given in zip(found, labels):
        row[[column[label] for label in given]] = 1
    return found


def _crop(waveform, samples, position, cut):
    """At most `samples` of `waveform` (samples,), around a moment drawn by energy, so that a label is always heard."""
    if len(waveform) <= samples:
        return waveform
    energy = np.cumsum(np.square(waveform, dtype=np.float64))
    moment = np.searchsorted(energy, cut * energy[-1])
    start = np.clip(int(moment - position * samples), 0, len(waveform) - samples)
    return waveform[start : start + samples]


def _draw_plans(bank, split, number, places):
    by_label = {}
    for event in bank.events(split):
        by_label.setdefault(event.label, []).append(event)
    # A folder may lack classes, and a split may lack some of the folder's.
    weights = {place: {k: w for k, w in table.items() if k in by_label} for place, table in places.items()}
    weights = {place: table for place, table in weights.items() if table}
    of_draw = [bank.draw] if bank.draw else []
    seeds = ([SPLITS.index(split), i, *of_draw] for i in range(number))
    return [_draw_plan(np.random.default_rng(seed), weights, by_label) for seed in seeds]


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
