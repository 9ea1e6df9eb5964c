"""One measurement a process: `python benchmarks/measure.py step|mixit|separation|encoder|…` prints a line of JSON.

Ours and the peer's take turns inside one process, so that a change of the machine's speed meets both; each round gives
a ratio, and the median and the quartiles of the ratios are what counts.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
import unittest.mock

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("what", choices=["step", "mixit", "separation", "recording", "encoder", "coincidence", "nt_xent"])
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--policy", default="float32", help="of Keras: float32 or mixed_bfloat16")
parser.add_argument("--rounds", type=int, default=12)
parser.add_argument("--clips", type=int, default=2)
parser.add_argument("--seconds", type=float, default=1.0, help="length of a clip")
parser.add_argument("--pairs", type=int, default=256, help="N, of the encoder's losses")
parser.add_argument("--dim", type=int, default=2048, help="d of the encoder; PANNs' is 2,048")
parser.add_argument("--no-peer", action="store_true")
arguments = parser.parse_args()

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # see `backend.advice`
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-arguments.threads :])
if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    # A recording is separated two pieces at a time.
    tf.config.threading.set_inter_op_parallelism_threads(2 if arguments.what == "recording" else 1)

import keras  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402
from keras import ops  # noqa: E402

from sepcl_keras import CNN14, Coincidence, CoincidenceHead, MixIT, NTXent, TDCNPlusPlus, separate_file  # noqa: E402
from sepcl_keras.core.backend import inference, keep_memory  # noqa: E402
from sepcl_keras.separation import separate  # noqa: E402

RATE, BACKEND = 16_000, keras.backend.backend()


def peak_memory():
    """In KB, the most that this process has taken."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


rng = np.random.default_rng(0)


