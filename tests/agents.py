"""Agents and programs as real processes, and a ledger of what the programs have recorded."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import uncovered, wait_until
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from otlp_receiver import OVER, Receiver, environment

from otel_trading.agent import files
from otel_trading.agent.asking import NoAgentError, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import os, sys, time
import otel_trading as ot
ledger = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
count, pause = int(sys.argv[2]), float(sys.argv[3])
ot.configure()
probe = ot.probe("work", tier=ot.P0)
print("began", flush=True)
for number in range(count):
    if pause and os.path.exists(sys.argv[1] + ".stop"):
        break
    with probe.span(number=number) as span:
        ids = f"{span.trace_id:032x}{span.span_id:016x}\\n".encode()
    os.write(ledger, ids)
    if pause:
        time.sleep(pause)
print("written", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
"""Records spans, and writes the ids of each one that has ended to a ledger; then does what it is told."""

_CONFIG = """
watchdog: {enabled: false}
forensics: {enabled: %s}
drain: {period: 0.02}
shutdown: {timeout: 5}
"""


class Scene:
    """A directory of segments, a receiver, and the processes that are at work; ended with the test."""

    def __init__(self, base: Path, receiver: Receiver, endpoint: str, *, forensics: bool) -> None:
        """Make the directory."""
        self.base = base
        self.receiver = receiver
        self.directory = base / "segments"
        self.directory.mkdir(mode=0o700)
        config = base / "config.yaml"
        config.write_text(_CONFIG % str(forensics).lower(), encoding="utf-8")
        self.environment = {
            **uncovered(self.directory),
            **environment("http/protobuf", endpoint),
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "600000",
            "OTEL_TRADING_CONFIG": str(config),
            "XDG_STATE_HOME": str(base / "state"),
            "PYTHONWARNINGS": "error",
        }
        self._processes: list[subprocess.Popen[str]] = []
        self._ledgers: list[Path] = []
        self._read = 0  # requests that were looked into
        self._received: dict[str, list[str]] = {}

    # ---- processes ----

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a Python process."""
        with (self.base / f"stderr-{len(self._processes)}.txt").open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [sys.executable, *command],
                env={**self.environment, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._processes.append(process)
        return process

    def agent(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start an agent, and wait until it answers."""
        process = self.start("-m", "otel_trading", "agent", *arguments, **environment)
        wait_until(lambda: process.poll() is not None or self.answers(process.pid))
        assert process.poll() is None, self.said()
        return process

    def answers(self, pid: int) -> bool:
        """Tell whether it is this agent that answers."""
        try:
            return bool(ask(str(self.directory), {"ask": "status"}, 2.0).get("pid") == pid)
        except NoAgentError:
            return False

    def program(self, count: int, pause: float = 0.0, host: str = "agent", **environment: str) -> subprocess.Popen[str]:
        """Start a program that records, and wait until it begins."""
        ledger = self.base / f"ledger-{len(self._ledgers)}.txt"
        self._ledgers.append(ledger)
        process = self.start(
            "-c", PROGRAM, str(ledger), str(count), str(pause), **{"OTEL_TRADING_HOST": host, **environment}
        )
        assert self.hear(process) == "began", self.said()
        return process

    @staticmethod
    def hear(process: subprocess.Popen[str]) -> str:
        """Wait for a line."""
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def tell(self, process: subprocess.Popen[str], line: str) -> str:
        """Have a program that has written do a line of Python; the line that it prints after it."""
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        said = self.hear(process)
        if said == "done":
            return ""
        assert self.hear(process) == "done", self.said()
        return said

    @staticmethod
    def end(process: subprocess.Popen[str], number: int | None = None) -> int:
        """End a process, by the end of its input or by a signal; its exit code."""
        if number is None:
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(number)
        return process.wait(20.0)

    def said(self) -> str:
        """All that the processes have written to standard error."""
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.base.glob("stderr-*.txt")))

    def close(self) -> None:
        """End all processes, those included that an agent has started."""
        agents = {files.words(str(self.directory)).pid} - {0}
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        for pid in agents:
            with contextlib.suppress(ProcessLookupError):
                if files.words(str(self.directory)).alive:
                    os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not files.is_running(str(self.directory)))

    # ---- what became of the spans ----

    def status(self) -> dict[str, Any]:
        """Ask the agent."""
        return ask(str(self.directory), {"ask": "status"})

    def segment(self, pid: int) -> dict[str, Any]:
        """Tell how it stands with a process's segment; {} where the agent knows none."""
        found = [one for one in self.status()["segments"] if one["pid"] == pid]
        return found[-1] if found else {}

    def recorded(self) -> list[str]:
        """The ids of the spans that have ended."""
        return [line for ledger in self._ledgers if ledger.exists() for line in ledger.read_text().split()]

    def received(self, name: str = "work") -> list[str]:
        """The ids of the spans of one name that came to the receiver."""
        bodies = self.receiver.bodies()
        for body in bodies[self._read :]:
            for resource in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._received.setdefault(span.name, []).append((span.trace_id + span.span_id).hex())
        self._read = len(bodies)
        return self._received.get(name, [])

    def await_all(self, seconds: float = 20.0) -> None:
        """Wait until every span that was recorded has come, and demand that none came twice."""
        wait_until(lambda: set(self.recorded()) <= set(self.received()), seconds)
        self.demand_once()

    def demand_once(self) -> None:
        """Demand that no span came twice."""
        found = self.received()
        assert len(found) == len(set(found)), f"{len(found) - len(set(found))} spans came twice\n{self.said()}"

    def enough(self) -> None:
        """Have the programs that record with pauses stop recording."""
        for ledger in self._ledgers:
            Path(f"{ledger}.stop").touch()

    def segments(self) -> list[str]:
        """The segment files that are there."""
        return sorted(name for name in os.listdir(self.directory) if name.endswith(".seg"))


@contextlib.contextmanager
def scene(base: Path, *, forensics: bool = False) -> Iterator[Scene]:
    """Give a scene; at its end nothing is left running."""
    receiver = Receiver()
    with OVER["http/protobuf"](receiver) as endpoint:
        made = Scene(base, receiver, endpoint, forensics=forensics)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """Give a directory, a receiver and no process yet."""
    with scene(tmp_path) as made:
        yield made
