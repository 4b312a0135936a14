"""What the governor of a process sees, measures and does; read from the segment of any process, living or dead.

The file is read and never written, and nothing in it is believed: numbers are taken as they are, and texts are made
of them here.
"""

from __future__ import annotations

import os
import struct
import time
from typing import NamedTuple

from otel_trading import _layout as at
from otel_trading.budget.decisions import Decision, decision_of
from otel_trading.segment.files import open_segment
from otel_trading.segment.pages import locate

_READINGS = struct.Struct("<QQQ6d5d4d2dQQQ5QQQ2d4Q8Q8QQQQ")
_CONTROL = struct.Struct(f"<{at.SIZE_CONTROL // 8}Q")
_WORD = struct.Struct("<Q")
_SCALE = 1 << at.SAMPLE_BITS
_TRIES = 20  # a process that died while it wrote leaves a lock that nobody opens
_PATIENT = 5
_WAIT = 0.001  # seconds

assert _READINGS.size == at.SIZE_READINGS  # noqa: S101  the two say the same, or nothing here is right


class Usage(NamedTuple):
    """What monitoring used over the policy's window (1 s)."""

    cpu: float
    """Share of one core."""
    memory: float
    """Bytes."""
    latency: float
    """Seconds added to an operation (a trace), mean."""
    network: float
    """Bytes a second."""
    disk: float
    """Operations a second."""


class Reading(NamedTuple):
    """The readings of one moment.  NaN is "can not be told"."""

    ticks: int
    """Ticks of the governor so far; 0: it has never run."""
    unix_ns: int
    """Unix time of the last one."""
    mode: int
    """OT_MODE_*; its name is ``modes.name_of(mode)``."""
    mode_since_ns: int
    """Unix time; 0 where it has been so from the start."""
    mode_reason: int
    """OT_REASON_*, an index of ``modes.REASONS``."""
    forced: int | None
    """The mode that somebody asked for; None: the engine decides."""
    rates: tuple[float, ...]
    """Share of its traces that a tier records now, 0 where it is off."""
    rollout: float
    """Share of the traces of P1 to P3 that the rollout lets through."""
    buffers: int
    """The rings have their configured size divided by 2 to this power."""
    exports_wait: bool
    """Exports wait, as the network or disk budget is used up."""
    cpu_load: float
    """Of the processors that the process may use, 0 to 1."""
    memory_load: float
    """Likewise."""
    cpu_stall: float
    """Pressure stall information: share of the time that somebody waited for a CPU."""
    memory_stall: float
    """Likewise, for memory."""
    volatility: float
    """A year's, from the last minute's returns; the highest of all symbols."""
    volume: float
    """Of the last 10 s, to what is usual; of the same symbol."""
    usage: Usage
    """What monitoring used."""
    cpu_hot: float
    """Of ``usage.cpu``: the recording threads, by the calibrated costs."""
    cpu_drain: float
    """The drain's thread."""
    cpu_export: float
    """Threads that said that they are monitoring's."""
    cpu_governor: float
    """The governor's own."""
    memory_segment: float
    """Bytes of the segment that take space."""
    memory_heap: float
    """Bytes of the drain's tables and queues."""
    network_total: int
    """Bytes so far."""
    disk_total: int
    """Operations so far."""
    cpu_total_ns: int
    """Nanoseconds so far, the hot path's included."""
    violations: tuple[int, ...]
    """So far, by ``modes.BUDGETS``."""
    steps: int
    """Steps in force that were taken to keep the budget."""
    in_a_row: int
    """Violations since it was last within its budget."""
    horizon: float
    """Seconds: how far back a trace can still be kept whole."""
    tokens: float
    """Bytes that may be kept at once."""
    thresholds: tuple[float, ...]
    """Share of the plain traces of each tier that is not kept."""
    kept: tuple[int, ...]
    """Traces so far, by ``modes.TRIGGERS``."""
    missed: tuple[int, ...]
    """Traces with a trigger that its limit or the bucket left out."""
    dropped: int
    """Plain traces that were left out."""
    decisions: int
    """Decisions so far."""
    failed: bool
    """The engine can not tell the pressure now."""
    whole: bool
    """Whether all figures are of one moment; not so where a process died while it wrote them."""


