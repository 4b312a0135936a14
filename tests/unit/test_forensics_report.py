"""The report: its schema, what it counts, and the page for people."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from made_evidence import KILLED, LIVES, NOW, by_exit, by_signal, calm, silent, span, vital

from otel_trading import _layout as at
from otel_trading.forensics import page, report
from otel_trading.forensics.how_it_ended import End
from otel_trading.forensics.threads import threads


def order(state: int, ago: float = 1.0) -> tuple[Any, ...]:
    """Give an order as a table has it."""
    sent = NOW - round(ago * 1e9)
    return (1, 2, True, state, sent, sent, 1.5, float("nan"), 0.5, 50.0, "BTCUSDT", at.SIDE_SELL)


def test_everything_a_segment_tells_is_in_it() -> None:
    """Open orders and spans, the slowest and failed ones, critical events, the timeline; all of it JSON."""
    found = calm()
    found.orders = [
        ("a", order(at.ORDER_SENT)),
        ("b", order(at.ORDER_FILLED)),
        ("c", order(at.ORDER_PARTLY_FILLED, 0.5)),
    ]
    found.open_spans = [span("session", 20.0, open=True)]
    found.spans += [
        span("slow", 1.0, 0.7),
        span("bad", 0.5, error=True, exception="TimeoutError", attributes={"b": b"1"}),
    ]
    document = report.document(found, KILLED, last=30.0)
    assert json.loads(json.dumps(document, allow_nan=False)) == json.loads(json.dumps(document))
    assert document["schema"] == "otel-trading.forensics/1"
    assert [one["order_id"] for one in document["open_orders"]] == ["c", "a"]
    assert document["open_orders"][0]["price"] is None
    assert document["open_orders"][0]["side"] == "sell"
    assert document["open_spans"][0]["seconds"] == 20.0
    assert document["open_spans"][0]["open"]
    assert document["slowest"][0]["name"] == "slow"
    assert [one["exception"] for one in document["errors"]] == ["TimeoutError"]
    assert document["errors"][0]["attributes"] == {"b": "1 bytes"}
    assert len(document["critical_events"]) == 100
    assert len(document["timeline"]) == 31
    assert document["counts"] == {"critical_events": 101, "open_spans": 1, "open_orders": 2, "spans": 303, "errors": 1}
    assert "2 orders that are still open" in document["recommendations"][0]


def test_only_the_last_seconds_are_told() -> None:
    """``last`` bounds spans, pulses and orders."""
    document = report.document(calm(), KILLED, last=5.0)
    assert document["counts"]["spans"] == 51
    assert len(document["timeline"]) == 6
    assert all(row["ago_s"] >= -5 for row in document["order_flow"]["by_second"])


@pytest.mark.parametrize(
    ("states", "pattern"),
    [
        ([], "none"),
        ([(n / 10, at.ORDER_SENT if n % 2 else at.ORDER_ACKED) for n in range(100)], "steady"),
        ([(n / 10, at.ORDER_SENT if n % 2 else at.ORDER_REJECTED) for n in range(100)], "rejected"),
        ([(8 + n / 100, at.ORDER_SENT if n % 2 else at.ORDER_ACKED) for n in range(100)], "stopped"),
        ([(n / 10, at.ORDER_SENT) for n in range(100)], "unanswered"),
        ([((n / 10) ** 3 / 100, at.ORDER_SENT if n % 2 else at.ORDER_ACKED) for n in range(100)], "rising"),
        ([(9 - (n / 10) ** 2 / 11, at.ORDER_SENT if n % 2 else at.ORDER_ACKED) for n in range(100)], "falling"),
    ],
)
def test_order_flow(states: list[tuple[float, int]], pattern: str) -> None:
    """Orders are counted by the second, and a word says how they went."""
    found = calm()
    found.vitals = sorted((vital(ago, state) for ago, state in states), key=lambda one: one["unix_ns"])
    flow = report.document(found, KILLED)["order_flow"]
    assert flow["pattern"] == pattern
    assert sum(row["sent"] for row in flow["by_second"]) == sum(state == at.ORDER_SENT for _, state in states)


def test_trends_have_directions() -> None:
    """Memory that rises, CPU that does not."""
    told = report.document(calm(resident=lambda ago: 1e9 - ago * 1e6), KILLED)["trends"]
    assert told["memory"]["direction"] == "rising"
    assert told["memory"]["slope_per_s"] == pytest.approx(1e6)
    assert told["cpu"]["direction"] == "steady"


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (
            KILLED,
            ["killed by SIGKILL", "LIKELY CAUSE  killed, confidence 70%", "WHAT TO DO", "BEFORE THE END", "SLOWEST"],
        ),
        (by_exit(1, "KeyError"), ["uncaught KeyError, exit code 1", "uncaught_exception"]),
        (by_signal(9, "the kernel says so"), ["for want of memory", "the kernel says so", "oom_kill"]),
        (End("gone", pid=7), ["gone without a word", "CAUSE UNKNOWN"]),
        (LIVES, ["is alive", "NOTHING WRONG IS SEEN"]),
    ],
)
def test_the_page(end: End, words: list[str]) -> None:
    """How it ended and why come first, in words; tables fit a terminal."""
    found = calm()
    found.alive = end.kind == "alive"
    found.pid = os.getpid()
    lines = page.lines(report.document(found, end))
    text = "\n".join(lines)
    assert [word for word in words if word not in text] == []
    assert lines[0].startswith(f"bot, pid {os.getpid()}: ")
    assert ("THREADS" in lines) is found.alive
    tables = lines[lines.index("BEFORE THE END") :]
    assert max(map(len, tables)) <= 118


def test_an_empty_segment_has_a_page() -> None:
    """With nothing in it there still is how it ended."""
    found = calm()
    found.vitals = found.pulses = found.spans = found.markets = []
    found.damage = ["the header can not be read"]
    lines = page.lines(report.document(found, KILLED))
    assert "DAMAGE" in lines
    assert not {"BEFORE THE END", "ORDERS", "SLOWEST"} & set(lines)


def test_less_likely_causes_are_named() -> None:
    """What else was found stands below the cause."""
    lines = page.lines(report.document(silent(calm(resident=lambda ago: 60e6 + (60 - ago) * 4e5), 8.0), KILLED))
    assert any(line.startswith("  less likely: memory_leak") for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0000005, "0.5 µs"),
        (0.0123, "12.3 ms"),
        (1.5, "1.5 s"),
        (119.0, "119 s"),
        (180.0, "3.0 min"),
        (90_000.0, "1.0 d"),
    ],
)
def test_durations(value: float, text: str) -> None:
    """Durations have the unit that they are read in."""
    assert page.seconds(value) == text


def test_threads_of_a_process() -> None:
    """This process has a thread that runs; one that is not there has none."""
    assert {one["thread"]: one["state"] for one in threads(os.getpid())}[os.getpid()] == "running"
    assert threads(2**31 - 1) == []


def test_what_would_have_told_more() -> None:
    """An unknown cause says what to switch on, and only what is not on already."""
    found = calm()
    told = "\n".join(report.document(found, End("gone", pid=7))["recommendations"])
    assert [word for word in ("OTEL_TRADING_HOST=agent", "ot.heartbeat()", "ot.queue(gauge)") if word not in told] == []
    found.life = {"beats": [{"name": "main", "late_ns": 1}], "queue": "queue.size"}
    assert report.document(silent(found, 1.0), End("gone", pid=7))["recommendations"] == [
        "run it under the agent (OTEL_TRADING_HOST=agent), which asks the kernel how processes end"
    ]
