"""The cache of compiled kernels: what an entry's name depends on, and which entries are not read."""

from __future__ import annotations

import stat
import sys

import numpy as np
import pytest

from kernels.cuda import kept
from kernels.cuda.kept import KernelCache, described

SIGNATURE = ("array(float32, 1d, C)", "int32")


HALF = np.float32(0.5)


def kernel_for(limit, scale=HALF, helper=None):
    def add(x):
        return x + limit * scale if helper is None else helper(x)

    return add


def doubled(x):
    return 2 * x


def refuse(kernel):
    raise ValueError("it has objects")


def unreadable(data, argument_types):
    raise KeyError("entry")


def cache_of(function, environment=((9, 0), "13.5"), to_data=lambda kernel: kernel, from_data=lambda data, types: data):
    """A cache whose kernels are data already."""
    return KernelCache(function, lambda: environment, to_data, from_data)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("core.files.user_cache_path", lambda name, appauthor: tmp_path / name)
    return cache_of(kernel_for(3))


def test_what_was_saved_is_loaded_in_the_next_process(cache):
    assert cache.load_overload(SIGNATURE, None) is None
    cache.save_overload(SIGNATURE, {"cubin": "machine code"})
    assert cache_of(kernel_for(3)).load_overload(SIGNATURE, None) == {"cubin": "machine code"}


def test_an_entry_is_named_by_all_that_its_code_depends_on(cache, monkeypatch):
    entries = {
        cache.entry(SIGNATURE),
        cache.entry(("array(float16, 1d, C)", "int32")),
        cache_of(kernel_for(4)).entry(SIGNATURE),
        cache_of(kernel_for(3, np.float32(0.75))).entry(SIGNATURE),
        cache_of(kernel_for(3, helper=kernel_for(5))).entry(SIGNATURE),
        cache_of(kernel_for(3, helper=kernel_for(6))).entry(SIGNATURE),
        cache_of(kernel_for(3, helper=doubled)).entry(SIGNATURE),
        cache_of(kernel_for(3), ((8, 9), "13.5")).entry(SIGNATURE),
        cache_of(kernel_for(3), ((9, 0), "13.6")).entry(SIGNATURE),
    }
    assert len(entries) == 9
    assert cache.entry(SIGNATURE) == cache_of(kernel_for(3)).entry(SIGNATURE)
    monkeypatch.setattr(kept, "sources_digest", lambda: "another line in maps.py")
    assert cache.entry(SIGNATURE) not in entries


def test_a_change_of_any_source_changes_the_digest(tmp_path, monkeypatch):
    (tmp_path / "maps.py").write_text("HALF = 0.5")
    rules = tmp_path / "rules.txt"
    rules.write_text("NEAR = 0.75")
    monkeypatch.setattr(kept, "HERE", tmp_path)
    monkeypatch.setattr(kept, "RULES", rules)
    digests = {kept.sources_digest.__wrapped__()}
    (tmp_path / "maps.py").write_text("HALF = 0.25")
    digests.add(kept.sources_digest.__wrapped__())
    rules.write_text("NEAR = 0.5")
    digests.add(kept.sources_digest.__wrapped__())
    assert len(digests) == 3


def test_a_kernel_that_cannot_be_described_is_not_guessed_at():
    with pytest.raises(TypeError, match="closed over a list"):
        described(kernel_for([3]))


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + b"x" + b[41:]])
def test_a_damaged_entry_is_not_read_and_the_next_one_replaces_it(cache, damage):
    cache.save_overload(SIGNATURE, "code" * 20)
    path = cache.entry(SIGNATURE)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.load_overload(SIGNATURE, None) is None
    cache.save_overload(SIGNATURE, "code" * 20)
    assert cache.load_overload(SIGNATURE, None) == "code" * 20


def test_an_entry_that_another_version_wrote_is_not_read(cache):
    cache.save_overload(SIGNATURE, "code")
    assert cache_of(kernel_for(3), from_data=unreadable).load_overload(SIGNATURE, None) is None


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_only_this_user_reads_and_writes_and_what_others_could_have_written_is_not_read(cache):
    cache.save_overload(SIGNATURE, "code")
    path = cache.entry(SIGNATURE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    path.chmod(0o620)
    assert cache.load_overload(SIGNATURE, None) is None


def test_where_nothing_can_be_written_or_kept_each_process_compiles(cache, monkeypatch):
    monkeypatch.setattr(
        kept, "write_whole", lambda *args, **kwargs: (_ for _ in ()).throw(PermissionError("read-only"))
    )
    cache.save_overload(SIGNATURE, "code")
    assert cache.load_overload(SIGNATURE, None) is None

    refused = cache_of(kernel_for(3), to_data=refuse)
    refused.save_overload(SIGNATURE, "code")
    assert refused.load_overload(SIGNATURE, None) is None
    assert not cache.entry(SIGNATURE).parent.exists()
