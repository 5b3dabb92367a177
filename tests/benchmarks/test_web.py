"""The program that measures the page runs, and tells a viewer that leaves something behind."""

from __future__ import annotations

import sys

import pytest

from benchmarks import web
from benchmarks.web import ROOT, Usage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own figures of a process")


def test_viewers_come_and_go_and_their_server_is_measured(monkeypatch):
    monkeypatch.setattr(web, "CHURN", 6)
    monkeypatch.setattr(web, "CHURN_WARM_UP", 2)
    before, after, took_s = web.churn(ROOT / "samples" / "crowd.mp4")
    assert 0 < took_s < 60
    assert after.threads == before.threads >= 2 and after.fds == before.fds > 3
    assert before.rss_kb > 10_000 and 0 < after.core < 2 and len(after.write_ms) > 0


def test_a_share_of_a_core_is_of_the_time_since_the_last_look():
    assert Usage(cpu_s=0.5, wall_s=10.0).core == 0.05
