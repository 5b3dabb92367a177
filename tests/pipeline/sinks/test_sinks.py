"""Sinks: written files can be read back, with their timestamps; errors are one line."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from core.errors import SinkError
from pipeline.sinks import (
    FolderSink,
    ImageSink,
    JsonSink,
    VideoSink,
    WindowSink,
    file_name,
    json_line,
)
from pipeline.sources import open_source, read_image
from pipeline.types import Frame, People, Result
from tests.pipeline.fakes import person_at, write_clip


def result(index=0, *, wh=(64, 48), time_s=0.0, source="a.mp4", time_base=None, level=0, people=None) -> Result:
    image = np.full((wh[1], wh[0], 3), level, np.uint8)
    return Result(Frame(image, index, time_s, 0.0, source, time_base), people or People.nobody())


def write_results(sink, *results: Result) -> None:
    with sink:
        for item in results:
            sink.write(item, item.frame.image)


def decoded(path: Path) -> list:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_video_has_every_frame_at_its_time(tmp_path, suffix):
    base = Fraction(1, 90_000) if suffix != ".mkv" else Fraction(1, 1000)
    ticks = [0, 40, 80, 200, 213, 214]
    path = tmp_path / f"out{suffix}"
    write_results(
        VideoSink(path), *(result(i, time_s=float(t * base), time_base=base, level=30 * i) for i, t in enumerate(ticks))
    )
    frames = decoded(path)
    assert [frame.pts * frame.time_base for frame in frames] == [t * base for t in ticks]
    assert [round(float(frame.to_ndarray(format="bgr24").mean()) / 30) for frame in frames] == list(range(6))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize(
    "base", [Fraction(1, 200_000), Fraction(1, 15_360), Fraction(1, 100), Fraction(1, 50), Fraction(1001, 30_000)]
)
def test_any_time_base_comes_back_exactly(tmp_path, base):
    step = max(1, round(Fraction(1, 30) / base))
    times = [i * step * base for i in range(40)]
    write_results(
        VideoSink(tmp_path / "out.mp4"), *(result(i, time_s=float(t), time_base=base) for i, t in enumerate(times))
    )
    assert [frame.pts * frame.time_base for frame in decoded(tmp_path / "out.mp4")] == times


def test_a_copy_of_a_clip_keeps_times_and_count(tmp_path):
    clip = write_clip(
        tmp_path / "in.mp4", 12, pts=[0, 3, 4, 9, 10, 11, 12, 20, 21, 30, 31, 33], time_base=Fraction(1, 30)
    )
    with open_source(clip) as source:
        write_results(VideoSink(tmp_path / "out.mp4"), *(Result(frame, People.nobody()) for frame in source))
    before, after = decoded(clip), decoded(tmp_path / "out.mp4")
    assert [f.pts * f.time_base for f in before] == [f.pts * f.time_base for f in after]


def test_times_that_stand_still_or_turn_back_do_not_lose_a_frame(tmp_path):
    base = Fraction(1, 10)
    write_results(
        VideoSink(tmp_path / "out.mp4"),
        *(result(i, time_s=t, time_base=base) for i, t in enumerate([0, 0.1, 0.1, 0.0, 0.5])),
    )
    assert [f.pts * f.time_base for f in decoded(tmp_path / "out.mp4")] == [i * base for i in (0, 1, 2, 3, 5)]


@pytest.mark.parametrize("wh", [(63, 47), (64, 47), (1, 1)])
def test_odd_sides_grow_by_a_pixel(tmp_path, wh):
    write_results(VideoSink(tmp_path / "out.mp4"), result(wh=wh, level=200))
    (frame,) = decoded(tmp_path / "out.mp4")
    assert (frame.width, frame.height) == (wh[0] + wh[0] % 2, wh[1] + wh[1] % 2)
    assert frame.to_ndarray(format="bgr24").min() > 180  # no black edge


@pytest.mark.parametrize("height", [34, 35, 36, 37, 38, 40])
def test_all_rows_and_colours_of_any_height_are_encoded(tmp_path, height):
    image = np.zeros((height, 48, 3), np.uint8)
    image[: height // 2] = (200, 60, 30)
    image[height // 2 :] = (40, 80, 220)
    write_results(VideoSink(tmp_path / "out.mp4"), Result(Frame(image), People.nobody()))
    (frame,) = decoded(tmp_path / "out.mp4")
    rows = frame.to_ndarray(format="bgr24").astype(int)[:height]
    away = np.abs(np.arange(height) - height / 2) > 2
    assert frame.height == height + height % 2
    assert np.abs(rows - image)[away].max() < 25  # coded lossily; measured: at most 12


def test_a_frame_of_another_size_is_fitted_into_the_first(tmp_path):
    write_results(
        VideoSink(tmp_path / "out.mp4"),
        result(0, wh=(64, 48), level=200),
        result(1, wh=(100, 400), time_s=0.1, level=200),
        result(2, wh=(64, 48), time_s=0.2, level=200),
    )
    frames = [frame.to_ndarray(format="bgr24") for frame in decoded(tmp_path / "out.mp4")]
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    assert frames[1][:, 28:36].mean() > 170  # 12 pixels wide in the middle
    assert frames[1][:, :20].mean() < 30


def test_a_killed_process_leaves_a_video_that_plays(tmp_path):
    path = tmp_path / "out.mp4"
    program = f"""
        import numpy as np, os, signal
        from pathlib import Path
        from pipeline.sinks import VideoSink
        from pipeline.types import Frame, People, Result
        sink = VideoSink(Path({str(path)!r}))
        for i in range(200):
            image = np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            sink.write(Result(Frame(image, i, i / 30), People.nobody()), image)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=Path.cwd(), check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(decoded(path)) >= 96


