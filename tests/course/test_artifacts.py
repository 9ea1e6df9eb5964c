"""An artifact's code: the modules that make it and all that they import, found by reading them."""

import pytest

from sepcl_keras.course import artifacts
from sepcl_keras.course.artifacts import PACKAGE, closure, code, imports
from sepcl_keras.course.course import DATA, ENCODER, RESULTS, SEPARATOR, VIEWS

pytestmark = pytest.mark.once

MODULES = sorted(f"{path.parent.name}.{path.stem}" for path in PACKAGE.glob("*/[!_]*.py"))
FLOW = ("core", "training", "scenes", "separation", "views", "encoder", "evaluation", "course")
MADE_BY = {"data": DATA, "separator": SEPARATOR, "views": VIEWS, "encoder": ENCODER, "results": RESULTS}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_one_of_a_later_part_of_the_flow(module):
    part = module.partition(".")[0]
    later = FLOW[FLOW.index(part) + 1 :]
    if part == "separation":
        later += ("views",)
    assert not [name for name in imports(module) if name.startswith(later)]
    assert module not in closure(imports(module)), "imports itself, by way of others"


def test_every_part_of_the_flow_is_a_folder_and_no_other():
    assert sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")) == sorted(FLOW)


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        ("course.notebook", ()),
        ("course.slides", ()),
        ("separation.google", ()),
        ("scenes.audio", ("data", "separator", "views", "encoder", "results")),
        ("core.backend", ("data", "separator", "views", "encoder", "results")),
        ("separation.kernels", ("separator", "views", "encoder", "results")),
        ("training.optimizer", ("separator", "views", "encoder", "results")),
        ("views.stored", ("views", "encoder", "results")),
        ("core.arrays", ("separator", "views", "encoder", "results")),
        ("views.augmentation", ("encoder", "results")),
        ("encoder.losses", ("encoder", "results")),
        ("encoder.embedding", ("results",)),
        ("evaluation.retrieval", ("results",)),
    ],
)
def test_a_changed_module_changes_what_depends_on_it_and_nothing_else(module, changed, monkeypatch):
    before = {name: code(*modules) for name, modules in MADE_BY.items()}
    source = artifacts.source
    monkeypatch.setattr(
        artifacts, "source", lambda name: f"{source(name)}# changed" if name == module else source(name)
    )
    code.cache_clear()
    after = {name: code(*modules) for name, modules in MADE_BY.items()}
    code.cache_clear()
    assert tuple(name for name in MADE_BY if after[name] != before[name]) == changed


def test_imports_inside_functions_and_of_modules_count(monkeypatch):
    texts = {
        "a.top": "from sepcl_keras.a.one import x\nimport numpy\nfrom sepcl_keras.a import two",
        "a.one": "def f():\n    from sepcl_keras.a.three import y",
        "a.two": "",
        "a.three": "from sepcl_keras.a.one import x",
        "a.other": "",
    }
    monkeypatch.setattr(artifacts, "source", texts.get)
    assert closure(["a.top"]) == {"a.top", "a.one", "a.two", "a.three"}
