"""The last byte of a request, and the word that the kernel has it: what a kill in between leaves is told from it."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest
from adopting import drained

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.segment import attach
from otel_trading.segment.files import word

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Recorder

PROBE = ot.probe("hand_over.work")
pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a sender's end, which does not block, and a receiver's."""
    sender, receiver = socket.socketpair()
    sender.settimeout(5.0)
    with sender, receiver:
        yield sender, receiver


def record(count: int) -> None:
    """Record numbered spans, and pass over them."""
    for number in range(count):
        with PROBE.span(number=number):
            pass
    core.drain()


def taken_over() -> list[int]:
    """Take the segment over as another drain would; gives the numbers of what is to be sent."""
    core.drain_give()
    core.drain_take()
    core.keep(100)
    return [int(state[11]["number"]) for state in drained()]


def filled(sender: socket.socket) -> int:
    """Send until there is no room; gives how many bytes that took."""
    sender.setblocking(False)
    sent = 0
    try:
        while True:
            sent += sender.send(b"x" * 4096)
    except BlockingIOError:
        return sent


def leave(path: Path, count: int, *, handed: bool) -> None:
    """Leave the first spans of the main thread's ring as a drain does that is killed with them in hand."""
    with path.open("r+b") as file:
        header = file.read(at.SIZE_HEADER)
        file.seek(word(header, at.OFF_HEADER_RINGS_OFFSET, 8))
        ring = file.read(at.SIZE_RING)
        file.seek(word(ring, at.OFF_RING_MARKS_OFFSET, 8))
        file.write(bytes([at.MARK_OFFERED]) * count)
        file.seek(word(header, at.OFF_HEADER_CONTROL_OFFSET, 8) + at.OFF_CONTROL_HANDED)
        file.write(int(handed).to_bytes(8, "little"))


def test_what_is_handed_over_is_sent(recorder: Recorder, ends: tuple[socket.socket, socket.socket]) -> None:
    """The byte arrives, and the spans are not sent again."""
    core.keep(100)
    record(10)
    batch = core.take(4)
    batch.hand_over(ends[0].fileno(), b"x", 5.0)
    assert ends[1].recv(10) == b"x"
    assert taken_over() == list(range(4, 10))
    assert recorder.accounts()[1]["exported"] == 10


def test_a_receiver_that_takes_nothing(recorder: Recorder, ends: tuple[socket.socket, socket.socket]) -> None:
    """After the time limit it is an error, and the spans are whoever's turn it is."""
    core.keep(100)
    record(5)
    filled(ends[0])
    with pytest.raises(TimeoutError):
        core.take(5).hand_over(ends[0].fileno(), b"x", 0.05)
    assert taken_over() == list(range(5))
    assert recorder.accounts()[1]["exported"] == 5


def test_a_receiver_that_is_gone(recorder: Recorder, ends: tuple[socket.socket, socket.socket]) -> None:
    """A connection that breaks at the last byte leaves them unsent."""
    core.keep(100)
    record(5)
    ends[1].close()
    with pytest.raises(BrokenPipeError):
        core.take(5).hand_over(ends[0].fileno(), b"x", 5.0)
    assert taken_over() == list(range(5))
    assert recorder.accounts()[1]["exported"] == 5


def test_it_waits_for_room(recorder: Recorder, ends: tuple[socket.socket, socket.socket]) -> None:
    """What does not fit at once is sent when there is room."""
    core.keep(100)
    record(5)
    sent = filled(ends[0])
    reading = threading.Timer(0.05, lambda: ends[1].recv(sent))
    reading.start()
    core.take(5).hand_over(ends[0].fileno(), b"x", 5.0)
    reading.join()
    assert taken_over() == []
    assert recorder.accounts()[1]["exported"] == 5


@pytest.mark.parametrize("handed", [False, True])
def test_killed_with_a_request_in_hand(recorder: Recorder, *, handed: bool) -> None:
    """Offered spans are sent again where the kernel has not got the request, and never where it has; for good."""
    core.keep(100)
    record(10)
    core.take(4)
    core.drain_give()
    leave(recorder.path, 4, handed=handed)
    reader = attach(recorder.path)
    try:
        assert not reader.settled()
    finally:
        reader.close()
    core.drain_take()
    core.keep(100)
    kept = [int(state[11]["number"]) for state in drained()]
    assert kept == list(range(4 if handed else 0, 10))
    assert recorder.accounts()[1]["exported"] == 10
    # The word is the next request's.
    leave(recorder.path, 0, handed=not handed)
    assert taken_over() == []
    assert recorder.accounts()[1]["exported"] == 10


def test_a_batch_of_another_drain(recorder: Recorder, ends: tuple[socket.socket, socket.socket]) -> None:
    """What is another drain's by now is sent all the same, and not marked."""
    core.keep(100)
    record(5)
    batch = core.take(5)
    core.drain_give()
    batch.hand_over(ends[0].fileno(), b"x", 5.0)
    assert ends[1].recv(10) == b"x"
    core.drain_take()
    core.keep(100)
    assert len(drained()) == 5
    assert recorder.accounts()[1]["exported"] == 5
