"""Log-mel spectrograms, as a layer that runs on every backend and never lets a clip depend on its batch-mates."""

import functools

import keras
import numpy as np
from keras import ops

from sepcl_keras.core.backend import full_precision, in_double_precision
from sepcl_keras.core.checks import BadInput, check_axes, one_of

SAMPLE_RATE = 16_000  # Hz, of both recipes
PATCH_FRAMES = 96
MEL_BANDS = 64
LOG_OFFSET = 0.01  # of the recipe "vggish", under the logarithm
# VGGish: the front-end of the paper's group. PANNs: what CNN14's published weights expect.
RECIPES = {
    "vggish": dict(rate=SAMPLE_RATE, window=400, hop=160, fft=512, low=125.0, high=7500.0, scale="htk"),
    "panns": dict(rate=SAMPLE_RATE, window=512, hop=160, fft=512, low=50.0, high=8000.0, scale="slaney"),
}
HOP = RECIPES["vggish"]["hop"]  # samples from one frame to the next: 10 ms
PATCH_SAMPLES = RECIPES["vggish"]["window"] + (PATCH_FRAMES - 1) * HOP  # 15,600, of which a patch is made


def _hertz_to_mel(hertz, scale):
    hertz = np.asarray(hertz, np.float64)
    if scale == "htk":
        return 1127.0 * np.log1p(hertz / 700.0)
    # Slaney: linear up to 1 kHz (15 mel), then 27 logarithmic steps for a factor of 6.4.
    return np.where(hertz < 1000.0, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1e-9) / 1000.0) / np.log(6.4))


def _mel_to_hertz(mel, scale):
    if scale == "htk":
        return 700.0 * np.expm1(mel / 1127.0)
    return np.where(mel < 15, mel * 200 / 3, 1000.0 * np.exp((mel - 15) * np.log(6.4) / 27))


def mel_matrix(recipe="vggish"):
    """Weights (257 frequency bins, 64 mel bands) for spectra at 16 kHz, as the recipe's authors draw them.

    HTK triangles are straight on the mel axis and leave the zero-frequency bin out; Slaney's are straight in Hz and
    have equal area.
    """
    r = RECIPES[recipe]
    bins = np.linspace(0.0, 8000.0, r["fft"] // 2 + 1)
    edges = np.linspace(*_hertz_to_mel([r["low"], r["high"]], r["scale"]), MEL_BANDS + 2)
    if r["scale"] == "htk":
        axis = _hertz_to_mel(bins, "htk")
    else:
        axis, edges = bins, _mel_to_hertz(edges, "slaney")
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (axis[:, None] - low) / (centre - low)
    falling = (high - axis[:, None]) / (high - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    if r["scale"] == "htk":
        weights[0] = 0.0
    else:
        weights *= 2.0 / (high - low)
    return weights.astype("float32")


@keras.saving.register_keras_serializable(package="sepcl_keras")
class LogMel(keras.layers.Layer):
    """Waveforms (clips, samples) at 16 kHz to log-mel spectrograms (clips, frames, mels).

    Args:
        recipe: `"vggish"` (magnitude, 125–7,500 Hz, natural logarithm of mel + 0.01, frames lie inside the clip) or
            `"panns"` (power, 50–8,000 Hz, dB, frames centred with reflected edges).

    Both have a hop of 10 ms: 15,600 samples give one VGGish patch of 96 frames.
    Sources: VGGish's parameter file; `Cnn14_16k` of PANNs.
    """

    def __init__(self, recipe="vggish", **kwargs):
        kwargs.setdefault("dtype", "float32")  # half precision would lose quiet bands before the logarithm
        super().__init__(**kwargs)
        one_of("LogMel: recipe", recipe, RECIPES)
        self.recipe = recipe
        self._r = RECIPES[recipe]
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self._r["window"]) / self._r["window"])
        self._mel = mel_matrix(recipe)

    def frames(self, samples):
        """Number of frames of a clip of so many samples."""
        if self.recipe == "panns":
            return 1 + samples // self._r["hop"]
        return 1 + (samples - self._r["window"]) // self._r["hop"]

    def call(self, waveforms):
        check_axes("LogMel: waveforms", waveforms.shape, "clips", "samples")
        r = self._r
        shortest = r["window"] if self.recipe == "vggish" else r["fft"] // 2 + 1
        if waveforms.shape[-1] is not None and waveforms.shape[-1] < shortest:
            raise BadInput(f"LogMel: a clip of {waveforms.shape[-1]} samples; expected at least {shortest}.")
        if self.recipe == "panns":
            waveforms = ops.pad(waveforms, ((0, 0), (r["fft"] // 2, r["fft"] // 2)), mode="reflect")
        with full_precision():  # on JAX cutting into frames is a product
            frames = ops.extract_sequences(waveforms, r["window"], r["hop"])  # (clips, frames, window)
        # In float32 the rounding of a loud tone would shift bands 80 dB below it by a tenth of a dB.
        return in_double_precision(self._log_mel)(frames)

    def _log_mel(self, frames):
        real, imaginary = ops.rfft(frames * ops.cast(self._window, frames.dtype), fft_length=self._r["fft"])
        power = ops.square(real) + ops.square(imaginary)  # (clips, frames, bins)
        spectrum = power if self.recipe == "panns" else ops.sqrt(power)
        mel = ops.matmul(spectrum, ops.cast(self._mel, spectrum.dtype))  # (clips, frames, mels)
        return 10.0 * ops.log10(ops.maximum(mel, 1e-10)) if self.recipe == "panns" else ops.log(mel + LOG_OFFSET)

    def compute_output_shape(self, input_shape):
        frames = None if input_shape[-1] is None else self.frames(input_shape[-1])
        return (input_shape[0], frames, MEL_BANDS)

    def get_config(self):
        return super().get_config() | {"recipe": self.recipe}


@functools.cache
def log_mel_model(recipe="vggish"):
    """`LogMel` as a model that takes whole batches of waveforms (clips, samples), for `backend.inference`."""
    model = keras.Sequential([LogMel(recipe)])
    model.autocast = False  # where mixed precision is the default, it would round the waveforms
    return model


def windows(log_mel, frames=PATCH_FRAMES, hop=PATCH_FRAMES):
    """Spectrograms (clips, frames, mels) to their patches (clips, windows, `frames`, mels), one every `hop` frames."""
    if log_mel.shape[1] < frames:
        raise BadInput(f"log_mel of {log_mel.shape[1]} frames: expected at least {frames}, one patch.")
    patches = np.lib.stride_tricks.sliding_window_view(log_mel, frames, axis=1)[:, ::hop]
    return patches.swapaxes(2, 3)
