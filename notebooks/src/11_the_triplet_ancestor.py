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
# # 11 · The triplet ancestor

# %% [markdown]
# | | |
# |---|---|
# | **you will** | go back from the paper of 2021 to the triplet system of 2018: see its four constraints, choose a negative by hand, train it, and judge Table 5 |
# | **you need** | views (05), NT-Xent (06), and how the study is judged (10) |
# | **you make** | a triplet's loss by hand, an encoder trained by it, a curve over numbers of labels, and a list of what this course reproduces and what it does not |
# | **time** | about 1 minute on a CPU (tiny); on a GPU: not measured yet |

# %% tags=["parameters"]
import os

PROFILE = os.environ.get("SEPCL_PROFILE", "tiny")
DATA = os.environ.get("SEPCL_DATA", "made")
SEED = os.environ.get("SEPCL_SEED", "0")
OUT = os.environ.get("SEPCL_OUT")

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

from sepcl_keras.course import notebook
from sepcl_keras.course import outcomes
from sepcl_keras.views.augmentation import CONSTRAINTS
from sepcl_keras.views.log_mel import PATCH_FRAMES, PATCH_SAMPLES, log_mel_model
from sepcl_keras.encoder.losses import Triplet
from sepcl_keras.course.slides import CLAIMS, CONTROLS, MAIN_ROW, Contrast, read_rows

course = notebook.setup(PROFILE, DATA, SEED, OUT)
profile, rows = course.profile, read_rows()
verdicts = {}  # claims about sounds and training: whether they hold in this run

# %% [markdown]
# ## Labels from common sense
#
# In 2018 Jansen and colleagues asked what one knows about a sound *without* knowing what it is (*Unsupervised learning of
# semantic audio representations*). They found four things, each a **constraint** on a good embedding:
#
# * **noise**: a sound with some noise on it is still the same kind of sound. (Each cell of the log-mel's magnitude grows
#   by a random factor.)
# * **shift**: so is a sound that comes at another moment, or a little higher or lower. (The patch is rotated in time by
#   any number of frames: what leaves at the end comes in at the start. In frequency it moves by up to 10 of the 64 mel bands, and silence fills what is left.)
# * **mixing**: a mixture still is what its parts are. (A second sound is added, with a quarter of the first one's energy.)
# * **proximity**: sounds that are heard within a few seconds of each other are likely to be related.
#
# Each makes a **positive** for a patch of sound, the **anchor**: something that should lie close to it. You know two of
# them already. Proximity is the random crop of notebook 05, and mixing is the ancestor of everything in this course:
# where 2018 *adds* a second sound to make a view, 2021 *takes the scene apart*.
#
# **Question.** Look at the four positives below. Which leaves the anchor most as it was? From which could an encoder learn
# most?

