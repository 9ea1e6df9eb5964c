"""From sound files to shards of views: one function writes one shard, and any number of machines share the shards."""

import contextlib
import csv
import itertools
import json
import os
import secrets
import tempfile
from contextlib import closing
from importlib.metadata import version

import keras
import numpy as np

from sepcl_keras.core.checks import BadInput, check_number, one_of, path_of
from sepcl_keras.core.draws import generator
from sepcl_keras.core.files import atomic, fingerprint, progress, read_json, write_json, writing
from sepcl_keras.scenes.ahead import Ahead
from sepcl_keras.scenes.layouts import open_recordings
from sepcl_keras.scenes.recorded import levelled, place, stretches
from sepcl_keras.scenes.splits import SPLITS
from sepcl_keras.separation.separate import BATCH, load_separator
from sepcl_keras.views.log_mel import MEL_BANDS, RECIPES, LogMel
from sepcl_keras.views.processors import Snapshot
from sepcl_keras.views.shards import read_about, save_shard
from sepcl_keras.views.stored import view_maker

FORMAT = "sepcl_keras shard 2"  # 1 had one scene of each file
SNAPSHOTS = ("N", "F", "S1", "S2")  # come first, in this order


def listed(data, split="train"):
    """The clips of a split, or of "all", in a folder (see `open_recordings`), and its refused, id → why."""
    one_of("split", split, (*SPLITS, "all"))
    listing = open_recordings(data)
    return [clip for clip in listing.clips if split in (clip.split, "all")], listing.refused


def load_processors(folder=None, batch_size=BATCH, samples=None):
    """The separators in a folder, `NAME.keras` each, as processors by name: N, F, S1 and S2 first; None has none.

    `samples` of a clip let them multiply integers, see `Snapshot`.
    """
    if folder is None:
        return {}
    paths = {path.stem: path for path in path_of("separator", folder).glob("*.keras")}
    if not paths:
        raise BadInput(f"separator={folder}: expected a folder with snapshots such as N.keras and S2.keras.")
    names = sorted(paths, key=lambda name: (SNAPSHOTS.index(name) if name in SNAPSHOTS else len(SNAPSHOTS), name))
    return {name: Snapshot(load_separator(paths[name]), batch_size, samples) for name in names}


