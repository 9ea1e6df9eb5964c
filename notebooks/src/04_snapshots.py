# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Snapshots

# %% [markdown]
# | | |
# |---|---|
# | **you will** | hear and measure four moments in the life of one separator: untrained, just begun, on its way, finished |
# | **you need** | what a mask and mixture consistency are (notebook 02), and how the separator was trained (notebook 03) |
# | **you make** | nothing new to keep: you get to know N, F, S1 and S2, the four *processors* of the paper |
# | **time** | under a minute on a CPU (tiny) once the separator is trained; on a GPU: not measured yet |

# %% tags=["parameters"]
import os

PROFILE = os.environ.get("SEPCL_PROFILE", "tiny")
DATA = os.environ.get("SEPCL_DATA", "made")
SEED = os.environ.get("SEPCL_SEED", "0")
OUT = os.environ.get("SEPCL_OUT")

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile
from keras import ops

from sepcl_keras.course import notebook
from sepcl_keras import separate_file
from sepcl_keras.views.log_mel import LogMel
from sepcl_keras.views.stored import QUIET
from sepcl_keras.separation.separate import separate
from sepcl_keras.separation.metrics import improvements, si_snr_improvement, summary
from sepcl_keras.course.slides import read_rows

course = notebook.setup(PROFILE, DATA, SEED, OUT)
verdicts = {}  # claims about sounds and training: whether they hold in this run

# %% [markdown]
# ## Four moments of one run
#
# A **snapshot** is the network as it stood at one step of its training, with its weights frozen from then on. The
# paper keeps four of *one* run and calls them processors: **N** (no training), **F** (a few steps), **S1** and **S2**
# (some and many steps). Ours are of notebook 03's run; where there is none, they come with the library, or, with other
# settings than its, are trained here first, which takes minutes and is then kept.

# %%
snapshots, _ = course.snapshots()  # name -> TDCNPlusPlus
NAMES = tuple(snapshots)

# %% [markdown]
# Our run is far shorter than the paper's, so the names stand for *stages*, not for step counts. The last two columns
# say why anyone should keep an untrained network: the slides' mAP (mean average precision, higher is better) when the
# views for contrastive learning come from that snapshot alone.
#
# **Question.** Before you look at those columns: which snapshot would you expect to make the most useful views?

# %%
PAPER_STEPS = {"N": 0, "F": 500, "S1": 5_000, "S2": 1_700_000}  # slides, Table 4
steps, rows = course.profile.snapshot_steps, read_rows()
notebook.table(
    [{"name": name, "ours": f"{steps[name]:,}", "paper": f"{PAPER_STEPS[name]:,}",
      "similarity": rows[name].slides, "joint": rows[f"{name} joint"].slides} for name in NAMES],
    {"name": "snapshot", "ours": "our step", "paper": "the paper's step",
     "similarity": "slides: mAP, similarity loss", "joint": "slides: mAP, both losses"},
)  # fmt: skip

# %% [markdown]
# S2 separates best, so S2 seems a safe bet. The table disagrees: N alone is at least as good. Why that can be is the
# subject of this notebook's second half.
#
# ## A law that no snapshot breaks
#
# We let each snapshot separate the first test scenes; neither these scenes nor their recordings were part of any
# training. Mixture consistency is a layer, not something learned. So even the untrained network's channels must sum
# to the mixture.

# %%
test, rate = course.mixed["test"], course.profile.sample_rate
scenes = [test[i] for i in range(min(len(test), 48))]
mixtures = np.stack([scene.mixture for scene in scenes])  # (clips, samples)
separated = {name: separate(separator, mixtures) for name, separator in snapshots.items()}  # (clips, sources, samples)
print("channels (clips, sources, samples):", separated["N"].shape)
for name in NAMES:
    difference = float(np.abs(separated[name].sum(axis=1) - mixtures).max())
    assert difference < 1e-5 * max(1.0, float(np.abs(mixtures).max())), (
        f"the channels of {name} do not sum to the mixture"
    )
    print(f"{name:<3} largest |sum of channels − mixture| = {difference:.1e}")

# %% [markdown]
# ## One scene, four snapshots
#
# Among these scenes we choose one with two events that are easy to tell apart: their shapes in the spectrogram overlap
# least. Notebooks 02 and 03 use the same scene.

# %%
pairs = np.flatnonzero(test.number_of_events[: len(scenes)] == 2)
chosen = min(pairs, key=lambda i: notebook.overlap(scenes[i]))
scene, channels = scenes[chosen], {name: found[chosen] for name, found in separated.items()}  # (sources, samples) each
print(f"{scene.place}: {' and '.join(scene.labels)}")

