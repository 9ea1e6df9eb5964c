"""One training on three backends and on eight devices, and everything without TensorFlow, each in its own process;
and half precision."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT
from first_steps import new_model

from sepcl_keras.core import backend as core
from sepcl_keras.encoder.network import BatchNorm

FOLDER = ROOT / "tests"


def is_there(name):
    return importlib.util.find_spec(name) is not None


needs_jax = pytest.mark.skipif(not is_there("jax"), reason="JAX is not installed; `make test-latest` runs this")
needs_all = pytest.mark.skipif(
    not all(map(is_there, ("tensorflow", "jax", "torch"))),
    reason="TensorFlow, JAX and torch are not all installed; `make test-latest` runs this",
)


def run(program, *arguments, backend, devices=1):
    flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
    jax = {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"} if backend == "jax" else {}
    path = {"PYTHONPATH": os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])}
    environment = os.environ | {"KERAS_BACKEND": backend} | jax | path
    command = [sys.executable, "-W", "ignore", str(FOLDER / program), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def start(path, pairs, augmented=False, floatx="float32"):
    """Views of clips with a band each, and weights drawn by NumPy: no backend's random numbers are in it."""
    rng = np.random.default_rng(0)
    bands = np.zeros((pairs, 96, 64))
    for clip in range(pairs):
        bands[clip, :, 64 // pairs * clip : 64 // pairs * (clip + 1)] = 3.0
    a, b = (bands + rng.standard_normal((2, *bands.shape))).astype("float32")
    weights = {}
    for index, variable in enumerate(new_model((a, b)).weights):
        shape = tuple(variable.shape)
        if variable.name == "kernel":
            value = rng.uniform(-1, 1, shape) * np.sqrt(3 / np.prod(shape[:-1]))
        else:
            value = 0.1 * rng.standard_normal(shape) + (variable.name in ("gamma", "moving_variance"))
        weights[f"weight{index}"] = value.astype("float32")
    np.savez(path, a=a, b=b, augmented=augmented, floatx=floatx, **weights)
    return path


def first_steps(folder, given, backend, devices=1):
    run("first_steps.py", given, folder / "end.npz", backend=backend, devices=devices)
    return dict(np.load(folder / "end.npz"))


def apart(ours, theirs, prefix, suffix=""):
    """Length of the difference of all arrays so named, as a share of their own."""
    pairs = [(ours[name], theirs[name]) for name in ours if name.startswith(prefix) and name.endswith(suffix)]
    assert pairs
    difference = sum(np.sum(np.square(a - b, dtype="float64")) for a, b in pairs)
    return np.sqrt(difference / sum(np.sum(np.square(a, dtype="float64")) for a, _ in pairs))


def norm(results):
    return np.sqrt(sum(np.sum(np.square(v, dtype="float64")) for k, v in results.items() if k.startswith("gradient")))


@needs_all
def test_three_backends_take_the_same_first_steps(tmp_path):
    """Four pairs and a narrow encoder: among more units one is always so near ReLU's bend that rounding decides."""
    given = start(tmp_path / "start.npz", 4)
    ends = {backend: first_steps(tmp_path, given, backend) for backend in ("tensorflow", "jax", "torch")}
    ours = ends.pop("tensorflow")
    assert ours["losses"][2] < ours["losses"][0] - 0.1
    for backend, theirs in ends.items():
        assert theirs["losses"][0] == pytest.approx(ours["losses"][0], rel=1e-5), backend
        assert norm(theirs) == pytest.approx(norm(ours), rel=1e-4), backend
        for step in ("step0", "step2"):  # with the statistics of batch norm
            assert apart(ours, theirs, "weight", step) < 1e-4, backend
            for name in (name for name in ours if name.endswith(step)):
                np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-3, atol=1e-4, err_msg=f"{backend} {name}")


@needs_jax
def test_eight_devices_take_the_steps_of_one(tmp_path):
    """Each device has one pair of eight: negatives of its own alone, or statistics, would give another loss.

    With SpecAugment, whose draws must not depend on the devices either; in double precision, in which no unit is so
    near ReLU's bend that rounding decides.
    """
    given = start(tmp_path / "start.npz", 8, augmented=True, floatx="float64")
    one, eight = (first_steps(tmp_path, given, "jax", devices) for devices in (1, 8))
    assert (one["devices"], eight["devices"]) == (1, 8)
    assert eight["losses"][0] == pytest.approx(one["losses"][0], rel=1e-5)
    assert apart(one, eight, "gradient") < 1e-5
    assert apart(one, eight, "weight", "step2") < 1e-5


def test_no_module_imports_tensorflow_before_it_is_used():
    """Where it is installed as well: imports stand in the functions that need it.

    But for hear.py, whose model is a class of TensorFlow's where Keras runs on it.
    """
    files = [path for path in (ROOT / "sepcl_keras").rglob("*.py") if path.name != "hear.py"]
    assert len(files) > 10
    for path in files:
        nodes = list(ast.parse(path.read_text(encoding="utf-8")).body)
        while nodes:
            node = nodes.pop()
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                assert not [name for name in names if name.startswith("tensorflow")], path.name
            elif not isinstance(node, ast.FunctionDef | ast.Lambda):
                nodes.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("backend", ["numpy", "jax", "torch"])
def test_without_tensorflow_all_that_needs_none_runs(tmp_path, backend):
    if not is_there("torch" if backend == "torch" else "jax"):  # Keras' NumPy backend takes its FFT from JAX
        pytest.skip(f"what Keras needs for {backend} is not installed; `make test-latest` runs this")
    assert run("without_tensorflow.py", tmp_path, backend=backend).endswith(f"runs on {backend}\n")


