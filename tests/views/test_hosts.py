"""Two hosts, as two processes that find each other by JAX's loopback: whose clips each reads, and one training."""

import importlib.util
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from views.test_shards import PROCESSORS, SECONDS, write_sounds

from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.views.preparation import Preparation, ShardWriter
from sepcl_keras.views.stored import Views

PER_HOST, STEPS, SEED = 4, 6, 3

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed; `make test-latest` runs this"
)

PROGRAM = """
import json, sys
import jax
import numpy as np

count, index, port, views, folder, per_host, seed = *map(int, sys.argv[1:4]), *sys.argv[4:6], *map(int, sys.argv[6:])
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)

import keras
from jax.experimental.multihost_utils import process_allgather
from sepcl_keras.core import backend, folders
from sepcl_keras.encoder.recipe import pretrain
from sepcl_keras.training import checkpoint, loop
from sepcl_keras.views.pairs import ViewPairs
from sepcl_keras.views.stored import Views

keras.config.set_floatx("float64")  # or what sums in another order would move steps of Adam by more than that
backend.use_all_devices()
loop.STEPS_IN_EPOCH = 2
folders.SHARE = np.inf  # a checkpoint after each epoch, however slow the disk

class Both(keras.utils.PyDataset):
    '''What the hosts read, in one process.'''

    def __init__(self, pairs):
        super().__init__()
        self.pairs, self.epoch = pairs, 0

    def __len__(self):
        return len(self.pairs[0])

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, step):
        parts = [pairs._read(self.epoch * len(self) + step)[0] for pairs in self.pairs]
        return (tuple(np.concatenate(part) for part in zip(*parts)),)

def of(host):
    return lambda steps: ViewPairs(Views(views, host=host), "mix-chan", ("low", "S2"), per_host, steps, seed)

# The last checkpoint is not written, so that a second training has something left to do.
ended = checkpoint.Checkpoint.on_epoch_end
checkpoint.Checkpoint.on_epoch_end = lambda self, epoch, logs=None: ended(self, epoch) if epoch < 2 else None

def trained(folder=None):
    data = of(backend.host()) if count > 1 else lambda steps: Both([of((0, 2))(steps), of((1, 2))(steps)])
    encoder, history = pretrain(data, 8, 1, 6, 1e-3, 0, augmentation="SpecAugment", show=False, folder=folder)
    history.pop("clips_per_second")
    return [np.asarray(weight) for weight in encoder.get_weights()], history

said = {"host": backend.host(), "devices": backend.number_of_devices()}
weights, said["history"] = trained(folder if count > 1 else None)
if count > 1:
    pairs = of(backend.host())(2)
    read = [pairs._read(step)[0] for step in range(6)]
    np.savez(f"{folder}/read{index}.npz", mixtures=[step[0] for step in read], channels=[step[1] for step in read])
    said["gathered"] = process_allgather(np.array([pairs.draw(step)[0] for step in range(6)])).tolist()
    said["again"] = trained(folder)[1]  # from the checkpoint that the first host left, of the fourth step of six
np.savez(f"{folder}/weights{index}of{count}.npz", *weights)
with open(f"{folder}/said{index}of{count}.json", "w") as file:
    json.dump(said, file)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    clips = write_sounds(tmp_path_factory.mktemp("sounds"), 16)
    out = tmp_path_factory.mktemp("prepared") / "views"
    Preparation(clips, ShardWriter(PROCESSORS, SECONDS), out, clips_per_shard=4).write_part(show=False)
    return out


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory):
    """What two hosts and, by itself, one process with both hosts' clips leave."""
    folder = tmp_path_factory.mktemp("hosts")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=1"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "KERAS_BACKEND": "jax"}
    environment |= {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}

    def start(count, index):
        arguments = [count, index, port, prepared, folder, PER_HOST, SEED]
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for processes in ([start(2, 0), start(2, 1)], [start(1, 0)]):
        for process in processes:
            out, error = process.communicate()
            assert process.returncode == 0, error[-2000:]
            assert ("resumed at step 4 of 6" in out) == (len(processes) == 2)
    return folder


