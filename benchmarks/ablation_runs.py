"""Several `python -m train` side by side, with a time limit, compared at the last step that all have reached."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

TRAIN = (sys.executable, "-m", "train")
POLL_S = 0.2
GRACE_S = 8.0  # from SIGTERM to SIGKILL
SNAPSHOT = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class Result:
    """steps: that all runs but the failed ones have reached, 0 if there is no such weight file. kept: name -> its
    weights. failed: name -> the last line of its log, for runs that ended with an error of their own. seconds: of
    everything."""

    steps: int
    kept: Mapping[str, Path]
    failed: Mapping[str, str]
    seconds: float


def run_all(
    runs: Mapping[str, Sequence[str]],
    out: Path,
    *,
    parallel: int,
    limit_s: float = float("inf"),
    tell: Callable[[str], object] = lambda text: None,
    program: Sequence[str] = TRAIN,
) -> Result:
    """Run `program` with the arguments of each run and `--run OUT/runs/NAME`, at most `parallel` at a time.

    The runs write step-STEP.safetensors into that folder; those of the last common STEP are copied to
    OUT/NAME-stepSTEP.safetensors, the logs are OUT/NAME.log. After `limit_s` seconds, and if this process is
    interrupted, all are ended. A run that fails does not affect the others.
    """
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    waiting, active, failed = list(runs), dict[str, subprocess.Popen[bytes]](), dict[str, str]()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with ExitStack() as logs:
        try:
            while (waiting or active) and time.monotonic() - began < limit_s:
                while waiting and len(active) < parallel:
                    name = waiting.pop(0)
                    log = logs.enter_context((out / f"{name}.log").open("wb"))
                    command = [*program, "--run", str(out / "runs" / name), *runs[name]]
                    active[name] = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
                    )
                for name in [name for name, process in active.items() if process.poll() is not None]:
                    status = active.pop(name).returncode
                    tell(f"{time.monotonic() - began:6.1f} s  {name} ended with status {status}")
                    if status:
                        failed[name] = f"status {status}; {_last_line(out / f'{name}.log')}"
                time.sleep(POLL_S)
        finally:
            _end(list(active.values()))
    if active or waiting:
        tell(f"{time.monotonic() - began:6.1f} s  the time is over; {len(active)} were running, {len(waiting)} waiting")
    steps, kept = _keep([name for name in runs if name not in failed], out)
    return Result(steps, kept, failed, time.monotonic() - began)


def _keep(names: Sequence[str], out: Path) -> tuple[int, dict[str, Path]]:
    """The last step that all of these runs have weights of, and these weights; runs without any do not count."""
    reached = {name: snapshots for name in names if (snapshots := _snapshots(out / "runs" / name))}
    common = set.intersection(*(set(snapshots) for snapshots in reached.values())) if reached else set()
    for name in names:
        for old in out.glob(f"{name}-step*.safetensors"):
            old.unlink()
    if not common:
        return 0, {}
    steps = max(common)
    kept = {name: out / f"{name}-step{steps}.safetensors" for name in reached}
    for name, path in kept.items():
        shutil.copyfile(reached[name][steps], path)
    return steps, kept


def _snapshots(folder: Path) -> dict[int, Path]:
    """Step -> weights."""
    if not folder.is_dir():
        return {}
    return {int(match[1]): path for path in folder.iterdir() if (match := SNAPSHOT.fullmatch(path.name))}


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + GRACE_S
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
