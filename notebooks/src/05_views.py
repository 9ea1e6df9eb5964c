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
# # 05 · Views

# %% [markdown]
# | | |
# |---|---|
# | **you will** | store what four snapshots make of every scene, draw pairs from it, see and hear a pair, mask and warp it, and measure how different two views are |
# | **you need** | notebooks 01 and 04 help; everything missing is made here |
# | **you make** | the views: log-mel spectrograms of all mixtures and channels, from which the encoder will be trained |
# | **time** | about a minute and a half on a CPU (tiny), most of it for the views; on a GPU: not measured yet |

# %% tags=["parameters"]
import os

PROFILE = os.environ.get("SEPCL_PROFILE", "tiny")
DATA = os.environ.get("SEPCL_DATA", "made")
SEED = os.environ.get("SEPCL_SEED", "0")
OUT = os.environ.get("SEPCL_OUT")

# %%
import matplotlib.pyplot as plt
import numpy as np

from sepcl_keras.course import notebook
from sepcl_keras.views.augmentation import SpecAugment
from sepcl_keras.views.log_mel import HOP, PATCH_FRAMES, PATCH_SAMPLES, LogMel
from sepcl_keras.views.stored import QUIET
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.separation.separate import separate
from sepcl_keras.course.slides import MAIN_ROW, read_rows

course = notebook.setup(PROFILE, DATA, SEED, OUT)

# %% [markdown]
# ## What a view is
#
# Contrastive learning compares. It needs two **views** of one thing: different on the surface, alike in meaning. A network
# then has to find out that they belong together. For pictures, the views are crops and changed colours, tuned by hand.
# The paper's proposal for sound is to let the **separator** make them. A scene (the *mixture*) and one of its separated
# *channels* share sounds, yet they differ; and how they differ depends on the scene, not on a dial.
#
# A **snapshot** is the separator as it was at one moment of its training: N is untrained, F barely trained, S1 further
# on, S2 the last. A snapshot that makes views is called a **processor**. Each has two output channels. So a scene has nine
# views: the mixture, and four times two channels.
#
# A snapshot never changes again. So each scene is separated **once**, as a whole, and the log-mel spectrograms go to
# disk. If you run this notebook first, the next cell also gets the separator.

# %%
views = course.views()
clips, per_clip, frames, mels = views.log_mel.shape
print("log_mel (clips, views, frames, mels):", views.log_mel.shape, views.log_mel.dtype, type(views.log_mel).__name__)
print("level   (clips, views), dB relative to the mixture:", views.level.shape, views.level.dtype)

# %% [markdown]
# The type is `memmap`: a **memory map** is a file that behaves like an array. Nothing is read until somebody asks for a
# slice, and then only that slice. The numbers are `float16`, half the bytes of `float32`; the rounding is far smaller
# than any difference between two sounds that matters here.
#
# **Question.** How many bytes does a batch need from disk? How many bytes would it take to keep the same views as
# waveforms in `float32`?

# %%
batch_size = course.profile.batch_size
patch_bytes = PATCH_FRAMES * mels * views.log_mel.itemsize
waveform_bytes = clips * per_clip * course.profile.clip_samples * 4
print(f"all views as log-mel, float16   {views.log_mel.nbytes / 1e6:9.1f} MB")
print(f"all views as waveforms, float32 {waveform_bytes / 1e6:9.1f} MB")
print(f"one batch: 2 × {batch_size} patches      {2 * batch_size * patch_bytes / 1e6:9.1f} MB")

# %% [markdown]
# A batch is a small part of the file, and as log-mel all views take a fifth of what their waveforms would take.
#
# View 0 is the mixture; then come the channels, processor by processor. `level` says how much energy a channel has,
# in decibels relative to its mixture: 0 dB is as much energy, −10 dB a tenth, −20 dB a hundredth.
#
# Here are all nine views of one scene. We take, among the first hundred scenes with two events, the one whose S2 channels
# differ most from each other, so that there is something to see.


# %%
def name_of(column):
    """The view in words: which processor, which of its channels."""
    if column == 0:
        return "mixture"
    processor, source = divmod(int(column) - 1, views.num_sources)
    return f"{views.processors[processor]} channel {source + 1}"


