"""Secrets fed through every door of the instrumentors, and looked for in all that leaves: spans, logs, the segment."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest
from exchange_imitation import client, exchange
from opentelemetry import trace
from otlp_receiver import OVER, Receiver, environment
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, InvalidStatus, InvalidURI

import otel_trading as ot
from otel_trading.api import TracerProvider
from otel_trading.instrument import logs
from otel_trading.instrument.ccxt import CcxtInstrumentor
from otel_trading.instrument.websockets import WebsocketsInstrumentor

# One for each door, so that a leak tells where it came through.
DOORS = """
    apikey secret password uid token privatekey walletaddress header urluser urlpass query path fragment subprotocol
    auth listenkey reason param clientparam method section fetchurl fetchheader fetchbody body symbol side ordertype
    invaliduri status extractor venuename option cookie streamquery watchsymbol closing
    """.split()  # noqa: SIM905
SECRETS = {door: f"S3CR3T{number:02d}{door}Z9y8X7w6" for number, door in enumerate(DOORS)}


class Everything(logging.Handler):
    """All that is logged, as text, with what a record carries."""

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.lines.append(f"{record.name} {record.getMessage()} {record.__dict__}")


@pytest.fixture
def leaving(
    make_recorder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Callable[[], bytes]]]:
    """Record and export with everything instrumented; give a tracer, and what has left when all is over."""
    receiver = Receiver()
    handler = Everything()
    ours = logging.getLogger("otel_trading")
    ours.addHandler(handler)
    with OVER["http/protobuf"](receiver) as endpoint:
        for name, value in environment("http/protobuf", endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        recorder = make_recorder()
        segments: list[bytes] = []

        def gather() -> bytes:
            segments.append(recorder.path.read_bytes())
            assert ot.flush(20)
            segments.append(recorder.path.read_bytes())
            recorder.faults_expected = recorder.faults
            exported = receiver.bodies()
            assert exported
            text = "\n".join(handler.lines).encode()
            return b"\n".join([*segments, *exported, text])

        logs.enable()
        CcxtInstrumentor().instrument()
        WebsocketsInstrumentor().instrument(
            message_age=_raising,
            venues={SECRETS["venuename"]: "x"},
            **{SECRETS["option"]: SECRETS["option"]},
        )
        try:
            yield TracerProvider().get_tracer("bot"), gather
        finally:
            CcxtInstrumentor().uninstrument()
            WebsocketsInstrumentor().uninstrument()
            logs.disable()
            ours.removeHandler(handler)


def _raising(_: object) -> float:
    raise ValueError(SECRETS["extractor"])


def found_in(left: bytes) -> list[str]:
    """Give the doors whose secrets have left."""
    return [door for door, secret in SECRETS.items() if secret.encode() in left]


def run(main: Awaitable[None]) -> None:
    """Run a coroutine with a deadline."""

    async def bounded() -> None:
        await asyncio.wait_for(main, 60)

    asyncio.run(bounded())


def credentials() -> dict[str, str]:
    """Every field of ccxt's that holds something secret."""
    names = {"apiKey": "apikey", "secret": "secret", "password": "password", "uid": "uid", "token": "token"}
    names |= {"privateKey": "privatekey", "walletAddress": "walletaddress"}
    return {field: SECRETS[door] for field, door in names.items()}


def test_the_search_finds_what_is_there(leaving: tuple[Any, Callable[[], bytes]]) -> None:
    """A secret that a program puts on a span itself is found in what left: the search is no empty one."""
    tracer, gather = leaving
    with tracer.start_as_current_span("x", attributes={"a": SECRETS["query"]}), ot.probe("secrets.test"):
        logging.getLogger("otel_trading").warning("%s", SECRETS["path"])
    left = gather()
    assert set(found_in(left)) == {"query", "path"}


def attempt(tracer: Any, name: str, action: Callable[[], Any]) -> None:
    """Call something that fails inside a tracer's span, which records the exception with its text and stack."""
    try:
        with tracer.start_as_current_span(name) as span:
            try:
                action()
            except Exception as error:
                span.record_exception(error)
                span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
                raise
    except Exception:  # noqa: BLE001
        traceback.format_exc()  # as a program that logs it would


def rest(tracer: Any, url: str) -> None:
    """Take the blocking classes through all that carries secrets; the server echoes all it gets in its errors."""
    made = client(ccxt.binance, url, **credentials())
    made.headers = {"X-Secret": SECRETS["header"]}
    secret_order = (SECRETS["symbol"], SECRETS["ordertype"], SECRETS["side"], 1, 100)
    attempt(tracer, "balance", lambda: made.fetch_balance({"x": SECRETS["param"]}))
    attempt(tracer, "order", lambda: made.create_order("BTC/USDT", "limit", "buy", 1, 100, {"x": SECRETS["param"]}))
    attempt(tracer, "strange", lambda: made.create_order(*secret_order))
    attempt(tracer, "request", lambda: made.request(SECRETS["path"], SECRETS["section"], SECRETS["method"]))
    attempt(
        tracer,
        "fetch",
        lambda: made.fetch(
            f"{url}/{SECRETS['fetchurl']}?listenKey={SECRETS['listenkey']}",
            "POST",
            {"X-MBX-APIKEY": SECRETS["fetchheader"], "Cookie": SECRETS["cookie"]},
            SECRETS["fetchbody"],
        ),
    )
    attempt(tracer, "cancel", lambda: made.cancel_order(SECRETS["body"] + " ", "BTC/USDT"))
    assert repr(made)


