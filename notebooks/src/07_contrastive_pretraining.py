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
# # 07 · Contrastive pretraining

# %% [markdown]
# | | |
# |---|---|
# | **you will** | walk through CNN14 block by block, write one training step by hand, train the encoder, read its curves beside chance, and watch four ways to fail |
# | **you need** | notebooks 05 and 06 help; everything missing is made here |
# | **you make** | the encoder that notebooks 08 and 09 evaluate |
# | **time** | about 2 minutes on a CPU (tiny); 3 to 4 more where the main encoder is trained here; on a GPU: not measured yet |

# %% tags=["parameters"]
import os

PROFILE = os.environ.get("SEPCL_PROFILE", "tiny")
DATA = os.environ.get("SEPCL_DATA", "made")
SEED = os.environ.get("SEPCL_SEED", "0")
OUT = os.environ.get("SEPCL_OUT")

# %%
import inspect
import itertools
import textwrap

import keras
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from keras import ops

from sepcl_keras.course import notebook
from sepcl_keras.encoder.recipe import new_encoder
from sepcl_keras.training.loop import fit
from sepcl_keras.training.step import TensorFlowStep
from sepcl_keras import ContrastiveModel, SpecAugment
from sepcl_keras.core.backend import inference
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.views.log_mel import HOP, PATCH_FRAMES, PATCH_SAMPLES
from sepcl_keras.encoder.objectives import geometry
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.course.slides import MAIN_ROW, read_rows

course = notebook.setup(PROFILE, DATA, SEED, OUT)
verdicts = {}  # claims about sounds and training: whether they hold in this run

# %%
p, row = course.profile, read_rows()[MAIN_ROW]
print(f"{MAIN_ROW}: pairing {row.pairing}, processors {', '.join(row.processors)}")
print(f"weights of similarity and coincidence: {row.similarity:g} and {row.coincidence:g}")

# %% [markdown]
# The row is the best one of the slides' Table 4: mixture against channel, three processors under the OR rule, both losses.
#
# ## CNN14, block by block
#
# The encoder is **CNN14** from PANNs (Kong et al. 2020), a plain convolutional network. It treats the log-mel patch as a
# picture with one channel:
#
# * a **batch norm** for each mel band brings all bands to the same scale;
# * six **blocks** of two 3 × 3 convolutions, each with batch norm and ReLU. The first five halve time and frequency by
#   averaging 2 × 2 cells; each block after the first doubles the number of filters;
# * the mean over frequency, then maximum **plus** mean over time;
# * a linear **bottleneck** to d numbers: the embedding **h**. That layer is the paper's change; PANNs has 2,048 units and a
#   classifier there.

# %%
views = course.views()
pairs = ViewPairs(views, row.pairing, row.processors, p.batch_size, seed=course.seed)
((mixtures, channels),) = pairs[0]  # (pairs, frames, mels) each
encoder = course.untrained_encoder()


def size(layer):
    """Number of trainable parameters."""
    return sum(int(np.prod(w.shape)) for w in layer.trainable_weights)


# %%
x, maps = encoder.bn0(mixtures[:8])[..., None], {}
rows = [{"stage": "batch norm a mel band", "shape": tuple(x.shape), "parameters": size(encoder.bn0)}]
for block in encoder.blocks:
    x = block(x)
    maps[block.name] = ops.convert_to_numpy(x)
    rows.append({"stage": block.name, "shape": tuple(x.shape), "parameters": size(block)})
x = ops.mean(x, axis=2)
rows.append({"stage": "mean over frequency", "shape": tuple(x.shape), "parameters": 0})
x = ops.max(x, axis=1) + ops.mean(x, axis=1)
rows.append({"stage": "maximum + mean over time", "shape": tuple(x.shape), "parameters": 0})
h = encoder.bottleneck(x)
rows.append({"stage": "bottleneck: h", "shape": tuple(h.shape), "parameters": size(encoder.bottleneck)})
assert ops.all(ops.isclose(h, encoder(mixtures[:8]), atol=1e-5)), "the walk by hand is not the network"

# %%
notebook.table(rows, {"stage": "stage", "shape": "(clips, time, frequency, filters)", "parameters": "parameters"})

# %% [markdown]
# One patch on its way: the mean over all filters after each block. What starts as a spectrogram ends as three steps in time
# and two in frequency, but with many filters to say *what* is there.

# %%
figure, axes = plt.subplots(1, 7, figsize=(12, 2.3), width_ratios=[1.3] + [1] * 6)
pictures = {"log-mel": mixtures[0]} | {name.replace("conv_", ""): m[0].mean(axis=-1) for name, m in maps.items()}
for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture.T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
    axis.set(title=f"{name}\n{picture.shape[0]} × {picture.shape[1]}", xticks=[], yticks=[])
axes[0].set(xlabel="time", ylabel="frequency")
notebook.show("From block to block the picture loses cells: by the sixth, when and at which pitch is nearly gone.")

# %% [markdown]
# ## How large is that?
#
# **Question.** Where do most parameters sit: in the first blocks, where the pictures are large, or in the last, where the
# filters are many? The paper's encoder starts with 64 filters. Guess its total.

