"""The agent itself under its watchdog: killed, stopped, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import child_environment, wait_until

from otel_trading import _layout as at
from otel_trading.agent import files
from otel_trading.agent.watchdog_looks import state_of


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Segments and state in the test's directory; half a second is late."""
    config = tmp_path / "config.yaml"
    config.write_text("watchdog:\n  late: 0.5\n")
    where = tmp_path / "segments"
    return child_environment(where, OTEL_TRADING_CONFIG=str(config), XDG_STATE_HOME=str(tmp_path / "state"))


@pytest.fixture
def agents(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """An agent, in whose place others may come; all are ended with the test."""
    with (Path(environment["OTEL_TRADING_DIR"]).parent / "errors").open("wb") as errors:
        first = subprocess.Popen(
            [sys.executable, "-m", "otel_trading", "agent"], env=environment, stderr=errors, stdin=subprocess.DEVNULL
        )
    yield first
    where = environment["OTEL_TRADING_DIR"]
    for pid in (watchdog(where), files.words(where).pid):
        if lives(pid):
            os.kill(pid, signal.SIGKILL)
    first.kill()
    first.wait()


def watchdog(where: str) -> int:
    """The watchdog's pid, as the agent's page has it."""
    page = Path(where, files.PAGE)
    return int.from_bytes(page.read_bytes()[at.OFF_AGENT_WATCHDOG_PID :][:8], "little") if page.exists() else 0


def lives(pid: int) -> bool:
    """Whether there is such a process."""
    return pid > 1 and state_of(pid)[0] not in {"", "Z"}


def at_work(where: str, *not_these: int) -> bool:
    """Whether an agent is at work, and is none of those."""
    page = files.words(where)
    return page.alive and page.state == at.AGENT_RUNNING and page.pid not in not_these


def test_agent_survives_being_killed_and_stopped(
    environment: dict[str, str], agents: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """A killed agent is there again, so is a stopped one; the end of the last one ends the watchdog with it."""
    where = environment["OTEL_TRADING_DIR"]
    wait_until(lambda: at_work(where) and lives(watchdog(where)), 60.0)
    watching = watchdog(where)
    first = files.words(where).pid
    assert first == agents.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: at_work(where, first), 60.0)
    second = files.words(where).pid
    os.kill(second, signal.SIGSTOP)
    wait_until(lambda: at_work(where, first, second), 60.0)
    assert not lives(second)
    assert watchdog(where) == watching
    last = files.words(where).pid
    os.kill(last, signal.SIGTERM)
    wait_until(lambda: not lives(last) and not lives(watching), 60.0)
    assert files.words(where).state == at.AGENT_STOPPED
    told = (tmp_path / "state" / "otel-trading" / "watchdog.log").read_text()
    assert "has died" in told
    assert "stopped by a signal" in told
    assert told.count("an agent is started") == 2


def test_status_tells_of_the_watchdog(environment: dict[str, str], agents: subprocess.Popen[bytes]) -> None:
    """`otel-trading watchdog --status` has pid and restarts; exit code 1 where there is none, or one already."""
    where = environment["OTEL_TRADING_DIR"]

    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "otel_trading", "watchdog", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    wait_until(lambda: at_work(where) and lives(watchdog(where)), 60.0)
    code, text = run("--status")
    assert code == 0
    assert f"pid {watchdog(where)}, looked" in text
    assert f"pid {agents.pid}; started 0 times" in text
    code, text = run("--status", "--json")
    assert '"gave_up": false' in text
    assert run()[0] == 1
    agents.terminate()
    assert agents.wait(30) == 0
    assert not lives(watchdog(where))
    code, text = run("--status")
    assert (code, "watchdog   none" in text) == (1, True)


HANGS = """
import time
import otel_trading as ot
ot.configure("hangs")
ot.heartbeat("main", late=0.1)
with ot.probe("order.execute").span():
    print("hangs", flush=True)
    time.sleep(1000)
"""


def test_alert_of_a_hung_program_has_a_report(tmp_path: Path) -> None:
    """`watchdog --hung PID` adds what forensics makes of the live segment to the alert, and sends it."""
    arrived = tmp_path / "arrived"
    config = tmp_path / "config.yaml"
    config.write_text(f"alerts:\n  command: [/bin/sh, -c, 'cat > {arrived}.new; mv {arrived}.new {arrived}']\n")
    environment = child_environment(tmp_path / "segments", XDG_STATE_HOME=str(tmp_path / "state"))
    program = subprocess.Popen([sys.executable, "-c", HANGS], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "hangs\n"
        alert = {"name": "ApplicationHung", "severity": "critical", "summary": "it hangs", "labels": {"loop": "main"}}
        done = subprocess.run(
            [sys.executable, "-m", "otel_trading", "watchdog", "--hung", str(program.pid)],
            env={**environment, "OTEL_TRADING_CONFIG": str(config)},
            input=json.dumps(alert),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        sent = json.loads(arrived.read_text())
        assert (sent["name"], sent["labels"]) == ("ApplicationHung", {"loop": "main"})
        assert isinstance(sent["details"]["forensics"], dict), sent["details"]
        assert "order.execute" in arrived.read_text()  # what it hangs in
        assert program.poll() is None
    finally:
        program.kill()
        program.communicate()


def test_what_is_no_alert_is_refused(environment: dict[str, str]) -> None:
    """Something else on standard input is an error with exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "otel_trading", "watchdog", "--hung", "1"],
        env=environment,
        input="[]",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no alert" in done.stderr
