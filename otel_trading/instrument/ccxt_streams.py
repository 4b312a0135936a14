"""The streams of ``ccxt.pro``: its messages, and what ``watch_…`` hands over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry.instrumentation.utils import suppress_http_instrumentation

from otel_trading import semconv
from otel_trading._backend import core
from otel_trading.faults import report
from otel_trading.instrument import ccxt_calls, ccxt_orders, redaction
from otel_trading.instrument.message_age import NEWEST, OLDEST
from otel_trading.instrument.streams import OFFERED, Installed, Stream, link, release
from otel_trading.probes import P2, probe

if TYPE_CHECKING:
    from otel_trading._backend import Probe

NAMES = (
    "watch_ticker",
    "watch_tickers",
    "watch_bids_asks",
    "watch_trades",
    "watch_trades_for_symbols",
    "watch_order_book",
    "watch_order_book_for_symbols",
    "watch_ohlcv",
    "watch_ohlcv_for_symbols",
    "watch_my_trades",
    "watch_orders",
    "watch_balance",
    "watch_positions",
    "watch_mark_price",
    "watch_funding_rate",
    "watch_liquidations",
)
"""The methods that are instrumented."""

_STREAM = "_otel_trading_stream"
_RECEIVED = "_otel_trading_received"

_watching: ContextVar[int] = ContextVar("otel_trading.instrument.watching", default=0)


def handling(installed: Installed) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a span around the handling of a message of ``ccxt.pro``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def handle_message(self: Any, message: Any) -> Any:
            span = None
            data = getattr(message, "data", None)
            if installed.options is not None and isinstance(data, (str, bytes)):
                try:
                    stream = _stream_of(installed, self)
                    span = stream.arrive(data, isinstance(data, str), True)[0]
                    # When it was read off the socket is not known here, but how many wait behind it is.
                    stream.hand_over((span, 0, True), data, max(0, len(self.buffer or ()) - 1), finish=False)
                    exchange = getattr(self.on_message_callback, "__self__", None)
                    if exchange is not None:
                        setattr(exchange, _RECEIVED, span)
                except Exception as error:  # noqa: BLE001  telemetry is no reason to lose a message
                    report("ccxt.message", f"a message has no span: {type(error).__name__}")
            try:
                return original(self, message)
            finally:
                if span is not None:
                    span.finish()

        return handle_message

    return make


def opening(installed: Installed) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Keep the instrumentors of HTTP libraries from recording the address of a stream, which may have a listen key."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def open_(self: Any, *args: Any, **kwargs: Any) -> Any:
            if installed.options is None:
                return await original(self, *args, **kwargs)
            with suppress_http_instrumentation():
                return await original(self, *args, **kwargs)

        return open_

    return make


def _stream_of(installed: Installed, client: Any) -> Stream:
    stream: Stream | None = getattr(client, _STREAM, None)
    options = installed.options
    if stream is None or stream.options is not options:
        address = urlsplit(str(client.url))
        exchange = getattr(client.on_message_callback, "__self__", None)
        stream = Stream(options, address.hostname or "", address.port)  # type: ignore[arg-type]
        if exchange is not None and stream.venue == address.hostname:  # not one that is known by its domain
            stream.call_it(ccxt_calls.venue(exchange))
        setattr(client, _STREAM, stream)
    return stream


def watching(installed: Installed, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Record what a ``watch_…`` method hands over, and let it be current until the task watches again."""
    made = probe(f"exchange.{name}", tier=P2, kind="consumer")
    OFFERED.add(made)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def watch(self: Any, *args: Any, **kwargs: Any) -> Any:
            if installed.options is None or _watching.get() == id(self):
                return await original(self, *args, **kwargs)
            release()
            token = _watching.set(id(self))
            try:
                result = await original(self, *args, **kwargs)
            except BaseException as error:
                redaction.mark(error)
                raise
            finally:
                _watching.reset(token)
            try:
                _hand_over(installed, made, name, self, args, result)
            except Exception as error:  # noqa: BLE001  telemetry is no reason to lose data
                report("ccxt.watch", f"{name}: what it gave has no span: {type(error).__name__}")
            return result

        return watch

    return make


def _hand_over(installed: Installed, made: Probe, name: str, exchange: Any, args: tuple[Any, ...], result: Any) -> None:
    span = made.span(getattr(exchange, _RECEIVED, None))
    put = span.set_attribute
    put(semconv.VENUE, ccxt_calls.venue(exchange))
    symbol = redaction.symbol(args[0]) if args else None
    if symbol is not None:
        put(semconv.SYMBOL, symbol)
    newest = result
    if isinstance(result, list):
        put(semconv.MESSAGE_COUNT, len(result))
        newest = result[-1] if result else None
    stamp = newest.get("timestamp") if isinstance(newest, Mapping) else None
    if isinstance(stamp, (int, float)) and NEWEST <= (age := time() - stamp / 1e3) <= OLDEST:
        put(semconv.MESSAGE_AGE, age)
    span.begin()
    before = core.current()
    options = installed.options
    if before is not None and before.probe not in OFFERED:
        link(span, before)
    elif options is not None and options.current_after_receive:
        span.resume()
    span.finish()
    if name == "watch_orders":
        ccxt_orders.settle(result)