# %%
full = CNN14()  # the paper's: 64 filters at first, d = 128
full.build((None, PATCH_FRAMES, 64))
filters = [1] + [64 * 2**i for i in range(6)]
by_formula = 2 * 64 + 2048 * 128 + 128  # batch norm of the input; bottleneck
for before, after in itertools.pairwise(filters):
    by_formula += 9 * before * after + 9 * after * after + 2 * 2 * after  # two convolutions, two batch norms
paper_size, own_size = size(full), size(encoder)
assert paper_size == by_formula == 75_739_712, "that is not the paper's encoder"
print(f"the paper's CNN14: {paper_size:,} trainable parameters (the slides say ~75M)")
print(f"this profile:      {own_size:,} ({p.width} filters at first, d = {p.embedding_dim})")
print(
    f"share in the last block: {size(full.blocks[-1]) / paper_size:.0%} and {size(encoder.blocks[-1]) / own_size:.0%}"
)
del full

# %% [markdown]
# In the last blocks: each block doubles the filters, so its convolutions have four times as many weights.
#
# ## Two heads
#
# h is the product. Training happens on top of it, in two small networks that are thrown away afterwards (notebook 06):
# the **similarity head** turns h into z, where NT-Xent compares; the **coincidence head** turns pairs of h into logits.
# Why not compare h itself? NT-Xent throws away whatever differs between two views; with a head between, h may keep it.
# (B is the number of pairs in a batch; N is the untrained snapshot, one of the processors above.)

# %%
model = ContrastiveModel(encoder, row.similarity, row.coincidence)
outputs = model((mixtures, channels))
heads = {"similarity head": model.similarity_head, "coincidence head": model.coincidence_head}
shapes = {"similarity head": tuple(outputs["z"][0].shape), "coincidence head": tuple(outputs["logits"].shape)}
for name, head in heads.items():
    print(f"{name}: {size(head):,} trainable parameters, output {shapes[name]} for B = {p.batch_size} pairs")

# %% [markdown]
# ## The objective is `compute_loss`
#
# In Keras 3 a model says *what* to minimise in `compute_loss`, in operations that run on every backend. This is the whole
# objective of the paper:


# %%
def show_source(function):
    """A function's source as it stands in the library."""
    display(Markdown(f"```python\n{textwrap.dedent(inspect.getsource(function)).rstrip()}\n```"))


show_source(ContrastiveModel.call)
show_source(ContrastiveModel.compute_loss)

# %% [markdown]
# Some lines deserve a second look.
#
# * In `call`, mixtures and channels go through the encoder **in one batch**. Batch norm uses statistics of its batch: with two
#   passes, mixtures and channels would be normalised apart. What sets all channels apart from all mixtures, their lower level
#   for instance, would be subtracted in training and come back where running statistics are used.
# * `views` are two arrays here; four when the coincidence task gets crops of its own (exercise 5). With two, `h[-2], h[-1]` are
#   the same as `h[0], h[1]`. `AUGMENTED` says which of them are masked.
# * `geometry` and the `trackers` (Keras metrics) only watch; what they report is explained after the training.
# * In `compute_loss`, `accuracy` is the share of anchors whose nearest candidate is their partner. It trains nothing; it is
#   there because a share is easier to read than a loss.
#
# ## The step is `train_step`
#
# *How* to minimise is the training step: forward, loss, gradients, update. On JAX and torch the course leaves it to Keras. On
# TensorFlow it is written out:

# %%
if hasattr(TensorFlowStep, "train_step"):
    show_source(TensorFlowStep.train_step)
else:
    print(f"On {keras.backend.backend()} Keras' own step is used; it calls the same compute_loss.")

# %% [markdown]
# A `GradientTape` records what is computed inside its `with`; `tape.gradient` then runs it backwards. (`scale_loss` matters in
# half precision only, where small gradients would round to zero.)
#
# Let us do the same with nothing but the tape and a subtraction. Two models with identical weights: one takes a step by hand,
# the other through the library. Then both compute their loss again.
#
# **Question.** Which of these must be equal: the losses before the step, the losses after it?

# %%
small = dict(embedding_dim=32, width=4, seed=course.seed)  # a small CNN14, for all that should be quick
number = min(32, p.batch_size)
little = ViewPairs(views, row.pairing, row.processors, number, seed=course.seed)
(batch,) = little[0]
rate = 0.02


def new_model():
    """A small encoder with new heads; each call draws the same weights."""
    fresh = ContrastiveModel(new_encoder(**small), augmentation=None)
    fresh(batch)
    return fresh


# %%
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    by_hand, losses_by_hand = new_model(), []
    weights = by_hand.trainable_weights
    for _ in range(2):
        with tf.GradientTape() as tape:
            outputs = by_hand(batch, training=True)  # z of both views, and the grid of logits
            loss = by_hand.compute_loss(batch, None, outputs)
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign(weight - rate * gradient)  # gradient descent, nothing else
        losses_by_hand.append(float(loss))

