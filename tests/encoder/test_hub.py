"""CNN14 as a KerasHub preset: what KerasHub loads from the folder is what was saved."""

import json

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.embedding import embed
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.views.log_mel import LogMel

keras_hub = pytest.importorskip("keras_hub", reason="the package keras-hub is not installed")
hub = pytest.importorskip("sepcl_keras.encoder.hub")


@pytest.fixture(scope="module", params=["vggish", "panns"])
def saved(request, tmp_path_factory, small_encoder, panns_encoder):
    """A preset's folder, and the encoder in it, whose window is not the usual one."""
    known = {"vggish": small_encoder, "panns": panns_encoder}[request.param]
    encoder = CNN14.from_config(known.get_config() | {"window": 20_000})
    encoder.build((None, 96, 64))
    encoder.set_weights(known.get_weights())
    folder = tmp_path_factory.mktemp("hub") / "preset"
    hub.save_preset(encoder, folder)
    return folder, encoder


def waveforms(clips=3, samples=20_000):
    return (0.1 * np.random.default_rng(0).standard_normal((clips, samples))).astype("float32")


def test_the_folder_is_a_presets(saved):
    names = {"config.json", "model.weights.h5", "metadata.json", "preprocessor.json", "audio_converter.json"}
    assert {path.name for path in saved[0].iterdir()} == names
    assert json.loads((saved[0] / "metadata.json").read_text())["parameter_count"] == saved[1].count_params()


def test_keras_hub_loads_equal_weights_and_outputs(saved):
    folder, encoder = saved
    backbone = keras_hub.models.Backbone.from_preset(str(folder))
    converter = keras_hub.layers.AudioConverter.from_preset(str(folder))
    assert type(backbone) is hub.CNN14Backbone and type(converter) is hub.CNN14AudioConverter
    assert (
        backbone.encoder.window == 20_000
        and backbone.encoder.recipe == encoder.recipe == converter.get_config()["recipe"]
    )
    for ours, theirs in zip(encoder.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    log_mel = to_numpy(converter(waveforms()))
    np.testing.assert_array_equal(log_mel, to_numpy(LogMel(encoder.recipe)(waveforms())))
    np.testing.assert_allclose(to_numpy(backbone(log_mel)), to_numpy(encoder(log_mel)), rtol=1e-6, atol=1e-6)
    expected = embed(waveforms(), encoder, show=False)[:, 0]
    np.testing.assert_allclose(backbone.predict(log_mel, verbose=0), expected, rtol=1e-5, atol=1e-5)


def test_the_preprocessor_converts_x_and_passes_the_rest(saved):
    preprocessor = hub.CNN14Preprocessor.from_preset(str(saved[0]))
    x, y, weight = preprocessor(waveforms(), np.arange(3), np.ones(3))
    np.testing.assert_array_equal(to_numpy(x), to_numpy(LogMel(saved[1].recipe)(waveforms())))
    np.testing.assert_array_equal(y, np.arange(3))
    assert tuple(preprocessor(waveforms()).shape) == tuple(x.shape)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about tf.data")
def test_a_data_set_of_tensorflow_is_mapped_by_the_preprocessor(saved):
    import tensorflow as tf

    preprocessor = hub.CNN14Preprocessor.from_preset(str(saved[0]))
    data = tf.data.Dataset.from_tensor_slices((waveforms(), [0, 1, 2])).batch(3).map(preprocessor)
    x, y = next(iter(data))
    np.testing.assert_allclose(x, to_numpy(LogMel(saved[1].recipe)(waveforms())), atol=1e-5)
    assert y.numpy().tolist() == [0, 1, 2]


def test_a_backbone_saves_itself_in_other_precision_and_is_loaded_without_weights(saved, tmp_path):
    backbone = keras_hub.models.Backbone.from_preset(str(saved[0]), dtype="bfloat16")
    assert backbone.encoder.compute_dtype == "bfloat16"
    backbone.save_to_preset(str(tmp_path))
    again = keras_hub.models.Backbone.from_preset(str(tmp_path), load_weights=False)
    assert again.arguments == backbone.arguments


def test_ours_loads_it_and_refuses_what_is_none(saved, tmp_path):
    encoder = hub.load_preset(saved[0])
    for ours, theirs in zip(saved[1].get_weights(), encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(BadInput, match="expected a KerasHub preset of a CNN14, but reading it failed"):
        hub.load_preset(tmp_path / "missing")
    (tmp_path / "config.json").write_text((saved[0] / "config.json").read_text())
    (tmp_path / "model.weights.h5").write_bytes((saved[0] / "model.weights.h5").read_bytes()[:5_000])
    with pytest.raises(BadInput, match="expected a KerasHub preset of a CNN14, but reading it failed"):
        hub.load_preset(tmp_path)
    with pytest.raises(BadInput, match="expected a path where nothing is yet"):
        hub.save_preset(saved[1], saved[0])
    with pytest.raises(BadInput, match="an encoder of type Identity; expected a CNN14"):
        hub.save_preset(keras.layers.Identity(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
