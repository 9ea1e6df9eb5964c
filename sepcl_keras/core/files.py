"""Writes that are whole or nothing, JSON, fingerprints, progress."""

import contextlib
import glob
import hashlib
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from sepcl_keras.core.checks import BadInput, path_of


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

    The temporary name keeps the suffix, because Keras and NumPy choose a format by it. What a run that was killed left
    of such files is removed. A full disk, or a folder that cannot be written, is BadInput.
    """
    path = path_of("path", path)
    ours = f".{path.stem[:40]}-{platform.node()}-"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(ours)}*{glob.escape(path.suffix)}"):
            if not _is_running(left.name[len(ours) :].partition("-")[0]):
                left.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{ours}{os.getpid()}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        # mkstemp makes private files; what the reader keeps should follow the folder's usual rights.
        mask = os.umask(0)
        os.umask(mask)
        try:
            os.chmod(name, 0o666 & ~mask)
            yield Path(name)
            with open(name, "r+b") as file:  # Windows wants to write where it is to empty a buffer
                os.fsync(file.fileno())  # or the name could be on disk, after a power cut, and the content not
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


def _is_running(process):
    """Whether a process of this number, in letters, is there; where that cannot be asked without harm, yes."""
    if os.name != "posix" or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def text_of(path):
    """A path as text that any file can hold: bytes of a name that are no UTF-8 become \\x and two digits."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_json(path, content):
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path, kind=object):
    """What a JSON file holds, or `BadInput` where it cannot be read or is not of this kind, such as `dict`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: expected a readable JSON file ({error}).") from None
    if not isinstance(content, kind):
        raise BadInput(f"{path}: holds {json.dumps(content)[:40]}; expected a JSON {kind.__name__}; delete its folder.")
    return content


def fingerprint(definition):
    """Twelve hexadecimal digits that stand for `definition`, any nest of dicts, lists, numbers and strings."""
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def progress(iterable, title, unit, show=True, **more):
    """A progress bar on standard output: a notebook shows what goes to standard error as if something were wrong.

    `more`: what tqdm takes besides, such as the total of what comes without an iterable.
    """
    return tqdm(iterable, title, unit=unit, disable=not show, file=sys.stdout, mininterval=2.0, **more)
