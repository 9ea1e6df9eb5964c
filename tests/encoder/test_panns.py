"""CNN14 against PANNs' own output, and reading PANNs' checkpoints without running what is in them."""

import functools
import os
import re
import sys
import zipfile
import zlib

import numpy as np
import pytest
from conftest import ROOT
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder import panns
from sepcl_keras.encoder.embedding import default_batch, embed, embed_log_mel, in_float32, load_encoder
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.encoder.panns import from_panns_checkpoint, load_panns_weights
from sepcl_keras.views.log_mel import LogMel, mel_matrix


def formula_weights(width=64, size=2048):
    """PANNs' names and shapes (with fewer filters, another `fc1` on wish), filled by the goldens' formula."""
    shapes = {}

    def batch_norm(name, size):
        shapes.update({f"{name}.{field}": (size,) for field in ("weight", "bias", "running_mean", "running_var")})

    batch_norm("bn0", 64)
    channels = (1, *(width * 2**block for block in range(6)))
    for block in range(1, 7):
        for number, (size_in, size_out) in enumerate(
            ((channels[block - 1], channels[block]), (channels[block],) * 2), 1
        ):
            shapes[f"conv_block{block}.conv{number}.weight"] = (size_out, size_in, 3, 3)
            batch_norm(f"conv_block{block}.bn{number}", size_out)
    shapes |= {"fc1.weight": (size, channels[-1]), "fc1.bias": (size,)}
    weights = {}
    for name, shape in shapes.items():
        r = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith("running_var"):
            r = 1 + 0.1 * np.abs(r)
        elif len(shape) > 1:
            r /= np.sqrt(np.prod(shape[1:]))
        else:
            r = 0.1 * r + (1 if ".weight" in name else 0)
        weights[name] = r.astype("float32")
    return weights


@pytest.fixture(scope="module")
def weights():
    return formula_weights()


