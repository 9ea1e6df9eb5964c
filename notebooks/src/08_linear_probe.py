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
# # 08 · Linear probe

# %% [markdown]
# | | |
# |---|---|
# | **you will** | freeze the encoder, train small classifiers on its embeddings, and measure beside five controls, with intervals |
# | **you need** | what an embedding is (07); the metrics are built here by hand |
# | **you make** | mAP and d′ of chance, log-mel statistics, a random projection, an untrained, a pretrained and a supervised encoder |
# | **time** | 2 to 4 minutes on a CPU (tiny), half of it the supervised control; on a GPU: not measured yet |

# %% tags=["parameters"]
import os

PROFILE = os.environ.get("SEPCL_PROFILE", "tiny")
DATA = os.environ.get("SEPCL_DATA", "made")
SEED = os.environ.get("SEPCL_SEED", "0")
OUT = os.environ.get("SEPCL_OUT")

# %%
import dataclasses
import time
from collections import Counter
from statistics import NormalDist

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from sepcl_keras.course import notebook, outcomes
from sepcl_keras.course.slides import MAIN_ROW, Contrast
from sepcl_keras.evaluation import intervals
from sepcl_keras.evaluation.classifiers import linear_probe, shallow_classifier
from sepcl_keras.evaluation.metrics import average_precisions, d_prime, mean_average_precision
from sepcl_keras.encoder.embedding import embed_log_mel
from sepcl_keras.views.log_mel import windows

course = notebook.setup(PROFILE, DATA, SEED, OUT)
verdicts = {}  # claims about sounds and training: whether they hold in this run

# %% [markdown]
# ## What "frozen h" means
#
# Pretraining is over. The two heads have done their work and are thrown away; what remains is the **encoder**, a
# function from a patch of sound to a vector of numbers, the **embedding** h. Nobody has told it a single class name.
#
# Is h any good? The paper asks in the simplest way. **Freeze** the encoder: its weights never change again. Give h to
# a *small* classifier with labels, and see how well that does. A small classifier can arrange only so much by itself, so
# the better it does, the better the classes were already arranged in h. How much it can arrange by itself is what
# controls will tell.
#
# The encoder comes from notebook 07; if you have not run that one, it is found or made now. (It counts a few more weights
# than the trainable parameters there: the running statistics of batch norm are among them.)

# %%
encoder, history = course.encoder()
frozen = encoder.get_weights()  # a copy; at the end of this notebook we check that nothing has touched them
print(f"frozen encoder: {encoder.count_params():,} weights, h has {encoder.embedding_dim} numbers")

# %% [markdown]
# ## From windows to a clip
#
# A scene is longer than the encoder's input. So we cut its log-mel spectrogram into patches of 96 frames, side by side,
# and embed each: one h per **window** (what is left over at the end is not used). The **clip embedding** is the mean over
# the windows.
#
# **Question.** What would be lost, and what gained, if the encoder read the scene in one piece instead?

# %%
test, test_labels = course.judged["test"], course.judged["test"].labels  # labels (clips, classes), zeros and ones
log_mel = course.log_mel("test")  # (clips, frames, mels)
patches = windows(log_mel[:1])  # (1, windows, 96, mels)
h_windows = embed_log_mel(log_mel[:1], encoder)  # (1, windows, d)
h_clip = h_windows.mean(axis=1)  # (1, d)
print("log-mel", log_mel[:1].shape, "-> patches", patches.shape, "-> h", h_windows.shape, "-> clip", h_clip.shape)

# %%
figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 4.6), height_ratios=(3, 2))
number, length = patches.shape[1:3]
top.imshow(np.asarray(log_mel[0], "float32").T, origin="lower", aspect="auto", cmap="magma",
           extent=(0, log_mel.shape[1] * 0.01, 0, log_mel.shape[2]))  # fmt: skip
for edge in range(number + 1):
    top.axvline(edge * length * 0.01, color="white", linewidth=1.5)
notebook.mel_axis(top)
top.set(xlabel="time in s", title=f"test scene 0 ({', '.join(test[0].labels)}) and its windows")
image = bottom.imshow(h_windows[0], aspect="auto", cmap="RdBu_r", interpolation="nearest",
                      vmin=-np.abs(h_windows).max(), vmax=np.abs(h_windows).max())  # fmt: skip
bottom.set(xlabel="component of h", ylabel="window", yticks=range(number))
figure.colorbar(image, ax=bottom, label="value")
notebook.show(
    "Above, the windows of a scene; below, a line of h for each: many columns keep their colour, others change."
)
notebook.players({"test scene 0": test[0].mixture})

