"""Shards: what is in them, who can read them, what a damaged one does to a training, and several machines."""

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT

from sepcl_keras.core.arrays import StoredArray, digest
from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import read_json
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.encoder.objectives import ContrastiveModel
from sepcl_keras.encoder.recipe import pretrain
from sepcl_keras.scenes import audio
from sepcl_keras.scenes.recorded import pieces
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.views import processors, stored
from sepcl_keras.views.log_mel import LogMel
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.views.preparation import Preparation, ShardWriter, write_shard
from sepcl_keras.views.processors import Snapshot
from sepcl_keras.views.shards import Shard, read_about, save_shard
from sepcl_keras.views.stored import Views, write_views

SAMPLES, SECONDS = 20_000, 1.25
SEPARATOR = dict(num_basis=32, frame_length=32, frame_step=16, bottleneck=8, hidden=8, dilations=(1, 2), repeats=1)


@dataclasses.dataclass
class Clip:
    """More than a shard asks for, as a data set's own class may have it."""

    id: str
    path: Path
    labels: tuple = ()


class Bands:
    """A processor that is not ours: NumPy alone cuts the spectrum in two."""

    def __init__(self, edge):
        self.definition, self.edge = {"bands": edge}, edge

    def __call__(self, clips):
        spectrum = np.fft.rfft(clips)
        low = np.fft.irfft(
            np.where(np.fft.rfftfreq(clips.shape[1], 1 / 16_000) < self.edge, spectrum, 0), clips.shape[1]
        )
        return np.stack([low, clips - low], axis=1)


def write_sounds(folder, number, samples=SAMPLES, seed=0):
    rng = np.random.default_rng(seed)
    for index in range(number):
        path = folder / f"{index % 3}" / f"{index:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, 0.1 * rng.standard_normal(samples))
    return [Clip(path.name, path) for path in sorted(folder.rglob("*.wav"))]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_sounds(tmp_path_factory.mktemp("sounds"), 12)