# %%
train = course.scenes["train"]
several = np.flatnonzero(train.number_of_events == min(2, train.number_of_events.max()))[:100]
one, two = (views.log_mel[several, column].astype("float32") for column in views.columns(("S2",))[:2])
index = int(several[np.abs(one - two).mean(axis=(1, 2)).argmax()])  # the scene whose S2 channels differ most
print("scene", index, "holds", ", ".join(train[index].labels) or f"what nobody named: {train[index].place}")
notebook.show_log_mel({"mixture": views.log_mel[index, 0]}, alt="The mixture: both sounds of the scene in one picture.")

# %%
columns = np.stack([views.columns((p,)) for p in views.processors], axis=1)  # (channels, processors)
panels = {f"{name_of(c)} ({views.level[index, c]:.1f} dB)": views.log_mel[index, c] for c in columns.ravel()}
see = "From left to right training goes on: both channels of N look like the mixture, those of S2 share less."
notebook.show_log_mel(panels, columns=len(views.processors), alt=see)

# %% [markdown]
# Go from left to right. The untrained network, N, filters the whole scene in an arbitrary way, and so does F, nearly.
# Training teaches the network what goes where. Notebook 04 lets you hear all four. For *views* even N may do: it changes
# the scene without changing what it is about.
#
# ## Pairs
#
# `ViewPairs` draws the batches. For each scene of a batch it draws two views and, for each of them, a **patch** of 96
# frames (about a second). There are three ways to pair:
#
# | pairing | first view | second view |
# |---|---|---|
# | mix-mix | mixture | mixture |
# | mix-chan | mixture | a channel |
# | chan-chan | a channel | a channel |
#
# Which channel? The **OR rule**: the processor is drawn anew for every scene and step, with equal odds among those
# listed; then one of its two channels is drawn. Listed here are the processors of the paper's best system.

# %%
row = read_rows()[MAIN_ROW]
print(f"{MAIN_ROW}: pairing {row.pairing}, processors {row.processors}")
number = min(batch_size, clips)
pairs = {p: ViewPairs(views, p, row.processors, number, seed=course.seed) for p in ("mix-mix", "mix-chan", "chan-chan")}
((first, second),) = pairs["mix-chan"][0]  # the batch of step 0
print("first views (pairs, frames, mels):", first.shape, "· second views:", second.shape, first.dtype)

# %% [markdown]
# Two pairs of each kind, as the encoder will get them (before masking), the loudest of the batch: *a* is the first view of a
# pair, *b* the second. The title gives the view and the second at which its patch begins.
#
# **Question.** Could *you* tell which *b* belongs to which *a*?

# %%
shown = {}
for pairing, dataset in pairs.items():
    drawn, columns, starts = dataset.draw(0)  # (pairs,), (2, pairs), (2, pairs)
    loud = np.minimum(*(part.mean(axis=(1, 2)) for part in dataset[0][0]))  # in both views
    for k, pair in enumerate(np.argsort(-loud)[:2]):
        for view in range(2):
            start = starts[view, pair]
            title = f"{pairing} {k + 1}{'ab'[view]}\n{name_of(columns[view, pair])} at {start / 100:.2f} s"
            shown[title] = views.log_mel[drawn[pair], columns[view, pair], start : start + PATCH_FRAMES]
see = (
    "Six pairs. Compare the seconds in the titles: some pairs share a moment, most do not; the texture is often alike."
)
notebook.show_log_mel(shown, columns=4, alt=see)

# %% [markdown]
# With these one mostly can, by texture. Other pairs of the batch are harder: a patch may have fallen into a pause.
#
# ## Hear a pair
#
# The disk holds spectrograms, and those cannot be played. But we know what they were made from: the scene and the
# snapshot. So we separate this one scene again and cut both waveforms where the pair was cut. A frame begins every 160
# samples (the **hop**), so frame *f* begins at sample 160·*f*, and 96 frames of 400 samples reach over
# 95 · 160 + 400 = 15,600 samples.
#
# We take a hard pair: an S2 channel, cut more than a second and a half before or after the mixture, if the batch has one,
# and the loudest such pair.

