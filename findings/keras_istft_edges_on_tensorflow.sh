#!/usr/bin/env bash
# keras.ops.istft gives the waveform back on JAX; on TensorFlow both ends are wrong.
#
# Expected: "To reconstruct an original waveform, the parameters should be the same in
#   stft" (docstring of keras.ops.istft). With center=True, every sample lies
#   under several windows, so the reconstruction should be whole, ends included, on
#   each backend; the spectra themselves agree.
# Seen: on TensorFlow the samples at both ends, up to half a window each, are too quiet:
#   the overlapping windows are divided out as if the frames went on for
#   ever (tf.signal.inverse_stft_window_fn), and there are fewer of them at the ends.
#   Parts of a mixture, separated by masks that add up to one, do not add up
#   to the mixture there.
# Control: on JAX the error is at rounding over the whole waveform; on both, the middle
#   is right and the spectra agree.
# What helps: pad the waveform by a window on both sides before stft and cut that
#   off after istft.
# Versions: keras 3.15.1, tensorflow-cpu 2.21.0, jax 0.10.2. Python 3.11 to 3.13.
# Source: keras/src/backend/tensorflow/math.py, istft (line 230), against
#   keras/src/backend/jax/math.py. The wish behind it: tensorflow issue 36616.
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
from keras import ops

backend = keras.backend.backend()
print("keras", keras.__version__, "on", backend)
size = dict(sequence_length=512, sequence_stride=128, fft_length=512)
x = np.random.default_rng(0).normal(size=8000).astype("float32")
spectrum = ops.stft(x, **size)
y = ops.convert_to_numpy(ops.istft(spectrum, length=len(x), **size))
real, imaginary = (ops.convert_to_numpy(part).astype("float64") for part in spectrum)
error = np.abs(y - x)
wrong = np.flatnonzero(error > 1e-3)
print("spectrum", real.shape, "energy", round(float((real**2 + imaginary**2).sum()), 1))
print(f"largest error: first 256 samples {error[:256].max():.6f}, middle {error[512:-512].max():.6f}, "
      f"last 256 {error[-256:].max():.6f}; samples off by more than 0.001: {len(wrong)}")
ratio = float((y[:64] * x[:64]).sum() / (x[:64] ** 2).sum())
print(f"gain over the first 64 samples: {ratio:.3f}")
np.savez(f"{backend}.npz", real=real, imaginary=imaginary)
assert len(y) == len(x) and error[512:-512].max() < 1e-4
if backend == "jax":
    assert error.max() < 1e-4, error.max()
else:
    assert error[:256].max() > 0.1 and error[-256:].max() > 0.1, (error[:256].max(), error[-256:].max())
    other = np.load("jax.npz")
    apart = max(np.abs(other["real"] - real).max(), np.abs(other["imaginary"] - imaginary).max())
    print(f"spectra of the two backends differ by {apart:.2e} at most")
    assert apart < 1e-3
PY
for backend in jax tensorflow; do
  KERAS_BACKEND=$backend "$work/venv/bin/python" check.py
done
echo "As described: the same spectrum, and TensorFlow's inverse is wrong at both ends."
