"""Exports keep to the network budget: real bytes at a real receiver, in each second; and nothing where that is 0."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from exporting import soon

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from otlp_receiver import METRICS, OVER, TRACES, Receiver, environment

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.budget.policy import Policy
from otel_trading.drain.allowance import Allowance
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

LIMIT = 16_000.0
SPANS = 250


class Timed(Receiver):
    """A receiver that knows when each request came, and what it took on the wire."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.times: list[float] = []
        self.before = lambda: self.times.append(time.monotonic())

    def sizes(self) -> list[int]:
        """Return the bytes of each http request: head and body, as they came."""
        sizes = []
        for request in self.requests:
            head = len(f"POST {request.path} HTTP/1.1\r\n\r\n")
            head += sum(len(name) + len(value) + 4 for name, value in request.headers.items())
            sizes.append(head + int(request.headers["content-length"]))
        return sizes

    def most_in_a_second(self) -> int:
        """Return the most bytes that came within any second, of requests that began in it."""
        came = list(zip(self.times, self.sizes(), strict=True))
        return max(sum(size for then, size in came if begin <= then < begin + 1.0) for begin, _ in came)


@pytest.fixture(params=list(OVER))
def protocol(request: pytest.FixtureRequest) -> str:
    """Give both protocols, one after the other."""
    return str(request.param)


