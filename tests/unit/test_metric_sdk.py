"""Metrics for stock exporters and those of others: the SDK's objects, and what an exporter prefers."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource as SdkResource

from otel_trading.drain import metric_model as model
from otel_trading.drain.metric_sdk import exporting, preferred, to_sdk
from otel_trading.drain.scopes import SCOPE

DELTA, CUMULATIVE = model.AggregationTemporality.DELTA, model.AggregationTemporality.CUMULATIVE
EXEMPLAR = model.Exemplar({"k": "v"}, 1.5, 9, 0xB, 0xA)


def everything() -> model.MetricsData:
    """Give one metric of each kind."""
    number = model.NumberDataPoint({"n": 1}, 1, 2, 3, [EXEMPLAR])
    explicit = model.HistogramDataPoint({}, 1, 2, 3, 4.5, [1, 2], [0.5], None, 3.0, [EXEMPLAR])
    positive, negative = model.Buckets(-2, array("Q", [1, 2])), model.Buckets(0, array("Q"))
    exponential = model.ExponentialHistogramDataPoint({}, 1, 2, 3, 4.5, 6, 0, positive, negative, 0, 1.0, None)
    metrics = [
        model.Metric("gauge", "A gauge.", "By", model.Gauge([number])),
        model.Metric("sum", "", "", model.Sum([number], DELTA, is_monotonic=True)),
        model.Metric("explicit", None, None, model.Histogram([explicit], CUMULATIVE)),
        model.Metric("exponential", "", "s", model.ExponentialHistogram([exponential], DELTA)),
    ]
    scoped = model.ScopeMetrics(SCOPE, metrics, "scope-url")
    return model.MetricsData([model.ResourceMetrics(model.Resource({"service.name": "bot"}), [scoped], "url")])


def plain(value: Any) -> Any:
    """Give an object of either kind as dicts and lists, by the names of its attributes."""
    if isinstance(value, (list, tuple, array)):
        return [plain(item) for item in value]
    names = getattr(type(value), "__slots__", None) or getattr(value, "__dataclass_fields__", ())
    if not names or isinstance(value, int):
        return value
    return {name: plain(getattr(value, name)) for name in names if name not in {"resource", "scope"}}


def test_everything_arrives() -> None:
    """All fields of all kinds are what they were, of the SDK's types, and the resource is the one that was given."""
    resource = SdkResource({"service.name": "bot"})
    made = to_sdk(everything(), resource)
    assert plain(made) == plain(everything())
    (found,) = made.resource_metrics
    assert found.resource is resource
    scoped = found.scope_metrics[0]
    assert (scoped.scope.name, scoped.scope.version) == (SCOPE.name, SCOPE.version)
    kinds = [type(metric.data) for metric in scoped.metrics]
    assert kinds == [sdk.Gauge, sdk.Sum, sdk.Histogram, sdk.ExponentialHistogram]


def test_it_can_be_shown_as_json() -> None:
    """The SDK's way to JSON takes it, which the console exporter uses."""
    shown = json.loads(to_sdk(everything(), SdkResource({})).to_json())
    metrics = shown["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    assert metrics[3]["data"]["data_points"][0]["positive"] == {"offset": -2, "bucket_counts": [1, 2]}


def test_an_exporter_gets_the_sdks_objects() -> None:
    """What is called takes our objects, and hands the options on."""
    taken: list[Any] = []

    class Taking(sdk.ConsoleMetricExporter):
        def export(self, metrics_data: sdk.MetricsData, timeout_millis: float = 0, **options: Any) -> Any:
            taken.append((metrics_data, timeout_millis, options))
            return sdk.MetricExportResult.SUCCESS

    export = exporting(Taking(), model.Resource({"service.name": "bot"}, "url"))
    assert export(everything(), timeout_millis=5.0) is sdk.MetricExportResult.SUCCESS
    ((data, milliseconds, options),) = taken
    assert (milliseconds, options) == (5.0, {})
    assert data.resource_metrics[0].resource == SdkResource({"service.name": "bot"}, "url")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, (CUMULATIVE, CUMULATIVE)),
        ({Counter: sdk.AggregationTemporality.DELTA}, (DELTA, CUMULATIVE)),
        ({Histogram: sdk.AggregationTemporality.DELTA}, (CUMULATIVE, DELTA)),
    ],
)
def test_the_exporter_has_the_temporality_that_it_prefers(asked: Any, expected: Any) -> None:
    """Counters and histograms each have their own."""
    assert preferred(sdk.ConsoleMetricExporter(preferred_temporality=asked)) == expected


def test_temporalities_have_the_sdks_numbers() -> None:
    """Ours are the SDK's, by number and name."""
    assert {one.name: int(one) for one in model.AggregationTemporality} == {
        one.name: int(one) for one in sdk.AggregationTemporality
    }
