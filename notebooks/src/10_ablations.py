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
# # 10 · Ablations

# %% [markdown]
# | | |
# |---|---|
# | **you will** | change one ingredient of the system at a time, train each variant, and compare them seed by seed, with intervals |
# | **you need** | what a processor, the OR rule and the two losses are (05, 06), and the metrics (08, 09) |
# | **you make** | a table of trained rows and controls with spreads, the slides' numbers beside them |
# | **time** | about 4 minutes on a CPU (tiny), nearly all of it training; on a GPU: not measured yet |

# %% tags=["parameters"]
import os

PROFILE = os.environ.get("SEPCL_PROFILE", "tiny")
DATA = os.environ.get("SEPCL_DATA", "made")
SEED = os.environ.get("SEPCL_SEED", "0")
OUT = os.environ.get("SEPCL_OUT")

# %%
import dataclasses
import itertools
import time

import matplotlib.pyplot as plt
import numpy as np

from sepcl_keras import notebook
from sepcl_keras.tables import MAIN_ROW, read_rows
from sepcl_keras.intervals import map_draws, paired_difference
from sepcl_keras.processors import ViewPairs
from sepcl_keras.training import new_encoder

course = notebook.setup(PROFILE, DATA, SEED, OUT)
profile = course.profile

# %% [markdown]
# ## One table says it all
#
# An **ablation** takes a system apart: leave one ingredient out, train again, and see what it was worth. The slides
# do so in two tables, and compare with other systems in a third. All are kept in a single file, `data/rows.csv`, with one
# line for each way to pretrain: which views make a pair, which **processors** (snapshots of the separator) may make them,
# the weight of each loss, the augmentation, and the mAP that the slides give. A line is all that the training needs to know.
#
# Some lines are not in the slides: coincidence alone, another augmentation (**mix-back**, a faint second clip as a
# background), and the parts of the **triplet** system of 2018, the ancestor (Jansen et al.). That one learns from an anchor, a
# positive made of it by a **constraint**, and a negative from the batch: noise, a shift, another sound mixed in, or simply
# another moment of the clip (proximity).

# %%
rows = read_rows()  # name -> Row
notebook.table(
    [dataclasses.asdict(row) | dict(processors=" or ".join(row.processors) or None,
                                    constraints=", ".join(row.constraints) or None, d=row.d or profile.embedding_dim,
                                    tutorial="yes" if row.tutorial else "") for row in rows.values()],
    dict(row="row", table="slides' table", pairing="pair of views", processors="processors", similarity="similarity",
         coincidence="coincidence", augmentation="augmentation", constraints="triplets by", d="d",
         slides="slides mAP", tutorial="trained here"),
)  # fmt: skip
print("snapshots: N, F, S1, S2 stand at separator steps", dict(profile.snapshot_steps), "in this profile;")
print("in the paper at 0, 500, 5,000 and 1.7 million")

# %% [markdown]
# The slides' numbers are from AudioSet: two million clips, 527 classes. Ours come from far fewer scenes and classes.
# **Their level cannot be compared with ours**; what can be compared is which row stands above which.
#
# ## What the slides say
#
# Table 2 first: views by separation beside views of the mixture alone, each with and without SpecAugment.

# %%
table_2 = [row for row in rows.values() if row.table == 2]
reference = rows["S2"]  # the last row of Table 2 is the first of Table 4, and stands in the file once
kinds = {row.row: "mixture and mixture" if row.pairing == "mix-mix" else "mixture and channel"
         for row in [*table_2, reference]}  # fmt: skip
notebook.bars(
    {row.row: row.slides for row in [*table_2, reference]}, xlabel="mAP on AudioSet, slides' Table 2", groups=kinds
)

# %% [markdown]
# Then Table 4: each choice of processors, trained for similarity alone and for similarity and coincidence **jointly**.
#
# **Question.** N is the *untrained* separator. Where do you expect it among the single processors?

# %%
table_4 = {}  # processors -> {joint or not: slides' mAP}
for row in rows.values():
    if row.table == 4 and row.similarity:
        table_4.setdefault(row.processors, {})[row.coincidence > 0] = row.slides
names = ["∨".join(processors) for processors in table_4]
alone, joint = (np.array([both[key] for both in table_4.values()]) for key in (False, True))

