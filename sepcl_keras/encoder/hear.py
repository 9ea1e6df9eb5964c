"""The encoder behind the interface of HEAR, the Holistic Evaluation of Audio Representations.

`hear-validator sepcl_keras.hear --model encoder.keras` finds here the three functions it asks for. HEAR's models are
modules of TensorFlow or of torch; Keras has to run on one of these.

Source: https://hearbenchmark.com/hear-api.html.
"""

import contextlib

import keras
import numpy as np
from keras import ops

from sepcl_keras.core.checks import BadInput, numbers
from sepcl_keras.encoder.embedding import STEP, embed, embed_at_times, in_float32, load_encoder

if keras.backend.backend() == "tensorflow":
    from tensorflow import Module
elif keras.backend.backend() == "torch":
    from torch.nn import Module
else:
    Module = object  # load_model then says that there is none


class Model(Module):
    """A trained `CNN14`, and what HEAR wants to know of it; a `tf.Module` or a `torch.nn.Module`."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.sample_rate = encoder.sample_rate
        self.scene_embedding_size = self.timestamp_embedding_size = int(encoder.embedding_dim)


def load_model(model_file_path=""):
    """The `Model` of the encoder in a `.keras` file; there is no published one to take where no path is given."""
    if Module is object:
        here = f"HEAR takes modules of TensorFlow or torch, and Keras runs on {keras.backend.backend()}"
        raise BadInput(f"hear.load_model: {here}; expected KERAS_BACKEND=tensorflow or torch.")
    if not model_file_path:
        raise BadInput("hear.load_model: no encoder has been published yet; expected the path of one you trained.")
    return Model(in_float32(load_encoder(model_file_path)))


def get_scene_embeddings(audio, model):
    """One embedding a sound, float32 (sounds, d): the mean over its windows, as in `embed`.

    `audio` is a tensor (sounds, samples), 16 kHz, in [-1, 1], of any length; `model`, of `load_model`, goes to its
    device, and so do the embeddings.
    """
    audio, device = _received(audio, model)
    with device:
        return ops.convert_to_tensor(embed(audio, model.encoder, pool=True, show=False))


def get_timestamp_embeddings(audio, model):
    """Embeddings every 50 ms, each of the 0.975 s around its timestamp, as `embed_at_times` makes them.

    Args as in `get_scene_embeddings`. Returns two float32 tensors: embeddings (sounds, timestamps, d), and the
    timestamps (sounds, timestamps) in ms, from 0 to the end of the sound: 20 passes through the encoder a second.
    """
    audio, device = _received(audio, model)
    with device:
        h = embed_at_times(audio, model.encoder)
        timestamps = np.tile(STEP * np.arange(h.shape[1], dtype="float32"), (len(h), 1))
        return ops.convert_to_tensor(h), ops.convert_to_tensor(timestamps)


def _received(audio, model):
    """The audio as NumPy has it, and a context in which Keras computes where the audio is."""
    if not isinstance(model, Model):
        raise BadInput(f"model of type {type(model).__name__}: expected the one that hear.load_model gives.")
    device = contextlib.nullcontext()
    if keras.backend.backend() == "torch":
        place = str(getattr(audio, "device", "cpu"))
        device = keras.device(place)
        model.to(place)
    audio = ops.convert_to_numpy(audio)
    return numbers("audio", audio, ("sounds", "samples"), audio.dtype), device  # `embed` refuses integers
