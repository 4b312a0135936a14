"""The drain host: the process, a child of the agent, in which one segment of another process is drained.

It takes the drain's role, adopts the segment, and runs on it what an embedded process runs on its own: the drain, the
governor, the exports.  What it is to do comes over a socket of the agent's, and what it has to tell goes there.
"""

from __future__ import annotations

import copy
import os
import select
import signal
import sys
import threading
import time

from otel_trading import _layout as at
from otel_trading._added_memory import private_bytes
from otel_trading._backend import core
from otel_trading.agent.lines import GoneError, Lines
from otel_trading.draining import quietly
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Any

    from otel_trading.agent.governed import Governed
    from otel_trading.config import Settings
    from otel_trading.drain.exports import Exports

DONE, FAILED, BUSY = 0, 1, 75
"""Exit codes; BUSY: somebody else has the role."""

MOST_IN = 65_536
MOST_OUT = 32 << 20
"""Bytes: an exposition of thousands of series is some MB."""

_LONGEST_ALERT = 5.0  # seconds that the end waits until the last alerts are out …
_SHORTEST_ALERT = 0.5  # … and where the time for the rest is over
_PATIENCE = 0.5  # seconds that the role is waited for
_TICK = 1.0  # seconds between two looks at the budget's decisions
_PROMETHEUS = "prometheus"
_AFTER_DEATH = 0.8  # seconds until the last spans of a dead process are to be out: before its report is made


