"""A dense layer for all networks, with products that are rounded alike on all devices."""

import keras

from sepcl_keras.core.backend import matmul


@keras.saving.register_keras_serializable(package="sepcl_keras")
class Dense(keras.layers.Dense):
    """Keras' dense layer, whose products are rounded on any device (see `backend.matmul`)."""

    def call(self, inputs, training=None):
        y = matmul(inputs, self.kernel)
        return self.activation(y + self.bias if self.use_bias else y)
