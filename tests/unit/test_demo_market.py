"""The paper exchange's books, its matching, its account, and the generated market."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_trading.demo import book as books
from otel_trading.demo import generator
from otel_trading.demo.book import Book, Side
from otel_trading.demo.market import FEE_RATE, OPENING_VALUE, Market, Order, RejectedError
from otel_trading.demo.ticks import BookUpdate, Level, Quote, Trade


def level(price: str, size: str) -> Level:
    """Make a level."""
    return Decimal(price), Decimal(size)


BOOK = BookUpdate(
    "BTC_USDT", 0, (level("99", "1"), level("98", "2")), (level("101", "1"), level("102", "2")), snapshot=True
)


def market() -> Market:
    """Make a market with one book of two levels a side."""
    made = Market(["BTC_USDT"])
    made.apply(BOOK)
    return made


def order(side: str = "buy", amount: str = "1", price: str = "101", **changes: str) -> Order:
    """Make an order."""
    values = {"text": "t-1", "symbol": "BTC_USDT", "time_in_force": "ioc", **changes}
    return Order(side=side, amount=Decimal(amount), price=Decimal(price), **values)


class TestBook:
    """The book that market data keep up to date."""

    def test_it_starts_from_a_snapshot(self) -> None:
        """A snapshot gives both sides and the middle."""
        book = Book("BTC_USDT")
        assert book.mid() is None
        book.apply(BOOK)
        assert (book.bids.best(), book.asks.best(), book.mid()) == (BOOK.bids[0], BOOK.asks[0], Decimal(100))

    def test_size_zero_takes_a_level_away(self) -> None:
        """An update with size 0 removes the level; one for a level that is not there does nothing."""
        book = Book("BTC_USDT")
        book.apply(BOOK)
        book.apply(BookUpdate("BTC_USDT", 0, (level("99", "0"), level("50", "0")), ()))
        assert book.bids.top(5) == [BOOK.bids[1]]

    def test_the_newer_side_wins_where_they_cross(self) -> None:
        """A bid at 101.5 shows that the ask at 101 is gone."""
        book = Book("BTC_USDT")
        book.apply(BOOK)
        book.apply(BookUpdate("BTC_USDT", 0, (level("101.5", "1"),), ()))
        assert book.asks.best() == BOOK.asks[1]

    def test_a_quote_moves_the_best_prices(self) -> None:
        """A ticker's best bid removes better ones; without a size, a value is assumed."""
        book = Book("BTC_USDT")
        book.apply(BOOK)
        book.apply(Quote("BTC_USDT", 0, Decimal("98.6"), Decimal("98.5"), Decimal(100), None, Decimal(7)))
        assert book.bids.best() == (Decimal("98.5"), books.ASSUMED_VALUE / Decimal("98.5"))
        assert book.asks.best() == level("100", "7")
        assert book.last == Decimal("98.6")

    def test_without_a_side_the_last_price_counts(self) -> None:
        """A symbol that only has trades is worth its last one."""
        book = Book("BTC_USDT")
        book.apply(Trade("BTC_USDT", 0, Decimal(42), Decimal(1), "buy"))
        assert book.mid() == 42

    @pytest.mark.parametrize("best_is_lowest", [True, False])
    def test_the_worst_levels_go_first(self, best_is_lowest: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
        """A side keeps a bounded number of levels, the best ones."""
        monkeypatch.setattr(books, "DEEPEST", 3)
        side = Side(best_is_lowest=best_is_lowest)
        for price in (5, 1, 4, 2, 3):
            side.set(Decimal(price), Decimal(1))
        kept = [1, 2, 3] if best_is_lowest else [5, 4, 3]
        assert [int(price) for price, _ in side.top(9)] == kept

    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 30), st.integers(0, 3)), max_size=60))
    def test_it_never_crosses(self, updates: list[tuple[bool, int, int]]) -> None:
        """Whatever updates come, the best bid stays below the best ask, and prices and sizes agree."""
        book = Book("A_B")
        for is_bid, price, size in updates:
            levels = ((Decimal(price), Decimal(size)),)
            book.apply(BookUpdate("A_B", 0, levels if is_bid else (), () if is_bid else levels))
            bid, ask = book.bids.best(), book.asks.best()
            assert bid is None or ask is None or bid[0] < ask[0]
            for side in (book.bids, book.asks):
                assert side.prices == sorted(side.sizes)


