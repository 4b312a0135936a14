"""Who drains this process's segment: it itself, with exports and governor of its own, or an agent."""

from __future__ import annotations

import os
import sys
from _thread import RLock
from time import monotonic

from otel_trading._added_memory import private_bytes
from otel_trading._backend import core
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from otel_trading.agent.parked import Parked
    from otel_trading.budget.governing import Governing
    from otel_trading.config import Settings
    from otel_trading.drain.exports import Exports

_HANDOVER = 2.0  # seconds that the exports may take when the drain changes hands
_TAKE_BACK = 10.0  # seconds that an agent may take to let go, once it has said that it does
_STEP = 0.1


class Draining:
    """The drain of one segment after the other, each from ``begin`` to ``end``."""

    def __init__(self) -> None:
        """Begin with none."""
        self.exports: Exports | None = None
        self.governing: Governing | None = None
        self.here = True
        """Whether this process drains, and not an agent."""
        self._settings: Settings | None = None
        self._path: str | None = None
        self._role = -1
        self._parked: Parked | None = None
        self._abandoned: list[object] = []
        self._ending = False
        self._lock = _real_lock()

    # ---- beginning ----

    def begin(self, path: str, settings: Settings, governing: Governing | None) -> None:
        """Drain the segment that has been opened, or leave that to an agent, as the settings say."""
        self._path, self._settings, self.governing = path, settings, governing
        self._ending = False
        self.here = settings.host != "agent"
        if not self.here:
            from otel_trading.agent import hosted

            quietly("agent", hosted.leave, path)
            return
        quietly("host", self._claim)
        quietly("drain", core.drain_start, max(1, round(settings.drain_period * 1000)))
        if governing is not None:
            quietly("budget", governing.start, path)
        quietly("host", self._park)

    def _claim(self, patience: float = 0.0) -> bool:
        from otel_trading.segment import role

        if self._path is None:
            return False
        found = role.claim(self._path, patience)
        self._role = -1 if found is None else found
        return found is not None

    def _park(self) -> None:
        from otel_trading.agent.parked import Parked
        from otel_trading.segment import role

        if self._path is not None:
            role.note_embedded(self._path)
        self._parked = Parked(self)
        self._parked.start()

    def start_exports(self) -> None:
        """Start the ways out that are configured, where this process drains.  Raises ConfigurationError."""
        settings = self._settings
        if settings is None or not self.here:
            return
        if not settings.export_traces and not settings.export_metrics and settings.metrics_port is None:
            return
        from otel_trading import segment
        from otel_trading.drain import exports

        before = private_bytes()
        try:
            self.exports = exports.start(settings, segment.resource_json(settings.service, settings.resource))
            if self.governing is not None and self._path is not None:
                quietly("budget", self.governing.note_exporters, self._path, private_bytes() - before)
        except OtelTradingError:
            raise
        except Exception as error:  # noqa: BLE001  an exporter of anyone's may fail in any way
            report("exports", f"nothing is exported: {error!r}. Recording goes on.")

    # ---- another one drains, and this one again; in the thread that waits to be asked ----

    def hand_over(self) -> None:
        """Export what is in the queue, and leave the drain to an agent."""
        with self._lock:
            settings = self._settings
            if self._ending or not self.here or settings is None:
                return
            deadline = monotonic() + min(_HANDOVER, settings.shutdown_timeout)
            exports, self.exports = self.exports, None
            if self.governing is not None:
                quietly("host", self.governing.stop, deadline)
            if exports is not None:
                quietly("host", exports.stop, deadline, True)
            quietly("host", core.drain_give)
            self.here = False
            self._release()

    def take_back(self) -> None:
        """Drain again, as soon as the agent has let go."""
        deadline = monotonic() + _TAKE_BACK
        while not self._claim_again():
            if self._parked is None or self._parked.stopping or monotonic() > deadline:
                return
        with self._lock:
            if self._ending or self.here or self._settings is None or self._path is None:
                self._release()
                return
            core.drain_take()
            self.here = True
            # The exports come first: what is drained while nothing is kept would count as sampled out.
            quietly("host", self.start_exports)
            quietly("host", core.drain_start, max(1, round(self._settings.drain_period * 1000)))
            if self.governing is not None:
                quietly("host", self.governing.start, self._path)

    def _claim_again(self) -> bool:
        return self.here or self._role >= 0 or self._claim(_STEP)

    def _release(self) -> None:
        role, self._role = self._role, -1
        if role >= 0:
            os.close(role)

    # ---- a forked child ----

    def forget(self) -> None:
        """Forget, in the child, what is the parent's."""
        self._lock = _real_lock()
        self._release()  # our copy: the parent has its own, and so the role
        self._parked = None
        if self.governing is not None:
            self.governing.forget()
            self.governing = None  # its threads are the parent's
        if self.exports is not None:
            # Its threads are gone and its connections are the parent's: no destructor of theirs may run here.
            self._abandoned.append(self.exports)
            self.exports = None
        self._path = None  # the parent's, never to be removed here

    # ---- the end ----

    def end(self, reason: str, *, error: bool, deadline: float, last: Callable[[], object]) -> None:
        """Write what is open, have it exported, and close the segment; ``last`` is called right before that."""
        self._ending = True
        parked, self._parked = self._parked, None
        if parked is not None:
            quietly("end", parked.stop, min(deadline, monotonic() + _HANDOVER))
        exports, self.exports = self.exports, None
        governing, self.governing = self.governing, None
        path, self._path = self._path, None
        orders = 0
        if self.here:
            if governing is not None:  # first: what it still has to tell is to be exported too
                quietly("end", governing.stop, deadline)
            quietly("end", core.interrupt_open, reason, error)
            quietly("end", core.drain, True)
            if exports is not None:
                quietly("end", exports.flush, deadline)
                quietly("end", exports.stop, deadline)
            quietly("end", core.drain_stop, max(0.0, deadline - monotonic()))
            orders = quietly("end", core.orders_open)
        else:
            quietly("end", core.interrupt_open, reason, error)
        quietly("end", last)
        crashed = self.here and path is not None and bool(quietly("end", self._has_crashed, path))
        quietly("end", core.close)
        if path is not None:
            if crashed:
                quietly("end", _leave_to_forensics, path)
            elif self.here:
                quietly("end", _put_away, path, bool(orders))
            else:
                from otel_trading.agent import hosted

                quietly("end", hosted.put_away, path)
            if governing is not None:
                quietly("end", governing.put_away, path)
        self._release()

    def _has_crashed(self, path: str) -> bool:
        settings = self._settings
        if settings is None or not settings.values["forensics.enabled"]:
            return False
        from otel_trading.segment import remains

        return remains.has_crashed(path)

    # ---- what has been recorded so far ----

    def flush(self, deadline: float) -> bool:
        """Have what was recorded before the call exported; False where ``deadline`` came first."""
        if self.here:
            core.drain(True)
            exports = self.exports
            return exports is None or bool(quietly("flush", exports.flush, deadline))
        from otel_trading.agent import hosted

        return self._path is None or bool(quietly("flush", hosted.flush, self._path, deadline))

    def stats(self) -> dict[str, dict[str, int]]:
        """Give what ``totals.stats`` does."""
        if self.here or self._path is None:
            from otel_trading.drain import summary

            return summary.stats(core.snapshot())
        from otel_trading.agent import hosted

        return hosted.stats(self._path)


def _real_lock() -> RLock:
    """Make a lock of the system's: one of gevent's must not be held by a thread of ours."""
    if "gevent.monkey" in sys.modules or "eventlet.patcher" in sys.modules:
        from otel_trading._real_threads import real_threading

        made: RLock = real_threading().RLock()
        return made
    return RLock()


def quietly(what: str, step: Callable[..., Any], *arguments: object) -> Any:
    """Do a step of the life cycle that may fail without taking the others with it."""
    try:
        return step(*arguments)
    except Exception as error:  # noqa: BLE001  nothing of ours may reach the application
        report(f"lifecycle:{what}", f"{what}: {error!r}")
        return None


def _put_away(path: str, keep: bool) -> None:  # noqa: FBT001
    """Remove our segment; or ``keep`` its order table, for the acks and fills that come after a restart."""
    from otel_trading import segment

    if keep:
        segment.release(path)
    else:
        unlink(path)


def _leave_to_forensics(path: str) -> None:
    """Leave our segment as one of a process that died: all in it is exported, and its end still to be looked into."""
    from otel_trading.segment import remains

    remains.mark_died(path)
    remains.trim(path)


def unlink(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except OSError:  # somebody has tidied up before us
        return
