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
# # 06 · Two losses

# %% [markdown]
# | | |
# |---|---|
# | **you will** | compute NT-Xent and coincidence prediction by hand for three pairs, vary the temperature, split a layer to save memory, and put both losses on real patches |
# | **you need** | notebook 05 helps; NumPy, a softmax and a logarithm; everything missing is made here |
# | **you make** | the two objectives that train the encoder in notebook 07 |
# | **time** | under half a minute on a CPU (tiny), plus what is missing of the views; on a GPU: not measured yet |

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
from keras import ops

from sepcl_keras.course import notebook
from sepcl_keras import ContrastiveModel
from sepcl_keras.core.backend import compile_with_xla
from sepcl_keras.encoder.heads import CoincidenceHead
from sepcl_keras.encoder.losses import Coincidence, NTXent
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.course.slides import MAIN_ROW, read_rows

course = notebook.setup(PROFILE, DATA, SEED, OUT)
verdicts = {}  # claims about sounds and training: whether they hold in this run

# %% [markdown]
# ## Two ways to ask the same thing
#
# A batch holds B pairs: a mixture and a channel of the same scene, B times. (The slides call this number N. Here N is the
# untrained snapshot, so we say B, for batch.) We want an encoder to notice which belong together. There are two ways to
# ask:
#
# * **Similarity**: *"here is a mixture; which of all these patches is its channel?"* One right answer among 2B − 1, a
#   softmax. The loss is called **NT-Xent** (normalised temperature-scaled cross entropy).
# * **Coincidence**: *"here are a mixture and a channel; are they from the same scene?"* Yes or no, B² questions.
#
# The first wants partners to lie in the same *place*; the second is content if a small network can *tell* that they
# belong together. The paper's best system trains both at once.
#
# ## NT-Xent by hand, B = 3
#
# Three pairs, embedded in the plane so that we can see them. `z_a` are the mixtures, `z_b` their channels, in the same
# order.

# %%
z_a = np.array([[2.0, 0.5], [-1.0, 1.5], [0.0, -1.0]])  # (pairs, 2)
z_b = np.array([[1.0, 0.9], [-0.5, 0.2], [0.9, -0.6]])  # (pairs, 2)
B = len(z_a)

# %% [markdown]
# **Step 1: normalise.** Only the direction should count, so each vector is divided by its length. The dot product of two
# unit vectors is the cosine of the angle between them: 1 for the same direction, −1 for opposite ones.

# %%
z = np.concatenate([z_a, z_b])  # (2B, 2): the mixtures, then the channels
z = z / np.linalg.norm(z, axis=1, keepdims=True)
figure, axis = plt.subplots(figsize=(4.6, 3.6))
axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.7"))
for i in range(B):
    for row, marker, name in ((i, "o", f"mixture {i + 1}"), (B + i, "^", f"channel {i + 1}")):
        axis.plot(*z[row], marker, markersize=10, color=notebook.COLOURS[i])
        side = "center" if abs(z[row, 0]) < 0.2 else "left" if z[row, 0] > 0 else "right"
        axis.annotate(name, 1.15 * z[row], ha=side, va="center", fontsize=9)
axis.set(xlim=(-2, 2), ylim=(-1.4, 1.4), xticks=[], yticks=[], aspect="equal")
axis.spines[:].set_visible(False)
notebook.show("Partners have one colour. Channel 3 lies nearer to mixture 1 than to its own mixture, number 3.")

# %% [markdown]
# **Step 2: all similarities.** Each of the 2B views is an **anchor** once: the view that we ask about. Its line below
# holds its cosine with every view: itself (left out, ×), its partner (the **positive**, outlined) and 2B − 2 **negatives**.
# Negatives are of both kinds: for a mixture, the other mixtures *and* the other channels.

# %%
similarity = z @ z.T  # (2B, 2B)
positive = (np.arange(2 * B) + B) % (2 * B)  # partner of each view: 3, 4, 5, 0, 1, 2
names = [f"mixture {i + 1}" for i in range(B)] + [f"channel {i + 1}" for i in range(B)]
outlined = [(i, int(j)) for i, j in enumerate(positive)]
itself = [(i, i) for i in range(2 * B)]


