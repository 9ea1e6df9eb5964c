"""Training, validation and test clips: by published splits or folds, or anew, no recording in two of them."""

import dataclasses
import os
import zlib

from sepcl_keras.core.checks import BadInput, one_of

SPLITS = ("train", "validation", "test")
SPANNING = ("leave out", "keep", "split anew")  # what to do with recordings that span splits
WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
FOLDS_ANEW = 5  # of clips without splits: a fifth each for testing and validation


def split_clips(clips, title, spanning=None):
    """Gives each clip its split, and returns (clips, what was done with recordings that span splits, sentences).

    Args:
        clips: of one data set, their `split` a whole number (a fold: the last is for testing, the one before for
            validation), a word such as train, val or eval, or None for all: then recordings are dealt out.
        title: of the data set or its table, for messages.
        spanning: one of `SPANNING`, by default what the environment variable `SEPCL_SPANNING` says, else the first.
            Clips of recordings that are in several splits would be heard in training and tested on. "leave out" keeps
            of such a recording the clips for testing, else those for validation; "keep" all, as they were published;
            "split anew" deals out all recordings, class by class in an order that their names give.
    """
    how = one_of("SEPCL_SPANNING", spanning or os.environ.get("SEPCL_SPANNING", SPANNING[0]), SPANNING)
    found = {clip.split for clip in clips}
    folds = sorted(found - {None}) if all(isinstance(split, int) for split in found) else []
    if found == {None}:
        clips, notes = _deal(clips, FOLDS_ANEW), ["no splits were published: recordings were dealt out, none in two"]
        return _all_there(clips, title), None, notes
    if folds:
        if len(folds) < 3:
            raise BadInput(f"{title}: expected at least 3 folds to train, validate and test, but found {len(folds)}.")
        words = dict.fromkeys(folds, "train") | {folds[-2]: "validation", folds[-1]: "test"}
    else:
        words = WORDS
        if unknown := sorted({str(split) for split in found if str(split).lower() not in WORDS}):
            raise BadInput(f"{title}: split {unknown[0]!r}; expected whole numbers, or one of {', '.join(WORDS)}.")
    clips, notes = [_replace(clip, words[clip.split if folds else clip.split.lower()]) for clip in clips], []
    if "validation" not in {clip.split for clip in clips}:
        training = {clip.recording for clip in clips if clip.split == "train"}
        held = sorted(training, key=lambda name: (zlib.crc32(name.encode()), name))[: max(1, len(training) // 10)]
        held = {(recording, "train") for recording in held}
        clips = [_replace(clip, "validation") if (clip.recording, clip.split) in held else clip for clip in clips]
        notes.append("no validation clips were published: a tenth of the training recordings was taken")
    splits = {}
    for clip in clips:
        splits.setdefault(clip.recording, set()).add(clip.split)
    across = {recording for recording, names in splits.items() if len(names) > 1}
    if not across:
        return _all_there(clips, title), None, notes
    number = sum(clip.recording in across for clip in clips)
    notes.append(
        f"{number} of {len(clips)} clips are of {len(across)} recordings that are in more than one split "
        f"(SEPCL_SPANNING={how!r}; others: {', '.join(other for other in SPANNING if other != how)})"
    )
    if how == "split anew":
        clips = _deal(clips, max(len(folds), FOLDS_ANEW) if not folds else len(folds))
    elif how == "leave out":
        last = {recording: max(names, key=SPLITS.index) for recording, names in splits.items()}
        clips = [clip for clip in clips if clip.split == last[clip.recording]]
    return _all_there(clips, title), how, notes


def _replace(clip, split):
    return dataclasses.replace(clip, split=split)


def _all_there(clips, title):
    for split in SPLITS:
        if not any(clip.split == split for clip in clips):
            raise BadInput(f"{title}: no clip is left in {split}; expected some in each of {', '.join(SPLITS)}.")
    return clips


def _deal(clips, folds):
    """The clips split anew: a fold's share of each class for testing, as much for validation, no recording in two."""
    label_of, split_of = {}, {}
    for clip in clips:
        label_of.setdefault(clip.recording, clip.labels[0] if clip.labels else None)
    for label in dict.fromkeys(label_of.values()):
        recordings = sorted((r for r in label_of if label_of[r] == label), key=lambda r: (zlib.crc32(r.encode()), r))
        share = max(1, round(len(recordings) / folds))
        for index, recording in enumerate(recordings):
            # The first goes to training, so that a class of one recording is learned at all.
            split_of[recording] = "test" if 0 < index <= share else "validation" if 0 < index <= 2 * share else "train"
    return [_replace(clip, split_of[clip.recording]) for clip in clips]
