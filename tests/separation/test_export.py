"""The separator exported: what another program computes from the file is what Keras computes."""

import importlib.util

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from litert import run_litert

from sepcl_keras.core.checks import BadInput
from sepcl_keras.separation.export import export_separator
from sepcl_keras.separation.network import TDCNPlusPlus

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="written by Keras on TensorFlow")
SIZES = dict(num_basis=40, bottleneck=24, hidden=48, dilations=(1, 2, 4), repeats=2)


def made(**options):
    """A separator none of whose weights is as it begins: one that is left out would be found."""
    separator, rng = TDCNPlusPlus(**SIZES | options), np.random.default_rng(2)
    separator.build((None, None))
    for weight in separator.weights:
        weight.assign(to_numpy(weight) * rng.uniform(0.8, 1.2, weight.shape) + 0.05)
    return separator


def sounds(clips, samples):
    return (0.3 * np.random.default_rng(samples).standard_normal((clips, samples))).astype("float32")


@pytest.mark.parametrize(
    "options",
    [{}, {"num_sources": 3, "consistency": "energy"}, {"long_skips": True, "kernel_size": 4},
     {"consistency": "uniform", "frame_step": 15}, {"frame_step": 40}],
    ids=str,
)  # fmt: skip
def test_onnxruntime_gives_what_keras_gives_at_any_length_and_batch(options, tmp_path, capfd):
    import onnx
    import onnxruntime

    separator, path = made(**options), tmp_path / "separator.onnx"
    export_separator(separator, path)
    assert [each.name for each in tmp_path.iterdir()] == ["separator.onnx"] and not capfd.readouterr().out
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for clips, samples in ((1, 4000), (3, 1237), (2, 41), (1, 40), (2, 7)):
        mixtures = sounds(clips, samples)
        (channels,) = session.run(["channels"], {"mixture": mixtures})
        expected = to_numpy(separator(mixtures))
        assert channels.shape == expected.shape == (clips, separator.config["num_sources"], samples)
        np.testing.assert_allclose(channels, expected, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_allclose(channels.sum(axis=1), mixtures, atol=1e-5)
    mixtures = sounds(2, 900)  # each clip by itself, silence as silence
    mixtures[1] = 0
    (channels,) = session.run(None, {"mixture": mixtures})
    np.testing.assert_allclose(channels[:1], to_numpy(separator(mixtures[:1])), atol=1e-4)
    np.testing.assert_allclose(channels[1].sum(axis=0), 0, atol=1e-6)


@on_tensorflow
@pytest.mark.parametrize("format", ["saved_model", "litert", "litert_int8"])
@pytest.mark.parametrize("options", [{}, {"num_sources": 3, "consistency": "energy", "long_skips": True}], ids=str)
def test_tensorflow_and_litert_give_what_keras_gives_at_any_length_and_batch(format, options, tmp_path):
    import tensorflow as tf

    separator, path = made(**options), tmp_path / "separator"
    export_separator(separator, path, format)
    assert [each.name for each in tmp_path.iterdir()] == ["separator"]
    loaded = tf.saved_model.load(str(path)) if format == "saved_model" else None
    for clips, samples in ((1, 4000), (3, 1237), (2, 41), (1, 40), (2, 7)):
        mixtures = sounds(clips, samples)
        channels = loaded.serve(mixtures).numpy() if loaded else run_litert(path, "mixture", mixtures)["channels"]
        expected = to_numpy(separator(mixtures))
        assert channels.shape == expected.shape == (clips, separator.config["num_sources"], samples)
        np.testing.assert_allclose(channels.sum(axis=1), mixtures, atol=1e-5)
        if format != "litert_int8":
            np.testing.assert_allclose(channels, expected, atol=1e-4 * np.abs(expected).max())
        else:
            cosine = np.sum(channels * expected) / np.linalg.norm(channels) / np.linalg.norm(expected)
            assert cosine > (0.999 if samples > 1_000 else 0.97)  # measured: 0.9999 and 0.98


@on_tensorflow
def test_one_of_half_precision_is_written_in_float32(tmp_path):
    separator, half = made(), TDCNPlusPlus(**SIZES, dtype="mixed_bfloat16")
    half.build((None, None))
    half.set_weights(separator.get_weights())
    export_separator(half, tmp_path / "separator.tflite", "litert")
    mixtures = sounds(1, 1_000)
    channels = run_litert(tmp_path / "separator.tflite", "mixture", mixtures)["channels"]
    np.testing.assert_allclose(channels, to_numpy(separator(mixtures)), atol=1e-5)
    assert half.dtype_policy.name == "mixed_bfloat16"


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="about other backends")
def test_what_tensorflow_makes_is_refused_elsewhere(tmp_path):
    with pytest.raises(BadInput, match="a litert, but Keras runs on .*; expected KERAS_BACKEND=tensorflow"):
        export_separator(made(), tmp_path / "separator", "litert")


def test_one_that_is_not_built_is_built(tmp_path):
    separator = TDCNPlusPlus(**SIZES)
    export_separator(separator, tmp_path / "new.onnx")
    assert separator.built and (tmp_path / "new.onnx").stat().st_size > 4 * separator.count_params()


def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch):
    separator, taken = TDCNPlusPlus(**SIZES), tmp_path / "taken.onnx"
    taken.write_bytes(b"mine")
    with pytest.raises(BadInput, match="taken.onnx: expected a path where nothing is yet"):
        export_separator(separator, taken)
    assert taken.read_bytes() == b"mine"
    with pytest.raises(BadInput, match="a dict; expected a TDCNPlusPlus"):
        export_separator({}, tmp_path / "new.onnx")
    with pytest.raises(BadInput, match="path=3: expected a path"):
        export_separator(separator, 3)
    with pytest.raises(BadInput, match="expected"):
        export_separator(separator, taken / "inside.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="needs the package onnx"):
        export_separator(separator, tmp_path / "new.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.onnx"]
