"""The separator's snapshots as processors: separating clips, keeping their views on disk, drawing pairs of patches."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import keras
import numpy as np

from sepcl_keras.backend import inference
from sepcl_keras.checkpoint import digest
from sepcl_keras.features import MEL_BANDS, PATCH_FRAMES, PATCH_SAMPLES, LogMel, log_mel_model
from sepcl_keras.files import BadInput, fingerprint, numbers, progress, read_json, write_json, writing
from sepcl_keras.rows import GrowingRows, Rows

PAIRINGS = {"mix-mix": (), "mix-chan": (1,), "chan-chan": (0, 1)}  # → which of the two views are channels
TRUE_SOURCES = "sources"  # the processor of a control: what a scene was mixed from, which only its maker knows
QUIET = -40.0  # dB under the mixture: below this a channel is taken for silence
BATCH = 16  # clips that are separated at once
AHEAD = 2  # batches that are read while the device works on the one before


def separate(separator, mixtures):
    """Channels (clips, sources, samples) of mixtures (clips, samples), in batches, whole clips at once."""
    separate_batch = inference(separator, BATCH)
    return np.concatenate([separate_batch(mixtures[i : i + BATCH]) for i in range(0, len(mixtures), BATCH)])


class Views:
    """Log-mel spectrograms of mixtures and of every processor's channels, read from disk as they are needed.

    Attributes:
        log_mel: float16 memory map (clips, 1 + processors × sources, frames, mels); view 0 is the mixture.
        level: float32 memory map (clips, 1 + processors × sources), energy in dB relative to the mixture's.
        processors: names in the order of the views.
        num_sources: channels of each processor.

    Raises `BadInput` with the name of the file that `write_views` would not have left so.
    """

    def __init__(self, folder):
        folder = Path(folder)
        description = read_json(folder / "views.json")
        try:
            self.processors, self.num_sources = tuple(description["processors"]), int(description["num_sources"])
        except (KeyError, TypeError, ValueError):
            raise BadInput(f"{folder / 'views.json'}: expected the processors and num_sources of views.") from None
        self._log_mel = Rows(folder / "log_mel.npy", "float16", 4)
        self._level = Rows(folder / "level.npy", "float32", 2)
        self.log_mel, self.level = self._log_mel.array, self._level.array
        views, frames = 1 + len(self.processors) * self.num_sources, self.log_mel.shape[2]
        for path, shape in ((self._log_mel.path, self.log_mel.shape), (self._level.path, self.level.shape)):
            if shape[:2] != (len(self.log_mel), views) or frames < PATCH_FRAMES:
                raise BadInput(
                    f"{path}: shape {shape}; expected {len(self.log_mel)} clips, {views} views of each, by views.json, "
                    f"and at least {PATCH_FRAMES} frames."
                )

    def columns(self, processors):
        """Which views are channels of these processors (the OR rule draws among them)."""
        unknown = sorted(set(processors) - set(self.processors))
        if unknown or not processors or len(set(processors)) < len(processors):
            raise BadInput(f"processors={processors}: expected some of {', '.join(self.processors)}, each once.")
        starts = [1 + self.processors.index(name) * self.num_sources for name in processors]
        return np.array([start + source for start in starts for source in range(self.num_sources)])

    def quiet_share(self, processor):
        """The share of this processor's channels that are more than 40 dB under their mixture."""
        columns, number, rows = self.columns((processor,)), len(self.level), 2**16
        quiet = sum(np.count_nonzero(self.level[i : i + rows, columns] < QUIET) for i in range(0, number, rows))
        return quiet / (number * self.num_sources)

    def patches(self, clips, columns, starts):
        """Patches (N, 96, mels), float32, of these clips, views and first frames, (N,) each."""
        firsts = np.ravel_multi_index((clips, columns, starts), self.log_mel.shape[:3]) * self.log_mel.shape[3]
        return self._log_mel.read(firsts, (PATCH_FRAMES, self.log_mel.shape[3])).astype("float32")

    def levels(self, clips):
        """Levels (N, 1 + processors × sources) of these clips (N,)."""
        return self._level.read(clips.astype("int64") * self.level.shape[1], self.level.shape[1:])


def write_views(folder, mixtures, snapshots, batch_size=BATCH):
    """Separates each clip by each snapshot and keeps the log-mel of all channels, made from the whole clip.

    Stopped in whatever way and called again with the same arguments, it goes on from the last rows it has on disk.

    Args:
        folder: path; gets `log_mel.npy`, `level.npy` and, last, `views.json`.
        mixtures: (clips, samples), finite, at least one patch (`PATCH_SAMPLES`) long.
        snapshots: dict from name to separator, all with the same number of sources.
    """
    sources = {separator.config["num_sources"] for separator in snapshots.values()}
    if len(sources) != 1:
        raise BadInput(f"snapshots={list(snapshots)}: expected some separators with one and the same num_sources.")
    made_from = {name: [separator.config, digest(separator.weights)] for name, separator in snapshots.items()}
    separators = [inference(separator, batch_size) for separator in snapshots.values()]

    def channels(start, batch):
        return np.concatenate([f(batch) for f in separators], axis=1)

    _write(folder, mixtures, tuple(snapshots), *sources, channels, made_from, batch_size)


