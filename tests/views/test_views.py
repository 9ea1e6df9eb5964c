"""Views on disk and the pairs drawn from them, with a separator whose channels are known by construction."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT

from sepcl_keras.core.arrays import GrowingArrays, digest
from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.draws import generator
from sepcl_keras.core.files import read_json, write_json
from sepcl_keras.core.folders import PROGRESS, Sparing, atomic_folder
from sepcl_keras.course.profiles import get_profile
from sepcl_keras.scenes.banks import open_bank
from sepcl_keras.scenes.mixing import Scenes
from sepcl_keras.separation import separate as separate_module
from sepcl_keras.separation.separate import separate
from sepcl_keras.views.log_mel import LogMel
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.views.stored import QUIET, TRUE_SOURCES, Views, write_source_views, write_views

CLIPS, SAMPLES = 12, 20_000


class Shares(keras.Model):
    """Splits the mixture into a share and the rest: channels whose views are known."""

    def __init__(self, share):
        super().__init__()
        self.share, self.config = share, {"num_sources": 2}

    def call(self, mixture):
        return keras.ops.stack([self.share * mixture, (1 - self.share) * mixture], axis=1)


def clips():
    return (np.random.default_rng(0).standard_normal((CLIPS, SAMPLES)) * 0.1).astype("float32")


@pytest.fixture(scope="module")
def mixtures():
    return clips()


@pytest.fixture(scope="module")
def views(mixtures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    write_views(folder, mixtures, {"N": Shares(0.5), "S2": Shares(0.001)}, batch_size=5)
    return Views(folder)


def test_view_zero_is_the_mixture_and_the_others_are_the_channels(views, mixtures):
    assert views.log_mel.shape == (CLIPS, 5, LogMel().frames(SAMPLES), 64) and views.log_mel.dtype == np.float16
    for column, gain in enumerate((1.0, 0.5, 0.5, 0.001, 0.999)):
        expected = np.asarray(LogMel()(gain * mixtures))
        np.testing.assert_allclose(views.log_mel[:, column], expected, atol=4e-3)  # half precision
        np.testing.assert_allclose(views.level[:, column], 20 * np.log10(gain), atol=1e-3)


def test_views_by_true_sources_are_the_sources_and_silent_channels_are_never_drawn(tmp_path):
    scenes = Scenes(open_bank("made", get_profile("smoke")), "train", 24)
    write_source_views(tmp_path, scenes, batch_size=7)
    views, numbers = Views(tmp_path), scenes.number_of_events
    assert views.processors == (TRUE_SOURCES,) and views.num_sources == 3 == numbers.max()
    for index in (0, 7, 23):
        for column, source in enumerate(scenes[index].sources, start=1):
            np.testing.assert_allclose(views.log_mel[index, column], np.asarray(LogMel()(source[None]))[0], atol=4e-3)
    silent = np.arange(3) >= numbers[:, None]
    np.testing.assert_array_equal(views.level[:, 1:] < QUIET, silent)
    pairs, drawn = ViewPairs(views, "mix-chan", (TRUE_SOURCES,), 24, steps=1, reject_quiet=True), np.zeros((24, 3))
    for step in range(600):
        clips, columns, _ = pairs.draw(step)
        drawn[clips, columns[1] - 1] += 1
    np.testing.assert_allclose(drawn / 600, ~silent / numbers[:, None], atol=0.09)  # each source as often as another


def test_quiet_channels_are_counted(views):
    assert views.quiet_share("N") == 0.0
    assert views.quiet_share("S2") == 0.5  # -60 dB: one of the two channels


def test_separate_in_batches_equals_separate_at_once(mixtures, monkeypatch):
    at_once = separate(Shares(0.3), mixtures)
    monkeypatch.setattr(separate_module, "BATCH", 5)
    np.testing.assert_allclose(separate(Shares(0.3), mixtures), at_once, atol=1e-7)


def test_or_rule_draws_every_channel_of_the_listed_processors_evenly(views):
    pairs = ViewPairs(views, "mix-chan", ("N", "S2"), batch_size=12, steps=50)
    columns = np.concatenate([pairs.draw(step)[1] for step in range(200)], axis=1)
    assert not columns[0].any()  # the mixture
    np.testing.assert_allclose(np.bincount(columns[1])[1:] / columns.shape[1], 0.25, atol=0.04)
    only = ViewPairs(views, "chan-chan", ("S2",), batch_size=12)
    assert set(np.unique(only.draw(0)[1])) <= {3, 4}


def test_a_batch_holds_the_drawn_patches_each_clip_once(views):
    pairs = ViewPairs(views, "mix-chan", ("S2",), batch_size=12, steps=3)
    ((first, second),) = pairs[1]
    clips, columns, starts = pairs.draw(1)
    assert sorted(clips) == list(range(CLIPS)) and first.dtype == np.float32
    for row, (clip, column, start) in enumerate(zip(clips, columns[1], starts[1], strict=True)):
        np.testing.assert_array_equal(second[row], views.log_mel[clip, column, start : start + 96])


def test_draws_are_a_function_of_seed_epoch_and_step_alone(views):
    one, two = (ViewPairs(views, "mix-mix", batch_size=4, steps=2, seed=3) for _ in range(2))
    first_epoch = one[0][0][0]
    np.testing.assert_array_equal(first_epoch, two[0][0][0])
    one.on_epoch_end()
    assert not np.array_equal(one[0][0][0], first_epoch)
    np.testing.assert_array_equal(one[0][0][0], two[2][0][0])  # step 2 counted from the beginning
    other_seed = ViewPairs(views, "mix-mix", batch_size=4, steps=2, seed=4)
    assert not np.array_equal(other_seed[0][0][0], first_epoch)


def test_crops_cover_the_clip(views):
    pairs = ViewPairs(views, "mix-mix", batch_size=12)
    starts = np.concatenate([pairs.draw(step)[2] for step in range(100)], axis=1)
    assert starts.min() == 0 and starts.max() == LogMel().frames(SAMPLES) - 96
    assert (starts[0] != starts[1]).mean() > 0.9  # the two views are cropped independently


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(pairing="mix-sep"), "expected one of mix-mix, mix-chan, chan-chan"),
        (dict(processors=("S3",)), "expected some of N, S2"),
        (dict(processors="S2"), "expected some of N, S2"),
        (dict(processors=("N", "N")), "expected some of N, S2, each once"),
        (dict(processors={"S2": 1.0, "S3": 1.0}), "expected some of N, S2"),
        (dict(processors={"S2": 1.0, "N": 0.0}), "expected odds above zero"),
        (dict(processors={"S2": 1.0, "N": np.nan}), "the odds of processors with NaN"),
        (dict(processors=()), "expected some of N, S2"),
        (dict(pairing="mix-mix", batch_size=13), "batch_size=13: expected at most the number of clips, 12"),
    ],
)
def test_what_cannot_be_drawn_is_refused(views, arguments, message):
    with pytest.raises(BadInput, match=message):
        ViewPairs(views, **{"batch_size": 4} | arguments)


def test_odds_weigh_the_or_rule_and_equal_ones_draw_as_names_do(views):
    def drawn(processors):
        pairs = ViewPairs(views, "mix-chan", processors, batch_size=12)
        return np.concatenate([pairs.draw(step)[1][1] for step in range(300)])

    share = np.bincount(drawn({"S2": 3.0, "N": 1.0}), minlength=5)[1:] / 3600
    np.testing.assert_allclose(share, [0.125, 0.125, 0.375, 0.375], atol=0.03)  # N's two channels, S2's two
    np.testing.assert_array_equal(drawn({"N": 0.7, "S2": 0.7}), drawn(("N", "S2")))


def test_draws_are_those_of_streams_of_their_own(views):
    clips, columns, starts = ViewPairs(views, "mix-chan", ("N", "S2"), batch_size=4, seed=3).draw(7)
    order = generator(3, "views", "order", 2).permutation(CLIPS)  # the third pass of three steps
    rng = generator(3, "views", "draws", 7)
    np.testing.assert_array_equal(clips, order[4:8])
    np.testing.assert_array_equal(columns[1], rng.choice([1, 2, 3, 4], 4))
    np.testing.assert_array_equal(starts, rng.integers(0, LogMel().frames(SAMPLES) - 95, (2, 4)))


def composed(plain, patch, clip, log_mel):
    """Looks through all clips but this one, and all moments, for those that make `patch` of `plain` (96, mels) as the
    larger of both in one stretch of frames; returns (clip, first frame of it, first frame and end of the stretch)."""
    changed = [frame for frame in range(96) if (patch[frame] != plain[frame]).any()]
    if not changed:
        return None
    begin, end, found = changed[0], changed[-1] + 1, []
    for other in set(range(len(log_mel))) - {clip}:
        for first in range(log_mel.shape[2] - 95):
            heard = log_mel[other, 0, first : first + 96].astype("float32")
            larger = np.where(heard > plain, heard, plain)
            if np.array_equal(patch[begin:end], larger[begin:end]):
                found.append((other, first, begin, end))
    assert len(found) == 1, "no clip, or more than one, sounds in this patch"
    return found[0]


def test_a_composition_is_the_clip_with_another_one_for_some_of_the_time(views):
    """Beside the pairs of mixtures alone, whose draws are the same."""
    plain, pairs = (ViewPairs(views, pairing, batch_size=6, steps=4, seed=5) for pairing in ("mix-mix", "composition"))
    found = []
    for step in range(14):
        ((first, own),), ((same, patches),) = plain[step], pairs[step]
        np.testing.assert_array_equal(same, first)
        assert patches.dtype == np.float32 and (patches >= own).all()
        clips, columns, _ = pairs.draw(step)
        assert not columns.any()
        found += [composed(*each, views.log_mel) for each in zip(own, patches, clips, strict=True)]
    found = [each for each in found if each is not None]
    others, firsts, begins, ends = np.transpose(found)
    assert len(found) > 75 and set(others) == set(range(CLIPS)) and len(set(firsts)) > 15
    widths = ends - begins
    assert widths.min() < 10 and widths.max() > 86 and abs(widths.mean() - 48) < 12  # uniform: ± 3 for so many
    assert (begins == 0).any() and (ends == 96).any() and len(set(begins)) > 20


def test_compositions_are_a_function_of_seed_epoch_and_step_alone(views):
    one, two, other = (ViewPairs(views, "composition", batch_size=12, steps=2, seed=seed) for seed in (3, 3, 4))
    first, _ = one[0][0][1], one[1]
    np.testing.assert_array_equal(two[0][0][1], first)
    one.on_epoch_end()
    np.testing.assert_array_equal(one[0][0][1], two[2][0][1])  # step 2 counted from the beginning
    assert not np.array_equal(one[0][0][1], first) and not np.array_equal(other[0][0][1], first)


def test_a_composition_leaves_alone_what_a_damaged_clip_would_have_sounded_in(views, monkeypatch):
    plain, pairs = (ViewPairs(views, pairing, batch_size=12, seed=2) for pairing in ("mix-mix", "composition"))
    ((_, own),), ((_, expected),) = plain._read(0), pairs._read(0)
    clips, read, calls = pairs.draw(0)[0], views.patches, []
    partners = [composed(*each, views.log_mel) for each in zip(own, expected, clips, strict=True)]
    bad = next(each[0] for each in partners if each)
    affected = np.array([each is not None and each[0] == bad for each in partners])

    def damaged(clips, columns, starts):
        patches, whole = read(clips, columns, starts)
        calls.append(clips)
        if len(calls) == 3:  # after both views of the batch
            patches[clips == bad], whole[clips == bad] = 0, False
        return patches, whole

    monkeypatch.setattr(views, "patches", damaged)
    ((_, patches),) = pairs._read(0)
    assert affected.any() and not affected.all()
    np.testing.assert_array_equal(patches[affected], own[affected])
    np.testing.assert_array_equal(patches[~affected], expected[~affected])


def test_a_composition_takes_two_clips(tmp_path):
    with pytest.raises(BadInput, match="composition of 1 clip: expected 2 or more"):
        ViewPairs(Views(made_views(tmp_path, np.zeros((1, 5)))), "composition", batch_size=1)


def made_views(folder, level, frames=100, processors=("N", "S2"), number=None):
    """Views whose levels (clips, 5) are given, of which only the size of the spectrograms is real: a file of holes."""
    level = np.asarray(level, "float32")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "level.npy", level)
    shape = (number or len(level), level.shape[1], frames, 64)
    with open(folder / "log_mel.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 2 * int(np.prod(shape, dtype=np.int64)))
    write_json(folder / "views.json", {"processors": processors, "num_sources": 2})
    return folder


LEVELS = {  # of the mixture, N's channels, S2's channels; then those that may be drawn, by processor drawn at first
    "none is quiet": ((0, -1, -2, -39.9, -40), {"N": {1, 2}, "S2": {3, 4}}),
    "one of S2 is quiet": ((0, -1, -2, -3, -40.1), {"N": {1, 2}, "S2": {3}}),
    "both of S2 are quiet": ((0, -1, -2, -50, -60), {"N": {1, 2}, "S2": {1, 2}}),
    "all are quiet": ((0, -70, -60, -50, -90), {"N": {3}, "S2": {3}}),
}


@pytest.mark.parametrize("case", LEVELS)
def test_quiet_channels_give_way_and_all_other_draws_stay(tmp_path, case):
    levels, allowed = LEVELS[case]
    views = Views(made_views(tmp_path, np.tile(levels, (20, 1))))
    plain, rejecting = (
        ViewPairs(views, "chan-chan", {"N": 1, "S2": 2}, batch_size=20, reject_quiet=reject) for reject in (False, True)
    )
    drawn = {"N": set(), "S2": set()}
    for step in range(20):
        (clips, columns, starts), (same_clips, other, same_starts) = plain.draw(step), rejecting.draw(step)
        np.testing.assert_array_equal(clips, same_clips)
        np.testing.assert_array_equal(starts, same_starts)
        stays = np.asarray(levels)[columns] >= -40.0
        np.testing.assert_array_equal(other[stays], columns[stays])
        for name, first in (("N", 1), ("S2", 3)):
            drawn[name] |= set(other[(columns == first) | (columns == first + 1)])
    assert drawn == allowed


def test_the_others_take_over_by_their_odds(tmp_path):
    levels = np.tile((0, -50, -50, -1, -1, -1, -1), (50, 1))
    views = Views(made_views(tmp_path, levels, processors=("N", "F", "S2")))
    pairs = ViewPairs(views, "mix-chan", {"N": 5.0, "F": 1.0, "S2": 3.0}, batch_size=50, reject_quiet=True)
    columns = np.concatenate([pairs.draw(step)[1][1] for step in range(100)])
    np.testing.assert_allclose(np.bincount(columns)[3:] / 5000, [0.125, 0.125, 0.375, 0.375], atol=0.03)


def test_shares_of_quiet_channels_by_processor_and_by_the_odds(views):
    shares = ViewPairs(views, "mix-chan", {"S2": 3.0, "N": 1.0}, batch_size=4).quiet_shares()
    assert shares == {"S2": 0.5, "N": 0.0, "drawn": 0.375}


def test_the_coincidence_task_gets_crops_and_channels_of_its_own(views):
    one, two = (
        ViewPairs(views, "mix-chan", ("N", "S2"), 12, steps=40, coincidence_crops=crops) for crops in (False, True)
    )
    for together, apart in zip(one[3][0], two[3][0], strict=False):
        np.testing.assert_array_equal(together, apart)  # the similarity task's are those without the flag
    ((_, _, mixture, channel),) = two[3]
    clips, columns, starts = two.draw(3)
    assert columns.shape == starts.shape == (4, 12) and not columns[2].any()
    for patches, view in ((mixture, 2), (channel, 3)):
        for patch, where in zip(patches, zip(clips, columns[view], starts[view]), strict=True):
            np.testing.assert_array_equal(patch, views.log_mel[where[:2]][where[2] : where[2] + 96])
    draws = [two.draw(step) for step in range(40)]
    for kind, most in ((1, 0.4), (2, 0.1)):  # four channels; 28 first frames
        drawn = np.concatenate([draw[kind] for draw in draws], axis=1)
        assert (drawn[1] == drawn[3]).mean() < most
    np.testing.assert_allclose(np.bincount(np.concatenate([draw[1][3] for draw in draws]))[1:] / 480, 0.25, atol=0.07)


class Watching(keras.Model):
    """Keeps a number that stands for each batch it is trained on."""

    def __init__(self):
        super().__init__()
        self.seen, self.gain = [], self.add_weight(shape=(), name="gain")

    def build(self, shapes):
        pass

    def call(self, batch, training=None):
        if training:
            self.seen.append(digest(batch))
        return self.gain * keras.ops.mean(batch[0])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return y_pred


def test_training_sees_the_batches_of_the_draws_in_order_also_when_it_goes_on(views):
    """Read ahead as they are, over the ends of epochs, on any backend."""

    def seen(first, last):
        pairs = ViewPairs(views, "mix-chan", ("S2",), batch_size=4, steps=5)
        pairs.epoch += first
        model = Watching()
        model.compile("sgd", run_eagerly=True, jit_compile=False)
        model.fit(pairs, initial_epoch=first, epochs=last, verbose=0, shuffle=False)
        return model.seen[-5 * (last - first) :]  # JAX looks at one before

    pairs = ViewPairs(views, "mix-chan", ("S2",), batch_size=4, steps=5)
    # Keras calls on_epoch_end once before it begins.
    expected = [digest(pairs._read(step)) for step in range(5, 20)]
    assert len(set(expected)) == 15
    assert seen(0, 3) == expected and seen(1, 3) == expected[5:]


def test_what_is_asked_for_out_of_order_is_still_the_batch_of_its_step(views):
    pairs = ViewPairs(views, "mix-mix", batch_size=4, steps=5)
    for epoch, step in ((0, 0), (0, 1), (0, 4), (1, 0), (0, 2), (7, 3), (7, 3)):
        pairs.epoch = epoch
        assert digest(pairs[step]) == digest(pairs._read(5 * epoch + step))
    assert sorted(pairs._coming) == [39, 40]  # no more than these two are kept


def test_memory_does_not_grow_with_the_clips(tmp_path):
    """But for 4 bytes a clip. The maps are of holes: the larger one is of 5 GB."""

    def peak(number):
        folder = tmp_path / str(number)
        made_views(folder, np.zeros((number, 5)), frames=96)
        tracemalloc.start()
        try:
            pairs = ViewPairs(Views(folder), "mix-chan", {"N": 1.0, "S2": 2.0}, 64, 5, reject_quiet=True)
            for step in range(5):
                pairs._read(step)  # not ahead, in threads: how many are under way at once is a matter of chance
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1000)  # what is made once in a process
    small, large = peak(1000), peak(80_000)
    assert large - small < 4 * 79_000 + 100_000, (small, large)


def test_views_are_read_alike_where_the_system_has_no_such_calls(views, monkeypatch):
    expected = ViewPairs(views, "mix-chan", ("S2",), batch_size=12)._read(3)
    for name in ("preadv", "posix_fadvise"):
        monkeypatch.delattr(os, name, raising=False)
    folder = views.folder
    again = ViewPairs(Views(folder), "mix-chan", ("S2",), batch_size=12)._read(3)
    for ours, theirs in zip(again[0], expected[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from sepcl_keras.views import processors, stored
from sepcl_keras.views.stored import write_views
from views.test_views import Shares, clips

inference, calls = stored.inference, []

def killing(model, batch_size):
    def call(batch):
        calls.append(model)
        if len(calls) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(batch)
    function = inference(model, batch_size)
    return call

processors.inference = stored.inference = killing
write_views(Path(sys.argv[1]), clips(), {"N": Shares(0.5), "S2": Shares(0.001)}, batch_size=5)
"""


