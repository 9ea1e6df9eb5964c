"""A server in this process, and data sets in small that the script knows by their real names."""

import dataclasses
import threading

import downloads
import fetch
import pytest
from little_sets import NOISE, SET, Server, cut, known, zipped


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The seconds of each pause, of which none is made."""
    seconds = []
    monkeypatch.setattr(downloads, "pause", seconds.append)
    return seconds


@pytest.fixture
def esc50(server, tmp_path, monkeypatch):
    """The server has a data set of two clips, and the script knows it as ESC-50. Gives its archive's bytes."""
    content = zipped(tmp_path / "archive.zip", SET).read_bytes()
    server.files["e.zip"] = content
    data_set = fetch.DATA_SETS["esc50"]
    data_set = dataclasses.replace(data_set, home=server.url + "{}", parts={"e.zip": known(content)}, clips=2)
    monkeypatch.setitem(fetch.DATA_SETS, "esc50", data_set)
    return content


@pytest.fixture
def fsd50k(server, tmp_path, monkeypatch):
    """The server has FSD50K in small, with split archives of which `.z01` and on come first. Gives its archives."""
    paths, wavs = [], {"dev": 3, "eval": 2}
    for part in ("doc", "ground_truth", "metadata", "eval_audio", "dev_audio"):
        name = f"FSD50K.{part}"
        count = wavs.get(part.removesuffix("_audio"), 0)
        files = {f"{name}/{number}.wav": NOISE.bytes(50_000) for number in range(count)}
        files = files or {f"{name}/dev.csv": b"a", f"{name}/eval.csv": b"b"}
        path = zipped(tmp_path / f"{name}.zip", files)
        paths += cut(path, 40_000) if count else [path]
    contents = {path.name: path.read_bytes() for path in paths}
    server.files.update(contents)
    parts = {name: known(content, "md5") for name, content in contents.items()}
    data_set = dataclasses.replace(fetch.DATA_SETS["fsd50k"], home=server.url + "{}", parts=parts, clips=5)
    monkeypatch.setitem(fetch.DATA_SETS, "fsd50k", data_set)
    return contents
