"""A training's rolling checkpoint, from which it goes on after a stop."""

import json
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import atomic
from sepcl_keras.core.folders import CHECKPOINT, Sparing

FORMAT = "sepcl_keras checkpoint 1"


class Checkpoint(keras.callbacks.Callback):
    """Keeps one checkpoint of a training in `folder`, written at the ends of epochs, whole or not at all.

    It holds all that the steps to come depend on: every variable of the model, with the state of its random generators
    (which neither `.keras` nor `.weights.h5` keeps), those of the optimizer, with its step count, and the `Record`.
    Data are left to be a function of seed, epoch and step. Metrics start anew with each epoch.

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
            what = f"a checkpoint of another training, by its {', '.join(others) or 'format'}"
            raise BadInput(f"{self.path}: {what}; expected one of this training, or none.")
        for variable, array in zip(self.variables, arrays, strict=True):
            variable.assign(array)
        self.record.first_losses, self.record.history = header["first_losses"], header["history"]
        return header["epochs"]

    def _read(self):
        """The header, empty where it is another's archive, and the arrays, none where it is of another training."""
        with zipfile.ZipFile(self.path) as archive:
            named = "header.json" in archive.namelist()
            header, arrays = json.loads(archive.read("header.json")) if named else {}, []
            for index in range(len(self.variables) if header.get("definition") == self.definition else 0):
                with archive.open(f"{index}.npy") as file:
                    arrays.append(np.lib.format.read_array(file, allow_pickle=False))
        return header, arrays

    def on_epoch_end(self, epoch, logs=None):
        if not self.sparing.due() and epoch + 1 < self.params["epochs"]:
            return
        header = {"format": FORMAT, "definition": self.definition, "epochs": epoch + 1}
        header |= {"first_losses": self.record.first_losses, "history": self.record.history}
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
