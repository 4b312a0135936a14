"""Our metrics as prometheus_client families: for ``/metrics``, or for a registry of the program's own.

Text is prometheus_client's matter; here names, units, labels, and buckets are translated by the rules with
which OpenTelemetry becomes Prometheus.
"""

from __future__ import annotations

import bisect
import math
import re
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Timestamp,
)
from prometheus_client.registry import Collector as BaseCollector

from otel_trading.drain.buckets import classic_bounds
from otel_trading.drain.histogram import ExponentialHistogram
from otel_trading.drain.series import COUNTER, GAUGE, HISTOGRAM, families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from prometheus_client.metrics_core import Metric

    from otel_trading._native import ExemplarState
    from otel_trading.drain.series import Family, Point

_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "m": "meters",
    "Cel": "celsius",
    "Hz": "hertz",
    "%": "percent",
}
_PER = {"s": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day"}


class Collector(BaseCollector):
    """A custom collector over a snapshot and the accounts; each collection takes one of both.

    Give an instance to any ``CollectorRegistry``.  A collection costs a snapshot (one pass of the drain) and some
    milliseconds for hundreds of stages.
    """

    def __init__(
        self,
        snapshot: Callable[[], Mapping[str, Any]],
        accounts: Callable[[], Sequence[Mapping[str, int]]],
        resource: Mapping[str, object] | None = None,
        refused: Callable[[str, str], None] | None = None,
        gather: Callable[[Mapping[str, Any], Sequence[Mapping[str, int]]], list[Family]] = families,
    ) -> None:
        """Take the two sources, what ``target_info`` tells, and whom to tell of a name that cannot be shown.

        ``gather`` makes the families of the two.
        """
        self._snapshot = snapshot
        self._accounts = accounts
        self._resource = resource or {}
        self._refused = refused
        self._gather = gather

    def describe(self) -> list[Metric]:
        """Return nothing: the names are known only at a collection, and registering must not cause one."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all families, each name once."""
        if self._resource:
            labels = {label_name(key): str(value) for key, value in sorted(self._resource.items())}
            yield InfoMetricFamily("target", "What the metrics are of.", labels)
        taken: dict[str, str] = {"target_info": "target_info"}
        # The stages' histogram and telemetry's own metrics come in the order of the list; a program's instrument
        # never takes a name away from them.
        for family in sorted(self._gather(self._snapshot(), self._accounts()), key=_theirs):
            metric = translated(family)
            names = _series_names(metric.name, family.kind)
            clash = next((name for name in names if name in taken), None)
            if clash is not None:
                if self._refused is not None:
                    self._refused(
                        f"prometheus.{family.name}",
                        f"metric {family.name!r} is missing from /metrics: its series {clash!r} would be those of "
                        f"{taken[clash]!r}. Rename the instrument.",
                    )
                continue
            taken.update(dict.fromkeys(names, family.name))
            yield metric


def _theirs(family: Family) -> bool:
    return not family.name.startswith(("trading.stage.", "trading.telemetry.", "trading.monitoring.", "trading.keep."))


def _series_names(name: str, kind: int) -> tuple[str, ...]:
    """Return all names in an exposition that belong to a family, its own included."""
    if kind == COUNTER:
        return (name, name + "_total", name + "_created")
    if kind == HISTOGRAM:
        return (name, name + "_bucket", name + "_count", name + "_sum", name + "_created")
    return (name,)


def translated(family: Family) -> Metric:
    """Return a family as prometheus_client's; Prometheus sees an empty label as an absent one."""
    name, unit = prometheus_name(family.name, family.unit, family.kind)
    reserved = ("le",) if family.kind == HISTOGRAM else ()
    labels = sorted({label_name(key, reserved) for point in family.points for key in point.attributes})
    # OpenMetrics wants a help text for every family.
    text = family.description or family.name
    found: Metric
    if family.kind == HISTOGRAM:
        found = HistogramMetricFamily(name, text, labels=labels, unit=unit)
        for point, values in _merged(family.points, labels, reserved):
            _add_histogram(found, point, values, classic_bounds(family.unit))
    elif family.kind == COUNTER:
        found = CounterMetricFamily(name, text, labels=labels, unit=unit)
        for point, values in _merged(family.points, labels, reserved):
            found.add_metric(values, _number(point))
    else:
        found = GaugeMetricFamily(name, text, labels=labels, unit=unit)
        for point, values in _merged(family.points, labels, reserved):
            found.add_metric(values, _number(point))
    return found


def _merged(
    points: Sequence[Point], labels: Sequence[str], reserved: tuple[str, ...]
) -> Iterator[tuple[Point, list[str]]]:
    """Yield points with their labels' values; of points that only Prometheus cannot tell apart, the first."""
    seen: set[tuple[str, ...]] = set()
    for point in points:
        values = dict.fromkeys(labels, "")
        for key, value in sorted(point.attributes.items()):
            label, shown = label_name(key, reserved), _label_value(value)
            # Two attributes that become one label share it, as OpenTelemetry's rules have it.
            values[label] = f"{values[label]};{shown}" if values[label] else shown
        if (identity := tuple(values.values())) not in seen:
            seen.add(identity)
            yield point, list(values.values())


def _label_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(point: Point) -> float:
    return float("nan") if isinstance(point.value, ExponentialHistogram) else point.value


def _add_histogram(
    family: HistogramMetricFamily, point: Point, labels: Sequence[str], bounds: tuple[float, ...]
) -> None:
    histogram = point.value
    if not isinstance(histogram, ExponentialHistogram):
        return
    counts = [*histogram.cumulative(bounds), histogram.count]
    exemplars = _placed(point.exemplars, bounds)
    buckets = [
        (_bound(bound), count) if exemplar is None else (_bound(bound), count, exemplar)
        for bound, count, exemplar in zip((*bounds, math.inf), counts, exemplars, strict=True)
    ]
    # With negative observations a sum can fall, which a counter must not: then it is left out, as OpenMetrics asks.
    family.add_metric(labels, buckets, None if histogram.negative else histogram.sum)


def _bound(bound: float) -> str:
    return "+Inf" if bound == math.inf else str(bound)


def _placed(exemplars: Sequence[ExemplarState], bounds: tuple[float, ...]) -> list[Exemplar | None]:
    """Return each classic bucket's exemplar: the newest of those in it."""
    newest: list[ExemplarState | None] = [None] * (len(bounds) + 1)
    for exemplar in exemplars:
        bucket = bisect.bisect_left(bounds, exemplar[0])
        former = newest[bucket]
        if former is None or former[3] < exemplar[3]:
            newest[bucket] = exemplar
    return [None if state is None else _exemplar(state) for state in newest]


def _exemplar(state: ExemplarState) -> Exemplar:
    value, trace_id, span_id, unix_ns = state
    labels = {"trace_id": f"{trace_id:032x}", "span_id": f"{span_id:016x}"} if trace_id else {}
    return Exemplar(labels, value, Timestamp(*divmod(unix_ns, 1_000_000_000)))


def prometheus_name(name: str, unit: str, kind: int) -> tuple[str, str]:
    """Return the family's name, unit suffix included but without ``_total``, and the unit."""
    found = re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9_:]", "_", name)).strip("_") or "_"
    if found[0].isdigit():
        found = f"_{found}"
    suffix = unit_suffix(unit, kind)
    if kind == COUNTER:
        found = found.removesuffix("_total") or "_"
    if suffix and not (found == suffix or found.endswith(f"_{suffix}")):
        found = f"{found}_{suffix}"
    return found, suffix if found.endswith(f"_{suffix}") else ""


def unit_suffix(unit: str, kind: int) -> str:
    """Return what Prometheus calls a UCUM unit: ``s`` → seconds, ``By/s`` → bytes_per_second, ``{span}`` → nothing."""
    unit = re.sub(r"\{[^}]*\}", "", unit).strip()
    if unit == "1":
        return "ratio" if kind == GAUGE else ""
    first, slash, second = unit.partition("/")
    parts = [_clean(_UNITS.get(first.strip(), first))]
    if slash and second.strip():
        parts += ["per", _clean(_PER.get(second.strip(), second))]
    return "_".join(part for part in parts if part)


def _clean(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "_", text).strip("_")


def label_name(key: str, reserved: tuple[str, ...] = ()) -> str:
    """Return an attribute's name as a label's; ``reserved`` ones get an underscore."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", key)
    if name.startswith("__"):
        # Prometheus keeps labels that begin so to itself.
        name = "key" + name
    if not name or name[0].isdigit():
        name = f"key_{name}"
    return f"{name}_" if name in reserved else name
