"""OpenTelemetry's contexts on the recorder's context variable: one place says what is current."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from api_tracers import ABANDONED, REMOTE_PARENT, UNSAMPLED, context_of, current, make_tracer, span_context
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context, set_value
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, set_span_in_context

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.api import hooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder

TRACER = make_tracer()
PROBE = ot.probe("context.api.probe")
INNER = ot.probe("context.api.inner")


def test_the_first_context_is_empty() -> None:
    """Where nothing is current the context is an empty one."""
    context = core.get_context()
    assert isinstance(context, Context)
    assert context == {}
    assert core.current() is None


def test_attach_and_detach() -> None:
    """What is attached is current, as the very object, until it is detached."""
    first, second = Context({"a": 1}), Context({"b": 2})
    one = core.attach_context(first)
    assert core.get_context() is first
    two = core.attach_context(second)
    assert core.get_context() is second
    core.detach_context(two)
    assert core.get_context() is first
    core.detach_context(one)
    assert core.get_context() == {}


@pytest.mark.usefixtures("recorder")
def test_a_token_that_can_not_be_detached() -> None:
    """A token that was used, of another context, of another runtime, or none: as ContextVar.reset has it."""
    token = core.attach_context(Context())
    core.detach_context(token)
    with pytest.raises(RuntimeError):
        core.detach_context(token)
    elsewhere = contextvars.copy_context().run(core.attach_context, Context())
    with pytest.raises(ValueError, match="different Context"):
        core.detach_context(elsewhere)
    other = ContextVarsRuntimeContext().attach(Context())
    with pytest.raises(ValueError, match="different ContextVar"):
        core.detach_context(other)
    with pytest.raises(TypeError):
        core.detach_context(None)
    assert core.get_context() == {}


# ---- whose span is current -----------------------------------------------------------------------------------


def test_spans_of_probes_are_in_the_context(recorder: Recorder) -> None:
    """A probe's span is the context's span, over whatever else is in the context."""
    token = core.attach_context(Context({"baggage": "b"}))
    with PROBE as span:
        context = core.get_context()
        assert isinstance(context, Context)
        assert context == {"baggage": "b", hooks.SPAN_KEY: span}
        assert core.get_context() is context
        with INNER as inner:
            assert core.get_context() == {"baggage": "b", hooks.SPAN_KEY: inner}
        assert core.get_context() is context
    assert core.get_context() == {"baggage": "b"}
    core.detach_context(token)
    assert len(recorder.records()) == 2


def test_an_attached_span_is_current(recorder: Recorder) -> None:
    """A span of ours in a context that was attached is current, and the parent of probes' spans."""
    span = TRACER.start_span("context.attached")
    token = core.attach_context(context_of(span))
    assert core.current() is span
    with PROBE:
        INNER.stop(INNER.start())
    core.detach_context(token)
    span.end()
    spans = {record.name: record for record in recorder.records()}
    assert spans["context.api.probe"].parent_id == span.span_id
    assert spans["context.api.inner"].parent_id == spans["context.api.probe"].span_id


@pytest.mark.parametrize("remote", [True, False])
def test_a_foreign_span_is_current(recorder: Recorder, *, remote: bool) -> None:
    """Any other span stands for its ids: as a parent, and in ``current``."""
    foreign = NonRecordingSpan(span_context(remote=remote, flags=0, state="a=1"))
    token = core.attach_context(context_of(foreign))
    found = core.current()
    assert found is not None
    assert (found.trace_id, found.span_id, found.remote, found.sampled) == (0xA1, 0xB2, remote, False)
    assert core.current() is found
    assert current() is foreign
    with PROBE:
        pass
    core.detach_context(token)
    record = recorder.only("context.api.probe")
    assert (record.trace_id, record.parent_id, record.tracestate) == (0xA1, 0xB2, "a=1")
    assert record.flags == UNSAMPLED | (REMOTE_PARENT if remote else 0)


@pytest.mark.parametrize("span", [INVALID_SPAN, None, "no span"])
def test_a_context_without_a_span(recorder: Recorder, span: Any) -> None:
    """A context that says that there is no span hides the one below."""
    with PROBE:
        token = core.attach_context(context_of(span))
        assert core.current() is None
        with INNER:
            pass
        core.detach_context(token)
    spans = {record.name: record for record in recorder.records()}
    assert spans["context.api.inner"].parent_id == 0
    recorder.faults_expected = int(span == "no span")


def test_a_remote_parent_is_in_the_context(recorder: Recorder) -> None:
    """A parent from ``remote`` is the context's span."""
    with core.remote(0xA1, 0xB2, True, "a=1") as parent:
        found = current()
        assert found is parent
        assert found.get_span_context() == span_context(flags=3, state="a=1")
        TRACER.start_span("context.of_remote").end()
    assert recorder.only("context.of_remote").parent_id == 0xB2