# %%
figure, axis = plt.subplots(figsize=(7.5, 3.2))
axis.hlines(range(len(names)), alone, joint, color="0.8", linewidth=3, zorder=1)
axis.scatter(alone, range(len(names)), label="similarity", zorder=2)
axis.scatter(joint, range(len(names)), marker="s", label="similarity and coincidence", zorder=2)
axis.set_yticks(range(len(names)), names)
axis.invert_yaxis()
axis.set(xlabel="mAP on AudioSet, slides' Table 4", ylabel="processors")
axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
plt.show()

# %%
gain = joint - alone
single = [i for i, processors in enumerate(table_4) if len(processors) == 1]
best_single = single[int(alone[single].argmax())]
print(
    f"slides: joint above similarity alone in {(gain > 0).sum()} of {len(gain)} choices, by {gain.mean():.3f} on average"
)
print(f"slides: best single processor, similarity alone: {names[best_single]} ({alone[best_single]:.3f})")
print(f"slides: best of all: {names[int(joint.argmax())]} joint ({joint.max():.3f})")
print(f"slides: all {len(gain)} choices of processors lie within {np.ptp(alone):.3f} (similarity alone) "
      f"and {np.ptp(joint):.3f} (joint)")  # fmt: skip

# %% [markdown]
# Note how small these distances are. With AudioSet's many test clips they may be real; at our size a difference of that
# kind drowns unless the effect happens to be larger here. That is why each row below is trained with **several seeds**
# (at the smoke profile with one). A seed fixes the initial weights, the order of clips and every random crop and mask;
# everything else stays as it is.
#
# ## Training the rows
#
# The rows flagged *trained here* go through `course.encoder(row, seed)`: fewer steps than the main encoder of notebook
# 07 and (except at the smoke profile) a narrower network, so that all fit into a few minutes. Each is then frozen and
# evaluated as in notebooks 08 and 09. Where a run is on disk already it is loaded, and the seconds shown are those of
# loading.

# %%
chosen = [row for row in rows.values() if row.tutorial]
seeds = [1 + course.seed * profile.ablation_seeds + k for k in range(profile.ablation_seeds)]
runs, scores = [], {}
for number, (row, seed) in enumerate(itertools.product(chosen, seeds), start=1):
    began = time.perf_counter()
    encoder, history = course.encoder(row, seed=seed, show=False)
    seconds = time.perf_counter() - began
    h = course.embeddings(encoder)  # split -> (clips, windows, d)
    scores[row.row, seed] = course.scores(h)  # of the shallow classifier, (clips, classes)
    measured = course.evaluate(h, scores[row.row, seed])
    runs.append(dict(row=row.row, seed=seed, first_losses=history["first_losses"]) | measured)
    print(f"[{number}/{len(chosen) * len(seeds)}] {row.row}, seed {seed}: {seconds:.0f} s, "
          f"last loss {history['loss'][-1]:.3f}, mAP {measured['map']:.3f}", flush=True)  # fmt: skip

# %% [markdown]
# Losses of different rows must not be compared: a joint row adds a second loss, and an easier pair of views gives a
# lower loss without being any better for it.
#
# ## Controls at the same size
#
# The fair counterpart of a row is the *same* network with the *same* initial weights and no training. So the untrained
# control, too, comes once for each seed.

# %%
chance = runs[0]["chance"]  # of the test labels, the same for all
untrained = []
for seed in seeds:
    h = course.embeddings(new_encoder(profile.embedding_dim, profile.ablation_width, seed))
    scores["untrained encoder", seed] = course.scores(h)
    untrained.append(dict(row="untrained encoder", seed=seed) | course.evaluate(h, scores["untrained encoder", seed]))
    print(f"untrained encoder, seed {seed}: mAP {untrained[-1]['map']:.3f}", flush=True)

# %% [markdown]
# And for orientation, at the full size of this profile: the main encoder, its untrained twin and the supervised one,
# and two controls without a network, which have no size. Where notebook 08 has measured them, its numbers are taken.

# %%
without_network = ("log-mel statistics", "random projection")
full_size = {  # name in notebook 08 -> what gives the network
    **{name: lambda name=name: name for name in without_network},
    "untrained encoder": course.untrained_encoder,
    "supervised encoder": lambda: course.supervised_encoder()[0],
    "ours": lambda: course.encoder()[0],
}
known = (course.results("08") or {}).get("rows", {})
print("from notebook 08:", ", ".join(name for name in full_size if name in known) or "nothing yet")
full = {name: known.get(name) or course.evaluate(course.embeddings(make())) for name, make in full_size.items()}

