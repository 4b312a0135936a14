"""Critical events: each change of an order, and what the program calls critical, with the state of the process."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]

PROBE = ot.probe("vitals.probe")
QUEUE = ot.gauge("vitals.queue")
NOW = 1_700_000_000_000_000_000


def put(key: str, state: int, changed_ns: int = NOW, sent_ns: int = NOW) -> None:
    """Put an order."""
    core.order_put(key, 0xABC << 64 | 0xDEF, 2, True, state, sent_ns, changed_ns, 1.0, 2.0, 0.0, 0.0, "BTCUSDT", 1)


def critical(name: str = "event", key: str = "", kind: int = at.VITAL_CRITICAL, state: int = 0) -> None:
    """Note a critical event."""
    core.critical(name, key, kind, state, math.nan)


def vitals(recorder: Recorder, limit: int = at.VITALS) -> list[dict[str, Any]]:
    """Read the newest."""
    return recorder.segment.reader.vitals(limit)


def test_each_change_of_an_order(recorder: Recorder) -> None:
    """Every put is an event, with the order's symbol, trace, time, and how long ago it was sent."""
    states = [at.ORDER_SENT, at.ORDER_ACKED, at.ORDER_PARTLY_FILLED, at.ORDER_PARTLY_FILLED, at.ORDER_FILLED]
    for number, state in enumerate(states):
        put("order-1", state, NOW + number * 1_000_000)
    events = vitals(recorder)
    assert [event["state"] for event in events] == states
    assert [event["unix_ns"] for event in events] == [NOW + number * 1_000_000 for number in range(5)]
    assert [event["active_orders"] for event in events] == [1, 1, 1, 1, 0]
    assert events[0]["latency"] is None
    assert [event["latency"] for event in events[1:]] == pytest.approx([0.001, 0.002, 0.003, 0.004])
    for event in events:
        assert (event["kind"], event["key"], event["name"]) == (at.VITAL_ORDER, "order-1", "BTCUSDT")
        assert event["trace_id"] == 0xABC << 64 | 0xDEF


def test_all_that_can_become_of_an_order(recorder: Recorder) -> None:
    """A reject and a cancel are events too, and end the order."""
    put("order-1", at.ORDER_SENT)
    put("order-2", at.ORDER_SENT)
    put("order-1", at.ORDER_REJECTED)
    put("order-2", at.ORDER_CANCELLED)
    assert [(event["state"], event["active_orders"]) for event in vitals(recorder)] == [
        (at.ORDER_SENT, 1),
        (at.ORDER_SENT, 2),
        (at.ORDER_REJECTED, 1),
        (at.ORDER_CANCELLED, 0),
    ]
    life = recorder.segment.reader.life()
    assert (life["vitals"], life["open_orders"]) == (4, 0)


def test_a_clock_that_goes_back(recorder: Recorder) -> None:
    """A change before the sending is one at the same time."""
    put("order", at.ORDER_SENT)
    put("order", at.ORDER_ACKED, NOW - 5)
    assert vitals(recorder)[1]["latency"] == 0.0


def test_orders_of_the_public_interface(recorder: Recorder) -> None:
    """What a program calls gives the events, in the order's own trace."""
    sent = ot.order("order-1", symbol="BTCUSDT", side="buy", qty=2.0, price=10.0)
    sent.ack()
    sent.fill(10.0, 1.0)
    sent.fill(10.0, 1.0)
    ot.order("order-2", symbol="ETHUSDT", side="sell", qty=1.0).reject("no")
    events = vitals(recorder)
    assert [event["state"] for event in events] == [1, 2, 3, 4, 1, 6]
    assert len({event["trace_id"] for event in events[:4]}) == 1
    assert all(event["latency"] >= 0 for event in events if event["state"] != at.ORDER_SENT)


def test_what_the_program_calls_critical(recorder: Recorder) -> None:
    """Name, key, kind, state, latency and the current trace come back."""
    before = time.time_ns()
    with PROBE:
        core.critical("position_limit", "order-7", at.VITAL_RISK, at.ORDER_ACKED, 0.25)
        trace = ot.current_trace_id() or ""
    critical("halt")
    first, second = vitals(recorder)
    assert (first["name"], first["key"], first["kind"], first["state"], first["latency"]) == (
        "position_limit",
        "order-7",
        at.VITAL_RISK,
        at.ORDER_ACKED,
        0.25,
    )
    assert first["trace_id"] == int(trace, 16)
    assert (second["name"], second["key"], second["latency"], second["trace_id"]) == ("halt", "", None, 0)
    assert before - 10_000_000 <= first["unix_ns"] <= second["unix_ns"] <= time.time_ns() + 10_000_000


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 40),
        ("x" * 39 + "\u00e4", "x" * 39),
        ("\U0001f680" * 16, "\U0001f680" * 10),
        ("x" + "\U0001f680" * 15, "x" + "\U0001f680" * 9),
        ("a\0b", "a\0b"),
    ],
)
def test_long_keys_are_cut(recorder: Recorder, key: str, kept: str) -> None:
    """40 bytes are kept, whole characters only, of orders as of other events."""
    put(key, at.ORDER_SENT)
    critical(key=key)
    assert [event["key"] for event in vitals(recorder)] == [kept, kept]