# %%
if keras.backend.backend() == "tensorflow":
    library, losses = new_model(), []
    library.compile(keras.optimizers.SGD(rate), jit_compile=False)
    for _ in range(2):
        library.reset_metrics()
        losses.append(float(library.train_on_batch(batch, return_dict=True)["loss"]))
    print("loss before and after one step, by hand:    ", losses_by_hand)
    print("loss before and after one step, the library:", losses)
    assert np.allclose(losses, losses_by_hand, rtol=1e-4), "the custom step is not the step by hand"
    assert losses[0] != losses[1], "nothing was updated"
else:
    print(f"On {keras.backend.backend()} there is no tape: the two can be compared on TensorFlow only.")

# %% [markdown]
# On TensorFlow both must be equal, before and after (up to rounding): same weights, same batch, same rule.
#
# What the library adds to this: a better rule than plain descent (**Adam**), a learning rate that warms up and then decays,
# gradients clipped to a length, SpecAugment, and metrics. `fit` holds them together.
#
# ## Train
#
# The next cell gets the main encoder: from an earlier run with these settings, or, with the profile tiny, made sounds and
# seed 0, from the library, which ships it with the record of its training. With other settings, or with `SEPCL_TRAIN=1`, it
# is trained now, with about ten lines on how it goes. An *epoch* here is merely what one entry of the record covers.
# (Further down you train small encoders yourself, in seconds.)
#
# **Question.** Before you look: which value of `similarity` and which of `coincidence` would you call "nothing learned"?

# %%
main, history = course.encoder()
steps = history["step"][-1]
print(
    f"{steps} steps of {p.batch_size} pairs: each clip was seen {steps * p.batch_size / len(views.log_mel):.0f} times"
)
print("first ten losses:", ", ".join(f"{loss:.3f}" for loss in history["first_losses"]))

# %%
names = ["similarity", "coincidence", "accuracy"]
notebook.curves(history, names, title=f"{MAIN_ROW}: training curves beside chance",
                alt="Losses should fall below their dashed lines and the accuracy rise above its own: how fast, and how far?")  # fmt: skip
for name in names:
    guess, first, last = history[f"{name}_chance"][0], history[name][0], history[name][-1]
    print(f"{name:<12} chance {guess:.4f} · first epoch {first:.4f} · last epoch {last:.4f}")
assert all(np.isfinite(history[name]).all() for name in names), "the training broke"

# %% [markdown]
# How to read them:
#
# * Held against **chance**, not against zero. These values say "nothing learned": ln(2B − 1) for the similarity loss,
#   2 ln 2 for the coincidence loss, and 1 / (2B − 1) for the accuracy.
# * The coincidence loss may begin *above* chance, for a random head answers confidently at random. Unlearning that is the first
#   thing the training does, and is no learning about sound yet.
# * These are **training** losses on damaged patches, so they stay far from zero by design. A lower loss does not even mean a
#   better encoder: mix-mix without SpecAugment is the easiest task of all, and has the lowest mAP of the slides' contrastive rows. Only
#   notebooks 08 to 10 can say what h is good for.
#
# The record of the training holds more: what gradient descent felt (the norm of all gradients, before they are clipped to
# 5) and how h lies in space while it is trained. What *alignment*, *uniformity* and *spread* mean comes next.
# `course.encoder(log="folder")` would also write all of it to `log.csv`, and for TensorBoard where that is installed.

# %%
notebook.curves(history, ["gradient_norm", "spread"], title="the same training, seen from inside",
                alt="Gradient norm: above 5 a step is clipped (how often is that?). The spread should stay well above 0, the collapse.")  # fmt: skip
notebook.curves(history, ["alignment", "uniformity"],
                alt="Uniformity falls as clips move apart; alignment, the distance of partners, need not fall with it.")  # fmt: skip

# %% [markdown]
# ## Alignment, uniformity, spread
#
# Three numbers say what contrast does to h (the first two: Wang and Isola 2020). All h are first scaled to length one.
#
# * **Alignment**: the mean squared distance of the two views of a pair. Small is good: partners are near.
# * **Uniformity**: the logarithm of the mean of exp(−2 · squared distance) over *different* clips, mixtures among
#   mixtures and channels among channels. The lower, the more evenly the clips fill the sphere. If all are on one point it is 0.
# * **Spread**: one minus the mean cosine of those pairs of different clips. 0 where all are on one point, 1 where they point
#   anywhere.
#
# Alignment or uniformity alone is easy. An encoder that ignores its input is perfectly aligned; one
# that gives random vectors is nicely uniform.


# %%
def embed_pairs(network, batch):
    """Unit-length h of both views, (pairs, d) each."""
    both = inference(network)(np.concatenate(batch))
    return np.split(both / np.linalg.norm(both, axis=1, keepdims=True), 2)


def measure(h_a, h_b):
    """Alignment, uniformity, spread (1 - mean cosine of different clips), share of first views that find their partner."""
    found = (h_a @ h_b.T).argmax(axis=1) == np.arange(len(h_a))
    return {name: float(value) for name, value in geometry(h_a, h_b).items()} | {"found": float(found.mean())}


# %% [markdown]
# We draw a batch that training did not draw: the same clips, but other crops and channels, and no masks. The untrained encoder
# is exactly the one that training began with.
#
# **Question.** Will training improve both, alignment and uniformity?

