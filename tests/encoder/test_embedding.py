"""Embeddings: what the encoder gives for windows cut from the whole clip, whatever the length, batch and neighbours."""

import json
import subprocess
import sys
import tracemalloc
import zipfile

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.backend import inference
from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder import embedding
from sepcl_keras.encoder.embedding import embed, embed_log_mel, load_encoder
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.views.log_mel import LogMel, log_mel_model, windows

PATCH = 15_600


@pytest.fixture
def encoder(small_encoder):
    return small_encoder


def noise(*shape):
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype("float32")


def agree(actual, expected):
    """Within 1e-5 of the largest number."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_window_is_embedded_as_cut_from_the_log_mel_of_the_whole_clip(encoder):
    clips = noise(3, 50_000) * [[1.0], [0.01], [0.3]]
    log_mel = to_numpy(LogMel()(clips.astype("float32")))  # (3, 311, 64): three windows and a rest
    expected = np.stack([to_numpy(encoder(log_mel[:, 96 * k : 96 * (k + 1)])) for k in range(3)], axis=1)
    h = embed(clips, encoder, show=False)
    assert h.shape == (3, 3, 8) and h.dtype == np.float32
    agree(h, expected)
    agree(embed_log_mel(log_mel, encoder), expected)
    agree(embed(clips, encoder, pool=True, show=False), expected.mean(axis=1))


def test_windows_do_not_overlap():
    log_mel = noise(3, 200, 64).astype("float16")
    np.testing.assert_array_equal(windows(log_mel)[:, 1], log_mel[:, 96:192])
    with pytest.raises(BadInput, match="log_mel of 95 frames: expected at least 96"):
        windows(log_mel[:, :95])


def test_any_length_has_the_windows_that_fit_and_a_short_one_is_filled_with_zeros(encoder):
    lengths = (1, 399, PATCH - 1, PATCH, PATCH + 15_359, PATCH + 15_360, 50_000)
    sound = noise(50_000)
    h = embed([sound[:length] for length in lengths], encoder, show=False)
    assert [part.shape for part in h] == [(number, 8) for number in (1, 1, 1, 1, 1, 2, 3)]
    for length, part in zip(lengths[:3], h):
        filled = np.concatenate([sound[:length], np.zeros(PATCH - length, "float32")])
        agree(part[0], to_numpy(encoder(LogMel()(filled[None])))[0])
    for part in h[3:]:
        agree(part[0], h[3][0])


def test_a_clip_depends_neither_on_its_neighbours_nor_on_the_size_of_the_batch(encoder):
    clips = [noise(40_000), np.zeros(16_000, "float32"), 1e-3 * noise(70_000), 8 * noise(9_000)]
    alone = [embed([clip], encoder, show=False)[0] for clip in clips]
    assert np.std([h[0] for h in alone], axis=0).min() > 0.01  # different sounds, different embeddings
    for size in (1, 3, 64):
        together = embed(clips, encoder, batch_size=size, show=False)
        for one, other in zip(alone, together, strict=True):
            agree(one, other)


def test_a_smaller_hop_gives_the_windows_in_between(encoder):
    clip = noise(1, 48_000)
    wide, narrow = embed(clip, encoder, show=False), embed(clip, encoder, hop=32, show=False)
    assert wide.shape[1] == 3 and narrow.shape[1] == 7
    agree(narrow[:, ::3], wide)
    agree(narrow[:, 1], embed(clip[:, 32 * 160 :], encoder, show=False)[:, 0])


def test_whole_numbers_of_numpy_are_taken(encoder):
    clip = noise(1, 48_000)
    narrow = embed(clip, encoder, hop=np.int64(32), batch_size=np.int32(4), show=False)
    np.testing.assert_array_equal(narrow, embed(clip, encoder, hop=32, batch_size=4, show=False))


def test_a_tensor_with_a_gradient_is_embedded(encoder):
    torch = pytest.importorskip("torch")
    clips, expected = noise(2, 16_000), embed(noise(2, 16_000), encoder, show=False)
    tensor = torch.from_numpy(clips).requires_grad_()
    agree(embed(tensor, encoder, show=False), expected)
    agree(np.stack(embed(list(tensor), encoder, show=False)), expected)


def test_the_log_mel_is_of_the_recipe_that_the_encoder_was_trained_on(panns_encoder, tmp_path):
    """Windows of 15,600 samples are 98 of PANNs' frames, which reach beyond both ends."""
    clips = noise(2, 40_000) * np.float32(0.3)
    firsts = (0, 15_360)
    patches = [to_numpy(LogMel("panns")(clips[:, first : first + PATCH])) for first in firsts]
    assert patches[0].shape == (2, 98, 64)
    expected = np.stack([to_numpy(panns_encoder(patch)) for patch in patches], axis=1)
    agree(embed(clips, panns_encoder, show=False), expected)
    for patch, h in zip(patches, expected.swapaxes(0, 1)):
        agree(embed_log_mel(patch, panns_encoder)[:, 0], h)
    panns_encoder.save(tmp_path / "encoder.keras")
    loaded = load_encoder(tmp_path)
    assert loaded.recipe == "panns"
    agree(embed(clips, loaded, show=False), expected)
    # Within a long spectrogram the same frames make a window, but for those beside its ends.
    log_mel = to_numpy(LogMel("panns")(clips))
    by_hand = to_numpy(panns_encoder(log_mel[:, 96:194]))
    agree(embed_log_mel(log_mel, panns_encoder)[:, 1], by_hand)
    with pytest.raises(BadInput, match="log_mel of 97 frames: expected at least 98"):
        embed_log_mel(log_mel[:, :97], panns_encoder)


