"""What `make gpu` runs: installs what the GPU path needs into this virtual environment. Standard library only.

The driver decides between packages for CUDA 13 and for CUDA 12. pycuda is a source package. It is built against the
headers of NVIDIA's wheels and the driver's own libcuda: whether, where and how a CUDA toolkit is installed does not
matter. It is built without cuRAND, which nothing here uses: its library would have to be found again by every process
that imports pycuda.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.command_line import CommandParser, add_gpu_option, complain
from core.signals import stop_of, stop_signals
from engine.gpu import Gpu, find_gpu
from engine.tensorrt.flavor import RTX_CAPABILITIES

ROOT = Path(__file__).resolve().parents[1]
# Not from pip's cache, which may hold a wheel built with other settings.
PYCUDA = ("pycuda", "--no-cache-dir", "--config-settings=--global-option=--conf:CUDA_ENABLE_CURAND=False")
JETSON = Path("/etc/nv_tegra_release")  # this file exists on every Jetson


@dataclass(frozen=True)
class Header:
    """A header that pycuda includes, and the wheel that installs it in `folder` of site-packages."""

    name: str
    wheel: str
    folder: str


@dataclass(frozen=True)
class Cuda:
    """The packages for drivers of one CUDA version. constraints: a file that overrides constraints.txt. suffix: end of
    TensorRT's package names. torch_index: the package index of its torch, if not PyPI.
    """

    oldest: tuple[int, int]
    extra: str
    constraints: str
    headers: tuple[Header, Header]
    suffix: str = ""
    torch_index: str | None = None


CUDA_13 = Cuda(
    (13, 0),
    "gpu",
    "constraints-cu13.txt",
    (
        Header("cuda.h", "nvidia-cuda-runtime>=13", "nvidia/cu13/include"),
        Header("cudaProfiler.h", "nvidia-cuda-profiler-api>=13", "nvidia/cu13/include"),
    ),
)
CUDA_12 = Cuda(
    (12, 0),
    "gpu-cu12",
    "constraints-cu12.txt",
    (
        Header("cuda.h", "nvidia-cuda-runtime-cu12", "nvidia/cuda_runtime/include"),
        Header("cudaProfiler.h", "nvidia-cuda-profiler-api-cu12", "nvidia/cuda_profiler_api/include"),
    ),
    suffix="-cu12",
    torch_index="https://download.pytorch.org/whl/cu126",
)


def cuda_for(driver: tuple[int, int]) -> Cuda | None:
    """The packages for this driver; None if it is too old."""
    return next((cuda for cuda in (CUDA_13, CUDA_12) if driver >= cuda.oldest), None)


def tensorrt_package(gpu: Gpu) -> str:
    """The TensorRT that fits this GPU: "tensorrt-rtx" on GeForce and workstation cards, else "tensorrt"."""
    return "tensorrt-rtx" if gpu.compute_capability in RTX_CAPABILITIES else "tensorrt"


def build_environment(
    cuda: Cuda, packages: Path, links: Path, driver_library: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """The environment in which pycuda compiles.

    packages: site-packages, with the wheels of `cuda.headers`. links: an empty folder, which gets the unversioned
    library name that the linker looks for. Raises FileNotFoundError, which names the file that a wheel lacks.
    """
    for header in cuda.headers:
        path = packages / header.folder / header.name
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; expected it after installing {header.wheel}")
    (links / "libcuda.so").symlink_to(driver_library)
    folders = dict.fromkeys(str(packages / header.folder) for header in cuda.headers)
    changed = {"CPATH": os.pathsep.join(folders), "LIBRARY_PATH": str(links)}
    joined = {name: os.pathsep.join(filter(None, (value, environ.get(name)))) for name, value in changed.items()}
    return {**environ, **joined}


def merged_constraints(cuda: Cuda) -> str:
    """constraints.txt; for a package that the CUDA version's own file also names, that file overrides it."""
    own = (ROOT / cuda.constraints).read_text(encoding="utf-8").splitlines()
    named = {line.partition("==")[0].lower() for line in own}
    every = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return "\n".join([*(line for line in every if line.partition("==")[0].lower() not in named), *own]) + "\n"


def driver_library() -> Path:
    """The path of the driver's libcuda.so.1, from the loader, since each distribution installs it elsewhere."""
    import ctypes

    ctypes.CDLL("libcuda.so.1")
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libcuda.so" in line:
            return Path(line.split(maxsplit=5)[5])
    raise FileNotFoundError(
        "libcuda.so.1 loads, but /proc/self/maps does not say from where; pip install pycuda, then `make gpu` again"
    )


def pip_install(cuda: Cuda, *requirements: str, environment: Mapping[str, str] | None = None) -> None:
    """Install into this interpreter's environment, under the project's constraints. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(merged_constraints(cuda), encoding="utf-8")
        command += ["--constraint", str(constraints), *requirements]
        subprocess.run(command, check=True, cwd=ROOT, env=environment)


def install_pycuda(cuda: Cuda) -> None:
    if importlib.util.find_spec("pycuda"):
        return
    pip_install(cuda, *(header.wheel for header in cuda.headers))
    with tempfile.TemporaryDirectory() as links:
        packages = Path(sysconfig.get_path("purelib"))
        environment = build_environment(cuda, packages, Path(links), driver_library(), os.environ)
        pip_install(cuda, *PYCUDA, environment=environment)


def install_torch(cuda: Cuda) -> None:
    """Install the build for the driver. If its index has none, install PyPI's: it exports but cannot use the GPU."""
    if cuda.torch_index is None or importlib.util.find_spec("torch"):
        return
    try:
        pip_install(cuda, "torch", "--index-url", cuda.torch_index)
    except subprocess.CalledProcessError:
        print(f"make gpu: {cuda.torch_index} has no torch for this; --engine torch will not run here", file=sys.stderr)


def main() -> int:
    parser = CommandParser(prog="python -m commands.setup_gpu", description="Install the GPU path (make gpu).")
    parser.add_argument("--tensorrt", choices=("tensorrt", "tensorrt-rtx"), help="instead of what fits the GPU")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be installed")
    add_gpu_option(parser)
    options = parser.parse_args()

    gpu, words = find_gpu(options.gpu or 0)
    cuda = None if gpu is None else cuda_for(gpu.driver)
    if JETSON.exists():
        words, cuda = "this is a Jetson: TensorRT comes with its JetPack, and pip's does not support it", None
    if gpu is None or cuda is None:
        oldest = ".".join(map(str, CUDA_12.oldest))
        print(
            f"make gpu: {words}; expected an NVIDIA GPU in a PC or server and a driver for CUDA {oldest} or newer; "
            "without one use `make demo`",
            file=sys.stderr,
        )
        return 2
    package = (options.tensorrt or tensorrt_package(gpu)) + cuda.suffix
    print(f"{words}\ninstalling pycuda, numba-cuda for CUDA {cuda.oldest[0]} and {package}", flush=True)
    if options.dry_run:
        return 0
    try:
        with stop_signals():
            install_pycuda(cuda)
            install_torch(cuda)
            pip_install(cuda, f"{ROOT}[{cuda.extra},export]", package)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain("make gpu", f"{stop}; `make gpu` goes on from here", stop.status)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"make gpu: {error}; see the lines above, then run it again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
