"""``start_as_current_span``: what is current within and after, what is recorded of an exception, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from api_tracers import ERROR, OK, UNSET, context_of, current, make_tracer, span_context
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanKind, StatusCode

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.segment import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Recorder

TRACER = make_tracer()


def start(name: str, *args: Any, **kwargs: Any) -> Any:
    """Give ``start_as_current_span`` of one tracer."""
    return TRACER.start_as_current_span(name, *args, **kwargs)


# ---- within and after ----------------------------------------------------------------------------------


def test_the_span_is_current_within(recorder: Recorder) -> None:
    """The span begins and becomes current where the block is entered, and ends where it is left."""
    scope = start("scope.block", attributes={"a": 1})
    assert recorder.open_spans() == []
    with scope as span:
        assert core.current() is span
        assert current() is span
        assert [record.attributes for record in recorder.open_spans()] == [{"a": 1}]
        with start("scope.inner") as inner:
            assert core.current() is inner
        assert core.current() is span
    assert core.current() is None
    assert not span.is_recording()
    inner_record, record = recorder.records()
    assert inner_record.parent_id == record.span_id


def test_all_arguments(recorder: Recorder) -> None:
    """All arguments of ``start_span``, and ``end_on_exit``."""
    parent = context_of(NonRecordingSpan(span_context()))
    with start("scope.all", parent, SpanKind.CLIENT, {"a": 1}, (), 5, True, True, False) as span:
        pass
    assert span.is_recording()
    span.end()
    record = recorder.only("scope.all")
    assert (record.parent_id, record.start, record.attributes) == (0xB2, 5, {"a": 1})
    assert span.probe.kind == SpanKind.CLIENT.value


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), (("a",) * 10, {}), (("a",), {"name": "b"}), (("a",), {"x": 1})])
def test_arguments_that_do_not_fit(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Arguments that do not fit are a TypeError where the call is."""
    with pytest.raises(TypeError):
        TRACER.start_as_current_span(*args, **kwargs)


def test_it_is_a_context_manager(recorder: Recorder) -> None:
    """It works with all of contextlib, by its type and by itself."""
    scope = start("scope.contextlib")
    assert isinstance(scope, contextlib.AbstractContextManager)
    with contextlib.ExitStack() as stack:
        span = stack.enter_context(scope)
        assert core.current() is span
        stack.enter_context(start("scope.contextlib"))
    by_hand = start("scope.contextlib")
    span = by_hand.__enter__()
    assert core.current() is span
    assert by_hand.__exit__(None, None, None) is None
    with pytest.raises(TypeError):
        type(scope).__enter__(5)
    assert core.current() is None
    assert len(recorder.named("scope.contextlib")) == 3


def test_entered_twice_or_never(recorder: Recorder) -> None:
    """One that is entered twice gives its one span, one that was never entered ends nothing: both are faults."""
    scope = start("scope.twice")
    first = scope.__enter__()
    assert scope.__enter__() is first
    scope.__exit__(None, None, None)
    scope.__exit__(None, None, None)
    assert core.current() is None
    assert len(recorder.records()) == 1
    recorder.faults_expected = 2


def test_used_again(recorder: Recorder) -> None:
    """``again`` gives a new one with the same arguments."""
    scope = start("scope.again", kind=SpanKind.SERVER, attributes={"a": 1})
    with scope, scope.again(), scope.again():
        pass
    records = recorder.named("scope.again")
    assert [record.attributes for record in records] == [{"a": 1}] * 3
    assert len({record.span_id for record in records}) == 3


# ---- exceptions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record_exception", [True, False])
@pytest.mark.parametrize("set_status", [True, False])
@pytest.mark.parametrize("error", [ValueError("no margin"), KeyboardInterrupt(), asyncio.CancelledError()])
def test_a_block_that_fails(
    recorder: Recorder, error: BaseException, *, record_exception: bool, set_status: bool
) -> None:
    """An Exception is recorded, not escaped, and sets the status; what is none leaves the span as it was."""

    def run() -> None:
        with start("scope.fails", record_exception=record_exception, set_status_on_exception=set_status):
            raise error

    with pytest.raises(type(error)):
        run()
    record = recorder.only("scope.fails")
    counts = isinstance(error, Exception)
    assert len(record.events) == (record_exception and counts)
    if record.events:
        name, _, attributes, _ = messages.event(record.events[0])
        assert (name, attributes["exception.type"], attributes["exception.escaped"]) == (
            "exception",
            "ValueError",
            "False",
        )
        assert "raise error" in attributes["exception.stacktrace"]
    assert record.status == (ERROR if set_status and counts else UNSET)
    assert record.description == ("ValueError: no margin" if set_status and counts else None)
    assert core.current() is None


def test_a_block_that_fails_without_an_end(recorder: Recorder) -> None:
    """The exception is recorded where the span goes on, too."""
    scope = start("scope.goes_on", end_on_exit=False)
    span = scope.__enter__()
    error = ValueError()
    scope.__exit__(ValueError, error, None)
    assert span.is_recording()
    assert span.state()[7] == ERROR
    span.end()
    assert len(recorder.only("scope.goes_on").events) == 1


