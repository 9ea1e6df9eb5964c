"""The folder an artifact is made in: whole or not at all, by one run at a time, resumed after a stop."""

import contextlib
import os
import shutil
import time
from pathlib import Path

import numpy as np

from sepcl_keras.core.files import writing

try:
    import fcntl
except ImportError:  # Windows: two runs of one artifact are then not kept apart
    fcntl = None
CHECKPOINT = "checkpoint.npz"
PROGRESS = "progress.json"  # how far work other than a training has come
SHARE = 0.03  # of the time that writing checkpoints may take


class Sparing:
    """When to do again what may take a small share of the time: `due` before it, `done` after it."""

    def __init__(self):
        self._ended, self._cost = -np.inf, 0.0

    def due(self):
        self._began = time.monotonic()
        return self._began - self._ended >= self._cost / SHARE

    def done(self):
        self._ended = time.monotonic()
        self._cost = self._ended - self._began


def _lock(path, name):
    """Opens the file at `path`, made with its folder if need be, for this run alone; waits until no other has it."""
    while True:
        # Round again where the run before removes file and folder between any two of these lines.
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "a+", encoding="utf-8"))
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{name}: another run is making it; waiting for that one to end.", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # the lock of a removed file keeps nobody out
                stack.pop_all()  # left open
                return file


@contextlib.contextmanager
def atomic_folder(folder, mark):
    """Gives a folder to fill, which takes the place of `folder` at the end; on an error `folder` stays as before.

    It lies in `.NAME.part` beside it, for one run at a time: a second one waits here, and leaves it empty where it then
    finds `folder` made. After a run that was stopped in it, with the same `mark`, it is given again as that run left
    it, if there is a checkpoint, a record of progress or a manifest in it; else it is given empty.
    """
    folder = Path(folder)
    part = folder.with_name(f".{folder.name}.part")
    content = part / folder.name

    def is_worth_keeping():
        return any((content / name).exists() for name in (CHECKPOINT, PROGRESS, "manifest.json"))

    with writing(part):
        lock = _lock(part / "mark", folder)
    with lock:
        with writing(part):
            lock.seek(0)
            if lock.read() != mark or not is_worth_keeping():
                shutil.rmtree(content, ignore_errors=True)
                lock.truncate(0)
                lock.write(mark)
                lock.flush()
                content.mkdir()
            for path in content.rglob(".*"):  # what a kill left of atomic writes
                path.unlink()
        try:
            yield content
            (content / CHECKPOINT).unlink(missing_ok=True)
            if any(content.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(content, folder)
        finally:
            if not is_worth_keeping():
                shutil.rmtree(part, ignore_errors=True)
