"""The slides' tables as data: each way to pretrain a row of `tables/rows.csv`, the study's plan, ten relations."""

import csv
import dataclasses
from pathlib import Path

from sepcl_keras.evaluation import controls

ROWS = Path(__file__).parent / "tables" / "rows.csv"
MAIN_ROW = "S2∨F∨N joint"  # the best of the slides' Table 4: what notebook 07 trains at full length
CONTROLS = (*controls.CONTROLS, "untrained encoder", "supervised encoder")
CONTROL_SEEDS = 3  # as `seeds` of a row
NUMBERS = dict(table=int, similarity=float, coincidence=float, d=int, longer=int, slides=float, seeds=int)
NOT_OF_A_TRAINING = ("row", "table", "slides", "tutorial", "seeds")


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to pretrain: a row of the slides' Tables 2, 4 and 5, with the mAP they give for it on AudioSet, or None.

    With `constraints` the encoder learns by triplets, and by the losses of the weights `similarity` and `coincidence`
    else. `d`: the length of h, or None for the profile's. `longer`: how many times the profile's steps, in no table of
    the slides. `tutorial`: whether `make tutorial` trains the row. `seeds`: how many the study trains it with.
    """

    row: str
    table: int | None
    pairing: str
    processors: tuple
    similarity: float
    coincidence: float
    augmentation: str | None
    constraints: tuple
    d: int | None
    longer: int
    slides: float | None
    tutorial: bool
    seeds: int


def read_rows(path=ROWS):
    """The table of rows as a dict from name to `Row`."""
    rows = {}
    with open(path, newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            values = {name: NUMBERS.get(name, str)(cell) if cell else None for name, cell in cells.items()}
            values |= {name: tuple(cells[name].split()) for name in ("processors", "constraints")}
            rows[cells["row"]] = Row(**values | {"tutorial": cells["tutorial"] == "yes"})
    return rows


def training_of(name):
    """What defines the training of a row, None for a control."""
    row = read_rows().get(name)
    # Trainings of the usual length have no such key: that is how the first were recorded.
    left_out = NOT_OF_A_TRAINING + (("longer",) if row and row.longer == 1 else ())
    return row and {key: value for key, value in dataclasses.asdict(row).items() if key not in left_out}


def plan():
    """The study's runs: pairs (name, seed) of each row and control, the first seed of all before the second of any."""
    seeds = dict.fromkeys(CONTROLS, CONTROL_SEEDS) | {name: row.seeds for name, row in read_rows().items()}
    return [(name, seed) for seed in range(1, max(seeds.values()) + 1) for name in seeds if seed <= seeds[name]]


@dataclasses.dataclass(frozen=True)
class Relation:
    """A claim read out of the slides' tables: that in each of some comparisons (lower, higher) the second has more mAP.

    Both are tuples of names; of several the best of each seed counts. `margin`: see `intervals.Difference`.
    """

    number: int
    claim: str
    comparisons: tuple
    margin: float = 0.0

    def titles(self):
        """Comparison → what it subtracts from what."""
        sides = sum(self.comparisons, ())
        named = {side: side[0] if len(side) == 1 else f"best of {side[0]} … {side[-1]}" for side in sides}
        return {pair: f"{named[pair[1]]} − {named[pair[0]]}" for pair in self.comparisons}

    def slides(self, rows):
        """Comparison → the slides' difference, by the dict of `read_rows`."""
        best = {side: max(rows[name].slides for name in side) for side in sum(self.comparisons, ())}
        return {pair: best[pair[1]] - best[pair[0]] for pair in self.comparisons}


def _above(*pairs):
    return tuple(((lower,), (higher,)) for lower, higher in pairs)


SINGLE, OR = ("S2", "S1", "F", "N"), ("S2∨F", "S2∨N", "S2∨F∨N")
RELATIONS = (
    Relation(1, "SpecAugment helps mix-mix", _above(("mix-mix without SpecAugment", "mix-mix"))),
    Relation(2, "separation alone beats SpecAugment alone", _above(("mix-mix", "S2 without SpecAugment"))),
    Relation(3, "separation with SpecAugment beats each of the two alone",
             _above(("mix-mix", "S2"), ("S2 without SpecAugment", "S2"))),
    Relation(4, "each snapshot alone beats mix-mix", _above(*(("mix-mix", name) for name in SINGLE))),
    Relation(5, "N is at most 0.01 below S2", _above(("S2", "N")), margin=0.01),
    Relation(6, "S2∨N beats S2, and beats N", _above(("S2", "S2∨N"), ("N", "S2∨N"))),
    Relation(7, "joint beats similarity in every row", _above(*((name, f"{name} joint") for name in SINGLE + OR))),
    Relation(8, "the best joint row is an OR of several snapshots",
             ((tuple(f"{name} joint" for name in SINGLE), tuple(f"{name} joint" for name in OR)),)),
    Relation(9, "d = 1,024 beats 128", _above((MAIN_ROW, f"{MAIN_ROW} d=1024"))),
    Relation(10, "ours beats the joint triplet", _above(("triplet joint", MAIN_ROW))),
)  # fmt: skip
