"""Where the course runs: which networks to compile on which device, and the switch that makes runs repeatable."""

import contextlib
import ctypes
import functools
import itertools
import math
import os
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

_repeatable = False  # TensorFlow has no public way to ask


def keep_memory():
    """Asks glibc to keep freed memory for the next step instead of handing it back to the system.

    TensorFlow on a CPU allocates and frees hundreds of megabytes a step; fetching their pages anew took 5 to 30 % of
    it. Where there is no glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def compile_with_xla():
    """The measured choice of `jit_compile`: on JAX always, on torch never, on TensorFlow for a GPU.

    On a CPU the convolutions of CNN14 would lose oneDNN and become many times slower; TDCN++ compiles its own parts.
    Keras refuses it while TensorFlow's operations are asked to be deterministic, as in the course.
    """
    backend = keras.backend.backend()
    return backend == "jax" or (backend == "tensorflow" and not _repeatable and has_gpu())


def has_gpu():
    """Whether Keras computes on a GPU: one that TensorFlow was told not to use does not count."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU"))
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    import torch

    return torch.cuda.is_available()


def processes(most):
    """How many processes to work in side by side, at most so many: one on a GPU, and no more than there are cores."""
    return 1 if has_gpu() else min(most, os.cpu_count())


@functools.cache
def start_xla():
    """Lets TensorFlow's XLA greet while nobody listens: it writes to the process's standard error at any log level."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with tf.init_scope():
            tf.function(lambda x: x + 1.0, jit_compile=True, autograph=False)(tf.zeros(1))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def advice():
    """One sentence where Keras runs on a backend that was measured to be slow on this device, else None."""
    backend = keras.backend.backend()
    if has_gpu():
        return None
    # TensorFlow leaves oneDNN unused on processors without instructions for neural networks, unless asked in time.
    if backend == "tensorflow" and not _uses_onednn():
        return (
            "TensorFlow runs without oneDNN, with which a training step of CNN14 took a third of the time; "
            "TF_ENABLE_ONEDNN_OPTS=1, set before Keras is imported, is the faster choice."
        )
    slower = {"jax": "ten", "torch": "two"}.get(backend)
    return slower and (
        f"Keras runs on {backend} on a CPU, where a training step of CNN14 took {slower} times as long as on "
        "TensorFlow; KERAS_BACKEND=tensorflow is the faster choice."
    )


def _uses_onednn():
    with contextlib.suppress(ImportError):
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled  # TensorFlow says it nowhere else

        return IsMklEnabled() or sys.platform == "darwin"  # built without it there
    return True


def block_of(numbers):
    """How many rows of so many float32 numbers to work on at a time, where all of them would be too much memory."""
    # On a CPU 2 MB: blocks in its second cache took a third to a quarter of the time of eight times larger ones. A GPU
    # gets 128 MB, because each block costs it a start.
    block = 2**25 if has_gpu() else 2**19
    return max(1, block // numbers) if isinstance(numbers, int) else ops.maximum(1, block // numbers)


def map_blocks(function, blocks):
    """What `ops.map` gives; no gradient flows through it.

    On torch the results go into one array made beforehand: each small one that stayed where large ones come and go
    would keep glibc from using that memory again, 2 GB instead of 10 MB for a coincidence grid of 1,024 pairs.
    """
    if keras.backend.backend() != "torch":
        return ops.map(function, blocks)
    results = None
    for index, block in enumerate(blocks):
        result = function(block)
        results = result.new_empty((len(blocks), *result.shape)) if results is None else results
        results[index] = result
    return results


def full_precision():
    """A context in which products of float32 matrices are made in float32; JAX on a GPU would round factors to ten
    bits.

    TensorFlow does so too and can be told otherwise only for the whole process; torch does not.
    """
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.default_matmul_precision("float32")


@functools.cache
def multiplies_bfloat16():
    """Whether half precision is the faster choice to train an encoder: on a GPU, and on a CPU with instructions for it.

    There a step of CNN14 took 0.73 of its time in float32 (AMD EPYC, one core, width 8).
    """
    if has_gpu():
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False
    return keras.backend.backend() == "tensorflow" and ("avx512_bf16" in flags or "amx_bf16" in flags)


@contextlib.contextmanager
def precision(policy):
    """A context in which layers are made with a dtype policy, such as "mixed_bfloat16"; None leaves what is set."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@functools.cache
def _cuts_off():
    """Whether TensorFlow cuts a product of bfloat16 matrices off instead of rounding it, as on a CPU without
    AVX-512."""
    import tensorflow as tf

    with tf.init_scope():
        product = tf.matmul(tf.constant([[1.0, 1.0]], "bfloat16"), tf.constant([[1.0], [0.75 / 128]], "bfloat16"))
        return float(product[0, 0]) == 1.0  # the nearest bfloat16 number is 1 + 1/128


