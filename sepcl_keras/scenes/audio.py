"""Files ↔ waveforms: reading any common format as mono at one rate, writing wav, and where a waveform has sound."""

import functools
import io
import os

import numpy as np
import soundfile
import soxr

from sepcl_keras.core.checks import BadInput, check_number, path_of, warn_if_loud
from sepcl_keras.core.files import atomic, writing
from sepcl_keras.scenes import headers

SHORTEST = 0.1  # seconds of sound below which a file is refused
SILENCE = 1e-4  # peak below which a file counts as silent, -80 dB of full scale
EDGE_DB = 60.0  # what lies this far below the peak at either end is padding
ACTIVE_DB = 30.0  # frames within this range of the loudest one count for the level
FRAME_SECONDS = 0.02  # of the frames for the level
LOWEST_RATE = 1_000  # Hz; what is stored at a lower one is no sound
ENCODED = 4 * 1152  # samples that an MP3's encoder may add, of its delay and padding
STREAMED = 0x7FFFF000  # bytes; who writes into a pipe puts this or more for a number that is not known yet
UNKNOWN = 2**62  # libsndfile gives so many samples or more where a file does not say how many it holds
ENDLESS = 2**40  # bytes
KEEPS = "expected a whole file (`ffmpeg -i FILE out.wav` keeps what is there)"


class _Straight(soundfile.SoundFile):
    """A file that is read from its beginning to its end.

    soundfile seeks after each read, to where it is. An MP3 then lacks what its next frames borrow from those before,
    and a FLAC that does not say its length ends in an error.
    """

    def seekable(self):
        return False

    def close(self):
        super().close()
        if isinstance(self.name, _Endless):
            self.name.close()


class _Endless(io.FileIO):
    """A file that seems to have no end: libsndfile then reads an MP3 that does not say its length as far as it goes,
    and not as far as the rate of its first frame lets it guess."""

    _at_end = False

    def seek(self, offset, whence=os.SEEK_SET):
        self._at_end = whence == os.SEEK_END and not offset  # before its end lies a tag that has to be found
        if whence == os.SEEK_END:
            offset, whence = max(super().seek(0, os.SEEK_END) + offset, 0), os.SEEK_SET
        super().seek(offset, whence)
        return self.tell()

    def tell(self):
        return ENDLESS if self._at_end else super().tell()


def read(path, sample_rate=16_000):
    """The sound in a wav, ogg, flac or mp3 file: float32 (samples,), channels averaged, at `sample_rate` in Hz.

    Raises `BadInput` for a file that is missing, unreadable, empty, silent, shorter than 0.1 s or not finite.
    """
    return np.concatenate(list(sounding_blocks(path, sample_rate)))


def sounding_blocks(path, sample_rate=16_000):
    """As `blocks`, but a file that is silent, or shorter than 0.1 s, is refused at its end."""
    samples, peak = 0, 0.0
    for waveform in blocks(path, sample_rate):
        samples, peak = samples + len(waveform), max(peak, np.abs(waveform).max())
        yield waveform
    seconds = samples / sample_rate
    if seconds < SHORTEST:
        raise BadInput(f"{path}: expected at least {SHORTEST} s of sound, but the file lasts {seconds:.3f} s.")
    # As one channel at the new rate: channels may cancel, and a bat's call may lie above what that rate holds.
    if peak < SILENCE:
        raise BadInput(f"{path}: expected sound, but the file is silent as one channel at {sample_rate} Hz.")


def duration(path):
    """Seconds of sound in a file, None where it does not say. Raises `BadInput` as `blocks` does."""
    with _opened(path) as file:
        return file.seconds


def blocks(path, sample_rate=16_000):
    """The sound that `read` gives, as a generator of waveforms (samples,) of about a second: for files of any length.

    Short and silent files pass. Raises `BadInput` for a file that is missing, unreadable, empty or not finite, or of
    which only a part would be read; of what lies within the file, when it gets there. Warns of samples far outside of
    [-1, 1].
    """
    check_number("sample_rate", sample_rate, least=1, whole=True)
    samples, peak = 0, 0.0
    with _opened(path) as file:
        resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32")
        for channels in _seconds(path, file):
            peak = max(peak, np.abs(channels).max(initial=0.0))
            with np.errstate(over="ignore", invalid="ignore"):  # a sum of large or infinite samples
                mono = channels.mean(axis=1)
            waveform = resampler.resample_chunk(mono, last=not len(mono))
            if not (np.isfinite(mono).all() and np.isfinite(waveform).all()):
                raise BadInput(f"{path}: expected finite samples, but the file holds NaN or infinity.")
            samples += len(waveform)
            if len(waveform):
                yield waveform
    if not samples:
        raise BadInput(f"{path}: expected sound, but the file holds no samples at {sample_rate} Hz.")
    warn_if_loud(path, peak)


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
        # Rounded here: libsndfile would cut off.
        integers = np.clip(np.rint(waveform * 2.0**15), -(2**15), 2**15 - 1).astype("int16")
        soundfile.write(temporary, integers, sample_rate, format="WAV", subtype="PCM_16")


