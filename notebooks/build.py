"""Generates notebooks/NN_name.ipynb from notebooks/src/NN_name.py; with --check, names those that are out of date."""

import argparse
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbstripout import strip_output

from sepcl_keras.core.files import atomic

HERE = Path(__file__).resolve().parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["repository"]
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/"
)
GLOSSARY = f"· [Glossary]({REPOSITORY}/blob/main/notebooks/book/glossary.md)"
FETCH = """\
import importlib.util
import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # fast convolutions, also on CPUs where TensorFlow has others
# On a machine that has only this notebook, such as Colab, fetch the library and, of what it needs, what is missing.
if importlib.util.find_spec("sepcl_keras") is None:
    import importlib.metadata
    import subprocess
    import sys

    here = {{d.name: d.version for d in importlib.metadata.distributions() if d.version.replace(".", "").isdigit()}}
    with open("constraints.txt", "w") as file:  # nothing that is here may be replaced
        file.writelines(f"{{name}}=={{version}}\\n" for name, version in here.items())
    library = f"sepcl-keras[notebooks] @ {{os.environ.get('SEPCL_SOURCE', 'git+{repository}')}}"
    pip = [sys.executable, "-m", "pip", "install", "-c", "constraints.txt", library]
    done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.remove("constraints.txt")
    if done.returncode:
        lines = done.stdout.splitlines()
        why = [line.strip() for line in lines if line.startswith("    ")] or lines[-1:]
        raise RuntimeError(f"sepcl-keras cannot be installed beside what is here: {{'; '.join(why)}}")

import sepcl_keras

print(sepcl_keras.versions())"""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def generate(source, solutions=True):
    """The text of the notebook that belongs to `source`, the same bytes for the same source; with or without cells
    tagged `solution`. Those are folded, and so are cells that record, and the code of those tagged `folded`."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook = strip_output(notebook, keep_output=False, keep_count=False, keep_id=True)
    notebook.metadata = nbformat.from_dict(METADATA)
    path = REPOSITORY.removeprefix("https://").replace("github.com", "github")
    notebook.cells[0].source += f"\n\n{BADGE}{path}/blob/main/notebooks/{source.stem}.ipynb) {GLOSSARY}"
    fetch = FETCH.format(repository=REPOSITORY)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(fetch, metadata={"tags": ["folded"]}))
    for index, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        if "course.record(" in cell.source and cell.cell_type == "code":  # for the tests, not for the reader
            tags = [*tags, "record"]
        hidden = {"source_hidden": True} if {"solution", "folded", "record"} & set(tags) else {}
        hidden |= {"outputs_hidden": True} if {"solution", "record"} & set(tags) else {}
        cell.metadata = nbformat.from_dict(({"tags": tags} if tags else {}) | ({"jupyter": hidden} if hidden else {}))
        cell.id = f"{source.stem[:2]}-{index:03d}"  # jupytext draws new ones each time
    if not solutions:
        notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.writes(notebook, indent=1) + "\n"


def main(arguments=None, folder=HERE):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a notebook is out of date")
    parser.add_argument("--student", type=Path, metavar="FOLDER", help="write them there instead, without solutions")
    options = parser.parse_args(arguments)
    if options.student:
        options.student.mkdir(parents=True, exist_ok=True)
        for source in sorted((folder / "src").glob("[0-9][0-9]_*.py")):
            with atomic(options.student / f"{source.stem}.ipynb") as temporary:
                temporary.write_text(generate(source, solutions=False), encoding="utf-8")
        print(f"{options.student}: notebooks without solutions.")
        return 0
    check = options.check
    stale = []
    for source in sorted((folder / "src").glob("[0-9][0-9]_*.py")):
        path, text = folder / f"{source.stem}.ipynb", generate(source)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if not check:
            with atomic(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    sources = {source.stem for source in (folder / "src").glob("*.py")}
    orphans = [path.name for path in sorted(folder.glob("*.ipynb")) if path.stem not in sources]
    if check and (stale or orphans):
        print(f"out of date or without a source: {', '.join(stale + orphans)}; run `make notebooks`.", file=sys.stderr)
        return 1
    print(f"{len(stale)} notebooks written." if not check else "notebooks are up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