def said(folder, index, count=2):
    return json.loads((folder / f"said{index}of{count}.json").read_text())


def test_each_host_reads_its_own_shards_and_together_each_clip_once(prepared, folder):
    """What was read is looked for in the shards, so nothing is taken from what a host says of itself."""
    shards = [np.load(path) for path in sorted(prepared.glob("shard-*.npz"))]
    ids = [str(id) for shard in shards for id in shard["ids"]]
    mixtures = np.concatenate([shard["log_mel"][:, 0] for shard in shards]).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(mixtures, 96, axis=1).swapaxes(2, 3)  # (clips, starts, 96, mels)
    turns = len(ids) // (2 * PER_HOST)
    found = []
    for index in (0, 1):
        patches = np.load(folder / f"read{index}.npz")["mixtures"]  # (steps, pairs, 96, mels)
        of = [[ids[np.flatnonzero((windows == patch).all((2, 3)).any(1)).item()] for patch in step] for step in patches]
        found.append(of)
        own = {str(id) for shard in shards[index::2] for id in shard["ids"]}
        assert {id for step in of for id in step} == own
        numbers = [[str(id) for shard in shards[index::2] for id in shard["ids"]].index(id) for s in of for id in s]
        assert said(folder, 0)["gathered"][index] == np.reshape(numbers, (STEPS, PER_HOST)).tolist()
    for turn in range(0, STEPS, turns):
        once = [id for of in found for step in of[turn : turn + turns] for id in step]
        assert sorted(once) == sorted(ids)
    assert found[0][:turns] != found[0][turns : 2 * turns], "each turn has an order of its own"
    assert said(folder, 0)["gathered"] == said(folder, 1)["gathered"]


def test_what_a_host_reads_is_a_function_of_seed_epoch_and_step(prepared, folder):
    """Here in another process, which knows nothing of hosts but the two numbers, and asks backwards."""
    for index in (0, 1):
        read = np.load(folder / f"read{index}.npz")
        views = Views(prepared, host=(index, 2))
        same, other = (ViewPairs(views, "mix-chan", ("low", "S2"), PER_HOST, 2, seed) for seed in (SEED, SEED + 1))
        for step in reversed(range(STEPS)):
            same.epoch = step // 2
            ((mixtures, channels),) = same[step % 2]
            np.testing.assert_array_equal(mixtures, read["mixtures"][step])
            np.testing.assert_array_equal(channels, read["channels"][step])
            assert not np.array_equal(other._read(step)[0][0], mixtures)


def test_two_hosts_train_as_one_process_with_the_clips_of_both(folder):
    """Losses, gradients and weights: with negatives or statistics of the own clips alone they would be others."""
    one, hosts = said(folder, 0, 1), [said(folder, index) for index in (0, 1)]
    assert (one["host"], one["devices"]) == ([0, 1], 1)
    assert [(of["host"], of["devices"]) for of in hosts] == [([0, 2], 2), ([1, 2], 2)]
    assert hosts[0]["history"] == hosts[1]["history"]
    assert set(hosts[0]["history"]) == set(one["history"])
    for name, values in one["history"].items():
        np.testing.assert_allclose(hosts[0]["history"][name], values, rtol=1e-6, err_msg=name)
    ours, theirs, expected = (np.load(folder / f"weights{name}.npz") for name in ("0of2", "1of2", "0of1"))
    for name in expected.files:
        np.testing.assert_array_equal(ours[name], theirs[name])
        np.testing.assert_allclose(ours[name], expected[name], rtol=1e-5, atol=1e-6)  # a step of Adam is 1e-3


def test_hosts_go_on_together_from_the_checkpoint_of_the_first(folder):
    assert (folder / "checkpoint.npz").exists()
    for index in (0, 1):
        of = said(folder, index)
        assert of["again"].keys() == of["history"].keys()
        for name, values in of["history"].items():
            np.testing.assert_allclose(of["again"][name], values, rtol=1e-12, err_msg=name)
