"""Trace context across processes and threads: ``inject``, ``extract``, ``carry``, ``current_trace_id``.

Mappings (headers, JSON objects, the fields of a Redis stream) have it as W3C Trace Context writes it; buffers (binary
protocols, shared memory) have it in 25 bytes: trace id, span id, both big-endian, and the flags.
"""

from __future__ import annotations

from contextvars import copy_context

from otel_trading._backend import core
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from contextvars import Context
    from typing import Any, TypeVar

    from otel_trading._backend import Span

    Carrier = TypeVar("Carrier", bound=MutableMapping[str, Any] | bytearray | memoryview)
    Result = TypeVar("Result")


_SAMPLED = 0x01
_RANDOM = 0x02  # level 2: the low 56 bits of the trace id are random

_BINARY_LENGTH = 25
_NOBODY = bytes(_BINARY_LENGTH)

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
    """Write the current span's context into ``carrier``; return it.

    A mapping gets ``traceparent``, and ``tracestate`` where the span has one; without a current span it stays as it is.
    A ``bytearray``, or another writable buffer of 25 bytes or more, gets the binary form at its start; without a
    current span that is zeros, so that a buffer which is used again does not carry an old one.

    Never raises: a carrier that cannot be written is a fault.
    """
    span = core.current()
    if isinstance(carrier, (bytearray, memoryview)):
        _inject_binary(span, carrier)
        return carrier
    if span is None:
        return carrier
    flags = (_RANDOM if span.random else 0) | (_SAMPLED if span.sampled else 0)
    try:
        carrier["traceparent"] = f"00-{span.trace_id:032x}-{span.span_id:016x}-{flags:02x}"
        if span.tracestate:
            carrier["tracestate"] = span.tracestate
    except Exception as error:  # noqa: BLE001  the carrier is the application's, and may do anything
        report("inject", f"inject: a {type(carrier).__name__} does not take headers: {error!r}")
    return carrier


def _inject_binary(span: Span | None, carrier: bytearray | memoryview) -> None:
    if span is None:
        packed = _NOBODY
    else:
        flags = (_RANDOM if span.random else 0) | (_SAMPLED if span.sampled else 0)
        packed = (span.trace_id << 72 | span.span_id << 8 | flags).to_bytes(_BINARY_LENGTH, "big")
    try:
        with memoryview(carrier) as view, view.cast("B") as octets:
            octets[:_BINARY_LENGTH] = packed
    except (TypeError, ValueError, BufferError) as error:
        report("inject:binary", f"inject: a buffer takes {_BINARY_LENGTH} bytes at its start, this one: {error}")


def extract(carrier: Mapping[Any, Any] | bytes | bytearray | memoryview) -> Span:
    """Read a remote parent from ``carrier``: a mapping, with headers of any case, text or bytes; or a buffer.

    Use it as ``with ot.extract(headers):``, or as the parent in ``p.span(parent, …)`` and ``p.start(parent)``.
    Where a mapping has no valid ``traceparent``, or a buffer is short or has a zero id at its start, the result is
    inert: ``with`` does nothing, and a span with such a parent is a child of the current one.  Never raises.
    """
    try:
        if isinstance(carrier, (bytes, bytearray, memoryview)):
            return _extract_binary(carrier)
        parent = _parent(_header(carrier, "traceparent"))
        state = _state(_header(carrier, "tracestate")) if parent is not None else None
    except Exception as error:  # noqa: BLE001  the carrier is the application's, and may do anything
        report("extract", f"extract: a {type(carrier).__name__} does not give headers: {error!r}")
        parent = state = None
    if parent is None:
        return core.remote(0, 0, False, None)
    trace_id, span_id, flags = parent
    return core.remote(trace_id, span_id, bool(flags & _SAMPLED), state, bool(flags & _RANDOM))


def _extract_binary(carrier: bytes | bytearray | memoryview) -> Span:
    with memoryview(carrier) as view, view.cast("B") as octets:
        packed = bytes(octets[:_BINARY_LENGTH])
    trace_id, span_id = int.from_bytes(packed[:16], "big"), int.from_bytes(packed[16:24], "big")
    if len(packed) < _BINARY_LENGTH or not trace_id or not span_id:
        return core.remote(0, 0, False, None)
    flags = packed[24]
    return core.remote(trace_id, span_id, bool(flags & _SAMPLED), None, bool(flags & _RANDOM))


def carry(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a callable that calls ``function`` where the current span, of now and here, is the current span.

    For threads and executors, which begin without one: ``executor.submit(ot.carry(work), …)``.  All of the caller's
    context variables come along, as with ``asyncio.to_thread``.  It may be called any number of times, by several
    threads at once, and it can be pickled, for processes: then the span alone comes along, as a remote parent.
    Tasks of asyncio need nothing of it.
    """
    return _Carried(function, copy_context())


class _Carried:
    """A function with the context in which it is to run."""

    def __init__(self, function: Callable[..., Any], context: Context) -> None:
        self.__wrapped__ = function
        self._context = context

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        # A context can be entered by one thread at a time; a copy takes no time, whatever is in it.
        return self._context.copy().run(self.__wrapped__, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        headers: dict[str, str] = {}
        return _Arrived, (self.__wrapped__, self._context.copy().run(inject, headers))


class _Arrived:
    """A function that came from another process, with the headers of the span that was current there."""

    def __init__(self, function: Callable[..., Any], headers: dict[str, str]) -> None:
        self.__wrapped__ = function
        self._headers = headers

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        with extract(self._headers):
            return self.__wrapped__(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Arrived, (self.__wrapped__, self._headers)


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


def _parent(text: str) -> tuple[int, int, int] | None:
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
    return int(trace_id, 16), int(span_id, 16), int(flags, 16)


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