async def rest_async(tracer: Any, url: str) -> None:
    """Do the same with the async classes, whose HTTP library is another one."""
    made = client(ccxt.async_support.binance, url, **credentials())
    try:
        for name, call in (
            ("balance", made.fetch_balance({"x": SECRETS["param"]})),
            ("order", made.create_order("BTC/USDT", "limit", "buy", 1, 100, {"x": SECRETS["param"]})),
        ):
            with pytest.raises(ccxt.ExchangeError), tracer.start_as_current_span(name):
                await call
    finally:
        await made.close()


def test_nothing_leaves_through_ccxt(leaving: tuple[Any, Callable[[], bytes]]) -> None:
    """Keys, signatures, parameters, addresses, headers, bodies and errors of REST calls stay inside."""
    tracer, gather = leaving
    with exchange() as server:
        server.reject = True
        rest(tracer, server.url)
        run(rest_async(tracer, server.url))
        signatures = {part[10:] for line in server.asked for part in line.split("&") if part.startswith("signature=")}
        assert signatures
    left = gather()
    assert b"exchange.create_order" in left
    assert found_in(left) == []
    assert [one for one in signatures if one.encode() in left] == []


async def sockets(tracer: Any) -> None:
    """Take a websocket through all that carries secrets: address, headers, subprotocol, messages, closing."""

    async def handler(connection: ServerConnection) -> None:
        assert SECRETS["auth"] in str(await connection.recv())
        await connection.send(json.dumps({"listenKey": SECRETS["listenkey"], "ts": 1}))
        await connection.recv()
        await connection.close(1011, SECRETS["reason"])

    def process_request(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(403, SECRETS["status"]) if "refuse" in request.path else None

    async with serve(
        handler, "127.0.0.1", 0, process_request=process_request, subprotocols=[SECRETS["subprotocol"]]
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        address = (
            f"ws://{SECRETS['urluser']}:{SECRETS['urlpass']}@127.0.0.1:{port}"
            f"/ws/{SECRETS['path']}?token={SECRETS['query']}"
        )
        options: dict[str, Any] = {
            "additional_headers": {"Authorization": SECRETS["header"], "Cookie": SECRETS["cookie"]},
            "subprotocols": [SECRETS["subprotocol"]],
            "proxy": None,
        }
        async with connect(address, **options) as ws:
            await ws.send(json.dumps({"op": "login", "apiKey": SECRETS["auth"], "sign": SECRETS["secret"]}))
            await ws.recv()
            await ws.send("x")
            with pytest.raises(ConnectionClosedError), tracer.start_as_current_span("closed"):
                await ws.recv()
        with pytest.raises(InvalidStatus), tracer.start_as_current_span("refused"):
            await connect(f"{address}&refuse=1", **options)
        with pytest.raises(InvalidURI), tracer.start_as_current_span("invalid"):
            await connect(f"http://{SECRETS['invaliduri']}@127.0.0.1/#{SECRETS['fragment']}")


def test_nothing_leaves_through_websockets(leaving: tuple[Any, Callable[[], bytes]]) -> None:
    """Addresses, headers, subprotocols, login messages and reasons of closing stay inside."""
    tracer, gather = leaving
    run(sockets(tracer))
    left = gather()
    assert b"websocket.receive" in left
    assert found_in(left) == []


async def streams(tracer: Any) -> None:
    """Watch with a class of ccxt.pro: its address has a listen key, its data and its errors have secrets."""

    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(json.dumps({"error": {"code": -1, "msg": SECRETS["body"]}, "id": 1}))
        await connection.close(1011, SECRETS["closing"])

    async with serve(handler, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        made = client(ccxt.pro.binance, "http://127.0.0.1:9", **credentials())
        stream = f"ws://127.0.0.1:{port}/ws/{SECRETS['listenkey']}?k={SECRETS['streamquery']}"
        made.urls["api"]["ws"] = dict.fromkeys(made.urls["api"]["ws"], stream)
        try:
            with pytest.raises(ccxt.BaseError), tracer.start_as_current_span("watch"):
                await made.watch_trades("BTC/USDT")
            with pytest.raises(ccxt.BaseError), tracer.start_as_current_span("strange"):
                await made.watch_trades(SECRETS["watchsymbol"])
        finally:
            await made.close()


def test_nothing_leaves_through_ccxt_pro(leaving: tuple[Any, Callable[[], bytes]]) -> None:
    """Addresses, data and errors of streams stay inside."""
    tracer, gather = leaving
    run(streams(tracer))
    left = gather()
    assert b"watch" in left
    assert found_in(left) == []


def test_http_instrumentors_do_not_tell_signed_addresses(leaving: tuple[Any, Callable[[], bytes]]) -> None:
    """OpenTelemetry's instrumentor of the HTTP library under ccxt makes no span of a signed request, but of others."""
    import requests
    from opentelemetry.instrumentation.requests import RequestsInstrumentor

    tracer, gather = leaving
    RequestsInstrumentor().instrument(tracer_provider=TracerProvider())
    try:
        with exchange() as server:
            made = client(ccxt.binance, server.url, **credentials())
            attempt(tracer, "order", lambda: made.fetch_order(SECRETS["clientparam"], "BTC/USDT"))
            assert len(server.asked) == 1
            requests.get(f"{server.url}/seen", timeout=10)
    finally:
        RequestsInstrumentor().uninstrument()
    left = gather()
    assert b"/seen" in left
    assert b"signature=" not in left
