"""Augmentations: what it may change, what it must not, and that each patch has its own draw."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

from sepcl_keras.core.checks import BadInput
from sepcl_keras.views.augmentation import Mixing, Noise, Shift, SpecAugment

MASKS_OFF = dict(time_masks=0, frequency_masks=0)


def patches(clips=40, frames=96, mels=64, seed=0):
    return np.random.default_rng(seed).standard_normal((clips, frames, mels)).astype("float32")


def test_does_nothing_outside_training():
    x = patches(2)
    np.testing.assert_array_equal(np.asarray(SpecAugment(seed=0)(x)), x)


def test_masks_are_stripes_of_the_patch_mean_no_wider_than_asked():
    x = patches()
    y = np.asarray(SpecAugment(time_warp=0, time_width=12, frequency_width=8, seed=0)(x, training=True))
    changed = y != x
    frames, mels = changed.all(axis=2), changed.all(axis=1)  # whole frames and whole bands
    assert frames.sum(axis=1).max() <= 24 and mels.sum(axis=1).max() <= 16
    assert frames.any() and mels.any()
    # Nothing but stripes changed, and where it did there stands the mean of the patch.
    np.testing.assert_array_equal(changed, frames[:, :, None] | mels[:, None])
    means = np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(y[changed], means[changed], atol=1e-6)


def test_mask_widths_are_uniform_from_zero_to_the_width():
    """One mask of width U{0 … 12}: the mean number of masked frames is 6, and 12 occurs."""
    layer = SpecAugment(time_warp=0, time_masks=1, frequency_masks=0, time_width=12, seed=1)
    widths = (np.asarray(layer(patches(4_000, 96, 2), training=True)) != patches(4_000, 96, 2)).all(axis=2).sum(axis=1)
    assert widths.mean() == pytest.approx(6.0, abs=0.25)
    assert widths.min() == 0 and widths.max() == 12


def test_each_patch_has_its_own_draw_and_each_call_another():
    x = np.repeat(patches(1), 8, axis=0)
    layer = SpecAugment(seed=0)
    first, second = (np.asarray(layer(x, training=True)) for _ in range(2))
    assert len({y.tobytes() for y in (*first, *second)}) == 16
    np.testing.assert_array_equal(np.asarray(SpecAugment(seed=0)(x, training=True)), first)


def test_no_two_of_ten_seeds_and_twenty_calls_share_their_masks():
    """On torch, Keras' generator of seed 0 is at its fourth call where that of seed 3 begins."""
    x, seen = patches(2), set()
    for seed in range(10):
        layer = SpecAugment(time_warp=0, seed=seed)
        seen |= {to_numpy(layer(x, training=True)).tobytes() for _ in range(20)}
    assert len(seen) == 200