# %% [markdown]
# In one piece nothing would be cut in two at a window's edge, and the encoder could hear how a sound goes on. But it has
# learned from patches of one second only, and the longer the piece, the more different things one h would have to hold.
#
# In the picture, columns that keep their colour from window to window are components that hardly depend on the moment;
# columns that change follow what happens in the scene.
#
# Being frozen has a second side. During training, batch normalisation used the statistics of the batch at hand; now it
# uses stored ones. So the h of a clip must not depend on the other clips of the batch. That can be checked:

# %%
alone, in_company = embed_log_mel(log_mel[:1], encoder), embed_log_mel(log_mel[:8], encoder)[:1]
difference = float(np.abs(alone - in_company).max() / np.abs(alone).max())
assert difference < 1e-3, "h depends on the neighbours in the batch"
print(f"largest relative difference of h, embedded alone or with seven others: {difference:.1e}")

# %% [markdown]
# ## Average precision by hand
#
# Before anything is measured, the measure. A scene holds several classes, so "which class is it?" has no single answer.
# We ask a separate question for each class: **rank** all clips by the classifier's score for, say, *rain*. Do the clips
# with rain come first?
#
# Walk down the ranking. Whenever you meet a clip that has the class, note the **precision** so far: the share of clips
# up to here that have it. The mean of these notes is the **average precision** (AP). Six clips will do:

# %%
truth = np.array([1, 0, 1, 1, 0, 0])  # does the clip have the class?
scores = np.array([0.9, 0.8, 0.6, 0.5, 0.3, 0.2])  # what a classifier said

order = np.argsort(-scores)
hits = np.cumsum(truth[order])
rank = np.arange(1, len(truth) + 1)
precision = hits / rank
notebook.table(
    [dict(rank=int(r), score=float(scores[i]), has="yes" if truth[i] else "", precision=float(p) if truth[i] else None)
     for r, i, p in zip(rank, order, precision)],
    dict(rank="rank", score="score", has="has the class", precision="precision so far"),
)  # fmt: skip

# %% [markdown]
# **Question.** What is the mean of the three noted precisions? And which single swap of neighbours would raise it most?

# %%
by_hand = float(precision[truth[order] == 1].mean())
by_library = float(average_precisions(truth[:, None], scores[:, None])[0])
assert np.isclose(by_hand, by_library), "average precision by hand and by the library differ"
print(f"average precision by hand {by_hand:.4f}, by the library {by_library:.4f}")
swapped = {}
for first in range(len(order) - 1):  # swap two neighbours of the ranking
    ranking = truth[order]
    ranking[[first, first + 1]] = ranking[[first + 1, first]]
    swapped[f"ranks {first + 1} and {first + 2}"] = float((np.cumsum(ranking) / rank)[ranking == 1].mean())
best = max(swapped, key=swapped.get)
print(f"with {best} swapped: {swapped[best]:.4f}")

# %% [markdown]
# A swap that brings a hit up raises AP, one that takes it down lowers it, and the higher up in the list, the more: a
# hit that falls from rank 1 to 2 costs far more than one that falls from 4 to 5.
#
# **mAP** (mean average precision) is the mean of AP over classes. Ours is the **macro** mean: a rare class counts as
# much as a frequent one.
#
# Why not count right answers? Because most answers are "no":

# %%
share = float(test_labels.mean())
print(f"in the test scenes {share:.1%} of all (clip, class) cells are positive,")
print(f"so a classifier that always says no is right in {1 - share:.1%} of them, and useless")

# %% [markdown]
# ## What is chance?
#
# If a classifier gives all clips the same score, no ranking exists, and the precision everywhere is simply the share of
# positives. That share, averaged over classes, is the **chance** printed in this course.
#
# **Question.** A classifier that gives *random* scores: will its mAP lie at that share, or a little above or below?

# %%
present = test_labels.any(axis=0)  # a class without a positive has no AP, and is skipped
chance = float(test_labels[:, present].mean())
rng = np.random.default_rng(0)
random_map = [mean_average_precision(test_labels, rng.random(test_labels.shape)) for _ in range(50)]
equal_map = mean_average_precision(test_labels, np.zeros(test_labels.shape))
assert np.isclose(equal_map, chance), "equal scores should give the share of positives"
print(f"share of positives {chance:.3f} · equal scores {equal_map:.3f} · random scores {np.mean(random_map):.3f} "
      f"(from {min(random_map):.3f} to {max(random_map):.3f}), {len(test_labels)} clips")  # fmt: skip

