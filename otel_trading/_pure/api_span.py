"""What every span has: what can be asked of it, and the methods of OpenTelemetry's API, by the SDK's rules."""

from __future__ import annotations

import struct
from time import time_ns

from otel_trading import _layout as at
from otel_trading._pure import wire
from otel_trading._pure.attributes import set_all, set_attribute
from otel_trading._pure.blocks import add_text, append, dropped, messages, moment, most_bytes
from otel_trading._pure.frames import FOREIGN, NO_ID, NOT_RANDOM
from otel_trading._pure.hooks import hooks, readable
from otel_trading._pure.kept import blocks_of, state_of
from otel_trading._pure.names import names
from otel_trading._pure.recorder import recorder
from otel_trading._pure.writer import EXTRA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from otel_trading._native import SpanState
    from otel_trading._pure.probes import Probe
    from otel_trading._pure.tracer import Tracer
    from otel_trading._pure.writer import Token

MADE, OPEN, ENDED, INERT, REMOTE = range(5)
_PHASES = ("made", "open", "ended", "inert", "remote")
_WORDS = struct.Struct("<QQ")
_STATUS = 24
_LONGEST_STATE = 512  # bytes, as W3C wants them carried at least
_LAST_TIME = (1 << 64) - 1
_SAMPLED, _RANDOM = 1, 2


class Made:
    """What a span has that a tracer made."""

    __slots__ = ("mute", "records_exception", "sets_status", "tracer")

    def __init__(self, tracer: Tracer, records_exception: bool, sets_status: bool) -> None:  # noqa: FBT001
        self.tracer = tracer
        self.records_exception = records_exception
        self.sets_status = sets_status
        self.mute = False  # dropped by the sampler: it has no attributes, events, links


class ApiSpan:
    """The part of a span that its life does not need."""

    __slots__ = ()

    probe: Probe | None
    phase: int
    trace: bytes
    span: bytes
    flags: int
    tracestate: str | None
    entry: Token | None
    api: Made | None
    known: Any  # its SpanContext, once it has been asked for
    cached: Any  # OpenTelemetry's context with it
    beneath: Any  # and the one without

    # ---- what can be asked ----

    @property
    def trace_id(self) -> int:
        """128 bits; 0 before the span is open."""
        high, low = _WORDS.unpack(self.trace)
        return int(high << 64 | low)

    @property
    def span_id(self) -> int:
        """64 bits; 0 before the span is open."""
        return int.from_bytes(self.span, "little")

    @property
    def sampled(self) -> bool:
        """Whether the trace's beginner asked for it to be recorded; True in a trace that began here."""
        return self.span != NO_ID and not self.flags & at.FLAG_UNSAMPLED

    @property
    def random(self) -> bool:
        """Whether the trace id's low 56 bits are known to be random."""
        return not self.flags & NOT_RANDOM

    @property
    def remote(self) -> bool:
        """Whether it is another process'."""
        return bool(self.flags & FOREIGN)

    @property
    def recording(self) -> bool:
        """Whether the span is open, and of a segment that is there."""
        return self.phase == OPEN and self.entry is not None and self.entry.writer is not None

    def is_recording(self) -> bool:
        """Tell whether attributes and events are recorded."""
        return self.recording and not self.mute

    def __repr__(self) -> str:
        name = "parent" if self.probe is None else self.probe.name
        return f"<otel_trading.Span {name} {_PHASES[self.phase]}>"

    def get_span_context(self) -> Any:
        """Give its SpanContext.  Raises RuntimeError where ``otel_trading.api`` has not been used."""
        if self.known is None:
            if hooks.span_context is None:
                raise RuntimeError("get_span_context() needs OpenTelemetry's API: make a TracerProvider first")
            flags = (_SAMPLED if self.sampled else 0) | (_RANDOM if self.random else 0)
            if self.span == NO_ID:
                return hooks.span_context(0, 0, False, 0, None)
            self.known = hooks.span_context(self.trace_id, self.span_id, self.remote, flags, self.tracestate)
        return self.known

    def state(self) -> SpanState | None:
        """Give what is recorded so far of an open span; None of any other."""
        token = self.entry
        return self.told(token, None) if self.phase == OPEN and token is not None else None

    def told(self, token: Token, end: int | None) -> SpanState | None:
        """Give the state of an open entry, as if it ended at ``end``; None where it is gone."""
        writer = token.writer
        if writer is None:
            return None
        slot = token.map[token.place : token.place + at.SIZE_SLOT]
        if end is not None:
            state = at.OFF_SLOT_STATE
            slot = b"".join(
                [
                    slot[: at.OFF_SLOT_END],
                    end.to_bytes(8, "little"),
                    slot[at.OFF_SLOT_PROBE : state],
                    bytes((at.SLOT_SPAN,)),
                    slot[state + 1 :],
                ]
            )
        blocks = blocks_of(writer, slot)[0] if slot[at.OFF_SLOT_EXTRA] else []
        return state_of(slot, recorder.epoch, blocks, recorder.limits[:3], names.text)

    def context_with_it(self) -> Any:
        """Give OpenTelemetry's context in which it is current."""
        if self.cached is None and hooks.context is not None:
            try:
                found = dict(self.beneath or ())
            except (TypeError, ValueError):  # what was attached was no context
                found = {}
            found[hooks.span_key] = self
            self.cached = hooks.context(found)
        return self.cached

    # ---- what can be written ----

    def reserve(self) -> Token | None:
        """Have an entry; None where nothing is recorded now."""
        raise NotImplementedError

    def writable(self) -> Token | None:
        """Give the entry of an open span; None where nothing is to be written, which after the end is a fault."""
        if self.phase == OPEN:
            token = self.entry
            return None if self.mute or token is None or token.writer is None else token
        if self.phase == MADE or (self.phase == ENDED and not self.mute):
            recorder.fault()
        return None

    @property
    def mute(self) -> bool:
        """Whether the sampler has dropped it."""
        return self.api is not None and self.api.mute

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute; the last value of a key wins.  TypeError where the key of a probe's span is not text."""
        if self.api is None:
            if not isinstance(key, str) and self.phase != REMOTE:
                raise TypeError("set_attribute() takes a str and a value")
            token = self.reserve() if self.phase == MADE else self.writable()
            if token is not None:
                set_attribute(token, key, value)
            return
        token = self.writable()
        if token is None:
            return
        if isinstance(key, str):
            set_attribute(token, key, value, api=True)
        else:
            dropped(token)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several, by the SDK's rules."""
        token = self.writable()
        if token is not None:
            set_all(token, attributes, api=True)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event; ``timestamp`` is Unix time in ns, by default now."""
        token = self.writable()
        if token is None:
            return
        before = moment(token)
        when = unix_time(timestamp)
        text = text_of(name)
        room = most_bytes(token)
        rules = wire.Rules(None, min(room // 4, at.TEXT_BYTES), 0, True)
        try:
            data = rules.text(text)
        except UnicodeEncodeError:  # lone surrogates
            recorder.fault()
            data = b""
        encoded, lost = messages(token, attributes, recorder.limits[3], room - len(data))
        message = wire.event(data, time_ns() if when is None else when, encoded, lost)
        if before != moment(token) or not append(token, at.BLOCK_EVENT, message):
            recorder.fault()

    def add_link(self, context: Any, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link to a span; one without ids only where it has attributes or a tracestate."""
        token = self.writable()
        if token is not None:
            link(token, context, attributes)

    def update_name(self, name: str) -> None:
        """Replace the name in the record; metrics stay its probe's."""
        token = self.writable()
        if token is not None:
            before = moment(token)
            text = text_of(name)
            if before == moment(token):
                add_text(token, at.BLOCK_NAME, text)

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Set the status; OK is final, and UNSET changes nothing."""
        token = self.writable()
        if token is None or status_of(token) == at.STATUS_OK:
            return
        before = moment(token)
        found = None if hooks.status is None else hooks.status(status, description)
        if found is None:
            recorder.fault()
        elif found[0] and before == moment(token):
            set_status(token, *found)

    def left_by(self, error: BaseException, *, escaped: bool) -> None:
        """Record an exception that leaves the block of a tracer's span, as far as that one is meant to."""
        made = self.api
        if made is None or not self.is_recording():
            return
        if made.records_exception:
            self.record_exception(error, escaped=escaped)
        if made.sets_status and self.phase == OPEN:
            self.set_status(error)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002  the API's
    ) -> None:
        """Add an event that describes an exception."""
        if self.writable() is None:
            return
        if hooks.exception is None:
            recorder.fault()
        else:
            self.add_event("exception", hooks.exception(exception, attributes, escaped), timestamp)


