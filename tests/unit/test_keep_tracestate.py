"""A trace that was kept by a threshold says so in its tracestate: ot=th."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keeping import ALL, HALF, Keeping, record
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import TraceState

from otel_trading._backend import core

if TYPE_CHECKING:
    from otel_trading._native import Batch

HIGH = ALL - 1  # random bits that pass whatever lets anything through
OTHERS = ",".join(f"k{number}=v" for number in range(32))


def both(batch: Batch) -> tuple[list[str | None], list[str]]:
    """Give the tracestates of a batch's spans, as states and as they are sent."""
    request = ExportTraceServiceRequest.FromString(batch.otlp(b"", b"", [(b"", b"")] * len(batch.scopes())))
    sent = [s.trace_state for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
    return [state[10] for state in batch.states()], sent


def kept(keeping: Keeping, threshold: int, tracestate: str | None, bits: int = HIGH) -> str | None:
    """Record a span with a parent that has a tracestate, keep it by a threshold; gives what its tracestate is."""
    keeping.thresholds(threshold)
    # Another trace each time: what was decided of one is not decided anew.
    kept.number += 1  # type: ignore[attr-defined]
    record(parent=core.remote(kept.number << 64 | 1 << 56 | bits, 5, True, tracestate))  # type: ignore[attr-defined]
    core.drain(True)
    batch = core.take(10)
    batch.settle()
    (state,), (sent,) = both(batch)
    if threshold:
        assert sent == (state or "")
    else:
        assert state == tracestate
        assert sent == ("" if tracestate is None else TraceState.from_header([tracestate]).to_header())
    return state


kept.number = 0xABC  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("threshold", "digits"),
    [
        (HALF, "8"),
        (ALL // 4 * 3, "c"),
        (1 << 40, "0001"),
        (0x0120 << 40, "012"),
        (0xABCD << 40, "abcd"),
        ((0xABCD << 40) + 12345, "abcd"),
    ],
)
def test_the_threshold_is_told(keeping: Keeping, threshold: int, digits: str) -> None:
    """The threshold stands there in hexadecimal digits, without the zeros at the end."""
    assert kept(keeping, threshold, None) == f"ot=th:{digits}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "ot=th:8"),
        ("a=1,b=2", "ot=th:8,a=1,b=2"),
        (" a=1 ,\tb=2,", "ot=th:8,a=1,b=2"),
        ("a=1,ot=x:y,b=2", "ot=th:8;x:y,a=1,b=2"),
        ("ot=th:4", "ot=th:8"),
        ("a=1,ot=x:y;th:4;z:w", "ot=th:8;x:y;z:w,a=1"),
        ("ot=th:0", "ot=th:8"),
        ("ot=th:", "ot=th:8"),
        ("ot=th:zz", "ot=th:8"),
        ("ot=th:123456789abcdef", "ot=th:8"),
        ("ot=rv:ffffffffffffff;th:4", "ot=th:8;rv:ffffffffffffff"),
        # what was said before is more
        ("ot=th:c", "ot=th:c"),
        ("a=1,ot=x:y;th:8", "a=1,ot=x:y;th:8"),
        ("ot=th:80000000000001", "ot=th:80000000000001"),
        # … but the trace's randomness contradicts it
        ("ot=rv:90000000000000;th:a", "ot=th:8;rv:90000000000000"),
        # no tracestate at all
        ("nonsense", "ot=th:8"),
        ("A=1", "ot=th:8"),
        ("a=1,a=2", "ot=th:8"),
        (OTHERS + ",one-more=1", "ot=th:8"),
        # at most 32 members, 256 bytes of a value
        (OTHERS, "ot=th:8," + OTHERS.rpartition(",")[0]),
        ("ot=" + ";".join(["x:" + "y" * 50] * 4), "ot=th:8;" + ";".join(["x:" + "y" * 50] * 4)),
        ("ot=" + "x" * 250 + ";y:z", "ot=th:8;" + "x" * 250),
        ("ot=" + "x" * 252, "ot=th:8"),
        ("ot=" + "x" * 251, "ot=th:8;" + "x" * 251),
    ],
)
def test_what_was_there_before_stays(keeping: Keeping, before: str, after: str) -> None:
    """Other members, and other parts of the `ot` member, stay in their order; `ot` comes first where it changes."""
    assert kept(keeping, HALF, before) == after


def test_an_earlier_threshold_that_the_trace_is_below(keeping: Keeping) -> None:
    """A threshold above the trace's random bits can not be what it was kept by."""
    assert kept(keeping, HALF, "ot=th:c", bits=ALL // 4 * 3) == "ot=th:c"
    assert kept(keeping, HALF, "ot=th:c", bits=ALL // 4 * 3 - 1) == "ot=th:8"


@pytest.mark.parametrize("before", [None, "a=1,ot=th:4;x:y", "nonsense", " a=1 , b=2"])
def test_nothing_is_added_where_nothing_is_cut(keeping: Keeping, before: str | None) -> None:
    """With threshold 0, and for a trace that a trigger keeps, the tracestate is as it was."""
    assert kept(keeping, 0, before) == before
    keeping.thresholds(ALL)
    record(parent=core.remote(1 << 100 | 9, 5, True, before), error=True)
    core.drain(True)
    batch = core.take(10)
    assert both(batch)[0] == [before]
    batch.settle()


def test_long_ones(keeping: Keeping) -> None:
    """One of 4,000 bytes is merged; a longer one is as good as none."""
    members = [f"k{number}=" + "v" * 240 for number in range(16)]
    text = ",".join(members)
    text += ",z=" + "w" * (4000 - len(text) - 3)
    assert len(text) == 4000
    assert kept(keeping, HALF, text) == "ot=th:8," + text
    assert kept(keeping, HALF, text + "w") == "ot=th:8"


PART = st.text("abcxyz019:;=, \té", max_size=20)


@given(
    before=st.one_of(
        PART,
        st.builds("{},ot={};th:{}".format, PART, PART, st.text("0123456789abcdefg", max_size=16)),
        st.text(max_size=9),
    ),
    bits=st.integers(HALF, HIGH),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_tracestate(keeping: Keeping, before: str, bits: int) -> None:
    """Whatever came in, what goes out is a valid tracestate that says at least our threshold."""
    after = kept(keeping, HALF, before, bits)
    assert after is not None
    state = TraceState.from_header([after])
    assert state.to_header() == after
    found = re.search(r"(?:^|;)th:([0-9a-f]{1,14})(?:;|$)", state["ot"])
    assert found is not None
    threshold = int(found[1].ljust(14, "0"), 16)
    assert threshold >= HALF
    assert threshold == HALF or threshold <= bits or "rv:" in state["ot"]
    known = TraceState.from_header([before])
    for key, value in list(known.items())[:31]:
        assert key == "ot" or state[key] == value
