"""PosePipeline: a model and the threads around it. Frames in, Results out, in order; nothing is left running.

    source -> capture -> prepare -> infer -> group -> caller

Each arrow is a Channel. Slots bound how many frames are on their way: a frame is taken from the source's channel only
when a slot is free, so that a camera's newest frame is taken, and old ones are dropped before any work went into them.
A file's frames may be in the network side by side: more of them a second, each later, which a camera's must not be.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.errors import PoseError, StageError
from core.progress import Progress, unseen
from kernels.options import DecodeOptions
from pipeline.channel import Cancelled, Channel
from pipeline.models import open_step
from pipeline.sources import Source
from pipeline.stats import Recorder
from pipeline.step import SLOTS, FrameStep
from pipeline.types import Frame, People, Result

# What leaves a live pipeline; evaluation uses DecodeOptions() itself. Chosen by eye on street clips: below these, most
# of what is drawn is not a person.
LIVE_OPTIONS = DecodeOptions(min_score=0.2, min_joint=0.1, duplicate_oks=0.7)

FILE_CAPACITY = 2  # frames read ahead of a file
RESULT_CAPACITY = 2  # results that may wait for a slow sink

T = TypeVar("T")
U = TypeVar("U")


class PosePipeline:
    """People's poses from images and videos. Use it in a `with` block, or close it.

    model: a name of the zoo ("tiny" is bundled), an ONNX file made by `python -m export`, or a plan.
    engine: "auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx" or "torch".
    device: of OpenVINO: "CPU", "GPU" (Intel's graphics) or "NPU".
    size: the frame's short side in the network, instead of the model's own; a multiple of 64.
    flip: average with the mirrored frame: more accurate, twice the work.
    Raises EngineError, ModelError, DownloadError or ValueError if the model cannot be had or run so.
    """

    def __init__(
        self,
        model: str = "tiny",
        *,
        engine: str = "auto",
        size: int | None = None,
        flip: bool = False,
        device: str | None = None,
        options: DecodeOptions = LIVE_OPTIONS,
        progress: Progress = unseen,
        step: FrameStep | None = None,
    ) -> None:
        """step: a frame step of your own; the other arguments then say nothing. progress: see `open_step`."""
        if step is None:
            step = open_step(
                model, engine=engine, size=size, flip=flip, device=device, options=options, progress=progress
            )
        self.step = step
        self._busy = threading.Lock()
        self._closed = False

    def __call__(self, image: NDArray[np.uint8]) -> People:
        """The people of one upright BGR image (H, W, 3) uint8. No threads."""
        frame = Frame(np.ascontiguousarray(image))
        with self._alone():
            try:
                self.step.prepare(0, frame.image)
                self.step.infer(0)
                return self.step.finish(0)
            finally:
                self.step.settle()

    def warm_up(self, frame_wh: tuple[int, int] = (640, 480)) -> None:
        """Do now what the first frame of this size would wait for."""
        with self._alone():
            self.step.warm_up(frame_wh)

    def run(
        self,
        source: Source,
        *,
        limit: int | None = None,
        serial: bool = False,
        recorder: Recorder | None = None,
    ) -> Generator[Result, None, None]:
        """A Result for every frame, in order. Closes the source, at the end and when the generator is closed early.

        A live source drops its oldest frame when the pipeline is slower; the gap shows in `frame.index`.
        limit: stop after this many frames. serial: one stage after the other in the caller's thread, to measure them.
        Results before a failure are yielded first; then it is raised, once: SourceError, or StageError with its cause.
        """
        recorder = recorder if recorder is not None else Recorder()
        with self._alone(), source:
            jobs = itertools.islice(_captured(source, recorder), limit)
            results = self._serially(jobs) if serial else self._threaded(jobs, source, recorder)
            try:
                for job in results:
                    job.timings["latency"] = (time.monotonic() - job.frame.captured_at) * 1e3
                    yield Result(job.frame, job.people, job.timings)
            finally:
                results.close()
                self.step.settle()

    def close(self) -> None:
        """Release the model. May be called twice; not while a run is going on."""
        self._closed = True
        self.step.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serially(self, jobs: Iterable[_Job]) -> Generator[_Job, None, None]:
        for job in jobs:
            yield self._group(self._infer(self._prepare((0, job))))

    def _threaded(self, jobs: Iterable[_Job], source: Source, recorder: Recorder) -> Generator[_Job, None, None]:
        beside = 1 if source.live else self.step.at_once
        slots = self.step.slots if beside > 1 else min(self.step.slots, SLOTS)
        frames: Channel[_Job] = Channel(1 if source.live else FILE_CAPACITY, drop_oldest=source.live)
        free: Channel[int] = Channel(slots)
        for slot in range(slots):
            free.put(slot)
        prepared: Channel[_Job] = Channel(slots)
        inferred: Channel[_Job] = Channel(slots)
        results: Channel[_Job] = Channel(RESULT_CAPACITY)
        passes = ThreadPoolExecutor(beside, thread_name_prefix="pose-pass")  # its threads start with its first work

        def group(job: _Job) -> _Job:
            self._group(job)
            free.put(job.slot)
            return job

        stages = [
            _stage("capture", jobs, lambda job: job, frames),
            # zip asks `free` first: the frame it then takes is the newest
            _stage("prepare", zip(free, frames, strict=False), self._prepare, prepared, frames),
            _stage("infer", prepared, self._infer, inferred, prepared)
            if beside == 1
            else _stage("infer", self._side_by_side(prepared, passes, beside), lambda job: job, inferred, prepared),
            _stage("group", inferred, group, results, inferred, free),
        ]
        try:
            for thread in stages:
                thread.start()
            for job in results:
                recorder.dropped = frames.dropped
                yield job
        finally:
            recorder.dropped = frames.dropped
            source.interrupt()
            for channel in (results, inferred, prepared, free, frames):
                channel.cancel()
            for thread in stages:
                _join(thread)
            passes.shutdown(cancel_futures=True)

    def _prepare(self, slot_and_job: tuple[int, _Job]) -> _Job:
        job = slot_and_job[1]
        job.slot = slot_and_job[0]
        job.timed("preprocess", self.step.prepare, job.slot, job.frame.image)
        return job

    def _infer(self, job: _Job) -> _Job:
        job.timed("infer", self.step.infer, job.slot)
        return job

    def _infer_beside(self, job: _Job) -> _Job:
        job.timed("infer", self.step.infer_beside, job.slot)
        return job

    def _side_by_side(self, jobs: Iterator[_Job], passes: Executor, at_once: int) -> Iterator[_Job]:
        """Jobs in their order, with `at_once` of them in the network, and one more that waits for the first to leave.

        Where a pass or the stage before fails, the frames before it leave first.
        """
        under_way: deque[Future[_Job]] = deque()
        failure: BaseException | None = None
        while failure is None:
            try:
                under_way.append(passes.submit(self._infer_beside, next(jobs)))
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

    def _group(self, job: _Job) -> _Job:
        job.people = job.timed("group", self.step.finish, job.slot)
        return job

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two runs would write into each other's slots: the second is refused."""
        if self._closed:
            raise RuntimeError("this PosePipeline is closed; make a new one")
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this PosePipeline is already running; finish or close that run, or make a second one")
        try:
            yield
        finally:
            self._busy.release()


@dataclass(eq=False)
class _Job:
    """A frame on its way, with what is known of it so far."""

    frame: Frame
    recorder: Recorder
    slot: int = -1
    people: People = field(default_factory=People.nobody)
    timings: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str, work: Callable[..., T], *arguments: Any) -> T:
        start = time.perf_counter()
        try:
            value = work(*arguments)
        except Exception as error:
            raise StageError(f"{stage} failed on {frame_name(self.frame)}: {describe(error)}") from error
        self.record(stage, start)
        return value

    def record(self, stage: str, start: float) -> None:
        stop = time.perf_counter()
        self.timings[stage] = (stop - start) * 1e3
        self.recorder.record(stage, start, stop)


def frame_name(frame: Frame) -> str:
    """The frame as an error names it."""
    return f"frame {frame.index}" + (f" of {frame.source}" if frame.source else "")


def describe(error: BaseException) -> str:
    """One line for a user: the message, after the type's name where the message alone would puzzle."""
    text = " ".join(str(error).split())
    known = isinstance(error, PoseError | ValueError | OSError)
    return text if known and text else f"{type(error).__name__}: {text}" if text else type(error).__name__


def _captured(source: Source, recorder: Recorder) -> Iterator[_Job]:
    frames = iter(source)
    where = source.name
    while True:
        start = time.perf_counter()
        try:
            frame = next(frames)
        except StopIteration:
            return
        except PoseError:
            raise
        except Exception as error:
            raise StageError(f"capture failed after {where}: {describe(error)}") from error
        where = frame_name(frame)
        job = _Job(frame, recorder)
        job.record("capture", start)
        yield job


def _join(thread: threading.Thread) -> None:
    """Wait for a thread to end, also for one whose start a Ctrl-C cut short: it is listed, and runs any moment now."""
    deadline = time.monotonic() + 1
    while thread in threading.enumerate() and not thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    if thread.is_alive():
        thread.join()


def _stage(
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