# %% [markdown]
# All pictures below share one colour scale and all players **one gain**. That matters: players that make each sound
# equally loud would hide that a channel is half silent.
#
# **Question.** Which snapshot comes closest to the two true sources? Which channels are hard to tell from the mixture?

# %%
sounds = {"mixture": scene.mixture}
sounds |= {f"true: {label}": source for label, source in zip(scene.labels, scene.sources, strict=True)}
sounds["sum of S2's channels"] = channels["S2"].sum(axis=0)
sounds |= {f"{name}, channel {m + 1}": channels[name][m] for name in NAMES for m in range(2)}
notebook.listen(sounds, rate, columns=4,
                alt="From N to S2 the two channels grow apart: look for the snapshot at which a shape leaves one of them.")  # fmt: skip

# %% [markdown]
# S2's channels should be nearest to the sources, and N's are hard to tell from the mixture. The order of the channels means nothing: MixIT never told the network which event goes where, so channel 1 may hold
# either event.
#
# ## How well do they separate?
#
# **SI-SNR**, the scale-invariant signal-to-noise ratio, says in dB how much of an estimate lies along the true
# source, whatever its volume. Its **improvement** is what the channel gains over simply handing out the mixture. Zero
# is easy to read: that is what you get from *the mixture as every channel*. The metric pairs channels and sources in the
# way that scores best.
#
# **Question.** Where will N lie: above zero, at zero or below? Remember that an untrained network also *distorts*.


# %%
def boxes(axis, values, ylabel):
    """A box and one dot a value for each snapshot; `values`: name -> (n,)."""
    axis.boxplot(list(values.values()), positions=range(len(values)), widths=0.5, showfliers=False,
                 medianprops={"color": "0.1", "linewidth": 2}, boxprops={"color": "0.5"})  # fmt: skip
    for place, (found, colour) in enumerate(zip(values.values(), notebook.COLOURS)):
        jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(found))  # so that dots do not hide each other
        axis.plot(place + jitter, found, ".", color=colour, alpha=0.5, markersize=5)
    axis.set_xticks(range(len(values)), [f"{name}\nstep {steps[name]}" for name in values])
    axis.set_ylabel(ylabel)


# %% [markdown]
# The scores are on at most 100 test scenes of each number of events. What notebook 03 has scored is not scored again.

# %%
known = course.results("03") or {}  # nothing, where it has not run with these settings
done = {name: np.array(values) for name, values in known.get("improvements", {}).items()}
records = course.separation({name: snapshots[name] for name in NAMES if name not in done})
scored = done | {name: improvements(found) for name, found in records.items()}  # of two events: (scenes,) in dB
numbers = known.get("separation", {}) | summary(records)  # of all numbers of events
improvement = {name: scored[name] for name in NAMES}

# %%
figure, axis = plt.subplots(figsize=(6.5, 3.4))
boxes(axis, improvement, "SI-SNR improvement in dB")
axis.axhline(0, color="0.4", linestyle="--", linewidth=1, label="the mixture as every channel")
axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
notebook.show(
    "From snapshot to snapshot the boxes rise and grow longer: some scenes gain, others lose. A dot is a scene."
)
for name, found in improvement.items():
    print(f"{name:<3} median {np.median(found):+.2f} dB over {len(found)} two-event test scenes, "
          f"{np.mean(found > 0):.0%} of them improved")  # fmt: skip

# %% [markdown]
# N lies below zero: it takes nothing apart and adds distortion. Now the same for every number of events, beside two
# baselines: the mixture as every channel, and an oracle's mask that knows the true sources (notebook 03). One event cannot
# improve on the mixture; there the number says how well *one* channel alone gives the event back. Three events share two
# channels as suits best: compare down a column, not across. In the column of one event S2 may fall behind S1: a trained
# separator splits single sounds, too (over-separation, notebook 03, section 9).

# %%
medians = []
for name in ("mixture", *NAMES, "ideal"):
    found = numbers[name]
    row = {events: f"{values['median']:+.1f}" for events, values in found["improvement"].items()}
    medians.append({"what": name, "1": f"{found['reconstruction']['median']:.1f}"} | row)
columns = {"what": "median in dB", "1": "one event: SI-SNR of the best channel"}
columns |= {events: f"{events} events: improvement" for events in numbers["S2"]["improvement"]}
notebook.table(medians, columns)