# %%
held_number = min(256, len(views.log_mel))
(held,) = ViewPairs(views, row.pairing, row.processors, held_number, seed=course.seed + 1)[0]
embedded = {"untrained": embed_pairs(course.untrained_encoder(), held), "trained": embed_pairs(main, held)}
measured = {name: measure(*both) for name, both in embedded.items()}
columns = {
    "encoder": "encoder",
    "alignment": "alignment",
    "uniformity": "uniformity",
    "spread": "spread",
    "found": "partner found",
}
notebook.table([{"encoder": name} | values for name, values in measured.items()], columns)
print(f"partner found among {held_number} by guessing: {1 / held_number:.4f}")

# %% [markdown]
# Usually not both: uniformity falls, and alignment may well get worse. An untrained network already has near-perfect
# alignment, for a bad reason: everything lies in one narrow cone, so partners are near, and so are all others. What counts
# is the difference between partners and others, and that is what a picture shows best.
#
# The similarity matrix of h for the first few pairs: mixtures downwards, channels across; partners on the diagonal. The
# share in the title is of all pairs.

# %%
shown = min(24, held_number)
lowest = min(float((h_a @ h_b.T).min()) for h_a, h_b in embedded.values())  # one scale for both
figure, axes = plt.subplots(1, 2, figsize=(10, 4.2))
for axis, (name, (h_a, h_b)) in zip(axes, embedded.items(), strict=True):
    image = axis.imshow(h_a[:shown] @ h_b[:shown].T, cmap="magma", vmin=lowest, vmax=1, interpolation="nearest")
    axis.set(title=f"{name}: found {measured[name]['found']:.0%} of {held_number}", xlabel="channel", ylabel="mixture")
figure.colorbar(image, ax=axes, label="cosine of h", shrink=0.85)
notebook.show("Untrained, all pairs are alike. Trained, the diagonal of partners stands out from a darker ground.")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 2.6), sharey=True)
for axis, (name, (h_a, h_b)) in zip(axes, embedded.items(), strict=True):
    cosine = h_a @ h_b.T
    for values, label in ((cosine[~np.eye(len(h_a), dtype=bool)], "different clips"), (np.diag(cosine), "partners")):
        axis.hist(values, bins=np.linspace(lowest, 1, 61), density=True, alpha=0.65, label=label)
    axis.set(title=name, xlabel="cosine of h", yscale="log")
axes[0].set_ylabel("density")
axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
notebook.show("""Untrained, partners and different clips crowd near 1. Trained, different clips spread out to the left, and
partners stay further right: the less the two overlap, the better.""")

# %% [markdown]
# ## Four ways to fail
#
# The first two are seen on the small encoder, in seconds; the other two need no training, only the main encoder and the
# data. First a normal run, for reference. A callback (code that Keras runs after each step) watches the **spread** of h
# on a fixed batch: one minus the mean cosine between *different* clips. It is 0 when all clips are on one point. The
# callback lets batch norm use the statistics of that batch, as in training, because the running ones need a while to
# arrive.


# %%
(watched,) = ViewPairs(views, row.pairing, row.processors, min(64, len(views.log_mel)), seed=course.seed + 2)[0]


# %%
class Watch(keras.callbacks.Callback):
    """Keeps the spread of h on the watched batch, before training and after every sixth step."""

    def on_train_begin(self, logs=None):
        self.steps, self.spread, self.count = [], [], 0
        self.look()

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count % 6 == 0:
            self.look()

    def look(self):
        network = self.model.encoder
        kept = network.get_weights()
        h = ops.convert_to_numpy(network(np.concatenate(watched), training=True))
        network.set_weights(kept)  # looking must not move the running statistics
        h = h / np.linalg.norm(h, axis=1, keepdims=True)
        self.steps.append(self.count)
        self.spread.append(measure(*np.split(h, 2))["spread"])


# %%
def short_run(kind=ContrastiveModel, temperature=0.2, steps=30):
    """Trains a small encoder by similarity alone; returns the model, its history and what was watched."""
    student, watch = kind(new_encoder(**small), coincidence=0.0, temperature=temperature), Watch()

    def batches(in_epoch):
        return ViewPairs(views, row.pairing, row.processors, number, in_epoch, course.seed)

    seen = fit(student, batches, steps, 2e-3, callbacks=[watch], show=False)
    return student, seen, watch


normal, normal_history, normal_watch = short_run()
print(f"spread of h: {normal_watch.spread[0]:.4f} before, {normal_watch.spread[-1]:.4f} after 30 steps of NT-Xent")

# %% [markdown]
# ### 1. Collapse: attraction without negatives
#
# The simplest idea: only pull partners together, and forget about the others. The loss is 1 − cosine of the partners.
#
# **Question.** What is the easiest way for an encoder to get that loss to zero?


# %%
class AttractionOnly(TensorFlowStep, keras.Model):
    """Pulls the two h of a pair together and pushes nothing away; no head, for a head could collapse in place of h."""

    def __init__(self, encoder, **unused):
        super().__init__()
        self.encoder = encoder

    def call(self, patches, training=None):
        h = ops.normalize(self.encoder(ops.concatenate(patches), training=training), axis=-1)
        return ops.split(h, 2)  # mixtures, channels

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 1.0 - ops.mean(ops.sum(y_pred[0] * y_pred[1], axis=-1))