@pytest.mark.once
def test_writing_killed_on_the_way_ends_byte_for_byte_where_others_end(tmp_path, views, mixtures, capsys):
    folder, snapshots = tmp_path / "views", {"N": Shares(0.5), "S2": Shares(0.001)}
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(folder), "7"],  # two processors and the log-mel: third batch
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr[-2000:]
    assert sorted(path.name for path in folder.iterdir()) == ["level.part", "log_mel.part", PROGRESS]
    rows = read_json(folder / PROGRESS)["rows"]
    assert rows in (5, 10)
    with pytest.raises(BadInput, match="views.json: expected a readable JSON file"):
        Views(folder)
    for name in ("log_mel", "level"):
        with open(folder / f"{name}.part", "ab") as file:
            file.write(b"a row cut short")
    write_views(folder, mixtures, snapshots, batch_size=5)
    assert f"resumed at clip {rows} of {CLIPS}\n" in capsys.readouterr().out
    whole = views.folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "checked.json",
        "checksums.json",
        "level.npy",
        "log_mel.npy",
        "views.json",
    ]
    for path in folder.iterdir():  # in one, when and where these very files were written
        assert path.name == "checked.json" or path.read_bytes() == (whole / path.name).read_bytes(), path.name


class Stopped(Exception):
    pass


