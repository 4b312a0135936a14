"""``otel-trading info``: what is installed, and what is recording now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading.cli import main
from otel_trading.doctor import installation

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

LOOK = """
import subprocess, sys
import otel_trading as ot
ot.configure("looked-at", config={"ring.slots": 1024})
probe = ot.probe("work")
for _ in range(5):
    with probe:
        pass
with probe, ot.probe("inner"):
    sys.stdout.write(subprocess.run([sys.executable, "-m", "otel_trading", "info", *sys.argv[1:]],
                                    check=True, capture_output=True, text=True).stdout)
"""


def test_a_recording_process_is_shown(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Another process sees pid, service, spans, and what is open."""
    found: dict[str, Any] = json.loads(run_python(LOOK, "--json").stdout)
    (segment,) = found["segments"]
    assert (segment["service"], segment["spans"], segment["open_spans"]) == ("looked-at", 5, 2)
    assert segment["age_s"] >= 0.0
    assert (found["version"], found["backend"], found["dead_segments"]) == (ot.__version__, ot.backend, 0)
    assert found["configuration"]["ok"] is True


def test_as_text(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The same for people; the next command is last."""
    lines = run_python(LOOK).stdout.splitlines()
    assert lines[0] == f"otel-trading {ot.__version__}"
    assert any("looked-at" in line and line.split()[2:4] == ["5", "2"] for line in lines)
    assert any("1 process recording" in line for line in lines)
    assert lines[-1] == "Next: otel-trading doctor"


def test_nothing_records(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, one that others can enter, and mistakes in the configuration are told, not raised."""
    tmp_path.chmod(0o755)
    assert main.main(["info", "--dir", str(tmp_path)]) == 0
    assert "lets other users in" in capsys.readouterr().out
    monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("OTEL_TRADING_SAMPLING_RATE", "7")
    assert main.main(["info"]) == 0
    shown = capsys.readouterr().out
    assert "0 processes recording" in shown
    assert "mistake: OTEL_TRADING_SAMPLING_RATE" in shown
    assert shown.splitlines()[-1] == "Next: otel-trading config check"
    assert not (tmp_path / "none").exists()


def test_the_clock_is_the_recorders() -> None:
    """The clock's name is what a segment would have, and looking leaves nothing open."""
    assert installation.clock() == installation.clock()
    assert "not known" not in installation.clock()


@pytest.mark.parametrize(("seconds", "shown"), [(5, "5 s"), (90, "1.5 min"), (5400, "1.5 h"), (129_600, "1.5 d")])
def test_ages(seconds: float, shown: str) -> None:
    """Ages have the unit that fits."""
    assert installation._age(seconds) == shown


GOVERNED = """
import subprocess, sys
import otel_trading as ot
ot.configure("governed", config={"ring.slots": 1024, "mode": "stressed", "keep.limits.slow": 7})
sys.stdout.write(subprocess.run([sys.executable, "-m", "otel_trading", "info", *sys.argv[1:]],
                                check=True, capture_output=True, text=True).stdout)
"""


def test_mode_budget_and_keep_rules_are_shown(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Each governed process has its mode, what it uses of which limits, its keep rules, and what was kept."""
    shown = run_python(GOVERNED, OTEL_TRADING_BUDGET_ENABLED="true").stdout
    assert "STRESSED" in shown
    assert "of 15 MB" in shown
    assert "slow up to 7/s" in shown
    assert "no trace so far" in shown
    document: dict[str, Any] = json.loads(run_python(GOVERNED, "--json", OTEL_TRADING_BUDGET_ENABLED="true").stdout)
    budget = document["segments"][0]["budget"]
    assert (budget["governed"], budget["mode"], budget["forced"]) == (True, "STRESSED", "STRESSED")
    assert budget["usage"]["network"]["limit"] == 8_000.0


def test_a_process_without_a_budget_is_shown_as_such(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """That nothing is governed is said, and is no error."""
    shown = run_python(GOVERNED, OTEL_TRADING_BUDGET_ENABLED="false").stdout
    assert "mode STRESSED" in shown
    assert "no budget, every trace is kept" in shown
