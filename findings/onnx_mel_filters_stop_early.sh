#!/usr/bin/env bash
# ONNX: MelWeightMatrix's filters end below the upper edge one asks for.
#
# Expected: the operator's bands fill the range [lower_edge_hertz, upper_edge_hertz] on
#   the mel scale, as its documentation says: the first filter begins at the
#   lower edge and the last one ends at the upper, as tf.signal, torchaudio and librosa
#   have it.
# Seen: the range is divided into num_mel_bins + 2 steps instead of num_mel_bins + 1. The
#   last filter ends one step early: with 64 bands up to 7,500 Hz at 7.2 kHz, with 8 up
#   to 8 kHz at 6 kHz. All filters sit too low, by more the higher they are. A tone
#   inside the range, above that, is in no band at all. In addition the edges are put on
#   whole bins. An encoder that was trained on true HTK mels hears another sound.
#   onnx's reference and onnxruntime agree with each other.
# Control: the same triangles from the operator's own formula for mel, with
#   num_mel_bins + 1 steps: they reach the upper edge.
# What helps: store the matrix that training used as a constant in the graph.
# Versions: onnx 1.23.2, onnxruntime 1.32.0, numpy 2.3.5. Python 3.11 to 3.13.
# Source: the operator's page, onnx.ai/onnx/operators/onnx__MelWeightMatrix.html;
#   onnx/reference/ops/op_mel_weight_matrix.py (`mel_step`).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
pins="flatbuffers==25.12.19 ml_dtypes==0.6.0 numpy==2.3.5 onnx==1.23.2 onnxruntime==1.32.0
  packaging==26.4 protobuf==7.36.2 typing_extensions==4.16.0"
# shellcheck disable=SC2086
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: $pins
cd "$work"
export PYTHONNOUSERSITE=1 TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= KERAS_HOME="$work"
cat > check.py <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "numpy", np.__version__)


def by_onnx(bands, fft, rate, low, high):
    values = [np.array(v, "int64") for v in (bands, fft, rate)] + [np.array(v, "float32") for v in (low, high)]
    names = ["bands", "fft", "rate", "low", "high"]
    graph = helper.make_graph(
        [helper.make_node("MelWeightMatrix", names, ["y"])], "mel", [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (fft // 2 + 1, bands))],
        [numpy_helper.from_array(v, name) for v, name in zip(values, names)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found, reference = session.run(None, {})[0], ReferenceEvaluator(model).run(None, {})[0]
    assert np.array_equal(found, reference), "onnxruntime and onnx's reference no longer agree"
    return found


def mel(hertz):
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def triangles(bands, fft, rate, low, high):
    """Filters (bins, bands), straight in mel, whose edges are bands + 1 equal steps apart."""
    edges = np.linspace(mel(low), mel(high), bands + 2)
    bins = mel(np.arange(fft // 2 + 1) * rate / fft)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    return np.maximum(0, np.minimum(rising, (edges[2:] - bins) / (edges[2:] - edges[1:-1])))


for size in ((8, 512, 16_000, 0.0, 8000.0), (64, 512, 16_000, 125.0, 7500.0), (128, 2048, 44_100, 0.0, 16_000.0)):
    bands, fft, rate, low, high = size
    found, expected = by_onnx(*size), triangles(*size)
    tops = [float(np.flatnonzero(m.any(axis=1))[-1] * rate / fft) for m in (found, expected)]
    peaks = [float(np.argmax(m[:, -1]) * rate / fft) for m in (found, expected)]
    step = (mel(high) - mel(low)) / (bands + 2)
    early = float(700 * (10 ** ((mel(high) - step) / 2595) - 1))
    print(f"{bands} bands, {low:.0f} to {high:.0f} Hz: the last filter ends at {tops[0]:.0f} Hz, peak {peaks[0]:.0f} Hz; "
          f"with {bands + 1} steps at {tops[1]:.0f} Hz, peak {peaks[1]:.0f} Hz")
    assert tops[1] >= high - 2 * rate / fft
    assert early - 3 * rate / fft <= tops[0] <= early, (tops, early)

found, expected = (f(64, 512, 16_000, 125.0, 7500.0) for f in (by_onnx, triangles))
tone = np.abs(np.fft.rfft(np.sin(2 * np.pi * 7375 * np.arange(512) / 16_000)))
level = [float((tone @ m).max()) for m in (found, expected)]
print(f"a tone of 7,375 Hz, inside the range: loudest band {level[0]:.2e} by ONNX, {level[1]:.1f} with 65 steps")
assert level[0] < 1e-6 * level[1]
print("As described: the filters end one step below the upper edge.")
PY
"$work/venv/bin/python" check.py
