"""The data of a course: scenes to learn from, scenes to judge by, and scenes whose sources are known."""

import functools

from sepcl_keras.core.arrays import StoredArray
from sepcl_keras.core.backend import advice, keep_memory, make_repeatable, start_xla, use_all_devices
from sepcl_keras.core.checks import BadInput, check_number, one_of
from sepcl_keras.core.files import fingerprint
from sepcl_keras.course.artifacts import Artifacts, artifacts_folder, code, running
from sepcl_keras.course.profiles import get_profile
from sepcl_keras.scenes import recorded
from sepcl_keras.scenes.banks import holds_events, open_bank
from sepcl_keras.scenes.layouts import open_recordings
from sepcl_keras.scenes.mixing import Scenes
from sepcl_keras.scenes.splits import SPLITS
from sepcl_keras.views.stored import write_log_mel

SCENES_AN_EVENT = 12  # to test on, at most

# What makes the artifacts. An artifact depends on all that these modules import, too (see `artifacts.code`).
DATA = ("scenes.mixing", "views.log_mel")
RECORDED = ("scenes.recorded",)  # besides, where scenes are not mixed


class Data(Artifacts):
    """The sounds of one run of the course.

    Args:
        profile: name of a profile. data: `"made"`, a folder of isolated events in the layout of ESC-50, which are
            mixed, or one of recorded scenes (see `open_recordings`), which are used as they are.
        seed: of all training; the scenes do not depend on it. out: folder of all artifacts, or None for `artifacts/`.
        draw: of the scenes that are mixed (see `Bank`): 0 for the course, others for the replicates of a study.

    Attributes:
        scenes: split → scenes that separator and encoder learn from. mixed: split → scenes with known sources: the same
            where events are mixed, else mixtures of recorded ones. judged: split → scenes with labels, which embeddings
            are judged by: the same, or, where nobody gave labels, crops of the test scenes, each labelled with its
            recording.
        bank: events that `mixed` mixes. classes: of `judged`. listing: `Listing` of recorded scenes, or None.
    """

    def __init__(self, profile="tiny", data="made", seed=0, out=None, draw=0):
        if isinstance(seed, str) and seed.isdecimal():
            seed = int(seed)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise BadInput(f"SEED={seed!r}: expected a whole number from 0 to 4294967295.")
        check_number("draw", draw, least=0, whole=True)
        self.profile, self.seed = get_profile(profile), seed
        p = self.profile
        self.listing = None if holds_events(data) else open_recordings(data)
        if self.listing:
            name, self._data = (
                self.listing.name,
                recorded.definition(self.listing, p.scenes, p.clip_seconds, p.sample_rate),
            )
        else:
            self.bank = open_bank(data, p, draw)
            name, self._data = self.bank.name, self.bank.definition
        # Folders of one name that hold other sounds are told apart.
        folder = "made" if data == "made" else f"{name}-{fingerprint(self._data)[:6]}"
        super().__init__(artifacts_folder(out) / profile / folder / f"seed{seed}{f'-draw{draw}' if draw else ''}")
        if self.listing:
            self._open_recorded(name)
        else:
            self.mixed = self._mix()
            self.scenes = self.judged = self.mixed
        self.classes = self.judged["test"].classes
        for split, scenes in self.mixed.items():
            if not {1, 2} <= set(scenes.number_of_events):
                raise BadInput(
                    f"DATA={data!r}: expected scenes of one and of two events in {split}; too few classes meet."
                )
        keep_memory()
        start_xla()
        use_all_devices()
        make_repeatable(seed)
        if advice():
            print(advice())

    def _mix(self, shuffled=False):
        p, numbers = self.profile, dict(self.profile.scenes)
        if not self.listing:  # few recordings give no more variety in more test scenes
            numbers["test"] = min(numbers["test"], SCENES_AN_EVENT * len(self.bank.events("test")))
        sizes = p.clip_seconds, p.sample_rate, shuffled
        return {split: Scenes(self.bank, split, numbers[split], *sizes) for split in SPLITS}

    @functools.cached_property
    def shuffled(self):
        """Training scenes of the same events in which any classes meet: a control."""
        if self.listing:
            raise BadInput(f"{self.bank.name}: recorded scenes are as they are; expected events that can be shuffled.")
        return self._mix(shuffled=True)["train"]

    def _open_recorded(self, name):
        """Recorded scenes, read once and kept as one array."""
        p, definition = self.profile, {"data": self._data, "code": code(*RECORDED)}

        def make(folder):
            return recorded.write_recordings(folder, self.listing, p.scenes, p.clip_samples, p.sample_rate)

        def load(folder):
            return StoredArray(folder / recorded.WAVEFORMS, "float32", 2).array

        waveforms, found = self.load_or_train("recordings", definition, make, load)
        self.listing.refused, self.scenes, first = found["refused"], {}, 0
        for split, rows in found["scenes"].items():
            arguments = waveforms[first : first + len(rows)], rows, self.listing.classes, p.sample_rate, self._data
            self.scenes[split], first = recorded.RecordedScenes(split, *arguments), first + len(rows)
        if len(self.scenes["train"]) < p.batch_size:
            raise BadInput(
                f"{name}: {len(self.scenes['train'])} scenes to train with; expected {p.batch_size} or more at profile "
                f"{p.name}: more recordings, longer ones, or PROFILE=smoke."
            )
        self.judged = self.scenes
        if not self.listing.classes:
            self.judged = {split: recorded.Crops(self.scenes["test"], split) for split in SPLITS}
        self.bank = recorded.RecordingBank(name, self.scenes, p.sample_rate)
        self.mixed = self._mix()

    def about_data(self):
        """What was recognised in a folder of recordings, used and refused: rows (what, which), none for events."""
        if not self.listing:
            return []
        return self.listing.table() + [(f"scenes for {split}", len(self.scenes[split])) for split in SPLITS]

    def about_scenes(self):
        """Sentences on what recorded scenes cannot tell, and what is done instead; none for events that are mixed."""
        if not self.listing:
            return []
        said = [
            "Your recordings are used whole, and nobody knows their sources. Where sources must be known, two or three "
            "recordings are played at once (course.mixed), and each counts as one source, whatever it holds."
        ]
        if not self.listing.classes:
            said.append(
                f"Nobody gave labels, so how well classes of sound are told apart cannot be said. In their place stand "
                f"{len(self.classes)} test recordings (course.judged): each is a class, and its crops are to be told "
                "from those of the others, by classifiers and by retrieval. For mixing, they are dealt into groups."
            )
        return said

    def _data_definition(self):
        p = self.profile
        return {
            "bank": self._data | ({"code": code(*RECORDED)} if self.listing else {}),
            "scenes": {split: self.scenes[split].definition for split in SPLITS},
            "seconds": p.clip_seconds,
            "running": running(),
            "code": code(*DATA),
        }

    def log_mel(self, split):
        """Log-mel spectrograms (scenes, frames, mels) of a split's judged scenes, float16, a memory map."""
        definition = self._data_definition() | {
            "split": one_of("split", split, SPLITS),
            "code": code(*DATA, "views.stored"),
        }

        def make(folder):
            write_log_mel(folder, self.judged[split], fingerprint(definition))

        return self.load_or_train(
            f"log_mel/{split}", definition, make, lambda folder: StoredArray(folder / "log_mel.npy", "float16", 3).array
        )[0]

    @property
    def labels(self):
        """Split → multi-hot (scenes, classes)."""
        return {split: self.judged[split].labels for split in SPLITS}
