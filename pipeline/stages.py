"""The parts of PosePipeline's threads: a Job, the thread of a stage, and passes side by side."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from core.errors import PoseError, StageError, describe
from pipeline.channel import Cancelled, Channel
from pipeline.sources import Source
from pipeline.stats import Recorder
from pipeline.types import Frame, People, Result

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


@dataclass(eq=False)
class Job:
    """Frames of one size on their way through a slot, with what is known of them so far."""

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
            raise StageError(f"{stage} failed on {frames_name(self.frames)}: {describe(error)}") from error
        self.record(stage, start)
        return value

    def record(self, stage: str, start: float) -> None:
        stop = time.perf_counter()
        self.timings[stage] = (stop - start) * 1e3
        self.recorder.record(stage, start, stop)

    def results(self) -> Iterator[Result]:
        """One a frame, its latency measured now."""
        for frame, people in zip(self.frames, self.people, strict=True):
            yield Result(frame, people, {**self.timings, "latency": (time.monotonic() - frame.captured_at) * 1e3})


def captured(source: Source, recorder: Recorder, *, batch: int, limit: int | None) -> Iterator[Job]:
    """The source's frames in Jobs of up to `batch`; `limit` frames in all. What goes wrong names the frame before."""
    where = source.name
    left = limit
    batches = source.batches(batch)
    while left is None or left > 0:
        start = time.perf_counter()
        try:
            frames = next(batches)
        except StopIteration:
            return
        except PoseError:
            raise
        except Exception as error:
            raise StageError(f"capture failed after {where}: {describe(error)}") from error
        frames = frames[:left]
        left = None if left is None else left - len(frames)
        where = frames_name(frames[-1:])
        job = Job(frames, recorder)
        job.record("capture", start)
        yield job


def side_by_side(jobs: Iterator[T], work: Callable[[T], U], passes: Executor, at_once: int) -> Iterator[U]:
    """`work` on jobs in their order, with `at_once` of them under way, and one more that waits for the first to end.

    Where `work` or the stage before fails, the jobs before it come out first.
    """
    under_way: deque[Future[U]] = deque()
    failure: BaseException | None = None
    while failure is None:
        try:
            under_way.append(passes.submit(work, next(jobs)))
        except StopIteration:
            break
        except BaseException as error:
            failure = error
        if len(under_way) > at_once:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
    if failure is not None:
        raise failure


def stage(
    name: str, items: Iterable[T], work: Callable[[T], U], outbox: Channel[U], *inboxes: Channel[Any]
) -> threading.Thread:
    """A thread that works on items until they end, the next stage leaves, or something fails.

    However it ends, the stages before it are cancelled and the one after it is told, with the error if there is one.
    """

    def loop() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                outbox.put(work(item))
        except Cancelled:
            pass
        except BaseException as caught:  # handed to the caller through the channels
            error = caught
        finally:
            for inbox in inboxes:
                inbox.cancel()
            outbox.close(error)

    return threading.Thread(target=loop, name=f"pose-{name}", daemon=True)


def join(thread: threading.Thread) -> None:
    """Wait for a thread to end, also for one whose start a Ctrl-C cut short: it is listed, and runs any moment now."""
    deadline = time.monotonic() + 1
    while thread in threading.enumerate() and not thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    if thread.is_alive():
        thread.join()


def frame_name(frame: Frame) -> str:
    """The frame as an error names it."""
    return f"frame {frame.index}" + (f" of {frame.source}" if frame.source else "")


def frames_name(frames: list[Frame]) -> str:
    """The same for several: the first one's name, and how many more."""
    more = f" and {len(frames) - 1} more" if len(frames) > 1 else ""
    return frame_name(frames[0]) + more
