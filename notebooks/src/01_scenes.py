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
# # 01 · Scenes

# %% [markdown]
# | | |
# |---|---|
# | **you will** | hear every class of sound, mix scenes from them by a table of places, and build a log-mel spectrogram by hand |
# | **you need** | a little NumPy; nothing from other notebooks |
# | **you make** | the data of the whole course: scenes with their labels, and the patches that the encoder will see |
# | **time** | under half a minute on a CPU (tiny); on a GPU: not measured yet |

# %% tags=["parameters"]
import os

PROFILE = os.environ.get("SEPCL_PROFILE", "tiny")
DATA = os.environ.get("SEPCL_DATA", "made")
SEED = os.environ.get("SEPCL_SEED", "0")
OUT = os.environ.get("SEPCL_OUT")

# %%
import importlib.util
import itertools
import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

from sepcl_keras.course import notebook
from sepcl_keras.scenes import audio
from sepcl_keras.views.log_mel import windows
from sepcl_keras.views.log_mel import PATCH_FRAMES, LogMel, mel_matrix
from sepcl_keras.scenes.mixing import EVENT_PROBABILITIES, GAIN_DB, PEAK
from sepcl_keras.scenes.banks import SPLITS

course = notebook.setup(PROFILE, DATA, SEED, OUT)

# %% [markdown]
# ## One event of each class
#
# An **event** is one sound with one name: a bark, a ring, a gust. The course keeps its events in a **bank**. The
# default bank *makes* them: each class is a small physical model (a struck bell, the pulses of a voice, drops that fall
# at random …), and a seed draws all its numbers. If you point `DATA` at a folder in the layout of ESC-50, the bank reads
# recordings instead; every line below stays the same. If your folder holds recorded scenes, no one knows the events in
# them: then each recording stands for one event, in this notebook and wherever scenes with known sources are needed.
#
# A sound is a **waveform**: one number for each of 16,000 moments a second. To *look* at one we use a **log-mel
# spectrogram**: time runs to the right, pitch runs up in 64 **mel bands** spaced roughly as the ear spaces them, from 125 to
# 7,500 Hz, and bright means loud. The marks are in Hz: half of the bands lie below 2,000. We build such a picture by hand
# further down. Here is the first training event of each class.

# %%
bank, rate = course.bank, course.profile.sample_rate
events = {label: [e for e in bank.events("train") if e.label == label] for label in bank.classes}
first = {label: bank.load(found[0]) for label, found in events.items() if found}  # label -> (samples,)
log_mel_layer = LogMel()


def log_mel(waveform):
    """(samples,) -> (frames, 64), the way the whole course does it."""
    return np.asarray(log_mel_layer(np.float32(waveform)[None]))[0]


print(f"{len(first)} classes; lengths from {min(map(len, first.values())) / rate:.1f} s "
      f"to {max(map(len, first.values())) / rate:.1f} s")  # fmt: skip


# %%
def grid(sounds, alt, columns=6, seconds=course.profile.clip_seconds):
    """Small log-mel pictures of many sounds, on one time axis and one colour scale."""
    pictures = [log_mel(waveform) for waveform in sounds.values()]
    look = {"vmin": np.log(0.01), "vmax": 4, "cmap": "magma", "origin": "lower", "aspect": "auto"}  # silence to loud
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 1.7 * rows + 0.4), squeeze=False, sharex=True, sharey=True)
    for axis, title, picture in itertools.zip_longest(axes.flat, sounds, pictures):
        axis.set_visible(picture is not None)
        if picture is not None:
            image = axis.imshow(picture.T, extent=(0, len(picture) * 0.01, 0, 64), **look)
            axis.set(title=title, xlim=(0, seconds))
    for axis in axes[:, 0]:
        notebook.mel_axis(axis)
        axis.set_ylabel("Hz")
    figure.supxlabel("time in s")
    figure.colorbar(image, ax=axes, label="log-mel (+0.7: twice)", fraction=0.04, pad=0.01)
    notebook.show(alt)


# %%
grid(
    first,
    "Look for three kinds: lines (a pitch), vertical strokes (something struck), and even texture (noise that goes on).",
)
notebook.players(first, rate)

