"""Orders: what is recorded of them, how they are found again, and what becomes of odd events and values."""

from __future__ import annotations

import math
import threading
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import order_values, orders
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Record, Recorder

ERROR = 2
UNSAMPLED = 2
REMOTE_PARENT = 1
P0 = 0
SENT, ACKED, PARTLY_FILLED, FILLED, CANCELLED, REJECTED = range(1, 7)
EVENTS = ("order.ack", "order.reject", "order.fill", "order.cancel")

PROBE = ot.probe("orders.decision")
OTHER = ot.probe("orders.other")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Hold no handles from one test to the next."""
    yield
    orders._shared.open.clear()


def new_id() -> str:
    """Give an id that no other test has."""
    return f"t-{uuid.uuid4().hex[:12]}"


def events(records: list[Record]) -> list[tuple[str, object]]:
    """Give name and anomaly of each event, in the order of recording."""
    return [(r.name, r.attributes.get("trading.order.anomaly")) for r in records if r.name in EVENTS]


# ---- sending --------------------------------------------------------------------------------------


def test_sending(recorder: Recorder) -> None:
    """An order that is sent is a P0 span with what it is, a child of the current span."""
    order_id = new_id()
    with PROBE as decision:
        order = ot.order(order_id, symbol="BTCUSDT", side="buy", qty=1.5, price=64_000.5)
    record = recorder.only("order.submit")
    assert (record.tier, record.trace_id, record.parent_id) == (P0, decision.trace_id, decision.span_id)
    assert record.attributes == {
        "trading.order.id": order_id,
        "trading.symbol": "BTCUSDT",
        "trading.order.side": "buy",
        "trading.order.quantity": 1.5,
        "trading.order.price": 64_000.5,
    }
    assert (order.order_id, order.state, order.known, order.open, order.filled) == (order_id, "sent", True, True, 0.0)
    assert order_id in repr(order)
    assert recorder.faults == 0


def test_an_order_at_market(recorder: Recorder) -> None:
    """What is not given is not recorded, and an order without a price is one at market."""
    order_id = new_id()
    ot.order(order_id, symbol="ETHUSDT", qty=2)
    assert recorder.only("order.submit").attributes == {
        "trading.order.id": order_id,
        "trading.symbol": "ETHUSDT",
        "trading.order.quantity": 2.0,
    }
    state = core.order_get(order_id)
    assert state is not None
    assert math.isnan(state[7])
    assert state[10:] == ("ETHUSDT", 0)


def test_the_table_has_the_order(recorder: Recorder) -> None:
    """Another process that attaches finds the order in the segment, with the trace that sent it."""
    order_id = new_id()
    with PROBE as decision:
        ot.order(order_id, symbol="BTCUSDT", side="sell", qty=1, price=2)
    state = recorder.segment.reader.order(order_id)
    assert state is not None
    assert state[:4] == (decision.trace_id, decision.span_id, True, SENT)
    assert state[4] == state[5]
    assert state[6:] == (1.0, 2.0, 0.0, 0.0, "BTCUSDT", 2)
    assert recorder.segment.reader.order("another") is None
    assert core.orders_open() == 1


def test_sending_an_id_again(recorder: Recorder) -> None:
    """The second sending of an open order's id is marked, and takes the first one's place."""
    order_id = new_id()
    ot.order(order_id, symbol="A", qty=1)
    with PROBE as decision:
        again = ot.order(order_id, symbol="A", qty=1)
    assert [r.attributes.get("trading.order.anomaly") for r in recorder.named("order.submit")] == [None, "repeated"]
    assert ot.order(order_id) is again
    again.ack()
    assert recorder.only("order.ack").trace_id == decision.trace_id


def test_an_unsampled_order(recorder: Recorder) -> None:
    """Orders of a trace that is not taken are recorded as such, wherever they are found."""
    order_id = new_id()
    with ot.extract({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}):
        ot.order(order_id, symbol="A", qty=1).ack()
    orders._shared.open.clear()
    ot.order(order_id).cancel()
    assert all(record.flags & UNSAMPLED for record in recorder.records())


# ---- what becomes of it ---------------------------------------------------------------------------


def test_events_are_children_of_what_sent_the_order(recorder: Recorder) -> None:
    """An event lasts from the sending to now and belongs to the span that was current then, not to the one now."""
    with PROBE as decision:
        order = ot.order(new_id(), symbol="BTCUSDT", qty=2, price=10)
    with OTHER:
        order.ack()
        order.fill(10, 1)
        order.cancel()
    records = {record.name: record for record in recorder.records()}
    sent = core.order_get(order.order_id)
    assert sent is not None
    for name in ("order.ack", "order.fill", "order.cancel"):
        record = records[name]
        assert (record.trace_id, record.parent_id) == (decision.trace_id, decision.span_id)
        assert (record.tier, record.status, record.start) == (P0, 0, sent[4])
        assert record.end >= record.start
        assert not record.flags & REMOTE_PARENT
        assert record.attributes["trading.symbol"] == "BTCUSDT"
    assert records["order.fill"].attributes["trading.order.fill_price"] == 10.0
    assert records["order.fill"].attributes["trading.order.fill_quantity"] == 1.0


def test_events_of_an_order_without_a_parent(recorder: Recorder) -> None:
    """Where nothing was current, the events are children of the sending's own span."""
    order = ot.order(new_id(), symbol="BTCUSDT", qty=2)
    order.ack()
    submit, ack = recorder.records()
    assert submit.parent_id == 0
    assert (ack.trace_id, ack.parent_id) == (submit.trace_id, submit.span_id)


