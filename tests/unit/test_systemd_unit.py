"""The user unit of the agent: what systemd makes of it, and what it has to have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "otel-trading-agent.service"


def test_unit_is_watched_and_hardened() -> None:
    """It notifies, is watched, is started again, and may gain nothing."""
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"], service["Restart"]) == ("notify", "main", "always")
    assert int(service["WatchdogSec"]) > 2 * 5  # our own watchdog is to come first
    assert service["NoNewPrivileges"] == "yes"
    assert service["ExecStart"].endswith("otel-trading agent")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("%h/.local/bin/otel-trading", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(copy)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
