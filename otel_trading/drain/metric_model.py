"""What is sent of metrics, without the SDK: classes with the names and attributes of its own, as far as we use them.

A stock exporter gets the SDK's objects of them (``metric_sdk``); our own encodes these (``otlp_metrics``).  They are
not to be changed once they are made; times are Unix nanoseconds.
"""

from __future__ import annotations

from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from otel_trading.drain.scopes import Scope


class AggregationTemporality(IntEnum):
    """What a point covers, by OTLP's numbers."""

    UNSPECIFIED = 0
    DELTA = 1
    CUMULATIVE = 2


class Exemplar:
    """One observation; without ids it was made outside of any span."""

    __slots__ = ("filtered_attributes", "span_id", "time_unix_nano", "trace_id", "value")

    def __init__(
        self,
        filtered_attributes: Mapping[str, object],
        value: float,
        time_unix_nano: int,
        span_id: int | None = None,
        trace_id: int | None = None,
    ) -> None:
        self.filtered_attributes = filtered_attributes
        self.value = value
        self.time_unix_nano = time_unix_nano
        self.span_id = span_id
        self.trace_id = trace_id


class NumberDataPoint:
    """A counter's or a gauge's value."""

    __slots__ = ("attributes", "exemplars", "start_time_unix_nano", "time_unix_nano", "value")

    def __init__(
        self,
        attributes: Mapping[str, object],
        start_time_unix_nano: int,
        time_unix_nano: int,
        value: float,
        exemplars: Sequence[Exemplar] = (),
    ) -> None:
        self.attributes = attributes
        self.start_time_unix_nano = start_time_unix_nano
        self.time_unix_nano = time_unix_nano
        self.value = value
        self.exemplars = exemplars


class HistogramDataPoint:
    """A histogram with explicit buckets: one more of them than bounds; ``min`` and ``max`` where they are known."""

    __slots__ = (
        "attributes",
        "bucket_counts",
        "count",
        "exemplars",
        "explicit_bounds",
        "max",
        "min",
        "start_time_unix_nano",
        "sum",
        "time_unix_nano",
    )

    def __init__(
        self,
        attributes: Mapping[str, object],
        start_time_unix_nano: int,
        time_unix_nano: int,
        count: int,
        sum: float,  # noqa: A002 - the SDK's name
        bucket_counts: Sequence[int],
        explicit_bounds: Sequence[float],
        min: float | None,  # noqa: A002 - as above
        max: float | None,  # noqa: A002 - as above
        exemplars: Sequence[Exemplar] = (),
    ) -> None:
        self.attributes = attributes
        self.start_time_unix_nano = start_time_unix_nano
        self.time_unix_nano = time_unix_nano
        self.count = count
        self.sum = sum
        self.bucket_counts = bucket_counts
        self.explicit_bounds = explicit_bounds
        self.min = min
        self.max = max
        self.exemplars = exemplars


class Buckets:
    """One side of an exponential histogram: ``bucket_counts[i]`` is of bucket ``offset + i``."""

    __slots__ = ("bucket_counts", "offset")

    def __init__(self, offset: int, bucket_counts: Sequence[int]) -> None:
        self.offset = offset
        self.bucket_counts = bucket_counts


class ExponentialHistogramDataPoint:
    """An exponential histogram; ``min`` and ``max`` where they are known."""

    __slots__ = (
        "attributes",
        "count",
        "exemplars",
        "flags",
        "max",
        "min",
        "negative",
        "positive",
        "scale",
        "start_time_unix_nano",
        "sum",
        "time_unix_nano",
        "zero_count",
    )

    def __init__(
        self,
        attributes: Mapping[str, object],
        start_time_unix_nano: int,
        time_unix_nano: int,
        count: int,
        sum: float,  # noqa: A002 - the SDK's name
        scale: int,
        zero_count: int,
        positive: Buckets,
        negative: Buckets,
        flags: int,
        min: float | None,  # noqa: A002 - as above
        max: float | None,  # noqa: A002 - as above
        exemplars: Sequence[Exemplar] = (),
    ) -> None:
        self.attributes = attributes
        self.start_time_unix_nano = start_time_unix_nano
        self.time_unix_nano = time_unix_nano
        self.count = count
        self.sum = sum
        self.scale = scale
        self.zero_count = zero_count
        self.positive = positive
        self.negative = negative
        self.flags = flags
        self.min = min
        self.max = max
        self.exemplars = exemplars


class Sum:
    """A counter's points."""

    __slots__ = ("aggregation_temporality", "data_points", "is_monotonic")

    def __init__(
        self,
        data_points: Sequence[NumberDataPoint],
        aggregation_temporality: AggregationTemporality,
        is_monotonic: bool,  # noqa: FBT001 - the SDK's signature
    ) -> None:
        self.data_points = data_points
        self.aggregation_temporality = aggregation_temporality
        self.is_monotonic = is_monotonic


class Gauge:
    """A gauge's points."""

    __slots__ = ("data_points",)

    def __init__(self, data_points: Sequence[NumberDataPoint]) -> None:
        self.data_points = data_points


class Histogram:
    """Points with explicit buckets."""

    __slots__ = ("aggregation_temporality", "data_points")

    def __init__(
        self, data_points: Sequence[HistogramDataPoint], aggregation_temporality: AggregationTemporality
    ) -> None:
        self.data_points = data_points
        self.aggregation_temporality = aggregation_temporality


class ExponentialHistogram:
    """Points with exponential buckets."""

    __slots__ = ("aggregation_temporality", "data_points")

    def __init__(
        self, data_points: Sequence[ExponentialHistogramDataPoint], aggregation_temporality: AggregationTemporality
    ) -> None:
        self.data_points = data_points
        self.aggregation_temporality = aggregation_temporality


if TYPE_CHECKING:
    Data: TypeAlias = Sum | Gauge | Histogram | ExponentialHistogram
    DataPoint: TypeAlias = NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint


class Metric:
    """Points of one name."""

    __slots__ = ("data", "description", "name", "unit")

    def __init__(self, name: str, description: str | None, unit: str | None, data: Data) -> None:
        self.name = name
        self.description = description
        self.unit = unit
        self.data = data


class ScopeMetrics:
    """Metrics of one instrumentation scope."""

    __slots__ = ("metrics", "schema_url", "scope")

    def __init__(self, scope: Scope, metrics: Sequence[Metric], schema_url: str) -> None:
        self.scope = scope
        self.metrics = metrics
        self.schema_url = schema_url


class Resource:
    """What the metrics are of."""

    __slots__ = ("attributes", "schema_url")

    def __init__(self, attributes: Mapping[str, object], schema_url: str = "") -> None:
        self.attributes = attributes
        self.schema_url = schema_url


class ResourceMetrics:
    """Metrics of one resource."""

    __slots__ = ("resource", "schema_url", "scope_metrics")

    def __init__(self, resource: Resource, scope_metrics: Sequence[ScopeMetrics], schema_url: str) -> None:
        self.resource = resource
        self.scope_metrics = scope_metrics
        self.schema_url = schema_url


class MetricsData:
    """All that is in one request."""

    __slots__ = ("resource_metrics",)

    def __init__(self, resource_metrics: Sequence[ResourceMetrics]) -> None:
        self.resource_metrics = resource_metrics
