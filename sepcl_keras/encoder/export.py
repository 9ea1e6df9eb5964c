"""An encoder for programs without Keras: ONNX files and TensorFlow's SavedModels.

The ONNX graph is written out here. The converters that Keras calls end in the same numbers, but tf2onnx took 93 s and
17 GB of memory for the paper's size, knows no Fourier transform, and each backend needs another one.
"""

import importlib.util

import keras
import numpy as np

from sepcl_keras.core.checks import BadInput, one_of, path_of
from sepcl_keras.core.files import atomic
from sepcl_keras.core.folders import atomic_folder
from sepcl_keras.encoder.embedding import in_float32
from sepcl_keras.views.log_mel import LOG_OFFSET, MEL_BANDS, RECIPES, LogMel, mel_matrix

PACKAGES = {"onnx": "onnx", "saved_model": "tensorflow"}  # that write the format
INPUTS = ("waveforms", "log_mel")
OPSET, IR = 17, 8  # of 2022: what reads ONNX today reads these


def export_encoder(encoder, path, format="onnx", inputs="waveforms"):
    """Writes an encoder as something that runs without Keras; one input, one output h, any number of clips at once.

    Args:
        encoder: a `CNN14`, built if it is not; it is written in float32, whatever its precision.
        path: a file for ONNX, a folder for a SavedModel, whose function is `serve`. Nothing may be there yet.
        format: `"onnx"`, which needs the package onnx, or `"saved_model"`, which needs Keras to run on TensorFlow (a
            `.keras` file is the same on all backends, so any encoder can be taken there).
        inputs: name and kind of the input, `"waveforms"` (clips, samples), 16 kHz, as many samples as the encoder's
            window has, 15,600 unless told; or `"log_mel"`, what `LogMel` of the encoder's recipe makes of these:
            (clips, 96, 64), or 98 frames of `"panns"`. The output, h (clips, d), is what `embed` gives for one window.
            An ONNX file tells recipe and rate: `log_mel` and `sample_rate` in its metadata.

    Raises `BadInput` for another format, a package or backend that is not there, and a path that is taken or cannot be
    written. The path appears when all is written.
    """
    path, backend = path_of("path", path), keras.backend.backend()
    one_of("format", format, PACKAGES), one_of("inputs", inputs, INPUTS)
    if format == "saved_model" and backend != "tensorflow":
        raise BadInput(
            f"export_encoder: a saved_model, but Keras runs on {backend}; expected KERAS_BACKEND=tensorflow."
        )
    if importlib.util.find_spec(PACKAGES[format]) is None:
        raise BadInput(f"export_encoder: {format} needs the package {PACKAGES[format]}; expected it installed.")
    if path.exists():
        raise BadInput(f"{path}: expected a path where nothing is yet.")
    encoder = in_float32(encoder)
    if format == "onnx":
        model = _onnx_model(encoder, inputs)
        with atomic(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
    else:
        with atomic_folder(path, format) as folder:
            _save_model(encoder, inputs, folder, path)


def _shape(encoder, inputs):
    """Of one clip's input."""
    samples = encoder.window
    return (samples,) if inputs == "waveforms" else (LogMel(encoder.recipe).frames(samples), MEL_BANDS)


def _save_model(encoder, inputs, folder, path):
    """Not by Keras' own export, which writes every weight twice."""
    import tensorflow as tf

    log_mel = LogMel(encoder.recipe)
    module = tf.Module()
    module.weights = [weight.value for weight in encoder.weights]
    module.serve = tf.function(
        lambda x: encoder(log_mel(x) if inputs == "waveforms" else x, training=False),
        input_signature=[tf.TensorSpec((None, *_shape(encoder, inputs)), "float32", inputs)],
    )
    try:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    except tf.errors.OpError as error:  # TensorFlow's for a full disk
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path}: cannot be written ({reason}); expected a folder with room that is ours.") from None


