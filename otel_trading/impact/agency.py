"""An agent of a block's own, and what its processes use."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from otel_trading.agent import files
from otel_trading.bench.children import BenchmarkError
from otel_trading.impact import usage
from otel_trading.segment import default_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PATIENCE = 30.0
_LOOK = 0.01


class Agency:
    """An agent that is running, with its drain hosts and its watchdog."""

    def __init__(self, pid: int, directory: str) -> None:
        """Take its process."""
        self._pid = pid
        self._directory = directory

    @property
    def environment(self) -> dict[str, str]:
        """What has a program leave its segment to it."""
        return {"OTEL_TRADING_DIR": self._directory, "OTEL_TRADING_HOST": "agent"}

    def processes(self) -> list[int]:
        """The agent's pid, and those of all that it has started."""
        return _tree(self._pid)

    def cpu(self) -> dict[int, float]:
        """CPU seconds of each of its processes so far."""
        found = {}
        for pid in self.processes():
            with contextlib.suppress(OSError):
                # The clock of another process's CPU time; /proc tells it in hundredths only.
                found[pid] = time.clock_gettime((~pid << 3) | 2)
        return found

    def memory(self) -> int | None:
        """Bytes of all its processes, what they share divided among them; the segment is counted with the program."""
        found = [usage.memory(pid, self._directory) for pid in self.processes()]
        return None if None in found else sum(one.own for one in found if one is not None)


def used(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """CPU seconds between two looks; a process that is new has used all of its own."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        try:
            with open(f"/proc/{one}/task/{one}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
        except (OSError, ValueError):
            continue
    return found


@contextlib.contextmanager
def agency(environment: Mapping[str, str], cpu: int | None) -> Iterator[Agency]:
    """Run an agent for a directory of its own; ``cpu`` is left to the program.

    Raises BenchmarkError where it does not begin.
    """
    base = os.path.dirname(default_directory())
    directory = tempfile.mkdtemp(prefix="otel-trading-impact-", dir=base if os.access(base, os.W_OK) else None)
    command = [sys.executable, "-m", "otel_trading", "agent", "--dir", directory]
    with subprocess.Popen(
        command, env={**environment, "OTEL_TRADING_DIR": directory}, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            if cpu is not None and os.sched_getaffinity(0) != {cpu}:
                os.sched_setaffinity(process.pid, os.sched_getaffinity(0) - {cpu})
            deadline = time.monotonic() + _PATIENCE
            while files.words(directory).pid != process.pid:
                if process.poll() is not None or time.monotonic() > deadline:
                    message = "the agent did not begin: otel-trading agent tells why"
                    raise BenchmarkError(message)
                time.sleep(_LOOK)
            yield Agency(process.pid, directory)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            shutil.rmtree(directory, ignore_errors=True)