def test_a_video_without_a_frame_leaves_no_file(tmp_path):
    write_results(VideoSink(tmp_path / "out.mp4"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_image_is_written_in_its_format(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_results(ImageSink(path), result(level=90))
    assert abs(int(read_image(str(path))[5, 5, 0]) - 90) <= 3


def test_json_lines_are_as_documented(tmp_path):
    keypoints = np.zeros((1, 17, 2), np.float32)
    keypoints[0, 0] = (10.123456, 20.987654)
    keypoints[0, 5] = (30.5, 41.0)
    scores = np.zeros((1, 17), np.float32)
    scores[0, [0, 5]] = 0.912345, 0.5
    people = People(keypoints, scores, np.array([0.083111], np.float32))
    write_results(
        JsonSink(tmp_path / "a.jsonl"), result(7, time_s=1 / 3, people=people, source="street.mp4"), result(8)
    )
    first, second = (json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines())
    assert list(first) == ["source", "frame", "time_s", "people"]
    assert (first["source"], first["frame"], first["time_s"]) == ("street.mp4", 7, 0.333333)
    (person,) = first["people"]
    assert list(person) == ["score", "bbox", "keypoints"]
    assert person["score"] == 0.0831
    assert person["bbox"] == [10.12, 20.99, 20.38, 20.01]
    assert person["keypoints"][0] == [10.12, 20.99, 0.9123]
    assert person["keypoints"][1] == [0.0, 0.0, 0.0]
    assert len(person["keypoints"]) == 17
    assert second["people"] == []


def test_each_json_line_is_in_the_file_at_once(tmp_path):
    sink = JsonSink(tmp_path / "a.jsonl")
    for i in range(3):
        sink.write(result(i), result(i).frame.image)
        assert (tmp_path / "a.jsonl").read_text().count("\n") == i + 1
    sink.close()
    sink.close()


def test_json_keeps_any_name_on_one_line():
    line = json_line(result(source='a "quoted"\nnäme.mp4'))
    assert "\n" not in line
    assert json.loads(line)["source"] == 'a "quoted"\nnäme.mp4'


def test_a_folder_gets_a_file_per_source(tmp_path):
    folder = tmp_path / "out"
    write_results(
        FolderSink(folder),
        result(0, source="x/a.avi"),
        result(1, source="x/a.avi", time_s=0.1),
        result(0, source="y/a.mov"),
        result(0, source="b.png"),
        result(0, source="0"),
        result(0, source="rtsp://me:***@host:8554/cam/1"),
    )
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["a-2.mp4", "a.mp4", "b.png", "camera-0.mp4", "host-8554-cam-1.mp4"]
    assert len(decoded(folder / "a.mp4")) == 2


def test_a_folder_knows_the_next_source_by_any_of_its_frames(tmp_path):
    """The first frames may have been dropped, and the same source may be given twice."""
    frames = [("a.mp4", 3), ("a.mp4", 5), ("b.mp4", 2), ("b.mp4", 1)]
    write_results(FolderSink(tmp_path / "out"), *(result(i, source=name, time_s=i / 10) for name, i in frames))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "b-2.mp4", "b.mp4"]


def test_a_folder_never_overwrites_its_input(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 2)
    before = clip.read_bytes()
    with pytest.raises(SinkError, match="is the input"):
        write_results(FolderSink(tmp_path), result(0, source=str(clip)))
    assert clip.read_bytes() == before


def test_names_in_a_folder():
    assert file_name("a/b.gif") == "b.mp4"
    assert file_name("a/b.JPG") == "b.JPG"
    assert file_name("http://host/") == "host.mp4"


@pytest.mark.parametrize("sink", [VideoSink, ImageSink, JsonSink])
def test_what_cannot_be_opened_is_said_at_once(tmp_path, sink):
    suffix = {VideoSink: "mp4", ImageSink: "png", JsonSink: "jsonl"}[sink]
    with pytest.raises(SinkError, match=r"cannot be written: No such file or directory"):
        sink(tmp_path / "missing" / f"a.{suffix}")


@pytest.mark.parametrize(("sink", "name"), [(VideoSink, "a.avi"), (ImageSink, "a.gif")])
def test_an_unknown_suffix_lists_the_known(tmp_path, sink, name):
    with pytest.raises(ValueError, match="expected one of"):
        sink(tmp_path / name)


class FullDisk:
    """A file on a disk that is full after `room` bytes."""

    def __init__(self, path: Path, room: int) -> None:
        self.file, self.room = path.open("wb", buffering=0), room

    def write(self, content) -> int:
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(content)

    def __getattr__(self, name: str):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 20_000])