def write_source_views(folder, scenes, batch_size=BATCH):
    """Likewise the views of a control: the true sources of `Scenes` as the channels of a processor `TRUE_SOURCES`.

    Scenes of fewer events than others have silent channels, which `reject_quiet` keeps out.
    """
    most = int(scenes.number_of_events.max())

    def channels(start, batch):
        found = np.zeros((len(batch), most, scenes.samples), "float32")
        for row, index in zip(found, range(start, start + len(batch)), strict=True):
            row[: scenes.number_of_events[index]] = scenes[index].sources
        return found

    _write(folder, scenes.mixtures(), (TRUE_SOURCES,), most, channels, scenes.definition, batch_size)


def _write(folder, mixtures, names, sources, channels, made_from, batch_size):
    """Views of `mixtures` and, by each of the processors `names`, of `channels(first clip, batch of mixtures)`."""
    folder, number = Path(folder), len(mixtures)
    starts = range(0, max(1, number), batch_size)
    checked = (numbers("mixtures", mixtures[i : i + batch_size], ("clips", "samples"), "float32") for i in starts)
    made_from, samples = [made_from, batch_size, digest(checked)], mixtures.shape[1]
    shape = (number, 1 + len(names) * sources, LogMel().frames(samples), MEL_BANDS)
    if samples < PATCH_SAMPLES:
        raise BadInput(f"mixtures of {samples} samples: expected at least {PATCH_SAMPLES}, one patch.")
    features, mark = inference(log_mel_model(), batch_size * shape[1]), fingerprint([made_from, shape, samples])
    rows = GrowingRows(folder, {"log_mel": ("float16", shape), "level": ("float32", shape[:2])}, mark)
    if rows.done:
        print(f"views: resumed at clip {rows.done} of {number}", flush=True)
    with closing(rows):
        for start in progress(range(rows.done, number, batch_size), "views", "batch"):
            batch = np.asarray(mixtures[start : start + batch_size], "float32")
            waveforms = np.concatenate([batch[:, None], channels(start, batch)], axis=1)
            patches = features(waveforms.reshape(-1, samples)).reshape(len(batch), *shape[1:])
            energy = np.sum(np.square(waveforms), axis=-1) + 1e-12
            rows.add(patches.astype("float16"), (10 * np.log10(energy / energy[:, :1])).astype("float32"))
    with writing(folder):
        (folder / "views.json").unlink(missing_ok=True)  # of views before, if there were any: they are whole no longer
        rows.finish()
        write_json(folder / "views.json", {"processors": list(names), "num_sources": sources})
        rows.record.unlink()


