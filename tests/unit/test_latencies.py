"""The application's p99 as another process sees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading.budget.latencies import Latencies
from otel_trading.errors import SegmentNotFoundError

if TYPE_CHECKING:
    from conftest import Recorder

SECOND = 1_000_000_000


def spans(name: str, durations: list[float], end: int, tier: int = ot.P0) -> None:
    """Record spans that ended at a time."""
    probe = ot.probe(name, tier=tier)
    for duration in durations:
        probe.record(None, end - round(duration * SECOND), end, False, None)


def test_the_busiest_p0_probe_counts(recorder: Recorder) -> None:
    """By default the P0 probe with most spans; monitoring's own and other tiers do not count."""
    now = time.time_ns()
    spans("la.order", [0.001] * 98 + [0.005, 0.009], now)
    spans("la.risk", [0.1] * 50, now)
    spans("la.work", [0.2] * 200, now, tier=ot.P1)
    spans("monitoring.decision", [0.3] * 200, now)
    watched = Latencies(str(recorder.path), clock=lambda: now)
    watched.look()
    figure = watched.figure(60.0)
    watched.close()
    assert figure is not None
    assert figure.spans == 100
    assert figure.p99 == pytest.approx(0.005)


def test_a_named_probe_counts_whatever_its_tier(recorder: Recorder) -> None:
    """The one that is named, and no other."""
    now = time.time_ns()
    spans("la.order", [0.001] * 100, now)
    spans("la.work", [0.2] * 20, now, tier=ot.P1)
    watched = Latencies(str(recorder.path), "la.work", clock=lambda: now)
    watched.look()
    figure = watched.figure(60.0)
    watched.close()
    assert figure == (pytest.approx(0.2), 20)


def test_only_the_window_counts(recorder: Recorder) -> None:
    """What ended before the window is left out, and forgotten."""
    now = time.time_ns()
    spans("la.order", [0.5] * 100, now - 90 * SECOND)
    spans("la.order", [0.001] * 10, now - 30 * SECOND)
    watched = Latencies(str(recorder.path), clock=lambda: now)
    watched.look()
    figure = watched.figure(60.0)
    assert figure == (pytest.approx(0.001), 10)
    assert watched.figure(10.0) is None
    watched.close()


def test_a_look_is_bounded(recorder: Recorder) -> None:
    """A look reads so many records and no more; the next one goes on."""
    now = time.time_ns()
    spans("la.order", [0.001] * 300, now)
    watched = Latencies(str(recorder.path), clock=lambda: now)
    seen = []
    for _ in range(4):
        watched.look(100)
        figure = watched.figure(60.0)
        seen.append(0 if figure is None else figure.spans)
    watched.close()
    assert seen == [100, 200, 300, 300]


def test_a_segment_that_is_not_there() -> None:
    """What is gone is told as such."""
    with pytest.raises(SegmentNotFoundError):
        Latencies("/nonexistent/x.seg")
