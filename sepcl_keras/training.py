"""Training: the models whose `compute_loss` is the objective, TensorFlow's `train_step` written out, the recipes."""

import keras
import numpy as np
from keras import ops

from sepcl_keras.augmentation import SpecAugment
from sepcl_keras.backend import compile_with_xla, make_repeatable
from sepcl_keras.checkpoint import Checkpoint, Record, digest
from sepcl_keras.encoder import CNN14, CoincidenceHead, SimilarityHead
from sepcl_keras.features import PATCH_FRAMES
from sepcl_keras.files import BadInput, atomic
from sepcl_keras.losses import Coincidence, MixIT, NTXent
from sepcl_keras.separator import TDCNPlusPlus, start_from_mdct

STEPS_IN_EPOCH = 25  # at most: an epoch here is what one line of progress reports


class TensorFlowStep:
    """The custom training step. On JAX and torch it is absent, and Keras' own step does the same."""

    if keras.backend.backend() == "tensorflow":

        def train_step(self, data):
            import tensorflow as tf

            (x, y, sample_weight) = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                outputs = self(x, training=True)
                loss = self.compute_loss(x, y, outputs, sample_weight, training=True)
                scaled = self.optimizer.scale_loss(loss)  # for float16; else the loss itself
            gradients = tape.gradient(scaled, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            self._loss_tracker.update_state(loss)
            return {metric.name: metric.result() for metric in self.metrics}


class SeparationModel(TensorFlowStep, keras.Model):
    """Trains a separator by MixIT on batches of waveforms (2N, samples): neighbours become mixtures of mixtures."""

    def __init__(self, separator, max_snr=30.0, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # in mixed precision too, mixtures and references are summed in float32
        self.separator, self.mixit = separator, MixIT(max_snr)
        # The loss moves with the level of what a batch holds; the signal-to-noise ratio of the best remix does not.
        self.snr_tracker = keras.metrics.Mean(name="snr")

    @staticmethod
    def pair(waveforms):
        """(2N, samples) to the references (N, 2, samples)."""
        return ops.reshape(waveforms, (-1, 2, waveforms.shape[-1]))

    def call(self, waveforms, training=None):
        """Channels (N, sources, samples) of the N mixtures of mixtures."""
        return self.separator(ops.sum(self.pair(waveforms), axis=1), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        references = self.pair(x)
        losses = self.mixit.call(references, y_pred)  # (N,)
        energy = ops.sum(ops.square(references), axis=-1)
        level = ops.mean(ops.log10(energy + 1e-8), axis=-1) * 10.0
        self.snr_tracker.update_state(level - losses)
        return ops.mean(losses)


class ContrastiveModel(TensorFlowStep, keras.Model):
    """Trains an encoder on pairs of patches ((N, frames, mels), (N, frames, mels)).

    Args:
        encoder: patches to h (N, d); shared by both views and both tasks.
        similarity, coincidence: weights of NT-Xent on z and of coincidence prediction on h; zero leaves a task out.
        temperature: of NT-Xent.
        augmentation: a layer for patches, or None; each patch of each view gets a draw of its own.
    """

    def __init__(self, encoder, similarity=1.0, coincidence=1.0, temperature=0.2, augmentation=None, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.augmentation = encoder, augmentation
        self.similarity, self.coincidence = similarity, coincidence
        if similarity:
            self.similarity_head, self.nt_xent = SimilarityHead(name="similarity_head"), NTXent(temperature)
            self.similarity_tracker = keras.metrics.Mean(name="similarity")
            self.accuracy_tracker = keras.metrics.Mean(name="accuracy")
        if coincidence:
            self.coincidence_head, self.balanced_entropy = CoincidenceHead(name="coincidence_head"), Coincidence()
            self.coincidence_tracker = keras.metrics.Mean(name="coincidence")

    def call(self, views, training=None):
        # One joint forward pass: both views share the batch norm's statistics, which else would give them away.
        patches = ops.concatenate(views, axis=0)  # (2N, frames, mels)
        if self.augmentation is not None:
            patches = self.augmentation(patches, training=training)
        h_a, h_b = ops.split(self.encoder(patches, training=training), 2, axis=0)  # (N, d) each
        outputs = {}
        if self.similarity:
            outputs["z"] = (self.similarity_head(h_a), self.similarity_head(h_b))
        if self.coincidence:
            outputs["logits"] = self.coincidence_head(h_a, h_b)  # (N, N)
        return outputs

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        total = 0.0
        if self.similarity:
            loss = self.nt_xent(*y_pred["z"])
            logits, positives = self.nt_xent.logits(*y_pred["z"])
            right = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), ops.cast(positives, "int32"))
            self.similarity_tracker.update_state(loss)
            self.accuracy_tracker.update_state(ops.cast(right, "float32"))
            total += self.similarity * loss
        if self.coincidence:
            logits = y_pred["logits"]
            loss = self.balanced_entropy(ops.zeros_like(logits), logits)
            self.coincidence_tracker.update_state(loss)
            total += self.coincidence * loss
        return total


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
            with atomic(self.folder / f"{name}.keras") as temporary:
                self.separator.save(temporary)

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * self.params["steps"]
        if epoch == 0:
            self._save(0)

    def on_train_batch_end(self, batch, logs=None):
        self._save(self.before + batch + 1)


def learning_rates(peak, steps, warmup):
    """The schedule: from a tenth of the peak straight up to it, then by a cosine down to a hundredth of it."""
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, steps - warmup), 0.01, warmup_target=peak, warmup_steps=warmup
    )


