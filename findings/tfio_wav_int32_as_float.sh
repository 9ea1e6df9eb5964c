#!/usr/bin/env bash
# tensorflow-io: a 32-bit INTEGER wave file is read as if its bytes were floats.
#
# Expected: a wave file with format tag 1 (integer PCM), 32 bits, gives int32
#   samples (as 16-bit files give int16) or floats scaled to [-1, 1).
# Seen: AudioIOTensor and AudioIODataset announce float32, decode_wav with
#   dtype=tf.int32 is refused ("dtype mismatch"), and the float32 values that
#   come out are the integers' bit patterns: 2**30 is read as 2.0, -2**30 as
#   -2.0, the loudest positive sample as NaN, and small samples as numbers
#   around 1e-38, thus near-silence. Nothing warns.
# What helps: tf.bitcast(x, tf.int32) / 2**31 gives the true samples exactly.
# Controls: 16- and 24-bit integer files are right; a real 32-bit float
#   file is right, so bit width alone, not the format tag, picks the type.
# Versions: tensorflow-io 0.37.1, TensorFlow 2.17.1, numpy 1.26.4,
#   soundfile 0.14.0 (to write the files). Python 3.11 (3.9 to 3.11 for
#   tensorflow-io).
# Source: tensorflow/io, tensorflow_io/core/kernels/audio_wav_kernels.cc; API
#   page of tfio.audio.decode_wav (dtype: int16, int32, uint8 or float).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check tensorflow==2.17.1 tensorflow-io==0.37.1 numpy==1.26.4 soundfile==0.14.0
cd "$work"
export TF_CPP_MIN_LOG_LEVEL=3
cat > check.py <<'PY'
import numpy as np
import soundfile as sf
import tensorflow as tf
import tensorflow_io as tfio

print("tensorflow", tf.__version__, "tensorflow-io", tfio.__version__)
six = np.array([0, 2**30, -(2**30), 2**31 - 1, -(2**31), 12345678], "int32")
x = np.tile(six, 200)
sf.write("i32.wav", x, 16000, subtype="PCM_32")
sf.write("i24.wav", x, 16000, subtype="PCM_24")
sf.write("i16.wav", x, 16000, subtype="PCM_16")
sf.write("f32.wav", (x / 2.0**31).astype("float32"), 16000, subtype="FLOAT")
head = open("i32.wav", "rb").read(64)
at = head.index(b"fmt ")
tag, bits = int.from_bytes(head[at + 8:at + 10], "little"), int.from_bytes(head[at + 22:at + 24], "little")
print("i32.wav: format tag", tag, "bits", bits)
if tag == 0xFFFE:
    tag = int.from_bytes(head[at + 32:at + 34], "little")
    print("  sub-format tag", tag)
assert (tag, bits) == (1, 32)


def load(name):
    io = tfio.audio.AudioIOTensor(name)
    return io.dtype, io.to_tensor()[:, 0]


kind, got = load("i32.wav")
print("AudioIOTensor:", kind.name, got[:6].numpy(), "  true:", six / 2.0**31)
assert kind == tf.float32
assert np.array_equal(got.numpy().view("int32"), x), "no longer the bit patterns"
assert got[1] == 2.0 and np.isnan(got[3].numpy())
stream = [float(v.numpy()[0]) for v in tfio.audio.AudioIODataset("i32.wav").take(3)]
print("AudioIODataset:", stream)
assert stream == [0.0, 2.0, -2.0]
raw = tf.io.read_file("i32.wav")
try:
    tfio.audio.decode_wav(raw, dtype=tf.int32)
except tf.errors.InvalidArgumentError as e:
    print("decode_wav(dtype=tf.int32) refused:", "dtype mismatch" in str(e))
else:
    raise SystemExit("decode_wav now gives int32")
f = tfio.audio.decode_wav(raw, dtype=tf.float32)[:, 0]
fixed = tf.cast(tf.bitcast(f, tf.int32), tf.float64) / 2.0**31
assert np.array_equal(fixed.numpy(), x / 2.0**31)
print("bitcast to int32, divided by 2**31: exact")
k16, v16 = load("i16.wav")
k24, v24 = load("i24.wav")
kf, vf = load("f32.wav")
print("controls:", k16.name, k24.name, kf.name, v16[:3].numpy(), v24[:3].numpy(), vf[:3].numpy())
assert k16 == tf.int16 and list(v16[:3].numpy()) == [0, 16384, -16384]
assert k24 == tf.int32 and v24[1] == -v24[2] and int(v24[1]) in (2**22, 2**30)
assert kf == tf.float32 and list(vf[:3].numpy()) == [0.0, 0.5, -0.5]
print("HOLDS: integer 32-bit wave samples come out as float bit patterns")
PY
"$work/venv/bin/python" check.py
