"""A program that uses all of OpenTelemetry's tracing API, on the SDK's provider or on ours.

``program.py stock|ours [ids]``.  Spans go to the OTLP receiver that the environment names; what a program can see of
its own spans is printed as JSON.  Every span has a name of its own, as ids differ from run to run.  Times that the
program gives are far in the past.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import sys
import threading
from collections import OrderedDict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PAST = 1_600_000_000_000_000_000
seen: dict[str, object] = {}


class Odd:
    """A value that only has a text."""

    def __str__(self) -> str:
        return "odd"


class OddError(Exception):
    """An error of the program's own."""


def remote(flags: int = 1, state: str = "") -> SpanContext:
    """Give a parent from elsewhere, with known ids."""
    return SpanContext(
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
        is_remote=True,
        trace_flags=TraceFlags(flags),
        trace_state=TraceState.from_header([state]) if state else None,
    )


def under(parent: SpanContext) -> context.Context:
    """Give a context with a span of another implementation."""
    return trace.set_span_in_context(NonRecordingSpan(parent), context.Context())


def attributes(tracer: trace.Tracer) -> None:
    """Set values of every type, by every way in."""
    plain: dict[str, Any] = {
        "text": "value", "empty": "", "unicode": "präzise 取引", "bool": True, "false": False, "int": 7, "negative": -7,
        "big": 2**63 - 1, "small": -(2**63), "float": 1.5, "zero": 0.0, "minus": -0.0, "none": None, "bytes":
        b"\x00\xff", "nan": float("nan"), "infinity": float("inf"), "long": "x" * 5000, "with nul": "a\0b",
    }  # fmt: skip
    nested: dict[str, Any] = {
        "list": [1, 2, 3], "tuple": ("a", "b"), "empty list": [], "mixed": [1, "a", None, True, 1.5, b"b"],
        "deep": [[1, [2, [3]]], {"a": {"b": ["c"]}}], "map": {"a": 1, "b": None, "c": [1]}, "empty map": {},
        "ordered": OrderedDict(a=1), "proxy": MappingProxyType({"a": 1}), "range": range(3),
        "map of odd": {1: "a", "b": Odd()},
    }  # fmt: skip
    with tracer.start_as_current_span("attributes.start", attributes=plain):
        pass
    with tracer.start_as_current_span("attributes.nested", attributes=nested):
        pass
    with tracer.start_as_current_span("attributes.set") as span:
        for key, value in plain.items():
            span.set_attribute(key, value)
    with tracer.start_as_current_span("attributes.set_nested") as span:
        span.set_attributes(nested)
    odd: dict[str, Any] = {"odd": Odd(), "list": [Odd()], "set": {1}}
    with tracer.start_as_current_span("attributes.odd", attributes=odd) as span:
        span.set_attribute("odd again", Odd())  # type: ignore[arg-type]
        span.set_attribute("plain object", object())  # type: ignore[arg-type]
        span.set_attribute("", "no key")
        span.set_attribute(7, "no text")  # type: ignore[arg-type]
        span.set_attributes({3: "three", "four": 4})  # type: ignore[dict-item]
    with tracer.start_as_current_span("attributes.again", attributes={"a": 1, "b": 2, "c": 3}) as span:
        span.set_attribute("a", "moved")
        span.set_attributes({"d": 4, "b": "moved too"})
    with tracer.start_as_current_span("attributes.many", attributes={f"first {n}": n for n in range(100)}) as span:
        for number in range(60):
            span.set_attribute(f"then {number}", str(number))
    with tracer.start_as_current_span("attributes.none", attributes=None):
        pass
    numbers = [1, 2]
    with tracer.start_as_current_span("attributes.copied", attributes={"numbers": numbers}):
        numbers.append(3)


