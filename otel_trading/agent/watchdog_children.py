"""Processes of a watchdog: is one still the one that was meant, signals to it, new ones, and alerts that they send.

The twin of ``_native/watchdog/process.c`` and ``report.c``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import sys
import time

from otel_trading.agent import watchdog_rules as rules
from otel_trading.agent.watchdog_looks import state_of

_LOG_BYTES = 256 * 1024
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_AT_ONCE, _WAITING = 4, 16
_SENDING_MS = 60_000
_LIVES = ("", "Z", "X", "x")
_ALERTS = {
    "alert": ("DrainLate", "critical", False),
    "resolve": ("DrainLate", "critical", True),
    "died": ("AgentDied", "warning", False),
    "back": ("AgentDied", "warning", True),
    "give_up": ("WatchdogGaveUp", "critical", False),
    "recovered": ("WatchdogGaveUp", "critical", True),
}


class Process:
    """A process that may be sent signals: by pid and start time, so never one that got the pid later."""

    def __init__(self, pid: int, start: int, *, child: bool = False) -> None:
        """Hold on to it; ``start`` 0: as it is now."""
        self.pid = pid
        self.fd = -1
        if hasattr(os, "pidfd_open"):
            try:
                self.fd = os.pidfd_open(pid)
            except OSError:
                pass
        self.start = start or state_of(pid)[1]
        self._child = child
        # Only now is it sure that fd is of the process that was meant.
        self.gone = pid <= 1 or pid == os.getpid() or not self._is_it()
        if self.gone:
            self.close()

    def _is_it(self) -> bool:
        state, start = state_of(self.pid)
        return state not in _LIVES and start == self.start

    def lives(self) -> bool:
        """Tell whether it does; a zombie does not."""
        if self.gone:
            return False
        if self.fd >= 0:
            waiting = select.poll()
            waiting.register(self.fd, select.POLLIN)
            if not waiting.poll(0):
                return True
        elif self._is_it():
            return True
        self.gone = True
        self.close()
        if self._child:
            reaped(self.pid)
        return False

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives.  Raises OSError."""
        if not self.lives():
            return
        if self.fd >= 0:
            signal.pidfd_send_signal(self.fd, number)
        elif self._is_it():
            os.kill(self.pid, number)

    def close(self) -> None:
        """Let it go."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def reaped(pid: int) -> bool:
    """Tell whether a child has ended, and take its end."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def spawn(command: list[str], text: str | None, errors: int) -> int:
    """Start a program in a session of its own, ``text`` on its standard input; gives its pid.  Raises OSError."""
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    reading = -1
    if text is None:
        actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
    else:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
        os.write(writing, text.encode())  # a pipe holds 64 kB
        os.close(writing)
        os.set_blocking(reading, True)
        actions.append((os.POSIX_SPAWN_DUP2, reading, 0))
    actions.append((os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0))
    if errors >= 0:
        actions.append((os.POSIX_SPAWN_DUP2, errors, 2))
    else:
        actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
    usual = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    try:
        return os.posix_spawn(
            command[0], command, os.environ, file_actions=actions, setsid=True, setsigmask=[], setsigdef=usual
        )
    finally:
        if reading >= 0:
            os.close(reading)


