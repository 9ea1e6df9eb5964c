"""HEAR's published rules (https://hearbenchmark.com/hear-api.html), each checked as its validator would, and more."""

import importlib

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder import hear
from sepcl_keras.encoder.embedding import embed
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.views.log_mel import LogMel

BACKEND = keras.backend.backend()
RATES = (16_000, 22_050, 32_000, 44_100, 48_000)  # that HEAR's sounds are published at
framework = pytest.mark.skipif(BACKEND not in ("tensorflow", "torch"), reason="HEAR knows TensorFlow and torch only")


@pytest.fixture(scope="module")
def path(tmp_path_factory, small_encoder):
    path = tmp_path_factory.mktemp("hear") / "encoder.keras"
    small_encoder.save(path)
    return path


@pytest.fixture(scope="module")
def model(path):
    return hear.load_model(str(path))


def tensor(array):
    module = importlib.import_module(BACKEND)
    return module.constant(array) if BACKEND == "tensorflow" else module.from_numpy(array)


def is_float32(value):
    module = importlib.import_module(BACKEND)
    return isinstance(value, module.Tensor) and value.dtype == module.float32


def sounds(number, seconds, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (number, int(seconds * 16_000))).astype("float32")


@framework
def test_the_model_is_a_module_with_whole_numbers_as_attributes(model):
    module = importlib.import_module(BACKEND)
    assert isinstance(model, module.Module if BACKEND == "tensorflow" else module.nn.Module)
    assert type(model.sample_rate) is int and model.sample_rate in RATES
    assert type(model.scene_embedding_size) is int and model.scene_embedding_size == 8
    assert type(model.timestamp_embedding_size) is int and model.timestamp_embedding_size == 8


@framework
@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.07, 1.98, 4.0])
def test_timestamps_are_regular_from_the_start_to_the_end(model, seconds):
    audio = sounds(2, seconds)
    embeddings, timestamps = hear.get_timestamp_embeddings(tensor(audio), model)
    assert is_float32(embeddings) and is_float32(timestamps)
    timestamps = to_numpy(timestamps)
    assert timestamps.ndim == 2 and embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
    assert len(timestamps) == len(audio)
    # All sounds have the same timestamps: milliseconds, exact multiples of a step of 50 at most.
    np.testing.assert_array_equal(timestamps, np.broadcast_to(timestamps[0], timestamps.shape))
    assert timestamps[0, 0] == 0
    np.testing.assert_array_equal(np.diff(timestamps), 50)
    length = audio.shape[1] / 16
    assert length - 50 < timestamps[0, -1] <= length


@framework
def test_a_timestamp_is_the_middle_of_what_its_embedding_hears(model):
    silence = np.zeros((1, 64_000), "float32")
    click = silence.copy()
    click[0, 32_000:32_010] = 1  # at 2,000 ms
    embeddings, timestamps = (to_numpy(x) for x in hear.get_timestamp_embeddings(tensor(click), model))
    quiet = to_numpy(hear.get_timestamp_embeddings(tensor(silence), model)[0])
    heard = timestamps[0][np.abs(embeddings - quiet).max(axis=(0, 2)) > 1e-4]
    # 15,600 samples are 975 ms, of which half lie on either side.
    np.testing.assert_array_equal(heard, np.arange(1_550, 2_451, 50))


@framework
def test_a_timestamp_embedding_is_that_of_the_window_around_it(model):
    audio = sounds(1, 3.0)
    embeddings = to_numpy(hear.get_timestamp_embeddings(tensor(audio), model)[0])
    middle = 30 * 800  # at 1,500 ms
    expected = embed(audio[:, middle - 7_800 : middle + 7_800], model.encoder, show=False)
    np.testing.assert_allclose(embeddings[:, 30], expected[:, 0], atol=1e-5)


