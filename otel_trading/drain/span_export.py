"""The thread that takes kept spans from the backend and hands them to the span exporters."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from otel_trading import faults
from otel_trading._backend import core
from otel_trading.drain import exporters
from otel_trading.drain.environment import milliseconds, whole
from otel_trading.drain.spans import Converter
from otel_trading.drain.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_trading._native import SpanState

    Tiers = tuple[int, int, int, int]

_NONE = (0, 0, 0, 0)
# How soon, in seconds, the queue is looked at again where it was found a quarter full or more.
_BUSY_WAIT = 0.05


class SpanExport:
    """Takes kept spans in batches, hands each to every exporter, and settles the accounts."""

    def __init__(self, found: Sequence[tuple[str, SpanExporter]], resource: Resource, capacity: int) -> None:
        """Read the schedule from the environment; nothing runs before ``begin``.

        Raises ConfigurationError for a variable that cannot be read.
        """
        self._exporters = found
        self._converter = Converter(resource, lambda: core.snapshot()["probes"])
        self._capacity = capacity
        self._delay = milliseconds("OTEL_BSP_SCHEDULE_DELAY", 1000.0)
        self._batch = whole("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
        # Guards what follows; held for no longer than a `take` or a `settle`.
        self._lock = threading.Lock()
        self._in_hand: Tiers | None = None
        self._given_up = False
        self._busy_with = ""
        self.worker = Worker("spans", self._delay, self._step, lambda: exporters.shut_down(found))

    def begin(self) -> None:
        """Have the backend keep spans from now on, and start the thread."""
        core.keep(self._capacity)
        self.worker.start()

    def _step(self) -> tuple[bool, float]:
        """Export all that is kept."""
        core.drain()
        well, done = True, 0
        while batch := self._take():
            taken = self._deliver(batch)
            self._settle(exported=taken)
            well = well and taken
            done += len(batch)
        return well, self._delay if done < self._capacity // 4 else min(self._delay, _BUSY_WAIT)

    def _take(self) -> list[SpanState]:
        with self._lock:
            if self._given_up:
                return []
            batch = core.take(self._batch)
            if batch:
                self._in_hand = by_tier(batch)
            return batch

    def _settle(self, *, exported: bool) -> None:
        with self._lock:
            # None: they were counted as refused meanwhile, by `stop`.
            if self._in_hand is not None:
                counts, self._in_hand = self._in_hand, None
                core.settle(*((counts, _NONE) if exported else (_NONE, counts)))

    def _deliver(self, batch: Sequence[SpanState]) -> bool:
        """Hand a batch to every exporter; whether all of them took it."""
        try:
            spans = self._converter.convert(batch)
        except Exception as error:  # noqa: BLE001 - a batch that cannot be converted must not stop the next one
            faults.report("export.convert", f"{len(batch)} spans cannot be converted: {type(error).__name__}: {error}")
            return False
        all_took = True
        for name, exporter in self._exporters:
            self._busy_with = name
            all_took = exporters.took(name, "spans", exporter.export, spans) and all_took
        return all_took

    def stop(self, deadline: float) -> bool:
        """Export the rest until ``deadline``; then what has not been taken is refused, and no more is kept."""
        through = self.worker.stop(deadline)
        with self._lock:
            self._given_up = True
            refused = self._in_hand or _NONE
            self._in_hand = None
            refused = _sum(refused, _taken_to_refuse())
            # From here on nothing leaves the process, so what is drained counts as sampled out; except what came
            # to the queue just before.
            core.keep(0)
            refused = _sum(refused, _taken_to_refuse())
            if any(refused):
                core.settle(_NONE, refused)
        if not through:
            faults.report(
                "export.spans.stop",
                f"exporter {self._busy_with!r} was not through with the last spans in time: {sum(refused)} are refused",
            )
        return through


def by_tier(batch: Sequence[SpanState]) -> Tiers:
    """Return how many spans of a batch each tier has."""
    counts = [0, 0, 0, 0]
    for state in batch:
        counts[state[1] & 3] += 1
    return (counts[0], counts[1], counts[2], counts[3])


def _taken_to_refuse() -> Tiers:
    counts = _NONE
    while batch := core.take(4096):
        counts = _sum(counts, by_tier(batch))
    return counts


def _sum(one: Tiers, other: Tiers) -> Tiers:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])
