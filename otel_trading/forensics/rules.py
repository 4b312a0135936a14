"""The rules: what each cause looks like in the figures.  Confidences are those of a rule alone; ``causes`` weighs them.

Limits in them are the user's: memory that grows by more than 10 % over what is looked at, CPU above 95 %, more than
10,000 items in the queue, market data older than 5 s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_trading import _layout as at
from otel_trading.forensics import activity_rules, memory_rules
from otel_trading.forensics.finding import SIGABRT, Finding
from otel_trading.forensics.how_it_ended import ALIVE, EXIT, SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading.forensics.signs import Signs

FAULTS = frozenset({4, 5, 6, 7, 8, 11, 31})
"""SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS."""

EXPLAINS = {
    "hang": ("market_data_disconnect", "queue_overflow"),
    "cpu_exhaustion": ("market_data_disconnect", "hang"),
    "queue_overflow": ("memory_leak", "oom_kill"),
    "memory_leak": ("oom_kill",),
    "disk_full": ("order_reject_storm",),
}
"""Cause → what it brings about as well."""

_MUCH, _DOUBLED = 0.5, 1.0  # growth as a share
_ANSWERS = 10  # to orders, that tell of a storm


def order_reject_storm(signs: Signs) -> Finding | None:
    """Most of the last orders were rejected."""
    states = signs.verdicts()
    rejected, decided = states[at.ORDER_REJECTED], sum(states.values())
    if decided < _ANSWERS or rejected < _MUCH * decided:
        return None
    told = [f"{rejected} of the last {decided} answers to orders were rejects"]
    return Finding("order_reject_storm", 0.75 if rejected >= 0.8 * decided else 0.6, told)


def disk_full(signs: Signs) -> Finding | None:
    """There was no room on a disk among the last errors."""
    spans = signs.no_space()
    if not spans:
        return None
    said = spans[-1].description or spans[-1].exception
    told = [
        f"{len(spans)} spans failed for want of disk space in the last minute, the last one {spans[-1].name}: {said}"
    ]
    if signs.end.exception in {"OSError", "IOError"}:
        told.append(f"it ended by an uncaught {signs.end.exception}")
        return Finding("disk_full", 0.92, told, certain=True)
    return Finding("disk_full", 0.55 if len(spans) == 1 else 0.75, told)


CONDITIONS: tuple[Callable[[Signs], Finding | None], ...] = (
    memory_rules.memory_leak,
    memory_rules.oom_kill,
    activity_rules.cpu_exhaustion,
    activity_rules.queue_overflow,
    activity_rules.market_data_disconnect,
    activity_rules.hang,
    order_reject_storm,
    disk_full,
)
"""What may lead to an end."""


def ending(signs: Signs) -> Finding | None:
    """Give the plain word for how it ended, None for one that lives, or is gone without a word."""
    end = signs.end
    by = f"{end.text}, says {end.source or 'nobody'}"
    if end.kind == EXIT and end.exception:
        return Finding("uncaught_exception", 0.9, [by])
    if end.kind == EXIT:
        return Finding("exit", 0.7 if end.code else 0.95 if end.code == 0 else 0.8, [by])
    if end.kind != SIGNAL or end.signal is None or end.kind == ALIVE:
        return None
    if end.requested:
        return Finding("terminated", 0.9, [by])
    if end.signal in FAULTS:
        return Finding("fault", 0.8 if end.signal == SIGABRT else 0.95, [by])
    return Finding("killed", 0.7, [by, "nothing else speaks for a reason of its own"])
