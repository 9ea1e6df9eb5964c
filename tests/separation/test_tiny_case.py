"""The smallest case known to learn: 200 steps of MixIT on sounds made in ten lines, from random weights.

Run it with `-s` to read what it reaches.
"""

import time

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras import SeparationModel, TDCNPlusPlus
from sepcl_keras.separation.metrics import si_snr_improvement
from sepcl_keras.separation.network import start_from_mdct
from sepcl_keras.training.loop import Batches, fit

RATE, SAMPLES = 8000, 4000  # half a second
CLIPS, BATCH, STEPS, LEARNING_RATE = 256, 16, 200, 1e-2
BOUND = 10.0  # dB, median over held-out mixtures; 14.8 to 19.1 were seen on three backends
TIME = np.arange(SAMPLES) / RATE


def tone(rng):
    """A tone with vibrato and four harmonics."""
    phase = 2 * np.pi * rng.uniform(150, 500) * TIME + 2 * np.sin(2 * np.pi * 5 * TIME + rng.uniform(0, 6))
    return sum(np.sin(harmonic * phase) / harmonic for harmonic in (1, 2, 3, 4))


def hiss(rng):
    """Bursts of noise with little below 2 kHz."""
    bursts = np.sin(2 * np.pi * rng.uniform(4, 10) * TIME + rng.uniform(0, 6)) > 0
    return np.diff(rng.standard_normal(SAMPLES + 2), n=2) * bursts


def level(waveform):
    return (0.1 * waveform / np.sqrt(np.mean(waveform**2))).astype("float32")


def clips(number, rng):
    """Each clip is one or the other, (number, samples); which one nobody is told."""
    return np.stack([level((tone, hiss)[rng.integers(2)](rng)) for _ in range(number)])


def improvement(separator, number=40):
    """Median SI-SNR improvement in dB on held-out mixtures of a tone and a hiss."""
    rng = np.random.default_rng(1000)
    sources = np.stack([[level(tone(rng)), level(hiss(rng))] for _ in range(number)])  # (mixtures, 2, samples)
    mixtures = sources.sum(axis=1)
    channels = to_numpy(separator(mixtures))
    return np.median([si_snr_improvement(*case) for case in zip(sources, channels, mixtures, strict=True)])


@pytest.mark.once
@pytest.mark.parametrize("start, seed", [("random", 0), ("random", 1), ("random", 2), ("mdct", 0)])
def test_mixit_takes_tones_and_hisses_apart_within_two_hundred_steps(start, seed):
    keras.utils.set_random_seed(seed)
    separator = TDCNPlusPlus(
        num_basis=32, frame_length=32, frame_step=16, bottleneck=32, hidden=48, dilations=(1, 2, 4, 8), repeats=1
    )
    separator.build((None, None))
    if start == "mdct":
        start_from_mdct(separator)
    data, before = clips(CLIPS, np.random.default_rng(seed)), improvement(separator)
    began = time.perf_counter()
    history = fit(
        SeparationModel(separator), lambda steps: Batches(data, SAMPLES, BATCH, steps, seed), STEPS, LEARNING_RATE,
        show=False,
    )  # fmt: skip
    seconds, after = time.perf_counter() - began, improvement(separator)
    print(
        f"\n{start} start, seed {seed}: {CLIPS} clips of {SAMPLES / RATE} s, {STEPS} steps of {BATCH // 2} mixtures, "
        f"{seconds:.0f} s, SNR of the best remix {history['snr'][0]:.1f} to {history['snr'][-1]:.1f} dB, "
        f"SI-SNR improvement {before:.1f} to {after:.1f} dB"
    )
    assert before < 1.0 and after > BOUND
