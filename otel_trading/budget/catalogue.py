"""The built-in metrics: tier, unit, how often each is made, where it becomes a warning, and when it is switched off.

Each has the name that the people who asked for it use (``order_execution_latency_us``) and OpenTelemetry's
(``trading.order.execution.latency``, seconds); ``find`` takes both.  All figures here are in our units; ``scale``
leads from the other name's.
"""

from __future__ import annotations

from typing import NamedTuple

from otel_trading import _layout as at
from otel_trading.budget.modes import EMERGENCY, HIGH_VOLATILITY, NORMAL, STRESSED

OK, WARNING, CRITICAL = "ok", "warning", "critical"

COUNTER, GAUGE, HISTOGRAM = at.INSTRUMENT_COUNTER, at.INSTRUMENT_GAUGE, at.INSTRUMENT_HISTOGRAM

_FASTER, _SLOWER = 0.5, 2.0
_TRADING = (0, 1)  # tiers; the others are infrastructure


class Metric(NamedTuple):
    """One metric of the catalogue.  Times are seconds, shares are from 0 to 1, sizes are bytes."""

    name: str
    """OpenTelemetry's."""
    asked_as: str
    """The other name, with its unit at the end."""
    tier: int
    kind: int
    unit: str
    scale: float
    """One unit of ``asked_as``, in ``unit``."""
    normal: float
    """Seconds between two values in NORMAL; of what is recorded as it happens, between two looks at it."""
    stressed: float | None
    """The same in STRESSED; None: it is off."""
    warning: float | None
    critical: float | None
    """A value that is not below it is critical."""
    overhead: float | None
    """Seconds that making one value may take."""
    off_cpu: int
    """Percent of the system's CPU load from which it is off; 0: the load does not switch it off."""
    source: str
    """Where the value comes from."""
    description: str

    def period(self, mode: int) -> float | None:
        """Seconds between two values in a mode (0 NORMAL … 3 EMERGENCY); None: it is off."""
        if mode == EMERGENCY:
            return self.stressed if self.tier == 0 else None
        if mode == STRESSED:
            return self.stressed
        if mode == HIGH_VOLATILITY:
            return self.normal * (_FASTER if self.tier in _TRADING else _SLOWER)
        return self.normal

    def running(self, mode: int, cpu_load: float, *, shed: bool = False) -> bool:
        """Whether it is made at all: its mode, the system's CPU load (0 to 1, NaN: not known), its tier."""
        if self.tier == 0:
            return True
        return self.period(mode) is not None and not shed and not (self.off_cpu and cpu_load * 100.0 >= self.off_cpu)


