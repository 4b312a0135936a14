"""Alerts in a real Alertmanager."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from conftest import wait_until

from otel_trading import alerts, config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="Alertmanager is not installed (package prometheus-alertmanager)"
)


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """Give the address of a running Alertmanager."""
    settings = tmp_path / "alertmanager.yml"
    settings.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    url = f"http://127.0.0.1:{free_port()}"
    assert PROGRAM is not None
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [
                PROGRAM,
                f"--config.file={settings}",
                f"--storage.path={tmp_path / 'data'}",
                f"--web.listen-address={url.removeprefix('http://')}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _answers(url + "/-/ready"))
        yield url
    finally:
        running.terminate()
        running.wait(20)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def active(url: str) -> list[dict[str, Any]]:
    """Give the alerts that fire, as Alertmanager tells them."""
    with urllib.request.urlopen(url + "/api/v2/alerts?active=true", timeout=5.0) as answer:  # noqa: S310
        found: list[dict[str, Any]] = json.load(answer)
    return found


def test_an_alert_fires_and_is_resolved(alertmanager: str) -> None:
    """Alertmanager has the alert with its labels and texts, and no longer when it is resolved."""
    alerts.close(0.0)
    alerts.configure(config.resolve("bot", None, {"alerts.alertmanager": alertmanager, "alerts.log": False}))
    try:
        died = {"service": "bot", "cause": "memory_leak"}
        alerts.raise_alert(alerts.Alert("ProcessDied", "critical", "bot died", died, {"confidence": 0.9}))
        assert alerts.flush(20.0)
        wait_until(lambda: len(active(alertmanager)) == 1)
        (found,) = active(alertmanager)
        assert found["labels"] == {**died, "alertname": "ProcessDied", "severity": "critical"}
        assert found["annotations"] == {"summary": "bot died", "confidence": "0.9"}
        time.sleep(0.01)  # an alert may not end in the microsecond in which it began
        alerts.raise_alert(alerts.Alert("ProcessDied", "critical", "bot is back", died, resolved=True))
        assert alerts.flush(20.0)
        wait_until(lambda: not active(alertmanager))
    finally:
        alerts.close(5.0)
