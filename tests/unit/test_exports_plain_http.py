"""Plain http by our own transport: the bytes of the stock one, and every kind of answer."""

from __future__ import annotations

import gc
import gzip
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="otel-trading[otlp] is not installed")

import requests
from opentelemetry.exporter.http.transport._requests import RequestsHTTPTransport

from otel_trading.drain.plain_http import USUAL_HEADERS, NotConnectedError, PlainTransport, _is_over, plain
from otel_trading.drain.wire import unsent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Server:
    """Answers requests with what it was given, one after the other, and keeps what came."""

    def __init__(self, answers: list[bytes]) -> None:
        """Listen; an answer that ends with CLOSE is the connection's last."""
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1/traces"
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        """Serve until all answers are given."""
        while self.answers:
            connection, _ = self.socket.accept()
            self.connections += 1
            with connection:
                while self.answers and self.one(connection):
                    pass

    def one(self, connection: socket.socket) -> bool:
        """Answer one request; whether the connection goes on."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return False
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        (length,) = [
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-len")
        ]
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        answer = self.answers.pop(0)
        connection.sendall(answer.removesuffix(b"CLOSE"))
        return not answer.endswith(b"CLOSE")


@contextmanager
def serving(*answers: bytes) -> Iterator[Server]:
    """Run a server."""
    server = Server(list(answers))
    try:
        yield server
    finally:
        server.answers = []
        socket.create_connection(server.socket.getsockname()).close()
        server.thread.join(20)
        server.socket.close()


def transport(url: str) -> Any:
    """Give ours for a URL."""
    made = plain(RequestsHTTPTransport(), url)
    assert type(made) is PlainTransport
    return made


def post(sender: Any, url: str, data: bytes = b"body", timeout: float = 20.0) -> Any:
    """Send one request."""
    return sender.request("POST", url, headers={"Content-Type": "x/y", "user-AGENT": "us"}, data=data, timeout=timeout)


def fields(request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Take a request apart: its first line, its headers without their order, its body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert len({line.partition(b":")[0].lower() for line in lines}) == len(lines)
    return first, {line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in lines}, body


def test_a_request_is_that_of_the_stock_transport() -> None:
    """First line, headers and body are the same, but for the headers' order; the connection is used again."""
    with serving(OK, OK, OK) as server:
        ours = transport(server.url)
        stock = RequestsHTTPTransport()
        results = [post(ours, server.url), post(ours, server.url)]
        ours.close()
        results.append(post(stock, server.url))
        stock.close()
    assert fields(server.requests[0]) == fields(server.requests[1]) == fields(server.requests[2])
    assert server.connections == 2
    for result in results:
        assert (result.status_code, result.reason, result.error, result.content()) == (200, "OK", None, b"hi")
        assert result.headers().get("Content-LENGTH") == "2"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"hi"),
        (b"HTTP/1.1 503 Busy Now\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 503, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nxCLOSE", 200, b"x"),
        (b"HTTP/1.0 200 OK\r\n\r\nto the endCLOSE", 200, b"to the end"),
    ],
)
def test_every_kind_of_answer_is_read(answer: bytes, status: int, body: bytes) -> None:
    """With a length, in chunks, to the end, none; and the next request goes through after each."""
    with serving(answer, OK) as server:
        ours = transport(server.url)
        first, second = post(ours, server.url), post(ours, server.url)
        ours.close()
    assert (first.status_code, first.content(), first.error) == (status, body, None)
    assert first.headers().get("retry-after") == ("7" if status == 503 else None)
    assert second.status_code == 200


def test_a_compressed_answer_is_read() -> None:
    """As we say that we take it."""
    packed = gzip.compress(b"partial success")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with serving(head + packed) as server:
        ours = transport(server.url)
        assert post(ours, server.url).content() == b"partial success"
        ours.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"SMTP ready\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnothing\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nxCLOSE",
        b"CLOSE",
        b"x" * 70_000 + b"CLOSE",
    ],
)
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    """Nothing is raised; the connection is given up, and the next request has a new one."""
    with serving(answer, OK) as server:
        ours = transport(server.url)
        result = post(ours, server.url)
        assert result.error is not None
        assert result.status_code is None
        assert not unsent(result.error)
        assert post(ours, server.url).status_code == 200
        ours.close()
    assert server.connections == 2


@given(st.binary(max_size=300))
def test_garbage_gives_an_error_or_an_answer(noise: bytes) -> None:
    """Whatever a receiver says, a request ends with a result."""
    here, there = socket.socketpair()
    ours = PlainTransport("http://localhost/", USUAL_HEADERS, RequestsHTTPTransport())
    ours._connection = here
    with there:
        there.sendall(b"HTTP/1.1 " + noise)
        there.shutdown(socket.SHUT_WR)
        result = post(ours, "http://localhost/")
    assert (result.error is None) is (result.status_code is not None)
    ours.close()