@needs_jax
def test_fit_embed_and_the_classifier_share_their_batches_among_eight_devices(tmp_path):
    """With a checkpoint to go on from, and a batch that has no eighths named."""
    program = """
import sys, numpy as np, pytest
from stopped_training import Neighbours
from sepcl_keras.encoder.recipe import pretrain
from sepcl_keras.evaluation.classifiers import shallow_classifier
from sepcl_keras import BadInput, CNN14
from sepcl_keras.core.backend import inference, number_of_devices, use_all_devices

use_all_devices()
assert number_of_devices() == 8
log_mel = np.random.default_rng(0).standard_normal((16, 96, 64)).astype("float16")

def trained(pairs):
    class Pairs(Neighbours):
        def __getitem__(self, step):
            ((a, b),) = super().__getitem__(step)
            return ((np.concatenate([a, b])[:pairs],) * 2,)

    return pretrain(
        lambda steps: Pairs(log_mel, 96, 8, steps, 0), 8, 1, 2, 1e-3, 0, similarity=1.0, coincidence=1.0,
        augmentation="SpecAugment", show=False, folder=sys.argv[1],
    )

encoder, history = trained(8)
assert history == trained(8)[1] and np.isfinite(history["loss"]).all()
assert len(encoder.trainable_weights[0].value.sharding.device_set) == 8
assert inference(encoder)(log_mel[:3].astype("float32")).shape == (3, 8)
rng = np.random.default_rng(0)  # 515 windows: neither whole batches nor eighths
h, labels = rng.standard_normal((515, 1, 4)), np.eye(3)[rng.integers(3, size=515)]
scores = shallow_classifier(h, labels, h[:6], np.eye(3)[[0, 1, 2] * 2], h[:5], seed=0, hidden=4)
assert scores.shape == (5, 3)
with pytest.raises(BadInput, match="a batch of 6 clips on 8 devices: expected a multiple of 8"):
    trained(6)
"""
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    said = run(tmp_path / "program.py", tmp_path / "checkpoint", backend="jax", devices=8)
    assert said == "resumed at step 2 of 2\n"


@pytest.mark.parametrize(
    ("gpu", "name", "flags", "expected"),
    [
        (True, "jax", None, True),
        (False, "tensorflow", "flags : sse avx512f avx512_bf16", True),
        (False, "tensorflow", "flags : amx_bf16 amx_tile", True),
        (False, "tensorflow", "flags : sse avx512f", False),
        (False, "jax", "flags : sse avx512f avx512_bf16", False),
        (False, "tensorflow", None, False),  # not Linux
    ],
)
def test_half_precision_is_for_gpus_and_for_cpus_with_instructions(monkeypatch, gpu, name, flags, expected):
    def read_text(path, encoding=None):
        if flags is None:
            raise FileNotFoundError(path)
        return flags

    monkeypatch.setattr(core, "has_gpu", lambda: gpu)
    monkeypatch.setattr(keras.backend, "backend", lambda: name)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert core.multiplies_bfloat16.__wrapped__() is expected  # not what is remembered of this machine


def test_a_precision_is_of_the_layers_made_in_it_and_ends_with_an_error_too():
    before = keras.config.dtype_policy().name
    with pytest.raises(KeyError), core.precision("mixed_bfloat16"):
        inside = keras.layers.Dense(1)
        with core.precision(None):
            kept = keras.layers.Dense(1)
        with core.precision("float64"):
            other = keras.layers.Dense(1)
        again = keras.layers.Dense(1)
        raise KeyError
    names = [layer.dtype_policy.name for layer in (inside, kept, other, again, keras.layers.Dense(1))]
    assert names == ["mixed_bfloat16", "mixed_bfloat16", "float64", "mixed_bfloat16", before]
    assert keras.config.dtype_policy().name == before


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused operation is TensorFlow's")
@pytest.mark.parametrize(
    ("channels", "gpu", "used"), [(8, False, "float32"), (16, False, "bfloat16"), (8, True, "bfloat16")]
)
@pytest.mark.parametrize("shape", [(3, 10, 4), (3, 10)])
def test_few_channels_are_normalised_in_float32_and_the_result_is_the_same(monkeypatch, shape, channels, gpu, used):
    import tensorflow as tf

    fused, seen = tf.raw_ops.FusedBatchNormV3, []

    def watched(x, **options):
        seen.append(x.dtype.name)
        return fused(x=x, **options)

    x = np.random.default_rng(0).standard_normal((*shape, channels)) * np.geomspace(0.1, 10, channels) + 1
    x = tf.cast(tf.constant(x, "bfloat16"), "float32").numpy()  # numbers that bfloat16 has
    monkeypatch.setattr(core, "has_gpu", lambda: gpu)
    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", watched)
    half = BatchNorm(dtype="mixed_bfloat16")
    for training in (True, False):
        found = half(tf.cast(x, "bfloat16"), training=training)
        assert found.dtype == tf.bfloat16
        axes = tuple(range(len(shape)))
        statistics = (x.mean(axis=axes), x.var(axis=axes)) if training else (half.moving_mean, half.moving_variance)
        mean, variance = (np.asarray(each, "float64") for each in statistics)
        expected = (x - mean) / np.sqrt(variance + 1e-5)
        np.testing.assert_allclose(tf.cast(found, "float32"), expected, rtol=2**-8, atol=2**-7)
    assert seen == [used, used]
    np.testing.assert_allclose(half.moving_mean, 0.1 * x.mean(axis=axes), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(half.moving_variance, 0.9 + 0.1 * x.var(axis=axes), rtol=1e-3)
