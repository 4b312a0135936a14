"""Trace context in JSON messages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading.instrument.traceparent import parent_in, with_traceparent

probe = ot.probe("traceparent.test")


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("message", ['{"a":1}', "{}", "{ }", '{ "a": 1}'])
@pytest.mark.parametrize("encoded", [False, True])
def test_an_object_gets_the_field_and_gives_it_back(message: str, *, encoded: bool) -> None:
    """The field is the first of the object, the rest is as it was, and the parent is the span that sent it."""
    with probe.span() as span:
        sent = with_traceparent(message.encode() if encoded else message)
    assert isinstance(sent, bytes if encoded else str)
    fields = json.loads(sent)
    assert next(iter(fields)) == "traceparent"
    del fields["traceparent"]
    assert fields == json.loads(message)
    parent = parent_in(sent)
    assert parent is not None
    assert (parent.trace_id, parent.span_id) == (span.trace_id, span.span_id)


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("message", ["[1]", "ping", "", b"\x00{", b"", '{"traceparent":"x"}', 5, None])
def test_what_is_no_object_or_has_the_field_stays(message: object) -> None:
    """Arrays, other text, other types, and an object with a context of its own go out as they are."""
    with probe.span():
        assert with_traceparent(message) is message


def test_without_a_current_span_nothing_is_added() -> None:
    """There is nothing to write."""
    assert with_traceparent('{"a":1}') == '{"a":1}'


@pytest.mark.parametrize(
    "message",
    [
        "{}",
        '{"traceparent":}',
        '{"traceparent":"zz"}',
        '{"traceparent":"00-00000000000000000000000000000000-0000000000000000-01"}',
        b'{"traceparent":\xff\xff}',
        '{"x":"' + "y" * 600 + '","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}',
    ],
)
def test_no_valid_parent_is_none(message: str | bytes) -> None:
    """What is not there, not valid, or too far behind gives no parent."""
    assert parent_in(message) is None


@given(st.one_of(st.text(), st.binary(), st.text().map(lambda text: '{"traceparent":"' + text)))
def test_any_message_is_taken(message: str | bytes) -> None:
    """No message makes reading raise."""
    parent_in(message)


def test_frames_may_be_of_any_bytes_type() -> None:
    """A memoryview and a bytearray are read as bytes are."""
    text = b'{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
    for message in (bytearray(text), memoryview(text)):
        parent = parent_in(message)
        assert parent is not None
        assert parent.span_id == 0xB7AD6B7169203331