# %%
collapsed, collapsed_history, collapsed_watch = short_run(AttractionOnly)
first, last = collapsed_history["first_losses"][0], collapsed_history["loss"][-1]
print(f"its loss: {first:.4f} at first, {last:.4f} in the last epoch")
print(f"spread of h: {collapsed_watch.spread[0]:.4f} before, {collapsed_watch.spread[-1]:.5f} after")
ends = f"{collapsed_watch.spread[-1]:.5f} against {normal_watch.spread[-1]:.5f}"
less = collapsed_watch.spread[-1] < normal_watch.spread[-1]
notebook.verdict(verdicts, "without negatives h spreads less", less, ends)

# %%
figure, axis = plt.subplots(figsize=(7, 2.8))
for name, watch in (("NT-Xent", normal_watch), ("attraction only", collapsed_watch)):
    axis.plot(watch.steps, watch.spread, marker="o", label=name)
axis.set(xlabel="step", ylabel="spread of h", yscale="log", title="the spread with negatives and without")
axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
notebook.show("With NT-Xent the clips keep apart; with attraction alone the spread falls by powers of ten: a collapse.")

# %% [markdown]
# The easiest way is to put all clips on one point: then partners are equal, whatever is heard. On made sounds that is what
# happens: the loss falls beautifully, and h says less and less. Negatives are what keeps an embedding open. (Thirty steps
# with other sounds may show less of it; see the verdict.) Whenever a contrastive loss looks too good, look at the spread.
#
# ### 2. A temperature of 0.01
#
# Notebook 06 showed that a small τ puts the whole push on the nearest negatives.
#
# **Question.** An untrained encoder, τ = 0.01: will its first loss be above or below chance, ln(2B − 1)?

# %%
cold, cold_history, cold_watch = short_run(temperature=0.01)
little_chance = np.log(2 * number - 1)
figure, axis = plt.subplots(figsize=(7, 2.8))
for name, seen in (("τ = 0.2", normal_history), ("τ = 0.01", cold_history)):
    axis.plot(range(1, 1 + len(seen["first_losses"])), seen["first_losses"], marker="o", label=name)
axis.axhline(little_chance, color="0.4", linestyle="--", label=f"chance {little_chance:.2f}")
axis.set(xlabel="step", ylabel="NT-Xent", ylim=(0, None))
axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
notebook.show("At τ = 0.2 the loss begins near chance. At τ = 0.01 it begins higher, and takes steps to get there.")
cold_start = cold_history["first_losses"][0]
notebook.verdict(verdicts, "at τ = 0.01 the first loss is above chance", cold_start > little_chance,
                 f"{cold_start:.2f} against {little_chance:.2f}")  # fmt: skip


# %%
def pushing(model, temperature):
    """As how many negatives, sharing evenly, push an anchor: the exponential of the entropy of their weights."""
    a, b = (ops.convert_to_numpy(z) for z in model(watched)["z"])
    z = np.concatenate([a, b]) / np.linalg.norm(np.concatenate([a, b]), axis=1, keepdims=True)
    scores = z @ z.T / temperature
    anchors = np.arange(len(z))
    scores[anchors, anchors] = scores[anchors, (anchors + len(a)) % len(z)] = -np.inf  # itself and the partner
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return float(np.exp(-(weights * np.log(weights + 1e-30)).sum(axis=1)).mean())


# %%
share_of_push = {tau: pushing(normal, tau) for tau in (0.2, 0.01)}  # the same z, seen at two temperatures
assert share_of_push[0.01] <= share_of_push[0.2], "a lower temperature cannot spread the push"
for tau, count in share_of_push.items():
    print(f"normal run, seen at τ = {tau}: as if {count:.1f} of {2 * len(watched[0]) - 2} negatives pushed an anchor")
for name, student in (("τ = 0.2", normal), ("τ = 0.01", cold)):
    after = measure(*embed_pairs(student.encoder, watched))
    print(f"after 30 steps at {name}: spread of h {after['spread']:.3f}, partner found {after['found']:.3f}")

# %% [markdown]
# Above, usually far above. At τ = 0.01 a difference of 0.05 in cosine is a factor of e⁵ in odds: a random encoder is
# *certain*, and mostly wrong.
# Its first steps then go into unlearning, and each anchor hears of its nearest negatives only, false ones among them.
# Which τ finds more partners after so few steps differs from run to run; with made sounds the bad start does not. The
# other extreme, a high τ, is dull rather than nervous: hard and easy negatives push alike. (The last two lines are
# measured with batch norm's running statistics, which lag behind a young network; the callback's spread is not, so its
# numbers differ.)
#
# ### 3. Negatives from the other view only
#
# A tempting shortcut: compare mixtures with channels only, a B × B grid. It needs a quarter of the cosines, the loss is lower, and some
# well-known code does it. What is lost?
#
# Suppose an encoder marks *which view* a patch is: it spends a share m of the squared length of h on "I am a mixture" or "I am a
# channel". Such a mark says nothing about the scene. We add it by hand to the h of the main encoder, more and more of it.
#
# **Question.** Which of the two losses will notice?


