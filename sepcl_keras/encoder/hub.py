"""CNN14 as KerasHub has networks: a backbone, an audio converter and a preprocessor, kept in a preset's folder.

    from sepcl_keras.encoder.hub import save_preset
    save_preset(encoder, "preset")  # a folder: config.json, model.weights.h5, preprocessor.json, audio_converter.json …

Elsewhere, where KerasHub has to know the classes first:

    import keras_hub, sepcl_keras.encoder.hub
    backbone = keras_hub.models.Backbone.from_preset("preset")
    converter = keras_hub.layers.AudioConverter.from_preset("preset")
    h = backbone(converter(waveforms))  # (clips, samples), 16 kHz, to (clips, d)

`CNN14Preprocessor.from_preset` gives the converter as a preprocessor, of (x, y, sample_weight). PANNs' checkpoints come
by `from_panns_checkpoint`. Inside tf.data the converter needs Keras to run on TensorFlow.

Source: keras-hub 0.32.0, which this module imports.
"""

import keras

from sepcl_keras.core.checks import BadInput, path_of, reason_of
from sepcl_keras.core.folders import atomic_folder
from sepcl_keras.encoder.embedding import in_float32
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.views.log_mel import MEL_BANDS, PATCH_SAMPLES, LogMel

try:
    import keras_hub
except ImportError as error:
    raise ImportError("sepcl_keras.encoder.hub needs the package keras-hub; expected it installed.") from error


@keras.saving.register_keras_serializable(package="sepcl_keras")
class CNN14Backbone(keras_hub.models.Backbone):
    """A `CNN14`, with its arguments: log-mel patches (clips, frames, 64) to embeddings h (clips, embedding_dim)."""

    def __init__(
        self, embedding_dim=128, width=64, recipe="vggish", window=PATCH_SAMPLES, dtype=None, name=None, trainable=True
    ):
        arguments = dict(embedding_dim=embedding_dim, width=width, recipe=recipe, window=window)
        log_mel = keras.Input((None, MEL_BANDS), name="log_mel")
        h = CNN14(**arguments, dtype=dtype, name="cnn14")(log_mel)
        super().__init__(inputs=log_mel, outputs=h, dtype=dtype, name=name, trainable=trainable)
        self.arguments = arguments

    @property
    def encoder(self):
        """The `CNN14` inside: what `embed` takes."""
        return self.get_layer("cnn14")

    def get_config(self):
        return super().get_config() | dict(self.arguments)


@keras.saving.register_keras_serializable(package="sepcl_keras")
class CNN14AudioConverter(keras_hub.layers.AudioConverter):
    """Waveforms (clips, samples), 16 kHz, in [-1, 1], to log-mel (clips, frames, 64), as `LogMel` of the recipe."""

    backbone_cls = CNN14Backbone

    def __init__(self, recipe="vggish", **kwargs):
        super().__init__(**kwargs)
        self.log_mel = LogMel(recipe)

    def call(self, audio):
        return self.log_mel(keras.ops.convert_to_tensor(audio, "float32"))

    def audio_shape(self):
        return (None, MEL_BANDS)

    def compute_output_shape(self, input_shape):
        return self.log_mel.compute_output_shape(input_shape)

    def get_config(self):
        return super().get_config() | {"recipe": self.log_mel.recipe}


@keras.saving.register_keras_serializable(package="sepcl_keras")
class CNN14Preprocessor(keras_hub.models.Preprocessor):
    """The converter as a step of a data set: its x are waveforms; y and sample_weight pass."""

    backbone_cls, audio_converter_cls = CNN14Backbone, CNN14AudioConverter

    def __init__(self, audio_converter, **kwargs):
        super().__init__(**kwargs)
        self.audio_converter = audio_converter

    def call(self, x, y=None, sample_weight=None):
        return keras.utils.pack_x_y_sample_weight(self.audio_converter(x), y, sample_weight)


def save_preset(encoder, folder):
    """Writes a `CNN14`, in float32, as the folder of a KerasHub preset, whole or not at all.

    Raises `BadInput` for another network, and for a folder that is there already or cannot be written.
    """
    folder, encoder = path_of("folder", folder), in_float32(encoder)
    if folder.exists():
        raise BadInput(f"{folder}: expected a path where nothing is yet.")
    arguments = {name: encoder.get_config()[name] for name in ("embedding_dim", "width", "recipe", "window")}
    backbone = CNN14Backbone(**arguments, dtype="float32", trainable=encoder.trainable)
    backbone.encoder.set_weights(encoder.get_weights())
    with atomic_folder(folder, "preset") as part:
        backbone.save_to_preset(str(part))
        CNN14Preprocessor(CNN14AudioConverter(encoder.recipe)).save_to_preset(str(part))


def load_preset(folder):
    """The `CNN14` in the folder of a KerasHub preset; one that is missing, damaged or another's is `BadInput`."""
    folder = path_of("folder", folder)
    try:
        return CNN14Backbone.from_preset(str(folder)).encoder
    except Exception as error:  # whatever KerasHub and Keras make of it
        reason = reason_of(error)
        raise BadInput(f"{folder}: expected a KerasHub preset of a CNN14, but reading it failed ({reason}).") from None
