"""The order gateway: takes orders from the bot, checks them, holds their rate down, and routes them to the exchange.

Started by the runner; by hand::

    python -m otel_trading.demo.gateway --exchange ws://127.0.0.1:9001 --symbols BTC_USDT

An order comes as ``{"type": "order", "order_id", "symbol", "side", "quantity", "price", "traceparent"}``.  The
answer is an ``ack`` (the exchange has taken it) followed by a ``fill`` where something was filled, or a ``reject``
with its reason; each carries a ``traceparent`` of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from decimal import Decimal

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

import otel_trading as ot
from otel_trading.demo import child, gateio
from otel_trading.demo.cost import Recipe
from otel_trading.demo.ticks import MalformedError, price

accept = ot.probe("gateway.accept", tier=ot.P0, kind="server")
route = ot.probe("gateway.route", tier=ot.P0, kind="client")
routed = ot.counter("gateway.routed", tier=ot.P0, unit="{order}", description="Orders sent to the exchange.")
refused = ot.counter("gateway.refused", tier=ot.P0, unit="{order}", description="Orders refused by the gateway.")
under_way = ot.gauge("gateway.under_way", tier=ot.P0, unit="{order}", description="Orders not answered yet.")

EXCHANGE_TIMEOUT = 2.0
"""Seconds until an order without an answer counts as rejected."""

REMEMBERED = 10_000
"""Order ids that are refused when they come again."""


class RefusedError(Exception):
    """The order can not go on; the message is the reason."""


class Bucket:
    """Lets ``rate`` orders a second through, and a burst of as many as half a second gives."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin full; ``clock`` gives seconds."""
        self._rate = rate
        self._clock = clock
        self._most = max(1.0, rate / 2)
        self._tokens = self._most
        self._filled = clock()

    def take(self) -> bool:
        """Take one; False where there is none."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Checker:
    """Checks that an order is one, is new, and is for a symbol that is traded."""

    def __init__(self, symbols: list[str], rate: float) -> None:
        """Take the limits."""
        self._symbols = frozenset(symbols)
        self._bucket = Bucket(rate)
        self._seen: OrderedDict[str, None] = OrderedDict()

    def check(self, order: Mapping[str, object]) -> dict[str, str]:
        """Give the order as the exchange wants it; raises :class:`RefusedError`."""
        order_id, symbol, side = (order.get(name) for name in ("order_id", "symbol", "side"))
        if not isinstance(order_id, str) or not order_id.startswith("t-"):
            raise RefusedError("order_id must be a text that starts with t-")
        if order_id in self._seen:
            raise RefusedError("duplicate order_id")
        if not isinstance(symbol, str) or symbol not in self._symbols:
            raise RefusedError(f"unknown symbol {symbol!r}")
        if side not in ("buy", "sell"):
            raise RefusedError("side must be buy or sell")
        try:
            quantity, limit = str(price(order.get("quantity"), "quantity")), str(price(order.get("price"), "price"))
        except MalformedError as error:
            raise RefusedError(str(error)) from None
        if not self._bucket.take():
            raise RefusedError("rate limit")
        self._seen[order_id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return {
            "text": order_id,
            "currency_pair": symbol,
            "type": "limit",
            "account": "spot",
            "side": str(side),
            "amount": quantity,
            "price": limit,
            "time_in_force": "ioc",
        }


class Gateway(child.Child):
    """The server for the bot, and the client of the exchange."""

    service = "gateway"
    recipes = (
        Recipe("gateway.accept", ("attributes", "extract", "inject"), path=1),
        Recipe("gateway.route", ("span", "inject"), ("counter", "gauge", "gauge"), path=1),
    )

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Take the limits and the exchange's address."""
        super().__init__()
        self.url: str = arguments.exchange
        self.checker = Checker(arguments.symbols.split(","), arguments.rate)
        self.waiting: dict[str, asyncio.Future[Mapping[str, object]]] = {}
        self.handling: set[asyncio.Task[None]] = set()
        self.exchange: ClientConnection | None = None
        self.server: Server | None = None
        self.accepted = self.rejected = 0

    async def start(self) -> Mapping[str, object]:
        """Connect to the exchange, then listen on a free port."""
        async with child.connection_to("exchange"):
            self.exchange = await connect(self.url, compression=None, ping_interval=None, max_queue=None)
        self.spawn(self.listen(self.exchange))
        self.server = await serve(self.talk, "127.0.0.1", 0, compression=None, ping_interval=None, max_queue=None)
        return {"port": next(iter(self.server.sockets)).getsockname()[1]}

    async def listen(self, exchange: ClientConnection) -> None:
        """Hand the exchange's answers to whoever waits for them."""
        async with child.connection_to("exchange"):
            async for text in exchange:
                answer = json.loads(text)
                if answer.get("ack"):
                    continue  # the request has come; what became of the order is what counts
                waiting = self.waiting.get(answer.get("request_id", ""))
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)

    async def talk(self, connection: ServerConnection) -> None:
        """Take orders from one connection; each is handled on its own, so that none waits for another's answer."""
        try:
            async for text in connection:
                task = self.spawn(self.order(connection, _decode(text)))
                self.handling.add(task)
                task.add_done_callback(self.handling.discard)
        except ConnectionClosed:
            pass

    async def order(self, connection: ServerConnection, order: dict[str, object]) -> None:
        """Accept one order, route it, and tell the bot."""
        order_id = str(order.get("order_id"))
        answers: list[dict[str, object]] = []
        with accept.span(ot.extract(order), order_id=order_id) as span:
            routed_it = False
            try:
                param = self.checker.check(order)
                routed_it = True
                answers = _answers(await self.route(param))
            except RefusedError as error:
                span.set_attribute("reject", str(error))
                answers = [{"type": "reject", "reason": str(error)}]
                refused.add(1)
            span.set_attribute("routed", routed_it)
            if answers[0]["type"] == "ack":
                span.set_attribute("filled", _filled(answers))
            for answer in answers:
                answer["order_id"] = order_id
                with contextlib.suppress(ConnectionClosed):  # the bot has gone; the order is counted all the same
                    await connection.send(gateio.dumps(ot.inject(answer)))
        self.accepted += answers[0]["type"] == "ack"
        self.rejected += answers[0]["type"] == "reject"

    @route
    async def route(self, param: dict[str, str]) -> Mapping[str, object]:
        """Send an order to the exchange and wait for its answer; raises :class:`RefusedError` where none comes."""
        if self.exchange is None:
            raise RefusedError("not connected to the exchange")
        request_id = param["text"]
        answer = self.waiting[request_id] = asyncio.get_running_loop().create_future()
        under_way.set(len(self.waiting))
        try:
            await self.exchange.send(gateio.place(request_id, param, ot.inject({})))
            routed.add(1)
            return await asyncio.wait_for(answer, EXCHANGE_TIMEOUT)
        except ConnectionClosed:
            raise RefusedError("the exchange has closed the connection") from None
        except asyncio.TimeoutError:
            raise RefusedError("the exchange has not answered in time") from None
        finally:
            del self.waiting[request_id]
            under_way.set(len(self.waiting))

    def status(self) -> Mapping[str, object]:
        """Give how many orders are under way."""
        return {"under_way": len(self.handling)}

    def idle(self) -> bool:
        """Tell whether every order was answered."""
        return not self.handling

    def result(self) -> Mapping[str, object]:
        """Give how many orders were accepted and rejected."""
        return {"accepted": self.accepted, "rejected": self.rejected}

    async def stop(self) -> None:
        """Close both sides."""
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()
        if self.exchange is not None:
            await self.exchange.close()


