"""PANNs → `CNN14`: the names in its state dicts, and reading its checkpoints."""

import numpy as np

from sepcl_keras.core.checks import BadInput, path_of
from sepcl_keras.core.weights import assign
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.views.log_mel import MEL_BANDS, RECIPES, mel_matrix

FC1 = 2048  # PANNs' own d
# Samples of a clip that PANNs are trained on, 10 s: `clip_samples` in their utils/config.py. Shorter ones are filled up
# with zeros there (`pad_or_truncate` in utils/utilities.py), as by `embed`.
WINDOW = 10 * RECIPES["panns"]["rate"]


def _places(encoder, size):
    """PANNs' name → our variable and the axes of PyTorch's array in its order; with `fc1` where its size is d."""
    names = {}

    def batch_norm(name, layer):
        for field, variable in zip(("weight", "bias", "running_mean", "running_var"), layer.weights, strict=True):
            names[f"{name}.{field}"] = variable, (0,)

    batch_norm("bn0", encoder.bn0)
    for block in encoder.blocks:
        for number, convolution, norm in ((1, block.conv1, block.bn1), (2, block.conv2, block.bn2)):
            names[f"{block.name}.conv{number}.weight"] = convolution.kernel, (2, 3, 1, 0)
            batch_norm(f"{block.name}.bn{number}", norm)
    if encoder.embedding_dim == size:
        names["fc1.weight"] = encoder.bottleneck.kernel, (1, 0)
        names["fc1.bias"] = encoder.bottleneck.bias, (0,)
    return names


def _own(title, weights):
    """The weights without what a wrapper put before their names, such as `module.` or `base.`; others are left out."""
    prefixes = {name[: -len("bn0.weight")] for name in weights if f".{name}".endswith(".bn0.weight")}
    if len(prefixes) > 1:
        found = " and ".join(sorted(map(repr, prefixes)))
        raise BadInput(f"{title}: {found} each lead to a bn0.weight; expected the names of one CNN14.")
    prefix = "".join(prefixes)
    return {str(name).removeprefix(prefix): weights[name] for name in weights if str(name).startswith(prefix)}


def _size(weights):
    """The rows of `fc1`, and where it is left out those that PANNs' own has."""
    return next(iter(np.shape(weights.get("fc1.weight", ()))), 0) or FC1


def load_panns_weights(encoder, weights):
    """Sets a `CNN14` of width 64 from arrays named as in PANNs' state dict.

    Where d is the size of its `fc1`, the bottleneck becomes that; else it stays as initialised. Other names,
    `fc_audioset` for instance, are ignored. A name that is missing or does not fit is refused before anything is set.
    From then on the encoder's recipe is `"panns"`, and its window 10 s.

    `weights` is a dict from name, such as `"conv_block1.conv1.weight"`, to array in PyTorch's layout. All names may
    have the same beginning, as wrappers give them: `"module.base.conv_block1.conv1.weight"`.
    """
    _assign("load_panns_weights", encoder, _own("load_panns_weights", weights))


def _assign(title, encoder, weights):
    if not encoder.built:
        encoder.build((None, None, MEL_BANDS))
    assign(title, _places(encoder, _size(weights)), weights)
    encoder.recipe, encoder.window = "panns", WINDOW


def from_panns_checkpoint(path, embedding_dim=None):
    """The `CNN14` whose weights a checkpoint of PANNs holds, `Cnn14_16k_mAP=0.438.pth` for instance.

    Its front-end and its classifier are left out. The encoder's recipe is `"panns"` and its window 10 s, what
    `Cnn14_16k` was trained on; `encoder.window = 15_600` tells times more finely, from less than it was trained on.
    The 32 kHz `Cnn14`, and its variants with an embedding of 512, 128 or 32, are the same network with the same names,
    but of sounds at 32,000 Hz, with mel bands up to 14,000 Hz: they are refused, because on our log-mel their
    embeddings would not be what their authors measured. (As the start of a training, `load_panns_weights` takes them.)
    Needs torch to read the file, not to run the encoder; nothing in the file is executed.

    Args:
        path: the .pth file.
        embedding_dim: d. By default, and where it is the size of the file's `fc1`, the bottleneck is that (before its
            ReLU); else it is new.

    Raises `BadInput` where torch is missing, for a file that is no such checkpoint or was trained on another log-mel,
    and for the first array that does not fit. Source: https://github.com/qiuqiangkong/audioset_tagging_cnn and the
    files it points to.
    """
    path = path_of("path", path)
    weights = _own(path, _read(path))
    mel, ours = weights.get("logmel_extractor.melW"), mel_matrix("panns")
    if mel is not None and (mel.shape != ours.shape or not np.allclose(mel, ours, atol=1e-5)):
        raise BadInput(
            f"{path}: trained on a log-mel of {len(mel)} frequencies or of other bands, such as that of sounds at "
            f"32,000 Hz; expected one of {RECIPES['panns']['rate']} Hz, as `Cnn14_16k` has."
        )
    encoder = CNN14(_size(weights) if embedding_dim is None else embedding_dim, recipe="panns")
    _assign(path, encoder, weights)
    return encoder


def _read(path):
    """The arrays in the checkpoint, by name."""
    try:
        import torch
    except ImportError:
        raise BadInput(f"{path}: reading a PyTorch checkpoint needs torch, which is not installed.") from None
    if not path.is_file():
        raise BadInput(f"{path}: expected a checkpoint of PANNs, but there is none.")
    # Beside the weights the files hold where PANNs' sampler stood, arrays of integers. To rebuild these runs no code of
    # the file's; they were written by NumPy 1, which named the function after another module.
    rebuild, integers = np.empty(0).__reduce__()[0], [type(np.dtype(code)) for code in np.typecodes["AllInteger"]]
    arrays = [rebuild, (rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, *integers]
    try:
        with torch.serialization.safe_globals(arrays):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        weights = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))  # PANNs' and Lightning's names
        return {name: value.float().numpy() for name, value in weights.items() if isinstance(value, torch.Tensor)}
    except Exception as error:  # whatever a damaged or foreign file makes of the reader
        kind = type(error).__name__
        raise BadInput(f"{path}: expected a checkpoint of PANNs, arrays and no code; torch met a {kind}.") from None
