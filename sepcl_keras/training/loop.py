"""Batches of crops and `fit`."""

import keras
import numpy as np

from sepcl_keras.core.arrays import digest
from sepcl_keras.core.backend import compile_with_xla, feed, host, number_of_devices, of_all_hosts
from sepcl_keras.core.checks import BadInput, check_number
from sepcl_keras.core.draws import generator
from sepcl_keras.training.checkpoint import Checkpoint
from sepcl_keras.training.logs import Log, Record
from sepcl_keras.training.optimizer import Adam, learning_rates

STEPS_IN_EPOCH = 25  # at most: an epoch here is what one entry of the record covers


class Batches(keras.utils.PyDataset):
    """Batches of crops of an array (clips, length, …), the same for the same seed, epoch and step.

    `array` holds waveforms or log-mel; crops are along its second axis; `targets` (clips, classes) go with them, or
    None.
    """

    def __init__(self, array, crop, batch_size, steps, seed, targets=None):
        super().__init__()
        self.array, self.crop, self.targets = array, crop, targets
        check_number("batch_size", batch_size, least=1, whole=True)
        if not 0 < crop <= array.shape[1]:
            raise BadInput(f"crop={crop}: expected 1 to {array.shape[1]}, the length of the array's clips.")
        self.batch_size, self.steps, self.seed, self.epoch = min(batch_size, len(array)), steps, seed, 0

    def __len__(self):
        return self.steps

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, step):
        rng = generator(self.seed, "crops", self.epoch * self.steps + step)
        clips = rng.choice(len(self.array), self.batch_size, replace=False)
        starts = rng.integers(0, self.array.shape[1] - self.crop + 1, self.batch_size)
        crops = [self.array[clip, start : start + self.crop] for clip, start in zip(clips, starts, strict=True)]
        x = np.stack(crops).astype("float32")
        return (x,) if self.targets is None else (x, self.targets[clips])


def fit(
    model, batches, steps, learning_rate, loss=None, callbacks=(), folder=None, definition=None, log=None, show=True
):
    """Trains by Adam with a short warm-up and a cosine decay, and says how it went.

    Args:
        model: a `keras.Model`. loss: its loss, unless its `compute_loss` is the objective.
        batches: a function of the number of steps in an epoch to a `PyDataset`, whose batches are a function of its
            `epoch`, where it has one, and the step. Where it has a method `check`, that is called with the model first.
        steps: updates, rounded up to whole epochs. learning_rate: its peak. callbacks: as in Keras' `fit`.
        folder: where a checkpoint is kept, or None. A training that was stopped, in whatever way, goes on from there
            when it is started again, and ends where one never stopped would. The file is the caller's to remove.
        definition: dict that tells this training from others which might have left a checkpoint there.
        log: a folder for `log.csv` and TensorBoard (see `Log`), or None. show: whether to print lines.

    Several hosts (see `use_all_devices`) train as one: each gives a part of every batch. The first writes checkpoint
    and log, into folders that all can see, so that all go on from the same step.

    Returns a dict of lists: `first_losses` and, for each epoch, `step`, `loss` and all else that `Record` knows.
    """
    epochs = -(-steps // STEPS_IN_EPOCH)
    in_epoch = -(-steps // epochs)
    schedule = learning_rates(learning_rate, epochs * in_epoch, max(1, steps // 20))
    optimizer = Adam(schedule, global_clipnorm=5.0)
    model.compile(optimizer, loss, jit_compile=compile_with_xla())
    data, done = batches(in_epoch), 0
    if hasattr(data, "check"):
        data.check(model)
    first = of_all_hosts(data[0])
    clips, devices = len(keras.tree.flatten(first)[0]), number_of_devices()
    if clips % devices:
        raise BadInput(f"a batch of {clips} clips on {devices} devices: expected a multiple of {devices}.")
    # Built here, or TensorFlow would trace the first step twice: the second time because it made variables.
    model(first[0], training=False)
    if any(variable.dtype == "float16" for variable in model.trainable_variables):
        raise BadInput("floatx float16: expected float32; for half precision set the policy 'mixed_float16'.")
    model.optimizer.build(model.trainable_variables)  # under mixed_float16 a wrapper of ours, which scales the loss
    chance = model.chance(clips) if hasattr(model, "chance") else {}
    record = Record(clips, in_epoch, epochs, chance, show)
    callbacks = [record, *callbacks]
    if log is not None and host()[0] == 0:
        callbacks.append(Log(log, record))
    if folder is not None:
        ours = {"model": type(model).__name__, "steps": steps, "learning_rate": float(learning_rate)}
        definition = (definition or {}) | ours | {"first_batch": digest(first)}
        checkpoint = Checkpoint(model, folder, definition, record)
        done = checkpoint.restore()
        if done:
            print(f"resumed at step {done * in_epoch} of {epochs * in_epoch}", flush=True)
            data.epoch = getattr(data, "epoch", 0) + done
        if host()[0] == 0:
            callbacks.append(checkpoint)
    x, steps_per_epoch = feed(data)
    rounds = dict(initial_epoch=done, epochs=epochs, steps_per_epoch=steps_per_epoch)
    model.fit(x, verbose=0, shuffle=False, callbacks=callbacks, **rounds)
    steps_done = [in_epoch * (epoch + 1) for epoch in range(epochs)]
    return {"first_losses": record.first_losses, "step": steps_done} | record.history