# %%
def losses_with_mark(h_a, h_b, share, temperature=0.2):
    """Both losses and who finds its partner, mixtures as anchors, when unit h spend this share on the view."""
    h_a, h_b = h_a.astype("float64"), h_b.astype("float64")
    a, b = (np.c_[np.sqrt(1 - share) * h, np.full(len(h), s * np.sqrt(share))] for h, s in ((h_a, 1), (h_b, -1)))
    cross, inside = ((a @ x.T / temperature).round(12) for x in (b, a))  # so that rounding parts no two equal patches
    partner = np.diag(cross)
    negatives = np.where(np.eye(len(a)) == 1, -np.inf, inside)  # the other mixtures
    both = np.concatenate([cross, negatives], axis=1)
    return {
        "other view only": float((np.log(np.exp(cross).sum(axis=1)) - partner).mean() / np.log(len(a))),
        "NT-Xent": float((np.log(np.exp(both).sum(axis=1)) - partner).mean() / np.log(2 * len(a) - 1)),
        "found among other view": float((cross.argmax(axis=1) == np.arange(len(a))).mean()),
        "found among all": float((both.argmax(axis=1) == np.arange(len(a))).mean()),
    }


# %%
shares = np.linspace(0, 0.9, 19)
marked = [losses_with_mark(*embedded["trained"], share) for share in shares]

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 2.8))
for name in ("other view only", "NT-Xent"):
    axes[0].plot(shares, [m[name] for m in marked], marker=".", label=name)
axes[0].axhline(1, color="0.4", linestyle="--", label="chance")
for name in ("found among other view", "found among all"):
    axes[1].plot(shares, [m[name] for m in marked], marker=".", label=name)
for axis, label in zip(axes, ("loss / chance", "partner found"), strict=True):
    axis.set(xlabel="share of h spent on which view it is", ylabel=label, ylim=(0, None))
    axis.legend()
notebook.show("""The mark is a waste, and only NT-Xent notices: its loss climbs far above chance and fewer partners are found. Across
views the ranking stays as it was.""")
found = [m["found among other view"] for m in marked]
assert max(found) - min(found) <= 1 / held_number, "the mark cancels in comparisons across views"
for name in ("other view only", "NT-Xent"):
    print(f"{name}: the first {shares[1]:.0%} of mark adds {marked[1][name] - marked[0][name]:.3f} of chance")
print(f"chance: ln B = {np.log(held_number):.3f} against ln(2B - 1) = {np.log(2 * held_number - 1):.3f}")

# %% [markdown]
# NT-Xent does, the shortcut does not. Across views the mark adds the same number to every similarity, and a softmax does not see what all candidates share.
# So the ranking never changes: with 90 % of h wasted it finds as many partners as before. Its loss rises to chance at most,
# and not because of the mark: what is left for the scene has shrunk to 1 − m, as if the temperature had risen. NT-Xent has
# other mixtures among the negatives, and those carry the *same* mark: its loss rises far above chance, so its gradient
# works against the mark. Note the chances too: ln B is less than ln(2B − 1), so the shortcut *looks* better for nothing.
#
# ### 4. Crops that miss the event
#
# A patch is 0.96 s of a scene. If a scene holds one short sound, many crops contain only what is left of it: nothing.
# Such a pair is positive by decree and empty in fact. We measure how loud each crop is, relative to its whole clip, for
# crops of the mixture drawn as training draws them.
#
# **Question.** In what share of *pairs* is at least one of the two crops more than 20 dB below its clip: in hardly any, or in many?

# %%
scenes = course.scenes["train"]
some = [scenes[i].mixture for i in range(min(300, len(scenes)))]  # clips of (samples,)
energy = np.cumsum(np.pad(np.square(some, dtype="float64"), ((0, 0), (1, 0))), axis=1)  # up to each sample
rng = np.random.default_rng(course.seed)
drawn = rng.integers(0, views.log_mel.shape[2] - PATCH_FRAMES + 1, (20, 2, len(some)))  # 20 pairs a clip, first frames
begin, clip = drawn * HOP, np.arange(len(some))
power = (energy[clip, begin + PATCH_SAMPLES] - energy[clip, begin]) / PATCH_SAMPLES
level = 10 * np.log10((power + 1e-12) / (energy[:, -1] / energy.shape[1] + 1e-12))  # (20, 2, clips), dB
missed = level < -20
missed_crops, missed_pairs = float(missed.mean()), float(missed.any(axis=1).mean())
print(f"crops that miss: {missed_crops:.1%} · pairs with at least one: {missed_pairs:.1%}")
for events in np.unique(scenes.number_of_events[: len(some)]):
    one = missed[:, :, scenes.number_of_events[: len(some)] == events]
    print(f"  scenes with {events} label{'' if events == 1 else 's'}: {one.mean():.1%} of crops")

# %%
figure, axis = plt.subplots(figsize=(7, 2.6))
axis.hist(level.ravel().clip(-60), bins=np.arange(-60, 10, 2))
axis.axvline(-20, color="0.4", linestyle="--", label="counted as missed")
axis.set(xlabel="level of a crop relative to its clip in dB (−60 and less counted at −60)", ylabel="crops")
axis.legend()
notebook.show(
    "Most crops are about as loud as their clip, at 0 dB. Those left of the dashed line hear next to nothing."
)

