"""Waiting for what another thread brings about: without polling, nor a lock that a signal's handler could meet."""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST = 86_400.0  # seconds; locks do not take infinity


class _Waiter:
    """One wait that is going on."""

    __slots__ = ("lock", "ready")

    def __init__(self, ready: Callable[[], bool]) -> None:
        self.ready = ready
        self.lock = allocate_lock()
        self.lock.acquire()

    def wake(self) -> None:
        try:
            self.lock.release()
        except RuntimeError:  # somebody else has done so
            return


class Waits:
    """The waits of a process."""

    def __init__(self) -> None:
        self._waiters: list[_Waiter] = []
        self.ended = 0

    def wait(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``ready`` says so; False after ``timeout`` seconds, and where ``end`` was called meanwhile."""
        deadline = monotonic() + min(timeout, _LONGEST)
        ended = self.ended
        waiter = _Waiter(ready)
        self._waiters.append(waiter)
        try:
            while not ready():  # after it is in the list: what comes later tells it
                left = deadline - monotonic()
                if not left > 0 or self.ended != ended:  # not a number: none
                    return False
                waiter.lock.acquire(timeout=left)
            return True
        finally:
            try:
                self._waiters.remove(waiter)
            except ValueError:  # a forked child
                pass

    def notify(self) -> None:
        """Wake those whose condition holds now."""
        for waiter in list(self._waiters):
            if waiter.ready():
                waiter.wake()

    def end(self) -> None:
        """End the waits that are going on."""
        self.ended += 1
        for waiter in list(self._waiters):
            waiter.wake()

    def forked(self) -> None:
        """Forget, in a child, who waits in the parent."""
        self._waiters = []


waits = Waits()
