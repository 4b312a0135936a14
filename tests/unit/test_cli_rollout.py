"""``otel-trading rollout``: shares that are set, and a schedule that runs."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading.cli import main
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Recorder


def rollout(directory: Path, *arguments: str) -> int:
    """Run the command on a directory."""
    return main.main(["rollout", *arguments, "--directory", str(directory)])


@pytest.fixture
def busy(recorder: Recorder) -> Iterator[Callable[[float], None]]:
    """Record P0 spans of a set duration all the time; gives the function that sets it."""
    duration = [1_000_000]
    probe = ot.probe("cr.order", tier=ot.P0)
    over = threading.Event()

    def record() -> None:
        while not over.wait(0.001):
            now = time.time_ns()
            probe.record(None, now - duration[0], now, False, None)

    thread = threading.Thread(target=record)
    thread.start()
    assert recorder
    yield lambda seconds: duration.__setitem__(0, round(seconds * 1e9))
    over.set()
    thread.join()


def test_a_share_is_set(recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``to`` puts it in force for P1 to P3, and shows it."""
    assert rollout(tmp_path, "to", "50%") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [str(os.getpid()), "test", "50%", "100%", "50%", "50%", "50%"]
    assert lines[-1] == "Next: otel-trading rollout to 100%"
    with Control(recorder.path) as control:
        assert control.rollout == 0.5


def test_status_in_json(recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without anything it is the status."""
    assert recorder
    assert rollout(tmp_path, "--json") == 0
    (process,) = json.loads(capsys.readouterr().out)["processes"]
    assert process == {
        "pid": os.getpid(),
        "service": "test",
        "share": 1.0,
        "rates": {"P0": 1.0, "P1": 1.0, "P2": 1.0, "P3": 1.0},
    }


def test_back_goes_in_two_steps(recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To 10 %, then to P0 only; P0 goes on."""
    probe = ot.probe("cr.order", tier=ot.P0)
    for share in (0.1, 0.0):
        assert rollout(tmp_path, "back", "--json") == 0
        (process,) = json.loads(capsys.readouterr().out)["processes"]
        assert process["share"] == share
        assert process["rates"]["P0"] == 1.0
    with probe, ot.probe("cr.work"):
        pass
    assert [record.name for record in recorder.records()] == ["cr.order"]


@pytest.mark.parametrize("arguments", [("to",), ("to", "110%"), ("to", "some"), ("back", "10%"), ("start", "10%")])
def test_what_makes_no_sense_is_refused(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """A share where none belongs, none where one does, and one that is none."""
    assert rollout(tmp_path, *arguments) == 2
    assert "share" in capsys.readouterr().err
    with Control(recorder.path) as control:
        assert control.rollout == 1.0


@pytest.mark.parametrize("arguments", [("start", "--window", "0"), ("start", "--worse", "x"), ("begin",)])
def test_options_are_checked(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Numbers that are none end the command before anything happens."""
    with pytest.raises(SystemExit) as ended:
        rollout(tmp_path, *arguments)
    assert ended.value.code == 2


def test_a_mistaken_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A schedule that is none is told before any process is touched."""
    assert rollout(tmp_path, "start", "--schedule", "50% 1m,10%") == 2
    assert "shares have to rise" in capsys.readouterr().err


def test_a_schedule_runs_to_its_end(
    busy: Callable[[float], None], recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P0 only, each step, the end: an event a line, and the share is in force in the process."""
    assert busy
    arguments = ("--schedule", "50%,100%", "--window", "0.2", "--spans", "5", "--worse", "1000", "--json")
    assert rollout(tmp_path, "start", *arguments) == 0
    events: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["what"] for event in events] == ["start", "step", "step", "done"]
    assert [event["after"] for event in events] == [0.0, 0.5, 1.0, 1.0]
    assert {event["pid"] for event in events} == {os.getpid()}
    with Control(recorder.path) as control:
        assert control.rollout == 1.0


def test_a_worse_application_is_rolled_back(
    busy: Callable[[float], None],
    recorder: Recorder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    until: Callable[..., None],
) -> None:
    """As soon as traces are recorded it is ten times slower: the exit code is 1, and P0 is all that is left."""

    def suffer() -> None:
        with Control(recorder.path) as control:
            until(lambda: control.rollout < 0.5)
            until(lambda: control.rollout >= 0.5)
        busy(0.1)

    suffering = threading.Thread(target=suffer)
    suffering.start()
    arguments = ("--schedule", "50% 1h,100%", "--window", "0.3", "--spans", "5", "--worse", "10")
    assert rollout(tmp_path, "start", *arguments) == 1
    suffering.join()
    shown = capsys.readouterr().out
    assert "rollback: 50% -> 10%" in shown
    assert "rollback: 10% -> 0%" in shown
    assert shown.splitlines()[-1].startswith("Next: otel-trading rollout status")
    with Control(recorder.path) as control:
        assert control.rollout < 1e-9


@pytest.mark.parametrize("action", [("stop",), ("to", "75%")])
def test_whoever_takes_over_ends_the_schedule(
    busy: Callable[[float], None],
    recorder: Recorder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    until: Callable[..., None],
    action: tuple[str, ...],
) -> None:
    """``stop`` and ``to`` of another terminal end a schedule that runs; its share stays, or is the one that was set."""
    assert busy

    def take_over() -> None:
        with Control(recorder.path) as control:
            until(lambda: control.rollout < 0.5)
            until(lambda: control.rollout == 0.5)
        assert rollout(tmp_path, *action) == 0

    other = threading.Thread(target=take_over)
    other.start()
    arguments = ("--schedule", "50% 1h,100%", "--window", "0.2", "--spans", "1", "--worse", "1000")
    assert rollout(tmp_path, "start", *arguments) == 0
    other.join()
    assert "rollout stopped at 50%" in capsys.readouterr().out
    with Control(recorder.path) as control:
        assert control.rollout == pytest.approx(0.5 if action == ("stop",) else 0.75)


def test_a_process_that_ends_ends_its_rollout(run_python: Callable[..., Any]) -> None:
    """The command does not wait for a process that is gone."""
    program = """
import sys, threading
import otel_trading as ot
from otel_trading.cli import main
ot.configure("ending", config={"ring.slots": 1024})
threading.Timer(0.5, ot.shutdown).start()
sys.exit(main.main(["rollout", "start", "--schedule", "50%", "--window", "0.2"]))
"""
    done = run_python(program)
    assert "rollout stopped" in done.stdout
