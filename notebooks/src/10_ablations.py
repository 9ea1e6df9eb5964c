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
# | **you will** | change one ingredient of the system at a time, see how little one training says, and judge ten claims of the slides by a study of many |
# | **you need** | what a processor, the OR rule and the two losses are (05, 06), and the metrics (08, 09) |
# | **you make** | four rows, trained; the study's tables as forest plots, the slides' numbers beside them; ten verdicts |
# | **time** | about 3 minutes on a CPU (tiny), nearly all of it training; on a GPU: not measured yet |

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

from sepcl_keras import notebook, study
from sepcl_keras.intervals import map_draws, paired_difference
from sepcl_keras.processors import ViewPairs
from sepcl_keras.tables import MAIN_ROW, RELATIONS, read_rows
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
# Some lines are not in the slides: a control that is given the **true sources** of each scene for channels, coincidence
# alone, another augmentation (**mix-back**, a faint second clip as a background), and the parts of the **triplet** system of
# 2018, the ancestor, which notebook 11 takes apart.

# %%
rows = read_rows()  # name -> Row
notebook.table(
    [dataclasses.asdict(row) | dict(processors=" or ".join(row.processors) or None,
                                    constraints=", ".join(row.constraints) or None, d=row.d or profile.embedding_dim,
                                    tutorial="yes" if row.tutorial else "") for row in rows.values()],
    dict(row="row", table="slides' table", pairing="pair of views", processors="processors", similarity="similarity",
         coincidence="coincidence", augmentation="augmentation", constraints="triplets by", d="d",
         slides="slides mAP", tutorial="trained here", seeds="seeds in the study"),
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
table_2 = [row for row in rows.values() if row.table == 2 and row.slides]
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
# Note how small these distances are, and that each of these numbers is *one* training. Ten claims can be read out of the
# tables:

# %%
notebook.table(
    [dict(number=r.number, claim=r.claim) for r in RELATIONS], dict(number="", claim="the slides claim that")
)

# %% [markdown]
# (*Joint* is training for similarity and coincidence; the last two are of Table 5, where *ours* is S2∨F∨N joint with
# d = 128.)
#
# **Question.** Which of the ten would you bet on, at our size: thousands of times less data, a separator of minutes, 18
# classes of made sounds? Write down *holds*, *fails* or *cannot be told* for each, before you go on.
#
# ## Four rows, trained here
#
# The rows flagged *trained here* go through `course.encoder(row, seed)`: fewer steps than the main encoder of notebook
# 07 and (except at the smoke profile) a narrower network, so that all fit into a few minutes. Each is then frozen and
# evaluated as in notebooks 08 and 09. Where a run is on disk already it is loaded, and the seconds shown are those of
# loading. A seed fixes the initial weights, the order of clips and every random crop and mask.

# %%
chosen, seed = [row for row in rows.values() if row.tutorial], 1 + course.seed
runs, scores = [], {}
for number, row in enumerate(chosen, start=1):
    began = time.perf_counter()
    encoder, history = course.encoder(row, seed=seed, show=False)
    seconds = time.perf_counter() - began
    h = course.embeddings(encoder)  # split -> (clips, windows, d)
    scores[row.row] = course.scores(h)  # of the shallow classifier, (clips, classes)
    measured = course.evaluate(h, scores[row.row])
    runs.append(dict(row=row.row, seed=seed, first_losses=history["first_losses"]) | measured)
    print(f"[{number}/{len(chosen)}] {row.row}: {seconds:.0f} s, last loss {history['loss'][-1]:.3f}, "
          f"mAP {measured['map']:.3f}", flush=True)  # fmt: skip

# %% [markdown]
# Losses of different rows must not be compared: a joint row adds a second loss, and an easier pair of views gives a
# lower loss without being any better for it.
#
# ## Controls at the same size
#
# The fair counterpart of a row is the *same* network with the *same* initial weights and no training.

# %%
h = course.embeddings(new_encoder(profile.embedding_dim, profile.ablation_width, seed))
scores["untrained encoder"] = course.scores(h)
untrained = course.evaluate(h, scores["untrained encoder"])
chance = untrained["chance"]  # of the test labels, the same for all
print(f"untrained encoder: mAP {untrained['map']:.3f}, chance {chance:.3f}")

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
# A dash means that there is no number in the slides.


# %%
def entry(name, group, measured, slides=None):
    """A line of the table."""
    keys = ("map", "linear_map", "d_prime", "qbe", "qbe_chance")
    return dict(row=name, group=group, slides=slides) | {key: measured[key] for key in keys}


table = [entry(name, "control", full[name]) for name in without_network]
table.append(entry("untrained encoder", "control", untrained))
table += [entry(row.row, "row", run, row.slides) for row, run in zip(chosen, runs)]
table += [entry("untrained encoder (full size)", "control", full["untrained encoder"]),
          entry(f"{MAIN_ROW} (full length)", "main", full["ours"], rows[MAIN_ROW].slides),
          entry("supervised encoder (full size)", "control", full["supervised encoder"])]  # fmt: skip

# %%
print(f"rows: width {profile.ablation_width}, {profile.ablation_steps} steps · full: width {profile.width}, "
      f"{profile.pretraining_steps} steps · chance mAP {chance:.3f}")  # fmt: skip
notebook.table(
    table,
    dict(row="encoder", group="group", map="mAP", linear_map="linear mAP", d_prime="d′", qbe="QbE mAP",
         qbe_chance="QbE chance", slides="slides mAP"),
)  # fmt: skip

# %% [markdown]
# ## How little one training says
#
# Two rows with the same seed start from the same weights and see the same clips in the same order; the test scenes are
# the same, too. So their difference is sharper than the two numbers are. Each comparison below changes one ingredient.
# The line is the 95 % interval of notebook 08, test scenes drawn anew. **What another seed would give, it does not know.**

# %%
comparisons = {  # what changes: from, to
    "pretraining at all": ("untrained encoder", "mix-mix"),
    "a channel as the second view": ("mix-mix", "S2"),
    "an untrained processor as well": ("S2", "S2∨N"),
    "coincidence as well": ("S2∨N", "S2∨N joint"),
}
comparisons = {title: pair for title, pair in comparisons.items() if set(pair) <= set(scores)}
labels = course.scenes["test"].labels
drawn = {name: map_draws(labels, found) for name, found in scores.items()}  # name -> (1 + draws,)
gaps = {title: paired_difference([drawn[a]], [drawn[b]]) for title, (a, b) in comparisons.items()}

# %%
theirs = {title: rows[b].slides - rows[a].slides for title, (a, b) in comparisons.items() if a in rows}
titles = {title: f"{title}: {b} − {a}" for title, (a, b) in comparisons.items()}
notebook.forest(
    {"this run": {titles[title]: gap.ends for title, gap in gaps.items()}}, list(titles.values()),
    "difference in mAP", line=0, slides={titles[title]: gap for title, gap in theirs.items()},
    slides_label="difference on AudioSet (slides)",
)  # fmt: skip
for title, gap in gaps.items():
    print(f"{titles[title]}: {gap.mean:+.3f}, 95 % from {gap.low:+.3f} to {gap.high:+.3f}: {gap.verdict}")

# %% [markdown]
# Whatever the verdicts above say: they are of these seeds. To learn about a *way to train*, train it several times.
#
# ## The study
#
# So every row was trained and evaluated with several seeds, on made scenes and on scenes of real recordings (ESC-10,
# folds 1 to 4), twice as long as the rows above and tested on 1,000 scenes: hours of work, done once by `make study`. A
# run is known by the hash of all that defines it; its numbers are a line of `data/results/`, with the commit and the
# machine they come from, and no run is done twice. Rows, seeds, claims and the way to judge them were committed before
# the first run. (In one thing seeds are not independent: all use the same separator.)
#
# The controls are the same five as in notebook 08, and the true sources in place of the separator's channels.

# %%
results = study.committed()  # data -> row -> seed -> numbers
for data, found in results.items():
    print(f"{data}: {sum(map(len, found.values()))} runs of {len(found)} rows and controls")

# %%
for data, found in results.items():
    lines = study.table(found)
    print(
        f"{data}: means over seeds; chance mAP {lines[0]['chance']:.3f}, chance of retrieval {lines[0]['qbe_chance']:.3f}"
    )
    notebook.table(lines, dict(row="encoder", seeds="seeds", map="mAP", spread="± sd of seeds", linear_map="linear mAP",
                               d_prime="d′", qbe="QbE mAP", map_share="mAP, share of supervised", slides="slides mAP"))  # fmt: skip

# %% [markdown]
# The same as a **forest plot**: a point is the mean over seeds, its line the 95 % interval for other test scenes *and*
# other seeds. With three seeds such an interval is honest and wide: three numbers say little about a fourth (Student's t
# counts 4.3 standard errors where many seeds would need 2).
#
# **Question.** Where do you expect the true sources: a perfect separator?

# %%
names = dict.fromkeys(name for name, _ in study.plan())  # of controls and rows, in order
tables_2_and_4 = [name for name in names if name not in rows or rows[name].table in (2, 4)]

levels = {data: {name: study.level(found[name]).ends for name in found} for data, found in results.items()}
slides = {name: row.slides for name, row in rows.items()}
notebook.forest(levels, tables_2_and_4, "mAP, shallow classifier", slides=slides)

# %% [markdown]
# ## Ten claims
#
# A claim is about *differences*, and these are paired: by seed, and by test scene. It **holds** where the whole interval
# lies above zero, **fails** where it lies below, else it is **undecided**; a claim of several comparisons holds where all
# do and fails where one does. (Two exceptions are written into the claims: number 5 allows 0.01, and number 8 compares
# the best of three rows with the best of four, for each seed.) Asking so many questions at 95 %, one or two answers
# will be luck.

# %%
lines, judged, shown = [], {}, {data: {} for data in results}
for relation in RELATIONS:
    line = dict(number=relation.number, claim=relation.claim)
    for data, found in results.items():
        differences = study.differences(relation, found)
        line[data] = judged[f"{relation.number} {data}"] = study.verdict(differences)
        for comparison, difference in zip(relation.comparisons, differences):
            if difference:
                shown[data][relation.number, comparison] = difference.ends
    lines.append(line)
notebook.table(lines, dict(number="", claim="claim") | {data: data for data in results})

# %%
compared = [(relation.number, pair) for relation in RELATIONS for pair in relation.comparisons]
name_of = {(n, pair): f"{n}: {' or '.join(pair[1])} − {' or '.join(pair[0])}" if n != 8 else "8: best OR − best single, joint"
           for n, pair in compared}  # fmt: skip
slides_gap = {name_of[n, (a, b)]: max(slides[x] for x in b) - max(slides[x] for x in a) for n, (a, b) in compared}
notebook.forest(
    {data: {name_of[key]: gap for key, gap in gaps.items()} for data, gaps in shown.items()}, list(name_of.values()),
    "difference in mAP", line=0, slides=slides_gap, slides_label="difference on AudioSet (slides)",
)  # fmt: skip

# %% [markdown]
# WHY
#
# %% [markdown]
# ## What it does not say
#
# * **The level is not comparable.** AudioSet's mAP and ours are averages over different classes of different
#   difficulty.
# * **S2 is not their S2.** Their last snapshot has seen 1.7 million steps, ours the number printed at the top.
# * **One recipe for all.** Learning rate, temperature, masks and loss weights were not tuned for any row, and the
#   trainings are short: a row that learns slowly looks worse than it may become.
# * **One separator.** All seeds share it. With another one, a row that depends on it might stand elsewhere.
# * **Rows that are not trained here** come from the study. Set `tutorial` to `yes` in `data/rows.csv`, and they join.

# %%
assert all(np.isfinite(run["map"]) and 0 < run["map"] <= 1 for run in runs), "a run without a valid mAP"
assert [line["slides"] for line in table if line["group"] == "row"] == [row.slides for row in chosen]
if course.profile.name != "smoke":
    assert min(run["map"] for run in runs) > chance, "a trained row is no better than chance"
recorded = course.record(
    "10",
    table=table,
    claims={title: dataclasses.asdict(gap) | {"verdict": gap.verdict} for title, gap in gaps.items()},
    verdicts=judged,
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
# | how sure | one number a row | several seeds; `intervals.paired_difference` |
# | claims that can turn out false | "optimal separation is not needed", and others | `tables.RELATIONS`, `study.verdict` |
# | no run done twice | | `study.definition`, `data/results/` |

# %% [markdown]
# ## Exercises
#
# **1.** How much of an interval's width is the test scenes', how much the seeds'? Take one comparison of the study, and
# one seed at a time: then only the scenes are drawn anew.

# %% tags=["solution"]
for data, found in results.items():
    lower, higher = (
        {seed: run["map_draws"] for seed, run in found.get(name, {}).items()} for name in ("mix-mix", "S2")
    )
    common = sorted(set(lower) & set(higher))
    for some in [[seed] for seed in common] + ([common] if common else []):
        gap = paired_difference([lower[seed] for seed in some], [higher[seed] for seed in some])
        print(f"{data}, S2 − mix-mix, seeds {some}: {gap.mean:+.3f}, 95 % from {gap.low:+.3f} to {gap.high:+.3f}")

# %% [markdown]
# **2.** How well does the order in the study agree with the slides'? Count the pairs of rows that stand in the same
# order in both (this is Kendall's idea of rank correlation). What would chance give?

# %% tags=["solution"]
for data, found in results.items():
    means = {line["row"]: line["map"] for line in study.table(found)}
    pairs = list(itertools.combinations([name for name in means if slides.get(name)], 2))
    same = sum((means[b] - means[a]) * (slides[b] - slides[a]) > 0 for a, b in pairs)
    print(f"{data}: {same} of {len(pairs)} pairs in the slides' order; a random one gets {len(pairs) / 2:g} on average")

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
# Next: [11 · The triplet ancestor](11_the_triplet_ancestor.ipynb), where the last two claims are judged, and where you
# find what of the whole is reproduced here and what is not.
