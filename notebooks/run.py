"""Executes the notebooks with papermill, two at a time on a CPU, shows how far they are, and ends with one table.

Executed copies and results are kept under artifacts/<profile>/<data>/seed<k>/.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import logging
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import nbformat
import papermill
import psutil
from jinja2 import DictLoader
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from sepcl_keras.core.backend import processes
from sepcl_keras.core.checks import BadInput, path_of
from sepcl_keras.core.files import atomic, writing
from sepcl_keras.course.course import Course
from sepcl_keras.course.shipped import training_asked
from sepcl_keras.scenes.banks import SPLITS

HERE = Path(__file__).resolve().parent
PARAMETERS = ("PROFILE", "DATA", "SEED", "OUT")
COLUMNS = {
    "row": "encoder", "map": "mAP", "linear_map": "linear mAP", "d_prime": "d′",
    "qbe": "QbE mAP", "qbe_chance": "QbE chance", "slides": "slides mAP",
}  # fmt: skip
# What is better there before a notebook begins; whatever else it needs, it finds, makes, or waits for. The supervised
# control needs no separator, so it is trained while that one is.
SUPERVISED = "supervised"
AFTER = {
    "03": {"00"}, "04": {"03"}, "05": {"00"}, "06": {"05"}, "07": {"05"}, "08": {"07", SUPERVISED}, "09": {"08"},
    "10": {"05", "08"}, "11": {"10"}, "12": {"07"},
}  # fmt: skip

# Jupyter's own page of a notebook, with what is folded there folded here; of the scripts that it takes from other
# hosts it keeps that of formulas, which without it stand as TeX.
PAGE = """{% extends "lab/index.html.j2" %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block input_group %}
{% if cell.metadata.jupyter and cell.metadata.jupyter.source_hidden %}
<details><summary>{{ "A solution" if "solution" in cell.metadata.tags else "Code" }}</summary>{{ super() }}</details>
{% else %}{{ super() }}{% endif %}
{% endblock %}
{% block output_group %}
{% if cell.metadata.jupyter and cell.metadata.jupyter.outputs_hidden %}
<details><summary>What it prints</summary>{{ super() }}</details>
{% else %}{{ super() }}{% endif %}
{% endblock %}
{% block data_png %}
<img style="max-width:100%" alt="{{ output | get_metadata("alt", "image/png") | escape_html }}"
  src="data:image/png;base64,{{ output.data["image/png"] }}">
{% endblock %}"""


class Failed(Exception):
    """A notebook that did not come to its end: which, why, and where what it did so far is."""


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="tiny", help="smoke, tiny or full")
    parser.add_argument("--data", default="made", help="made, or a folder of sounds: README of data/")
    parser.add_argument("--seed", default="0", help="of all training")
    parser.add_argument("--from", dest="first", default="00", help="number of the first notebook to execute")
    parser.add_argument("--out", default=None, help="folder of all artifacts; default artifacts/")
    jobs = processes(2)
    parser.add_argument("--jobs", type=int, default=jobs, help=f"notebooks at a time; here {jobs}, on a GPU 1")
    return parser.parse_args(arguments)


def plan(options, folder):
    """Checks every value before anything runs. Gives the course and the notebooks to execute."""
    data = options.data if options.data == "made" else str(path_of("DATA", options.data).resolve())
    course = Course(options.profile, data, options.seed, options.out and path_of("OUT", options.out).resolve())
    # By their sources: a reader's own copies and solutions lie beside them.
    notebooks = [folder / f"{source.stem}.ipynb" for source in sorted((folder / "src").glob("[0-9][0-9]_*.py"))]
    numbers = [path.name[:2] for path in notebooks]
    first = options.first.zfill(2)
    if first not in numbers:
        raise BadInput(f"FROM={options.first!r}: expected one of {', '.join(numbers)}.")
    if options.jobs < 1:
        raise BadInput(f"--jobs {options.jobs}: expected one or more.")
    for path in notebooks:
        missing = set(PARAMETERS) - set(papermill.inspect_notebook(path))  # papermill itself would pass over them
        if missing:
            raise BadInput(f"{path.name}: expected a cell tagged `parameters` with {', '.join(sorted(missing))}.")
    # Recordings are all read once: a bad file is named now and not after minutes of training. (Made sounds are fine.)
    if data != "made" and not course.listing:
        for event in (event for split in SPLITS for event in course.bank.events(split)):
            course.bank.load(event)
    with writing(course.folder):
        (course.folder / "notebooks").mkdir(parents=True, exist_ok=True)
    parameters = {"PROFILE": options.profile, "DATA": data, "SEED": course.seed, "OUT": str(course.folder.parents[2])}
    return course, notebooks[numbers.index(first) :], parameters


def execute(path, target, parameters, folder):
    """Runs one notebook with its cells' output on the screen."""
    print(f"\n{path.stem}, {len(nbformat.read(path, as_version=4).cells)} cells", flush=True)
    part = target.with_name(f"{target.stem}.unfinished.ipynb")  # papermill writes after each cell
    for old in (target, target.with_suffix(".html")):
        old.unlink(missing_ok=True)
    # Where its kernel starts. Papermill's own `cwd` would be that of the whole process, and so of another notebook.
    place = {"metadata": {"path": str(folder)}}
    try:
        papermill.execute_notebook(
            path, part, parameters, resources=place, kernel_name="python3", log_output=True, progress_bar=False
        )
    except (PapermillExecutionError, DeadKernelError) as error:
        raise Failed(f"{path.stem}, {explain(error)}\nWhat it did so far is in {part}") from None
    part.replace(target)
    write_page(target)