def test_a_span_that_has_ended_within(recorder: Recorder) -> None:
    """A span that the block ends itself is ended once more, which is a fault; its exception is not recorded."""
    with contextlib.suppress(ValueError), start("scope.ended") as span:
        span.end()
        assert core.current() is span
        raise ValueError
    record = recorder.only("scope.ended")
    assert (record.events, record.status) == ([], UNSET)
    recorder.faults_expected = 1


def test_what_was_well_stays_well(recorder: Recorder) -> None:
    """A status of OK is final."""
    with contextlib.suppress(ValueError), start("scope.ok") as span:
        span.set_status(StatusCode.OK)
        raise ValueError
    record = recorder.only("scope.ok")
    assert (record.status, len(record.events)) == (OK, 1)


# ---- as a decorator --------------------------------------------------------------------------------------


def test_decorating_functions(recorder: Recorder) -> None:
    """Each call of a function that was decorated is a span of its own, recursive ones too."""

    @start("scope.decorated", attributes={"a": 1})
    def factorial(n: int) -> int:
        """Multiply."""
        assert core.current() is not None
        return n * factorial(n - 1) if n else 1

    assert factorial(4) == 24
    assert (factorial.__name__, factorial.__doc__) == ("factorial", "Multiply.")
    records = recorder.named("scope.decorated")
    assert len(records) == 5
    assert [record.parent_id for record in records[:-1]] == [record.span_id for record in records[1:]]


def test_decorating_coroutine_functions(recorder: Recorder) -> None:
    """A coroutine's span is current while it runs, and ends with it."""

    @start("scope.coroutine")
    async def work(n: int) -> int:
        span = core.current()
        await asyncio.sleep(0)
        assert core.current() is span
        return n

    async def main() -> list[int]:
        return await asyncio.gather(*(work(n) for n in range(5)))

    assert inspect.iscoroutinefunction(work)
    assert asyncio.run(main()) == list(range(5))
    assert len(recorder.named("scope.coroutine")) == 5


@pytest.mark.parametrize("arguments", [(1, 2), (1, 2, 3, 4)])
def test_called_as_nothing_that_it_is(arguments: tuple[int, ...]) -> None:
    """It is no function of other arguments."""
    with pytest.raises(TypeError):
        start("scope.called")(*arguments)


# ---- out of order ------------------------------------------------------------------------------------------


def test_a_generator_that_is_suspended_within(recorder: Recorder) -> None:
    """A block that is left while another is open within it ends the right span, and leaves the other current."""

    def generate() -> Iterator[None]:
        with start("scope.generator"):
            yield

    generator = generate()
    next(generator)
    with start("scope.outer") as outer:
        generator.close()
        assert core.current() is outer
    assert core.current() is None
    assert [record.name for record in recorder.records()] == ["scope.generator", "scope.outer"]


def test_left_in_another_thread(recorder: Recorder) -> None:
    """A block that another thread leaves ends the span; what is current there stays."""
    scope = start("scope.elsewhere")
    scope.__enter__()
    seen: list[Any] = []

    def leave() -> None:
        with start("scope.thread") as span:
            scope.__exit__(None, None, None)
            seen.append(core.current() is span)

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    assert seen == [True]
    assert [record.name for record in recorder.records()] == ["scope.elsewhere", "scope.thread"]
    with start("scope.after") as after:  # the place here was not given back: its ended span is the parent
        assert after.state()[4] != 0


def test_a_context_that_leaks_within(recorder: Recorder) -> None:
    """What was attached within and never detached does not outlive the block; a late detach brings nothing back."""
    with start("scope.before") as before:
        with start("scope.leaky"):
            token = core.attach_context(Context({"leak": 1}))
            core.attach_context(Context({"leak": 2}))
        assert core.current() is before
        assert "leak" not in core.get_context()
        core.detach_context(token)
        assert core.current() is before
    assert core.current() is None
    assert len(recorder.records()) == 2


def test_probes_blocks_do_the_same(recorder: Recorder) -> None:
    """A probe's block restores what was before it, whatever was attached within."""
    probe = ot.probe("scope.probe")
    with start("scope.around") as around:
        with probe:
            core.attach_context(Context({"leak": 1}))
        assert core.current() is around
    assert core.current() is None
    assert len(recorder.records()) == 2


# ---- memory ------------------------------------------------------------------------------------------------


def use(times: int) -> None:
    """Use scopes in all the ways that there are."""
    error = ValueError()
    for _ in range(times):
        with start("scope.memory", attributes={"a": 1}), start("scope.memory"):
            core.get_context()
        with contextlib.suppress(ValueError), start("scope.memory"):
            raise error
        error.__traceback__ = None
        start("scope.memory")
        start("scope.memory").__enter__()  # never left
        core.attach_context(Context())
        start("scope.memory", end_on_exit=False).__enter__().end()


@pytest.mark.skipif(not hasattr(sys, "getallocatedblocks"), reason="this interpreter does not count its memory blocks")
@pytest.mark.usefixtures("quiet")
def test_nothing_is_left_behind(recorder: Recorder) -> None:
    """Scopes leave nothing behind, whether they are entered, left or forgotten."""
    import contextvars

    held = []
    for _ in range(4):
        contextvars.copy_context().run(use, 1000)
        gc.collect()
        held.append(sys.getallocatedblocks())
    # What the pure backend keeps for the next entries comes and goes between rounds; a leak grows with each.
    assert min(held[2:]) - max(held[:2]) < 100
    assert recorder.faults == 0
