"""What the backend asks OpenTelemetry's API for: the answers, and that none of them raises."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as api
from opentelemetry import trace
from opentelemetry.context.context import Context, _RuntimeContext
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, TraceState

from otel_trading._backend import core
from otel_trading.api import RecorderContext, TracerProvider, hooks, names
from otel_trading.api.scopes import scope_json

if TYPE_CHECKING:
    from conftest import Recorder


class Broken:
    """A value whose every method raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def get_span_context(self) -> SpanContext:
        """Raise, too."""
        raise RuntimeError("no context")


class BrokenError(Exception):
    """An exception without a text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_the_backends_types_are_the_apis() -> None:
    """Spans and tracers of the recorder are instances of the API's classes."""
    hooks.install()
    assert issubclass(core.Span, trace.Span)
    assert issubclass(core.Tracer, trace.Tracer)


def test_span_contexts_are_taken_apart_and_made() -> None:
    """Both directions agree, flags and trace state included."""
    made = hooks.span_context(1, 2, True, 3, "a=1,b=2")
    assert made == SpanContext(
        1, 2, is_remote=True, trace_flags=TraceFlags(3), trace_state=TraceState([("a", "1"), ("b", "2")])
    )
    assert hooks.foreign(NonRecordingSpan(made)) == (1, 2, True, 3, "a=1,b=2")
    assert hooks.foreign(trace.INVALID_SPAN) == (0, 0, False, 0, None)
    assert hooks.trace_state("a=1") is hooks.trace_state("a=1")
    assert len(hooks.trace_state(None)) == 0


def test_trace_states_are_remembered_in_bounds() -> None:
    """However many there are, few are kept."""
    for number in range(2_000):
        assert hooks.trace_state(f"n={number}")["n"] == str(number)
    assert len(hooks._states) <= hooks._MOST_STATES


