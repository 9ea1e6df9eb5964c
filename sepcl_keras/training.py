"""Training: batches of crops, `fit`, and the recipes for separator and encoder."""

import keras
import numpy as np

from sepcl_keras.augmentation import Mixing, SpecAugment
from sepcl_keras.backend import compile_with_xla, feed, make_repeatable, number_of_devices
from sepcl_keras.checkpoint import Checkpoint, digest, save_model
from sepcl_keras.encoder import CNN14
from sepcl_keras.features import MEL_BANDS, PATCH_FRAMES
from sepcl_keras.files import BadInput
from sepcl_keras.layers import Dense
from sepcl_keras.logs import Log, Record
from sepcl_keras.models import ContrastiveModel, SeparationModel, TripletModel
from sepcl_keras.optimizer import Adam, learning_rates
from sepcl_keras.separator import TDCNPlusPlus, start_from_mdct

AUGMENTATIONS = {
    "SpecAugment": lambda seed: SpecAugment(seed=seed),
    "mix-back": lambda seed: Mixing(0.0, 0.05, seed=seed),
}
STEPS_IN_EPOCH = 25  # at most: an epoch here is what one line of progress reports


class Batches(keras.utils.PyDataset):
    """Batches of crops of an array (clips, length, …), the same for the same seed, epoch and step.

    Args:
        array: waveforms or log-mel spectrograms.
        crop: length of the crops along the second axis. targets: (clips, classes) to go with them, or None.
    """

    def __init__(self, array, crop, batch_size, steps, seed, targets=None):
        super().__init__()
        self.array, self.crop, self.targets = array, crop, targets
        self.batch_size, self.steps, self.seed, self.epoch = min(batch_size, len(array)), steps, seed, 0

    def __len__(self):
        return self.steps

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, step):
        rng = np.random.default_rng((self.seed, self.epoch * self.steps + step))
        clips = rng.choice(len(self.array), self.batch_size, replace=False)
        starts = rng.integers(0, self.array.shape[1] - self.crop + 1, self.batch_size)
        crops = [self.array[clip, start : start + self.crop] for clip, start in zip(clips, starts, strict=True)]
        x = np.stack(crops).astype("float32")
        return (x,) if self.targets is None else (x, self.targets[clips])


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


