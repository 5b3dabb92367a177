"""PosePipeline: every frame, in order; a failure ends all threads and is raised once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from core.errors import SourceError, StageError
from core.signals import Stopped
from pipeline import PosePipeline
from pipeline.stats import Recorder
from tests.pipeline.fakes import FakeSource, FakeStep, Fault, raising_at

COUNT = 9
PLACES = [0, COUNT // 2, COUNT - 1]


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def failing_step(stage: str, fault: Fault, **options) -> FakeStep:
    step = FakeStep(**options)
    step.faults[stage] = fault
    return step


def run_to_end(pose: PosePipeline, source: FakeSource, **options) -> tuple[list[int], BaseException | None]:
    """The indices of the results, and the error at the end, if any."""
    seen: list[int] = []
    results = pose.run(source, **options)
    try:
        for result in results:
            assert result.people.keypoints[0, 0, 0] == result.frame.index
            seen.append(result.frame.index)
    except BaseException as error:
        assert list(results) == []  # once
        return seen, error
    return seen, None


@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_every_frame_comes_out_in_order(count, serial):
    step = FakeStep()
    source = FakeSource(count)
    seen, error = run_to_end(PosePipeline(step=step), source, serial=serial)
    assert (seen, error) == (list(range(count)), None)
    assert source.closed == 1
    assert step.most_in_flight <= step.slots


@pytest.mark.parametrize("concurrency", [2, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_every_frame_comes_out_in_order_where_passes_run_side_by_side(count, concurrency):
    """Every third pass takes longer than two of the others."""
    step = FakeStep(concurrency=concurrency, infer=lambda index: time.sleep(0.005 if index % 3 == 0 else 0.001))
    assert run_to_end(PosePipeline(step=step), FakeSource(count)) == (list(range(count)), None)
    assert step.most_in_flight <= step.slots
    assert step.max_concurrent == concurrency if count == 50 else step.max_concurrent <= concurrency


@pytest.mark.parametrize("bad", PLACES)
@pytest.mark.parametrize(("stage", "name"), [("prepare", "preprocess"), ("infer", "infer"), ("finish", "group")])
def test_the_frames_before_a_failure_come_out_where_passes_run_side_by_side(stage, name, bad):
    """The pass that fails is faster than those before it."""
    step = FakeStep(concurrency=3, infer=lambda index: time.sleep(0.0 if index == bad else 0.005))
    pass_of = step.faults[stage]

    def fault(index: int) -> None:
        pass_of(index)
        raising_at(bad)(index)

    step.faults[stage] = fault
    seen, error = run_to_end(PosePipeline(step=step), FakeSource(COUNT))
    assert seen == list(range(bad))
    assert str(error) == f"{name} failed on frame {bad} of fake: ZeroDivisionError: at {bad}"


@pytest.mark.parametrize("bad", [*PLACES, COUNT])
def test_the_frames_before_a_broken_source_come_out_where_passes_run_side_by_side(bad):
    source = FakeSource(COUNT, fault=raising_at(bad, SourceError("broken")))
    seen, error = run_to_end(PosePipeline(step=FakeStep(concurrency=2, seconds=0.005)), source)
    assert seen == list(range(bad))
    assert isinstance(error, SourceError)


def test_passes_side_by_side_take_no_longer_than_one():
    started = time.perf_counter()
    run_to_end(PosePipeline(step=FakeStep(concurrency=4, seconds=0.02)), FakeSource(40))
    assert time.perf_counter() - started < 0.6  # one after another: 0.8


def test_a_result_comes_as_soon_as_its_pass_ends():
    """It does not wait for the next frames, which a stalled stream never gives."""
    step, source = FakeStep(concurrency=4, seconds=0.01), FakeSource(6, interval_s=0.2)
    latencies = [result.timings["latency"] for result in PosePipeline(step=step).run(source)]
    assert len(latencies) == 6
    assert sorted(latencies)[3] < 150  # ms; several of the 0.2 s if it waited for one more frame


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_run_that_waits_for_a_frame_ends_when_it_is_asked_to(concurrency):
    started = time.monotonic()
    source = FakeSource(1000, interval_s=0.7)
    results = PosePipeline(step=FakeStep(concurrency=concurrency)).run(
        source, stop=lambda: time.monotonic() - started > 0.9
    )
    assert [result.frame.index for result in results] == [0]
    assert time.monotonic() - started < 2
    assert source.closed == 1


def test_no_thread_is_started_later_than_with_the_first_frame():
    """Passes that never overlap need one thread; the others are there all the same: their number is constant."""
    results = PosePipeline(step=FakeStep(concurrency=4)).run(FakeSource(20, interval_s=0.01))
    next(results)
    first = set(threading.enumerate())
    assert sum(thread.name.startswith("pose-pass") for thread in first) == 4
    for _ in results:
        assert set(threading.enumerate()) <= first


def test_leaving_early_waits_for_the_passes_under_way():
    step = FakeStep(concurrency=3, seconds=0.02)
    results = PosePipeline(step=step).run(FakeSource(1000))
    next(results)
    results.close()
    assert step.passing == set()


def test_a_cameras_frames_are_passed_one_after_another():
    step = FakeStep(concurrency=4)
    source = FakeSource(20, live=True, interval_s=0.001)
    assert run_to_end(PosePipeline(step=step), source)[1] is None
    assert step.max_concurrent == 0
    assert step.most_in_flight <= 3


@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize("bad", [*PLACES, COUNT])
def test_a_failing_source_ends_the_run_after_the_frames_before_it(bad, serial):
    source = FakeSource(COUNT, fault=raising_at(bad, SourceError("broken")))
    seen, error = run_to_end(PosePipeline(step=FakeStep()), source, serial=serial)
    assert seen == list(range(bad))
    assert isinstance(error, SourceError)
    assert source.closed == 1


@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize("bad", PLACES)
@pytest.mark.parametrize(("stage", "name"), [("prepare", "preprocess"), ("infer", "infer"), ("finish", "group")])
def test_a_failing_stage_names_itself_and_the_frame(stage, name, bad, serial):
    source = FakeSource(COUNT)
    step = failing_step(stage, raising_at(bad))
    seen, error = run_to_end(PosePipeline(step=step), source, serial=serial)
    assert seen == list(range(bad))
    assert isinstance(error, StageError)
    assert str(error) == f"{name} failed on frame {bad} of fake: ZeroDivisionError: at {bad}"
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert source.closed == 1


@pytest.mark.parametrize("stage", ["prepare", "infer", "finish"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_is_no_error_reaches_the_caller_as_it_is(stage, error):
    seen, raised = run_to_end(PosePipeline(step=failing_step(stage, raising_at(4, error))), FakeSource(COUNT))
    assert seen == [0, 1, 2, 3]
    assert raised is error


def test_a_source_that_breaks_in_its_own_way_is_wrapped():
    seen, error = run_to_end(PosePipeline(step=FakeStep()), FakeSource(COUNT, fault=raising_at(3)))
    assert seen == [0, 1, 2]
    assert isinstance(error, StageError)
    assert str(error) == "capture failed after frame 2 of fake: ZeroDivisionError: at 3"


@pytest.mark.parametrize("bad", PLACES)
def test_a_failing_caller_leaves_nothing_running(bad):
    source = FakeSource(1000)
    step = FakeStep()
    with pytest.raises(KeyError, match="mine"):
        for result in PosePipeline(step=step).run(source):
            if result.frame.index == bad:
                raise KeyError("mine")
    # the generator is dropped with the loop: closed by reference counting
    assert source.closed == 1
    assert source.given < bad + 20  # the source was not read to its end


@pytest.mark.parametrize("bad", PLACES)
@pytest.mark.parametrize("live", [False, True])
def test_leaving_early_closes_everything(bad, live):
    source = FakeSource(1000, live=live, interval_s=0.001 if live else 0)
    results = PosePipeline(step=FakeStep()).run(source)
    for result in results:
        if result.frame.index >= bad:
            break
    results.close()
    assert source.closed == 1


def test_leaving_while_every_channel_is_full_does_not_hang():
    source = FakeSource(1000)
    results = PosePipeline(step=FakeStep()).run(source)
    next(results)
    time.sleep(0.1)  # capture, prepare and group now wait for room
    results.close()
    assert source.closed == 1
    assert source.given < 20


def test_the_same_pipeline_runs_again_after_a_failure():
    pose = PosePipeline(step=FakeStep())
    run_to_end(pose, FakeSource(COUNT, fault=raising_at(3)))
    assert run_to_end(pose, FakeSource(COUNT)) == (list(range(COUNT)), None)


def test_two_runs_at_once_are_refused():
    pose = PosePipeline(step=FakeStep())
    first = pose.run(FakeSource(COUNT))
    next(first)
    with pytest.raises(RuntimeError, match="already running"):
        next(pose.run(FakeSource(COUNT)))
    with pytest.raises(RuntimeError, match="already running"):
        pose(np.zeros((4, 4, 3), np.uint8))
    first.close()
    assert len(pose(np.zeros((4, 4, 3), np.uint8))) == 1


def test_limit_reads_no_more_than_it_gives():
    source = FakeSource(100)
    assert run_to_end(PosePipeline(step=FakeStep()), source, limit=5)[0] == [0, 1, 2, 3, 4]
    assert source.given == 5


def test_a_file_waits_for_a_slow_engine():
    recorder = Recorder()
    seen, _ = run_to_end(PosePipeline(step=FakeStep(seconds=0.004)), FakeSource(40), recorder=recorder)
    assert seen == list(range(40))
    assert recorder.dropped == 0


def test_a_camera_drops_its_oldest_frames_and_counts_them():
    recorder = Recorder()
    source = FakeSource(100, live=True, interval_s=0.002)
    seen, _ = run_to_end(PosePipeline(step=FakeStep(seconds=0.012)), source, recorder=recorder)
    assert seen == sorted(set(seen))
    assert seen[-1] == 99  # the newest is never the one dropped
    assert len(seen) + recorder.dropped == 100
    assert recorder.dropped > 30


def test_a_camera_frame_is_fresh_when_it_enters():
    """Only the slots are in flight, so a frame's latency is at most the time of the frames before it in the slots."""
    source = FakeSource(60, live=True, interval_s=0.002)
    step = FakeStep(seconds=0.02)
    latencies = [result.timings["latency"] for result in PosePipeline(step=step).run(source)]
    assert np.median(latencies) < 1e3 * step.seconds * (step.slots + 1)


