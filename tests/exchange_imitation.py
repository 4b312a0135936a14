"""An exchange on loopback, as ccxt's ``binance`` class expects one: REST, and a websocket of market data."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

MARKET: dict[str, Any] = {
    "id": "BTCUSDT",
    "lowercaseId": "btcusdt",
    "symbol": "BTC/USDT",
    "base": "BTC",
    "quote": "USDT",
    "baseId": "BTC",
    "quoteId": "USDT",
    "active": True,
    "type": "spot",
    "spot": True,
    **dict.fromkeys(("margin", "swap", "future", "option", "contract"), False),
    **dict.fromkeys(("linear", "inverse", "settle", "contractSize", "expiry", "subType"), None),
    "precision": {"amount": 0.001, "price": 0.01},
    "limits": {"amount": {}, "price": {}, "cost": {}},
    "info": {"orderTypes": ["LIMIT", "MARKET"]},
}


class Exchange:
    """What the server was asked, and how it answers."""

    def __init__(self) -> None:
        """Begin with a server that fills every order at once."""
        self.url = ""
        self.asked: list[str] = []
        self.failures = 0  # that come before an answer
        self.reject = False

    def answer(self, method: str, target: str, body: str) -> tuple[int, Any]:
        """Give status and JSON of an answer; errors echo the request, as exchanges do."""
        self.asked.append(f"{method} {target}")
        path, query = urlsplit(target).path, {**parse_qs(urlsplit(target).query), **parse_qs(body)}
        if self.failures:
            self.failures -= 1
            return 503, {"code": -1001, "msg": f"busy: {target} {body}"}
        if self.reject or not path.endswith(("/order", "/openOrders")):
            return 400, {"code": -2010, "msg": f"Account has insufficient balance for {target} {body}"}
        client_id = (query.get("newClientOrderId") or query.get("origClientOrderId") or ["made-by-venue"])[0]
        state = "CANCELED" if method == "DELETE" else "FILLED" if method == "GET" else "NEW"
        filled = "1.0" if state == "FILLED" else "0.0"
        order = {
            "symbol": "BTCUSDT",
            "orderId": 28,
            "clientOrderId": client_id,
            "transactTime": int(time.time() * 1e3),
            "time": int(time.time() * 1e3),
            "price": "100.0",
            "origQty": "1.0",
            "executedQty": filled,
            "cummulativeQuoteQty": "100.0" if state == "FILLED" else "0.0",
            "status": state,
            "timeInForce": "GTC",
            "type": "LIMIT",
            "side": "BUY",
        }
        return 200, [order] if path.endswith("/openOrders") else order


@contextmanager
def exchange() -> Iterator[Exchange]:
    """Run one."""
    state = Exchange()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            status, found = state.answer(self.command, self.path, body)
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_PUT = do

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client(kind: Any, url: str, **options: Any) -> Any:
    """Make one of ccxt's ``binance`` classes for a server, with a market that need not be loaded."""
    made = kind({"apiKey": "no-key", "secret": "no-secret", "enableRateLimit": True, **options})
    made.urls["api"] = {
        name: address if name == "ws" else f"{url}/api/v3" for name, address in made.urls["api"].items()
    }
    made.set_markets([MARKET])
    return made
