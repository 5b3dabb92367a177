"""Which files the sources give, their names in the output, and which of them are not done yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.inputs import check_copies, find_jobs
from cluster.jobs import Job, Recipe
from cluster.local_store import LocalStore
from cluster.quarantine import FAILED, Failure, Quarantine, plan
from cluster.store import Contents
from core.errors import SourceError


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The working directory, with videos in it and below, and files that are no videos."""
    for name in ("in/a2.mp4", "in/a10.mp4", "in/deep/er/b.AVI", "in/notes.txt", "in/.hidden/c.mp4", "in/.d.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(*sources: str, out: str = "out") -> list[str]:
    return [job.path for job in find_jobs(list(sources), out=out)]


def test_a_folder_gives_what_lies_below_it_in_natural_order(files):
    jobs = find_jobs(["in"], out="out")
    assert [job.path for job in jobs] == ["in/a2.mp4", "in/a10.mp4", "in/deep/er/b.AVI"]
    assert [job.name for job in jobs] == ["in/a2.mp4", "in/a10.mp4", "in/deep/er/b.AVI"]
    assert jobs[0].where == str(files / "in/a2.mp4")
    assert jobs[0].size_bytes == len("in/a2.mp4")


def test_a_file_is_taken_once_however_often_it_is_named(files):
    assert paths("in/a2.mp4", "./in/a2.mp4", "in/*.mp4", "in") == ["in/a2.mp4", "in/a10.mp4", "in/deep/er/b.AVI"]


def test_a_file_whose_suffix_is_unknown_is_taken_if_it_is_named(files):
    assert paths("in/notes.txt") == ["in/notes.txt"]


def test_what_lies_above_has_its_whole_path(files, monkeypatch):
    monkeypatch.chdir(files / "in" / "deep")
    assert paths("../a2.mp4") == [str(files / "in/a2.mp4").lstrip("/")]
    assert paths(str(files / "in/a2.mp4")) == [str(files / "in/a2.mp4").lstrip("/")]


def test_results_are_no_sources(files):
    (files / "in/out").mkdir()
    (files / "in/out/a2.mp4").write_text("annotated")
    assert "in/out/a2.mp4" not in paths("in", out="in/out")
    assert "in/out/a2.mp4" in paths("in/**/*.mp4", out="elsewhere")
    assert "in/out/a2.mp4" not in paths("in/**/*.mp4", out="in/out")


@pytest.mark.parametrize("out", [".", "in"])
def test_a_glob_finds_files_beside_which_results_are_written(files, out):
    assert paths("in/a*.mp4", out=out) == ["in/a2.mp4", "in/a10.mp4"]


def test_copies_that_the_next_run_does_not_find_are_allowed(files):
    check_copies("in/**/*.mp4", "in/out")
    check_copies("in/*.mp4", "in")  # the copies are in in/in
    check_copies(str(files / "in"), str(files))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("none.mp4", SourceError, "none.mp4 does not exist; expected a file, folder, glob or URL"),
        ("*.none", SourceError, r"no file matches \*\.none"),
        ("empty", SourceError, "folder empty holds no images or videos"),
        ("0", ValueError, "0 is live and may never end"),
        ("rtsp://host/x", ValueError, "is live and may never end"),
        ("", ValueError, "an empty source"),
    ],
)
def test_what_is_refused(files, source, error, message):
    (files / "empty").mkdir()
    with pytest.raises(error, match=message):
        find_jobs([source], out="out")


def test_two_sources_that_would_share_results_are_refused(files):
    inside = files / str(files).lstrip("/") / "in"
    inside.mkdir(parents=True)
    (inside / "a2.mp4").write_text("another")
    typed = str(inside.relative_to(files) / "a2.mp4")
    with pytest.raises(ValueError, match="would share the results"):
        find_jobs([typed, str(files / "in/a2.mp4")], out="out")


def test_failures_of_files_that_are_gone_are_dropped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/there.mp4", "other/there.mp4"):
        Path(name).parent.mkdir()
        Path(name).write_text("x")
    store = LocalStore(tmp_path / "out")
    elsewhere = ("../in/gone.mp4", "work/in/gone.mp4")  # named in another working directory
    names = ("in/gone.mp4", "in/there.mp4", "other/gone.mp4", "s3://bucket/a.mp4")

    def kept(*sources: str) -> list[str]:
        quarantine = Quarantine(store)
        quarantine.drop_gone(find_jobs(sources, out="out"), sources)
        quarantine.write(now=True)
        return [json.loads(line)["source"] for line in (store.root / FAILED).read_text().splitlines()]

    with store.locked():
        quarantine = Quarantine(store)
        for name, path in (elsewhere, *zip(names, names, strict=True)):
            quarantine.add(Failure(source=name, path=path, key="k", error="broken", attempts=3, at=0.0))
        quarantine.write(now=True)
        assert kept("in/there.mp4") == [elsewhere[0], *names]
        assert kept("in/*.mp4") == [elsewhere[0], *names[1:]]  # not those of other folders
        assert kept(str(tmp_path / "other")) == [elsewhere[0], "in/there.mp4", "s3://bucket/a.mp4"]