def test_over_an_attached_context(recorder: Recorder) -> None:
    """A context that is made of the current one keeps the current span."""
    with TRACER.start_as_current_span("context.outer") as span:
        token = core.attach_context(set_value("k", 1, core.get_context()))
        assert core.current() is span
        with TRACER.start_as_current_span("context.within") as within:
            assert core.get_context() == {"k": 1, hooks.SPAN_KEY: within}
        assert core.current() is span
        core.detach_context(token)
        assert core.get_context() == {hooks.SPAN_KEY: span}
    child, _ = recorder.records()
    assert child.parent_id == span.span_id


# ---- out of order ----------------------------------------------------------------------------------------------


def test_detach_over_what_was_left_attached(recorder: Recorder) -> None:
    """A detach restores what was before its attach, whatever was attached after it."""
    with PROBE as span:
        token = core.attach_context(Context({"a": 1}))
        for number in range(5):
            core.attach_context(Context({"n": number}))
        core.detach_context(token)
        assert core.current() is span
        assert core.get_context() == {hooks.SPAN_KEY: span}
    assert len(recorder.records()) == 1


def test_detach_skips_spans_that_were_left(recorder: Recorder) -> None:
    """A detach does not bring a span back that was left meanwhile."""
    with PROBE as outer:
        span = INNER.span()
        span.__enter__()
        token = core.attach_context(set_value("k", 1, core.get_context()))
        child = PROBE.span()
        child.__enter__()
        span.__exit__(None, None, None)
        child.__exit__(None, None, None)
        core.detach_context(token)
        assert core.current() is outer
    assert core.current() is None
    assert len(recorder.records()) == 3


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["attach", "detach", "enter", "leave", "scope"]), st.integers(0, 3)), max_size=14
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(actions=ACTIONS)
def test_any_order_at_all(recorder: Recorder, actions: list[tuple[str, int]]) -> None:
    """Whatever is attached, entered, left, detached in whatever order: nothing raises, and every span is recorded."""

    def run() -> int:
        tokens: list[Any] = []
        spans: list[Any] = []
        made = 0
        for action, number in actions:
            if action == "attach":
                tokens.append(core.attach_context(set_value(str(number), made, core.get_context())))
            elif action == "detach" and tokens:
                core.detach_context(tokens.pop(number % len(tokens)))
            elif action in ("enter", "scope"):
                span = PROBE.span() if action == "enter" else TRACER.start_as_current_span("context.any")
                entered = span.__enter__()
                spans.append(span)
                assert core.current() is entered
                made += 1
            elif action == "leave" and spans:
                spans.pop(number % len(spans)).__exit__(None, None, None)
            context = core.get_context()
            found = core.current()
            assert context.get(hooks.SPAN_KEY) is found
        while spans:
            spans.pop().__exit__(None, None, None)
        return made

    made = contextvars.copy_context().run(run)
    assert len(recorder.records()) == made


def test_in_order_everything_comes_back(recorder: Recorder) -> None:
    """Attaches, scopes and probes that are nested give each its place back."""

    def nest(depth: int) -> None:
        before, context = core.current(), core.get_context()
        token = core.attach_context(set_value(str(depth), depth, context))
        with TRACER.start_as_current_span("context.nested") as span, PROBE:
            assert span.state()[4] == (before.span_id if before else 0)
            if depth:
                nest(depth - 1)
        core.detach_context(token)
        assert core.current() is before
        assert core.get_context() == context

    nest(20)
    assert len(recorder.records()) == 42


# ---- tasks and threads -------------------------------------------------------------------------------------------


def test_tasks_have_contexts_of_their_own(recorder: Recorder) -> None:
    """Attached contexts go on to tasks, which then are on their own."""

    async def work(number: int) -> None:
        assert core.get_context()["k"] == "outer"
        token = core.attach_context(set_value("k", number, core.get_context()))
        with TRACER.start_as_current_span("context.task"):
            await asyncio.sleep(0)
            assert core.get_context()["k"] == number
        core.detach_context(token)
        assert core.get_context()["k"] == "outer"

    async def main() -> None:
        with TRACER.start_as_current_span("context.main"):
            token = core.attach_context(set_value("k", "outer", core.get_context()))
            tasks = [asyncio.create_task(work(number)) for number in range(20)]
            core.detach_context(token)
            await asyncio.gather(*tasks)

    asyncio.run(main())
    records = recorder.records()
    assert {record.parent_id for record in records if record.name == "context.task"} == {records[-1].span_id}


