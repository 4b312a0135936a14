"""A busy program's spans arrive, or what the budget leaves of them; what does not is in its accounts, to the span."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

import otlp_receiver
from otlp_receiver import OVER, Receiver, environment

import otel_trading as ot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 256_000 / 8

# Spans in portions of 10 ms, at the rate asked for; where the machine is late, that is not made up for.
PROGRAM = """
import json, sys, time
import otel_trading as ot
from opentelemetry.trace import StatusCode
from otel_trading.api import TracerProvider

rate, seconds, config = int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])
ot.configure("bot", config=config)
tracer = TracerProvider().get_tracer("busy", "1.0")
due = time.perf_counter()
failed = []
for portion in range(round(seconds * 100)):
    for number in range(rate // 200):
        with tracer.start_as_current_span("outer", attributes={"symbol": "BTCUSDT", "number": number}) as span:
            with tracer.start_as_current_span("inner"):
                pass
            if number == 0 and portion % 10 == 0:
                span.set_status(StatusCode.ERROR)
                failed.append(format(span.get_span_context().trace_id, "032x"))
    due = max(due + 0.01, time.perf_counter())
    time.sleep(due - time.perf_counter() if due > time.perf_counter() else 0)
time.sleep(float(sys.argv[4]))
paced_until = time.monotonic()
flushed = ot.flush(30.0)
print(json.dumps({"flushed": flushed, "accounts": ot.accounts(), "failed": failed, "paced_until": paced_until}))
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


NOTHING_BUT_THE_NETWORK = {
    "budget.enabled": True,
    "mode": "normal",  # a machine that is busy with other tests must not change it
    **{f"budget.normal.{limit}": "none" for limit in ("cpu_percent", "memory_mb", "latency_us", "disk_iops")},
}


def run(
    run_python: Callable[..., Any], protocol: str, endpoint: str, *arguments: str, wait: str = "0"
) -> tuple[dict[str, int], dict[str, Any]]:
    """Run the program; give its accounts, all tiers together, and all that it said."""
    variables = {
        **environment(protocol, endpoint),
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_TRADING_SAMPLING_RATE": "1",
    }
    said = json.loads(run_python(PROGRAM, *arguments, wait, **variables).stdout)
    accounts = list(said["accounts"].values())
    together = {name: sum(account[name] for account in accounts) for name in accounts[0]}
    assert together["recorded"] == sum(value for name, value in together.items() if name != "recorded")
    return together, said


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_span_of_a_busy_program_arrives(run_python: Callable[..., Any], protocol: str) -> None:
    """At 50,000 spans a second (pure: 2,000), without a limit for the network, none is lost and none sent twice."""
    rate = {"native": 50_000, "pure": 2_000}[ot.backend]
    # Room for a receiver that is held up for a while: past half of its queue a process takes plain traces by share.
    config = json.dumps({**NOTHING_BUT_THE_NETWORK, "budget.normal.network_kbps": "none", "export.queue": 262_144})
    with receiver(protocol, 0.0) as (endpoint, told):
        account, said = run(run_python, protocol, endpoint, str(rate), "3", config)
        found = told()
    assert said["flushed"]
    assert account["recorded"] >= rate // 200 * 2 * 300
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


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_busy_program_keeps_to_the_network_budget(run_python: Callable[..., Any], compression: str) -> None:
    """With the budget as it comes, 256 kbit/s, no second has more; each trace with an error is there, whole."""
    rate = {"native": 50_000, "pure": 2_000}[ot.backend]
    # Verdicts come soon, so that the plan keeps up with a load of seconds; and what may be saved up would be more than
    # all that the pure backend is given, were it not less.
    changes = {"keep.hold": "0.2s", **({} if ot.backend == "native" else {"keep.burst": "10s"})}
    config = json.dumps({**NOTHING_BUT_THE_NETWORK, **changes})
    taken = Receiver()
    times: list[float] = []
    taken.before = lambda: times.append(time.monotonic())
    with OVER["http/protobuf"](taken) as endpoint, pytest.MonkeyPatch.context() as environ:
        environ.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
        account, said = run(run_python, "http/protobuf", endpoint, str(rate), "4", config, wait="3")
    spans = taken.spans()
    assert len(spans) == len({(span.trace_id, span.span_id) for span in spans})
    # On a machine that is busy with other things, too, the budget may tell of a mode after the program has counted.
    later = sum(span.name == "monitoring.decision" for span in spans)
    assert account["exported"] <= len(spans) <= account["exported"] + later
    assert account["pending"] == account["refused"] == account["overwritten"] == 0
    assert account["sampled_out"] > account["exported"] > 0
    of_trace = Counter(span.trace_id.hex() for span in spans)
    assert {of_trace[trace_id] for trace_id in said["failed"]} == {2}
    came = [
        (then, int(request.headers["content-length"]))
        for then, request in zip(times, taken.requests, strict=True)
        if then < said["paced_until"]
    ]
    assert len(came) > 3
    most = max(sum(size for then, size in came if begin <= then < begin + 1.0) for begin, _ in came)
    assert most <= LIMIT * (1.0 if compression == "none" else 1.1)
