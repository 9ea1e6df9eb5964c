"""The command that writes shards: parts, kills, two at a time, and what it says of bad arguments."""

import csv
import os
import signal
import subprocess
import sys
import threading
import zipfile

import keras
import numpy as np
import pytest
from conftest import ROOT
from views.test_shards import SECONDS, SEPARATOR, Bands, write_sounds

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import read_json
from sepcl_keras.core.saved import save_model
from sepcl_keras.prepare import main
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.views import preparation as module
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.views.preparation import Preparation, ShardWriter, listed, load_processors
from sepcl_keras.views.stored import Views

pytestmark = pytest.mark.once

CLIPS, PER_SHARD = 13, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_sounds(folder, CLIPS)
    (folder / "1" / "broken.flac").write_bytes(b"fLaC and nothing else")
    (folder / "notes.txt").write_text("no sound")
    (folder / "1" / "._001.wav").write_bytes(b"what a Mac leaves")
    return folder


@pytest.fixture(scope="module")
def separator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("separator")
    for name in ("S2", "F", "N"):
        network = TDCNPlusPlus(**SEPARATOR)
        network.build((None, None))
        save_model(network, folder / f"{name}.keras")
    return folder


def options(*more):
    return ["--split", "all", "--seconds", str(SECONDS), "--clips-per-shard", str(PER_SHARD), *map(str, more)]


