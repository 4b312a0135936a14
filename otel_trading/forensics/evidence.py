"""Everything that a segment tells of its process; of a live, dead, copied or damaged one, and whatever is in the file.

Work and memory are bounded: by the reader's own bounds, by the number of spans that are kept, and by a time.
"""

from __future__ import annotations

import heapq
import math
import os
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.budget import decisions as budget_decisions
from otel_trading.budget.modes import MODES, name_of
from otel_trading.errors import SegmentDamagedError
from otel_trading.forensics.newest import late_copy
from otel_trading.segment import files, pages
from otel_trading.segment.process import boot_id, is_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otel_trading._native import OrderState, Reader, SpanState

DEATH_SPAN = "process.death"
"""The span that tells of a death, recorded into the segment of the process that died."""
_MOST_SPANS = 5_000
_MOST_OPEN = 2_000
_MOST_READ = 4_000_000
_CHUNK = 2_000
_SECONDS = 5.0  # that reading the spans may take
_MOST_ROWS = 4_096  # instruments, orders, markets
_TEXT = 400
_AHEAD_NS = 3_600_000_000_000  # a clock may have been set back by so much
_LONGEST_NS = 10 * 365 * 86_400 * 1_000_000_000


def plain(text: object, most: int = _TEXT) -> str:
    """Give a text of a segment as one that can be printed: bounded, and without control characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(text)[:most])


@dataclass(slots=True)
class Span:
    """A span, as far as forensics wants to know it; times are Unix ns, an open one's ``end`` is 0."""

    name: str
    tier: int
    trace_id: int
    span_id: int
    parent_id: int
    start: int
    end: int
    error: bool
    flags: int
    exception: str
    description: str
    attributes: dict[str, Any]

    @property
    def seconds(self) -> float:
        """How long it took; 0 of an open one."""
        return max(0, self.end - self.start) / 1e9 if self.end else 0.0


@dataclass(slots=True)
class Evidence:
    """What is known; what could not be read is empty, and ``damage`` says why.  Times are Unix ns."""

    path: str
    service: str = "unknown_service"
    pid: int = 0
    process_start: int = 0
    created_ns: int = 0
    backend: str = ""
    closed: bool = False
    alive: bool = False
    same_boot: bool = True
    life: dict[str, Any] = field(default_factory=dict)
    vitals: list[dict[str, Any]] = field(default_factory=list)
    """Critical events, oldest first, at most 1,024."""
    pulses: list[dict[str, Any]] = field(default_factory=list)
    """Looks at the process, oldest first, at most 1,024."""
    open_spans: list[Span] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    """The newest finished ones, by their end."""
    orders: list[tuple[str, OrderState]] = field(default_factory=list)
    accounts: list[dict[str, int]] = field(default_factory=list)
    instruments: list[dict[str, Any]] = field(default_factory=list)
    markets: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    mode: str = "unknown"
    memory_limit: int | None = None
    damage: list[str] = field(default_factory=list)
    looked_ns: int = 0
    """When this was gathered."""

    @property
    def seen_ns(self) -> int:
        """Its last sign of life; of a live process now."""
        return self.looked_ns if self.alive else self.last_word_ns

    @property
    def last_word_ns(self) -> int:
        """The newest thing that is in the segment; when it was made, where nothing is."""
        ending = (self.life.get("ending") or {}).get("unix_ns") or 0
        told = [self.created_ns, ending if 0 < ending < self.looked_ns + _AHEAD_NS else 0]
        told += [entries[-1]["unix_ns"] for entries in (self.vitals, self.pulses) if entries]
        told += [span.end for span in self.spans[-1:]]
        told += [span.start for span in self.open_spans]
        told += [one["received_ns"] for one in self.markets]
        return max(told)


