"""The study: every row of the tables by several seeds, each run once; its numbers, and what they say of the relations.

python -m sepcl_keras.study --data made        trains and evaluates what is missing in data/results/made.jsonl
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

from sepcl_keras import evaluation, intervals
from sepcl_keras.backend import has_gpu
from sepcl_keras.course import Course
from sepcl_keras.files import ROOT, BadInput, atomic, fingerprint
from sepcl_keras.processors import TRUE_SOURCES
from sepcl_keras.scenes import SPLITS
from sepcl_keras.tables import RELATIONS, read_rows

VERSION = 2  # of what a run means: raised when the code changes that, so that older numbers do not count
FOLDER = ROOT / "data" / "results"
CONTROLS = (*evaluation.CONTROLS, "untrained encoder", "supervised encoder")
CONTROL_SEEDS = 3  # as `seeds` of a row
LEAST_SEEDS = 3  # fewer decide nothing
# What no run of the study depends on: of a profile, sizes of the networks that are no part of it; of a row.
NOT_DEFINING = ("name", "width", "pretraining_steps", "supervised_steps")
NOT_OF_A_TRAINING = ("row", "table", "slides", "tutorial", "seeds")
METRICS = ("map", "linear_map", "d_prime", "qbe")


def plan():
    """The table of runs: pairs (name, seed) of each row and control, the first seed of all before the second of any."""
    seeds = dict.fromkeys(CONTROLS, CONTROL_SEEDS) | {name: row.seeds for name, row in read_rows().items()}
    return [(name, seed) for seed in range(1, max(seeds.values()) + 1) for name in seeds if seed <= seeds[name]]


def definition(course, name, seed):
    """What a run depends on but the code of this library; its `fingerprint` is the run's id in the results.

    Under `setting` stands what all runs share that may be compared. (Of made sounds, their code is part of it.)
    """
    profile = {key: value for key, value in dataclasses.asdict(course.profile).items() if key not in NOT_DEFINING}
    setting = {
        "version": VERSION, "profile": profile, "separator_seed": course.seed,
        "scenes": {split: fingerprint(scenes.definition) for split, scenes in course.scenes.items()},
        "backend": keras.backend.backend(), "precision": keras.config.dtype_policy().name,
    }  # fmt: skip
    of = {"name": name, "training": training_of(name), "seed": seed, "setting": setting}
    return json.loads(json.dumps(of))  # lists for tuples, as it will be read again


def training_of(name):
    """What defines the training of a row, None for a control."""
    row = read_rows().get(name)
    return row and {key: value for key, value in dataclasses.asdict(row).items() if key not in NOT_OF_A_TRAINING}


def embeddings(course, name, seed):
    """Split → h (scenes, windows, d) of a row or control, which is trained if need be, and the history or None."""
    if name in evaluation.CONTROLS:
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
    found = evaluation.average_precisions(labels["test"], scores)
    return course.evaluate(h, scores) | {
        "average_precisions": [None if np.isnan(value) else float(value) for value in found],
        "label_curve": evaluation.label_curve(
            pooled["train"], labels["train"], pooled["test"], labels["test"], seed=seed
        ),
        "map_draws": intervals.map_draws(labels["test"], scores).round(5).tolist(),
        "last_loss": history and history["loss"][-1],
    }


def commit():
    """The commit that the code is of, with a + where a tracked file of code or tables is changed; None outside git."""

    def git(*command):
        done = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "-uno", "--", "sepcl_keras", "data/*.csv")
    except FileNotFoundError:
        return None
    return f"{head}+" if head and changed else head


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read(path):
    """The records in a file of results, one a line; an empty list where there is none yet."""
    path, records = Path(path), []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            of, _ = record["definition"], record["results"]["map_draws"]
            if record["id"] != fingerprint(of) or not {"name", "training", "seed", "setting"} <= set(of):
                raise ValueError(f"its id {record['id']} is not that of its definition")
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise BadInput(f"{path}, line {number}: expected the record of a run, but {reason}.") from None
        records.append(record)
    return records


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
    """(name, seed, seconds, results) of each run, as it ends; with several jobs each has a process and its cores.

    Half of a run is work for one core: two runs side by side on two cores, each with one thread, end sooner than one
    after the other with two.
    """
    if jobs == 1 or len(todo) < 2:
        yield from (_timed(name, seed, course) for name, seed in todo)
        return
    rows = [read_rows()[name] for name, _ in todo if name in read_rows()]
    for split in SPLITS:
        course.log_mel(split)
    # What all share is made before they start.
    for of_sources, make in ((True, course.source_views), (False, course.views)):
        if any((TRUE_SOURCES in row.processors) == of_sources for row in rows):
            make()
    threads = str(max(1, os.cpu_count() // jobs))
    os.environ |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), threads)
    pool = concurrent.futures.ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), _open, (course.arguments, keras.config.dtype_policy().name)
    )
    try:
        waiting = [pool.submit(_timed, name, seed) for name, seed in todo]
        yield from (future.result() for future in concurrent.futures.as_completed(waiting))
    finally:
        pool.shutdown(cancel_futures=True)


def run(course, path, jobs=1):
    """Does what is planned and not in the file `path` yet, `jobs` runs at a time; adds each to the file as it ends."""
    done = {record["id"] for record in read(path)}
    todo = [(name, seed) for name, seed in plan() if fingerprint(definition(course, name, seed)) not in done]
    print(f"{len(plan())} runs planned, {len(plan()) - len(todo)} of them in {path}", flush=True)
    add(path)
    machine = {
        "processor": processor(), "gpu": has_gpu(), "cores": os.cpu_count(), "keras": keras.__version__,
        "python": platform.python_version(),
    }  # fmt: skip
    origin, began = {"commit": commit(), "machine": machine}, time.perf_counter()  # of the code as it was read
    for number, (name, seed, seconds, results) in enumerate(measured(course, todo, jobs), start=1):
        of = definition(course, name, seed)
        add(path, {"id": fingerprint(of), "definition": of, **origin, "seconds": seconds, "results": results})
        minutes = (time.perf_counter() - began) / 60
        left = minutes / number * (len(todo) - number)
        print(f"[{number}/{len(todo)}] {name}, seed {seed}: mAP {results['map']:.3f}; "
              f"{minutes:.0f} min so far, about {left:.0f} to go", flush=True)  # fmt: skip


def by_name(records):
    """Name → seed → results, of the records that may be compared: those in the setting of the last one whose training
    is still that of the table."""
    found = {}
    for record in records:
        of = record["definition"]
        same_setting = fingerprint(of["setting"]) == fingerprint(records[-1]["definition"]["setting"])
        if same_setting and fingerprint(of["training"]) == fingerprint(training_of(of["name"])):
            found.setdefault(of["name"], {})[of["seed"]] = record["results"]
    return found


def committed(folder=FOLDER):
    """Data → name → seed → results, of all files in the folder that hold some; made sounds first."""
    paths = sorted(Path(folder).glob("*.jsonl"), key=lambda path: (path.stem != "made", path.stem))
    return {path.stem: found for path in paths if (found := by_name(read(path)))}


def level(of_seeds):
    """Mean mAP over the seeds of a row (seed → results), and its interval's ends: the mean where seeds are too few."""
    draws = np.array([results["map_draws"] for results in of_seeds.values()])
    if len(draws) < LEAST_SEEDS:
        return (float(draws[:, 0].mean()),) * 3
    return intervals.paired_difference(np.zeros_like(draws), draws).ends


def table(found):
    """A dict for each row and control that has run, in the order of the plan: means over seeds of `METRICS`, `spread`
    (standard deviation of mAP over seeds), mAP and QbE as a share of the supervised control's, the slides' mAP."""
    rows, lines = read_rows(), []
    for name in dict.fromkeys(name for name, _ in plan() if name in found):
        runs = list(found[name].values())
        line = {key: float(np.mean([results[key] for results in runs])) for key in (*METRICS, "qbe_chance", "chance")}
        line["spread"] = float(np.std([results["map"] for results in runs], ddof=1)) if len(runs) > 1 else None
        lines.append({"row": name, "seeds": len(runs), "slides": rows[name].slides if name in rows else None} | line)
    (ceiling,) = [line for line in lines if line["row"] == "supervised encoder"] or [None]
    for line in lines:
        line |= {f"{key}_share": ceiling and line[key] / ceiling[key] for key in ("map", "qbe")}
    return lines


def judge(relation, found):
    """The verdict on a relation, and for each comparison its `Difference`, None where it has too few seeds.

    A comparison takes the seeds that all its rows have. The relation holds where each comparison does, and fails where
    one does although it is one of several: its interval is as much wider as Bonferroni asks, so that a relation of many
    comparisons, all truly zero, fails no more often than one of a single one. Else it is undecided. Where the best of
    several rows is compared, more rows have more luck: with four and three that are truly equal, by 0.002 (seeds 0.01
    apart) to 0.005 (0.03) in favour of the four.
    """
    gaps, refuted = [], False
    for sides in relation.comparisons:
        seeds = sorted(set.intersection(*(set(found.get(name, ())) for side in sides for name in side)))
        if len(seeds) < LEAST_SEEDS:
            gaps.append(None)
            continue
        pair = [  # (seeds, 1 + draws), each the best of its rows
            np.max([[found[name][seed]["map_draws"] for seed in seeds] for name in side], axis=0) for side in sides
        ]
        gaps.append(intervals.paired_difference(*pair, relation.margin))
        level = 1 - (1 - intervals.LEVEL) / len(relation.comparisons)
        refuted |= intervals.paired_difference(*pair, relation.margin, level).verdict == "fails"
    if None in gaps:
        return "too few seeds", gaps
    holds = all(gap.verdict == "holds" for gap in gaps)
    return "fails" if refuted else "holds" if holds else "undecided", gaps


