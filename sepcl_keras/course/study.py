"""The study: every row and control once in each of some replicates, which draw everything anew.

    python -m sepcl_keras.course.study --data made    does what is missing in results/made/

A replicate has a number r. Its scenes are draw r (other made sounds, or other folds to test on); its separator,
encoders and classifiers have seed r; its rows share all of that and differ by nothing else. Replicates are independent:
as many machines as one likes share them, `--part i/n` each.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import logging
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from sepcl_keras.core.backend import has_gpu, multiplies_bfloat16, processes
from sepcl_keras.core.checks import BadInput, check_number
from sepcl_keras.core.files import atomic, fingerprint
from sepcl_keras.course.artifacts import PACKAGE, code
from sepcl_keras.course.course import RESULTS, Course
from sepcl_keras.course.outcomes import FOLDER, PLANNED, REPLICATES, committed, of_replicate, read, report
from sepcl_keras.course.slides import read_rows, training_of
from sepcl_keras.evaluation.classifiers import label_curve
from sepcl_keras.evaluation.controls import CONTROLS
from sepcl_keras.evaluation.intervals import evaluate
from sepcl_keras.evaluation.metrics import average_precisions
from sepcl_keras.evaluation.retrieval import query_by_example_map
from sepcl_keras.prepare import part_of
from sepcl_keras.views.stored import TRUE_SOURCES

VERSION = 4  # of the plan: raised when it changes
INITIALISATIONS = 4  # of the shallow classifier, whose mean scores count
MOST_PAIRED = 400  # clips with a class, and without, in query by example
MADE_OF_VIEWS = ("views", "random_views", "shuffled_views", "source_views", "log_mel")  # which a done replicate drops


def open_course(profile, data, replicate, out=None):
    """The `Course` of a replicate."""
    course = Course(profile, data, replicate, out, draw=replicate)
    course.policy = "mixed_bfloat16" if multiplies_bfloat16() else None
    return course


def definition(course, name):
    """What a run depends on; its `fingerprint` is the run's id. `setting`: what all runs of a replicate share."""
    setting = {
        "version": VERSION, "code": code(*RESULTS), "profile": dataclasses.asdict(course.profile),
        "scenes": {split: fingerprint(scenes.definition) for split, scenes in course.scenes.items()},
        "backend": keras.backend.backend(), "precision": course.policy or keras.config.dtype_policy().name,
    }  # fmt: skip
    of = {"name": name, "training": training_of(name), "replicate": course.seed, "setting": setting}
    return json.loads(json.dumps(of))  # lists for tuples, as it will be read again


def embeddings(course, name):
    """Split → h (scenes, windows, d) of a row or control, which is trained if need be, and the history or None."""
    if name in CONTROLS:
        return course.embeddings(name, course.seed), None
    if name == "untrained encoder":
        return course.embeddings(course.untrained_encoder(course.seed)), None
    if name == "supervised encoder":
        encoder, history = course.supervised_encoder(course.seed)
    else:
        encoder, history = course.encoder(read_rows()[name], seed=course.seed, show=False)
    return course.embeddings(encoder), history


def measure(course, name):
    """The results of one run."""
    h, history = embeddings(course, name)
    scores, labels = course.scores(h, initialisations=INITIALISATIONS), course.labels
    pooled, test = {split: values.mean(axis=1) for split, values in h.items()}, course.judged["test"]
    found = average_precisions(test.labels, scores)
    retrieval = query_by_example_map(pooled["test"], test.labels, course.seed, MOST_PAIRED)
    one = label_curve(pooled["train"], labels["train"], pooled["test"], labels["test"], (1,), course.seed)
    return evaluate(h, labels, scores, resamples=0) | {
        "qbe": retrieval["map"], "qbe_chance": retrieval["chance"], "one_label": one["1"],
        "map_by_events": by_events(test, scores),
        "average_precisions": [None if np.isnan(value) else round(float(value), 5) for value in found],
        "last_loss": history and history["loss"][-1], "first_losses": history and history["first_losses"],
    }  # fmt: skip


