"""What the study found: its records read, its table, and its verdicts on the ten claims.

A replicate draws everything anew, and within it all rows share sounds, separator and seeds. So each replicate gives one
number for a contrast, and a t interval over replicates holds every source of variation at once. (Recordings are dealt
anew into folds, but no new ones come in: see data/STUDY.md.)
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau
from scipy.stats import t as student_t

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import fingerprint
from sepcl_keras.course.slides import CLAIMS, CONTROLS, QUESTIONS, read_rows, training_of

FOLDER = Path(__file__).parent / "results"
REPLICATES = 10  # planned
LEAST = 3  # replicates; fewer decide nothing
LEVEL = 0.95
INTEREST = 0.01  # the smallest effect of interest, of mAP and of QbE
METRICS = {"map": "mAP", "qbe": "QbE"}  # by which claims are judged
PLANNED = (*CONTROLS, *read_rows())  # the runs of a replicate


def read(path):
    """The records in a file of results, one a line; an empty list where there is none yet."""
    path, records = Path(path), []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            of, _ = record["definition"], [float(record["results"][metric]) for metric in METRICS]
            if record["id"] != fingerprint(of) or not {"name", "training", "replicate", "setting"} <= set(of):
                raise ValueError(f"its id {record['id']} is not that of its definition")
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise BadInput(f"{path}, line {number}: expected the record of a run, but {reason}.") from None
        records.append(record)
    return records


def of_replicate(records):
    """Name → results of the records that may be compared: those in the setting of the last one, code included, whose
    training is still that of the table."""
    setting = fingerprint(records[-1]["definition"]["setting"]) if records else None
    found = {}
    for record in records:
        of = record["definition"]
        same = fingerprint(of["setting"]) == setting and fingerprint(of["training"]) == fingerprint(
            training_of(of["name"])
        )
        if same:
            found[of["name"]] = record["results"]
    return found


def committed(folder=FOLDER):
    """Bank → replicate → name → results, of all `<bank>/<replicate>.jsonl` in the folder; made sounds first."""
    banks = sorted({path.parent for path in Path(folder).glob("*/*.jsonl")}, key=lambda p: (p.name != "made", p.name))
    files = {bank: sorted(bank.glob("*.jsonl")) for bank in banks}
    return {bank.name: {int(path.stem): of_replicate(read(path)) for path in paths} for bank, paths in files.items()}


def with_all(found, names):
    """The replicates that have run all these rows and controls."""
    return sorted(replicate for replicate, results in found.items() if set(names) <= set(results))


def whole(found):
    """The replicates that have run all that has run in any."""
    return with_all(found, set().union(*found.values()))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mean of a contrast over `number` replicates, the ends of its 95 % interval, and the p of a t test against
    −margin, two-sided. With fewer than three replicates there is no interval, and p is 1."""

    number: int
    mean: float
    low: float
    high: float
    p: float

    @property
    def ends(self):
        """(mean, low, high)."""
        return self.mean, self.low, self.high

    @property
    def text(self):
        """The mean and, where there are replicates enough for one, the interval; a dash without any."""
        mean, low, high = map(_signed, self.ends)
        return "–" if not self.number else mean if self.number < LEAST else f"{mean} ({low} to {high})"


def estimate(values, margin=0.0):
    """The `Estimate` of a contrast from its values in the replicates."""
    values = np.asarray(values, "float64")
    mean, number = float(values.mean()) if len(values) else np.nan, len(values)
    if number < LEAST:
        return Estimate(number, mean, mean, mean, 1.0)
    error = values.std(ddof=1) / np.sqrt(number)
    reach = float(student_t.ppf((1 + LEVEL) / 2, number - 1) * error)
    if error == 0:
        return Estimate(number, mean, mean, mean, float(mean == -margin))
    p = float(2 * student_t.sf(abs(mean + margin) / error, number - 1))
    return Estimate(number, mean, mean - reach, mean + reach, p)


def contrast(found, wanted, metric="map", margin=0.0):
    """The `Estimate` of a `Contrast`, over the replicates that have its rows."""
    replicates = with_all(found, (*wanted.higher, *wanted.lower))
    values = [wanted.of({name: found[r][name][metric] for name in found[r]}) for r in replicates]
    return estimate(values, margin)


def holm(ps):
    """p values adjusted for their number (Holm 1979), in their order."""
    order, adjusted, largest = np.argsort(ps, kind="stable"), np.empty(len(ps)), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted.tolist()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """On a claim by one metric: the word, p adjusted for all claims, and the `Estimate` of each contrast."""

    word: str
    p: float
    estimates: tuple

    @property
    def words(self):
        """The word and, until the planned replicates are there, how many it rests on."""
        number = min(each.number for each in self.estimates)
        return self.word if number < LEAST or number >= REPLICATES else f"{self.word} so far ({number} of {REPLICATES})"


