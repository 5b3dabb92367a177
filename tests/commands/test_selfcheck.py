"""commands/selfcheck.py: each check fails alone, and what is missing is told from what is wrong."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from commands import selfcheck
from commands.selfcheck import MIN_SCORE, Check, attempt, compare_people, disagreement, run_checks
from core.errors import EngineError
from engine.gpu import Gpu
from evaluation.compare import Comparison

GPU = Gpu("NVIDIA Test", (8, 9), 8 << 30, (13, 0))


def fails(error):
    def check(*arguments):
        raise error

    return check


@pytest.fixture
def machine(monkeypatch):
    """A machine with a GPU on which everything works."""
    monkeypatch.setattr(selfcheck, "find_gpu", lambda index: (GPU, str(GPU)))
    for name in ("check_context", "check_kernels"):
        monkeypatch.setattr(selfcheck, name, lambda index: "fine")
    monkeypatch.setattr(selfcheck, "people_of", lambda engine: [])
    monkeypatch.setattr(selfcheck, "check_engine", lambda engine, expected, index: "agrees")
    monkeypatch.setattr(sys, "argv", ["selfcheck"])
    return monkeypatch


def test_without_a_gpu_only_that_is_said(machine, capsys):
    machine.setattr(selfcheck, "find_gpu", lambda index: (None, "no NVIDIA driver is installed"))
    assert [check.verdict for check in run_checks()] == ["no"]
    assert selfcheck.main() == 1
    assert "no  no NVIDIA driver is installed" in capsys.readouterr().out


def test_where_all_works_the_status_is_zero(machine, capsys):
    assert selfcheck.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + len(selfcheck.ENGINES) + 1
    assert all(" ok  " in line for line in lines[:-1])


def test_every_check_is_of_the_gpu_that_was_named(machine, capsys):
    seen = []

    def check(name, result):
        def of_gpu(*arguments):
            seen.append((name, arguments[-1]))
            return result

        return of_gpu

    machine.setattr(selfcheck, "find_gpu", check("find_gpu", (GPU, str(GPU))))
    for name in ("check_context", "check_kernels", "check_engine"):
        machine.setattr(selfcheck, name, check(name, "fine"))
    machine.setattr(sys, "argv", ["selfcheck", "--gpu", "2"])
    assert selfcheck.main() == 0
    engines = ["check_engine"] * len(selfcheck.ENGINES)
    assert seen == [(name, 2) for name in ("find_gpu", "check_context", "check_kernels", *engines)]
    machine.setattr(sys, "argv", ["selfcheck", "--gpu", "two"])
    with pytest.raises(SystemExit, match="2"):
        selfcheck.main()
    assert "--gpu: got two, expected a whole number" in capsys.readouterr().err


def test_one_engine_is_enough(machine):
    def check_engine(engine, expected, index):
        if engine != "torch":
            raise EngineError("cannot be loaded") from ImportError("no such module")
        return "agrees"

    machine.setattr(selfcheck, "check_engine", check_engine)
    assert [check.verdict for check in run_checks()] == ["ok", "ok", "ok", "--", "--", "ok"]
    assert selfcheck.main() == 0


def test_no_engine_is_tried_where_the_kernels_do_not_work(machine):
    machine.setattr(selfcheck, "check_kernels", fails(RuntimeError("ptxas\n failed")))
    checks = list(run_checks())
    assert checks[-1] == Check("CUDA kernels", "no", "RuntimeError: ptxas failed")
    assert selfcheck.main() == 1


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(ModuleNotFoundError("numba"), "--"), (EngineError("driver too old"), "no"), (ZeroDivisionError(), "no")],
)
def test_what_is_missing_is_told_from_what_is_wrong(error, verdict):
    assert attempt("x", fails(error)).verdict == verdict


def comparison(people, matched, distance):
    return Comparison(people, matched, np.full(10, distance))


def test_engines_agree_or_the_difference_is_named():
    assert disagreement(comparison((100, 100), 99, 0.3)) is None
    assert "only 90 of 100 people match" in str(disagreement(comparison((100, 91), 90, 0.3)))
    assert "1.50 px apart" in str(disagreement(comparison((100, 100), 100, 1.5)))


def person(image, score, x=0.0):
    keypoints = [value for k in range(17) for value in (x + k, 10.0 * k, 1.0)]
    return {"image_id": image, "category_id": 1, "keypoints": keypoints, "score": score}


def test_a_person_who_scores_just_below_the_limit_in_one_engine_is_not_missing():
    expected = [person(i, 0.6) for i in range(3)] + [person(3, MIN_SCORE + 0.01), person(4, MIN_SCORE - 0.01)]
    found = [person(i, 0.6, x=0.5) for i in range(3)] + [person(3, MIN_SCORE - 0.01), person(4, MIN_SCORE + 0.01)]
    comparison = compare_people(expected, found)
    assert (comparison.people, comparison.matched) == ((4, 4), 4)
    assert comparison.percentile(50) == 0.5


@pytest.mark.parametrize("further", [[], [person(5, 0.6)], [person(0, 0.6, x=900.0)]])
def test_who_is_missing_or_too_many_is_counted(further):
    expected, found = [person(i, 0.6) for i in range(4)], [person(i, 0.6) for i in range(3)]
    if further:
        expected, found = found, [*found, *further]
    comparison = compare_people(expected, found)
    assert (max(comparison.people), comparison.matched) == (4, 3)
    assert "only 3 of 4 people match" in str(disagreement(comparison))


def test_the_cpu_agrees_with_itself_on_the_sample_clip():
    once, again = selfcheck.people_of("onnxruntime", 3), selfcheck.people_of("onnxruntime", 3)
    assert once
    assert {result["image_id"] for result in once} == {0, 1, 2}
    assert once == again