def gather(
    path: str | os.PathLike[str] | int,
    *,
    name: str = "",
    spans: int = _MOST_SPANS,
    alive: bool | None = None,
    seconds: float = _SECONDS,
) -> Evidence:
    """Read a segment, by path or by an open file descriptor, which stays open.

    ``spans``: how many of the newest finished spans are kept, 0 = they are not looked at; ``alive``: where the caller
    knows better than the header; ``seconds``: that reading spans may take.  Cost: 1 ms, and some 3 µs a span that is in
    the rings.  Raises a SegmentError where it is none, or another format's; of what is damaged behind its header the
    rest is told.
    """
    fd = path if isinstance(path, int) else files.open_segment(path, os.O_RDONLY)
    where = name or (f"fd {path}" if isinstance(path, int) else os.path.abspath(os.fsdecode(path)))
    try:
        pages.locate(fd, where, "control page", at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL)
        try:
            reader = core.Reader(fd)
        except ValueError as error:
            raise SegmentDamagedError(where, str(error).partition(": ")[2] or str(error)) from error
        found = Evidence(where, looked_ns=time.time_ns())
        with closing(reader):
            _read(found, reader, fd, spans, alive, seconds)
    finally:
        if fd is not path:
            os.close(fd)
    return found


def _ask(found: Evidence, what: str, question: Callable[[], Any], otherwise: Any) -> Any:
    """Ask, and note what goes wrong: the rest is still worth being told."""
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - a damaged file may bring anything about
        found.damage.append(plain(f"{what} can not be read: {error!r}"))
        return otherwise


def _read(
    found: Evidence,
    reader: Reader,
    fd: int,
    spans: int,
    alive: bool | None,  # noqa: FBT001  None = the header says
    seconds: float,
) -> None:
    info = _ask(found, "the header", reader.info, {})
    _ask(found, "the header", lambda: _header(found, info, alive), None)
    life = _ask(found, "its life", reader.life, {})
    found.life = life if isinstance(life, dict) else {}
    found.vitals = _timed(found, _ask(found, "critical events", reader.vitals, []))
    found.pulses = _living(_timed(found, _ask(found, "looks at the process", reader.pulses, [])))
    found.markets = _ask(found, "market data", reader.markets, [])[:_MOST_ROWS]
    for market in found.markets:
        market["received_ns"] = _sane(found, market.get("received_ns"))
    found.orders = _ask(found, "orders", reader.orders, [])[:_MOST_ROWS]
    found.accounts = _ask(found, "the accounts", reader.accounts, [])
    found.instruments = _ask(found, "instruments", reader.instruments, [])[:_MOST_ROWS]
    probes = _ask(found, "probes", reader.probes, [])
    opened = _ask(found, "open spans", reader.open_spans, [])
    found.open_spans = sorted((_span(state, probes) for state in opened[:_MOST_OPEN]), key=lambda span: span.start)
    if spans:
        newest = _ask(found, "spans", lambda: _newest(found, reader, fd, spans, seconds), [])
        found.spans = [_span(state, probes) for state in newest]
        _reopen(found)
    _ask(found, "the budget's decisions", lambda: _budget(found, fd), None)


def _header(found: Evidence, info: Mapping[str, Any], alive: bool | None) -> None:  # noqa: FBT001
    import json

    found.pid = int(info.get("pid", 0))
    found.process_start = int(info.get("process_start", 0))
    found.created_ns = _sane(found, info.get("created_ns"))
    found.backend = plain(info.get("backend", ""))
    found.closed = bool(info.get("closed"))
    ours = "%016x%016x" % boot_id()  # noqa: UP031  two words
    theirs = str(info.get("boot_id", "")).zfill(32)
    found.same_boot = theirs == ours or not int(theirs, 16) or not int(ours, 16)
    found.alive = (
        alive
        if alive is not None
        else not found.closed and found.same_boot and is_alive(found.pid, found.process_start)
    )
    try:
        resource = json.loads(info.get("resource") or "{}")
        found.service = plain(resource.get("service.name", found.service), 255)
    except (ValueError, AttributeError, RecursionError) as error:
        found.damage.append(plain(f"the resource can not be read: {error!r}"))


def _sane(found: Evidence, unix_ns: object) -> int:
    """Take a time for what it says only where it can be one: not in the future, nor decades back."""
    if isinstance(unix_ns, int) and found.looked_ns - _LONGEST_NS < unix_ns < found.looked_ns + _AHEAD_NS:
        return unix_ns
    return 0


