"""Builds the page "Hear it in the browser": the networks as ONNX files, clips of the course with their embeddings, and
onnxruntime-web. What it makes is static: any host serves it, and it asks nothing of another. See `make browser`."""

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.folders import atomic_folder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNTIME = "onnxruntime-web@1.30.0"  # of npm, and what its file has to be:
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
PARTS = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")  # of it: what runs on every processor, and no more
CLIPS = 60  # of the test scenes
SNAPSHOTS = {"N": "before the first step of training", "S2": "at the end of training"}


def runtime(cache):
    """The npm package in a file (see `RUNTIME`), fetched where the folder `cache` does not hold it yet."""
    package = cache / f"{RUNTIME.replace('@', '-')}.tgz"
    if not package.exists():
        if not shutil.which("npm"):
            raise BadInput(f"{RUNTIME} is not in {cache} and there is no npm to fetch it; expected Node.js installed.")
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["npm", "pack", RUNTIME, "--silent", "--pack-destination", str(cache)], capture_output=True, text=True
        )
        if done.returncode:
            raise BadInput(f"npm pack {RUNTIME} failed; expected a registry within reach: {done.stderr.strip()[-300:]}")
    if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != SHA512:
        raise BadInput(f"{package}: expected the file of {RUNTIME} as it was when this page was written.")
    return package


def halve(path):
    """Keeps an ONNX file's kernels in half precision, from which they are cast when it is loaded: half the bytes."""
    import numpy as np
    import onnx

    model = onnx.load(path)
    for kept in [
        each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT and each.dims[1:]
    ]:
        name, half = kept.name, onnx.numpy_helper.to_array(kept).astype(np.float16)
        kept.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_half"))
        cast = onnx.helper.make_node("Cast", [kept.name], [name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def clips(course, encoder, folder):
    """Writes clips as FLAC files, lossless and read by every browser; gives a list of file, label and embedding each.

    Embedded is what was written, rounded to 16 bits: that is what the browser reads.
    """
    import soundfile

    from sepcl_keras.encoder.embedding import embed

    folder.mkdir()
    scenes, rate, found = course.mixed["test"], course.profile.sample_rate, []
    for index in range(min(CLIPS, len(scenes))):
        scene, path = scenes[index], folder / f"{index:03d}.flac"
        soundfile.write(path, scene.mixture, rate, subtype="PCM_16")
        names = ", ".join(label.replace("_", " ") for label in sorted(set(scene.labels)))
        found.append({"file": f"clips/{path.name}", "label": f"{scene.place}: {names}"})
    waveforms = [soundfile.read(folder.parent / clip["file"], dtype="float32")[0] for clip in found]
    for clip, h in zip(found, embed(waveforms, encoder, pool=True, show=False), strict=True):
        clip["h"] = [float(f"{value:.6g}") for value in h]
    return found


def write(course, folder, package):
    """All of the page, into an empty folder."""
    import tarfile

    from sepcl_keras.encoder.embedding import default_hop
    from sepcl_keras.encoder.export import export_encoder
    from sepcl_keras.separation.export import export_separator
    from sepcl_keras.views.log_mel import HOP

    shutil.copytree(HERE / "page", folder, dirs_exist_ok=True)
    with tarfile.open(package) as archive:
        (folder / "runtime").mkdir()
        for name in PARTS:
            (folder / "runtime" / name).write_bytes(archive.extractfile(f"package/dist/{name}").read())
    separators, encoder = course.snapshots()[0], course.encoder()[0]
    (folder / "networks").mkdir()
    for name in SNAPSHOTS:
        export_separator(separators[name], folder / f"networks/{name}.onnx")
    export_encoder(encoder, folder / "networks/encoder.onnx")
    halve(folder / "networks/encoder.onnx")  # which only ranks; the separators are as Keras has them
    about = {
        "rate": course.profile.sample_rate, "window": encoder.window, "hop": default_hop(encoder.window) * HOP,
        "snapshots": SNAPSHOTS, "clips": clips(course, encoder, folder / "clips"),
    }  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about), "utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "out", type=Path, nargs="?", default=ROOT / "artifacts/browser/html", help="folder of the page, made anew"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "artifacts/browser/npm", help="keeps what npm fetched")
    options = parser.parse_args(arguments)
    from sepcl_keras.course.course import Course

    if options.out.exists() and not (options.out / "about.json").is_file():
        raise BadInput(f"{options.out}: expected a path where nothing is yet, or an earlier page.")
    package = runtime(options.cache)
    with atomic_folder(options.out, "page") as folder:
        write(Course("tiny"), folder, package)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"The page has {size / 1e6:.1f} MB. A browser does not run it from a file: of a server on this machine,")
    print(f"  python -m http.server --bind 127.0.0.1 --directory {options.out} 8000")
    print("it is http://127.0.0.1:8000; on a host its folder goes where the site is.")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(str(error))
