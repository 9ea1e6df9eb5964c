"""Networks in `.keras` files: saved whole or not at all, loaded without running what a file holds."""

import json
import zipfile

import keras

from sepcl_keras.core.checks import BadInput, path_of, reason_of
from sepcl_keras.core.files import atomic


class Network(keras.Model):
    """A Keras model of one class of network, whose config says which of its layers are frozen, at any depth.

    Keras keeps `trainable` of the network alone, tells it to the constructor, before there are layers, and forgets that
    of layers within. A subclass calls `freeze` at the end of its `build`.
    """

    _frozen = ()  # names of layers, such as "conv_block1/bn1"

    def get_config(self):
        frozen = [name for name, layer in _within(self) if not layer.trainable] if self.trainable else []
        return super().get_config() | ({"frozen": frozen} if frozen else {})

    @classmethod
    def from_config(cls, config):
        network = super().from_config({key: value for key, value in config.items() if key != "frozen"})
        network._frozen = tuple(config.get("frozen", ()))
        return network

    def freeze(self):
        """Freezes all layers of a network that is frozen, else those that its config named."""
        layers = dict(_within(self))
        unknown = [name for name in self._frozen if name not in layers]
        if unknown:
            raise BadInput(f"{type(self).__name__}: frozen={unknown}; expected names of its layers.")
        if self._frozen or not self.trainable:
            for name, layer in layers.items():  # a layer's own word comes after that of the one it is in
                layer.trainable = self.trainable and name not in self._frozen


def _within(layer, before=""):
    """Names and layers in a layer, each before those in it."""
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield before + inner.name, inner
        yield from _within(inner, f"{before}{inner.name}/")


def save_model(model, path):
    """Saves a network as `path`, a `.keras` file, whole or not at all; a disk without room is BadInput."""
    with atomic(path) as temporary:
        model.save(temporary)


def load_model(path, kind):
    """The network of the class `kind` in a `.keras` file, on whichever backend Keras runs.

    The file is read in Keras' safe mode and may hold no other class of network, so nothing in it is executed. One that
    is missing or damaged, or holds another network, is `BadInput`.
    """
    path = path_of("path", path)
    if not path.is_file():
        raise BadInput(f"{path}: expected the .keras file of a {kind.__name__}, but there is none.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # Keras takes weights whose checksum is wrong
            if damaged:
                raise zipfile.BadZipFile(f"Bad checksum of {damaged}")
            config = json.loads(archive.read("config.json"))
        found = config["registered_name"] or config["class_name"]  # Keras' own classes are not registered
        # Before Keras sees it: building another model first, to refuse it then, would be a way in.
        if found == keras.saving.get_registered_name(kind):
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a file can be broken in more ways than zip, JSON, Keras and HDF5 have names for
        raise BadInput(
            f"{path}: expected a whole .keras file of a {kind.__name__}, but reading it failed ({reason_of(error)})."
        ) from None
    raise BadInput(f"{path}: holds {found}; expected a {kind.__name__}.")
