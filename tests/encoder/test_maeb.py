"""MAEB's rules for encoders: by mteb's own check, on made sounds, where installed; what it hands over otherwise."""

import numpy as np
import pytest
import soxr

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.embedding import embed
from sepcl_keras.encoder.maeb import Model
from sepcl_keras.encoder.network import CNN14


@pytest.fixture(scope="module")
def path(tmp_path_factory, small_encoder):
    path = tmp_path_factory.mktemp("maeb") / "encoder.keras"
    small_encoder.save(path)
    return path


def sound(seconds=1.0, rate=16_000, channels=(), seed=0):
    shape = (*channels, int(seconds * rate))
    array = 0.1 * np.random.default_rng(seed).standard_normal(shape)  # float64, as from Hugging Face's data sets
    return {"array": array, "sampling_rate": rate}


def test_each_sound_has_the_mean_over_its_windows_in_the_order_of_the_batches(path):
    model, given = Model(path), [sound(s, seed=k) for k, s in enumerate((0.2, 2.5, 1.0))]
    h = model.encode([{"audio": given[:2], "label": [1, 2]}, {"audio": given[2:]}], hf_split="test", batch_size=2)
    waveforms = [one["array"].astype("float32") for one in given]
    assert h.dtype == np.float32 and h.shape == (3, 8)
    np.testing.assert_allclose(h, embed(waveforms, model.encoder, pool=True, show=False), rtol=1e-5, atol=1e-5)


def test_channels_are_averaged_and_other_rates_made_16_khz(path):
    model, stereo = Model(path), sound(rate=44_100, channels=(2,))
    mono = stereo["array"].mean(axis=0).astype("float32")
    h = model.encode([{"audio": [stereo, sound(channels=(1,))]}])
    expected = [soxr.resample(mono, 44_100, 16_000), sound()["array"].astype("float32")]
    np.testing.assert_allclose(h, embed(expected, model.encoder, pool=True, show=False), rtol=1e-5, atol=1e-5)


def test_what_is_no_audio_is_refused(path):
    model = Model(path)
    with pytest.raises(BadInput, match="a batch of text; expected one of audio"):
        model.encode([{"text": ["a dog"]}])
    with pytest.raises(BadInput, match="a sound without its sampling_rate; expected one in Hz"):
        model.encode([{"audio": [sound() | {"sampling_rate": None}]}])
    with pytest.raises(BadInput, match="of int16: expected floating-point samples"):
        model.encode([{"audio": [{"array": np.ones(16_000, "int16"), "sampling_rate": 16_000}]}])


def test_other_weights_and_another_window_are_another_revision(path, tmp_path, small_encoder):
    pytest.importorskip("mteb", reason="the package mteb is not installed")
    meta = Model(path).mteb_model_meta
    assert meta.name == "sepcl-keras/encoder" and meta.embed_dim == 8
    assert meta.revision == Model(path).mteb_model_meta.revision
    for change, config in ((0.0, {"window": 20_000}), (1.0, {})):
        other = CNN14.from_config(small_encoder.get_config() | config)
        other.build((None, 96, 64))
        other.set_weights([weight + change for weight in small_encoder.get_weights()])
        other.save(tmp_path / "encoder.keras")
        assert Model(tmp_path / "encoder.keras").mteb_model_meta.revision != meta.revision


@pytest.mark.filterwarnings("default")  # what mteb's libraries warn of one another
def test_mtebs_own_check_passes_for_all_tasks_of_sounds(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    mteb = pytest.importorskip("mteb", reason="the package mteb is not installed")
    model = Model(path)
    assert isinstance(model, mteb.EncoderProtocol)
    results = {name: found for name, found in mteb.mock_run(model).task_results.items() if found is not None}
    kinds = ("Classification", "Clustering", "Multilabel", "PairClassification", "Reranking", "Retrieval")
    assert all(any(kind in name for name in results) for kind in kinds)
    assert all(type(found).__name__ == "TaskResult" for found in results.values()), results
