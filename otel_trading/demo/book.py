"""An order book of price levels: what market data keep up to date, and what orders are matched against."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from decimal import Decimal

from otel_trading.demo.ticks import BookUpdate, Level, Quote, Tick, Trade

DEEPEST = 1000
"""Levels kept a side; the worst are dropped beyond it."""

ASSUMED_VALUE = Decimal(1000)
"""In units of the quote currency: how much is taken to rest at a best price that came without a size."""

_TWO = Decimal(2)


class Side:
    """One side of the book: prices in ascending order, and the size at each."""

    __slots__ = ("_ascending", "prices", "sizes")

    def __init__(self, *, best_is_lowest: bool) -> None:
        """Make an empty side; asks are best at the lowest price, bids at the highest."""
        self._ascending = best_is_lowest
        self.prices: list[Decimal] = []
        self.sizes: dict[Decimal, Decimal] = {}

    def set(self, price: Decimal, size: Decimal) -> None:
        """Put ``size`` at ``price``; 0 takes the level away.  O(log n) and a move of the list's tail."""
        if not size:
            if self.sizes.pop(price, None) is not None:
                del self.prices[bisect_left(self.prices, price)]
            return
        if price not in self.sizes:
            insort(self.prices, price)
        self.sizes[price] = size
        if len(self.prices) > DEEPEST:
            del self.sizes[self.prices.pop(-1 if self._ascending else 0)]

    def best(self) -> Level | None:
        """Give the best price and its size, or None for an empty side."""
        if not self.prices:
            return None
        price = self.prices[0 if self._ascending else -1]
        return price, self.sizes[price]

    def drop_through(self, price: Decimal, *, including: bool) -> None:
        """Take away every level that is better than ``price`` (or as good, where ``including``)."""
        while self.prices:
            best = self.prices[0 if self._ascending else -1]
            better = best < price if self._ascending else best > price
            if not better and not (including and best == price):
                return
            self.set(best, Decimal(0))

    def top(self, depth: int) -> list[Level]:
        """Give up to ``depth`` levels, best first."""
        prices = self.prices[:depth] if self._ascending else self.prices[: -depth - 1 : -1]
        return [(price, self.sizes[price]) for price in prices]

    def take(self, amount: Decimal, limit: Decimal) -> list[Level]:
        """Remove up to ``amount`` at ``limit`` or better; give what was filled, level by level."""
        fills: list[Level] = []
        while amount > 0 and (best := self.best()) is not None:
            price, size = best
            if (price > limit) if self._ascending else (price < limit):
                break
            filled = min(amount, size)
            fills.append((price, filled))
            self.set(price, size - filled)
            amount -= filled
        return fills

    def available(self, limit: Decimal) -> Decimal:
        """Sum of the sizes at ``limit`` or better."""
        found = (size for price, size in self.sizes.items() if (price <= limit if self._ascending else price >= limit))
        return sum(found, Decimal(0))


class Book:
    """Both sides of one symbol, and its last price."""

    __slots__ = ("asks", "bids", "last", "symbol")

    def __init__(self, symbol: str) -> None:
        """Make the empty book of ``symbol``."""
        self.symbol = symbol
        self.bids = Side(best_is_lowest=False)
        self.asks = Side(best_is_lowest=True)
        self.last: Decimal | None = None

    def mid(self) -> Decimal | None:
        """Halfway between the best bid and ask; the last price where a side is empty; None where nothing is known."""
        bid, ask = self.bids.best(), self.asks.best()
        if bid is None or ask is None:
            return self.last
        return (bid[0] + ask[0]) / _TWO

    def apply(self, tick: Tick) -> None:
        """Bring the book up to date.

        Recordings begin in the middle of a session, so levels that were never taken away may lie across the other
        side.  The newer information wins: what it crosses is dropped.
        """
        if isinstance(tick, Trade):
            self.last = tick.price
        elif isinstance(tick, Quote):
            self._quote(tick)
        else:
            self._update(tick)

    def _update(self, update: BookUpdate) -> None:
        if update.snapshot:
            self.bids = Side(best_is_lowest=False)
            self.asks = Side(best_is_lowest=True)
        self._levels(self.bids, self.asks, update.bids)
        self._levels(self.asks, self.bids, update.asks)

    @staticmethod
    def _levels(side: Side, other: Side, levels: Iterable[Level]) -> None:
        for price, size in levels:
            side.set(price, size)
        best = side.best()
        if levels and best is not None:
            other.drop_through(best[0], including=True)

    def _quote(self, quote: Quote) -> None:
        if quote.last is not None:
            self.last = quote.last
        for side, other, price, size in (
            (self.bids, self.asks, quote.bid, quote.bid_size),
            (self.asks, self.bids, quote.ask, quote.ask_size),
        ):
            if price is None:
                continue
            side.drop_through(price, including=False)
            other.drop_through(price, including=True)
            if size:
                side.set(price, size)
            elif price not in side.sizes:
                side.set(price, ASSUMED_VALUE / price)