@framework
@pytest.mark.parametrize("seconds", [0.1, 2.74])
def test_a_scene_has_one_embedding_the_mean_over_its_windows(model, seconds):
    audio = sounds(4, seconds)
    h = hear.get_scene_embeddings(tensor(audio), model)
    assert is_float32(h) and h.shape == (4, model.scene_embedding_size)
    np.testing.assert_allclose(to_numpy(h), embed(audio, model.encoder, pool=True, show=False), rtol=1e-5)


@framework
def test_the_same_sound_gives_the_same_numbers_whoever_is_beside_it(model):
    audio = sounds(3, 1.2)
    for function in (hear.get_scene_embeddings, lambda *given: hear.get_timestamp_embeddings(*given)[0]):
        together = to_numpy(function(tensor(audio), model))
        np.testing.assert_array_equal(to_numpy(function(tensor(audio), model)), together)
        np.testing.assert_allclose(to_numpy(function(tensor(audio[1:2]), model)), together[1:2], atol=1e-5)


@framework
def test_embedding_leaves_the_model_as_it_was(model):
    before = [to_numpy(weight).copy() for weight in model.encoder.weights]
    audio = tensor(sounds(2, 1.0))
    expected = to_numpy(hear.get_scene_embeddings(audio, model))
    if BACKEND == "torch":
        model.train()  # and even so, batch norm keeps to its stored statistics
        assert not hear.get_scene_embeddings(audio, model).requires_grad
    np.testing.assert_array_equal(to_numpy(hear.get_scene_embeddings(audio, model)), expected)
    for weight, value in zip(model.encoder.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)


@framework
def test_what_hear_would_not_give_is_refused(model, tmp_path):
    with pytest.raises(BadInput, match="no encoder has been published yet; expected the path"):
        hear.load_model()
    with pytest.raises(BadInput, match="expected the .keras file of a CNN14, but there is none"):
        hear.load_model(str(tmp_path / "missing.keras"))
    for function in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with pytest.raises(BadInput, match=r"audio of shape \(16000,\): expected \(sounds, samples\)"):
            function(tensor(sounds(1, 1.0)[0]), model)
        with pytest.raises(BadInput, match="audio with NaN or infinity"):
            function(tensor(np.full((1, 800), np.nan, "float32")), model)
        with pytest.raises(BadInput, match="of int16: expected floating-point samples"):
            function(tensor((32_767 * sounds(1, 1.0)).astype("int16")), model)
        with pytest.raises(BadInput, match="model of type CNN14: expected the one that hear.load_model gives"):
            function(tensor(sounds(1, 1.0)), model.encoder)


@framework
@pytest.mark.parametrize("path", [5, "x" * 5_000, "a\0b"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(BadInput, match="path=.*: expected a path"):
        hear.load_model(path)


@framework
def test_an_encoder_of_half_precision_and_pannss_recipe_gives_float32_of_its_own_log_mel(panns_encoder, tmp_path):
    half = CNN14(8, width=2, recipe="panns", dtype="mixed_bfloat16")
    half.build((None, 96, 64))
    half.set_weights(panns_encoder.get_weights())
    half.save(tmp_path / "encoder.keras")
    model, audio = hear.load_model(str(tmp_path / "encoder.keras")), sounds(2, 0.975)
    expected = to_numpy(panns_encoder(LogMel("panns")(audio)))
    h = hear.get_scene_embeddings(tensor(audio), model)
    at_times, timestamps = hear.get_timestamp_embeddings(tensor(np.pad(audio, ((0, 0), (200, 8_000)))), model)
    assert is_float32(h) and is_float32(at_times) and to_numpy(timestamps)[0, 10] == 500  # 8,000 samples: the middle
    for found in (to_numpy(h), to_numpy(at_times)[:, 10]):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
def test_on_jax_one_sentence_says_that_hear_knows_no_such_model(path):
    with pytest.raises(BadInput, match="Keras runs on jax; expected KERAS_BACKEND=tensorflow or torch"):
        hear.load_model(str(path))
