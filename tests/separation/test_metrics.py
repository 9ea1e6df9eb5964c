"""Scores of separation: by hand, against brute force over every way to give sources to channels, and on real scenes."""

import itertools
import json

import numpy as np
import pytest
from conftest import ROOT

from sepcl_keras.core.checks import BadInput
from sepcl_keras.course.course import Course
from sepcl_keras.course.profiles import get_profile
from sepcl_keras.scenes.banks import open_bank
from sepcl_keras.scenes.mixing import Scenes
from sepcl_keras.separation import metrics
from sepcl_keras.separation.metrics import (
    HOP,
    WINDOW,
    evaluate_separation,
    fit_channels,
    groupings,
    ideal_ratio_mask,
    improvements,
    si_snr,
    si_snr_improvement,
    summary,
)
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.separation.separate import separate

ESC10 = ROOT.parent / "shared" / "esc10"
THREE_DB = 10 * np.log10(2)


def tones(*cycles, samples=800):
    """Sines with so many periods, orthogonal and of equal energy, float32 (tones, samples)."""
    return np.stack([np.sin(2 * np.pi * c * np.arange(samples) / samples) for c in cycles]).astype("float32")


def make_scenes(number=24, data="made", seconds=1.0):
    return Scenes(open_bank(str(data), get_profile("smoke")), "test", number, seconds)


@pytest.fixture(scope="module")
def scenes():
    return make_scenes()


def halves(mixtures):
    """A separator that spoils the mixture a little, differently in each of its two channels."""
    noise = 0.02 * np.random.default_rng(0).standard_normal((2, mixtures.shape[1]))
    return (mixtures[:, None] / 2 + noise).astype("float32")


def knowing(scenes, channels_of):
    """A separator that looks each mixture up among `scenes` and gives `channels_of` its sources."""
    known = {scene.mixture.tobytes(): scene.sources for scene in (scenes[i] for i in range(len(scenes)))}
    return lambda mixtures: np.stack([channels_of(known[mixture.tobytes()]) for mixture in mixtures])


# --- SI-SNR


def test_si_snr_by_hand():
    signal, noise = tones(5, 9)  # orthogonal, equal energy
    assert si_snr(signal, signal + 0.1 * noise) == pytest.approx(20.0, abs=1e-4)
    assert si_snr(signal, signal + noise) == pytest.approx(0.0, abs=1e-4)
    # A correlation of 1/2: a quarter of the energy along the reference, three quarters beside it.
    assert si_snr([1, -1, 0, 0], [1, 0, 0, -1]) == pytest.approx(10 * np.log10(1 / 3))


def test_si_snr_ignores_scale_sign_and_offset():
    rng = np.random.default_rng(0)
    reference, estimate = rng.standard_normal((2, 500))
    expected = si_snr(reference, estimate)
    for scale in (1e-6, -3.0, 1e4):
        assert si_snr(reference, scale * estimate + 0.7 * scale) == pytest.approx(expected, abs=1e-6)
        assert si_snr(scale * reference - 5 * scale, estimate) == pytest.approx(expected, abs=1e-6)


def test_si_snr_broadcasts_leading_axes():
    rng = np.random.default_rng(0)
    references, estimates = rng.standard_normal((2, 3, 50)), rng.standard_normal((2, 3, 50))
    found = si_snr(references, estimates)
    assert found.shape == (2, 3)
    assert found[1, 2] == pytest.approx(si_snr(references[1, 2], estimates[1, 2]), abs=1e-12)
    assert si_snr(references[0, :, None], estimates[0, None]).shape == (3, 3)


def test_si_snr_stays_finite():
    tone = tones(5)[0]
    constant = np.full(len(tone), 0.3)  # less its mean it is not quite zero: the mean is rounded
    for silent in (np.zeros_like(tone), constant):
        assert si_snr(silent, tone) == si_snr(tone, silent) == si_snr(silent, silent) == -100.0
    assert si_snr(tone, tone) == 100.0


