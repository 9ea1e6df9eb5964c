"""Applying a separator: reading it from a file; to arrays of clips, and to files of any length piece by piece."""

import contextlib
import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import soundfile
from scipy.optimize import linear_sum_assignment

from sepcl_keras.core.backend import inference, processes
from sepcl_keras.core.checks import BadInput, check_number, path_of
from sepcl_keras.core.files import atomic, progress, writing
from sepcl_keras.core.saved import load_model
from sepcl_keras.scenes import audio
from sepcl_keras.separation.fast import FastSeparator
from sepcl_keras.separation.network import TDCNPlusPlus

BATCH = 16  # clips that are separated at once


def load_separator(path):
    """The trained `TDCNPlusPlus` in a `.keras` file; nothing in the file is executed, and damage is `BadInput`."""
    return load_model(path, TDCNPlusPlus)


def applied(separator, batch_size=1):
    """A function from clips (clips, samples) to channels: of a `FastSeparator` itself, else see `inference`."""
    return separator if isinstance(separator, FastSeparator) else inference(separator, batch_size)


def separate(separator, mixtures):
    """Channels (clips, sources, samples) of mixtures (clips, samples), in batches, whole clips at once."""
    separate_batch = applied(separator, BATCH)
    return np.concatenate([separate_batch(mixtures[i : i + BATCH]) for i in range(0, len(mixtures), BATCH)])


DECISIVE = 0.25  # of the squared difference between pieces may be left for channels to change places, 6 dB less
WAV_BYTES = 2**32 - 2**16  # what the sizes in a wav header can tell; RF64 is the same with longer ones


