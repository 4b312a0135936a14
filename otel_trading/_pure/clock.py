"""The clock of the drained segment: from the ticks of its records to Unix time."""

from __future__ import annotations

import struct
import time

from otel_trading import _layout as at
from otel_trading._pure.mapped import CONTROL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile

_TRIES = 8
_LOOKS = 16
_CALIBRATION = (CONTROL + at.OFF_CONTROL_CALIBRATION) // 8
_CLOCK = at.OFF_HEADER_CLOCK // 4
_NS_PER_TICK = int.from_bytes(struct.pack("<d", 1.0), "little")
_SLOWEST, _FASTEST = 1e6, 1e-6  # ns a tick: no clock lies outside
_LAST = (1 << 63) - 1  # ns since 1970
_WORD = (1 << 64) - 1
_HALF = 1 << 63


class Clock:
    """Ticks that are nanoseconds of this machine's monotonic clock are plain, and anchored anew at each pass.

    Other ticks can not be read here, nor those of another boot: they are believed as their process anchored them last.
    """

    __slots__ = ("_anchor", "_mono_ns", "_rate", "_ticks", "epoch", "is_plain")

    def __init__(self) -> None:
        self.is_plain = True
        self.epoch = 0  # Unix time of tick 0, of a plain one
        self._anchor = self._ticks = self._mono_ns = 0
        self._rate = 1.0

    def calibrate(self, file: SegmentFile) -> None:
        """Anchor ticks to Unix time, with the drain's lock held."""
        self.is_plain = file.halves[_CLOCK] == at.CLOCK_MONOTONIC_NS and not file.other_boot
        if self.is_plain:
            self._anchor_plain(file.words)
        else:
            self._read(file.words)

    def _anchor_plain(self, words: memoryview) -> None:
        best, ticks, unix_ns = 1 << 62, 0, 0
        for _ in range(_TRIES):  # the tightest of a few, so that a preemption in between does not count
            before = time.perf_counter_ns()
            now = time.time_ns()
            after = time.perf_counter_ns()
            if after - before < best:
                best, ticks, unix_ns = after - before, (before + after) // 2, now
        seq = words[_CALIBRATION] & ~1  # odd: who drained before was killed here
        words[_CALIBRATION] = seq + 1
        words[_CALIBRATION + 1] = ticks
        words[_CALIBRATION + 2] = unix_ns
        words[_CALIBRATION + 3] = ticks
        words[_CALIBRATION + 4] = _NS_PER_TICK
        words[_CALIBRATION] = seq + 2 & _WORD
        self.epoch = unix_ns - ticks

    def _read(self, words: memoryview) -> None:
        ticks = unix_ns = mono_ns = bits = 0
        for _ in range(_LOOKS):
            before = words[_CALIBRATION]
            ticks, unix_ns, mono_ns, bits = words[_CALIBRATION + 1 : _CALIBRATION + 5].tolist()
            if before == words[_CALIBRATION] and not before & 1:
                break
        rate: float = struct.unpack("<d", bits.to_bytes(8, "little"))[0]
        self._rate = rate if _FASTEST < rate < _SLOWEST else 1.0  # NaN is not in between either
        self._ticks, self._anchor, self._mono_ns = ticks, unix_ns, mono_ns

    def unix(self, time_: int, is_unix: int) -> int:
        """Give the Unix time of a record's start or end, from 0 to 2**63 - 1 ns."""
        if is_unix:
            moment = time_
        elif self.is_plain:
            moment = self.epoch + time_
        else:
            difference = (time_ - self._ticks + _HALF & _WORD) - _HALF
            moment = self._anchor + int(difference * self._rate)
        return min(max(moment, 0), _LAST)

    def ticks(self) -> int:
        """Give the present moment."""
        now = time.perf_counter_ns()
        if self.is_plain:
            return now
        return self._ticks + int((now - self._mono_ns) / self._rate) & _WORD

    def placed(self, slot: bytes) -> tuple[bytes, int]:
        """Give a record as it goes into the queue, and the Unix time of tick 0 of its times."""
        if self.is_plain:
            return slot, self.epoch
        flags = slot[at.OFF_SLOT_FLAGS]
        begin, end = at.OFF_SLOT_START, at.OFF_SLOT_END + 8
        start = self.unix(int.from_bytes(slot[begin : begin + 8], "little"), flags & at.FLAG_START_UNIX)
        stop = self.unix(int.from_bytes(slot[end - 8 : end], "little"), flags & at.FLAG_END_UNIX)
        return slot[:begin] + start.to_bytes(8, "little") + stop.to_bytes(8, "little") + slot[end:], 0