# %%
def matrix(values, rows, columns, outlined, title, alt, vmin=None, vmax=None, crossed=(), cmap="RdBu_r"):
    """A small matrix as a picture with its numbers; `outlined` and `crossed` are lists of index pairs."""
    figure, axis = plt.subplots(figsize=(0.85 * len(columns) + 2, 0.6 * len(rows) + 1.4))
    image = axis.imshow(values, cmap=cmap, vmin=vmin, vmax=vmax, aspect="auto", alpha=0.75)
    for i, j in np.ndindex(values.shape):
        colour = "white" if cmap == "RdBu_r" and abs(image.norm(values[i, j]) - 0.5) > 0.38 else "black"
        axis.text(j, i, "×" if (i, j) in crossed else f"{values[i, j]:.2f}", ha="center", va="center", color=colour)
    for i, j in outlined:
        axis.add_patch(plt.Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, linewidth=2.5, color="black"))
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    axis.set_title(title)
    notebook.show(alt)


# %%
see = "In five lines the outlined cell is the largest; in the line of channel 3 it is not."
matrix(similarity, names, names, outlined, "cosine similarity", see, -1, 1, itself)

# %% [markdown]
# **Question.** Go through the lines. For which anchor is the outlined cell *not* the largest? That anchor would pick
# the wrong partner, and should have the largest loss.

# %% [markdown]
# For channel 3: it is nearer to mixture 1 than to its partner.
#
# **Step 3: divide by the temperature, exponentiate, leave the anchor itself out, sum.** The positive **stays** in the sum:
# then positive / sum is a probability, namely that of picking the right partner.

# %%
temperature = 0.2
exponentials = np.exp(similarity / temperature)
np.fill_diagonal(exponentials, 0.0)  # an anchor does not compete with itself
denominator = exponentials.sum(axis=1)  # (2B,): the positive and 2B - 2 negatives
probability = exponentials[np.arange(2 * B), positive] / denominator
for name, p in zip(names, probability, strict=True):
    print(f"{name}: probability of the right partner {p:.4f}")

# %% [markdown]
# **Step 4: minus the logarithm, and the mean over all 2B anchors.**

# %%
losses = -np.log(probability)  # (2B,)
by_hand = losses.mean()
nt_xent = NTXent(temperature)
a, b = (ops.convert_to_tensor(x.astype("float32")) for x in (z_a, z_b))
assert np.allclose(losses, np.asarray(nt_xent.call(a, b)), atol=1e-5), "the anchors' losses differ"
assert np.isclose(by_hand, float(nt_xent(a, b)), atol=1e-5), "the mean differs"
for name, loss in zip(names, losses, strict=True):
    print(f"{name}: {loss:.4f}")
print(f"NT-Xent by hand {by_hand:.4f}, by the library {float(nt_xent(a, b)):.4f}")

# %% [markdown]
# Channel 3 has by far the largest loss, as expected.
#
# One line of NumPy for each step, and the library agrees. Two mistakes are easy to make: to drop the positive from the
# sum, and to compare mixtures with channels only. Then two mixtures never repel each other; notebook 07 shows what
# follows.
#
# ## What guessing gives
#
# **Question.** An encoder that sends *everything* to the same point finds all 2B − 1 candidates equally similar. What is
# its loss?

# %%
for pairs in (2, 3, course.profile.batch_size, 128):
    same = ops.ones((pairs, 8))
    print(f"B = {pairs:3d}: loss {float(nt_xent(same, same)):.4f}, ln(2B - 1) = {np.log(2 * pairs - 1):.4f}")
    assert np.isclose(float(nt_xent(same, same)), np.log(2 * pairs - 1), atol=1e-4)

# %% [markdown]
# So ln(2B − 1) is **chance**: the number to hold a training curve against. It grows with the batch, hence losses at
# different batch sizes cannot be compared. And zero is out of reach: cosines stop at 1, so no probability gets to 1. If
# each pair sat on one point, and those points were spread as evenly as B points can be, the negatives would have cosine
# −1/(B − 1). (That takes B − 1 dimensions. The network's z, further down, has 128: with more than 129 pairs the value is a
# bound that nothing reaches.)

