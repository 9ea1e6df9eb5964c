"""Fetches a public data set: python data/fetch.py esc50|urbansound8k|fsd50k [OUT] [--from FILE|FOLDER|URL ...].

Downloads its archives, checks and unpacks them, and leaves OUT/ESC-50, OUT/UrbanSound8K or OUT/FSD50K: whole or not at
all. Stopped, it goes on where it was when it is run again.
"""

import argparse
import dataclasses
import hashlib
import itertools
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from archives import unpack
from downloads import download

from sepcl_keras.core.checks import BadInput, path_of
from sepcl_keras.core.files import progress, write_json, writing
from sepcl_keras.core.folders import atomic_folder

HERE = Path(__file__).resolve().parent
RECORD = "fetched.json"  # in the data set's folder: what it was made from
GIB3 = 3 * 1024**3


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A public data set and what is known of it.

    home: address of a part, with {} for its name. parts: name → bytes and checksum; those of one archive follow one
    another, its `.zip` last. holds: what lies in the data set's folder. clips: number of its wav files. room: bytes
    that it may take unpacked; ours, above what it is known to take.
    """

    folder: str
    home: str
    parts: dict
    holds: tuple
    clips: int
    room: int


# Zenodo publishes MD5 only, GitHub nothing. Where others have published the SHA-256 of the same bytes, that is checked:
# ESC-50's is in several public projects; those of FSD50K's small archives are in fewer, beside Zenodo's MD5 or alone.
DATA_SETS = {
    "esc50": DataSet(
        "ESC-50",
        "https://github.com/karolpiczak/ESC-50/archive/{}",
        {
            "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6.zip": (
                645_832_161, "sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
            ),
        },
        ("audio", "meta/esc50.csv", "LICENSE"), 2_000, 10**9,
    ),
    "urbansound8k": DataSet(
        "UrbanSound8K",
        "https://zenodo.org/records/1203745/files/{}?download=1",
        {"UrbanSound8K.tar.gz": (6_023_741_708, "md5:9aa69802bbf37fb986f71ec1483a196e")},
        ("audio", "metadata/UrbanSound8K.csv"), 8_732, 12 * 10**9,
    ),
    "fsd50k": DataSet(
        "FSD50K",
        "https://zenodo.org/records/4060432/files/{}?download=1",
        {
            "FSD50K.doc.zip": (6_984, "sha256:a5c314ad2bf93d01b5921aa4270c70c90e28ac9a283ba9f08167490e728deb85"),
            "FSD50K.ground_truth.zip": (
                334_701, "sha256:db2396260a7b1fb06feb6ccac71685794fc89917d71c3a8d64a1de85c2cc0ebf",
            ),
            "FSD50K.metadata.zip": (
                6_700_838, "sha256:9a738e032546f9a2c6e3d04566928d04a65fb79b422cc9d78bb781723537bd19",
            ),
            "FSD50K.eval_audio.z01": (GIB3, "md5:3090670eaeecc013ca1ff84fe4442aeb"),
            "FSD50K.eval_audio.zip": (3_037_675_767, "md5:6fa47636c3a3ad5c7dfeba99f2637982"),
            "FSD50K.dev_audio.z01": (GIB3, "md5:faa7cf4cc076fc34a44a479a5ed862a3"),
            "FSD50K.dev_audio.z02": (GIB3, "md5:8f9b66153e68571164fb1315d00bc7bc"),
            "FSD50K.dev_audio.z03": (GIB3, "md5:1196ef47d267a993d30fa98af54b7159"),
            "FSD50K.dev_audio.z04": (GIB3, "md5:d088ac4e11ba53daf9f7574c11cccac9"),
            "FSD50K.dev_audio.z05": (GIB3, "md5:81356521aa159accd3c35de22da28c7f"),
            "FSD50K.dev_audio.zip": (2_306_663_327, "md5:c480d119b8f7a7e32fdb58f3ea4d6c5a"),
        },
        ("FSD50K.dev_audio", "FSD50K.eval_audio", "FSD50K.ground_truth/dev.csv", "FSD50K.ground_truth/eval.csv",
         "FSD50K.metadata", "FSD50K.doc"), 51_197, 40 * 10**9,
    ),
}  # fmt: skip


def with_sha256(data_set, given):
    """`data_set` with the checksums that a reader gives, each HEX or NAME=HEX; their parts may have any size."""
    parts = dict(data_set.parts)
    for text in given:
        name, _, digits = text.rpartition("=")
        name = name or (next(iter(parts)) if len(parts) == 1 else "")
        if name not in parts or not re.fullmatch("[0-9a-fA-F]{64}", digits):
            raise BadInput(f"--sha256 {text}: expected [NAME=]HEX, 64 digits, NAME one of {', '.join(parts)}.")
        parts[name] = (None, f"sha256:{digits.lower()}")
    return dataclasses.replace(data_set, parts=parts)


def place_of(name, data_set, given):
    """Where the part `name` comes from: a `Path`, or an address as text. given: what `--from` names, or None."""
    if given is None:
        return data_set.home.format(name)
    for text in given:
        if re.match("https?://", text):
            if text.endswith("/"):
                return text + name
            if len(data_set.parts) == 1 or urlsplit(text).path.endswith(f"/{name}"):
                return text
        elif "://" in text:
            raise BadInput(f"--from {text}: expected a file, a folder or an address that begins with http.")
        else:
            path = path_of("--from", text)
            if not path.exists():
                raise BadInput(f"--from {text}: expected a file or a folder that is there.")
            if path.is_dir() and (path / name).is_file():
                return path / name
            if path.is_file() and (path.name == name or len(data_set.parts) == 1):
                return path
    raise BadInput(f"--from: none of it is {name}; expected each of {', '.join(data_set.parts)}.")


def checked(path, size, checksum):
    """The SHA-256 of the file at `path`, which has this size, if known, and checksum; else `BadInput`."""
    kind, _, expected = checksum.partition(":")
    hashes = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    try:
        length = path.stat().st_size
        bar = progress(None, f"Checking {path.name}", "B", total=length, unit_scale=True)
        with bar, open(path, "rb") as file:
            while block := file.read(1 << 20):
                for one in hashes.values():
                    one.update(block)
                bar.update(len(block))
    except OSError as error:
        raise BadInput(f"{path}: expected a file that can be read ({error.strerror}).") from None
    found = {key: one.hexdigest() for key, one in hashes.items()}
    if size is not None and length != size:
        raise BadInput(f"{path}: {length:,} bytes long (sha256 {found['sha256']}); expected {size:,}.")
    if found[kind] != expected:
        other = f"--sha256 {path.name}={found['sha256']}"
        raise BadInput(f"{path}: {kind} {found[kind]}; expected {expected}, or {other} if it is the file meant.")
    return found["sha256"]


def root_of(folder, data_set):
    """The folder, `folder` or one in it, that holds the whole data set."""
    for root in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if all((root / name).exists() for name in data_set.holds):
            clips = sum(path.suffix == ".wav" and not path.name.startswith(".") for path in root.rglob("*"))
            if clips != data_set.clips:
                raise BadInput(f"{data_set.folder}: {clips:,} wav files; expected {data_set.clips:,}.")
            return root
    raise BadInput(f"{data_set.folder}: expected {', '.join(data_set.holds)} in its archives.")


def is_there(folder):
    """Whether the data set is in `folder` already; `BadInput` where something else is."""
    if (folder / RECORD).is_file():
        print(f"{folder}: there already, nothing to do.")
        return True
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BadInput(f"{folder}: there already, without {RECORD}; expected no folder of that name, or another OUT.")
    return False


def fetch(name, out, given=None, sha256=()):
    """Leaves the data set `name` in its folder in `out`, as the module says; `given`, `sha256`: --from, --sha256."""
    data_set = with_sha256(DATA_SETS[name], sha256)
    places = {part: place_of(part, data_set, given) for part in data_set.parts}
    folder = path_of("OUT", out) / data_set.folder
    if is_there(folder):
        return
    store, record, paths = folder.with_name(f".{folder.name}.archives"), {}, {}
    with atomic_folder(folder, name) as content:
        if is_there(folder):  # since: by a run that this one has waited for
            return
        for part, (size, checksum) in data_set.parts.items():
            place = paths[part] = places[part]
            if not isinstance(place, Path):
                with writing(store):
                    store.mkdir(parents=True, exist_ok=True)
                paths[part] = store / part
                if not paths[part].exists():
                    download(place, paths[part], size)
            try:
                found = checked(paths[part], size, checksum)
            except BadInput:
                if paths[part].parent == store:  # the next run is not to find it again
                    paths[part].unlink(missing_ok=True)
                raise
            length = paths[part].stat().st_size
            record[part] = {"from": str(place), "bytes": length, "sha256": found, "checked": checksum}
        unpacked, room = content.with_name("unpacked"), data_set.room
        with writing(unpacked):
            shutil.rmtree(unpacked, ignore_errors=True)
            unpacked.mkdir()
        for _, group in itertools.groupby(data_set.parts, lambda part: Path(part).stem):
            room -= unpack([paths[part] for part in group], unpacked, room)
        root = root_of(unpacked, data_set)
        write_json(root / RECORD, record)
        with writing(folder):
            content.rmdir()
            os.replace(root, content)
    shutil.rmtree(store, ignore_errors=True)
    print(f"{folder}: {data_set.clips:,} clips.")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATA_SETS)
    parser.add_argument("out", nargs="?", default=HERE, help="folder that gets the data set's; default data/")
    parser.add_argument("--from", dest="given", nargs="+", help="archives: files, folders of them, URLs")
    parser.add_argument(
        "--sha256",
        nargs="+",
        default=(),
        help="[NAME=]HEX: accept an archive with this SHA-256 in place of the known one",
    )
    options = parser.parse_args(arguments)
    try:
        fetch(options.name, options.out, options.given, options.sha256)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; what came is kept, and the next run goes on from there.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
