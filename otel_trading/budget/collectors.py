"""The built-in metrics that are not recorded as they happen: worked out when somebody collects, never before.

Nothing here has a thread, or is called by the trading path.  Each metric is worked out at most once in its period of
the present mode, however many exporters and scrapes ask, and not at all where its tier is shed or the system's CPU
load is above its switch-off point (back on 5 points below).
"""

from __future__ import annotations

import math
import os
import time

from otel_trading._real_threads import real_threading
from otel_trading.budget import catalogue
from otel_trading.budget.modes import NORMAL
from otel_trading.drain.histogram import ExponentialHistogram
from otel_trading.drain.series import COUNTER, GAUGE, HISTOGRAM, Family, Point

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from otel_trading.budget.markets import Markets
    from otel_trading.budget.readings import Reading, Readings

_BACK_ON = 0.05  # of CPU load below the switch-off point
_ACK, _FILL, _SUBMIT, _REJECT, _BREACH = "order.ack", "order.fill", "order.submit", "order.reject", "risk.breach"
_LEVELS = {catalogue.OK: 0, catalogue.WARNING: 1, catalogue.CRITICAL: 2}
_MBIT = 125_000.0  # bytes a second
_IO, _NET, _SPEEDS = "/proc/self/io", "/proc/net/dev", "/sys/class/net"
_MOST_INTERFACES = 64


class Situation:
    """What one collection sees."""

    __slots__ = ("now", "probes", "reading", "segment", "unix_ns")

    def __init__(self, snapshot: Mapping[str, Any], reading: Reading | None, now: float) -> None:
        """Take the probes of our own scope out of a snapshot, by name."""
        self.now = now  # seconds, monotonic
        self.unix_ns: int = snapshot["unix_ns"]
        self.reading = reading
        self.probes = {probe["name"]: probe for probe in snapshot["probes"] if not probe["scope"]}
        self.segment: Mapping[str, Any] = snapshot["segment"]

    def count(self, name: str, window: str | None = None) -> int:
        """Spans of a probe, all or those of a window."""
        probe = self.probes.get(name)
        if probe is None:
            return 0
        return int(probe["windows"][window][1] if window else probe["count"])


