"""Exports, each run by its own program: the same numbers from an ONNX file, a SavedModel and a LiteRT file."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from litert import run_litert

from sepcl_keras.core import exports
from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder import export
from sepcl_keras.encoder.embedding import embed
from sepcl_keras.encoder.export import export_encoder
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.views.log_mel import LogMel

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="a SavedModel is written on TensorFlow")


EACH = pytest.mark.parametrize("recipe", ["vggish", "panns"])


@pytest.fixture
def encoder(small_encoder):
    return small_encoder


@pytest.fixture(scope="module")
def encoders(small_encoder, panns_encoder):
    return {"vggish": small_encoder, "panns": panns_encoder}


@pytest.fixture(scope="module")
def waveforms():
    """Seven clips (7, 15,600): noise from silence to full scale, and tones, far from which next to nothing is."""
    noise = np.random.default_rng(0).standard_normal((5, 15_600)) * [[0.0], [1e-4], [1e-2], [0.1], [0.3]]
    tones = np.sin(2 * np.pi * np.array([[440.0], [3_000.0]]) * np.arange(15_600) / 16_000)
    return np.concatenate([noise, tones]).astype("float32")


def given(inputs, waveforms, recipe):
    return waveforms if inputs == "waveforms" else to_numpy(LogMel(recipe)(waveforms))


FORMATS = ["onnx", *(pytest.param(each, marks=on_tensorflow) for each in ("saved_model", "litert"))]


def run(path, format, inputs, batch):
    if format == "onnx":
        return run_onnx(path, inputs, batch)
    if format == "saved_model":
        import tensorflow as tf

        loaded = tf.saved_model.load(str(path))  # kept: its function does not hold its weights
        return loaded.serve(batch).numpy()
    return run_litert(path, inputs, batch)["h"]


def run_onnx(path, inputs, batch):
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (h,) = session.run(None, {inputs: batch})
    return h


@EACH
@pytest.mark.parametrize("inputs", ["waveforms", "log_mel"])
@pytest.mark.parametrize("format", FORMATS)
def test_any_number_of_clips_of_any_length(encoders, recipe, waveforms, tmp_path, inputs, format):
    encoder = encoders[recipe]
    export_encoder(encoder, tmp_path / "encoder", format, inputs)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    for clips, samples in ((7, 15_600), (1, 15_600), (2, 31_337), (1, 20_000)):
        batch = np.tile(waveforms, (1, 3))[-clips:, :samples]
        expected = to_numpy(encoder(LogMel(recipe)(batch)))
        h = run(tmp_path / "encoder", format, inputs, given(inputs, batch, recipe))
        assert h.shape == (clips, 8) and h.dtype == np.float32
        np.testing.assert_allclose(h, expected, atol=1e-4)


@on_tensorflow
@EACH
def test_in_8_bit_integers_noise_keeps_its_direction(encoders, recipe, waveforms, tmp_path):
    encoder = encoders[recipe]
    export_encoder(encoder, tmp_path / "whole", "litert"), export_encoder(encoder, tmp_path / "small", "litert_int8")
    assert (tmp_path / "small").stat().st_size < 0.4 * (tmp_path / "whole").stat().st_size
    h = run(tmp_path / "small", "litert", "waveforms", waveforms)
    expected = embed(waveforms, encoder, show=False)[:, 0]
    cosines = np.sum(h * expected, axis=1) / np.linalg.norm(h, axis=1) / np.linalg.norm(expected, axis=1)
    # Measured: 0.998. Of pure tones this network, with two filters in its first block, keeps but 0.82.
    assert cosines[:5].min() > 0.995


@EACH
@pytest.mark.parametrize("inputs", ["waveforms", "log_mel"])
def test_onnxruntime_gives_what_embed_gives(encoders, recipe, waveforms, tmp_path, inputs, capfd):
    encoder = encoders[recipe]
    export_encoder(encoder, tmp_path / "encoder.onnx", inputs=inputs)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"] and not capfd.readouterr().out
    expected = embed(waveforms, encoder, show=False)[:, 0]
    for number in (7, 1):
        h = run_onnx(tmp_path / "encoder.onnx", inputs, given(inputs, waveforms, recipe)[:number])
        np.testing.assert_allclose(h, expected[:number], atol=1e-4)


@pytest.mark.parametrize("inputs, shape", [("waveforms", (20_000,)), ("log_mel", (126, 64))])
def test_an_export_takes_the_window_of_the_encoder(panns_encoder, tmp_path, inputs, shape):
    encoder = CNN14.from_config(panns_encoder.get_config() | {"window": 20_000})
    encoder.build((None, None, 64))
    encoder.set_weights(panns_encoder.get_weights())
    waveforms = (0.1 * np.random.default_rng(0).standard_normal((2, 20_000))).astype("float32")
    batch = given(inputs, waveforms, "panns")
    assert batch.shape[1:] == shape
    export_encoder(encoder, tmp_path / "encoder.onnx", inputs=inputs)
    expected = embed(waveforms, encoder, show=False)[:, 0]
    np.testing.assert_allclose(run_onnx(tmp_path / "encoder.onnx", inputs, batch), expected, atol=1e-4)
    import onnx

    said = {prop.key: prop.value for prop in onnx.load(str(tmp_path / "encoder.onnx")).metadata_props}
    assert said == {"log_mel": "panns", "sample_rate": "16000"}
    assert np.abs(expected - embed(waveforms, panns_encoder, show=False)[:, 0]).max() > 1e-3  # of 15,600 samples alone
    if BACKEND == "tensorflow":
        import tensorflow as tf

        export_encoder(encoder, tmp_path / "encoder", format="saved_model", inputs=inputs)
        loaded = tf.saved_model.load(str(tmp_path / "encoder"))
        np.testing.assert_allclose(loaded.serve(batch).numpy(), expected, atol=1e-4)


def test_a_half_precision_encoder_is_written_in_float32_and_stays_what_it_was(encoder, waveforms, tmp_path):
    half = CNN14(8, width=2, dtype="mixed_bfloat16")
    half.build((None, 96, 64))
    half.set_weights(encoder.get_weights())
    export_encoder(half, tmp_path / "encoder.onnx")
    h = run_onnx(tmp_path / "encoder.onnx", "waveforms", waveforms)
    np.testing.assert_allclose(h, embed(waveforms, encoder, show=False)[:, 0], atol=1e-4)
    assert half.dtype_policy.name == "mixed_bfloat16"


@pytest.mark.parametrize("format", FORMATS)
def test_an_encoder_that_was_never_built_is_built(waveforms, tmp_path, monkeypatch, format):
    monkeypatch.setenv("HOME", str(tmp_path))
    encoder = CNN14(8, width=2)
    export_encoder(encoder, "~/encoder", format)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    if format == "onnx":
        h = run_onnx(tmp_path / "encoder", "waveforms", waveforms)
        np.testing.assert_allclose(h, embed(waveforms, encoder, show=False)[:, 0], atol=1e-4)


@pytest.mark.parametrize("format, package", [("onnx", "onnx"), ("saved_model", "tensorflow"), ("litert", "tensorflow")])
def test_a_missing_package_is_named(encoder, tmp_path, monkeypatch, format, package):
    monkeypatch.setattr(exports.keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=f"{format} needs the package {package}; expected it installed"):
        export_encoder(encoder, tmp_path / "encoder", format)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_saved_model_is_refused_on_other_backends(encoder, tmp_path, monkeypatch, backend):
    monkeypatch.setattr(exports.keras.backend, "backend", lambda: backend)
    with pytest.raises(BadInput, match=f"Keras runs on {backend}; expected KERAS_BACKEND=tensorflow"):
        export_encoder(encoder, tmp_path / "encoder", "saved_model")


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(format="tflite"), "format='tflite': expected one of onnx, saved_model, litert, litert_int8"),
        (dict(format=["onnx"]), r"format=\['onnx'\]: expected one of onnx, saved_model"),
        (dict(format=None), "format=None: expected one of onnx, saved_model"),
        (dict(inputs={}), "inputs={}: expected one of waveforms, log_mel"),
        (dict(path=None), "path=None: expected a path"),
        (dict(path=b"encoder"), "path=b'encoder': expected a path"),
        (dict(path="x" * 5_000), "path='xxx.*: expected a path"),
        (dict(inputs="audio"), "inputs='audio': expected one of waveforms, log_mel"),
        (dict(encoder=keras.layers.Identity()), "an encoder of type Identity; expected a CNN14"),
    ],
)
def test_what_cannot_be_exported_is_refused(encoder, tmp_path, options, message):
    with pytest.raises(BadInput, match=message):
        export_encoder(**dict(encoder=encoder, path=tmp_path / "encoder") | options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_there_stays_and_a_failure_leaves_nothing(encoder, tmp_path, monkeypatch, format):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BadInput, match="mine: expected a path where nothing is yet"):
        export_encoder(encoder, tmp_path / "mine", format)
    with pytest.raises(BadInput, match="cannot be written"):
        export_encoder(encoder, tmp_path / "mine" / "encoder", format)

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(exports, "_save", fail)
    monkeypatch.setattr(export, "_onnx_model", lambda *arguments: type("", (), {"SerializeToString": fail})())
    with pytest.raises(MemoryError):
        export_encoder(encoder, tmp_path / "encoder", format)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(encoder, tmp_path, format, room_for):
    room_for(50_000)
    with pytest.raises(BadInput, match="encoder: cannot be written .*; expected a folder with room"):
        export_encoder(encoder, tmp_path / "encoder", format)
    assert not list(tmp_path.iterdir())