def assert_close(value, expected):
    """Within 1e-4 of the scale of what is expected: a small number beside large ones need be no closer."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-4 * np.sqrt(np.mean(np.square(expected))))


def test_equals_panns_block_by_block(goldens, weights):
    golden = goldens["cnn14_16k_eval_forward"]
    encoder = CNN14(embedding_dim=2048)
    load_panns_weights(encoder, weights)
    waveforms = (np.random.default_rng(0).standard_normal((2, 15_360)) * 0.1).astype("float32")
    log_mel = LogMel("panns")(waveforms)
    x = encoder.bn0(log_mel, training=False)[..., None]
    stages = {"logmel_extractor": to_numpy(log_mel)[:, None], "bn0": to_numpy(x).transpose(0, 2, 1, 3)}
    for block in encoder.blocks:
        x = block(x, training=False)
        stages[block.name] = to_numpy(x).transpose(0, 3, 1, 2)  # PyTorch's layout
    assert len(stages) == 8
    for name, value in stages.items():
        expected = golden[name]
        assert list(value.shape) == expected["shape_torch_layout"]
        assert value.mean() == pytest.approx(expected["mean"], rel=1e-4)
        assert value.std() == pytest.approx(expected["std"], rel=1e-4)
        assert_close(value[0].ravel()[:6], expected["head_of_example_0"])
    fc1 = to_numpy(encoder(log_mel, training=False))
    encoder.bottleneck.set_weights([np.eye(2048), np.zeros(2048)])  # shows what goes into it
    pooled = to_numpy(encoder(log_mel, training=False))
    for name, value in (("pooled_max_plus_mean_2048", pooled), ("fc1_before_relu", fc1)):
        assert_close(value[0, :6], golden[name]["head"])
        np.testing.assert_allclose(np.linalg.norm(value, axis=-1), golden[name]["norm_per_example"], rtol=1e-4)


def test_with_another_size_the_bottleneck_stays_as_initialised(weights):
    encoder = CNN14(embedding_dim=16)
    encoder.build((None, 96, 64))
    before = encoder.bottleneck.get_weights()
    load_panns_weights(encoder, weights | {"fc_audioset.weight": np.zeros((527, 2048)), "odd": "ignored"})
    np.testing.assert_array_equal(encoder.bottleneck.get_weights()[0], before[0])
    assert encoder.recipe == "panns"
    np.testing.assert_array_equal(to_numpy(encoder.bn0.gamma), weights["bn0.weight"])


def test_names_that_do_not_fit_are_refused_and_change_nothing(weights):
    weights = weights | {"conv_block2.bn1.bias": np.zeros(3)}
    encoder = CNN14(embedding_dim=16)
    encoder.build((None, 96, 64))
    before = to_numpy(encoder.bn0.gamma)
    with pytest.raises(BadInput, match=r"conv_block2.bn1.bias has shape \(3,\); expected \(128,\)"):
        load_panns_weights(encoder, weights)
    np.testing.assert_array_equal(to_numpy(encoder.bn0.gamma), before)
    del weights["bn0.weight"]
    with pytest.raises(BadInput, match="bn0.weight is missing"):
        load_panns_weights(encoder, weights)


@pytest.mark.parametrize("size", [512, 128, 32])  # as `Cnn14_emb512`, `Cnn14_emb128` and `Cnn14_emb32` have it
def test_a_smaller_embedding_has_its_own_fc1(size):
    weights = formula_weights(width=2, size=size)
    encoder = CNN14(embedding_dim=size, width=2)
    load_panns_weights(encoder, weights)
    kernel, bias = encoder.bottleneck.get_weights()
    np.testing.assert_array_equal(kernel, weights["fc1.weight"].T)
    np.testing.assert_array_equal(bias, weights["fc1.bias"])
    for odd in (np.float32(1), np.zeros((0, 64))):
        with pytest.raises(BadInput, match=r"fc1.weight has shape \(.*\); expected \(2048, 64\)"):
            load_panns_weights(CNN14(2048, width=2), weights | {"fc1.weight": odd, 3: "no name"})
    del weights["fc1.bias"]
    with pytest.raises(BadInput, match="fc1.bias is missing"):
        load_panns_weights(encoder, weights)


@pytest.mark.parametrize("prefix", ["module.", "base.", "model.", "module.base.", "net.encoder."])
def test_what_a_wrapper_put_before_the_names_is_left_out(prefix):
    """As DataParallel, PANNs' template for finetuning, and Lightning write them; a new head's names have no prefix."""
    weights = formula_weights(width=2, size=8)
    encoder, expected = CNN14(8, width=2), CNN14(8, width=2)
    load_panns_weights(expected, weights)
    wrapped = {prefix + name: array for name, array in weights.items()} | {"fc_transfer.bias": np.zeros(3)}
    load_panns_weights(encoder, wrapped)
    for ours, theirs in zip(encoder.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    two = wrapped | {f"teacher.{name}": array for name, array in weights.items()}
    with pytest.raises(BadInput, match=f"'{prefix}' .*each lead to a bn0.weight; expected the names of one CNN14"):
        load_panns_weights(encoder, two)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A function that writes a file as PANNs' training does, with fewer filters, and gives its path."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(panns, "CNN14", functools.partial(CNN14, width=2))

    def write(name="Cnn14_16k.pth", mel=None, zipped=True, prefix="", size=2048, key="model", **more):
        state = {name: torch.from_numpy(array) for name, array in formula_weights(width=2, size=size).items()}
        state |= {"bn0.num_batches_tracked": torch.tensor(7), "fc_audioset.bias": torch.zeros(527)}
        state["spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(257, 1, 512)
        state["logmel_extractor.melW"] = torch.from_numpy(mel_matrix("panns") if mel is None else mel)
        content = {"iteration": 600_000, key: {prefix + name: value for name, value in state.items()}} | more
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        return tmp_path / name

    return write


@pytest.mark.parametrize("zipped", [True, False])  # False: as torch wrote before its version 1.6, and PANNs' files are
def test_reads_a_published_checkpoint(checkpoint, zipped):
    # Where the sampler stood is in the files too: NumPy arrays, which torch by itself refuses to read.
    sampler = {"indexes_per_class": [np.arange(5), np.arange(3)], "queue": [3, 1], "pointers_of_classes": [0, 2]}
    encoder = from_panns_checkpoint(checkpoint(zipped=zipped, sampler=sampler))
    expected = CNN14(embedding_dim=2048, width=2)
    load_panns_weights(expected, formula_weights(width=2))
    for ours, theirs in zip(encoder.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_checkpoint_tells_its_size_and_recipe_also_from_within_a_wrapper(checkpoint, key):
    path = checkpoint(size=128, prefix="module.base.", key=key)
    encoder = from_panns_checkpoint(path)
    kernel = formula_weights(width=2, size=128)["fc1.weight"].T
    assert encoder.embedding_dim == 128 and (encoder.recipe, encoder.window) == ("panns", 160_000)
    np.testing.assert_array_equal(encoder.bottleneck.get_weights()[0], kernel)
    np.testing.assert_array_equal(from_panns_checkpoint(path, 128).bottleneck.get_weights()[0], kernel)
    assert from_panns_checkpoint(path, 16).bottleneck.kernel.shape == (64, 16)


@pytest.fixture
def pretrained():
    encoder = CNN14(2048, width=2)
    load_panns_weights(encoder, formula_weights(width=2))
    return encoder


def test_its_log_mel_and_window_are_what_embed_makes(pretrained):
    """As in training: windows of 10 s, 1,001 frames, shorter clips filled up with zeros; others when asked for."""
    encoder = pretrained
    waveforms = (np.random.default_rng(0).standard_normal((2, 330_000)) * 0.1).astype("float32")
    h = embed(waveforms, encoder, show=False)
    assert h.shape[:2] == (2, 2) and default_batch(encoder.window) == 3
    for number in range(2):
        window = waveforms[:, 160_000 * number : 160_000 * (number + 1)]
        assert_close(h[:, number], to_numpy(encoder(LogMel("panns")(window))))
    filled = np.pad(waveforms[:, :15_600], ((0, 0), (0, 144_400)))
    assert_close(embed(waveforms[:, :15_600], encoder, show=False), embed(filled, encoder, show=False))
    short = embed(waveforms[:, :15_600], encoder, window=15_600, show=False)[:, 0]
    assert_close(short, to_numpy(encoder(LogMel("panns")(waveforms[:, :15_600]))))
    log_mel = to_numpy(LogMel("panns")(waveforms))
    assert_close(embed_log_mel(log_mel, encoder)[:, 1], to_numpy(encoder(log_mel[:, 1_000:2_001])))
    with pytest.raises(BadInput, match="window=15599: expected a whole number of at least 15600"):
        embed(waveforms, encoder, window=15_599, show=False)


def test_the_window_is_kept_in_the_encoders_file(pretrained, tmp_path):
    pretrained.save(tmp_path / "encoder.keras")
    loaded = load_encoder(tmp_path)
    assert (loaded.recipe, loaded.window) == ("panns", 160_000) and in_float32(loaded).window == 160_000
    half = CNN14(8, width=2, recipe="panns", window=160_000, dtype="mixed_bfloat16")
    assert in_float32(half).window == 160_000
    old = load_encoder(ROOT / "tests" / "saved" / "encoder.keras")  # of before windows and rates were kept
    assert (old.window, old.sample_rate) == (15_600, 16_000)
    with pytest.raises(BadInput, match="CNN14: window=100: expected a whole number of at least 15600"):
        CNN14(8, width=2, window=100)


@pytest.mark.parametrize("path", [None, 7, b"Cnn14.pth", "x" * 5_000])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(BadInput, match="path=.*: expected a path"):
        from_panns_checkpoint(path)


def test_reads_what_numpy_1_wrote(checkpoint, tmp_path):
    path = checkpoint(sampler={"indexes": np.arange(5)})
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        renamed = 0
        for item in new.infolist():
            content = new.read(item)
            if item.filename.endswith("data.pkl"):
                content, renamed = re.subn(rb"cnumpy\._?core\.multiarray\n", b"cnumpy.core.multiarray\n", content)
            old.writestr(item, content)
    assert renamed == 1
    assert from_panns_checkpoint(tmp_path / "old.pth", embedding_dim=4).embedding_dim == 4


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_another_log_mel_is_refused(checkpoint, prefix):
    """That of the model for 32 kHz has 513 frequencies; that for 8 kHz as many as ours, and other bands."""
    ours = mel_matrix("panns")
    for mel in (np.zeros((513, 64), "float32"), np.roll(ours, 3, axis=0)):
        with pytest.raises(
            BadInput, match=rf"Cnn14.pth: trained on a log-mel of {len(mel)} .*expected one of 16000 Hz"
        ):
            from_panns_checkpoint(checkpoint("Cnn14.pth", mel, prefix=prefix), 4)
    assert (
        from_panns_checkpoint(checkpoint("Cnn14.pth", ours + np.float32(1e-7), prefix=prefix), 4).sample_rate == 16_000
    )


class MakesFolder:
    """Pickled, it is an instruction to make a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_foreign_and_damaged_files_are_refused_and_nothing_in_them_runs(checkpoint, tmp_path):
    torch = pytest.importorskip("torch")
    trap = tmp_path / "it ran"
    harmful = checkpoint("harmful.pth", sampler=MakesFolder(trap))
    assert torch.load(harmful, weights_only=False) and trap.exists()  # the trap works
    trap.rmdir()
    whole = checkpoint("whole.pth").read_bytes()
    contents = {"empty.pth": b"", "text.pth": b"not a checkpoint", "half.pth": whole[: len(whole) // 2]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("harmful.pth", *contents, "list.pth"):
        with pytest.raises(BadInput, match=f"{name}: expected a checkpoint of PANNs, arrays and no code"):
            from_panns_checkpoint(tmp_path / name)
    assert not trap.exists()
    torch.save({"iteration": 1, "model": {"bn0.weight": torch.zeros(64)}}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="other.pth: bn0.bias is missing"):
        from_panns_checkpoint(tmp_path / "other.pth")
    for missing in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(BadInput, match="expected a checkpoint of PANNs, but there is none"):
            from_panns_checkpoint(missing)


def test_without_torch_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BadInput, match="x.pth: reading a PyTorch checkpoint needs torch, which is not installed"):
        from_panns_checkpoint(tmp_path / "x.pth")
