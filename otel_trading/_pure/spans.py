"""Spans that become current, and the context variable that says which one is."""

from __future__ import annotations

import struct
from contextvars import ContextVar
from time import perf_counter_ns as clock

from otel_trading import _layout as at
from otel_trading._pure.attributes import raised, set_attribute, set_first, set_tracestate
from otel_trading._pure.ids import next_root, next_span
from otel_trading._pure.recorder import MASK, here, recorder
from otel_trading._pure.writer import FREE, ODD, STATE, begin_child, begin_root, finish, getrefcount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from otel_trading._native import AttributeValue
    from otel_trading._pure.probes import Probe
    from otel_trading._pure.writer import Token

MADE, OPEN, ENDED, INERT, REMOTE = range(5)
_STATES = ("made", "open", "ended", "inert", "remote")
NO_ID = bytes(8)
_NO_TRACE = bytes(16)
_RESERVED = at.SLOT_RESERVED << 16
_TO_OPEN = _RESERVED ^ at.SLOT_OPEN << 16
_WORDS = struct.Struct("<QQ")

_variable: ContextVar[Span | None] = ContextVar("otel_trading.current", default=None)
current = _variable.get
_set_current = _variable.set


class Span:
    """A span, or the remote parent that ``remote`` makes.

    Life: made → open → ended.  A call that does not fit the state does nothing and counts as a fault.
    """

    __slots__ = (
        "blocks",
        "entry",
        "flags",
        "inner",
        "is_current",
        "left_early",
        "parent",
        "parented",
        "plain",
        "prev",
        "probe",
        "span",
        "state",
        "trace",
        "tracestate",
        "wants_leaving",
    )

    wants_leaving: bool  # which half of a `with` waits for it

    def __init__(self, probe: Probe | None) -> None:
        self.probe = probe
        self.state = MADE
        self.trace = _NO_TRACE
        self.span = NO_ID
        self.plain = True  # children inherit nothing but the ids
        self.flags = 0  # what children inherit, or its own
        self.tracestate: str | None = None
        self.entry: Token | None = None
        self.prev: Span | None = None  # what was current before; dropped when the span is left in order
        self.is_current = False  # between becoming current and giving the place back
        self.left_early = False  # left while another span was current: whoever restores skips it
        self.parented = False  # origin settled when it was made, by an explicit parent
        self.inner: Span | None = None  # what was current at suspend(), until the next resume()
        self.blocks = 0  # of its attributes, in the arena

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
    def recording(self) -> bool:
        """Whether the span is open, and of a segment that is there."""
        return self.state == OPEN and self.entry is not None and self.entry.writer is not None

    def __repr__(self) -> str:
        name = "parent" if self.probe is None else self.probe.name
        return f"<otel_trading.Span {name} {_STATES[self.state]}>"

    # ---- beginning ----

    def child_of(self, parent: object) -> None:
        """Settle the origin by an explicit parent; anything but a span with an id means "none"."""
        if isinstance(parent, Span) and parent.span != NO_ID:
            self.parented = True
            self._inherit(parent)

    def _inherit(self, parent: Span) -> None:
        self.trace, self.parent = parent.trace, parent.span
        if not parent.plain:
            self.tracestate = parent.tracestate
            self.flags = parent.inherited()
            self.plain = not self.flags & at.FLAG_UNSAMPLED and self.tracestate is None

    def inherited(self) -> int:
        """Flags of a direct child."""
        return self.flags & at.FLAG_UNSAMPLED | (at.FLAG_REMOTE_PARENT if self.state == REMOTE else 0)

    def _reserve(self) -> Token | None:
        """Have an entry; None where nothing is recorded now."""
        token = self.entry
        if token is not None and token.writer is not None:
            return token
        probe = self.probe
        opened = None if probe is None else probe.opened()
        if probe is None or opened is None:
            return None
        token = opened[0].take()
        if token is None:
            recorder.span_refused(probe.tier)
            return None
        token.words[token.meta] = probe.span_word & ~STATE | _RESERVED
        self.entry = token
        return token

    def begin(self) -> None:
        """Open without becoming current."""
        if self.state != MADE:
            if self.state != INERT:
                recorder.fault()
            return
        probe, token = self.probe, self._reserve()
        if probe is None or token is None:
            self._make_inert()
            return
        if not self.parented:
            above = current()
            if above is not None:
                self._inherit(above)
            else:
                self.trace, self.parent = next_root()[:16], NO_ID
        opened = probe.opened()
        if opened is None or (opened[1] and int.from_bytes(self.trace[8:], "little") & MASK < opened[1]):
            self._give(token)
            self._make_inert()
            return
        self.span = next_span()
        if self.tracestate is not None:
            set_tracestate(token, self.tracestate)
        words = token.words
        word = words[token.meta] & ~STATE | probe.span_word | self.flags << 32
        start = clock()
        begin_child(token.map, token.place, ODD, self.trace, self.span, self.parent, start, word.to_bytes(8, "little"))
        words[token.word] = seq = token.seq
        token.seq = seq + 2
        self.state = OPEN

    def _make_inert(self) -> None:
        self.state = INERT
        self.trace, self.span = _NO_TRACE, NO_ID
        self.entry = None

    def _give(self, token: Token) -> None:
        writer = token.writer
        if writer is not None:
            token.words[token.meta] = 0
            self.entry = None
            writer.pool.append(token)

    def __enter__(self) -> Span:  # noqa: PYI034  Self is younger than Python 3.10
        try:
            writer = here.writer
            probe = self.probe
            if self.state or probe is None or writer.gate[0] != probe.known or self.parented:
                return self._enter()
            above = current()
            if above is not None and not above.plain:
                return self._enter()
            token = self.entry
            if token is not None:  # it has attributes
                word = (token.words[token.meta] ^ _TO_OPEN).to_bytes(8, "little")
            else:
                token = writer.pool.popleft()
                if getrefcount(token) != FREE:
                    writer.replace(token)
                    return self._enter()
                word = probe.span_open
        except (AttributeError, IndexError):
            return self._enter()
        if above is None:
            root = next_root()
            self.trace, self.span = root[:16], root[16:]
            begin_root(token.map, token.place, ODD, root, clock(), word)
        else:
            self.trace = above.trace
            self.span = span = next_span()
            begin_child(token.map, token.place, ODD, above.trace, span, above.span, clock(), word)
        token.words[token.word] = seq = token.seq
        token.seq = seq + 2
        self.entry = token
        self.state = OPEN
        self.prev = above
        self.is_current = True
        try:
            _set_current(self)
        except BaseException:  # an interrupt came in between, and nobody will leave
            self._interrupted()
            raise
        return self

    def _enter(self) -> Span:
        """Begin and become current, in any case there is."""
        if self.state != REMOTE:
            self.begin()
            if self.state == OPEN:
                self._become_current()
        elif not self.is_current:
            self._become_current()
        else:  # one parent entered by several tasks: each has a copy of its own as current
            copy = Span(None)
            copy.trace, copy.span, copy.flags, copy.state = self.trace, self.span, self.flags, REMOTE
            copy.plain, copy.tracestate = False, self.tracestate
            copy._become_current()
        return self

    # ---- ending ----

    def _end(self, kind: type[BaseException] | None) -> None:
        if self.state != OPEN:
            if self.state == ENDED:
                recorder.fault()
            elif self.state == MADE:
                self._make_inert()
            return
        token, probe = self.entry, self.probe
        self.state = ENDED
        self.inner = None
        if token is None or probe is None or token.writer is None:  # begun before a fork, or in a segment that is gone
            return
        end = clock()
        if kind is not None and isinstance(kind, type):
            raised(token, kind)
        writer = token.writer
        if writer is not None:
            finish(token, end, probe.span_done if token.words[token.meta] == probe.span_word else None)
            self._give(token)

    def end(self, error: BaseException | None = None, /) -> None:
        """End; leaves what is current alone."""
        self._end(None if error is None else type(error))

    def __exit__(self, kind: type[BaseException] | None = None, /, *_: object) -> None:
        if self.state == REMOTE:
            self._leave_parent()
            return
        try:
            if kind is not None or self.state != OPEN:
                self._end(kind)
            else:
                end = clock()
                token, probe = self.entry, self.probe
                self.state = ENDED
                if token is not None and probe is not None:
                    writer = token.writer
                    finish(token, end, probe.span_done if token.words[token.meta] == probe.span_word else None)
                    if writer is not None and token.writer is not None:
                        self.entry = None
                        writer.pool.append(token)
            if current() is self and self.is_current:
                self.is_current = False
                before = self.prev
                while before is not None and before.left_early:
                    before = before.prev
                _set_current(before)
                self.prev = None
            else:
                self._give_place_back()
        except BaseException:  # an interrupt came in between
            self._interrupted()
            raise

    def _interrupted(self) -> None:
        """Do what is left to be done when a signal's exception comes out of the middle of something."""
        self.state = ENDED
        token, self.entry = self.entry, None
        del token  # still open it is written as abandoned, and given back
        if current() is self:
            self.is_current = False
            self._restore()

    def _leave_parent(self) -> None:
        span = current()
        while span is not None:
            if span.state == REMOTE and span.is_current and (span.span, span.trace) == (self.span, self.trace):
                span._give_place_back()
                return
            span = span.prev
        self._give_place_back()

    def leave(self, *raised: Any) -> None:
        """Do what ``__exit__`` of a probe, looked up together with this one's ``__enter__``, has to do."""
        if self.state != MADE:
            self.__exit__(*raised)
            return
        # The entering half of the pair was another object's: find what that opened.
        found = None if self.probe is None else innermost(self.probe)
        if found is None:
            recorder.fault()
        else:
            found.__exit__(*raised)

    # ---- being current ----

    def _become_current(self) -> None:
        self.prev = current()
        self.is_current = True
        self.left_early = False
        _set_current(self)

    def _give_place_back(self) -> None:
        if not self.is_current:
            return
        self.is_current = False
        if current() is not self:
            self.left_early = True
            return
        self._restore()

    def _restore(self) -> None:
        before = self.prev
        while before is not None and before.left_early:
            before = before.prev
        _set_current(before)
        self.prev = None

    def resume(self) -> None:
        """Become current until ``suspend``, with what the generator's body had made current above it."""
        if self.state != OPEN or self.is_current:
            return
        self._become_current()
        if self.inner is not None:
            _set_current(self.inner)
            self.inner = None

    def suspend(self) -> None:
        """Give the place back to what was current before ``resume``."""
        if not self.is_current:
            return
        inner = current()
        if inner is not self and self.state == OPEN:
            self.inner = inner
        self.is_current = False
        self._restore()

    # ---- attributes ----

    def with_attributes(self, attributes: dict[str, AttributeValue]) -> None:
        """Set those that the span, just made, begins with."""
        token = self._reserve()
        if token is not None:
            self.blocks = set_first(token, attributes)

    def set_attribute(self, key: str, value: AttributeValue, /) -> None:
        """Set an attribute; the last value of a key wins.  TypeError where the key is not text."""
        if not isinstance(key, str):
            raise TypeError("set_attribute() takes a str and a value")
        if self.state == INERT:
            return
        if self.state > OPEN:
            recorder.fault()
            return
        token = self._reserve() if self.state == MADE else self.entry
        if token is not None and token.writer is not None:
            self.blocks = set_attribute(token, key, value, self.blocks)


def innermost(probe: Probe) -> Span | None:
    """Give the innermost open span of a probe in this context."""
    span = current()
    while span is not None and not (span.probe is probe and span.state == OPEN and span.is_current):
        span = span.prev
    return span
