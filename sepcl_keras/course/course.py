"""The course: a profile, a source of sounds and a seed, and all that is made from them.

Everything lives in `artifacts/<profile>/<data>/seed<k>/`.
"""

import dataclasses
import json

from sepcl_keras.core.backend import precision
from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import fingerprint, read_json, write_json
from sepcl_keras.core.saved import save_model
from sepcl_keras.course.artifacts import code
from sepcl_keras.course.data import DATA, Data
from sepcl_keras.course.slides import MAIN_ROW, Row, read_rows
from sepcl_keras.encoder.embedding import embed_log_mel, load_encoder
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.encoder.recipe import new_encoder, pretrain, train_supervised
from sepcl_keras.evaluation.classifiers import shallow_classifier
from sepcl_keras.evaluation.controls import CONTROLS
from sepcl_keras.evaluation.intervals import evaluate
from sepcl_keras.scenes.splits import SPLITS
from sepcl_keras.separation.metrics import evaluate_separation
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.separation.recipe import new_separator, train_separator
from sepcl_keras.separation.separate import load_separator
from sepcl_keras.views.log_mel import MEL_BANDS
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.views.stored import TRUE_SOURCES, Views, write_source_views, write_views

# What makes the artifacts. An artifact depends on all that these modules import, too (see `artifacts.code`).
SEPARATOR = (*DATA, "separation.recipe")
VIEWS = (*SEPARATOR, "views.stored")
ENCODER = (*VIEWS, "views.pairs", "encoder.recipe")
RESULTS = (*ENCODER, "separation.metrics", "encoder.embedding", "evaluation.intervals", "evaluation.controls")
RANDOM = "random"  # the processor of a row: untrained, its basis random
PLAIN = str.maketrans("∨× ,", "vx__")  # a row's name as that of a folder