def test_any_key(recorder: Recorder) -> None:
    """What is kept is a beginning of what was given, as long as fits."""

    @settings(max_examples=50)
    @given(st.text(max_size=60))
    def check(key: str) -> None:
        critical(key=key)
        kept = vitals(recorder, 1)[0]["key"]
        assert key.startswith(kept)
        assert kept == key or 36 < len(kept.encode()) <= 40 < len(key.encode())

    check()


def test_lone_surrogates(recorder: Recorder) -> None:
    """A key that UTF-8 can not hold loses those characters, nothing else."""
    critical(key="a\ud800b")
    assert vitals(recorder)[0]["key"] == "a?b"


@pytest.mark.parametrize(
    "arguments",
    [
        ("event", "", 0, 0, 0.0),
        ("event", "", 4, 0, 0.0),
        ("event", "", -1, 0, 0.0),
        ("event", "", 3, 7, 0.0),
        ("event", "", 3, -1, 0.0),
    ],
)
def test_kinds_and_states_that_are_none(recorder: Recorder, arguments: tuple[Any, ...]) -> None:
    """They are a ValueError, and nothing is noted."""
    with pytest.raises(ValueError, match="kind"):
        core.critical(*arguments)
    assert vitals(recorder) == []


@pytest.mark.parametrize("arguments", [(1, "", 3, 0, 0.0), ("event", b"", 3, 0, 0.0), ("event", "", 3, 0, "x")])
def test_wrong_types(recorder: Recorder, arguments: tuple[Any, ...]) -> None:
    """They are a TypeError, and nothing is noted."""
    with pytest.raises(TypeError):
        core.critical(*arguments)
    assert vitals(recorder) == []


def test_without_a_segment() -> None:
    """Nothing happens."""
    assert not core.is_open()
    critical()
    put("order", at.ORDER_SENT)


def test_while_nothing_is_recorded(recorder: Recorder) -> None:
    """Switched off, no event is written; orders are still counted."""
    ot.enable(False)
    critical()
    put("order", at.ORDER_SENT)
    assert vitals(recorder) == []
    assert core.orders_open() == 1
    ot.enable(True)
    critical()
    assert len(vitals(recorder)) == 1


def test_the_queue(recorder: Recorder) -> None:
    """The queue is what the gauge that was named says; before it is set it is not known."""
    core.queue_gauge(QUEUE)
    try:
        critical()
        QUEUE.set(12_000)
        critical()
        assert [event["queue"] for event in vitals(recorder)] == [None, 12_000.0]
        assert recorder.segment.reader.life()["queue"] == "vitals.queue"
    finally:
        core.queue_gauge(None)
    critical()
    assert vitals(recorder, 1)[0]["queue"] != 12_000.0
    assert recorder.segment.reader.life()["queue"] != "vitals.queue"


def test_the_queue_that_is_named_before_there_is_a_segment(make_recorder: Callable[..., Recorder]) -> None:
    """It holds for each segment that is opened later."""
    core.queue_gauge(QUEUE)
    try:
        for _ in range(2):
            recorder = make_recorder()
            QUEUE.set(3)
            critical()
            assert vitals(recorder)[0]["queue"] == 3.0
            recorder.segment.close()
            ot.shutdown(1.0)
            recorder = make_recorder()
    finally:
        core.queue_gauge(None)


@pytest.mark.parametrize("name", ["queue.size", "queue.depth"])
def test_a_gauge_with_a_usual_name_is_the_queue(run_python: Run, name: str) -> None:
    """Where the program names none, the first gauge that is called so is the queue, made before or after."""
    for order in (("configure()", "gauge()"), ("gauge()", "configure()")):
        run_python(
            f"""
import os, math, otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
gauges = []
def configure(): ot.configure("usual")
def gauge(): gauges.append(ot.gauge({name!r}))
{order[0]}
{order[1]}
gauges[0].set(5)
core.critical("event", "", 3, 0, math.nan)
fd = os.open(lifecycle._host.path, os.O_RDONLY)
reader = core.Reader(fd)
assert reader.life()["queue"] == {name!r}, reader.life()
assert reader.vitals()[0]["queue"] == 5.0
other = ot.gauge("mine")
core.queue_gauge(other)
assert reader.life()["queue"] == "mine"
core.queue_gauge(None)
assert reader.life()["queue"] == {name!r}
"""
        )