# %%
batch_size = course.profile.batch_size


def best_nt_xent(pairs, temperature=0.2):
    """NT-Xent of perfectly aligned pairs at the corners of a regular simplex."""
    return np.log1p((2 * pairs - 2) * np.exp((-1 / (pairs - 1) - 1) / temperature))


corners = ops.eye(batch_size) - 1 / batch_size  # B directions, all with the same angle to each other
assert np.isclose(best_nt_xent(batch_size), float(nt_xent(corners, corners)), atol=1e-4)
print(f"B = {batch_size}: chance {np.log(2 * batch_size - 1):.3f}, at best {best_nt_xent(batch_size):.3f}")

# %% [markdown]
# ## The temperature
#
# The gradient of an anchor's loss with respect to its similarity with view *v* is simple. For a negative it is p(v) / τ,
# which pushes it away; for the positive −(1 − p) / τ, which pulls it near. The probabilities p are those of the softmax.
# So the **temperature** τ decides how the push is shared among the negatives. First a check of the formula, by nudging one
# similarity.


# %%
def anchor_loss(row, target, temperature):
    """Loss of one anchor from its similarities (candidates,) and the position of the positive."""
    return np.log(np.exp(row / temperature).sum()) - row[target] / temperature


row, target = np.delete(similarity[0], 0), positive[0] - 1  # the first anchor's candidates (2B - 1,)
p = np.exp(row / temperature) / np.exp(row / temperature).sum()
formula = (p - (np.arange(len(row)) == target)) / temperature
nudged = [anchor_loss(row + 1e-5 * (np.arange(len(row)) == v), target, temperature) for v in range(len(row))]
numeric = (np.array(nudged) - anchor_loss(row, target, temperature)) / 1e-5
assert np.allclose(formula, numeric, atol=1e-3), "the formula of the gradient is wrong"
for name, s, g in zip(names[1:], row, formula, strict=True):
    print(f"{name}: similarity {s:5.2f}, gradient {g:7.4f}" + ("  (the positive)" if name == names[B] else ""))

# %% [markdown]
# **Question.** An anchor has 126 negatives with cosines spread evenly from −0.5 to 0.9. What share of the whole push does the
# *hardest* tenth of them get, at τ = 1, at 0.2, at 0.01?

# %%
cosines = np.linspace(-0.5, 0.9, 126)  # negatives, the hardest last
figure, axis = plt.subplots(figsize=(7, 3))
for tau, colour in zip((1.0, 0.5, 0.2, 0.1, 0.01), notebook.COLOURS, strict=False):
    weights = np.exp((cosines - cosines.max()) / tau)
    weights /= weights.sum()
    effective = np.exp(-(weights * np.log(weights + 1e-300)).sum())  # as many would share the push evenly
    print(f"τ = {tau:<4}: hardest tenth gets {weights[-13:].sum():6.1%}; as if {effective:5.1f} of them pushed")
    axis.plot(cosines, weights * len(cosines), color=colour, label=f"τ = {tau}")
axis.set(xlabel="cosine of the negative with the anchor", ylabel="push, 1 = even share", yscale="log", ylim=(1e-3, 200))
axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
notebook.show("The lower the temperature, the steeper the line: at 0.01 only the very nearest negatives are pushed.")

# %% [markdown]
# A high temperature treats all negatives alike, even those that are far away already. A very low one looks at the two or
# three nearest, which is sharp but nervous: the nearest negative is also the likeliest **false** one, say another clip
# with the same sound (notebook 01 counted those). The course takes τ = 0.2, as the first author's earlier published
# code does; the slides do not state it.
#
# ## Coincidence by hand, B = 3
#
# Now the second question. A small network, the **coincidence head**, gets a mixture's and a channel's embedding and returns
# a **logit**: a number whose sigmoid is the probability of *yes*. All mixtures with all channels make a grid. On the diagonal
# sit the true pairs; every other cell asks about two different scenes.

