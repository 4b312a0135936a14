"""systemd's notifications (sd_notify), spoken directly: one datagram each, nothing without ``NOTIFY_SOCKET``.

Nothing here raises or blocks: a service manager that does not listen is not the agent's trouble.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_MOST_STATUS = 500  # characters
_MOST_MICROSECONDS = 1 << 62


class Notifier:
    """The service manager that ``environment`` names, if it does."""

    def __init__(self, environment: os._Environ[str] | dict[str, str]) -> None:
        """Take the address of the socket (a path, or "@" and an abstract name), and how often a beat is wanted."""
        # Below the unit's main process it is not ours to tell: a bot's unit whose `run` started an agent, say.
        main = environment.get("SYSTEMD_EXEC_PID", "")
        mine = main in {"", str(os.getpid())}
        self._address = _address(environment.get("NOTIFY_SOCKET", "")) if mine else None
        self.period = _period(environment) if self._address else None
        self._socket: socket.socket | None = None
        self._next_beat = 0.0
        self._status = ""

    @property
    def wanted(self) -> bool:
        """Whether there is a service manager to tell."""
        return self._address is not None

    def send(self, *lines: str) -> bool:
        """Send assignments as ``READY=1``; False where there is nobody to take them."""
        if self._address is None:
            return False
        import socket

        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except (OSError, ValueError):
            return False
        return True

    def status(self, text: str) -> None:
        """Tell what is going on, where that has changed; one line."""
        line = " ".join(text.split())[:_MOST_STATUS]
        if line != self._status and self.send(f"STATUS={line}"):
            self._status = line

    def beat(self) -> None:
        """Tell that the loop goes on; at half of the time that the service manager waits at most, however often."""
        if self.period is None:
            return
        now = time.monotonic()
        if now >= self._next_beat and self.send("WATCHDOG=1"):
            self._next_beat = now + self.period

    def close(self) -> None:
        """Let the socket go."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _address(text: str) -> str | None:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if os.path.isabs(text) else None


def _period(environment: os._Environ[str] | dict[str, str]) -> float | None:
    """Seconds between two beats; None: none are wanted, or of another process."""
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
        meant = int(environment.get("WATCHDOG_PID", "0") or 0)
    except ValueError:
        return None
    if not 0 < microseconds < _MOST_MICROSECONDS or meant not in {0, os.getpid()}:
        return None
    return microseconds / 2e6


_own: Notifier | None = None


def _notifier() -> Notifier:
    global _own  # noqa: PLW0603  a process has one service manager
    if _own is None:
        _own = Notifier(os.environ)
    return _own


def wanted() -> bool:
    """Whether this process is run by a service manager that wants to be told."""
    return _notifier().wanted


def ready() -> None:
    """Tell that it is at work."""
    _notifier().send("READY=1")


def status(text: str) -> None:
    """Tell in a line what it does; only what has changed is sent."""
    _notifier().status(text)


def beat() -> None:
    """Tell that the loop goes on; costs a clock's reading where it is not time yet."""
    _notifier().beat()


def period() -> float | None:
    """Seconds between two beats, at most; None: none are wanted."""
    return _notifier().period


def stopping() -> None:
    """Tell that it is about to end."""
    _notifier().send("STOPPING=1")


def forget_environment() -> None:
    """Take the variables out of the environment, so that children do not notify; this process still does."""
    _notifier()
    for name in _VARIABLES:
        os.environ.pop(name, None)
