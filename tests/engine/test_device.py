"""engine/device.py without a GPU: order of release, contexts per thread, errors; and that the names it uses exist."""

from __future__ import annotations

import ast
import logging
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from core.errors import EngineError
from engine import device as device_module
from engine.device import Device, Rows
from tests.engine.fake_pycuda import Error, FakeDriver


@pytest.fixture
def driver(monkeypatch):
    fake = FakeDriver()
    fake.install(monkeypatch)
    return fake


def test_what_a_device_makes_it_releases_newest_first(driver):
    with Device() as device, device.current():
        device.stream()
        first = device.empty((2, 3), np.float32)
        device.pinned((4,), np.uint8)
        device.event()
        driver.log.clear()
    assert driver.log == ["synchronize", "free event", "free pinned", f"free {first.pointer}", "free stream"]
    assert not driver.live
    assert driver.retained == 0


def test_closing_twice_is_fine_and_using_it_afterwards_is_an_error(driver):
    device = Device()
    device.close()
    device.close()
    assert driver.retained == 0
    with pytest.raises(EngineError, match="closed"), device.current():
        pass


def test_a_second_device_in_the_same_process_works(driver):
    for _ in range(2):
        with Device() as device, device.current():
            device.empty((8,), np.float16)
    assert driver.retained == 0
    assert not driver.live


def test_after_closing_no_context_is_current(driver):
    device = Device()
    with device.current(), device.current():
        device.empty((8,), np.float16)
        assert len(driver.current()) == 1
    device.close()
    assert driver.current() == []


def test_closing_without_cuda_bindings_still_gives_the_context_back(driver, monkeypatch, caplog):
    device = Device()

    def missing():
        raise EngineError("cuda.bindings cannot be loaded")

    monkeypatch.setattr(device_module, "_bindings", missing)
    with caplog.at_level(logging.WARNING):
        device.close()
    assert driver.retained == 0
    assert "cuda.bindings cannot be loaded" in caplog.text


class Stubborn:
    def free(self):
        raise Error("launch failure")


def test_what_is_freed_early_is_not_freed_again(driver):
    with Device() as device, device.current():
        array, pinned = device.empty((2,), np.float32), device.pinned((4,), np.uint8)
        device.free(array, pinned)
        array.free()
        pinned.free()
        assert not driver.live
    assert driver.log.count(f"free {array.pointer}") == 1
    assert driver.log.count("free pinned") == 1


def test_a_release_that_fails_is_logged_and_the_others_still_run(driver, caplog):
    device = Device()
    with device.current():
        array = device.empty((2,), np.float32)
    device.own(Stubborn())
    with caplog.at_level(logging.WARNING):
        device.close()
    assert "a Stubborn could not be freed: launch failure" in caplog.text
    assert f"memory {array.pointer}" not in driver.live
    assert driver.retained == 0


def test_the_context_is_per_thread_and_nests(driver):
    depths = []

    def work(device):
        with device.current():
            with device.current():
                depths.append(len(driver.contexts()))
            device.empty((1,), np.uint8)
        depths.append(len(driver.contexts()))

    with Device() as device:
        thread = threading.Thread(target=work, args=(device,))
        thread.start()
        thread.join()
        assert driver.contexts() == []
    assert depths == [2, 0]


def test_the_context_is_left_when_the_block_raises(driver):
    with Device() as device:
        with pytest.raises(ZeroDivisionError), device.current():
            1 / 0  # noqa: B018
        assert driver.contexts() == []


def test_upload_and_download_carry_the_bytes(driver):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    with Device() as device, device.current():
        stream = device.stream()
        array, back = device.empty((2, 3), np.float32), device.pinned((2, 3), np.float32)
        stream.upload(array, values)
        stream.download(back.array, array)
        np.testing.assert_array_equal(back.array, values)


def test_a_failure_of_the_device_is_an_engine_error(driver):
    def fails():
        raise Error("an illegal memory access was encountered")

    with Device() as device, device.current():
        stream, event = device.stream(), device.event()
        stream.raw.synchronize = event.raw.synchronize = fails
        for wait in (stream.synchronize, event.wait):
            with pytest.raises(EngineError, match="the GPU failed: an illegal memory access"):
                wait()


def test_a_copy_of_the_wrong_size_is_refused_before_it_overruns(driver):
    with Device() as device, device.current():
        stream, array = device.stream(), device.empty((2, 3), np.float32)
        for wrong in (np.zeros((2, 2), np.float32), np.zeros((2, 3), np.float64), np.zeros((3, 2), np.float32).T):
            with pytest.raises(ValueError, match="same number of bytes, C-contiguous"):
                stream.upload(array, wrong)


