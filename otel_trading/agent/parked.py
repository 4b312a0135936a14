"""The thread in which a process that drains its own segment waits to be asked to leave that to an agent, and back.

It waits in C, without the interpreter's lock, and costs nothing while it does.
"""

from __future__ import annotations

from time import monotonic, sleep

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading._real_threads import real_threading
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Handed(Protocol):
        """Who drains, and can leave it and take it again."""

        def hand_over(self) -> None:
            """Leave the drain to another process."""

        def take_back(self) -> None:
            """Drain again."""


threading = real_threading()

_LONGEST = 60.0  # seconds of one wait
_SHORT = 0.05  # seconds after a wait that ended for no reason
_STEP = 0.02  # seconds between two attempts to wake the thread at its end


class Parked:
    """The thread of one segment, from ``start`` to ``stop``."""

    def __init__(self, host: Handed) -> None:
        """Take who is told."""
        self._host = host
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="otel-trading-host", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, deadline: float) -> bool:
        """End the thread; False where ``deadline`` (of ``time.monotonic``) came first."""
        self._stopping = True
        while self._thread.is_alive() and self._thread is not threading.current_thread():
            left = deadline - monotonic()
            if left <= 0.0:
                return False
            core.wake()
            self._thread.join(min(left, _STEP))
        return True

    @property
    def stopping(self) -> bool:
        """Whether the end has begun."""
        return self._stopping

    def _run(self) -> None:
        known = at.HOST_EMBEDDED
        while not self._stopping:
            began = monotonic()
            try:
                asked = core.await_host(known, _LONGEST)
                if not self._stopping and asked != known:
                    known = asked
                    if asked == at.HOST_AGENT:
                        self._host.hand_over()
                    else:
                        self._host.take_back()
            except Exception as error:  # noqa: BLE001  whatever it is, this must not become a loop that never waits
                report("host", f"who drains can not be changed now: {error!r}")
            if not self._stopping and monotonic() - began < _SHORT:
                sleep(_SHORT)
