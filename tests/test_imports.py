"""Imports go one way, public lists are sorted, and nothing needs a GPU, TensorRT or torch to be imported."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "benchmarks",
    "cluster",
    "commands",
    "core",
    "engine",
    "evaluation",
    "export",
    "kernels",
    "pipeline",
    "samples",
    "train",
)
# What each may import of the others; "name.part" allows that part alone. Imports inside functions count too.
ALLOWED: dict[str, tuple[str, ...]] = {
    "core": (),
    "kernels": ("core.joints", "core.files"),  # the one table of joint sets; the cache folder
    "samples": ("core",),
    "export": ("core",),
    "engine": ("core",),
    "train": ("core", "evaluation", "export", "kernels", "samples", "pipeline.letterbox"),
    "pipeline": ("core", "engine", "kernels", "export"),
    "evaluation": ("core", "engine", "export.zoo", "kernels", "pipeline"),
    "commands": ("core", "engine", "evaluation", "export.zoo", "kernels", "pipeline"),
    "cluster": ("core", "commands", "engine", "export.zoo", "pipeline"),
    "benchmarks": (
        "core",
        "cluster",
        "commands",
        "engine",
        "evaluation",
        "export",
        "kernels",
        "pipeline",
        "samples",
        "tests",
        "train",
    ),
    "run_video": ("core", "commands", "export.zoo", "kernels", "pipeline"),
    "evaluate": ("core", "commands", "evaluation", "export.zoo", "kernels", "pipeline"),
}
BLOCKED = (
    "torch",
    "pycuda",
    "tensorrt",
    "tensorrt_rtx",
    "cuda",
    "onnx",
    "matplotlib",
    "pycocotools",
    "scipy",
    "safetensors",
    "pyarrow",
    "ray",
    "fsspec",
    "s3fs",
    "websockets",
    "playwright",
    "openvino",
)
# What may stand at the top of a module all the same: these folders are about it.
NEED_AT_IMPORT = {
    "export": ("torch", "onnx"),
    "train": ("torch", "onnx", "matplotlib", "pycocotools", "scipy", "safetensors"),
    "evaluation": ("pycocotools",),
    "benchmarks": ("torch", "cuda", "pycocotools", "scipy"),
}


def modules(package: str) -> Iterator[Path]:
    single = ROOT / f"{package}.py"
    yield from [single] if single.exists() else sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package):
    ours = (*PACKAGES, "run_video", "evaluate", "tests")
    allowed = (package, *ALLOWED[package])
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] in ours
        # a parent is named where a part is taken from it: `from engine import spec`
        and not any(name == one or name.startswith(f"{one}.") or one.startswith(f"{name}.") for one in allowed)
    }
    assert wrong == set()


def test_no_two_files_import_each_other():
    """No circle of any length, imports inside functions included."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in (*PACKAGES, "run_video", "evaluate")
        for path in modules(package)
    }
    # a package's __init__ gathers its files: naming it beside one of them is no circle
    graph = {
        name: {other for other in imported(path) if other in files and not f"{name}.".startswith(f"{other}.")}
        for name, path in files.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_kernels_know_no_framework():
    names = {name.split(".")[0] for path in modules("kernels") for name in imported(path)}
    assert names & {"torch", "tensorrt", "tensorrt_rtx", "cv2", "av", "onnxruntime", "pycuda"} == set()


def test_one_file_each_imports_pycuda_and_numba_cuda():
    where: dict[str, set[str]] = {"pycuda": set(), "numba.cuda": set()}
    for package in PACKAGES:
        for path in modules(package):
            if path.name == "selfcheck.py":  # it looks whether they are there
                continue
            for name in imported(path):
                for watched, files in where.items():
                    if name == watched or name.startswith(f"{watched}."):
                        files.add(path.relative_to(ROOT).as_posix())
    assert where["pycuda"] <= {"engine/device.py"}
    assert where["numba.cuda"] <= {"kernels/cuda/_cuda.py"}


@pytest.mark.parametrize(
    "package",
    ["core", "engine", "export", "kernels", "kernels.cpu", "pipeline", "pipeline.sinks", "pipeline.sources", "train"],
)
def test_public_names_are_listed_sorted_and_exist(package):
    path = ROOT / Path(*package.split(".")) / "__init__.py"
    listed = [
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    if not listed:
        assert not any(isinstance(node, ast.ImportFrom) for node in ast.parse(path.read_text(encoding="utf-8")).body)
        return
    (names,) = listed
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in names)


def test_every_package_imports_without_gpu_tensorrt_or_torch():
    """In a process where none of them can be imported, every module of the default path can."""
    names = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in (*PACKAGES, "run_video", "evaluate")
        for path in modules(package)
        if path.name not in ("__main__.py", "_cuda.py") and "cuda" not in path.relative_to(ROOT).parts
    )
    program = f"""
        import importlib, sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {BLOCKED!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)

        sys.meta_path.insert(0, Blocked())
        needed = {NEED_AT_IMPORT!r}
        for name in {names!r}:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if (error.name or "").split(".")[0] not in needed.get(name.split(".")[0], ()):
                    print(name, "needs", error.name)
        for package in {PACKAGES!r}:
            importlib.import_module(package)
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (finished.stdout, finished.stderr, finished.returncode) == ("", "", 0)