class ViewPairs(keras.utils.PyDataset):
    """Batches of pairs of patches ((N, 96, mels), (N, 96, mels)): two views of the same clip, cropped independently.

    What is drawn is a pure function of seed, epoch and step. Crops are anywhere in the clip (temporal proximity). For a
    channel, one of the listed processors (the OR rule) and one of its sources is drawn for each clip; in `"chan-chan"`
    for each of the two views, independently, so that now and then both are the same channel at two moments.

    The next batches are read in the background. In memory are these, and the order of the clips: 4 bytes for each.

    Args:
        views: `Views`.
        pairing: `"mix-mix"`, `"mix-chan"` or `"chan-chan"`.
        processors: names for the OR rule, at equal odds, or a dict from name to odds such as `{"S2": 2.0, "N": 1.0}`;
            not needed for `"mix-mix"`.
        batch_size: pairs in a batch. steps: batches in an epoch.
        reject_quiet: a drawn channel more than 40 dB under its mixture gives way to one of the clip that is not: of the
            same processor if there is one, else of the other ones by their odds; where all are quiet, the loudest. All
            other draws stay as they are. Off by default: the paper does not mention it.
        coincidence_crops: gives four arrays, the last two for the coincidence task alone: views of the same clips, with
            channels and moments drawn anew. The first two stay as they are.
    """

    def __init__(
        self, views, pairing="mix-chan", processors=(), batch_size=64, steps=50, seed=0, reject_quiet=False,
        coincidence_crops=False,
    ):  # fmt: skip
        super().__init__()
        if pairing not in PAIRINGS:
            raise BadInput(f"pairing={pairing!r}: expected one of {', '.join(PAIRINGS)}.")
        if batch_size > len(views.log_mel):
            raise BadInput(f"batch_size={batch_size}: expected at most the number of clips, {len(views.log_mel)}.")
        self.views, self.pairing, self.batch_size, self.steps, self.seed = views, pairing, batch_size, steps, seed
        self.reject_quiet, self.coincidence_crops, self.odds = reject_quiet, coincidence_crops, {}
        if pairing != "mix-mix":
            self.channel_columns = views.columns(tuple(processors))
            odds = processors if isinstance(processors, Mapping) else dict.fromkeys(processors, 1.0)
            total = numbers("the odds of processors", list(odds.values()), ("processors",)).sum()
            if min(odds.values()) <= 0:
                raise BadInput(f"processors={processors}: expected odds above zero.")
            self.odds = {name: float(value / total) for name, value in odds.items()}
        self.epoch, self._order, self._coming = 0, (None, None), {}
        self._readers = ThreadPoolExecutor(AHEAD, "reading")

    def __len__(self):
        return self.steps

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, step):
        # Not by Keras' workers: on JAX and torch they hand out batches of the epoch before, and each epoch's end takes
        # them 0.1 s. What is read ahead here is kept by its step from the beginning, and met at no other.
        step += self.epoch * self.steps
        coming = {later: self._coming.get(later) for later in range(step, step + 1 + AHEAD)}
        coming = {later: batch or self._readers.submit(self._read, later) for later, batch in coming.items()}
        batch = coming.pop(step)
        self._coming = coming
        return batch.result()

    def _read(self, step):
        clips, columns, starts = self.draw(step)
        return (tuple(self.views.patches(clips, *which) for which in zip(columns, starts, strict=True)),)

    def draw(self, step):
        """Clips (N,), views (2, N) and first frames (2, N) of the batch at this step, counted from the beginning.

        With crops for the coincidence task of their own, views and first frames are (4, N).
        """
        number, frames = len(self.views.log_mel), self.views.log_mel.shape[2]
        steps_per_pass = number // self.batch_size
        turn, position = divmod(step, steps_per_pass)
        clips = self._clips_of(turn)[position * self.batch_size : (position + 1) * self.batch_size]
        rng, again = (np.random.default_rng((self.seed, use, step)) for use in (1, 2))
        level = self.views.levels(clips) if self.reject_quiet and self.odds else None
        columns, starts = [], []
        for _ in range(2 if self.coincidence_crops else 1):
            columns.append(np.zeros((2, self.batch_size), int))
            for view in PAIRINGS[self.pairing]:
                columns[-1][view] = self._channels(level, rng, again)
            starts.append(rng.integers(0, frames - PATCH_FRAMES + 1, (2, self.batch_size)))
        return clips, np.concatenate(columns), np.concatenate(starts)

    def _clips_of(self, turn):
        """All clips in the order of this turn; kept, because each step of the turn needs it."""
        known, order = self._order
        if known != turn:
            order = np.arange(len(self.views.log_mel), dtype="int32")
            np.random.default_rng((self.seed, 0, turn)).shuffle(order)
            self._order = turn, order  # in one go: threads share it
        return order

    def _channels(self, level, rng, again):
        """A channel's column for each clip; with their levels (N, views), `again` draws in place of quiet ones."""
        candidates, sources = self.channel_columns, self.views.num_sources
        odds = np.repeat(list(self.odds.values()), sources) / sources
        drawn = rng.choice(candidates, self.batch_size, p=None if np.all(odds == odds[0]) else odds)
        if level is None:
            return drawn
        quiet = np.take_along_axis(level, drawn[:, None], axis=1)[:, 0] < QUIET
        level = level[:, candidates]
        loud = level >= QUIET  # (N, candidates)
        same = (candidates - 1) // sources == (drawn[:, None] - 1) // sources
        loudest = np.eye(len(candidates), dtype=bool)[level.argmax(axis=1)]
        among = np.where((loud & same).any(axis=1, keepdims=True), loud & same, loud)
        among = np.where(loud.any(axis=1, keepdims=True), among, loudest)
        cumulative = np.cumsum(among * odds, axis=1)
        picked = (cumulative > again.random((len(level), 1)) * cumulative[:, -1:]).argmax(axis=1)
        return np.where(quiet, candidates[picked], drawn)

    def quiet_shares(self):
        """The share of channels more than 40 dB under their mixture: of each listed processor's, by name, and, as
        "drawn", of all draws by these odds, which is what `reject_quiet` keeps out."""
        shares = {name: self.views.quiet_share(name) for name in self.odds}
        return shares | {"drawn": sum(odds * shares[name] for name, odds in self.odds.items())}
