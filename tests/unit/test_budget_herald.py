"""The herald: decisions become log records, spans and counts, and nothing that goes wrong in it ends it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from math import inf, isnan
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading import faults, lifecycle
from otel_trading._backend import core
from otel_trading.budget import herald
from otel_trading.budget.decisions import Decision
from otel_trading.budget.readings import Readings
from otel_trading.segment.messages import event as decoded

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Recorder

Run = Callable[..., subprocess.CompletedProcess[str]]
Govern = Callable[..., None]

THREAD = "otel-trading-budget"
CALM: dict[str, float] = {
    "cpu_load": 0.1,
    "memory_load": 0.1,
    "cpu_stall": 0.0,
    "memory_stall": 0.0,
    "volatility": 0.0,
    "volume": 0.0,
    "cpu": 0.0,
    "memory": 0.0,
    "latency": 0.0,
    "network": 0.0,
    "disk": 0.0,
}

CALM_MACHINE = {name: value for name, value in CALM.items() if name not in {"volatility", "volume"}}


@pytest.fixture
def governed(make_recorder: Callable[..., Recorder]) -> Recorder:
    """Give a recorder whose governor ticks only when a test says so."""
    return make_recorder(**{"budget.enabled": True, "engine.period": 10, "rollout.schedule": ()})


@pytest.fixture
def govern(governed: Recorder) -> Govern:
    """Give the function that makes one tick, with a calm machine but for what is told."""
    assert governed.path.exists()
    now = [1000.0]

    def tick(seconds: float = 0.1, **readings: float) -> None:
        now[0] += seconds
        core.govern({"now": now[0], **CALM, **readings})

    return tick


def heralds() -> list[threading.Thread]:
    """List the herald's threads."""
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def count(kind: str, reason: str) -> float:
    """Give how often a decision was counted."""
    attributes = f'{{"trading.monitoring.kind":"{kind}","trading.monitoring.reason":"{reason}"}}'
    for one in core.snapshot()["instruments"]:
        if (one["name"], one["attributes"]) == ("trading.monitoring.decisions", attributes):
            return float(one["value"])
    return 0.0


