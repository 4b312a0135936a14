"""An OTLP receiver, and what it got in a form that two runs can be compared by."""

from __future__ import annotations

import gzip
import http.server
import re
import threading
import zlib
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_NOW = 1_650_000_000_000_000_000  # what is later, the program did not give
# The frames of the API's own context managers, which the SDK's spans are left through.
_FRAMES = re.compile(r'  File "[^"]*(?:/opentelemetry/|/contextlib\.py|/otel_trading/api/)[^\n]*\n(?:    [^\n]*\n)*')


class Receiver:
    """An HTTP server on a free port of the loopback interface."""

    def __init__(self) -> None:
        """Begin to listen."""
        self.requests: list[ExportTraceServiceRequest] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                encoding = self.headers.get("content-encoding", "")
                if encoding == "gzip":
                    body = gzip.decompress(body)
                elif encoding == "deflate":
                    body = zlib.decompress(body)
                receiver.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def value(any_value: Any) -> Any:
    """Write an AnyValue plainly, its type included."""
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(item) for item in any_value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: value(item.value) for item in any_value.kvlist_value.values}
    return (kind, repr(getattr(any_value, kind))) if kind else None


def pairs(attributes: Any) -> list[tuple[str, Any]]:
    """Write attributes plainly, in their order."""
    found = []
    for item in attributes:
        text = value(item.value)
        if item.key == "exception.stacktrace":
            text = _FRAMES.sub("", item.value.string_value)
        found.append((item.key, text))
    return found


def comparable(requests: list[ExportTraceServiceRequest]) -> dict[str, Any]:
    """Give name → span, ids as names of spans where they are of spans that were received, and new times as ``now``."""
    spans = [
        (scoped.scope, scoped.schema_url, span)
        for request in requests
        for resource in request.resource_spans
        for scoped in resource.scope_spans
        for span in scoped.spans
    ]
    names = {span.span_id: span.name for _, _, span in spans}
    assert len(names) == len(set(names.values())) == len(spans), "names of spans are to be unique"
    roots: dict[bytes, str] = {}
    for name, span in sorted((span.name, span) for _, _, span in spans):
        roots[span.trace_id] = min(name, roots.get(span.trace_id, name))

    def time(ns: int) -> object:
        return ns if ns < _NOW else "now"

    def trace_of(trace_id: bytes) -> str:
        return roots.get(trace_id, trace_id.hex())

    def span_of(span_id: bytes) -> str:
        return names.get(span_id, span_id.hex())

    return {
        span.name: {
            "scope": (scope.name, scope.version, pairs(scope.attributes), schema_url),
            "trace": trace_of(span.trace_id),
            "parent": span_of(span.parent_span_id),
            "trace state": span.trace_state,
            "flags": span.flags,
            "kind": span.kind,
            "start": time(span.start_time_unix_nano),
            "end": time(span.end_time_unix_nano),
            "in order": span.end_time_unix_nano >= span.start_time_unix_nano,
            "attributes": pairs(span.attributes),
            "attributes dropped": span.dropped_attributes_count,
            "events": [
                (event.name, time(event.time_unix_nano), pairs(event.attributes), event.dropped_attributes_count)
                for event in span.events
            ],
            "events dropped": span.dropped_events_count,
            "links": [
                (
                    trace_of(link.trace_id), span_of(link.span_id), link.trace_state, pairs(link.attributes),
                    link.flags, link.dropped_attributes_count,
                )
                for link in span.links
            ],
            "links dropped": span.dropped_links_count,
            "status": (span.status.code, span.status.message),
        }
        for scope, schema_url, span in spans
    }  # fmt: skip


def resources(requests: list[ExportTraceServiceRequest]) -> list[dict[str, Any]]:
    """Give the attributes of the resources, each once."""
    found: list[dict[str, Any]] = []
    for request in requests:
        for resource in request.resource_spans:
            attributes = dict(pairs(resource.resource.attributes))
            if attributes not in found:
                found.append(attributes)
    return found
