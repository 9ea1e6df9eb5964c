"""Files that an earlier version saved, when its modules had other names, are still read."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

SAVED = ROOT / "tests" / "saved"
PROGRAM = """
import json, sys
import numpy as np
import keras
import sepcl_keras

network = keras.saving.load_model(sys.argv[1])
outputs = network(np.array(json.loads(sys.argv[2]), "float32"))
print(json.dumps(keras.ops.convert_to_numpy(outputs).tolist()))
"""


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("separator", np.sin(np.arange(160) * 0.37)[None]),
        ("encoder", np.sin(np.arange(96 * 64).reshape(1, 96, 64) * 0.013)),
    ],
)
def test_a_file_saved_before_gives_the_same_after(name, inputs):
    """By Keras, with nothing but the package imported, and none of its classes named."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(SAVED / f"{name}.keras")]
    done = subprocess.run([*command, json.dumps(inputs.round(7).tolist())], capture_output=True, text=True, check=True)
    expected = json.loads((SAVED / "outputs.json").read_text())[name]
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, rtol=1e-4, atol=1e-6)
