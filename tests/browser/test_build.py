"""What the builder of the page "Hear it in the browser" refuses; what it builds is tested in `test_page.py`."""

import by_path
import numpy as np
import pytest
from conftest import ROOT

from sepcl_keras.core.checks import BadInput


@pytest.fixture(scope="module")
def build():
    return by_path.load(ROOT / "notebooks/browser/build.py")


def test_another_package_is_refused(build, tmp_path):
    (tmp_path / "onnxruntime-web-1.30.0.tgz").write_bytes(b"another one")
    with pytest.raises(BadInput, match="expected the file of onnxruntime-web@1.30.0"):
        build.runtime(tmp_path)


def test_without_npm_a_sentence_says_so(build, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="no npm to fetch it; expected Node.js installed"):
        build.runtime(tmp_path / "cache")


def test_a_failing_npm_leaves_nothing(build, tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BadInput, match="failed; expected a registry within reach: no such registry"):
        build.runtime(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_of_something_else_stays(build, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="expected a path where nothing is yet, or an earlier page"):
        build.main([str(tmp_path), "--cache", str(tmp_path)])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_halved_kernels_change_h_by_little(build, small_encoder, tmp_path):
    import onnxruntime

    from sepcl_keras.encoder.export import export_encoder

    path, sound = (
        tmp_path / "encoder.onnx",
        0.1 * np.random.default_rng(0).standard_normal((2, 15_600), dtype="float32"),
    )
    export_encoder(small_encoder, path)
    before, size = onnxruntime.InferenceSession(path).run(None, {"waveforms": sound})[0], path.stat().st_size
    build.halve(path)
    after = onnxruntime.InferenceSession(path).run(None, {"waveforms": sound})[0]
    assert path.stat().st_size < size
    assert 0 < np.abs(after - before).max() < 5e-3 * np.abs(before).max()
