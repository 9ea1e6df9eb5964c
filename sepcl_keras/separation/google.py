"""Google's MixIT release → `TDCNPlusPlus`: its variable names, and reading its published TensorFlow checkpoints."""

import re
from pathlib import Path

import numpy as np

from sepcl_keras.core.checks import BadInput, path_of
from sepcl_keras.core.weights import assign
from sepcl_keras.separation.network import TDCNPlusPlus

DILATIONS_OF_A_REPEAT = 8  # in the release
# What the last part of a weight's name can be; optimizers add a part of their own, such as kernel/Adam_1.
WEIGHTS = ("kernel", "depthwise_kernel", "bias", "gamma", "beta", "prelu", "scale_layer", "scalar_bias_layer")
BLOCK = "improved_tdcn/conv_block_{}/tdcn_block"
SKIP = "improved_tdcn/res_dense_{}_to_{}"
WEIGHTING = "mix_weights/dense/kernel"


def _variables(separator):
    """The original's variable name → our variable."""
    names = {}

    def scaled(prefix, layer):
        names[f"{prefix}/dense/kernel"] = layer.dense.kernel
        if layer.dense.use_bias:
            names[f"{prefix}/dense/bias"] = layer.dense.bias
        names[f"{prefix}/dense_scale/scale_layer"] = layer.scale

    names["conv_encoder/dense/kernel"] = separator.encoder.kernel
    scaled("initial_dense", separator.initial)
    for index, block in enumerate(separator.blocks):
        prefix = BLOCK.format(index)
        scaled(f"{prefix}/dense1", block.up)
        scaled(f"{prefix}/dense2", block.down)
        for number, layer in ((1, block.first), (2, block.second)):
            names[f"{prefix}/normact{number}/prelu/prelu"] = layer.slope
            names[f"{prefix}/normact{number}/instance_norm/gamma"] = layer.gamma
            names[f"{prefix}/normact{number}/instance_norm/beta"] = layer.beta
        names[f"{prefix}/timeconv/separable_conv/depthwise_kernel"] = block.convolution.kernel
        names[f"{prefix}/timeconv/separable_conv/bias"] = block.convolution.bias
    for pair, layer in separator.skips.items():
        scaled(SKIP.format(*pair.split("_")), layer)
    names["dense/kernel"] = separator.masks.kernel
    names["conv_decoder/dense_1/kernel"] = separator.decoder.kernel
    if separator.config["consistency"] == "predicted":
        names[WEIGHTING] = separator.weighting.kernel
    return names


def load_google_weights(separator, weights):
    """Sets a `TDCNPlusPlus`, built or not, from arrays named as in Google's MixIT release.

    `weights` is a dict from the original's variable name, for instance `"initial_dense/dense/kernel"`, to array; names
    that the network has no use for are ignored. The first name that is missing or has another shape is refused, before
    anything is set. Axes of length one do not count: the original's depthwise kernels are (kernel, 1, features, 1).
    """
    _assign("load_google_weights", separator, weights)


def _assign(title, separator, weights):
    if not separator.built:
        separator.build((None, None))
    places = {name: (variable, range(len(variable.shape))) for name, variable in _variables(separator).items()}
    assign(title, places, weights)


def from_google_checkpoint(path, dilations=None, frame_step=None, consistency="uniform"):
    """The `TDCNPlusPlus` whose weights a TensorFlow checkpoint of Google's MixIT release holds.

    Its sizes are worked out from the shapes in the file; the sample rate is not in it (16 kHz for the model trained on
    YFCC100M, 22.05 kHz for the bird models). Where only the moving average of a weight was kept, that is taken. Needs
    TensorFlow to read the file, not to run the separator.

    Args:
        path: `model.ckpt-123`, for `model.ckpt-123.index` and its data beside it, or a folder with one checkpoint.
        dilations: of one repeat; by default powers of two, as many as there are blocks before the first long skip
            ends, or 8 as in the release.
        frame_step: in samples; by default half of a frame, rounded up, as in the release.
        consistency: `"uniform"` or `"energy"`, which no shape tells apart, where the checkpoint predicts no weights.

    Raises `BadInput` for a file that is missing or damaged, and for the first variable that does not fit. Source:
    https://github.com/google-research/sound-separation, `models/neurips2020_mixit` and `models/bird_mixit`.
    """
    prefix = _prefix(path_of("path", path))
    weights = _read(prefix)
    separator = TDCNPlusPlus(**_sizes(prefix, weights, dilations, frame_step, consistency))
    _assign(prefix, separator, weights)
    unused = sorted(weights.keys() - _variables(separator).keys())
    if unused:
        raise BadInput(f"{prefix}: {unused[0]} has no place; expected the variables of the MixIT release only.")
    return separator