# %% [markdown]
# A little above. With few positives, one lucky clip at the very top is worth a lot; the fewer clips, the more. Keep the
# upper end of that range in mind: it is the true bar for "better than guessing".
#
# ## d′ by hand
#
# The paper's field also reports **d′** ("d prime"), from the psychology of detection. Take one clip with the class and
# one without: how often does the first get the higher score? That share is the **AUC** (area under the ROC curve, which we
# can do without). Now imagine the scores of both kinds of clips as two equally wide bell curves. d′ says how far apart,
# in standard deviations, they would have to stand to give that AUC: d′ = √2 Φ⁻¹(AUC), where Φ⁻¹ is the inverse of the cumulative normal
# distribution. Chance is AUC 0.5 and d′ 0; below zero is worse than guessing.

# %%
with_class, without = scores[truth == 1], scores[truth == 0]
auc = float((with_class[:, None] > without[None]).mean())  # over all pairs (positives, negatives)
d_by_hand = 2**0.5 * NormalDist().inv_cdf(auc)
assert np.isclose(d_by_hand, d_prime(truth[:, None], scores[:, None])), "d' differs from the library's"
print(f"AUC {auc:.3f}, d' {d_by_hand:.3f}")

figure, axis = plt.subplots(figsize=(6, 2.2))
grid = np.linspace(-3.5, 3.5 + d_by_hand, 300)
for centre, title in ((0, "without the class"), (d_by_hand, "with the class")):
    axis.fill_between(grid, [NormalDist(centre).pdf(x) for x in grid], alpha=0.5, label=title)
axis.set(xlabel="score, in standard deviations", ylabel="density", title=f"two bells, d′ = {d_by_hand:.2f} apart")
axis.legend()
notebook.show("The two bells overlap: in more than one case in five, the clip without the class would score higher.")

# %% [markdown]
# Unlike AP, d′ does not depend on how rare a class is: it compares one clip with the class and one without.
#
# ## The linear probe
#
# Now the smallest classifier there is: for each class one weighted sum of the components of h, squashed to a
# probability (**logistic regression**). It can only draw one flat border through the space of embeddings. What it
# reaches says how much of the class structure is already *linearly* there.

# %%
labels = {split: scenes.labels for split, scenes in course.judged.items()}  # (clips, classes) each
embeddings = {"ours": course.embeddings(encoder)}  # name -> split -> (clips, windows, d)
clips = {split: h.mean(axis=1) for split, h in embeddings["ours"].items()}  # (clips, d) each
linear_scores = linear_probe(clips["train"], labels["train"], clips["test"])  # (clips, classes)
linear_map = mean_average_precision(test_labels, linear_scores)
print({split: h.shape for split, h in embeddings["ours"].items()})
print(f"linear probe on ours: mAP {linear_map:.3f} (chance {chance:.3f})")

# %% [markdown]
# ## The shallow classifier
#
# The paper goes one small step further: **one hidden layer** with ReLU between h and the classes. Written out:

# %%
d, classes = clips["train"].shape[1], len(course.classes)
shallow = keras.Sequential(
    [
        keras.Input((d,)),  # h of one window
        keras.layers.Normalization(),  # each component to mean 0 and deviation 1, by the training clips
        keras.layers.Dense(512, activation="relu"),
        keras.layers.Dense(classes, activation="sigmoid"),  # one probability a class: several may be high
    ]
)
trained_weights = sum(int(np.prod(w.shape)) for w in shallow.trainable_weights)
print(f"frozen encoder {encoder.count_params():,} weights · shallow classifier {trained_weights:,} · "
      f"linear probe {(d + 1) * classes:,}")  # fmt: skip

# %% [markdown]
# `shallow_classifier` trains exactly this on the **windows**, each with its clip's labels, and averages the
# windows' scores into a clip's score. It stops when mAP on the validation scenes no longer rises: the test scenes are
# looked at once, at the end.
#
# **Question.** Some windows of a scene labelled *dog* hold no dog at all. Why can training on them still work?

# %%
h = embeddings["ours"]
ours_scores = shallow_classifier(
    h["train"], labels["train"], h["validation"], labels["validation"], h["test"], seed=course.seed
)  # (clips, classes), for the test scenes
by_class_scores = {"ours": ours_scores}
ours_map = mean_average_precision(test_labels, ours_scores)
ours_d = d_prime(test_labels, ours_scores)
print(f"shallow classifier on ours: mAP {ours_map:.3f}, d' {ours_d:.2f} (linear probe: mAP {linear_map:.3f})")

# %% [markdown]
# It works because the wrong labels are wrong at random, and the right ones are not. A window without the dog may hold
# anything, so such windows agree on nothing; the windows with the dog agree. The price is lower scores for all.
#
# ## How sure is that? Draw the test anew
#
# The test scenes are a few hundred of all the scenes there could be. With others the number would be another one; but
# how far off? The **bootstrap** lets the scenes at hand stand for all: draw as many of them as there are, *with
# replacement*, so that some come twice and some not at all; compute mAP; do it again and again. The middle 95 % of these
# numbers is the **interval** that this course prints. (A scene that is drawn twice has itself beside it in the ranking.
# That makes AP higher, the more so the fewer scenes there are. So the interval is moved back by as much as the mean of the
# draws lies above the number measured.)
#
# **Question.** Before you look: will it be as narrow as ±0.005, or as wide as ±0.05?

