"""The pack for a machine without a network: what is in it, what a damaged one says, and a whole one set up offline."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks import gpu, unpack
from benchmarks.pack import PLATFORMS, ROOT, Cutter, name_of, normal, pack, requirements
from benchmarks.unpack import PackError, Pieces, check_pieces

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_the_requirements_are_the_projects_own():
    names = {normal(name_of(line)) for line in requirements()}
    assert {"av", "numba-cuda", "onnxruntime", "tensorrt-rtx", "torch", "pytest", "nvidia-cuda-runtime"} <= names
    assert "pycuda" not in names  # it goes as source
    assert {normal(name_of(line)) for line in requirements(["torch", "Numba_CUDA"])} == names - {"torch", "numba-cuda"}


def test_wheels_of_every_glibc_up_to_that_of_the_machines_are_taken():
    """compute-sanitizer's are for 2.25, and what else is published of it is a placeholder."""
    assert {"manylinux_2_28_x86_64", "manylinux_2_25_x86_64", "manylinux_2_17_x86_64"} <= set(PLATFORMS)
    assert any(line.startswith("nvidia-cuda-sanitizer-api>=") for line in requirements())


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 1000])
def test_pieces_are_small_and_join_to_what_was_cut(tmp_path, length):
    content = bytes(index % 251 for index in range(length))
    with Cutter(tmp_path, piece_bytes=100) as cutter:
        for start in range(0, length, 33):
            cutter.write(content[start : start + 33])
    paths = check_pieces(tmp_path, cutter.sums)
    assert all(path.stat().st_size <= 100 for path in paths)
    assert len(paths) == -(-length // 100)
    with Pieces(paths) as joined:
        assert joined.read() == content


@pytest.fixture
def made(tmp_path):
    """A pack of one file, in pieces of 1000 bytes."""
    folder = tmp_path / "pack"
    folder.mkdir()
    (tmp_path / "a.txt").write_bytes(os.urandom(5000))
    with Cutter(folder, piece_bytes=1000) as cutter, tarfile.open(fileobj=cutter, mode="w|") as archive:
        archive.add(tmp_path / "a.txt", "higherpose/a.txt")
    manifest = {"python": HERE, "commit": "0" * 40, "requirements": [], "pieces": cutter.sums}
    (folder / unpack.MANIFEST).write_text(json.dumps(manifest))
    return folder


DAMAGES = {
    "a piece is changed": (lambda pack: (pack / "pack.001").write_bytes(b"x" * 1000), "pack.001 is damaged"),
    "a piece is cut": (lambda pack: (pack / "pack.000").write_bytes(b""), "pack.000 is damaged"),
    "a piece is missing": (lambda pack: (pack / "pack.002").unlink(), "pack.002 cannot be read: No such file"),
    "no manifest": (lambda pack: (pack / "pack.json").unlink(), "pack.json cannot be read"),
    "a damaged manifest": (lambda pack: (pack / "pack.json").write_text("[]"), "it lacks what a pack says of itself"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_pack_is_one_line_and_nothing_is_written(damage, made, tmp_path, capsys):
    spoil, words = DAMAGES[damage]
    spoil(made)
    assert unpack.main([str(made), str(tmp_path / "into")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "into").exists()


def test_another_python_and_a_place_that_is_not_empty_are_refused(made, tmp_path, capsys):
    assert unpack.main([str(made), str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    manifest = json.loads((made / "pack.json").read_text())
    (made / "pack.json").write_text(json.dumps(manifest | {"python": "3.99"}))
    assert gpu.main(["--unpack", str(made), str(tmp_path / "into")]) == 2
    assert f"the pack is for Python 3.99, this is {HERE}; run python3.99" in capsys.readouterr().err


def test_a_path_that_leads_out_of_the_place_is_not_followed(tmp_path):
    folder = tmp_path / "pack"
    folder.mkdir()
    (tmp_path / "a.txt").write_bytes(b"x")
    with Cutter(folder) as cutter, tarfile.open(fileobj=cutter, mode="w|") as archive:
        archive.add(tmp_path / "a.txt", "../outside.txt")
    manifest = {"python": HERE, "requirements": [], "pieces": cutter.sums}
    (folder / unpack.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(PackError, match="cannot be unpacked"):
        unpack.unpack(folder, tmp_path / "into")
    assert not (tmp_path / "outside.txt").exists()


def test_a_pack_does_not_go_over_what_is_there(tmp_path, capsys):
    (tmp_path / "mine").write_text("x")
    assert gpu.main(["--pack", str(tmp_path)]) == 2
    assert "is not empty; choose another folder" in capsys.readouterr().err


def test_with_a_driver_the_gpu_path_is_set_up_from_the_pack_alone(made, tmp_path, monkeypatch):
    """The pack holds TensorRT-RTX only: on a GPU that would get TensorRT, the set-up must not look for that."""
    ran = []
    monkeypatch.setattr(unpack, "has_driver", lambda: True)
    monkeypatch.setattr("subprocess.run", lambda command, **how: ran.append((command, how)))
    unpack.unpack(made, tmp_path / "into")
    command, how = ran[-1]
    assert command[1:] == ["-m", "commands.setup_gpu", "--tensorrt", "tensorrt-rtx"]
    assert how["env"]["PIP_NO_INDEX"] == "1"
    assert how["env"]["PIP_FIND_LINKS"] == str(tmp_path / "into" / "wheels")
    assert how["cwd"] == tmp_path / "into" / "higherpose"


@pytest.mark.slow
def test_a_pack_sets_itself_up_without_a_network(tmp_path, monkeypatch):
    """Real wheels of this Python; pip without an index, and the checkout runs from its new environment."""
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("not a git checkout")
    wheels = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path / "x"), "pytools"]
    if subprocess.run(wheels, capture_output=True, check=False).returncode:
        pytest.skip("PyPI cannot be reached")
    monkeypatch.setattr("benchmarks.pack.SOURCES", ())  # pycuda's build is for a machine with a driver
    folder = pack(tmp_path / "pack", python=HERE, wanted=["numpy>=2.0", "rich>=13.9"])
    assert all(file.stat().st_size <= 40_000_000 for file in folder.iterdir())
    manifest = json.loads((folder / "pack.json").read_text())
    first = (folder / "pack.000").read_bytes()
    assert hashlib.sha256(first).hexdigest() == manifest["pieces"]["pack.000"]
    into = tmp_path / "into"
    offline = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:1/"}
    command = [sys.executable, str(folder / "unpack.py"), str(folder), str(into)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=offline, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 packages and what they need are installed" in done.stdout
    assert (into / "higherpose" / "samples" / "crowd.mp4").is_file()
    python = into / ".venv" / "bin" / "python"
    shown = subprocess.run(
        [python, "-c", "import core.spec, numpy, rich; print(numpy.__file__)"],
        cwd=into / "higherpose", capture_output=True, text=True, check=True, env=offline,
    )  # fmt: skip
    assert Path(shown.stdout.strip()).is_relative_to(into)
