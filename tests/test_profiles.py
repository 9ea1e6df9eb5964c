"""Profiles fit together, and a wrong name is refused with the right ones."""

import pytest

from sepcl_keras.features import PATCH_FRAMES, LogMel
from sepcl_keras.files import BadInput
from sepcl_keras.profiles import PROFILES, get_profile


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
    with pytest.raises(BadInput, match="PROFILE='huge': expected one of smoke, tiny"):
        get_profile("huge")
