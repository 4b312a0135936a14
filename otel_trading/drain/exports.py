"""The ways out that configuration asks for: span exporters, metric exporters, and ``/metrics``.

Each signal has a daemon thread of its own.  What an exporter does there (raise, block, fail) is counted, said once,
and never reaches the program: not its threads, not its exit.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TYPE_CHECKING

from otel_trading import faults
from otel_trading._backend import core
from otel_trading.drain import exporters
from otel_trading.drain.allowance import Allowance
from otel_trading.drain.gathered import Gathered
from otel_trading.errors import ConfigurationError, OtelTradingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_trading.config import Settings
    from otel_trading.drain.http import MetricsServer
    from otel_trading.drain.metric_export import MetricExport
    from otel_trading.drain.span_export import SpanExport

_PROMETHEUS = "prometheus"
# The share of an orderly end that the spans may take where metrics are still to tell what became of them.
_SPANS_SHARE = 0.8


class Exports:
    """All ways out of a process, from ``start`` to ``stop``."""

    def __init__(
        self,
        spans: SpanExport | None,
        metrics: MetricExport | None,
        server: MetricsServer | None,
        shared: Sequence[Allowance | Gathered] = (),
    ) -> None:
        """Take the parts that are configured, and what they share, to be closed at the end."""
        self._shared = shared
        self._spans = spans
        self._metrics = metrics
        self._server = server

    @property
    def metrics_url(self) -> str | None:
        """Where ``/metrics`` is served, the port that was found included; None where it is not."""
        return None if self._server is None else self._server.url

    def flush(self, deadline: float) -> bool:
        """Export what is there; False where an exporter failed or ``deadline`` (of ``time.monotonic``) came first."""
        asked = [(part.worker, part.worker.ask()) for part in (self._spans, self._metrics) if part is not None]
        outcomes = [worker.wait(number, deadline) for worker, number in asked]
        return all(outcomes)

    def stop(self, deadline: float, leave: bool = False) -> bool:  # noqa: FBT001, FBT002  `quietly` gives it by place
        """Export the rest, shut the exporters down, and end the threads; False where ``deadline`` came first.

        Spans that no exporter has taken by then count as refused, those that one has in hand included; where they are
        to ``leave`` they are not settled, and who drains next sends them.
        Does not wait longer, whatever the exporters do.  Idempotent.
        """
        through = True
        if self._spans is not None:
            now = time.monotonic()
            share = 1.0 if self._metrics is None else _SPANS_SHARE
            through = self._spans.stop(now + (deadline - now) * share, leave)
            self._spans = None
        if self._metrics is not None:
            through = self._metrics.stop(deadline) and through
            self._metrics = None
        if self._server is not None:
            self._server.close(max(0.0, deadline - time.monotonic()))
            self._server = None
        for part in self._shared:
            part.close()
        return through


def start(settings: Settings, resource: bytes | str) -> Exports:
    """Start what is asked for; ``resource`` is the segment's, a JSON object.

    Raises ConfigurationError for exporters that cannot be had and variables that cannot be read, with nothing
    left running.  A port that is taken is reported, and the program goes on without ``/metrics``.
    """
    from otel_trading import lifecycle

    attributes = json.loads(resource)
    path = lifecycle.own_segment()
    allowance = Allowance(path)
    gathered = Gathered(path, allowance)
    named = [name for name in settings.export_metrics if name != _PROMETHEUS]
    spans, metrics = (
        _pushing(settings, named, attributes, allowance, gathered) if named or settings.export_traces else (None, None)
    )
    server = None
    if settings.metrics_port is not None or _PROMETHEUS in settings.export_metrics:
        server = _served(settings, attributes, gathered)
    if spans is None and core.adopted():
        core.keep(0)  # nobody takes what others have left either
    # Threads come last: whatever was wrong has been told by now, and nothing is left running then.
    for part in (spans, metrics):
        if part is not None:
            part.begin()
    return Exports(spans, metrics, server, (allowance, gathered))


def _pushing(
    settings: Settings,
    named: Sequence[str],
    attributes: Mapping[str, str],
    allowance: Allowance,
    gathered: Gathered,
) -> tuple[SpanExport | None, MetricExport | None]:
    from otel_trading.drain.metric_export import MetricExport
    from otel_trading.drain.span_export import SpanExport

    span_exporters = exporters.load(settings.export_traces, exporters.TRACES, stock=settings.export_stock)
    metric_exporters = exporters.load(named, exporters.METRICS, stock=settings.export_stock)
    spans = (
        SpanExport(span_exporters, attributes, settings.export_queue, settings.export_queue_bytes, allowance)
        if span_exporters
        else None
    )
    metrics = MetricExport(metric_exporters, attributes, allowance, gathered) if metric_exporters else None
    return spans, metrics


def _served(settings: Settings, attributes: Mapping[str, str], gathered: Gathered) -> MetricsServer | None:
    host, port = settings.metrics_host, settings.metrics_port
    if port is None:
        host = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "").strip() or "localhost"
        text = os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "").strip() or "9464"
        if not text.isdecimal() or int(text) > 65_535:  # noqa: PLR2004
            message = f"OTEL_EXPORTER_PROMETHEUS_PORT={text!r} is not a port"
            raise ConfigurationError(message)
        port = int(text)
    # Loaded only where /metrics is served.
    from otel_trading.drain.http import MetricsServer
    from otel_trading.drain.prometheus import Collector

    collector = Collector(core.snapshot, core.accounts, attributes, faults.report, gathered.families)
    try:
        server = MetricsServer(host, port, [collector], core.is_open)
    except OtelTradingError as error:
        faults.report("metrics.http", str(error))
        return None
    logging.getLogger("otel_trading").info("metrics are served at %s", server.url)
    return server
