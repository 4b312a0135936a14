"""From pressure to a new mode, again and again: how long the engine takes to see it."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from otel_trading.bench.children import BenchmarkError
from otel_trading.bench.intervals import quantile

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading.impact.applying import Applied
    from otel_trading.impact.subject import Subject

TARGET_S = 0.1
"""For p99 of all trials."""
DWELL_S = 0.25
"""How long a mode stays at least; shorter than usual, so that the next trial can begin.  It delays no heavier mode."""
_LONGEST_S = 2.0
_CALM_S = 0.3
_PATIENCE_S = 30.0


def longest_s(count: int) -> float:
    """Seconds that so many trials take at most."""
    return (_PATIENCE_S + _LONGEST_S) * count + 60.0


def run_trials(
    subject: Subject, pressure: Applied, count: int, progress: Callable[[str, float], object] | None = None
) -> dict[str, Any]:
    """Put a program under pressure ``count`` times, from a calm state each time.

    Gives lists of seconds: ``first_s`` until the first heavier mode, ``emergency_s`` until EMERGENCY (None: not within
    2 s), and p50, p99 and max of the first.  Raises BenchmarkError where calm is not found again.
    """
    draw = random.Random(count)  # noqa: S311  to come at any moment of the engine's tick
    first: list[float | None] = []
    emergency: list[float | None] = []
    for number in range(count):
        if progress is not None:
            progress(f"from pressure to a new mode, {number + 1} of {count}", 1.5)
        _calm(subject)
        time.sleep(draw.uniform(0.0, 0.1))
        mark = subject.decisions
        begun = pressure.begin(subject)
        subject.wait_for("EMERGENCY", _LONGEST_S)
        pressure.end(subject)
        changes = [((at - begun.unix_ns) * 1e-9, mode) for at, mode in subject.changes(mark)]
        first.append(next((at for at, mode in changes if mode in {"STRESSED", "EMERGENCY"}), None))
        emergency.append(next((at for at, mode in changes if mode == "EMERGENCY"), None))
    found = sorted(_LONGEST_S if value is None else value for value in first)
    return {
        "count": count,
        "first_s": first,
        "emergency_s": emergency,
        "p50_s": quantile(found, 0.5),
        "p99_s": quantile(found, 0.99),
        "max_s": found[-1],
        "target_s": TARGET_S,
        "met": quantile(found, 0.99) <= TARGET_S,
    }


def _calm(subject: Subject) -> None:
    """Wait until it has been NORMAL for a while."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        if subject.wait_for("NORMAL", max(0.0, deadline - time.monotonic())):
            mark = subject.decisions
            time.sleep(_CALM_S)
            if subject.mode == "NORMAL" and not subject.changes(mark):
                return
        if time.monotonic() > deadline:
            message = "the machine is not calm enough for a trial: the mode does not stay NORMAL without pressure"
            raise BenchmarkError(message)
