"""Spans of the ``websockets`` library: asyncio client and server, threading client and server, and the legacy ones.

==================== ======== ============================================================================
span                 kind     from … to
==================== ======== ============================================================================
websocket.connect    client   calling ``connect`` to the end of the opening handshake, or to its failure
websocket.reconnect  client   the same, of a later round of ``async for … in connect(…)``; links to the last one
websocket.accept     server   the opening handshake of a connection that a server took
websocket.receive    consumer the message's arrival (parsed, before the queue) to its return from ``recv``
websocket.send       producer ``send``, to the write into the socket's buffer
==================== ======== ============================================================================

``websocket.receive`` begins a trace and stays current in the receiving task until it receives again, so that candle →
signal → order is one trace; see ``otel_trading.instrument.streams``.  Metrics: ``trading.websocket.queue_lag``,
``trading.websocket.backlog``, ``trading.message.age``.  Nothing of headers, query strings, user information, unknown
path segments, messages and exceptions' texts is recorded.

Options of ``instrument()``, all by keyword:

``venues``
    ``{"127.0.0.1:9001": "paper"}``: names of hosts that are not one of the known exchanges.
``message_age``
    True (default): look for the exchange's stamp in each message.  False: do not.  A function of the message that
    gives the stamp in Unix seconds, or None.
``propagate``
    Hosts (``"127.0.0.1:9002"``, ``"orders.internal"``), or True for all, whose JSON messages carry the trace context
    in a field ``traceparent``, written by ``send`` and read on arrival; of a server's connection, the host at which it
    was called.  Default False: nothing is added to any traffic.
``current_after_receive``
    Default True; False: the receive span is recorded and never current.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from time import perf_counter_ns as clock
from types import ModuleType
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from wrapt import register_post_import_hook

from otel_trading.faults import report
from otel_trading.instrument import redaction
from otel_trading.instrument import websocket_handshakes as handshakes
from otel_trading.instrument import websockets_legacy as legacy
from otel_trading.instrument.patches import Patches, Replacement
from otel_trading.instrument.streams import Installed, Options, Stream, release, with_context
from otel_trading.instrument.websocket_tasks import closing_in_task, sending_in_task

_STREAM = "_otel_trading_stream"
_ARRIVAL = "_otel_trading_arrival"
_TEXT = 1  # opcodes
_MESSAGES = (1, 2)  # text, binary


_installed = Installed()


# ---- connections ----


def stream_of(connection: Any) -> Stream | None:
    """Give what is known of a connection, opened whenever; None while nothing is instrumented."""
    options = _installed.options
    stream: Stream | None = getattr(connection, _STREAM, None)
    if options is None or (stream is not None and stream.options is options):
        return None if options is None else stream
    uri = getattr(connection.protocol, "uri", None)
    if uri is not None:
        stream = Stream(options, uri.host, uri.port)
    else:
        called = getattr(connection.request, "headers", {}).get("Host", "")
        stream = Stream(options, *handshakes.host_and_port(called), server=True)
    connection._otel_trading_stream = stream  # noqa: SLF001
    return stream


def data_arriving(original: Callable[..., None]) -> Callable[..., None]:
    """Note when the bytes were read, of which many messages may be parsed."""

    def data_received(self: Any, data: bytes) -> None:
        stream = getattr(self, _STREAM, None)
        if stream is None:
            original(self, data)
            return
        stream.arrived_ns = clock()
        try:
            original(self, data)
        finally:
            stream.arrived_ns = 0

    return data_received


def arriving(original: Callable[..., None]) -> Callable[..., None]:
    """Begin a message's span with its first frame, as it is parsed, before the queue."""

    def process_event(self: Any, event: Any) -> None:
        if event.opcode in _MESSAGES:
            try:
                stream = getattr(self, _STREAM, None)
                if stream is None or stream.options is not _installed.options:
                    stream = stream_of(self)
                if stream is not None:
                    event._otel_trading_arrival = stream.arrive(event.data, event.opcode == _TEXT, event.fin)  # noqa: SLF001
                    if not self.recv_messages.frames.queue:
                        stream.head = event
            except Exception as error:  # noqa: BLE001  telemetry is no reason to lose a message
                report("websocket.arrive", f"a message that arrived has no span: {type(error).__name__}")
        original(self, event)

    return process_event