def report(found):
    """The table and the relations as text."""
    lines = [f"{'':28} seeds  mAP   ± sd   linear d′    QbE   of supervised: mAP QbE  slides"]
    for line in table(found):
        cells = [line["map"], line["spread"], line["linear_map"], line["d_prime"], line["qbe"], line["map_share"],
                 line["qbe_share"], line["slides"]]  # fmt: skip
        cells = " ".join("  –  " if cell is None else f"{cell:5.3f}" for cell in cells)
        lines.append(f"{line['row']:28} {line['seeds']:5} {cells}")
    for relation in RELATIONS:
        verdict, gaps = judge(relation, found)
        lines.append(f"{relation.number:2} {relation.claim}: {verdict}")
        for title, gap in zip(relation.titles().values(), gaps, strict=True):
            if gap is not None:
                lines.append(f"     {title}: {gap.mean:+.3f}, 95 % from {gap.low:+.3f} to {gap.high:+.3f}")
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="study", help="study; smoke shows in minutes that all of it runs")
    parser.add_argument("--data", default="made", help="made, or a folder in the layout of ESC-50")
    parser.add_argument("--out", default=None, help="folder of networks and views; default artifacts/")
    parser.add_argument("--results", default=None, help="folder of results; default data/results/ for profile study")
    parser.add_argument(
        "--jobs", type=int, default=None, help="runs at a time; default one a core, at most 4; 1 on a GPU"
    )
    options = parser.parse_args(arguments)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # many small networks, each traced once: no reason to warn
    if has_gpu():
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        course = Course(options.profile, options.data, 0, options.out)
        folder = options.results or (FOLDER if options.profile == "study" else course.folder / "study")
        path = Path(folder) / f"{course.bank.name}.jsonl"
        if course.bank.name == "made" and options.data != "made":
            raise BadInput(f"DATA={options.data!r}: expected a folder with another name than that of the made sounds.")
        run(course, path, options.jobs or (1 if has_gpu() else min(4, os.cpu_count())))
        print(report(by_name(read(path))))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