def test_another_recipe_than_the_two_is_refused():
    with pytest.raises(BadInput, match="recipe='mfcc': expected one of vggish, panns"):
        CNN14(8, width=2, recipe="mfcc")


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_an_encoder_of_half_precision_embeds_in_float32(encoder, tmp_path, dtype):
    half = CNN14(8, width=2, dtype=dtype)
    half.build((None, 96, 64))
    half.set_weights(encoder.get_weights())
    half.save(tmp_path / "encoder.keras")
    half = load_encoder(tmp_path)
    clips, log_mel = noise(2, 16_000), to_numpy(LogMel()(noise(2, 16_000)))
    for h, expected in (
        (embed(clips, half, show=False), embed(clips, encoder, show=False)),
        (embed_log_mel(log_mel, half), embed_log_mel(log_mel, encoder)),
    ):
        np.save(tmp_path / "h.npy", h)
        assert np.load(tmp_path / "h.npy").dtype == np.float32
        close = 1e-5 if dtype.startswith("mixed") else 0.1  # else the weights themselves are rounded
        np.testing.assert_allclose(np.load(tmp_path / "h.npy"), expected, rtol=0, atol=close * np.abs(expected).max())
    assert half.dtype_policy.name == dtype


def test_a_long_recording_is_cut_into_equal_batches_in_little_memory(encoder, monkeypatch):
    seen = []

    class Recorded:
        def predict_on_batch(self, batch):
            seen.append(batch.shape)
            return batch[:, :8].copy()

    monkeypatch.setattr(embedding, "inference", lambda model, batch_size: inference(Recorded(), batch_size))
    minutes = np.zeros(20 * 60 * 16_000, "float32")
    tracemalloc.start()
    h = embed([minutes], encoder, show=False)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(h) == 1249 and set(seen) == {(32, PATCH), (32, 8)}
    assert peak < 0.4 * minutes.nbytes  # a byte a sample, while it is checked for what is not finite


def test_mixed_precision_as_the_default_does_not_round_the_sound(encoder):
    expected = embed(noise(1, PATCH), encoder, show=False)
    log_mel_model.cache_clear()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        agree(embed(noise(1, PATCH), encoder, show=False), expected)
    finally:
        keras.config.set_dtype_policy("float32")
        log_mel_model.cache_clear()


def test_progress_counts_windows_and_can_be_silenced(encoder, capsys):
    embed(noise(2, 50_000), encoder)
    shown = capsys.readouterr()
    assert "embed: 100%" in shown.out and "6/6" in shown.out and not shown.err
    embed(noise(2, 50_000), encoder, show=False)
    assert not "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "waveforms, options, message",
    [
        (noise(PATCH), {}, r"waveforms of shape \(15600,\): expected \(clips, samples\) or a list"),
        ([], {}, "expected one clip or more"),
        ([noise(400), noise(2, 400)], {}, r"waveforms\[1\] of shape \(2, 400\): expected \(samples\)"),
        ([noise(0)], {}, r"waveforms\[0\] of shape \(0,\): expected \(samples\), none"),
        ([np.array([0.1, np.nan])], {}, r"waveforms\[0\] with NaN or infinity"),
        (np.zeros((1, 400), "int16"), {}, r"waveforms\[0\] of int16: expected floating-point samples in \[-1, 1\]"),
        (noise(1, 400), dict(hop=0), "hop=0: expected a whole number"),
        (noise(1, 400), dict(batch_size=1.5), "batch_size=1.5: expected a whole number"),
        (noise(1, 400), dict(hop=np.float32(2)), r"hop=.*2.0.*: expected a whole number"),
        (np.array([["a"]]), {}, "waveforms of <U1: expected real numbers"),
        ([["a"]], {}, r"waveforms\[0\] of <U1: expected real numbers"),
        (noise(1, 400), dict(encoder="encoder.keras"), "an encoder of type str; expected a CNN14"),
    ],
)
def test_what_cannot_be_embedded_is_refused(encoder, waveforms, options, message):
    with pytest.raises(BadInput, match=message):
        embed(waveforms, **dict(encoder=encoder) | options)


def test_an_encoder_gone_astray_is_named():
    broken = CNN14(8, width=1)
    broken.build((None, 96, 64))
    broken.bottleneck.bias.assign(np.full(8, np.nan))
    with pytest.raises(BadInput, match="the encoder gives NaN or infinity"):
        embed(noise(1, PATCH), broken, show=False)