class _Graph:
    """Nodes one after another: each takes the output of the one before, and arrays that are kept in the file."""

    def __init__(self, inputs):
        self.nodes, self.arrays, self.last, self.number = [], [], inputs, "float32"

    def add(self, kind, *arrays, data=None, outputs=1, **attributes):
        """Adds a node of this kind; returns the name, or names, of what it gives."""
        import onnx

        names = [f"array{len(self.arrays) + index}" for index in range(len(arrays))]
        for name, array in zip(names, arrays, strict=True):
            array = np.asarray(array)
            array = array if array.dtype.kind == "i" else array.astype(self.number)
            self.arrays.append(onnx.numpy_helper.from_array(array, name))
        found = [f"{kind}{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(onnx.helper.make_node(kind, [*(data or [self.last]), *names], found, **attributes))
        self.last = found[0]
        return found[0] if outputs == 1 else found


def _onnx_model(encoder, inputs):
    """`LogMel` and `CNN14` as ONNX has them, channels first: (clips, channels, frames, mels)."""
    import onnx

    graph = _Graph(inputs)
    if inputs == "waveforms":
        _add_log_mel(graph, encoder.recipe, encoder.window)
    scale, shift = _scale_and_shift(encoder.bn0)
    graph.add("Mul", scale)
    graph.add("Add", shift)
    graph.add("Unsqueeze", np.array([1]))
    for block in encoder.blocks:
        for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            scale, shift = _scale_and_shift(norm)  # outside training a convolution can take them in
            kernel = _array(convolution.kernel) * scale
            graph.add("Conv", kernel.transpose(3, 2, 0, 1), shift, pads=[1, 1, 1, 1])
            graph.add("Relu")
        if block.pool > 1:
            graph.add("AveragePool", kernel_shape=[block.pool] * 2, strides=[block.pool] * 2)
    over_mels = graph.add("ReduceMean", axes=[3], keepdims=0)
    highest = graph.add("ReduceMax", axes=[2], keepdims=0)
    mean = graph.add("ReduceMean", data=[over_mels], axes=[2], keepdims=0)
    graph.add("Add", data=[highest, mean])
    graph.add("MatMul", _array(encoder.bottleneck.kernel))
    graph.add("Add", _array(encoder.bottleneck.bias))
    graph.nodes[-1].output[0] = "h"
    info = onnx.helper.make_tensor_value_info
    given = info(inputs, onnx.TensorProto.FLOAT, ["clips", *_shape(encoder, inputs)])
    h = info("h", onnx.TensorProto.FLOAT, ["clips", encoder.embedding_dim])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "CNN14", [given], [h], graph.arrays),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="sepcl_keras",
    )  # fmt: skip
    onnx.helper.set_model_props(model, {"log_mel": encoder.recipe, "sample_rate": str(encoder.sample_rate)})
    return model


def _add_log_mel(graph, recipe, window):
    """As `LogMel` has it, in double precision; the Fourier transform is a product with cosines and sines."""
    import onnx

    r, panns = RECIPES[recipe], recipe == "panns"
    # Which sample is where in which frame, (frames, window): those of PANNs are centred, and reflected at the ends.
    samples = np.pad(np.arange(window), r["fft"] // 2 if panns else 0, mode="reflect")
    graph.add("Gather", np.lib.stride_tricks.sliding_window_view(samples, r["window"])[:: r["hop"]], axis=1)
    graph.number = "float64"
    graph.add("Cast", to=onnx.TensorProto.DOUBLE)
    time = np.arange(r["window"])
    turns = 2 * np.pi * np.outer(time, np.arange(r["fft"] // 2 + 1)) / r["fft"]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / r["window"])
    graph.add("MatMul", hann[:, None] * np.concatenate([np.cos(turns), np.sin(turns)], axis=1))
    real, imaginary = graph.add("Split", outputs=2, axis=2)
    squares = [graph.add("Mul", data=[part, part]) for part in (real, imaginary)]
    graph.add("Add", data=squares)
    if not panns:
        graph.add("Sqrt")
    graph.add("MatMul", mel_matrix(recipe))
    graph.add(*(("Max", 1e-10) if panns else ("Add", LOG_OFFSET)))
    graph.add("Log")
    if panns:
        graph.add("Mul", 10 / np.log(10))
    graph.add("Cast", to=onnx.TensorProto.FLOAT)
    graph.number = "float32"


def _scale_and_shift(norm):
    """What batch normalisation multiplies by and adds outside training, (channels,) each, in double precision."""
    gamma, beta, mean, variance = (_array(v) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def _array(variable):
    return np.asarray(keras.ops.convert_to_numpy(variable.value), "float64")