def test_si_snr_keeps_what_is_exact_in_double_precision():
    rng = np.random.default_rng(0)
    reference, noise = rng.standard_normal((2, 1000))
    reference, noise = reference - reference.mean(), noise - noise.mean()
    noise -= (noise @ reference) / (reference @ reference) * reference
    for decibels in (-95.0, -20.0, 60.0, 95.0):
        scale = 10 ** (-decibels / 20) * np.linalg.norm(reference) / np.linalg.norm(noise)
        assert si_snr(reference, reference + scale * noise) == pytest.approx(decibels, abs=1e-3)


def test_bad_waveforms_are_named():
    with pytest.raises(BadInput, match=r"estimate of shape \(7,\)"):
        si_snr(np.ones(8), np.ones(7))
    with pytest.raises(BadInput, match=r"estimate of shape \(3, 8\)"):
        si_snr(np.ones((2, 8)), np.ones((3, 8)))
    with pytest.raises(BadInput, match="reference of shape"):
        si_snr([1.0, np.nan], [1.0, 2.0])
    with pytest.raises(BadInput, match="estimates with 1 channels: expected at least 2"):
        si_snr_improvement(tones(1, 2), tones(1), tones(1)[0])
    with pytest.raises(BadInput, match="mixture of shape"):
        si_snr_improvement(tones(1, 2), tones(1, 2), tones(1))
    with pytest.raises(BadInput, match=r"of \(800, 800, 700\) samples"):
        fit_channels(tones(1, 2), tones(1, 2), tones(1, samples=700)[0])
    with pytest.raises(BadInput, match="estimates with NaN"):
        fit_channels(tones(1, 2), np.full((2, 800), np.nan), tones(1)[0])


# --- groups of sources, pairs with channels


def test_groupings_are_all_partitions():
    assert set(groupings(3, 2)) == {((0, 1), (2,)), ((0, 2), (1,)), ((0,), (1, 2))}
    assert groupings(2, 2) == [((0,), (1,))] and groupings(3, 1) == [((0, 1, 2),)]
    assert groupings(2, 3) == groupings(2, 0) == []
    for sources, groups, number in ((4, 2, 7), (4, 3, 6), (5, 3, 25), (6, 4, 65)):  # Stirling numbers
        found = {frozenset(map(frozenset, grouping)) for grouping in groupings(sources, groups)}
        assert len(found) == len(groupings(sources, groups)) == number
        for grouping in found:
            assert len(grouping) == groups and sorted(i for group in grouping for i in group) == list(range(sources))


def in_decibels(reference, estimate):
    """SI-SNR by projection, one pair at a time."""
    reference, estimate = (x.astype(np.float64) - x.mean(dtype=np.float64) for x in (reference, estimate))
    along = reference * (estimate @ reference) / (reference @ reference)
    return 10 * np.log10((along @ along) / ((estimate - along) @ (estimate - along)))


def brute_force(references, estimates, mixture):
    """The best mean improvement of all maps from sources to channels that use as many channels as they can."""
    found = []
    for homes in itertools.product(range(len(estimates)), repeat=len(references)):
        if len(set(homes)) == min(len(references), len(estimates)):
            sums = {m: sum(r for r, home in zip(references, homes) if home == m) for m in set(homes)}
            found.append(np.mean([in_decibels(s, estimates[m]) - in_decibels(s, mixture) for m, s in sums.items()]))
    return max(found), len(found)


