"""The impact command: what it boils the rounds down to, how it judges, and its exit codes.  No figure is measured."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from otel_trading.bench.paced import POINTS
from otel_trading.cli.main import main
from otel_trading.impact import blocks, report, verdicts

if TYPE_CHECKING:
    from pathlib import Path

MEGABYTE = 1_000_000


def latency(microseconds: float) -> dict[str, float]:
    """Quantiles that are all the same."""
    return dict.fromkeys(POINTS, microseconds * 1000.0)


def meter(cpu: float, exporters: int = 0) -> dict[str, Any]:
    """What a program's own meter would tell; ``cpu`` is a share of one core."""
    costs = {"span": 5e-7}
    parts = {"cpu_hot": cpu / 2, "cpu_drain": cpu / 2, "cpu_export": 0.0, "cpu_governor": 0.0}
    usage = {"cpu": cpu, "memory": 2e7, "latency": 1e-6, "network": 100.0, "disk": 0.0}
    return {
        "cpu": cpu,
        "network": 1000.0,
        "disk": 0.0,
        "kept": [1, 2],
        "missed": [0, 0],
        "usage": usage,
        "costs": costs,
        "exporter_memory": float(exporters),
        "base_memory": 0.0,
        "memory_segment": 0.0,
        "memory_heap": 0.0,
        "mode": 0,
        "rates": [1.0],
        "steps": 0,
        "violations": [0],
        "horizon": 1.0,
        **parts,
    }


def results(
    *,
    cpu: float = 0.02,
    memory: int = 20,
    exporters: int = 0,
    added_us: float = 3.0,
    throughput: float = 0.995,
    sent: int = 1000,
    written: int = 0,
    metered: float | None = 0.02,
    mode: str = "NORMAL",
    rounds: int = 3,
) -> dict[str, Any]:
    """A run in which ours adds this to a plain program of 5 % CPU, 10 MB, 10 µs, 1,000 updates/s."""
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for variant, ours in (("bare", False), ("ours", True)):
        micros = 10.0 + (added_us if ours else 0.0)
        runs[variant] = {
            "latency": [{"order_ns": latency(micros), "update_ns": latency(micros)} for _ in range(rounds)],
            "throughput": [{"updates": 1000 * (throughput if ours else 1.0), "seconds": 1.0} for _ in range(rounds)],
            "batches": [
                {
                    "cpu_s": 2.0 * (0.05 + number / 100 + (cpu if ours else 0.0)),
                    "wall_s": 2.0,
                    "memory": {
                        "own": (10 + (memory - 5 if ours else 0)) * MEGABYTE,
                        "segment": 5 * MEGABYTE if ours else 0,
                    },
                    "meter": meter(metered, exporters * MEGABYTE) if ours and metered is not None else None,
                    "accounts": {"overwritten": 0, "refused": 0} if ours else {},
                    "seen": {"requests": 1, "bytes": sent, "headers": 0, "written": written},
                }
                for number in range(rounds)
            ],
        }
    plan = blocks.plan(60.0, mode=mode)
    return {"machine": {}, "backend": "native", "plan": plan._asdict(), "cpu": 1, "levels": 5, "runs": runs}


def judged(**changes: Any) -> dict[str, verdicts.Verdict]:
    """Verdicts of such a run; own targets by their name with a star."""
    run = results(**changes)
    found = verdicts.verdicts(run, verdicts.summary(run))
    return {one.what + ("*" if one.own else ""): one for one in found}


def test_differences_are_those_of_the_same_round() -> None:
    """Where the machine's mood changes from round to round, and what is added does not, the interval has no width."""
    row = verdicts.summary(results(cpu=0.02))["ours"]
    assert row["cpu_percent"]["estimate"] == pytest.approx(2.0)
    assert row["cpu_percent"]["high"] - row["cpu_percent"]["low"] == pytest.approx(0.0, abs=1e-9)
    assert row["bare_cpu_percent"]["estimate"] == pytest.approx(6.0)
    assert row["latency_us"]["p99"]["estimate"] == pytest.approx(3.0)
    assert row["tail_ratio"]["estimate"] == pytest.approx(1.3)
    assert row["throughput_percent"]["estimate"] == pytest.approx(0.5)
    assert row["memory_mb"]["estimate"] == pytest.approx(20.0)
    assert row["network_kbps"]["estimate"] == pytest.approx(4.0)


def test_everything_within_its_limits_is_kept() -> None:
    """A run that adds little passes, our own targets included."""
    found = judged()
    assert all(one.met for one in found.values())
    assert verdicts.passed(list(found.values()))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"cpu": 0.026}, "CPU added"),
        ({"memory": 31}, "memory added"),
        ({"added_us": 201.0}, "latency added, tick to order, p99"),
        ({"throughput": 0.94}, "throughput lost"),
        ({"sent": 100_000}, "sent"),
    ],
)
def test_each_limit_is_one_that_can_be_exceeded(change: dict[str, Any], what: str) -> None:
    """What goes past one limit fails by that limit, and the whole run with it."""
    found = judged(**change)
    assert [one.what for one in found.values() if not one.met and not one.own] == [what]
    assert not verdicts.passed(list(found.values()))


def test_own_targets_do_not_decide() -> None:
    """A tail ratio of 2, 2 % of throughput and a meter that is 30 % off are told, and the run passes."""
    found = judged(added_us=10.0, throughput=0.98, metered=0.026)
    missed = {name for name, one in found.items() if not one.met}
    assert missed == {"p99.9 tick to order, to plain*", "throughput lost*", "meter's CPU, off by*"}
    assert verdicts.passed(list(found.values()))


