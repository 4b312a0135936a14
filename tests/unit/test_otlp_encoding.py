"""The encoder of kept spans: byte for byte the stock exporter's request, for every kind of span there is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.api import TracerProvider
from otel_trading.drain.otlp import Encoder
from otel_trading.drain.spans import Converter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conftest import Recorder

    from otel_trading._native import Batch

RESOURCE = Resource({"service.name": "encoding", "n": 1}, "https://example.org/schema")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), TEXT, st.binary(max_size=20))
VALUE = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=6,
)
KEY = st.sampled_from(["a", "b", "c", "d", "e", "trading.tier", "error.type", "trading.cancelled"]) | TEXT
ATTRIBUTES = st.dictionaries(KEY, VALUE, max_size=8)
UNIX_NS = st.integers(0, 2**63 - 1)
IDS = st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())  # whether remote, of links
STATE = st.sampled_from(
    [
        None,
        "",
        "a=b",
        " a=b ,\tc@d=e,, x=1 ",
        "ot=th:8;rv:01234567890123",
        "no equals",
        "a=b,a=c",
        "A=b",
        "a=b=c",
        "1@a=b,1=c",
        "a=\u00e9",
        "a=b\x00",
        ",".join(f"k{n}=v" for n in range(32)),
        ",".join(f"k{n}=v" for n in range(33)),
        "k" * 256 + "=" + "v" * 256,
        "k" * 257 + "=v",
        "a" * 241 + "@" + "b" * 14 + "=x y",
        "a" * 242 + "@b=x",
        "a@" + "b" * 15 + "=x",
        "@b=x",
        "a@=x",
        "a@1=x",
    ]
)
STATUS = st.tuples(st.sampled_from([StatusCode.OK, StatusCode.ERROR]), st.none() | TEXT)
SPAN = st.fixed_dictionaries(
    {
        "api": st.booleans(),
        "name": TEXT,
        "kind": st.sampled_from(SpanKind),
        "scope": st.sampled_from([("one", None, None), ("two", "1.0", "https://example.org/two"), ("one", "2", None)]),
        "parent": st.none() | IDS,
        "state": STATE,
        "attributes": ATTRIBUTES,
        "events": st.lists(st.tuples(TEXT, st.none() | ATTRIBUTES, UNIX_NS), max_size=4),
        "links": st.lists(st.tuples(IDS, st.none() | ATTRIBUTES), max_size=3),
        "renamed": st.none() | TEXT,
        "status": st.lists(STATUS, max_size=2),
        "start": st.none() | UNIX_NS,
        "end": st.none() | UNIX_NS,
        "how": st.sampled_from(["ends", "fails", "is cancelled", "is dropped"]),
    }
)


def stock(batch: Batch) -> bytes:
    """Encode as the stock exporter does, by way of the SDK's spans."""
    spans = Converter(RESOURCE, lambda: core.snapshot()["probes"]).convert(batch.states())
    return encode_spans(spans).SerializeToString()


def assert_same(ours: bytes, theirs: bytes) -> None:
    """Compare, and where they differ say so in words."""
    if ours != theirs:
        assert str(ExportTraceServiceRequest.FromString(ours)) == str(ExportTraceServiceRequest.FromString(theirs))
    assert ours == theirs


def fill(span: Any, given: dict[str, Any]) -> None:
    """Do to an open span what was asked for."""
    for name, attributes, at in given["events"]:
        span.add_event(name, attributes, at)
    span.set_attributes(given["attributes"])
    for (trace_id, span_id, remote), attributes in given["links"]:
        state = TraceState.from_header(["a=b,c=d"]) if remote else None
        span.add_link(SpanContext(trace_id, span_id, remote, TraceFlags(3), state), attributes)
    if given["renamed"] is not None:
        span.update_name(given["renamed"])
    for code, description in given["status"]:
        span.set_status(code, description)


def make(given: dict[str, Any], provider: TracerProvider) -> None:
    """Record a span."""
    parent = contextlib.nullcontext()
    if given["parent"] is not None:
        trace_id, span_id, _ = given["parent"]
        parent = core.remote(trace_id, span_id, True, given["state"])
    with parent:
        if given["api"]:
            name, version, schema_url = given["scope"]
            tracer = provider.get_tracer(name, version, schema_url)
            span = tracer.start_span(given["name"], kind=given["kind"], start_time=given["start"])
            fill(span, given)
            span.end(given["end"])
            return
        kind = given["kind"]
        span = ot.probe(f"encoding.{kind.name}", tier=kind.value % 4, kind=kind.name.lower()).span()
        if given["how"] == "is dropped":
            span.begin()
            fill(span, given)
            return
        error = {"fails": KeyError, "is cancelled": asyncio.CancelledError}.get(given["how"])
        with contextlib.suppress(KeyError, asyncio.CancelledError), span:
            fill(span, given)
            if error is not None:
                raise error


