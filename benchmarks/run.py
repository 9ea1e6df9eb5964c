"""All measurements, one process each, into `benchmarks/RESULTS.md`: `make bench`, or `python benchmarks/run.py`.

With --gpu and KERAS_BACKEND=jax the training step is measured on a GPU, and what belongs to a CPU is left out.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--gpu", action="store_true", help="the training step on a GPU alone: larger batches, bfloat16")
parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")


def measure(*arguments, backend=None):
    """The JSON that one measurement prints; its errors are shown."""
    print("measuring", *arguments, backend or "", flush=True)
    environment = os.environ | ({"KERAS_BACKEND": backend} if backend else {})
    command = [sys.executable, HERE / "measure.py", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def gpu_name():
    shown = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return shown.stdout.splitlines()[0]


def heading(device):
    names = ("keras", "tensorflow", "jax", "torch", "asteroid", "numpy")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return [
        f"{device}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; "
        f"{', '.join(versions)}; {datetime.date.today()}.",
        "",
    ]


def spread(values, unit=""):
    low, middle, high = values
    return f"**{middle:g}{unit}** ({low:g} to {high:g})"


def step_row(name, result, goal):
    theirs = f"{result['theirs'] * 1e3:.0f}" if "theirs" in result else "–"
    ratio = spread(result["ratio"]) if "ratio" in result else "–"
    share = result["share of the matrix-product ceiling"]
    return f"| {name} | {result['ours'] * 1e3:.0f} | {theirs} | {ratio} | {goal} | {100 * share:.0f} % |"


STEP_HEAD = [
    "| forward + backward | ours, ms | asteroid, ms | ratio (quartiles) | goal | of the ceiling |",
    "|---|---|---|---|---|---|",
]


def loss_memory():
    """The section on the two losses whose memory grows as the square of the number of pairs."""
    lines = [
        "## The encoder's losses",
        "",
        "Forward and backward in a fresh process each, one thread; memory is what it added to the process at its peak.",
        "The coincidence head (d = 128, 512 hidden units) with its loss: the whole grid of pairs would be N² × 2 kB,",
        "several times; the goal is 2 GB at N = 1,024. NT-Xent on z (N, 128).",
        "",
        "| | N | TensorFlow, ms | MB | JAX, ms | MB |",
        "|---|---|---|---|---|---|",
    ]
    for what, pairs in (("coincidence", 64), ("coincidence", 256), ("coincidence", 1024), ("nt_xent", 4096)):
        row = f"| {what} | {pairs:,} "
        for backend in ("tensorflow", "jax"):
            r = measure(what, "--pairs", pairs, backend=backend)
            row += f"| {r['seconds'] * 1e3:.1f} | {r['memory_mb']:.0f} "
        lines.append(row + "|")
    return [*lines, ""]


def on_a_cpu():
    step = measure("step")
    half = measure("step", "--policy", "mixed_bfloat16", "--no-peer")
    mixit = measure("mixit", "--rounds", 30)
    lines = heading(processor())
    lines += [
        "Ratios are the peer's times divided by ours, taking turns in one process: median and quartiles of the rounds.",
        "",
        "## Training step",
        "",
        "TDCN++ at the paper's size (basis 256, bottleneck 256, hidden 512, 8 × 4 blocks, M = 4), 2 × 1 s, MixIT, one",
        "thread, TensorFlow. The ceiling is what products of the blocks' matrices alone reach on this machine.",
        "",
        *STEP_HEAD,
        step_row("float32", step, "4, aim 4.5"),
        step_row("mixed_bfloat16", half, "–"),
        "",
        "asteroid's network has 13.3 million parameters, because its layout has a skip path in every block; ours has",
        "the original's 8.8 million.",
        "",
        "## MixIT alone",
        "",
        "M = 8 (256 assignments), 4 × 1 s, forward and gradient of the estimates, one thread.",
        "",
        "| ours, ms | asteroid, ms | ratio (quartiles) | goal |",
        "|---|---|---|---|",
        f"| {mixit['ours'] * 1e3:.2f} | {mixit['theirs'] * 1e3:.0f} | {spread(mixit['ratio'])} | 100 |",
        "",
        "## Separation",
        "",
        "Paper's size, M = 2, one clip at a time, two threads, TensorFlow; the whole clip in memory.",
        "",
        "| clip, s | s | times real time (quartiles) | memory added, MB | first call of this length, s |",
        "|---|---|---|---|---|",
    ]
    for seconds in (10, 60, 600):
        r = measure("separation", "--threads", 2, "--seconds", seconds, "--rounds", 12)
        factor = spread(r["times real time"])
        lines.append(f"| {seconds} | {r['seconds']:.2f} | {factor} | {r['memory_mb']:.0f} | {r['first']:.1f} |")
    lines += ["", "The goal is 25 times real time, and time and memory in proportion to the length.", ""]
    lines += loss_memory()
    return ["# Speed and memory on a CPU", "", "Made by `make bench`.", "", *lines]


def on_a_gpu():
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    lines = ["# Speed on a GPU", "", f"Made by `KERAS_BACKEND={backend} python benchmarks/run.py --gpu --out …`.", ""]
    lines += [*heading(gpu_name()), f"TDCN++ at the paper's size, M = 4, 16 × 10 s, MixIT, {backend}.", "", *STEP_HEAD]
    size = ("step", "--clips", 16, "--seconds", 10)
    lines.append(step_row("float32", measure(*size), "–"))
    lines.append(step_row("mixed_bfloat16", measure(*size, "--policy", "mixed_bfloat16", "--no-peer"), "–"))
    return [*lines, ""]


def main():
    arguments = parser.parse_args()
    lines = on_a_gpu() if arguments.gpu else on_a_cpu()
    with tempfile.NamedTemporaryFile("w", dir=arguments.out.parent, delete=False, encoding="utf-8") as file:
        file.write("\n".join(lines))
    os.chmod(file.name, 0o644)
    os.replace(file.name, arguments.out)
    print(f"Written to {arguments.out}.")


if __name__ == "__main__":
    main()
