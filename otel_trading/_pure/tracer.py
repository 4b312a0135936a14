"""OpenTelemetry's tracers: their spans are spans of the recorder."""

from __future__ import annotations

import operator
from time import perf_counter_ns as clock

from otel_trading import _layout as at
from otel_trading._pure.api_span import INERT, OPEN, Made, link, unix_time
from otel_trading._pure.attributes import set_all, set_tracestate
from otel_trading._pure.blocks import add_text
from otel_trading._pure.frames import FOREIGN, NO_ID, NOT_RANDOM, RECORDED, span_of, top
from otel_trading._pure.hooks import hooks, kind_of, readable, told
from otel_trading._pure.ids import new_root, new_span
from otel_trading._pure.probes import Probe
from otel_trading._pure.recorder import MASK, recorder
from otel_trading._pure.spans import RESERVED, Span
from otel_trading._pure.writer import FLAGS, ODD, STATE, begin_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeAlias

    from otel_trading._native import SpanState
    from otel_trading._pure.frames import Top
    from otel_trading._pure.writer import Token

    Decide: TypeAlias = Callable[..., tuple[int, int, int, str | None, Mapping[str, Any] | None, bool]]

_DROP, _BELOW = 1, 2  # samplers
_DROPPED, _RECORDED, _SAMPLED = range(3)  # decisions
_WORD = (1 << 64) - 1
_TIER = "trading.tier"
_MOST_PROBES = 4096  # of one tracer; more than the 1,000 names that have probes of their own
_INTERNAL: Any = None


class _Origin:
    """Of which trace a new span is, and what was decided of it."""

    __slots__ = ("attributes", "decision", "over", "random", "span", "trace", "tracestate")

    trace: bytes
    span: bytes

    def __init__(self, above: Top | None, attributes: Any) -> None:
        self.over = NO_ID if above is None else above.span
        self.random = above is None or not above.flags & NOT_RANDOM
        self.tracestate = None if above is None else above.tracestate
        self.attributes = attributes
        self.decision = _SAMPLED

    def believe(self, decided: tuple[int, int, int, str | None, Mapping[str, Any] | None, bool]) -> None:
        """Take what was decided elsewhere.  Raises anything where that makes no sense."""
        trace_id, span_id, decision, tracestate, attributes, random = decided
        trace = (trace_id >> 64).to_bytes(8, "little") + (trace_id & _WORD).to_bytes(8, "little")
        if not trace_id or decision not in {_DROPPED, _RECORDED, _SAMPLED}:
            raise ValueError(f"decide gave {decided!r}")
        self.span = span_id.to_bytes(8, "little") if span_id else new_span()
        self.trace, self.decision, self.random = trace, decision, bool(random)
        self.tracestate = tracestate if isinstance(tracestate, str) and tracestate else None
        self.attributes = attributes


