"""OTLP receivers for tests, over http and grpc: they keep what they are sent, byte for byte, and answer as told."""

from __future__ import annotations

import gzip
import json
import ssl
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc  # type: ignore[import-untyped]
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TRACES = "/v1/traces"
METRICS = "/v1/metrics"
_METHODS = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": TRACES,
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": METRICS,
}
_REQUESTS: dict[str, Any] = {
    TRACES: trace_service.ExportTraceServiceRequest,
    METRICS: metrics_service.ExportMetricsServiceRequest,
}


class Request(NamedTuple):
    """One request: which signal, its headers in small letters, and its body without compression."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    compression: str


class Answer(NamedTuple):
    """What to say to a request of spans: busy for ``again_in`` seconds, never, or all but ``rejected`` spans."""

    again_in: float | None = None
    never: bool = False
    rejected: int = 0
    message: str = ""


class Certificates(NamedTuple):
    """PEM files: of the authority, of the server, and of a client, where the server asks for one."""

    authority: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path] | None


class Receiver:
    """What has been sent, and the answers that are still to be given; after those, all is taken."""

    def __init__(self) -> None:
        """Begin empty."""
        self.lock = threading.Lock()
        self.requests: list[Request] = []
        self.refused: list[Request] = []
        self.answers: list[Answer] = []
        self.before: Callable[[], object] = bool
        """Called before each answer."""

    def take(self, request: Request) -> Answer:
        """Keep a request; gives the answer to it."""
        self.before()
        with self.lock:
            answer = self.answers.pop(0) if self.answers and request.path == TRACES else Answer()
            (self.refused if answer.never or answer.again_in is not None else self.requests).append(request)
        return answer

    def bodies(self, path: str = TRACES) -> list[bytes]:
        """Return the bodies of one signal's requests that were taken."""
        with self.lock:
            return [request.body for request in self.requests if request.path == path]

    def parsed(self, path: str = TRACES) -> list[Any]:
        """Return one signal's requests."""
        return [_REQUESTS[path].FromString(body) for body in self.bodies(path)]

    def spans(self) -> list[Any]:
        """Return all spans received."""
        return [
            span
            for request in self.parsed()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources of all requests."""
        found = [resource.resource for request in self.parsed() for resource in request.resource_spans]
        found += [resource.resource for request in self.parsed(METRICS) for resource in request.resource_metrics]
        return [attributes(resource) for resource in found]

    def metrics(self, name: str) -> list[Any]:
        """Return one metric's appearances, oldest first."""
        return [
            metric
            for request in self.parsed(METRICS)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]


def attributes(owner: Any) -> dict[str, Any]:
    """Return attributes as a dict."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in owner.attributes}


def _response(answer: Answer) -> bytes:
    response = trace_service.ExportTraceServiceResponse()
    if answer.rejected or answer.message:
        response.partial_success.rejected_spans = answer.rejected
        response.partial_success.error_message = answer.message
    return bytes(response.SerializeToString())


# ---- http


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        """Take a request of either signal, and answer."""
        size = int(self.headers["Content-Length"])
        content = self.rfile.read(size)
        if len(content) < size:  # whoever sent it was killed before its end: a receiver takes nothing of that
            self.close_connection = True
            return
        compression = self.headers.get("Content-Encoding", "")
        if compression:
            content = gzip.decompress(content) if compression == "gzip" else zlib.decompress(content)
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.receiver.take(Request(self.path, headers, content, compression))
        if answer.again_in is not None:
            self.send_response(503)
            self.send_header("Retry-After", str(answer.again_in))
            self.end_headers()
            return
        if answer.never:
            self.send_response(400, answer.message or None)
            self.end_headers()
            return
        body = _response(answer)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Keep quiet."""


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let clients go away, or fail a handshake, without a word."""


@contextmanager
def over_http(receiver: Receiver, port: int = 0, tls: Certificates | None = None) -> Iterator[str]:
    """Run a receiver over http, and give its endpoint."""
    handler = type("_OneHandler", (_Handler,), {"receiver": receiver})
    with _Quiet(("127.0.0.1", port), handler) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls.server)
            if tls.client is not None:
                context.load_verify_locations(tls.authority)
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


# ---- grpc


class _Any(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Both services, without decoding anything."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def service(self, details: Any) -> Any:
        """Give the handler of a method."""
        path = _METHODS.get(details.method)
        headers = {item.key: item.value for item in details.invocation_metadata}

        def handle(body: bytes, context: Any) -> bytes:
            answer = self._receiver.take(Request(str(path), headers, body, ""))
            if answer.again_in is not None:
                whole = int(answer.again_in)
                delay = Duration(seconds=whole, nanos=round((answer.again_in - whole) * 1e9))
                info = RetryInfo(retry_delay=delay).SerializeToString()
                context.set_trailing_metadata((("google.rpc.retryinfo-bin", info),))
                context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
            if answer.never:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, answer.message)
            return _response(answer)

        return None if path is None else grpc.unary_unary_rpc_method_handler(handle)


@contextmanager
def over_grpc(receiver: Receiver, port: int = 0, tls: Certificates | None = None) -> Iterator[str]:
    """Run a receiver over grpc, and give its endpoint."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=(_Any(receiver),), options=(("grpc.so_reuseport", 0),))
    if tls is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        pairs = [tuple(path.read_bytes() for path in reversed(tls.server))]
        asked = tls.client is not None
        credentials = grpc.ssl_server_credentials(pairs, tls.authority.read_bytes() if asked else None, asked)
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield f"http{'s' if tls else ''}://localhost:{port}"
    finally:
        server.stop(None).wait()


OVER = {"http/protobuf": over_http, "grpc": over_grpc}


def environment(protocol: str, endpoint: str) -> dict[str, str]:
    """Return the standard variables for a process that exports to an endpoint."""
    return {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        # Proxies of the machine are not for the loopback.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def main(protocol: str, delay: str) -> None:
    """Print the endpoint, take ``delay`` seconds for each request, and tell the spans when the input ends."""
    receiver = Receiver()
    receiver.before = lambda: time.sleep(float(delay))
    with OVER[protocol](receiver) as endpoint:
        sys.stdout.write(endpoint + "\n")
        sys.stdout.flush()
        sys.stdin.read()
    ids = [span.trace_id + span.span_id for span in receiver.spans()]
    found = {"requests": len(receiver.bodies()), "spans": len(ids), "distinct": len(set(ids))}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
