"""Which span is current: tasks, threads, contexts, event loops, and blocks that are left out of order."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from conftest import Record, Recorder

ERROR = 2
CANCELLED, ABANDONED = 4, 8

OUTER = ot.probe("context.outer")
INNER = ot.probe("context.inner")
LEAF = ot.probe("context.leaf", leaf=True)


def by_id(records: list[Record]) -> dict[int, Record]:
    """Index records by their span ids, which must be unique."""
    indexed = {record.span_id: record for record in records}
    assert len(indexed) == len(records)
    return indexed


# ---- tasks ----------------------------------------------------------------------------------------


def test_interleaved_tasks_keep_their_own_spans(recorder: Recorder) -> None:
    """Tasks that take turns never see each other's spans."""

    async def work(number: int) -> None:
        with OUTER.span(number=number) as outer:
            for _ in range(5):
                await asyncio.sleep(0)
                assert core.current() is outer
                with INNER.span(number=number) as inner:
                    await asyncio.sleep(0)
                    assert core.current() is inner

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(20)))

    asyncio.run(main())
    records = recorder.records()
    spans = by_id(records)
    children = [record for record in records if record.name == "context.inner"]
    assert len(children) == 100
    for child in children:
        parent = spans[child.parent_id]
        assert parent.attributes == child.attributes
        assert parent.trace_id == child.trace_id
    assert len({record.trace_id for record in records}) == 20


def test_a_task_is_the_child_of_the_span_that_made_it(recorder: Recorder) -> None:
    """A task belongs to the span in which it was created."""

    async def work() -> None:
        with INNER:
            await asyncio.sleep(0)

    async def main() -> int:
        with OUTER as outer:
            await asyncio.create_task(work())
            return outer.span_id

    parent = asyncio.run(main())
    assert recorder.only("context.inner").parent_id == parent


def test_a_task_may_begin_after_its_parent_has_ended(recorder: Recorder) -> None:
    """A span made by a task joins the trace of the span that created the task, ended or not."""

    async def work() -> None:
        with INNER:
            await asyncio.sleep(0)
        assert core.current() is not None  # the context was copied while the span was current

    async def main() -> tuple[int, int]:
        with OUTER as outer:
            task = asyncio.create_task(work())
        assert core.current() is None
        await task
        return outer.trace_id, outer.span_id

    trace, span = asyncio.run(main())
    outer, inner = recorder.records()
    assert (outer.name, outer.span_id) == ("context.outer", span)
    assert (inner.trace_id, inner.parent_id) == (trace, span)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is new in Python 3.11")
def test_task_group(recorder: Recorder) -> None:
    """The tasks of a group are children of the span around it."""

    async def work() -> None:
        with INNER:
            await asyncio.sleep(0)

    async def main() -> int:
        with OUTER as outer:
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(work())
            assert core.current() is outer
            return outer.span_id

    parent = asyncio.run(main())
    assert [child.parent_id for child in recorder.named("context.inner")] == [parent] * 10


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is new in Python 3.11")
def test_task_group_that_fails(recorder: Recorder) -> None:
    """A failing task marks its span and the one around the group; its siblings are cancelled, not failed."""

    async def fail() -> None:
        with INNER.span(role="fails"):
            await asyncio.sleep(0)
            raise ValueError

    async def wait() -> None:
        with INNER.span(role="waits"):
            await asyncio.Event().wait()

    async def main() -> None:
        with OUTER:
            async with asyncio.TaskGroup() as group:
                group.create_task(wait())
                group.create_task(fail())

    with pytest.raises(ExceptionGroup):  # noqa: F821  Python 3.11, as said above
        asyncio.run(main())
    records = {record.attributes.get("role", record.name): record for record in recorder.records()}
    assert (records["fails"].status, records["fails"].error) == (ERROR, "ValueError")
    assert (records["waits"].status, records["waits"].flags & CANCELLED) == (0, CANCELLED)
    assert records["context.outer"].status == ERROR


def test_cancellation_is_flagged_and_no_error(recorder: Recorder) -> None:
    """A cancelled task's span ends there and then, flagged as cancelled."""

    @INNER
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert len(recorder.open_spans()) == 1
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert recorder.open_spans() == []

    asyncio.run(main())
    record = recorder.only("context.inner")
    assert (record.status, record.flags & CANCELLED) == (0, CANCELLED)


def test_timeout(recorder: Recorder) -> None:
    """What runs into a timeout is cancelled inside and an error outside."""

    async def main() -> None:
        with OUTER:
            with INNER:
                pass
            await asyncio.wait_for(wait(), 0.001)

    @INNER
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())
    records = recorder.records()
    assert [(record.name, record.status, record.flags & CANCELLED) for record in records] == [
        ("context.inner", 0, 0),
        ("context.inner", 0, CANCELLED),
        ("context.outer", ERROR, 0),
    ]


