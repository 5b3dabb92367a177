"""The object store, with s3fs and a real S3-compatible server on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

import cluster.object_store
from cluster.driver import Driver
from cluster.inputs import find_jobs, is_gone
from cluster.jobs import Recipe
from cluster.local_pool import LocalPool
from cluster.object_store import ObjectStore
from cluster.quarantine import Plan, Quarantine, plan
from cluster.remote import fetch, list_remote, open_file_system
from cluster.report import Report
from cluster.stores import open_store
from cluster.worker import Setup
from core.errors import EngineError, SinkError, SourceError
from tests.cluster.fakes import open_pictures, write_picture
from tests.cluster.test_driver import Notes

RECIPE = Recipe()
OTHER = {"token": "other", "host": "elsewhere", "pid": 1, "alive_at": 0.0}  # the lease of another driver


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch) -> str:
    """An empty bucket; workers inherit the variables that they need to reach it."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"videos-{time.monotonic_ns()}"
    system, _ = open_file_system("s3://")
    system.mkdir(name)  # type: ignore[attr-defined]
    return name


def put(url: str, path: Path) -> None:
    system, remote = open_file_system(url)
    system.put_file(str(path), remote)


def run(source: str, out: str) -> Notes:
    store = open_store(out)
    notes = Notes()
    with store.locked() as token:
        what = plan(find_jobs([source], out=out), RECIPE, store.contents(), Quarantine(store), retry_failed=False)
        setup = Setup(recipe=RECIPE, store=store, token=token, open_pose=open_pictures, cores=1)
        with LocalPool(setup, 1) as pool:
            Driver(pool, notes, discard=store.discard).run(what.todo)
    return notes


def test_sources_and_results_in_buckets(bucket, tmp_path):
    for index in range(3):
        put(f"s3://{bucket}/in/{index}.png", write_picture(tmp_path / f"{index}.png", index))
    out = f"s3://{bucket}/out"
    assert len(run(f"s3://{bucket}/in", out).ended) == 3
    line = json.loads(ObjectStore(out).read(f"{bucket}/in/2.png.jsonl") or b"")
    assert line["source"] == f"s3://{bucket}/in/2.png"
    assert line["people"][0]["keypoints"][0][0] == 2
    contents = ObjectStore(out).contents()
    assert len(contents.records) == len(contents.results) == 3

    put(f"s3://{bucket}/in/1.png", write_picture(tmp_path / "1.png", 99))  # another ETag
    notes = run(f"s3://{bucket}/in", out)
    assert notes.ended == [f"{bucket}/in/1.png"]
    assert len(ObjectStore(out).contents().records) == 3


