"""The study: a run is told by what defines it and done once; verdicts on results made by hand; committed results."""

import dataclasses
import json
import re

import by_path
import keras
import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import fingerprint
from sepcl_keras.course import outcomes, study
from sepcl_keras.course.profiles import get_profile
from sepcl_keras.course.slides import CLAIMS, CONTROLS, QUESTIONS, Claim, Contrast, read_rows, training_of

pytestmark = pytest.mark.once

SETTING = {"version": study.VERSION, "scenes": "these", "profile": "that", "code": "this"}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return study.open_course("smoke", "made", 3, tmp_path_factory.mktemp("artifacts"))


def record(name, replicate=1, value=0.5, setting=SETTING, **more):
    of = {"name": name, "training": json.loads(json.dumps(training_of(name))), "replicate": replicate}
    of["setting"] = setting
    results = dict.fromkeys(("map", "linear_map", "d_prime", "qbe", "one_label"), value)
    return {"id": fingerprint(of), "definition": of, "results": results | {"qbe_chance": 0.3, "chance": 0.1} | more}


def found_with(**maps):
    """Replicate → name → results; the values of a row in replicates 1, 2, …"""
    found = {}
    for name, values in maps.items():
        for replicate, value in enumerate(values, start=1):
            found.setdefault(replicate, {})[name] = record(name, replicate, value)["results"]
    return found


def test_the_plan_holds_all_that_claims_and_questions_compare():
    assert len(set(outcomes.PLANNED)) == len(outcomes.PLANNED) == len(CONTROLS) + len(read_rows())
    for claim in CLAIMS:
        assert set(claim.names()) <= set(read_rows())
    for question in QUESTIONS:
        assert {*question.higher, *question.lower} <= set(outcomes.PLANNED)
    assert [claim.number for claim in CLAIMS] == list(range(1, 11)) and study.REPLICATES >= 10


def test_a_contrast_is_a_mean_of_rows_minus_a_mean_of_others():
    values = {"S2": 0.4, "N": 0.2, "S2∨N": 0.5}
    assert Contrast("", ("S2∨N",), ("S2", "N")).of(values) == pytest.approx(0.2)
    joint, rows = CLAIMS[6], {name: row.slides for name, row in read_rows().items()}
    (contrast,) = joint.contrasts  # the mean of a few differences is the difference of the means
    pairs = [rows[f"{name} joint"] - rows[name] for name in contrast.lower]
    assert len(pairs) == 7 and contrast.of(rows) == pytest.approx(np.mean(pairs)) == pytest.approx(0.0143, abs=5e-5)


def test_a_run_is_told_by_what_defines_it(course, monkeypatch):
    def mark(name="S2", **changed):
        with monkeypatch.context() as patched:
            patched.setattr(course, "profile", dataclasses.replace(course.profile, **changed))
            return fingerprint(study.definition(course, name))

    marks = [mark(), mark("S1"), mark(ablation_steps=9), mark(batch_size=4), mark("untrained encoder")]
    other_code = study, "code", lambda *modules: "other"
    other_scenes = course.scenes["test"], "definition", {"other": "scenes"}
    for target, name, value in (other_scenes, other_code, (course, "seed", 4), (course, "policy", "mixed_float16")):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, value)
            marks.append(mark())
    assert len(set(marks)) == len(marks) and mark() == marks[0]


def test_replicates_draw_other_scenes_and_other_seeds(course, tmp_path):
    other = study.open_course("smoke", "made", 4, tmp_path)
    assert (course.seed, course.bank.draw, other.seed, other.bank.draw) == (3, 3, 4, 4)
    assert not np.array_equal(course.scenes["test"][0].mixture, other.scenes["test"][0].mixture)


