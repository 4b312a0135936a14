"""What market data tells of the market: volatility, volume, and the mode that they ask for."""

from __future__ import annotations

import itertools
import math
import random
import time
from typing import TYPE_CHECKING

import pytest
from governed import CALM, Governed

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.budget.markets import Markets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

YEAR = 31_536_000.0  # seconds


@pytest.fixture
def governed(recorder: Recorder) -> Iterator[Governed]:
    """Give a recorder whose ticks are the test's, and without a word for the market's condition."""
    governed = Governed(recorder.path)
    yield governed
    core.market_condition(math.nan, math.nan)
    governed.close()


def computed_volatility(prices: list[float]) -> float:
    """Compute a year's volatility of prices that are a second apart: weights fall off by a minute, the newest most."""
    pairs = itertools.pairwise(prices)
    squares = [math.log(after / before) ** 2 for before, after in pairs]
    weights = [math.exp(-age / 60.0) for age in range(len(squares))]
    weighted = sum(weight * square for weight, square in zip(weights, reversed(squares), strict=True))
    return math.sqrt(weighted / sum(weights) * YEAR)


def computed_volume(volumes: list[float]) -> float:
    """Compute the volume of the last ten seconds in what was usual before; weights fall off by ten minutes."""
    recent, before = volumes[-10:], volumes[:-10]
    weights = [math.exp(-age / 600.0) for age in range(len(before))]
    usual = sum(weight * volume for weight, volume in zip(weights, reversed(before), strict=True)) / sum(weights)
    return sum(recent) / 10 / usual


def walk(steps: int, seed: int, change: float) -> list[float]:
    """Give the prices of a random walk."""
    dice = random.Random(seed)
    prices = [100.0]
    for _ in range(steps):
        prices.append(prices[-1] * math.exp(dice.gauss(0.0, change)))
    return prices


def play(governed: Governed, symbol: str, prices: list[float], volumes: list[float]) -> None:
    """Have one update a second, and a tick after it; the first ones are what the others are compared with."""
    for price, volume in zip(prices, volumes, strict=True):
        core.market(symbol, 0, price, volume)
        governed.tick(1.0)


@pytest.mark.parametrize("change", [1e-6, 1e-4, 1e-3])
def test_volatility_is_that_of_the_path(governed: Governed, change: float) -> None:
    """A year's, of the last minute's returns, as a plain computation has it."""
    prices = walk(90, 7, change)
    play(governed, "BTC/USDT", prices, [1.0] * len(prices))
    assert governed.tick().volatility == pytest.approx(computed_volatility(prices), rel=1e-9)


def test_volatility_waits_for_ten_seconds(governed: Governed) -> None:
    """Before ten seconds of returns none is told, nor is a volume before thirty samples."""
    prices, volumes = walk(31, 3, 1e-3), [1.0] * 21 + [5.0] * 11
    seen = []
    for price, volume in zip(prices, volumes, strict=True):
        core.market("BTC/USDT", 0, price, volume)
        reading = governed.tick(1.0)
        seen.append((reading.volatility, reading.volume))
    assert all(volatility == 0.0 for volatility, _ in seen[:10])
    assert seen[10][0] == pytest.approx(computed_volatility(prices[:11]), rel=1e-9)
    assert all(volume == 1.0 for _, volume in seen[:30])
    assert seen[31][1] == pytest.approx(computed_volume(volumes[1:]), rel=1e-9)


def test_a_pause_is_one_return_of_its_length(governed: Governed) -> None:
    """Where no tick looked for some seconds, the change counts as that of all of them."""
    step = 1.001
    for number in range(40):
        core.market("BTC/USDT", 0, 100.0 * step**number, 1.0)
        governed.tick(4.0)
    # each return is log(step) over four seconds
    assert governed.tick().volatility == pytest.approx(math.log(step) * math.sqrt(YEAR / 4.0), rel=1e-9)


