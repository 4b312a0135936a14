"""The agent itself: a loop that watches a directory, and has each segment in it drained by a process of its own.

It is light and stays so: no exporter, no SDK, no thread (it forks).
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time

from otel_trading import _layout as at
from otel_trading.agent import answers, files, notify
from otel_trading.agent.children import Errands
from otel_trading.agent.directory import Directory
from otel_trading.agent.door import Door
from otel_trading.agent.watched import Watched
from otel_trading.agent.web import Web
from otel_trading.budget.modes import name_of
from otel_trading.errors import OtelTradingError, SegmentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading.agent.watchdog_start import Attendant
    from otel_trading.config import Settings
    from otel_trading.segment import FoundSegment

PERIOD = 0.5
"""Seconds between two looks at the directory …"""
_PERIOD_EMERGENCY = 1.0  # … where a program is in EMERGENCY …
_PERIOD_BLIND = 0.25  # … and where the kernel does not tell of new files
_SOON = 0.02  # seconds between two looks where there is something new
_PATIENCE = 3.0  # seconds that the agent before us may take to end
_PROMETHEUS = "prometheus"
_FIRST_IDLE = 15.0  # seconds, at least, for the first program to come: it may take a while to start
_MOST_DEATHS = 20  # that are remembered for status


class Supervisor:
    """The agent of a directory, from ``run``'s beginning to its end."""

    def __init__(
        self, where: str, settings: Settings, *, idle: float | None = None, once: bool = False, quiet: bool = False
    ) -> None:
        """``idle``: end so many seconds after the last segment.  ``once``: look into the dead ones, and end."""
        self.where = where
        self.settings = settings
        self.once = once
        self.segments: dict[str, Watched] = {}
        self.deaths: list[dict[str, object]] = []
        self.died = self.restarts = 0
        self.began_ns = time.time_ns()
        self.stopping = False
        self._quiet = quiet
        self._idle = idle
        self._busy_at = time.monotonic() + (max(0.0, _FIRST_IDLE - idle) if idle is not None else 0.0)
        self._selector = selectors.DefaultSelector()
        self._errands = Errands()
        self._page: files.Page | None = None
        self._door: Door | None = None
        self._web: Web | None = None
        self._watchdog: Attendant | None = None
        self._wakeup: tuple[int, int] | None = None
        self._changed = False  # the directory, since it was looked at

    # ---- what segments and servers need ----

    def listen(self, fd: int, called: Callable[[], object], write: bool = False) -> None:  # noqa: FBT001, FBT002
        """Have ``called`` called when there is something to read, or room to write."""
        events = selectors.EVENT_WRITE if write else selectors.EVENT_READ
        try:
            self._selector.register(fd, events, called)
        except KeyError:
            self._selector.modify(fd, events, called)

    def unlisten(self, fd: int) -> None:
        """No longer."""
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            return

    def say(self, text: str) -> None:
        """Write a line to standard error, which is the agent's log."""
        if self._quiet:
            return
        try:
            sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} otel-trading agent: {text}\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # nobody listens
            return

    def alert(self, name: str, severity: str, summary: str, labels: dict[str, str]) -> None:
        """Raise an alert, in a process of its own: there is a thread in it."""
        self.say(summary)
        settings = self.settings

        def raised() -> None:
            from otel_trading import alerts

            alerts.configure(settings)
            alerts.raise_alert(alerts.Alert(name, severity, summary, labels))
            alerts.close(15.0)

        self._errands.run(raised)

    # ---- beginning ----

    def run(self) -> int:
        """Be the agent until told to end; gives the exit code.

        Raises AgentRunsError where the directory has one, and SegmentError or OtelTradingError where it can not begin.
        """
        lock = files.lock(self.where, _PATIENCE if not self.once else 0.0, files.ONCE if self.once else files.LOCK)
        if lock is None:
            raise AgentRunsError(f"{self.where} has an agent already; see: otel-trading agent --status")
        directory = Directory(self.where)
        try:
            self._hook_signals()
            if not self.once:
                self._begin()
            self._loop(directory)
            self._end()
        finally:
            directory.close()
            self._selector.close()
            os.close(lock)
        return 0

    def _begin(self) -> None:
        self._page = files.Page(self.where)
        notify.forget_environment()
        self._door = Door(self.where, lambda request, reply: answers.answer(self, request, reply), self.listen,
                          self.unlisten)  # fmt: skip
        port = self.settings.metrics_port
        if port is not None or _PROMETHEUS in self.settings.export_metrics:
            self._serve_metrics(port)
        from otel_trading.agent.watchdog_start import Attendant

        self._watchdog = Attendant(self.where, self.settings)

    def _serve_metrics(self, port: int | None) -> None:
        host = self.settings.metrics_host
        if port is None:
            host = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "").strip() or "localhost"
            text = os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "").strip() or "9464"
            port = int(text) if text.isdecimal() else 9464
        try:
            self._web = Web(host, port, lambda reply: answers.metrics(self, reply), self.listen, self.unlisten)
        except OtelTradingError as error:
            self.say(str(error))
        else:
            self.say(f"metrics are served at {self._web.url}")

    @property
    def metrics_url(self) -> str | None:
        """Where ``/metrics`` is served; None where it is not."""
        return None if self._web is None else self._web.url

    def _hook_signals(self) -> None:
        reading, writing = self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._told_to_stop)
        signal.signal(signal.SIGIO, self._told_of_change)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

        def woken() -> None:
            os.read(reading, 4096)

        self.listen(reading, woken)

    def _told_to_stop(self, *_: object) -> None:
        self.stopping = True

    def _told_of_change(self, *_: object) -> None:
        self._changed = True

    # ---- the loop ----

    def _loop(self, directory: Directory) -> None:
        period = self._period(told=directory.tell_changes())
        last, ready = 0.0, False
        while not self.stopping:
            now = time.monotonic()
            due = self._due(directory, last, period)
            for key, _ in self._selector.select(max(0.0, due - now)):
                key.data()
            now = time.monotonic()
            if now < due:
                continue
            last, self._changed = now, False
            self._turn(directory, now)
            if not ready and not self.once:
                ready = True
                self.say(f"drains the segments in {self.where}, pid {os.getpid()}")
                notify.ready()
            if directory.gone:
                self.say(f"{self.where} was removed")
                return

    def _period(self, *, told: bool) -> float:
        """Give the seconds between two looks: as many as those who wait for our heartbeat bear."""
        late = self.settings.values["watchdog.late"]
        assert isinstance(late, float)  # noqa: S101  the configuration's type
        return min(PERIOD if told else _PERIOD_BLIND, late / 3.0, notify.period() or PERIOD)

    def _due(self, directory: Directory, last: float, period: float) -> float:
        """Give when the next look is due."""
        if self._changed or directory.expects:
            return last + _SOON
        wanted = [last + (max(period, _PERIOD_EMERGENCY) if self.mode == at.MODE_EMERGENCY else period)]
        wanted += [segment.due for segment in self.segments.values() if segment.due > last]
        return min(wanted)

    def _turn(self, directory: Directory, now: float) -> None:
        for found in directory.look():
            self._add(found)
        for path, segment in list(self.segments.items()):
            segment.tick(now)
            if segment.done:
                self._remove(path, segment)
        self._errands.look(now)
        if self._door is not None:
            self._door.expire(now)
        if self._web is not None:
            self._web.expire(now)
        self._beat(at.AGENT_RUNNING)
        if self._watchdog is not None:
            self._watchdog.check()
        if any(not (one.aside and one.ended) for one in self.segments.values()):
            self._busy_at = now
        elif self.once or (self._idle is not None and now - self._busy_at >= self._idle):
            self.stopping = True

    def _add(self, found: FoundSegment) -> None:
        if self.once and found.alive:
            return
        try:
            self.segments[found.path] = Watched(found, self)
        except (SegmentError, OSError):  # gone, or damaged
            return

    def _remove(self, path: str, segment: Watched) -> None:
        del self.segments[path]
        segment.close()
        self.restarts += segment.restarts
        if segment.death is not None:
            self.died += 1
            self.deaths = [*self.deaths[1 - _MOST_DEATHS :], {"pid": segment.found.pid, **segment.death}]

    @property
    def mode(self) -> int:
        """The strictest of the modes of the segments that we drain, OT_MODE_*."""
        return max((one.mode for one in self.segments.values() if one.child is not None), default=at.MODE_NORMAL)

    def _beat(self, state: int) -> None:
        if self._page is not None:
            self._page.segments = sum(one.child is not None for one in self.segments.values())
            self._page.mode = self.mode
            self._page.beat(state)
            count = self._page.segments
            notify.status(f"drains {count} segment{'s' * (count != 1)}, {name_of(self._page.mode)}")
            notify.beat()

    # ---- the end ----

    def stop(self) -> None:
        """End in an orderly way, as after SIGTERM."""
        self.stopping = True

    def _end(self) -> None:
        """Have all drain hosts export what they have and leave, in bounded time."""
        self._beat(at.AGENT_STOPPING)
        if self._page is not None:
            notify.stopping()
        seconds = self.settings.shutdown_timeout
        deadline = time.monotonic() + seconds + 1.0
        for segment in self.segments.values():
            segment.leave(seconds)
        while any(one.child is not None for one in self.segments.values()) and time.monotonic() < deadline:
            for key, _ in self._selector.select(PERIOD):
                key.data()
            self._beat(at.AGENT_STOPPING)
        for segment in self.segments.values():
            if segment.child is not None:
                segment.child.kill()
                segment.child.wait()
            segment.close()
        for part in (self._door, self._web):
            if part is not None:
                part.close()
        if self._page is not None:
            self._page.segments = 0
            self._page.beat(at.AGENT_STOPPED)
        if self._watchdog is not None:
            self._watchdog.close()
        if self._page is not None:
            self._page.close()
            self.say("has ended")


class AgentRunsError(OtelTradingError):
    """The directory has an agent already."""
