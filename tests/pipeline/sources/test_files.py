"""open_source: the arguments that it accepts, the order of sources, and its errors."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from core.errors import PartsFailed, SourceError
from pipeline.sources import RealTime, open_source, read_image
from pipeline.sources.base import natural_order
from pipeline.sources.camera import CameraMode, CameraSource
from pipeline.sources.several import Several
from tests.pipeline.fakes import FakeSource, noise, write_clip


def write_image(path: Path, level: int = 100, wh: tuple[int, int] = (12, 8)) -> Path:
    assert cv2.imwrite(str(path), np.full((wh[1], wh[0], 3), level, np.uint8))
    return path


def test_an_image_is_one_frame(tmp_path):
    path = write_image(tmp_path / "a.png", 50)
    with open_source(path) as source:
        (frame,) = source
    assert (frame.index, frame.time_s, frame.source, frame.wh) == (0, 0.0, str(path), (12, 8))
    assert frame.image[0, 0].tolist() == [50, 50, 50]
    assert source.frame_count == 1


def test_an_image_is_turned_upright_by_its_exif(tmp_path):
    path = write_image(tmp_path / "a.jpg", wh=(16, 8))
    jpeg = path.read_bytes()
    # orientation 6: the camera was turned, so the picture is shown turned by 90 degrees
    exif = b"Exif\0\0" + bytes.fromhex("4d4d002a00000008 0001 0112 0003 00000001 00060000 00000000")
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    assert read_image(str(path)).shape == (16, 8, 3)


def test_a_grey_image_with_transparency_becomes_three_channels(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((8, 8, 4), 7, np.uint8))
    assert read_image(str(path)).shape == (8, 8, 3)


def test_a_folder_gives_its_images_in_natural_order(tmp_path):
    for name in ("b10.png", "b9.png", "a.JPG"):
        write_image(tmp_path / name)
    for name in ("notes.txt", "._b9.png"):  # macOS writes the second kind beside each file on foreign disks
        (tmp_path / name).write_text("hello")
    with open_source(tmp_path) as source:
        frames = list(source)
    assert [Path(frame.source).name for frame in frames] == ["a.JPG", "b9.png", "b10.png"]
    assert [frame.index for frame in frames] == [0, 0, 0]
    assert source.frame_count == 3
    assert [Path(part).name for part in source.parts] == ["a.JPG", "b9.png", "b10.png"]


@pytest.mark.skipif(not Path("/dev/urandom").exists(), reason="devices of Linux and macOS")
@pytest.mark.parametrize("name", ["/dev/urandom", "/dev/zero", "/dev/null"])
def test_a_device_is_refused_since_its_data_may_have_no_end(name):
    """FFmpeg has taken random data for a video, and read on."""
    with pytest.raises(SourceError, match=f"{name} is a device; expected a video file, or for a camera its number"):
        open_source(name)


@pytest.mark.parametrize("name", ["a.3gp", "a.M2TS", "a.MTS", "a.mxf", "a.ogv", "a.VOB"])
def test_videos_of_cameras_and_discs_in_a_folder_are_found(tmp_path, name):
    write_clip(tmp_path / "b.ts", 2)
    (tmp_path / "b.ts").rename(tmp_path / name)
    with open_source(tmp_path) as source:
        assert source.parts == (str(tmp_path / name),)


def test_after_a_damaged_file_the_next_follows(tmp_path, caplog):
    for name in ("a.gif", "b.gif", "c.gif"):
        write_clip(tmp_path / name, 6, codec="gif", picture=noise)
    content = (tmp_path / "b.gif").read_bytes()
    (tmp_path / "b.gif").write_bytes(content[: len(content) // 2])
    seen: list[str] = []
    with open_source(tmp_path) as source, pytest.raises(PartsFailed) as failed:
        seen.extend(Path(frame.source).name for frame in source)
    assert seen.count("a.gif") == seen.count("c.gif") == 6
    assert 0 < seen.count("b.gif") < 6
    assert str(failed.value) == f"1 of 3 sources could not be read to the end: {tmp_path / 'b.gif'}"
    assert source.failed == [str(tmp_path / "b.gif")]
    assert [record.message.split(" is ")[0] for record in caplog.records] == [str(tmp_path / "b.gif")]


def test_a_glob_and_several_sources_run_in_turn(tmp_path):
    write_clip(tmp_path / "v.mp4", 3)
    for i in (2, 1):
        write_image(tmp_path / f"i{i}.png")
    with open_source(str(tmp_path / "i*.png"), tmp_path / "v.mp4") as source:
        frames = [(Path(frame.source).name, frame.index) for frame in source]
    assert frames == [("i1.png", 0), ("i2.png", 0), ("v.mp4", 0), ("v.mp4", 1), ("v.mp4", 2)]
    assert source.frame_count == 5


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    path = write_image(tmp_path / "a[1].png")
    assert open_source(path).name == str(path)


def test_natural_order():
    names = ["f10", "f2", "F1", "g", "2", "10"]
    assert sorted(names, key=natural_order) == ["2", "10", "F1", "f2", "f10", "g"]


def test_what_cannot_be_opened_is_refused_before_any_frame(tmp_path):
    good = write_image(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "none").mkdir()
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    for bad, words in [
        (tmp_path / "missing.png", "does not exist"),
        (tmp_path / "missing.mp4", "does not exist"),
        (tmp_path / "empty.png", "is empty"),
        (tmp_path / "none", "holds no images or videos"),
        (tmp_path / "*.zzz", "no file matches"),
        (tmp_path / "text.mp4", "not a video"),
    ]:
        with pytest.raises(SourceError, match=words):
            open_source(bad)
        with pytest.raises(SourceError, match=words):
            open_source(good, bad)


@pytest.mark.parametrize("live", ["0", "rtsp://127.0.0.1/a"])
def test_a_file_among_live_sources_needs_its_own_speed(tmp_path, live):
    with pytest.raises(ValueError, match=r"a\.png is a file among live sources; add --realtime, or give it alone"):
        open_source(write_image(tmp_path / "a.png"), live)


def test_what_runs_side_by_side(tmp_path):
    """Live sources, and videos at their own speed, run at the same time; pictures and files run one after another."""
    clips = [write_clip(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    with open_source(*clips, realtime=True) as source:
        assert isinstance(source, Several)
        assert source.parts == tuple(map(str, clips))
    with open_source(*clips) as source:
        assert not isinstance(source, Several)
    with open_source(write_image(tmp_path / "a.png"), clips[0], realtime=True) as source:
        assert not isinstance(source, Several)
    with pytest.raises(SourceError, match="camera 98 cannot be opened"):
        open_source("98", clips[0], realtime=True)
    with open_source("98", clips[0], realtime=True, reconnect=True) as source:
        assert source.parts == ("98", str(clips[0]))
    with pytest.raises(ValueError, match=r"a\.mp4 is given twice"):
        open_source(clips[0], clips[0], realtime=True)
    with pytest.raises(ValueError, match="65 live sources; expected at most 64"):
        open_source(*(f"rtsp://127.0.0.1:1/{n}" for n in range(65)))


def test_no_source_is_refused():
    for sources in [(), ("",)]:
        with pytest.raises(ValueError, match="no source given"):
            open_source(*sources)


def test_an_image_that_is_none_is_named(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_text("no picture")
    with open_source(path) as source, pytest.raises(SourceError, match=r"a\.jpg is not a readable image"):
        list(source)


def test_a_camera_that_is_not_there_is_one_line(capfd):
    with pytest.raises(SourceError, match="camera 97 cannot be opened"):
        open_source(97)
    assert capfd.readouterr().err == ""


class FakeCamera:
    """cv2.VideoCapture that gives three frames."""

    def __init__(self, index: int) -> None:
        self.reads, self.released = 0, False
        self.asked: dict[int, float] = {}

    def isOpened(self) -> bool:
        return True

    def set(self, prop: int, value: float) -> bool:
        self.asked[prop] = value
        return True

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FRAME_WIDTH: 20.0, cv2.CAP_PROP_FRAME_HEIGHT: 10.0}[prop]

    def read(self):
        self.reads += 1
        return (True, np.zeros((10, 20, 3), np.uint8)) if self.reads <= 3 else (False, None)

    def release(self) -> None:
        self.released = True


def test_a_camera_counts_its_time_from_the_first_frame_and_says_when_it_ends(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    with open_source("0") as source:
        assert (source.live, source.name, source.frame_wh) == (True, "0", (20, 10))
        frames = iter(source)
        first, *_ = (next(frames) for _ in range(3))
        assert (first.index, first.time_s, first.time_base) == (0, 0.0, None)
        with pytest.raises(SourceError, match="camera 0 gave no frame 3"):
            next(frames)


def test_a_camera_is_asked_for_its_mode(monkeypatch, caplog):
    opened = []

    class Noted(FakeCamera):
        def __init__(self, index: int) -> None:
            super().__init__(index)
            opened.append(self)

    monkeypatch.setattr(cv2, "VideoCapture", Noted)
    with CameraSource(0, CameraMode.parse("1280x720@30")):
        asked = opened[-1].asked
        wanted = {cv2.CAP_PROP_FRAME_WIDTH: 1280, cv2.CAP_PROP_FRAME_HEIGHT: 720, cv2.CAP_PROP_FPS: 30}
        assert wanted.items() <= asked.items()
        assert asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert "camera 0 has no mode 1280x720@30; it gives 20x10" in caplog.text
    with CameraSource(0, CameraMode.parse("20x10")):
        assert cv2.CAP_PROP_FOURCC not in opened[-1].asked
    assert str(CameraMode.parse("640x480")) == "640x480"


@pytest.mark.parametrize("text", ["", "1280", "1280x", "x720", "1280x720@", "1280x720@0", "-1x2", "1280x720@30fps"])
def test_what_is_no_mode_of_a_camera(text):
    with pytest.raises(ValueError, match=f"got {text}, expected WxH or WxH@FPS, such as 1280x720@30"):
        CameraMode.parse(text)


def test_realtime_plays_at_the_sources_own_speed():
    started = time.monotonic()
    with RealTime(FakeSource(4)) as source:
        frames = list(source)
    assert source.live
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert all(frame.captured_at - started >= frame.time_s for frame in frames)
    assert 0.3 <= time.monotonic() - started < 0.5


def test_realtime_starts_anew_with_each_source(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, 3)
    started = time.monotonic()
    with RealTime(open_source(tmp_path / "a.mp4", tmp_path / "b.mp4")) as source:
        assert [frame.index for frame in source] == [0, 1, 2] * 2
    assert time.monotonic() - started < 0.8


def test_realtime_is_woken_from_its_wait():
    class Slow(FakeSource):
        def __iter__(self):
            for frame in super().__iter__():
                yield frame if frame.index == 0 else type(frame)(frame.image, 1, time_s=3600.0)

    source = RealTime(Slow(2))
    reader = threading.Thread(target=lambda: list(source), daemon=True)
    reader.start()
    time.sleep(0.05)
    source.interrupt()
    reader.join(5)
    assert not reader.is_alive()


def test_a_chain_can_be_left_in_the_middle(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, 3)
    with open_source(tmp_path / "a.mp4", tmp_path / "b.mp4") as source:
        assert len(list(itertools.islice(source, 4))) == 4


def test_libraries_say_nothing_of_a_damaged_picture(tmp_path, capfd):
    done, coded = cv2.imencode(".png", np.full((40, 40, 3), 90, np.uint8))
    assert done
    (tmp_path / "cut.png").write_bytes(coded.tobytes()[:-30])
    with pytest.raises(SourceError, match="not a readable image"):
        read_image(str(tmp_path / "cut.png"))
    assert capfd.readouterr().err == ""
