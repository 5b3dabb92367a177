"""The output folder on a disk: complete results or none, one driver at a time, one line for each error."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.local_store import LocalStore
from cluster.store import NoSpaceError
from cluster.stores import open_store
from core.errors import SinkError


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def commit(store: LocalStore, name: str, text: str, record: str, stale: tuple[str, ...] = ()) -> None:
    with store.attempt("prefix", Path()) as folder:
        (folder / Path(name).name).write_text(text)
        store.commit(folder, [name], record, b"{}", stale)


def test_a_commit_puts_results_in_place_and_the_record_last(store):
    with store.locked():
        commit(store, "a/b.mp4.jsonl", "one", "prefix-1.json")
        contents = store.contents()
        assert (contents.results, contents.records) == ({"a/b.mp4.jsonl"}, {"prefix-1.json"})
        commit(store, "a/b.mp4.jsonl", "two", "prefix-2.json", stale=("prefix-1.json", "never-was.json"))
        assert store.contents().records == {"prefix-2.json"}
        assert store.read("a/b.mp4.jsonl") == b"two"


def test_a_commit_that_fails_leaves_no_record(store, monkeypatch):
    with store.locked():
        commit(store, "a.jsonl", "one", "prefix-1.json")

        def full(path: Path, target: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(NoSpaceError, match=r"a\.jsonl cannot be written: No space left on device"):
            commit(store, "a.jsonl", "two", "prefix-2.json", stale=("prefix-1.json",))
        assert store.contents().records == frozenset()  # neither the old, which is no longer true, nor the new
        assert not any((store.root / ".higherpose" / "partial").iterdir())


def test_what_an_attempt_leaves_goes(store):
    with store.locked():
        left = store.root / ".higherpose" / "partial" / "prefix-killed"
        left.mkdir()
        other = store.root / ".higherpose" / "partial" / "other-alive"
        other.mkdir()
        store.discard("prefix")
        assert (left.exists(), other.exists()) == (False, True)
    with store.locked():
        assert not other.exists()  # a new driver begins with an empty folder


def test_a_second_driver_is_refused_and_told_by_whom(store):
    with store.locked(), pytest.raises(SinkError, match=rf"in use by another driver \(process {os.getpid()} on "):
        LocalStore(store.root).locked().__enter__()
    with LocalStore(store.root).locked():
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no flock there")
def test_a_driver_that_was_killed_holds_nothing(store):
    program = f"""
import os
from pathlib import Path
from cluster.local_store import LocalStore
with LocalStore(Path({str(store.root)!r})).locked():
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert (store.root / ".higherpose" / "driver.json").exists()
    with store.locked() as token:
        store.check(token)


def test_a_worker_that_sees_another_folder_says_so(store, tmp_path):
    other = LocalStore(tmp_path / "other")
    with store.locked() as token:
        with pytest.raises(SinkError, match="expected a folder that every machine mounts"):
            other.check(token)
        with other.locked(), pytest.raises(SinkError, match="is not the driver's folder"):
            other.check(token)


def test_a_store_travels(store):
    assert pickle.loads(pickle.dumps(store)).where == store.where
    assert pickle.loads(pickle.dumps(open_store("s3://bucket/out/"))).where == "s3://bucket/out"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SinkError, match=r"file/out/.* cannot be made: Not a directory"):
        LocalStore(tmp_path / "file" / "out").locked().__enter__()
