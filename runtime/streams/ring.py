"""The bounded buffer between capture and everything else."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from edgeser.runtime.audio import Samples


@dataclass(frozen=True)
class Mark:
    """Something that happened at a place in the audio.

    Attributes:
        kind: `gap`, `flush` or `end`.
        reached: Set once everything before it has been answered.
    """

    kind: str
    reached: threading.Event = field(default_factory=threading.Event)


class RingBuffer:
    """Samples from writers to one reader, in preallocated memory; a full one loses its oldest samples.

    Args:
        capacity: In samples.
    """

    def __init__(self, capacity: int) -> None:
        self._samples = np.zeros(capacity, np.float32)
        self._written = 0  # positions count from the stream's start, so that lost samples keep their place in time
        self._read = 0
        self._marks: deque[tuple[int, Mark]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._wanted = 1
        self.lost = 0

    def write(self, samples: Samples) -> None:
        """Append `(n,)` float32 samples, any number; where there is no room, the oldest unread ones go: `lost`."""
        size = self._samples.shape[0]
        for begin in range(0, samples.shape[0], size):
            piece = samples[begin : begin + size]
            with self._changed:
                if self._closed:
                    return
                self._make_room(piece.shape[0])
                self._put(piece)
                if self._written - self._read >= self._wanted:  # a writer of single samples wakes nobody in vain
                    self._changed.notify_all()

    def wait_for_room(self, count: int, timeout_s: float) -> bool:
        """Wait until so many samples would find room, and return whether they would."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or self._room() >= count, timeout_s)

    @property
    def room(self) -> int:
        """Samples that can be written before any is lost."""
        with self._changed:
            return self._room()

    def mark(self, mark: Mark) -> None:
        """Note that something happens after the last sample written."""
        with self._changed:
            self._marks.append((self._written, mark))
            self._changed.notify_all()

    def read(self, count: int, timeout_s: float) -> tuple[int, Samples, Mark | None]:
        """Return the position, the next samples, and the mark that follows them.

        A position further on than the last read's end tells that samples were lost in between.

        Args:
            count: Samples wanted. Fewer come right before a mark, none when too few came in time.
            timeout_s: How long to wait.
        """
        with self._changed:
            self._wanted = count
            self._changed.wait_for(
                lambda: self._closed or self._marks or self._written - self._read >= count, timeout_s
            )
            place, mark = self._marks[0] if self._marks else (None, None)
            until = self._read + count
            if place is not None and place <= until:
                until = max(place, self._read)
                self._marks.popleft()
            elif self._written < until:
                return self._read, np.zeros(0, np.float32), None
            else:
                mark = None
            position, samples = self._read, self._get(until)
            self._read = until
            self._changed.notify_all()
            return position, samples, mark

    def close(self) -> None:
        """Wake and release whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def written(self) -> int:
        """Samples written since the stream began."""
        return self._written

    def _room(self) -> int:
        return self._samples.shape[0] - (self._written - self._read)

    def _make_room(self, count: int) -> None:
        missing = count - self._room()
        if missing > 0:
            self._read += missing
            self.lost += missing

    def _put(self, piece: Samples) -> None:
        size = self._samples.shape[0]
        place = self._written % size
        first = min(piece.shape[0], size - place)
        self._samples[place : place + first] = piece[:first]
        self._samples[: piece.shape[0] - first] = piece[first:]
        self._written += piece.shape[0]

    def _get(self, until: int) -> Samples:
        size = self._samples.shape[0]
        place, count = self._read % size, until - self._read
        first = min(count, size - place)
        return np.concatenate((self._samples[place : place + first], self._samples[: count - first]))
