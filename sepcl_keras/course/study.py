"""The study: every row of the tables by several seeds, each run once.

python -m sepcl_keras.course.study --data made    trains and evaluates what is missing in results/made.jsonl
"""

import argparse
import concurrent.futures
import dataclasses
import json
import logging
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from sepcl_keras.core.backend import has_gpu, processes
from sepcl_keras.core.checks import BadInput, check_number
from sepcl_keras.core.files import atomic, fingerprint
from sepcl_keras.course.artifacts import PACKAGE
from sepcl_keras.course.course import Course
from sepcl_keras.course.outcomes import FOLDER, by_name, read, report
from sepcl_keras.course.slides import plan, read_rows, training_of
from sepcl_keras.evaluation.classifiers import label_curve
from sepcl_keras.evaluation.controls import CONTROLS
from sepcl_keras.evaluation.intervals import map_draws
from sepcl_keras.evaluation.metrics import average_precisions
from sepcl_keras.scenes.banks import SPLITS
from sepcl_keras.views.stored import TRUE_SOURCES

VERSION = 3  # of what a run means: raised when the code changes that, so that older numbers do not count
# Of a profile, what no run of the study depends on: sizes of the networks that are no part of it.
NOT_DEFINING = ("name", "width", "pretraining_steps", "supervised_steps")


def definition(course, name, seed):
    """What a run depends on but the code of this library; its `fingerprint` is the run's id in the results.

    Under `setting` stands what all runs share that may be compared.
    """
    profile = {key: value for key, value in dataclasses.asdict(course.profile).items() if key not in NOT_DEFINING}
    setting = {
        "version": VERSION, "profile": profile, "separator_seed": course.seed,
        "scenes": {split: fingerprint(scenes.definition) for split, scenes in course.scenes.items()},
        "backend": keras.backend.backend(), "precision": keras.config.dtype_policy().name,
    }  # fmt: skip
    of = {"name": name, "training": training_of(name), "seed": seed, "setting": setting}
    return json.loads(json.dumps(of))  # lists for tuples, as it will be read again


def embeddings(course, name, seed):
    """Split → h (scenes, windows, d) of a row or control, which is trained if need be, and the history or None."""
    if name in CONTROLS:
        return course.embeddings(name, seed), None
    if name == "untrained encoder":
        return course.embeddings(course.untrained_encoder(seed)), None
    if name == "supervised encoder":
        encoder, history = course.supervised_encoder(seed)
    else:
        encoder, history = course.encoder(read_rows()[name], seed=seed, show=False)
    return course.embeddings(encoder), history


def measure(course, name, seed):
    """The results of one run: `Course.evaluate`, and what the study needs besides."""
    h, history = embeddings(course, name, seed)
    scores, labels = course.scores(h, seed), course.labels
    pooled = {split: values.mean(axis=1) for split, values in h.items()}
    found = average_precisions(labels["test"], scores)
    return course.evaluate(h, scores) | {
        "average_precisions": [None if np.isnan(value) else float(value) for value in found],
        "label_curve": label_curve(pooled["train"], labels["train"], pooled["test"], labels["test"], seed=seed),
        "map_draws": map_draws(labels["test"], scores).round(5).tolist(),
        "last_loss": history and history["loss"][-1],
    }


def commit():
    """The commit that the code is of, with a + where a tracked file of code or tables is changed; None outside git."""

    def git(*command):
        done = subprocess.run(["git", "-C", str(PACKAGE), *command], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        head, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "-uno", "--", ".")
    except FileNotFoundError:
        return None
    return f"{head}+" if head and changed else head


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def add(path, record=None):
    """Writes the file of results anew, with one record more; without one to see, before hours of work, that it can."""
    lines = Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
    lines += [json.dumps(record, allow_nan=False)] if record else []
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


_course = None  # of a process that does some of the runs


def _open(arguments, policy):
    global _course
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # many small networks, each traced once: no reason to warn
    keras.config.set_dtype_policy(policy)
    _course = Course(*arguments)


