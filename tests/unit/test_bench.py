"""The benchmarks: that they measure what they say, on both backends.  No figure of theirs is judged here."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import otel_trading as ot
from otel_trading.bench import children, machine, measure, paced, report, suite, tasks, trading
from otel_trading.bench.forms import forms
from otel_trading.bench.intervals import Interval, median, quantile, ratio_of_medians
from otel_trading.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make segments in the test's directory, in children too."""
    monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path))


def rendered(tables: Any) -> str:
    """What a terminal would show."""
    console = Console(file=io.StringIO(), width=200)
    for table in tables:
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


# ---- statistics


def test_quantile_is_the_smallest_value_not_exceeded_by_the_share() -> None:
    """Quantiles are values of the sample, the first and the last included."""
    ordered = [float(number) for number in range(1, 1001)]
    assert [quantile(ordered, share) for share in (0.0, 0.5, 0.999, 0.9999, 1.0)] == [1, 500, 999, 1000, 1000]


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_quantile_of_nothing_or_beyond_is_refused(values: list[float], share: float) -> None:
    """There is no quantile of an empty sample, nor past its ends."""
    with pytest.raises(ValueError, match="no quantile"):
        quantile(values, share)


def test_median_has_an_interval_around_it() -> None:
    """The bootstrap interval holds the estimate and stays inside the sample."""
    found = median([3.0, 1.0, 2.0, 5.0, 4.0])
    assert found.estimate == 3.0
    assert 1.0 <= found.low <= found.estimate <= found.high <= 5.0
    assert median([2.0] * 5) == Interval(2.0, 2.0, 2.0)


def test_ratio_is_resampled_by_round() -> None:
    """Where every round has the same ratio of 2, its interval has no width though the rounds differ ten times over."""
    assert ratio_of_medians([2.0, 20.0, 8.0], [1.0, 10.0, 4.0]) == Interval(2.0, 2.0, 2.0)


def test_statistics_of_no_round_are_refused() -> None:
    """Zero rounds are an error that says so."""
    with pytest.raises(ValueError, match="at least one round"):
        median([])
    with pytest.raises(ValueError, match="at least one round"):
        ratio_of_medians([], [])


# ---- measuring


def form(key: str, statement: str, **more: Any) -> measure.Form:
    """A form without a target."""
    names = more.pop("names", {})
    return measure.Form(key, key, statement, names, **more)


def test_a_block_runs_its_statement_the_number_of_times_it_says() -> None:
    """Loops times the unrolled copies, no more and no less, inside the ``with`` around it."""
    seen: list[str] = []

    class Around:
        def __enter__(self) -> None:
            seen.append("enter")

        def __exit__(self, *_: object) -> None:
            seen.append("exit")

    run = measure.block("note('x')\nnote('y')", {"note": seen.append, "w": Around()}, "w")
    assert run(3) > 0
    assert seen == ["enter", *(["x", "y"] * 3 * measure.UNROLL), "exit"]


def test_forms_are_measured_once_a_round_between_their_hooks() -> None:
    """Every form has one figure a round, its hooks surround its own blocks, and the collector is left as it was."""
    calls: list[str] = []
    hooked = form("hooked", "f()", names={"f": int}, before=lambda: calls.append("+"), after=lambda: calls.append("-"))
    rounds: list[int] = []
    groups: list[int] = []
    timings = measure.measure(
        [hooked, form("other", "f(1)", names={"f": abs}, baseline="f(2)")],
        rounds=3,
        block_ns=10_000,
        between=lambda: groups.append(1),
        progress=rounds.append,
    )
    assert "".join(calls) == "+-" * 4  # once to find the number of loops
    assert rounds == [1, 2, 3]
    assert len(groups) == 6
    for timing in timings.values():
        lengths = {len(values) for values in asdict(timing).values()}
        assert lengths == {3}
    assert timings["hooked"].baseline_ns == timings["hooked"].empty_ns