def _decode(text: str | bytes) -> dict[str, object]:
    """Read a message; what is no JSON object is an order without any field, which the checks refuse."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _answers(message: Mapping[str, object]) -> list[dict[str, object]]:
    """Turn the exchange's answer into what the bot is told; raises :class:`RefusedError` for a refusal."""
    data = message["data"]
    if not isinstance(data, dict):
        raise RefusedError("the exchange's answer has no data")
    if errors := data.get("errs"):
        raise RefusedError(str(errors["label"]))
    result = data["result"]
    filled = result["left"] != result["amount"]
    answers: list[dict[str, object]] = [{"type": "ack", "exchange_id": result["id"], "filled": filled}]
    if filled:
        fill = {name: result[name] for name in ("avg_deal_price", "amount", "left", "finish_as")}
        answers.append({"type": "fill", **fill})
    return answers


def _filled(answers: list[dict[str, object]]) -> str:
    """Tell how much of an acknowledged order was filled: all, part or none of it."""
    fill = answers[-1]
    return "none" if fill["type"] == "ack" else "all" if Decimal(str(fill["left"])) == 0 else "part"


def arguments() -> argparse.ArgumentParser:
    """Give the command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m otel_trading.demo.gateway", description=__doc__)
    parser.add_argument("--exchange", required=True, metavar="URL")
    parser.add_argument("--symbols", required=True, metavar="A_B,C_D")
    parser.add_argument("--rate", type=float, default=200.0, help="orders a second that are let through")
    return parser


if __name__ == "__main__":
    child.main(Gateway, arguments())
