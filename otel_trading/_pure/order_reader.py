"""The order table of any segment, as a reader sees it."""

from __future__ import annotations

import struct

from otel_trading import _layout as at
from otel_trading._pure.orders import hash_of, key_of, places, state_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._native import OrderState
    from otel_trading._pure.segment_file import SegmentFile

_ORDER = struct.Struct(at.FORMAT_ORDER)
_BATCH = 256  # entries fetched at once: 48 KiB
_TRIES = 16


def _settled(file: SegmentFile, offset: int) -> tuple[bytes, OrderState] | None:
    """Copy an entry that may be changing: its key and itself; None where it is free, or can not be right."""
    for _ in range(_TRIES):
        data = file.fetch(offset, at.SIZE_ORDER)
        again = file.fetch_word(offset)
        if data is None:
            return None
        entry = _ORDER.unpack(data)
        if not entry[0]:
            return None
        if entry[0] == again and not entry[0] % 2:
            size, key = entry[15], entry[16]
            sound = (
                size <= at.ORDER_KEY_BYTES
                and at.ORDER_SENT <= entry[13] <= at.ORDER_REJECTED
                and entry[12] <= at.SIDE_SELL
            )
            return (key[:size], state_of(entry, file.name(entry[11]) if entry[11] else "")) if sound else None
    return None


def find(file: SegmentFile, key: str) -> OrderState | None:
    """Give one order."""
    capacity = file.most_orders
    if not capacity:
        return None
    try:
        data = key_of(key)
    except ValueError:  # no order has such a key
        return None
    for place in places(hash_of(data), capacity):
        found = _settled(file, file.orders + place * at.SIZE_ORDER)
        if found is not None and found[0] == data:
            return found[1]
    return None


def every(file: SegmentFile) -> list[tuple[str, OrderState]]:
    """Give all orders, by place."""
    found = []
    for first in range(0, file.most_orders, _BATCH):
        count = min(_BATCH, file.most_orders - first)
        start = file.orders + first * at.SIZE_ORDER
        batch = file.fetch(start, count * at.SIZE_ORDER)
        if batch is None:
            break
        for number in range(count):
            if any(batch[number * at.SIZE_ORDER :][:8]):
                settled = _settled(file, start + number * at.SIZE_ORDER)
                if settled is not None:
                    found.append((settled[0].decode("utf-8", "replace"), settled[1]))
    return found
