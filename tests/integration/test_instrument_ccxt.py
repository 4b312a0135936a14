"""Spans of ccxt's classes, against an exchange on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest
from exchange_imitation import client, exchange
from websockets.asyncio.server import ServerConnection, serve

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.instrument import redaction
from otel_trading.instrument.ccxt import CcxtInstrumentor

child = ot.probe("test.handle")


@contextmanager
def instrumented(**options: Any) -> Iterator[None]:
    """Instrument the library meanwhile."""
    CcxtInstrumentor().instrument(**options)
    try:
        yield
    finally:
        CcxtInstrumentor().uninstrument()


def by_name(records: list[Any]) -> dict[str, list[Any]]:
    """Sort spans by their name."""
    found: dict[str, list[Any]] = {}
    for record in records:
        found.setdefault(record.name, []).append(record)
    return found


def functions_of(kind: type) -> dict[str, Any]:
    """Give a class's functions by name."""
    return {name: value for name, value in vars(kind).items() if callable(value)}


ORDER = ("BTC/USDT", "limit", "buy", 1, 100)


def call(kind: str, url: str, method: str, *args: Any, **options: Any) -> Any:
    """Call a method of the blocking or the async class."""
    if kind == "sync":
        return getattr(client(ccxt.binance, url, **options), method)(*args)

    async def main() -> Any:
        made = client(ccxt.async_support.binance, url, **options)
        try:
            return await getattr(made, method)(*args)
        finally:
            await made.close()

    return asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("method", ["create_order", "createOrder"])
def test_an_order_has_its_spans(recorder: Any, kind: str, method: str) -> None:
    """The call, the REST request and the wait for the rate limit are one trace, and the order is in it."""
    with exchange() as server, instrumented():
        call(kind, server.url, method, *ORDER, {"newClientOrderId": "my-1"})
    records = by_name(recorder.records())
    (called,), (request,), (wait,) = (records[f"exchange.{name}"] for name in ("create_order", "request", "throttle"))
    assert called.attributes == {
        "trading.venue": "binance",
        "trading.exchange.method": "create_order",
        "trading.symbol": "BTC/USDT",
        "trading.order.side": "buy",
        "trading.order.type": "limit",
        "trading.order.quantity": 1.0,
        "trading.order.price": 100.0,
        "trading.order.id": "my-1",
        "trading.order.venue_id": "28",
        "trading.order.state": "open",
        "trading.order.filled": 0.0,
    }
    assert called.tier == 0
    waited = request.attributes.pop("trading.rate_limit.wait")
    assert 0 <= waited < 20
    assert request.attributes == {
        "trading.venue": "binance",
        "http.request.method": "POST",
        "url.template": "order",
        "trading.exchange.api": "private",
        "server.address": "127.0.0.1",
        "http.response.status_code": 200,
    }
    assert request.parent_id == called.span_id
    assert wait.parent_id == request.span_id
    assert wait.attributes["trading.rate_limit.cost"] > 0
    for name in ("order.submit", "order.ack"):
        (event,) = records[name]
        assert (event.trace_id, event.attributes["trading.order.id"]) == (called.trace_id, "my-1")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_becomes_of_an_order_joins_its_trace(recorder: Any, kind: str) -> None:
    """A later answer that has the order filled, or cancelled, is an event of the trace that sent it."""
    with exchange() as server, instrumented():
        call(kind, server.url, "create_order", *ORDER, {"newClientOrderId": "filled-1"})
        call(kind, server.url, "fetch_order", "28", "BTC/USDT", {"origClientOrderId": "filled-1"})
        call(kind, server.url, "fetch_order", "28", "BTC/USDT", {"origClientOrderId": "filled-1"})
        call(kind, server.url, "create_order", *ORDER, {"newClientOrderId": "gone-1"})
        call(kind, server.url, "cancel_order", "28", "BTC/USDT", {"origClientOrderId": "gone-1"})
    records = by_name(recorder.records())
    traces = {one.attributes["trading.order.id"]: one.trace_id for one in records["order.submit"]}
    (fill,), (cancel,) = records["order.fill"], records["order.cancel"]
    assert fill.trace_id == traces["filled-1"]
    assert fill.attributes["trading.order.fill_price"] == 100.0
    assert cancel.trace_id == traces["gone-1"]
    assert [one.attributes["trading.order.id"] for one in records["order.ack"]] == ["filled-1", "gone-1"]
    assert records["exchange.cancel_order"][0].attributes["trading.order.state"] == "canceled"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_refused_order_is_an_error_without_text(recorder: Any, kind: str) -> None:
    """The exception reaches the program as it is; spans have its class and the status, and it is marked."""
    with exchange() as server, instrumented():
        server.reject = True
        with pytest.raises(ccxt.InvalidOrder, match="insufficient balance") as failed:
            call(kind, server.url, "create_order", *ORDER, {"newClientOrderId": "no-1"})
    assert redaction.is_marked(failed.value)
    records = by_name(recorder.records())
    for name in ("exchange.create_order", "exchange.request"):
        (one,) = records[name]
        assert one.status == 2
        assert one.error.endswith("InvalidOrder")
    assert records["exchange.request"][0].attributes["http.response.status_code"] == 400
    assert records["order.reject"][0].attributes["trading.order.reject_reason"] == "InvalidOrder"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_repetitions_are_counted(recorder: Any, kind: str) -> None:
    """A request that the library repeats is one span, which says how often."""
    with exchange() as server, instrumented():
        server.failures = 2
        options = {"options": {"maxRetriesOnFailure": 2, "maxRetriesOnFailureDelay": 1}}
        call(kind, server.url, "fetch_open_orders", "BTC/USDT", **options)
        assert len(server.asked) == 3
    records = by_name(recorder.records())
    (request,) = records["exchange.request"]
    assert request.attributes["http.request.resend_count"] == 2
    assert request.status == 0
    assert records["exchange.fetch_open_orders"][0].tier == 1