@pytest.fixture(scope="module")
def prepared(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "views"
    Preparation(clips, ShardWriter(PROCESSORS, SECONDS, batch_size=4), out, clips_per_shard=5).write_part(show=False)
    return out


PROCESSORS = {"low": Bands(1000), "S2": Bands(0.5)}  # S2's first channel is the mean, about -40 dB


def waveforms(clips):
    return np.stack([pieces(clip.path, SAMPLES, 16_000)[0][1] for clip in clips])


def test_views_in_a_shard_are_those_of_write_views_bit_for_bit(clips, tmp_path):
    keras.utils.set_random_seed(0)
    separators = {"N": TDCNPlusPlus(**SEPARATOR), "S2": TDCNPlusPlus(**SEPARATOR)}
    for separator in separators.values():
        separator.build((None, None))
    write_views(tmp_path / "arrays", waveforms(clips), separators, batch_size=5)
    snapshots = {name: Snapshot(separator, 5) for name, separator in separators.items()}
    about = write_shard(clips, snapshots, tmp_path / "shard.npz", seconds=SECONDS, batch_size=5)
    assert about["clips"] == 12 and about["rejected"] == [] and about["recipe"]["processors"] == ["N", "S2"]
    views = Views(tmp_path / "arrays")
    with np.load(tmp_path / "shard.npz") as shard:  # NumPy alone, no pickle
        np.testing.assert_array_equal(shard["log_mel"], views.log_mel)
        np.testing.assert_array_equal(shard["level"], views.level)
        assert shard["ids"].tolist() == [clip.id for clip in clips]
        assert json.loads(shard["about.json"]) == about


def test_a_processor_that_is_not_ours_needs_two_names_only(clips, tmp_path):
    write_shard(clips[:3], {"low": Bands(1000)}, tmp_path / "a.npz", seconds=SECONDS)
    low, high = Bands(1000)(waveforms(clips[:3])).swapaxes(0, 1)
    with np.load(tmp_path / "a.npz") as shard:
        for column, sound in enumerate((low + high, low, high)):
            expected = np.asarray(LogMel()(sound.astype("float32")))
            np.testing.assert_allclose(shard["log_mel"][:, column], expected, atol=4e-3)
            level = 10 * np.log10(np.square(sound).sum(axis=1) / np.square(low + high).sum(axis=1))
            np.testing.assert_allclose(shard["level"][:, column], level, atol=1e-3)
    assert {"definition", "__call__"} <= set(vars(processors.Processor)) | set(processors.Processor.__annotations__)


def test_without_a_processor_the_mixtures_alone_are_kept_and_the_recipe_may_be_another(clips, tmp_path):
    about = write_shard(clips[:2], {}, tmp_path / "a.npz", seconds=SECONDS, log_mel="panns")
    expected = np.asarray(LogMel("panns")(waveforms(clips[:2])))
    with np.load(tmp_path / "a.npz") as shard:
        assert shard["log_mel"].shape == (2, 1, about["recipe"]["frames"], 64)
        np.testing.assert_allclose(shard["log_mel"][:, 0], expected, atol=0.04)  # half precision, of up to 100 dB


def test_clips_are_cut_or_repeated_and_what_is_no_sound_is_a_row_with_its_reason(clips, tmp_path):
    rng, made = np.random.default_rng(1), []
    for name, samples in (("long", 40_000), ("short", 8_000), ("silent", 40_000)):
        sound = 0.1 * rng.standard_normal(samples)
        audio.write(tmp_path / f"{name}.wav", sound * (name != "silent"))
        made.append(Clip(name, tmp_path / f"{name}.wav"))
    (tmp_path / "text.wav").write_text("no sound")
    made += [Clip("text", tmp_path / "text.wav"), Clip("none", tmp_path / "none.wav"), clips[0]]
    about = write_shard(made, {"low": Bands(1000)}, tmp_path / "a.npz", seconds=SECONDS, batch_size=2)
    reasons = dict(about["rejected"])
    assert set(reasons) == {"silent", "text", "none"} and about["clips"] == 4
    assert reasons["silent"] == "silent: expected sound, but the file is silent as one channel at 16000 Hz."
    assert reasons["none"] == "none: expected a sound file, but there is none."
    assert reasons["text"].startswith("text: expected a readable wav")
    with np.load(tmp_path / "a.npz") as shard:
        assert shard["ids"].tolist() == ["long", "long, from 1.2 s", "short", clips[0].id]
        for row, clip in ((2, made[1]), (3, clips[0])):
            expected = np.asarray(LogMel()(waveforms([clip])))[0]
            np.testing.assert_allclose(shard["log_mel"][row, 0], expected, atol=4e-3)
        assert shard["log_mel"][2, 0, 60:].min() > np.log(0.01) + 1, "a short clip is repeated, not filled with silence"
    assert write_shard(made[2:5], {}, tmp_path / "b.npz", seconds=SECONDS)["clips"] == 0  # all of them: still a shard


def test_a_clip_of_which_a_processor_makes_no_numbers_is_left_out(clips, tmp_path):
    loud = waveforms(clips[:3])[1].max()

    class Fails(Bands):
        def __call__(self, clips):
            return np.where((clips.max(axis=1) == loud)[:, None, None], np.nan, super().__call__(clips))

    about = write_shard(clips[:3], {"F": Fails(1000)}, tmp_path / "a.npz", seconds=SECONDS)
    assert [id for id, _ in about["rejected"]] == [clips[1].id] and "NaN or infinity" in about["rejected"][0][1]
    write_shard([clips[0], clips[2]], {"F": Fails(1000)}, tmp_path / "b.npz", seconds=SECONDS)
    with np.load(tmp_path / "a.npz") as one, np.load(tmp_path / "b.npz") as two:
        np.testing.assert_array_equal(one["log_mel"], two["log_mel"])


class Flat:
    definition = "flat"

    def __call__(self, clips):
        return clips


class Three(Bands):
    def __call__(self, clips):
        return np.repeat(clips[:, None], 3, axis=1)


@pytest.mark.parametrize(
    "processors, options, message",
    [
        ({"flat": Flat()}, {}, r"processor flat: channels of shape \(1, 20000\) of clips"),
        ({"low": Bands(9), "three": Three(9)}, {}, "expected the same number of sources of each"),
        ({}, {"seconds": 0.5}, "mixtures of 8000 samples: expected at least 15600"),
        ({}, {"seconds": -1}, "seconds=-1: expected a finite number above 0"),
        ({}, {"batch_size": 0}, "batch_size=0"),
        ({}, {"log_mel": "mfcc"}, "expected one of vggish, panns"),
    ],
)
def test_what_makes_no_shards_is_refused_before_anything_is_read(clips, tmp_path, processors, options, message):
    with pytest.raises(BadInput, match=message):
        write_shard(clips, processors, tmp_path / "a.npz", **{"seconds": SECONDS} | options)
    assert not any(tmp_path.iterdir())


def test_a_shard_that_is_there_whole_is_left_a_damaged_one_made_again_and_another_refused(clips, tmp_path):
    path, writer = tmp_path / "a.npz", ShardWriter(PROCESSORS, SECONDS)
    about = writer(clips, path)
    content, inode = path.read_bytes(), path.stat().st_ino
    assert writer(clips, path) == about and path.stat().st_ino == inode
    for damage in (content[:-7], content[:5000] + b"\xff" + content[5001:], b""):
        path.write_bytes(damage)
        assert writer(clips, path) == about and path.read_bytes() == content
    for other in (lambda: writer(clips[1:], path), lambda: ShardWriter({}, SECONDS)(clips, path)):
        with pytest.raises(BadInput, match="a.npz: a shard of other clips or of another recipe"):
            other()
    assert path.read_bytes() == content


def test_a_full_disk_is_one_sentence_and_leaves_no_shard(clips, tmp_path, room_for):
    writer = ShardWriter(PROCESSORS, SECONDS)
    room_for(100_000)
    with pytest.raises(BadInput, match="a.npz: cannot be written"):
        writer(clips, tmp_path / "a.npz")
    room_for(None)
    assert not any(tmp_path.iterdir())


# Reading


def test_pairs_from_shards_are_those_from_arrays_bit_for_bit(clips, prepared, tmp_path):
    with np.load(prepared / "shard-000001-of-000003.npz") as shard:
        log_mel = shard["log_mel"]
    shards = Views(prepared)
    assert shards.shape == (12, 5, LogMel().frames(SAMPLES), 64) and len(shards) == 12
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    parts = [np.load(path) for path in sorted(prepared.glob("shard-*.npz"))]
    for name in ("log_mel", "level"):
        np.save(arrays / f"{name}.npy", np.concatenate([part[name] for part in parts]))
    (arrays / "views.json").write_text(json.dumps({"processors": ["low", "S2"], "num_sources": 2}))
    options = dict(batch_size=7, steps=4, seed=3, reject_quiet=True, coincidence_crops=True)
    one, two = (ViewPairs(views, "mix-chan", ("low", "S2"), **options) for views in (Views(arrays), shards))
    for step in range(30):
        assert digest(one._read(step)) == digest(two._read(step))
    assert one.quiet_shares() == two.quiet_shares() and two.quiet_shares()["S2"] > 0
    everything = np.arange(12)
    patches, whole = shards.patches(everything, np.full(12, 3), np.arange(12))
    assert whole.all() and not shards.damaged
    np.testing.assert_array_equal(patches[5], log_mel[0, 3, 5:101])


def copied(prepared, folder):
    folder.mkdir()
    for path in prepared.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def spoil(path, clip, view, frame):
    """Changes one number of a shard's spectrograms on the disk."""
    log_mel = StoredArray(path, "float16", 4, "log_mel").array
    place = log_mel.offset + 2 * int(np.ravel_multi_index((clip, view, frame, 9), log_mel.shape))
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 0x10]))


