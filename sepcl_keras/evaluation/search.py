"""Search: the rows of a table of embeddings that are nearest to a query, by cosine."""

import importlib.util
import weakref

import numpy as np

from sepcl_keras.core.checks import BadInput, array, check_number, numbers
from sepcl_keras.encoder.table import Table, load_table

MOST = 100_000  # rows that are all compared; beyond, usearch finds nearly all of the nearest and looks at few
BLOCK = 2**24  # cosines at a time
_indexes = weakref.WeakKeyDictionary()  # table → usearch's index of it, with the rows of each entry: made once


def unit(embeddings):
    """Rows of length one; a row of zeros stays zero, so that its cosine to everything is 0."""
    # Scaling by the largest entry first keeps squares of huge or tiny entries from over- or underflowing.
    largest = np.abs(embeddings).max(axis=-1, keepdims=True)
    embeddings = embeddings / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.where(length > 0, length, 1.0)


def search(table, query, k=10):
    """The k rows of a table that are nearest to each query by cosine, the nearest first; of equal ones the earlier.

    Up to 100,000 rows all are compared. Beyond, the package usearch makes an index of the table at its first search,
    about a minute for each 100,000 rows on two cores, kept as long as the table; what it then finds, at once, is nearly
    always the nearest (Malkov and Yashunin 2016).

    Args:
        table: a `Table`, or the path of one.
        query: h (d,) of one sound, or (queries, d), by the encoder that the table was made with.
        k: rows to find; where the table has fewer, all of them.

    Returns:
        rows, int64, and cosines, float32: (k,) each, or (queries, k). Their sounds are `table.ids[rows]`, from
        `table.times[rows]` seconds on.
    """
    table = table if isinstance(table, Table) else load_table(table)
    check_number("search: k", k, least=1, whole=True)
    query = array("query", query)
    queries = numbers("query", query[None] if query.ndim == 1 else query, ("queries", "d"), "float32")
    rows, d = table.h.shape
    if queries.shape[1] != d:
        raise BadInput(f"query of {queries.shape[1]} numbers: expected {d}, as the table has them.")
    found = (_by_index if rows > MOST else _by_all)(table, unit(queries), min(int(k), rows))
    return tuple(part[0] if query.ndim == 1 else part for part in found)


def _by_all(table, queries, k):
    h, size = unit(table.h), max(1, BLOCK // len(table.h))
    rows, cosines = np.empty((len(queries), k), "int64"), np.empty((len(queries), k), "float32")
    for start in range(0, len(queries), size):
        for index, cosine in enumerate(queries[start : start + size] @ h.T, start):
            least = np.partition(cosine, -k)[-k]
            candidates = np.flatnonzero(cosine >= least)  # all that are as near as the k-th: the earlier are taken
            rows[index] = candidates[np.argsort(-cosine[candidates], kind="stable")[:k]]
            cosines[index] = cosine[rows[index]]
    return rows, cosines


def _by_index(table, queries, k):
    if importlib.util.find_spec("usearch") is None:
        raise BadInput(f"search: a table of {len(table.h)} rows needs the package usearch; expected it installed.")
    if table not in _indexes:
        _indexes[table] = _index(table.h)
    index, rows_of, starts = _indexes[table]
    groups = min(k, len(starts) - 1)
    index.expansion_search = max(64, 2 * groups)  # its 64 misses some of the nearest 100
    found = index.search(queries, groups)
    keys = np.asarray(found.keys, "int64").reshape(len(queries), -1)
    counts = np.array(found.counts if len(queries) > 1 else [len(found)])
    rows, cosines = np.empty((len(queries), k), "int64"), np.empty((len(queries), k), "float32")
    for query in np.flatnonzero(counts == groups):
        near = np.concatenate([rows_of[starts[key] : starts[key + 1]][:k] for key in keys[query]])
        cosine = unit(table.h[near]) @ queries[query]
        best = np.lexsort((near, -cosine))[:k]
        rows[query], cosines[query] = near[best], cosine[best]
    if (short := counts < groups).any():  # from where these begin, the rest of the graph cannot be reached
        rows[short], cosines[short] = _by_all(table, queries[short], k)
    return rows, cosines


def _index(h):
    """usearch's index of the different rows; the rows equal to its entry g are rows_of[starts[g] : starts[g + 1]].

    Equal rows, as silent clips have, would fill each other's links, so that from them nothing else is found.
    """
    from usearch.index import Index

    h = np.ascontiguousarray(unit(h), "float32")
    _, first, group = np.unique(h.view(f"V{h.itemsize * h.shape[1]}")[:, 0], return_index=True, return_inverse=True)
    # usearch's own effort of 128 in adding takes twice as long, and what is found is no better.
    index = Index(ndim=h.shape[1], metric="ip", dtype="f32", expansion_add=48)
    index.add(np.arange(len(first)), h[first])
    rows_of = np.argsort(group, kind="stable")
    return index, rows_of, np.searchsorted(group[rows_of], np.arange(len(first) + 1))