def events_and_links(tracer: trace.Tracer) -> None:
    """Add events and links, at the start and later, too many of them, and invalid ones."""
    with tracer.start_as_current_span("events") as span:
        span.add_event("bare")
        span.add_event("dated", {"n": 1, "list": [1, 2], "none": None}, PAST)
        span.add_event("empty", {})
        span.add_event("odd", {"odd": Odd(), "bytes": b"\1"})  # type: ignore[dict-item]
        span.add_event("long", {"text": "y" * 5000})
    with tracer.start_as_current_span("events.many") as span:
        for number in range(150):
            span.add_event(f"event {number}", {"n": number}, PAST + number)
    with tracer.start_as_current_span("events.wide") as span:
        span.add_event("wide", {f"k{n}": n for n in range(150)}, PAST)
    first = tracer.start_span("links.first")
    zero = SpanContext(0, 0, is_remote=False)
    links = [
        Link(first.get_span_context()),
        Link(remote(), {"why": "elsewhere", "list": ["a"]}),
        Link(zero),
        Link(zero, {"only": "attributes"}),
        Link(SpanContext(0, 0, is_remote=True, trace_state=TraceState([("vendor", "1")]))),
    ]
    second = tracer.start_span("links.second", links=links)
    second.add_link(first.get_span_context(), {"later": True})
    second.add_link(zero)
    second.end()
    first.end()
    with tracer.start_as_current_span("links.many", links=[Link(remote(), {"n": n}) for n in range(150)]):
        pass
    with tracer.start_as_current_span("links.none", links=None):
        pass


def statuses(tracer: trace.Tracer) -> None:
    """Set a status in every order."""
    steps: dict[str, list[tuple[Any, ...]]] = {
        "ok": [(StatusCode.OK,)],
        "ok with text": [(StatusCode.OK, "ignored")],
        "error": [(StatusCode.ERROR, "because")],
        "error without text": [(StatusCode.ERROR,)],
        "object": [(Status(StatusCode.ERROR, "object"),)],
        "object and text": [(Status(StatusCode.ERROR, "object"), "ignored")],
        "ok stays": [(StatusCode.OK,), (StatusCode.ERROR, "late")],
        "ok stays for objects": [(Status(StatusCode.OK),), (Status(StatusCode.ERROR, "late"),)],
        "ok wins": [(StatusCode.ERROR, "early"), (StatusCode.OK,)],
        "unset does nothing": [(StatusCode.ERROR, "early"), (StatusCode.UNSET,), (Status(StatusCode.UNSET),)],
        "last error": [(StatusCode.ERROR, "first"), (StatusCode.ERROR, "second")],
        "error forgets text": [(StatusCode.ERROR, "first"), (StatusCode.ERROR,)],
        "no status": [("OK",), (None,), (1,)],
    }
    for name, calls in steps.items():
        with tracer.start_as_current_span(f"status.{name}") as span:
            for call in calls:
                span.set_status(*call)


def errors(tracer: trace.Tracer) -> None:
    """Leave blocks by exceptions of several kinds, with every switch."""

    def fail(kind: type[BaseException] = OddError) -> None:
        raise kind("went wrong")

    def tried(name: str, **options: bool) -> None:
        try:
            with tracer.start_as_current_span(f"error.{name}", **options):  # type: ignore[arg-type]
                fail()
        except OddError:
            pass

    tried("plain")
    tried("not recorded", record_exception=False)
    tried("no status", set_status_on_exception=False)
    tried("neither", record_exception=False, set_status_on_exception=False)
    for name, kind in (("exit", SystemExit), ("interrupt", KeyboardInterrupt), ("generator", GeneratorExit)):
        try:
            with tracer.start_as_current_span(f"error.base {name}"):
                fail(kind)
        except BaseException:  # noqa: BLE001, S110
            pass
    try:
        with tracer.start_as_current_span("error.after status") as span:
            span.set_status(StatusCode.OK)
            fail()
    except OddError:
        pass
    try:
        with tracer.start_span("error.span as block"):
            fail()
    except OddError:
        pass
    try:
        with tracer.start_span("error.quiet span", record_exception=False, set_status_on_exception=False):
            fail()
    except OddError:
        pass
    try:
        with tracer.start_as_current_span("error.outer"), tracer.start_as_current_span("error.inner"):
            fail()
    except OddError:
        pass


