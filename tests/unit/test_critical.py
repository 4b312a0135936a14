"""Critical events with the state of the process, and the program's queue."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from conftest import Recorder

NAN = float("nan")


def events(recorder: Recorder, limit: int = 1024) -> list[dict[str, Any]]:
    """Give the events as a reader sees them."""
    found: list[dict[str, Any]] = recorder.segment.reader.vitals(limit)
    return found


def test_an_event_has_its_name_key_time_and_trace(recorder: Recorder) -> None:
    """What is not known of the process is None, and without a current span there is no trace."""
    before = time.time_ns()
    ot.critical("risk.limit_near", key="t-1")
    with ot.probe("work") as span:
        ot.critical("in a trace")
    first, second = events(recorder)
    assert (first["kind"], first["state"]) == (at.VITAL_CRITICAL, 0)
    assert (first["name"], first["key"], first["trace_id"]) == ("risk.limit_near", "t-1", 0)
    assert before <= first["unix_ns"] <= second["unix_ns"] <= time.time_ns()
    assert (second["name"], second["key"], second["trace_id"]) == ("in a trace", "", span.trace_id)
    assert first["active_orders"] == 0
    unknown = ("market_age_ms", "queue", "memory_load", "cpu_load", "latency")
    assert [first[key] for key in unknown] == [None] * len(unknown)


def test_orders_note_their_changes(recorder: Recorder) -> None:
    """Each with the orders that are open after it, the order's own trace, and how long ago it was sent."""
    with ot.probe("strategy") as span:
        order = ot.order("t-1", symbol="BTCUSDT", side="buy", qty=1.0, price=2.0)
    ot.order("t-2", symbol="ETHUSDT", side="buy", qty=1.0)
    order.ack()
    order.fill(2.0, 0.5)
    order.fill(2.0, 0.5)
    ot.order("t-2").reject("no money")
    found = events(recorder)
    assert [(e["key"], e["name"], e["state"], e["active_orders"]) for e in found] == [
        ("t-1", "BTCUSDT", at.ORDER_SENT, 1),
        ("t-2", "ETHUSDT", at.ORDER_SENT, 2),
        ("t-1", "BTCUSDT", at.ORDER_ACKED, 2),
        ("t-1", "BTCUSDT", at.ORDER_PARTLY_FILLED, 2),
        ("t-1", "BTCUSDT", at.ORDER_FILLED, 1),
        ("t-2", "ETHUSDT", at.ORDER_REJECTED, 0),
    ]
    assert {e["kind"] for e in found} == {at.VITAL_ORDER}
    assert found[0]["trace_id"] == found[4]["trace_id"] == span.trace_id
    assert found[0]["latency"] is None
    assert all(e["latency"] >= 0 for e in found[2:])
    assert core.orders_open() == recorder.segment.reader.life()["open_orders"] == 0


def test_a_risk_breach_is_one(recorder: Recorder) -> None:
    """By its kind, in the trace in which it was."""
    with ot.probe("strategy") as span:
        ot.risk_breach("position_limit", size=3)
    (event,) = events(recorder)
    assert (event["kind"], event["name"], event["trace_id"]) == (at.VITAL_RISK, "position_limit", span.trace_id)


def test_an_order_that_is_evicted_is_not_open_any_more(make_recorder: Any) -> None:
    """The count is of those that the table knows."""
    room = 16
    recorder = make_recorder(orders__max=room)
    for number in range(room + 3):
        ot.order(str(number), qty=1.0)
    assert core.orders_open() == room
    ot.order(str(room + 2)).cancel()
    assert core.orders_open() == recorder.segment.reader.life()["open_orders"] == room - 1


def test_events_know_the_queue_and_the_market(recorder: Recorder) -> None:
    """They have the value of the gauge, and the age of the newest update."""
    waiting = ot.gauge("test.waiting")
    ot.queue(waiting)
    ot.critical("before")
    waiting.set(7)
    ot.market_data("BTCUSDT", time.time() * 1000, 1.0)
    ot.critical("after")
    before, after = events(recorder)
    assert (before["queue"], before["market_age_ms"]) == (None, None)
    assert after["queue"] == 7.0
    assert 0 <= after["market_age_ms"] < 60_000
    assert recorder.segment.reader.life()["queue"] == "test.waiting"
    ot.queue(None)


@pytest.mark.parametrize("wrong", [5, "queue", ot.counter("test.counter")])
def test_what_is_no_gauge_is_no_queue(recorder: Recorder, wrong: Any) -> None:
    """It is a fault, and the queue stays what it was."""
    before = recorder.segment.reader.life()["queue"]
    ot.queue(wrong)
    assert recorder.segment.reader.life()["queue"] == before
    recorder.faults_expected = 1


