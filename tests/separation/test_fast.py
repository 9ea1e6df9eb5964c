"""The separator by 8-bit integers: channels like those of float32, wherever a separator is applied, or a refusal."""

import re

import keras
import numpy as np
import pytest
import soundfile
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.separation import fast
from sepcl_keras.separation.fast import FastSeparator, channel_snr, fast_separator, why_float32
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.separation.separate import separate, separate_file
from sepcl_keras.views.processors import Snapshot
from sepcl_keras.views.stored import Views, write_views

SIZES = dict(num_basis=40, bottleneck=24, hidden=72, frame_length=80, frame_step=40, dilations=(1, 2, 4), repeats=2)
SAMPLES = 16_000
VNNI = "avx512_vnni" in fast.CPU.read_text() or "avx_vnni" in fast.CPU.read_text() if fast.CPU.exists() else False
here = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or not VNNI, reason="TensorFlow's products of integers on a CPU with VNNI"
)


@pytest.fixture(autouse=True)
def narrow_is_wide(monkeypatch):
    """Small networks take the path of wide ones."""
    monkeypatch.setattr(fast, "WIDE", 8)


def sounds(clips=3, samples=SAMPLES):
    """Decaying tones and noise, the last clip quiet."""
    rng, time = np.random.default_rng(1), np.arange(samples) / 16_000
    level = np.geomspace(0.5, 5e-3, clips)[:, None]
    tones = np.sin(2 * np.pi * rng.uniform(200, 4000, (clips, 1)) * time) * np.exp(-20 * time)
    return (level * (tones + 0.1 * rng.standard_normal((clips, samples)))).astype("float32")


def made(**options):
    """A separator none of whose weights is as it begins: one that is left out would be found."""
    separator, rng = TDCNPlusPlus(**SIZES | options), np.random.default_rng(2)
    separator.build((None, None))
    for weight in separator.weights:
        moved = 0.1 if weight.name in ("beta", "bias") else 0.0
        weight.assign(to_numpy(weight) * rng.uniform(0.8, 1.2, weight.shape) + moved)
    return separator


@here
@pytest.mark.parametrize(
    "options",
    [{}, {"num_sources": 3, "consistency": "energy"}, {"long_skips": True, "kernel_size": 4},
     {"bottleneck": 64, "hidden": 128, "frame_step": 15}],
    ids=str,
)  # fmt: skip
def test_channels_keep_20_db_and_sum_to_the_mixture(options):
    separator, mixtures = made(**options), sounds()
    quick = fast_separator(separator, SAMPLES)
    channels, expected = quick(mixtures), to_numpy(separator(mixtures))
    assert channels.shape == expected.shape and channels.dtype == "float32"
    snr = 10 * np.log10(np.square(expected).sum(axis=-1) / np.square(channels - expected).sum(axis=-1))
    assert snr.min() > 25 and snr.max() < 80 and quick.snr > 25, (snr, quick.snr)  # near, and by another path
    np.testing.assert_allclose(channels.sum(axis=1), mixtures, atol=1e-6)


@here
def test_clips_do_not_see_each_other_and_silence_stays_silent():
    quick, mixtures = fast_separator(made(), SAMPLES), sounds()
    mixtures[1] = 0
    together = quick(mixtures)
    np.testing.assert_array_equal(together[[0]], quick(mixtures[:1]))
    np.testing.assert_allclose(together[1].sum(axis=0), 0, atol=1e-7)
    assert np.isfinite(together).all()


@here
def test_clips_of_another_length_go_through_the_separator_itself():
    separator, mixtures = made(), sounds(2, 900)
    np.testing.assert_allclose(fast_separator(separator, SAMPLES)(mixtures), to_numpy(separator(mixtures)), atol=1e-6)


@here
def test_it_goes_wherever_a_separator_is_applied(tmp_path):
    separator, mixtures = made(), sounds()
    quick = fast_separator(separator, SAMPLES)
    np.testing.assert_array_equal(separate(quick, mixtures), quick(mixtures))
    soundfile.write(tmp_path / "sound.wav", sounds(1, 40_000)[0], 16_000, "FLOAT")
    quickly, exactly = (
        np.stack([soundfile.read(p)[0] for p in separate_file(tmp_path / "sound.wav", tmp_path / name, s,
                                                              piece_seconds=1.0, show=False)])
        for name, s in (("quick", quick), ("exact", separator))
    )  # fmt: skip
    snr = channel_snr(exactly, quickly)
    assert snr.min() > 20 and snr.max() < 80