def separate_file(
    path, folder, separator, sample_rate=16_000, piece_seconds=20.0, overlap=0.2, overwrite=False, show=True
):  # fmt: skip
    """Separates the recording in a file into `NAME_channel1.wav`, `NAME_channel2.wav`, … in a folder.

    The recording may have any length, sample rate and number of channels; it is read, averaged to one channel and
    resampled as it goes, and never held whole. One of at most `piece_seconds` is separated at once, exactly as by the
    separator. A longer one is cut into pieces which overlap; they are cross-faded there by weights that sum to one, so
    the channels still sum to the recording. A separator may name its channels anew in each piece: those that agree much
    better with other channels of the piece before, where the two overlap, change places. A source that is silent in an
    overlap may still go on in another channel.

    Args:
        path: of a wav, ogg, flac or mp3 file.
        folder: for the outputs, made if need be: mono wav files of 32-bit floats (16-bit integers would round and clip,
            and the sum would be the recording no more).
        separator: a `TDCNPlusPlus`, or what `fast_separator` makes of it for pieces of `piece_seconds`.
        sample_rate: in Hz, the one that the separator was trained at; the outputs have it too.
        piece_seconds: length of the pieces. Longer ones come closer to separating the whole, and need more memory.
        overlap: what neighbouring pieces have in common, as a share of a piece: 0.5 or less.
        overwrite: whether files of these names may be replaced.
        show: whether to show the progress, in seconds of the recording.

    Returns paths of the outputs, which get these names at the end: an interruption leaves nothing behind. Raises
    `BadInput` for a file that is missing, unreadable, empty or not finite, outputs that exist or cannot be made, and
    lengths that do not fit.
    """
    path, folder = path_of("path", path), path_of("folder", folder)
    check_number("sample_rate", sample_rate, least=1, whole=True)
    check_number("piece_seconds", piece_seconds, above=0)
    check_number("overlap", overlap, above=0)
    length = round(piece_seconds * sample_rate)
    common = round(overlap * length)
    if not 1 <= common <= length / 2:
        raise BadInput(f"overlap={overlap!r}: expected an overlap of a sample to half a piece.")
    numbers = range(1, separator.config["num_sources"] + 1)
    outputs = [folder / f"{path.stem}_channel{number}.wav" for number in numbers]
    in_the_way = next((parent for parent in (folder, *folder.parents) if parent.is_file()), None)
    if in_the_way:
        raise BadInput(f"{folder}: expected a folder, but {in_the_way} is a file.")
    existing = next((output for output in outputs if output.exists()), None)
    if existing and not overwrite:
        raise BadInput(f"{existing}: expected no such file, or overwrite=True.")
    seconds = audio.duration(path)
    bar = progress(None if seconds is None else range(round(seconds)), path.name, "s", show)
    container = "WAV" if seconds is not None and 4 * seconds * sample_rate < WAV_BYTES else "RF64"
    done = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing(folder, soundfile.SoundFileError))
        stack.callback(bar.close)
        temporaries = [stack.enter_context(atomic(output)) for output in outputs]
        files = [
            stack.enter_context(soundfile.SoundFile(temporary, "w", sample_rate, 1, "FLOAT", format=container))
            for temporary in temporaries
        ]
        pieces = _pieces(audio.blocks(path, sample_rate), length, length - common)
        for channels in _joined(pieces, applied(separator), common):
            for file, channel in zip(files, channels, strict=True):
                file.write(channel)
            done += channels.shape[1]
            bar.update(min(done // sample_rate, bar.total or done) - bar.n)
    return outputs


def _pieces(blocks, length, hop):
    """Overlapping pieces (samples,) of a sound that comes in blocks, each with the number of samples new in it.

    All have one length, so that a network is compiled once; the last one begins earlier, because padding would change
    what the separator normalises by. A sound shorter than that is one piece.
    """
    buffer, fresh, wanted = np.zeros(0, "float32"), 0, length
    for block in blocks:
        buffer, fresh = np.concatenate([buffer, block]), fresh + len(block)
        while fresh >= wanted:
            end = len(buffer) - fresh + wanted
            yield buffer[end - length : end], wanted
            buffer, fresh, wanted = buffer[end - length :], fresh - wanted, hop
    if fresh:
        yield buffer[-length:], fresh


def _in_order(function, items):
    """Yields `function(item)` of one item after the other; on TensorFlow on a CPU two are worked on at a time.

    A network's small operations leave the second core waiting: a recording of 600 s took 26 % less time so with the
    tiny profile's network, 8 % less with the paper's.
    """
    items = iter(items)
    if keras.backend.backend() != "tensorflow" or processes(2) < 2:
        yield from map(function, items)
        return
    yield from map(function, itertools.islice(items, 1))  # alone, because it compiles what the others use
    pool = ThreadPoolExecutor(2, "separating")
    try:
        waiting = deque(pool.submit(function, item) for item in itertools.islice(items, 3))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _joined(pieces, separate, overlap):
    """Channels (sources, samples) of the whole sound, in order, some samples at a time. The end of each piece is held
    back until the next one is there; what the last two overlap by beyond `overlap` goes unused."""
    fade = np.square(np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / overlap)).astype("float32")
    tail = None
    for channels, fresh in _in_order(lambda cut: (separate(cut[0][None])[0], cut[1]), pieces):
        begin = 0
        if not np.isfinite(channels).all():
            raise BadInput("separate_file: the separator gives NaN or infinity; expected a network that is trained.")
        if tail is None:
            order = np.arange(len(channels))  # of the separator's channels; it stays from piece to piece
        else:
            begin = channels.shape[1] - fresh - overlap
            both = slice(begin, begin + overlap)
            order = _matched(tail, channels[:, both], order)
            channels = channels[order]
            channels[:, both] = tail + fade * (channels[:, both] - tail)
        end = max(begin, channels.shape[1] - overlap)
        yield channels[:, begin:end]
        tail = channels[:, end:]
    yield tail


def _matched(before, after, order):
    """Which channels (sources, samples) of `after` continue those of `before`: indices, `order` unless clearly others.

    Where an overlap is quiet, the best order is often a wrong one by chance, and one wrong exchange mislabels the rest
    of the recording. So channels change places only if that leaves a quarter of their squared difference or less.
    """
    cost = np.array([np.square(row - after[order]).sum(axis=-1) for row in before])
    best, matched = linear_sum_assignment(cost)[1], order.copy()
    waiting = set(range(len(order)))
    while waiting:  # each cycle of the permutation is a question of its own: quiet channels beside loud ones
        cycle = [waiting.pop()]
        while best[cycle[-1]] != cycle[0]:
            cycle.append(best[cycle[-1]])
        waiting -= set(cycle)
        if cost[cycle, best[cycle]].sum() < DECISIVE * cost[cycle, cycle].sum():
            matched[cycle] = order[best[cycle]]
    return matched
