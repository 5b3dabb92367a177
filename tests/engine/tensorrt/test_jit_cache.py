"""engine/tensorrt/jit_cache.py on a stand-in for TensorRT-RTX: what a run compiled is there for the next one."""

from __future__ import annotations

import logging

import pytest

from engine.tensorrt.jit_cache import cache_path, load_cache, save_cache


class FakeCache:
    """Takes blobs that start with `gpu`; each run compiles one more kernel."""

    def __init__(self, gpu):
        self.gpu, self.kernels = gpu, 0

    def deserialize(self, blob):
        if not blob.startswith(self.gpu):
            return False
        self.kernels = len(blob) - len(self.gpu)
        return True

    def serialize(self):
        return memoryview(self.gpu + b"k" * self.kernels)


class FakeConfig:
    """An IRuntimeConfig on a machine with such a GPU."""

    def __init__(self, gpu=b"A", *, takes=True):
        self.gpu, self.takes = gpu, takes
        self.given: FakeCache | None = None

    def create_runtime_cache(self):
        return FakeCache(self.gpu)

    def set_runtime_cache(self, cache):
        self.given = cache
        return self.takes


@pytest.fixture
def plan(tmp_path):
    return tmp_path / "w32.plan"


def test_what_one_run_compiled_the_next_one_finds(plan):
    config = FakeConfig()
    cache = load_cache(config, plan)
    assert config.given is cache is not None
    cache.kernels = 7
    save_cache(cache, plan)
    assert load_cache(FakeConfig(), plan).kernels == 7


def test_a_cache_that_is_not_taken_is_a_warning(plan, caplog):
    load_cache(FakeConfig(takes=False), plan)
    assert "kernels are compiled at every start" in caplog.text


def test_a_run_that_compiled_nothing_writes_nothing(plan):
    save_cache(load_cache(FakeConfig(), plan), plan)
    before = cache_path(plan).stat().st_mtime_ns
    save_cache(load_cache(FakeConfig(), plan), plan)
    assert cache_path(plan).stat().st_mtime_ns == before


def test_a_cache_of_another_gpu_is_replaced_and_said(plan, caplog):
    cache_path(plan).write_bytes(b"Bkkk")
    with caplog.at_level(logging.INFO):
        cache = load_cache(FakeConfig(), plan)
    assert "compiled anew" in caplog.text
    cache.kernels = 1
    save_cache(cache, plan)
    assert cache_path(plan).read_bytes() == b"Ak"


def test_a_folder_that_cannot_be_written_is_a_warning(plan, caplog):
    cache_path(plan).mkdir()  # not a file, and no file can take its place
    cache = load_cache(FakeConfig(), plan)
    save_cache(cache, plan)
    assert "the next start compiles again" in caplog.text
