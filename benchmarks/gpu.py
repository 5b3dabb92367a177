"""All tests and benchmarks that need a GPU, in one command: python -m benchmarks.gpu --out proof [--minutes 9].

Each step is a separate command with a time limit; a step that fails or hangs does not stop the next. Its output is
written to PROOF/NAME.log as it appears, and summary.md there is updated after every step. The run may be
interrupted at any time: the same command continues with the steps that have not succeeded. Run `make gpu` before. For a
machine without a network, `--pack` collects everything, and `--unpack`, or unpack.py in the pack, installs it there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import unpack
from benchmarks.pack import pack
from engine.tensorrt.flavor import MODULES

ROOT = Path(__file__).resolve().parents[1]
RTX_RUNS = "TensorRT-RTX runs here"  # what benchmarks.rtx prints
LEFT_OUT = "left out"
GOOD = ("ok", LEFT_OUT)
ENGINES = ("tensorrt", "tensorrt-rtx", "torch")
# By name: other tests import packages that the pack has not.
GPU_TESTS = (
    "tests/test_gpu.py",
    "tests/engine/test_device.py",
    "tests/engine/test_gpu.py",
    "tests/engine/test_torch_runner.py",
    "tests/kernels/cuda/test_gpu.py",
    "tests/pipeline/sinks/test_video_encoder.py",
    "tests/pipeline/sources/test_decoding.py",
    "tests/pipeline/test_hardware.py",
)
RANDOM_W32 = "import sys, torch; from safetensors.torch import save_file; from export.model import build_model; \
torch.manual_seed(0); save_file(build_model('w32').state_dict(), sys.argv[1])"


@dataclass(frozen=True)
class Step:
    """name: of its log. command: arguments of `program`, by default this Python. seconds: its time limit.

    needs: an earlier step and the text that its log must contain; otherwise this step is left out, which is not a
    failure.
    """

    name: str
    command: tuple[str, ...]
    seconds: int
    program: str = sys.executable
    needs: tuple[str, str] | None = None

    def is_needless(self, out: Path) -> bool:
        if self.needs is None:
            return False
        log = out / f"{self.needs[0]}.log"
        return log.is_file() and self.needs[1] not in log.read_text(errors="replace")


def steps(out: Path) -> Iterator[Step]:
    """The most informative steps first: those whose failure makes the others pointless."""
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
    yield Step("gpu", (query, "--format=csv"), 30, program="nvidia-smi")
    yield Step("commit", ("log", "-1", "--format=%H %cs"), 30, program="git")
    yield Step("versions", ("-m", "pip", "freeze"), 60)
    engines = [engine for engine in ENGINES if importlib.util.find_spec(MODULES.get(engine, engine)) is not None]  # type: ignore[call-overload]  # torch is no flavour
    if "tensorrt-rtx" in engines:
        yield Step("rtx", ("-m", "benchmarks.rtx"), 180)
    yield Step("selfcheck", ("-m", "commands.selfcheck"), 300)
    yield Step("tests", ("-m", "pytest", "-m", "gpu", "--require-gpu", "--timeout", "500", "-v", *GPU_TESTS), 1500)
    yield Step("kernels", ("-m", "benchmarks.kernels"), 300)
    w32 = out / "w32-random.safetensors"  # no download: the time of a network does not depend on its weights
    if "torch" in engines:
        yield Step("w32", ("-c", RANDOM_W32, str(w32)), 120)
    needs = {"tensorrt-rtx": ("rtx", RTX_RUNS)}
    for engine in engines:
        frame = ("-m", "benchmarks.frame_step", "--engine", engine)
        yield Step(f"frame-tiny-{engine}", frame, 240, needs=needs.get(engine))
        model = ("--model", str(w32), "--frames", "400", "--people", "10")
        yield Step(f"frame-w32-{engine}", (*frame, *model), 420, needs=needs.get(engine))
        yield Step(f"flip-w32-{engine}", (*frame, *model, "--flip", "--brief"), 240, needs=needs.get(engine))
    for engine in engines:
        video = ("run_video.py", "samples/crowd.mp4", "--engine", engine, "--benchmark", "--stats", "json")
        yield Step(f"video-tiny-{engine}", video, 120, needs=needs.get(engine))
        yield Step(f"video-w32-{engine}", (*video, "--model", str(w32)), 240, needs=needs.get(engine))
    large = out / "large.mp4"
    yield Step("large", ("-m", "benchmarks.large_clip", str(large)), 120)
    for engine in engines:
        video = ("run_video.py", str(large), "--engine", engine, "--benchmark", "--stats", "json")
        for unit in ("gpu", "cpu"):
            yield Step(f"large-{engine}-decoder-{unit}", (*video, "--decoder", unit), 120, needs=needs.get(engine))
        sweep = ("--batches", "1", "2", "4", "8", "--frames", "600", "--out", str(out / f"fps-{engine}"))
        batches = ("-m", "benchmarks.fps", "--engines", engine, "--source", str(large), *sweep)
        yield Step(f"batches-{engine}", batches, 240, needs=needs.get(engine))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if every step succeeded, 1 if one did not, 3 if the minutes ran out before, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="DIR", help="run the proof: for the logs and summary.md")
    what.add_argument(
        "--pack", type=Path, metavar="DIR", help="for a machine without a network: all it needs, in pieces"
    )
    what.add_argument("--unpack", type=Path, nargs=2, metavar=("DIR", "PLACE"), help="set a pack up in a new folder")
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    parser.add_argument("--python", default=here, metavar="3.N", help=f"of --pack: the machine's ({here})")
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="PACKAGE", help="of --pack: what is there already, such as torch"
    )
    parser.add_argument("--system-packages", action="store_true", help="of --unpack: use what is there already")
    parser.add_argument("--minutes", type=float, default=1e9, metavar="M", help="stop after this long")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these steps, whatever came of them before")
    options = parser.parse_args(argv)
    if options.pack is not None:
        return make_pack(options.pack, options.python, options.without)
    if options.unpack is not None:
        return unpack.main([*map(str, options.unpack), *(["--system-packages"] if options.system_packages else [])])
    options.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * options.minutes
    planned = list(steps(options.out.resolve()))
    known = {step.name for step in planned}
    if options.only and not known.issuperset(options.only):
        parser.error(f"--only knows {', '.join(sorted(known))}")
    notes = options.out / "steps.json"
    done = json.loads(notes.read_text()) if notes.is_file() else {}
    for step in planned:
        wanted = step.name in options.only if options.only else done.get(step.name, {}).get("verdict") not in GOOD
        left = ends - time.monotonic()
        if not wanted:
            continue
        if left < 1:
            break
        print(f"{step.name} …", end=" ", flush=True)
        try:
            if step.is_needless(options.out):
                verdict, seconds = LEFT_OUT, 0.0
            else:
                verdict, seconds = run(step, options.out / f"{step.name}.log", min(step.seconds, left))
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            return 130
        print(f"{verdict}, {seconds:.0f} s", flush=True)
        done[step.name] = {"verdict": verdict, "seconds": round(seconds, 1)}
        notes.write_text(json.dumps(done, indent=1))
        (options.out / "summary.md").write_text(summary(planned, done, options.out))
    verdicts = [
        done.get(step.name, {}).get("verdict") for step in planned if not options.only or step.name in options.only
    ]
    return 3 if None in verdicts else int(any(verdict not in GOOD for verdict in verdicts))


def make_pack(out: Path, python: str, without: Sequence[str]) -> int:
    try:
        pack(out, python=python, without=without)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"gpu: the pack failed: {error}; see the lines above", file=sys.stderr)
        return 2 if isinstance(error, FileExistsError) else 1
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {size / 1e6:.0f} MB. Carry it over, then: python{python} {out.name}/unpack.py {out.name} PLACE")
    return 0


def run(step: Step, log: Path, seconds: float) -> tuple[str, float]:
    """The verdict ("ok", "status N", "over its N s" or why it could not start) and the seconds it took."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(
        filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}  # fmt: skip
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(
                [step.program, *step.command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            file.write(f"{error}\n".encode())
            return f"{step.program} cannot be run", 0.0
        try:
            status = process.wait(seconds)
            verdict = "ok" if status == 0 else f"status {status}"
        except subprocess.TimeoutExpired:
            verdict = f"over its {seconds:.0f} s"
        finally:  # also on Ctrl-C; also ends processes that the step left running
            end(process)
    return verdict, time.monotonic() - started


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def summary(planned: Sequence[Step], done: dict[str, dict[str, object]], out: Path) -> str:
    """The verdicts as a table, then the end of each log; for failures a longer part."""
    lines = ["| step | verdict | s |", "| --- | --- | ---: |"]
    finished = [step for step in planned if step.name in done]
    lines += [f"| {step.name} | {done[step.name]['verdict']} | {done[step.name]['seconds']} |" for step in finished]
    for step in finished:
        log = out / f"{step.name}.log"
        text = log.read_text(errors="replace").splitlines() if log.is_file() else []
        shown = text[-25:] if done[step.name]["verdict"] in GOOD else text[-60:]
        words = " ".join(word if len(word) < 60 else "…" for word in step.command)
        lines += ["", f"## {step.name}", "", f"`{Path(step.program).name} {words}`", "", "```", *shown, "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
