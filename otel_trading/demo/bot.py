"""The bot: market data, candles, signals, risk, orders.

It decides, and traces its decisions.  It has no tracing call on its way to the exchange and the gateway: the
instrumentor of ``websockets`` records each message that it gets or sends, with what waited behind it, and carries the
trace to the gateway and back; ``ot.order`` records what becomes of an order, in the trace that sent it.

Started by the runner; by hand::

    python -m otel_trading.demo.bot --exchange ws://127.0.0.1:9001 --gateway ws://127.0.0.1:9002 --symbols BTC_USDT
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect

import otel_trading as ot
from otel_trading.demo import child, gateio, strategy, venues
from otel_trading.demo.book import Book
from otel_trading.demo.cost import Recipe

handle = ot.probe("market_data.handle", tier=ot.P2, leaf=True)
process_candle = ot.probe("candle.process", tier=ot.P1, sla="50ms")
generate_signal = ot.probe("signal.generate", tier=ot.P1, sla="10ms")
check_risk = ot.probe("risk.check", tier=ot.P0)
ot.probe("order.ack", tier=ot.P0, sla="100ms")  # which ot.order records: from sending an order to its ack

orders_sent = ot.counter("orders.sent", tier=ot.P0, unit="{order}", description="Orders sent to the gateway.")
orders_rejected = ot.counter("orders.rejected", tier=ot.P0, unit="{order}", description="Orders that were refused.")
slippage = ot.histogram("slippage", tier=ot.P0, unit="bps", description="Fill price against the decision's middle.")


class Bot(child.Child):
    """The client of both servers."""

    service = "bot"
    recipes = (
        Recipe("websocket.receive", ("receive",), path=3),  # the update, the ack and the fill
        Recipe("market_data.handle", ("leaf",), path=1),
        Recipe("candle.process", ("attributes",), path=1),
        Recipe("signal.generate", ("span",), path=1),
        Recipe("risk.check", ("attributes",), path=1),
        Recipe("order.submit", ("order",), ("counter",), path=1),
        Recipe("websocket.send", ("send",), path=1),
        Recipe("order.ack", ("order event",), path=1),
        Recipe("order.fill", ("order event",), ("histogram",), path=1),
        Recipe("order.reject", ("order event",), ("counter",)),
        Recipe("order.cancel", ("order event",)),
    )

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Take the addresses and symbols."""
        exchange, gateway = (urlsplit(url).netloc for url in (arguments.exchange, arguments.gateway))
        super().__init__(instrument={"venues": {exchange: "paper"}, "propagate": {gateway}})
        self.exchange_url: str = arguments.exchange
        self.gateway_url: str = arguments.gateway
        self.books = {symbol: Book(symbol) for symbol in arguments.symbols.split(",")}
        self.candles = strategy.Candles(arguments.candle)
        self.strategy = strategy.MeanReversion()
        self.risk = strategy.Risk()
        self.under_way: dict[str, strategy.Order] = {}
        # Unique from run to run, as an exchange asks of a client's order ids.
        self.numbers = (f"t-{os.getpid()}-{number}" for number in itertools.count(1))
        self.exchange: ClientConnection | None = None
        self.gateway: ClientConnection | None = None
        self.trading = True
        self.handled = 0
        self.handled_before = -1
        self.reasons: Counter[str] = Counter()
        self.counts = dict.fromkeys(("sent", "acked", "filled", "partly", "unfilled", "rejected", "denied"), 0)

    async def start(self) -> Mapping[str, object]:
        """Connect to both, and subscribe to everything."""
        # max_queue=None: all there is, is taken from the socket; to pause it would only hide the backlog in it.
        async with child.connection_to("gateway"):
            self.gateway = await connect(self.gateway_url, compression=None, ping_interval=None, max_queue=None)
        async with child.connection_to("exchange"):
            self.exchange = await connect(self.exchange_url, compression=None, ping_interval=None, max_queue=None)
        self.spawn(self.work(self.exchange))
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

    async def work(self, exchange: ClientConnection) -> None:
        """Handle the messages, one by one."""
        async with child.connection_to("exchange"):
            async for text in exchange:
                candle = self.update(text)
                self.handled += 1
                if candle is not None and self.trading:
                    await self.candle(candle)
                # The next message may be there already, and then nothing else would get its turn.
                await asyncio.sleep(0)

    @handle
    def update(self, text: str | bytes) -> strategy.Candle | None:
        """Bring the book and the candle of the message's symbol up to date."""
        message = json.loads(text)
        ticks = venues.gateio_spot(message)
        if not ticks:
            return None
        book = self.books[ticks[0].symbol]
        book.apply(ticks[0])
        mid = book.mid()
        return None if mid is None else self.candles.add(book.symbol, float(mid))

    # ---- from a candle to an order ----

    async def candle(self, candle: strategy.Candle) -> None:
        """Decide what to do about a candle, and do it: in the trace of the update that closed it."""
        with process_candle.span(symbol=candle.symbol) as span:
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
        message: dict[str, object] = {
            "type": "order",
            "order_id": order.id,
            "symbol": order.symbol,
            "side": order.side,
            "quantity": str(order.quantity),
            "price": str(order.price),
        }
        self.under_way[order.id] = order
        ot.order(order.id, symbol=order.symbol, side=order.side, qty=order.quantity, price=order.price)
        if self.gateway is not None:
            async with child.connection_to("gateway"):
                await self.gateway.send(gateio.dumps(message))
        orders_sent.add(1)
        self.counts["sent"] += 1

    # ---- from an order to its fill ----

    async def answers(self, gateway: ClientConnection) -> None:
        """Take the gateway's answers."""
        handlers = {"ack": self.on_ack, "fill": self.on_fill, "reject": self.on_reject}
        async with child.connection_to("gateway"):
            async for text in gateway:
                answer = json.loads(text)
                order = self.under_way.get(answer["order_id"])
                if order is not None:
                    handlers[answer["type"]](order, answer)

    def on_ack(self, order: strategy.Order, answer: Mapping[str, object]) -> None:
        """The exchange has taken the order; without a fill to follow, it is cancelled with that."""
        ot.order(order.id).ack()
        self.counts["acked"] += 1
        if not answer["filled"]:
            ot.order(order.id).cancel()
            self.counts["unfilled"] += 1
            del self.under_way[order.id]

    def on_fill(self, order: strategy.Order, answer: Mapping[str, object]) -> None:
        """Count a fill, whole or partial, into the position; what is left of a partial one is cancelled."""
        price, left = Decimal(str(answer["avg_deal_price"])), Decimal(str(answer["left"]))
        quantity = Decimal(str(answer["amount"])) - left
        ot.order(order.id).fill(price, quantity)
        if left:
            ot.order(order.id).cancel()
        self.risk.filled(order, quantity)
        slippage.record(strategy.slippage_bps(order, price))
        self.counts["partly" if left else "filled"] += 1
        del self.under_way[order.id]

    def on_reject(self, order: strategy.Order, answer: Mapping[str, object]) -> None:
        """Forget an order that the gateway or the exchange refused."""
        ot.order(order.id).reject(str(answer["reason"]))
        orders_rejected.add(1)
        self.counts["rejected"] += 1
        self.reasons[f"rejected: {answer['reason']}"] += 1
        del self.under_way[order.id]

    # ---- the runner ----

    def status(self) -> Mapping[str, object]:
        """Give the messages and the orders."""
        return {"handled": self.handled, "under_way": len(self.under_way), **self.counts}

    def idle(self) -> bool:
        """Tell whether all orders were answered, and nothing was handled since it was asked before."""
        before, self.handled_before = self.handled_before, self.handled
        return not self.under_way and before == self.handled

    async def quiet(self) -> None:
        """Send no new orders."""
        self.trading = False

    def result(self) -> Mapping[str, object]:
        """Give the messages and the orders."""
        positions = {symbol: str(position) for symbol, position in self.risk.positions.items()}
        return {"positions": positions, "reasons": self.reasons, **self.status()}

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
