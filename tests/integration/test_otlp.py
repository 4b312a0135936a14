"""Spans and metrics of a real process arrive at a real OTLP receiver; without one, the process still ends."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

grpc = pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")
trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
metrics_service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
trace_rpc = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc")
metrics_rpc = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc")

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


class Receiver:
    """What an OTLP receiver has been sent."""

    def __init__(self) -> None:
        """Begin empty."""
        self.lock = threading.Lock()
        self.trace_requests: list[Any] = []
        self.metric_requests: list[Any] = []

    def take(self, request: Any) -> None:
        """Keep a request."""
        with self.lock:
            kind = self.trace_requests if hasattr(request, "resource_spans") else self.metric_requests
            kind.append(request)

    def spans(self) -> list[Any]:
        """Return all spans received."""
        return [
            span
            for request in self.trace_requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources of all requests."""
        found = [resource.resource for request in self.trace_requests for resource in request.resource_spans]
        found += [resource.resource for request in self.metric_requests for resource in request.resource_metrics]
        return [attributes(resource) for resource in found]

    def metrics(self, name: str) -> list[Any]:
        """Return one metric's appearances, oldest first."""
        return [
            metric
            for request in self.metric_requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]


def attributes(owner: Any) -> dict[str, Any]:
    """Return attributes as a dict."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in owner.attributes}


class Handler(BaseHTTPRequestHandler):
    """OTLP over http."""

    receiver: Receiver
    unavailable = 0

    def do_POST(self) -> None:
        """Take a request of either signal, gzipped or not; while `unavailable` counts down, refuse."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if type(self).unavailable:
            type(self).unavailable -= 1
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        service = {"/v1/traces": trace_service, "/v1/metrics": metrics_service}[self.path]
        kind = "Trace" if service is trace_service else "Metrics"
        self.receiver.take(getattr(service, f"Export{kind}ServiceRequest").FromString(content))
        answer = getattr(service, f"Export{kind}ServiceResponse")().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet."""


@pytest.fixture
def over_http() -> Iterator[tuple[Receiver, str]]:
    """Run a receiver over http, and give it with its endpoint."""
    receiver = Receiver()
    handler = type("OneHandler", (Handler,), {"receiver": receiver})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        receiver.handler = handler  # type: ignore[attr-defined]
        yield receiver, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def over_grpc() -> Iterator[tuple[Receiver, str]]:
    """Run a receiver over grpc, and give it with its endpoint."""
    receiver = Receiver()

    class Traces(trace_rpc.TraceServiceServicer):  # type: ignore[misc,name-defined]
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            """Take spans."""
            del context
            receiver.take(request)
            return trace_service.ExportTraceServiceResponse()

    class Metrics(metrics_rpc.MetricsServiceServicer):  # type: ignore[misc,name-defined]
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            """Take metrics."""
            del context
            receiver.take(request)
            return metrics_service.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(4))
    trace_rpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_rpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield receiver, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(params=["http/protobuf", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Give both protocols, one after the other."""
    return str(request.param)


@pytest.fixture
def receiving(request: pytest.FixtureRequest, protocol: str) -> tuple[Receiver, dict[str, str]]:
    """Run a receiver of that protocol; give it and the environment that points a process to it."""
    receiver, endpoint = request.getfixturevalue("over_grpc" if protocol == "grpc" else "over_http")
    return receiver, environment(protocol, endpoint)


def environment(protocol: str, endpoint: str) -> dict[str, str]:
    """Return the standard variables for a process that exports to an endpoint."""
    return {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        # Proxies of the machine are not for the loopback.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


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
    run_python: Callable[..., Any], over_http: tuple[Receiver, str]
) -> None:
    """A 503 with Retry-After costs no span: the exporter tries again within its time."""
    receiver, endpoint = over_http
    receiver.handler.unavailable = 3  # type: ignore[attr-defined]
    said = traded(run_python, environment("http/protobuf", endpoint), orders=100)
    assert said["flushed"] is True
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
