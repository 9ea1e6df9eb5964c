"""From recordings to shards of views, the log-mel of clips and of their channels, by any number of machines.

    python -m sepcl_keras.prepare DATA OUT --separator FOLDER [--part i/n] [--split train] [--seconds 10]

DATA is a folder of recordings in any layout that the course takes, of which the clips of one split are prepared. OUT
gets the shards, `rejected.csv` with what is no sound or not there, and, once all shards are there, the manifest
`views.json`, with which `Views(OUT)` reads them. Part i of n, counted from 1, writes every n-th shard: in a SLURM array
`--part $SLURM_ARRAY_TASK_ID/100`, in a shell `for i in 1 2 3 4; do ... --part $i/4 & done`. What was killed is started
again, with as many parts as one likes, and ends with the same bytes. Shards separated in float32 and by integers, which
a wide separator takes on CPUs with VNNI, are not mixed: where only some machines have that, all get `--float32`.
"""

import argparse
import sys

from sepcl_keras.core.backend import keep_memory, make_repeatable
from sepcl_keras.core.checks import BadInput


def part_of(text):
    """(i, n) of "i/n"."""
    try:
        part, parts = map(int, text.split("/"))
    except ValueError:
        part, parts = 0, 0
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"{text!r}: expected i/n such as 3/8, with i from 1 to n")
    return part, parts


def main(arguments=None):
    """The command; returns the manifest, or None where shards of other parts are missing."""
    parser = argparse.ArgumentParser(
        "python -m sepcl_keras.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", metavar="DATA", help="folder of recordings, in any layout that the course takes")
    parser.add_argument("out", metavar="OUT", help="folder for the shards")
    parser.add_argument("--part", type=part_of, default=(1, 1), metavar="i/n", help="which of n parts to write")
    parser.add_argument("--separator", help="folder of snapshots, such as N.keras and S2.keras; without: mixtures only")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of a scene, by default 10: a longer file gives several"
    )
    parser.add_argument("--split", default="train", help="train (the default), validation, test or all")
    parser.add_argument(
        "--clips-per-shard", type=int, default=100, help="files of a shard, by default 100; of hours rather few"
    )
    parser.add_argument("--float32", action="store_true", help="separate in float32, also where integers are faster")
    given = parser.parse_args(arguments)
    from sepcl_keras.views.log_mel import SAMPLE_RATE
    from sepcl_keras.views.preparation import Preparation, ShardWriter, listed, load_processors

    keep_memory()
    make_repeatable(0)
    clips, refused = listed(given.data, given.split)
    print(f"{given.data}: {len(clips)} clips of split {given.split}; --split all takes those of all splits.")
    samples = None if given.float32 else round(given.seconds * SAMPLE_RATE)
    processors = load_processors(given.separator, samples=samples)
    for name, processor in processors.items():
        print(f"{name}: {processor.arithmetic}.")
    writer = ShardWriter(processors, given.seconds)
    preparation = Preparation(clips, writer, given.out, given.clips_per_shard, refused)
    done = preparation.write_part(*given.part)
    if done is None:
        print(f"{given.out}: part {given.part[0]} of {given.part[1]} is written; other parts have shards to write.")
    else:
        print(f"{given.out}: {done['clips']} clips in {len(done['shards'])} shards; {done['rejected']} rejected.")
    return done


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(str(error))
