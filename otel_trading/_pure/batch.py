"""Kept spans on their way to the exporters."""

from __future__ import annotations

from otel_trading import _layout as at
from otel_trading._pure import otlp, wire
from otel_trading._pure.kept import state_of
from otel_trading._pure.names import names, probes
from otel_trading._pure.passes import drain
from otel_trading._pure.recorder import recorder
from otel_trading._pure.tracestate import with_threshold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_trading._native import SpanState
    from otel_trading._pure.kept import Kept


class Batch:
    """Spans that ``take`` handed over; they count as pending until ``settle``."""

    __slots__ = ("_estimated", "_file", "_kept", "_limits", "_texts", "_tiers")

    def __init__(self, kept: list[Kept]) -> None:
        self._kept = kept
        self._file = drain.file
        self._texts = names.texts  # of this segment; the next one has a list of its own
        self._limits = recorder.limits[:3]
        counts = [0] * at.TIERS
        for slot, *_ in kept:
            counts[slot[at.OFF_SLOT_TIER] % at.TIERS] += 1
        self._tiers = tuple(counts)
        charged = sum(one[6] for one in kept)
        self._estimated = round(charged)
        drain.rules.bucket.took(sum(one[5] for one in kept), charged)
        drain.rules.room.counts[-1] += len(kept)

    @property
    def tiers(self) -> tuple[int, ...]:
        """How many of each tier."""
        return self._tiers

    @property
    def estimated_bytes(self) -> int:
        """What the bucket was charged for them."""
        return self._estimated

    def __len__(self) -> int:
        return len(self._kept)

    def _name(self, number: int) -> str:
        texts = self._texts
        return texts[number] if number < len(texts) else "other"

    def _check(self) -> None:
        if drain.file is None or drain.file is not self._file:
            raise RuntimeError("the segment that these spans are of is gone")

    def states(self) -> list[SpanState]:
        """Give them one by one.  Raises RuntimeError where the segment is gone meanwhile."""
        self._check()
        states = []
        for slot, epoch, blocks, _, threshold, *_ in self._kept:
            state = state_of(slot, epoch, blocks, self._limits, self._name)
            if threshold:
                state = (*state[:10], with_threshold(state[10], state[2], threshold), *state[11:])
            states.append(state)
        return states

    def _probe(self, slot: bytes) -> int:
        return int.from_bytes(slot[at.OFF_SLOT_PROBE : at.OFF_SLOT_PROBE + 2], "little")

    def scopes(self) -> list[str]:
        """JSON objects of their instrumentation scopes in order of first appearance; "" is our own."""
        return list(dict.fromkeys(probes[self._probe(slot)].scope for slot, *_ in self._kept))

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
            probe = probes[state[0]]
            spans.setdefault(probe.scope, []).append(otlp.span(state, probe))
        if len(scopes) != len(spans):
            raise ValueError(f"the batch has {len(spans)} scopes, not {len(scopes)}")
        groups = [
            wire.delimited(2, scope + b"".join(encoded) + schema)
            for (scope, schema), encoded in zip(scopes, spans.values(), strict=True)
        ]
        return wire.delimited(1, resource + b"".join(groups) + schema_url)