def write_page(notebook):
    """Writes an executed notebook as a page beside it, which any browser shows and plays; its links lead to the other
    notebooks' pages."""
    exporter = HTMLExporter(extra_loaders=[DictLoader({"page.html.j2": PAGE})], template_file="page.html.j2")
    html, _ = exporter.from_filename(str(notebook))
    html = re.sub(r'(href="\d\d_\w+)\.ipynb', r"\1.html", html)
    with atomic(notebook.with_suffix(".html")) as page:
        page.write_text(html, encoding="utf-8")


def train_supervised(*arguments):
    """Trains the supervised control in a process of its own; a failure is left to the notebook that asks for it."""
    program = f"from sepcl_keras import Course; Course(*{arguments!r}).supervised_encoder()"
    command, logger = [sys.executable, "-u", "-c", program], logging.getLogger("papermill")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8") as process:
        for line in process.stdout:
            logger.info(line.rstrip())
    if process.returncode:
        logger.info(f"ended with code {process.returncode}; notebook 08 will train it.")


def side_by_side(jobs, after, most):
    """Calls each of `jobs`, a dict from name to function, after those that `after` has for it, `most` at a time.

    The one that most others come after goes first; one at a time they go in their own order. Gives (name, seconds) of
    each as it ends. At the first that fails, or where the reader stops it, the processes of the others are ended too.
    """

    def waiting_for(job):
        direct = [other for other in jobs if job in after.get(other, ())]
        return {*direct, *(name for other in direct for name in waiting_for(other))}

    def timed(job):
        threading.current_thread().name = job  # which every line is shown with
        began = time.perf_counter()
        with contextlib.closing(ensure_event_loop()):  # Jupyter's, of this thread, which it leaves open
            jobs[job]()
        return job, time.perf_counter() - began

    waiting = sorted(jobs, key=lambda job: -len(waiting_for(job))) if most > 1 else list(jobs)
    running, ended = set(), set()  # futures; names
    others = set(psutil.Process().children(recursive=True))
    with concurrent.futures.ThreadPoolExecutor(most) as pool:
        try:
            while waiting or running:
                ready = [job for job in waiting if (after.get(job, set()) & jobs.keys()) <= ended]
                for job in ready[: most - len(running)]:
                    waiting.remove(job)
                    running.add(pool.submit(timed, job))
                for future in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
                    running.remove(future)
                    ended.add(future.result()[0])
                    yield future.result()
        except BaseException:
            while concurrent.futures.wait(running, timeout=0.2).not_done:  # again: a kernel may be just about to start
                for process in {*psutil.Process().children(recursive=True)} - others:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.terminate()
            raise


