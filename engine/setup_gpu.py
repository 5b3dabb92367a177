"""What `make gpu` runs: installs what the GPU path needs into this virtual environment. Standard library only.

pycuda is a source package. Where a CUDA toolkit is installed (nvcc on PATH) it builds against that; elsewhere against
the headers and libraries of NVIDIA's wheels, with the driver's own libcuda to link to.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from engine.command_line import CommandParser
from engine.gpu import Gpu, find_gpu

ROOT = Path(__file__).resolve().parents[1]
MIN_CUDA = (13, 0)  # numba-cuda[cu13], and the wheels below
HEADERS = ("nvidia-cuda-runtime>=13", "nvidia-cuda-nvcc>=13", "nvidia-cuda-crt>=13", "nvidia-curand>=10.4")

# TensorRT-RTX is made for these (its ComputeCapability names); TensorRT, several GB, runs on every recent GPU.
RTX_CAPABILITIES = {(7, 5), (8, 6), (8, 9), (12, 0), (12, 1)}


def tensorrt_package(gpu: Gpu) -> str:
    """The TensorRT that fits this GPU: "tensorrt-rtx" on GeForce and workstation cards, else "tensorrt"."""
    return "tensorrt-rtx" if gpu.compute_capability in RTX_CAPABILITIES else "tensorrt"


def build_environment(wheels: Path, links: Path, driver_library: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which pycuda compiles without a CUDA toolkit.

    wheels: `site-packages/nvidia/cu13`. links: an empty folder, filled with the unversioned names that the linker
    looks for. Raises FileNotFoundError, naming the file, where a wheel does not hold what it should.
    """
    curand = next(iter(sorted((wheels / "lib").glob("libcurand.so*"))), None)
    if curand is None or not (wheels / "include" / "cuda.h").exists():
        missing = wheels / "lib" / "libcurand.so.10" if curand is None else wheels / "include" / "cuda.h"
        raise FileNotFoundError(f"{missing} is missing from NVIDIA's wheels; expected it after installing {HEADERS}")
    (links / "libcuda.so").symlink_to(driver_library)
    (links / "libcurand.so").symlink_to(curand)
    changed = {"CPATH": str(wheels / "include"), "LIBRARY_PATH": str(links), "CUDA_INC_DIR": str(wheels / "include")}
    joined = {name: os.pathsep.join(filter(None, (value, environ.get(name)))) for name, value in changed.items()}
    return {**environ, **joined, "CUDA_INC_DIR": changed["CUDA_INC_DIR"]}


def driver_library() -> Path:
    """Where the driver's libcuda.so.1 lies: the loader is asked, since every distribution has its own place."""
    import ctypes

    ctypes.CDLL("libcuda.so.1")
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libcuda.so" in line:
            return Path(line.split(maxsplit=5)[5])
    raise FileNotFoundError("libcuda.so.1 loads but cannot be located; install a CUDA toolkit and run `make gpu` again")


def pip_install(*requirements: str, environment: Mapping[str, str] | None = None) -> None:
    """Install into this interpreter's environment, by the project's constraints. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    command += ["--constraint", str(ROOT / "constraints.txt"), *requirements]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def install_pycuda() -> None:
    if importlib.util.find_spec("pycuda"):
        return
    if shutil.which("nvcc"):
        pip_install("pycuda")
        return
    pip_install(*HEADERS)
    wheels = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13"
    with tempfile.TemporaryDirectory() as links:
        environment = build_environment(wheels, Path(links), driver_library(), os.environ)
        pip_install("pycuda", environment=environment)


def main() -> int:
    parser = CommandParser(prog="python -m engine.setup_gpu", description="Install the GPU path (make gpu).")
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
        install_pycuda()
        pip_install(f"{ROOT}[gpu,export]", package)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"make gpu: {error}; see the lines above, then run it again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
