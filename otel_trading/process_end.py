"""How a process comes to its end, or becomes two: exit, SIGTERM, fork, and the children of multiprocessing."""

from __future__ import annotations

import atexit
import os
import sys

from otel_trading._backend import core
from otel_trading._layout import ENDING_SIGNAL
from otel_trading.uncaught import Uncaught, note_ending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from otel_trading.config import Settings
    from otel_trading.flight_signal import FlightSignal

    class Ended(Protocol):
        """What is told of it."""

        ending: bool
        settings: Settings | None

        def end(self, reason: str, *, error: bool, timeout: float | None) -> None:
            """End in an orderly way, in bounded time."""

        def after_fork_in_child(self) -> None:
            """Forget what is the parent's."""


_SIGTERM = 15


class ProcessEnd:
    """The hooks, put in once, and harmless where nothing is recorded."""

    def __init__(self, host: Ended) -> None:
        """Put none in yet."""
        self._host = host
        self._hooked = False
        self._hooked_multiprocessing = False
        self._handles_sigterm = False
        self._handler = self._on_sigterm  # one object, so that it is known again
        self.sigterm_waits = False
        self._uncaught = Uncaught()
        self._flight: FlightSignal | None = None

    def hook(self) -> None:
        """Put in what is missing."""
        self._hook_sigterm()
        self.hook_multiprocessing()
        self._uncaught.hook()
        self._hook_flight()
        core.note_signals(True)
        if self._hooked:
            return
        self._hooked = True
        atexit.register(self.at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._host.after_fork_in_child)

    def at_exit(self) -> None:
        """End with the interpreter."""
        note_ending(sys.exc_info()[1])  # known in a child of multiprocessing; of sys.exit here nothing is
        self._host.end("interpreter exit", error=False, timeout=None)

    def unhook(self) -> None:
        """Have no signal noted any more: the segment is about to be closed."""
        core.note_signals(False)

    def _hook_flight(self) -> None:
        settings = self._host.settings
        name = None if settings is None else settings.values.get("forensics.signal")
        if not isinstance(name, str):
            return
        if self._flight is None:
            from otel_trading.flight_signal import FlightSignal

            self._flight = FlightSignal()
        self._flight.hook(name)

    def hook_multiprocessing(self) -> None:
        """Have a child of multiprocessing flush: it ends by ``os._exit`` after running its own finalizers.

        Such a child first clears the finalizers that it inherited and then runs the functions that were registered
        for after the fork, so it is one of those that puts ours in.  A child that is past that point gets it now.
        """
        util = sys.modules.get("multiprocessing.util")
        process = sys.modules.get("multiprocessing.process")
        if util is None or process is None:
            return
        if not self._hooked_multiprocessing:
            self._hooked_multiprocessing = True
            util.register_after_fork(self, ProcessEnd._finalize_child)
        if process.parent_process() is not None:
            self._finalize_child()

    def _finalize_child(self) -> None:
        # The lowest priority: after the application's own finalizers, which may still record.
        sys.modules["multiprocessing.util"].Finalize(None, self.at_exit, exitpriority=-1_000_000)

    # ---- SIGTERM ----

    def _hook_sigterm(self) -> None:
        import signal

        # Only Python's main thread can set a handler; elsewhere this is an error, which is the test for it.
        try:
            if not self._handles_sigterm and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._handler)
                self._handles_sigterm = True
        except ValueError:
            return

    def default_sigterm(self) -> None:
        """Give SIGTERM its default action back, where it is ours that it has."""
        import signal

        try:
            if self._handles_sigterm and signal.getsignal(signal.SIGTERM) is self._handler:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._handles_sigterm = False
        except ValueError:  # not the main thread: the handler stays, and does no harm
            return

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        if self._host.ending and not self.sigterm_waits:
            self.sigterm_waits = True  # an orderly end is under way, and bounded; a second SIGTERM does not wait for it
            return
        core.ending(ENDING_SIGNAL, _SIGTERM, "")
        self._host.end("SIGTERM", error=True, timeout=None)
        terminate()


def terminate() -> None:
    """Do what SIGTERM would have done without us."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