class Collectors:
    """The collectors of this process; usable from any thread, never raises.  A collection takes some 100 µs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing known; ``clock`` gives seconds."""
        self._clock = clock
        self._lock = real_threading().Lock()
        self._made: dict[str, tuple[float, list[Family]]] = {}
        self._off: set[str] = set()
        self._levels: dict[str, int] = {}
        self._rates = Rates()
        self._files = Files()
        self._ways: dict[str, Callable[[Situation], list[Family]]] = {
            "trading.order.execution.latency": self._latency,
            "trading.market_data.staleness": self._staleness,
            "trading.order.reject_rate": self._reject_rate,
            "trading.risk.breaches": self._breaches,
            "trading.memory.usage": self._memory,
            "trading.queue.size": self._queues,
            "trading.disk.io.rate": self._disk,
            "trading.network.io.rate": self._network,
            "trading.gc.pause": self._collections,
        }

    def families(self, snapshot: Mapping[str, Any], reading: Reading | None = None) -> list[Family]:
        """Give what is to be exported beside the recorder's own families, which ``snapshot`` is of.

        ``reading`` is the governor's of this process; it is read where none is given.
        """
        now = self._clock()
        with self._lock:
            if reading is None:
                reading = self._files.reading()
            situation = Situation(snapshot, reading, now)
            found: list[Family] = []
            for name, way in self._ways.items():
                metric = catalogue.find(name)
                assert metric is not None  # noqa: S101  the table is ours
                if not self._running(metric, reading):
                    self._made.pop(name, None)
                    continue
                found += self._made_in_time(metric, way, situation)
            return [*found, self._level_family()]

    def close(self) -> None:
        """Let the segment's file go; it is opened again where somebody collects again.  Idempotent."""
        with self._lock:
            self._files.close()

    def _made_in_time(
        self, metric: catalogue.Metric, way: Callable[[Situation], list[Family]], situation: Situation
    ) -> list[Family]:
        mode = NORMAL if situation.reading is None else situation.reading.mode
        period = metric.period(mode) or 0.0
        made = self._made.get(metric.name)
        if made is not None and situation.now - made[0] < period:
            return made[1]
        try:
            families = way(situation)
        except Exception as error:  # noqa: BLE001  one that fails must not take the others with it
            from otel_trading.faults import report

            report(f"collect:{metric.name}", f"{metric.name} can not be told: {error!r}")
            families = []
        self._made[metric.name] = situation.now, families
        return families

    def _running(self, metric: catalogue.Metric, reading: Reading | None) -> bool:
        if reading is None:
            return True
        load = reading.cpu_load + (_BACK_ON if metric.name in self._off else 0.0)
        running = metric.running(reading.mode, load, shed=reading.rates[metric.tier] <= 0.0)
        (self._off.discard if running else self._off.add)(metric.name)
        return running

    def _judge(self, name: str, value: float) -> None:
        self._levels[name] = _LEVELS[catalogue.level(name, value)]

    def _level_family(self) -> Family:
        points = [Point({"trading.metric": name}, level) for name, level in sorted(self._levels.items())]
        told = "How a built-in metric stands to its thresholds: 0 ok, 1 warning, 2 critical."
        return Family("trading.metric.level", GAUGE, "1", told, points)

    # ---- P0: from what is recorded ----

    def _latency(self, situation: Situation) -> list[Family]:
        family = _family("trading.order.execution.latency", HISTOGRAM)
        worst = math.nan
        for name, event in ((_ACK, "ack"), (_FILL, "fill")):
            probe = situation.probes.get(name)
            if probe is not None and probe["count"]:
                total = ExponentialHistogram.from_state(probe["total"])
                family.add(Point({"trading.order.event": event}, total, probe["exemplars"]))
                recent = ExponentialHistogram.from_state(probe["windows"]["1m"]).quantile(0.99)
                worst = recent if math.isnan(worst) or recent > worst else worst
        self._judge(family.name, worst)
        return [family]

    def _staleness(self, situation: Situation) -> list[Family]:
        family = _family("trading.market_data.staleness", GAUGE)
        oldest = math.nan
        for market in self._files.markets():
            stamp = market.exchange_ns or market.received_ns
            if stamp and market.symbol:
                age = (situation.unix_ns - stamp) / 1e9
                family.add(Point({"trading.symbol": market.symbol}, age))
                oldest = age if math.isnan(oldest) or age > oldest else oldest
        self._judge(family.name, oldest)
        return [family]

    def _reject_rate(self, situation: Situation) -> list[Family]:
        family = _family("trading.order.reject_rate", GAUGE)
        recent = math.nan
        for label, window in (("total", None), ("1m", "1m")):
            sent, rejected = situation.count(_SUBMIT, window), situation.count(_REJECT, window)
            if sent or rejected:
                # An order of the minute before may be rejected in this one.
                recent = min(1.0, rejected / sent) if sent else 1.0
                family.add(Point({"window": label}, recent))
        self._judge(family.name, recent)
        return [family]

    def _breaches(self, situation: Situation) -> list[Family]:
        """Judge them only: the counter itself is an instrument, recorded as they happen."""
        self._judge("trading.risk.breaches", situation.count(_BREACH))
        return []

    # ---- P2, P3: looked up ----

    def _memory(self, situation: Situation) -> list[Family]:
        family = _family("trading.memory.usage", GAUGE)
        process = _resident()
        if process is not None:
            family.add(Point({"trading.component": "process"}, process))
        heap = 0.0 if situation.reading is None else situation.reading.memory_heap
        recorder = situation.segment["resident_bytes"] + (0 if math.isnan(heap) else int(heap))
        family.add(Point({"trading.component": "recorder"}, recorder))
        exporters = self._files.exporter_memory()
        if exporters:
            family.add(Point({"trading.component": "exporters"}, int(exporters)))
        return [family]

    def _queues(self, _situation: Situation) -> list[Family]:
        from otel_trading._backend import core

        return [_family("trading.queue.size", GAUGE, [Point({"trading.queue": "export"}, core.kept())])]

    def _disk(self, situation: Situation) -> list[Family]:
        family = _family("trading.disk.io.rate", GAUGE)
        for key, direction in (("read_bytes", "read"), ("write_bytes", "write")):
            rate = self._rates.of(f"disk {direction}", disk_bytes().get(key), situation.now)
            if rate is not None:
                family.add(Point({"disk.io.direction": direction}, rate))
        return [family]

    def _network(self, situation: Situation) -> list[Family]:
        rates = _family("trading.network.io.rate", GAUGE)
        told = "Share of an interface's speed that is in use, where the system knows the speed."
        shares = Family("trading.network.utilization", GAUGE, "1", told)
        for interface, (received, sent) in network_bytes().items():
            speed = _speed(interface)
            for direction, count in (("receive", received), ("transmit", sent)):
                rate = self._rates.of(f"{interface} {direction}", count, situation.now)
                if rate is None:
                    continue
                attributes = {"network.interface.name": interface, "network.io.direction": direction}
                rates.add(Point(attributes, rate))
                if speed:
                    shares.add(Point(attributes, rate / speed))
        return [rates, shares]

    def _collections(self, _situation: Situation) -> list[Family]:
        import gc

        collections = Family("trading.gc.collections", COUNTER, "{collection}", "Garbage collections.")
        objects = Family("trading.gc.collected", COUNTER, "{object}", "Objects that garbage collections freed.")
        for generation, stats in enumerate(gc.get_stats()):
            attributes = {"trading.gc.generation": generation}
            collections.add(Point(attributes, stats["collections"]))
            objects.add(Point(attributes, stats["collected"]))
        return [collections, objects]


