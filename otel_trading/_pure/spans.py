"""Spans: how they begin, become current, give that place back, and end."""

from __future__ import annotations

from time import perf_counter_ns as clock

from otel_trading import _layout as at
from otel_trading._pure.api_span import ENDED, INERT, MADE, OPEN, REMOTE, ApiSpan, unix_time
from otel_trading._pure.attributes import raised, set_first, set_tracestate
from otel_trading._pure.frames import FOREIGN, NO_ID, NO_TRACE, NOT_RANDOM, RECORDED, set_top, top
from otel_trading._pure.hooks import told
from otel_trading._pure.ids import new_root, new_span, next_root, next_span, users
from otel_trading._pure.recorder import MASK, here, recorder
from otel_trading._pure.writer import FREE, ODD, STATE, begin_child, begin_root, finish, flag, getrefcount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from otel_trading._native import AttributeValue
    from otel_trading._pure.api_span import Made
    from otel_trading._pure.frames import Top
    from otel_trading._pure.probes import Probe
    from otel_trading._pure.writer import Token

users.append(globals())
RESERVED = at.SLOT_RESERVED << 16
_TO_OPEN = RESERVED ^ at.SLOT_OPEN << 16


class Span(ApiSpan):
    """A span, or the remote parent that ``remote`` makes.

    Life: made → open → ended.  A call that does not fit the state does nothing and counts as a fault.
    """

    __slots__ = (
        "api",
        "beneath",
        "cached",
        "entry",
        "flags",
        "inner",
        "is_current",
        "known",
        "left_early",
        "over",
        "parented",
        "phase",
        "plain",
        "prev",
        "probe",
        "span",
        "trace",
        "tracestate",
        "wants_leaving",
    )

    over: bytes  # the parent's id
    wants_leaving: bool  # which half of a `with` waits for it

    def __init__(self, probe: Probe | None) -> None:
        self.probe = probe
        self.phase = MADE
        self.trace = NO_TRACE
        self.span = NO_ID
        self.plain = True  # children inherit nothing but the ids
        self.flags = 0  # what children inherit, or its own
        self.tracestate: str | None = None
        self.entry: Token | None = None
        self.prev: Top | None = None  # what was current before; dropped when the span is left in order
        self.is_current = False  # between becoming current and giving the place back
        self.left_early = False  # left while another span was current: whoever restores skips it
        self.parented = False  # origin settled when it was made, by an explicit parent
        self.inner: Top | None = None  # what was current at suspend(), until the next resume()
        self.api: Made | None = None  # of a tracer's spans
        self.beneath: Any = None
        self.cached: Any = None
        self.known: Any = None

    # ---- beginning ----

    def child_of(self, parent: object) -> None:
        """Settle the origin by an explicit parent; anything but a span with an id means "none"."""
        if isinstance(parent, Span) and parent.span != NO_ID:
            self.parented = True
            self._inherit(parent)

    def _inherit(self, parent: Top) -> None:
        self.trace, self.over = parent.trace, parent.span
        if not parent.plain:
            self.tracestate = parent.tracestate
            self.flags = parent.inherited() | parent.flags & NOT_RANDOM
            self.plain = not self.flags & (at.FLAG_UNSAMPLED | NOT_RANDOM) and self.tracestate is None

    def inherited(self) -> int:
        """Flags of a direct child."""
        return self.flags & at.FLAG_UNSAMPLED | (at.FLAG_REMOTE_PARENT if self.flags & FOREIGN else 0)

    def reserve(self) -> Token | None:
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
        token.words[token.meta] = probe.span_word & ~STATE | RESERVED
        self.entry = token
        return token

    def begin(self) -> None:
        """Open without becoming current."""
        if self.phase != MADE:
            if self.phase != INERT:
                recorder.fault()
            return
        probe, token = self.probe, self.reserve()
        if probe is None or token is None:
            self._make_inert()
            return
        if not self.parented:
            above = top()
            if above is not None and above.span != NO_ID:
                self._inherit(above)
            else:
                self.trace, self.over = new_root()[:16], NO_ID
        opened = probe.opened()
        if opened is None or (opened[1] and int.from_bytes(self.trace[8:], "little") & MASK < opened[1]):
            self._give(token)
            self._make_inert()
            return
        self.span = new_span()
        if self.tracestate is not None:
            set_tracestate(token, self.tracestate)
        words = token.words
        word = words[token.meta] & ~STATE | probe.span_word | (self.flags & RECORDED) << 32
        start = clock()
        begin_child(token.map, token.place, ODD, self.trace, self.span, self.over, start, word.to_bytes(8, "little"))
        words[token.word] = seq = token.seq
        token.seq = seq + 2
        self.phase = OPEN

    def _make_inert(self) -> None:
        self.phase = INERT
        self.trace, self.span = NO_TRACE, NO_ID
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
            if self.phase or probe is None or writer.gate[0] != probe.known or self.parented:
                return self._enter()
            above = top()
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
            if above is None:
                root = next_root()
                self.trace, self.span = root[:16], root[16:]
                begin_root(token.map, token.place, ODD, root, clock(), word)
            else:
                self.trace = above.trace
                self.beneath = above.beneath
                self.span = span = next_span()
                begin_child(token.map, token.place, ODD, above.trace, span, above.span, clock(), word)
        except (AttributeError, IndexError, StopIteration):  # no ring, token, or id; a token is given back by its end
            return self._enter()
        token.words[token.word] = seq = token.seq
        token.seq = seq + 2
        self.entry = token
        self.phase = OPEN
        self.prev = above
        self.is_current = True
        try:
            set_top(self)
        except BaseException:  # an interrupt came in between, and nobody will leave
            self._interrupted()
            raise
        return self

    def _enter(self) -> Span:
        """Begin and become current, in any case there is; a tracer's span does neither."""
        if self.api is not None:
            return self
        if self.phase != REMOTE:
            self.begin()
            if self.phase == OPEN:
                self.become_current()
        elif not self.is_current:
            self.become_current()
        else:  # one parent entered by several tasks: each has a copy of its own as current
            copy = Span(None)
            copy.trace, copy.span, copy.flags, copy.phase = self.trace, self.span, self.flags, REMOTE
            copy.plain, copy.tracestate = False, self.tracestate
            copy.become_current()
        return self

    # ---- ending ----

    def _end(self, kind: type[BaseException] | None, unix_ns: int | None = None) -> None:
        if self.phase != OPEN:
            if self.phase == ENDED and not self.mute:
                recorder.fault()
            elif self.phase == MADE:
                self._make_inert()
            return
        token, probe = self.entry, self.probe
        self.phase = ENDED
        self.inner = None
        if token is None or probe is None or token.writer is None:  # begun before a fork, or in a segment that is gone
            return
        end = clock()
        if kind is not None and isinstance(kind, type):
            raised(token, kind)
        if unix_ns is not None:
            flag(token, at.FLAG_END_UNIX)
            end = unix_ns
        made = self.api
        tell = None if made is None or made.mute else made.tracer.on_end
        state = None if tell is None else self.told(token, end)
        if token.writer is not None:
            finish(token, end, probe.span_done if token.words[token.meta] == probe.span_word else None)
            self._give(token)
        if state is not None and tell is not None:
            try:
                tell(self, state)
            except Exception as error:  # noqa: BLE001  anyone's
                told("on_end", f"a span processor raised at a span's end: {error!r}")

    def finish(self, error: BaseException | None = None, /) -> None:
        """End; leaves what is current alone."""
        self._end(None if error is None else type(error))

    def end(self, end_time: int | None = None) -> None:
        """End, as OpenTelemetry's API has it; ``end_time`` is Unix time in ns, by default now."""
        if self.phase in {INERT, REMOTE}:
            return
        self._end(None, unix_time(end_time))

    def _leave_api(self, error: BaseException | None) -> None:
        """End a tracer's span, which was a block of its own."""
        if error is not None:
            self.left_by(error, escaped=True)
        self.end()

    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, /, *_: object
    ) -> None:
        if self.phase == REMOTE:
            self._leave_parent()
            return
        if self.api is not None:
            self._leave_api(error)
            return
        try:
            if kind is not None or self.phase != OPEN:
                self._end(kind)
            else:
                end = clock()
                token, probe = self.entry, self.probe
                self.phase = ENDED
                if token is not None and probe is not None:
                    writer = token.writer
                    finish(token, end, probe.span_done if token.words[token.meta] == probe.span_word else None)
                    if writer is not None and token.writer is not None:
                        self.entry = None
                        writer.pool.append(token)
            if top() is self and self.is_current:
                self.is_current = False
                set_top(self._before())
                self.prev = self.cached = None
            else:
                self.give_place_back()
        except BaseException:  # an interrupt came in between
            self._interrupted()
            raise

    def _interrupted(self) -> None:
        """Do what is left to be done when a signal's exception comes out of the middle of something."""
        self.phase = ENDED
        token, self.entry = self.entry, None
        del token  # still open it is written as abandoned, and given back
        if top() is self:
            self.is_current = False
            self._restore()

    def _leave_parent(self) -> None:
        span = top()
        while span is not None:
            if span.phase == REMOTE and span.is_current and (span.span, span.trace) == (self.span, self.trace):
                span.give_place_back()  # type: ignore[union-attr]  # a frame has no such phase
                return
            span = span.prev
        self.give_place_back()

    def leave(self, *raised: Any) -> None:
        """Do what ``__exit__`` of a probe, looked up together with this one's ``__enter__``, has to do."""
        if self.phase != MADE:
            self.__exit__(*raised)
            return
        # The entering half of the pair was another object's: find what that opened.
        found = None if self.probe is None else innermost(self.probe)
        if found is None:
            recorder.fault()
        else:
            found.__exit__(*raised)

    # ---- being current ----

    def become_current(self) -> None:
        """Become what is current, until ``give_place_back``."""
        self.prev = above = top()
        self.beneath = None if above is None else above.beneath
        self.cached = None
        self.is_current = True
        self.left_early = False
        set_top(self)

    def give_place_back(self) -> None:
        """Have what was current before current again."""
        if not self.is_current:
            return
        self.is_current = False
        self.cached = None
        if top() is self:
            self._restore()
            return
        self.left_early = True  # and what was before stays: a late detach() that would come back here goes there
        above = top()
        while above is not None and above is not self and not above.is_current:
            above = above.prev
        if above is self:  # only contexts that were attached and never detached
            set_top(self._before())

    def _before(self) -> Top | None:
        """Give what was current before, or before that where it has been left already."""
        before = self.prev
        while before is not None and before.left_early:
            before = before.prev
        return before

    def _restore(self) -> None:
        set_top(self._before())
        self.prev = None

    def resume(self) -> None:
        """Become current until ``suspend``, with what the generator's body had made current above it."""
        if self.phase != OPEN or self.is_current:
            return
        self.become_current()
        if self.inner is not None:
            set_top(self.inner)
            self.inner = None

    def suspend(self) -> None:
        """Give the place back to what was current before ``resume``."""
        if not self.is_current:
            return
        inner = top()
        if inner is not self and self.phase == OPEN:
            self.inner = inner
        self.is_current = False
        self._restore()

    # ---- attributes ----

    def with_attributes(self, attributes: dict[str, AttributeValue]) -> None:
        """Set those that the span, just made, begins with."""
        token = self.reserve()
        if token is not None:
            set_first(token, attributes)


def innermost(probe: Probe) -> Span | None:
    """Give the innermost open span of a probe in this context."""
    span = top()
    while span is not None and not (span.probe is probe and span.phase == OPEN and span.is_current):
        span = span.prev
    return span
