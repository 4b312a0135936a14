"""The watchdog where there is no compiler: the twin of the C program, with the same arguments (docs/watchdog.md).

``_native/watchdog/main.c`` says what they are; the C program is a hundredth of the size.
"""

from __future__ import annotations

import errno
import getopt
import os
import select
import signal
import sys
import time

from otel_trading import _layout as at
from otel_trading.agent import watchdog_looks as looks
from otel_trading.agent import watchdog_rules as rules
from otel_trading.agent.watchdog_children import Process, Report, reaped, spawn
from otel_trading.errors import SegmentError
from otel_trading.segment.directory import open_directory

_NS_PER_MS = 1_000_000
_NEVER = (1 << 63) - 1
_OPTIONS = ("directory=", "late=", "restarts=", "python=", "log=", "agent=", "started=", "supervised", "tick=")
_NUMBERS = {
    "--late": (0.001, 86_400.0),
    "--restarts": (0.0, 1e6),
    "--agent": (2.0, float((1 << 31) - 1)),
    "--started": (0.0, 2.0**53),
    "--tick": (1.0, 60_000.0),
}
EXIT_OK, EXIT_ANOTHER, EXIT_CANNOT_RUN = 0, 1, 2


def _now_ms() -> int:
    return time.monotonic_ns() // _NS_PER_MS