def fit(
    model, batches, steps, learning_rate, loss=None, callbacks=(), folder=None, definition=None, log=None, show=True
):
    """Trains by Adam with a short warm-up and a cosine decay, and says how it went.

    Args:
        model: a `keras.Model`. loss: its loss, unless its `compute_loss` is the objective.
        batches: a function of the number of steps in an epoch to a `PyDataset`, whose batches are a function of its
            `epoch`, where it has one, and the step.
        steps: updates, rounded up to whole epochs.
        learning_rate: its peak.
        callbacks: as in Keras' `fit`.
        folder: where a checkpoint is kept, or None. A training that was stopped, in whatever way, goes on from there
            when it is started again, and ends where one never stopped would. The file is the caller's to remove.
        definition: dict that tells this training from others which might have left a checkpoint there.
        log: a folder for `log.csv` and TensorBoard (see `Log`), or None.
        show: whether to print a line for each epoch.

    Returns a dict of lists: `first_losses` and, for each epoch, `step`, `loss` and all else that `Record` knows.
    """
    epochs = -(-steps // STEPS_IN_EPOCH)
    in_epoch = -(-steps // epochs)
    schedule = learning_rates(learning_rate, epochs * in_epoch, max(1, steps // 20))
    optimizer = Adam(schedule, global_clipnorm=5.0)
    model.compile(optimizer, loss, jit_compile=compile_with_xla())
    data, done = batches(in_epoch), 0
    first = data[0]
    clips, devices = len(keras.tree.flatten(first)[0]), number_of_devices()
    if clips % devices:
        raise BadInput(f"a batch of {clips} clips on {devices} devices: expected a multiple of {devices}.")
    # Built here, or TensorFlow would trace the first step twice: the second time because it made variables.
    model(first[0], training=False)
    model.optimizer.build(model.trainable_variables)  # under mixed_float16 a wrapper of ours, which scales the loss
    chance = model.chance(clips) if hasattr(model, "chance") else {}
    record = Record(clips, in_epoch, epochs, chance, show)
    callbacks = [record, *callbacks]
    if log is not None:
        callbacks.append(Log(log, record))
    if folder is not None:
        definition = (definition or {}) | {
            "model": type(model).__name__, "steps": steps, "learning_rate": float(learning_rate),
            "first_batch": digest(first),
        }  # fmt: skip
        checkpoint = Checkpoint(model, folder, definition, record)
        done = checkpoint.restore()
        if done:
            print(f"resumed at step {done * in_epoch} of {epochs * in_epoch}", flush=True)
            data.epoch = getattr(data, "epoch", 0) + done
        callbacks.append(checkpoint)
    x, steps_per_epoch = feed(data)
    model.fit(
        x, initial_epoch=done, epochs=epochs, steps_per_epoch=steps_per_epoch, verbose=0, shuffle=False,
        callbacks=callbacks,
    )  # fmt: skip
    steps_done = [in_epoch * (epoch + 1) for epoch in range(epochs)]
    return {"first_losses": record.first_losses, "step": steps_done} | record.history


def train_separator(mixtures, profile, seed, folder):
    """Trains the profile's TDCN++ on mixtures (clips, samples) and returns the history.

    `folder` gets the snapshots and the checkpoint; a training that was stopped there goes on.
    """
    make_repeatable(seed)
    separator = TDCNPlusPlus(**profile.separator)
    separator.build((None, None))
    if profile.separator_start == "mdct":
        start_from_mdct(separator)
    elif profile.separator_start != "random":
        raise BadInput(f"separator_start={profile.separator_start!r}: expected 'mdct' or 'random'.")
    crop = round(profile.separator_seconds * profile.sample_rate)
    snapshots = Snapshots(separator, profile.snapshot_steps, folder)
    return fit(
        SeparationModel(separator),
        lambda steps: Batches(mixtures, crop, profile.separator_batch, steps, seed),
        profile.snapshot_steps["S2"],
        profile.separator_learning_rate,
        callbacks=[snapshots],
        folder=folder,
        definition={"sizes": profile.separator, "start": profile.separator_start, "seed": seed},
    )


def new_encoder(embedding_dim, width, seed):
    """A `CNN14` with weights drawn from the seed, whatever was drawn before."""
    make_repeatable(seed)
    encoder = CNN14(embedding_dim, width)
    encoder.build((None, PATCH_FRAMES, MEL_BANDS))
    return encoder


def pretrain(
    pairs, embedding_dim, width, steps, learning_rate, seed, similarity=1.0, coincidence=1.0, augmentation=None,
    constraints=(), folder=None, log=None, show=True,
):  # fmt: skip
    """Trains a new encoder by contrast, or by triplets; returns it and the history.

    Args:
        pairs: a function of steps to a `ViewPairs`.
        similarity, coincidence: weights of the two losses. augmentation: a name of `AUGMENTATIONS`, or None.
        constraints: where some are listed, the encoder learns by triplets instead (see `TripletModel`).
        folder, log, show: as in `fit`.
    """
    encoder = new_encoder(embedding_dim, width, seed)
    definition = {"seed": seed, "constraints": list(constraints)}
    if constraints:
        model = TripletModel(encoder, constraints, seed=seed)
    else:
        if augmentation not in AUGMENTATIONS and augmentation is not None:
            raise BadInput(f"augmentation={augmentation!r}: expected one of {', '.join(AUGMENTATIONS)}, or None.")
        layer = AUGMENTATIONS[augmentation](seed) if augmentation else None
        model = ContrastiveModel(encoder, similarity, coincidence, augmentation=layer)
        definition |= {"similarity": similarity, "coincidence": coincidence, "augmentation": augmentation}
    history = fit(model, pairs, steps, learning_rate, folder=folder, definition=definition, log=log, show=show)
    return encoder, history


def train_supervised(log_mel, labels, profile, seed, folder=None):
    """The ceiling: the same encoder, crops and SpecAugment, but trained on the labels. Returns encoder and history."""
    encoder = new_encoder(profile.embedding_dim, profile.width, seed)
    model = keras.Sequential([SpecAugment(seed=seed), encoder, keras.layers.ReLU(), Dense(labels.shape[1])])
    history = fit(
        model,
        lambda steps: Batches(log_mel, PATCH_FRAMES, 2 * profile.batch_size, steps, seed, labels),
        profile.supervised_steps,
        profile.learning_rate,
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        folder=folder,
        definition={"seed": seed},
    )
    return encoder, history
