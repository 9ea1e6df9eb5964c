"""Self-supervised audio representations from automatically separated sound scenes, in Keras 3."""

import os

# TensorFlow's fast convolutions, also on CPUs where it would take others. It looks at this once, when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from sepcl_keras.augmentation import SpecAugment
from sepcl_keras.embedding import embed, load_encoder
from sepcl_keras.encoder import CNN14, CoincidenceHead, SimilarityHead
from sepcl_keras.evaluation import d_prime, mean_average_precision, query_by_example
from sepcl_keras.features import LogMel
from sepcl_keras.files import BadInput
from sepcl_keras.google import from_google_checkpoint, load_google_weights
from sepcl_keras.losses import Coincidence, MixIT, NTXent, Triplet
from sepcl_keras.models import ContrastiveModel, SeparationModel
from sepcl_keras.panns import from_panns_checkpoint, load_panns_weights
from sepcl_keras.profiles import PROFILES, Profile, get_profile
from sepcl_keras.recordings import separate_file
from sepcl_keras.separation import si_snr
from sepcl_keras.separator import TDCNPlusPlus

__all__ = [
    "CNN14",
    "PROFILES",
    "BadInput",
    "Coincidence",
    "CoincidenceHead",
    "ContrastiveModel",
    "LogMel",
    "MixIT",
    "NTXent",
    "Profile",
    "SeparationModel",
    "SimilarityHead",
    "SpecAugment",
    "TDCNPlusPlus",
    "Triplet",
    "d_prime",
    "embed",
    "from_google_checkpoint",
    "from_panns_checkpoint",
    "get_profile",
    "load_encoder",
    "load_google_weights",
    "load_panns_weights",
    "mean_average_precision",
    "query_by_example",
    "separate_file",
    "si_snr",
]
