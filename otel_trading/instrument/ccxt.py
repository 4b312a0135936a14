"""Spans of ``ccxt``: its blocking classes, those of ``ccxt.async_support``, and the websocket ones of ``ccxt.pro``.

======================== ======== ========================================================================
span                     kind     what
======================== ======== ========================================================================
exchange.create_order …  client   a call that is about orders: create, edit, cancel, fetch; tier P0
exchange.request         client   a REST request, its wait for the rate limit and its repetitions included
exchange.throttle        internal that wait
websocket.receive        consumer a message of ``ccxt.pro``: from its arrival to the end of its handling
exchange.watch_trades …  consumer what a ``watch_…`` call handed over; child of the message; stays current in the task
======================== ======== ========================================================================

An order that is created is entered by its client order id with ``otel_trading.order``, so what becomes of it, told by
this call, ``watch_orders``, ``fetch_order`` or another process, is in the trace that sent it.

Recorded are names, the API's path template, method, status, the error's class, and of orders: symbol, side, type,
quantity, price, ids, state.  Never: headers, bodies, query strings, parameters, or the text of an exception, as
exchanges send signed addresses and whole requests back in it.

Options of ``instrument()``: ``venues``, ``message_age`` and ``current_after_receive`` as of the websockets
instrumentor, and ``orders`` (default True): whether orders are entered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from importlib.util import find_spec
from inspect import iscoroutinefunction
from time import perf_counter_ns as clock
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from wrapt import register_post_import_hook

from otel_trading import semconv
from otel_trading.faults import report
from otel_trading.instrument import ccxt_calls, ccxt_streams, redaction
from otel_trading.instrument.patches import Patches, restore_copies
from otel_trading.instrument.streams import Installed, Options, release
from otel_trading.probes import P1, P2, probe

if TYPE_CHECKING:
    from otel_trading._backend import Span

REQUEST = probe("exchange.request", tier=P1, kind="client")
THROTTLE = probe("exchange.throttle", tier=P2)

_declarations: WeakKeyDictionary[type, tuple[set[str], set[str]]] = WeakKeyDictionary()  # of each class of exchanges
_MOST_DEPTH = 6
_HTTP_METHODS = frozenset(("get", "post", "put", "delete", "patch", "head"))

_installed = Installed()


class _Request:
    """A REST request that is under way in this context."""

    __slots__ = ("fetches", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.fetches = 0


_request: ContextVar[_Request | None] = ContextVar("otel_trading.instrument.request", default=None)


# ---- the choke point ----


def requesting(original: Callable[..., Any]) -> Callable[..., Any]:
    """Put a span around ``fetch2``, by which every REST call goes."""
    if iscoroutinefunction(original):

        async def fetch2(self: Any, *args: Any, **kwargs: Any) -> Any:
            if _installed.options is None or _request.get() is not None:
                return await original(self, *args, **kwargs)
            with _begin(self, args, kwargs) as span:
                token = _request.set(_Request(span))
                try:
                    return await original(self, *args, **kwargs)
                except BaseException as error:
                    redaction.mark(error)
                    raise
                finally:
                    _request.reset(token)

        return fetch2

    def fetch2_in_thread(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _installed.options is None or _request.get() is not None:
            return original(self, *args, **kwargs)
        with _begin(self, args, kwargs) as span:
            token = _request.set(_Request(span))
            try:
                return original(self, *args, **kwargs)
            except BaseException as error:
                redaction.mark(error)
                raise
            finally:
                _request.reset(token)

    return fetch2_in_thread


def _begin(exchange: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Span:
    span = REQUEST.span()
    try:
        given = {**dict(zip(("path", "api", "method"), args, strict=False)), **kwargs}
        api = given.get("api", "public")
        names = api if isinstance(api, (list, tuple)) else (api,)
        span.set_attribute(semconv.VENUE, ccxt_calls.venue(exchange))
        method = redaction.word(given.get("method", "GET"))
        if method is not None:
            span.set_attribute(semconv.HTTP_METHOD, method.upper())
        path = given.get("path")
        span.set_attribute(semconv.URL_TEMPLATE, path if path in _paths(exchange) else redaction.HIDDEN)
        sections = [name for name in names if redaction.identifier(name) and name in _sections(exchange)]
        if len(sections) == len(names):
            span.set_attribute(semconv.EXCHANGE_API, ".".join(sections))
    except Exception as error:  # noqa: BLE001  telemetry is no reason not to call
        report("ccxt.request", f"a request's span lacks attributes: {type(error).__name__}")
    return span


def fetching(original: Callable[..., Any]) -> Callable[..., Any]:
    """Count what a request sends, and where it goes; a ``fetch`` of its own is a request too.

    The spans that instrumentors of HTTP libraries would make of it are suppressed: they have the signed address.
    """
    if iscoroutinefunction(original):

        async def fetch(self: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
            if _installed.options is None:
                return await original(self, url, *args, **kwargs)
            with _Fetch(self, url, args, kwargs), suppress_http_instrumentation():
                return await original(self, url, *args, **kwargs)

        return fetch

    def fetch_in_thread(self: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        if _installed.options is None:
            return original(self, url, *args, **kwargs)
        with _Fetch(self, url, args, kwargs), suppress_http_instrumentation():
            return original(self, url, *args, **kwargs)

    return fetch_in_thread


class _Fetch:
    """One sending of a request; without a request that it belongs to it is one of its own."""

    def __init__(self, exchange: Any, url: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.span: Span | None = None
        request = _request.get()
        if request is None:
            self.span = _begin(exchange, (None, (), kwargs.get("method") or (args[0] if args else "GET")), {})
            request = _Request(self.span)
        self.request = request
        _sent(request, url)

    def __enter__(self) -> None:
        self.token = _request.set(self.request)
        if self.span is not None:
            self.span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _request.reset(self.token)
        if error is not None:
            redaction.mark(error)
        if self.span is not None:
            self.span.__exit__(kind, error, trace)


def _sent(request: _Request, url: object) -> None:
    request.fetches += 1
    if request.fetches > 1:
        request.span.set_attribute(semconv.HTTP_RESEND_COUNT, request.fetches - 1)
        return
    try:
        host = urlsplit(str(url)).hostname
    except ValueError:
        return
    if host:
        request.span.set_attribute(semconv.SERVER_ADDRESS, redaction.host(host))


def answered(original: Callable[..., Any]) -> Callable[..., Any]:
    """Note the status of an answer."""

    def on_rest_response(self: Any, code: Any, *args: Any, **kwargs: Any) -> Any:
        request = _request.get()
        if request is not None and isinstance(code, int):
            request.span.set_attribute(semconv.HTTP_STATUS, int(code))
        return original(self, code, *args, **kwargs)

    return on_rest_response


def throttling(original: Callable[..., Any]) -> Callable[..., Any]:
    """Put a span around the wait for the rate limit."""
    if iscoroutinefunction(original):

        async def throttle(self: Any, cost: Any = None) -> Any:
            if _installed.options is None:
                return await original(self, cost)
            began = clock()
            span = _begin_wait(self, cost)
            try:
                return await original(self, cost)
            finally:
                _end_wait(span, began)

        return throttle

    def throttle_in_thread(self: Any, cost: Any = None) -> Any:
        if _installed.options is None:
            return original(self, cost)
        began = clock()
        span = _begin_wait(self, cost)
        try:
            return original(self, cost)
        finally:
            _end_wait(span, began)

    return throttle_in_thread


def _begin_wait(exchange: Any, cost: object) -> Span:
    span = THROTTLE.span()
    span.set_attribute(semconv.VENUE, ccxt_calls.venue(exchange))
    if isinstance(cost, (int, float)):
        span.set_attribute(semconv.RATE_LIMIT_COST, float(cost))
    span.begin()
    return span


def _end_wait(span: Span, began: int) -> None:
    span.finish()
    request = _request.get()
    if request is not None:
        request.span.set_attribute(semconv.RATE_LIMIT_WAIT, (clock() - began) * 1e-9)


def _walk(api: Any, sections: set[str], paths: set[str], depth: int = 0) -> None:
    """Collect from ``{section: {…: {"get": [path, …] or {path: cost, …}}}}``."""
    if not isinstance(api, dict) or depth > _MOST_DEPTH:
        return
    for key, value in api.items():
        if str(key).lower() in _HTTP_METHODS:
            paths.update(path for path in value if isinstance(path, str))
        else:
            sections.add(str(key))
            _walk(value, sections, paths, depth + 1)


def _declared(exchange: Any) -> tuple[set[str], set[str]]:
    """Give the sections and paths of the interface that the exchange's class declares."""
    found = _declarations.get(type(exchange))
    if found is None:
        found = (set(), set())
        _walk(exchange.api or {}, *found)
        _declarations[type(exchange)] = found
    return found


def _sections(exchange: Any) -> set[str]:
    return _declared(exchange)[0]


def _paths(exchange: Any) -> set[str]:
    return _declared(exchange)[1]


# ---- the instrumentor ----


class CcxtInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments ``ccxt``; what it records and its options are in this module's docstring.

    Classes are instrumented when the first exchange of them is made, or at once where there are some already.
    """

    _patches = Patches()
    _hooked = False

    def instrumentation_dependencies(self) -> tuple[str, ...]:
        """Give none: a missing library is told by ``instrument``, so that the other instrumentors still load."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        if find_spec("ccxt") is None:
            raise ModuleNotFoundError("ccxt is not installed: there is nothing to instrument", name="ccxt")
        _installed.options = Options.of(kwargs)
        ccxt_calls.enters_orders(wanted=bool(kwargs.get("orders", True)))
        modules = {"ccxt.base.exchange": self._patch_base, "ccxt.async_support.base.ws.client": self._patch_client}
        for name, patch in modules.items():
            if not CcxtInstrumentor._hooked:
                register_post_import_hook(patch, name)  # at once where it is imported already
            elif name in sys.modules:
                patch(sys.modules[name])
        CcxtInstrumentor._hooked = True

    def _uninstrument(self, **_: Any) -> None:
        _installed.options = None
        release()
        self._patches.restore()
        base = sys.modules.get("ccxt.base.exchange")
        if base is not None:
            for kind in _subclasses(getattr(base, "BaseExchange", None) or base.Exchange):
                restore_copies(kind)  # the constructor gives methods second names

    def _patch_base(self, module: ModuleType) -> None:
        if _installed.options is None:
            return
        base = getattr(module, "BaseExchange", None) or module.Exchange  # before 4.5 all was in Exchange
        self._patches.replace(base, "__init__", self._making)
        for kind in _subclasses(base):
            if "createOrder" in vars(kind):  # its constructor has run
                self._patch_class(kind)

    def _patch_client(self, module: ModuleType) -> None:
        if _installed.options is not None:
            self._patches.replace(module.Client, "handle_message", ccxt_streams.handling(_installed))
            self._patches.replace(module.Client, "open", ccxt_streams.opening(_installed))

    def _making(self, original: Callable[..., None]) -> Callable[..., None]:
        def init(exchange: Any, *args: Any, **kwargs: Any) -> None:
            original(exchange, *args, **kwargs)
            if _installed.options is not None:
                self._patch_class(type(exchange))

        return init

    def _patch_class(self, kind: type) -> None:
        """Instrument a class of exchanges: REST where it is defined, calls in the class itself."""
        try:
            choke = "fetch2" if hasattr(kind, "fetch2") else "request"
            shared = {choke: requesting, "fetch": fetching, "throttle": throttling, "on_rest_response": answered}
            for name, make in shared.items():
                for owner in kind.__mro__:
                    if name in vars(owner):
                        self._patches.replace(owner, name, make)
                        break
            for name in ccxt_calls.NAMES:
                self._patches.replace(kind, name, ccxt_calls.calling(_installed, name), alias=_camel_case(name))
            if hasattr(kind, "watch"):
                for name in ccxt_streams.NAMES:
                    self._patches.replace(kind, name, ccxt_streams.watching(_installed, name), alias=_camel_case(name))
        except Exception as error:  # noqa: BLE001  the program's exchange must be made all the same
            report("ccxt.class", f"{kind.__name__} is not instrumented: {type(error).__name__}")


def _subclasses(kind: type) -> list[type]:
    found: list[type] = [kind]
    for one in found:  # which grows meanwhile
        below: type
        for below in one.__subclasses__():
            if below not in found:
                found.append(below)
    return found


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join("OHLCV" if part == "ohlcv" else part.capitalize() for part in others)
