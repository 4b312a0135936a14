"""One way out with its own queue and thread: tried again when it fails, never in anybody's way."""

from __future__ import annotations

import time
from collections import deque

from otel_trading import faults
from otel_trading._real_threads import real_threading
from otel_trading._suppression import suppress_instrumentation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Thread
    from typing import Protocol

    from otel_trading.alerts.alert import Alert

    class Way(Protocol):
        """What an alert can be sent by."""

        label: str
        """What it is called in faults; no address, which may hold a secret."""

        def send(self, alert: Alert) -> None:
            """Send it, in bounded time.  Raises Refused where no other attempt would do, anything where one may."""


threading = real_threading()

_MOST_WAITING = 256
_WAITS = (1.0, 2.0, 4.0, 8.0, 60.0)  # seconds before each further attempt


class Refused(Exception):  # noqa: N818  it is what happened
    """The receiver does not want this alert: another attempt would not do."""


class Later(Exception):  # noqa: N818  it is what is asked for
    """The receiver asks for another attempt, after so many seconds."""

    def __init__(self, seconds: float) -> None:
        """Take the seconds."""
        super().__init__(seconds)
        self.seconds = seconds


class Lane:
    """Sends alerts by one way, in their order, from a daemon thread that starts with the first."""

    def __init__(self, way: Way, waits: tuple[float, ...] = _WAITS) -> None:
        """Take the way; nothing runs yet."""
        self.way = way
        self.sent = self.given_up = 0
        self._waits = waits
        self._waiting: deque[Alert] = deque()
        self._condition = threading.Condition()
        self._thread: Thread | None = None
        self._busy = False
        self._ending = False

    def put(self, alert: Alert) -> None:
        """Take an alert; returns at once.  Where too many wait, the oldest is given up."""
        with self._condition:
            if self._ending:
                return
            if len(self._waiting) >= _MOST_WAITING:
                self._waiting.popleft()
                self._give_up("too many alerts wait for it")
            self._waiting.append(alert)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="otel-trading-alerts", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def flush(self, deadline: float) -> bool:
        """Wait until nothing waits, or ``deadline`` (monotonic); whether nothing does."""
        with self._condition:
            self._condition.wait_for(
                lambda: not self._waiting and not self._busy, max(0.0, deadline - time.monotonic())
            )
            return not self._waiting and not self._busy

    def end(self) -> None:
        """Have the thread end: what it is at is finished, further attempts are not made."""
        with self._condition:
            self._ending = True
            self._condition.notify_all()

    def _give_up(self, why: str) -> None:
        self.given_up += 1
        faults.report(f"alerts.{self.way.label}", f"an alert did not get out by {self.way.label}: {why}")

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                alert = self._waiting.popleft()
                self._busy = True
            suppress_instrumentation()
            self._deliver(alert)
            with self._condition:
                self._busy = False
                self._condition.notify_all()

    def _deliver(self, alert: Alert) -> None:
        why = ""
        for wait in (*self._waits, None):
            pause = wait
            try:
                self.way.send(alert)
            except Refused as refused:
                self._give_up(str(refused))
                return
            except Later as later:
                why, pause = "it asks to be left alone for now", wait and min(later.seconds, max(self._waits))
            except Exception as error:  # noqa: BLE001  whatever it is, the next attempt may do
                why = type(error).__name__  # its text may have the address in it
            else:
                self.sent += 1
                return
            if pause is None or self._ends_within(pause):
                break
        self._give_up(f"the last attempt: {why}")

    def _ends_within(self, seconds: float) -> bool:
        with self._condition:
            return bool(self._condition.wait_for(lambda: self._ending, seconds))
