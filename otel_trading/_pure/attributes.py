"""Attributes of open spans: four inline, the rest and long texts in the ring's arena."""

from __future__ import annotations

import math
import operator
import struct

from otel_trading import _layout as at
from otel_trading._pure.names import names
from otel_trading._pure.recorder import recorder
from otel_trading._pure.writer import (
    ARENA,
    ARENA_HEAD,
    ATTRIBUTES_DROPPED,
    COUNT,
    EXTRA,
    FAILED,
    KEYS,
    LAST,
    META,
    TYPES,
    VALUES,
    flag,
    second_line,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._native import AttributeValue
    from otel_trading._pure.writer import Token, Writer

_MOST = 128  # of one span
_LONGEST = 4096  # bytes of a text
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_WORD = (1 << 64) - 1
_block = struct.Struct(at.FORMAT_BLOCK).pack_into
_bits = struct.Struct("<d").pack
_double = struct.Struct("<d").pack_into
_ATTRIBUTE = 1  # kind of a block


def _text(text: str) -> tuple[int, int, bytes] | None:
    number = names.value(text)
    if number != at.NAME_NONE:
        return at.TYPE_NAME, number, b""
    try:
        data = text[:_LONGEST].encode()  # a character is a byte at least
    except UnicodeEncodeError:  # lone surrogates
        return None
    if len(data) > _LONGEST:
        end = _LONGEST
        while data[end] & 0xC0 == 0x80:  # noqa: PLR2004  the middle of a character
            end -= 1
        data = data[:end]
    return at.TYPE_TEXT, 0, data


def _encoded(value: AttributeValue) -> tuple[int, int, bytes] | None:  # noqa: PLR0911  one a type
    """Give (type, word, text) of a value; None for what can not be one."""
    if isinstance(value, float):
        return at.TYPE_DOUBLE, int.from_bytes(_bits(value), "little"), b""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return at.TYPE_BOOL, int(value), b""
    if isinstance(value, int):
        if _INT_MIN <= value <= _INT_MAX:
            return at.TYPE_INT, value & _WORD, b""
        return _text(str(value))  # beyond 64 bits
    if hasattr(value, "__index__"):  # numpy's integers
        return _encoded(operator.index(value))
    if hasattr(value, "__float__"):  # Decimal, numpy's floats
        return _encoded(math.ldexp(value, 0))
    return None


def _append(writer: Writer, previous: int, key: int, kind: int, word: int, text: bytes) -> int:
    """Append a block; gives its position + 1, or 0 where it can never fit."""
    payload = text if kind == at.TYPE_TEXT else word.to_bytes(8, "little")
    size = writer.arena_size
    need = at.SIZE_BLOCK + len(payload) + 7 & -8
    if need > size // 4:
        return 0
    position = writer.arena_head
    left = size - (position & size - 1)
    position += left * (left < need)  # never across the end
    writer.arena_head = position + need  # no call since it was read: nobody else has the place
    # Readers that copied an older block find by the head that it is gone.
    writer.ring[ARENA_HEAD] = writer.arena_head
    place = writer.arena + (position & size - 1)
    _block(writer.piece.map, place, position, previous, len(payload), key, kind, _ATTRIBUTE)
    start = place + at.SIZE_BLOCK
    writer.piece.map[start : start + len(payload)] = payload
    return position + 1


def _dropped(writer: Writer, words: memoryview, last: int) -> None:
    words[last] = words[last] + (1 << 32)
    writer.ring[ATTRIBUTES_DROPPED] = writer.ring[ATTRIBUTES_DROPPED] + 1


def set_attribute(token: Token, key: str, value: AttributeValue, blocks: int) -> int:
    """Set an attribute of a reserved or open entry, which has so many blocks; gives how many it has then.

    A wrong value is a fault; what finds no room is counted.
    """
    number = names.ids.get(key)
    if not number:
        number = names.name(key) if key else at.NAME_OTHER
    try:
        encoded = _encoded(value)  # may run the value's own code, which may do anything
    except Exception:  # noqa: BLE001  and nothing of that is the caller's
        encoded = None
    writer = token.writer
    if encoded is None or writer is None:
        recorder.fault()
        return blocks
    kind, item, text = encoded
    second_line(token)
    words, word = token.words, token.word
    keys = words[word + KEYS]
    count = words[word + META] >> COUNT & 0xFF
    i = 0
    while i < count and (keys >> 16 * i & 0xFFFF != number or number == at.NAME_OTHER):
        i += 1
    inside = kind != at.TYPE_TEXT
    if inside and i < at.INLINE_ATTRIBUTES:
        seq = token.seq
        token.seq = seq + 2
        words[word] = seq - 1
        if i == count:
            words[word + KEYS] = keys & ~(0xFFFF << 16 * i) | number << 16 * i
            words[word + META] = words[word + META] + (1 << COUNT)
        words[word + TYPES] = words[word + TYPES] & ~(0xFF << 8 * i) | kind << 8 * i
        words[word + VALUES + i] = item
        words[word] = seq
        return blocks
    if i >= count and blocks + at.INLINE_ATTRIBUTES >= _MOST:
        _dropped(writer, words, word + LAST)
        return blocks
    position = _append(writer, words[word + ARENA], number, kind, item, text)
    if not position:
        _dropped(writer, words, word + LAST)
        return blocks
    if i < count:  # an inline value that becomes a long text: TYPE_NONE sends readers to the arena
        words[word + TYPES] = words[word + TYPES] & ~(0xFF << 8 * i)
    words[word + ARENA] = position
    return blocks + 1


def set_first(token: Token, attributes: dict[str, AttributeValue]) -> int:
    """Set the attributes with which a span is made, in an entry that nobody sees yet; gives how many blocks it has."""
    if len(attributes) <= at.INLINE_ATTRIBUTES:
        words, word = token.words, token.word
        ids = names.ids
        keys = kinds = i = 0
        for key, value in attributes.items():
            kind = type(value)
            number = ids.get(key)
            if not number:
                number = names.name(key) if key else at.NAME_OTHER
            if kind is float:
                _double(token.map, token.place + at.OFF_SLOT_VALUE + 8 * i, value)
                kinds |= at.TYPE_DOUBLE << 8 * i
            elif kind is str:
                item = ids.get(value)  # type: ignore[arg-type]  # a str, as just seen
                if not item:
                    break
                words[word + VALUES + i] = item
                kinds |= at.TYPE_NAME << 8 * i
            elif kind is int and 0 <= value <= _INT_MAX:  # type: ignore[operator]  # an int
                words[word + VALUES + i] = value  # type: ignore[assignment]  # an int
                kinds |= at.TYPE_INT << 8 * i
            else:
                break
            keys |= number << 16 * i
            i += 1  # noqa: SIM113  after what may break off
        else:
            words[word + KEYS] = keys
            words[word + TYPES] = kinds
            words[word + ARENA] = words[word + LAST] = 0
            words[word + META] = words[word + META] | EXTRA | i << COUNT
            return 0
    blocks = 0
    for key, value in attributes.items():
        blocks = set_attribute(token, key, value, blocks)
    return blocks


def set_tracestate(token: Token, tracestate: str) -> None:
    """Note the tracestate of an entry that has just been made."""
    second_line(token)
    last = token.word + LAST
    token.words[last] = token.words[last] >> 32 << 32 | names.name(tracestate)


def _error_name(kind: type[BaseException]) -> int:
    """Give the id of "module.qualname", without "builtins."; NAME_OTHER where it can't be told."""
    try:
        name, module = kind.__qualname__, kind.__module__
        if isinstance(name, str) and isinstance(module, str):
            return names.name(name if module == "builtins" else f"{module}.{name}")
    except Exception:  # noqa: BLE001, S110  a metaclass may do anything
        pass
    return at.NAME_OTHER


def failed(token: Token, name: int) -> None:
    """Set status ERROR and the error's name."""
    second_line(token)
    words, word = token.words, token.word
    words[word + TYPES] = words[word + TYPES] & 0xFFFF_FFFF | name << 32
    words[word + META] = words[word + META] | FAILED


def raised(token: Token, kind: type[BaseException]) -> None:
    """Set status and flags by the type of what was raised."""
    if issubclass(kind, Exception):
        name = _error_name(kind)
        if token.writer is not None:
            failed(token, name)
    elif any(base.__name__ == "CancelledError" for base in kind.__mro__):
        flag(token, at.FLAG_CANCELLED)  # asyncio's; not an error, but not the end either