def test_cost_and_ratio_subtract_what_is_not_the_form() -> None:
    """Cost is form less baseline, a floor is floor less empty loop, and the ratio is theirs."""
    timing = measure.Timing(form_ns=[110.0], baseline_ns=[10.0], floor_ns=[51.0], empty_ns=[1.0])
    assert timing.cost_ns() == [100.0]
    assert timing.ratios() == [2.0]


def test_allocations_tell_a_leak_from_a_passing_object_from_nothing() -> None:
    """What a form keeps shows as blocks left, what it builds and drops as a peak, and no object as neither."""
    kept: list[object] = []
    leak = measure.allocations(form("leak", "keep(bytearray(100))", names={"keep": kept.append}), 2000)
    passing = measure.allocations(form("passing", "bytes(1000)"), 2000)
    nothing = measure.allocations(form("nothing", "f(1)", names={"f": abs}), 2000)
    assert leak.records == 2000
    if sys.getallocatedblocks():  # with PYTHONMALLOC=malloc Python does not count them
        assert leak.left_blocks >= 2000
    assert leak.left_bytes > 0
    assert passing.left_blocks < 20
    assert passing.peak_bytes >= 1000
    assert nothing.left_blocks < 20
    assert nothing.peak_bytes == 0


def test_every_form_records_what_it_says() -> None:
    """Each form adds as many records as its statement was run, and a switched-off one adds none."""
    tasks.start_idle(4096)
    for one in forms(ot.backend):
        run = measure.block(one.statement, one.names, one.around)
        around = 1 if one.around else 0
        before = ot.accounts()[1]["recorded"]
        if one.before:
            one.before()
        run(2)
        if one.after:
            one.after()
        recorded = ot.accounts()[1]["recorded"] - before
        spans = 0 if one.key in ("counter", "gauge", "histogram") or one.key.startswith("off_") else 2 * measure.UNROLL
        assert recorded == spans + around, one.key


def test_forms_task_gives_figures_for_each_form() -> None:
    """The task times the forms that it is asked for, counts their allocations, and adds one with the drain running."""
    done: list[int] = []
    only = ["start_stop", "counter", "start_stop_drained"]
    found = tasks.measure_forms(done.append, rounds=2, block_ns=20_000, allocation_records=100, only=only)
    assert found["backend"] == ot.backend
    assert list(found["forms"]) == only
    assert len(found["forms"]["start_stop"]["timing"]["form_ns"]) == 2
    assert found["forms"]["counter"]["allocations"]["records"] == 100
    assert done == [1, 2]
    json.dumps(found)


def test_drain_task_drains_all_that_it_records() -> None:
    """A pass handles the whole of the ring that was filled, and has a rate."""
    found = tasks.measure_drain(lambda _: None, rounds=2, slots=256)
    assert found["spans_a_pass"] == 240
    assert {kind: len(rates) for kind, rates in found["spans_per_second"].items()} == {"plain": 2, "attributes": 2}
    assert min(found["spans_per_second"]["plain"]) > 0


# ---- children


def test_child_that_fails_is_an_error_with_its_own_words() -> None:
    """What a worker says before it fails is in the error, whose exit code is that of "could not run"."""
    with pytest.raises(children.BenchmarkError, match="no task 'nothing'") as caught:
        children.task("nothing", {}, backend=None)
    assert caught.value.exit_code == 2


