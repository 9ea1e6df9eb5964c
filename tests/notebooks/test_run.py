"""The runner of notebooks: wrong values refused before anything runs, failures named, results in one table."""

import functools
import importlib.util
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT

nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")

FILE = ROOT / "notebooks" / "run.py"
PARAMETERS = 'PROFILE = "tiny"\nDATA = "made"\nSEED = 0\nOUT = None'
RECORD = """\
from sepcl_keras.course.course import Course
scores = {"d_prime": 1.0, "qbe": 0.75, "qbe_chance": 0.125}
rows = [
    {"row": "untrained", "map": 0.25, "slides": None, **scores},
    {"row": "S2∨N", "map": 0.5, "slides": 0.297, **scores},
]
Course(PROFILE, DATA, SEED, OUT).record("10", table=rows)
print("epoch 3, loss 0.125")"""


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("notebooks_run", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _papermill_log(monkeypatch):
    """Takes the runner's log handler away after each test: it holds that test's captured screen, closed by then."""
    logger = logging.getLogger("papermill")
    for name in ("handlers", "propagate", "level"):
        monkeypatch.setattr(logger, name, getattr(logger, name))


def write(folder, name, *cells, parameters=PARAMETERS):
    """Writes a notebook of code cells, the first tagged `parameters`."""
    code = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    code += [nbformat.v4.new_code_cell(cell) for cell in cells]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=kernel), folder / name)
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / name).with_suffix(".py").touch()