# %% [markdown]
# ## The table
#
# Each row is a **mean over seeds**; ± is **half the range** over seeds, (largest − smallest) / 2, of mAP. A dash
# means that there is one seed only, or no number in the slides.
#
# **Question.** Before you read on: write down the order that you expect for the rows trained here. It is the slides'
# order if all holds.


# %%
def entry(name, group, measured, slides=None):
    """A line of the table: the mean of some runs, and half the range of their mAP."""
    keys = ("map", "linear_map", "d_prime", "qbe", "qbe_chance")
    maps = [one["map"] for one in measured]
    spread = (max(maps) - min(maps)) / 2 if len(maps) > 1 else None
    means = {key: float(np.mean([one[key] for one in measured])) for key in keys}
    return dict(row=name, group=group) | means | dict(map_spread=spread, slides=slides, seeds=len(measured))


table = [entry(name, "control", [full[name]]) for name in without_network]
table.append(entry("untrained encoder", "control", untrained))
table += [entry(r.row, "row", [run for run in runs if run["row"] == r.row], r.slides) for r in chosen]
table += [entry("untrained encoder (full size)", "control", [full["untrained encoder"]]),
          entry(f"{MAIN_ROW} (full length)", "main", [full["ours"]], rows[MAIN_ROW].slides),
          entry("supervised encoder (full size)", "control", [full["supervised encoder"]])]  # fmt: skip

# %%
print(f"ablations: width {profile.ablation_width}, {profile.ablation_steps} steps · full: width {profile.width}, "
      f"{profile.pretraining_steps} steps · chance mAP {chance:.3f}")  # fmt: skip
notebook.table(
    table,
    dict(row="encoder", group="group", seeds="seeds", map="mAP", map_spread="± seeds", linear_map="linear mAP",
         d_prime="d′", qbe="QbE mAP", qbe_chance="QbE chance", slides="slides mAP"),
)  # fmt: skip

# %% [markdown]
# ## Every seed a point
#
# A mean hides how far its seeds lie apart, so here is each seed by itself; the bar marks the mean. On the right, on
# an axis of its own, the slides' number for the same row. Compare the *order* from left to right, never the level.

# %%
small = [*without_network, "untrained encoder", *(row.row for row in chosen)]
points = {name: [run["map"] for run in runs + untrained if run["row"] == name] for name in small}
points |= {name: [full[name]["map"]] for name in without_network}

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.5 * len(small) + 1.2), sharey=True, width_ratios=(2, 1))
for position, (name, values) in enumerate(points.items()):
    colour = "#1b6ca8" if name in rows else "0.5"
    left.scatter(values, [position] * len(values), color=colour, alpha=0.8)
    left.plot([np.mean(values)] * 2, [position - 0.25, position + 0.25], color=colour, linewidth=2)
    if name in rows and rows[name].slides:
        right.scatter(rows[name].slides, position, marker="D", color="#d1603d")
left.axvline(chance, color="0.4", linestyle="--", label=f"chance {chance:.3f}")
left.set_yticks(range(len(small)), small)
left.set(xlabel="mAP here (points: seeds, bar: mean)", ylim=(len(small) - 0.5, -0.5))
figure.legend(loc="outside upper center")
right.set(xlabel="mAP on AudioSet (slides)")
plt.show()

# %% [markdown]
# ## Paired by seed
#
# Two rows with the same seed start from the same weights and see the same clips in the same order. So the sharpest
# question is not "is the mean higher?" but "is it higher **seed by seed**?" Each comparison below changes one
# ingredient; each point is a seed. The grey band (for mAP only) is the 95 % interval of notebook 08 for their mean, with
# the seeds drawn anew as well as the test scenes, the same ones for both rows. With two seeds it is too narrow: where
# their luck is all there is, it ends at the two points and misses the truth every second time. With one, no seed is drawn
# at all.

# %%
comparisons = [  # what changes, from, to
    ("pretraining at all", "untrained encoder", "mix-mix"),
    ("a channel as the second view", "mix-mix", "S2"),
    ("an untrained processor as well (OR)", "S2", "S2∨N"),
    ("coincidence prediction as well", "S2∨N", "S2∨N joint"),
]
comparisons = [(title, a, b) for title, a, b in comparisons if a in points and b in points]