# %%
rng = np.random.default_rng(0)
drawn = rng.integers(len(test_labels), size=(100, len(test_labels)))  # 100 tests, each of as many scenes
by_hand = [mean_average_precision(test_labels[some], ours_scores[some]) for some in drawn]
counted = np.stack([np.bincount(some, minlength=len(test_labels)) for some in drawn])  # how often each scene is in each
at_once = intervals.mean_average_precisions(test_labels, ours_scores, counted)  # (100,)
assert np.allclose(by_hand, at_once), "by hand and by the library differ"
weights = intervals.draws(len(test_labels))  # 1,000 tests more, counted already
resampled = intervals.mean_average_precisions(test_labels, ours_scores, weights)  # (1,000,)
print("100 tests by hand:   95 % from {:.3f} to {:.3f}".format(*intervals.interval(by_hand, ours_map)))
print("1,000 tests at once: 95 % from {:.3f} to {:.3f}".format(*intervals.interval(resampled, ours_map)))
print(f"mAP itself {ours_map:.3f}; the mean of the draws lies {resampled.mean() - ours_map:.3f} higher")

# %% [markdown]
# Nearer to ±0.05 with a few hundred scenes.
#
# Three things it does not cover: another *seed* of the training (notebook 10), other kinds of sound, and other
# *recordings*. Each recording is in several of the test scenes, so the scenes are less different than their number
# suggests, and the interval is too narrow. And two numbers whose intervals overlap may still differ clearly, because both were measured on the
# *same* scenes: a hard scene is hard for both. So differences get intervals of their own, further down.
#
# ## Is that good? The controls
#
# A number alone says nothing: a classifier with labels can get far on almost any input. So the same evaluation, with
# the same scenes and the same classifiers, is given five other inputs:
#
# * **chance**: no input at all;
# * **log-mel statistics**: no network; mean and deviation of each mel band in a window, 128 numbers;
# * **random projection**: no network; each patch times one matrix of random numbers, which gives as many numbers as h
#   has. Distances between patches stay about what they were: this is what they are worth before any network;
# * **untrained encoder**: the same network with its initial weights. Random convolutions are surprisingly good
#   at describing textures;
# * **supervised encoder**: the same network trained *with* the labels, on the same scenes. It shows what labels give with
#   this network and so much data. It is no ceiling: it trains for fewer steps than ours.
#
# The first four learn nothing. What pretraining has to exceed is the **best** of them.
#
# The supervised encoder is trained here unless it is there already; a line per epoch shows how far it is.

# %%
supervised, supervised_history = course.supervised_encoder()

# %% [markdown]
# **Question.** Write down the order you expect: log-mel statistics, random projection, untrained, ours, supervised. How
# close to the supervised encoder can an encoder come that never saw a label?

# %%
inputs = {
    "log-mel statistics": "log-mel statistics",
    "random projection": "random projection",
    "untrained encoder": course.untrained_encoder(),
    "ours": encoder,
    "supervised encoder": supervised,
}
rows = {}
for name, network in inputs.items():
    began = time.perf_counter()
    if name not in embeddings:
        embeddings[name] = course.embeddings(network)
        by_class_scores[name] = course.scores(embeddings[name])  # the shallow classifier's
    rows[name] = course.evaluate(embeddings[name], by_class_scores[name])
    print(f"{name:<20} evaluated in {time.perf_counter() - began:.0f} s", flush=True)


# %%
without_learning = ("log-mel statistics", "random projection", "untrained encoder")
control = max(without_learning, key=lambda name: rows[name]["map"])  # the best of them, by mAP


def with_ends(row, key):
    """A number and the ends of its interval."""
    return "{:.3f} ({:.3f} to {:.3f})".format(row[key], *row[f"{key}_interval"])


assert np.isclose(rows["ours"]["linear_map"], linear_map), "our own steps and course.evaluate disagree"
assert np.isclose(rows["ours"]["chance"], chance)
keys = {"map": "mAP, shallow (95 %)", "linear_map": "mAP, linear (95 %)", "d_prime": "d′, shallow (95 %)"}
lines = [dict(name="chance", map=chance, linear_map=chance, d_prime=0.0)]
lines += [{"name": name} | {key: with_ends(row, key) for key in keys} for name, row in rows.items()]
notebook.table(lines, {"name": "input of the classifier"} | keys)
print(f"classes without a positive in the test, skipped: {rows['ours']['skipped']} of {len(course.classes)}")
print(f"best control without learning: {control}, mAP {rows[control]['map']:.3f}")