class Readings:
    """The readings of a segment; usable as ``with``.  ``read`` and ``decisions`` take some 20 µs each.

    Raises SegmentNotFoundError, SegmentForeignError, SegmentVersionError, SegmentTruncatedError or SegmentDamagedError,
    and where the file has become shorter meanwhile, SegmentTruncatedError from the methods.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file and find its pages."""
        self._path = os.fsdecode(path)
        self._fd = open_segment(path, os.O_RDONLY)
        try:
            self._readings = self._locate("readings", at.OFF_HEADER_READINGS_OFFSET, at.SIZE_READINGS)
            self._control = self._locate("control page", at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL)
            self._decisions = self._locate("decisions", at.OFF_HEADER_DECISIONS_OFFSET, at.SIZE_DECISION * at.DECISIONS)
        except BaseException:
            os.close(self._fd)
            raise

    def _locate(self, what: str, field: int, size: int) -> int:
        return locate(self._fd, self._path, what, field, size)

    def __enter__(self) -> Readings:  # noqa: PYI034  Self is younger than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go.  Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _fetch(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)  # not mapped: a file that is cut short meanwhile must be no SIGBUS
        if len(data) != size:
            from otel_trading.errors import SegmentTruncatedError

            raise SegmentTruncatedError(self._path, "the file ends before its readings do")
        return data

    def read(self) -> Reading:
        """Give the figures of the governor's last tick, and what is in force now."""
        page, whole = b"", False
        for attempt in range(_TRIES):
            page = self._fetch(self._readings, at.SIZE_READINGS)
            (before,) = _WORD.unpack_from(page)
            # The lock is read again in a call of its own: what the first call copied may be of two moments.
            (after,) = _WORD.unpack(self._fetch(self._readings, 8))
            whole = before == after and not before & 1
            if whole:
                break
            if attempt >= _PATIENT:
                time.sleep(_WAIT)
        control = _CONTROL.unpack(self._fetch(self._control, at.SIZE_CONTROL))
        words = _READINGS.unpack(page)
        forced = control[at.OFF_CONTROL_FORCED // 8]
        tiers = control[at.OFF_CONTROL_TIER_WORD // 8 : at.OFF_CONTROL_TIER_WORD // 8 + at.TIERS]
        return Reading(
            ticks=words[1],
            unix_ns=words[2],
            mode=control[at.OFF_CONTROL_MODE // 8],
            mode_since_ns=control[at.OFF_CONTROL_MODE_SINCE_NS // 8],
            mode_reason=control[at.OFF_CONTROL_MODE_REASON // 8],
            forced=forced - 1 if forced else None,
            rates=(1.0, *(_share(word >> 8) if word & at.TIER_ON else 0.0 for word in tiers[1:])),
            rollout=_share(control[at.OFF_CONTROL_ROLLOUT // 8]),
            buffers=control[at.OFF_CONTROL_BUFFERS_NOW // 8],
            exports_wait=control[at.OFF_CONTROL_EXPORTS_WAIT // 8] != 0,
            cpu_load=words[3],
            memory_load=words[4],
            cpu_stall=words[5],
            memory_stall=words[6],
            volatility=words[7],
            volume=words[8],
            usage=Usage(*words[9:14]),
            cpu_hot=words[14],
            cpu_drain=words[15],
            cpu_export=words[16],
            cpu_governor=words[17],
            memory_segment=words[18],
            memory_heap=words[19],
            network_total=words[20],
            disk_total=words[21],
            cpu_total_ns=words[22],
            violations=words[23:28],
            steps=words[28],
            in_a_row=words[29],
            horizon=words[30],
            tokens=words[31],
            thresholds=tuple(1.0 - _share(word) for word in words[32:36]),
            kept=words[36:44],
            missed=words[44:52],
            dropped=words[52],
            decisions=words[53],
            failed=words[54] == 1,
            whole=whole,
        )

    def decisions(self, since: int = 0) -> list[Decision]:
        """Give the decisions from number ``since`` on, oldest first; of those that are past, the newest 128."""
        (count,) = _WORD.unpack(self._fetch(self._readings + at.OFF_READINGS_DECISIONS, 8))
        found = (self._decision(number) for number in range(max(since, count - at.DECISIONS, 0), count))
        return [decision for decision in found if decision is not None]

    def _decision(self, number: int) -> Decision | None:
        """Give one decision, None where a newer one took its place."""
        offset = self._decisions + number % at.DECISIONS * at.SIZE_DECISION
        data = self._fetch(offset, at.SIZE_DECISION)
        if data[:8] != self._fetch(offset, 8):
            return None
        return decision_of(number, data)


def decisions(path: str | os.PathLike[str], since: int = 0) -> list[Decision]:
    """Give the decisions in a segment from number ``since`` on, oldest first.  Raises as ``Readings`` does."""
    with Readings(path) as readings:
        return readings.decisions(since)


def _share(threshold: int) -> float:
    return 1.0 - min(threshold, _SCALE) / _SCALE
