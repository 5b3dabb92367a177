"""Channel: a bounded queue between two threads that can end, fail and be abandoned. Knows nothing of frames.

The writer calls `put` and at last `close`; the reader iterates and, if it stops early, calls `cancel`. What was put
before a failure is still read, in order, and then the failure is raised, once.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Cancelled(Exception):
    """The reader has gone: nobody will take what is put."""


class Channel(Generic[T]):
    """At most `capacity` items wait. A full channel makes the writer wait, or drops its oldest item and counts it."""

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
        """Hand over one item; wait for room unless the channel drops. Raises Cancelled when the reader has gone."""
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
        """No more items will come; `error` says why, if something went wrong. Later calls change nothing."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._error = error
                self._changed.notify_all()

    def cancel(self) -> None:
        """The reader leaves: waiting items are let go, and the writer's next `put` raises Cancelled."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next item; at the end StopIteration, or once the error the channel was closed with."""
        with self._changed:
            while not self._items:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                if self._closed or self._cancelled:
                    raise StopIteration
                self._changed.wait()
            item = self._items.popleft()
            self._changed.notify_all()
            return item
