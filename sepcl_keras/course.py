"""The path from one room to the next: what a notebook needs of an earlier one is loaded, or made and kept.

Everything lives in `artifacts/<profile>/<data>/seed<k>/`; each artifact carries the fingerprint of what defines it.
"""

import dataclasses
import time
import zipfile
from pathlib import Path

import keras
import numpy as np

from sepcl_keras import evaluation, intervals, processors, training
from sepcl_keras.backend import advice, inference, keep_memory, make_repeatable, start_xla, use_all_devices
from sepcl_keras.checkpoint import atomic_folder, save_model
from sepcl_keras.embedding import embed_log_mel, load_encoder
from sepcl_keras.features import log_mel_model
from sepcl_keras.files import ROOT, BadInput, atomic, fingerprint, read_json, write_json
from sepcl_keras.profiles import get_profile
from sepcl_keras.scenes import SPLITS, Scenes, open_bank
from sepcl_keras.separation import evaluate_separation
from sepcl_keras.tables import MAIN_ROW, read_rows

# What an artifact depends on besides sizes and seeds: the code that makes it. (A made bank adds sounds.py itself.)
DATA_CODE = ("audio", "scenes", "features", "backend")
SEPARATOR_CODE = (
    *DATA_CODE, "fused", "layers", "separator", "losses", "models", "logs", "checkpoint", "optimizer", "training",
)  # fmt: skip
VIEWS_CODE = (*SEPARATOR_CODE, "rows", "processors")
ENCODER_CODE = (*VIEWS_CODE, "augmentation", "narrow", "encoder")

PLAIN = str.maketrans("∨× ", "vx_")  # a row's name as that of a folder


def code(modules):
    """A fingerprint of the sources of these modules of the library, and of the backend and precision they run with."""
    sources = {name: Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in modules}
    policy = keras.config.dtype_policy().name
    return fingerprint({"sources": sources, "backend": keras.backend.backend(), "policy": policy})


