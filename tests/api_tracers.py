"""Tracers of the backend itself, without a provider, for the tests of OpenTelemetry's API on the recorder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceFlags, TraceState, set_span_in_context

from otel_trading._backend import core
from otel_trading.api import hooks

if TYPE_CHECKING:
    from typing import Any

SCOPE = '{"name":"tests"}'
UNSET, OK, ERROR = 0, 1, 2
REMOTE_PARENT, UNSAMPLED, ABANDONED = 1, 2, 8
START_UNIX, END_UNIX = 64, 128

_probes: dict[tuple[str, int, int], Any] = {}


def make_probe(name: str, kind: int, tier: Any) -> Any:
    """Give the probe of a name, a kind and a tier; the same for the same."""
    number = tier if isinstance(tier, int) else 1
    key = (name, kind, number)
    if key not in _probes:
        _probes[key] = core.Probe(name, number, 0, False, kind, SCOPE)
    return _probes[key]


def make_tracer(**options: Any) -> Any:
    """Give a tracer, with the arguments of ``core.Tracer`` by name."""
    hooks.install()
    return core.Tracer(SCOPE, options.pop("make_probe", make_probe), **options)


def context_of(span: Any) -> Context:
    """Give a context that has this span and nothing else."""
    return set_span_in_context(span, Context())


def span_context(
    trace_id: int = 0xA1, span_id: int = 0xB2, *, remote: bool = True, flags: int = 1, state: str = ""
) -> SpanContext:
    """Give a span context, by default a remote and sampled one."""
    return SpanContext(trace_id, span_id, remote, TraceFlags(flags), TraceState.from_header([state] if state else []))


def current() -> Any:
    """Give what ``trace.get_current_span()`` finds in the recorder's context."""
    return core.get_context().get(hooks.SPAN_KEY)
