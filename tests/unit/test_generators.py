"""Decorated generators: their protocols, their span's life, and in whose context it is current."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from api_tracers import make_tracer
from opentelemetry.context import Context

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.api import hooks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

    from conftest import Recorder

CANCELLED = 4

PROBE = ot.probe("generators.probe")
LEAF = ot.probe("generators.leaf", leaf=True)
OUTER = ot.probe("generators.outer")
KINDS = (PROBE, LEAF)


def generator(count: int) -> Generator[int, str, str]:
    """Count."""
    got = None
    for number in range(count):
        got = yield number
    return f"last got {got}"


# ---- generator functions --------------------------------------------------------------------------


def test_generator_function(recorder: Recorder) -> None:
    """One span covers the generator's life, from its first step to its end."""
    counting = PROBE(generator)(3)
    assert recorder.open_spans() == []
    assert next(counting) == 0
    assert len(recorder.open_spans()) == 1
    assert counting.send("a") == 1
    assert counting.send("b") == 2
    with pytest.raises(StopIteration) as stop:
        counting.send("c")
    assert stop.value.value == "last got c"
    assert recorder.only("generators.probe").status == 0


def test_generators_body_has_its_span_and_its_consumer_does_not(recorder: Recorder) -> None:
    """The span is current in the generator's body only, whatever is current at each step."""

    @PROBE
    def produce() -> Iterator[object]:
        for _ in range(3):
            with LEAF:
                yield core.current()
            yield core.current()

    with OUTER as outer:
        produced = produce()
        seen = []
        for item in produced:
            seen.append(item)
            assert core.current() is outer
    records = recorder.records()
    life = next(record for record in records if record.name == "generators.probe")
    assert life.parent_id == outer.span_id
    children = [record for record in records if record.name == "generators.leaf"]
    assert [child.parent_id for child in children] == [life.span_id] * 3
    assert len(set(map(id, seen))) == 4


def test_generators_steps_in_different_contexts(recorder: Recorder) -> None:
    """A generator may be driven from anywhere; each driver keeps its own current span."""

    @PROBE
    def produce() -> Iterator[int]:
        while True:
            with LEAF:
                pass
            yield 1

    produced = produce()
    for _ in range(3):
        with OUTER as outer:
            next(produced)
            assert core.current() is outer
    produced.close()
    assert core.current() is None
    life = next(record for record in recorder.records() if record.name == "generators.probe")
    assert life.status == 0


def forwarding() -> Generator[Any, Any, str]:
    """Answer to what is sent and thrown in; ends at "end"."""
    answer: object = "ready"
    while True:
        try:
            got = yield answer
        except ValueError as error:
            answer = f"caught {error}"
        else:
            if got == "end":
                return "done"
            answer = f"got {got}"


@pytest.mark.parametrize("probe", [None, *KINDS], ids=["undecorated", "context", "leaf"])
def test_generator_protocol(recorder: Recorder, probe: Any) -> None:
    """``send``, ``throw`` and ``close`` do what they do undecorated."""
    function = probe(forwarding) if probe else forwarding
    g = function()
    assert next(g) == "ready"
    assert g.send(1) == "got 1"
    assert g.throw(ValueError("x")) == "caught x"
    assert g.send(2) == "got 2"
    with pytest.raises(StopIteration) as stop:
        g.send("end")
    assert stop.value.value == "done"
    assert next(g, "over") == "over"

    g = function()
    with pytest.raises(ValueError, match="early"):
        g.throw(ValueError("early"))

    g = function()
    next(g)
    g.close()
    g.close()
    with pytest.raises(StopIteration):
        next(g)

    g = function()
    next(g)
    with pytest.raises(KeyError):
        g.throw(KeyError("out"))

    def delegating() -> Generator[Any, Any, str]:
        return (yield from function()) + "!"

    g = delegating()
    assert [next(g), g.send(1), g.throw(ValueError("y"))] == ["ready", "got 1", "caught y"]
    with pytest.raises(StopIteration) as stop:
        g.send("end")
    assert stop.value.value == "done!"
    if probe:
        records = recorder.named(probe.name)
        assert [record.error for record in records] == [None, None, "KeyError", None]
    assert recorder.open_spans() == []


@pytest.mark.parametrize("decorate", [False, True])
def test_generator_that_ignores_its_close(decorate: bool) -> None:  # noqa: FBT001
    """A generator that yields when it is closed is the same RuntimeError."""

    def stubborn() -> Iterator[int]:
        while True:
            with contextlib.suppress(GeneratorExit):
                yield 1
                return

    g = (PROBE(stubborn) if decorate else stubborn)()
    next(g)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        g.close()
    with contextlib.suppress(StopIteration):
        next(g)


@pytest.mark.parametrize("decorate", [False, True])
def test_stop_iteration_inside_a_generator(decorate: bool) -> None:  # noqa: FBT001
    """A StopIteration that leaks out of the body, or is thrown in, is the same RuntimeError."""

    def leaky() -> Iterator[int]:
        yield 1
        raise StopIteration  # noqa: PLR1708  what is tested

    function = PROBE(leaky) if decorate else leaky
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(function())
    g = function()
    next(g)
    with pytest.raises(RuntimeError, match="StopIteration"):
        g.throw(StopIteration("thrown"))


def test_generator_that_fails(recorder: Recorder) -> None:
    """An exception of the body ends the span as an error."""

    @PROBE
    def fail() -> Iterator[int]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        list(fail())
    assert recorder.only("generators.probe").error == "LookupError"
    assert core.current() is None


