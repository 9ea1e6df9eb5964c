"""The study: a run is told by what defines it and done once; verdicts on results made by hand; committed results."""

import dataclasses
import json

import numpy as np
import pytest

from sepcl_keras import evaluation, study
from sepcl_keras.course import Course
from sepcl_keras.files import BadInput, fingerprint
from sepcl_keras.tables import RELATIONS, Relation, read_rows


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return Course("smoke", "made", 0, tmp_path_factory.mktemp("artifacts"))


def test_every_row_and_control_is_planned_with_three_seeds_or_more_the_first_before_the_second():
    plan = study.plan()
    assert len(plan) == len(set(plan))
    for name in (*study.CONTROLS, *read_rows()):
        seeds = [seed for planned, seed in plan if planned == name]
        assert len(seeds) >= 3 and seeds == list(range(1, len(seeds) + 1))
    assert [seed for _, seed in plan] == sorted(seed for _, seed in plan)
    for relation in RELATIONS:
        for side in (side for comparison in relation.comparisons for side in comparison):
            assert set(side) <= set(read_rows())
    assert [relation.number for relation in RELATIONS] == list(range(1, 11))


def test_a_run_is_told_by_what_defines_it(course):
    def mark(name="S2", seed=1, **changed):
        other = Course("smoke", "made", 0, course.folder)
        other.profile = dataclasses.replace(other.profile, **changed)
        return fingerprint(study.definition(other, name, seed))

    assert mark() == mark(pretraining_steps=1, width=32)
    marks = [mark(), mark("S1"), mark(seed=2), mark(ablation_steps=9), mark(batch_size=4), mark("untrained encoder")]
    assert len(set(marks)) == len(marks)


def record(name, seed, maps=(0.5, 0.5), **more):
    of = {"version": study.VERSION, "training": json.loads(json.dumps(study.training_of(name))), "seed": seed}
    results = {"map": maps[0], "map_draws": list(maps)} | dict.fromkeys(("linear_map", "d_prime", "qbe"), 0.25)
    results |= {"qbe_chance": 0.125, "chance": 0.0625} | more
    return {"id": fingerprint(of), "row": name, "seed": seed, "definition": of, "results": results}


def test_what_is_done_is_not_done_again_and_what_is_missing_is(course, tmp_path, monkeypatch, capsys):
    done, path = [], tmp_path / "results" / "made.jsonl"

    def measure(course, name, seed):
        if len(done) == 2 and path.read_text().count("\n") != 3:
            done.append(None)  # stops once, in the third run
            raise KeyboardInterrupt
        done.append((name, seed))
        of = study.definition(course, name, seed)
        return record(name, seed) | {"id": fingerprint(of), "definition": of}

    planned = [("S2", 1), ("N", 1), ("S2", 2)]
    monkeypatch.setattr(study, "measure", measure)
    monkeypatch.setattr(study, "plan", lambda: planned)
    with pytest.raises(KeyboardInterrupt):
        study.run(course, path)
    assert [record["row"] for record in study.read(path)] == ["S2", "N"]
    study.run(course, path)
    study.run(course, path)
    assert done == [("S2", 1), ("N", 1), None, ("S2", 2)]
    assert "3 runs planned, 2 of them in" in capsys.readouterr().out
    assert {name: sorted(seeds) for name, seeds in study.by_name(study.read(path)).items()} == {"S2": [1, 2], "N": [1]}


@pytest.mark.parametrize("damage", ["{", '{"id": "x", "definition": {}}', "[]", '{"id": "x"}'])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "made.jsonl"
    path.write_text(json.dumps(record("S2", 1)) + "\n" + damage + "\n")
    with pytest.raises(BadInput, match="made.jsonl, line 2: expected the record of a run"):
        study.read(path)


def test_results_of_another_training_do_not_count():
    stale = record("S2", 1)
    stale["definition"]["training"]["similarity"] = 0.5
    older = record("S2", 2)
    older["definition"]["version"] = 0
    assert study.by_name([stale, older, record("S2", 3)]) == {"S2": {3: record("S2", 3)["results"]}}


