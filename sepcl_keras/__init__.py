"""Self-supervised audio representations from automatically separated sound scenes, in Keras 3."""

import importlib
import os

# TensorFlow's fast convolutions, also on CPUs where it would take others. It looks at this once, when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

try:
    import keras
except ModuleNotFoundError as error:
    raise ImportError(
        f"Keras runs on {error.name} here, which is not installed; expected it installed, or KERAS_BACKEND set to one "
        "that is: tensorflow, jax or torch."
    ) from None

# Loaded here, because Keras reads a `.keras` file only where its classes are known.
from sepcl_keras.encoder.heads import CoincidenceHead, SimilarityHead
from sepcl_keras.encoder.losses import Coincidence, NTXent, Triplet
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.separation.mixit import MixIT, SeparationModel
from sepcl_keras.separation.network import TDCNPlusPlus
from sepcl_keras.views.augmentation import SpecAugment
from sepcl_keras.views.log_mel import LogMel

# Loaded when they are used: they need SciPy, scikit-learn or soundfile.
_HOMES = {
    "core.checks": ("BadInput",),
    "course.course": ("Course",),
    "course.profiles": ("PROFILES", "Profile", "get_profile"),
    "encoder.embedding": ("embed", "load_encoder"),
    "encoder.export": ("export_encoder",),
    "encoder.files": ("embed_files",),
    "encoder.objectives": ("ContrastiveModel",),
    "encoder.table": ("load_table",),
    "encoder.panns": ("from_panns_checkpoint", "load_panns_weights"),
    "evaluation.metrics": ("d_prime", "mean_average_precision"),
    "evaluation.retrieval": ("query_by_example",),
    "evaluation.search": ("search",),
    "separation.export": ("export_separator",),
    "separation.fast": ("fast_separator",),
    "separation.google": ("from_google_checkpoint", "load_google_weights"),
    "separation.metrics": ("si_snr",),
    "separation.separate": ("load_separator", "separate_file"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CNN14", "Coincidence", "CoincidenceHead", "LogMel", "MixIT", "NTXent", "SeparationModel", "SimilarityHead",
    "SpecAugment", "TDCNPlusPlus", "Triplet", "versions", *_HOME,
]  # fmt: skip


def versions():
    """One line: the versions of this library, of Python and Keras, and of what Keras runs on."""
    from importlib.metadata import version
    from platform import python_version

    backend = keras.backend.backend()
    ours = f"sepcl-keras {version('sepcl-keras')} · Python {python_version()}"
    return f"{ours} · Keras {keras.__version__} on {backend} {importlib.import_module(backend).__version__}"


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'sepcl_keras' has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"sepcl_keras.{_HOME[name]}"), name)
    return globals()[name]


def __dir__():
    return sorted({*globals(), *__all__})