def test_thrown_exceptions_are_not_kept_alive() -> None:
    """What is thrown into a generator is let go with it: no cycle through its traceback."""

    class Thrown(Exception):  # noqa: N818
        pass

    gc.collect()
    gc.disable()
    try:
        g = PROBE(forwarding)()
        next(g)
        error = Thrown()
        reference = weakref.ref(error)
        try:
            g.throw(error)
        except Thrown:
            pass
        del error, g
        assert reference() is None
    finally:
        gc.enable()


# ---- async generator functions --------------------------------------------------------------------


async def async_forwarding() -> AsyncGenerator[Any, Any]:
    """Answer to what is sent and thrown in; ends at "end"."""
    answer: object = "ready"
    while True:
        await asyncio.sleep(0)
        try:
            got = yield answer
        except ValueError as error:
            answer = f"caught {error}"
        else:
            if got == "end":
                return
            answer = f"got {got}"


@pytest.mark.parametrize("probe", [None, *KINDS], ids=["undecorated", "context", "leaf"])
def test_async_generator_protocol(recorder: Recorder, probe: Any) -> None:
    """``asend``, ``athrow`` and ``aclose`` do what they do undecorated."""
    function = probe(async_forwarding) if probe else async_forwarding

    async def main() -> None:
        g = function()
        assert await g.__anext__() == "ready"
        assert await g.asend(1) == "got 1"
        assert await g.athrow(ValueError("x")) == "caught x"
        assert await g.asend(2) == "got 2"
        with pytest.raises(StopAsyncIteration):
            await g.asend("end")
        with pytest.raises(StopAsyncIteration):
            await g.__anext__()

        g = function()
        await g.__anext__()
        await g.aclose()
        await g.aclose()

        g = function()
        await g.__anext__()
        with pytest.raises(KeyError):
            await g.athrow(KeyError("out"))

        g = function()
        assert [item async for item in limited(g, 3)] == ["ready", "got None", "got None"]
        await g.aclose()

    asyncio.run(main())
    if probe:
        assert [record.error for record in recorder.named(probe.name)] == [None, None, "KeyError", None]
    assert recorder.open_spans() == []


async def limited(items: AsyncIterator[object], count: int) -> AsyncIterator[object]:
    """Give the first few."""
    for _ in range(count):
        yield await items.__anext__()


def test_async_generators_body_has_its_span_and_its_consumer_does_not(recorder: Recorder) -> None:
    """The span is current in the body, across its awaits, and not in the consumer's."""

    @PROBE
    async def produce() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            with LEAF:
                await asyncio.sleep(0)
            yield number

    async def main() -> None:
        with OUTER as outer:
            async for _ in produce():
                assert core.current() is outer
            assert core.current() is outer

    asyncio.run(main())
    records = recorder.records()
    life = next(record for record in records if record.name == "generators.probe")
    assert [record.parent_id for record in records if record.name == "generators.leaf"] == [life.span_id] * 3


def test_async_generator_cancelled_in_its_body(recorder: Recorder) -> None:
    """Cancelling the consumer while the body waits ends the span as cancelled."""

    @PROBE
    async def produce() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in produce():
            pass

    async def main() -> None:
        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    record = recorder.only("generators.probe")
    assert (record.status, record.flags & CANCELLED) == (0, CANCELLED)


@pytest.mark.parametrize("held", [False, True], ids=["dropped", "held"])
def test_async_generator_left_to_the_loop(recorder: Recorder, held: bool) -> None:  # noqa: FBT001
    """A decorated async generator that its consumer leaves is closed by the loop, then or at the loop's end."""
    closed: list[object] = []
    holding = []
    complaints: list[object] = []

    @PROBE
    async def produce() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(core.current())

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        generator = produce()
        if held:
            holding.append(generator)
        async for _ in generator:
            break
        del generator
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(closed) == (0 if held else 1)

    asyncio.run(main())
    assert complaints == []
    assert len(closed) == 1
    assert closed[0] is not None
    assert recorder.only("generators.probe").status == 0
    assert recorder.open_spans() == []


# ---- with OpenTelemetry's contexts -----------------------------------------------------------------


def test_what_the_body_attached_comes_back_with_it(recorder: Recorder) -> None:
    """Contexts and spans of a body are current in its steps, and not in between."""
    tracer = make_tracer()

    @PROBE
    def numbers() -> Iterator[int]:
        token = core.attach_context(Context({"k": 1}))
        with tracer.start_as_current_span("generators.scope") as span:
            for number in range(3):
                assert core.current() is span
                assert core.get_context()["k"] == 1
                yield number
        core.detach_context(token)

    with OUTER as outer:
        for _ in numbers():
            assert core.current() is outer
            assert core.get_context() == {hooks.SPAN_KEY: outer}
    assert {record.name for record in recorder.records()} == {
        "generators.outer", "generators.probe", "generators.scope"}  # fmt: skip


def test_what_an_async_body_attached_comes_back_with_it(recorder: Recorder) -> None:
    """The same for async generators, in tasks that take turns."""
    tracer = make_tracer()

    @PROBE
    async def numbers(key: int) -> AsyncIterator[int]:
        core.attach_context(Context({"k": key}))
        with tracer.start_as_current_span("generators.scope") as span:
            for number in range(3):
                await asyncio.sleep(0)
                assert core.current() is span
                assert core.get_context()["k"] == key
                yield number

    async def work(key: int) -> None:
        async for _ in numbers(key):
            assert core.current() is None
            await asyncio.sleep(0)
            assert core.get_context() == {}

    async def main() -> None:
        await asyncio.gather(*(work(key) for key in range(10)))

    asyncio.run(main())
    assert len(recorder.records()) == 20