# %%
snapshots = course.snapshots()[0]
drawn, columns, starts = pairs["mix-chan"].draw(0)
hard = 2 * (abs(starts[0] - starts[1]) > 150) + np.isin(columns[1], views.columns(("S2",)))  # 150 frames: 1.5 s
loud = np.minimum(first.mean(axis=(1, 2)), second.mean(axis=(1, 2)))  # in both views
pair = max(range(number), key=lambda i: (hard[i], loud[i]))
clip, column = int(drawn[pair]), int(columns[1, pair])
processor, source = divmod(column - 1, views.num_sources)
scene = train[clip]
channels = separate(snapshots[views.processors[processor]], scene.mixture[None])[0]  # (sources, samples)
assert np.abs(channels.sum(axis=0) - scene.mixture).max() < 1e-4, "the channels do not sum to the mixture"
print(f"scene {clip}: {', '.join(scene.labels) or scene.place}; the channel is {name_of(column)}")

# %%
begin = starts[:, pair] * HOP  # samples, one for each view
crops = {
    f"mixture at {begin[0] / 16_000:.2f} s": scene.mixture[begin[0] : begin[0] + PATCH_SAMPLES],
    f"{name_of(column)} at {begin[1] / 16_000:.2f} s": channels[source, begin[1] : begin[1] + PATCH_SAMPLES],
}
notebook.players({"the whole mixture": scene.mixture, f"the whole {name_of(column)}": channels[source]})
notebook.listen(crops, alt="The two patches of one pair: other moments, another balance of the sounds, the same scene.")

# %% [markdown]
# The two whole sounds share one gain, and so do the two short ones. The short ones are a **positive pair**: the encoder
# will be asked to place them near each other, nearer than any other patch of the batch. Not every pair is as hard: some
# come from the same moment, and some from N, whose channels sound nearly like the mixture.
#
# Is what you heard what the encoder gets? The log-mel of the short waveforms must be the stored patches, up to the
# rounding to `float16`.

# %%
log_mel = LogMel()
largest = 0.0
for waveform, patch in zip(crops.values(), (first[pair], second[pair]), strict=True):
    again = np.asarray(log_mel(waveform[None].astype("float32")))[0]
    assert again.shape == patch.shape, "the crop is not one patch"
    largest = max(largest, float(np.abs(again - patch).max()))
assert largest < 0.02, "the sound and the stored patch are not the same"
print(f"largest difference between heard and stored: {largest:.4f} (float16 rounds by up to {2**-9:.4f} below 8)")

# %% [markdown]
# ## Temporal proximity
#
# The two patches of a pair begin at **independent** moments of the scene, each equally likely. Sounds that are heard
# within a few seconds mostly belong together, even if they are not heard at once. So an encoder that finds the two
# patches alike must have noticed something that *lasts*. The paper takes this idea from earlier work of its group (Jansen
# et al. 2018).
#
# Here is the pair in its scene: a white box for each view.

# %%
figure, axes = plt.subplots(2, 1, figsize=(9, 3.6), sharex=True)
for axis, view, start in zip(axes, (0, column), starts[:, pair], strict=True):
    axis.imshow(views.log_mel[clip, view].astype("float32").T, origin="lower", aspect="auto", cmap="magma",
                vmin=-4.6, vmax=4, extent=(0, frames * 0.01, 0, mels))  # fmt: skip
    axis.axvspan(start * 0.01, (start + PATCH_FRAMES) * 0.01, fill=False, edgecolor="white", linewidth=2)
    axis.set(title=name_of(view))
    notebook.mel_axis(axis)
axes[-1].set_xlabel("time in s")
notebook.show("The mixture above, the channel below: the white boxes, one for each view, lie at different moments.")

# %% [markdown]
# **Question.** How often do the two patches of a pair overlap in time? (A patch is 96 frames; there are
# `frames − 95` places to begin.)

