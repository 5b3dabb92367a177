"""Times that go on where a file's timestamps restart."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pipeline.sources.timeline import Timeline
from pipeline.sources.video import VideoSource
from tests.pipeline.fakes import write_clip

WRAP_S = 2**33 / 90_000  # of MPEG's timestamps


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([5, 6, 7], [0, 1, 2]),
        ([5, 6, 5, 6], [0, 1, 2, 3]),  # joined
        ([5, 6, 3600, 3601], [0, 1, 3595, 3596]),  # a gap of the recording
        ([5, 6, 4 + WRAP_S, 5 + WRAP_S], [0, 1, 2, 3]),  # FFmpeg takes a part that begins earlier for a wrap
        ([5, 6, 4 + WRAP_S, 5], [0, 1, 2, 3]),
        ([None, None, None], [0, 1, 2]),
        ([None, 7, None, 9], [0, 1, 2, 3]),
        ([1, 2, 1.95, 3], [0, 1, 0.95, 2]),  # jitter
    ],
)
def test_times_start_at_0_and_go_on_after_a_restart(stamps, times):
    timeline = Timeline(Fraction(1))
    found = [timeline.at(None if stamp is None else Fraction(stamp)) for stamp in stamps]
    assert [float(time) for time in found] == pytest.approx(times)


def test_joined_recordings_are_one_after_the_other(tmp_path):
    part = write_clip(tmp_path / "part.ts", 5)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 3)
    with VideoSource(str(joined)) as source:
        times = [frame.time_s for frame in source]
    assert times == pytest.approx([n / 10 for n in range(15)])