def test_rows_of_another_library_are_copied_without_their_padding(driver):
    with Device() as device, device.current():
        stream, event = device.stream(), device.event()
        theirs, ours, back = (
            device.empty((3, 8), np.uint8),
            device.empty((2, 4, 6), np.uint8),
            np.zeros((8, 6), np.uint8),
        )
        stream.upload(theirs, np.arange(24, dtype=np.uint8).reshape(3, 8))
        stream.upload(ours, np.full((2, 4, 6), 99, np.uint8))
        event.record(None)
        stream.wait_for(event)
        stream.copy_rows(ours, 5, Rows(theirs.pointer, 8, 5, 3))  # the last three rows of the second image
        stream.download(back.reshape(2, 4, 6), ours)
        assert (back[:5] == 99).all()
        assert back[5:, :5].tolist() == [[0, 1, 2, 3, 4], [8, 9, 10, 11, 12], [16, 17, 18, 19, 20]]
        assert (back[5:, 5] == 99).all()
        assert "record default stream" in driver.log
        for first, rows in (
            (6, Rows(theirs.pointer, 8, 5, 3)),
            (-1, Rows(theirs.pointer, 8, 5, 3)),
            (0, Rows(0, 8, 7, 3)),
        ):
            with pytest.raises(ValueError, match=r"do not fit into uint8 \(2, 4, 6\) from row"):
                stream.copy_rows(ours, first, rows)


def test_the_array_interface_names_the_memory(driver):
    with Device() as device, device.current():
        interface = device.empty((2, 3), np.float16).__cuda_array_interface__
    assert interface["shape"] == (2, 3)
    assert interface["typestr"] == "<f2"
    assert interface["data"][1] is False


def test_a_full_gpu_says_how_much_is_missing(driver):
    driver.free_bytes = 5 << 20
    with Device() as device, device.current(), pytest.raises(EngineError, match="5 of 1024 MiB free; 64 MiB more"):
        device.empty((64, 1 << 20), np.uint8)


def test_the_free_share_of_the_memory(driver):
    driver.free_bytes = 256 << 20
    with Device() as device, device.current():
        assert device.free_share() == 0.25


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("mem_alloc", lambda device: device.empty((8,), np.uint8)),
        ("pagelocked_empty", lambda device: device.pinned((8,), np.uint8)),
        ("Stream", lambda device: device.stream()),
        ("Event", lambda device: device.event()),
    ],
)
def test_what_the_driver_refuses_to_make_is_an_engine_error(driver, monkeypatch, name, make):
    def refuses(*_):
        raise Error("an illegal memory access was encountered")

    with Device() as device, device.current():
        monkeypatch.setattr(driver, name, refuses)
        with pytest.raises(EngineError, match=r"an illegal memory access was encountered; \w+"):
            make(device)


def test_a_gpu_that_another_process_holds_is_an_engine_error(driver, monkeypatch):
    def busy(device):
        raise Error("cuDevicePrimaryCtxRetain failed: all CUDA-capable devices are busy or unavailable")

    monkeypatch.setattr(driver.Device, "retain_primary_context", busy)
    with pytest.raises(EngineError, match=r"GPU 0 cannot be opened: .* are busy or unavailable; close what else"):
        Device()


@pytest.mark.parametrize("index", [-1, 1])
def test_a_gpu_that_is_not_there_is_named(driver, index):
    with pytest.raises(EngineError, match=f"GPU {index} was asked for, 1 found"):
        Device(index)


def test_without_pycuda_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match=r"pycuda cannot be loaded.*make gpu"):
        Device()


