"""Adam, its gradient norms and its learning rates."""

import keras
from keras import ops


def learning_rates(peak, steps, warmup):
    """The schedule: from a tenth of the peak straight up to it, then by a cosine down to a hundredth of it."""
    decay = keras.optimizers.schedules.CosineDecay
    return decay(peak / 10, max(1, steps - warmup), 0.01, warmup_target=peak, warmup_steps=warmup)


class Adam(keras.optimizers.Adam):
    """Keras' Adam that also sums up the norms of the gradients it is given, before it clips them, in a variable."""

    def build(self, variables):
        super().build(variables)
        self.gradient_norms = self.add_variable(shape=(), name="gradient_norms")

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(trainable_variables)
        squares = [ops.sum(ops.square(ops.cast(grad, "float32"))) for grad in grads if grad is not None]
        self.gradient_norms.assign_add(ops.sqrt(ops.sum(ops.stack(squares))))
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        """The same numbers as Keras', on TensorFlow by its own operation: one pass over memory instead of a dozen."""
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            return super().update_step(gradient, variable, learning_rate)
        import tensorflow as tf

        index, dtype = self._get_variable_index(variable), variable.dtype
        number = ops.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = ops.cast(self.beta_1, dtype), ops.cast(self.beta_2, dtype)
        places = variable, self._momentums[index], self._velocities[index]
        var, m, v = ((x.value if isinstance(x, keras.Variable) else x).handle for x in places)
        tf.raw_ops.ResourceApplyAdam(
            var=var, m=m, v=v, grad=ops.cast(gradient, dtype), beta1=beta_1, beta2=beta_2, beta1_power=beta_1**number,
            beta2_power=beta_2**number, lr=ops.cast(learning_rate, dtype), epsilon=ops.cast(self.epsilon, dtype),
        )  # fmt: skip
