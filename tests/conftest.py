"""What every test shares: the goldens, numbers that independent implementations gave, and one seed."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # see `backend.advice`

import keras
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]  # of the checkout


@pytest.fixture(scope="session")
def goldens():
    return json.loads((Path(__file__).parent / "goldens.json").read_text())


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def _encoder_of_sounds(recipe):
    """A `CNN14` (d = 8) whose batch norms know the statistics of sounds, as after training.

    As initialised, so narrow a one lets little through: the embeddings of all sounds would be nearly the same, and
    any comparison of them would pass.
    """
    from sepcl_keras.encoder.network import CNN14
    from sepcl_keras.views.log_mel import LogMel

    keras.utils.set_random_seed(0)
    encoder = CNN14(8, width=2, recipe=recipe)
    encoder.build((None, 96, 64))
    norms = [encoder.bn0, *(norm for block in encoder.blocks for norm in (block.bn1, block.bn2))]
    for norm in norms:
        norm.momentum = 0.0  # one batch is all they remember
    level = np.geomspace(1e-3, 1, 16)[:, None]
    sounds = (level * np.random.default_rng(1).standard_normal((16, 15_600))).astype("float32")
    encoder(LogMel(recipe)(sounds), training=True)
    for norm in norms:
        norm.momentum = 0.9
    return encoder


@pytest.fixture(scope="session")
def small_encoder():
    return _encoder_of_sounds("vggish")


@pytest.fixture(scope="session")
def panns_encoder():
    return _encoder_of_sounds("panns")


@pytest.fixture(scope="session")
def value_and_gradients():
    """A function (function, *inputs) → its value and the gradients of the inputs, by the backend that is in use."""

    def call(function, *inputs):
        inputs = [keras.ops.convert_to_tensor(x) for x in inputs]
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(inputs)
                value = function(*inputs)
            gradients = tape.gradient(value, inputs)
        elif keras.backend.backend() == "jax":
            import jax

            value, gradients = jax.value_and_grad(function, argnums=tuple(range(len(inputs))))(*inputs)
        else:
            inputs = [x.detach().clone().requires_grad_() for x in inputs]
            value = function(*inputs)
            value.backward()
            value, gradients = value.detach(), [x.grad for x in inputs]
        return float(value), [keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in gradients]

    return call


@pytest.fixture
def waiting(monkeypatch):
    """An event, set when a run begins to wait for another one's lock, after it has said so.

    `capsys` cannot tell: read while a thread prints, it may lose what was printed.
    """
    fcntl = pytest.importorskip("fcntl")
    flock, event = fcntl.flock, threading.Event()

    def told(file, how):
        if how == fcntl.LOCK_EX:
            event.set()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", told)
    return event


@pytest.fixture
def room_for():
    """A function (bytes, or None for any) that lets no file of this process grow larger: as on a full disk.

    A test ends with None: pytest's own lines may go to a file.
    """
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))

    yield limit
    limit(None)


@pytest.fixture
def in_a_fresh_process(tmp_path):
    """A function (path of a saved model, *inputs) → output, run in another Python that only loads and calls."""

    def call(path, *inputs):
        np.savez(tmp_path / "inputs.npz", *inputs)
        program = (
            "import sys, numpy as np, keras, sepcl_keras\n"
            "model = keras.saving.load_model(sys.argv[1])\n"
            "inputs = list(np.load(sys.argv[2]).values())\n"
            "output = model(*inputs) if len(inputs) == 1 else model(inputs)\n"
            "np.save(sys.argv[3], keras.ops.convert_to_numpy(output))\n"
        )
        arguments = [path, tmp_path / "inputs.npz", tmp_path / "output.npy"]
        subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True)
        return np.load(tmp_path / "output.npy")

    return call
