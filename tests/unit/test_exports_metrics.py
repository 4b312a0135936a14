"""Metrics on their way to the exporters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from exporting import record, soon
from otlp_receiver import METRICS, OVER, Receiver, attributes, environment

from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable


def values(characters: Any, name: str) -> list[Any]:
    """Return a metric's values in all exports, in order."""
    return [
        getattr(point, "value", None) if hasattr(point, "value") else point.count
        for data in characters.metrics
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def test_metrics_leave_with_the_exporters_temporality(start: Callable[..., Any], characters: Any) -> None:
    """Each flush sends a snapshot; for delta only what is new, and after a failure what was lost too."""
    running = start(export__metrics="metrics")
    orders = core.Counter("orders", 1)
    orders.add(2)
    record(10)
    assert running.flush(soon())
    orders.add(3)
    characters.outcomes.append("fail")
    assert not running.flush(soon())
    orders.add(4)
    record(5)
    assert running.stop(soon())
    assert values(characters, "trading.orders") == [2, 7]
    assert values(characters, "trading.stage.duration") == [10, 5]
    assert characters.log == [("shutdown", "Metrics")]


def test_the_last_metrics_know_what_became_of_the_last_spans(start: Callable[..., Any], characters: Any) -> None:
    """The final snapshot is taken after the spans were settled."""
    running = start(export__traces="taking", export__metrics="metrics")
    record(12)
    assert running.stop(soon())
    (last,) = characters.metrics
    exported = [
        point.value
        for metric in last.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "trading.telemetry.spans"
        for point in metric.data.data_points
        if point.attributes == {"trading.tier": "P1", "outcome": "exported"}
    ]
    assert exported == [12]


def test_a_hanging_metric_exporter_cannot_hold_up_the_end(start: Callable[..., Any], characters: Any) -> None:
    """Stop returns at its deadline."""
    characters.outcomes.append("block")
    running = start(export__metrics="metrics")
    assert not running.flush(time.monotonic() + 0.05)
    assert characters.entered.wait(20)
    assert not running.stop(time.monotonic() + 0.05)


@pytest.mark.parametrize(("protocol", "stock"), [("http/protobuf", False), ("http/protobuf", True), ("grpc", True)])
def test_our_own_exporter_sends_what_the_stock_ones_do(
    protocol: str, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, *, stock: bool
) -> None:
    """Deltas are of the interval, and the resource is there: by our own, and by those that get the SDK's objects."""
    receiver = Receiver()
    with OVER[protocol](receiver) as endpoint:
        for name, value in environment(protocol, endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
        running = start(export__metrics="otlp", export__stock=stock)
        orders = core.Counter("orders", 1)
        orders.add(2)
        record(10)
        assert running.flush(soon())
        orders.add(3)
        assert running.flush(soon())
        assert running.stop(soon())
    assert [metric.sum.data_points[0].as_int for metric in receiver.metrics("trading.orders")] == [2, 3]
    (stages,) = receiver.metrics("trading.stage.duration")
    assert stages.exponential_histogram.data_points[0].count == 10
    sent = receiver.parsed(METRICS)[0].resource_metrics[0]
    assert attributes(sent.resource) == {"service.name": "bot", "process.pid": 7}
    assert sent.scope_metrics[0].scope.name == "otel_trading"


@pytest.mark.parametrize("stock", [False, True])
def test_what_is_sent_counts_for_the_budget(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, *, stock: bool
) -> None:
    """The bytes of the requests that left are told, those of their heads included, by both exporters."""
    receiver = Receiver()
    with OVER["http/protobuf"](receiver) as endpoint:
        for name, value in environment("http/protobuf", endpoint).items():
            monkeypatch.setenv(name, value)
        running = start(export__metrics="otlp", export__stock=stock)
        spent: list[int] = []
        told = running._metrics._allowance.spent
        monkeypatch.setattr(
            running._metrics._allowance,
            "spent",
            lambda size, *rest, **way: (spent.append(size), told(size, *rest, **way)),
        )
        assert running.flush(soon())
        assert running.stop(soon())
    bodies = [len(body) for body in receiver.bodies(METRICS)]
    assert len(bodies) == len(spent) == 2
    for size, body in zip(spent, bodies, strict=True):
        assert body < size < body + 600
