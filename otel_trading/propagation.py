"""Trace context across processes, as W3C Trace Context writes it: ``inject``, ``extract``, ``current_trace_id``."""

from __future__ import annotations

from otel_trading._backend import core
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import Any, TypeVar

    from otel_trading._backend import Span

    Carrier = TypeVar("Carrier", bound=MutableMapping[str, Any])

_SAMPLED = 0x01
_RANDOM = 0x02  # level 2: the low 56 bits of our trace ids are random

_HEX = frozenset("0123456789abcdef")  # int(…, 16) takes capitals, signs, blanks, other alphabets
_LENGTH = 55
_STATE_LENGTH = 512
_STATE_MEMBERS = 32
_KEY_LENGTH = 256
_KEY_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_KEY_REST = _KEY_FIRST | frozenset("_-*/@")


def current_trace_id() -> str | None:
    """Give the current trace's id as 32 hexadecimal digits, or None where no span is current."""
    span = core.current()
    return None if span is None else f"{span.trace_id:032x}"


def inject(carrier: Carrier) -> Carrier:
    """Write the current span's ``traceparent``, and ``tracestate`` if it has one, into ``carrier``; return it.

    Without a current span the carrier stays as it is.  Never raises: a carrier that cannot be written is a fault.
    """
    span = core.current()
    if span is None:
        return carrier
    flags = _RANDOM | (_SAMPLED if span.sampled else 0)
    try:
        carrier["traceparent"] = f"00-{span.trace_id:032x}-{span.span_id:016x}-{flags:02x}"
        if span.tracestate:
            carrier["tracestate"] = span.tracestate
    except Exception as error:  # noqa: BLE001  the carrier is the application's, and may do anything
        report("inject", f"inject: a {type(carrier).__name__} does not take headers: {error!r}")
    return carrier


def extract(carrier: Mapping[Any, Any]) -> Span:
    """Read a remote parent from ``carrier``: headers of any case, text or bytes.

    Use it as ``with ot.extract(headers):``, or as the parent in ``p.span(parent, …)`` and ``p.start(parent)``.
    Where the carrier has no valid ``traceparent`` the result is inert: ``with`` does nothing, and a span with such
    a parent is a child of the current one.  Never raises.
    """
    try:
        parent = _parent(_header(carrier, "traceparent"))
        state = _state(_header(carrier, "tracestate")) if parent is not None else None
    except Exception as error:  # noqa: BLE001  the carrier is the application's, and may do anything
        report("extract", f"extract: a {type(carrier).__name__} does not give headers: {error!r}")
        parent = state = None
    if parent is None:
        return core.remote(0, 0, False, None)
    trace_id, span_id, sampled = parent
    return core.remote(trace_id, span_id, sampled, state)


def _header(carrier: Mapping[Any, Any], name: str) -> str:
    """Find a header's text, "" where there is none or it is not ASCII."""
    value = carrier.get(name)
    if value is None:
        encoded = name.encode()
        for key in carrier:
            if isinstance(key, (str, bytes)) and key.lower() in (name, encoded):
                value = carrier[key]
                break
    if isinstance(value, (bytes, bytearray)):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str) or not value.isascii():
        return ""
    return value.strip(" \t")


def _parent(text: str) -> tuple[int, int, bool] | None:
    """Parse ``version-trace_id-parent_id-flags``; a later version may have more after another dash."""
    if len(text) < _LENGTH:
        return None
    version, trace_id, span_id, flags = text[:2], text[3:35], text[36:52], text[53:55]
    valid = (
        text[2] == text[35] == text[52] == "-"
        and _HEX.issuperset(version + trace_id + span_id + flags)
        and version != "ff"
        and (len(text) == _LENGTH or (version != "00" and text[_LENGTH] == "-"))
        and trace_id.strip("0") != ""
        and span_id.strip("0") != ""
    )
    if not valid:
        return None
    return int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED)


def _state(text: str) -> str | None:
    """Give ``tracestate`` as it came, or None where a part of it is not valid: then all of it goes."""
    if not text or len(text) > _STATE_LENGTH:
        return None
    members = [member for member in (part.strip(" \t") for part in text.split(",")) if member]
    if not 0 < len(members) <= _STATE_MEMBERS:
        return None
    for member in members:
        key, equals, value = member.partition("=")
        if not (
            equals
            and 0 < len(key) <= _KEY_LENGTH
            and key[0] in _KEY_FIRST
            and _KEY_REST.issuperset(key)
            and 0 < len(value) <= _KEY_LENGTH
            and "=" not in value
            and value.isprintable()  # of ASCII: blank to tilde, so that no line end gets into a header
        ):
            return None
    return text
