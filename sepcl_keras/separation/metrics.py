"""How well a separator takes held-out scenes apart, in dB, beside the mixture itself and an ideal ratio mask.

A scene has K sources, a separator M channels. K sources fall into min(K, M) groups, each of which is summed, and each
group is heard in one channel of its own: of all such groupings and pairings the one with the largest mean improvement
counts. Up to M sources this is the usual best permutation; channels left over do not count, so that spreading one event
over several of them is no gain. With a single event there is nothing to improve: `reconstruction` tells how much of it
is in one channel, and is never averaged with improvements.

The mixture as every channel improves by exactly 0 dB and reconstructs a single event perfectly (100 dB); in one
channel, with silence in the others, it is far below 0 dB. Where groupings can be chosen any separator gains by the
choice, so compare improvements with the anchors', not between two and three events.
"""

import functools

import keras
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.signal import istft, stft

from sepcl_keras.core.checks import BadInput, check_number, numbers
from sepcl_keras.core.files import progress
from sepcl_keras.separation.separate import separate

SI_SNR_LIMIT = 100.0  # dB; keeps perfect and silent signals finite
ANCHORS = ("mixture", "ideal")  # what is scored beside the separators
WINDOW, HOP = 512, 256  # samples of the ideal mask's Hann window and between its frames: 32 and 16 ms at 16 kHz
BATCH = 16  # scenes in memory at once


def _directions(name, waveforms):
    """Waveforms (..., samples) without their mean, at length one; what is constant up to rounding becomes zero."""
    waveforms = np.asarray(waveforms, np.float64)
    if waveforms.ndim < 1 or not waveforms.size or not np.isfinite(waveforms).all():
        raise BadInput(f"{name} of shape {waveforms.shape}: expected finite samples (..., samples), at least one.")
    # Scaling by the peak first keeps squares of huge or tiny samples from over- or underflowing.
    peak = np.abs(waveforms).max(axis=-1, keepdims=True)
    centred = waveforms / np.where(peak > 0, peak, 1.0)
    centred -= centred.mean(axis=-1, keepdims=True)
    silent = np.abs(centred).max(axis=-1, keepdims=True) <= 1e-12
    return np.where(silent, 0.0, centred / np.where(silent, 1.0, np.linalg.norm(centred, axis=-1, keepdims=True)))


def si_snr(reference, estimate):
    """Scale-invariant signal-to-noise ratio in dB (...,) of waveforms (..., samples); leading axes broadcast.

    Means are removed; the part of the estimate along the reference is signal, the rest noise. Limited to ±100 dB; an
    estimate without anything of the reference has −100, and so has every pair with a silent (constant) reference or
    estimate. Raises `BadInput` for NaN, infinity and shapes that do not fit. Source: Le Roux et al. 2019.
    """
    reference, estimate = _directions("reference", reference), _directions("estimate", estimate)
    leading = zip(reference.shape[-2::-1], estimate.shape[-2::-1], strict=False)
    if reference.shape[-1] != estimate.shape[-1] or any(a != b and 1 not in (a, b) for a, b in leading):
        raise BadInput(f"estimate of shape {estimate.shape}: expected one that fits the reference's {reference.shape}.")
    signal = np.minimum(np.square(np.sum(estimate * reference, axis=-1)), 1.0)  # of an estimate whose energy is one
    with np.errstate(divide="ignore"):
        decibels = 10.0 * (np.log10(signal) - np.log10(1.0 - signal))
    return np.clip(decibels, -SI_SNR_LIMIT, SI_SNR_LIMIT)


def groupings(sources, groups):
    """All ways to part the numbers 0 … sources − 1 into so many groups, none empty: a list of tuples of tuples."""
    if not 0 < groups <= sources:
        return [()] if sources == groups else []  # nothing is in no groups, in one way
    last = sources - 1  # is a group of its own, or joins one
    alone, others = [(*found, (last,)) for found in groupings(last, groups - 1)], groupings(last, groups)
    return alone + [(*found[:i], (*found[i], last), *found[i + 1 :]) for found in others for i in range(groups)]