# %%
kinds = {name: "pretrained without labels" if name == "ours" else "control" for name in rows}
for key, title in (("map", "mAP, shallow classifier"), ("linear_map", "mAP, linear probe")):
    ends = {name: row[f"{key}_interval"] for name, row in rows.items()}
    notebook.bars({name: row[key] for name, row in rows.items()}, title, chance, groups=kinds, intervals=ends,
                  alt=f"{title}: every input lies right of chance, so only the distance from the best control counts.")  # fmt: skip

# %% [markdown]
# Even inputs for which no encoder was trained are far above chance: so the bar is the best control, not chance.
#
# Compare the two charts. Where the shallow classifier is far above the linear probe, the classes are in the embedding, but
# need a bent border. Where it is below, its hidden layer had too few clips to learn from. (They also average different
# things over windows: the shallow classifier its scores, the linear probe h itself.)
#
# ## Claims
#
# Claims should be written so that they can turn out false. A claim is a difference in mAP, and the bootstrap gives it
# an interval: each time the *same* scenes are drawn for both sides. (The interval reaches 1.96 standard deviations of the
# draws to either side, which 95 % of a bell curve would fill.) The claim **holds** where the interval lies above zero,
# **fails** where it lies below; else it is **undecided**. *Random scores* stand for guessing.
#
# The course relies on three of the claims: with made sounds at the profile tiny these differences exceed 0.02. They may
# not where there are few recordings, where training is short (at the profile smoke it takes a few steps only), or where
# classes do not differ in sound. A line for each of the three says what this run found. ✗ does not mean that something is
# broken. It means that this run allows no conclusion about pretraining; the notebook goes on.

# %%
MARGIN = 0.02
by_class_scores["random scores"] = np.random.default_rng(0).random(test_labels.shape)
claims = {  # (higher, lower): does the course rely on it?
    ("ours", "random scores"): True,
    ("untrained encoder", "random scores"): True,
    ("supervised encoder", "untrained encoder"): True,
    ("ours", "untrained encoder"): False,
    ("ours", "log-mel statistics"): False,
    ("supervised encoder", "ours"): False,
}
drawn = {name: [intervals.map_draws(test_labels, scores)] for name, scores in by_class_scores.items()}  # one seed each
gaps = {(a, b): intervals.paired_difference(drawn[b], drawn[a]) for a, b in claims}

# %%
notebook.table(
    [dict(claim=f"{a} > {b}", gap=gaps[a, b].mean, ends=f"{gaps[a, b].low:+.3f} to {gaps[a, b].high:+.3f}",
          verdict=gaps[a, b].verdict, relied="yes" if relied else "") for (a, b), relied in claims.items()],
    dict(claim="claim", gap="difference in mAP", ends="95 %", verdict="verdict", relied=f"should exceed {MARGIN}"),
)  # fmt: skip

# %%
for a, b in (pair for pair, relied in claims.items() if relied):
    gap = gaps[a, b].mean
    notebook.verdict(verdicts, f"{a} above {b}", gap > MARGIN, f"difference in mAP {gap:+.3f}, should exceed {MARGIN}")

# %% [markdown]
# ## Class by class
#
# The mean hides a lot. Here is the AP of each class that occurs in the test scenes, for three of the inputs; a grey
# tick is the class's own chance, the share of clips that have it.
#
# **Question.** Which classes would you expect to gain most from training: steady ones such as rain, or those that are
# known by how they change over time?

# %%
three = ("ours", "untrained encoder", "supervised encoder")
per_class = {name: average_precisions(test_labels, by_class_scores[name]) for name in three}  # (classes,)
shown = [c for c in np.argsort(np.nan_to_num(per_class["ours"])) if present[c]]
figure, axis = plt.subplots(figsize=(8, 0.3 * len(shown) + 1.2))
axis.hlines(range(len(shown)), 0, 1, color="0.92", zorder=0)
for (name, values), marker in zip(per_class.items(), "oxs"):
    axis.scatter(values[shown], range(len(shown)), marker=marker, label=name, zorder=3)
axis.scatter(test_labels.mean(axis=0)[shown], range(len(shown)), marker="|", s=90, color="0.4", label="chance")
axis.set_yticks(range(len(shown)), [f"{course.classes[c]} ({int(test_labels[:, c].sum())})" for c in shown])
axis.set(xlabel="average precision, shallow classifier", ylabel="class (positives in the test)", xlim=(0, 1.02))
axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
notebook.show("The classes differ far more from each other than the three encoders do within a class.")

