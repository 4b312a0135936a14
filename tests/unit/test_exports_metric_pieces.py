"""Metrics in pieces that fit the budget: nothing is lost or told twice, whatever becomes of a piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from otel_trading.drain.histogram import ExponentialHistogram
from otel_trading.drain.metric_model import AggregationTemporality, Resource
from otel_trading.drain.metric_wire import divided, estimated
from otel_trading.drain.metrics import Stream
from otel_trading.drain.otlp_metrics import encode
from otel_trading.drain.series import COUNTER, GAUGE, HISTOGRAM, Family, Point

if TYPE_CHECKING:
    from otel_trading.drain.metric_model import MetricsData

DELTA = AggregationTemporality.DELTA


def stream(temporality: AggregationTemporality = AggregationTemporality.CUMULATIVE) -> Stream:
    """Give a stream of a temporality."""
    return Stream(Resource({"service.name": "bot"}), temporality, temporality)


def families(counts: list[int], times: list[float], now: float = 1.0) -> list[Family]:
    """Give a counter, a histogram and a gauge, with a point each of the numbers."""
    histogram = ExponentialHistogram.of([time * now for time in times])
    return [
        Family("orders", COUNTER, "", "", [Point({"n": n}, count * now) for n, count in enumerate(counts)]),
        Family("duration", HISTOGRAM, "s", "", [Point({"n": n}, histogram) for n in range(len(counts))]),
        Family("depth", GAUGE, "", "", [Point({"n": n}, count) for n, count in enumerate(counts)]),
    ]


def flat(data: MetricsData) -> list[tuple[str, Any, Any]]:
    """Give all points with their metrics' names, without their order in requests."""
    return [
        (metric.name, tuple(point.attributes.items()), getattr(point, "value", None) or getattr(point, "count", None))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=30),
    st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=30),
    st.integers(1, 20_000),
)
def test_pieces_together_are_the_whole(counts: list[int], times: list[float], most: int) -> None:
    """Each point is in one piece, and a piece that is too large has one point alone."""
    data = stream().data(families(counts, times), 1, 2)
    pieces = list(divided(data, most))
    assert [point for piece in pieces for point in flat(piece)] == flat(data)
    for piece in pieces:
        assert estimated(piece) <= most or len(flat(piece)) == 1
        assert piece.resource_metrics[0].resource is data.resource_metrics[0].resource


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=30), st.lists(st.floats(1e-9, 1e3), max_size=30))
def test_the_estimate_is_near_the_encoded_size(counts: list[int], times: list[float]) -> None:
    """Within a factor of two, which is what the first request of a process is planned by."""
    data = stream().data(families(counts, times), 1_800_000_000_000_000_000, 1_800_000_001_000_000_000)
    assert len(encode(data)) <= estimated(data) * 2
    assert estimated(data) <= len(encode(data)) * 2 + 1_000


def test_a_delta_goes_on_where_its_piece_was_taken() -> None:
    """After half of the pieces were taken, the next delta has for those what is new, for the others all of it."""
    sent = stream(DELTA)
    sent.data(families([1, 1], [0.5]), 100, 200)
    sent.taken()
    data = sent.data(families([10, 20], [0.5, 0.5]), 100, 300)
    first, *_rest = divided(data, 1)
    assert flat(first) == [("orders", (("n", 0),), 9)]
    sent.partly_taken(first)
    again = sent.data(families([15, 25], [0.5, 0.5, 0.5]), 100, 400)
    points = {
        (metric.name, point.attributes["n"]): point
        for metric in again.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
    }
    assert (points["orders", 0].value, points["orders", 0].start_time_unix_nano) == (5, 300)
    assert (points["orders", 1].value, points["orders", 1].start_time_unix_nano) == (24, 200)
    assert (points["duration", 0].count, points["duration", 0].start_time_unix_nano) == (2, 200)
    sent.taken()
    last = sent.data(families([16, 26], [0.5, 0.5, 0.5]), 100, 500)
    assert {point[2] for point in flat(last) if point[0] == "orders"} == {1}
    starts = {
        point.start_time_unix_nano
        for metric in last.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "orders"
        for point in metric.data.data_points
    }
    assert starts == {400}
