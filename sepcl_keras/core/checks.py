"""One kind of error for bad input, and what finds it: what an argument must be, else `BadInput`."""

import contextlib
import math
import numbers as kinds
import os
import reprlib
import warnings
from pathlib import Path

import numpy as np


class BadInput(ValueError):
    """Something the reader gave cannot be used; the message is one sentence with its name and what was expected."""


def reason_of(error):
    """The first line of what an exception says, to be put in brackets."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


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


LOUDEST = 16.0  # a peak above this is no float sample in [-1, 1], but an integer


def warn_if_loud(name, peak):
    """Warns where the largest magnitude of samples lies far outside of [-1, 1]."""
    if peak > LOUDEST:
        warnings.warn(f"{name}: samples up to {peak:g}; expected floats in the range -1 to 1.", stacklevel=3)


def one_of(name, value, known):
    """`value`, one of the words in `known`, or `BadInput`."""
    if not isinstance(value, str) or value not in known:
        raise BadInput(f"{name}={reprlib.repr(value)}: expected one of {', '.join(known)}.")
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


def check_number(name, value, least=-math.inf, above=-math.inf, whole=False):
    """That `value` is a finite, if asked a whole, number, not less than `least` and more than `above`."""
    kind = kinds.Integral if whole else kinds.Real
    if isinstance(value, kind) and not isinstance(value, bool) and least <= value < math.inf and value > above:
        return
    expected = "a whole number" if whole else "a finite number"
    bounds = [f"{word} {limit}" for word, limit in (("of at least", least), ("above", above)) if limit > -math.inf]
    raise BadInput(f"{name}={reprlib.repr(value)}: expected {' '.join([expected, *bounds])}.")


def check_axes(name, shape, *axes):
    """That a tensor's shape has these axes: a name stands for any length, a number itself, as far as it is known."""
    shape = tuple(shape)
    lengths = zip(axes, shape, strict=False)
    if len(shape) != len(axes) or any(isinstance(axis, int) and length not in (axis, None) for axis, length in lengths):
        raise BadInput(f"{name} of shape {shape}; expected ({', '.join(map(str, axes))}).")


def check_alike(name, *shapes):
    """That shapes are the same, as far as they are known."""
    shapes = [tuple(shape) for shape in shapes]
    if len({len(shape) for shape in shapes}) > 1 or any(len({*lengths} - {None}) > 1 for lengths in zip(*shapes)):
        raise BadInput(f"{name} of shapes {' and '.join(map(str, shapes))}; expected the same for all.")