def test_child_imports_this_package_without_this_process_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's variables do not reach a worker; the backend, the directory and the package's place do."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    environment = children.environment("pure", {"OTEL_EXPORTER_OTLP_ENDPOINT": "x"})
    ours = {name for name in environment if name.startswith("OTEL_")}
    assert ours == {"OTEL_TRADING_DIR", "OTEL_TRADING_BACKEND", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(Path(ot.__file__).parents[1])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc/self/smaps")
def test_footprint_counts_the_segment_in_full() -> None:
    """The added memory holds the reserved segment, and the ring is a part of the segment."""
    found = children.footprint(ot.backend)
    memory = found["memory"]
    assert found["backend"] == ot.backend
    assert memory["ring_bytes"] >= 65_536 * 128
    assert memory["ring_bytes"] <= memory["segment_bytes"] <= memory["segment_allocated"] + 4096
    assert memory["added"] >= memory["segment_allocated"]


def test_machine_is_described() -> None:
    """The figures' file says which interpreter and how many processors."""
    found = machine.describe()
    assert found["python"].endswith(sys.version.split()[0])
    assert found["cores"] == os.cpu_count()


# ---- the paced load


def test_load_is_the_same_for_the_same_seed() -> None:
    """Two variants of a round meet the same ticks, and the next round others; spans are counted four to an order."""
    one, same, other = (trading.Load(0.1, 1000, 100, seed) for seed in (1, 1, 2))
    assert one.__dict__ == same.__dict__ != other.__dict__
    assert one.count == 100
    assert one.spans == one.count + 3 * sum(one.trades)


def test_load_of_several_symbols_goes_to_their_handlers() -> None:
    """Each tick is handled by its symbol's strategy, all symbols have some, and one symbol's load is as it was."""
    load = trading.Load(0.5, 1000, 500, 1, symbols=4)
    assert set(load.symbols) == {0, 1, 2, 3}
    assert trading.Load(0.5, 1000, 500, 1).prices == load.prices
    seen: list[int] = []

    def handler(symbol: int) -> trading.Tick:
        def tick(price: float, _quantity: float, _trade: bool) -> float:  # noqa: FBT001  the handler's shape
            seen.append(symbol)
            return price

        return tick

    trading.pace([handler(symbol) for symbol in range(4)], load)
    assert seen == load.symbols


def test_rejected_orders_are_errors_and_handled() -> None:
    """An order that is too large fails its span with the exchange's error, and the strategy goes on."""
    load = trading.Load(0.2, 1000, 500, 2, rejected=0.2)
    large = [quantity > trading.LARGEST_ORDER for quantity in load.quantities]
    assert any(large)
    assert all(trade for trade, too_large in zip(load.trades, large, strict=True) if too_large)
    tasks.start_idle(4096)
    noted: list[tuple[float, float]] = []
    tick = trading.strategy(trading.ours, lambda price, quantity: noted.append((price, quantity)))
    for price, quantity, trade in zip(load.prices, load.quantities, load.trades, strict=True):
        tick(price, quantity, trade)
    assert noted == list(zip(load.prices, load.quantities, strict=True))
    from otel_trading._backend import core

    errors = {row["name"]: row["errors"] for row in core.snapshot()["probes"] if row["name"] in trading.STAGES}
    assert errors == {**dict.fromkeys(trading.STAGES, 0), "order.send": sum(large)}


def test_latency_counts_from_the_intended_time() -> None:
    """A tick that stalls for 20 ticks delays those behind it, and their latencies say so."""
    stalled: list[int] = []

    def tick(_price: float, _quantity: float, _trade: bool) -> float:  # noqa: FBT001  the handler's shape
        if len(stalled) == 5:
            end = trading.time.perf_counter_ns() + 20_000_000
            while trading.time.perf_counter_ns() < end:
                pass
        stalled.append(1)
        return 0.0

    late = trading.pace([tick], trading.Load(0.03, 1000, 0, 1))
    assert late[5] >= 20_000_000
    assert late[6] >= 19_000_000
    assert late[10] >= 15_000_000


def test_strategy_makes_one_span_a_tick_and_four_an_order() -> None:
    """Under our decorator the stages nest as the accounts expect, and the plain strategy gives the same result."""
    load = trading.Load(0.05, 1000, 500, 3)
    tasks.start_idle(4096)
    tick, plain = trading.strategy(trading.ours), trading.strategy(trading.bare)
    for price, quantity, trade in zip(load.prices, load.quantities, load.trades, strict=True):
        assert tick(price, quantity, trade) == plain(price, quantity, trade)
    assert trading.unpaced(plain, load) > 0
    assert ot.accounts()[1]["recorded"] == load.spans
    counts = {name: found["count"] for name, found in ot.stats().items() if name in trading.STAGES}
    assert counts == {"candle.update": load.count} | dict.fromkeys(trading.STAGES[1:], sum(load.trades))


@pytest.fixture(scope="module")
def paced_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A very short paced run of the plain code, this backend and the SDK."""
    patch = pytest.MonkeyPatch()
    patch.setenv("OTEL_TRADING_DIR", str(tmp_path_factory.mktemp("paced")))
    variants = ["bare", ot.backend, "sdk"] if children.has_otlp() else ["bare", ot.backend]
    with patch.context():
        found = paced.run(seconds=0.03, rounds=2, seed=5, variants=variants)
    patch.undo()
    return found


def test_paced_run_has_every_variant_once_a_round(paced_results: dict[str, Any]) -> None:
    """Each variant met the same ticks in each round, and ours accounts for every span."""
    runs = paced_results["runs"]
    assert {len(mine) for mine in runs.values()} == {2}
    for number in range(2):
        assert len({(mine[number]["ticks"], mine[number]["spans"]) for mine in runs.values()}) == 1
    for run in runs[ot.backend]:
        assert run["accounts"]["recorded"] == run["accounts"]["sampled_out"] == run["spans"]
        assert list(run["latency_ns"]) == list(paced.POINTS)


def test_paced_summary_and_tables_compare_with_the_plain_code(paced_results: dict[str, Any]) -> None:
    """The summary's ratios are those of the least disturbed rounds, and the tables name every variant."""
    rows = paced.summary(paced_results)
    plain = min(run["latency_ns"]["p99"] for run in paced_results["runs"]["bare"])
    mine = min(run["latency_ns"]["p99"] for run in paced_results["runs"][ot.backend])
    assert rows[ot.backend]["ratio_least"]["p99"] == mine / plain
    text = rendered(report.paced_tables({**paced_results, "cpu": None}))
    assert all(paced.VARIANTS[variant] in text for variant in rows)
    assert "Not pinned" in text


def test_paced_check_counts_spans_that_were_not_drained() -> None:
    """A round in which a span was lost misses its target, however good the tail."""
    latency = dict.fromkeys(paced.POINTS, 1000.0)
    run = {"latency_ns": latency, "unpaced_ns_per_tick": 1.0, "spans": 10}
    account = {"sampled_out": 6, "exported": 4}
    mine = [{**run, "accounts": account}, {**run, "accounts": {**account, "exported": 3}}]
    results = {"runs": {"bare": [run, run], "native": mine}}
    assert [(check.what.split(",")[0], check.met) for check in report.paced_check(results)] == [
        ("paced p99.9 to plain", True),
        ("paced", True),
        ("paced", False),
    ]


def test_no_second_processor_means_no_pinning(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one processor, or where the system cannot pin, the load runs unpinned."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert paced.trading_cpu() is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert paced.trading_cpu() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert paced.trading_cpu() is None


# ---- targets and the command


def result(**changes: Any) -> dict[str, Any]:
    """Results of a suite with one form, in which everything is met."""
    timing = {"form_ns": [41.0], "baseline_ns": [1.0], "floor_ns": [81.0], "empty_ns": [1.0]}
    heap = {"records": 1000, "left_blocks": 0, "left_bytes": 0, "peak_bytes": 0, "collections": 0}
    memory = {"added": 2e7, "process_added": 1e6, "segment_allocated": 1.9e7, "ring_bytes": 1.6e7}
    entry = {"label": "start / stop", "statement": "", "target": 0.9, "timing": timing, "allocations": heap, **changes}
    return {
        "forms": {"native": {"start_stop": entry}},
        "api": {},
        "drain": {"native": {"spans_per_second": {"plain": [3e6], "attributes": [2e6]}}},
        "footprint": {"native": [{"import_ns": 1, "configure_ns": 1, "memory": memory}]},
        "missing": [],
    }


def test_targets_met_and_missed_are_told_apart() -> None:
    """A form that is too dear, leaks, or allocates is named among the missed targets; a good one is not."""
    assert all(check.met for check in suite.checks(result()))
    assert rendered([report.missed_table(suite.checks(result()))]).startswith("All 5 targets")
    heap = {"records": 1000, "left_blocks": 1000, "left_bytes": 0, "peak_bytes": 56, "collections": 0}
    bad = suite.checks(result(target=0.1, allocations=heap))
    assert [check.met for check in bad] == [False, False, False, True, True]
    assert "3 of 5 targets missed" in rendered([report.missed_table(bad)])


def test_a_backend_that_is_not_built_is_named() -> None:
    """Results without the native backend say that it was not measured."""
    found = {"forms": {}, "api": {}, "drain": {}, "footprint": {}, "missing": ["native"]}
    assert "native backend was not measured" in rendered(report.suite_tables(found))
    assert suite.checks(found) == []


def test_command_measures_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``otel-trading bench`` prints every form, writes all blocks as JSON, and names the next command."""
    file = tmp_path / "bench.json"
    arguments = ["bench", "--quick", "--rounds", "1", "--backend", ot.backend, "--json", str(file)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "start / stop, in a trace" in shown
    assert "with p.span(symbol=…, qty=…), child" in shown
    assert shown.rstrip().endswith("otel-trading bench --paced")
    found = json.loads(file.read_text())
    assert list(found["forms"]) == [ot.backend]
    assert list(found["api"]) == [ot.backend, "sdk"]
    assert {"backend", "what", "measured", "target", "met"} == set(found["checks"][0])


def test_command_runs_the_paced_load(capsys: pytest.CaptureFixture[str]) -> None:
    """``bench --paced`` leaves out what it is told to, and with ``--json -`` standard output is JSON alone."""
    arguments = [
        "bench",
        "--paced",
        "--seconds",
        "0.02",
        "--rounds",
        "1",
        "--backend",
        ot.backend,
        "--no-sdk",
        "--json",
        "-",
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert set(json.loads(shown.out)["runs"]) - {"native-otlp"} == {"bare", ot.backend}
    assert "the plain code" in shown.err


def test_check_makes_a_missed_target_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--check`` a missed target exits 1; without it the same results exit 0."""
    results = {**result(target=0.1), "machine": {}, "effort": {}}
    monkeypatch.setattr(suite, "run", lambda *_: dict(results))
    assert main(["bench", "--check"]) == 1
    assert main(["bench"]) == 0


def test_file_that_cannot_be_written_is_told_before_measuring(capsys: pytest.CaptureFixture[str]) -> None:
    """A results file in no directory ends the command at once, with 2 and the reason."""
    assert main(["bench", "--json", "/nowhere/at/all.json"]) == 2
    assert "/nowhere/at/all.json" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--seconds", "0"], ["--backend", "fast"]])
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    """Rounds, seconds and backends that make no sense end with argparse's 2."""
    with pytest.raises(SystemExit) as caught:
        main(["bench", *wrong])
    assert caught.value.code == 2


# ---- peers


@pytest.mark.parametrize("peer", ["otel", "prometheus"])
def test_peer_worker_measures_with_our_blocks_and_without_our_package(peer: str, tmp_path: Path) -> None:
    """The worker needs the peer and measure.py alone: it runs where otel_trading cannot be imported."""
    (tmp_path / "otel_trading.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "peer_worker.py"), measure.__file__, peer, "1", "50000"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["peer"] == peer
    for one in found["forms"].values():
        assert len(measure.Timing(**one["timing"]).ratios()) == 1


def test_peer_that_cannot_be_installed_is_named(tmp_path: Path) -> None:
    """A peer without an environment is a row with the reason, and none measured is exit code 1."""
    (tmp_path / "otel-trading").write_text("a file where the cache directory should be")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", "--quick", "--only", "prometheus"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{Path(ot.__file__).parents[1]}{os.pathsep}{ROOT}",
            "XDG_CACHE_HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "prometheus" in done.stdout
    assert "not measured" in done.stdout