# ---- asyncio ----


def receiving(original: Callable[..., Any]) -> Callable[..., Any]:
    """End a message's span as ``recv`` returns it."""

    async def recv(self: Any, decode: bool | None = None) -> Any:  # noqa: FBT001
        stream = getattr(self, _STREAM, None)
        if stream is None or stream.options is not _installed.options:
            stream = stream_of(self)
            if stream is None:
                return await original(self, decode)
        release()
        queue = self.recv_messages.frames.queue
        try:
            if queue:
                frame = queue[0]
                message = await original(self, decode)
            else:  # it will be the one that comes next
                stream.head = None
                message = await original(self, decode)
                frame = stream.head
        except Exception as error:
            redaction.mark(error)  # it has the other side's reason of closing
            raise
        stream.hand_over(getattr(frame, _ARRIVAL, None), message, len(queue))
        return message

    return recv


def receiving_parts(original: Callable[..., Any]) -> Callable[..., Any]:
    """End a message's span as its first part is handed over."""

    async def recv_streaming(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        stream = stream_of(self)
        frame = queue = None
        if stream is not None:
            release()
            queue = self.recv_messages.frames.queue
            frame = queue[0] if queue else None
            if frame is None:
                stream.head = None
        try:
            async for part in original(self, *args, **kwargs):
                if queue is not None and stream is not None:
                    stream.hand_over(getattr(frame or stream.head, _ARRIVAL, None), part, len(queue), False)
                    queue = None
                yield part
        except Exception as error:
            redaction.mark(error)
            raise

    return recv_streaming


# ---- threads ----


def arriving_in_thread(original: Callable[..., None]) -> Callable[..., None]:
    """Begin a message's span with its first frame, in the connection's own thread."""

    def process_event(self: Any, event: Any) -> None:
        if event.opcode in _MESSAGES:
            try:
                stream = stream_of(self)
                if stream is not None:
                    event._otel_trading_arrival = stream.arrive(event.data, event.opcode == _TEXT, event.fin)  # noqa: SLF001
            except Exception as error:  # noqa: BLE001  telemetry is no reason to lose a message
                report("websocket.arrive", f"a message that arrived has no span: {type(error).__name__}")
        original(self, event)

    return process_event


def taking_frame(original: Callable[..., Any]) -> Callable[..., Any]:
    """Note the frame that ``recv`` took, in the thread that took it."""

    def get_next_frame(self: Any, *args: Any, **kwargs: Any) -> Any:
        frame = original(self, *args, **kwargs)
        if frame.opcode in _MESSAGES:
            self._otel_trading_frame = frame
        return frame

    return get_next_frame


def receiving_in_thread(original: Callable[..., Any]) -> Callable[..., Any]:
    """End a message's span as ``recv`` returns it."""

    def recv(self: Any, *args: Any, **kwargs: Any) -> Any:
        stream = stream_of(self)
        if stream is None:
            return original(self, *args, **kwargs)
        warn = getattr(self, "maybe_raise_legacy_warning", None)
        if warn is not None:
            warn()  # here, so that it points at the program's line, as without us
        release()
        assembler = self.recv_messages
        assembler._otel_trading_frame = None  # noqa: SLF001
        try:
            message = original(self, *args, **kwargs)
        except Exception as error:
            redaction.mark(error)
            raise
        arrival = getattr(assembler._otel_trading_frame, _ARRIVAL, None)  # noqa: SLF001
        stream.hand_over(arrival, message, assembler.frames.qsize())
        return message

    return recv


def sending_in_thread(original: Callable[..., Any]) -> Callable[..., Any]:
    """Put a span around ``send``."""

    def send(self: Any, message: Any, *args: Any, **kwargs: Any) -> None:
        stream = stream_of(self)
        if stream is None:
            original(self, message, *args, **kwargs)
            return
        span = stream.sending(message)
        try:
            if stream.propagates:
                message = with_context(span, message)
            original(self, message, *args, **kwargs)
        except BaseException as error:
            redaction.mark(error)
            span.finish(error)
            raise
        span.finish()

    return send


def closing_in_thread(original: Callable[..., Any]) -> Callable[..., Any]:
    """Let the last message's span be current no longer."""

    def close(self: Any, *args: Any, **kwargs: Any) -> None:
        release()
        original(self, *args, **kwargs)

    return close


# ---- the instrumentor ----


class WebsocketsInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments ``websockets``; what it records and its options are in this module's docstring.

    Parts of the library that the program does not import are not imported; they are instrumented when it does.
    """

    _patches = Patches()
    _hooked = False

    def instrumentation_dependencies(self) -> tuple[str, ...]:
        """Give none: a missing library is told by ``instrument``, so that the other instrumentors still load."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        if find_spec("websockets") is None:
            raise ModuleNotFoundError("websockets is not installed: there is nothing to instrument", name="websockets")
        _installed.options = Options.of(kwargs)
        if WebsocketsInstrumentor._hooked:
            for name in _PARTS:
                if name in sys.modules:
                    self._patch(sys.modules[name])
            return
        WebsocketsInstrumentor._hooked = True
        for name in _PARTS:
            register_post_import_hook(self._patch, name)  # at once where it is imported already

    def _patch(self, module: ModuleType) -> None:
        """Instrument one part of the library, just imported."""
        if _installed.options is None:
            return
        try:
            for owner, name, make in _PARTS[module.__name__](module):
                self._patches.replace(owner, name, make)
        except Exception as error:  # noqa: BLE001  an import of the program's must not fail for us
            report(f"instrument:{module.__name__}", f"{module.__name__} is not instrumented: {error!r}")

    def _uninstrument(self, **_: Any) -> None:
        _installed.options = None
        release()
        self._patches.restore()


def _asyncio_connection(module: Any) -> list[Replacement]:
    connection = module.Connection
    return [
        (connection, "data_received", data_arriving),
        (connection, "process_event", arriving),
        (connection, "recv", receiving),
        (connection, "recv_streaming", receiving_parts),
        (connection, "send", sending_in_task(stream_of)),
        (connection, "close", closing_in_task),
    ]


def _thread_connection(module: Any) -> list[Replacement]:
    connection = module.Connection
    return [
        (module.Assembler, "get_next_frame", taking_frame),
        (connection, "process_event", arriving_in_thread),
        (connection, "recv", receiving_in_thread),
        (connection, "send", sending_in_thread),
        (connection, "close", closing_in_thread),
    ]


def _asyncio_client(module: Any) -> list[Replacement]:
    # The coroutine behind `await connect(…)`; its name changed in 17.
    name = "connect" if "connect" in vars(module.connect) else "__await_impl__"
    return [
        (module.connect, name, handshakes.connecting(_installed)),
        (module.connect, "__init__", handshakes.preparing(_installed)),
    ]


def _thread_client(module: Any) -> list[Replacement]:
    reconnect = getattr(module, "reconnect", None)
    if reconnect is not None:
        return [
            (reconnect, "connect", handshakes.connecting_in_thread(_installed)),
            (reconnect, "__init__", handshakes.preparing(_installed)),
        ]
    return [(module.ClientConnection, "handshake", handshakes.connecting_in_thread(_installed))]  # before 17


def _asyncio_server(module: Any) -> list[Replacement]:
    return [(module.ServerConnection, "handshake", handshakes.accepting(_installed))]


_PARTS: dict[str, Callable[[Any], list[Replacement]]] = {
    "websockets.asyncio.connection": _asyncio_connection,
    "websockets.asyncio.client": _asyncio_client,
    "websockets.asyncio.server": _asyncio_server,
    "websockets.sync.connection": _thread_connection,
    "websockets.sync.client": _thread_client,
    "websockets.legacy.protocol": legacy.protocol(_installed),
    "websockets.legacy.client": legacy.client(_installed),
}