@here
def test_views_are_made_by_integers_which_identify_them_and_are_never_mixed(tmp_path, monkeypatch, capsys):
    separator, mixtures = made(), sounds(4, 16_000)
    snapshot = Snapshot(separator, samples=SAMPLES)
    assert snapshot.definition == [*Snapshot(separator).definition, "8-bit integers"]
    np.testing.assert_array_equal(snapshot(mixtures), fast_separator(separator, SAMPLES)(mixtures))

    def stop(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:  # by integers, stopped after two clips
        calls = iter([FastSeparator.__call__, FastSeparator.__call__])  # the check, then a batch
        broken.setattr(FastSeparator, "__call__", lambda *given: next(calls, stop)(*given))
        with pytest.raises(KeyboardInterrupt):
            write_views(tmp_path / "views", mixtures, {"S2": separator}, batch_size=2)
    assert "separation by 8-bit integers, " in capsys.readouterr().out
    monkeypatch.setattr(fast, "WIDE", 1000)
    write_views(tmp_path / "views", mixtures, {"S2": separator}, batch_size=2)
    told = capsys.readouterr().out
    assert "separation in float32 (a network of 24 features is no slower so)" in told and "resumed" not in told
    write_views(tmp_path / "exact", mixtures, {"S2": separator}, batch_size=2)
    np.testing.assert_array_equal(Views(tmp_path / "views").log_mel, Views(tmp_path / "exact").log_mel)


@here
def test_bad_channels_are_refused_and_views_take_float32(monkeypatch):
    separator, mixtures = made(), sounds()
    run = FastSeparator.__call__
    noise = 0.2 * np.random.default_rng(3).standard_normal((1, 2, SAMPLES)).astype("float32")
    monkeypatch.setattr(FastSeparator, "__call__", lambda self, clips: run(self, clips) * (1 + noise))
    with pytest.raises(BadInput, match=r"a channel keeps 1[34]\.\d dB of signal-to-noise .* expected 20 or more"):
        fast_separator(separator, SAMPLES)
    snapshot = Snapshot(separator, samples=SAMPLES)
    assert re.search(r"in float32 \(a channel keeps 1[34]\.\d dB", snapshot.arithmetic)
    assert snapshot.definition == Snapshot(separator).definition
    np.testing.assert_allclose(snapshot(mixtures), to_numpy(separator(mixtures)), atol=1e-5)


@here
def test_weights_that_are_not_finite_are_refused():
    separator = made()
    separator.blocks[1].up.dense.kernel.assign(separator.blocks[1].up.dense.kernel * np.nan)
    with pytest.raises(BadInput, match="weights with NaN or infinity; expected a network that is trained"):
        fast_separator(separator, SAMPLES)


@here
def test_without_onednn_it_is_refused(monkeypatch):
    import tensorflow as tf

    def missing(self, clips):
        raise tf.errors.InternalError(None, None, "Missing 0-th output from {{node QuantizedMatMulWithBias}}")

    monkeypatch.setattr(FastSeparator, "__call__", missing)
    with pytest.raises(BadInput, match="multiplies no integers; expected TF_ENABLE_ONEDNN_OPTS=1"):
        fast_separator(made(), SAMPLES)


@here
def test_why_not(monkeypatch, tmp_path):
    separator = made()
    assert why_float32(separator) is None
    monkeypatch.setattr(fast, "WIDE", 25)
    assert "24 features" in why_float32(separator)
    monkeypatch.setattr(fast, "WIDE", 8)
    assert "computes in bfloat16" in why_float32(TDCNPlusPlus(**SIZES, dtype="mixed_bfloat16"))
    (tmp_path / "cpuinfo").write_text("model name : old\nflags : fpu avx2 avx512f\n")
    for path in (tmp_path / "cpuinfo", tmp_path / "none"):
        monkeypatch.setattr(fast, "CPU", path)
        assert "no VNNI" in why_float32(separator)
        with pytest.raises(BadInput, match="fast_separator: this processor has no VNNI"):
            fast_separator(separator, SAMPLES)
    monkeypatch.setattr(fast, "has_gpu", lambda: True)
    assert why_float32(separator) == "a GPU computes"


def test_other_backends_and_lengths_are_refused():
    with pytest.raises(BadInput, match="samples=0: expected"):
        fast_separator(made(), 0)
    if keras.backend.backend() != "tensorflow":
        with pytest.raises(BadInput, match="not TensorFlow"):
            fast_separator(made(), SAMPLES)


def test_snr_of_channels():
    reference = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    channels = np.array([[3.0, 3.5], [0.0, 0.0], [1.0, 0.1], [0.0, 0.1]])
    np.testing.assert_allclose(channel_snr(reference, channels), [20, np.inf, 20, -np.inf])
