"""Writes tests/baselines/<profile>.json from runs of the tutorial with several seeds; the first is what CI repeats.

python tests/record_baseline.py artifacts/tiny/made/seed0 artifacts/tiny/made/seed1 artifacts/tiny/made/seed2

On x86 without AVX-512 it writes the metrics of the first folder's notebook 10 into a file of their own.
"""

import re
import sys
from pathlib import Path

import numpy as np

from sepcl_keras.core.files import read_json, write_json

FOLDER = Path(__file__).parent / "baselines"
# What is held: final numbers of trained networks. Rounding errors and shares of the data are asserted elsewhere.
FINAL = re.compile(r"03/(sisnri_median|held_out_gain)|08/rows/.*/(map|linear_map|qbe)")
RUN_METRICS = ("map", "linear_map", "qbe")  # of the runs of notebook 10, each row by several seeds


def numbers(node, prefix=""):
    """The leaves of nested results that are numbers, as a dict from path to value; lists are left out."""
    if isinstance(node, dict):
        return {path: value for key, child in node.items() for path, value in numbers(child, f"{prefix}/{key}").items()}
    if isinstance(node, int | float) and not isinstance(node, bool):
        return {prefix: float(node)}
    return {}


def collect(folder):
    """First losses and final metrics of one run: ({training: ten losses}, {path: [number, one a seed]})."""
    losses, metrics = {}, {}
    for path in sorted((Path(folder) / "results").glob("*.json")):
        results = read_json(path)["results"]
        losses |= {f"{path.stem}/{key}": results[key] for key in results if key.endswith("first_losses")}
        found = {f"{path.stem}{key}": value for key, value in numbers(results).items()}
        metrics |= {key: [value] for key, value in found.items() if FINAL.fullmatch(key)}
        for run in results.get("runs", []):
            losses[f"{path.stem}/{run['row']}/{run['seed']}"] = run["first_losses"]
            for key in RUN_METRICS:
                metrics.setdefault(f"{path.stem}/{run['row']}/{key}", []).append(run[key])
    return losses, metrics


def spreads(metrics):
    """Standard deviation over seeds for each kind of metric (the last part of its path), pooled over its metrics.

    Two or three seeds say little about one number; pooled over all of a kind they do. A metric with one seed takes
    the spread of its kind.
    """
    kinds = {}
    for key, values in metrics.items():
        if len(values) > 1:
            kinds.setdefault(key.rsplit("/", 1)[1], []).append(np.var(values, ddof=1))
    return {kind: float(np.sqrt(np.mean(variances))) for kind, variances in kinds.items()}


def comparable(losses):
    """What two kinds of processor agree on of the first losses: seven steps of the separator (an AMD and a Xeon were
    2e-6 apart at the seventh, 1e-3 at the tenth), and three on mixtures, before rounding has grown. Channels come from
    a separator that is another one on each."""
    return {
        key: values[:7] if key.startswith("03") else values[:3]
        for key, values in losses.items()
        if key.startswith(("03", "08")) or "mix-mix" in key
    }


def of_this_processor(profile):
    """The file of the metrics of notebook 10 on x86 without AVX-512, where its encoders are others; None elsewhere."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.exists() else []
    return FOLDER / f"{profile}_without_avx512.json" if "avx2" in flags and "avx512f" not in flags else None


def main(folders):
    profile = Path(folders[0]).resolve().parents[1].name
    runs, other = [collect(folder) for folder in folders], of_this_processor(profile)
    if other:
        write_json(other, {key: values for key, values in runs[0][1].items() if key.startswith("10/")})
        print(f"{other}: written; the rest is recorded on a processor with AVX-512.")
        return
    if len(folders) < 2:
        sys.exit("expected the folders of at least two seeds: one has no spread.")
    # The other seeds may have stopped before the last notebook: the first has every metric, they add what they have.
    metrics = {key: [value for run in runs for value in run[1].get(key, [])] for key in runs[0][1]}
    write_json(FOLDER / f"{profile}.json", {"first_losses": comparable(runs[0][0]), "metrics": metrics})
    print(f"{len(metrics)} metrics of {len(runs)} seeds written to {FOLDER / profile}.json; spreads {spreads(metrics)}")


if __name__ == "__main__":
    main(sys.argv[1:])