def fit_channels(references, estimates, mixture):
    """The grouping of sources and the pairing with channels that improve most on the mixture.

    References are (sources, samples), estimates (channels, samples), at least two for several sources, the mixture
    (samples,). Returns a dict of lists, an entry a group: `groups` (which sources are summed), `channels` (which
    channel each group is paired with), `si_snr` of that pair and its `improvement` on the mixture's SI-SNR, both in dB.
    """
    references = numbers("references", references, ("sources", "samples"))
    estimates = numbers("estimates", estimates, ("channels", "samples"))
    mixture = numbers("mixture", mixture, ("samples",))
    samples = (references.shape[1], estimates.shape[1], len(mixture))
    if len(set(samples)) > 1:
        raise BadInput(f"references, estimates and mixture of {samples} samples: expected as many in all three.")
    if len(estimates) < min(2, len(references)):  # all sources in one group are the mixture: nothing to improve
        raise BadInput(f"estimates with {len(estimates)} channels: expected at least 2 for several sources.")
    candidates = groupings(len(references), min(len(references), len(estimates)))
    rows = {group: row for row, group in enumerate(dict.fromkeys(group for found in candidates for group in found))}
    sums = np.stack([references[list(group)].sum(axis=0) for group in rows])
    fits = si_snr(sums[:, None], np.concatenate([mixture[None], estimates])[None])  # (groups, 1 + channels)

    def paired(groups):
        found = fits[[rows[group] for group in groups]]
        gain = found[:, 1:] - found[:, :1]
        order, channels = linear_sum_assignment(gain, maximize=True)
        pairs = {"groups": [list(group) for group in groups], "channels": channels.tolist()}
        return pairs | {"si_snr": found[order, 1 + channels].tolist(), "improvement": gain[order, channels].tolist()}

    return max(map(paired, candidates), key=lambda fit: np.mean(fit["improvement"]))


def si_snr_improvement(references, estimates, mixture):
    """SI-SNR in dB that estimates gain over the mixture: the mean over the groups of `fit_channels`."""
    return float(np.mean(fit_channels(references, estimates, mixture)["improvement"]))


def ideal_ratio_mask(references, mixture):
    """What an oracle hears: in each cell of the mixture's spectrogram each source gets its share of the magnitudes.

    References are (sources, samples), the mixture (samples,); gives (sources, samples). Where events never sound at
    once it is perfect. It is a yardstick, no bound: masks keep the mixture's phase.
    """
    references, mixture = np.asarray(references), np.asarray(mixture)
    if references.ndim != 2 or references.shape[1:] != mixture.shape or len(mixture) < WINDOW:
        shapes = f"references {references.shape}, mixture {mixture.shape}"
        raise BadInput(f"{shapes}: expected (sources, samples) and (samples,), at least {WINDOW} samples.")
    size = dict(nperseg=WINDOW, noverlap=WINDOW - HOP)
    magnitude = np.abs(stft(references, **size)[2])  # (sources, frequencies, frames)
    share = magnitude / (magnitude.sum(axis=0) + 1e-12)
    return istft(share * stft(mixture, **size)[2], **size)[1][:, : len(mixture)]


def _ideal(sources, mixture, channels):
    """`fit_channels` and channels of the ideal mask: of all groupings the one that it separates best."""
    found = []
    for groups in groupings(len(sources), min(len(sources), channels)):
        sums = np.stack([sources[list(group)].sum(axis=0) for group in groups])
        masked = ideal_ratio_mask(sums, mixture)
        found.append((fit_channels(sums, masked, mixture) | {"groups": [list(group) for group in groups]}, masked))
    return max(found, key=lambda fit: np.mean(fit[0]["improvement"]))


def _record(index, scene, fit, channels):
    energy = np.square(channels, dtype=np.float64).sum(axis=-1)
    record = {"scene": index, "events": len(scene.sources), "classes": list(scene.labels)}
    record |= {key: fit[key] for key in ("groups", "channels")}
    one = len(scene.sources) == 1
    record |= {"reconstruction": fit["si_snr"][0]} if one else {"improvement": fit["improvement"]}
    return record | {"shares": (energy / max(energy.sum(), np.finfo(np.float64).tiny)).tolist()}


def _separate(name, separator, mixtures):
    apply = functools.partial(separate, separator) if isinstance(separator, keras.Model) else separator
    channels = keras.ops.convert_to_numpy(apply(mixtures))
    channels = numbers(f"channels of {name}", channels, ("clips", "channels", "samples"))
    if channels.shape[0::2] != mixtures.shape or channels.shape[1] < 2:
        expected = f"({len(mixtures)}, 2 or more, {mixtures.shape[1]})"
        raise BadInput(f"channels of {name} {channels.shape}: expected {expected}.")
    return channels