def stop_after(batches, folder, mixtures, snapshots, monkeypatch):
    """Writes so many batches of 5 clips, all of them with their record, and fails at the next."""
    add = GrowingArrays.add

    def stopping(rows, *arrays):
        if rows.rows >= 5 * batches:
            raise Stopped
        rows.sparing = Sparing()
        add(rows, *arrays)

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(GrowingArrays, "add", stopping)
        write_views(folder, mixtures, snapshots, batch_size=5)


@pytest.mark.parametrize("other", ["fewer clips", "a clip", "snapshots", "batch_size", "record"])
def test_rows_of_something_else_are_written_anew(tmp_path, mixtures, capsys, monkeypatch, other):
    stop_after(1, tmp_path, mixtures, {"N": Shares(0.5)}, monkeypatch)
    if other == "record":
        (tmp_path / PROGRESS).write_text("{")
    if other == "a clip":
        mixtures = mixtures.copy()
        mixtures[2] *= 0.5
    write_views(
        tmp_path,
        mixtures[:-1] if other == "fewer clips" else mixtures,
        {"F" if other == "snapshots" else "N": Shares(0.5)},
        batch_size=4 if other == "batch_size" else 5,
    )
    assert "resumed" not in capsys.readouterr().out
    np.testing.assert_allclose(Views(tmp_path).level[:, 1], 20 * np.log10(0.5), atol=1e-3)


