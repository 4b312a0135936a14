"""An agent drains, keeps and exports for other processes: nothing lost, nothing twice, whoever comes and goes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from agents import Scene, scene
from agents import stage as stage  # noqa: PLC0414  a fixture
from conftest import wait_until

from otel_trading import _layout as at
from otel_trading.agent import files

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the agent needs Linux")


def test_an_agent_that_is_there_before(stage: Scene) -> None:
    """Spans leave while the program runs; at its end its segment is removed."""
    stage.agent()
    program = stage.program(500)
    assert stage.hear(program) == "written"
    stage.await_all()
    assert stage.segment(program.pid)["state"] == "drained"
    assert stage.end(program) == 0
    wait_until(lambda: stage.segments() == [])
    assert len(stage.recorded()) == 500


def test_an_agent_that_comes_after(stage: Scene) -> None:
    """What was recorded before it came is exported, of a living process and of one that has ended."""
    ended = stage.program(300)
    assert stage.hear(ended) == "written"
    assert stage.end(ended) == 0
    living = stage.program(300)
    assert stage.hear(living) == "written"
    assert len(stage.segments()) == 2
    stage.agent()
    stage.await_all()
    assert stage.end(living) == 0
    wait_until(lambda: stage.segments() == [])


def test_the_trading_process_has_no_thread_of_ours(stage: Scene) -> None:
    """It imports no exporter, and flush waits for the agent."""
    stage.agent()
    program = stage.program(50)
    assert stage.hear(program) == "written"
    assert stage.tell(program, "print(len(os.listdir('/proc/self/task')))") == "1"
    assert stage.tell(program, "print([m for m in sys.modules if 'exporter' in m or m.endswith('sdk.trace')])") == "[]"
    assert stage.tell(program, "print(ot.flush(10.0))") == "True"
    assert set(stage.recorded()) <= set(stage.received())
    assert stage.tell(program, "print(ot.stats()['work']['count'])") == "50"
    account = stage.tell(program, "print(ot.accounts()[0])")
    assert "'recorded': 50, 'exported': 50" in account
    assert stage.end(program) == 0


def test_without_an_agent(stage: Scene) -> None:
    """It is said once what to do; flush and exit are bounded, and the segment waits."""
    program = stage.program(50)
    assert stage.hear(program) == "written"
    assert stage.tell(program, "print(ot.flush(0.5))") == "False"
    assert stage.tell(program, "print(ot.stats())") == "{}"
    began = time.monotonic()
    assert stage.end(program) == 0
    assert time.monotonic() - began < 10.0
    assert len(stage.segments()) == 1
    said = stage.said()
    assert said.count("no agent drains the segments") == 1
    assert "otel-trading agent" in said


def test_two_agents(stage: Scene) -> None:
    """The second one leaves it to the first."""
    first = stage.agent()
    second = stage.start("-m", "otel_trading", "agent")
    assert second.wait(20.0) == 0
    assert "has an agent already" in stage.said()
    assert stage.answers(first.pid)


def test_restart_of_the_agent_under_load(stage: Scene) -> None:
    """Five agents one after the other; each goes on where the one before has stopped."""
    program = stage.program(1_000_000, 0.001)
    for _ in range(5):
        agent = stage.agent()
        wait_until(lambda: stage.segment(program.pid).get("state") == "drained")
        assert stage.end(agent, signal.SIGTERM) == 0
    stage.agent()
    stage.enough()
    assert stage.hear(program) == "written"
    stage.await_all(40.0)
    assert stage.end(program) == 0
    wait_until(lambda: stage.segments() == [])


def test_sigkill_of_the_agent(stage: Scene) -> None:
    """Its drain hosts die with it, and the next agent takes over."""
    program = stage.program(1_000_000, 0.001)
    for _ in range(3):
        agent = stage.agent()
        wait_until(lambda: stage.segment(program.pid).get("state") == "drained")
        received = len(stage.received())
        wait_until(lambda before=received: len(stage.received()) > before)  # type: ignore[misc]
        assert stage.end(agent, signal.SIGKILL) == -signal.SIGKILL
    stage.agent()
    stage.enough()
    assert stage.hear(program) == "written"
    stage.await_all(40.0)
    assert stage.end(program) == 0


def test_sigkill_of_a_drain_host(stage: Scene) -> None:
    """Another one is started; three deaths in a minute, and the segment is set aside."""
    stage.agent()
    program = stage.program(1_000_000, 0.001)
    killed: set[int] = set()
    for _ in range(2):
        wait_until(lambda: stage.segment(program.pid).get("state") == "drained")
        pid = stage.segment(program.pid)["drain_host"]
        assert pid not in killed
        killed.add(pid)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda dead=pid: stage.segment(program.pid)["drain_host"] not in {None, dead})  # type: ignore[misc]
    stage.enough()
    assert stage.hear(program) == "written"
    stage.await_all()
    wait_until(lambda: stage.segment(program.pid)["state"] == "drained")
    os.kill(stage.segment(program.pid)["drain_host"], signal.SIGKILL)
    wait_until(lambda: stage.segment(program.pid)["state"] == "set aside")
    assert stage.status()["restarts"] == 3
    wait_until(lambda: "nothing is exported of" in stage.said())


def test_sigstop_of_a_drain_host_and_of_the_agent(stage: Scene) -> None:
    """What is recorded meanwhile leaves when they go on."""
    agent = stage.agent()
    program = stage.program(1_000_000, 0.001)
    wait_until(lambda: stage.segment(program.pid).get("state") == "drained")
    child = stage.segment(program.pid)["drain_host"]
    for pid in (child, agent.pid):
        os.kill(pid, signal.SIGSTOP)
    before = len(stage.recorded())
    wait_until(lambda: len(stage.recorded()) > before + 500)
    for pid in (child, agent.pid):
        os.kill(pid, signal.SIGCONT)
    stage.enough()
    assert stage.hear(program) == "written"
    stage.await_all()


def test_a_drain_host_that_hangs_is_replaced(stage: Scene) -> None:
    """One that makes no pass for some seconds is ended."""
    stage.agent()
    program = stage.program(10)
    assert stage.hear(program) == "written"
    wait_until(lambda: stage.segment(program.pid).get("state") == "drained")
    child = stage.segment(program.pid)["drain_host"]
    os.kill(child, signal.SIGSTOP)
    wait_until(lambda: stage.segment(program.pid)["drain_host"] not in {None, child}, 30.0)
    stage.await_all()


def test_handover_both_ways(stage: Scene) -> None:
    """A program that drains itself is taken over under load, and gets its drain back, again and again."""
    stage.agent()
    program = stage.program(1_000_000, 0.001, host="embedded")
    for _ in range(3):
        wait_until(lambda: stage.segment(program.pid).get("state") == "drains itself")
        assert stage.start("-m", "otel_trading", "agent", "--take", str(program.pid)).wait(20.0) == 0, stage.said()
        assert stage.segment(program.pid)["state"] == "drained"
        assert stage.start("-m", "otel_trading", "agent", "--give", str(program.pid)).wait(20.0) == 0, stage.said()
    stage.enough()
    assert stage.hear(program) == "written"
    assert stage.tell(program, "print(ot.flush(10.0))") == "True"
    stage.await_all()
    count = len(stage.recorded())
    assert f"'recorded': {count}, 'exported': {count}" in stage.tell(program, "print(ot.accounts()[0])")
    assert stage.end(program) == 0
    assert stage.segments() == []


def test_the_agents_end_gives_back_who_began_embedded(stage: Scene) -> None:
    """Its orderly end has the process drain again, metrics exporter and all."""
    agent = stage.agent()
    program = stage.program(200, host="embedded")
    assert stage.hear(program) == "written"
    assert stage.start("-m", "otel_trading", "agent", "--take", str(program.pid)).wait(20.0) == 0
    assert stage.tell(program, "print(len(os.listdir('/proc/self/task')))") == "2"  # the one that waits to be asked
    assert stage.end(agent, signal.SIGTERM) == 0
    wait_until(lambda: stage.tell(program, "print(ot.lifecycle._host.draining.here)") == "True")
    assert stage.tell(program, "print(ot.flush(10.0))") == "True"
    stage.await_all()
    assert len(stage.receiver.metrics("trading.telemetry.spans")) >= 1
    assert stage.end(program) == 0
    assert stage.segments() == []


def test_a_process_that_can_not_take_the_drain_back_says_so(stage: Scene) -> None:
    """One that began without a thread for it has none."""
    stage.agent()
    program = stage.program(1)
    assert stage.hear(program) == "written"
    wait_until(lambda: stage.segment(program.pid).get("state") == "drained")
    give = stage.start("-m", "otel_trading", "agent", "--give", str(program.pid))
    assert give.wait(20.0) == 2
    assert "OTEL_TRADING_HOST=embedded" in stage.said()
    assert stage.segment(program.pid)["state"] == "drained"


def test_a_killed_program(stage: Scene) -> None:
    """Every span that had ended is exported, and what was open as interrupted; with the agent there and not."""
    stage.agent()
    program = stage.program(1_000_000, 0.0005)
    wait_until(lambda: len(stage.recorded()) > 300)
    assert stage.end(program, signal.SIGKILL) == -signal.SIGKILL
    stage.await_all()
    wait_until(lambda: stage.segments() == [])


def test_agent_killed_and_program_killed(stage: Scene) -> None:
    """The next agent finds what both have left."""
    agent = stage.agent()
    program = stage.program(1_000_000, 0.0005)
    wait_until(lambda: len(stage.received()) > 200)
    stage.end(agent, signal.SIGKILL)
    before = len(stage.recorded())
    wait_until(lambda: len(stage.recorded()) > before + 200)
    stage.end(program, signal.SIGKILL)
    stage.agent()
    stage.await_all()
    wait_until(lambda: stage.segments() == [])


def test_embedded_program_killed_and_looked_into_once(stage: Scene) -> None:
    """``agent --once`` exports what an embedded process has left, and ends."""
    program = stage.program(1_000_000, 0.0005, host="embedded", OTEL_BSP_SCHEDULE_DELAY="60000")
    wait_until(lambda: len(stage.recorded()) > 500)
    stage.end(program, signal.SIGKILL)
    assert stage.start("-m", "otel_trading", "agent", "--once").wait(40.0) == 0
    stage.await_all()
    assert stage.segments() == []


def test_the_next_start_has_the_dead_looked_into(tmp_path: Path) -> None:
    """An embedded process that exports finds what one before it left behind, and has it exported."""
    with scene(tmp_path, forensics=True) as stage:
        dead = stage.program(1_000_000, 0.0005, host="embedded", OTEL_BSP_SCHEDULE_DELAY="60000")
        wait_until(lambda: len(stage.recorded()) > 500)
        stage.end(dead, signal.SIGKILL)
        left = stage.segments()
        living = stage.program(10, host="embedded")
        assert stage.hear(living) == "written"
        stage.await_all(40.0)
        wait_until(lambda: left[0] not in stage.segments())
        assert stage.end(living) == 0
        wait_until(lambda: not files.is_running(str(stage.directory), files.ONCE))


def test_twenty_short_processes(stage: Scene) -> None:
    """Each is found, drained and put away, though it may have ended before the agent saw it."""
    stage.agent()
    programs = []
    for _ in range(20):
        program = stage.program(20)
        assert stage.hear(program) == "written"
        assert program.stdin is not None
        program.stdin.close()
        programs.append(program)
    assert [program.wait(20.0) for program in programs] == [0] * 20
    stage.await_all(60.0)
    assert len(stage.recorded()) == 400
    wait_until(lambda: stage.segments() == [], 40.0)


def test_fork(stage: Scene) -> None:
    """The child of a program has a segment of its own, which the agent finds; parent and child are told apart."""
    stage.agent()
    program = stage.program(20)
    assert stage.hear(program) == "written"
    code = (
        "pid = os.fork() or ([os.write(ledger, (lambda s: f'{s.trace_id:032x}{s.span_id:016x}\\n'.encode())"
        "(probe.record(None, 0, 0, False, None))) for _ in range(30)], ot.shutdown(), os._exit(0)); os.waitpid(pid, 0)"
    )
    stage.tell(program, code)
    stage.await_all()
    assert len(stage.recorded()) == 50
    wait_until(lambda: len(stage.segments()) == 1)
    assert len({resource["service.instance.id"] for resource in stage.receiver.resources()}) == 2
    assert stage.end(program) == 0


def test_a_receiver_that_is_down_for_a_while(stage: Scene) -> None:
    """What a dead process has left is tried again until it is taken."""
    from otlp_receiver import Answer

    stage.receiver.answers = [Answer(again_in=2)] * 5
    stage.agent()
    program = stage.program(100)
    assert stage.hear(program) == "written"
    stage.end(program, signal.SIGKILL)
    stage.await_all(60.0)
    wait_until(lambda: stage.segments() == [], 40.0)


def test_a_damaged_segment_takes_only_its_own_host_down(stage: Scene) -> None:
    """The others are drained as before, and the agent lives."""
    agent = stage.agent()
    damaged = stage.program(10)
    assert stage.hear(damaged) == "written"
    wait_until(lambda: stage.segment(damaged.pid).get("state") == "drained")
    path = stage.segment(damaged.pid)["path"]
    with open(path, "r+b") as file:
        header = file.read(at.SIZE_HEADER)
        rings = int.from_bytes(header[at.OFF_HEADER_RINGS_OFFSET :][:8], "little")
        file.seek(rings)
        file.write(os.urandom(at.SIZE_RING))
        file.truncate(rings + 64)
    program = stage.program(100)
    assert stage.hear(program) == "written"
    wanted = set(stage.recorded()[-100:])
    wait_until(lambda: wanted <= set(stage.received()))
    assert agent.poll() is None
    damaged.kill()


def test_in_emergency_the_drain_host_is_a_lean_one(stage: Scene) -> None:
    """It imports no exporter and sends nothing; what was kept meanwhile leaves when the mode is a milder one again."""
    stage.agent()
    program = stage.program(10)
    assert stage.hear(program) == "written"
    stage.await_all()
    heavy = stage.segment(program.pid)["drain_host"]
    stage.tell(program, "ot.set_mode('EMERGENCY')")
    wait_until(lambda: stage.segment(program.pid).get("state") == "lean")
    assert stage.segment(program.pid)["drain_host"] != heavy
    memory = {one["pid"]: one["memory"] for one in stage.status()["processes"]}
    assert memory[stage.segment(program.pid)["drain_host"]] < 16 << 20
    requests = len(stage.receiver.requests)
    record = "span = probe.record(None, 0, 0, False, None)"
    stage.tell(program, record + "; os.write(ledger, f'{span.trace_id:032x}{span.span_id:016x}\\n'.encode())")
    assert "'pending': 1" in stage.tell(program, "print(ot.accounts()[0])")
    assert len(stage.receiver.requests) == requests
    stage.tell(program, "ot.set_mode('NORMAL')")
    wait_until(lambda: stage.segment(program.pid).get("state") == "drained")
    stage.await_all()
    assert stage.end(program) == 0


def test_run_starts_one_agent(stage: Scene) -> None:
    """Two programs that are started at once have one agent, which ends by itself after them."""
    code = (
        "import time, otel_trading as ot\np = ot.probe('work', tier=ot.P0)\nwith p: pass\n"
        "print('recorded', flush=True)\ninput()\n"
    )
    (stage.base / "config.yaml").write_text("watchdog: {enabled: false}\nagent: {idle: 0.5}\n", encoding="utf-8")
    systemd = dict.fromkeys(("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"), "/nowhere")
    arguments = ("-m", "otel_trading", "run", "--", sys.executable, "-c", code)
    programs = [stage.start(*arguments, OTEL_TRADING_HOST="agent", **systemd) for _ in range(2)]
    assert [stage.hear(program) for program in programs] == ["recorded", "recorded"], stage.said()
    assert "the agent, pid" in stage.said()
    pid = files.words(str(stage.directory)).pid
    with open(f"/proc/{pid}/environ", encoding="utf-8") as environment:  # what is told to systemd is the program's
        assert not systemd.keys() & {entry.partition("=")[0] for entry in environment.read().split("\0")}
    wait_until(lambda: len(stage.received()) == 2)
    assert {one["pid"] for one in stage.status()["segments"]} == {program.pid for program in programs}
    assert stage.status()["pid"] == pid
    for program in programs:
        program.communicate("\n")
        assert program.returncode == 0
    # The second one may have come late, and wait for a moment whether it is wanted after the first.
    wait_until(lambda: not files.is_running(str(stage.directory)))
    assert stage.segments() == []
    assert "drains the segments" in (stage.base / "state" / "otel-trading" / "agent.log").read_text()


def test_status_stop_and_json(stage: Scene) -> None:
    """The command line says what there is, in words and in JSON, and has the agent end."""
    status = stage.start("-m", "otel_trading", "agent", "--status", "--json")
    assert json.loads(status.communicate()[0]) == {"running": False, "directory": str(stage.directory)}
    assert status.returncode == 1
    agent = stage.agent()
    program = stage.program(30)
    assert stage.hear(program) == "written"
    stage.await_all()
    status = stage.start("-m", "otel_trading", "agent", "--status", "--json")
    found = json.loads(status.communicate()[0])
    assert found["running"]
    assert found["pid"] == agent.pid
    assert found["segments"][0]["spans"]["recorded"] == 30
    status = stage.start("-m", "otel_trading", "agent", "--status")
    assert str(program.pid) in status.communicate()[0]
    stop = stage.start("-m", "otel_trading", "agent", "--stop")
    assert stop.wait(20.0) == 0
    assert agent.wait(20.0) == 0
    assert files.words(str(stage.directory)).state == at.AGENT_STOPPED
    assert not (stage.directory / files.SOCKET).exists()


def test_metrics_of_all_programs(stage: Scene) -> None:
    """One exposition has every program's series, told apart, and the agent's own; promtool finds nothing wrong."""
    import urllib.request

    config = stage.base / "config.yaml"
    config.write_text(config.read_text() + "metrics: {port: 0}\n", encoding="utf-8")
    stage.agent()
    programs = [stage.program(20, OTEL_SERVICE_NAME=name) for name in ("one", "two")]
    for program in programs:
        assert stage.hear(program) == "written"
        wait_until(lambda pid=program.pid: stage.segment(pid).get("state") == "drained")  # type: ignore[misc]
    stage.await_all()
    url = stage.status()["metrics"]
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310  http on the loopback
        text = response.read().decode()
    for name in ("one", "two"):
        assert any(
            line.startswith("trading_stage_duration_seconds_count{") and f'service_name="{name}"' in line
            for line in text.splitlines()
        ), text
    assert text.count("# TYPE trading_stage_duration_seconds histogram") == 1
    assert "trading_agent_segments" in text
    assert "trading_agent_memory_bytes" in text
    with urllib.request.urlopen(url.replace("/metrics", "/healthz"), timeout=10) as response:  # noqa: S310  http on the loopback
        assert response.read() == b"ok\n"
    with contextlib.suppress(FileNotFoundError):
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=30, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_service_manager_is_told(stage: Scene) -> None:
    """When it is ready, what it drains and in which mode, and when it ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(stage.base / "notify"))
        manager.settimeout(20.0)
        agent = stage.agent(NOTIFY_SOCKET=str(stage.base / "notify"))
        program = stage.program(1)
        assert stage.hear(program) == "written"
        wait_until(lambda: stage.segment(program.pid).get("state") == "drained")
        stage.tell(program, "ot.set_mode('STRESSED')")
        wait_until(lambda: stage.segment(program.pid)["mode"] == "STRESSED")
        agent.terminate()
        said = ["READY=1"]
        while said[-1] != "STOPPING=1":
            said.append(manager.recv(4096).decode())
        assert agent.wait(20.0) == 0
    for line in ("READY=1", "STATUS=drains 0 segments, NORMAL", "STATUS=drains 1 segment, STRESSED"):
        assert line in said[1:]