def evaluate_separation(separators, scenes, most=100):
    """Scores of separators and of the two anchors, "mixture" and "ideal", scene by scene.

    Args:
        separators: dict from name to a model, or to a function of a NumPy array: (clips, samples) to (clips, channels,
            samples), all with the same number of channels. An untrained network among them is the third anchor.
        scenes: `Scenes` that no training has heard.
        most: scenes at most of each number of events, the first ones.

    Returns a dict from name, the anchors first, to a list of records, a dict for each scene that JSON can hold: `scene`
    (its index), `events`, `classes` of its sources, `groups` and `channels` as in `fit_channels`, `shares` of the
    energy of each channel in that of all (0 where all are silent), and, in dB, either the `improvement` of each group,
    or, for a scene of one event, the `reconstruction`: the SI-SNR of the channel that fits it best. The ideal mask has
    a channel for each group.
    """
    if not separators or set(separators) & set(ANCHORS):
        raise BadInput(f"separators {list(separators)}: expected at least one, none called {' or '.join(ANCHORS)}.")
    check_number("most", most, least=1, whole=True)
    numbers_of_events = np.asarray(scenes.number_of_events)
    chosen = np.sort(np.concatenate([np.flatnonzero(numbers_of_events == k)[:most] for k in set(numbers_of_events)]))
    records = {name: [] for name in (*ANCHORS, *separators)}
    for start in progress(range(0, len(chosen), BATCH), "separation", "batch"):
        indices = chosen[start : start + BATCH].tolist()
        batch = [scenes[index] for index in indices]
        mixtures = np.stack([scene.mixture for scene in batch])
        separated = {name: _separate(name, separator, mixtures) for name, separator in separators.items()}
        made = {name: channels.shape[1] for name, channels in separated.items()}
        if len(set(made.values())) > 1:
            raise BadInput(f"channels {made}: expected the same number for all, so that they can be compared.")
        number = max(made.values())
        separated = {"mixture": np.repeat(mixtures[:, None], number, axis=1)} | separated
        for row, (index, scene) in enumerate(zip(indices, batch)):
            for name, channels in separated.items():
                fit = fit_channels(scene.sources, channels[row], scene.mixture)
                records[name].append(_record(index, scene, fit, channels[row]))
            records["ideal"].append(_record(index, scene, *_ideal(scene.sources, scene.mixture, number)))
    return records


def improvements(records, events=2):
    """SI-SNR improvement in dB (scenes,), the mean over a scene's groups, of scenes of so many events, two or more."""
    return np.array([np.mean(record["improvement"]) for record in records if record["events"] == events])


def _statistics(records, values):
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    loudest = float(np.median([max(record["shares"]) for record in records]))
    return {"scenes": len(values), "median": median, "quartiles": [low, high], "loudest_share": loudest}


def summary(records):
    """What `evaluate_separation` found, in few numbers that JSON can hold.

    Returns a dict from name to `reconstruction` (of scenes of one event; None without any), `improvement` (a dict from
    the number of events, "2" or more, of each scene's mean) and `classes` (label → `sources`, how many, and their
    `median` improvement, of scenes of two events). The first two are dicts: `scenes` (how many), `median` and
    `quartiles` in dB, `loudest_share` (median share of the energy in the loudest channel), and, for improvements,
    `improved`, the share of scenes above 0 dB.
    """
    found = {}
    for name, every in records.items():
        by_number = {k: [r for r in every if r["events"] == k] for k in sorted({r["events"] for r in every})}
        single, classes, improvement = by_number.pop(1, []), {}, {}
        for events, some in by_number.items():
            values = improvements(some, events)
            improved = float(np.mean(values > 1e-6))  # rounding alone must not improve a scene
            improvement[str(events)] = _statistics(some, values) | {"improved": improved}
        for record in by_number.get(2, []):
            for (source,), value in zip(record["groups"], record["improvement"]):
                classes.setdefault(record["classes"][source], []).append(value)
        found[name] = {
            "reconstruction": _statistics(single, [r["reconstruction"] for r in single]) if single else None,
            "improvement": improvement,
            "classes": {k: {"sources": len(v), "median": float(np.median(v))} for k, v in sorted(classes.items())},
        }
    return found
