"""Market data: noted at once, whatever its types, and recorded tick by tick where the market moves."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import market
from otel_trading._backend import core

if TYPE_CHECKING:
    from conftest import Recorder

NOON_MS = 1_700_000_000_000


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Give what comes to the backend, as it comes there."""
    calls: list[tuple[Any, ...]] = []
    note = core.market

    def watched(symbol: str, exchange_ns: int, price: float, volume: float) -> None:
        note(symbol, exchange_ns, price, volume)
        calls.append((symbol, exchange_ns, price, volume))

    monkeypatch.setattr(market, "_note", watched)
    return calls


def test_an_update(recorder: Recorder, noted: list[tuple[Any, ...]]) -> None:
    """Stamps become nanoseconds; what is not given has no number."""
    assert recorder.path.exists()
    ot.market_data("BTCUSDT", NOON_MS, 64_000.5, 2)
    ot.market_data("BTCUSDT", NOON_MS + 0.25)
    ot.market_data("ETHUSDT", None, price=3_000)
    assert noted[0] == ("BTCUSDT", NOON_MS * 1_000_000, 64_000.5, 2)
    assert noted[1][:2] == ("BTCUSDT", NOON_MS * 1_000_000 + 250_000)
    assert str(noted[1][2:]) == "(nan, nan)"
    assert noted[2][:3] == ("ETHUSDT", 0, 3_000)
    assert recorder.records() == []
    assert recorder.faults == 0


def test_other_types(recorder: Recorder, noted: list[tuple[Any, ...]]) -> None:
    """Text and decimal numbers, as exchanges send them, are taken."""
    ot.market_data("A", str(NOON_MS), "1.5", Decimal("0.5"))  # type: ignore[arg-type]
    ot.market_data("B", Decimal(NOON_MS), Fraction(1, 2), None)  # type: ignore[arg-type]
    assert [(name, stamp, float(price)) for name, stamp, price, _ in noted] == [
        ("A", NOON_MS * 1_000_000, 1.5),
        ("B", NOON_MS * 1_000_000, 0.5),
    ]
    assert recorder.faults == 0


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
