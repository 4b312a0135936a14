"""One segment, as the agent sees it: whether its process lives, who drains it, and what is to be done next."""

from __future__ import annotations

import os
import time

from otel_trading import _layout as at
from otel_trading.agent import drain_host
from otel_trading.agent.children import Child
from otel_trading.segment import role
from otel_trading.segment.files import open_segment, word
from otel_trading.segment.pages import locate
from otel_trading.segment.process import is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from otel_trading.config import Settings
    from otel_trading.segment import FoundSegment

    class Agent(Protocol):
        """What a segment needs of the agent."""

        settings: Settings
        once: bool

        def listen(self, fd: int, called: Any) -> None:
            """Have ``called`` called when there is something to read."""

        def unlisten(self, fd: int) -> None:
            """No longer."""

        def say(self, text: str) -> None:
            """Write a line to the log."""

        def alert(self, name: str, severity: str, summary: str, labels: dict[str, str]) -> None:
            """Raise an alert."""


_MOST_FAILURES, _WITHIN = 3, 60.0  # deaths of a drain host in so many seconds: then the segment is set aside
_FIRST_RETRY, _LONGEST_RETRY = 0.1, 60.0  # seconds
_SOON = 0.05  # seconds until somebody who is on his way out may have let the role go
_STARTING = 30.0  # seconds that a drain host may take to begin
_HUNG = 6.0  # seconds without a pass of the drain
_ENDING = 10.0  # seconds that a drain host may take to leave, besides those for the export: report, archive, alerts
_LEAN_AFTER, _FULL_AFTER = 2.0, 1.0  # seconds that a mode has to last before the host is replaced for it
_REFRESH = 1.0  # seconds between two looks at the process's control groups


