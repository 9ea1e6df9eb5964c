"""How the course trains a separator, and the snapshots that it keeps."""

import keras

from sepcl_keras.core.backend import make_repeatable
from sepcl_keras.core.checks import one_of
from sepcl_keras.core.draws import stream
from sepcl_keras.core.saved import save_model
from sepcl_keras.separation.mixit import SeparationModel
from sepcl_keras.separation.network import TDCNPlusPlus, start_from_mdct
from sepcl_keras.training.loop import Batches, fit


class Snapshots(keras.callbacks.Callback):
    """Saves the separator as `folder/NAME.keras` at the named steps; step 0 is the untrained network."""

    def __init__(self, separator, steps, folder):
        super().__init__()
        self.separator, self.steps, self.folder = separator, steps, folder

    def _save(self, step):
        for name in (name for name, at in self.steps.items() if at == step):
            _ = self.model  # asking for it makes JAX put the trained values back into the variables
            save_model(self.separator, self.folder / f"{name}.keras")

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * self.params["steps"]
        if epoch == 0:
            self._save(0)

    def on_train_batch_end(self, batch, logs=None):
        self._save(self.before + batch + 1)


def new_separator(profile, seed, start=None):
    """The profile's TDCN++ with weights drawn from the seed; `start` of its basis: "mdct" or "random", else the
    profile's."""
    make_repeatable(stream(seed, "weights of the separator"))
    separator = TDCNPlusPlus(**profile.separator)
    separator.build((None, None))
    if one_of("separator_start", start or profile.separator_start, ("mdct", "random")) == "mdct":
        start_from_mdct(separator)
    return separator


def train_separator(mixtures, profile, seed, folder):
    """Trains the profile's TDCN++ on mixtures (clips, samples) and returns the history.

    `folder` gets the snapshots and the checkpoint; a training that was stopped there goes on.
    """
    separator = new_separator(profile, seed)
    crop = round(profile.separator_seconds * profile.sample_rate)

    def batches(steps):
        return Batches(mixtures, crop, profile.separator_batch, steps, stream(seed, "separator"))

    callbacks = [Snapshots(separator, profile.snapshot_steps, folder)]
    definition = {"sizes": profile.separator, "start": profile.separator_start, "seed": seed}
    steps, rate = profile.snapshot_steps["S2"], profile.separator_learning_rate
    return fit(SeparationModel(separator), batches, steps, rate, None, callbacks, folder, definition)
