"""Modules that are in no package, such as those beside the notebooks."""

import importlib.util


def load(path):
    """The module of a Python file, imported anew."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
