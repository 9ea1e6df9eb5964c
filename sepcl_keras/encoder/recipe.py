"""How the course trains an encoder: by contrast, by triplets, or on labels."""

import keras

from sepcl_keras.core.backend import make_repeatable
from sepcl_keras.core.checks import one_of
from sepcl_keras.core.dense import Dense
from sepcl_keras.core.draws import stream
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.encoder.objectives import ContrastiveModel, TripletModel
from sepcl_keras.training.loop import Batches, fit
from sepcl_keras.views.augmentation import Mixing, SpecAugment
from sepcl_keras.views.log_mel import MEL_BANDS, PATCH_FRAMES

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


def train_supervised(log_mel, labels, profile, seed, folder=None):
    """The ceiling: the same encoder, crops and SpecAugment, but trained on the labels. Returns encoder and history."""
    encoder = new_encoder(profile.embedding_dim, profile.width, seed)
    model = keras.Sequential([SpecAugment(seed=seed), encoder, keras.layers.ReLU(), Dense(labels.shape[1])])

    def batches(steps):
        return Batches(log_mel, PATCH_FRAMES, 2 * profile.batch_size, steps, stream(seed, "supervised"), labels)

    loss, definition = keras.losses.BinaryCrossentropy(from_logits=True), {"seed": seed}
    steps, rate = profile.supervised_steps, profile.learning_rate
    return encoder, fit(model, batches, steps, rate, loss, folder=folder, definition=definition)
