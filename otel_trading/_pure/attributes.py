"""Attributes of open spans: four inline, the rest and long texts in the ring's arena; the order is the SDK's.

A key that is set again moves to the end.  As long as nothing is in the arena the four are kept in order, with the
segment's limit; from the first block on, each set is a block, and readers replay them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from otel_trading import _layout as at
from otel_trading._pure import wire
from otel_trading._pure.blocks import append, dropped, lost, moment, most_bytes
from otel_trading._pure.names import names
from otel_trading._pure.recorder import recorder
from otel_trading._pure.writer import (
    ARENA,
    COUNT,
    EXTRA,
    FAILED,
    IN_ARENA,
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
    from otel_trading._pure.writer import Token

_WORD = (1 << 64) - 1
_ERRORS_BITS = 0xFFFF_FFFF << 32
_bits = struct.Struct("<d").pack
_double = struct.Struct("<d").pack_into


def _text(text: str, rules: wire.Rules, longest: int | None = None) -> tuple[int, int, bytes]:
    if longest is None or len(text) <= longest:
        number = names.value(text)
        if number != at.NAME_NONE:
            return at.TYPE_NAME, number, b""
    return at.TYPE_TEXT, 0, rules.text(text, longest)


def _plain(value: object, rules: wire.Rules) -> tuple[int, int, bytes] | None:
    """Give (type, word, text) of a plain value; None for another one."""
    if isinstance(value, float):
        return at.TYPE_DOUBLE, int.from_bytes(_bits(value), "little"), b""
    if isinstance(value, str):
        return _text(value, rules, rules.longest)
    if isinstance(value, bool):
        return at.TYPE_BOOL, int(value), b""
    if isinstance(value, int):
        if wire.INT_MIN <= value <= wire.INT_MAX:
            return at.TYPE_INT, value & _WORD, b""
        return _text(str(value), rules, rules.longest)
    return None


def _encoded(value: object, rules: wire.Rules) -> tuple[int, int, bytes] | None:
    """Give (type, word, payload) of a value; None for what can not be one.  Raises what its own code raises."""
    plain = _plain(value, rules)
    if plain is not None:
        return plain
    if value is not None and not isinstance(value, bytes):
        number = None if rules.api else wire.number_of(value)
        if number is not None:
            return _plain(number, rules)
        if not isinstance(value, (Sequence, Mapping)):
            if not rules.api:
                return None
            text = wire.text_of(value)
            if text is not None:
                return _text(text, rules)
            value = None
    return at.TYPE_MESSAGE, 0, rules.message(value)


def set_attribute(token: Token, key: str, value: object, api: bool = False) -> None:  # noqa: FBT001, FBT002
    """Set an attribute of a reserved or open entry; ``api``: by the SDK's rules.

    A value that can not be one is a fault; what finds no room is counted.
    """
    number = names.ids.get(key)
    if not number:
        if not key:
            dropped(token)
            return
        number = names.key(key)
    limit = recorder.limits[0]
    if not limit:
        dropped(token)
        return
    room = most_bytes(token)
    if number in {at.NAME_NONE, at.NAME_OTHER}:
        room -= 4 + min(4 * len(key), _key_room(token))
    rules = wire.Rules(recorder.longest if api else None, min(room, at.TEXT_BYTES), room, api)
    before = moment(token)
    try:
        found = _encoded(value, rules)  # may run the value's own code, which may do anything
    except wire.TooLongError:
        found = at.TYPE_MESSAGE, 0, bytes(room + 1)
    except Exception:  # noqa: BLE001  and nothing of that is the caller's
        found = None
    if found is None or before != moment(token):
        recorder.fault()
    elif len(found[2]) > room or not _store(token, key, number, found, min(limit, at.INLINE_ATTRIBUTES)):
        dropped(token)
    elif rules.cut:
        lost(token)


def _store(token: Token, key: str, number: int, found: tuple[int, int, bytes], most: int) -> bool:
    """Set an encoded attribute where it has room; False where it has none."""
    kind, item, payload = found
    second_line(token)
    if kind not in {at.TYPE_TEXT, at.TYPE_MESSAGE}:
        inside = number != at.NAME_NONE and not token.words[token.meta] & IN_ARENA
        if inside and _set_inline(token, number, kind, item, most):
            return True
        payload = item.to_bytes(8, "little")
    return _set_in_arena(token, key, number, kind, payload)


def _set_inline(token: Token, number: int, kind: int, item: int, most: int) -> bool:
    """Set an attribute in the slot, at the end of what is there; False where there is no room."""
    words, word = token.words, token.word
    count = words[word + META] >> COUNT & 0xFF
    keys, kinds = words[word + KEYS], words[word + TYPES]
    entries = [
        (keys >> 16 * i & 0xFFFF, kinds >> 8 * i & 0xFF, words[word + VALUES + i])
        for i in range(count)
        if keys >> 16 * i & 0xFFFF != number
    ]
    if len(entries) >= most:
        return False
    entries.append((number, kind, item))
    keys, kinds = 0, kinds & _ERRORS_BITS
    for i, (key, type_, _) in enumerate(entries):
        keys |= key << 16 * i
        kinds |= type_ << 8 * i
    seq = token.seq
    token.seq = seq + 2
    words[word] = seq - 1
    words[word + KEYS] = keys
    words[word + TYPES] = kinds
    for i, (_, _, value) in enumerate(entries):
        words[word + VALUES + i] = value
    words[word + META] = words[word + META] & ~(0xFF << COUNT) | len(entries) << COUNT
    words[word] = seq
    return True


def _key_room(token: Token) -> int:
    """Tell how much of a key may stand in a block."""
    return min(most_bytes(token) // 2, at.NAME_BYTES)


def _set_in_arena(token: Token, key: str, number: int, kind: int, payload: bytes) -> bool:
    """Set an attribute in a block, with the key's text where that has no id; False where it has no room."""
    token.words[token.meta] = token.words[token.meta] | IN_ARENA
    if number in {at.NAME_NONE, at.NAME_OTHER}:
        number = at.NAME_OTHER
        try:
            name = wire.Rules(None, _key_room(token), 0, True).text(key)
        except UnicodeEncodeError:  # lone surrogates
            return False
        payload = len(name).to_bytes(4, "little") + name + payload
    return append(token, at.BLOCK_ATTRIBUTE, payload, number, kind)