# %%
gain = np.where(present, per_class["ours"] - per_class["untrained encoder"], np.nan)
best, worst = int(np.nanargmax(gain)), int(np.nanargmin(gain))
print(f"ours above the untrained encoder in {int(np.nansum(gain > 0))} of {int(present.sum())} classes;")
gains = np.argsort(-np.where(present, gain, -np.inf))[:3]
print("most gained:", ", ".join(f"{course.classes[c]} {gain[c]:+.3f}" for c in gains))
print(f"highest difference {course.classes[best]} ({gain[best]:+.3f}), "
      f"lowest {course.classes[worst]} ({gain[worst]:+.3f})")  # fmt: skip

# %% [markdown]
# Both kinds may be among those that gain most, so the rule is not that simple. And a class with few positives has a shaky
# AP: one clip more or less at the top moves it visibly. Trust such a number less.
#
# ## A map of h
#
# Can one *see* classes in h? It has too many dimensions for a page. **t-SNE** lays points out in two so that neighbours
# stay neighbours; how far apart two groups lie, or how large one is, means nothing on such a map. Here are the test scenes
# that hold a single event, each a point, coloured by its class.
#
# The fourth map is of random numbers, with the same classes dealt out to them.
#
# **Question.** Will the classes form islands in all maps? And can you trust your eyes?

# %%
single = np.flatnonzero(test.number_of_events == 1)
if len(single) < 8:  # recorded scenes may all have several labels: then the first one
    single = np.arange(len(test))
classes_of = test_labels[single].argmax(axis=1)  # (scenes,)
recordings = np.array([test.recordings[i][0] for i in single])
barred = recordings[:, None] == recordings  # the scene itself, and scenes that share its recording
likely = np.mean([np.mean(classes_of[~barred[i]] == classes_of[i]) for i in range(len(single))])
points = {
    name: embeddings[name]["test"][single].mean(axis=1) for name in ("untrained encoder", "ours", "supervised encoder")
}
points["random numbers"] = np.random.default_rng(0).normal(size=points["ours"].shape)

# %%
frequent = [c for c, _ in Counter(classes_of.tolist()).most_common(6)]
figure, axes = plt.subplots(1, 4, figsize=(13, 3.4))
for axis, (name, x) in zip(axes, points.items()):
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)  # length 1: distances are cosines
    # The perplexity is about how many neighbours a point tries to keep.
    tsne = TSNE(perplexity=min(15, (len(x) - 1) / 3), init="pca", random_state=course.seed)
    with threadpool_limits(1):  # of so few points; more threads would wait for each other
        spots = tsne.fit_transform(x)
    axis.scatter(*spots.T, s=12, color="0.8")
    for c in frequent:
        axis.scatter(*spots[classes_of == c].T, s=26, label=course.classes[c])
    nearest = np.where(barred, -2, x @ x.T).argmax(axis=1)  # in all dimensions, not on the map
    same = np.mean(classes_of[nearest] == classes_of)
    axis.set(title=f"{name}\nnearest is of the same class: {same:.0%}", xticks=[], yticks=[])
    axis.title.set_fontsize(9)
axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
notebook.show("Islands of one colour: which map has them? The percentage above each map is computed in all dimensions.")
print(f"{len(single)} scenes; another one, picked at random, is of the same class in {likely:.0%} of cases")

# %% [markdown]
# Not in all, and eyes are easily fooled: even the map of random numbers seems to have groups. So the percentages count,
# with all dimensions, how often the nearest scene by cosine is of the same class (never one that shares a recording). The
# maps only illustrate them. Where picture and percentage disagree, trust the percentage.
#
# ## Listen to what it says
#
# For each test scene we can also rank the *classes* by their scores and ask for the AP of that ranking (it is the same
# function on the transposed tables). Four scenes, from the best ranked to the worst.
#
# **Question.** Listen before you look at the table: which classes do *you* hear?

# %%
our_scores = by_class_scores["ours"]
per_scene = average_precisions(test_labels.T, our_scores.T)  # (clips,)
ranking = np.argsort(-per_scene, kind="stable")
chosen = [int(ranking[round(q * (len(ranking) - 1))]) for q in (0, 1 / 3, 2 / 3, 1)]
see = (
    "Four scenes, from the best ranked to the worst. The last need not look hard: compare it with what was heard in it."
)
notebook.listen({f"test scene {i}": test[i].mixture for i in chosen}, columns=2, alt=see)


# %%
def top_classes(i, number=4):
    """The classes with the highest scores; those that are in the scene have a tick."""
    top = np.argsort(-our_scores[i])[:number]
    return ", ".join(f"{course.classes[c]} {our_scores[i, c]:.2f}{' ✓' if test_labels[i, c] else ''}" for c in top)