# %%
scene = course.scenes["test"][int(np.argmax(course.scenes["test"].number_of_events))]  # with as many events as any
windows = scene.mixture[: len(scene.mixture) // PATCH_SAMPLES * PATCH_SAMPLES].reshape(-1, PATCH_SAMPLES)
loudest = np.sort(np.argsort(-np.square(windows).sum(axis=1))[:2])  # two moments that are not silent
moments = windows[loudest]
other = course.scenes["test"][1].mixture[-PATCH_SAMPLES:]  # of another scene, to mix in
patches = np.asarray(log_mel_model()(np.stack([*moments, other])))  # (3, 96, 64)

# %%
positives = {"anchor": patches[0]}
for name, constraint in CONSTRAINTS.items():
    if constraint is None:  # proximity: the other moment is the positive
        positives[name] = patches[1]
    else:  # a layer, which changes something in training only; mixing takes its second sound from the batch
        batch = np.stack([patches[0], patches[2]])
        positives[name] = np.asarray(constraint(seed=course.seed)(batch, training=True))[0]
see = "Noise and mixing look almost like the anchor; shift has an empty band at an edge; proximity is another moment."
notebook.show_log_mel(positives, columns=5, alt=see)
notebook.players({"anchor": moments[0], "proximity: another moment": moments[1], "the other scene, mixed in": other})

# %% [markdown]
# Noise, shift and mixing change the log-mel and not the waveform, so they cannot be played. Shift is easily seen: silence
# fills a band at the edge. Noise and mixing are hard to tell from the anchor by eye, so here is what each of the four
# changes, positive minus anchor:

# %%
changes = {name: positive - positives["anchor"] for name, positive in positives.items() if name != "anchor"}
largest = max(np.abs(change).max() for change in changes.values())
figure, axes = plt.subplots(1, len(changes), figsize=(11, 2.3), sharey=True)
for axis, (name, change) in zip(axes, changes.items()):
    image = axis.imshow(change.T, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-largest, vmax=largest)
    axis.set(title=name, xlabel="frame")
notebook.mel_axis(axes[0])
figure.colorbar(image, ax=axes, label="change of log mel")
notebook.show(
    "Noise changes every cell a little, mixing only where the other sound is; shift and proximity nearly all."
)

# %%
compared = positives | {"a stranger: the other scene": patches[2]}
h = np.asarray(course.untrained_encoder()(np.stack(list(compared.values()))))
h = h / np.linalg.norm(h, axis=1, keepdims=True)
for name, cosine in zip(list(compared)[1:], h[1:] @ h[0]):
    change = np.abs(compared[name] - compared["anchor"]).mean()
    print(f"{name:<28} differs by {change:.2f} in log-mel; cosine to the anchor, untrained: {cosine:.4f}")

# %% [markdown]
# Noise and mixing leave the anchor most as it was; shift and proximity change the most cells, and leave the encoder the
# most to find out. An untrained network puts almost everything close together, so compare with the last line: is a
# positive nearer than a stranger? Usually all four are: what training has to do is to move strangers away and keep these near.
# Shift and proximity make that hardest.
#
# ## A triplet by hand
#
# A **triplet** is an anchor a, a positive p and a **negative** n, a patch of another clip. All embeddings are brought to
# length 1. The loss asks that the negative be farther than the positive, by a **margin** of 0.1, in squared distance:
#
# > loss = [ |a − p|² − |a − n|² + 0.1 ]₊
#
# where [x]₊ is x if positive, else 0. In two dimensions, embeddings are points on a circle. One anchor, its positive, and
# four candidates for the negative:

# %%
MARGIN = 0.1
degrees = {"anchor": 0, "positive": 40, "n1": 15, "n2": 43, "n3": -60, "n4": 150}
points = {name: np.array([np.cos(np.radians(x)), np.sin(np.radians(x))]) for name, x in degrees.items()}
squared = {name: float(np.sum((points["anchor"] - point) ** 2)) for name, point in points.items()}
losses = {name: max(0.0, squared["positive"] - squared[name] + MARGIN) for name in ("n1", "n2", "n3", "n4")}
notebook.table(
    [dict(name=name, squared=squared[name], loss=losses.get(name)) for name in points if name != "anchor"],
    dict(name="point", squared="squared distance to the anchor", loss="loss, if it is the negative"),
)

# %%
figure, axis = plt.subplots(figsize=(7.5, 4.2))
turn = np.linspace(0, 2 * np.pi, 200)
axis.plot(np.cos(turn), np.sin(turn), color="0.85")
for far, style, title in (
    (squared["positive"], "-", "as far as the positive"),
    (squared["positive"] + MARGIN, "--", "farther by the margin"),
):
    axis.plot(1 + far**0.5 * np.cos(turn), far**0.5 * np.sin(turn), style, color="0.6", linewidth=1, label=title)
colours = {"anchor": "black", "positive": "#1b6ca8"}
for name, (x, y) in points.items():
    axis.scatter(x, y, s=50, color=colours.get(name, "#d1603d"), zorder=3)
    axis.annotate(name, (x, y), xytext=(-62, -10) if name == "positive" else (6, 6), textcoords="offset points")
axis.set(xlim=(-1.3, 1.9), ylim=(-1.3, 1.3), aspect="equal")
axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
notebook.show("n1 lies inside both rings, n2 between them, n3 and n4 outside: only n1 and n2 have a loss.")

# %% [markdown]
# Outside of the dashed ring the loss is 0: n3 and n4 teach nothing. n1 lies *closer* than the positive, so its loss is the
# highest. But early in training the closest stranger is close by accident. The cheapest way to lower its loss is to shrink
# all distances, and then everything falls onto one point. So the negative is chosen **semi-hard**: the closest of those
# that are farther than the positive. (Where there is none, the library takes the farthest of all.)
#
# **Question.** Which one is it here, and what is the loss?

# %%
semi_hard = min((name for name in losses if squared[name] > squared["positive"]), key=squared.get)
print(f"semi-hard negative: {semi_hard}, loss {losses[semi_hard]:.4f}")

# The library takes the candidates from the batch: each pair's own positive, and the other pairs' as negatives.
batch_anchors = np.stack([points["anchor"], *(points[n] for n in losses)])
batch_positives = np.stack([points["positive"], *(points[n] for n in losses)])
by_library = np.asarray(Triplet(margin=MARGIN).call(batch_anchors.astype("float32"), batch_positives.astype("float32")))
assert np.isclose(by_library[0], losses[semi_hard], atol=1e-6), "by hand and by the library differ"
print(f"the library, for the first pair of the batch: {by_library[0]:.4f}")

# %% [markdown]
# It is n2, which lies just beyond the positive. NT-Xent (notebook 06) compares each anchor with all others in the batch; here
# there is *one* negative, and once it is farther than the positive by the margin, its loss is 0. There is no temperature,
# and no coincidence task. If all embeddings fall onto one point, both distances are 0, and the loss is the margin.
#
# ## Training it
#
# `TripletModel` takes pairs of patches, two moments of one clip each. The first is the anchor; for each pair one of the
# four constraints is drawn, and where it is proximity, the second moment is the positive. Encoder, clips, steps and seed
# are those of the rows of notebook 10.

# %%
encoder, history = course.encoder(rows["triplet joint"], seed=1 + course.seed, show=False)
figure, axis = plt.subplots(figsize=(5.5, 2.8))
axis.plot(history["step"], history["loss"], marker=".", label="triplet loss")
axis.axhline(MARGIN, color="0.4", linestyle="--", label=f"all on one point: {MARGIN}")
axis.set(xlabel="step", ylabel="loss", ylim=(0, None))
axis.legend()
notebook.show("The loss begins near the margin and falls below it: the embeddings do not stay on one point.")

# %%
measured = course.evaluate(course.embeddings(encoder))
known = {run["row"]: run for run in (course.results("10") or {}).get("runs", [])}
lines = [dict(row="triplet joint") | measured, *known.values()]
notebook.table(lines, dict(row="encoder, one seed each", map="mAP", linear_map="linear mAP", qbe="QbE mAP"))
print("the other rows are of notebook 10" if known else "notebook 10 has not run with these settings: no other rows")

# %% [markdown]
# ## Table 5: the study
#
# One training says little, as notebook 10 showed. In the study the joint triplet system stands beside the main row, the main
# row with a longer h, and mix-back. The slides' Table 5 has numbers for some of them, and for three systems that this course
# only quotes:

# %%
quoted = [  # of the slides' Table 5; not built here
    dict(method="C3 (2019): sound and picture, coincidence, clusters", d=128, slides=0.285),
    dict(method="MMV (2020): sound, picture and text", d=2048, slides=0.309),
    dict(method="Multi-format (2021): waveform against spectrogram", d=2048, slides=0.329),
]
notebook.table(quoted, dict(method="quoted only", d="d", slides="slides mAP"))

# %% [markdown]
# **Question.** The same encoder, batches and scenes; only views and loss differ. By how much do you expect ours to be above
# the triplet system? The slides have 0.066, with other encoders.

# %%
results = outcomes.committed()  # bank -> replicate -> row or control -> numbers
table_5 = [
    *CONTROLS,
    "mix-mix",
    "mix-mix with mix-back",
    *(row.row for row in rows.values() if row.table == 5 and row.row != "triplet joint"),
    MAIN_ROW,
]
pairs = {name: Contrast(name, (name,), ("triplet joint",)) for name in table_5}
series = {
    f"{bank}, {title}": {name: outcomes.contrast(found, pair, metric).ends for name, pair in pairs.items()
                         if outcomes.with_all(found, (name, "triplet joint"))}
    for bank, found in results.items() for metric, title in outcomes.METRICS.items()
}  # fmt: skip
slides = {
    name: rows[name].slides - rows["triplet joint"].slides for name in table_5 if name in rows and rows[name].slides
}
notebook.forest(series, table_5, "minus the joint triplet system (mAP or QbE)", line=0, slides=slides,
                groups={name: "control" if name in CONTROLS else "row" for name in table_5},
                slides_label="mAP on AudioSet (slides)",
                alt="Right of the dashed line a row is above the joint triplet system, in the same replicates.")  # fmt: skip

# %% [markdown]
# ## How much of what labels give?
#
# The triplet paper says that its embeddings *recover* 84 % of what **supervised** training reaches in classification, and 41 % in
# retrieval. From where does one count such a share: from 0, or from what log-mel statistics give, where nothing is learned? Its
# abstract does not say. So here are both.
#
# **Question.** Where does an encoder that was never trained stand on the two scales?

# %%
lines = []
for data, found in results.items():
    means = {line["row"]: line for line in outcomes.table(found)}
    for name in ("untrained encoder", "triplet joint", MAIN_ROW, f"{MAIN_ROW} d=1024") if means else ():
        line = dict(data=data, row=name)
        for key in outcomes.METRICS:
            value, log_mel, full = (means[row][key] for row in (name, "log-mel statistics", "supervised encoder"))
            line |= {key: f"{value / full:.0%}", f"{key} gap": f"{(value - log_mel) / (full - log_mel):.0%}"}
        lines.append(line)
heads = {"data": "data", "row": "encoder"}
heads |= {key: f"{title}, from 0" for key, title in outcomes.METRICS.items()}
heads |= {f"{key} gap": f"{title}, from log-mel statistics" for key, title in outcomes.METRICS.items()}
notebook.table(lines, heads)

# %% [markdown]
# Counted from 0, an encoder that has learned nothing reaches most of what labels give: such a share says little. Counted from
# log-mel statistics it has nothing, or less, and what is left is what was learned.
#
# But labels are scarce. So here the linear probe gets one labelled clip of each class (a mean over five choices of it), and
# then all labels. Both times the best control without learning is the bar.
#
# **Question.** Where will pretraining be worth more: with one label a class, or with all?

# %%
without_learning = ("log-mel statistics", "random projection", "untrained encoder")
for bank, found in results.items():
    for key, title in {"one_label": "one label a class", "linear_map": "all labels"}.items():
        replicates = outcomes.with_all(found, (MAIN_ROW, *without_learning))
        if not replicates:
            continue
        means = {name: np.mean([found[r][name][key] for r in replicates]) for name in without_learning}
        bar = max(means, key=means.get)
        gain = outcomes.contrast(found, Contrast("", (MAIN_ROW,), (bar,)), key)
        chance = np.mean([found[r][bar]["chance"] for r in replicates])
        times = (means[bar] + gain.mean - chance) / (means[bar] - chance)
        print(
            f"{bank}, {title}: {MAIN_ROW} minus {bar} ({means[bar]:.3f}): {gain.text}, {times:.2f} times as far above chance"
        )

# %% [markdown]
# With one label a class everything is low, so compare how many times as far above chance ours is, rather than the differences.
# (The supervised encoder has seen all labels while it was trained, so it is no rival, but the end of the scale.)
#
# ## What is and is not reproduced here, and why
#
# First the ten claims, as the study judges them by its two metrics; notebook 10 says what the words mean, and why it is *so far*
# until ten replicates are there.

# %%
judged = {
    f"{bank}, {title}": {number: verdict.words for number, verdict in outcomes.verdicts(found, metric).items()}
    for bank, found in results.items() for metric, title in outcomes.METRICS.items()
}  # fmt: skip
notebook.table(
    [dict(number=claim.number, claim=claim.claim) | {title: words[claim.number] for title, words in judged.items()}
     for claim in CLAIMS],
    dict(number="", claim="the slides' claim") | {title: title for title in judged},
)  # fmt: skip

# %% [markdown]
# Then the rest of the paper, part by part.
#
# | part | here | why |
# |---|---|---|
# | TDCN++, mixture consistency, MixIT | whole; outputs equal those of independent implementations | the slides cite papers that say how |
# | four snapshots of one training | N starts from cosines, not from random numbers; the others at other steps: with the profile tiny, and in the study, 0, 40, 300 and 3,000 instead of 0, 500, 5,000 and 1.7 million | so that it takes minutes on two CPU cores |
# | OR rule, random crops, SpecAugment, NT-Xent, coincidence prediction, joint training | whole; what the slides leave open is named where it is set | |
# | CNN14, 75 million weights | the network is whole (`full` profile, and PANNs' weights can be read); the course trains one with 8 to 16 filters in its first block instead of 64 | two CPU cores |
# | AudioSet: two million clips, 527 classes | not here: made sounds, and in the study ESC-10 | its sounds cannot be passed on; notebook 12 says what it would take |
# | levels of mAP | not comparable | other classes, other scenes |
# | Tables 2 and 4 | each row trained in several replicates; judged above | |
# | Table 5 | ours and the triplet system likewise; the other three quoted | other systems, two of them need video |
# | Table 1, Table 3, retrieval results | not seen | the slides do not show them |
# | the triplet system | its loss and constraints; not its ResNet-50 | the same encoder for all rows is the fairer comparison |

# %%
measured_keys = ("map", "linear_map", "d_prime", "qbe")
assert all(np.isfinite(measured[key]) for key in measured_keys), "a measure without a value"
assert np.isfinite(history["loss"]).all() and keras.backend.floatx() == "float32"
notebook.verdict(verdicts, "the encoder trained by triplets is above chance", measured["map"] > measured["chance"],
                 f"mAP {measured['map']:.3f} against {measured['chance']:.3f}")  # fmt: skip
recorded = course.record(
    "11",
    rows={"triplet joint": {key: measured[key] for key in measured_keys}},
    triplet_first_losses=history["first_losses"],
    study=judged,
    verdicts=verdicts,
)
print("recorded:", ", ".join(recorded))

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | constraints make positives | noise, translation, mixing, proximity | `augmentation.CONSTRAINTS` |
# | hinge with a margin of 0.1 on the unit sphere | Jansen et al. 2018 | `losses.Triplet` |
# | semi-hard negative from the batch | after Schroff et al. 2015 | `Triplet._negatives` |
# | all four at equal odds | "joint" | `objectives.TripletModel`, row `triplet joint` |
# | share of supervised | 84 % and 41 %, in its abstract | `outcomes.table` |
# | few labels | "doubles state-of-the-art" there | `classifiers.label_curve` |

# %% [markdown]
# ## Exercises
#
# **1. Predict.** On the circle above, which of n1 to n4 teach something if the margin is 0.6 instead of 0.1? And if it is 0?

# %% tags=["your turn"]
margin = 0.1  # your turn: predict, then change it
print({name: round(max(0.0, squared["positive"] - squared[name] + margin), 3) for name in losses})

# %% tags=["solution"]
for margin in (0.0, 0.1, 0.6):
    print(margin, {name: round(max(0.0, squared["positive"] - squared[name] + margin), 3) for name in losses})
# With 0.6 n3 teaches, too. With 0 only n1 does: what is farther than the positive is far enough.

# %% [markdown]
# **2. Build it.** Write the choice of the semi-hard negative for a whole batch. The check compares with what you get by
# going through all triplets of a small batch.


# %% tags=["your turn"]
def semi_hard_negatives(anchors, positives):
    """For each anchor (B, d), of length 1, which of the positives (B, d) of *other* pairs is its negative, (B,) indices: the
    closest that is farther than its own positive; where there is none, the farthest of all."""
    # your turn
    return np.zeros(len(anchors), dtype=int)


# %%
def check_semi_hard(function):
    """Whether it chooses as a walk through all candidates does, for 20 batches of six pairs."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        anchors, positives = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in rng.normal(size=(2, 6, 3)))
        chosen = function(anchors, positives)
        for i, anchor in enumerate(anchors):
            far = {j: float(np.sum((anchor - positives[j]) ** 2)) for j in range(6)}
            beyond = [j for j in far if j != i and far[j] > far[i]]
            right = min(beyond, key=far.get) if beyond else max((j for j in far if j != i), key=far.get)
            if chosen[i] != right:
                return print(f"not yet: an anchor should have negative {right}, it has {chosen[i]}")
    print("right: the same negatives for 120 anchors")


check_semi_hard(semi_hard_negatives)


# %% tags=["solution"]
def semi_hard_negatives(anchors, positives):
    squared = 2 - 2 * anchors @ positives.T  # (B, B): of vectors of length 1
    own = np.eye(len(anchors), dtype=bool)
    beyond = (squared > np.diag(squared)[:, None]) & ~own
    closest = np.where(beyond, squared, np.inf).argmin(axis=1)
    farthest = np.where(own, -np.inf, squared).argmax(axis=1)
    return np.where(beyond.any(axis=1), closest, farthest)


check_semi_hard(semi_hard_negatives)

# %% [markdown]
# **3.** All embeddings on one point give the margin as loss. Is that the worst that can happen? Try embeddings whose
# positives lie opposite their anchors.

# %% tags=["your turn"]
# your turn: `Triplet()(anchors, positives)` with arrays (pairs, d) in float32

# %% tags=["solution"]
same = np.ones((4, 8), "float32")
print(f"all on one point: {float(Triplet()(same, same)):.3f}")
opposite = np.eye(4, 8, dtype="float32")
print(f"each positive opposite its anchor: {float(Triplet()(opposite, -opposite)):.3f}")
# Worse than a collapse is possible: a collapse is a place to get stuck in, not the highest loss.

# %% [markdown]
# **4.** How many anchors of a batch still teach? Take the trained encoder, crops of the training scenes, and count the
# losses above zero for each constraint.

# %% tags=["your turn"]
# your turn: `course.views().log_mel[:32, 0]` holds mixtures of training scenes; `CONSTRAINTS` makes the positives

# %% tags=["solution"]
log_mel = course.views().log_mel[:32, 0]  # of the mixtures of training scenes (clips, frames, mels)
anchors, later = (log_mel[:, start : start + PATCH_FRAMES].astype("float32") for start in (0, 2 * PATCH_FRAMES))
for name, constraint in CONSTRAINTS.items():
    made = later if constraint is None else constraint(seed=0)(anchors, training=True)
    found = np.asarray(Triplet().call(encoder(anchors), encoder(made)))
    print(f"{name:<10} {np.mean(found > 0):.0%} of the anchors have a loss, {found.mean():.4f} on average")
# Where few have one, training has nothing left to do; where the average is near the margin, it has not begun.

# %% [markdown]
# ## What to read next
#
# * Jansen et al. 2018, *Unsupervised learning of semantic audio representations*.
# * Schroff et al. 2015, *FaceNet*: where semi-hard negatives come from.
# * Fonseca et al. 2021, *Unsupervised contrastive learning of sound event representations*: mix-back and other views.
#
# The path of the paper ends here. What is left is to walk it with sounds of your own:
# [12 · Your own sounds](12_your_own_sounds.ipynb).
