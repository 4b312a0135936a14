"""The queue between the drain and the exporters: spans, whole, with copies of their attributes."""

from __future__ import annotations

import struct
from collections import deque

from otel_trading import _layout as at
from otel_trading._pure.instruments import double
from otel_trading._pure.names import names
from otel_trading._pure.writer import ARENA_HEAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from otel_trading._native import AttributeValue, SpanState
    from otel_trading._pure.writer import Writer

    # of the key's id, the type, and the payload
    Block: TypeAlias = tuple[int, int, bytes]
    # of the slot's bytes, the Unix time of tick 0, and the arena blocks, newest first
    Kept: TypeAlias = tuple[bytes, int, list[Block]]

_MOST_ATTRIBUTES = 128
_LONGEST = 4096
_BLOCK = struct.Struct(at.FORMAT_BLOCK)
_FIRST = struct.Struct("<7QHBBBBBB")
_SECOND = struct.Struct("<4H4BI4QQII")
_KEY, _TYPE, _ERROR, _VALUE, _TRACESTATE, _DROPPED = 0, 4, 8, 9, 14, 15  # in an unpacked second line


class Queue:
    """Kept spans, oldest first, up to a limit."""

    def __init__(self) -> None:
        self.limit = 0  # 0: nobody takes spans
        self.spans: deque[Kept] = deque()

    def take(self, count: int) -> list[SpanState]:
        """Hand over the oldest."""
        taken: list[SpanState] = []
        while len(taken) < count:
            try:
                kept = self.spans.popleft()
            except IndexError:
                break
            taken.append(_state(*kept))
        return taken


def blocks_of(writer: Writer, slot: bytes) -> tuple[list[Block], bool]:
    """Copy a record's arena blocks, newest first, and tell whether one was gone."""
    memory, start, size = writer.piece.map, writer.arena, writer.arena_size
    following = int.from_bytes(slot[at.OFF_SLOT_ARENA : at.OFF_SLOT_ARENA + 8], "little")
    blocks: list[Block] = []
    while following and len(blocks) < _MOST_ATTRIBUTES:
        position = following - 1
        place = position & size - 1
        if place + at.SIZE_BLOCK > size:
            break
        stamp, previous, length, key, kind, _ = _BLOCK.unpack_from(memory, start + place)
        payload = place + at.SIZE_BLOCK
        if stamp != position or length > _LONGEST or payload + length > size:
            return blocks, True
        blocks.append((key, kind, memory[start + payload : start + payload + length]))
        if writer.ring[ARENA_HEAD] - position > size:  # overwritten while it was copied
            blocks.pop()
            return blocks, True
        if previous >= following:
            break
        following = previous
    return blocks, False


def _value(kind: int, word: int) -> AttributeValue | None:
    if kind == at.TYPE_BOOL:
        return bool(word)
    if kind == at.TYPE_INT:
        return word - (word >> 63 << 64)
    if kind == at.TYPE_DOUBLE:
        return double(word)
    return names.text(word) if kind == at.TYPE_NAME else None


def _attributes(line: tuple[int, ...], count: int, blocks: list[Block]) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    inline = set()
    for i in range(min(count, at.INLINE_ATTRIBUTES)):
        key, kind = line[_KEY + i], line[_TYPE + i]
        value = _value(kind, line[_VALUE + i])  # nothing for what is in the arena
        if value is not None:
            attributes[names.text(key)] = value
        if kind != at.TYPE_NONE and key != at.NAME_OTHER:
            inline.add(key)
    for key, kind, payload in reversed(blocks):  # oldest first, so that the newest of a key stays
        if key in inline:
            continue
        item: AttributeValue | None
        if kind == at.TYPE_TEXT:
            item = payload.decode(errors="replace")
        else:
            item = _value(kind, int.from_bytes(payload[:8], "little"))
        if item is not None:
            attributes[names.text(key)] = item
    return attributes


def _state(slot: bytes, epoch: int, blocks: list[Block]) -> SpanState:
    _, high, low, span, parent, start, end, probe, _, status, flags, count, extra, tier = _FIRST.unpack_from(slot)
    error = tracestate = None
    attributes: dict[str, AttributeValue] = {}
    dropped = 0
    if extra:
        line = _SECOND.unpack_from(slot, at.OFF_SLOT_KEY)
        error = names.text(line[_ERROR]) if line[_ERROR] else None
        tracestate = names.text(line[_TRACESTATE]) if line[_TRACESTATE] else None
        dropped = line[_DROPPED]
        attributes = _attributes(line, count, blocks)
    start, end = max(0, epoch + start), max(0, epoch + end)
    trace = high << 64 | low
    return probe, tier, trace, span, parent, start, end, status, flags, error, tracestate, attributes, dropped
