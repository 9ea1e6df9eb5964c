"""PANNs → `CNN14`: the names in its state dicts, and reading its published checkpoints."""

import warnings
from pathlib import Path

import numpy as np

from sepcl_keras.core.files import BadInput
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.views.log_mel import MEL_BANDS, mel_matrix


def _variables(encoder):
    """PANNs' name → our variable and the axes of PyTorch's array in its order."""
    names = {}

    def batch_norm(name, layer):
        for field, variable in zip(("weight", "bias", "running_mean", "running_var"), layer.weights, strict=True):
            names[f"{name}.{field}"] = variable, (0,)

    batch_norm("bn0", encoder.bn0)
    for block in encoder.blocks:
        for number, convolution, norm in ((1, block.conv1, block.bn1), (2, block.conv2, block.bn2)):
            names[f"{block.name}.conv{number}.weight"] = convolution.kernel, (2, 3, 1, 0)
            batch_norm(f"{block.name}.bn{number}", norm)
    if encoder.embedding_dim == 2048:
        names["fc1.weight"] = encoder.bottleneck.kernel, (1, 0)
        names["fc1.bias"] = encoder.bottleneck.bias, (0,)
    return names


def _assign(encoder, weights, title):
    if not encoder.built:
        encoder.build((None, None, MEL_BANDS))
    arrays = []
    for name, (variable, axes) in _variables(encoder).items():
        if name not in weights:
            raise BadInput(f"{title}: {name} is missing; the encoder expects it.")
        array = np.asarray(weights[name])
        expected = tuple(variable.shape[axes.index(axis)] for axis in range(len(axes)))
        if array.shape != expected:
            raise BadInput(f"{title}: {name} has shape {array.shape}; expected {expected}.")
        arrays.append((variable, array.transpose(axes)))
    for variable, array in arrays:
        variable.assign(array)


def load_panns_weights(encoder, weights):
    """Sets a `CNN14` of width 64 from arrays named as in PANNs' state dict.

    With `embedding_dim=2048` the bottleneck becomes `fc1`; else it stays as initialised. Other names, `fc_audioset` for
    instance, are ignored. A name that is missing or does not fit is refused before anything is set.

    Args:
        encoder: the network, built or not.
        weights: dict from name, such as `"conv_block1.conv1.weight"`, to array in PyTorch's layout.
    """
    _assign(encoder, weights, "load_panns_weights")


def from_panns_checkpoint(path, embedding_dim=2048):
    """The `CNN14` whose weights a published checkpoint of PANNs holds, `Cnn14_16k_mAP=0.438.pth` for instance.

    Its front-end and its classifier are left out. `LogMel("panns")` is what `Cnn14_16k` was trained on. The 32 kHz
    `Cnn14` is the same network with the same names and as many frames a second, but its mel bands end at 14,000 Hz: it
    is read too, with a warning, because on our log-mel its embeddings are not what its authors measured. Needs torch to
    read the file, not to run the encoder; nothing in the file is executed.

    Args:
        path: the .pth file.
        embedding_dim: d; with 2,048 the bottleneck is PANNs' `fc1` (before its ReLU), else it is new.

    Raises `BadInput` where torch is missing, for a file that is no such checkpoint, and for the first array that does
    not fit.

    Source: https://github.com/qiuqiangkong/audioset_tagging_cnn and the files it points to.
    """
    weights = _read(Path(path))
    encoder = CNN14(embedding_dim)
    _assign(encoder, weights, path)
    mel, ours = weights.get("logmel_extractor.melW"), mel_matrix("panns")
    if mel is not None and (mel.shape != ours.shape or not np.allclose(mel, ours, atol=1e-5)):
        warnings.warn(f"{path}: trained on another log-mel than LogMel('panns') makes.", stacklevel=2)
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
    rebuild = np.empty(0).__reduce__()[0]
    integers = [type(np.dtype(code)) for code in np.typecodes["AllInteger"]]
    arrays = [rebuild, (rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, *integers]
    try:
        with torch.serialization.safe_globals(arrays):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        weights = checkpoint.get("model", checkpoint)
        return {name: value.float().numpy() for name, value in weights.items() if isinstance(value, torch.Tensor)}
    except Exception as error:  # whatever a damaged or foreign file makes of the reader
        kind = type(error).__name__
        raise BadInput(f"{path}: expected a checkpoint of PANNs, arrays and no code; torch met a {kind}.") from None