# %%
steps = -(-1000 // number)
draws = [pairs["mix-chan"].draw(step) for step in range(steps)]
all_columns = np.concatenate([c for _, c, _ in draws], axis=1)[:, :1000]  # (2, 1000)
all_starts = np.concatenate([s for _, _, s in draws], axis=1)[:, :1000]
distance = np.abs(all_starts[0] - all_starts[1])
places = frames - PATCH_FRAMES + 1
expected = np.where(np.arange(places) == 0, 1, 2) * (places - np.arange(places)) / places**2  # of each distance
overlap = float(np.mean(distance < PATCH_FRAMES))
print(f"overlapping pairs: {overlap:.1%} of 1000 drawn, {expected[:PATCH_FRAMES].sum():.1%} expected")
print(f"time between two patches: {distance.mean() / 100:.2f} s on average, {distance.max() / 100:.2f} s at most")

# %% [markdown]
# Not a few overlap: "independent" does not mean "far apart", and a scene of 5 s has little room. So timing still
# gives some pairs away.
#
# ## The OR rule, counted
#
# **Question.** Three processors with two channels each, a thousand draws: how many do you expect for each processor?
# And what would change if S2 alone were listed?

# %%
assert (all_columns[0] == 0).all(), "the first view of mix-chan must be the mixture"
counts = {p: int(np.isin(all_columns[1], views.columns((p,))).sum()) for p in views.processors}
odds = 1 / len(row.processors)
spread = np.sqrt(1000 * odds * (1 - odds))
for name, count in counts.items():
    wanted = 1000 * odds if name in row.processors else 0
    assert abs(count - wanted) <= (5 * spread if wanted else 0), f"the OR rule does not draw {name} as it should"
    print(
        f"{name:>3}: {count:4d} of 1000, expected {wanted:6.1f}" + (f" ± {spread:.1f}" if wanted else " (not listed)")
    )

# %% [markdown]
# A third each. With S2 alone each scene would have two channels to draw from; with three processors it has six, and
# they differ in *kind*. That diversity is what the paper's best rows have in common.
#
# ## Reading without surprises
#
# With the same settings, what is drawn depends on the seed and the step alone, not on what was drawn before. So a run
# could stop and resume at any step, and two runs of one seed see the same batches.

# %%
again = ViewPairs(views, "mix-chan", row.processors, number, seed=course.seed)
other = ViewPairs(views, "mix-chan", row.processors, number, seed=course.seed + 1)
same = [np.array_equal(a, b) for a, b in zip(again.draw(7), pairs["mix-chan"].draw(7), strict=True)]
different = [np.array_equal(a, b) for a, b in zip(other.draw(7), pairs["mix-chan"].draw(7), strict=True)]
assert all(same) and not all(different), "a draw must depend on seed and step alone"
assert len(set(drawn.tolist())) == len(drawn), "a clip must not meet itself as a negative"
print("step 7 again:", same, "· with another seed:", different)

# %% [markdown]
# The second `assert` matters too: within a batch no scene appears twice, else a scene would be its own negative.
#
# ## SpecAugment, step by step
#
# Cropping and separating are not all. While training, each patch also goes through **SpecAugment**, which damages it a
# little, so that no single detail can carry the comparison. Three steps, in this order:
#
# 1. **time warp**: one inner frame moves by up to six frames, both ends stay, all else stretches or shrinks;
# 2. **time masks**: two stripes of up to 12 frames take the patch's mean value;
# 3. **frequency masks**: two stripes of up to 8 mel bands do too.
#
# The mean says nothing about what stood there, and it lies where the encoder's first normalisation expects values.
# Below, each step by itself, then all three in one; what is masked has a white frame. Widths are drawn from 0 up, so a mask
# may be missing: here we look for draws that show all of theirs. (The warp also blurs a little: it interpolates between
# frames.)

# %%
patch = first[pair][None]  # (1, frames, mels)
off = dict(time_warp=0, time_masks=0, frequency_masks=0)
stages = {"time warp": off | dict(time_warp=6), "time masks": off | dict(time_masks=2),
          "frequency masks": off | dict(frequency_masks=2), "all three": {}}  # fmt: skip


def stripes(masked):
    """How many separate runs of True a row of booleans has."""
    return int(masked[0]) + int((np.diff(masked.astype(int)) == 1).sum())


def drawn_well(settings):
    """A patch, augmented, and which of its cells (frames, mels) are masked; of some draws one that shows all its masks."""
    for seed in range(50):
        made = np.asarray(SpecAugment(**settings, seed=seed)(patch, training=True))[0]
        # A masked frame or band has one value, which it had not before.
        in_time, in_frequency = ((np.ptp(made, axis) < 1e-5) & (np.ptp(patch[0], axis) > 1e-5) for axis in (1, 0))
        wanted = settings.get("time_masks", 2), settings.get("frequency_masks", 2)
        if (stripes(in_time), stripes(in_frequency)) == wanted:
            break
    return made, in_time[:, None] | in_frequency


# %%
seen = {name: drawn_well(settings) for name, settings in stages.items()}
assert np.array_equal(np.asarray(SpecAugment(seed=0)(patch, training=False)), patch), "evaluation must not be augmented"
figure, axes = plt.subplots(1, 1 + len(seen), figsize=(13, 2.6), sharey=True)
for axis, (name, (made, masked)) in zip(axes, ({"as drawn": (patch[0], None)} | seen).items(), strict=True):
    axis.imshow(made.T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
    if masked is not None and masked.mean() > 0.01:
        axis.contour(masked.T, levels=[0.5], colors="white", linewidths=1)
    axis.set(title=name, xlabel="frame")
notebook.mel_axis(axes[0])
notebook.show("The warp can hardly be seen; the masks, framed in white, wipe out whole moments and whole frequencies.")

# %% [markdown]
# The warp is **mild** on purpose: hard to see here. A trick makes it visible: warp a patch in which every cell holds the
# number of its own frame. Then each cell of the result says which frame it came from. Beside it, a reach that nobody would
# train with.

# %%
ramp = np.tile(np.arange(PATCH_FRAMES, dtype="float32")[:, None], (6, 1, mels))  # (6 patches, frames, mels)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True)
for axis, reach in zip(axes, (6, 40), strict=True):
    layer = SpecAugment(**off | dict(time_warp=reach), seed=course.seed)
    shift = np.asarray(layer(ramp, training=True))[:, :, 0] - ramp[:, :, 0]  # (6 draws, frames)
    assert np.abs(shift).max() < reach + 0.01 and np.abs(shift[:, [0, -1]]).max() < 0.01, "the warp reaches too far"
    axis.plot(shift.T)
    axis.set(title=f"reach {reach} frames, six draws", xlabel="frame", ylabel="comes from … frames later")
notebook.show("Both ends stay; in between, frames come from up to 6 frames away, at the right from up to 40.")

# %% [markdown]
# **Another instance for each view.** The layer draws anew for each patch, so the two views of a pair are never masked
# alike. Below, the *same* patch four times in one batch.
#
# **Question.** Two masks of 0 to 12 frames of 96, two of 0 to 8 bands of 64, overlaps allowed: what share of a patch is
# masked, on average? A tenth, a quarter, a half?

# %%
augment = SpecAugment(seed=course.seed)
batch = np.asarray(augment(np.repeat(patch, 4, axis=0), training=True))  # (4, frames, mels)
assert not np.array_equal(batch[0], batch[1]), "each patch must have a draw of its own"
see = "One patch, masked four times: no two of the four have their masks in the same place."
notebook.show_log_mel({f"instance {i + 1}": b for i, b in enumerate(batch)}, columns=4, alt=see)

# %%
noise = np.random.default_rng(course.seed).normal(size=(512, PATCH_FRAMES, mels)).astype("float32")
masked = np.asarray(SpecAugment(time_warp=0, seed=course.seed)(noise, training=True)) != noise
kept = (1 - 6 / PATCH_FRAMES) ** 2 * (1 - 4 / mels) ** 2  # masks are 6 frames and 4 bands wide on average
masked_share = float(masked.mean())
print(f"masked: {masked_share:.1%} of all cells in 512 patches, {masked.mean(axis=(1, 2)).max():.1%} in the worst one")
print(f"about {1 - kept:.1%} would be expected if every place were equally likely")

# %% [markdown]
# Almost a quarter: enough that no single detail can be relied on, too little to hide the sound.
#
# ## How different are two views?
#
# If the views of a pair are nearly the same, comparing them teaches nothing. If they have nothing in common, there is
# nothing to learn. Two numbers for two patches:
#
# * the mean absolute **difference** of their log-mel cells (in log units: 0.7 is a factor of two, or 6 dB). Volume counts
#   here: a channel that is merely 6 dB quieter differs by 0.7;
# * their **correlation**: 1 where one is the other, apart from level and contrast; 0 where nothing is shared.
#
# We measure twice: at the *same* moment of a scene, so that only the processor differs; and at independent moments, as
# pairs are drawn. For reference: mixtures of *different* scenes. (The lines chan-chan compare the two channels of one
# processor. `ViewPairs` also pairs channels of different processors, and now and then a channel with itself.)


# %%
def compare(a, b):
    """Mean absolute difference and mean correlation of patches a, b (pairs, frames, mels); constant ones have none."""
    a, b = (x.reshape(len(x), -1).astype("float32") for x in (a, b))
    difference = np.abs(a - b).mean()
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    alive = norms > 1e-6
    return float(difference), float(((a * b).sum(axis=1)[alive] / norms[alive]).mean())


def patches(clips, columns, starts):
    """Stored patches (pairs, frames, mels) of these clips, views and first frames."""
    return np.stack([views.log_mel[c, v, s : s + PATCH_FRAMES] for c, v, s in zip(clips, columns, starts, strict=True)])


# %%
rng = np.random.default_rng(course.seed)
several = rng.permutation(clips)[: min(400, clips)]  # each clip once
start_a, start_b = rng.integers(0, places, (2, len(several)))
mixture = patches(several, 0 * several, start_a)
rows = []
for name in views.processors:
    one, two = rng.permuted(np.tile(views.columns((name,)), (len(several), 1)), axis=1).T[:2]  # two different channels
    at_a, at_b, beside = (patches(several, c, s) for c, s in ((one, start_a), (one, start_b), (two, start_a)))
    rows.append({"pair": f"mix-chan, {name}", "same": compare(mixture, at_a), "drawn": compare(mixture, at_b)})
    rows.append({"pair": f"chan-chan, {name}", "same": compare(beside, at_a), "drawn": compare(beside, at_b)})
rows.sort(key=lambda r: r["pair"].startswith("chan"))

# %% [markdown]
# **Question.** Rank these by how alike the two patches are: two crops of one mixture at different moments; a mixture and
# its N channel at the same moment; a mixture and its S2 channel at the same moment; crops of two different scenes.

# %%
later = patches(several, 0 * several, start_b)
rows.insert(0, {"pair": "mix-mix", "same": compare(mixture, mixture), "drawn": compare(mixture, later)})
shifted = compare(mixture, np.roll(later, 1, axis=0))  # the neighbour in the list is another clip
rows.append({"pair": "different clips", "same": None, "drawn": shifted})
masked_pair = compare(*(np.asarray(augment(p.astype("float32"), training=True)) for p in (mixture, later)))
rows.insert(1, {"pair": "mix-mix, SpecAugment on both", "same": None, "drawn": masked_pair})

# %%
cells = [
    {"pair": r["pair"]}
    | {f"{k}{i}": r[k][i] if r[k] else None for k in ("same", "drawn") for i in range(2)} for r in rows
]  # fmt: skip
notebook.table(cells, {"pair": "pair", "same0": "difference, same moment", "same1": "correlation, same moment",
                       "drawn0": "difference, as drawn", "drawn1": "correlation, as drawn"})  # fmt: skip

# %%
by_pair = {r["pair"]: r for r in rows}
asked = {"two crops of one mixture": ("mix-mix", "drawn"), "mixture and N, same moment": ("mix-chan, N", "same"),
         "mixture and S2, same moment": ("mix-chan, S2", "same"), "different clips": ("different clips", "drawn")}  # fmt: skip
alike = {name: by_pair[pair][key][1] for name, (pair, key) in asked.items()}  # correlations
print(
    "most alike first:", " > ".join(f"{name} {alike[name]:.2f}" for name in sorted(alike, key=alike.get, reverse=True))
)
drawn_apart = {name: by_pair[name]["drawn"][1] for name in ("mix-mix", "mix-chan, N", "mix-chan, S2", "chan-chan, S2")}
print("at independent moments:", ", ".join(f"{name} {value:.2f}" for name, value in drawn_apart.items()))

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 0.32 * len(rows) + 1), sharey=True)
names, height = [r["pair"] for r in rows], np.arange(len(rows))
for axis, i, label in zip(axes, range(2), ("mean absolute log-mel difference", "mean correlation"), strict=True):
    for offset, key, text in ((-0.2, "same", "at the same moment"), (0.2, "drawn", "at independent moments")):
        values = [r[key][i] if r[key] else np.nan for r in rows]
        drawn_bars = axis.barh(height + offset, values, height=0.4, label=text)
        axis.bar_label(drawn_bars, ["0" if value == 0 else "" for value in values], padding=2, fontsize=8)
    line = axis.axvline(shifted[i], color="0.4", linestyle="--", label="different clips")
    axis.set_xlabel(label)
