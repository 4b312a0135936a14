"""The threshold in the tracestate of spans that a share of the traces stands for."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import TraceState

from otel_trading._backend import core
from otel_trading._pure.tracestate import with_threshold
from otel_trading.budget.policy import Policy
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

    from otel_trading._native import Batch

RANDOM = (1 << 56) - 1
UNIT = 40  # bits below those of a threshold
met: set[int] = set()
PROBE = core.Probe("thresholds.p1", 1)

KEYS = st.sampled_from(["ot", "a", "b", "c@d", "1@x", "k" * 256, "K", "1a", "", "a b", "ot@v"])
FIELDS = st.one_of(
    st.sampled_from(
        ["th:8", "th:0", "th:fffe", "th:c000000000000", "th:80000000000001", "th:G", "th:", "th", "th:8:8"]
    ),
    st.sampled_from(
        ["rv:01234567890123", "rv:ffffffffffffff", "rv:12", "rv:FFFFFFFFFFFFFF", "p:1", "x:y", "", "z" * 250]
    ),
    st.text("th:rv089af", max_size=18),
)
OT = st.lists(FIELDS, min_size=1, max_size=4).map(";".join)
VALUES = st.one_of(OT, st.text("abc:;= \té", max_size=8), st.just("v" * 256), st.just("v" * 257))
MEMBER = st.tuples(KEYS, VALUES).map("=".join)
MEMBERS = st.lists(MEMBER | st.just("no equals") | st.just(" "), max_size=5)
MANY = st.integers(30, 34).map(lambda count: [f"k{number}=v" for number in range(count)])
TIDY = st.builds(
    lambda ot, more: [*more[:1], f"ot={ot}", *more[1:]], OT, st.lists(st.sampled_from(["a=1", "b=2"]), unique=True)
)
LONG = st.just([f"k{number}={'v' * 200}" for number in range(25)])
SEPARATOR = st.sampled_from([",", " , ", ",\t", ",,"])
HEADER = st.none() | st.builds(str.join, SEPARATOR, TIDY | MEMBERS | MANY | LONG) | OT.map("ot={}".format)
THRESHOLD = st.integers(1, 0xFFFF) | st.sampled_from([1, 0x10, 0x100, 0x8000, 0xF000, 0xFFFF])


@pytest.fixture
def govern(make_recorder: Callable[..., Recorder]) -> Iterator[Callable[[int], None]]:
    """Give a function that has plain traces kept from a threshold on, of 16 bits."""
    recorder = make_recorder(ring__arena_bytes=1 << 20)
    core.keep(1000)
    with Policy(recorder.path) as policy, Control(recorder.path) as control:
        policy.write(
            {"hold": 5.0, "burst": 60.0, "budget": [inf] * 20, "limit": [inf, inf, inf, inf, inf, inf, 0, inf]}
        )
        policy.active = True

        def to(threshold: int) -> None:
            control.sampling_rate = 1 - threshold / (1 << 16)

        yield to


def taken() -> Batch:
    """Have all traces decided, and take what is kept."""
    core.drain(True)
    batch = core.take(1000)
    batch.settle()
    return batch


def record(trace_id: int, header: str | None) -> Batch:
    """Record one span of a trace that came from elsewhere, and take it."""
    PROBE.stop(PROBE.start(core.remote(trace_id, 1, True, header)))
    return taken()


def in_otlp(batch: Batch) -> str:
    """Give the tracestate of the only span of a request."""
    request = ExportTraceServiceRequest.FromString(batch.otlp(b"", b"", [(b"", b"")]))
    (span,) = request.resource_spans[0].scope_spans[0].spans
    return span.trace_state


@pytest.mark.usefixtures("quiet")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HEADER, THRESHOLD, st.integers(0, RANDOM), st.integers(0, (1 << 8) - 1))
def test_any_tracestate_takes_a_threshold(
    govern: Callable[[int], None], header: str | None, threshold: int, random: int, rest: int
) -> None:
    """Whatever came in, what goes out is a tracestate by OpenTelemetry's rules, the same on both backends."""
    least = threshold << UNIT
    trace_id = rest << 56 | least + random % (RANDOM + 1 - least)
    while trace_id in met:  # a trace keeps its verdict
        trace_id = rest << 56 | least + (trace_id + 1 - least) % (RANDOM + 1 - least)
    met.add(trace_id)
    govern(threshold)
    batch = record(trace_id, header)
    (state,) = batch.states()
    text = state[10]
    assert text == with_threshold(header, trace_id, threshold)
    parsed = TraceState.from_header([text])
    fields = parsed["ot"].split(";")
    told = [field[3:].ljust(14, "0") for field in fields if field.startswith("th:")]
    assert max(int(digits, 16) for digits in told if set(digits) <= set("0123456789abcdef")) >= least
    assert len(parsed["ot"]) <= 256
    before = TraceState.from_header([header]) if header and len(header.encode()) <= 4000 else TraceState()
    others = [item for item in before.items() if item[0] != "ot"]
    assert [item for item in parsed.items() if item[0] != "ot"] == others[:31]
    assert in_otlp(batch) == parsed.to_header()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "ot=th:8"),
        ("", "ot=th:8"),
        ("a=1, b=2", "ot=th:8,a=1,b=2"),
        ("a=1,ot=th:4,b=2", "ot=th:8,a=1,b=2"),
        ("a=1, ot=th:c", "a=1,ot=th:c"),  # a rarer one: it stays
        ("ot=th:8", "ot=th:8"),
        ("ot=rv:f0000000000000;x:1", "ot=th:8;rv:f0000000000000;x:1"),
        ("ot=x:1;th:1;y", "ot=th:8;x:1;y"),
        ("ot=th:f;rv:e0000000000000", "ot=th:8;rv:e0000000000000"),  # which the randomness contradicts
        ("ot=th:fff", "ot=th:8"),  # likewise: the trace id's
        ("ot=th:", "ot=th:8"),
        ("broken", "ot=th:8"),
        ("a=1,a=2", "ot=th:8"),
    ],
)
def test_a_threshold_is_put_in(govern: Callable[[int], None], header: str | None, expected: str) -> None:
    """The threshold comes first; a higher one that is there stays, and so does all that is others'."""
    govern(0x8000)
    (state,) = record(0xABC << 64 | 0xE0000000000000, header).states()
    assert state[10] == expected


def test_a_whole_share_says_nothing(govern: Callable[[int], None]) -> None:
    """With threshold 0 a tracestate goes out as it came."""
    govern(0)
    for header in (None, "a=1,ot=th:1", "broken"):
        (state,) = record(7 << 56 | 9, header).states()
        assert state[10] == header


def test_a_trigger_stands_for_itself(govern: Callable[[int], None]) -> None:
    """A trace that a trigger keeps has no threshold, whatever the share is."""
    govern(0xFFFF)
    token = PROBE.start(core.remote(5, 1, True, "a=1"))
    PROBE.stop(token, ValueError("wrong"))
    (state,) = taken().states()
    assert state[10] == "a=1"
