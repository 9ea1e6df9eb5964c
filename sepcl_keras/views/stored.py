"""Views on disk: the log-mel of mixtures and of the channels of every processor, written and read."""

import threading
from collections import OrderedDict
from contextlib import closing
from pathlib import Path

import numpy as np

from sepcl_keras.core.arrays import GrowingArrays, StoredArray, digest
from sepcl_keras.core.backend import inference
from sepcl_keras.core.checks import BadInput, check_number, numbers, path_of
from sepcl_keras.core.files import fingerprint, progress, read_json, write_json, writing
from sepcl_keras.separation.separate import BATCH
from sepcl_keras.views.log_mel import MEL_BANDS, PATCH_FRAMES, PATCH_SAMPLES, LogMel, log_mel_model
from sepcl_keras.views.processors import Snapshot
from sepcl_keras.views.shards import Shard

TRUE_SOURCES = "sources"  # the processor of a control: what a scene was mixed from, which only its maker knows
QUIET = -40.0  # dB under the mixture: below this a channel is taken for silence
OPEN = 256  # shards that stay open


def view_maker(samples, views, batch_size=BATCH, recipe="vggish"):
    """A function of clips (clips, samples) and their channels (clips, views - 1, samples) to what is kept of them:
    log-mel, float16 (clips, views, frames, mels), and level in dB, float32 (clips, views)."""
    if samples < PATCH_SAMPLES:
        raise BadInput(f"mixtures of {samples} samples: expected at least {PATCH_SAMPLES}, one patch.")
    features = inference(log_mel_model(recipe), batch_size * views)

    def made(batch, channels):
        waveforms = np.concatenate([batch[:, None], channels], axis=1)
        log_mel = features(waveforms.reshape(-1, samples))
        energy = np.sum(np.square(waveforms), axis=-1) + 1e-12
        level = (10 * np.log10(energy / energy[:, :1])).astype("float32")
        return log_mel.reshape(*waveforms.shape[:2], *log_mel.shape[1:]).astype("float16"), level

    return made


