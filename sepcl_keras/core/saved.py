"""Networks in `.keras` files: saved whole or not at all, loaded without running what a file holds."""

import json
import zipfile

import keras

from sepcl_keras.core.checks import BadInput, path_of, reason_of
from sepcl_keras.core.files import atomic


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
