#!/usr/bin/env bash
# onnxruntime: the operator DFT (and STFT) loses digits at lengths that are no power of
# two, up to a half per cent for a second of sound.
#
# Expected: a float32 Fourier transform is right to about 1e-7 of its largest value at
#   each length, as NumPy's in float32 is; ONNX's operator says nothing of lengths.
# Seen: at powers of two the error is about 1e-6. At other lengths it grows
#   with the length: 1e-5 at 400 (25 ms at 16 kHz), 1e-3 at 16,000, 4e-3 at 44,100. The
#   chirp of Bluestein's method is computed from n * n in single precision. A loud
#   tone thus lays a floor under quiet bands, which the logarithm of a log-mel
#   front-end shows.
# Controls: (a) powers of two next to each length; (b) NumPy's rfft in float32.
# What helps: zero-pad to a power of two (400 in a transform of 512), or write the
#   transform as a convolution with cosines and sines made in double precision.
# Versions: onnxruntime 1.32.0 (CPU), onnx 1.23.2, numpy 2.3.5. Python 3.11 to 3.13.
# Source: onnxruntime/core/providers/cpu/signal/dft.cc, dft_bluestein_z_chirp; it came with
#   onnxruntime pull request 15522. Pull request 32457 tells of a like loss in
#   another part.
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
from onnx import TensorProto, helper

print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__, "numpy", np.__version__)


def dft(x):
    """The one-sided spectrum of a real signal (n,) by onnxruntime."""
    graph = helper.make_graph(
        [helper.make_node("DFT", ["x"], ["y"], axis=1, onesided=1)], "dft",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, len(x), 1))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, len(x) // 2 + 1, 2))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": x[None, :, None]})[0][0]
    return y[:, 0] + 1j * y[:, 1]


rng = np.random.default_rng(0)
errors = {}
for n in (256, 400, 512, 1000, 1024, 4096, 4410, 16_000, 16_384, 44_100, 65_536):
    x = rng.normal(size=n).astype("float32")
    exact = np.fft.rfft(x.astype("float64"))
    single = np.fft.rfft(x)
    assert single.dtype == np.complex64
    errors[n], by_numpy = (float(np.abs(y - exact).max() / np.abs(exact).max()) for y in (dft(x), single))
    print(f"length {n:6d}: largest error, as a share of the largest value: onnxruntime {errors[n]:.1e}, "
          f"NumPy in float32 {by_numpy:.1e}")
    assert by_numpy < 1e-6
for n, error in errors.items():
    if n & (n - 1) == 0:
        assert error < 5e-6, (n, error)
assert errors[400] > 5e-6 and errors[16_000] > 3e-4 and errors[44_100] > 1e-3, errors

tone = (np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000) * np.blackman(16_000)).astype("float32")
far = slice(2000, 8001)  # Hz, far from the tone
floors = {}
for name, spectrum in (("onnxruntime", dft(tone)), ("NumPy in float32", np.fft.rfft(tone))):
    level = np.abs(spectrum)
    floors[name] = 20 * np.log10(level[far].max() / level.max())
    print(f"a second of a windowed tone of 1 kHz at 16 kHz: loudest bin above 2 kHz, {name}: {floors[name]:.0f} dB")
assert floors["onnxruntime"] > floors["NumPy in float32"] + 20, floors
print("As described: digits are lost at lengths that are no power of two.")
PY
"$work/venv/bin/python" check.py