def test_views_stopped_while_they_took_their_names_are_not_made_again(tmp_path, mixtures, views, monkeypatch):
    replace = os.replace

    def only_one(source, target):
        if Path(target).name == "level.npy":
            raise Stopped
        replace(source, target)

    snapshots = {"N": Shares(0.5), "S2": Shares(0.001)}
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(os, "replace", only_one)
        write_views(tmp_path, mixtures, snapshots, batch_size=5)
    with monkeypatch.context() as patched:
        patched.setattr(GrowingArrays, "add", None)
        write_views(tmp_path, mixtures, snapshots, batch_size=5)
    np.testing.assert_array_equal(Views(tmp_path).log_mel, views.log_mel)


def test_rows_that_somebody_took_away_are_missed(tmp_path, mixtures, monkeypatch):
    stop_after(1, tmp_path, mixtures, {"N": Shares(0.5)}, monkeypatch)
    (tmp_path / "level.part").write_bytes(b"")
    with pytest.raises(BadInput, match="level.part: shorter than progress.json says"):
        write_views(tmp_path, mixtures, {"N": Shares(0.5)}, batch_size=5)


def test_a_full_disk_is_one_sentence_and_room_made_goes_on(tmp_path, mixtures, views, capsys, room_for):
    snapshots = {"N": Shares(0.5), "S2": Shares(0.001)}
    row = views.log_mel[0].nbytes
    room_for(7 * row)
    with pytest.raises(BadInput, match="cannot be written .*; expected a folder with room"):
        write_views(tmp_path, mixtures, snapshots, batch_size=5)
    room_for(None)
    write_views(tmp_path, mixtures, snapshots, batch_size=5)
    assert f"resumed at clip 5 of {CLIPS}\n" in capsys.readouterr().out
    np.testing.assert_array_equal(Views(tmp_path).log_mel, views.log_mel)


