"""What goes out by the fast path is, byte for byte, what the stock exporters would have sent for the same spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from exporting import record

pytest.importorskip("grpc", reason="the OTLP exporters are not installed (pip install otel-trading[otlp])")

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from otlp_receiver import OVER, Receiver, environment

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.api import TracerProvider
from otel_trading.drain import exporters
from otel_trading.drain.delivery import Delivery
from otel_trading.drain.otlp import Encoder
from otel_trading.drain.spans import Converter

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading._native import Batch

RESOURCE = Resource({"service.name": "bot", "process.pid": 7, "tags": ("a", "b")}, "https://schema.example/1")
ELSEWHERE = SpanContext(
    0xA5 << 100, 0xB7, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("k", "v")])
)


def probes() -> list[dict[str, Any]]:
    """Return all probes, as the exports look them up."""
    found: list[dict[str, Any]] = core.snapshot()["probes"]
    return found


def by_probes() -> None:
    """Record what probes can record."""
    record(5, ot.P0)
    outer, inner = ot.probe("outer", tier=ot.P2, kind="consumer"), ot.probe("inner", leaf=True)
    with (
        core.remote(1 << 127, 5, True, "ot=th:8,other=x"),
        outer.span(symbol="BTCUSDT", qty=1.5, n=-3, dry=True) as span,
    ):
        inner.stop(inner.start())
        for number in range(200):
            span.set_attribute(f"key {number}", "é" * number)
        span.set_attribute("list", ["a", "b"])
    with pytest.raises(ValueError, match="limit"), outer.span(**{"trading.tier": "mine"}):
        raise ValueError("limit")
    open_at_the_end = outer.start()
    core.interrupt_open("the end", True)
    del open_at_the_end


def by_the_api() -> None:
    """Record what OpenTelemetry's API can record."""
    provider = TracerProvider()
    plain = provider.get_tracer("plain")
    full = provider.get_tracer("full", "1.2", "https://schema.example/2", {"team": "x", "sizes": (1, 2)})
    with full.start_as_current_span("root", kind=SpanKind.SERVER) as root:
        root.set_attributes({"text": "t", "int": 2**40, "negative": -1, "float": -0.5, "yes": True, "none": None})
        root.set_attributes({"list": ["a", "b"], "numbers": (1, 2.5), "bytes": b"\x00\xff", "map": {"a": {"b": [1]}}})
        root.add_event("plain")
        root.add_event("full", {"a": 1, "list": ["x"]}, timestamp=1_800_000_000_000_000_000)
        root.add_link(ELSEWHERE, {"why": "batch"})
        with plain.start_as_current_span(
            "child", links=[Link(ELSEWHERE)], start_time=1_700_000_000_000_000_000
        ) as child:
            child.set_status(Status(StatusCode.ERROR, "no margin"))
            child.update_name("renamed")
        with pytest.raises(KeyError), plain.start_as_current_span("raises"):
            raise KeyError("k")
        plain.start_span("ok", attributes={"a": ""}).set_status(StatusCode.OK)
    many = full.start_span("many", kind=SpanKind.PRODUCER)
    for number in range(300):
        many.set_attribute(f"key {number}", number)
        many.add_event(f"event {number}")
        many.add_link(ELSEWHERE)
    many.end(end_time=1_900_000_000_000_000_000)


@pytest.fixture
def batch(segment: None) -> Batch:
    """Record spans of all kinds, and take them."""
    del segment
    core.keep(10_000)
    by_probes()
    by_the_api()
    core.drain()
    taken = core.take(10_000)
    assert len(taken) > 10
    return taken


def test_encoded_is_what_the_stock_encoder_makes_of_the_converted(batch: Batch) -> None:
    """The request of the records equals that of the SDK's objects made of them, and has their scopes."""
    stock = encode_spans(Converter(RESOURCE, probes).convert(batch.states()))
    body, count = Encoder(RESOURCE.attributes, RESOURCE.schema_url).encode(batch)
    assert type(stock).FromString(body) == stock
    assert body == stock.SerializeToString()
    assert count == len(batch)
    assert [scope.scope.name for scope in stock.resource_spans[0].scope_spans] == ["otel_trading", "plain", "full"]


