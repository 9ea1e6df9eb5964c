"""Work that survives being stopped: a training's rolling checkpoint, and the folder an artifact is made in."""

import contextlib
import hashlib
import inspect
import json
import os
import shutil
import time
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from sepcl_keras.files import BadInput, atomic, writing

try:
    import fcntl
except ImportError:  # Windows: two runs of one artifact are then not kept apart
    fcntl = None

CHECKPOINT = "checkpoint.npz"
PROGRESS = "progress.json"  # how far work other than a training has come
FORMAT = "sepcl_keras checkpoint 1"
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


class Checkpoint(keras.callbacks.Callback):
    """Keeps one checkpoint of a training in `folder`, written at the ends of epochs, whole or not at all.

    It holds all that the steps to come depend on: every variable of the model, with the state of its random generators
    (which neither `.keras` nor `.weights.h5` keeps), those of the optimizer, whose step count is the place in the
    learning rate's schedule, and the `Record`. Data are left to be a function of seed, epoch and step. Metrics start
    anew with each epoch, so the ends of epochs are where nothing else is under way.

    Args:
        model: compiled, with a built optimizer.
        folder: path; the file in it is `checkpoint.npz`, a zip of arrays, none of them pickled.
        definition: dict of what tells this training from others, as JSON takes it; the variables' shapes join it.
        record: the training's `Record`.
    """

    def __init__(self, model, folder, definition, record):
        super().__init__()
        self.path, self.record = Path(folder) / CHECKPOINT, record
        self.variables = [*model.variables, *model.optimizer.variables]
        shapes = [[list(variable.shape), str(variable.dtype)] for variable in self.variables]
        definition = definition | {"backend": keras.backend.backend(), "variables": shapes}
        self.definition = json.loads(json.dumps(definition))
        self.sparing = Sparing()

    def restore(self):
        """Sets the variables and the record as the checkpoint has them; returns the number of epochs done.

        That is 0 where there is no checkpoint, and, said aloud, where it is broken. One of another training is refused,
        because this one would overwrite it.
        """
        if not self.path.exists():
            return 0
        try:
            header, arrays = self._read()
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            print(f"{self.path}: a broken checkpoint ({error}); training starts from the beginning.", flush=True)
            return 0
        ours, theirs = self.definition, header.get("definition", {})
        if header.get("format") != FORMAT or theirs != ours:
            others = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
            raise BadInput(
                f"{self.path}: a checkpoint of another training, by its {', '.join(others) or 'format'}; expected one "
                "of this training, or none."
            )
        for variable, array in zip(self.variables, arrays, strict=True):
            variable.assign(array)
        self.record.first_losses, self.record.history = header["first_losses"], header["history"]
        return header["epochs"]

    def _read(self):
        """The header, empty where it is another's archive, and the arrays, none where it is of another training."""
        with zipfile.ZipFile(self.path) as archive:
            header, arrays = {}, []
            if "header.json" in archive.namelist():
                header = json.loads(archive.read("header.json"))
            if header.get("definition") == self.definition:
                for index in range(len(self.variables)):
                    with archive.open(f"{index}.npy") as file:
                        arrays.append(np.lib.format.read_array(file, allow_pickle=False))
        return header, arrays

    def on_epoch_end(self, epoch, logs=None):
        if not self.sparing.due() and epoch + 1 < self.params["epochs"]:
            return
        header = {
            "format": FORMAT, "definition": self.definition, "epochs": epoch + 1,
            "first_losses": self.record.first_losses, "history": self.record.history,
        }  # fmt: skip
        # Not np.savez, which on a full disk leaves an open archive behind that complains when it is collected.
        with atomic(self.path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr("header.json", json.dumps(header))
            for index, variable in enumerate(self.variables):
                with archive.open(f"{index}.npy", "w", force_zip64=True) as file:
                    value = np.asarray(keras.ops.convert_to_numpy(variable.value))
                    if value.dtype.kind == "V":  # bfloat16, which NumPy would forget the name of
                        value = value.astype("float32")
                    np.lib.format.write_array(file, value, allow_pickle=False)
        self.sparing.done()


def save_model(model, path):
    """Saves a network as `path`, a `.keras` file, whole or not at all; a disk without room is BadInput."""
    with atomic(path) as temporary:
        model.save(temporary)


def digest(arrays):
    """Twelve hexadecimal digits that stand for the bytes of a nest of arrays, or of a generator of arrays."""
    total = hashlib.sha256()
    for array in arrays if inspect.isgenerator(arrays) else keras.tree.flatten(arrays):
        total.update(np.ascontiguousarray(keras.ops.convert_to_numpy(array)).tobytes())
    return total.hexdigest()[:12]


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