def test_an_order_below_a_remote_parent(recorder: Recorder) -> None:
    """An order that a remote parent is current for is that one's child, and so are its events."""
    with ot.extract({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=1"}):
        order = ot.order(new_id(), symbol="A", qty=1)
    order.ack()
    for record in recorder.records():
        assert (record.parent_id, record.tracestate) == (0x00F067AA0BA902B7, "a=1")
        assert record.flags & REMOTE_PARENT


def test_the_latency_of_acks(recorder: Recorder, until: Callable[..., None]) -> None:
    """The statistics of ``order.ack`` are those of the time from sending to ack."""
    import time

    order = ot.order(new_id(), symbol="A", qty=1)
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 0.02)
    order.ack()
    stats = ot.stats()["order.ack"]
    assert stats["count"] == 1
    assert stats["p50_ns"] >= 19e6
    assert recorder.faults == 0


def test_a_reject(recorder: Recorder) -> None:
    """A reject is an error, with its reason."""
    order = ot.order(new_id(), symbol="A", qty=1)
    order.reject("insufficient margin")
    record = recorder.only("order.reject")
    assert record.status == ERROR
    assert record.attributes["trading.order.reject_reason"] == "insufficient margin"
    assert (order.state, order.open) == ("rejected", False)
    other = ot.order(new_id(), symbol="A", qty=1)
    other.reject()
    assert "trading.order.reject_reason" not in recorder.only("order.reject").attributes


def test_fills_add_up(recorder: Recorder) -> None:
    """The order is filled when the parts come up to its quantity, though the parts are floats."""
    order = ot.order(new_id(), symbol="A", qty=1, price=10)
    for _ in range(9):
        order.fill(10.0, 0.1)
        assert order.state == "partly_filled"
    order.fill(20.0, 0.1)
    assert order.state == "filled"
    state = core.order_get(order.order_id)
    assert state is not None
    assert state[3] == FILLED
    assert state[8] == pytest.approx(1.0)
    assert state[9] == pytest.approx(11.0)
    assert len(recorder.named("order.fill")) == 10
    assert core.orders_open() == 0


def test_a_fill_of_an_order_without_a_quantity(recorder: Recorder) -> None:
    """Where nobody said how much was ordered, no fill is the last one."""
    order = ot.order(new_id(), symbol="A")
    order.fill(1, 1)
    assert order.state == "partly_filled"
    assert recorder.faults == 0


HALF, WHOLE = (10.0, 0.5), (10.0, 1.0)


@pytest.mark.parametrize(
    ("calls", "state", "anomalies"),
    [
        (["ack"], "acked", [None]),
        (["ack", "ack"], "acked", [None, "repeated"]),
        (["fill", "ack"], "partly_filled", [None, "late"]),
        (["fill", "fill"], "filled", [None, None]),
        (["fill", "fill", "fill"], "filled", [None, None, "overfilled"]),
        (["fill", "all"], "filled", [None, "overfilled"]),
        (["all", "ack"], "filled", [None, "late"]),
        (["all", "cancel"], "filled", [None, "late"]),
        (["ack", "cancel", "cancel"], "cancelled", [None, None, "repeated"]),
        (["cancel", "fill"], "cancelled", [None, "late"]),
        (["cancel", "reject"], "cancelled", [None, "late"]),
        (["reject", "ack", "reject"], "rejected", [None, "late", "repeated"]),
        (["fill", "cancel"], "cancelled", [None, None]),
    ],
)
def test_states(recorder: Recorder, calls: list[str], state: str, anomalies: list[str | None]) -> None:
    """What does not fit the state is recorded and marked; the state stays."""
    order = ot.order(new_id(), symbol="A", qty=1.0)
    for call in calls:
        happen(order, call)
    assert order.state == state
    assert [anomaly for _, anomaly in events(recorder.records())] == anomalies
    assert recorder.faults == 0


def happen(order: ot.Order, call: str) -> None:
    """Have one thing happen to an order of quantity 1."""
    if call in ("fill", "all"):
        order.fill(*(HALF if call == "fill" else WHOLE))
    else:
        getattr(order, call)()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["ack", "fill", "all", "cancel", "reject"]), max_size=8), st.data())
