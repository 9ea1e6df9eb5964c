"""Tables of embeddings: written by blocks, read whole, and refused where anything in them is off."""

import json
import zipfile

import numpy as np
import pytest

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder import table
from sepcl_keras.encoder.table import load_table, read_meta, write_table

IDS, D = ["a.wav", "a.wav", "klänge/ü.wav", "\\udcff.wav"], 3
TIMES = np.array([0.0, 0.96, 0.0, 0.0])
H = np.arange(12, dtype="float32").reshape(4, D) - 5
META = dict(rows=4, d=D, refused={"b.wav": "b.wav: silent."}, hop=96)


def blocks():
    yield IDS[:1], TIMES[:1], H[:1]
    yield [], TIMES[:0], H[:0]
    yield IDS[1:], TIMES[1:], H[1:]


@pytest.fixture(params=["npz", "parquet"])
def path(request, tmp_path):
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    write_table(tmp_path / f"table.{request.param}", blocks, META)
    return tmp_path / f"table.{request.param}"


def test_what_was_written_is_read(path):
    found = load_table(path)
    assert found.ids.tolist() == IDS and found.meta == read_meta(path) == META
    np.testing.assert_array_equal(found.times, TIMES)
    np.testing.assert_array_equal(found.h, H)
    assert found.h.dtype == np.float32 and [p.name for p in path.parent.iterdir()] == [path.name]


def test_numpy_alone_reads_it_too(tmp_path):
    write_table(tmp_path / "table.npz", blocks, META)
    with np.load(tmp_path / "table.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["h", "ids", "meta", "times"] and arrays["ids"].tolist() == IDS
        np.testing.assert_array_equal(arrays["h"], H)


def test_pandas_or_any_other_reader_finds_rows_in_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path / "table.parquet", blocks, META)
    rows = parquet.read_table(tmp_path / "table.parquet").to_pylist()
    assert rows[1] == {"ids": "a.wav", "times": 0.96, "h": [-2.0, -1.0, 0.0]} and len(rows) == 4


def test_a_flipped_bit_is_found(path):
    content = bytearray(path.read_bytes())
    content[content.index(H.tobytes()[:12]) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match="table.* expected a whole table of embed_files, but reading it failed"):
        load_table(path)


def test_half_a_table_is_none(path):
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(BadInput, match="expected a whole table of embed_files, but reading it failed"):
            load_table(path)


OTHER = [
    (dict(ids=IDS[:3]), r"ids \(3,\) of .*, times \(4,\) of float64, h \(4, 3\); expected text \(rows,\)"),
    (dict(ids=[1, 2, 3, 4]), r"ids \(4,\) of int64.*expected text"),
    (dict(times=TIMES[:3]), r"times \(3,\) from 0 s and h \(4, 3\); expected 4 rows of 3 numbers, by its meta"),
    (dict(times=TIMES - 1), "times .* from -1 s .* no time before 0 s"),
    (dict(times=np.array(list("abcd"))), r"times \(4,\) of <U1"),
    (dict(times=TIMES * np.nan), "table.npz: times with NaN or infinity"),
    (dict(h=H[:, :2]), r"h \(4, 2\); expected 4 rows of 3 numbers"),
    (dict(h=H[0]), r"h \(3,\); expected text"),
    (dict(h=H * np.nan), "table.npz: h with NaN or infinity"),
    (dict(h=H.astype("complex64")), "table.npz: h of complex64: expected real numbers"),
    (dict(h=np.array([[{}] * 3] * 4)), r"reading it failed \(Object arrays cannot be loaded"),
    (dict(meta="[]"), r"reading it failed \(its meta is no JSON object\)"),
    (dict(meta="{"), "reading it failed"),
    (dict(meta="{}"), "expected None rows of None numbers, by its meta"),
    (dict(h=None), "reading it failed"),
    (dict(meta=None), "reading it failed"),
]


@pytest.mark.parametrize("change, message", OTHER, ids=[str(number) for number in range(len(OTHER))])
def test_a_table_of_other_columns_is_refused(tmp_path, change, message):
    columns = dict(ids=IDS, times=TIMES, h=H, meta=json.dumps(META)) | change
    np.savez(tmp_path / "table.npz", **{name: value for name, value in columns.items() if value is not None})
    with pytest.raises(BadInput, match=message):
        load_table(tmp_path / "table.npz")


def test_parquet_of_other_columns_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for columns, meta in (({"ids": IDS}, {b"sepcl_keras": json.dumps(META)}), ({"ids": IDS}, {})):
        parquet.write_table(pyarrow.table(columns).replace_schema_metadata(meta), tmp_path / "table.parquet")
        with pytest.raises(BadInput, match="expected a whole table of embed_files, but reading it failed"):
            load_table(tmp_path / "table.parquet")


def test_what_is_not_there_or_has_another_ending_is_refused(tmp_path):
    with pytest.raises(BadInput, match="none.npz: expected a table of embeddings, but there is none"):
        load_table(tmp_path / "none.npz")
    with pytest.raises(BadInput, match=r"table.csv: expected a path that ends in \.npz or \.parquet"):
        load_table(tmp_path / "table.csv")
    with pytest.raises(BadInput, match="path=7: expected a path"):
        load_table(7)


def test_without_pyarrow_parquet_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: None)
    for function in (load_table, lambda path: write_table(path, blocks, META)):
        with pytest.raises(
            BadInput, match="Parquet needs the package pyarrow; expected it installed, or a path ending"
        ):
            function(tmp_path / "table.parquet")


def test_ids_take_little_room(tmp_path):
    def many():
        for _ in range(100):
            yield ["folder/of/a/recorder/2026-05-01T04:00:00.wav"] * 100, np.zeros(100), np.ones((100, 3), "float32")

    write_table(tmp_path / "table.npz", many, META | dict(rows=10_000))
    with zipfile.ZipFile(tmp_path / "table.npz") as archive:
        assert archive.getinfo("ids.npy").compress_size < 20_000 < 1_000_000 < archive.getinfo("ids.npy").file_size
    assert len(set(load_table(tmp_path / "table.npz").ids)) == 1
