"""A program for the tests: trains a separator and an encoder in folders of their own, and may kill itself on the way.

    python stopped_training.py FOLDER [snapshot NAME | encoder STEP]

kills itself, as `kill -9` would, with a snapshot of the separator half written, or at a step of the encoder.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

from sepcl_keras.core.files import write_json
from sepcl_keras.core.saved import save_model
from sepcl_keras.course.profiles import PROFILES
from sepcl_keras.encoder import recipe
from sepcl_keras.encoder.objectives import ContrastiveModel
from sepcl_keras.encoder.recipe import pretrain
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.separation.recipe import train_separator
from sepcl_keras.training.loop import Batches

SEPARATOR = dict(num_basis=32, frame_length=32, frame_step=16, bottleneck=8, hidden=8, dilations=(1, 2), repeats=1)
STEPS = 60  # three epochs


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


class Kill(keras.callbacks.Callback):
    """Kills the process at the end of a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if ops.convert_to_numpy(self.model.optimizer.iterations.value) == self.step:
            kill()


class Neighbours(Batches):
    """Batches of crops, their halves taken for pairs of views."""

    def __getitem__(self, step):
        (x,) = super().__getitem__(step)
        return ((x[:4], x[4:]),)


def main(folder, where=None, when=None):
    fit, save = recipe.fit, TDCNPlusPlus.save

    def killing_fit(model, *args, callbacks=(), **kwargs):
        if where == "encoder" and isinstance(model, ContrastiveModel):
            callbacks = (*callbacks, Kill(int(when)))
        return fit(model, *args, callbacks=callbacks, **kwargs)

    def killing_save(separator, path):
        save(separator, path)
        if where == "snapshot" and when in path.name:
            with open(path, "r+b") as file:
                file.truncate(1000)
            kill()

    recipe.fit, TDCNPlusPlus.save = killing_fit, killing_save
    rng = np.random.default_rng(0)
    for name in ("separator", "encoder"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    clips = 0.1 * rng.standard_normal((16, 1600)).astype("float32")
    profile = dataclasses.replace(
        PROFILES["smoke"], separator=SEPARATOR, separator_seconds=0.05, separator_batch=4,
        snapshot_steps=dict(N=0, F=3, S1=30, S2=STEPS),
    )  # fmt: skip
    history = train_separator(clips, profile, 0, folder / "separator")
    write_json(folder / "separator" / "history.json", history)
    log_mel = rng.standard_normal((16, 100, 64)).astype("float16")
    encoder, history = pretrain(
        lambda steps: Neighbours(log_mel, 96, 8, steps, 0), 8, 1, STEPS, 1e-3, 0,
        similarity=1.0, coincidence=1.0, augmentation="SpecAugment", folder=folder / "encoder",
    )  # fmt: skip
    save_model(encoder, folder / "encoder" / "encoder.keras")
    write_json(folder / "encoder" / "history.json", history)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
