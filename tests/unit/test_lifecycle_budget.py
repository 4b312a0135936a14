"""The budget from ``configure`` to the end: exits, signals and forks with its threads at work."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading import lifecycle, segment
from otel_trading._backend import core
from otel_trading.budget.readings import Readings

if TYPE_CHECKING:
    from conftest import Recorder

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.usefixtures("_budget")

START = """
import os, signal, sys, threading, time
import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.budget.policy import Policy
from otel_trading.budget.readings import Readings
ot.configure("bot", config={"ring.slots": 256, "ring.thread_slots": 64})
probe = ot.probe("work", tier=ot.P0)
def heralds():
    return [one for one in threading.enumerate() if one.name == "otel-trading-budget"]
def ticks():
    with Readings(lifecycle.own_segment()) as readings:
        return readings.read().ticks
def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
"""


def left(directory: Path) -> list[str]:
    """List what is in the directory but for the script."""
    return sorted(path.name for path in directory.iterdir() if path.name != "script.py")


def test_the_governor_ticks(run_python: Run, tmp_path: Path) -> None:
    """With nothing configured, the governor is at work from ``configure`` on; at the exit nothing is left or said."""
    done = run_python(START + "until(lambda: ticks() >= 3)\nprint(len(heralds()))\n")
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert left(tmp_path) == []


def test_an_exit_is_not_held_up(run_python: Run) -> None:
    """A program that ends at once does so, whatever the traces still wait for."""
    code = (
        START + "for _ in range(50):\n    with probe:\n        pass\nprint(ot.flush(), ot.accounts()[0]['pending'])\n"
    )
    assert run_python(code).stdout == "True 0\n"


def test_sigterm(run_python: Run, tmp_path: Path) -> None:
    """SIGTERM ends the program as it would without us, and takes the budget's files along."""
    done = run_python(START + "until(ticks)\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n", check=False)
    assert done.returncode == -signal.SIGTERM
    assert left(tmp_path) == []


def test_a_forked_child_has_its_own(run_python: Run, tmp_path: Path) -> None:
    """Its policy, its governor and its herald are its own, from its first record on; the parent's go on."""
    code = (
        START
        + """
until(ticks)
with Policy(lifecycle.own_segment()) as page:
    costs = page.costs()
pid = os.fork()
if pid == 0:
    assert lifecycle._host.governing is None and heralds() == []
    with probe:
        pass
    with Policy(lifecycle.own_segment()) as page:
        assert page.active and page.costs() == costs
    until(lambda: ticks() >= 2)
    assert len(heralds()) == 1
    with Readings(lifecycle.own_segment()) as readings:
        assert not readings.decisions() or readings.decisions()[0].number == 0
    ot.shutdown()
    assert heralds() == []
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert len(heralds()) == 1
before = ticks()
until(lambda: ticks() > before)
print(os.path.exists(os.path.join(os.path.dirname(lifecycle.own_segment()), "traces.shared")))
"""
    )
    assert run_python(code).stdout == "True\n"
    assert left(tmp_path) == []


