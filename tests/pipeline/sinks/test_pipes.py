"""Output into pipes: complete, and without a reader that reads no program hangs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from core.errors import SinkError
from core.signals import Stopped, stop_signals
from pipeline.sinks import pipes
from pipeline.sinks.base import open_file, write_all
from pipeline.sinks.pipes import waiting_for_readers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")

CONTENT = os.urandom(1 << 20)  # more than a pipe holds


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_slow_reader_gets_everything(pipe):
    got = bytearray()

    def read() -> None:
        with pipe.open("rb", buffering=0) as file:
            while part := file.read(40_000):
                got.extend(part)
                time.sleep(0.002)

    reader = threading.Thread(target=read)
    reader.start()
    with waiting_for_readers([pipe]), open_file(pipe) as file:
        write_all(file, CONTENT, pipe)
    reader.join()
    assert bytes(got) == CONTENT


def test_a_reader_that_does_not_read_is_given_up_after_a_signal(pipe, monkeypatch):
    monkeypatch.setattr(pipes, "END_S", 0.2)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with open_file(pipe) as file:
                write_all(file, CONTENT, pipe)
        except SinkError as error:
            failed.append(error)

    with pytest.raises(Stopped), stop_signals():
        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.5)
        assert writer.is_alive()  # without a signal it waits
        os.kill(os.getpid(), signal.SIGTERM)
    writer.join(5)
    os.close(reader)
    assert [str(error) for error in failed] == [f"{pipe} cannot be written further: its reader does not read"]


def test_without_a_reader_a_pipe_is_not_opened(pipe):
    with pytest.raises(SinkError, match="cannot be written: nobody reads it"):
        open_file(pipe)


def test_waiting_for_a_reader_is_interrupted(pipe):
    with pytest.raises(Stopped), stop_signals():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with waiting_for_readers([None, pipe]):
            pass


def test_a_reader_that_leaves_is_reported(pipe):
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with open_file(pipe) as file:
        os.close(reader)
        with pytest.raises(SinkError, match="Broken pipe"):
            write_all(file, b"line", pipe)
