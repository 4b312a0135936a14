"""A seeded market: prices that walk at random with a volatility that changes, and books around them.

The sequence of ticks depends on the seed and the symbols alone, never on the clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from otel_trading.demo.ticks import BookUpdate, Level, Quote, Tick, Trade

START_PRICES = {"BTC_USDT": (60_000.0, 1), "ETH_USDT": (3_000.0, 2), "SOL_USDT": (150.0, 3)}
"""Price at the start, and decimals of the price, of each symbol."""

DEPTH = 10
_CALM, _BUSY = 2e-5, 8e-5  # relative size of a step
_SWITCH = 1 / 400  # chance that calm and busy change places at a step
_JUMP, _JUMP_SIZE = 1 / 3000, 12e-4
_PULL = 0.004  # towards the start, so that a long demo stays near it
_HALF_SPREAD, _GAP = 0.5e-4, 1e-4
_SIZE_DECIMALS = 4


class Symbol:
    """The walk and the published book of one symbol."""

    def __init__(self, name: str, chance: random.Random) -> None:
        """Start at the symbol's price; ``chance`` is shared with the other symbols."""
        start, self._decimals = START_PRICES[name]
        self.name = name
        self._chance = chance
        self._mid = self._start = start
        self._sigma = _CALM
        self._typical = 30_000.0 / start  # size of a level: some 30,000 of the quote currency
        self._levels: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]] = ({}, {})
        self._last = self._price(start, ROUND_FLOOR)
        self.book()

    def _price(self, value: float, rounding: str) -> Decimal:
        return Decimal(value).quantize(Decimal(1).scaleb(-self._decimals), rounding)

    def _size(self) -> Decimal:
        size = self._typical * math.exp(self._chance.gauss(0.0, 0.6))
        return Decimal(max(size, 10**-_SIZE_DECIMALS)).quantize(Decimal(1).scaleb(-_SIZE_DECIMALS), ROUND_CEILING)

    def step(self) -> None:
        """Move the price once."""
        chance = self._chance
        if chance.random() < _SWITCH:
            self._sigma = _BUSY if self._sigma == _CALM else _CALM
        move = chance.gauss(0.0, self._sigma) + _PULL * 0.01 * math.log(self._start / self._mid)
        if chance.random() < _JUMP:
            move += chance.choice((-_JUMP_SIZE, _JUMP_SIZE))
        self._mid *= math.exp(move)

    def book(self) -> BookUpdate:
        """Move the book to the price; gives the levels that changed, best first."""
        bids = self._ladder(self._levels[0], -1, ROUND_FLOOR)
        asks = self._ladder(self._levels[1], 1, ROUND_CEILING)
        update = BookUpdate(self.name, 0, _changes(self._levels[0], bids), _changes(self._levels[1], asks))
        self._levels = (bids, asks)
        return update

    def _ladder(self, old: dict[Decimal, Decimal], sign: int, rounding: str) -> dict[Decimal, Decimal]:
        ladder: dict[Decimal, Decimal] = {}
        for level in range(DEPTH):
            price = self._price(self._mid * (1 + sign * (_HALF_SPREAD + level * _GAP)), rounding)
            kept = old.get(price)
            ladder[price] = self._size() if kept is None or self._chance.random() < 1 / DEPTH else kept
        return ladder

    def trade(self) -> Trade:
        """Somebody takes the best bid or ask."""
        side = self._chance.choice(("buy", "sell"))
        price, size = next(iter(self._levels[side == "buy"].items()))
        self._last = price
        share = Decimal(self._chance.random()).quantize(Decimal("0.0001"))
        amount = max(size * share, Decimal("0.0001")).quantize(Decimal("0.0001"))
        return Trade(self.name, 0, price, amount, side)

    def quote(self) -> Quote:
        """Give the best bid and ask, and the last price."""
        (bid, bid_size), (ask, ask_size) = (next(iter(levels.items())) for levels in self._levels)
        return Quote(self.name, 0, self._last, bid, ask, bid_size, ask_size)

    def snapshot(self) -> BookUpdate:
        """Give the whole book."""
        bids, asks = (tuple(levels.items()) for levels in self._levels)
        return BookUpdate(self.name, 0, bids, asks, snapshot=True)


def _changes(old: dict[Decimal, Decimal], new: dict[Decimal, Decimal]) -> tuple[Level, ...]:
    gone = tuple((price, Decimal(0)) for price in old if price not in new)
    return gone + tuple((price, size) for price, size in new.items() if old.get(price) != size)


def ticks(seed: int) -> Iterator[Tick]:
    """Give ticks without end: a snapshot of each book, then half trades, 40 % book updates, and tickers."""
    chance = random.Random(seed)  # noqa: S311  a paper market, to be repeated from its seed
    symbols = [Symbol(name, chance) for name in START_PRICES]
    for symbol in symbols:
        yield symbol.snapshot()
    while True:
        symbol = chance.choice(symbols)
        symbol.step()
        kind = chance.random()
        if kind < 0.5:  # noqa: PLR2004  shares of the kinds
            yield symbol.trade()
        elif kind < 0.9:  # noqa: PLR2004
            yield symbol.book()
        else:
            yield symbol.quote()
