"""Joins spans of several processes into the traces of orders, in bounded memory."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otel_trading import semconv
from otel_trading.demo import stages

if TYPE_CHECKING:
    from otel_trading._native import AttributeValue, SpanState

UNDER_WAY = 20_000
"""Traces that may be unfinished at a time; beyond it, the oldest is given up and counted."""

_UPDATES = 4096  # of the market, the newest, that may still turn out to have led to an order
_SCALE = 64  # buckets for each factor of two, as in the exported histograms


@dataclass(frozen=True, slots=True)
class Piece:
    """One span of a trace; times are Unix nanoseconds."""

    process: str
    stage: str
    span_id: int
    parent_id: int
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, AttributeValue]

    @property
    def happened_ns(self) -> int:
        """When it began; of an order's event, which began with the order, when it came."""
        return self.end_ns if self.stage in stages.EVENTS else self.start_ns

    def document(self) -> dict[str, Any]:
        """Give it for JSON."""
        return {
            "process": self.process,
            "stage": self.stage,
            "span_id": f"{self.span_id:016x}",
            "parent_id": f"{self.parent_id:016x}" if self.parent_id else None,
            "start_unix_ns": self.start_ns,
            "end_unix_ns": self.end_ns,
            "status": ("unset", "ok", "error")[self.status],
            "attributes": self.attributes,
        }


@dataclass(slots=True)
class Trace:
    """The spans of one order's trace, in the order in which they were read."""

    id: int
    pieces: list[Piece] = field(default_factory=list)

    def find(self, stage: str) -> Piece | None:
        """Give the first span of a stage."""
        return next((piece for piece in self.pieces if piece.stage == stage), None)

    @property
    def start_ns(self) -> int:
        """When its first span began."""
        return min(piece.start_ns for piece in self.pieces)

    @property
    def duration_ns(self) -> int:
        """From the beginning of its first span to the end of its last."""
        return max(piece.end_ns for piece in self.pieces) - self.start_ns

    @property
    def order_id(self) -> str:
        """The client's id of the order; "" before it is known."""
        return str(next((piece.attributes["order_id"] for piece in self.pieces if "order_id" in piece.attributes), ""))

    @property
    def symbol(self) -> str:
        """What was traded."""
        decision = self.find(stages.DECISION)
        return str(decision.attributes.get("symbol", "")) if decision else ""

    def outcome(self) -> str | None:
        """Tell how it ended: hold, denied, acked, filled or rejected; None while spans are missing."""
        decision = self.find(stages.DECISION)
        if decision is None:
            return None
        decided = str(decision.attributes.get("outcome", "order"))
        if decided != "order":
            return decided
        accept = self.find("gateway.accept")
        if accept is None:
            return None
        filled = str(accept.attributes.get("filled", ""))
        if filled:
            outcome, wanted = ("acked" if filled == "none" else "filled"), stages.expected(filled)
        else:
            outcome, wanted = "rejected", stages.expected_of_reject(routed=accept.attributes.get("routed") is True)
        return outcome if wanted <= Counter(piece.stage for piece in self.pieces) else None

    def ordered(self) -> list[tuple[int, Piece]]:
        """Give the spans as a tree is read, parents before children and earlier before later, each with its depth."""
        known = {piece.span_id for piece in self.pieces}
        children: dict[int, list[Piece]] = {}
        for piece in sorted(self.pieces, key=lambda piece: piece.happened_ns):
            children.setdefault(piece.parent_id if piece.parent_id in known else 0, []).append(piece)

        def walk(parent: int, depth: int) -> Iterator[tuple[int, Piece]]:
            for piece in children.pop(parent, []):
                yield depth, piece
                yield from walk(piece.span_id, depth + 1)

        return list(walk(0, 0))

    def gap(self) -> tuple[int, Piece, Piece] | None:
        """Give the longest time in which no span was open, in ns, and the spans before and after it; None for none."""
        longest: tuple[int, Piece, Piece] | None = None
        before: Piece | None = None
        for piece in sorted(self.pieces, key=lambda piece: piece.start_ns):
            if before is not None and piece.start_ns - before.end_ns > (longest[0] if longest else 0):
                longest = piece.start_ns - before.end_ns, before, piece
            if before is None or piece.end_ns > before.end_ns:
                before = piece
        return longest

    def document(self) -> dict[str, Any]:
        """Give it for JSON."""
        return {
            "trace_id": f"{self.id:032x}",
            "order_id": self.order_id,
            "outcome": self.outcome(),
            "duration_ns": self.duration_ns,
            "spans": [piece.document() for _, piece in self.ordered()],
        }


