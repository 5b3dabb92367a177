"""Failures during a run of run_video.py: one line and an exit status; earlier results are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.fakes import write_clip
from tests.pipeline.onnx_models import blob_frame
from tests.run_video.outcomes import WH, check_refused, frames_of, json_lines, position


def test_a_truncated_video(run_command, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [
        blob_frame(WH, [(*position(i), 0.5)]) | rng.integers(0, 8, (WH[1], WH[0], 3), np.uint8) for i in range(30)
    ]
    whole = write_clip(
        tmp_path / "whole.mp4", 30, wh=WH, picture=lambda i: pictures[i], options={"movflags": "faststart"}
    )
    content = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 6 // 10])
    video, lines = tmp_path / "out.mp4", tmp_path / "a.jsonl"
    outcome = run_command(tmp_path / "cut.mp4", "--save", video, "--json", lines)
    count = len(json_lines(lines))
    assert 10 < count < 25
    check_refused(outcome, rf"cut\.mp4 is cut short: it ends after frame {count - 1}", status=1)
    assert len(frames_of(video)) == count


def test_a_full_disk(run_command, clip):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    words = r"/dev/full cannot be written further: No space left on device \(frame 0 of .*walk\.mp4\)"
    check_refused(run_command(clip, "--json", "/dev/full"), words, status=1)


def test_a_stage_that_fails_names_the_frame(run_command, clip, tmp_path, monkeypatch):
    decode, calls = __import__("kernels.cpu").cpu.decode, []

    def failing(*arguments: object):
        calls.append(1)
        if len(calls) == 6:
            raise MemoryError("no more")
        return decode(*arguments)

    monkeypatch.setattr("kernels.cpu.decode", failing)
    lines = tmp_path / "a.jsonl"
    outcome = run_command(clip, "--json", lines, "--save", tmp_path / "out.mp4")
    check_refused(outcome, r"group failed on frame 5 of .*walk\.mp4: MemoryError: no more", status=1)
    assert len(json_lines(lines)) == len(frames_of(tmp_path / "out.mp4")) == 5
