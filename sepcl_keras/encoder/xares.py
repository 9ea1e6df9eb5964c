"""The encoder behind the interface of X-ARES, the eXtensive Audio Representation and Evaluation Suite.

X-ARES takes a Python file in which one name ends in "Encoder". Two lines are enough, in `ours.py` say:

    from sepcl_keras.encoder.xares import encoder_class
    OurEncoder = encoder_class("encoder.keras")

`pip install xares` also installs its tasks, as a folder `tasks` among the packages; from the folder of `ours.py`

    python -m xares.run --max-jobs 0 ours.py tasks/esc50_task.py

downloads one, embeds it and trains X-ARES' classifiers; results are kept in `env`, by the name of the class: give
another encoder another name. With `--max-jobs 1`, its default, X-ARES 0.1.3 asks for a GPU. Its modules are torch's;
Keras may run on any backend. With torchaudio 2.9 or newer also install torchcodec: without it X-ARES skips every sound
with no more than a warning. Its k-NN scores favour long embeddings (see findings/), its MLP scores are sound.

Source: xares 0.1.3 and its `check_audio_encoder`; https://github.com/jimbozhang/xares.
"""

import contextlib

import keras

from sepcl_keras.core.checks import BadInput
from sepcl_keras.encoder.embedding import STEP, embed_at_times, in_float32, load_encoder
from sepcl_keras.views.log_mel import SAMPLE_RATE


def encoder_class(path):
    """A class of `torch.nn.Module`, which X-ARES makes without arguments: of the encoder in a `.keras` file.

    An instance takes a tensor (clips, samples), 16 kHz, in [-1, 1], and gives h (clips, times, d), one every 50 ms of
    the 0.975 s around it (see `embed_at_times`), on the tensor's device: as many as begin within the clip, which is
    how X-ARES counts the frames of its labels. Raises `BadInput` where torch is missing.
    """
    try:
        import torch
    except ImportError:
        raise BadInput("encoder_class: X-ARES takes modules of torch, which is not installed.") from None

    class SepclEncoder(torch.nn.Module):
        sampling_rate, hop_size_in_ms = SAMPLE_RATE, STEP

        def __init__(self):
            super().__init__()
            self.encoder = in_float32(load_encoder(path))
            self.output_dim = int(self.encoder.embedding_dim)

        def forward(self, audio):
            device = contextlib.nullcontext()
            if keras.backend.backend() == "torch":
                device = keras.device(str(audio.device))
                self.to(audio.device)
            step = SAMPLE_RATE * STEP // 1000
            with device:
                h = embed_at_times(audio.detach().cpu().numpy(), self.encoder)
            return torch.from_numpy(h[:, : -(-audio.shape[1] // step)]).to(audio.device)

    return SepclEncoder
