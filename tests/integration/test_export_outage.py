"""Receivers that are busy, refuse, hang, or are down: the program does not wait for them, the accounts are exact."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from exporting import accounted, record, soon, totals

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from otlp_receiver import OVER, Answer, Receiver, environment

import otel_trading as ot
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CAPACITY = 500
ROOM = CAPACITY - CAPACITY // 8  # of it, for spans of P1


@pytest.fixture(params=list(OVER))
def protocol(request: pytest.FixtureRequest) -> str:
    """Give both protocols, one after the other."""
    return str(request.param)


def point_to(endpoint: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the standard variables for spans."""
    for name, value in {**environment(protocol, endpoint), "OTEL_METRICS_EXPORTER": "none"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def receiving(protocol: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Receiver, int]]:
    """Run a receiver that the environment points to; give it and its port."""
    receiver = Receiver()
    with OVER[protocol](receiver) as endpoint:
        point_to(endpoint, protocol, monkeypatch)
        yield receiver, int(endpoint.rpartition(":")[2])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what we said of exporting; the stock exporters have logs of their own."""
    return [entry.getMessage() for entry in caplog.records if entry.name == "otel_trading"]


def test_a_busy_receiver_is_tried_again(start: Callable[..., Any], receiving: tuple[Receiver, int]) -> None:
    """One that says when to come again gets the same request again, and nothing is lost."""
    receiver, _ = receiving
    receiver.answers += [Answer(again_in=0.0), Answer(again_in=0.01)]
    running = start(export__traces="otlp")
    record(10)
    assert running.flush(soon())
    assert [len(receiver.refused), len(receiver.requests)] == [2, 1]
    assert {request.body for request in receiver.refused} == set(receiver.bodies())
    assert totals() == accounted(10, exported=10)


def test_a_receiver_that_refuses_costs_the_batch_and_is_said_once(
    start: Callable[..., Any], receiving: tuple[Receiver, int], caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal for good is not tried again; its reason is in the log, once."""
    receiver, _ = receiving
    receiver.answers += [Answer(never=True, message="no such tenant")] * 2
    running = start(export__traces="otlp")
    for expected in (False, False, True):
        record(5)
        assert running.flush(soon()) is expected
    assert [len(receiver.refused), len(receiver.requests)] == [2, 1]
    assert totals() == accounted(15, refused=10, exported=5)
    (message,) = said(caplog)
    assert "exporter 'otlp' did not take spans" in message
    assert "no such tenant" in message


def test_spans_that_a_receiver_rejects_are_refused_and_said_once(
    start: Callable[..., Any], receiving: tuple[Receiver, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Of a partial success the rejected ones are counted as refused, those of the lowest tiers."""
    receiver, _ = receiving
    receiver.answers += [Answer(rejected=4, message="too old"), Answer(rejected=1), Answer(message="be quick")]
    running = start(export__traces="otlp")
    for expected in (False, False, True):
        record(7, ot.P0)
        record(3, ot.P2)
        assert running.flush(soon()) is expected
    assert totals() == accounted(30, exported=25, refused=5)
    assert [account["refused"] for account in core.accounts()] == [1, 0, 4, 0]
    (message,) = said(caplog)
    assert "rejected 4 (too old)" in message


def test_a_receiver_that_is_down_and_comes_back(
    start: Callable[..., Any],
    protocol: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    until: Callable[..., None],
) -> None:
    """Meanwhile the queue stays within its bounds, and the program goes on; then spans arrive without a restart."""
    first, second = Receiver(), Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    with OVER[protocol](first) as endpoint:
        point_to(endpoint, protocol, monkeypatch)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        running = start(export__traces="otlp", export__queue=CAPACITY)
        record(100)
        assert running.flush(soon())
    recorded = 100
    deadline = soon()
    while not said(caplog) or totals()["refused"] < 3 * CAPACITY:
        assert time.monotonic() < deadline
        record(200)
        recorded += 200
        assert core.kept() <= CAPACITY
        assert totals()["pending"] <= 2 * CAPACITY  # in the queue and in hand
    assert totals()["recorded"] == recorded
    with OVER[protocol](second, port=int(endpoint.rpartition(":")[2])):

        def arrives() -> bool:
            nonlocal recorded
            record(1)
            recorded += 1
            running.flush(time.monotonic() + 1.0)
            return bool(second.requests)

        until(arrives)
        before = totals()
        record(50)
        assert running.flush(soon())
    after = totals()
    assert after["refused"] == before["refused"]
    assert after["exported"] == len(first.spans()) + len(second.spans())
    assert after == accounted(recorded + 50, exported=after["exported"], refused=after["refused"])
    assert len(said(caplog)) == 1


def test_a_program_does_not_wait_for_a_receiver_that_hangs(
    start: Callable[..., Any], receiving: tuple[Receiver, int]
) -> None:
    """While a request hangs the program records on; what has no room is refused, and the end takes its time limit."""
    receiver, _ = receiving
    entered, release = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        release.wait(60)

    receiver.before = hang
    try:
        running = start(export__traces="otlp", export__queue=CAPACITY)
        record(10)
        assert not running.flush(time.monotonic() + 0.01)
        assert entered.wait(20)
        record(2 * CAPACITY)
        assert totals() == accounted(10 + 2 * CAPACITY, pending=10 + ROOM, refused=2 * CAPACITY - ROOM)
        assert not running.stop(time.monotonic() + 0.1)
        assert totals() == accounted(10 + 2 * CAPACITY, refused=10 + 2 * CAPACITY)
    finally:
        release.set()


def test_the_end_does_not_wait_for_the_next_try(
    start: Callable[..., Any],
    receiving: tuple[Receiver, int],
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[..., None],
) -> None:
    """In the middle of a retry the end comes at its limit, the retry is over, and the thread with it."""
    receiver, _ = receiving
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    receiver.answers += [Answer(again_in=1800.0)]
    running = start(export__traces="otlp")
    record(10)
    assert not running.flush(time.monotonic() + 0.01)
    until(lambda: receiver.refused)
    assert not running.stop(time.monotonic() + 0.1)
    assert totals() == accounted(10, refused=10)
    until(lambda: not any(thread.name == "otel-trading-spans" for thread in threading.enumerate()))
    assert receiver.requests == []
