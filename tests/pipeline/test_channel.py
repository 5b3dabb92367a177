"""Channel: order, capacity, end, failures and cancellation."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.channel import Cancelled, Channel


def filled(*items, capacity=8, **options) -> Channel:
    channel: Channel = Channel(capacity, **options)
    for item in items:
        channel.put(item)
    return channel


def in_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_items_come_out_in_order_and_end():
    channel = filled(1, 2, 3)
    channel.close()
    assert list(channel) == [1, 2, 3]
    assert list(channel) == []


def test_an_error_comes_after_the_items_before_it_and_only_once():
    channel = filled(1, 2)
    channel.close(OSError("gone"))
    channel.close(OSError("later"))
    assert [next(channel), next(channel)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(channel)
    assert list(channel) == []


def test_a_full_channel_makes_the_writer_wait():
    channel = filled(1, capacity=1)
    writer = in_thread(lambda: channel.put(2))
    writer.join(0.05)
    assert writer.is_alive()
    assert next(channel) == 1
    writer.join(5)
    assert not writer.is_alive()
    assert next(channel) == 2


def test_an_empty_channel_makes_the_reader_wait():
    channel: Channel[int] = Channel(1)
    got: list[int] = []
    reader = in_thread(lambda: got.extend(channel))
    time.sleep(0.02)
    channel.put(7)
    channel.close()
    reader.join(5)
    assert got == [7]


def test_dropping_keeps_the_newest_and_counts():
    channel = filled(1, 2, 3, 4, 5, capacity=2, drop_oldest=True)
    channel.close()
    assert list(channel) == [4, 5]
    assert channel.dropped == 3


def test_cancel_wakes_a_waiting_writer():
    channel = filled(1, capacity=1)
    raised: list[BaseException] = []

    def write() -> None:
        try:
            channel.put(2)
        except Cancelled as error:
            raised.append(error)

    writer = in_thread(write)
    time.sleep(0.02)
    channel.cancel()
    writer.join(5)
    assert len(raised) == 1
    with pytest.raises(Cancelled):
        channel.put(3)
    assert list(channel) == []


def test_cancel_wakes_a_waiting_reader():
    channel: Channel[int] = Channel(1)
    reader = in_thread(lambda: list(channel))
    time.sleep(0.02)
    channel.cancel()
    reader.join(5)
    assert not reader.is_alive()


def test_nothing_is_put_after_close():
    channel = filled()
    channel.close()
    with pytest.raises(RuntimeError, match="closed"):
        channel.put(1)


def test_a_channel_needs_room():
    with pytest.raises(ValueError, match="capacity is 0"):
        Channel(0)


def test_ten_thousand_items_through_three_channels_keep_their_order():
    channels: list[Channel[int]] = [Channel(1), Channel(2), Channel(3)]
    first, second, third = channels

    def move(inbox, outbox) -> None:
        for item in inbox:
            outbox.put(item)
        outbox.close()

    def write() -> None:
        for item in range(10_000):
            first.put(item)
        first.close()

    threads = [in_thread(write), in_thread(lambda: move(first, second)), in_thread(lambda: move(second, third))]
    assert list(third) == list(range(10_000))
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
