"""Breaches of risk limits, and what was earned."""

from __future__ import annotations

import os
from decimal import Decimal
from math import inf, nan
from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading import business
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder

ERROR = 2


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test with nothing earned."""
    monkeypatch.setattr(business._business, "realized", 0.0)


def values(name: str) -> dict[str, float | int | None]:
    """Give the values of an instrument by its attributes, those that were never set left out."""
    found = {one["attributes"]: one for one in core.snapshot()["instruments"] if one["name"] == name}
    return {attributes: one["value"] for attributes, one in found.items() if one["updates"]}


def test_a_breach_is_a_span_with_an_error(recorder: Recorder) -> None:
    """It is of tier P0, in the current trace, of no length, and counts by kind."""
    with ot.probe("strategy") as parent:
        ot.risk_breach("position_limit", symbol="BTCUSDT", size=12.5)
    ot.risk_breach("drawdown")
    first, second = recorder.named("risk.breach")
    assert (first.tier, first.status, first.trace_id, first.parent_id) == (0, ERROR, parent.trace_id, parent.span_id)
    assert first.start == first.end
    assert first.attributes == {"trading.risk.kind": "position_limit", "symbol": "BTCUSDT", "size": 12.5}
    assert second.parent_id == 0
    assert second.attributes == {"trading.risk.kind": "drawdown"}
    assert values("trading.risk.breaches") == {
        '{"trading.risk.kind":"position_limit"}': 1,
        '{"trading.risk.kind":"drawdown"}': 1,
    }


def test_a_breach_is_recorded_in_every_mode(recorder: Recorder) -> None:
    """P0 is recorded in EMERGENCY as well, its span and its count."""
    ot.set_mode("emergency")
    ot.risk_breach("in_an_emergency")
    assert recorder.only("risk.breach").status == ERROR
    assert values("trading.risk.breaches")['{"trading.risk.kind":"in_an_emergency"}'] == 1


@pytest.mark.parametrize("kind", [None, "", 7])
def test_a_breach_of_no_kind(recorder: Recorder, kind: object) -> None:
    """What is no text is a fault, and the breach counts all the same."""
    ot.risk_breach(kind)  # type: ignore[arg-type]
    assert recorder.only("risk.breach").attributes == {"trading.risk.kind": "other"}
    recorder.faults_expected = 1


def test_attributes_that_are_none(recorder: Recorder) -> None:
    """An attribute may be named as a parameter is; one of a foreign type is written out or left out, never raised."""

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    ot.risk_breach("named", kind="margin", value=Decimal("1.5"))
    ot.risk_breach("hostile", what=Hostile())
    first, second = recorder.named("risk.breach")
    assert first.attributes["kind"] == "margin"
    assert second.attributes["trading.risk.kind"] == "hostile"
    recorder.faults_expected = recorder.faults


def test_kinds_without_end(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past so many kinds, further ones share a counter, and the span still tells its own."""
    monkeypatch.setattr(business, "_MOST_KINDS", len(business._business.breaches) + 1)
    for number in range(4):
        ot.risk_breach(f"kind-{number}")
    counts = values("trading.risk.breaches")
    assert counts['{"trading.risk.kind":"kind-0"}'] == 1
    assert counts['{"trading.risk.kind":"other"}'] == 3
    assert [span.attributes["trading.risk.kind"] for span in recorder.named("risk.breach")] == [
        f"kind-{number}" for number in range(4)
    ]
    recorder.faults_expected = 3


def test_what_was_earned(recorder: Recorder) -> None:
    """The gauge is the sum so far, the counters are the sums of both directions."""
    for delta in (10, -2.5, "1.25", Decimal("-0.75"), 0.0):
        ot.pnl(delta)
    assert values("trading.pnl.realized") == {"": 8.0}
    assert values("trading.pnl.gained") == {"": 11.25}
    assert values("trading.pnl.lost") == {"": 3.25}
    assert recorder.faults == 0


@pytest.mark.parametrize("delta", [nan, inf, None, True, "much", [1], object()])
def test_what_is_no_amount(recorder: Recorder, delta: object) -> None:
    """It is a fault, and nothing is earned."""
    ot.pnl(delta)  # type: ignore[arg-type]
    assert values("trading.pnl.realized") == {}
    recorder.faults_expected = 1


def test_without_a_recorder() -> None:
    """Before ``configure`` nothing happens."""
    ot.risk_breach("too early", size=1)
    ot.pnl(5)
    assert business._business.realized == 0.0


def test_a_forked_child_earns_for_itself(make_recorder: Callable[..., Recorder]) -> None:
    """The child's gauge begins at nothing: the parent goes on telling of what was earned before."""
    make_recorder()
    ot.pnl(100)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ot.pnl(1)
            code = 0 if values("trading.pnl.realized") == {"": 1.0} else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    ot.pnl(1)
    assert values("trading.pnl.realized") == {"": 101.0}
