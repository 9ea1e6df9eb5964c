"""Files ↔ waveforms: reading any common format as mono at one rate, writing wav, and where a waveform has sound."""

import functools
from pathlib import Path

import numpy as np
import soundfile
import soxr

from sepcl_keras.core.files import BadInput, atomic, writing

SHORTEST = 0.1  # seconds of sound below which a file is refused
SILENCE = 1e-4  # peak below which a file counts as silent, -80 dB of full scale
EDGE_DB = 60.0  # what lies this far below the peak at either end is padding
ACTIVE_DB = 30.0  # frames within this range of the loudest one count for the level
FRAME_SECONDS = 0.02  # of the frames for the level
# tensorflow-io wants the sample type stored in the file; with another one its wav reader ends the whole process.
_STORED = {"PCM_16": "int16", "PCM_24": "int32", "PCM_32": "int32"}
_STORED |= dict.fromkeys(("FLOAT", "VORBIS", "MPEG_LAYER_III"), "float32")


def read(path, sample_rate=16_000):
    """The sound in a wav, ogg, flac or mp3 file: float32 (samples,), channels averaged, at `sample_rate` in Hz.

    Raises `BadInput` for a file that is missing, unreadable, empty, silent, shorter than 0.1 s or not finite.
    """
    waveform = np.concatenate(list(blocks(path, sample_rate)))
    seconds = len(waveform) / sample_rate
    if seconds < SHORTEST:
        raise BadInput(f"{path}: expected at least {SHORTEST} s of sound, but the file lasts {seconds:.3f} s.")
    # As one channel at the new rate: channels may cancel, and a bat's call may lie above what that rate holds.
    if np.abs(waveform).max() < SILENCE:
        raise BadInput(f"{path}: expected sound, but the file is silent as one channel at {sample_rate} Hz.")
    return waveform


def duration(path):
    """Seconds of sound in a file, by its header. Raises `BadInput` for a file that is missing or unreadable."""
    return _opened(path, soundfile.info).duration


def blocks(path, sample_rate=16_000):
    """The sound that `read` gives, as a generator of waveforms (samples,) of about a second: for files of any length.

    Short and silent files pass. Raises `BadInput` for a file that is missing, unreadable, empty or not finite; of what
    lies within the file, when it gets there.
    """
    with _opened(path, soundfile.SoundFile) as file:
        resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32")
        samples, ended = 0, False
        while not ended:
            channels = _opened(path, lambda _: file.read(file.samplerate, dtype="float32", always_2d=True))
            if not np.isfinite(channels).all():
                raise BadInput(f"{path}: expected finite samples, but the file holds NaN or infinity.")
            ended = not len(channels)
            waveform = resampler.resample_chunk(channels.mean(axis=1), last=ended)
            samples += len(waveform)
            if len(waveform):
                yield waveform
    if not samples:
        raise BadInput(f"{path}: expected sound, but the file holds no samples at {sample_rate} Hz.")


def write(path, waveform, sample_rate=16_000):
    """Writes `waveform` (samples,) whole or not at all, as 16-bit wav; what exceeds full scale is clipped.

    Raises `BadInput` for another shape, no samples, or values that are not finite.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 1 or not waveform.size:
        raise BadInput(f"{path}: expected a waveform (samples,), not an array of shape {waveform.shape}.")
    if not np.isfinite(waveform).all():
        raise BadInput(f"{path}: expected finite samples to write, but the waveform holds NaN or infinity.")
    with writing(path, soundfile.SoundFileError), atomic(path) as temporary:
        soundfile.write(temporary, waveform, sample_rate, format="WAV", subtype="PCM_16")


def read_in_graph(path):
    """The sound in a file as TensorFlow sees it: float32 tensor (samples,), channels averaged, and its rate in Hz.

    tensorflow-io decodes inside a TensorFlow graph, at the file's own rate; only the header is read outside, for the
    type of the stored samples. Raises `BadInput` for a file that is missing or unreadable, or an encoding it lacks.
    """
    encoding = _opened(path, soundfile.info).subtype
    if encoding not in _STORED:
        raise BadInput(f"{path}: expected one of the encodings {', '.join(_STORED)}, not {encoding}.")
    return _graph_reader(_STORED[encoding])(str(path))


@functools.cache
def _graph_reader(stored):
    import tensorflow as tf
    import tensorflow_io as tfio

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def decode(path):
        audio = tfio.IOTensor.graph(tf.as_dtype(stored)).from_audio(path)
        channels = tf.cast(audio.to_tensor(), tf.float32)
        if stored != "float32":
            channels = channels / -float(tf.as_dtype(stored).min)
        return tf.reduce_mean(channels, axis=1), audio.rate

    return decode


def _opened(path, opener):
    """What `opener` makes of the file; its many ways to fail become one sentence."""
    if not Path(path).is_file():
        raise BadInput(f"{path}: expected a sound file, but there is none.")
    try:
        return opener(str(path))
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, MemoryError) as error:
        reason = str(error).rstrip(".")
        raise BadInput(f"{path}: expected a readable wav, ogg, flac or mp3 file ({reason}).") from None


def trim_silence(waveform):
    """`waveform` (samples,) without what lies 60 dB below its peak at either end, such as padding by zeros."""
    size = np.abs(waveform)
    loud = np.flatnonzero(size >= size.max() * 10 ** (-EDGE_DB / 20))
    return waveform[loud[0] : loud[-1] + 1]


def active_level(waveform, sample_rate=16_000):
    """RMS of the part of `waveform` (samples,) that sounds: 20 ms frames at most 30 dB below the loudest one.

    Pauses between two barks do not count, so that single barks and steady rain of one level are about as loud.
    """
    power = np.square(waveform, dtype=np.float64)
    frame = round(FRAME_SECONDS * sample_rate)
    starts = np.arange(0, max(len(power) - frame // 2, 1), frame)  # a last frame shorter than half joins the one before
    frames = np.add.reduceat(power, starts) / np.diff(starts, append=len(power))
    return float(np.sqrt(frames[frames >= frames.max() * 10 ** (-ACTIVE_DB / 10)].mean()))
