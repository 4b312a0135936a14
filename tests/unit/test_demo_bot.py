"""The bot's decisions, and the gateway's checks."""

from __future__ import annotations

from decimal import Decimal

import pytest

from otel_trading.demo import gateway, strategy
from otel_trading.demo.book import Book
from otel_trading.demo.gateway import Bucket, Checker, RefusedError
from otel_trading.demo.strategy import Candle, Candles, MeanReversion, Order, Risk, Signal
from otel_trading.demo.ticks import BookUpdate

ORDER = {"order_id": "t-1", "symbol": "A_B", "side": "buy", "quantity": "1.5", "price": "2"}


def book() -> Book:
    """Make a book with a best ask of 3 at 101."""
    made = Book("A_B")
    bids, asks = ((Decimal(99), Decimal(3)),), ((Decimal("101.0"), Decimal(3)),)
    made.apply(BookUpdate("A_B", 0, bids, asks, snapshot=True))
    return made


def candle(close: float) -> Candle:
    """Make a candle that closes at ``close``."""
    return Candle("A_B", close, close, close, close)


class TestCandles:
    """Candles of a number of updates."""

    def test_a_candle_is_over_after_its_updates(self) -> None:
        """The last of its updates gives the candle, with its open, high, low and close."""
        candles = Candles(5)
        prices = [5.0, 9.0, 1.0] + [4.0] * 2
        found = [candles.add("A_B", price) for price in prices]
        assert found[:-1] == [None] * 4
        assert found[-1] == Candle("A_B", 5.0, 9.0, 1.0, 4.0, 5)

    def test_each_symbol_has_its_own(self) -> None:
        """Updates of two symbols make two candles."""
        candles = Candles(5)
        for _ in range(4):
            assert candles.add("A_B", 1.0) is None
            assert candles.add("C_D", 1.0) is None
        assert candles.add("A_B", 1.0) is not None


class TestSignal:
    """Mean reversion."""

    def test_what_is_high_is_sold_and_what_is_low_bought(self) -> None:
        """After some candles around 100, one at 110 says sell and one at 90 buy."""
        for close, side in ((110.0, "sell"), (90.0, "buy")):
            strategy_ = MeanReversion()
            for before in (100.0, 101.0, 99.0, 100.0):
                strategy_.signal(candle(before))
            signal = strategy_.signal(candle(close))
            assert signal is not None
            assert signal.side == side
            assert signal.strength > 1

    def test_a_still_market_gives_none(self) -> None:
        """Without any deviation there is nothing to do."""
        still = MeanReversion()
        assert [still.signal(candle(100.0)) for _ in range(5)] == [None] * 5


class TestOrder:
    """From a signal to an order."""

    def test_it_is_for_the_best_price(self) -> None:
        """A buy order is for part of the best ask, with a limit on the grid of its prices."""
        made = strategy.order_of(Signal("buy", 1.0), book(), "t-1")
        assert made is not None
        assert (made.quantity, made.price, made.mid) == (Decimal("1.5"), Decimal("101.0"), Decimal(100))

    def test_without_a_book_there_is_none(self) -> None:
        """A symbol with nothing to buy gives no order."""
        assert strategy.order_of(Signal("buy", 1.0), Book("A_B"), "t-1") is None

    def test_slippage_is_positive_where_it_costs(self) -> None:
        """Buying above the middle and selling below it both cost."""
        for side, average in (("buy", 101), ("sell", 99)):
            made = Order("t-1", "A_B", side, Decimal(1), Decimal(100), Decimal(100))
            assert strategy.slippage_bps(made, Decimal(average)) == pytest.approx(100.0)


class TestRisk:
    """The limits."""

    def order(self, quantity: str = "1", mid: int = 100) -> Order:
        """Make a buy order."""
        return Order("t-1", "A_B", "buy", Decimal(quantity), Decimal(mid), Decimal(mid))

    def test_an_order_within_the_limits_passes(self) -> None:
        """A small order is allowed."""
        assert Risk().check(self.order(), 0) is None

    def test_too_many_under_way(self) -> None:
        """Orders without an answer yet are limited."""
        assert Risk().check(self.order(), strategy.MOST_UNDER_WAY) == "orders under way"

    def test_too_large(self) -> None:
        """One order's value is limited."""
        assert Risk().check(self.order("1000000"), 0) == "order value"

    def test_a_position_may_shrink_but_not_grow_beyond_its_limit(self) -> None:
        """At the limit, what adds to the position is denied and what takes from it allowed."""
        risk = Risk()
        held = self.order(str(int(strategy.MOST_POSITION_VALUE / 100)))
        risk.filled(held, held.quantity)
        assert risk.check(self.order(), 0) == "position"
        sell = self.order()
        sell.side = "sell"
        assert risk.check(sell, 0) is None


class TestGateway:
    """The gateway's checks."""

    def checker(self) -> Checker:
        """Make one for a symbol."""
        return Checker(["A_B"], 1000.0)

    def test_a_good_order_is_translated(self) -> None:
        """The exchange gets what Gate.io calls the fields."""
        param = self.checker().check(ORDER)
        assert param["text"] == "t-1"
        assert (param["currency_pair"], param["side"], param["amount"], param["price"]) == ("A_B", "buy", "1.5", "2")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"order_id": 5}, "order_id"),
            ({"order_id": "1"}, "order_id"),
            ({"symbol": "C_D"}, "unknown symbol"),
            ({"symbol": ["A_B"]}, "unknown symbol"),
            ({"side": "hold"}, "side"),
            ({"quantity": "0"}, "quantity is not above 0"),
            ({"price": None}, "price is not a number"),
        ],
    )
    def test_a_bad_order_is_refused(self, change: dict[str, object], reason: str) -> None:
        """What is wrong is named."""
        with pytest.raises(RefusedError, match=reason):
            self.checker().check({**ORDER, **change})

    def test_an_id_is_taken_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same order id again is refused, as long as it is remembered, in bounded memory."""
        monkeypatch.setattr(gateway, "REMEMBERED", 2)
        checker = self.checker()
        checker.check(ORDER)
        with pytest.raises(RefusedError, match="duplicate"):
            checker.check(ORDER)
        for number in (2, 3):
            checker.check({**ORDER, "order_id": f"t-{number}"})
        assert checker.check(ORDER)["text"] == "t-1"

    def test_a_burst_is_held_down(self) -> None:
        """A bucket lets half a second's worth through at once, and then one for each that time refills."""
        now = 100.0
        bucket = Bucket(8.0, lambda: now)
        assert [bucket.take() for _ in range(5)] == [True] * 4 + [False]
        now += 0.25
        assert [bucket.take() for _ in range(3)] == [True, True, False]
