"""Install HigherPose from a pack of `python -m benchmarks.gpu --pack`, without a network: python unpack.py PACK INTO.

Standard library only: this file is part of the pack and runs on a machine where nothing else of the project is
installed. Every piece is checked before anything is written. Then INTO holds `higherpose` (the checkout), `wheels`,
and `.venv` with all of them installed. If there is an NVIDIA driver, pycuda is built in the same way as by `make gpu`.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

MANIFEST = "pack.json"
CHECKOUT, WHEELS, VENV = "higherpose", "wheels", ".venv"


class PackError(Exception):
    """Its message is one line: what is wrong with the pack or the destination, and what to do."""


class Pieces(io.RawIOBase):
    """The pieces, read as the one file that they were cut from. Use it in a `with` block."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._left = list(paths)
        self._file: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any writable buffer
        while True:
            if self._file is None:
                if not self._left:
                    return 0
                self._file = self._left.pop(0).open("rb")
            if count := self._file.readinto(buffer):  # type: ignore[attr-defined]  # of a BufferedReader
                return int(count)
            self._file.close()
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def read_manifest(pack: Path) -> dict[str, object]:
    try:
        manifest = json.loads((pack / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not {"pieces", "requirements", "python"} <= manifest.keys():
            raise ValueError("it lacks what a pack says of itself")
    except (OSError, ValueError) as error:
        raise PackError(f"{pack / MANIFEST} cannot be read: {error}; copy the whole pack again") from error
    return manifest


def check_pieces(pack: Path, pieces: Mapping[str, str]) -> list[Path]:
    """The paths of the pieces in order, after checking each. pieces: name -> SHA-256. Raises PackError."""
    for name, expected in pieces.items():
        try:
            with (pack / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise PackError(f"{pack / name} cannot be read: {error.strerror}; copy it again") from error
        if found != expected:
            raise PackError(f"{pack / name} is damaged: SHA-256 {found[:9]}…, expected {expected[:9]}…; copy it again")
    return [pack / name for name in pieces]


def unpack(pack: Path, into: Path, *, system_packages: bool = False) -> None:
    """system_packages: the environment also sees this Python's packages, for those that were excluded by `--without`.

    Raises PackError, and CalledProcessError if pip fails.
    """
    manifest = read_manifest(pack)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if manifest["python"] != here:
        raise PackError(f"the pack is for Python {manifest['python']}, this is {here}; run python{manifest['python']}")
    if into.exists() and any(into.iterdir()):
        raise PackError(f"{into} is not empty; choose another place")
    pieces, requirements = manifest["pieces"], manifest["requirements"]
    assert isinstance(pieces, dict)
    assert isinstance(requirements, list)
    paths = check_pieces(pack, pieces)
    say(f"{len(paths)} pieces are whole")
    into.mkdir(parents=True, exist_ok=True)
    try:
        with Pieces(paths) as joined, tarfile.open(fileobj=io.BufferedReader(joined), mode="r|") as archive:
            archive.extractall(into, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise PackError(f"the pack cannot be unpacked into {into}: {error}; is there room?") from error
    python = make_environment(into, system_packages)
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str((into / WHEELS).resolve())}
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    subprocess.run(install, check=True, env=offline)
    say(f"{len(requirements)} packages and what they need are installed in {into / VENV}")
    if has_driver():
        # TensorRT-RTX for every GPU: the pack holds it, whereas TensorRT itself is several GB.
        setup = [str(python), "-m", "commands.setup_gpu", "--tensorrt", "tensorrt-rtx"]
        subprocess.run(setup, check=True, env=offline, cwd=into / CHECKOUT)
    else:
        say("no NVIDIA driver here: pycuda is not built; on a machine that has one, unpack into a new folder")


def say(line: str) -> None:
    print(line, flush=True)


def make_environment(into: Path, system_packages: bool) -> Path:
    """Create the virtual environment and return its interpreter."""
    options = ["--system-site-packages"] if system_packages else []
    subprocess.run([sys.executable, "-m", "venv", *options, str(into / VENV)], check=True)
    return (into / VENV / "bin" / "python").absolute()


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0; 2 if the pack or the destination cannot be used; 1 if pip or the build of pycuda fails."""
    parser = argparse.ArgumentParser(prog="unpack.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("pack", type=Path, metavar="PACK", help="the folder with the pieces")
    parser.add_argument("into", type=Path, metavar="INTO", help="a new folder")
    parser.add_argument("--system-packages", action="store_true", help="use what this Python has, such as its torch")
    options = parser.parse_args(argv)
    try:
        unpack(options.pack, options.into, system_packages=options.system_packages)
    except PackError as error:
        print(f"unpack.py: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"unpack.py: {error.cmd[1:4]} ended with status {error.returncode}; see the lines above", file=sys.stderr)
        return 1
    print(f"next: cd {options.into / CHECKOUT} && ../{VENV}/bin/python -m benchmarks.gpu --out ../proof")
    return 0


if __name__ == "__main__":
    sys.exit(main())