def read_in_graph(path):
    """The sound in a file as TensorFlow sees it: float32 tensor (samples,), channels averaged, and its rate in Hz.

    tensorflow-io decodes inside a TensorFlow graph, at the file's own rate, the layouts of files that it was seen to
    read right (`headers.graph_type`); of others it would give nothing, wrong samples, or end the process, so soundfile
    reads them. Raises `BadInput` for a file that `blocks` would refuse.
    """
    import tensorflow as tf

    with _opened(path) as file, headers.mapped(name := getattr(file.name, "name", file.name)) as data:
        stored = headers.graph_type(data, file.format, file.subtype)
        if stored is None:
            channels = np.concatenate(list(_seconds(path, file)))
            return tf.constant(channels.mean(axis=1)), tf.constant(file.samplerate)
        return _graph_reader(stored, file.subtype)(name)


def _seconds(path, file):
    """The samples of a file (samples, channels), a second at a time, none at its end."""
    channels, left = None, round((file.seconds or 0) * file.samplerate)
    left -= ENCODED if file.subtype == "MPEG_LAYER_III" else 0
    while channels is None or len(channels):
        channels = _decoded(path, lambda: file.read(file.samplerate, dtype="float32", always_2d=True))
        left -= len(channels)
        yield channels
    if left > 0:
        raise BadInput(
            f"{path}: ends {left / file.samplerate:.3f} s before it should, as where a copy broke off or somebody "
            f"changes it; {KEEPS}."
        )


@functools.cache
def _graph_reader(stored, encoding):
    import tensorflow as tf
    import tensorflow_io as tfio

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def decode(path):
        audio = tfio.IOTensor.graph(tf.as_dtype(stored)).from_audio(path)
        channels = audio.to_tensor()
        if encoding == "PCM_32":
            channels = tf.bitcast(channels, tf.int32)
        scale = 1.0 if channels.dtype == tf.float32 else -float(channels.dtype.min)
        return tf.reduce_mean(tf.cast(channels, tf.float32) / scale, axis=1), audio.rate

    return decode


def _decoded(path, reader):
    """What `reader` gives; its many ways to fail become one sentence."""
    try:
        return reader()
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, MemoryError) as error:
        # libsndfile's own reasons are left out: of one file it says now this and now that, and that there is none.
        reason = "" if isinstance(error, soundfile.LibsndfileError) else f" ({str(error).rstrip('.')})"
        raise BadInput(f"{path}: expected a readable wav, ogg, flac or mp3 file{reason}.") from None


def _opened(path):
    """The file, opened to be read straight on, with the `seconds` it lasts, None where they are not known."""
    path = path_of("path", path)
    if not path.is_file():
        raise BadInput(f"{path}: expected a sound file, but there is none.")
    file = _decoded(path, lambda: _Straight(os.fsencode(path) if os.name == "posix" else str(path)))
    try:
        file = _check(path, file)
    except OSError as error:  # gone, meanwhile
        file.close()
        raise BadInput(f"{path}: expected a file that stays while it is read ({error.strerror}).") from None
    except BaseException:
        file.close()
        raise
    return file


def _endless(file):
    """The MP3 opened anew as one that seems to have no end; `file` where only its name tells what it is."""
    seeming = _Endless(file.name)
    try:
        opened = _Straight(seeming)
    except soundfile.SoundFileError:
        seeming.close()
        return file
    file.close()
    return opened


def _check(path, file):
    """The file to read, with the `seconds` that it lasts; refuses one of which less would be read than is there."""
    file.seconds = file.frames / file.samplerate if file.frames < UNKNOWN else None
    if file.samplerate < LOWEST_RATE:
        raise BadInput(f"{path}: stored at {file.samplerate} Hz; expected a rate of {LOWEST_RATE} Hz or more.")
    with headers.mapped(path) as data:
        there = file.frames
        if file.subtype == "MPEG_LAYER_III" and file.format != "WAV":
            there, told, untold = headers.mp3_samples(data)
            file = _endless(file) if untold else file
            file.seconds = there / file.samplerate
            if told > there + ENCODED:
                missing = (told - there) / file.samplerate
                raise BadInput(f"{path}: ends {missing:.3f} s before it should, as where a copy broke off; {KEEPS}.")
        if there > file.frames + ENCODED or headers.is_chained(data, file.format):
            raise BadInput(
                f"{path}: more sound is there than its beginning says, as where files were written one after the "
                "other; expected one stream (`ffmpeg -i FILE out.wav` makes one)."
            )
        chunks = headers.wav_chunks(data)
        for name, start, size in chunks:
            here = len(data) - start
            # Less may be a careless header's, such as one that counts itself.
            missing = file.frames / file.samplerate * (size - here) / here if 0 < here < size < STREAMED else 0.0
            if name in (b"data", b"SSND") and missing > SHORTEST:
                raise BadInput(
                    f"{path}: its header tells of {size} bytes of samples, but {here} are there, as where a copy broke "
                    f"off; {KEEPS}."
                )
        empty = [start for name, start, size in chunks if name == b"data" and not size]
        if empty and len(data) > empty[0]:
            raise BadInput(
                f"{path}: its header tells of no samples, but {len(data) - empty[0]} bytes follow, as where a recorder "
                "lost power; expected their number there (`sox --ignore-length FILE out.wav` sets it)."
            )
    return file


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
