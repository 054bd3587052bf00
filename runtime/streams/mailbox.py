"""A bounded queue between two stages."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """First in, first out, at most `capacity` items that may be dropped; the oldest of them makes room.

    Args:
        capacity: Of droppable items.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[tuple[Item, bool]] = deque()
        self._droppable = 0
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: Item, *, wait: bool = False, droppable: bool = True) -> Item | None:
        """Append an item and return the one that had to go for it.

        Args:
            item: What to pass on.
            wait: Wait for room rather than drop.
            droppable: Whether it counts, and may go; what must arrive is never dropped and never waits.
        """
        with self._changed:
            if droppable:
                self._changed.wait_for(lambda: not wait or self._closed or self._droppable < self._capacity)
            gone = self._oldest() if droppable and self._droppable >= self._capacity else None
            self._items.append((item, droppable))
            self._droppable += droppable
            self._changed.notify_all()
            return gone

    def get(self, timeout_s: float) -> Item | None:
        """Return the oldest item, `None` when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if not self._items:
                return None
            item, droppable = self._items.popleft()
            self._droppable -= droppable
            self._changed.notify_all()
            return item

    def wait(self, timeout_s: float) -> None:
        """Wait until there is an item; it stays."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)

    def close(self) -> None:
        """Wake and release whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)

    def _oldest(self) -> Item:
        place = next(i for i, (_, droppable) in enumerate(self._items) if droppable)
        item, _ = self._items[place]
        del self._items[place]
        self._droppable -= 1
        return item
