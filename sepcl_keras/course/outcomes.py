"""What the study found: its records read, its table, and its verdicts on the ten relations."""

import json
from pathlib import Path

import numpy as np

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import fingerprint
from sepcl_keras.course.slides import RELATIONS, plan, read_rows, training_of
from sepcl_keras.evaluation.intervals import LEVEL, paired_difference

FOLDER = Path(__file__).parent / "results"
LEAST_SEEDS = 3  # fewer decide nothing
METRICS = ("map", "linear_map", "d_prime", "qbe")


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
    return paired_difference(np.zeros_like(draws), draws).ends


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
    one does although it is one of several: with an interval as much wider as Bonferroni asks. Else it is undecided.
    Where the best of several rows is compared, more rows have more luck: with four and three that are truly equal, by
    0.002 (seeds 0.01 apart) to 0.005 (0.03) in favour of the four.
    """
    gaps, refuted = [], False
    for sides in relation.comparisons:
        seeds = sorted(set.intersection(*(set(found.get(name, ())) for side in sides for name in side)))
        if len(seeds) < LEAST_SEEDS:
            gaps.append(None)
            continue
        # (seeds, 1 + draws), each the best of its rows
        pair = [np.max([[found[name][s]["map_draws"] for s in seeds] for name in side], axis=0) for side in sides]
        gaps.append(paired_difference(*pair, relation.margin))
        level = 1 - (1 - LEVEL) / len(relation.comparisons)
        refuted |= paired_difference(*pair, relation.margin, level).verdict == "fails"
    if None in gaps:
        return "too few seeds", gaps
    holds = all(gap.verdict == "holds" for gap in gaps)
    return "fails" if refuted else "holds" if holds else "undecided", gaps


def report(found):
    """The table and the relations as text."""
    lines = [f"{'':30} seeds  mAP   ± sd   linear d′    QbE   of supervised: mAP QbE  slides"]
    for line in table(found):
        names = ("map", "spread", "linear_map", "d_prime", "qbe", "map_share", "qbe_share", "slides")
        cells = " ".join("  –  " if line[name] is None else f"{line[name]:5.3f}" for name in names)
        lines.append(f"{line['row']:30} {line['seeds']:5} {cells}")
    for relation in RELATIONS:
        verdict, gaps = judge(relation, found)
        lines.append(f"{relation.number:2} {relation.claim}: {verdict}")
        for title, gap in zip(relation.titles().values(), gaps, strict=True):
            if gap is not None:
                lines.append(f"     {title}: {gap.mean:+.3f}, 95 % from {gap.low:+.3f} to {gap.high:+.3f}")
    return "\n".join(lines)
