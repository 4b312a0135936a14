"""The doctor's look at the budget: does the governor tick, what can it read, can processes agree."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from otel_trading.budget.readings import Readings
from otel_trading.config.effective import Effective, plain_settings
from otel_trading.doctor import budget
from otel_trading.doctor.check import FAIL, OK, WARN, Check, Situation

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Recorder


def found(directory: Path) -> dict[str, Check]:
    """Run the checks in the environment as it is."""
    directory.chmod(0o700)
    effective = Effective()
    situation = Situation(effective, effective.settings or plain_settings(), str(directory), 3.0)
    return {check.name: check for check in budget.checks(situation)}


@pytest.fixture
def governed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the budget's default, on."""
    monkeypatch.delenv("OTEL_TRADING_BUDGET_ENABLED", raising=False)


@pytest.mark.usefixtures("governed")
def test_all_is_well(tmp_path: Path) -> None:
    """A governor ticks in a segment of its own, reads the machine, and leaves nothing but the shared file."""
    checks = found(tmp_path)
    assert set(checks) == {"shared verdicts", "budget", "pressure", "pressure stalls", "control groups"}
    assert {check.state for check in checks.values()} == {OK}
    assert "CPU load" in checks["pressure"].message
    assert [path.name for path in tmp_path.iterdir()] == ["traces.shared"]


@pytest.mark.usefixtures("governed")
def test_a_governor_that_does_not_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its thread comes to nothing, that is a failure."""
    monkeypatch.setattr(budget.core, "govern_start", lambda: None)
    monkeypatch.setattr(budget, "_PATIENCE", 0.1)
    check = found(tmp_path)["budget"]
    assert check.state == FAIL
    assert "has ticked 0 times" in check.message


@pytest.mark.usefixtures("governed")
def test_a_directory_that_can_not_be_used(tmp_path: Path) -> None:
    """Without a segment there is nothing to try, and that is told once more by the directory's own check."""
    where = tmp_path / "open"
    where.mkdir()
    effective = Effective()
    where.chmod(0o755)
    checks = {check.name: check for check in budget.checks(Situation(effective, plain_settings(), str(where), 3.0))}
    assert (checks["shared verdicts"].state, checks["budget"].state) == (WARN, FAIL)
    assert all(check.remedy for check in checks.values())


@pytest.mark.usefixtures("governed")
def test_a_shared_file_that_is_something_else(tmp_path: Path) -> None:
    """A file that is none of ours is left alone, and told with what to do."""
    path = tmp_path / "traces.shared"
    path.write_bytes(b"x" * 1_000_000)
    path.chmod(0o600)
    check = found(tmp_path)["shared verdicts"]
    assert check.state == WARN
    assert str(path) in check.remedy
    assert path.read_bytes() == b"x" * 1_000_000
    path.unlink()
    path.symlink_to("/dev/null")
    assert found(tmp_path)["shared verdicts"].state == WARN


def test_the_budget_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing is bounded is a warning, with who said so."""
    monkeypatch.setenv("OTEL_TRADING_BUDGET_ENABLED", "false")
    (check,) = found(tmp_path).values()
    assert check.state == WARN
    assert "OTEL_TRADING_BUDGET_ENABLED" in check.message


@pytest.mark.parametrize(
    ("cpu", "memory", "states"), [(0.2, 0.3, [OK, OK]), (math.nan, 0.3, [WARN, OK]), (math.nan, math.nan, [WARN, OK])]
)
def test_loads_that_can_not_be_read(recorder: Recorder, cpu: float, memory: float, states: list[str]) -> None:
    """A load without which modes do not follow is a warning; without stalls the loads are enough."""
    with Readings(recorder.path) as readings:
        reading = readings.read()._replace(cpu_load=cpu, memory_load=memory, cpu_stall=math.nan)
    checks = list(budget.pressure(reading))
    assert [check.state for check in checks] == states
    assert "not there" in checks[1].message


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0::/user.slice/session\n", "v2"),
        ("12:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/\n0::/\n", "v1"),
        ("1:name=systemd:/\n", "none"),
        ("nonsense\n", "none"),
        ("", "none"),
    ],
)
def test_control_groups(tmp_path: Path, text: str, version: str) -> None:
    """Which version limits this process is told from its own list; controllers of v1 win in a mixed one."""
    path = tmp_path / "cgroup"
    path.write_text(text)
    assert budget.groups(str(path)).message.startswith(version)
    assert budget.groups(str(tmp_path / "gone")).message.startswith("none")