@pytest.fixture
def folder(tmp_path):
    """A folder with notebooks 00 and 10: the first leaves a mark when it runs, the second records a table."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder, "00_first.ipynb", 'open("was_executed", "w").close()')
    write(folder, "10_last.ipynb", RECORD)
    return folder


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--profile", "huge", "smoke, tiny"),
        ("--data", "nowhere", "made"),
        ("--seed", "-1", "from 0 to 4294967295"),
        ("--seed", "1.5", "from 0 to 4294967295"),
        ("--seed", "4294967296", "from 0 to 4294967295"),
        ("--data", "a" * 5_000, "expected a path"),
        ("--out", "a" * 5_000, "expected a path"),
        ("--from", "07", "00, 10"),
        ("--from", "last", "00, 10"),
        ("--jobs", "0", "one or more"),
    ],
)
def test_wrong_value_is_refused_at_once_in_one_sentence(run, folder, capsys, option, value, expected):
    arguments = {"--profile": "smoke", "--out": str(folder.parent / "out")} | {option: value}
    assert run.main([word for pair in arguments.items() for word in pair], folder) == 2
    captured = capsys.readouterr()
    assert value[:70] in captured.err and expected in captured.err and len(captured.err) < 300
    assert captured.err.count("\n") == 1 and captured.err.endswith(".\n")
    assert captured.out == "" and not (folder / "was_executed").exists() and not (folder.parent / "out").exists()


def test_folder_without_sounds_is_refused(run, folder, tmp_path, capsys):
    assert run.main(["--profile", "smoke", "--data", str(tmp_path)], folder) == 2
    captured = capsys.readouterr()
    assert "expected sound files" in captured.err and captured.err.count("\n") == 1


def test_notebook_without_all_parameters_is_refused_before_the_others_run(run, folder, capsys):
    write(folder, "05_other.ipynb", parameters='PROFILE = "tiny"\nDATA = "made"\nSEEDS = 0')
    assert run.main(["--profile", "smoke"], folder) == 2
    error = capsys.readouterr().err
    assert "05_other.ipynb" in error and "OUT, SEED" in error and "DATA" not in error
    assert not (folder / "was_executed").exists()


def test_notebooks_are_executed_from_the_given_one_and_the_table_is_printed(run, folder, tmp_path, capsys):
    arguments = ["--profile", "smoke", "--seed", "3", "--from", "10", "--out", str(tmp_path / "out")]
    assert run.main(arguments, folder) == 0
    captured = capsys.readouterr()
    assert "10_last, 2 cells" in captured.out and "[1/1] 10 ended" in captured.out and "00_first" not in captured.out
    assert "10 | epoch 3, loss 0.125" in captured.out.splitlines()
    assert not (folder / "was_executed").exists()

    kept = tmp_path / "out" / "smoke" / "made" / "seed3" / "notebooks"
    assert sorted(path.name for path in kept.iterdir()) == ["10_last.html", "10_last.ipynb"]
    assert str(kept / "10_last.html") in captured.out.splitlines()
    cells = nbformat.read(kept / "10_last.ipynb", as_version=4).cells
    assert "epoch 3, loss 0.125" in cells[-1].outputs[0].text
    assert not nbformat.read(folder / "10_last.ipynb", as_version=4).cells[-1].outputs  # the original stays clean

    table = captured.out.splitlines()[-3:]
    assert [line.split()[0] for line in table] == ["encoder", "untrained", "S2∨N"]
    assert table[1].split()[1:3] == ["0.250", "–"] and table[2].split()[1:3] == ["0.500", "–"]
    assert "0.297" in table[2] and table[1].rstrip().endswith("–")
    assert len({len(line) for line in table}) == 1
    assert "10 " in next(line for line in captured.out.splitlines() if line.startswith("seconds a notebook"))


def test_a_page_folds_what_the_notebook_folds_and_tells_its_pictures(run, tmp_path):
    png, said = "iVBORw0KGgo=", "N < S2 here."
    output = nbformat.v4.new_output("display_data", {"image/png": png}, metadata={"image/png": {"alt": said}})
    hidden = {"jupyter": {"source_hidden": True, "outputs_hidden": True}, "tags": ["solution"]}
    solution = nbformat.v4.new_code_cell("42", metadata=hidden, execution_count=2)
    solution.outputs = [nbformat.v4.new_output("stream", text="forty-two")]
    link = nbformat.v4.new_markdown_cell("[next](01_scenes.ipynb)")
    cells = [link, nbformat.v4.new_code_cell("1", outputs=[output], execution_count=1), solution]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "00_listen.ipynb")
    run.write_page(tmp_path / "00_listen.ipynb")
    page = (tmp_path / "00_listen.html").read_text(encoding="utf-8")
    assert 'alt="N &lt; S2 here."' in page and f"data:image/png;base64,{png}" in page
    assert 'href="01_scenes.html"' in page
    folded = re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", page, re.DOTALL)
    assert [title for title, _ in folded] == ["A solution", "What it prints"]
    assert "42" in folded[0][1] and "forty-two" in folded[1][1]
    (script,) = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)', page)
    assert "mathjax" in script  # which draws formulas; nothing else is taken from another host


def test_failure_names_notebook_cell_reason_and_how_to_go_on(run, folder, tmp_path, capsys):
    write(folder, "05_bad.ipynb", 'class BadInput(ValueError): pass\nraise BadInput("x.wav: expected sound.")')
    arguments = ["--profile", "smoke", "--from", "5", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert run.main(arguments, folder) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert "05_bad, cell In [3]: x.wav: expected sound." in lines  # parameters, injected parameters, then this cell
    assert lines[-2].startswith("Not executed yet: 05, 10. ")
    assert lines[-1] == "Go on with: make tutorial FROM=05 PROFILE=smoke DATA=made SEED=0"
    assert "Traceback" not in captured.err and "10_last" not in captured.out

    kept = tmp_path / "out" / "smoke" / "made" / "seed0" / "notebooks"
    assert [path.name for path in kept.iterdir()] == ["05_bad.unfinished.ipynb"]
    assert str(kept / "05_bad.unfinished.ipynb") in captured.err


# Cells of two notebooks that meet at a pipe: each goes on once the other is there too.
MEET = 'open("pipe", "w").close()', 'open("pipe").close()'


def test_notebooks_run_side_by_side_but_after_those_they_need(run, tmp_path, capsys, monkeypatch):
    here = Path.cwd()
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path, "00_first.ipynb", MEET[0], 'open("ended", "w").close()')
    write(tmp_path, "02_other.ipynb", MEET[1])
    write(tmp_path, "03_needs.ipynb", 'open("ended").close()')
    monkeypatch.setattr(run, "AFTER", {"03": {"00"}})
    assert run.main(["--profile", "smoke", "--jobs", "2", "--out", str(tmp_path / "out")], tmp_path) == 0
    shown = capsys.readouterr().out
    assert (
        Path.cwd() == here
        and "[3/3] " in shown
        and "00 | Executing Cell 3" in shown
        and "02 | Executing Cell 3" in shown
    )


def test_a_failure_ends_the_others_and_names_the_first_to_go_on_with(run, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    before = run.psutil.Process().children(recursive=True)
    write(tmp_path, "00_long.ipynb", MEET[0], "import threading\nthreading.Event().wait()")
    write(tmp_path, "02_bad.ipynb", MEET[1], "1 / 0")
    assert run.main(["--profile", "smoke", "--jobs", "2", "--out", str(tmp_path / "out")], tmp_path) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert "02_bad, cell In [4]: ZeroDivisionError: division by zero" in lines
    assert lines[-1].startswith("Go on with: make tutorial FROM=00 ")
    assert not [child for child in run.psutil.Process().children(recursive=True) if child not in before]


AFTER = {"c": {"b"}, "d": {"c", "not here"}}


def test_jobs_go_in_their_order_one_at_a_time(run):
    started = []
    jobs = {name: functools.partial(started.append, name) for name in "abcd"}
    assert [name for name, _ in run.side_by_side(jobs, AFTER, 1)] == started == list("abcd")


def test_two_at_a_time_those_that_others_wait_for_go_first(run):
    started, both = [], threading.Barrier(2)

    def job(name):
        started.append(name)
        if name in first:
            both.wait()  # for the other of the first two

    jobs, first = {name: functools.partial(job, name) for name in "abcd"}, "ab"
    assert sorted(name for name, _ in run.side_by_side(jobs, AFTER, 2)) == list("abcd")
    assert set(started[:2]) == {"a", "b"} and started[2:] == ["c", "d"]


def test_what_starts_while_another_fails_is_ended_too(run):
    """Its process is there only once the failure is known."""
    failed, processes = threading.Event(), []

    def fail():
        failed.set()
        raise run.Failed("b")

    def start_late():
        failed.wait()
        processes.append(subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"]))
        processes[0].wait()

    with pytest.raises(run.Failed, match="b"):
        list(run.side_by_side({"a": start_late, "b": fail}, {}, 2))
    assert processes[0].returncode


def test_the_supervised_control_is_trained_while_nothing_waits_for_it(run, tmp_path, capsys, monkeypatch):
    write(tmp_path, "00_first.ipynb", "1 + 1")
    write(tmp_path, "08_probe.ipynb", RECORD.replace('record("10", table=rows)', "supervised_encoder()"))
    monkeypatch.setattr(run, "AFTER", {"08": {"00", run.SUPERVISED}})
    assert run.main(["--profile", "smoke", "--jobs", "2", "--out", str(tmp_path / "out")], tmp_path) == 0
    shown = capsys.readouterr().out
    assert "supervised | encoders/supervised: made in" in shown and "08 | encoders/supervised: loaded from" in shown
    assert "[2/2] 08 ended" in shown


def test_a_supervised_control_that_fails_is_left_to_its_notebook(run, tmp_path, capsys):
    run.show_progress()
    run.train_supervised("huge", "made", 0, str(tmp_path))
    assert "ended with code 1; notebook 08 will train it" in capsys.readouterr().out


def test_a_dead_kernel_is_explained(run, folder, tmp_path, capsys, monkeypatch):
    def die(*arguments, **options):
        raise nbclient.exceptions.DeadKernelError("Kernel died")

    monkeypatch.setattr(run.papermill, "execute_notebook", die)
    assert run.main(["--profile", "smoke", "--jobs", "1", "--out", str(tmp_path / "out")], folder) == 1
    captured = capsys.readouterr()
    assert "00_first, its kernel died" in captured.err and "Traceback" not in captured.err


def test_other_errors_keep_their_name(run):
    error = run.PapermillExecutionError(
        cell_index=4, exec_count=2, source="1 / 0", ename="ZeroDivisionError", evalue="division by zero", traceback=[]
    )
    assert run.explain(error) == "cell In [2]: ZeroDivisionError: division by zero"


def test_table_is_aligned_and_shows_missing_values_as_a_dash(run):
    rows = [{"row": "log-mel statistics", "map": 0.5}, {"row": "N", "map": 0.25, "slides": 0.286}]
    lines = run.table(rows).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[1].split()[:4] == ["log-mel", "statistics", "0.500", "–"]
    assert lines[2].split()[-1] == "0.286"


def test_a_readers_own_copies_do_not_run_in_place_of_ours(run, folder, tmp_path):
    for name in ("00_first-Copy1.ipynb", "00_first_solution.ipynb", "05_mine.ipynb"):
        (folder / name).write_bytes((folder / "10_last.ipynb").read_bytes())
    _, notebooks, _ = run.plan(run.parse(["--profile", "smoke", "--out", str(tmp_path / "out")]), folder)
    assert [path.name for path in notebooks] == ["00_first.ipynb", "10_last.ipynb"]


def test_a_folder_that_is_a_file_is_one_sentence(run, folder, tmp_path, capsys):
    (tmp_path / "out").touch()
    assert run.main(["--profile", "smoke", "--out", str(tmp_path / "out")], folder) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be written" in said
