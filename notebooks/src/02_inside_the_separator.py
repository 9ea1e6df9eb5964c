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
# # 02 · Inside the separator

# %% [markdown]
# | | |
# |---|---|
# | **you will** | walk a scene through TDCN++, the separation network, layer by layer, computing each step by hand |
# | **you need** | arrays and matrix products; what a dense layer is. No audio knowledge |
# | **you make** | two channels that sum to the scene, and a clear idea of what each layer is for |
# | **time** | under half a minute on a CPU (tiny); on a GPU: not measured yet |

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
from matplotlib.collections import LineCollection

from sepcl_keras.course import notebook
from sepcl_keras import TDCNPlusPlus
from sepcl_keras.separation.network import energy_weights, mixture_consistency, start_from_mdct

to_numpy = ops.convert_to_numpy  # from the backend's tensors
course = notebook.setup(PROFILE, DATA, SEED, OUT)
verdicts = {}  # claims about sounds and training: whether they hold in this run


# %%
def close(a, b):
    """Whether two arrays are equal up to the rounding of fast matrix products."""
    return np.linalg.norm(a - b) <= 2e-3 * np.linalg.norm(b)


# %% [markdown]
# ## The plan
#
# A *separator* takes a waveform in which several sounds overlap, the **mixture**, and gives back M waveforms, the
# **channels**, each as long as the mixture. Ours is **TDCN++**, a *time-domain convolutional network*: it never
# computes a Fourier transform, it learns its own kind of spectrum.
#
#     mixture ─▶ frames ─▶ basis ─┬─────────────────────────▶ × ─▶ decoder ─▶ overlap-add ─▶ consistency ─▶ channels
#                                 │                           ▲
#                                 └▶ dense ─▶ blocks ─▶ masks ┘
#
# The upper branch carries the sound; the lower branch only decides, for each moment and each basis function, how much
# of it goes to which channel. Why masks, and not waveforms straight from the network? Because sharing out what is there is
# an easier task than drawing sound from nothing. We follow both branches with one scene, of two events whose shapes in the
# spectrogram overlap little. The network is **untrained** here: what its layers
# *compute* can be seen without training, and what training changes is the next notebook's subject.

# %%
rate = course.profile.sample_rate
test = course.mixed["test"]
pairs = np.flatnonzero(test.number_of_events[:48] == 2)
number = int(min(pairs, key=lambda i: notebook.overlap(test[int(i)])))
scene = test[number]
mixture = scene.mixture[None]  # (clips, samples), a batch of one clip
print(f"test scene {number}, {scene.place}: {' + '.join(scene.labels)}; mixture {mixture.shape} (clips, samples)")
notebook.listen({"mixture": scene.mixture} | dict(zip(scene.labels, scene.sources)),
                alt="Remember the two kinds of shape: they come back in the network's own pictures below.")  # fmt: skip

# %% [markdown]
# The network itself takes two lines, and the seed fixes its random weights. `TDCNPlusPlus()` without arguments has the
# sizes of the *original*, the public code of the separator's authors; the profile's network is smaller, with a longer
# frame, so that it trains on a laptop. The sizes are explained one by one below, all but `long_skips`: these further
# connections between the series of blocks are off in both.

# %%
keras.utils.set_random_seed(course.seed)
separator = TDCNPlusPlus(**course.profile.separator)
separator.build((None, None))  # any number of clips, any number of samples
paper = TDCNPlusPlus()
paper.build((None, None))
rows = [{"what": k, "paper": paper.config[k], "here": separator.config[k]} for k in paper.config]
notebook.table(rows, {"what": "size", "paper": "original", "here": f"profile {PROFILE}"})

# %% [markdown]
# ## 1 · Frames
#
# A sound changes all the time, so we look at it in short pieces, **frames**, that overlap: a new frame of
# `frame_length` samples begins every `frame_step` samples (the *hop*). These frames are the separator's own, shorter than
# those of log-mel.
#
# **Question.** The frames overlap by half and zeros fill up the last one. How many does this mixture have?

