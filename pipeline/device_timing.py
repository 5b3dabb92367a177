"""Times work on a GPU by its own clock: events before and after it, on the stream that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

from engine.device import Device, Stream

TIMED_PASSES = 16  # that are queued together, so that the device never waits
FEWEST = 3  # passes that are timed, however long they take


def time_queued(launch: Callable[[], None], device: Device, stream: Stream, *, seconds: float) -> list[float]:
    """Milliseconds of each pass of `launch`, which enqueues one on the stream, repeated for about `seconds`.

    The device's context must be current.
    """
    times_ms: list[float] = []
    marks = [device.event(timing=True) for _ in range(TIMED_PASSES + 1)]
    while len(times_ms) < FEWEST or sum(times_ms) < seconds * 1e3:
        launch()  # the first of a queue waits for the host and is not timed
        marks[0].record(stream)
        for mark in marks[1:]:
            launch()
            mark.record(stream)
        marks[-1].wait()
        times_ms += [after.ms_since(before) for before, after in pairwise(marks)]
    device.free(*marks)
    return times_ms


def time_in_turn(
    work: Mapping[str, Callable[[], None]], device: Device, stream: Stream, *, seconds: float
) -> dict[str, list[float]]:
    """Milliseconds of each part of `work`, one after another on the stream, the whole repeated for about `seconds`.

    The device's context must be current.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in work}
    marks = [device.event(timing=True) for _ in range(len(work) + 1)]
    rounds = 0
    while rounds < FEWEST or sum(map(sum, times_ms.values())) < seconds * 1e3:
        rounds += 1
        marks[0].record(stream)
        for enqueue, mark in zip(work.values(), marks[1:], strict=True):
            enqueue()
            mark.record(stream)
        marks[-1].wait()
        for name, (before, after) in zip(work, pairwise(marks), strict=True):
            times_ms[name].append(after.ms_since(before))
    device.free(*marks)
    return times_ms
