"""What is said of a program under pressure: score, plan, tables.  Real pressure is in the integration tests."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from otel_trading.bench.children import BenchmarkError
from otel_trading.budget.modes import BUDGETS
from otel_trading.cli.main import main
from otel_trading.impact import relay, scoring, stress, stress_report

shares = st.floats(0.0, 1.0)


def one(**changes: Any) -> dict[str, Any]:
    """What comes of a pressure that all went well with."""
    latency = {"p50": 1000.0, "p99": 2000.0}
    report = {"orders": 10, "order_ns": latency, "cpu": 0.1, "accounts": {"overwritten": 0, "refused": 0}}
    return {
        "name": "high_cpu",
        "label": "CPU at 0.9",
        "expected": ["EMERGENCY"],
        "applied": True,
        "pressure": {"processes": 2},
        "calm": True,
        "mode": "EMERGENCY",
        "changes": [[0.06, "EMERGENCY"], [4.0, "STRESSED"], [6.0, "NORMAL"]],
        "adapt_s": 0.06,
        "adapt_limit_s": 0.1,
        "recovered": True,
        "recovery_s": 2.0,
        "before": report,
        "during": report,
        "after": report,
        "readings": {"usage": dict.fromkeys(BUDGETS, 0.0), "steps": 0, "mode": "EMERGENCY"},
        "limits": dict.fromkeys(BUDGETS, 1.0),
        "lost_spans": 0,
        "as_expected": True,
        "points": {},
        "score": 100.0,
        **changes,
    }


def results(*pressures: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Results of a stress run."""
    return {"pressures": list(pressures), "score": 100.0, "trials": None, **changes}


def rendered(parts: Any) -> str:
    """What a terminal would show."""
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    for part in parts:
        console.print(part)
    return shown.getvalue()


# ---- the score


def points(**changes: Any) -> scoring.Score:
    """The score of what went well, changed."""
    good: dict[str, Any] = {
        "expected": True,
        "adapt_s": 0.05,
        "limit_s": 0.1,
        "within": 1.0,
        "recovered": True,
        "lost": 0,
    }
    return scoring.score(**{**good, **changes})


def test_all_that_went_well_has_all_points() -> None:
    """The expected mode in time, recovered from, nothing lost: 100."""
    assert points().total == 100.0
    assert points(limit_s=0.0, adapt_s=None).total == 100.0


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"expected": False}, 60.0),
        ({"adapt_s": None}, 70.0),
        ({"adapt_s": 2.0}, 70.0),
        ({"adapt_s": 1.05}, 85.0),
        ({"recovered": False}, 80.0),
        ({"lost": 1}, 90.0),
        ({"limit_s": 0.0, "within": 0.5}, 85.0),
    ],
)
def test_each_failure_costs_its_points(change: dict[str, Any], left: float) -> None:
    """A mode that is wrong costs 40, slowness up to 30, no recovery 20, lost spans 10."""
    assert points(**change).total == pytest.approx(left)


@given(
    adapt=st.floats(-10.0, 1e6),
    limit=st.floats(0.01, 100.0),
    within=shares,
    expected=st.booleans(),
    recovered=st.booleans(),
    lost=st.integers(0, 9),
)
def test_a_score_is_of_a_hundred(
    *, adapt: float, limit: float, within: float, expected: bool, recovered: bool, lost: int
) -> None:
    """However long it took, points are neither negative nor more than there are; the faster never has fewer."""
    rest = {"limit_s": limit, "within": within, "expected": expected, "recovered": recovered, "lost": lost}
    found = points(adapt_s=adapt, **rest)
    assert 0.0 <= found.total <= 100.0
    assert adapt < 0.0 or points(adapt_s=adapt / 2.0, **rest).speed >= found.speed


def test_expectations() -> None:
    """A heavier mode has to be there at last; NORMAL may never have been left."""
    assert scoring.as_expected(("EMERGENCY",), ["STRESSED", "EMERGENCY"], "EMERGENCY")
    assert not scoring.as_expected(("EMERGENCY",), ["STRESSED"], "STRESSED")
    assert not scoring.as_expected(("EMERGENCY",), ["EMERGENCY", "STRESSED"], "STRESSED")
    assert scoring.as_expected(("STRESSED", "EMERGENCY"), ["STRESSED"], "STRESSED")
    assert scoring.as_expected(("NORMAL",), [], "NORMAL")
    assert not scoring.as_expected(("NORMAL",), ["STRESSED", "NORMAL"], "NORMAL")