# %% [markdown]
# Read the spread before the median: scenes differ. Minutes of training cannot do what 1.7 million steps do, and
# events that overlap in time *and* pitch stay together. For what follows this matters less than you may think: a
# *view* need not be a clean source. It must differ from the mixture and still tell what was in it.
#
# ## How do the channels share the sound?
#
# Three measurements on the same test scenes, of any number of events:
#
# 1. **level balance**: by how many dB the louder channel exceeds the quieter one;
# 2. **correlation** of each channel's waveform with the mixture's: 1 means a scaled copy, nothing more;
# 3. **log-mel distance**: the mean absolute difference between the spectrograms of channel and mixture, in the
#    picture that the encoder will see, *after* a constant difference (a mere change of volume) is taken out.

# %%
layer = LogMel()


def log_mel(waveforms):
    """(clips, samples) -> (clips, frames, mels)"""
    return np.asarray(layer(np.float32(waveforms)))


def decibels(waveforms):
    """Energy (...,) of waveforms (..., samples) in dB."""
    return 10 * np.log10(np.square(waveforms).sum(axis=-1) + 1e-12)


# %%
level, correlation, distance = {}, {}, {}
mixture_mel = log_mel(mixtures)
for name, found in separated.items():
    level[name] = decibels(found) - decibels(mixtures)[:, None]  # (clips, sources)
    cosine = (found * mixtures[:, None]).sum(axis=-1) / np.linalg.norm(found, axis=-1)
    correlation[name] = (cosine / np.linalg.norm(mixtures, axis=-1)[:, None]).ravel()  # waveforms have mean 0
    difference = np.stack([log_mel(found[:, m]) - mixture_mel for m in range(2)], axis=1)
    difference -= difference.mean(axis=(2, 3), keepdims=True)  # volume out
    distance[name] = np.abs(difference).mean(axis=(2, 3)).ravel()  # (clips × sources,)
balance = {name: np.abs(found[:, 0] - found[:, 1]) for name, found in level.items()}  # (clips,) in dB

# %% [markdown]
# **Question.** For a network whose masks know nothing yet, what do you expect: balanced or unbalanced channels? Close
# to the mixture or far from it?

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4))
boxes(axes[0], balance, "louder − quieter channel, dB")
boxes(axes[1], correlation, "correlation with the mixture")
boxes(axes[2], distance, "log-mel distance to the mixture")
notebook.show("""N's channels share the sound evenly and stay close to the mixture; with training the shares grow uneven, and channels
move away from the mixture.""")
quiet = {name: float(np.mean(found < QUIET)) for name, found in level.items()}
print(f"channels more than {-QUIET:.0f} dB under their mixture:", {name: f"{q:.0%}" for name, q in quiet.items()})

# %% [markdown]
# Balanced and close: masks that know nothing treat both channels alike. Training undoes both. Two failures would show
# here. If correlations sit at 1 and distances at 0, the channels are copies, and "mixture
# against channel" is "mixture against mixture" under another name. If one channel is far below the other, the sound
# has not been shared out at all: one channel holds the scene and the other next to nothing, and a nearly silent view
# teaches little.
#
# ## Why the untrained network answers with the mixture
#
# N is not noise, and not silence either. Look at its last layer. With raw sources $s_m$, weights $w_m$ that sum to
# one, and $k$ the *other* channel, mixture consistency gives
#
# $$\text{output}_m = s_m + w_m\,(x - s_m - s_k) = \underbrace{w_m\,x}_{\text{the mixture, quieter}} + \underbrace{(1 - w_m)\,s_m - w_m\,s_k}_{\text{what the network adds}}.$$
#
# Whatever the network does not explain is handed back as mixture. We run the separator by hand up to that point.


# %%
def before_consistency(separator, waveforms):
    """Raw sources (clips, sources, samples) and weights (clips, sources)."""
    x = ops.convert_to_tensor(waveforms)
    coefficients = separator.encoder(separator.frame(x))  # (clips, frames, basis)
    y = separator.initial(coefficients)
    for block in separator.blocks:
        y = block(y)
    masks = ops.reshape(separator.masks(y), (*coefficients.shape[:2], -1, coefficients.shape[2]))
    masked = ops.transpose(masks * coefficients[:, :, None], (0, 2, 1, 3))  # (clips, sources, frames, basis)
    sources = separator.overlap_add(separator.decoder(masked), waveforms.shape[-1])
    weights = ops.softmax(separator.weighting(ops.mean(y, axis=1)))
    return ops.convert_to_numpy(sources), ops.convert_to_numpy(weights)


