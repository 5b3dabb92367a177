"""Outputs: paths are checked first, pictures drawn once, sinks closed together; Ctrl-C acts only between frames."""

from __future__ import annotations

import os
import signal
import threading

import cv2
import numpy as np
import pytest

from commands.interrupts import Interrupts
from core.errors import SinkError, StageError
from pipeline.sinks import FolderSink, ImageSink, JsonSink, Sink, VideoSink
from pipeline.sinks.outputs import Outputs, check_outputs, open_sinks
from pipeline.stats import Recorder
from pipeline.types import Frame, Result
from tests.pipeline.fakes import person_at


class FakeSink(Sink):
    def __init__(self, *, needs_picture: bool = True, fails: str = "") -> None:
        self.needs_picture, self.fails = needs_picture, fails
        self.pictures: list[np.ndarray] = []
        self.closed = 0

    def write(self, result: Result, picture: np.ndarray) -> None:
        if self.fails == "write":
            raise SinkError("full")
        self.pictures.append(picture.copy())

    def close(self) -> None:
        self.closed += 1
        if self.fails == "close":
            raise SinkError(f"{self.closed} cannot be finished")


def result() -> Result:
    return Result(Frame(np.full((60, 80, 3), 50, np.uint8)), person_at(40, 30))


def written(outputs: Outputs, count: int = 1) -> None:
    for _ in range(count):
        outputs.write(result())
    outputs.close()


@pytest.mark.parametrize("needs_picture", [True, False])
def test_drawing_is_compiled_before_the_first_frame_if_a_sink_needs_pictures(monkeypatch, needs_picture):
    calls = []
    monkeypatch.setattr("pipeline.sinks.outputs.warm_up", lambda: calls.append(1))
    outputs = Outputs([FakeSink(needs_picture=needs_picture)], Recorder())
    assert len(calls) == needs_picture
    outputs.close()


def test_sinks_get_the_drawn_picture_and_the_frame_stays_as_it_came():
    first, second, recorder = FakeSink(), FakeSink(), Recorder()
    outputs = Outputs([first, second], recorder)
    frame = result()
    outputs.write(frame)
    outputs.write(frame)
    outputs.close()
    assert (frame.frame.image == 50).all()
    assert all((sink.pictures[i] != 50).any() for sink in (first, second) for i in (0, 1))
    assert (len(recorder.spans["draw"]), len(recorder.spans["encode"])) == (2, 3)  # closing is encoding too


def test_nothing_is_drawn_for_json_alone():
    sink, recorder = FakeSink(needs_picture=False), Recorder()
    written(Outputs([sink], recorder))
    assert (sink.pictures[0] == 50).all()
    assert "draw" not in recorder.spans


def test_a_failure_names_the_frame(monkeypatch):
    with pytest.raises(SinkError, match=r"full \(frame 0\)"):
        written(Outputs([FakeSink(fails="write")], Recorder()))

    def broken(*_: object) -> None:
        raise cv2.error("no colour")

    monkeypatch.setattr("pipeline.sinks.outputs.draw_people", broken)
    with pytest.raises(StageError, match="drawing failed on frame 0: error: no colour"):
        written(Outputs([FakeSink()], Recorder()))


@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_failure_is_raised_once_every_thread_ends_and_every_sink_is_closed(count):
    sinks = [FakeSink(), FakeSink(fails="write")]
    outputs = Outputs(sinks, Recorder())
    with pytest.raises(SinkError, match=r"full \(frame 0\)"):
        written(outputs, count)
    outputs.close()
    assert [sink.closed for sink in sinks] == [1, 1]
    assert not any(thread.name in ("pose-draw", "pose-outputs") for thread in threading.enumerate())


def test_the_caller_is_not_kept_waiting_by_a_slow_sink_until_results_pile_up():
    going = threading.Event()

    class Slow(FakeSink):
        def write(self, result: Result, picture: np.ndarray) -> None:
            assert going.wait(10)
            super().write(result, picture)

    sink = Slow()
    outputs = Outputs([sink], Recorder())
    for _ in range(4):  # two wait for each thread, and each has one in hand
        outputs.write(result())
    assert not sink.pictures
    going.set()
    outputs.close()
    assert len(sink.pictures) == 4


