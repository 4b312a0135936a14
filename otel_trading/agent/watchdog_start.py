"""Finds the watchdog that there is, the C program or its Python twin, and sees that one runs while the agent does."""

from __future__ import annotations

import os
import signal
import sys
import time

from otel_trading import _layout as at
from otel_trading.agent import notify
from otel_trading.segment.process import is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_trading.config import Settings

PROGRAM = "otel-trading-watchdog"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_PERIOD = 1.0  # seconds between two looks at it
_STALE = 10.0  # seconds without a beat of its own: it is of no use
_HUNG = 60.0  # and then it is ended, where it is our child
_BACKOFF_MOST = 60.0
_PATIENCE = 2.0  # seconds that its end is waited for


def program() -> list[str]:
    """Give the command that runs a watchdog here, without arguments."""
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), PROGRAM)
    if os.environ.get("OTEL_TRADING_BACKEND") != "pure" and os.access(path, os.X_OK):
        return [path]
    return [sys.executable, "-m", "otel_trading.agent.watchdog"]


def log_path() -> str | None:
    """Say where a watchdog logs: a file in the user's state directory, which is made; None where that can not be."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    if not os.path.isabs(state):
        return None
    where = os.path.join(state, "otel-trading")
    try:
        os.makedirs(where, mode=0o700, exist_ok=True)
    except OSError:
        return None
    return os.path.join(where, "watchdog.log")


def environment() -> dict[str, str]:
    """Give the environment of a watchdog: ours, and Python looks for modules in the same places as here."""
    changed = dict(os.environ)
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    if "" not in sys.path and here not in sys.path:
        changed["PYTHONSAFEPATH"] = "1"
    return changed


def arguments(directory: str, values: Mapping[str, object], agent: tuple[int, int] | None) -> list[str]:
    """Give a watchdog's arguments, by the configuration; ``agent`` is pid and start time of the one to look after."""
    told = ["--directory", directory, "--late", f"{values['watchdog.late']}"]
    told += ["--restarts", f"{values['watchdog.restarts']}", "--python", sys.executable]
    log = log_path()
    if log is not None:
        told += ["--log", log]
    if agent is not None:
        told += ["--agent", str(agent[0]), "--started", str(agent[1])]
    if notify.wanted():
        told.append("--supervised")
    return told


def agent_command() -> list[str]:
    """Give the command that starts an agent as this one was started."""
    rest = sys.argv[1:] if sys.argv[1:2] == ["agent"] else ["agent"]
    return [sys.executable, "-m", "otel_trading", *rest]


def own_start() -> int:
    """When this process started, as field 22 of its stat file has it; 0 where that is not told."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


class Attendant:
    """Sees that the agent has a watchdog.  No method raises or waits, but for ``close``."""

    def __init__(self, directory: str, settings: Settings, command: Sequence[str] | None = None) -> None:
        """Prepare; ``command`` starts an agent, by default as this one was started.

        To be made when the agent's page is there.
        """
        self.pid: int | None = None
        self._page = os.path.join(directory, "agent.page")
        self._command: list[str] = []
        if settings.values["watchdog.enabled"]:
            told = arguments(directory, settings.values, (os.getpid(), own_start()))
            self._command = [*program(), *told, "--", *(command or agent_command())]
        self._next = self._try_at = self._spawned_at = 0.0
        self._tries = 0

    def check(self) -> None:
        """Start a watchdog where none is at work; costs a clock's reading, and once a second some 20 µs."""
        now = time.monotonic()
        if not self._command or now < self._next:
            return
        self._next = now + _PERIOD
        self._reap()
        if self._at_work(now):
            self._tries = 0
        elif self.pid is None and now >= self._try_at:
            self._try_at = now + min(2.0**self._tries, _BACKOFF_MOST)
            self._tries = min(self._tries + 1, 10)
            self._spawn(now)
        elif self.pid is not None and now - self._spawned_at > _HUNG:
            self._signal(signal.SIGKILL)  # it hangs itself; the next look starts another

    def _at_work(self, now: float) -> bool:
        """Tell whether the page has a fresh beat of a watchdog."""
        try:
            fd = os.open(self._page, _READ)
        except OSError:
            return False
        try:
            words = os.pread(fd, 16, at.OFF_AGENT_WATCHDOG_PID)
        except OSError:
            return False
        finally:
            os.close(fd)
        pid, beat_ns = int.from_bytes(words[:8], "little"), int.from_bytes(words[8:], "little")
        return 1 < pid < 1 << 31 and 0.0 <= now - beat_ns / 1e9 < _STALE and is_alive(pid, 0)

    def _spawn(self, now: float) -> None:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        ]
        usual = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        try:
            try:
                self.pid = os.posix_spawn(
                    self._command[0], self._command, environment(), file_actions=actions, setsid=True, setsigdef=usual
                )
            except NotImplementedError:  # a C library without sessions for it
                self.pid = os.posix_spawn(
                    self._command[0], self._command, environment(), file_actions=actions, setsigdef=usual
                )
        except OSError as error:
            self._complain(f"{self._command[0]} can not be started ({error.strerror}); the agent has no watchdog")
            return
        self._spawned_at = now

    @staticmethod
    def _complain(what: str) -> None:
        from otel_trading.faults import report

        report("watchdog", what)

    def _reap(self) -> bool:
        """Tell whether our child is no more."""
        if self.pid is None:
            return True
        try:
            ended, _ = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has waited for it
            ended = self.pid
        if ended:
            self.pid = None
        return bool(ended)

    def _signal(self, number: int) -> None:
        """Send a signal to our child; as it was not waited for yet, its pid is still its own."""
        if self.pid is not None:
            try:
                os.kill(self.pid, number)
            except OSError:
                return

    def close(self) -> None:
        """End the watchdog that was started here; one that has started us sees by itself that we end.

        Waits for it, 2 s at most.
        """
        self._command = []
        if self._reap():
            return
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE
        while not self._reap():
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
                deadline += _PATIENCE
            time.sleep(0.01)
