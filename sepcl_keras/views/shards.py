"""A shard: the views of some clips in one file, of which single patches are read and checked.

The file is an uncompressed `.npz`, a zip of NumPy's own arrays. What was asked of a format, and what trying found
(200 clips of 10 s with 9 views, 1.15 MB each; random patches of one view, 12 KB; files in memory, one core):

- Two patches of a clip's 1.15 MB are read, so single stretches must be within reach. An array in an uncompressed zip
  lies in one piece at a known place: 0.07 ms a patch, checked, and 1 ms more where the shard is opened first. TFRecord
  and ArrayRecord reach a record and no part of it: 0.13 ms, unchecked and with an index of our own, and 0.6 ms, each
  time the whole 1.15 MB, which from a disk is a hundred times as much. (A record for each patch would let crops begin
  at multiples of 96 frames only.) ArrayRecord's compression took 8 % off the size, and 2.4 ms.
- NumPy alone reads it, on any system and any Python, whatever Keras runs on: `np.load("….npz")`. TFRecord's own reader
  is TensorFlow's; ArrayRecord has compiled wheels for some systems and Pythons.
- A zip has a checksum for each array. One over all of an array would say that a shard is damaged when all of it was
  read, so there are others for each 96 frames of each view: a patch lies in two of these blocks at most.

    log_mel    float16 (clips, 1 + processors × sources, frames, mels); view 0 is the mixture
    level      float32 (clips, 1 + processors × sources), energy in dB relative to the mixture's
    sums       uint32 (clips, 1 + processors × sources, blocks), the CRC-32 of each 96 frames of `log_mel`
    ids        text (clips,)
    about.json the recipe, versions, and the clips that were left out, each with the reason
"""

import json
import zipfile
import zlib

import numpy as np

from sepcl_keras.core.arrays import StoredArray
from sepcl_keras.core.checks import BadInput, reason_of
from sepcl_keras.core.files import atomic, writing
from sepcl_keras.views.log_mel import PATCH_FRAMES

ABOUT = "about.json"
SAYS = {"mark": str, "recipe": dict, "clips": int, "rejected": list, "versions": dict}  # what a shard says of itself


def block_sums(log_mel):
    """The CRC-32 of each 96 frames, uint32 (clips, views, blocks), of spectrograms (clips, views, frames, mels)."""
    starts = range(0, log_mel.shape[2], PATCH_FRAMES)
    sums = [[zlib.crc32(view[i : i + PATCH_FRAMES]) for i in starts] for clip in log_mel for view in clip]
    return np.array(sums, "uint32").reshape(*log_mel.shape[:2], len(starts))


def save_shard(path, log_mel, level, ids, about):
    """Writes a shard, whole or not at all; of the same contents it has the same bytes, whenever and wherever."""
    ids = np.array(ids, str) if len(ids) else np.zeros(0, "U1")
    arrays = {"log_mel": log_mel, "level": level, "sums": block_sums(log_mel), "ids": ids}
    with writing(path), atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            with archive.open(_entry(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
        archive.writestr(_entry(ABOUT), json.dumps(about, ensure_ascii=False))


def _entry(name):
    entry = zipfile.ZipInfo(name)  # of 1980, and not of now
    entry.create_system = 3  # Windows would write 0
    return entry


def read_about(path, whole=False):
    """What a shard says of itself, and the checksum of its spectrograms; `BadInput` where it cannot be read.

    With `whole`, every array is checked against its checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() if whole else None
            if damaged:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            about = json.loads(archive.read(ABOUT))
            if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in SAYS.items()):
                raise ValueError(f"{ABOUT} without its {', '.join(SAYS)}")
            return about, archive.getinfo("log_mel.npy").CRC
    except Exception as error:  # as `StoredArray` has it
        raise BadInput(f"{path}: expected a whole shard ({reason_of(error)}).") from None


class Shard:
    """A shard, opened; only its spectrograms stay on disk.

    Attributes:
        log_mel: float16 memory map (clips, views, frames, mels). level, ids: arrays in memory.

    Raises `BadInput` where it is not the shard of `shape`, or where anything but the spectrograms is damaged.
    """

    def __init__(self, path, shape):
        self._log_mel = StoredArray(path, "float16", 4, "log_mel")
        try:
            with np.load(path) as arrays:  # which compares checksums
                self.level, self.ids, self._sums = (arrays[name] for name in ("level", "ids", "sums"))
        except Exception as error:  # as `StoredArray` has it
            raise BadInput(f"{path}: expected a whole shard ({reason_of(error)}).") from None
        self.log_mel, blocks = self._log_mel.array, -(-shape[2] // PATCH_FRAMES)
        found = self.log_mel.shape, self.level.shape, self._sums.shape, self.ids.shape
        if found != (shape, shape[:2], (*shape[:2], blocks), shape[:1]):
            raise BadInput(f"{path}: arrays of shapes {found}; expected spectrograms of shape {shape} and what fits.")

    def patches(self, clips, columns, starts):
        """Patches (N, 96, mels) of these clips, views and first frames, and whether each is whole (N,), else zeros."""
        _, _, frames, mels = self.log_mel.shape
        patches, whole = np.zeros((len(clips), PATCH_FRAMES, mels), "float16"), np.zeros(len(clips), bool)
        for row, (clip, column, start) in enumerate(zip(clips, columns, starts, strict=True)):
            begin = start // PATCH_FRAMES * PATCH_FRAMES
            end = min(-(-(start + PATCH_FRAMES) // PATCH_FRAMES) * PATCH_FRAMES, frames)
            first = np.ravel_multi_index((clip, column, begin, 0), self.log_mel.shape)
            try:
                (read,) = self._log_mel.read(np.array([first]), (end - begin, mels))
            except (BadInput, OSError):
                continue
            sums = block_sums(read[None, None])[0, 0]
            known = self._sums[clip, column, begin // PATCH_FRAMES :]
            if (sums == known[: len(sums)]).all():
                patches[row], whole[row] = read[start - begin : start - begin + PATCH_FRAMES], True
        return patches, whole

    def levels(self, clips):
        return self.level[clips]
