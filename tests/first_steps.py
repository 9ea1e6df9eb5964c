"""A program for the tests: three steps of contrastive training, on the backend and the devices the environment names.

    python first_steps.py START.npz END.npz

START holds the two views, the weights in order, whether SpecAugment is on, and Keras' kind of float. END gets the
losses, the first gradients, and the weights, batch norm's statistics among them, after each step.
"""

import sys

import keras
import numpy as np
from keras import ops

from sepcl_keras.core.backend import compile_with_xla, number_of_devices, use_all_devices
from sepcl_keras.encoder.network import CNN14
from sepcl_keras.encoder.objectives import ContrastiveModel
from sepcl_keras.views.augmentation import SpecAugment


class SGD(keras.optimizers.SGD):
    """Plain gradient descent that keeps the first gradients."""

    def build(self, variables):
        super().build(variables)
        self.first = [self.add_variable_from_reference(variable, name="first") for variable in variables]

    def apply(self, grads, trainable_variables=None):
        for kept, gradient in zip(self.first, grads, strict=True):
            kept.assign(ops.where(self.iterations == 0, gradient, kept.value))
        super().apply(grads, trainable_variables)


def new_model(views, augmented=False):
    model = ContrastiveModel(CNN14(16, width=1), augmentation=SpecAugment(seed=1) if augmented else None)
    model(views)
    return model


def main(start, end):
    use_all_devices()
    start = dict(np.load(start, allow_pickle=False))
    keras.config.set_floatx(str(start["floatx"]))
    views = start["a"], start["b"]
    model = new_model(views, start["augmented"])
    weights = [variable for variable in model.weights if "seed" not in variable.path]
    for index, variable in enumerate(weights):
        variable.assign(start[f"weight{index}"])
    optimizer = SGD(0.01)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, jit_compile=compile_with_xla())
    results = {"devices": number_of_devices(), "losses": []}
    for step in range(3):
        model.reset_metrics()
        results["losses"].append(float(model.train_on_batch(views, return_dict=True)["loss"]))
        for index, variable in enumerate(weights):
            results[f"weight{index} step{step}"] = ops.convert_to_numpy(variable)
    for index, gradient in enumerate(optimizer.first):
        results[f"gradient{index}"] = ops.convert_to_numpy(gradient)
    np.savez(end, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