def test_any_sequence_of_events(recorder: Recorder, calls: list[str], data: st.DataObject) -> None:
    """Whatever comes, by whatever handle: nothing raises, each event is one record, and an end stays the end."""
    recorder.records()  # of an example that was given up in the middle
    order_id = new_id()
    order = ot.order(order_id, symbol="A", qty=1.0)
    ended = ""
    for call in calls:
        if data.draw(st.booleans()):
            orders._shared.open.clear()
        order = ot.order(order_id) if data.draw(st.booleans()) else order
        happen(order, call)
        assert not ended or order.state == ended
        ended = ended if order.open else order.state
        state = core.order_get(order_id)
        assert state is not None
        assert orders._STATES[state[3]] == order.state
    assert len(events(recorder.records())) == len(calls)
    assert recorder.faults == 0


def test_many_threads_and_one_order(recorder: Recorder) -> None:
    """Fills that several threads report at once are all counted."""
    order = ot.order(new_id(), symbol="A", qty=1000)

    def fill() -> None:
        for _ in range(50):
            order.fill(1.0, 1.0)

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order.filled == 200.0
    state = core.order_get(order.order_id)
    assert state is not None
    assert state[8] == 200.0
    assert len(recorder.named("order.fill")) == 200


# ---- found again ----------------------------------------------------------------------------------


def test_found_by_its_id(recorder: Recorder) -> None:
    """While the order is open there is one handle of it, whoever asks."""
    order_id = new_id()
    order = ot.order(order_id, symbol="A", qty=1)
    assert ot.order(order_id) is order
    assert recorder.faults == 0


def test_found_in_the_table(recorder: Recorder) -> None:
    """An order that has ended, or whose handle is gone, is found in the table."""
    order_id = new_id()
    with PROBE as decision:
        ot.order(order_id, symbol="A", side="buy", qty=1).fill(1.0, 1.0)
    order = ot.order(order_id)
    assert (order.state, order.known, order.filled) == ("filled", True, 1.0)
    order.cancel()
    record = recorder.only("order.cancel")
    assert (record.trace_id, record.parent_id) == (decision.trace_id, decision.span_id)
    assert record.attributes == {
        "trading.order.id": order_id,
        "trading.symbol": "A",
        "trading.order.anomaly": "late",
    }


