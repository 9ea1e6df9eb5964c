"""What a trained encoder is for: reading it from a file, and sounds of any length to embeddings."""

import itertools

import numpy as np

from sepcl_keras.core.backend import inference
from sepcl_keras.core.checks import BadInput, array, check_number, numbers, path_of, warn_if_loud
from sepcl_keras.core.files import progress
from sepcl_keras.core.saved import load_model
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.views.log_mel import (
    HOP,
    MEL_BANDS,
    PATCH_FRAMES,
    PATCH_SAMPLES,
    SAMPLE_RATE,
    LogMel,
    log_mel_model,
    windows,
)

STEP = 50  # ms from one timestamp to the next: the most that HEAR suggests, and five frames exactly, so nothing drifts
BATCH = 32  # patches at once: on a CPU more is not faster, and the first block alone holds 1.5 MB a patch


def load_encoder(path):
    """The trained `CNN14` in a `.keras` file, in the precision it was saved in, on whichever backend Keras runs.

    Args:
        path: the file, or a folder with an `encoder.keras`, such as `artifacts/tiny/made/seed0/encoders/main`.

    Nothing in the file is executed. One that is missing or damaged, or holds another network, is `BadInput`.
    """
    path = path_of("path", path)
    return load_model(path / "encoder.keras" if path.is_dir() else path, CNN14)


def in_float32(encoder):
    """The encoder, built; where it computes in another precision, another one with its weights that does in float32."""
    if not isinstance(encoder, CNN14):
        raise BadInput(f"an encoder of type {type(encoder).__name__}; expected a CNN14, as load_encoder gives.")
    if not encoder.built:
        encoder.build((None, None, MEL_BANDS))
    if encoder.dtype_policy.name == "float32":
        return encoder
    twin = CNN14.from_config(encoder.get_config() | {"dtype": "float32"})
    twin.build((None, None, MEL_BANDS))
    twin.set_weights([np.asarray(weight, "float32") for weight in encoder.get_weights()])
    return twin


def embed_log_mel(log_mel, encoder):
    """Embeddings h (clips, windows, d) as by `embed`, of spectrograms (clips, frames, mels), also a memory map of them.

    Their recipe is the encoder's. A window has as many frames as its samples make: 15,600 are 96, or 98 of `"panns"`.
    """
    encoder = in_float32(encoder)
    frames, hop = LogMel(encoder.recipe).frames(encoder.window), default_hop(encoder.window)
    number = windows(array("log_mel", log_mel[:1]), frames, hop).shape[1]
    of_clips = (windows(array("log_mel", log_mel[i : i + 1]), frames, hop)[0] for i in range(len(log_mel)))
    rows, batch = itertools.chain.from_iterable(of_clips), default_batch(encoder.window)
    h = _in_batches([encoder], rows, len(log_mel) * number, batch, show=False)
    return h.reshape(len(log_mel), number, -1)


def default_hop(window):
    """Frames from one window of so many samples to the next, so that they follow one another.

    Patches do by their 96 frames, as everywhere in the course, which leaves 15 ms in two of them; others by samples.
    """
    return PATCH_FRAMES if window == PATCH_SAMPLES else window // HOP