notebook.table(
    [dict(scene=i, truth=", ".join(test[i].labels), said=top_classes(i), ap=float(per_scene[i])) for i in chosen],
    dict(scene="test scene", truth="in the scene", said="highest scores (✓ is right)", ap="AP of the scene"),
)

# %% [markdown]
# ## What this run says
#
# The sentences below are made from the numbers, so they fit your run and no other.

# %%
words = {"holds": "above", "fails": "below", "undecided": "not clearly apart from"}
print(f"the best control without learning is: {control}")
for a, b in (("ours", "untrained encoder"), ("ours", "log-mel statistics"), ("supervised encoder", "ours")):
    print(f"{a}: mAP {rows[a]['map']:.3f}, {words[gaps[a, b].verdict]} {b} ({rows[b]['map']:.3f}, "
          f"difference {gaps[a, b].mean:+.3f})")  # fmt: skip
above = {name: rows[name]["map"] - rows[control]["map"] for name in ("ours", "supervised encoder")}
if gaps["supervised encoder", "untrained encoder"].verdict == "holds" and above["supervised encoder"] > 0:
    way = above["ours"] / above["supervised encoder"]
    print(f"on a scale with {control} at 0 and the supervised encoder at 1, ours is at {way:.2f}")
    print(f"(the supervised encoder trained for {course.profile.supervised_steps} steps, ours for "
          f"{course.profile.pretraining_steps}: with more, the former would be higher)")  # fmt: skip
else:
    print("the supervised encoder is not clearly above the controls here: this run is too small to judge by")

# %% [markdown]
# One run is one draw of everything. The **study** (notebook 10) draws sounds, separator, encoder and classifiers anew in each of
# its replicates, on made sounds and on the recordings of ESC-10. Its networks are smaller than this one, and its supervised
# encoder has as many steps as ours. How far apart are they there? (In mAP; the intervals are for 95 %, over replicates.)

# %%
wanted = [Contrast("ours − untrained encoder", (MAIN_ROW,), ("untrained encoder",)),
          Contrast("supervised encoder − ours", ("supervised encoder",), (MAIN_ROW,))]  # fmt: skip
for bank, found in outcomes.committed().items():
    for contrast in wanted:
        gap = outcomes.contrast(found, contrast)
        print(f"{bank}, {gap.number} of {outcomes.REPLICATES} replicates: {contrast.title}: {gap.text}")

# %% [markdown]
# None of this can be put beside the slides' level: AudioSet has 527 classes and natural scenes. What may be compared is *order*.
#
# One promise is left. Were the weights frozen?

# %%
assert all(np.array_equal(a, b) for a, b in zip(frozen, encoder.get_weights(), strict=True)), "the encoder has moved"
print("the encoder's weights are what they were at the start: all classifiers were trained on frozen h")

# %%
recorded = course.record(
    "08",
    rows=rows,
    claims={f"{a} > {b}": dataclasses.asdict(gap) | {"verdict": gap.verdict} for (a, b), gap in gaps.items()},
    random_map=float(np.mean(random_map)),
    supervised_first_losses=supervised_history["first_losses"],
    verdicts=verdicts,
)  # fmt: skip

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | the product is h, before the heads | "h is used for downstream tasks" | `course.encoder()`, `embed_log_mel` |
# | frozen encoder, small classifier | "a shallow network on top" of it | `shallow_classifier` |
# | one hidden layer, ReLU | "MLP w/ one layer + ReLU"; width not given, 512 here | `hidden=512` |
# | linear probe | not in the slides | `linear_probe` |
# | clip from windows | not in the slides; mean of window scores | `embedding.windows`, mean over axis 1 |
# | macro mAP | mAP over AudioSet's classes | `mean_average_precision` |
# | d′ | not in the slides | `d_prime` |
# | a map | not in the slides | `sklearn.manifold.TSNE` of h |
# | how sure | not in the slides | `intervals`: test scenes drawn anew, differences on the same scenes |
# | controls | other methods' published numbers | log-mel statistics, random projection, untrained, supervised |

# %% [markdown]
# ## Exercises
#
# **1. Predict.** Labels are expensive. Give the linear probe a tenth of the labelled clips only. Does the order of the
# inputs stay? Does the distance between ours and the best control grow or shrink? Write down a guess, then write
# the loop: every tenth clip, the mean over its windows, `linear_probe`, mAP, for each input in `embeddings`.

# %% tags=["your turn"]
every = 10  # your turn: `clips["train"][::every]` are a tenth

