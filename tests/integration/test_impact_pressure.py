"""Pressure is really applied, and really ends: when it is told to, at its deadline, and when its parent is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT, child_environment

from otel_trading.bench.children import BenchmarkError
from otel_trading.impact import groups
from otel_trading.impact.attendants import Attendant
from otel_trading.impact.pressure import PORTION, memory_load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pressure is seen in /proc")

PARENT = """
import os, sys, time
from otel_trading.impact.attendants import Attendant
attendant = Attendant(sys.argv[1], 120.0, *sys.argv[2:])
attendant.hear(%r)
print(attendant.pid, flush=True)
time.sleep(120)
"""


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has waited for yet has."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 64 MB; what needs one is skipped where it can not be made."""
    with groups.limited(64) as made:
        if made is None:
            pytest.skip("no control group of memory can be made here")
        yield made


def test_a_burner_burns_while_it_is_told_to(until: Callable[..., None]) -> None:
    """It takes no CPU before, some when it is told to go, and rests when it is told to."""
    with Attendant("pressure", 60.0, "cpu", "0.9") as burner:
        burner.hear("ready")
        before = time.time_ns()
        burner.tell("go")
        assert burner.hear("applied_ns")["applied_ns"] >= before
        started = cpu_seconds(burner.pid)
        until(lambda: cpu_seconds(burner.pid) >= started + 0.2)
        burner.tell("rest")
        burner.hear("released_ns")
        assert os.stat(f"/proc/{burner.pid}")
        burner.tell("go")
        assert burner.hear("applied_ns")
        pid = burner.pid
    assert gone(pid)


def test_memory_is_filled_up_to_the_level_and_not_beyond(group: Path) -> None:
    """In a group of 64 MB it takes what 0.5 of that needs, gives it back, and is the first to go if memory runs out."""
    with Attendant("pressure", 60.0, "memory", "0.5", str(1 << 40), str(group)) as taker:
        taker.hear("ready")
        groups.join(group, taker.pid)
        taker.tell("go")
        said = taker.hear("applied_ns")
        assert said["reached"] is True
        assert 0.45 <= memory_load(group) <= 0.5 + 2 * PORTION / (64 << 20)
        assert resident(taker.pid) >= said["bytes"] > 0
        assert Path(f"/proc/{taker.pid}/oom_score_adj").read_text(encoding="ascii").strip() == "1000"
        taker.tell("rest")
        taker.hear("released_ns")
        assert memory_load(group) < 0.2


def test_memory_stays_within_its_limit() -> None:
    """Where the level would take more than is allowed, it takes what is allowed and says that this was not enough."""
    with Attendant("pressure", 60.0, "memory", "0.94", str(3 * PORTION), "") as taker:
        taker.hear("ready")
        taker.tell("go")
        said = taker.hear("applied_ns")
        assert said["bytes"] == 3 * PORTION
        assert said["reached"] is False


def test_groups_are_removed_and_those_of_the_dead_tidied_up(group: Path) -> None:
    """What a killed run has left is gone when the next one makes its own."""
    left = group.parent / f"{groups.PREFIX}{(1 << 22) + 5}"  # no such process
    left.mkdir()
    with groups.limited(64) as again:
        assert again == group
        assert not left.exists()
    assert not group.exists()


@pytest.mark.parametrize(
    ("arguments", "ready"),
    [(["pressure", "cpu", "0.9"], "ready"), (["pressure", "memory", "0.1", "1000000", ""], "ready"),
     (["relay", "1"], "port")],
)  # fmt: skip
def test_it_ends_with_a_parent_that_is_killed(
    arguments: list[str], ready: str, tmp_path: Path, until: Callable[..., None]
) -> None:
    """SIGKILL gives the parent no chance to tidy up; what it has started ends all the same."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT % ready, encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(tmp_path),
        cwd=ROOT,
    )
    with closing(parent.stdout):  # type: ignore[type-var]
        pid = int(parent.stdout.readline())  # type: ignore[union-attr]
        assert not gone(pid)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        until(lambda: gone(pid))


def test_it_ends_at_its_deadline(until: Callable[..., None]) -> None:
    """Nobody tells it to, and it ends by itself; its parent is told so when it asks."""
    with Attendant("pressure", 1.0, "cpu", "0.1") as burner:
        burner.hear("ready")
        burner.tell("go")
        burner.hear("applied_ns")
        until(lambda: gone(burner.pid))
        with pytest.raises(BenchmarkError, match=f"ended with status -{int(signal.SIGALRM)}"):
            burner.hear("never")


def test_what_goes_wrong_in_an_attendant_is_told_in_its_own_words() -> None:
    """Its last words are in the error, and so is the silence of one that says nothing."""
    with Attendant("pressure", 60.0, "cpu", "much") as burner, pytest.raises(BenchmarkError, match="could not convert"):
        burner.hear("applied_ns")
    with Attendant("pressure", 60.0, "cpu", "0.1") as burner, pytest.raises(BenchmarkError, match="did not say 'port'"):
        burner.hear("port", 0.5)


# ---- the connection


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def exchange(port: int, data: bytes) -> tuple[bytes, float]:
    """Send, end, and take what comes back; seconds it took."""
    begin = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        back = b""
        while more := connection.recv(65_536):
            back += more
    return back, time.perf_counter() - begin


def test_a_bad_connection_delivers_everything_in_order_and_late(echo: int) -> None:
    """Delay and loss change when the bytes arrive, and never what arrives; good again, it does not hold up."""
    data = bytes(number % 251 for number in range(50_000))
    with Attendant("relay", 60.0, str(echo)) as line:
        port = line.hear("port")["port"]
        assert exchange(port, data)[0] == data
        line.tell({"loss": 0.2, "delay": 0.05})
        assert line.hear("lost")["lost"] == 0
        back, seconds = exchange(port, data)
        assert back == data
        assert seconds >= 0.1  # there and back
        line.tell({"loss": 0.0, "delay": 0.0})
        said = line.hear("lost")
        assert said["lost"] > 0
        assert said["bytes"] == 4 * len(data)


def test_a_connection_to_nobody_is_closed() -> None:
    """Where nobody listens behind the relay, the sender sees an end and not a hang."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Attendant("relay", 60.0, str(port)) as line:
        assert exchange(line.hear("port")["port"], b"")[0] == b""


def test_lines_are_json(capfd: pytest.CaptureFixture[str]) -> None:
    """The pressure's own lines can be read by anyone who starts it by hand."""
    command = [sys.executable, "-m", "otel_trading.impact.pressure", str(os.getpid()), "30", "cpu", "0.1"]
    done = subprocess.run(command, input="go\nrest\n", text=True, capture_output=True, check=False, cwd=ROOT)
    said: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(line)) for line in said] == ["ready", "applied_ns", "released_ns"]
    assert done.returncode == 0
    assert capfd.readouterr().err == ""
