"""For the tests of who drains: programs that record, or drain, until they are killed, and a ledger of what is sent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from conftest import child_environment, wait_until

from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otel_trading._native import Batch, SpanState

EVERYTHING = 1 << 20

# What a drain does with the spans that it takes.  A line of the ledger is the moment in which a batch is the kernel's:
# "T 1 5 6" are the numbers of its spans, "S 1" comes when it is marked as sent.
DRAINING = """
import os, random, time
def drain(core, ledger, name, pause):
    batches = 0
    while True:
        core.drain()
        while len(batch := core.take(random.choice((1, 7, 64)))):
            batches += 1
            numbers = " ".join(str(state[11]["number"]) for state in batch.states())
            os.write(ledger, f"T {name}{batches} {numbers}\\n".encode())
            batch.sent()
            os.write(ledger, f"S {name}{batches}\\n".encode())
            if random.random() < 0.5:
                time.sleep(pause * random.random())
            batch.settle()
        time.sleep(pause * random.random())
"""

BOT = (
    DRAINING
    + """
import sys, threading
import otel_trading as ot
from otel_trading._backend import core
directory, drains, slots, burst = sys.argv[1], sys.argv[2] == "drains", int(sys.argv[3]), int(sys.argv[4])
ot.configure("bot", directory, {"ring.slots": slots, "ring.thread_slots": 256, "ring.open_spans": 256,
             "ring.arena_bytes": 1 << 18, "names.max": 2048, "drain.period": 60})
core.drain_stop(1.0)
ledger = os.open(os.path.join(directory, "ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
if drains:
    core.keep(1 << 23)
    threading.Thread(target=drain, args=(core, ledger, "bot", 0.004), daemon=True).start()
else:
    core.drain_give()
probes = [ot.probe(f"bot.p{tier}", tier=tier) for tier in range(4)]
left_open = probes[1].span(open=True)
left_open.begin()
print("ready", flush=True)
number = 0
while True:
    for _ in range(burst):
        with probes[number % 4].span(number=number, trace=number // 3):
            number += 1
    time.sleep(0.001)
"""
)

HOST = (
    DRAINING
    + """
import sys
from otel_trading._backend import core
directory, path, name = sys.argv[1:]
ledger = os.open(os.path.join(directory, "ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
fd = os.open(path, os.O_RDWR)
core.adopt(fd)
core.keep(1 << 23)
print("ready", flush=True)
drain(core, ledger, name, 0.004)
"""
)


class Program:
    """A Python program in a process of its own, which has said that it is ready."""

    def __init__(self, directory: Path, code: str, *arguments: str) -> None:
        """Start it, and wait until it is ready."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(directory), *arguments],
            env=child_environment(directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Ledger:
    """What drains have sent before they were killed."""

    def __init__(self, directory: Path) -> None:
        """Read the file, which may be absent."""
        path = directory / "ledger"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        taken = {words[1]: [int(word) for word in words[2:]] for line in lines if (words := line.split())[0] == "T"}
        marked = {line.split()[1] for line in lines if line.startswith("S")}
        # Killed between the sending of a batch and its marks: those may come again.
        self.doubtful = {number for name, numbers in taken.items() if name not in marked for number in numbers}
        self.numbers = Counter(number for numbers in taken.values() for number in numbers)

    def add(self, states: list[SpanState]) -> None:
        """Add what was sent since."""
        self.numbers.update(int(state[11]["number"]) for state in states if "number" in state[11])

    @property
    def twice(self) -> set[int]:
        """Numbers that came twice, but for those of which that may be."""
        return {number for number, count in self.numbers.items() if count > 1} - self.doubtful


class Adopting:
    """Segments in a directory, adopted by this process."""

    def __init__(self, directory: Path) -> None:
        """Nothing is adopted yet."""
        self.directory = directory
        self.programs: list[Program] = []

    def bot(self, *, drains: bool, slots: int = 1024, burst: int = 50) -> Program:
        """Start a program that records numbered spans without end."""
        self.programs.append(Program(self.directory, BOT, "drains" if drains else "", str(slots), str(burst)))
        return self.programs[-1]

    def host(self, path: Path, name: str) -> Program:
        """Start a program that adopts a segment and drains it."""
        self.programs.append(Program(self.directory, HOST, str(path), name))
        return self.programs[-1]

    @property
    def path(self) -> Path:
        """The one segment in the directory."""
        (path,) = self.directory.glob("*.seg")
        return path

    def adopt(self, path: Path | None = None) -> None:
        """Adopt it in this process."""
        fd = os.open(path or self.path, os.O_RDWR)
        try:
            core.adopt(fd)
        finally:
            os.close(fd)

    def header(self, offset: int, size: int = 8) -> int:
        """Read a field of the segment's header."""
        return field(self.path, offset, size)

    def control(self, offset: int) -> int:
        """Read a word of the segment's control page."""
        return field(self.path, self.header(at.OFF_HEADER_CONTROL_OFFSET) + offset, 8)

    def set_control(self, offset: int, value: int) -> None:
        """Write a word of the segment's control page."""
        with self.path.open("r+b") as file:
            file.seek(self.header(at.OFF_HEADER_CONTROL_OFFSET) + offset)
            file.write(value.to_bytes(8, "little"))

    def heads(self) -> int:
        """Give how many records the main ring has ever had."""
        return field(self.path, self.header(at.OFF_HEADER_RINGS_OFFSET) + at.OFF_RING_HEAD, 8)

    def close(self) -> None:
        """Let the segment go, and end the programs."""
        core.close()
        for program in self.programs:
            if program.process.poll() is None:
                program.kill()


def field(path: Path, offset: int, size: int) -> int:
    """Read a number of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return int.from_bytes(file.read(size), "little")


def sent(batch: Batch) -> list[SpanState]:
    """Have a batch exported."""
    states = batch.states()
    batch.sent()
    batch.settle()
    return states


def drained() -> list[SpanState]:
    """Decide everything, and have it exported."""
    core.drain(True)
    states: list[SpanState] = []
    while len(batch := core.take(1000)):
        states += sent(batch)
    return states


def totals() -> dict[str, int]:
    """Give the accounts of all tiers together; each tier is balanced."""
    sums: Counter[str] = Counter()
    for account in core.accounts():
        parts = ("exported", "sampled_out", "overwritten", "refused", "pending")
        assert account["recorded"] == sum(account[part] for part in parts), account
        assert all(count >= 0 for count in account.values()), account
        sums.update(account)
    return dict(sums)


def wait_for_records(adopting: Adopting, count: int) -> None:
    """Wait until the main ring has had so many records."""
    wait_until(lambda: adopting.heads() >= count)


@pytest.fixture
def adopting(tmp_path: Path) -> Iterator[Adopting]:
    """Give the means to start programs, and to adopt their segments."""
    made = Adopting(tmp_path)
    yield made
    made.close()