def test_the_folder_of_an_artifact_keeps_what_was_written(tmp_path, mixtures, monkeypatch):
    for left in ([], ["level.part", "log_mel.part", PROGRESS]):
        with pytest.raises(Stopped), atomic_folder(tmp_path / "views", "a") as folder:
            assert sorted(path.name for path in folder.iterdir()) == left
            stop_after(1, folder, mixtures, {"N": Shares(0.5)}, monkeypatch)
            raise Stopped


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: np.where(np.arange(SAMPLES) == 77, np.nan, m), "mixtures with NaN or infinity"),
        (lambda m: m[:, :15_599], "mixtures of 15599 samples: expected at least 15600, one patch"),
        (lambda m: m[:0], r"mixtures of shape \(0, 20000\)"),
        (lambda m: m[0], r"mixtures of shape \(5,\): expected \(clips, samples\)"),
    ],
)
def test_mixtures_that_make_no_views_are_refused_before_anything_is_written(tmp_path, mixtures, change, message):
    with pytest.raises(BadInput, match=message):
        write_views(tmp_path / "views", change(mixtures), {"N": Shares(0.5)}, batch_size=5)
    assert not (tmp_path / "views").exists()


def test_snapshots_must_agree_on_the_number_of_sources(tmp_path, mixtures):
    four = Shares(0.5)
    four.config = {"num_sources": 4}
    for snapshots in ({}, {"N": Shares(0.5), "S2": four}):
        with pytest.raises(BadInput, match="expected some separators with one and the same num_sources"):
            write_views(tmp_path / "views", mixtures, snapshots)


