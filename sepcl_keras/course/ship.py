"""Makes what the library ships: trains it from nothing, keeps it in half precision, measures both, writes the card."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import atomic, read_json
from sepcl_keras.course import shipped
from sepcl_keras.course.course import Course
from sepcl_keras.encoder.embedding import load_encoder
from sepcl_keras.separation.metrics import summary
from sepcl_keras.separation.separate import load_separator

KINDS = {"separator": load_separator, "encoders/main": load_encoder}  # artifact → what reads its networks
CARD = """\
# The shipped networks

With them the first separated sound can be heard at once: where nothing was trained yet, and profile, data and seed are
theirs, the course takes them. `SEPCL_TRAIN=1` (`make tutorial TRAIN=1`) trains instead. `{command}`
made them, and this page.

| file | holds | MB |
|---|---|---|
{files}

A file's name holds the fingerprint of the settings that define its networks and the first digits of its SHA-256; one
that is damaged, or of other settings, is left out. Kernels are float16, rounded to steps of between a 128th and a 256th
of their root mean square; biases, scales and statistics are float32. Nothing in a file is executed.

**Networks.** N, F, S1, S2: one TDCN++ of {separator:,} weights at steps {steps}. Main encoder: a CNN14 of {encoder:,}
weights (width {width}, d = {d}), {pretraining} steps of the row S2∨F∨N joint.

**Data.** {scenes} scenes of {seconds:g} s of sounds that the library itself makes from numbers (profile {profile}, data
`made`, seed {seed}): no recording, no voice, nobody's work. Licence: Apache 2.0, as the library.

**Trained with** Keras {keras} on {backend}, float32.

## What they do, in half precision and as trained

Separation on held-out scenes: median improvement in SI-SNR in dB; with one event its SI-SNR in the better channel.

| | two events | three events | one event |
|---|---|---|---|
{separation}

Encoders on the test scenes ({clips} clips, {classes} classes): mAP of the shallow classifier, of a linear one, and of
query by example.

| | mAP | linear mAP | QbE mAP (chance {chance:.3f}) |
|---|---|---|---|
{encoders}

## What they are not for

They know made sounds only, are a fraction of the paper's size and were trained for minutes. Nobody has measured what
they do with real recordings, and little is to be expected; speech and music they have never met. They are there to
learn how the method works, not to measure how good it is, and not for anything that decides about people. One seed does
not tell which training is better.
"""


def halves(course, folder):
    """Artifact → its networks, a dict by file name, in half precision: as trained here, shipped, and read again."""
    found = {}
    for name, load in KINDS.items():
        manifest = read_json(course.folder / name / "manifest.json", dict)
        networks = {path.name: load(path) for path in sorted((course.folder / name).glob("*.keras"))}
        path = shipped.write(name, manifest["definition"], networks, manifest["history"])
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", flush=True)
        (folder / name).mkdir(parents=True)
        shipped.unpack(path, networks, folder / name)
        found[name] = {title: load(folder / name / title) for title in networks}
    return found


def _separation(course, separators):
    rows = []
    for name, found in summary(course.separation(separators)).items():
        values = [found["improvement"]["2"], found["improvement"]["3"], found["reconstruction"]]
        rows.append(f"| {name} | " + " | ".join(f"{value['median']:.2f}" for value in values) + " |")
    return "\n".join(rows)


def card(course, halved):
    """The text of the model card, its numbers measured now."""
    p, trained, encoder = course.profile, course.snapshots()[0], course.encoder()[0]
    separators = {}
    for name in p.snapshot_steps:
        separators |= {f"{name}, half": halved["separator"][f"{name}.keras"], f"{name}, trained": trained[name]}
    half = halved["encoders/main"]["encoder.keras"]
    encoders = {"main, half": half, "main, trained": encoder, "untrained": course.untrained_encoder()}
    results = {name: course.evaluate(course.embeddings(each)) for name, each in encoders.items()}
    contents = {"separator": "N, F, S1, S2, record of the training", "encoders_main": "main encoder, record"}
    files = [(path, contents[path.name.partition("-")[0]]) for path in sorted(shipped.FOLDER.glob("*.npz"))]
    return CARD.format(
        command=shipped.COMMAND, keras=keras.__version__, backend=keras.backend.backend(), profile=p.name,
        files="\n".join(f"| `{file.name}` | {what} | {file.stat().st_size / 1e6:.2f} |" for file, what in files),
        separator=trained["N"].count_params(), steps=", ".join(f"{step:,}" for step in p.snapshot_steps.values()),
        encoder=encoder.count_params(), width=p.width, d=p.embedding_dim, pretraining=p.pretraining_steps,
        scenes=f"{len(course.scenes['train']):,}", seconds=p.clip_seconds, seed=course.seed,
        separation=_separation(course, separators), clips=len(course.judged["test"]), classes=len(course.classes),
        chance=np.mean([found["qbe_chance"] for found in results.values()]),
        encoders="\n".join(
            f"| {name} | " + " | ".join(f"{found[key]:.3f}" for key in ("map", "linear_map", "qbe")) + " |"
            for name, found in results.items()
        ),
    )  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="tiny", help="what the library ships is tiny")
    parser.add_argument("--out", default=None, help="folder of all artifacts; default artifacts/")
    options = parser.parse_args(arguments)
    os.environ["SEPCL_TRAIN"] = "1"  # nothing shipped goes into what is shipped next
    try:
        course = Course(options.profile, "made", 0, options.out)
        course.snapshots()
        course.encoder()
        with tempfile.TemporaryDirectory() as folder:
            text = card(course, halves(course, Path(folder)))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    with atomic(shipped.FOLDER / "MODEL_CARD.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    total = sum(path.stat().st_size for path in shipped.FOLDER.iterdir())
    print(f"{shipped.FOLDER}: {total / 1e6:.2f} MB in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
