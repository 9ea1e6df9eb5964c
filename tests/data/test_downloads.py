"""Downloads from a server that lies, stalls, breaks off and changes its file: whole in the end, or one sentence."""

import hashlib

import downloads
import fetch
import numpy as np
import pytest
from little_sets import INSIDE, left, written

from sepcl_keras.core.checks import BadInput

TRICKS = {  # what the server does at each request → from which byte the requests ask for the rest (0: the beginning)
    "breaks": (["breaks"], [0, 0.5]),
    "breaks twice": (["breaks", "breaks"], [0, 0.5, 0.75]),
    "busy": ([503, 429], [0, 0, 0]),
    "ignores Range": (["breaks", "no ranges"], [0, 0.5]),
    "gives another place": (["breaks", "wrong place"], [0, 0.5, 0]),
    "does not say how long": (["no length"], [0]),
}


@pytest.mark.parametrize("tag", ['"one"', 'W/"weak"', None])
@pytest.mark.parametrize("case", TRICKS)
def test_download_comes_through(case, tag, esc50, server, tmp_path):
    server.tricks, places = list(TRICKS[case][0]), TRICKS[case][1]
    server.tag = tag
    fetch.fetch("esc50", tmp_path / "out")
    assert set(INSIDE) < set(written(tmp_path / "out" / "ESC-50")) and not left(tmp_path / "out")[0].startswith(".")
    asked = [int(first.removeprefix("bytes=").removesuffix("-")) if first else 0 for first, _ in server.asked]
    np.testing.assert_allclose(np.array(asked) / len(esc50), places, atol=1e-4)
    strong = tag if tag == '"one"' else None
    assert {since for first, since in server.asked if first} <= {strong}


def test_server_that_stalls_is_left_and_the_rest_asked_for(esc50, server, tmp_path, monkeypatch, pauses):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.3)
    server.tricks = ["stalls"]
    fetch.fetch("esc50", tmp_path / "out")
    assert server.asked == [(None, None), (f"bytes={len(esc50) // 2}-", '"one"')] and pauses == [2]


def test_file_that_changes_between_two_tries_is_begun_anew(esc50, server, tmp_path, monkeypatch):
    old = bytes(len(esc50))
    server.files["e.zip"], server.tricks = old, ["breaks"]

    def changes(_):
        server.files["e.zip"], server.tag = esc50, '"two"'

    monkeypatch.setattr(downloads, "pause", changes)
    fetch.fetch("esc50", tmp_path / "out")
    assert server.asked == [(None, None), (f"bytes={len(old) // 2}-", '"one"')]
    assert set(INSIDE) < set(written(tmp_path / "out" / "ESC-50"))


WRONG = {
    "not there": ([404], r"e\.zip: the server answers 404 .*expected the file", 1),
    "says less": (["says less"], r"bytes long; expected 1", 1),
    "says more": (["says more"], r"bytes long; expected 1", 1),
    "sends more": (["no length, more"], r"more than the .* bytes that were expected", 1),
    "always busy": ([503] * 9, r"the server answers 503; expected a server that sends it whole", downloads.TRIES),
}


@pytest.mark.parametrize("case", WRONG)
def test_server_that_does_not_have_the_file(case, esc50, server, tmp_path, capsys, pauses):
    server.tricks, message, requests = list(WRONG[case][0]), *WRONG[case][1:]
    with pytest.raises(BadInput, match=message) as caught:
        fetch.fetch("esc50", tmp_path / "out")
    assert "\n" not in str(caught.value) and len(server.asked) == requests and len(pauses) == requests - 1
    assert not (tmp_path / "out" / "ESC-50").exists()


def test_length_that_nobody_knows_is_not_believed(esc50, server, tmp_path, monkeypatch):
    """With a reader's own checksum the length is the server's word: here more than it sends, each time."""
    digest = hashlib.sha256(esc50).hexdigest()
    server.tricks = ["says more"] * 20
    with pytest.raises(BadInput, match=r"the line broke after .* of|changed|answers 416"):
        fetch.fetch("esc50", tmp_path / "out", sha256=[digest])
    server.tricks = []
    fetch.fetch("esc50", tmp_path / "out", sha256=[digest])
    assert set(INSIDE) < set(written(tmp_path / "out" / "ESC-50"))
