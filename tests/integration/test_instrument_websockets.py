"""Spans of the websockets library, against real servers on loopback."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import websockets.sync.client
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, InvalidStatus, InvalidURI
from websockets.sync.client import connect as connect_in_thread
from websockets.sync.connection import Connection as ThreadConnection

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.instrument import redaction
from otel_trading.instrument.websockets import WebsocketsInstrumentor

child = ot.probe("test.handle")
outer = ot.probe("test.outer")

Handler = Callable[[ServerConnection], Awaitable[None]]


@contextmanager
def instrumented(**options: Any) -> Iterator[None]:
    """Instrument the library meanwhile."""
    WebsocketsInstrumentor().instrument(**options)
    try:
        yield
    finally:
        WebsocketsInstrumentor().uninstrument()


@asynccontextmanager
async def server_of(handler: Handler, **options: Any) -> AsyncIterator[str]:
    """Run a server; give its address."""
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


def says(*messages: str | bytes) -> Handler:
    """Make a handler that sends messages and waits for the end."""

    async def handler(connection: ServerConnection) -> None:
        for message in messages:
            await connection.send(message)
        await connection.wait_closed()

    return handler


async def echo(connection: ServerConnection) -> None:
    """Send back what comes."""
    async for message in connection:
        await connection.send(message)


def run(main: Awaitable[None]) -> None:
    """Run a test's coroutine with a deadline."""

    async def bounded() -> None:
        await asyncio.wait_for(main, 30)

    asyncio.run(bounded())


async def queued(connection: Any, count: int) -> None:
    """Wait until so many messages are in the client's queue."""
    deadline = time.monotonic() + 20
    while len(connection.recv_messages.frames) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def of_client(records: list[Any]) -> list[Any]:
    """Give the spans of the client's side: those with a venue."""
    return [record for record in records if "trading.venue" in record.attributes]


def test_a_conversation_has_its_spans(recorder: Any) -> None:
    """Connecting, accepting, sending and receiving each have a span of their kind, with what is harmless to know."""

    async def main() -> None:
        with instrumented(venues={"127.0.0.1": "paper"}):
            async with (
                server_of(echo, subprotocols=["json"]) as address,
                connect(f"{address}/ws/v1?token=s3cr3t", subprotocols=["json"], proxy=None) as ws,
            ):
                await ws.send("hello")
                await ws.send(b"\x01\x02")
                assert [await ws.recv(), await ws.recv()] == ["hello", b"\x01\x02"]

    run(main())
    records = recorder.records()
    connected = next(record for record in records if record.name == "websocket.connect")
    port = connected.attributes["server.port"]
    assert connected.attributes == {
        "trading.venue": "paper",
        "url.full": f"ws://127.0.0.1:{port}/ws/v1",
        "server.address": "127.0.0.1",
        "server.port": port,
        "trading.websocket.attempt": 1,
        "trading.websocket.subprotocol": "json",
    }
    accepted = next(record for record in records if record.name == "websocket.accept")
    assert accepted.attributes == {
        "url.path": "/ws/v1",
        "http.response.status_code": 101,
        "trading.websocket.subprotocol": "json",
    }
    text, binary = (record for record in of_client(records) if record.name == "websocket.send")
    assert text.attributes == {"trading.venue": "paper", "messaging.message.body.size": 5}
    assert binary.attributes["trading.websocket.opcode"] == "binary"
    got_text, got_binary = (record for record in of_client(records) if record.name == "websocket.receive")
    assert got_text.attributes["messaging.message.body.size"] == 5
    assert "trading.websocket.opcode" not in got_text.attributes
    assert got_binary.attributes["trading.websocket.opcode"] == "binary"
    assert 0 <= got_text.attributes["trading.websocket.queue_lag"] < 20
    assert got_text.parent_id == got_binary.parent_id == 0
    assert got_text.trace_id != got_binary.trace_id
    kinds = {probe[0]: probe[4] for probe in recorder.segment.reader.probes()}
    expected = {"connect": 2, "accept": 1, "send": 3, "receive": 4}
    assert {name: kinds[f"websocket.{name}"] for name in expected} == expected


