"""All measurements, one process each, into `benchmarks/RESULTS.md`: `make bench`, or `python benchmarks/run.py`.

With --gpu and KERAS_BACKEND=jax both networks are measured on a GPU, and what belongs to a CPU is left out.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import separating

from sepcl_keras.core.files import atomic
from sepcl_keras.course.study import processor

HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--gpu", action="store_true", help="both networks on a GPU: larger batches, bfloat16")
parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
parser.add_argument("--recordings", action="store_true", help="measure only the last part anew, files of recordings")
parser.add_argument("--reference", default=HERE.parent / ".venv/bin/python", help="the Python that has tensorflow-io")


def measure(*arguments, program="measure.py", backend=None, python=sys.executable):
    """The JSON that one measurement prints; its errors are shown."""
    print("measuring", *arguments, backend or "", flush=True)
    environment = os.environ | ({"KERAS_BACKEND": backend} if backend else {})
    command = [python, HERE / program, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def gpu_name():
    shown = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return shown.stdout.splitlines()[0]


def heading(device):
    names = ["keras", "tensorflow", "jax", "torch", "asteroid", "panns-inference", "librosa", "onnxruntime", "openvino"]
    versions = []
    for name in [*names, "soundfile", "soxr", "numpy"]:
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


def reading():
    """Lines on how reading pairs of patches keeps up with training."""
    lines = [
        "## Reading",
        "",
        "Pairs of patches from views on disk (nine a clip), with the file in the page cache (warm) and not (cold).",
        "Waiting is the share of the time that a device would wait which needs 20 ms a batch: what 256 pairs take",
        "full-width CNN14, forward and backward (5.9 Tflop), at 300 Tflop/s.",
        "",
        "| clips | pairs in a batch | pairs a second: warm | cold | waiting: warm | cold | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for clips, seconds, frames, batch_size in ((1200, 5, 498, 64), (1500, 10, 998, 256)):
        size = ("--clips", clips, "--frames", frames, "--batch-size", batch_size)
        rate, waiting = (measure(what, *size, program="reading.py") for what in ("pairs", "fed"))
        shares = " | ".join(f"{100 * waiting[state]:.1f} %" for state in ("warm", "cold"))
        lines.append(f"| {clips} of {seconds} s | {batch_size} | {rate['warm']} | {rate['cold']} | {shares} | 3 % |")
    trained = measure("fit", program="reading.py")
    whole = {
        pairs: measure("step", "--clips", 64, "--width", 64, "--batch-size", pairs, "--rounds", 6, program="reading.py")
        for pairs in (8, 64)
    }
    memory = [measure("memory", "--clips", clips, "--frames", 100, program="reading.py") for clips in (1000, 100_000)]
    return [
        *lines,
        "",
        f"In a real `fit` (CNN14 of width 8, 64 pairs, TensorFlow, {trained['step'] * 1e3:.0f} ms a step) waiting",
        f"takes {100 * trained['waiting']:.1f} % of the time, and a step {spread(trained['ratio'])} times as long as",
        "one that has its batch at hand. The process grows over 300 batches of 64 pairs, of clips of 1 s, by",
        f"{memory[0]['memory_mb']} MB with 1,000 clips, {memory[1]['memory_mb']} MB with 100,000 (a file of holes).",
        "",
        "A whole step (reading → SpecAugment → encoder → heads → losses → update) at full width, beside forward,",
        "backward and update of the encoder alone on as many patches; the goal is 1.1:",
        "",
        "| pairs | whole, s | encoder alone, s | ratio (quartiles) |",
        "|---|---|---|---|",
        *(f"| {n} | {r['whole']:.2f} | {r['encoder']:.2f} | {spread(r['ratio'])} |" for n, r in whole.items()),
        "",
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


RECORDINGS = "## Files of recordings"


def recordings():
    """The last section: sound files to embeddings, to waveforms and to shards of views, decoding included."""
    python, program = arguments.reference, dict(program="recordings.py")
    embedded = measure("embed", "--clips", 9, "--rounds", 3, **program)
    decoded = measure("read", python=python if Path(python).exists() else sys.executable, **program)
    prepared = {clips: measure("prepare", "--clips", clips, **program) for clips in (100, 300, 1000, 3000, 30_000)}
    programs = ("`embed_files`, TensorFlow", "onnxruntime", "OpenVINO")
    ways = [f"{name}, {window}" for window in ("0.975 s", "10 s") for name in programs]
    readers = ("`audio.read`, 16 kHz", "soundfile alone, 44.1 kHz", "`read_in_graph`, tensorflow-io, 44.1 kHz")
    return [
        RECORDINGS,
        *["", *heading(processor())],
        "From ogg at 44.1 kHz (noise, one channel, 10 s each) to embeddings of full-width CNN14, decoding included,",
        "two threads: hours of audio an hour, and how many times panns-inference's in the same rounds. It takes a clip",
        "at once, at 32 kHz; ours and the others, on our ONNX file, windows of 0.975 s or 10 s at 16 kHz; all have 64",
        "mels and 100 frames a second. Weights are random.",
        "",
        "| by, window | hours an hour (quartiles) | beside panns-inference (quartiles) | goal |",
        "|---|---|---|---|",
        *(
            f"| {way} | {spread(r['speed'])} | {spread(r['ratio'])} | {'2' if 'ours' in name else '–'} |"
            for way, (name, r) in zip([*ways, "panns-inference, torch, 10 s"], embedded.items())
        ),
        "",
        "Reading such files, two threads, times real time, by the packages of requirements.txt (for tensorflow-io):",
        "",
        "| by, to | times real time (quartiles) | in a second of one core | goal |",
        "|---|---|---|---|",
        *(
            f"| {way} | {spread(r['wall'])} | {spread(r['cpu'])} | {'–' if 'alone' in way else 200} |"
            for way, r in zip(readers, decoded.values())
        ),
        "",
        "Shards of views by the tiny separator, one snapshot, clips of 1 s, 100 a shard, in a process each. The goals",
        "are the same time and bytes for a clip from 100 to 3,000, and the same memory within 5 % for 300 and 30,000",
        f"({100 * (prepared[30_000]['memory_mb'] / prepared[300]['memory_mb'] - 1):+.1f} %):",
        "",
        "| clips | ms a clip and snapshot | bytes a clip and snapshot | most memory of the process, MB |",
        "|---|---|---|---|",
        *(
            f"| {clips:,} | {r['seconds'] * 1e3:.1f} | {r['bytes']:,.0f} | {r['memory_mb']:.0f} |"
            for clips, r in prepared.items()
        ),
        "",
    ]


def on_a_cpu():
    step = measure("step")
    half = measure("step", "--policy", "mixed_bfloat16", "--no-peer")
    mixit = measure("mixit", "--rounds", 30)
    cnn14 = {
        (policy, threads): measure("encoder", "--clips", 8, "--threads", threads, "--policy", policy, *peer)
        for policy, peer in (("float32", ()), ("mixed_bfloat16", ("--no-peer",)))
        for threads in (2, 1)
    }
    lines = heading(processor()) + [
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
        "| clip, s | policy | s | times real time (quartiles) | of the ceiling | memory added, MB | first call, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for seconds, policy in ((10, "float32"), (60, "float32"), (600, "float32"), (10, "mixed_bfloat16")):
        r = measure("separation", "--threads", 2, "--seconds", seconds, "--policy", policy)
        lines.append(
            f"| {seconds} | {policy} | {r['seconds']:.2f} | {spread(r['times real time'])} | "
            f"{100 * r['share of the matrix-product ceiling']:.0f} % | {r['memory_mb']:.0f} | {r['first']:.1f} |"
        )
    lines += [
        "",
        "The goal is 25 times real time, and time and memory in proportion to the length. The ceiling is what matrix",
        "products alone would take. The first call compiles for its length; clips of another length in that process",
        "run through the plain layers, about half as fast, because compiling takes seconds.",
        "",
        "A file by `separate_file`, in pieces of 20 s that have 4 s in common, two at a time; with reading, writing",
        "and what the pieces have in common. The last column: one piece at a time takes so many times as long.",
        "",
        "| file, s | s | times real time (quartiles) | memory added, MB | one at a time (quartiles) |",
        "|---|---|---|---|---|",
    ]
    for seconds in (60, 600):
        r = measure("recording", "--threads", 2, "--seconds", seconds)
        times = f"{r['seconds']:.2f} | {spread(r['times real time'])}"
        lines.append(f"| {seconds} | {times} | {r['memory_mb']:.0f} | {spread(r['ratio'])} |")
    lines += separating.section(measure, spread) + [
        "## The encoder",
        "",
        "CNN14 at full width, d = 2,048, 8 × 0.96 s of log-mel, forward and backward, beside PANNs' own (torch).",
        "",
        *(line.replace("asteroid", "PANNs") for line in STEP_HEAD),
        *(
            step_row(f"{policy}, {threads} thread{'s' * (threads > 1)}", result, "2.5" if policy == "float32" else "–")
            for (policy, threads), result in cnn14.items()
        ),
        "",
        "The share of the ceiling counts the products with the zeros around the last, narrow maps; ours skips them.",
        "",
    ]
    lines += [*loss_memory(), *reading(), *recordings()]
    return ["# Speed and memory on a CPU", "", "Made by `make bench`.", "", *lines]


def on_a_gpu():
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    lines = ["# Speed on a GPU", "", f"Made by `KERAS_BACKEND={backend} python benchmarks/run.py --gpu --out …`.", ""]
    lines += [*heading(gpu_name()), f"TDCN++ at the paper's size, M = 4, 16 × 10 s, MixIT, {backend}.", "", *STEP_HEAD]
    size = ("step", "--clips", 16, "--seconds", 10)
    lines.append(step_row("float32", measure(*size), "–"))
    lines.append(step_row("mixed_bfloat16", measure(*size, "--policy", "mixed_bfloat16", "--no-peer"), "–"))
    policy, clips = "mixed_bfloat16", 256
    encoder = measure("encoder", "--clips", clips, "--dim", 128, "--policy", policy, "--no-peer")
    share = 100 * encoder["share of the matrix-product ceiling"]
    return [
        *lines,
        "",
        f"CNN14 at full width, d = 128, {policy}, forward and backward of {clips} patches:",
        f"{clips / encoder['ours']:.0f} clips a second, {share:.0f} % of what matrix products alone would reach (goal",
        "45 %).",
        "",
    ]


def main():
    if arguments.recordings:
        lines = [arguments.out.read_text(encoding="utf-8").split(RECORDINGS)[0].rstrip(), "", *recordings()]
    else:
        lines = on_a_gpu() if arguments.gpu else on_a_cpu()
    with atomic(arguments.out) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    print(f"Written to {arguments.out}.")


if __name__ == "__main__":
    arguments = parser.parse_args()
    main()
