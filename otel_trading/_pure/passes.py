"""The drain: reads this process's rings, or an adopted segment's, feeds the aggregates, decides which spans are kept.

A ring has two cursors: ``seen``, up to which its records are in the aggregates, and ``tail``, up to which it is decided
what is kept.  While every trace is decided at once they move together, and a record is read once.  Else what waits is
read again when its time has come.

A pass reads and sorts without a lock, and takes it to add up what it found, a batch of records at a time.  Whoever
finds then that the ring's cursor has moved (another thread, or a signal's handler, made a pass meanwhile) goes on from
where it is now: so a pass that returns has seen to all that was recorded before it began.
"""

from __future__ import annotations

import os
import time
from _thread import RLock

from otel_trading import _layout as at
from otel_trading._pure.aggregating import aggregate
from otel_trading._pure.clock import Clock
from otel_trading._pure.cursors import Cursor
from otel_trading._pure.deciding import decide
from otel_trading._pure.keep_rules import Rules
from otel_trading._pure.kept import Queue, place_of
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.progress import Progress
from otel_trading._pure.pulses import pulses
from otel_trading._pure.recorder import recorder
from otel_trading._pure.tables import OWN
from otel_trading._pure.takeover import take_over
from otel_trading._pure.traces import TRIGGER
from otel_trading._pure.waits import waits
from otel_trading._pure.writer import HEAD, RECORDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_trading._pure.adopted import AdoptedFile
    from otel_trading._pure.aggregate import Aggregate
    from otel_trading._pure.kept import Kept
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.tables import Tables
    from otel_trading._pure.writer import Writer

_WINDOW = 70  # seconds; after a minute without a pass all windows are empty anyway
_LEAST_FOR_SLOW = 100  # spans in a minute
_QUANTILE = 0.99
_REFRESH = 5  # seconds, after which a probe's quantile is found anew

_HOST_NOW = (CONTROL + at.OFF_CONTROL_HOST_NOW) // 8
_DRAINED_BY = (CONTROL + at.OFF_CONTROL_DRAINED_BY) // 8
_WORD = (1 << 64) - 1


