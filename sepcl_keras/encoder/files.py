"""Folders of sounds → one table of embeddings: decoded ahead in threads while the network runs, never held whole."""

import functools
import itertools
import json
import os
from contextlib import closing

import numpy as np

from sepcl_keras.core.arrays import GrowingArrays, StoredArray, digest
from sepcl_keras.core.checks import BadInput, path_of
from sepcl_keras.core.files import fingerprint, progress, text_of, writing
from sepcl_keras.core.folders import atomic_folder
from sepcl_keras.encoder.embedding import cut, in_float32, network_of, sizes
from sepcl_keras.encoder.table import format_of, read_meta, write_table
from sepcl_keras.scenes import audio
from sepcl_keras.scenes.ahead import Ahead
from sepcl_keras.scenes.layouts import SUFFIXES, sound_files
from sepcl_keras.views.log_mel import HOP, log_mel_model

BLOCK = 4_096  # rows of the table at a time


def embed_files(files, encoder, out, hop=None, pool=False, batch_size=None, show=True):
    """Embeddings of sound files in one table, which `load_table` reads: as `embed(read(file), encoder)` for each.

    Files are read straight on, averaged to one channel and resampled as they go, in threads, while the network embeds
    windows of one or many files at once. Memory grows neither with the length of the files nor with the size of the
    table; of each file it holds the name. Stopped in whatever way and called again with the same arguments, it goes
    on from what it had on disk, in `.NAME.part` beside `out`; where `out` is there already and was made from the same
    files, nothing is done.

    Args:
        files: a folder, of which all sound files are taken, at any depth, in the order of their paths, but for hidden
            ones; or a list of paths, none of them twice.
        encoder: a `CNN14`; its recipe and window say what it is given.
        out: path of the table, ending in .npz, or in .parquet, which needs the package pyarrow.
        hop: frames of 10 ms from one window to the next, as in `embed`.
        pool: whether to take each file's mean over its windows, one row a file.
        batch_size: windows at once, as in `embed`.
        show: whether to show the progress, in files.

    Returns:
        The path of the table. Its rows come in the order of the files and of time, and its `meta["refused"]` has each
        file of which it has none, with the sentence why: what is unreadable, silent or shorter than 0.1 s; and each
        folder in it that was not looked into.

    Raises `BadInput` where there is no file, none that is not refused, no room, or another file at `out`.
    """
    out = path_of("out", out)
    format_of(out)  # refuses others, before the work
    encoder = in_float32(encoder)
    window, hop, batch_size = sizes("embed_files", encoder, hop, batch_size)
    paths, ids, unread = _listed(files)
    d, width = int(encoder.embedding_dim), int(encoder.width)
    of_encoder = dict(embedding_dim=d, width=width, recipe=encoder.recipe, weights=digest(encoder.weights))
    meta = dict(encoder=of_encoder, sample_rate=encoder.sample_rate, window=window, hop=hop)
    rows_mark = fingerprint([meta, [[id, *_state(path)] for id, path in zip(ids, paths, strict=True)]])
    meta |= dict(pool=bool(pool), d=d, mark=fingerprint([rows_mark, bool(pool)]))
    with atomic_folder(out, rows_mark) as folder:  # only its lock and its part: it is left empty
        if out.exists():
            if not out.is_file() or read_meta(out).get("mark") != meta["mark"]:
                raise BadInput(f"{out}: made from something else; expected a path where nothing is yet.")
        else:
            refused = _embed_rows(folder, rows_mark, paths, encoder, window, hop, batch_size, show)
            _write(out, folder, ids, refused, meta, unread)
        for path in folder.iterdir():
            path.unlink()
    return out


def _listed(files):
    """Paths of the files, their ids, and what was not looked into, id → why."""
    unread = {}
    if isinstance(files, (list, tuple)):
        paths = [path_of(f"files[{index}]", file) for index, file in enumerate(files)]
        ids = [text_of(file) for file in files]
    else:
        folder = path_of("files", files)
        if not folder.is_dir():
            raise BadInput(f"files={str(folder)!r}: expected a folder that is there, or a list of paths.")
        found, unread = sound_files(folder)
        paths, ids = list(found.values()), list(found)
    if not paths:
        why = "".join(f"; {name}: {reason}" for name, reason in unread.items())
        names = ", ".join(sorted(SUFFIXES))
        raise BadInput(f"files={str(files)!r}: expected sound files ({names}), but there is none{why}.")
    if len(set(ids)) < len(ids):
        twice = next(id for index, id in enumerate(ids) if id in ids[:index])
        raise BadInput(f"files: {twice} comes twice; expected each once.")
    return paths, ids, unread


def _state(path):
    try:
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    except OSError:
        return ()


