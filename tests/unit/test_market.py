"""Market data: noted at once, whatever its types, and recorded tick by tick where the market moves."""

from __future__ import annotations

import inspect
import math
import time
from contextlib import closing
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import faults, market
from otel_trading.budget.markets import Markets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Recorder

NOON_MS = 1_700_000_000_000


@pytest.fixture
def table(recorder: Recorder) -> Iterator[Markets]:
    """Give the segment's market data, as any process reads them."""
    with closing(Markets(recorder.path)) as markets:
        yield markets


def test_an_update(recorder: Recorder, table: Markets) -> None:
    """Stamps become nanoseconds; what is not given has no number."""
    before = time.time_ns()
    ot.market_data("BTCUSDT", NOON_MS, 64_000.5, 2)
    ot.market_data("ETHUSDT", NOON_MS + 0.25)
    ot.market_data("ADAUSDT", None, price=3_000)
    first, second, third = table.read()
    assert first[:2] == ("BTCUSDT", NOON_MS * 1_000_000)
    assert first[3:] == (1, 64_000.5, 2.0)
    assert abs(first.received_ns - before) < 1e9
    assert second[:2] == ("ETHUSDT", NOON_MS * 1_000_000 + 250_000)
    assert (str(second.price), second.volume) == ("nan", 0.0)
    assert (third.symbol, third.exchange_ns, third.price, third.volume) == ("ADAUSDT", 0, 3_000, 0.0)
    assert recorder.records() == []
    assert recorder.faults == 0


def test_arguments_by_name(table: Markets) -> None:
    """Each argument has its name; what is missing, unknown or given twice is a TypeError, as of any function."""
    ot.market_data(volume=2.0, price=1.5, exchange_ts_ms=NOON_MS, symbol="A")
    ot.market_data("A", NOON_MS, volume=3)
    (row,) = table.read()
    assert row[3:] == (2, 1.5, 5.0)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {}),
        (("A",), {}),
        (("A", 1, 1.0, 1.0, 1.0), {}),
        (("A", 1), {"cost": 1.0}),
        (("A", 1), {"symbol": "B"}),
    ]
    for arguments, names in wrong:
        with pytest.raises(TypeError, match="market_data"):
            ot.market_data(*arguments, **names)
    assert str(inspect.signature(ot.market_data)).startswith("(symbol")
    assert ot.market_data.__doc__