def set_first(token: Token, attributes: dict[str, AttributeValue]) -> None:
    """Set the attributes with which a probe's span is made, in an entry that nobody sees yet."""
    if len(attributes) <= at.INLINE_ATTRIBUTES <= recorder.limits[0]:
        words, word = token.words, token.word
        ids = names.ids
        keys = kinds = i = 0
        for key, value in attributes.items():
            kind = type(value)
            number = ids.get(key)
            if not number:
                number = names.key(key)
                if not number:
                    break
            if kind is float:
                _double(token.map, token.place + at.OFF_SLOT_VALUE + 8 * i, value)
                kinds |= at.TYPE_DOUBLE << 8 * i
            elif kind is str:
                item = ids.get(value)  # type: ignore[arg-type]  # a str, as just seen
                if not item:
                    break
                words[word + VALUES + i] = item
                kinds |= at.TYPE_NAME << 8 * i
            elif kind is int and 0 <= value <= wire.INT_MAX:  # type: ignore[operator]  # an int
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
            token.depth = token.counts = 0
            words[word + META] = words[word + META] | EXTRA | i << COUNT
            return
    for key, value in attributes.items():
        set_attribute(token, key, value)


def set_all(token: Token, attributes: object, *, api: bool) -> None:
    """Set attributes of a mapping."""
    try:
        # A list of them first: the code of a value's type may change the mapping.
        for key, value in list(attributes.items()):  # type: ignore[attr-defined]  # tried
            name = wire.key_of(key)
            if name is None:
                dropped(token)
            else:
                set_attribute(token, name, value, api)
    except Exception:  # noqa: BLE001  anyone's mapping, or none
        recorder.fault()


def set_tracestate(token: Token, tracestate: str) -> None:
    """Note the tracestate of an entry that has just been made, in a block where the name table has no room for it."""
    second_line(token)
    number, last = names.tracestate(tracestate), token.word + LAST
    if number != at.NAME_NONE:
        token.words[last] = token.words[last] >> 32 << 32 | number
        return
    try:
        append(token, at.BLOCK_TRACESTATE, tracestate.encode())
    except UnicodeEncodeError:  # lone surrogates
        return


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
    words[word + META] = words[word + META] & ~(0xFF << 24) | FAILED


def raised(token: Token, kind: type[BaseException]) -> None:
    """Set status and flags by the type of what was raised."""
    if issubclass(kind, Exception):
        name = _error_name(kind)
        if token.writer is not None:
            failed(token, name)
    elif any(base.__name__ == "CancelledError" for base in kind.__mro__):
        flag(token, at.FLAG_CANCELLED)  # asyncio's; not an error, but not the end either
