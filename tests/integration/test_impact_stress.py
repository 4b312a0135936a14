"""Stress from end to end: a real program under real pressure, its engine deciding; no time is judged.

How busy this machine is must not decide on these tests, so CPU load does not change the mode in them.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading.bench import children
from otel_trading.bench.children import BenchmarkError
from otel_trading.bench.receiving import receiver
from otel_trading.cli.main import main
from otel_trading.impact import applying, groups, stress, trials
from otel_trading.impact.blocks import environment
from otel_trading.impact.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(not children.has_otlp(), reason="the OTLP exporter is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="pressure is read from /proc"),
]

IDLE = {
    "engine.stressed_cpu": 1.0,
    "engine.emergency_cpu": 1.0,
    "engine.margin": 0.0,
    "budget.normal.latency_us": "none",
    "budget.normal.cpu_percent": "none",
}
"""No CPU load is above 1, and a violation of the budget is no matter here."""


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make segments in the test's directory, in children too, and no mode by CPU load."""
    monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path))
    plain: Callable[..., dict[str, Any]] = stress.options

    def options(what: stress.Plan, endpoint: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        return plain(what._replace(rate=500, orders=50), endpoint, {**(config or {}), **IDLE})

    monkeypatch.setattr(stress, "options", options)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of memory; what needs one is skipped where it can not be made."""
    with groups.limited(stress.GROUP_MB) as made:
        if made is None:
            pytest.skip("no control group of memory can be made here")
        yield made


def short(name: str) -> stress.Plan:
    """One kind of pressure, as short as it goes."""
    plan = stress.plan(quick=True, only=name, trials=0)
    return plan._replace(pressures=(plan.pressures[0]._replace(calm=0.1, held=0.5),))


def test_short_memory_leads_to_another_mode_and_back(group: Path) -> None:
    """Memory that is really short is seen by the engine, from its control group, and so is its end."""
    assert group.exists()
    found = stress.run(short("high_memory"))
    (one,) = found["pressures"]
    assert one["applied"]
    assert one["pressure"]["in_a_group"]
    assert one["calm"]
    assert one["as_expected"], one["changes"]
    assert one["changes"][0][1] in one["expected"]
    assert one["recovered"]
    assert one["changes"][-1][1] == "NORMAL"
    assert one["score"] >= 60.0
    assert found["score"] == one["score"]
    assert found["backend"] == ot.backend
    assert stress.passed(json.loads(json.dumps(found)))


@pytest.mark.parametrize("name", ["high_order_flow", "network_issues"])
def test_what_is_no_pressure_on_the_machine_leaves_the_mode_alone(name: str) -> None:
    """More orders, or a bad connection, are no reason to shed anything; the program trades on."""
    (one,) = stress.run(short(name))["pressures"]
    assert one["applied"]
    assert one["as_expected"], one["changes"]
    assert one["changes"] == []
    assert one["mode"] == "NORMAL"
    assert one["during"]["orders"] > 0
    assert one["after"]["accounts"]["recorded"] > one["before"]["accounts"]["recorded"]


def test_the_market_changes_as_it_is_told() -> None:
    """The running program is told of more movement and three times the volume, and then of calm again."""
    with receiver(None) as (endpoint, _):
        plan = short("market_volatility")
        with Subject(stress.options(plan, endpoint), environment(endpoint, "auto"), 120.0) as subject:
            made = stress._make(plan, plan.pressures[0], endpoint, 60.0, None)
            begun = made.begin(subject)
            assert begun.reached
            assert begun.told["volume"] == 3.0
            assert begun.told["volatility"] > 1.0
            assert made.end(subject) >= begun.unix_ns
            subject.end()


def test_trials_go_from_calm_to_pressure_and_back(group: Path) -> None:
    """Each trial has a time until the first heavier mode, and the quantiles are theirs."""
    with receiver(None) as (endpoint, _):
        bot = stress.options(short("high_memory"), endpoint, {"engine.dwell": trials.DWELL_S})
        with (
            applying.Memory(0.95 - 0.02, None, 120.0, group) as pressure,
            Subject(bot, environment(endpoint, "auto"), 120.0, group) as subject,
        ):
            steps: list[str] = []
            found = trials.run_trials(subject, pressure, 2, lambda what, _: steps.append(what))
            subject.end()
    assert found["count"] == len(found["first_s"]) == len(steps) == 2
    assert all(value is not None for value in found["first_s"])
    assert found["p50_s"] <= found["p99_s"] <= found["max_s"]
    assert found["met"] is (found["p99_s"] <= trials.TARGET_S)


def test_a_program_that_is_not_governed_is_an_error() -> None:
    """Without a budget there is no mode that could change, and no score for that."""
    with receiver(None) as (endpoint, _):
        options = stress.options(short("high_cpu"), endpoint, {"budget.enabled": False})
        with pytest.raises(BenchmarkError, match="not governed"):
            Subject(options, environment(endpoint, "auto"), 60.0).__enter__()


def test_a_program_that_can_not_start_says_why() -> None:
    """What is wrong in its configuration is in the error."""
    with receiver(None) as (endpoint, _):
        options = stress.options(short("high_cpu"), endpoint, {"engine.margin_": 1})
        with pytest.raises(BenchmarkError, match=r"engine\.margin"):
            Subject(options, environment(endpoint, "auto"), 60.0).__enter__()


def test_command_prints_and_writes_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``impact --stress`` tells the mode, the score, and writes everything as JSON."""
    file = tmp_path / "stress.json"
    arguments = ["impact", "--stress", "--quick", "--only", "network_issues", "--trials", "0", "--json", str(file)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Score: " in shown
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["kind"] == "stress"
    assert found["passed"] is True
    assert {"mode", "speed", "recovery", "accounts"} == set(found["pressures"][0]["points"])
