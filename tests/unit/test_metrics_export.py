"""Snapshots become MetricsData: exponential histograms, temporality, exemplars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource as SdkResource

from otel_trading.drain.histogram import ExponentialHistogram as OurHistogram
from otel_trading.drain.metric_model import AggregationTemporality, ExponentialHistogram, Resource, Sum
from otel_trading.drain.metric_sdk import to_sdk
from otel_trading.drain.metrics import Stream, explicit_wanted
from otel_trading.drain.series import COUNTER, GAUGE, HISTOGRAM, Family, Point

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData as SdkMetricsData

    from otel_trading.drain.metric_model import Metric, MetricsData

RESOURCE = Resource({"service.name": "bot"})
START = 1_800_000_000_000_000_000
SECOND = 1_000_000_000
DELTA = AggregationTemporality.DELTA
CUMULATIVE = AggregationTemporality.CUMULATIVE


def stream(temporality: AggregationTemporality = CUMULATIVE, *, explicit: bool = False) -> Stream:
    """Return a stream of that temporality."""
    return Stream(RESOURCE, temporality, temporality, explicit=explicit)


def of_sdk(data: MetricsData) -> SdkMetricsData:
    """Return what stock exporters get."""
    return to_sdk(data, SdkResource(RESOURCE.attributes))  # type: ignore[arg-type]


def counter(value: float, **attributes: str) -> Family:
    """Return a counter's family."""
    return Family("trading.orders", COUNTER, "{order}", "Orders.", [Point(attributes, value)])


def durations(values: list[float], exemplars: Any = ()) -> Family:
    """Return a histogram's family."""
    point = Point({"trading.stage": "a"}, OurHistogram.of(values), exemplars)
    return Family("trading.stage.duration", HISTOGRAM, "s", "Duration.", [point])


def only(data: MetricsData) -> Metric:
    """Return the one metric in there."""
    (resource_metrics,) = data.resource_metrics
    assert resource_metrics.resource is RESOURCE
    (scope_metrics,) = resource_metrics.scope_metrics
    assert scope_metrics.scope.name == "otel_trading"
    (metric,) = scope_metrics.metrics
    return metric


def point(data: MetricsData) -> Any:
    """Return the one data point in there."""
    (found,) = only(data).data.data_points
    return found


def empty(data: MetricsData) -> bool:
    """Tell whether there is no metric in there."""
    return not data.resource_metrics[0].scope_metrics[0].metrics


def test_a_histogram_goes_out_as_it_was_recorded() -> None:
    """Exponential at scale 6, each count in its bucket."""
    values = [1e-6, 1.5e-6, 5e-6]
    found = only(stream().data([durations(values)], START, START + SECOND))
    assert isinstance(found.data, ExponentialHistogram)
    assert (found.name, found.unit, found.description) == ("trading.stage.duration", "s", "Duration.")
    assert found.data.aggregation_temporality == CUMULATIVE
    (sent,) = found.data.data_points
    ours = OurHistogram.of(values)
    assert (sent.scale, sent.count, sent.zero_count) == (6, 3, 0)
    assert (sent.min, sent.max, sent.sum) == (1e-6, 5e-6, math.fsum(values))
    assert (sent.positive.offset, list(sent.positive.bucket_counts)) == (
        ours.positive.offset,
        ours.positive.counts.tolist(),
    )
    assert (sent.start_time_unix_nano, sent.time_unix_nano) == (START, START + SECOND)


def test_a_wide_histogram_keeps_its_scale_too() -> None:
    """However far apart the values are, the scale stays, and no observation is lost."""
    values = [1e-7, 1e-3, 10.0, 0.0, -5.0]
    sent = point(stream().data([durations(values)], START, START + SECOND))
    assert sent.scale == 6
    assert sum(sent.positive.bucket_counts) + sum(sent.negative.bucket_counts) + sent.zero_count == 5


def test_cumulative_points_grow_from_the_start() -> None:
    """Each cumulative point covers all the time since recording began."""
    of = stream()
    for seconds, value in ((1, 5), (2, 9)):
        sent = point(of.data([counter(value)], START, START + seconds * SECOND))
        of.taken()
        assert (sent.value, sent.start_time_unix_nano, sent.time_unix_nano) == (value, START, START + seconds * SECOND)


def test_delta_points_follow_each_other_without_gap_or_overlap() -> None:
    """A delta point covers the time since the one before, and their sum is the whole."""
    of = stream(DELTA)
    first = of.data([counter(5)], START, START + SECOND)
    assert isinstance(only(first).data, Sum)
    assert only(first).data.aggregation_temporality == DELTA  # type: ignore[union-attr]
    of.taken()
    second = point(of.data([counter(9)], START, START + 2 * SECOND))
    assert (point(first).value, point(first).start_time_unix_nano) == (5, START)
    assert (second.value, second.start_time_unix_nano, second.time_unix_nano) == (
        4,
        START + SECOND,
        START + 2 * SECOND,
    )