def sending(told: list[Any], what: Any) -> Callable[[int, bytes, float], None]:
    """Give what sends the rest of a request, and tells that it did."""

    def send(fd: int, rest: bytes, _: float) -> None:
        assert os.write(fd, rest) == len(rest) == 1
        told.append(what() if callable(what) else what)

    return send


def test_the_last_byte_of_a_request_is_sent_by_who_notes_it() -> None:
    """That is before the answer, and not where nobody took what was before."""
    with serving(OK, OK) as server:
        sender = transport(server.url)
        told: list[tuple[int, bool]] = []
        sender.hand_over = sending(told, lambda: (len(server.answers), server.thread.is_alive()))
        assert post(sender, server.url, b"x" * 8_000_000).status_code == 200
        assert len(told) == 1
        sender.hand_over = None
        assert post(sender, server.url).status_code == 200
        assert len(told) == 1
        assert len(server.requests[0]) > 8_000_000
        sender.close()
    sender.hand_over = sending(told, (0, False))
    assert isinstance(post(sender, server.url).error, NotConnectedError)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (OK, True),
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", False),
        (b"CLOSE", False),
    ],
)
def test_it_tells_when_what_was_handed_over_was_not_taken(answer: bytes, taken: bool) -> None:  # noqa: FBT001
    """That is any answer but a yes, and none."""
    with serving(answer) as server:
        sender = transport(server.url)
        told: list[str] = []
        sender.hand_over, sender.not_taken = sending(told, "handed over"), lambda: told.append("not taken")
        post(sender, server.url)
        assert told == (["handed over"] if taken else ["handed over", "not taken"])
        sender.close()


def test_a_connection_that_the_receiver_has_closed_is_not_used_again(until: Callable[..., None]) -> None:
    """What would be handed over to nobody goes out on a new one."""
    with serving(OK + b"CLOSE", OK) as server:
        sender = transport(server.url)
        told: list[int] = []
        assert post(sender, server.url).status_code == 200
        until(lambda: _is_over(sender._connection))
        sender.hand_over = sending(told, 1)
        assert post(sender, server.url).status_code == 200
        assert (told, server.connections) == ([1], 2)
        sender.close()


@pytest.mark.usefixtures("quiet")
def test_a_request_that_fails_leaves_no_garbage() -> None:
    """What it sent is let go at once, not at the next collection."""
    with serving() as server:
        url = server.url
    sender = transport(url)
    gc.collect()
    assert isinstance(post(sender, url, b"x" * 1000).error, NotConnectedError)
    assert gc.collect() == 0


def test_nobody_there_is_an_error_of_which_nothing_was_sent() -> None:
    """A connection that can not be made is told from one that broke."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    ours = transport(url)
    result = post(ours, url)
    assert isinstance(result.error, NotConnectedError)
    assert unsent(result.error)
    assert ours.is_connection_error(result.error)
    assert not ours.is_connection_error(ValueError("no"))


def test_a_silent_receiver_costs_no_more_than_its_time() -> None:
    """The time limit holds for the answer too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        ours = transport(url)
        result = post(ours, url, timeout=0.05)
    assert isinstance(result.error, TimeoutError)
    assert not unsent(result.error)


def test_a_line_break_in_a_header_is_an_error() -> None:
    """Nobody adds headers of his own through a value."""
    with serving(OK) as server:
        ours = transport(server.url)
        result = ours.request("POST", server.url, headers={"a": "b\r\nc: d"}, data=b"")
    assert isinstance(result.error, ValueError)
    assert server.requests == []


@pytest.mark.parametrize(
    "url", ["https://host/", "http://user:secret@host/", "http:///nowhere", "ftp://host/", "http://proxied/"]
)
def test_all_else_is_the_stock_transports(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS, users, proxies."""
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "host,nowhere")
    stock = RequestsHTTPTransport()
    assert plain(stock, url) is stock


def test_a_session_of_the_programs_own_stays() -> None:
    """Credentials, adapters, hooks and kinds of sessions are what somebody put there for a reason."""

    class Own(requests.Session):
        pass

    signed, mounted, hooked = requests.Session(), requests.Session(), requests.Session()
    signed.auth = ("user", "secret")
    mounted.mount("http://", type("Adapter", (requests.adapters.HTTPAdapter,), {})())
    hooked.hooks["response"].append(print)
    for session in (Own(), signed, mounted, hooked):
        stock = RequestsHTTPTransport(session=session)
        assert plain(stock, "http://localhost/") is stock
    other = object()
    assert plain(other, "http://localhost/") is other


def test_other_requests_go_to_the_stock_transport() -> None:
    """It is there for one kind of request."""
    with serving(OK) as server:
        ours = PlainTransport("http://elsewhere/", USUAL_HEADERS, RequestsHTTPTransport())
        assert post(ours, server.url).status_code == 200
        ours._stock.close()