class TestMatching:
    """Orders against the book."""

    def test_a_small_order_is_filled_at_the_best_price(self) -> None:
        """Half of the best level is taken, at its price, not at the limit."""
        exchange = market()
        done = exchange.place(order(amount="0.5", price="103"))
        assert (done.fills, done.left, done.average) == ((level("101", "0.5"),), Decimal(0), Decimal(101))
        assert exchange.books["BTC_USDT"].asks.best() == level("101", "0.5")

    def test_a_larger_order_walks_the_book(self) -> None:
        """An order of two takes the first level whole and half of the second, at their average price."""
        done = market().place(order(amount="2", price="102"))
        assert done.fills == (level("101", "1"), level("102", "1"))
        assert done.average == Decimal("101.5")

    def test_the_limit_leaves_a_part_unfilled(self) -> None:
        """What lies beyond the limit price is left."""
        done = market().place(order("sell", amount="5", price="98.5"))
        assert (done.filled, done.left) == (Decimal(1), Decimal(4))

    def test_an_order_that_meets_nothing_is_left_whole(self) -> None:
        """A limit below the best ask buys nothing, which is no error."""
        done = market().place(order(price="100"))
        assert (done.fills, done.left, done.average) == ((), Decimal(1), Decimal(0))

    @pytest.mark.parametrize(
        ("bad", "label"),
        [
            (order(symbol="NO_SUCH"), "INVALID_CURRENCY_PAIR"),
            (order(side="hold"), "INVALID_PARAM_VALUE"),
            (order(time_in_force="gtc"), "INVALID_PARAM_VALUE"),
            (order(amount="0"), "INVALID_PARAM_VALUE"),
            (order(price="106"), "PRICE_TOO_DEVIATED"),
            (order("sell", price="94"), "PRICE_TOO_DEVIATED"),
            (order(amount="100000"), "BALANCE_NOT_ENOUGH"),
            (order("sell", amount="100000", price="99"), "BALANCE_NOT_ENOUGH"),
            (order(amount="4", price="102", time_in_force="fok"), "FOK_NOT_FILL"),
        ],
    )
    def test_a_refused_order_changes_nothing(self, bad: Order, label: str) -> None:
        """Each reason to refuse has Gate.io's label, and leaves book and balances alone."""
        exchange = market()
        with pytest.raises(RejectedError) as caught:
            exchange.place(bad)
        assert caught.value.label == label
        assert exchange.snapshot("BTC_USDT", 0) == BOOK
        assert exchange.balances == exchange.opened

    def test_without_a_price_there_is_no_trade(self) -> None:
        """A symbol that nothing is known of yet refuses orders."""
        with pytest.raises(RejectedError, match="no price yet"):
            Market(["BTC_USDT"]).place(order())

    def test_fill_or_kill_fills_when_it_can(self) -> None:
        """An order that the book can fill whole is filled."""
        assert market().place(order(amount="3", price="102", time_in_force="fok")).left == 0

    @given(st.lists(st.tuples(st.sampled_from(["buy", "sell"]), st.integers(1, 30)), max_size=20))
    def test_money_is_neither_made_nor_lost(self, orders: list[tuple[str, int]]) -> None:
        """Balances change by exactly the fills and the fees."""
        exchange = market()
        base = quote = Decimal(0)
        for side, tenths in orders:
            exchange.apply(BOOK)
            done = exchange.place(order(side, str(Decimal(tenths) / 10), "103" if side == "buy" else "97"))
            if side == "buy":
                base += done.filled - done.fee
                quote -= done.filled_total
                assert done.fee == done.filled * FEE_RATE
            else:
                base -= done.filled
                quote += done.filled_total - done.fee
                assert done.fee == done.filled_total * FEE_RATE
        assert exchange.balances.get("BTC", 0) - exchange.opened.get("BTC", 0) == base
        assert exchange.balance("USDT") - OPENING_VALUE == quote


class TestGenerator:
    """The seeded market."""

    def test_one_seed_gives_one_market(self) -> None:
        """The same seed gives the same ticks, another one others."""
        first, again, other = (list(itertools.islice(generator.ticks(seed), 300)) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    def test_its_books_hold_together(self) -> None:
        """Applied one after the other, the ticks keep both sides of every book full, apart and near the price."""
        exchange = Market(list(generator.START_PRICES))
        kinds = set()
        for tick in itertools.islice(generator.ticks(3), 5000):
            exchange.apply(tick)
            kinds.add(type(tick))
            book = exchange.books[tick.symbol]
            bid, ask, mid = book.bids.best(), book.asks.best(), book.mid()
            assert bid is not None
            assert ask is not None
            assert mid is not None
            assert bid[0] < ask[0]
            assert len(book.bids.prices) >= generator.DEPTH - 1
            assert abs(float(mid) / generator.START_PRICES[tick.symbol][0] - 1) < 0.1
        assert kinds == {Trade, Quote, BookUpdate}
