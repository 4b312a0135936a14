"""The agent's ``/metrics``: what a client gets, and what it can not make the agent do."""

from __future__ import annotations

import selectors
import socket
import time
from typing import TYPE_CHECKING

import pytest

from otel_trading.agent import web
from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT = "# TYPE a gauge\na 1\n# EOF\n"
OK = b"HTTP/1.0 200 OK\r\n"


class Loop:
    """A loop of one server, turned by hand."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.asked: list[Callable[[str], None]] = []
        self.at_once = True
        self.web = web.Web("127.0.0.1", 0, self.metrics, self.listen, self.unlisten)
        self.address = self.web._socket.getsockname()

    def metrics(self, reply: Callable[[str], None]) -> None:
        """Answer at once, or keep who is to be answered."""
        if self.at_once:
            reply(TEXT)
        else:
            self.asked.append(reply)

    def listen(self, fd: int, called: Callable[[], None], write: bool = False) -> None:  # noqa: FBT001, FBT002
        """As the agent's."""
        events = selectors.EVENT_WRITE if write else selectors.EVENT_READ
        try:
            self.selector.register(fd, events, called)
        except KeyError:
            self.selector.modify(fd, events, called)

    def unlisten(self, fd: int) -> None:
        """As the agent's."""
        self.selector.unregister(fd)

    def turn(self) -> None:
        """Do what there is to do."""
        while found := self.selector.select(0.05):
            for key, _ in found:
                key.data()

    def connect(self) -> socket.socket:
        """Connect a client."""
        client = socket.create_connection(self.address, timeout=10.0)
        self.turn()
        return client

    def ask(self, request: bytes) -> bytes:
        """Send a request; gives the whole answer."""
        with self.connect() as client:
            client.sendall(request)
            self.turn()
            return rest_of(client)


def rest_of(client: socket.socket) -> bytes:
    """Read until the server closes, which it must."""
    pieces = []
    while piece := client.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Give a server at a free port."""
    made = Loop()
    yield made
    made.web.close()
    made.selector.close()


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=a"])
def test_metrics(loop: Loop, path: str) -> None:
    """The exposition comes with its length and type."""
    head, _, body = loop.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).partition(b"\r\n\r\n")
    assert head.startswith(OK)
    assert f"Content-Length: {len(TEXT)}".encode() in head
    assert body.decode() == TEXT


def test_head_has_no_body(loop: Loop) -> None:
    """Only the headers of what GET would give."""
    answer = loop.ask(b"HEAD /metrics HTTP/1.0\r\n\r\n")
    assert answer.startswith(OK)
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\n\n", 200),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /metrics SPDY\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: ".ljust(web.MOST_HEAD, b"x"), 431),
    ],
)
def test_other_requests(loop: Loop, request_: bytes, status: int) -> None:
    """Each has its status, and the connection is closed."""
    assert loop.ask(request_).startswith(b"HTTP/1.0 %d " % status)
    assert not loop.web._clients


def test_a_request_in_pieces_and_a_late_answer(loop: Loop) -> None:
    """The head may come byte by byte, and the agent answers when it has gathered its metrics."""
    loop.at_once = False
    with loop.connect() as client:
        for byte in b"GET /metrics HTTP/1.1\r\n\r\n":
            client.sendall(bytes([byte]))
            loop.turn()
        loop.asked[0]("b 2\n")
        loop.turn()
        assert rest_of(client).endswith(b"\r\n\r\nb 2\n")
        loop.asked[0]("again\n")  # nobody is there any more


def test_an_answer_larger_than_the_socket_takes(loop: Loop) -> None:
    """It leaves as the client reads it, and the agent never waits for that."""
    loop.at_once = False
    with loop.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        loop.turn()
        whole = "x" * (16 << 20)
        loop.asked[0](whole)
        assert loop.web._clients
        read = 0
        while loop.web._clients:
            read += len(client.recv(1 << 20))
            loop.turn()
        assert read + len(rest_of(client)) > len(whole)


def test_who_takes_too_long_is_closed(loop: Loop) -> None:
    """One that says nothing, and one that does not read: neither stays."""
    with loop.connect() as client:
        loop.web.expire(time.monotonic())
        assert len(loop.web._clients) == 1
        loop.web.expire(time.monotonic() + web.REQUEST_SECONDS)
        assert not loop.web._clients
        assert client.recv(1) == b""


def test_no_more_than_so_many_at_once(loop: Loop) -> None:
    """One more is closed at once, and those that are there are served."""
    clients = [loop.connect() for _ in range(web.MOST_AT_ONCE + 1)]
    try:
        assert clients[-1].recv(1) == b""
        clients[0].sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        loop.turn()
        assert rest_of(clients[0]).endswith(b"ok\n")
    finally:
        for client in clients:
            client.close()


def test_who_says_more_than_it_is_asked_to_is_closed(loop: Loop) -> None:
    """A second request before the first one's answer is none."""
    loop.at_once = False
    with loop.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        loop.turn()
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        loop.turn()
        assert not loop.web._clients
        assert client.recv(1) == b""
        assert len(loop.asked) == 1


def test_a_port_that_is_taken(loop: Loop) -> None:
    """It says which, and what to do."""
    with pytest.raises(OtelTradingError, match=r"metrics\.port"):
        web.Web(loop.address[0], loop.address[1], loop.metrics, loop.listen, loop.unlisten)
