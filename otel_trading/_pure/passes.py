"""The embedded drain: reads this process's rings, feeds the aggregates, decides which spans are kept.

A pass reads and sorts without a lock, and takes it to add up what it found, a batch of records at a time.  Whoever
finds then that the ring's tail has moved (another thread, or a signal's handler, made a pass meanwhile) goes on from
where it is now: so a pass that returns has seen to all that was recorded before it began.
"""

from __future__ import annotations

import struct
import time
from _thread import RLock
from itertools import chain
from math import frexp

from otel_trading import _layout as at
from otel_trading._pure.aggregate import Aggregate, Batch
from otel_trading._pure.instruments import double
from otel_trading._pure.kept import Queue, blocks_of
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.names import instruments, probes
from otel_trading._pure.recorder import MASK, recorder
from otel_trading._pure.writer import (
    EXTRA,
    FLAGS,
    HEAD,
    META,
    RECORDED,
    SPAN,
    STATE,
    TIER,
    VALUES,
    VALUES_WRITTEN,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_trading._native import ExemplarState
    from otel_trading._pure.kept import Kept
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.spanstate import Block
    from otel_trading._pure.writer import Writer

_BATCH = 1024  # records
_LOOKS = 64
_TRIES = 8
_WINDOW = 70  # seconds; after a minute without a pass all windows are empty anyway
_SLOT = at.SIZE_SLOT // 8
_LOW = at.OFF_SLOT_TRACE_LO // 8
_START = at.OFF_SLOT_START // 8
_END = at.OFF_SLOT_END // 8

_TAIL = at.OFF_RING_TAIL // 8
_DRAINED = at.OFF_RING_DRAINED // 8
_VALUES_DRAINED = at.OFF_RING_VALUES_DRAINED // 8
_BACKLOG_MAX = at.OFF_RING_BACKLOG_MAX // 8
_CALIBRATION = (CONTROL + at.OFF_CONTROL_CALIBRATION) // 8
_SWITCHES = (CONTROL + at.OFF_CONTROL_SWITCHES) // 8
_THRESHOLD = (CONTROL + at.OFF_CONTROL_THRESHOLD) // 8
_NS_PER_TICK = int.from_bytes(struct.pack("<d", 1.0), "little")


class _Copy:
    """A copy of slots that lie one after another, by columns: lists of numbers, which no collector has to see."""

    __slots__ = ("data", "ends", "first", "lows", "starts", "states", "words")

    def __init__(self, data: bytes, first: int) -> None:
        self.data = data
        self.first = first
        self.words = words = memoryview(data).cast("Q")
        self.lows = words[_LOW::_SLOT].tolist()
        self.starts = words[_START::_SLOT].tolist()
        self.ends = words[_END::_SLOT].tolist()
        self.states = words[META::_SLOT].tolist()

    def kinds(self) -> dict[int, list[int]]:
        """Give the places of the records that are whole, by their last word: probe, outcome, tier."""
        seqs = self.words[::_SLOT].tolist()
        expected = range(2 * self.first + 2, 2 * (self.first + len(seqs)) + 2, 2)
        states = self.states
        if seqs == list(expected):
            if states.count(states[0]) == len(states):
                return {states[0]: list(range(len(states)))}
            whole: Iterable[int] = range(len(states))
        else:
            whole = [place for place, seq in enumerate(seqs) if seq == expected[place]]
        kinds: dict[int, list[int]] = {}
        for place in whole:
            state = states[place]
            if state in kinds:
                kinds[state].append(place)
            else:
                kinds[state] = [place]
        return kinds

    def slot(self, place: int) -> bytes:
        """Give a whole record."""
        return self.data[at.SIZE_SLOT * place : at.SIZE_SLOT * (place + 1)]


class _Found:
    """Records of one kind: one probe, one outcome."""

    __slots__ = ("batch", "count", "exemplars", "probe", "sla_breaches", "state", "taken", "tier")

    def __init__(self, copy: _Copy, state: int, places: list[int], taken: list[int], epoch: int) -> None:
        """Measure them; ``taken`` are the places of those that are sampled."""
        self.state = state
        self.count = len(places)
        self.probe = state & 0xFFFF
        self.tier = state >> TIER & at.TIERS - 1
        self.taken = taken
        self.sla_breaches = 0
        if state & STATE == SPAN:
            ends, starts = copy.ends, copy.starts
            flags = state >> FLAGS
            # Unix time minus ticks, where one is the one and the other the other.
            ahead = epoch * ((not flags & at.FLAG_END_UNIX) - (not flags & at.FLAG_START_UNIX))
            durations = [ends[place] - starts[place] + ahead for place in places]
            self.batch = Batch.of_durations(durations)
            sla_ns = probes[self.probe].sla_ns if self.probe < len(probes) else 0
            if sla_ns:
                self.sla_breaches = sum(ns > sla_ns for ns in durations)
            values = [max(ns, 0) * 1e-9 for ns in durations]
        else:
            words = copy.words
            values = [double(words[_SLOT * place + VALUES]) for place in places]
            self.batch = Batch.of_values(values)
        self.exemplars = self._exemplars(copy, dict(zip(places, values)), epoch)  # noqa: B905  one each

    def _exemplars(self, copy: _Copy, values: dict[int, float], epoch: int) -> list[ExemplarState]:
        """Give the latest record of each power of two."""
        latest = {frexp(values[place])[1]: place for place in self.taken}
        epoch *= not self.state >> FLAGS & at.FLAG_END_UNIX
        exemplars = []
        for place in latest.values():
            high, low, span = copy.words[_SLOT * place + 1 : _SLOT * place + 4].tolist()
            if span:
                exemplars.append((values[place], high << 64 | low, span, max(0, epoch + copy.ends[place])))
        return exemplars


class Drain:
    """One a process."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.period_ms = 0
        self.file: SegmentFile | None = None  # while there is one to be drained: a pass longer than the recorder's
        self.reset(0)

    def reset(self, start_unix_ns: int) -> None:
        """Begin with nothing counted."""
        self.start_unix_ns = start_unix_ns
        self.passes = 0
        self.cpu_ns = 0
        self.epoch = 0  # Unix time of tick 0
        self.second = 0  # number of the unfinished one
        self.probes: dict[int, Aggregate] = {}
        self.instruments: dict[int, Aggregate] = {}
        self.exported = [0] * at.TIERS
        self.sampled_out = [0] * at.TIERS
        self.overwritten = [0] * at.TIERS
        self.refused = [0] * at.TIERS
        self.refused_at_the_door = [0] * at.TIERS
        self.recorded = [0] * at.TIERS
        self.values_overwritten = 0
        self.text_overwritten = 0
        self.last_instruments = b""  # their table as it was at the end
        self.queue = Queue()

    # ---- one pass ----

    def run(self) -> int:
        """Make one pass; gives how many records it handled."""
        file = self.file
        if file is None:
            return 0
        began = time.thread_time_ns()
        self.calibrate(file)
        self._rotate()
        handled = sum(self._drain_ring(file, writer) for writer in list(recorder.writers))
        with self.lock:
            self.publish(file)
            self.passes += 1
            self.cpu_ns += time.thread_time_ns() - began
            words = file.words
            words[(CONTROL + at.OFF_CONTROL_PASSES) // 8] = self.passes
            words[(CONTROL + at.OFF_CONTROL_DRAIN_CPU_NS) // 8] = self.cpu_ns
            words[(CONTROL + at.OFF_CONTROL_HEARTBEAT) // 8] = time.perf_counter_ns()
        return handled

    def calibrate(self, file: SegmentFile) -> None:
        """Anchor ticks to Unix time."""
        best, ticks, unix_ns = 1 << 62, 0, 0
        for _ in range(_TRIES):  # the tightest of a few, so that a preemption in between does not count
            before = time.perf_counter_ns()
            now = time.time_ns()
            after = time.perf_counter_ns()
            if after - before < best:
                best, ticks, unix_ns = after - before, (before + after) // 2, now
        with self.lock:
            words = file.words
            seq = words[_CALIBRATION]
            words[_CALIBRATION] = seq + 1
            words[_CALIBRATION + 1] = ticks
            words[_CALIBRATION + 2] = unix_ns
            words[_CALIBRATION + 3] = ticks
            words[_CALIBRATION + 4] = _NS_PER_TICK
            words[_CALIBRATION] = seq + 2
            self.epoch = recorder.epoch = unix_ns - ticks

    def _rotate(self) -> None:
        """End the seconds that have gone by."""
        now = time.perf_counter_ns() // 1_000_000_000
        with self.lock:
            self.second = max(self.second, now - _WINDOW)
            while self.second < now:
                second = self.second
                self.second = second + 1
                for aggregate in (*self.probes.values(), *self.instruments.values()):
                    aggregate.tick(second)

    def _drain_ring(self, file: SegmentFile, writer: Writer) -> int:
        ring = writer.ring
        recorded: list[int] = []
        for _ in range(_LOOKS):  # the writer's counts at one moment
            head, *recorded, values = ring[HEAD : VALUES_WRITTEN + 1].tolist()
            if sum(recorded) + values == head:
                break
            time.sleep(0)
        else:
            return 0  # the next pass finds out
        tail = ring[_TAIL]
        backlog: int = head - tail
        if backlog <= 0:
            return 0
        handled = 0
        first = max(tail, head - writer.capacity)
        while first < head:
            place = first & writer.mask
            count = min(_BATCH, head - first, writer.capacity - place)
            start = writer.slots_at + place * at.SIZE_SLOT
            data = writer.piece.map[start : start + count * at.SIZE_SLOT]  # one copy, with the GIL held
            copy = _Copy(data, first)
            found = self._sort(file, copy)
            kept, gone = self._to_keep(writer, copy, found)
            with self.lock:
                if ring[_TAIL] != tail:  # somebody else has drained it
                    tail = ring[_TAIL]
                    first = max(tail, head - writer.capacity)
                    continue
                handled += first + count - tail
                ring[_TAIL] = tail = first + count
                self.text_overwritten += gone
                ring[_BACKLOG_MAX] = max(ring[_BACKLOG_MAX], backlog)
                self._add(writer, found, kept)
                if tail == head:  # what was written and not read is gone
                    drained = ring[_DRAINED : _VALUES_DRAINED + 1].tolist()
                    # Never below nothing: a tracer (coverage, a debugger) runs code between any two statements, a
                    # collection in it records its pause there, and two records may be counted as each other.
                    lost = [max(0, a - b) for a, b in zip(recorded, drained)]  # noqa: B905  the last is values
                    writer.overwritten = lost
                    writer.values_overwritten = max(0, values - drained[at.TIERS])
            first += count
        return handled

    def _sort(self, file: SegmentFile, copy: _Copy) -> list[_Found]:
        """Tell what is in a copy."""
        words = file.words
        exports = words[_SWITCHES] & at.SWITCH_EXPORT
        threshold = words[_THRESHOLD]
        found = []
        for state, places in copy.kinds().items():
            taken = places
            if not exports or state >> FLAGS & at.FLAG_UNSAMPLED:
                taken = []
            elif threshold:
                lows = copy.lows
                taken = [place for place in places if lows[place] & MASK >= threshold]
            found.append(_Found(copy, state, places, taken, self.epoch))
        return found

    def _to_keep(self, writer: Writer, copy: _Copy, found: list[_Found]) -> tuple[list[Kept], int]:
        """Copy the spans that go to the exporters, oldest first; and count arena blocks that were gone."""
        if not self.queue.limit:
            return [], 0
        spans = [group for group in found if group.state & STATE == SPAN]
        kept: list[Kept] = []
        gone = 0
        for place in sorted(chain.from_iterable(group.taken for group in spans)):
            slot = copy.slot(place)
            blocks: list[Block] = []
            size = 0
            if copy.states[place] & EXTRA:
                blocks, size, lost = blocks_of(writer, slot)
                gone += lost
            kept.append((slot, self.epoch, blocks, size))
        return kept, gone

    def _add(self, writer: Writer, found: list[_Found], kept: list[Kept]) -> None:
        """With the lock held: count and keep."""
        ring, queue = writer.ring, self.queue
        for group in found:
            count = group.count
            if group.state & STATE != SPAN:
                ring[_VALUES_DRAINED] = ring[_VALUES_DRAINED] + count
                if group.probe < len(instruments):
                    self._feed(self.instruments, group)
                continue
            tier = group.tier
            ring[_DRAINED + tier] = ring[_DRAINED + tier] + count
            self.sampled_out[tier] += count - (len(group.taken) if queue.limit else 0)
            self._feed(self.probes, group)
        for one in kept:
            if not queue.put(one):
                self.refused[one[0][at.OFF_SLOT_TIER] % at.TIERS] += 1

    def _feed(self, aggregates: dict[int, Aggregate], group: _Found) -> None:
        aggregate = aggregates.get(group.probe)
        if aggregate is None:
            aggregate = aggregates[group.probe] = Aggregate()
        aggregate.second.add(group.batch)
        aggregate.sla_breaches += group.sla_breaches
        aggregate.errors += group.count * (group.state >> 24 & 0xFF == at.STATUS_ERROR)
        for exemplar in group.exemplars:
            aggregate.remember(exemplar)

    def publish(self, file: SegmentFile) -> None:
        """Write the accounts."""
        words, accounts = file.words, file.accounts // 8
        drained = [0] * (at.TIERS + 1)
        self.overwritten = [sum(writer.overwritten[t] for writer in recorder.writers) for t in range(at.TIERS)]
        self.values_overwritten = sum(writer.values_overwritten for writer in recorder.writers)
        for writer in recorder.writers:
            counts = writer.ring[_DRAINED : _VALUES_DRAINED + 1].tolist()
            drained = [a + b for a, b in zip(drained, counts)]  # noqa: B905  five each
        for tier in range(at.TIERS):
            words[accounts + at.OFF_ACCOUNTS_EXPORTED // 8 + tier] = self.exported[tier]
            words[accounts + at.OFF_ACCOUNTS_SAMPLED_OUT // 8 + tier] = self.sampled_out[tier]
            words[accounts + at.OFF_ACCOUNTS_OVERWRITTEN // 8 + tier] = self.overwritten[tier]
            words[accounts + at.OFF_ACCOUNTS_REFUSED // 8 + tier] = self.refused[tier]
            words[accounts + at.OFF_ACCOUNTS_DRAINED // 8 + tier] = drained[tier]
        words[accounts + at.OFF_ACCOUNTS_VALUES_DRAINED // 8] = drained[at.TIERS]
        words[accounts + at.OFF_ACCOUNTS_VALUES_OVERWRITTEN // 8] = self.values_overwritten
        words[accounts + at.OFF_ACCOUNTS_TEXT_OVERWRITTEN // 8] = self.text_overwritten

    def look(self) -> None:
        """See what the writers have recorded."""
        file = self.file
        if file is None:
            return
        totals = [0] * at.TIERS
        for writer in recorder.writers:
            counts = writer.ring[RECORDED : RECORDED + at.TIERS].tolist()
            totals = [a + b for a, b in zip(totals, counts)]  # noqa: B905  four each
        refused = at.OFF_HEADER_SPANS_REFUSED // 8
        # Those that found no entry count on both sides.
        self.refused_at_the_door = file.words[refused : refused + at.TIERS].tolist()
        self.recorded = [a + b for a, b in zip(totals, self.refused_at_the_door)]  # noqa: B905


drain = Drain()
