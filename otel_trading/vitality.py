"""What a program tells of itself, so that its hang or death can be understood: beats, its queue, critical events."""

from __future__ import annotations

from math import isfinite, nan

from otel_trading._backend import core
from otel_trading._layout import VITAL_CRITICAL
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._backend import Gauge

_NS = 1_000_000_000
_SHORTEST = 1e-9
_LONGEST = 1e9  # seconds, some thirty years


class Heartbeat:
    """``otel_trading.heartbeat``: has a loop of the program tell that it goes on.

    Call it in each turn: ``heartbeat()``, or ``heartbeat("feed", late=2.0)``.  The watchdog says so when the next beat
    is late, and a report on the process's death tells which loop hung.  Nothing else comes of it: the program is never
    touched.  ``late`` is in seconds, more than 0 and at most 1e9; None or 0: the loop rests, or has ended, and is not
    late until it beats again.  At most 16 names; more are a fault.

    Takes some tenths of a microsecond on the native backend, a few on the other.
    Never raises: what is no name or no time is a fault.  Before ``configure`` and after ``shutdown`` it does nothing.
    """

    __slots__ = ()

    def __call__(self, name: str = "main", late: float | None = 5.0) -> None:
        """Tell that the loop goes on."""
        if type(late) is float and _SHORTEST <= late <= _LONGEST and type(name) is str and name:
            core.beat(name, int(late * _NS))
        else:
            _beat_of(name, late)

    async def every(self, seconds: float = 1.0, name: str = "main", late: float | None = 5.0) -> None:
        """Beat from asyncio's running loop, each so many seconds, until the task is cancelled; then the loop rests.

        ``beating = asyncio.create_task(ot.heartbeat.every(1.0))``: as long as something keeps ``beating``.  A call that
        blocks the loop keeps this from beating.
        """
        from asyncio import sleep

        pause = _seconds("every", seconds) or 1.0
        if late and _seconds("late", late) <= pause:
            report("heartbeat:every", f"heartbeat {name!r:.100} is late after {late!r} s, and beats each {pause!r} s")
        try:
            while True:
                self(name, late)
                await sleep(pause)
        finally:
            self(name, None)


heartbeat = Heartbeat()


def _seconds(what: str, value: object) -> float:
    """Give 0.0, and a fault, for what is no time."""
    try:
        seconds = nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  whatever a foreign type's __float__ raises
        seconds = nan
    if 0.0 <= seconds <= _LONGEST:
        return seconds
    shown = seconds if isfinite(seconds) else f"of type {type(value).__name__}"
    report(f"heartbeat:{what}", f"heartbeat: {what} is {shown}, not a number of seconds from 0 to {_LONGEST:g}")
    return 0.0


def _beat_of(name: object, late: object) -> None:
    """Beat with what is not of the usual types."""
    if not isinstance(name, str) or not name:
        report("heartbeat:name", f"heartbeat: the name is of type {type(name).__name__}, or empty; give text")
        return
    if late is None or late == 0:
        core.beat(name, 0)
        return
    seconds = _seconds("late", late)
    if seconds:
        core.beat(name, max(1, int(seconds * _NS)))


def queue(gauge: Gauge | None) -> None:
    """Say which gauge is the length of the program's queue, as ``queue(ot.gauge("orders.waiting"))``; None: none said.

    Each critical event, and each look at the process, has its value then.  Without this it is the first gauge that is
    called ``queue.size`` or ``queue.depth``.  Works before ``configure``.  Never raises: another thing is a fault.
    """
    try:
        core.queue_gauge(gauge)
    except TypeError:
        report("queue", f"queue: {type(gauge).__name__} is no gauge; give what otel_trading.gauge() gave")


def critical(name: str, key: str = "") -> None:
    """Note something critical, with the state of the process: ``critical("risk.limit_near", key=order_id)``.

    The newest 1,024 stay in the segment, orders' changes and risk breaches among them, with active orders, queue, load,
    age of the market data, and the current trace.  ``name`` says what happened, from a small set (names are kept);
    ``key`` is what it is about, of which the first 40 bytes are kept.

    Takes some tenths of a microsecond on the native backend.  Never raises: what is no text is a fault.  Before
    ``configure`` and after ``shutdown`` it does nothing.
    """
    if not isinstance(name, str) or not name:
        report("critical:name", f"critical: the name is of type {type(name).__name__}, or empty; give text")
        return
    core.critical(name, key if isinstance(key, str) else _text(key), VITAL_CRITICAL, 0, nan)


def _text(key: object) -> str:
    """Give an order's id that is no text as text."""
    from otel_trading.order_values import key_of

    return "" if key is None else key_of(key)[1]
