#!/usr/bin/env bash
# TensorFlow: `QuantizedMatMulWithBias`, a public operation, computes nothing where oneDNN is switched off.
#
# Expected: an operation that has a kernel for the CPU computes, or says what it lacks ("no kernel registered", as for
#   other operations and types that this build cannot do).
# Seen: with TF_ENABLE_ONEDNN_OPTS=0 a kernel is registered that does nothing: a graph fails with "Missing 0-th output from",
#   which names neither oneDNN nor a way out. The same program is right to the last bit with TF_ENABLE_ONEDNN_OPTS=1. TensorFlow switches oneDNN off by itself on CPUs
#   without instructions for neural networks, so the program that works on one machine fails on another.
# Control: the same products in int32 by `tf.matmul` work either way.
# What helps: TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported; catch the error where it is not ours to set.
# Versions: tensorflow 2.21.0, numpy 2.4.6, on Python 3.13; the same with 2.17.1 on 3.11. Linux on x86_64.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
  tensorflow==2.21.0 numpy==2.4.6
cd "$work"
export PYTHONNOUSERSITE=1 TF_CPP_MIN_LOG_LEVEL=3
cat > check.py <<'PY'
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
a, b = rng.integers(0, 256, (20, 64)).astype("uint8"), rng.integers(-127, 128, (64, 32)).astype("int8")
expected = a.astype("int32") @ b.astype("int32")


@tf.function(autograph=False)
def product(a, b):
    y, *_ = tf.raw_ops.QuantizedMatMulWithBias(
        a=tf.bitcast(a, tf.quint8), b=tf.bitcast(b, tf.qint8), bias=tf.zeros(32), min_a=0.0, max_a=255.0,
        min_b=-127.0, max_b=127.0, Toutput=tf.qint32, input_quant_mode="SCALED",
    )
    return tf.bitcast(y, tf.int32)


assert np.array_equal(tf.matmul(tf.constant(a.astype("int32")), tf.constant(b.astype("int32"))).numpy(), expected)
try:
    print("right" if np.array_equal(product(tf.constant(a), tf.constant(b)).numpy(), expected) else "wrong")
except tf.errors.OpError as error:
    print(next(line for line in str(error).splitlines() if line.startswith("Missing")))
PY
with="$(TF_ENABLE_ONEDNN_OPTS=1 "$work/venv/bin/python" check.py 2>/dev/null)"
without="$(TF_ENABLE_ONEDNN_OPTS=0 "$work/venv/bin/python" check.py 2>/dev/null)"
echo "with oneDNN:    $with"
echo "without oneDNN: $without"
[[ "$with" == right && "$without" == "Missing 0-th output"* ]]
echo "As described: a kernel that computes nothing."
