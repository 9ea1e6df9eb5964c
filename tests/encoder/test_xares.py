"""X-ARES' rules for encoders: by its own checker and one of its tasks on made sounds where it is installed."""

import io
import json
import math
import sys
import tarfile

import numpy as np
import pytest
import soundfile

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.embedding import embed
from sepcl_keras.encoder.xares import encoder_class

RATE = 16_000


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_encoder):
    torch = pytest.importorskip("torch", reason="X-ARES takes modules of torch, which is not installed")
    path = tmp_path_factory.mktemp("xares") / "encoder.keras"
    small_encoder.save(path)
    return torch, encoder_class(path)()


def sounds(number, samples):
    return (0.1 * np.random.default_rng(0).standard_normal((number, samples))).astype("float32")


@pytest.mark.parametrize("samples", [800, 801, 50_000, 160_000])
def test_frames_are_as_many_as_x_ares_counts_and_hear_the_sound_around_them(made, samples):
    torch, encoder = made
    audio = sounds(2, samples)
    with torch.inference_mode():  # as X-ARES calls it
        h = encoder(torch.from_numpy(audio))
    assert h.dtype == torch.float32 and encoder.sampling_rate == RATE
    # `sec_to_frames` of its tasks with labels in time
    assert h.shape == (2, math.ceil(samples / RATE / (encoder.hop_size_in_ms / 1000)), encoder.output_dim)
    around = np.pad(audio, ((0, 0), (7_800, 7_800)))
    for time in (0, h.shape[1] - 1):
        expected = embed(around[:, time * 800 : time * 800 + 15_600], encoder.encoder, show=False)
        # Batches of other sizes add up in another order; h reaches 35 here, of which float32 keeps 2e-6.
        np.testing.assert_allclose(h[:, time], expected[:, 0], rtol=1e-6, atol=1e-5)


def test_its_checker_passes(made):
    checker = pytest.importorskip("xares.audio_encoder_checker", reason="the package xares is not installed")
    assert checker.check_audio_encoder(made[1]) is True


@pytest.mark.filterwarnings("default")  # what X-ARES' libraries warn of one another
def test_one_of_its_tasks_tells_noise_from_tones(made, tmp_path, monkeypatch):
    task = pytest.importorskip("xares.task", reason="the package xares is not installed")
    pytest.importorskip(
        "torchcodec", reason="torchaudio reads sounds by the package torchcodec, which is not installed"
    )
    monkeypatch.chdir(tmp_path)
    config = task.TaskConfig(
        "made", encoder=made[1], env_root=tmp_path, label_processor=lambda about: about["label"], output_dim=2,
        num_encoder_workers=0, torch_num_threads=1, batch_size_train=4, learning_rate=0.1,
    )  # fmt: skip
    folder, rng = tmp_path / "made", np.random.default_rng(0)
    folder.mkdir()
    (folder / config.xares_settings.audio_ready_filename).touch()
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4_000) / RATE)
    for split in ("train", "valid", "test"):
        with tarfile.open(folder / f"{split}.tar", "w") as archive:
            for index in range(40 if split == "train" else 8):
                label = index % 2
                sound = io.BytesIO()
                waveform = (tone if label else 0.1 * rng.standard_normal(4_000)) * rng.uniform(0.9, 1.1)
                soundfile.write(sound, waveform, RATE, format="WAV")
                for suffix, content in (("wav", sound.getvalue()), ("json", json.dumps({"label": label}).encode())):
                    info = tarfile.TarInfo(f"{index:02}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    made_task = task.XaresTask(config)
    made_task.make_encoded_tar()
    score, _ = made_task.run_mlp()  # its nearest neighbours, in 0.1.3, are the loudest embeddings
    assert score == 1


def test_a_missing_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BadInput, match="X-ARES takes modules of torch, which is not installed"):
        encoder_class("encoder.keras")


def test_a_missing_file_is_named(tmp_path):
    pytest.importorskip("torch", reason="X-ARES takes modules of torch, which is not installed")
    with pytest.raises(BadInput, match="expected the .keras file of a CNN14, but there is none"):
        encoder_class(tmp_path / "encoder.keras")()
