"""``/metrics`` and ``/healthz`` of the agent, in its loop: no thread, since it forks, and no more than it needs.

What a client can make it do is bounded: a request's head in bytes and seconds, the time that an answer may take to
leave, and how many are served at once.
"""

from __future__ import annotations

import socket
import time

from otel_trading.agent.clients import Clients
from otel_trading.agent.exposition import CONTENT_TYPE
from otel_trading.errors import OtelTradingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST_HEAD = 16_384
"""Bytes of a request's line and headers."""
REQUEST_SECONDS = 5.0
"""Seconds until the head is there; and until the answer has left, once it is made."""
MOST_AT_ONCE = 8
_ANSWER_SECONDS = 20.0
_PLAIN = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
            431: "Request Header Fields Too Large"}  # fmt: skip


class _Client:
    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.head = b""
        self.out = b""
        self.asked = False
        self.deadline = time.monotonic() + REQUEST_SECONDS

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


class Web:
    """Serves at an address; ``metrics(reply)`` is to call ``reply`` with the text, once, at any time."""

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Callable[[Callable[[str], None]], None],
        listen_to: Callable[..., None],
        forget: Callable[[int], None],
    ) -> None:
        """Listen; port 0 takes a free one.  Raises OtelTradingError where the address can not be had."""
        self._metrics = metrics
        try:
            family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self._socket = socket.socket(family, socket.SOCK_STREAM)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._socket.bind(where)
                self._socket.listen(16)
            except BaseException:
                self._socket.close()
                raise
        except (OSError, OverflowError, UnicodeError) as error:
            raise OtelTradingError(
                f"/metrics can not be served at {host}:{port} ({error}): choose another with metrics.port; 0 takes a "
                "free one"
            ) from error
        self._socket.setblocking(False)
        self._clients: Clients[_Client] = Clients(self._socket, self._accept, listen_to, forget)
        self.expire = self._clients.expire
        self.close = self._clients.close

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

    def _accept(self) -> None:
        try:
            connected, _ = self._socket.accept()
        except OSError:
            return
        if len(self._clients) >= MOST_AT_ONCE:
            connected.close()
            return
        connected.setblocking(False)
        self._clients.add(connected.fileno(), _Client(connected), self._ready)

    def _ready(self, fd: int) -> None:
        client = self._clients.get(fd)
        if client is None:
            return
        try:
            if client.out:
                self._send(fd, client)
                return
            piece = client.socket.recv(MOST_HEAD)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._clients.drop(fd)
            return
        if not piece or client.asked:  # gone, or says more than it is asked to
            self._clients.drop(fd)
            return
        client.head += piece
        if b"\r\n\r\n" in client.head or b"\n\n" in client.head:
            client.asked = True
            client.deadline = time.monotonic() + _ANSWER_SECONDS
            self._answer(fd, client)
        elif len(client.head) >= MOST_HEAD:
            client.asked = True
            self._reply(fd, client, 431, _PLAIN, "the request is too long\n")

    def _answer(self, fd: int, client: _Client) -> None:
        words = client.head.split(b"\n", 1)[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/"):  # noqa: PLR2004
            self._reply(fd, client, 400, _PLAIN, "this is no request\n")
        elif words[0] not in {b"GET", b"HEAD"}:
            self._reply(fd, client, 405, _PLAIN, "GET or HEAD\n", "Allow: GET, HEAD\r\n")
        elif (path := words[1].split(b"?", 1)[0]) == b"/metrics":
            self._metrics(lambda text: self._reply(fd, client, 200, CONTENT_TYPE, text))
        elif path == b"/healthz":
            self._reply(fd, client, 200, _PLAIN, "ok\n")
        else:
            self._reply(fd, client, 404, _PLAIN, "not here; try /metrics or /healthz\n")

    def _reply(self, fd: int, client: _Client, status: int, kind: str, text: str, more: str = "") -> None:
        if self._clients.get(fd) is not client:
            return
        body = text.encode("utf-8", "replace")
        head = (
            f"HTTP/1.0 {status} {_REASONS[status]}\r\nServer: otel-trading\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\n{more}\r\n"
        )
        client.out = head.encode() + (b"" if client.head.startswith(b"HEAD ") else body)
        client.deadline = time.monotonic() + REQUEST_SECONDS
        try:
            self._send(fd, client)
        except OSError:
            self._clients.drop(fd)

    def _send(self, fd: int, client: _Client) -> None:
        while client.out:
            try:
                sent = client.socket.send(client.out)
            except (BlockingIOError, InterruptedError):
                self._clients.listen_to(fd, lambda: self._ready(fd), write=True)
                return
            client.out = client.out[sent:]
        self._clients.drop(fd)