@pytest.mark.parametrize(
    ("sources", "channels", "ways"), [(1, 2, 2), (2, 2, 2), (3, 2, 6), (2, 4, 12), (3, 4, 24), (4, 3, 36)]
)
def test_the_best_fit_equals_brute_force(sources, channels, ways):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        references = rng.standard_normal((sources, 60)) * rng.uniform(0.2, 2, (sources, 1))
        estimates = rng.standard_normal((channels, sources)) @ references + 0.3 * rng.standard_normal((channels, 60))
        mixture = references.sum(axis=0) + 0.1 * rng.standard_normal(60)
        expected, tried = brute_force(references, estimates, mixture)
        assert tried == ways
        assert si_snr_improvement(references, estimates, mixture) == pytest.approx(expected, abs=1e-9)
        fit = fit_channels(references, estimates, mixture)
        for group, channel, ratio, gain in zip(*(fit[k] for k in ("groups", "channels", "si_snr", "improvement"))):
            total = references[group].sum(axis=0)
            assert ratio == pytest.approx(in_decibels(total, estimates[channel]), abs=1e-9)
            assert gain == pytest.approx(ratio - in_decibels(total, mixture), abs=1e-9)


def test_the_best_permutation_by_hand():
    references = tones(5, 9, 14)
    mixture = references.sum(axis=0)  # each source against two others: -3.01 dB
    estimates = references + 0.1 * tones(21, 22, 23)  # 20 dB each
    for order in itertools.permutations(range(3)):
        fit = fit_channels(references, estimates[list(order)], mixture)
        assert fit["improvement"] == pytest.approx([20 + THREE_DB] * 3, abs=1e-3)
        assert [order[channel] for channel in fit["channels"]] == [0, 1, 2]
    spare = np.concatenate([tones(30), estimates])
    assert si_snr_improvement(references, spare, mixture) == pytest.approx(20 + THREE_DB, abs=1e-3)


def test_three_sources_in_two_channels_by_hand():
    a, b, c = references = tones(5, 9, 14)
    mixture = references.sum(axis=0)
    # Alone a source is 3.01 dB under the other two, which are as much above it.
    for order in itertools.permutations(range(3)):
        first, second, third = references[list(order)]
        fit = fit_channels(references, np.stack([first + third, second]), mixture)
        together = sorted([order[0], order[2]])
        assert [together, [order[1]]] == sorted(fit["groups"], key=len, reverse=True)
        assert np.mean(fit["improvement"]) == pytest.approx(100.0)
        by_group = {len(group): gain for group, gain in zip(fit["groups"], fit["improvement"])}
        assert by_group == pytest.approx({1: 100 + THREE_DB, 2: 100 - THREE_DB}, abs=1e-4)
    # Channel 1 holds a, and a tenth of b: 20 dB. Channel 2 holds b and c in amounts 0.9 and 1: (1.9²/2) / (0.1²/2).
    fit = fit_channels(references, np.stack([a + 0.1 * b, 0.9 * b + c]), mixture)
    assert fit["groups"] == [[0], [1, 2]] and fit["channels"] == [0, 1]
    expected = [20 + THREE_DB, 20 * np.log10(19) - THREE_DB]
    assert fit["improvement"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("sources", "channels"), [(2, 2), (3, 2), (2, 4)])
def test_order_and_volume_do_not_matter(sources, channels):
    rng = np.random.default_rng(0)
    references, mixture = rng.standard_normal((sources, 50)), rng.standard_normal(50)
    estimates = rng.standard_normal((channels, 50))
    expected = si_snr_improvement(references, estimates, mixture)
    for _ in range(5):
        louder = estimates * rng.choice([-1, 1], (channels, 1)) * rng.uniform(0.01, 100, (channels, 1))
        shuffled = rng.permutation(louder), rng.permutation(references)
        assert si_snr_improvement(shuffled[1], shuffled[0], 7 * mixture) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sources", [2, 3])
def test_doing_nothing_earns_nothing(sources):
    references = np.random.default_rng(0).standard_normal((sources, 200)).astype("float32")
    mixture = references.sum(axis=0)
    assert fit_channels(references, np.stack([mixture, mixture]), mixture)["improvement"] == [0.0, 0.0]
    assert si_snr_improvement(references, np.stack([mixture / 4, -mixture]), mixture) == pytest.approx(0, abs=1e-9)
    # All in one channel: silence has nothing of its group, whose baseline is near 0 dB.
    assert si_snr_improvement(references, np.stack([mixture, 0 * mixture]), mixture) < -40


