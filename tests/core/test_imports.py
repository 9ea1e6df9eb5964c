"""What the library's names import beside Keras: no more than they need, and nothing of the notebooks."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once

PROGRAM = """
import json, sys
import keras

before = set(sys.modules)
import sepcl_keras

for name in sys.argv[1:]:
    getattr(sepcl_keras, name)
new = {name.partition(".")[0] for name in set(sys.modules) - before if not name.startswith("_")}
ours = sorted(name for name in sys.modules if name.count(".") == 2 and name.startswith("sepcl_keras."))
print(json.dumps([sorted(new - set(sys.stdlib_module_names) - set(dir(sys.modules["builtins"]))), ours]))
"""


def imported(*names):
    """Other packages, and modules of ours, that a Python imports for these names."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [set(found) for found in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.parametrize("names", [(), ("CNN14", "TDCNPlusPlus", "embed", "LogMel", "NTXent")])
def test_networks_losses_and_embed_need_keras_numpy_and_tqdm(names):
    packages, modules = imported(*names)
    assert packages <= {"sepcl_keras", "numpy", "tqdm"}
    parts = {module.split(".")[1] for module in modules}
    assert "sepcl_keras.separation.network" in modules and not parts & {"evaluation", "course", "scenes"}


def test_what_needs_scikit_learn_is_loaded_when_it_is_used():
    packages, modules = imported("mean_average_precision")
    assert "sepcl_keras.evaluation.metrics" in modules and "sepcl_keras.course.notebook" not in modules
    assert not packages & {"matplotlib", "IPython", "soundfile", "soxr"}


@pytest.mark.parametrize("names", [("embed_files",), ("load_table", "search")])
def test_tables_need_no_scikit_learn_and_none_of_their_optional_packages(names):
    packages, modules = imported(*names)
    readers = {"soundfile", "soxr", "cffi"} if "embed_files" in names else set()
    assert packages <= {"sepcl_keras", "numpy", "tqdm"} | readers
    assert not {module.split(".")[1] for module in modules} & {"course"}
