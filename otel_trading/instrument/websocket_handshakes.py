"""Spans of websocket connections' opening: connect, reconnect, accept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otel_trading import semconv
from otel_trading.faults import report
from otel_trading.instrument import redaction
from otel_trading.instrument.streams import Installed, link
from otel_trading.instrument.venues import venue_of
from otel_trading.probes import P1, probe

if TYPE_CHECKING:
    from otel_trading._backend import Span

CONNECT = probe("websocket.connect", tier=P1, kind="client")
RECONNECT = probe("websocket.reconnect", tier=P1, kind="client")
ACCEPT = probe("websocket.accept", tier=P1, kind="server")

_ATTEMPTS = "_otel_trading_attempts"

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


def host_and_port(text: str) -> tuple[str, int | None]:
    """Take a ``Host`` header apart."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and not host.endswith(":"):
        return host, int(port[:5])
    return text, None


def connecting(installed: Installed) -> Wrapper:
    """Put a span around the coroutine behind ``await connect(…)``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def connect(self: Any, *args: Any, **kwargs: Any) -> Any:
            span = _begin(installed, self)
            try:
                connection = await original(self, *args, **kwargs)
            except BaseException as error:
                _failed(span, error)
                raise
            _connected(span, self, connection)
            return connection

        return connect

    return make


def connecting_in_thread(installed: Installed) -> Wrapper:
    """Put a span around the threading client's ``connect``, or its handshake where ``connect`` is a plain function.

    The handshake gives nothing: the connection is what it is called on.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: Any, *args: Any, **kwargs: Any) -> Any:
            span = _begin(installed, self)
            try:
                connection = original(self, *args, **kwargs)
            except BaseException as error:
                _failed(span, error)
                raise
            _connected(span, self, self if connection is None else connection)
            return connection

        return connect

    return make


def preparing(installed: Installed) -> Wrapper:
    """Mark what a client's constructor raises: it has the address."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            try:
                original(self, *args, **kwargs)
            except Exception as error:
                if installed.options is not None:
                    redaction.mark(error)
                raise

        return init

    return make


def accepting(installed: Installed) -> Wrapper:
    """Put a span around a server's side of the handshake."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        async def handshake(self: Any, *args: Any, **kwargs: Any) -> Any:
            if installed.options is None:
                return await original(self, *args, **kwargs)
            span = ACCEPT.span()
            span.begin()
            try:
                result = await original(self, *args, **kwargs)
            except BaseException as error:
                _put_accepted(span, self)
                span.finish(error)
                raise
            _put_accepted(span, self)
            span.finish()
            return result

        return handshake

    return make


# ---- the client's ----


def _uri_of(connect: Any) -> Any:
    for name in ("ws_uri", "_wsuri"):  # asyncio and threads, legacy
        uri = getattr(connect, name, None)
        if uri is not None:
            return uri
    text = getattr(connect, "uri", None)
    if isinstance(text, str):  # asyncio before 17
        from websockets.uri import parse_uri

        return parse_uri(text)
    return getattr(getattr(connect, "protocol", None), "uri", None)


def _begin(installed: Installed, connect: Any) -> Span | None:
    """Begin the span of an attempt; ``connect`` is the object that makes one connection after the other."""
    options = installed.options
    if options is None:
        return None
    try:
        attempts, last = connect.__dict__.get(_ATTEMPTS, (0, None))
        span = (CONNECT if last is None else RECONNECT).span()
        uri = _address_of(connect)
        if uri is not None:
            span.set_attribute(semconv.VENUE, venue_of(uri.host, uri.port, options.venues))
            span.set_attribute(
                semconv.URL_FULL, redaction.url("wss" if uri.secure else "ws", uri.host, uri.port, uri.path)
            )
            span.set_attribute(semconv.SERVER_ADDRESS, redaction.host(uri.host))
            span.set_attribute(semconv.SERVER_PORT, uri.port)
        span.set_attribute(semconv.WEBSOCKET_ATTEMPT, attempts + 1)
        # Not current: the transport's callbacks and the keepalive task would inherit it for the connection's life.
        span.begin()
        if last is not None:
            link(span, last)
        connect.__dict__[_ATTEMPTS] = (attempts + 1, span)
    except Exception as error:  # noqa: BLE001  telemetry is no reason not to connect
        report("websocket.connect", f"a connection has no span: {type(error).__name__}")
        return None
    return span


def _address_of(connect: Any) -> Any:
    """Give the address, None where there is none that is valid: then connecting will fail and say so."""
    try:
        return _uri_of(connect)
    except Exception:  # noqa: BLE001  whatever parsing raises
        return None


def _failed(span: Span | None, error: BaseException) -> None:
    if span is None:
        return
    redaction.mark(error)  # it may have the address, with its query
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "status_code", None))
    if isinstance(status, int):
        span.set_attribute(semconv.HTTP_STATUS, int(status))
    span.finish(error)


def _connected(span: Span | None, connect: Any, connection: Any) -> None:
    if span is None:
        return
    connect.__dict__[_ATTEMPTS] = (0, span)
    _put_subprotocol(span, connection)
    span.finish()


# ---- the server's ----


def _put_accepted(span: Span, connection: Any) -> None:
    request, response = getattr(connection, "request", None), getattr(connection, "response", None)
    if request is not None:
        span.set_attribute(semconv.URL_PATH, redaction.path(str(request.path)))
    if response is not None:
        span.set_attribute(semconv.HTTP_STATUS, int(response.status_code))
    _put_subprotocol(span, connection)


def _put_subprotocol(span: Span, connection: Any) -> None:
    subprotocol = getattr(connection, "subprotocol", None)
    if isinstance(subprotocol, str):
        span.set_attribute(semconv.WEBSOCKET_SUBPROTOCOL, redaction.subprotocol(subprotocol))
