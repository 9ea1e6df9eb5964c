"""The Beam pipeline on several workers against the same shards written by one process."""

import importlib.util
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from views.test_prepare import content, data, options, separator  # noqa: F401 (the fixtures)
from views.test_shards import SECONDS

from sepcl_keras.prepare import main
from sepcl_keras.views.stored import Views

PROGRAM = """
import sys
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from sepcl_keras.views import beam

if __name__ == "__main__":
    data, out, separator, mode = sys.argv[1:]
    options = PipelineOptions(direct_num_workers=3, direct_running_mode=mode)
    manifest = beam.prepare(data, out, separator, SECONDS, 3, "all", FnApiRunner(), options)
    print("clips", manifest["clips"])
"""

pytestmark = pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="needs apache_beam")


def run(*arguments):
    """In a process of its own: Beam's warnings are its own affair, and its workers' fork should not meet pytest."""
    program = PROGRAM.replace("SECONDS", str(SECONDS))
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading", "multi_processing"])
def test_several_workers_write_what_one_process_writes(data, separator, tmp_path, mode):  # noqa: F811
    main([str(data), str(tmp_path / "one"), *options("--separator", separator)])
    done = run(data, tmp_path / "beam", separator, mode)
    assert done.returncode == 0 and "clips 13\n" in done.stdout, done.stderr[-3000:]
    assert content(tmp_path / "beam") == content(tmp_path / "one")
    assert Views(tmp_path / "beam").shape[:2] == (13, 7)


def test_what_beam_left_is_finished_by_the_command_and_the_other_way_round(data, separator, tmp_path):  # noqa: F811
    arguments = [str(data), str(tmp_path), *options("--separator", separator)]
    main([*arguments, "--part", "1/3"])
    assert run(data, tmp_path, separator, "in_memory").returncode == 0
    before = content(tmp_path)
    first = min(tmp_path.glob("shard-*.npz"))
    first.write_bytes(first.read_bytes()[:-50])
    assert not zipfile.is_zipfile(first)
    main(arguments)
    assert content(tmp_path) == before and np.load(first)["ids"].size == 3


def test_a_failure_in_a_worker_ends_the_pipeline_with_its_sentence(data, separator, tmp_path):  # noqa: F811
    main([str(data), str(tmp_path), *options("--separator", separator)])
    first, second, *_ = sorted(tmp_path.glob("shard-*.npz"))
    second.write_bytes(first.read_bytes())
    done = run(data, tmp_path, separator, "multi_processing")
    assert done.returncode != 0 and f"{second}: a shard of other clips or of another recipe" in done.stderr