# %%
some = mixtures[:8]
for name, separator in snapshots.items():
    raw, w = before_consistency(separator, some)
    w = w[:, :, None]  # (clips, sources, 1)
    quieter = w * some[:, None]  # w_m x
    added = (1 - w) * raw - w * raw[:, ::-1]  # the other channel is the same array, backwards
    assert np.allclose(quieter + added, separated[name][:8], atol=1e-3), f"the formula does not give {name}'s output"
    against = decibels(added) - decibels(quieter)
    print(f"{name:<3} weights {w.min():.2f} … {w.max():.2f}; what is added: {np.median(against):+.1f} dB beside w·x")

# %% [markdown]
# The formula holds for every snapshot; the check above compares it with the network's real output. For N the weights
# come from random numbers through a softmax, so neither channel can claim all of the mixture. Its raw sources are the
# mixture too, under masks that come from random numbers: each time and frequency is kept to some degree, for no
# reason. Together: **a quieter copy of the mixture, with random colouring**. How good a copy? The claim is that N still
# resembles the mixture: a correlation above 0.5.

# %%
gain = {name: (found * mixtures[:, None]).sum(axis=-1) / np.square(mixtures).sum(axis=-1)[:, None]
        for name, found in separated.items()}  # the best g in channel ≈ g · mixture, (clips, sources)  # fmt: skip
for name in NAMES:
    copy = np.median(np.square(correlation[name]))
    print(f"{name:<3} gain {np.median(gain[name]):.2f}; that copy explains {copy:.0%} of a channel's energy (medians)")
alike = float(np.median(correlation["N"]))
notebook.verdict(verdicts, "the channels of N resemble the mixture", alike > 0.5, f"median correlation {alike:.2f}")

# %% [markdown]
# (The gain is 0.50 for all, because the two gains of a scene must sum to one. Look at the share that the copy explains.)
#
# Where that holds, N, which costs nothing to train, is a random colouring that knows nothing of sounds: an
# *augmentation*. (Where it does not, what the network adds is louder than what is left of the mixture.) A
# trained separator, in contrast, treats each scene by what it hears there. In the slides N alone is at least as good as S2 alone,
# and both **together** (one of them drawn at random for each pair, "S2 or N", written S2∨N) are better than either:

# %%
both = ("N", "S2", "S2∨N")
notebook.table(
    [{"views": name, "similarity": rows[name].slides, "joint": rows[f"{name} joint"].slides} for name in both],
    {"views": "views by", "similarity": "slides: mAP, similarity loss", "joint": "slides: mAP, both losses"},
)

# %% [markdown]
# ## Your own recording
#
# Test scenes are short and all alike in length; a recording of yours may last for hours. `separate_file` takes a file
# of **any length**: it separates overlapping pieces one after the other, fades from each piece to the next, keeps the
# channels in order, and writes a file for each channel. Here three test scenes, one after another, stand for it.
#
# **Question.** It works on two pieces of 10 s that overlap. You will hear where one *scene* ends. Will you also hear where one
# *piece* gives way to the next?

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "recording.wav"
    soundfile.write(path, mixtures[:3].ravel(), rate, subtype="FLOAT")  # any wav, ogg, flac or mp3 file of yours
    pieces = dict(piece_seconds=2 * course.profile.clip_seconds, overlap=0.2)
    outputs = separate_file(path, folder, snapshots["S2"], rate, **pieces, show=False)
    print([output.name for output in outputs])
    sounds = {output.stem: soundfile.read(output, dtype="float32")[0] for output in (path, *outputs)}  # (samples,)
parts = np.array([sounds[output.stem] for output in outputs])  # (channels, samples)
assert np.abs(parts.sum(axis=0) - sounds["recording"]).max() < 1e-4, "they still sum to the file"
notebook.listen(sounds, rate, alt="The file and its two channels: no edge stands where pieces meet.")

# %% [markdown]
# You should not: each piece fades into the next, and the channels of the overlap decide which is which. To separate a file of your own, give its path in place of `path`, and a folder that is not temporary. The pieces are 20 s
# long by default. Expect no more than this separator has learned: it knows the sounds it was trained on.

# %%
course.record(
    "04",
    steps={name: int(steps[name]) for name in NAMES},
    si_snr_improvement={name: float(np.median(found)) for name, found in improvement.items()},
    share_improved={name: float(np.mean(found > 0)) for name, found in improvement.items()},
    level_balance={name: float(np.median(found)) for name, found in balance.items()},
    quiet_share=quiet,
    correlation_with_mixture={name: float(np.median(found)) for name, found in correlation.items()},
    log_mel_distance={name: float(np.median(found)) for name, found in distance.items()},
    verdicts=verdicts,
)

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | one run, four processors | steps 0, 500, 5 k, 1.7 M | `profile.snapshot_steps`, `course.snapshots()` |
# | two channels a scene | M = 2, "more practical than 4" | `TDCNPlusPlus(num_sources=2)` |
# | channels sum to the mixture | mixture consistency, learned weights | `mixture_consistency` |
# | quality of separation | not on the slides | `course.separation()`, SI-SNR improvement |
# | recordings of any length | not on the slides | `separate_file`: overlapping pieces |
# | an untrained separator as augmentation | N: no worse than S2 alone; all weights random | N: cosine basis (notebook 02), all else random |