# %% [markdown]
# Players that appear together share **one gain**, so what sounds quieter is quieter. The bank has brought every event
# to the same level while it sounds; pauses do not count, so a single knock and a long rain are about equally loud. (A lone
# click that would make all others faint is rounded off, in the players only.)
#
# ## Variation inside a class
#
# **Question.** Below are several events of *one* class. Before you look: what do you expect to stay the same from one
# to the next, and what to change? (Try another class: put its name into the first line.)

# %%
label = next(iter(first))
several = {f"{label} {i}": bank.load(e) for i, e in enumerate(events[label][:6], start=1)}
grid(several, f"Events of the class {label}: the kind of shape stays, its place, length and pitch move.")
notebook.players(several, rate)

# %% [markdown]
# Length, pitch, timbre and rhythm may all move; what the events share is *what produces them*. How well would a listener
# do who only knows **how much energy each mel band holds on average**, and nothing about how it changes over time?
#
# Take some events of every class, give each its mean log-mel, and ask for its nearest neighbour among the others.
#
# **Question.** In what share of cases does the neighbour have the same class: near chance, half, nearly all?

# %%
some = [event for found in events.values() for event in found[:12]]
averages = np.stack([log_mel(bank.load(event)).mean(axis=0) for event in some])  # (events, mels)
shape = averages - averages.mean(axis=1, keepdims=True)  # without overall loudness
distance = np.linalg.norm(shape[:, None] - shape[None], axis=-1)  # (events, events)
same_recording = np.array([[a.recording == b.recording for b in some] for a in some])
nearest = np.where(same_recording, np.inf, distance).argmin(axis=1)  # an event may not find itself
hits = np.mean([some[i].label == some[j].label for i, j in enumerate(nearest)])
chance = np.mean([np.mean([a.label == b.label for b in some if b is not a]) for a in some])
print(f"nearest neighbour by mean spectrum has the same class: {hits:.2f} of {len(some)} events (chance {chance:.2f})")

# %% [markdown]
# Keep that number in mind. Whatever the average spectrum already tells, no training is needed for; the *rest*, which
# lies in time and in how frequencies go together, is what the encoder (the network of notebook 07) has to learn. And
# these are events **alone**: in a scene they overlap.
#
# ## Which sounds meet: places
#
# Real sounds do not meet at random: waves and gulls do, waves and a printer hardly. A table of **co-occurrence** says
# which classes share a place, and how likely each is there. (Where your own recordings have classes that no table of
# the course knows, there is one place, *anywhere*, in which all of them meet alike.) That two sounds in one clip belong
# together *because of where they were recorded* is what the paper's idea rests on.

# %%
places = bank.places  # place -> {label: weight}
odds = np.array([[table.get(label, 0.0) for label in bank.classes] for table in places.values()])
odds = odds / odds.sum(axis=1, keepdims=True)  # (places, classes), each place sums to one

figure, axis = plt.subplots(figsize=(10, 0.42 * len(places) + 2))
image = axis.imshow(np.where(odds > 0, odds, np.nan), cmap="YlGnBu", vmin=0, aspect="auto")
axis.set_xticks(range(len(bank.classes)), bank.classes, rotation=55, ha="right")
axis.set_yticks(range(len(places)), places)
axis.set_xticks(np.arange(len(bank.classes)) - 0.5, minor=True)
axis.set_yticks(np.arange(len(places)) - 0.5, minor=True)
axis.grid(which="minor", color="0.85", linewidth=0.8)
axis.tick_params(which="both", length=0)
figure.colorbar(image, label="probability of the\nfirst event drawn")
shared = int(((odds > 0).sum(axis=0) > 1).sum())
notebook.show(
    "Places downwards, classes across; an empty cell means never there. "
    f"{shared} of {len(bank.classes)} classes belong to more than one place."
)

