"""A program for the tests: with TensorFlow out of reach, imports every module and uses what needs none.

    python without_tensorflow.py FOLDER

On JAX and torch it trains too; on NumPy, which cannot, it runs both networks and their losses forwards.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path


class Elsewhere(PathFinder):
    """Finds all but TensorFlow, as where that is not installed."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in ("tensorflow", "tensorflow_io", "tensorboard")
        return None if absent else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Elsewhere

import keras
import numpy as np
import soundfile
from keras.ops import convert_to_numpy as to_numpy

import sepcl_keras as sk
from sepcl_keras.encoder.embedding import embed_log_mel
from sepcl_keras.training.loop import Batches, fit

SEPARATOR = dict(num_basis=32, frame_length=32, frame_step=16, bottleneck=8, hidden=8, dilations=(1, 2), repeats=1)


def main(folder):
    for path in Path(sk.__file__).parent.glob("*/[!_]*.py"):
        if path.stem not in ("notebook", "hub"):  # which need IPython and matplotlib, and KerasHub
            import_module(f"sepcl_keras.{path.parent.name}.{path.stem}")
    rng = np.random.default_rng(0)
    soundfile.write(folder / "clip.wav", 0.1 * rng.standard_normal(22_050), 22_050)
    waveform = import_module("sepcl_keras.scenes.audio").read(folder / "clip.wav", 16_000)
    waveforms = np.stack([np.roll(waveform, 999 * clip) for clip in range(8)])[:, :15_600].astype("float32")
    patches = to_numpy(sk.LogMel()(waveforms))  # (8, 96, 64)
    separator, encoder = sk.TDCNPlusPlus(**SEPARATOR), sk.CNN14(8, width=1)
    separation = sk.SeparationModel(separator)
    contrast = sk.ContrastiveModel(encoder, augmentation=sk.SpecAugment(seed=0), augmented="second")
    pair = patches[:4], patches[4:]
    if keras.backend.backend() == "numpy":
        for model, batch in ((separation, waveforms), (contrast, pair)):
            assert np.isfinite(model.compute_loss(batch, y_pred=model(batch, training=False)))
    else:

        class Pairs(Batches):
            def __getitem__(self, step):
                return (pair,)

        for model, kind, data, crop in (
            (separation, Batches, waveforms, 4000),
            (contrast, Pairs, patches, 96),
        ):
            history = fit(
                model, lambda n, kind=kind, data=data, crop=crop: kind(data, crop, 4, n, 0), 2, 1e-3, show=False,
                folder=folder / type(model).__name__, log=folder / type(model).__name__,
            )  # fmt: skip
            assert len(history["first_losses"]) == 2 and np.isfinite(history["loss"]).all()
    for name, model, batch in (("separator", separator, waveforms), ("encoder", encoder, patches)):
        expected = to_numpy(model(batch))
        model.save(folder / f"{name}.keras")
        again = keras.saving.load_model(folder / f"{name}.keras")
        np.testing.assert_allclose(to_numpy(again(batch)), expected, atol=1e-5)
    h = embed_log_mel(patches, encoder)
    np.testing.assert_allclose(h[:, 0], expected, rtol=1e-3, atol=1e-4)
    assert not [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]
    print("runs on", keras.backend.backend())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