def test_what_is_done_is_not_done_again_and_what_is_missing_is(course, tmp_path, monkeypatch, capsys):
    done, path = [], tmp_path / "made" / "03.jsonl"

    def measure(course, name):
        if len(done) == 2:
            done.append(None)  # stops once, in the third run
            raise KeyboardInterrupt
        done.append(name)
        return record(name)["results"]

    monkeypatch.setattr(study, "measure", measure)
    monkeypatch.setattr(study, "PLANNED", ("S2", "N", "F"))
    with pytest.raises(KeyboardInterrupt):
        study.run(course, path)
    assert list(outcomes.of_replicate(outcomes.read(path))) == ["S2", "N"]
    path.write_text(path.read_text(encoding="utf-8").rstrip(), encoding="utf-8")  # an editor may take the end away
    study.run(course, path)
    study.run(course, path)
    assert done == ["S2", "N", None, "F"]
    assert "made, replicate 3: 1 of 3 runs to do" in capsys.readouterr().out
    # A whole replicate stands, whatever the code is by now; one that was begun by other code begins anew.
    monkeypatch.setattr(study, "code", lambda *modules: "other")
    assert study.missing(course, path) == []
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:2]), encoding="utf-8")
    assert study.missing(course, path) == ["S2", "N", "F"] and "begun anew" in capsys.readouterr().out
    monkeypatch.setattr(course, "profile", dataclasses.replace(course.profile, ablation_steps=9))
    with pytest.raises(BadInput, match=r"03.jsonl: runs of another profile; expected an empty folder"):
        study.missing(course, path)


def test_a_done_replicate_drops_its_views_and_keeps_the_rest(course, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "PLANNED", ("S2",))
    monkeypatch.setattr(study, "measure", lambda course, name: record(name)["results"])
    for name in (*study.MADE_OF_VIEWS, "encoders"):
        (course.folder / name).mkdir(parents=True, exist_ok=True)
    study.run(course, tmp_path / "03.jsonl")
    left = {path.name for path in course.folder.iterdir()}
    assert "encoders" in left and not left & set(study.MADE_OF_VIEWS)


def test_of_recorded_scenes_rows_that_need_sources_are_left_out_and_said_so(course, tmp_path, monkeypatch, capsys):
    assert study.possible(course) == list(outcomes.PLANNED)
    monkeypatch.setattr(course, "listing", object())
    left = set(outcomes.PLANNED) - set(study.possible(course))
    assert {"true sources", "S2 with shuffled places"} == left
    monkeypatch.setattr(study, "measure", lambda course, name: record(name)["results"])
    study.run(course, tmp_path / "03.jsonl")
    assert study.missing(course, tmp_path / "03.jsonl") == []
    said = capsys.readouterr().out
    assert "'true sources' is left out; recorded scenes have no known sources" in said


WHOLE = record("S2")
DAMAGED = [
    (b"{", "Expecting property name"),
    (b"[]", "list indices"),
    (b"\xff", "invalid start byte"),
    (json.dumps(WHOLE | {"id": "x"}).encode(), "its id x is not that of its definition"),
    (json.dumps({key: value for key, value in WHOLE.items() if key != "results"}).encode(), "'results' is missing"),
]


@pytest.mark.parametrize("line, reason", DAMAGED)
def test_a_damaged_line_is_named(tmp_path, line, reason):
    path = tmp_path / "01.jsonl"
    path.write_bytes(json.dumps(record("S2")).encode() + b"\n" + line + b"\n")
    with pytest.raises(BadInput, match=f"01.jsonl, line 2: expected the record of a run, but .*{reason}"):
        outcomes.read(path)


def test_a_place_that_cannot_be_written_is_named_before_any_work(course, tmp_path, monkeypatch):
    (tmp_path / "made").write_text("a file where a folder should be")
    monkeypatch.setattr(study, "measure", None)
    with pytest.raises(BadInput, match="03.jsonl: cannot be written"):
        study.run(course, tmp_path / "made" / "03.jsonl")


def test_only_what_may_be_compared_counts():
    stale, elsewhere = record("S2"), record("N", setting=SETTING | {"code": "other"})
    stale["definition"]["training"]["similarity"] = 0.5
    whole = record("F", value=0.25)
    assert outcomes.of_replicate([stale, elsewhere, whole]) == {"F": whole["results"]}
    assert outcomes.of_replicate([whole, elsewhere]) == {"N": elsewhere["results"]} and outcomes.of_replicate([]) == {}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="trainings take minutes on another backend")
