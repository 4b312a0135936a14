"""The thread that takes kept spans from the backend and has them handed to the span exporters."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from otel_trading import faults
from otel_trading._backend import core
from otel_trading.drain import exporters
from otel_trading.drain.delivery import Delivery
from otel_trading.drain.environment import milliseconds, whole
from otel_trading.drain.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_trading._native import Batch

    Tiers = tuple[int, int, int, int]

_NONE = (0, 0, 0, 0)
_BATCH_SIZE = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"


class SpanExport:
    """Takes kept spans in batches, has each delivered to every exporter, and settles the accounts.

    Spans leave after a delay, and at once when the queue is a quarter full.
    """

    def __init__(
        self, found: Sequence[tuple[str, SpanExporter]], resource: Resource, capacity: int, block_bytes: int
    ) -> None:
        """Read the schedule from the environment; nothing runs before ``begin``.

        ``capacity`` and ``block_bytes`` are those of ``core.keep``.  Raises ConfigurationError for a variable that
        cannot be read.
        """
        self._capacity = capacity
        self._block_bytes = block_bytes
        self._delay = milliseconds("OTEL_BSP_SCHEDULE_DELAY", 1000.0)
        self._batch = whole(_BATCH_SIZE)
        self._delivery = Delivery(found, resource, lambda: core.snapshot()["probes"])
        # Guards what follows; held for no longer than a `take` or a `settle`.
        self._lock = threading.Lock()
        self._in_hand: Tiers | None = None
        self._given_up = False
        self.worker = Worker("spans", self._delay, self._step, lambda: exporters.shut_down(found), self._due)

    def begin(self) -> None:
        """Have the backend keep spans from now on, and start the thread."""
        core.keep(self._capacity, self._block_bytes)
        self.worker.start()

    def _due(self) -> bool:
        """Tell whether the queue is a quarter full, by number or by what its spans' blocks may take."""
        waiting = core.kept()
        return waiting * 4 >= self._capacity or waiting * self._delivery.span_bytes * 4 >= self._block_bytes

    def _step(self) -> tuple[bool, float]:
        """Export all that is kept."""
        core.drain()
        well = True
        while batch := self._take():
            refused = self._delivery.deliver(batch)
            self._settle(batch.tiers, refused)
            well = well and not refused
        return well, self._delay

    def _take(self) -> Batch | None:
        with self._lock:
            if self._given_up:
                return None
            batch = core.take(self._batch or self._delivery.limit)
            if not len(batch):
                return None
            self._in_hand = batch.tiers
            return batch

    def _settle(self, counts: Tiers, refused: int) -> None:
        with self._lock:
            # None: they were counted as refused meanwhile, by `stop`.
            if self._in_hand is not None:
                self._in_hand = None
                core.settle(*_divided(counts, refused))

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
            self._delivery.give_up()
            faults.report(
                "export.spans.stop",
                f"exporter {self._delivery.busy_with!r} was not through with the last spans in time: "
                f"{sum(refused)} are refused",
            )
        return through


def _divided(counts: Tiers, refused: int) -> tuple[Tiers, Tiers]:
    """Divide a batch into what was exported and what was refused.

    A receiver that rejects some spans says how many, not which: they are taken for those of the lowest tiers.
    """
    left = list(counts)
    for tier in reversed(range(len(left))):
        from_tier = min(left[tier], refused)
        left[tier] -= from_tier
        refused -= from_tier
    exported = (left[0], left[1], left[2], left[3])
    return exported, _sum(counts, (-left[0], -left[1], -left[2], -left[3]))


def _taken_to_refuse() -> Tiers:
    counts = _NONE
    while len(batch := core.take(4096)):
        counts = _sum(counts, batch.tiers)
    return counts


def _sum(one: Tiers, other: Tiers) -> Tiers:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])
