#!/usr/bin/env bash
# Keras: audio_dataset_from_directory cuts clips before it resamples them, so they come
# out shorter than one asks for.
#
# Expected: sampling_rate=16000 and output_sequence_length=16000 give clips of 16,000
#   samples, one second at the rate asked for, whatever rate the files have.
# Seen: files of 48 kHz are cut to 16,000 samples at their own rate, a third of a second,
#   and then resampled: the batches hold 5,333 samples, and what comes later in each
#   file is never trained on. Files of 8 kHz, padded to 16,000 samples first, come out as
#   two seconds, half of it silence. Nothing warns; a network that pools over time
#   trains on. With output_sequence_length left out, where the
#   documentation promises padding to the longest clip of the batch, sampling_rate
#   ends in a ValueError.
# Controls: without sampling_rate the clips have 16,000 samples; with
#   output_sequence_length=48000, the second at the files' own rate, 16,000 come out.
# What helps: give output_sequence_length at the rate of the files, all of one
#   rate; or resample files before.
# Versions: keras 3.15.1, tensorflow-cpu 2.17.1, tensorflow-io 0.37.1. Python 3.11, 3.12.
# Source: keras/src/utils/audio_dataset_utils.py, read_and_decode_audio, and the
#   docstring of audio_dataset_from_directory (`sampling_rate`, `output_sequence_length`).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
pins="absl-py==2.5.1 astunparse==1.6.3 certifi==2026.10.19.post1 charset-normalizer==3.5.3
  flatbuffers==25.12.19 gast==0.7.0 google-pasta==0.2.0 grpcio==1.85.3 h5py==3.16.0 idna==3.20 keras==3.15.1
  libclang==18.1.1 Markdown==3.11.3 markdown-it-py==4.3.0 MarkupSafe==3.0.4 mdurl==0.1.2 ml-dtypes==0.4.1
  namex==0.1.0 numpy==1.26.4 opt_einsum==3.4.0 optree==0.20.0 packaging==26.4 protobuf==4.25.9
  Pygments==2.21.0 requests==2.34.2 rich==15.0.0 six==1.17.0 soxr==1.1.0 tensorboard==2.17.1
  tensorboard-data-server==0.7.2 tensorflow-cpu==2.17.1 tensorflow-io==0.37.1
  tensorflow-io-gcs-filesystem==0.37.1 termcolor==3.3.0 typing_extensions==4.16.0 urllib3==2.8.0
  Werkzeug==3.1.9 wrapt==2.5.2"
# shellcheck disable=SC2086
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: $pins
cd "$work"
export PYTHONNOUSERSITE=1 TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= KERAS_HOME="$work"
cat > check.py <<'PY'
import keras
import numpy as np
import tensorflow as tf
import tensorflow_io as tfio

print("keras", keras.__version__, "tensorflow", tf.__version__, "tensorflow-io", tfio.__version__)
for rate in (48_000, 8_000):
    # Two tones, one in each half of the second.
    time = np.arange(rate) / rate
    tone = np.where(time < 0.5, np.sin(2 * np.pi * 500 * time), np.sin(2 * np.pi * 2000 * time)) / 2
    for number in range(2):
        path = f"clips{rate}/a/{number}.wav"
        tf.io.write_file(path, tf.audio.encode_wav(tone.astype("float32")[:, None], rate))


def batch(rate, **options):
    dataset = keras.utils.audio_dataset_from_directory(
        f"clips{rate}", labels=None, batch_size=2, shuffle=False, verbose=False, **options
    )
    return next(iter(dataset)).numpy()[:, :, 0]


def loudest(clip):
    return float(np.argmax(np.abs(np.fft.rfft(clip))) * 16_000 / len(clip))


plain = batch(48_000, output_sequence_length=16_000)
short = batch(48_000, output_sequence_length=16_000, sampling_rate=16_000)
long = batch(8_000, output_sequence_length=16_000, sampling_rate=16_000)
whole = batch(48_000, output_sequence_length=48_000, sampling_rate=16_000)
print("48 kHz files, output_sequence_length=16000, no sampling_rate:", plain.shape)
print("48 kHz files, output_sequence_length=16000, sampling_rate=16000:", short.shape)
print(" 8 kHz files, output_sequence_length=16000, sampling_rate=16000:", long.shape,
      f"of which silent {np.mean(np.abs(long) < 1e-3):.0%}")
print("48 kHz files, output_sequence_length=48000, sampling_rate=16000:", whole.shape)
print("loudest frequency in the second half of a clip:", loudest(short[0, len(short[0]) // 2 :]), "Hz; of the whole second",
      loudest(whole[0, 8000:]), "Hz")
assert plain.shape == (2, 16_000) and whole.shape == (2, 16_000)
assert short.shape in ((2, 5333), (2, 5334)), short.shape
assert long.shape == (2, 32_000) and np.mean(np.abs(long) < 1e-3) > 0.45
assert abs(loudest(short[0, 2667:]) - 500) < 10 and abs(loudest(whole[0, 8000:]) - 2000) < 10
try:
    batch(48_000, sampling_rate=16_000)
except ValueError as error:
    print("output_sequence_length left out:", str(error).splitlines()[0][:90])
else:
    raise AssertionError("sampling_rate without output_sequence_length now works")
print("As described: cut or padded first, resampled afterwards.")
PY
KERAS_BACKEND=tensorflow "$work/venv/bin/python" check.py
