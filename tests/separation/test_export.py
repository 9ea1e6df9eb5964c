"""The separator as ONNX: what another program computes from the file is what Keras computes."""

import importlib.util

import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.separation.export import export_separator
from sepcl_keras.separation.network import TDCNPlusPlus

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
