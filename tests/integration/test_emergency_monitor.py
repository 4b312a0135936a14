"""The emergency monitor on a real program whose drain stands still."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import child_environment, wait_until

from otel_trading.segment import Control, segments

# The drain's period is a minute: for a monitor that calls 0.3 s late, it stands still.
BOT = """
import sys, time
import otel_trading as ot
ot.configure("bot", None, {"drain.period": 60})
print("records", flush=True)
for line in sys.stdin:
    if line == "trade\\n":
        for number in range(20):
            order = ot.order(f"order-{number}", symbol="BTCUSDT", side="buy", qty=1.0, price=2.0)
            order.reject("no") if number < 5 else order.ack()
        ot.market_data("BTCUSDT", time.time() * 1000 - 60_000)
        ot.risk_breach("position_limit", size=1.0)
    print(line, end="", flush=True)
"""


def test_program_that_is_not_served_is_watched(tmp_path: Path) -> None:
    """P1 to P3 are off, alerts tell of rejects, risk and old data; SIGTERM ends the monitor, and all is as before."""
    arrived = tmp_path / "arrived"
    config = tmp_path / "config.yaml"
    config.write_text(
        f"watchdog:\n  late: 0.3\nalerts:\n  command: [/bin/sh, -c, 'cat >> {arrived}; echo >> {arrived}']\n"
    )
    where = tmp_path / "segments"
    environment = child_environment(where, OTEL_TRADING_CONFIG=str(config), XDG_STATE_HOME=str(tmp_path))
    bot = subprocess.Popen(
        [sys.executable, "-c", BOT],
        env={name: value for name, value in environment.items() if name != "OTEL_TRADING_CONFIG"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert bot.stdin is not None
    assert bot.stdout is not None
    monitor: subprocess.Popen[str] | None = None
    try:
        assert bot.stdout.readline() == "records\n"
        (found,) = segments(where)
        with Control(found.path) as control:
            before = [control.tier_rate(tier) for tier in range(4)]
            monitor = subprocess.Popen(
                [sys.executable, "-m", "otel_trading", "agent", "--emergency"],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            wait_until(lambda: [control.tier_rate(tier) for tier in range(4)] == [1.0, 0.0, 0.0, 0.0], 60.0)
            bot.stdin.write("trade\n")
            bot.stdin.flush()
            assert bot.stdout.readline() == "trade\n"

            def alerts() -> dict[str, dict[str, Any]]:
                lines = arrived.read_text().splitlines() if arrived.exists() else []
                return {alert["name"]: alert for alert in map(json.loads, filter(None, lines))}

            wait_until(lambda: {"OrdersRejected", "MarketDataStale", "RiskBreach"} <= alerts().keys(), 60.0)
            assert alerts()["OrdersRejected"]["details"]["rejects"] == 5
            assert alerts()["OrdersRejected"]["severity"] == "critical"
            assert alerts()["RiskBreach"]["labels"]["kind"] == "position_limit"
            assert not {path.name for path in where.iterdir()} & {"agent.page", "agent.lock", "agent.sock"}
            monitor.send_signal(signal.SIGTERM)
            _, log = monitor.communicate(timeout=30)
            assert monitor.returncode == 0, log
            assert "ends" in log
            assert [control.tier_rate(tier) for tier in range(4)] == before
    finally:
        for process in filter(None, (bot, monitor)):
            process.kill()
            process.communicate()


def test_it_ends_where_all_is_well(tmp_path: Path) -> None:
    """Without a program that is not served, and without an agent that does not beat, it ends by itself."""
    done = subprocess.run(
        [sys.executable, "-m", "otel_trading", "agent", "--emergency"],
        env=child_environment(tmp_path / "segments"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