class Watchdog:
    """One watchdog of one directory."""

    def __init__(self, given: dict[str, str], numbers: dict[str, float], command: list[str]) -> None:
        """Take the arguments as they were read."""
        self.directory = given["--directory"]
        self._python = given.get("--python")
        self._command = command
        supervised = "--supervised" in given
        self._rules = rules.Rules(
            int(numbers.get("--tick", 1000.0)),
            int(numbers.get("--late", 5.0) * 1000),
            int(numbers.get("--restarts", 5.0)),
            startable=bool(command) and not supervised,
            supervised=supervised,
        )
        self._late = self._rules.late
        self._report = Report(given.get("--log"), self._python)
        self._segments = looks.Segments(self._rules)
        self._fd = self._lock = self._page = -1
        self._beat_ms = -1
        self._emergency = 0
        self._ends = False
        self._agent: Process | None = None
        if "--agent" in numbers:
            self._agent = Process(int(numbers["--agent"]), int(numbers.get("--started", 0.0)))

    # ---- the directory ----

    def begin(self) -> int:
        """Open and lock the directory; gives an exit code, 0 where that went well."""
        try:
            self._fd = open_directory(self.directory)
        except SegmentError as error:
            sys.stderr.write(f"otel-trading-watchdog: {error}\n")
            return EXIT_CANNOT_RUN
        try:
            self._lock_directory()
        except BlockingIOError:
            return EXIT_ANOTHER
        except OSError as error:
            sys.stderr.write(f"otel-trading-watchdog: {self.directory} can not be locked: {error.strerror}\n")
            return EXIT_CANNOT_RUN
        os.environ["OTEL_TRADING_DIR"] = self.directory  # for what is started from here
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            os.environ.pop(name, None)
        self._report.log(f"looks after {self.directory}")
        return EXIT_OK

    def _lock_directory(self) -> None:
        import fcntl

        fd = os.open(
            "watchdog.lock",
            os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK,
            0o600,
            dir_fd=self._fd,
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = fd

    def _find_directory(self) -> bool:
        """Open the directory as it is now; False where another watchdog is at work in it."""
        try:
            fd = open_directory(self.directory)
        except SegmentError:
            fd = -1
        same = fd >= 0 and self._fd >= 0 and os.path.samestat(os.fstat(fd), os.fstat(self._fd))
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        if same or fd < 0:
            return True
        try:
            self._lock_directory()
        except OSError:
            return False
        return True

    # ---- the agent ----

    def _is_ours(self, page: looks.AgentWords) -> bool:
        return self._agent is not None and (page.pid, page.start) == (self._agent.pid, self._agent.start)

    def _another_is_at_work(self, page: looks.AgentWords, now: int) -> bool:
        if self._is_ours(page) or page.state not in {at.AGENT_STARTING, at.AGENT_RUNNING}:
            return False
        state, start = looks.state_of(page.pid)
        return _age(page, now) <= self._late and state not in {"", "Z"} and start == page.start

    def _open_page(self, now: int) -> bool:
        """Take the agent's page as it is now, if it is our agent's; gives whether it is that of another at work."""
        fd = looks.open_own(self._fd, "agent.page", os.O_RDWR) if self._fd >= 0 else -1
        page = looks.read_page(fd) if fd >= 0 else None
        if fd >= 0 and (self._agent is None or (page is not None and self._is_ours(page))):
            if self._page >= 0:
                os.close(self._page)
            self._page = fd
        elif fd >= 0:
            os.close(fd)
        return page is not None and self._another_is_at_work(page, now)

    def _last_words(self) -> looks.AgentWords | None:
        page = looks.read_page(self._page) if self._page >= 0 else None
        return page if page is not None and self._is_ours(page) else None

    def _look_at_agent(self, now: int) -> tuple[str, int, bool]:
        """Give the agent's state, its beat's age, and whether its process is stopped."""
        other = self._open_page(now)
        if self._agent is None:
            return (rules.OTHER if other else rules.NONE), 0, False
        last = self._last_words()
        if not self._agent.lives():
            if other:
                return rules.OTHER, 0, False
            last = self._last_words() or last  # it may have written its last word after it was read
            orderly = last is not None and last.state in {at.AGENT_STOPPED, at.AGENT_STOPPING}
            return (rules.ENDED if orderly or self._fd < 0 else rules.GONE), 0, False
        if last is not None and last.state in {at.AGENT_STOPPED, at.AGENT_STOPPING}:
            return rules.STOPPING, 0, False
        age = _NEVER if last is None else _age(last, now)
        if last is None or (age == _NEVER and self._beat_ms < 0):
            return rules.STARTING, 0, False
        if age == _NEVER:
            age = now - self._beat_ms
        else:
            self._beat_ms = now - age
        stopped = age > self._late and looks.state_of(self._agent.pid)[0] in {"T", "t"}
        return rules.RUNNING, age, stopped

    def _start_agent(self) -> None:
        self._beat_ms = -1  # the page stays, to be written to, until the new agent has its own
        if self._agent is not None:
            self._agent.close()
        try:
            pid = spawn(self._command, None, 2)
        except OSError as error:
            self._report.log(f"{self._command[0]} can not be started: {error.strerror}")
            return
        self._agent = Process(pid, 0, child=True)

    def _signal_agent(self, number: int) -> None:
        try:
            if self._agent is not None:
                self._agent.signal(number)
        except OSError as error:
            self._report.log(f"the agent takes no signal: {error.strerror}")

    # ---- the emergency monitor ----

    def _emergency_lives(self) -> bool:
        if self._emergency and reaped(self._emergency):
            self._emergency = 0
        return self._emergency > 0

    def _start_emergency(self) -> None:
        if self._python is None or self._emergency_lives():
            return
        errors = self._report.open_log()
        try:
            self._emergency = spawn([self._python, "-m", "otel_trading", "agent", "--emergency"], None, errors)
        except OSError as error:
            self._report.log(f"the emergency monitor can not be started: {error.strerror}")
        finally:
            if errors >= 0:
                os.close(errors)

    def _end_emergency(self) -> None:
        """End it; it takes back what it did to the segments, so it is waited for."""
        if not self._emergency_lives():
            return
        os.kill(self._emergency, signal.SIGTERM)  # a child that was not waited for yet: the pid is still its own
        deadline = time.monotonic() + 2.0
        while self._emergency_lives():
            if time.monotonic() > deadline:
                os.kill(self._emergency, signal.SIGKILL)
                deadline += 2.0
            time.sleep(0.01)

    # ---- looks ----

    def _carry_out(self, action: rules.Action) -> None:
        self._report.tell(action, self._agent.pid if self._agent is not None else 0, self._rules.total)
        if action.what == "emergency":
            self._start_emergency()
        elif action.what == "normal":
            self._end_emergency()
        elif action.what in {"term", "kill"}:
            self._signal_agent(signal.SIGTERM if action.what == "term" else signal.SIGKILL)
        elif action.what == "start":
            self._start_agent()

    def _look(self, due: int) -> None:
        if not self._find_directory():
            self._report.log("the directory is another one now, and has a watchdog")
            self._rules.ended = True
            return
        state, age, stopped = self._look_at_agent(_now_ms())
        now = _now_ms()  # a stop of this process while it looked is its own delay, too
        self._rules.begin(now, due, state, age, stopped=stopped, emergency_alive=self._emergency_lives())
        if self._fd >= 0:
            self._segments.look(self._fd)
        for action in self._rules.finish():
            self._carry_out(action)
        self._report.send(now)
        self._write_page(0 if self._rules.ended else os.getpid())

    def _write_page(self, pid: int) -> None:
        if self._page >= 0:
            looks.write_page(self._page, pid, time.monotonic_ns(), self._rules.total, int(self._rules.gave_up))

    def _wait(self, until: int) -> None:
        """Wait until the time has come, the agent has ended, or a signal came."""
        left = until - _now_ms()
        if left > 0 and not self._ends:
            waiting = select.poll()
            waiting.register(self._wakeup, select.POLLIN)
            if self._agent is not None and self._agent.fd >= 0:
                waiting.register(self._agent.fd, select.POLLIN)
            waiting.poll(left)

    def _told_to_end(self, *_: object) -> None:
        self._ends = True

    def run(self) -> int:
        """Look until the agent has ended, or until told to end; gives the exit code."""
        self._wakeup, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        due = _now_ms()
        while not self._ends and not self._rules.ended:
            try:
                self._look(min(_now_ms(), due))
            except OSError as error:  # it can not fail: the next look may find things better
                self._report.log(f"a look failed: {error.strerror or errno.errorcode.get(error.errno or 0, '?')}")
            now = _now_ms()
            if now >= due:
                due = max(due, now - self._rules.tick + 1) + self._rules.tick
            if not self._rules.ended:
                self._wait(due)
        self._end_emergency()
        deadline = time.monotonic() + 2.0  # for the last alerts
        while self._report.waiting and time.monotonic() < deadline:
            self._report.send(_now_ms())
            time.sleep(0.1)
        self._write_page(0)
        return EXIT_OK


def _age(page: looks.AgentWords, now: int) -> int:
    beat = page.beat_ns // _NS_PER_MS
    return now - beat if 0 < beat <= now else _NEVER


def _read(argv: list[str]) -> Watchdog | None:
    """Take the arguments; None where they are wrong."""
    try:
        pairs, command = getopt.getopt(argv, "", _OPTIONS)
        given = dict(pairs)
        numbers = {name: float(given[name]) for name in _NUMBERS if name in given}
    except (getopt.GetoptError, ValueError):
        return None
    wrong = [name for name, value in numbers.items() if not _NUMBERS[name][0] <= value <= _NUMBERS[name][1]]
    return None if wrong or "--directory" not in given else Watchdog(given, numbers, command)


def main(argv: list[str] | None = None) -> int:
    """Be a watchdog; gives the exit code."""
    watchdog = _read(sys.argv[1:] if argv is None else argv)
    if watchdog is None:
        return EXIT_CANNOT_RUN
    return watchdog.begin() or watchdog.run()


if __name__ == "__main__":
    sys.exit(main())
