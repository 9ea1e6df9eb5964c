"""The study: every row of the tables by several seeds, each run once; its numbers, and what they say of the relations.

python -m sepcl_keras.study --data made        trains and evaluates what is missing in data/results/made.jsonl
"""

import argparse
import dataclasses
import json
import logging
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from sepcl_keras import evaluation, intervals, training
from sepcl_keras.backend import has_gpu
from sepcl_keras.course import Course
from sepcl_keras.files import ROOT, BadInput, atomic, fingerprint
from sepcl_keras.tables import RELATIONS, read_rows

VERSION = 1  # of what a run means: raised when the code changes that, so that older numbers do not count
FOLDER = ROOT / "data" / "results"
CONTROLS = (*evaluation.CONTROLS, "untrained encoder", "supervised encoder")
CONTROL_SEEDS = 3  # as `seeds` of a row
LEAST_SEEDS = 3  # fewer decide nothing
# What no run of the study depends on, of a profile: the networks of full size are no part of it. And of a row.
NOT_DEFINING = ("name", "width", "pretraining_steps", "supervised_steps")
NOT_OF_A_TRAINING = ("row", "table", "slides", "tutorial", "seeds")
METRICS = ("map", "linear_map", "d_prime", "qbe")


def plan():
    """The table of runs: pairs (name, seed) of each row and control, the first seed of all before the second of any."""
    seeds = dict.fromkeys(CONTROLS, CONTROL_SEEDS) | {name: row.seeds for name, row in read_rows().items()}
    return [(name, seed) for seed in range(1, max(seeds.values()) + 1) for name in seeds if seed <= seeds[name]]


def definition(course, name, seed):
    """All that a run depends on but the code; its `fingerprint` is the run's name in the results."""
    profile = {key: value for key, value in dataclasses.asdict(course.profile).items() if key not in NOT_DEFINING}
    of = {
        "version": VERSION, "name": name, "training": training_of(name), "seed": seed, "separator_seed": course.seed,
        "profile": profile, "data": {"name": course.bank.name, "fingerprint": fingerprint(course.bank.definition)},
    }  # fmt: skip
    return json.loads(json.dumps(of))  # lists for tuples, as it will be read again


def training_of(name):
    """What defines the training of a row, None for a control."""
    row = read_rows().get(name)
    return row and {key: value for key, value in dataclasses.asdict(row).items() if key not in NOT_OF_A_TRAINING}


def embeddings(course, name, seed):
    """Split → h (scenes, windows, d) of a row or control, which is trained if need be, and the history or None."""
    p = course.profile
    if name in evaluation.CONTROLS:
        return course.embeddings(name), None
    if name == "untrained encoder":
        return course.embeddings(training.new_encoder(p.embedding_dim, p.ablation_width, seed)), None
    if name == "supervised encoder":
        encoder, history = course.supervised_encoder(seed)
    else:
        encoder, history = course.encoder(read_rows()[name], seed=seed, show=False)
    return course.embeddings(encoder), history


def measure(course, name, seed):
    """The record of one run."""
    began = time.perf_counter()
    h, history = embeddings(course, name, seed)
    trained = time.perf_counter()
    scores, labels = course.scores(h, seed), course.labels
    pooled = {split: values.mean(axis=1) for split, values in h.items()}
    results = course.evaluate(h, scores) | {
        "average_precisions": [
            None if np.isnan(value) else float(value) for value in evaluation.average_precisions(labels["test"], scores)
        ],
        "label_curve": evaluation.label_curve(
            pooled["train"], labels["train"], pooled["test"], labels["test"], seed=seed
        ),
        "map_draws": intervals.map_draws(labels["test"], scores).round(5).tolist(),
    }
    of = definition(course, name, seed)
    return {
        "id": fingerprint(of), "row": name, "seed": seed, "definition": of, "commit": commit(), "machine": machine(),
        "seconds": {"embeddings": round(trained - began, 1), "evaluation": round(time.perf_counter() - trained, 1)},
        "last_loss": history and history["loss"][-1], "results": results,
    }  # fmt: skip


def commit():
    """The commit that the code is of, with a + where a tracked file of it is changed; None outside of git."""

    def git(*command):
        done = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head and head + (
            "+" if git("status", "--porcelain", "-uno", "--", "sepcl_keras", "data/rows.csv") else ""
        )
    except FileNotFoundError:
        return None


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine():
    return {
        "processor": processor(), "gpu": has_gpu(), "cores": os.cpu_count(), "backend": keras.backend.backend(),
        "precision": keras.config.dtype_policy().name, "keras": keras.__version__, "python": platform.python_version(),
    }  # fmt: skip


