"""The traces that the drain remembers: what was seen of each, and its verdict.

A trace is known by its id's low 64 bits, a word says the rest; the layout of threshold and triggers is that of
``ot_verdict.word``.
"""

from __future__ import annotations

from itertools import islice

from otel_trading import _layout as at

TIERS = 0xF
"""One bit for each tier that it has spans of."""
REMOTE = 1 << 4
"""It has a span whose parent is elsewhere."""
ROOT = 1 << 5
"""It has its root in this process."""
KEPT = 1 << 6
DROPPED = 1 << 7
DECIDED = KEPT | DROPPED
THRESHOLD = 8
THRESHOLDS = 0xFFFF << THRESHOLD
TRIGGER = 24
TRIGGERS = 0xFF << TRIGGER
BY_TRIGGER = 1 << 32
"""It was kept by one of them."""
ASKED = 1 << 33
"""The other processes were asked."""
TOLD = 1 << 34
"""It is counted as missed."""
UNREACHED = 1 << 35
"""While it waits: the threshold that it met is one that no trace reaches."""

BEST_TIER = [at.TIERS - 1, *[(mask & -mask).bit_length() - 1 for mask in range(1, TIERS + 1)]]
"""The best tier of a set of them."""
_MOST = 65_536
_AT_ONCE = 8_192  # that are forgotten together
BYTES = 112
"""About what one takes: its place in the dictionary, two numbers."""


class Traces(dict[int, int]):
    """Words by id, in the order in which the traces appeared; at most some 65,000, the oldest are forgotten."""

    __slots__ = ()

    def bound(self) -> None:
        """Forget the oldest."""
        while len(self) > _MOST:
            for low in list(islice(self, _AT_ONCE)):
                del self[low]


ORDER = (
    at.TRIGGER_REJECT,
    at.TRIGGER_RISK,
    at.TRIGGER_INTERRUPTED,
    at.TRIGGER_PINNED,
    at.TRIGGER_SLA,
    at.TRIGGER_ERROR,
    at.TRIGGER_SLOW,
)
"""In which triggers are asked: what says more of a trace comes first."""


def first_of(word: int) -> int:
    """Give the first of a trace's triggers, SHARE where it has none."""
    if word & TRIGGERS:
        for trigger in ORDER:
            if word >> TRIGGER + trigger & 1:
                return trigger
    return at.TRIGGER_SHARE