def recorded_errors(tracer: trace.Tracer) -> None:
    """Record exceptions without leaving a block by them."""

    def fail(kind: type[BaseException] = OddError) -> None:
        raise kind("went wrong")

    with tracer.start_as_current_span("error.recorded") as span:
        try:
            fail(ValueError)
        except ValueError as error:
            span.record_exception(error)
            span.record_exception(error, {"extra": 1, "exception.message": "mine"}, PAST, escaped=True)
        span.record_exception(OddError())
        try:
            try:
                fail(KeyError)
            except KeyError as error:
                raise OddError("second") from error
        except OddError as error:
            span.record_exception(error, timestamp=PAST)


def names_and_times(tracer: trace.Tracer) -> None:
    """Change names, give times, end twice, and use a span after its end."""
    span = tracer.start_span("names.before")
    span.update_name("names.after")
    span.end()
    span = tracer.start_span("times.given", start_time=PAST)
    span.end(PAST + 5)
    span = tracer.start_span("times.backwards", start_time=PAST)
    span.end(PAST - 5)
    span = tracer.start_span("times.start only", start_time=PAST)
    span.end()
    span = tracer.start_span("times.zero", start_time=1)
    span.end(2)
    for kind in SpanKind:
        tracer.start_span(f"kind.{kind.name}", kind=kind).end()
    span = tracer.start_span("ended", attributes={"a": 1})
    seen["recording before the end"] = span.is_recording()
    span.end(PAST + 10**15)
    span.set_attribute("late", 1)
    span.set_attributes({"late": 2})
    span.add_event("late")
    span.add_link(remote())
    span.update_name("late")
    span.set_status(StatusCode.ERROR, "late")
    span.record_exception(ValueError("late"))
    span.end(PAST)
    seen["recording after the end"] = span.is_recording()
    with tracer.start_as_current_span("not ended by its block", end_on_exit=False) as span:
        pass
    seen["recording after the block"] = span.is_recording()
    span.set_attribute("still", "open")
    span.end()
    tracer.start_span("name " + "n" * 300).end()
    tracer.start_span("").end()


def parents(tracer: trace.Tracer) -> None:
    """Take parents from contexts of every make."""
    with tracer.start_as_current_span("parent") as parent:
        tracer.start_span("parent.current").end()
        tracer.start_span("parent.none", context=context.Context()).end()
        tracer.start_span("parent.remote", context=under(remote(state="vendor=1,ot=th:8"))).end()
        tracer.start_span("parent.unsampled", context=under(remote(0))).end()
        tracer.start_span("parent.random", context=under(remote(3))).end()
        tracer.start_span("parent.invalid", context=under(SpanContext(0, 0, is_remote=True))).end()
        local = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
        tracer.start_span("parent.foreign", context=under(local)).end()
        elsewhere = trace.set_span_in_context(parent, context.Context())
    tracer.start_span("parent.ended", context=elsewhere).end()
    with (
        trace.use_span(NonRecordingSpan(remote()), end_on_exit=True),
        tracer.start_as_current_span("parent.used remote"),
    ):
        tracer.start_span("parent.used remote child").end()
    span = tracer.start_span("used")
    with trace.use_span(span):
        seen["use_span makes it current"] = trace.get_current_span() is span
        tracer.start_span("used.child").end()
    seen["use_span does not end it"] = span.is_recording()
    try:
        with trace.use_span(span, end_on_exit=True):
            raise OddError("in use_span")
    except OddError:
        pass
    seen["use_span ends it"] = span.is_recording()
    span = tracer.start_span("used.block")
    with span as entered:
        seen["a span's block gives the span"] = entered is span
        seen["a span's block does not make it current"] = trace.get_current_span() is span
        tracer.start_span("used.block not its child").end()
    tracer.start_span("parent.old way", trace.set_span_in_context(parent), SpanKind.CLIENT, {"a": 1}, (), PAST).end(
        PAST
    )


