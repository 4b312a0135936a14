"""A segment that another process writes is governed as one's own is: its pages tell all that the governor needs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from conftest import child_environment
from governing import CPU, EMERGENCY, MEMORY, NORMAL, STRESSED, Governed

from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAM = """
import gc, sys
gc.disable()
import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
ot.configure("bot", config={"ring.slots": 8192, "ring.thread_slots": 256, "drain.period": 60})
probe, low, gauge = ot.probe("work", tier=ot.P1), ot.probe("low", tier=ot.P3), ot.gauge("level", tier=ot.P2)
core.drain_give()
print(lifecycle._host.path, flush=True)
for line in sys.stdin:
    what, _, times = line.strip().partition(" ")
    for number in range(int(times or 1)):
        if what == "work":
            with probe:
                pass
        elif what == "low":
            with low:
                pass
        elif what == "market":
            ot.market_data("BTCUSDT", 1_700_000_000_000, 100.0 + number % 2, 1.0)
        elif what == "update":
            gauge.set(number)
    print(ot.mode(), flush=True)
"""

COSTS = (1.0, 10.0, 100.0, 1000.0, 1e4, 1e5, 1e6, 1e7)  # seconds, by COST_*: far more than this process takes


class Elsewhere:
    """A program in a process of its own, whose segment is adopted here."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=child_environment(directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.path = directory / self._heard()
        self.adopt()

    def adopt(self) -> None:
        """Drain and govern it here."""
        fd = os.open(self.path, os.O_RDWR)
        try:
            core.adopt(fd)
        finally:
            os.close(fd)

    def _heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, what: str) -> str:
        """Have it do something; gives its mode afterwards."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self._heard()

    def close(self) -> None:
        """End it, whatever it does."""
        core.let_go()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    """Give a program whose segment is adopted."""
    one = Elsewhere(tmp_path)
    yield one
    one.close()


@pytest.fixture
def governed(elsewhere: Elsewhere) -> Iterator[Governed]:
    """Give the governor of that segment."""
    one = Governed(elsewhere, budget=[inf] * at.BUDGETS * at.MODES, cost=COSTS)  # type: ignore[arg-type]
    yield one
    one.close()


def test_the_mode_is_in_force_there(elsewhere: Elsewhere, governed: Governed) -> None:
    """A decision here has the other process shed its tiers at the next record, and give them back."""
    governed.tick()
    governed.tick(0.1, cpu_load=0.95)
    assert governed.mode == EMERGENCY
    assert elsewhere.do("work 5") == "EMERGENCY"
    core.drain(True)
    assert [account["recorded"] for account in core.accounts()] == [0, 0, 0, 0]
    governed.ticks(5.0)
    assert elsewhere.do("work 5") == "NORMAL"
    core.drain(True)
    assert [account["recorded"] for account in core.accounts()] == [0, 5, 0, 0]


def test_the_thread_and_the_waits_work(
    elsewhere: Elsewhere, governed: Governed, until: Callable[[Callable[[], object]], None]
) -> None:
    """The governor's thread ticks for it, and who waits for decisions hears of them."""
    governed.policy.write({"period": 0.01, "enter": (0.0, 2.0, 2.0, 2.0)})
    before = governed.number("ticks")
    core.govern_start()
    until(lambda: governed.number("ticks") > before + 3)
    until(lambda: core.await_decision(0, 1.0) > 0)
    core.govern_stop()
    assert elsewhere.do("update") in {"NORMAL", "STRESSED"}


def test_use_is_the_segments_records_and_all_of_this_process(elsewhere: Elsewhere, governed: Governed) -> None:
    """Records by the other process's counts, and whatever CPU time this process takes, in any thread."""
    governed.measured()
    elsewhere.do("work 2")
    elsewhere.do("update 3")
    elsewhere.do("market 4")
    core.drain(True)
    governed.measured(1.0)
    expected = 2 * COSTS[at.COST_SPAN] + 3 * COSTS[at.COST_UPDATE] + 4 * COSTS[at.COST_MARKET]
    assert governed.reading("cpu_hot") == pytest.approx(expected)
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    governed.measured(1.0)
    assert governed.reading("cpu_hot") == 0.0
    assert governed.reading("usage", CPU) >= 0.2
    parts = ("cpu_hot", "cpu_drain", "cpu_export", "cpu_governor")
    assert governed.reading("usage", CPU) == pytest.approx(sum(governed.reading(part) for part in parts))


def test_memory_is_the_segment_and_this_process(elsewhere: Elsewhere, governed: Governed) -> None:
    """Its own pages count, looked at once a second; exporters' libraries and the segment's pages do not."""
    governed.policy.write({"base_memory": 1e6})
    governed.measured(1.0)
    segment, used = governed.reading("memory_segment"), governed.reading("usage", MEMORY)
    assert segment == os.stat(elsewhere.path).st_blocks * 512
    assert used > segment + 1e6 + 5e6  # Python itself
    block = bytearray(os.urandom(1) * (32 << 20))
    governed.measured(1.5)
    more = governed.reading("usage", MEMORY)
    assert 28e6 < more - used < 40e6
    governed.policy.write({"exporter_memory": 32e6})
    governed.measured(1.5)
    assert governed.reading("usage", MEMORY) == pytest.approx(more - 32e6, abs=4e6)
    del block


