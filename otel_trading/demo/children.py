"""The runner's side of its child processes: start, ask, and end them, whatever happens."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from otel_trading.demo.errors import DemoError

START_LIMIT = 20.0
"""Seconds until a process must be ready; a busy machine takes its time to import."""

ANSWER_LIMIT = 15.0
END_LIMIT = 5.0
_TAIL = 15  # lines of standard error that are shown when a process dies


class ChildDiedError(DemoError):
    """A process of the demo ended by itself."""


class Process:
    """One child: its pipes are read by threads, so that it never blocks on a full one."""

    def __init__(self, service: str, arguments: list[str], directory: Path) -> None:
        """Start ``otel_trading.demo.<service>``; its segment goes into ``directory``."""
        self.service = service
        self.ready: Mapping[str, Any] = {}
        environment = {**os.environ, "OTEL_TRADING_DIR": str(directory), "PYTHONUNBUFFERED": "1"}
        # A session of its own: Ctrl-C is the runner's to handle, which then ends the children in order.
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"otel_trading.demo.{service}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self.errors: collections.deque[str] = collections.deque(maxlen=_TAIL)
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._read_answers, args=(self.process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self.process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_answers(self, pipe: IO[str]) -> None:
        for line in pipe:
            try:
                answer = json.loads(line)
            except ValueError:
                self.errors.append(line.rstrip())
                continue
            if isinstance(answer, dict):
                self._answers.put(answer)
        self._answers.put(None)

    def _read_errors(self, pipe: IO[str]) -> None:
        for line in pipe:
            self.errors.append(line.rstrip())

    @property
    def ended(self) -> int | None:
        """The process's exit code, below 0 where a signal killed it; None while it lives."""
        return self.process.poll()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def wait_ready(self) -> Mapping[str, Any]:
        """Wait for its first line; raises :class:`ChildDiedError`, and DemoError where none comes."""
        self.ready = self._wait("ready", START_LIMIT)
        return self.ready

    def tell(self, command: str) -> None:
        """Give a command; the answer is for :meth:`answer`."""
        pipe = self.process.stdin
        try:
            if pipe is not None:
                pipe.write(command + "\n")
                pipe.flush()
        except (OSError, ValueError):
            raise self.died() from None

    def answer(self, command: str, limit: float = ANSWER_LIMIT) -> Mapping[str, Any]:
        """Wait for the answer to ``command``; raises as :meth:`wait_ready` does."""
        return self._wait(command, limit)

    def ask(self, command: str, limit: float = ANSWER_LIMIT) -> Mapping[str, Any]:
        """Give a command and wait for its answer."""
        self.tell(command)
        return self.answer(command, limit)

    def _wait(self, event: str, limit: float) -> Mapping[str, Any]:
        deadline = time.monotonic() + limit
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                message = f"the {self.service} process did not answer {event!r} within {limit:.0f} s{self.tail()}"
                raise DemoError(message) from None
            if answer is None:
                raise self.died()
            if answer.get("event") == event:
                return answer

    def check(self) -> None:
        """Raise :class:`ChildDiedError` where the process has ended."""
        if self.process.poll() is not None:
            raise self.died()

    def died(self) -> ChildDiedError:
        """Say how the process ended, with the end of its standard error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_LIMIT)
        for thread in self._threads:
            thread.join(1.0)
        code = self.process.returncode
        how = "is closing"
        if code is not None:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return ChildDiedError(f"the {self.service} process {how}{self.tail()}")

    def tail(self) -> str:
        """Give the last lines of its standard error, to go behind a message."""
        return ":\n" + "\n".join(f"  {line}" for line in self.errors) if self.errors else ""

    def close_input(self) -> None:
        """Close its standard input, which ends it too."""
        with contextlib.suppress(OSError, ValueError):
            if self.process.stdin is not None:
                self.process.stdin.close()

    def kill(self) -> None:
        """Kill it if it lives, and take it off the process table."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(END_LIMIT)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()


@contextlib.contextmanager
def family() -> Iterator[dict[str, Process]]:
    """Give the place for the started children; all of them are gone afterwards."""
    started: dict[str, Process] = {}
    try:
        yield started
    finally:
        for process in started.values():
            process.close_input()
        deadline = time.monotonic() + END_LIMIT
        for process in reversed(list(started.values())):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
