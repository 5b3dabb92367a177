"""A simulated device of plain arrays, which runs operations as late, or as early, as streams and events allow.

With `eager`, an operation runs when it is enqueued; otherwise it runs when something waits for it. A step is correct
only if both give the same people: without `eager`, memory that is overwritten too early changes the result.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any

import numpy as np

from core.errors import EngineError
from core.spec import ModelSpec
from kernels.options import DecodeOptions
from pipeline.device_step import DeviceStep
from pipeline.step import PassOptions

OPERATION_MS = 5.0  # of each operation: a kernel, a pass of the network, a copy


class FakeArray:
    def __init__(self, device, shape, dtype):
        self.device, self.shape, self.dtype = device, tuple(shape), np.dtype(dtype)
        self.values: Any = np.zeros(shape, dtype)

    @property
    def pointer(self):
        return id(self)

    def reshaped(self, shape):
        view = FakeArray(self.device, shape, self.dtype)
        view.values = self.values.reshape(shape)  # the same memory
        return view

    def free(self):
        self.values = None  # whoever reads it later fails loudly


class FakePinned:
    def __init__(self, shape, dtype):
        self.array = np.zeros(shape, dtype)

    def free(self):
        self.array = np.zeros(0)


class FakeEvent:
    def __init__(self, device, timing):
        self.device, self.timing = device, timing
        self.stream, self.position = None, 0

    def record(self, stream):
        self.stream, self.position = stream, 0 if stream is None else stream.enqueued

    def wait(self):
        self.device.check()
        if self.stream is not None:
            self.stream.run_to(self.position)

    def ms_since(self, earlier):
        """OPERATION_MS for each operation between the two: what else is put between them shows."""
        assert self.timing
        assert earlier.timing
        assert self.stream is earlier.stream is not None
        assert self.stream.done >= self.position, "an event was read before it had passed"
        return OPERATION_MS * (self.position - earlier.position)

    def free(self):
        self.stream = None


class FakeGraph:
    def __init__(self, device, operations):
        self.device, self.operations, self.freed = device, operations, False

    def launch(self, stream):
        assert not self.freed, "a graph was launched after it was freed"
        self.device.log.append("graph")
        for operation in self.operations:
            stream.enqueue(operation)

    def free(self):
        self.freed = True


class FakeStream:
    def __init__(self, device):
        self.device, self.handle = device, len(device.streams) + 1
        self.operations, self.done, self.recording = [], 0, None
        self.lock = device.lock
        device.streams[self.handle] = self

    @property
    def enqueued(self):
        return len(self.operations)

    def enqueue(self, operation):
        self.device.check()
        if self.recording is not None:
            self.recording.append(operation)
            return
        self.operations.append(operation)
        if self.device.eager:
            self.run_to(self.enqueued)

    def run_to(self, position):
        with self.lock:
            while self.done < position:
                operation = self.operations[self.done]
                self.operations[self.done] = None
                self.done += 1
                operation()

    def upload(self, target, source):
        assert target.shape == source.shape
        self.enqueue(lambda: np.copyto(target.values, source))

    def download(self, target, source):
        assert target.shape == source.shape
        self.enqueue(lambda: np.copyto(target, source.values))

    def copy_rows(self, target, first, source):
        """source.pointer: the array (count, pitch) itself, or what holds it: it is looked up when the copy runs."""
        rows = target.values.reshape(-1, target.shape[-1])
        assert first + source.count <= len(rows)

        def copy():
            there = source.pointer()
            rows[first : first + source.count, : source.width_bytes] = there[: source.count, : source.width_bytes]

        self.enqueue(copy)

    def wait_for(self, event):
        stream, position = event.stream, event.position
        self.enqueue(lambda: None if stream is None else stream.run_to(position))

    def synchronize(self):
        self.device.check()
        self.run_to(self.enqueued)

    def capture(self, enqueue):
        self.recording = []
        try:
            enqueue()
        finally:
            operations, self.recording = self.recording, None
        self.device.log.append("capture")
        self.device.made += 1
        return FakeGraph(self.device, operations)

    def free(self):
        pass


class FakeDevice:
    index = 0

    def __init__(self, *, eager=False):
        self.eager = eager
        self.streams, self.log, self.lock = {}, [], threading.RLock()
        self.owned, self.workspaces, self.closed, self.depth = [], [], 0, threading.local()
        self.share_of_a_shape = 0.0  # of the memory
        self.made = 0  # arrays, pinned memory, streams, events, workspaces and graphs so far

    @contextmanager
    def current(self):
        self.depth.value = getattr(self.depth, "value", 0) + 1
        try:
            yield
        finally:
            self.depth.value -= 1

    def check(self):
        assert getattr(self.depth, "value", 0), "a call without the current context"
        assert not self.closed, "a call after the device was closed"

    def own(self, thing):
        self.made += 1
        self.owned.append(thing)
        return thing

    def free(self, *things):
        for thing in things:
            self.owned.remove(thing)
            thing.free()

    def stream(self):
        return self.own(FakeStream(self))

    def event(self, *, timing=False):
        return self.own(FakeEvent(self, timing))

    def empty(self, shape, dtype):
        return self.own(FakeArray(self, shape, dtype))

    def pinned(self, shape, dtype):
        return self.own(FakePinned(shape, dtype))

    def free_share(self):
        return 1 - len(self.workspaces) * self.share_of_a_shape

    def close(self):
        self.closed += 1
        self.log.append("close device")


class FakeNetwork:
    """The heatmaps of an image are its first value, everywhere."""

    def __init__(self, device, nhw, *, joints=17, fail_at=None):
        n, h, w = nhw
        self.device, self.nhw, self.closed = device, nhw, False
        self.arrays = {
            "image": FakeArray(device, (n, 3, h, w), np.float32),
            "heatmaps": FakeArray(device, (n, joints, h // 2, w // 2), np.float32),
            "tags": FakeArray(device, (n, joints, h // 4, w // 4), np.float32),
        }
        self.enqueued, self.fail_at = 0, fail_at

    def enqueue(self, stream):
        self.enqueued += 1
        if self.enqueued == self.fail_at:
            raise EngineError("the plan could not be run")

        def forward():
            assert not self.closed, "a network ran after it was closed"
            self.arrays["heatmaps"].values[:] = self.arrays["image"].values[:, :1, :1, :1]

        stream.enqueue(forward)

    def capture_problem(self, stream):
        return None

    def close(self):
        self.closed = True
        self.device.log.append(f"close network {self.nhw}")


class FakeWorkspace:
    """The buffers of a decode; numba can free them only while the context is current, so `close` checks it."""

    def __init__(self, device, frames, people, joints):
        self.device, self.shape = device, (frames, people, joints)
        self.packed = FakeArray(device, (FakeKernels.packed_size(*self.shape),), np.float32)
        device.workspaces.append(self)
        device.made += 1

    def close(self):
        self.device.check()
        self.device.workspaces.remove(self)
        self.packed.free()


class FakeKernels:
    """preprocess hands on each first pixel; decode finds one person a frame, scored by the heatmaps: value / 255."""

    def __init__(self, device):
        self.device = device
        self.colours = []  # of each launch of preprocess_nv12

    @staticmethod
    def packed_size(frames, people, joints):
        return frames * (people * joints * 3 + people + 1)

    @staticmethod
    def unpack_people(packed, shape):
        """As `kernels.cuda` lays people out: keypoints, scores, then counts as the bits of int32."""
        frames, people, joints = shape
        keypoints, scores, count = np.split(packed, np.cumsum([frames * people * joints * 3, frames * people]))
        return keypoints.reshape(frames, people, joints, 3), scores.reshape(frames, people), count.view(np.int32)

    def Workspace(self, shape, options, *, dtype, tag_dims):
        frames, _, joints, _, _ = shape
        assert tag_dims == 1
        return FakeWorkspace(self.device, frames, options.max_people, joints)

    def preprocess(self, frames, out, *, stream, mirror, **geometry):
        assert geometry.keys() == {"scale", "center", "mean", "std"}
        passes = 2 if mirror else 1
        assert len(out.values) == passes * len(frames.values)

        def run():
            out.values[:] = np.repeat(frames.values[:, 0, 0, 0], passes)[:, None, None, None]

        self.device.streams[stream].enqueue(run)

    def preprocess_nv12(self, frames, out, *, frame_wh, colour, stream, mirror, **geometry):
        """As preprocess: hands on the first Y of each frame, if its last V is the same."""
        assert geometry.keys() == {"scale", "center", "mean", "std"}
        w, h = frame_wh
        assert frames.values.shape[1:] == (h + (h + 1) // 2, w + w % 2)
        self.colours.append(colour)
        passes = 2 if mirror else 1

        def run():
            first, last = frames.values[:, 0, 0], frames.values[:, -1, -1]
            out.values[:] = np.repeat(np.where(first == last, first, 0), passes)[:, None, None, None]

        self.device.streams[stream].enqueue(run)

    def decode(self, heatmaps, tags, *, workspace, stream):
        def run():
            keypoints, scores, count = self.unpack_people(workspace.packed.values, workspace.shape)
            keypoints[:, 0] = (heatmaps.shape[4], heatmaps.shape[3], 0.5)  # the middle of the input
            scores[:, 0] = heatmaps.values[:, 0, 0, 0, 0] / 255
            count[:] = 1

        self.device.streams[stream].enqueue(run)


def make_device_step(device, network_of, kernels, *, networks=None, graphs=True, **options):
    """A DeviceStep. network_of: makes the network of an input (N, H, W). networks: a list that gets each network."""

    def network_for(nhw):
        network = network_of(nhw)
        if networks is not None:
            networks.append(network)
        return network

    return DeviceStep(
        device,
        network_for,
        ModelSpec(name="fake", short_side=64),
        PassOptions(decode=DecodeOptions(max_people=5), **options),
        engine="fake",
        about="fake",
        graphs=graphs,
        kernels=kernels,
    )
