"""asteroid's TDCN++ and MixIT, at the sizes and with the loss of ours."""

import importlib.util
import sys
import types

import torch


def _without_its_front_page():
    """asteroid's `__init__` imports training tools that are not installed; its modules do not need them."""
    root = importlib.util.find_spec("asteroid").submodule_search_locations[0]
    for name in ("", ".masknn", ".losses"):
        package = types.ModuleType("asteroid" + name)
        package.__path__ = [root + name.replace(".", "/")]
        sys.modules["asteroid" + name] = package


_without_its_front_page()
from asteroid.losses.mixit_wrapper import MixITLossWrapper  # noqa: E402
from asteroid.masknn.convolutional import TDConvNetpp  # noqa: E402
from asteroid_filterbanks import make_enc_dec  # noqa: E402


class Separator(torch.nn.Module):
    """Mixtures (clips, samples) to estimates (clips, sources, samples)."""

    def __init__(self, num_sources):
        super().__init__()
        self.encoder, self.decoder = make_enc_dec("free", n_filters=256, kernel_size=40, stride=20)
        # With skip_chan=0 it would mix the examples of a batch: 256 is its own layout at the paper's size.
        self.masker = TDConvNetpp(
            256, num_sources, n_blocks=8, n_repeats=4, bn_chan=256, hid_chan=512, skip_chan=256, mask_act="sigmoid"
        )

    def forward(self, mixtures):
        coefficients = torch.relu(self.encoder(mixtures[:, None]))
        masks = self.masker(coefficients)
        masks = masks[0] if isinstance(masks, tuple) else masks
        return self.decoder(masks * coefficients[:, None])


def _negative_snr(estimates, references):
    error = ((references - estimates) ** 2).sum(-1) + 1e-3 * (references**2).sum(-1) + 1e-8
    return (10 * torch.log10(error)).mean(-1)


# generalized: every one of the 2^M assignments, as ours; else only those that give each mixture half of the estimates
mixit = MixITLossWrapper(_negative_snr, generalized=True)
