"""``otel-trading alert``."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import child_environment

if TYPE_CHECKING:
    from pathlib import Path


def alert(directory: Path, *arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "otel_trading", "alert", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=child_environment(directory, **environment),
    )


def configured(directory: Path, **keys: object) -> str:
    """Write a configuration; gives its path."""
    path = directory / "otel-trading.yaml"
    path.write_text(json.dumps({"alerts": keys}))
    return str(path)


def test_the_test_goes_out(tmp_path: Path) -> None:
    """By default it is logged, and the page says by which way it was sent."""
    done = alert(tmp_path, "test")
    assert done.returncode == 0, done.stderr
    assert "the log: sent" in done.stdout


def test_one_that_fails_is_an_exit_code(tmp_path: Path) -> None:
    """Where one way out does not take it, the exit code is 1, and JSON says which."""
    config = configured(tmp_path, command=["false"], timeout=5.0)
    done = alert(tmp_path, "test", "--json", "--timeout", "0.5", OTEL_TRADING_CONFIG=config)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["ways"] == {"the log": True, "the command": False}


def test_an_alert_from_standard_input(tmp_path: Path) -> None:
    """What a program writes to it is sent as it is."""
    sent = {"name": "AgentLate", "severity": "critical", "summary": "late", "labels": {"pid": 7}, "details": {"s": 5.5}}
    config = configured(tmp_path, command=["sh", "-c", f"cat > {tmp_path}/got"])
    done = alert(tmp_path, "send", given=json.dumps(sent), OTEL_TRADING_CONFIG=config)
    assert done.returncode == 0, done.stderr
    got = json.loads((tmp_path / "got").read_text())
    assert (got["name"], got["labels"], got["details"]) == ("AgentLate", {"pid": "7"}, {"s": 5.5})


@pytest.mark.parametrize("given", ["", "{}", "[1]", "nonsense", "[" * 100_000])
def test_what_is_no_alert(tmp_path: Path, given: str) -> None:
    """Other input is told to be none, with exit code 2."""
    done = alert(tmp_path, "send", given=given)
    assert done.returncode == 2
    assert "has no alert" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_way_out(tmp_path: Path) -> None:
    """With every way out off it says so."""
    done = alert(tmp_path, "test", OTEL_TRADING_CONFIG=configured(tmp_path, log=False))
    assert done.returncode == 2
    assert "no way out" in done.stderr
