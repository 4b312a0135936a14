"""Messages of Gate.io (spot and futures), Binance (spot and futures) and OKX, turned into ticks.

Each parser takes one decoded JSON message and returns its ticks: none for a message that carries no market data that
the demo uses (answers to subscriptions, candles).  A message of a known kind that lacks its fields raises
:class:`~otel_trading.demo.ticks.MalformedError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TypeAlias

from otel_trading.demo.ticks import BookUpdate, Level, MalformedError, Quote, Tick, Trade, price, size

Message: TypeAlias = Mapping[str, object]
Parser: TypeAlias = Callable[[Message], list[Tick]]

_LATEST_MS = 10**14  # the year 5138; later is a wrong unit
_QUOTES = ("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USD", "BTC", "ETH", "BNB", "EUR", "GBP", "TRY", "BRL", "DAI")
_SYMBOL = re.compile(r"[A-Z0-9]{1,32}(?:_[A-Z0-9]{1,32}){1,3}")


def _mapping(value: object, what: str) -> Message:
    if not isinstance(value, dict):
        message = f"{what} is not an object"
        raise MalformedError(message)
    return value


def _items(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        message = f"{what} is not a list"
        raise MalformedError(message)
    return value


def _field(message: Message, name: str) -> object:
    try:
        return message[name]
    except KeyError:
        reason = f"field {name!r} is missing"
        raise MalformedError(reason) from None


def _symbol(value: object) -> str:
    """``BASE_QUOTE`` from ``BASE_QUOTE``, ``BASE-QUOTE-…`` or ``BASEQUOTE``."""
    if not isinstance(value, str):
        message = "the symbol is not a text"
        raise MalformedError(message)
    symbol = value.upper().replace("-", "_")
    if "_" not in symbol:
        for quote in _QUOTES:
            if symbol.endswith(quote) and len(symbol) > len(quote):
                symbol = f"{symbol.removesuffix(quote)}_{quote}"
                break
    if _SYMBOL.fullmatch(symbol) is None:
        message = f"no currency pair: {value!r}"
        raise MalformedError(message)
    return symbol


def _time_ms(value: object) -> int:
    try:
        result = int(float(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1
    except (ValueError, OverflowError):
        result = -1
    if not 0 <= result < _LATEST_MS:
        message = f"no time in milliseconds: {value!r}"
        raise MalformedError(message)
    return result


def _maybe_price(value: object, what: str) -> Decimal | None:
    """Read a price that a venue leaves empty, or gives as 0, where there is none."""
    return None if value in (None, "") else (size(value, what) or None)


def _maybe_size(value: object, what: str) -> Decimal | None:
    return None if value in (None, "") else size(value, what)


def _levels(values: Iterable[object], what: str) -> tuple[Level, ...]:
    """Levels as ``[price, size, …]`` lists or as ``{"p": price, "s": size}`` objects."""
    levels: list[Level] = []
    for value in values:
        if isinstance(value, list) and len(value) >= 2:  # noqa: PLR2004  price, size; OKX adds two more
            levels.append((price(value[0], f"a price in {what}"), size(value[1], f"a size in {what}")))
        elif isinstance(value, dict):
            at, resting = _field(value, "p"), _field(value, "s")
            levels.append((price(at, f"a price in {what}"), size(resting, f"a size in {what}")))
        else:
            message = f"a level in {what} is neither [price, size] nor {{p, s}}"
            raise MalformedError(message)
    return tuple(levels)


def _side(value: object) -> str:
    if value not in ("buy", "sell"):
        message = f"the side is neither buy nor sell: {value!r}"
        raise MalformedError(message)
    return str(value)


def _gateio_book(result: Message) -> Tick:
    return BookUpdate(
        _symbol(_field(result, "s")),
        _time_ms(_field(result, "t")),
        _levels(_items(_field(result, "b"), "b"), "b"),
        _levels(_items(_field(result, "a"), "a"), "a"),
        snapshot=result.get("full") is True,
    )


def gateio_spot(message: Message) -> list[Tick]:
    """Gate.io v4, spot: ``spot.trades``, ``spot.tickers``, ``spot.order_book_update``."""
    if message.get("event") != "update":
        return []
    channel = message.get("channel")
    if channel == "spot.order_book_update":
        return [_gateio_book(_mapping(_field(message, "result"), "result"))]
    if channel == "spot.trades":
        result = _mapping(_field(message, "result"), "result")
        return [
            Trade(
                _symbol(_field(result, "currency_pair")),
                _time_ms(_field(result, "create_time_ms")),
                price(_field(result, "price"), "price"),
                size(_field(result, "amount"), "amount"),
                _side(_field(result, "side")),
            )
        ]
    if channel == "spot.tickers":
        result = _mapping(_field(message, "result"), "result")
        return [
            Quote(
                _symbol(_field(result, "currency_pair")),
                _time_ms(message.get("time_ms") or _seconds(_field(message, "time"))),
                _maybe_price(_field(result, "last"), "last"),
                _maybe_price(_field(result, "highest_bid"), "highest_bid"),
                _maybe_price(_field(result, "lowest_ask"), "lowest_ask"),
            )
        ]
    return []


def _seconds(value: object) -> int:
    return _time_ms(value) * 1000


def _gateio_futures_trade(value: object) -> Tick:
    trade = _mapping(value, "a trade")
    raw = _field(trade, "size")
    negative = str(raw).startswith("-")
    return Trade(
        _symbol(_field(trade, "contract")),
        _time_ms(trade.get("create_time_ms") or _seconds(_field(trade, "create_time"))),
        price(_field(trade, "price"), "price"),
        size(str(raw).removeprefix("-"), "size"),
        "sell" if negative else "buy",  # the sign is the taker's side
    )


def gateio_futures(message: Message) -> list[Tick]:
    """Gate.io v4, futures: ``futures.trades``, ``futures.book_ticker``, ``futures.order_book_update``."""
    if message.get("event") != "update":
        return []
    channel = message.get("channel")
    if channel == "futures.order_book_update":
        return [_gateio_book(_mapping(_field(message, "result"), "result"))]
    if channel == "futures.trades":
        return [_gateio_futures_trade(value) for value in _items(_field(message, "result"), "result")]
    if channel == "futures.book_ticker":
        return [_best(_mapping(_field(message, "result"), "result"), "t")]
    return []


def _best(quote: Message, *times: str) -> Tick:
    """A best bid and ask with their sizes: ``s``, ``b``, ``B``, ``a``, ``A``; the first time field there is counts."""
    stamp = next((quote[name] for name in times if name in quote), 0)
    return Quote(
        _symbol(_field(quote, "s")),
        _time_ms(stamp),
        None,
        _maybe_price(_field(quote, "b"), "b"),
        _maybe_price(_field(quote, "a"), "a"),
        _maybe_size(_field(quote, "B"), "B"),
        _maybe_size(_field(quote, "A"), "A"),
    )


def binance(message: Message) -> list[Tick]:
    """Binance, spot and futures: ``aggTrade``, ``trade``, ``bookTicker``, ``depthUpdate``; bare or in an envelope."""
    data = _mapping(message["data"], "data") if "stream" in message and "data" in message else message
    kind = data.get("e")
    if kind == "depthUpdate":
        return [
            BookUpdate(
                _symbol(_field(data, "s")),
                _time_ms(_field(data, "E")),
                _levels(_items(_field(data, "b"), "b"), "b"),
                _levels(_items(_field(data, "a"), "a"), "a"),
            )
        ]
    if kind in ("aggTrade", "trade"):
        # "m": the buyer was the maker, so the taker sold.
        return [
            Trade(
                _symbol(_field(data, "s")),
                _time_ms(_field(data, "T")),
                price(_field(data, "p"), "p"),
                size(_field(data, "q"), "q"),
                "sell" if _field(data, "m") is True else "buy",
            )
        ]
    if kind == "bookTicker" or (kind is None and {"u", "s", "b", "B", "a", "A"} <= data.keys()):
        return [_best(data, "E", "T")]
    return []


def okx(message: Message) -> list[Tick]:
    """OKX v5: ``trades``, ``tickers``, ``books`` and its shorter forms."""
    if "event" in message or "data" not in message:
        return []
    channel = _mapping(_field(message, "arg"), "arg").get("channel")
    if channel not in ("trades", "tickers", "books", "books5", "bbo-tbt"):
        return []
    ticks: list[Tick] = []
    for item in _items(message["data"], "data"):
        entry = _mapping(item, "an entry of data")
        if channel == "trades":
            ticks.append(
                Trade(
                    _symbol(_field(entry, "instId")),
                    _time_ms(_field(entry, "ts")),
                    price(_field(entry, "px"), "px"),
                    size(_field(entry, "sz"), "sz"),
                    _side(_field(entry, "side")),
                )
            )
        elif channel == "tickers":
            ticks.append(
                Quote(
                    _symbol(_field(entry, "instId")),
                    _time_ms(_field(entry, "ts")),
                    _maybe_price(_field(entry, "last"), "last"),
                    _maybe_price(_field(entry, "bidPx"), "bidPx"),
                    _maybe_price(_field(entry, "askPx"), "askPx"),
                    _maybe_size(_field(entry, "bidSz"), "bidSz"),
                    _maybe_size(_field(entry, "askSz"), "askSz"),
                )
            )
        else:
            ticks.append(
                BookUpdate(
                    _symbol(_field(_mapping(message["arg"], "arg"), "instId")),
                    _time_ms(_field(entry, "ts")),
                    _levels(_items(_field(entry, "bids"), "bids"), "bids"),
                    _levels(_items(_field(entry, "asks"), "asks"), "asks"),
                    snapshot=message.get("action") != "update",
                )
            )
    return ticks


_HOSTS: tuple[tuple[str, str, Parser], ...] = (
    ("fx-ws.gateio.ws", "Gate.io futures", gateio_futures),
    ("gateio.ws", "Gate.io spot", gateio_spot),
    ("binance.com", "Binance", binance),
    ("okx.com", "OKX", okx),
)
KNOWN = ", ".join(name for _, name, _ in _HOSTS)
"""The venues whose recordings can be read, for messages."""


def for_host(host: str) -> tuple[str, Parser] | None:
    """Name and parser of the venue behind a websocket host; None for a host that nobody here knows."""
    for known, name, parser in _HOSTS:
        if host == known or host.endswith("." + known):
            return name, parser
    return None
