"""The calls of ``ccxt`` that are about orders: their spans, and what they say of an order's fate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from inspect import iscoroutinefunction
from math import isfinite
from types import TracebackType
from typing import TYPE_CHECKING, Any

from otel_trading import semconv
from otel_trading.faults import report
from otel_trading.instrument import ccxt_orders, redaction
from otel_trading.instrument.streams import Installed
from otel_trading.probes import P0, P1, probe

if TYPE_CHECKING:
    from otel_trading._backend import Probe, Span

_ORDER = ("symbol", "type", "side", "amount", "price", "params")
_EDIT = ("id", "symbol", "type", "side", "amount", "price", "params")
_ONE = ("id", "symbol", "params")
_MANY = ("ids", "symbol", "params")
_ALL = ("symbol", "params")
_LIST = ("symbol", "since", "limit", "params")
_CALLS = {
    "create_order": _ORDER,
    "create_orders": ("orders", "params"),
    "edit_order": _EDIT,
    "edit_orders": ("orders", "params"),
    "cancel_order": _ONE,
    "cancel_orders": _MANY,
    "cancel_all_orders": _ALL,
    "fetch_order": _ONE,
    "fetch_orders": _LIST,
    "fetch_open_orders": _LIST,
    "fetch_closed_orders": _LIST,
    "create_order_ws": _ORDER,
    "create_orders_ws": ("orders", "params"),
    "edit_order_ws": _EDIT,
    "cancel_order_ws": _ONE,
    "cancel_orders_ws": _MANY,
    "cancel_all_orders_ws": _ALL,
    "fetch_order_ws": _ONE,
    "fetch_orders_ws": _LIST,
    "fetch_open_orders_ws": _LIST,
}
NAMES = tuple(_CALLS)
"""The methods that are instrumented."""

_VENUES = {"gate": "gateio", "huobi": "htx", "myokx": "okx", "okxus": "okx"}
_TYPES_THAT_CREATE = ("create_order", "create_order_ws")

_under_way: ContextVar[tuple[int, str] | None] = ContextVar("otel_trading.instrument.call", default=None)


class _Settings:
    enters_orders = True


def enters_orders(*, wanted: bool) -> None:
    """Say whether created orders are entered with ``otel_trading.order``."""
    _Settings.enters_orders = wanted


def venue(exchange: Any) -> str:
    """Give the venue of an exchange object."""
    name = redaction.identifier(getattr(exchange, "id", None)) or redaction.HIDDEN
    return _VENUES.get(name, name)


def calling(installed: Installed, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a span around a method; a class that calls its parent's method of the same name is one call."""
    made = probe(f"exchange.{name}", tier=P1 if name.startswith("fetch") else P0, kind="client")

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        if iscoroutinefunction(original):

            async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
                if installed.options is None or _under_way.get() == (id(self), name):
                    return await original(self, *args, **kwargs)
                token = _under_way.set((id(self), name))
                try:
                    with _Call(made, name, self, args, kwargs) as one:
                        result = await original(self, *args, **kwargs)
                        one.answered(result)
                        return result
                finally:
                    _under_way.reset(token)

            return call

        def call_in_thread(self: Any, *args: Any, **kwargs: Any) -> Any:
            if installed.options is None or _under_way.get() == (id(self), name):
                return original(self, *args, **kwargs)
            token = _under_way.set((id(self), name))
            try:
                with _Call(made, name, self, args, kwargs) as one:
                    result = original(self, *args, **kwargs)
                    one.answered(result)
                    return result
            finally:
                _under_way.reset(token)

        return call_in_thread

    return make


class _Call:
    """One call: its span, and the order that it sends."""

    def __init__(self, made: Probe, name: str, exchange: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.name = name
        self.order: ccxt_orders.Sent | None = None
        self.span: Span = made.span()
        self.given: dict[str, Any] = {}
        try:
            self.given = {**dict(zip(_CALLS[name], args, strict=False)), **kwargs}
            self.span.set_attribute(semconv.VENUE, venue(exchange))
            self.span.set_attribute(semconv.EXCHANGE_METHOD, name)
            self.describe()
        except Exception as error:  # noqa: BLE001  telemetry is no reason not to trade
            report("ccxt.call", f"{name}: the span lacks attributes: {type(error).__name__}")

    def __enter__(self) -> _Call:  # noqa: PYI034  Self is younger than Python 3.10
        self.span.__enter__()
        if self.name in _TYPES_THAT_CREATE and _Settings.enters_orders:
            self.order = ccxt_orders.send(self.given)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            redaction.mark(error)
        if self.order is not None and kind is not None:
            self.order.failed(kind)
        self.span.__exit__(kind, error, trace)

    def describe(self) -> None:
        """Put what the arguments say of the order on the span."""
        given, put = self.given, self.span.set_attribute
        for key, attribute, take in _TEXTS:
            text = take(given.get(key))
            if text is not None:
                put(attribute, text)
        for key, attribute in (("amount", semconv.ORDER_QUANTITY), ("price", semconv.ORDER_PRICE)):
            number = ccxt_orders.number(given.get(key))
            if number is not None and isfinite(number):
                put(attribute, number)
        client_id = ccxt_orders.client_id_in(given.get("params"))
        if client_id is not None:
            put(semconv.ORDER_ID, client_id)
        many = given.get("orders", given.get("ids"))
        if isinstance(many, (list, tuple)):
            put(semconv.ORDER_COUNT, len(many))

    def answered(self, result: Any) -> None:
        """Put what the answer says of the order on the span, and into the order's own trace."""
        try:
            if isinstance(result, Mapping):
                put = self.span.set_attribute
                for key, attribute, take in _ANSWERS:
                    text = take(result.get(key))
                    if text is not None:
                        put(attribute, text)
                filled = ccxt_orders.number(result.get("filled"))
                if filled is not None and isfinite(filled):
                    put(semconv.ORDER_FILLED, filled)
            if not _Settings.enters_orders:
                return
            if self.name in _TYPES_THAT_CREATE:
                ccxt_orders.acknowledged(self.order, self.given, result)
            else:
                ccxt_orders.settle(result)
        except Exception as error:  # noqa: BLE001  the answer is the library's, and may be anything
            report("ccxt.answer", f"{self.name}: the answer is not recorded: {type(error).__name__}")


def _lower(value: object) -> str | None:
    found = redaction.word(value)
    return None if found is None else found.lower()


_TEXTS: tuple[tuple[str, str, Callable[[object], str | None]], ...] = (
    ("symbol", semconv.SYMBOL, redaction.symbol),
    ("side", semconv.ORDER_SIDE, _lower),
    ("type", semconv.ORDER_TYPE, _lower),
    ("id", semconv.ORDER_VENUE_ID, redaction.order_id),
)
_ANSWERS: tuple[tuple[str, str, Callable[[object], str | None]], ...] = (
    ("id", semconv.ORDER_VENUE_ID, redaction.order_id),
    ("clientOrderId", semconv.ORDER_ID, redaction.order_id),
    ("status", semconv.ORDER_STATE, _lower),
)