# %% tags=["solution"]
few, found = slice(None, None, 10), {}  # every tenth clip
for name, h in embeddings.items():
    pooled = {split: values.mean(axis=1) for split, values in h.items()}
    predicted = linear_probe(pooled["train"][few], labels["train"][few], pooled["test"])
    found[name] = mean_average_precision(test_labels, predicted)
    print(f"{name:<20} mAP {found[name]:.3f} with {len(labels['train'][few])} labelled clips, "
          f"{rows[name]['linear_map']:.3f} with {len(labels['train'])}")  # fmt: skip
for title, maps in (("few", found), ("all", {name: row["linear_map"] for name, row in rows.items()})):
    best = max(without_learning, key=maps.get)
    print(f"{title} labels: ours {maps['ours'] - maps[best]:+.3f} from the best control without learning, {best}")

# %% [markdown]
# **2.** The clip embedding is the *mean* over windows. A short event fills one window of several. Would the *maximum*
# of each component be better for it? Try the linear probe on both, for ours and for the untrained encoder.

# %% tags=["your turn"]
# your turn: `h.max(axis=1)` instead of `h.mean(axis=1)`, in all splits

# %% tags=["solution"]
for name in ("ours", "untrained encoder"):
    pooled_map = {}
    for title, pool in (("mean", np.mean), ("maximum", np.max)):
        pooled = {split: pool(h, axis=1) for split, h in embeddings[name].items()}
        predicted = linear_probe(pooled["train"], labels["train"], pooled["test"])
        pooled_map[title] = mean_average_precision(test_labels, predicted)
    more = pooled_map["maximum"] - pooled_map["mean"]
    print(f"{name:<18}", " · ".join(f"{title} {value:.3f}" for title, value in pooled_map.items()), f"· {more:+.3f}")

# %% [markdown]
# With made sounds at the profile tiny the maximum is clearly better for ours: a short event is diluted by the mean, and the
# maximum keeps its traces, whichever window it fell into. The step is larger than most differences between rows in notebook
# 10. So whatever is compared must be pooled in the same way, and a paper should say how. The course takes the mean
# throughout, which does not mean that it is best. (For retrieval the maximum need not help: try it in notebook 09.)

# %% [markdown]
# **3.** Square all scores of the classifier (they lie between 0 and 1). Does mAP change? Then add to each *class* a
# constant of its own. And then to each *clip*. Predict all three.

# %% tags=["your turn"]
# your turn: `mean_average_precision(test_labels, our_scores**2)`, and so on

# %% tags=["solution"]
offsets = np.random.default_rng(1).random(max(our_scores.shape))
precise = our_scores.astype("float64")  # so that no two scores become equal by rounding
for title, changed in {
    "as it is": precise,
    "squared": precise**2,
    "a constant for each class": precise + offsets[: precise.shape[1]],
    "a constant for each clip": precise + offsets[: precise.shape[0], None],
}.items():
    print(f"{title:<26} mAP {mean_average_precision(test_labels, changed):.3f}")
# AP looks at the order of clips within a class. The first two changes keep that order; the last one does not.

# %% [markdown]
# **4. Build it.** Write average precision, also for clips with *equal* scores: these share one rank, so at each of them the
# precision counts them all. The check compares with the library on 100 random rankings, many with ties.


# %% tags=["your turn"]
def my_average_precision(truth, scores):
    """AP of one class from truth (clips,), zeros and ones, and scores (clips,)."""
    # your turn
    return 0.0


# %%
def check_average_precision(function):
    """Whether it agrees with the library on rankings of 12 clips whose scores have one decimal."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        truth, scores = rng.permutation([1] * 4 + [0] * 8), rng.random(12).round(1)
        expected, found = float(average_precisions(truth[:, None], scores[:, None])[0]), float(function(truth, scores))
        if not np.isclose(found, expected):
            return print(f"not yet: truth {truth}, scores {scores}: expected {expected:.4f}, found {found:.4f}")
    print("right: 100 rankings agree")


check_average_precision(my_average_precision)


# %% tags=["solution"]
def my_average_precision(truth, scores):
    above = scores[None] >= scores[:, None]  # (clips, clips): which clips stand at least as high as this one
    precision = (above * truth).sum(axis=1) / above.sum(axis=1)
    return precision[truth == 1].mean()


check_average_precision(my_average_precision)

# %% [markdown]
# ## What to read next
#
# * Alain and Bengio 2016, *Understanding intermediate layers using linear classifier probes*.
# * Turian et al. 2022, *HEAR: Holistic Evaluation of Audio Representations*: frozen embeddings on many tasks.
# * Kong et al. 2020, *PANNs*: CNN14 trained with all of AudioSet's labels.
#
# Next: [09 · Query by example](09_query_by_example.ipynb), which needs no classifier at all.
