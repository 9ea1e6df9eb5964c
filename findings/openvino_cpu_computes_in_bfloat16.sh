#!/usr/bin/env bash
# OpenVINO: on a CPU that can, a float32 network is computed in bfloat16 unless one asks for float32.
#
# Expected: a model whose weights, inputs and outputs are float32 gives float32's numbers, to about 1e-6 of
#   their size, as onnxruntime does and as OpenVINO itself does on CPUs without bfloat16.
# Seen: on a CPU with AVX512_BF16 or AMX the default of INFERENCE_PRECISION_HINT is bfloat16. One convolution of
#   64 channels is off by 2e-3 of its largest value, a thousand times more than in float32; the output says
#   float32, and nothing is told. Embeddings of one file then depend on the kind of processor, and speeds beside
#   other runtimes compare different arithmetic.
# Control: the same model compiled with INFERENCE_PRECISION_HINT=f32 agrees with NumPy in float64.
# What helps: compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).
# Versions: openvino 2026.4.1, onnx 1.23.2, numpy 2.4.6. Python 3.11 to 3.13. On a CPU without bfloat16 there is
#   nothing to see, and the script says so.
# Source: OpenVINO's documentation of the CPU device, "Floating Point Data Types Specifics", names the default.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
  openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cd "$work"
export PYTHONNOUSERSITE=1
cat > check.py <<'PY'
import numpy as np
import onnx
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
w = (rng.standard_normal((64, 64, 3, 3)) / 24).astype("float32")
x = rng.standard_normal((1, 64, 32, 32)).astype("float32")
info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
graph = helper.make_graph([node], "one convolution", info[:1], info[1:], [numpy_helper.from_array(w, "w")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "conv.onnx")

padded = np.pad(x[0].astype("float64"), ((0, 0), (1, 1), (1, 1)))
windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
expected = np.einsum("ihwkl,oikl->ohw", windows, w.astype("float64"))

core = ov.Core()
print("openvino", ov.__version__, "on", core.get_property("CPU", "FULL_DEVICE_NAME"))
if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
    print("This CPU has no bfloat16: there is nothing to see.")
    raise SystemExit
off = {}
for hint in ("the default", "f32"):
    model = core.compile_model("conv.onnx", "CPU", {} if hint == "the default" else {"INFERENCE_PRECISION_HINT": hint})
    y = model(x)[0]
    off[hint] = float(np.abs(y[0] - expected).max() / np.abs(expected).max())
    kind = model.get_property("INFERENCE_PRECISION_HINT").to_string()
    print(f"{hint}: computes in {kind}, gives {y.dtype}, off by {off[hint]:.1e} of the largest value")
assert off["f32"] < 1e-5 < 5e-4 < off["the default"], off
print("As described: bfloat16 by default.")
PY
"$work/venv/bin/python" check.py