def contexts(tracer: trace.Tracer) -> None:
    """Carry baggage and other keys next to spans."""
    key = context.create_key("mine")
    token = context.attach(baggage.set_baggage("user", "alice", context.set_value(key, 1)))
    with tracer.start_as_current_span("context.outer"):
        seen["baggage in a span"] = baggage.get_baggage("user")
        inner = context.attach(baggage.set_baggage("desk", "fx"))
        with tracer.start_as_current_span("context.inner") as span:
            seen["all baggage"] = sorted(baggage.get_all().items())
            seen["own key"] = context.get_value(key)
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            seen["headers"] = sorted(carrier)
            seen["baggage header"] = carrier.get("baggage")
            header = carrier["traceparent"].split("-")
            seen["injected is the span"] = header[2] == f"{span.get_span_context().span_id:016x}"
            seen["injected flags"] = header[3]
        context.detach(inner)
        seen["baggage after detach"] = sorted(baggage.get_all().items())
        seen["current after detach"] = trace.get_current_span().get_span_context().is_valid
    context.detach(token)
    seen["no baggage left"] = sorted(baggage.get_all().items())
    seen["no span left"] = trace.get_current_span() is trace.INVALID_SPAN
    headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=a:1,ot=th:8",
        "baggage": "a=1",
    }
    extracted = propagate.extract(headers)
    with tracer.start_as_current_span("context.extracted", extracted) as span:
        found = span.get_span_context()
        seen["trace state"] = found.trace_state.to_header()
        seen["trace flags"] = int(found.trace_flags)
        seen["own context is not remote"] = found.is_remote
        carrier = {}
        propagate.inject(carrier)
        seen["trace state goes on"] = carrier.get("tracestate")
        # A context that is given is the parent's, and not what is current.
        seen["extracted baggage is not current"] = baggage.get_baggage("a")
    with tracer.start_as_current_span("context.root") as span:
        seen["root flags"] = int(span.get_span_context().trace_flags)
        seen["context has the span"] = trace.get_current_span(context.get_current()) is span


def functions(tracer: trace.Tracer) -> None:
    """Decorate functions of every kind."""

    @tracer.start_as_current_span("function.plain", attributes={"a": 1})
    def plain(value: int) -> int:
        """Keep me."""
        trace.get_current_span().set_attribute("value", value)
        return value + 1

    @tracer.start_as_current_span("function.async", kind=SpanKind.SERVER)
    async def async_function(value: int) -> int:
        await asyncio.sleep(0)
        tracer.start_span("function.async child").end()
        return value

    @tracer.start_as_current_span("function.generator")
    def generator() -> Iterator[int]:
        yield 1
        tracer.start_span("function.generator's body").end()
        yield 2

    @tracer.start_as_current_span("function.async generator")
    async def async_generator() -> AsyncIterator[int]:
        yield 1

    @tracer.start_as_current_span("function.fails")
    def fails() -> None:
        raise OddError("in a function")

    async def everything() -> list[int]:
        return [await async_function(5), *[item async for item in async_generator()]]

    seen["function's result"] = plain(1)
    seen["function's name"] = [plain.__name__, plain.__doc__]
    seen["generator's items"] = list(generator())
    seen["async results"] = asyncio.run(everything())
    try:
        fails()
    except OddError:
        seen["function's error"] = True


