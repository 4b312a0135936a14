"""A trading program at the load of the impact validator, and the memory of all that belongs to it over time."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from killing import environment, running_agent
from otlp_receiver import Receiver, over_http

if TYPE_CHECKING:
    from collections.abc import Callable

# 10,000 updates of market data and 1,000 orders a second, each with its spans; with a pause the rate holds on average.
PROGRAM = """
import sys, time
import otel_trading as ot

seconds = float(sys.argv[1])
ot.configure("soak")
tick, order = ot.probe("tick", tier=ot.P2, leaf=True), ot.probe("order.send", tier=ot.P0)
began, updates = time.monotonic(), 0
print("trading", flush=True)
while (now := time.monotonic() - began) < seconds:
    while updates < now * 10_000:
        token = tick.start()
        ot.market_data("BTCUSDT", time.time() * 1000, price=100.0 + updates % 7, volume=1.0)
        tick.stop(token)
        if updates % 10 == 0:
            with order.span(symbol="BTCUSDT", qty=1.0):
                sent = ot.order(f"o-{updates}", symbol="BTCUSDT", side="buy", qty=1.0, price=100.0)
                sent.ack()
                sent.fill(100.0, 1.0)
        updates += 1
    time.sleep(0.002)
ot.shutdown()
"""


def _private(pid: int) -> int:
    """Give the bytes that a process takes, its part of what it shares included."""
    with Path(f"/proc/{pid}/smaps_rollup").open() as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        try:
            children = Path(f"/proc/{each}/task/{each}/children").read_text()
        except OSError:
            continue
        found += [int(child) for child in children.split()]
    return found


def memory_over_time(
    directory: Path, host: str, seconds: int, progress: Callable[[str], None]
) -> list[tuple[float, float]]:
    """Run it; gives (seconds since the beginning, bytes of the program and its agent), ten times a second at most."""
    segments = directory / "segments"
    segments.mkdir(mode=0o700)
    receiver = Receiver()
    with ExitStack() as stack:
        url = stack.enter_context(over_http(receiver))
        around = environment(segments, url) | {"OTEL_TRADING_HOST": host, "OTEL_TRADING_BUDGET_ENABLED": "true"}
        pids = []
        if host == "agent":
            agent = stack.enter_context(running_agent(around, directory / "agent.log"))
            pids.append(agent.process.pid)
        program = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", PROGRAM, str(seconds)], env=around, stdout=subprocess.PIPE)
        )
        pids.append(program.pid)
        assert program.stdout is not None
        program.stdout.readline()
        began = time.monotonic()
        samples = []
        while program.poll() is None:
            try:
                now = sum(_private(each) for pid in pids for each in _tree(pid))
            except (OSError, StopIteration):  # one of them has just ended
                continue
            samples.append((time.monotonic() - began, float(now)))
            receiver.requests.clear()
            progress(f"soak, {host}: {samples[-1][0]:.0f} of {seconds} s, {samples[-1][1] / 1e6:.2f} MB")
            time.sleep(max(0.1, seconds / 2_000))
        assert program.returncode == 0
    return samples


def slope(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """Give the slope over the last two thirds, bytes a second, and its standard error.

    By least squares over means of blocks, as neighbouring samples are not independent.
    """
    late = [sample for sample in samples if sample[0] >= samples[-1][0] / 3]
    size = max(1, len(late) // 20)
    blocks = [late[start : start + size] for start in range(0, len(late) - size + 1, size)]
    points = [(sum(t for t, _ in block) / size, sum(m for _, m in block) / size) for block in blocks]
    count = len(points)
    mean_t, mean_m = sum(t for t, _ in points) / count, sum(m for _, m in points) / count
    spread = sum((t - mean_t) ** 2 for t, _ in points)
    rate = sum((t - mean_t) * (m - mean_m) for t, m in points) / spread
    left = sum((m - mean_m - rate * (t - mean_t)) ** 2 for t, m in points)
    return rate, (left / max(1, count - 2) / spread) ** 0.5
