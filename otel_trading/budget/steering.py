"""Steer this process's own monitoring: the mode, and traces that are to be kept."""

from __future__ import annotations

from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.budget.modes import name_of, number_of
from otel_trading.faults import report


def mode() -> str:
    """Give the mode in force: "NORMAL", "HIGH_VOLATILITY", "STRESSED" or "EMERGENCY"; without a recorder "NORMAL"."""
    return name_of(core.mode())


def set_mode(mode: str | None) -> None:
    """Put a mode in force, by its name in any case, until ``set_mode(None)``: then the engine decides again.

    Holds now and in a later ``configure``.  What monitoring may cost holds in it as well, and P0 is recorded in each.
    In force at the next record; other processes can do the same to this one (``otel-trading mode``).

    Never raises: a name that is no mode's is a fault, and changes nothing.
    """
    try:
        number = None if mode is None else number_of(mode)
    except ValueError as error:
        report("set_mode", f"set_mode: {error}. P0 can not be switched off by any of them.")
        return
    lifecycle.force_mode(number)


def pin(trace_id: int | str | None = None) -> bool:
    """Have a trace kept whole, whatever comes of it: the current one, or that with this id.

    An id is 32 hex digits, or a number.

    Tells whether it was noted: not without a recorder, nor where no trace is current.  Works for spans that are
    recorded already, as long as the trace has not been decided (up to ``keep.hold``), and for those that follow.
    Takes less than a microsecond.  Never raises: what is no trace id is a fault.
    """
    if trace_id is None:
        current = core.current()
        number = 0 if current is None else current.trace_id
        return number != 0 and core.pin(number)
    number = trace_id if isinstance(trace_id, int) else 0
    if isinstance(trace_id, str):
        try:
            number = int(trace_id, 16)
        except ValueError:
            number = 0
    if not 0 < number < 1 << 128:
        report("pin", f"pin: {trace_id!r:.100} is no trace id; give 32 hex digits, or a number")
        return False
    return core.pin(number)
