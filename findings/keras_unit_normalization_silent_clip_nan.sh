#!/usr/bin/env bash
# Keras: one silent clip makes all weights NaN through UnitNormalization on JAX, in a
# step whose loss is a proper number.
#
# Expected: UnitNormalization and ops.normalize have an epsilon for vectors of
#   length zero; a silent clip, whose embedding is zero, is then harmless, as in
#   tf.math.l2_normalize.
# Seen: the epsilon saves the value, not the gradient. The inverse length is made as
#   rsqrt(0) = inf and cut afterwards; its derivative is inf times 0. On JAX the
#   gradient is NaN and one training step turns every weight into NaN, while the loss
#   that fit prints for this step is finite. On TensorFlow the same step is clean.
# Control: the same step on TensorFlow, and on JAX without the silent clip: all
#   weights stay finite.
# What helps: divide by sqrt(max(sum of squares, epsilon ** 2)) oneself, or leave
#   silent clips out.
# Versions: keras 3.15.1, jax 0.10.2, tensorflow-cpu 2.21.0. Python 3.11 to 3.13.
# Source: keras/src/ops/nn.py, _normalize (line 2712); keras issue 23075 tells of torch,
#   pull request 23093 of a cure that 3.15.1 does not have yet.
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


def step(clips):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(3, use_bias=False)  # silence in, zeros out
    model = keras.Sequential([keras.Input((5,)), dense, keras.layers.UnitNormalization()])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    embeddings = keras.ops.convert_to_numpy(model(clips))
    assert np.isfinite(embeddings).all() and (embeddings[0] == 0).all() == (clips[0] == 0).all()
    history = model.fit(clips, np.ones((len(clips), 3), "float32"), batch_size=len(clips), verbose=0)
    return history.history["loss"][0], dense.get_weights()[0]


clips = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
loss, kernel = step(clips)
print(f"no silent clip: loss {loss:.4f}, weights that are NaN {np.isnan(kernel).sum()} of {kernel.size}")
assert np.isfinite(loss) and np.isfinite(kernel).all()
clips[0] = 0.0
loss, kernel = step(clips)
print(f"one silent clip: loss {loss:.4f}, weights that are NaN {np.isnan(kernel).sum()} of {kernel.size}")
assert np.isfinite(loss)
assert np.isnan(kernel).all() if backend == "jax" else np.isfinite(kernel).all()
PY
for backend in tensorflow jax; do
  KERAS_BACKEND=$backend "$work/venv/bin/python" check.py
done
echo "As described: on JAX the silent clip made every weight NaN, with a finite loss."