class ShardWriter:
    """Writes shards of views by these processors: what is the same for all shards of a preparation.

    Args:
        processors: dict from name to `Processor`, all with the same number of sources; without any, only the mixtures'
            views are kept.
        seconds: of a scene. A clip's file gives as many as it holds, made as recorded scenes are (see `stretches`).
        batch_size: clips that are separated at once. log_mel: a name of `LogMel`'s recipes; the sample rate is its.

    Attributes:
        recipe: dict of all that the numbers in a shard depend on, beside the sounds and the versions of what computes.
    """

    def __init__(self, processors, seconds=10.0, batch_size=BATCH, log_mel="vggish"):
        check_number("seconds", seconds, above=0)
        check_number("batch_size", batch_size, least=1, whole=True)
        one_of("log_mel", log_mel, RECIPES)
        sample_rate = RECIPES[log_mel]["rate"]
        self.processors, self.batch_size, samples = processors, batch_size, round(seconds * sample_rate)
        # A first clip, of noise, tells how many channels there are, and refuses what makes no channels before the work.
        noise = 0.1 * generator(0, "first clip").standard_normal((1, samples), dtype="float32")
        sources = {self._channels(name, noise).shape[1] for name in processors}
        if len(sources) > 1:
            raise BadInput(f"processors={list(processors)}: expected the same number of sources of each.")
        recipe = {
            "format": FORMAT, "processors": list(processors), "num_sources": max(sources, default=0),
            "definitions": [processor.definition for processor in processors.values()], "sample_rate": sample_rate,
            "samples": samples, "batch_size": batch_size, "log_mel": log_mel, "frames": LogMel(log_mel).frames(samples),
        }  # fmt: skip
        self.recipe = json.loads(json.dumps(recipe))  # as it is in files
        self.views = 1 + len(processors) * self.recipe["num_sources"]
        self._made = view_maker(samples, self.views, batch_size, log_mel)

    def _channels(self, name, clips):
        channels = np.asarray(self.processors[name](clips), "float32")
        if channels.ndim != 3 or channels.shape[::2] != clips.shape or not channels.shape[1]:
            raise BadInput(
                f"processor {name}: channels of shape {channels.shape} of clips {clips.shape}; expected (clips, "
                "sources, samples)."
            )
        return channels

    def __call__(self, clips, path):
        """Writes the shard of `clips` at `path` unless it is there, whole; returns what it says of itself, a dict.

        Its "clips" are scenes: all that the files hold, one after the other, called by the file's id and, but for one
        at its beginning, where it begins. A file that is no sound is left out, and its row in "rejected" says why.
        Memory does not grow with the files' length; the shard does. Raises `BadInput` where another shard
        lies there, by its recipe or its clips.
        """
        mark, about = fingerprint([self.recipe, [clip.id for clip in clips]]), {}
        with contextlib.suppress(BadInput):  # none there, or damaged: it is written anew
            about, _ = read_about(path, whole=True)
        if about:
            if about.get("mark") != mark:
                raise BadInput(f"{path}: a shard of other clips or of another recipe; expected a folder without it.")
            return about
        shape, level, ids, rejected = (self.views, self.recipe["frames"], MEL_BANDS), [], [], []
        with writing(path), closing(self._scenes(clips, rejected)) as scenes:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent) as file:  # recordings of hours have more than memory holds
                while some := [*itertools.islice(scenes, self.batch_size)]:
                    batch = np.stack([waveform for _, waveform in some])
                    # The mixture's view has no channel, and there may be no processors.
                    channels = np.concatenate(
                        [batch[:, None][:, :0], *(self._channels(n, batch) for n in self.processors)], 1
                    )
                    finite = np.isfinite(channels).all(axis=(1, 2))
                    reason = "a processor gives NaN or infinity for it; expected finite channels."
                    rejected += [[id, reason] for (id, _), fine in zip(some, finite, strict=True) if not fine]
                    if finite.any():
                        log_mel, levels = self._made(batch[finite], channels[finite])
                        file.write(log_mel.tobytes())
                        level.append(levels)
                        ids += [id for (id, _), fine in zip(some, finite, strict=True) if fine]
                file.flush()
                shape = len(ids), *shape
                log_mel = np.memmap(file, "float16", "r", shape=shape) if ids else np.empty(shape, "float16")
                level = np.concatenate([np.empty((0, self.views), "float32"), *level])
                about = {
                    "mark": mark, "recipe": self.recipe, "clips": len(ids), "rejected": sorted(rejected),
                    "versions": versions(),
                }  # fmt: skip
                save_shard(path, log_mel, level, ids, about)
        return about

    def _scenes(self, clips, rejected):
        """(id, waveform) of all scenes of the clips, in their order; of a clip without any, [id, why] is rejected."""
        samples, sample_rate = self.recipe["samples"], self.recipe["sample_rate"]

        def of_file(path):
            """Its scenes; the first of several comes when all of the file was read, so that none is of a broken one."""
            all_of_it = stretches(path, samples, sample_rate)
            found = [*itertools.islice(all_of_it, 2)]
            if len(found) > 1:
                for _ in all_of_it:
                    pass
                found = stretches(path, samples, sample_rate)
            for first, waveform in found:
                yield first, levelled(waveform, sample_rate)

        ahead, begun = Ahead([clip.path for clip in clips], of_file, 2 * self.batch_size * samples), set()
        with closing(ahead.sounds()) as sounds:
            for index, sound in sounds:
                clip = clips[index]
                if isinstance(sound, tuple):
                    begun.add(index)
                    yield place(clip.id, sound[0] / sample_rate), sound[1]
                elif sound is not None:
                    why = str(sound).replace(str(clip.path), clip.id)  # wherever the data lie
                    if index in begun:
                        raise BadInput(f"{why} It was whole a moment ago; preparing again makes the shard.")
                    rejected.append([clip.id, why])


def write_shard(clips, processors, path, **options):
    """Writes the views of `clips`, each with an `id` and a `path`, by `processors` as one file; returns what it says.

    `options` are those of `ShardWriter`, which for many shards is made once.
    """
    return ShardWriter(processors, **options)(clips, path_of("path", path))


