"""W3C Trace Context as OpenTelemetry's own propagator writes and reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import otel_trading as ot
from otel_trading.api import TracerProvider
from otel_trading.sdk.propagator import RecorderPropagator

if TYPE_CHECKING:
    from conftest import Recorder

STOCK, OURS = TraceContextTextMapPropagator(), RecorderPropagator()
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"

PARENTS = st.one_of(
    st.from_regex(
        r"[ \t]{0,2}[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{0,3})?[ \t]{0,2}", fullmatch=True
    ),
    st.from_regex(r"(00|ff|01)-[0a]{32}-[0b]{16}-0[0-3]", fullmatch=True),
    st.text(max_size=60),
    st.builds(
        lambda at, text: VALID[:at] + text + VALID[at + len(text) :],
        st.integers(0, 54),
        st.text(min_size=1, max_size=2),
    ),
)
STATES = st.lists(
    st.one_of(
        st.from_regex(r"[a-z]{1,3}=[a-z0-9:]{1,5}(,[a-z]{1,3}=[x;]{1,3}){0,2}", fullmatch=True), st.text(max_size=20)
    ),
    max_size=3,
)


def extracted(propagator: Any, carrier: dict[str, Any]) -> tuple[Any, ...] | None:
    """Give what a propagator takes out of headers."""
    found = propagator.extract(carrier, context.Context())
    if not found:
        return None
    parent = trace.get_current_span(found).get_span_context()
    return (*parent[:4], dict(parent.trace_state))


@given(PARENTS, STATES)
def test_headers_are_read_as_the_stock_propagator_reads_them(parent: str, states: list[str]) -> None:
    """Any headers, valid or not, give the same remote parent, or none."""
    carrier: dict[str, Any] = {"traceparent": [parent], "tracestate": states}
    if re.search(r"[\n\r]", parent):  # the stock one lets a line end stand at the end
        return
    assert extracted(OURS, carrier) == extracted(STOCK, carrier)


@pytest.mark.parametrize("headers", [{}, {"traceparent": ""}, {"tracestate": "a=1"}, {"traceparent": VALID[:-1]}])
def test_without_a_parent_the_context_stays(headers: dict[str, str]) -> None:
    """Where there is nothing to read the same context comes back, whatever is in it."""
    given_context = baggage.set_baggage("a", "1", context.Context())
    assert OURS.extract(headers, given_context) is given_context


def test_a_trace_state_that_is_too_long_is_left_out() -> None:
    """Past 8,192 characters the trace state is dropped, the parent is not."""
    states = [f"k{number}={'v' * 256}" for number in range(32)]
    found = trace.get_current_span(OURS.extract({"traceparent": VALID, "tracestate": ",".join(states)}))  # type: ignore[arg-type]
    assert found.get_span_context().is_valid
    assert len(found.get_span_context().trace_state) == 0


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1), st.integers(0, 255), st.booleans())
def test_spans_of_others_are_written_as_the_stock_propagator_writes_them(
    trace_id: int,
    span_id: int,
    flags: int,
    stated: bool,  # noqa: FBT001
) -> None:
    """A span of another implementation gives the same headers."""
    state = TraceState([("a", "1"), ("b", "2")]) if stated else None
    span = NonRecordingSpan(
        SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(flags), trace_state=state)
    )
    current = trace.set_span_in_context(span, context.Context())
    ours: dict[str, str] = {}
    stock: dict[str, str] = {}
    OURS.inject(ours, current)
    STOCK.inject(stock, current)
    assert ours == (stock if trace_id and span_id else {})


def test_our_spans_are_written_as_the_stock_propagator_writes_them(recorder: Recorder) -> None:
    """Spans of tracers, of probes, remote parents and dropped spans give the same headers from both."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("x")
    dropped = SpanContext(0xA, 0xB, is_remote=True, trace_flags=TraceFlags(0), trace_state=TraceState([("v", "1")]))
    below = trace.set_span_in_context(NonRecordingSpan(dropped), context.Context())

    def both() -> dict[str, str]:
        ours: dict[str, str] = {}
        stock: dict[str, str] = {}
        OURS.inject(ours)
        STOCK.inject(stock)
        assert ours == stock
        return ours

    assert both() == {}
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(dropped)))
    assert both()["traceparent"].endswith("-00")
    context.detach(token)
    with tracer.start_as_current_span("api"):
        assert both()["traceparent"].endswith("-03")
    with tracer.start_as_current_span("dropped", below):
        assert both()["tracestate"] == "v=1"
    with ot.probe("probe"):
        both()
    with ot.extract({"traceparent": VALID, "tracestate": "v=2"}):
        assert both()["tracestate"] == "v=2"
    assert len(recorder.records()) >= 2


def test_baggage_is_the_baggage_propagators() -> None:
    """Next to the baggage propagator both go through."""
    both = CompositePropagator([OURS, W3CBaggagePropagator()])
    carrier: dict[str, str] = {}
    both.inject(carrier, both.extract({"traceparent": VALID, "baggage": "a=1"}, context.Context()))
    assert carrier == {"traceparent": VALID, "baggage": "a=1"}
    assert OURS.fields == {"traceparent", "tracestate"}
