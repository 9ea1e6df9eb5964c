"""Data sets of recordings, as they are published or as a reader has them: the clips and what is said of them."""

import dataclasses
import os
from pathlib import Path

from sepcl_keras.core.checks import BadInput, path_of
from sepcl_keras.core.files import text_of
from sepcl_keras.core.tables import cells, read_table, whole_number
from sepcl_keras.scenes.splits import split_clips

SUFFIXES = frozenset(
    [".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"]
)
FIELDS = ("filename", "labels", "split", "fold", "recording")  # columns of a reader's own table
LAYOUTS = "sound files at any depth, with a CSV file or without; ESC-50, UrbanSound8K, FSD50K, AudioSet as published"


@dataclasses.dataclass(frozen=True)
class Clip:
    """A recorded scene: its name, its file, labels (none where nobody gave any), split, and the recording it is of."""

    id: str
    path: Path
    labels: tuple[str, ...]
    split: str | int | None
    recording: str


@dataclasses.dataclass
class Listing:
    """What was recognised in a folder: clips whose files are there, and `refused`, id → why, that cannot be used."""

    name: str
    layout: str
    clips: list
    classes: tuple
    refused: dict
    notes: list

    def table(self):
        """Rows (what, how many or which), to be shown beside every result."""
        listed = {clip.id for clip in self.clips} | set(self.refused)
        rows = [("recognised as", self.layout), ("clips listed", len(listed)), ("refused", len(self.refused))]
        kinds = {}
        for why in self.refused.values():
            kinds[why] = kinds.get(why, 0) + 1
        rows += [(f"refused: {why}", number) for why, number in sorted(kinds.items())]
        rows += [("labels", f"{len(self.classes)} classes" if self.classes else "none")]
        for split in ("train", "validation", "test"):
            rows.append((split, sum(clip.split == split for clip in self.clips)))
        return rows + [("note", note) for note in self.notes]


def open_recordings(folder, labels=None, columns=None, spanning=None):
    """The `Listing` of a folder: UrbanSound8K, FSD50K or AudioSet as published, sounds with a CSV file, or just sounds.

    Args:
        folder: path. In it, at any depth, lie sound files; hidden files are passed over.
        labels: "subfolders" where the names of the folders that hold the sounds are their labels; by default what the
            environment variable `SEPCL_LABELS` says.
        columns: for a CSV file whose columns have other names than `FIELDS`: a dict from ours to its, or text such as
            "filename=file,labels=tags"; by default what `SEPCL_COLUMNS` says. Several labels in a cell are separated by
            a comma or a semicolon.
        spanning: see `split_clips`.

    Raises `BadInput` for what is no such folder, and for a table that contradicts itself.
    """
    folder = path_of("DATA", folder)
    if not folder.is_dir():
        raise BadInput(f'DATA={str(folder)!r}: expected "made" or a folder; these are taken: {LAYOUTS}.')
    labels = labels or os.environ.get("SEPCL_LABELS") or None
    if labels not in (None, "subfolders"):
        raise BadInput(f"SEPCL_LABELS={labels!r}: expected subfolders, or nothing.")
    columns = _columns(columns or os.environ.get("SEPCL_COLUMNS") or {})
    files, unread = sound_files(folder)
    if not files:
        why = "".join(f"; {name}: {reason}" for name, reason in unread.items())
        raise BadInput(
            f"{folder}: expected sound files ({', '.join(sorted(SUFFIXES))}), but found none at any depth{why}."
        )
    for recognise in (_urbansound8k, _fsd50k, _audioset):
        if found := recognise(folder, files):
            break
    else:
        found = _own(folder, files, labels, columns)
    layout, clips, classes, refused, notes = found
    if not clips:
        why = next(iter(refused.values()), "the table is empty")
        raise BadInput(f"{folder}: none of the {len(refused)} clips listed is here ({why}); expected some.")
    clips, _, more = split_clips(clips, folder, spanning)
    return Listing(text_of(folder.resolve().name), layout, clips, tuple(classes), refused | unread, notes + more)


