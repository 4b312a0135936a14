"""Blocks of open entries in the ring's arena: attributes without room in the slot, events, links, status, name."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from otel_trading import _layout as at
from otel_trading._pure.recorder import recorder
from otel_trading._pure.wire import Rules, TooLongError
from otel_trading._pure.writer import ARENA, ARENA_HEAD, ATTRIBUTES_DROPPED, LAST, SPAN_ID, STATE, second_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.writer import Token

_MOST_COUNTED = 0xFFFF
_LINK = 1 << 16
_OTHER_FIELDS = 64  # bytes of what an event or link has besides name and attributes
_FRAME = 6  # bytes around an attribute
_LEAST_TEXT = 64
_block = struct.Struct(at.FORMAT_BLOCK).pack_into


def most_bytes(token: Token) -> int:
    """Tell how long a block's payload may be."""
    writer = token.writer
    size = 0 if writer is None else writer.arena_size
    return min(size // 4 - at.SIZE_BLOCK & -8, at.BLOCK_BYTES)


def moment(token: Token) -> tuple[object, int, int]:
    """Give what tells whether an entry is still that of the same span, after code of the program's own has run."""
    words = token.words
    return token.writer, words[token.word + SPAN_ID], words[token.meta] & STATE


def append(token: Token, kind: int, payload: bytes, key: int = 0, value: int = 0) -> bool:
    """Append a block to a reserved or open entry's; False where one so long can never fit."""
    writer = token.writer
    if writer is None or len(payload) > most_bytes(token):
        return False
    second_line(token)
    need = at.SIZE_BLOCK + len(payload) + 7 & -8
    depth, counts = token.depth + 1, token.counts
    if kind == at.BLOCK_EVENT:
        counts += counts & _MOST_COUNTED != _MOST_COUNTED
    elif kind == at.BLOCK_LINK:
        counts += _LINK if counts >> 16 != _MOST_COUNTED else 0
    words, word, size = token.words, token.word, writer.arena_size
    position = writer.arena_head
    left = size - (position & size - 1)
    position += left * (left < need)  # never across the end
    writer.arena_head = position + need  # no call since it was read: nobody else has the place
    # Readers that copied an older block find by the head that it is gone.
    writer.ring[ARENA_HEAD] = writer.arena_head
    place = writer.arena + (position & size - 1)
    _block(writer.piece.map, place, position, words[word + ARENA], len(payload), depth, key, value, kind, counts)
    start = place + at.SIZE_BLOCK
    writer.piece.map[start : start + len(payload)] = payload
    token.depth, token.counts = depth, counts
    words[word + ARENA] = position + 1
    return True


def dropped(token: Token) -> None:
    """Count an attribute that is not kept."""
    if token.writer is None:
        return
    second_line(token)
    words, last = token.words, token.word + LAST
    words[last] = words[last] + (1 << 32)
    lost(token)


def lost(token: Token) -> None:
    """Count an attribute of which not all is kept."""
    writer = token.writer
    if writer is not None:
        writer.ring[ATTRIBUTES_DROPPED] = writer.ring[ATTRIBUTES_DROPPED] + 1


def add_text(token: Token, kind: int, text: str) -> None:
    """Append a block of text, cut to what fits."""
    try:
        data = Rules(None, min(most_bytes(token), at.TEXT_BYTES), 0, True).text(text)
    except UnicodeEncodeError:  # lone surrogates
        recorder.fault()
        return
    append(token, kind, data)


def messages(token: Token, attributes: object, most: int, room: int) -> tuple[list[bytes], int]:
    """Encode attributes of an event or link, the newest so many; with shorter texts, or without any, until they fit.

    What is no mapping is a fault.
    """
    if attributes is None:
        return [], 0
    room -= _OTHER_FIELDS
    if not isinstance(attributes, Mapping):
        recorder.fault()
        return [], 0
    try:
        size = min(most_bytes(token), at.TEXT_BYTES)
        while size >= _LEAST_TEXT:
            try:
                encoded, count = Rules(recorder.event_longest, size, room, True).bounded(attributes, most)
            except TooLongError:
                encoded, count = [b"\0" * room], 0
            if sum(map(len, encoded)) + _FRAME * len(encoded) <= room:
                return encoded, count
            size //= 4
        return [], len(attributes)
    except Exception:  # noqa: BLE001  a mapping's own code
        recorder.fault()
        return [], 0
