"""The emergency monitor: P0 only where the drain is not served, P0's thresholds, and less than 1 % of a core."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_image import Image

from otel_trading import _layout as at
from otel_trading.agent.emergency import Pace, Served
from otel_trading.agent.emergency_figures import Figures
from otel_trading.alerts import Alert
from otel_trading.segment import Control

NS = 1_000_000_000


class FakeReader:
    """What a reader gives, without a segment: the figures' arithmetic is tested here, reading elsewhere."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.events: list[dict[str, Any]] = []
        self.stamps: list[int] = []
        self.heartbeat_age_ns = 0

    def life(self) -> dict[str, Any]:
        """As Reader.life."""
        return {"open_orders": 3, "vitals": len(self.events)}

    def vitals(self, limit: int) -> list[dict[str, Any]]:
        """As Reader.vitals."""
        return self.events[-limit:]

    def markets(self) -> list[dict[str, Any]]:
        """As Reader.markets."""
        return [{"exchange_ns": stamp, "received_ns": 1, "updates": 1} for stamp in self.stamps]

    def info(self) -> dict[str, Any]:
        """As Reader.info."""
        return {"heartbeat_age_ns": self.heartbeat_age_ns}

    def order(self, state: int, latency: float | None = None) -> None:
        """Have an order change."""
        self.events.append({"kind": at.VITAL_ORDER, "state": state, "name": "BTCUSDT", "latency": latency})


@pytest.fixture
def reader() -> Any:
    """A program's segment."""
    return FakeReader()


@pytest.fixture
def figures(reader: Any) -> Figures:
    """Its figures, after the first look."""
    made = Figures("bot", 77)
    assert made.look(reader, 0) == []
    return made


def shown(alerts: list[Alert]) -> list[tuple[str, str, bool]]:
    """What the alerts are, without their figures."""
    return [(alert.name, alert.severity, alert.resolved) for alert in alerts]


def test_rejects_are_judged_by_their_share(figures: Figures, reader: Any) -> None:
    """1 % of the orders of a minute is a warning, 5 % critical; a minute without rejects is normal again."""
    for _ in range(100):
        reader.order(at.ORDER_SENT)
    reader.order(at.ORDER_REJECTED)
    assert shown(figures.look(reader, NS)) == [("OrdersRejected", "warning", False)]
    for _ in range(9):
        reader.order(at.ORDER_REJECTED)
    assert shown(figures.look(reader, 2 * NS)) == [("OrdersRejected", "critical", False)]
    assert figures.reject_rate == pytest.approx(0.1)
    assert figures.look(reader, 3 * NS) == []
    assert shown(figures.look(reader, 70 * NS)) == [("OrdersRejected", "critical", True)]


def test_few_orders_say_nothing(figures: Figures, reader: Any) -> None:
    """Of fewer than ten orders a share is not judged."""
    for _ in range(3):
        reader.order(at.ORDER_SENT)
        reader.order(at.ORDER_REJECTED)
    assert figures.look(reader, NS) == []


def test_slow_ack_is_critical(figures: Figures, reader: Any) -> None:
    """An ack after 50 ms or more is critical; a fill may take as long as it takes."""
    reader.order(at.ORDER_FILLED, 10.0)
    reader.order(at.ORDER_ACKED, 0.049)
    assert figures.look(reader, NS) == []
    reader.order(at.ORDER_ACKED, 0.05)
    (alert,) = figures.look(reader, 2 * NS)
    assert shown([alert]) == [("OrderExecutionSlow", "critical", False)]
    assert alert.details["slowest_ack_s"] == 0.05
    assert alert.labels == {"service": "bot", "pid": "77", "monitor": "emergency"}


def test_every_risk_breach_is_critical(figures: Figures, reader: Any) -> None:
    """Any breach is, each kind once a look."""
    for kind in ("position", "position", "loss"):
        reader.events.append({"kind": at.VITAL_RISK, "state": 0, "name": kind, "latency": None})
    alerts = figures.look(reader, NS)
    assert [(alert.name, alert.severity, alert.labels["kind"]) for alert in alerts] == [
        ("RiskBreach", "critical", "loss"),
        ("RiskBreach", "critical", "position"),
    ]
    assert figures.breaches == 3


