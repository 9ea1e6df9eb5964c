"""Search by cosine: against sums by hand, with ties, zeros, and more rows than are all compared."""

import numpy as np
import pytest

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.table import Table, write_table
from sepcl_keras.evaluation import search as module
from sepcl_keras.evaluation.search import search


def table_of(h):
    h = np.asarray(h, "float32")
    return Table(np.array([f"{index}.wav" for index in range(len(h))]), np.zeros(len(h)), h, {})


def test_the_nearest_are_those_of_the_largest_cosine_nearest_first():
    table = table_of([[1, 0], [0, 2], [3, 3], [-1, 0], [0, 0], [1e-30, 1e-31]])
    rows, cosines = search(table, [2.0, 0.0], k=6)
    assert rows.tolist() == [0, 5, 2, 1, 4, 3]
    np.testing.assert_allclose(cosines, [1, 10 / np.sqrt(101), np.sqrt(0.5), 0, 0, -1], atol=1e-6)
    assert search(table, [2.0, 0.0], k=2)[0].tolist() == [0, 5]


def test_many_queries_are_each_by_themselves_and_ties_go_to_the_earlier(monkeypatch):
    rng = np.random.default_rng(0)
    h = rng.standard_normal((50, 4)).astype("float32")
    h[20:40] = h[7]
    queries = np.concatenate([rng.standard_normal((9, 4)), h[7:8]])
    monkeypatch.setattr(module, "BLOCK", 150)  # three queries at a time
    rows, cosines = search(table_of(h), queries, k=5)
    assert rows.shape == cosines.shape == (10, 5)
    for query, row, cosine in zip(queries, rows, cosines):
        by_hand = h.astype("f8") @ query / np.linalg.norm(h.astype("f8"), axis=1) / np.linalg.norm(query)
        np.testing.assert_allclose(cosine, np.sort(by_hand)[::-1][:5], atol=1e-6)
        np.testing.assert_allclose(by_hand[row], cosine, atol=1e-6)
    assert rows[-1].tolist() == [7, 20, 21, 22, 23]


def test_a_path_is_loaded_and_fewer_rows_than_k_are_all(tmp_path):
    table = table_of(np.eye(3))
    blocks = lambda: iter([(table.ids.tolist(), table.times, table.h)])  # noqa: E731
    write_table(tmp_path / "table.npz", blocks, dict(rows=3, d=3))
    rows, cosines = search(tmp_path / "table.npz", [[0.0, 1.0, 0.5]], k=10)
    assert rows.tolist() == [[1, 2, 0]] and cosines.shape == (1, 3)


@pytest.mark.parametrize(
    "query, k, message",
    [
        ([1.0, 2.0], 1, "query of 2 numbers: expected 3, as the table has them"),
        ([1.0, np.nan, 0.0], 1, "query with NaN or infinity"),
        (np.zeros((0, 3)), 1, r"query of shape \(0, 3\): expected \(queries, d\)"),
        (np.zeros((1, 1, 3)), 1, r"query of shape \(1, 1, 3\): expected \(queries, d\)"),
        (["a", "b", "c"], 1, "query of <U1: expected real numbers"),
        ([1.0, 2.0, 3.0], 0, "search: k=0: expected a whole number of at least 1"),
        ([1.0, 2.0, 3.0], 1.5, "search: k=1.5: expected a whole number"),
    ],
)
def test_what_cannot_be_searched_is_refused(query, k, message):
    with pytest.raises(BadInput, match=message):
        search(table_of(np.eye(3)), query, k)


def test_usearch_is_asked_for_in_a_sentence_and_only_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert search(table_of(np.eye(3)), [1.0, 0.0, 0.0], 1)[0].tolist() == [0]
    with pytest.raises(BadInput, match="a table of 4 rows needs the package usearch; expected it installed"):
        search(table_of(np.eye(4)), [1.0, 0.0, 0.0, 0.0], 1)


def test_usearch_finds_what_comparing_all_finds(monkeypatch):
    pytest.importorskip("usearch")
    rng = np.random.default_rng(0)
    table, queries = table_of(rng.standard_normal((2_000, 16))), rng.standard_normal((20, 16))
    expected, cosines = search(table, queries, k=5)
    monkeypatch.setattr(module, "MOST", 1_000)
    rows, found = search(table, queries, k=5)
    assert np.mean(rows == expected) > 0.95 and table in module._indexes
    np.testing.assert_allclose(found[rows == expected], cosines[rows == expected], atol=1e-6)
    assert search(table, queries[0], k=5)[0].shape == (5,)


@pytest.mark.parametrize("equal", [0.5, 0.9])
def test_usearch_finds_past_rows_that_are_equal(monkeypatch, equal):
    """Silent clips have equal embeddings: in a graph they would hide the others, and end it early."""
    pytest.importorskip("usearch")
    rng = np.random.default_rng(1)
    h = rng.standard_normal((2_000, 16)).astype("float32")
    silent = rng.random(2_000) < equal
    h[silent] = h[np.flatnonzero(silent)[0]]
    table, queries = table_of(h), np.concatenate([h[~silent][:20], h[silent][:1]])
    nearest, cosines = search(table, queries, k=300)
    monkeypatch.setattr(module, "MOST", 1_000)
    for k in (5, 300):
        rows, found = search(table, queries, k=k)
        assert np.mean(found > cosines[:, k - 1 : k] - 1e-6) > 0.95, k
        assert all(len(set(row)) == k for row in rows.tolist())
        assert rows[-1].tolist() == nearest[-1, :k].tolist()  # equal ones: the earlier first
    assert (
        search(table, queries[0], k=2_000)[0].tolist()
        == module._by_all(table, module.unit(queries[:1]), 2_000)[0][0].tolist()
    )


def test_where_a_graph_ends_early_all_rows_are_compared(monkeypatch):
    index = pytest.importorskip("usearch.index").Index
    table, found = table_of(np.random.default_rng(2).standard_normal((300, 8))), index.search
    expected = search(table, table.h[:4], k=9)[0]

    class Short:
        def __init__(self, whole):
            self.keys, self.counts = np.array(whole.keys), np.array([9, 3, 9, 2])
            self.keys[1, 3:] = self.keys[3, 2:] = 0  # as usearch fills up

    monkeypatch.setattr(module, "MOST", 100)
    monkeypatch.setattr(index, "search", lambda self, vectors, count: Short(found(self, vectors, count)))
    assert search(table, table.h[:4], k=9)[0].tolist() == expected.tolist()