@pytest.mark.parametrize("iterating", [False, True])
def test_what_the_task_does_with_a_message_is_its_child(recorder: Any, *, iterating: bool) -> None:
    """From one ``recv`` to the next the message's span is the parent, also of tasks begun then; then no more."""

    async def handle() -> None:
        with child:
            await asyncio.sleep(0)

    async def main() -> None:
        async with server_of(says("1", "2", "3")) as address, connect(address, proxy=None) as ws:
            seen = []
            if iterating:
                async for message in ws:
                    await handle()
                    seen.append(message)
                    if len(seen) == 3:
                        break
            else:
                for _ in range(3):
                    seen.append(await ws.recv())
                    await asyncio.create_task(handle())
            assert seen == ["1", "2", "3"]
        assert core.current() is None  # closing has let it go

    with instrumented():
        run(main())
    records = recorder.records()
    received = [record for record in of_client(records) if record.name == "websocket.receive"]
    children = [record for record in records if record.name == "test.handle"]
    assert [one.parent_id for one in children] == [one.span_id for one in received]
    assert len({one.trace_id for one in received}) == 3


def test_a_span_of_the_programs_own_stays_current(recorder: Any) -> None:
    """Where the task has a current span the received message does not replace it, but links to it."""

    async def main() -> None:
        async with server_of(says("1")) as address:
            with outer.span() as span:
                async with connect(address, proxy=None) as ws:
                    await ws.recv()
                    assert core.current() is span
                    with child:
                        pass

    with instrumented():
        run(main())
    records = recorder.records()
    (received,) = (record for record in of_client(records) if record.name == "websocket.receive")
    above = next(record for record in records if record.name == "test.outer")
    assert next(record for record in records if record.name == "test.handle").parent_id == above.span_id
    assert received.trace_id != above.trace_id
    (link,) = received.links
    assert above.trace_id.to_bytes(16, "big") in link
    assert above.span_id.to_bytes(8, "big") in link


def test_it_need_not_be_current(recorder: Any) -> None:
    """With ``current_after_receive=False`` messages are recorded and nothing becomes their child."""

    async def main() -> None:
        async with server_of(says("1")) as address, connect(address, proxy=None) as ws:
            await ws.recv()
            assert core.current() is None

    with instrumented(current_after_receive=False):
        run(main())
    assert len([record for record in recorder.records() if record.name == "websocket.receive"]) == 1


def test_another_task_that_receives_does_not_take_it_away(recorder: Any) -> None:
    """A task that was begun with a message, and receives elsewhere, leaves the first task able to go on."""

    async def main() -> None:
        async with (
            server_of(says("1", "2")) as address,
            connect(address, proxy=None) as first,
            connect(address, proxy=None) as second,
        ):

            async def other() -> None:
                await second.recv()

            await first.recv()
            await asyncio.create_task(other())
            with child:
                pass
            await first.recv()
            with child:
                pass

    with instrumented():
        run(main())
    records = recorder.records()
    received = {record.span_id: record for record in records if record.name == "websocket.receive"}
    parents = [record.parent_id for record in records if record.name == "test.handle"]
    assert len(parents) == len(set(parents)) == 2
    assert set(parents) <= set(received)


def test_a_burst_shows_in_lag_and_backlog(recorder: Any) -> None:
    """Messages that wait in the client's queue have their arrival before it, and those behind them counted."""
    count = 10

    async def main() -> None:
        async with server_of(says(*"x" * count)) as address, connect(address, max_queue=None, proxy=None) as ws:
            await queued(ws, count)
            await asyncio.sleep(0.05)  # the lag that is to be seen
            for _ in range(count):
                await ws.recv()

    with instrumented():
        run(main())
    received = [record for record in of_client(recorder.records()) if record.name == "websocket.receive"]
    assert [one.attributes.get("trading.websocket.backlog", 0) for one in received] == list(reversed(range(count)))
    assert all(one.attributes["trading.websocket.queue_lag"] >= 0.05 for one in received)
    assert all((one.end - one.start) / 1e9 >= 0.05 for one in received)
    instruments = {one["name"]: one for one in core.snapshot()["instruments"] if one["updates"]}
    assert instruments["trading.websocket.queue_lag"]["updates"] >= count
    assert instruments["trading.websocket.backlog"]["value"] == 0


def test_messages_have_an_age(recorder: Any) -> None:
    """The exchange's stamp in the message gives its age; one that is no stamp of now gives none."""

    async def main() -> None:
        stamped = [json.dumps({"time_ms": int((time.time() - past) * 1e3)}) for past in (2.0, 3e6)]
        async with server_of(says(*stamped, "{}")) as address, connect(address, proxy=None) as ws:
            for _ in range(3):
                await ws.recv()

    with instrumented(venues={"127.0.0.1": "gateio"}):
        run(main())
    received = [record for record in of_client(recorder.records()) if record.name == "websocket.receive"]
    ages = [record.attributes.get("trading.message.age") for record in received]
    assert 2.0 <= ages[0] < 20.0
    assert ages[1:] == [None, None]


