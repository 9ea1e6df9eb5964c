"""Products of matrices in half precision: the nearest numbers on every device."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras import ops

from sepcl_keras.core.dense import Dense
from sepcl_keras.separation.blocks import PReLUNorm, ScaledDense


@pytest.mark.parametrize("in_a_graph", [False, True])
@pytest.mark.parametrize("kind", [Dense, ScaledDense])
def test_a_product_in_bfloat16_is_the_nearest_number(kind, in_a_graph):
    r = np.random.default_rng(0)
    # Numbers that bfloat16 holds, and few enough of them that float32 adds them up without rounding.
    x, kernel = (np.round(16 * r.uniform(-1, 1, shape)) / 16 for shape in ((3, 50, 40), (40, 30)))
    call = layer = kind(30, use_bias=False, dtype="mixed_bfloat16")
    layer.build(x.shape)
    getattr(layer, "dense", layer).kernel.assign(kernel)
    if in_a_graph and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        call = tf.function(layer, autograph=False)
    y, nearest = call(ops.cast(x, "bfloat16")), ops.cast(x @ kernel, "bfloat16")
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    np.testing.assert_array_equal(*(ops.convert_to_numpy(ops.cast(each, "float32")) for each in (y, nearest)))


@pytest.mark.once
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="oneDNN is TensorFlow's to leave out")
def test_also_where_tensorflow_has_no_instructions_for_bfloat16():
    here = ROOT / "tests"
    tests = [
        "separation/test_blocks.py::test_a_product_in_bfloat16_is_the_nearest_number",
        "encoder/test_kernels.py::test_half_precision_is_about_as_exact_as_kerass_convolution",
        "training/test_loop.py::test_half_precision_trains_with_losses_in_float32[separation-mixed_bfloat16]",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(here / test) for test in tests)],
        # Without oneDNN TensorFlow computes on any CPU as it does on one without AVX-512.
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_what_hardly_changes_is_normalised_and_not_lost():
    """On torch the mean square less the squared mean is below zero here, by more than the epsilon."""
    x = (300 + 0.01 * np.random.default_rng(0).standard_normal((4, 500, 16))).astype("float32")
    layer = PReLUNorm()
    x64 = x.astype("float64")
    expected = (x64 - x64.mean(axis=1, keepdims=True)) / np.sqrt(x64.var(axis=1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, atol=0.02)
