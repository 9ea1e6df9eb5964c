"""How the course trains an encoder: by contrast, by triplets, or on labels."""

import keras
import numpy as np

from sepcl_keras.core.backend import make_repeatable
from sepcl_keras.core.checks import one_of
from sepcl_keras.core.dense import Dense
from sepcl_keras.core.draws import stream
from sepcl_keras.core.files import read_json, write_json
from sepcl_keras.core.saved import load_model, save_model
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.encoder.objectives import ContrastiveModel, TripletModel
from sepcl_keras.training.loop import Batches, fit
from sepcl_keras.views.augmentation import Mixing, SpecAugment
from sepcl_keras.views.log_mel import MEL_BANDS, PATCH_FRAMES, windows

AUGMENTATIONS = {
    "SpecAugment": lambda seed: SpecAugment(seed=seed),
    "mix-back": lambda seed: Mixing(0.0, 0.05, seed=seed),
}


def new_encoder(embedding_dim, width, seed):
    """A `CNN14` with weights drawn from the seed, whatever was drawn before."""
    make_repeatable(stream(seed, "weights of the encoder"))
    encoder = CNN14(embedding_dim, width)
    encoder.build((None, PATCH_FRAMES, MEL_BANDS))
    return encoder


def pretrain(
    pairs, embedding_dim, width, steps, learning_rate, seed, similarity=1.0, coincidence=1.0, augmentation=None,
    constraints=(), folder=None, log=None, show=True,
):  # fmt: skip
    """Trains a new encoder by contrast, or by triplets; returns it and the history.

    `pairs` is a function of steps to a `ViewPairs`; `similarity` and `coincidence` are weights of the two losses;
    `augmentation` is a name of `AUGMENTATIONS`, or None; with `constraints` the encoder learns by triplets instead (see
    `TripletModel`); `folder`, `log` and `show` are as in `fit`.
    """
    encoder = new_encoder(embedding_dim, width, seed)
    definition = {"seed": seed, "constraints": list(constraints)}
    if constraints:
        model = TripletModel(encoder, constraints, seed=seed)
    else:
        if augmentation is not None:
            one_of("augmentation", augmentation, AUGMENTATIONS)
        layer = AUGMENTATIONS[augmentation](seed) if augmentation else None
        model = ContrastiveModel(encoder, similarity, coincidence, augmentation=layer)
        definition |= {"similarity": similarity, "coincidence": coincidence, "augmentation": augmentation}
    history = fit(model, pairs, steps, learning_rate, folder=folder, definition=definition, log=log, show=show)
    return encoder, history


class BestEpoch(keras.callbacks.Callback):
    """Keeps the encoder of the epoch whose mean binary cross-entropy on validation clips was least.

    `log_mel` (clips, frames, mels) and `labels` (clips, classes) are for validation; a clip's logits are the mean over
    its patches. `folder` gets `encoder.keras` and `best.json`, so that a training that goes on knows its best epoch.
    """

    def __init__(self, encoder, log_mel, labels, folder):
        super().__init__()
        self.encoder, self.folder, self.labels = encoder, folder, labels
        self.patches = windows(log_mel)  # (clips, patches, frames, mels)
        known = folder and (folder / "best.json").exists()
        self.least = read_json(folder / "best.json", dict)["validation_loss"] if known else np.inf
        self.weights = load_model(folder / "encoder.keras", CNN14).get_weights() if known else None

    def on_epoch_end(self, epoch, logs=None):
        flat = self.patches.reshape(-1, *self.patches.shape[2:])
        parts = (flat[i : i + 256].astype("float32") for i in range(0, len(flat), 256))
        logits = np.concatenate([keras.ops.convert_to_numpy(self.model(part, training=False)) for part in parts])
        logits = logits.astype("float64").reshape(*self.patches.shape[:2], -1).mean(axis=1)  # (clips, classes)
        loss = float(np.mean(np.logaddexp(0, logits) - self.labels * logits))
        if loss < self.least or self.weights is None:  # a network that diverged has no least
            self.least, self.weights = loss, self.encoder.get_weights()
            if self.folder:
                save_model(self.encoder, self.folder / "encoder.keras")
                write_json(self.folder / "best.json", {"validation_loss": loss, "epoch": epoch})


def train_supervised(given, profile, seed, folder=None):
    """The ceiling: the same encoder, crops and SpecAugment, but trained on the labels, and of all epochs the best one.

    `given`: split (train, validation) → log-mel (clips, frames, mels) and labels (clips, classes). Returns the encoder
    and the history.
    """
    encoder, (log_mel, labels) = new_encoder(profile.embedding_dim, profile.width, seed), given["train"]
    model = keras.Sequential([SpecAugment(seed=seed), encoder, keras.layers.ReLU(), Dense(labels.shape[1])])

    def batches(steps):
        return Batches(log_mel, PATCH_FRAMES, 2 * profile.batch_size, steps, stream(seed, "supervised"), labels)

    loss, definition = keras.losses.BinaryCrossentropy(from_logits=True), {"seed": seed}
    best = BestEpoch(encoder, *given["validation"], folder)
    steps, rate = profile.supervised_steps, profile.learning_rate
    history = fit(model, batches, steps, rate, loss, [best], folder=folder, definition=definition)
    encoder.set_weights(best.weights)
    return encoder, history