def test_what_is_broken_is_a_fault_and_not_an_exception(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Spans, values, exceptions and attributes that raise give empty answers, said once."""
    assert hooks.foreign(Broken()) == (0, 0, False, 0, None)
    assert hooks.clean(Broken()) is None
    found = hooks.exception(BrokenError(), 7, False)  # type: ignore[arg-type]
    assert found["exception.message"] == ""
    assert found["exception.type"].endswith("BrokenError")
    assert "no span context" in caplog.text
    recorder.faults_expected = 3


def test_exceptions_are_told_as_the_sdk_tells_them() -> None:
    """Type with its module but for builtins, message, stack, escaped; the caller's attributes win."""
    try:
        raise ValueError("wrong")
    except ValueError as error:
        found = hooks.exception(error, {"exception.message": "mine", "more": 1}, True)
    assert list(found) == [
        "exception.type", "exception.message", "exception.stacktrace", "exception.escaped", "more",
    ]  # fmt: skip
    assert (found["exception.type"], found["exception.message"], found["exception.escaped"]) == (
        "ValueError",
        "mine",
        "True",
    )
    assert "test_api_hooks.py" in found["exception.stacktrace"]


@pytest.mark.parametrize(
    ("given", "description", "expected"),
    [
        (StatusCode.OK, None, (1, None)),
        (StatusCode.ERROR, "bad", (2, "bad")),
        (Status(StatusCode.ERROR, "own"), None, (2, "own")),
        (StatusCode.UNSET, "x", (0, None)),
        (Status(), None, (0, None)),
        ("OK", None, None),
        (None, None, None),
    ],
)
def test_a_status_is_read(given: Any, description: str | None, expected: tuple[int, str | None] | None) -> None:
    """Codes and descriptions are the SDK's; UNSET says nothing, and what is no status is none."""
    assert hooks.status(given, description) == expected


def test_marked_exceptions_keep_their_text_to_themselves() -> None:
    """What an instrumentor has marked as carrying secrets is in no event and no status, however it gets there."""
    from otel_trading.instrument import redaction

    error = ValueError("https://example.com?signature=SECRET")
    plain = ValueError("plain")
    redaction.mark(error)
    assert hooks.status(plain, None) == (2, "ValueError: plain")
    assert hooks.status(error, None) == (2, f"ValueError: {redaction.WITHHELD}")
    assert "SECRET" not in str(hooks.exception(error, None, False))
    try:
        raise error
    except ValueError:
        described = hooks.status(Status(StatusCode.ERROR, f"ValueError: {error}"), None)
        other = hooks.status(StatusCode.ERROR, "something else")
    assert described == (2, f"ValueError: {redaction.WITHHELD}")
    assert other == (2, "something else")


def test_a_description_next_to_a_status_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The description of the Status holds, and the other one is logged."""
    assert hooks.status(Status(StatusCode.ERROR, "own"), "other") == (2, "own")
    assert "ignored" in caplog.text


def test_equal_scopes_have_equal_text() -> None:
    """Nothing that is not there is written, and bytes become text."""
    assert scope_json("a", "", "", None) == '{"name":"a","version":""}'
    assert (
        scope_json("a", "1", "u", {"x": (1, 2)})
        == '{"name":"a","version":"1","schema_url":"u","attributes":{"x":[1,2]}}'
    )
    assert "b'x'" in scope_json("a", "", "", {"x": b"x"})


def test_a_process_has_so_many_names(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the process' share every scope answers with its own ``other``, one for each kind and tier."""
    assert recorder.path
    monkeypatch.setattr(names, "MOST", len(names._probes))
    one = names.make_probe("scope one", "a", 0, None)
    assert one is names.make_probe("scope one", "b", 0, None)
    assert one is not names.make_probe("scope two", "b", 0, None)
    assert names.make_probe("scope one", "c", 3, "P0").kind == 3
    assert (one.name, one.tier, one.scope) == ("other", 1, "scope one")


class Stack(_RuntimeContext):
    """A runtime of another make, with tokens of its own."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.contexts = [Context()]

    def attach(self, context: Context) -> Token[Context]:
        """Push."""
        self.contexts.append(context)
        return len(self.contexts)  # type: ignore[return-value]

    def get_current(self) -> Context:
        """Look."""
        return self.contexts[-1]

    def detach(self, token: Token[Context]) -> None:
        """Pop."""
        del self.contexts[int(token) - 1 :]  # type: ignore[call-overload]


def test_a_runtime_of_another_make_is_taken_over() -> None:
    """Its tokens are detached there, and what was current there is carried over until then."""
    hooks.install()
    previous = Stack()
    outer, inner = previous.attach(Context({"a": 1})), previous.attach(Context({"a": 2}))
    runtime = RecorderContext(previous)
    runtime.begin()
    runtime.carry()
    assert runtime.get_current()["a"] == 2
    runtime.detach(inner)
    assert runtime.get_current()["a"] == 1
    runtime.detach(outer)
    assert "a" not in runtime.get_current()


def test_a_token_of_nobody_is_refused() -> None:
    """What is no token of ours raises as a context variable does, for OpenTelemetry to log."""
    hooks.install()
    runtime = RecorderContext()
    strange: ContextVar[Context] = ContextVar("strange")
    with pytest.raises(ValueError, match="Context"):
        runtime.detach(strange.set(Context()))
    with pytest.raises((TypeError, ValueError)):
        runtime.detach(object())  # type: ignore[arg-type]
    token = runtime.attach(Context({"k": 1}))
    assert runtime.get_current()["k"] == 1
    runtime.detach(token)


def test_the_runtime_is_put_in_place_once(recorder: Recorder) -> None:
    """A second provider leaves the context as it is."""
    assert recorder.path
    TracerProvider(shutdown_on_exit=False)
    first = api._RUNTIME_CONTEXT
    TracerProvider(shutdown_on_exit=False)
    assert api._RUNTIME_CONTEXT is first
    assert isinstance(first, RecorderContext)
