"""Pack everything that a GPU machine without a network needs, in pieces of limited size: `benchmarks.gpu --pack DIR`.

The pack holds the committed checkout with its clip and weights, wheels in the versions of the project's constraints,
and pycuda as source, since it is built on the machine. unpack.py, which is beside the pieces, installs it all.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from benchmarks import unpack
from benchmarks.unpack import CHECKOUT, MANIFEST, WHEELS
from commands.setup_gpu import CUDA_13

ROOT = Path(__file__).resolve().parents[1]
PIECE_BYTES = 40_000_000
EXTRAS = ("export", "rtx", "gpu")
# The GPU tests, their sanitizer, and the build tools of source packages, which pip cannot download there.
ALSO = ("hypothesis", "nvidia-cuda-sanitizer-api>=13.0", "pytest", "pytest-timeout", "scipy", "setuptools", "wheel")
SOURCES = ("pycuda",)
# Published as sources that hold no code, only requirements: their wheels are built here, for any Python.
HOLLOW = ("tensorrt-rtx", "tensorrt-rtx-cu13")
FOR_SOURCES = ("mako", "pytools")  # run-time requirements of pycuda
# Every glibc from that of the oldest wheels up to 2.28: pip compares platforms by name only. If the platform of a wheel
# is not in the list, pip may choose an older version that holds no code.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + ["manylinux2014_x86_64"]


def requirements(without: Sequence[str] = ()) -> list[str]:
    """Requirements installed there from wheels: those of pyproject.toml and the tests, except `without`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    found += [*ALSO, *FOR_SOURCES, *(header.wheel for header in CUDA_13.headers)]
    left_out = {normal(name) for name in (*without, *SOURCES)}
    return sorted({line for line in found if normal(name_of(line)) not in left_out})


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return match.group()


def normal(name: str) -> str:
    """The package name in the form in which pip compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pack(out: Path, *, python: str, without: Sequence[str] = (), wanted: Sequence[str] | None = None) -> Path:
    """Write the pack into `out`, a new folder. python: version of the machine, "3.12". wanted: replaces `requirements`.

    Raises FileExistsError if the folder is not empty, CalledProcessError if git or pip fails.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    wanted = requirements(without) if wanted is None else list(wanted)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        wheels = Path(folder) / WHEELS
        download(wheels, wanted, python)
        archive = Path(folder) / "checkout.tar"
        subprocess.run(
            ["git", "archive", "--format=tar", f"--prefix={CHECKOUT}/", f"--output={archive}", "HEAD"],
            cwd=ROOT, check=True,
        )  # fmt: skip
        pieces = Cutter(out)
        with tarfile.open(fileobj=pieces, mode="w|") as joined:
            with tarfile.open(archive) as checkout:
                for member in checkout:
                    joined.addfile(member, checkout.extractfile(member) if member.isfile() else None)
            for wheel in sorted(wheels.iterdir()):
                joined.add(wheel, f"{WHEELS}/{wheel.name}")
        pieces.close()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    manifest = {"python": python, "commit": commit.strip(), "requirements": wanted, "pieces": pieces.sums}
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.copy(unpack.__file__, out / "unpack.py")
    return out


def download(wheels: Path, wanted: Sequence[str], python: str) -> None:
    """Download wheels for that Python on Linux, and the source packages."""
    pinned = ["--quiet", "--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt")]

    def pip(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "pip", *words], check=True, cwd=ROOT)

    if HOLLOW[0] in map(name_of, wanted):
        pip("wheel", *pinned, "--no-deps", "--wheel-dir", str(wheels), HOLLOW[0])
        version = next(wheels.glob("tensorrt_rtx-*.whl")).name.split("-")[1]
        pip("wheel", *pinned, "--no-deps", "--wheel-dir", str(wheels), f"{HOLLOW[1]}=={version}")
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    into = ["--dest", str(wheels)]
    pip("download", *pinned, *target, *into, "--find-links", str(wheels), *wanted)
    for source in SOURCES:
        pip("download", *pinned, *into, "--no-deps", f"--no-binary={source}", source)


class Cutter(io.RawIOBase):
    """A file that is written as pieces of at most piece_bytes. sums: name -> SHA-256, complete once closed."""

    def __init__(self, folder: Path, piece_bytes: int = PIECE_BYTES) -> None:
        self.sums: dict[str, str] = {}
        self._folder, self._piece_bytes, self._buffer = folder, piece_bytes, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # tarfile writes bytes
        self._buffer += data
        while len(self._buffer) >= self._piece_bytes:
            self._write_piece()
        return len(data)

    def close(self) -> None:
        while self._buffer:
            self._write_piece()
        super().close()

    def _write_piece(self) -> None:
        piece = bytes(self._buffer[: self._piece_bytes])
        del self._buffer[: self._piece_bytes]
        name = f"pack.{len(self.sums):03d}"
        (self._folder / name).write_bytes(piece)
        self.sums[name] = hashlib.sha256(piece).hexdigest()