def test_a_damaged_record_is_counted_and_training_goes_on_the_same_each_time(prepared, tmp_path, capsys):
    folder = copied(prepared, tmp_path / "views")
    spoil(folder / "shard-000001-of-000003.npz", 2, 0, 50)  # clip 7's mixture
    whole = ViewPairs(Views(prepared), "mix-chan", ("low",), batch_size=4, steps=3)
    one, two = (ViewPairs(Views(folder), "mix-chan", ("low",), batch_size=4, steps=3) for _ in range(2))
    changed = 0
    for step in range(12):
        clips, _, starts = whole.draw(step)
        ((mixtures, channels),), ((expected, other),) = one._read(step), whole._read(step)
        rows = np.flatnonzero([not np.array_equal(*pair) for pair in zip(mixtures, expected)])
        assert set(clips[rows]) <= {7}
        changed += len(rows)
        for row in rows:  # both views of another clip, which is not in this batch
            assert starts[0, row] < 96 and not np.array_equal(channels[row], other[row])
            later = [clip for clip in range(12) if clip not in clips]
            at = [np.array_equal(mixtures[row], read) for read in mixture_at(whole.views, later, starts[0, row])]
            assert sum(at) == 1
    assert changed == 4  # one of the twelve clips, in each of four turns
    assert one.views.damaged == {7}
    out = capsys.readouterr().out
    assert out.count("shard-000001-of-000003.npz: clip 7 of the views is damaged") == 1
    assert [digest(two._read(step)) for step in range(12)] == [digest(one._read(step)) for step in range(12)]