# %%
allowed = ((odds > 0).T.astype(int) @ (odds > 0).astype(int)) > 0  # (classes, classes): is there a place for both?
pairs = list(itertools.combinations(range(len(bank.classes)), 2))
never = [pair for pair in pairs if not allowed[pair]]
print(f"{len(never)} of {len(pairs)} pairs of classes never meet" + (", for example" if never else "."))
for a, b in never[:: max(1, len(never) // 4)][:4]:
    print(f"  {bank.classes[a]} and {bank.classes[b]}")

# %% [markdown]
# ## A scene, before it sounds
#
# A scene is made in two steps. First a **plan**: a place, one to three classes that meet there, one event of each,
# and for each event three random numbers (its level, its position, and what to cut should it be too long). Only when
# somebody asks for the sound is the plan rendered. That is why `labels` cost nothing and why scene *i* is the same in
# every run: it depends on the bank, the split and *i*, never on the seed of a training.

# %%
train = course.mixed["train"]
samples = train.samples
most = np.argsort(-train.number_of_events, kind="stable")  # look for a scene with many events, none of them cut
whole = (i for i in most if all(len(bank.load(event)) <= samples for event in train.plans[i].events))
index = next(whole, most[0])
plan = train.plans[index]
print("place:", plan.place)
for event, (level, position, _) in zip(plan.events, plan.draws):
    print(f"  {event.label:<16} recording {event.recording:<28} level {level:.2f}  position {position:.2f}")

# %% [markdown]
# ## Mixing by hand
#
# What is left is arithmetic: scale, place, add. The drawn level 0…1 stands for a gain in **decibel** (dB, a
# logarithmic scale: −20 means a tenth of the amplitude, which is a hundredth of the *energy*, its square; twice the amplitude
# is 6 dB, twice the energy 3); the drawn position says where between "at the very
# beginning" and "ends with the scene" the event starts. An event that is longer than the scene is cut, around a moment
# that is drawn by energy, so that something of it is always heard.


# %%
def cut_out(sound, position, cut):
    """At most `samples` of a sound, around the moment by which the share `cut` (0…1) of its energy has passed."""
    energy = np.cumsum(np.square(sound, dtype="float64"))
    moment = np.searchsorted(energy, cut * energy[-1])
    start = np.clip(int(moment - position * samples), 0, max(0, len(sound) - samples))
    return sound[start : start + samples]


def mix(plan):
    """The sources (events, samples) of a plan; their sum is the scene."""
    sources = np.zeros((len(plan.events), samples), "float32")
    for source, event, (level, position, cut) in zip(sources, plan.events, plan.draws):
        sound = cut_out(bank.load(event), position, cut)
        onset = int(position * (samples - len(sound) + 1))
        gain = np.interp(level, (0, 1), GAIN_DB)  # dB
        source[onset : onset + len(sound)] = sound * 10 ** (gain / 20)
    peak = np.abs(sources.sum(axis=0)).max()
    return sources * min(1.0, PEAK / peak)  # only a scene that is too loud is scaled, as a whole


# %%
scene = train[index]
assert np.allclose(mix(plan), scene.sources, atol=1e-6), "mixing by hand differs from Scenes"
print("sources (events, samples):", scene.sources.shape, "· mixture (samples,):", scene.mixture.shape)

# %% [markdown]
# `Scenes` gives all that evaluation will need: the sources, their labels and onsets, and the recordings they are from.
# **Training never sees any of these**: it gets the mixture alone. Try that yourself, with *another* scene, whose plan you
# have not seen.
#
# **Question.** How many events do you hear, and which?

# %%
unseen = [
    i for i in range(len(train)) if train.number_of_events[i] == 2 and not set(train[i].labels) & set(scene.labels)
]
puzzle = train[(unseen or [0])[0]]  # two events of other classes, where there are such
notebook.listen(
    {"mixture": puzzle.mixture}, rate, alt="A mixture whose events you do not know: count the kinds of shape."
)

# %%
told = ", ".join(f"{name} from {onset:.1f} s" for name, onset in zip(puzzle.labels, puzzle.onsets))
notebook.folded("Show the answer", f"{puzzle.place}: {told}")

# %% [markdown]
# Now the scene of the plan, taken apart.

# %%
parts = {"mixture": scene.mixture}
parts |= {f"{name}, from {onset:.1f} s": s for name, onset, s in zip(scene.labels, scene.onsets, scene.sources)}
notebook.listen(
    parts,
    rate,
    alt="Each source fills its own part of the mixture's picture; where two overlap, the louder one is seen.",
)

# %%
figure, axes = plt.subplots(len(parts), 1, figsize=(9, 1.1 * len(parts) + 0.4), sharex=True, sharey=True)
for axis, (title, waveform), colour in zip(axes, parts.items(), notebook.COLOURS):
    axis.plot(np.arange(samples) / rate, waveform, linewidth=0.5, color=colour)
    axis.set_title(title, loc="left", fontsize=9)
figure.supylabel("amplitude")
axes[-1].set_xlabel("time in s")
notebook.show(
    "At each moment the top line is the sum of those below it; sources are silent before and after their event."
)

# %% [markdown]
# Sound adds: air pressure from two sources is the sum of both. So the sources must sum to the mixture, for every
# scene; the separator of the next notebooks will have to keep this law. The same scenes let us check two more
# promises: no class and no recording appears twice in a scene.

# %%
worst = 0.0
for one in (train[i] for i in range(min(len(train), 40))):
    worst = max(worst, np.abs(one.sources.sum(axis=0) - one.mixture).max())
    assert len(set(one.labels)) == len(one.labels) and len(set(one.recordings)) == len(one.recordings)
assert worst < 1e-6, "the sources do not sum to the mixture"
print(f"largest difference between the sum of sources and the mixture: {worst:.1e}")

# %% [markdown]
# ## A recorded scene beside a mixed one
#
# The paper learns from clips of AudioSet: real scenes, with rooms, wind, distance and noise, in which nobody knows what is
# a source. If `DATA` is a folder of such recordings, here is one of them, whole, beside the mixed scene from above. The
# separator and the encoder of the next notebooks then learn from recordings like it, and mixed scenes serve only where
# sources must be known. With the default made sounds, or with isolated events, there is no recording to show.
#
# **Question** (with recordings only). What do you hear in a recording that no mixture of clean events has?

# %%
if course.listing:
    real = course.scenes["train"][0]
    print(f"{real.place}; labels: {', '.join(real.labels) or 'none'}; sources: {real.sources}")
    notebook.listen({"recorded": real.mixture, "mixed": scene.mixture}, rate,
                    alt="A recording has a floor of background; between mixed events there is digital silence.")  # fmt: skip
else:
    print("no recorded scene here: DATA holds single events (DATA=path/to/recordings shows one of yours).")
    print("It would have a background that never stops, an echo of the room, and sounds cut off at both ends.")

# %% [markdown]
# ## Labels, counted
#
# The label of a scene is **multi-hot**: a vector with one entry for each class, 1 where the class is heard. With
# several events it has several ones, which is why the evaluation will score each class by itself.

# %%
labels = train.labels  # (scenes, classes)
print("labels (scenes, classes):", labels.shape)
print("the scene above:", {name: int(value) for name, value in zip(bank.classes, labels[index]) if value})
assert set(np.array(bank.classes)[labels[index] == 1]) == set(scene.labels), "the label is not what is heard"
assert np.array_equal(labels.sum(axis=1), train.number_of_events), "a label got lost"

together = labels.T @ labels  # (classes, classes): in how many scenes two classes meet
assert not together[~allowed & ~np.eye(len(allowed), dtype=bool)].any(), "two classes met that share no place"

# %%
counts = {name: int(count) for name, count in zip(bank.classes, labels.sum(axis=0))}
share = np.bincount(train.number_of_events, minlength=4)[1:4] / len(train)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.2 * len(counts) + 1.6), width_ratios=(1, 2))
left.bar([1, 2, 3], share, width=0.6, label="these scenes")
left.plot([1, 2, 3], EVENT_PROBABILITIES, "o", color="0.2", label="probability in the code")
left.set(xticks=[1, 2, 3], xlabel="events in a scene", ylabel="share of scenes")
left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
right.barh(list(counts), list(counts.values()), color=notebook.COLOURS[2])
right.invert_yaxis()
right.tick_params(axis="y", labelsize=8)
right.set_xlabel("training scenes with the class")
rarest, commonest = min(counts, key=counts.get), max(counts, key=counts.get)
notebook.show(
    f"Scenes of one, two and three events are about as many as the code asks for; {commonest} is in {counts[commonest]} "
    f"scenes and {rarest} in {counts[rarest]}."
)
mean_events = float(train.number_of_events.mean())
print(f"{len(train)} training scenes, {mean_events:.2f} events on average")

