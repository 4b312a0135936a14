"""Spans as OTLP, byte for byte as the stock exporter encodes them."""

from __future__ import annotations

import struct

from otel_trading import _layout as at
from otel_trading._pure import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._native import AttributeValue, SpanState
    from otel_trading._pure.tables import ProbeEntry

_FLAG_ATTRIBUTES = (
    (at.FLAG_CANCELLED, "trading.cancelled"),
    (at.FLAG_ABANDONED, "trading.abandoned"),
    (at.FLAG_INTERRUPTED, "trading.interrupted"),
)
_IDS = 2 + 16 + 2 + 8  # bytes of a link's ids
_TRACESTATE = 3 << 3 | 2
_fixed64 = struct.Struct("<Q").pack
_fixed32 = struct.Struct("<I").pack


def _attribute(key: str, value: AttributeValue) -> bytes:
    if isinstance(value, bool):
        message = wire.of_bool(value)
    elif isinstance(value, str):
        message = wire.of_text(value.encode())
    elif isinstance(value, int):
        message = wire.of_int(value)
    elif isinstance(value, float):
        message = wire.of_double(value)
    else:
        message = value
    return wire.delimited(9, wire.key_value(key.encode(), message))


def _link(message: bytes) -> bytes:
    """Leave out tracestate and trace flags, as the stock exporter does; the ids before them have 16 and 8 bytes."""
    end = _IDS
    if message[_IDS] == _TRACESTATE:
        size = message[_IDS + 1] & 0x7F
        end = _IDS + 2
        if message[_IDS + 1] & 0x80:
            size |= message[end] << 7  # there is not more than 512
            end += 1
        end += size
    return message[:_IDS] + message[end:-4] + b"\0" + message[-3:]


def _tracestate(text: str) -> bytes:
    """Give a tracestate as the stock exporter writes it again: parsed by W3C's rules."""
    from opentelemetry.trace import TraceState  # who exports has it

    return ",".join([f"{key}={value}" for key, value in TraceState.from_header([text]).items()]).encode()


def span(state: SpanState, probe: ProbeEntry) -> bytes:
    """Encode field 2 of ScopeSpans."""
    (_, tier, trace, span_id, parent, start, end, status, flags, error, tracestate, attributes, dropped) = state[:13]
    own, description, events, links, no_events, no_links = state[13:]
    name = probe.name if own is None else own
    if not probe.scope:
        attributes, events = _of_probe(attributes, events, tier, flags, error, end)
    header = _tracestate(tracestate) if tracestate else b""
    message = b"".join(
        [
            wire.delimited(1, trace.to_bytes(16, "big")),
            wire.delimited(2, span_id.to_bytes(8, "big")),
            wire.delimited(3, header) if header else b"",
            wire.delimited(4, parent.to_bytes(8, "big")) if parent else b"",
            wire.delimited(5, name.encode()) if name else b"",
            b"\x30" + wire.varint(probe.kind + 1),
            b"\x39" + _fixed64(start) if start else b"",
            b"\x41" + _fixed64(end) if end else b"",
            *[_attribute(key, value) for key, value in attributes.items()],
            b"\x50" + wire.varint(dropped) if dropped else b"",
            *[wire.delimited(11, event) for event in events],
            b"\x60" + wire.varint(no_events) if no_events else b"",
            *[wire.delimited(13, _link(link)) for link in links],
            b"\x70" + wire.varint(no_links) if no_links else b"",
            wire.delimited(
                15,
                (wire.delimited(2, description.encode()) if description else b"")
                + (b"\x18" + wire.varint(status) if 0 < status <= at.STATUS_ERROR else b""),
            ),
            b"\x85\x01"
            + _fixed32(wire.HAS_IS_REMOTE | (wire.IS_REMOTE if parent and flags & at.FLAG_REMOTE_PARENT else 0)),
        ]
    )
    return wire.delimited(2, message)


def _of_probe(
    attributes: dict[str, AttributeValue], events: list[bytes], tier: int, flags: int, error: str | None, end: int
) -> tuple[dict[str, AttributeValue], list[bytes]]:
    """Add what spans of probes say of themselves."""
    attributes["trading.tier"] = f"P{tier}"
    for flag, key in _FLAG_ATTRIBUTES:
        if flags & flag:
            attributes[key] = True
    if error is not None:
        attributes["error.type"] = error
        kind = wire.key_value(b"exception.type", wire.of_text(error.encode()))
        events = [*events, wire.event(b"exception", end, [kind], 0)]
    return attributes, events
