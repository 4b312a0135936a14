"""Requests of metrics are byte for byte those of the stock exporters."""

from __future__ import annotations

import logging
import math
from array import array
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.resources import Resource as SdkResource

from otel_trading.drain import metric_model as model
from otel_trading.drain import metric_sdk
from otel_trading.drain.otlp_metrics import encode, preferred
from otel_trading.drain.scopes import SCOPE, Scope

if TYPE_CHECKING:
    from conftest import Recorder

    from otel_trading.drain.metric_model import MetricsData

DELTA = model.AggregationTemporality.DELTA
CUMULATIVE = model.AggregationTemporality.CUMULATIVE

texts = st.text(max_size=8)
names = st.text(min_size=1, max_size=8)
signed = st.integers(-(1 << 63), (1 << 63) - 1)
times = st.integers(0, (1 << 64) - 1)
whole = st.one_of(st.integers(0, 300), times)
numbers = st.one_of(signed, st.floats())
values = st.recursive(
    st.one_of(st.none(), st.booleans(), signed, st.floats(), texts, st.binary(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=2)),
    max_leaves=4,
)
attributes = st.dictionaries(names, values, max_size=3)
temporalities = st.sampled_from([DELTA, CUMULATIVE])
ids = st.one_of(st.none(), st.integers(0, (1 << 64) - 1))
exemplars = st.lists(st.builds(model.Exemplar, attributes, numbers, times, ids, ids), max_size=2)
counts = st.one_of(
    st.lists(st.integers(0, 127), max_size=6), st.lists(whole, max_size=6), st.lists(whole, max_size=6).map(
        lambda found: array("Q", found)
    )
)  # fmt: skip
known = st.one_of(st.none(), st.floats())
number_points = st.lists(
    st.builds(model.NumberDataPoint, attributes, times, times, numbers, exemplars), max_size=3
)  # fmt: skip
explicit_points = st.lists(
    st.builds(
        model.HistogramDataPoint,
        attributes, times, times, whole, st.floats(),
        st.lists(whole, max_size=4), st.lists(st.floats(), max_size=3), known, known, exemplars,
    ),
    max_size=3,
)  # fmt: skip
buckets = st.builds(model.Buckets, st.integers(-(1 << 31), (1 << 31) - 1), counts)
exponential_points = st.lists(
    st.builds(
        model.ExponentialHistogramDataPoint,
        attributes, times, times, whole, st.floats(), st.integers(-10, 20), whole,
        buckets, buckets, st.integers(0, 3), known, known, exemplars,
    ),
    max_size=3,
)  # fmt: skip
data: Any = st.one_of(
    st.builds(model.Gauge, number_points),
    st.builds(model.Sum, number_points, temporalities, st.booleans()),
    st.builds(model.Histogram, explicit_points, temporalities),
    st.builds(model.ExponentialHistogram, exponential_points, temporalities),
)
metrics = st.lists(st.builds(model.Metric, texts, texts, texts, data), max_size=4)
scopes = st.one_of(st.just(SCOPE), st.builds(Scope, texts, st.one_of(st.none(), texts), texts, attributes))


def request(
    found: list[model.Metric], scope: Scope = SCOPE, resource: dict[str, object] | None = None, schema_url: str = ""
) -> MetricsData:
    """Give a request with these metrics."""
    scoped = model.ScopeMetrics(scope, found, scope.schema_url)
    return model.MetricsData([model.ResourceMetrics(model.Resource(resource or {}, schema_url), [scoped], schema_url)])


def stock(made: MetricsData) -> bytes:
    """Encode as the stock exporters do."""
    resource = made.resource_metrics[0].resource
    of = SdkResource(resource.attributes, resource.schema_url)  # type: ignore[arg-type]
    return bytes(encode_metrics(metric_sdk.to_sdk(made, of)).SerializeToString())


@given(metrics, scopes, attributes, texts)
def test_requests_are_those_of_the_stock_exporters(
    found: list[model.Metric], scope: Scope, resource: dict[str, object], schema_url: str
) -> None:
    """All kinds of points, attributes, exemplars and scopes give the same bytes."""
    made = request(found, scope, resource, schema_url)
    assert encode(made) == stock(made)


@given(numbers)
@example(0)
@example(-1)
@example(0.0)
@example(-0.0)
@example(math.inf)
@example(math.nan)
def test_a_value_is_there_whatever_it_is(value: float) -> None:
    """Zero, also below itself, is a value: the field is there, as of the stock exporters."""
    point = model.NumberDataPoint({}, 0, 1, value, [model.Exemplar({}, value, 0, 0, 0)])
    made = request([model.Metric("a", None, None, model.Sum([point], DELTA, is_monotonic=True))])
    assert encode(made) == stock(made)


@pytest.mark.parametrize(
    "count", [0, 1, 0x7F, 0x80, 0xFF, 0x100, (1 << 14) - 1, 1 << 14, (1 << 32) - 1, 1 << 63, (1 << 64) - 1]
)
def test_counts_of_all_lengths(count: int) -> None:
    """Each length of a count, alone and next to others."""
    for found in ([count], [0, count, 1], [count] * 200):
        side = model.Buckets(-3, found)
        point = model.ExponentialHistogramDataPoint({}, 1, 2, 3, 4.0, 6, 0, side, model.Buckets(0, []), 0, None, 1.0)
        made = request([model.Metric("a", "", "s", model.ExponentialHistogram([point], CUMULATIVE))])
        assert encode(made) == stock(made)


def test_what_is_empty() -> None:
    """Nothing at all, a scope without metrics, and metrics without points of every kind."""
    assert encode(model.MetricsData([])) == b""
    empty: list[Any] = [
        model.Gauge([]),
        model.Sum([], DELTA, is_monotonic=True),
        model.Histogram([], DELTA),
        model.ExponentialHistogram([], DELTA),
    ]
    for found in ([], [model.Metric("a", "b", "c", one) for one in empty]):
        assert encode(request(found)) == stock(request(found))


def test_an_attribute_that_cannot_be_encoded_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers beyond 64 bits and half surrogate pairs are left out, the others stay."""
    # The stock encoder logs each of them, and a log with half a surrogate pair can not be written.
    monkeypatch.setattr(logging.getLogger("opentelemetry.exporter.otlp.proto.common._internal"), "disabled", True)
    bad = {"a": 1, "large": 1 << 64, "half": "\ud800", "\ud800": 1, "list": [1 << 64], "z": "last"}
    point = model.NumberDataPoint(bad, 0, 1, 1)
    made = request([model.Metric("a", "", "", model.Gauge([point]))], resource=bad)
    assert encode(made) == stock(made)


@pytest.mark.parametrize(
    "text", [None, "", "cumulative", "CUMULATIVE", "delta", " Delta ", "lowmemory", "LowMemory", "sideways"]
)
def test_the_temporality_is_the_stock_exporters(
    text: str | None, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The standard variable is read as they read it; a word that it does not have is said, and means cumulative."""
    if text is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", text)
    exporter = OTLPMetricExporter()
    exporter.shutdown()
    assert preferred() == metric_sdk.preferred(exporter)
    said = [record.getMessage() for record in caplog.records if record.name == "otel_trading"]
    recorder.faults_expected = int(text == "sideways")
    assert len(said) == recorder.faults_expected
    assert all("TEMPORALITY_PREFERENCE='sideways' is none of" in message for message in said)
