"""Spans that are recorded at once, when all is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from time import time_ns

from otel_trading import _layout as at
from otel_trading._pure.api_span import OPEN, set_status, unix_time
from otel_trading._pure.recorder import recorder
from otel_trading._pure.writer import START, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from otel_trading._pure.spans import Span
    from otel_trading._pure.writer import Token


def whole(
    span: Span,
    parent: Span | None,
    start_unix_ns: int,
    end_unix_ns: int,
    error: bool,  # noqa: FBT001
    attributes: Mapping[str, Any] | None,
) -> Span:
    """Do what ``Probe.record`` says with a span that has just been made."""
    if not isinstance(start_unix_ns, int) or not isinstance(end_unix_ns, int):
        raise TypeError("record() takes times as int, in Unix ns")
    if attributes is not None and not isinstance(attributes, Mapping):
        raise TypeError("record() takes attributes as a mapping, or None")
    span.child_of(parent)
    if attributes:
        _describe(span, attributes)
    if recorder.by_unix_time:
        start_unix_ns, end_unix_ns = start_unix_ns or time_ns(), end_unix_ns or time_ns()
    span.begin()
    token = span.entry
    if span.phase == OPEN and token is not None:
        start = unix_time(start_unix_ns or None)
        if start is not None:
            start_at(token, start)
        if error:
            set_status(token, at.STATUS_ERROR, None)
        span.end(end_unix_ns or None)
    return span


def _describe(span: Span, attributes: Mapping[str, Any]) -> None:
    try:
        for key, value in attributes.items():
            if isinstance(key, str):
                span.set_attribute(key, value)
            else:
                recorder.fault()
    except Exception:  # noqa: BLE001  anyone's mapping
        recorder.fault()


def start_at(token: Token, unix_ns: int) -> None:
    """Replace the start of an open entry by what the program gave."""
    words, word = token.words, token.word
    seq = token.seq
    token.seq = seq + 2
    words[word] = seq - 1
    words[word + START] = unix_ns
    flag(token, at.FLAG_START_UNIX)
    words[word] = seq
