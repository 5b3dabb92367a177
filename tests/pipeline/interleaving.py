"""Threads that take turns as a scheduler says, so that every order in which they can meet is tried.

The code under test is the real one; only its `threading` is replaced. All that threads share lies behind conditions,
so that a switch matters only where one is entered or waited for: there an actor gives its turn back. Actors are
greenlets: a turn costs a microsecond, and nothing depends on the machine.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Self, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

T = TypeVar("T")


class Deadlock(AssertionError):
    """Nobody can go on, and somebody has not finished."""


class Actor:
    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.waits_for: object = None
        self.error: BaseException | None = None
        self._work = work
        self.turn = greenlet(self._run)

    @property
    def finished(self) -> bool:
        return bool(self.turn.dead)

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error


class Scheduler:
    """choose: of `count` actors that can go on, which does; the first is the one that had the last turn, if it can."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.actors: list[Actor] = []
        self._choose = choose
        self._hub = getcurrent()

    def spawn(self, name: str, work: Callable[[], None]) -> Actor:
        actor = Actor(name, work)
        actor.turn.parent = self._hub  # also of those that an actor starts
        self.actors.append(actor)
        return actor

    def run(self) -> None:
        """Until all have finished. Raises Deadlock, or what an actor raised."""
        last: Actor | None = None
        try:
            while not all(actor.finished for actor in self.actors):
                able = [actor for actor in self.actors if not actor.finished and actor.waits_for is None]
                if not able:
                    stuck = [actor.name for actor in self.actors if not actor.finished]
                    raise Deadlock(f"{', '.join(stuck)} wait for ever")
                if last in able:
                    able.remove(last)
                    able.insert(0, last)
                last = able[self._choose(len(able)) if len(able) > 1 else 0]
                last.turn.switch()
        finally:
            for actor in self.actors:
                actor.turn.throw(GreenletExit)
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error

    def pause(self, waits_for: object = None) -> None:
        """Called by an actor: others may go on. Without effect in the hub, which prepares the actors' work."""
        current = getcurrent()
        if current is self._hub:
            return
        actor = next(actor for actor in self.actors if actor.turn is current)
        actor.waits_for = waits_for
        self._hub.switch()

    def wake(self, waited_for: object) -> None:
        for actor in self.actors:
            if actor.waits_for is waited_for:
                actor.waits_for = None


class Threading:
    """What stands in for the module `threading` in the code under test."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.Lock = threading.Lock
        self.Event = threading.Event

        class Condition:
            def __enter__(self) -> Self:
                scheduler.pause()
                return self

            def __exit__(self, *exc: object) -> None:
                pass

            def wait(self) -> None:
                scheduler.pause(self)

            def notify_all(self) -> None:
                scheduler.wake(self)

        class Thread:
            def __init__(self, target: Callable[[], None], name: str, daemon: bool) -> None:
                self.name, self._target = name, target
                self._actor: Actor | None = None

            def start(self) -> None:
                self._actor = scheduler.spawn(self.name, self._work)

            def _work(self) -> None:
                try:
                    self._target()
                finally:
                    scheduler.wake(self)

            def is_alive(self) -> bool:
                return self._actor is not None and not self._actor.finished

            def join(self) -> None:
                scheduler.pause()
                while self.is_alive():
                    scheduler.pause(self)

        class Barrier:
            def __init__(self, parties: int) -> None:
                self._missing = parties

            def wait(self) -> None:
                self._missing -= 1
                scheduler.pause()
                while self._missing > 0:
                    scheduler.pause(self)
                scheduler.wake(self)

            def abort(self) -> None:
                self._missing = 0
                scheduler.wake(self)

        self.Condition, self.Thread, self.Barrier = Condition, Thread, Barrier

    @staticmethod
    def enumerate() -> list[object]:
        return []


class Later(Future[T]):
    """A Future whose waiting gives its turn back."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def result(self, timeout: float | None = None) -> T:
        self._scheduler.pause()
        while not self.done():
            self._scheduler.pause(self)
        return super().result()


class Pool:
    """What stands in for a ThreadPoolExecutor, whose threads start at once."""

    def __init__(self, threading: Threading, scheduler: Scheduler, max_workers: int) -> None:
        self._scheduler = scheduler
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Later[Any], Callable[[], Any]]] = deque()
        self._open = True
        self._threads = [threading.Thread(self._work, f"pass {n}", True) for n in range(max_workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[..., T], *arguments: object) -> Later[T]:
        later: Later[T] = Later(self._scheduler)
        with self._changed:
            self._waiting.append((later, partial(work, *arguments)))
            self._changed.notify_all()
        return later

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and self._open:
                    self._changed.wait()
                if not self._waiting:
                    return
                later, work = self._waiting.popleft()
            try:
                later.set_result(work())
            except Exception as error:
                later.set_exception(error)
            self._scheduler.wake(later)

    def shutdown(self, *, cancel_futures: bool = False) -> None:
        with self._changed:
            self._open = False
            if cancel_futures:
                for later, _ in self._waiting:
                    later.cancel()
                    self._scheduler.wake(later)
                self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()


def every_order(switches: int = 1_000_000) -> Iterator[Callable[[int], int]]:
    """A `choose` for each order of turns, with at most `switches` turns taken from one who could have gone on."""
    prefix: list[int] = []
    while True:
        taken: list[tuple[int, int]] = []

        def choose(count: int, prefix: list[int] = prefix, taken: list[tuple[int, int]] = taken) -> int:
            used = sum(1 for chosen, _ in taken if chosen)
            count = count if used < switches else 1
            chosen = prefix[len(taken)] if len(taken) < len(prefix) else 0
            taken.append((chosen, count))
            return chosen

        yield choose
        while taken and taken[-1][0] == taken[-1][1] - 1:
            taken.pop()
        if not taken:
            return
        prefix = [chosen for chosen, _ in taken]
        prefix[-1] += 1


def some_orders(count: int, seed: int = 0) -> Iterator[Callable[[int], int]]:
    """As many orders by chance; who has the turn mostly keeps it, as threads do."""
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        stay = rng.choice((0.0, 0.5, 0.8))
        yield lambda able, rng=rng, stay=stay: 0 if rng.random() < stay else rng.randrange(able)  # type: ignore[misc]