@pytest.mark.parametrize("name", ["", None, 5])
def test_what_is_no_name_is_a_fault(recorder: Recorder, name: Any) -> None:
    """And nothing is noted."""
    ot.critical(name)
    assert events(recorder) == []
    recorder.faults_expected = 1


@pytest.mark.parametrize(("key", "text"), [(None, ""), (17, "17"), (b"raw", "raw")])
def test_keys_of_other_types(recorder: Recorder, key: Any, text: str) -> None:
    """An id that is a number or bytes is taken as its text."""
    ot.critical("x", key=key)
    assert events(recorder)[0]["key"] == text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(max_size=60), name=st.text(min_size=1, max_size=20))
def test_the_beginning_of_a_key_is_kept(recorder: Recorder, key: str, name: str) -> None:
    """Any text can be one; it is cut between two characters, after at most 40 bytes."""
    ot.critical(name, key=key)
    found = events(recorder, 1)[0]
    assert (found["key"], found["name"]) == (_cut(key), name)


def _cut(key: str) -> str:
    cut = key
    while len(cut.encode()) > at.VITAL_KEY_BYTES:
        cut = cut[:-1]
    return cut


def test_lone_surrogates(recorder: Recorder) -> None:
    """What UTF-8 can not hold is "?" each in a key, and no name."""
    ot.critical("x", key="a\ud800b")
    assert events(recorder)[0]["key"] == "a?b"


def test_the_newest_are_kept(recorder: Recorder) -> None:
    """All are counted; asking for fewer gives the newest of them, oldest first."""
    for number in range(at.VITALS + 10):
        core.critical("x", str(number), at.VITAL_RISK, 0, NAN)
    found = events(recorder)
    assert [int(e["key"]) for e in found] == list(range(10, at.VITALS + 10))
    assert [int(e["key"]) for e in events(recorder, 3)] == list(range(at.VITALS + 7, at.VITALS + 10))
    assert events(recorder, 0) == events(recorder, -1) == []
    assert recorder.segment.reader.life()["vitals"] == at.VITALS + 10


def test_nothing_is_noted_while_recording_is_off(recorder: Recorder) -> None:
    """The master switch is for these too."""
    ot.enable(False)
    ot.critical("x")
    assert events(recorder) == []
    ot.enable(True)
    ot.critical("y")
    assert [e["name"] for e in events(recorder)] == ["y"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((None, "", 3, 0, NAN), TypeError),
        (("x", None, 3, 0, NAN), TypeError),
        (("x", "", 3, 0, "soon"), TypeError),
        (("x", "", 0, 0, NAN), ValueError),
        (("x", "", 4, 0, NAN), ValueError),
        (("x", "", 1, 7, NAN), ValueError),
        (("x", "", 1, -1, NAN), ValueError),
    ],
)
def test_the_backend_takes_what_it_says(recorder: Recorder, arguments: Any, error: type[Exception]) -> None:
    """Other types and numbers are errors of the caller's."""
    with pytest.raises(error):
        core.critical(*arguments)
    assert events(recorder) == []


def test_the_tables_can_be_read(recorder: Recorder) -> None:
    """Counters, gauges and histograms, and the market data of each symbol."""
    attributes = {"venue": "gate"}
    ot.counter("test.counted", tier=ot.P0, unit="{x}", attributes=attributes).add(2)
    ot.counter("test.counted.float").add(0.5)
    ot.gauge("test.unset")
    ot.gauge("test.set").set(-1.5)
    ot.histogram("test.histogram").record(3)
    rows = {row["name"]: row for row in recorder.segment.reader.instruments()}
    assert rows["test.counted"] == {
        "name": "test.counted",
        "kind": at.INSTRUMENT_COUNTER,
        "tier": 0,
        "unit": "{x}",
        "attributes": '{"venue":"gate"}',
        "updates": 1,
        "value": 2,
    }
    values = {name: rows[f"test.{name}"]["value"] for name in ("counted.float", "unset", "set", "histogram")}
    assert values == {"counted.float": 0.5, "unset": None, "set": -1.5, "histogram": None}
    ot.market_data("BTCUSDT", 1_700_000_000_000, 5.0, 0.25)
    ot.market_data("ETHUSDT", None)
    first, second = recorder.segment.reader.markets()
    assert (first["symbol"], first["exchange_ns"], first["updates"]) == ("BTCUSDT", 1_700_000_000 * 10**9, 1)
    assert (first["price"], first["volume"], second["price"]) == (5.0, 0.25, None)
