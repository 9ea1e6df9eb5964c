"""`python -m sepcl_keras.embed FOLDER OUT`: a folder of sounds to one table of embeddings, by `embed_files`."""

import argparse
import sys


def main(arguments=None):
    from sepcl_keras.core.checks import BadInput
    from sepcl_keras.encoder.embedding import load_encoder
    from sepcl_keras.encoder.files import embed_files
    from sepcl_keras.encoder.table import read_meta

    parser = argparse.ArgumentParser(prog="python -m sepcl_keras.embed", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="folder, searched at any depth for sound files")
    parser.add_argument("out", metavar="OUT", help="the table, .npz or .parquet")
    parser.add_argument("--encoder", metavar="PATH", help="a .keras file, or a folder with an encoder.keras")
    parser.add_argument("--hop", type=int, metavar="FRAMES", help="step between windows, in frames of 10 ms")
    parser.add_argument("--pool", action="store_true", help="one row a file, the mean over its windows")
    parser.add_argument("--batch-size", type=int, metavar="WINDOWS", help="windows embedded at once")
    given = parser.parse_args(arguments)
    try:
        encoder = load_encoder(given.encoder or _trained_in_the_course())
        options = dict(hop=given.hop, pool=given.pool, batch_size=given.batch_size)
        meta = read_meta(embed_files(given.folder, encoder, given.out, **options))
    except BadInput as error:
        sys.exit(str(error))
    for sentence in meta["refused"].values():
        print(f"refused: {sentence}", file=sys.stderr)
    print(f"{given.out}: {meta['rows']} rows of {meta['d']} numbers; {len(meta['refused'])} files refused")


def _trained_in_the_course():
    from sepcl_keras.course.artifacts import artifacts_folder

    return artifacts_folder() / "tiny" / "made" / "seed0" / "encoders" / "main"


if __name__ == "__main__":
    main()
else:
    from sepcl_keras.encoder.embedding import embed

    # `sepcl_keras.embed` is the function, also for who imports the module: Python gives the package what lies here.
    sys.modules[__name__] = embed
