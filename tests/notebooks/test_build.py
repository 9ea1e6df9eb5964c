"""The builder of notebooks: the same bytes for the same source, tags kept, outputs gone, stale notebooks named."""

import importlib.util
import json

import pytest
from conftest import ROOT

nbformat = pytest.importorskip("nbformat")

FILE = ROOT / "notebooks" / "build.py"
SOURCE = """\
# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Another name
#     language: python
#     name: another
# ---

# %% [markdown]
# # Dogs, Ünïcode and ∨

# %% tags=["parameters"]
PROFILE = "tiny"

# %% tags=["solution"] collapsed=true
PROFILE.upper()
"""


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("notebooks_build", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    """A folder of notebooks with one source, none generated yet."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "03_dogs.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def test_same_source_gives_same_bytes(build, folder):
    path = folder / "03_dogs.ipynb"
    assert build.main([], folder) == 0
    first = path.read_bytes()
    path.unlink()
    assert build.main([], folder) == 0
    assert path.read_bytes() == first
    assert first.endswith(b"}\n") and not first.endswith(b"\n\n")
    assert [entry.name for entry in folder.iterdir() if entry.name != "src"] == [path.name]  # no temporary file stays


def test_notebook_is_valid_and_minimal(build, folder):
    build.main([], folder)
    notebook = nbformat.read(folder / "03_dogs.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code", "code", "code"]
    assert notebook.cells[0].source.startswith("# Dogs, Ünïcode and ∨\n")
    # The repository's address stands once, in pyproject.toml: the badge and the cell for Colab come from it.
    repository = build.REPOSITORY.removeprefix("https://github.com/")
    assert f"/github/{repository}/blob/main/notebooks/03_dogs.ipynb)" in notebook.cells[0].source
    assert f"git+{build.REPOSITORY}'" in notebook.cells[1].source
    assert [cell.id for cell in notebook.cells] == ["03-000", "03-001", "03-002", "03-003"]
    folded = {"source_hidden": True, "outputs_hidden": True}
    fetch = {"tags": ["folded"], "jupyter": {"source_hidden": True}}
    kept = [{}, fetch, {"tags": ["parameters"]}, {"tags": ["solution"], "jupyter": folded}]
    assert [cell.metadata for cell in notebook.cells] == kept
    assert all(cell.outputs == [] and cell.execution_count is None for cell in notebook.cells[1:])
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


def test_check_passes_when_up_to_date_and_touches_nothing(build, folder):
    build.main([], folder)
    path = folder / "03_dogs.ipynb"
    before = path.stat().st_mtime_ns
    assert build.main(["--check"], folder) == 0
    assert build.main([], folder) == 0
    assert path.stat().st_mtime_ns == before


def test_check_names_a_notebook_that_is_missing(build, folder, capsys):
    assert build.main(["--check"], folder) == 1
    assert "03_dogs.ipynb" in capsys.readouterr().err
    assert not (folder / "03_dogs.ipynb").exists()


def test_check_names_a_notebook_older_than_its_source(build, folder, capsys):
    build.main([], folder)
    (folder / "src" / "04_rain.py").write_text(SOURCE, encoding="utf-8")
    build.main([], folder)
    source = folder / "src" / "03_dogs.py"
    source.write_text(SOURCE.replace("tiny", "smoke"), encoding="utf-8")
    assert build.main(["--check"], folder) == 1
    error = capsys.readouterr().err
    assert "03_dogs.ipynb" in error and "04_rain" not in error


def test_check_names_a_notebook_that_was_saved_with_outputs(build, folder, capsys):
    build.main([], folder)
    path = folder / "03_dogs.ipynb"
    clean = path.read_bytes()
    content = json.loads(clean)
    output = {"output_type": "stream", "name": "stdout", "text": ["TINY\n"]}
    content["cells"][2] |= {"execution_count": 7, "outputs": [output]}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert build.main(["--check"], folder) == 1
    assert "03_dogs.ipynb" in capsys.readouterr().err
    assert build.main([], folder) == 0
    assert path.read_bytes() == clean


def test_check_names_a_notebook_without_a_source(build, folder, capsys):
    build.main([], folder)
    (folder / "src" / "03_dogs.py").unlink()
    assert build.main(["--check"], folder) == 1
    assert "03_dogs.ipynb" in capsys.readouterr().err


def test_solutions_are_folded_and_students_get_none(build, folder, capsys):
    build.main([], folder)
    cells = nbformat.read(folder / "03_dogs.ipynb", 4).cells
    (solution,) = [cell for cell in cells if "solution" in cell.metadata.get("tags", [])]
    assert [cell.id for cell in cells if "jupyter" in cell.metadata] == ["03-001", solution.id]
    assert build.main(["--student", str(folder / "student")], folder) == 0
    ours = nbformat.read(folder / "student" / "03_dogs.ipynb", 4).cells
    assert [cell.id for cell in ours] == [cell.id for cell in cells if cell is not solution]
    assert "notebooks without solutions" in capsys.readouterr().out
