"""The market table as any process reads it."""

from __future__ import annotations

import math
import os
import struct
import time
from typing import TYPE_CHECKING

import pytest

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.budget.collectors import Collectors
from otel_trading.budget.markets import Markets
from otel_trading.errors import SegmentError, SegmentNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Recorder


def test_what_is_noted_is_read(recorder: Recorder) -> None:
    """Each symbol's newest update is there, with the sum of its volume."""
    now = time.time_ns()
    core.market("BTC/USDT", now - 5_000_000, 100.0, 2.0)
    core.market("BTC/USDT", now - 3_000_000, 101.0, 3.0)
    core.market("ETH/USDT", 0, math.nan, math.nan)
    markets = Markets(recorder.path)
    bitcoin, ether = markets.read()
    markets.close()
    markets.close()
    assert (bitcoin.symbol, bitcoin.exchange_ns, bitcoin.updates) == ("BTC/USDT", now - 3_000_000, 2)
    assert (bitcoin.price, bitcoin.volume) == (101.0, 5.0)
    assert bitcoin.received_ns >= now - 1_000_000_000
    assert (ether.symbol, ether.exchange_ns) == ("ETH/USDT", 0)
    assert math.isnan(ether.price)


def test_staleness_is_the_age_of_the_exchanges_stamp(recorder: Recorder) -> None:
    """From the stamp, or from the receipt where there is none; more than a second is critical."""
    assert recorder
    core.market("OLD", time.time_ns() - 3_000_000_000, 1.0, 1.0)
    core.market("AHEAD", time.time_ns() + 3_600_000_000_000, 1.0, 1.0)
    core.market("NEW", 0, 1.0, 1.0)
    families = {family.name: family for family in Collectors().families(core.snapshot())}
    ages = {
        point.attributes["trading.symbol"]: point.value for point in families["trading.market_data.staleness"].points
    }
    assert 3.0 <= ages["OLD"] < 60.0  # type: ignore[operator]
    assert ages["AHEAD"] < -3_000.0  # type: ignore[operator]
    assert -1.0 < ages["NEW"] < 60.0  # type: ignore[operator]
    levels = {point.attributes["trading.metric"]: point.value for point in families["trading.metric.level"].points}
    assert levels["trading.market_data.staleness"] == 2


def test_a_damaged_table_is_no_crash(recorder: Recorder, tmp_path: Path) -> None:
    """Counts, ids and offsets that can not be give fewer or nameless symbols, or an error of ours."""
    core.market("BTC/USDT", 1, 1.0, 1.0)
    image = bytearray(recorder.path.read_bytes())
    (table,) = struct.unpack_from("<Q", image, at.OFF_HEADER_MARKETS_OFFSET)
    path = tmp_path / "damaged.seg"

    def read(offset: int, form: str, value: int) -> list[str]:
        changed = bytearray(image)
        struct.pack_into(form, changed, offset, value)
        path.write_bytes(changed)
        os.chmod(path, 0o600)
        markets = Markets(path)
        try:
            return [market.symbol for market in markets.read()]
        finally:
            markets.close()

    assert len(read(at.OFF_HEADER_MARKET_COUNT, "<I", 0xFFFFFFFF)) == at.MARKETS
    assert read(table + at.OFF_MARKET_SYMBOL, "<I", 60_000)[0] == ""
    assert read(at.OFF_HEADER_NAMES_OFFSET, "<Q", 2**40)[0] == ""
    assert read(at.OFF_HEADER_TEXT_BYTES, "<Q", 0)[0] == ""
    assert read(at.OFF_HEADER_TEXT_OFFSET, "<Q", 2**40)[0] == ""
    for place in (3, 2**40):
        with pytest.raises(SegmentError):
            read(at.OFF_HEADER_MARKETS_OFFSET, "<Q", place)


def test_a_file_that_is_not_there() -> None:
    """A segment that is gone is told as such."""
    with pytest.raises(SegmentNotFoundError):
        Markets("/nonexistent/x.seg")
