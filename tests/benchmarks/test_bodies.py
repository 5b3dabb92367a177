"""benchmarks.bodies counts the people of the frames it reads, and those whom no body could be."""

from __future__ import annotations

import pytest

from benchmarks import bodies
from pipeline import PosePipeline, open_source
from pipeline.types import People

CLIP = "samples/crowd.mp4"


@pytest.fixture(autouse=True)
def few_frames(monkeypatch):
    monkeypatch.setattr(bodies, "FRAMES", 3)


def test_counts_people_with_and_without_the_step(monkeypatch, capsys):
    with PosePipeline() as pose, open_source(CLIP) as source:
        found = sum(len(result.people) for result in pose.run(source, limit=3, steps=()))
    assert found > 3
    monkeypatch.setattr(bodies, "impossible_limbs", lambda people: people.scores > -1)  # everybody
    monkeypatch.setattr(bodies, "drop_impossible", lambda people: People.nobody())
    assert bodies.main([CLIP, CLIP]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    one = f"| {CLIP} | {found} of {found} | 0 of 0 |"
    assert rows == [one, one, f"| all | {2 * found} of {2 * found} | 0 of 0 |"]


def test_a_missing_video_is_one_line(capsys):
    assert bodies.main(["nowhere.mp4"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
