"""An agent tells of the budget of the programs that it drains, and takes little itself."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from agents import Scene
from agents import stage as stage  # noqa: PLC0414  a fixture
from conftest import wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the agent needs Linux")


def test_a_budget_that_is_exceeded_is_an_alert(stage: Scene) -> None:
    """The drain host raises it once, by the ways out of the agent's configuration, and logs it once."""
    got = stage.base / "alerts.jsonl"
    config = stage.base / "config.yaml"
    alerts = f"alerts: {{command: [sh, -c, 'cat >> {got}; echo >> {got}']}}\n"
    budget = "budget: {violations: 0, window: 0.2, normal: {cpu_percent: 0.000001}}\n"
    config.write_text(config.read_text() + alerts + budget, encoding="utf-8")
    stage.agent()
    program = stage.program(
        1_000_000, 0.001, OTEL_SERVICE_NAME="greedy", OTEL_TRADING_BUDGET_ENABLED="true", OTEL_TRADING_MODE="normal"
    )
    wait_until(lambda: got.exists() and got.read_text().endswith("}\n"), 40.0)
    alert = json.loads(got.read_text())
    assert (alert["name"], alert["severity"]) == ("MonitoringBudgetExceeded", "critical")
    assert alert["labels"]["service"] == "greedy"
    assert "P0 only" in alert["summary"]
    stage.enough()
    assert stage.hear(program) == "written"
    stage.await_all()
    assert stage.end(program) == 0
    wait_until(lambda: stage.segments() == [])
    assert len(got.read_text().splitlines()) == 1
    said = [line for line in stage.said().splitlines() if "times in a row, P0 only" in line]
    assert len(said) == 1
    assert "CRITICAL" in said[0]


def test_an_agent_with_nothing_to_do_sleeps(stage: Scene) -> None:
    """It wakes twice a second for a program that does nothing."""
    agent = stage.agent()
    program = stage.program(1, OTEL_TRADING_BUDGET_ENABLED="true", OTEL_TRADING_MODE="normal")
    assert stage.hear(program) == "written"
    wait_until(lambda: stage.segment(program.pid).get("state") == "drained")
    stage.await_all()
    before, began = _sleeps(agent.pid), time.monotonic()
    time.sleep(4.0)
    slept = _sleeps(agent.pid) - before
    assert slept <= 2.0 * (time.monotonic() - began) + 2


def _sleeps(pid: int) -> int:
    """Give how often a process has gone to sleep."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
