"""How reading pairs of patches keeps up: `python benchmarks/reading.py pairs|fed|fit|step|memory …` prints JSON.

    pairs    pairs a second that reading alone gives, with the file in the page cache and without
    fed      the share of the time that a device waits which takes --step-seconds a batch and leaves the CPU alone
    fit      the same share in a real `fit` of a CNN14, and the time of a step over one that has its batch already
    step     the time of a whole contrastive step, reading to update, over that of the encoder's own
    memory   what the process grows by, from the opening of the views to the last of 300 batches

The files are written first, into a temporary folder that --folder may place; for `memory` they are holes.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from sepcl_keras import ContrastiveModel, SpecAugment
from sepcl_keras.core.backend import compile_with_xla, keep_memory
from sepcl_keras.core.files import write_json
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.training.optimizer import Adam
from sepcl_keras.training.step import TensorFlowStep
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.views.stored import Views

PROCESSORS, STEPS = ("N", "F", "S1", "S2"), 25


def write(folder, clips, frames, holes=False):
    """Views of so many clips: the same random row for each, on the disk and not only in memory, or holes."""
    shape = (clips, 1 + 2 * len(PROCESSORS), frames, 64)
    row = np.random.default_rng(0).standard_normal(shape[1:]).astype("float16")
    with open(folder / "log_mel.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        if holes:
            file.truncate(file.tell() + clips * row.nbytes)
        else:
            for _ in range(clips):
                file.write(row)
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / "level.npy", np.zeros(shape[:2], "float32"))
    write_json(folder / "views.json", {"processors": PROCESSORS, "num_sources": 2})


def opened(folder, batch_size, seed=0, cold=False, kind=ViewPairs):
    """The pairs of the main row, with the file out of the page cache if `cold`."""
    if cold:
        file = os.open(folder / "log_mel.npy", os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    return kind(Views(folder), "mix-chan", ("S2", "F", "N"), batch_size, steps=STEPS, seed=seed)


def pairs(folder, batch_size, rounds=5):
    def rate(data, steps):
        began = time.perf_counter()
        for step in range(steps):
            data[step]
        return steps * batch_size / (time.perf_counter() - began)

    few = max(2, 1024 // batch_size)
    cold = [rate(opened(folder, batch_size, seed, cold=True), few) for seed in range(rounds)]
    data = opened(folder, batch_size)
    rate(data, few)
    warm = [rate(data, few) for _ in range(rounds)]
    return {"warm": round(float(np.median(warm))), "cold": round(float(np.median(cold)))}


def fed(folder, batch_size, step_seconds):
    """Shares of the time after the first batch, which nothing can have read ahead."""

    def share(data):
        data[0]
        began, waited = time.perf_counter(), 0.0
        for step in range(1, STEPS):
            time.sleep(step_seconds)
            asked = time.perf_counter()
            data[step]
            waited += time.perf_counter() - asked
        return waited / (time.perf_counter() - began)

    cold = share(opened(folder, batch_size, cold=True))
    data = opened(folder, batch_size)
    share(data)
    return {"warm": round(share(data), 4), "cold": round(cold, 4)}


class Timed(ViewPairs):
    """Pairs that note when each batch was ready."""

    def __getitem__(self, step):
        batch = super().__getitem__(step)
        self.ready = getattr(self, "ready", {}) | {step: time.perf_counter()}
        return batch


class Same(keras.utils.PyDataset):
    """One batch again and again: what training costs without reading."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return STEPS

    def __getitem__(self, step):
        return self.batch


class Ends(keras.callbacks.Callback):
    """When the training was ready for its first batch, and the ends of its steps."""

    def on_epoch_begin(self, epoch, logs=None):
        self.times = [time.perf_counter()]

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter())


def fit(folder, batch_size, width, rounds):
    """The waiting is from the end of a step to when the next batch was there, if that was later.

    Epochs with reading and without take turns. The first round compiles, and does not count.
    """
    model, ends = ContrastiveModel(CNN14(128, width)), Ends()
    model.compile(keras.optimizers.Adam(1e-4), jit_compile=compile_with_xla())
    data = opened(folder, batch_size, kind=Timed)
    same, waited, ratios, seconds = Same(data[0]), [], [], []
    for _ in range(rounds + 1):
        model.fit(data, verbose=0, shuffle=False, callbacks=[ends])
        times = np.array(ends.times)
        ready = np.array([data.ready[step] for step in range(STEPS)])
        waited.append(np.maximum(0, ready - times[:-1]).sum() / (times[-1] - times[0]))
        seconds.append(np.median(np.diff(times)))
        model.fit(same, verbose=0, shuffle=False, callbacks=[ends])
        ratios.append(seconds[-1] / np.median(np.diff(ends.times)))
    quartiles = np.percentile(ratios[1:], [25, 50, 75]).round(3).tolist()
    return {"waiting": round(float(np.median(waited[1:])), 4), "step": round(float(np.median(seconds[1:])), 4)} | {
        "ratio": quartiles
    }


class EncoderAlone(TensorFlowStep, keras.Model):
    """Forward, backward and update of an encoder, with next to nothing as its loss."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def call(self, patches, training=None):
        return self.encoder(patches, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y_pred))


def step(folder, batch_size, width, rounds):
    """Reading → SpecAugment → encoder → heads → losses → update, beside the encoder alone on as many patches."""
    models = ContrastiveModel(CNN14(128, width), augmentation=SpecAugment(seed=0)), EncoderAlone(CNN14(128, width))
    for model in models:
        model.compile(Adam(1e-4, global_clipnorm=5.0), jit_compile=compile_with_xla())
    data = opened(folder, batch_size)
    alone = np.concatenate(data[0][0])
    times = []
    for number in range(rounds + 2):
        began = time.perf_counter()
        models[0].train_on_batch(data[number][0])
        between = time.perf_counter()
        models[1].train_on_batch(alone)
        times.append((between - began, time.perf_counter() - between))
    whole, encoder = np.array(times[2:]).T  # the first two compile
    quartiles = np.percentile(whole / encoder, [25, 50, 75]).round(3).tolist()
    return {"whole": round(float(np.median(whole)), 4), "encoder": round(float(np.median(encoder)), 4)} | {
        "ratio": quartiles
    }


def memory(folder, batch_size):
    def kilobytes(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1])

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = kilobytes("VmRSS")
    data = opened(folder, batch_size)
    for step in range(300):
        data[step]
    return {"memory_mb": round((kilobytes("VmHWM") - before) / 1024, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pairs", "fed", "fit", "step", "memory"])
    parser.add_argument("--clips", type=int, default=1200)
    parser.add_argument("--frames", type=int, default=498, help="of a clip; 5 s have 498")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--step-seconds", type=float, default=0.02)
    parser.add_argument("--width", type=int, default=8, help="of the CNN14")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="for the files, in place of the system's temporary one")
    a = parser.parse_args()
    keep_memory()
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        folder = Path(folder)
        write(folder, a.clips, a.frames, holes=a.what == "memory")
        result = {
            "pairs": lambda: pairs(folder, a.batch_size),
            "fed": lambda: fed(folder, a.batch_size, a.step_seconds),
            "fit": lambda: fit(folder, a.batch_size, a.width, a.rounds),
            "step": lambda: step(folder, a.batch_size, a.width, a.rounds),
            "memory": lambda: memory(folder, a.batch_size),
        }[a.what]()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
