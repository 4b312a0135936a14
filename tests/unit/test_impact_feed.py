"""The market data of the impact runs, and what is looked at of a process from outside."""

from __future__ import annotations

import json
import math
import mmap
import os
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_trading.impact import feed, usage


@given(st.lists(st.floats(0.0001, 1.5), max_size=20))
def test_every_update_is_delivered_once(gaps: list[float]) -> None:
    """However the time is cut up, as many updates come as the rate says, in the order of the texts."""
    source = feed.Feed(1_000, 100, 1)
    delivered = [text for gap in gaps for text in source.deliver(gap)]
    assert abs(len(delivered) - 1_000 * sum(gaps)) <= 1.0
    assert delivered == [source.texts[number % len(source.texts)] for number in range(len(delivered))]


def test_both_programs_get_the_same() -> None:
    """A seed makes the same texts and prices, another seed others."""
    one, same, other = (feed.Feed(1_000, 100, seed, rejected=0.1) for seed in (1, 1, 2))
    assert one.texts == same.texts != other.texts
    assert [one.prices(0.01) for _ in range(5)] == [same.prices(0.01) for _ in range(5)]


def test_orders_come_as_often_as_is_asked_and_rejected_ones_among_them() -> None:
    """About a tenth of the texts trade at a tenth, half of them at a half, and so many of them are too large."""
    source = feed.Feed(1_000, 100, 3, rejected=0.1)
    messages = [json.loads(text) for text in source.texts]
    for share in (0.1, 0.5):
        assert sum(message["d"] < share for message in messages) / len(messages) == pytest.approx(share, abs=0.03)
    assert sum(message["q"] > 1_000.0 for message in messages) / len(messages) == pytest.approx(0.1, abs=0.03)
    assert {message["s"] for message in messages} == set(range(len(feed.SYMBOLS)))


@pytest.mark.parametrize("volatility", [0.3, 72.0])
def test_prices_move_as_much_as_is_asked(volatility: float) -> None:
    """The spread of a second's returns is the year's volatility, brought down to a second."""
    source = feed.Feed(1_000, 100, 5)
    source.volatility = volatility
    logs = [[math.log(price) for price in source.prices(1.0)] for _ in range(2_000)]
    returns = [after[0] - before[0] for before, after in pairwise(logs)]
    assert statistics.stdev(returns) == pytest.approx(volatility / feed.SECONDS_A_YEAR**0.5, rel=0.1)


def test_a_delivery_hands_each_update_to_its_symbol() -> None:
    """Handlers get their own symbol's updates, with the latency of the orders, until a command ends it."""
    source = feed.Feed(10_000, 1_000, 7)
    source.volume = 3.0
    seen: list[list[tuple[float, bool]]] = [[] for _ in feed.SYMBOLS]

    def handler(symbol: int) -> feed.Tick:
        def tick(_price: float, quantity: float, trade: bool) -> float:  # noqa: FBT001  the handler's shape
            seen[symbol].append((quantity, trade))
            return 0.0

        return tick

    late: list[int] = []
    updates, orders = feed.deliver(
        [handler(symbol) for symbol in range(len(feed.SYMBOLS))], source, 60.0, late, lambda: sum(map(len, seen)) > 200
    )
    assert updates == sum(map(len, seen)) > 200
    assert orders == len(late) == sum(trade for one in seen for _, trade in one)
    assert min(late) > 0
    first = json.loads(source.texts[0])
    assert seen[first["s"]][0][0] == pytest.approx(3.0 * first["q"])


def test_a_saturated_program_handles_as_many_as_it_was_told() -> None:
    """Updates come one right after the other, however large their order book is."""
    source = feed.Feed(10_000, 1_000, 7, levels=20)
    assert len(json.loads(source.texts[0])["b"]) == 20
    count: list[float] = []

    def tick(price: float, _quantity: float, _trade: bool) -> float:  # noqa: FBT001  the handler's shape
        count.append(price)
        return 0.0

    assert feed.saturate([tick] * len(feed.SYMBOLS), source, 5_000) > 0.0
    assert len(count) == 5_000


def test_more_work_is_a_longer_book() -> None:
    """The book that fills 1 ms has more levels than that which fills 100 µs."""
    assert feed.levels_for(1_000.0) > feed.levels_for(100.0) >= 10


# ---- looking at processes


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_files_of_the_directory_count_in_full_and_once(tmp_path: Path) -> None:
    """A segment that is mapped twice and hardly touched counts with its space, and not in the process's own memory."""
    file = tmp_path / "one.seg"
    size = 8 << 20
    with file.open("wb") as made:
        os.posix_fallocate(made.fileno(), 0, size)
    before = usage.memory(directory=str(tmp_path))
    with file.open("r+b") as opened:
        maps = [mmap.mmap(opened.fileno(), size) for _ in range(2)]
    mine = mmap.mmap(-1, 4 << 20)
    for page in range(0, len(mine), mmap.PAGESIZE):
        maps[0][page] = mine[page] = 1
    after = usage.memory(directory=str(tmp_path))
    elsewhere = usage.memory(directory="/nowhere")
    assert before is not None
    assert after is not None
    assert elsewhere is not None
    assert before.segment == 0
    assert size <= after.segment <= size + 65_536
    assert 3 << 20 < after.own - before.own < 6 << 20
    assert elsewhere.segment == 0
    for one in (*maps, mine):
        one.close()


def test_a_process_that_is_gone_tells_nothing() -> None:
    """Of a process that does not exist there is neither memory nor a count of what it wrote."""
    assert usage.memory(pid=1 << 30) is None
    assert usage.written(1 << 30) is None


def on_a_disk(path: Path) -> bool:
    """Tell whether a file there is written to a block device."""
    device = os.stat(path).st_dev
    return os.major(device) != 0


@pytest.mark.skipif(sys.platform != "linux", reason="writes are counted in /proc")
def test_what_goes_to_a_disk_is_counted(tmp_path: Path) -> None:
    """The kernel's own count grows by what was written and synced, where there is a disk below the directory."""
    if not on_a_disk(tmp_path):
        pytest.skip("the tests' directory is in memory")
    before = usage.written(os.getpid())
    with (tmp_path / "written").open("wb") as opened:
        opened.write(b"x" * (1 << 20))
        opened.flush()
        os.fsync(opened.fileno())
    after = usage.written(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before >= 1 << 20
