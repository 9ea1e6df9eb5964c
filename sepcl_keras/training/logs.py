"""What a training tells while it runs: its record, about ten lines, `log.csv`, TensorBoard."""

import contextlib
import shutil
import time
from pathlib import Path

import keras
import numpy as np
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import atomic

DETAILS = ("alignment", "uniformity", "spread", "gradient_norm")  # in the record and the logs, not in the printed line


class Record(keras.callbacks.Callback):
    """The losses of the first ten steps, and each epoch's metrics.

    To the metrics of the model it adds `NAME_chance` where guessing has a value, `gradient_norm`, the mean over the
    epoch's steps of the norm before clipping, and `clips_per_second`, with all that an epoch does, the first one's
    compilation too. Callbacks after it see them all. A loss that is not finite ends the training.

    Args:
        clips: in a batch. steps: in an epoch. epochs: of the whole training.
        chance: dict from a metric's name to the value that guessing gives. show: whether to print lines.
    """

    def __init__(self, clips, steps, epochs, chance, show):
        super().__init__()
        self.clips, self.steps, self.epochs, self.chance, self.show = clips, steps, epochs, chance, show
        self.first_losses, self.history, self._total = [], {}, 0.0

    def _optimizer(self):
        optimizer = self.model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer)  # in mixed_float16 Keras wraps ours

    def on_epoch_begin(self, epoch, logs=None):
        self._optimizer().gradient_norms.assign(0.0)
        self._updates = int(to_numpy(self._optimizer().iterations))
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if len(self.first_losses) < 10 and batch == len(self.first_losses):
            total = float(logs["loss"]) * (batch + 1)  # Keras logs the mean over the epoch so far
            self.first_losses.append(total - self._total)
            self._total = total

    def on_epoch_end(self, epoch, logs=None):
        speed = self.steps * self.clips / (time.perf_counter() - self._began)
        # A step that overflows in float16 is left out, and does not count.
        updates = int(to_numpy(self._optimizer().iterations)) - self._updates
        for name, value in self.chance.items():
            logs[f"{name}_chance"] = value
        logs["gradient_norm"] = float(to_numpy(self._optimizer().gradient_norms)) / max(1, updates)
        logs["clips_per_second"] = speed
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        every = max(1, min(self.epochs // 10, 40))  # ten lines in all, or one every thousand steps
        if self.show and ((epoch + 1) % every == 0 or epoch + 1 == self.epochs):
            print(self._line(epoch, logs), flush=True)
        if not np.isfinite(self.history["loss"][-1]):
            what = f"training diverged in epoch {epoch + 1}: the loss is not finite"
            raise BadInput(f"{what}; expected a lower learning rate.")

    def _line(self, epoch, logs):
        total = self.steps * self.epochs
        hidden = {"clips_per_second", *DETAILS, *(f"{name}_chance" for name in self.chance)}
        beside = {name: f" (chance {value:.3f})" for name, value in self.chance.items()}
        shown = sorted((name for name in logs if name not in hidden), key=lambda name: name != "loss")
        values = [f"{name} {logs[name]:.3f}{beside.get(name, '')}" for name in shown]
        step = f"step {self.steps * (epoch + 1):{len(str(total))}} of {total}"
        return f"{step}: {', '.join(values)}, {logs['clips_per_second']:.0f} clips/s"


class Log(keras.callbacks.Callback):
    """Keeps the record as `folder/log.csv`, a row for each epoch, and in `folder/tensorboard`, where that is installed.

    A training that goes on from a checkpoint begins both anew from its record: no row is there twice, none is missing.
    """

    def __init__(self, folder, record):
        super().__init__()
        self.folder, self.record, self.board, self.shown = Path(folder), record, None, 0

    def on_epoch_end(self, epoch, logs=None):
        steps, history = self.record.steps, self.record.history
        rows = [{"step": steps * (done + 1)} | {k: v[done] for k, v in history.items()} for done in range(epoch + 1)]
        lines = [",".join(rows[0]), *(",".join(f"{value:.8g}" for value in row.values()) for row in rows)]
        with atomic(self.folder / "log.csv") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if not self.shown:
            self.board = self._open_board()
        if self.board is not None:
            self._show(rows[self.shown :])
        self.shown = epoch + 1

    def _open_board(self):
        try:
            import tensorboard  # noqa: F401  what TensorFlow writes scalars by
            import tensorflow as tf
        except ImportError:
            needs = "which needs tensorflow and tensorboard; log.csv has the same"
            print(f"{self.folder}: no log for TensorBoard, {needs}.")
            return None
        if keras.backend.backend() != "tensorflow":
            with contextlib.suppress(RuntimeError):  # where TensorFlow is at work already
                tf.config.set_visible_devices([], "GPU")  # or it would take the memory that the training needs
        shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        return tf.summary.create_file_writer(str(self.folder / "tensorboard"))

    def _show(self, rows):
        import tensorflow as tf

        try:
            with self.board.as_default():
                for row in rows:
                    for name, value in row.items():
                        tf.summary.scalar(name, value, step=row["step"])
            self.board.flush()
        except tf.errors.OpError:
            raise BadInput(f"{self.folder / 'tensorboard'}: cannot be written; expected a folder with room.") from None

    def on_train_end(self, logs=None):
        if self.board is not None:
            self.board.close()