def verdicts(found, metric="map", claims=CLAIMS):
    """Number → `Verdict` of each claim.

    A claim is **absent** where the 95 % interval of each of its contrasts lies within the smallest effect of interest,
    ± 0.01 (not one with a margin, which no effect would support). It **holds** where all lie above −margin and p,
    adjusted by Holm over the claims, is below 0.05; it **fails** likewise below; else it is **undecided**. Of several
    contrasts, all must lie above: their largest p counts; for one to lie below, the smallest p times their number.
    """
    estimates = [tuple(contrast(found, each, metric, claim.margin) for each in claim.contrasts) for claim in claims]
    below = [[e.p for e in some if e.mean < -claim.margin] for claim, some in zip(claims, estimates, strict=True)]
    ps = [
        min(1.0, min(low) * len(some)) if low else max(e.p for e in some)
        for low, some in zip(below, estimates, strict=True)
    ]  # fmt: skip
    judged = {}
    for claim, some, low, p in zip(claims, estimates, below, holm(ps), strict=True):
        within = not claim.margin and all(e.low > -INTEREST and e.high < INTEREST for e in some)
        if min(e.number for e in some) < LEAST:
            word = "too few replicates"
        elif within:
            word = "absent"
        else:
            word = "undecided" if p >= 1 - LEVEL else "fails" if low else "holds"
        judged[claim.number] = Verdict(word, p, some)
    return judged


def table(found):
    """A dict for each row and control, in the order of the plan: means over the replicates that have run all that has
    run in any, so that two lines may be compared; the slides' mAP."""
    names = [name for name in PLANNED if any(name in results for results in found.values())]
    replicates, rows, lines = whole(found), read_rows(), []
    for name in names if replicates else ():
        runs = [found[replicate][name] for replicate in replicates]
        line = {"row": name, "replicates": len(runs), "slides": rows[name].slides if name in rows else None}
        keys = ("map", "linear_map", "d_prime", "qbe", "one_label", "chance", "qbe_chance")
        lines.append(line | {key: float(np.mean([results[key] for results in runs])) for key in keys})
    return lines


def agreement(found, metric="map"):
    """Kendall's τ between the order of the slides' rows of Tables 2 and 4 there and here, and its p; NaN without."""
    slides = {name: row.slides for name, row in read_rows().items() if row.table in (2, 4) and row.slides}
    lines = {line["row"]: line[metric] for line in table(found)}
    names = [name for name in slides if name in lines]
    if len(names) < 3:
        return np.nan, np.nan
    tau, p = kendalltau([slides[name] for name in names], [lines[name] for name in names])
    return float(tau), float(p)


def markdown(rows, columns):
    """A list of dicts as a table in Markdown; `columns` maps a key to its heading. Numbers with three decimals, None as
    a dash."""

    def cell(value):
        return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(cell(row.get(key)) for key in columns) + " |" for row in rows)])


def report(results):
    """What `committed` gives as tables in Markdown: rows and controls; for each bank the claims and other contrasts."""
    columns, heads = {"row": "row or control"}, {"map": "mAP", "linear_map": "linear mAP", "qbe": "QbE"}
    slides = {name: row.slides for name, row in read_rows().items()}
    named = {name: {"row": name, "slides": slides.get(name)} for name in PLANNED}
    for bank, found in results.items():
        columns |= {(bank, key): f"{bank}: {head}" for key, head in heads.items()}
        for line in table(found):
            named[line["row"]] |= {(bank, key): line[key] for key in heads}
    numbers = ", ".join(f"{bank} {len(whole(found))}" for bank, found in results.items())
    parts = [f"Whole replicates of {REPLICATES} planned: {numbers}."]
    parts.append(markdown(named.values(), columns | {"slides": "slides: mAP"}))
    for bank, found in results.items():
        claims, others = _contrasts(found)
        order = [(title, *agreement(found, metric)) for metric, title in METRICS.items()]
        order = "; ".join(f"by {title} {_signed(tau)}, p {p:.3f}" for title, tau, p in order)
        heads = {"contrast": "contrast"} | METRICS
        parts += [f"The claims, {bank}:", markdown(claims, {"claim": "claim", "slides": "slides"} | heads)]
        parts += [f"Other contrasts, {bank}:", markdown(others, heads)]
        parts.append(f"The order of the rows of Tables 2 and 4, {bank}, against the slides', Kendall's τ: {order}.")
    return "\n\n".join(parts)


def _contrasts(found):
    """Lines of the claims' contrasts in a bank, and of the other ones."""
    slides, claims, others = {name: row.slides for name, row in read_rows().items()}, [], []
    judged = {metric: verdicts(found, metric) for metric in METRICS}
    for claim in CLAIMS:
        for index, wanted in enumerate(claim.contrasts):
            line = {"claim": "" if index else f"{claim.number} {claim.claim}", "slides": _signed(wanted.of(slides))}
            for metric, of in judged.items():
                word = "" if index else f"**{of[claim.number].words}** "
                line[metric] = word + of[claim.number].estimates[index].text
            claims.append(line | {"contrast": wanted.title})
    for wanted in QUESTIONS:
        others.append({"contrast": wanted.title} | {m: contrast(found, wanted, m).text for m in METRICS})
    return claims, others


def _signed(number):
    return f"{number:+.3f}".replace("-", "−")


if __name__ == "__main__":
    print(report(committed()))
