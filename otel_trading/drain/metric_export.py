"""The thread that sends snapshots to the metric exporters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_trading import faults
from otel_trading._backend import core
from otel_trading.drain import exporters
from otel_trading.drain.environment import milliseconds
from otel_trading.drain.metrics import Stream
from otel_trading.drain.series import families
from otel_trading.drain.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.resources import Resource


class MetricExport:
    """Sends a snapshot to every exporter, each with its own temporality."""

    def __init__(self, found: Sequence[tuple[str, MetricExporter]], resource: Resource) -> None:
        """Read the schedule from the environment; nothing runs before ``begin``.

        Raises ConfigurationError for a variable that cannot be read.
        """
        self._streams = [(name, exporter, Stream(exporter, resource)) for name, exporter in found]
        self._interval = milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 10_000.0)
        self._timeout_ms = milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", 30_000.0) * 1000.0
        self.worker = Worker("metrics", self._interval, self._step, lambda: exporters.shut_down(found))

    def begin(self) -> None:
        """Start the thread."""
        self.worker.start()

    def _step(self) -> tuple[bool, float]:
        """Send the present state of everything."""
        began = time.monotonic()
        snapshot, accounts = core.snapshot(), core.accounts()
        found = families(snapshot, accounts)
        well = True
        for name, exporter, stream in self._streams:
            data = stream.data(found, snapshot["start_unix_ns"], snapshot["unix_ns"])
            taken = exporters.took(name, "metrics", exporter.export, data, timeout_millis=self._timeout_ms)
            if taken:
                stream.taken()
            well = well and taken
        return well, max(0.0, self._interval - (time.monotonic() - began))

    def stop(self, deadline: float) -> bool:
        """Send once more, and end; False where ``deadline`` came first."""
        through = self.worker.stop(deadline)
        if not through:
            faults.report("export.metrics.stop", "an exporter was not through with the last metrics in time")
        return through
