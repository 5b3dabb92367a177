"""The parts of the kernel benchmark that run without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import kernels as benchmark
from engine.gpu import Gpu
from kernels.cuda._cuda import cuda


class Clock:
    """A stream whose events are its own time, in microseconds; each step takes what it says."""

    handle = 0

    def __init__(self):
        self.now = 0.0

    def step(self, took):
        self.now += took

    def event(self):
        return self.now

    def wait(self):
        pass

    def capture(self, enqueue):
        return enqueue


@pytest.fixture
def held(monkeypatch):
    """Stands for the device; the first batch is not queued in time."""
    answers = iter([False])
    held: list[int] = []

    class Hold:
        def __getitem__(self, launch):
            return held.append

    monkeypatch.setattr(benchmark, "wait_on_device", Hold())
    monkeypatch.setattr(benchmark, "is_pending", lambda event: next(answers, True))
    monkeypatch.setattr(benchmark, "microseconds", lambda a, b: b - a)
    monkeypatch.setattr(benchmark, "destroy", lambda events: None)
    return held


def test_each_step_and_all_together_are_timed_again_where_the_device_had_to_wait(held):
    clock: Any = Clock()
    rows = benchmark.times(clock, [lambda: clock.step(3), lambda: clock.step(4.5)], 30)
    np.testing.assert_array_equal(rows, [[3, 4.5, 7.5]] * 30)
    assert held == [200, 400, 400]


def test_a_line_for_each_number_of_people(held, monkeypatch):
    clock = Clock()

    class Frame:
        def __init__(self, hw, people, stream):
            self.people = people

        def preprocess(self):
            clock.step(5)

        def decode(self):
            clock.step(self.people)

        def steps(self):
            return [("preprocess", self.preprocess), ("peaks", self.decode)]

    monkeypatch.setattr(benchmark, "Frame", Frame)
    monkeypatch.setattr(benchmark, "Stream", lambda: clock)
    text, whole = benchmark.table((512, 704), 20, (1, 30))
    assert whole == {1: (6, 1), 30: (35, 30)}
    assert "| people | preprocess | peaks | sum, by events | in a graph | decode in a graph |" in text
    assert text.splitlines()[-1].startswith("| 30 | 5.0 / 5.0 / 5.0 | 30.0 / 30.0 / 30.0 | 35.0")


def test_the_gpu_that_was_named_is_measured(monkeypatch):
    selected: list[int] = []
    monkeypatch.setattr(benchmark, "find_gpu", lambda index: (Gpu("Test", (9, 0), 8 << 30, (13, 0)), "a GPU"))
    monkeypatch.setattr(cuda, "select_device", selected.append)
    monkeypatch.setattr(benchmark, "about", lambda: f"GPU {selected}")
    monkeypatch.setattr(benchmark, "table", lambda hw, runs, people: ("", {}))
    assert benchmark.main(["--gpu", "1"]) == 0
    assert selected == [1]


def test_without_the_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "find_gpu", lambda index: (None, f"GPU {index} was asked for, 1 found"))
    assert benchmark.main(["--gpu", "3"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "needs an NVIDIA GPU: GPU 3 was asked for, 1 found" in captured.err
