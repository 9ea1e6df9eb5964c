#!/usr/bin/env bash
# pyloudnorm: a steady tone is quieter by 0.22 LU when it lasts 0.46 s than when it lasts 0.40 s or 0.50 s.
#
# Expected: ITU-R BS.1770 measures whole blocks of 0.4 s, one each 0.1 s, and leaves out an incomplete one at the end. So
#   a steady tone has one loudness, whatever its length from 0.4 s on.
# Seen: the number of blocks is rounded, not cut. Where the length is nearer to the next tenth of a second above, the last
#   block reaches beyond the end and yet is divided by its full length. A 997 Hz tone of -3.08 LUFS reads -3.31 at
#   0.46 s, -3.23 at 0.56 s, -3.14 at 1.06 s, -3.10 at 3.06 s; at 0.44 s, nearer to the tenth below, it reads -3.08. A clip
#   that is brought to a level by it comes out too loud by as much.
# Control: the same tone cut to whole tenths of a second reads -3.08 at each length, and loudness 0.2.0 gives the tone one
#   value (-2.95 at 16 kHz) at all of them.
# What helps: that library, or clips cut to a whole number of tenths of a second, 0.4 s or more, before they are measured.
# Versions: pyloudnorm 0.2.0, loudness 0.2.0, numpy 2.4.6, scipy 1.17.1. Python 3.11 to 3.13.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
    pyloudnorm==0.2.0 loudness==0.2.0 numpy==2.4.6 scipy==1.17.1
cd "$work"
cat > check.py <<'PY'
import loudness
import numpy as np
import pyloudnorm

RATE = 16_000
meter = pyloudnorm.Meter(RATE)


def measured(hundredths):
    time = np.arange(hundredths * RATE // 100) / RATE
    return float(meter.integrated_loudness(np.sin(2 * np.pi * 997 * time)))


def by_the_other(hundredths):
    time = np.arange(hundredths * RATE // 100) / RATE
    return float(loudness.integrated_loudness(np.sin(2 * np.pi * 997 * time).astype("float32"), RATE))


lengths = (44, 46, 50, 56, 106, 306)
found = {each: measured(each) for each in lengths}
whole = {each: measured(each // 10 * 10) for each in lengths}
for each in lengths:
    print(f"{each / 100:.2f} s: {found[each]:.2f} LUFS; its whole tenths of a second: {whole[each]:.2f} LUFS")
steady, other = measured(40), by_the_other(40)
assert all(abs(by_the_other(each) - other) < 0.005 for each in lengths)
assert all(abs(value - steady) < 0.005 for value in (*whole.values(), found[44], found[50]))
assert abs(found[46] - steady + 0.22) < 0.02 and abs(found[56] - steady + 0.15) < 0.02
assert found[46] < found[56] < found[106] < found[306] < steady - 0.01
PY
"$work/venv/bin/python" check.py
echo "As described: between tenths of a second a tone reads quieter."
