"""The paper exchange: a websocket server that speaks Gate.io v4, serves a market, and matches orders.

The market is a seeded generator, or a recording at its own pace.  Started by the runner; by hand::

    python -m otel_trading.demo.exchange --rate 500 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

import otel_trading as ot
from otel_trading.demo import child, gateio, generator, recording
from otel_trading.demo.cost import Recipe
from otel_trading.demo.market import Execution, Market, RejectedError, currencies
from otel_trading.demo.ticks import BookUpdate, MalformedError, Quote, Tick, Trade

match = ot.probe("exchange.match", tier=ot.P0, kind="server")
matched = ot.counter("exchange.orders", tier=ot.P0, unit="{order}", description="Orders that were matched or refused.")
late = ot.histogram("market_data.late", tier=ot.P2, unit="s", description="How late an update was sent.")


@dataclass(slots=True)
class Client:
    """A connection, and what it wants to hear."""

    connection: ServerConnection
    wants: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class Candle:
    """The second that is being made."""

    second: int
    bar: tuple[Decimal, Decimal, Decimal, Decimal, Decimal]


class Feed:
    """Where the ticks come from, each with the second since the start at which it is due."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Take the source from the command line."""
        self._replay: str | None = arguments.replay
        self._speed: float = arguments.speed
        self._rate: float = arguments.rate
        self._seed: int = arguments.seed
        self.symbols = recording.scan(self._replay).symbols if self._replay else list(generator.START_PRICES)

    def __iter__(self) -> Iterator[tuple[float, Tick]]:
        """Begin at the beginning."""
        if self._replay is None:
            for index, tick in enumerate(generator.ticks(self._seed)):
                yield max(0, index - len(self.symbols) + 1) / self._rate, tick  # the snapshots are due at once
            return
        first: float | None = None
        for recorded in recording.ticks(self._replay):
            first = recorded.at if first is None else first
            yield max(0.0, recorded.at - first) / self._speed, recorded.tick