class DrainHost:
    """Drains one segment, from ``begin`` to ``end``."""

    def __init__(self, lines: Lines, path: str, settings: Settings, *, lean: bool) -> None:
        """``lean``: without exporters; what triggers keep waits in the queue."""
        self._lines = lines
        self._path = path
        self._asked = settings
        self._settings = _own(settings, lean=lean)
        self._lean = lean
        self._resource = "{}"
        self._role = -1
        self._exports: Exports | None = None
        self._governed: Governed | None = None
        self._metrics: Callable[[], str] | None = None
        self._sending = threading.Lock()
        self._leaving = False

    # ---- beginning ----

    def begin(self) -> bool:
        """Take the role and the segment; False where somebody else has it.

        Raises OtelTradingError, OSError or ValueError where the segment can not be adopted.
        """
        from otel_trading import lifecycle
        from otel_trading.segment import role
        from otel_trading.segment.files import open_segment

        before = private_bytes()
        if not self._lean:
            self._load_exporters()  # which takes a while, and before the role is ours nobody waits for us
        taken = role.claim(self._path, _PATIENCE)
        if taken is None:
            return False
        self._role = taken
        fd = open_segment(self._path, os.O_RDWR)
        try:
            core.adopt(fd)
            self._resource = _resource(fd)
        finally:
            os.close(fd)
        lifecycle.adopted(self._path)
        self._governed = quietly("budget", _govern, self._path, self._settings)
        # The exports come first: what is drained while nothing is kept would count as sampled out.
        self._start_exports()
        if self._governed is not None:
            quietly("budget", self._governed.note_exporters, private_bytes() - before if self._exports else 0)
        core.drain_start(max(1, round(self._settings.drain_period * 1000)))
        if self._governed is not None:
            quietly("budget", self._governed.start)
        return True

    def _load_exporters(self) -> None:
        from otel_trading.run import defaults

        quietly("defaults", defaults.put, self._settings)
        # What the agent was told may have named no exporter, and an installed one is the default.
        self._settings = _own(_resolved(self._settings), lean=False)
        if self._settings.export_traces or self._settings.export_metrics:
            from otel_trading.drain import exports, metric_export, span_export  # noqa: F401  loaded for later

    def _start_exports(self) -> None:
        if self._lean:
            core.keep(self._settings.export_queue, self._settings.export_queue_bytes)
            return
        if not self._settings.export_traces and not self._settings.export_metrics:
            return
        from otel_trading.drain import exports

        try:
            self._exports = exports.start(self._settings, self._resource)
        except Exception as error:  # noqa: BLE001  an exporter of anyone's may fail in any way
            report("exports", f"nothing is exported: {error}")

    # ---- until it is told to leave ----

    def serve(self) -> None:
        """Do what the agent says, until it says that this is all, or is gone."""
        self._tell({"is": "running", "pid": os.getpid(), "lean": self._lean})
        poll = select.poll()
        poll.register(self._lines.fileno(), select.POLLIN)
        due = time.monotonic() + _TICK
        while not self._leaving:
            poll.poll(max(0.0, due - time.monotonic()) * 1000)
            if time.monotonic() >= due:
                due = time.monotonic() + _TICK
                if self._governed is not None:
                    quietly("decisions", self._governed.tell)
            with self._sending:
                self._lines.flush()
            for message in self._lines.read():
                self._do(message)

    def _do(self, message: Mapping[str, Any]) -> None:
        what = message.get("do")
        if what == "flush":
            # In a thread: a receiver that is down must not keep us from being told to leave.
            threading.Thread(target=self._flush_asked, args=(message,), daemon=True).start()
        elif what == "go":
            self._leave(_seconds(message), back=bool(message.get("back")))
        elif what == "dead":
            self._bury(message)
        elif what in {"metrics", "stats"}:
            self._answer(message, quietly(what, self._exposition if what == "metrics" else _stats))

    def _answer(self, message: Mapping[str, Any], answer: object) -> None:
        self._tell({"id": message.get("id"), "answer": answer})

    def _tell(self, message: Mapping[str, Any]) -> None:
        with self._sending:
            self._lines.send(message)

    def _flush_asked(self, message: Mapping[str, Any]) -> None:
        try:
            self._answer(message, self._flush(_seconds(message)))
        except GoneError:
            return

    def _flush(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        quietly("flush", core.drain, True)
        return self._exports is None or bool(quietly("flush", self._exports.flush, deadline))

    def _exposition(self) -> str:
        if self._metrics is None:
            from otel_trading.agent.expose import exposition_of

            self._metrics = exposition_of(self._path)
        return self._metrics()

    # ---- the end ----

    def _stop(self, seconds: float) -> None:
        """Send what waits, and end the exports; what they do not take in that time is left to the next drain."""
        deadline = time.monotonic() + seconds
        if self._governed is not None:
            quietly("end", self._governed.stop)
        exports, self._exports = self._exports, None
        if exports is not None:
            quietly("end", exports.stop, deadline, True)
        quietly("end", core.drain_stop, max(0.1, deadline - time.monotonic()))

    def _leave(self, seconds: float, *, back: bool) -> None:
        """Let the segment go; ``back``: its process is to drain it again."""
        deadline = time.monotonic() + seconds
        self._stop(seconds)
        quietly("end", core.let_go)
        self._release()
        if back:
            quietly("end", give_back, self._path)
        self._leaving = True
        self._tell({"is": "left"})
        _send_alerts(deadline)

    def _bury(self, message: Mapping[str, Any]) -> None:
        """Export what a process that has ended has left, tell how it died where it did, and put its segment away."""
        seconds = _seconds(message)
        deadline = time.monotonic() + seconds
        if self._lean:  # another host for it would take as long to load the same, and to begin as well
            self._lean = False
            self._settings = _own(self._asked, lean=False)
            self._load_exporters()
            self._start_exports()
            if self._exports is None:
                quietly("end", core.keep, 0)  # as with any host that has no exporter
        death = quietly("death", self._record_death, message)
        # What can not be sent now is tried again later; the report does not wait for it.
        self._flush(min(seconds, _AFTER_DEATH) if death is not None else seconds)
        told: dict[str, Any] = {"is": "buried"}
        if death is not None:
            told["death"] = quietly("death", _kept, death, self._settings)
        settled = bool(quietly("end", is_settled, self._path))
        if not settled and (rest := deadline - time.monotonic()) > 0.0:
            self._flush(rest)
        self._stop(max(0.5, deadline - time.monotonic()))
        from otel_trading.segment import remains

        settled = bool(quietly("end", is_settled, self._path))
        quietly("end", core.close if settled and not core.adopted() else core.let_go)
        if settled:
            quietly("end", remains.mark_closed, self._path)
            quietly("end", remains.put_away, self._path)
        else:  # what it has told of its end is told, the rest is for an agent, whoever drained it before
            quietly("end", ask, self._path, at.HOST_AGENT)
            quietly("end", remains.mark_closed, self._path)
        self._release()
        self._leaving = True
        self._tell({**told, "settled": settled})
        _send_alerts(deadline)

    def _record_death(self, message: Mapping[str, Any]) -> Any:
        """Give what forensics makes of the end; None for an orderly one, and where forensics is switched off."""
        if message.get("end") is None or not self._settings.values["forensics.enabled"]:
            core.inherit()
            core.interrupt_open("the process has ended", True)
            return None
        from otel_trading import alerts
        from otel_trading.agent import death
        from otel_trading.forensics.how_it_ended import Before, End

        quietly("alerts", alerts.configure, self._settings)
        before = message.get("before")
        found = death.record(
            self._path,
            End.unpack(message["end"]),
            before=None if before is None else Before.unpack(before),
            recorded=message.get("recorded") is True,
        )
        # Whoever comes after us, should we not come through, finds the span in the segment.
        self._tell({"is": "recorded"})
        return None if found.orderly else found

    def _release(self) -> None:
        role, self._role = self._role, -1
        if role >= 0:
            os.close(role)

    def abandon(self) -> None:
        """Leave after something went wrong, or the agent did: what was not settled is the next one's."""
        self._stop(0.5)
        quietly("end", core.let_go)
        self._release()


def _own(settings: Settings, *, lean: bool) -> Settings:
    """Give the settings for one segment: ``/metrics`` is the agent's affair."""
    own = copy.copy(settings)
    own.metrics_port = None
    own.export_metrics = () if lean else tuple(name for name in own.export_metrics if name != _PROMETHEUS)
    own.export_traces = () if lean else own.export_traces
    return own


def _resolved(settings: Settings) -> Settings:
    """Resolve the configuration again: the environment has its defaults now.  The directory stays."""
    from otel_trading import config

    try:
        found = config.resolve()
    except OtelTradingError:  # told already: the agent itself has started with it
        return settings
    found.directory = settings.directory
    return found


def _resource(fd: int) -> str:
    reader = core.Reader(fd)
    try:
        return str(reader.info()["resource"]) or "{}"
    finally:
        reader.close()


def _govern(path: str, settings: Settings) -> Governed:
    from otel_trading.agent.governed import Governed

    return Governed(path, settings)


def _stats() -> dict[str, dict[str, int]]:
    from otel_trading.drain import summary

    return summary.stats(core.snapshot())


def _kept(death: Any, settings: Settings) -> Any:
    from otel_trading import alerts

    try:
        return death.keep(settings)
    finally:
        alerts.close(_LONGEST_ALERT)


def _send_alerts(deadline: float) -> None:
    """Send what waits to be told, where there was an alert at all."""
    if "otel_trading.alerts" in sys.modules:
        from otel_trading import alerts

        alerts.close(min(max(_SHORTEST_ALERT, deadline - time.monotonic()), _LONGEST_ALERT))


def _seconds(message: Mapping[str, Any]) -> float:
    value = message.get("seconds")
    return max(0.0, min(float(value), 3_600.0)) if isinstance(value, (int, float)) else 1.0


def is_settled(path: str) -> bool:
    """Tell whether nothing of a segment is left to be drained.  Raises SegmentError."""
    from otel_trading.segment import attach

    reader = attach(path)
    try:
        return reader.settled()
    finally:
        reader.close()


def give_back(path: str) -> None:
    """Have the process drain its own segment again.  Raises SegmentError, ValueError and OSError."""
    ask(path, at.HOST_EMBEDDED)


def ask(path: str, host: int) -> None:
    """Say who is to drain a segment, OT_HOST_*.  Raises SegmentError, ValueError and OSError."""
    from otel_trading.segment.files import open_segment

    fd = open_segment(path, os.O_RDWR)
    try:
        core.ask_host(fd, host)
    finally:
        os.close(fd)


def run(connected: socket.socket, path: str, settings: Settings, *, lean: bool) -> int:
    """Drain the segment at ``path`` as the agent at the other end of ``connected`` says; gives the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's, which tells us
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # likewise, where all of a group are sent it
    import logging

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    lines = Lines(connected, MOST_IN, MOST_OUT)
    host = DrainHost(lines, path, settings, lean=lean)
    try:
        if not host.begin():
            return BUSY
        host.serve()
    except GoneError:  # the agent has ended without a word
        host.abandon()
    except Exception as error:  # noqa: BLE001  whatever it is, the agent tries again
        report("drain_host", f"{path} can not be drained: {type(error).__name__}: {error}")
        host.abandon()
        return FAILED
    return DONE
