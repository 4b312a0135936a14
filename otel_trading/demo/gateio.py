"""Gate.io's websocket protocol, version 4 (spot), from the exchange's side: JSON texts in Gate.io's shapes.

Two things are the paper exchange's own.  Spans travel as W3C trace context: a client puts it into an order's
``req_header``, and the answer's header carries it back.  And since there is no REST interface to fetch a book from,
the first ``spot.order_book_update`` after a subscription is the whole book, marked ``"full": true``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal

from otel_trading.demo.market import Execution, Order, RejectedError
from otel_trading.demo.ticks import BookUpdate, Level, MalformedError, Quote, Trade, plain, price, size

CHANNELS = ("spot.tickers", "spot.trades", "spot.order_book_update", "spot.candlesticks")
"""The market data channels that can be subscribed to."""

INVALID_BODY, INVALID_ARGUMENT = 1, 2
_PAIR_POSITION = {"spot.order_book_update": 0, "spot.candlesticks": 1}  # the others take a list of pairs
_PLACES = Decimal("1e-10")


def dumps(message: Mapping[str, object]) -> str:
    """Write JSON as exchanges do, without spaces."""
    return json.dumps(message, separators=(",", ":"))


def _envelope(channel: str, event: str, now_ns: int) -> dict[str, object]:
    return {"time": now_ns // 10**9, "time_ms": now_ns // 10**6, "channel": channel, "event": event}


# ---- subscriptions --------------------------------------------------------------------------------


def subscribed_pairs(channel: str, payload: object) -> list[str]:
    """Read the currency pairs out of a subscription's payload; raises :class:`MalformedError`."""
    if channel not in CHANNELS:
        message = f"unknown channel {channel}"
        raise MalformedError(message)
    if not isinstance(payload, list) or not payload or not all(isinstance(item, str) for item in payload):
        message = f"the payload of {channel} is a list of texts"
        raise MalformedError(message)
    position = _PAIR_POSITION.get(channel)
    if position is None:
        return payload
    if len(payload) != 2:  # noqa: PLR2004  a pair and an interval
        message = f"the payload of {channel} is a currency pair and an interval"
        raise MalformedError(message)
    return [payload[position]]


def subscription(channel: str, event: str, pairs: list[str]) -> str:
    """Ask for (``subscribe``) or give back (``unsubscribe``) pairs of a channel that takes a list of them."""
    return dumps({"time": int(time.time()), "channel": channel, "event": event, "payload": pairs})


def subscription_of_one(channel: str, event: str, pair: str) -> str:
    """Ask for one pair of a channel that takes a pair and an interval."""
    payload = [pair, "100ms"] if channel == "spot.order_book_update" else ["1s", pair]
    return dumps({"time": int(time.time()), "channel": channel, "event": event, "payload": payload})


def reply(request: Mapping[str, object], error: tuple[int, str] | None = None) -> str:
    """Answer a subscription: success, or an error's code and text."""
    answer = _envelope(str(request.get("channel", "")), str(request.get("event", "")), time.time_ns())
    if "id" in request:
        answer["id"] = request["id"]
    answer["error"] = None if error is None else {"code": error[0], "message": error[1]}
    answer["result"] = {"status": "success"} if error is None else None
    return dumps(answer)


def pong() -> str:
    """Answer ``spot.ping``."""
    return dumps({**_envelope("spot.pong", "", time.time_ns()), "error": None, "result": None})


# ---- updates --------------------------------------------------------------------------------------


def trade(tick: Trade, number: int, now_ns: int) -> str:
    """``spot.trades``; ``number`` is the trade's id."""
    result = {
        "id": number,
        "create_time": now_ns // 10**9,
        "create_time_ms": f"{now_ns // 10**6}.{now_ns // 100 % 10**4:04d}",
        "side": tick.side,
        "currency_pair": tick.symbol,
        "amount": plain(tick.size),
        "price": plain(tick.price),
    }
    return dumps({**_envelope("spot.trades", "update", now_ns), "result": result})


def _or_empty(value: Decimal | None) -> str:
    return "" if value is None else plain(value)


def ticker(tick: Quote, last: Decimal | None, now_ns: int) -> str:
    """``spot.tickers``; what a paper market does not have (the day's figures) is 0."""
    result = {
        "currency_pair": tick.symbol,
        "last": _or_empty(tick.last if tick.last is not None else last),
        "lowest_ask": _or_empty(tick.ask),
        "highest_bid": _or_empty(tick.bid),
        "change_percentage": "0",
        "base_volume": "0",
        "quote_volume": "0",
        "high_24h": "0",
        "low_24h": "0",
    }
    return dumps({**_envelope("spot.tickers", "update", now_ns), "result": result})


def _levels(levels: Iterable[Level]) -> list[list[str]]:
    return [[plain(price), plain(size)] for price, size in levels]