def test_volume_is_compared_with_what_is_usual(governed: Governed) -> None:
    """Ten seconds against ten minutes before them, by the symbol's own volume."""
    dice = random.Random(11)
    volumes = [dice.uniform(0.5, 2.0) for _ in range(120)] + [10.0] * 5
    play(governed, "BTC/USDT", [100.0] * len(volumes), volumes)
    reading = governed.tick()
    assert reading.volatility == 0.0
    assert reading.volume == pytest.approx(computed_volume(volumes[1:]), rel=1e-9)


def test_several_updates_a_second(governed: Governed) -> None:
    """The last price of a second counts, and the sum of its volumes."""
    prices, dice = walk(60, 5, 1e-4), random.Random(2)
    volumes = [4.0] * 51 + [12.0] * 10
    governed.tick()
    for price, volume in zip(prices, volumes, strict=True):
        for _ in range(3):
            core.market("BTC/USDT", 0, price * dice.uniform(0.5, 1.5), volume / 4)
            governed.tick(0.25)
        core.market("BTC/USDT", 0, price, volume / 4)
        governed.tick(0.25)
    reading = governed.tick()
    assert reading.volatility == pytest.approx(computed_volatility(prices), rel=1e-6)
    assert reading.volume == pytest.approx(computed_volume(volumes[1:]), rel=1e-6)


def test_the_wildest_symbol_is_told(governed: Governed) -> None:
    """Of several symbols the one with the highest volatility, with its own volume."""
    wild, calm = walk(60, 1, 1e-4), walk(60, 2, 1e-6)
    volumes = [1.0] * 51 + [1.5] * 10
    for first, second, volume in zip(wild, calm, volumes, strict=True):
        core.market("CALM", 0, second, 1.0)
        core.market("WILD", 0, first, volume)
        governed.tick(1.0)
    reading = governed.tick()
    assert reading.volatility == pytest.approx(computed_volatility(wild), rel=1e-9)
    assert reading.volume == pytest.approx(computed_volume(volumes[1:]), rel=1e-9)


def test_a_symbol_that_asks_for_a_mode_goes_before_a_wilder_one(governed: Governed) -> None:
    """A symbol above both limits is told, though another, whose volume is usual, moves more."""
    wild, busy = walk(60, 1, 1e-2), walk(60, 2, 1e-3)
    volumes = [1.0] * 51 + [9.0] * 10
    for first, second, volume in zip(wild, busy, volumes, strict=True):
        core.market("WILD", 0, first, 1.0)
        core.market("BUSY", 0, second, volume)
        governed.tick(1.0)
    reading = governed.tick()
    assert reading.volatility == pytest.approx(computed_volatility(busy), rel=1e-9)
    assert core.mode() == at.MODE_HIGH_VOLATILITY


def test_high_volatility_is_entered_and_left(governed: Governed) -> None:
    """Above both limits at once; left, one dwell after the market has calmed down, with the figures that led to it."""
    prices = walk(60, 9, 1e-3)
    play(governed, "BTC/USDT", prices, [1.0] * 61)
    assert core.mode() == at.MODE_NORMAL  # volatile, but no more volume than usual
    for price in walk(10, 10, 1e-3):
        core.market("BTC/USDT", 0, price, 8.0)
        governed.tick(1.0)
    assert core.mode() == at.MODE_HIGH_VOLATILITY
    assert governed.readings.read().rates == (1.0, 1.0, 1.0, 1.0)
    (entered,) = governed.decisions(at.DECISION_MODE)
    assert (entered.reason, entered.before, entered.after) == (at.REASON_MARKET, 0, at.MODE_HIGH_VOLATILITY)
    assert entered.figure > entered.limit == 0.8
    for _ in range(400):  # nothing moves any more, and nothing is traded
        governed.tick(1.0)
        if core.mode() == at.MODE_NORMAL:
            break
    left = governed.decisions(at.DECISION_MODE)[-1]
    assert (left.reason, left.before, left.after) == (at.REASON_RECOVERED, at.MODE_HIGH_VOLATILITY, 0)
    assert left.unix_ns >= entered.unix_ns


