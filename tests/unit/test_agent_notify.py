"""systemd's protocol: what arrives at the socket that NOTIFY_SOCKET names, by path and by abstract name."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_trading.agent.notify import Notifier

Manager = tuple[socket.socket, str]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """A service manager's socket, and NOTIFY_SOCKET for it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@otel-trading-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.settimeout(10)
        yield listening, name


def test_everything_arrives(manager: Manager, run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """READY, STATUS, WATCHDOG and STOPPING arrive in their order, also after the environment was forgotten."""
    listening, name = manager
    code = (
        "import os\n"
        "from otel_trading.agent import notify\n"
        "notify.forget_environment()\n"
        "assert 'NOTIFY_SOCKET' not in os.environ and 'WATCHDOG_USEC' not in os.environ\n"
        "assert notify.wanted()\n"
        "notify.ready(); notify.status('drains\\n3 segments'); notify.status('drains 3 segments')\n"
        "notify.beat(); notify.beat(); notify.stopping()\n"
    )
    run_python(code, NOTIFY_SOCKET=name, WATCHDOG_USEC="60000000")
    received = [listening.recv(4096).decode() for _ in range(4)]
    assert received == [
        "READY=1",
        "STATUS=drains 3 segments",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_beats_are_sent_at_half_of_the_time_at_most(manager: Manager) -> None:
    """However often the loop turns, a beat is sent when half of WATCHDOG_USEC is over."""
    listening, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    assert notifier.period == 1.5
    for _ in range(100):
        notifier.beat()
    notifier.send("END=1")
    notifier.close()
    assert [listening.recv(100), listening.recv(100)] == [b"WATCHDOG=1", b"END=1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/run/notify", "SYSTEMD_EXEC_PID": "1"},  # of the process that we are somewhere below of
    ],
)
def test_without_a_service_manager_nothing_happens(environment: dict[str, str]) -> None:
    """Without a socket that can be one, nothing is sent, and nothing raised."""
    notifier = Notifier(environment)
    assert not notifier.wanted
    assert not notifier.send("READY=1")
    notifier.status("x")
    notifier.beat()
    notifier.close()


@pytest.mark.parametrize(("microseconds", "pid"), [("x", "0"), ("-1", "0"), ("0", "0"), ("1000", "1"), ("9" * 30, "0")])
def test_beats_that_nobody_wants_are_not_sent(microseconds: str, pid: str) -> None:
    """What is no number, or of another process, is no wish for beats."""
    told = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}
    assert Notifier(told).period is None


def test_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    """A socket that nobody listens on is no reason to fail."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000000"})
    assert notifier.wanted
    assert not notifier.send("READY=1")
    notifier.beat()
    notifier.close()