def test_limits_kept_are_counted() -> None:
    """Two of five limits exceeded is three fifths of the points."""
    usage = {**dict.fromkeys(BUDGETS, 1.0), "cpu": 2.0, "network": 2.0}
    assert scoring.within_limits(usage, dict.fromkeys(BUDGETS, 1.0)) == pytest.approx(0.6)


# ---- the plan and the verdict


def test_a_quick_run_leaves_out_what_takes_long_unless_it_is_asked_for() -> None:
    """The market has to be known for half a minute; a quick run does without, and does it where it is named."""
    assert [one.name for one in stress.plan(quick=False).pressures] == [one.name for one in stress.PRESSURES]
    assert "market_volatility" not in [one.name for one in stress.plan(quick=True).pressures]
    assert [one.name for one in stress.plan(quick=True, only="market_volatility").pressures] == ["market_volatility"]
    assert stress.plan(quick=False).trials == 10
    assert stress.plan(quick=False, trials=100).trials == 100
    with pytest.raises(BenchmarkError, match="high_order_flow"):
        stress.plan(quick=True, only="tedium")


@pytest.mark.parametrize("change", [{"applied": False}, {"as_expected": False}, {"recovered": False}])
def test_every_pressure_has_to_be_applied_met_and_recovered_from(change: dict[str, Any]) -> None:
    """One that was not, fails the run."""
    assert stress.passed(results(one(), one()))
    assert not stress.passed(results(one(), one(**change)))


@pytest.mark.parametrize(("outcome", "code"), [(True, 0), (False, 1)])
def test_command_tells_by_its_exit_code(
    *, outcome: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 where all was as expected, 1 where it was not, and the next command last."""
    monkeypatch.setattr(stress, "run", lambda *_: results(one(as_expected=outcome)))
    assert main(["impact", "--stress"]) == code
    shown = capsys.readouterr().out
    assert "CPU at 0.9" in shown
    assert shown.rstrip().splitlines()[-1].startswith("Next: otel-trading ")


def test_report_says_what_was_not_applied_and_what_was_not_calm() -> None:
    """Pressure that was not reached is named with the option that helps, a busy machine with what it means."""
    short = one(
        name="high_memory", label="memory at 0.9", applied=False, pressure={"load": 0.5, "bytes": 7_000_000}, calm=False
    )
    trials = {"count": 3, "p50_s": 0.05, "p99_s": 0.2, "max_s": 0.2, "target_s": 0.1, "met": False,
              "emergency_s": [0.1, None, 0.2]}  # fmt: skip
    text = rendered(stress_report.tables(results(one(), short, score=None, trials=trials)))
    assert "not applied" in text
    assert "--memory-limit" in text
    assert "was not NORMAL before" in text
    assert "exceeded" in text
    assert "not reached in 1" in text


# ---- a bad connection


@given(st.integers(1, 100_000))
def test_a_good_connection_holds_nothing_up(size: int) -> None:
    """Without loss it is the delay and no more."""
    line = relay.Relay(0)
    line.delay = 0.1
    assert line.held_up(size) == 0.1
    assert line.lost == 0


def test_a_bad_connection_loses_the_share_that_it_should() -> None:
    """One in twenty segments is lost, and each holds up what is behind it by a retransmission at least."""
    line = relay.Relay(0)
    line.loss, line.delay = 0.05, 0.1
    delays = [line.held_up(relay.SEGMENT) for _ in range(20_000)]
    assert line.lost / 20_000 == pytest.approx(0.0526, abs=0.01)
    assert min(delays) == 0.1
    assert sum(delay > 0.1 for delay in delays) / 20_000 == pytest.approx(0.05, abs=0.01)
    assert min(delay for delay in delays if delay > 0.1) == pytest.approx(0.1 + relay.RETRANSMISSION + 0.2)
