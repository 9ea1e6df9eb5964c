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
# # 00 · Listen first

# %% [markdown]
# | | |
# |---|---|
# | **you will** | hear a scene, hear a network take it apart, and play the game behind the training of the encoder |
# | **you need** | ears, and nothing else; headphones help |
# | **you make** | nothing yet: the separator comes with the library (with other settings it is trained here, once) |
# | **time** | under a minute to the first separated sound on a CPU (tiny), half a minute for all; on a GPU: not measured yet |

# %% [markdown]
# ## The question
#
# How can a network learn what sounds *are* when nobody tells it their names? This course rebuilds one answer, step by
# step: *Self-Supervised Learning from Automatically Separated Sound Scenes* (Fonseca et al., WASPAA 2021). Its idea
# fits in one sentence: **a scene and one of its separated sounds belong together, so train a network to see that they
# do.** Where the course quotes *the slides*, it means those with which the authors presented the paper: its numbers
# and tables are taken from there.
#
# Before any formula, listen. (The next cells fetch what is missing, take the settings and get ready.)

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
from sepcl_keras.views.log_mel import LogMel
from sepcl_keras.separation.metrics import fit_channels
from sepcl_keras.separation.separate import separate

course = notebook.setup(PROFILE, DATA, SEED, OUT)
verdicts = {}  # claims about sounds and training: whether they hold in this run

# %% [markdown]
# ## A scene
#
# A **scene**, or **mixture**, is what a microphone hears: several sounds at once. A **separator** is a network that
# turns one waveform into several **channels**, here two, that sum to what went in. Ours learns from mixtures alone,
# without ever hearing a sound by itself; notebook 03 explains how that can work.
#
# > **Where the separator comes from.** With the *profile* `tiny` (sizes that fit a laptop), made sounds and seed 0 it
# > is already trained and comes with the library. With other settings, or with `SEPCL_TRAIN=1`, the next cell trains
# > it: that takes minutes, *happens once*, and tells in about ten lines how it goes. The cell says which of these it did.

# %%
snapshots, _ = course.snapshots()  # name -> separator

# %% [markdown]
# The same network comes in four versions, saved while it was learning. Here we use two: **S2**, at the end of
# training, and **N**, *before* the first step, when random numbers decide what goes into which channel. Both take apart
# 48 scenes that no training has heard.
#
# To begin with, a scene that goes well: of those with two events that start within half a second, the one where S2
# helps most. The improvement is in decibels (notebook 03 defines it), the mean over both events. The rest comes after it.

# %%
test, rate = course.mixed["test"], course.profile.sample_rate
scenes = [test[i] for i in range(min(len(test), 48))]
mixtures = np.stack([scene.mixture for scene in scenes])  # (clips, samples)
channels = {name: separate(snapshots[name], mixtures) for name in ("N", "S2")}  # (clips, sources, samples)

pairs = [i for i, scene in enumerate(scenes) if len(scene.labels) == 2]
fits = {
    i: fit_channels(scenes[i].sources, channels["S2"][i], mixtures[i]) for i in pairs
}  # which channel is which event
better = {i: float(np.mean(fit["improvement"])) for i, fit in fits.items()}  # dB
ranked = sorted(pairs, key=better.get)  # from the worst to the best
chosen = ([i for i in ranked if min(scenes[i].onsets) < 0.5] or ranked)[-1]
scene = scenes[chosen]

# %% [markdown]
# Each sound comes with a picture, and this is how to read it: time runs to the right, pitch runs up, and bright means
# loud (a *log-mel spectrogram*; notebook 01 builds one by hand; on its scale 0.7 more is twice the amplitude). Keep the volume low at first: some sounds are sudden.
#
# **Question.** Listen to the mixture. How many sounds do you hear, and what are they?

# %%
notebook.listen({"mixture": scene.mixture}, rate, alt="The mixture: count the shapes, and where they overlap.")

# %% [markdown]
# Now what S2 makes of it.
#
# **Question.** Which sound is in which channel? How much of the other is left in it?