# %%
logits = np.array([[2.0, -1.0, 0.5], [-0.5, 0.2, -2.0], [1.0, -1.5, 1.2]])  # (mixtures, channels)
rows, columns = [f"mixture {i + 1}" for i in range(B)], [f"channel {i + 1}" for i in range(B)]
diagonal = [(i, i) for i in range(B)]
yes = 1 / (1 + np.exp(-logits))  # sigmoid: the probability of "same scene"
see = "On the diagonal the probabilities should be high: that of pair 2 is little more than one half."
matrix(yes, rows, columns, diagonal, "probability of coincidence (outlined: true pairs)", see, 0, 1)

# %% [markdown]
# Where the answer should be yes, the loss is −log p; where it should be no, −log(1 − p). There are B of the first kind and
# B(B − 1) of the second, so each kind gets a **mean of its own**, and the two means are added.

# %%
cell_loss = np.where(np.eye(B) == 1, -np.log(yes), -np.log(1 - yes))  # (B, B)
of_positives = np.diag(cell_loss).mean()
of_negatives = cell_loss[~np.eye(B, dtype=bool)].mean()
by_hand = of_positives + of_negatives
see = "The confident mistake costs most: mixture 3 with channel 1, which the head takes for a pair."
matrix(cell_loss, rows, columns, diagonal, "loss of each answer", see, 0, cell_loss.max(), cmap="Oranges")
library = float(Coincidence()(np.zeros((B, B), "float32"), ops.convert_to_tensor(logits.astype("float32"))))
assert np.isclose(by_hand, library, atol=1e-5), "coincidence by hand differs from the library"
print(f"positives {of_positives:.4f} + negatives {of_negatives:.4f} = {by_hand:.4f}; the library: {library:.4f}")

# %% [markdown]
# (The library never forms p. It uses −log p = softplus(−logit), softplus(x) = ln(1 + eˣ), which stays finite for any logit.)
#
# ## Balance
#
# **Question.** What is the loss of a head that answers p = ½ to everything? And suppose we took *one* mean over all B²
# cells: what would the laziest head learn, the one that always says no?

# %%
lazy = {"balanced": [], "one mean over all cells": []}
sizes = (2, 3, 8, 32, 128)
for pairs in sizes:
    zeros = np.zeros((pairs, pairs), "float32")
    undecided = float(Coincidence()(zeros, ops.zeros((pairs, pairs))))
    assert np.isclose(undecided, 2 * np.log(2), atol=1e-5), "chance must not depend on B"
    constant = np.log(1 / (pairs - 1)) if pairs > 2 else 0.0  # the logit of "one in B coincides", for every cell
    lazy["balanced"].append(float(Coincidence()(zeros, zeros + np.float32(constant))))
    p = 1 / (1 + np.exp(-constant))
    lazy["one mean over all cells"].append((-np.log(p) - (pairs - 1) * np.log(1 - p)) / pairs)
print(f"undecided: {undecided:.4f} at every B; 2 ln 2 = {2 * np.log(2):.4f}")

# %%
figure, axis = plt.subplots(figsize=(6, 2.8))
for name, values in lazy.items():
    axis.plot(sizes, values, marker="o", label=name)
axis.axhline(2 * np.log(2), color="0.4", linestyle="--", label="2 ln 2, undecided (balanced)")
axis.axhline(np.log(2), color="0.4", linestyle=":", label="ln 2, undecided (one mean)")
axis.set(xscale="log", xlabel="pairs in the batch, B", ylabel="loss of always “rather no”")
axis.set_xticks(sizes, sizes)
axis.minorticks_off()
axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
notebook.show("With one mean the lazy answer gets better the larger the batch; balanced, it never beats 2 ln 2.")

# %% [markdown]
# With one mean, saying "rather no" looks better and better as the batch grows, though nothing was learned: the one true pair
# drowns. Balanced, a constant answer never beats 2 ln 2, **whatever B**. So this loss, unlike NT-Xent, can be compared
# across batch sizes.
#
# ## The head, and a layer split in two
#
# In the slides the head reads the **concatenation** [h_m, h_c] of the two embeddings, d numbers each, 2d together,
# through an MLP (a few dense layers, one after another) with ReLU; here it has one hidden layer, a size the slides
# leave open. For the grid that would mean B² concatenations. But a dense layer on a concatenation is a sum of two dense
# layers:
#
# $$W\,[h_m, h_c] + b = W_m h_m + W_c h_c + b$$
#
# and each part needs only B products with a matrix; the grid appears when the two are added. First the claim, as code:

