"""Spans of messages on a stream: what the instrumentors of websocket libraries share.

``websocket.receive`` begins when a message has been parsed off the socket and ends when the program gets it.  It is
the root of a trace of its own, and afterwards it stays current in the task that received, until that task receives
again or closes the connection: so what the task does with a message is a child of it, without a tracing call.  Where
the task has a current span of its own already, that one stays current, and the receive span links to it instead.
"""

from __future__ import annotations

from contextvars import Context
from time import perf_counter_ns as clock
from time import time
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry.trace import SpanContext, TraceFlags

from otel_trading import semconv
from otel_trading._backend import core
from otel_trading.faults import report
from otel_trading.instrument.message_age import NEWEST, OLDEST, guarded, stamps_of
from otel_trading.instrument.traceparent import parent_in, with_traceparent
from otel_trading.instrument.venues import venue_of
from otel_trading.probes import P1, P2, gauge, histogram, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from otel_trading._backend import Probe, Span

Arrival: TypeAlias = "tuple[Span, int, bool]"
"""The open receive span, the clock when the message's bytes were read, and whether the span has its size."""

RECEIVE = probe("websocket.receive", tier=P2, kind="consumer")
SEND = probe("websocket.send", tier=P1, kind="producer")

OFFERED: set[Probe | None] = {RECEIVE}
"""Probes whose spans, ended, stay current until the task receives again."""

_MOST_VENUES = 64

_SIZE, _LAG, _BACKLOG = semconv.MESSAGE_SIZE, semconv.WEBSOCKET_QUEUE_LAG, semconv.WEBSOCKET_BACKLOG
_AGE, _VENUE, _OPCODE = semconv.MESSAGE_AGE, semconv.VENUE, semconv.WEBSOCKET_OPCODE

_current = core.current
_instruments: dict[str | None, tuple[Callable[[float], None], Callable[[float], None], Callable[[float], None]]] = {}


class Options:
    """What an instrumentor of streams was told; wrong values are faults, and the default is taken."""

    def __init__(
        self,
        venues: Mapping[str, str] | None = None,
        message_age: bool | Callable[[str | bytes], float | None] = True,  # noqa: FBT001, FBT002
        propagate: bool | Collection[str] = False,  # noqa: FBT001, FBT002
        current_after_receive: bool = True,  # noqa: FBT001, FBT002
        **_others: object,
    ) -> None:
        """Take the keyword arguments of ``instrument()``; those that are meant for others are ignored."""
        self.venues = dict(venues) if venues else {}
        self.message_age = message_age
        self.propagate = propagate if isinstance(propagate, bool) else frozenset(map(str.lower, propagate))
        self.current_after_receive = bool(current_after_receive)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Options:
        """Take what ``instrument()`` was given; never raises."""
        try:
            return cls(**arguments)
        except (TypeError, ValueError, AttributeError) as error:
            report("instrument.options", f"instrument(): the options are not used: {error}")
            return cls()

    def propagates(self, host: str, port: int | None) -> bool:
        """Tell whether messages to and from there carry trace context."""
        if isinstance(self.propagate, bool):
            return self.propagate
        return host.lower() in self.propagate or f"{host}:{port}".lower() in self.propagate


class Installed:
    """What is in force of one instrumentor; ``options`` is None while it instruments nothing."""

    options: Options | None = None