def _timed(found: Evidence, entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort what has a time by it."""
    good = [entry for entry in entries if _sane(found, entry.get("unix_ns"))]
    return sorted(good, key=lambda entry: int(entry["unix_ns"]))


def _living(pulses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the looks after the end: a process that has ended has no memory."""
    while len(pulses) > 1 and not pulses[-1].get("resident") and pulses[0].get("resident"):
        pulses.pop()
    return pulses


def _newest(found: Evidence, reader: Reader, fd: int, most: int, seconds: float) -> list[SpanState]:
    """Give the newest spans, by their end; of a process that is alive all are read, as its rings move on meanwhile."""
    copy = None if found.alive else late_copy(fd, most)
    if copy is None:
        return _read_newest(found, reader, most, seconds)
    try:
        with closing(core.Reader(copy)) as late:
            return _read_newest(found, late, most, seconds)
    finally:
        os.close(copy)


def _read_newest(found: Evidence, reader: Reader, most: int, seconds: float) -> list[SpanState]:
    """Read spans; a ring comes after the other, so that all have to be seen."""
    heap: list[tuple[int, int, SpanState]] = []
    deadline = time.monotonic() + seconds
    number = 0
    while number < _MOST_READ:
        states = reader.read(_CHUNK)
        for state in states:
            number += 1
            entry = (state[6], number, state)
            if len(heap) < most:
                heapq.heappush(heap, entry)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)
        if len(states) < _CHUNK:
            break
        if time.monotonic() > deadline:
            found.damage.append(f"spans were read for {seconds:g} s, the rest was left out")
            break
    torn = reader.missed()[1]
    if torn and not found.alive:
        found.damage.append(f"{torn} spans are torn or damaged and were left out")
    return [state for _, _, state in sorted(heap)]


def _span(state: SpanState, probes: list[tuple[str, int, int, bool, int, str]]) -> Span:
    probe = state[0]
    name = state[13] or (probes[probe][0] if 0 <= probe < len(probes) else f"probe {probe}")
    return Span(
        name=plain(name),
        tier=state[1],
        trace_id=state[2],
        span_id=state[3],
        parent_id=state[4],
        start=state[5],
        end=state[6],
        error=state[7] == at.STATUS_ERROR,
        flags=state[8],
        exception=plain(state[9] or ""),
        description=plain(state[14] or ""),
        attributes=state[11],
    )


def _reopen(found: Evidence) -> None:
    """Count spans that were ended for the process as what they are: open at its end; and leave our own word out."""
    found.spans = [span for span in found.spans if span.name != DEATH_SPAN]
    interrupted = [span for span in found.spans if span.flags & at.FLAG_INTERRUPTED]
    if interrupted:
        found.spans = [span for span in found.spans if not span.flags & at.FLAG_INTERRUPTED]
        for span in interrupted:
            span.end, span.error = 0, False
        found.open_spans = sorted((*found.open_spans, *interrupted), key=lambda span: span.start)[:_MOST_OPEN]


def _budget(found: Evidence, fd: int) -> None:
    """Read the mode, and the newest decisions as sentences."""

    def page(what: str, field_offset: int, size: int) -> tuple[int, bytes]:
        offset = pages.locate(fd, found.path, what, field_offset, size)
        return offset, os.pread(fd, size, offset)

    _, control = page("control page", at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL)
    mode = int.from_bytes(control[at.OFF_CONTROL_MODE : at.OFF_CONTROL_MODE + 8], "little")
    found.mode = name_of(mode) if mode < len(MODES) else "unknown"
    _, readings = page("readings", at.OFF_HEADER_READINGS_OFFSET, at.SIZE_READINGS)
    count = int.from_bytes(readings[at.OFF_READINGS_DECISIONS : at.OFF_READINGS_DECISIONS + 8], "little")
    _, table = page("decisions", at.OFF_HEADER_DECISIONS_OFFSET, at.SIZE_DECISION * at.DECISIONS)
    for number in range(max(0, count - 10), count):
        place = number % at.DECISIONS * at.SIZE_DECISION
        decision = budget_decisions.decision_of(number, table[place : place + at.SIZE_DECISION])
        if decision is not None and math.isfinite(decision.figure):
            found.decisions.append(f"{clock(decision.unix_ns)} {plain(budget_decisions.sentence(decision))}")


def clock(unix_ns: int) -> str:
    """Write a time of day, with milliseconds; "?" for what is none."""
    try:
        local = time.localtime(unix_ns // 1_000_000_000)
    except (OverflowError, ValueError, OSError):
        return "?"
    return f"{time.strftime('%H:%M:%S', local)}.{unix_ns // 1_000_000 % 1000:03d}"