def test_a_child_that_records_nothing_has_nothing(run_python: Run, tmp_path: Path) -> None:
    """Without a record the child makes neither a segment nor a thread."""
    code = (
        START
        + """
until(ticks)
pid = os.fork()
if pid == 0:
    time.sleep(0.2)
    os._exit(0 if heralds() == [] and lifecycle.own_segment() is None else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    )
    run_python(code)
    assert left(tmp_path) == []


def test_a_mode_is_the_childs_too(make_recorder: Callable[..., Recorder]) -> None:
    """What ``set_mode`` was told before a fork holds in the child."""
    make_recorder(**{"engine.period": 10})
    ot.set_mode("STRESSED")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with ot.probe("child", tier=ot.P0):
                code = 0 if ot.mode() == "STRESSED" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_shared_file_that_is_foreign(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, until: Callable[..., None]
) -> None:
    """It is told with the remedy and left alone; the process is governed without its neighbours."""
    (tmp_path / "traces.shared").symlink_to(tmp_path / "nothing")
    ot.configure("bot", tmp_path, {"ring.slots": 64})
    path = lifecycle.own_segment()
    assert path is not None
    with Readings(path) as readings:
        until(lambda: readings.read().ticks)
    (message,) = [one for one in caplog.messages if "traces.shared" in one]
    assert "decides for itself" in message
    assert "remove the file" in message
    ot.shutdown()
    assert (tmp_path / "traces.shared").is_symlink()


@pytest.mark.parametrize("content", [b"something else" * 1000, b"\0" * 64])
def test_a_shared_file_that_is_something_else(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    """A file of ours with other content is neither believed nor written."""
    path = tmp_path / "traces.shared"
    path.write_bytes(content)
    path.chmod(0o600)
    ot.configure("bot", tmp_path, {"ring.slots": 64, "engine.period": 10})
    assert any("decides for itself" in one for one in caplog.messages)
    assert path.read_bytes() == content


def test_what_can_not_be_governed_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the governor can not be started, that is told, and recording goes on as without it."""

    def broken() -> None:
        raise OSError("no thread")

    monkeypatch.setattr(core, "govern_start", broken)
    ot.configure("bot", tmp_path, {"ring.slots": 64})
    assert "no thread" in caplog.text
    with ot.probe("still") as span:
        assert span.recording
    ot.shutdown()
    assert [path.path for path in segment.segments(tmp_path)] == []


def test_costs_that_can_not_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The budget makes do with an estimate, and says so."""
    from otel_trading.budget import calibration
    from otel_trading.budget.policy import Policy

    def broken(*_: object) -> dict[str, float]:
        raise OSError("no room")

    monkeypatch.setattr(calibration, "costs", broken)
    ot.configure("bot", tmp_path, {"ring.slots": 64, "engine.period": 10})
    path = lifecycle.own_segment()
    assert path is not None
    with Policy(path) as page:
        assert page.costs()["span"] == pytest.approx(0.4e-6)
    assert "no room" in caplog.text


def test_the_measurement_leaves_nothing(make_recorder: Callable[..., Recorder]) -> None:
    """What was recorded to learn the costs is in no segment, no metric and no account of the user's.

    What the budget decides meanwhile, where the machine is slow, is.
    """
    recorder = make_recorder(**{"engine.period": 10, "mode": "normal"})
    decisions = {"monitoring.decision", "trading.monitoring.decisions"}
    accounts = recorder.accounts()
    assert [tier for tier in (1, 2, 3) if any(accounts[tier].values())] == []
    snapshot = core.snapshot()
    assert {one["name"] for one in snapshot["probes"] if one["count"]} <= decisions
    assert {one["name"] for one in snapshot["instruments"] if one["updates"]} <= decisions
    assert {record.name for record in recorder.records()} <= decisions


def test_configured_in_another_thread(tmp_path: Path, until: Callable[..., None]) -> None:
    """The budget works where the main thread does not configure, and ends from it."""
    thread = threading.Thread(target=lambda: ot.configure("bot", tmp_path, {"ring.slots": 64}))
    thread.start()
    thread.join()
    path = lifecycle.own_segment()
    assert path is not None
    with Readings(path) as readings:
        until(lambda: readings.read().ticks)
    ot.shutdown()
    assert left(tmp_path) == []


def test_what_exporters_take_is_told_apart(run_python: Run) -> None:
    """The memory of the exporters' libraries is in the policy by itself, and not in what the package took."""
    code = """
import sys
import otel_trading as ot
from otel_trading import lifecycle
from otel_trading.budget.policy import Policy
ot.configure("bot", config={"ring.slots": 64, "export.traces": sys.argv[1]})
with Policy(lifecycle.own_segment()) as page:
    print(page.number("base_memory") > 0, page.number("exporter_memory") > 1e5, page.number("base_memory") < 50e6)
"""
    assert run_python(code, "console").stdout.splitlines()[0] == "True True True"
    assert run_python(code, "none").stdout == "True False True\n"
