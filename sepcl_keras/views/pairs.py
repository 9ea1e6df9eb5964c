"""Pairs of views for training: the OR rule, the choice of channel and crop, drawn from seed, epoch and step."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from sepcl_keras.core.checks import BadInput, check_number, numbers, one_of
from sepcl_keras.core.draws import generator
from sepcl_keras.views.log_mel import PATCH_FRAMES
from sepcl_keras.views.stored import QUIET

# → which of the two views are channels
PAIRINGS = {"mix-mix": (), "mix-chan": (1,), "chan-chan": (0, 1), "composition": ()}
AHEAD = 2  # batches that are read while the device works on the one before


class ViewPairs(keras.utils.PyDataset):
    """Batches of pairs of patches ((N, 96, mels), (N, 96, mels)): two views of the same clip, cropped independently.

    What is drawn is a pure function of seed, epoch and step. Crops are anywhere in the clip (temporal proximity). For a
    channel, one of the listed processors (the OR rule) and one of its sources is drawn for each clip; in `"chan-chan"`
    for each of the two views, independently, so that now and then both are the same channel at two moments. In
    `"composition"` the second view is made without a separator: another clip sounds in it for some of the time, the
    larger of both log-mels in each cell (Alex et al. 2025, SSLAM); its width is any number of frames.

    Of views in shards, a patch that is damaged on disk is counted (`views.damaged`), and its pair is one of the clip
    that comes next. Where several machines train together, each goes through the clips of its own shards.

    The next batches are read in the background. In memory are these, and the order of the clips: 4 bytes for each.

    Args:
        views: `Views`.
        pairing: `"mix-mix"`, `"mix-chan"`, `"chan-chan"` or `"composition"`.
        processors: names for the OR rule, at equal odds, or a dict from name to odds such as `{"S2": 2.0, "N": 1.0}`;
            not needed without channels.
        batch_size: pairs in a batch. steps: batches in an epoch.
        reject_quiet: a drawn channel more than 40 dB under its mixture gives way to one of the clip that is not: of the
            same processor if there is one, else of the other ones by their odds; where all are quiet, the loudest. All
            other draws stay as they are. Off by default: the paper does not mention it.
        coincidence_crops: gives four arrays, the last two for the coincidence task alone: views of the same clips, with
            channels and moments drawn anew. The first two stay as they are.
    """

    def __init__(
        self, views, pairing="mix-chan", processors=(), batch_size=64, steps=50, seed=0, reject_quiet=False,
        coincidence_crops=False,
    ):  # fmt: skip
        super().__init__()
        one_of("pairing", pairing, PAIRINGS)
        check_number("batch_size", batch_size, least=1, whole=True)
        check_number("steps", steps, least=1, whole=True)
        if batch_size > len(views):
            raise BadInput(f"batch_size={batch_size}: expected at most the number of clips, {len(views)}.")
        if pairing == "composition" and len(views) < 2:
            raise BadInput("composition of 1 clip: expected 2 or more.")
        self.views, self.pairing, self.batch_size, self.steps, self.seed = views, pairing, batch_size, steps, seed
        self.reject_quiet, self.coincidence_crops, self.odds = reject_quiet, coincidence_crops, {}
        if PAIRINGS[pairing]:
            self.channel_columns = views.columns(tuple(processors))
            odds = processors if isinstance(processors, Mapping) else dict.fromkeys(processors, 1.0)
            total = numbers("the odds of processors", list(odds.values()), ("processors",)).sum()
            if min(odds.values()) <= 0:
                raise BadInput(f"processors={processors}: expected odds above zero.")
            self.odds = {name: float(value / total) for name, value in odds.items()}
        index, count = views.host
        self.apart = (index, count) if count > 1 else ()  # draws of machines that train together are their own
        self.epoch, self._order, self._coming = 0, (None, None), {}
        self._readers = ThreadPoolExecutor(AHEAD, "reading")

    def __len__(self):
        return self.steps

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, step):
        # Not by Keras' workers: on JAX and torch they hand out batches of the epoch before, and each epoch's end takes
        # them 0.1 s. What is read ahead here is kept by its step from the beginning, and met at no other.
        step += self.epoch * self.steps
        coming = {later: self._coming.get(later) for later in range(step, step + 1 + AHEAD)}
        coming = {later: batch or self._readers.submit(self._read, later) for later, batch in coming.items()}
        batch = coming.pop(step)
        self._coming = coming
        return batch.result()

    def _read(self, step):
        clips, columns, starts = self.draw(step)
        read = [self.views.patches(clips, *which) for which in zip(columns, starts, strict=True)]
        patches, damaged = tuple(patches for patches, _ in read), ~np.all([whole for _, whole in read], axis=0)
        if damaged.any():
            self._replace(step, clips, columns, starts, patches, np.flatnonzero(damaged))
        if self.pairing == "composition":
            self._compose(step, clips, patches[1])
        return (patches,)

    def _compose(self, step, clips, patches):
        """Lets other clips sound for some of the time in patches (N, 96, mels)."""
        rng, number, frames = generator(self.seed, "views", "composition", *self.apart, step), *self.views.shape[::2]
        others = (clips + rng.integers(1, number, len(clips))) % number
        begins = rng.integers(0, frames - PATCH_FRAMES + 1, len(clips))
        heard, whole = self.views.patches(others, np.zeros(len(clips), int), begins)
        widths = rng.integers(0, PATCH_FRAMES + 1, len(clips)) * whole
        starts, frame = (rng.random(len(clips)) * (PATCH_FRAMES - widths + 1)).astype(int), np.arange(PATCH_FRAMES)
        there = (frame >= starts[:, None]) & (frame < (starts + widths)[:, None])
        np.maximum(patches, heard, out=patches, where=there[:, :, None])

    def _replace(self, step, clips, columns, starts, patches, rows):
        """Clips that come next in the order of this turn take the places of damaged ones: those of these rows.

        They keep what was drawn, but for channels that are quiet in them, where these are rejected.
        """
        turn, position = divmod(step, len(self.views) // self.batch_size)
        others = np.roll(self._clips_of(turn), -(position + 1) * self.batch_size)[: len(self.views) - self.batch_size]
        others, again = iter(others[:, None]), self._generator("in place of damaged ones", step)
        for row in rows:
            for other in others:
                drawn, level = columns[:, [row]], self._levels(other)
                if level is not None:
                    channels = [view for view in range(len(drawn)) if view % 2 in PAIRINGS[self.pairing]]
                    drawn[channels] = [self._not_quiet(drawn[view], level, again) for view in channels]
                read = [self.views.patches(other, *which) for which in zip(drawn, starts[:, [row]])]
                if all(whole.all() for _, whole in read):
                    break
            else:
                raise BadInput(f"{len(self.views.damaged)} damaged clips: expected others to take their places.")
            for kept, (patch, _) in zip(patches, read, strict=True):
                kept[row] = patch[0]

    def check(self, model):
        """Refuses a model whose encoder takes another log-mel than these are."""
        recipe = getattr(getattr(model, "encoder", None), "recipe", self.views.recipe)
        if recipe != self.views.recipe:
            raise BadInput(f"views of log-mel {self.views.recipe!r}: expected {recipe!r}, which the encoder takes.")

    def draw(self, step):
        """Clips (N,), views (2, N) and first frames (2, N) of the batch at this step, counted from the beginning.

        With crops for the coincidence task of their own, views and first frames are (4, N).
        """
        number, frames = len(self.views), self.views.shape[2]
        steps_per_pass = number // self.batch_size
        turn, position = divmod(step, steps_per_pass)
        clips = self._clips_of(turn)[position * self.batch_size : (position + 1) * self.batch_size]
        rng, again = (self._generator(use, step) for use in ("draws", "in place of quiet ones"))
        level = self._levels(clips)
        columns, starts = [], []
        for _ in range(2 if self.coincidence_crops else 1):
            columns.append(np.zeros((2, self.batch_size), int))
            for view in PAIRINGS[self.pairing]:
                columns[-1][view] = self._channels(level, rng, again)
            starts.append(rng.integers(0, frames - PATCH_FRAMES + 1, (2, self.batch_size)))
        return clips, np.concatenate(columns), np.concatenate(starts)

    def _generator(self, use, number):
        return generator(self.seed, "views", use, *self.apart, number)

    def _levels(self, clips):
        """The levels (N, views) of these clips where quiet channels are rejected, else None."""
        return self.views.levels(clips) if self.reject_quiet and self.odds else None

    def _clips_of(self, turn):
        """All clips in the order of this turn; kept, because each step of the turn needs it."""
        known, order = self._order
        if known != turn:
            order = np.arange(len(self.views), dtype="int32")
            self._generator("order", turn).shuffle(order)
            self._order = turn, order  # in one go: threads share it
        return order

    def _channels(self, level, rng, again):
        """A channel's column for each clip; with their levels (N, views), `again` draws in place of quiet ones."""
        odds = self._odds_of_columns()
        drawn = rng.choice(self.channel_columns, self.batch_size, p=None if np.all(odds == odds[0]) else odds)
        return drawn if level is None else self._not_quiet(drawn, level, again)

    def _odds_of_columns(self):
        return np.repeat(list(self.odds.values()), self.views.num_sources) / self.views.num_sources

    def _not_quiet(self, drawn, level, again):
        """The drawn columns (N,), and others, which `again` draws, in place of those that are quiet by their level."""
        candidates, sources, odds = self.channel_columns, self.views.num_sources, self._odds_of_columns()
        quiet = np.take_along_axis(level, drawn[:, None], axis=1)[:, 0] < QUIET
        level = level[:, candidates]
        loud = level >= QUIET  # (N, candidates)
        same = (candidates - 1) // sources == (drawn[:, None] - 1) // sources
        loudest = np.eye(len(candidates), dtype=bool)[level.argmax(axis=1)]
        among = np.where((loud & same).any(axis=1, keepdims=True), loud & same, loud)
        among = np.where(loud.any(axis=1, keepdims=True), among, loudest)
        cumulative = np.cumsum(among * odds, axis=1)
        picked = (cumulative > again.random((len(level), 1)) * cumulative[:, -1:]).argmax(axis=1)
        return np.where(quiet, candidates[picked], drawn)

    def quiet_shares(self):
        """The share of channels more than 40 dB under their mixture: of each listed processor's, by name, and, as
        "drawn", of all draws by these odds, which is what `reject_quiet` keeps out."""
        shares = {name: self.views.quiet_share(name) for name in self.odds}
        return shares | {"drawn": sum(odds * shares[name] for name, odds in self.odds.items())}
