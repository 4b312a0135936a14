"""The agent's children, drain hosts and short errands: each a fork, so that they share the memory of what is loaded."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from otel_trading.agent import drain_host
from otel_trading.agent.lines import GoneError, Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from otel_trading.config import Settings

_MOST_IN = drain_host.MOST_OUT
_MOST_OUT = 1 << 20
_LONGEST_ERRAND = 20.0  # seconds
_PR_SET_PDEATHSIG = 1


def _forked(run: Callable[[], int], keep: int) -> int:
    """Run a function in a child that dies with this process and has no file of ours but ``keep``; gives its pid."""
    parent = os.getpid()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = drain_host.FAILED
    try:
        signal.set_wakeup_fd(-1)
        _die_with(parent)
        _close_all_but(keep)
        code = run()
    except BaseException:  # noqa: BLE001  nothing of the child's may go on as if it were the agent
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)


def _die_with(parent: int) -> None:
    """Have the kernel end this process with the agent: one that hangs would hold the role of its segment."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (ImportError, OSError, AttributeError):  # not Linux; the closed socket tells as well
        return
    if os.getppid() != parent:
        os._exit(drain_host.FAILED)


def _close_all_but(keep: int) -> None:
    most = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, max(keep, 3))
    os.closerange(max(keep + 1, 3), most if 0 < most <= 1 << 20 else 1 << 20)


class Child:
    """A drain host, as the agent sees it.

    ``heard`` is called with each message that is no answer; answers go to whoever asked.
    """

    def __init__(self, path: str, settings: Settings, *, lean: bool, heard: Callable[[dict[str, Any]], None]) -> None:
        """Start it.  Raises OSError where the system lets no more processes be."""
        self.lean = lean
        self.running = False
        self.leaves_by: float | None = None  # it was told to leave, and may take until then (of time.monotonic)
        self.buries = False  # it was told that the process has ended
        self.killed = False
        self.began = time.monotonic()
        self._heard = heard
        self._asked: dict[int, tuple[float, Callable[[Any], None]]] = {}
        self._number = 0
        ours, theirs = socket.socketpair()
        try:
            self.pid = _forked(lambda: drain_host.run(theirs, path, settings, lean=lean), theirs.fileno())
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.lines = Lines(ours, _MOST_IN, _MOST_OUT)

    @property
    def leaving(self) -> bool:
        """Whether it was told to leave."""
        return self.leaves_by is not None

    def tell(self, message: dict[str, Any]) -> None:
        """Tell it to do something.  One that does not listen is ended."""
        try:
            self.lines.send(message)
        except GoneError:
            self.kill()

    def ask(self, message: dict[str, Any], seconds: float, answered: Callable[[Any], None]) -> None:
        """Ask it something; ``answered`` is called once, with None where no answer came in that time."""
        self._number += 1
        self._asked[self._number] = time.monotonic() + seconds, answered
        self.tell({**message, "id": self._number})

    def read(self) -> bool:
        """Take what it says; False where it has ended."""
        try:
            self.lines.flush()
            for message in self.lines.read():
                if "id" not in message:
                    self._heard(message)
                elif (asked := self._asked.pop(message["id"], None)) is not None:
                    asked[1](message.get("answer"))
        except (GoneError, TypeError):
            return False
        return True

    def expire(self, now: float) -> None:
        """Answer those who have waited for long enough."""
        for number in [number for number, (deadline, _) in self._asked.items() if deadline <= now]:
            self._asked.pop(number)[1](None)

    def kill(self) -> None:
        """End it at once.  It is our child and not waited for yet, so the pid is its own."""
        self.killed = True
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Let go of it, once it has closed its end or was killed; gives its exit code, negative for a signal."""
        self.lines.close()
        for _, answered in self._asked.values():
            answered(None)
        self._asked.clear()
        deadline = time.monotonic() + 0.2
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:  # it has closed the socket and goes on: it talks nonsense, or hangs
                self.kill()
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            time.sleep(0.002)


class Errands:
    """Things that take a while, or need a thread: each in a process of its own, which the agent does not wait for."""

    def __init__(self) -> None:
        """Begin with none."""
        self._running: dict[int, float] = {}

    def run(self, function: Callable[[], object]) -> None:
        """Do it; whatever goes wrong there is told on standard error, and nowhere else."""

        def whole() -> int:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            function()
            return drain_host.DONE

        try:
            self._running[_forked(whole, 2)] = time.monotonic() + _LONGEST_ERRAND
        except OSError:  # no process to be had: then this one is not done
            return

    def look(self, now: float) -> None:
        """Let go of those that are through, and end those that take too long."""
        for pid, deadline in list(self._running.items()):
            if now > deadline:
                os.kill(pid, signal.SIGKILL)
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._running[pid]