def test_either_alone_is_not_enough(governed: Governed) -> None:
    """Volatility without volume, volume without volatility: NORMAL."""
    for volatility, volume in ((5.0, 2.0), (5.0, 1.0), (0.8, 9.0), (0.1, 9.0)):
        core.market_condition(volatility, volume)
        assert governed.run(1.0).mode == at.MODE_NORMAL
    assert governed.decisions() == []


def test_the_programs_word_goes_before_the_data(governed: Governed) -> None:
    """What market_condition says holds until it says NaN twice; then the data counts again."""
    prices = walk(60, 4, 1e-6)
    play(governed, "BTC/USDT", prices, [1.0] * 61)
    core.market_condition(0.9, 2.5)
    reading = governed.tick()
    assert (reading.volatility, reading.volume, reading.mode) == (0.9, 2.5, at.MODE_HIGH_VOLATILITY)
    core.market_condition(math.nan, math.nan)
    assert governed.tick().volatility == pytest.approx(computed_volatility(prices), rel=1e-9)
    assert governed.run(2.2).mode == at.MODE_NORMAL


def test_a_condition_that_can_not_be_told(governed: Governed) -> None:
    """One number alone is no condition: a decision says so once, the mode stays, another says when it works again."""
    core.market_condition(0.9, 2.5)
    governed.tick()
    core.market_condition(math.nan, 2.5)
    reading = governed.run(5.0)
    assert (reading.mode, reading.failed) == (at.MODE_HIGH_VOLATILITY, True)
    (failed,) = governed.decisions(at.DECISION_FAILED)
    assert failed.reason == at.REASON_MARKET
    core.market_condition(0.1, 1.0)
    assert not governed.tick().failed
    (works,) = governed.decisions(at.DECISION_WORKS)
    assert works.reason == at.REASON_MARKET
    assert governed.run(2.5).mode == at.MODE_NORMAL


def test_market_modes_give_way_to_pressure(governed: Governed) -> None:
    """STRESSED and EMERGENCY win over a moving market, and lead back to it."""
    core.market_condition(0.9, 2.5)
    assert governed.tick().mode == at.MODE_HIGH_VOLATILITY
    assert governed.tick(cpu_load=0.75).mode == at.MODE_STRESSED
    assert governed.run(2.2).mode == at.MODE_HIGH_VOLATILITY


def test_what_an_update_says_is_in_the_table(recorder: Recorder) -> None:
    """The exchange's stamp, when it was received, how many there were, the price and the sum of volumes."""
    before = time.time_ns()
    core.market("BTC/USDT", before - 7_000_000, 100.0, 2.0)
    core.market("BTC/USDT", before - 5_000_000, math.nan, 3.0)
    core.market("BTC/USDT", before - 3_000_000, 99.5, math.nan)
    core.market("ETH/USDT", 0, math.nan, math.nan)
    markets = Markets(recorder.path)
    first, second = markets.read()
    markets.close()
    assert first[:2] == ("BTC/USDT", before - 3_000_000)
    assert before - 1_000_000_000 <= first.received_ns <= time.time_ns() + 1_000_000_000
    assert first[3:] == (3, 99.5, 5.0)
    assert second[:2] == ("ETH/USDT", 0)
    assert math.isnan(second.price)
    assert (second.updates, second.volume) == (1, 0.0)


