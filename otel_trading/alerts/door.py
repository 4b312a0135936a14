"""The one door for alerts: never blocks, never raises."""

from __future__ import annotations

import os
import time

from otel_trading import faults
from otel_trading._real_threads import real_threading
from otel_trading.alerts.admission import Admission
from otel_trading.alerts.lane import Lane
from otel_trading.alerts.ways import Log, configured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.alerts.alert import Alert
    from otel_trading.config import Settings


threading = real_threading()


class _Door:
    def __init__(self, settings: Settings | None) -> None:
        if settings is None:
            self.lanes = [Lane(Log())]
            self.admission = Admission("info", 300.0, 30.0)
        else:
            values = settings.values
            self.lanes = [Lane(way) for way in configured(settings)]
            severity, repeat, rate = (str(values[f"alerts.{name}"]) for name in ("severity", "repeat", "rate"))
            self.admission = Admission(severity, float(repeat), float(rate))
        self.settings = settings
        self.lock = threading.Lock()


_door: _Door | None = None
_making = threading.Lock()


def configure(settings: Settings) -> None:
    """Take the ways out from the configuration; without this it is that of ``otel_trading.configure``."""
    global _door  # noqa: PLW0603  there is one door a process
    with _making:
        if _door is None or _door.settings is not settings:
            _door = _Door(settings)


def _there() -> _Door:
    global _door  # noqa: PLW0603  as above
    door = _door
    if door is not None:
        return door
    with _making:
        if _door is None:
            from otel_trading.lifecycle import settings

            _door = _Door(settings())
        return _door


def raise_alert(alert: Alert, *, logged: bool = False) -> None:
    """Hand an alert in; returns at once.  ``logged``: it is in the log already."""
    try:
        door = _there()
        with door.lock:
            wanted = door.admission.admit(alert, time.monotonic())
        if wanted:
            for lane in door.lanes:
                if not (logged and isinstance(lane.way, Log)):
                    lane.put(alert)
    except Exception as error:  # noqa: BLE001  whoever raises an alert has trouble enough
        faults.report("alerts", f"the alert {alert.name} was not taken: {error!r}")


def flush(timeout: float) -> bool:
    """Wait until what was handed in is out, or given up; False after ``timeout`` seconds."""
    door = _door
    deadline = time.monotonic() + timeout
    through = [lane.flush(deadline) for lane in door.lanes] if door is not None else []  # each has its chance
    return all(through)


def outcomes() -> dict[str, tuple[int, int]]:
    """Give how many alerts each way out has sent, and given up, by its label."""
    door = _door
    return {} if door is None else {lane.way.label: (lane.sent, lane.given_up) for lane in door.lanes}


def close(timeout: float) -> None:
    """Send what is waiting, in bounded time, and end the door's threads; a later alert opens it anew."""
    global _door
    flush(timeout)
    with _making:
        door, _door = _door, None
    for lane in door.lanes if door is not None else ():
        lane.end()


def _forked() -> None:
    global _door, _making  # noqa: PLW0603  as above
    _door = None  # its threads and what waits in it are the parent's
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forked)