def sound_files(folder):
    """The sound files in a folder, at any depth, but for hidden ones.

    Returns two dicts, sorted, from the path within the folder, as text with slashes: to the path of each file; and to
    the reason why of each folder that was not looked into.
    """
    found, unread = {}, {}

    def text(path):
        return text_of(Path(path).relative_to(folder).as_posix())

    def refuse(error):
        unread[text(error.filename)] = f"a folder that cannot be listed ({error.strerror})"

    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [Path(where, name) for name in folders if os.path.islink(os.path.join(where, name))]
        unread |= {text(path): "a link to a folder, which is not followed" for path in links}
        for path in (Path(where, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in SUFFIXES:
                if text(path) in found:
                    raise BadInput(f"{folder}: {text(path)} stands for two files; expected names in UTF-8.")
                found[text(path)] = path
    return dict(sorted(found.items())), dict(sorted(unread.items()))


def _columns(columns):
    if isinstance(columns, str):
        pairs = [pair.partition("=") for pair in columns.split(",")]
        columns = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    for ours, theirs in columns.items():
        if ours not in FIELDS or not theirs:
            raise BadInput(f"SEPCL_COLUMNS: {ours}={theirs}; expected NAME=COLUMN with names of {', '.join(FIELDS)}.")
    return dict(zip(FIELDS, FIELDS)) | columns


class _Clips:
    """Clips of a table, gathered row by row: each id once, each with its file or the reason why not."""

    def __init__(self, table):
        self.table, self.clips, self.refused, self._rows = table, [], {}, {}

    def add(self, line, name, path, labels, split, recording):
        """Adds a clip; `path` None says that its file is not there. A row that is there twice counts once."""
        row = (labels, split, recording)
        if name in self._rows and self._rows[name] != row:
            raise BadInput(f"{self.table}, line {line}: expected {name} once, but an earlier row says otherwise of it.")
        if path is None:
            self.refused[name] = "listed, but no sound file of its name is here"
        elif name not in self._rows:
            self.clips.append(Clip(name, path, labels, split, recording))
        self._rows[name] = row


def _urbansound8k(folder, files):
    table = folder / "metadata" / "UrbanSound8K.csv"
    if not os.path.isfile(table):  # which, unlike is_file, takes a folder that we may not enter
        return None
    found = _Clips(table)
    for line, row in read_table(table, ("slice_file_name", "fsID", "fold", "class")):
        fold = whole_number(table, line, row, "fold")
        path = files.get(f"audio/fold{fold}/{row['slice_file_name']}")
        found.add(line, row["slice_file_name"], path, (row["class"],), fold, row["fsID"])
    return "UrbanSound8K", found.clips, _classes(found.clips), found.refused, []


def _fsd50k(folder, files):
    tables = folder / "FSD50K.ground_truth"
    dev, held_out, words = (tables / name for name in ("dev.csv", "eval.csv", "vocabulary.csv"))
    if not (os.path.isfile(dev) and os.path.isfile(held_out)):
        return None
    known = None
    if words.is_file():  # which has no header
        known = [row["name"] for _, row in read_table(words, ("name",), header=("index", "name", "mid"))]
    found, by_stem = _Clips(dev), {name.rpartition(".")[0]: path for name, path in files.items()}
    for table, sounds in ((dev, "FSD50K.dev_audio"), (held_out, "FSD50K.eval_audio")):
        found.table, needed = table, ("fname", "labels", "split") if table == dev else ("fname", "labels")
        for line, row in read_table(table, needed):
            labels = tuple(row["labels"].split(","))
            if known is not None and (strange := set(labels) - set(known)):
                raise BadInput(f"{table}, line {line}: expected labels of {words.name}, not {sorted(strange)[0]!r}.")
            path = by_stem.get(f"{sounds}/{row['fname']}")
            found.add(line, row["fname"], path, labels, row["split"] if table == dev else "eval", row["fname"])
    return "FSD50K", found.clips, known or _classes(found.clips), found.refused, []


def _audioset(folder, files):
    tables = {path: path.name for path in sorted(folder.rglob("*_segments.csv"))}
    if not tables:
        return None
    vocabulary = next(iter(sorted(folder.rglob("class_labels_indices.csv"))), None)
    names = None
    if vocabulary:
        names = {row["mid"]: row["display_name"] for _, row in read_table(vocabulary, ("mid", "display_name"))}
    by_stem = {}
    for path in files.values():
        by_stem.setdefault(path.stem, path)
    found = _Clips(None)
    for table, name in tables.items():
        found.table, split = table, "eval" if name.startswith("eval") else "train"
        for line, row in read_table(table, ("id", "start", "end", "mids"), header=("id", "start", "end", "mids")):
            mids = row["mids"].strip('"').split(",")
            try:
                begin, end = float(row["start"]), float(row["end"])
                labels = tuple(names[mid] for mid in mids) if names else tuple(mids)
            except ValueError:
                times = f"{row['start']!r}, {row['end']!r}"
                raise BadInput(f"{table}, line {line}: expected seconds, not {times}.") from None
            except KeyError as error:
                raise BadInput(f"{table}, line {line}: expected labels of {vocabulary.name}, not {error}.") from None
            path = next((by_stem[stem] for stem in _audioset_stems(row["id"], begin, end) if stem in by_stem), None)
            found.add(line, f"{row['id']}_{begin:g}", path, labels, split, row["id"])
    return "AudioSet", found.clips, list(names.values()) if names else _classes(found.clips), found.refused, []


def _audioset_stems(name, begin, end):
    """How those who download AudioSet name the file of a clip, without its ending."""
    a, b = begin * 1000, end * 1000
    ends = ["", f"_{begin:.0f}_{end:.0f}", f"_{a:.0f}_{b:.0f}", f"_{a:.0f}", f"_{begin:.0f}", f"-{begin:.0f}-{end:.0f}"]
    ends += [f"_{begin:.3f}", f"_{begin:.3f}_{end:.3f}", f"_{begin:.1f}_{end:.1f}"]
    return [start + name + rest for start in ("", "Y") for rest in ends]


def _own(folder, files, labels, columns):
    """A reader's own sounds: with a table where there is one, else each file a recording of its own."""
    found = {path: next(iter(cells(path)), (0, []))[1] for path in sorted(folder.glob("*.csv"))}
    tables = [path for path, names in found.items() if columns["filename"] in names]
    notes = [
        f"{path.name} has no column {columns['filename']} and was not read (SEPCL_COLUMNS=filename=... names one)"
        for path in sorted(set(found) - set(tables))
    ]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise BadInput(f"{folder}: {names} each have a column {columns['filename']}; expected one table of the sounds.")
    if tables:
        return _with_table(folder, files, tables[0], columns, notes)
    if columns["filename"] != "filename":
        raise BadInput(f"{folder}: expected a CSV file with a column {columns['filename']}, as SEPCL_COLUMNS says.")
    clips = []
    for name, path in files.items():
        given = (text_of(path.parent.name),) if labels and path.parent != folder else ()
        if labels and not given:
            raise BadInput(f"{path}: expected a folder around it that names its label, by SEPCL_LABELS=subfolders.")
        clips.append(Clip(name, path, given, None, name))
    if not labels and len({path.parent for path in files.values()}) > 1:
        notes.append("names of subfolders were not taken as labels (SEPCL_LABELS=subfolders takes them)")
    layout = f"a folder of {len(clips)} sound files, {'their folders as labels' if labels else 'without labels'}"
    return layout, clips, _classes(clips), {}, notes


def _with_table(folder, files, table, columns, notes):
    by_name, found, used = {}, _Clips(table), set()
    for path in files.values():
        by_name.setdefault(text_of(path.name), []).append(path)
    for line, row in read_table(table, (columns["filename"],)):
        name = row[columns["filename"]]
        several = [files[name]] if name in files else by_name.get(name, [])
        if len(several) > 1:
            raise BadInput(
                f"{table}, line {line}: {len(several)} files are called {name}; expected a path in {folder}."
            )
        words = row.get(columns["labels"], "").replace(";", ",").split(",")
        split, fold = row.get(columns["split"]), row.get(columns["fold"])
        if fold and not split:
            split = whole_number(table, line, row, columns["fold"])
        labels = tuple(word.strip() for word in words if word.strip())
        split = None if split == "" else split
        found.add(line, name, next(iter(several), None), labels, split, row.get(columns["recording"]) or name)
        used.update(several)
    splits = {clip.split for clip in found.clips}
    if None in splits and len(splits) > 1:
        raise BadInput(f"{table}: expected a split or fold for each clip or for none, but some cells are empty.")
    unused = len(files) - len(used)
    notes += [f"{unused} sound files are not in {table.name}"] if unused else []
    return f"a folder with {table.name}", found.clips, _classes(found.clips), found.refused, notes


def _classes(clips):
    return sorted({label for clip in clips for label in clip.labels})