class Drain:
    """One a process."""

    SWITCHES = (CONTROL + at.OFF_CONTROL_SWITCHES) // 8
    THRESHOLD = (CONTROL + at.OFF_CONTROL_THRESHOLD) // 8

    def __init__(self) -> None:
        self.rules = Rules()
        self.lock = RLock()
        self.period_ms = 0
        self.file: SegmentFile | None = None  # while there is one to be drained: a pass longer than the recorder's
        self.adopted: AdoptedFile | None = None  # the same, where it is another process's
        self.tables: Tables = OWN
        self.drains = False  # this process drains it, and no other
        self.tenure = 0  # how often that has changed
        self.reset(0)

    def reset(self, start_unix_ns: int) -> None:
        """Begin with nothing counted."""
        self.start_unix_ns = start_unix_ns
        self.passes = 0
        self.cpu_ns = 0
        self.clock = Clock()
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
        self.at_once = True  # nothing waits for its verdict
        self.cursors: dict[int, Cursor] = {}  # by the ring's number
        self.unasked = False  # taken over, and nobody has said yet what is kept: no verdict falls
        self.took_over = False  # so that a ring without a cursor is one of which others may have settled something
        self.classes = [0] * at.COSTS  # records, attributes and blocks of each kind, by OT_COST_*
        self.operations = 0  # spans with no parent in this process
        self.rules.reset()

    def cursor(self, writer: Writer) -> Cursor:
        """Give a ring's cursor."""
        cursor = self.cursors.get(writer.index)
        if cursor is None:
            with self.lock:
                cursor = self.cursors.get(writer.index)
                if cursor is None and self.file is not None:
                    cursor = Cursor(writer, Progress(self.file, writer))
                    self.cursors[writer.index] = cursor
                    if self.took_over:
                        take_over(self, writer, cursor)
        assert cursor is not None  # noqa: S101  nobody asks without a segment
        return cursor

    @property
    def writers(self) -> Sequence[Writer]:
        """The rings of the segment that is drained."""
        return recorder.writers if self.adopted is None else self.adopted.drained

    def exporting(self, file: SegmentFile) -> bool:
        """Tell whether anybody takes spans, or may do so before verdicts fall."""
        return (self.queue.limit > 0 or self.unasked) and file.words[self.SWITCHES] & at.SWITCH_EXPORT != 0

    @property
    def selecting(self) -> bool:
        """Whether traces are kept by rules."""
        return self.rules.active and self.file is not None and self.exporting(self.file)

    # ---- who drains ----

    def use(self, tables: Tables) -> None:
        """Take names, probes and instruments from there."""
        self.tables = self.rules.tables = tables

    def begin_tenure(self, host: int) -> None:
        """With the lock held: drain from here on; ``host`` is OT_HOST_*."""
        file = self.file
        assert file is not None  # noqa: S101  likewise
        self.tenure += 1
        self.drains = True
        pulses.restart()
        file.words[_HOST_NOW] = host
        file.words[_DRAINED_BY] = os.getpid()

    def take_over(self, host: int) -> None:
        """With the lock held: drain from here on what others have drained."""
        file = self.file
        assert file is not None  # noqa: S101  likewise
        self.unasked = self.took_over = True
        self.exported, self.sampled_out, self.refused = ([0] * at.TIERS for _ in range(3))
        self.cursors = {}
        self.clock.calibrate(file)
        self.rules.begin(file, self.queue, 0)
        for writer in list(self.writers):
            self.cursor(writer)
        self.begin_tenure(host)
        self.publish(file)

    def end_tenure(self) -> None:
        """With the lock held: publish what is settled, and drain no longer; what is queued is left to the next one."""
        file = self.file
        if file is None or not self.drains:
            return
        self.publish(file)
        self.tenure += 1
        self.drains = False
        self.queue.clear()
        file.words[_DRAINED_BY] = 0

    def tell(self, trace_id: int) -> bool:
        """Have the process that drains keep a trace; False where nothing is shared with it."""
        with self.lock:
            shared = self.rules.shared
            if shared is None:
                return False
            low, high = trace_id & (1 << 64) - 1, trace_id >> 64
            shared.note(low, high, 1 << TRIGGER + at.TRIGGER_PINNED, time.monotonic_ns())
            return True

    # ---- one pass ----

    def run(self, decide_all: bool = False) -> int:  # noqa: FBT001, FBT002
        """Make one pass; gives how many records it handled.  With ``decide_all`` nothing waits for its verdict."""
        file = self.file
        if file is None or not self.drains:
            return 0
        began = time.thread_time_ns()
        self.calibrate(file)
        with self.lock:
            if self.adopted is not None and not self.adopted.refresh(self.cursors):
                return 0
            self.tables.refresh()
            if decide_all:
                self.unasked = False
            rules = self.rules
            writers = list(self.writers)
            backlog = sum(max(0, writer.ring[HEAD] - self.cursor(writer).seen) for writer in writers)
            rules.begin(file, self.queue, backlog)
            self.at_once = (rules.at_once and not self.unasked) or not self.exporting(file)
        self._rotate()
        waiting = len(self.queue.spans)
        handled = sum(aggregate(self, file, writer) for writer in writers)
        with self.lock:
            rules.plan_pass()
            self.at_once = (rules.at_once and not self.unasked) or not self.exporting(file)
        now = time.monotonic_ns()
        for writer in writers:
            with self.lock:
                self.cursor(writer).mark(writer, now)
            if not self.unasked:
                decide(self, file, writer, decide_all or self.at_once)
        if all(cursor.tail == cursor.seen for cursor in self.cursors.values()):
            rules.waiting = [0.0] * at.TIERS
        if len(self.queue.spans) > waiting:
            waits.notify()
        with self.lock:
            if not self.drains:  # given away meanwhile
                return handled
            self.publish(file)
            self.passes += 1
            self.cpu_ns += time.thread_time_ns() - began
            words = file.words
            words[(CONTROL + at.OFF_CONTROL_PASSES) // 8] = self.passes
            words[(CONTROL + at.OFF_CONTROL_DRAIN_CPU_NS) // 8] = self.cpu_ns
            words[(CONTROL + at.OFF_CONTROL_HEARTBEAT) // 8] = self.clock.ticks()
        pulses.look(file)
        return handled

    def calibrate(self, file: SegmentFile) -> None:
        """Anchor ticks to Unix time."""
        with self.lock:
            self.clock.calibrate(file)
            if self.adopted is None:
                recorder.epoch = self.clock.epoch

    def _rotate(self) -> None:
        """End the seconds that have gone by."""
        now = time.perf_counter_ns() // 1_000_000_000
        with self.lock:
            self.second = max(self.second, now - _WINDOW)
            while self.second < now:
                second = self.second
                self.second = second + 1
                for one in (*self.probes.values(), *self.instruments.values()):
                    one.tick(second)
            if self.rules.active:
                self._find_slow(now)

    def _find_slow(self, second: int) -> None:
        """Find from where on a span of a stage counts as slow."""
        slow = self.rules.slow
        for probe, one in self.probes.items():
            if one.slow_at + _REFRESH <= second or (probe not in slow and one.slow_at != second):
                if one.total.count + one.second.count < _LEAST_FOR_SLOW:
                    continue
                one.slow_at = second
                minute = one.minute(second)
                if minute.count >= _LEAST_FOR_SLOW:
                    slow[probe] = int(minute.upper(_QUANTILE) * 1e9)
                else:
                    slow.pop(probe, None)

    def publish(self, file: SegmentFile) -> None:
        """With the lock held: write how far it is, and the accounts."""
        words, accounts = file.words, file.accounts // 8
        drained = [0] * (at.TIERS + 1)
        self.overwritten = [0] * at.TIERS
        self.values_overwritten = 0
        for writer in self.writers:
            cursor = self.cursors.get(writer.index)
            if cursor is None:
                continue
            cursor.progress.advance(writer.ring[HEAD] - writer.capacity)
            cursor.progress.publish()
            for tier in range(at.TIERS):
                self.overwritten[tier] += writer.overwritten[tier] + cursor.lost[tier]
            self.values_overwritten += writer.values_overwritten
            drained = [a + b for a, b in zip(drained, cursor.drained)]  # noqa: B905  five each
        for tier in range(at.TIERS):
            words[accounts + at.OFF_ACCOUNTS_EXPORTED // 8 + tier] = self.exported[tier] & _WORD
            words[accounts + at.OFF_ACCOUNTS_SAMPLED_OUT // 8 + tier] = self.sampled_out[tier] & _WORD
            words[accounts + at.OFF_ACCOUNTS_OVERWRITTEN // 8 + tier] = self.overwritten[tier] & _WORD
            words[accounts + at.OFF_ACCOUNTS_REFUSED // 8 + tier] = self.refused[tier] & _WORD
            words[accounts + at.OFF_ACCOUNTS_DRAINED // 8 + tier] = drained[tier] & _WORD
        words[accounts + at.OFF_ACCOUNTS_VALUES_DRAINED // 8] = drained[at.TIERS] & _WORD
        words[accounts + at.OFF_ACCOUNTS_VALUES_OVERWRITTEN // 8] = self.values_overwritten & _WORD
        words[accounts + at.OFF_ACCOUNTS_TEXT_OVERWRITTEN // 8] = self.text_overwritten & _WORD

    def refuse(self, spans: Iterable[Kept]) -> None:
        """With the lock held: spans that were entered as kept find no room, or nobody to take them."""
        for kept in spans:
            number, tier = place_of(kept)
            self.refused[tier] += 1
            kept[7].settle(number, tier, at.MARK_REFUSED, sent=False)

    def let_go(self, most: int) -> int:
        """With the lock held: refuse the newest kept spans beyond ``most``; gives how many."""
        gone = self.queue.take_newest(max(0, len(self.queue.spans) - max(0, most)))
        self.refuse(gone)
        return len(gone)

    def look(self) -> None:
        """See what the writers have recorded."""
        file = self.file
        if file is None:
            return
        totals = [0] * at.TIERS
        for writer in self.writers:
            counts = writer.ring[RECORDED : RECORDED + at.TIERS].tolist()
            totals = [a + b for a, b in zip(totals, counts)]  # noqa: B905  four each
        refused = at.OFF_HEADER_SPANS_REFUSED // 8
        # Those that found no entry count on both sides.
        self.refused_at_the_door = file.words[refused : refused + at.TIERS].tolist()
        self.recorded = [a + b for a, b in zip(totals, self.refused_at_the_door)]  # noqa: B905


drain = Drain()