class Views:
    """Log-mel spectrograms of mixtures and of every processor's channels, read from disk as they are needed.

    They lie in two arrays, as `write_views` has them, or in shards, as `sepcl_keras.prepare` writes them; clips are
    counted through all shards.

    Args:
        folder: path.
        host: (index, count), where several machines train together and each reads shards of its own: with
            `jax.distributed`, `backend.host()`, which is `jax.process_index(), jax.process_count()`.

    Attributes:
        shape: (clips, 1 + processors × sources, frames, mels); view 0 is the mixture.
        log_mel: of two arrays, the spectrograms as a float16 memory map; of shards, None.
        level: likewise float32 (clips, 1 + processors × sources), energy in dB relative to the mixture's.
        processors: names in the order of the views.
        num_sources: channels of each processor.
        recipe: of the log-mel, a name of `LogMel`'s.
        damaged: clips of which a patch was not whole when it was read, by their numbers; only shards can tell.

    Raises `BadInput` with the name of the file that was not left so by what writes views.
    """

    def __init__(self, folder, host=(0, 1)):
        self.folder, self.host = folder, host = path_of("folder", folder), tuple(host)
        index, count = self.host
        check_number("host's count", count, least=1, whole=True)
        check_number("host's index", index, least=0, whole=True)
        if index >= count:
            raise BadInput(f"host={host}: expected an index below the count.")
        path = folder / "views.json"
        description = read_json(path, dict)
        try:
            self.processors, self.num_sources = tuple(description["processors"]), int(description["num_sources"])
            names = {name for name in self.processors if isinstance(name, str)}
            if not isinstance(description["processors"], list) or len(names) < len(self.processors):
                raise ValueError("processors that are no names, or twice the same")
            self.recipe, shards = description.get("log_mel", "vggish"), description.get("shards")
            if shards is not None:
                frames = int(description["frames"])
                shards = [(folder / Path(name).name, int(clips), int(size)) for name, clips, size, _ in shards]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise BadInput(f"{path}: expected the processors and num_sources of views.") from None
        self.damaged, self._open, self._lock = set(), OrderedDict(), threading.Lock()
        views = 1 + len(self.processors) * self.num_sources
        if shards is None:
            part = _Arrays(folder, views)
            self.log_mel, self.level, self.shape = part.log_mel, part.level, part.log_mel.shape
            self._shards, self._open[0] = [(folder, len(part.log_mel), None)], part
        else:
            self.log_mel, self.level = None, None
            self._shards = [shard for shard in shards[index::count] if shard[1]]
            for shard, clips, size in self._shards:
                if not shard.is_file() or shard.stat().st_size != size:
                    raise BadInput(f"{shard}: missing or cut short; expected {size} bytes; preparing again makes it.")
                if min(clips, views, frames) < 1 or 2 * clips * views * frames * MEL_BANDS > size:
                    raise BadInput(
                        f"{path}: {clips} clips of {views} views of {frames} frames in {shard.name}; expected what "
                        f"fits in its {size} bytes."
                    )
            self.shape = (sum(clips for _, clips, _ in self._shards), views, frames, MEL_BANDS)
            if not self.shape[0] or frames < PATCH_FRAMES:
                raise BadInput(
                    f"{path}: views of shape {self.shape} for host {host}; expected some of 96 frames or more."
                )
        self._ends = np.cumsum([clips for _, clips, _ in self._shards])

    def __len__(self):
        return self.shape[0]

    def _part(self, index):
        """The arrays or the shard of this number, or None where it cannot be read; the last ones stay open."""
        with self._lock:
            if index in self._open:
                self._open.move_to_end(index)
                return self._open[index]
        path, clips, _ = self._shards[index]
        try:
            part = Shard(path, (clips, *self.shape[1:]))
        except BadInput:
            part = None
        with self._lock:
            self._open[index] = part
            while len(self._open) > OPEN:
                self._open.popitem(last=False)
        return part

    def _by_part(self, clips):
        """Parts, the rows of `clips` (N,) that lie in each, and the numbers that these have there."""
        indices = np.searchsorted(self._ends, clips, side="right")
        for index in np.unique(indices):
            rows = np.flatnonzero(indices == index)
            yield self._part(index), rows, clips[rows] - (self._ends[index] - self._shards[index][1])

    def columns(self, processors):
        """Which views are channels of these processors (the OR rule draws among them)."""
        unknown = sorted(set(processors) - set(self.processors))
        if unknown or not processors or len(set(processors)) < len(processors):
            raise BadInput(f"processors={processors}: expected some of {', '.join(self.processors)}, each once.")
        starts = [1 + self.processors.index(name) * self.num_sources for name in processors]
        return np.array([start + source for start in starts for source in range(self.num_sources)])

    def quiet_share(self, processor):
        """The share of this processor's channels that are more than 40 dB under their mixture."""
        columns, rows = self.columns((processor,)), 2**16
        levels = (part.level for part in map(self._part, range(len(self._shards))) if part is not None)
        pieces = (level[i : i + rows, columns] for level in levels for i in range(0, len(level), rows))
        counts = np.array([(np.count_nonzero(piece < QUIET), piece.size) for piece in pieces])
        if not len(counts):
            raise BadInput(f"{self.folder}: no shard can be read; expected some; preparing again makes them.")
        return float(np.divide(*counts.sum(axis=0)))

    def patches(self, clips, columns, starts):
        """Patches (N, 96, mels), float32, of these clips, views and first frames, (N,) each, and which are whole (N,).

        Those that are not are zeros, and their clips join `damaged`.
        """
        patches, whole = np.zeros((len(clips), PATCH_FRAMES, self.shape[3]), "float32"), np.zeros(len(clips), bool)
        for part, rows, inside in self._by_part(clips):
            if part is not None:
                patches[rows], whole[rows] = part.patches(inside, columns[rows], starts[rows])
        for clip in sorted({*clips[~whole].tolist()} - self.damaged):
            self.damaged.add(clip)
            path = self._shards[np.searchsorted(self._ends, clip, side="right")][0]
            print(f"{path}: clip {clip} of the views is damaged; others take its place ({len(self.damaged)} so far).")
        return patches, whole

    def levels(self, clips):
        """Levels (N, 1 + processors × sources) of these clips (N,); zeros where a shard cannot be read."""
        levels = np.zeros((len(clips), self.shape[1]), "float32")
        for part, rows, inside in self._by_part(clips):
            if part is not None:
                levels[rows] = part.levels(inside)
        return levels


