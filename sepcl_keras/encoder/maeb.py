"""The encoder behind the interface of MAEB, the Massive Audio Embedding Benchmark, which is run by `mteb`.

    import mteb
    from sepcl_keras.encoder.maeb import Model

    model = Model("encoder.keras")
    print(mteb.mock_run(model))  # mteb's own check, on made sounds
    mteb.evaluate(model, mteb.get_benchmark("MAEB(v1, audio-only)"))  # downloads its data

mteb needs torch, so KERAS_BACKEND=torch is the choice that was tried throughout. mteb keeps results by name and
revision; the revision here is made of the weights, so that no encoder gets another one's results. MAEB's tasks that
compare sounds with texts need a text encoder too; mteb leaves them out.

Source: mteb 2.26.24, its `EncoderProtocol`; https://github.com/embeddings-benchmark/mteb.
"""

import functools

import numpy as np

from sepcl_keras.core.arrays import digest
from sepcl_keras.core.checks import BadInput, path_of
from sepcl_keras.core.files import fingerprint
from sepcl_keras.encoder.embedding import embed, in_float32, load_encoder
from sepcl_keras.views.log_mel import SAMPLE_RATE


class Model:
    """What mteb calls an encoder: the one in a `.keras` file, or in a folder with an `encoder.keras`.

    `revision` and `device` are there for mteb, which hands them to all models; Keras chooses the device.
    """

    def __init__(self, path, revision=None, *, device=None):
        self.path, self.encoder = path_of("path", path), in_float32(load_encoder(path))

    def encode(self, inputs, **of_the_task):
        """One embedding a sound, float32 (sounds, d): the mean over its windows, as in `embed`.

        `inputs`: batches, dicts with a list of sounds under `"audio"`, each with an `"array"` (samples,), or (channels,
        samples), and its `"sampling_rate"` in Hz, which is made 16 kHz. What mteb says of the task changes nothing.
        """
        parts = []
        for batch in inputs:
            if "audio" not in batch:
                raise BadInput(f"maeb.Model: a batch of {', '.join(batch) or 'nothing'}; expected one of audio.")
            parts.append(embed([_mono(sound) for sound in batch["audio"]], self.encoder, pool=True, show=False))
        return np.concatenate(parts)

    def similarity(self, embeddings1, embeddings2):
        """Cosines (rows, rows2) of two sets of embeddings, a tensor of torch."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1, embeddings2):
        """Cosines (rows,) of the rows of two sets of embeddings, a tensor of torch."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)

    @functools.cached_property
    def mteb_model_meta(self):
        """What mteb writes beside results; what was trained on is not known here (`model_copy` says more)."""
        from mteb.models import ModelMeta

        encoder = self.encoder
        revision = fingerprint([encoder.recipe, encoder.window, digest(encoder.get_weights())])
        return ModelMeta(
            loader=type(self), name=f"sepcl-keras/{self.path.stem}", revision=revision, release_date=None,
            languages=None, n_parameters=encoder.count_params(), memory_usage_mb=None, max_tokens=None,
            embed_dim=int(encoder.embedding_dim), license=None, open_weights=None,
            public_training_code="https://github.com/sepcl-keras/sepcl-keras", public_training_data=None, framework=[],
            similarity_fn_name="cosine", use_instructions=False, training_datasets=None, modalities=["audio"],
        )  # fmt: skip


def _mono(sound):
    """Samples (samples,) at 16 kHz of what mteb, or its data sets, call an audio."""
    import soxr

    array, rate = np.asarray(sound["array"]), sound["sampling_rate"]
    if not rate:
        raise BadInput("maeb.Model: a sound without its sampling_rate; expected one in Hz.")
    if array.ndim > 1:
        array = array.mean(axis=0)
    array = array.astype("float32") if array.dtype.kind == "f" else array  # `embed` refuses integers
    return array if rate == SAMPLE_RATE or array.dtype.kind != "f" else soxr.resample(array, rate, SAMPLE_RATE)