def test_symbols_are_told_by_their_text(table: Markets) -> None:
    """A symbol is the same whatever object holds its text; also one of a kind of str with a hash of its own."""

    class Odd(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            return True

    texts = ["BTC", "ETH", "\u00e9", "\u4e2d\u6587", "\U0001f600", ""]
    for text in texts * 2:
        ot.market_data("".join(list(text)), NOON_MS, 1.5)
    ot.market_data(Odd("ETH"), NOON_MS, 1.5)
    ot.market_data(Odd("SOL"), NOON_MS, 1.5)
    ot.market_data("SOL", NOON_MS, 1.5)
    assert [row.symbol for row in table.read()] == [*texts, "SOL"]
    assert [row.updates for row in table.read()] == [2, 3, 2, 2, 2, 2, 2]


def test_more_symbols_than_there_is_room_for(recorder: Recorder, table: Markets) -> None:
    """The 256 first ones stay; each update of another one is a fault."""
    for number in range(260):
        ot.market_data(f"S{number}", NOON_MS, 1.5)
    ot.market_data("S7", NOON_MS, 2.5)
    rows = table.read()
    assert len(rows) == 256
    assert (rows[7].symbol, rows[7].price, rows[7].updates) == ("S7", 2.5, 2)
    recorder.faults_expected = recorder.faults
    assert recorder.faults == 4


def test_other_types(recorder: Recorder, table: Markets) -> None:
    """Text and decimal numbers, as exchanges send them, are taken."""
    ot.market_data("A", str(NOON_MS), "1.5", Decimal("0.5"))  # type: ignore[arg-type]
    ot.market_data("B", Decimal(NOON_MS), Fraction(1, 2), None)  # type: ignore[arg-type]
    assert [(row.symbol, row.exchange_ns, row.price, row.volume) for row in table.read()] == [
        ("A", NOON_MS * 1_000_000, 1.5, 0.5),
        ("B", NOON_MS * 1_000_000, 0.5, 0.0),
    ]
    assert recorder.faults == 0


_STAMPS = st.one_of(
    st.none(),
    st.integers(),
    st.integers(0, 2**63 // 1_000_000),
    st.floats(),
    st.floats(0, 9.3e12),
    st.decimals(),
    st.booleans(),
)
_NUMBERS = st.one_of(st.none(), st.integers(), st.floats(), st.decimals(), st.booleans(), st.just(10**400))


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@given(stamp=_STAMPS, price=_NUMBERS, volume=_NUMBERS)
def test_it_is_what_python_makes_of_it(
    recorder: Recorder, table: Markets, stamp: object, price: object, volume: object
) -> None:
    """Whatever the values, the table holds what the function in Python would have put there, and so do the faults."""
    found = []
    for function in (ot.market_data, market.market_data_in_python):
        faults.forget()
        before, volumes = recorder.faults, sum(row.volume for row in table.read())
        ot.market_data("A", 1, 1.5)
        function("A", stamp, price, volume)  # type: ignore[arg-type]
        (row,) = table.read()
        found.append((row.exchange_ns, str(row.price), row.volume - volumes, recorder.faults - before))
    recorder.faults_expected = recorder.faults
    assert found[0][:2] + found[0][3:] == found[1][:2] + found[1][3:]
    # What a sum grows by is known to a few of its last bits.
    assert found[0][2] == pytest.approx(found[1][2], rel=1e-6, abs=8 * math.ulp(volumes)) or abs(found[0][2]) > 1e300


@pytest.mark.parametrize(
    "arguments",
    [
        (7, NOON_MS),
        (None, NOON_MS),
        ("A", "noon"),
        ("A", nan),
        ("A", inf),
        ("A", 1e30),
        ("A", 10**40),
        ("A", [1]),
        ("A", NOON_MS, "much"),
        ("A", NOON_MS, object()),
        ("A", NOON_MS, 1.0, "some"),
    ],
)
def test_what_is_none(recorder: Recorder, arguments: tuple[Any, ...]) -> None:
    """What is no symbol, no time or no number is a fault, and never raised."""
    ot.market_data(*arguments)
    assert recorder.faults == 1
    recorder.faults_expected = 1


@given(
    stamp=st.one_of(st.none(), st.integers(), st.floats(), st.decimals(), st.text(max_size=8), st.booleans()),
    price=st.one_of(st.none(), st.integers(), st.floats(), st.decimals(), st.text(max_size=8), st.binary(max_size=4)),
)
def test_nothing_raises(stamp: object, price: object) -> None:
    """Whatever a program has for a stamp and a price, it goes on."""
    ot.market_data("A", stamp, price, price)  # type: ignore[arg-type]


def test_tick_by_tick(recorder: Recorder) -> None:
    """In HIGH_VOLATILITY each update is a span of no length in the current trace; in other modes none is."""
    ot.market_data("A", NOON_MS, 1.5)
    ot.set_mode("high_volatility")
    with ot.probe("book") as parent:
        ot.market_data("A", NOON_MS, 1.5, 2)
    ot.market_data("B", None, Decimal("2.5"))
    ot.set_mode(None)
    ot.market_data("A", NOON_MS, 1.5)
    first, second = recorder.named("market_data.tick")
    assert (first.tier, first.parent_id, first.trace_id) == (1, parent.span_id, parent.trace_id)
    assert first.start == first.end
    assert first.attributes == {
        "trading.symbol": "A",
        "trading.market_data.exchange_time": NOON_MS,
        "trading.market_data.price": 1.5,
        "trading.market_data.volume": 2,
    }
    assert second.attributes == {"trading.symbol": "B", "trading.market_data.price": 2.5}


def test_without_a_recorder() -> None:
    """Before ``configure`` nothing happens, and the mode is NORMAL."""
    ot.market_data("A", NOON_MS, 1.5)
    assert ot.mode() == "NORMAL"
