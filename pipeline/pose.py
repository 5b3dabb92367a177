"""PosePipeline: runs a model over frames in several threads; Results come in order, and all threads end with the run.

    source -> capture -> prepare -> infer -> group -> caller

Each arrow is a Channel. Slots limit how many frames are in process: a frame is read from the source's channel only when
a slot is free, so that the newest frame of a camera is used and older ones are dropped before any work.
A slot takes up to `step.batch` frames of one size: consecutive ones of a file, or the newest of several live sources.
The network may process several slots of files, or of several live sources, concurrently. This raises throughput and
latency, so that it is not done for a single camera.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import numpy as np
from numpy.typing import NDArray

from core.progress import Progress, unseen
from export.zoo import DEFAULT_MODEL
from kernels.options import DecodeOptions
from pipeline.channel import Channel
from pipeline.models import StepOptions, open_step
from pipeline.people import PeopleStep, people_steps
from pipeline.sources import Source
from pipeline.stages import Job, captured, join, stage, start_threads
from pipeline.stats import Recorder
from pipeline.step import SLOTS, FrameStep
from pipeline.types import Frame, People, Result

# Filter of the pipeline's output; evaluation uses DecodeOptions(). Of the people of 288 real pictures, small finds 64 %
# with this score, and 77 % of what it finds are people; with 0.2 it is 52 and 91 %.
LIVE_OPTIONS = DecodeOptions(min_score=0.12, min_joint=0.1, duplicate_oks=0.7)

FILE_CAPACITY = 2  # frames read ahead of a file
RESULT_CAPACITY = 2  # results that may wait for a slow sink


class PosePipeline:
    """Finds people's poses in images and videos. Use it in a `with` block, or close it.

    model: a name of the zoo ("small" and "tiny" are bundled), an ONNX file made by `python -m export`, or a plan.
    engine: "auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx" or "torch".
    device: of OpenVINO: "CPU", "GPU" (Intel graphics) or "NPU".
    gpu: index of the NVIDIA GPU, from 0, among those that CUDA_VISIBLE_DEVICES shows; by default the first.
    frame_wh: width and height of the frames, if known: "auto" tests the GPU with one, and uses the CPU if that fails.
    size: short side of the network's input, instead of the model's own; a multiple of 64.
    flip: average with the mirrored frame: more accurate, twice the work.
    batch: frames per pass, of several live sources or of a file: higher throughput and latency on a GPU.
    options: of the decode. progress: called during slow work, see `open_step`.
    step: your own frame step; the other arguments are then ignored.
    Raises EngineError, ModelError, DownloadError or ValueError if the model cannot be loaded or run with these options.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        engine: str = "auto",
        size: int | None = None,
        flip: bool = False,
        device: str | None = None,
        gpu: int | None = None,
        frame_wh: tuple[int, int] | None = None,
        batch: int = 1,
        options: DecodeOptions = LIVE_OPTIONS,
        progress: Progress = unseen,
        step: FrameStep | None = None,
    ) -> None:
        self._min_score = 0.0 if step is not None else options.min_score  # of the default people steps
        if step is None:
            step_options = StepOptions(
                engine=engine,
                size=size,
                flip=flip,
                device=device,
                gpu=gpu,
                frame_wh=frame_wh,
                batch=batch,
                decode=options,
            )
            step = open_step(model, step_options, progress)
        self.step = step
        self._busy = threading.Lock()
        self._closed = False

    def __call__(self, image: NDArray[np.uint8], *, steps: Sequence[PeopleStep] | None = None) -> People:
        """The people of one upright BGR image (H, W, 3) uint8, without threads.

        steps: applied to people after the decode; by default only impossible parts of skeletons are removed.
        """
        frame = Frame(np.ascontiguousarray(image))
        steps = people_steps(ids=False, min_score=self._min_score) if steps is None else steps
        with self._alone():
            try:
                self.step.prepare(0, [frame.image])
                self.step.infer(0)
                return self._finish(0, [frame], steps)[0]
            finally:
                self.step.drain()

    def warm_up(self, frame_wh: tuple[int, int] = (640, 480)) -> None:
        """Compile and allocate everything for frames of this size, so that the first one does not wait."""
        with self._alone():
            self.step.warm_up(frame_wh)

    def run(
        self,
        source: Source,
        *,
        steps: Sequence[PeopleStep] | None = None,
        limit: int | None = None,
        serial: bool = False,
        recorder: Recorder | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Generator[Result, None, None]:
        """A Result for every frame, in order. Closes the source, also when the generator is closed early.

        A live source drops its oldest frame when the pipeline is slower, which leaves a gap in `frame.index`.
        steps: applied to people after the decode, in order; by default `people_steps()`, which removes impossible parts
            of skeletons and assigns ids. Steps with state belong to one run: make new ones for each run.
        limit: stop after this many frames. serial: run one stage after the other in the caller's thread, to measure.
        stop: asked ten times a second while there is no result; if it is true, the run ends. For programs whose signal
            handler raises nothing: an exception raised within a wait may, rarely, leave a lock behind in CPython.
        Raises SourceError, or StageError with its cause, once, after the results before the failure.
        """
        recorder = recorder if recorder is not None else Recorder()
        steps = people_steps(min_score=self._min_score) if steps is None else steps
        with self._alone(), source:
            if self.step.device is not None:
                source.leave_on(self.step.device)
            batch = 1 if source.is_single_camera else self.step.batch
            jobs = captured(source, recorder, batch=batch, limit=limit)
            done = self._serially(jobs, steps) if serial else self._threaded(jobs, source, recorder, steps, stop)
            try:
                for job in done:
                    yield from job.results()
            finally:
                done.close()
                self.step.drain()

    def close(self) -> None:
        """Release the model. May be called twice, but not during a run."""
        self._closed = True
        self.step.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serially(self, jobs: Iterable[Job], steps: Sequence[PeopleStep]) -> Generator[Job, None, None]:
        for job in jobs:
            yield self._group(self._infer(self._prepare((0, job))), steps)

    def _threaded(
        self,
        jobs: Iterable[Job],
        source: Source,
        recorder: Recorder,
        steps: Sequence[PeopleStep],
        stop: Callable[[], bool] | None,
    ) -> Generator[Job, None, None]:
        concurrency = 1 if source.is_single_camera else self.step.concurrency
        slots = self.step.slots if concurrency > 1 else min(self.step.slots, SLOTS)
        if source.keeps_newest:  # frames that wait for the network get old: one prepared frame is enough
            slots = min(slots, concurrency + 1)
        frames: Channel[Job] = Channel(1 if source.live else FILE_CAPACITY, drop_oldest=source.live)
        free: Channel[int] = Channel(slots)
        for slot in range(slots):
            free.put(slot)
        prepared: Channel[Job] = Channel(slots)
        inferred: Channel[Job | Future[Job]] = Channel(slots)
        results: Channel[Job] = Channel(RESULT_CAPACITY)
        passes = ThreadPoolExecutor(concurrency, thread_name_prefix="pose-pass")

        def start_pass(job: Job) -> Future[Job]:
            return passes.submit(self._infer_concurrent, job)

        def group(inferred: Job | Future[Job]) -> Job:
            job = self._group(inferred.result() if isinstance(inferred, Future) else inferred, steps)
            free.put(job.slot)
            return job

        # zip reads `free` first, so that it reads the newest frame once a slot is free
        if source.keeps_newest:
            stages = [stage("prepare", zip(free, jobs, strict=False), self._prepare, prepared)]
        else:
            stages = [stage("capture", jobs, lambda job: job, frames)]
            stages.append(stage("prepare", zip(free, frames, strict=False), self._prepare, prepared, frames))
        if concurrency == 1:
            stages.append(stage("infer", prepared, self._infer, inferred, prepared))
        else:  # `group` waits for each pass in order: every result is passed on as soon as it is there
            stages.append(stage("infer", prepared, start_pass, inferred, prepared))
        stages.append(stage("group", inferred, group, results, inferred, free))
        try:
            if concurrency > 1:
                start_threads(passes, concurrency)
            for thread in stages:
                thread.start()
            for job in results.until(stop):
                recorder.dropped = frames.dropped + source.dropped
                yield job
        finally:
            recorder.dropped = frames.dropped + source.dropped
            source.interrupt()
            for channel in (results, inferred, prepared, free, frames):
                channel.cancel()
            for thread in stages:
                join(thread)
            passes.shutdown(cancel_futures=True)

    def _prepare(self, slot_and_job: tuple[int, Job]) -> Job:
        job = slot_and_job[1]
        job.slot = slot_and_job[0]
        job.timed("preprocess", self.step.prepare, job.slot, [frame.picture for frame in job.frames])
        return job

    def _infer(self, job: Job) -> Job:
        job.timed("infer", self.step.infer, job.slot)
        return job

    def _infer_concurrent(self, job: Job) -> Job:
        job.timed("infer", self.step.infer_concurrent, job.slot)
        return job

    def _group(self, job: Job, steps: Sequence[PeopleStep]) -> Job:
        job.people = job.timed("group", self._finish, job.slot, job.frames, steps)
        return job

    def _finish(self, slot: int, frames: Sequence[Frame], steps: Sequence[PeopleStep]) -> list[People]:
        """The people of each of the slot's frames, after the steps."""
        finished = []
        for frame, found in zip(frames, self.step.finish(slot), strict=True):
            people = found
            for step in steps:
                people = step(frame, people)
            finished.append(people)
        return finished

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse a second run, which would write into the slots of the first."""
        if self._closed:
            raise RuntimeError("this PosePipeline is closed; make a new one")
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this PosePipeline is already running; finish or close that run, or make a second one")
        try:
            yield
        finally:
            self._busy.release()
