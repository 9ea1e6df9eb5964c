"""One kind of error for bad input, what finds it, writes that are whole or nothing, fingerprints, progress."""

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm


class BadInput(ValueError):
    """Something the reader gave cannot be used; the message is one sentence with its name and what was expected."""


def array(name, values):
    """`values`, a nest of numbers or any library's tensor, as NumPy's array of real numbers, or `BadInput`."""
    try:
        values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)  # torch's, with a gradient
    except Exception as error:  # each library has its own for what is ragged or cannot leave its device
        kind = type(error).__name__
        raise BadInput(f"{name}: expected numbers in an array, its rows of one length (NumPy met a {kind}).") from None
    if values.dtype.name == "bfloat16":  # which NumPy writes to files as bytes without a type
        values = values.astype("float32")
    if values.dtype.kind not in "biuf":
        raise BadInput(f"{name} of {values.dtype}: expected real numbers.")
    return values


def numbers(name, values, axes, dtype=np.float64):
    """`values` as a finite array with the named `axes`, none of them empty, or `BadInput`."""
    values = array(name, values)
    if values.ndim != len(axes) or 0 in values.shape:
        raise BadInput(f"{name} of shape {values.shape}: expected ({', '.join(axes)}), none of them empty.")
    with np.errstate(over="ignore"):
        values = values.astype(dtype, copy=False)
    if not np.isfinite(values).all():
        raise BadInput(f"{name} with NaN or infinity: expected finite numbers only.")
    return values


def one_of(name, value, known):
    """`value`, one of the words in `known`, or `BadInput`."""
    if not isinstance(value, str) or value not in known:
        raise BadInput(f"{name}={value!r}: expected one of {', '.join(known)}.")
    return value


def path_of(name, value):
    """`value`, text or an `os.PathLike`, as a `Path`, whose `~` is the home folder; `BadInput` for what can be none."""
    shown = repr(value)
    shown = shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-50:]}"
    if not isinstance(value, (str, os.PathLike)) or value == "":
        raise BadInput(f"{name}={shown}: expected a path, as text or a pathlib.Path.")
    try:
        path = Path(value)
        with contextlib.suppress(RuntimeError):  # no user of that name: a file may begin with ~ too
            path = path.expanduser()
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # what is not there yet
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{name}={shown}: expected a path that the system takes ({reason}).") from None
    return path


@contextlib.contextmanager
def writing(path, *errors):
    """Inside, what the file system refuses (no room, no right) is BadInput with the name of `path`.

    `errors`: the classes that a library has for it, besides `OSError`.
    """
    try:
        yield
    except (OSError, *errors) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise BadInput(f"{path}: cannot be written ({reason}); expected a folder with room that is ours.") from None


@contextlib.contextmanager
def atomic(path):
    """Gives a temporary path beside `path`, moved onto it at the end; on an error `path` stays as before.

    The temporary name keeps the suffix, because Keras and NumPy choose a format by it. A full disk, or a folder that
    cannot be written, is BadInput.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        # mkstemp makes private files; what the reader keeps should follow the folder's usual rights.
        mask = os.umask(0)
        os.umask(mask)
        try:
            os.chmod(name, 0o666 & ~mask)
            yield Path(name)
            with open(name, "rb") as file:
                os.fsync(file.fileno())  # or the name could be on disk, after a power cut, and the content not
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


def write_json(path, content):
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: expected a readable JSON file ({error}).") from None


def fingerprint(definition):
    """Twelve hexadecimal digits that stand for `definition`, any nest of dicts, lists, numbers and strings."""
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def progress(iterable, title, unit, show=True):
    """A progress bar on standard output: a notebook shows what goes to standard error as if something were wrong."""
    return tqdm(iterable, title, unit=unit, disable=not show, file=sys.stdout, mininterval=2.0)
