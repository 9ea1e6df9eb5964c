"""Sounds of many files in their order, decoded ahead by threads as far as there is room."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from sepcl_keras.core.checks import BadInput

THREADS = 4  # that decode: one keeps up with a CPU's network many times over
FILES_AHEAD = 64  # short ones of a second make a batch only together


class Ahead:
    """The sounds of files in their order, which threads decode ahead.

    Args:
        paths: of the files.
        stretches: a function from a path to the file's sound, stretch by stretch: (first sample, waveform).
        limit: samples that are held at most, but for the one stretch that each thread has in hand.
    """

    def __init__(self, paths, stretches, limit):
        self.paths, self.stretches, self.limit = paths, stretches, limit
        self.held, self.head, self.stopped = 0, 0, False
        self.waiting, self.changed = {}, threading.Condition()  # index → stretches, and at last how the file ended

    def sounds(self):
        """(index, (first sample, waveform)), and at a file's end (index, None), or its `BadInput`."""
        pool, number = ThreadPoolExecutor(THREADS, "decoding"), len(self.paths)
        try:
            for index in range(min(FILES_AHEAD, number)):
                pool.submit(self._decode, index)
            for self.head in range(number):
                with self.changed:
                    self.changed.notify_all()
                while isinstance(sound := self._next(), tuple):
                    yield self.head, sound
                if self.head + FILES_AHEAD < number:
                    pool.submit(self._decode, self.head + FILES_AHEAD)
                del self.waiting[self.head]
                if not (sound is None or isinstance(sound, BadInput)):
                    raise sound
                yield self.head, sound
        finally:
            with self.changed:
                self.stopped = True
                self.changed.notify_all()
            pool.shutdown(cancel_futures=True)

    def _next(self):
        with self.changed:
            self.changed.wait_for(lambda: self.waiting.get(self.head))
            sound = self.waiting[self.head].popleft()
            self.held -= _size(sound)
            self.changed.notify_all()
        return sound

    def _decode(self, index):
        end = None
        try:
            for sound in self.stretches(self.paths[index]):
                if not self._put(index, sound):
                    return
        except Exception as error:
            end = error
        self._put(index, end)

    def _put(self, index, sound):
        """Waits for room, which the file that the network is at has whenever nothing of it is held."""
        with self.changed:
            mine = self.waiting.setdefault(index, deque())
            self.changed.wait_for(lambda: self.stopped or self.held < self.limit or (index == self.head and not mine))
            mine.append(sound)
            self.held += _size(sound)
            self.changed.notify_all()
            return not self.stopped


def _size(sound):
    return len(sound[1]) if isinstance(sound, tuple) else 0
