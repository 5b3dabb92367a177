"""Channel: a bounded queue between two threads that either side can end.

The writer calls `put` and finally `close`; the reader iterates and calls `cancel` if it stops early. Items that were
put before a failure are read first, in order; then the failure is raised once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")

POLL_S = 0.1


class Cancelled(Exception):
    """The reader has stopped: no item will be read any more."""


class Channel(Generic[T]):
    """Holds at most `capacity` items. If it is full, the writer waits, or the oldest item is dropped and counted."""

    def __init__(self, capacity: int, *, drop_oldest: bool = False) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; expected at least 1")
        self.dropped = 0
        self._capacity = capacity
        self._drop_oldest = drop_oldest
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._cancelled = False
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Add an item; wait while the channel is full, unless it drops items. Raises Cancelled after `cancel`."""
        with self._changed:
            while len(self._items) >= self._capacity and not self._cancelled:
                if self._drop_oldest:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if self._cancelled:
                raise Cancelled
            if self._closed:
                raise RuntimeError("put on a closed channel")
            self._items.append(item)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """End the items. error: raised in the reader after the last item. Later calls have no effect."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._error = error
                self._changed.notify_all()

    def cancel(self) -> None:
        """Stop reading: waiting items are discarded, and the writer's next `put` raises Cancelled."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next item. At the end it raises the error that the channel was closed with, once, then StopIteration."""
        return self._next(None)

    def until(self, stop: Callable[[], bool] | None) -> Iterator[T]:
        """The items, as by iteration. stop: asked every `POLL_S` while there is none; if it is true, they end."""
        while True:
            try:
                item = self._next(stop)
            except StopIteration:
                return
            yield item

    def _next(self, stop: Callable[[], bool] | None) -> T:
        with self._changed:
            while not self._items:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                if self._closed or self._cancelled or (stop is not None and stop()):
                    raise StopIteration
                self._changed.wait(*(() if stop is None else (POLL_S,)))
            item = self._items.popleft()
            self._changed.notify_all()
            return item
