"""A program whose segment an agent is to drain, and there is none: it says so, waits in bounded time, and leaves it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from segment_image import Image, write

from otel_trading import _layout as at
from otel_trading.agent import files, hosted
from otel_trading.agent import start as starting

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the agent needs Linux")

BEGIN = """
import glob, os, sys, time
import otel_trading as ot
from otel_trading.agent import hosted
from otel_trading.segment import attach
ot.configure("bot")
(path,) = glob.glob(os.environ["OTEL_TRADING_DIR"] + "/bot-*.seg")
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory of segments."""
    made = tmp_path / "segments"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """Give the pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Start no agent, and give what would have been started."""
    asked: list[list[str]] = []
    monkeypatch.setattr(starting, "spawn", lambda _where, arguments, _environment: asked.append(arguments))
    return asked


def test_without_an_agent(run_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """It is told once; flush and stats give nothing and do not wait for ever; the end is noted in the segment."""
    code = BEGIN + (
        "with ot.probe('work', tier=ot.P0): pass\n"
        "assert hosted.flush(path, time.monotonic() + 0.1) is False\n"
        "assert hosted.stats(path) == {}\n"
        "assert hosted.check(path) is False\n"
        "ot.shutdown()\n"
        "reader = attach(path)\n"
        "assert reader.info()['closed'] and reader.life()['drain_missing'] and not reader.settled()\n"
    )
    done = run_python(code, OTEL_TRADING_HOST="agent")
    assert done.stderr.count("no agent drains the segments") == 1
    (left,) = tmp_path.glob("bot-*.seg")
    assert left.stat().st_blocks * 512 < left.stat().st_size


def test_a_flush_of_nothing(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Where all is settled there is nobody to be asked."""
    run_python(BEGIN + "assert hosted.flush(path, time.monotonic()) is True\n", OTEL_TRADING_HOST="agent")


def test_nobody_is_looked_for_where_nobody_has_died(directory: Path, spawned: list[list[str]], dead_pid: int) -> None:
    """Living processes, and one that was shut down by itself and has left its orders: nothing is started."""
    write(directory / "alive.seg", Image(pid=os.getppid(), created_ns=1))
    write(directory / "closed.seg", Image(pid=dead_pid, created_ns=2, closed=1))
    hosted.look_for_dead(str(directory))
    assert spawned == []


@pytest.mark.parametrize("closed", [0, 1])
def test_the_dead_are_looked_into_by_another_process(
    directory: Path, spawned: list[list[str]], dead_pid: int, closed: int
) -> None:
    """One that died, and one that has left its segment to an agent: an agent is started for them alone."""
    image = Image(pid=dead_pid, created_ns=1, closed=closed)
    image.set_control(host=at.HOST_AGENT if closed else at.HOST_EMBEDDED)
    image.record(probe=0, start=1, end=2)
    write(directory / "dead.seg", image)
    hosted.look_for_dead(str(directory))
    assert spawned == [["--once", "--detached"]]


@pytest.mark.parametrize("lock", [files.LOCK, files.ONCE])
def test_not_where_somebody_does_it_already(
    directory: Path, spawned: list[list[str]], dead_pid: int, lock: str
) -> None:
    """An agent, and one that was started for the same."""
    write(directory / "dead.seg", Image(pid=dead_pid, created_ns=1))
    held = files.lock(str(directory), name=lock)
    assert held is not None
    try:
        hosted.look_for_dead(str(directory))
    finally:
        os.close(held)
    assert spawned == []
