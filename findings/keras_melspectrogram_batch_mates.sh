#!/usr/bin/env bash
# Keras: what MelSpectrogram gives for one clip depends on the other clips of
# its batch, in inference too.
#
# Expected: a preprocessing layer without weights treats each clip by itself;
#   top_db=80 is described as the range below "the maximum" of the
#   log-spectrogram, which for a (batch, samples) input one takes per clip.
# Seen: the floor is (largest value of the WHOLE batch) - top_db. A quiet clip
#   beside a loud one is flattened to a constant, tens of dB above its own
#   values: predict() with another batch size, or shuffled batches, give
#   other features for the same audio.
# Controls: power_to_db=False, or a huge top_db, gives the same output alone and
#   in company; tiling the quiet clip with itself changes nothing.
# What helps: top_db=1e9 (then one's own floor per clip), or one clip a call.
# Versions: Keras 3.15.1, JAX and jaxlib 0.12.0.1, numpy 2.5.5. Python 3.12
#   or 3.13. (The same numbers were seen with the TensorFlow and torch backends.)
# Source: keras/src/layers/preprocessing/mel_spectrogram.py, _dbscale (a max over
#   all axes); reference page of the MelSpectrogram layer.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check keras==3.15.1 jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5
cd "$work"
export KERAS_BACKEND=jax
cat > check.py <<'PY'
import keras
import numpy as np

print("keras", keras.__version__, "backend", keras.backend.backend(), "numpy", np.__version__)
t = np.arange(16000) / 16000
rng = np.random.default_rng(0)
loud = (0.9 * np.sin(2 * np.pi * 300 * t))[None].astype("float32")
quiet = (1e-4 * np.sin(2 * np.pi * 1000 * t) + 1e-5 * rng.normal(size=t.size))[None].astype("float32")


def shift(company, **kw):
    layer = keras.layers.MelSpectrogram(sampling_rate=16000, **kw)
    alone = np.asarray(layer(quiet, training=False))[0]
    beside = np.asarray(layer(np.concatenate([quiet, company]), training=False))[0]
    return float(np.abs(alone - beside).max()), float(np.ptp(alone)), float(np.ptp(beside))


for name, company in (("itself", quiet), ("a loud clip", loud)):
    for kw in ({}, {"power_to_db": False}, {"top_db": 1e9}):
        print("quiet clip beside", name, kw or "defaults", "-> change %.4g, span alone %.4g, span beside %.4g"
              % shift(company, **kw))
change, alone, beside = shift(loud)
assert shift(quiet)[0] < 1e-3 and shift(loud, top_db=1e9)[0] < 1e-3, "a control failed"
assert shift(loud, power_to_db=False)[0] < 1e-6, "a control failed"
assert change > 10 and alone > 20, "a clip no longer depends on its batch-mates"
print("HOLDS: the same quiet clip changes by up to %.1f dB beside a loud one" % change)
PY
"$work/venv/bin/python" check.py
