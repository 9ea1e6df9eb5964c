"""Files of recordings, decoding included: `python benchmarks/recordings.py embed|read|prepare …` prints JSON.

    embed     hours of audio an hour from files to embeddings: `embed_files`, onnxruntime and OpenVINO on its ONNX file,
              and panns-inference, of full-width CNN14
    read      times real time of `audio.read` in threads, and of `read_in_graph` where tensorflow-io is there, by the
              clock and by the time that it took of the cores, which other programs on the machine change less
    prepare   seconds and bytes that a clip and snapshot takes to become views, and the most memory of the process

The ways take turns inside one process. The files are made of noise, ogg (Vorbis) at 44.1 kHz, one channel, 10 s each;
those of `prepare` are one wav of 1 s under many names. Weights are random.
"""

import argparse
import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

THREADS = 2
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-THREADS:])

import numpy as np  # noqa: E402
import soundfile  # noqa: E402

from sepcl_keras.scenes import audio  # noqa: E402

SECONDS, RATE = 10, 44_100
SHORT, LONG = 15_600, 160_000  # samples of a window: ours, and all of a clip as panns-inference takes it


def make_files(folder, number):
    rng = np.random.default_rng(0)
    for index in range(number):
        noise = 0.1 * rng.standard_normal(SECONDS * RATE, "float32")
        soundfile.write(folder / f"{index:03d}.ogg", noise, RATE, format="OGG", subtype="VORBIS")
    return sorted(folder.glob("*.ogg"))


def seconds_of(function, clock=time.perf_counter):
    began = clock()
    function()
    return clock() - began


def in_turns(ways, rounds, clock=time.perf_counter):
    """Seconds (rounds,) of each way; a round before does not count."""
    times = [{name: seconds_of(way, clock) for name, way in ways.items()} for _ in range(rounds + 1)][1:]
    return {name: np.array([turn[name] for turn in times]) for name in ways}


def quartiles(values, digits=2):
    return np.percentile(values, [25, 50, 75]).round(digits).tolist()


def embed(folder, clips, rounds):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from sepcl_keras import CNN14, embed_files
    from sepcl_keras.encoder.export import export_encoder

    files, ways = make_files(folder, clips), {}
    for window in (SHORT, LONG):
        encoder = CNN14(2048, window=window)
        encoder.build((None, window // 160, 64))
        out = folder / f"{window}.npz"
        ways[f"ours, {window}"] = lambda encoder=encoder, out=out: (
            out.unlink(missing_ok=True),
            embed_files([str(path) for path in files], encoder, out, show=False),
        )
        onnx = folder / f"{window}.onnx"
        export_encoder(encoder, onnx)
        for name, session in (("onnxruntime", by_onnxruntime(onnx)), ("openvino", by_openvino(onnx))):
            ways[f"{name}, {window}"] = lambda session=session, window=window: of_windows(files, session, window)
    ways["panns"] = by_panns(files)
    times = in_turns(ways, rounds)
    return {
        name: {
            "speed": quartiles(clips * SECONDS / taken, 1), "ratio": quartiles(times["panns"] / taken)
        }
        for name, taken in times.items()
    }  # fmt: skip


def of_windows(files, session, window):
    """Embeddings by a session, of as many windows at once as `embed_files` takes."""
    from sepcl_keras.encoder.embedding import cut, sizes

    _, hop, batch_size = sizes("recordings", SimpleNamespace(window=window), None, None)
    waiting = []
    with ThreadPoolExecutor(4) as readers:
        for sound in readers.map(audio.read, files):
            waiting += list(cut(sound, window, hop))
            while len(waiting) >= batch_size:
                session(np.stack(waiting[:batch_size]))
                del waiting[:batch_size]
    if waiting:
        session(np.stack(waiting))


def by_onnxruntime(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda rows: session.run(None, {session.get_inputs()[0].name: rows})


def by_openvino(path):
    import openvino

    # In float32 as all others: by default it computes in bfloat16 where the CPU can.
    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda rows: compiled([rows])[0]


def by_panns(files):
    """As its `AudioTagging.inference` and its example do: a file at a time, whole, at 32 kHz."""
    import librosa
    import torch
    import torchlibrosa.augmentation
    import torchlibrosa.stft  # noqa: F401
    from panns import Cnn14

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    network = Cnn14(32_000, 1024, 320, 64, 50, 14_000, 527).eval()

    def way():
        for path in files:
            sound, _ = librosa.load(path, sr=32_000, mono=True)
            with torch.no_grad():
                network(torch.as_tensor(sound)[None], None)["embedding"].numpy()

    return way


def read(folder, clips, rounds):
    def in_threads(reader):
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(reader, files))

    files = make_files(folder, clips)
    ways = {"read": lambda: in_threads(audio.read), "decoded": lambda: in_threads(soundfile.read)}
    if importlib.util.find_spec("tensorflow_io"):
        ways["in graph"] = lambda: in_threads(lambda path: audio.read_in_graph(path)[0].numpy())
    walls, cpus = in_turns(ways, rounds), in_turns(ways, rounds, time.process_time)
    sound = clips * SECONDS
    return {name: {"wall": quartiles(sound / walls[name], 0), "cpu": quartiles(sound / cpus[name], 0)} for name in ways}


def prepare(folder, clips):
    from sepcl_keras import TDCNPlusPlus
    from sepcl_keras.core.backend import keep_memory
    from sepcl_keras.course.profiles import PROFILES
    from sepcl_keras.views.preparation import Preparation, ShardWriter
    from sepcl_keras.views.processors import Snapshot

    keep_memory()
    path = folder / "noise.wav"
    audio.write(path, 0.1 * np.random.default_rng(0).standard_normal(16_000))
    separator = TDCNPlusPlus(2, **PROFILES["tiny"].separator)
    separator.build((None, None))
    writer = ShardWriter({"S2": Snapshot(separator)}, seconds=1.0)
    # Compiled before: a first shard by another name.
    writer([SimpleNamespace(id="first", path=path)], folder / "first.npz")
    names = [SimpleNamespace(id=f"{index:06d}", path=path) for index in range(clips)]
    preparation = Preparation(names, writer, folder / "views")
    seconds = seconds_of(lambda: preparation.write_part(show=False))
    size = sum(file.stat().st_size for file in (folder / "views").iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return {"seconds": seconds / clips, "bytes": size / clips, "memory_mb": round(peak, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["embed", "read", "prepare"])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        result = prepare(folder, a.clips) if a.what == "prepare" else globals()[a.what](folder, a.clips, a.rounds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