def test_a_task_that_outlives_its_parents_block(recorder: Recorder) -> None:
    """A task keeps the span, and the context under it, that were current when it was made."""
    seen: list[Context] = []

    async def late(left: asyncio.Event) -> None:
        await left.wait()
        seen.append(core.get_context())
        with PROBE:
            pass
        seen.append(core.get_context())

    async def main() -> int:
        left = asyncio.Event()
        token = core.attach_context(Context({"k": 1}))
        with TRACER.start_as_current_span("context.left") as span:
            task = asyncio.create_task(late(left))
        core.detach_context(token)
        left.set()
        await task
        assert seen == [{"k": 1, hooks.SPAN_KEY: span}] * 2
        return span.span_id

    parent = asyncio.run(main())
    assert recorder.only("context.api.probe").parent_id == parent


def test_threads_begin_with_nothing(recorder: Recorder) -> None:
    """A thread begins without a context, and takes one that it is handed."""
    seen: list[Any] = []

    def work(context: Context) -> None:
        seen.append(core.get_context())
        token = core.attach_context(context)
        PROBE.stop(PROBE.start())
        core.detach_context(token)

    with TRACER.start_as_current_span("context.thread") as span:
        thread = threading.Thread(target=work, args=(core.get_context(),))
        thread.start()
        thread.join()
    assert seen in ([{}], [{hooks.SPAN_KEY: span}])  # later interpreters hand the context on by themselves
    assert recorder.only("context.api.probe").parent_id == span.span_id


FORKED = """
import os, sys
import otel_trading as ot
from api_tracers import make_tracer
from otel_trading._backend import core

ot.configure("parent", None, {"ring.slots": 1024, "ring.thread_slots": 256, "drain.period": 60})
tracer = make_tracer()
with tracer.start_as_current_span("forked.parent") as span:
    token = core.attach_context(core.get_context())
    child = os.fork()
    if child == 0:
        assert core.current() is span and core.get_context() is not None
        assert not span.is_recording()
        span.set_attribute("a", 1)
        with tracer.start_as_current_span("forked.child") as below:
            assert below.state()[4] == span.span_id and below.trace_id == span.trace_id
        core.detach_context(token)
        span.end()
        print(ot.stats()["forked.child"]["count"], ot.stats().get("forked.parent", {"count": 0})["count"], flush=True)
        ot.shutdown()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    core.detach_context(token)
    assert span.is_recording()
print(ot.stats()["forked.parent"]["count"], "forked.child" in ot.stats())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="a forked child hangs in its allocator")
def test_a_fork_within(run_python: Callable[..., Any]) -> None:
    """A child that is forked within a block is in its trace, and does not write the parent's span."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    assert run_python(FORKED, PYTHONPATH=path).stdout.split("\n")[:2] == ["1 0", "1 False"]


# ---- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
def test_a_span_that_is_forgotten_while_current(recorder: Recorder) -> None:
    """A span that is current for ever, in a context that goes away, is found by the collector, and abandoned."""

    def forget(prepare: Callable[[], object]) -> None:
        prepare()
        with_context = TRACER.start_as_current_span("context.forgotten")
        with_context.__enter__()
        core.get_context()

    for prepare in (lambda: None, lambda: core.attach_context(Context({"k": []}))):
        contextvars.copy_context().run(forget, prepare)
    gc.collect()
    records = recorder.named("context.forgotten")
    assert [record.flags for record in records] == [ABANDONED] * 2


@pytest.mark.usefixtures("quiet")
def test_a_span_in_a_context_under_itself(recorder: Recorder) -> None:
    """A span that becomes current over a context that has it already is a cycle, and goes away all the same."""

    def forget() -> None:
        span = PROBE.span()
        core.attach_context(set_span_in_context(span, Context()))
        span.__enter__()

    contextvars.copy_context().run(forget)
    gc.collect()
    assert recorder.only("context.api.probe").flags == ABANDONED


@pytest.mark.skipif(not hasattr(sys, "getallocatedblocks"), reason="this interpreter does not count its memory blocks")
@pytest.mark.usefixtures("quiet")
def test_contexts_that_nobody_detaches(recorder: Recorder) -> None:
    """Contexts that are attached again and again, and never detached, do not pile up; nor do spans between them."""

    def use(times: int) -> None:
        for number in range(times):
            span = TRACER.start_span("context.leaked")
            core.attach_context(set_value("n", number, context_of(span)))
            with PROBE:
                core.attach_context(core.get_context())
            span.end()

    def measure() -> int:
        use(100)
        gc.collect()
        before = sys.getallocatedblocks()
        use(2000)
        gc.collect()
        return sys.getallocatedblocks() - before

    assert contextvars.copy_context().run(measure) < 100
    assert recorder.faults == 0


def test_a_long_chain_goes_away_without_recursion(recorder: Recorder) -> None:
    """Spans and contexts that pile up by the ten thousand are let go one by one."""

    def pile() -> None:
        for number in range(20_000):
            core.attach_context(set_value("n", number, core.get_context()))
            core.remote(1, number + 1, True, None).__enter__()

    contextvars.copy_context().run(pile)
    gc.collect()
    assert core.current() is None
    assert recorder.faults == 0