class Live:
    """Count and quantiles of a stage while the demo runs: within 0.6 % (at the end the processes tell their own)."""

    __slots__ = ("_buckets", "count", "process")

    def __init__(self, process: str) -> None:
        """Begin empty."""
        self.process = process
        self.count = 0
        self._buckets: dict[int, int] = {}

    def add(self, duration_ns: int) -> None:
        """Count one span in."""
        self.count += 1
        bucket = math.floor(math.log2(max(1, duration_ns)) * _SCALE)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def quantiles(self, *wanted: float) -> list[float]:
        """Give quantiles in seconds, for ascending ``wanted``; NaN when empty."""
        found: list[float] = []
        reached = 0
        buckets = iter(sorted(self._buckets.items()))
        value = math.nan
        for quantile in wanted:
            while reached < quantile * self.count:
                bucket, count = next(buckets)
                reached += count
                value = 2 ** ((bucket + 0.5) / _SCALE) / 1e9
            found.append(value)
        return found


class Joiner:
    """Takes spans as they are read and gives whole order traces; keeps the slowest that were acknowledged."""

    def __init__(self, slowest: int) -> None:
        """Keep ``slowest`` traces."""
        self._most = slowest
        self._order = itertools.count()  # decides between equals; traces do not compare
        self._slowest: list[tuple[int, int, Trace]] = []
        self._open: dict[int, Trace] = {}
        self.live: dict[str, Live] = {}
        self.outcomes: dict[str, int] = dict.fromkeys(("filled", "acked", "rejected", "denied", "hold"), 0)
        self.given_up = 0
        self.ignored: set[int] = set()  # traces that are no order's
        self.backlog = self.backlog_max = 0  # messages that waited behind the one that the bot took
        self._before: OrderedDict[int, list[Piece]] = OrderedDict()

    def add(self, process: str, names: list[str], spans: Iterable[SpanState]) -> list[Trace]:
        """Take spans of ``process``, whose probes' names are ``names``; give the order traces that are now whole."""
        touched: dict[int, Trace] = {}
        for state in spans:
            probe, _, trace_id, span_id, parent_id, start, end, status, _, _, _, attributes = state[:12]
            stage = names[probe] if probe < len(names) else ""
            if stage not in stages.SHOWN or trace_id in self.ignored:
                continue
            self._measure(process, stage, end - start)
            if stage not in stages.ORDER:
                continue
            piece = Piece(process, stage, span_id, parent_id, start, end, status, attributes)
            trace = self._trace_of(trace_id, piece)
            if trace is not None:
                trace.pieces.append(piece)
                touched[trace_id] = trace
        whole = [trace for trace in touched.values() if self._close(trace)]
        while len(self._open) > UNDER_WAY:
            del self._open[next(iter(self._open))]
            self.given_up += 1
        return whole

    def _trace_of(self, trace_id: int, piece: Piece) -> Trace | None:
        """Give the trace that a span belongs to; None for an update of the market that has led to nothing so far."""
        trace = self._open.get(trace_id)
        if trace is None and (piece.stage == stages.HANDLE or not piece.parent_id):
            if piece.stage in stages.BEFORE:
                if piece.stage == stages.RECEIVE:
                    self.backlog = int(piece.attributes.get(semconv.WEBSOCKET_BACKLOG, 0))
                    self.backlog_max = max(self.backlog_max, self.backlog)
                self._before.setdefault(trace_id, []).append(piece)
                if len(self._before) > _UPDATES:
                    self._before.popitem(last=False)
            return None  # else a message that is no order's: a subscription
        if trace is None:
            trace = self._open[trace_id] = Trace(trace_id)
            trace.pieces += self._before.pop(trace_id, ())
        return trace

    def _measure(self, process: str, stage: str, duration_ns: int) -> None:
        live = self.live.get(stage)
        if live is None:
            live = self.live[stage] = Live(process)
        live.add(duration_ns)

    def _close(self, trace: Trace) -> bool:
        """Take a whole trace out; True where there was an order."""
        outcome = trace.outcome()
        if outcome is None:
            return False
        del self._open[trace.id]
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if outcome in ("filled", "acked"):
            entry = (trace.duration_ns, next(self._order), trace)
            if len(self._slowest) < self._most:
                heapq.heappush(self._slowest, entry)
            else:
                heapq.heappushpop(self._slowest, entry)
        return outcome not in ("hold", "denied")

    @property
    def unfinished(self) -> list[Trace]:
        """Traces of which some span was not seen."""
        return list(self._open.values())

    def slowest(self) -> list[Trace]:
        """Give the kept traces, the slowest first."""
        return [trace for _, _, trace in sorted(self._slowest, key=lambda entry: entry[:2], reverse=True)]
