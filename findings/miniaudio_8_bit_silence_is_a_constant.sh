#!/usr/bin/env bash
# miniaudio: the silence of an 8-bit WAV is a constant of 0.0039 when it is read as floats.
#
# Expected: byte 128, the middle of an 8-bit WAV, is 0 in every output format.
# Seen: decode_file and wav_read_file_f32 spread bytes 0 to 255 over -1 to 1, whose middle is 127.5: silence becomes
#   1/255 = 0.0039 (-48 dB), so no passage of such a file is silent, and all of it has an offset. As 16-bit or 32-bit
#   integers the same bytes are 0.
# Control: soundfile reads 0; WAVs of 16, 24 and 32 bits are silent in miniaudio too.
# What helps: SampleFormat.SIGNED16, divided by 32768.
# Versions: miniaudio 1.71, soundfile 0.14.0, numpy 2.5.5. Python 3.12 and 3.13.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  miniaudio==1.71 soundfile==0.14.0 numpy==2.5.5
cd "$work"
cat > check.py <<'PY'
import miniaudio
import numpy as np
import soundfile

formats = {"floats": miniaudio.SampleFormat.FLOAT32, "16-bit integers": miniaudio.SampleFormat.SIGNED16,
           "32-bit integers": miniaudio.SampleFormat.SIGNED32}
for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32"):
    soundfile.write("silence.wav", np.zeros(16000), 16000, subtype=subtype)
    assert not soundfile.read("silence.wav")[0].any()
    for name, wanted in formats.items():
        decoded = miniaudio.decode_file("silence.wav", output_format=wanted, nchannels=1, sample_rate=16000)
        (value,) = np.unique(np.asarray(decoded.samples))
        print(f"{subtype} as {name}: {value:.6f}")
        offset = subtype == "PCM_U8" and name == "floats"
        assert abs(value - (1 / 255 if offset else 0)) < 1e-6
assert abs(miniaudio.wav_read_file_f32("silence.wav").samples[0]) < 1e-6
soundfile.write("silence.wav", np.zeros(16000), 16000, subtype="PCM_U8")
assert abs(miniaudio.wav_read_file_f32("silence.wav").samples[0] - 1 / 255) < 1e-6
PY
"$work/venv/bin/python" check.py
echo "As described: 8-bit silence is not silent."