def _prefix(path):
    """The path without .index of the one checkpoint that is meant."""
    if path.is_dir():
        # The release has no file named checkpoint that would say which; macOS puts a ._NAME beside each file it copies.
        found = sorted(file for file in path.glob("*.index") if not file.name.startswith("."))
        if len(found) != 1:
            raise BadInput(f"{path}: expected a folder with one checkpoint, NAME.index, but it holds {len(found)}.")
        path = found[0]
    prefix = str(path).removesuffix(".index")
    if not Path(f"{prefix}.index").is_file():
        raise BadInput(f"{prefix}.index: expected a TensorFlow checkpoint, but there is none.")
    return prefix


def _read(prefix):
    """The weights in the checkpoint, by name."""
    try:
        import tensorflow as tf
    except ImportError:
        raise BadInput(f"{prefix}: reading a TensorFlow checkpoint needs TensorFlow, which is not installed.") from None
    try:
        reader = tf.train.load_checkpoint(prefix)
        # In reverse order a variable itself comes after, and replaces, its average.
        stored = sorted(reader.get_variable_to_shape_map(), reverse=True)
        names = {name.removesuffix("/ExponentialMovingAverage"): name for name in stored}
        return {name: reader.get_tensor(at) for name, at in names.items() if name.split("/")[-1] in WEIGHTS}
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError, MemoryError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise BadInput(f"{prefix}: expected a readable TensorFlow checkpoint ({reason}).") from None


def _sizes(prefix, weights, dilations, frame_step, consistency):
    """Arguments of the `TDCNPlusPlus` that has variables of these shapes, as far as they are consistent."""

    def shape(name):
        if name not in weights:
            raise BadInput(f"{prefix}: {name} is missing; expected the variables of the MixIT release.")
        found = np.shape(weights[name])
        if len(found) < 2 or 0 in found:
            raise BadInput(f"{prefix}: {name} has shape {found}; expected two axes or more.")
        return found

    frame_length, num_basis = shape("conv_encoder/dense/kernel")[-2:]
    first = BLOCK.format(0)
    hidden = shape(f"{first}/dense1/dense/kernel")[-1]
    depthwise = shape(f"{first}/timeconv/separable_conv/depthwise_kernel")
    blocks = len(set(re.findall(r"improved_tdcn/conv_block_(\d+)/", "\n".join(weights))))
    ends = [int(end) for end in re.findall(r"improved_tdcn/res_dense_\d+_to_(\d+)/", "\n".join(weights))]
    per_repeat = min(ends, default=DILATIONS_OF_A_REPEAT) if dilations is None else len(dilations)
    if not per_repeat or blocks % per_repeat:
        given = f"{prefix}: {blocks} blocks, {per_repeat} to a repeat"
        raise BadInput(f"{given}; expected a multiple, or the dilations of one repeat.")
    return dict(
        num_sources=max(1, shape("dense/kernel")[-1] // num_basis), num_basis=num_basis, frame_length=frame_length,
        frame_step=(frame_length + 1) // 2 if frame_step is None else frame_step,
        bottleneck=shape("initial_dense/dense/kernel")[-1], hidden=hidden,
        kernel_size=depthwise[0] * depthwise[1],  # the original convolves frames × 1
        dilations=[2**power for power in range(per_repeat)] if dilations is None else dilations,
        repeats=blocks // per_repeat, long_skips=bool(ends),
        consistency="predicted" if WEIGHTING in weights else consistency,
    )  # fmt: skip
