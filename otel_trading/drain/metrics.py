"""Our metrics as OpenTelemetry's data model has them, for any push exporter.

Histograms stay exponential, at the scale at which they were recorded, however many buckets that takes.  Where
``OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`` asks for explicit buckets by name, they have exact
power-of-two buckets instead.
"""

from __future__ import annotations

import math
import os
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from otel_trading.drain import metric_model as model
from otel_trading.drain.buckets import classic_bounds
from otel_trading.drain.histogram import ExponentialHistogram
from otel_trading.drain.metric_model import AggregationTemporality, Metric, MetricsData, NumberDataPoint
from otel_trading.drain.scopes import SCOPE
from otel_trading.drain.series import COUNTER, GAUGE, HISTOGRAM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from otel_trading._native import ExemplarState
    from otel_trading.drain.series import Family, Point

    _Key = tuple[str, int, frozenset[tuple[str, Any]]]

_AGGREGATION = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"


def explicit_wanted() -> bool:
    """Tell whether the standard variable asks for explicit buckets by name."""
    return os.environ.get(_AGGREGATION, "").strip().lower() == "explicit_bucket_histogram"


class Stream:
    """What one exporter is sent: its temporality, and for delta what it has been sent before."""

    def __init__(
        self,
        resource: model.Resource,
        sums: AggregationTemporality = AggregationTemporality.CUMULATIVE,
        histograms: AggregationTemporality = AggregationTemporality.CUMULATIVE,
        *,
        explicit: bool = False,
    ) -> None:
        """Take what all data is of, the temporalities, and whether histograms have explicit buckets."""
        self._resource = resource
        self._sums = sums
        self._histograms = histograms
        self._explicit = explicit
        self._sent: dict[_Key, int | float | ExponentialHistogram] = {}
        self._sent_ns = 0
        self._ahead: dict[_Key, int] = {}  # of points whose last delta was taken when others' were not
        self._offered: dict[_Key, int | float | ExponentialHistogram] = {}
        self._offered_ns = 0

    def data(self, found: Sequence[Family], start_ns: int, now_ns: int) -> MetricsData:
        """Return what to send: since ``start_ns`` for cumulative points, since the last ``taken`` for delta ones."""
        self._offered = {}
        self._offered_ns = now_ns
        metrics = []
        for family in found:
            time.sleep(0)  # offers the interpreter to the threads that trade
            data = self._family(family, start_ns, now_ns)
            if data is not None:
                metrics.append(Metric(family.name, family.description, family.unit, data))
        scoped = model.ScopeMetrics(SCOPE, metrics, SCOPE.schema_url)
        return MetricsData([model.ResourceMetrics(self._resource, [scoped], self._resource.schema_url)])

    def taken(self) -> None:
        """Note that the exporter took what ``data`` returned last.

        Without this, the next delta covers the interval that was lost as well.
        """
        self._sent = self._offered
        self._sent_ns = self._offered_ns
        self._ahead = {}

    def partly_taken(self, piece: MetricsData) -> None:
        """Note that the exporter took a part of what ``data`` returned last: the next delta begins there for these."""
        for resource in piece.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = COUNTER if isinstance(metric.data, model.Sum) else HISTOGRAM
                    for point in metric.data.data_points:
                        key = (metric.name, kind, frozenset(point.attributes.items()))
                        if key in self._offered:
                            self._sent[key] = self._offered[key]
                            self._ahead[key] = self._offered_ns

    def _family(self, family: Family, start_ns: int, now_ns: int) -> model.Data | None:
        if family.kind == GAUGE:
            gauges = [
                NumberDataPoint(point.attributes, start_ns, now_ns, point.value)
                for point in family.points
                if not isinstance(point.value, ExponentialHistogram)
            ]
            return model.Gauge(gauges) if gauges else None
        temporality = self._sums if family.kind == COUNTER else self._histograms
        delta = temporality == AggregationTemporality.DELTA
        all_since = (self._sent_ns or start_ns) if delta else start_ns
        numbers, histograms, explicit = [], [], []
        for point in family.points:
            since = self._ahead.get(_key(family, point), all_since) if delta and self._ahead else all_since
            value = self._increase(family, point) if delta else point.value
            if not isinstance(value, ExponentialHistogram):
                if value or not delta:
                    numbers.append(NumberDataPoint(point.attributes, since, now_ns, value))
            elif value.count:
                # Those of a cumulative point may be older than its last change; a delta point's belong to its interval.
                exemplars = _exemplars(point.exemplars, since if delta else 0)
                if self._explicit:
                    explicit.append(_explicit(point, value, family.unit, (since, now_ns), exemplars))
                else:
                    histograms.append(_exponential(point, value, (since, now_ns), exemplars))
        if numbers:
            return model.Sum(numbers, temporality, is_monotonic=True)
        if histograms:
            return model.ExponentialHistogram(histograms, temporality)
        return model.Histogram(explicit, temporality) if explicit else None

    def _increase(self, family: Family, point: Point) -> int | float | ExponentialHistogram:
        key = _key(family, point)
        now = self._offered[key] = point.value
        before = self._sent.get(key)
        if before is None:
            return now
        if isinstance(now, ExponentialHistogram) and isinstance(before, ExponentialHistogram):
            try:
                return now.since(before)
            except OverflowError:
                return now
        if isinstance(now, ExponentialHistogram) or isinstance(before, ExponentialHistogram):
            return now
        # Smaller than before: it began anew, so all of it is new.
        return now - before if now >= before else now


def _key(family: Family, point: Point) -> _Key:
    return family.name, family.kind, frozenset(point.attributes.items())


def _exponential(
    point: Point, histogram: ExponentialHistogram, interval: tuple[int, int], exemplars: list[model.Exemplar]
) -> model.ExponentialHistogramDataPoint:
    return model.ExponentialHistogramDataPoint(
        attributes=point.attributes,
        start_time_unix_nano=interval[0],
        time_unix_nano=interval[1],
        count=histogram.count,
        sum=histogram.sum,
        scale=histogram.scale,
        zero_count=histogram.zero_count,
        positive=model.Buckets(histogram.positive.offset, histogram.positive.counts),
        negative=model.Buckets(histogram.negative.offset, histogram.negative.counts),
        flags=0,
        min=_known(histogram.min),
        max=_known(histogram.max),
        exemplars=exemplars,
    )


def _explicit(
    point: Point, histogram: ExponentialHistogram, unit: str, interval: tuple[int, int], exemplars: list[model.Exemplar]
) -> model.HistogramDataPoint:
    bounds = classic_bounds(unit)
    at_most = [0, *histogram.cumulative(bounds), histogram.count]
    return model.HistogramDataPoint(
        attributes=point.attributes,
        start_time_unix_nano=interval[0],
        time_unix_nano=interval[1],
        count=histogram.count,
        sum=histogram.sum,
        bucket_counts=[upper - lower for lower, upper in pairwise(at_most)],
        explicit_bounds=bounds,
        min=_known(histogram.min),
        max=_known(histogram.max),
        exemplars=exemplars,
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _exemplars(found: Sequence[ExemplarState], since_ns: int) -> list[model.Exemplar]:
    return [
        model.Exemplar({}, value, unix_ns, span_id=span_id or None, trace_id=trace_id or None)
        for value, trace_id, span_id, unix_ns in found
        if unix_ns > since_ns
    ]