def test_stages_overlap():
    """Three stages of 10 ms each take about 10 ms per frame, not 30."""

    def slow(index: int) -> None:
        time.sleep(0.01)

    started = time.perf_counter()
    run_to_end(PosePipeline(step=FakeStep(prepare=slow, infer=slow, finish=slow)), FakeSource(30))
    assert time.perf_counter() - started < 0.6


def test_timings_say_how_long_each_stage_took():
    recorder = Recorder()
    (result,) = PosePipeline(step=FakeStep(seconds=0.01)).run(FakeSource(1), recorder=recorder)
    assert set(result.timings) == {"capture", "preprocess", "infer", "group", "latency"}
    assert result.timings["infer"] >= 10
    assert result.timings["latency"] >= result.timings["infer"]
    assert recorder.milliseconds("infer") == [result.timings["infer"]]


def test_closing_closes_the_step():
    step = FakeStep()
    with PosePipeline(step=step):
        pass
    assert step.closed == 1


def test_a_wrong_image_is_refused_at_the_door():
    with pytest.raises(ValueError, match=r"frame is float64 .*; expected a uint8 BGR array"):
        PosePipeline(step=FakeStep())(np.zeros((4, 4, 3)))  # type: ignore[arg-type]


def test_a_thread_whose_start_is_interrupted_is_joined_too(monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        if thread.name == "pose-group":
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    before = threading.active_count()
    with PosePipeline(step=FakeStep()) as pose, pytest.raises(KeyboardInterrupt):
        list(pose.run(FakeSource(COUNT)))
    assert threading.active_count() == before


@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize(("count", "limit", "batches"), [(0, None, []), (7, None, [3, 3, 1]), (9, 4, [3, 1])])
def test_a_slot_takes_a_batch(count, limit, batches, serial):
    step = FakeStep(batch=3)
    seen, error = run_to_end(PosePipeline(step=step), FakeSource(count), serial=serial, limit=limit)
    assert (seen, error) == (list(range(limit or count)), None)
    assert step.batches[: len(batches)] == batches


@pytest.mark.parametrize("bad", range(5))
def test_the_frames_before_a_source_s_failure_come_out_though_their_batch_is_not_full(bad):
    source = FakeSource(9, fault=raising_at(bad, SourceError("cut short")))
    seen, error = run_to_end(PosePipeline(step=FakeStep(batch=3)), source)
    assert seen == list(range(bad))
    assert str(error) == "cut short"


def test_a_failure_in_a_batch_names_its_frames():
    step = failing_step("infer", raising_at(4), batch=3)
    seen, error = run_to_end(PosePipeline(step=step), FakeSource(9))
    assert seen == [0, 1, 2]
    assert str(error) == "infer failed on frame 3 of fake and 2 more: ZeroDivisionError: at 4"


def test_a_camera_never_waits_for_a_batch():
    step = FakeStep(batch=3)
    assert run_to_end(PosePipeline(step=step), FakeSource(5, live=True, interval_s=0.01))[1] is None
    assert set(step.batches) == {1}


def interrupted() -> None:
    """As CPython reports an exception that a signal raised within Numba's dispatcher: two SystemErrors."""
    inner = SystemError("_numba_unpickle returned a result with an exception set")
    inner.__cause__ = Stopped(signal.SIGTERM)
    raise SystemError("CPUDispatcher returned a result with an exception set") from inner


@pytest.mark.parametrize("stage", ["prepare", "infer", "finish"])
def test_a_signal_inside_compiled_code_is_an_interrupt(stage):
    step = failing_step(stage, lambda index: interrupted() if index == 4 else None)
    seen, error = run_to_end(PosePipeline(step=step), FakeSource(COUNT), serial=True)
    assert seen == [0, 1, 2, 3]
    assert isinstance(error, Stopped)
    assert error.status == 143


def test_a_signal_inside_a_decoder_is_an_interrupt():
    source = FakeSource(COUNT, fault=lambda index: interrupted() if index == 4 else None)
    seen, error = run_to_end(PosePipeline(step=FakeStep()), source, serial=True)
    assert seen == [0, 1, 2, 3]
    assert isinstance(error, Stopped)
