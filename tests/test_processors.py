"""Views on disk and the pairs drawn from them, with a separator whose channels are known by construction."""

import keras
import numpy as np
import pytest

from sepcl_keras.features import LogMel
from sepcl_keras.files import BadInput
from sepcl_keras.processors import ViewPairs, Views, separate, write_views

CLIPS, SAMPLES = 12, 20_000


class Shares(keras.Model):
    """Splits the mixture into a share and the rest: channels whose views are known."""

    def __init__(self, share):
        super().__init__()
        self.share, self.config = share, {"num_sources": 2}

    def call(self, mixture):
        return keras.ops.stack([self.share * mixture, (1 - self.share) * mixture], axis=1)


@pytest.fixture(scope="module")
def mixtures():
    return (np.random.default_rng(0).standard_normal((CLIPS, SAMPLES)) * 0.1).astype("float32")


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


def test_quiet_channels_are_counted(views):
    assert views.quiet_share("N") == 0.0
    assert views.quiet_share("S2") == 0.5  # -60 dB: one of the two channels


def test_separate_in_batches_equals_separate_at_once(mixtures):
    np.testing.assert_allclose(separate(Shares(0.3), mixtures, 5), separate(Shares(0.3), mixtures, 12), atol=1e-7)


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
        (dict(processors=()), "expected some of N, S2"),
        (dict(pairing="mix-mix", batch_size=13), "batch_size=13: expected at most the number of clips, 12"),
    ],
)
def test_what_cannot_be_drawn_is_refused(views, arguments, message):
    with pytest.raises(BadInput, match=message):
        ViewPairs(views, **{"batch_size": 4} | arguments)
