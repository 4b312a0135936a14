"""Modes from outside: a bot in a process of its own is steered by the command, by the API, and by its environment."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conftest import child_environment, wait_until

from otel_trading.budget.modes import MODES
from otel_trading.budget.readings import Readings
from otel_trading.cli import main
from otel_trading.errors import ControlError
from otel_trading.segment import Control, segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOT = """
import json, sys
import otel_trading as ot
ot.configure(sys.argv[1], config={"ring.slots": 4096, "ring.thread_slots": 256, **json.loads(sys.argv[2])})
order, work = ot.probe("order.execute", tier=ot.P0), ot.probe("work", tier=ot.P1)
book, disk = ot.probe("book", tier=ot.P2), ot.probe("disk", tier=ot.P3)
NAMES = ("order.execute", "work", "book", "disk", "monitoring.rollout")
print("ready", flush=True)
for line in sys.stdin:
    what, _, argument = line.strip().partition(" ")
    if what == "events":
        for _ in range(int(argument)):
            for probe in (order, work, book, disk):
                with probe:
                    pass
    elif what == "set_mode":
        ot.set_mode(None if argument == "auto" else argument)
    told = {name: ot.stats().get(name, {}).get("count", 0) for name in NAMES}
    print(json.dumps({"mode": ot.mode(), **told}), flush=True)
"""


class Bot:
    """A recording process that does what it is told, one thing at a time."""

    def __init__(self, process: subprocess.Popen[str], service: str, directory: Path) -> None:
        """Wait until it records."""
        self.process = process
        assert self._line() == "ready\n"
        self.path = next(found.path for found in segments(directory) if found.service == service)
        self.before: dict[str, Any] = {}

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, command: str) -> dict[str, Any]:
        """Have it do something; gives its mode and counts."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def events(self, count: int) -> dict[str, int]:
        """Have so many events of each tier; gives how many of each were recorded."""
        before, after = self.ask("nothing"), self.ask(f"events {count}")
        return {name: after[name] - before[name] for name in ALL}

    @property
    def mode(self) -> str:
        """What any process reads of it."""
        with Readings(self.path) as readings:
            return MODES[readings.read().mode]


@contextlib.contextmanager
def bot(directory: Path, service: str = "bot", config: dict[str, object] | None = None, **env: str) -> Iterator[Bot]:
    """Run a bot."""
    script = directory / "bot.py"
    script.write_text(BOT, encoding="utf-8")
    directory.chmod(0o700)
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(script), service, json.dumps(config or {})],
        env=child_environment(directory, **env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=directory,
    ) as process:
        try:
            yield Bot(process, service, directory)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(20) == 0