# %%
length, step = separator.config["frame_length"], separator.config["frame_step"]
samples = mixture.shape[1]
frames = to_numpy(separator.frame(mixture))  # (clips, frames, frame_length)
print(f"{samples:,} samples = {samples / rate:g} s → {frames.shape} (clips, frames, frame_length)")
print(f"one frame is {1000 * length / rate:g} ms long, a new one begins every {1000 * step / rate:g} ms")
assert frames.shape[1] == 1 + -(-(samples - length) // step), "1 + (samples − length) / step, rounded up"
assert np.array_equal(frames[0, 7], mixture[0, 7 * step : 7 * step + length]), "frame 7 begins 7 hops into the clip"

# %% [markdown]
# Three neighbouring frames around the loudest moment, each drawn below the one before:

# %%
middle = min(max(int(np.abs(scene.mixture).argmax()) // step, 1), frames.shape[1] - 2)
figure, axis = plt.subplots(figsize=(8, 2.8))
size = 2.2 * np.abs(frames[0, middle]).max()
for row, k in enumerate((middle - 1, middle, middle + 1)):
    seconds = (k * step + np.arange(length)) / rate
    axis.plot(seconds, frames[0, k] - row * size, label=f"frame {k}")
    axis.axvspan(seconds[0], seconds[-1], 0.05, 0.95, color=f"C{row}", alpha=0.08)
axis.set(xlabel="time in s", yticks=[], title="overlapping frames")
axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
notebook.show("The second half of each frame is the first half of the next one.")

# %% [markdown]
# ## 2 · The learned basis
#
# Each frame is compared with `num_basis` patterns, the **basis functions**: one dense layer without bias, then ReLU
# (negative values become zero). In a spectrogram the patterns would be sines and cosines; here they are weights like
# any others, and the loss decides what they become. The ReLU makes the **coefficients** non-negative, as a magnitude
# spectrogram is: "how much of this pattern is in this frame". That is the kind of number that can be shared out. (In the
# code the layer is called `encoder`, a name that saved files depend on. In this course *the encoder* is CNN14.)

# %%
basis = to_numpy(separator.encoder.kernel)  # (frame_length, num_basis)
coefficients = to_numpy(separator.encoder(frames))  # (clips, frames, num_basis)
by_hand = np.maximum(frames @ basis, 0.0)
print(f"basis {basis.shape} (frame_length, num_basis), coefficients {coefficients.shape} (clips, frames, num_basis)")
print(f"{np.mean(coefficients == 0):.0%} of the coefficients are zero")
assert close(coefficients, by_hand), "the basis is one matrix product and a ReLU"

# %% [markdown]
# The basis functions have no order of their own, so for looking at them we sort them by the frequency that each
# responds to most.
#
# **Question.** These weights are random. Will the picture still look like the scene?


# %%
def by_frequency(basis):
    """Indices of the basis functions (frame_length, num_basis), from low to high frequency."""
    return np.abs(np.fft.rfft(basis, axis=0)).argmax(axis=0).argsort(kind="stable")


# %%
def look(images, label, alt, top=None):
    """Panels of arrays (frames, features), time to the right, each with its own colours; `top`: of the vertical axis."""
    columns = min(len(images), 3)
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 2.4 * rows), squeeze=False)
    for axis, (title, image) in zip(axes.flat, images.items()):
        low, high = np.percentile(image, (1, 99))  # outliers would leave the rest one colour
        place = dict(origin="lower", aspect="auto", extent=(0, len(image) * step / rate, 0, top or image.shape[1]))
        shown = axis.imshow(image.T, interpolation="nearest", cmap="magma", vmin=low, vmax=high, **place)
        axis.set(title=title, xlabel="time in s", ylabel=label)
        figure.colorbar(shown, ax=axis)
    notebook.show(alt)


# %%
look({"log coefficients, random basis": np.log(coefficients[0][:, by_frequency(basis)] + 0.01)}, "basis function",
     "Columns change when an event comes or goes, but from bottom to top there is hardly a shape.")  # fmt: skip

# %% [markdown]
# You can see *when* something happens, but not at which pitch: a random pattern listens to all of them a little. The original begins there
# and spends its first thousands of steps on finding a useful basis. At course scale we cannot wait, and give it one to
# start from: the cosines of the **modified discrete cosine transform** (MDCT), which also sits inside many audio codecs.
# Each cosine stands twice, with both signs, because the ReLU lets only one sign pass. Training may change them like all
# other weights. From here on this is exactly the network that training starts from in notebook 03.

# %%
bases = {"random": basis}
start_from_mdct(separator)
basis = bases["cosine"] = to_numpy(separator.encoder.kernel)  # (frame_length, num_basis)
coefficients, order = to_numpy(separator.encoder(frames)), by_frequency(basis)
figure, axes = plt.subplots(2, 3, figsize=(11, 3), sharex=True, sharey="row")
for row, (name, functions) in zip(axes, bases.items()):
    chosen = by_frequency(functions)[[len(order) // 32, len(order) // 8, len(order) // 2]]
    for axis, index in zip(row, chosen):
        axis.plot(1000 * np.arange(length) / rate, functions[:, index])
        most = np.abs(np.fft.rfft(functions[:, index], 4096)).argmax() * rate / 4096
        axis.set_title(f"{name}, most at {most:.0f} Hz")
axes[1, 1].set_xlabel("time in ms")
figure.supylabel("amplitude")
notebook.show("Above, noise that listens to every frequency; below, cosines of one frequency each, faded in and out.")
look({"log coefficients, cosine basis": np.log(coefficients[0][:, order] + 0.01)}, "frequency in kHz",
     "Now the two kinds of shape are there, as in the spectrogram; here the axis is in equal steps of Hz, not of mel.", rate / 2000)  # fmt: skip

# %% [markdown]
# Cosines tell frequencies apart, and the picture resembles the spectrogram of the scene. They also lose nothing: with masks
# that let everything pass, the decoder of section 7 turns the coefficients back into the mixture, but for the first
# and the last half frame, which only one frame covers.

# %%
everything = np.stack([coefficients, coefficients], axis=1)  # (clips, channels, frames, basis): masks of ones
rebuilt = to_numpy(separator.overlap_add(separator.decoder(everything), samples))[0, 0]  # (samples,)
error = np.abs(rebuilt - scene.mixture)[step : samples - length].max()
print(f"largest error of basis and decoder alone: {error:.1e}")
assert error < 1e-3 * np.abs(scene.mixture).max() + 1e-4, "the cosine basis is invertible"

# %% [markdown]
# ## 3 · The initial dense layer
#
# Now the lower branch. A dense layer brings the coefficients to `bottleneck` features; like most dense layers
# of TDCN++ it is followed by one learned number that scales everything (it begins at 1).

# %%
dense, scale = separator.initial.dense, separator.initial.scale
x = to_numpy(separator.initial(coefficients))  # (clips, frames, bottleneck)
by_hand = (coefficients @ to_numpy(dense.kernel) + to_numpy(dense.bias)) * float(scale)
print(f"{coefficients.shape} → {x.shape} (clips, frames, bottleneck); scale {float(scale):g}")
assert close(x, by_hand), "a dense layer with bias, times one number"

# %% [markdown]
# ## 4 · One block, step by step
#
# The body of the network is a stack of equal **blocks**. Each reads features `x (clips, frames, bottleneck)`,
# computes something to *add* to them, and passes the sum on. We take the third block, index b = 2, and feed it what
# the two before it make.
#
# **Dense up.** First there are more features: from `bottleneck` to `hidden`, without bias.

# %%
block = separator.blocks[2]
before = x
for earlier in separator.blocks[:2]:
    before = earlier(before)
before = to_numpy(before)  # (clips, frames, bottleneck)
up = to_numpy(block.up(before))  # (clips, frames, hidden)
print(f"{before.shape} (clips, frames, bottleneck) → {up.shape} (clips, frames, hidden)")

# %% [markdown]
# **PReLU.** Like ReLU, but negative values are multiplied by a small learned slope instead of being dropped; one slope
# for the whole layer.
#
# **Normalisation over time.** Then every feature of every clip is brought to mean 0 and (nearly) variance 1.
# **Question.** The array has axes (clips, frames, features). Over which of them are mean and variance taken?

# %%
slope, epsilon = float(block.first.slope), 1e-3
bent = np.maximum(up, 0) + slope * np.minimum(up, 0)
mean, variance = bent.mean(axis=1, keepdims=True), bent.var(axis=1, keepdims=True)  # (clips, 1, hidden): over time
normed = (bent - mean) / np.sqrt(variance + epsilon) * float(block.first.gamma) + float(block.first.beta)
print(f"slope {slope:g}; statistics {mean.shape}: one mean and variance for each clip and feature")
print(f"afterwards: largest mean {np.abs(normed.mean(axis=1)).max():.1e}")
print(f"            median variance {np.median(normed.var(axis=1)):.3f}")
assert close(normed, to_numpy(block.first(up))), "PReLU, then a norm over frames alone"

# %% [markdown]
# Only over the frames. The statistics mix neither features nor clips; section 9 shows why that matters. The small epsilon keeps features that hardly move from being blown up.
#
# **Dilated depthwise convolution.** So far each frame was looked at by itself. Now each feature looks at three
# moments: d frames ago, now, and d frames ahead. *Depthwise*: each feature with its own three weights, no mixing
# between features. *Dilated*: d is more than one, so three weights reach far. That is all there is to it: three
# shifted copies, three multiplications.

# %%
d = block.convolution.dilation
weights = to_numpy(block.convolution.kernel)[:, :, 0]  # (3, hidden)
n = normed.shape[1]
padded = np.pad(normed, ((0, 0), (d, d), (0, 0)))  # zeros before the beginning and after the end
past, now, future = padded[:, :n], padded[:, d : d + n], padded[:, 2 * d :]
convolved = past * weights[0] + now * weights[1] + future * weights[2] + to_numpy(block.convolution.bias)
print(f"dilation {d} frames = {1000 * d * step / rate:g} ms; {weights.size:,} weights, three for each hidden feature")
assert close(convolved, to_numpy(block.convolution(normed))), "three shifted multiplies"

# %% [markdown]
# **PReLU and normalisation again**, then **dense down** to `bottleneck` features, times a number that begins at
# $0.9^b$: the deeper the block, the less it adds at first. The last blocks of a deep stack therefore start close to
# doing nothing, which keeps early training calm. Last, the **residual**: the block's input is added back.

# %%
second = to_numpy(block.second(convolved))
down = to_numpy(block.down(second))  # (clips, frames, bottleneck)
after = before + down
print(f"scale of block {block.index}: {float(block.down.scale):.4f}; by the rule {0.9**block.index:.4f}")
assert np.isclose(float(block.down.scale), 0.9**block.index), "before training"
assert close(after, to_numpy(block(before))), "our six steps are the block"
look(
    {"in": before[0], "up": up[0], "PReLU, norm": normed[0], "dilated convolution": convolved[0],
     "dense down, scaled": down[0], "out = in + down": after[0]}, "feature",
    "Features have no order, so rows look like noise. Look at the columns: the moments of the events are kept in every step.")  # fmt: skip

# %% [markdown]
# ## 5 · Dilations: how far can it see?
#
# From block to block the dilation doubles, and the whole series is repeated a few times.
#
# **Question.** After four blocks, on how many input frames does one frame depend? (Each block adds d to either side.)
#
# Follow the lines from the one frame at the top down to the input:

# %%
first = separator.config["dilations"][:4]
figure, axis = plt.subplots(figsize=(9, 3))
nodes = {0}  # the frames that matter, at the level we have come down to
for level in reversed(range(len(first))):
    lines = [[(t, level + 1), (t + shift, level)] for t in nodes for shift in (-first[level], 0, first[level])]
    axis.add_collection(LineCollection(lines, colors=f"C{level}", linewidths=1))
    axis.plot(sorted(nodes), [level + 1] * len(nodes), "o", color=f"C{level}", markersize=5)
    nodes = {end for _, (end, _) in lines}
axis.plot(sorted(nodes), [0] * len(nodes), "o", color="0.4", markersize=5)
names = ["input frames"] + [f"after block {i}, dilation {d}" for i, d in enumerate(first)]
axis.set(xlabel="frames before and after", yticks=range(len(names)), yticklabels=names)
axis.set_title(f"one frame at the top sees {len(nodes)} frames of the input")
notebook.show("Going down, the lines fan out wider at each block, and leave no frame out between the two ends.")
assert len(nodes) == 1 + 2 * sum(first), "each block reaches d frames further on either side"

# %% [markdown]
# On 31: twice the sum of the dilations, 1 + 2 + 4 + 8, and the frame itself. Further blocks add in the same way. A bar for each
# block shows how much of the input one frame sees after it, in a colour for each series.
# Inside the first series every block about doubles the reach; each new series begins again with small dilations, on
# top of what is seen already.


# %%
def reach(network):
    """Samples to either side that one frame sees after each block, (blocks,): every block adds its dilation."""
    c = network.config
    return np.cumsum(c["dilations"] * c["repeats"]) * c["frame_step"]


# %%
both = {"original": paper, f"profile {PROFILE}": separator}
figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharex=True)
for axis, (name, network) in zip(axes, both.items()):
    side, dilations = reach(network), network.config["dilations"]
    total = 2 * side[-1] + network.config["frame_length"]  # samples
    series = [f"C{i // len(dilations)}" for i in range(len(side))]
    axis.barh(range(len(side)), 2 * side / rate, left=-side / rate, color=series)
    axis.set(xlabel="seconds before and after", ylabel="block, counted from the input")
    axis.use_sticky_edges = False  # or the longest bar would touch the edge of the axes
    axis.set_title(f"{name}: {len(side)} blocks see {total:,} samples = {total / rate:.2f} s")
    assert total == network.receptive_field, "as the library has it"
notebook.show("Within a series the bars double; the next begins with small steps again. Compare seconds, not blocks.")

# %%
rows = []
for name, network in both.items():
    c, seen = network.config, network.receptive_field
    rows.append({
        "what": name, "dilations": f"{c['dilations'][0]} … {c['dilations'][-1]}, {c['repeats']} ×",
        "frames": f"{1 + 2 * sum(c['dilations']) * c['repeats']:,}", "hop": f"{1000 * c['frame_step'] / rate:g} ms",
        "samples": f"{seen:,}", "seconds": f"{seen / rate:.2f} s",
    })  # fmt: skip
columns = {"what": "network", "dilations": "dilations", "frames": "frames seen", "hop": "a frame every"}
notebook.table(rows, columns | {"samples": "samples seen", "seconds": "seconds seen"})

# %% [markdown]
# This is the **receptive field**: the stretch of sound that can influence one frame through the convolutions. The
# normalisation reaches further still: its mean and variance are taken over the whole clip (exercise 2 tries it).
# Fewer frames need not mean a shorter stretch: it is their number times the hop that counts.
#
# ## 6 · Masks
#
# After the last block a dense layer with a **sigmoid** (a smooth squeeze into 0…1) gives one number for each frame,
# channel and basis function: the **masks**. A mask times the coefficients is what a channel gets.
#
# **Question.** Must the masks of the channels sum to one?

# %%
for block in separator.blocks:
    x = block(x)
sources, num_basis = separator.config["num_sources"], separator.config["num_basis"]
masks = to_numpy(separator.masks(x)).reshape(1, -1, sources, num_basis)
total = masks.sum(axis=2)
print(f"masks {masks.shape} (clips, frames, channels, basis), from {masks.min():.3f} to {masks.max():.3f}")
print(f"their sum over channels goes from {total.min():.3f} to {total.max():.3f}")
assert masks.min() >= 0 and masks.max() <= 1, "a sigmoid's range"
shown = {f"mask of channel {m + 1}": masks[0, :, m][:, order] for m in range(sources)}
look(shown | {"sum of the masks": total[0][:, order]}, "frequency in kHz",
     "Speckle around one half: an untrained network has no opinion. Notebook 03 shows the masks of a trained one.", rate / 2000)  # fmt: skip

# %% [markdown]
# They need not: each mask is squeezed by itself, and here their sum lies around one by chance. What the masks fail to share out is put right at the very end, on the
# waveforms.
#
# ## 7 · Decoder and overlap-add
#
# The masked coefficients go back to sound. The **decoder** is a dense layer, the same for all channels: each
# coefficient adds its own pattern of `frame_length` samples. The frames then return to their places in time, and where
# they overlap they are added: **overlap-add**.

# %%
masked = (masks * coefficients[:, :, None]).transpose(0, 2, 1, 3)  # (clips, channels, frames, basis)
pieces = to_numpy(separator.decoder(masked))  # (clips, channels, frames, frame_length)
estimates = np.zeros((1, sources, step * (n - 1) + length), "float32")
for k in range(n):
    estimates[:, :, k * step : k * step + length] += pieces[:, :, k]
estimates = estimates[:, :, :samples]  # (clips, channels, samples)
print(f"masked {masked.shape} → pieces {pieces.shape} → estimates {estimates.shape} (clips, channels, samples)")
assert close(estimates, to_numpy(separator.overlap_add(pieces, samples)))

# %% [markdown]
# ## 8 · Mixture consistency
#
# Nothing so far makes the channels add up to the mixture. The last step does. What is **missing**, mixture minus the
# sum of the estimates, is computed sample by sample and shared out among the channels, by weights that sum to one.
# With numbers small enough to follow:

# %%
toy_mixture = np.array([1.0, -2.0, 3.0, 0.0])
toy_estimates = np.array([[0.5, -0.5, 1.0, 0.5], [0.25, -0.5, 2.5, 0.0]])
toy_weights = np.array([0.25, 0.75])
missing = toy_mixture - toy_estimates.sum(axis=0)
toy_channels = toy_estimates + toy_weights[:, None] * missing
shown = {"mixture": toy_mixture, "estimate 1": toy_estimates[0], "estimate 2": toy_estimates[1], "missing": missing,
         "channel 1 = estimate 1 + ¼ missing": toy_channels[0], "channel 2 = estimate 2 + ¾ missing": toy_channels[1],
         "sum of the channels": toy_channels.sum(axis=0)}  # fmt: skip
rows = [{"what": name, **{str(t): float(v) for t, v in enumerate(values)}} for name, values in shown.items()]
notebook.table(rows, {"what": "sample"} | {str(t): str(t) for t in range(4)})
assert np.allclose(toy_channels.sum(axis=0), toy_mixture)

# %% [markdown]
# In the network the weights come from the features: mean over time, a small dense layer, and a *softmax* (positive
# numbers that sum to one).
#
# **Question.** How well do the raw estimates sum to the mixture, and how well the channels?

# %%
logits = to_numpy(separator.weighting(ops.mean(x, axis=1)))  # (clips, channels)
share = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
missing = mixture - estimates.sum(axis=1)  # (clips, samples)
channels = estimates + share[:, :, None] * missing[:, None]
error = np.abs(mixture - channels.sum(axis=1)).max()
level = 10 * np.log10(np.sum(missing**2) / np.sum(mixture**2))
print(f"weights {share[0].round(3)}; what was missing has {level:+.1f} dB relative to the mixture's energy")
print(f"largest difference between mixture and sum of the channels: {error:.1e}")
assert error < 1e-4, "the channels sum to the mixture"

# %% [markdown]
# The estimates do not sum to the mixture; the channels do. Predicted weights are one of three ways, and the one that we train with. `TDCNPlusPlus(consistency=...)` also knows
# `"uniform"`, where each channel gets the same share, and `"energy"`, where each gets a share in proportion to its
# estimate's energy. All three make channels that sum to the mixture; they differ in who gets what is missing.
#
# **Question.** Suppose that the second estimate is silent, because there is only one event. Which of the three ways
# leave channel 2 silent?

# %%
ways = {
    "predicted": lambda found: share,  # from the features: it does not look at the estimates
    "uniform": lambda found: np.full_like(share, 1 / sources),
    "energy": lambda found: to_numpy(energy_weights(found)),
}
silenced = estimates.copy()
silenced[:, 1] = 0.0


def shared_out(weigh, found):
    """The weights (channels,) of one way, and the energy of channel 2 in dB relative to the mixture."""
    weights = weigh(found)
    shares = to_numpy(mixture_consistency(*map(ops.convert_to_tensor, (mixture, found, weights))))
    assert np.abs(shares.sum(axis=1) - mixture).max() < 1e-4, "the channels sum to the mixture, whatever the weights"
    return " : ".join(f"{w:.2f}" for w in weights[0]), 10 * np.log10(np.sum(shares[:, 1] ** 2) / np.sum(mixture**2))


# %%
rows = []
for name, weigh in ways.items():
    (as_made, level), (if_silent, level_if_silent) = shared_out(weigh, estimates), shared_out(weigh, silenced)
    rows.append({"way": name, "w": as_made, "level": f"{level:+.1f} dB",
                 "w0": if_silent, "level0": f"{level_if_silent:+.1f} dB"})  # fmt: skip
columns = {"way": "consistency", "w": "weights, our estimates", "level": "energy of channel 2"}
notebook.table(rows, columns | {"w0": "weights, estimate 2 silent", "level0": "energy of channel 2 then"})
assert level_if_silent < -60, "in proportion to nothing is next to nothing"  # of the last way, energy

# %% [markdown]
# Only `"energy"` does, by construction. `"uniform"` always hands channel 2 its part. `"predicted"` lies between: its
# weights can be anything, but they have to be learned. (Before training they are nearly even, so the first two lines of the
# table hardly differ. And they stay as they were, because we silenced the estimate by hand and left the features alone.)
#
# And that was the whole network. If we did it right, calling it gives exactly our channels:

# %%
called = to_numpy(separator(mixture))  # (clips, channels, samples)
print(f"separator(mixture) → {called.shape} (clips, channels, samples)")
assert close(called, channels), "every step by hand = one call"
assert np.allclose(called.sum(axis=1), mixture, atol=1e-4), "the channels sum to the mixture"

# %% [markdown]
# **Question, before you press play.** The network has learned nothing. Will its channels be noise, the mixture, or
# something else?

# %%
notebook.listen(
    {"mixture": scene.mixture} | {f"untrained, channel {m + 1}": called[0, m] for m in range(sources)}, rate,
    alt="Both channels look like the mixture, softer, with every shape still in both.",
)  # fmt: skip
for m in range(sources):
    alike = np.corrcoef(called[0, m], scene.mixture)[0, 1]
    loud = 10 * np.log10(np.sum(called[0, m] ** 2) / np.sum(scene.mixture**2))
    print(f"channel {m + 1}: correlation with the mixture {alike:+.3f}, energy {loud:+.1f} dB relative to it")

# %% [markdown]
# The mixture, more or less. Write the channel out to see why: with M = 2, estimates $s_1, s_2$ and weights $w_1 + w_2 = 1$,
# channel 1 is $w_1 \cdot \text{mixture} + (1 - w_1)\, s_1 - w_1\, s_2$: a softer copy of the mixture, plus a distortion that
# the other channel gets with the opposite sign. Remember this sound: it is our version of the paper's snapshot **N**, the
# separator at step 0.
#
# ## 9 · A trap: who else is in the batch?
#
# Networks are fed several clips at once. A normalisation that takes its statistics over the batch too would make a
# clip's channels depend on the clips that happen to sit beside it. We separate each clip once and keep what came out:
# it must depend on that clip alone.
#
# **Question.** We separate our scene beside another scene, beside silence, and beside itself ten times louder. How
# much do its channels change? And, for comparison, how much would the coefficients of section 2 change if they were
# normalised over clips *and* time?


# %%
def changes(mate):
    """Largest change of our scene beside `mate` (samples,): its channels, and features normalised over the batch."""
    pair = np.stack([scene.mixture, mate])  # (2, samples)
    channels = to_numpy(separator(pair))[0]
    both = to_numpy(separator.encoder(separator.frame(pair)))  # (2, frames, basis)
    batch = (both - both.mean(axis=(0, 1))) / np.sqrt(both.var(axis=(0, 1)) + epsilon)
    alone = (both[0] - both[0].mean(axis=0)) / np.sqrt(both[0].var(axis=0) + epsilon)
    return {"ours": float(np.abs(channels - called[0]).max()), "batch": float(np.abs(batch[0] - alone).max())}


# %%
other = test[(number + 1) % len(test)].mixture
mates = {"another scene": other, "silence": 0 * scene.mixture, "itself, ten times louder": 10 * scene.mixture}
found = {name: changes(mate) for name, mate in mates.items()}
rows = [{"mate": name} | {key: f"{value:.1e}" for key, value in change.items()} for name, change in found.items()]
columns = {"mate": "beside", "ours": "change of our channels", "batch": "change, were the norm over the batch"}
notebook.table(rows, columns)
assert max(change["ours"] for change in found.values()) < 1e-3, "a clip does not depend on its batch-mates"
least = min(change["batch"] for change in found.values())
notebook.verdict(verdicts, "with statistics over the batch a clip would depend on its batch-mates", least > 1e-2,
                 f"a change of {least:.1e} at least, to exceed 1e-2")  # fmt: skip

# %% [markdown]
# Ours do not change, but for rounding: what a clip's channels are does not depend on its batch-mates. With statistics over
# the batch they would, and most beside something much louder.
#
# ## 10 · Counting parameters
#
# **Question.** Where do most of the parameters sit: in the basis, in the blocks, or in the masks?


# %%
def parts(network):
    """Parameters of each part of a separator, counted by Keras."""
    single = {"basis": "encoder", "initial dense": "initial", "masks": "masks", "decoder": "decoder",
              "weights of the consistency": "weighting"}  # fmt: skip
    counts = {name: getattr(network, attribute).count_params() for name, attribute in single.items()}
    return counts | {"blocks": sum(block.count_params() for block in network.blocks), "total": network.count_params()}


rows = [{"part": k, "paper": f"{v:,}", "here": f"{parts(separator)[k]:,}"} for k, v in parts(paper).items()]
notebook.table(rows, {"part": "part", "paper": "original", "here": f"profile {PROFILE}"})


# %% [markdown]
# In the blocks. And by hand, from the sizes alone, to see that we know every layer:


# %%
def count(c):
    """Parameters of a TDCN++ without long skips, from its sizes."""
    b, h, basis, frame, m = (c[k] for k in ("bottleneck", "hidden", "num_basis", "frame_length", "num_sources"))
    prelu_norm = 1 + 2  # slope; gamma and beta
    up, down = b * h + 1, h * b + 1  # no bias, one scale
    block = up + prelu_norm + (c["kernel_size"] + 1) * h + prelu_norm + down
    blocks = len(c["dilations"]) * c["repeats"] * block
    return frame * basis + (basis * b + b + 1) + blocks + b * m * basis + basis * frame + b * m


for name, network in {"original": paper, "here": separator}.items():
    print(f"{name:>8}: {network.count_params():,} parameters; by hand {count(network.config):,}")
    assert network.count_params() == count(network.config), "every parameter accounted for"

# %%
recorded = course.record(
    "02",
    parameters=separator.count_params(),
    parameters_paper=paper.count_params(),
    receptive_field_seconds=separator.receptive_field / rate,
    receptive_field_seconds_paper=paper.receptive_field / rate,
    consistency_error=float(error),
    batch_mates_change=max(change["ours"] for change in found.values()),
    verdicts=verdicts,
)
recorded

# %% [markdown]
# ## Recap
#
# | idea | in the paper | in the code |
# |---|---|---|
# | frames, learned basis, ReLU | "similar to Conv-TasNet"; MixIT's release: 2.5 ms | `TDCNPlusPlus.frame`, `.encoder` |
# | the basis to start from | random; ours: cosines, to save steps | `start_from_mdct` |
# | blocks: up, PReLU, norm over time, dilated convolution, down, residual | MixIT's release: 4 × 8 | `TDCNBlock` |
# | wide receptive field by doubling dilations | MixIT's release: 1, 2, 4 … 128 | `dilations`, `repeats` |
# | sigmoid masks, decoder, overlap-add | M = 2 channels | `.masks`, `.decoder`, `.overlap_add` |
# | channels sum to the mixture | MixIT's release: the same three ways, predicted by default | `consistency`, `mixture_consistency` |
# | weights from elsewhere | MixIT's release: TensorFlow checkpoints | `from_google_checkpoint` |
# | the untrained network makes channels too | "processor" N, step 0 | `course.snapshots()[0]["N"]` |
#
# "MixIT's release" is the public code of the separator's authors; the paper's own slides leave these sizes open.

# %% [markdown]
# ## Exercises
#
# **1.** Keras has `keras.layers.DepthwiseConv1D`. Which arguments make it equal to our dilated convolution? Show it.

# %% tags=["your turn"]
theirs = keras.layers.DepthwiseConv1D(3)  # your turn: two more arguments, then our weights; compare with `convolved`

# %% tags=["solution"]
ours = separator.blocks[2].convolution
theirs = keras.layers.DepthwiseConv1D(3, padding="same", dilation_rate=ours.dilation)
theirs.build(normed.shape)
theirs.set_weights([to_numpy(ours.kernel), to_numpy(ours.bias)])
difference = np.abs(to_numpy(theirs(normed)) - convolved).max()
print(f"largest difference {difference:.1e}")
assert difference < 1e-3

# %% [markdown]
# **2. Predict.** Put a click at one end of the clip, so far from the loudest moment that the convolutions cannot carry it
# there. Do the channels at the loudest moment change all the same? Why?

# %% tags=["your turn"]
with_a_click = mixture.copy()  # your turn: add 0.9 to one sample, and compare `separator(with_a_click)` with `called`

# %% tags=["solution"]
clicked, loudest = mixture.copy(), int(np.abs(scene.mixture).argmax())
end = step if loudest > samples // 2 else samples - 1 - step  # the farther one, where the window is at its height
clicked[0, end] += 0.9
moved = np.abs(to_numpy(separator(clicked)) - called)[0, :, loudest].max()
print(f"the convolutions reach {separator.receptive_field / 2 / rate:.2f} s to either side")
print(f"the click is {abs(end - loudest) / rate:.2f} s away, and the channels change by {moved:.1e}")
# They can change: the click moves mean and variance of the normalisations, and the weights of mixture consistency,
# and all of these are taken over the whole clip. Hence we separate whole clips, and cut afterwards.

# %% [markdown]
# **3.** How much does each block add, relative to what it is given? Draw it, with $0.9^b$ beside it.

# %% tags=["your turn"]
# your turn: start from `separator.initial(coefficients)`, go through `separator.blocks`, and compare `ops.std`

# %% tags=["solution"]
y, added = separator.initial(coefficients), []
for block in separator.blocks:
    after = block(y)
    added.append(float(ops.std(after - y) / ops.std(y)))
    y = after
figure, axis = plt.subplots(figsize=(6, 2.6))
axis.plot(added, marker="o", label="size of what the block adds / size of its input")
axis.plot([0.9**b for b in range(len(added))], linestyle="--", label="$0.9^b$")
axis.set(xlabel="block", ylabel="ratio", yscale="log")
axis.legend()
notebook.show("The first block adds far more than it was given; then each adds less than the one before.")
# Inside a block the norm brings features to size one, however small its input was: so the first block can add far
# more than it was given. Later ones fall faster than the rule, because what they are given has grown meanwhile.

# %% [markdown]
# **4. Build it.** Write `reached`: which input frames, relative to its own place, does one frame see after blocks with these
# dilations? Then choose *four* dilations that reach 40 frames to either side without a gap. Doubling reaches 15.


# %% tags=["your turn"]
def reached(dilations):
    """The set of frames, such as {-1, 0, 1} for one block of dilation 1."""
    # your turn
    return {0}


my_dilations = (1, 2, 4, 8)  # your turn


# %%
def check_reached(reached, dilations):
    for tried, size in (((1,), 3), ((1, 2), 7), ((1, 5), 9), ((2, 2), 5)):
        if len(reached(tried)) != size:
            return print(f"not yet: dilations {tried} reach {size} frames, found {len(reached(tried))}")
    found = sorted(reached(dilations))
    print(f"{dilations}: from {found[0]} to {found[-1]}, {'no gap' if len(found) == 1 + 2 * found[-1] else 'with gaps'}",
          "· right" if found == list(range(-40, 41)) and len(dilations) == 4 else "· not yet")  # fmt: skip


check_reached(reached, my_dilations)


# %% tags=["solution"]
def reached(dilations):
    frames = {0}
    for d in dilations:
        frames = {frame + shift for frame in frames for shift in (-d, 0, d)}
    return frames


check_reached(reached, (1, 3, 9, 27))
# Three taps could triple the reach: then each frame is reached along exactly one path, as digits make up a number. Doubling
# reaches the nearer frames along several paths, which costs blocks and makes the network less particular about places.

# %% [markdown]
# ## Appendix A · Weights from elsewhere
#
# The authors of the separator have published trained networks as TensorFlow checkpoints. The library reads those of
# the MixIT release; the sizes are worked out from the shapes in the file. No such file is here, so this is only the
# code:
#
# ```python
# from sepcl_keras import from_google_checkpoint
#
# separator = from_google_checkpoint("folder/with/one/checkpoint")  # or "…/model.ckpt-123"
# channels = separator(mixture)  # (clips, channels, samples)
# ```
#
# Two things no shape tells: the sample rate that the network was trained at, and, where a checkpoint has no weights for
# the consistency, whether it shares out by `consistency="uniform"` (the default) or `"energy"`. The function's
# documentation says more.
#
# ## Appendix B · The same network, faster
#
# We called the layers one by one, and each wrote a whole array for the next one to read. Between its two dense layers a
# block does little arithmetic on large arrays, so on a CPU most of that time goes into moving numbers to and from
# memory. When TensorFlow trains on a CPU, or runs a network through `predict_on_batch`, and the arrays are large
# enough, `sepcl_keras/separation/kernels.py` steps in: PReLU, norm, convolution and PReLU are done in a few passes over memory,
# with a gradient written out by hand. Other backends fuse such steps by themselves or run the plain layers, which is
# what you have seen here. What it gains is measured in `benchmarks/RESULTS.md`; what it computes must be the same:

# %%
twice = np.repeat(mixture, 2, axis=0)  # (2, samples), large enough
in_a_graph = separator.predict_on_batch(twice)  # (2, channels, samples)
print(f"largest difference to the plain layers: {np.abs(in_a_graph - called).max():.1e}")
assert close(in_a_graph, np.repeat(called, 2, axis=0)), "faster, and otherwise the same"

# %% [markdown]
# ## What to read next
#
# - Luo and Mesgarani, *Conv-TasNet*, 2019: learned basis, masks and dilated blocks, for speech.
# - Kavalerov et al., *Universal Sound Separation*, 2019: TDCN++ for sounds of any kind.
# - Wisdom et al., *Differentiable Consistency Constraints for Improved Deep Speech Enhancement*, 2019.
#
# Next: [03 · Train the separator](03_train_the_separator.ipynb), without a single isolated sound to learn from.