def cut(path, size):
    with open(path, "r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "views.json").unlink(), "views.json: expected a readable JSON file"),
        (lambda f: (f / "views.json").write_text("[]"), r"views.json: holds \[\]; expected a JSON dict"),
        (lambda f: write_json(f / "views.json", {"processors": ["N"], "num_sources": 2}), "log_mel.npy: shape"),
        (lambda f: (f / "log_mel.npy").unlink(), "log_mel.npy: expected a whole array"),
        (lambda f: cut(f / "log_mel.npy", 5000), "log_mel.npy: expected a whole array"),
        (lambda f: cut(f / "level.npy", 0), "level.npy: expected a whole array"),
        (lambda f: (f / "level.npy").write_bytes(b"no array"), "level.npy: expected a whole array"),
        (lambda f: np.save(f / "level.npy", np.zeros((3, 5))), "level.npy: float64 of shape .*; expected float32"),
        (lambda f: np.save(f / "level.npy", np.zeros((4, 5), "float32")), "level.npy: shape .*; expected 3 clips, 5"),
        (lambda f: np.save(f / "level.npy", np.array([Path()]), allow_pickle=True), "level.npy: expected a whole"),
        (lambda f: made_views(f, np.zeros((3, 5)), frames=95), "log_mel.npy: shape .* at least 96 frames"),
    ],
)
def test_a_folder_that_is_not_of_whole_views_is_refused_with_the_name_of_the_file(tmp_path, damage, message):
    made_views(tmp_path, np.zeros((3, 5)))
    Views(tmp_path)
    damage(tmp_path)
    with pytest.raises(BadInput, match=message):
        Views(tmp_path)


def test_a_file_that_is_cut_while_it_is_read_is_named(tmp_path):
    pairs = ViewPairs(Views(made_views(tmp_path, np.zeros((12, 5)))), "mix-mix", batch_size=12)
    cut(tmp_path / "log_mel.npy", 5000)
    with pytest.raises(BadInput, match="log_mel.npy: ends early"):
        pairs[0]
