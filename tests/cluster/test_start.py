"""Where workers would run and what each may use, without starting any."""

from __future__ import annotations

import argparse

import pytest

from cluster import start
from cluster.jobs import Recipe
from cluster.local_store import LocalStore
from cluster.ray_pool import WorkerResources, excluded, max_workers
from cluster.worker import Setup
from tests.cluster.fakes import open_pictures


def pool(tmp_path, *, workers=None, cores=None, engine="auto", files=100):
    setup = Setup(recipe=Recipe(), store=LocalStore(tmp_path), token="", open_pose=open_pictures)
    return start.local_pool(argparse.Namespace(workers=workers, cores=cores, engine=engine), setup, files)


@pytest.mark.parametrize(
    ("asked", "files", "expected"),
    [
        ({}, 100, (8, 1)),
        ({"cores": 2}, 100, (4, 2)),
        ({"workers": 2}, 100, (2, 4)),
        ({"workers": 16}, 100, (16, 1)),
        ({}, 1, (1, 8)),  # one file has all cores
        ({"cores": 99}, 100, (1, 8)),
    ],
)
def test_cores_are_shared_out(tmp_path, monkeypatch, asked, files, expected):
    monkeypatch.setattr(start, "usable_cores", lambda: 8)
    monkeypatch.setattr(start, "count_gpus", lambda: 0)
    made = pool(tmp_path, files=files, **asked)
    assert (made.wanted, made._setup.cores) == expected


@pytest.mark.parametrize(
    ("visible", "names"), [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_each_worker_sees_one_gpu(tmp_path, monkeypatch, visible, names):
    monkeypatch.setattr(start, "usable_cores", lambda: 8)
    monkeypatch.setattr(start, "count_gpus", lambda: 2)
    monkeypatch.delenv(start.VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(start.VISIBLE, visible)
    made = pool(tmp_path)
    assert (made.wanted, made._setup.cores) == (2, 4)
    assert [environment[start.VISIBLE] for environment in made._free] == names
    assert pool(tmp_path, engine="onnxruntime").wanted == 8  # an engine that leaves the GPUs alone


def test_room_on_a_cluster(monkeypatch):
    machines = {"a": {"CPU": 8.0, "GPU": 2.0}, "b": {"CPU": 3.0}, "c": {"GPU": 4.0, "CPU": 2.0}}
    monkeypatch.setattr("cluster.ray_pool._machines", lambda: machines)
    assert max_workers(WorkerResources(cores=1)) == 13
    assert max_workers(WorkerResources(cores=4)) == 2
    assert max_workers(WorkerResources(cores=1, gpus=1)) == 4  # c has cores for two of its four GPUs


def test_what_does_not_travel(tmp_path):
    for name in ("cluster", "films [raw]", ".git"):
        (tmp_path / name).mkdir()
    assert excluded(tmp_path, {"cluster"}) == [r"/\.git", r"/films\ \[raw\]"]
