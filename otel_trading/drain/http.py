"""A small HTTP server for ``/metrics`` and ``/healthz``, in a daemon thread of the process that is measured.

What a client can make it do is bounded: a request's head in bytes and in seconds, the time an answer may take
to send, and how many are served at once.
"""

from __future__ import annotations

import gzip
import io
import os
import socket
import time
import weakref
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from otel_trading import faults
from otel_trading._backend import core
from otel_trading._real_threads import real_threading
from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from prometheus_client.registry import Collector

threading = real_threading()

MAX_HEAD_BYTES = 16_384
"""Most bytes of a request's line and headers."""

REQUEST_SECONDS = 5.0
"""Most seconds that a request's head may take to arrive, and each piece of the answer to leave."""

MAX_AT_ONCE = 8
"""Most requests served at once; further ones are closed unanswered."""

_PLAIN = "text/plain; charset=utf-8"


class MetricsServer:
    """``/metrics`` and ``/healthz`` at an address; serves from construction to ``close``."""

    def __init__(
        self, host: str, port: int, collectors: list[Collector], healthy: Callable[[], bool] = lambda: True
    ) -> None:
        """Listen and start the thread; port 0 takes a free one.

        Raises OtelTradingError where the address cannot be had (port taken, no such host).
        """
        registry = CollectorRegistry(auto_describe=False)
        for collector in collectors:
            registry.register(collector)
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self._server = _Server(family, address, registry, healthy)
        except (OSError, OverflowError, UnicodeError) as error:
            message = (
                f"/metrics cannot be served at {host}:{port} ({error}): "
                "choose another with metrics.port or OTEL_EXPORTER_PROMETHEUS_PORT; 0 takes a free one"
            )
            raise OtelTradingError(message) from error
        self._thread = threading.Thread(target=self._server.serve, name="otel-trading-metrics-http", daemon=True)
        self._thread.start()
        _serving.add(self)

    @property
    def host(self) -> str:
        """The address that it listens at."""
        return str(self._server.server_address[0])

    @property
    def port(self) -> int:
        """The port that it listens at: the one that was found, where 0 was asked for."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def close(self, timeout: float = 1.0) -> None:
        """Stop listening, within ``timeout`` seconds; answers on their way are left to their daemon threads."""
        _serving.discard(self)
        self._server.wake_to_close(timeout)
        self._thread.join(max(0.0, timeout))
        self._server.server_close()

    def forget(self) -> None:
        """In the child of a fork: let go of the parent's socket, whose thread is not here."""
        self._server.socket.close()


# A child that kept them would hold the port of a parent that has ended, and never answer.
_serving: weakref.WeakSet[MetricsServer] = weakref.WeakSet()


def _forget_after_fork() -> None:
    for server in list(_serving):
        server.forget()
    _serving.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Joining the threads of open requests at close would let a slow client hold up the program's exit.
    block_on_close = False
    request_queue_size = 16

    def __init__(
        self,
        family: int,
        address: Any,
        registry: CollectorRegistry,
        healthy: Callable[[], bool],
    ) -> None:
        self.address_family = family
        self.registry = registry
        self.healthy = healthy
        self.closing = threading.Event()
        self.places = threading.BoundedSemaphore(MAX_AT_ONCE)
        # Two scrapes at once would only be slower; and a snapshot is a pass of the drain.
        self.collecting = threading.Lock()
        super().__init__(address[:2], _Handler)

    def server_bind(self) -> None:
        """Bind, without looking up the host's name as HTTPServer does: that can block for seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def serve(self) -> None:
        """Serve until woken to close; sleeps in ``accept``, where ``serve_forever`` would look up twice a second."""
        core.count_thread(True)
        while not self.closing.is_set():
            try:
                request, client = self.get_request()
            except OSError:
                # No file descriptors left, or a client that is gone already: not a reason to spin.
                self.closing.wait(0.1)
                continue
            if self.closing.is_set():
                self.shutdown_request(request)
                return
            try:
                self.process_request(request, client)
            except Exception:  # noqa: BLE001 - no thread to be had: this client goes unanswered
                self.shutdown_request(request)

    def wake_to_close(self, timeout: float) -> None:
        """End ``serve``: closing a socket does not wake an ``accept`` on it everywhere, a client does."""
        self.closing.set()
        host, port = self.server_address[:2]
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host))  # noqa: S104 - compared, not bound
        try:
            socket.create_connection((here, port), max(0.01, timeout)).close()
        except OSError:
            return

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        core.count_thread(True)
        try:
            super().process_request_thread(request, client_address)
        finally:
            core.count_thread(False)
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: a client that goes away, or talks nonsense, is not the program's business."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "otel-trading"
    sys_version = ""
    # One request a connection: what is bounded for a request is so for the connection.
    protocol_version = "HTTP/1.0"
    # Else an answer to nonsense has no status line, as in 1991.
    default_request_version = "HTTP/1.0"
    timeout = REQUEST_SECONDS

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BytesIO(self._head())

    def _head(self) -> bytes:
        """Read up to the empty line, within the bounds; a head beyond them is cut, which makes it a bad request."""
        deadline = time.monotonic() + REQUEST_SECONDS
        head = b""
        while len(head) < MAX_HEAD_BYTES:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return b""
            self.connection.settimeout(remaining)
            try:
                piece: bytes = self.connection.recv(MAX_HEAD_BYTES - len(head))
            except TimeoutError:
                return b""
            head += piece
            if not piece or b"\r\n\r\n" in head or b"\n\n" in head:
                self.connection.settimeout(REQUEST_SECONDS)
                return head
        self.connection.settimeout(REQUEST_SECONDS)
        self.too_long = True
        return head

    too_long = False

    def do_GET(self) -> None:
        if self.too_long:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        path = urlsplit(self.path).path
        if path == "/metrics":
            self._metrics()
        elif path == "/healthz":
            fine = self.server.healthy()
            status = HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, _PLAIN, b"ok\n" if fine else b"not recording\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, _PLAIN, b"not here; try /metrics or /healthz\n")

    do_HEAD = do_GET

    def _not_allowed(self) -> None:
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, _PLAIN, b"GET or HEAD\n", ("Allow", "GET, HEAD"))

    def __getattr__(self, name: str) -> Any:
        """Answer every other method, known or not, in one way; http.server looks for ``do_METHOD``."""
        if name.startswith("do_"):
            return self._not_allowed
        raise AttributeError(name)

    def _metrics(self) -> None:
        try:
            try:
                encode, content_type = choose_encoder(", ".join(self.headers.get_all("Accept") or ()))
            except (TypeError, ValueError):
                # A version that is no number: the plain text is what everybody reads.
                encode, content_type = choose_encoder("")
            with self.server.collecting:
                content: bytes = encode(self.server.registry)
        except Exception as error:  # noqa: BLE001 - a scrape must not take the thread's traceback to stderr
            faults.report("metrics.scrape", f"/metrics could not be made ({type(error).__name__}: {error})")
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, _PLAIN, b"the metrics could not be made\n")
            return
        if gzip_accepted(", ".join(self.headers.get_all("Accept-Encoding") or ())):
            self._answer(HTTPStatus.OK, content_type, gzip.compress(content, 1), ("Content-Encoding", "gzip"))
        else:
            self._answer(HTTPStatus.OK, content_type, content)

    def _answer(self, status: HTTPStatus, content_type: str, content: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: a scrape every few seconds is not news."""
