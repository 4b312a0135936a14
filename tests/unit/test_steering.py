"""Steering this process's monitoring: modes, and traces that are to be kept; and that P0 stays through each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.segment import Control

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]

PROBES = [ot.probe(f"steering.p{tier}", tier=tier) for tier in range(4)]


def recorded() -> list[bool]:
    """Record a root in each tier; tells which were recorded."""
    found = []
    for probe in PROBES:
        with probe.span(ot.extract({})) as span:
            found.append(span.recording)
    return found


def test_modes(recorder: Recorder) -> None:
    """A mode is in force at the next record, in any case of its name, and released again."""
    assert ot.mode() == "NORMAL"
    for name, tiers in (("EMERGENCY", [True, False, False, False]), ("high_Volatility", [True] * 4)):
        ot.set_mode(name)
        assert ot.mode() == name.upper()
        assert recorded() == tiers
    ot.set_mode("Stressed")
    assert [recorded()[tier] for tier in (0, 1, 3)] == [True, True, False]
    ot.set_mode(None)
    assert ot.mode() == "NORMAL"
    assert recorded() == [True] * 4
    with Control(recorder.path) as control:
        assert control.forced is None


@pytest.mark.parametrize("mode", ["off", "P0", "", 3, True, b"NORMAL"])
def test_a_mode_that_is_none(recorder: Recorder, mode: object) -> None:
    """It is a fault, and changes nothing."""
    ot.set_mode("stressed")
    ot.set_mode(mode)  # type: ignore[arg-type]
    assert ot.mode() == "STRESSED"
    recorder.faults_expected = 1


def test_a_mode_before_configure(make_recorder: Callable[..., Recorder]) -> None:
    """It holds in the recorder that comes, and wins over the configuration."""
    ot.set_mode("EMERGENCY")
    assert ot.mode() == "NORMAL"
    make_recorder(mode="stressed")
    assert ot.mode() == "EMERGENCY"
    assert recorded() == [True, False, False, False]
    ot.set_mode(None)
    assert ot.mode() == "NORMAL"


@pytest.mark.parametrize("enabled", [False, True])
def test_the_configurations_mode(make_recorder: Callable[..., Recorder], *, enabled: bool) -> None:
    """It is forced from the start, with the budget at work or without it."""
    recorder = make_recorder(**{"mode": "emergency", "budget.enabled": enabled, "engine.period": 10})
    assert ot.mode() == "EMERGENCY"
    assert recorded() == [True, False, False, False]
    with Control(recorder.path) as control:
        assert control.forced == 3


def test_the_environments_mode(run_python: Run) -> None:
    """``OTEL_TRADING_MODE`` says it too; other processes see it, and may release it."""
    code = """
import otel_trading as ot
from otel_trading import lifecycle
from otel_trading.segment import Control
ot.configure("bot", config={"ring.slots": 64})
print(ot.mode())
with Control(lifecycle.own_segment()) as control:
    control.force("NORMAL")
print(ot.mode())
"""
    assert run_python(code, OTEL_TRADING_MODE="stressed").stdout == "STRESSED\nNORMAL\n"


@pytest.mark.parametrize("text", ["off", "none", "P0"])
def test_an_environment_that_asks_for_none(run_python: Run, text: str) -> None:
    """A mode that would be none is refused, and told."""
    code = "import otel_trading as ot\not.configure('bot')\n"
    done = run_python(code, check=False, OTEL_TRADING_MODE=text)
    assert done.returncode == 1
    assert "OTEL_TRADING_MODE" in done.stderr
    assert "is no mode" in done.stderr


@pytest.mark.parametrize(
    "config",
    [
        {"mode": "off"},
        {"mode": False},
        {"tiers": {"order.*": "off"}},
        {"tiers": {"order.*": False}},
        {"tiers.P0": False},
        {"budget.P0": 0},
        {"budget": {"emergency": {"p0": "off"}}},
        {"P0.enabled": False},
        {"keep": {"P0": 0.1}},
    ],
)
def test_a_configuration_that_switches_p0_off(tmp_path: Path, config: dict[str, object]) -> None:
    """Each way to write it is refused with the reason, and nothing is recorded by half."""
    with pytest.raises(ot.ConfigurationError, match=r"P0 (is never|never is)"):
        ot.configure("bot", tmp_path, config)
    assert lifecycle.settings() is None


def test_p0_through_every_other_way(make_recorder: Callable[..., Recorder]) -> None:
    """Neither a rate of 0, nor limits of 0, nor a rollout leave anything of P0 out."""
    limits = ("cpu_percent", "memory_mb", "latency_us", "network_kbps", "disk_iops")
    make_recorder(
        **{
            "budget.enabled": True,
            "engine.period": 10,
            "sampling.rate": 0,
            "mode": "emergency",
            **{f"budget.emergency.{limit}": 0 for limit in limits},
        }
    )
    with lifecycle._host.control() as control:
        control.rollout = 0.0
    now = 1000.0
    for _ in range(8):
        now += 1.1
        core.govern({"now": now, "cpu": 0.5, "memory": 1e9, "latency": 1.0, "network": 1e6, "disk": 1e3})
    assert recorded() == [True, False, False, False]


@pytest.mark.parametrize("name", ["order.ack", "order.reject", "risk.breach", "monitoring.decision"])
def test_what_is_always_of_p0(recorder: Recorder, name: str) -> None:
    """A program that defines it as something else is told, and gets a probe of P0."""
    from otel_trading import probes

    probes._probes.pop(name, None)
    assert ot.probe(name, tier=ot.P3).tier == 0
    probes._probes.pop(name)
    assert ot.probe(name, sla="5ms").tier == 0
    probes._probes.pop(name)
    recorder.faults_expected = 1


def test_pinning(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current trace, or the one that is named, is what the backend is told."""
    assert recorder.path.exists()
    asked: list[int] = []
    monkeypatch.setattr(core, "pin", lambda number: bool(asked.append(number)) or True)
    with ot.probe("pinned") as span:
        assert ot.pin()
        trace_id = ot.current_trace_id()
    assert trace_id is not None
    assert ot.pin(trace_id)
    assert ot.pin(span.trace_id)
    assert asked == [span.trace_id] * 3
    assert not ot.pin()
    assert recorder.faults == 0


@pytest.mark.parametrize("trace_id", ["", "xyz", 0, -1, 1 << 128, 1.5, object(), "0" * 32])
def test_pinning_what_is_no_trace(recorder: Recorder, trace_id: object) -> None:
    """It is a fault, and nothing is pinned."""
    assert not ot.pin(trace_id)  # type: ignore[arg-type]
    recorder.faults_expected = 1