def join(found: Iterable[Family], more: Iterable[Family]) -> list[Family]:
    """Put both lists together; where both have a metric of one name and kind, its points are in one family."""
    joined = list(found)
    known = {(family.name, family.kind): family for family in joined}
    for family in more:
        same = known.get((family.name, family.kind))
        if same is None:
            joined.append(family)
        else:
            for point in family.points:
                same.add(point)
    return joined


def _family(name: str, kind: int, points: Iterable[Point] = ()) -> Family:
    metric = catalogue.find(name)
    assert metric is not None  # noqa: S101  the names are ours
    return Family(name, kind, metric.unit, metric.description, points)


class Rates:
    """Totals that grow, as rates a second since they were last seen."""

    def __init__(self) -> None:
        """Begin with none seen."""
        self._before: dict[str, tuple[float, int]] = {}

    def of(self, key: str, total: int | None, now: float) -> float | None:
        """Give the rate; None at the first sight, and where the total is not known or began anew."""
        if total is None:
            return None
        before = self._before.get(key)
        self._before[key] = now, total
        if before is None or now <= before[0] or total < before[1]:
            return None
        return (total - before[1]) / (now - before[0])


class Files:
    """This process's own segment, read as any other process could; opened once, and again when it is another one."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._path: str | None = None
        self._readings: Readings | None = None
        self._markets: Markets | None = None

    def _follow(self) -> bool:
        from otel_trading import lifecycle

        path = lifecycle.own_segment()
        if path != self._path:
            self.close()
            self._path = path
        return path is not None

    def close(self) -> None:
        """Let the files go."""
        for file in (self._readings, self._markets):
            if file is not None:
                file.close()
        self._readings = self._markets = None

    def reading(self) -> Reading | None:
        """Give the governor's reading; None where nothing is governed."""
        try:
            if not self._follow():
                return None
            if self._readings is None:
                from otel_trading.budget.readings import Readings

                assert self._path is not None  # noqa: S101  _follow says so
                self._readings = Readings(self._path)
            reading = self._readings.read()
        except Exception:  # noqa: BLE001  without it everything is collected, as in NORMAL
            return None
        return reading

    def markets(self) -> list[Any]:
        """Give the market table; empty where there is none."""
        if not self._follow():
            return []
        if self._markets is None:
            from otel_trading.budget.markets import Markets

            assert self._path is not None  # noqa: S101  _follow says so
            self._markets = Markets(self._path)
        return self._markets.read()

    def exporter_memory(self) -> float:
        """Give what the exporters' libraries took, in bytes, as it was measured when they were loaded; 0: not known."""
        if not self._follow():
            return 0.0
        from otel_trading.budget.policy import Policy

        assert self._path is not None  # noqa: S101  _follow says so
        with Policy(self._path) as policy:
            return policy.number("exporter_memory")


# ---- what the system tells; each gives nothing where it does not -----------------------------------


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 16).splitlines()
    except OSError:
        return []


def disk_bytes(path: str = _IO) -> dict[str, int]:
    """Give what this process has read from storage and written to it so far: ``read_bytes``, ``write_bytes``."""
    pairs = (line.partition(":") for line in _lines(path))
    return {key: int(value) for key, _, value in pairs if value.strip().isdecimal()}


def network_bytes(path: str = _NET) -> dict[str, tuple[int, int]]:
    """Give {interface: (bytes received, bytes sent)} so far, of all but the loopback; at most 64."""
    found: dict[str, tuple[int, int]] = {}
    for line in _lines(path):
        name, colon, rest = line.partition(":")
        fields = rest.split()
        if colon and len(fields) >= 16 and name.strip() != "lo" and len(found) < _MOST_INTERFACES:  # noqa: PLR2004
            try:
                found[name.strip()] = int(fields[0]), int(fields[8])
            except ValueError:
                continue
    return found


def _speed(interface: str) -> float | None:
    """Give an interface's speed in bytes a second; virtual ones have none."""
    text = "".join(_lines(os.path.join(_SPEEDS, interface, "speed"))[:1])
    return int(text) * _MBIT if text.isdecimal() and int(text) > 0 else None


def _resident() -> int | None:
    fields = "".join(_lines("/proc/self/statm")[:1]).split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None