def default_batch(window):
    """Windows of so many samples at once: as much sound as 32 patches."""
    return max(1, BATCH * PATCH_SAMPLES // window)


def embed(waveforms, encoder, hop=None, pool=False, batch_size=None, window=None, show=True):
    """Embeddings of sounds of any length, from windows as long as the encoder's, computed in batches of one shape.

    Windows lie inside the sound: of a rest at the end, shorter than the hop, nothing is made, as everywhere in the
    course. A sound shorter than one window is filled up with zeros at its end: silence adds no event that was not
    there, as repeating the sound would.

    Args:
        waveforms: array or tensor (clips, samples), or a list of these (samples,) of any lengths; 16 kHz, floats in
            [-1, 1].
        encoder: a `CNN14`; its recipe says which log-mel is made. It computes in float32, whatever its precision.
        hop: frames of 10 ms from one window to the next. By default they follow one another: 96 where a window has
            15,600 samples (0.975 s), so that their frames do not overlap; 1,000 where it has 10 s, as PANNs'.
        pool: whether to take each sound's mean over its windows.
        batch_size: windows at once, by default 32 of 0.975 s or as much in longer ones. It bounds the memory, whatever
            the length, and does not change the result.
        window: samples, 15,600 or more; by default the encoder's.
        show: whether to show the progress, in windows.

    Returns:
        h, float32: (clips, d) with `pool`; else (clips, windows, d) of an array and a list of (windows, d) of a list.

    A window's log-mel is made from its samples alone. Since the frames of `"vggish"` lie inside the sound, it is
    what would be cut out of the log-mel of the whole; the outer ones of `"panns"` are reflected at the window's ends.
    Raises `BadInput` for other shapes and types, and for what is not finite.
    """
    encoder = in_float32(encoder)
    window, hop, batch_size = sizes("embed", encoder, hop, batch_size, window)
    equal = not isinstance(waveforms, (list, tuple))
    waveforms = array("waveforms", waveforms) if equal else waveforms
    if equal and waveforms.ndim != 2:
        raise BadInput(
            f"waveforms of shape {waveforms.shape}: expected (clips, samples) or a list of arrays (samples,)."
        )
    if not len(waveforms):
        raise BadInput("waveforms: expected one clip or more, but there is none.")
    clips = [_checked(f"waveforms[{index}]", waveform) for index, waveform in enumerate(waveforms)]
    counts = [1 + max(0, len(clip) - window) // (hop * HOP) for clip in clips]
    rows = itertools.chain.from_iterable(cut(clip, window, hop) for clip in clips)
    h = _in_batches([log_mel_model(encoder.recipe), encoder], rows, sum(counts), batch_size, show)
    of_clips = np.split(h, np.cumsum(counts)[:-1])
    if pool:
        return np.stack([rows.mean(axis=0) for rows in of_clips])
    return np.stack(of_clips) if equal else of_clips


def embed_at_times(waveforms, encoder):
    """Embeddings every 50 ms, each of the 0.975 s around its time; beyond the ends of the sound there are zeros.

    So it is for every encoder: 10 s, the window of PANNs' checkpoints, would tell no times and take ten times as long.

    `waveforms` (clips, samples), as in `embed`. Returns h (clips, times, d), of the times 0, 50, … ms up to the end of
    the sound: 20 passes through the encoder a second.
    """
    waveforms = numbers(
        "audio", waveforms, ("sounds", "samples"), np.asarray(waveforms).dtype
    )  # `embed` refuses integers
    around = np.pad(waveforms, ((0, 0), (PATCH_SAMPLES // 2, PATCH_SAMPLES // 2)))
    return embed(around, encoder, hop=STEP * SAMPLE_RATE // 1000 // HOP, window=PATCH_SAMPLES, show=False)


def sizes(title, encoder, hop, batch_size, window=None):
    """The window in samples, the hop in frames and the batch in windows: what is given, checked, else the default."""
    window = encoder.window if window is None else window
    check_number(f"{title}: window", window, least=PATCH_SAMPLES, whole=True)
    hop = default_hop(window) if hop is None else hop
    batch_size = default_batch(window) if batch_size is None else batch_size
    for name, value in (("hop", hop), ("batch_size", batch_size)):
        check_number(f"{title}: {name}", value, least=1, whole=True)
    return int(window), int(hop), int(batch_size)


def _checked(name, waveform):
    waveform = array(name, waveform)
    if waveform.dtype.kind != "f":
        raise BadInput(f"{name} of {waveform.dtype}: expected floating-point samples in [-1, 1].")
    waveform = numbers(name, waveform, ("samples",), np.float32)
    warn_if_loud(name, max(waveform.max(), -waveform.min()))
    return waveform


def cut(clip, window, hop):
    """Windows (windows, samples) of a waveform (samples,), a view where it is long enough."""
    if len(clip) < window:
        clip = np.pad(clip, (0, window - len(clip)))
    return np.lib.stride_tricks.sliding_window_view(clip, window)[:: hop * HOP]


def _in_batches(models, rows, number, batch_size, show):
    """What the models, one after the other, make of `number` rows."""
    batch_size = min(batch_size, 1 << (number - 1).bit_length())  # few shapes, and little waste on one short sound
    network, rows, parts = network_of(models, batch_size), iter(rows), []
    with progress(range(number), "embed", "window", show) as bar:
        while batch := list(itertools.islice(rows, batch_size)):
            parts.append(network(batch))
            bar.update(len(batch))
    return np.concatenate(parts)


def network_of(models, batch_size):
    """A function from a list of arrays of one shape to h (rows, d): what the models make, one after the other."""
    functions = [inference(model, batch_size) for model in models]

    def network(rows):
        h = np.stack(rows, dtype="float32", casting="same_kind")
        for function in functions:
            h = function(h)
        if not np.isfinite(h).all():
            raise BadInput("embed: the encoder gives NaN or infinity; expected a network that is trained.")
        return h

    return network
