"""The part of the ``websockets`` instrumentor that is for ``websockets.legacy``, which the library has deprecated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_trading.faults import report
from otel_trading.instrument import redaction
from otel_trading.instrument import websocket_handshakes as handshakes
from otel_trading.instrument.patches import Replacement
from otel_trading.instrument.streams import Arrival, Installed, Stream, release
from otel_trading.instrument.websocket_tasks import closing_in_task, sending_in_task

_STREAM = "_otel_trading_stream"
_ARRIVALS = "_otel_trading_arrivals"


def protocol(installed: Installed) -> Callable[[Any], list[Replacement]]:
    """Give what is to be replaced in ``websockets.legacy.protocol``."""

    def replacements(module: Any) -> list[Replacement]:
        connection = module.WebSocketCommonProtocol
        return [
            (connection, "read_message", _Messages(installed).arriving),
            (connection, "recv", _Messages(installed).receiving),
            (connection, "send", sending_in_task(_Messages(installed).stream_of)),
            (connection, "close", closing_in_task),
        ]

    return replacements


def client(installed: Installed) -> Callable[[Any], list[Replacement]]:
    """Give what is to be replaced in ``websockets.legacy.client``."""
    return lambda module: [(module.Connect, "__await_impl__", handshakes.connecting(installed))]


class _Messages:
    """Spans of messages of a legacy connection, client's or server's."""

    def __init__(self, installed: Installed) -> None:
        self._installed = installed

    def stream_of(self, connection: Any) -> Stream | None:
        """Find a connection's stream; None while nothing is instrumented."""
        options = self._installed.options
        stream: Stream | None = getattr(connection, _STREAM, None)
        if options is None or (stream is not None and stream.options is options):
            return None if options is None else stream
        if connection.is_client:
            stream = Stream(options, connection._host, connection._port)  # noqa: SLF001  the public ones warn
        else:
            headers = getattr(connection, "request_headers", None) or {}
            stream = Stream(options, *handshakes.host_and_port(headers.get("Host", "")), server=True)
        connection._otel_trading_stream = stream  # noqa: SLF001
        return stream

    def arriving(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Begin a message's span when it has been read, before the queue."""

        async def read_message(connection: Any) -> Any:
            message = await original(connection)
            try:
                stream = self.stream_of(connection)
                if stream is not None and message is not None:
                    # By the object: it is in the queue until it is received, so nothing else can have its id.
                    arrivals = connection.__dict__.setdefault(_ARRIVALS, {})
                    arrivals[id(message)] = stream.arrive(message, isinstance(message, str), True)
            except Exception as error:  # noqa: BLE001  telemetry is no reason to lose a message
                report("websocket.arrive", f"a message that arrived has no span: {type(error).__name__}")
            return message

        return read_message

    def receiving(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """End a message's span as ``recv`` returns it."""

        async def recv(connection: Any) -> Any:
            stream = self.stream_of(connection)
            if stream is None:
                return await original(connection)
            release()
            try:
                message = await original(connection)
            except Exception as error:
                redaction.mark(error)  # it has the other side's reason of closing
                raise
            arrival: Arrival | None = connection.__dict__.get(_ARRIVALS, {}).pop(id(message), None)
            stream.hand_over(arrival, message, len(connection.messages))
            return message

        return recv