# %% [markdown]
# The classes are not balanced, and need not be: the metric of notebook 08 gives each class the same weight, however
# rare it is. Single-event scenes stay in on purpose, because the separator's training needs some of them.
#
# ## Three splits that share nothing
#
# If a recording stood in both training and test, a network could score by *remembering* it. So the splits must not
# share recordings. The check looks at what the scenes truly use, not at what the bank promises.

# %%
used = {split: {e.recording for p in course.mixed[split].plans for e in p.events} for split in SPLITS}
for a, b in itertools.combinations(SPLITS, 2):
    assert not used[a] & used[b], f"{a} and {b} share recordings"
for split in SPLITS:
    scenes, offered = course.mixed[split], {event.recording for event in bank.events(split)}
    print(f"{split:<11}{len(scenes):>5} scenes from {len(used[split]):>4} of {len(offered):>4} recordings")

# %% [markdown]
# ## False negatives, counted
#
# Contrastive training will call any two *different* scenes a **negative pair**: unrelated, to be pushed apart. In a
# batch of B pairs each of the 2B views is an **anchor** once; its partner is its positive, and the 2B − 2 views of
# other scenes are its negatives. But they are not always unrelated. Two scenes may contain the **same recording**, and
# then we push apart what is partly one sound. Such a pair is a **false negative**.
#
# **Question.** With this many scenes and recordings, what share of all pairs of training scenes shares a recording?
# And what share has at least one *class* in common?

