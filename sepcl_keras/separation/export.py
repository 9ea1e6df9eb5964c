"""A separator for programs without Keras, a browser with onnxruntime-web among them: ONNX, SavedModel, LiteRT.

The ONNX graph is written out here, as that of an encoder is (see `sepcl_keras.encoder.export`).
"""

import keras
import numpy as np

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.exports import checked, write_onnx, write_traced
from sepcl_keras.separation.kernels import EPSILON
from sepcl_keras.separation.network import TDCNPlusPlus

OPSET, IR = 17, 8  # of 2022: what reads ONNX today reads these


def export_separator(separator, path, format="onnx"):
    """Writes a `TDCNPlusPlus` as something that runs without Keras: input `mixture` (clips, samples), output `channels`
    (clips, sources, samples), any number of clips of any length, in float32, whatever the separator's precision.

    Args:
        separator: built if it is not.
        path: a file, or for a SavedModel a folder, whose function is `serve`. Nothing may be there yet.
        format: `"onnx"`, which needs the package onnx, or another one, which needs Keras to run on TensorFlow:
            `"saved_model"`; `"litert"`, run by the package ai-edge-litert, whose `get_signature_runner` takes any
            length; or `"litert_int8"`, the same with the dense layers as 8-bit integers: channels still sum to the
            mixture and had a cosine of 0.9999 to those in float32; of two frames or three, which the normalisation
            over time blows up, 0.98.

    Raises `BadInput` for what is no `TDCNPlusPlus`, another format, a package or backend that is not there, and for a
    path that is taken or cannot be written. The path appears when all is written.
    """
    path = checked("export_separator", path, format)
    if not isinstance(separator, TDCNPlusPlus):
        raise BadInput(f"export_separator: a {type(separator).__name__}; expected a TDCNPlusPlus.")
    if not separator.built:
        separator.build((None, None))
    if format == "onnx":
        write_onnx(_model(separator), path)
        return
    if separator.dtype_policy.name != "float32":
        twin = TDCNPlusPlus.from_config(separator.get_config() | {"dtype": "float32"})
        twin.build((None, None))
        twin.set_weights([np.asarray(weight, "float32") for weight in separator.get_weights()])
        separator = twin
    variables = [weight.value for weight in separator.weights]
    names = ("mixture", "channels")
    write_traced(lambda x: separator(x, training=False), variables, (None, None), names, path, format)


class _Graph:
    """Nodes, and arrays that are kept in the file. Whole numbers are int64, as shapes are; all else is float32."""

    def __init__(self):
        self.nodes, self.arrays = [], []

    def add(self, kind, *inputs, **attributes):
        """Adds a node of names and arrays; returns the name of what it gives."""
        import onnx

        name = f"{kind}{len(self.nodes)}"
        given = [each if isinstance(each, str) else self.kept(each) for each in inputs]
        self.nodes.append(onnx.helper.make_node(kind, given, [name], **attributes))
        return name

    def kept(self, array):
        import onnx

        array, name = np.asarray(array), f"array{len(self.arrays)}"
        array = np.ascontiguousarray(array, "int64" if array.dtype.kind == "i" else "float32").reshape(array.shape)
        self.arrays.append(onnx.numpy_helper.from_array(array, name))
        return name

    def dense(self, x, kernel, bias=()):
        """Of x (clips, features, frames), by a kernel (features, units)."""
        return self.add("Conv", x, kernel.T[:, :, None], *bias)

    def scaled_dense(self, x, layer):
        """Of a `ScaledDense`."""
        scale, dense = _array(layer.scale), layer.dense
        bias = [_array(dense.bias) * scale] if dense.use_bias else []
        return self.dense(x, _array(dense.kernel) * scale, bias)

    def activated(self, x, layer, features):
        """Of a `PReLUNorm`: what ONNX calls an instance is one clip's feature."""
        x = self.add("PRelu", x, _array(layer.slope).reshape(1, 1))
        gamma, beta = (np.full(features, _array(weight)) for weight in (layer.gamma, layer.beta))
        return self.add("InstanceNormalization", x, gamma, beta, epsilon=EPSILON)

    def block(self, x, block):
        convolution, hidden = block.convolution, block.hidden
        before = (reach := (convolution.kernel_size - 1) * convolution.dilation) // 2
        u = self.activated(self.scaled_dense(x, block.up), block.first, hidden)
        taps = _array(convolution.kernel)[:, :, 0].T[:, None]  # (features, 1, taps)
        u = self.add(
            "Conv", u, taps, _array(convolution.bias), group=hidden, dilations=[convolution.dilation],
            pads=[before, reach - before],
        )  # fmt: skip
        return self.add("Add", x, self.scaled_dense(self.activated(u, block.second, hidden), block.down))


