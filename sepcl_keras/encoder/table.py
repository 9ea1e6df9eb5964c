"""Tables of embeddings: rows with the sound's id, the time in seconds and h, in an .npz or a Parquet file."""

import dataclasses
import importlib.util
import json
import zipfile

import numpy as np

from sepcl_keras.core.arrays import write_header
from sepcl_keras.core.checks import BadInput, array, numbers, path_of, reason_of
from sepcl_keras.core.files import atomic, writing

FORMATS = (".npz", ".parquet")
META = b"sepcl_keras"  # under which Parquet keeps the table's meta


@dataclasses.dataclass(eq=False)
class Table:
    """Embeddings of many sounds.

    Attributes:
        ids: (rows,) text, which sound a row is of: its path within the folder, or the one given.
        times: (rows,) seconds from the sound's beginning to the window's; 0 where a row is the mean over a sound.
        h: (rows, d) float32.
        meta: dict, among others `encoder` (its sizes, and a digest of its weights), `sample_rate` in Hz, `window` in
            samples, `hop` in frames of 10 ms, and `refused`, from id to the sentence why.
    """

    ids: np.ndarray
    times: np.ndarray
    h: np.ndarray
    meta: dict


def load_table(path):
    """The `Table` in a file that `embed_files` wrote; nothing in it is executed.

    A file that is missing, damaged, or holds anything else, such as columns of other lengths, is `BadInput`.
    """
    ids, times, h, meta = _read(path, ("ids", "times", "h"))
    if h.ndim != 2 or ids.shape != h.shape[:1] or ids.dtype.kind != "U" or times.dtype.kind != "f":
        raise BadInput(
            f"{path}: ids {ids.shape} of {ids.dtype}, times {times.shape} of {times.dtype}, h {h.shape}; expected text "
            "(rows,), seconds (rows,) and h (rows, d)."
        )
    times = numbers(f"{path}: times", times, ("rows",), "float64")
    h = numbers(f"{path}: h", array(f"{path}: h", h), ("rows", "d"), "float32")
    if [len(times), *h.shape] != [len(ids), meta.get("rows"), meta.get("d")] or times.min() < 0:
        raise BadInput(
            f"{path}: times {times.shape} from {times.min():g} s and h {h.shape}; expected {meta.get('rows')} rows of "
            f"{meta.get('d')} numbers, by its meta, and no time before 0 s."
        )
    return Table(ids, times, h, meta)


def read_meta(path):
    """The meta of a table in a file, or `BadInput`."""
    return _read(path, ())[-1]


def format_of(path):
    """The ending of a table's path, or `BadInput` where it is none, or needs a package that is not there."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise BadInput(f"{path}: expected a path that ends in {' or '.join(FORMATS)}.")
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise BadInput(f"{path}: Parquet needs the package pyarrow; expected it installed, or a path ending in .npz.")
    return ending


def _read(path, columns):
    """These columns, and the meta."""
    path = path_of("path", path)
    ending = format_of(path)
    if not path.is_file():
        raise BadInput(f"{path}: expected a table of embeddings, but there is none.")
    try:
        *found, meta = (_read_npz if ending == ".npz" else _read_parquet)(path, columns)
        meta = json.loads(meta)
        if not isinstance(meta, dict):
            raise ValueError("its meta is no JSON object")
    except Exception as error:  # a file can be broken in more ways than zip, NumPy and Arrow have names for
        raise BadInput(
            f"{path}: expected a whole table of embed_files, but reading it failed ({reason_of(error)})."
        ) from None
    return [*found, meta]


def _read_npz(path, columns):
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        return [archive[name] for name in columns] + [str(archive["meta"])]


def _read_parquet(path, columns):
    from pyarrow import parquet

    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        meta, d = file.schema_arrow.metadata[META], json.loads(file.schema_arrow.metadata[META])["d"]
        if not file.schema_arrow.equals(_schema(d)):
            raise ValueError("other columns than ids, times and h")
        if not columns:
            return [meta]
        table = file.read(columns)
    if any(column.null_count for column in table.columns):
        raise ValueError("rows without a value")
    h = [chunk.flatten().to_numpy() for chunk in table["h"].chunks]
    ids = np.array(table["ids"].to_pylist(), dtype=np.str_)
    return [ids, table["times"].to_numpy(), np.concatenate(h).reshape(-1, d), meta]


def _schema(d):
    import pyarrow

    h = pyarrow.list_(pyarrow.field("element", pyarrow.float32(), nullable=False), d)
    return pyarrow.schema([("ids", pyarrow.string()), ("times", pyarrow.float64()), ("h", h)])


def write_table(path, blocks, meta):
    """Writes a table whole or not at all, without holding it.

    Args:
        path: ends in .npz or .parquet.
        blocks: a function without arguments, called more than once, that gives the rows as a generator of (ids, list of
            text; times (rows,); h (rows, d)).
        meta: dict that JSON can tell, with `rows` and `d` among others.
    """
    with writing(path), atomic(path) as temporary:
        (_write_npz if format_of(path) == ".npz" else _write_parquet)(temporary, blocks, meta)


def _write_npz(path, blocks, meta):
    rows, d = meta["rows"], meta["d"]
    longest = max(len(id) for ids, _, _ in blocks() for id in ids)
    columns = {"ids": (f"<U{longest}", (rows,)), "times": ("<f8", (rows,)), "h": ("<f4", (rows, d))}
    with zipfile.ZipFile(path, "w") as archive:
        for column, (name, (dtype, shape)) in enumerate(columns.items()):
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED if name == "ids" else zipfile.ZIP_STORED  # much the same text
            with archive.open(member, "w", force_zip64=True) as file:
                write_header(file, np.dtype(dtype), shape)
                for block in blocks():
                    file.write(np.asarray(block[column], dtype).tobytes())
        with archive.open(zipfile.ZipInfo("meta.npy"), "w") as file:
            np.lib.format.write_array(file, np.array(json.dumps(meta)), allow_pickle=False)


def _write_parquet(path, blocks, meta):
    import pyarrow
    from pyarrow import parquet

    schema = _schema(meta["d"]).with_metadata({META: json.dumps(meta)})
    with parquet.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for ids, times, h in blocks():
            h = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(h.ravel(), "float32"), type=schema.field("h").type)
            writer.write_table(pyarrow.Table.from_arrays([pyarrow.array(ids, "string"), times, h], schema=schema))