def test_pictures_keep_their_order_and_their_canvases_apart():
    sink = FakeSink()
    outputs = Outputs([sink], Recorder())
    for shade in range(60):
        outputs.write(Result(Frame(np.full((40 + shade // 30, 40, 3), shade, np.uint8), shade), person_at(500, 500)))
    outputs.close()
    assert [int(picture[0, 0, 0]) for picture in sink.pictures] == list(range(60))


def test_every_sink_is_closed_and_the_first_failure_is_raised():
    sinks = [FakeSink(), FakeSink(fails="close"), FakeSink(fails="close"), FakeSink()]
    outputs = Outputs(sinks, Recorder())
    with pytest.raises(SinkError, match="1 cannot be finished"):
        outputs.close()
    outputs.close()
    assert [sink.closed for sink in sinks] == [1, 1, 1, 1]


def test_outputs_that_make_no_sense_are_refused(tmp_path):
    clip, photo = tmp_path / "a.mp4", tmp_path / "b.jpg"
    for path in (clip, photo):
        path.touch()
    (tmp_path / "link.mp4").symlink_to(clip)
    (tmp_path / "folder").mkdir()
    out = tmp_path / "out.mp4"
    video, image, both = [str(clip)], [str(photo)], [str(clip), str(photo)]
    for parts, save, others, words in [
        (video, clip, [], "is the input"),
        (video, tmp_path / "folder" / ".." / "a.mp4", [], "is the input"),
        (video, tmp_path / "link.mp4", [], "is the input"),
        (video, tmp_path, [], "is the input"),
        (video, None, [clip], "is the input"),
        (video, out, [out], "is given twice"),
        (video, out, [tmp_path / "folder"], "is a folder; expected a file name"),
        (video, tmp_path / "no" / "out.mp4", [], "folder .*no does not exist; create it first"),
        (video, None, [tmp_path / "no" / "a.jsonl"], "folder .*no does not exist"),
        (video, tmp_path / "out.avi", [], r"a\.mp4 is a video; expected one of .*\.mp4"),
        (video, tmp_path / "out.jpg", [], r"a\.mp4 is a video"),
        (image, out, [], r"b\.jpg is an image; expected one of .*\.jpg"),
        (both, out, [], "is one file, but there are 2 sources; give a folder"),
    ]:
        with pytest.raises(ValueError, match=words):
            check_outputs(parts, save=save, others=others)


def test_outputs_that_make_sense_are_let_through(tmp_path):
    (tmp_path / "folder").mkdir()
    for parts, save in [
        (["a.mp4"], tmp_path / "out.mp4"),
        (["a.gif"], tmp_path / "out.mkv"),
        (["0"], tmp_path / "out.mp4"),
        (["rtsp://host/a"], tmp_path / "out.MP4"),
        (["a.jpg"], tmp_path / "out.png"),
        (["a.jpg", "b.mp4"], tmp_path / "folder"),
        (["x/a.jpg", "y/a.jpg"], tmp_path / "folder"),
        (["a.jpg", "b.mp4"], tmp_path / "new"),
    ]:
        check_outputs(parts, save=save, others=[tmp_path / "a.jsonl", None])


def test_sinks_are_chosen_by_name(tmp_path):
    for save, kind in [("a.mp4", VideoSink), ("a.png", ImageSink), ("folder", FolderSink)]:
        sinks = open_sinks(save=tmp_path / save, json=tmp_path / "a.jsonl", show=None)
        assert [type(sink) for sink in sinks] == [kind, JsonSink]
        for sink in sinks:
            sink.close()


def test_if_one_cannot_be_opened_those_before_are_closed(tmp_path):
    with pytest.raises(SinkError, match="cannot be written"):
        open_sinks(save=tmp_path / "a.mp4", json=tmp_path / "no" / "a.jsonl", show=None)
    assert list(tmp_path.iterdir()) == []  # closed without a frame, the video's file goes


def test_ctrl_c_waits_for_the_end_of_what_is_held():
    done = []
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("held")
        done.append("after")
    assert done == ["held"]


def test_ctrl_c_outside_comes_at_once():
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_while_the_program_is_ending_is_forgotten():
    with Interrupts() as interrupts, interrupts.held(forget=True):
        os.kill(os.getpid(), signal.SIGINT)


def test_the_handler_before_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_other_threads_leave_signals_alone():
    failed = []

    def work() -> None:
        try:
            with Interrupts():
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []
