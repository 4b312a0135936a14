"""The embedded drain: reads this process's rings, feeds the aggregates, decides which spans are kept.

A ring has two cursors: ``seen``, up to which its records are in the aggregates, and ``tail``, up to which it is decided
what is kept.  While every trace is decided at once they move together, and a record is read once.  Else what waits is
read again when its time has come.

A pass reads and sorts without a lock, and takes it to add up what it found, a batch of records at a time.  Whoever
finds then that the ring's cursor has moved (another thread, or a signal's handler, made a pass meanwhile) goes on from
where it is now: so a pass that returns has seen to all that was recorded before it began.
"""

from __future__ import annotations

import struct
import time
from _thread import RLock

from otel_trading import _layout as at
from otel_trading._pure.aggregating import aggregate
from otel_trading._pure.cursors import DRAINED, SEEN, TAIL, Cursor
from otel_trading._pure.deciding import decide
from otel_trading._pure.keep_rules import Rules
from otel_trading._pure.kept import Queue
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.recorder import recorder
from otel_trading._pure.waits import waits
from otel_trading._pure.writer import HEAD, RECORDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.aggregate import Aggregate
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.writer import Writer

_TRIES = 8
_WINDOW = 70  # seconds; after a minute without a pass all windows are empty anyway
_LEAST_FOR_SLOW = 100  # spans in a minute
_QUANTILE = 0.99
_REFRESH = 5  # seconds, after which a probe's quantile is found anew

_VALUES_DRAINED = at.OFF_RING_VALUES_DRAINED // 8
_CALIBRATION = (CONTROL + at.OFF_CONTROL_CALIBRATION) // 8
_NS_PER_TICK = int.from_bytes(struct.pack("<d", 1.0), "little")


class Drain:
    """One a process."""

    SWITCHES = (CONTROL + at.OFF_CONTROL_SWITCHES) // 8
    THRESHOLD = (CONTROL + at.OFF_CONTROL_THRESHOLD) // 8

    def __init__(self) -> None:
        self.rules = Rules()
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
        self.at_once = True  # nothing waits for its verdict
        self.cursors: dict[int, Cursor] = {}  # by the ring's number
        self.classes = [0] * at.COSTS  # records, attributes and blocks of each kind, by OT_COST_*
        self.operations = 0  # spans with no parent in this process
        self.rules.reset()

    def cursor(self, writer: Writer) -> Cursor:
        """Give a ring's cursor."""
        cursor = self.cursors.get(writer.index)
        if cursor is None:
            cursor = self.cursors.setdefault(writer.index, Cursor())
        return cursor

    def exporting(self, file: SegmentFile) -> bool:
        """Tell whether anybody takes spans."""
        return self.queue.limit > 0 and file.words[self.SWITCHES] & at.SWITCH_EXPORT != 0

    # ---- one pass ----

    def run(self, decide_all: bool = False) -> int:  # noqa: FBT001, FBT002
        """Make one pass; gives how many records it handled.  With ``decide_all`` nothing waits for its verdict."""
        file = self.file
        if file is None:
            return 0
        began = time.thread_time_ns()
        self.calibrate(file)
        with self.lock:
            rules = self.rules
            backlog = sum(writer.ring[HEAD] - writer.ring[SEEN] for writer in recorder.writers)
            rules.begin(file, self.queue, backlog)
            self.at_once = rules.at_once or not self.exporting(file)
        self._rotate()
        writers, waiting = list(recorder.writers), len(self.queue.spans)
        handled = sum(aggregate(self, file, writer) for writer in writers)
        with self.lock:
            rules.plan_pass()
            self.at_once = rules.at_once or not self.exporting(file)
        now = time.monotonic_ns()
        for writer in writers:
            with self.lock:
                self.cursor(writer).mark(writer, now)
            decide(self, file, writer, decide_all or self.at_once)
        if all(writer.ring[TAIL] == writer.ring[SEEN] for writer in writers):
            rules.waiting = [0.0] * at.TIERS
        if len(self.queue.spans) > waiting:
            waits.notify()
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
        """Write the accounts."""
        words, accounts = file.words, file.accounts // 8
        drained = [0] * (at.TIERS + 1)
        lost = [[*map(sum, zip(w.overwritten, self.cursor(w).lost))] for w in recorder.writers]  # noqa: B905
        self.overwritten = [sum(counts[tier] for counts in lost) for tier in range(at.TIERS)]
        self.values_overwritten = sum(writer.values_overwritten for writer in recorder.writers)
        for writer in recorder.writers:
            counts = writer.ring[DRAINED : _VALUES_DRAINED + 1].tolist()
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

    def let_go(self, most: int) -> int:
        """With the lock held: refuse the newest kept spans beyond ``most``; gives how many."""
        gone = self.queue.take_newest(max(0, len(self.queue.spans) - max(0, most)))
        for slot, *_ in gone:
            self.refused[slot[at.OFF_SLOT_TIER] % at.TIERS] += 1
        return len(gone)

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
