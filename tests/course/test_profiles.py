"""Profiles fit together, and a wrong name is refused with the right ones."""

import numpy as np
import pytest

from sepcl_keras.core.checks import BadInput
from sepcl_keras.course.profiles import PROFILES, get_profile
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.views.log_mel import PATCH_FRAMES, LogMel

pytestmark = pytest.mark.once


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_sizes_fit_together(profile):
    assert get_profile(profile.name) is profile
    steps = list(profile.snapshot_steps.values())
    assert list(profile.snapshot_steps) == ["N", "F", "S1", "S2"] and steps == sorted(set(steps)) and steps[0] == 0
    assert profile.separator_start in ("mdct", "random")
    assert profile.separator_batch % 2 == 0  # neighbours become mixtures of mixtures
    assert profile.batch_size <= profile.scenes["train"]
    assert LogMel().frames(profile.clip_samples) >= 2 * PATCH_FRAMES  # room for temporal proximity


def test_an_unknown_profile_is_refused_with_those_there_are():
    with pytest.raises(BadInput, match="PROFILE='huge': expected one of smoke, tiny, study, full"):
        get_profile("huge")


def test_the_full_profile_has_the_papers_networks():
    profile = get_profile("full")
    separator = TDCNPlusPlus(**profile.separator)
    separator.build((None, None))
    encoder = CNN14(profile.embedding_dim, profile.width)
    encoder.build((None, 96, 64))
    assert separator.count_params() == 8_672_257
    assert sum(np.prod(w.shape) for w in encoder.trainable_weights) == 75_739_712
    assert [profile.snapshot_steps[name] for name in ("N", "F", "S1")] == [0, 500, 5000]
