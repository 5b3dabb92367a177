"""Every TensorRT name that engine/ uses exists on the real module: what runs on a GPU only cannot misspell it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

trt = pytest.importorskip("tensorrt_rtx")

FOLDER = Path(__file__).parents[3] / "engine" / "tensorrt"
FILES = ("compiler.py", "flavor.py", "jit_cache.py", "plan.py", "runner.py")

# What a variable or attribute of this name holds, in those files.
HELD = {
    "builder": "Builder",
    "cache": "IRuntimeCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "fault": "ParserError",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "runtime_config": "IRuntimeConfig",
    "tensor": "ITensor",
    "timings": "ITimingCache",
}
# What calls give whose result is used on the spot.
GIVEN = {"get_timing_cache": "ITimingCache", "get_input": "ITensor", "_open_context": "IExecutionContext"}
OURS = {"Log": "ILogger", "Monitor": "IProgressMonitor"}  # our class: the TensorRT class whose methods it overrides


def owner(node: ast.expr) -> str | None:
    """The TensorRT class whose attribute is taken of `node`; "" for the module itself; None for anything else."""
    match node:
        case ast.Name("trt"):
            return ""
        case ast.Name(name) | ast.Attribute(ast.Name("self"), name):
            return HELD.get(name.lstrip("_"))
        case ast.Call(ast.Attribute(_, name)):
            return GIVEN.get(name)
        case ast.Attribute(value, name) if (outer := owner(value)) is not None:
            return f"{outer}.{name}".lstrip(".")
    return None


def used_names() -> set[str]:
    names = set()
    for file in FILES:
        for node in ast.walk(ast.parse((FOLDER / file).read_text())):
            if isinstance(node, ast.Attribute) and (outer := owner(node.value)) is not None:
                names.add(f"{outer}.{node.attr}".lstrip("."))
    return names


def exists(name: str) -> bool:
    found = trt
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def test_every_name_exists():
    assert not sorted(name for name in used_names() if not exists(name))


def test_the_names_that_matter_are_seen():
    seen = used_names()
    expected = {
        "Builder.build_serialized_network",
        "Builder.create_network",
        "DataType.HALF",
        "IBuilderConfig.progress_monitor",
        "IBuilderConfig.set_timing_cache",
        "ICudaEngine.create_execution_context",
        "ICudaEngine.create_runtime_config",
        "ICudaEngine.get_tensor_dtype",
        "ICudaEngine.num_io_tensors",
        "IExecutionContext.execute_async_v3",
        "IRuntimeCache.deserialize",
        "BuilderFlag.REQUIRE_USER_ALLOCATION",
        "DynamicShapesKernelSpecializationStrategy.EAGER",
        "ExecutionContextAllocationStrategy.USER_MANAGED",
        "IExecutionContext.is_stream_capturable",
        "IExecutionContext.set_device_memory",
        "IRuntimeConfig.set_runtime_cache",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.set_tensor_address",
        "ILogger.Severity.INTERNAL_ERROR",
        "INetworkDefinition.num_outputs",
        "IOptimizationProfile.set_shape",
        "ITensor.dtype",
        "ITimingCache.serialize",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse_from_file",
        "ParserError.node_name",
        "Runtime.deserialize_cuda_engine",
        "TensorIOMode.INPUT",
    }
    assert expected <= seen


def test_what_is_overridden_exists():
    overridden = {}
    for file in FILES:
        for node in ast.walk(ast.parse((FOLDER / file).read_text())):
            if isinstance(node, ast.ClassDef) and node.name in OURS:
                methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                overridden[node.name] = methods
    assert overridden["Log"] == ["__init__", "log", "forget", "last_error"]
    assert overridden["Monitor"][:4] == ["__init__", "phase_start", "step_complete", "phase_finish"]
    assert all(hasattr(trt.IProgressMonitor, name) for name in overridden["Monitor"][:4])
    assert hasattr(trt.ILogger, "log")
