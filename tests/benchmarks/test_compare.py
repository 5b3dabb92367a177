"""The comparison of two commits, on a repository of two commits."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import compare

SCRIPT = 'print("warming up")\nprint(\'{"fps": %d, "stages_ms": {"infer": [1.5, 2]}, "engine": "x", "ok": true}\')\n'


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Two commits of speed.py, and a third version that is not committed."""

    def git(*words):
        who = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--initial-branch=main")
    for fps in (10, 20):
        (tmp_path / "speed.py").write_text(SCRIPT % fps)
        git("add", "speed.py")
        git("commit", "-m", f"{fps}")
    (tmp_path / "speed.py").write_text(SCRIPT % 30)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_commits_are_measured_and_their_worktrees_removed(repository, capsys):
    assert compare.main(["HEAD~1", "HEAD", "--turns", "2", "--", "speed.py"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines["fps"] == ["fps", "10", "20", "+100.0%", "differs"]
    assert lines["stages_ms.infer[0]"][1:] == ["1.5", "1.5", "+0.0%", "same"]
    assert "wall_s" in lines
    assert not {"engine", "ok"} & lines.keys()
    listed = subprocess.run(["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1


def test_without_a_second_commit_the_files_as_they_are_count(repository, capsys):
    assert compare.main(["HEAD", "--turns", "1", "--", "speed.py"]) == 0
    assert "fps" in capsys.readouterr().out
    assert compare.run_once(repository, ["speed.py"])["fps"] == 30


def test_turns_alternate(monkeypatch, tmp_path):
    ran = []

    def run_once(place, command):
        ran.append(place.name)
        return {"wall_s": 1.0}

    monkeypatch.setattr(compare, "run_once", run_once)
    turns = compare.measure([tmp_path / "a", tmp_path / "b"], ["x"], 3)
    assert "".join(ran) == "abbaabba"
    assert [len(side) for side in turns] == [3, 3]


def test_a_failing_command_and_an_unknown_commit_end_in_one_line(repository, capsys):
    (repository / "broken.py").write_text("raise SystemExit('no engine')")
    assert compare.main([".", ".", "--", "broken.py"]) == 1
    assert "no engine" in capsys.readouterr().err
    assert compare.main(["no-such", "--", "speed.py"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_no_command_is_refused(repository):
    with pytest.raises(SystemExit, match="2"):
        compare.main(["HEAD"])
