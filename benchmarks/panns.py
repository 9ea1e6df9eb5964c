"""PANNs' CNN14 as published for torch, from log-mel patches on, as ours."""

import importlib.util
import sys
import types

import torch

# What PANNs makes of waveforms is not timed: its packages need not be there.
for name, members in {
    "torchlibrosa": (),
    "torchlibrosa.stft": ("Spectrogram", "LogmelFilterBank"),
    "torchlibrosa.augmentation": ("SpecAugmentation",),
    "matplotlib": (),
    "matplotlib.pyplot": (),
}.items():
    module = types.ModuleType(name)
    for member in members:
        setattr(module, member, lambda **_: torch.nn.Identity())
    sys.modules.setdefault(name, module)
package = types.ModuleType("panns_inference")
package.__path__ = importlib.util.find_spec("panns_inference").submodule_search_locations
sys.modules["panns_inference"] = package
from panns_inference.models import Cnn14  # noqa: E402


class Encoder(torch.nn.Module):
    """Log-mel patches (clips, frames, mels) to its embeddings (clips, 2048); its dropout, a few milliseconds, stays."""

    def __init__(self):
        super().__init__()
        self.network = Cnn14(16_000, 512, 160, 64, 50, 8000, 527)
        for name in ("spectrogram_extractor", "logmel_extractor", "spec_augmenter"):
            setattr(self.network, name, torch.nn.Identity())

    def forward(self, log_mel):
        return self.network(log_mel[:, None])["embedding"]
