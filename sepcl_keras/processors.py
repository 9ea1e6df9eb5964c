"""The separator's snapshots as processors: separating clips, keeping their views on disk, drawing pairs of patches."""

import json

import keras
import numpy as np

from sepcl_keras.backend import inference
from sepcl_keras.features import PATCH_FRAMES, LogMel
from sepcl_keras.files import BadInput, atomic, progress, write_json

PAIRINGS = ("mix-mix", "mix-chan", "chan-chan")
QUIET = -40.0  # dB under the mixture: below this a channel is taken for silence


def separate(separator, mixtures, batch_size=16):
    """Channels (clips, sources, samples) of mixtures (clips, samples), in batches, whole clips at once."""
    separate_batch, number = inference(separator), len(mixtures)
    padded = np.pad(mixtures, ((0, -number % batch_size), (0, 0)))  # one shape of batch: compiled once
    starts = range(0, number, batch_size)
    return np.concatenate([separate_batch(padded[start : start + batch_size]) for start in starts])[:number]


class Views:
    """Log-mel spectrograms of mixtures and of every processor's channels, read from disk as they are needed.

    Attributes:
        log_mel: float16 memory map (clips, 1 + processors × sources, frames, mels); view 0 is the mixture.
        level: float32 (clips, 1 + processors × sources), energy in dB relative to the mixture's.
        processors: names in the order of the views.
        num_sources: channels of each processor.
    """

    def __init__(self, folder):
        with open(folder / "views.json", encoding="utf-8") as file:
            description = json.load(file)
        self.log_mel = np.load(folder / "log_mel.npy", mmap_mode="r")
        self.level = np.load(folder / "level.npy")
        self.processors = tuple(description["processors"])
        self.num_sources = description["num_sources"]

    def columns(self, processors):
        """Which views are channels of these processors (the OR rule draws among them)."""
        unknown = sorted(set(processors) - set(self.processors))
        if unknown or not processors:
            raise BadInput(f"processors={processors}: expected some of {', '.join(self.processors)}.")
        starts = [1 + self.processors.index(name) * self.num_sources for name in processors]
        return np.array([start + source for start in starts for source in range(self.num_sources)])

    def quiet_share(self, processor):
        """The share of this processor's channels that are more than 40 dB under their mixture."""
        return float(np.mean(self.level[:, self.columns((processor,))] < QUIET))


def write_views(folder, mixtures, snapshots, batch_size=16):
    """Separates each clip by each snapshot and keeps the log-mel of all channels, made from the whole clip.

    Args:
        folder: path; gets `log_mel.npy`, `level.npy` and, last, `views.json`.
        mixtures: (clips, samples).
        snapshots: dict from name to separator.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log_mel, sources = LogMel(), next(iter(snapshots.values())).config["num_sources"]
    shape = (len(mixtures), 1 + len(snapshots) * sources, log_mel.frames(mixtures.shape[1]), 64)
    level = np.zeros(shape[:2], "float32")
    separators = [inference(separator) for separator in snapshots.values()]
    features = inference(keras.Sequential([log_mel]))
    with atomic(folder / "log_mel.npy") as temporary:
        views = np.lib.format.open_memmap(temporary, mode="w+", dtype="float16", shape=shape)
        for start in progress(range(0, len(mixtures), batch_size), "views", "batch"):
            batch = mixtures[start : start + batch_size]
            waveforms = np.concatenate([batch[:, None], *(f(batch) for f in separators)], axis=1)
            rows = slice(start, start + len(batch))
            flat = waveforms.reshape(-1, waveforms.shape[-1])
            views[rows] = features(flat).reshape(len(batch), *shape[1:])
            energy = np.sum(np.square(waveforms), axis=-1) + 1e-12
            level[rows] = 10 * np.log10(energy / energy[:, :1])
        views.flush()
        del views
    with atomic(folder / "level.npy") as temporary:
        np.save(temporary, level)
    write_json(folder / "views.json", {"processors": list(snapshots), "num_sources": sources})


class ViewPairs(keras.utils.PyDataset):
    """Batches of pairs of patches ((N, 96, mels), (N, 96, mels)): two views of the same clip, cropped independently.

    What is drawn is a pure function of seed, epoch and step. Crops are anywhere in the clip (temporal proximity); for a
    channel, one of the listed processors (the OR rule, equal odds) and one of its sources is drawn for each clip.

    Args:
        views: `Views`.
        pairing: `"mix-mix"`, `"mix-chan"` or `"chan-chan"`.
        processors: names for the OR rule; not needed for `"mix-mix"`.
        batch_size: pairs in a batch. steps: batches in an epoch.
    """

    def __init__(self, views, pairing="mix-chan", processors=(), batch_size=64, steps=50, seed=0):
        super().__init__()
        if pairing not in PAIRINGS:
            raise BadInput(f"pairing={pairing!r}: expected one of {', '.join(PAIRINGS)}.")
        if batch_size > len(views.log_mel):
            raise BadInput(f"batch_size={batch_size}: expected at most the number of clips, {len(views.log_mel)}.")
        self.views, self.pairing, self.batch_size, self.steps, self.seed = views, pairing, batch_size, steps, seed
        self.channel_columns = None if pairing == "mix-mix" else views.columns(processors)
        self.epoch = 0

    def __len__(self):
        return self.steps

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, step):
        clips, columns, starts = self.draw(self.epoch * self.steps + step)
        return ((self._patches(clips, columns[0], starts[0]), self._patches(clips, columns[1], starts[1])),)

    def draw(self, step):
        """Clips (N,), views (2, N) and first frames (2, N) of the batch at this step, counted from the beginning."""
        number, frames = len(self.views.log_mel), self.views.log_mel.shape[2]
        steps_per_pass = number // self.batch_size
        turn, position = divmod(step, steps_per_pass)
        order = np.random.default_rng((self.seed, 0, turn)).permutation(number)
        clips = order[position * self.batch_size : (position + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, 1, step))
        columns = np.zeros((2, self.batch_size), int)
        for view in {"mix-mix": (), "mix-chan": (1,), "chan-chan": (0, 1)}[self.pairing]:
            columns[view] = rng.choice(self.channel_columns, self.batch_size)
        return clips, columns, rng.integers(0, frames - PATCH_FRAMES + 1, (2, self.batch_size))

    def _patches(self, clips, columns, starts):
        patches = [
            self.views.log_mel[clip, column, start : start + PATCH_FRAMES]
            for clip, column, start in zip(clips, columns, starts, strict=True)
        ]
        return np.stack(patches).astype("float32")