def test_a_saved_encoder_is_loaded_from_file_or_folder_in_a_fresh_process(encoder, tmp_path):
    encoder.save(tmp_path / "encoder.keras")
    np.save(tmp_path / "waveforms.npy", noise(2, 20_000))
    program = (
        "import sys, numpy as np, sepcl_keras as sk\n"
        "h = sk.embed(np.load(sys.argv[1] + '/waveforms.npy'), sk.load_encoder(sys.argv[1]), show=False)\n"
        "np.save(sys.argv[1] + '/h.npy', h)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    expected = embed(noise(2, 20_000), encoder, show=False)
    agree(np.load(tmp_path / "h.npy"), expected)
    agree(embed(noise(2, 20_000), load_encoder(tmp_path / "encoder.keras"), show=False), expected)


def rewritten(source, target, change):
    """A copy of a .keras file whose config.json has gone through `change`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps(change(json.loads(content)))
            new.writestr(name, content)
    return target


def lambda_that_writes(path):
    function = eval(f"lambda x: (open({str(path)!r}, 'w').write('executed'), x)[1]")
    return keras.layers.Lambda(function, output_shape=(1,))


def test_nothing_in_a_file_is_executed(encoder, tmp_path):
    trace = tmp_path / "trace"
    keras.Sequential([keras.Input((1,)), lambda_that_writes(trace)]).save(tmp_path / "lambda.keras")
    trace.unlink(missing_ok=True)  # building the model ran it
    with pytest.raises(BadInput, match="lambda.keras: holds Sequential; expected a CNN14"):
        load_encoder(tmp_path / "lambda.keras")
    encoder.save(tmp_path / "encoder.keras")
    hidden = keras.saving.serialize_keras_object(lambda_that_writes(trace))

    for place in ("dtype", "embedding_dim"):

        def hide(config, place=place):
            config["config"][place] = hidden
            return config

        with pytest.raises(BadInput, match="hidden.keras: expected a whole .keras file of a CNN14, but reading it"):
            load_encoder(rewritten(tmp_path / "encoder.keras", tmp_path / "hidden.keras", hide))
    assert not trace.exists()


def test_what_is_no_encoder_is_refused_in_one_sentence(encoder, tmp_path):
    def refused(path, message):
        with pytest.raises(BadInput, match=message) as caught:
            load_encoder(path)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "a.keras", "a.keras: expected the .keras file of a CNN14, but there is none")
    refused(tmp_path, "encoder.keras: expected the .keras file of a CNN14, but there is none")
    (tmp_path / "text.keras").write_text("no model")
    refused(tmp_path / "text.keras", "text.keras: expected a whole .keras file of a CNN14, but reading it failed")
    separator = TDCNPlusPlus(2, num_basis=4, bottleneck=2, hidden=2, dilations=(1,), repeats=1)
    separator(np.zeros((1, 100), "float32"))
    separator.save(tmp_path / "separator.keras")
    refused(tmp_path / "separator.keras", "holds sepcl_keras>TDCNPlusPlus; expected a CNN14")
    whole = tmp_path / "whole.keras"
    encoder.save(whole)
    (tmp_path / "half.keras").write_bytes(whole.read_bytes()[:5_000])
    refused(tmp_path / "half.keras", "half.keras: expected a whole .keras file")
    broken = bytearray(whole.read_bytes())
    at = broken.index(b"\x89HDF")
    broken[at : at + 1_000] = bytes(1_000)
    (tmp_path / "broken.keras").write_bytes(broken)
    refused(tmp_path / "broken.keras", "broken.keras: expected a whole .keras file")

    def rename(config):
        return config | {"registered_name": "elsewhere>CNN14", "module": "elsewhere"}

    refused(rewritten(whole, tmp_path / "class.keras", rename), "holds elsewhere>CNN14; expected a CNN14")

    def widen(config):
        config["config"]["width"] = 3
        return config

    refused(rewritten(whole, tmp_path / "wide.keras", widen), "wide.keras: expected a whole .keras file")


@pytest.mark.parametrize("path", [None, 5, b"encoder.keras", "x" * 5_000])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(BadInput, match="path=.*: expected a path"):
        load_encoder(path)


def test_the_home_folder_is_found(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    encoder.save(tmp_path / "encoder.keras")
    for path in ("~", "~/encoder.keras"):
        np.testing.assert_array_equal(load_encoder(path).get_weights()[0], encoder.get_weights()[0])


def test_waveforms_that_are_integers_in_disguise_are_warned_of():
    encoder = CNN14(4, width=1)
    loud = 20_000.0 * np.sin(np.arange(15_600) / 10, dtype="float32")
    with pytest.warns(UserWarning, match=r"waveforms\[0\]: samples up to 20000; expected floats in the range -1 to 1"):
        embed(loud[None], encoder, show=False)