# %%
of_seed = {(run["row"], run["seed"]): run for run in runs + untrained}


def differences(a, b, key="map"):
    """b minus a for each seed, (seeds,)."""
    return np.array([of_seed[b, seed][key] - of_seed[a, seed][key] for seed in seeds])


def slides_difference(a, b):
    theirs = [rows[name].slides if name in rows else None for name in (a, b)]
    return None if None in theirs else theirs[1] - theirs[0]


# %%
labels = course.scenes["test"].labels
drawn = {run: map_draws(labels, found) for run, found in scores.items()}  # (row, seed) -> (1 + draws,)
intervals_of = {
    (a, b): paired_difference(*([drawn[name, seed] for seed in seeds] for name in (a, b))) for _, a, b in comparisons
}

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 0.6 * len(comparisons) + 1.3), sharey=True)
for position, (_, a, b) in enumerate(comparisons):
    difference = intervals_of[a, b]
    axes[0].plot((difference.low, difference.high), (position, position), color="0.7", linewidth=5, zorder=1)
for axis, key, title in zip(axes, ("map", "qbe"), ("mAP, shallow classifier", "QbE mAP")):
    for position, (_, a, b) in enumerate(comparisons):
        axis.scatter(differences(a, b, key), [position] * len(seeds), color="#1b6ca8")
        theirs = slides_difference(a, b) if key == "map" else None
        if theirs is not None:
            axis.scatter(theirs, position, marker="D", color="#d1603d", zorder=3)
    axis.axvline(0, color="0.4", linestyle="--")
    axis.locator_params(axis="x", nbins=6)
    axis.set(xlabel=f"difference in {title}", ylim=(len(comparisons) - 0.5, -0.5))
axes[0].plot([], [], color="0.7", linewidth=5, label="95 %")
for marker, colour, label in (("o", "#1b6ca8", "a seed"), ("D", "#d1603d", "slides")):
    axes[0].scatter([], [], marker=marker, color=colour, label=label)
axes[0].set_yticks(range(len(comparisons)), [f"{title}\n{a} → {b}" for title, a, b in comparisons], fontsize=8)
figure.legend(loc="outside upper center", ncols=3)
plt.show()

# %% [markdown]
# ## What it says
#
# The sentences are made from the numbers of this run.

# %%
for title, a, b in comparisons:
    d, q, theirs = differences(a, b), differences(a, b, "qbe"), slides_difference(a, b)
    beside = "" if theirs is None else f"; in the slides {theirs:+.3f}"
    between = intervals_of[a, b]
    print(f"{title}: {b} above {a} in {(d > 0).sum()} of {len(d)} seeds, mean {d.mean():+.3f}{beside}")
    ends = f"{between.low:+.3f} to {between.high:+.3f}"
    print(f"    95 % from {ends}: {between.verdict}, as far as {len(d)} seed(s) can tell")
    print(f"    by query by example in {(q > 0).sum()} of {len(q)}, mean {q.mean():+.3f}")

# %%
means = {line["row"]: line["map"] for line in table}
ours = sorted((row.row for row in chosen), key=means.get)
theirs = sorted((row.row for row in chosen if row.slides), key=lambda name: rows[name].slides)
print("order here:      ", " < ".join(ours))
print("order in slides: ", " < ".join(theirs))

# %%
agree = 0.5 ** (len(seeds) - 1)
print(f"coin tosses would put all {len(seeds)} seed(s) on one and the same side in {agree:.0%} of cases")
above = [row.row for row in chosen if means[row.row] > means["untrained encoder"]]
print(f"rows above the untrained encoder of their size: {', '.join(above) or 'none'}")
main, twin = means[f"{MAIN_ROW} (full length)"], means["untrained encoder (full size)"]
print(f"full length: {MAIN_ROW} {main:.3f}, its untrained twin {twin:.3f} ({main - twin:+.3f})")

# %% [markdown]
# ## What it does not say
#
# * **A few seeds prove little.** The lines above tell how often mere coin tosses would put all seeds on one side,
#   whether or not they stand there in this run; a verdict from two seeds is worth no more. The test scenes are the same
#   for all seeds; that luck the intervals do know (exercise 1).
# * **The level is not comparable.** AudioSet's mAP and ours are averages over different classes of different
#   difficulty.
# * **S2 is not their S2.** Their last snapshot has seen 1.7 million steps, ours the number printed at the top.
# * **One recipe for all.** Learning rate, temperature, masks and loss weights were not tuned for any row, and the
#   trainings are short: a row that learns slowly looks worse than it may become.
# * **Rows that are not trained here** are shown by the slides' numbers alone. Set `tutorial` to `yes` in
#   `data/rows.csv`, and they join.

