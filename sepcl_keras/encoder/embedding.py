"""What a trained encoder is for: reading it from a file, and sounds of any length to embeddings."""

import itertools
import json
import zipfile
from pathlib import Path

import keras
import numpy as np

from sepcl_keras.core.backend import inference
from sepcl_keras.core.files import BadInput, numbers, progress
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.views.log_mel import HOP, PATCH_FRAMES, PATCH_SAMPLES, log_mel_model, windows

BATCH = 32  # windows at once: on a CPU more is not faster, and the first block alone holds 1.5 MB a window


def load_encoder(path):
    """The trained `CNN14` in a `.keras` file, on whichever backend Keras runs.

    Args:
        path: the file, or a folder with an `encoder.keras`, such as `artifacts/tiny/made/seed0/encoders/main`.

    The file is read in Keras' safe mode and may name no other class than `CNN14`, so nothing in it is executed. One
    that is missing or damaged, or holds another kind of model, is `BadInput`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "encoder.keras"
    if not path.is_file():
        raise BadInput(f"{path}: expected the .keras file of an encoder, but there is none.")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        found = config["registered_name"] or config["class_name"]  # Keras' own classes are not registered
        # Before Keras sees it: building another model first, to refuse it then, would be a way in.
        if found == keras.saving.get_registered_name(CNN14):
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a file can be broken in more ways than zip, JSON, Keras and HDF5 have names for
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".:")
        raise BadInput(f"{path}: expected a whole .keras file of a CNN14, but reading it failed ({reason}).") from None
    raise BadInput(f"{path}: holds {found}; expected a CNN14, the encoder.")


def embed_log_mel(log_mel, encoder):
    """Embeddings h (clips, windows, d), float32, of spectrograms (clips, frames, mels), also a memory map of them."""
    number = windows(log_mel[:1]).shape[1]
    patches = itertools.chain.from_iterable(windows(log_mel[i : i + 1])[0] for i in range(len(log_mel)))
    h = _in_batches([encoder], patches, len(log_mel) * number, BATCH, show=False)
    return h.reshape(len(log_mel), number, -1)


def embed(waveforms, encoder, hop=PATCH_FRAMES, pool=False, batch_size=BATCH, show=True):
    """Embeddings of sounds of any length, from windows of 0.96 s, computed in batches of one shape.

    Windows lie inside the sound: of a rest at the end, shorter than the hop, nothing is made, as everywhere in the
    course. A sound shorter than one window is filled up with zeros at its end: silence adds no event that was not
    there, as repeating the sound would.

    Args:
        waveforms: array (clips, samples), or a list of arrays (samples,) of any lengths; 16 kHz, floats in [-1, 1].
        encoder: a `CNN14` trained on log-mel of the recipe `"vggish"`.
        hop: frames of 10 ms from one window to the next; 96, the default, is windows that do not overlap.
        pool: whether to take each sound's mean over its windows.
        batch_size: windows at once. It bounds the memory, whatever the length, and does not change the result.
        show: whether to show the progress, in windows.

    Returns:
        h, float32: (clips, d) with `pool`; else (clips, windows, d) of an array and a list of (windows, d) of a list.

    A window's log-mel is made from its 15,600 samples alone; since the recipe's frames lie inside the sound, it is what
    would be cut out of the log-mel of the whole. Raises `BadInput` for other shapes and types, and for what is not
    finite.
    """
    if not isinstance(encoder, CNN14):
        raise BadInput(f"embed: an encoder of type {type(encoder).__name__}; expected a CNN14, as of load_encoder.")
    for name, value in (("hop", hop), ("batch_size", batch_size)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise BadInput(f"embed: {name}={value!r}; expected a whole number, one or more.")
    equal = not isinstance(waveforms, (list, tuple))
    if equal and np.ndim(waveforms) != 2:
        shape = np.shape(waveforms)
        raise BadInput(f"waveforms of shape {shape}: expected (clips, samples) or a list of arrays (samples,).")
    if not len(waveforms):
        raise BadInput("waveforms: expected one clip or more, but there is none.")
    clips = [_checked(f"waveforms[{index}]", waveform) for index, waveform in enumerate(waveforms)]
    counts = [1 + max(0, len(clip) - PATCH_SAMPLES) // (hop * HOP) for clip in clips]
    rows = itertools.chain.from_iterable(_cut(clip, hop) for clip in clips)
    h = _in_batches([log_mel_model(), encoder], rows, sum(counts), batch_size, show)
    of_clips = np.split(h, np.cumsum(counts)[:-1])
    if pool:
        return np.stack([rows.mean(axis=0) for rows in of_clips])
    return np.stack(of_clips) if equal else of_clips


def _checked(name, waveform):
    waveform = np.asarray(waveform)
    if waveform.dtype.kind != "f":
        raise BadInput(f"{name} of {waveform.dtype}: expected floating-point samples in [-1, 1].")
    return numbers(name, waveform, ("samples",), np.float32)


def _cut(clip, hop):
    """Windows (windows, 15,600) of a waveform (samples,), a view where it is long enough."""
    if len(clip) < PATCH_SAMPLES:
        clip = np.pad(clip, (0, PATCH_SAMPLES - len(clip)))
    return np.lib.stride_tricks.sliding_window_view(clip, PATCH_SAMPLES)[:: hop * HOP]


def _in_batches(models, rows, number, batch_size, show):
    """What the models, one after the other, make of `number` rows."""
    batch_size = min(batch_size, 1 << (number - 1).bit_length())  # few shapes, and little waste on one short sound
    functions, rows, parts = [inference(model, batch_size) for model in models], iter(rows), []
    with progress(range(number), "embed", "window", show) as bar:
        while batch := list(itertools.islice(rows, batch_size)):
            batch, done = np.stack(batch, dtype="float32", casting="same_kind"), len(batch)
            for function in functions:
                batch = function(batch)
            parts.append(batch)
            bar.update(done)
    h = np.concatenate(parts)
    if not np.isfinite(h).all():
        raise BadInput("embed: the encoder gives NaN or infinity; expected a network that is trained.")
    return h
