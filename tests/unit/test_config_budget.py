"""The keys of budget, engine, keep rules and rollout: what they take, and what they refuse."""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_trading.config import resolve
from otel_trading.config.budget_keys import BUDGET
from otel_trading.config.effective import Effective
from otel_trading.config.problems import InvalidConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def problem(config: dict[str, object]) -> str:
    """Give the one mistake of a configuration."""
    with pytest.raises(InvalidConfigurationError) as caught:
        resolve(config=config)
    (found,) = caught.value.problems
    return str(found)


@pytest.mark.usefixtures("_budget")
def test_the_defaults() -> None:
    """Without a word the engine chooses, and the limits are those of docs/budget.md."""
    values = resolve().values
    assert (values["mode"], values["budget.enabled"]) == ("auto", True)
    assert [values[f"budget.{mode}.memory_mb"] for mode in ("normal", "stressed", "emergency")] == [30.0, 15.0, 5.0]
    assert (values["keep.limits.slow"], values["keep.limits.error"]) == (20.0, inf)
    assert (values["rollout.schedule"], values["rollout.probe"], values["rollout.worse"]) == ((), None, 1.2)
    assert set(BUDGET) <= set(values)


@pytest.mark.parametrize(
    ("key", "given_as", "value"),
    [
        ("mode", "STRESSED", "stressed"),
        ("mode", " auto ", "auto"),
        ("budget.enabled", False, False),
        ("budget.normal.cpu_percent", 7, 7.0),
        ("budget.emergency.network_kbps", "none", inf),
        ("budget.emergency.disk_iops", 0, 0.0),
        ("budget.window", "250ms", 0.25),
        ("budget.violations", 0, 0),
        ("engine.emergency_cpu", 1, 1.0),
        ("engine.period", "50ms", 0.05),
        ("keep.hold", 0, 0.0),
        ("keep.limits.pinned", 0.5, 0.5),
        ("rollout.schedule", ["10% 10m", "50% 90s", "100%"], ("10% 10m", "50% 90s", "100%")),
        ("rollout.schedule", "10% 10m, 100%", ("10% 10m", "100%")),
        ("rollout.schedule", "", ()),
        ("rollout.probe", "order.ack", "order.ack"),
        ("rollout.worse", 1.5, 1.5),
    ],
)
def test_what_is_taken(key: str, given_as: object, value: object) -> None:
    """Each key takes numbers, times and words as people write them."""
    assert resolve(config={key: given_as}).values[key] == value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mode", "calm", "'calm' is no mode: use auto, normal, high_volatility, stressed or emergency"),
        ("mode", "off", "P0 is never switched off"),
        ("mode", 3, "3 is no mode"),
        ("budget.enabled", "sometimes", "neither true nor false"),
        ("budget.normal.cpu_percent", -1, "not a number of 0 or more, nor 'none'"),
        ("budget.normal.cpu_percent", nan, "not a number of 0 or more"),
        ("budget.normal.cpu_percent", inf, "not a number of 0 or more"),
        ("budget.normal.memory_mb", True, "not a number of 0 or more"),
        ("budget.normal.memory_mb", "30", "not a number of 0 or more"),
        ("budget.calm.memory_mb", 1, "no such key; did you mean"),
        ("budget.window", 0, "not between 0.05 and 60"),
        ("budget.violations", 1.5, "not a whole number"),
        ("engine.margin", 1.5, "not a number from 0 to 1"),
        ("engine.volatility", nan, "not a number from 0"),
        ("engine.period", "1ms", "not between 0.01 and 10"),
        ("keep.hold", -1, "not a time"),
        ("keep.limits.error", "all", "nor 'none'"),
        ("rollout.schedule", 10, "not a list of steps"),
        ("rollout.schedule", ["often"], "no step of a rollout"),
        ("rollout.schedule", ["50%", "10%"], "shares have to rise"),
        ("rollout.schedule", ["110%"], "share"),
        ("rollout.worse", 0.9, "not a number from 1"),
        ("keep.P0", 0, "P0 is never switched off"),
    ],
)
def test_what_is_refused(key: str, value: object, message: str) -> None:
    """A mistake is told with its key and what would be right."""
    told = problem({key: value})
    assert told.startswith(key + ": ")
    assert message in told


@pytest.mark.parametrize("what", ["cpu", "memory"])
def test_thresholds_in_the_wrong_order(what: str) -> None:
    """EMERGENCY does not come before STRESSED."""
    told = problem({f"engine.stressed_{what}": 0.95})
    assert told.startswith(f"engine.emergency_{what}: ")
    assert f"is below engine.stressed_{what}, 0.95" in told
    resolve(config={f"engine.stressed_{what}": 0.5, f"engine.emergency_{what}": 0.5})


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode, and whether there is a budget, can be said by variables, which win over a file."""
    monkeypatch.setenv("OTEL_TRADING_MODE", "High_Volatility")
    monkeypatch.setenv("OTEL_TRADING_BUDGET_ENABLED", "no")
    settings = resolve()
    assert (settings.values["mode"], settings.values["budget.enabled"]) == ("high_volatility", False)
    assert settings.sources["mode"] == "OTEL_TRADING_MODE"
    assert Effective().notes == []


def test_a_file(tmp_path: Path) -> None:
    """Nested keys, a list of steps and "none" come from YAML as they are written there."""
    file = tmp_path / "trading.yaml"
    file.write_text(
        "mode: stressed\n"
        "budget:\n  stressed: {cpu_percent: 0.5, network_kbps: none}\n  recover: 10s\n"
        "keep.limits: {slow: 5}\n"
        "rollout:\n  schedule: [10% 10m, 100%]\n  probe: strategy\n",
        encoding="utf-8",
    )
    values = resolve(config=file).values
    assert (values["mode"], values["budget.stressed.cpu_percent"], values["budget.recover"]) == ("stressed", 0.5, 10.0)
    assert values["budget.stressed.network_kbps"] == inf
    assert (values["keep.limits.slow"], values["rollout.schedule"]) == (5.0, ("10% 10m", "100%"))


def test_no_limit_is_shown_as_it_is_written() -> None:
    """What is in force says "none" where there is no limit, in text and in JSON."""
    effective = Effective()
    assert effective.document()["values"]["keep.limits.error"]["value"] == "none"
    assert any(line.split()[:2] == ["keep.limits.error", "none"] for line in effective.lines())


@given(st.sampled_from(sorted(BUDGET)), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()))
def test_nothing_but_mistakes_is_raised(key: str, value: object) -> None:
    """Whatever is given, it is taken or told as a mistake of that key."""
    told = []
    try:
        resolve(config={key: value})
    except InvalidConfigurationError as error:
        told = [str(one) for one in error.problems]
    assert all(key in one for one in told)
