"""The channel, and the slots' protocol around it, in every order in which their threads can meet.

Small cases, all orders: no deadlock, no item lost, doubled or out of order, every error delivered once. The pipeline's
five threads meet in too many orders for that: all with few switches, and others by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

import pipeline.channel
import pipeline.pose
import pipeline.stages
from core.errors import StageError
from pipeline import PosePipeline
from pipeline.channel import Cancelled, Channel
from pipeline.types import People
from tests.pipeline.fakes import FakeSource, FakeStep, Fault, raising_at
from tests.pipeline.interleaving import Deadlock, Pool, Scheduler, Threading, every_order, some_orders

Orders = Iterator[Callable[[int], int]]


@pytest.fixture
def scheduled(monkeypatch) -> Callable[[Orders], Iterator[Scheduler]]:
    """A scheduler for each order, with the code's `threading` replaced meanwhile."""

    def schedulers(orders: Orders) -> Iterator[Scheduler]:
        for choose in orders:
            scheduler = Scheduler(choose)
            stand_in = Threading(scheduler)
            for module in (pipeline.channel, pipeline.stages):
                replace(monkeypatch, module, stand_in)
            monkeypatch.setattr(pipeline.pose, "ThreadPoolExecutor", pools(stand_in, scheduler))
            yield scheduler

    return schedulers


def pools(stand_in: Threading, scheduler: Scheduler) -> Callable[..., Pool]:
    return lambda max_workers, thread_name_prefix: Pool(stand_in, scheduler, max_workers)


def replace(monkeypatch, module: ModuleType, stand_in: Threading) -> None:
    monkeypatch.setattr(module, "threading", stand_in)


def write(channel: Channel[int], count: int, log: list[str], error: BaseException | None = None) -> Callable[[], None]:
    def work() -> None:
        try:
            for item in range(count):
                channel.put(item)
            channel.close(error)
        except Cancelled:
            log.append("cancelled")

    return work


def read(channel: Channel[int], got: list[int], log: list[str], leave_after: int = 99) -> Callable[[], None]:
    """Reads to the end, twice, so that an error that came again would be seen; or leaves."""

    def work() -> None:
        for _ in range(2):
            try:
                for item in channel:
                    got.append(item)
                    if len(got) == leave_after:
                        channel.cancel()
                        return
            except OSError as error:
                log.append(str(error))

    return work


@pytest.mark.parametrize("capacity", [1, 2])
@pytest.mark.parametrize("error", [None, OSError("gone")])
def test_all_items_come_once_in_order_and_then_the_error_once(scheduled, capacity, error):
    orders = 0
    for scheduler in scheduled(every_order()):
        channel: Channel[int] = Channel(capacity)
        got: list[int] = []
        log: list[str] = []
        scheduler.spawn("writer", write(channel, 3, log, error))
        scheduler.spawn("reader", read(channel, got, log))
        scheduler.run()
        assert got == [0, 1, 2]
        assert log == (["gone"] if error is not None else [])
        orders += 1
    assert orders > 20


@pytest.mark.parametrize("leave_after", [1, 2])
def test_a_reader_who_leaves_leaves_no_writer_waiting(scheduled, leave_after):
    outcomes = set()
    for scheduler in scheduled(every_order()):
        channel: Channel[int] = Channel(1)
        got: list[int] = []
        log: list[str] = []
        scheduler.spawn("writer", write(channel, 4, log))
        scheduler.spawn("reader", read(channel, got, log, leave_after))
        scheduler.run()
        assert got == list(range(leave_after))
        outcomes.add(tuple(log))
    assert outcomes == {("cancelled",)}


def test_a_third_who_cancels_ends_both(scheduled):
    lengths = set()
    for scheduler in scheduled(every_order(switches=3)):
        channel: Channel[int] = Channel(1)
        got: list[int] = []
        log: list[str] = []
        scheduler.spawn("writer", write(channel, 2, log, OSError("gone")))
        scheduler.spawn("reader", read(channel, got, log))
        scheduler.spawn("caller", channel.cancel)
        scheduler.run()
        assert got == [0, 1][: len(got)]
        assert len(log) <= 2
        assert log.count("gone") <= 1
        lengths.add(len(got))
    assert lengths == {0, 1, 2}


@pytest.mark.parametrize("capacity", [1, 2])
def test_a_channel_that_drops_counts_what_it_dropped_and_keeps_the_newest(scheduled, capacity):
    dropped = set()
    for scheduler in scheduled(every_order()):
        channel: Channel[int] = Channel(capacity, drop_oldest=True)
        got: list[int] = []
        log: list[str] = []
        scheduler.spawn("writer", write(channel, 4, log))
        scheduler.spawn("reader", read(channel, got, log))
        scheduler.run()
        assert got == sorted(set(got))
        assert got[-1] == 3
        assert len(got) + channel.dropped == 4
        dropped.add(channel.dropped)
    assert dropped == set(range(4 - capacity + 1))


