"""What every notebook promises in its form; what they say in numbers is held by test_tutorial.py."""

import ast
import base64
import re
import sys

import numpy as np
import pytest
from conftest import ROOT

from sepcl_keras.core.checks import BadInput
from sepcl_keras.views.log_mel import LogMel

nbformat = pytest.importorskip("nbformat")
notebook = pytest.importorskip("sepcl_keras.course.notebook")
sys.path.insert(0, str(ROOT / "notebooks"))
build = pytest.importorskip("build")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


DRAWING = {f"notebook.{name}" for name in ("show", "listen", "show_log_mel", "curves", "bars", "forest")}


def cells(path, kind=None, tag=None):
    found = nbformat.read(path, as_version=4).cells
    found = [cell for cell in found if kind in (None, cell.cell_type)]
    return [cell for cell in found if tag is None or tag in cell.metadata.get("tags", [])]


def test_the_course_is_whole():
    assert [name[:2] for name in NAMES] == [f"{number:02d}" for number in range(13)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_is_generated_from_its_source_and_stripped(path):
    assert path.read_text(encoding="utf-8") == build.generate(path.parent / "src" / f"{path.stem}.py")
    for cell in cells(path, "code"):
        assert not cell.outputs and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_has_one_title_a_badge_a_plan_a_recap_and_a_way_on(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert re.findall(r"^# .*$", text, re.M)[0].startswith(f"# {path.stem[:2]} · ")
    assert len(re.findall(r"^# ", text, re.M)) == 1
    assert f"/blob/main/notebooks/{path.name})" in text
    for promise in ("you will", "you need", "you make", "in the paper", "in the code"):
        assert promise in text.lower()
    for link in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", text):
        assert link[:-6] in NAMES
    assert any(f"]({name}.ipynb)" in text for name in NAMES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_has_parameters_records_its_numbers_and_solves_its_exercises(path):
    (parameters,) = cells(path, "code", "parameters")
    tree = ast.parse(parameters.source)
    names = [target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    assert names[:4] == ["PROFILE", "DATA", "SEED", "OUT"] and len(names) <= 5
    code = "\n".join(cell.source for cell in cells(path, "code"))
    assert f'course.record(\n    "{path.stem[:2]}"' in code or f'course.record("{path.stem[:2]}"' in code
    assert len(cells(path, "code", "solution")) >= 2
    lesson = [cell.source for cell in cells(path, "code") if "solution" not in cell.metadata.get("tags", [])]
    assert "assert " in "\n".join(lesson)
    # What is claimed about sounds or training is judged without stopping the course, and kept.
    judges = "notebook.verdict(verdicts, " in code
    assert ("verdicts = {}" in code) == ("\n    verdicts=verdicts,\n" in code) == judges
    for cell in cells(path, "code"):
        lines = cell.source.count("\n") + 1
        assert lines <= 25 or cell.source.startswith("class "), f"a cell of {lines} lines: {cell.source[:60]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_every_figure_says_what_to_see(path):
    """What is drawn leaves by `notebook.show`, with a sentence; a bare `plt.show` would send a picture without one."""
    for cell in cells(path, "code"):
        assert "plt.show(" not in cell.source, cell.source[:80]
        for call in (node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name in DRAWING:
                given = call.args[:1] if name == "notebook.show" else [k.value for k in call.keywords if k.arg == "alt"]
                assert given, f"{name} without a sentence: {cell.source[:80]}"
                sentence = given[0].value if isinstance(given[0], ast.Constant) else "as long as this ."
                assert len(sentence) > 15 and sentence.endswith((".", "?")), sentence
        draws = re.search(r"plt\.(subplots|figure)\(", cell.source) and not re.search(r"^def ", cell.source, re.M)
        assert not draws or "show(" in cell.source, f"a figure that is not shown: {cell.source[:80]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_stub_stands_before_its_solution(path):
    """Who is asked to write finds a cell for it; cells are: stub, perhaps a check of it, solution."""
    code = [cell for cell in cells(path, "code")]
    tags = [cell.metadata.get("tags", []) for cell in code]
    for index, cell in enumerate(code):
        if "your turn" in tags[index]:
            assert "your turn" in cell.source
            assert any("solution" in tag for tag in tags[index + 1 : index + 3]), cell.source[:80]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_nothing_rests_on_a_solution(path):
    """What a student's copy lacks, no other cell uses."""
    made, used = {True: set(), False: set()}, set()
    for cell in cells(path, "code"):
        nodes, solves = list(ast.walk(ast.parse(cell.source))), "solution" in cell.metadata.get("tags", [])
        names = {node.id: node.ctx for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        made[solves] |= {*names, *(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef))}
        aliases = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
        made[solves] |= {(alias.asname or alias.name).split(".")[0] for alias in aliases}
        made[solves] |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        used |= set() if solves else {node.id for node in nodes if isinstance(node, ast.Name)} - set(names)
    assert not used & (made[True] - made[False])


def test_a_figure_leaves_with_its_sentence_and_is_closed(monkeypatch):
    shown = []
    monkeypatch.setattr(notebook, "display", lambda *items, **more: shown.append((items, more)))
    notebook.plt.plot([1, 2])
    notebook.show("""A "line"
        rises.""")
    ((picture,), more), ((caption,), _) = shown
    assert base64.b64decode(picture["image/png"]).startswith(b"\x89PNG")
    assert more["metadata"] == {"image/png": {"alt": 'A "line" rises.'}} and 'A "line" rises.' in caption.data
    assert picture["text/html"].startswith("<img ") and 'alt="A &quot;line&quot; rises."' in picture["text/html"]
    assert not notebook.plt.get_fignums()


def test_hertz_stand_where_the_bands_of_log_mel_are():
    """A tone lights the band that the axis gives for it."""
    _, axis = notebook.plt.subplots()
    notebook.mel_axis(axis)
    tone = np.sin(2 * np.pi * np.array([[250], [500], [1000], [2000], [4000]]) * np.arange(16_000) / 16_000)
    loudest = np.asarray(LogMel()(tone.astype("float32"))).mean(axis=1).argmax(axis=1)
    np.testing.assert_allclose(axis.get_yticks(), loudest + 0.5, atol=0.7)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["250", "500", "1000", "2000", "4000"]
    notebook.plt.close()


def test_players_share_one_gain_and_take_silence(monkeypatch):
    heard, shown = [], []
    monkeypatch.setattr(notebook, "display", lambda item: shown.append(item.data))
    real = notebook.Audio
    monkeypatch.setattr(notebook, "Audio", lambda data, **kw: heard.append(data) or real(data, **kw))
    loud = [0.0, 0.5, -0.5, 0.25]
    notebook.players({"loud & clear": np.float32(loud), "quiet": np.float32(loud) / 10, "silent": np.zeros(4)})
    np.testing.assert_allclose(heard[0], np.multiply(loud, 1.8), rtol=1e-6)
    np.testing.assert_allclose(heard[1], heard[0] / 10, rtol=1e-6)
    assert not heard[2].any() and "loud &amp; clear" in shown[0] and shown[0].count("<audio") == 3
    assert 'aria-label="loud &amp; clear"' in shown[0]
    notebook.players({"silent": np.zeros(4)})
    click = np.full(4000, 0.1)
    click[7] = 9.0
    notebook.players({"with a click": click})
    np.testing.assert_allclose(heard[-1][[3, 7]], [0.9, 1.0], rtol=1e-6)


def test_a_verdict_is_told_and_kept_and_stops_nothing(capsys):
    kept = {}
    assert notebook.verdict(kept, "rain is wet", np.bool_(True), "0.9 against 0.5") is True
    assert notebook.verdict(kept, "rain is dry", np.nan > 0.5, "nan against 0.5") is False
    assert kept == {"rain is wet": True, "rain is dry": False} and all(type(holds) is bool for holds in kept.values())
    told = ["✓ holds: rain is wet (0.9 against 0.5)", "✗ does not hold here: rain is dry (nan against 0.5)"]
    assert capsys.readouterr().out.splitlines() == told


def test_bad_input_is_still_an_error_outside_a_notebook():
    with pytest.raises(BadInput):
        notebook.setup("huge", "made", 0)
