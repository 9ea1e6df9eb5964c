#!/usr/bin/env bash
# soxr: 16-bit samples come back with noise added, even silence, even at equal rates.
#
# Expected: resampling silence gives silence; from a rate to the same one nothing
#   changes; and 16-bit input gives what float input gives, rounded.
# Seen: for int16 arrays soxr.resample (and ResampleStream) dithers its output. Digital
#   silence gets values of -1, 0 and 1; a constant wavers; 16 kHz to 16 kHz changes
#   about one sample in four. So a test for exact silence (padding, dropouts,
#   duplicates by hash) fails after resampling, and the error against float is larger
#   than rounding makes. Neither the docstring of resample nor the manual
#   tells of dither or offers to leave it out. The noise is the same in each
#   run.
# Control: the same arrays as float32: silence stays exactly zero, equal rates
#   change nothing to speak of.
# What helps: hand soxr floats, and round afterwards.
# Versions: soxr 1.1.0, numpy 2.3.5. Python 3.11 to 3.13.
# Source: soxr's documentation of resample; python-soxr pull request 12 and issue 11
#   treat details of the dither.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
pins="numpy==2.3.5 soxr==1.1.0"
# shellcheck disable=SC2086
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: $pins
cd "$work"
export PYTHONNOUSERSITE=1 TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= KERAS_HOME="$work"
cat > check.py <<'PY'
import numpy as np
import soxr

print("soxr", soxr.__version__, "numpy", np.__version__)


def kinds(x):
    values, counts = np.unique(x, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist()))


silence = np.zeros(44_100, "int16")
for rates in ((44_100, 16_000), (16_000, 16_000)):
    found, again = soxr.resample(silence, *rates), soxr.resample(silence, *rates)
    as_float = soxr.resample(silence.astype("float32"), *rates)
    print(rates, "silence as int16 gives", kinds(found), "- as float32", kinds(as_float))
    assert found.dtype == np.int16 and set(kinds(found)) == {-1, 0, 1} and (found == again).all()
    assert (found != 0).mean() > 0.1
    assert not as_float.any()

tone = np.round(1000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype("int16")
same = soxr.resample(tone, 16_000, 16_000)
same_float = soxr.resample(tone.astype("float32"), 16_000, 16_000)
print("16 kHz to 16 kHz: int16 samples changed", f"{(same != tone).mean():.1%}",
      "- largest change of float32", np.abs(same_float - tone).max())
assert (same != tone).mean() > 0.1 and np.abs(same_float - tone).max() < 0.01

exact = soxr.resample(tone.astype("float64"), 16_000, 11_025)
error = (soxr.resample(tone, 16_000, 11_025) - exact)[200:-200]
print(f"16 kHz to 11.025 kHz: error of int16 {error.std():.3f} steps; rounding alone is {12**-0.5:.3f}")
assert error.std() > 1.4 * 12**-0.5

stream = soxr.ResampleStream(44_100, 16_000, 1, dtype="int16")
print("ResampleStream, silence as int16:", kinds(stream.resample_chunk(silence, last=True)))
print("As described: 16-bit output is dithered; float output is not.")
PY
"$work/venv/bin/python" check.py
