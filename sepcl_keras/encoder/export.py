"""An encoder for programs without Keras: ONNX files, TensorFlow's SavedModels, and LiteRT's .tflite files.

The ONNX graph is written out here. The converters that Keras calls end in the same numbers, but tf2onnx took 93 s and
17 GB of memory for the paper's size, knows no Fourier transform, and each backend needs another one.
"""

import numpy as np

from sepcl_keras.core.checks import one_of
from sepcl_keras.core.exports import checked, write_onnx, write_traced
from sepcl_keras.encoder.embedding import in_float32
from sepcl_keras.encoder.lite import lite_function
from sepcl_keras.encoder.network import array_of, scale_and_shift
from sepcl_keras.views.log_mel import LOG_OFFSET, MEL_BANDS, RECIPES, LogMel, mel_matrix

INPUTS = ("waveforms", "log_mel")
OPSET, IR = 17, 8  # of 2022: what reads ONNX today reads these


def export_encoder(encoder, path, format="onnx", inputs="waveforms"):
    """Writes an encoder as something that runs without Keras: one input, one output h, any number of clips at once.

    Args:
        encoder: a `CNN14`, built if it is not; it is written in float32, whatever its precision.
        path: a file, or for a SavedModel a folder, whose function is `serve`. Nothing may be there yet.
        format: `"onnx"`, which needs the package onnx, or another one, which needs Keras to run on TensorFlow (a
            `.keras` file is the same on all backends, so any encoder can be taken there): `"saved_model"`; `"litert"`,
            run by the package ai-edge-litert, whose `get_signature_runner` takes any length; or `"litert_int8"`, the
            same with the kernels of `CNN14` as 8-bit integers: a quarter of the size. Of made sounds h then had a
            cosine of 0.9998 to that in float32; on a CPU it came 2.7 times as fast at the paper's size.
        inputs: name and kind of the input, `"waveforms"` (clips, samples), 16 kHz; or `"log_mel"` (clips, frames, 64),
            what `LogMel` of the encoder's recipe makes of these. Of any length from 15,600 samples, or 96 frames, on;
            the output, h (clips, d), is of the whole of it. As many samples as the encoder's window has give what
            `embed` gives for one window. An ONNX file tells both in its metadata: `log_mel` and `sample_rate`.

    Raises `BadInput` for another format, a package or backend that is not there, and a path that is taken or cannot be
    written. The path appears when all is written.
    """
    path = checked("export_encoder", path, format)
    one_of("inputs", inputs, INPUTS)
    encoder = in_float32(encoder)
    if format == "onnx":
        write_onnx(_onnx_model(encoder, inputs), path)
        return
    if format == "saved_model":
        log_mel, variables = LogMel(encoder.recipe), [weight.value for weight in encoder.weights]

        def function(x):
            return encoder(log_mel(x) if inputs == "waveforms" else x, training=False)
    else:
        function, variables = lite_function(encoder, inputs)
    write_traced(function, variables, (None, None, *_axes(inputs)[1:]), (inputs, "h"), path, format)


def _axes(inputs):
    """Of the input, after the clips."""
    return ("samples",) if inputs == "waveforms" else ("frames", MEL_BANDS)


class _Graph:
    """Nodes one after another: each takes the output of the one before, and arrays that are kept in the file."""

    def __init__(self, inputs):
        self.nodes, self.arrays, self.last, self.number = [], [], inputs, "float32"

    def add(self, kind, *arrays, data=None, outputs=1, **attributes):
        """Adds a node of `data`, names or arrays, and of arrays; returns the name, or names, of what it gives."""
        import onnx

        inputs = [each if isinstance(each, str) else self._kept(each) for each in (*(data or [self.last]), *arrays)]
        found = [f"{kind}{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(onnx.helper.make_node(kind, inputs, found, **attributes))
        self.last = found[0]
        return found[0] if outputs == 1 else found

    def _kept(self, array):
        import onnx

        array, name = np.asarray(array), f"array{len(self.arrays)}"
        array = array if array.dtype.kind == "i" else array.astype(self.number)
        self.arrays.append(onnx.numpy_helper.from_array(array, name))
        return name


def _onnx_model(encoder, inputs):
    """`LogMel` and `CNN14` as ONNX has them, channels first: (clips, channels, frames, mels)."""
    import onnx

    graph = _Graph(inputs)
    if inputs == "waveforms":
        _add_log_mel(graph, encoder.recipe)
    scale, shift = scale_and_shift(encoder.bn0)
    graph.add("Mul", scale)
    graph.add("Add", shift)
    graph.add("Unsqueeze", np.array([1]))
    for block in encoder.blocks:
        for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            scale, shift = scale_and_shift(norm)  # outside training a convolution can take them in
            kernel = array_of(convolution.kernel) * scale
            graph.add("Conv", kernel.transpose(3, 2, 0, 1), shift, pads=[1, 1, 1, 1])
            graph.add("Relu")
        if block.pool > 1:
            graph.add("AveragePool", kernel_shape=[block.pool] * 2, strides=[block.pool] * 2)
    over_mels = graph.add("ReduceMean", axes=[3], keepdims=0)
    highest = graph.add("ReduceMax", axes=[2], keepdims=0)
    mean = graph.add("ReduceMean", data=[over_mels], axes=[2], keepdims=0)
    graph.add("Add", data=[highest, mean])
    graph.add("MatMul", array_of(encoder.bottleneck.kernel))
    graph.add("Add", array_of(encoder.bottleneck.bias))
    graph.nodes[-1].output[0] = "h"
    info = onnx.helper.make_tensor_value_info
    given = info(inputs, onnx.TensorProto.FLOAT, ["clips", *_axes(inputs)])
    h = info("h", onnx.TensorProto.FLOAT, ["clips", encoder.embedding_dim])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "CNN14", [given], [h], graph.arrays),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="sepcl_keras",
    )  # fmt: skip
    onnx.helper.set_model_props(model, {"log_mel": encoder.recipe, "sample_rate": str(encoder.sample_rate)})
    return model


def _add_log_mel(graph, recipe):
    """As `LogMel` has it, in double precision; the Fourier transform is a product with cosines and sines."""
    import onnx

    r, panns = RECIPES[recipe], recipe == "panns"
    if panns:  # whose frames are centred, and reflected at the ends
        graph.add("Pad", np.array([0, r["fft"] // 2, 0, r["fft"] // 2]), mode="reflect")
    waveforms, samples = graph.last, graph.add("Slice", np.array([1]), np.array([2]), data=[graph.add("Shape")])
    hops = graph.add("Div", np.array([r["hop"]]), data=[graph.add("Sub", np.array([r["window"]]), data=[samples])])
    frames = graph.add("Squeeze", data=[graph.add("Add", np.array([1]), data=[hops])])
    graph.add("Mul", np.array(r["hop"]), data=[graph.add("Range", data=[np.array(0), frames, np.array(1)])])
    graph.add("Unsqueeze", np.array([1]))
    graph.add("Add", np.arange(r["window"]))  # which sample is where in which frame, (frames, window)
    graph.add("Gather", data=[waveforms, graph.last], axis=1)
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
