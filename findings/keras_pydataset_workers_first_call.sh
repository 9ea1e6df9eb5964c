#!/usr/bin/env bash
# Keras on JAX: with PyDataset(workers=2) the FIRST predict, evaluate or fit of a
# model not built yet gives rows in another order, a wrong mean, and epochs that
# repeat some batches and omit others.
#
# Expected: `workers` changes the speed only; batches come in index order,
#   each once per epoch (shuffle=False), and data changed in on_epoch_end is what
#   the next epoch sees.
# Seen: to build the model, Keras takes one batch from the worker queue and
#   resets; batches that the workers had ready are kept for "the next run", which
#   nevertheless starts again at index 0. So
#   - predict() returns the rows of batches 1, 2, ..., 7, 0;
#   - evaluate() of 40 batches averages 1..11 twice and never sees the last 11;
#   - fit() does the same in its first epoch, and every later epoch begins with
#     batches that were made before on_epoch_end ran.
#   No warning, and a second call on the same model is right.
# Controls: workers=1 is right from the first call on; so is workers=2 in
#   the second call.
# What helps: build the model before (one call on one batch), or workers=1.
# Versions: Keras 3.15.1, JAX and jaxlib 0.12.0.1, numpy 2.5.5. Python 3.12
#   or 3.13. (fit was seen to do the same with the torch backend.)
# Source: keras/src/trainers/data_adapters/py_dataset_adapter.py
#   (PyDatasetEnqueuer.stop fills ready_queue, OrderedEnqueuer._run makes new
#   indices) and keras/src/trainers/epoch_iterator.py; the keeping of pending
#   items came with keras-team/keras pull request 20123, for infinite data sets.
#   Issue 23283 is another fault of the same class (on_epoch_begin).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check keras==3.15.1 jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5
cd "$work"
export KERAS_BACKEND=jax
cat > check.py <<'PY'
import time

import keras
import numpy as np

print("keras", keras.__version__, "backend", keras.backend.backend(), "numpy", np.__version__)
assert keras.backend.backend() == "jax"


class Numbered(keras.utils.PyDataset):
    """Batch i holds two rows of value i + 1000 * version."""

    def __init__(self, n, **kw):
        super().__init__(**kw)
        self.n, self.version = n, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return np.full((2, 1), i + 1000 * self.version, "float32"), np.zeros((2, 1), "float32")

    def on_epoch_end(self):
        self.version += 1


class Seen(keras.callbacks.Callback):
    """The value of each training batch, from the running mean of the loss."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])
        self.sum = 0.0

    def on_train_batch_end(self, batch, logs=None):
        total = float(logs["loss"]) * (batch + 1)
        self.epochs[-1].append(round(total - self.sum))
        self.sum = total
        time.sleep(0.01)


def fresh():
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones", trainable=False)])
    model.compile("sgd", loss="mae")
    return model


def try_all(workers):
    out = {}
    model = fresh()
    for call in (1, 2):
        rows = model.predict(Numbered(8, workers=workers), verbose=0)[::2, 0]
        out["predict", call] = [int(v) % 1000 for v in rows]
    model = fresh()
    for call in (1, 2):
        data = Numbered(40, workers=workers)
        data.on_epoch_end = lambda: None
        out["evaluate", call] = float(model.evaluate(data, verbose=0))
    model = fresh()
    for call in (1, 2):
        seen = Seen()
        model.fit(Numbered(40, workers=workers), epochs=2, shuffle=False, verbose=0, callbacks=[seen])
        out["fit", call] = seen.epochs
    return out


def stale(epochs):
    return len({v // 1000 for v in epochs[1]}) > 1


def missing(epoch):
    return sorted(set(range(40)) - {v % 1000 for v in epoch})


result = {w: try_all(w) for w in (1, 2)}
for w, r in result.items():
    for call in (1, 2):
        print(f"workers={w} call {call}: predict {r['predict', call]}  evaluate {r['evaluate', call]:.2f} (true 19.50)")
        print("   fit, epoch 1 omits", missing(r["fit", call][0]), "| epoch 2 mixes old and new data:", stale(r["fit", call]))
right = list(range(8))
for w, call in ((1, 1), (1, 2), (2, 2)):
    r = result[w]
    assert r["predict", call] == right and abs(r["evaluate", call] - 19.5) < 1e-3, "a control failed"
    assert not missing(r["fit", call][0]), "a control failed"
assert not stale(result[1]["fit", 1])
r = result[2]
assert r["predict", 1] != right and sorted(r["predict", 1]) == right, "predict is in order now"
assert abs(r["evaluate", 1] - 19.5) > 1, "evaluate is right now"
assert missing(r["fit", 1][0]) and stale(r["fit", 1]), "fit sees each batch once now"
print("HOLDS: the first call with two workers sees other batches than the second")
PY
"$work/venv/bin/python" check.py
