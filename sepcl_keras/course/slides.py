"""The slides' tables as data: each way to pretrain a row of `tables/rows.csv`, and ten claims as contrasts of rows."""

import csv
import dataclasses
from pathlib import Path

import numpy as np

from sepcl_keras.evaluation import controls

ROWS = Path(__file__).parent / "tables" / "rows.csv"
MAIN_ROW = "S2∨F∨N joint"  # the best of the slides' Table 4: what notebook 07 trains at full length
CONTROLS = (*controls.CONTROLS, "untrained encoder", "supervised encoder")
NUMBERS = dict(table=int, similarity=float, coincidence=float, d=int, slides=float)
NOT_OF_A_TRAINING = ("row", "table", "slides", "tutorial")


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to pretrain: a row of the slides' Tables 2, 4 and 5, with the mAP they give for it on AudioSet, or None.

    With `constraints` the encoder learns by triplets, and by the losses of the weights `similarity` and `coincidence`
    else. `shuffled`: from scenes in which any classes meet. `reject_quiet`: see `ViewPairs`. `d`: the length of h, or
    None for the profile's. `tutorial`: whether `make tutorial` trains the row.
    """

    row: str
    table: int | None
    shuffled: bool
    pairing: str
    processors: tuple
    reject_quiet: bool
    similarity: float
    coincidence: float
    augmentation: str | None
    constraints: tuple
    d: int | None
    slides: float | None
    tutorial: bool


def read_rows(path=ROWS):
    """The table of rows as a dict from name to `Row`."""
    rows = {}
    with open(path, newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            values = {name: NUMBERS.get(name, str)(cell) if cell else None for name, cell in cells.items()}
            values |= {name: tuple(cells[name].split()) for name in ("processors", "constraints")}
            values |= {name: cells[name] == "yes" for name in ("shuffled", "reject_quiet", "tutorial")}
            rows[cells["row"]] = Row(**values)
    return rows


def training_of(name):
    """What defines the training of a row, None for a control."""
    row = read_rows().get(name)
    return row and {key: value for key, value in dataclasses.asdict(row).items() if key not in NOT_OF_A_TRAINING}


@dataclasses.dataclass(frozen=True)
class Contrast:
    """The mean of some rows minus the mean of others: two tuples of names."""

    title: str
    higher: tuple
    lower: tuple

    def of(self, values):
        """The contrast of a dict from names of rows to numbers."""
        return float(np.mean([values[name] for name in self.higher]) - np.mean([values[name] for name in self.lower]))


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence read out of the slides: that each of its contrasts lies above −`margin`."""

    number: int
    claim: str
    contrasts: tuple
    margin: float = 0.0

    def names(self):
        """The rows that it is about."""
        return tuple(dict.fromkeys(name for c in self.contrasts for name in (*c.higher, *c.lower)))


def _above(*pairs):
    return tuple(Contrast(f"{higher} − {lower}", (higher,), (lower,)) for higher, lower in pairs)


def _joint(names):
    return tuple(f"{name} joint" for name in names)


SINGLE, OR = ("S2", "S1", "F", "N"), ("S2∨F", "S2∨N", "S2∨F∨N")
CLAIMS = (
    Claim(1, "SpecAugment helps mix-mix", _above(("mix-mix", "mix-mix without SpecAugment"))),
    Claim(2, "separation alone beats SpecAugment alone", _above(("S2 without SpecAugment", "mix-mix"))),
    Claim(3, "separation with SpecAugment beats each of the two alone",
          _above(("S2", "mix-mix"), ("S2", "S2 without SpecAugment"))),
    Claim(4, "snapshots on average beat mix-mix", (Contrast("mean of S2, S1, F, N − mix-mix", SINGLE, ("mix-mix",)),)),
    Claim(5, "N is at most 0.01 below S2", _above(("N", "S2")), margin=0.01),
    Claim(6, "S2∨N beats the mean of its members", (Contrast("S2∨N − mean of S2, N", ("S2∨N",), ("S2", "N")),)),
    Claim(7, "joint beats similarity alone, on average",
          (Contrast("mean of seven joint − mean of the same alone", _joint(SINGLE + OR), SINGLE + OR),)),
    Claim(8, "joint, ORs on average beat single snapshots",
          (Contrast("mean of three ORs − mean of four singles, joint", _joint(OR), _joint(SINGLE)),)),
    Claim(9, "d = 1,024 beats 128", _above((f"{MAIN_ROW} d=1024", MAIN_ROW))),
    Claim(10, "ours beats the joint triplet", _above((MAIN_ROW, "triplet joint"))),
)  # fmt: skip
# What the effect is made of, in none of the slides: differences that are shown with their intervals and not judged.
QUESTIONS = _above(
    ("composition", "mix-mix"), ("S2", "composition"), ("N random", "N"), ("N random", "mix-mix"), ("N", "mix-mix"),
    ("S2", "S2 with shuffled places"), ("S2 without quiet channels", "S2"),
    ("true sources", "S2 without quiet channels"),
    ("mix-mix", "mix-mix with mix-back"), ("mix-mix with mix-back", "mix-mix without SpecAugment"),
    ("mix-mix with mix-back", MAIN_ROW),
    (f"{MAIN_ROW}, coincidence 2", MAIN_ROW), (f"{MAIN_ROW}, coincidence 4", MAIN_ROW),
    ("S2∨F∨N coincidence", "untrained encoder"), (MAIN_ROW, "mix-mix"), (MAIN_ROW, "untrained encoder"),
    ("supervised encoder", MAIN_ROW),
)  # fmt: skip