class Tracer:
    """OpenTelemetry's Tracer of one instrumentation scope: see ``_native.pyi``."""

    __slots__ = (
        "__weakref__",
        "_bound",
        "_decide",
        "_make_probe",
        "_parent_based",
        "_probes",
        "_sampler",
        "enabled",
        "on_end",
        "on_start",
        "scope",
    )

    def __init__(
        self,
        scope: str,
        make_probe: Callable[[str, int, Any], Probe],
        sampler: int = 0,
        bound: int = 0,
        parent_based: bool = True,  # noqa: FBT001, FBT002  the backend's interface
        decide: Decide | None = None,
    ) -> None:
        if not isinstance(scope, str) or not callable(make_probe):
            raise TypeError("a tracer needs its scope's text and a function that makes probes")
        if not 0 <= sampler <= _BELOW:
            raise ValueError("sampler is 0 to 2")
        self.scope = scope
        self.enabled = True
        self.on_start: Callable[[Span, Any], None] | None = None
        self.on_end: Callable[[Span, SpanState], None] | None = None
        self._make_probe = make_probe
        self._sampler = sampler
        self._bound = operator.index(bound)  # 2**64 and above take all
        self._parent_based = parent_based
        self._decide = decide
        self._probes: dict[tuple[str, int, Any], Probe] = {}

    def _probe(self, name: str, kind: int, attributes: Any) -> Probe | None:
        try:
            tier = attributes.get(_TIER) if attributes else None
        except Exception:  # noqa: BLE001  anyone's mapping, or none
            tier = None
        if type(tier) not in {str, int}:
            tier = None
        key = name, kind, tier
        probe = self._probes.get(key)
        if probe is not None:
            return probe
        try:
            probe = self._make_probe(name, kind, tier)
            if not isinstance(probe, Probe):
                raise TypeError(f"make_probe gave {probe!r}")
        except Exception as error:  # noqa: BLE001  anyone's
            told("make_probe", f"no probe for a span: {error!r}")
            return None
        if len(self._probes) >= _MOST_PROBES:
            self._probes.clear()
        self._probes[key] = probe
        return probe

    def start_span(
        self,
        name: str,
        context: Any = None,
        kind: Any = _INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Any] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002  the API's
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002
    ) -> Span:
        """Begin a span, which does not become current.

        Where nothing is recorded it only passes its parent's context on.
        """
        above: Top | None = top() if context is None else span_of(context)
        if above is not None and above.span == NO_ID:
            above = None
        if not self.enabled or recorder.claim() is None:
            return _passed_on(above)
        text, number = _text(name), kind_of(kind)
        origin = self._origin(above, text, context, number, attributes, links)
        probe = self._probe(text, number, origin.attributes)
        opened = None if probe is None else probe.opened()
        if probe is None or opened is None:
            return _passed_on(above)
        writer, threshold = opened
        if threshold and int.from_bytes(origin.trace[8:], "little") & MASK < threshold:
            return _passed_on(above)
        token = writer.take()
        if token is None:
            recorder.span_refused(probe.tier)
            return _passed_on(above)
        token.words[token.meta] = probe.span_word & ~STATE | RESERVED
        span = Span(probe)
        span.entry = token
        span.api = made = Made(self, bool(record_exception), bool(set_status_on_exception))
        made.mute = origin.decision == _DROPPED
        if not made.mute:
            _describe(token, text if probe.name != text else None, origin.attributes, links)
        if token.writer is None:  # closed by the code of a value
            return _passed_on(above)
        _begin(span, token, origin, above, start_time)
        if self.on_start is not None and not made.mute:
            try:
                self.on_start(span, context)
            except Exception as error:  # noqa: BLE001  anyone's
                told("on_start", f"a span processor raised at a span's start: {error!r}")
        return span

    def _origin(self, above: Top | None, name: str, context: Any, number: int, attributes: Any, links: Any) -> _Origin:
        origin = _Origin(above, attributes)
        if self._decide is not None:
            trace_id = 0 if above is None else _number(above.trace)
            given = (context, trace_id, name, hooks.kinds[number] if hooks.kinds else number, attributes, links or ())
            try:
                origin.believe(self._decide(*given))
            except Exception as error:  # noqa: BLE001  anyone's
                told("decide", f"a sampler or an id generator failed, so the span is sampled by its parent: {error!r}")
            else:
                return origin
        origin.trace = new_root()[:16] if above is None else above.trace
        origin.span = new_span()
        if above is not None and self._parent_based:
            drops = bool(above.flags & at.FLAG_UNSAMPLED)
        else:
            low = int.from_bytes(origin.trace[8:], "little")
            drops = self._sampler == _DROP or (self._sampler == _BELOW and low >= self._bound)
        if drops:
            origin.decision = _DROPPED
        return origin

    def start_as_current_span(
        self,
        name: str,
        context: Any = None,
        kind: Any = _INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Any] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002  the API's
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002
        end_on_exit: bool = True,  # noqa: FBT001, FBT002
    ) -> Scope:
        """Give a context manager and decorator; the span begins where it is entered."""
        arguments = (name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)
        return Scope(self, arguments, bool(end_on_exit))


readable(
    Tracer,
    "resource sampler id_generator span_processor instrumentation_scope instrumentation_info _instrumentation_scope "
    "_span_limits",
)