def test_more_orders_than_handles_are_held(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest handles are let go, and their orders are found in the table."""
    monkeypatch.setattr(orders, "_MOST", 8)
    ids = [new_id() for _ in range(20)]
    for order_id in ids:
        ot.order(order_id, symbol="A", qty=1)
    assert list(orders._shared.open) == ids[-8:]
    assert all(ot.order(order_id).known for order_id in ids)
    assert len(orders._shared.open) == 8
    assert recorder.faults == 0


def test_more_orders_than_places(make_recorder: Callable[..., Recorder]) -> None:
    """A full table forgets the oldest orders, ended ones first, and says how many were open."""
    recorder = make_recorder(orders__max=16)
    for _ in range(100):
        ot.order(new_id(), symbol="A", qty=1)
    assert core.orders_open() <= 16
    assert len(recorder.segment.reader.orders()) <= 16
    assert recorder.faults == 0


def test_an_unknown_order(recorder: Recorder) -> None:
    """Events of an order that nobody knows are in one trace of their own, whatever is current."""
    order_id = new_id()
    with PROBE as current:
        order = ot.order(order_id)
        order.ack()
        ot.order(order_id).fill(1.0, 1.0)
    ack, fill, _ = recorder.records()
    assert not order.known
    assert ot.order(order_id) is order
    assert ack.trace_id == fill.trace_id != current.trace_id
    assert (ack.parent_id, fill.parent_id) == (0, ack.span_id)
    assert core.order_get(order_id) is None
    assert unknown_orders() == 1
    assert recorder.faults == 0


def unknown_orders() -> int:
    """Give the counter's value."""
    (instrument,) = [i for i in core.snapshot()["instruments"] if i["name"] == "orders.unknown"]
    return int(instrument["value"])


def test_the_reject_of_an_unknown_order(recorder: Recorder) -> None:
    """It is an error, though a root."""
    ot.order(new_id()).reject("what order?")
    record = recorder.only("order.reject")
    assert (record.status, record.parent_id) == (ERROR, 0)


def test_an_unknown_order_becomes_known(recorder: Recorder) -> None:
    """What is sent after it was looked for in vain is found."""
    order_id = new_id()
    assert not ot.order(order_id).known
    sent = ot.order(order_id, symbol="A", qty=1)
    assert ot.order(order_id) is sent
    assert recorder.faults == 0


# ---- without a recorder ---------------------------------------------------------------------------


def test_without_a_recorder() -> None:
    """Before configure everything works, does nothing, and nothing is held."""
    order = ot.order("nowhere", symbol="A", qty=1)
    order.ack()
    ot.order("nowhere").fill(1, 1)
    assert not orders._shared.open.get("nowhere", order).open or order.state == "acked"
    assert core.order_get("nowhere") is None


def test_while_recording_is_off(recorder: Recorder) -> None:
    """With the switch off nothing is recorded; an order that was sent then begins a trace with its first event."""
    order_id = new_id()
    ot.enable(False)
    with PROBE:
        order = ot.order(order_id, symbol="A", qty=1)
    ot.enable(True)
    with OTHER as other:
        order.ack()
    assert [r.name for r in recorder.records()] == ["order.ack", "orders.other"]
    assert order._parent is not None
    assert order._parent.trace_id != other.trace_id


# ---- ids and values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_id", "shown"),
    [
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 65),
        ("ü" * 33, "ü" * 33),
        ("주문-1", "주문-1"),
        (b"bytes-1", "bytes-1"),
        (12345678901234567890, "12345678901234567890"),
        (uuid.UUID(int=7), str(uuid.UUID(int=7))),
    ],
)
def test_ids(recorder: Recorder, given_id: Any, shown: str) -> None:
    """Long ids, ids in any alphabet, and numbers find their order; the span has them as they are."""
    order = ot.order(given_id, symbol="A", qty=1)
    order.ack()
    orders._shared.open.clear()
    assert ot.order(given_id).state == "acked"
    assert order.order_id == shown
    assert recorder.only("order.submit").attributes["trading.order.id"] == shown
    assert recorder.faults == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(min_size=1))
def test_any_text_is_an_id(recorder: Recorder, text: str) -> None:
    """Every text finds its own order, and no other's."""
    mark = new_id()
    ot.order(text, symbol=mark, qty=1)
    orders._shared.open.clear()
    assert ot.order(text).order_id == text
    found = core.order_get(order_values.key_of(text)[0])
    assert found is not None
    assert found[10] in (mark, "other")  # the name table of a test is small
    assert recorder.faults == 0


def test_a_surrogate_in_an_id(recorder: Recorder) -> None:
    """Text that is no UTF-8 is an id as any other."""
    ot.order("\ud800", symbol="A", qty=1)
    orders._shared.open.clear()
    assert ot.order("\ud800").known
    assert recorder.faults == 0


@pytest.mark.parametrize("wrong", [None, "", b"", True, 1.5])
def test_what_is_no_id(recorder: Recorder, wrong: Any) -> None:
    """It is a fault; the spans are recorded, and nobody finds the order."""
    order = ot.order(wrong, symbol="A", qty=1)
    order.ack()
    assert [record.name for record in recorder.records()] == ["order.submit", "order.ack"]
    assert recorder.segment.reader.orders() == []
    assert not ot.order(wrong).known
    recorder.faults_expected = 2