def test_market_data_is_as_old_as_the_freshest_symbol(figures: Figures, reader: Any) -> None:
    """Older than a second is critical; a symbol that nobody trades is not."""
    reader.stamps = [100 * NS, 5 * NS]
    assert figures.look(reader, 100 * NS + NS // 2) == []
    assert shown(figures.look(reader, 101 * NS)) == [("MarketDataStale", "critical", False)]
    reader.stamps = [102 * NS, 5 * NS]
    assert shown(figures.look(reader, 102 * NS)) == [("MarketDataStale", "critical", True)]


def test_events_from_before_are_not_told(reader: Any) -> None:
    """What happened before the monitor came was the others' to tell."""
    reader.events.append({"kind": at.VITAL_RISK, "state": 0, "name": "position", "latency": None})
    assert Figures("bot", 77).look(reader, NS) == []


def test_end_of_the_program_resolves(figures: Figures, reader: Any) -> None:
    """What was raised is resolved when the program is no more."""
    reader.stamps = [NS]
    figures.look(reader, 9 * NS)
    assert shown(figures.ended()) == [("MarketDataStale", "critical", True)]
    assert figures.ended() == []


def test_figures_are_told_in_a_line(figures: Figures, reader: Any) -> None:
    """The log's line has all of them."""
    reader.order(at.ORDER_SENT)
    reader.stamps = [NS]
    figures.look(reader, 3 * NS)
    assert figures.text() == (
        "bot (pid 77): 1 orders and 0 rejects in the last minute, 3 open, slowest ack 0.0 ms, 0 risk breaches, "
        "market data 2.0 s old"
    )


# ---- P0 only ----


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """The control page of a segment whose tiers are all on."""
    image = Image()
    for tier in range(at.TIERS):
        for field in (at.OFF_CONTROL_ASKED, at.OFF_CONTROL_SHED):
            struct.pack_into("<Q", image.bytes, image.control + field + 8 * tier, at.TIER_ON)
    path = tmp_path / "image.seg"
    path.write_bytes(image.bytes)
    path.chmod(0o600)
    with Control(path) as opened:
        yield opened


def rates(control: Control) -> list[float]:
    """What the tiers record."""
    return [control.tier_rate(tier) for tier in range(at.TIERS)]


def test_program_that_is_not_served_records_p0_only(control: Control, reader: Any) -> None:
    """P1 to P3 are off while the drain stands still, and as before when it goes on."""
    control.set_tier_rate(2, 0.5)
    before = rates(control)
    served = Served(control, 5.0)
    reader.heartbeat_age_ns = 4 * NS
    assert served.look(reader)
    assert not served.shed
    reader.heartbeat_age_ns = 6 * NS
    assert not served.look(reader)
    assert served.shed
    assert rates(control) == [1.0, 0.0, 0.0, 0.0]
    assert not served.look(reader)
    control.words[at.OFF_CONTROL_PASSES // 8] += 1
    assert served.look(reader)
    assert rates(control) == before


def test_drain_that_never_passed_is_given_time(control: Control, reader: Any) -> None:
    """Without any heartbeat it is late when it was watched for so long."""
    reader.heartbeat_age_ns = -1
    assert Served(control, 5.0).look(reader)
    assert not Served(control, 0.0).look(reader)


def test_what_others_changed_meanwhile_stays(control: Control, reader: Any) -> None:
    """What the governor shed meanwhile is not undone, and neither mode nor wishes are touched."""
    control.force("stressed")
    control.set_tier(1, on=False)
    served = Served(control, 5.0)
    reader.heartbeat_age_ns = 9 * NS
    served.look(reader)
    control.words[at.OFF_CONTROL_SHED // 8 + 2] = 77 << 8 | at.TIER_ON
    served.restore()
    served.restore()
    assert control.words[at.OFF_CONTROL_SHED // 8 + 2] == 77 << 8 | at.TIER_ON
    assert control.forced == at.MODE_STRESSED
    assert control.asked_rate(1) == 0.0
    assert rates(control)[1] == 0.0


def test_what_a_killed_monitor_left_is_taken_back(control: Control, reader: Any) -> None:
    """P0 only without the mode for it is what a monitor left that was killed: the next one takes it back."""
    reader.heartbeat_age_ns = 9 * NS
    Served(control, 5.0).look(reader)
    again = Served(control, 5.0)
    assert not again.look(reader)
    assert rates(control) == [1.0, 0.0, 0.0, 0.0]
    reader.heartbeat_age_ns = 0
    assert again.look(reader)
    assert rates(control) == [1.0, 1.0, 1.0, 1.0]


# ---- its own cost ----


def test_looks_less_often_while_it_costs_too_much() -> None:
    """Over 1 % of a core the time between two looks doubles, up to 30 s; well under it, it is halved again."""
    pace = Pace(0.0, 0.0)
    cpu = now = 0.0
    periods = []
    for cost in [0.02, 0.05, 0.1, 0.2, 0.5, 1.0] + [0.001] * 8:
        now += pace.period
        cpu += cost
        periods.append(pace.looked(cpu, now))
    assert periods == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 15.0, 7.5, 3.75, 1.875, 1.0, 1.0, 1.0, 1.0]


@given(st.floats(0.0, 0.29))
def test_whatever_a_look_costs_it_stays_below_its_share(cost: float) -> None:
    """For any cost of a look that 30 s allow, the pace settles where that is at most 1 % of a core, and stays there."""
    pace = Pace(0.0, 0.0)
    cpu = now = 0.0
    periods = []
    for _ in range(20):
        now += pace.period
        cpu += cost
        periods.append(pace.looked(cpu, now))
    assert cost / pace.period <= 0.01 + 1e-9
    assert set(periods[10:]) == {pace.period}
