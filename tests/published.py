"""Small data sets in the layouts of published ones, made of made sounds, with the traps that the published ones have.

    python tests/published.py fsd50k FOLDER

makes one, to be opened by `make tutorial PROFILE=smoke DATA=FOLDER`.
"""

import argparse
import json
import pathlib

import numpy as np
import soundfile

from sepcl_keras.scenes import made_sounds

RATE = 16_000
KINDS = {}  # filled below: name → function of an empty folder


def sound(number, seconds=4.0, rate=RATE):
    """A made event in a little noise (samples,), and the class it is of."""
    label = made_sounds.CLASSES[number % 6]
    event = made_sounds.make_event(label, (9, number), rate)
    noise = np.random.default_rng(number).normal(0, 1e-3, round(seconds * rate))
    size = min(len(event), len(noise))
    noise[:size] += 0.3 * event[:size] / np.abs(event).max()
    return noise.astype("float32"), label


def save(path, waveform, rate=RATE, **kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate, **kind)


def write_csv(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def kind(make):
    KINDS[make.__name__] = make
    return make


@kind
def field(folder, number=90):
    """Recordings without labels, in folders of their days, of several formats and lengths; one of them is no sound."""
    for k in range(number):
        ending, rate = ((".wav", RATE), (".flac", 22_050), (".ogg", 44_100))[k % 3]
        save(folder / f"day {k % 4}" / f"{k:03}{ending}", sound(k, (2.0, 5.0, 13.0)[k % 3], rate)[0], rate)
    (folder / "day 0" / "notes.txt").write_text("no sound")
    (folder / "day 1" / "broken.wav").write_bytes(b"RIFF, or so it says")


@kind
def subfolders(folder, number=90):
    """The labels of recordings are the names of their folders."""
    for k in range(number):
        waveform, label = sound(k)
        save(folder / label / f"{k}.wav", waveform)


@kind
def table(folder, number=90):
    """A table beside the sounds: several labels in a cell, splits, one recording in two splits."""
    lines = ["filename;labels;split;recording"]
    for k in range(number):
        waveform, label = sound(k)
        save(folder / "clips" / f"{k}.wav", waveform)
        split = "test" if k % 5 == 0 else "val" if k % 5 == 1 else "train"
        lines.append(f"clips/{k}.wav;{label},{'indoors' if k % 2 else 'outdoors'};{split};{k if k > 1 else 'one'}")
    write_csv(folder / "clips.csv", lines)


@kind
def urbansound8k(folder, number=120):
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for k in range(number):
        waveform, label = sound(k, (0.05, 1.0, 4.0)[min(k, 1) + (k % 7 > 0)])  # clip 0 lasts 0.05 s
        fold, rate = k // 2 % 10 + 1, (RATE, 44_100, 96_000)[k % 3]
        name = f"{1000 + k // 2}-{k % 6}-{k % 2}-0.wav"
        lines.append(f"{name},{1000 + k // 2},0.0,4.0,1,{fold},{k % 6},{label}")
        if k != 1:  # whose file is missing
            stereo = np.stack([waveform, waveform], axis=1)
            save(folder / "audio" / f"fold{fold}" / name, stereo, rate, subtype="PCM_24" if k % 2 else "FLOAT")
    write_csv(folder / "metadata" / "UrbanSound8K.csv", lines)


@kind
def fsd50k(folder, number=120):
    ground = folder / "FSD50K.ground_truth"
    dev, held_out, words = ["fname,labels,mids,split"], ["fname,labels,mids"], {}
    for k in range(number):
        waveform, label = sound(k, (0.3, 3.0, 12.0)[k % 3])
        parent = ("Domestic_sounds_and_home_sounds", "Animal", "Nature")[k % 3]
        for word in (label, parent):
            words.setdefault(word, f"/m/0{len(words):03}")
        said = f'"{label},{parent}","{words[label]},{words[parent]}"'
        if k % 4 == 0:
            held_out.append(f"{100 + k},{said}")
        else:
            dev.append(f"{100 + k},{said},{'val' if k % 4 == 1 else 'train'}")
        if k == 2:
            continue  # no file
        waveform = np.zeros(RATE, "float32") if k == 3 else waveform[: RATE // 20] if k == 4 else waveform
        save(folder / f"FSD50K.{'eval' if k % 4 == 0 else 'dev'}_audio" / f"{100 + k}.wav", waveform)
    write_csv(ground / "dev.csv", dev)
    write_csv(ground / "eval.csv", held_out)
    write_csv(ground / "vocabulary.csv", [f"{k},{word},{mid}" for k, (word, mid) in enumerate(words.items())])
    (folder / "FSD50K.metadata").mkdir()
    (folder / "FSD50K.metadata" / "dev_clips_info_FSD50K.json").write_text(json.dumps({}))


@kind
def audioset(folder, number=120):
    mids = {label: f"/m/0{k}abc" for k, label in enumerate(dict.fromkeys(sound(k, 0.1)[1] for k in range(6)))}
    mids["Inside, small room"] = "/t/dd00125"
    write_csv(folder / "class_labels_indices.csv", ["index,mid,display_name", *(
        f'{k},{mid},"{name}"' for k, (name, mid) in enumerate(mids.items()))])  # fmt: skip
    names = ("{id}", "Y{id}", "{id}_{start}_{end}", "{id}_{ms}", "Y{id}_{start}.000_{end}.000")
    for split, share in (("eval", range(0, number, 4)), ("balanced_train", [k for k in range(number) if k % 4])):
        lines = ["# Segments csv created Sun Mar  5 10:54:25 2017", f"# num_ytids={len(share)}, num_segs={len(share)}"]
        lines.append("# YTID, start_seconds, end_seconds, positive_labels")
        for k in share:
            waveform, label = sound(k, 10.0)
            clip, start = f"{'-' if k % 5 == 0 else 'a'}{k:03}_xY-{k % 10}", 10 * (k % 3)
            lines.append(f'{clip}, {start}.000, {start + 10}.000, "{mids[label]},/t/dd00125"')
            if k % 9 == 8:
                continue  # videos that are gone
            name = names[k % len(names)].format(id=clip, start=start, ms=1000 * start, end=start + 10)
            waveform = 0 * waveform if k == 5 else waveform
            save(folder / f"{split}_segments" / f"{name}.{'flac' if k % 2 else 'wav'}", waveform)
        write_csv(folder / f"{split}_segments.csv", lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    KINDS[options.kind](options.folder)


if __name__ == "__main__":
    main()