# %% [markdown]
# It is not rare, as the lines above show. Now look and listen: the pair with the largest difference between its two crops. One
# player is loud, the other may be silent; both have the same gain.

# %%
turn, worst = np.unravel_index(np.abs(level[:, 0] - level[:, 1]).argmax(), level[:, 0].shape)
print(f"scene {worst}: {', '.join(scenes[int(worst)].labels) or scenes[int(worst)].place}")
heard = {"the clip": some[worst]}
for view in range(2):
    start = begin[turn, view, worst]
    title = f"crop at {start / 16_000:.2f} s ({level[turn, view, worst]:.0f} dB)"
    heard[title] = some[worst][start : start + PATCH_SAMPLES]
notebook.listen(heard, alt="The clip and the two crops: one holds an event, the other the pause before or after it.")

# %% [markdown]
# What does the trained encoder make of such pairs? We compare h of the two crops of a mixture, for pairs that miss and pairs that
# do not.

# %%
chosen = np.concatenate([np.argwhere(missed[:, :].any(axis=1) == kind)[:200] for kind in (False, True)])  # (turn, clip)
crops = [
    np.stack([views.log_mel[c, 0, drawn[t, view, c] : drawn[t, view, c] + PATCH_FRAMES] for t, c in chosen])
    for view in range(2)
]
h_a, h_b = embed_pairs(main, [c.astype("float32") for c in crops])
cosines, missing = (h_a * h_b).sum(axis=1), missed.any(axis=1)[tuple(chosen.T)]
for kind, name in ((False, "both crops hear the clip"), (True, "at least one misses")):
    if (missing == kind).any():
        print(f"{name}: mean cosine of h {cosines[missing == kind].mean():.3f} over {(missing == kind).sum()} pairs")
apart = chosen[:, None, 1] != chosen[None, :, 1]
print(f"for reference, crops of different clips: {(h_a @ h_b.T)[apart].mean():.3f}")

# %% [markdown]
# Hold the second number against the first: the lower it is, the more often the encoder takes two such crops for different
# clips, and rightly so. (It may stay above the third because in some pairs both crops are silent, and silence equals
# silence.) All silent crops look alike, so their share of the loss cannot fall, however good the encoder is. Nothing in
# the method repairs this. (Our mixed scenes are digitally silent between events. Recordings have a background, so they
# should have less of it; how much less was not measured.) What one can do: draw crops by energy, reject those that miss
# (an exercise), or use longer patches.

# %%
contrast = {f"{key}{suffix}": measured[f"{state}trained"][key]
            for state, suffix in (("", ""), ("un", "_untrained")) for key in measured["trained"]}  # fmt: skip
course.record(
    "07",
    first_losses=history["first_losses"],
    steps=steps,
    **{name: history[name][-1] for name in ("loss", *names)},
    chance={name: history[f"{name}_chance"][0] for name in names},
    parameters={"paper": paper_size, "profile": own_size},
    **contrast,
    collapse_spread={"nt_xent": normal_watch.spread[-1], "attraction": collapsed_watch.spread[-1]},
    missed={"crops": missed_crops, "pairs": missed_pairs},
    verdicts=verdicts,
)
print("kept: results/07.json")

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | encoder | PANNs' CNN14, ~75M parameters, bottleneck to d = 128 | `CNN14(embedding_dim, width)`; the width is the profile's |
# | one encoder, two heads | both tasks on the same h | `ContrastiveModel` |
# | objective | L_sim + L_coin | `compute_loss`, in `keras.ops` |
# | step | not shown | `TensorFlowStep.train_step`; Keras' own elsewhere |
# | optimiser, batch, steps | not in the slides | Adam, warm-up, cosine decay, clipping in `fit`; sizes in `profiles.py` |
# | what is kept | h, before the heads | `encoder.keras`; the heads are dropped |
#
# ## Exercises
#
# **1.** The paper also trains d = 1,024. How many trainable parameters has that encoder? Work it out from the number above.

# %% tags=["your turn"]
parameters_1024 = None  # your turn: a number
ends_right = (parameters_1024 or 0) % 1000 == 616
print("yours:", parameters_1024, "· its last three digits are right" if ends_right else "· not yet")

# %% tags=["solution"]
print(f"{paper_size:,} + {1024 - 128} × (2048 + 1) = {paper_size + (1024 - 128) * (2048 + 1):,}")

# %% [markdown]
# **2. Predict.** With τ = 1 instead of 0.2, will h spread more or less after the same 30 steps? Guess, then change the number.

# %% tags=["your turn"]
# your turn: `short_run(temperature=...)` returns a model, its history and what was watched

# %% tags=["solution"]
_, _, dull_watch = short_run(temperature=1.0)
print(f"spread after 30 steps: {dull_watch.spread[-1]:.4f} at τ = 1, {normal_watch.spread[-1]:.4f} at τ = 0.2")
# With a high τ far negatives push nearly as hard as near ones, so that the whole batch is driven apart: on made sounds the
# spread is larger. That alone is no sign of a good encoder, for pushing everything evenly tells nothing apart.