class Exchange(child.Child):
    """The server."""

    service = "exchange"
    recipes = (Recipe("exchange.match", ("attributes", "extract", "inject"), ("counter",), path=1),)

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Read what is to be served."""
        super().__init__()
        self.feed = Feed(arguments)
        self.market = Market(self.feed.symbols)
        self.clients: dict[ServerConnection, Client] = {}
        self.candles: dict[str, Candle] = {}
        self.numbers = dict.fromkeys(self.feed.symbols, 0)
        self.sent = self.orders = self.fills = self.behind = 0
        self.exhausted = False
        self.wanted = asyncio.Event()
        self.playing: asyncio.Task[None] | None = None
        self.server: Server | None = None

    async def start(self) -> Mapping[str, object]:
        """Listen on a free port."""
        # Without compression, and without keep-alive pings: on loopback both would only add to the latencies shown.
        self.server = await serve(self.talk, "127.0.0.1", 0, compression=None, ping_interval=None, max_queue=None)
        self.playing = self.spawn(self.play())
        port = next(iter(self.server.sockets)).getsockname()[1]
        return {"port": port, "symbols": self.feed.symbols}

    # ---- market data ----

    async def play(self) -> None:
        """Serve the ticks, each at its time; one that is late is sent at once, and none is left out."""
        await self.wanted.wait()
        started = time.monotonic()
        for due, tick in self.feed:
            wait = started + due - time.monotonic()
            # Even a market that is behind its time lets the orders have their turn.
            await asyncio.sleep(max(0.0, wait))
            late.record(max(0.0, time.monotonic() - started - due))
            await self.serve_tick(tick)
        self.exhausted = True

    async def serve_tick(self, tick: Tick) -> None:
        """Bring the book up to date, and tell the subscribers."""
        self.market.apply(tick)
        now_ns = time.time_ns()
        if isinstance(tick, BookUpdate):
            text = gateio.book(tick, self.number(tick.symbol), now_ns)
            await self.publish("spot.order_book_update", tick.symbol, text)
        elif isinstance(tick, Quote):
            last = self.market.books[tick.symbol].last
            await self.publish("spot.tickers", tick.symbol, gateio.ticker(tick, last, now_ns))
        else:
            await self.publish("spot.trades", tick.symbol, gateio.trade(tick, self.number(tick.symbol), now_ns))
            await self.candle(tick, now_ns)

    def number(self, symbol: str) -> int:
        """Give the next id of an update of ``symbol``."""
        self.numbers[symbol] += 1
        return self.numbers[symbol]

    async def candle(self, tick: Trade, now_ns: int) -> None:
        """Put a trade into the candle of its second; a second that is over is told."""
        second, price = now_ns // 10**9, tick.price
        candle = self.candles.get(tick.symbol)
        if candle is None or candle.second != second:
            self.candles[tick.symbol] = Candle(second, (price, price, price, price, tick.size))
            if candle is not None:
                text = gateio.candle(tick.symbol, candle.second, candle.bar, now_ns)
                await self.publish("spot.candlesticks", tick.symbol, text)
            return
        opened, high, low, _, volume = candle.bar
        candle.bar = (opened, max(high, price), min(low, price), price, volume + tick.size)

    async def publish(self, channel: str, symbol: str, text: str) -> None:
        """Send to whoever wants it.  A subscriber that does not read holds the market up: nothing is dropped."""
        for client in list(self.clients.values()):
            if (channel, symbol) in client.wants:
                try:
                    await client.connection.send(text)
                    self.sent += 1
                except ConnectionClosed:
                    self.clients.pop(client.connection, None)

    # ---- requests ----

    async def talk(self, connection: ServerConnection) -> None:
        """Serve one connection until it is closed."""
        client = self.clients[connection] = Client(connection)
        try:
            async for text in connection:
                await self.request(client, text)
        except ConnectionClosed:
            pass
        finally:
            self.clients.pop(connection, None)

    async def request(self, client: Client, text: str | bytes) -> None:
        """Answer one message."""
        received_ns = time.time_ns()
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            await client.connection.send(gateio.reply({}, (gateio.INVALID_BODY, "Invalid request body format")))
        elif message.get("channel") == "spot.ping":
            await client.connection.send(gateio.pong())
        elif message.get("event") in ("subscribe", "unsubscribe"):
            await self.subscription(client, message)
        elif message.get("event") == "api" and message.get("channel") == "spot.order_place":
            await self.order(client.connection, message.get("payload"), received_ns)
        else:
            await client.connection.send(gateio.reply(message, (gateio.INVALID_ARGUMENT, "Invalid argument provided")))

    async def subscription(self, client: Client, message: dict[str, object]) -> None:
        """Begin or end to send a channel's updates."""
        channel = str(message.get("channel"))
        try:
            pairs = gateio.subscribed_pairs(channel, message.get("payload"))
            if unknown := next((pair for pair in pairs if pair not in self.market.books), None):
                raise MalformedError(f"unknown currency pair {unknown}")
        except MalformedError as error:
            await client.connection.send(gateio.reply(message, (gateio.INVALID_ARGUMENT, str(error))))
            return
        await client.connection.send(gateio.reply(message))
        for pair in pairs:
            if message["event"] == "unsubscribe":
                client.wants.discard((channel, pair))
                continue
            client.wants.add((channel, pair))
            book = self.market.snapshot(pair, 0)
            if channel == "spot.order_book_update" and (book.bids or book.asks):
                await client.connection.send(gateio.book(book, self.number(pair), time.time_ns()))
        if client.wants:
            self.wanted.set()

    async def order(self, connection: ServerConnection, payload: object, received_ns: int) -> None:
        """Acknowledge an order, match it, and answer with what became of it; tell the market of its fills."""
        request = payload if isinstance(payload, dict) else {}
        request_id = str(request.get("req_id", ""))
        await connection.send(gateio.order_ack(request_id, request, received_ns))
        self.orders += 1
        execution: Execution | None = None
        header = request.get("req_header")
        carrier: dict[str, str] = {}
        with match.span(ot.extract(header if isinstance(header, dict) else {})) as span:
            matched.add(1)
            ot.inject(carrier)
            try:
                execution = self.market.place(gateio.read_order(request.get("req_param")))
            except RejectedError as error:
                span.set_attribute("reject", error.label)
                answer = gateio.order_error(request_id, error, received_ns, carrier)
            else:
                span.set_attribute("order_id", execution.order.text)
                span.set_attribute("fills", len(execution.fills))
                answer = gateio.order_result(request_id, execution, received_ns, carrier)
        await connection.send(answer)
        if execution is not None and execution.fills:
            await self.tell(execution)

    async def tell(self, execution: Execution) -> None:
        """Publish the trades that an order made, and what is left of the levels that it took."""
        order, now_ns = execution.order, time.time_ns()
        self.fills += len(execution.fills)
        for price, size in execution.fills:
            tick = Trade(order.symbol, 0, price, size, order.side)
            await self.publish("spot.trades", order.symbol, gateio.trade(tick, self.number(order.symbol), now_ns))
        book = self.market.books[order.symbol]
        side = book.asks if order.side == "buy" else book.bids
        levels = tuple((price, side.sizes.get(price, Decimal(0))) for price, _ in execution.fills)
        bids, asks = ((), levels) if order.side == "buy" else (levels, ())
        update = BookUpdate(order.symbol, 0, bids, asks)
        text = gateio.book(update, self.number(order.symbol), now_ns)
        await self.publish("spot.order_book_update", order.symbol, text)

    # ---- the runner ----

    def status(self) -> Mapping[str, object]:
        """Give what was sent, and whether the recording is over."""
        return {"sent": self.sent, "orders": self.orders, "exhausted": self.exhausted}

    async def quiet(self) -> None:
        """Close the market; orders are still answered."""
        if self.playing is not None:
            self.playing.cancel()
            await asyncio.gather(self.playing, return_exceptions=True)

    def result(self) -> Mapping[str, object]:
        """Give what was sent and matched, and how the account stands."""
        used = {name for symbol in self.market.books for name in currencies(symbol)}
        balances = {name: str(amount) for name, amount in self.market.balances.items() if name in used}
        return {"sent": self.sent, "orders": self.orders, "fills": self.fills, "balances": balances}

    async def stop(self) -> None:
        """Close the server and its connections."""
        await self.quiet()
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()


def arguments() -> argparse.ArgumentParser:
    """Give the command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m otel_trading.demo.exchange", description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--replay", metavar="FILE")
    parser.add_argument("--speed", type=float, default=1.0)
    return parser


if __name__ == "__main__":
    child.main(Exchange, arguments())