# %%
heard = {"mixture": scene.mixture} | {f"S2, channel {m + 1}": channels["S2"][chosen, m] for m in range(2)}
notebook.listen(heard, rate, alt="What is bright in one channel of S2 should be dark in the other: each takes a part.")

# %% [markdown]
# This scene was mixed from single events, so the answer is known: here are the events, each in the place of the channel
# that holds it best. (Where `DATA` holds recorded scenes, two or three of them were played at once, and each counts as
# one event.) Networks in training never get to see it; we keep it to judge them later.

# %%
print(f"place: {scene.place}")
order = np.argsort(fits[chosen]["channels"])  # the events, by the number of their channel
events = {f"{scene.labels[k]}, from {scene.onsets[k]:.1f} s": scene.sources[k] for k in order}
gains = " and ".join(f"{fits[chosen]['improvement'][k]:+.1f} dB ({scene.labels[k]})" for k in order)
notebook.listen({"mixture": scene.mixture} | events, rate,
                alt=f"The true events, each in the place of its channel above. By S2's channels they gained {gains}.")  # fmt: skip
for label, channel, gained in zip(scene.labels, fits[chosen]["channels"], fits[chosen]["improvement"]):
    print(f"{label}: best heard in channel {channel + 1}, {gained:+.1f} dB clearer there than in the mixture")
assert np.allclose(scene.sources.sum(axis=0), scene.mixture, atol=1e-6), "a mixture is the sum of its sources"

# %% [markdown]
# ## The middle and the worst
#
# That was the best of a list, and a list has a middle and an end. Here are the scene in the middle and the worst one. (The
# list is short. Notebook 03 scores 100 scenes, whose median may be another.)
#
# **Question.** Can you still tell what is in which channel?

