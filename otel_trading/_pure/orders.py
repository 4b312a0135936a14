"""The order table: which trace sent an order, and what became of it, by client order id.

An entry is written between two stores of its sequence number; whoever writes holds the lock.
"""

from __future__ import annotations

import struct
from _thread import RLock

from otel_trading import _layout as at
from otel_trading._pure import vitals
from otel_trading._pure.names import names
from otel_trading._pure.recorder import recorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from otel_trading._native import OrderState
    from otel_trading._pure.mapped import SegmentFile

_ORDER = struct.Struct(at.FORMAT_ORDER)
_BODY = struct.Struct("<QQQQQQddddIBBBB64s")  # all but the sequence number
_DOUBLES = struct.Struct("<4d")
_WORDS = struct.Struct("<4Q")
_WORD = (1 << 64) - 1
_FNV_BASIS, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
ENDED = {at.ORDER_FILLED, at.ORDER_CANCELLED, at.ORDER_REJECTED}
"""States after which an order is no longer open."""
_HASH = at.OFF_ORDER_HASH // 8
_CHANGED = at.OFF_ORDER_CHANGED_NS // 8
_OPEN, _SENT, _REJECTED = (field // 8 for field in (at.OFF_LIFE_OPEN_ORDERS, at.OFF_LIFE_ORDERS, at.OFF_LIFE_REJECTS))


def hash_of(key: bytes) -> int:
    """Give the FNV-1a hash of 64 bits."""
    value = _FNV_BASIS
    for byte in key:
        value = (value ^ byte) * _FNV_PRIME & _WORD
    return value


def places(key_hash: int, capacity: int) -> Iterator[int]:
    """Give the places in which an order may be."""
    return (key_hash + i & capacity - 1 for i in range(min(at.ORDER_PROBES, capacity)))


def key_of(key: str) -> bytes:
    """Give a key as the table has it.  Raises ValueError for what can not be one."""
    if not isinstance(key, str):
        raise TypeError("an order's key is text")
    try:
        data = key.encode()
    except UnicodeEncodeError:  # lone surrogates
        raise ValueError("an order's key is text that UTF-8 can hold") from None
    if len(data) > at.ORDER_KEY_BYTES:
        raise ValueError(f"an order's key has at most {at.ORDER_KEY_BYTES} bytes of UTF-8, this one {len(data)}")
    return data


class _Table:
    """The present segment's."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.writing = False  # below on this thread's stack: a signal's handler came in between

    def forked(self) -> None:
        self.lock = RLock()
        self.writing = False


table = _Table()


def _found(file: SegmentFile, key: bytes) -> int | None:
    """Give the place of an order's entry."""
    key_hash, words = hash_of(key), file.words
    for place in places(key_hash, file.settings.max_orders):
        start = file.orders + place * at.SIZE_ORDER
        word = start // 8
        if words[word] and words[word + _HASH] == key_hash:
            size = file.map[start + at.OFF_ORDER_KEY_BYTES]
            if file.map[start + at.OFF_ORDER_KEY : start + at.OFF_ORDER_KEY + size] == key:
                return place
    return None


def _place_for(file: SegmentFile, key: bytes) -> int:
    """Choose the place of a new order: a free one, else that of the one that matters least."""
    worst, worst_rank = 0, (2, 0)
    for place in places(hash_of(key), file.settings.max_orders):
        start = file.orders + place * at.SIZE_ORDER
        if not file.words[start // 8]:
            return place
        rank = (int(file.map[start + at.OFF_ORDER_STATE] not in ENDED), file.words[start // 8 + _CHANGED])
        if rank < worst_rank:
            worst, worst_rank = place, rank
    if worst_rank[0]:
        file.count(at.OFF_HEADER_ORDERS_EVICTED)
        _count(file, at.ORDER_ACKED, -1)
    return worst


def _count(file: SegmentFile, state: int, opened: int) -> None:
    """Count an order's change, and how many more are open after it; with the table's lock."""
    words, life = file.words, file.life // 8
    words[life + _OPEN] = max(words[life + _OPEN] + opened, 0)
    if state == at.ORDER_SENT:
        words[life + _SENT] = words[life + _SENT] + 1
    elif state == at.ORDER_REJECTED:
        words[life + _REJECTED] = words[life + _REJECTED] + 1


def order_put(
    key: str,
    trace_id: int,
    span_id: int,
    sampled: bool,  # noqa: FBT001  the backend's interface
    state: int,
    sent_ns: int,
    changed_ns: int,
    quantity: float,
    price: float,
    filled: float,
    paid: float,
    symbol: str,
    side: int,
    /,
) -> None:
    """Enter an order, or change it.

    Raises ValueError for a key of more than 64 bytes, or a state or side that there is not.
    """
    data = key_of(key)
    if not at.ORDER_SENT <= state <= at.ORDER_REJECTED or not at.SIDE_NONE <= side <= at.SIDE_SELL:
        raise ValueError("an order's state is 1 to 6, its side 0 to 2")
    if not isinstance(symbol, str):
        raise TypeError("an order's symbol is text")
    recorder.claim()  # in a forked child the first record makes the segment
    file = recorder.file
    if file is None:
        return
    symbol_name = names.name(symbol)
    body = _BODY.pack(
        hash_of(data),
        trace_id >> 64 & _WORD,
        trace_id & _WORD,
        span_id & _WORD,
        sent_ns & _WORD,
        changed_ns & _WORD,
        quantity,
        price,
        filled,
        paid,
        symbol_name,
        side,
        state,
        0 if sampled else at.FLAG_UNSAMPLED,
        len(data),
        data,
    )
    with table.lock:
        if table.writing or recorder.file is not file:
            recorder.fault()
            return
        table.writing = True
        try:
            place = _found(file, data)
            start = file.orders + (_place_for(file, data) if place is None else place) * at.SIZE_ORDER
            word = start // 8
            was_open = place is not None and file.map[start + at.OFF_ORDER_STATE] not in ENDED
            seq = file.words[word] + 2 & ~1 & _WORD
            file.words[word] = seq - 1
            file.map[start + 8 : start + 8 + len(body)] = body
            file.words[word] = seq
            _count(file, state, (state not in ENDED) - was_open)
        finally:
            table.writing = False
    vitals.order_changed(file, state, symbol_name, data, (sent_ns, changed_ns), trace_id)


def state_of(entry: tuple[Any, ...], symbol: str) -> OrderState:
    """Give an unpacked entry as ``_native.pyi`` says."""
    (_, _, high, low, span_id, sent_ns, changed_ns, *_) = entry
    quantity, price, filled, paid = _DOUBLES.unpack(_WORDS.pack(*entry[7:11]))
    side, state, flags = entry[12:15]
    sampled = not flags & at.FLAG_UNSAMPLED
    return high << 64 | low, span_id, sampled, state, sent_ns, changed_ns, quantity, price, filled, paid, symbol, side


def order_get(key: str, /) -> OrderState | None:
    """Give what is known of an order; None of one that is not in the table."""
    data = key_of(key)
    file = recorder.file
    if file is None:
        return None
    with table.lock:
        place = _found(file, data)
        if place is None:
            return None
        entry = _ORDER.unpack_from(file.map, file.orders + place * at.SIZE_ORDER)
    return state_of(entry, names.text(entry[11]))


def orders_open() -> int:
    """Tell how many are neither filled, cancelled nor rejected."""
    file = recorder.file
    if file is None:
        return 0
    return file.words[file.life // 8 + _OPEN]