axes[0].set_yticks(height, names)
axes[0].invert_yaxis()
axes[1].legend(handles=[*axes[1].containers, line], loc="center left", bbox_to_anchor=(1.02, 0.5))
notebook.show(
    "Upper bars, same moment: the processor makes some difference. Lower bars, other moments: it hardly matters which."
)

# %% [markdown]
# The greatest difference is not between processors but between *moments*. At the same moment, mix-mix is no task at all,
# and each processor moves the channel away from its mixture by its own amount. Once the moments are independent, little is
# left in common, whatever the processor: N hardly differs from mix-mix; S2 takes away some more, and its two channels
# against each other the most.
#
# The paper argues for **mix-chan** in these terms: less is shared between the views, while the meaning stays. The
# *difference* needs care in two places. Two channels are both quieter, so more of their cells lie near the floor and agree.
# And SpecAugment can make it smaller, because a masked cell holds the mean of its patch, which is nearer to most values
# than another cell is. The correlation shows the damage.
#
# A warning: these numbers compare **cells**. An encoder should treat as similar what these measures call different. So
# they tell how hard the task looks on the surface, not how good the views are. Only notebooks 08 to 10 can tell that.
#
# ## Patches with nothing in them
#
# Scenes have pauses, and a patch may fall into one. The log-mel of silence is the **floor**, ln 0.01, everywhere: a
# constant, the same for every scene. Such a patch tells nothing, and two of them look like a pair. A separator may also
# put a scene's whole sound into one channel and leave the other almost silent.
#
# **Question.** Which of the two is the greater trouble here?
#
# We count *patches* at the floor (no cell above ln 0.02, where the mel value is as large as the 0.01 that is added), and
# *channels* more than 40, 20 and 10 dB below their mixture.

# %%
quiet = {p: views.quiet_share(p) for p in views.processors}
quiet_patches = {}
for name in ("mixture", *views.processors):
    columns = np.zeros(1, int) if name == "mixture" else views.columns((name,))
    found = patches(several, rng.choice(columns, len(several)), start_a).astype("float32")
    quiet_patches[name] = float((found.max(axis=(1, 2)) < np.log(0.02)).mean())
print("patches at the floor:", ", ".join(f"{name} {share:.2%}" for name, share in quiet_patches.items()))
for threshold in (QUIET, -20, -10):
    below = {p: float((views.level[:, views.columns((p,))] < threshold).mean()) for p in views.processors}
    print(f"channels below {threshold:4.0f} dB:", ", ".join(f"{name} {share:.2%}" for name, share in below.items()))

# %% [markdown]
# The patches, on made sounds: there is silence between the events, in the mixture as in every channel, and about as often
# in each. Recordings have a background, so there the floor should be rarer. Notebook 07 shows what is done about it.
# Quiet *channels* hardly occur here. Mixture consistency makes the two channels *sum* to the mixture, but says nothing about
# how they share it, so with other sounds there may be more. The course keeps all channels, as the paper does as far as we
# know. `ViewPairs(…, reject_quiet=True)` draws another channel in place of a quiet one, and `quiet_shares()` tells how
# often:

# %%
shares = pairs["mix-chan"].quiet_shares()
print(f"channels below {QUIET:g} dB:", ", ".join(f"{name} {share:.2%}" for name, share in shares.items()))

# %%
course.record(
    "05",
    quiet_share=quiet,
    quiet_patches=quiet_patches,
    overlap=overlap,
    masked_share=masked_share,
    or_rule=counts,
    difference_as_drawn={r["pair"]: r["drawn"][0] for r in rows},
    correlation_as_drawn={r["pair"]: r["drawn"][1] for r in rows},
    difference_same_moment={r["pair"]: r["same"][0] for r in rows if r["same"]},
    correlation_same_moment={r["pair"]: r["same"][1] for r in rows if r["same"]},
)
print("kept: results/05.json")

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | channels as views | frozen separator, whole clips | `processors.write_views`, once; `course.views()` |
# | which two views | mix vs mix (baseline), mix vs chan (best) | `ViewPairs(pairing=…)` |
# | several snapshots | S2 ∨ F ∨ N, "OR rule" | `views.columns(processors)`, one drawn for each clip and step |
# | temporal proximity | always on | independent first frames in `ViewPairs.draw` |
# | SpecAugment | masks and mild warp, another instance for each view | `SpecAugment`, on the device, a draw for each patch |
# | quiet channels | not mentioned | `views.level`, `views.quiet_share` |
#
# ## Exercises
#
# **1. Predict.** SpecAugment puts two masks on time and two on frequency. With *four* on each, will twice as much of a
# patch be masked: more, or less than twice? Guess a number, then change it.

# %% tags=["your turn"]
# your turn: measure the share that `SpecAugment(time_warp=0, time_masks=4, frequency_masks=4)` masks of `noise`

