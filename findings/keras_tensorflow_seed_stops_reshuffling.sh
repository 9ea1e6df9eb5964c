#!/usr/bin/env bash
# Keras on TensorFlow: once a seed is set, fit(shuffle=True) goes through NumPy arrays
# in the same order in every epoch.
#
# Expected: keras.utils.set_random_seed makes a run repeatable; within the run each
#   epoch is still shuffled anew, as the argument `shuffle` of fit says ("before each
#   epoch"), so that batches are made up differently every time.
# Seen: on TensorFlow the permutation is drawn by tf.random.shuffle inside a tf.data
#   map, of which fit makes a new iterator for each epoch. With a global seed such an
#   iterator's random operations begin at the same state each time: all epochs have
#   one order, hence the same batches. For contrastive losses, where the batch is
#   the set of negatives, each clip then meets the same negatives for ever.
# Controls: (a) no seed set, on TensorFlow: the epochs differ; (b) the same seed on
#   JAX: the epochs differ, and a second run repeats them.
# What helps: a PyDataset that shuffles by itself, or one tf.data pipeline
#   with Dataset.shuffle(), whose reshuffling does survive a seed.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, jax 0.10.2. Python 3.11 to 3.13.
# Source: keras/src/trainers/data_adapters/array_data_adapter.py, get_tf_dataset
#   (`permutation`, line 128); the docstring of Model.fit, `shuffle`.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
pins="absl-py==2.5.1 astunparse==1.6.3 certifi==2026.10.19.post1 charset-normalizer==3.5.3
  flatbuffers==25.12.19 gast==0.7.0 google-pasta==0.2.0 grpcio==1.85.3 h5py==3.14.0 idna==3.20 jax==0.10.2
  jaxlib==0.10.2 keras==3.15.1 libclang==18.1.1 markdown-it-py==4.3.0 mdurl==0.1.2 ml_dtypes==0.6.0
  namex==0.1.0 numpy==2.3.5 opt_einsum==3.4.0 optree==0.20.0 packaging==26.4 protobuf==7.36.2
  Pygments==2.21.0 requests==2.34.2 rich==15.0.0 scipy==1.17.1 six==1.17.0 tensorflow-cpu==2.21.0
  termcolor==3.3.0 typing_extensions==4.16.0 urllib3==2.8.0 wrapt==2.5.2"
# shellcheck disable=SC2086
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: $pins
cd "$work"
export PYTHONNOUSERSITE=1 TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= KERAS_HOME="$work"
cat > check.py <<'PY'
import sys

import keras
import numpy as np


class Order(keras.callbacks.Callback):
    """Recovers the order of the clips from the running mean of the loss, which is the clip's number."""

    def on_train_begin(self, logs=None):
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.total, self.order = 0.0, []

    def on_train_batch_end(self, batch, logs=None):
        total = float(logs["loss"]) * (batch + 1)
        self.order.append(round(total - self.total))
        self.total = total

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self.order)


def run(seed):
    if seed is not None:
        keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", lambda y, p: keras.ops.mean(y) + 0 * keras.ops.mean(p))
    clips, order = np.arange(12, dtype="float32")[:, None], Order()
    model.fit(clips, clips, batch_size=1, epochs=4, shuffle=True, verbose=0, callbacks=[order])
    assert all(sorted(epoch) == list(range(12)) for epoch in order.epochs), order.epochs
    return order.epochs


backend = keras.backend.backend()
print("keras", keras.__version__, "on", backend)
unseeded = run(None)
seeded = run(1)
again = run(1)
for name, epochs in (("no seed", unseeded), ("seed 1", seeded), ("seed 1 again", again)):
    print(f"{name}:", *epochs, sep="\n  ")
distinct = [len(set(map(tuple, epochs))) for epochs in (unseeded, seeded)]
print("different orders in 4 epochs: without a seed", distinct[0], "- with one", distinct[1])
assert seeded == again, "a seed no longer makes the run repeatable"
assert distinct[0] == 4, distinct
assert distinct[1] == (1 if backend == "tensorflow" else 4), distinct
PY
for backend in tensorflow jax; do
  KERAS_BACKEND=$backend "$work/venv/bin/python" check.py
done
echo "As described: with a seed, TensorFlow's epochs all have one order; JAX's do not."