@pytest.mark.parametrize("protocol", list(OVER))
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_requests_are_those_of_the_stock_exporter(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, protocol: str, compression: str
) -> None:
    """Body, path and headers are the same over both protocols, compressed and not."""
    receiver = Receiver()
    with OVER[protocol](receiver) as endpoint:
        variables = {
            **environment(protocol, endpoint),
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer x,tenant=7",
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        }
        if compression == "none" and protocol == "grpc":
            del variables["OTEL_EXPORTER_OTLP_COMPRESSION"]  # the stock exporter refuses "none" there
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        ours, theirs = (exporters.load(["otlp"], exporters.TRACES, stock=stock) for stock in (False, True))
        assert Delivery(ours, RESOURCE.attributes, probes).deliver(batch) == 0
        stock = theirs[0][1].export(Converter(Resource(RESOURCE.attributes), probes).convert(batch.states()))
        assert stock.name == "SUCCESS"
        for found in (ours, theirs):
            exporters.shut_down(found)
    fast, slow = receiver.requests
    assert fast.body == slow.body
    assert fast._replace(headers={}) == slow._replace(headers={})
    assert dict(fast.headers) == dict(slow.headers)
    assert fast.headers["authorization"] == "Bearer x"
    assert fast.compression == (compression if protocol != "grpc" and compression != "none" else "")


def test_several_exporters_get_the_same(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both protocols and another exporter at once, each has every span once, encoded once and converted once."""
    first, second = Receiver(), Receiver()
    encoded: list[int] = []
    encode: Callable[..., Any] = Encoder.encode

    def counted(self: Encoder, taken: Batch) -> Any:
        encoded.append(len(taken))
        return encode(self, taken)

    monkeypatch.setattr(Encoder, "encode", counted)
    with OVER["grpc"](first) as over_grpc, OVER["http/protobuf"](second) as over_http:
        for name, value in environment("grpc", over_grpc).items():
            monkeypatch.setenv(name, value)
        found = exporters.load(["otlp_proto_grpc"], exporters.TRACES)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", over_http)
        found += exporters.load(["otlp_proto_http"], exporters.TRACES)
        memory = [InMemorySpanExporter(), InMemorySpanExporter()]
        found += [("one", memory[0]), ("two", memory[1])]
        assert Delivery(found, RESOURCE.attributes, probes).deliver(batch) == 0
        finished = [one.get_finished_spans() for one in memory]
        exporters.shut_down(found)
    assert all(one is other for one, other in zip(*finished, strict=True))
    assert encode_spans(finished[0]).SerializeToString() == first.bodies()[0]
    assert first.bodies() == second.bodies()
    assert encoded == [len(batch)]


def test_a_request_that_no_receiver_would_take_is_divided(segment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more than grpc's four megabytes goes in pieces, and arrives; the next batches are smaller."""
    del segment
    core.keep(1_000, 1 << 26)
    receiver = Receiver()
    with OVER["grpc"](receiver) as endpoint:
        for name, value in environment("grpc", endpoint).items():
            monkeypatch.setenv(name, value)
        found = exporters.load(["otlp"], exporters.TRACES)
        delivery = Delivery(found, RESOURCE.attributes, probes)
        assert delivery.limit == 512
        probe = ot.probe("long")
        texts = {f"text {number}": "x" * 4_000 for number in range(16)}
        for number in range(100):
            with probe.span(number=number, **texts):
                pass
            core.drain()
        assert delivery.deliver(core.take(100)) == 0
        assert delivery.limit < 40
        exporters.shut_down(found)
    assert len(receiver.requests) > 1
    assert max(map(len, receiver.bodies())) <= 4 << 20
    assert len({span.span_id for span in receiver.spans()}) == 100