def test_from_the_command_line_to_the_report(tmp_path, monkeypatch, capsys):
    planned = ("random projection", "untrained encoder", "supervised encoder", "true sources")
    monkeypatch.setattr(study, "PLANNED", planned)
    folder = tmp_path / "results"
    options = [
        "--profile",
        "smoke",
        "--out",
        str(tmp_path),
        "--results",
        str(folder),
        "--jobs",
        "1",
        "--replicates",
        "4",
    ]
    assert study.main([*options, "--part", "3/3"]) == 0
    said = capsys.readouterr().out
    assert "made, replicate 3: 4 of 4 runs to do" in said and "[4/4] true sources: mAP" in said
    (contrast,) = CLAIMS[9].contrasts
    assert f"| 10 {CLAIMS[9].claim} | +0.066 | {contrast.title} | **too few replicates** – |" in said
    assert [path.name for path in (folder / "made").iterdir()] == ["03.jsonl"]  # of 1 to 4 the third of three parts
    records = outcomes.read(folder / "made" / "03.jsonl")
    assert [r["definition"]["name"] for r in records] == list(planned)
    assert all(r["machine"]["cores"] >= 1 and r["seconds"] > 0 for r in records)
    assert [r["results"]["last_loss"] is None for r in records] == [True, True, False, False]
    for results in (r["results"] for r in records):
        classes = [value for value in results["average_precisions"] if value is not None]
        assert np.mean(classes) == pytest.approx(results["map"], abs=1e-5)
        assert set(results["map_by_events"]) == {"1", "2", "3"} and 0 < results["one_label"] < 1
        assert not any(key.endswith("interval") for key in results)
    assert set(outcomes.committed(folder)["made"]) == {3}
    assert study.main([*options, "--part", "3/3"]) == 0
    assert "replicate 3: 0 of 4 runs to do" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", [1, 2])