def command(directory: Path, *arguments: str) -> dict[str, Any]:
    """Run ``otel-trading mode`` in a process of its own; gives what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "otel_trading", "mode", *arguments, "--directory", str(directory), "--json"],
        env=child_environment(directory),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


BOUNDLESS: dict[str, object] = {
    f"budget.{name.lower()}.{limit}": "none" for name in MODES for limit in ("cpu_percent", "memory_mb", "latency_us")
}
"""Modes alone decide then what is recorded, however slow the machine is."""

ALL = {"order.execute": 200, "work": 200, "book": 200, "disk": 200}
P0_ONLY = {"order.execute": 200, "work": 0, "book": 0, "disk": 0}


def test_a_mode_of_the_command_is_in_force_at_the_next_event(tmp_path: Path) -> None:
    """Forced from another process, it needs no tick and no restart; P0 goes on; ``auto`` gives everything back."""
    with bot(tmp_path) as program:
        assert program.events(200) == ALL
        command(tmp_path, "emergency")
        assert program.events(200) == P0_ONLY
        command(tmp_path, "stressed")
        stressed = program.events(200)
        assert (stressed["order.execute"], stressed["work"], stressed["disk"]) == (200, 200, 0)
        assert 50 <= stressed["book"] <= 150  # each is a trace of its own: half of them
        command(tmp_path, "auto")
        assert program.ask("nothing")["mode"] == "NORMAL"
        assert program.events(200) == ALL


def test_every_process_sees_a_forced_mode(tmp_path: Path) -> None:
    """The bot itself, the command, and any reader of the segment say the same, and that it was forced."""
    with bot(tmp_path, "one") as one, bot(tmp_path, "two") as two:
        shown = command(tmp_path, "emergency", "--service", "one")["processes"]
        assert [(process["service"], process["mode"], process["forced"]) for process in shown] == [
            ("one", "EMERGENCY", "EMERGENCY")
        ]
        assert (one.ask("nothing")["mode"], one.mode) == ("EMERGENCY", "EMERGENCY")
        assert (two.ask("nothing")["mode"], two.mode) == ("NORMAL", "NORMAL")
        assert {process["service"]: process["mode"] for process in command(tmp_path)["processes"]} == {
            "one": "EMERGENCY",
            "two": "NORMAL",
        }
        command(tmp_path, "stressed")
        assert {one.mode, two.mode} == {"STRESSED"}
        command(tmp_path, "auto", "--pid", str(two.process.pid))
        assert (one.mode, two.mode) == ("STRESSED", "NORMAL")


def test_a_mode_of_the_api_is_seen_outside(tmp_path: Path) -> None:
    """``ot.set_mode`` in the bot shows in the command, and what the command says the bot can take back."""
    with bot(tmp_path) as program:
        program.ask("set_mode emergency")
        (shown,) = command(tmp_path)["processes"]
        assert (shown["mode"], shown["forced"], shown["mode_reason"]) == ("EMERGENCY", "EMERGENCY", "forced")
        assert program.events(200) == P0_ONLY
        command(tmp_path, "stressed")
        assert program.ask("nothing")["mode"] == "STRESSED"
        program.ask("set_mode auto")
        assert program.events(200) == ALL


def test_a_mode_of_another_processs_api(tmp_path: Path) -> None:
    """The control page is the API of every other process; P0 is refused there too."""
    with bot(tmp_path) as program:
        with Control(program.path) as control:
            control.force("EMERGENCY")
            with pytest.raises(ControlError, match="P0"):
                control.set_tier(0, False)
            with pytest.raises(ControlError, match="P0"):
                control.set_tier_rate(0, 0.5)
        assert program.events(200) == P0_ONLY


@pytest.mark.parametrize("governed", ["false", "true"])
def test_the_environment_forces_a_mode(tmp_path: Path, governed: str) -> None:
    """OTEL_TRADING_MODE holds from the first event on, and can be changed and released from outside."""
    environment = {"OTEL_TRADING_MODE": "emergency", "OTEL_TRADING_BUDGET_ENABLED": governed}
    with bot(tmp_path, config=BOUNDLESS, **environment) as program:
        assert program.mode == "EMERGENCY"
        assert program.events(200) == P0_ONLY
        (shown,) = command(tmp_path)["processes"]
        assert shown["forced"] == "EMERGENCY"
        command(tmp_path, "normal")
        assert program.events(200) == ALL


@pytest.mark.parametrize("word", ["calm", "auto"])
def test_a_mode_of_the_environment_that_is_none(tmp_path: Path, word: str) -> None:
    """``auto`` is what it is without; anything else is a mistake that ``configure`` tells."""
    done = subprocess.run(
        [sys.executable, "-c", "import otel_trading as ot; ot.configure('x'); print(ot.mode())"],
        env=child_environment(tmp_path, OTEL_TRADING_MODE=word),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if word == "auto":
        assert (done.returncode, done.stdout) == (0, "NORMAL\n")
    else:
        assert done.returncode == 1
        assert "OTEL_TRADING_MODE" in done.stderr
        assert "calm" in done.stderr


def test_a_governed_process_goes_back_by_itself(tmp_path: Path) -> None:
    """Released, the engine decides again; both changes are decisions."""
    config = {
        "engine.dwell": 0.2,
        "engine.stressed_cpu": 1.0,
        "engine.emergency_cpu": 1.0,
        "engine.stressed_memory": 1.0,
        "engine.emergency_memory": 1.0,
    }
    with bot(tmp_path, config=config, OTEL_TRADING_BUDGET_ENABLED="true") as program:
        assert command(tmp_path, "stressed")["processes"][0]["mode"] == "STRESSED"
        wait_until(lambda: any(one.kind_name == "mode" and one.mode_name == "STRESSED" for one in decisions(program)))
        command(tmp_path, "auto")
        wait_until(lambda: program.mode == "NORMAL")
        wait_until(lambda: any(one.kind_name == "mode" and one.mode_name == "NORMAL" for one in decisions(program)))


def decisions(program: Bot) -> list[Any]:
    """What its governor has decided."""
    with Readings(program.path) as readings:
        return readings.decisions()


def test_nobody_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory where only ended processes recorded has none to steer."""
    with bot(tmp_path) as program:
        os.stat(program.path)
    assert main.main(["mode", "emergency", "--directory", str(tmp_path)]) == 2
    assert "no process records" in capsys.readouterr().err


def test_a_process_begins_a_rollout_of_its_own(tmp_path: Path) -> None:
    """With a schedule in its configuration it begins with P0 only; whoever sets a share ends that, for good."""
    config = {**BOUNDLESS, "rollout.schedule": ["10% 10m", "100%"], "mode": "normal"}
    with bot(tmp_path, config=config, OTEL_TRADING_BUDGET_ENABLED="true") as program, Control(program.path) as control:
        wait_until(lambda: control.rollout < 1e-9)
        assert program.events(200) == P0_ONLY
        assert main.main(["rollout", "to", "100%", "--directory", str(tmp_path)]) == 0
        assert program.events(200) == ALL
        assert program.ask("rollouts")["monitoring.rollout"] == 1
