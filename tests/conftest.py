"""What every test shares: the goldens, numbers that independent implementations gave, and one seed."""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest


@pytest.fixture(scope="session")
def goldens():
    return json.loads((Path(__file__).parent / "goldens.json").read_text())


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


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
