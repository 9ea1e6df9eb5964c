"""Manifests and shards that somebody changed, and what was listed and cannot be prepared."""

import csv
import json
import random

import numpy as np
import pytest
from views.test_shards import SECONDS, Bands, write_sounds

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import read_json
from sepcl_keras.views.preparation import Preparation, ShardWriter, listed
from sepcl_keras.views.shards import read_about, save_shard
from sepcl_keras.views.stored import Views

ODD = [None, True, -1, 0, 3, 1e400, float("nan"), "x", "", [], {}, [[]], [None], ["a", "a"], ["a", 5], 10**30, "\0"]


@pytest.fixture
def prepared(tmp_path):
    clips = write_sounds(tmp_path / "sounds", 3)
    writer = ShardWriter({"low": Bands(1000)}, SECONDS)
    Preparation(clips, writer, tmp_path / "views").write_part(show=False)
    return tmp_path / "views"


def read(folder):
    """Whether all that views give is given, and nothing but `BadInput` comes instead."""
    try:
        views = Views(folder)
        rows = np.arange(len(views))
        views.patches(rows, 0 * rows, 0 * rows)
        for name in views.processors:
            views.quiet_share(name)
    except BadInput as error:
        assert "\n" not in str(error)
        return False
    return not views.damaged


@pytest.mark.parametrize("key", ["processors", "num_sources", "frames", "log_mel", "shards", "name", "clips", "size"])
def test_a_manifest_of_odd_values_is_refused_or_changes_nothing(prepared, key):
    good = read_json(prepared / "views.json")
    (row,) = good["shards"]
    assert read(prepared)
    for odd in ODD:
        change = {key: odd}
        if key in ("name", "clips", "size"):
            at = ("name", "clips", "size").index(key)
            change = {"shards": [[*row[:at], odd, *row[at + 1 :]]]}
        (prepared / "views.json").write_text(json.dumps(good | change))
        whole = read(prepared)
        assert not whole or key == "log_mel" or odd in (True, good.get(key)), odd


def test_turned_bits_of_a_shard_are_refused_or_counted(prepared, capsys):
    (path,) = prepared.glob("shard-*.npz")
    whole, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for place in [*range(200), *(draw.randrange(len(whole) - 2_000, len(whole)) for _ in range(200))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        refused += not read(prepared)
        try:
            read_about(path, whole=True)
        except BadInput as error:
            assert "\n" not in str(error)
    assert refused > 100


@pytest.mark.parametrize("about", [[], {}, {"mark": 3}, None])
def test_a_shard_that_says_nothing_of_itself_is_refused_and_made_again(prepared, tmp_path, about):
    (path,) = prepared.glob("shard-*.npz")
    content = path.read_bytes()
    with np.load(path) as shard:
        save_shard(path, shard["log_mel"], shard["level"], shard["ids"], about)
    with pytest.raises(BadInput, match="expected a whole shard .about.json without its mark, recipe, clips, rejected"):
        read_about(path)
    clips = write_sounds(tmp_path / "sounds", 3)
    Preparation(clips, ShardWriter({"low": Bands(1000)}, SECONDS), prepared).write_part(show=False)
    assert path.read_bytes() == content


def test_what_was_listed_without_a_file_is_among_the_rejected(tmp_path):
    write_sounds(tmp_path / "data", 12)
    names = [path.name for path in sorted((tmp_path / "data").rglob("*.wav"))]
    (tmp_path / "data" / "clips.csv").write_text("\n".join(["filename", *names, "gone.wav"]))
    clips, refused = listed(tmp_path / "data", "all")
    preparation = Preparation(clips, ShardWriter({}, SECONDS), tmp_path / "views", refused=refused)
    assert preparation.write_part(show=False)["rejected"] == 1
    with open(tmp_path / "views" / "rejected.csv", encoding="utf-8", newline="") as file:
        assert [*csv.reader(file)][1:] == [["gone.wav", "listed, but no sound file of its name is here"]]