def test_a_decision_is_told(
    governed: Recorder, govern: Govern, until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A change of mode is a log record with a sentence, a span of P0 with its figures, and a count."""
    caplog.set_level(logging.INFO, "otel_trading.budget")
    govern()
    govern(cpu_load=0.95)
    until(lambda: count("mode", "cpu") == 1)
    until(lambda: caplog.records)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("otel_trading.budget", logging.WARNING)
    assert record.getMessage() == "mode NORMAL -> EMERGENCY: the system's CPU load, 0.950, is above 0.850"
    until(lambda: count("mode", "cpu") == 1)
    span = governed.only("monitoring.decision")
    assert (span.tier, span.parent_id, span.status) == (0, 0, 0)
    assert span.attributes == {
        "trading.monitoring.kind": "mode",
        "trading.monitoring.reason": "cpu",
        "trading.monitoring.mode": "EMERGENCY",
    }
    (event,) = span.events
    name, _, attributes, _ = decoded(event)
    assert name == "monitoring.decision"
    assert attributes == {
        "trading.monitoring.figure": 0.95,
        "trading.monitoring.limit": 0.85,
        "trading.monitoring.before": 0.0,
        "trading.monitoring.after": 3.0,
        "trading.monitoring.message": record.getMessage(),
    }


def test_what_is_wrong_with_a_handler_stays_there(
    governed: Recorder, govern: Govern, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log handler that raises costs its record, said once; the span, the count and the next decision are there."""

    class Broken(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            raise RuntimeError("broken handler")

    told: list[str] = []
    monkeypatch.setattr(herald, "report", lambda key, message: told.append(f"{key} {message}"))
    logger = logging.getLogger("otel_trading.budget")
    handler = Broken()
    logger.addHandler(handler)
    try:
        govern(cpu_load=0.95)
        until(lambda: told)
        for _ in range(30):
            govern(1.0)
        until(lambda: count("mode", "recovered") >= 1)
    finally:
        logger.removeHandler(handler)
    assert "broken handler" in told[0]
    assert count("mode", "cpu") >= 1  # again, where the machine itself is busy
    assert len(governed.named("monitoring.decision")) >= 2
    assert len(heralds()) == 1


@pytest.mark.parametrize(
    ("kind", "before", "after", "level"),
    [
        (at.DECISION_MODE, at.MODE_NORMAL, at.MODE_EMERGENCY, logging.WARNING),
        (at.DECISION_MODE, at.MODE_NORMAL, at.MODE_HIGH_VOLATILITY, logging.INFO),
        (at.DECISION_MODE, at.MODE_EMERGENCY, at.MODE_STRESSED, logging.INFO),
        (at.DECISION_RATE, 1.0, 0.5, logging.WARNING),
        (at.DECISION_RATE, 0.5, 1.0, logging.INFO),
        (at.DECISION_BUFFERS, 1.0, 0.25, logging.WARNING),
        (at.DECISION_EXPORTS, 0.0, 1.0, logging.WARNING),
        (at.DECISION_EXPORTS, 1.0, 0.0, logging.INFO),
        (at.DECISION_VIOLATION, 0.0, 0.0, logging.WARNING),
        (at.DECISION_ALERT, 0.0, 4.0, logging.CRITICAL),
        (at.DECISION_FAILED, 0.0, 0.0, logging.ERROR),
        (at.DECISION_WORKS, 0.0, 0.0, logging.INFO),
    ],
)
def test_levels(kind: int, before: float, after: float, level: int) -> None:
    """What is given up is a warning, what comes back is not, and an alert is critical."""
    mode = int(after) if kind == at.DECISION_MODE else 0
    assert herald.level_of(Decision(0, 0, kind, 1, 0, mode, 0.0, 0.0, before, after)) == level


DECIDES = """
import sys, time
import otel_trading as ot
from otel_trading._backend import core
from otel_trading.budget import herald
from otel_trading.budget.decisions import Decision
ot.configure("bot", config={"ring.slots": 64, "engine.period": 10})
herald._log(Decision(0, 0, int(sys.argv[1]), 6, 0, 3, 4.0, 3.0, 0.0, 3.0))
print("logging" in sys.modules)
ot.shutdown()
"""


@pytest.mark.usefixtures("_budget")
def test_a_program_without_logging_hears_of_alerts_only(run_python: Run) -> None:
    """Where logging is not even loaded it stays so, but for an alert, which goes to standard error."""
    said = run_python(DECIDES, str(at.DECISION_MODE))
    assert (said.stdout, said.stderr) == ("False\n", "")
    said = run_python(DECIDES, str(at.DECISION_ALERT))
    assert said.stdout == "True\n"
    assert said.stderr == "over the budget 3 times in a row, P0 only: 4 violations in a row, 3 are borne\n"


@pytest.mark.usefixtures("_budget")
def test_an_alert_goes_through_the_door(run_python: Run, tmp_path: Path) -> None:
    """Too many violations in a row are an alert for the ways out that are configured, besides the log record."""
    (tmp_path / "alerts.yaml").write_text(f"alerts: {{command: [sh, -c, 'cat > {tmp_path}/got']}}")
    code = DECIDES.replace("herald._log(", "herald._alert(").replace(
        'print("logging" in sys.modules)', "from otel_trading import alerts\nassert alerts.flush(20.0)"
    )
    run_python(code, str(at.DECISION_ALERT), OTEL_TRADING_CONFIG=str(tmp_path / "alerts.yaml"))
    got = json.loads((tmp_path / "got").read_text())
    assert (got["name"], got["severity"], got["labels"]) == ("MonitoringBudgetExceeded", "critical", {"service": "bot"})
    assert got["details"]["violations"] == 4.0


def test_rings_get_their_size(governed: Recorder, govern: Govern, until: Callable[..., None]) -> None:
    """Memory over the limit: the herald has the rings made smaller, and larger again when there is room."""
    govern(memory=31e6)
    for _ in range(3):
        govern(1.1, memory=31e6)
    with Readings(governed.path) as readings:
        with lifecycle._host.control() as control:
            until(lambda: readings.read().buffers >= 2 and control.buffers_fit)
        assert [one.kind_name for one in readings.decisions()][:1] == ["buffers"]


def test_the_users_market_function(governed: Recorder, until: Callable[..., None]) -> None:
    """It is called in the herald's thread, several times a second, and what it says is what the engine takes."""
    called: list[str] = []

    def condition() -> tuple[float, float]:
        called.append(threading.current_thread().name)
        return 0.9, 2.5

    ot.market_condition(condition)
    try:
        until(lambda: len(called) >= 3)
        assert set(called) == {THREAD}
        core.govern({"now": time.monotonic(), **CALM_MACHINE})
        with Readings(governed.path) as readings:
            reading = readings.read()
            assert (reading.volatility, reading.volume) == (0.9, 2.5)
            assert ot.mode() == "HIGH_VOLATILITY"
    finally:
        ot.market_condition(None)
    until(lambda: not lifecycle._host.governing._herald._market_told)  # type: ignore[union-attr]
    before = len(called)
    lifecycle.attend_to_budget()
    assert len(called) == before


@pytest.mark.parametrize("answer", [None, (1.0,), ("a", "b"), RuntimeError("no market")])
def test_a_market_function_that_fails(
    governed: Recorder, until: Callable[..., None], answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it gives or raises, the mode stays, the engine says that it can not tell, and it is logged once."""

    def condition() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    ot.market_condition(condition)
    try:
        with Readings(governed.path) as readings:
            until(lambda: governed.faults >= 2)
            until(lambda: core.govern({"now": time.monotonic(), **CALM_MACHINE}) and isnan(readings.read().volatility))
            until(lambda: [one for one in readings.decisions() if one.kind_name == "failed"])
    finally:
        ot.market_condition(None)
    assert ot.mode() == "NORMAL"
    assert len([one for one in caplog.messages if "market function" in one]) == 1
    until(lambda: not lifecycle._host.governing._herald._market_told)  # type: ignore[union-attr]
    governed.faults_expected = governed.faults


def test_a_market_function_that_is_none(recorder: Recorder) -> None:
    """What can not be called is a fault, and leaves the one that was there."""

    def condition() -> tuple[float, float]:
        return 0.1, 1.0

    ot.market_condition(condition)
    ot.market_condition(7)  # type: ignore[arg-type]
    from otel_trading import market

    assert market.condition_function() is condition
    ot.market_condition(None)
    recorder.faults_expected = 1


def test_waits_that_fail_do_not_spin(
    governed: Recorder, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    """Where the wait itself raises, the thread waits by other means, and says so once."""
    calls: list[float] = []

    def broken(_number: int, _timeout: float) -> int:
        calls.append(time.monotonic())
        raise OSError("no wait")

    assert governed.faults == 0
    monkeypatch.setattr(core, "await_decision", broken)
    core.wake()
    until(lambda: len(calls) >= 3)
    assert calls[2] - calls[0] >= herald._AFTER_TROUBLE
    ot.shutdown()
    assert heralds() == []
    governed.faults_expected = governed.faults


def test_a_rollout(
    make_recorder: Callable[..., Recorder], until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A schedule begins with P0 only; where somebody else steers, the rollout leaves it at that."""
    caplog.set_level(logging.INFO, "otel_trading.budget")
    make_recorder(**{"budget.enabled": True, "engine.period": 10, "rollout.schedule": ["10% 10m", "100%"]})
    with lifecycle._host.control() as control:
        until(lambda: control.rollout < 1e-9)
        assert (control.tier(0), control.tier_rate(1) < 1e-9) == (True, True)
        control.rollout = 0.5
        guide = lifecycle._host.governing
        assert guide is not None
        guide._herald._rollout.due = 0.0  # type: ignore[union-attr]  # as a minute later
        guide.attend()
        until(lambda: guide._herald._rollout is None)  # type: ignore[union-attr]
        assert control.rollout == 0.5
    assert any("rollout begins" in one for one in caplog.messages)
    assert any("rollout stopped" in one for one in caplog.messages)


def test_one_thread_from_configure_to_shutdown(governed: Recorder) -> None:
    """There is one while the budget is at work, and none after it; its time counts as monitoring's."""
    assert governed.path.exists()
    (thread,) = heralds()
    assert thread.daemon
    ot.shutdown()
    assert not thread.is_alive()


def test_shutdown_does_not_wait_for_a_users_function(
    governed: Recorder, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A market function that blocks costs an orderly end no more than the herald's share of it."""
    from otel_trading.budget import governing

    assert governed.path.exists()
    monkeypatch.setattr(governing, "_LONGEST_STOP", 0.05)
    entered, leave = threading.Event(), threading.Event()

    def blocks() -> tuple[float, float]:
        entered.set()
        assert leave.wait(20)
        return 0.0, 0.0

    ot.market_condition(blocks)
    assert entered.wait(20)
    (thread,) = heralds()
    ot.shutdown()
    assert thread.is_alive()
    ot.market_condition(None)
    leave.set()
    until(lambda: not thread.is_alive())


def test_a_market_function_that_ends_everything(governed: Recorder, until: Callable[..., None]) -> None:
    """``shutdown`` from the herald's own thread does not wait for itself."""
    assert governed.path.exists()
    (thread,) = heralds()

    def ends() -> tuple[float, float]:
        ot.shutdown()
        return 0.0, 0.0

    ot.market_condition(ends)
    until(lambda: not thread.is_alive())
    assert lifecycle.settings() is None
    ot.market_condition(None)


def test_the_herald_sleeps(governed: Recorder) -> None:
    """Without anything to do it does not wake: it has looked as often after a while as before."""
    assert governed.path.exists()
    guide = lifecycle._host.governing
    assert guide is not None
    guide.attend()
    watched = guide._herald
    assert watched is not None
    before = watched._attending
    assert watched._longest_wait() > 50
    time.sleep(0.3)
    assert watched._attending - before <= 1
    assert inf > watched._longest_wait()


def test_nothing_of_it_is_loaded_without_the_budget(run_python: Run) -> None:
    """Switched off, the herald and what it needs are not even imported."""
    code = (
        "import sys\nimport otel_trading as ot\not.configure('bot', config={'budget.enabled': False})\n"
        "print(*sorted(one.rpartition('.')[2] for one in sys.modules if one.startswith('otel_trading.budget.')))\n"
    )
    assert run_python(code).stdout == "modes steering\n"


def test_faults_are_told_once() -> None:
    """The herald tells through the package's own way of telling faults."""
    assert herald.report is faults.report
    assert sys.modules["otel_trading.faults"] is faults