def seconds_of(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def with_gradients(loss, variables, *inputs):
    """A function that computes the loss and all gradients on the device, and waits for them."""
    inputs = [ops.convert_to_tensor(x) for x in inputs]
    if BACKEND == "tensorflow":

        @tf.function(autograph=False)
        def step(*inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                value = loss(*inputs)
            return value, tape.gradient(value, [v.value for v in variables] or inputs)

        return lambda: step(*inputs)[0].numpy()
    if BACKEND == "jax":
        import jax

        def stateless(values, *inputs):
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return loss(*inputs)

        step = jax.jit(jax.value_and_grad(stateless, argnums=0 if variables else 1))
        values = [v.value for v in variables]
        return lambda: jax.block_until_ready(step(values, *inputs))
    sys.exit("ours is timed on TensorFlow and on JAX")


def ceiling(policy, size=(1598, 256, 512)):
    """Floating-point operations a second of a matrix product of the blocks' own shape."""
    dtype = "bfloat16" if "bfloat16" in policy else "float32"
    rows, inner, columns = size if BACKEND == "tensorflow" else (8192, 8192, 8192)
    a, b = (ops.cast(rng.standard_normal(shape), dtype) for shape in ((rows, inner), (inner, columns)))
    if BACKEND == "jax":
        import jax

        product = jax.jit(lambda a, b: a @ b)
        run = lambda: jax.block_until_ready(product(a, b))  # noqa: E731
    else:
        run = lambda: [ops.matmul(a, b) for _ in range(20)]  # noqa: E731
    run()
    best = min(seconds_of(run) for _ in range(10))
    return 2 * rows * inner * columns * (20 if BACKEND == "tensorflow" else 1) / best


def products(sources):
    """A frame's multiplications in the matrices of the paper's separator."""
    return 256 * 512 * 2 * 32 + 256 * 256 + 256 * 256 * sources + 40 * 256 * (1 + sources)


def frames_of(clips):
    return len(clips) * (1 + (clips.shape[-1] - 40 + 19) // 20)


def compared(ours, theirs):
    """Times of both, taking turns: medians in seconds, quartiles of the ratio."""
    ours(), ours()
    if theirs:
        theirs()
    repeats = max(1, round(0.05 / seconds_of(ours)))  # what takes a millisecond is called often in a round
    several = lambda: [ours() for _ in range(repeats)]  # noqa: E731
    turns = [(seconds_of(several) / repeats, seconds_of(theirs) if theirs else np.nan) for _ in range(arguments.rounds)]
    times = np.array(turns)
    result = {"ours": float(np.median(times[:, 0]))}
    if theirs:
        result |= {"theirs": float(np.median(times[:, 1]))}
        result |= {"ratio": np.percentile(times[:, 1] / times[:, 0], [25, 50, 75]).round(2).tolist()}
    return result


def torch_step(function, *tensors):
    """Forward and backward on torch, on the GPU where there is one."""
    import torch

    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors = [torch.as_tensor(x, device=device) for x in tensors]

    def step():
        value = function(*tensors)
        value.backward()
        return float(value.detach())

    return step


def step():
    """Forward and backward of the paper's separator with four channels, and MixIT."""
    keras.config.set_dtype_policy(arguments.policy)
    separator, loss = TDCNPlusPlus(4), MixIT()
    separator.build((None, None))
    references = (0.1 * rng.standard_normal((arguments.clips, 2, round(arguments.seconds * RATE)))).astype("float32")
    ours = with_gradients(
        lambda references: loss(references, separator(ops.sum(references, axis=1))),
        separator.trainable_variables,
        references,
    )
    theirs = None
    if not arguments.no_peer:
        import peer
        import torch

        torch.manual_seed(0)
        other = peer.Separator(4).to("cuda" if torch.cuda.is_available() else "cpu")
        theirs = torch_step(lambda x: _peer_loss(peer, other, x), references)
    result = compared(ours, theirs)
    share = 6 * products(4) * frames_of(references[:, 0]) / result["ours"] / ceiling(arguments.policy)
    return result | {"share of the matrix-product ceiling": round(share, 3)}


def _peer_loss(peer, separator, references):
    separator.zero_grad()
    estimates = separator(references.sum(1))
    samples = min(estimates.shape[-1], references.shape[-1])
    return peer.mixit(estimates[..., :samples], references[..., :samples])


def mixit():
    """MixIT alone, eight estimates: forward, and the gradient of the estimates."""
    references = rng.standard_normal((4, 2, RATE)).astype("float32")
    estimates = rng.standard_normal((4, 8, RATE)).astype("float32")
    loss = MixIT()
    ours = with_gradients(lambda estimates: loss(references, estimates), [], estimates)
    if BACKEND == "jax":  # the gradient of the first input after the (empty) list of variables
        references = ops.convert_to_tensor(references)
    import peer
    import torch

    leaf = torch.tensor(estimates, requires_grad=True)
    return compared(ours, torch_step(lambda y: peer.mixit(leaf, y), references))


def start_small():
    """Separates by a small network: what a process starts once is no part of what a large one adds to it."""
    small = TDCNPlusPlus(2, num_basis=64, bottleneck=8, hidden=512, dilations=(1,), repeats=1)
    inference(small)(np.zeros((1, RATE), "float32"))


def separation():
    """Separation of one clip, two channels: real-time factor, and the memory it added to the process."""
    keras.config.set_dtype_policy(arguments.policy)
    limit = ceiling(arguments.policy)
    start_small()
    separate = inference(TDCNPlusPlus(2))
    clip = (0.1 * rng.standard_normal((1, round(arguments.seconds * RATE)))).astype("float32")
    before = peak_memory()
    first = seconds_of(lambda: separate(clip))
    times = [seconds_of(lambda: separate(clip)) for _ in range(max(1, min(arguments.rounds, int(120 / (first + 1)))))]
    peak = peak_memory()
    seconds = float(np.median(times))
    factors = (arguments.seconds / np.percentile(times, [75, 50, 25])).round(1).tolist()
    share = 2 * products(2) * frames_of(clip) / seconds / limit
    return {
        "seconds": seconds, "first": first, "times real time": factors, "memory_mb": (peak - before) / 1024,
        "share of the matrix-product ceiling": round(share, 3),
    }  # fmt: skip


def recording():
    """A file of noise by `separate_file`, reading and writing included: two pieces at a time and, in turns, one."""
    keras.config.set_dtype_policy(arguments.policy)
    start_small()
    separator, times = TDCNPlusPlus(2), []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/noise.wav"
        with soundfile.SoundFile(path, "w", RATE, 1) as file:
            for _ in range(round(arguments.seconds)):
                file.write(0.1 * rng.standard_normal(RATE))
        before = peak_memory()
        separated = lambda: separate_file(path, folder, separator, overwrite=True, show=False)  # noqa: E731
        first = seconds_of(separated)
        peak = peak_memory()
        for _ in range(max(1, min(arguments.rounds, int(120 / first)))):
            two = seconds_of(separated)
            with unittest.mock.patch.object(separate, "processes", lambda most: 1):
                times.append((two, seconds_of(separated)))
    two, one = np.array(times).T
    return {
        "seconds": float(np.median(two)), "memory_mb": (peak - before) / 1024,
        "times real time": (arguments.seconds / np.percentile(two, [75, 50, 25])).round(1).tolist(),
        "ratio": np.percentile(one / two, [25, 50, 75]).round(2).tolist(),
    }  # fmt: skip


def encoder():
    """Forward and backward of CNN14 at full width on patches of 0.96 s."""
    keras.config.set_dtype_policy(arguments.policy)
    patches = rng.standard_normal((arguments.clips, 96, 64)).astype("float32")
    network = CNN14(arguments.dim)
    network.build((None, 96, 64))
    ours = with_gradients(
        lambda patches: ops.mean(network(patches, training=True)), network.trainable_variables, patches
    )
    theirs = None
    if not arguments.no_peer:
        import panns
        import torch

        torch.manual_seed(0)
        other = panns.Encoder().to("cuda" if torch.cuda.is_available() else "cpu")
        theirs = torch_step(lambda x: _forgetting(other)(x).mean(), patches)
    shapes = [(96 * 64 // 4**block, 64 * 2**block) for block in range(5)] + [(96 * 64 // 4**5, 2048)]
    products = sum(9 * cells * width * (width + (width // 2 if width > 64 else 1)) for cells, width in shapes)
    result = compared(ours, theirs)
    share = 6 * products * arguments.clips / result["ours"] / ceiling(arguments.policy)
    return result | {"share of the matrix-product ceiling": round(share, 3)}


def _forgetting(network):
    """The network, its gradients of the step before forgotten."""
    network.zero_grad()
    return network


def training_memory(step_for):
    """Time of a forward and backward step, and the memory it added to the process: `step_for` pairs makes the step."""
    step_for(2)()  # what the backend needs once, whatever the size
    before = peak_memory()
    step = step_for(arguments.pairs)
    step()
    times = [seconds_of(step) for _ in range(arguments.rounds)]
    peak = peak_memory()
    return {"seconds": float(np.median(times)), "memory_mb": (peak - before) / 1024}


def coincidence():
    """The coincidence head (d = 128, 512 hidden units) and its loss, with all gradients."""
    head, loss = CoincidenceHead(), Coincidence()
    head.build((None, 128), (None, 128))

    def objective(h_m, h_c):
        logits = head(h_m, h_c)
        return loss(ops.zeros_like(logits), logits)

    def step_for(pairs):
        h_m, h_c = rng.standard_normal((2, pairs, 128)).astype("float32")
        return with_gradients(objective, head.trainable_variables, h_m, h_c)

    return training_memory(step_for)


def nt_xent():
    """NT-Xent on z (N, 128), with the gradient of z."""
    loss = NTXent()

    def step_for(pairs):
        z = rng.standard_normal((2, pairs, 128)).astype("float32")
        return with_gradients(lambda z: loss(z[0], z[1]), [], z)

    return training_memory(step_for)


if __name__ == "__main__":
    keep_memory()
    measurements = (step, mixit, separation, recording, encoder, coincidence, nt_xent)
    print(json.dumps({function.__name__: function for function in measurements}[arguments.what]()))