# --- the ideal mask


def test_the_ideal_mask_by_hand_and_its_window():
    first, second = tones(64, 320, samples=8192)  # 8 and 40 periods a window: cells of their own
    first[4096:] = second[:4096] = 0  # and never at once
    masked = ideal_ratio_mask(np.stack([first, second]), first + second)
    assert masked.shape == (2, 8192)
    np.testing.assert_allclose(masked[0, :3500], first[:3500], atol=1e-5)
    np.testing.assert_allclose(masked[1, 4600:], second[4600:], atol=1e-5)
    # Two copies of a sound, one three times as loud: shares of a quarter and three quarters in every cell.
    noise = np.random.default_rng(0).standard_normal(4000)
    masked = ideal_ratio_mask(np.stack([noise, -3 * noise]), -2 * noise)
    np.testing.assert_allclose(masked, [-0.5 * noise, -1.5 * noise], atol=1e-9)
    assert (WINDOW, HOP) == (512, 256)


def test_the_ideal_masks_share_out_the_mixture(scenes):
    scene = scenes[int(np.flatnonzero(scenes.number_of_events == 3)[0])]
    masked = ideal_ratio_mask(scene.sources, scene.mixture)
    np.testing.assert_allclose(masked.sum(axis=0), scene.mixture, atol=1e-5)


def test_bad_references_of_the_mask_are_named():
    for references, mixture in ((np.ones((2, 600)), np.ones(500)), (np.ones(600), np.ones(600)), (tones(1), [1.0])):
        with pytest.raises(BadInput, match="references .*at least 512 samples"):
            ideal_ratio_mask(references, mixture)


# --- scene by scene


def test_records_of_made_scenes(scenes):
    records = evaluate_separation({"halves": halves}, scenes, most=4)
    assert list(records) == ["mixture", "ideal", "halves"]
    expected = sorted(i for k in (1, 2, 3) for i in np.flatnonzero(scenes.number_of_events == k)[:4])
    for name, found in records.items():
        assert [record["scene"] for record in found] == expected
        for record in found:
            scene = scenes[record["scene"]]
            assert record["events"] == len(scene.sources) and record["classes"] == list(scene.labels)
            assert ("reconstruction" in record) == (record["events"] == 1) != ("improvement" in record)
            assert sum(record["shares"]) == pytest.approx(1)
            if name == "halves":
                channels = halves(scene.mixture[None])[0]
                fit = fit_channels(scene.sources, channels, scene.mixture)
                values = record.get("improvement") or [record["reconstruction"]]
                assert values == pytest.approx(fit["improvement" if record["events"] > 1 else "si_snr"], abs=1e-9)
                energy = np.square(channels.astype(np.float64)).sum(axis=1)
                assert record["shares"] == pytest.approx((energy / energy.sum()).tolist())
    for mixture, ideal in zip(records["mixture"], records["ideal"]):
        if mixture["events"] == 1:
            assert mixture["reconstruction"] == 100 and ideal["reconstruction"] > 90
        else:
            assert mixture["improvement"] == [0.0, 0.0] and mixture["shares"] == [0.5, 0.5]
            assert np.mean(ideal["improvement"]) > 3
    assert json.loads(json.dumps(records, allow_nan=False)) == records


def test_the_ideal_mask_takes_its_best_grouping(scenes):
    records = evaluate_separation({"halves": halves}, scenes)["ideal"]
    for record in records:
        if record["events"] == 3:
            scene, every = scenes[record["scene"]], {}
            for alone in range(3):
                a, b = (k for k in range(3) if k != alone)
                sums = np.stack([scene.sources[alone], scene.sources[a] + scene.sources[b]])
                masked = ideal_ratio_mask(sums, scene.mixture)
                gains = [in_decibels(s, m) - in_decibels(s, scene.mixture) for s, m in zip(sums, masked)]
                every[alone] = np.mean(gains)
            best = max(every, key=every.get)
            assert np.mean(record["improvement"]) == pytest.approx(every[best], abs=1e-3)
            assert [best] in record["groups"]


