"""Market data after normalisation: what a generator or a recording gives, whatever the venue.

Prices and sizes are ``Decimal``, so that the book's levels are found again by equality and balances add up exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

Level: TypeAlias = tuple[Decimal, Decimal]
"""A price and the size resting there; size 0 takes the level away."""

# Wider than any market.  A number such as 1e999999 is finite for Decimal but would fill the memory when it is printed.
_LARGEST = Decimal("1e18")
_SMALLEST = Decimal("1e-18")
_LONGEST = 48


class MalformedError(ValueError):
    """A message of a known kind without the fields that this kind has."""


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade that happened: ``side`` (``buy`` or ``sell``) is the taker's."""

    symbol: str
    time_ms: int
    price: Decimal
    size: Decimal
    side: str


@dataclass(frozen=True, slots=True)
class Quote:
    """A ticker: the best bid and ask, and the last price; each may be missing, sizes too."""

    symbol: str
    time_ms: int
    last: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None


@dataclass(frozen=True, slots=True)
class BookUpdate:
    """Changed levels of the book, best first; a snapshot replaces the whole book."""

    symbol: str
    time_ms: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    snapshot: bool = False


Tick: TypeAlias = Trade | Quote | BookUpdate


def number(value: object, what: str) -> Decimal:
    """Read a price or size given as text, int or float; raise :class:`MalformedError` if it is not a sane one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        message = f"{what} is not a number"
        raise MalformedError(message)
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _LONGEST:
        message = f"{what} is too long for a number"
        raise MalformedError(message)
    try:
        result = Decimal(text)
    except InvalidOperation:
        message = f"{what} is not a number: {text!r}"
        raise MalformedError(message) from None
    if not result.is_finite() or (result and not _SMALLEST <= abs(result) <= _LARGEST):
        message = f"{what} is out of range: {text!r}"
        raise MalformedError(message)
    return result


def price(value: object, what: str) -> Decimal:
    """Read a number that must be above 0."""
    result = number(value, what)
    if result <= 0:
        message = f"{what} is not above 0: {value!r}"
        raise MalformedError(message)
    return result


def size(value: object, what: str) -> Decimal:
    """Read a number that must not be below 0."""
    result = number(value, what)
    if result < 0:
        message = f"{what} is below 0: {value!r}"
        raise MalformedError(message)
    return abs(result)


def plain(value: Decimal) -> str:
    """Write a number without an exponent, as exchanges do."""
    return format(value, "f")
