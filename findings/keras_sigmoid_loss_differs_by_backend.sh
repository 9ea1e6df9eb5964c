#!/usr/bin/env bash
# Keras: the same sigmoid layer with the same "binary_crossentropy" has another loss
# and another gradient on TensorFlow than on JAX.
#
# Expected: a multi-label classifier (sigmoid outputs, binary_crossentropy, as for audio
#   tags) trains alike on all backends, up to rounding.
# Seen: for a class that is surely wrong (logit 40, label 0) TensorFlow says loss 40
#   and moves the weight; JAX says 15.9 and leaves it where it is: the gradient
#   is exactly zero, so such a clip is never learned from. TensorFlow alone goes back
#   to the logits behind the sigmoid, although from_logits is False; JAX clips the
#   probabilities at 1e-7 first. Any layer that makes a new tensor behind the sigmoid,
#   such as Reshape, gives TensorFlow JAX's numbers, too.
# Controls: (a) at moderate logits both agree; (b) linear outputs with
#   BinaryCrossentropy(from_logits=True) give loss 40 and a moving weight on both.
# What helps: linear outputs and from_logits=True wherever numbers are compared.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, jax 0.10.2. Python 3.11 to 3.13.
# Source: keras/src/backend/tensorflow/nn.py, _get_logits (line 1262);
#   keras/src/backend/jax/nn.py, binary_crossentropy (line 1017). The documentation of
#   the losses does not tell backends apart.
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
import keras
import numpy as np

backend = keras.backend.backend()
print("keras", keras.__version__, "on", backend)
x, y = np.ones((4, 1), "float32"), np.zeros((4, 1), "float32")


def step(logit, activation="sigmoid", loss="binary_crossentropy", after=()):
    """Loss of one step of SGD, and how far it moved the weight, whose value is the logit."""
    dense = keras.layers.Dense(
        1, activation=activation, use_bias=False, kernel_initializer=keras.initializers.Constant(logit)
    )
    model = keras.Sequential([keras.Input((1,)), dense, *after])
    model.compile(keras.optimizers.SGD(1.0), loss)
    found = model.fit(x, y, batch_size=4, verbose=0).history["loss"][0]
    return round(float(found), 3), round(float(logit - dense.get_weights()[0][0, 0]), 3)


moderate = step(2.0)
sure = step(40.0)
reshaped = step(40.0, after=[keras.layers.Reshape((1,))])
from_logits = step(40.0, None, keras.losses.BinaryCrossentropy(from_logits=True))
for name, found in (("logit 2, sigmoid", moderate), ("logit 40, sigmoid", sure),
                    ("logit 40, sigmoid, Reshape", reshaped),
                    ("logit 40, linear, from_logits", from_logits)):
    print(f"{name}: loss {found[0]}, weight moved by {found[1]}")
assert moderate == (2.127, 0.881), moderate
assert from_logits == (40.0, 1.0), from_logits
clipped = (15.942, 0.0)
assert reshaped == clipped, reshaped
assert sure == ((40.0, 1.0) if backend == "tensorflow" else clipped), sure
PY
for backend in tensorflow jax; do
  KERAS_BACKEND=$backend "$work/venv/bin/python" check.py
done
echo "As described: loss 40 with a gradient on TensorFlow, 15.9 without one on JAX."
