"""An OTLP receiver that takes everything, in a process of its own, so that exporters have somewhere to send.

Run as a program by its path, ``receiver.py http|grpc``: prints its port, counts until its standard input is closed,
then prints what it took.  Over http, GET /totals tells that at any time, without the spans.
"""

from __future__ import annotations

import gzip
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_LENGTH_DELIMITED = 2


class Totals:
    """What has been taken."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._lock = threading.Lock()
        self.requests = 0
        self.bytes = 0
        self.headers = 0
        self._bodies: list[tuple[bytes, str]] = []

    def take(self, body: bytes, *, headers: int = 0, packed: str = "", spans: bool = True) -> None:
        """Count one request; its spans are counted at the end, so as not to compete with who sends them.

        ``headers``: bytes of what came before the body; ``packed``: its Content-Encoding; ``spans``: it has some.
        """
        with self._lock:
            self.requests += 1
            self.bytes += len(body)
            self.headers += headers
            if spans:
                self._bodies.append((body, packed))

    def so_far(self) -> dict[str, int]:
        """Requests, bytes of their bodies, and of their headers."""
        with self._lock:
            return {"requests": self.requests, "bytes": self.bytes, "headers": self.headers}

    def told(self) -> dict[str, int]:
        """The same, and the spans in them."""
        unpacked = (gzip.decompress(body) if packed == "gzip" else body for body, packed in self._bodies)
        return {**self.so_far(), "spans": sum(map(count_spans, unpacked))}


def count_spans(body: bytes) -> int:
    """Count the spans of an ExportTraceServiceRequest without decoding them.  Raises IndexError for what is none."""
    return sum(
        1
        for resource_spans in _fields(body, 1)
        for scope_spans in _fields(resource_spans, 2)
        for _ in _fields(scope_spans, 2)
    )


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """Give the submessages of one field; all fields on the way have to be length-delimited, and are, above a span."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        length, at = _varint(message, at)
        if tag & 7 != _LENGTH_DELIMITED:
            message_ = f"field {tag >> 3} is not length-delimited"
            raise IndexError(message_)
        if tag >> 3 == number:
            yield message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that there are more
            return value, at
        shift += 7


class Handler(BaseHTTPRequestHandler):
    """Takes the body, and answers with an empty protobuf message, which is OTLP's "all accepted"."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Count one request."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.totals.take(  # type: ignore[attr-defined]
            body,
            headers=len(self.requestline) + len(bytes(self.headers)),
            packed=self.headers.get("Content-Encoding", ""),
            spans=self.path.endswith("/traces"),
        )
        self._answer(b"", "application/x-protobuf")

    def do_GET(self) -> None:
        """Tell what was taken so far."""
        self._answer(json.dumps(self.server.totals.so_far()).encode(), "application/json")  # type: ignore[attr-defined]

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of a sender that went away in the middle of a request."""


def _over_http(totals: Totals) -> tuple[int, Callable[[], object]]:
    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.totals = totals  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return server.server_address[1], stop


def _over_grpc(totals: Totals) -> tuple[int, Callable[[], object]]:
    import grpc  # type: ignore[import-untyped]

    def take(body: bytes, _: Any) -> bytes:
        totals.take(body)
        return b""

    class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(take) if details.method == _METHOD else None

    server = grpc.server(ThreadPoolExecutor(2), handlers=(Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return port, lambda: server.stop(None).wait()


def main(protocol: str = "http") -> None:
    """Serve on a free port of the loopback address."""
    totals = Totals()
    port, stop = (_over_grpc if protocol == "grpc" else _over_http)(totals)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    stop()
    sys.stdout.write(json.dumps(totals.told()) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
