"""The tables of instruments and market data of any segment, as a reader sees them."""

from __future__ import annotations

import struct
from math import isfinite

from otel_trading import _layout as at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from otel_trading._pure.segment_file import SegmentFile

_INSTRUMENT = struct.Struct("<IIIIBBBB4sQqdQQ")  # as their layouts, numbers as such
_MARKET = struct.Struct("<IIQQQdd2Q")


def instruments(file: SegmentFile) -> list[dict[str, Any]]:
    """Give counters, gauges and histograms, by id; what can not be one is left out."""
    table = file.fetch(file.instruments, file.instrument_count() * at.SIZE_INSTRUMENT) or b""
    rows = []
    for name, unit, _, attributes, kind, tier, _, _, _, updates, whole, value, _, _ in _INSTRUMENT.iter_unpack(table):
        if not at.INSTRUMENT_COUNTER <= kind <= at.INSTRUMENT_HISTOGRAM or tier >= at.TIERS:
            continue
        rows.append(
            {
                "name": file.name(name) if name else "",
                "kind": kind,
                "tier": tier,
                "unit": file.name(unit) if unit else "",
                "attributes": file.name(attributes) if attributes else "",
                "updates": updates,
                "value": _value(kind, updates, whole, value),
            }
        )
    return rows


def _value(kind: int, updates: int, whole: int, value: float) -> float | None:
    if kind == at.INSTRUMENT_COUNTER:
        if not value:
            return whole
        total = whole + value
        return total if isfinite(total) else None
    return value if kind == at.INSTRUMENT_GAUGE and updates and isfinite(value) else None


def markets(file: SegmentFile) -> list[dict[str, Any]]:
    """Give the market data of each symbol."""
    table = file.fetch(file.markets, file.market_count() * at.SIZE_MARKET) or b""
    return [
        {
            "symbol": file.name(symbol) if symbol else "",
            "exchange_ns": exchange_ns,
            "received_ns": received_ns,
            "updates": updates,
            "price": price if isfinite(price) else None,
            "volume": volume if isfinite(volume) else 0.0,
        }
        for symbol, _, exchange_ns, received_ns, updates, price, volume, _, _ in _MARKET.iter_unpack(table)
    ]
