#!/usr/bin/env bash
# Keras: a frozen encoder of one's own class comes back from a .keras file with
# `trainable == False`, and is trained all the same.
#
# Expected: encoder.trainable = False, a head on top, save, load: the loaded
#   model goes on training the head alone, as the one that was saved did. If the flag
#   were lost, encoder.trainable would at least say True.
# Seen: the flag is stored for the encoder as a whole and handed to its constructor,
#   which sets it before the layers inside exist. The loaded encoder says
#   trainable False, yet all of its weights are among the outer model's
#   trainable_variables, and fit changes them. keras.models.clone_model does the same.
#   No warning. It hits any Layer or Model subclass that makes its layers itself and
#   passes **kwargs on, which is how the guide on serialization has it.
# Controls: (a) the model before it was saved: fit leaves the encoder as it is;
#   (b) an encoder of the same layers made by keras.Sequential stays frozen after
#   loading (it is its layers that keep the flag; the encoder itself says True).
# What helps: set encoder.trainable = False once more after loading (the setter goes
#   down to the layers inside), or do so in the class's from_config.
# Versions: keras 3.15.1 (on jax 0.10.2; the other backends alike). Python 3.11 to 3.13.
# Source: keras/src/layers/layer.py, Layer.__init__ (`self._trainable = trainable`, line
#   312) against the setter `trainable`, which goes down. Kin of keras issue 9589 (2018).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
pins="absl-py==2.5.1 h5py==3.16.0 jax==0.10.2 jaxlib==0.10.2 keras==3.15.1 markdown-it-py==4.3.0
  mdurl==0.1.2 ml_dtypes==0.6.0 namex==0.1.0 numpy==2.3.5 opt_einsum==3.4.0 optree==0.20.0
  packaging==26.4 Pygments==2.21.0 rich==15.0.0 scipy==1.17.1 typing_extensions==4.16.0"
# shellcheck disable=SC2086
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: $pins
cd "$work"
export PYTHONNOUSERSITE=1 TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= KERAS_HOME="$work"
cat > check.py <<'PY'
import keras
import numpy as np


@keras.saving.register_keras_serializable()
class Encoder(keras.layers.Layer):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first, self.second = keras.layers.Dense(units, activation="tanh"), keras.layers.Dense(units)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, self.units))

    def call(self, x):
        return self.second(self.first(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 8)).astype("float32"), rng.normal(size=(64, 1)).astype("float32")


def moved_by_fit(model):
    """How far the encoder's weights move in an epoch, and what it says of itself."""
    encoder = model.layers[-2]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = [w.copy() for w in encoder.get_weights()]
    model.fit(x, y, verbose=0)
    moved = max(np.abs(a - b).max() for a, b in zip(encoder.get_weights(), before))
    return encoder.trainable, len(model.trainable_variables), float(moved)


def check(encoder):
    encoder.trainable = False
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(1)(encoder(inputs)))
    model.save("model.keras")
    return [moved_by_fit(m) for m in (model, keras.saving.load_model("model.keras"), keras.models.clone_model(model))]


print("keras", keras.__version__, "on", keras.backend.backend())
own = check(Encoder())
plain = check(keras.Sequential([keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(4)]))
for name, rows in (("an encoder of one's own class", own), ("the same layers in a Sequential", plain)):
    print(name)
    for what, (flag, number, moved) in zip(("as saved", "loaded", "cloned"), rows):
        print(f"  {what:9s} encoder.trainable {flag}, trainable variables {number}, moved by fit {moved:.4f}")
assert own[0] == (False, 2, 0.0), own[0]
for row in plain:
    assert row[1:] == (2, 0.0), plain
for flag, number, moved in own[1:]:
    assert flag is False and number == 6 and moved > 1e-3, own
print("As described: the loaded encoder calls itself frozen, and is trained.")
PY
KERAS_BACKEND=jax "$work/venv/bin/python" check.py
