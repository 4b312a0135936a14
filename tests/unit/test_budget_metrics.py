"""The budget's own metrics: what the readings page says, under the names that are documented."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.budget.modes import BUDGETS, MODES, TRIGGERS
from otel_trading.budget.policy import Policy
from otel_trading.drain.allowance import Allowance
from otel_trading.drain.budget_metrics import BudgetMetrics
from otel_trading.drain.gathered import Gathered
from otel_trading.drain.prometheus import Collector
from otel_trading.errors import OtelTradingError
from otel_trading.segment import Control
from otel_trading.segment.pages import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Recorder


class Pages:
    """The pages that a governor writes, written by hand."""

    def __init__(self, recorder: Recorder) -> None:
        """Map them."""
        self.readings = Page(recorder.path, "readings", at.OFF_HEADER_READINGS_OFFSET, at.SIZE_READINGS)

    def number(self, offset: int, *values: float) -> None:
        """Write doubles from an offset on."""
        for place, value in enumerate(values, offset // 8):
            self.readings.words[place] = struct.unpack("<Q", struct.pack("<d", value))[0]

    def count(self, offset: int, *values: int) -> None:
        """Write whole numbers from an offset on."""
        for place, value in enumerate(values, offset // 8):
            self.readings.words[place] = value

    def close(self) -> None:
        """Let them go."""
        self.readings.close()


@pytest.fixture
def policy(recorder: Recorder) -> Iterator[Policy]:
    """Have something governed, and no governor."""
    with Policy(recorder.path) as found:
        found.write({"budget": [*[0.025, 0.025, 0.01, 0.003], *[3e7] * 4, *[2e-4] * 4, *[32e3] * 4, *[math.inf] * 4]})
        found.active = True
        yield found
        found.active = False


@pytest.fixture
def pages(policy: Policy, recorder: Recorder) -> Iterator[Pages]:
    """Give the pages of a governor that does nothing."""
    del policy
    made = Pages(recorder)
    yield made
    made.close()


@pytest.fixture
def metrics(policy: Policy, recorder: Recorder) -> Iterator[BudgetMetrics]:
    """Give the metrics of the segment."""
    del policy
    made = BudgetMetrics(str(recorder.path))
    yield made
    made.close()


def points(metrics: BudgetMetrics, name: str) -> dict[tuple[str, ...], Any]:
    """Return a metric's values by those of their attributes."""
    (family,) = [family for family in metrics.families() if family.name == name]
    return {tuple(point.attributes.values()): point.value for point in family.points}


def test_nothing_is_told_while_nothing_is_governed(recorder: Recorder) -> None:
    """Without a policy there are no series of it."""
    metrics = BudgetMetrics(str(recorder.path))
    assert metrics.families() == []
    metrics.close()
    with pytest.raises(OtelTradingError):
        BudgetMetrics(str(recorder.directory / "nothing"))


def test_the_mode_is_a_series_each(metrics: BudgetMetrics, recorder: Recorder) -> None:
    """Exactly one of the four is 1."""
    assert points(metrics, "trading.monitoring.mode") == {(name,): int(name == "NORMAL") for name in MODES}
    with Control(recorder.path) as control:
        control.force(at.MODE_STRESSED)
    assert points(metrics, "trading.monitoring.mode") == {(name,): int(name == "STRESSED") for name in MODES}
    assert points(metrics, "trading.monitoring.tier.rate")["P3",] == 0.0
    assert points(metrics, "trading.monitoring.tier.rate")["P0",] == 1.0


def test_use_and_limits_are_in_base_units(metrics: BudgetMetrics, pages: Pages, recorder: Recorder) -> None:
    """Each resource has its use and, where there is one, the present mode's limit."""
    pages.number(at.OFF_READINGS_USAGE, 0.02, 1e7, 5e-6, 1234.0, 3.0)
    used = [points(metrics, f"trading.monitoring.{name}.usage") for name in BUDGETS]
    assert used == [{(): 0.02}, {(): 1e7}, {(): 5e-6}, {(): 1234.0}, {(): 3.0}]
    limits = [points(metrics, f"trading.monitoring.{name}.limit") for name in BUDGETS]
    assert limits == [{(): 0.025}, {(): 3e7}, {(): 2e-4}, {(): 32e3}, {}]
    with Control(recorder.path) as control:
        control.force(at.MODE_EMERGENCY)
    assert points(metrics, "trading.monitoring.cpu.limit") == {(): 0.003}


