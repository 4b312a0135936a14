"""Kept spans on their way to the exporters."""

from __future__ import annotations

import os
import select
from errno import ETIMEDOUT
from time import monotonic

from otel_trading import _layout as at
from otel_trading._pure import otlp, wire
from otel_trading._pure.kept import place_of, state_of
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.passes import drain
from otel_trading._pure.tracestate import with_threshold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from otel_trading._native import SpanState
    from otel_trading._pure.kept import Kept
    from otel_trading._pure.progress import Progress

    Tiers: TypeAlias = tuple[int, int, int, int]


_NONE = (0, 0, 0, 0)
_HANDED = (CONTROL + at.OFF_CONTROL_HANDED) // 8


def _four(counts: Sequence[int]) -> Tiers:
    return counts[0], counts[1], counts[2], counts[3]


def _written(fd: int, rest: bytes) -> int:
    """Write what there is room for; SIGPIPE is ignored by Python."""
    try:
        return os.write(fd, rest)
    except (BlockingIOError, InterruptedError):
        return 0


class Batch:
    """Spans that ``take`` handed over; they count as pending until ``settle``."""

    __slots__ = ("_estimated", "_file", "_kept", "_sent", "_settled", "_tables", "_tenure", "_tiers")

    def __init__(self, kept: list[Kept]) -> None:
        self._kept = kept
        self._file = drain.file
        self._tables = drain.tables
        self._tenure = drain.tenure
        self._sent = self._settled = False
        counts = [0] * at.TIERS
        for slot, *_ in kept:
            counts[slot[at.OFF_SLOT_TIER] % at.TIERS] += 1
        self._tiers = _four(counts)
        charged = sum(one[6] for one in kept)
        self._estimated = round(charged)
        drain.rules.bucket.took(sum(one[5] for one in kept), charged)
        drain.rules.room.counts[-1] += len(kept)

    @property
    def tiers(self) -> Tiers:
        """How many of each tier."""
        return self._tiers

    @property
    def estimated_bytes(self) -> int:
        """What the bucket was charged for them."""
        return self._estimated

    def __len__(self) -> int:
        return len(self._kept)

    # ---- what becomes of them ----

    def hand_over(self, fd: int, rest: bytes, timeout: float, /) -> None:
        """Send ``rest``, the last byte of the request that they are in, to a socket, and mark them as sent.

        A process that is killed meanwhile leaves word in the segment whether the kernel has it: what can be missed is
        the time between the kernel's taking it and the next store.  Raises OSError, with them unmarked; TimeoutError
        after ``timeout`` seconds without room.
        """
        deadline = monotonic() + timeout
        while rest := rest[self._send(fd, rest) :]:
            if monotonic() >= deadline:
                raise TimeoutError(ETIMEDOUT, "the receiver takes no more")
            room = select.poll()
            room.register(fd, select.POLLOUT)
            room.poll(min(1.0, max(0.001, deadline - monotonic())) * 1000)

    def _send(self, fd: int, rest: bytes) -> int:
        """Send what the socket has room for; where that is all of it, tell so in the segment."""
        with drain.lock:
            file = drain.file
            ours = not self._settled and not self._sent and self._tenure == drain.tenure and file is self._file
            if not ours or file is None:
                return _written(fd, rest)
            words = file.words
            words[_HANDED] = 0
            self._offer(offered=True)
            sent = 0
            try:
                sent = _written(fd, rest)
                words[_HANDED] = sent == len(rest)
            finally:
                if sent == len(rest):
                    self._tell(sent=True)
                else:
                    self._offer(offered=False)
            return sent

    def _offer(self, *, offered: bool) -> None:
        for kept in self._kept:
            kept[7].offer(place_of(kept)[0], offered=offered)

    def sent(self) -> None:
        """Mark them as handed to the kernel whole: a drain that takes over from now on does not send them again."""
        self._tell(sent=True)

    def unsent(self) -> None:
        """Take the mark back: the receiver has said that it did not take them."""
        self._tell(sent=False)

    def _tell(self, *, sent: bool) -> None:
        with drain.lock:
            if self._settled or self._sent == sent or self._tenure != drain.tenure:
                return
            for ring in self._mark_each(lambda _: at.MARK_SENT if sent else at.MARK_NONE):
                ring.publish()
            self._sent = sent

    def _mark_each(self, kind_of: Callable[[int], int]) -> set[Progress]:
        """Mark each as its tier's turn says; gives the rings that they are of.  With the lock held."""
        rings: set[Progress] = set()
        for kept in self._kept:
            number, tier = place_of(kept)
            kept[7].settle(number, tier, kind_of(tier), sent=self._sent)
            rings.add(kept[7])
        return rings

    def settle(self, refused: int = 0, /) -> tuple[Tiers, Tiers]:
        """They are exported, but for ``refused`` of them, which are taken for those of the lowest tiers.

        Marks them so in the segment, and gives how many of each tier were exported, and refused.  Any thread may call
        it; only the first call counts, a later one gives zeros.
        """
        if refused < 0:
            raise ValueError("settle() wants a number of spans")
        with drain.lock:
            if self._settled:
                return _NONE, _NONE
            self._settled = True
            lost = [0] * at.TIERS
            for tier in reversed(range(at.TIERS)):
                lost[tier] = min(self._tiers[tier], refused)
                refused -= lost[tier]
            exported = [count - gone for count, gone in zip(self._tiers, lost)]  # noqa: B905  four each
            if self._tenure == drain.tenure:  # else another process has taken over what becomes of them
                self._mark(exported, lost)
            return _four(exported), _four(lost)

    def _mark(self, exported: list[int], lost: list[int]) -> None:
        """With the lock held."""
        left = exported.copy()

        def kind_of(tier: int) -> int:
            left[tier] -= 1
            return at.MARK_EXPORTED if left[tier] >= 0 else at.MARK_REFUSED

        rings = self._mark_each(kind_of)
        for tier in range(at.TIERS):
            drain.exported[tier] += exported[tier]
            drain.refused[tier] += lost[tier]
        for ring in rings:  # at once: until the next pass slots may be taken by newer records
            ring.advance(0)
            ring.publish()

    # ---- what is sent ----

    def _check(self) -> None:
        if drain.file is None or drain.file is not self._file:
            raise RuntimeError("the segment that these spans are of is gone")

    def states(self) -> list[SpanState]:
        """Give them one by one.  Raises RuntimeError where the segment is gone meanwhile."""
        self._check()
        states = []
        for slot, epoch, blocks, _, threshold, *_ in self._kept:
            state = state_of(slot, epoch, blocks, self._tables.limits, self._tables.name)
            if threshold:
                state = (*state[:10], with_threshold(state[10], state[2], threshold), *state[11:])
            states.append(state)
        return states

    def _probe(self, slot: bytes) -> int:
        return int.from_bytes(slot[at.OFF_SLOT_PROBE : at.OFF_SLOT_PROBE + 2], "little")

    def scopes(self) -> list[str]:
        """JSON objects of their instrumentation scopes in order of first appearance; "" is our own."""
        return list(dict.fromkeys(self._tables.probes[self._probe(slot)].scope for slot, *_ in self._kept))

    def otlp(self, resource: bytes, schema_url: bytes, scopes: Sequence[tuple[bytes, bytes]], /) -> bytes:
        """Encode an ExportTraceServiceRequest, as the stock exporter does.

        ``resource`` and ``schema_url``: fields 1 and 3 of ResourceSpans, encoded with their tags; ``scopes``: fields 1
        and 3 of each ScopeSpans, by ``scopes()``.  Raises RuntimeError where the segment is gone meanwhile.
        """
        self._check()
        if not self._kept:
            return b""
        spans: dict[str, list[bytes]] = {}
        for state in self.states():
            probe = self._tables.probes[state[0]]
            spans.setdefault(probe.scope, []).append(otlp.span(state, probe))
        if len(scopes) != len(spans):
            raise ValueError(f"the batch has {len(spans)} scopes, not {len(scopes)}")
        groups = [
            wire.delimited(2, scope + b"".join(encoded) + schema)
            for (scope, schema), encoded in zip(scopes, spans.values(), strict=True)
        ]
        return wire.delimited(1, resource + b"".join(groups) + schema_url)