@pytest.mark.parametrize("kind", [VideoSink, JsonSink, ImageSink])
def test_a_full_disk_is_one_line_and_the_sink_still_closes(tmp_path, monkeypatch, kind, room):
    name = {VideoSink: "a.mp4", ImageSink: "a.png", JsonSink: "a.jsonl"}[kind]
    monkeypatch.setattr(sys.modules[kind.__module__], "open_file", lambda path: FullDisk(path, room))
    sink = kind(tmp_path / name)
    with pytest.raises(SinkError, match=r"cannot be written( further)?: No space left on device"):
        for i in range(300):
            noisy = np.random.default_rng(i).integers(0, 255, (148, 164, 3), dtype=np.uint8)
            frame = Frame(noisy, i, i / 10)
            sink.write(Result(frame, person_at(i, i)), noisy)
            if kind is ImageSink:
                sink._file.room = 0
    sink.close()
    assert sink._file.closed


def test_without_a_display_no_window_is_tried(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(SinkError, match="DISPLAY and WAYLAND_DISPLAY are not set; use --save FILE"):
        WindowSink("a")


@pytest.mark.parametrize(
    ("key", "visible", "quits"), [(ord("q"), 1, True), (27, 1, True), (-1, 1, False), (-1, 0, True)]
)
def test_q_escape_and_closing_the_window_quit(monkeypatch, key, visible, quits):
    monkeypatch.setenv("DISPLAY", ":0")
    calls: list[str] = []

    def fake(name: str, answer: object):
        def called(*_: object) -> object:
            calls.append(name)
            return answer

        return called

    for name, answer in [
        ("namedWindow", None), ("resizeWindow", None), ("imshow", None), ("waitKey", key),
        ("getWindowProperty", visible), ("destroyAllWindows", None),
    ]:  # fmt: skip
        monkeypatch.setattr(cv2, name, fake(name, answer))
    sink = WindowSink("a")
    write_results(sink, result())
    assert sink.quit is quits
    assert calls[-1] == "destroyAllWindows"


def test_a_build_without_windows_is_one_line(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")

    def not_implemented(*_: object) -> None:
        raise cv2.error("The function is not implemented.\nRebuild the library")

    monkeypatch.setattr(cv2, "namedWindow", not_implemented)
    with pytest.raises(SinkError, match=r"no window can be shown: The function is not implemented\. Rebuild"):
        WindowSink("a").write(result(), result().frame.image)