# %%
names = sorted(used["train"])
column = {name: i for i, name in enumerate(names)}
contains = np.zeros((len(train), len(names)), "float32")  # (scenes, recordings)
for row, drawn in zip(contains, train.plans):
    row[[column[event.recording] for event in drawn.events]] = 1
upper = np.triu_indices(len(train), k=1)  # every pair once
share_recording = float(((contains @ contains.T)[upper] > 0).mean())
share_class = float(((labels @ labels.T)[upper] > 0).mean())
batch = course.profile.batch_size
print(f"pairs that share a recording: {share_recording:.2%}    a class: {share_class:.1%}")
print(f"an anchor in a batch of {batch} pairs has {2 * batch - 2} negatives: on average "
      f"{share_recording * (2 * batch - 2):.1f} with one of its recordings, "
      f"{share_class * (2 * batch - 2):.0f} with one of its classes")  # fmt: skip

# %% [markdown]
# So two scenes rarely share a recording, but many share a class. Nobody can see these without labels, and the paper does not
# try. Among two million clips two rarely share a
# recording; with the few recordings of a course it happens, and the number above says how often. A shared class costs
# something at any scale. Contrastive learning lives with false negatives as long as most negatives are true ones.
#
# ## A log-mel spectrogram by hand
#
# The encoder does not read waveforms but log-mel **patches**. Four steps lead there. The first: cut the waveform into
# overlapping **frames** of 25 ms, one every 10 ms. Within a frame a sound hardly changes.

# %%
wave = scene.mixture  # (samples,)
window_length, hop, fft = 400, 160, 512  # 25 ms, 10 ms, and the next power of two
number = 1 + (len(wave) - window_length) // hop
frames = np.stack([wave[i * hop : i * hop + window_length] for i in range(number)])  # (frames, 400)
print("frames (frames, samples in a frame):", frames.shape)

# %% [markdown]
# The second: fade each frame in and out with a **Hann window**, and ask the Fourier transform how much of each frequency
# it holds. We keep the magnitude and forget the phase. Without the window the hard edges of a frame act like clicks, which
# put a little of every frequency into each frame.

