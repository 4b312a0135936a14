"""``otel-trading impact`` from end to end, as short as it goes: real programs, a real receiver, no figure judged."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT, child_environment

import otel_trading as ot
from otel_trading.bench import children
from otel_trading.bench.paced import POINTS
from otel_trading.bench.receiving import receiver
from otel_trading.impact import blocks

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(not children.has_otlp(), reason="the OTLP exporter is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="memory and writes are read from /proc"),
]

ENOUGH = {"estimate", "low", "high"}


def command(directory: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the command; its exit code, its JSON, and what it says to people."""
    file = directory / "impact.json"
    done = subprocess.run(
        [sys.executable, "-m", "otel_trading", "impact", "--quick", "--json", str(file), *arguments],
        env=child_environment(directory),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode, json.loads(file.read_text(encoding="utf-8")), done.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], str]:
    """One quick run against the stock SDK."""
    return command(tmp_path_factory.mktemp("impact"), "--against", "otel-sdk")


def test_every_variant_has_every_block_of_every_round(measured: tuple[int, dict[str, Any], str]) -> None:
    """Each variant met the same load in each round, and each block is in the file."""
    _, found, _ = measured
    assert set(found["runs"]) == {"bare", "ours", "sdk"}
    for number in range(found["plan"]["rounds"]):
        assert len({found["runs"][variant]["latency"][number]["spans"] for variant in found["runs"]}) == 1
        assert len({found["runs"][variant]["throughput"][number]["updates"] for variant in found["runs"]}) == 1
    for runs in found["runs"].values():
        assert {kind: len(rows) for kind, rows in runs.items()} == dict.fromkeys(blocks.KINDS, found["plan"]["rounds"])


def test_the_file_says_everything_that_is_judged(measured: tuple[int, dict[str, Any], str]) -> None:
    """Differences with their intervals by variant, verdicts with their limits, and the answer of the exit code."""
    code, found, shown = measured
    assert found["schema"] == 1
    assert found["passed"] is (code == 0)
    for row in (found["summary"]["ours"], found["summary"]["sdk"]):
        for key in ("cpu_percent", "machine_percent", "memory_mb", "throughput_percent", "tail_ratio", "network_kbps"):
            assert set(row[key]) == ENOUGH, key
        assert set(row["latency_us"]) == set(POINTS)
    limits = {(verdict["what"], verdict["own"]): verdict["limit"] for verdict in found["verdicts"]}
    assert limits["CPU added", False] == 2.5
    assert limits["memory added", False] == 30.0
    assert limits["latency added, tick to order, p99", False] == 200.0
    assert limits["throughput lost", False] == 5.0
    assert limits["throughput lost", True] == 1.0
    assert limits["p99.9 tick to order, to plain", True] == 1.5
    assert found["passed"] is all(verdict["met"] for verdict in found["verdicts"] if not verdict["own"])
    assert shown.rstrip().splitlines()[-1].startswith("Next: otel-trading ")


def test_the_recorder_is_in_our_program_alone(measured: tuple[int, dict[str, Any], str]) -> None:
    """Ours accounts for its spans and has a segment in memory; the plain program and the SDK's have none."""
    runs = measured[1]["runs"]
    assert measured[1]["backend"] == ot.backend
    for one in runs["ours"]["batches"]:
        assert one["backend"] == ot.backend
        account = one["accounts"]
        parts = ("exported", "sampled_out", "overwritten", "refused", "pending")
        assert account["recorded"] > 0
        assert account["recorded"] == sum(account[part] for part in parts)
        assert one["memory"]["segment"] > 1 << 20
    for one in (*runs["bare"]["batches"], *runs["sdk"]["batches"]):
        assert one["accounts"] == {}
        assert one["memory"]["segment"] == 0
    assert runs["bare"]["batches"][0]["seen"]["bytes"] == 0


PLAIN = """
import runpy, sys
names = runpy.run_path(sys.argv[1])
program = names["Program"]("bare", "", None)
for name in ("latency", "batches", "throughput"):
    levels = {"levels": 2} if name == "throughput" else {}
    names["TASKS"][name](program, seconds=0.05, rate=1000, orders=100, rejected=0.0, seed=1, **levels)
print([name for name in sys.modules if name.startswith(("otel_trading", "opentelemetry"))])
"""


def test_the_plain_program_imports_nothing_of_ours(tmp_path: Path) -> None:
    """What is compared with is a program without otel-trading and without OpenTelemetry, and not one that is idle."""
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(blocks.PROGRAM)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_was_sent_is_seen_by_the_receiver() -> None:
    """Bytes are counted where they arrive, headers apart, and what is no trace is not taken for spans."""
    with receiver(None) as (endpoint, end):
        assert blocks.totals(endpoint) == {"requests": 0, "bytes": 0, "headers": 0}
        options = {
            "variant": "sdk", "endpoint": endpoint, "cpu": None, "seconds": 0.3, "rate": 1000, "orders": 100,
            "rejected": 0.0, "seed": 1,
        }  # fmt: skip
        found = blocks.block("batches", options, "NORMAL")
        assert set(found["seen"]) == {"requests", "bytes", "headers", "written"}
        told = end()
    assert told["spans"] >= found["updates"]
    assert told["bytes"] > 0
    assert told["headers"] > 0


def test_a_receiver_that_is_not_there_is_told() -> None:
    """Without a receiver nothing can be said of what is sent."""
    with receiver(None) as (endpoint, _):
        pass
    with pytest.raises(children.BenchmarkError, match="does not answer"):
        blocks.totals(endpoint)


@pytest.mark.parametrize("mode", ["STRESSED", "EMERGENCY"])
def test_a_mode_can_be_measured(mode: str, tmp_path: Path) -> None:
    """The instrumented program is in the mode that is asked for, and is held to the limits of that mode."""
    _, found, _ = command(tmp_path, "--mode", mode)
    limits = {verdict["what"]: verdict["limit"] for verdict in found["verdicts"] if not verdict["own"]}
    assert limits["CPU added"] == {"STRESSED": 1.0, "EMERGENCY": 0.3}[mode]
    for one in found["runs"]["ours"]["batches"]:
        assert one["meter"]["mode"] == {"STRESSED": 2, "EMERGENCY": 3}[mode]
    assert (mode == "EMERGENCY") == ("written to disks" in limits)