class Report:
    """Lines of a log of bounded size, and alerts, which short processes of their own send."""

    def __init__(self, log: str | None, python: str | None) -> None:
        """``python`` sends alerts; None: none are sent."""
        self._log = log
        self._python = python
        self._waiting: list[tuple[tuple[str, str], str, int]] = []
        self._sending: dict[int, tuple[tuple[str, str], int]] = {}  # pid: identity, since when

    def open_log(self) -> int:
        """Give the log, to be a child's standard error; -1 where it can not be opened."""
        if self._log is None:
            return -1
        try:
            fd = os.open(self._log, _FLAGS, 0o600)
            status = os.fstat(fd)
            good = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            if good and status.st_size <= _LOG_BYTES:
                return fd
            os.close(fd)
            if not good:
                return -1
            os.replace(self._log, f"{self._log}.1")
            return os.open(self._log, _FLAGS, 0o600)
        except OSError:
            return -1

    def log(self, text: str) -> None:
        """Write a line, also to standard error where that is a terminal."""
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} watchdog: {text}\n"
        fd = self.open_log()
        try:
            if fd >= 0:
                os.write(fd, line.encode("utf-8", "replace"))
            if sys.stderr is not None and sys.stderr.isatty():
                sys.stderr.write(line)
        except (OSError, ValueError):
            return
        finally:
            if fd >= 0:
                os.close(fd)

    def tell(self, action: rules.Action, agent: int, restarts: int) -> None:
        """Log an action, and raise or resolve its alert if it has one."""
        text = _sentence(action, agent, restarts)
        self.log(text)
        if action.what not in _ALERTS or self._python is None:
            return
        name, severity, over = _ALERTS[action.what]
        if action.what in {"alert", "resolve"}:
            name = {rules.LOOP: "ApplicationHung", rules.AGENT: "AgentLate"}.get(action.kind, name)
        if len(self._waiting) >= _WAITING:
            self.log(f"too many alerts at once; {name} is not sent")
            return
        labels = _labels(action)
        alert = {
            "name": name,
            "severity": severity,
            "summary": text.replace('"', "'"),
            "labels": labels,
            "details": {
                "age_s": max(action.age, 0) / 1e3,
                "stopped": action.stopped,
                "agent": agent,
                "restarts": restarts,
            },
            "resolved": over,
        }
        hung = action.label.pid if action.kind == rules.LOOP and not over else 0
        self._waiting.append(((name, json.dumps(labels)), json.dumps(alert), hung))

    @property
    def waiting(self) -> bool:
        """Whether an alert is still to be sent."""
        return bool(self._waiting)

    def send(self, now_ms: int) -> None:
        """Send what waits, as far as children are free; take the ends of those that have sent."""
        for pid, (identity, since) in list(self._sending.items()):
            if reaped(pid):
                del self._sending[pid]
            elif now_ms - since > _SENDING_MS:
                os.kill(pid, signal.SIGKILL)  # our child, not yet waited for: the pid is still its own
                self._sending[pid] = identity, now_ms
        held = {identity for identity, _ in self._sending.values()}  # what is over must not overtake what began
        for one in list(self._waiting):
            identity, text, hung = one
            if len(self._sending) < _AT_ONCE and identity not in held:
                self._waiting.remove(one)
                self._send_one(identity, text, hung, now_ms)
            held.add(identity)

    def _send_one(self, identity: tuple[str, str], text: str, hung: int, now_ms: int) -> None:
        command = [
            self._python or "",
            "-m",
            "otel_trading",
            *(("watchdog", "--hung", str(hung)) if hung else ("alert", "send")),
        ]
        errors = self.open_log()
        try:
            self._sending[spawn(command, text, errors)] = identity, now_ms
        except OSError as error:
            self.log(f"an alert can not be sent: {error.strerror}")
        finally:
            if errors >= 0:
                os.close(errors)


def _labels(action: rules.Action) -> dict[str, str]:
    if action.kind == rules.AGENT:
        return {"subject": "agent"}
    kind = "loop" if action.kind == rules.LOOP else "drain"
    labels = {"subject": kind, "service": action.label.service, "pid": str(action.label.pid)}
    return {**labels, "loop": action.label.name} if action.label.name else labels


def _who(action: rules.Action, agent: int) -> str:
    label, stopped = action.label, ", which is stopped by a signal," if action.stopped else ""
    whose = f"{label.service} (pid {label.pid})"
    return {
        rules.AGENT: f"the monitoring agent (pid {agent}){stopped}",
        rules.LOOP: f'loop "{label.name}" of {whose}{stopped}',
        rules.MISSING: f"the missing drain of {whose}",
        rules.EMBEDDED: f"the drain in {whose}{stopped}",
        rules.DRAIN: f"the agent's drain of {whose}{stopped}",
    }[action.kind]


def _sentence(action: rules.Action, agent: int, restarts: int) -> str:
    who, seconds = _who(action, agent), f"{action.age / 1e3:.1f} s"
    silent = f"{who} has given no sign of life for {seconds}"
    return {
        "skip": f"this look came {seconds} late itself, so it does not count",
        "warn": silent,
        "alert": silent,
        "resolve": f"{who} {'is no more' if action.age < 0 else 'goes on'}",
        "emergency": "the emergency monitor is started",
        "normal": "the emergency monitor is ended",
        "term": f"{who} is asked to end",
        "kill": f"{who} is killed",
        "died": f"{who} has died",
        "start": f"an agent is started, start {restarts}",
        "give_up": f"{who} is not started again any more, after {restarts} starts; the emergency monitor stays",
        "back": "an agent is at work again",
        "recovered": "an agent is at work again",
        "end": "the watchdog ends",
    }[action.what]
