"""Runs commands, each in a process of its own: python -m tests.faults.server; requests and answers are JSON lines.

Everything is imported once; a request is a fork. It takes a tenth of a second in place of two, and a crash or a hang
ends nothing but itself.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn


def main() -> None:
    import onnxruntime  # noqa: F401

    import run_video  # noqa: F401
    from kernels.cpu import warm_up
    from pipeline.sources import video  # noqa: F401

    warm_up()
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)  # children inherit neither
    os.dup2(2, 1)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in requests:
        print(json.dumps(attempt(json.loads(line))), file=answers, flush=True)


def attempt(request: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    ready, tell = os.pipe()
    spoken = {name: os.pipe() for name in ("stdout", "stderr")} if request["fsize"] is not None else {}
    child = os.fork()
    if child == 0:
        run(request, tell, {name: writer for name, (_, writer) in spoken.items()})
    os.close(tell)
    os.read(ready, 1)  # a signal before its handlers are there would not be the program's to answer
    os.close(ready)
    signals = [(float(delay), str(name)) for delay, name in request["signals"]]
    after = request["after"]
    next_at = None if after else started + signals[0][0] if signals else None
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        now = time.monotonic()
        if ended:
            for name, (reader, writer) in spoken.items():
                os.close(writer)
                Path(request[name]).write_bytes(os.read(reader, 65536))  # a pipe holds as much, with no reader
                os.close(reader)
            return {
                "status": os.waitstatus_to_exitcode(status),
                "seconds": now - started,
                "peak_mb": usage.ru_maxrss / 1024,
            }
        if now - started > request["limit_s"]:
            os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
            return {"status": None, "seconds": now - started, "peak_mb": 0.0}
        if signals and next_at is None and os.path.exists(after) and os.path.getsize(after):  # noqa: PTH110, PTH202
            next_at = now + signals[0][0]
        if signals and next_at is not None and now >= next_at:
            os.kill(child, getattr(signal, signals.pop(0)[1]))
            next_at = now + signals[0][0] if signals else None
        time.sleep(0.004)


def run(request: dict[str, Any], tell: int, pipes: dict[str, int]) -> NoReturn:
    """In the child: as `python run_video.py …` does it, to the flush at the end."""
    from core.signals import end_at_once

    status = 1
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            # where files may not grow, pipes take what is said
            file = pipes[name] if pipes else os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            if request["closed"] == name:
                reader, writer = os.pipe()
                os.close(reader)
                os.dup2(writer, number)
                os.close(writer)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        os.chdir(request["cwd"])
        if request["fsize"] is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does at its start
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["fsize"], request["fsize"]))
        import run_video
        from pipeline.sources.video import VideoSource

        limits = VideoSource.__init__.__kwdefaults__
        assert limits is not None
        limits.update(request["patch"])
        end_at_once("run_video.py")
        os.close(tell)
        status = run_video.main(request["argv"])
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        status = 120  # what Python gives where it cannot flush
    os._exit(status)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