# %% tags=["solution"]
more = SpecAugment(time_warp=0, time_masks=4, frequency_masks=4, seed=course.seed)
share = float((np.asarray(more(noise, training=True)) != noise).mean())
print(f"two and two: {masked_share:.1%}; four and four: {share:.1%}")
# Less than twice: masks overlap, and the more so the more there are. What is left is about squared.

# %% [markdown]
# **2.** In chan-chan, how often are both views the *same channel of the same processor*? Work it out, then count over 200
# batches of `pairs["chan-chan"].draw(step)`.

# %% tags=["your turn"]
expected_share = None  # your turn: a number
print("yours:", expected_share)

# %% tags=["solution"]
both = np.concatenate([pairs["chan-chan"].draw(step)[1] for step in range(200)], axis=1)  # (2, pairs)
share = 1 / (len(row.processors) * views.num_sources)
spread = np.sqrt(share * (1 - share) / both.shape[1])
print(f"counted {np.mean(both[0] == both[1]):.4f}, expected 1 in {round(1 / share)} = {share:.4f} ± {spread:.4f}")

# %% [markdown]
# **3.** How fast does a scene change? Draw the correlation of two crops of one mixture over the time between them. Leave
# out gaps for which there are fewer than 50 places to begin. Does the curve come down to *different scenes*, or below?

# %% tags=["your turn"]
# your turn: `patches(several, 0 * several, starts)` and `compare` are all it takes

# %% tags=["solution"]
gaps = np.arange(0, max(1, places - 50), max(1, places // 12))
starts_0 = [rng.integers(0, places - gap, len(several)) for gap in gaps]
near = [
    compare(patches(several, 0 * several, s), patches(several, 0 * several, s + g))[1] for s, g in zip(starts_0, gaps)
]
plt.figure(figsize=(7, 2.8))
plt.plot(gaps * 0.01, near, marker=".", label="same scene")
plt.axhline(shifted[1], color="0.4", linestyle="--", label="different scenes")
plt.xlabel("time between the crops in s")
plt.ylabel("mean correlation")
plt.legend()
notebook.show("The correlation falls within half a second, then slowly: what is left is what lasts in a scene.")
# It comes close to different scenes at the longest gaps. With other sounds it may fall below: there one crop lies at the very
# beginning and the other at the very end of a scene that starts and ends in silence: one sound comes, the other goes.

# %% [markdown]
# **4. Build it.** Write one time mask yourself: a stripe of 0 to `widest` frames, anywhere in the patch, all of whose
# cells become the mean of the patch. The check below draws it 200 times.


# %% tags=["your turn"]
def time_mask(patch, rng, widest=12):
    """A copy of `patch` (frames, mels) with one stripe of frames masked."""
    # your turn
    return patch


# %%
def check_time_mask(time_mask):
    """Whether it masks as it should: stripes of every width from 0 to 12 frames, that hold the mean."""
    rng, widths = np.random.default_rng(0), []
    for _ in range(200):
        made = time_mask(patch[0], rng)
        changed = np.flatnonzero((made != patch[0]).any(axis=1))
        if len(changed) and not np.allclose(made[changed], patch[0].mean(), atol=1e-5):
            return print("not yet: a masked cell should hold the mean of the patch")
        if len(changed) and np.ptp(changed) + 1 != len(changed):
            return print("not yet: the masked frames should lie side by side")
        widths.append(len(changed))
    missing = sorted(set(range(13)) - set(widths))
    wrong = missing or max(widths) > 12
    print(f"not yet: never {missing} frames wide" if wrong else "right: it masks as the layer does")


check_time_mask(time_mask)


# %% tags=["solution"]
def time_mask(patch, rng, widest=12):
    width = rng.integers(0, widest + 1)
    start = rng.integers(0, len(patch) - width + 1)
    patch = patch.copy()
    patch[start : start + width] = patch.mean()  # the mean is taken before anything is masked
    return patch


check_time_mask(time_mask)

# %% [markdown]
# ## What to read next
#
# * Park et al. 2019, *SpecAugment*: the masks and the warp, for speech recognition.
# * Jansen et al. 2018, *Unsupervised learning of semantic audio representations*: temporal proximity as a constraint.
# * Tian et al. 2020, *What makes for good views for contrastive learning?*: how much two views should share.
#
# Next: [06 · Two losses](06_two_losses.ipynb), which turn such pairs into something to minimise.
