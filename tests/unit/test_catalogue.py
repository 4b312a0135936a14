"""The built-in metrics: their figures are those that were asked for, and the page shows the catalogue's."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from otel_trading.budget import catalogue
from otel_trading.budget.modes import EMERGENCY, HIGH_VOLATILITY, NORMAL, STRESSED

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = {"ms": 1e-3, "s": 1.0}

_WARNING, _CRITICAL = "threshold_warning", "threshold_critical"
_OVERHEAD, _OFF = "measurement_overhead_max", "disable_threshold_cpu"
_NORMAL, _STRESSED = "collection_frequency_normal", "collection_frequency_stressed"
ASKED: dict[str, dict[str, Any]] = {
    "order_execution_latency_us": {"tier": 0, _CRITICAL: "50000", _OVERHEAD: "100"},
    "market_data_staleness_ms": {"tier": 0, _CRITICAL: "1000", _OVERHEAD: "50"},
    "order_reject_rate_percent": {"tier": 0, _WARNING: "1.0", _CRITICAL: "5.0"},
    "position_risk_breach_count": {"tier": 0, _CRITICAL: "1"},
    "liquidity_utilization_percent": {"tier": 1, _NORMAL: "1s", _STRESSED: "10s"},
    "slippage_actual_vs_expected_bps": {"tier": 1, _NORMAL: "1s", _STRESSED: "5s"},
    "pnl_real_time_delta": {"tier": 1, _NORMAL: "100ms", _STRESSED: "1s"},
    "memory_usage_per_component_mb": {"tier": 2, _OFF: "80"},
    "cache_hit_rates_percent": {"tier": 2, _OFF: "85"},
    "queue_sizes_items": {"tier": 2, _OFF: "80"},
    "disk_io_rates": {"tier": 3, _OFF: "70"},
    "network_bandwidth_utilization": {"tier": 3, _OFF: "75"},
    "gc_statistics": {"tier": 3, _OFF: "60"},
}
"""What was asked for, under the names and in the units in which it was."""


def seconds(text: str) -> float:
    """A period as it is written."""
    match = re.fullmatch(r"(\d+)(ms|s)", text)
    assert match
    return int(match[1]) * _SECONDS[match[2]]


def test_all_that_was_asked_for_is_there_and_no_more() -> None:
    """The catalogue has the thirteen metrics, in their tiers."""
    assert [(name, figures["tier"]) for name, figures in ASKED.items()] == [
        (metric.asked_as, metric.tier) for metric in catalogue.METRICS
    ]
    assert len(catalogue.METRICS) == 13


def test_every_figure_is_the_one_that_was_asked_for() -> None:
    """Thresholds, overheads, periods and switch-off points agree, and none is there that was not asked for."""
    ours = {"threshold_warning", "threshold_critical", "measurement_overhead_max", "disable_threshold_cpu"}
    periods = {"collection_frequency_normal", "collection_frequency_stressed"}
    for name, figures in ASKED.items():
        metric = catalogue.find(name)
        assert metric is not None
        assert set(figures) - {"tier"} <= ours | periods
        for key, value in (
            ("threshold_warning", None if metric.warning is None else metric.warning / metric.scale),
            ("threshold_critical", None if metric.critical is None else metric.critical / metric.scale),
            ("measurement_overhead_max", None if metric.overhead is None else metric.overhead / 1e-6),
            ("disable_threshold_cpu", metric.off_cpu or None),
        ):
            wanted = figures.get(key)
            assert value == (None if wanted is None else pytest.approx(float(wanted))), (name, key)
        if "collection_frequency_normal" in figures:
            assert metric.period(NORMAL) == seconds(figures["collection_frequency_normal"])
            assert metric.period(STRESSED) == seconds(figures["collection_frequency_stressed"])


@pytest.mark.parametrize("metric", catalogue.METRICS, ids=lambda metric: metric.asked_as)
def test_modes_change_the_period_as_the_tier_has_it(metric: catalogue.Metric) -> None:
    """HIGH_VOLATILITY: trading faster, infrastructure slower; EMERGENCY: P0 only; STRESSED: no P3."""
    normal = metric.period(NORMAL)
    assert normal == metric.normal
    assert metric.period(HIGH_VOLATILITY) == normal * (0.5 if metric.tier < 2 else 2.0)
    assert (metric.period(EMERGENCY) is None) == (metric.tier > 0)
    assert (metric.period(STRESSED) is None) == (metric.tier == 3)
    assert (metric.period(STRESSED) or math.inf) >= normal


def test_names_follow_opentelemetrys_rules() -> None:
    """Names are in our namespace, no unit is in a name, times are seconds, and no name stands twice."""
    for metric in catalogue.METRICS:
        assert re.fullmatch(r"trading(\.[a-z][a-z0-9_]*)+", metric.name)
        assert not metric.name.endswith(("_us", "_ms", "_seconds", "_percent", "_bps", "_mb", "_bytes"))
        assert metric.unit in {"s", "1", "By", "By/s", "{breach}", "{bp}", "{item}", ""}
        assert metric.source
        assert metric.description.endswith(".")
    assert len({metric.name for metric in catalogue.METRICS}) == len(catalogue.METRICS)


def test_lookup_takes_either_name() -> None:
    """Both names give the same metric, others none."""
    for metric in catalogue.METRICS:
        assert catalogue.find(metric.name) is catalogue.find(metric.asked_as) is metric
    assert catalogue.find("trading.weather") is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("order_execution_latency_us", 0.0499, "ok"),
        ("order_execution_latency_us", 0.05, "critical"),
        ("trading.market_data.staleness", 0.999, "ok"),
        ("trading.market_data.staleness", 1.2, "critical"),
        ("trading.order.reject_rate", 0.009, "ok"),
        ("trading.order.reject_rate", 0.01, "warning"),
        ("trading.order.reject_rate", 0.05, "critical"),
        ("position_risk_breach_count", 0, "ok"),
        ("position_risk_breach_count", 1, "critical"),
        ("trading.queue.size", 1e9, "ok"),
        ("trading.order.reject_rate", math.nan, "ok"),
    ],
)
def test_levels(name: str, value: float, expected: str) -> None:
    """A value is judged by its metric's thresholds; one that has none, and what is no number, are ok."""
    assert catalogue.level(name, value) == expected


def test_a_level_of_an_unknown_metric_is_an_error() -> None:
    """A name that is mistyped is not judged ok."""
    with pytest.raises(KeyError):
        catalogue.level("trading.weather", 1.0)


@pytest.mark.parametrize("metric", catalogue.METRICS, ids=lambda metric: metric.asked_as)
def test_load_and_shedding_switch_off_all_but_p0(metric: catalogue.Metric) -> None:
    """At its switch-off point a metric is off, just below it on; P0 stays on whatever comes."""
    just = metric.off_cpu / 100.0
    if metric.off_cpu:
        assert not metric.running(NORMAL, just)
        assert metric.running(NORMAL, just - 0.001)
    assert metric.running(NORMAL, math.nan)
    assert metric.running(EMERGENCY, 1.0, shed=True) == (metric.tier == 0)
    assert metric.running(NORMAL, 0.1, shed=True) == (metric.tier == 0)


def test_the_page_shows_the_catalogue() -> None:
    """The table in docs/tiers.md is the code's, row by row."""
    page = (ROOT / "docs" / "tiers.md").read_text(encoding="utf-8")
    shown = [
        tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
        for line in page.splitlines()
        if line.startswith(("| tier | metric", "| P")) and line.count("|") > 6
    ]
    assert shown == [*catalogue.table()]
