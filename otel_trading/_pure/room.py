"""Thresholds of this process's own, beside those of the bucket: that its queue to the exporters does not fill up.

What fits by bytes may still be more spans than the queue holds, and then a trace with an error would find no room.
"""

from __future__ import annotations

import math

from otel_trading import _layout as at
from otel_trading._pure.bucket import NEVER, PERIOD, SMOOTHING, poured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.kept import Queue

_TAKEN = at.TIERS + 1  # after the tiers' plain spans and those of triggers
_HALF = 0.5
_FULL = 0.75  # beyond that what is left is for triggers
_NS = 1_000_000_000


class Room:
    """What comes into the queue, and what is taken out."""

    def __init__(self) -> None:
        self.counts = [0] * (at.TIERS + 2)  # spans: plain ones of each tier, those of triggers, those that were taken
        self.restart()

    def restart(self) -> None:
        """Begin anew, with another queue."""
        self._planned = list(self.counts)
        self._planned_ns = 0
        self._rates = [0.0] * len(self.counts)
        self._thresholds = [0] * at.TIERS

    def thresholds(self, queue: Queue) -> list[int]:
        """Give what is in force, a tier."""
        return [NEVER] * at.TIERS if _fill(queue) > _FULL else self._thresholds

    def plan(self, now_ns: int, queue: Queue) -> None:
        """Set thresholds so that the queue stays half empty; at most each 100 ms."""
        passed = now_ns - self._planned_ns
        if self._planned_ns and 0 <= passed < PERIOD:
            return
        planned, self._planned = self._planned, list(self.counts)
        known, self._planned_ns = self._planned_ns and passed > 0, now_ns
        if not known:
            return
        seconds = passed / _NS
        weight = 1 - math.exp(-seconds / SMOOTHING)
        for number, (count, past) in enumerate(zip(self.counts, planned)):  # noqa: B905  six each
            self._rates[number] += weight * ((count - past) / seconds - self._rates[number])
        rates = self._rates
        free = rates[_TAKEN] - rates[at.TIERS] + (_HALF - _fill(queue)) * queue.limit
        self._thresholds = poured(rates[: at.TIERS], free, self._thresholds)


def spare(queue: Queue) -> int:
    """Tell how many spans of plain traces the queue has room for."""
    return int(_FULL * queue.limit) + 1 - len(queue.spans) if _fill(queue) <= _FULL else 0


def _fill(queue: Queue) -> float:
    """Tell which part of the queue is in use."""
    if not queue.limit:
        return 0.0
    blocks = queue.bytes / queue.most_bytes if queue.most_bytes else 0.0
    return max(len(queue.spans) / queue.limit, blocks)
