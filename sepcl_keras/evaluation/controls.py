"""Controls without a network: log-mel statistics and a random projection."""

import numpy as np

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.draws import generator
from sepcl_keras.views.log_mel import PATCH_FRAMES, windows


def log_mel_statistics(log_mels, number):
    """The control without an encoder: each mel band's mean and deviation, (clips, windows, 2 × mels), float32.

    Each clip of `log_mels` (clips, frames, mels) is cut into `number` windows, as equal as the frames allow.
    """
    if log_mels.ndim != 3 or not 1 <= number <= log_mels.shape[1]:
        raise BadInput(f"log_mels {log_mels.shape}, windows {number}: expected (clips, frames, mels), 1 to frames.")
    parts = np.array_split(log_mels, number, axis=1)
    statistics = [[part.mean(axis=1, dtype="float32"), part.std(axis=1, dtype="float32")] for part in parts]
    return np.stack([np.concatenate(both, axis=-1) for both in statistics], axis=1)


def random_projection(log_mels, d, seed=0):
    """The control of a network without layers: each patch times one matrix of random numbers.

    `log_mels` (clips, frames, mels) is cut into patches as for an encoder. Returns float32 (clips, windows, d), whose
    distances are about those between bare patches (lemma of Johnson and Lindenstrauss).
    """
    size = PATCH_FRAMES * log_mels.shape[2]
    matrix = generator(seed, "random projection").standard_normal((size, d), "float32") / d**0.5
    clips = (windows(log_mels[i : i + 1]).reshape(-1, size) for i in range(len(log_mels)))
    return np.stack([patches.astype("float32") @ matrix for patches in clips])


CONTROLS = {  # without a network: functions of log-mel (clips, frames, mels), d and seed to (clips, windows, features)
    "log-mel statistics": lambda log_mels, d, seed=0: log_mel_statistics(log_mels, log_mels.shape[1] // PATCH_FRAMES),
    "random projection": random_projection,
}
