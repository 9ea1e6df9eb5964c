"""Search: the rows of a table of embeddings that are nearest to a query, by cosine."""

import importlib.util
import weakref

import numpy as np

from sepcl_keras.core.checks import BadInput, array, check_number, numbers
from sepcl_keras.encoder.table import Table, load_table

MOST = 100_000  # rows that are all compared; beyond, usearch finds nearly all of the nearest and looks at few
BLOCK = 2**24  # cosines at a time
_indexes = weakref.WeakKeyDictionary()  # table → usearch's index: made once


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
    from usearch.index import Index

    if table not in _indexes:  # usearch's own effort of 128 takes twice as long and found no more
        index = Index(ndim=table.h.shape[1], metric="ip", dtype="f32", expansion_add=48)
        index.add(np.arange(len(table.h)), unit(table.h))
        _indexes[table] = index
    found = _indexes[table].search(queries, k)
    rows = np.asarray(found.keys, "int64").reshape(len(queries), k)
    cosines = np.einsum("qd,qkd->qk", queries, unit(table.h[rows]))
    order = np.lexsort((rows, -cosines))
    return np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)
