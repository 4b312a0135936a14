"""Drain hosts and agents are killed while traces wait for their verdict: what is kept is whole, and comes once."""

from __future__ import annotations

import ast
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import Scene
from agents import stage as stage  # noqa: PLC0414  a fixture
from conftest import wait_until

from otel_trading.segment import attach

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the agent needs Linux")

HOLD = 5.0  # seconds; a program that is held up for longer between two spans of a trace has it divided
SPANS = 4  # a trace, by and by, over a third of a second

# Hundreds of traces are under way at any moment.  Of each the last span tells whether the trace is kept for sure, as
# it ended with an error; the ledger has those.
PROGRAM = """
import os, sys, time
from collections import deque
import otel_trading as ot

ledger = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
limits = ("cpu_percent", "memory_mb", "latency_us", "network_kbps", "disk_iops")
ot.configure("held", config={
    "keep.hold": float(sys.argv[2]), "sampling.rate": 0.3, "ring.slots": 1 << 17, "export.queue": 1 << 17,
    **{f"budget.normal.{name}": "none" for name in limits},
})
ot.set_mode("NORMAL")
first, later = ot.probe("first", tier=ot.P1), ot.probe("later", tier=ot.P2)
under_way = [deque() for _ in range(int(sys.argv[3]) - 1)]
print("began", flush=True)
number = 0
while not os.path.exists(sys.argv[1] + ".stop") or any(under_way):
    for step, traces in reversed(list(enumerate(under_way))):
        while traces and time.monotonic() > traces[0][0]:
            _, root, n = traces.popleft()
            last = step == len(under_way) - 1
            wrong = last and n % 5 == 0
            later.record(root, 0, 0, wrong, {"n": n, "text": "x" * 50})
            if wrong:
                os.write(ledger, f"{root.trace_id:032x}\\n".encode())
            if not last:
                under_way[step + 1].append((time.monotonic() + 0.1, root, n))
    if not os.path.exists(sys.argv[1] + ".stop"):
        for _ in range(5):
            number += 1
            under_way[0].append((time.monotonic() + 0.1, first.record(None, 0, 0, False, {"n": number}), number))
    time.sleep(0.005)
print("written", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Held:
    """A program whose traces wait, and what became of them."""

    def __init__(self, stage: Scene) -> None:
        """Start it."""
        self.stage = stage
        self.ledger = stage.base / "traces.txt"
        self.process: subprocess.Popen[str] = stage.start(
            *("-c", PROGRAM, str(self.ledger), str(HOLD), str(SPANS)),
            OTEL_TRADING_HOST="agent",
            OTEL_TRADING_BUDGET_ENABLED="true",
        )
        assert stage.hear(self.process) == "began", stage.said()

    def await_drain(self, *but: int) -> int:
        """Wait until it is drained by another process than those; its pid."""
        wait_until(lambda: self._drained_by() not in {None, *but}, 40.0)
        pid = self._drained_by()
        assert pid is not None
        return pid

    def _drained_by(self) -> int | None:
        one = self.stage.segment(self.process.pid)
        return one["drain_host"] if one.get("state") == "drained" else None

    def await_waiting(self) -> None:
        """Wait until traces wait for their verdict, and others have had theirs since."""
        before = len(self.stage.receiver.requests)
        wait_until(lambda: len(self.stage.receiver.requests) > before, 40.0)
        wait_until(lambda: self._pending() > 2_000, 40.0)

    def _pending(self) -> int:
        reader = attach(self.stage.segment(self.process.pid)["path"])
        try:
            return sum(account["pending"] for account in reader.accounts())
        finally:
            reader.close()

    def demand(self) -> None:
        """Have it come to its end, and demand that all is accounted for, whole, and there once."""
        Path(f"{self.ledger}.stop").touch()
        assert self.stage.hear(self.process) == "written", self.stage.said()
        assert self.stage.tell(self.process, "print(ot.flush(30.0))") == "True"
        accounts = ast.literal_eval(self.stage.tell(self.process, "print(ot.accounts())"))
        assert self.stage.end(self.process) == 0
        wait_until(lambda: self.stage.segments() == [])
        spans = self.stage.receiver.spans()
        assert len({span.span_id for span in spans}) == len(spans), "some came twice"
        whole = Counter(span.trace_id.hex() for span in spans)
        wanted = self.ledger.read_text().split()
        assert len(wanted) > 500
        assert [trace for trace in wanted if whole[trace] != SPANS] == []
        assert {trace: count for trace, count in whole.items() if count != SPANS} == {}
        by_name = Counter(span.name for span in spans)
        for tier, name in ((1, "first"), (2, "later")):
            account = accounts[tier]
            assert account["recorded"] == account["exported"] + account["sampled_out"], accounts
            assert account["exported"] == by_name[name]
        plain = accounts[1]["recorded"] - len(wanted)
        assert 0.2 < (len(whole) - len(wanted)) / plain < 0.4


def test_sigkill_of_drain_hosts(stage: Scene) -> None:
    """The next one decides what the one before has not, and follows what it has decided."""
    stage.agent()
    held = Held(stage)
    killed: list[int] = []
    for _ in range(2):
        killed.append(held.await_drain(*killed))
        held.await_waiting()
        os.kill(killed[-1], signal.SIGKILL)
    held.await_drain(*killed)
    held.await_waiting()
    held.demand()


def test_sigkill_of_agents(stage: Scene) -> None:
    """Its drain hosts die with it; what is recorded while there is none waits in the ring."""
    held = Held(stage)
    for _ in range(3):
        agent = stage.agent()
        held.await_drain()
        held.await_waiting()
        assert stage.end(agent, signal.SIGKILL) == -signal.SIGKILL
    stage.agent()
    held.await_drain()
    held.await_waiting()
    held.demand()


def test_sigkill_of_program_and_drain_host(stage: Scene) -> None:
    """Of a program that is killed while its traces wait, those that are kept are whole, as far as it came."""
    stage.agent()
    held = Held(stage)
    host = held.await_drain()
    held.await_waiting()
    os.kill(host, signal.SIGSTOP)
    waiting = held._pending()
    wait_until(lambda: held._pending() > waiting + 500)
    stage.end(held.process, signal.SIGKILL)
    os.kill(host, signal.SIGKILL)
    wait_until(lambda: stage.segments() == [], 40.0)
    spans = stage.receiver.spans()
    assert len({span.span_id for span in spans}) == len(spans)
    whole = Counter(span.trace_id.hex() for span in spans)
    wanted = held.ledger.read_text().split()
    assert [trace for trace in wanted if whole[trace] != SPANS] == []