@pytest.mark.parametrize("reject_quiet", [True, False])
@pytest.mark.parametrize("pairing, crops", [("mix-chan", False), ("chan-chan", True)])
def test_what_takes_a_damaged_records_place_is_no_quiet_channel_either(
    prepared, tmp_path, reject_quiet, pairing, crops
):
    """The first channel is loud in the damaged clip alone, so it may be drawn there, and not of what comes instead."""
    folder, damaged = copied(prepared, tmp_path / "views"), 7
    first = 0
    for path in sorted(folder.glob("shard-*.npz")):
        with np.load(path) as shard:
            level, ids = np.zeros_like(shard["level"]), shard["ids"]
            level[:, 1] = np.where(np.arange(first, first + len(ids)) == damaged, 0.0, -60.0)
            save_shard(path, shard["log_mel"], level, ids, read_about(path)[0])
        first += len(ids)
    spoil(folder / "shard-000001-of-000003.npz", 2, 1, 50)  # of clip 7 its loud channel
    spoil(folder / "shard-000001-of-000003.npz", 2, 2, 50)  # and the other one
    whole, options = Views(prepared), dict(batch_size=4, reject_quiet=reject_quiet, coincidence_crops=crops)
    pairs, same = (ViewPairs(Views(folder), pairing, ("low",), seed=5, **options) for _ in range(2))
    views = [view for view in range(4 if crops else 2) if pairing == "chan-chan" or view == 1]
    found = []
    for step in range(60):
        clips, columns, starts = pairs.draw(step)
        (batch,) = pairs._read(step)
        assert digest(batch) == digest(same._read(step)[0])
        for row in np.flatnonzero(clips == damaged):
            others = np.array([clip for clip in range(12) if clip not in clips])
            for view in views:
                begin = np.full(len(others), starts[view, row])
                each = [whole.patches(others, np.full(len(others), column), begin)[0] for column in (1, 2)]
                ((column, _),) = np.argwhere((np.array(each) == batch[view][row]).all((2, 3)))
                found.append((columns[view, row], column + 1))
        for row in np.flatnonzero(clips != damaged):
            assert not reject_quiet or (columns[views, row] == 2).all()
    drawn = [column for column, _ in found]
    assert drawn.count(1) > 3 and drawn.count(2) > 3  # of the damaged clip both are drawn
    assert found == [(column, 2 if reject_quiet else column) for column in drawn]


def mixture_at(views, clips, start):
    return views.patches(np.array(clips), np.zeros(len(clips), int), np.full(len(clips), start))[0]


def test_a_shard_that_cannot_be_read_is_damaged_as_a_whole_and_one_that_is_missing_is_refused(prepared, tmp_path):
    folder = copied(prepared, tmp_path / "views")
    path = folder / "shard-000002-of-000003.npz"
    path.write_bytes(bytes(path.stat().st_size))
    pairs = ViewPairs(Views(folder), "mix-chan", ("low",), batch_size=4, steps=3, reject_quiet=True)
    for step in range(3):
        pairs._read(step)
    assert pairs.views.damaged == {10, 11}
    with pytest.raises(BadInput, match="2 damaged clips: expected others to take their places"):
        ViewPairs(Views(folder), "mix-mix", batch_size=12)._read(0)
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(BadInput, match="shard-000002-of-000003.npz: missing or cut short; expected"):
        Views(folder)
    path.unlink()
    with pytest.raises(BadInput, match="missing or cut short"):
        Views(folder)
    Views(folder, host=(1, 2))  # a host that has no part in it


def test_hosts_read_shards_of_their_own_and_draw_for_themselves(prepared):
    whole, parts = Views(prepared), [Views(prepared, host=(index, 2)) for index in range(2)]
    assert [len(part) for part in parts] == [7, 5]
    of_part = [[0, 1, 2, 3, 4, 10, 11], [5, 6, 7, 8, 9]]
    for part, there in zip(parts, of_part):
        columns, starts = np.arange(len(there)) % 5, np.arange(len(there))
        ours, theirs = (
            part.patches(np.arange(len(there)), columns, starts),
            whole.patches(np.array(there), columns, starts),
        )
        np.testing.assert_array_equal(ours[0], theirs[0])
    pairs = [ViewPairs(views, "mix-chan", ("low", "S2"), 5, seed=3) for views in parts]
    assert not np.array_equal(pairs[0].draw(0)[2], pairs[1].draw(0)[2])
    for host in ((3, 4), (0, 0), (2, 2), (-1, 2), (0.0, 2)):
        with pytest.raises(BadInput, match="host"):
            Views(prepared, host=host)