def by_events(scenes, scores):
    """mAP among the scenes of one, two and three events, by their number; recorded scenes have no such number."""
    found = {}
    for number in (1, 2, 3) if hasattr(scenes, "number_of_events") else ():
        chosen = scenes.number_of_events == number
        if scenes.labels[chosen].any():
            found[str(number)] = float(np.nanmean(average_precisions(scenes.labels[chosen], scores[chosen])))
    return found


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
    """Writes a file of results anew, with one record more; without one to see, before hours of work, that it can."""
    lines = Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
    lines += [json.dumps(record, allow_nan=False, ensure_ascii=False)] if record else []
    with atomic(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def possible(course):
    """The plan's runs that these sounds allow: of recorded scenes nobody knows the true sources, nor what else could
    sound in their places."""
    rows, listed = read_rows(), course.listing is not None
    unknown = {name for name, row in rows.items() if listed and (row.shuffled or TRUE_SOURCES in row.processors)}
    return [name for name in PLANNED if name not in unknown]


def missing(course, path):
    """The runs of a replicate that its file of results lacks: none where it is whole by other code or on another
    machine, but all where it was begun so. A file of other sounds or sizes is refused."""
    records, planned = read(path), {name: definition(course, name) for name in possible(course)}
    same, ours = ("version", "scenes", "profile"), next(iter(planned.values()))["setting"]
    for theirs in (record["definition"]["setting"] for record in records):
        if differing := [key for key in same if fingerprint(theirs[key]) != fingerprint(ours[key])]:
            raise BadInput(f"{path}: runs of another {differing[0]}; expected an empty folder, with --results.")
    if set(planned) <= set(of_replicate(records)):
        return []
    done = {record["id"] for record in records}
    names = [name for name, of in planned.items() if fingerprint(of) not in done]
    if records and len(names) == len(planned):
        print(f"{path}: begun by other code or on another backend; begun anew.", flush=True)
    return names


def run(course, path):
    """Does what is missing in a replicate's file of results, and adds each run to it as it ends; returns the path."""
    names, origin = missing(course, path), {"commit": commit()}
    add(path)
    machine = {"processor": processor(), "gpu": has_gpu(), "cores": os.cpu_count()}
    machine |= {"keras": keras.__version__, "python": platform.python_version()}
    began, title = time.perf_counter(), f"{course.bank.name}, replicate {course.seed}"
    planned = possible(course)
    print(f"{title}: {len(names)} of {len(planned)} runs to do", flush=True)
    for name in sorted(set(PLANNED) - set(planned)):
        print(f"{title}: {name!r} is left out; recorded scenes have no known sources.", flush=True)
    for number, name in enumerate(names, start=1):
        start = time.perf_counter()
        results = measure(course, name)
        of, seconds = definition(course, name), round(time.perf_counter() - start, 1)
        record = {"id": fingerprint(of), "definition": of, **origin, "machine": machine, "seconds": seconds}
        add(path, record | {"results": results})
        minutes = (time.perf_counter() - began) / 60
        found = f"mAP {results['map']:.3f}, QbE {results['qbe']:.3f}; {seconds:.0f} s"
        left = f"{minutes:.0f} min so far, about {minutes / number * (len(names) - number):.0f} to go"
        print(f"{title} [{number}/{len(names)}] {name}: {found}; {left}", flush=True)
    for name in MADE_OF_VIEWS:
        shutil.rmtree(course.folder / name, ignore_errors=True)
    return path


def _quiet():
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # many small networks, each traced once: no reason to warn


def _replicate(profile, data, replicate, out, folder):
    _quiet()
    course = open_course(profile, data, replicate, out)
    return run(course, Path(folder) / course.bank.name / f"{replicate:02}.jsonl")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="study", help="study; smoke shows in minutes that all of it runs")
    parser.add_argument("--data", default="made", help="made, or a folder that the course takes")
    parser.add_argument("--out", default=None, help="folder of networks and views; default artifacts/")
    parser.add_argument("--results", default=None, help="folder of results; for profile study the package has one")
    parser.add_argument("--replicates", type=int, default=REPLICATES, help=f"how many; {REPLICATES} are planned")
    parser.add_argument(
        "--part", type=part_of, default=(1, 1), metavar="i/n", help="which of n parts of the replicates"
    )
    jobs = processes(4)
    parser.add_argument("--jobs", type=int, default=jobs, help=f"replicates at a time; here {jobs}, on a GPU 1")
    options = parser.parse_args(arguments)
    _quiet()
    try:
        check_number("--jobs", options.jobs, least=1, whole=True)
        check_number("--replicates", options.replicates, least=1, whole=True)
        first = open_course(options.profile, options.data, 1, options.out)
        if first.bank.name == "made" and options.data != "made":
            raise BadInput(f"DATA={options.data!r}: expected a folder with another name than that of the made sounds.")
        folder = options.results or (FOLDER if options.profile == "study" else first.folder.parent / "study")
        chosen = range(options.part[0], options.replicates + 1, options.part[1])
        arguments = [(options.profile, options.data, replicate, options.out, folder) for replicate in chosen]
        for path in side_by_side(arguments, min(options.jobs, len(chosen))):
            print(f"{path}: {len(of_replicate(read(path)))} runs", flush=True)
        print(report({first.bank.name: committed(folder).get(first.bank.name, {})}))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def side_by_side(arguments, jobs):
    """The path of each replicate's results, as it ends. Each has a process of its own, and with several jobs its cores:
    half of a run is work for one core. One process is not for many replicates, as it keeps memory of each network that
    it trained (TensorFlow 2.17 on a CPU: 5 GB for 32 runs). A GPU is for one process, this one."""
    if jobs < 2 and (len(arguments) < 2 or has_gpu()):
        yield from (_replicate(*each) for each in arguments)
        return
    threads = str(max(1, os.cpu_count() // jobs))
    os.environ |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), threads)
    pool = concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    try:
        waiting = [pool.submit(_replicate, *each) for each in arguments]
        yield from (future.result() for future in concurrent.futures.as_completed(waiting))
    finally:
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main())
