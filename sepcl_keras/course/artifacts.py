"""Artifacts: what a notebook needs of an earlier one is loaded, taken from what comes with the library, or made.

Each carries the fingerprint of what defines it, the code that makes it among that.
"""

import ast
import functools
import time
import zipfile
from pathlib import Path

import keras

from sepcl_keras.core.checks import BadInput, path_of
from sepcl_keras.core.files import fingerprint, read_json, write_json
from sepcl_keras.core.folders import atomic_folder
from sepcl_keras.course import shipped

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None  # None where it is installed


def artifacts_folder(out=None):
    """The folder of all artifacts: `out`, else `artifacts` in the checkout, or in the current folder without one."""
    return path_of("OUT", out) if out else (CHECKOUT or Path.cwd()) / "artifacts"


def shown(path):
    """`path` as a reader knows it: from the checkout on."""
    return path.relative_to(CHECKOUT) if CHECKOUT and path.is_relative_to(CHECKOUT) else path


def source(module):
    """The text of a module of this library, such as "scenes.audio", or None where there is none of that name."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    return path.read_text(encoding="utf-8") if path.is_file() else None


def imports(module):
    """The modules of this library that a module of it imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source(module))):
        package, _, name = ((isinstance(node, ast.ImportFrom) and node.module) or "").partition(".")
        if package == PACKAGE.name:
            found |= {name} if source(name) else {f"{name}.{alias.name}" for alias in node.names}
    return found


def closure(modules):
    """These modules and all that they import of this library, by way of others too."""
    found, waiting = set(), set(modules)
    while waiting:
        found |= waiting
        waiting = set.union(*(imports(module) for module in waiting)) - found
    return found


@functools.cache
def code(*modules):
    """A fingerprint of the sources of these modules and of all that they import of this library."""
    return fingerprint({module: source(module) for module in closure(modules)})


def running():
    """What the numbers depend on beside the code and the sizes: the backend and its precision."""
    return {"backend": keras.backend.backend(), "policy": keras.config.dtype_policy().name}


class Artifacts:
    """The artifacts in a folder, each in a folder of its own that takes its name only when it is whole."""

    def __init__(self, folder):
        self.folder, self._kept = Path(folder), {}

    def load_or_train(self, name, definition, make, load, keep=True, networks=None):
        """What `load(folder)` gives: from the artifact `name` if it is there and fits, else after `make(folder)`.

        `definition` is what the artifact depends on; `make` fills a folder, which takes its name only when it is
        whole, and returns what to keep beside it, such as a training history. The folder is empty, or as a run that
        was stopped left it with a training's checkpoint, from which the training goes on. With `networks`, a function
        to the artifact's networks as built, a dict by file name, a shipped file that fits is taken instead of making it
        (see `shipped`). Returns (loaded, what was kept beside it); with `keep` both stay in memory.
        """
        file = self.shipped_file(name, definition) if networks else None
        mark = _mark(definition, file)
        if (name, mark) in self._kept:
            return self._kept[name, mark]
        folder, how = self.folder / name, "loaded from"

        def fits():
            return self._mark_of(name) in (mark, _mark(definition))

        if not fits():
            with atomic_folder(folder, mark) as part:
                if not fits():  # as it may by now, where another run was making it
                    if not file:
                        print(f"{name}: not made yet with these settings; making it now.", flush=True)
                    began = time.perf_counter()
                    if not (part / "manifest.json").exists():  # it is there where a run was stopped right at the end
                        content = {"fingerprint": mark, "definition": definition}
                        content |= {"shipped": file.name} if file else {}
                        content["history"] = shipped.unpack(file, networks(), part) if file else make(part)
                        content["seconds"] = round(time.perf_counter() - began, 1)
                        write_json(part / "manifest.json", content)
                    how = f"made in {time.perf_counter() - began:.0f} s, kept in"
                    if file:
                        how = f"taken from {file.name}, which comes with the library (SEPCL_TRAIN=1 trains), kept in"
        print(f"{name}: {how} {shown(folder)}.")
        try:
            loaded = load(folder), read_json(folder / "manifest.json", dict)["history"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BadInput(
                f"{folder}: expected a whole artifact, but {error}; delete the folder to make it anew."
            ) from None
        if keep:
            self._kept[name, mark] = loaded
        return loaded

    def shipped_file(self, name, definition):
        """The shipped file that stands for an artifact; None where it was made here, or is to be."""
        if shipped.training_asked() or self._mark_of(name) == _mark(definition):
            return None
        return shipped.find(name, definition)

    def _mark_of(self, name):
        """The mark of the artifact that lies in its folder, or None."""
        manifest = self.folder / name / "manifest.json"
        return read_json(manifest, dict).get("fingerprint") if manifest.exists() else None


def _mark(definition, file=None):
    return fingerprint({"shipped": file.name} if file else definition)