def read(path):
    """The records in a file of results, one a line; an empty list where there is none yet."""
    path, records = Path(path), []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if record["id"] != fingerprint(record["definition"]):
                raise ValueError(f"its id {record['id']} is not that of its definition")
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path}, line {number}: expected the record of a run, but {error}.") from None
        records.append(record)
    return records


def run(course, path):
    """Does what is planned and not in the file `path` yet, and adds each run to it as it ends."""
    done = {record["id"] for record in read(path)}
    todo = [(name, seed) for name, seed in plan() if fingerprint(definition(course, name, seed)) not in done]
    print(f"{len(plan())} runs planned, {len(plan()) - len(todo)} of them in {path}", flush=True)
    began = time.perf_counter()
    for number, (name, seed) in enumerate(todo, start=1):
        record = measure(course, name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        with atomic(path) as temporary:
            temporary.write_text(before + json.dumps(record, allow_nan=False) + "\n", encoding="utf-8")
        minutes = (time.perf_counter() - began) / 60
        left = minutes / number * (len(todo) - number)
        print(f"[{number}/{len(todo)}] {name}, seed {seed}: mAP {record['results']['map']:.3f}; "
              f"{minutes:.0f} min so far, about {left:.0f} to go", flush=True)  # fmt: skip


def by_name(records):
    """Name → seed → results, of the records whose training is still that of the table; of two alike the later."""
    found = {}
    for record in records:
        of = record["definition"]
        training_now = json.loads(json.dumps(training_of(record["row"])))
        if of["version"] == VERSION and of["training"] == training_now:
            found.setdefault(record["row"], {})[record["seed"]] = record["results"]
    return found


def committed(folder=FOLDER):
    """Data → name → seed → results, of all files in the folder that hold some; made sounds first."""
    paths = sorted(Path(folder).glob("*.jsonl"), key=lambda path: (path.stem != "made", path.stem))
    return {path.stem: found for path in paths if (found := by_name(read(path)))}


def level(of_seeds):
    """Mean mAP over the seeds of a row (seed → results), with its interval, as a `Difference` from nothing."""
    draws = np.array([results["map_draws"] for results in of_seeds.values()])
    return intervals.paired_difference(np.zeros_like(draws), draws)


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


def differences(relation, found):
    """For each comparison its `Difference` by the seeds that all its rows have; None where those are too few."""
    gaps = []
    for sides in relation.comparisons:
        names = [name for side in sides for name in side]
        seeds = sorted(set.intersection(*(set(found.get(name, ())) for name in names)))
        if len(seeds) < LEAST_SEEDS:
            gaps.append(None)
            continue
        lower, higher = (  # (seeds, 1 + draws), each the best of its rows
            np.max([[found[name][seed]["map_draws"] for seed in seeds] for name in side], axis=0) for side in sides
        )
        gaps.append(intervals.paired_difference(lower, higher, relation.margin))
    return gaps


def verdict(gaps):
    """Of a relation: it holds where each comparison does, fails where one does, and is undecided else."""
    if None in gaps:
        return "too few seeds"
    verdicts = [gap.verdict for gap in gaps]
    return "fails" if "fails" in verdicts else "holds" if set(verdicts) == {"holds"} else "undecided"


def report(found):
    """The table and the relations as text."""
    lines = [f"{'':28} seeds  mAP   ± sd   linear d′    QbE   of supervised: mAP QbE  slides"]
    for line in table(found):
        cells = [line["map"], line["spread"], line["linear_map"], line["d_prime"], line["qbe"], line["map_share"],
                 line["qbe_share"], line["slides"]]  # fmt: skip
        cells = " ".join("  –  " if cell is None else f"{cell:5.3f}" for cell in cells)
        lines.append(f"{line['row']:28} {line['seeds']:5} {cells}")
    for relation in RELATIONS:
        gaps = differences(relation, found)
        lines.append(f"{relation.number:2} {relation.claim}: {verdict(gaps)}")
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
    options = parser.parse_args(arguments)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # many small networks, each traced once: no reason to warn
    if has_gpu():
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        course = Course(options.profile, options.data, 0, options.out)
        folder = options.results or (FOLDER if options.profile == "study" else course.folder / "study")
        path = Path(folder) / f"{course.bank.name}.jsonl"
        run(course, path)
        print(report(by_name(read(path))))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