def _timed(name, seed, course=None):
    began = time.perf_counter()
    results = measure(course or _course, name, seed)
    return name, seed, round(time.perf_counter() - began, 1), results


def measured(course, todo, jobs):
    """(name, seed, seconds, results) of each run, as it ends; with several jobs each has a process and its cores: half
    of a run is work for one core."""
    if jobs == 1 or len(todo) < 2:
        yield from (_timed(name, seed, course) for name, seed in todo)
        return
    of_sources = {TRUE_SOURCES in read_rows()[name].processors for name, _ in todo if name in read_rows()}
    for split in SPLITS:  # what all share is made before they start
        course.log_mel(split)
    for make in (course.source_views if each else course.views for each in of_sources):
        make()
    threads = str(max(1, os.cpu_count() // jobs))
    os.environ |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), threads)
    arguments = course.arguments, keras.config.dtype_policy().name
    pool = concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _open, arguments)
    try:
        waiting = [pool.submit(_timed, name, seed) for name, seed in todo]
        yield from (future.result() for future in concurrent.futures.as_completed(waiting))
    finally:
        pool.shutdown(cancel_futures=True)


def possible(course):
    """The plan's runs that these sounds allow: of recorded scenes nobody knows the true sources."""
    rows = read_rows()
    unknown = {name for name, row in rows.items() if course.listing and TRUE_SOURCES in row.processors}
    for name in sorted(unknown):
        print(f"{course.bank.name}: {name!r} is left out; recorded scenes have no known sources.", flush=True)
    return [(name, seed) for name, seed in plan() if name not in unknown]


def run(course, path, jobs=1):
    """Does what is planned and not in the file `path` yet, `jobs` runs at a time; adds each to the file as it ends."""
    done = {record["id"] for record in read(path)}
    planned = possible(course)
    todo = [(name, seed) for name, seed in planned if fingerprint(definition(course, name, seed)) not in done]
    print(f"{len(planned)} runs planned, {len(planned) - len(todo)} of them in {path}", flush=True)
    add(path)
    machine = {"processor": processor(), "gpu": has_gpu(), "cores": os.cpu_count()}
    machine |= {"keras": keras.__version__, "python": platform.python_version()}
    origin, began = {"commit": commit(), "machine": machine}, time.perf_counter()  # of the code as it was read
    for number, (name, seed, seconds, results) in enumerate(measured(course, todo, jobs), start=1):
        of = definition(course, name, seed)
        add(path, {"id": fingerprint(of), "definition": of, **origin, "seconds": seconds, "results": results})
        minutes = (time.perf_counter() - began) / 60
        left = minutes / number * (len(todo) - number)
        print(f"[{number}/{len(todo)}] {name}, seed {seed}: mAP {results['map']:.3f}; "
              f"{minutes:.0f} min so far, about {left:.0f} to go", flush=True)  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="study", help="study; smoke shows in minutes that all of it runs")
    parser.add_argument("--data", default="made", help="made, or a folder in the layout of ESC-50")
    parser.add_argument("--out", default=None, help="folder of networks and views; default artifacts/")
    parser.add_argument("--results", default=None, help="folder of results; for profile study the package has one")
    jobs = processes(4)
    parser.add_argument("--jobs", type=int, default=jobs, help=f"runs at a time; here {jobs}, on a GPU 1")
    options = parser.parse_args(arguments)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # many small networks, each traced once: no reason to warn
    if has_gpu():
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        check_number("--jobs", options.jobs, least=1, whole=True)
        course = Course(options.profile, options.data, 0, options.out)
        folder = options.results or (FOLDER if options.profile == "study" else course.folder / "study")
        path = Path(folder) / f"{course.bank.name}.jsonl"
        if course.bank.name == "made" and options.data != "made":
            raise BadInput(f"DATA={options.data!r}: expected a folder with another name than that of the made sounds.")
        run(course, path, options.jobs)
        print(report(by_name(read(path))))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