@pytest.fixture(autouse=True)
def _calm(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("opentelemetry.attributes", "opentelemetry.trace.span", "opentelemetry.trace.status"):
        caplog.set_level(logging.CRITICAL, logger=name)  # the SDK warns of all that is odd


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"attributes": 3, "events": 2, "links": 1, "event_attributes": 1, "link_attributes": 2, "text": 3},
        {"attributes": 0, "events": 0, "links": 0, "event_attributes": 0, "link_attributes": 0},
    ],
    ids=["usual", "low", "none"],
)
def test_the_bytes_are_the_stock_exporters(make_recorder: Callable[..., Recorder], limits: dict[str, int]) -> None:
    """Whatever spans are recorded, in whatever order and with whatever limits: the request is the stock one."""
    recorder = make_recorder(ring__arena_bytes=1 << 20, **{f"limits__{name}": limit for name, limit in limits.items()})
    core.keep(10_000, 1 << 24)
    provider = TracerProvider()
    encoder = Encoder(RESOURCE.attributes, RESOURCE.schema_url)

    @settings(deadline=None, max_examples=40, phases=[Phase.generate])  # to shrink such spans takes minutes
    @given(spans=st.lists(SPAN, min_size=1, max_size=6))
    def check(spans: Sequence[dict[str, Any]]) -> None:
        for each in spans:
            make(each, provider)
        core.drain()
        batch = core.take(100)
        assert recorder.faults == 0
        assert len(batch) == len(spans)
        encoded = encoder.encode(batch)
        assert encoded.spans == len(spans)
        assert_same(encoded.body, stock(batch))
        batch.settle()

    check()


def test_an_empty_batch_is_an_empty_request(recorder: Recorder) -> None:
    """Nothing is encoded as nothing."""
    core.keep(10)
    batch = core.take(10)
    assert Encoder(RESOURCE.attributes, RESOURCE.schema_url).encode(batch).body == stock(batch) == b""
    assert recorder.accounts()[1]["recorded"] == 0


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 200, 5000, 16_383, 16_384, 40_000, 65_536])
def test_lengths_of_every_size(make_recorder: Callable[..., Recorder], size: int) -> None:
    """Lengths of one, two and three bytes, of texts, arrays, events and spans, are where they belong."""
    make_recorder(ring__arena_bytes=1 << 21)
    core.keep(10)
    with ot.probe("encoding.long").span(text="x" * size, inner=["y" * (size // 2)], other=b"z" * size) as span:
        span.add_event("e" * (size // 4), {"text": "v" * (size // 2)})
        span.update_name("n" * size)
    core.drain()
    batch = core.take(10)
    assert_same(Encoder(RESOURCE.attributes, RESOURCE.schema_url).encode(batch).body, stock(batch))
    batch.settle()


def test_interrupted_spans(recorder: Recorder) -> None:
    """Spans that were cut short at the exit are marked, those of probes."""
    core.keep(10)
    tracer = TracerProvider().get_tracer("encoding")
    spans = [ot.probe("encoding.interrupted").span(a=1), tracer.start_span("interrupted")]
    spans[0].begin()
    assert core.interrupt_open("exit", True) == 2
    core.drain()
    batch = core.take(10)
    body = Encoder(RESOURCE.attributes, RESOURCE.schema_url).encode(batch).body
    assert_same(body, stock(batch))
    assert body.count(b"trading.interrupted") == 1
    batch.settle()
    assert recorder.accounts()[1]["pending"] == 0


def test_a_segment_that_is_gone(make_recorder: Callable[..., Recorder]) -> None:
    """Spans of a closed segment are not encoded: RuntimeError, also once there is another segment."""
    make_recorder()
    core.keep(10)
    with ot.probe("encoding.gone"):
        pass
    core.drain()
    batch = core.take(10)
    batch.settle()
    ot.shutdown(1.0)
    with pytest.raises(RuntimeError, match=r"gone|closed"):
        Encoder(RESOURCE.attributes, RESOURCE.schema_url).encode(batch)
    make_recorder()
    with pytest.raises(RuntimeError, match=r"gone|closed"):
        Encoder(RESOURCE.attributes, RESOURCE.schema_url).encode(batch)
    with pytest.raises(RuntimeError, match=r"gone|closed"):
        batch.states()
    assert len(batch) == 1


@pytest.mark.parametrize("scopes", [[], [(b"", b"")] * 2, [b""], [(b"",)], [(b"", "")], [(b"", b"", b"")]])
def test_scopes_that_do_not_fit(recorder: Recorder, scopes: list[Any]) -> None:
    """There is one pair of bytes for each scope, or an error."""
    core.keep(10)
    with ot.probe("encoding.scopes"):
        pass
    core.drain()
    batch = core.take(10)
    with pytest.raises((ValueError, TypeError)):
        batch.otlp(b"", b"", scopes)
    batch.settle()
    assert recorder.accounts()[1]["exported"] == 1


def test_encoding_while_the_segment_closes(make_recorder: Callable[..., Recorder]) -> None:
    """A thread that encodes while another one closes gets whole requests, and then RuntimeError."""
    make_recorder(ring__slots=8192)
    core.keep(8192)
    probe = ot.probe("encoding.closing")
    for number in range(4000):
        with probe.span(number=number, text="x" * 100):
            pass
    core.drain()
    batch = core.take(8192)
    batch.settle()
    expected = stock(batch)
    encoder = Encoder(RESOURCE.attributes, RESOURCE.schema_url)
    begun, wrong = threading.Event(), []

    def encode() -> None:
        with contextlib.suppress(RuntimeError):
            while True:
                if encoder.encode(batch).body != expected:
                    wrong.append(1)
                begun.set()

    threads = [threading.Thread(target=encode) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    ot.shutdown(1.0)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong
