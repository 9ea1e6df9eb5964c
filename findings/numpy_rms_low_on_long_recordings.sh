#!/usr/bin/env bash
# numpy-rms: the root mean square of a long recording comes out too low.
#
# Expected: numpy_rms.rms, which audiomentations takes to set levels, agrees with NumPy to single precision whatever
#   the length; summing in pairs or in double precision costs little.
# Seen: what a long recording adds is rounded away, as if squares were added in single precision in eight running sums,
#   an AVX register (with fewer sums the error would be larger). Noise with an RMS of 0.1 is right within 0.002 % after 1 M samples, 0.04 % too low after 10 M, 0.5 % after 60 M, 2.3 % after an
#   hour at 48 kHz (173 M). A day at 8 kHz (691 M, not run here) was 13 % too low, 1.2 dB.
# Control: NumPy's own mean of squares in float32, of the same array, is right within a millionth.
# What helps: np.sqrt(np.mean(x * x)), or blocks.
# Versions: numpy-rms 0.7.0, numpy 2.5.5, on x86-64 with AVX. Python 3.12 and 3.13. Needs 2 GB of memory.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: numpy-rms==0.7.0 numpy==2.5.5
cd "$work"
cat > check.py <<'PY'
import numpy as np
import numpy_rms

block = (0.1 * np.random.default_rng(0).standard_normal(1_000_000)).astype("float32")
true, ratios = np.sqrt(np.mean(block.astype("float64") ** 2)), {}
for millions in (1, 10, 60, 173):
    x = np.tile(block, millions)
    ratios[millions] = float(numpy_rms.rms(x)[0] / true)
    plain = float(np.sqrt(np.mean(x * x)) / true)
    print(f"{millions} M samples: {100 * (ratios[millions] - 1):+.4f} %, by NumPy {100 * (plain - 1):+.6f} %")
    assert abs(plain - 1) < 1e-6
# Other registers hold other numbers of sums, so only that the error grows is held.
assert abs(ratios[1] - 1) < 1e-3
assert 0 < 1 - ratios[10] < 1 - ratios[60] < 1 - ratios[173] and 1 - ratios[173] > 0.005
PY
"$work/venv/bin/python" check.py
echo "As described: the longer a recording, the lower its RMS."
