"""A record, or an open entry, with its arena blocks, as Python objects: ``SpanState`` of ``_native.pyi``."""

from __future__ import annotations

import struct

from otel_trading import _layout as at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from otel_trading._native import AttributeValue, SpanState

    # of what kind; of an attribute the key's id and the type; the payload; blocks so far; events and links so far
    Block: TypeAlias = tuple[int, int, int, bytes, int, int]
    # attributes and how many were dropped, name, description, events, links, dropped ones of both, tracestate
    Details: TypeAlias = tuple[
        dict[str, AttributeValue], int, str | None, str | None, list[bytes], list[bytes], int, int, str | None
    ]

NOTHING: Details = ({}, 0, None, None, [], [], 0, 0, None)
FIRST = struct.Struct("<7QHBBBBBB")
"""The first line of a slot."""
EXTRA = 12
"""Where it says whether the second line is valid."""
SECOND = struct.Struct("<4H4BI4QQII")
"""The second one."""
KEY, TYPE, ERROR, VALUE, ARENA, TRACESTATE, DROPPED = 0, 4, 8, 9, 13, 14, 15
"""Where what is in an unpacked second line."""
_BLOCK = struct.Struct(at.FORMAT_BLOCK)
_KINDS = {at.TYPE_BOOL, at.TYPE_INT, at.TYPE_DOUBLE, at.TYPE_NAME}
_WORD = struct.Struct("<Q")
_INT = struct.Struct("<q")
_DOUBLE = struct.Struct("<d")


def block_of(header: bytes) -> tuple[int, int, int, Block]:
    """Give a block's position, the previous one's, its payload's length, and itself without the payload."""
    position, previous, size, depth, key, value, kind, counts = _BLOCK.unpack(header)
    return position, previous, size, (kind, key, value, b"", depth, counts)


class _Replay:
    """Sets attributes again, in order, with the limit."""

    __slots__ = ("attributes", "dropped", "most", "name")

    def __init__(self, most: int, dropped: int, name: Callable[[int], str]) -> None:
        self.attributes: dict[str, AttributeValue] = {}
        self.most = most
        self.dropped = dropped
        self.name = name

    def put(self, key: str, kind: int, payload: bytes) -> None:
        """Set one; what is of no known type says nothing."""
        value = self._value(kind, payload)
        if value is None:
            return
        attributes = self.attributes
        attributes.pop(key, None)
        if len(attributes) >= self.most:
            self.dropped += 1
            if not attributes:
                return
            del attributes[next(iter(attributes))]
        attributes[key] = value

    def _value(self, kind: int, payload: bytes) -> AttributeValue | None:
        if kind == at.TYPE_TEXT:
            return payload.decode("utf-8", "replace")
        if kind == at.TYPE_MESSAGE:
            return payload
        if kind not in _KINDS:
            return None
        payload = payload[: _WORD.size].ljust(_WORD.size, b"\0")
        if kind == at.TYPE_INT:
            number: int = _INT.unpack_from(payload)[0]
            return number
        if kind == at.TYPE_DOUBLE:
            real: float = _DOUBLE.unpack_from(payload)[0]
            return real
        word: int = _WORD.unpack_from(payload)[0]
        return self.name(word) if kind == at.TYPE_NAME else word != 0

    def block(self, key: int, kind: int, payload: bytes) -> None:
        """Set one of the arena."""
        if key != at.NAME_OTHER:
            self.put(self.name(key), kind, payload)
            return
        size = int.from_bytes(payload[:4], "little") + 4
        if size <= len(payload):
            self.put(payload[4:size].decode("utf-8", "replace"), kind, payload[size:])


def details(
    line: Sequence[int],
    count: int,
    blocks: Sequence[Block],
    limits: tuple[int, int, int],
    name: Callable[[int], str],
) -> Details:
    """Give what an unpacked second line and its blocks, newest first, say; ``name`` gives a name's text."""
    replay = _Replay(limits[0], line[DROPPED], name)
    for i in range(min(count, at.INLINE_ATTRIBUTES)):
        kind = line[TYPE + i]
        if kind in _KINDS:
            replay.put(name(line[KEY + i]), kind, _WORD.pack(line[VALUE + i]))
    own: bytes | None = None
    description: bytes | None = None
    tracestate: bytes | None = None
    events: list[bytes] = []
    links: list[bytes] = []
    for kind, key, value, payload, _, _ in reversed(blocks):
        if kind == at.BLOCK_ATTRIBUTE:
            replay.block(key, value, payload)
        elif kind == at.BLOCK_EVENT:
            events.append(payload)
        elif kind == at.BLOCK_LINK:
            links.append(payload)
        elif kind == at.BLOCK_STATUS:
            description = payload
        elif kind == at.BLOCK_NAME:
            own = payload
        elif kind == at.BLOCK_TRACESTATE:
            tracestate = payload
    counts = blocks[0][5] if blocks else 0
    _, most_events, most_links = limits
    no_events, no_links = max(counts & 0xFFFF, len(events)), max(counts >> 16, len(links))
    events = events[max(0, len(events) - most_events) :]
    links = links[max(0, len(links) - most_links) :]
    return (
        replay.attributes,
        replay.dropped,
        None if own is None else own.decode("utf-8", "replace"),
        description.decode("utf-8", "replace") if description else None,
        events,
        links,
        no_events - len(events),
        no_links - len(links),
        tracestate.decode("utf-8", "replace") if tracestate else None,
    )


def span_state(
    first: Sequence[int],
    start: int,
    end: int,
    line: Sequence[int] | None,
    blocks: Sequence[Block],
    limits: tuple[int, int, int],
    name: Callable[[int], str],
) -> SpanState:
    """Give a record: of its unpacked first line, times in Unix ns, second line where that is valid, and blocks.

    The end of an open entry is 0.
    """
    _, high, low, span, parent, _, _, probe, phase, status, flags, count, _, tier = first
    error = tracestate = None
    found = NOTHING
    if line is not None:
        error = name(line[ERROR]) if line[ERROR] else None
        found = details(line, count, blocks, limits, name) if count or line[ARENA] or line[DROPPED] else NOTHING
        tracestate = name(line[TRACESTATE]) if line[TRACESTATE] else found[-1]
    attributes, dropped, own, description, events, links, no_events, no_links, _ = found
    return (
        probe,
        tier,
        high << 64 | low,
        span,
        parent,
        start,
        0 if phase == at.SLOT_OPEN else end,
        status,
        flags,
        error,
        tracestate,
        dict(attributes),
        dropped,
        own,
        description,
        list(events),
        list(links),
        no_events,
        no_links,
    )