def test_a_broken_object_is_named_by_its_address(bucket, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    put(f"s3://{bucket}/in/broken.png", tmp_path / "broken.png")
    (error,) = run(f"s3://{bucket}/in/broken.png", str(tmp_path / "out")).errors.values()
    assert error.startswith(f"s3://{bucket}/in/broken.png is not a readable image")


def test_results_below_the_sources_are_no_sources(bucket, tmp_path):
    put(f"s3://{bucket}/a.png", write_picture(tmp_path / "a.png", 1))
    put(f"s3://{bucket}/out/a.png", tmp_path / "a.png")
    assert [job.name for job in find_jobs([f"s3://{bucket}"], out=f"s3://{bucket}/out")] == [f"s3://{bucket}/a.png"]
    assert [file.url for file in list_remote(f"s3://{bucket}/*.png")] == [f"s3://{bucket}/a.png"]


def test_a_second_driver_is_refused_until_the_first_ends_or_dies(bucket, monkeypatch):
    first, second = (ObjectStore(f"s3://{bucket}/out") for _ in range(2))
    with first.locked() as token:
        second.check(token)
        with pytest.raises(SinkError, match=rf"s3://{bucket}/out is in use by another driver \(process \d+ on"):
            second.locked().__enter__()
    with pytest.raises(SinkError, match="is not the driver's"):
        second.check(token)
    monkeypatch.setattr(cluster.object_store, "RENEW_EVERY_S", 1e9)
    held = first.locked()
    held.__enter__()
    later = time.time() + cluster.object_store.EXPIRES_S + 1
    monkeypatch.setattr("time.time", lambda: later)
    monkeypatch.setattr(cluster.object_store, "SETTLE_S", 0.0)
    with second.locked():  # the first has not renewed its hold
        second.write("failed.jsonl", b"of the second")
        with pytest.raises(SinkError, match=r"was taken over by another driver"):
            first.write("failed.jsonl", b"of the first")
    assert second.read("failed.jsonl") == b"of the second"
    held.__exit__(None, None, None)
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


def test_of_two_drivers_that_take_over_a_void_lease_one_gets_it(bucket, monkeypatch):
    first, second = (ObjectStore(f"s3://{bucket}/out") for _ in range(2))
    old = {"token": "old", "host": "elsewhere", "pid": 1, "alive_at": time.time() - 1000}
    first.write(".higherpose/driver.json", json.dumps(old).encode())
    monkeypatch.setattr(cluster.object_store, "SETTLE_S", 0.0)
    won: list[str] = []
    sleep = time.sleep

    def slept(seconds: float) -> None:
        sleep(seconds)
        if not won:  # the first, which read the old lease too, replaces the second's
            won.append("first")
            first.write(".higherpose/driver.json", json.dumps({**old, "token": "first"}).encode())

    monkeypatch.setattr("cluster.object_store.time.sleep", slept)
    with pytest.raises(SinkError, match="in use by another driver"):
        second.locked().__enter__()
    assert won == ["first"]


def test_a_driver_that_takes_over_late_leaves_the_lease_of_another(bucket, monkeypatch):
    """It has read the void lease; before it writes its own, another driver does."""
    first, second = (ObjectStore(f"s3://{bucket}/out") for _ in range(2))
    first.write(".higherpose/driver.json", json.dumps(OTHER).encode())
    monkeypatch.setattr(cluster.object_store, "SETTLE_S", 0.0)
    tokens: list[str] = []

    class Late:
        """The second driver's file system. Its first change comes after the first driver's."""

        def __getattr__(self, name: str) -> object:
            if name in ("rm_file", "pipe_file") and not tokens:
                tokens.append(stack.enter_context(first.locked()))
            return getattr(system, name)

    system = second._files()
    second._system = Late()  # type: ignore[assignment]
    with ExitStack() as stack:
        with pytest.raises(SinkError, match="in use by another driver"):
            second.locked().__enter__()
        first.check(tokens[0])


def test_a_run_whose_lease_was_taken_over_ends_and_writes_nothing(bucket, monkeypatch):
    """Another driver writes its lease between the reading and the writing of a renewal."""
    monkeypatch.setattr(cluster.object_store, "RENEW_EVERY_S", 0.02)
    first, second = (ObjectStore(f"s3://{bucket}/out") for _ in range(2))
    read = first.read

    def reads(name: str) -> bytes | None:
        content = read(name)
        if threading.current_thread().name == "lease" and second.read(name) == content:
            second.write(name, json.dumps(OTHER).encode())
        return content

    def run_on(report: Report) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            report.tick(workers=1, running=1, frames_running=0)
            time.sleep(0.02)

    with first.locked():
        report = Report(Plan(todo=[], done=0, quarantined=0), RECIPE, first, Quarantine(first), Console(quiet=True))
        monkeypatch.setattr(first, "read", reads)
        with pytest.raises(SinkError, match=r"out was taken over by another driver \(process 1 on elsewhere\)"), report:
            run_on(report)
    assert second.read("summary.json") is None
    assert json.loads(second.read(".higherpose/driver.json") or b"") == OTHER


@pytest.mark.parametrize("key", ["2026/a[1].png", "what?.png", "a*.png"])
def test_a_key_with_the_characters_of_a_pattern_is_found(bucket, tmp_path, key):
    put(f"s3://{bucket}/{key}", write_picture(tmp_path / "a.png", 1))
    assert [file.url for file in list_remote(f"s3://{bucket}/{key}")] == [f"s3://{bucket}/{key}"]


@pytest.mark.parametrize("source", ["in", "in/*.png"])
def test_an_object_that_is_gone(bucket, tmp_path, source):
    put(f"s3://{bucket}/in/a.png", write_picture(tmp_path / "a.png", 1))
    put(f"s3://{bucket}/in/a.dat", tmp_path / "a.png")
    names = [f"s3://{bucket}/in/a.dat", f"s3://{bucket}/in/gone.png", f"s3://{bucket}/other/gone.png"]
    sources = [f"s3://{bucket}/{source}"]
    assert [is_gone(name, name.removeprefix("s3://"), sources) for name in names] == [False, True, False]


def test_a_key_that_leads_out_of_the_output_is_refused(bucket, tmp_path):
    put(f"s3://{bucket}/t/../../a.png", write_picture(tmp_path / "a.png", 1))
    with pytest.raises(SourceError, match=r"has a part \.\. in its key; rename it"):
        find_jobs([f"s3://{bucket}/"], out=str(tmp_path / "out"))


def test_a_driver_says_that_it_is_alive(bucket, monkeypatch):
    monkeypatch.setattr(cluster.object_store, "RENEW_EVERY_S", 0.02)
    store = ObjectStore(f"s3://{bucket}/out")

    def alive_at() -> float:
        return float(json.loads(store.read(".higherpose/driver.json") or b"{}")["alive_at"])

    with store.locked():
        before = alive_at()
        deadline = time.monotonic() + 10
        while alive_at() == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert alive_at() > before


def test_a_bucket_that_is_not_there(bucket, tmp_path):
    with pytest.raises(SourceError, match=r"s3://no-such-bucket/in cannot be listed|does not exist"):
        find_jobs(["s3://no-such-bucket/in"], out="out")
    with pytest.raises(SourceError, match=rf"s3://{bucket}/none does not exist, or is empty"):
        find_jobs([f"s3://{bucket}/none"], out="out")
    with (
        pytest.raises(SinkError, match=r"s3://no-such-bucket/out/.higherpose/driver.json cannot be written: .*bucket"),
        open_store("s3://no-such-bucket/out").locked(),
    ):
        pass
    with pytest.raises(SourceError, match=r"cannot be read: .*does not exist"):
        fetch(f"s3://{bucket}/none", tmp_path / "copy")


def test_a_server_that_does_not_answer(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    open_file_system("s3://")[0].clear_instance_cache()  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match=r"cannot be listed: .*Could not connect"):
        find_jobs([f"s3://{bucket}/in"], out="out")
    open_file_system("s3://")[0].clear_instance_cache()  # type: ignore[attr-defined]


def test_a_protocol_that_nobody_knows():
    with pytest.raises(ValueError, match="nonsense"):
        open_file_system("nonsense://x")


def test_fsspec_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(EngineError, match=r"s3:// cannot be used: .*pip install '\.\[cluster\]'"):
        open_file_system("s3://bucket")
