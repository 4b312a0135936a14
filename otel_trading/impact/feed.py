"""Market data as a socket delivers it: JSON texts, some at a time every one or two milliseconds.

Needs the standard library alone: the bare program, which imports nothing of otel-trading, loads this file by its path.
"""

from __future__ import annotations

import json
import math
import random
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Tick = Callable[[float, float, bool], float]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "ADAUSDT", "DOTUSDT")
SECONDS_A_YEAR = 365.0 * 86_400.0
CALM = 0.3
"""A year's volatility of the prices where nothing else is asked for."""
SHORTEST, LONGEST = 0.001, 0.002
"""Seconds between two deliveries."""
_TEXTS = 4_096
_LARGEST_ORDER = 1_000.0
_DAY = 86_400.0


class Feed:
    """Updates a second, and how many of them trade; the attributes can be changed while it runs.

    A text trades where its draw is below the share, so more orders are the same ones and others.
    ``rejected``: share of the orders that the exchange would reject.  ``levels``: of the order book that is in each
    text, to make its handling as much work as a machine is to have.
    """

    def __init__(self, rate: int, orders: int, seed: int, *, rejected: float = 0.0, levels: int = 0) -> None:
        """Make the texts, some thousand that come again and again."""
        self.rate = rate
        self.orders = orders
        self.volatility = CALM
        self.volume = 1.0
        self._draw = random.Random(seed)  # noqa: S311  a load, not a secret
        self._at = 0
        self._logs = [0.0] * len(SYMBOLS)
        self._owed = 0.0
        book = [[round(100.0 - 0.01 * level, 2), round(self._draw.uniform(0.1, 5.0), 4)] for level in range(levels)]
        self.texts = [self._text(book, rejected) for _ in range(_TEXTS)]

    def _text(self, book: list[list[float]], rejected: float) -> str:
        draw = self._draw
        quantity = 2.0 * _LARGEST_ORDER if draw.random() < rejected else draw.uniform(0.1, 2.0)
        message: dict[str, Any] = {
            "s": draw.randrange(len(SYMBOLS)),
            "p": 100.0,
            "q": quantity,
            "d": draw.random(),
        }
        if book:
            message["b"] = book
        return json.dumps(message)

    def deliver(self, seconds: float) -> list[str]:
        """Give the texts that came in so many seconds."""
        self._owed += self.rate * seconds
        count = int(self._owed)
        self._owed -= count
        begin, self._at = self._at, (self._at + count) % _TEXTS
        if begin + count <= _TEXTS:
            return self.texts[begin : begin + count]
        found: list[str] = []
        while count > 0:
            found += self.texts[begin : begin + count]
            count -= _TEXTS - begin
            begin = 0
        return found

    def prices(self, seconds: float) -> list[float]:
        """Move each symbol's price on by so many seconds; factors to what the texts say."""
        step = self.volatility * math.sqrt(seconds / SECONDS_A_YEAR)
        for symbol, level in enumerate(self._logs):
            # Drawn back to where it began within a day or so, for a price that runs for hours.
            self._logs[symbol] = level * (1.0 - seconds / _DAY) + step * self._draw.gauss(0.0, 1.0)
        return [math.exp(level) for level in self._logs]

    def gap(self) -> float:
        """Seconds to the next delivery."""
        return self._draw.uniform(SHORTEST, LONGEST)


def deliver(
    ticks: Sequence[Tick],
    feed: Feed,
    seconds: float,
    late: list[int] | None = None,
    command: Callable[[], bool] | None = None,
) -> tuple[int, int]:
    """Have the feed's updates handled as they come, asleep in between; the numbers of updates and of orders.

    ``late`` gets, for each order, the nanoseconds from when its update was due to the end of its handling.
    ``command`` is called after each delivery, and ends it all where it gives True.
    """
    now, sleep, loads = time.perf_counter, time.sleep, json.loads
    updates = orders = 0
    begin = due = now()
    while due - begin < seconds:
        gap = feed.gap()
        due += gap
        wait = due - now()
        if wait > 0.0:
            sleep(wait)
        levels = feed.prices(gap)
        share, volume = feed.orders / feed.rate, feed.volume
        texts = feed.deliver(gap)
        for text in texts:
            message = loads(text)
            symbol = message["s"]
            trade = message["d"] < share
            ticks[symbol](message["p"] * levels[symbol], message["q"] * volume, trade)
            if trade:
                orders += 1
                if late is not None:
                    late.append(int((now() - due) * 1e9))
        updates += len(texts)
        if command is not None and command():
            break
    return updates, orders


def saturate(ticks: Sequence[Tick], feed: Feed, updates: int) -> float:
    """Have that many updates handled one right after the other; seconds it took."""
    loads, share = json.loads, feed.orders / feed.rate
    texts, levels = feed.texts, [1.0] * len(SYMBOLS)
    begin = time.perf_counter()
    for number in range(updates):
        message = loads(texts[number % _TEXTS])
        symbol = message["s"]
        ticks[symbol](message["p"] * levels[symbol], message["q"], message["d"] < share)
    return time.perf_counter() - begin


def levels_for(microseconds: float) -> int:
    """Find how many levels of an order book make the handling of an update take about so long here."""
    few, many = 10, 210

    def cost(levels: int) -> float:
        text = json.dumps({"b": [[100.0 - 0.01 * level, 1.2345] for level in range(levels)]})
        taken = []
        for _ in range(20):
            begin = time.perf_counter()
            json.loads(text)
            taken.append(time.perf_counter() - begin)
        return min(taken) * 1e6

    each = (cost(many) - cost(few)) / (many - few)
    return max(0, round((microseconds - cost(few)) / max(each, 1e-3))) + few
