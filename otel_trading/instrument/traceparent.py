"""Trace context in JSON messages of one's own services: a field ``traceparent``, written first and looked for first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_trading.propagation import extract, inject

if TYPE_CHECKING:
    from otel_trading._backend import Span

_FIELD = '"traceparent":'
_ENCODED = _FIELD.encode()
_SCANNED = 512
_LONGEST = 64  # blanks, quotes and 55 characters


def with_traceparent(message: Any) -> Any:
    """Give a JSON object, text or bytes, with the current span's ``traceparent``; all else as it is.

    An object that has the field already keeps its own.  Only the beginning is looked at; nothing is parsed.
    """
    if isinstance(message, str):
        if message[:1] == "{" and _FIELD not in message[:_SCANNED] and (header := _header()):
            rest = message[1:]
            return f'{{{_FIELD}"{header}"{"" if rest.lstrip()[:1] == "}" else ","}{rest}'
    elif isinstance(message, bytes) and message[:1] == b"{" and _ENCODED not in message[:_SCANNED]:
        header = _header()
        if header:
            rest_of_bytes = message[1:]
            comma = b"" if rest_of_bytes.lstrip()[:1] == b"}" else b","
            return b'{%s"%s"%s%s' % (_ENCODED, header.encode(), comma, rest_of_bytes)
    return message


def parent_in(message: Any) -> Span | None:
    """Find the remote parent in the first 512 bytes of a JSON message, text or bytes; None where there is none."""
    head = bytes(message[:_SCANNED]).decode("ascii", "replace") if not isinstance(message, str) else message[:_SCANNED]
    at = head.find(_FIELD)
    if at < 0:
        return None
    at += len(_FIELD)
    value = head[at : at + _LONGEST].lstrip()
    if value[:1] != '"':
        return None
    parent = extract({"traceparent": value[1:].partition('"')[0]})
    return parent if parent.span_id else None


def _header() -> str:
    carrier: dict[str, str] = {}
    return inject(carrier).get("traceparent", "")