def test_an_order_whose_fate_is_not_known_is_not_rejected(recorder: Any) -> None:
    """After a network error the order may have arrived."""
    with instrumented(), pytest.raises(ccxt.NetworkError):
        call("sync", "http://127.0.0.1:9", "create_order", *ORDER, {"newClientOrderId": "lost-1"})
    records = by_name(recorder.records())
    assert records["order.submit"]
    assert "order.reject" not in records


def test_orders_need_not_be_entered(recorder: Any) -> None:
    """``orders=False`` gives the spans of calls alone."""
    with exchange() as server, instrumented(orders=False):
        call("sync", server.url, "create_order", *ORDER)
    assert not {name for name in by_name(recorder.records()) if name.startswith("order.")}


def test_what_the_class_does_not_declare_is_not_recorded(recorder: Any) -> None:
    """A path or section that is not of the exchange's interface may be anything; so may an address that is fetched."""
    with exchange() as server, instrumented():
        made = client(ccxt.binance, server.url)
        with pytest.raises(ccxt.ExchangeError):
            made.request("userDataStream/s3cr3t", "s3cr3t", "GET")
        with pytest.raises(ccxt.ExchangeError):
            made.fetch(f"{server.url}/x?signature=s3cr3t", "GET")
    requests = by_name(recorder.records())["exchange.request"]
    assert [one.attributes["url.template"] for one in requests] == ["*", "*"]
    assert b"s3cr3t" not in recorder.path.read_bytes()


def test_a_subclass_and_its_parent_give_one_span(recorder: Any) -> None:
    """A program's own class that calls its parent's method is one call, also where the parent is in use too."""

    class Mine(ccxt.binance):  # type: ignore[misc]
        def create_order(self, *args: Any, **kwargs: Any) -> Any:
            return super().create_order(*args, **kwargs)

    with exchange() as server, instrumented():
        client(ccxt.binance, server.url)
        client(Mine, server.url).create_order(*ORDER)
    assert len(by_name(recorder.records())["exchange.create_order"]) == 1


def test_exchanges_made_before_are_instrumented_too(recorder: Any) -> None:
    """An exchange object that was there first has the same spans."""
    with exchange() as server:
        made = client(ccxt.binance, server.url)
        with instrumented():
            made.create_order(*ORDER)
    records = by_name(recorder.records())
    assert records["exchange.create_order"]
    assert records["exchange.request"]


def test_uninstrumenting_restores_everything(recorder: Any) -> None:
    """Classes are as before, under both spellings of their methods, and nothing is recorded."""
    with exchange() as server:
        client(ccxt.binance, server.url)
        owners = [ccxt.binance, *ccxt.binance.__mro__[1:-1]]
        before = [functions_of(owner) for owner in owners]
        with instrumented():
            CcxtInstrumentor().instrument()
            client(ccxt.binance, server.url)
            client(ccxt.async_support.binance, server.url)
            assert vars(ccxt.binance)["create_order"] is not before[0]["create_order"]
        after = [functions_of(owner) for owner in owners]
        differing = [
            name
            for one, other in zip(before, after, strict=True)
            for name in {*one, *other}
            if one.get(name) is not other.get(name)
        ]
        assert differing == []
        client(ccxt.binance, server.url).create_order(*ORDER)
    assert recorder.records() == []


def stream_of(messages: int) -> Callable[[ServerConnection], Any]:
    """Make the handler of a market data stream as Binance's."""

    async def handler(connection: ServerConnection) -> None:
        subscription = json.loads(await connection.recv())
        await connection.send(json.dumps({"result": None, "id": subscription["id"]}))
        for number in range(messages):
            now = int(time.time() * 1e3)
            trade = {
                "e": "trade",
                "E": now,
                "s": "BTCUSDT",
                "t": number,
                "p": "100.0",
                "q": "1.0",
                "T": now,
                "m": True,
                "M": True,
            }
            await connection.send(json.dumps({"stream": "btcusdt@trade", "data": trade}))
            await asyncio.sleep(0.02)
        await connection.wait_closed()

    return handler


def test_watched_data_is_current_until_the_next(recorder: Any) -> None:
    """What ``watch_trades`` gave is a child of its message, and what the task does with it is a child of that."""

    async def main() -> None:
        async with serve(stream_of(3), "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            made = client(ccxt.pro.binance, "http://127.0.0.1:9", newUpdates=True)
            made.urls["api"]["ws"] = dict.fromkeys(made.urls["api"]["ws"], f"ws://127.0.0.1:{port}/stream?k=s3cr3t")
            try:
                for _ in range(2):
                    trades = await made.watch_trades("BTC/USDT")
                    assert trades[-1]["price"] == 100.0
                    with child:
                        pass
            finally:
                await made.close()

    with instrumented():
        asyncio.run(asyncio.wait_for(main(), 30))
    assert core.current() is None
    records = by_name(recorder.records())
    received = {one.span_id: one for one in records["websocket.receive"]}
    watched = records["exchange.watch_trades"]
    assert len(watched) == 2
    for one, handled in zip(watched, records["test.handle"], strict=True):
        assert handled.parent_id == one.span_id
        assert received[one.parent_id].attributes["trading.venue"] == "binance"
        assert one.attributes["trading.symbol"] == "BTC/USDT"
        assert one.attributes["trading.message.count"] >= 1
        assert 0 <= one.attributes["trading.message.age"] < 20
    assert watched[0].trace_id != watched[1].trace_id
    assert b"s3cr3t" not in recorder.path.read_bytes()
