"""The slides' tables and claims as data, and the rows beside them."""

import dataclasses

import pytest

from sepcl_keras.course.slides import CLAIMS, MAIN_ROW, QUESTIONS, read_rows
from sepcl_keras.views.augmentation import CONSTRAINTS

pytestmark = pytest.mark.once


def test_the_claims_are_what_the_slides_tables_say():
    slides = {name: row.slides for name, row in read_rows().items()}
    assert [claim.number for claim in CLAIMS] == list(range(1, 11))
    above = {
        (claim.number, contrast.title): contrast.of(slides)
        for claim in CLAIMS
        for contrast in claim.contrasts
        if all(slides[name] is not None for name in (*contrast.higher, *contrast.lower))
    }
    assert {number for number, _ in above} == set(range(1, 11)) and len(above) == 11  # no claim without slides
    assert min(above.values()) > 0
    assert above[1, "mix-mix − mix-mix without SpecAugment"] == pytest.approx(0.265 - 0.248)
    assert above[4, "mean of S2, S1, F, N − mix-mix"] == pytest.approx((0.282 + 0.283 + 0.280 + 0.286) / 4 - 0.265)
    ors, singles = (0.300 + 0.306 + 0.310) / 3, (0.289 + 0.293 + 0.297 + 0.301) / 4
    assert above[8, "mean of three ORs − mean of four singles, joint"] == pytest.approx(ors - singles)
    known = {*slides, "untrained encoder", "supervised encoder"}
    assert all({*contrast.higher, *contrast.lower} <= known for contrast in QUESTIONS)


def test_rows_are_the_slides_tables():
    rows = read_rows()
    table_4 = [row for row in rows.values() if row.table == 4]
    assert max(table_4, key=lambda row: row.slides or 0).row == MAIN_ROW
    assert {name for name, row in rows.items() if row.slides} <= {name for name, row in rows.items() if row.table}
    assert sum(row.tutorial for row in rows.values()) >= 3
    for row in table_4:  # a row's name says what is in it
        processors, _, objective = row.row.partition(" ")
        assert row.processors == tuple(processors.split("∨")) and row.augmentation == "SpecAugment"
        assert (row.similarity, row.coincidence) == {"": (1, 0), "joint": (1, 1)}[objective]
    (triplet,) = (row for row in rows.values() if row.constraints)
    assert triplet.constraints == tuple(CONSTRAINTS) and triplet.slides == 0.244
    assert rows["S2∨F∨N joint d=1024"].d == 1024 and rows["mix-mix with mix-back"].augmentation == "mix-back"


def test_a_row_beside_the_slides_is_another_in_nothing_but_its_name():
    """What is asked about a row of the slides must be all that differs."""
    rows = read_rows()
    for name, of, difference in (
        (f"{MAIN_ROW}, coincidence 2", MAIN_ROW, dict(coincidence=2.0)),
        (f"{MAIN_ROW}, coincidence 4", MAIN_ROW, dict(coincidence=4.0)),
        ("S2∨F∨N coincidence", MAIN_ROW, dict(similarity=0.0)),
        ("composition", "mix-mix", dict(pairing="composition")),
        ("N random", "N", dict(processors=("random",))),
        ("S2 with shuffled places", "S2", dict(shuffled=True)),
        ("S2 without quiet channels", "S2", dict(reject_quiet=True)),
        ("true sources", "S2 without quiet channels", dict(processors=("sources",))),
    ):
        expected = rows[of] if of == "S2 without quiet channels" else dataclasses.replace(rows[of], table=None)
        names = dict(row=name, slides=None, tutorial=rows[name].tutorial)
        assert rows[name] == dataclasses.replace(expected, **names, **difference)