@pytest.mark.parametrize(("extractor", "age"), [(False, None), (lambda _: time.time() - 5.0, 5.0)])
def test_the_program_may_say_where_the_stamp_is(recorder: Any, extractor: Any, age: float | None) -> None:
    """``message_age`` is False for none, or a function of the message."""

    async def main() -> None:
        message = json.dumps({"ts": int(time.time() * 1e3)})
        async with server_of(says(message)) as address, connect(address, proxy=None) as ws:
            await ws.recv()

    with instrumented(message_age=extractor):
        run(main())
    (received,) = (record for record in of_client(recorder.records()) if record.name == "websocket.receive")
    found = received.attributes.get("trading.message.age")
    assert found is None if age is None else found == pytest.approx(age, abs=1.0)


def test_fragments_are_one_message(recorder: Any) -> None:
    """A message in parts has one span, from its first part, and its size; streamed it has one as well."""

    async def handler(connection: ServerConnection) -> None:
        await connection.send(["ab", "cd", "e"])
        await connection.send(["fg", "h"])
        await connection.send("last")
        await connection.wait_closed()

    async def main() -> None:
        async with server_of(handler) as address, connect(address, proxy=None) as ws:
            assert await ws.recv() == "abcde"
            assert "".join([part async for part in ws.recv_streaming()]) == "fgh"
            assert await ws.recv() == "last"

    with instrumented():
        run(main())
    received = [record for record in of_client(recorder.records()) if record.name == "websocket.receive"]
    assert [one.attributes.get("messaging.message.body.size") for one in received] == [5, None, 4]
    assert all("trading.websocket.queue_lag" in one.attributes for one in received)


def test_a_cancelled_recv_loses_nothing(recorder: Any) -> None:
    """A ``recv`` that times out leaves no span, and the message that comes later has its own."""

    async def main() -> None:
        go = asyncio.Event()

        async def handler(connection: ServerConnection) -> None:
            await go.wait()
            await connection.send("1")
            await connection.wait_closed()

        async with server_of(handler) as address, connect(address, proxy=None) as ws:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ws.recv(), 0.01)
            go.set()
            assert await ws.recv() == "1"

    with instrumented():
        run(main())
    (received,) = (record for record in of_client(recorder.records()) if record.name == "websocket.receive")
    assert "trading.websocket.queue_lag" in received.attributes


