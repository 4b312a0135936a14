"""The watchdog on real processes: agents that hang, die, end; drains and loops that stand still.  Both of its programs.

A tick is 50 ms here, and late what is older than 1.5 s, so that a busy machine is not late.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import uncovered, wait_until
from segment_image import Image
from watching import TWIN, native_program

from otel_trading import _layout as at
from otel_trading.agent import files, watchdog_start
from otel_trading.agent.watchdog_looks import state_of

IMITATION = Path(__file__).resolve().parent.parent / "agent_imitation.py"
TICK_MS, LATE = 50, 1.5


class Scene:
    """A directory of segments, its agent and watchdog, and what the watchdog has started."""

    def __init__(self, directory: Path, program: list[str]) -> None:
        """Prepare; nothing runs yet."""
        self.directory = directory
        self.program = program
        self.log = directory / "log"
        self.calls = directory / "calls"
        self.calls.mkdir()
        self.environment = uncovered(directory, XDG_STATE_HOME=str(directory))
        self.running: list[subprocess.Popen[bytes]] = []
        # In Python's place for alerts and the emergency monitor: keeps what it is told, one file a call.
        self.python = directory / "python"
        self.python.write_text(
            "#!/bin/sh\n"
            f'echo "$$ $@" > {self.calls}/$$.new\n'
            'case "$*" in\n'
            "*--emergency*) ;;\n"
            f"*) cat >> {self.calls}/$$.new ;;\n"
            "esac\n"
            f"mv {self.calls}/$$.new {self.calls}/$$.call\n"
            'case "$*" in *--emergency*) exec sleep 1000 ;; esac\n'
        )
        self.python.chmod(0o700)

    def run(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a process that is ended with the test."""
        process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.running.append(process)
        return process

    def imitation(self, *how: str) -> list[str]:
        """Give the command of an agent's imitation."""
        return [sys.executable, str(IMITATION), str(self.directory), *how]

    def agent(self, *how: str) -> subprocess.Popen[bytes]:
        """Start an agent's imitation, and wait until it beats."""
        process = self.run(self.imitation(*how))
        wait_until(lambda: files.words(str(self.directory)).pid == process.pid)
        return process

    def watch(
        self, agent: int | None = None, *options: str, command: list[str] | None = None, started: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a watchdog; ``command`` starts an agent (default: an imitation)."""
        told = ["--directory", str(self.directory), "--late", str(LATE), "--tick", str(TICK_MS)]
        told += ["--log", str(self.log), "--python", str(self.python), *options]
        if agent is not None:
            told += ["--agent", str(agent), "--started", str(state_of(agent)[1] if started is None else started)]
            told += ["--", *(command or self.imitation())]
        process = self.run([*self.program, *told])
        wait_until(lambda: "looks after" in self.told() or process.poll() is not None)
        return process

    def told(self) -> str:
        """What the watchdog has logged."""
        return self.log.read_text() if self.log.exists() else ""

    def started(self) -> list[int]:
        """The agents' imitations so far."""
        path = self.directory / "started"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def called(self) -> list[tuple[int, str, dict[str, Any]]]:
        """What the watchdog has started: pid, arguments, the alert on standard input."""
        found = []
        for path in sorted(self.calls.glob("*.call"), key=lambda path: path.stat().st_mtime_ns):
            head, _, text = path.read_text().partition("\n")
            pid, _, words = head.partition(" ")
            found.append((int(pid), words, json.loads(text) if text.strip() else {}))
        return found

    def alerts(self, *, resolved: bool = False) -> list[str]:
        """The names of the alerts that were raised, or resolved."""
        return [alert["name"] for _, _, alert in self.called() if alert and alert["resolved"] is resolved]

    def emergencies(self) -> list[int]:
        """The emergency monitors that run now."""
        pids = [pid for pid, words, _ in self.called() if "--emergency" in words]
        return [pid for pid in pids if state_of(pid)[0] not in {"", "Z"}]

    def page(self, offset: int) -> int:
        """A word of the agent's page."""
        return int.from_bytes((self.directory / "agent.page").read_bytes()[offset : offset + 8], "little")

    def looks(self, count: int) -> None:
        """Wait until the watchdog has looked so often."""
        for _ in range(count):
            before = self.page(at.OFF_AGENT_WATCHDOG_BEAT_NS)
            wait_until(partial(self._looked, before))

    def _looked(self, before: int) -> bool:
        return self.page(at.OFF_AGENT_WATCHDOG_BEAT_NS) != before

    def end(self) -> None:
        """End everything that was started, also by the watchdog."""
        for process in reversed(self.running):  # the watchdog first, so that it starts nothing more
            process.kill()
            process.wait()
        for pid in [*self.started(), *(pid for pid, _, _ in self.called())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["program", "twin"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A directory to watch, for each of the two programs."""
    directory = tmp_path / "segments"
    directory.mkdir(mode=0o700)
    made = Scene(directory, native_program() if request.param == "program" else TWIN)
    yield made
    made.end()


def test_hung_agent_is_replaced(scene: Scene) -> None:
    """An agent that is stopped is warned of, alerted, ended and started again; then all is as before."""
    agent = scene.agent()
    scene.watch(agent.pid)
    agent.send_signal(signal.SIGSTOP)
    wait_until(lambda: len(scene.started()) == 2)
    assert agent.wait(10) == -signal.SIGKILL  # it could not take the SIGTERM before it
    wait_until(lambda: "AgentLate" in scene.alerts(resolved=True))
    wait_until(lambda: not scene.emergencies())
    told = scene.told()
    steps = [
        "no sign of life",
        "emergency monitor is started",
        "asked to end",
        "killed",
        "an agent is started",
        "goes on",
    ]
    assert [told.index(step) for step in steps] == sorted(told.index(step) for step in steps)
    assert "stopped by a signal" in told
    assert scene.alerts() == ["AgentLate"]
    assert scene.page(at.OFF_AGENT_RESTARTS) == 1


def test_agent_that_only_does_not_beat_is_asked_first(scene: Scene) -> None:
    """A hung agent that still takes SIGTERM ends by itself."""
    agent = scene.agent("mute", "0")
    scene.watch(agent.pid)
    assert agent.wait(20) == 0
    wait_until(lambda: len(scene.started()) == 2)
    assert "killed" not in scene.told()


def test_killed_agent_is_started_at_once(scene: Scene) -> None:
    """An agent that vanishes is there again, with an alert that says so and one that it is over."""
    agent = scene.agent()
    scene.watch(agent.pid)
    agent.kill()
    wait_until(lambda: len(scene.started()) == 2)
    wait_until(lambda: "AgentDied" in scene.alerts(resolved=True))
    assert scene.alerts() == ["AgentDied"]
    assert "asked to end" not in scene.told()


def test_agent_that_dies_again_and_again_is_given_up(scene: Scene) -> None:
    """After so many starts there are no more; that is told, in the page too, and the emergency monitor stays."""
    agent = scene.agent()
    watchdog = scene.watch(agent.pid, "--restarts", "3", command=scene.imitation("crash"))
    agent.kill()
    wait_until(lambda: "WatchdogGaveUp" in scene.alerts())
    wait_until(scene.emergencies)
    assert len(scene.started()) == 1 + 3
    wait_until(lambda: scene.page(at.OFF_AGENT_GAVE_UP) == 1)
    assert scene.page(at.OFF_AGENT_RESTARTS) == 3
    assert watchdog.poll() is None
    # Somebody starts one by hand, which has a watchdog of its own: this one leaves the field to it.
    by_hand = scene.agent()
    assert watchdog.wait(20) == 0
    assert by_hand.poll() is None
    wait_until(lambda: not scene.emergencies())


def test_orderly_end_leaves_nothing(scene: Scene) -> None:
    """When the agent ends in an orderly way, so does the watchdog; nothing was started, and nothing told."""
    agent = scene.agent()
    watchdog = scene.watch(agent.pid)
    wait_until(lambda: scene.page(at.OFF_AGENT_WATCHDOG_PID) == watchdog.pid)
    agent.terminate()
    assert agent.wait(20) == 0
    assert watchdog.wait(20) == 0
    assert scene.called() == []
    assert len(scene.started()) == 1
    assert scene.page(at.OFF_AGENT_WATCHDOG_PID) == 0


def test_signal_ends_the_watchdog_and_not_the_agent(scene: Scene) -> None:
    """SIGTERM ends the watchdog with its emergency monitor, and touches nothing else."""
    agent = scene.agent("mute", "0")
    watchdog = scene.watch(agent.pid, "--supervised", "--late", "0.2", "--restarts", "0")
    wait_until(scene.emergencies)
    watchdog.terminate()
    assert watchdog.wait(20) == 0
    assert scene.emergencies() == []
    assert agent.poll() is None


def test_directory_has_one_watchdog(scene: Scene) -> None:
    """A second one ends with exit code 1, and changes nothing."""
    agent = scene.agent()
    first = scene.watch(agent.pid)
    assert scene.watch(agent.pid).wait(20) == 1
    assert first.poll() is None


def test_process_that_got_the_pid_later_is_never_signalled(scene: Scene) -> None:
    """Where pid and start time are not those of one process, it is not the agent's."""
    bystander = scene.run(["sleep", "1000"])
    scene.watch(bystander.pid, started=state_of(bystander.pid)[1] - 1)
    wait_until(lambda: len(scene.started()) == 1)
    wait_until(lambda: "at work again" in scene.told())
    assert bystander.poll() is None


def test_own_stop_is_not_the_agents_hang(scene: Scene) -> None:
    """A watchdog that was stopped together with the agent does not take the time for the agent's."""
    agent = scene.agent()
    watchdog = scene.watch(agent.pid)
    for process in (agent, watchdog):
        process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(watchdog.pid)[0] == "T")
    time.sleep(LATE * 1.5)  # nothing can tell that the time has passed, as nobody who knows runs
    for process in (watchdog, agent):
        process.send_signal(signal.SIGCONT)
    wait_until(lambda: "does not count" in scene.told())
    scene.looks(10)
    assert scene.called() == []
    assert agent.poll() is None


class Drain:
    """A segment whose drain passes until told otherwise, by an image of it."""

    def __init__(self, directory: Path, host: int) -> None:
        """Begin to pass; ``host`` is whose drain it is."""
        image = Image()
        image.set_control(drained_by=os.getpid(), host=host, host_now=host)
        self._offset = image.control + at.OFF_CONTROL_PASSES
        self._file = (directory / "bot-1-1.seg").open("wb", buffering=0)
        self._file.write(image.bytes)
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._pass)
        self._thread.start()

    def _pass(self) -> None:
        passes = 0
        while not self._ends.wait(0.01):
            if self.goes_on.is_set():
                passes += 1
                os.pwrite(self._file.fileno(), struct.pack("<Q", passes), self._offset)

    def close(self) -> None:
        """End."""
        self._ends.set()
        self._thread.join()
        self._file.close()


@pytest.fixture
def make_drain(scene: Scene) -> Iterator[Callable[[int], Drain]]:
    """Give a function that makes a segment with a drain."""
    made: list[Drain] = []

    def make(host: int) -> Drain:
        made.append(Drain(scene.directory, host))
        return made[-1]

    yield make
    for drain in made:
        drain.close()


def test_hung_drain_of_the_agents_replaces_the_agent_once(scene: Scene, make_drain: Callable[[int], Drain]) -> None:
    """A drain of the agent's that stands still has the agent started again; if that does not help, not once more."""
    drain = make_drain(at.HOST_AGENT)
    agent = scene.agent()
    scene.watch(agent.pid)
    scene.looks(5)  # it has to have been seen to pass
    drain.goes_on.clear()
    wait_until(lambda: len(scene.started()) == 2)
    assert agent.wait(20) == 0
    wait_until(lambda: "DrainLate" in scene.alerts())
    (alert,) = (alert for _, _, alert in scene.called() if alert and alert["labels"]["subject"] == "drain")
    assert alert["labels"] == {"subject": "drain", "service": "bot", "pid": str(os.getpid())}
    wait_until(lambda: scene.page(at.OFF_AGENT_WATCHDOG_BEAT_NS) > 0 and scene.emergencies())
    drain.goes_on.set()
    wait_until(lambda: "DrainLate" in scene.alerts(resolved=True))
    wait_until(lambda: not scene.emergencies())
    assert len(scene.started()) == 2


def test_hung_drain_of_the_program_is_told_and_no_more(scene: Scene, make_drain: Callable[[int], Drain]) -> None:
    """A drain in the program itself that stands still brings the emergency monitor; the agent has no part in it."""
    drain = make_drain(at.HOST_EMBEDDED)
    agent = scene.agent()
    scene.watch(agent.pid)
    scene.looks(5)
    drain.goes_on.clear()
    wait_until(lambda: "DrainLate" in scene.alerts() and scene.emergencies())
    drain.goes_on.set()
    wait_until(lambda: "DrainLate" in scene.alerts(resolved=True))
    assert scene.started() == [agent.pid]


HANGS = """
import sys, time
import otel_trading as ot
from otel_trading._backend import core
ot.configure("hangs")
core.beat("main", 200_000_000)
print("beats", flush=True)
sys.stdin.readline()
core.beat("main", 10**12)
print("goes on", flush=True)
sys.stdin.readline()
"""


def test_hung_program_is_told_and_never_touched(scene: Scene) -> None:
    """A loop that does not beat raises an alert for which the live segment is looked into; no signal, no restart."""
    program = subprocess.Popen(
        [sys.executable, "-c", HANGS], env=scene.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        assert program.stdout.readline() == "beats\n"
        scene.watch()
        wait_until(lambda: "ApplicationHung" in scene.alerts())
        ((words, alert),) = ((words, alert) for _, words, alert in scene.called())
        assert words == f"-m otel_trading watchdog --hung {program.pid}"
        assert alert["labels"] == {"subject": "loop", "service": "hangs", "pid": str(program.pid), "loop": "main"}
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "goes on\n"
        wait_until(lambda: "ApplicationHung" in scene.alerts(resolved=True))
        assert scene.emergencies() == []
        program.stdin.close()
        assert program.wait(20) == 0
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


def test_alert_goes_the_whole_way(scene: Scene) -> None:
    """The watchdog's alert comes out of a configured way: here a command."""
    arrived = scene.directory / "arrived"
    config = scene.directory / "config.yaml"
    config.write_text(f"alerts:\n  command: [/bin/sh, -c, 'cat >> {arrived}']\n")
    scene.environment["OTEL_TRADING_CONFIG"] = str(config)
    agent = scene.agent()
    scene.watch(agent.pid, "--python", sys.executable)
    agent.kill()
    wait_until(lambda: arrived.exists() and "AgentDied" in arrived.read_text(), 60.0)
    assert '"subject": "agent"' in arrived.read_text() or '"subject":"agent"' in arrived.read_text()


class _Settings:
    def __init__(self) -> None:
        self.values = {"watchdog.enabled": True, "watchdog.late": 5.0, "watchdog.restarts": 5}


def test_agent_has_a_watchdog_as_long_as_it_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The agent's side starts one, starts another when it is killed, and none where one is; its end ends it."""
    monkeypatch.setattr(watchdog_start, "program", lambda: scene.program)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", scene.environment["PYTHONPATH"])
    page = files.Page(str(scene.directory))
    page.beat(at.AGENT_RUNNING)
    settings: Any = _Settings()
    attendant = watchdog_start.Attendant(str(scene.directory), settings, scene.imitation())

    def at_work() -> bool:
        page.beat(at.AGENT_RUNNING)
        attendant._next = 0.0
        attendant.check()
        return attendant.pid is not None and scene.page(at.OFF_AGENT_WATCHDOG_PID) == attendant.pid

    try:
        wait_until(at_work)
        first = attendant.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: at_work() and attendant.pid != first)
        second = watchdog_start.Attendant(str(scene.directory), settings, scene.imitation())
        second.check()
        assert second.pid is None
    finally:
        attendant.close()
        page.close()
    assert attendant.pid is None
    with (scene.directory / "watchdog.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it
    assert scene.started() == []
