"""The doctor's finding for each instrumentor, from what the loader's process tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_trading.config.effective import Effective, plain_settings
from otel_trading.doctor import instrumentors
from otel_trading.doctor.check import FAIL, OK, WARN, Check, Situation

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("row", "state", "message"),
    [
        (["a", "instrumented", ""], OK, "instrumented"),
        (["a", "skipped", "lib is not installed"], OK, "skipped: lib is not installed"),
        (["a", "skipped", "needs lib>=2; lib 1 is installed"], WARN, "needs lib>=2; lib 1 is installed"),
        (["a", "failed", "ZeroDivisionError: x"], FAIL, "ZeroDivisionError: x"),
    ],
)
def test_findings(row: list[str], state: str, message: str) -> None:
    """A conflict is a warning, a failure one, and a library that is not there is fine."""
    finding = instrumentors._finding(row)
    assert (finding.name, finding.state, finding.message) == ("instrumentor a", state, message)
    assert bool(finding.remedy) is (state != OK)


def one(monkeypatch: pytest.MonkeyPatch, program: str) -> Check:
    """Have another program in place of the loader's; gives the one finding."""
    monkeypatch.setattr(instrumentors, "_PROGRAM", program)
    (finding,) = instrumentors.checks(Situation(Effective(), plain_settings(), "/nonexistent", 1.0))
    return finding


def test_a_loading_that_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrumentor that takes the process down is told with its last words."""
    finding = one(monkeypatch, "import sys; sys.stderr.write('first\\nlast words\\n'); sys.exit(3)")
    assert (finding.state, "last words" in finding.message) == (FAIL, True)


def test_a_loading_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never ends is told too."""
    monkeypatch.setattr(instrumentors, "_TIMEOUT", 0.5)
    finding = one(monkeypatch, "import signal; signal.pause()")
    assert (finding.state, "timed out" in finding.message) == (FAIL, True)


def test_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With mistakes in the configuration none is loaded, and that is the one finding."""
    (tmp_path / "bot.yaml").write_text("nonsense: 1\n", encoding="utf-8")
    monkeypatch.setenv("OTEL_TRADING_CONFIG", str(tmp_path / "bot.yaml"))
    finding = one(monkeypatch, instrumentors._PROGRAM)
    assert (finding.state, finding.message) == (FAIL, "none is loaded: the configuration has mistakes")
