"""Separation by 8-bit integers beside float32: `python benchmarks/separating.py speed|row` prints a line of JSON.

Speed: the paper's size, M = 2, on made sounds, two at a time; float32 one clip at a time and in a batch, and integers,
take turns in one process. Row: mAP of the study's main row on views by float32 or by integers, of the tiny profile's
separator; integers are forced on it, which is too narrow to gain by them.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from sepcl_keras import SeparationModel, TDCNPlusPlus
from sepcl_keras.core.backend import compile_with_xla, inference, keep_memory
from sepcl_keras.scenes.made_sounds import CLASSES, make_event
from sepcl_keras.separation import fast

RATE = 16_000


def mixtures(clips, samples):
    """Made sounds (clips, samples), each of two kinds at random times, over and over."""
    rng = np.random.default_rng(0)
    found = np.zeros((clips, samples), "float32")
    for clip in found:
        for kind in rng.choice(CLASSES, 2, replace=False):
            for seed, begin in enumerate(range(rng.integers(RATE // 4), samples, 2 * RATE)):
                event = make_event(kind, seed)[: samples - begin]
                clip[begin : begin + len(event)] += event
    return found


def seconds_of(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def speed(options):
    """Times real time of the three, ratios of float32 one clip at a time to integers, noise ratios of the channels."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    keras.utils.set_random_seed(0)
    separator = TDCNPlusPlus(2)
    separator.build((None, None))
    model = SeparationModel(separator)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=compile_with_xla())
    for clip in mixtures(options.steps, 4 * RATE):
        model.train_on_batch(clip.reshape(4, RATE))
    clips = mixtures(options.clips, round(options.seconds * RATE))
    exact, quick = inference(separator), fast.fast_separator(separator, clips.shape[1])
    ways = [lambda: [exact(clip[None]) for clip in clips], lambda: exact(clips), lambda: quick(clips)]
    snr = fast.channel_snr(np.concatenate(ways[0]()), ways[2]())
    ways[1]()
    times = np.array([[seconds_of(way) for way in ways] for _ in range(options.rounds)])
    factors = (clips.size / RATE / np.percentile(times, [75, 50, 25], axis=0)).round(1).T.tolist()
    best = times.min(axis=0)
    return {
        "float32": factors[0], "batch": factors[1], "int8": factors[2], "best": round(best[0] / best[2], 2),
        "ratio": np.percentile(times[:, 0] / times[:, 2], [25, 50, 75]).round(2).tolist(),
        "snr": [round(float(value), 1) for value in (snr.min(), np.median(snr))],
    }  # fmt: skip


def row(options):
    """mAP of the main row by seeds, on views by each of the two; the training scenes of profile study."""
    import tempfile
    from unittest import mock

    from sepcl_keras.course.course import Course
    from sepcl_keras.course.slides import MAIN_ROW, read_rows
    from sepcl_keras.course.study import measure
    from sepcl_keras.views.stored import Views, write_views

    found, tiny = {}, Course("tiny", "made", 0)
    snapshots = {name: tiny.snapshots()[0][name] for name in read_rows()[MAIN_ROW].processors}
    for way, wide in (("float32", 10**6), ("int8", 8)):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(fast, "WIDE", wide):
            course = Course("study", "made", 0, folder)
            write_views(f"{folder}/of a way", course.scenes["train"].mixtures(), snapshots)
            with mock.patch.object(course, "views", lambda folder=folder: Views(f"{folder}/of a way")):
                found[way] = [measure(course, MAIN_ROW, seed)["map"] for seed in range(options.seeds)]
    return found


def section(measure, spread):
    """Lines of RESULTS.md; `measure` and `spread` as in `run.py`."""
    lines = [
        "",
        "## Separation by integers",
        "",
        "`fast_separator`, as views take it, beside float32 one clip at a time, in turns, two threads, TensorFlow; the",
        "paper's size, M = 2, four clips of made sounds of 10 s, as initialised and after 30 steps of MixIT. SNR is",
        "that of the channels against float32's. The goals are a ratio of 2.2, aim 3, and 20 dB.",
        "",
        "| steps | float32, × real time | in a batch | int8 | ratio (quartiles) | best | SNR, dB: least | median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for steps in (0, 30):
        r = measure("speed", "--steps", steps, program="separating.py")
        speeds = " | ".join(f"{r[way][1]}" for way in ("float32", "batch", "int8"))
        snr = " | ".join(map(str, r["snr"]))
        lines.append(f"| {steps} | {speeds} | {spread(r['ratio'])} | {r['best']} | {snr} |")
    maps = measure("row", program="separating.py")
    lines += ["", "mAP of the main row of the study by seeds, on views by each:", "", "| views by | mAP | mean |"]
    lines.append("|---|---|---|")
    for way, values in maps.items():
        lines.append(f"| {way} | {', '.join(f'{value:.3f}' for value in values)} | {np.mean(values):.3f} |")
    return [*lines, ""]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "row"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=0, help="of training, before")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    keep_memory()
    print(json.dumps({"speed": speed, "row": row}[options.what](options)))


if __name__ == "__main__":
    main()
