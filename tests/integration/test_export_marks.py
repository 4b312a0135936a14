"""What the segment says of a batch while its request is on the way: what the next drain goes by after a kill."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from exporting import record, soon
from otlp_receiver import OVER, Answer, Receiver, environment

from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PENDING = {at.MARK_NONE: 5}


def marks(segment: int) -> dict[int, int]:
    """Count the marks of all that is in the first ring."""
    data = os.pread(segment, os.fstat(segment).st_size, 0)

    def word(offset: int) -> int:
        return int.from_bytes(data[offset : offset + 8], "little")

    ring = word(at.OFF_HEADER_RINGS_OFFSET)
    head, first = word(ring + at.OFF_RING_HEAD), word(ring + at.OFF_RING_MARKS_OFFSET)
    found: dict[int, int] = {}
    for place in range(head):
        mark = data[first + place] & (1 << at.MARK_BITS) - 1
        found[mark] = found.get(mark, 0) + 1
    return found


@pytest.fixture(params=list(OVER))
def protocol(request: pytest.FixtureRequest) -> str:
    """Give each protocol."""
    return str(request.param)


@pytest.fixture
def receiver(protocol: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Run a receiver, and point the standard variables at it."""
    receiver = Receiver()
    with OVER[protocol](receiver) as endpoint:
        for name, value in {**environment(protocol, endpoint), "OTEL_METRICS_EXPORTER": "none"}.items():
            monkeypatch.setenv(name, value)
        yield receiver


def test_marked_as_sent_before_the_answer(
    start: Callable[..., Any], segment: int, receiver: Receiver, protocol: str
) -> None:
    """Over plain http a batch is marked when the request is handed over whole; by grpc when the answer is there."""
    seen: list[dict[int, int]] = []
    receiver.before = lambda: seen.append(settled_down(segment, protocol))
    running = start(export__traces="otlp")
    record(5)
    assert running.flush(soon())
    assert seen == [{at.MARK_SENT: 5} if protocol != "grpc" else PENDING]
    assert core.accounts()[1]["exported"] == 5


def settled_down(segment: int, protocol: str) -> dict[int, int]:
    """Give the marks while the request is there and not answered; the sender may still be about to mark it."""
    deadline = time.monotonic() + 20
    while protocol != "grpc" and marks(segment) == PENDING:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return marks(segment)


def test_a_busy_receiver_leaves_it_marked_until_the_end(
    start: Callable[..., Any], segment: int, receiver: Receiver, protocol: str
) -> None:
    """What is sent again is settled when that is over, one way or the other."""
    receiver.answers += [Answer(again_in=0.0), Answer(never=True, message="no")]
    seen: list[dict[int, int]] = []
    receiver.before = lambda: seen.append(settled_down(segment, protocol))
    running = start(export__traces="otlp")
    record(5)
    assert not running.flush(soon())
    assert seen == [{at.MARK_SENT: 5} if protocol != "grpc" else PENDING] * 2
    assert core.accounts()[1]["refused"] == 5


def test_nothing_is_marked_where_others_take_it_too(
    start: Callable[..., Any], segment: int, receiver: Receiver, characters: Any
) -> None:
    """Of two exporters the second may not have it yet: it is settled when both do."""
    seen: list[dict[int, int]] = []
    receiver.before = lambda: seen.append(marks(segment))
    running = start(export__traces="otlp,taking")
    record(5)
    assert running.flush(soon())
    assert seen == [PENDING]
    assert len(characters.spans) == 5
    assert core.accounts()[1]["exported"] == 5