def test_a_run_is_evaluated_whole(course):
    measured = study.measure(course, "random projection", 2)
    results = measured["results"]
    assert measured["id"] == fingerprint(json.loads(json.dumps(measured["definition"])))
    assert results["map_draws"][0] == pytest.approx(results["map"], abs=1e-5) and len(results["map_draws"]) == 1001
    found = [value for value in results["average_precisions"] if value is not None]
    assert np.mean(found) == pytest.approx(results["map"]) and results["skipped"] == 18 - len(found)
    assert set(results["label_curve"]) == {1, 5, 20} and all(0 < value < 1 for value in results["label_curve"].values())
    assert json.loads(json.dumps(measured, allow_nan=False))["machine"]["cores"] >= 1


def test_the_table_holds_means_spreads_and_shares_of_the_supervised_control():
    found = study.by_name([
        record("supervised encoder", 1, (0.75, 0.7), qbe=0.5), record("N", 1, (0.5, 0.5)), record("N", 2, (0.25, 0.5)),
    ])  # fmt: skip
    supervised, row = study.table(found)
    assert (row["row"], row["seeds"], row["map"], row["slides"]) == ("N", 2, 0.375, 0.286)
    assert row["spread"] == pytest.approx(np.std([0.5, 0.25], ddof=1)) and supervised["spread"] is None
    assert (row["map_share"], row["qbe_share"]) == (0.5, 0.5) and supervised["map_share"] == 1.0
    assert study.table({"N": found["N"]})[0]["map_share"] is None


def found_with(**maps):
    """Results of some seeds, each with 100 draws around the mAP given for its row."""
    noise = np.random.default_rng(0).normal(0, 0.001, 100)
    return study.by_name([
        record(name, seed, (value, *(value + noise * (1 + seed))))
        for name, values in maps.items() for seed, value in enumerate(values, start=1)
    ])  # fmt: skip


def test_verdicts():
    both = Relation(0, "", ((("S2",), ("N",)), (("F",), ("N",))))

    def verdict(**maps):
        return study.verdict(study.differences(both, found_with(**maps)))

    low, high = (0.5, 0.5, 0.5), (0.6, 0.6, 0.6)
    assert verdict(S2=low, F=low, N=high) == "holds"
    assert verdict(S2=low, F=(0.5, 0.7, 0.6), N=high) == "undecided"  # seeds that disagree
    assert verdict(S2=low, F=(0.7, 0.7, 0.7), N=high) == "fails"  # one of the two is enough
    assert verdict(S2=low, N=high) == "too few seeds" == verdict(S2=low, F=low[:2], N=high)
    lower = found_with(S2=low, N=(0.495, 0.495, 0.495))
    for margin, expected in ((0.0, "fails"), (0.01, "holds")):
        (gap,) = study.differences(Relation(0, "", ((("S2",), ("N",)),), margin), lower)
        assert gap.verdict == expected


def test_of_several_rows_the_best_of_each_seed_counts_and_only_seeds_that_all_have():
    relation = Relation(0, "", ((("S2", "S1"), ("F", "N")),))
    found = found_with(S2=(0.5, 0.2, 0.9, 0.9), S1=(0.3, 0.4, 0.3, 0.1), F=(0.6, 0.1, 0.2), N=(0.1, 0.7, 0.1, 0.1))
    (gap,) = study.differences(relation, found)
    assert gap.mean == pytest.approx(np.mean([0.6 - 0.5, 0.7 - 0.4, 0.2 - 0.9]))
    assert "F or N over S2 or S1" not in study.report(found) and "S2" in study.report(found)


def test_wrong_arguments_are_one_sentence(tmp_path, capsys):
    assert study.main(["--profile", "huge", "--out", str(tmp_path)]) == 2
    assert "PROFILE='huge': expected one of" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(study.FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_committed_results_are_of_the_table_as_it_is(path):
    records = study.read(path)
    assert {(record["row"], record["seed"]) for record in records} <= set(study.plan())
    assert sum(len(seeds) for seeds in study.by_name(records).values()) == len(records)
    for record in records:
        assert record["commit"] and not record["commit"].endswith("+"), "results of code that is not committed"
        classes = [value for value in record["results"]["average_precisions"] if value is not None]
        assert np.mean(classes) == pytest.approx(record["results"]["map"], abs=1e-6)
        assert set(evaluation.CONTROLS) <= {other["row"] for other in records}
