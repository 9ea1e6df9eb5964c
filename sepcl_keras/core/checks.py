"""What an argument must be: a number, one of some names, a tensor's shape; anything else is `BadInput`."""

import math
import numbers
import reprlib

from sepcl_keras.core.files import BadInput


def check_number(name, value, least=-math.inf, above=-math.inf, whole=False):
    """That `value` is a finite, if asked a whole, number, not less than `least` and more than `above`."""
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, kind) and not isinstance(value, bool) and least <= value < math.inf and value > above:
        return
    expected = "a whole number" if whole else "a finite number"
    bounds = [f"{word} {limit}" for word, limit in (("of at least", least), ("above", above)) if limit > -math.inf]
    raise BadInput(f"{name}={reprlib.repr(value)}: expected {' '.join([expected, *bounds])}.")


def check_choice(name, value, choices):
    """That `value` is one of the names in `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise BadInput(f"{name}={reprlib.repr(value)}: expected one of {', '.join(choices)}.")


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