def attributes_of(name: str) -> set[str]:
    """X of every `name.X` and `_name().X` in engine/device.py."""
    tree = ast.parse(Path(device_module.__file__).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            value = node.value
            called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == f"_{name}"
            if called or (isinstance(value, ast.Name) and value.id == {"pycuda": "cuda", "bindings": "driver"}[name]):
                found.add(node.attr)
    return found


def copies_of(device, stream):
    """A copy there and back as `capture` takes it, its pinned ends, and the memory between."""
    array, there, back = device.empty((3,), np.float32), *(device.pinned((3,), np.float32) for _ in range(2))
    back.array[:] = 0

    def enqueue():
        stream.upload(array, there.array)
        stream.download(back.array, array)

    return enqueue, there.array, back.array


def test_a_captured_sequence_runs_when_it_is_launched_and_not_before(driver):
    with Device() as device, device.current():
        stream = device.stream()
        enqueue, there, back = copies_of(device, stream)
        there[:] = 1
        graph = device.own(stream.capture(enqueue))
        assert back.tolist() == [0, 0, 0]
        for value in (2, 3):  # the memory's content at the launch counts, not that at the capture
            there[:] = value
            graph.launch(stream)
            assert back.tolist() == [value] * 3
        assert list(driver.bindings.executables.values()) == [2]
        del there, back
    assert not driver.bindings.graphs
    assert not driver.bindings.executables


def test_a_graph_is_freed_once(driver):
    with Device() as device, device.current():
        stream = device.stream()
        graph = device.own(stream.capture(lambda: None))
        device.free(graph)
        graph.free()
        assert not driver.bindings.graphs
        assert not driver.bindings.executables


@pytest.mark.parametrize("error", [RuntimeError("CUDA error 900"), Error("Call to cuLaunchKernel"), EngineError("no")])
def test_whatever_a_library_raises_under_capture_is_an_engine_error_and_the_stream_goes_on(driver, error):
    def fails():
        raise error

    with Device() as device, device.current():
        stream = device.stream()
        with pytest.raises(EngineError, match=str(error)) as caught:
            stream.capture(fails)
        assert caught.value.__cause__ is error
        enqueue, there, back = copies_of(device, stream)
        there[:] = 7
        enqueue()
        assert back.tolist() == [7, 7, 7]
        stream.capture(enqueue).free()
        del there, back
    assert not driver.bindings.graphs


def test_an_interrupt_under_capture_stays_what_it_is(driver):
    def interrupted():
        raise KeyboardInterrupt

    with Device() as device, device.current():
        stream = device.stream()
        with pytest.raises(KeyboardInterrupt):
            stream.capture(interrupted)
        assert not driver.captures


FORBIDDEN = {
    "waiting for the stream": lambda device, stream: stream.synchronize(),
    "waiting for the device": lambda device, stream: sys.modules["pycuda.driver"].Context.synchronize(),
    "allocating": lambda device, stream: device.empty((1,), np.uint8),
    "pinning": lambda device, stream: device.pinned((1,), np.uint8),
    "waiting for an event from outside": lambda device, stream: stream.wait_for(device.event()),
}


@pytest.mark.parametrize("call", FORBIDDEN)
def test_what_cuda_forbids_under_capture_is_an_engine_error(driver, call):
    with Device() as device, device.current():
        stream = device.stream()
        with pytest.raises(EngineError, match=r"cannot be captured as a CUDA graph: .*"):
            stream.capture(lambda: FORBIDDEN[call](device, stream))
        assert not driver.captures
        assert not driver.bindings.graphs


def test_a_capture_that_breaks_in_silence_is_an_engine_error(driver):
    def breaks():
        driver.captures[stream.handle].broken = True

    with Device() as device, device.current():
        stream = device.stream()
        with pytest.raises(EngineError, match=r"capture this frame's work .*: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
            stream.capture(breaks)


def test_a_graph_that_cannot_be_instantiated_leaves_nothing(driver):
    driver.bindings.refuses = "cuGraphInstantiate"
    with Device() as device, device.current():
        stream = device.stream()
        with pytest.raises(EngineError, match="instantiate a CUDA graph: CUDA_ERROR_INVALID_VALUE"):
            stream.capture(lambda: None)
    assert not driver.bindings.graphs


@pytest.mark.parametrize("call", ["empty", "pinned", "free", "close", "open"])
def test_another_thread_neither_allocates_nor_frees_while_one_captures(driver, call):
    """CUDA would break the capture; the stand-in does, too, if it sees such a call."""
    capturing, done = threading.Event(), threading.Event()

    def slow():
        capturing.set()
        done.wait(0.3)  # the other thread has this long to break the capture

    with Device() as device, Device() as other, device.current():
        array = device.empty((8,), np.uint8)
        calls = {
            "empty": lambda: device.empty((1,), np.uint8),
            "pinned": lambda: device.pinned((1,), np.uint8),
            "free": lambda: device.free(array),
            "close": other.close,
            "open": lambda: Device().close(),
        }

        def work():
            capturing.wait()
            with device.current() if call in ("empty", "pinned", "free") else nullcontext():
                calls[call]()
            done.set()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            device.own(device.stream().capture(slow))
        finally:
            thread.join()
        assert done.is_set()


@pytest.mark.gpu
def test_every_pycuda_name_exists_in_the_installed_package():
    import pycuda.driver as real

    used = attributes_of("pycuda")
    assert {"Context", "Device", "mem_alloc"} <= used
    assert [name for name in sorted(used) if not hasattr(real, name)] == []


def test_every_cuda_bindings_name_exists_in_the_installed_package():
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda.bindings comes with the test extra on Linux")
    used = attributes_of("bindings")
    assert {"cuGraphLaunch", "cuStreamBeginCapture"} <= used
    assert [name for name in sorted(used) if not hasattr(real, name)] == []
    assert hasattr(real.CUstreamCaptureMode, "CU_STREAM_CAPTURE_MODE_RELAXED")


def test_the_description_of_a_copy_takes_what_it_is_given():
    driver = pytest.importorskip("cuda.bindings.driver")
    copy = driver.CUDA_MEMCPY2D()
    copy.srcMemoryType = copy.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
    copy.srcDevice, copy.srcPitch, copy.dstDevice, copy.dstPitch = 2**40, 512, 2**41, 256
    copy.WidthInBytes, copy.Height = 200, 10
    assert (int(copy.srcDevice), int(copy.dstDevice), copy.WidthInBytes, copy.Height) == (2**40, 2**41, 200, 10)