class Course(Data):
    """One run of the course: a profile, sounds and a seed, and everything made from them; arguments as of `Data`.

    policy: of the encoders that are trained, such as "mixed_bfloat16", or None for what Keras is set to.
    """

    policy = None

    def _separator_definition(self):
        p = self.profile
        sizes = (p.separator_seconds, p.separator_batch, p.separator_learning_rate)
        return self._data_definition() | {
            "separator": p.separator, "start": p.separator_start, "sizes": sizes, "steps": p.snapshot_steps,
            "seed": self.seed, "code": code(*SEPARATOR),
        }  # fmt: skip

    def _on_separator(self):
        """What depends on the separator is defined by it: by what makes it here, or by the shipped file."""
        definition = self._separator_definition()
        file = self.shipped_file("separator", definition)
        return definition | ({"shipped": file.name} if file else {})

    def snapshots(self):
        """The separator's snapshots, a dict from name (N, F, S1, S2) to `TDCNPlusPlus`, and the training history."""

        def make(folder):
            return train_separator(self.scenes["train"].mixtures(), self.profile, self.seed, folder)

        def networks():
            p = self.profile
            separators = {f"{name}.keras": TDCNPlusPlus(**p.separator) for name in p.snapshot_steps}
            for separator in separators.values():
                separator.build((None, None))
            return separators

        def load(folder):
            return {name: load_separator(folder / f"{name}.keras") for name in self.profile.snapshot_steps}

        return self.load_or_train("separator", self._separator_definition(), make, load, networks=networks)

    def views(self):
        """The training scenes' `Views` by all four snapshots."""

        def make(folder):
            write_views(folder, self.scenes["train"].mixtures(), self.snapshots()[0])

        definition = self._on_separator() | {"code": code(*VIEWS)}
        return self.load_or_train("views", definition, make, Views)[0]

    def source_views(self):
        """The training scenes' `Views` by their true sources: a control. `BadInput` where nobody knows them."""
        if self.listing:
            raise BadInput(f"{self.bank.name}: recorded scenes have no known sources; expected events that were mixed.")

        def make(folder):
            write_source_views(folder, self.scenes["train"])

        definition = self._data_definition() | {"code": code(*DATA, "views.stored")}
        return self.load_or_train("source_views", definition, make, Views)[0]

    def random_views(self):
        """The training scenes' `Views` by an untrained separator whose basis is random, as the paper's N has it."""

        def make(folder):
            separator = new_separator(self.profile, self.seed, "random")
            write_views(folder, self.scenes["train"].mixtures(), {RANDOM: separator})

        definition = self._separator_definition() | {"code": code(*VIEWS)}
        return self.load_or_train("random_views", definition, make, Views)[0]

    def shuffled_views(self):
        """`Views` by all four snapshots of as many scenes in which any classes meet: a control."""

        def make(folder):
            write_views(folder, self.shuffled.mixtures(), self.snapshots()[0])

        definition = self._on_separator() | {"code": code(*VIEWS), "shuffled": self.shuffled.definition}
        return self.load_or_train("shuffled_views", definition, make, Views)[0]

    def views_of(self, row):
        """The `Views` that a row learns from."""
        special = {(TRUE_SOURCES,): self.source_views, (RANDOM,): self.random_views}.get(row.processors, self.views)
        return self.shuffled_views() if row.shuffled else special()

    def encoder(self, row=None, seed=None, log=None, show=True):
        """An encoder pretrained as `row` says, and its history.

        Without a row it is the main one, at the profile's full size; with one, a `Row` or its name, at the size of the
        ablations. `log` and `show` are for a training, where there is one: see `fit`.
        """
        p, seed = self.profile, self.seed if seed is None else seed
        main = row is None
        row = read_rows().get(MAIN_ROW if main else row, row) if main or isinstance(row, str) else row
        if not isinstance(row, Row):
            raise BadInput(f"row={row!r}: expected one of {', '.join(read_rows())}, or a Row.")
        size = dict(
            embedding_dim=row.d or p.embedding_dim, width=p.width if main else p.ablation_width,
            steps=p.pretraining_steps if main else p.ablation_steps, learning_rate=p.learning_rate,
        )  # fmt: skip
        objective = dict(
            similarity=row.similarity, coincidence=row.coincidence, augmentation=row.augmentation,
            constraints=row.constraints,
        )  # fmt: skip

        def make(folder):
            views = self.views_of(row)
            with precision(self.policy):
                encoder, history = pretrain(
                    lambda steps: ViewPairs(
                        views, row.pairing, row.processors, p.batch_size, steps, seed, reject_quiet=row.reject_quiet
                    ),
                    seed=seed, folder=folder, log=log, show=show, **size, **objective,
                )  # fmt: skip
            save_model(encoder, folder / "encoder.keras")
            return history

        def networks():
            encoder = CNN14(size["embedding_dim"], size["width"])
            encoder.build((None, None, MEL_BANDS))
            return {"encoder.keras": encoder}

        # Not where they are as ever: what the definition of the shipped encoder does not name.
        unusual = {"shuffled": row.shuffled, "reject_quiet": row.reject_quiet, "policy": self.policy}
        definition = self._on_separator() | size | objective | {
            "pairing": row.pairing, "processors": row.processors, "batch_size": p.batch_size, "encoder_seed": seed,
            "code": code(*ENCODER),
        } | {key: value for key, value in unusual.items() if value}  # fmt: skip
        name = "encoders/main" if main else f"encoders/{row.row.translate(PLAIN)}-{seed}"
        return self.load_or_train(name, definition, make, load_encoder, keep=main, networks=networks)

    def supervised_encoder(self, seed=None):
        """The control trained on the labels, and its history; with a seed of its own, at the size of the ablations."""
        p, name = self.profile, "supervised"
        if seed is None:
            seed = self.seed
        else:
            p = dataclasses.replace(p, width=p.ablation_width, supervised_steps=p.ablation_steps)
            name = f"supervised-{seed}"

        def make(folder):
            given = {split: (self.log_mel(split), self.judged[split].labels) for split in ("train", "validation")}
            with precision(self.policy):
                encoder, history = train_supervised(given, p, seed, folder)
            save_model(encoder, folder / "encoder.keras")
            return history

        definition = self._data_definition() | {
            "width": p.width, "dim": p.embedding_dim, "steps": p.supervised_steps, "batch": p.batch_size,
            "learning_rate": p.learning_rate, "seed": seed, "policy": self.policy,
            "code": code(*DATA, "encoder.recipe"),
        }  # fmt: skip
        return self.load_or_train(f"encoders/{name}", definition, make, load_encoder)

    def untrained_encoder(self, seed=None):
        """The control that has seen nothing: the same network as initialised from the seed; the size as above."""
        p = self.profile
        return new_encoder(
            p.embedding_dim, p.width if seed is None else p.ablation_width, self.seed if seed is None else seed
        )

    def embeddings(self, encoder, seed=0):
        """Split → h (scenes, windows, d) of an encoder, or, drawn by `seed`, of what it names of `CONTROLS`."""
        control, d = CONTROLS.get(encoder) if isinstance(encoder, str) else None, self.profile.embedding_dim
        if not control and not isinstance(encoder, CNN14):
            raise BadInput(f"embeddings of {encoder!r}: expected a CNN14, or one of {', '.join(CONTROLS)}.")
        log_mels = {split: self.log_mel(split) for split in SPLITS}
        return {split: control(x, d, seed) if control else embed_log_mel(x, encoder) for split, x in log_mels.items()}

    def scores(self, embeddings, seed=None, initialisations=1):
        """Scores (clips, classes) of the shallow classifier for the test scenes."""
        return shallow_classifier(
            embeddings["train"], self.labels["train"], embeddings["validation"], self.labels["validation"],
            embeddings["test"], self.seed if seed is None else seed, initialisations=initialisations,
        )  # fmt: skip

    def evaluate(self, embeddings, scores=None):
        """`evaluate` on this course's scenes; `scores`, where they are there already."""
        return evaluate(embeddings, self.labels, self.scores(embeddings) if scores is None else scores)

    def separation(self, separators=None, most=100):
        """`evaluate_separation` of these separators, else of all snapshots, on at most so many test scenes a number."""
        return evaluate_separation(separators or self.snapshots()[0], self.mixed["test"], most)

    def _results_mark(self):
        definition = self._on_separator() | {"code": code(*RESULTS), "profile": dataclasses.asdict(self.profile)}
        return fingerprint(definition)

    def record(self, number, **results):
        """Keeps a notebook's numbers in `results/NN.json`, with what they were made from, and returns them."""
        try:
            json.dumps(results, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"record {number}: expected what JSON holds, numbers, text, lists, dicts ({error})."
            ) from None
        content = {
            "notebook": number, "profile": self.profile.name, "data": self.bank.name, "seed": self.seed,
            "fingerprint": self._results_mark(), "results": results,
        } | ({"about_data": self.about_data()} if self.listing else {})  # fmt: skip
        write_json(self.folder / "results" / f"{number}.json", content)
        return results

    def results(self, number):
        """The numbers that notebook `number` recorded, or None where it has not run with these settings."""
        path = self.folder / "results" / f"{number}.json"
        content = read_json(path, dict) if path.exists() else {}
        return content["results"] if content.get("fingerprint") == self._results_mark() else None