class _Arrays:
    """The two arrays that `write_views` leaves in a folder, read as a `Shard` is."""

    def __init__(self, folder, views):
        self._log_mel = StoredArray(folder / "log_mel.npy", "float16", 4)
        self._level = StoredArray(folder / "level.npy", "float32", 2)
        self.log_mel, self.level = self._log_mel.array, self._level.array
        frames = self.log_mel.shape[2]
        for path, shape in ((self._log_mel.path, self.log_mel.shape), (self._level.path, self.level.shape)):
            if shape[:2] != (len(self.log_mel), views) or frames < PATCH_FRAMES:
                raise BadInput(
                    f"{path}: shape {shape}; expected {len(self.log_mel)} clips, {views} views of each, by views.json, "
                    f"and at least {PATCH_FRAMES} frames."
                )

    def patches(self, clips, columns, starts):
        firsts = np.ravel_multi_index((clips, columns, starts), self.log_mel.shape[:3]) * self.log_mel.shape[3]
        return self._log_mel.read(firsts, (PATCH_FRAMES, self.log_mel.shape[3])), np.ones(len(clips), bool)

    def levels(self, clips):
        return self._level.read(clips.astype("int64") * self.level.shape[1], self.level.shape[1:])


def write_views(folder, mixtures, snapshots, batch_size=BATCH):
    """Separates each clip by each snapshot and keeps the log-mel of all channels, made from the whole clip.

    Stopped in whatever way and called again with the same arguments, it goes on from the last rows it has on disk, or
    from the first where separation has another arithmetic now (see `Snapshot`).

    Args:
        folder: path; gets `log_mel.npy`, `level.npy` and, last, `views.json`.
        mixtures: (clips, samples), finite, at least one patch (`PATCH_SAMPLES`) long.
        snapshots: dict from name to separator, all with the same number of sources.
    """
    sources = {separator.config["num_sources"] for separator in snapshots.values()}
    if len(sources) != 1:
        raise BadInput(f"snapshots={list(snapshots)}: expected some separators with one and the same num_sources.")
    samples = mixtures.shape[-1]
    processors = {name: Snapshot(separator, batch_size, samples) for name, separator in snapshots.items()}
    for line in sorted({processor.arithmetic for processor in processors.values()}):
        print(f"views: {line}", flush=True)
    made_from = {name: processor.definition for name, processor in processors.items()}

    def channels(start, batch):
        return np.concatenate([processor(batch) for processor in processors.values()], axis=1)

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
    made, mark = view_maker(samples, shape[1], batch_size), fingerprint([made_from, shape, samples])
    rows = GrowingArrays(folder, {"log_mel": ("float16", shape), "level": ("float32", shape[:2])}, mark)
    if rows.done:
        print(f"views: resumed at clip {rows.done} of {number}", flush=True)
    with closing(rows):
        for start in progress(range(rows.done, number, batch_size), "views", "batch"):
            batch = np.asarray(mixtures[start : start + batch_size], "float32")
            rows.add(*made(batch, channels(start, batch)))
    with writing(folder):
        (folder / "views.json").unlink(missing_ok=True)  # of views before, if there were any: they are whole no longer
        rows.finish()
        write_json(folder / "views.json", {"processors": list(names), "num_sources": sources})
        rows.record.unlink()