def book(tick: BookUpdate, number: int, now_ns: int) -> str:
    """``spot.order_book_update``; ``number`` is the id of this update, one for each pair."""
    result: dict[str, object] = {
        "t": now_ns // 10**6,
        "e": "depthUpdate",
        "E": now_ns // 10**9,
        "s": tick.symbol,
        "U": number,
        "u": number,
        "b": _levels(tick.bids),
        "a": _levels(tick.asks),
    }
    if tick.snapshot:
        result["full"] = True
    return dumps({**_envelope("spot.order_book_update", "update", now_ns), "result": result})


def candle(symbol: str, second: int, bar: tuple[Decimal, Decimal, Decimal, Decimal, Decimal], now_ns: int) -> str:
    """``spot.candlesticks`` of one second; ``bar`` is open, high, low, close and volume in the base currency."""
    opened, high, low, close, volume = (plain(value) for value in bar)
    result = {"t": str(second), "v": volume, "c": close, "h": high, "l": low, "o": opened, "n": f"1s_{symbol}"}
    return dumps({**_envelope("spot.candlesticks", "update", now_ns), "result": result})


# ---- orders ---------------------------------------------------------------------------------------


def read_order(param: object) -> Order:
    """Read ``req_param`` of ``spot.order_place``; raises :class:`RejectedError` for what is no order."""
    if not isinstance(param, dict):
        raise RejectedError("INVALID_REQUEST_BODY", "req_param is not an object")
    text = param.get("text", "")
    if not isinstance(text, str) or not text.startswith("t-") or len(text) > 30:  # noqa: PLR2004  Gate.io's limit
        raise RejectedError("INVALID_PARAM_VALUE", "text starts with t- and has at most 30 characters")
    if param.get("type", "limit") != "limit":
        raise RejectedError("INVALID_PARAM_VALUE", "this paper exchange takes limit orders")
    try:
        amount, limit = size(param.get("amount"), "amount"), price(param.get("price"), "price")
    except MalformedError as error:
        raise RejectedError("INVALID_PARAM_VALUE", str(error)) from None
    names = [param.get(name, "") for name in ("currency_pair", "side", "time_in_force")]
    symbol, side, force = (name if isinstance(name, str) else "" for name in names)
    return Order(text, symbol, side, amount, limit, force)


def place(request_id: str, param: Mapping[str, str], carrier: Mapping[str, str]) -> str:
    """Ask for an order to be placed, within the trace of ``carrier``."""
    payload = {"req_id": request_id, "req_header": dict(carrier), "req_param": dict(param)}
    return dumps({"time": int(time.time()), "channel": "spot.order_place", "event": "api", "payload": payload})


def _answer(request_id: str, status: str, received_ns: int, carrier: Mapping[str, str]) -> dict[str, object]:
    now_ns = time.time_ns()
    header = {
        "response_time": str(now_ns // 10**6),
        "status": status,
        "channel": "spot.order_place",
        "event": "api",
        "client_id": "paper",
        "x_in_time": received_ns // 1000,
        "x_out_time": now_ns // 1000,
        **carrier,
    }
    return {"request_id": request_id, "header": header}


def order_ack(request_id: str, payload: Mapping[str, object], received_ns: int) -> str:
    """Say that the request has come; Gate.io says it before the order is matched."""
    return dumps({**_answer(request_id, "200", received_ns, {}), "ack": True, "data": {"result": dict(payload)}})


def order_result(request_id: str, execution: Execution, received_ns: int, carrier: Mapping[str, str]) -> str:
    """Say what became of the order."""
    order, now = execution.order, time.time_ns()
    finish_as = "filled" if not execution.left else ("ioc" if order.time_in_force == "ioc" else "cancelled")
    result = {
        "id": str(execution.id),
        "text": order.text,
        "create_time": str(received_ns // 10**9),
        "update_time": str(now // 10**9),
        "create_time_ms": received_ns // 10**6,
        "update_time_ms": now // 10**6,
        "status": "closed" if not execution.left else "cancelled",
        "currency_pair": order.symbol,
        "type": "limit",
        "account": "spot",
        "side": order.side,
        "amount": plain(order.amount),
        "price": plain(order.price),
        "time_in_force": order.time_in_force,
        "left": plain(execution.left),
        "avg_deal_price": plain(execution.average.quantize(_PLACES) if execution.fills else execution.average),
        "filled_total": plain(execution.filled_total),
        "fee": plain(execution.fee),
        "fee_currency": execution.fee_currency,
        "finish_as": finish_as,
    }
    return dumps({**_answer(request_id, "200", received_ns, carrier), "data": {"result": result}})


def order_error(request_id: str, error: RejectedError, received_ns: int, carrier: Mapping[str, str]) -> str:
    """Say that the order was refused, and why."""
    errors = {"label": error.label, "message": str(error)}
    return dumps({**_answer(request_id, "400", received_ns, carrier), "data": {"errs": errors}})
