#!/usr/bin/env bash
# scikit-maad: a WAV of 8 bits is loaded at half its amplitude.
#
# Expected: maad.sound.load gives samples between -1 and 1 whatever the number of bits, so that a file saved
#   at 8 bits differs from the same at 16 bits by rounding only. Sound pressure levels, and the ecoacoustic
#   indices made of them, start from these samples.
# Seen: an 8-bit sample, of which 256 steps span -1 to 1, is divided by 256 instead of 128: a sine with an
#   amplitude of 0.5 has 0.25, and its level is 6.0 dB too low.
# Control: 16, 24 and 32 bits and floats agree with soundfile within a step.
# What helps: soundfile.read, whose samples scikit-maad's functions take as well.
# Versions: scikit-maad 1.5.2, scipy 1.16.3, soundfile 0.14.0, numpy 2.3.5. Python 3.11 to 3.13.
# Source: maad/sound/input_output.py, load: "as it's unsigned".
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
  scikit-maad==1.5.2 scipy==1.16.3 soundfile==0.14.0 numpy==2.3.5
cd "$work"
cat > check.py <<'PY'
import numpy as np
import soundfile
from maad import sound

rate = 16000
x = 0.5 * np.sin(2 * np.pi * 400 * np.arange(rate) / rate)
level = {}
for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"):
    soundfile.write("a.wav", x, rate, subtype=subtype)
    theirs, loaded_rate = sound.load("a.wav")
    plain = soundfile.read("a.wav")[0]
    assert loaded_rate == rate and theirs.shape == x.shape
    level[subtype] = float(10 * np.log10(np.mean(theirs**2)))
    step = 2 ** -7 if subtype == "PCM_U8" else 2 ** -15
    print(f"{subtype}: amplitude {np.abs(theirs).max():.4f}, by soundfile {np.abs(plain).max():.4f}, level {level[subtype]:.2f} dB")
    if subtype == "PCM_U8":
        assert np.abs(plain - x).max() < step and np.abs(2 * theirs - x).max() < step
    else:
        assert np.abs(theirs - x).max() < step
assert 5.5 < level["PCM_16"] - level["PCM_U8"] < 6.5
PY
"$work/venv/bin/python" -W ignore check.py
echo "As described: 8 bits were half as loud."
