"""What the recipes draw: each from a stream of its own."""

from types import SimpleNamespace

import numpy as np

from sepcl_keras.encoder import recipe as encoders
from sepcl_keras.separation import recipe as separators

CLIPS = 12
PROFILE = SimpleNamespace(
    separator=dict(num_basis=8, frame_length=8, frame_step=4, bottleneck=4, hidden=4, dilations=(1,), repeats=1),
    separator_start="random", separator_seconds=1, sample_rate=100, separator_batch=4, separator_learning_rate=1e-3,
    snapshot_steps={"S2": 1}, embedding_dim=8, width=1, batch_size=2, supervised_steps=1, learning_rate=1e-3,
)  # fmt: skip


def test_separator_and_supervised_encoder_of_one_seed_do_not_draw_the_same_clips(monkeypatch, tmp_path):
    drawn = {}

    def fit(model, batches, *arguments, **options):
        data = batches(50)
        drawn[type(model).__name__] = np.concatenate([data[step][0].reshape(4, -1)[:, 0] for step in range(50)])

    monkeypatch.setattr(encoders, "fit", fit)
    monkeypatch.setattr(separators, "fit", fit)
    numbered = np.arange(CLIPS, dtype="float32")
    separators.train_separator(np.repeat(numbered[:, None], 100, axis=1), PROFILE, 0, tmp_path)
    encoders.train_supervised(np.tile(numbered[:, None, None], (1, 100, 64)), np.eye(CLIPS), PROFILE, 0)
    first, second = drawn.values()
    assert np.mean(first == second) < 0.2  # one in twelve by chance