@pytest.fixture
def paced(make_recorder: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Give a function that begins recording to a receiver with a network budget, and no governor to change modes."""
    policies: list[Policy] = []
    receivers = ExitStack()

    def begin(receiver: Receiver, protocol: str, metrics: str = "none", **variables: str) -> Recorder:
        endpoint = receivers.enter_context(OVER[protocol](receiver))
        chosen = {**environment(protocol, endpoint), "OTEL_METRICS_EXPORTER": metrics, **variables}
        for name, value in {"OTEL_BSP_SCHEDULE_DELAY": "50", **chosen}.items():
            monkeypatch.setenv(name, value)
        recorder = make_recorder(drain__period=0.01, ring__slots=8192)
        numbers = [math.inf] * (at.BUDGETS * at.MODES)
        numbers[at.BUDGET_NETWORK * at.MODES : (at.BUDGET_NETWORK + 1) * at.MODES] = [LIMIT, LIMIT, LIMIT / 4, 0.0]
        policy = Policy(recorder.path)
        policies.append(policy)
        policy.write({"budget": numbers, "burst": 60.0, "hold": 5.0, "limit": [math.inf] * at.TRIGGERS})
        policy.active = True
        return recorder

    with receivers:
        yield begin
        lifecycle.shutdown(5.0)
    for policy in policies:
        policy.close()


def failed(count: int) -> None:
    """Record traces of one span with an error each, which are all kept."""
    probe = ot.probe("order.send", tier=ot.P0)
    for number in range(count):
        with pytest.raises(ValueError, match="no"), probe.span(number=number):
            raise ValueError("no")


def force(recorder: Recorder, mode: int) -> None:
    """Have a mode."""
    with Control(recorder.path) as control:
        control.force(mode)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_no_second_has_more_than_the_limit(
    paced: Callable[..., Any], until: Callable[..., None], compression: str
) -> None:
    """What a burst has filled the queue with leaves second by second, and all of it arrives."""
    receiver = Timed()
    recorder = paced(receiver, "http/protobuf", OTEL_EXPORTER_OTLP_COMPRESSION=compression)
    failed(SPANS)
    until(lambda: len(receiver.spans()) == SPANS, 60.0)
    until(lambda: {account["pending"] for account in recorder.accounts().values()} == {0})
    assert len(receiver.requests) > 1
    assert sum(receiver.sizes()) > LIMIT or compression == "gzip"
    # By the first requests nobody knows yet how well the spans compress.
    assert receiver.most_in_a_second() <= LIMIT * (1.05 if compression == "gzip" else 1.0)


def test_a_flush_does_not_wait_for_the_budget(paced: Callable[..., Any]) -> None:
    """It sends all that is there, at once."""
    receiver = Timed()
    paced(receiver, "http/protobuf", OTEL_BSP_SCHEDULE_DELAY="3600000")
    failed(SPANS)
    assert ot.flush(20.0)
    assert len(receiver.spans()) == SPANS
    assert receiver.most_in_a_second() > LIMIT


def test_the_end_does_not_wait_for_the_budget(paced: Callable[..., Any]) -> None:
    """What is in the queue when the program ends leaves before it does, whatever the mode."""
    receiver = Timed()
    recorder = paced(receiver, "http/protobuf")
    force(recorder, at.MODE_EMERGENCY)
    failed(SPANS)
    ot.shutdown(20.0)
    assert len(receiver.spans()) == SPANS


def test_in_emergency_nothing_is_sent_and_afterwards_all_is(
    paced: Callable[..., Any], until: Callable[..., None], protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither spans nor metrics leave; what has a trigger waits, and leaves by itself when the mode is over."""
    looks = {False: 0, True: 0}
    wait = Allowance.wait

    def looked(self: Allowance, size: float, *, metrics: bool = False) -> float:
        looks[metrics] += 1
        return wait(self, size, metrics=metrics) / 20

    receiver = Timed()
    recorder = paced(receiver, protocol, "otlp", OTEL_METRIC_EXPORT_INTERVAL="100")
    until(lambda: receiver.bodies(METRICS))
    force(recorder, at.MODE_EMERGENCY)
    monkeypatch.setattr(Allowance, "wait", looked)
    failed(50)
    until(lambda: core.kept() == 50)
    before = len(receiver.bodies(METRICS))
    until(lambda: min(looks.values()) >= 5)  # both threads have had their times
    assert receiver.bodies(TRACES) == []
    assert len(receiver.bodies(METRICS)) <= before + 1  # one may have been on its way
    assert core.kept() == 50
    force(recorder, at.MODE_NORMAL)
    until(lambda: len(receiver.spans()) == 50)
    until(lambda: len(receiver.bodies(METRICS)) > before + 1)


def test_spans_and_metrics_share_the_budget(paced: Callable[..., Any], until: Callable[..., None]) -> None:
    """Beside a queue full of spans metrics find their room, and both together keep to the limit."""
    receiver = Timed()
    paced(receiver, "http/protobuf", "otlp", OTEL_METRIC_EXPORT_INTERVAL="300")
    failed(SPANS)
    until(lambda: len(receiver.spans()) == SPANS, 60.0)
    between = [request.path for request in receiver.requests]
    last = len(between) - 1 - between[::-1].index(TRACES)
    assert METRICS in between[between.index(TRACES) : last]
    # What the first request of metrics takes is estimated.
    assert receiver.most_in_a_second() <= LIMIT * 1.1


def test_what_is_counted_is_what_was_sent(
    paced: Callable[..., Any], until: Callable[..., None], protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over http to the byte nearly; over grpc, whose framing nobody sees, to some bytes a request."""
    counted: list[tuple[int, int, int]] = []
    count_io = core.count_io
    monkeypatch.setattr(core, "count_io", lambda *numbers: (counted.append(numbers), count_io(*numbers)))
    receiver = Timed()
    paced(receiver, protocol, "otlp", OTEL_METRIC_EXPORT_INTERVAL="100")
    failed(SPANS)
    until(lambda: len(receiver.spans()) == SPANS, 60.0)
    until(lambda: receiver.bodies(METRICS))
    ot.shutdown(20.0)
    sent = sum(network for network, _, _ in counted)
    bodies = sum(len(request.body) for request in receiver.requests)
    if protocol == "grpc":
        assert bodies + 50 * len(receiver.requests) < sent < bodies + 400 * len(receiver.requests)
    else:
        assert sent == pytest.approx(sum(receiver.sizes()), rel=0.002)
    assert sum(disk for _, disk, _ in counted) == 0


def test_a_queue_that_fills_wakes_the_thread_where_there_is_room(
    paced: Callable[..., Any], until: Callable[..., None]
) -> None:
    """Without a limit a quarter of the queue is enough, long before the schedule's time."""
    receiver = Timed()
    recorder = paced(receiver, "http/protobuf", OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_BSP_MAX_QUEUE_SIZE="400")
    with Policy(recorder.path) as policy:
        for mode in range(at.MODES):
            policy.set_limit("network", mode, math.inf)
    failed(100)
    until(lambda: len(receiver.spans()) == 100)


def test_console_exporters_count_as_writes(paced: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What an exporter writes to a stream is no network traffic."""
    counted: list[tuple[int, int, int]] = []
    monkeypatch.setattr(core, "count_io", lambda *numbers: counted.append(numbers))
    paced(Receiver(), "http/protobuf", "console", OTEL_TRACES_EXPORTER="console")
    failed(3)
    assert lifecycle._host.exports is not None
    assert lifecycle._host.exports.flush(soon())
    assert [numbers[:2] for numbers in counted] == [(0, 1), (0, 1)]