# %% [markdown]
# ## Exercises
#
# **1.** What is the SI-SNR improvement of the crudest separator of all, half of the mixture in each channel? And of
# the perfect one, the true sources themselves? Predict both for the scene above.

# %% tags=["your turn"]
# your turn: write down two numbers in dB, then try `si_snr_improvement(scene.sources, estimates, scene.mixture)`

# %% tags=["solution"]
halves = np.stack([scene.mixture / 2, scene.mixture / 2])
for title, estimates in {"halves": halves, "perfect": scene.sources}.items():
    print(f"{title:<8}{si_snr_improvement(scene.sources, estimates, scene.mixture):+.2f} dB")
# Scale does not count, so a half is as good as the mixture. A perfect estimate would be infinitely good: the metric
# stops at 100 dB, less what the mixture had.

# %% [markdown]
# **2.** A scene with a *single* event needs no separation. Should the two channels then be balanced or not? Compare
# the level balance of S2 on test scenes of one and of two events.

# %% tags=["your turn"]
# your turn: `balance["S2"]` is (clips,), and `test.number_of_events[: len(mixtures)]` says how many events each has

# %% tags=["solution"]
events = test.number_of_events[: len(mixtures)]
for number in (1, 2):
    if (events == number).any():
        print(f"{number} event(s): median balance {np.median(balance['S2'][events == number]):.1f} dB")
# A good separator leaves one channel nearly silent when there is one event, and shares two events out.

# %% [markdown]
# **3.** Are N's two channels different views of each other? Correlate channel 1 with channel 2, for N and for S2.

# %% tags=["your turn"]
# your turn: `separated["N"]` is (clips, sources, samples)

# %% tags=["solution"]
for name in ("N", "S2"):
    a, b = separated[name][:, 0], separated[name][:, 1]
    r = (a * b).sum(axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    print(f"{name:<3} median correlation between the channels {np.median(r):.2f}")
# Perfectly separated events of different recordings would have a correlation near 0.

# %% [markdown]
# **4. Build it.** `separate_file` joins pieces that overlap. Write that part: give each piece a straight fade in and out
# over the samples it shares with its neighbours, and add. The check asks that pieces of one sound give that sound again.


# %% tags=["your turn"]
def join(pieces, shared):
    """Pieces (pieces, samples), each of which shares `shared` samples with the next, as one waveform."""
    # your turn: this one only puts them one after the other
    return np.concatenate(list(pieces))


# %%
def check_join(join):
    wave, length, shared = mixtures[0], 4_000, 1_000
    starts = range(0, len(wave) - length + 1, length - shared)
    pieces = np.stack([wave[start : start + length] for start in starts])
    joined, expected = np.asarray(join(pieces, shared)), wave[: starts[-1] + length]
    if joined.shape != expected.shape:
        return print(f"not yet: expected {len(expected):,} samples, found {len(joined):,}")
    far = np.abs(joined - expected).max()
    print("right: the sound is whole" if far < 1e-5 else f"not yet: off by {far:.3f}; do the two fades add to one?")


check_join(join)


# %% tags=["solution"]
def join(pieces, shared):
    step = pieces.shape[1] - shared
    whole = np.zeros((len(pieces) - 1) * step + pieces.shape[1], "float32")
    up = (np.arange(shared) + 0.5) / shared  # with its mirror image it adds to one
    for k, piece in enumerate(pieces):
        faded = piece.copy()
        if k > 0:
            faded[:shared] *= up
        if k < len(pieces) - 1:
            faded[-shared:] *= up[::-1]
        whole[k * step : k * step + len(piece)] += faded
    return whole


check_join(join)

# %% [markdown]
# ## What to read next
#
# * Wisdom et al. 2020, *Unsupervised sound separation using mixture invariant training*: the loss behind all
#   snapshots.
# * Tian et al. 2020, *What makes for good views for contrastive learning?*: why a view should share little but the
#   right thing.
# * Le Roux et al. 2019, *SDR – half-baked or well done?*: where SI-SNR is from and what it hides.
#
# Next: [05 · Views](05_views.ipynb), where channels become training pairs.
