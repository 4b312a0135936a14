"""The demo under its budget: it says what was used and kept, and what leaves it are whole traces."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from conftest import child_environment
from otlp_receiver import Receiver, attributes, environment, over_http

from otel_trading import _layout as at
from otel_trading.budget.modes import BUDGETS, TRIGGERS
from otel_trading.budget.policy import Policy
from otel_trading.demo import stages
from otel_trading.errors import OtelTradingError
from otel_trading.segment import segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(importlib.util.find_spec("websockets") is None, reason="the demo needs websockets")

_LIMIT = 120.0


def demo(directory: Path, *arguments: str, **changes: str) -> str:
    """Run the demo, governed, to its end; gives its page."""
    directory.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-m", "otel_trading", "demo", "--plain", *arguments],
        env=child_environment(directory, OTEL_TRADING_BUDGET_ENABLED="true", **changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_page_says_what_was_used(tmp_path: Path) -> None:
    """Mode, use and limits of each process; without an exporter, why no trace was kept; and the traces are whole."""
    page = demo(tmp_path, "--seconds", "2", "--json", str(tmp_path / "all.json"))
    document: dict[str, Any] = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert set(document["governed"]) == set(stages.PROCESSES)
    for governed in document["governed"].values():
        assert governed["mode"] == governed["forced"] == "NORMAL"
        assert set(governed["usage"]) == set(BUDGETS)
        assert governed["usage"]["memory"]["used"] > 0
        assert set(governed["rates"].values()) == {1.0}
    assert "What monitoring may use, and which traces were kept" in page
    assert "NORMAL, forced" in page
    assert "no trace was kept, as no exporter is configured" in page
    assert all(len(line) <= 80 for line in page.splitlines())
    assert document["traces"]["unfinished"] == 0
    assert document["traces"]["filled"] > 0


@contextlib.contextmanager
def narrow(directory: Path) -> Iterator[None]:
    """Meanwhile give the demo's processes, as they come, a bucket that has to cut."""
    over = threading.Event()

    def steer() -> None:
        done: set[str] = set()
        while len(done) < len(stages.PROCESSES) and not over.wait(0.01):
            for place in directory.glob("otel-trading-demo-*"):
                with contextlib.suppress(OtelTradingError):  # not there yet, or gone
                    for found in segments(place):
                        if found.path not in done:
                            with Policy(found.path) as policy:
                                if policy.active:  # all of it is written by then
                                    policy.set_limit("network", at.MODE_NORMAL, 4_000.0)
                                    policy.write({"burst": 1.0, "hold": 1.0})
                                    done.add(found.path)

    thread = threading.Thread(target=steer)
    thread.start()
    yield
    over.set()
    thread.join()


def test_what_leaves_it_are_whole_traces(tmp_path: Path) -> None:
    """An order's trace arrives with all its spans of all three processes, or not at all; rejected ones arrive all."""
    receiver = Receiver()
    with over_http(receiver) as endpoint, narrow(tmp_path):
        variables = {**environment("http/protobuf", endpoint), "OTEL_METRICS_EXPORTER": "none"}
        page = demo(tmp_path, "--seconds", "5", "--json", str(tmp_path / "all.json"), **variables)
    document: dict[str, Any] = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    found: dict[bytes, list[Any]] = defaultdict(list)
    for span in receiver.spans():
        found[span.trace_id].append(span)
    traces = [{span.name: attributes(span) for span in spans} | {"": spans} for spans in found.values()]
    orders = [trace for trace in traces if stages.DECISION in trace and "gateway.accept" in trace]
    assert orders
    for trace in orders:
        told: Any = trace["gateway.accept"]
        filled = str(told.get("filled", ""))
        expected = stages.expected(filled) if filled else stages.expected_of_reject(routed=told.get("routed") is True)
        assert expected <= Counter(span.name for span in trace[""])
    kept = document["governed"]["bot"]["kept"]
    assert set(kept) == set(TRIGGERS)
    assert sum(kept.values()) > 0
    assert document["governed"]["bot"]["dropped"] > 0
    assert "bot: traces: " in page
    rejected = sum("order.reject" in trace for trace in orders)
    assert rejected == document["orders"]["rejected"]


@pytest.mark.parametrize(
    ("variables", "backend", "expected"),
    [
        ({}, "native", {"mode": "normal"}),
        (
            {},
            "pure",
            {"mode": "normal", "budget.normal.cpu_percent": "none", "budget.normal.latency_us": "none"},
        ),
        ({"OTEL_TRADING_MODE": "auto"}, "native", {}),
        ({"OTEL_TRADING_MODE": "stressed"}, "pure", {}),
    ],
)
def test_the_mode_is_forced_unless_somebody_says_something(
    variables: dict[str, str], backend: str, expected: dict[str, str]
) -> None:
    """Traces are to be whole on a busy machine too; who wants to see the engine at work, says so."""
    from otel_trading.config import resolve
    from otel_trading.demo.child import configuration
    from otel_trading.demo.options import CONFIG

    made = configuration(variables, backend)
    assert {key: value for key, value in made.items() if key not in CONFIG} == expected
    settings = resolve(config=made)
    assert settings.values["mode"] == expected.get("mode", os.environ.get("OTEL_TRADING_MODE", "auto"))