# %%
middle, worst = ranked[len(ranked) // 2], ranked[0]
for title, clip in (("the middle", middle), ("the worst", worst)):
    print(f"{title} of {len(pairs)}: {' and '.join(scenes[clip].labels)}, {better[clip]:+.1f} dB")
    notebook.listen(
        {"mixture": mixtures[clip]} | {f"S2, channel {m + 1}": channels["S2"][clip, m] for m in range(2)}, rate,
        alt=f"{title.capitalize()}: {better[clip]:+.1f} dB. Look for shapes that stand in both channels.",
    )  # fmt: skip
print("dB of all:", ", ".join(f"{better[i]:+.1f}" for i in ranked))

# %% [markdown]
# Do not expect clean sounds: this network has trained for minutes. What it learns first is often not *which* sound, but
# which *part*: sharp beginnings in one channel, what rings on in the other; or two events in one channel and little in
# the other. Below 0 dB an event was clearer in the mixture than in any channel. Listen with another question in mind: *could you tell that this
# channel comes from this scene?* That is all we need.
#
# ## An untrained separator
#
# **Question.** What will N do with our first scene: silence, noise, or something you recognise?

# %%
sounds = {"mixture": scene.mixture} | {f"N, channel {m + 1}": channels["N"][chosen, m] for m in range(2)}
sounds["N, both channels added"] = channels["N"][chosen].sum(axis=0)
notebook.listen(sounds, rate, alt="Both channels of N look like the mixture, only softer; added, they are the mixture.")

# %% [markdown]
# Something you recognise: the mixture, twice. Each channel has a bit less of something, by chance. Even that will
# serve as a *view*, one of several versions of the same scene, and the slides find that it helps.
#
# Players that appear together share **one gain**: what sounds quieter is quieter. The channels of *either* network
# must add up to the mixture, by the way the network is built. That can be checked:

# %%
for name, found in channels.items():
    difference = float(np.abs(found.sum(axis=1) - mixtures).max())
    assert difference < 1e-5 * max(1.0, float(np.abs(mixtures).max())), (
        f"the channels of {name} do not sum to the mixture"
    )
    print(f"{name:<3} largest |sum of channels − mixture| over {len(found)} scenes: {difference:.1e}")

# %% [markdown]
# ## A positive pair and a negative pair
#
# Mixture and channel sound **different**: parts are missing, louder, softer or coloured (some frequencies are raised,
# others lowered). Yet they **mean** nearly the same: what is heard in the channel is also heard in the mixture. Two
# such views of one thing are a **positive pair**. The mixture with a channel of *another* scene is a **negative
# pair**. Which sounds meet in a scene is no accident either: a dog and an engine share a farm. So even two channels
# that hold different sounds of one scene have something to do with each other.
#
# For the negative we take a scene with as few classes in common with ours as there is, usually none.

# %%
shared = test.labels[: len(scenes)] @ test.labels[chosen]  # (clips,): classes in common with our scene
other = int(np.argmin(shared))
notebook.listen({"mixture": scene.mixture,
                 "positive: a channel of it": channels["S2"][chosen, 0],
                 "negative: a channel of another": channels["S2"][other, 0]}, rate,
                alt="The positive has shapes of the mixture, at the same moments; the negative has other ones.")  # fmt: skip
print(f"the other scene: {', '.join(scenes[other].labels)}")

# %% [markdown]
# **Contrastive learning** is the task of telling the one from the other, for many pairs at once. A network that
# succeeds must turn what is heard into numbers, an **embedding**, in which sounds that belong together lie close. No
# labels needed: where a channel came from is known for free.
#
# To make it harder, training cuts the two views from *different moments* of the scene (about a second each) and masks
# parts of them. Notebook 05 shows it.
#
# ## Play it yourself
#
# Four mixtures, 1 to 4, and four channels of S2, A to D, one from each mixture, shuffled. No two of the mixtures have a
# class of sound in common. **Which channel belongs to which mixture?**


# %%
def draw_round(rng, size=4):
    """Scenes without a common class, a channel of each, and the order in which the channels are shown."""
    clips, heard = [], {chosen, middle, worst}
    for clip in rng.permutation([clip for clip in range(len(scenes)) if clip not in heard]):
        taken = test.labels[clips].sum(axis=0) if clips else 0 * test.labels[clip]
        if len(clips) < size and not (taken * test.labels[clip]).any():
            clips.append(int(clip))
    return clips, rng.integers(0, 2, len(clips)), rng.permutation(len(clips))


clips, sources, order = draw_round(np.random.default_rng(2))
game = {f"mixture {i + 1}": mixtures[clip] for i, clip in enumerate(clips)}
game |= {f"channel {'ABCD'[k]}": channels["S2"][clips[i], sources[i]] for k, i in enumerate(order)}
notebook.players(game, rate)

# %% [markdown]
# Write your guess below (a number for each letter) and run the cell. The answer is folded away under it.

# %%
my_guess = {"A": None, "B": None, "C": None, "D": None}  # for example {"A": 3, "B": 1, "C": 4, "D": 2}

answer = {"ABCD"[k]: int(i) + 1 for k, i in enumerate(order)}  # letter -> number of the mixture
if any(my_guess.values()):
    print("you:", sum(my_guess[letter] == number for letter, number in answer.items()), "of", len(answer), "right")
lines = [f"{letter} belongs to mixture {number}: {', '.join(scenes[clips[number - 1]].labels)}"
         for letter, number in answer.items()]  # fmt: skip
notebook.folded("Show the answer", "<br>".join(lines))

# %% [markdown]
# Scroll on when you have guessed: here are the pictures of the same eight sounds, each channel below its mixture.

# %%
letters = {number: letter for letter, number in answer.items()}
ordered = {f"mixture {i + 1}": mixtures[clip] for i, clip in enumerate(clips)}
ordered |= {f"channel {letters[i + 1]}": channels["S2"][clip, sources[i]] for i, clip in enumerate(clips)}
log_mel = LogMel()
notebook.show_log_mel(
    {title: np.asarray(log_mel(wave[None]))[0] for title, wave in ordered.items()}, len(clips),
    alt="Below each mixture its channel: what is left stands at the same moments, and that alone gives the pair away.",
)  # fmt: skip

# %% [markdown]
# Was it easy? *When* something sounds may have told you. So a second round: of each sound **one second, cut at another
# moment**. Nothing starts or stops together any more.

# %%
shorter = np.random.default_rng(4)
clips, sources, order = draw_round(shorter)


def second_of(waveform):
    """The loudest of five seconds that begin at random moments, so that something is heard."""
    cuts = [waveform[start : start + rate] for start in shorter.integers(0, max(1, len(waveform) - rate), 5)]
    return max(cuts, key=lambda cut: np.square(cut).sum())


game = {f"mixture {i + 1}, a second": second_of(mixtures[clip]) for i, clip in enumerate(clips)}
game |= {f"channel {'ABCD'[k]}, a second": second_of(channels["S2"][clips[i], sources[i]]) for k, i in enumerate(order)}
notebook.players(game, rate)
notebook.folded("Show the answer", ", ".join(f"{'ABCD'[k]} belongs to mixture {i + 1}" for k, i in enumerate(order)))

# %% [markdown]
# ## Two rules that never learned
#
# How far does one get *without learning anything*? Let two simple rules play many rounds. Each gives a channel to the
# mixture that looks most alike to it:
#
# * **colour** compares the average log-mel spectra, and ignores how the sound changes over time;
# * **timing** compares how loud it is from moment to moment, and ignores all pitch.
#
# They play twice: once with the whole scene, and once with a second each of mixture and channel, cut at two different
# moments, as in training.
#
# **Question.** Guessing gets about one in four right. Where do the rules end up with S2's channels, and where with
# N's? And after the cut?


# %%
def alike(curves):
    """Curves (clips, points) of which the level does not count, with length one: ready for a cosine."""
    curves = curves - curves.mean(axis=1, keepdims=True)
    return curves / (np.linalg.norm(curves, axis=1, keepdims=True) + 1e-9)


rules = {  # (clips, frames, mels) -> (clips, mels) or (clips, frames)
    "colour": lambda mel: alike(mel.mean(axis=1)),
    "timing": lambda mel: alike(mel.mean(axis=2)),
}


def cut(mel, frames, rng):
    """The same `frames` of each clip, from a random moment on; all of it for None."""
    start = rng.integers(mel.shape[1] - frames + 1) if frames else 0
    return mel[:, start : start + frames if frames else None]


# %%
def play(found, rule, frames=None, rounds=200):
    """The share of channels (sources, clips, frames, mels) that a rule gives to their own mixture, and by chance."""
    rng, right, total = np.random.default_rng(0), 0, 0
    for clips, sources, _ in (draw_round(rng) for _ in range(rounds)):
        of_mixture, of_channel = cut(mixture_mel[clips], frames, rng), cut(found[sources, clips], frames, rng)
        guesses = (rule(of_mixture) @ rule(of_channel).T).argmax(axis=0)  # a mixture for each channel
        right, total = right + (guesses == np.arange(len(clips))).sum(), total + len(clips)
    return right / total, rounds / total  # by guessing, one a round


# %%
mixture_mel = np.asarray(log_mel(mixtures))  # (clips, frames, mels)
channel_mel = {name: np.stack([np.asarray(log_mel(found[:, m])) for m in range(2)]) for name, found in channels.items()}
right, chance = {}, play(channel_mel["S2"], rules["colour"])[1]
for frames, title in ((None, "the whole scene"), (96, "a second each, cut at two moments")):
    right[title] = {
        kind: {name: float(play(found, rule, frames)[0]) for name, found in channel_mel.items()}
        for kind, rule in rules.items()
    }
    print(f"{title}, where guessing has {chance:.2f}:")
    for kind, found in right[title].items():
        print(f"    {kind:<8}", *(f"{name} {share:.2f}   " for name, share in found.items()))
    worst_case = min(right[title]["colour"].values())
    claim = f"colour does better than guessing, given {title}"
    notebook.verdict(verdicts, claim, worst_case > chance, f"{worst_case:.2f} against {chance:.2f}")
whole, moments = right.values()
low, high = min(whole["timing"].values()), max(moments["timing"].values())
notebook.verdict(verdicts, "cutting at two moments takes most of what timing knew", high - chance < (low - chance) / 2,
                 f"{low:.2f} with the whole scene, {high:.2f} with two moments")  # fmt: skip

# %% [markdown]
# Both rules find most pairs in whole scenes, and those of N most easily. So there are two shortcuts, neither of which
# needs to know what a sound *is*. (✗ would say that in this run, with these sounds, it is otherwise.)
#
# * **When** it sounds gives a channel away at once, for separation leaves timing as it was. The remedy is to cut at
#   *different moments*: then timing is worth next to nothing. Notebook 05 builds it in.
# * **Colour** survives the cut in part, most of all with N (see the table). Masks damage it on purpose, and drawing from
#   several separators means that no one way of colouring can be relied on.
#
# This is the central tension of the course: a pair that is too easy teaches little, a pair that shares nothing teaches
# nothing, and good views lie between. And a puzzle to keep until notebook 10: N's pairs are the easiest of all, so why
# do the slides have N at least as good as S2?
#
# ## The whole path on one page
#
# Sound flows from left to right, and each box says which notebook builds it. Blue makes pairs, without any label. Green
# is the product: the **encoder** and its output, the embedding h. Red, the heads and the losses, is needed for training
# only and thrown away after it. Violet asks how good h is. The small type gives the shapes of the arrays, for B pairs
# in a batch and d numbers in h. (N always means the untrained snapshot.) Names that you do not know yet are explained in
# the notebook that the box gives.

# %% tags=["folded"]
path = {  # title: (what it is, shapes, notebook)
    "scenes": ("mixtures of\n1–3 events", "(clips, samples)", "01"),
    "separator\nsnapshots": ("N · F · S1 · S2\nof one run", "(clips, sources,\nsamples)", "02 03 04"),
    "views": ("log-mel of mixture\nand channels", "(clips, views,\nframes, mels)", "05"),
    "augmentation": ("crop elsewhere,\nwarp, mask", "(B, 96, 64)\ntwice", "05"),
    "encoder h": ("CNN14, shared\nby both views", "(B, d)\ntwice", "07"),
    "heads": ("similarity z,\ncoincidence", "(B, 128), (B, B)", "06 07"),
    "losses": ("NT-Xent +\ncoincidence", "one number", "06"),
}
after = {
    "shallow classifier": ("mAP, d′ on labels", "(clips, classes)", "08 10"),
    "retrieval": ("query by example", "pairs, ranked", "09 10"),
}


# %% tags=["folded"]
def box(axis, x, y, title, text, colour):
    """One station of the path, 1.7 wide and 2 high, with its middle at (x, y)."""
    what, shapes, number = text
    style = {"boxstyle": "round,pad=0.05", "facecolor": colour, "alpha": 0.18, "edgecolor": colour}
    axis.add_patch(plt.matplotlib.patches.FancyBboxPatch((x - 0.85, y - 1), 1.7, 2, **style))
    axis.text(x, y + 0.68, title, ha="center", va="center", weight="bold", fontsize=9.5)
    axis.text(x, y + 0.08, what, ha="center", va="center", fontsize=8.5)
    axis.text(x, y - 0.45, shapes, ha="center", va="center", fontsize=7.5, family="monospace")
    axis.text(x, y - 0.83, f"notebook {number}", ha="center", va="center", fontsize=8, color=colour)


def arrow(axis, start, end):
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.3", "linewidth": 1.5})


# %% tags=["folded"]
def draw_path(axis):
    blue, red, green, violet = notebook.COLOURS[:4]
    for i, (title, text) in enumerate(path.items()):
        box(axis, 2.1 * i, 0, title, text, blue if i < 4 else green if i == 4 else red)
        if i:
            arrow(axis, (2.1 * i - 1.22, 0), (2.1 * i - 0.88, 0))
    for i, (title, text) in enumerate(after.items()):
        box(axis, 2.1 * (4 + i), -2.9, title, text, violet)
        arrow(axis, (8.4 + 0.4 * i, -1.08), (8.4 + 1.7 * i, -1.82))
    axis.text(3.15, 1.3, "how pairs are made, without labels", ha="center", color=blue)
    axis.text(8.4, 1.3, "the product", ha="center", color=green)
    axis.text(11.55, 1.3, "only to train it", ha="center", color=red)
    axis.text(7.3, -2.9, "after training, with h frozen;\nonly now do labels count", ha="right", va="center")


# %% tags=["folded"]
figure, axis = plt.subplots(figsize=(14, 5))
draw_path(axis)
axis.set(xlim=(-1, 13.6), ylim=(-4, 1.7))
axis.axis("off")
notebook.show(
    "The path: scenes, separator, views, augmentation, encoder, heads and losses in a row; below the encoder the two tests "
    "of its output h, a classifier and retrieval. What to notice: labels enter below only.")  # fmt: skip

# %% [markdown]
# ## The notebooks
#
# Each runs alone: what it needs of an earlier one is loaded, or made and kept. In order they tell one story. Each says
# at its top how long it takes.
#
# | | title | what you make |
# |---|---|---|
# | 00 | **Listen first** | this page |
# | 01 | [Scenes](01_scenes.ipynb) | the data: events, places, mixtures; a log-mel spectrogram by hand |
# | 02 | [Inside the separator](02_inside_the_separator.ipynb) | TDCN++, block by block; mixture consistency |
# | 03 | [Train the separator](03_train_the_separator.ipynb) | MixIT by hand, then `fit` |
# | 04 | [Snapshots](04_snapshots.ipynb) | N, F, S1, S2 of one run, heard and measured |
# | 05 | [Views](05_views.ipynb) | the pairs: mixtures, channels, masks, the OR rule |
# | 06 | [Two losses](06_two_losses.ipynb) | NT-Xent and coincidence by hand |
# | 07 | [Contrastive pretraining](07_contrastive_pretraining.ipynb) | the encoder; four ways in which training fails |
# | 08 | [Linear probe](08_linear_probe.ipynb) | classifiers on frozen h, beside controls |
# | 09 | [Query by example](09_query_by_example.ipynb) | a search engine for sounds |
# | 10 | [Ablations](10_ablations.ipynb) | several ways to train side by side, with the slides' numbers |
# | 11 | [The triplet ancestor](11_the_triplet_ancestor.ipynb) | the system of 2018: its constraints and its loss |
# | 12 | [Your own sounds](12_your_own_sounds.ipynb) | a folder of recordings, from files to channels and a search |

# %%
correlation = {name: (found * mixtures[:, None]).sum(axis=-1)
               / np.linalg.norm(found, axis=-1) / np.linalg.norm(mixtures, axis=-1)[:, None]
               for name, found in channels.items()}  # with the own mixture, (clips, sources)  # fmt: skip
course.record(
    "00",
    improvement_of_two_events=[better[i] for i in ranked],
    game_on_whole_scenes=whole,
    game_on_two_moments=moments,
    game_chance=float(chance),
    correlation_with_mixture={name: float(np.median(found)) for name, found in correlation.items()},
    verdicts=verdicts,
)

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | a scene is a mixture of events | "time-varying collections of sound sources" | `course.scenes["test"][i]` |
# | a separator learns without labels | TDCN++ trained by MixIT, M = 2 channels | `course.snapshots()` |
# | mixture and channel: a positive pair | "mix vs chan", the best pairing | `channels["S2"][i]` beside `mixtures[i]` |
# | an untrained separator makes views too | "processor N": *processor* is the paper's word for a snapshot | `snapshots["N"]` |
# | the encoder's output is the product | h is used downstream | notebook 07: `course.encoder()` |

# %% [markdown]
# ## Exercises
#
# **1.** Change one number. The rules got 96 frames of 10 ms each, nearly a second. Predict for S2: do shorter cuts, of 24
# frames, make colour better or worse? And timing? Then try.

# %% tags=["your turn"]
my_frames = None  # your turn: 24, 48, 192
if my_frames is not None:
    print({kind: f"{play(channel_mel['S2'], rule, my_frames)[0]:.2f}" for kind, rule in rules.items()})

# %% tags=["solution"]
for tried in (24, 96, 192):
    print(tried, {kind: f"{play(channel_mel['S2'], rule, tried)[0]:.2f}" for kind, rule in rules.items()})
# Less sound gives a less certain average, so colour falls. Timing stays near guessing: the moments differ anyway.

# %% [markdown]
# **2.** Build a rule. It takes log-mel `(clips, frames, mels)` and returns one row of numbers for each clip, with length
# one (`alike` does that). Can you find one that uses neither the average spectrum nor the loudness over time?


# %% tags=["your turn"]
def my_rule(mel):
    return None  # your turn


# %%
if my_rule(mixture_mel) is not None:
    assert my_rule(mixture_mel).ndim == 2 and len(my_rule(mixture_mel)) == len(scenes), "a row for each clip"
    assert np.allclose(np.linalg.norm(my_rule(mixture_mel), axis=1), 1, atol=1e-3), "of length one"
    print({name: f"{play(found, my_rule, 96)[0]:.2f}" for name, found in channel_mel.items()}, f"guessing {chance:.2f}")

# %% tags=["solution"]
restless = lambda mel: alike(mel.std(axis=1))  # noqa: E731 - how much each band moves, whatever its average
print({name: f"{play(found, restless, 96)[0]:.2f}" for name, found in channel_mel.items()}, f"guessing {chance:.2f}")

# %% [markdown]
# **3.** Play another round: another number in `default_rng`. Do N's channels make the game easier or harder for
# *you*?

# %% tags=["your turn"]
# your turn: `draw_round(np.random.default_rng(3))`, then `notebook.players` as above, with channels["N"]

# %% tags=["solution"]
clips, sources, order = draw_round(np.random.default_rng(3))
game = {f"mixture {i + 1}": mixtures[clip] for i, clip in enumerate(clips)}
game |= {f"N, channel {'ABCD'[k]}": channels["N"][clips[i], sources[i]] for k, i in enumerate(order)}
notebook.players(game, rate)
told = ", ".join(f"{'ABCD'[k]} belongs to mixture {int(i) + 1}" for k, i in enumerate(order))
notebook.folded("Show the answer", told)

# %% [markdown]
# **4.** Give the rule of colour the true sources of two-event scenes instead of channels. Is the game harder for it than with
# channels? Why might it be?

# %% tags=["your turn"]
# your turn: the sources are in `scenes[i].sources`, for i in `pairs`; `rules` and `log_mel` do the rest

# %% tags=["solution"]
true = np.stack([scenes[i].sources for i in pairs], axis=1)  # (2, clips, samples)
own = rules["colour"](mixture_mel[pairs])  # (clips, mels)
compared = {"true sources": np.stack([np.asarray(log_mel(waves)) for waves in true])}
compared |= {name: found[:, pairs] for name, found in channel_mel.items()}
for title, found in compared.items():
    best = np.stack([(own @ rules["colour"](mel).T).argmax(axis=0) for mel in found])  # (2, clips)
    print(f"{title:<13}{np.mean(best == np.arange(len(pairs))):.2f} right (guessing {1 / len(pairs):.2f})")
# A true source lacks all of the other one; a channel that leaks shares more with its mixture, and is easier to place.

# %% [markdown]
# ## What to read next
#
# * The abstract of the paper: Fonseca et al. 2021, *Self-supervised learning from automatically separated sound
#   scenes*.
# * Chen et al. 2020, *A simple framework for contrastive learning of visual representations*: the same game with
#   images.
#
# Next: [01 · Scenes](01_scenes.ipynb), where the data is made.