def test_exporters_libraries_are_told_and_not_held_against_the_limit() -> None:
    """Of 40 MB that were added, 15 are the exporters' libraries by the program's own account: 25 count."""
    row = verdicts.summary(results(memory=40, exporters=15))["ours"]
    assert row["memory_mb"]["estimate"] == pytest.approx(25.0)
    assert row["memory_all_mb"]["estimate"] == pytest.approx(40.0)
    assert row["exporter_mb"]["estimate"] == pytest.approx(15.0)


def test_emergency_allows_no_byte_at_all() -> None:
    """In EMERGENCY one byte that is sent, or written to a disk, is too much; and its own limits hold."""
    quiet = judged(mode="EMERGENCY", cpu=0.002, memory=4, metered=None, sent=0)
    assert all(one.met for one in quiet.values() if not one.own)
    assert not judged(mode="EMERGENCY", cpu=0.002, memory=4, sent=1)["sent"].met
    assert not judged(mode="EMERGENCY", cpu=0.002, memory=4, sent=0, written=1)["written to disks"].met
    assert not judged(mode="EMERGENCY", cpu=0.004, memory=4, sent=0)["CPU added"].met


def test_a_program_without_a_meter_is_compared_with_nothing() -> None:
    """Where the budget did not run there is no verdict on its meter, and the report says so."""
    run = results(metered=None)
    boiled = verdicts.summary(run)
    assert "meter" not in boiled["ours"]
    assert "meter did not run" in rendered(report.impact_tables(run, boiled))


def test_a_system_without_proc_has_no_memory_verdict() -> None:
    """Where memory can not be looked at the other limits are judged."""
    run = results()
    for one in run["runs"]["ours"]["batches"]:
        one["memory"] = None
        del one["seen"]
    found = verdicts.verdicts(run, verdicts.summary(run))
    assert {"memory added", "sent"}.isdisjoint(one.what for one in found)


@pytest.mark.parametrize(("cpu", "metered"), [(0.02, 0.021), (0.02, 0.019), (0.1, 0.05), (0.004, 0.02)])
def test_agreement_of_the_meter_is_its_distance_from_the_comparison(cpu: float, metered: float) -> None:
    """The meter's figure to that of the comparison, in percent, whichever is the larger."""
    row = verdicts.summary(results(cpu=cpu, metered=metered))["ours"]
    if cpu <= 0.0049:
        assert "agreement_percent" not in row["meter"]
    elif cpu >= 0.0051:
        assert row["meter"]["agreement_percent"]["estimate"] == pytest.approx(100.0 * (metered / cpu - 1.0), abs=1e-3)


# ---- the plan


@given(st.floats(1.0, 86_400.0), st.booleans())
def test_the_plan_takes_as_long_as_it_was_asked_to(seconds: float, sdk: bool) -> None:  # noqa: FBT001  a given value
    """All blocks of all rounds together take the seconds, and there are enough rounds for an interval."""
    plan = blocks.plan(seconds, sdk=sdk)
    assert plan.measured_s == pytest.approx(seconds)
    assert plan.rounds >= 3
    assert plan.variants == (("bare", "ours", "sdk") if sdk else ("bare", "ours"))


# ---- the command


def rendered(parts: Any) -> str:
    """What a terminal would show."""
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    for part in parts:
        console.print(part)
    return shown.getvalue()


def run_command(monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], *arguments: str) -> int:
    """The command, with a run that has been measured already."""
    monkeypatch.setattr(blocks, "run", lambda *_: run)
    return main(["impact", *arguments])


def test_limits_decide_on_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """0 where all are kept, 1 where one is not; the file has the same answer, and the next command comes last."""
    file = tmp_path / "impact.json"
    assert run_command(monkeypatch, results(), "--json", str(file)) == 0
    found = json.loads(file.read_text())
    assert found["passed"] is True
    assert {"schema", "kind", "machine", "plan", "runs", "summary", "verdicts"} <= set(found)
    shown = capsys.readouterr().out
    assert "latency added" in shown
    assert shown.rstrip().endswith("Next: otel-trading impact --stress")
    assert run_command(monkeypatch, results(cpu=0.5), "--json", str(file)) == 1
    assert json.loads(file.read_text())["passed"] is False
    assert "exceeded" in capsys.readouterr().out


def test_json_on_standard_output_is_json_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``--json -`` everything for people goes to standard error."""
    assert run_command(monkeypatch, results(), "--json", "-") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["kind"] == "impact"
    assert "Verdict" in shown.err


@pytest.mark.parametrize(
    "wrong",
    [["--seconds", "0"], ["--seconds", "x"], ["--mode", "CALM"], ["--against", "us"], ["--trials", "-1"],
     ["--memory-limit", "0"]],
)  # fmt: skip
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    """What makes no sense ends with argparse's 2."""
    with pytest.raises(SystemExit) as caught:
        main(["impact", *wrong])
    assert caught.value.code == 2


def test_what_can_not_be_measured_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    """A file in no directory, and a pressure that there is not, end the command at once, with the reason."""
    assert main(["impact", "--json", "/nowhere/at/all.json"]) == 2
    assert main(["impact", "--stress", "--only", "boredom"]) == 2
    assert "high_cpu" in capsys.readouterr().err