def _model(separator):
    """`TDCNPlusPlus.call` as ONNX has it, features before frames."""
    import onnx

    c, graph = separator.config, _Graph()
    add, step, length, sources = graph.add, c["frame_step"], c["frame_length"], c["num_sources"]
    samples = add("Slice", add("Shape", "mixture"), np.array([1]), np.array([2]))
    beyond = add("Max", add("Sub", samples, np.array([length])), np.array([0]))  # the first frame
    hops = add("Div", add("Add", beyond, np.array([step - 1])), np.array([step]))
    frames = add("Add", hops, np.array([1]))
    covered = add("Add", add("Mul", hops, np.array([step])), np.array([length]))
    padded = add("Pad", "mixture", add("Concat", np.array([0, 0, 0]), add("Sub", covered, samples), axis=0))
    basis = _array(separator.encoder.kernel).T[:, None]  # (basis, 1, frame_length)
    coefficients = add("Relu", add("Conv", add("Unsqueeze", padded, np.array([1])), basis, strides=[step]))
    x, repeat_inputs = graph.scaled_dense(coefficients, separator.initial), {}
    for index, block in enumerate(separator.blocks):
        if separator.skips and index in separator.starts:
            for earlier, y in repeat_inputs.items():
                x = add("Add", x, graph.scaled_dense(y, separator.skips[f"{earlier}_{index}"]))
            repeat_inputs[index] = x
        x = graph.block(x, block)
    masks = add("Sigmoid", graph.dense(x, _array(separator.masks.kernel)))
    masks = add("Reshape", masks, add("Concat", np.array([0, sources, c["num_basis"]]), frames, axis=0))
    masked = add("Mul", masks, add("Unsqueeze", coefficients, np.array([1])))
    masked = add("Reshape", masked, add("Concat", np.array([-1, c["num_basis"]]), frames, axis=0))
    waveforms = add("ConvTranspose", masked, _array(separator.decoder.kernel)[:, None], strides=[step])
    waveforms = add("Reshape", waveforms, add("Concat", np.array([-1, sources]), covered, axis=0))
    estimates = add("Slice", waveforms, np.array([0]), samples, np.array([2]))
    missing = add("Sub", "mixture", add("ReduceSum", estimates, np.array([1]), keepdims=0))
    shared = add("Mul", _weights(separator, graph, x, estimates), add("Unsqueeze", missing, np.array([1])))
    add("Add", estimates, shared)
    graph.nodes[-1].output[0] = "channels"
    info = onnx.helper.make_tensor_value_info
    given = info("mixture", onnx.TensorProto.FLOAT, ["clips", "samples"])
    channels = info("channels", onnx.TensorProto.FLOAT, ["clips", sources, "samples"])
    return onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "TDCNPlusPlus", [given], [channels], graph.arrays),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="sepcl_keras",
    )  # fmt: skip


def _weights(separator, graph, x, estimates):
    """By which `mixture_consistency` shares out, (clips, sources, 1)."""
    c, add = separator.config, graph.add
    if c["consistency"] == "predicted":
        mean = add("ReduceMean", x, axes=[2], keepdims=0)
        weights = add("Softmax", add("MatMul", mean, _array(separator.weighting.kernel)), axis=1)
        return add("Unsqueeze", weights, np.array([2]))
    if c["consistency"] == "energy":
        energy = add("Add", add("ReduceMean", add("Mul", estimates, estimates), axes=[2]), np.array(1e-8))
        return add("Div", energy, add("ReduceSum", energy, np.array([1])))
    return graph.kept(np.full((1, c["num_sources"], 1), 1 / c["num_sources"]))


def _array(variable):
    return np.asarray(keras.ops.convert_to_numpy(variable.value), "float32")