class Odd:
    """What nothing can be made of."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __float__(self) -> float:
        raise RuntimeError("no number")


@pytest.mark.parametrize(
    "values",
    [
        {"symbol": 5},
        {"symbol": Odd()},
        {"symbol": "A", "side": "long"},
        {"symbol": "A", "side": []},
        {"symbol": "A", "qty": "much"},
        {"symbol": "A", "qty": -1},
        {"symbol": "A", "qty": 0},
        {"symbol": "A", "qty": math.nan},
        {"symbol": "A", "qty": True},
        {"symbol": "A", "price": math.inf},
        {"symbol": "A", "price": Odd()},
    ],
    ids=lambda values: str([type(value).__name__ for value in values.values()]),
)
def test_wrong_values(recorder: Recorder, values: dict[str, Any]) -> None:
    """A wrong value is a fault and is left out; the order is recorded."""
    order_id = new_id()
    ot.order(order_id, **values)
    attributes = {"trading.order.id": order_id}
    if values["symbol"] == "A":
        attributes["trading.symbol"] = "A"
    assert recorder.only("order.submit").attributes == attributes
    recorder.faults_expected = 1


def test_wrong_values_of_events(recorder: Recorder) -> None:
    """The events are recorded without them."""
    order = ot.order(new_id(), symbol="A", qty=1)
    order.fill(Odd(), None)  # type: ignore[arg-type]
    order.reject(Odd())  # type: ignore[arg-type]
    fill, reject = recorder.records()[1:]
    assert set(fill.attributes) == set(reject.attributes) == {"trading.order.id", "trading.symbol"}
    recorder.faults_expected = 3


@pytest.mark.parametrize("number", [Decimal("0.5"), "0.5", 0.5])
def test_numbers_as_programs_have_them(recorder: Recorder, number: Any) -> None:
    """Decimals and the text that exchanges send are numbers too."""
    order = ot.order(new_id(), symbol="A", side="SELL", qty=number, price=number)
    order.fill(number, number)
    attributes = recorder.only("order.submit").attributes
    assert attributes["trading.order.quantity"] == attributes["trading.order.price"] == 0.5
    assert attributes["trading.order.side"] == "sell"
    assert order.state == "filled"


def test_a_price_below_zero(recorder: Recorder) -> None:
    """Spreads, and oil in April 2020."""
    ot.order(new_id(), symbol="CL", side="buy", qty=1, price=-37.63)
    assert recorder.only("order.submit").attributes["trading.order.price"] == -37.63


def test_a_latency_objective_of_the_program(run_python: Callable[..., Any]) -> None:
    """A program that defines one of the probes first gives it its SLA."""
    run_python(
        "import time\n"
        "import otel_trading as ot\n"
        "ot.probe('order.ack', tier=ot.P0, sla='1us')\n"
        "ot.configure('bot')\n"
        "order = ot.order('a', symbol='A', qty=1)\n"
        "time.sleep(0.001)\n"
        "order.ack()\n"
        "assert ot.stats()['order.ack']['sla_breaches'] == 1\n"
        "from otel_trading._backend import core\n"
        "assert core.snapshot()['segment']['faults'] == 0\n"
        "ot.shutdown()\n"
    )


def slippage(side: str) -> tuple[int, float]:
    """Give how many fills of one side had a slippage, and its sum in basis points."""
    attributes = f'{{"trading.order.side":"{side}"}}'
    for one in core.snapshot()["instruments"]:
        if (one["name"], one["attributes"]) == ("trading.order.slippage", attributes):
            assert (one["unit"], one["tier"]) == ("{bp}", 1)
            return one["total"][1], one["total"][2]
    return 0, 0.0


def test_slippage(recorder: Recorder) -> None:
    """Each fill of an order with a side and a price says how much worse it was, in basis points of that price."""
    buy = ot.order("slips-1", symbol="A", side="buy", qty=3, price=200.0)
    buy.fill(201.0, 1)
    buy.fill(199.0, 1)
    buy.fill(200.0, 1)
    assert slippage("buy") == (3, pytest.approx(0.0, abs=1e-9))
    sell = ot.order("slips-2", symbol="A", side="sell", qty=2, price=-100.0)
    sell.fill("-101", "1")
    assert slippage("sell") == (1, pytest.approx(100.0))
    for fields in ({"side": "sell"}, {"price": 1.0}, {"side": "buy", "price": 0.0}):
        ot.order(f"slips-{fields}", symbol="A", qty=2, **fields).fill(5.0, 1)  # type: ignore[arg-type]
    assert (slippage("buy")[0], slippage("sell")[0]) == (3, 1)
    assert recorder.faults == 0


def test_slippage_is_no_p0(recorder: Recorder) -> None:
    """In EMERGENCY fills are recorded and their slippage is not."""
    order = ot.order("slips-3", symbol="A", side="buy", qty=3, price=200.0)
    ot.set_mode("EMERGENCY")
    order.fill(201.0, 1)
    assert slippage("buy")[0] == 0
    assert len(recorder.named("order.fill")) == 1
