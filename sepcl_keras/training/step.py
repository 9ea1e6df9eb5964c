"""TensorFlow's training step, written out."""

import keras


class TensorFlowStep:
    """The custom training step. On JAX and torch it is absent, and Keras' own step does the same."""

    if keras.backend.backend() == "tensorflow":

        def train_step(self, data):
            import tensorflow as tf

            (x, y, sample_weight) = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                outputs = self(x, training=True)
                loss = self.compute_loss(x, y, outputs, sample_weight, training=True)
                scaled = self.optimizer.scale_loss(loss)  # for float16; else the loss itself
            gradients = tape.gradient(scaled, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            self._loss_tracker.update_state(loss)
            return {metric.name: metric.result() for metric in self.metrics}