class Watched:
    """A segment, from when it is found until its file is gone or all is done."""

    def __init__(self, found: FoundSegment, agent: Agent) -> None:
        """Begin to watch.  Raises SegmentError and OSError where it is gone already, or damaged."""
        self.found = found
        self.path = found.path
        self.child: Child | None = None
        self.restarts = 0
        self.done = False  # nothing more to do
        self.aside = False  # its drain hosts died too often
        self.death: dict[str, Any] | None = None
        self.ended = not found.alive
        self.mode = at.MODE_NORMAL
        self._agent = agent
        self._end: dict[str, Any] | None = None
        self._end_known = False
        self._recorded = False  # its death is a span in the segment already
        self._buried = False
        self._giving = False
        self._retry = 0.0
        self._tries = 0
        self._failures: list[float] = []
        self._passes, self._passes_at = -1, 0.0
        self._emergency_since = self._mild_since = time.monotonic()
        self._before: Any = None
        self._refreshed = 0.0
        self._pidfd = -1
        self._fd = open_segment(self.path, os.O_RDWR)
        try:
            self._control = locate(self._fd, self.path, "control page", at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL)
            if not self.ended:
                self._watch_process()
        except BaseException:
            self.close()
            raise

    # ---- the process ----

    def _watch_process(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.found.pid)
        except (OSError, AttributeError):  # gone already, or a system without: then it is looked for
            self._pidfd = -1
        # Only now it is certain that the process file descriptor is of the process that made the segment.
        if not is_alive(self.found.pid, self.found.process_start):
            self.ended = True
            return
        if self._agent.settings.values["forensics.enabled"]:
            from otel_trading.forensics.how_it_ended import Before

            self._before = Before(self.found.pid)
        if self._pidfd >= 0:
            self._agent.listen(self._pidfd, self._process_ended)

    def _process_ended(self) -> None:
        self._agent.unlisten(self._pidfd)
        self._has_ended()
        self.tick(time.monotonic())

    def _has_ended(self) -> None:
        self.ended = True
        self._retry = 0.0
        self._learn_end()

    def _learn_end(self) -> None:
        """Ask the kernel how it ended, as long as it knows."""
        if self._end_known or not self._agent.settings.values["forensics.enabled"]:
            return
        self._end_known = True
        from otel_trading.forensics import how_it_ended

        end = how_it_ended.look(
            self.found.pid,
            pidfd=self._pidfd if self._pidfd >= 0 else None,
            before=self._before,
            process_start=self.found.process_start,
            created_ns=self.found.created_ns,
        )
        self._end = end.pack()

    # ---- what is to be done ----

    def tick(self, now: float) -> None:
        """Look, and do what is to be done."""
        page = self._look()
        if self.child is not None:
            self.child.expire(now)
            if now > self._deadline(self.child) and not self.child.killed:
                self._agent.say(f"the drain host of {self.name} hangs: it is ended, and started again")
                self.child.kill()
        if page is None:
            self._file_is_gone()
            return
        hosts, closed = page
        if not self.ended and self._pidfd < 0 and not is_alive(self.found.pid, self.found.process_start):
            self._has_ended()
        if closed and hosts.host == at.HOST_EMBEDDED and self.child is None:
            # Its own process has drained it, and keeps it for its orders; or it has crashed, and takes the mark back.
            self.done = self.ended
        elif self.ended or closed:
            self._attend_to_the_ended(now)
        elif hosts.host == at.HOST_AGENT:
            self._refresh(now)
            self._attend_to_the_living(now)
        else:
            self._giving = False
            self._refresh(now)
            if self.child is not None and self.child.running:
                self._send_away(1.0, back=False)

    def _look(self) -> tuple[role.Hosts, bool] | None:
        """Read what is in force; None where the file is gone."""
        if not os.fstat(self._fd).st_nlink:
            return None
        page = os.pread(self._fd, at.SIZE_CONTROL, self._control)
        if len(page) < at.SIZE_CONTROL:
            return None
        self.mode = word(page, at.OFF_CONTROL_MODE, 8) % at.MODES
        passes = word(page, at.OFF_CONTROL_PASSES, 8)
        if passes != self._passes:
            self._passes, self._passes_at = passes, time.monotonic()
        closed = os.pread(self._fd, 4, at.OFF_HEADER_CLOSED) != b"\0\0\0\0"
        return role.Hosts(page), closed

    def _file_is_gone(self) -> None:
        if self.child is None:
            self.done = True
        elif not self.child.leaving:
            self._send_away(0.5, back=False)

    def _refresh(self, now: float) -> None:
        if self._before is not None and now - self._refreshed >= _REFRESH:
            self._refreshed = now
            self._before.refresh()

    def _attend_to_the_living(self, now: float) -> None:
        if self.child is None:
            if not self._giving:
                self._start(now, lean=self._wants_lean(now))
            return
        if self.child.running and not self.child.leaving and self._wants_lean(now) != self.child.lean:
            self._send_away(1.0, back=False)

    def _attend_to_the_ended(self, now: float) -> None:
        child = self.child
        if child is None:
            if self._buried:
                self.done = True
            else:
                self._start(now, lean=False)
        elif child.running and not child.leaving:
            self._learn_end()
            seconds = self._agent.settings.shutdown_timeout
            child.buries = True
            child.leaves_by = now + seconds + _ENDING
            message: dict[str, Any] = {"do": "dead", "seconds": seconds, "end": self._end}
            if self._recorded:
                message["recorded"] = True
            if self._before is not None:
                message["before"] = self._before.pack()
            child.tell(message)

    def _deadline(self, child: Child) -> float:
        """Give when it hangs, if it has neither gone on nor ended until then."""
        if child.leaves_by is not None:
            return child.leaves_by
        if not child.running:
            return child.began + _STARTING
        return max(child.began, self._passes_at) + max(_HUNG, 3.0 * self._agent.settings.drain_period)

    @property
    def due(self) -> float:
        """When a drain host is to be started, of ``time.monotonic``; 0 where none is wanted, or the time is over."""
        return self._retry if self.child is None and not self.aside else 0.0

    def _wants_lean(self, now: float) -> bool:
        emergency = self.mode == at.MODE_EMERGENCY
        if emergency:
            self._mild_since = now
        else:
            self._emergency_since = now
        if self.child is not None and self.child.lean:
            return emergency or now - self._mild_since < _FULL_AFTER
        return emergency and now - self._emergency_since >= _LEAN_AFTER

    # ---- the drain host ----

    def _start(self, now: float, *, lean: bool) -> None:
        if self.aside or now < self._retry:
            return
        if role.is_held(self.path):
            self._retry = now + _SOON
            return
        try:
            self.child = Child(self.path, self._agent.settings, lean=lean, heard=self._heard)
        except OSError as error:
            self._agent.say(f"no drain host for {self.name}: {error}")
            self._failed(now)
            return
        self._agent.listen(self.child.lines.fileno(), self._readable)

    def _readable(self) -> None:
        if self.child is not None and not self.child.read():
            self._child_has_ended()

    def _heard(self, message: dict[str, Any]) -> None:
        what = message.get("is")
        if self.child is None:
            return
        if what == "running":
            self.child.running = True
            self._passes_at = time.monotonic()
            self.tick(self._passes_at)
        elif what == "left":
            self.child.leaves_by = self.child.leaves_by or time.monotonic() + _ENDING
        elif what == "recorded":
            self._recorded = True
        elif what == "buried":
            self._buried = message.get("settled") is True
            self._end = None  # told
            death = message.get("death")
            self.death = death if isinstance(death, dict) else self.death
            if isinstance(death, dict):
                self._agent.say(f"{self.name} died: {death.get('cause', 'unknown')}")

    def _child_has_ended(self) -> None:
        child, self.child = self.child, None
        if child is None:
            return
        self._agent.unlisten(child.lines.fileno())
        code = child.wait()
        now = time.monotonic()
        if child.leaving and code == drain_host.DONE:
            self._failures.clear()
            if child.buries and not self._buried:  # nobody takes what it has left
                self.done = self._agent.once
                self._retry = now + min(2.0**self._tries, _LONGEST_RETRY)
                self._tries += 1
        elif code == drain_host.BUSY:
            self._retry = now + _SOON
        else:
            self.restarts += 1
            self._agent.say(f"the drain host of {self.name} ended with status {code}")
            self._failed(now)
        self.tick(now)

    def _failed(self, now: float) -> None:
        # One that hangs may take longer than a minute to die three times.
        within = max(_WITHIN, 4.0 * (self._agent.settings.shutdown_timeout + _ENDING))
        self._failures = [when for when in self._failures if now - when < within] + [now]
        self._retry = now + _FIRST_RETRY * 4 ** (len(self._failures) - 1)
        if len(self._failures) >= _MOST_FAILURES and not self.aside:
            self.aside = True
            self.done = self._agent.once  # which would wait for ever
            self._agent.alert(
                "MonitoringSegmentSetAside",
                "critical",
                f"nothing is exported of {self.name}: its drain host died {_MOST_FAILURES} times in a minute",
                {"service": self.found.service, "pid": str(self.found.pid)},
            )

    def _send_away(self, seconds: float, *, back: bool) -> None:
        if self.child is not None and not self.child.leaving:
            self.child.leaves_by = time.monotonic() + seconds + _ENDING
            self.child.tell({"do": "go", "seconds": seconds, "back": back})

    # ---- what others ask ----

    @property
    def name(self) -> str:
        """Service and pid, for people."""
        return f"{self.found.service} (pid {self.found.pid})"

    @property
    def instance(self) -> str:
        """Its ``service.instance.id``; its pid where it has none."""
        import json

        size = min(word(os.pread(self._fd, 4, at.OFF_HEADER_RESOURCE_BYTES), 0, 4), at.RESOURCE_BYTES)
        try:
            found = json.loads(os.pread(self._fd, size, at.OFF_HEADER_RESOURCE))["service.instance.id"]
        except (ValueError, LookupError, TypeError, RecursionError):
            found = None
        return str(found or self.found.pid)[:256]

    @property
    def hosts(self) -> role.Hosts:
        """Who should drain it, and who does."""
        return role.Hosts(os.pread(self._fd, at.SIZE_CONTROL, self._control).ljust(at.SIZE_CONTROL, b"\0"))

    def take(self) -> str:
        """Have the drain handed over to us; gives what is wrong, "" for nothing."""
        if self.ended:
            return f"{self.name} has ended"
        if self.hosts.host == at.HOST_AGENT:
            return ""
        self._retry = 0.0
        self.aside = False
        drain_host.ask(self.path, at.HOST_AGENT)
        return ""

    def give(self) -> str:
        """Hand the drain back to its process; gives what is wrong, "" for nothing."""
        hosts = self.hosts
        if self.ended:
            return f"{self.name} has ended"
        if hosts.host == at.HOST_EMBEDDED:
            return ""
        if not hosts.can_take_back:
            return (
                f"{self.name} can not drain its own segment: it was started with OTEL_TRADING_HOST=agent, and has no "
                "thread for that. Start it anew with OTEL_TRADING_HOST=embedded"
            )
        self._giving = True
        if self.child is None:
            drain_host.give_back(self.path)
        else:
            self._send_away(self._agent.settings.shutdown_timeout, back=True)
        return ""

    def leave(self, seconds: float) -> None:
        """Have our drain host leave: the agent ends."""
        if self.child is not None:
            self._send_away(seconds, back=not self.ended and self.hosts.can_take_back)

    def document(self) -> dict[str, Any]:
        """Say how it stands with it."""
        child = self.child
        if self.aside:
            state = "set aside"
        elif child is None:
            state = "waits" if self.ended or self.hosts.host == at.HOST_AGENT else "drains itself"
        elif self.ended:
            state = "ended"
        else:
            state = ("lean" if child.lean else "drained") if child.running else "starting"
        return {
            "pid": self.found.pid,
            "service": self.found.service,
            "path": self.path,
            "state": state,
            "drain_host": None if child is None else child.pid,
            "restarts": self.restarts,
            "mode": self.mode,
        }

    def close(self) -> None:
        """Watch no longer."""
        if self._pidfd >= 0:
            self._agent.unlisten(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        os.close(self._fd)
