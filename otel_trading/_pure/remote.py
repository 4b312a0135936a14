"""Parents from elsewhere."""

from __future__ import annotations

import struct

from otel_trading import _layout as at
from otel_trading._pure.spans import INERT, NO_ID, REMOTE, Span

_WORDS = struct.Struct("<QQ")
_WORD = (1 << 64) - 1


def remote(trace_id: int, span_id: int, sampled: bool, tracestate: str | None, /) -> Span:  # noqa: FBT001
    """Make a parent from elsewhere, usable as ``with``, or as the ``parent`` of a span.

    Without ids it is nobody's parent: ``with`` does nothing, as a parent it says nothing.
    """
    span = Span(None)
    span.trace = _WORDS.pack(trace_id >> 64, trace_id & _WORD)
    span.span = (span_id & _WORD).to_bytes(8, "little")
    valid = trace_id != 0 and span.span != NO_ID
    span.state = REMOTE if valid else INERT
    if not valid:
        span.span = NO_ID
    span.plain = False
    span.flags = 0 if sampled else at.FLAG_UNSAMPLED
    if isinstance(tracestate, str) and tracestate:
        span.tracestate = tracestate
    return span