# %%
rng = np.random.default_rng(course.seed)
d, hidden, pairs = 16, 32, 5
h_m, h_c = rng.normal(size=(2, pairs, d)).astype("float32")
head = CoincidenceHead(hidden)
split = ops.convert_to_numpy(head(h_m, h_c))  # (pairs, pairs)

grid = np.concatenate(np.broadcast_arrays(h_m[:, None], h_c[None]), axis=-1)  # (mixtures, channels, 2d)
w_m, bias, w_c, w_out, b_out = (np.asarray(w) for w in head.get_weights())
concatenated = np.maximum(grid @ np.concatenate([w_m, w_c]) + bias, 0) @ w_out + b_out
assert np.allclose(split, concatenated[..., 0], atol=1e-4), "the split layer is not the layer"
print("grid of concatenations (B, B, 2d):", grid.shape, "· logits (B, B):", split.shape)
print(f"largest difference between the two ways: {np.abs(split - concatenated[..., 0]).max():.1e}")

# %% [markdown]
# **Question.** At the batch size and the d of your profile (tiny: B = 64, d = 128) and 512 hidden units: how many
# numbers (four bytes each) does each way keep, and how many multiplications does its first layer need?

# %%
d, hidden, rows = course.profile.embedding_dim, 512, []
for pairs in dict.fromkeys((3, batch_size, 128, 1024, 4096)):
    inner = pairs**2 * hidden  # after the ReLU
    parts = 2 * pairs * hidden  # W_m h_m + b and W_c h_c
    numbers = {"concatenated": pairs**2 * 2 * d + inner, "split": parts + inner, "split, in blocks": parts + pairs**2}
    products = {"concatenated": pairs**2 * 2 * d * hidden, "split": 2 * pairs * d * hidden}
    rows.append({"B": pairs} | {f"{way}, MB": f"{4e-6 * count:,.2f}" for way, count in numbers.items()})
    rows[-1] |= {f"{way}, million products": f"{1e-6 * count:,.1f}" for way, count in products.items()}
notebook.table(rows, {key: key for key in rows[0]})

# %% [markdown]
# At B = 3 the split keeps even a little more; for large B it saves the concatenations and a factor of B in products,
# but what comes out of the ReLU is still B × B × 512. So `CoincidenceHead` works **in blocks**: it makes the grid for a
# few mixtures at a time and keeps only the logits of each block. For the gradient it makes each block once more, which
# costs some additions and no products of the first layer.
#
# Note also that the head is **not symmetric**: the mixture comes first, the channel second, each with weights of its own.
#
# ## The sum
#
# The joint objective is simply the sum, with equal weights: the slides show no others. At chance the similarity loss is
# by far the larger number. But what steers the encoder are *gradients*, and those we can measure.
#
# ## On real patches
#
# The encoder gives each patch d numbers, the embedding **h**. Each task reads h through a head of its own: the **similarity
# head**, two dense layers, turns h into **z**, which NT-Xent compares; the coincidence head turns two h into a logit. (Why z
# and not h, and what the encoder is made of, comes in notebook 07.) A batch of pairs from notebook 05, an encoder that has
# learned nothing yet, fresh heads.

# %%
row = read_rows()[MAIN_ROW]
dataset = ViewPairs(course.views(), row.pairing, row.processors, batch_size, seed=course.seed)
(batch,) = dataset[0]  # two arrays (pairs, frames, mels)


def fresh(similarity, coincidence):
    """The untrained encoder with new heads; the same weights each time it is called."""
    model = ContrastiveModel(course.untrained_encoder(), similarity, coincidence)
    model(batch)  # builds the heads
    return model


# %%
model = fresh(1.0, 1.0)
outputs = {mode: model(batch, training=mode) for mode in (False, True)}
print("z of the mixtures (pairs, units):", tuple(outputs[False]["z"][0].shape))
print("grid of logits (mixtures, channels):", tuple(outputs[False]["logits"].shape))

# %% [markdown]
# **Question.** Nothing is trained. Where do you expect the two losses?

