"""The budget's own metrics: mode, use and limits, what was given up, what the keep rules do.  All of tier P0."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otel_trading import _layout as at
from otel_trading._real_threads import real_threading
from otel_trading.budget.modes import BUDGETS, MODES, TRIGGERS
from otel_trading.budget.policy import Policy
from otel_trading.budget.readings import Readings
from otel_trading.drain.series import COUNTER, GAUGE, Family, Point, tier_name

threading = real_threading()

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_trading.budget.readings import Reading

    Numbers = Iterable[tuple[dict[str, str], float]]

_USES = (
    ("cpu", "1", "CPU time that monitoring takes, a share of one core"),
    ("memory", "By", "Memory that monitoring takes"),
    ("latency", "s", "What monitoring adds to an operation"),
    ("network", "By/s", "What monitoring sends"),
    ("disk", "{operation}/s", "What monitoring writes"),
)
"""By OT_BUDGET_*: name, unit, text."""


class BudgetMetrics:
    """Makes the families of one segment's readings; for any thread, and some 0.2 ms a time.

    Raises what ``Readings`` and ``Policy`` raise for a file that is none, or not there.
    """

    def __init__(self, path: str) -> None:
        """Open the segment's pages."""
        self._lock = threading.Lock()
        self._readings = Readings(path)
        try:
            self._policy = Policy(path)
        except BaseException:
            self._readings.close()
            raise
        self._closed = False

    def close(self) -> None:
        """Let the file go: there are no families from then on.  Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._readings.close()
                self._policy.close()

    def families(self) -> list[Family]:
        """Return all families; none while nothing is governed."""
        with self._lock:
            if self._closed or not self._policy.active:
                return []
            reading = self._readings.read()
            limits = self._policy.limits(reading.mode % at.MODES)
            exporters = self._policy.number("exporter_memory")
            base = self._policy.number("base_memory")
        return [*_monitoring(reading, limits, exporters, base), *_keep(reading)]


def _gauge(name: str, unit: str, description: str, numbers: Numbers) -> Family:
    """Make a gauge; what can not be told, and what has no limit, has no point."""
    return _made(GAUGE, name, unit, description, numbers)


def _counter(name: str, unit: str, description: str, numbers: Numbers) -> Family:
    return _made(COUNTER, name, unit, description, numbers)


def _made(kind: int, name: str, unit: str, description: str, numbers: Numbers) -> Family:
    points = [Point(attributes, value) for attributes, value in numbers if math.isfinite(value)]
    return Family(name, kind, unit, description, points)


def _monitoring(reading: Reading, limits: dict[str, float], exporters: float, base: float) -> Iterable[Family]:
    yield _gauge(
        "trading.monitoring.mode",
        "",
        "1 for the mode that is in force, 0 for the others.",
        [({"trading.mode": name}, int(number == reading.mode)) for number, name in enumerate(MODES)],
    )
    for (name, unit, text), used in zip(_USES, reading.usage, strict=True):
        yield _gauge(f"trading.monitoring.{name}.usage", unit, f"{text}, over the budget's window.", [({}, used)])
        yield _gauge(
            f"trading.monitoring.{name}.limit", unit, f"{text}, at most, in the present mode.", [({}, limits[name])]
        )
    yield _gauge(
        "trading.monitoring.cpu.part",
        "1",
        "CPU time that monitoring takes, by who takes it: the recording threads (hot), drain, export, governor.",
        [
            ({"part": "hot"}, reading.cpu_hot),
            ({"part": "drain"}, reading.cpu_drain),
            ({"part": "export"}, reading.cpu_export),
            ({"part": "governor"}, reading.cpu_governor),
        ],
    )
    yield _counter(
        "trading.monitoring.cpu.time", "s", "CPU time that monitoring has taken.", [({}, reading.cpu_total_ns / 1e9)]
    )
    yield _gauge(
        "trading.monitoring.memory.part",
        "By",
        "Memory that monitoring takes: segment, the drain's tables and queues (heap), what the package took before it"
        " recorded (base), and, not held to the limit, the exporters' libraries (exporters).",
        [
            ({"part": "segment"}, reading.memory_segment),
            ({"part": "heap"}, reading.memory_heap),
            ({"part": "base"}, base),
            ({"part": "exporters"}, exporters),
        ],
    )
    yield _counter("trading.monitoring.network.io", "By", "Bytes sent by exporters.", [({}, reading.network_total)])
    yield _counter(
        "trading.monitoring.disk.operations", "{operation}", "Writes to disk by monitoring.", [({}, reading.disk_total)]
    )
    yield _counter(
        "trading.monitoring.violations",
        "{violation}",
        "Times that monitoring exceeded its budget.",
        [({"resource": name}, count) for name, count in zip(BUDGETS, reading.violations, strict=True)],
    )
    yield _gauge("trading.monitoring.steps", "{step}", "Steps in force to keep the budget.", [({}, reading.steps)])
    yield _gauge(
        "trading.monitoring.tier.rate",
        "1",
        "Share of its traces that a tier records: 0 where it is off.",
        [({"trading.tier": tier_name(tier)}, rate) for tier, rate in enumerate(reading.rates)],
    )
    yield _gauge(
        "trading.monitoring.buffers",
        "1",
        "Size of the rings, a share of what is configured.",
        [({}, 0.5 ** min(reading.buffers, 64))],
    )
    yield _gauge(
        "trading.monitoring.pressure",
        "1",
        "What the process may use and is in use (load), and share of the time that somebody waited for it (stall).",
        [
            ({"resource": "cpu", "kind": "load"}, reading.cpu_load),
            ({"resource": "memory", "kind": "load"}, reading.memory_load),
            ({"resource": "cpu", "kind": "stall"}, reading.cpu_stall),
            ({"resource": "memory", "kind": "stall"}, reading.memory_stall),
        ],
    )
    yield _gauge(
        "trading.monitoring.market.volatility",
        "1",
        "A year's volatility by the last minute's returns, of the symbol where it is highest.",
        [({}, reading.volatility)],
    )
    yield _gauge(
        "trading.monitoring.market.volume", "1", "That symbol's volume, to what is usual.", [({}, reading.volume)]
    )
    yield _gauge(
        "trading.monitoring.blind", "", "1 while the engine can not tell the pressure.", [({}, int(reading.failed))]
    )


def _by_trigger(counts: tuple[int, ...]) -> Numbers:
    return [({"trigger": name}, count) for name, count in zip(TRIGGERS, counts, strict=True)]


def _keep(reading: Reading) -> Iterable[Family]:
    yield _gauge("trading.keep.horizon", "s", "How far back a trace can still be kept whole.", [({}, reading.horizon)])
    yield _gauge("trading.keep.tokens", "By", "Bytes of traces that may be kept at once.", [({}, reading.tokens)])
    yield _gauge(
        "trading.keep.threshold",
        "1",
        "Share of the plain traces of a tier that is not kept.",
        [({"trading.tier": tier_name(tier)}, share) for tier, share in enumerate(reading.thresholds)],
    )
    yield _counter("trading.keep.traces", "{trace}", "Traces that were kept, by what for.", _by_trigger(reading.kept))
    yield _counter(
        "trading.keep.missed",
        "{trace}",
        "Traces with a trigger that its limit, or the bucket, left out.",
        _by_trigger(reading.missed),
    )
    yield _counter("trading.keep.dropped", "{trace}", "Plain traces that were left out.", [({}, reading.dropped)])