def test_callbacks_of_the_loop_have_the_context_of_their_making(recorder: Recorder) -> None:
    """``call_soon`` inside a span makes its callback's spans children of it."""

    def callback(done: asyncio.Future[None]) -> None:
        with INNER:
            done.set_result(None)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        with OUTER as outer:
            loop.call_soon(callback, done)
        await done
        return outer.span_id

    parent = asyncio.run(main())
    assert recorder.only("context.inner").parent_id == parent


def test_loops_in_threads_within_a_loop(recorder: Recorder) -> None:
    """An event loop in a thread has spans of its own, or the outer ones where its context was handed on."""

    async def inside() -> int | None:
        before = core.current()
        with INNER:
            await asyncio.sleep(0)
        return None if before is None else before.span_id

    async def main() -> tuple[int, int | None, int | None]:
        loop = asyncio.get_running_loop()
        with OUTER as outer:
            alone = await loop.run_in_executor(None, lambda: asyncio.run(inside()))
            joined = await asyncio.to_thread(lambda: asyncio.run(inside()))
            assert core.current() is outer
        return outer.span_id, alone, joined

    outer, alone, joined = asyncio.run(main())
    assert (alone, joined) == (None, outer)
    assert sorted(record.parent_id for record in recorder.named("context.inner")) == [0, outer]


# ---- contexts -------------------------------------------------------------------------------------


def test_copied_context(recorder: Recorder) -> None:
    """Code that runs in a copied context sees the copy's span, and leaves the caller's alone."""

    def work() -> None:
        assert core.current() is outer
        with INNER as inner:
            assert core.current() is inner

    with OUTER as outer:
        context = contextvars.copy_context()
    assert core.current() is None
    context.run(work)
    assert core.current() is None
    assert recorder.only("context.inner").parent_id == outer.span_id


def test_empty_context(recorder: Recorder) -> None:
    """Code that runs in an empty context has no current span."""

    def work() -> None:
        assert core.current() is None
        with INNER:
            pass

    with OUTER as outer:
        contextvars.Context().run(work)
        assert core.current() is outer
    assert recorder.only("context.inner").parent_id == 0


def test_block_entered_in_one_context_and_left_in_another(recorder: Recorder) -> None:
    """A span that is left where it was not entered ends, and disturbs nobody."""
    stack = contextlib.ExitStack()
    contextvars.copy_context().run(stack.enter_context, OUTER.span(symbol="x"))
    assert core.current() is None
    with INNER as inner:
        stack.close()
        assert core.current() is inner
    assert core.current() is None
    assert [record.name for record in recorder.records()] == ["context.outer", "context.inner"]


def test_threads_begin_without_a_span(recorder: Recorder) -> None:
    """A new thread has no current span; its spans are roots."""

    def work() -> None:
        assert core.current() is None
        with INNER:
            pass

    with OUTER:
        # Free-threaded builds hand the context on by default.
        thread = threading.Thread(target=contextvars.Context().run, args=(work,))
        thread.start()
        thread.join()
    assert recorder.only("context.inner").parent_id == 0


def test_span_ended_in_another_thread(recorder: Recorder) -> None:
    """A span may be ended by a thread that did not begin it."""
    span = INNER.span(symbol="x")
    span.begin()
    thread = threading.Thread(target=span.end)
    thread.start()
    thread.join()
    assert recorder.only("context.inner").span_id == span.span_id
    assert recorder.open_spans() == []


def test_flat_pair_stopped_in_another_thread(recorder: Recorder) -> None:
    """A flat pair may be stopped by a thread that did not start it."""
    token = LEAF.start()
    thread = threading.Thread(target=LEAF.stop, args=(token,))
    thread.start()
    thread.join()
    assert recorder.only("context.leaf").parent_id == 0
    assert recorder.open_spans() == []


# ---- blocks that are left out of order -------------------------------------------------------------


def test_generator_left_suspended_inside_a_block(recorder: Recorder) -> None:
    """A bare block in a generator that is left for later ends its own span, whatever is current then."""

    def produce() -> Iterator[int]:
        with INNER:
            yield 1
            yield 2

    with OUTER as outer:
        generator = produce()
        assert next(generator) == 1
        with LEAF:
            generator.close()
        assert core.current() is outer
    assert core.current() is None
    records = {record.name: record for record in recorder.records()}
    assert set(records) == {"context.inner", "context.leaf", "context.outer"}
    assert records["context.inner"].parent_id == outer.span_id


def test_generators_closed_in_the_order_of_their_making(recorder: Recorder) -> None:
    """Blocks left first in, first out still end one span each, and nothing stays current."""

    def produce(number: int) -> Iterator[int]:
        with INNER.span(number=number):
            yield number

    generators = [produce(number) for number in range(5)]
    for generator in generators:
        next(generator)
    for generator in generators:
        generator.close()
    assert core.current() is None
    assert [record.attributes["number"] for record in recorder.named("context.inner")] == [0, 1, 2, 3, 4]