# %% [markdown]
# Near chance; but there are two answers, because of the encoder's **batch norm**: layers that bring each feature to mean 0 and
# deviation 1. While training they take mean and deviation from the batch at hand; for inference they use running
# averages of those, here still at their initial values.

# %%
nothing = np.zeros((batch_size, batch_size), "float32")  # Keras' losses take targets; coincidence has none
losses = {
    mode: {"similarity": float(NTXent(0.2)(*out["z"])), "coincidence": float(Coincidence()(nothing, out["logits"]))}
    for mode, out in outputs.items()
}
untrained = losses[False]
chance = {"similarity": float(np.log(2 * batch_size - 1)), "coincidence": float(2 * np.log(2))}
for task, guess in chance.items():
    print(
        f"{task:<12} chance {guess:.4f} · untrained {untrained[task]:.4f} · batch statistics {losses[True][task]:.4f}"
    )
    claim = f"{task} of the untrained encoder is within a tenth of chance"
    notebook.verdict(verdicts, claim, abs(untrained[task] / guess - 1) < 0.1, f"{untrained[task] / guess:.3f} of it")
print(f"joint        chance {sum(chance.values()):.4f} · untrained {sum(untrained.values()):.4f}")

# %% [markdown]
# Without batch statistics the coincidence loss should be chance almost to the last digit: batch norm changes nothing
# yet, each convolution makes its input smaller, and what is left of h moves no logit away from 0. (With made sounds it
# is.) NT-Xent sees directions only, so size cannot hide the likeness to its input that an untrained network, a random
# filter, still has. With batch statistics its outputs spread out, and a random head then gives random, confident
# answers: that may cost more than guessing.
#
# Seen as pictures, both with batch statistics: the similarities of z between all 2B views, and the logits of the grid. On
# the left, each view with itself lies on the diagonal; partners lie B places away, on two more diagonals.
#
# **Question.** Can you see the two diagonals of the partners?

