"""Executes the notebooks in order with papermill, shows how far it is, and ends with one table.

Executed copies and results are kept under artifacts/<profile>/<data>/seed<k>/.
"""

import argparse
import contextlib
import logging
import os
import resource
import shlex
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from sepcl_keras.course import Course
from sepcl_keras.files import BadInput
from sepcl_keras.scenes import SPLITS

HERE = Path(__file__).resolve().parent
PARAMETERS = ("PROFILE", "DATA", "SEED", "OUT")
COLUMNS = {
    "row": "encoder", "map": "mAP", "linear_map": "linear mAP", "d_prime": "d′",
    "qbe": "QbE mAP", "qbe_chance": "QbE chance", "slides": "slides mAP",
}  # fmt: skip


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="tiny", help="smoke, tiny or full")
    parser.add_argument("--data", default="made", help="made, or a folder in the layout of ESC-50")
    parser.add_argument("--seed", default="0", help="of all training")
    parser.add_argument("--from", dest="first", default="00", help="number of the first notebook to execute")
    parser.add_argument("--out", default=None, help="folder of all artifacts; default artifacts/")
    return parser.parse_args(arguments)


def plan(options, folder):
    """Checks every value before anything runs. Gives the course and the notebooks to execute."""
    data = options.data if options.data == "made" else str(Path(options.data).expanduser().resolve())
    course = Course(options.profile, data, options.seed, options.out and Path(options.out).resolve())
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    numbers = [path.name[:2] for path in notebooks]
    first = options.first.zfill(2)
    if first not in numbers:
        raise BadInput(f"FROM={options.first!r}: expected one of {', '.join(numbers)}.")
    for path in notebooks:
        missing = set(PARAMETERS) - set(papermill.inspect_notebook(path))  # papermill itself would pass over them
        if missing:
            raise BadInput(f"{path.name}: expected a cell tagged `parameters` with {', '.join(sorted(missing))}.")
    # Recordings are all read once: a bad file is named now and not after minutes of training. (Made sounds are fine.)
    for event in [event for split in SPLITS for event in course.bank.events(split)] if data != "made" else []:
        course.bank.load(event)
    parameters = {"PROFILE": options.profile, "DATA": data, "SEED": course.seed, "OUT": str(course.folder.parents[2])}
    return course, notebooks[numbers.index(first) :], parameters


def execute(path, target, parameters, folder):
    """Runs one notebook with its cells' output on the screen. Gives the seconds it took."""
    began = time.perf_counter()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.stem}.unfinished.ipynb")  # papermill writes after each cell
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    papermill.execute_notebook(
        path, part, parameters, cwd=str(folder), kernel_name="python3", log_output=True, progress_bar=False
    )
    part.replace(target)
    return time.perf_counter() - began


def explain(error):
    """Where in a notebook and why it failed, in one sentence."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped."
    if isinstance(error, DeadKernelError):
        return "its kernel died, most often because memory ran out."
    reason = error.evalue if error.ename == "BadInput" else f"{error.ename}: {error.evalue}"
    return f"cell In [{error.exec_count}]: {reason}"


def show_progress():
    """Sends papermill's log to the screen: which cell runs, and what it prints, such as epochs with their losses."""
    logger, handler = logging.getLogger("papermill"), logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda entry: entry.funcName not in ("execute_notebook", "complete", "parameterize_path"))
    handler.addFilter(lambda entry: not entry.getMessage().startswith("Ending Cell"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


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
    began, seconds = time.perf_counter(), {}
    for index, path in enumerate(notebooks, start=1):
        cells = len(nbformat.read(path, as_version=4).cells)
        print(f"\n[{index}/{len(notebooks)}] {path.stem}, {cells} cells", flush=True)
        target = course.folder / "notebooks" / path.name
        try:
            seconds[path.stem] = execute(path, target, parameters, folder)
        except (PapermillExecutionError, DeadKernelError, KeyboardInterrupt) as error:
            print(f"\n{path.stem}, {explain(error)}", file=sys.stderr)
            print(f"What it did so far is in {target.with_name(f'{path.stem}.unfinished.ipynb')}", file=sys.stderr)
            values = " ".join(f"{name}={shlex.quote(str(parameters[name]))}" for name in ("PROFILE", "DATA", "SEED"))
            print(f"Go on from here with: make tutorial FROM={path.name[:2]} {values}", file=sys.stderr)
            return 1
    total, memory = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print("\nseconds a notebook: " + ", ".join(f"{name[:2]} {value:.0f}" for name, value in seconds.items()))
    print(f"in all {total / 60:.1f} min, at most {memory:.1f} GB of memory in one kernel")
    results = course.results("10")
    if results:
        print(f"\nprofile {course.profile.name}, data {course.bank.name}, seed {course.seed}; "
              "the slides' mAP is on AudioSet's 527 classes: compare orders, not levels\n")  # fmt: skip
        print(table(results["table"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
