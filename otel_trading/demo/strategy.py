"""What the bot thinks: candles out of updates, a mean reversion signal out of candles, and the limits of risk."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal

from otel_trading.demo.book import Book

_MEMORY = 0.2  # weight of the newest candle in the moving average
_DEVIATION_MEMORY = 0.1
_THRESHOLD = 0.15  # of the usual deviation, below which nothing is done
_BEYOND = Decimal("0.00007")  # share by which the limit price may be worse than the best one: not as far as the next
_WARM_UP = 2  # candles of a symbol before its first signal

MOST_POSITION_VALUE = 1_500_000.0
"""In units of the quote currency, a symbol and a direction."""

MOST_ORDER_VALUE = 250_000.0
MOST_UNDER_WAY = 64
"""Orders sent and not yet answered."""


@dataclass(slots=True)
class Candle:
    """Open, high, low and close of the middle price over a number of updates."""

    symbol: str
    open: float
    high: float
    low: float
    close: float
    updates: int = 1


class Candles:
    """The candle that is being made, of each symbol."""

    def __init__(self, updates: int) -> None:
        """Begin with none; a candle is over after ``updates`` of its symbol."""
        self._updates = updates
        self._open: dict[str, Candle] = {}

    def add(self, symbol: str, price: float) -> Candle | None:
        """Count an update in; gives the candle when that was its last one."""
        candle = self._open.get(symbol)
        if candle is None:
            self._open[symbol] = Candle(symbol, price, price, price, price)
            return None
        candle.high = max(candle.high, price)
        candle.low = min(candle.low, price)
        candle.close = price
        candle.updates += 1
        if candle.updates < self._updates:
            return None
        del self._open[symbol]
        return candle


@dataclass(frozen=True, slots=True)
class Signal:
    """Buy or sell, and how far the price has strayed, in usual deviations."""

    side: str
    strength: float


class MeanReversion:
    """Sells what is above its moving average, and buys what is below."""

    def __init__(self) -> None:
        """Begin without a memory."""
        self._average: dict[str, float] = {}
        self._deviation: dict[str, float] = {}
        self._seen: dict[str, int] = {}

    def signal(self, candle: Candle) -> Signal | None:
        """Give what to do at the close of ``candle``; None for nothing."""
        symbol, close = candle.symbol, candle.close
        average = self._average.get(symbol, close)
        distance = close - average
        deviation = self._deviation.get(symbol, abs(distance))
        self._average[symbol] = average + _MEMORY * distance
        self._deviation[symbol] = deviation + _DEVIATION_MEMORY * (abs(distance) - deviation)
        self._seen[symbol] = self._seen.get(symbol, 0) + 1
        if self._seen[symbol] <= _WARM_UP or deviation <= 0.0:
            return None
        strength = abs(distance) / deviation
        if strength < _THRESHOLD:
            return None
        return Signal("sell" if distance > 0 else "buy", strength)


@dataclass(slots=True)
class Order:
    """What the bot wants: ``mid`` is the middle price that it decided on."""

    id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    mid: Decimal


def order_of(signal: Signal, book: Book, order_id: str) -> Order | None:
    """Make an order at the best price: for half of what rests there, or more than all of it for a strong signal."""
    mid, best = book.mid(), (book.asks if signal.side == "buy" else book.bids).best()
    if mid is None or best is None:
        return None
    quantity = best[1] * Decimal(str(round(min(signal.strength, 3.0) * 0.5, 3)))
    largest = Decimal(str(MOST_ORDER_VALUE)) / mid
    quantity = _three_digits(min(quantity, largest))
    limit = best[0] * (1 + _BEYOND if signal.side == "buy" else 1 - _BEYOND)
    places = best[0].as_tuple().exponent
    tick = Decimal(1).scaleb(places if isinstance(places, int) else 0)
    limit = limit.quantize(tick, ROUND_FLOOR if signal.side == "buy" else ROUND_CEILING)
    if quantity <= 0 or limit <= 0:
        return None
    return Order(order_id, book.symbol, signal.side, quantity, limit, mid)


def _three_digits(value: Decimal) -> Decimal:
    if value <= 0:
        return Decimal(0)
    return value.quantize(Decimal(1).scaleb(value.adjusted() - 2), ROUND_DOWN)


class Risk:
    """Limits that an order must keep, and the positions that they look at."""

    def __init__(self) -> None:
        """Begin without a position."""
        self.positions: dict[str, Decimal] = {}

    def check(self, order: Order, under_way: int) -> str | None:
        """Give None for an order that may be sent, otherwise the limit that it breaks."""
        if under_way >= MOST_UNDER_WAY:
            return "orders under way"
        if float(order.quantity * order.mid) > MOST_ORDER_VALUE * 1.01:
            return "order value"
        signed = order.quantity if order.side == "buy" else -order.quantity
        position = self.positions.get(order.symbol, Decimal(0))
        if abs(position + signed) > abs(position) and float(abs(position + signed) * order.mid) > MOST_POSITION_VALUE:
            return "position"
        return None

    def filled(self, order: Order, quantity: Decimal) -> None:
        """Count a fill into the position."""
        signed = quantity if order.side == "buy" else -quantity
        self.positions[order.symbol] = self.positions.get(order.symbol, Decimal(0)) + signed


def slippage_bps(order: Order, average: Decimal) -> float:
    """How much worse than the middle that was decided on; below 0 where it was better."""
    difference = float(average - order.mid) / float(order.mid) * 1e4
    return difference if order.side == "buy" else -difference