# %%
window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_length) / window_length)
spectrum = np.abs(np.fft.rfft(frames * window, n=fft))  # (frames, 257 frequencies)
loudest = int(np.square(frames).sum(axis=1).argmax())

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.6))
left.plot(np.arange(window_length) / rate * 1000, frames[loudest], color="0.7", label="frame")
left.plot(np.arange(window_length) / rate * 1000, frames[loudest] * window, label="times window")
left.set(xlabel="time in ms", ylabel="amplitude")
left.legend()
for magnitude, label in (np.abs(np.fft.rfft(frames[loudest], n=fft)), "as cut"), (spectrum[loudest], "times window"):
    right.semilogy(
        np.fft.rfftfreq(fft, 1 / rate) / 1000, magnitude, label=label, color=None if label[0] == "t" else "0.7"
    )
right.set(xlabel="frequency in kHz", ylabel="magnitude", title="loudest frame")
notebook.show(
    "The window takes the frame's edges to zero; in the spectrum it takes away what the edges had spread around."
)

# %% [markdown]
# The third: sum 257 frequencies into 64 **mel bands**. The mel scale counts pitch about as we hear it: fine steps
# below, coarse ones above. Each band is a triangle, and all triangles together are one matrix. Bands 10, 20, 30, 40 and 50
# lie at about 0.5, 1, 1.8, 2.8 and 4.3 kHz.

# %%
matrix = mel_matrix()  # (257 frequencies, 64 bands)
figure, axis = plt.subplots(figsize=(10, 2.4))
axis.plot(np.fft.rfftfreq(fft, 1 / rate) / 1000, matrix[:, ::4])
axis.set(xlabel="frequency in kHz", ylabel="weight", title="every fourth mel band")
widths = (matrix > 0).sum(axis=0) * rate / fft  # (64,), Hz
notebook.show(
    f"Triangles grow wider with frequency: a band spans {widths[8]:.0f} Hz near the bottom, {widths[-1]:.0f} Hz at the top."
)
mel = spectrum @ matrix  # (frames, 64)

# %% [markdown]
# The fourth: the logarithm, because we hear ratios and not differences. It is the natural one: 0.7 more means twice the
# magnitude, which is 6 dB. The small number keeps silence finite, and it
# sets a **floor**: whatever is far below 0.01 looks like silence. A very quiet channel will therefore look the same
# whatever was in it; notebook 05 comes back to that.

# %%
by_hand = np.log(mel + 0.01)  # (frames, 64)
layer = log_mel(wave)
largest = float(np.abs(by_hand - layer).max())
assert largest < 1e-2, "the recipe by hand differs from the layer"
print(f"log-mel (frames, mels): {by_hand.shape}, largest difference to LogMel: {largest:.1e}")

# %% [markdown]
# `LogMel` is the same recipe as a Keras layer, so it runs in batches on any backend. It treats each clip by itself:
# nothing in a clip's picture depends on who else is in the batch.
#
# ## Patches
#
# The encoder sees **96 frames** at a time.
#
# **Question.** 96 frames of 400 samples, one every 160: how many samples, and how many seconds, does a patch cover?
# How many patches without overlap fit into a scene?

# %%
needed = (PATCH_FRAMES - 1) * hop + window_length
patches = windows(layer[None])[0]  # (patches, 96, 64)
assert log_mel(wave[:needed]).shape == (PATCH_FRAMES, 64), "that is not one patch"
print(f"one patch: {needed} samples = {needed / rate:.3f} s · patches (windows, frames, mels): {patches.shape}")

figure, axis = plt.subplots(figsize=(10, 2.4))
axis.imshow(by_hand.T, origin="lower", aspect="auto", cmap="magma", extent=(0, number * hop / rate, 0, 64))
for patch in range(len(patches)):
    axis.axvline((patch + 1) * PATCH_FRAMES * hop / rate, color="white", linewidth=2)
    axis.text((patch + 0.5) * PATCH_FRAMES * hop / rate, 66, f"patch {patch + 1}", ha="center")
axis.set(xlabel="time in s")
notebook.mel_axis(axis)
left_over = number - len(patches) * PATCH_FRAMES
notebook.show(
    f"{len(patches)} patches side by side; the last {left_over} frames fill none, and evaluation leaves them out."
)

