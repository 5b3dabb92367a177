"""--skip-done: an interrupted run over many files continues, and finished files are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest

from tests.pipeline.fakes import noise, write_clip
from tests.pipeline.onnx_models import blob_frame
from tests.run_video.outcomes import WH, check_refused, frames_of, position

FRAMES = 5


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_clip(folder / f"{name}.mp4", FRAMES, wh=WH, picture=lambda i: blob_frame(WH, [(*position(i), 0.5)]))
    return folder


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name, at in after.items() if before.get(name) != at}


def test_a_run_goes_on_where_it_was_cut_off(run_command, clips, tmp_path):
    out = tmp_path / "out"
    assert run_command(clips, "--save", out, "--skip-done", "--limit", FRAMES + 2)[0] == 0
    before = times(out)
    assert set(before) == {"a.mp4", "b.mp4"}
    assert len(frames_of(out / "b.mp4")) == 2
    status, _, err = run_command(clips, "--save", out, "--skip-done")
    assert (status, err) == (0, [])
    assert changed(before, times(out)) == {"b.mp4", "c.mp4"}
    assert len(frames_of(out / "b.mp4")) == FRAMES
    before = times(out)
    status, lines, err = run_command(clips, "--save", out, "--skip-done")
    assert (status, lines, err) == (0, [f"every source is done already in {out}"], [])
    assert changed(before, times(out)) == set()


def test_another_file_other_options_and_a_copy_that_is_gone_are_done_again(run_command, clips, tmp_path):
    out = tmp_path / "out"
    run_command(clips, "--save", out, "--skip-done")
    before = times(out)
    os.utime(clips / "b.mp4", ns=(1, 1))
    (out / "c.mp4").unlink()
    assert run_command(clips, "--save", out, "--skip-done")[0] == 0
    assert changed(before, times(out)) == {"b.mp4", "c.mp4"}
    before = times(out)
    assert run_command(clips, "--save", out, "--skip-done", "--no-audio")[0] == 0
    assert changed(before, times(out)) == {"a.mp4", "b.mp4", "c.mp4"}
    before = times(out)
    assert run_command(clips, "--save", out, "--skip-done", "--min-score", "0.1")[0] == 0
    assert changed(before, times(out)) == {"a.mp4", "b.mp4", "c.mp4"}
    # the copies are no longer those of the first options
    before = times(out)
    assert run_command(clips, "--save", out, "--skip-done")[0] == 0
    assert changed(before, times(out)) == {"a.mp4", "b.mp4", "c.mp4"}


def test_a_copy_that_another_run_replaced_is_made_again(run_command, clips, tmp_path):
    out = tmp_path / "out"
    run_command(clips, "--save", out, "--skip-done")
    run_command(clips / "a.mp4", "--save", out, "--limit", 2)
    assert len(frames_of(out / "a.mp4")) == 2
    other = clips.parent / "other"
    other.mkdir()
    write_clip(other / "b.mp4", FRAMES + 1, wh=WH, picture=lambda i: blob_frame(WH, [(*position(i), 0.5)]))
    assert run_command(other / "b.mp4", "--save", out, "--skip-done")[0] == 0
    before = times(out)
    assert run_command(clips, "--save", out, "--skip-done")[0] == 0
    assert changed(before, times(out)) == {"a.mp4", "b.mp4"}
    assert len(frames_of(out / "a.mp4")) == len(frames_of(out / "b.mp4")) == FRAMES


def test_what_came_before_a_failure_is_done(run_command, clips, tmp_path, monkeypatch):
    out = tmp_path / "out"
    decode, calls = __import__("kernels.cpu").cpu.decode, []

    def failing(*arguments: object):
        calls.append(1)
        if len(calls) == FRAMES + 3:
            raise MemoryError("no more")
        return decode(*arguments)

    monkeypatch.setattr("kernels.cpu.decode", failing)
    check_refused(run_command(clips, "--save", out, "--skip-done"), r"b\.mp4: MemoryError: no more", status=1)
    monkeypatch.setattr("kernels.cpu.decode", decode)
    before = times(out)
    assert run_command(clips, "--save", out, "--skip-done")[0] == 0
    assert changed(before, times(out)) == {"b.mp4", "c.mp4"}


def test_a_damaged_file_is_never_done_and_the_next_ones_follow(run_command, clips, tmp_path):
    out = tmp_path / "out"
    whole = write_clip(
        clips / "b.mp4", 30, wh=WH, picture=lambda i: cv2.resize(noise(i), WH), options={"movflags": "faststart"}
    ).read_bytes()
    (clips / "b.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    status, _, err = run_command(clips, "--save", out, "--skip-done")
    assert status == 1
    assert err[-1] == f"run_video.py: 1 of 3 sources could not be read to the end: {clips / 'b.mp4'}"
    assert len(frames_of(out / "c.mp4")) == FRAMES
    before = times(out)
    check_refused(run_command(clips, "--save", out, "--skip-done"), r"b\.mp4 is cut short", status=1)
    assert changed(before, times(out)) == {"b.mp4"}


def test_what_is_refused(run_command, clips, tmp_path):
    check_refused(run_command(clips, "--skip-done"), "--skip-done needs --save DIR")
    check_refused(
        run_command(clips / "a.mp4", "--save", tmp_path / "a.mp4", "--skip-done"), "--skip-done needs --save DIR"
    )
    check_refused(
        run_command(clips, "--save", tmp_path / "out", "--json", tmp_path / "a.jsonl", "--skip-done"),
        "cannot extend a --json",
    )
    check_refused(run_command(clips, "--save", tmp_path / "out", "--loop", "--skip-done"), "--loop have no end")
    check_refused(
        run_command(clips, "--save", tmp_path / "out", "--realtime", "--skip-done"), "--realtime drops some; omit one"
    )
    other = write_clip(tmp_path / "a.mp4", FRAMES, wh=WH)
    check_refused(
        run_command(clips, other, "--save", tmp_path / "out", "--skip-done"),
        r"2 sources would be saved as a\.mp4; rename one",
    )
    check_refused(
        run_command(clips, tmp_path / "none.mp4", "--save", tmp_path / "out", "--skip-done"),
        r"none\.mp4 does not exist",
    )
