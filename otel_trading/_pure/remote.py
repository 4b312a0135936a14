"""Parents from elsewhere."""

from __future__ import annotations

import struct

from otel_trading import _layout as at
from otel_trading._pure.api_span import INERT, REMOTE
from otel_trading._pure.frames import FOREIGN, NO_ID, NOT_RANDOM
from otel_trading._pure.hooks import hooks
from otel_trading._pure.spans import Span

_WORDS = struct.Struct("<QQ")
_WORD = (1 << 64) - 1
_SAMPLED, _RANDOM = 1, 2


def remote(
    trace_id: int,
    span_id: int,
    sampled: bool,  # noqa: FBT001  the backend's interface
    tracestate: str | None,
    random: bool = True,  # noqa: FBT001, FBT002
    /,
) -> Span:
    """Make a parent from elsewhere, usable as ``with``, or as the ``parent`` of a span.

    Without ids it is nobody's parent: ``with`` does nothing, as a parent it says nothing.
    """
    span = Span(None)
    span.trace = _WORDS.pack(trace_id >> 64, trace_id & _WORD)
    span.span = (span_id & _WORD).to_bytes(8, "little")
    valid = trace_id != 0 and span.span != NO_ID
    span.phase = REMOTE if valid else INERT
    if not valid:
        span.span = NO_ID
    span.plain = False
    span.flags = FOREIGN | (0 if sampled else at.FLAG_UNSAMPLED) | (0 if random else NOT_RANDOM)
    if isinstance(tracestate, str) and tracestate:
        span.tracestate = tracestate
    return span


def foreign(span: object) -> Span | None:
    """Give a span of another implementation as a parent; None where it is none."""
    if hooks.foreign is None:
        return None
    trace_id, span_id, is_remote, flags, tracestate = hooks.foreign(span)
    if not trace_id or not span_id:
        return None
    parent = remote(trace_id, span_id, bool(flags & _SAMPLED), tracestate, bool(flags & _RANDOM))
    if not is_remote:
        parent.flags &= ~FOREIGN
    return parent
