"""Rules on memory: a leak, and a kill by the kernel for want of it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from otel_trading.forensics import trends
from otel_trading.forensics.finding import Finding
from otel_trading.forensics.how_it_ended import SIGNAL

if TYPE_CHECKING:
    from otel_trading.forensics.signs import Series, Signs
    from otel_trading.forensics.trends import Trend


_SIGKILL = 9
_WINDOWS = (300.0, 60.0, 20.0, 10.0)  # seconds before the end in which a rise is looked for
_GROWTH = 0.10
_LEAST_GROWTH = 8e6  # bytes; less is no leak that ends a process
_STEADY = 0.7  # Kendall's tau
_LOOKS = 3  # that see it on its way
_GRADUAL = 0.4  # share of the time
_JUMP = 0.6  # share of a rise that one step may have
_STANDS = 30.0  # seconds that it may stand at its limit
_WARMING_UP = 3.0  # seconds in which every process grows
_YOUNG = 30.0  # one that lived so long may just have been starting
_QUEUE = 10_000.0
_FULL = 0.9  # of a memory limit
_MUCH, _DOUBLED = 0.5, 1.0  # growth as a share
_QUEUED = 1_000.0  # items
_ITEM = (30.0, 1e6)  # bytes that an item in a queue may take


def megabytes(value: float) -> str:
    """Write bytes in MB."""
    return f"{value / 1e6:,.{0 if value >= 1e7 else 1}f} MB"  # noqa: PLR2004


def _gradual(points: Series) -> bool:
    """Tell whether most of a rise takes as long as most of the time: one that comes at the end is something else."""
    low, high = points[0][1], points[-1][1]
    between = [t for t, value in points if low + 0.1 * (high - low) <= value <= low + 0.9 * (high - low)]
    return len(between) >= _LOOKS and between[-1] - between[0] >= _GRADUAL * (points[-1][0] - points[0][0])


def rise_of(series: Series, fewest: int) -> Trend | None:
    """Find the window before the end in which a series rises steadily and most, and still at its end."""
    best: Trend | None = None
    for seconds in _WINDOWS:
        points = trends.newest(series, seconds)
        found = trends.trend(points)
        if found is None or found.points < fewest or found.tau < _STEADY or found.slope <= 0.0:
            continue
        third = points[-max(2, len(points) // 3) :]
        last = (third[-1][1] - third[0][1]) / max(third[-1][0] - third[0][0], 1e-9)
        jump = max(later - value for (_, value), (_, later) in pairwise(points))
        if last < 0.3 * found.slope or jump > _JUMP * (points[-1][1] - points[0][1]) or not _gradual(points):
            continue
        if best is None or found.relative > best.relative:
            best = found
    return best


def out_of_memory(signs: Signs) -> str | None:
    """Say in a sentence that the end came for want of memory, None where it did not."""
    if signs.end.oom:
        return f"it was killed for want of memory: {signs.end.oom}"
    if (signs.end.exception or "").endswith("MemoryError"):
        return f"it ended by an uncaught {signs.end.exception}"
    return None


def _to_the_limit(series: Series) -> Series:
    """Leave out how it stood at its limit, for a short while, until the kernel had nothing left to take from others."""
    top = 0.9 * max((value for _, value in series), default=0.0)
    reached = next((number for number, (_, value) in enumerate(series) if value >= top), len(series))
    until = series[: reached + 1]
    return until if until and series[-1][0] - until[-1][0] <= _STANDS else series


def leak(signs: Signs) -> tuple[Trend | None, str | None, bool]:
    """Give (the rise of the resident memory, how its limit was reached, whether the end came by that)."""
    ended = out_of_memory(signs)
    series = signs.resident
    if ended is not None:
        series = _to_the_limit(series)
    else:
        born = -signs.lived + _WARMING_UP
        series = [point for point in series if point[0] >= born]
    rise = rise_of(series, 4 if ended else 5)
    if rise is not None and (rise.change < _LEAST_GROWTH or rise.relative < _GROWTH):
        rise = None
    if ended is not None:
        return rise, ended, True
    limit, newest = signs.evidence.memory_limit, signs.figure(signs.resident)
    load = signs.figure(signs.memory_load)
    if limit and newest and newest >= 0.85 * limit:
        return rise, f"{megabytes(newest)} of the {megabytes(limit)} that it may have were taken", False
    if load is not None and load >= _FULL:
        return rise, f"{load:.0%} of the memory limit were taken", False
    return rise, None, False


def in_the_queue(signs: Signs, rise: Trend) -> str | None:
    """Say that the queue holds what the memory grew by, None where it does not."""
    queue = trends.trend(trends.newest(signs.queue, rise.seconds))
    if queue is None or queue.tau < _STEADY or queue.change < _QUEUED or queue.end < _QUEUE:
        return None
    item = rise.change / queue.change
    if not _ITEM[0] <= item <= _ITEM[1]:
        return None
    return f"the queue grew by {queue.change:,.0f} items meanwhile, which is {item:,.0f} bytes for each"


def memory_leak(signs: Signs) -> Finding | None:
    """Resident memory rises steadily, and by much, to the end."""
    rise, reached, ended = leak(signs)
    if rise is None:
        return None
    begin = max(rise.begin, min(value for _, value in signs.resident))
    grown = f"resident memory rose steadily from {megabytes(begin)} to {megabytes(rise.end)}"
    told = [f"{grown} in the last {rise.seconds:.0f} s: {megabytes(rise.slope * 60)} a minute, by {rise.points} looks"]
    if reached:
        told.append(reached)
    queued = in_the_queue(signs, rise)
    if queued is not None:
        return Finding("memory_leak", 0.4, [*told, queued], certain=ended)
    if ended:
        return Finding("memory_leak", 0.95, told, certain=True)
    if reached:
        return Finding("memory_leak", 0.8, told)
    confidence = 0.7 if rise.relative >= _DOUBLED else 0.6 if rise.relative >= _MUCH else 0.4
    if signs.lived < _YOUNG:
        confidence = min(confidence, 0.4)
        told.append(f"it had only lived for {signs.lived:.0f} s, and may still have been starting")
    return Finding("memory_leak", confidence, told)


def oom_kill(signs: Signs) -> Finding | None:
    """The kernel killed it for want of memory, and it was not its own steady growth."""
    rise, reached, _ = leak(signs)
    explained = rise is not None
    if signs.end.oom:
        newest = signs.figure(signs.resident)
        told = [out_of_memory(signs) or ""]
        if newest:
            told.append(f"it had {megabytes(newest)} then" + ("" if explained else ", and had not grown steadily"))
        return Finding("oom_kill", 0.4 if explained else 0.95, told, certain=True)
    if signs.end.kind == SIGNAL and signs.end.signal == _SIGKILL and reached and not explained:
        return Finding("oom_kill", 0.6, ["it was killed by SIGKILL, as the kernel kills for want of memory", reached])
    return None
