"""One seed, many streams: every random generator of a run draws numbers of its own."""

import hashlib

import numpy as np

from sepcl_keras.core.checks import check_number


def _hashed(seed, purpose, bits):
    check_number("seed", seed, whole=True)
    text = repr((int(seed), *purpose))  # which no other seed or purpose has
    return int.from_bytes(hashlib.sha256(text.encode()).digest()) >> (256 - bits)


def stream(seed, *purpose):
    """A seed below 2³¹ for the generator that serves `purpose`, names and whole numbers, in a run of `seed`.

    Generators that begin at one seed draw the same numbers, whatever these are for; so no two should. On torch, call k
    of Keras' generator starts at seed + k: seeds 0 and 3 share nearly all their draws. Hashed seeds lie far apart: of
    100,000 pairs with 10,000 calls each, one shares some. `None`, which asks for another run each time, stays None.
    """
    return None if seed is None else _hashed(seed, purpose, 31)


def generator(seed, *purpose):
    """NumPy's generator for `purpose` in a run of `seed`. (To `default_rng`, seeds 5, (5, 0) and (5, 0, 0) are one.)"""
    return np.random.default_rng(_hashed(seed, purpose, 128))
