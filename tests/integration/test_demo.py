"""The demo as a whole: three real processes, their traces, their accounts, and every way in which it can end."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import otel_trading
from otel_trading import segment
from otel_trading.demo import stages
from otel_trading.errors import SegmentError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("websockets") is None, reason="the demo needs websockets")

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded"
LIMIT = 90.0


def environment(directory: Path, **changes: str) -> dict[str, str]:
    """Give an environment in which the package is found and the segments go into ``directory``."""
    package = str(Path(otel_trading.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OTEL_TRADING_DIR": str(directory), **changes}


def start(directory: Path, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    """Start the demo in a session of its own, as a terminal would in a process group."""
    directory.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "otel_trading", "demo", *arguments],
        env=environment(directory, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a function that starts the demo, with its segments in ``segments`` below the test's directory."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        processes.append(start(tmp_path / "segments", *arguments))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=LIMIT)


def run(directory: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    process = start(directory, *arguments, **changes)
    try:
        output, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def children(pid: int) -> dict[str, int]:
    """Give the demo's processes that ``pid`` started, by name."""
    found: dict[str, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_text().split("\0")
        except (OSError, ValueError, IndexError):
            continue
        module = next((word for word in command if word.startswith("otel_trading.demo.")), None)
        if parent == pid and module is not None:
            found[module.rpartition(".")[2]] = int(status.parent.name)
    return found


def alive(pid: int) -> bool:
    """Tell whether a process lives; one that only waits to be taken off the table does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Any, what: str) -> None:
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def orders(directory: Path) -> int:
    """Tell how many P0 spans the bot has recorded: a few for each order."""
    for found in segment.segments(directory):
        if found.service == "bot":
            with contextlib.closing(segment.attach(found.path)) as reader:
                return reader.accounts()[0]["recorded"]
    return 0


def running(process: subprocess.Popen[str], directory: Path) -> dict[str, int]:
    """Wait until the demo has traced some orders; give the children."""

    def traded() -> bool:
        with contextlib.suppress(OSError, SegmentError):  # not there yet, or not complete
            return sum(map(orders, directory.iterdir())) > 100
        return False

    wait_for(lambda: process.poll() is not None or traded(), "some orders")
    if process.poll() is not None:
        pytest.fail("the demo ended by itself: {} {}".format(*process.communicate()))
    return children(process.pid)


linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    """Run the demo once; give its JSON document, its traces, and the directory where its segments were."""
    directory = tmp_path_factory.mktemp("demo")
    traces = directory / "traces.jsonl"
    segments = directory / "segments"
    done = run(segments, "--seconds", "3", "--rate", "300", "--json", "-", "--traces", str(traces))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), [json.loads(line) for line in traces.read_text().splitlines()], segments


def test_every_acknowledged_order_has_each_stage_once(demo: tuple[dict[str, Any], list[dict[str, Any]], Path]) -> None:
    """The trace of each order goes through all stages, each once, in the right process, below the right parent."""
    document, traces, _ = demo
    acked = [trace for trace in traces if trace["outcome"] in ("filled", "acked")]
    assert len(acked) == document["orders"]["acked"] > 10
    for trace in acked:
        spans = {span["span_id"]: span for span in trace["spans"]}
        assert len(spans) == len(trace["spans"])
        (filled,) = [span["attributes"]["filled"] for span in trace["spans"] if span["stage"] == "gateway.accept"]
        assert (filled == "none") == (trace["outcome"] == "acked")
        assert Counter(span["stage"] for span in trace["spans"]) == stages.expected(filled)
        for span in trace["spans"]:
            process, parents = stages.ORDER[span["stage"]]
            assert span["process"] == process
            assert (spans[span["parent_id"]]["stage"] if span["parent_id"] else None) in parents
            assert span["end_unix_ns"] >= span["start_unix_ns"]
        assert sum(span["parent_id"] is None for span in trace["spans"]) == 1
        by_stage = {span["stage"]: span["attributes"] for span in trace["spans"]}
        ids = {by_stage[stage]["order_id"] for stage in ("candle.process", "risk.check", "exchange.match")}
        ids |= {by_stage[stage]["trading.order.id"] for stage in ("order.submit", "order.ack")}
        assert ids == {trace["order_id"]}
        assert not any("trading.order.anomaly" in attributes for attributes in by_stage.values())


def test_no_trace_is_broken(demo: tuple[dict[str, Any], list[dict[str, Any]], Path]) -> None:
    """Every order that was sent is in one whole trace, and no span was missed on the way."""
    document, traces, _ = demo
    orders = document["orders"]
    assert [trace for trace in traces if trace["outcome"] is None] == []
    assert len(traces) == len({trace["trace_id"] for trace in traces}) == orders["sent"]
    assert document["traces"]["unfinished"] == document["traces"]["given_up"] == 0
    assert set(document["traces"]["unread_spans"].values()) == {0}


def test_the_orders_add_up(demo: tuple[dict[str, Any], list[dict[str, Any]], Path]) -> None:
    """What was sent was acknowledged or rejected, and what was acknowledged was filled, in part or not."""
    orders = demo[0]["orders"]
    assert orders["under_way"] == 0
    assert orders["sent"] == orders["acked"] + orders["rejected"]
    assert orders["acked"] == orders["filled"] + orders["partly"] + orders["unfilled"]


def test_the_processes_agree(demo: tuple[dict[str, Any], list[dict[str, Any]], Path]) -> None:
    """Stages of one order path that must be equally many are, as each process counts them for itself."""
    document = demo[0]
    counts = {stage["stage" if "stage" in stage else "name"]: stage["count"] for stage in document["stages"]}
    orders = document["orders"]
    assert counts["order.submit"] == counts["gateway.accept"] == orders["sent"]
    assert counts["order.ack"] == orders["acked"]
    assert counts["exchange.match"] == document["processes"]["exchange"]["orders"]
    assert counts["market_data.handle"] == document["market_data"]["handled"]


def test_the_accounts_add_up(demo: tuple[dict[str, Any], list[dict[str, Any]], Path]) -> None:
    """In every process and tier, each recorded span is somewhere, and the drain has counted all of them."""
    document = demo[0]
    assert document["adds_up"] is True
    recorded: Counter[tuple[str, str]] = Counter()
    for account in document["accounts"]:
        parts = ("exported", "sampled_out", "overwritten", "refused", "pending")
        assert account["recorded"] == sum(account[part] for part in parts)
        recorded[account["process"], account["tier"]] = account["recorded"]
    by_stage: Counter[tuple[str, str]] = Counter()
    for stage in document["stages"]:
        by_stage[stage["process"], stage["tier"]] += stage["count"]
    assert recorded == by_stage


def test_the_cost_is_measured_in_the_processes(demo: tuple[dict[str, Any], list[dict[str, Any]], Path]) -> None:
    """Each process gives prices of its own, and the sums are those of the three."""
    cost = demo[0]["cost"]
    for process in stages.PROCESSES:
        prices = demo[0]["processes"][process]["prices_ns"]
        assert prices["attributes"] > 0
        assert cost[process]["cpu_percent"] > 0
        assert cost[process]["memory_mb"] > 0
        assert cost[process]["order_us"] > 0
    assert cost["all"]["order_spans"] == 14
    total = sum(cost[process]["cpu_percent"] for process in stages.PROCESSES)
    assert cost["all"]["cpu_percent"] == pytest.approx(total)


def test_the_backend_is_the_one_asked_for(demo: tuple[dict[str, Any], list[dict[str, Any]], Path]) -> None:
    """The children record with the backend of this test run, and say so."""
    assert demo[0]["backend"] == otel_trading.backend


def test_nothing_is_left_behind(demo: tuple[dict[str, Any], list[dict[str, Any]], Path]) -> None:
    """The segments and their directory are gone."""
    assert list(demo[2].iterdir()) == []


def test_the_page_fits_eighty_columns(tmp_path: Path) -> None:
    """In a pipe, the page is plain text of at most 80 columns with all its sections, and the next command last."""
    done = run(tmp_path, "--seconds", "1.5", "--rate", "200", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for title in ("Stages", "The slowest order", "What monitoring cost", "Accounts", "Next"):
        assert any(line.startswith(title) for line in lines), title
    assert "…" not in done.stdout
    assert " demo " in lines[-2]
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["GATEIO", "GATEIO_FUTURES", "BINANCE", "BINANCE_FUTURES", "OKX"])
def test_a_recording_is_replayed_whole(tmp_path: Path, name: str) -> None:
    """Every update of a real session reaches the bot as Gate.io's message, and orders are traced as ever."""
    path = RECORDED / f"{name}.ws.1.0"
    if not path.exists():
        pytest.skip(f"the recording {name} is not here")
    done = run(tmp_path, "--replay", str(path), "--speed", "20", "--json", "-")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    ticks = int(document["source"].split(": ")[1].split(" ")[0].replace(",", ""))
    assert document["market_data"]["handled"] >= ticks
    assert document["market_data"]["backlog"] == 0
    assert document["adds_up"] is True
    assert document["traces"]["unfinished"] == 0
    assert document["orders"]["sent"] == document["orders"]["acked"] + document["orders"]["rejected"] > 0


def test_a_bad_recording_is_named(tmp_path: Path) -> None:
    """A line that is no recording's ends the demo before it starts: one line of error, exit 2."""
    bad = tmp_path / "bad.ws"
    bad.write_text("wss://api.gateio.ws/ws/v4/ <-> 1.5\nnonsense\n")
    done = run(tmp_path / "segments", "--replay", str(bad))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"otel-trading: {bad}, line 2: ")
    assert done.stderr.count("\n") == 1