def test_values_that_can_not_be(recorder: Recorder) -> None:
    """Infinite prices, volumes below 0 and stamps before 1970 are faults each, and left out; the update counts."""
    core.market("BTC/USDT", 5, 100.0, 2.0)
    core.market("BTC/USDT", -1, math.inf, -1.0)
    core.market("BTC/USDT", 2**70, -math.inf, math.inf)
    core.market("ETH/USDT", 0, 1.0, 1.5e308)
    core.market("ETH/USDT", 0, 1e-320, 1.5e308)  # whose sum is too much
    markets = Markets(recorder.path)
    bitcoin, ether = markets.read()
    markets.close()
    assert (ether.updates, ether.price, ether.volume) == (2, 1e-320, 1.5e308)
    assert (bitcoin.exchange_ns, bitcoin.updates, bitcoin.price, bitcoin.volume) == (0, 3, 100.0, 2.0)
    recorder.faults_expected = 7
    for arguments in ((b"BTC", 0, 1.0, 1.0), ("BTC", "0", 1.0, 1.0), ("BTC", 0, "1", 1.0), ("BTC", 0, 1.0, None)):
        with pytest.raises(TypeError):
            core.market(*arguments)  # type: ignore[arg-type]


def test_a_full_table(governed: Governed, recorder: Recorder) -> None:
    """Past its 256 symbols each update of another one is a fault; those that are in it go on."""
    for number in range(at.MARKETS):
        core.market(f"S{number}", 0, 1.0, 1.0)
    core.market("LATE", 0, 1.0, 1.0)
    core.market("LATE", 0, 1.0, 1.0)
    core.market("S0", 0, 2.0, 1.0)
    recorder.faults_expected = 2
    markets = Markets(recorder.path)
    table = markets.read()
    markets.close()
    assert [market.symbol for market in table] == [f"S{number}" for number in range(at.MARKETS)]
    assert (table[0].updates, table[0].price) == (2, 2.0)
    governed.tick(1.0)


def test_nothing_is_noted_without_a_segment_or_switched_off(make_recorder: Callable[..., Recorder]) -> None:
    """Before a segment is there, and while recording is off, updates cost nothing and leave nothing."""
    core.market("BTC/USDT", 0, 1.0, 1.0)
    recorder = make_recorder()
    governed = Governed(recorder.path)
    governed.control.record = False
    core.market("BTC/USDT", 0, 1.0, 1.0)
    governed.control.record = True
    core.market("ETH/USDT", 0, 1.0, 1.0)
    markets = Markets(recorder.path)
    assert [market.symbol for market in markets.read()] == ["ETH/USDT"]
    markets.close()
    governed.close()


def test_a_new_segment_begins_anew(make_recorder: Callable[..., Recorder]) -> None:
    """After a shutdown the next segment's table is empty, and gets what comes then."""
    import otel_trading as ot

    make_recorder()
    core.market("BTC/USDT", 0, 1.0, 1.0)
    ot.shutdown()
    recorder = make_recorder()
    core.market("ETH/USDT", 0, 5.0, 1.0)
    core.market("BTC/USDT", 0, 6.0, 1.0)
    markets = Markets(recorder.path)
    assert [(market.symbol, market.price) for market in markets.read()] == [("ETH/USDT", 5.0), ("BTC/USDT", 6.0)]
    markets.close()


def test_another_clock_begins_anew(governed: Governed) -> None:
    """Where the time goes back, what was known of returns and volumes is forgotten, and nothing fails."""
    play(governed, "BTC/USDT", walk(30, 6, 1e-3), [1.0] * 31)
    assert governed.tick().volatility > 0.0
    governed.now -= 500.0
    reading = governed.tick()
    assert (reading.volatility, reading.volume) == (0.0, 1.0)
    prices = walk(30, 8, 1e-3)
    play(governed, "BTC/USDT", prices, [1.0] * 31)
    assert governed.tick().volatility == pytest.approx(computed_volatility(prices), rel=1e-2)


def test_stand_ins_have_names(governed: Governed) -> None:
    """A reading of another name is a KeyError, and no tick."""
    with pytest.raises(KeyError):
        core.govern({**CALM, "volatilty": 1.0})
    assert governed.readings.read().ticks == 0
