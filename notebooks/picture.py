"""Draws scene.png, the picture at the top of the README: a scene and its channels, as notebook 00 chooses them."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt

from sepcl_keras import LogMel
from sepcl_keras.course.course import Course
from sepcl_keras.separation.metrics import fit_channels
from sepcl_keras.separation.separate import separate

course = Course("tiny")
scenes = [course.mixed["test"][index] for index in range(48)]
scenes = [scene for scene in scenes if len(scene.labels) == 2 and min(scene.onsets) < 0.5]
mixtures = np.stack([scene.mixture for scene in scenes])
channels = separate(course.snapshots()[0]["S2"], mixtures)
found = [fit_channels(scene.sources, some, scene.mixture) for scene, some in zip(scenes, channels, strict=True)]
best = int(np.argmax([np.mean(fit["improvement"]) for fit in found]))
named = dict(zip(found[best]["channels"], scenes[best].labels, strict=True))
sounds = {"a scene": mixtures[best]}
sounds |= {f"channel {m + 1}: {named.get(m, '').replace('_', ' ')}": channels[best, m] for m in range(2)}

figure, axes = plt.subplots(1, 3, figsize=(10, 2.4), sharey=True, layout="constrained")
log_mels = np.asarray(LogMel()(np.stack(list(sounds.values()))))
low, high = np.quantile(log_mels[0], (0.05, 0.999))
for axis, title, log_mel in zip(axes, sounds, log_mels, strict=True):
    axis.imshow(log_mel.T, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high, extent=(0, 5, 0, 64))
    axis.set(title=title, xlabel="seconds")
axes[0].set_ylabel("mel band")
figure.savefig(Path(__file__).parent / "scene.png", dpi=110)