class Stream:
    """One connection: what its spans need to know of it."""

    __slots__ = (
        "_stamp",
        "_waiting",
        "age_record",
        "arrived_ns",
        "backlog_set",
        "head",
        "lag_record",
        "offers",
        "options",
        "propagates",
        "venue",
    )

    def __init__(self, options: Options, host: str | None, port: int | None, *, server: bool = False) -> None:
        """Take where the connection leads; of a server's connection, the address at which it was called."""
        self.options = options
        self.venue = None if server or host is None else venue_of(host, port, options.venues)
        self.propagates = options.propagates(host or "", port)
        self.offers = options.current_after_receive
        self.lag_record, self.backlog_set, self.age_record = _instruments_of(self.venue)
        age = options.message_age
        self._stamp = guarded(age) if callable(age) else stamps_of(self.venue) if age else _no_stamp
        self._waiting = -1
        self.arrived_ns = 0  # when the bytes were read that are being parsed now
        self.head: object = None  # the frame that came when none waited

    def call_it(self, venue: str) -> None:
        """Take a venue's name that is known better elsewhere."""
        self.venue = venue
        self.lag_record, self.backlog_set, self.age_record = _instruments_of(venue)

    # ---- receiving ----

    def arrive(self, data: Any, text: bool, whole: bool) -> Arrival:  # noqa: FBT001  once a message
        """Begin a message's span; ``data`` is its first frame, or all of it where ``whole``."""
        parent = parent_in(data) if self.propagates else None
        span = RECEIVE.span() if parent is None else RECEIVE.span(parent)
        if self.venue is not None:
            span.set_attribute(_VENUE, self.venue)
        if whole:
            span.set_attribute(_SIZE, len(data))
        if not text:
            span.set_attribute(_OPCODE, "binary")
        if parent is not None or _current() is None:
            span.begin()
        else:  # the connection was opened in a span; its messages are not that span's children
            Context().run(span.begin)
        return span, self.arrived_ns or clock(), whole

    def hand_over(
        self,
        arrival: Arrival | None,
        message: str | bytes,
        waiting: int,
        whole: bool = True,  # noqa: FBT001, FBT002  once a message
        finish: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """End a message's span, as the program gets it, and let it be current.

        ``waiting`` messages are behind this one; not ``whole`` says that ``message`` is only its first part; not
        ``finish`` leaves the span open, and what is current alone.
        """
        try:
            if arrival is None:  # it came before the library was instrumented
                arrival = (self.arrive(message, isinstance(message, str), whole)[0], 0, whole)
            span, arrived_ns, sized = arrival
            put = span.set_attribute
            if arrived_ns:
                lag = (clock() - arrived_ns) * 1e-9
                put(_LAG, lag)
                self.lag_record(lag)
            if waiting:
                put(_BACKLOG, waiting)
            if waiting != self._waiting:
                self._waiting = waiting
                self.backlog_set(waiting)
            if not sized and whole:
                put(_SIZE, len(message))
            stamp = self._stamp(message)
            if stamp is not None and NEWEST <= (age := time() - stamp) <= OLDEST:
                put(_AGE, age)
                self.age_record(age)
            if not finish:
                return
            before = _current()
            if before is not None and before.probe not in OFFERED:
                link(span, before)
            elif self.offers:
                span.resume()
            span.finish()
        except Exception as error:  # noqa: BLE001  telemetry is no reason to lose a message
            report("websocket.receive", f"a received message has no span: {type(error).__name__}")

    # ---- sending ----

    def sending(self, message: object) -> Span:
        """Begin the span of a message that is sent."""
        span = SEND.span()
        if self.venue is not None:
            span.set_attribute(_VENUE, self.venue)
        if isinstance(message, str):
            span.set_attribute(_SIZE, len(message))
        elif isinstance(message, (bytes, bytearray, memoryview)):
            span.set_attribute(_SIZE, len(message))
            span.set_attribute(_OPCODE, "binary")
        span.begin()
        return span


def release() -> None:
    """Let a receive span that this context was offered be current no longer."""
    # A task with a copy of this context may have let it go before: then it stays, below what is offered next.
    span = _current()
    if span is not None and span.probe in OFFERED:
        span.suspend()


def _no_stamp(_: str | bytes) -> None:
    return None


def with_context(span: Span, message: Any) -> Any:
    """Give the message that ``span`` sends as it goes out, with the trace context of that span."""
    span.resume()
    try:
        return with_traceparent(message)
    except Exception as error:  # noqa: BLE001  telemetry is no reason not to send
        report("websocket.propagate", f"a message goes out without trace context: {type(error).__name__}")
        return message
    finally:
        span.suspend()


def link(span: Span, to: Span) -> None:
    """Link an open span to another one."""
    flags = TraceFlags(TraceFlags.SAMPLED if to.sampled else TraceFlags.DEFAULT)
    span.add_link(SpanContext(to.trace_id, to.span_id, is_remote=False, trace_flags=flags))


def _instruments_of(
    venue: str | None,
) -> tuple[Callable[[float], None], Callable[[float], None], Callable[[float], None]]:
    if venue not in _instruments and len(_instruments) >= _MOST_VENUES:
        venue = None
    found = _instruments.get(venue)
    if found is None:
        named = None if venue is None else {semconv.VENUE: venue}
        lag = histogram(
            semconv.WEBSOCKET_QUEUE_LAG,
            tier=P2,
            unit="s",
            description="From reading a message off the socket to handing it to the program.",
            attributes=named,
        )
        backlog = gauge(
            semconv.WEBSOCKET_BACKLOG,
            tier=P2,
            unit="{message}",
            description="Messages parsed and not yet taken by the program.",
            attributes=named,
        )
        age = histogram(
            semconv.MESSAGE_AGE,
            tier=P2,
            unit="s",
            description="From the exchange's stamp in a message to handing it to the program.",
            attributes=named,
        )
        found = _instruments[venue] = (lag.record, backlog.set, age.record)
    return found
