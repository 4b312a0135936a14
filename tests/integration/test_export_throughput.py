"""A busy program's spans all arrive; what does not is in its accounts, to the span."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

import otlp_receiver
from otlp_receiver import environment

import otel_trading as ot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Spans in portions of 10 ms, at the rate asked for; where the machine is late, that is not made up for.
PROGRAM = """
import json, sys, time
import otel_trading as ot
from otel_trading.api import TracerProvider

rate, seconds, config = int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])
ot.configure("bot", config=config)
tracer = TracerProvider().get_tracer("busy", "1.0")
due = time.perf_counter()
for _ in range(round(seconds * 100)):
    for number in range(rate // 200):
        with tracer.start_as_current_span("outer", attributes={"symbol": "BTCUSDT", "number": number}):
            with tracer.start_as_current_span("inner"):
                pass
    due = max(due + 0.01, time.perf_counter())
    time.sleep(due - time.perf_counter() if due > time.perf_counter() else 0)
flushed = ot.flush(30.0)
print(json.dumps({"flushed": flushed, "accounts": ot.accounts()}))
"""


@contextmanager
def receiver(protocol: str, delay: float) -> Iterator[tuple[str, Callable[[], dict[str, int]]]]:
    """Run a receiver in a process of its own; give its endpoint, and what ends it and tells what it has."""
    command = [sys.executable, otlp_receiver.__file__, protocol, str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            endpoint = child.stdout.readline().strip()
            assert endpoint.startswith("http")

            def told() -> dict[str, int]:
                found: dict[str, int] = json.loads(child.communicate(timeout=60)[0])
                return found

            yield endpoint, told
        finally:
            child.kill()


def run(run_python: Callable[..., Any], protocol: str, endpoint: str, *arguments: str) -> tuple[dict[str, int], bool]:
    """Run the program; give its accounts, all tiers together, and whether its flush went well."""
    variables = {
        **environment(protocol, endpoint),
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_TRADING_SAMPLING_RATE": "1",
    }
    said = json.loads(run_python(PROGRAM, *arguments, **variables).stdout)
    accounts = list(said["accounts"].values())
    together = {name: sum(account[name] for account in accounts) for name in accounts[0]}
    assert together["recorded"] == sum(value for name, value in together.items() if name != "recorded")
    return together, said["flushed"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_span_of_a_busy_program_arrives(run_python: Callable[..., Any], protocol: str) -> None:
    """At 50,000 spans a second (pure: 2,000), with the settings as they come, none is lost and none sent twice."""
    rate = {"native": 50_000, "pure": 2_000}[ot.backend]
    with receiver(protocol, 0.0) as (endpoint, told):
        account, flushed = run(run_python, protocol, endpoint, str(rate), "3", "{}")
        found = told()
    assert flushed
    assert account["recorded"] == rate // 200 * 2 * 300
    assert account == {**dict.fromkeys(account, 0), "recorded": account["recorded"], "exported": account["recorded"]}
    assert found["spans"] == found["distinct"] == account["recorded"]


def test_what_a_slow_receiver_leaves_out_is_in_the_accounts(run_python: Callable[..., Any]) -> None:
    """With a small queue before a slow receiver spans are refused, and the others are those that it has."""
    with receiver("http/protobuf", 0.25) as (endpoint, told):
        config = json.dumps({"export.queue": 300})
        account, _ = run(run_python, "http/protobuf", endpoint, "2000", "2", config)
        found = told()
    assert account["recorded"] == 4_000
    assert account["exported"] == found["spans"] == found["distinct"]
    assert account["exported"] > 0
    assert account["refused"] == 4_000 - account["exported"] > 0
    assert account["overwritten"] == account["sampled_out"] == account["pending"] == 0