# %% [markdown]
# **3.** Are the pairs of some processors easier for the trained encoder than others? Measure alignment and the share of partners
# found for each processor alone.

# %% tags=["your turn"]
# your turn: `ViewPairs(views, row.pairing, (name,), held_number, seed=course.seed + 1)[0]` has the pairs of one processor

# %% tags=["solution"]
rows = []
for name in views.processors:
    (alone,) = ViewPairs(views, row.pairing, (name,), held_number, seed=course.seed + 1)[0]
    rows.append({"encoder": name} | measure(*embed_pairs(main, alone)))
notebook.table(rows, columns | {"encoder": "channels of"})
# The less a processor separates, the easier its pairs: N's channels are nearly the mixture.

# %% [markdown]
# **4.** Reject crops that miss: draw up to five first frames for a clip and keep the first one that is not 20 dB below it. What
# share of crops still misses, and in how many clips is there no way out?

# %% tags=["your turn"]
# your turn: `missed` is (20 pairs, 2 crops, clips): 40 crops of each clip, in the order in which they were drawn

# %% tags=["solution"]
tries = missed.reshape(-1, len(some))[: 8 * 5].reshape(8, 5, len(some))  # eight crops a clip, five tries each
print(f"missed without rejection {tries[:, 0].mean():.1%}, with five tries {tries.all(axis=1).mean():.1%}")
print(
    f"clips without a single good crop among 40: {int(missed.reshape(-1, len(some)).all(axis=0).sum())} of {len(some)}"
)

# %% [markdown]
# **5.** Should both tasks see the same crops? The slides leave it open; here they do. Draw a batch with `coincidence_crops=True`
# and without quiet channels (`reject_quiet=True`), mask the channels alone (`augmented="second"`), and compute the loss. How
# many patches pass the encoder now?

# %% tags=["your turn"]
# your turn: `ViewPairs(..., reject_quiet=True, coincidence_crops=True)` and `ContrastiveModel(..., augmented="second")`

# %% tags=["solution"]
(four,) = ViewPairs(
    views, row.pairing, row.processors, p.batch_size, seed=course.seed, reject_quiet=True, coincidence_crops=True
)[0]
model = ContrastiveModel(course.untrained_encoder(), augmentation=SpecAugment(seed=course.seed), augmented="second")
loss = float(model.compute_loss(four, y_pred=model(four, training=True)))
print(f"{len(four)} arrays of {p.batch_size} patches pass the encoder instead of 2: twice the work. Loss {loss:.3f}")

# %% [markdown]
# **6. Build it.** Where memory is short, gradients of several small batches are **accumulated**: averaged, and only then used for
# *one* update. Write that step, on TensorFlow, with plain gradient descent. The check compares with single steps, whose
# mean it must be. When it passes: is it the same as one step with a batch twice as large? (Count an anchor's negatives.)


# %% tags=["your turn"]
def accumulated_step(model, batches, rate):
    """One update of `model.trainable_weights` from the mean gradient of its loss over `batches`."""
    # your turn


# %%
def check_accumulated(step):
    """Whether one step with two batches ends in the middle of where a step with each alone would."""
    if keras.backend.backend() != "tensorflow":
        return print("this needs the TensorFlow backend")
    two, ends = [batch, little[1][0]], []
    for alone in two:
        model = new_model()
        model.compile(keras.optimizers.SGD(rate), jit_compile=False)
        model.train_on_batch(alone)
        ends.append([ops.convert_to_numpy(weight) for weight in model.trainable_weights])
    model = new_model()
    before = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    step(model, two, rate)
    moved = [ops.convert_to_numpy(w) - b for w, b in zip(model.trainable_weights, before)]
    expected = [(one + other) / 2 - b for one, other, b in zip(*ends, before)]
    far = max(np.abs(m - e).max() for m, e in zip(moved, expected)) / max(np.abs(e).max() for e in expected)
    print("right: it ends in the middle" if far < 1e-2 else f"not yet: off by {far:.0%} of the largest update")


check_accumulated(accumulated_step)


# %% tags=["solution"]
def accumulated_step(model, batches, rate):
    total = [0.0] * len(model.trainable_weights)
    for one in batches:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(one, None, model(one, training=True))
        gradients = tape.gradient(loss, model.trainable_weights)
        total = [so_far + gradient for so_far, gradient in zip(total, gradients)]
    for weight, gradient in zip(model.trainable_weights, total):
        weight.assign(weight - rate * gradient / len(batches))


check_accumulated(accumulated_step)
# It is not the same as a large batch. There an anchor has 2B − 2 negatives, here those of its own small batch only. For a
# contrastive loss accumulation saves memory and loses negatives; batch norm, too, sees small batches.

# %% [markdown]
# ## What to read next
#
# * Kong et al. 2020, *PANNs*: CNN14 and its siblings.
# * Wang and Isola 2020, *Understanding contrastive representation learning through alignment and uniformity on the
#   hypersphere*.
# * Grill et al. 2020, *Bootstrap your own latent*: how to live without negatives and not collapse.
#
# Next: [08 · Linear probe](08_linear_probe.ipynb): is h any good?
