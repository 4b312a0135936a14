"""A native Perfetto trace of a segment's last seconds: https://ui.perfetto.dev opens it.

A process with a track for each thread, and one more for what overlaps there, as tasks do; spans as slices with their
attributes as annotations; memory, CPU, queue and orders as counters; critical events as instants; a flow from a parent
to each child on another track.  Field numbers are those of Perfetto's published .proto files.  Every string that is
used is described in this very trace, so no part of it depends on what was written before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_trading.forensics import report
from otel_trading.forensics.evidence import plain
from otel_trading.forensics.protobuf import double, fixed64, message, text, uint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otel_trading.forensics.evidence import Evidence, Span

# TracePacket
_PACKET, _CLOCKS, _TIMESTAMP, _SEQUENCE, _EVENT, _INTERNED, _FLAGS, _TRACK = 1, 6, 8, 10, 11, 12, 13, 60
_CLEARED, _NEEDED = 1, 2  # of its sequence_flags
# TrackEvent
_ANNOTATION, _CATEGORY, _TYPE, _NAME, _OF_TRACK, _COUNTER, _FLOW, _FLOW_ENDS = 4, 3, 9, 10, 11, 44, 47, 48
_BEGIN, _END, _INSTANT, _VALUE = 1, 2, 3, 4
# InternedData, and the messages in it
_CATEGORIES, _NAMES, _ANNOTATION_NAMES, _IID, _STRING = 1, 2, 3, 1, 2
# DebugAnnotation
_A_NAME, _A_BOOL, _A_INT, _A_DOUBLE, _A_TEXT = 1, 2, 4, 5, 6
# TrackDescriptor, ProcessDescriptor, ThreadDescriptor, CounterDescriptor
_UUID, _T_NAME, _PROCESS, _THREAD, _PARENT, _T_COUNTER = 1, 2, 3, 4, 5, 8
_P_PID, _P_NAME = 1, 6
_TH_PID, _TH_TID, _TH_NAME = 1, 2, 5
_C_UNIT, _C_UNIT_NAME, _COUNT, _BYTES = 3, 6, 2, 3
_REALTIME, _BOOTTIME = 1, 6  # clocks

_ROOT, _VITALS, _FIRST_COUNTER, _FIRST_LANE = 1, 2, 10, 100  # ids of tracks
_PID = (1 << 31) - 1
_INT = 1 << 63
_COUNTERS: tuple[tuple[str, str, int, str], ...] = (
    ("resident", "memory", _BYTES, ""),
    ("process_cpu", "CPU", 0, "cores"),
    ("cpu_load", "CPU load of the system", 0, "share"),
    ("queue", "queue", _COUNT, ""),
    ("active_orders", "open orders", _COUNT, ""),
    ("market_age_ms", "market data age", 0, "ms"),
)


class _Strings:
    """Strings of the sequence: each is described in the packet that uses it first."""

    def __init__(self) -> None:
        self._ids: dict[tuple[int, str], int] = {}
        self._new = b""

    def id(self, kind: int, string: str) -> int:
        """Give the number of a string of a kind (a field of InternedData)."""
        found = self._ids.get((kind, string))
        if found is None:
            found = self._ids[kind, string] = len(self._ids) + 1
            self._new += message(kind, uint(_IID, found) + text(_STRING, string))
        return found

    def described(self) -> bytes:
        """Give the field that describes the new ones."""
        new, self._new = self._new, b""
        return message(_INTERNED, new) if new else b""


class _Slice(NamedTuple):
    span: Span
    track: int
    start: int
    end: int
    depth: int


def trace(evidence: Evidence, threads: Mapping[int, int] | None = None, last: float = report.LAST) -> bytes:
    """Encode the last seconds; ``threads``: {span id: thread id} of ``slots.threads_of``.  Some 20 µs a span."""
    end_ns = evidence.seen_ns
    since = end_ns - round(last * 1e9)
    spans = [span for span in evidence.spans if span.end >= since] + evidence.open_spans
    strings = _Strings()
    slices, lanes = _placed(spans, threads or {}, end_ns)
    out = [_packet(uint(_FLAGS, _CLEARED) + message(_CLOCKS, _clocks(end_ns)))]
    out += [_packet(message(_TRACK, track)) for track in _tracks(evidence, lanes)]
    events = [*_slice_events(slices), *_counters(evidence, since), *_instants(evidence, since)]
    for timestamp, _, event in sorted(events, key=lambda one: one[:2]):
        body = event(strings)
        out.append(
            _packet(uint(_TIMESTAMP, timestamp) + uint(_FLAGS, _NEEDED) + strings.described() + message(_EVENT, body))
        )
    return b"".join(out)


def _packet(body: bytes) -> bytes:
    return message(_PACKET, uint(_SEQUENCE, 1) + body)


def _clocks(unix_ns: int) -> bytes:
    """Say that the trace's clock is the wall's."""
    return b"".join(message(1, uint(1, clock) + uint(2, unix_ns)) for clock in (_BOOTTIME, _REALTIME))


# ---- tracks ----------------------------------------------------------------------------------------


def _placed(
    spans: list[Span], threads: Mapping[int, int], end_ns: int
) -> tuple[list[_Slice], list[tuple[int, int, int]]]:
    """Give each span a track where it nests; and the tracks, as (track, thread, number within the thread)."""
    slices: list[_Slice] = []
    lanes: list[tuple[int, int, int]] = []
    stacks: dict[int, list[tuple[int, list[int]]]] = {}  # thread → (track, ends of what is open there), …
    timed = [(span, span.start, max(span.end or end_ns, span.start + 1)) for span in spans]
    for span, start, end in sorted(timed, key=lambda one: (one[1], -one[2])):
        thread = threads.get(span.span_id, 0)
        own = stacks.setdefault(thread, [])
        place = next((lane for lane in own if _fits(lane[1], start, end)), None)
        if place is None:
            place = _FIRST_LANE + len(lanes), []
            lanes.append((place[0], thread, len(own)))
            own.append(place)
        track, stack = place
        stack.append(end)
        slices.append(_Slice(span, track, start, end, len(stack)))
    return slices, lanes


def _fits(stack: list[int], start: int, end: int) -> bool:
    """Tell whether a slice nests in what is open on a track at its start; what has ended is forgotten."""
    while stack and stack[-1] <= start:
        stack.pop()
    return not stack or stack[-1] >= end


def _tracks(evidence: Evidence, lanes: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
    pid = evidence.pid & _PID
    yield uint(_UUID, _ROOT) + message(_PROCESS, uint(_P_PID, pid) + text(_P_NAME, evidence.service))
    for track, thread, number in lanes:
        tid = thread & _PID
        if tid and not number:
            name = "main" if tid == pid else f"thread {tid}"
            about = message(_THREAD, uint(_TH_PID, pid) + uint(_TH_TID, tid) + text(_TH_NAME, name))
        else:
            about = text(_T_NAME, f"tasks {number} of thread {tid}" if tid else f"spans {number + 1}")
        yield uint(_UUID, track) + uint(_PARENT, _ROOT) + about
    for number, (_, name, unit, unit_name) in enumerate(_COUNTERS):
        counter = (uint(_C_UNIT, unit) if unit else b"") + (text(_C_UNIT_NAME, unit_name) if unit_name else b"")
        yield (
            uint(_UUID, _FIRST_COUNTER + number)
            + uint(_PARENT, _ROOT)
            + text(_T_NAME, name)
            + message(_T_COUNTER, counter)
        )
    yield uint(_UUID, _VITALS) + uint(_PARENT, _ROOT) + text(_T_NAME, "critical events")


# ---- events: (timestamp, order at that time, what encodes it) --------------------------------------


def _slice_events(slices: list[_Slice]) -> Iterator[tuple[int, int, Any]]:
    where = {one.span.span_id: one for one in slices}
    flows: dict[int, list[int]] = {}
    for one in slices:
        parent = where.get(one.span.parent_id)
        if parent is not None and parent.track != one.track and parent.start <= one.start:
            flows.setdefault(parent.span.span_id, []).append(one.span.span_id)
    for one in slices:
        parent = where.get(one.span.parent_id)
        ends = parent is not None and one.span.span_id in flows.get(parent.span.span_id, ())
        yield one.start, one.depth, _begin(one, flows.get(one.span.span_id, []), ends=ends)
        yield one.end, -one.depth, _ended(one)


def _begin(one: _Slice, flows: list[int], *, ends: bool) -> Any:
    span = one.span

    def encode(strings: _Strings) -> bytes:
        told: dict[str, object] = {
            "trace_id": f"{span.trace_id:032x}",
            "span_id": f"{span.span_id:016x}",
            **{plain(key, 100): value for key, value in list(span.attributes.items())[:64]},
        }
        if not span.end:
            told["open"] = True
        if span.error:
            told["error"] = span.exception or span.description or True
        body = uint(_TYPE, _BEGIN) + uint(_OF_TRACK, one.track) + uint(_NAME, strings.id(_NAMES, span.name))
        body += uint(_CATEGORY, strings.id(_CATEGORIES, f"P{span.tier}"))
        body += b"".join(fixed64(_FLOW, flow) for flow in flows)
        body += fixed64(_FLOW_ENDS, span.span_id) if ends else b""
        return body + b"".join(_annotation(strings, key, value) for key, value in told.items())

    return encode


def _ended(one: _Slice) -> Any:
    return lambda _strings: uint(_TYPE, _END) + uint(_OF_TRACK, one.track)


def _annotation(strings: _Strings, key: str, value: object) -> bytes:
    if isinstance(value, bool):
        encoded = uint(_A_BOOL, value)
    elif isinstance(value, int) and -_INT <= value < _INT:
        encoded = uint(_A_INT, value)
    elif isinstance(value, float):
        encoded = double(_A_DOUBLE, value)
    else:
        encoded = text(_A_TEXT, f"{len(value)} bytes" if isinstance(value, bytes) else plain(value, 1_000))
    return message(_ANNOTATION, uint(_A_NAME, strings.id(_ANNOTATION_NAMES, key)) + encoded)


def _counters(evidence: Evidence, since: int) -> Iterator[tuple[int, int, Any]]:
    for pulse in evidence.pulses:
        for number, (field, *_) in enumerate(_COUNTERS):
            value = pulse.get(field)
            if isinstance(value, (int, float)) and math.isfinite(value) and pulse["unix_ns"] >= since:
                yield pulse["unix_ns"], 0, _counted(_FIRST_COUNTER + number, float(value))


def _counted(track: int, value: float) -> Any:
    return lambda _strings: uint(_TYPE, _VALUE) + uint(_OF_TRACK, track) + double(_COUNTER, value)


def _instants(evidence: Evidence, since: int) -> Iterator[tuple[int, int, Any]]:
    for one in evidence.vitals:
        if one["unix_ns"] >= since:
            yield one["unix_ns"], 0, _instant(one)


def _instant(one: Mapping[str, Any]) -> Any:
    def encode(strings: _Strings) -> bytes:
        what, told = report.event_text(one), {}
        for key in ("key", "active_orders", "queue", "market_age_ms", "latency"):
            if one.get(key) not in {None, ""}:
                told[key] = one[key]
        body = uint(_TYPE, _INSTANT) + uint(_OF_TRACK, _VITALS) + uint(_NAME, strings.id(_NAMES, what))
        return body + b"".join(_annotation(strings, key, value) for key, value in told.items())

    return encode