def matmul(a, b, product=ops.matmul, **options):
    """The `product`, Keras' or TensorFlow's, of two matrices: its bfloat16 numbers are the nearest ones on any device.

    Where TensorFlow cuts off, each product would be too small by up to 1/128, and networks add that up. Made and
    rounded in float32, it takes as long.
    """
    half = keras.backend.backend() == "tensorflow" and keras.backend.standardize_dtype(a.dtype) == "bfloat16"
    if not (half and _cuts_off()):
        return product(a, b, **options)
    return ops.cast(product(ops.cast(a, "float32"), ops.cast(b, "float32"), **options), "bfloat16")


def in_double_precision(function):
    """`function`, made of `keras.ops` from one tensor to another, computed in float64; takes and gives float32.

    JAX knows float64 only inside a context of its own, which its gradient would leave: there that is float32's.
    """

    def computed(x):
        return ops.cast(function(ops.cast(x, "float64")), "float32")

    if keras.backend.backend() != "jax":
        return computed
    import jax

    @jax.custom_vjp
    def in_context(x):
        with jax.enable_x64(True):
            return computed(x)

    def backward(x, gradient):
        with full_precision():
            return jax.vjp(function, x)[1](gradient)

    in_context.defvjp(lambda x: (in_context(x), x), backward)
    return lambda x: in_context(ops.convert_to_tensor(x, "float32"))


def use_all_devices():
    """Shares every batch among all devices that JAX sees; on other backends, and with one device, does nothing.

    To be called before weights are made, which then lie on each device. The step stays a single device's: batch norm's
    statistics, NT-Xent and coincidence see the clips of all devices. Those of other hosts are among them once
    `jax.distributed.initialize(...)` was called there and here, before anything else; each host gives its own clips
    (see `host`).
    """
    if keras.backend.backend() == "jax" and len(keras.distribution.list_devices()) > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def host():
    """(index, count) of this process among those that train together by `jax.distributed`; else (0, 1)."""
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def of_all_hosts(batch):
    """A nest of arrays (clips, ...), each with the clips of all hosts one after the other; the same on every host."""
    if host()[1] == 1:
        return batch
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(batch, tiled=True)


def number_of_devices():
    """Among how many devices a batch is shared."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.device_mesh.devices.size


def feed(data):
    """`x` and `steps_per_epoch` for Keras' `fit`, to go through `data`, a `PyDataset`, again and again.

    Where its batches depend on an attribute `epoch`, that is counted as Keras and `on_epoch_end` would. On TensorFlow,
    Keras would make a pipeline for each epoch, and wait at its end for the thread that tunes it: on two cores TDCN++
    trained at two thirds of its speed. Here one pipeline serves all epochs, and nothing is tuned.
    """
    if keras.backend.backend() != "tensorflow":
        return data, None
    import tensorflow as tf

    first = getattr(data, "epoch", 0) + 1  # as Keras has it, which ends an epoch before the first one begins

    def batches():
        for data.epoch in itertools.count(first):
            yield from (data[step] for step in range(len(data)))

    signature = keras.tree.map_structure(lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), data[0])
    options = tf.data.Options()
    options.autotune.enabled = False
    pipeline = tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)
    return pipeline.with_options(options), len(data)


def inference(model, batch_size=1):
    """A function from a NumPy batch to the model's NumPy output, compiled as suits the device.

    Batches are filled up with zeros to a multiple of `batch_size`, so that a shorter one at the end is not compiled for
    anew, and of the number of devices.
    """
    model.jit_compile, multiple = compile_with_xla(), math.lcm(batch_size, number_of_devices())

    def predict(batch):
        filling = np.zeros((-len(batch) % multiple, *batch.shape[1:]), batch.dtype)
        return model.predict_on_batch(np.concatenate([batch, filling]))[: len(batch)]

    return predict


def fused_batch_norm(layer, x, training):
    """What a `BatchNormalization` layer over the last axis gives by TensorFlow's fused operation; mean and variance.

    Keras composes it of a dozen passes over memory; on a CPU the fused one takes a quarter off a step of CNN14.
    """
    import tensorflow as tf

    statistics = [tf.constant([], "float32")] * 2 if training else [layer.moving_mean, layer.moving_variance]
    inputs = x if x.shape.rank == 4 else x[:, :, None]  # (clips, frames, 1 or mels, channels)
    if x.shape[-1] % 16 and not has_gpu():  # oneDNN is 20 times slower in bfloat16 where channels fill no register
        inputs = tf.cast(inputs, "float32")
    parts = (tf.cast(part, "float32") for part in (layer.gamma, layer.beta, *statistics))
    names = dict(zip(("scale", "offset", "mean", "variance"), parts, strict=True))
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(x=inputs, epsilon=layer.epsilon, is_training=training, **names)
    if training:
        # The variance comes as an estimate for unseen data, divided by n − 1; Keras on other backends divides by n.
        number = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], "float32")
        variance *= (number - 1.0) / number
    return y if x.shape.rank == 4 else y[:, :, 0], mean, variance


def make_repeatable(seed):
    """Seeds Python, NumPy and Keras, and asks TensorFlow for deterministic operations."""
    global _repeatable
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        _repeatable = True
