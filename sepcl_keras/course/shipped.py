"""Networks that come with the library, so that the first sound need not wait for a training.

A file is called NAME-SETTINGS-CONTENT.npz: after the artifact that it stands for, the fingerprint of the settings that
define it, and the first digits of the SHA-256 of its bytes. `python -m sepcl_keras.course.ship` makes them.
"""

import functools
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import atomic, fingerprint
from sepcl_keras.core.saved import save_model

FOLDER = Path(__file__).parent / "shipped"
COMMAND = "python -m sepcl_keras.course.ship"
STEPS = 2**7  # a kernel's root mean square is at least so many steps of its rounding: 53 dB above the error
# What a definition has beside the settings: code, where it ran, and which shipped file what it depends on came from.
NOT_SETTINGS = ("code", "backend", "shipped")


def training_asked():
    """Whether the reader asks to train everything, by SEPCL_TRAIN=1."""
    return os.environ.get("SEPCL_TRAIN", "0") not in ("", "0")


def settings(definition):
    """A definition without the code that makes it and the backend that runs it."""
    if not isinstance(definition, dict):
        return definition
    return {key: settings(value) for key, value in definition.items() if key not in NOT_SETTINGS}


def find(name, definition):
    """The file that stands for the artifact `name` with the settings of `definition`; None where none, or damaged."""
    found = FOLDER.glob(f"{_stem(name, definition)}-*.npz")
    return next((path for path in sorted(found) if _is_whole(path)), None)


def write(name, definition, networks, history):
    """Writes networks, a dict by name, for the artifact `name`; older files for it are removed. Gives the path."""
    header = {"settings": settings(definition), "history": history}
    arrays = {"header": np.frombuffer(json.dumps(header, allow_nan=False).encode(), "uint8")}
    for title, network in networks.items():
        kernels, vectors = _halves(network.get_weights())
        arrays[f"{title}/kernels"] = np.concatenate([_half(kernel) for kernel in kernels], axis=1)
        # In float32: a variance may lie outside of what float16 holds.
        arrays[f"{title}/vectors"] = np.concatenate([vector.ravel() for vector in vectors])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path = FOLDER / f"{_stem(name, definition)}-{_checksum(buffer.getvalue())}.npz"
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    for old in FOLDER.glob(f"{_stem(name)}-*.npz"):
        if old != path:
            old.unlink()
    return path


def unpack(path, networks, folder):
    """Saves networks, a dict by file name, in a folder with the weights that a file holds, and gives the history."""
    with np.load(path, allow_pickle=False) as arrays:
        for title, network in networks.items():
            weights = network.get_weights()
            halves = np.ascontiguousarray(arrays[f"{title}/kernels"].T).view("<f2")[:, 0]
            stored = [halves.astype("float32"), arrays[f"{title}/vectors"]]
            holds, expected = (sum(array.size for array in them) for them in (stored, weights))
            if holds != expected:
                raise BadInput(
                    f"{path}: holds {holds} numbers for {title}; expected {expected}. The network has changed: "
                    f"`{COMMAND}` makes the file anew, SEPCL_TRAIN=1 trains."
                )
            for index, weight in enumerate(weights):
                kind = int(weight.ndim < 2)
                mine, stored[kind] = np.split(stored[kind], [weight.size])
                weights[index] = mine.reshape(weight.shape)
            network.set_weights(weights)
            save_model(network, folder / title)
        return json.loads(arrays["header"].tobytes())["history"]


def _stem(name, definition=None):
    stem = name.replace("/", "_")
    return stem if definition is None else f"{stem}-{fingerprint(settings(definition))}"


def _halves(weights):
    return [weight for weight in weights if weight.ndim > 1], [weight for weight in weights if weight.ndim < 2]


def _half(kernel):
    """A kernel in float16, its low and its high bytes apart (2, size), rounded so that they compress.

    By itself float16 keeps small numbers more exact than large ones, and nothing needs that.
    """
    step = 2.0 ** np.floor(np.log2(np.sqrt(np.mean(kernel**2) + 1e-12) / STEPS))
    return (np.round(kernel / step) * step).astype("<f2").view("uint8").reshape(-1, 2).T


def _checksum(content):
    return hashlib.sha256(content).hexdigest()[:12]


@functools.cache
def _is_whole(path):
    whole = path.stem.endswith(f"-{_checksum(path.read_bytes())}")
    if not whole:
        print(f"{path}: is damaged, since its checksum is not the one in its name; it is left out.", flush=True)
    return whole
