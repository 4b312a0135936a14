"""The thread that sends snapshots to the metric exporters."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from otel_trading import faults
from otel_trading._backend import core
from otel_trading.drain import exporters
from otel_trading.drain.allowance import METRICS_SHARE, SECONDS
from otel_trading.drain.environment import milliseconds
from otel_trading.drain.metric_model import Resource
from otel_trading.drain.metric_wire import count, divided, estimated
from otel_trading.drain.metrics import Stream, explicit_wanted
from otel_trading.drain.wire import Wire
from otel_trading.drain.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from otel_trading.drain.allowance import Allowance
    from otel_trading.drain.gathered import Gathered
    from otel_trading.drain.metric_model import MetricsData

_LEAST_WAIT = 0.05  # seconds between two looks at whether there is room


class _Target:
    """An exporter, and what it has been sent."""

    def __init__(self, name: str, exporter: Any, resource: Resource, wire: Wire) -> None:
        self.name = name
        self.writes = exporters.writes(exporter)
        self.export: Callable[..., object]
        if exporters.is_own(exporter):
            from otel_trading.drain.otlp_metrics import preferred

            self.export = exporter.export
            temporalities = preferred()
            counted = exporter.wire_to(wire)
        else:
            from otel_trading.drain import metric_sdk

            self.export = metric_sdk.exporting(exporter, resource)
            temporalities = metric_sdk.preferred(exporter)
            counted = count(name, exporter, wire)
        self.counted: bool = counted  # its transport tells what it sends
        self.stream = Stream(resource, *temporalities, explicit=explicit_wanted())
        self.ratio = 1.0  # of what is sent to what was estimated
        self.missed = False  # a piece of the present snapshot was not taken


class _Piece(NamedTuple):
    """A request to one exporter: all of a snapshot, or a part."""

    target: _Target
    data: MetricsData
    size: int
    last: bool
    whole: bool


class MetricExport:
    """Sends a snapshot to every exporter, each with its own temporality, as the budget has room for it.

    One that is too large for a second's budget leaves in pieces, one after the other.  In a mode that sends nothing,
    none leaves but at a flush and at the end; cumulative points lose nothing by that, and a delta covers all of the
    time since the last one.
    """

    def __init__(
        self,
        found: Sequence[tuple[str, exporters.Metrics]],
        attributes: Mapping[str, Any],
        allowance: Allowance,
        gathered: Gathered,
    ) -> None:
        """Read the schedule from the environment; nothing runs before ``begin``.

        ``attributes`` are the resource's.  Raises ConfigurationError for a variable that cannot be read.
        """
        self._wire = Wire()
        resource = Resource(attributes)
        self._targets = [_Target(name, exporter, resource, self._wire) for name, exporter in found]
        self._pieces: deque[_Piece] = deque()
        self._began = 0.0
        self._well = True
        self._allowance = allowance
        self._gathered = gathered
        self._interval = milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 10_000.0)
        self._timeout_ms = milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", 30_000.0) * 1000.0
        self.worker = Worker("metrics", self._interval, self._step, lambda: exporters.shut_down(found))

    def begin(self) -> None:
        """Start the thread."""
        self.worker.start()

    def _step(self, called: bool) -> tuple[bool, float]:  # noqa: FBT001 - the worker's interface
        """Send the present state of everything; what there is no room for now when there is, in pieces that fit."""
        if called or not self._pieces:
            if not called and self._allowance.limit <= 0.0:
                return True, self._allowance.wait(1.0, metrics=True)
            self._send(called)  # of before: a delta has to be whole before the next one begins
            self._began = time.monotonic()
            self._well = True
            self._gather(called)
        self._send(called)
        if self._pieces:
            self._allowance.reserve(self._wanted())
            return True, max(_LEAST_WAIT, self._allowance.wait(self._wanted(), metrics=True))
        self._allowance.reserve(0.0)
        interval = self._interval * self._allowance.slower
        return self._well, max(0.0, interval - (time.monotonic() - self._began))

    def _gather(self, called: bool) -> None:  # noqa: FBT001 - as above
        """Make the requests of a snapshot, each to one exporter, and each no larger than what metrics may take."""
        snapshot, accounts = core.snapshot(), core.accounts()
        found = self._gathered.families(snapshot, accounts)
        most = math.inf if called else self._allowance.limit * SECONDS * METRICS_SHARE
        for target in self._targets:
            data = target.stream.data(found, snapshot["start_unix_ns"], snapshot["unix_ns"])
            size = estimated(data)
            if size * target.ratio <= most or target.writes:
                self._pieces.append(_Piece(target, data, size, last=True, whole=True))
                continue
            parts = list(divided(data, max(most, 1.0) / target.ratio))
            for number, part in enumerate(parts, 1):
                self._pieces.append(_Piece(target, part, estimated(part), last=number == len(parts), whole=False))
            target.missed = False

    def _wanted(self) -> float:
        """Bytes that the next request needs."""
        piece = self._pieces[0]
        return min(piece.size * piece.target.ratio, self._allowance.limit * SECONDS * METRICS_SHARE)

    def _send(self, called: bool) -> None:  # noqa: FBT001 - as above
        """Send requests, all of them where somebody called for it, else as many as there is room for."""
        while self._pieces and (called or self._allowance.claim(max(1.0, self._wanted()), metrics=True)):
            piece = self._pieces.popleft()
            target = piece.target
            self._wire.taken()
            taken = exporters.took(target.name, "metrics", target.export, piece.data, timeout_millis=self._timeout_ms)
            self._well = self._well and taken
            self._told(piece, taken=taken)
            if target.writes:
                self._allowance.spent(0, 1, metrics=True, exempt=called)
                continue
            sent = self._wire.taken() if target.counted else round(piece.size)
            if sent:
                # Larger ones count at once, smaller ones by and by: a snapshot's pieces are of different kinds.
                target.ratio = max(sent / piece.size, target.ratio * 0.9 + sent / piece.size * 0.1)
            self._allowance.spent(sent, 0, metrics=True, exempt=called)

    def _told(self, piece: _Piece, *, taken: bool) -> None:
        """Have the stream know what its exporter has taken."""
        target = piece.target
        target.missed = target.missed or not taken
        if piece.last and not target.missed:
            target.stream.taken()
        elif taken and not piece.whole:
            target.stream.partly_taken(piece.data)
        if piece.last:
            target.missed = False

    def stop(self, deadline: float) -> bool:
        """Send once more, and end; False where ``deadline`` came first."""
        through = self.worker.stop(deadline)
        if not through:
            faults.report("export.metrics.stop", "an exporter was not through with the last metrics in time")
        return through