def test_replicates_are_done_in_processes_of_their_own(tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(study, "has_gpu", lambda: False)
    monkeypatch.setattr(study, "open_course", None)  # here, and in no other process
    arguments = [("no such profile", "made", replicate, str(tmp_path), str(tmp_path)) for replicate in (1, 2)]
    with pytest.raises(BadInput, match="PROFILE='no such profile'"):
        list(study.side_by_side(arguments, jobs))


def test_map_by_the_number_of_events():
    class Scenes:
        number_of_events = np.array([1, 1, 2, 2])
        labels = np.array([[1, 0], [0, 1], [1, 1], [1, 0]])

    scores = np.array([[0.9, 0.2], [0.1, 0.7], [0.5, 0.1], [0.6, 0.9]])
    # Two events: of class 0 all are positive; of class 1 the only positive comes second.
    assert study.by_events(Scenes, scores) == {"1": 1.0, "2": pytest.approx((1 + 0.5) / 2)}
    assert study.by_events(object(), scores) == {}


def test_an_estimate_is_a_t_interval_over_replicates():
    values = np.array([0.02, -0.01, 0.03, 0.01])
    found = outcomes.estimate(values)
    theirs = stats.ttest_1samp(values, 0.0)
    low, high = theirs.confidence_interval(0.95)
    assert (found.number, found.mean) == (4, pytest.approx(0.0125))
    assert found.ends[1:] == pytest.approx((low, high)) and found.p == pytest.approx(theirs.pvalue)
    assert outcomes.estimate(values, 0.01).p == pytest.approx(stats.ttest_1samp(values, -0.01).pvalue)
    few = outcomes.estimate(values[:2])
    assert few.p == 1.0 and few.low == few.mean == few.high
    same = outcomes.estimate([0.125, 0.125, 0.125])
    assert same.p == 0.0 and same.low == same.high


def test_p_values_are_adjusted_as_holm_has_it():
    # R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert outcomes.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert outcomes.holm([0.6, 0.7]) == [1.0, 1.0] and outcomes.holm([]) == []


def test_verdicts():
    single = Claim(1, "", (Contrast("", ("N",), ("S2",)),))
    both = Claim(1, "", (Contrast("", ("N",), ("S2",)), Contrast("", ("N",), ("F",))))

    def verdict(claim=single, metric="map", **maps):
        return outcomes.verdicts(found_with(**maps), metric, (claim,))[1].word

    low, high = (0.5, 0.51, 0.5, 0.49), (0.6, 0.62, 0.6, 0.59)
    assert verdict(S2=low, N=high) == verdict(S2=low, N=high, metric="qbe") == "holds"
    assert verdict(S2=high, N=low) == "fails"
    assert verdict(S2=low, N=(0.6, 0.4, 0.5, 0.6)) == "undecided"
    assert verdict(S2=low, N=(0.502, 0.511, 0.499, 0.49)) == "absent"
    assert verdict(S2=low, N=high[:2]) == verdict(S2=low) == "too few replicates"
    assert verdict(both, S2=low, F=low, N=high) == "holds"
    assert verdict(both, S2=low, F=high, N=(0.55, 0.57, 0.55, 0.54)) == "fails"  # one of two is enough
    assert verdict(both, S2=low, F=(0.55, 0.7, 0.6, 0.55), N=high) == "undecided"
    below = dict(S2=low, N=(0.495, 0.506, 0.495, 0.484))
    assert verdict(**below) == "absent" and verdict(dataclasses.replace(single, margin=0.01), **below) == "holds"
    assert verdict(dataclasses.replace(single, margin=0.001), **below) == "fails"


def test_of_ten_claims_one_must_be_surer_than_alone():
    close = found_with(S2=(0.5, 0.5, 0.5, 0.5, 0.5), N=(0.52, 0.51, 0.54, 0.53, 0.505))
    claim = Claim(1, "", (Contrast("", ("N",), ("S2",)),))
    assert outcomes.verdicts(close, claims=(claim,))[1].word == "holds"
    ten = tuple(dataclasses.replace(claim, number=number) for number in range(1, 11))
    assert {verdict.word for verdict in outcomes.verdicts(close, claims=ten).values()} == {"undecided"}


def test_no_effect_is_taken_for_one_more_seldom_than_once_in_twenty():
    rng, wrong, claim = np.random.default_rng(0), 0, Claim(1, "", (Contrast("", ("N",), ("S2",)),))
    for _ in range(400):
        ten = found_with(S2=rng.normal(0.5, 0.03, 10), N=rng.normal(0.5, 0.03, 10))
        wrong += outcomes.verdicts(ten, claims=(claim,))[1].word in ("holds", "fails")
    assert 6 <= wrong <= 36  # 5 % of 400, within three standard deviations or so


def test_the_table_holds_means_of_replicates_that_have_run_everything():
    found = found_with(**{"supervised encoder": (0.75, 0.85), "N": (0.5, 0.25), "F": (0.3,)})
    supervised, first, second = outcomes.table(found)
    assert [line["row"] for line in (supervised, first, second)] == ["supervised encoder", "F", "N"]
    assert (second["replicates"], second["map"], second["slides"]) == (1, 0.5, 0.286)  # the second has not run F
    assert supervised["slides"] is None and outcomes.table({}) == []


def test_the_order_of_rows_beside_the_slides():
    slides = {name: row.slides for name, row in read_rows().items() if row.table in (2, 4)}
    same = found_with(**{name: (value,) for name, value in slides.items()})
    turned = found_with(**{name: (1 - value,) for name, value in slides.items()})
    assert len(slides) == 17 and outcomes.agreement(same)[0] == pytest.approx(1) and outcomes.agreement(same)[1] < 1e-5
    assert outcomes.agreement(turned)[0] == pytest.approx(-1) and np.isnan(outcomes.agreement({})[0])


def test_the_report_has_a_line_for_each_row_and_each_contrast():
    found = found_with(**{"mix-mix": (0.5,) * 3, "S2 without SpecAugment": (0.6, 0.61, 0.6), "S2": (0.49, 0.49)})
    lines = outcomes.report({"made": found, "yours": {}}).splitlines()
    starts = {line.split(" | ")[0] for line in lines if line.startswith("| ")}
    assert {f"| {name}" for name in outcomes.PLANNED} <= starts  # with dashes for what has not run
    wanted, none = f"| 2 {CLAIMS[1].claim} | +0.007 | S2 without SpecAugment − mix-mix", "**too few replicates** –"
    holds = "**holds so far (3 of 10)** +0.103 (+0.089 to +0.118)"
    assert f"{wanted} | {holds} | {holds} |" in lines and f"{wanted} | {none} | {none} |" in lines
    few = "**too few replicates** −0.010"  # two have no interval
    assert f"| 3 {CLAIMS[2].claim} | +0.017 | S2 − mix-mix | {few} | {few} |" in lines
    assert lines.count("| composition − mix-mix | – | – |") == 2


@pytest.fixture
def fill():
    return by_path.load(ROOT / "notebooks/book/fill.py")


def test_the_pages_tell_the_numbers_of_the_records(fill, capsys):
    assert fill.main(["--check"]) == 0, capsys.readouterr().out
    assert outcomes.report(outcomes.committed()) in (ROOT / "notebooks/book/results.md").read_text(encoding="utf-8")


def test_a_page_with_other_numbers_is_named_and_filled(fill, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fill, "ROOT", tmp_path)
    for page in fill.passages(outcomes.committed()):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_bytes((ROOT / page).read_bytes())
    page = tmp_path / "README.md"
    page.write_text(re.sub(r"chance 0\.\d+", "chance 0.99", page.read_text(encoding="utf-8")), encoding="utf-8")
    assert fill.main(["--check"]) == 1
    assert capsys.readouterr().out == "README.md: other numbers than the records'.\n"
    assert fill.main([]) == 0 and fill.main(["--check"]) == 0
    assert page.read_bytes() == (ROOT / "README.md").read_bytes()
    page.write_text("Another page.", encoding="utf-8")
    assert fill.main([]) == 2 and page.read_text(encoding="utf-8") == "Another page."
    assert capsys.readouterr().err.startswith("README.md: found 0 times; expected once: the first <words> of 10 ")


def test_banks_of_other_numbers_of_replicates_are_told_apart(fill):
    results = {bank: dict(list(found.items())[:4]) for bank, found in outcomes.committed().items()}
    assert fill.passages(results)["README.md"][0][1] == ["4"]
    results["esc10"].popitem()
    assert fill.passages(results)["README.md"][0][1] == ["4 and 3"]


def test_a_passage_takes_its_numbers_wherever_lines_break(fill):
    of_page = [("above by <ci> and\n<n> so far <words>.", ["+0.010 (−0.020 to +0.040)", 0.5, "one holds (3)"])]
    assert fill.filled("Above? It is above by\n0.1 (0.0 to\n0.2) and 3 so far nine fail.", of_page) == (
        "Above? It is above by\n+0.010 (−0.020 to +0.040) and 0.50 so far one holds (3)."
    )
    same = "above by +0.010 (−0.020\nto +0.040) and\n0.50 so far one\nholds (3)."
    assert fill.filled(same, of_page) == same
    for text in ("below by 0.1", f"{same} {same}"):
        with pytest.raises(BadInput, match="found [02] times; expected once: above by"):
            fill.filled(text, of_page)


def test_wrong_arguments_are_one_sentence(tmp_path, capsys):
    assert study.main(["--profile", "huge", "--out", str(tmp_path)]) == 2
    assert "PROFILE='huge': expected one of" in capsys.readouterr().err
    assert study.main(["--profile", "smoke", "--out", str(tmp_path), "--jobs", "0"]) == 2
    assert "--jobs=0: expected a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(outcomes.FOLDER.glob("*/*.jsonl")), ids=lambda path: "/".join(path.parts[-2:]))
def test_committed_results_are_of_the_plan_as_it_is(path):
    records = outcomes.read(path)
    assert len(outcomes.of_replicate(records)) == len(records), "results of two settings, or of another table"
    profile = json.loads(json.dumps(dataclasses.asdict(get_profile("study"))))
    for record in records:
        assert record["commit"] and not record["commit"].endswith("+"), "results of code that is not committed"
        of = record["definition"]
        assert (of["setting"]["version"], of["replicate"]) == (study.VERSION, int(path.stem))
        assert of["setting"]["profile"] == profile
