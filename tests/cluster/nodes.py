"""Real Ray nodes on this machine, in a temporary folder; all their processes and files are removed afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# By default Ray lowers the priority of its workers, which slows tests down on a busy machine
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
ONE = {
    "num_cpus": 1,
    "num_gpus": 0,
    "object_store_memory": 80 << 20,  # the least that Ray takes
    "include_dashboard": False,
}


class Nodes:
    """Nodes with one core each. environment: the variables that a process needs to join them."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self._cluster = cluster
        self.address = str(cluster.address)
        self.environment = {**os.environ, **QUIET, "RAY_TMPDIR": str(folder)}

    def kill(self, index: int) -> None:
        """The whole machine at once, as a power cut does: the node's own process and every worker on it."""
        node = self._cluster.list_all_nodes()[index]
        pids = [info.process.pid for kind in node.all_processes.values() for info in kind]
        children = [child for pid in pids for child in descendants(pid)]
        for pid in [*pids, *children]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def replace(self, index: int) -> None:
        """Another node for one that was killed."""
        self._cluster.remove_node(self._cluster.list_all_nodes()[index], allow_graceful=False)
        self._cluster.add_node(**ONE)


@contextmanager
def ray_nodes(count: int = 2) -> Iterator[Nodes]:
    # not pytest's folder: a socket's path has at most 107 characters
    folder = Path(tempfile.mkdtemp(prefix="hp-ray-"))
    before = {name: os.environ.get(name) for name in (*QUIET, "RAY_TMPDIR")}
    os.environ.update(QUIET, RAY_TMPDIR=str(folder))  # Ray would write its address where every Ray program looks
    try:
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        try:
            for index in range(count):
                cluster.add_node(wait=index == count - 1, **ONE)
            yield Nodes(cluster, folder)
        finally:
            cluster.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        kill_processes(str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def kill_processes(folder: str) -> None:
    """Kill what still runs with this folder in its command line: a node that was killed leaves children."""
    deadline = time.monotonic() + 10
    while (left := find_processes(folder)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def find_processes(text: str) -> list[int]:
    """Ids of the other processes with `text` in their command line or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):
                content = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if text.encode() in content and state_of(entry) != "Z":
                    found.append(int(entry.name))
    return found


def state_of(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, children) for one in (child, *descendants(child))]
