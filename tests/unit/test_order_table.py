"""The table of orders in the segment: what is put is found, by any process, until it has to make place."""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_image import fnv

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]

ENDED = (at.ORDER_FILLED, at.ORDER_CANCELLED, at.ORDER_REJECTED)


def put(key: str, state: int = at.ORDER_SENT, changed_ns: int = 0, **changes: Any) -> tuple[Any, ...]:
    """Put an order, and give the state that it has then."""
    fields = {
        "trace_id": 1,
        "span_id": 2,
        "sampled": True,
        "state": state,
        "sent_ns": 3,
        "changed_ns": changed_ns,
        "quantity": 1.5,
        "price": 100.0,
        "filled": 0.0,
        "paid": 0.0,
        "symbol": "BTCUSDT",
        "side": at.SIDE_BUY,
        **changes,
    }
    core.order_put(key, *fields.values())
    return tuple(fields.values())


def neighbours(place: int, count: int, slots: int) -> list[str]:
    """Give keys whose own place in a table of ``slots`` is this one."""
    keys: list[str] = []
    number = 0
    while len(keys) < count:
        if fnv(b"%d" % number) % slots == place:
            keys.append(str(number))
        number += 1
    return keys


def test_what_is_put_is_found(recorder: Recorder) -> None:
    """Every field comes back as it was, in this process and in a reader."""
    trace = 0x0123456789ABCDEFFEDCBA9876543210
    state = put("order-1", trace_id=trace, span_id=2**64 - 1, sampled=False, quantity=-0.0, price=1e300, side=2)
    assert core.order_get("order-1") == recorder.segment.reader.order("order-1") == state
    assert core.order_get("order-2") is recorder.segment.reader.order("order-2") is None
    assert recorder.segment.reader.orders() == [("order-1", state)]


def test_a_market_order_has_no_price(recorder: Recorder) -> None:
    """NaN stays NaN."""
    put("market", price=math.nan)
    for state in (core.order_get("market"), recorder.segment.reader.order("market")):
        assert state is not None
        assert math.isnan(state[7])


def test_changing_an_order(recorder: Recorder) -> None:
    """A key that comes again changes its order and takes no other place."""
    for state in range(at.ORDER_SENT, at.ORDER_REJECTED + 1):
        changed = put("order", state, state, filled=float(state))
        assert core.order_get("order") == changed
        assert recorder.segment.reader.orders() == [("order", changed)]
        assert core.orders_open() == (state not in ENDED)


@pytest.mark.parametrize("key", ["", "x", "\u00e4\u00f6\u00fc", "\U0001f680" * 16, "x" * 64, "\0", "a\0b"])
def test_keys_of_all_kinds(recorder: Recorder, key: str) -> None:
    """Any text of up to 64 bytes is a key."""
    state = put(key)
    assert core.order_get(key) == recorder.segment.reader.order(key) == state
    assert recorder.segment.reader.orders() == [(key, state)]


