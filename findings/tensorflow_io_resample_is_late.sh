#!/usr/bin/env bash
# tensorflow-io: audio.resample gives everything late, and drops as much at the end.
#
# Expected: a click at 0.5 s is at 0.5 s after resampling, to within a sample, as with
#   soxr and scipy. The output has the expected number of samples, so nothing
#   seems to be missing.
# Seen: the click comes 32 samples late at the lower of the two rates (2 ms at 16
#   kHz): the resampling filter's delay is left in. The same time is cut off at the
#   end, so the length fits. A mixture resampled with tensorflow-io and references
#   resampled with anything else are shifted against each other; a target at
#   another hop is too. keras.utils.audio_dataset_from_directory(sampling_rate=...)
#   resamples with this function.
# Control: soxr on the same input is on time.
# What helps: resample with soxr before or outside the graph.
# Versions: tensorflow-io 0.37.1 with tensorflow-cpu 2.17.1, soxr 1.1.0. Python 3.11, 3.12.
# Source: tensorflow-io's tfio.audio.resample, whose documentation says nothing of a delay
#   (tensorflow_io/python/ops/audio_ops.py, line 435); its kernel is in
#   tensorflow_io/core/kernels/audio_kernels.cc, on speex' resampler.
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
import soxr
import tensorflow as tf
import tensorflow_io as tfio

print("tensorflow", tf.__version__, "tensorflow-io", tfio.__version__, "soxr", soxr.__version__)
for rate_in, rate_out in ((48_000, 16_000), (44_100, 16_000), (32_000, 16_000), (8_000, 16_000), (16_000, 48_000)):
    click = np.zeros(rate_in, "float32")
    click[rate_in // 2] = 1.0
    late, on_time = tfio.audio.resample(click, rate_in, rate_out).numpy(), soxr.resample(click, rate_in, rate_out)
    at = [int(np.argmax(y)) for y in (late, on_time)]
    expected = rate_out / 2
    print(f"{rate_in} to {rate_out} Hz: {len(late)} and {len(on_time)} samples; the click should be at {expected:.0f}, "
          f"tensorflow-io {at[0]} ({1000 * (at[0] - expected) / rate_out:+.2f} ms), soxr {at[1]}")
    shift = 32 * max(1.0, rate_out / rate_in)
    assert len(late) == rate_out and abs(at[1] - expected) <= 1
    assert abs(at[0] - expected - shift) <= 1, (at, shift)

end = np.zeros(48_000, "float32")
end[-48:] = 1.0  # the last millisecond
late, on_time = (float(np.square(y).sum()) for y in
                 (tfio.audio.resample(end, 48_000, 16_000).numpy(), soxr.resample(end, 48_000, 16_000)))
print(f"a sound in the last millisecond: energy {late:.4f} from tensorflow-io, {on_time:.2f} from soxr")
assert late < 0.01 * on_time

tf.io.write_file("clips/a/click.wav", tf.audio.encode_wav(np.eye(1, 48_000, 24_000, dtype="float32").T, 48_000))
dataset = keras.utils.audio_dataset_from_directory(
    "clips", labels=None, batch_size=1, sampling_rate=16_000, output_sequence_length=48_000, verbose=False
)
at = int(np.argmax(next(iter(dataset)).numpy()[0, :, 0]))
print("keras", keras.__version__, "audio_dataset_from_directory, 48 kHz to 16 kHz: the click should be at 8000, is at", at)
assert at == 8032
print("As described: late by 32 samples at the lower rate.")
PY
KERAS_BACKEND=tensorflow "$work/venv/bin/python" check.py
