"""The study: a run is told by what defines it and done once; verdicts on results made by hand; committed results."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import fingerprint
from sepcl_keras.course import outcomes, study
from sepcl_keras.course.course import Course
from sepcl_keras.course.profiles import get_profile
from sepcl_keras.course.slides import CONTROLS, RELATIONS, Relation, plan, read_rows, training_of


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return Course("smoke", "made", 0, tmp_path_factory.mktemp("artifacts"))


def test_every_row_and_control_is_planned_with_three_seeds_or_more_the_first_before_the_second():
    planned = plan()
    assert len(planned) == len(set(planned))
    for name in (*CONTROLS, *read_rows()):
        seeds = [seed for of, seed in planned if of == name]
        assert len(seeds) >= 3 and seeds == list(range(1, len(seeds) + 1))
    assert [seed for _, seed in planned] == sorted(seed for _, seed in planned)
    for relation in RELATIONS:
        for side in (side for comparison in relation.comparisons for side in comparison):
            assert set(side) <= set(read_rows())
    assert [relation.number for relation in RELATIONS] == list(range(1, 11))


def test_a_run_is_told_by_what_defines_it(course, monkeypatch):
    def mark(name="S2", seed=1, **changed):
        other = Course("smoke", "made", 0, course.folder)
        other.profile = dataclasses.replace(other.profile, **changed)
        return fingerprint(study.definition(other, name, seed))

    assert mark() == mark(pretraining_steps=1, width=32)
    marks = [mark(), mark("S1"), mark(seed=2), mark(ablation_steps=9), mark(batch_size=4), mark("untrained encoder")]
    with monkeypatch.context() as patched:
        patched.setattr(course.scenes["test"], "definition", {"other": "scenes"})
        marks.append(fingerprint(study.definition(course, "S2", 1)))
    keras.config.set_dtype_policy("mixed_bfloat16")
    marks.append(mark())
    keras.config.set_dtype_policy("float32")
    assert len(set(marks)) == len(marks)


def record(name, seed, maps=(0.5, 0.5), setting="here", **more):
    of = {"name": name, "training": json.loads(json.dumps(training_of(name))), "seed": seed, "setting": setting}
    results = {"map": maps[0], "map_draws": list(maps)} | dict.fromkeys(("linear_map", "d_prime", "qbe"), 0.25)
    results |= {"qbe_chance": 0.125, "chance": 0.0625} | more
    return {"id": fingerprint(of), "definition": of, "results": results}


def test_what_is_done_is_not_done_again_and_what_is_missing_is(course, tmp_path, monkeypatch, capsys):
    done, path = [], tmp_path / "results" / "made.jsonl"

    def measure(course, name, seed):
        if len(done) == 2:
            done.append(None)  # stops once, in the third run
            raise KeyboardInterrupt
        done.append((name, seed))
        return record(name, seed)["results"]

    planned = [("S2", 1), ("N", 1), ("S2", 2)]
    monkeypatch.setattr(study, "measure", measure)
    monkeypatch.setattr(study, "plan", lambda: planned)
    with pytest.raises(KeyboardInterrupt):
        study.run(course, path)
    assert [record["definition"]["name"] for record in outcomes.read(path)] == ["S2", "N"]
    path.write_text(path.read_text().rstrip())  # an editor may take the last line's end away
    study.run(course, path)
    study.run(course, path)
    assert done == [("S2", 1), ("N", 1), None, ("S2", 2)]
    assert "3 runs planned, 2 of them in" in capsys.readouterr().out
    assert {name: sorted(seeds) for name, seeds in outcomes.by_name(outcomes.read(path)).items()} == {
        "S2": [1, 2],
        "N": [1],
    }


def test_runs_side_by_side_find_what_runs_one_by_one_find(course, tmp_path, monkeypatch):
    planned = [("random projection", 1), ("untrained encoder", 1), ("random projection", 2)]
    monkeypatch.setattr(study, "plan", lambda: planned)
    found = []
    for jobs in (1, 2):
        study.run(course, tmp_path / f"{jobs}" / "made.jsonl", jobs)
        found.append(outcomes.by_name(outcomes.read(tmp_path / f"{jobs}" / "made.jsonl")))
    one, two = found
    assert {(name, seed) for name, seeds in two.items() for seed in seeds} == set(planned)
    for name, seed in planned:
        # With other numbers of threads sums round otherwise; few test clips may then change places.
        assert two[name][seed]["linear_map"] == pytest.approx(one[name][seed]["linear_map"], abs=0.01)
        assert two[name][seed]["map"] == pytest.approx(one[name][seed]["map"], abs=0.03)


def test_what_stops_a_run_in_a_process_of_its_own_is_told_by_its_name(course, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "plan", lambda: [("no such row", 1), ("no such row", 2)])
    with pytest.raises(KeyError, match="no such row"):
        study.run(course, tmp_path / "made.jsonl", 2)


def test_of_recorded_scenes_the_row_of_true_sources_is_left_out_and_said_so(course, monkeypatch, capsys):
    everything = study.possible(course)
    assert everything == plan() and not capsys.readouterr().out
    monkeypatch.setattr(course, "listing", object())
    left = {name for name, _ in everything} - {name for name, _ in study.possible(course)}
    assert left == {"true sources"}
    assert "'true sources' is left out; recorded scenes have no known sources" in capsys.readouterr().out


WHOLE = record("S2", 1)
DAMAGED = [
    (b"{", "Expecting property name"),
    (b"[]", "list indices"),
    (b"\xff", "invalid start byte"),
    (json.dumps(WHOLE | {"id": "x"}).encode(), "its id x is not that of its definition"),
    (json.dumps({key: value for key, value in WHOLE.items() if key != "results"}).encode(), "'results' is missing"),
]


@pytest.mark.parametrize("line, reason", DAMAGED)
def test_a_damaged_line_is_named(tmp_path, line, reason):
    path = tmp_path / "made.jsonl"
    path.write_bytes(json.dumps(record("S2", 1)).encode() + b"\n" + line + b"\n")
    with pytest.raises(BadInput, match=f"made.jsonl, line 2: expected the record of a run, but .*{reason}"):
        outcomes.read(path)


def test_a_place_that_cannot_be_written_is_named_before_any_work(course, tmp_path, monkeypatch):
    (tmp_path / "results").write_text("a file where a folder should be")
    monkeypatch.setattr(study, "measure", None)
    with pytest.raises(BadInput, match="made.jsonl: cannot be written"):
        study.run(course, tmp_path / "results" / "made.jsonl")


def test_only_what_may_be_compared_counts():
    stale, elsewhere = record("S2", 1), record("S2", 2, setting="another profile, or other scenes")
    stale["definition"]["training"]["similarity"] = 0.5
    whole = record("S2", 3)
    assert outcomes.by_name([stale, elsewhere, whole]) == {"S2": {3: whole["results"]}}
    assert outcomes.by_name([whole, elsewhere]) == {"S2": {2: elsewhere["results"]}} and outcomes.by_name([]) == {}


def test_a_run_is_evaluated_whole(course):
    results = study.measure(course, "random projection", 2)
    assert results["map_draws"][0] == pytest.approx(results["map"], abs=1e-5) and len(results["map_draws"]) == 1001
    found = [value for value in results["average_precisions"] if value is not None]
    assert np.mean(found) == pytest.approx(results["map"]) and results["skipped"] == 18 - len(found)
    assert set(results["label_curve"]) == {"1", "5", "20"} and all(0 < x < 1 for x in results["label_curve"].values())
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    other = study.measure(course, "random projection", 3)
    assert other["linear_map"] != results["linear_map"]  # another matrix: the linear probe itself has no luck


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="trainings take minutes on another backend")
def test_from_the_command_line_to_the_report(course, tmp_path, monkeypatch, capsys):
    planned = [("untrained encoder", 1), ("supervised encoder", 1), ("true sources", 1)]
    monkeypatch.setattr(study, "plan", lambda: planned)
    options = ["--profile", "smoke", "--out", str(course.folder.parents[2]), "--results", str(tmp_path), "--jobs", "1"]
    assert study.main(options) == 0
    said = capsys.readouterr().out
    assert "3 runs planned, 0 of them in" in said and "[3/3] true sources, seed 1: mAP" in said
    assert "10 ours beats the joint triplet: too few seeds" in said
    records = outcomes.read(tmp_path / "made.jsonl")
    assert [(r["definition"]["name"], r["definition"]["seed"]) for r in records] == planned
    assert all(r["machine"]["cores"] >= 1 and r["seconds"] > 0 for r in records)
    assert [r["results"]["last_loss"] is None for r in records] == [True, False, False]
    assert set(outcomes.committed(tmp_path)) == {"made"} and len(outcomes.committed(tmp_path)["made"]) == 3
    assert study.main(options) == 0
    assert "3 runs planned, 3 of them in" in capsys.readouterr().out


def test_the_table_holds_means_spreads_and_shares_of_the_supervised_control():
    found = outcomes.by_name([
        record("supervised encoder", 1, (0.75, 0.7), qbe=0.5), record("N", 1, (0.5, 0.5)), record("N", 2, (0.25, 0.5)),
    ])  # fmt: skip
    supervised, row = outcomes.table(found)
    assert (row["row"], row["seeds"], row["map"], row["slides"]) == ("N", 2, 0.375, 0.286)
    assert row["spread"] == pytest.approx(np.std([0.5, 0.25], ddof=1)) and supervised["spread"] is None
    assert (row["map_share"], row["qbe_share"]) == (0.5, 0.5) and supervised["map_share"] == 1.0
    assert outcomes.table({"N": found["N"]})[0]["map_share"] is None


def found_with(**maps):
    """Results of some seeds, each with 100 draws around the mAP given for its row."""
    noise = np.random.default_rng(0).normal(0, 0.001, 100)
    return outcomes.by_name([
        record(name, seed, (value, *(value + noise * (1 + seed))))
        for name, values in maps.items() for seed, value in enumerate(values, start=1)
    ])  # fmt: skip


def test_verdicts():
    both = Relation(0, "", ((("S2",), ("N",)), (("F",), ("N",))))

    def verdict(**maps):
        return outcomes.judge(both, found_with(**maps))[0]

    low, high = (0.5, 0.5, 0.5), (0.6, 0.6, 0.6)
    assert verdict(S2=low, F=low, N=high) == "holds"
    assert verdict(S2=low, F=(0.5, 0.7, 0.6), N=high) == "undecided"  # seeds that disagree
    assert verdict(S2=low, F=(0.7, 0.7, 0.7), N=high) == "fails"  # one of the two is enough
    assert verdict(S2=low, N=high) == "too few seeds" == verdict(S2=low, F=low[:2], N=high)
    lower = found_with(S2=low, N=(0.495, 0.495, 0.495))
    for margin, expected in ((0.0, "fails"), (0.01, "holds")):
        assert outcomes.judge(Relation(0, "", ((("S2",), ("N",)),), margin), lower)[0] == expected


def test_one_of_several_comparisons_must_fail_more_clearly_than_a_single_one():
    close = found_with(S2=(0.55, 0.56, 0.562), N=(0.54, 0.54, 0.54))  # fails at 95 %, not at 1 - 5 % / 7
    alone, (gap,) = outcomes.judge(Relation(0, "", ((("S2",), ("N",)),)), close)
    assert alone == "fails" and gap.high < 0
    seven = Relation(0, "", ((("S2",), ("N",)),) * 7)
    verdict, gaps = outcomes.judge(seven, close)
    assert verdict == "undecided" and gaps == [gap] * 7


def test_of_several_rows_the_best_of_each_seed_counts_and_only_seeds_that_all_have():
    relation = Relation(0, "", ((("S2", "S1"), ("F", "N")),))
    found = found_with(S2=(0.5, 0.2, 0.9, 0.9), S1=(0.3, 0.4, 0.3, 0.1), F=(0.6, 0.1, 0.2), N=(0.1, 0.7, 0.1, 0.1))
    _, (gap,) = outcomes.judge(relation, found)
    assert gap.mean == pytest.approx(np.mean([0.6 - 0.5, 0.7 - 0.4, 0.2 - 0.9]))


def test_the_report_has_a_line_for_each_row_and_each_comparison():
    report = outcomes.report(
        found_with(**{"mix-mix": (0.5,) * 3, "S2 without SpecAugment": (0.6,) * 3, "S2": (0.6,) * 2})
    )
    assert " 2 separation alone beats SpecAugment alone: holds" in report
    assert "S2 without SpecAugment − mix-mix: +0.100, 95 % from +0.100 to +0.100" in report
    assert " 3 separation with SpecAugment beats each of the two alone: too few seeds" in report
    assert sum(line.startswith(("mix-mix ", "S2 ")) for line in report.splitlines()) == 3


def test_a_row_with_too_few_seeds_has_no_interval():
    found = found_with(S2=(0.5, 0.6), N=(0.5, 0.6, 0.7))
    assert outcomes.level(found["S2"]) == pytest.approx((0.55, 0.55, 0.55))
    mean, low, high = outcomes.level(found["N"])
    assert mean == pytest.approx(0.6) and high - mean > 4.3 * 0.1 / 3**0.5 and mean - low == pytest.approx(high - mean)


def test_wrong_arguments_are_one_sentence(tmp_path, capsys):
    assert study.main(["--profile", "huge", "--out", str(tmp_path)]) == 2
    assert "PROFILE='huge': expected one of" in capsys.readouterr().err
    assert study.main(["--profile", "smoke", "--out", str(tmp_path), "--jobs", "0"]) == 2
    assert "--jobs=0: expected a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(outcomes.FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_committed_results_are_of_the_table_as_it_is(path):
    records = outcomes.read(path)
    found = outcomes.by_name(records)
    assert {(name, seed) for name, seeds in found.items() for seed in seeds} <= set(plan())
    assert sum(map(len, found.values())) == len(records), "results of another setting, or of another table"
    profile = json.loads(json.dumps(dataclasses.asdict(get_profile("study"))))
    for record in records:
        assert record["commit"] and not record["commit"].endswith("+"), "results of code that is not committed"
        setting = record["definition"]["setting"]
        assert setting["version"] in (2, study.VERSION)  # 2: until the study has run anew
        assert setting["profile"] == {key: profile[key] for key in set(profile) - set(study.NOT_DEFINING)}
        classes = [value for value in record["results"]["average_precisions"] if value is not None]
        assert np.mean(classes) == pytest.approx(record["results"]["map"], abs=1e-6)
    assert set(CONTROLS) <= set(found)