class Course:
    """One run of the course: a profile, a bank of sounds and a seed, and everything made from them.

    Args:
        profile: name of a profile. data: `"made"` or a folder in the layout of ESC-50.
        seed: of all training; the scenes do not depend on it. out: folder of all artifacts, or None for `artifacts/`.
    """

    def __init__(self, profile="tiny", data="made", seed=0, out=None):
        if isinstance(seed, str) and seed.isdecimal():
            seed = int(seed)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise BadInput(f"SEED={seed!r}: expected a whole number, zero or more.")
        self.arguments = profile, data, seed, out
        self.profile, self.seed = get_profile(profile), seed
        self.bank = open_bank(data, self.profile)
        self.folder = Path(out or ROOT / "artifacts") / profile / self.bank.name / f"seed{seed}"
        p = self.profile
        self.scenes = {
            split: Scenes(self.bank, split, p.scenes[split], p.clip_seconds, p.sample_rate) for split in SPLITS
        }
        for split, scenes in self.scenes.items():
            if not {1, 2} <= set(scenes.number_of_events):
                raise BadInput(
                    f"DATA={data!r}: expected scenes of one and of two events in {split}; too few classes meet."
                )
        self._kept = {}
        keep_memory()
        start_xla()
        use_all_devices()
        make_repeatable(seed)
        if advice():
            print(advice())

    def load_or_train(self, name, definition, make, load, keep=True):
        """What `load(folder)` gives: from the artifact `name` if it is there and fits, else after `make(folder)`.

        `definition` is what the artifact depends on; `make` fills a folder, which takes its name only when it is
        whole, and returns what to keep beside it, such as a training history. The folder is empty, or as a run that
        was stopped left it with a training's checkpoint, from which the training goes on. Returns (loaded, that); with
        `keep` both stay in memory.
        """
        mark = fingerprint(definition)
        if (name, mark) in self._kept:
            return self._kept[name, mark]
        folder = self.folder / name
        manifest = folder / "manifest.json"

        def fits():
            return manifest.exists() and read_json(manifest).get("fingerprint") == mark

        seconds = None
        if not fits():
            with atomic_folder(folder, mark) as part:
                if not fits():  # as it may by now, where another run was making it
                    print(f"{name}: not made yet with these settings; making it now.", flush=True)
                    began = time.perf_counter()
                    if not (part / "manifest.json").exists():  # it is there where a run was stopped right at the end
                        content = {"fingerprint": mark, "definition": definition, "history": make(part)}
                        content["seconds"] = round(time.perf_counter() - began, 1)
                        write_json(part / "manifest.json", content)
                    seconds = time.perf_counter() - began
        how = "loaded from" if seconds is None else f"made in {seconds:.0f} s, kept in"
        print(f"{name}: {how} {self._shown(folder)}.")
        try:
            loaded = load(folder), read_json(manifest)["history"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BadInput(
                f"{folder}: expected a whole artifact, but {error}; delete the folder to make it anew."
            ) from None
        if keep:
            self._kept[name, mark] = loaded
        return loaded

    def _shown(self, path):
        return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path

    def _data_definition(self):
        p = self.profile
        return {
            "bank": self.bank.definition,
            "scenes": {split: self.scenes[split].definition for split in SPLITS},
            "seconds": p.clip_seconds,
            "code": code(DATA_CODE),
        }

    def _separator_definition(self):
        p = self.profile
        sizes = (p.separator_seconds, p.separator_batch, p.separator_learning_rate)
        return self._data_definition() | {
            "separator": p.separator, "start": p.separator_start, "sizes": sizes, "steps": p.snapshot_steps,
            "seed": self.seed, "code": code(SEPARATOR_CODE),
        }  # fmt: skip

    def log_mel(self, split):
        """Log-mel spectrograms (scenes, frames, mels) of a split's mixtures, float16, a memory map."""

        def make(folder):
            mixtures, features = self.scenes[split].mixtures(), inference(log_mel_model(), 64)
            parts = [features(mixtures[i : i + 64]).astype("float16") for i in range(0, len(mixtures), 64)]
            with atomic(folder / "log_mel.npy") as temporary:
                np.save(temporary, np.concatenate(parts))

        definition = self._data_definition() | {"split": split}
        return self.load_or_train(
            f"log_mel/{split}", definition, make, lambda folder: np.load(folder / "log_mel.npy", mmap_mode="r")
        )[0]

    def snapshots(self):
        """The separator's snapshots, a dict from name (N, F, S1, S2) to `TDCNPlusPlus`, and the training history."""

        def make(folder):
            return training.train_separator(self.scenes["train"].mixtures(), self.profile, self.seed, folder)

        def load(folder):
            return {name: keras.saving.load_model(folder / f"{name}.keras") for name in self.profile.snapshot_steps}

        return self.load_or_train("separator", self._separator_definition(), make, load)

    def views(self):
        """The training scenes' `Views` by all four snapshots."""

        def make(folder):
            processors.write_views(folder, self.scenes["train"].mixtures(), self.snapshots()[0])

        definition = self._separator_definition() | {"code": code(VIEWS_CODE)}
        return self.load_or_train("views", definition, make, processors.Views)[0]

    def source_views(self):
        """The training scenes' `Views` by their true sources: a control."""

        def make(folder):
            processors.write_source_views(folder, self.scenes["train"])

        definition = self._data_definition() | {"code": code(VIEWS_CODE)}
        return self.load_or_train("source_views", definition, make, processors.Views)[0]

    def encoder(self, row=None, seed=None, log=None, show=True):
        """An encoder pretrained as `row` says, and its history.

        Without a row it is the main one, at the profile's full size; with one, at the size of the ablations. `log` and
        `show` are for a training, where there is one: see `training.fit`.
        """
        p, seed = self.profile, self.seed if seed is None else seed
        main = row is None
        row = row or read_rows()[MAIN_ROW]
        size = dict(
            embedding_dim=row.d or p.embedding_dim, width=p.width if main else p.ablation_width,
            steps=p.pretraining_steps if main else p.ablation_steps * row.longer, learning_rate=p.learning_rate,
        )  # fmt: skip
        objective = dict(
            similarity=row.similarity, coincidence=row.coincidence, augmentation=row.augmentation,
            constraints=row.constraints,
        )  # fmt: skip

        control = row.processors == (processors.TRUE_SOURCES,)

        def make(folder):
            views = self.source_views() if control else self.views()
            encoder, history = training.pretrain(
                lambda steps: processors.ViewPairs(
                    views, row.pairing, row.processors, p.batch_size, steps, seed, reject_quiet=control
                ),
                seed=seed, folder=folder, log=log, show=show, **size, **objective,
            )  # fmt: skip
            save_model(encoder, folder / "encoder.keras")
            return history

        definition = self._separator_definition() | size | objective | {
            "pairing": row.pairing, "processors": row.processors, "batch_size": p.batch_size, "encoder_seed": seed,
            "code": code(ENCODER_CODE),
        } | ({"reject_quiet": True} if control else {})  # fmt: skip
        name = "encoders/main" if main else f"encoders/{row.row.translate(PLAIN)}-{seed}"
        return self.load_or_train(name, definition, make, load_encoder, keep=main)

    def supervised_encoder(self, seed=None):
        """The control trained on the labels, and its history; with a seed of its own, at the size of the ablations."""
        p, name = self.profile, "supervised"
        if seed is None:
            seed = self.seed
        else:
            p = dataclasses.replace(p, width=p.ablation_width, supervised_steps=p.ablation_steps)
            name = f"supervised-{seed}"

        def make(folder):
            encoder, history = training.train_supervised(
                self.log_mel("train"), self.scenes["train"].labels, p, seed, folder
            )
            save_model(encoder, folder / "encoder.keras")
            return history

        definition = self._data_definition() | {
            "width": p.width, "dim": p.embedding_dim, "steps": p.supervised_steps, "batch": p.batch_size,
            "learning_rate": p.learning_rate, "seed": seed, "code": code(ENCODER_CODE),
        }  # fmt: skip
        return self.load_or_train(f"encoders/{name}", definition, make, load_encoder)

    def untrained_encoder(self, seed=None):
        """The control that has seen nothing: the same network as initialised from the seed; the size as above."""
        p = self.profile
        return training.new_encoder(
            p.embedding_dim, p.width if seed is None else p.ablation_width, self.seed if seed is None else seed
        )

    def embeddings(self, encoder, seed=0):
        """Split → h (scenes, windows, d) of an encoder, or, drawn by `seed`, of what it names of `CONTROLS`."""
        control, d = evaluation.CONTROLS.get(encoder), self.profile.embedding_dim
        log_mels = {split: self.log_mel(split) for split in SPLITS}
        return {split: control(x, d, seed) if control else embed_log_mel(x, encoder) for split, x in log_mels.items()}

    @property
    def labels(self):
        """Split → multi-hot (scenes, classes)."""
        return {split: self.scenes[split].labels for split in SPLITS}

    def scores(self, embeddings, seed=None):
        """Scores (clips, classes) of the shallow classifier for the test scenes."""
        return evaluation.shallow_classifier(
            embeddings["train"], self.labels["train"], embeddings["validation"], self.labels["validation"],
            embeddings["test"], seed=self.seed if seed is None else seed,
        )  # fmt: skip

    def evaluate(self, embeddings, scores=None):
        """`intervals.evaluate` on this course's scenes; `scores`, where they are there already."""
        return intervals.evaluate(embeddings, self.labels, self.scores(embeddings) if scores is None else scores)

    def separation(self, separators=None, most=100):
        """`evaluate_separation` of these separators, else of all snapshots, on at most so many test scenes a number."""
        return evaluate_separation(separators or self.snapshots()[0], self.scenes["test"], most)

    def _results_mark(self):
        modules = (*ENCODER_CODE, "separation", "embedding", "evaluation", "intervals")
        definition = self._separator_definition() | {"code": code(modules)}
        return fingerprint(definition | {"profile": dataclasses.asdict(self.profile)})

    def record(self, number, **results):
        """Keeps a notebook's numbers in `results/NN.json`, with what they were made from, and returns them."""
        content = {
            "notebook": number, "profile": self.profile.name, "data": self.bank.name, "seed": self.seed,
            "fingerprint": self._results_mark(), "results": results,
        }  # fmt: skip
        write_json(self.folder / "results" / f"{number}.json", content)
        return results

    def results(self, number):
        """The numbers that notebook `number` recorded, or None where it has not run with these settings."""
        path = self.folder / "results" / f"{number}.json"
        content = read_json(path) if path.exists() else {}
        return content["results"] if content.get("fingerprint") == self._results_mark() else None
