"""Shards written by an Apache Beam pipeline: the same function, files and bytes as by `sepcl_keras.prepare`.

Beam (`pip install sepcl-keras[beam]`) distributes the numbers of the shards; a worker reads its clips from the data
folder and writes its shards into the folder for them, which all workers must see. A shard that Beam tries twice, or
after a failure again, is found whole or written anew.
"""

from sepcl_keras.views.preparation import Preparation, ShardWriter, listed, load_processors

_preparations = {}  # of this process, by its arguments: the networks are loaded once


def _preparation(data, split, out, separator, seconds, clips_per_shard):
    key = data, split, out, separator, seconds, clips_per_shard
    if key not in _preparations:
        writer, (clips, refused) = ShardWriter(load_processors(separator), seconds), listed(data, split)
        _preparations[key] = Preparation(clips, writer, out, clips_per_shard, refused)
    return _preparations[key]


def _write(shard, arguments):
    return _preparation(*arguments).write(shard)


def prepare(data, out, separator=None, seconds=10.0, clips_per_shard=100, split="train", runner=None, options=None):
    """Prepares a folder of recordings by Beam; returns the manifest.

    Args:
        data, out, separator, seconds, clips_per_shard, split: as of the command `sepcl_keras.prepare`.
        runner, options: of `beam.Pipeline`. Name a runner: Beam's default one first tries to download another.
    """
    import apache_beam as beam

    arguments = str(data), split, str(out), separator and str(separator), seconds, clips_per_shard
    preparation = _preparation(*arguments)
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        numbers = pipeline | "Shards" >> beam.Create(range(preparation.shards)) | beam.Reshuffle()
        numbers | "Write" >> beam.Map(_write, arguments)
    return preparation.finish()
