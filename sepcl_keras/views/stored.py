"""Views on disk: the log-mel of mixtures and of the channels of every processor, written and read."""

from contextlib import closing
from pathlib import Path

import numpy as np

from sepcl_keras.core.arrays import GrowingArrays, StoredArray, digest
from sepcl_keras.core.backend import inference
from sepcl_keras.core.checks import BadInput, numbers
from sepcl_keras.core.files import fingerprint, progress, read_json, write_json, writing
from sepcl_keras.separation.separate import BATCH
from sepcl_keras.views.log_mel import MEL_BANDS, PATCH_FRAMES, PATCH_SAMPLES, LogMel, log_mel_model

TRUE_SOURCES = "sources"  # the processor of a control: what a scene was mixed from, which only its maker knows
QUIET = -40.0  # dB under the mixture: below this a channel is taken for silence


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
        description = read_json(folder / "views.json", dict)
        try:
            self.processors, self.num_sources = tuple(description["processors"]), int(description["num_sources"])
        except (KeyError, TypeError, ValueError):
            raise BadInput(f"{folder / 'views.json'}: expected the processors and num_sources of views.") from None
        self._log_mel = StoredArray(folder / "log_mel.npy", "float16", 4)
        self._level = StoredArray(folder / "level.npy", "float32", 2)
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


def write_log_mel(folder, scenes, mark, batch_size=64):
    """The log-mel of the mixtures of `Scenes` alone, as `log_mel.npy` (scenes, frames, mels); goes on after a stop."""
    features = inference(log_mel_model(), batch_size)
    arrays = {"log_mel": ("float16", (len(scenes), LogMel().frames(scenes.samples), MEL_BANDS))}
    growing = GrowingArrays(folder, arrays, mark)
    with closing(growing):
        for start in progress(range(growing.done, len(scenes), batch_size), f"{scenes.split} log-mel", "batch"):
            batch = range(start, min(start + batch_size, len(scenes)))
            growing.add(features(np.stack([scenes[index].mixture for index in batch])).astype("float16"))
    growing.finish()
    with writing(folder):
        growing.record.unlink()


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
    rows = GrowingArrays(folder, {"log_mel": ("float16", shape), "level": ("float32", shape[:2])}, mark)
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
