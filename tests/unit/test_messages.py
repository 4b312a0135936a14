"""The decoder of OTLP messages: what OpenTelemetry's own protobuf classes write, and anything else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._internal import _encode_attributes, _encode_value
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_trading.segment import messages

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), TEXT, st.binary())
VALUE = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=5).map(tuple) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
ATTRIBUTES = st.dictionaries(TEXT, VALUE, max_size=5)


def same(first: Any, second: Any) -> bool:
    """Compare with types, and NaN with itself."""
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return repr(first) == repr(second)


@given(VALUE)
def test_values_come_back(given_value: Any) -> None:
    """A value that protobuf has written is what it was, its type too."""
    assert same(messages.value(_encode_value(given_value).SerializeToString()), given_value)


@given(TEXT, st.integers(0, 2**64 - 1), ATTRIBUTES, st.integers(0, 2**32 - 1))
def test_events_come_back(name: str, unix_ns: int, attributes: dict[str, Any], dropped: int) -> None:
    """An event that protobuf has written is what it was."""
    message = Span.Event(
        name=name,
        time_unix_nano=unix_ns,
        attributes=_encode_attributes(attributes),
        dropped_attributes_count=dropped,
    )
    assert same(messages.event(message.SerializeToString()), (name, unix_ns, attributes, dropped))


@given(
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    TEXT,
    ATTRIBUTES,
    st.integers(0, 2**32 - 1),
)
def test_links_come_back(
    trace_id: int, span_id: int, flags: int, state: str, attributes: dict[str, Any], dropped: int
) -> None:
    """A link that protobuf has written is what it was."""
    data = Span.Link(
        trace_id=trace_id.to_bytes(16, "big"),
        span_id=span_id.to_bytes(8, "big"),
        trace_state=state,
        attributes=_encode_attributes(attributes),
        dropped_attributes_count=dropped,
        flags=flags,
    ).SerializeToString()
    assert same(messages.link(data), (trace_id, span_id, bool(flags & 0x200), state, attributes, dropped))
    assert messages.link_trace_flags(data) == flags & 0xFF


def test_fields_of_later_versions_are_passed_over() -> None:
    """Fields that are not known are skipped by their wire types, as protobuf does it."""
    unknown = b"\xa0\x06\x05" + b"\xa1\x06" + b"x" * 8 + b"\xa2\x06\x03abc" + b"\xa5\x06" + b"x" * 4
    assert messages.value(unknown + b"\x18\x07" + unknown) == 7
    assert messages.event(unknown + b"\x12\x01e") == ("e", 0, {}, 0)
    assert messages.link(unknown) == (0, 0, False, "", {}, 0)


@settings(max_examples=400)
@given(st.binary(max_size=60) | VALUE.map(lambda v: _encode_value(v).SerializeToString()), st.data())
def test_anything_at_all(data: bytes, drawn: st.DataObject) -> None:
    """Any bytes give a result or ValueError."""
    if data:
        place = drawn.draw(st.integers(0, len(data) - 1))
        data = data[:place] + drawn.draw(st.binary(max_size=3)) + data[place + 1 :]
    for function in (messages.value, messages.event, messages.link, messages.link_trace_flags):
        try:
            function(data)
        except ValueError as error:
            assert str(error).startswith("not an OTLP message")  # noqa: PT017  anything may be raised or not


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05abc", b"\x18", b"\x18" + b"\xff" * 11, b"\x21abc", b"\x0b", b"\x80"]
)
def test_what_is_broken_is_refused(data: bytes) -> None:
    """A message that ends too early, or has a number without an end, is a ValueError."""
    with pytest.raises(ValueError, match="not an OTLP message"):
        messages.value(data)


def test_nesting_has_an_end() -> None:
    """Depth is bounded before Python's stack is."""
    data = b""
    for _ in range(30):
        data = AnyValue(array_value={"values": [AnyValue.FromString(data)]}).SerializeToString()
    value = messages.value(data)
    for _ in range(30):
        (value,) = value
    assert value is None
    for _ in range(5000):
        inner = b"\x0a" + _length(data) + data
        data = b"\x2a" + _length(inner) + inner
    with pytest.raises(ValueError, match="deep"):
        messages.value(data)


def _length(data: bytes) -> bytes:
    number, out = len(data), bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