def explain(error):
    """Where in a notebook and why it failed, in one sentence."""
    if isinstance(error, DeadKernelError):
        return "its kernel died, most often because memory ran out; one notebook at a time (JOBS=1) takes less."
    reason = error.evalue if error.ename == "BadInput" else f"{error.ename}: {error.evalue}"
    return f"cell In [{error.exec_count}]: {reason}"


class Lines(logging.Formatter):
    """Each line behind the name of the notebook that it comes from."""

    def format(self, record):
        return "\n".join(f"{record.threadName} | {line}" for line in record.getMessage().splitlines())


def show_progress():
    """Sends papermill's log to the screen: which cell runs, and what it prints, such as epochs with their losses."""
    logger, handler = logging.getLogger("papermill"), logging.StreamHandler(sys.stdout)
    handler.setFormatter(Lines())
    handler.addFilter(lambda entry: entry.funcName not in ("execute_notebook", "complete", "parameterize_path"))
    handler.addFilter(lambda entry: not entry.getMessage().startswith(("Ending Cell", "Kernel died")))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def peak_memory():
    """What the largest process took, where the system tells it."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return f", at most {peak / 2**30:.1f} GB of memory in one process"


def table(rows):
    """Rows (dicts with the keys of `COLUMNS`) as aligned text; a missing value is a dash."""

    def cell(value):
        return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [list(COLUMNS.values())] + [[cell(row.get(key)) for key in COLUMNS] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:]))])
        for line in lines
    )


def main(arguments=None, folder=HERE):
    options = parse(arguments)
    try:
        course, notebooks, parameters = plan(options, folder)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    show_progress()
    jobs = {
        path.name[:2]: functools.partial(execute, path, course.folder / "notebooks" / path.name, parameters, folder)
        for path in notebooks
    }
    number, began, seconds = len(jobs), time.perf_counter(), {}
    if options.jobs > 1 and any(SUPERVISED in after for job, after in AFTER.items() if job in jobs):
        jobs[SUPERVISED] = functools.partial(train_supervised, *parameters.values())
    try:
        for job, took in side_by_side(jobs, AFTER, options.jobs):
            seconds[job] = took
            done = len(seconds.keys() - {SUPERVISED})
            print(f"\n[{done}/{number}] {job} ended after {took:.0f} s", flush=True)
    except (Failed, OSError, KeyboardInterrupt) as error:  # OSError: a disk that fills up
        if isinstance(error, OSError):
            where = error.filename or course.folder
            error = f"{where}: cannot be written ({error.strerror}); expected a disk with room."
        print(f"\n{'stopped.' if isinstance(error, KeyboardInterrupt) else error}", file=sys.stderr)
        left = [path.name[:2] for path in notebooks if path.name[:2] not in seconds]
        values = " ".join(f"{name}={shlex.quote(str(parameters[name]))}" for name in ("PROFILE", "DATA", "SEED"))
        print(f"Not executed yet: {', '.join(left)}. What they trained so far is kept.", file=sys.stderr)
        values += " TRAIN=1" * training_asked()
        print(f"Go on with: make tutorial FROM={left[0]} {values}", file=sys.stderr)
        return 1
    total = time.perf_counter() - began
    print("\nseconds a notebook: " + ", ".join(f"{name} {seconds[name]:.0f}" for name in jobs))
    print(f"in all {total / 60:.1f} min{peak_memory()}")
    pages = sorted((course.folder / "notebooks").glob("*.html"))
    print("\nto read and hear, in a browser or from make lab:", *pages, sep="\n")
    results = course.results("10")
    if results:
        print(f"\nprofile {course.profile.name}, data {course.bank.name}, seed {course.seed}; "
              "the slides' mAP is on AudioSet's 527 classes: compare orders, not levels\n")  # fmt: skip
        print(*(f"{what}: {which}" for what, which in course.about_data()), *course.about_scenes(), sep="\n")
        print(table(results["table"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