JOB = Job(name="a.mp4", where="/a.mp4", path="a.mp4", size_bytes=5, version="1")


def test_the_names_of_results():
    every = Recipe(save=True, table="parquet")
    assert every.results(JOB).names == ("a.mp4.jsonl", "a.mp4.parquet", "a.mp4")
    for path, saved in (("x/a.avi", "x/a.avi.mp4"), ("a.jpg", "a.jpg"), ("a.MOV", "a.MOV")):
        job = Job(name=path, where=path, path=path, size_bytes=0, version="")
        assert every.results(job).save == saved


@pytest.mark.parametrize(
    "other",
    [
        Job(name="a.mp4", where="/a.mp4", path="a.mp4", size_bytes=6, version="1"),
        Job(name="a.mp4", where="/a.mp4", path="a.mp4", size_bytes=5, version="2"),
        Job(name="b.mp4", where="/b.mp4", path="b.mp4", size_bytes=5, version="1"),
    ],
)
def test_the_key_changes_with_the_file(other):
    assert Recipe().key(other) != Recipe().key(JOB)


def test_the_key_changes_with_what_is_done_and_not_with_where_the_model_lies():
    base = Recipe(options={"model": "a.onnx", "flip": False}, model_digest="1")
    elsewhere = Recipe(options={"model": "a.onnx", "flip": False}, model_digest="1", decoder="cpu", encoder="cpu")
    assert base.key(JOB) == elsewhere.key(JOB)  # the same people, and as good a copy
    same = Recipe(options={"flip": False, "model": "./a.onnx"}, model_digest="1")
    assert base.key(JOB) == same.key(JOB)
    for other in (
        Recipe(options={"model": "a.onnx", "flip": True}, model_digest="1"),
        Recipe(options={"model": "a.onnx", "flip": False}, model_digest="2"),
        Recipe(options={"model": "a.onnx", "flip": False}, model_digest="1", save=True),
        Recipe(options={"model": "a.onnx", "flip": False}, model_digest="1", table="csv"),
    ):
        assert other.key(JOB) != base.key(JOB)


def test_done_is_what_has_its_record_and_its_results(tmp_path):
    recipe = Recipe()
    store = LocalStore(tmp_path / "out")
    record = recipe.record(JOB)

    def todo(results: set[str], records: set[str]) -> list[tuple[str, ...]]:
        contents = Contents(frozenset(results), frozenset(records))
        return [job.stale for job in plan([JOB], recipe, contents, Quarantine(store), retry_failed=False).todo]

    with store.locked():
        assert todo({"a.mp4.jsonl"}, {record}) == []
        assert todo(set(), {record}) == [(record,)]
        assert todo({"a.mp4.jsonl"}, set()) == [()]
        other = f"{JOB.prefix}-0123456789abcdef.json"
        assert todo({"a.mp4.jsonl"}, {other}) == [(other,)]


def test_what_failed_is_put_aside_until_asked_for_or_changed(tmp_path):
    recipe = Recipe()
    store = LocalStore(tmp_path / "out")
    nothing = Contents(frozenset(), frozenset())
    changed = Job(name="a.mp4", where="/a.mp4", path="a.mp4", size_bytes=9, version="1")
    with store.locked():
        quarantine = Quarantine(store)
        quarantine.add(
            Failure(source="a.mp4", path="a.mp4", key=recipe.key(JOB), error="it is broken", attempts=3, at=0.0)
        )
        quarantine.write(now=True)
        with (store.root / FAILED).open("a") as file:
            file.write("edited by hand\n")
        for job, retry, expected in ((JOB, False, (0, 1)), (JOB, True, (1, 0)), (changed, False, (1, 0))):
            again = Quarantine(store)
            what = plan([job], recipe, nothing, again, retry_failed=retry)
            assert (len(what.todo), what.quarantined) == expected
            assert again.holds("a.mp4", recipe.key(JOB)) == (expected == (0, 1))
        assert list((store.root / ".higherpose" / "partial").iterdir()) == []