# %% [markdown]
# Evaluation cuts a scene like this, side by side. Training draws a patch *anywhere*, and for the two views of a pair
# at two different moments: what sounds near in time is likely to belong together (**temporal proximity**).
#
# ## Reading a file inside a TensorFlow graph (optional)
#
# Nothing later needs this section. So far files were read by `audio.read`, in NumPy. Where TensorFlow and tensorflow-io are installed, decoding can
# become part of the graph, next to the network, as large pipelines like it. We write our scene to a temporary file
# and read it back both ways. A wav file of 16 bit rounds each sample to one of 65,536 steps, so a small difference
# must remain.

# %%
if keras.backend.backend() == "tensorflow" and importlib.util.find_spec("tensorflow_io"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.wav"
        audio.write(path, wave, rate)
        tensor, file_rate = audio.read_in_graph(path)  # (samples,), Hz
        in_numpy = audio.read(path, rate)
    rounding = float(np.abs(tensor.numpy() - wave).max())
    print(type(tensor).__name__, tensor.shape, f"at {int(file_rate)} Hz, rounding {rounding:.1e}")
    assert int(file_rate) == rate and rounding < 2 / 2**15, "the file is not what was written"
    assert np.allclose(tensor.numpy(), in_numpy, atol=1e-4), "the two readers differ"
else:
    print("skipped: this needs the TensorFlow backend and tensorflow-io")

# %%
course.record(
    "01",
    classes=len(counts),
    class_count_min=min(counts.values()),
    class_count_median=float(np.median(list(counts.values()))),
    class_count_max=max(counts.values()),
    mean_events=mean_events,
    pairs_sharing_a_recording=share_recording,
    pairs_sharing_a_class=share_class,
    nearest_by_mean_spectrum=float(hits),
    nearest_chance=float(chance),
    log_mel_difference=largest,
)

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | sound scenes are mixtures of events | "time-varying collections of sound sources" | `Scenes[i]` → `mixture`, `sources` |
# | classes co-occur by place | real recordings (AudioSet) do it by themselves | `data/scenes_*.csv`, `bank.places` |
# | no labels in pretraining | two million clips without labels | `scenes.mixtures()`; `labels` only for evaluation |
# | several labels a clip | AudioSet, 527 classes | multi-hot `scenes.labels` |
# | input features | not in the slides; VGGish's, of the same group, are used | `LogMel()`, patches of 96 × 64 |
# | false negatives | rare recordings twice, classes often | `scenes.plans` |

# %% [markdown]
# ## Exercises
#
# **1.** Change one number. In the spectrogram by hand, take frames of 100 ms instead of 25 (`window_length` 1,600 and `fft`
# 2,048). Predict which becomes sharper, pitch or time. Then draw both, one below the other.

# %% tags=["your turn"]
my_length = None  # your turn: 1_600, or 100 for the opposite
if my_length is not None:
    cuts = [wave[i : i + my_length] * np.hanning(my_length) for i in range(0, len(wave) - my_length, hop)]
    my_spectrum = np.abs(np.fft.rfft(cuts, n=max(fft, 2048)))  # (frames, frequencies)
    plt.imshow(np.log(my_spectrum.T + 0.01), origin="lower", aspect="auto", cmap="magma")
    notebook.show(f"Frames of {1000 * my_length / rate:g} ms: which is sharper, pitch or time?")

# %% tags=["solution"]
figure, axes = plt.subplots(2, 1, figsize=(9, 4.4), sharex=True)
for axis, samples_in in zip(axes, (400, 1_600)):
    cuts = [wave[i : i + samples_in] * np.hanning(samples_in) for i in range(0, len(wave) - samples_in, hop)]
    image = np.log(np.abs(np.fft.rfft(cuts, n=2048)).T + 0.01)  # (frequencies, frames)
    axis.imshow(image, origin="lower", aspect="auto", cmap="magma", extent=(0, len(cuts) * hop / rate, 0, rate / 2000))
    axis.set(title=f"frames of {1000 * samples_in / rate:g} ms", ylabel="kHz")
notebook.show("Longer frames sharpen pitch and smear time: a frame tells frequencies apart by one over its length.")

# %% [markdown]
# **2.** Build a part. Write `mel_of(hertz)`, the mel number of a frequency: 1127 · ln(1 + hertz / 700). Cut the
# mel range from 125 to 7,500 Hz into 65 equal steps, whose ends are points 0 to 65. Band *k*, counted from 0, rises from point
# k, peaks at k + 1 and is gone at k + 2. At which frequency does band 20 peak?


# %% tags=["your turn"]
def mel_of(hertz):
    return None  # your turn


# %%
if mel_of(1000.0) is not None:
    assert abs(mel_of(1000.0) - 1000) < 1, "1,000 Hz is 1,000 mel"
    middles = np.linspace(mel_of(125.0), mel_of(7500.0), 66)[1:-1]  # (64,), mel
    print(f"band 20 is at {700 * (np.exp(middles[20] / 1127) - 1):.0f} Hz")

# %% tags=["solution"]
middles = np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7500 / 700), 66)[1:-1]  # (64,), mel
hertz = 700 * np.expm1(middles / 1127)
peaks = np.fft.rfftfreq(fft, 1 / rate)[matrix.argmax(axis=0)]
print(
    f"band 20 is at {hertz[20]:.0f} Hz; no band's largest weight is more than {np.abs(hertz - peaks).max():.0f} Hz off"
)
assert np.abs(hertz - peaks).max() < rate / fft, "the matrix has its bands elsewhere"

