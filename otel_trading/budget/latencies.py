"""The application's p99 as another process sees it: from the spans in the segment, with bounded effort."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING

from otel_trading.budget.rollout import Figure, is_application
from otel_trading.segment import attach

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_SPANS = 200_000  # that are remembered of a probe


class Latencies:
    """Durations of a process's P0 spans, or those of one probe, by reading its rings now and then.

    Where more is recorded than a look reads, the ring comes round before all is read, and what was read is a sample:
    runs of spans that follow each other.
    """

    def __init__(self, path: str, probe: str | None = None, clock: Callable[[], int] = time.time_ns) -> None:
        """Attach to a segment; ``probe`` names the one that counts, by default the P0 probe with most spans.

        ``clock`` gives Unix ns.  Raises SegmentError.
        """
        self._reader = attach(path)
        self._probe = probe
        self._clock = clock
        self._probes: list[tuple[str, int]] = []
        self._seen: dict[str, deque[tuple[int, float]]] = {}

    def close(self) -> None:
        """Let the segment go."""
        self._reader.close()

    def look(self, most: int = 4096) -> None:
        """Read at most so many records; takes some 10 ms where there are as many."""
        for state in self._reader.read(most):
            if state[0] >= len(self._probes):
                self._probes = [(probe[0], probe[1]) for probe in self._reader.probes()]
            name, tier = self._probes[state[0]] if state[0] < len(self._probes) else ("", -1)
            if name == self._probe or (self._probe is None and is_application(name, tier)):
                start, end = state[5], state[6]
                seen = self._seen.setdefault(name, deque(maxlen=_MOST_SPANS))
                seen.append((end, (end - start) / 1e9))

    def figure(self, seconds: float) -> Figure | None:
        """Give p99 and number of the spans that ended in the last seconds; None where there is none."""
        since = self._clock() - round(seconds * 1e9)
        found: list[float] = []
        for seen in self._seen.values():
            while seen and seen[0][0] < since:
                seen.popleft()
            if len(seen) > len(found):
                found = [duration for end, duration in seen if end >= since]
        if not found:
            return None
        found.sort()
        return Figure(found[math.ceil(0.99 * len(found)) - 1], len(found))