def test_the_market_is_what_the_other_process_tells(elsewhere: Elsewhere, governed: Governed) -> None:
    """Volatility comes from the page of market data alone."""
    for number in range(12):
        elsewhere.do(f"market {number + 1}")
        governed.measured(1.0)
    assert governed.reading("volatility") > 0.8


def test_buffers_are_asked_for_there(elsewhere: Elsewhere, governed: Governed) -> None:
    """Too much memory has the other process make its rings smaller."""
    governed.policy.write({"budget": [inf] * 4 + [1e6] * 4 + [inf] * 12})
    governed.tick()
    made = governed.tick(1.0, memory=9e9)
    assert [(one.kind, one.after) for one in made] == [(at.DECISION_BUFFERS, 0.25)]
    assert governed.word("buffers") == 2
    assert elsewhere.process.poll() is None


def test_what_another_governor_left_goes_on(elsewhere: Elsewhere, governed: Governed) -> None:
    """Mode, what was shed, sizes of rings and totals pass from one process that governs to the next."""
    governed.policy.write({"budget": [0.01] * 4 + [1e6] * 4 + [inf] * 12, "violations": 100.0})
    governed.tick()
    governed.tick(1.0, cpu=0.5, memory=9e9)
    governed.tick(1.0, cpu=0.5)
    governed.measured(0.1, cpu=0.0, memory=0.0)
    governed.tick(0.1, cpu_load=0.75)
    assert (governed.mode, governed.word("buffers")) == (STRESSED, 2)
    shares, ticks, total = governed.shares, governed.number("ticks"), governed.number("cpu_total")
    assert shares == (1.0, 1.0, 0.5, 0.0)
    core.let_go()
    elsewhere.adopt()
    governed.tick(0.1, cpu_load=0.75)
    assert governed.decisions() == []
    assert (governed.mode, governed.shares, governed.word("buffers")) == (STRESSED, shares, 2)
    assert governed.number("ticks") == ticks + 1
    assert governed.number("cpu_total") >= total
    made = governed.ticks(20.0)
    assert governed.mode == NORMAL
    assert governed.shares == (1.0, 1.0, 1.0, 1.0)
    assert governed.word("buffers") == 0
    assert {(one.kind, one.reason) for one in made} == {
        (at.DECISION_MODE, at.REASON_RECOVERED),
        (at.DECISION_BUFFERS, at.REASON_RECOVERED),
    }


def test_its_affinity_counts_and_not_ours(elsewhere: Elsewhere, governed: Governed, tmp_path: Path) -> None:
    """The load is that of the processors that the other process may use, and of its control groups."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("one processor only")
    root, pid = tmp_path / "system", elsewhere.process.pid
    os.sched_setaffinity(pid, cpus[:1])

    def write(path: str, text: str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    def spend(turn: int) -> None:
        """Be a tenth busy on the first processor, and wholly on the second."""
        lines = [f"cpu{cpus[0]} {10 * turn} 0 0 {90 * turn} 0", f"cpu{cpus[1]} {100 * turn} 0 0 0 0"]
        write("proc/stat", "\n".join([f"cpu  {110 * turn} 0 0 {90 * turn} 0", *lines, "intr 1", ""]))

    write("proc/meminfo", "MemTotal:  8000 kB\nMemAvailable:  6000 kB\n")
    write("proc/self/cgroup", "0::/ours\n")
    write(f"proc/{pid}/cgroup", "0::/theirs\n")
    write("proc/self/mountinfo", "30 22 0:20 / /cg rw shared:9 - cgroup2 cgroup2 rw\n")
    for group, limit in (("ours", "500000"), ("theirs", "1000000")):
        write(f"cg/{group}/cpu.max", "max 100000\n")
        write(f"cg/{group}/cpu.stat", "usage_usec 1\n")
        write(f"cg/{group}/memory.max", f"{limit}\n")
        write(f"cg/{group}/memory.current", "400000\n")
        write(f"cg/{group}/memory.stat", "inactive_file 0\n")
    spend(0)
    core.system_root(str(root))
    try:
        core.govern_start()  # has the files looked for anew
        core.govern_stop()
        loads: list[Any] = []
        for turn in range(1, 4):
            spend(turn)
            governed.now += 0.1
            core.govern({"now": governed.now})
            loads.append((governed.reading("cpu_load"), governed.reading("memory_load")))
    finally:
        core.system_root("")
    assert loads[-1] == (pytest.approx(0.1), pytest.approx(0.4))
