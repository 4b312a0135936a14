"""Joining spans into traces, drawing them, and the figures of a run."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from otel_trading.demo import stages, traces
from otel_trading.demo.traces import Joiner, Live
from otel_trading.demo.waterfall import Waterfall, bar

NAMES = list(stages.SHOWN)
Row = tuple[str, tuple[object, ...]]


def span(
    stage: str, trace_id: int = 1, start: int = 0, end: int = 1000, *, answer: int = 0, **attributes: bool | float | str
) -> tuple[object, ...]:
    """Make a span as a reader gives it; its id is its stage's number, its parent as it should be.

    ``answer`` numbers the messages that come back from the gateway.
    """
    _, parents = stages.ORDER.get(stage, ("bot", (None,)))
    parent = "gateway.accept" if answer else parents[0]
    parent_id = 1 + NAMES.index(parent) if parent else 0
    probe = NAMES.index(stage)
    span_id = 100 + answer if answer else probe + 1
    rest: tuple[object, ...] = (None, None, [], [], 0, 0)
    return (probe, 0, trace_id, span_id, parent_id, start, end, 0, 0, None, None, attributes, 0, *rest)


def order_spans(trace_id: int = 1, end: int = 1000, *, filled: str = "all") -> dict[str, list[tuple[object, ...]]]:
    """Make all spans of an order's trace, by process."""
    found: dict[str, list[tuple[object, ...]]] = {process: [] for process in stages.PROCESSES}
    for stage, count in stages.expected(filled).items():
        attributes: dict[str, bool | str] = {}
        if stage == "gateway.accept":
            attributes = {"filled": filled, "order_id": f"t-{trace_id}"}
        if stage == "candle.process":
            attributes = {"outcome": "order", "symbol": "A_B"}
        for answer in range(count):
            found[stages.ORDER[stage][0]].append(span(stage, trace_id, 0, end, answer=answer, **attributes))
    return found


def feed(joiner: Joiner, spans: dict[str, list[tuple[object, ...]]]) -> list[traces.Trace]:
    """Give a joiner everything, process by process."""
    whole: list[traces.Trace] = []
    for process, rows in spans.items():
        whole += joiner.add(process, NAMES, rows)  # type: ignore[arg-type]
    return whole


@pytest.mark.parametrize(("filled", "outcome"), [("all", "filled"), ("part", "filled"), ("none", "acked")])
def test_a_trace_is_whole_with_its_last_stage(filled: str, outcome: str) -> None:
    """The spans of three processes become one trace, whichever comes last, and nothing stays behind."""
    for last in stages.PROCESSES:
        joiner = Joiner(3)
        spans = order_spans(filled=filled)
        late = {last: spans.pop(last)}
        assert feed(joiner, spans) == []
        (trace,) = feed(joiner, late)
        assert trace.outcome() == outcome
        assert trace.order_id == "t-1"
        assert joiner.outcomes[outcome] == 1
        assert joiner.unfinished == []


@pytest.mark.parametrize("outcome", ["hold", "denied"])
def test_a_candle_without_an_order_is_counted_and_forgotten(outcome: str) -> None:
    """A candle that led to nothing is no order trace."""
    joiner = Joiner(3)
    assert feed(joiner, {"bot": [span("signal.generate"), span("candle.process", outcome=outcome)]}) == []
    assert joiner.outcomes[outcome] == 1
    assert joiner.unfinished == []


@pytest.mark.parametrize("routed", [True, False])
def test_a_rejected_order_is_whole_with_what_it_came_to(routed: bool) -> None:  # noqa: FBT001
    """An order that the gateway refused never was at the exchange; one that the exchange refused was."""
    joiner = Joiner(3)
    of_the_bot = ("websocket.receive", "market_data.handle", "signal.generate", "risk.check", "order.submit")
    bot = [span(stage) for stage in (*of_the_bot, "websocket.send", "order.reject")]
    bot += [span("candle.process", outcome="order"), span("websocket.receive", answer=1)]
    spans = {"bot": bot, "gateway": [span("gateway.accept", routed=routed)]}
    if routed:
        assert feed(joiner, spans) == []
        spans = {"gateway": [span("gateway.route")], "exchange": [span("exchange.match")]}
    assert len(feed(joiner, spans)) == 1
    assert joiner.outcomes["rejected"] == 1


def test_only_the_slowest_are_kept() -> None:
    """Of many traces, the joiner keeps the given number of slowest ones, slowest first."""
    joiner = Joiner(2)
    for number, end in enumerate((500, 900, 100, 700), 1):
        feed(joiner, order_spans(number, end))
    assert [trace.duration_ns for trace in joiner.slowest()] == [900, 700]


