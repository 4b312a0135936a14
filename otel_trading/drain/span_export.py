"""The thread that takes kept spans from the backend and has them handed to the span exporters."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from otel_trading import faults
from otel_trading._backend import core
from otel_trading._real_threads import real_threading
from otel_trading.drain import exporters
from otel_trading.drain.allowance import SECONDS
from otel_trading.drain.delivery import Delivery
from otel_trading.drain.environment import milliseconds, whole
from otel_trading.drain.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from otel_trading._native import Batch
    from otel_trading.drain.allowance import Allowance

threading = real_threading()

_BATCH_SIZE = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_NEVER, _NEVER_BYTES = 1 << 25, 1 << 62  # more than the backend lets a queue hold
_LEAST_WAIT = 0.01  # seconds between two looks at whether there is room
_MARGIN = 0.95  # of the room that a request is made for: these spans may be larger than those before
_FIRST_GUESS = 300.0  # bytes of a span on the wire
_HEAD = 500  # bytes of a request before its first span: http's head, the resource


class SpanExport:
    """Takes kept spans in batches, has each delivered to every exporter, and settles the accounts.

    Spans leave after a delay, and at once when the queue is a quarter full; never more of them than the budget has room
    for, but for those of a flush and of the end.  What has no room waits in the queue.
    """

    def __init__(
        self,
        found: Sequence[tuple[str, exporters.Spans]],
        attributes: Mapping[str, Any],
        capacity: int,
        block_bytes: int,
        allowance: Allowance,
    ) -> None:
        """Read the schedule from the environment; nothing runs before ``begin``.

        ``attributes`` are the resource's; ``capacity`` and ``block_bytes`` are those of ``core.keep``.  Raises
        ConfigurationError for a variable that cannot be read.
        """
        self._capacity = capacity
        self._block_bytes = block_bytes
        self._allowance = allowance
        self._delay = milliseconds("OTEL_BSP_SCHEDULE_DELAY", 1000.0)
        self._batch = whole(_BATCH_SIZE)
        self._delivery = Delivery(found, attributes, lambda: core.snapshot()["probes"])
        self._wire_bytes = _FIRST_GUESS  # of a span, on the wire
        self._held = False  # by the budget, at the last step
        # Guards what follows; held for no longer than a `take` or a `settle`.
        self._lock = threading.Lock()
        self._in_hand: Batch | None = None
        self._given_up = False
        finish = partial(exporters.shut_down, found)
        self.worker = Worker("spans", self._delay, self._step, finish, self._pause, core.wake)

    def begin(self) -> None:
        """Have the backend keep spans from now on, and start the thread."""
        core.keep(self._capacity, self._block_bytes)
        self.worker.start()

    def _pause(self, seconds: float) -> bool:
        """Wait for the queue to be a quarter full, by number or by what its spans carry; False after ``seconds``.

        Where the budget holds spans back, the queue may be as full as it likes.
        """
        if self._held:
            return core.await_kept(_NEVER, _NEVER_BYTES, seconds)
        return core.await_kept(-(-self._capacity // 4), -(-self._block_bytes // 4), seconds)

    def _step(self, called: bool) -> tuple[bool, float]:  # noqa: FBT001 - the worker's interface
        """Export what is kept, as far as the budget goes; all of it where somebody ``called`` for it."""
        core.drain(called)
        well = True
        self._held = False
        while core.kept() and (limit := self._limit(called)):
            batch = self._take(limit)
            if batch is None:
                self._allowance.spent(0, 0)  # nothing, then, and the room is free again
                break
            refused = self._delivery.deliver(batch)
            self._settle(batch, refused)
            self._count(batch, exempt=called)
            well = well and not refused
        if self._held:  # before there is room again nothing can be done, whatever the schedule says
            return well, max(_LEAST_WAIT, self._allowance.wait(self._wanted()))
        return well, self._delay * self._allowance.slower

    def _limit(self, called: bool) -> int:  # noqa: FBT001 - as above
        """How many spans the next batch may have; 0, and ``_held``, where there is no room for them."""
        usual = self._batch or self._delivery.limit
        room = math.inf if called else self._allowance.room()
        if room == math.inf:
            return usual
        # A request for a few spans costs as much as one for many: it is worth its while only from some size on.
        count = max(1, min(usual, core.kept(), int((room * _MARGIN - _HEAD) / self._wire_bytes)))
        self._held = room < self._wanted() or not self._allowance.claim(_HEAD + count * self._wire_bytes)
        return 0 if self._held else count

    def _wanted(self) -> float:
        """Bytes that a request should have room for: all that waits, or half of the budget's second."""
        return min(_HEAD + max(1, core.kept()) * self._wire_bytes, self._allowance.limit * SECONDS / 2)

    def _count(self, batch: Batch, *, exempt: bool) -> None:
        sent = self._delivery.sent_bytes
        self._allowance.spent(sent, self._delivery.disk_operations, batch.estimated_bytes, exempt=exempt)
        if sent:
            # Larger ones count at once, smaller ones by and by.
            size = max(1.0, (sent - _HEAD) / len(batch))
            self._wire_bytes = max(size, (self._wire_bytes + size) / 2)

    def _take(self, limit: int) -> Batch | None:
        with self._lock:
            if self._given_up:
                return None
            batch = core.take(limit)
            if not len(batch):
                return None
            self._in_hand = batch
            return batch

    def _settle(self, batch: Batch, refused: int) -> None:
        with self._lock:
            self._in_hand = None
            # Where `stop` has given up on it meanwhile, this says nothing any more, or it is the next drain's.
            if not self._given_up:
                batch.settle(refused)

    def stop(self, deadline: float, leave: bool = False) -> bool:  # noqa: FBT001, FBT002  as ``Exports.stop``
        """Export the rest until ``deadline``; then what has not been taken is refused, and no more is kept.

        ``leave``: it is not refused, but left, as it is marked now, to whoever drains the segment next.
        """
        through = self.worker.stop(deadline)
        with self._lock:
            self._given_up = True
            batch, self._in_hand = self._in_hand, None
            refused = 0
            if not leave:
                refused = _refused(batch) + _taken_to_refuse()
                # From here on nothing leaves the process, so what is drained counts as sampled out; except what came
                # to the queue just before.
                core.keep(0)
                refused += _taken_to_refuse()
        if not through:
            self._delivery.give_up()
            if not leave:
                faults.report(
                    "export.spans.stop",
                    f"exporter {self._delivery.busy_with!r} was not through with the last spans in time: "
                    f"{refused} are refused",
                )
        return through


def _refused(batch: Batch | None) -> int:
    return 0 if batch is None else sum(batch.settle(len(batch))[1])


def _taken_to_refuse() -> int:
    count = 0
    while len(batch := core.take(4096)):
        count += _refused(batch)
    return count