# %% [markdown]
# **3.** The level of an event is drawn between the two ends of `GAIN_DB`. What is the average difference in level, in
# dB, between the two events of a two-event scene? Work it out (two independent uniform numbers), then check it on the
# plans.

# %% tags=["your turn"]
my_difference = None  # your turn: a number in dB; the levels 0…1 of a plan `p` are `p.draws[:, 0]`
print("yours:", my_difference)

# %% tags=["solution"]
two = [p.draws[:, 0] for p in train.plans if len(p.events) == 2]  # levels in 0..1
measured = np.mean([abs(a - b) for a, b in two]) * (GAIN_DB[1] - GAIN_DB[0])
print(f"expected a third of the range, {(GAIN_DB[1] - GAIN_DB[0]) / 3:.2f} dB; measured {measured:.2f} dB")

# %% [markdown]
# **4.** Halve the amplitude of the mixture. By how much does its log-mel change in the loudest cell, and by how much
# in the quietest? Why not by the same amount?

# %% tags=["your turn"]
# your turn: compare `log_mel(0.5 * wave)` with `layer`

# %% tags=["solution"]
half = log_mel(0.5 * wave)
drop = layer - half  # (frames, mels)
loud, quiet = np.unravel_index(layer.argmax(), layer.shape), np.unravel_index(layer.argmin(), layer.shape)
print(f"loudest cell {drop[loud]:.3f}, quietest {drop[quiet]:.3f}; ln 2 = {np.log(2):.3f}")
# Well above the 0.01 the logarithm turns the factor 2 into a shift by ln 2; at the floor 0.01 hides the change.

# %% [markdown]
# **5.** Which two classes meet most often in the training scenes, and how often would they meet if classes were drawn
# independently of each other, each as often as it is?

# %% tags=["your turn"]
# your turn: `together` counts the scenes of each pair of classes, `labels` those of each class

# %% tags=["solution"]
meetings = np.triu(together, k=1)
a, b = np.unravel_index(meetings.argmax(), meetings.shape)
independent = labels[:, a].mean() * labels[:, b].mean() * len(train)
print(f"{bank.classes[a]} and {bank.classes[b]}: {int(meetings[a, b])} scenes; independent: {independent:.1f}")

# %% [markdown]
# ## What to read next
#
# * Gemmeke et al. 2017, *Audio Set*: where the paper's clips are from, and how labels were collected.
# * Piczak 2015, *ESC: Dataset for Environmental Sound Classification*: the recordings behind `DATA=…/ESC-50`.
# * Hershey et al. 2017, *CNN architectures for large-scale audio classification*: the log-mel recipe used here.
#
# Next: [02 · Inside the separator](02_inside_the_separator.ipynb), the network that will take scenes apart again.
