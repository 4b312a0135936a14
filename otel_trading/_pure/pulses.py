"""Pulses: a look at the process each second, by whoever drains its segment.

The process may be another one, and its segment hostile: no number in it is believed before it was compared with what
there can be.
"""

from __future__ import annotations

import os
import struct
import time
from math import isnan

from otel_trading import _layout as at
from otel_trading._pure import condition
from otel_trading._pure.instruments import NAN, bits
from otel_trading._pure.queue_gauge import queue
from otel_trading._pure.recorder import recorder
from otel_trading._pure.system_files import SystemFile, field_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile

_BODY = struct.Struct("<QQQQQQQIIIIQQQQQQ").pack  # all but the sequence number
_COUNT = at.OFF_LIFE_PULSE_COUNT // 8
_ORDERS, _REJECTS = at.OFF_LIFE_ORDERS // 8, at.OFF_LIFE_REJECTS // 8
_PERIOD_NS = 1_000_000_000
_WORD = _UNKNOWN = (1 << 64) - 1
_THREADS, _FAULTS, _RESIDENT = 17, 9, 21  # fields 20, 12 and 24 of /proc/PID/stat, counted after the command's name
_CPU_CLOCK = 2  # of a process's clock id: the scheduler's clock
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Process:
    """What the kernel tells of a process; 0, all ones and NaN where it tells nothing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._stat = SystemFile(f"/proc/{pid}/stat")
        self._status = SystemFile(f"/proc/{pid}/status")
        self._before: tuple[int, int] | None = None  # CPU time and moment of the last look, ns

    def cpu(self, now: int) -> int:
        """Give the double's bits of the cores that were used since the look before."""
        used = self._cpu_ns()
        before, self._before = self._before, None if used is None else (used, now)
        if before is None or used is None or now <= before[1]:
            return NAN
        return bits(max(used - before[0], 0) / (now - before[1]))

    def _cpu_ns(self) -> int | None:
        if self.pid == os.getpid():
            return time.process_time_ns()
        try:
            return time.clock_gettime_ns(~self.pid << 3 | _CPU_CLOCK)
        except (OSError, OverflowError, AttributeError):
            return None

    def figures(self) -> tuple[int, int, int, int]:
        """Give the resident bytes, the threads, the major faults, and the bytes that are swapped out."""
        fields = self._stat.text(4096).rpartition(")")[2].split()
        try:
            figures = int(fields[_RESIDENT]) * _PAGE, int(fields[_THREADS]), int(fields[_FAULTS])
        except (IndexError, ValueError):
            figures = 0, 0, _UNKNOWN
        swapped = field_of(self._status.text().replace(" kB", "").replace("\t", " "), "VmSwap:")
        return (*figures, _UNKNOWN if isnan(swapped) else int(swapped) * 1024)


class Pulses:
    """One a process."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew: this process drains another segment, or itself again."""
        self._file: SegmentFile | None = None
        self._due = 0

    def look(self, file: SegmentFile) -> None:
        """Write a pulse, where one is due; for each pass of the drain.  Never raises."""
        now = time.monotonic_ns()
        if file is self._file and now < self._due:
            return
        self._due = now + _PERIOD_NS
        try:
            if file is not self._file:
                self._file = file
                self._process = _Process(file.halves[at.OFF_HEADER_PID // 4])
            self._write(file, now)
        except Exception:  # noqa: BLE001  of whatever a damaged file makes; the drain goes on
            recorder.fault()

    def _write(self, file: SegmentFile, now: int) -> None:
        words, life = file.words, file.life // 8
        if file is recorder.file:
            queue.present(file)
        memory, cpu = condition.loads(file)
        resident, threads, faults, swap = self._process.figures()
        unix_ns = time.time_ns()
        body = _BODY(
            unix_ns,
            resident,
            self._process.cpu(now),
            cpu,
            memory,
            condition.queue_bits(file),
            _spans(file),
            min(words[life + at.OFF_LIFE_OPEN_ORDERS // 8], 0xFFFFFFFF),
            condition.market_age(file, unix_ns),
            threads,
            _late_beats(file, now),
            words[life + _ORDERS],
            words[life + _REJECTS],
            condition.updates(file) & _WORD,
            faults,
            swap,
            0,
        )
        number = words[life + _COUNT]
        place = file.pulses + number % at.PULSES * at.SIZE_PULSE
        words[place // 8] = 2 * number + 1 & _WORD
        file.map[place + 8 : place + at.SIZE_PULSE] = body
        words[place // 8] = 2 * number + 2 & _WORD
        words[life + _COUNT] = number + 1 & _WORD


def _spans(file: SegmentFile) -> int:
    """Give how many spans have been recorded."""
    words, refused = file.words, at.OFF_HEADER_SPANS_REFUSED // 8
    total = sum(words[refused : refused + at.TIERS])
    for number in range(min(file.halves[at.OFF_HEADER_RING_COUNT // 4], at.MAX_RINGS)):
        recorded = (file.rings + number * at.SIZE_RING + at.OFF_RING_RECORDED) // 8
        total += sum(words[recorded : recorded + at.TIERS])
    return total & _WORD


def _late_beats(file: SegmentFile, now: int) -> int:
    """Give the set of loops whose beat is late."""
    words, life = file.words, file.life // 8
    late = 0
    for number in range(min(words[life + at.OFF_LIFE_BEAT_COUNT // 8], at.BEATS)):
        beat, after = (words[life + field // 8 + number] for field in (at.OFF_LIFE_BEAT_NS, at.OFF_LIFE_BEAT_LATE_NS))
        late |= (0 < after < now - beat and beat > 0) << number
    return late


pulses = Pulses()
look = pulses.look
restart = pulses.restart
