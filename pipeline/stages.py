"""Parts of PosePipeline's threads: a Job, and the thread of a stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import NoReturn, ParamSpec, Protocol, TypeVar

from core.errors import PoseError, StageError, describe
from core.signals import interrupt_behind
from pipeline.channel import Cancelled, Channel
from pipeline.sources import Source
from pipeline.stats import Recorder
from pipeline.types import Frame, People, Result

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


@dataclass(eq=False)
class Job:
    """Frames of one size in one slot, with their people and timings so far."""

    frames: list[Frame]
    recorder: Recorder
    slot: int = -1
    people: list[People] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        start = time.perf_counter()
        try:
            value = work(*arguments, **named)
        except Exception as error:
            fail(f"{stage} failed on {frames_name(self.frames)}", error)
        self.record(stage, start)
        return value

    def record(self, stage: str, start: float) -> None:
        stop = time.perf_counter()
        self.timings[stage] = (stop - start) * 1e3
        self.recorder.record(stage, start, stop)

    def results(self) -> Iterator[Result]:
        """One Result per frame, with the latency until now."""
        for frame, people in zip(self.frames, self.people, strict=True):
            yield Result(frame, people, {**self.timings, "latency": (time.monotonic() - frame.captured_at) * 1e3})


def fail(where: str, error: Exception) -> NoReturn:
    """Raise a StageError for what a stage raised, or the KeyboardInterrupt behind it."""
    interrupt = interrupt_behind(error)
    if interrupt is not None:
        raise interrupt from None
    raise StageError(f"{where}: {describe(error)}") from error


def captured(source: Source, recorder: Recorder, *, batch: int, limit: int | None) -> Iterator[Job]:
    """The source's frames in Jobs of up to `batch`, `limit` frames in all. An error names the frame before it."""
    where = source.name
    left = limit
    batches = source.batches(batch)
    while left is None or left > 0:
        start = time.perf_counter()
        try:
            frames = next(batches)
        except StopIteration:
            return
        except Exception as error:
            if isinstance(error, PoseError) and interrupt_behind(error) is None:
                raise
            fail(f"capture failed after {where}", error)
        frames = frames[:left]
        left = None if left is None else left - len(frames)
        where = frames_name(frames[-1:])
        job = Job(frames, recorder)
        job.record("capture", start)
        yield job


def start_threads(executor: Executor, count: int) -> None:
    """Start its `count` threads now. By itself it starts the last one when that many calls overlap, perhaps hours
    later."""
    together = threading.Barrier(count)
    try:
        for _ in range(count):
            executor.submit(together.wait)
    except BaseException:
        together.abort()
        raise


class Cancellable(Protocol):
    """A Channel of any items."""

    def cancel(self) -> None: ...


def stage(
    name: str, items: Iterable[T], work: Callable[[T], U], outbox: Channel[U], *inboxes: Cancellable
) -> threading.Thread:
    """A thread that works on items until they end, the next stage stops reading, or an error occurs.

    In each case it cancels its inboxes and closes its outbox, with the error if there is one.
    """

    def loop() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                outbox.put(work(item))
        except Cancelled:
            pass
        except BaseException as caught:  # passed to the caller through the channels
            error = caught
        finally:
            for inbox in inboxes:
                inbox.cancel()
            outbox.close(error)

    return threading.Thread(target=loop, name=f"pose-{name}", daemon=True)


def join(thread: threading.Thread) -> None:
    """Wait for a thread to end, also if a Ctrl-C interrupted its start: it is then listed and will run soon."""
    deadline = time.monotonic() + 1
    while thread in threading.enumerate() and not thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    if thread.is_alive():
        thread.join()


def frame_name(frame: Frame) -> str:
    """The frame's name in error messages."""
    return f"frame {frame.index}" + (f" of {frame.source}" if frame.source else "")


def frames_name(frames: list[Frame]) -> str:
    """The name of several frames: the first one's, and the number of the others."""
    more = f" and {len(frames) - 1} more" if len(frames) > 1 else ""
    return frame_name(frames[0]) + more