def _embed_rows(folder, mark, paths, encoder, window, hop, batch_size, show):
    """Leaves `h.npy` (rows, d) and `place.npy` (rows, file and window) in a folder; gives index → why of the refused.

    Of a file that is refused only when it has been read for a while there are rows too.
    """
    journal, d = folder / "refused.jsonl", int(encoder.embedding_dim)
    growing = GrowingArrays(folder, {"h": ("float32", (None, d)), "place": ("int32", (None, 2))}, mark)
    with closing(growing), writing(folder), open(journal, "a+" if growing.done else "w+", encoding="ascii") as file:
        file.seek(0)
        refused = dict(map(json.loads, file))
        if growing.number is None:
            first, done = _reached(growing)
            network, limit = network_of([log_mel_model(encoder.recipe), encoder], batch_size), 2 * batch_size * window

            def refuse(index, why):  # on disk before any row of a later file
                refused[index] = why
                file.write(json.dumps([index, why]) + "\n")
                file.flush()
                os.fsync(file.fileno())

            of_file = functools.partial(stretches, window=window, step=hop * HOP, sample_rate=encoder.sample_rate)
            with progress(range(len(paths)), "embed", "file", show) as bar:
                bar.update(first)
                with closing(_rows(paths, of_file, limit, window, hop, first, done, refuse, bar)) as rows:
                    while batch := list(itertools.islice(rows, batch_size)):
                        places, sounds = zip(*batch, strict=True)
                        growing.add(network(sounds), np.array(places, "int32"))
            growing.finish()
    return refused


def _reached(growing):
    """The file that the last row on disk is of, and how many windows of it are there."""
    if not growing.done:
        return 0, 0
    path = growing.parts[1]
    file, window = np.fromfile(path, "int32", 2, offset=path.stat().st_size - 8).tolist()
    return file, window + 1


def _rows(paths, of_file, limit, window, hop, first, done, refuse, bar):
    """((file, window), samples) of one window after the other, without the first `done` of the file `first`."""
    with closing(Ahead(paths[first:], of_file, limit).sounds()) as sounds:
        for index, sound in sounds:
            index += first
            if isinstance(sound, tuple):
                begin, waveform = sound
                for number, row in enumerate(cut(waveform, window, hop), begin // (hop * HOP)):
                    if index > first or number >= done:
                        yield (index, number), row
                continue
            if isinstance(sound, BadInput):
                refuse(index, text_of(str(sound)))
            bar.update(1)


def stretches(path, window, step, sample_rate):
    """A file's sound in stretches, (first sample, waveform), cut so that the windows of each are whole; a short sound
    is one."""
    rest, skipped, first = np.zeros(0, "float32"), 0, 0
    for block in audio.sounding_blocks(path, sample_rate):
        rest, skipped = np.concatenate([rest, block[skipped:]]), max(0, skipped - len(block))
        number = 1 + (len(rest) - window) // step
        if number > 0:
            yield first, rest[: (number - 1) * step + window]
            skipped, rest, first = max(0, number * step - len(rest)), rest[number * step :], first + number * step
    if not first:
        yield first, rest


def _write(out, folder, ids, refused, meta, unread):
    """The table of the rows in a folder, without those of refused files."""
    place, h = (StoredArray(folder / f"{name}.npy", kind, 2).array for name, kind in (("place", "i4"), ("h", "f4")))
    dropped = sorted(refused)

    def windows():
        for start in range(0, len(place), BLOCK):
            file, number = np.array(place[start : start + BLOCK]).T
            kept = ~np.isin(file, dropped)
            yield file[kept], number[kept] * (meta["hop"] * HOP / meta["sample_rate"]), h[start : start + BLOCK][kept]

    def blocks():
        for file, times, rows in _means(windows()) if meta["pool"] else windows():
            yield [ids[index] for index in file], times, rows

    rows = sum(len(times) for _, times, _ in blocks())
    if not rows:
        raise BadInput(f"files: all {len(ids)} are refused, the first because: {refused[0]}")
    refused = {ids[index]: refused[index] for index in dropped} | unread
    write_table(out, blocks, meta | dict(rows=rows, refused=refused))


def _means(windows):
    """Of blocks of windows in the order of their files, blocks with one row for each file: its mean."""
    current, total, count, done = None, 0.0, 0, []

    def block():
        file, mean = zip(*done, strict=True)
        done.clear()
        return file, np.zeros(len(file)), np.array(mean, "float32")

    for file, _, h in windows:
        for start, end in itertools.pairwise([0, *(np.flatnonzero(np.diff(file)) + 1), len(file)] if len(file) else []):
            if file[start] != current and count:
                done.append((current, total / count))
                total, count = 0.0, 0
            current, total, count = file[start], total + h[start:end].sum(axis=0, dtype="f8"), count + end - start
        if len(done) >= BLOCK:
            yield block()
    if count:
        done.append((current, total / count))
        yield block()
