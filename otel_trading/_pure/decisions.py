"""Decisions: what was measured, what it is held to, what was done about it; a ring of the newest in the segment."""

from __future__ import annotations

import struct
import time

from otel_trading import _layout as at
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.passes import drain
from otel_trading._pure.waits import waits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile

_BUFFERS = (CONTROL + at.OFF_CONTROL_BUFFERS) // 8
_BUFFERS_NOW = (CONTROL + at.OFF_CONTROL_BUFFERS_NOW) // 8
_COUNT = at.OFF_READINGS_DECISIONS // 8
_BODY = struct.Struct("<Qdddd4BIQ").pack_into
_AGAIN = 0.1  # seconds between two reports of the same buffers that do not fit


class Decision:
    """One decision of the governor's."""

    __slots__ = ("after", "before", "figure", "kind", "limit", "reason", "tier")

    def __init__(
        self,
        kind: int,
        reason: int,
        figure: float = 0.0,
        limit: float = 0.0,
        before: float = 0.0,
        after: float = 0.0,
        tier: int = 0,
    ) -> None:
        self.kind = kind
        self.reason = reason
        self.figure = figure
        self.limit = limit
        self.before = before
        self.after = after
        self.tier = tier


def note(file: SegmentFile, decisions: list[Decision], mode: int) -> None:
    """Enter decisions, ``mode`` being in force before them, and wake who waits for them; one governor at a time."""
    words, unix_ns = file.words, time.time_ns()
    counter = file.readings // 8 + _COUNT
    for decision in decisions:
        if decision.kind == at.DECISION_MODE:
            mode = int(decision.after)
        number = words[counter]
        place = file.decisions + at.SIZE_DECISION * (number % at.DECISIONS)
        words[place // 8] = 2 * number + 1
        figures = (decision.figure, decision.limit, decision.before, decision.after)
        what = (decision.kind, decision.reason, decision.tier, mode)
        _BODY(file.map, place + at.OFF_DECISION_UNIX_NS, unix_ns, *figures, *what, 0, 0)
        words[place // 8] = 2 * number + 2
        words[counter] = number + 1
    if decisions:
        waits.notify()


def count() -> int:
    """Tell how many there have been in the present segment."""
    file = drain.file
    return 0 if file is None else file.words[file.readings // 8 + _COUNT]


def misfit() -> bool:
    """Tell whether the rings have another size than they should, and this process can change that."""
    file = drain.file
    return file is not None and drain.adopted is None and file.words[_BUFFERS] != file.words[_BUFFERS_NOW]


class _Fit:
    """When somebody was last told of rings that do not fit."""

    told_at = -_AGAIN


def await_decision(number: int, timeout: float, /) -> int:
    """Wait for more than ``number`` decisions, or for buffers that do not fit; how many there were.

    Of the same buffers that do not fit it tells once in a tenth of a second.
    """

    def decided() -> bool:
        return count() > number

    pause = min(_Fit.told_at + _AGAIN - time.monotonic(), timeout)
    if pause > 0 and misfit():
        end = time.monotonic() + pause
        if waits.wait(decided, pause) or time.monotonic() < end:  # the latter: somebody ended the wait
            return count()
        timeout -= pause
    waits.wait(lambda: decided() or misfit(), timeout)
    if misfit():
        _Fit.told_at = time.monotonic()
    return count()