METRICS: tuple[Metric, ...] = (
    Metric(
        name="trading.order.execution.latency",
        asked_as="order_execution_latency_us",
        tier=0,
        kind=HISTOGRAM,
        unit="s",
        scale=1e-6,
        normal=1.0,
        stressed=1.0,
        warning=None,
        critical=0.05,
        overhead=1e-4,
        off_cpu=0,
        source="spans `order.ack` and `order.fill` of `ot.order`",
        description="From the sending of an order to its ack, and to each of its fills.",
    ),
    Metric(
        name="trading.market_data.staleness",
        asked_as="market_data_staleness_ms",
        tier=0,
        kind=GAUGE,
        unit="s",
        scale=1e-3,
        normal=1.0,
        stressed=1.0,
        warning=None,
        critical=1.0,
        overhead=5e-5,
        off_cpu=0,
        source="`ot.market_data`: the newest update's stamp, to now",
        description="How old the newest market data of a symbol is, by the exchange's stamp.",
    ),
    Metric(
        name="trading.order.reject_rate",
        asked_as="order_reject_rate_percent",
        tier=0,
        kind=GAUGE,
        unit="1",
        scale=1e-2,
        normal=1.0,
        stressed=1.0,
        warning=0.01,
        critical=0.05,
        overhead=None,
        off_cpu=0,
        source="spans `order.reject` to spans `order.submit` of `ot.order`",
        description="Share of the orders that were rejected: of all, and of the last minute's.",
    ),
    Metric(
        name="trading.risk.breaches",
        asked_as="position_risk_breach_count",
        tier=0,
        kind=COUNTER,
        unit="{breach}",
        scale=1.0,
        normal=1.0,
        stressed=1.0,
        warning=None,
        critical=1.0,
        overhead=None,
        off_cpu=0,
        source="`ot.risk_breach`",
        description="Breaches of risk limits.",
    ),
    Metric(
        name="trading.liquidity.utilization",
        asked_as="liquidity_utilization_percent",
        tier=1,
        kind=GAUGE,
        unit="1",
        scale=1e-2,
        normal=1.0,
        stressed=10.0,
        warning=None,
        critical=None,
        overhead=None,
        off_cpu=0,
        source='the program: `ot.gauge("liquidity.utilization", unit="1")`',
        description="Share of the available liquidity that orders take.",
    ),
    Metric(
        name="trading.order.slippage",
        asked_as="slippage_actual_vs_expected_bps",
        tier=1,
        kind=HISTOGRAM,
        unit="{bp}",
        scale=1.0,
        normal=1.0,
        stressed=5.0,
        warning=None,
        critical=None,
        overhead=None,
        off_cpu=0,
        source="fills of `ot.order` with a price",
        description="How much worse than the order's price a fill was, in basis points.",
    ),
    Metric(
        name="trading.pnl.realized",
        asked_as="pnl_real_time_delta",
        tier=1,
        kind=GAUGE,
        unit="",
        scale=1.0,
        normal=0.1,
        stressed=1.0,
        warning=None,
        critical=None,
        overhead=None,
        off_cpu=0,
        source="`ot.pnl`",
        description="Profit and loss since the start, in the account's currency.",
    ),
    Metric(
        name="trading.memory.usage",
        asked_as="memory_usage_per_component_mb",
        tier=2,
        kind=GAUGE,
        unit="By",
        scale=1e6,
        normal=5.0,
        stressed=10.0,
        warning=None,
        critical=None,
        overhead=None,
        off_cpu=80,
        source="the process's status and the meter",
        description="Memory by component: the process, the recorder, the exporters' libraries.",
    ),
    Metric(
        name="trading.cache.hit_ratio",
        asked_as="cache_hit_rates_percent",
        tier=2,
        kind=GAUGE,
        unit="1",
        scale=1e-2,
        normal=5.0,
        stressed=10.0,
        warning=None,
        critical=None,
        overhead=None,
        off_cpu=85,
        source='the program: `ot.gauge("cache.hit_ratio", tier=ot.P2, unit="1")`',
        description="Share of a cache's look-ups that found something.",
    ),
    Metric(
        name="trading.queue.size",
        asked_as="queue_sizes_items",
        tier=2,
        kind=GAUGE,
        unit="{item}",
        scale=1.0,
        normal=5.0,
        stressed=10.0,
        warning=None,
        critical=None,
        overhead=None,
        off_cpu=80,
        source='the queue to the exporters; the program: `ot.gauge("queue.size", tier=ot.P2, unit="{item}")`',
        description="Items that wait in a queue.",
    ),
    Metric(
        name="trading.disk.io.rate",
        asked_as="disk_io_rates",
        tier=3,
        kind=GAUGE,
        unit="By/s",
        scale=1.0,
        normal=10.0,
        stressed=None,
        warning=None,
        critical=None,
        overhead=None,
        off_cpu=70,
        source="/proc/self/io",
        description="Bytes a second that the process reads from storage, and writes to it.",
    ),
    Metric(
        name="trading.network.io.rate",
        asked_as="network_bandwidth_utilization",
        tier=3,
        kind=GAUGE,
        unit="By/s",
        scale=1.0,
        normal=10.0,
        stressed=None,
        warning=None,
        critical=None,
        overhead=None,
        off_cpu=75,
        source="/proc/net/dev",
        description="Bytes a second through the machine's network interfaces.",
    ),
    Metric(
        name="trading.gc.pause",
        asked_as="gc_statistics",
        tier=3,
        kind=HISTOGRAM,
        unit="s",
        scale=1.0,
        normal=10.0,
        stressed=None,
        warning=None,
        critical=None,
        overhead=None,
        off_cpu=60,
        source="the recorder, at each collection",
        description="Pause of the application by a garbage collection.",
    ),
)
"""By tier, then in the order in which they were asked for."""

_BY_NAME = {name: metric for metric in METRICS for name in (metric.name, metric.asked_as)}


def find(name: str) -> Metric | None:
    """Give the metric of either name; None for one that is not in the catalogue."""
    return _BY_NAME.get(name)


def level(metric: Metric | str, value: float) -> str:
    """Judge a value, in the metric's own unit: ``ok``, ``warning`` or ``critical``.

    Critical and warning begin at their thresholds; a NaN is ``ok``, as there is nothing to judge.  KeyError for a
    name that is not in the catalogue.
    """
    found = _BY_NAME[metric] if isinstance(metric, str) else metric
    if found.critical is not None and value >= found.critical:
        return CRITICAL
    if found.warning is not None and value >= found.warning:
        return WARNING
    return OK


def table() -> list[tuple[str, ...]]:
    """Give the rows of the table in docs/tiers.md, its head first."""
    head = (
        "tier", "metric", "asked for as", "unit", "NORMAL", "HIGH_VOLATILITY", "STRESSED", "EMERGENCY", "warning",
        "critical", "off from CPU",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = [head]
    for metric in METRICS:
        periods = (metric.period(mode) for mode in (NORMAL, HIGH_VOLATILITY, STRESSED, EMERGENCY))
        rows.append(
            (
                f"P{metric.tier}",
                f"`{metric.name}`",
                f"`{metric.asked_as}`",
                metric.unit,
                *("off" if period is None else f"{period:g} s" for period in periods),
                *(_shown(limit, metric.unit) for limit in (metric.warning, metric.critical)),
                f"{metric.off_cpu} %" if metric.off_cpu else "",
            )
        )
    return rows


def _shown(limit: float | None, unit: str) -> str:
    if limit is None:
        return ""
    if unit == "1":
        return f"{limit * 100:g} %"
    return f"{limit:g} s" if unit == "s" else f"{limit:g}"
