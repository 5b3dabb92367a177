"""From the command's arguments to a pool of workers: where they run, how many there are, what each may use."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from cluster.local_pool import LocalPool
from cluster.models import packed
from cluster.pool import Pool
from cluster.worker import Setup
from engine.gpu import count_gpus
from engine.onnx_runner import usable_cores

CPU_ENGINES = ("onnxruntime", "openvino")
VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def open_pool(arguments: argparse.Namespace, setup: Setup, files: int) -> Iterator[Pool]:
    """Processes of this machine, or a Ray cluster's actors where an address is given. files: that there are to do.

    Raises EngineError where the cluster cannot be used.
    """
    if arguments.address is None:
        with local_pool(arguments, setup, files) as local:
            yield local
        return
    from cluster import ray_pool

    ray_pool.connect(arguments.address, also=setup.open_pose.__module__.partition(".")[0])
    try:
        gpu = arguments.engine not in CPU_ENGINES and ray_pool.has_gpus()
        cores = ray_pool.cores_for_a_gpu() if gpu else arguments.cores or 1
        ask = ray_pool.Ask(cores=cores, gpus=int(gpu))
        model = packed(arguments.model)
        with ray_pool.RayPool(setup, arguments.workers, ask, files=model) as pool:
            yield pool
    finally:
        ray_pool.disconnect()


def local_pool(arguments: argparse.Namespace, setup: Setup, files: int) -> LocalPool:
    """As many as are of use: a GPU each where there are GPUs, else a group of cores each."""
    gpus = [] if arguments.engine in CPU_ENGINES else visible_gpus()
    cores = usable_cores()
    wanted = arguments.workers or len(gpus) or max(1, cores // (arguments.cores or 1))
    wanted = max(1, min(wanted, files))
    # fewer files than cores: each worker has more of them
    share = min(cores, arguments.cores or max(1, cores // wanted))
    environments: list[Mapping[str, str]] = [{VISIBLE: gpus[n % len(gpus)]} for n in range(wanted)] if gpus else []
    return LocalPool(replace(setup, cores=share), wanted, environments)


def visible_gpus() -> list[str]:
    """What to write into CUDA_VISIBLE_DEVICES to see one GPU alone, for each that this process sees."""
    count = count_gpus()
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]
