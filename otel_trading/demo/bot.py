"""The bot: market data, candles, signals, risk, orders.

One task reads the socket and puts every message into a queue; another takes them out one by one.  So what waits is
in the queue, where it is counted (``queue.depth``, ``queue.wait``), and not out of sight in the socket's buffers.

Started by the runner; by hand::

    python -m otel_trading.demo.bot --exchange ws://127.0.0.1:9001 --gateway ws://127.0.0.1:9002 --symbols BTC_USDT
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from websockets.asyncio.client import ClientConnection, connect

import otel_trading as ot
from otel_trading.demo import child, gateio, strategy, venues
from otel_trading.demo.book import Book
from otel_trading.demo.cost import Recipe

handle = ot.probe("market_data.handle", tier=ot.P2, leaf=True)
process_candle = ot.probe("candle.process", tier=ot.P1, sla="50ms")
generate_signal = ot.probe("signal.generate", tier=ot.P1, sla="10ms")
check_risk = ot.probe("risk.check", tier=ot.P0)
submit_order = ot.probe("order.submit", tier=ot.P0, sla="5ms", kind="client")
order_ack = ot.probe("order.ack", tier=ot.P0)
order_fill = ot.probe("order.fill", tier=ot.P0)
order_reject = ot.probe("order.reject", tier=ot.P0)

orders_sent = ot.counter("orders.sent", tier=ot.P0, unit="{order}", description="Orders sent to the gateway.")
orders_rejected = ot.counter("orders.rejected", tier=ot.P0, unit="{order}", description="Orders that were refused.")
queue_depth = ot.gauge("queue.depth", tier=ot.P1, unit="{message}", description="Messages read and not yet handled.")
queue_wait = ot.histogram("queue.wait", tier=ot.P2, unit="s", description="From reading a message to handling it.")
data_age = ot.histogram("market_data.age", tier=ot.P2, unit="s", description="From the exchange's stamp to handling.")
slippage = ot.histogram("slippage", tier=ot.P0, unit="bps", description="Fill price against the decision's middle.")
round_trip = ot.histogram("order.round_trip", tier=ot.P0, unit="s", description="From sending an order to its answer.")


class Bot(child.Child):
    """The client of both servers."""

    service = "bot"
    recipes = (
        Recipe("market_data.handle", ("leaf",), ("gauge", "gauge", "histogram", "histogram")),
        Recipe("candle.process", ("attributes",), path=True),
        Recipe("signal.generate", ("span",), path=True),
        Recipe("risk.check", ("attributes",), path=True),
        Recipe("order.submit", ("attributes", "inject"), ("counter",), path=True),
        Recipe("order.ack", ("attributes", "extract"), ("histogram",), path=True),
        Recipe("order.fill", ("attributes", "extract"), ("histogram",), path=True),
        Recipe("order.reject", ("attributes", "extract"), ("counter",)),
    )

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Take the addresses and symbols."""
        super().__init__()
        self.exchange_url: str = arguments.exchange
        self.gateway_url: str = arguments.gateway
        self.books = {symbol: Book(symbol) for symbol in arguments.symbols.split(",")}
        self.candles = strategy.Candles(arguments.candle)
        self.strategy = strategy.MeanReversion()
        self.risk = strategy.Risk()
        self.queue: asyncio.Queue[tuple[int, str | bytes]] = asyncio.Queue()
        self.under_way: dict[str, strategy.Order] = {}
        # Unique from run to run, as an exchange asks of a client's order ids.
        self.numbers = (f"t-{os.getpid()}-{number}" for number in itertools.count(1))
        self.exchange: ClientConnection | None = None
        self.gateway: ClientConnection | None = None
        self.trading = True
        self.received = self.handled = self.depth_max = 0
        self.reasons: Counter[str] = Counter()
        self.counts = dict.fromkeys(("sent", "acked", "filled", "partly", "unfilled", "rejected", "denied"), 0)

    async def start(self) -> Mapping[str, object]:
        """Connect to both, and subscribe to everything."""
        # max_queue=None: the reader takes all there is; to pause the socket would only hide the backlog in it.
        async with child.connection_to("gateway"):
            self.gateway = await connect(self.gateway_url, compression=None, ping_interval=None, max_queue=None)
        async with child.connection_to("exchange"):
            self.exchange = await connect(self.exchange_url, compression=None, ping_interval=None, max_queue=None)
        self.spawn(self.read(self.exchange))
        self.spawn(self.work())
        self.spawn(self.answers(self.gateway))
        async with child.connection_to("exchange"):
            await self.subscribe(self.exchange)
        return {}

    async def subscribe(self, exchange: ClientConnection) -> None:
        """Ask for all channels of all symbols."""
        for symbol in self.books:
            for channel in ("spot.order_book_update", "spot.candlesticks"):
                await exchange.send(gateio.subscription_of_one(channel, "subscribe", symbol))
        for channel in ("spot.trades", "spot.tickers"):
            await exchange.send(gateio.subscription(channel, "subscribe", list(self.books)))

    # ---- market data ----

    async def read(self, exchange: ClientConnection) -> None:
        """Put every message into the queue, with the time at which it was read."""
        async with child.connection_to("exchange"):
            async for text in exchange:
                self.queue.put_nowait((time.monotonic_ns(), text))
                depth = self.queue.qsize()
                queue_depth.set(depth)
                self.depth_max = max(self.depth_max, depth)
                self.received += 1

    async def work(self) -> None:
        """Handle the messages, one by one."""
        while True:
            read_ns, text = await self.queue.get()
            queue_depth.set(self.queue.qsize())
            waited_ns = time.monotonic_ns() - read_ns
            queue_wait.record(waited_ns / 1e9)
            candle = self.update(text)
            self.handled += 1
            if candle is not None and self.trading:
                await self.candle(candle, waited_ns)
            # get() does not give way while there is something in the queue, and the reader must not starve.
            await asyncio.sleep(0)

    @handle
    def update(self, text: str | bytes) -> strategy.Candle | None:
        """Bring the book and the candle of the message's symbol up to date."""
        message = json.loads(text)
        ticks = venues.gateio_spot(message)
        if not ticks:
            return None
        data_age.record(max(0.0, time.time() - message["time_ms"] / 1e3))
        book = self.books[ticks[0].symbol]
        book.apply(ticks[0])
        mid = book.mid()
        return None if mid is None else self.candles.add(book.symbol, float(mid))

    # ---- from a candle to an order ----

    async def candle(self, candle: strategy.Candle, waited_ns: int) -> None:
        """Decide what to do about a candle, and do it; the root of an order's trace."""
        with process_candle.span(symbol=candle.symbol, queue_wait_us=waited_ns / 1e3) as span:
            span.set_attribute("queue_depth", self.queue.qsize())
            signal = self.signal(candle)
            order = strategy.order_of(signal, self.books[candle.symbol], next(self.numbers)) if signal else None
            if order is None:
                span.set_attribute("outcome", "hold")
            elif reason := self.check(order):
                span.set_attribute("outcome", "denied")
                span.set_attribute("reason", reason)
                self.counts["denied"] += 1
                self.reasons[f"denied: {reason}"] += 1
            else:
                await self.submit(order)
                span.set_attribute("outcome", "order")
                span.set_attribute("order_id", order.id)

    @generate_signal
    def signal(self, candle: strategy.Candle) -> strategy.Signal | None:
        """Ask the strategy."""
        return self.strategy.signal(candle)

    def check(self, order: strategy.Order) -> str | None:
        """Ask the risk limits; None where the order may be sent."""
        with check_risk.span(order_id=order.id) as span:
            reason = self.risk.check(order, len(self.under_way))
            span.set_attribute("allowed", reason is None)
        return reason

    async def submit(self, order: strategy.Order) -> None:
        """Send an order to the gateway."""
        with submit_order.span(order_id=order.id, side=order.side):
            message: dict[str, object] = {
                "type": "order",
                "order_id": order.id,
                "symbol": order.symbol,
                "side": order.side,
                "quantity": str(order.quantity),
                "price": str(order.price),
            }
            order.sent_ns = time.monotonic_ns()
            self.under_way[order.id] = order
            if self.gateway is not None:
                async with child.connection_to("gateway"):
                    await self.gateway.send(gateio.dumps(ot.inject(message)))
        orders_sent.add(1)
        self.counts["sent"] += 1

    # ---- from an order to its fill ----

    async def answers(self, gateway: ClientConnection) -> None:
        """Take the gateway's answers; each continues the trace that it carries."""
        handlers = {"ack": self.on_ack, "fill": self.on_fill, "reject": self.on_reject}
        async with child.connection_to("gateway"):
            async for text in gateway:
                answer = json.loads(text)
                order = self.under_way.get(answer["order_id"])
                if order is not None:
                    handlers[answer["type"]](order, answer)

    def on_ack(self, order: strategy.Order, answer: Mapping[str, object]) -> None:
        """The exchange has taken the order; without a fill to follow, this is its end."""
        with order_ack.span(ot.extract(answer), order_id=order.id) as span:
            span.set_attribute("filled", answer["filled"] is True)
            round_trip.record((time.monotonic_ns() - order.sent_ns) / 1e9)
            self.counts["acked"] += 1
            if not answer["filled"]:
                self.counts["unfilled"] += 1
                del self.under_way[order.id]

    def on_fill(self, order: strategy.Order, answer: Mapping[str, object]) -> None:
        """Count a fill, whole or partial, into the position."""
        with order_fill.span(ot.extract(answer), order_id=order.id) as span:
            left = Decimal(str(answer["left"]))
            self.risk.filled(order, Decimal(str(answer["amount"])) - left)
            cost = strategy.slippage_bps(order, Decimal(str(answer["avg_deal_price"])))
            span.set_attribute("slippage_bps", cost)
            slippage.record(cost)
            self.counts["partly" if left else "filled"] += 1
            del self.under_way[order.id]

    def on_reject(self, order: strategy.Order, answer: Mapping[str, object]) -> None:
        """Forget an order that the gateway or the exchange refused."""
        with order_reject.span(ot.extract(answer), order_id=order.id, reason=str(answer["reason"])):
            orders_rejected.add(1)
            self.counts["rejected"] += 1
            self.reasons[f"rejected: {answer['reason']}"] += 1
            del self.under_way[order.id]

    # ---- the runner ----

    def status(self) -> Mapping[str, object]:
        """Give the messages, the backlog and the orders."""
        return {
            "received": self.received,
            "handled": self.handled,
            "backlog": self.queue.qsize(),
            "under_way": len(self.under_way),
            **self.counts,
        }

    def idle(self) -> bool:
        """Tell whether all orders were answered (the queue may still be long)."""
        return not self.under_way

    async def quiet(self) -> None:
        """Send no new orders."""
        self.trading = False

    def result(self) -> Mapping[str, object]:
        """Give the messages, the backlog and the orders."""
        positions = {symbol: str(position) for symbol, position in self.risk.positions.items()}
        return {"depth_max": self.depth_max, "positions": positions, "reasons": self.reasons, **self.status()}

    async def stop(self) -> None:
        """Close both connections."""
        for connection in (self.exchange, self.gateway):
            if connection is not None:
                await connection.close()


def arguments() -> argparse.ArgumentParser:
    """Give the command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m otel_trading.demo.bot", description=__doc__)
    parser.add_argument("--exchange", required=True, metavar="URL")
    parser.add_argument("--gateway", required=True, metavar="URL")
    parser.add_argument("--symbols", required=True, metavar="A_B,C_D")
    parser.add_argument("--candle", type=int, default=11, metavar="N", help="updates that make a candle")
    return parser


if __name__ == "__main__":
    child.main(Bot, arguments())
