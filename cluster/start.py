"""Opens the pool of workers that the arguments ask for: where they run, how many, and what each may use."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from cluster.local_pool import LocalPool
from cluster.models import pack_model
from cluster.pool import Pool
from cluster.worker import Setup
from engine.gpu import count_gpus
from engine.onnx_runner import usable_cores

CPU_ENGINES = ("onnxruntime", "openvino")
VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def open_pool(arguments: argparse.Namespace, setup: Setup, files: int) -> Iterator[Pool]:
    """Processes of this machine, or actors of a Ray cluster if an address is given. files: the number of files to do.

    Raises EngineError if the cluster cannot be used.
    """
    if arguments.address is None:
        with local_pool(arguments, setup, files) as local:
            yield local
        return
    from cluster import ray_pool

    ray_pool.connect(arguments.address, extra_folder=setup.open_pose.__module__.partition(".")[0])
    try:
        gpu = arguments.engine not in CPU_ENGINES and ray_pool.has_gpus()
        cores = ray_pool.cores_for_a_gpu() if gpu else arguments.cores or 1
        resources = ray_pool.WorkerResources(cores=cores, gpus=int(gpu))
        model = pack_model(arguments.model)
        with ray_pool.RayPool(setup, arguments.workers, resources, files=model) as pool:
            yield pool
    finally:
        ray_pool.disconnect()


def local_pool(arguments: argparse.Namespace, setup: Setup, files: int) -> LocalPool:
    """At most one worker per file: one per GPU if there are GPUs, else one per group of cores."""
    gpus = [] if arguments.engine in CPU_ENGINES else visible_gpus()
    cores = usable_cores()
    wanted = arguments.workers or len(gpus) or max(1, cores // (arguments.cores or 1))
    wanted = max(1, min(wanted, files))
    # with fewer workers than cores, each worker has several
    share = min(cores, arguments.cores or max(1, cores // wanted))
    environments: list[Mapping[str, str]] = [{VISIBLE: gpus[n % len(gpus)]} for n in range(wanted)] if gpus else []
    return LocalPool(replace(setup, cores=share), wanted, environments)


def visible_gpus() -> list[str]:
    """For each GPU that this process sees, the value of CUDA_VISIBLE_DEVICES that selects it alone."""
    count = count_gpus()
    names = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return names[:count] if names else [str(index) for index in range(count)]
