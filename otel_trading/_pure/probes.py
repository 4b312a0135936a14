"""Probes: flat pairs, and the spans of blocks and functions."""

from __future__ import annotations

from time import perf_counter_ns as clock

from otel_trading import _layout as at
from otel_trading._pure.attributes import raised, set_tracestate
from otel_trading._pure.frames import NO_ID, top
from otel_trading._pure.ids import new_root, new_span, next_root, next_span, users
from otel_trading._pure.names import names
from otel_trading._pure.recorder import MASK, here, meta_word, recorder
from otel_trading._pure.spans import Span, innermost
from otel_trading._pure.whole import whole
from otel_trading._pure.writer import (
    FREE,
    GATE,
    HEAD,
    INERT,
    ODD,
    OPEN,
    RECORDED,
    SPAN,
    STATE,
    STOPPED,
    Token,
    begin_child,
    begin_root,
    fill,
    finish,
    getrefcount,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from otel_trading._native import AttributeValue
    from otel_trading._pure.writer import Writer

users.append(globals())
_MOST_KIND = 4
_MOST_PENDING = 8


class _Half(property):
    """``__enter__`` or ``__exit__`` of a probe.

    A ``with`` statement looks both up before it calls either.  Each look-up gives a method of one and the same new
    span, so each ``with`` remembers its own span wherever it is left.
    """

    def __call__(self, probe: object, *raised: Any) -> Span | None:
        """Do what ``type(probe).__enter__(probe)`` asks for, as ExitStack does; told apart only by what is open."""
        if not isinstance(probe, Probe):
            raise TypeError("needs a probe")
        if self.fget is _entering:
            return Span(probe).__enter__()
        span = innermost(probe)
        if span is None:
            recorder.fault()
        else:
            span.__exit__(*raised)
        return None


class _Pending:
    """Spans that wait for their other half, of a thread that shares its ring or has none."""

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending: Span | None = None


def _half_apart(probe: Probe, leaving: bool) -> Span:  # noqa: FBT001
    try:
        place = here.pending
    except AttributeError:
        place = here.pending = _Pending()
    return _pair(place, probe, leaving)


def _half(probe: Probe, leaving: bool) -> Span:  # noqa: FBT001
    """Give the span that waits for its other half in this thread, or a new one that will."""
    writer: Writer | None
    try:
        writer = here.writer
    except AttributeError:
        writer = recorder.claim()
    if writer is None or writer.shared or not writer.map:
        return _half_apart(probe, leaving)
    return _pair(writer, probe, leaving)


def _pair(place: Writer | _Pending, probe: Probe, leaving: bool) -> Span:  # noqa: FBT001
    span = place.pending
    if span is not None and span.probe is probe and span.wants_leaving is leaving:
        place.pending = span.prev  # type: ignore[assignment]  # a span that waits too
        span.prev = None
        return span
    span = Span(probe)
    span.wants_leaving = not leaving
    # Others wait below it where a signal's handler came in between, or where nobody asked for the second half.
    below: Any = place.pending
    span.prev = below
    depth = 1
    while below is not None:
        depth += 1
        if depth > _MOST_PENDING:
            below.prev = None
        below = below.prev
    place.pending = span
    return span


def _entering(probe: Probe) -> Callable[[], Span]:
    return _half(probe, leaving=False).__enter__


def _leaving(probe: Probe) -> Callable[..., None]:
    return _half(probe, leaving=True).leave


class Probe:
    """A named place in the program; makes spans.  Usable before ``open`` and after ``close``: then it does nothing."""

    __slots__ = (
        "id",
        "kind",
        "known",
        "leaf",
        "leaf_done",
        "leaf_open",
        "leaf_word",
        "name",
        "recorded",
        "scope",
        "shut",
        "sla_ns",
        "span_done",
        "span_open",
        "span_word",
        "tier",
    )

    def __init__(
        self,
        name: str,
        tier: int = 1,
        sla_ns: int = 0,
        leaf: bool = False,  # noqa: FBT001, FBT002
        kind: int = 0,
        scope: str = "",
    ) -> None:
        """Register it.  Raises ValueError for a tier or kind that there is not, TypeError where a text is none."""
        for text in (name, scope):
            if not isinstance(text, str):
                raise TypeError(f"a probe's name and scope are text, not {type(text).__name__}")
        if not 0 <= tier < at.TIERS or not 0 <= kind <= _MOST_KIND:
            raise ValueError("tier is 0 to 3, kind 0 to 4")
        self.name = name
        self.tier = tier
        self.sla_ns = sla_ns & (1 << 64) - 1
        self.leaf = bool(leaf)
        self.kind = kind
        self.scope = scope
        self._numbered(names.register_probe(self))

    def _numbered(self, number: int) -> None:
        self.id = number
        self.known = -1  # the generation at which the tier was seen on, and taking every trace
        self.shut: bytes | None = None  # what it shows when the tier is off
        self.recorded = RECORDED + self.tier
        self.span_word = meta_word(number, OPEN, 0, self.tier)
        self.span_open = self.span_word.to_bytes(8, "little")
        self.span_done = meta_word(number, SPAN, 0, self.tier).to_bytes(8, "little")
        self.leaf_word = meta_word(number, OPEN, at.FLAG_LEAF, self.tier)
        self.leaf_open = self.leaf_word.to_bytes(8, "little")
        self.leaf_done = meta_word(number, SPAN, at.FLAG_LEAF, self.tier).to_bytes(8, "little")

    def renumber(self) -> None:
        """Register it again, in the tables of another process's segment."""
        self._numbered(names.register_probe(self))

    @classmethod
    def catch_all(cls, name: str, number: int) -> Probe:
        """Make the probe that stands for all that came too late."""
        probe = cls.__new__(cls)
        probe.name, probe.tier, probe.sla_ns, probe.leaf, probe.kind = name, 1, 0, False, 0
        probe.scope = ""
        probe._numbered(number)
        return probe

    def __repr__(self) -> str:
        return f"<otel_trading.Probe {self.name!r} P{self.tier}>"

    def __call__(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        """Decorate a function."""
        from otel_trading._wrap import wrap  # which imports the backend

        wrapped: Callable[..., Any] = wrap(self, function)  # type: ignore[arg-type]
        return wrapped

    __enter__ = _Half(_entering)
    __exit__ = _Half(_leaving)

    def span(self, parent: Span | None = None, /, **attributes: AttributeValue) -> Span:
        """Make a span, not yet open."""
        span = Span(self)
        if parent is not None:
            span.child_of(parent)
        if attributes:
            span.with_attributes(attributes)
        return span

    def opened(self) -> tuple[Writer, int] | None:
        """Give the thread's ring and the tier's sampling threshold; None where nothing is recorded now."""
        try:
            writer: Writer | None = here.writer
        except AttributeError:
            writer = None
        if writer is None or not writer.map:
            writer = recorder.claim()
            if writer is None:
                return None
        generation = writer.gate[0]  # before what it stands for
        state = writer.map[GATE]
        if state == self.shut:
            return None
        threshold = recorder.is_on(self.tier, state)
        if threshold < 0:
            self.shut = state
            return None
        if threshold == 0 and generation is not None:
            self.known = generation
        return writer, threshold

    # ---- flat pairs ----

    def start(self, parent: Span | None = None, /) -> Token:
        """Begin a flat span."""
        try:
            writer = here.writer
            if writer.gate[0] != self.known or parent is not None:
                return self._start(parent)
            token = writer.pool.popleft()
            if getrefcount(token) != FREE:
                writer.replace(token)
                return self._start(parent)
            above = top()
            if above is None:
                begin_root(token.map, token.place, ODD, next_root(), clock(), self.leaf_open)
            elif above.plain:
                begin_child(token.map, token.place, ODD, above.trace, next_span(), above.span, clock(), self.leaf_open)
            else:
                writer.pool.append(token)
                return self._start(None)
        except (AttributeError, IndexError, StopIteration):  # no ring, token, or id; a token is given back by its end
            return self._start(parent)
        token.words[token.word] = seq = token.seq
        token.seq = seq + 2
        token.probe = self
        return token

    def _start(self, parent: Span | None) -> Token:
        """Begin a flat span, in any case there is."""
        opened = self.opened()
        if opened is None:
            return INERT
        writer, threshold = opened
        above = parent if isinstance(parent, Span) and parent.span != NO_ID else top()
        tracestate: str | None = None
        if above is None or above.span == NO_ID:
            trace, over, flags = new_root()[:16], NO_ID, at.FLAG_LEAF
        else:
            trace, over, flags = above.trace, above.span, at.FLAG_LEAF | above.inherited()
            tracestate = above.tracestate
        if threshold and int.from_bytes(trace[8:], "little") & MASK < threshold:
            return INERT
        token = writer.take()
        if token is None:
            recorder.span_refused(self.tier)
            return INERT
        if tracestate is not None:
            set_tracestate(token, tracestate)
        words = token.words
        word = words[token.meta] | self.leaf_word | flags << 32
        begin_child(token.map, token.place, ODD, trace, new_span(), over, clock(), word.to_bytes(8, "little"))
        words[token.word] = seq = token.seq
        token.seq = seq + 2
        if word == self.leaf_word:
            token.probe = self
        else:
            token.owner = self
        return token

    def stop(self, token: Token, error: BaseException | None = None, /) -> None:
        """End a flat span.  A second stop, or another probe's token, is a fault; what is no token is a TypeError."""
        end = clock()
        try:
            if token.probe is not self or error is not None:
                return self._stop(token, error, end)
        except AttributeError:
            raise TypeError("stop() takes what start() gave, and perhaps the exception that was raised") from None
        token.probe = None
        try:
            writer: Writer = token.writer  # type: ignore[assignment]  # an open one has a writer
            n = writer.head
            i = (n & writer.mask) * 16
            slots = writer.slots
            writer.at = end  # this very object
            slots[i] = n + n + 1
            fill(writer.body, i * 8, token.map[token.head], end, self.leaf_done)
            if writer.at is end:
                # From here to the head's store nothing is called: see writer.py.
                writer.head = n = n + 1
                slots[i] = n + n
                counts = writer.counts
                tier = self.tier
                counts[tier] = count = counts[tier] + 1
                ring = writer.ring
                ring[self.recorded] = count
                ring[HEAD] = n
                token.words[token.meta] = 0
                writer.pool.append(token)
                return None
        except AttributeError:
            if token.writer is None:  # closed by another thread since it was begun
                return None
            raise
        except BaseException:
            _finish(token, end)  # an interrupt came in between
            raise
        _finish(token, end)
        return None

    def _stop(self, token: Token, error: BaseException | None, end: int) -> None:
        """End a flat span, in any case there is."""
        if type(token) is not Token:
            raise TypeError("stop() takes what start() gave, and perhaps the exception that was raised")
        probe, token.probe = token.probe or token.owner, None
        token.owner = None if probe is not STOPPED else STOPPED
        if token.writer is None:  # interrupted, of a segment that is gone, or inert: no fault
            if probe is STOPPED:
                recorder.fault()
            return
        if probe is not self:
            recorder.fault()
            if probe is None:
                return  # stopped already
        if error is not None:
            raised(token, type(error))
        _finish(token, end)

    def record(
        self,
        parent: Span | None,
        start_unix_ns: int,
        end_unix_ns: int,
        error: bool,  # noqa: FBT001  the backend's interface
        attributes: Mapping[str, Any] | None,
        /,
    ) -> Span:
        """Record a whole span at once; nothing becomes current.  Gives the ended span, a parent for others.

        Times of 0 mean now.  ``error`` is status ERROR without an exception.  Raises TypeError where a time is no int,
        or the attributes are no mapping.
        """
        return whole(Span(self), parent, start_unix_ns, end_unix_ns, error, attributes)


def _finish(token: Token, end: int) -> None:
    """Write a token's span, unless that is done, and give the entry back."""
    writer = token.writer
    if writer is not None and token.words[token.meta] & STATE == OPEN:
        finish(token, end)
        if token.writer is not None:
            writer.pool.append(token)


def traced(probe: Probe, function: Callable[..., Any], /) -> Callable[..., Any]:
    """Wrap a plain function; methods bind, introspection sees the original."""
    from functools import update_wrapper  # decorating is not in a hurry

    if not isinstance(probe, Probe) or not callable(function):
        raise TypeError("traced() needs a probe and a callable")
    start, stop = probe.start, probe.stop

    def call(*args: Any, **kwargs: Any) -> Any:
        span = Span(probe).__enter__()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            span.__exit__(type(error))
            raise
        span.__exit__()
        return result

    def call_leaf(*args: Any, **kwargs: Any) -> Any:
        token = start()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            stop(token, error)
            raise
        stop(token)
        return result

    return update_wrapper(call_leaf if probe.leaf else call, function)
