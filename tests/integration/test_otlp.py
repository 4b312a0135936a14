"""Spans and metrics of a real process arrive at a real OTLP receiver; without one, the process still ends."""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from otlp_receiver import OVER, Answer, Receiver, attributes, environment

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

ERROR = 2
DELTA, CUMULATIVE = 1, 2

# 1,000 orders of four spans each, then what the process itself believes; the rest leaves at its exit.
PROGRAM = """
import json, sys
import otel_trading as ot

ot.configure("bot", config=json.loads(sys.argv[1]))
order = ot.probe("order", tier=ot.P0, sla="1ns", kind="producer")
risk = ot.probe("risk")
tick = ot.probe("tick", tier=ot.P2)
sent = ot.counter("orders.sent", unit="{order}", attributes={"venue": "gate"})
depth = ot.gauge("queue.depth")
slippage = ot.histogram("slippage", unit="bps")

for number in range(int(sys.argv[2])):
    with order.span(symbol="BTCUSDT", number=number):
        with risk:
            tick.stop(tick.start())
        try:
            with risk:
                raise ValueError("limit")
        except ValueError:
            pass
    sent.add(1)
    slippage.record(number % 7 - 1.5)
depth.set(3.5)

before = ot.flush(float(sys.argv[3]))
print(json.dumps({"flushed": before, "accounts": ot.accounts(), "stats": ot.stats()}))
"""


