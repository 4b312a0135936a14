"""Pulses: once a second whoever drains looks at the process."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import child_environment

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]

PROBE = ot.probe("pulses.probe")
QUEUE = ot.gauge("pulses.queue")
COUNTED = {"resident", "threads", "major_faults", "swap"}


def pulses(recorder: Recorder, limit: int = at.PULSES) -> list[dict[str, Any]]:
    """Read the newest."""
    return recorder.segment.reader.pulses(limit)


def pulse(recorder: Recorder, until: Callable[..., None]) -> dict[str, Any]:
    """Give the first pulse that begins after now."""
    before = recorder.segment.reader.life()["pulses"]

    def another() -> bool:
        core.drain()
        return bool(recorder.segment.reader.life()["pulses"] > before)

    until(another)
    return pulses(recorder)[-1]


def test_the_first_pass_looks(recorder: Recorder) -> None:
    """What the kernel says of the process is what it says elsewhere; CPU is not known before the second look."""
    core.drain()
    (first, *_) = pulses(recorder)
    assert abs(first["unix_ns"] - time.time_ns()) < 60e9
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 1 << 20 < first["resident"] <= most + (8 << 20)
    assert first["threads"] >= 1
    assert first["major_faults"] >= 0
    assert first["swap"] >= 0
    assert first["process_cpu"] is None


def test_a_look_a_second(recorder: Recorder, until: Callable[..., None]) -> None:
    """However often it is drained, there is one look a second; the second tells the CPU that was used since."""
    pulse(recorder, until)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        core.drain()
    second = pulse(recorder, until)
    times = [one["unix_ns"] for one in pulses(recorder)]
    assert all(later - sooner > 900_000_000 for sooner, later in itertools.pairwise(times))
    assert 0 < second["process_cpu"] <= (os.cpu_count() or 1) + 0.5


def test_what_the_segment_says(recorder: Recorder, until: Callable[..., None]) -> None:
    """Spans, orders, rejects, updates, the queue, and the age of the market data are as of the look."""
    core.queue_gauge(QUEUE)
    try:
        QUEUE.set(42)
        for number in range(5):
            core.order_put(f"order-{number}", 1, 2, True, 1, 3, 4, 1.0, 2.0, 0.0, 0.0, "BTCUSDT", 1)
        for number in range(2):
            core.order_put(f"order-{number}", 1, 2, True, 6, 3, 4, 1.0, 2.0, 0.0, 0.0, "BTCUSDT", 1)
        for _ in range(7):
            ot.market_data("BTCUSDT", None, 1.0)
        ot.market_data("ETHUSDT", None, 1.0)
        for _ in range(3):
            with PROBE:
                pass
        pulse(recorder, until)
        last = pulse(recorder, until)
    finally:
        core.queue_gauge(None)
    assert (last["orders"], last["rejects"], last["active_orders"], last["updates"]) == (5, 2, 3, 8)
    assert last["queue"] == 42.0
    assert last["spans"] == 3
    assert last["market_age_ms"] is not None
    assert (last["cpu_load"], last["memory_load"]) == (None, None)  # without the budget nobody reads them


def test_without_anything_to_tell(recorder: Recorder) -> None:
    """What there is nothing of is None or 0."""
    core.drain()
    first = pulses(recorder)[0]
    assert (first["market_age_ms"], first["queue"]) == (None, None)
    assert (first["orders"], first["rejects"], first["active_orders"], first["updates"], first["spans"]) == (0,) * 5
    assert first["late_beats"] == 0


def test_late_beats(recorder: Recorder, until: Callable[..., None]) -> None:
    """A bit a loop, by its number; loops that rest are not late."""
    for number in range(4):
        core.beat(f"loop-{number}", 1 if number != 1 else 3600 * 10**9)
    core.beat("loop-2", 0)
    pulse(recorder, until)
    assert pulse(recorder, until)["late_beats"] == 0b1001


@pytest.mark.usefixtures("_budget")
def test_the_budgets_readings(make_recorder: Callable[..., Recorder], until: Callable[..., None]) -> None:
    """CPU and memory load are the governor's newest, in pulses as in critical events."""
    recorder = make_recorder()
    until(lambda: _told(pulse(recorder, until)))
    core.critical("event", "", at.VITAL_CRITICAL, 0, math.nan)
    event = recorder.segment.reader.vitals(1)[0]
    assert 0 <= event["cpu_load"] <= 1
    assert 0 < event["memory_load"] <= 1


def _told(pulse: dict[str, Any]) -> bool:
    return pulse["memory_load"] is not None and 0 < pulse["memory_load"] <= 1


def test_events_tell_what_the_newest_pulse_saw(recorder: Recorder) -> None:
    """The resident memory of a critical event is that of the newest pulse; None before there is any."""
    core.critical("before", "", at.VITAL_CRITICAL, 0, math.nan)
    assert recorder.segment.reader.vitals()[0]["resident"] is None or pulses(recorder)
    core.drain()
    resident = pulses(recorder)[-1]["resident"]
    core.critical("after", "", at.VITAL_CRITICAL, 0, math.nan)
    assert recorder.segment.reader.vitals()[-1]["resident"] in {resident, *(p["resident"] for p in pulses(recorder))}


def test_the_newest_of_few(recorder: Recorder) -> None:
    """A limit is kept."""
    core.drain()
    assert len(pulses(recorder, 1)) == 1
    assert pulses(recorder, 0) == pulses(recorder, -5) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_looked_at_by_itself(run_python: Run) -> None:
    """Its memory is its own, not its parent's."""
    run_python(
        """
import os, otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core

def resident():
    core.drain()
    fd = os.open(lifecycle._host.path, os.O_RDONLY)
    return core.Reader(fd).pulses()[-1]["resident"]

ot.configure("forked")
before = resident()
child = os.fork()
if child == 0:
    much = bytearray(os.urandom(1 << 16)) * 1024  # 64 MB
    with ot.probe("child"): pass
    os._exit(0 if resident() > before + (48 << 20) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    )


def test_a_drain_of_another_process(tmp_path: Path, until: Callable[..., None]) -> None:
    """Whoever drains a segment looks at the process that writes it, not at itself."""
    code = """
import sys, time
import otel_trading as ot
from otel_trading._backend import core
ot.configure("writer")
much = bytearray(b"x" * (96 << 20))
core.drain_stop(5.0)
core.drain_give()
print("ready", flush=True)
sys.stdin.read()
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(tmp_path, OTEL_TRADING_BUDGET_ENABLED="false"),
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        (path,) = tmp_path.rglob("*.seg")
        fd = os.open(path, os.O_RDWR)
        reader = core.Reader(fd)
        before = reader.life()["pulses"]
        core.adopt(fd)
        os.close(fd)

        def seen() -> bool:
            core.drain()
            return bool(reader.life()["pulses"] > before)

        until(seen)
        last = reader.pulses()[-1]
        expected = int(Path(f"/proc/{writer.pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE")
        assert abs(last["resident"] - expected) < 16 << 20
        writer.kill()
        writer.wait()
        before = reader.life()["pulses"]
        until(seen)
        gone = reader.pulses()[-1]
        assert {gone[key] for key in COUNTED} == {None}
        reader.close()
    finally:
        with contextlib.suppress(RuntimeError):
            core.let_go()
        writer.kill()
        writer.communicate()