def test_few_shards_stay_open_and_all_can_be_read(prepared, monkeypatch):
    monkeypatch.setattr(stored, "OPEN", 1)
    views = Views(prepared)
    expected = [digest(ViewPairs(Views(prepared), "mix-mix", batch_size=12)._read(step)) for step in range(5)]
    pairs = ViewPairs(views, "mix-mix", batch_size=12)
    assert [digest(pairs._read(step)) for step in range(5)] == expected and len(views._open) == 1


def test_views_that_do_not_fit_the_encoder_are_refused(prepared, clips, tmp_path):
    Preparation(clips, ShardWriter({}, SECONDS, log_mel="panns"), tmp_path / "panns").write_part(show=False)
    with pytest.raises(BadInput, match="views of log-mel 'panns': expected 'vggish', which the encoder takes"):
        pretrain(
            lambda steps: ViewPairs(Views(tmp_path / "panns"), "mix-mix", (), 4, steps), 8, 1, 2, 1e-3, 0, show=False
        )
    model = ContrastiveModel(CNN14(8, 1, recipe="panns"))
    ViewPairs(Views(tmp_path / "panns"), "mix-mix", batch_size=4).check(model)
    with pytest.raises(BadInput, match="views of log-mel 'vggish': expected 'panns'"):
        ViewPairs(Views(prepared), "mix-mix", batch_size=4).check(model)


TRAINING = """
import os, signal, sys
from pathlib import Path
import keras
from sepcl_keras.core.saved import save_model
from sepcl_keras.encoder.recipe import pretrain
from sepcl_keras.training.logs import Record
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.views.stored import Views

views, folder, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
folder.mkdir(exist_ok=True)
ended = Record.on_train_batch_end

def killing(self, batch, logs=None):
    ended(self, batch, logs)
    if keras.ops.convert_to_numpy(self.model.optimizer.iterations.value) == stop:
        os.kill(os.getpid(), signal.SIGKILL)

Record.on_train_batch_end = killing
encoder, _ = pretrain(
    lambda steps: ViewPairs(Views(views), "mix-chan", ("low", "S2"), 4, steps, 5), 8, 1, 12, 1e-3, 0,
    augmentation="SpecAugment", folder=folder,
)
save_model(encoder, folder / "encoder.keras")
"""


@pytest.mark.once
def test_training_from_shards_killed_within_an_epoch_ends_with_the_same_bits(prepared, tmp_path, monkeypatch):
    """Epochs of four steps; killed at the seventh."""
    program = f"import sepcl_keras.training.loop as loop\nloop.STEPS_IN_EPOCH = 4\n{TRAINING}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

    def train(folder, stop):
        command = [sys.executable, "-W", "ignore", "-c", program, prepared, folder, stop]
        return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)

    killed = train(tmp_path / "killed", 7)
    assert killed.returncode == -9, killed.stderr[-2000:]
    again, through = train(tmp_path / "killed", 0), train(tmp_path / "through", 0)
    assert again.returncode == through.returncode == 0, again.stderr[-2000:]
    assert "resumed at step 4 of 12" in again.stdout
    one, two = (keras.saving.load_model(tmp_path / name / "encoder.keras") for name in ("killed", "through"))
    for ours, theirs in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda m: m.pop("frames"), "expected the processors and num_sources"),
        (lambda m: m.update(shards=[["a.npz"]]), "expected the processors and num_sources"),
        (lambda m: m.update(shards=[["../a.npz", 1, 1, 1]]), "views/a.npz: missing"),  # never outside of the folder
        (lambda m: m.update(shards=[]), r"views of shape \(0, 5"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(prepared, tmp_path, damage, message):
    folder = copied(prepared, tmp_path / "views")
    manifest = read_json(folder / "views.json")
    damage(manifest)
    (folder / "views.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match=message):
        Views(folder)


def test_a_shard_of_another_shape_or_compressed_is_not_read(prepared, tmp_path):
    path = next(prepared.glob("shard-*.npz"))
    with np.load(path) as arrays:
        shape, content = arrays["log_mel"].shape, dict(arrays)
    with pytest.raises(BadInput, match="expected spectrograms of shape"):
        Shard(path, (shape[0] + 1, *shape[1:]))
    content.pop("about.json")
    np.savez_compressed(tmp_path / "a.npz", **content)
    with pytest.raises(BadInput, match="compressed"):
        Shard(tmp_path / "a.npz", shape)
    with zipfile.ZipFile(tmp_path / "b.npz", "w"):
        pass
    with pytest.raises(BadInput, match=r"b.npz: expected a whole array"):
        Shard(tmp_path / "b.npz", shape)