# %%
assert all(np.isfinite(run["map"]) and 0 < run["map"] <= 1 for run in runs), "a run without a valid mAP"
assert [line["slides"] for line in table if line["group"] == "row"] == [row.slides for row in chosen]
if course.profile.name != "smoke":
    assert min(run["map"] for run in runs) > chance, "a trained row is no better than chance"
recorded = course.record(
    "10",
    table=table,
    claims={f"{b} > {a}": dataclasses.asdict(gap) | {"verdict": gap.verdict} for (a, b), gap in intervals_of.items()},
    runs=[{key: run[key] for key in ("row", "seed", "map", "linear_map", "qbe", "first_losses")} for run in runs],
)
print("recorded:", ", ".join(recorded))

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | rows as data, not as code | Tables 2 and 4 | `data/rows.csv`, `read_rows` |
# | mixture and channel instead of mixture twice | Table 2, "mix vs mix" and "mix vs chan" | `pairing` |
# | processors joined by the OR rule | Table 4, lower half | `processors`, `ViewPairs` |
# | joint training | Table 4, right column, "small boosts across the board" | `similarity`, `coincidence` |
# | controls | none of these in the slides | untrained, supervised, log-mel statistics, random projection |
# | how sure | one number a row | half the range over seeds; `intervals.paired_difference` |

# %% [markdown]
# ## Exercises
#
# **1.** How much of an interval's width is the test scenes', how much the seeds'? Take the first and the last trained
# row and one seed at a time: then only the scenes are drawn anew.

# %% tags=["solution"]
first, last = chosen[0].row, chosen[-1].row
for seed in seeds:
    alone = paired_difference([drawn[first, seed]], [drawn[last, seed]])
    print(f"{last} minus {first}, seed {seed}: {alone.mean:+.3f}, 95 % from {alone.low:+.3f} to {alone.high:+.3f}")
together = paired_difference(*([drawn[name, seed] for seed in seeds] for name in (first, last)))
print(f"all seeds together: 95 % from {together.low:+.3f} to {together.high:+.3f}")

# %% [markdown]
# **2.** How well does the order here agree with the slides'? Count the pairs of rows that stand in the same order in
# both (this is Kendall's idea of rank correlation). What would chance give?

# %% tags=["solution"]
pairs = list(itertools.combinations([row for row in chosen if row.slides], 2))
same = sum((means[b.row] - means[a.row]) * (b.slides - a.slides) > 0 for a, b in pairs)
print(f"{same} of {len(pairs)} pairs in the slides' order; a random order gets {len(pairs) / 2:g} on average")

# %% [markdown]
# **3.** Add a row that the slides do not have: two *channels* as the views, from N or F. Write it, and look at the
# views that its first batch would draw. (Training it is one more line, and takes as long as any row above.)

# %% tags=["solution"]
new = dataclasses.replace(rows["S2"], row="N∨F chan-chan", pairing="chan-chan", processors=("N", "F"))
views = course.views()
drawn = ViewPairs(views, new.pairing, new.processors, profile.batch_size, steps=1, seed=course.seed).draw(0)
which = ["mixture", *(f"{name}, channel {m}" for name in views.processors for m in range(views.num_sources))]
for clip, view_a, view_b in zip(drawn[0][:5], *drawn[1][:, :5]):
    print(f"clip {clip:>4}: {which[view_a]} beside {which[view_b]}")
assert 0 not in drawn[1], "a mixture among channels"
# encoder, history = course.encoder(new, seed=course.seed + 1)

# %% [markdown]
# ## What to read next
#
# * Bouthillier et al. 2021, *Accounting for variance in machine learning benchmarks*: which sources of luck to vary.
# * Tian et al. 2020, *What makes for good views for contrastive learning?*: why a channel may be a better second view
#   than the mixture.
#
# You have reached the end of the path. Take it again with recordings (`DATA`), another `SEED`, or from the top:
# [00 · Listen first](00_listen_first.ipynb).
