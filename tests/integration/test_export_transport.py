"""The parts of the stock OTLP exporters that the fast path rides on: limits, metrics, and what if one is gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from exporting import accounted, record, soon, totals

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from otlp_receiver import OVER, Receiver, environment

from otel_trading._backend import core
from otel_trading.drain import exporters, otlp_grpc, otlp_stock
from otel_trading.drain.delivery import Delivery
from otel_trading.drain.spans import Converter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Exports spans with the exporter's own metrics on, and prints those.
PROGRAM = """
import json
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import otel_trading as ot

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
ot.configure("bot", config={"export.metrics": "none"})
with ot.probe("outer"):
    for _ in range(9):
        with ot.probe("inner"):
            pass
assert ot.flush(20)
found = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
print(json.dumps({
    metric.name: [getattr(point, "value", None) or getattr(point, "count", 0) for point in metric.data.data_points]
    for metric in found
}))
ot.shutdown()
"""


@pytest.fixture(params=list(OVER))
def receiving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Receiver, str]]:
    """Run a receiver that the environment points to, over both protocols; give it and the protocol."""
    receiver = Receiver()
    with OVER[request.param](receiver) as endpoint:
        for name, value in {**environment(request.param, endpoint), "OTEL_METRICS_EXPORTER": "none"}.items():
            monkeypatch.setenv(name, value)
        yield receiver, request.param


@pytest.mark.usefixtures("segment")
@pytest.mark.parametrize("stock", [False, True])
def test_the_fast_path_is_taken(
    receiving: tuple[Receiver, str], monkeypatch: pytest.MonkeyPatch, *, stock: bool
) -> None:
    """With a stock exporter no SDK span is made, and with one of our own, which there is for http, neither."""
    receiver, protocol = receiving
    found = exporters.load(["otlp"], exporters.TRACES, stock=stock)
    assert exporters.is_own(found[0][1]) == (protocol != "grpc" and not stock)
    deliver = Delivery(found, {}, list).deliver
    monkeypatch.setattr(Converter, "convert", lambda *_: pytest.fail("spans were converted"))
    core.keep(100)
    record(5)
    core.drain()
    assert deliver(core.take(100)) == 0
    assert len(receiver.spans()) == 5
    exporters.shut_down(found)


@pytest.mark.parametrize("change", ["a part is gone", "a class of somebody's own"])
def test_an_exporter_that_is_built_otherwise_gets_the_sdks_spans(
    start: Callable[..., Any],
    receiving: tuple[Receiver, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: str,
) -> None:
    """Spans still arrive; where a private part is not as expected, the log says once that it takes more."""
    receiver, protocol = receiving
    module: Any = otlp_grpc if protocol == "grpc" else otlp_stock
    if change == "a part is gone":
        monkeypatch.setattr(module, "_PARTS", (*module._PARTS, "_nonesuch"))
    else:
        stock = module.trace_exporter.OTLPSpanExporter
        monkeypatch.setattr(module.trace_exporter, "OTLPSpanExporter", type("Own", (stock,), {}))
    running = start(export__traces="otlp", export__stock=True)
    for count in (5, 6):
        record(count)
        assert running.flush(soon())
    assert len(receiver.spans()) == 11
    assert totals() == accounted(11, exported=11)
    said = [entry.getMessage() for entry in caplog.records if entry.name == "otel_trading"]
    assert len(said) == (change == "a part is gone")
    for message in said:
        assert "exporter 'otlp' is not built as this version of otel-trading expects" in message
        assert "it has no _nonesuch" in message


def test_the_exporters_own_metrics_count_on(run_python: Callable[..., Any], receiving: tuple[Receiver, str]) -> None:
    """With OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED the exporter tells what it exported, as ever."""
    receiver, _ = receiving
    done = run_python(PROGRAM, OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED="true")
    told = json.loads(done.stdout)
    assert len(receiver.spans()) == 10
    assert told["otel.sdk.exporter.span.exported"] == [10]
    assert told["otel.sdk.exporter.operation.duration"] == [len(receiver.requests)]
    assert told["otel.sdk.exporter.span.inflight"] == [0]


@pytest.mark.usefixtures("segment")
def test_the_exporters_limit_of_a_request_holds(
    receiving: tuple[Receiver, str], caplog: pytest.LogCaptureFixture
) -> None:
    """A request beyond the http exporter's own limit is not sent, and the reason is said; grpc's has none."""
    receiver, protocol = receiving
    found = exporters.load(["otlp"], exporters.TRACES, stock=True)
    exporter: Any = found[0][1]
    exporter._max_request_size = 200
    core.keep(100)
    record(5)
    core.drain()
    refused = Delivery(found, {}, list).deliver(core.take(100))
    exporters.shut_down(found)
    if protocol == "grpc":
        assert (refused, len(receiver.spans())) == (0, 5)
    else:
        assert (refused, len(receiver.spans())) == (5, 0)
        assert "is larger than its limit of 200" in caplog.text


@pytest.mark.usefixtures("segment")
@pytest.mark.parametrize("stock", [False, True])
def test_after_its_shutdown_nothing_is_sent(receiving: tuple[Receiver, str], *, stock: bool) -> None:
    """An exporter that is shut down refuses."""
    receiver, _ = receiving
    found = exporters.load(["otlp"], exporters.TRACES, stock=stock)
    deliver = Delivery(found, {}, list).deliver
    exporters.shut_down(found)
    core.keep(100)
    record(5)
    core.drain()
    assert deliver(core.take(100)) == 5
    assert receiver.requests == []
