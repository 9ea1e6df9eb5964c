"""Writes tests/baselines/<profile>.json from runs of the tutorial with several seeds; the first is what CI repeats.

python tests/record_baseline.py artifacts/tiny/made/seed0 artifacts/tiny/made/seed1 artifacts/tiny/made/seed2
"""

import sys
from pathlib import Path

from sepcl_keras.files import read_json, write_json

FOLDER = Path(__file__).parent / "baselines"


def numbers(node, prefix=""):
    """The leaves of nested results that are numbers, as a dict from path to value; lists are left out."""
    if isinstance(node, dict):
        return {path: value for key, child in node.items() for path, value in numbers(child, f"{prefix}/{key}").items()}
    if isinstance(node, int | float) and not isinstance(node, bool):
        return {prefix: float(node)}
    return {}


def collect(folder):
    """First losses and final metrics of one run: ({notebook: ten losses}, {path: number})."""
    losses, metrics = {}, {}
    for path in sorted((Path(folder) / "results").glob("*.json")):
        results = read_json(path)["results"]
        if "first_losses" in results:
            losses[path.stem] = results["first_losses"]
        if path.stem == "10":
            results = {row["row"]: {"map": row["map"], "qbe": row["qbe"]} for row in results["table"]}
        metrics |= {f"{path.stem}{key}": value for key, value in numbers(results).items()}
    return losses, metrics


def main(folders):
    runs = [collect(folder) for folder in folders]
    shared = [key for key in runs[0][1] if all(key in metrics for _, metrics in runs)]
    content = {
        "first_losses": runs[0][0],
        "metrics": {key: [metrics[key] for _, metrics in runs] for key in shared},
    }
    profile = Path(folders[0]).resolve().parents[1].name
    write_json(FOLDER / f"{profile}.json", content)
    print(f"{len(shared)} metrics of {len(runs)} seeds written to {FOLDER / profile}.json")


if __name__ == "__main__":
    main(sys.argv[1:])