def test_what_is_no_gauge_is_no_queue(recorder: Recorder) -> None:
    """A TypeError, and the queue stays what it was."""
    critical()
    before = recorder.segment.reader.life()["queue"]
    for wrong in (ot.counter("vitals.counter"), 1, "queue"):
        with pytest.raises(TypeError):
            core.queue_gauge(wrong)  # type: ignore[arg-type]
    assert recorder.segment.reader.life()["queue"] == before


def test_the_age_of_the_market_data(recorder: Recorder) -> None:
    """It is that of the newest update of any symbol; None without any."""
    critical()
    ot.market_data("BTCUSDT", None, 100.0)
    (market,) = recorder.segment.reader.markets()
    ot.market_data("ETHUSDT", None, 100.0)
    newest = max(market["received_ns"] for market in recorder.segment.reader.markets())
    put("order", at.ORDER_SENT, newest + 7_500_000_000)
    put("order", at.ORDER_ACKED, newest - 1_000_000)
    put("order", at.ORDER_FILLED, newest + (1 << 32) * 1_000_000)
    assert [event["market_age_ms"] for event in vitals(recorder)] == [None, 7500, 0, 0xFFFFFFFE]
    assert market["symbol"] == "BTCUSDT"


def test_the_newest_are_kept(recorder: Recorder) -> None:
    """1,024 of them, oldest first; fewer where fewer are asked for."""
    for number in range(at.VITALS + 100):
        critical(key=str(number))
    events = vitals(recorder)
    assert [event["key"] for event in events] == [str(number) for number in range(100, at.VITALS + 100)]
    assert vitals(recorder, 7) == events[-7:]
    assert vitals(recorder, 10**9) == events
    assert vitals(recorder, 0) == vitals(recorder, -1) == []
    assert recorder.segment.reader.life()["vitals"] == at.VITALS + 100


def test_names_beyond_the_tables_room(run_python: Run) -> None:
    """Without room for its name an event is noted as "other"."""
    run_python(
        """
import math, os
import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core

ot.configure("names", config={"names.max": 256})
for number in range(400):
    core.critical(f"event-{number}", "", 3, 0, math.nan)
reader = core.Reader(os.open(lifecycle._host.path, os.O_RDONLY))
events = reader.vitals(1024)
assert (len(events), events[0]["name"], events[-1]["name"]) == (400, "event-0", "other")
"""
    )


def test_readers_see_whole_events(recorder: Recorder) -> None:
    """While events are written all the time, a reader gets each whole or not at all."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            core.order_put(str(number % 50), number, 2, True, 2, 0, number, 1.0, 2.0, 0.0, 0.0, "BTCUSDT", 1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = 0
        while seen < 20_000:
            for event in vitals(recorder):
                seen += 1
                number = event["trace_id"]
                assert (event["unix_ns"], event["key"]) == (number, str(number % 50))
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_childs_events_are_its_own(run_python: Run, tmp_path: Path) -> None:
    """A child's events go to a segment of its own, with its parent's queue and none of its orders."""
    run_python(
        """
import os, math, otel_trading as ot
from otel_trading._backend import core
ot.configure("forked")
queue = ot.gauge("the.queue")
core.queue_gauge(queue)
ot.order("order-1", symbol="BTCUSDT")
child = os.fork()
if child == 0:
    core.critical("child", "", 3, 0, math.nan)
    queue.set(4)
    core.critical("child", "", 3, 0, math.nan)
    os.kill(os.getpid(), 9)
os.waitpid(child, 0)
core.critical("parent", "", 3, 0, math.nan)
os.kill(os.getpid(), 9)
""",
        check=False,
    )
    told = {}
    for path in tmp_path.rglob("*.seg"):
        with path.open("rb") as file:
            reader = core.Reader(file.fileno())
        events = reader.vitals()
        told[events[-1]["name"]] = [(e["name"], e["active_orders"], e["queue"]) for e in events]
        assert reader.life()["queue"] == "the.queue"
        reader.close()
    assert told == {
        "parent": [("BTCUSDT", 1, None), ("parent", 1, None)],
        "child": [("child", 0, None), ("child", 0, 4.0)],
    }
