"""A network's variables, set from arrays that bear the names of another program."""

from sepcl_keras.core.checks import BadInput, array


def _without_ones(shape):
    return [size for size in shape if size != 1]


def assign(title, places, arrays):
    """Sets all variables, or none: `BadInput`, which begins with `title`, names the first array that does not fit.

    Args:
        places: dict from the other program's name to the variable and, in its order, the array's axes.
        arrays: dict from name to array; names without a place are ignored. Axes of length one do not count.
    """
    fitted = []
    for name, (variable, axes) in places.items():
        expected = tuple(variable.shape[axes.index(axis)] for axis in range(len(axes)))
        if name not in arrays:
            raise BadInput(f"{title}: {name} is missing; expected an array of shape {expected}.")
        values = array(f"{title}: {name}", arrays[name])
        if _without_ones(values.shape) != _without_ones(expected):
            raise BadInput(f"{title}: {name} has shape {values.shape}; expected {expected}.")
        fitted.append((variable, values.reshape(expected).transpose(axes)))
    for variable, values in fitted:
        variable.assign(values)