# %%
z = np.concatenate([ops.convert_to_numpy(part) for part in outputs[True]["z"]])
z /= np.linalg.norm(z, axis=1, keepdims=True)
pictures = {
    ("view: mixtures, then channels", "view", "cosine of z"): z @ z.T,
    ("mixture", "channel", "logit"): ops.convert_to_numpy(outputs[True]["logits"]),
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
for axis, ((vertical, horizontal, label), picture) in zip(axes, pictures.items(), strict=True):
    image = axis.imshow(picture, cmap="magma", interpolation="nearest")
    axis.set(ylabel=vertical, xlabel=horizontal)
    figure.colorbar(image, ax=axis, shrink=0.85, label=label)
notebook.show(
    "Left, only each view with itself stands out; right, whole rows and columns do, and the diagonal does not."
)

# %% [markdown]
# Hardly: an untrained encoder finds partners little more alike than strangers. On the right, logits differ by
# whole *rows* and *columns*, not along the diagonal. A bright row is one mixture to which the head says yes, whatever the
# channel: it looks at each side by itself, and has not learned to compare them.
#
# ## Do both tasks reach the encoder?
#
# Two heads hang on one encoder. A mistake in the wiring, for instance a gradient that stops at h, would go unnoticed: the
# heads alone can lower a loss a little. So we measure. One step of plain gradient descent with learning rate 1 changes each
# weight by exactly minus its gradient, on any backend: the difference of weights before and after **is** the gradient.


# %%
def encoder_gradients(similarity, coincidence):
    """Gradients of the encoder's trainable weights, a dict from name to array, for these weights of the two tasks."""
    model = fresh(similarity, coincidence)  # (a weight of zero would leave a head out; 1e-9 switches it off in place)
    weights = model.encoder.trainable_variables
    before = [np.array(w) for w in weights]
    model.compile(keras.optimizers.SGD(1.0), jit_compile=compile_with_xla())
    model.train_on_batch(batch)
    return {w.path: b - np.array(w) for w, b in zip(weights, before, strict=True)}


tasks = {"similarity": (1.0, 1e-9), "coincidence": (1e-9, 1.0), "joint": (1.0, 1.0)}
gradients = {task: encoder_gradients(*weights) for task, weights in tasks.items()}

# %% [markdown]
# In the chart `bn0` is the batch norm at the entrance, `bottleneck` the dense layer that makes h.

# %%
norms = {}
for task, found in gradients.items():
    for path, gradient in found.items():
        layer = next(part for part in path.split("/") if part.startswith(("bn0", "conv_block", "bottleneck")))
        norms.setdefault(task, {}).setdefault(layer, []).append(np.square(gradient).sum())
norms = {task: {layer: float(np.sqrt(sum(s))) for layer, s in found.items()} for task, found in norms.items()}
for task in ("similarity", "coincidence"):
    assert all(norm > 0 for norm in norms[task].values()), f"{task} does not reach the whole encoder"
figure, axis = plt.subplots(figsize=(8, 2.8))
for i, task in enumerate(norms):
    axis.bar(np.arange(len(norms[task])) + 0.27 * (i - 1), list(norms[task].values()), width=0.27, label=task)
axis.set_xticks(range(len(norms["joint"])), [layer.replace("conv_", "") for layer in norms["joint"]])
axis.set(ylabel="length of the gradient", xlabel="layers of the encoder")
axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
notebook.show("Both tasks have a gradient in every layer of the encoder, from its entrance to the bottleneck.")

# %% [markdown]
# Gradients add as losses do: the joint gradient must be the sum of the two, up to rounding.
#
# **Question.** Do the tasks pull in the same direction? And which pulls harder on this first step: the one with the larger
# loss? (The cosine between the gradients is 1 where they agree, 0 where they have nothing to do with each other, −1 where
# they pull against each other.)

# %%
flat = {task: np.concatenate([g.ravel() for g in found.values()]) for task, found in gradients.items()}
length = {task: float(np.linalg.norm(g)) for task, g in flat.items()}
error = np.linalg.norm(flat["similarity"] + flat["coincidence"] - flat["joint"]) / length["joint"]
assert error < 0.02, "the joint gradient is not the sum of the two"
agreement = float(flat["similarity"] @ flat["coincidence"] / (length["similarity"] * length["coincidence"]))
print(f"joint against the sum: relative error {error:.1e}")
print("length:", ", ".join(f"{task} {value:.3f}" for task, value in length.items()))
print(f"cosine between the gradients of the two tasks: {agreement:.3f}")
harder = max(("similarity", "coincidence"), key=length.get)
ways = ("against each other", "in unrelated directions", "in the same direction")
way = ways[int(np.digitize(agreement, (-0.3, 0.3)))]
print(f"so at the first step the tasks pull {way}, and {harder} pulls harder, by a factor of "
      f"{length[harder] / min(length['similarity'], length['coincidence']):.1f}")  # fmt: skip

# %%
course.record(
    "06",
    untrained=untrained,
    untrained_batch_statistics=losses[True],
    chance=chance,
    best_similarity=float(best_nt_xent(batch_size)),
    gradient_length=length,
    gradient_cosine=agreement,
    verdicts=verdicts,
)
print("kept: results/06.json")

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | similarity | softmax over 2N − 1 candidates (its N is our B), cosine, temperature τ (value not in the slides) | `NTXent(temperature=0.2)` |
# | coincidence | binary cross entropy, all N(N − 1) negatives, both kinds weigh the same | `Coincidence()` on logits (B, B) |
# | similarity head | MLP with ReLU, h → z | `SimilarityHead` |
# | coincidence head | MLP with ReLU on [h_m, h_c] | `CoincidenceHead`, first layer split |
# | joint training | multi-task; the best rows of Table 4 | `ContrastiveModel.compute_loss`: the sum, weights 1 and 1 |
# | chance | (derived) | ln(2B − 1) and 2 ln 2 |
#
# ## Exercises
#
# **1. Predict.** The three pairs of the circle, with τ = 1 instead of 0.2: does the loss rise or fall? And chance, ln 5? Write
# down two numbers, then change the temperature.

# %% tags=["your turn"]
# your turn: `NTXent(1.0)(a, b)`, and the same for three pairs on one point

# %% tags=["solution"]
same = ops.ones((B, 8))
for tau in (0.2, 1.0):
    print(f"τ = {tau}: loss {float(NTXent(tau)(a, b)):.3f}, chance {float(NTXent(tau)(same, same)):.3f}")
# It rises towards chance: divided by 1 the similarities differ by little, so the softmax is nearly even. Chance stays.

# %% [markdown]
# **2. Build it.** Write the denominator of NT-Xent for any number of pairs. Mind two things: an anchor is no candidate of its
# own, and its positive stays in. The check compares with the library on random embeddings.


# %% tags=["your turn"]
def denominators(z, temperature):
    """For each of the views z (2B, d), of length 1, the sum of exp(cosine / temperature) over its candidates, (2B,)."""
    # your turn
    return np.ones(len(z))


# %%
def check_denominators(denominators):
    """Whether −log of positive / denominator is what the library finds, for 7 random pairs at three temperatures."""
    halves = np.random.default_rng(0).normal(size=(2, 7, 5))
    z = np.concatenate(halves) / np.linalg.norm(np.concatenate(halves), axis=1, keepdims=True)
    partners = (z * np.roll(z, 7, axis=0)).sum(axis=1)  # (14,) cosines
    for tau in (0.05, 0.2, 1.0):
        expected = np.asarray(NTXent(tau).call(*(ops.convert_to_tensor(half.astype("float32")) for half in halves)))
        found = np.log(np.asarray(denominators(z, tau), "float64")) - partners / tau
        if found.shape != (14,) or not np.allclose(found, expected, atol=1e-3):
            return print(f"not yet: at τ = {tau} the first loss is {found.flat[0]:.3f}, expected {expected[0]:.3f}")
    print("right: the same losses as the library's")


check_denominators(denominators)


# %% tags=["solution"]
def denominators(z, temperature):
    exponentials = np.exp(z @ z.T / temperature)
    return exponentials.sum(axis=1) - np.diag(exponentials)


check_denominators(denominators)

# %% [markdown]
# **3.** A **false negative**: two scenes of a batch hold the same sound, and a perfect encoder gives them the same place.
# Compute NT-Xent for perfectly aligned, evenly spread pairs, once with B different scenes and once with two of them equal. By
# how much do the anchors of the twins suffer, and what does that depend on?

# %% tags=["your turn"]
# your turn: `corners` holds B such places; let two of them be equal

# %% tags=["solution"]
places = np.array(corners)  # (B, B): one direction a scene
twins = places.copy()
twins[1] = twins[0]
for name, points in (("all different", places), ("two twins", twins)):
    each = np.asarray(NTXent(0.2).call(*(ops.convert_to_tensor(points.astype("float32")),) * 2))
    print(f"{name}: mean {each.mean():.3f}, first anchor {each[0]:.3f}, last anchor {each[-1]:.3f}")
print(
    f"a twin's loss cannot be below ln 3 = {np.log(3):.3f}: two negatives are as good as the positive, at any temperature"
)

# %% [markdown]
# **4.** What does the coincidence loss become if the grid is transposed (channels along the first axis)? And if `h_m` and `h_c`
# are swapped at the *head*? Answer first, then run.

# %% tags=["your turn"]
# your turn: `logits.T`, and `head(h_c, h_m)`

# %% tags=["solution"]
zeros, cells = np.zeros((B, B), "float32"), logits.astype("float32")
straight, transposed = (float(Coincidence()(zeros, ops.convert_to_tensor(x.copy()))) for x in (cells, cells.T))
print(f"loss {straight:.4f}, of the transposed grid {transposed:.4f}: the same cells are averaged")
swapped = ops.convert_to_numpy(head(h_c, h_m))
print(f"head with its arguments swapped: logits change by up to {np.abs(swapped.T - split).max():.3f}")
# The loss averages the same cells either way. The head has different weights for mixtures and for channels.

# %% [markdown]
# ## What to read next
#
# * Chen et al. 2020, *A simple framework for contrastive learning of visual representations*: NT-Xent and the head.
# * Jansen et al. 2020, *Coincidence, categorization, and consolidation*: coincidence prediction on AudioSet.
# * Wang and Liu 2021, *Understanding the behaviour of contrastive loss*: what the temperature does.
#
# Next: [07 · Contrastive pretraining](07_contrastive_pretraining.ipynb), where the two losses train an encoder.