def test_a_separator_that_knows_the_sources_reaches_the_limit(scenes):
    def two(sources):  # in the wrong order and at other volumes
        return np.stack([0.1 * sources[-1], 3 * sources[:-1].sum(axis=0)])

    records = evaluate_separation({"knowing": knowing(scenes, two)}, scenes)["knowing"]
    for record in records:
        scene = scenes[record["scene"]]
        if record["events"] == 1:
            assert record["reconstruction"] == 100 and record["shares"] == [1.0, 0.0]
        else:
            baseline = [si_snr(scene.sources[group].sum(axis=0), scene.mixture) for group in record["groups"]]
            assert record["improvement"] == pytest.approx(100 - np.array(baseline), abs=1e-6)
            assert [record["events"] - 1] in record["groups"]


def test_four_channels_fit_three_events_without_groups(scenes):
    def four(sources):
        noise = np.random.default_rng(0).standard_normal((4 - len(sources), sources.shape[1]))
        return np.concatenate([noise, sources]).astype("float32")

    records = evaluate_separation({"four": knowing(scenes, four)}, scenes)
    for record in records["four"]:
        number = record["events"]
        assert record["groups"] == [[k] for k in range(number)]
        assert record["channels"] == list(range(4 - number, 4)) and len(record["shares"]) == 4
    assert all(record["groups"] == [[k] for k in range(record["events"])] for record in records["ideal"])
    assert all(record["shares"] == [0.25] * 4 for record in records["mixture"])


@pytest.mark.parametrize("channels", [2, 4])
def test_models_are_separated_in_batches(scenes, channels, monkeypatch):
    separator = TDCNPlusPlus(
        channels, num_basis=16, frame_length=32, frame_step=16, bottleneck=8, hidden=8, dilations=(1, 2), repeats=1
    )
    separator.build((None, None))
    whole = evaluate_separation({"N": separator}, scenes, most=5)["N"]
    for record in whole[:6]:
        scene = scenes[record["scene"]]
        alone = separate(separator, scene.mixture[None])[0]
        if record["events"] > 1:
            expected, _ = brute_force(scene.sources, alone, scene.mixture)
            assert np.mean(record["improvement"]) == pytest.approx(expected, abs=1e-3)
        else:
            fits = [in_decibels(scene.sources[0], channel) for channel in alone]
            assert record["reconstruction"] == pytest.approx(max(fits), abs=1e-3)
    monkeypatch.setattr(metrics, "BATCH", 4)
    for a, b in zip(whole, evaluate_separation({"N": separator}, scenes, most=5)["N"], strict=True):
        assert a["groups"] == b["groups"] and a["channels"] == b["channels"]
        np.testing.assert_allclose(a["shares"], b["shares"], atol=1e-5)


def test_a_mute_separator_is_scored_not_refused(scenes):
    records = evaluate_separation({"mute": lambda x: np.zeros((len(x), 2, x.shape[1]))}, scenes, most=2)["mute"]
    assert all(record["shares"] == [0.0, 0.0] for record in records)
    assert all(record["reconstruction"] == -100 for record in records if record["events"] == 1)


@pytest.mark.skipif(not ESC10.exists(), reason="the recordings of ESC-10 are not beside this checkout")
def test_recordings_are_scored_alike():
    scenes = make_scenes(8, ESC10)
    found = summary(evaluate_separation({"halves": halves}, scenes))
    assert sum(kind["scenes"] for kind in found["ideal"]["improvement"].values()) == (scenes.number_of_events > 1).sum()
    for number in found["ideal"]["improvement"]:
        assert found["ideal"]["improvement"][number]["median"] > 3 > found["halves"]["improvement"][number]["median"]


