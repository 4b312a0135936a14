"""The paper exchange's inside: a book for each symbol, one account, and the matching of orders."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from otel_trading.demo.book import Book
from otel_trading.demo.ticks import BookUpdate, Level, Tick

PRICE_BAND = Decimal("0.05")
"""An order whose limit is further than this share from the middle of the book is refused."""

FEE_RATE = Decimal("0.001")
"""Taken from what the taker receives."""

OPENING_VALUE = Decimal(2_000_000)
"""Each currency of the paper account opens with this many units (of the quote currency, where it is a base)."""

_NOTHING = Decimal(0)


class RejectedError(Exception):
    """The exchange will not take the order; ``label`` is Gate.io's word for the reason."""

    def __init__(self, label: str, message: str) -> None:
        """Keep the reason for the answer."""
        super().__init__(message)
        self.label = label


@dataclass(frozen=True, slots=True)
class Order:
    """A limit order; ``text`` is the client's own id (``t-…``), ``time_in_force`` ``ioc`` or ``fok``."""

    text: str
    symbol: str
    side: str
    amount: Decimal
    price: Decimal
    time_in_force: str


@dataclass(frozen=True, slots=True)
class Execution:
    """What became of an order: its fills, what was ``left`` of it, and the fee in ``fee_currency``."""

    id: int
    order: Order
    fills: tuple[Level, ...]
    left: Decimal
    fee: Decimal
    fee_currency: str

    @property
    def filled(self) -> Decimal:
        """How much was filled."""
        return self.order.amount - self.left

    @property
    def filled_total(self) -> Decimal:
        """What was paid or received, in the quote currency, before the fee."""
        return sum((price * size for price, size in self.fills), _NOTHING)

    @property
    def average(self) -> Decimal:
        """The average fill price; 0 where nothing was filled."""
        return self.filled_total / self.filled if self.filled else _NOTHING


def currencies(symbol: str) -> tuple[str, str]:
    """Base and quote of ``BASE_QUOTE`` (a future's ``BASE_QUOTE_DATE`` is settled in the quote here)."""
    base, quote = symbol.split("_")[:2]
    return base, quote


class Market:
    """Books and account.  Not for several threads."""

    def __init__(self, symbols: list[str]) -> None:
        """Make empty books for ``symbols``; orders for others are refused."""
        self.books = {symbol: Book(symbol) for symbol in symbols}
        self.balances: dict[str, Decimal] = {}
        self.opened: dict[str, Decimal] = {}
        self._next_id = 1

    def apply(self, tick: Tick) -> None:
        """Bring the book of the tick's symbol up to date."""
        self.books[tick.symbol].apply(tick)

    def snapshot(self, symbol: str, time_ms: int, depth: int = 50) -> BookUpdate:
        """Give the best ``depth`` levels of each side."""
        book = self.books[symbol]
        return BookUpdate(symbol, time_ms, tuple(book.bids.top(depth)), tuple(book.asks.top(depth)), snapshot=True)

    def place(self, order: Order) -> Execution:
        """Match ``order`` against the book; raises :class:`RejectedError` without a trace left in book or account."""
        book = self.books.get(order.symbol)
        if book is None:
            raise RejectedError("INVALID_CURRENCY_PAIR", f"unknown currency pair {order.symbol}")
        self._check(order, book)
        side = book.asks if order.side == "buy" else book.bids
        if order.time_in_force == "fok" and side.available(order.price) < order.amount:
            raise RejectedError("FOK_NOT_FILL", "not enough in the book to fill the whole order")
        self._check_balance(order)
        fills = tuple(side.take(order.amount, order.price))
        if fills:
            book.last = fills[-1][0]
        left = order.amount - sum((size for _, size in fills), _NOTHING)
        fee, currency = self._settle(order, fills)
        execution = Execution(self._next_id, order, fills, left, fee, currency)
        self._next_id += 1
        return execution

    @staticmethod
    def _check(order: Order, book: Book) -> None:
        if order.side not in ("buy", "sell"):
            raise RejectedError("INVALID_PARAM_VALUE", f"side is neither buy nor sell: {order.side}")
        if order.time_in_force not in ("ioc", "fok"):
            raise RejectedError("INVALID_PARAM_VALUE", "this paper exchange takes time_in_force ioc and fok")
        if order.amount <= 0 or order.price <= 0:
            raise RejectedError("INVALID_PARAM_VALUE", "amount and price must be above 0")
        mid = book.mid()
        if mid is None:
            raise RejectedError("NO_MARKET_PRICE", f"{order.symbol} has no price yet")
        if abs(order.price - mid) > PRICE_BAND * mid:
            raise RejectedError("PRICE_TOO_DEVIATED", f"the price is more than {PRICE_BAND:.0%} from the market")

    def balance(self, currency: str, price: Decimal | None = None) -> Decimal:
        """Give what the account has; opens it at its first use (a base currency is opened by value, at ``price``)."""
        if currency not in self.balances:
            opening = OPENING_VALUE if price is None else OPENING_VALUE / price
            self.balances[currency] = self.opened[currency] = opening
        return self.balances[currency]

    def _check_balance(self, order: Order) -> None:
        base, quote = currencies(order.symbol)
        has_quote, has_base = self.balance(quote), self.balance(base, order.price)
        if order.side == "buy" and order.amount * order.price > has_quote:
            raise RejectedError("BALANCE_NOT_ENOUGH", f"not enough {quote}")
        if order.side == "sell" and order.amount > has_base:
            raise RejectedError("BALANCE_NOT_ENOUGH", f"not enough {base}")

    def _settle(self, order: Order, fills: tuple[Level, ...]) -> tuple[Decimal, str]:
        base, quote = currencies(order.symbol)
        amount = sum((size for _, size in fills), _NOTHING)
        total = sum((price * size for price, size in fills), _NOTHING)
        if order.side == "buy":
            fee = amount * FEE_RATE
            self.balances[quote] -= total
            self.balances[base] += amount - fee
            return fee, base
        fee = total * FEE_RATE
        self.balances[base] -= amount
        self.balances[quote] += total - fee
        return fee, quote