def fit(model, batches, steps, learning_rate, loss=None, callbacks=(), verbose=2, folder=None, definition=None):
    """Trains by Adam with a short warm-up and a cosine decay, and says how it went.

    Args:
        model: a `keras.Model`. loss: its loss, unless its `compute_loss` is the objective.
        batches: a function of the number of steps in an epoch to a `PyDataset`, whose batches are a function of its
            `epoch`, where it has one, and the step.
        steps: updates, rounded up to whole epochs.
        learning_rate: its peak.
        callbacks, verbose: as in Keras' `fit`.
        folder: where a checkpoint is kept, or None. A training that was stopped, in whatever way, goes on from there
            when it is started again, and ends where one never stopped would. The file is the caller's to remove.
        definition: dict that tells this training from others which might have left a checkpoint there.

    Returns a dict of lists: `first_losses` and, for each epoch, `step`, `loss` and the model's other metrics.
    """
    epochs = -(-steps // STEPS_IN_EPOCH)
    in_epoch = -(-steps // epochs)
    schedule = learning_rates(learning_rate, epochs * in_epoch, max(1, steps // 20))
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=5.0)
    model.compile(optimizer, loss, jit_compile=compile_with_xla())
    data, record, done = batches(in_epoch), Record(), 0
    first = data[0]
    # Built here, or TensorFlow would trace the first step twice: the second time because it made variables.
    model(first[0], training=False)
    model.optimizer.build(model.trainable_variables)  # under mixed_float16 a wrapper of ours, which scales the loss
    callbacks = [record, *callbacks]
    if folder is not None:
        definition = (definition or {}) | {
            "model": type(model).__name__, "steps": steps, "learning_rate": float(learning_rate),
            "first_batch": digest(first),
        }  # fmt: skip
        checkpoint = Checkpoint(model, folder, definition, record)
        done = checkpoint.restore()
        if done:
            print(f"resumed at step {done * in_epoch} of {epochs * in_epoch}", flush=True)
            if hasattr(data, "epoch"):
                data.epoch += done
        callbacks.append(checkpoint)
    model.fit(data, initial_epoch=done, epochs=epochs, verbose=verbose, shuffle=False, callbacks=callbacks)
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
    encoder.build((None, PATCH_FRAMES, 64))
    return encoder


def pretrain(
    pairs, embedding_dim, width, steps, learning_rate, seed, similarity, coincidence, spec_augment, verbose=2,
    folder=None,
):  # fmt: skip
    """Trains a new encoder by contrast; returns it and the history.

    `pairs`: a function of steps to a `ViewPairs`. `folder`: as in `fit`.
    """
    encoder = new_encoder(embedding_dim, width, seed)
    augmentation = SpecAugment(seed=seed) if spec_augment else None
    model = ContrastiveModel(encoder, similarity, coincidence, augmentation=augmentation)
    weights = {"similarity": similarity, "coincidence": coincidence, "seed": seed}
    return encoder, fit(model, pairs, steps, learning_rate, verbose=verbose, folder=folder, definition=weights)


def train_supervised(log_mel, labels, profile, seed, folder=None):
    """The ceiling: the same encoder, crops and SpecAugment, but trained on the labels. Returns encoder and history."""
    encoder = new_encoder(profile.embedding_dim, profile.width, seed)
    model = keras.Sequential(
        [SpecAugment(seed=seed), encoder, keras.layers.ReLU(), keras.layers.Dense(labels.shape[1])]
    )
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
