"""Programs that are killed, agents that are killed, and what must have arrived in spite of it."""

from __future__ import annotations

import json
import mmap
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from conftest import uncovered, wait_until
from otlp_receiver import Receiver, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

# Trades until it is killed or told to stop.  The ledger has four words, in memory that outlives the program: outer
# spans begun, inner spans ended, outer spans ended; and one that tells it to stop.
TRADER = """
import mmap, os, struct, sys, time
import otel_trading as ot

ledger = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 32)
words = memoryview(ledger).cast("Q")
who, pause, n = sys.argv[2], float(sys.argv[3]), 0
ot.configure("trader", config={"ring.slots": int(sys.argv[4]), "ring.arena_bytes": 1 << 24})
session, outer, inner = ot.probe("session", tier=ot.P0), ot.probe("outer", tier=ot.P1), ot.probe("inner", tier=ot.P2)
with session.span(who=who):
    print("trading", flush=True)
    while not words[3]:
        with outer.span(who=who, n=n):
            words[0] = n + 1
            with inner.span(who=who, n=n, text="x" * 50):
                pass
            words[1] = n + 1
        words[2] = n = n + 1
        time.sleep(pause)
"""


class Trader:
    """A trading program with its ledger."""

    def __init__(
        self, directory: Path, environment: dict[str, str], who: str, pause: float, slots: int = 1 << 17
    ) -> None:
        """Start it, and wait until it trades."""
        self.who = who
        self._path = directory / f"ledger-{who}"
        self._path.write_bytes(bytes(32))
        self.process = subprocess.Popen(
            [sys.executable, "-c", TRADER, str(self._path), who, str(pause), str(slots)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "trading\n"

    def kill(self) -> None:
        """Kill it where it stands."""
        self.process.kill()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self, seconds: float) -> int:
        """Have it end orderly; gives the exit code."""
        with self._path.open("r+b") as file, mmap.mmap(file.fileno(), 32) as words:
            words[24] = 1
        assert self.process.stdout is not None
        self.process.stdout.read()
        self.process.stdout.close()
        return self.process.wait(seconds)

    def ledger(self) -> tuple[int, int, int]:
        """Give outer spans begun, inner spans ended, outer spans ended."""
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), 32, access=mmap.ACCESS_READ) as words:
            begun, inner, outer = struct.unpack("<3Q", words[:24])
        return begun, inner, outer


def environment(segments: Path, url: str, **changes: str) -> dict[str, str]:
    """Give the environment of programs and agents that export all of it there; who starts agents is the test."""
    config = segments.parent / "otel-trading.yaml"
    config.write_text("watchdog: {enabled: false}\n")
    return uncovered(
        segments,
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_METRICS_EXPORTER="none",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_ENDPOINT=url,
        OTEL_TRADING_BUDGET_ENABLED="false",
        OTEL_TRADING_HOST="agent",
        OTEL_TRADING_CONFIG=str(config),
        XDG_STATE_HOME=str(segments.parent / "state"),
        **changes,
    )


class Agent:
    """A running agent."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        """Start it, and wait until it answers."""
        self.environment = environment
        with log.open("a") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "otel_trading", "agent"], env=environment, stdout=file, stderr=file
            )
        wait_until(lambda: self.process.poll() is not None or self.status() is not None, 60.0)
        assert self.process.poll() is None, log.read_text()

    def status(self) -> Any:
        """Give what ``agent --status --json`` tells; None where nobody answers."""
        done = subprocess.run(
            [sys.executable, "-m", "otel_trading", "agent", "--status", "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def kill(self) -> None:
        """Kill it where it stands."""
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        """Have it end orderly; gives the exit code."""
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def running_agent(environment: dict[str, str], log: Path) -> Iterator[Agent]:
    """Give a running agent; it is ended, whatever happens."""
    agent = Agent(environment, log)
    try:
        yield agent
    finally:
        if agent.process.poll() is None:
            agent.process.send_signal(signal.SIGCONT)
            agent.stop()


class Arrived:
    """What a receiver has of traders, counted as it comes."""

    def __init__(self, receiver: Receiver) -> None:
        """Begin with nothing; the receiver's requests are taken away as they are counted."""
        self._receiver = receiver
        self.finished: Counter[tuple[str, str, int]] = Counter()  # (who, name, n)
        self.interrupted: Counter[tuple[str, str, int]] = Counter()
        self.when: dict[tuple[str, str, int], float] = {}

    def count(self) -> None:
        """Count what has come since."""
        with self._receiver.lock:
            requests, self._receiver.requests[:] = list(self._receiver.requests), []
        taken = Receiver()
        taken.requests = requests
        for span in taken.spans():
            told = attributes(span)
            if "who" not in told:
                continue
            key = (told["who"], span.name, told.get("n", -1))
            (self.interrupted if span.status.code == 2 else self.finished)[key] += 1
            self.when.setdefault(key, time.monotonic())

    def of(self, who: str, name: str) -> dict[int, int]:
        """Give how often each span of that name came, by its number."""
        found: dict[int, int] = {}
        for counted in (self.finished, self.interrupted):
            for (whose, called, n), count in counted.items():
                if (whose, called) == (who, name):
                    found[n] = found.get(n, 0) + count
        return found


class Became(NamedTuple):
    """What became of a killed trader's spans: how many have ended, and which of them are not as they should be."""

    spans: int
    lost: list[str]
    """That had ended, and are not there."""
    missing: list[str]
    """That were open, and are not there, told as interrupted."""
    twice: list[str]
    """That are there more than once, or were never recorded."""

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        lists = {"lost": self.lost, "missing": self.missing, "twice": self.twice}
        return {"spans": self.spans} | {name: len(spans) for name, spans in lists.items()}

    @property
    def well(self) -> bool:
        """Whether each that had ended came once, and each that was open came once too, told as interrupted."""
        return not self.lost and not self.missing and not self.twice


def became_of(arrived: Arrived, trader: Trader) -> Became:
    """Compare what has arrived with what a killed trader has recorded."""
    who = trader.who
    begun, inner, ended = trader.ledger()
    outer_spans, inner_spans = arrived.of(who, "outer"), arrived.of(who, "inner")
    lost = [f"{who} outer {n}" for n in range(ended) if n not in outer_spans]
    lost += [f"{who} inner {n}" for n in range(inner) if n not in inner_spans]
    missing = [f"{who} outer {n}" for n in range(ended, begun) if n not in outer_spans]
    if not arrived.interrupted[who, "session", -1]:
        missing.append(f"{who} session")
    twice = [f"{who} outer {n}" for n, count in outer_spans.items() if count > 1 or n > begun]
    twice += [f"{who} inner {n}" for n, count in inner_spans.items() if count > 1 or n > begun]
    if arrived.interrupted[who, "session", -1] + arrived.finished[who, "session", -1] > 1:
        twice.append(f"{who} session")
    return Became(ended + inner, lost, missing, twice)
