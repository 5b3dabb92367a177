"""What `make gpu` runs: installs what the GPU path needs into this virtual environment. Standard library only.

pycuda is a source package. It is built against the headers of NVIDIA's wheels and the driver's own libcuda: whether,
where and how a CUDA toolkit is installed does not matter. It is built without cuRAND, which nothing here uses: its
library would have to be found again by every process that imports pycuda.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from core.command_line import CommandParser, complain
from core.signals import stop_of, stop_signals
from engine.gpu import Gpu, find_gpu
from engine.tensorrt.flavor import RTX_CAPABILITIES

ROOT = Path(__file__).resolve().parents[1]
MIN_CUDA = (13, 0)  # numba-cuda[cu13], and the wheels below
HEADERS = {"cuda.h": "nvidia-cuda-runtime>=13", "cudaProfiler.h": "nvidia-cuda-profiler-api>=13"}  # all pycuda includes
# Not from pip's cache, where a wheel that was built otherwise may lie.
PYCUDA = ("pycuda", "--no-cache-dir", "--config-settings=--global-option=--conf:CUDA_ENABLE_CURAND=False")


def tensorrt_package(gpu: Gpu) -> str:
    """The TensorRT that fits this GPU: "tensorrt-rtx" on GeForce and workstation cards, else "tensorrt"."""
    return "tensorrt-rtx" if gpu.compute_capability in RTX_CAPABILITIES else "tensorrt"


def build_environment(wheels: Path, links: Path, driver_library: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which pycuda compiles.

    wheels: `site-packages/nvidia/cu13`. links: an empty folder, filled with the unversioned name that the linker looks
    for. Raises FileNotFoundError, naming the file, where a wheel does not hold what it should.
    """
    headers = wheels / "include"
    for name, wheel in HEADERS.items():
        if not (headers / name).exists():
            raise FileNotFoundError(f"{headers / name} is missing; expected it after installing {wheel}")
    (links / "libcuda.so").symlink_to(driver_library)
    changed = {"CPATH": str(headers), "LIBRARY_PATH": str(links)}
    joined = {name: os.pathsep.join(filter(None, (value, environ.get(name)))) for name, value in changed.items()}
    return {**environ, **joined}


def driver_library() -> Path:
    """Where the driver's libcuda.so.1 lies: the loader is asked, since every distribution has its own place."""
    import ctypes

    ctypes.CDLL("libcuda.so.1")
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libcuda.so" in line:
            return Path(line.split(maxsplit=5)[5])
    raise FileNotFoundError(
        "libcuda.so.1 loads, but /proc/self/maps does not say from where; pip install pycuda, then `make gpu` again"
    )


def pip_install(*requirements: str, environment: Mapping[str, str] | None = None) -> None:
    """Install into this interpreter's environment, by the project's constraints. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    command += ["--constraint", str(ROOT / "constraints.txt"), *requirements]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def install_pycuda() -> None:
    if importlib.util.find_spec("pycuda"):
        return
    pip_install(*HEADERS.values())
    wheels = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13"
    with tempfile.TemporaryDirectory() as links:
        environment = build_environment(wheels, Path(links), driver_library(), os.environ)
        pip_install(*PYCUDA, environment=environment)


def main() -> int:
    parser = CommandParser(prog="python -m commands.setup_gpu", description="Install the GPU path (make gpu).")
    parser.add_argument("--tensorrt", choices=("tensorrt", "tensorrt-rtx"), help="instead of what fits the GPU")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be installed")
    options = parser.parse_args()

    gpu, words = find_gpu()
    if gpu is None:
        print(f"make gpu: {words}; expected an NVIDIA GPU and driver; without one use `make demo`", file=sys.stderr)
        return 2
    if gpu.driver < MIN_CUDA:
        wanted = ".".join(map(str, MIN_CUDA))
        print(f"make gpu: {words}; expected a driver for CUDA {wanted} or newer: update the driver", file=sys.stderr)
        return 2
    package = options.tensorrt or tensorrt_package(gpu)
    print(f"{words}\ninstalling pycuda, numba-cuda and {package}", flush=True)
    if options.dry_run:
        return 0
    try:
        with stop_signals():
            install_pycuda()
            pip_install(f"{ROOT}[gpu,export]", package)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain("make gpu", f"{stop}; `make gpu` goes on from here", stop.status)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"make gpu: {error}; see the lines above, then run it again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
