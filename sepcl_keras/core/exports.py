"""Networks for programs without Keras: the formats, and writing them, whole or not at all.

ONNX graphs are written out by the network's own folder. TensorFlow makes the others from a function: SavedModels, and
LiteRT's .tflite files (LiteRT was TensorFlow Lite until 2024).
"""

import importlib.util
import tempfile

import keras

from sepcl_keras.core.checks import BadInput, one_of, path_of
from sepcl_keras.core.files import atomic
from sepcl_keras.core.folders import atomic_folder

# The package that writes each.
PACKAGES = {"onnx": "onnx", "saved_model": "tensorflow", "litert": "tensorflow", "litert_int8": "tensorflow"}


def checked(title, path, format):
    """The path, where nothing is yet; what cannot be written is `BadInput`."""
    path, backend = path_of("path", path), keras.backend.backend()
    one_of("format", format, PACKAGES)
    if format != "onnx" and backend != "tensorflow":
        raise BadInput(f"{title}: a {format}, but Keras runs on {backend}; expected KERAS_BACKEND=tensorflow.")
    if importlib.util.find_spec(PACKAGES[format]) is None:
        raise BadInput(f"{title}: {format} needs the package {PACKAGES[format]}; expected it installed.")
    if path.exists():
        raise BadInput(f"{path}: expected a path where nothing is yet.")
    return path


def write_onnx(model, path):
    with atomic(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def write_traced(function, variables, shape, names, path, format):
    """Writes a function that TensorFlow can trace.

    Args:
        function: of one float32 tensor, to another. shape: of its input; an axis of None has any length.
        variables: a list of the `tf.Variable`s it uses. Large weights have to be: as constants those of the paper's
            encoder took 107 s and 13.5 GB to convert, as variables 17 s and 3.7 GB (TensorFlow 2.17.1).
        names: of input and output. format: another one than ONNX.
    """
    import tensorflow as tf

    given, gives = names
    module = tf.Module()
    module.weights = variables
    module.serve = tf.function(function, input_signature=[tf.TensorSpec(shape, "float32", given)])
    named = tf.function(lambda **inputs: {gives: module.serve(inputs[given])}, autograph=False)
    signature = named.get_concrete_function(**{given: tf.TensorSpec(shape, "float32", given)})
    if format == "saved_model":
        with atomic_folder(path, format) as folder:
            _save(module, signature, folder, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        _save(module, signature, folder, path)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT] if format == "litert_int8" else []
        content = converter.convert()
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def _save(module, signature, folder, path):
    """Not by Keras' own export, which writes every weight twice."""
    import tensorflow as tf

    try:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})
    except tf.errors.OpError as error:  # TensorFlow's for a full disk
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path}: cannot be written ({reason}); expected a folder with room that is ours.") from None