def versions():
    """The versions of what computes the numbers."""
    names = ("sepcl-keras", "keras", "numpy", "soundfile", "soxr", keras.backend.backend())
    return {name: version(name) for name in names}


class Preparation:
    """The shards of all clips, in one folder; each is written by whichever machine gets to it, whole or not at all.

    Which files a shard is made of depends on the list of clips and on `clips_per_shard` alone. So a preparation that
    was killed goes on with the shards that are missing, two machines on the same shard write the same bytes, and one of
    other clips or another recipe is refused in a folder that has one already.

    Args:
        clips: objects with an `id` and a `path`, no two with one id. writer: a `ShardWriter`. out: the folder.
        clips_per_shard: files of a shard, whatever their length: of recordings of hours rather few.
        refused: dict, id → why, of what was listed and cannot be read at all; it comes first in `rejected.csv`.
    """

    def __init__(self, clips, writer, out, clips_per_shard=100, refused=()):
        check_number("clips_per_shard", clips_per_shard, least=1, whole=True)
        self.clips, self.writer, self.out, self.refused = clips, writer, path_of("OUT", out), dict(refused)
        self.clips_per_shard, ids = clips_per_shard, [clip.id for clip in clips]
        if not ids or len(set(ids)) < len(ids):
            raise BadInput(f"{len(ids)} clips with {len(set(ids))} ids: expected some, each with an id of its own.")
        self.shards = -(-len(clips) // clips_per_shard)
        plan = {
            "recipe": writer.recipe,
            "clips_per_shard": clips_per_shard,
            "number": len(ids),
            "clips": fingerprint(ids),
        }
        _claim(self.out / "plan.json", plan)

    def path(self, shard):
        return self.out / f"shard-{shard:06d}-of-{self.shards:06d}.npz"

    def write(self, shard):
        """Writes this shard, unless it is there whole; returns how many scenes it holds and how much it leaves out."""
        first = shard * self.clips_per_shard
        about = self.writer(self.clips[first : first + self.clips_per_shard], self.path(shard))
        return about["clips"], len(about["rejected"])

    def write_part(self, part=1, parts=1, show=True):
        """Writes part 1, 2, … of so many parts; where no shard is missing then, `finish` writes the manifest."""
        for name, value in (("part", part), ("parts", parts)):
            check_number(name, value, least=1, whole=True)
        if part > parts:
            raise BadInput(f"part={part}: expected 1 to {parts}, the number of parts.")
        for shard in progress(range(part - 1, self.shards, parts), "views", "shard", show):
            self.write(shard)
        return self.finish()

    def finish(self):
        """Writes `rejected.csv` and the manifest `views.json` where all shards are there; returns what it says or None.

        Both are made of the shards and the listing alone: whoever ends last, or does it again, writes the same.
        """
        if not all(self.path(shard).exists() for shard in range(self.shards)):
            return None
        shards, rejected, used = [], [*self.refused.items()], []
        for path in map(self.path, range(self.shards)):
            about, checksum = read_about(path)
            shards.append([path.name, about["clips"], path.stat().st_size, checksum])
            rejected += about["rejected"]
            used += [about["versions"]] if about["versions"] not in used else []
        with atomic(self.out / "rejected.csv") as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["id", "reason"], *rejected])
        manifest = self.writer.recipe | {
            "clips": sum(clips for _, clips, *_ in shards), "rejected": len(rejected), "versions": used,
            "seconds": self.writer.recipe["samples"] / self.writer.recipe["sample_rate"], "shards": shards,
        }  # fmt: skip
        write_json(self.out / "views.json", manifest)
        return manifest


def _claim(path, plan):
    """Writes the plan at `path` if there is none, and refuses another one; of several at once the first counts."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            own = path.with_name(f".plan-{secrets.token_hex(8)}.json")
            try:
                write_json(own, plan)
                os.link(own, path)  # which, unlike a new name, replaces nothing
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                os.replace(own, path)
            finally:
                own.unlink(missing_ok=True)
    found = read_json(path, dict)
    other = [name for name, value in plan.items() if found.get(name) != value]
    if other:
        raise BadInput(
            f"{path}: of another preparation, by its {', '.join(other)}; expected a folder of its own for this."
        )
