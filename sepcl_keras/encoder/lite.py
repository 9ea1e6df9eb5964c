"""`LogMel` and `CNN14` of what LiteRT has.

Written out for TensorFlow's converter, which knows neither float64 nor all that Keras traces. LiteRT's Fourier
transform takes and gives float32 but computes in float64, so that quiet bands beside a loud tone stay what they are.
"""

import numpy as np

from sepcl_keras.encoder.network import array_of, scale_and_shift
from sepcl_keras.views.log_mel import LOG_OFFSET, MEL_BANDS, RECIPES, mel_matrix


def lite_function(encoder, inputs):
    """A function from waveforms or log-mel to h, and its variables: what `write_traced` takes."""
    import tensorflow as tf

    variables = []
    network, log_mel = _network(tf, encoder, variables), _log_mel(tf, encoder.recipe)
    return (lambda x: network(log_mel(x))) if inputs == "waveforms" else network, variables


def _log_mel(tf, recipe):
    r, panns = RECIPES[recipe], recipe == "panns"
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(r["window"]) / r["window"])
    coarse = np.round(window * 2**12) / 2**12
    window, coarse, fine = (part.astype("float32") for part in (window, coarse, window - coarse))
    # Each band with its own few bins, not a product with the whole matrix: in 8-bit integers that one left h a cosine
    # of 0.95 to that in float32, where it has 0.9998.
    matrix = mel_matrix(recipe)
    bins = np.argmax(matrix > 0, axis=0)[:, None] + np.arange((matrix > 0).sum(axis=0).max())
    bins = np.minimum(bins, len(matrix) - 1)  # (mels, bins of the widest)
    weights = matrix[bins, np.arange(MEL_BANDS)[:, None]]

    def log_mel(x):
        if panns:
            x = tf.pad(x, ((0, 0), (r["fft"] // 2, r["fft"] // 2)), mode="REFLECT")
        starts = r["hop"] * tf.range(1 + (tf.shape(x)[1] - r["window"]) // r["hop"])
        frames = tf.gather(x, starts[:, None] + tf.range(r["window"]), axis=1)
        # A product rounded to float32 would put noise beside a loud tone. This one is of eleven bits by twelve: exact.
        loud = tf.round(frames * 2**11) / 2**11
        parts = [loud * coarse, loud * fine + (frames - loud) * window]
        spectra = [tf.signal.rfft(tf.pad(part, ((0, 0), (0, 0), (0, r["fft"] - r["window"])))) for part in parts]
        real, imaginary = (sum(part(spectrum) for spectrum in spectra) for part in (tf.math.real, tf.math.imag))
        power = tf.square(real) + tf.square(imaginary)
        mel = tf.reduce_sum(tf.gather(power if panns else tf.sqrt(power), bins, axis=2) * weights, axis=3)
        if panns:
            return tf.math.log(tf.maximum(mel, 1e-10)) * np.float32(10 / np.log(10))
        return tf.math.log(mel + LOG_OFFSET)

    return log_mel


def _network(tf, encoder, variables):
    def kept(array):
        variables.append(tf.Variable(array.astype("float32")))
        return variables[-1]

    scale0, shift0 = map(kept, scale_and_shift(encoder.bn0))
    layers = []
    for block in encoder.blocks:
        for convolution, norm, pool in ((block.conv1, block.bn1, 1), (block.conv2, block.bn2, block.pool)):
            scale, shift = scale_and_shift(norm)  # outside training a convolution can take them in
            layers.append((kept(array_of(convolution.kernel) * scale), kept(shift), pool))
    kernel, bias = kept(array_of(encoder.bottleneck.kernel)), kept(array_of(encoder.bottleneck.bias))

    def network(log_mel):
        x = tf.expand_dims(log_mel * scale0 + shift0, -1)
        for taps, shift, pool in layers:
            x = tf.nn.relu(tf.nn.conv2d(x, taps, 1, "SAME") + shift)
            if pool > 1:
                x = tf.nn.avg_pool2d(x, pool, pool, "VALID")
        x = tf.reduce_mean(x, axis=2)
        return tf.matmul(tf.reduce_max(x, axis=1) + tf.reduce_mean(x, axis=1), kernel) + bias

    return network