@pytest.mark.parametrize("key", ["x" * 65, "\u00e4" * 33, "\ud800"])
@pytest.mark.usefixtures("recorder")
def test_keys_that_are_none(key: str) -> None:
    """Longer text, or such that UTF-8 cannot write, is a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011  UnicodeEncodeError is one
        put(key)
    with pytest.raises(ValueError):  # noqa: PT011
        core.order_get(key)
    assert core.orders_open() == 0


@pytest.mark.parametrize("wrong", [{"state": 0}, {"state": 7}, {"side": 3}, {"side": -1}])
@pytest.mark.usefixtures("recorder")
def test_states_that_are_none(wrong: dict[str, int]) -> None:
    """A state or a side that the format does not have is a ValueError."""
    with pytest.raises(ValueError, match="state"):
        put("order", **wrong)
    assert core.order_get("order") is None


def test_without_a_segment() -> None:
    """There are no orders, and none is kept."""
    assert not core.is_open()
    put("order")
    assert core.order_get("order") is None
    assert core.orders_open() == 0


def test_a_new_segment_has_no_orders(make_recorder: Callable[..., Recorder]) -> None:
    """What was open in an earlier segment is not in the next."""
    make_recorder()
    put("order")
    ot.shutdown(1.0)
    assert core.orders_open() == 0
    make_recorder()
    assert core.order_get("order") is None
    assert core.orders_open() == 0


def evicted(recorder: Recorder) -> int:
    """Read how many open orders had to make place."""
    with recorder.path.open("rb") as file:
        return int.from_bytes(os.pread(file.fileno(), 8, at.OFF_HEADER_ORDERS_EVICTED), "little")


def test_the_ended_one_that_changed_longest_ago_makes_place(make_recorder: Callable[..., Recorder]) -> None:
    """Where all 16 places are taken, ended orders go first, the oldest first; then open ones, which are counted."""
    recorder = make_recorder(orders__max=64)
    first, second, third, *others = neighbours(60, 19, 64)  # their places go round the table's end
    for number, key in enumerate((first, second, *others[:14])):
        put(key, at.ORDER_ACKED, 100 - number)
    put(first, at.ORDER_FILLED, 900)
    put(second, at.ORDER_REJECTED, 901)
    assert core.orders_open() == 14
    put(third, changed_ns=1000)
    assert core.order_get(first) is None
    put(others[14], changed_ns=1001)
    assert core.order_get(second) is None
    assert evicted(recorder) == 0
    assert core.orders_open() == 16
    put(others[15], changed_ns=1002)
    assert core.order_get(others[13]) is None  # it changed longest ago
    assert evicted(recorder) == 1
    assert core.orders_open() == 16
    left = {third, *others} - {others[13]}
    assert {key for key, _ in recorder.segment.reader.orders()} == left
    assert all(core.order_get(key) is not None for key in left)


@pytest.mark.parametrize("slots", [16, 32])
def test_a_small_table_keeps_what_it_can(make_recorder: Callable[..., Recorder], slots: int) -> None:
    """Like a dict, but for those that had to make place; readers agree; open ones are counted."""
    recorder = make_recorder(orders__max=slots)

    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6), st.integers(0, 10)), max_size=60))
    def check(puts: list[tuple[int, int, int]]) -> None:
        known: dict[str, tuple[Any, ...]] = {}
        for number, state, changed in puts:
            known[f"key{number}"] = put(f"key{number}", state, changed)
            assert core.order_get(f"key{number}") == known[f"key{number}"]
        there = dict(recorder.segment.reader.orders())
        assert len(there) <= slots
        for key, state in known.items():
            assert core.order_get(key) == recorder.segment.reader.order(key) == there.get(key)
            assert there.get(key) in (None, state)
        assert core.orders_open() == sum(state[3] not in ENDED for state in there.values())

    check()


def test_readers_see_whole_orders(recorder: Recorder) -> None:
    """While an order changes all the time, a reader gets one state or another, never a mixture."""
    put("order", at.ORDER_SENT, 0, quantity=0.0, price=0.0, filled=0.0, paid=0.0, span_id=0)
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            n = float(number)
            put("order", 1 + number % 3, number, quantity=n, price=n, filled=n, paid=n, span_id=number)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        seen = set()
        while len(seen) < 200:
            state = recorder.segment.reader.order("order")
            if state is not None:
                number = state[5]
                assert (state[1], *state[6:10]) == (number, number, number, number, number)
                seen.add(number)
    finally:
        stop.set()
        thread.join()


def test_a_killed_processes_orders_are_there(run_python: Run, tmp_path: Any) -> None:
    """After SIGKILL the table is as it was at the last put."""
    run_python(
        """
import os, signal, otel_trading as ot
from otel_trading._backend import core
ot.configure("killed")
for number in range(1000):
    core.order_put(f"order-{number}", 1, number + 1, True, 1, 2, 3, 1.0, 2.0, 0.0, 0.0, "BTCUSDT", 1)
os.kill(os.getpid(), signal.SIGKILL)
""",
        check=False,
    )
    (path,) = tmp_path.rglob("*.seg")
    with path.open("rb") as file:
        reader = core.Reader(file.fileno())
    for number in range(1000):
        state = reader.order(f"order-{number}")
        assert state is not None
        assert state[1] == number + 1
    assert len(reader.orders()) == 1000
    reader.close()
