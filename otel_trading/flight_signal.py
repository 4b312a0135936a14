"""A signal that has the process write a flight record, where ``forensics.signal`` names one."""

from __future__ import annotations

import os
import signal
import sys

from otel_trading.faults import report
from otel_trading.flight import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class FlightSignal:
    """The signal's handler: it starts a thread that writes the record, and then does what was done before it.

    It stays when recording ends, as the signal's own action would be the process's end.
    """

    def __init__(self) -> None:
        """Put in none yet."""
        self._handler = self._on_signal  # one object, so that it is known again
        self._before: Callable[[int, FrameType | None], object] | None = None
        self._writing = 0  # the pid of who writes one, or did before a fork; 0 = nobody

    def hook(self, name: str) -> None:
        """Handle the signal of that name, which there is, unless it is handled; only Python's main thread can."""
        number = getattr(signal, name)
        before = signal.getsignal(number)
        if before is self._handler:
            return
        if before is None:
            report("flight:signal", f"forensics.signal: {name} has a handler that is not Python's, and keeps it")
            return
        try:
            signal.signal(number, self._handler)
        except ValueError:
            report("flight:signal", f"forensics.signal: only the main thread can handle {name}; call configure there")
            return
        self._before = before if callable(before) else None
        self._start = _start_of_threads()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._writing != os.getpid():  # those that come meanwhile ask for the same
            self._writing = os.getpid()
            try:
                # threading's own way takes a lock that this very thread may hold
                self._start(self._write, ())
            except RuntimeError:  # no more threads
                self._writing = 0
        if self._before is not None:
            self._before(number, frame)

    def _write(self) -> None:
        try:
            dump()
        finally:
            self._writing = 0


def _start_of_threads() -> Callable[[Callable[[], None], tuple[()]], object]:
    """Give what starts a thread of the system, also where gevent or eventlet has put something else in its place."""
    monkey, patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    start: Callable[[Callable[[], None], tuple[()]], object]
    if monkey is not None:
        start = monkey.get_original("_thread", "start_new_thread")
    elif patcher is not None:
        start = patcher.original("_thread").start_new_thread
    else:
        from _thread import start_new_thread as start
    return start