@pytest.mark.parametrize("bad", [0, 1, None])
def test_a_stage_between_two_channels(scheduled, bad):
    """The pipeline's own stage: where it fails, the reader is told once and the writer waits for nobody."""

    def work(item: int) -> int:
        if item == bad:
            raise OSError("gone")
        return 10 * item

    for scheduler in scheduled(every_order(switches=2)):
        inbox: Channel[int] = Channel(1)
        outbox: Channel[int] = Channel(1)
        got: list[int] = []
        log: list[str] = []
        scheduler.spawn("writer", write(inbox, 3, log))
        pipeline.stages.stage("stage", inbox, work, outbox, inbox).start()
        scheduler.spawn("reader", read(outbox, got, log))
        scheduler.run()
        assert got == [0, 10, 20][: 3 if bad is None else bad]
        assert log.count("gone") == (bad is not None)


def test_a_deadlock_is_seen(scheduled):
    """A channel whose `put` wakes nobody: some order must show it, or these tests show nothing."""

    class Silent(Channel[int]):
        def put(self, item: int) -> None:
            with self._changed:
                self._items.append(item)

    with pytest.raises(Deadlock, match="reader"):
        for scheduler in scheduled(every_order()):
            channel = Silent(3)
            scheduler.spawn("writer", lambda channel=channel: channel.put(0))
            scheduler.spawn("reader", read(channel, [], [], leave_after=1))
            scheduler.run()


class Pausing(FakeStep):
    """In each call, too, others may go on."""

    def __init__(self, scheduler: Scheduler, concurrency: int = 1, **faults: Fault) -> None:
        super().__init__(concurrency=concurrency, **faults)  # type: ignore[arg-type]
        self._pause = scheduler.pause

    def prepare(self, slot: int, pictures: Sequence[Any]) -> None:
        super().prepare(slot, pictures)
        self._pause()

    def infer(self, slot: int) -> None:
        self._pause()
        super().infer(slot)

    def infer_concurrent(self, slot: int) -> None:
        self._pause()
        super().infer_concurrent(slot)
        self._pause()

    def finish(self, slot: int) -> list[People]:
        self._pause()
        return super().finish(slot)


def run_pipeline(scheduler: Scheduler, step: FakeStep, source: FakeSource, leave_after: int | None) -> list[int]:
    indices: list[int] = []

    def caller() -> None:
        results = PosePipeline(step=step).run(source)
        try:
            for result in results:
                assert result.people.keypoints[0, 0, 0] == result.frame.index
                indices.append(result.frame.index)
                if len(indices) == leave_after:
                    break
        finally:
            results.close()

    scheduler.spawn("caller", caller)
    scheduler.run()
    return indices


def pipeline_orders() -> Orders:
    yield from every_order(switches=1)
    yield from some_orders(100)


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("leave_after", [None, 1])
def test_the_pipeline_gives_every_frame_once_in_order(scheduled, leave_after, concurrency):
    for scheduler in scheduled(pipeline_orders()):
        source = FakeSource(5)
        indices = run_pipeline(scheduler, Pausing(scheduler, concurrency), source, leave_after)
        assert indices == list(range(5 if leave_after is None else leave_after))
        assert source.closed == 1
        assert all(actor.finished for actor in scheduler.actors)


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("stage", ["capture", "prepare", "infer", "finish"])
def test_a_failing_stage_reaches_the_caller_once_after_the_frames_before_it(scheduled, stage, concurrency):
    for scheduler in scheduled(some_orders(80)):
        step = Pausing(scheduler, concurrency, **({} if stage == "capture" else {stage: raising_at(2)}))
        source = FakeSource(5, fault=raising_at(2)) if stage == "capture" else FakeSource(5)
        indices: list[int] = []
        with pytest.raises(StageError, match="ZeroDivisionError: at 2"):
            indices = run_pipeline(scheduler, step, source, None)
        assert indices == []
        assert source.closed == 1
        assert all(actor.finished for actor in scheduler.actors)


def test_a_live_source_that_is_faster_loses_its_oldest_frames_only(scheduled):
    for scheduler in scheduled(some_orders(100)):
        source = FakeSource(6, live=True)
        indices = run_pipeline(scheduler, Pausing(scheduler), source, None)
        assert indices == sorted(set(indices))
        assert indices[-1] == 5