@linux
def test_ctrl_c_shows_what_there_is(tmp_path: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    """Ctrl-C in the middle gives the figures so far, exit 130, and leaves no process and no segment."""
    process = started("--seconds", "60", "--json", str(tmp_path / "out.json"))
    pids = running(process, tmp_path / "segments")
    assert set(pids) == set(stages.PROCESSES)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, errors
    assert "interrupted" in output
    assert "Accounts" in output
    assert json.loads((tmp_path / "out.json").read_text())["interrupted"] is True
    assert not any(map(alive, pids.values()))
    assert list((tmp_path / "segments").iterdir()) == []


@linux
@pytest.mark.parametrize("victim", stages.PROCESSES)
def test_a_killed_child_ends_the_demo(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]], victim: str
) -> None:
    """When a process dies, the demo says which and how, exits 2, and takes the others with it."""
    process = started("--seconds", "60")
    pids = running(process, tmp_path / "segments")
    os.kill(pids[victim], signal.SIGKILL)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert errors.startswith(f"otel-trading: the {victim} process was killed by signal 9")
    assert "Traceback" not in errors
    assert not any(map(alive, pids.values()))
    assert list((tmp_path / "segments").iterdir()) == []


@linux
def test_sigterm_leaves_nothing_behind(tmp_path: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    """SIGTERM ends the demo at once, with its children and its segments."""
    process = started("--seconds", "60")
    pids = running(process, tmp_path / "segments")
    process.terminate()
    process.communicate(timeout=LIMIT)
    assert process.returncode == 143
    assert not any(map(alive, pids.values()))
    assert list((tmp_path / "segments").iterdir()) == []


@linux
def test_children_do_not_outlive_a_killed_runner(tmp_path: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    """Where the runner itself is killed, its processes end by themselves."""
    process = started("--seconds", "60")
    pids = running(process, tmp_path / "segments")
    process.kill()
    process.communicate(timeout=LIMIT)
    wait_for(lambda: not any(map(alive, pids.values())), "the end of the children")


def test_websockets_is_asked_for(tmp_path: Path) -> None:
    """Without the package websockets, the demo says how to get it, and exits 2."""
    program = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'websockets' else find(name, *more)\n"
        "from otel_trading.cli.main import main\n"
        "sys.exit(main(['demo']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "otel-trading: the demo needs the package websockets: pip install 'otel-trading[demo]'\n"


def test_a_file_that_can_not_be_written_is_said_first(tmp_path: Path) -> None:
    """An impossible ``--traces`` ends the demo before any process starts."""
    done = run(tmp_path / "segments", "--traces", str(tmp_path / "no" / "such"))
    assert done.returncode == 2
    assert done.stderr == f"otel-trading: can not write {tmp_path}/no/such: No such file or directory\n"
