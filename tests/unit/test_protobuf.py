"""What is written without the library of protobuf is what the library writes, and what it writes can be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._internal import (
    _encode_attributes,
    _encode_instrumentation_scope,
    _encode_value,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint, NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_trading.drain import protobuf

WORDS = st.integers(0, (1 << 64) - 1)
SIGNED = st.integers(-(1 << 63), (1 << 63) - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.one_of(st.none(), st.booleans(), TEXTS, SIGNED, st.floats(), st.binary())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=10,
)


@given(VALUES)
def test_values(value: object) -> None:
    """Every kind of value, nested ones too."""
    assert protobuf.any_value(value) == _encode_value(value).SerializeToString(deterministic=True)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_attributes(found: dict[str, object]) -> None:
    """Attributes, in their order."""
    assert protobuf.attributes(1, found) == Resource(attributes=_encode_attributes(found)).SerializeToString()


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, "\ud800", object(), {"a": object()}, [1 << 70]])
def test_what_can_not_be_encoded_is_left_out(value: object) -> None:
    """One bad attribute does not take the others with it."""
    with pytest.raises((TypeError, ValueError)):
        protobuf.any_value(value)
    found = {"before": 1, "bad": value, "after": "x"}
    assert protobuf.attributes(1, found) == protobuf.attributes(1, {"before": 1, "after": "x"})


@given(TEXTS, st.none() | TEXTS, st.none() | st.dictionaries(TEXTS, SCALARS, max_size=3))
def test_scopes(name: str, version: str | None, found: dict[str, object] | None) -> None:
    """A scope, whatever it lacks."""
    scope = InstrumentationScope(name, version, None, found)  # type: ignore[arg-type]
    wanted = _encode_instrumentation_scope(scope).SerializeToString(deterministic=True)
    assert protobuf.scope(name, version, scope.attributes) == wanted


@given(st.floats(), WORDS, st.integers(-(1 << 31), (1 << 31) - 1), st.lists(WORDS), SIGNED)
def test_numbers(value: float, word: int, small: int, words: list[int], signed: int) -> None:
    """Fields of numbers, those with defaults and those that tell whether they are there."""
    buckets = ExponentialHistogramDataPoint.Buckets(offset=small, bucket_counts=words)
    assert protobuf.zigzag(1, small) + protobuf.packed(2, words, protobuf.varint) == buckets.SerializeToString()
    point = ExponentialHistogramDataPoint(time_unix_nano=word, zero_threshold=value, min=value)
    assert (
        protobuf.fixed(3, word) + protobuf.present_double(12, value) + protobuf.double(14, value)
        == point.SerializeToString()
    )
    number = NumberDataPoint(as_int=signed)
    assert protobuf.present_signed_fixed(6, signed) == number.SerializeToString()


@given(SIGNED, TEXTS)
def test_reading(rejected: int, text: str) -> None:
    """What the library writes is read."""
    body = ExportTracePartialSuccess(rejected_spans=rejected, error_message=text).SerializeToString()
    found = protobuf.read(body)
    assert protobuf.whole_of(found, 1) == rejected % (1 << 64)
    assert protobuf.bytes_of(found, 2) == text.encode()


@given(st.binary(max_size=64))
def test_reading_anything(body: bytes) -> None:
    """Whatever somebody sends is read, or refused."""
    try:
        found = protobuf.read(body)
    except ValueError:
        return
    assert all(isinstance(value, int) or len(value) <= len(body) for value in found.values())


@pytest.mark.parametrize("body", [b"\x08", b"\x0a\x05abc", b"\x0b\x0c", b"\x80" * 11, b"\x09\x00"])
def test_what_is_no_message(body: bytes) -> None:
    """Cut off, groups, endless numbers."""
    with pytest.raises(ValueError, match="no protobuf message"):
        protobuf.read(body)


def test_a_field_of_another_kind() -> None:
    """A number where bytes are wanted, and the other way round."""
    found = protobuf.read(protobuf.whole(1, 5) + protobuf.text(2, "x"))
    with pytest.raises(ValueError, match="field 1 is a number"):
        protobuf.bytes_of(found, 1)
    with pytest.raises(ValueError, match="field 2 is no number"):
        protobuf.whole_of(found, 2)
    assert protobuf.bytes_of(found, 9) == b""
    assert protobuf.whole_of(found, 9) == 0
