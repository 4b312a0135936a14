"""An OTLP receiver that says 200 to everything, in a process of its own, so that exporters have somewhere to send.

Run as a program by its path: prints its port, counts until its standard input is closed, then prints what it took.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Takes the body, and answers with an empty protobuf message, which is OTLP's "all accepted"."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Count one request."""
        length = int(self.headers.get("Content-Length", "0"))
        self.rfile.read(length)
        totals = self.server.totals  # type: ignore[attr-defined]
        with totals["lock"]:
            totals["requests"] += 1
            totals["bytes"] += length
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve on a free port of the loopback address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    totals = {"lock": threading.Lock(), "requests": 0, "bytes": 0}
    server.totals = totals  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.shutdown()
    server.server_close()
    sys.stdout.write(json.dumps({"requests": totals["requests"], "bytes": totals["bytes"]}) + "\n")


if __name__ == "__main__":
    main()