@pytest.mark.parametrize(
    ("separators", "most", "says"),
    [
        ({}, 5, "separators .*expected at least one"),
        ({"ideal": halves}, 5, "none called mixture or ideal"),
        ({"halves": halves}, 0, "most=0: expected a whole number of at least 1"),
        ({"bad": lambda x: x}, 5, "channels of bad of shape .*clips, channels, samples"),
        ({"bad": lambda x: x[:, None]}, 5, "channels of bad .*2 or more"),
        ({"bad": lambda x: halves(x)[..., 1:]}, 5, "channels of bad .*2 or more, 16000"),
        ({"bad": lambda x: halves(x)[1:]}, 5, "channels of bad .*2 or more"),
        ({"bad": lambda x: halves(x) * np.nan}, 5, "channels of bad with NaN"),
        ({"a": halves, "b": lambda x: np.repeat(halves(x), 2, axis=1)}, 5, "expected the same number for all"),
    ],
)
def test_bad_separators_are_named(scenes, separators, most, says):
    with pytest.raises(BadInput, match=says):
        evaluate_separation(separators, scenes, most)


# --- in few numbers


def test_summary_by_hand():
    def record(events, classes, groups, shares, **score):
        channels = list(range(len(groups)))
        return dict(scene=0, events=events, classes=classes, groups=groups, channels=channels, shares=shares, **score)

    pair, three = [[0], [1]], [[0, 2], [1]]
    records = [
        record(2, ["dog", "rain"], pair, [0.5, 0.5], improvement=[1.0, 3.0]),  # mean 2
        record(2, ["dog", "wind"], pair, [0.9, 0.1], improvement=[5.0, -9.0]),  # mean -2
        record(2, ["wind", "dog"], pair, [0.2, 0.8], improvement=[7.0, 9.0]),  # mean 8
        record(3, ["dog", "rain", "wind"], three, [0.6, 0.4], improvement=[0.0, 0.0]),
        record(1, ["dog"], [[0]], [0.7, 0.3], reconstruction=20.0),
        record(1, ["rain"], [[0]], [0.4, 0.6], reconstruction=10.0),
    ]
    assert improvements(records).tolist() == [2, -2, 8] and improvements(records, 3).tolist() == [0]
    found = summary({"S2": records, "none": records[3:4]})
    assert json.loads(json.dumps(found)) == found
    two = {"scenes": 3, "median": 2.0, "quartiles": [0.0, 5.0], "loudest_share": 0.8, "improved": 2 / 3}
    assert found["S2"] == {
        "reconstruction": {
            "scenes": 2,
            "median": 15.0,
            "quartiles": [12.5, 17.5],
            "loudest_share": pytest.approx(0.65),
        },
        "improvement": {
            "2": two,
            "3": {"scenes": 1, "median": 0.0, "quartiles": [0.0, 0.0], "loudest_share": 0.6, "improved": 0.0},
        },
        "classes": {
            "dog": {"sources": 3, "median": 5.0},
            "rain": {"sources": 1, "median": 3.0},
            "wind": {"sources": 2, "median": -1.0},
        },
    }
    assert found["none"]["reconstruction"] is None and found["none"]["classes"] == {}


def test_the_course_scores_its_snapshots_on_its_test_scenes(tmp_path, monkeypatch):
    course = Course("smoke", "made", 0, tmp_path)
    given = course.separation({"halves": halves}, most=2)
    assert given == evaluate_separation({"halves": halves}, course.scenes["test"], 2)
    monkeypatch.setattr(course, "snapshots", lambda: ({"N": halves, "S2": halves}, {}))
    assert list(course.separation(most=1)) == ["mixture", "ideal", "N", "S2"]
    course.record("03", separation=summary(given))
    assert course.results("03")["separation"] == summary(given)
