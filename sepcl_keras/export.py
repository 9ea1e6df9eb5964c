"""An encoder for programs without Keras: ONNX files and TensorFlow's SavedModels."""

import importlib.util
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import ops

from sepcl_keras.checkpoint import atomic_folder
from sepcl_keras.embedding import PATCH_SAMPLES
from sepcl_keras.encoder import CNN14
from sepcl_keras.features import MEL_BANDS, PATCH_FRAMES, LogMel
from sepcl_keras.files import BadInput, atomic

# Format → backend → the packages that Keras needs there to write it.
WRITERS = {"onnx": {"tensorflow": ("tf2onnx",), "torch": ("onnx",)}, "saved_model": {"tensorflow": ()}}


class LogMelByConvolution(LogMel):
    """`LogMel` of the recipe `"vggish"` whose Fourier transform is a convolution: no converter knows `rfft`."""

    def build(self, input_shape):
        r = self._r
        turns = np.outer(np.arange(r["window"]), np.arange(r["fft"] // 2 + 1)) / r["fft"]
        waves = np.concatenate([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)
        self._waves = (self._window[:, None] * waves)[:, None].astype("float32")  # (window, 1, 2 × bins)

    def call(self, waveforms):
        spectrum = ops.conv(waveforms[..., None], self._waves, strides=self._r["hop"], padding="valid")
        real, imaginary = ops.split(spectrum, 2, axis=-1)  # (clips, frames, bins) each
        return ops.log(ops.matmul(ops.sqrt(ops.square(real) + ops.square(imaginary)), self._mel) + 0.01)


def export_encoder(encoder, path, format="onnx", inputs="waveforms"):
    """Writes an encoder as something that runs without Keras; one input, one output, any number of clips.

    Args:
        encoder: a `CNN14`; it is written in float32 whatever its precision.
        path: a file for ONNX, a folder for a SavedModel, whose function is `serve`. Nothing may be there yet.
        format: `"onnx"`, written on TensorFlow by tf2onnx and on torch by its own exporter, or `"saved_model"`,
            written on TensorFlow. A `.keras` file is the same on all backends, so any encoder can be taken there.
        inputs: `"waveforms"` (clips, 15,600) at 16 kHz, or `"log_mel"` (clips, 96, 64) as `LogMel` gives it. The output
            is h (clips, d), what `embed` gives for one window.

    Raises `BadInput` for another format, a backend or a missing package that cannot write it, and a path that is taken
    or cannot be written. The path appears when all is written.
    """
    path, backend = Path(path), keras.backend.backend()
    if not isinstance(encoder, CNN14):
        raise BadInput(f"export_encoder: an encoder of type {type(encoder).__name__}; expected a CNN14.")
    if format not in WRITERS:
        raise BadInput(f"export_encoder: format={format!r}; expected one of {', '.join(WRITERS)}.")
    front_ends = {"waveforms": ((PATCH_SAMPLES,), [LogMelByConvolution()]), "log_mel": ((PATCH_FRAMES, MEL_BANDS), [])}
    if inputs not in front_ends:
        raise BadInput(f"export_encoder: inputs={inputs!r}; expected one of {', '.join(front_ends)}.")
    if backend not in WRITERS[format]:
        raise BadInput(
            f"export_encoder: Keras runs on {backend}; expected KERAS_BACKEND={' or '.join(WRITERS[format])} to write "
            f"{format}."
        )
    for package in WRITERS[format][backend]:
        if importlib.util.find_spec(package) is None:
            raise BadInput(f"export_encoder: writing {format} on {backend} needs {package}; expected it installed.")
    if path.exists():
        raise BadInput(f"{path}: expected a path where nothing is yet.")
    twin = CNN14(encoder.embedding_dim, encoder.width, dtype="float32")
    twin.build((None, PATCH_FRAMES, MEL_BANDS))
    twin.set_weights(encoder.get_weights())
    shape, front_end = front_ends[inputs]
    model = keras.Sequential([keras.Input(shape, dtype="float32"), *front_end, twin])
    model.autocast = False
    options = dict(verbose=False, input_signature=[keras.InputSpec("float32", (None, *shape), name=inputs)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the converters think of their own insides
        if format == "onnx":
            with atomic(path) as temporary:
                model.export(str(temporary), format="onnx", **options)
        else:
            with atomic_folder(path, format) as folder:
                model.export(str(folder), format="tf_saved_model", **options)