def test_reconnecting_counts_and_links(recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later rounds of ``async for … in connect()`` are reconnects, with the attempt's number and a link to the last."""
    refuse = iter([False, True, True, False])

    async def process_request(connection: ServerConnection, _: Any) -> Any:
        return connection.respond(503, "busy") if next(refuse) else None

    monkeypatch.setattr("websockets.client.backoff.__defaults__", (0.0, 0.0, 0.0, 1.0))

    async def main() -> None:
        async with server_of(echo, process_request=process_request) as address:
            rounds = 0
            async for ws in connect(address, proxy=None):
                rounds += 1
                if rounds == 2:
                    break
                await ws.close()

    with instrumented():
        run(main())
    records = [record for record in recorder.records() if record.name in ("websocket.connect", "websocket.reconnect")]
    assert [record.name for record in records] == ["websocket.connect", *["websocket.reconnect"] * 3]
    assert [record.attributes["trading.websocket.attempt"] for record in records] == [1, 1, 2, 3]
    assert [record.attributes.get("http.response.status_code") for record in records] == [None, 503, 503, None]
    assert [bool(record.error) for record in records] == [False, True, True, False]
    for before, after in itertools.pairwise(records):
        assert before.span_id.to_bytes(8, "big") in after.links[0]


def test_errors_are_types_without_text(recorder: Any) -> None:
    """A failed connection has the error's type and status; its exception is marked, as its text has the address."""

    def process_request(connection: ServerConnection, _: Any) -> Any:
        return connection.respond(401, "s3cr3t")

    async def main() -> None:
        async with server_of(echo, process_request=process_request) as address:
            with pytest.raises(InvalidStatus) as failed:
                await connect(f"{address}?token=s3cr3t", proxy=None)
            assert redaction.is_marked(failed.value)
        with pytest.raises(InvalidURI) as invalid:
            await connect("http://s3cr3t@host/")
        assert redaction.is_marked(invalid.value)

    with instrumented():
        run(main())
    records = recorder.records()
    failed = next(record for record in records if record.name == "websocket.connect")
    assert failed.status == 2
    assert failed.error.endswith("InvalidStatus")
    assert failed.attributes["http.response.status_code"] == 401
    assert b"s3cr3t" not in recorder.path.read_bytes()


def test_a_closed_connection_raises_as_ever(recorder: Any) -> None:
    """Receiving and sending on a connection that was closed raise what the library raises; the send has the error."""

    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(1011, "s3cr3t")

    async def main() -> None:
        async with server_of(handler) as address, connect(address, proxy=None) as ws:
            await ws.send("x")
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
            with pytest.raises(ConnectionClosedError):
                await ws.send("y")

    with instrumented():
        run(main())
    sent = [record for record in of_client(recorder.records()) if record.name == "websocket.send"]
    assert [record.status for record in sent] == [0, 2]


def test_trace_context_travels_only_where_it_is_asked_for(recorder: Any) -> None:
    """With ``propagate`` a received message is a child of the span that sent it; else nothing is added."""

    async def main(address: str, expected: list[str]) -> None:
        async with connect(address, proxy=None) as ws:
            await ws.send('{"a":1}')
            assert list(json.loads(await ws.recv())) == expected

    async def both() -> None:
        async with server_of(echo) as address:
            with instrumented():
                await main(address, ["a"])
            with instrumented(propagate=["elsewhere:1"]):
                await main(address, ["a"])
            recorder.records()
            with instrumented(propagate=[address.removeprefix("ws://")]):
                await main(address, ["traceparent", "a"])

    run(both())
    records = recorder.records()
    (sent,) = (record for record in of_client(records) if record.name == "websocket.send")
    arrived = next(record for record in records if record.parent_id == sent.span_id)
    assert arrived.name == "websocket.receive"
    assert "trading.venue" not in arrived.attributes  # the server's
    assert {record.trace_id for record in records if record.name != "websocket.accept"} >= {sent.trace_id}


def test_connections_opened_before_are_instrumented_too(recorder: Any) -> None:
    """Instrumenting while a task waits in ``recv`` and messages are queued misses nothing that comes afterwards."""

    async def main() -> None:
        async with server_of(echo) as address, connect(address, proxy=None) as ws:
            waiting = asyncio.create_task(ws.recv())
            await asyncio.sleep(0)
            with instrumented():
                await ws.send("1")
                assert await waiting == "1"
                await ws.send("2")
                assert await ws.recv() == "2"
                await ws.send("3")
                await queued(ws, 1)
            assert await ws.recv() == "3"

    run(main())
    received = [record for record in of_client(recorder.records()) if record.name == "websocket.receive"]
    with_size = [record for record in received if not record.flags & 8]
    assert len(with_size) == 1
    assert "trading.websocket.queue_lag" in with_size[0].attributes


def test_uninstrumenting_restores_everything(recorder: Any) -> None:
    """The library's classes are as before, and nothing is recorded any more."""
    import websockets.asyncio.client
    import websockets.asyncio.server

    owners = [
        Connection,
        ThreadConnection,
        websockets.asyncio.client.connect,
        websockets.asyncio.server.ServerConnection,
    ]
    before = [dict(vars(owner)) for owner in owners]
    with instrumented():
        WebsocketsInstrumentor().instrument()
        assert vars(Connection)["recv"] is not before[0]["recv"]
    assert [dict(vars(owner)) for owner in owners] == before

    async def main() -> None:
        async with server_of(echo) as address, connect(address, proxy=None) as ws:
            await ws.send("x")
            await ws.recv()

    run(main())
    assert recorder.records() == []


def test_the_threading_client(recorder: Any) -> None:
    """Connect, send, receive and close of the blocking client; the message is current in the thread that received."""
    from websockets.sync.server import serve as serve_in_thread

    def handler(connection: Any) -> None:
        for message in connection:
            connection.send(message)

    # From 17 on the library asks to be told which way to connect is meant.
    explicit: dict[str, Any] = {"legacy": False} if hasattr(websockets.sync.client, "reconnect") else {}
    with instrumented(venues={"127.0.0.1": "paper"}), serve_in_thread(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        with connect_in_thread(f"ws://127.0.0.1:{port}/ws?x=s3cr3t", proxy=None, **explicit) as ws:
            ws.send("hello")
            assert ws.recv() == "hello"
            with child:
                pass
            ws.send(["a", "b"])
            assert ws.recv(timeout=10) == "ab"
            with pytest.raises(TimeoutError):
                ws.recv(timeout=0.001)
        assert core.current() is None
        server.shutdown()
        thread.join()
    records = recorder.records()
    (connected,) = (record for record in records if record.name == "websocket.connect")
    assert connected.attributes["url.full"] == f"ws://127.0.0.1:{port}/ws"
    first, second = (record for record in of_client(records) if record.name == "websocket.receive")
    assert first.attributes["messaging.message.body.size"] == 5
    assert second.attributes["messaging.message.body.size"] == 2
    assert "trading.websocket.queue_lag" in first.attributes
    (handled,) = (record for record in records if record.name == "test.handle")
    assert handled.parent_id == first.span_id


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_legacy_client_and_server(recorder: Any) -> None:
    """The deprecated implementation, loaded after instrumenting, has the same spans."""

    async def main() -> None:
        from websockets.legacy.client import connect as connect_legacy
        from websockets.legacy.server import serve as serve_legacy

        async def handler(connection: Any) -> None:
            async for message in connection:
                await connection.send(message)

        async with serve_legacy(handler, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect_legacy(f"ws://127.0.0.1:{port}/ws?x=s3cr3t") as ws:
                for _ in range(2):
                    await ws.send("hello")
                    assert await ws.recv() == "hello"
                    with child:
                        pass

    with instrumented():
        run(main())
    records = recorder.records()
    (connected,) = (record for record in records if record.name == "websocket.connect")
    assert connected.attributes["url.full"].endswith("/ws")
    received = [record for record in of_client(records) if record.name == "websocket.receive"]
    assert all("trading.websocket.queue_lag" in one.attributes for one in received)
    children = [record.parent_id for record in records if record.name == "test.handle"]
    assert children == [one.span_id for one in received]


def test_wrong_options_are_faults_and_nothing_breaks(recorder: Any, caplog: pytest.LogCaptureFixture) -> None:
    """``instrument()`` with options that make no sense goes on with the defaults, and says so once."""

    async def main() -> None:
        async with server_of(echo) as address, connect(address, proxy=None) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"

    with caplog.at_level(logging.WARNING, "otel_trading"), instrumented(venues=5):
        run(main())
    assert "instrument()" in caplog.text
    recorder.faults_expected = 1
    assert [record for record in recorder.records() if record.name == "websocket.receive"]


def test_nothing_of_a_connection_is_kept(recorder: Any) -> None:
    """A closed connection goes away as it does without us."""
    import weakref

    async def main() -> None:
        async with server_of(echo) as address:
            async with connect(address, proxy=None) as ws:
                await ws.send("x")
                await ws.recv()
            gone = weakref.ref(ws)
            del ws
            gc.collect()
            await asyncio.sleep(0)
            gc.collect()
            assert gone() is None

    with instrumented():
        run(main())
    assert recorder.faults == 0


def test_a_missing_library_is_told(run_python: Callable[..., Any]) -> None:
    """Without the library ``instrument`` raises ModuleNotFoundError, which OpenTelemetry's loader skips."""
    done = run_python(
        """
import sys
import importlib.machinery

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("websockets", "ccxt"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
from otel_trading.instrument.websockets import WebsocketsInstrumentor
from otel_trading.instrument.ccxt import CcxtInstrumentor
for instrumentor in (WebsocketsInstrumentor(), CcxtInstrumentor()):
    try:
        instrumentor.instrument()
    except ModuleNotFoundError as error:
        print("skipped")
    print(instrumentor.is_instrumented_by_opentelemetry)
"""
    )
    assert done.stdout.split() == ["skipped", "False", "skipped", "False"]


def test_instrumenting_loads_no_part_that_the_program_does_not_use(run_python: Callable[..., Any]) -> None:
    """The library is not imported by instrumenting it, and its legacy part, whose import warns, never."""
    done = run_python(
        """
import sys
from otel_trading.instrument.websockets import WebsocketsInstrumentor
WebsocketsInstrumentor().instrument()
print([name for name in sys.modules if name.startswith("websockets.")])
import websockets.asyncio.client
print([name for name in sys.modules if name.startswith(("websockets.legacy", "websockets.sync"))])
print(hasattr(websockets.asyncio.client.connect.__init__, "__wrapped__"))
"""
    )
    assert done.stdout.splitlines() == ["[]", "[]", "True"]


def test_the_context_of_the_transport_is_no_parent(recorder: Any) -> None:
    """A connection opened inside a span does not make all its messages children of that span."""

    async def main() -> None:
        async with server_of(says("1", "2")) as address:
            with outer:
                ws = await connect(address, proxy=None)
            async with ws:

                async def read() -> None:
                    await ws.recv()
                    await ws.recv()

                await contextvars.Context().run(asyncio.create_task, read())

    with instrumented():
        run(main())
    received = [record for record in of_client(recorder.records()) if record.name == "websocket.receive"]
    assert [record.parent_id for record in received] == [0, 0]
    assert all(record.links == [] for record in received)
