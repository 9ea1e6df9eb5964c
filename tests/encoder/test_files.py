"""Folders of sounds to one table: the numbers of `embed`, whatever is refused, stopped, long or many."""

import functools
import json
import os
import runpy
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import soundfile
from conftest import ROOT

import sepcl_keras
from sepcl_keras.core.arrays import GrowingArrays
from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.folders import Sparing
from sepcl_keras.encoder import embedding, files
from sepcl_keras.encoder.embedding import embed
from sepcl_keras.encoder.files import embed_files, stretches
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.encoder.table import load_table
from sepcl_keras.scenes import ahead as ahead_module
from sepcl_keras.scenes.ahead import Ahead
from sepcl_keras.scenes.audio import read

SOUNDS = {"b/2.ogg": 5.3, "b/1.WAV": 0.4, "a.flac": 2.02, "c/d/e.wav": 3.0, "z.mp3": 1.5}  # seconds
ORDER = ["a.flac", "b/1.WAV", "b/2.ogg", "c/d/e.wav", "z.mp3"]


def write_sound(path, seconds, rate=22_050, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    swelling = np.linspace(0.01, 1, int(seconds * rate))[:, None]
    soundfile.write(path, 0.2 * swelling * rng.uniform(-1, 1, (int(seconds * rate), channels)), rate)


@pytest.fixture
def folder(tmp_path):
    for seed, (name, seconds) in enumerate(SOUNDS.items()):
        write_sound(tmp_path / "sounds" / name, seconds, channels=1 + seed % 2, seed=seed)
    return tmp_path / "sounds"


def spoil(folder):
    """Adds what is refused: at its beginning, at its end, and in its middle, after windows were embedded."""
    soundfile.write(folder / "b" / "silent.wav", np.zeros(40_000), 16_000)
    soundfile.write(folder / "short.wav", np.full(800, 0.5), 16_000)
    (folder / "a.ogg").write_bytes(b"no sound")
    sound = np.full(80_000, 0.1, "float32")
    sound[-1] = np.nan
    soundfile.write(folder / "c" / "broken.wav", sound, 16_000, subtype="FLOAT")
    return ["a.ogg", "b/silent.wav", "c/broken.wav", "short.wav"]


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def same(one, other):
    for name in ("ids", "times", "h"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert told(one) == told(other)


def told(table):
    """What a table says, without the reasons that libsndfile gives: for one file now this, now that."""
    return table.meta | {"refused": {name: why.partition(" (")[0] for name, why in table.meta["refused"].items()}}


def test_files_are_resampled_to_the_rate_of_the_encoder(small_encoder, tmp_path, monkeypatch):
    """Were it 8,000 Hz, of which there is none yet, a file at that rate would be taken sample by sample."""
    sound = 0.2 * np.random.default_rng(0).uniform(-1, 1, 40_000).astype("float32")
    soundfile.write(tmp_path / "a.wav", sound, 8_000, subtype="FLOAT")
    table = load_table(embed_files([tmp_path / "a.wav"], small_encoder, tmp_path / "ours.npz", show=False))
    assert table.meta["sample_rate"] == 16_000 and len(table.h) == 5
    monkeypatch.setattr(small_encoder, "sample_rate", 8_000)
    table = load_table(embed_files([tmp_path / "a.wav"], small_encoder, tmp_path / "other.npz", show=False))
    assert table.meta["sample_rate"] == 8_000
    close(table.h, embed(sound[None], small_encoder, show=False)[0])
    np.testing.assert_allclose(table.times, 15_360 / 8_000 * np.arange(2))


@pytest.mark.parametrize("recipe, hop", [("vggish", None), ("vggish", 7), ("vggish", 250), ("panns", None)])
def test_a_table_has_what_embed_gives_for_each_file(folder, small_encoder, panns_encoder, tmp_path, recipe, hop):
    encoder = small_encoder if recipe == "vggish" else panns_encoder
    table = load_table(embed_files(folder, encoder, tmp_path / "table.npz", hop=hop, show=False))
    assert list(dict.fromkeys(table.ids)) == ORDER and table.meta["refused"] == {}
    for name in ORDER:
        (expected,) = embed([read(folder / name)], encoder, hop=hop, show=False)
        rows = table.ids == name
        close(table.h[rows], expected)
        np.testing.assert_allclose(table.times[rows], 0.01 * (hop or 96) * np.arange(len(expected)))
    assert not list(tmp_path.glob(".*"))


def test_the_window_is_the_encoders(folder, panns_encoder, tmp_path):
    encoder = CNN14.from_config(panns_encoder.get_config() | {"window": 32_000})
    encoder.build((None, None, 64))
    encoder.set_weights(panns_encoder.get_weights())
    table = load_table(embed_files(folder, encoder, tmp_path / "table.npz", show=False))
    assert table.times[table.ids == "b/2.ogg"].tolist() == [0.0, 2.0] and table.meta["window"] == 32_000
    for name in ORDER:
        close(table.h[table.ids == name], embed([read(folder / name)], encoder, show=False)[0])


def test_one_row_a_file_is_its_mean(folder, small_encoder, tmp_path, monkeypatch):
    refused = spoil(folder)
    out = embed_files(folder, small_encoder, tmp_path / "table.npz", pool=True, batch_size=3, show=False)
    table = load_table(out)
    assert table.ids.tolist() == ORDER and not table.times.any() and sorted(table.meta["refused"]) == refused
    close(table.h, embed([read(folder / name) for name in ORDER], small_encoder, pool=True, show=False))
    monkeypatch.setattr(files, "BLOCK", 2)  # rows of one file then lie in several blocks
    again = load_table(embed_files(folder, small_encoder, tmp_path / "again.npz", pool=True, show=False))
    close(again.h, table.h)
    assert again.ids.tolist() == ORDER


def test_refused_files_are_told_and_leave_no_rows(folder, small_encoder, tmp_path, capsys):
    refused = spoil(folder)
    table = load_table(embed_files(folder, small_encoder, tmp_path / "table.npz", hop=20, batch_size=2))
    assert list(dict.fromkeys(table.ids)) == ORDER and sorted(table.meta["refused"]) == refused
    for name, sentence in zip(refused, ("readable wav", "is silent", "holds NaN or infinity", "lasts 0.050 s")):
        assert sentence in table.meta["refused"][name] and str(folder / name) in table.meta["refused"][name]
    for name in ORDER:
        close(table.h[table.ids == name], embed([read(folder / name)], small_encoder, hop=20, show=False)[0])
    assert "9/9" in capsys.readouterr().out


def test_a_list_is_taken_in_its_order_with_its_own_names(folder, small_encoder, tmp_path):
    given = [folder / "z.mp3", str(folder / "a.flac"), "nowhere.wav"]
    table = load_table(embed_files(given, small_encoder, tmp_path / "table.npz", show=False))
    assert list(dict.fromkeys(table.ids)) == [str(folder / "z.mp3"), str(folder / "a.flac")]
    assert table.meta["refused"] == {"nowhere.wav": "nowhere.wav: expected a sound file, but there is none."}


def test_hidden_files_and_others_are_no_sounds(folder, small_encoder, tmp_path):
    (folder / "._a.flac").write_bytes(b"what macOS leaves beside a.flac")
    (folder / "notes.txt").write_text("heard on Monday")
    table = load_table(embed_files(folder, small_encoder, tmp_path / "table.npz", show=False))
    assert list(dict.fromkeys(table.ids)) == ORDER and not table.meta["refused"]


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stops", [(0,), (2,), (3, 6), (4, 8, 10, 12)])
@pytest.mark.parametrize("kept", [True, False])
def test_a_stopped_run_goes_on_and_ends_in_the_same_table(folder, small_encoder, tmp_path, monkeypatch, stops, kept):
    """`kept`: whether each batch was made sure of; else only the first was, and the others are made again."""
    spoil(folder)
    options = dict(hop=24, batch_size=4, show=False)
    whole = load_table(embed_files(folder, small_encoder, tmp_path / "whole.npz", **options))
    add, seen = GrowingArrays.add, []
    for stop in stops:

        def stopping(growing, *rows, stop=stop):
            if growing.rows >= 4 * stop:
                raise Stopped
            if kept:
                growing.sparing = Sparing()
            seen.append(growing.rows)
            add(growing, *rows)

        with monkeypatch.context() as patched, pytest.raises(Stopped):
            patched.setattr(GrowingArrays, "add", stopping)
            embed_files(folder, small_encoder, tmp_path / "table.npz", **options)
        assert not (tmp_path / "table.npz").exists()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("decoding")]
    assert not kept or seen == list(range(0, 4 * stops[-1], 4))  # nothing twice
    same(load_table(embed_files(folder, small_encoder, tmp_path / "table.npz", **options)), whole)
    assert (tmp_path / "table.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_run_stopped_while_the_table_was_written_embeds_nothing_again(folder, small_encoder, tmp_path, monkeypatch):
    spoil(folder)
    whole = load_table(embed_files(folder, small_encoder, tmp_path / "whole.npz", show=False))

    def stop(*_):
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(files, "write_table", stop)
        embed_files(folder, small_encoder, tmp_path / "table.npz", show=False)
    with monkeypatch.context() as patched:
        patched.setattr(files, "network_of", None)
        same(load_table(embed_files(folder, small_encoder, tmp_path / "table.npz", show=False)), whole)


def test_a_table_that_is_there_is_made_no_second_time_and_not_replaced(folder, small_encoder, tmp_path, monkeypatch):
    out = embed_files(folder, small_encoder, tmp_path / "table.npz", show=False)
    content = out.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(files, "network_of", None)
        assert embed_files(folder, small_encoder, out, show=False) == out
    write_sound(folder / "new.wav", 1)
    with pytest.raises(BadInput, match="table.npz: made from something else; expected a path where nothing is yet"):
        embed_files(folder, small_encoder, out, show=False)
    assert out.read_bytes() == content and not list(tmp_path.glob(".*"))


def test_a_file_changed_since_a_stop_is_embedded_anew(folder, small_encoder, tmp_path, monkeypatch):
    def stop(*_):
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(files, "write_table", stop)
        embed_files(folder, small_encoder, tmp_path / "table.npz", show=False)
    write_sound(folder / "a.flac", 4, seed=9)
    table = load_table(embed_files(folder, small_encoder, tmp_path / "table.npz", show=False))
    close(table.h[table.ids == "a.flac"], embed([read(folder / "a.flac")], small_encoder, show=False)[0])


class First8:
    def predict_on_batch(self, batch):
        return batch[:, :8].copy()


@pytest.mark.once
def test_memory_does_not_grow_with_the_length_of_a_file(small_encoder, tmp_path, monkeypatch):
    plain = embedding.inference
    monkeypatch.setattr(embedding, "inference", lambda model, batch_size: plain(First8(), batch_size))
    peaks = []
    for seconds in (4_200, 7_200):  # both of more rows than are written at a time
        rng = np.random.default_rng(0)
        with soundfile.SoundFile(tmp_path / f"{seconds}.wav", "w", 1_000, 1, "PCM_U8") as file:
            for _ in range(seconds // 60):
                file.write(0.1 * rng.standard_normal(60_000))
        tracemalloc.start()
        # In small batches, so that what threads hold, now more and now less, is little beside the rest.
        path, out = tmp_path / f"{seconds}.wav", tmp_path / f"{seconds}.npz"
        embed_files([path], small_encoder, out, batch_size=4, show=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(load_table(out).h) == 1 + (16_000 * seconds - 15_600) // 15_360
    assert peaks[1] < 1.1 * peaks[0] < 16e6  # two hours at 16 kHz are 461 MB


def test_what_is_decoded_ahead_is_bounded_and_in_order(tmp_path):
    """One long file in front of many short ones, and nobody who takes anything: the threads must wait."""
    paths = [tmp_path / f"{index:03}.wav" for index in range(150)]
    for index, path in enumerate(paths):
        write_sound(path, 60 if index in (0, 70) else 0.3, rate=16_000, seed=index)
    of_file, limit, most = functools.partial(stretches, window=15_600, step=15_360, sample_rate=16_000), 100_000, 0
    ahead = Ahead(paths, of_file, limit)
    order, found = [], {}
    for index, sound in ahead.sounds():
        most = max(most, ahead.held)
        if sound is None:
            order.append(index)
        else:
            found[index] = found.get(index, 0) + 1 + (len(sound[1]) - 15_600) // 15_360
    assert order == list(range(150)) and found[0] == found[70] == 62
    assert 0 < most <= limit + ahead_module.THREADS * (15_600 + 16_000)


def test_a_run_that_fails_leaves_no_thread_waiting(folder, small_encoder, tmp_path):
    broken = CNN14(8, width=1)
    broken.build((None, 96, 64))
    broken.bottleneck.bias.assign(np.full(8, np.nan))
    write_sound(folder / "long.wav", 120)
    with pytest.raises(BadInput, match="the encoder gives NaN or infinity"):
        embed_files(folder, broken, tmp_path / "table.npz", batch_size=1, show=False)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decoding")]


@pytest.mark.parametrize("hop", [1, 96, 97, 1_000])
def test_stretches_have_each_window_once(tmp_path, hop):
    write_sound(tmp_path / "a.wav", 12.3, rate=16_000)
    step, whole = 160 * hop, read(tmp_path / "a.wav")
    windows = [w for _, s in stretches(tmp_path / "a.wav", 15_600, step, 16_000) for w in embedding.cut(s, 15_600, hop)]
    expected = embedding.cut(whole, 15_600, hop)
    np.testing.assert_array_equal(np.stack(windows), expected)


@pytest.mark.parametrize(
    "given, options, message",
    [
        ("nowhere", {}, r"files='.*nowhere': expected a folder that is there, or a list of paths"),
        ("empty", {}, r"files=.*empty.*: expected sound files \(\.aif, .*\), but there is none"),
        ([], {}, r"files='\[\]': expected sound files"),
        ([7], {}, r"files\[0\]=7: expected a path"),
        (["a.wav", "b.wav", "a.wav"], {}, "files: a.wav comes twice; expected each once"),
        (["nowhere.wav"], {}, "files: all 1 are refused, the first because: nowhere.wav: expected a sound file, but"),
        (["a.wav"], dict(out="table.csv"), r"table.csv: expected a path that ends in \.npz or \.parquet"),
        (["a.wav"], dict(hop=0), "embed_files: hop=0: expected a whole number of at least 1"),
        (["a.wav"], dict(batch_size=0.5), "embed_files: batch_size=0.5: expected a whole number"),
        (["a.wav"], dict(encoder="encoder.keras"), "an encoder of type str; expected a CNN14"),
    ],
)
def test_what_cannot_be_embedded_is_refused(small_encoder, tmp_path, given, options, message):
    (tmp_path / "empty").mkdir()
    given = tmp_path / given if isinstance(given, str) else given
    options = dict(encoder=small_encoder, show=False, out="table.npz") | options
    with pytest.raises(BadInput, match=message):
        embed_files(given, **options | {"out": tmp_path / options["out"]})


def test_a_full_disk_is_one_sentence_and_room_made_goes_on(folder, small_encoder, tmp_path, room_for):
    whole = load_table(embed_files(folder, small_encoder, tmp_path / "whole.npz", show=False))
    room_for(200)
    with pytest.raises(BadInput, match="cannot be written .*; expected a folder with room that is ours"):
        embed_files(folder, small_encoder, tmp_path / "table.npz", show=False)
    room_for(None)
    same(load_table(embed_files(folder, small_encoder, tmp_path / "table.npz", show=False)), whole)


@pytest.mark.once
def test_the_command_makes_a_table_and_tells_what_was_refused(folder, small_encoder, tmp_path, capsys):
    spoil(folder)
    small_encoder.save(tmp_path / "encoder.keras")
    command = [
        sys.executable,
        "-W",
        "error::RuntimeWarning",
        "-m",
        "sepcl_keras.embed",
        "sounds",
        "t.npz",
        "--encoder",
        ".",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "t.npz: " in done.stdout and "4 files refused" in done.stdout
    assert done.stderr.count("refused: ") == 4
    assert list(dict.fromkeys(load_table(tmp_path / "t.npz").ids)) == ORDER


def run_as_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["embed", *map(str, arguments)])
    runpy.run_module("sepcl_keras.embed", run_name="__main__")


def test_the_command_does_not_shadow_the_function(folder, small_encoder, tmp_path, monkeypatch, capsys):
    small_encoder.save(tmp_path / "encoder.keras")
    run_as_main(
        monkeypatch, folder, tmp_path / "t.npz", "--encoder", tmp_path, "--pool", "--hop", 48, "--batch-size", 5
    )
    assert load_table(tmp_path / "t.npz").meta["hop"] == 48 and load_table(tmp_path / "t.npz").ids.tolist() == ORDER
    assert sepcl_keras.embed is embed
    with pytest.raises(SystemExit, match="nowhere.keras: expected the .keras file of a CNN14, but there is none"):
        run_as_main(monkeypatch, folder, tmp_path / "t.npz", "--encoder", tmp_path / "nowhere.keras")


IMPORTS = """
import json, sepcl_keras, runpy, sys
function = sepcl_keras.encoder.embedding.embed if 'first' in sys.argv else sepcl_keras.embed
import sepcl_keras.embed
import importlib
again = importlib.import_module('sepcl_keras.embed')
from sepcl_keras import embed
import sepcl_keras.encoder.embedding as home
print(json.dumps([sepcl_keras.embed is home.embed, embed is home.embed, again is home.embed, callable(function)]))
"""


@pytest.mark.once
@pytest.mark.parametrize("when", ["first", "later"])
def test_who_imports_the_command_has_the_function_too(when):
    program = (
        IMPORTS
        if when == "later"
        else IMPORTS.replace("function = ", "import sepcl_keras.encoder.embedding\nfunction = ")
    )
    command = [sys.executable, "-c", program, when]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True
    )
    assert json.loads(done.stdout) == [True] * 4


def test_a_folder_that_is_not_looked_into_is_among_the_refused(folder, small_encoder, tmp_path):
    write_sound(tmp_path / "elsewhere" / "a.wav", 1.0)
    (folder / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    write_sound(folder / "d.w64", 1.0)
    table = load_table(embed_files(folder, small_encoder, tmp_path / "table.npz", show=False))
    assert set(table.ids) == {*ORDER, "d.w64"}, "each ending that the course takes"
    assert table.meta["refused"] == {"more": "a link to a folder, which is not followed"}
