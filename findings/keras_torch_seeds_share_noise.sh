#!/usr/bin/env bash
# Keras on torch: SeedGenerators with different seeds give the SAME draws, only
# shifted by (difference of the seeds) calls.
#
# Expected: SeedGenerator(0) and SeedGenerator(3) are unrelated streams, so that
#   repeating an experiment with seeds 0, 1, 2, ... gives independent noise.
# Seen: draw k of seed s depends only on s + k. The fourth draw of seed 0 is, to
#   the last bit, the first draw of seed 3; the fifth is the second, and so on.
#   Two layers Dropout(seed=0) and Dropout(seed=1) of one model thus use each
#   other's masks one step apart. The backend adds the two halves of the seed
#   state (user's seed, call counter) and hands the sum to manual_seed.
# Control: the same lines on the JAX backend, where the two halves make one key,
#   show no equal draw.
# What helps: seeds far apart (say 1000003 * k), further than the number of
#   draws in a run.
# Versions: Keras 3.15.1, torch 2.13.0, JAX and jaxlib 0.7.2, numpy 2.3.5.
#   Python 3.11 to 3.13. (torch is a large download; any build
#   of it will do, the CPU-only one was run; seen with torch 2.14.1 too.)
# Source: keras/src/backend/torch/random.py, torch_seed_generator; its comment
#   says only that each call of ONE generator gets a distinct seed.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check keras==3.15.1 torch==2.13.0 jax==0.7.2 jaxlib==0.7.2 numpy==2.3.5
cd "$work"
cat > check.py <<'PY'
import os
import subprocess
import sys

if len(sys.argv) == 1:
    got = {}
    for backend in ("torch", "jax"):
        env = dict(os.environ, KERAS_BACKEND=backend)
        out = subprocess.run([sys.executable, __file__, backend], env=env, check=True,
                             capture_output=True, text=True).stdout
        print(out, end="")
        got[backend] = out.strip().splitlines()[-1].split(":")[1].split()
    assert got["jax"] == ["0", "0"], "the control changed"
    assert got["torch"] == ["54", "19"], "torch seeds no longer overlap as s + k"
    print("HOLDS: on torch, nearby seeds are one stream at different offsets")
    raise SystemExit

import keras
import numpy as np

print("keras", keras.__version__, "backend", keras.backend.backend(),
      __import__(keras.backend.backend()).__version__, "numpy", np.__version__)


def draws(seed, n=20):
    gen = keras.random.SeedGenerator(seed)
    return [keras.ops.convert_to_numpy(keras.random.normal((16,), seed=gen)) for _ in range(n)]


all_ = {s: draws(s) for s in (0, 1, 3)}
print("fourth draw of seed 0, first of seed 3:", all_[0][3][:3], all_[3][0][:3])
same = 0
for a, b in ((0, 1), (0, 3), (1, 3)):
    same += sum(np.array_equal(all_[a][k + b - a], all_[b][k]) for k in range(20 - (b - a)))
total = 19 + 17 + 18
ones = np.ones((1, 64), "float32")
first, second = keras.layers.Dropout(0.5, seed=0), keras.layers.Dropout(0.5, seed=1)
m0 = [keras.ops.convert_to_numpy(first(ones, training=True)) for _ in range(20)]
m1 = [keras.ops.convert_to_numpy(second(ones, training=True)) for _ in range(20)]
masks = sum(np.array_equal(m0[k + 1], m1[k]) for k in range(19))
print(f"equal shifted draws (of {total}), equal shifted Dropout masks (of 19): {same} {masks}")
PY
"$work/venv/bin/python" check.py
