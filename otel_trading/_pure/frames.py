"""What is current: one context variable for probes' spans, OpenTelemetry's spans, remote parents, and its contexts.

Its value is None, a Span, or a Frame, which is a Context that was attached.  All have in common what a child takes
over: ``trace``, ``span``, ``plain``, ``tracestate``, ``inherited()``; and ``beneath``, the Context on which they stand.
"""

from __future__ import annotations

from contextvars import ContextVar

from otel_trading import _layout as at
from otel_trading._pure.hooks import hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Token
    from typing import Any, TypeAlias

    from otel_trading._pure.spans import Span

    Top: TypeAlias = "Span | Frame"

NO_ID = bytes(8)
NO_TRACE = bytes(16)
NOT_RANDOM, FOREIGN = 1 << 8, 1 << 9
"""Flags of a span that are not recorded: of its trace id, and that it is another process'."""
RECORDED = 0xFF
"""The flags that are."""

_variable: ContextVar[Top | None] = ContextVar("otel_trading.current", default=None)
top = _variable.get
"""Give what is current, whatever it is."""
set_top = _variable.set


class Frame:
    """A Context that was attached, with what children take over from its span."""

    __slots__ = ("_remote", "beneath", "flags", "of", "plain", "prev", "span", "trace", "tracestate")

    is_current = left_early = False
    probe = None
    phase = -1

    def __init__(self, context: Any, prev: Span | None, of: Span | None) -> None:
        """``prev`` is the span below, ``of`` the context's own."""
        self.beneath = context
        self.prev = prev
        self.of = of
        if of is None:
            self.trace, self.span, self.flags, self.plain = NO_TRACE, NO_ID, 0, False
            self.tracestate: str | None = None
            self._remote = 0
        else:
            self.trace, self.span, self.flags, self.plain = of.trace, of.span, of.flags, of.plain
            self.tracestate = of.tracestate
            self._remote = of.inherited() & at.FLAG_REMOTE_PARENT

    def inherited(self) -> int:
        """Give the flags of a direct child."""
        return self.flags & at.FLAG_UNSAMPLED | self._remote


def span_of(context: Any) -> Span | None:
    """Give the span of a Context, of any implementation, as one of ours; None where it has none that is valid."""
    from otel_trading._pure.remote import foreign
    from otel_trading._pure.spans import Span

    try:
        span = context.get(hooks.span_key)
    except Exception:  # noqa: BLE001  what is attached may be anything
        return None
    if span is None or isinstance(span, Span):
        return span
    return foreign(span)


def attach_context(context: Any, /) -> Any:
    """Make a Context current; gives what ``detach_context`` takes."""
    below = top()
    if type(below) is Frame:
        below = below.prev  # whoever attaches and never detaches makes no chain
    return set_top(Frame(context, below, span_of(context)))  # type: ignore[arg-type]  # a span, as just seen


def detach_context(token: Token[Top | None], /) -> None:
    """Go back to before ``attach_context``.  Raises ValueError, RuntimeError or TypeError as ContextVar.reset does."""
    _variable.reset(token)
    before = below = top()
    while below is not None and below.left_early:
        below = below.prev
    if below is not before:
        set_top(below)


def get_context() -> Any:
    """Give OpenTelemetry's current context; its span is the current span, whoever made it current."""
    above = top()
    if above is None:
        return hooks.context() if hooks.context is not None else None
    if type(above) is Frame:
        return above.beneath
    return above.context_with_it()  # type: ignore[union-attr]  # a span


def current() -> Span | None:
    """Give the current span: one of ours or a remote parent; None without one."""
    above = top()
    if type(above) is Frame:
        above = above.of
    return above if above is not None and above.span != NO_ID else None  # type: ignore[return-value]  # a span