def concurrency(tracer: trace.Tracer) -> None:
    """Cross threads and tasks."""

    def worker(name: str) -> None:
        with tracer.start_as_current_span(name):
            tracer.start_span(name + ".child").end()

    with tracer.start_as_current_span("thread.parent"):
        alone = threading.Thread(target=worker, args=("thread.alone",))
        copied = contextvars.copy_context()
        along = threading.Thread(target=copied.run, args=(worker, "thread.along"))
        for thread in (alone, along):
            thread.start()
        for thread in (alone, along):
            thread.join()

    async def task(name: str, turns: int) -> None:
        with tracer.start_as_current_span(name) as span:
            for _ in range(turns):
                await asyncio.sleep(0)
                assert trace.get_current_span() is span
            tracer.start_span(name + ".child").end()

    async def all_tasks() -> None:
        with tracer.start_as_current_span("task.parent"):
            await asyncio.gather(*(task(f"task.{number}", number % 3 + 1) for number in range(8)))
            await asyncio.to_thread(worker, "task.thread")

    asyncio.run(all_tasks())
    across = tracer.start_span("thread.across")
    ender = threading.Thread(target=across.end)
    ender.start()
    ender.join()


def suspended(tracer: trace.Tracer) -> None:
    """Leave blocks in another order than they were entered."""

    def inside(name: str) -> Iterator[None]:
        with tracer.start_as_current_span(name):
            yield

    with tracer.start_as_current_span("suspended.outer"):
        generator = inside("suspended.generator")
        next(generator)
        tracer.start_span("suspended.child").end()
        next(generator, None)
        tracer.start_span("suspended.after").end()


def scopes(provider: trace.TracerProvider) -> None:
    """Take tracers of several instrumentation scopes."""
    for arguments in (
        ("scope.plain",),
        ("scope.version", "1.2"),
        ("scope.schema", "1.2", "https://example.com/schema"),
        ("scope.attributes", "1.2", None, {"a": 1, "list": ["x", "y"], "text": "t"}),
    ):
        tracer = provider.get_tracer(*arguments)  # type: ignore[arg-type]
        tracer.start_span(str(arguments[0])).end()
    seen["one tracer a scope"] = provider.get_tracer("same", "1") is provider.get_tracer("same", "1")
    trace.get_tracer("scope.global", "3").start_span("scope.global").end()


class Counting:
    """Ids one after the other, so that a share of the traces is the same one each time."""

    def __init__(self) -> None:
        self.traces = self.spans = 0

    def generate_trace_id(self) -> int:
        """Spread the traces over all ids."""
        self.traces += 1
        return self.traces * 0x9E3779B97F4A7C15F39CC0605CEDC835 & (2**128 - 1)

    def generate_span_id(self) -> int:
        """Count."""
        self.spans += 1
        return self.spans

    def is_trace_id_random(self) -> bool:
        """Tell that they are not random."""
        return False


def shares(tracer: trace.Tracer) -> None:
    """Make many small traces."""
    for number in range(40):
        with tracer.start_as_current_span(f"share.{number}") as span:
            seen[f"share {number}"] = span.is_recording()
            tracer.start_span(f"share.{number}.child").end()
            with tracer.start_as_current_span(f"share.{number}.remote", under(remote(number % 2))):
                pass


PARTS: tuple[Callable[[trace.Tracer], None], ...] = (
    attributes,
    events_and_links,
    statuses,
    errors,
    recorded_errors,
    names_and_times,
    parents,
    contexts,
    functions,
    concurrency,
    suspended,
)


def make(which: str, *, counted: bool) -> Any:
    """Make the provider that is asked for."""
    options: dict[str, Any] = {"id_generator": Counting()} if counted else {}
    if which == "ours":
        from otel_trading.api import TracerProvider

        return TracerProvider(**options)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider as Stock
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = Stock(**options)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def main(which: str, what: str = "") -> None:
    """Run all parts, or the one about ids."""
    provider = make(which, counted=what == "ids")
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("fidelity", "1.0", schema_url="https://example.com/fidelity")
    if what == "ids":
        shares(tracer)
    else:
        for part in PARTS:
            part(tracer)
        scopes(provider)
    assert provider.force_flush(20_000)
    provider.shutdown()
    print(json.dumps(seen))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
