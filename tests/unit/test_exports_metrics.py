"""Metrics on their way to the exporters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from exporting import record, soon

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