readable(
    ApiSpan,
    "name context kind parent start_time end_time status attributes events links resource dropped_attributes "
    "dropped_events dropped_links instrumentation_scope instrumentation_info to_json _readable_span _name _context "
    "_kind _parent _start_time _end_time _status _attributes _events _links _resource _instrumentation_scope "
    "_instrumentation_info",
)


def status_of(token: Token) -> int:
    """Give the status of an open entry."""
    return token.words[token.meta] >> _STATUS & 0xFF


def set_status(token: Token, code: int, description: str | None) -> None:
    """Set status and description of an open entry."""
    words, meta = token.words, token.meta
    if description:
        add_text(token, at.BLOCK_STATUS, description)
    elif words[meta] & EXTRA and token.depth:  # takes an older one's place
        append(token, at.BLOCK_STATUS, b"")
    words[meta] = words[meta] & ~(0xFF << _STATUS) | code << _STATUS


def text_of(name: object) -> str:
    """Give the text of what a program gave as a name."""
    if isinstance(name, str):
        return name
    try:
        return str(name)
    except Exception:  # noqa: BLE001  its own code
        recorder.fault()
        return ""


def unix_time(given: Any) -> int | None:
    """Give a time in Unix ns; None, a fault, for what is none."""
    if given is None:
        return None
    try:
        number = int(given)
    except Exception:  # noqa: BLE001  anything's own code
        number = -1
    if 0 <= number <= _LAST_TIME:
        return number
    recorder.fault()
    return None


def link(token: Token, context: Any, attributes: Mapping[str, Any] | None) -> None:
    """Add a link to a reserved or open entry, where it is a valid one."""
    if context is None:
        return
    before = moment(token)
    try:
        if not (context.is_valid or attributes or context.trace_state):
            return
        trace = context.trace_id.to_bytes(16, "big")
        span = context.span_id.to_bytes(8, "big")
        state = context.trace_state.to_header().encode() if context.trace_state else b""
        flags = wire.HAS_IS_REMOTE | (wire.IS_REMOTE if context.is_remote else 0)
        flags |= int(context.trace_flags) & (_SAMPLED | _RANDOM)
    except Exception:  # noqa: BLE001  anyone's object
        recorder.fault()
        return
    if len(state) > _LONGEST_STATE:
        state = b""
    encoded, count = messages(token, attributes, recorder.limits[4], most_bytes(token) - len(state))
    message = wire.link(trace, span, state, encoded, count, flags)
    if before != moment(token) or not append(token, at.BLOCK_LINK, message):
        recorder.fault()
