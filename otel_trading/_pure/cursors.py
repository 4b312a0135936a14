"""How far the drain is in a ring: what it has aggregated, what of that waits for a verdict, and since when."""

from __future__ import annotations

import math
from collections import deque

from otel_trading import _layout as at
from otel_trading._pure.writer import ARENA_HEAD, HEAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.progress import Progress
    from otel_trading._pure.writer import Writer

SEEN = at.OFF_RING_SEEN // 8
TAIL = at.OFF_RING_TAIL // 8
DRAINED = at.OFF_RING_DRAINED // 8
_WORD = (1 << 64) - 1
_SMOOTHING = 2e9  # ns


class Mark:
    """The end of what one pass aggregated."""

    __slots__ = ("arena", "counts", "position", "when_ns")

    def __init__(self, position: int, when_ns: int, arena: int, counts: list[int]) -> None:
        self.position = position
        self.when_ns = when_ns
        self.arena = arena
        self.counts = counts  # spans that had been aggregated up to there, a tier


class Cursor:
    """One a ring; with the drain's lock held.

    How far it is stands in the ring's header too, for readers and for the next drain; what is there is not believed.
    """

    __slots__ = (
        "_ring",
        "aggregated",
        "arena",
        "arena_rate",
        "decided",
        "drained",
        "head",
        "lost",
        "marks",
        "progress",
        "rate",
        "seen",
        "tail",
        "when_ns",
    )

    def __init__(self, writer: Writer, progress: Progress) -> None:
        self._ring = writer.ring
        self.progress = progress
        self.seen = self.tail = 0
        self.drained = [0] * (at.TIERS + 1)  # spans that were aggregated, a tier, then values
        self.marks: deque[Mark] = deque()
        self.aggregated = [0] * at.TIERS  # spans, of those that a verdict falls on
        self.decided = [0] * at.TIERS  # likewise
        self.lost = [0] * at.TIERS  # that were aggregated and overwritten before they were decided, up to the last mark
        self.when_ns = 0
        self.head = self.arena = 0
        self.rate = self.arena_rate = 0.0  # records and bytes a ns

    def see(self, position: int) -> None:
        """Have aggregated what lies before."""
        self.seen = self._ring[SEEN] = position

    def decide(self, position: int) -> None:
        """Have decided on what lies before."""
        self.tail = self._ring[TAIL] = position

    def drain(self, number: int, count: int) -> None:
        """Count records that were aggregated: spans by tier, values past the tiers."""
        self.drained[number] += count
        self._ring[DRAINED + number] = self.drained[number] & _WORD

    def mark(self, writer: Writer, now_ns: int) -> None:
        """Remember when what was aggregated so far was."""
        seen, arena = self.seen, writer.ring[ARENA_HEAD]
        if self.when_ns and now_ns > self.when_ns:
            passed = now_ns - self.when_ns
            weight = 1 - math.exp(-passed / _SMOOTHING)
            self.rate += weight * ((seen - self.head) / passed - self.rate)
            self.arena_rate += weight * ((arena - self.arena) / passed - self.arena_rate)
        self.when_ns, self.head, self.arena = now_ns, seen, arena
        if seen > (self.marks[-1].position if self.marks else self.tail):
            self.marks.append(Mark(seen, now_ns, arena, list(self.aggregated)))

    def reached(self, tail: int) -> None:
        """Settle what was overwritten, where the tail has come to a mark."""
        marks = self.marks
        while marks and marks[0].position <= tail:
            mark = marks.popleft()
            if mark.position == tail:
                # Never below nothing: see passes.py.
                self.lost = [max(0, a - b) for a, b in zip(mark.counts, self.decided)]  # noqa: B905  four each

    def forced(self, writer: Writer) -> int:
        """Give the position up to which there is no more time: half of the ring, or of its arena, is in use."""
        ring = writer.ring
        position: int = ring[HEAD] - writer.capacity // 2
        limit = ring[ARENA_HEAD] - writer.arena_size // 2
        if self.marks and self.marks[0].arena < limit:
            older = [mark.position for mark in self.marks if mark.arena < limit]
            newer = [mark.position for mark in self.marks if mark.arena >= limit]
            position = max(position, newer[0] if newer else older[-1])
        return position

    def horizon_ns(self, writer: Writer) -> float:
        """Tell how long half of the ring, and of its arena, lasts."""
        slots = writer.capacity / 2 / self.rate if self.rate > 0 else math.inf
        return min(slots, writer.arena_size / 2 / self.arena_rate if self.arena_rate > 0 else math.inf)