def test_what_an_exporter_did_not_take_is_in_its_next_delta() -> None:
    """A failed export loses no delta: the next one covers its time too."""
    of = stream(DELTA)
    of.data([counter(5), durations([1.0])], START, START + SECOND)
    of.taken()
    of.data([counter(9), durations([1.0, 2.0])], START, START + 2 * SECOND)
    lost = of.data([counter(10), durations([1.0, 2.0, 4.0])], START, START + 3 * SECOND)
    metrics = lost.resource_metrics[0].scope_metrics[0].metrics
    values: list[Any] = [metric.data.data_points[0] for metric in metrics]
    assert (values[0].value, values[0].start_time_unix_nano) == (5, START + SECOND)
    assert (values[1].count, values[1].sum, values[1].start_time_unix_nano) == (2, 6.0, START + SECOND)


def test_delta_histograms_have_only_what_came_since() -> None:
    """Buckets and sum are of the interval; least and greatest are left out where they are not known."""
    of = stream(DELTA)
    of.data([durations([1.0, 8.0])], START, START + SECOND)
    of.taken()
    sent = point(of.data([durations([1.0, 8.0, 2.0, 16.0])], START, START + 2 * SECOND))
    assert (sent.count, sent.sum, sent.max, sent.min) == (2, 18.0, 16.0, None)
    assert sum(sent.positive.bucket_counts) == 2
    encoded = encode_metrics(of_sdk(of.data([durations([1.0, 8.0, 2.0, 16.0])], START, START + 2 * SECOND)))
    wire = encoded.resource_metrics[0].scope_metrics[0].metrics[0].exponential_histogram.data_points[0]
    assert wire.HasField("max")
    assert not wire.HasField("min")


def test_what_did_not_change_is_not_sent_as_delta() -> None:
    """An interval without observations has no delta points; cumulative ones stay."""
    families = [counter(5), durations([1.0])]
    of = stream(DELTA)
    of.data(families, START, START + SECOND)
    of.taken()
    assert empty(of.data(families, START, START + 2 * SECOND))
    assert not empty(stream().data(families, START, START + 2 * SECOND))


def test_a_series_that_began_anew_is_sent_whole() -> None:
    """Counts below those sent before are a new beginning, not a negative increase."""
    of = stream(DELTA)
    of.data([counter(5), durations([1.0, 1.0])], START, START + SECOND)
    of.taken()
    data = of.data([counter(2), durations([1.0])], START, START + 2 * SECOND)
    values: list[Any] = [metric.data.data_points[0] for metric in data.resource_metrics[0].scope_metrics[0].metrics]
    assert (values[0].value, values[1].count) == (2, 1)


def test_gauges_have_their_last_value_and_empty_things_are_left_out() -> None:
    """A gauge is sent as it is; a histogram without observations is not sent."""
    gauge = Family("trading.depth", GAUGE, "", "", [Point({}, 3.5)])
    assert point(stream(DELTA).data([gauge], START, START + SECOND)).value == 3.5
    assert empty(stream().data([durations([]), Family("x", GAUGE, "", "")], START, START + SECOND))


def test_exemplars_lead_to_their_traces() -> None:
    """Exemplars have value, time, and ids; a delta point has only those of its interval."""
    exemplars = [(1.0, 0xA, 0xB, START + 1), (2.0, 0, 0, START + SECOND + 1)]
    sent = point(stream().data([durations([1.0, 2.0], exemplars)], START, START + 2 * SECOND))
    assert [(found.value, found.trace_id, found.span_id, found.time_unix_nano) for found in sent.exemplars] == [
        (1.0, 0xA, 0xB, START + 1),
        (2.0, None, None, START + SECOND + 1),
    ]
    of = stream(DELTA)
    of.data([durations([1.0])], START, START + SECOND)
    of.taken()
    sent = point(of.data([durations([1.0, 2.0], exemplars)], START, START + 2 * SECOND))
    assert [found.value for found in sent.exemplars] == [2.0]


def test_explicit_buckets_where_they_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard variable's explicit_bucket_histogram gives exact power-of-two buckets."""
    assert not explicit_wanted()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram")
    of = stream(explicit=explicit_wanted())
    sent = point(of.data([durations([2.0**-20, 1.0, 1.5, 100.0])], START, START + SECOND))
    assert sent.explicit_bounds[0] == 2.0**-20
    assert sent.bucket_counts[0] == 1
    assert sent.bucket_counts[-1] == 1
    assert sum(sent.bucket_counts) == sent.count == 4
    assert sent.bucket_counts[list(sent.explicit_bounds).index(2.0)] == 1


@pytest.mark.parametrize("temporality", [DELTA, CUMULATIVE])
def test_otlp_and_the_console_take_it(temporality: AggregationTemporality) -> None:
    """What we make can be encoded as OTLP and shown as JSON."""
    of = stream(temporality)
    families = [counter(5, venue="gate"), durations([1.0, -1.0, 0.0], [(1.0, 1, 2, START + 1)])]
    data = of_sdk(of.data(families, START, START + SECOND))
    assert len(encode_metrics(data).resource_metrics[0].scope_metrics[0].metrics) == 2
    assert '"trading.orders"' in data.to_json()
