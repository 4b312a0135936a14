"""``otel-trading mode``: what is shown of each process, and forcing a mode."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading.budget import overview
from otel_trading.cli import main, targets
from otel_trading.errors import OtelTradingError
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Recorder


def mode(directory: Path, *arguments: str) -> int:
    """Run the command on a directory."""
    return main.main(["mode", *arguments, "--directory", str(directory)])


def test_the_table(recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a process with pid, service and mode; the next command is last."""
    assert recorder
    assert mode(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["pid", "service", "mode"]
    assert lines[1].split() == [str(os.getpid()), "test", "NORMAL"]
    assert any("P0 100%, P1 100%, P2 100%, P3 100%" in line for line in lines)
    assert lines[-1] == "Next: otel-trading rollout status"


@pytest.mark.parametrize(
    ("word", "name", "rates"),
    [
        ("stressed", "STRESSED", {"P0": 1.0, "P1": 1.0, "P2": 0.5, "P3": 0.0}),
        ("EMERGENCY", "EMERGENCY", {"P0": 1.0, "P1": 0.0, "P2": 0.0, "P3": 0.0}),
        ("High-Volatility", "HIGH_VOLATILITY", {"P0": 1.0, "P1": 1.0, "P2": 1.0, "P3": 1.0}),
    ],
)
def test_a_mode_is_forced_and_released(
    recorder: Recorder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    word: str,
    name: str,
    rates: dict[str, float],
) -> None:
    """It is in force when the command ends, and visible; ``auto`` releases it."""
    assert mode(tmp_path, word, "--json") == 0
    (process,) = json.loads(capsys.readouterr().out)["processes"]
    assert (process["mode"], process["forced"], process["mode_reason"]) == (name, name, "forced")
    assert process["rates"] == rates
    with Control(recorder.path) as control:
        assert control.forced is not None
    assert mode(tmp_path, "auto", "--json") == 0
    (process,) = json.loads(capsys.readouterr().out)["processes"]
    assert (process["mode"], process["forced"]) == ("NORMAL", None)
    assert set(process["rates"].values()) == {1.0}


def test_it_is_in_force_at_the_next_record(recorder: Recorder, tmp_path: Path) -> None:
    """The program notices nothing but that its P3 is no longer recorded."""
    probe, order = ot.probe("cm.disk", tier=ot.P3), ot.probe("cm.order", tier=ot.P0)
    for wanted in ("normal", "stressed", "auto"):
        assert mode(tmp_path, wanted) == 0
        with probe, order:
            pass
    assert len(recorder.named("cm.order")) == 3
    assert ot.stats()["cm.disk"]["count"] == 2


def test_a_mode_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped mode is told, with the one that may have been meant."""
    with pytest.raises(SystemExit) as ended:
        mode(tmp_path, "emergancy")
    assert ended.value.code == 2
    assert "did you mean emergency?" in capsys.readouterr().err


def test_no_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing records, the command could not run, and says what to do."""
    tmp_path.chmod(0o700)
    assert mode(tmp_path, "stressed") == 2
    assert "no process records in" in capsys.readouterr().err


def test_the_choice_of_processes(recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By pid and by service; one that fits nothing is told, with those that there are."""
    assert mode(tmp_path, "stressed", "--pid", str(os.getpid()), "--service", "test", "--service", "other") == 0
    assert mode(tmp_path, "emergency", "--service", "other") == 2
    assert f"there are test (pid {os.getpid()})" in capsys.readouterr().err
    with Control(recorder.path) as control:
        assert control.mode == 2


def test_one_that_can_not_be_changed(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends meanwhile is told, and the exit code is 1."""
    assert recorder

    def gone(*_: object) -> None:
        raise OtelTradingError("it has ended")

    monkeypatch.setattr("otel_trading.segment.control.Control.force", gone)
    assert mode(tmp_path, "stressed") == 1
    assert "could not be changed: it has ended" in capsys.readouterr().out


def test_a_segment_that_goes_while_it_is_looked_at(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gone is a line, not an error."""
    assert recorder

    def gone(_: str) -> None:
        raise OtelTradingError("it has ended")

    monkeypatch.setattr(overview, "document", gone)
    assert mode(tmp_path) == 0
    assert "it has ended" in capsys.readouterr().out


def test_the_configurations_directory_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_recorder: Callable[..., Recorder]
) -> None:
    """Without --directory the one that recording processes take is looked in."""
    import argparse

    make_recorder()
    monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path))
    found = targets.chosen(argparse.Namespace(directory=None, pid=None, service=None))
    assert [one.pid for one in found] == [os.getpid()]


# ---- what is written -------------------------------------------------------------------------------


def found(**changes: Any) -> dict[str, Any]:
    """What a governed process's document looks like."""
    document: dict[str, Any] = {
        "governed": True,
        "ticks": 100,
        "failed": False,
        "mode": "STRESSED",
        "mode_since_unix_ns": 1_000_000_000_000,
        "mode_reason": "cpu",
        "forced": None,
        "usage": {
            "cpu": {"used": 0.008, "limit": 0.01},
            "memory": {"used": 12.1e6, "limit": 15e6},
            "latency": {"used": 4.2e-6, "limit": 5e-5},
            "network": {"used": 4_000.0, "limit": 8_000.0},
            "disk": {"used": None, "limit": None},
        },
        "pressure": {"cpu": 0.74, "memory": 0.31, "cpu_stall": None, "memory_stall": 0.0},
        "market": {"volatility": 0.31, "volume": None},
        "rates": {"P0": 1.0, "P1": 1.0, "P2": 0.5, "P3": 0.0},
        "rollout": 0.25,
        "buffers": 0.25,
        "horizon_s": 9.04,
        "kept": {"error": 12, "share": 800},
        "missed": {"error": 0, "slow": 3},
        "dropped": 34_000,
        "keep": {"hold_s": 5.0, "burst_s": 60.0, "limits": {"error": None, "slow": 20.0, "share": None}},
        "shares": {"P0": 1.0, "P1": 0.125, "P2": 0.0, "P3": 0.0},
        "decisions": [
            {"unix_ns": 1_000_000_000_000, "text": "mode NORMAL -> STRESSED: older"},
            {"unix_ns": 1_001_000_000_000, "text": "exports wait: newer"},
        ],
    }
    return {**document, **changes}


def test_everything_of_a_governed_process_is_written() -> None:
    """Use and limits, pressure, tiers, rollout, rules, what was kept and missed, horizon; newest decisions first."""
    text = "\n".join(overview.lines(found()))
    for part in (
        "cpu 0.80 of 1 %",
        "memory 12.1 of 15 MB",
        "latency 4.2 of 50 µs",
        "network 32 of 64 kbit/s",
        "disk ? op/s, no limit",
        "cpu 74%",
        "cpu stall ?",
        "volatility 0.31, volume ?",
        "P2 50%, P3 off; rollout at 25%",
        "buffers   25% of their size",
        "error, slow up to 20/s; of plain traces P0 100%, P1 12.5%",
        "error 12, share 800; 34,000 plain ones were not; MISSED slow 3",
        "9.0 s back",
    ):
        assert part in text
    assert text.index("newer") < text.index("older")
    assert "FAILED" in "\n".join(overview.lines(found(failed=True)))
    assert "not ticked yet" in "\n".join(overview.lines(found(ticks=0)))
    assert "nothing is governed" in "\n".join(overview.lines(found(governed=False)))
    assert overview.kept_text(found(kept={}, missed={}, dropped=0)) == "no trace so far"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "STRESSED for 34 s (cpu)"),
        ({"forced": "STRESSED"}, "STRESSED for 34 s, forced"),
        ({"forced": "NORMAL"}, "STRESSED for 34 s, NORMAL was asked for"),
        ({"mode_reason": "none", "mode_since_unix_ns": 0}, "STRESSED"),
        ({"mode_reason": "budget_cpu"}, "STRESSED for 34 s (budget cpu)"),
    ],
)
def test_modes_are_written(changes: dict[str, Any], text: str) -> None:
    """Mode, how long, and why."""
    assert overview.mode_text(found(**changes), now=1_034.0) == text