def test_generator_that_is_forgotten_suspended(recorder: Recorder) -> None:
    """A generator that is collected while suspended inside a block ends its span."""

    def produce() -> Iterator[int]:
        with INNER:
            yield 1

    with OUTER:
        next(produce())
        gc.collect()
    assert core.current() is None
    assert len(recorder.named("context.inner")) == 1
    assert recorder.open_spans() == []


def test_async_generator_finalised_by_the_loop(recorder: Recorder) -> None:
    """An async generator that its consumer leaves is closed by the loop, and its block's span ends."""

    async def produce() -> AsyncIterator[int]:
        with INNER:
            while True:
                yield 1
                await asyncio.sleep(0)

    async def main() -> None:
        with OUTER:
            async for _ in produce():
                break
            del _
            gc.collect()
            with LEAF:
                await asyncio.sleep(0)
            for _ in range(100):  # the loop closes it in a task of its own
                await asyncio.sleep(0)
            assert [record.name for record in recorder.open_spans()] == ["context.outer"]

    asyncio.run(main())
    assert recorder.open_spans() == []
    names = [record.name for record in recorder.records()]
    assert sorted(names) == ["context.inner", "context.leaf", "context.outer"]


def test_context_managers_made_of_generators(recorder: Recorder) -> None:
    """A block inside ``@contextmanager`` is current in the body of its ``with``, and is left in order."""

    @contextlib.contextmanager
    def order() -> Iterator[None]:
        with OUTER:
            yield

    with order(), INNER:
        pass
    assert core.current() is None
    inner, outer = recorder.records()
    assert inner.parent_id == outer.span_id


def test_blocks_left_in_the_order_of_their_entry(recorder: Recorder) -> None:
    """``a`` in, ``b`` in, ``a`` out, ``b`` out: each ends when it is left, and nothing stays current."""
    a, b = OUTER.span(), INNER.span()
    a.__enter__()
    b.__enter__()
    a.__exit__(None, None, None)
    assert core.current() is b
    b.__exit__(None, None, None)
    assert core.current() is None
    outer, inner = recorder.records()
    assert (outer.name, inner.name) == ("context.outer", "context.inner")
    assert inner.parent_id == outer.span_id


def test_long_chains_of_blocks_left_out_of_order(recorder: Recorder) -> None:
    """Ten thousand blocks entered before the first is left are let go without recursion."""
    spans = [INNER.span() for _ in range(10_000)]
    for span in spans:
        span.__enter__()
    for span in spans:
        span.__exit__(None, None, None)
    assert core.current() is None
    del span, spans
    gc.collect()
    assert recorder.accounts()[1]["recorded"] == 10_000


def test_explicit_parent_does_not_change_what_is_restored(recorder: Recorder) -> None:
    """After a block with an explicit parent the span before it is current again."""
    with OUTER as outer:
        pass
    with LEAF as before:
        with INNER.span(outer) as inner:
            assert core.current() is inner
        assert core.current() is before
    assert {record.name: record.parent_id for record in recorder.records()}["context.inner"] == outer.span_id


def test_many_tasks_in_threads(recorder: Recorder) -> None:
    """Event loops in several threads at once keep the parents of their own tasks."""
    failures: list[BaseException] = []

    async def work(number: int) -> None:
        with OUTER.span(number=number) as outer:
            await asyncio.sleep(0)
            with INNER.span(number=number):
                await asyncio.sleep(0)
            assert core.current() is outer

    async def main(first: int) -> None:
        await asyncio.gather(*(work(first + number) for number in range(20)))

    def run(first: int) -> None:
        try:
            asyncio.run(main(first))
        except BaseException as error:  # noqa: BLE001  seen by the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    records = recorder.records()
    spans = by_id(records)
    children = [record for record in records if record.name == "context.inner"]
    assert len(children) == 80
    assert all(spans[child.parent_id].attributes == child.attributes for child in children)


@pytest.mark.parametrize("form", ["block", "function", "flat"])
def test_trace_id_is_the_current_spans(recorder: Recorder, form: str) -> None:
    """``current_trace_id`` tells the current span's trace in every form, and None outside."""
    seen: list[str | None] = []

    def look() -> None:
        seen.append(ot.current_trace_id())

    forms: dict[str, Callable[[], None]] = {
        "block": lambda: INNER.__enter__().__exit__(None, None, None),
        "function": INNER(look),
        "flat": lambda: LEAF.stop(LEAF.start()),
    }
    with OUTER as outer:
        look()
        forms[form]()
        look()
    look()
    assert seen[0] == seen[-2] == f"{outer.trace_id:032x}"
    assert seen[-1] is None
    assert {record.trace_id for record in recorder.records()} == {outer.trace_id}