@pytest.fixture(scope="module")
def prepared(data, separator, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "views"
    assert main([str(data), str(out), *options("--separator", separator)])["clips"] == CLIPS
    return out


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ids(folder):
    return [str(id) for path in sorted(folder.glob("shard-*.npz")) for id in np.load(path)["ids"]]


def test_each_clip_is_there_once_and_what_is_no_sound_has_its_row(prepared, data):
    paths = [path.relative_to(data).as_posix() for path in data.rglob("*.wav") if not path.name.startswith(".")]
    assert ids(prepared) == sorted(paths) and len(paths) == CLIPS
    with open(prepared / "rejected.csv", encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert header == ["id", "reason"] and row[0] == "1/broken.flac"
    assert row[1].startswith("1/broken.flac: expected a readable wav, ogg, flac or mp3 file")
    manifest = read_json(prepared / "views.json")
    assert [clips for _, clips, *_ in manifest["shards"]] == [3, 3, 3, 2, 2]  # "1/broken.flac" is the tenth of 14
    assert manifest["processors"] == ["N", "F", "S2"] and manifest["num_sources"] == 2
    assert (manifest["seconds"], manifest["sample_rate"], manifest["rejected"]) == (SECONDS, 16_000, 1)
    assert manifest["versions"][0]["keras"] == keras.__version__
    for name, _, size, checksum in manifest["shards"]:
        assert (prepared / name).stat().st_size == size
        with zipfile.ZipFile(prepared / name) as archive:
            assert checksum == archive.getinfo("log_mel.npy").CRC
    pairs = ViewPairs(Views(prepared), "mix-chan", ("N", "S2"), batch_size=4, steps=3)
    assert pairs[0][0][0].shape == (4, 96, 64)


@pytest.mark.parametrize("parts", [2, 3, 9])
def test_parts_in_any_order_and_number_end_with_the_same_bytes(prepared, data, separator, tmp_path, parts, capsys):
    for part in reversed(range(1, parts + 1)):
        done = main([str(data), str(tmp_path), *options("--separator", separator, "--part", f"{part}/{parts}")])
        assert (done is None) == (part > 1) == ("other parts have shards to write" in capsys.readouterr().out)
    assert content(tmp_path) == content(prepared)


KILLED = """
import os, signal, sys, time
import numpy as np
from sepcl_keras.views import preparation, shards
from sepcl_keras.prepare import main

where, when, calls = sys.argv[1], int(sys.argv[2]), []

def killing(function, before):
    def call(*arguments, **options):
        calls.append(1)
        if len(calls) == when and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if len(calls) == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

if where == "separate":
    preparation.ShardWriter._channels = killing(preparation.ShardWriter._channels, True)
elif where == "write":  # within the file
    np.lib.format.write_array = killing(np.lib.format.write_array, False)
elif where == "between":
    preparation.save_shard = killing(preparation.save_shard, False)
elif where == "manifest":
    preparation.write_json = killing(preparation.write_json, True)
main(sys.argv[3:])
"""


@pytest.mark.parametrize("where, when", [("separate", 8), ("write", 6), ("between", 2), ("manifest", 2)])
def test_killed_anywhere_and_started_again_ends_with_the_same_bytes(prepared, data, separator, tmp_path, where, when):
    arguments = [str(data), str(tmp_path), *options("--separator", separator)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, where, str(when), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    shards = {"separate": 1, "write": 1, "between": 2, "manifest": 5}[where]
    assert len([*tmp_path.glob("shard-*.npz")]) == shards and not (tmp_path / "views.json").exists()
    with pytest.raises(BadInput, match="views.json: expected a readable JSON file"):
        Views(tmp_path)
    assert main(arguments)["clips"] == CLIPS
    assert content(tmp_path) == content(prepared)


def test_a_shard_that_was_damaged_or_taken_away_is_made_again(prepared, data, separator, tmp_path):
    for name, written in content(prepared).items():
        (tmp_path / name).write_bytes(written)
    first, second, *_ = sorted(tmp_path.glob("shard-*.npz"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:9999] + b"?" + second.read_bytes()[10_000:])
    main([str(data), str(tmp_path), *options("--separator", separator)])
    assert content(tmp_path) == content(prepared)


def test_the_same_twice_at_once_is_as_once(data, tmp_path):
    clips, _ = listed(data, "all")
    Preparation(clips, ShardWriter({"low": Bands(1000)}, SECONDS), tmp_path / "alone", 3).write_part(show=False)
    begin, failed = threading.Barrier(3), []

    def prepare():
        try:
            writer = ShardWriter({"low": Bands(1000)}, SECONDS)
            begin.wait()
            Preparation(clips, writer, tmp_path / "views", 3).write_part(show=False)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and content(tmp_path / "views") == content(tmp_path / "alone")


@pytest.mark.parametrize("links", [True, False])
def test_another_preparation_in_the_folder_is_refused_and_nothing_of_the_first_is_touched(
    data, tmp_path, links, monkeypatch
):
    if not links:
        monkeypatch.setattr(module.os, "link", lambda *paths: (_ for _ in ()).throw(PermissionError(1, "no links")))
    (clips, _), writer = listed(data, "all"), ShardWriter({}, SECONDS)
    Preparation(clips, writer, tmp_path, 3).write(0)
    before = content(tmp_path)
    for other, what in (
        ((clips[1:], writer, tmp_path, 3), "number, clips"),
        ((clips, writer, tmp_path, 4), "clips_per_shard"),
        ((clips, ShardWriter({}, 2.0), tmp_path, 3), "recipe"),
        ((clips, ShardWriter({"low": Bands(7)}, SECONDS), tmp_path, 3), "recipe"),
    ):
        with pytest.raises(BadInput, match=f"plan.json: of another preparation, by its {what}; expected a folder"):
            Preparation(*other)
    assert content(tmp_path) == before
    Preparation(clips, ShardWriter({}, SECONDS), tmp_path, 3).write_part(show=False)


def test_of_two_other_preparations_at_once_one_has_the_folder(data, tmp_path):
    (clips, _), writers = listed(data, "all"), [ShardWriter({}, SECONDS), ShardWriter({}, 2.0)]
    begin, ended = threading.Barrier(2), []

    def prepare(writer):
        begin.wait()
        try:
            ended.append(Preparation(clips, writer, tmp_path, 3).write_part(show=False)["samples"])
        except BadInput as error:
            ended.append("of another preparation" in str(error))

    threads = [threading.Thread(target=prepare, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended.count(True) == 1
    (samples,) = (samples for samples in ended if samples is not True)
    assert read_json(tmp_path / "views.json")["samples"] == samples and len(ids(tmp_path)) == CLIPS


def test_a_clip_may_not_be_listed_twice(data, tmp_path):
    clips, _ = listed(data, "all")
    with pytest.raises(BadInput, match="15 clips with 14 ids"):
        Preparation([*clips, clips[0]], ShardWriter({}, SECONDS), tmp_path)


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(data, tmp_path, part, capsys):
    with pytest.raises(SystemExit):
        main([str(data), str(tmp_path / "out"), "--part", part])
    assert f"'{part}': expected i/n such as 3/8, with i from 1 to n" in capsys.readouterr().err


def test_folders_without_sounds_or_snapshots_are_refused(data, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, sentence in (
        ("empty", "empty: expected sound files"),
        ("none", "DATA='.*none': expected \"made\" or a folder;"),
    ):
        with pytest.raises(BadInput, match=sentence):
            main([str(tmp_path / folder), str(tmp_path / "out")])
    with pytest.raises(BadInput, match="separator=.*empty: expected a folder with snapshots such as N.keras"):
        main([str(data), str(tmp_path / "out"), "--separator", str(tmp_path / "empty")])
    assert load_processors() == {} and not (tmp_path / "out").exists()


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sepcl_keras.prepare", tmp_path, tmp_path / "out"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"{tmp_path}: expected sound files")