def test_parts_and_totals(metrics: BudgetMetrics, pages: Pages, policy: Policy) -> None:
    """Who takes the CPU time and the memory, and what was sent and written so far."""
    pages.number(at.OFF_READINGS_CPU_HOT, 0.01, 0.002, 0.003, 0.0005, 2e6, 3e6)
    pages.count(at.OFF_READINGS_NETWORK_TOTAL, 10**6, 42, 5_000_000_000)
    policy.write({"exporter_memory": 9e6, "base_memory": 4e6})
    assert points(metrics, "trading.monitoring.cpu.part") == {
        ("hot",): 0.01,
        ("drain",): 0.002,
        ("export",): 0.003,
        ("governor",): 0.0005,
    }
    assert points(metrics, "trading.monitoring.memory.part") == {
        ("segment",): 2e6,
        ("heap",): 3e6,
        ("base",): 4e6,
        ("exporters",): 9e6,
    }
    assert points(metrics, "trading.monitoring.cpu.time") == {(): 5.0}
    assert points(metrics, "trading.monitoring.network.io") == {(): 10**6}
    assert points(metrics, "trading.monitoring.disk.operations") == {(): 42}


def test_violations_steps_and_what_the_engine_sees(metrics: BudgetMetrics, pages: Pages) -> None:
    """Counts by resource; what can not be told has no point."""
    pages.count(at.OFF_READINGS_VIOLATIONS, 1, 2, 3, 4, 5, 6)
    pages.number(at.OFF_READINGS_CPU_LOAD, 0.5, 0.25, math.nan, math.nan, 0.9, 2.5)
    assert points(metrics, "trading.monitoring.violations") == {
        (name,): number for number, name in enumerate(BUDGETS, 1)
    }
    assert points(metrics, "trading.monitoring.steps") == {(): 6}
    assert points(metrics, "trading.monitoring.pressure") == {("cpu", "load"): 0.5, ("memory", "load"): 0.25}
    assert points(metrics, "trading.monitoring.market.volatility") == {(): 0.9}
    assert points(metrics, "trading.monitoring.market.volume") == {(): 2.5}
    assert points(metrics, "trading.monitoring.blind") == {(): 0}


def test_the_keep_rules_tell_what_they_do(metrics: BudgetMetrics, pages: Pages) -> None:
    """Horizon, tokens, thresholds by tier, and traces by trigger."""
    pages.number(at.OFF_READINGS_HORIZON, 3.5, 1e5)
    pages.count(at.OFF_READINGS_THRESHOLD, 0, 1 << 54, 1 << 55, 1 << 56)
    pages.count(at.OFF_READINGS_KEPT, *range(8), *range(10, 18), 99)
    assert points(metrics, "trading.keep.horizon") == {(): 3.5}
    assert points(metrics, "trading.keep.tokens") == {(): 1e5}
    assert points(metrics, "trading.keep.threshold") == {("P0",): 0.0, ("P1",): 0.25, ("P2",): 0.5, ("P3",): 1.0}
    assert points(metrics, "trading.keep.traces") == {(name,): number for number, name in enumerate(TRIGGERS)}
    assert points(metrics, "trading.keep.missed") == {(name,): number for number, name in enumerate(TRIGGERS, 10)}
    assert points(metrics, "trading.keep.dropped") == {(): 99}


def test_after_the_end_there_is_nothing(metrics: BudgetMetrics) -> None:
    """A scrape that comes late finds no file."""
    metrics.close()
    metrics.close()
    assert metrics.families() == []


def scraped(gathered: Gathered) -> str:
    """Return what /metrics shows."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(core.snapshot, core.accounts, gather=gathered.families))
    return generate_latest(registry).decode()


def test_in_emergency_a_scrape_has_p0_and_the_budget(policy: Policy, recorder: Recorder) -> None:
    """All is there in other modes; in EMERGENCY only what the business can't be without, and the budget's own."""
    del policy
    with ot.probe("emergency.send", tier=ot.P0), ot.probe("emergency.detail", tier=ot.P2):
        ot.counter("orders.sent", tier=ot.P0).add(1)
        ot.counter("cache.hits", tier=ot.P2).add(1)
    path = lifecycle.own_segment()
    assert path is not None
    allowance = Allowance(path)
    gathered = Gathered(path, allowance)
    try:
        everything = scraped(gathered)
        with Control(recorder.path) as control:
            control.force(at.MODE_EMERGENCY)
        little = scraped(gathered)
    finally:
        gathered.close()
        allowance.close()
    for always in ('trading_stage="emergency.send"', "trading_orders_sent_total", 'trading_mode="EMERGENCY"'):
        assert always in everything
        assert always in little
    for sometimes in (
        'trading_stage="emergency.detail"',
        "trading_cache_hits_total",
        "trading_telemetry_recorded_spans",
    ):
        assert sometimes in everything
        assert sometimes not in little
    assert 'trading_monitoring_mode{trading_mode="NORMAL"} 1.0' in everything
    assert 'trading_monitoring_mode{trading_mode="EMERGENCY"} 1.0' in little
    for name in ("trading_monitoring_cpu_usage_ratio", "trading_keep_tokens_bytes", "trading_keep_traces_total"):
        assert name in little