@pytest.fixture(params=["http/protobuf", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Give both protocols, one after the other."""
    return str(request.param)


@pytest.fixture
def receiving(protocol: str) -> Iterator[tuple[Receiver, dict[str, str]]]:
    """Run a receiver of that protocol; give it and the environment that points a process to it."""
    receiver = Receiver()
    with OVER[protocol](receiver) as endpoint:
        yield receiver, environment(protocol, endpoint)


def traded(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
    variables: dict[str, str],
    orders: int = 1_000,
    flush: float = 30.0,
    limit: float = 20.0,
) -> dict[str, Any]:
    """Run the program, and return what it said of itself."""
    done = run_python(PROGRAM, json.dumps({"shutdown.timeout": limit}), str(orders), str(flush), **variables)
    said: dict[str, Any] = json.loads(done.stdout)
    for account in said["accounts"].values():
        assert account["recorded"] == sum(value for name, value in account.items() if name != "recorded"), said
    return said


def test_all_spans_arrive_with_their_links(
    run_python: Callable[..., Any], receiving: tuple[Receiver, dict[str, str]]
) -> None:
    """What the accounts call exported is what the receiver has, span for span, each under its parent."""
    receiver, variables = receiving
    said = traded(run_python, variables)
    assert said["flushed"] is True
    assert {tier: account["exported"] for tier, account in said["accounts"].items()} == {
        "0": 1_000,
        "1": 2_000,
        "2": 1_000,
        "3": 0,
    }
    spans = receiver.spans()
    assert Counter(span.name for span in spans) == {"order": 1_000, "risk": 2_000, "tick": 1_000}
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == 4_000
    for span in spans:
        if span.name == "order":
            assert span.parent_span_id == b""
            continue
        parent = by_id[span.parent_span_id]
        assert parent.name == {"risk": "order", "tick": "risk"}[span.name]
        assert parent.trace_id == span.trace_id
        assert parent.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= parent.end_time_unix_nano
    orders = [span for span in spans if span.name == "order"]
    assert sorted(attributes(span)["number"] for span in orders) == list(range(1_000))
    assert attributes(orders[0])["symbol"] == "BTCUSDT"
    assert attributes(orders[0])["trading.tier"] == "P0"
    assert {span.kind for span in orders} == {4}
    failed = [span for span in spans if span.status.code == ERROR]
    assert len(failed) == 1_000
    assert {(span.name, attributes(span)["error.type"], span.events[0].name) for span in failed} == {
        ("risk", "ValueError", "exception")
    }
    for resource in receiver.resources():
        assert resource["service.name"] == "bot"
        assert resource["deployment.environment.name"] == "test"


def test_metrics_arrive_as_exponential_histograms(
    run_python: Callable[..., Any], receiving: tuple[Receiver, dict[str, str]]
) -> None:
    """The last metrics agree with the process's own stats and with the spans that the receiver has."""
    receiver, variables = receiving
    said = traded(run_python, variables)
    duration = receiver.metrics("trading.stage.duration")[-1]
    assert duration.unit == "s"
    assert duration.WhichOneof("data") == "exponential_histogram"
    assert duration.exponential_histogram.aggregation_temporality == CUMULATIVE
    points = {attributes(point)["trading.stage"]: point for point in duration.exponential_histogram.data_points}
    assert {stage: point.count for stage, point in points.items()} == {"order": 1_000, "risk": 2_000, "tick": 1_000}
    for stage, point in points.items():
        assert point.zero_count + sum(point.positive.bucket_counts) == point.count
        assert point.scale == 6
        assert round(point.max * 1e9) == said["stats"][stage]["max_ns"]
    exported = {(exemplar.trace_id, exemplar.span_id) for point in points.values() for exemplar in point.exemplars}
    assert exported
    assert exported <= {(span.trace_id, span.span_id) for span in receiver.spans()}
    (sent,) = receiver.metrics("trading.orders.sent")[-1].sum.data_points
    assert (sent.as_int, attributes(sent)) == (1_000, {"venue": "gate"})
    (depth,) = receiver.metrics("trading.queue.depth")[-1].gauge.data_points
    assert depth.as_double == 3.5
    (slippage,) = receiver.metrics("trading.slippage")[-1].exponential_histogram.data_points
    assert (slippage.count, slippage.min, slippage.max) == (1_000, -1.5, 4.5)
    assert sum(slippage.negative.bucket_counts) == sum(number % 7 < 2 for number in range(1_000))
    (breaches,) = receiver.metrics("trading.stage.sla_breaches")[-1].sum.data_points
    assert breaches.as_int == said["stats"]["order"]["sla_breaches"] == 1_000
    outcomes = {
        (attributes(point)["trading.tier"], attributes(point)["outcome"]): point.as_int
        for point in receiver.metrics("trading.telemetry.spans")[-1].sum.data_points
    }
    assert outcomes["P1", "exported"] == 2_000
    assert sum(outcomes.values()) == len(receiver.spans())


def test_exemplars_point_at_traces_that_were_exported(
    run_python: Callable[..., Any], receiving: tuple[Receiver, dict[str, str]]
) -> None:
    """Where half of the traces is sampled out, no exemplar is of one of those."""
    receiver, variables = receiving
    variables["OTEL_TRADING_SAMPLING_RATE"] = "0.5"
    said = traded(run_python, variables)
    exported = {(span.trace_id, span.span_id) for span in receiver.spans()}
    assert 0 < len(exported) < 4_000
    assert sum(account["sampled_out"] for account in said["accounts"].values()) == 4_000 - len(exported)
    found = {
        (exemplar.trace_id, exemplar.span_id)
        for metric in receiver.metrics("trading.stage.duration")
        for point in metric.exponential_histogram.data_points
        for exemplar in point.exemplars
    }
    assert found
    assert found <= exported


def test_delta_metrics_add_up(run_python: Callable[..., Any], receiving: tuple[Receiver, dict[str, str]]) -> None:
    """With the standard preference for delta, the points of all requests together are the whole."""
    receiver, variables = receiving
    variables["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"] = "delta"
    variables["OTEL_METRIC_EXPORT_INTERVAL"] = "20"
    traded(run_python, variables)
    appearances = receiver.metrics("trading.stage.duration")
    assert {metric.exponential_histogram.aggregation_temporality for metric in appearances} == {DELTA}
    counts: Counter[str] = Counter()
    end = 0
    for metric in appearances:
        points = metric.exponential_histogram.data_points
        (begin,) = {point.start_time_unix_nano for point in points}
        assert begin >= end
        end = points[0].time_unix_nano
        for point in points:
            counts[attributes(point)["trading.stage"]] += point.count
    assert counts == {"order": 1_000, "risk": 2_000, "tick": 1_000}
    assert sum(metric.sum.data_points[0].as_int for metric in receiver.metrics("trading.orders.sent")) == 1_000


def test_what_is_recorded_just_before_the_exit_arrives(
    run_python: Callable[..., Any], receiving: tuple[Receiver, dict[str, str]]
) -> None:
    """Without a flush the exit itself sends what is there."""
    receiver, variables = receiving
    run_python(
        "import otel_trading as ot\n"
        "ot.configure('bot')\n"
        "p = ot.probe('last.words')\n"
        "for _ in range(100):\n"
        "    with p:\n"
        "        pass\n"
        "left_open = p.start()\n",
        **variables,
    )
    spans = receiver.spans()
    assert Counter(span.name for span in spans) == {"last.words": 101}
    assert sum(attributes(span).get("trading.interrupted", False) for span in spans) == 1


def test_a_receiver_that_is_busy_is_tried_again(
    run_python: Callable[..., Any], receiving: tuple[Receiver, dict[str, str]]
) -> None:
    """One that says when to come again costs no span: the exporter tries again within its time."""
    receiver, variables = receiving
    receiver.answers += [Answer(again_in=0.0)] * 3
    said = traded(run_python, variables, orders=100)
    assert said["flushed"] is True
    assert len(receiver.refused) == 3
    assert len(receiver.spans()) == 400
    assert sum(account["exported"] for account in said["accounts"].values()) == 400


@pytest.fixture(params=["nobody listens", "nobody answers"])
def dead_end(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give an endpoint that refuses connections, or one that takes them and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        if request.param == "nobody answers":
            yield endpoint
            return
    yield endpoint


def test_a_process_ends_without_its_receiver(run_python: Callable[..., Any], protocol: str, dead_end: str) -> None:
    """With the receiver down the program ends by its own time limit, and its accounts add up.

    There are more batches than the exporter's own time limit of 10 s would let through while the test waits.
    """
    said = traded(
        run_python,
        {**environment(protocol, dead_end), "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "64"},
        flush=0.3,
        limit=0.5,
    )
    assert said["flushed"] is False
    together = Counter[str]()
    for account in said["accounts"].values():
        together.update(account)
    assert together["recorded"] == 4_000
    assert together["exported"] == 0
    assert together["refused"] + together["pending"] == 4_000


def test_after_the_shutdown_nothing_is_pending(run_python: Callable[..., Any], protocol: str, dead_end: str) -> None:
    """What could not be sent by the end is refused: the accounts that the last reader sees are closed."""
    done = run_python(
        "import json, os, time\n"
        "import otel_trading as ot\n"
        "from otel_trading import lifecycle\n"
        "from otel_trading._backend import core\n"
        "ot.configure('bot')\n"
        "p = ot.probe('work')\n"
        "for _ in range(300):\n"
        "    with p:\n"
        "        pass\n"
        "reader = core.Reader(os.open(lifecycle._host.path, os.O_RDONLY))\n"
        "ot.shutdown(0.3)\n"
        "print(json.dumps(reader.accounts()))\n",
        **environment(protocol, dead_end),
    )
    account = json.loads(done.stdout)[1]
    assert account == {
        "recorded": 300,
        "exported": 0,
        "sampled_out": 0,
        "overwritten": 0,
        "refused": 300,
        "pending": 0,
    }