def test_unfinished_traces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces that never end are given up, oldest first, and counted."""
    monkeypatch.setattr(traces, "UNDER_WAY", 3)
    joiner = Joiner(1)
    for number in range(1, 6):
        feed(joiner, {"bot": [span("order.submit", number)]})
    assert [trace.id for trace in joiner.unfinished] == [3, 4, 5]
    assert joiner.given_up == 2


def test_updates_of_the_market_are_no_traces() -> None:
    """An update that led to nothing is forgotten, one that led to an order is in its trace; the backlog is noted."""
    joiner = Joiner(1)
    for number in range(1, 10):
        receive = span("websocket.receive", number, **{"trading.websocket.backlog": 10 - number})
        feed(joiner, {"bot": [receive, span("market_data.handle", number)]})
    assert (joiner.backlog, joiner.backlog_max) == (1, 9)
    assert joiner.unfinished == []
    feed(joiner, {"bot": [span("signal.generate", 5)]})
    (trace,) = joiner.unfinished
    assert [piece.stage for piece in trace.pieces] == ["websocket.receive", "market_data.handle", "signal.generate"]


def test_updates_of_the_market_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest are held."""
    monkeypatch.setattr(traces, "_UPDATES", 3)
    joiner = Joiner(1)
    feed(joiner, {"bot": [span("websocket.receive", number) for number in range(1, 10)]})
    assert list(joiner._before) == [7, 8, 9]


def test_a_message_without_an_order_is_no_trace() -> None:
    """A subscription is sent in no trace of an order's."""
    joiner = Joiner(1)
    send = list(span("websocket.send"))
    send[4] = 0
    feed(joiner, {"bot": [tuple(send)]})
    assert joiner.unfinished == []


def test_a_calibration_is_no_trace() -> None:
    """What a process records to measure its cost is passed over."""
    joiner = Joiner(1)
    joiner.ignored.add(7)
    feed(joiner, {"bot": [span("order.submit", 7)]})
    assert (joiner.unfinished, joiner.live) == ([], {})


def test_unknown_probes_are_passed_over() -> None:
    """Spans of probes that are no stage of the demo's do not count."""
    joiner = Joiner(1)
    other: tuple[object, ...] = (99, 0, 1, 1, 0, 0, 1, 0, 0, None, None, {}, 0, None, None, [], [], 0, 0)
    assert joiner.add("bot", [*NAMES, "demo.calibration"], [other]) == []  # type: ignore[list-item]
    assert joiner.unfinished == []


def test_a_tree_is_read_parents_first() -> None:
    """Parents come before their children, each with its depth; a span without its parent is at the root."""
    joiner = Joiner(1)
    (trace,) = feed(joiner, order_spans())
    depths = {piece.stage: depth for depth, piece in trace.ordered()}
    assert (depths["candle.process"], depths["order.submit"], depths["gateway.accept"]) == (1, 2, 3)
    assert (depths["gateway.route"], depths["exchange.match"], depths["order.fill"]) == (4, 5, 2)
    trace.pieces = [piece for piece in trace.pieces if piece.stage != "candle.process"]
    assert {depth for depth, piece in trace.ordered() if piece.stage == "order.submit"} == {0}
    assert len(trace.ordered()) == len(trace.pieces)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 0.999]))
def test_live_quantiles_are_near(durations: list[int], quantile: float) -> None:
    """The figures of the live picture are within one per cent of the exact ones."""
    live = Live("bot")
    for duration in durations:
        live.add(duration)
    exact = sorted(durations)[math.ceil(quantile * len(durations)) - 1] / 1e9
    assert live.quantiles(quantile)[0] == pytest.approx(exact, rel=0.011)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 60))
def test_a_bar_fits_and_is_seen(one: float, other: float, width: int) -> None:
    """A bar is as wide as its place, and never nothing, wherever it begins and ends."""
    drawn = bar(min(one, other), max(one, other), width)
    assert len(drawn) == width
    assert drawn.strip()


def test_a_bar_is_where_it_should_be() -> None:
    """Begin and end fall into the right cells."""
    assert bar(0.0, 1.0, 4) == "████"
    assert bar(0.25, 0.5, 4) == " █  "
    assert bar(0.125, 0.5, 4) == "▐█  "
    assert bar(0.5, 0.5, 4) == "  ▏ "
    assert bar(1.0, 1.0, 4) == "   ▕"


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_waterfall_fits_the_console(width: int) -> None:
    """No line is longer than the console is wide, and every stage has one."""
    (trace,) = feed(Joiner(1), order_spans())
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(Waterfall(trace))
    lines = capture.get().splitlines()
    assert len(lines) == 1 + len(trace.pieces)
    assert max(map(len, lines)) <= width