def test_layers_of_one_class_and_seed_draw_alike_and_others_do_not():
    """As Keras' own layers do; two in one model are given two seeds."""
    x = patches(2)
    first, same, other = (to_numpy(SpecAugment(seed=seed, name=name)(x, training=True))
                          for seed, name in ((0, "a"), (0, "b"), (1, "a")))  # fmt: skip
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("layer", [SpecAugment, Noise, Shift, Mixing])
def test_clips_of_varying_length_are_changed_in_fit(layer):
    class Lengths(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, step):
            frames = (96, 40, 2)[step]
            return patches(4, frames), np.zeros((4, 64), "float32")

    class Kept(keras.layers.Layer):
        """Adds up what it was given, by frames."""

        def call(self, x):
            return ops.mean(x, axis=1)

    model = keras.Sequential([keras.Input((None, 64)), layer(seed=0), Kept(), keras.layers.Dense(64)])
    model.compile("sgd", "mse", jit_compile=False)
    history = model.fit(Lengths(), verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends know all lengths")
@pytest.mark.parametrize("layer", [SpecAugment, Noise, Shift, Mixing])
def test_an_open_number_of_frames_changes_nothing(layer):
    import tensorflow as tf

    for frames in (96, 3, 1):
        x, opened = patches(6, frames), layer(seed=0)
        traced = tf.function(lambda x: opened(x, training=True), input_signature=[tf.TensorSpec((None, None, 64))])  # noqa: B023
        np.testing.assert_allclose(traced(x), layer(seed=0)(x, training=True), atol=1e-5)


@pytest.mark.parametrize("layer", [SpecAugment, Noise, Shift, Mixing])
def test_other_shapes_are_refused(layer):
    for shape in ((96, 64), (2, 96, 64, 1)):
        with pytest.raises(BadInput, match=r"patches of shape .*; expected \(clips, frames, mels\)"):
            layer(seed=0)(np.zeros(shape, "float32"), training=True)


def test_the_warp_keeps_both_ends_the_order_and_a_linear_ramp_piecewise():
    ramp = np.tile(np.arange(96, dtype="float32")[None, :, None], (50, 1, 3))
    warped = np.asarray(SpecAugment(time_warp=6, seed=0, **MASKS_OFF)(ramp, training=True))[:, :, 0]
    np.testing.assert_allclose(warped[:, 0], 0, atol=1e-4)
    np.testing.assert_allclose(warped[:, -1], 95, atol=1e-4)
    assert (np.diff(warped) > 0).all()  # time runs forward
    # A frame is moved by at most six, and some are moved by several. Near the ends the map may stretch, never more.
    moved = np.abs(warped - np.arange(96))
    assert moved.max() <= 6 + 1e-3 and moved.max() > 3


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float32"])
def test_output_keeps_shape_and_compute_dtype(dtype):
    layer = SpecAugment(seed=0, dtype=dtype)
    y = layer(patches(3), training=True)
    assert y.shape == (3, 96, 64) and keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_draws_and_does_the_same(dtype):
    full, half = (np.asarray(ops.cast(SpecAugment(seed=0, dtype=d)(patches(6), training=True), "float32"))
                  for d in ("float32", dtype))  # fmt: skip
    np.testing.assert_allclose(half, full, atol=0.05)


@keras.saving.register_keras_serializable(package="sepcl_keras_tests")
class SecondHalf(keras.layers.Layer):
    """Augments the second half of a batch alone, always, as a model does that spares one of two views."""

    def __init__(self, augmentation, **kwargs):
        super().__init__(**kwargs)
        self.augmentation = augmentation

    def call(self, x):
        half = ops.shape(x)[0] // 2
        return ops.concatenate([x[:half], self.augmentation(x[half:], training=True)], axis=0)


def test_works_compiled_on_a_part_of_a_batch_of_open_size():
    x = patches(20)
    model = keras.Sequential([keras.Input((96, 64)), SecondHalf(SpecAugment(time_warp=0, seed=0))])
    model.compile(jit_compile="auto" if keras.backend.backend() != "torch" else False)
    y = model.predict(x, batch_size=8, verbose=0)  # batches of 8, 8 and 4
    changed = (y != x).any(axis=(1, 2))
    spared = np.r_[0:4, 8:12, 16:18]
    assert not changed[spared].any()
    assert np.delete(changed, spared).mean() > 0.8  # a patch whose masks all have width zero is rare
    # Each patch has its own stripes, in the later batches too.
    stripes = (y != x)[np.delete(np.arange(20), spared)]
    assert len({each.tobytes() for each in stripes}) >= 8


def test_patches_too_short_to_warp_are_masked_only():
    for frames in (1, 2, 3):
        y = np.asarray(SpecAugment(seed=0)(patches(5, frames), training=True))
        assert np.all(np.isfinite(y))
        warped = to_numpy(SpecAugment(seed=0, **MASKS_OFF)(patches(5, frames), training=True))
        np.testing.assert_allclose(warped, patches(5, frames), atol=1e-6)


def test_config_round_trip_and_refusals():
    layer = SpecAugment(time_warp=3, time_masks=1, seed=5)
    copy = SpecAugment.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    np.testing.assert_array_equal(
        np.asarray(copy(patches(2), training=True)), np.asarray(layer(patches(2), training=True))
    )
    for size in (-1, 1.5, None, np.nan, True):
        with pytest.raises(BadInput, match="time_width=.*: expected a whole number of at least 0"):
            SpecAugment(time_width=size)
    with pytest.raises(BadInput, match="seed=0.5: expected a whole number"):
        Shift(seed=0.5)


@pytest.mark.once
def test_saved_and_loaded_it_passes_patches_on(tmp_path, in_a_fresh_process):
    model = keras.Sequential([keras.Input((96, 64)), SpecAugment(time_masks=1, seed=3)])
    model.save(tmp_path / "augmentation.keras")
    np.testing.assert_array_equal(in_a_fresh_process(tmp_path / "augmentation.keras", patches(2)), patches(2))
    loaded = keras.saving.load_model(tmp_path / "augmentation.keras").layers[-1]
    assert loaded.get_config()["time_masks"] == 1


# --- the triplet system's constraints


def log_mel(clips=12, frames=96, mels=64, seed=0):
    """Patches as `LogMel` gives them: the logarithm of magnitudes plus 0.01."""
    magnitudes = np.random.default_rng(seed).gamma(1.0, size=(clips, frames, mels)) * np.geomspace(0.01, 1, mels)
    return np.log(magnitudes + 0.01).astype("float32")


def magnitudes(x):
    return np.exp(np.asarray(x, "float64")) - 0.01


CONSTRAINTS = [Noise(seed=0), Shift(seed=0), Mixing(seed=0), Mixing(0.0, 0.05, seed=0)]


@pytest.mark.parametrize("layer", CONSTRAINTS)
def test_constraints_do_nothing_outside_training_and_draw_for_each_patch_by_seed(layer):
    x = np.repeat(log_mel(4), 2, axis=0)
    np.testing.assert_array_equal(np.asarray(layer(x)), x)
    again = type(layer).from_config(layer.get_config())
    first = np.asarray(again(x, training=True))
    np.testing.assert_array_equal(np.asarray(type(layer).from_config(layer.get_config())(x, training=True)), first)
    assert first.shape == x.shape and np.isfinite(first).all()
    assert len({patch.tobytes() for patch in first}) > 5  # two that are alike may be mixed with the same one
    assert not np.array_equal(np.asarray(again(x, training=True)), first)
    assert again.get_config() == layer.get_config()


def test_noise_raises_each_cell_by_one_plus_half_a_normal_number():
    factors = magnitudes(Noise(seed=1)(log_mel(), training=True)) / magnitudes(log_mel())
    loud = magnitudes(log_mel()) > 0.05  # elsewhere rounding beside 0.01 shows
    assert factors[loud].min() > 0.999
    assert factors[loud].mean() == pytest.approx(1 + 0.5 * np.sqrt(2 / np.pi), abs=0.005)
    assert np.mean((factors[loud] - 1) ** 2) == pytest.approx(0.25, abs=0.01)


def test_shifts_go_round_in_time_and_leave_silence_in_frequency():
    x = log_mel(60)
    y = np.asarray(Shift(seed=0)(x, training=True))
    seen = set()
    for patch, shifted in zip(x, y, strict=True):
        candidates = [
            (frames, bands)
            for bands in range(-10, 11)
            for frames in range(96)
            if shifted[0, 32] == np.roll(patch, frames, axis=0)[0, 32 - bands]
        ]
        (frames, bands), = [c for c in candidates if np.array_equal(
            shifted[:, 10:-10], np.roll(patch, c, axis=(0, 1))[:, 10:-10])]  # fmt: skip
        seen.add((frames, bands))
        empty = shifted[:, :bands] if bands > 0 else shifted[:, 64 + bands :]
        np.testing.assert_allclose(empty, np.log(0.01), rtol=1e-6)
    bands = {bands for _, bands in seen}
    assert len(seen) > 50 and min(bands) < -7 and max(bands) > 7


@pytest.mark.parametrize("low, high", [(0.25, 0.25), (0.0, 0.05)])
def test_mixing_adds_another_patch_at_a_share_of_the_energy(low, high):
    x = log_mel(12)
    y = magnitudes(Mixing(low, high, seed=0)(x, training=True))
    energy = magnitudes(x) ** 2
    added = y**2 - energy
    shares = added.sum(axis=(1, 2)) / energy.sum(axis=(1, 2))
    assert low - 1e-3 <= shares.min() and shares.max() <= high + 1e-3
    for index in range(12):  # what is added is one of the others, scaled
        alike = [np.corrcoef(added[index].ravel(), other.ravel())[0, 1] for other in energy]
        assert np.argmax(alike) != index and max(alike) > (0.999 if shares[index] > 0.01 else 0.5)


def test_mixing_silence_stays_finite_and_a_negative_share_is_refused():
    silence = np.full((3, 96, 64), np.log(0.01), "float32")
    assert np.isfinite(np.asarray(Mixing(seed=0)(silence, training=True))).all()
    for low, high in ((0.5, 0.25), (-0.1, 0.25), (np.nan, 0.25), (0.0, np.nan), (0.0, np.inf)):
        with pytest.raises(BadInput, match="Mixing: .*: expected a finite number of at least"):
            Mixing(low, high)
