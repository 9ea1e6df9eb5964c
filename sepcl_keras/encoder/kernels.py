"""CNN14's last convolutions for TensorFlow on a CPU: over maps of a few mel bands they are matrix products.

The last block sees 3 frames of 2 bands. Of the 54 products of a 3 × 3 convolution there 26 are with the zeros beyond
the map, and oneDNN is slow on what is left. One matrix product for each tap, with what lies under it, skips the zeros.
"""

import keras

from sepcl_keras.core.backend import has_gpu, matmul

MOST_BANDS = 4  # more have few zeros to skip, and oneDNN is as fast there
LEAST_CHANNELS = 128  # fewer are too little work for nine products


def applies(x, kernel):
    """Whether `convolve` is the faster way for x (clips, frames, bands, channels): on a CPU with TensorFlow."""
    small = x.shape[2] <= MOST_BANDS and kernel.shape[2] >= LEAST_CHANNELS
    return keras.backend.backend() == "tensorflow" and small and not has_gpu()


def convolve(x, kernel):
    """The `same` convolution of x (clips, frames, bands, channels) by a kernel (3, 3, channels, filters)."""
    import tensorflow as tf

    def rows(array, part):  # (clips · frames · bands, channels) of a part of the map, and its shape
        array = array[:, part[0], part[1]]
        return tf.reshape(array, (-1, array.shape[-1])), tf.shape(array)

    def put(array, shape, part):  # back in its place, zeros around
        array = tf.reshape(array, (shape[0], shape[1], shape[2], array.shape[-1]))
        beside = [(side.start or 0, -(side.stop or 0)) for side in part]
        return tf.cast(tf.pad(array, [(0, 0), *beside, (0, 0)]), "float32")  # nine terms are added up: not in half

    def product(x, kernel):
        taps = list(_taps(x.shape[2]))
        flat = tf.reshape(kernel, (9, *kernel.shape[2:]))

        def forward(tap, under, over):
            part, shape = rows(x, under)
            return put(matmul(part, flat[tap], tf.matmul), shape, over)

        def gradient(d_y):
            def to_input(tap, under, over):
                part, shape = rows(d_y, over)
                return put(matmul(part, flat[tap], tf.matmul, transpose_b=True), shape, under)

            def to_kernel(tap, under, over):
                return matmul(rows(x, under)[0], rows(d_y, over)[0], tf.matmul, transpose_a=True)

            d_x = tf.cast(tf.add_n([to_input(*tap) for tap in taps]), x.dtype)
            found = {tap[0]: to_kernel(*tap) for tap in taps}
            nothing = tf.zeros(kernel.shape[2:], kernel.dtype)
            return d_x, tf.reshape(tf.stack([found.get(tap, nothing) for tap in range(9)]), kernel.shape)

        return tf.cast(tf.add_n([forward(*tap) for tap in taps]), x.dtype), gradient

    return tf.custom_gradient(product)(x, kernel)


def _taps(bands):
    """For each tap that meets the map: its number, the part of the input under it, the output's part it adds to."""
    part = {-1: slice(0, -1), 0: slice(0, None), 1: slice(1, None)}
    for tap in range(9):
        down, right = tap // 3 - 1, tap % 3 - 1
        if abs(right) < bands:
            yield tap, (part[down], part[right]), (part[-down], part[-right])
