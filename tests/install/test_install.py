"""What a reader installs: the wheel in an environment of its own, and the notebooks where only a notebook is there.

`make test-install` runs this; it installs packages. Everything happens in folders outside the checkout.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
COLAB = ("tensorflow==2.20.0", "keras==3.13.2", "jax==0.7.2", "numpy==2.1.3", "matplotlib==3.10.0", "ipykernel==6.31.0")
EXECUTE = """
import sys
import nbclient, nbformat
for path in sys.argv[1:]:
    nbclient.NotebookClient(nbformat.read(path, 4), timeout=900).execute()
    print(path, "ran")
"""
API = """
import sepcl_keras as sk
from sepcl_keras.course.outcomes import committed, report

course = sk.Course("smoke")
encoder, _ = course.encoder()
h = course.embeddings(encoder)["test"]
assert h.shape[0] == len(course.scenes["test"]) and h.shape[2] == encoder.embedding_dim
found = committed()
assert {"made", "esc10"} <= set(found)
print(report(found))
"""


def run(python, *arguments, folder, **environment):
    """What a Python prints in a folder, without a way to the checkout; a failure shows all it said."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SEPCL", "KERAS"))}
    done = subprocess.run(
        [str(python), *map(str, arguments)], cwd=folder, env=clean | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def environment(folder, python, *requirements):
    """The Python of a new environment with these packages."""
    run(python, "-m", "venv", folder, folder=folder.parent)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", *requirements, folder=folder.parent)
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The files that git would hand out, in a folder of their own."""
    folder = tmp_path_factory.mktemp("source") / "sepcl-keras"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.strip("\0").split("\0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def installed(source, tmp_path_factory):
    """The Python of an environment with the wheel, made from the sdist, and a folder with nothing but notebook 00."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--outdir", folder, source, folder=folder)
    (wheel,) = folder.glob("*.whl")
    assert list(folder.glob("*.tar.gz"))
    tools = [f"{name}=={version(name)}" for name in ("tensorflow", "keras", "onnx", "papermill", "ipykernel")]
    python = environment(folder / "venv", sys.executable, f"{wheel}[notebooks]", *tools)
    (folder / "reader").mkdir()
    shutil.copy(NOTEBOOKS[0], folder / "reader")
    return python, folder / "reader"


def test_the_wheel_holds_the_library_its_tables_and_results_and_nothing_else(installed):
    (wheel,) = installed[1].parent.glob("*.whl")
    names = run(sys.executable, "-m", "zipfile", "-l", wheel, folder=wheel.parent).splitlines()[1:]
    names = [line.split()[0] for line in names]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"sepcl_keras"}
    for name in (
        "scenes/tables/made.csv",
        "scenes/tables/esc10.csv",
        "course/tables/rows.csv",
        "course/results/made/01.jsonl",
        *(f"course/shipped/{path.name}" for path in (ROOT / "sepcl_keras" / "course" / "shipped").iterdir()),
    ):
        assert f"sepcl_keras/{name}" in names
    assert wheel.stat().st_size < 13e6


def test_the_installed_library_trains_embeds_and_shows_the_study(installed):
    python, folder = installed
    table = run(python, "-W", "ignore", "-c", API, folder=folder)
    assert "S2∨F∨N joint" in table and "ours beats the joint triplet" in table
    assert (folder / "artifacts" / "smoke" / "made" / "seed0" / "encoders" / "main" / "encoder.keras").is_file()


def test_the_lines_of_the_page_on_the_library_run(installed):
    python, folder = installed
    page = (ROOT / "notebooks" / "book" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) >= 2
    for block in blocks:
        run(python, "-W", "ignore", "-c", block.replace("artifacts/tiny", "artifacts/smoke"), folder=folder)


def test_notebook_00_runs_from_a_folder_that_holds_nothing_else(installed):
    python, folder = installed
    arguments = ("-m", "papermill", NOTEBOOKS[0].name, "out.ipynb", "-k", "python3", "--cwd", ".")
    run(python, *arguments, folder=folder, SEPCL_PROFILE="smoke", JUPYTER_PATH=str(python.parents[1] / "share/jupyter"))
    cells = json.loads((folder / "out.ipynb").read_text(encoding="utf-8"))["cells"]
    said = "".join("".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", []))
    assert f"Keras {version('keras')} on tensorflow" in said


@pytest.fixture(scope="session")
def colab(tmp_path_factory):
    """The Python of an environment with packages like Colab's of August 2026 (Python 3.13), and what is in it."""
    python = os.environ.get("COLAB_PYTHON")
    if not python:
        pytest.skip("no Python 3.13, which Colab has, was found")
    folder = tmp_path_factory.mktemp("colab")
    python = environment(folder / "venv", python, *COLAB)
    return python, run(python, "-m", "pip", "freeze", folder=folder).splitlines()


def first_cells(path, number=2):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    return "\n\n".join("".join(cell["source"]) for cell in cells[:number])


@pytest.fixture(scope="session")
def fetched(colab, source, tmp_path_factory):
    """What the first two cells, which all notebooks share, print from an empty folder: once they install, once not."""
    python, _ = colab
    (cells,) = {first_cells(path) for path in NOTEBOOKS}
    return [
        run(python, "-W", "ignore", "-c", cells, folder=tmp_path_factory.mktemp("empty"), SEPCL_SOURCE=source.as_uri())
        for _ in range(2)
    ]


def test_the_first_cells_of_a_notebook_fetch_the_library_and_say_versions(fetched):
    for said in fetched:
        assert re.search(
            r"^sepcl-keras [\d.]+ · Python 3\.13\.\d+ · Keras 3\.13\.2 on tensorflow 2\.20\.0$", said, re.M
        )


def test_fetching_replaces_nothing_that_was_there(colab, fetched, tmp_path):
    python, before = colab
    after = run(python, "-m", "pip", "freeze", folder=tmp_path).splitlines()
    assert set(before) <= set(after)
    assert len(after) > len(before)


@pytest.mark.parametrize("number", ["00", "05", "07"])
def test_a_notebook_runs_whole_there(colab, fetched, tmp_path, tmp_path_factory, number):
    python, _ = colab
    run(python, "-m", "pip", "install", "-q", "nbclient", folder=tmp_path)
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith(number)]
    shutil.copy(path, tmp_path)
    out = str(tmp_path_factory.getbasetemp() / "artifacts")  # of all three
    paths = {"SEPCL_PROFILE": "smoke", "SEPCL_OUT": out, "JUPYTER_PATH": str(python.parents[1] / "share/jupyter")}
    assert "ran" in run(python, "-W", "ignore", "-c", EXECUTE, path.name, folder=tmp_path, **paths)


def test_a_stack_that_cannot_work_is_told(colab, source, tmp_path):
    """A Keras below the lower bound stays, and the cell says which package is in the way."""
    python = environment(tmp_path / "venv", colab[0], "--no-deps", "keras==3.0.5")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SEPCL", "KERAS"))}
    done = subprocess.run(
        [str(python), "-c", first_cells(NOTEBOOKS[0])], cwd=tmp_path, env=clean | {"SEPCL_SOURCE": source.as_uri()},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: sepcl-keras cannot be installed beside what is here: sepcl-keras "), last
    assert re.search(r"depends on keras>=[\d.]+; .* keras==3\.0\.5$", last), last
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["venv"]