def _text(name: object) -> str:
    try:
        return name if isinstance(name, str) else str(name)
    except Exception:  # noqa: BLE001  its own code
        return ""


def _number(trace: bytes) -> int:
    return int.from_bytes(trace[:8], "little") << 64 | int.from_bytes(trace[8:], "little")


def _passed_on(above: Top | None) -> Span:
    """Make an inert span, with its parent's ids."""
    span = Span(None)
    span.api = _NOBODY
    span.phase = INERT
    span.plain = False
    if above is not None:
        span.trace, span.span, span.tracestate = above.trace, above.span, above.tracestate
        span.flags = above.flags & (at.FLAG_UNSAMPLED | NOT_RANDOM)
        if above.inherited() & at.FLAG_REMOTE_PARENT:
            span.flags |= FOREIGN
    return span


def _describe(token: Token, name: str | None, attributes: Any, links: Any) -> None:
    """Write what a span has from the start into its entry."""
    if name is not None:
        add_text(token, at.BLOCK_NAME, name)
    if attributes:
        set_all(token, attributes, api=True)
    try:
        for one in links or ():
            if one:
                link(token, one.context, one.attributes)
    except Exception:  # noqa: BLE001  anyone's sequence, or none
        recorder.fault()


def _begin(span: Span, token: Token, origin: _Origin, above: Top | None, start_time: int | None) -> None:
    """Open a reserved entry."""
    flags = 0 if above is None else above.inherited() & at.FLAG_REMOTE_PARENT
    if origin.decision != _SAMPLED:
        flags |= at.FLAG_UNSAMPLED
    if origin.tracestate:
        set_tracestate(token, origin.tracestate)
        span.tracestate = origin.tracestate
    start = clock()
    recorded = flags
    given = unix_time(start_time)
    if given is not None:
        start = given
        recorded |= at.FLAG_START_UNIX
    if not origin.random:
        flags |= NOT_RANDOM
    span.trace, span.span, span.over = origin.trace, origin.span, origin.over
    span.flags = flags & ~at.FLAG_REMOTE_PARENT
    span.plain = not span.flags and span.tracestate is None
    words = token.words
    meta = (words[token.meta] & ~STATE | at.SLOT_OPEN << 16 | (recorded & RECORDED) << FLAGS).to_bytes(8, "little")
    begin_child(token.map, token.place, ODD, span.trace, span.span, span.over, start, meta)
    words[token.word] = seq = token.seq
    token.seq = seq + 2
    span.phase = OPEN


_NOBODY: Any = Made(None, records_exception=False, sets_status=False)  # type: ignore[arg-type]  # of no tracer


class Scope:
    """What ``start_as_current_span`` gives: a context manager and a decorator."""

    __slots__ = ("_arguments", "_ends", "_span", "_tracer")

    def __init__(self, tracer: Tracer, arguments: tuple[Any, ...], ends: bool) -> None:  # noqa: FBT001
        self._tracer = tracer
        self._arguments = arguments
        self._ends = ends
        self._span: Span | None = None

    def again(self) -> Scope:
        """Give a new one with the same arguments."""
        return Scope(self._tracer, self._arguments, self._ends)

    def __call__(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        """Decorate a function: each call is in a span of its own."""
        if hooks.decorate is None:
            raise RuntimeError("a tracer's decorator needs OpenTelemetry's API: make a TracerProvider first")
        wrapped: Callable[..., Any] = hooks.decorate(self, function)
        return wrapped

    def __enter__(self) -> Span:
        if not isinstance(self, Scope):  # as ExitStack calls it
            raise TypeError("needs what start_as_current_span() gave")
        if self._span is not None:  # entered twice: the SDK's is for one use, too
            recorder.fault()
            return self._span
        span = self._tracer.start_span(*self._arguments)
        span.become_current()
        self._span = span
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object, /) -> None:
        span, self._span = self._span, None
        if span is None:
            recorder.fault()
            return
        span.give_place_back()
        if isinstance(error, Exception):
            span.left_by(error, escaped=False)
        if self._ends:
            span.end()
