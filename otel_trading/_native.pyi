"""The recorder's interface: what a backend offers to the rest of the package.

``otel_trading._native`` (C) and ``otel_trading._pure`` (Python) both have exactly this shape, and the
same tests run on both.  Nothing here is public; the public names are in ``otel_trading``.

Nothing in the recording part raises into the caller for a reason of ours: misuse is counted in the
segment header's ``faults``.  Only wrong argument types raise ``TypeError``, as for any function.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, SupportsFloat, TypeAlias, TypeVar, final

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

BACKEND: Final[Literal["native", "pure"]]

_F = TypeVar("_F", bound=Callable[..., Any])

# bytes: an encoded OTLP AnyValue message, of what is no plain value (otel_trading.segment.messages decodes it)
AttributeValue: TypeAlias = bool | int | float | str | bytes

# Attribute values as programs give them: plain ones, None, bytes, and sequences and mappings of those.
Value: TypeAlias = Any

# (scale, count, sum, min, max, zero_count, positive_offset, positive_counts, negative_offset, negative_counts)
# The counts are native-endian uint64 arrays as bytes; bucket i of an array covers
# (base ** (offset + i), base ** (offset + i + 1)] with base = 2 ** 2 ** -scale: OpenTelemetry's layout.
HistogramState: TypeAlias = tuple[int, int, float, float, float, int, int, bytes, int, bytes]

# (value, trace_id, span_id, unix_ns)
ExemplarState: TypeAlias = tuple[float, int, int, int]

# (probe id, tier, trace id, span id, parent id or 0, start Unix ns, end Unix ns (0 = still open),
#  status, flags, name of the exception's type or None, tracestate or None, attributes in order,
#  number of attributes dropped, name in place of the probe's or None, description of the status or None,
#  events and links, each an encoded OTLP message, oldest first, number of events dropped, and of links)
# The segment's limits are applied: the newest count.
SpanState: TypeAlias = tuple[
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    str | None,
    str | None,
    dict[str, AttributeValue],
    int,
    str | None,
    str | None,
    list[bytes],
    list[bytes],
    int,
    int,
]

# (trace id, span id, sampled, state, sent Unix ns, changed Unix ns, quantity, price (NaN = at market), filled,
#  paid, symbol, side); state and side as in segment.h
OrderState: TypeAlias = tuple[int, int, bool, int, int, int, float, float, float, float, str, int]

@final
class Token:
    """What ``Probe.start`` gives and ``Probe.stop`` takes; an open flat span."""

@final
class Span:
    """A span, or the remote parent that ``remote`` makes.

    Life: made (by ``Probe.span``) → open (``__enter__`` or ``begin``) → ended (``__exit__`` or ``end``).
    A call that does not fit the state does nothing and counts as a fault.

    A span is also a span of OpenTelemetry's API (``otel_trading.api`` registers the type there).  One that a tracer
    made is open from the start, ``with`` ends it but does not make it current, and an exception that leaves
    that block is recorded: as the SDK's spans do.
    """

    @property
    def trace_id(self) -> int: ...
    @property
    def span_id(self) -> int: ...
    @property
    def sampled(self) -> bool: ...
    @property
    def tracestate(self) -> str | None: ...
    @property
    def recording(self) -> bool: ...
    @property
    def random(self) -> bool:
        """Whether the trace id's low 56 bits are known to be random (W3C level 2)."""
    @property
    def remote(self) -> bool: ...
    @property
    def probe(self) -> Probe | None: ...
    def state(self) -> SpanState | None:
        """What is recorded so far of an open span; None of any other."""
    def __enter__(self) -> Span: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def begin(self) -> None:
        """Open without becoming current."""
    def finish(self, error: BaseException | None = None, /) -> None:
        """End; leaves what is current alone."""
    def resume(self) -> None:
        """Become current until ``suspend`` (generators: once a step)."""
    def suspend(self) -> None:
        """Give the place back to what was current before ``resume``."""

    # ---- OpenTelemetry's API; arguments, rules and results as the SDK's
    def get_span_context(self) -> SpanContext: ...
    def is_recording(self) -> bool: ...
    def set_attribute(self, key: str, value: Value) -> None: ...
    def set_attributes(self, attributes: Mapping[str, Value]) -> None: ...
    def add_event(
        self, name: str, attributes: Mapping[str, Value] | None = None, timestamp: int | None = None
    ) -> None: ...
    def add_link(self, context: SpanContext, attributes: Mapping[str, Value] | None = None) -> None: ...
    def update_name(self, name: str) -> None: ...
    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None: ...
    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Value] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None: ...
    def end(self, end_time: int | None = None) -> None: ...

@final
class Probe:
    """A named place in the program; makes spans.  Usable before ``open`` and after ``close``: then it does nothing."""

    name: str
    tier: int
    sla_ns: int
    leaf: bool
    kind: int
    id: int
    scope: str
    """JSON object of the instrumentation scope whose tracer made the probe; "" for our own."""
    def __new__(
        cls, name: str, tier: int = 1, sla_ns: int = 0, leaf: bool = False, kind: int = 0, scope: str = ""
    ) -> Probe: ...
    def __call__(self, function: _F, /) -> _F:
        """``otel_trading._wrap.wrap(self, function)``."""
    def __enter__(self) -> Span: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def span(self, parent: Span | None = None, /, **attributes: AttributeValue) -> Span: ...
    def start(self, parent: Span | None = None, /) -> Token: ...
    def stop(self, token: Token, error: BaseException | None = None, /) -> None: ...
    def record(
        self,
        parent: Span | None,
        start_unix_ns: int,
        end_unix_ns: int,
        error: bool,
        attributes: Mapping[str, Value] | None,
        /,
    ) -> Span:
        """A whole span at once; nothing becomes current.  Gives the ended span, a parent for others.

        ``parent`` as in ``span``.  Times of 0 mean now.  ``error`` true is status ERROR without an exception.
        """

def traced(probe: Probe, function: _F, /) -> _F:
    """Wrap a plain (not async, not generator) function; methods bind, introspection sees the original."""

@final
class Counter:
    id: int
    def __new__(
        cls, name: str, tier: int = 1, unit: str = "", description: str = "", attributes: str = "", off_cpu: int = 0
    ) -> Counter: ...
    def add(self, amount: float, /) -> None: ...

@final
class Gauge:
    id: int
    def __new__(
        cls, name: str, tier: int = 1, unit: str = "", description: str = "", attributes: str = "", off_cpu: int = 0
    ) -> Gauge: ...
    def set(self, value: float, /) -> None: ...

@final
class Histogram:
    id: int
    def __new__(
        cls, name: str, tier: int = 1, unit: str = "", description: str = "", attributes: str = "", off_cpu: int = 0
    ) -> Histogram: ...
    def record(self, value: float, /) -> None: ...

# ---- OpenTelemetry's API ---------------------------------------------------------------------------

def api_install(hooks: dict[str, Any], /) -> None:
    """Give the backend what it needs of OpenTelemetry's API; once, by ``otel_trading.api``.  Hooks never raise.

    ``context``: the class Context; ``span_key``: the key of the span in a Context;
    ``kinds``: the five SpanKind members by value;
    ``span_context(trace_id, span_id, is_remote, flags, tracestate)`` → SpanContext;
    ``foreign(span)`` → (trace_id, span_id, is_remote, flags, tracestate or None) of a span that is not ours, all
    zero for an invalid one; ``exception(error, attributes, escaped)`` → attributes of the event;
    ``status(status, description)`` → (code, description or None), or None for what is no status;
    ``clean(value)`` → a plain value for one of an unknown type, as the SDK does it;
    ``readable(span, name)`` → an attribute that the span does not have itself, or raises AttributeError;
    ``decorate(scope, function)`` → the function, each call in a span; ``fault(key, message)``: report once.
    """

def get_context() -> Context:
    """OpenTelemetry's current context; its span is the current span, whoever made it current."""

def attach_context(context: Context, /) -> Any:
    """Make a context current; gives what ``detach_context`` takes."""

def detach_context(token: Any, /) -> None:
    """Back to before ``attach_context``.  Raises ValueError, RuntimeError or TypeError as ContextVar.reset does."""

@final
class Scope:
    """What ``start_as_current_span`` gives: a context manager and a decorator.  The span begins at ``__enter__``."""

    def __enter__(self) -> Span: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __call__(self, function: _F, /) -> _F: ...
    def again(self) -> Scope:
        """A new one with the same arguments."""

@final
class Tracer:
    """OpenTelemetry's Tracer of one instrumentation scope.

    ``make_probe(name, kind, tier)`` gives the probe of a span's name and kind (``tier`` is the ``trading.tier`` among
    the span's first attributes, or None), and is asked once for each; where the probe's name is another one, the span
    keeps its own name in its record.  ``sampler`` decides roots, and with ``parent_based`` false all: 0 takes, 1 drops,
    2 takes where the trace id's low 64 bits are below ``bound``.  Dropped spans do not record
    (``is_recording`` is false), are not exported, and still count in the metrics.  ``decide``, where given,
    is asked in place of that: ``decide(context, trace id or 0, name, kind, attributes, links)`` →
    (trace id, span id, 0 drop | 1 record | 2 record and sample, tracestate or None, attributes or None, random).
    """

    enabled: bool
    on_start: Callable[[Span, Context | None], None] | None
    on_end: Callable[[Span, SpanState], None] | None
    scope: str
    def __new__(
        cls,
        scope: str,
        make_probe: Callable[[str, int, Any], Probe],
        sampler: int = 0,
        bound: int = 0,
        parent_based: bool = True,
        decide: Callable[..., tuple[int, int, int, str | None, Mapping[str, Value] | None, bool]] | None = None,
    ) -> Tracer: ...
    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = ...,
        attributes: Mapping[str, Value] | None = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span: ...
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = ...,
        attributes: Mapping[str, Value] | None = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Scope: ...

# ---- what is current ------------------------------------------------------------------------------

def current() -> Span | None:
    """The current span of this context: one of ours or a remote parent; None without one."""

def remote(trace_id: int, span_id: int, sampled: bool, tracestate: str | None, random: bool = True, /) -> Span:
    """A parent from elsewhere, usable as ``with``, or as the ``parent`` of a span.

    With a zero id it is inert: ``with`` does nothing, and as a parent it means "no explicit parent".
    """

# ---- the segment's life ---------------------------------------------------------------------------

def open(
    fd: int,
    resource: bytes,
    main_slots: int,
    thread_slots: int,
    open_spans: int,
    arena_bytes: int,
    max_names: int,
    max_orders: int,
    limits: tuple[int, int, int, int, int, int, int],
    /,
) -> None:
    """Lay a segment out in the empty file ``fd`` (which is duplicated), publish it, start recording.

    The calling thread gets the main ring.  ``limits``: attributes, events and links of a span, attributes of an event
    and of a link, characters of a text, and of one in an event or a link; 0xffffffff is none.  Raises OSError (ENOSPC,
    ENOMEM, EINVAL …) with nothing left half done.  Raises RuntimeError where a segment is open already.
    """

def close() -> None:
    """Stop recording, run a last pass of the drain, mark the segment closed, unmap it.  Idempotent."""

def is_open() -> bool: ...
def interrupt_open(reason: str, error: bool, /) -> int:
    """Write every open span as ended now, flagged interrupted (with status ERROR and ``reason`` as the
    error where ``error``); returns how many."""

def forked(reopen: Callable[[], None], /) -> None:
    """In the child of a fork: forget the parent's segment; call ``reopen`` before the first record."""

def gc_callback(phase: str, info: dict[str, Any], /) -> None:
    """For ``gc.callbacks``: records each collection's pause in the histogram ``gc.pause`` (seconds)."""

def fault() -> None:
    """Count a misuse that was caught outside the backend."""

# ---- the drain, embedded host ---------------------------------------------------------------------

def drain_start(period_ms: int, /) -> None:
    """Start the drain's thread (native: one that never takes the GIL)."""

def drain_stop(timeout: float, /) -> bool: ...
def drain(decide: bool = False, /) -> int:
    """One pass, now, in the calling thread (GIL released); returns how many records were handled.

    ``decide``: no trace waits for its verdict any longer: what was recorded before the call is in the queue or out.
    """

def keep(capacity: int, block_bytes: int = 8388608, /) -> None:
    """Keep up to ``capacity`` sampled spans, and ``block_bytes`` of what they have in the arena, for ``take``; more is
    refused.  0, the default, keeps none: then every span that was drained counts as sampled out."""

def kept() -> int:
    """How many are waiting; cheap, takes no lock."""

@final
class Batch:
    """Spans that ``take`` handed over; they count as pending until ``settle``."""

    def hand_over(self, fd: int, rest: bytes, timeout: float, /) -> None:
        """Send ``rest``, the last byte of the request that they are in, to a socket, and mark them as sent.

        A process that is killed meanwhile leaves word in the segment whether the kernel has it: what can be missed is
        the time between the kernel's taking it and the next store.  Raises OSError, with them unmarked; TimeoutError
        after ``timeout`` seconds without room.
        """

    def sent(self) -> None:
        """Mark them as handed to the kernel whole: a drain that takes over from now on does not send them again."""
    def unsent(self) -> None:
        """Take the mark of ``sent`` back: the receiver has said that it did not take them."""
    def settle(self, refused: int = 0, /) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
        """They are exported, but for ``refused`` of them, which are taken for those of the lowest tiers.

        Marks them so in the segment, and gives how many of each tier were exported, and refused.  Any thread may
        call it;
        only the first call counts, a later one gives zeros.
        """

    tiers: tuple[int, int, int, int]
    """How many of each tier."""
    estimated_bytes: int
    """What the bucket was charged for them."""
    def __len__(self) -> int: ...
    def states(self) -> list[SpanState]: ...
    def scopes(self) -> list[str]:
        """JSON objects of their instrumentation scopes in order of first appearance; "" is our own."""
    def otlp(self, resource: bytes, schema_url: bytes, scopes: Sequence[tuple[bytes, bytes]], /) -> bytes:
        """An ExportTraceServiceRequest, as the stock exporter encodes it; GIL released.

        ``resource`` and ``schema_url``: fields 1 and 3 of ResourceSpans, encoded with their tags; ``scopes``: fields
        1 and 3 of each ScopeSpans, by ``scopes()``.  Raises RuntimeError where the segment is gone meanwhile.
        """

def take(limit: int, /) -> Batch:
    """Hand over the oldest kept spans."""

def await_kept(spans: int, block_bytes: int, timeout: float, /) -> bool:
    """Wait, GIL released, until that many kept spans wait for ``take``, or spans whose blocks take so many bytes; False
    after ``timeout`` seconds, and where ``wake`` was called."""

def wake() -> None:
    """End the waits of ``await_kept`` and ``await_decision`` that are going on."""

def accounts() -> list[dict[str, int]]:
    """After a pass: one dict a tier with recorded, exported, sampled_out, overwritten, refused, pending."""

def snapshot() -> dict[str, Any]:
    """After a pass, all aggregates:

    ``unix_ns``, ``start_unix_ns``;
    ``probes``: list of dicts with name, tier, kind, scope (JSON, "" for our own), sla_ns, count, errors,
    sla_breaches, total (HistogramState, in seconds), windows ({"1s": …, "5s": …, "1m": HistogramState}), exemplars
    (list of ExemplarState, seconds, at most one for each power of two);
    ``instruments``: list of dicts with name, unit, description, attributes, kind (1 counter, 2 gauge,
    3 histogram), tier, updates, value (counter: int or float, gauge: float or None before the first set), and
    for histograms total, windows, exemplars as above;
    ``rings``: list of dicts with thread_id, capacity, head, tail, backlog, backlog_max;
    ``drain``: dict with passes, cpu_ns, period_ms; ``segment``: dict with bytes, ring_bytes, resident_bytes,
    names_refused, faults, text_overwritten, values_overwritten, attributes_dropped, open_spans, clock.
    Probes and instruments that recorded nothing are in the lists with count 0.
    """

# ---- the keep rules and the budget (docs/keeping.md, docs/budget.md) -------------------------------
#
# What is allowed is in the segment's policy page, which Python writes (otel_trading.budget.policy); while its
# ``active`` is 0, as ``open`` leaves it, nothing is governed, and every sampled span is kept as soon as it is drained.

def share(fd: int, /) -> None:
    """Have verdicts and bucket in common with the directory's other processes, in the file ``fd`` (struct ot_shared).

    It is duplicated, and laid out where it is empty.  -1: this process has its own again, as ``open`` leaves it.
    Raises OSError, and ValueError for a file that is something else.
    """

def pin(trace_id: int, /) -> bool:
    """Have a trace kept, whatever is or was recorded of it; False without a segment, and for 0."""

def govern_start() -> None:
    """Start the governor's thread, which ticks as the policy says (native: one that never takes the GIL)."""

def govern_stop() -> None: ...
def govern(readings: Mapping[str, float] | None = None, /) -> int:
    """One tick, now; returns how many decisions there have been.

    ``readings`` stand in for what would be measured: ``now`` (seconds, monotonic), ``cpu_load``, ``memory_load``,
    ``cpu_stall``, ``memory_stall``, ``volatility``, ``volume``, and the usage ``cpu``, ``memory``, ``latency``,
    ``network``, ``disk``, in the units of ot_readings; NaN is "can not be told".  Raises KeyError for other names.
    """

def mode() -> int:
    """OT_MODE_* in force; one load of the control page.  0 (NORMAL) without a segment."""

def await_decision(number: int, timeout: float, /) -> int:
    """Wait, GIL released, for more than ``number`` decisions, or for buffers that do not fit; how many there were."""

def fit_buffers() -> int:
    """Give the rings the size that control.buffers asks for; loses no record.  Bytes given back; negative: taken."""

def count_thread(on: bool, /) -> None:
    """Whether the calling thread's CPU time, from now on, is monitoring's."""

def count_io(network_bytes: int, disk_operations: int, estimated_bytes: int = 0, /) -> None:
    """Count what an exporter sent and wrote.  ``estimated_bytes``: what the bucket had been charged for it."""

def market(symbol: str, exchange_ns: int, price: float, volume: float, /) -> None:
    """Note an update of a symbol's market data; NaN: it has no price, or volume.  Past OT_MARKETS symbols: a fault."""

def market_data(
    symbol: str,
    exchange_ts_ms: float | None,
    price: SupportsFloat | str | None = None,
    volume: SupportsFloat | str | None = None,
) -> None:
    """The public ``otel_trading.market_data`` (native only: the pure backend has Python's)."""

def market_condition(volatility: float, volume: float, /) -> None:
    """Have the engine use these in place of what ``market`` tells; NaN: no longer."""

# ---- who drains (docs/agent.md) --------------------------------------------------------------------
#
# One process at a time drains a segment: whoever holds the lock on its file (otel_trading.segment.role), which is the
# caller's affair.  After ``open`` it is the process itself.  What is settled of each ring's spans is in the segment
# (struct ot_progress and the marks), so that another process can go on exactly where one was killed.

def drain_give() -> None:
    """Drain this process's segment no longer: stops the drain's thread, publishes what is settled.

    The queue is to be empty; what is still in it is left to the next one.  From here on ``drain`` and
    ``accounts`` only look, ``snapshot`` gives what there was, and ``close`` leaves the rest to whoever drains.
    """

def drain_take() -> None:
    """Drain it again: what others settled meanwhile is not taken again, what they left undone is decided anew.

    Aggregates go on with the records that nobody has seen yet.
    """

def adopt(fd: int, /) -> None:
    """Drain the segment in ``fd``, another process's, in this one; the fd is open for reading and writing, and
    duplicated.

    From here on ``drain_start``, ``keep``, ``take``, ``govern_start``, ``snapshot``, ``accounts`` … are about that
    segment; recording does nothing.  Takes over as ``drain_take`` does.  The file is hostile: ValueError, as of
    Reader, for one that can not be a segment, and later whatever changes in it does no harm but to itself.  Raises
    RuntimeError where a segment is open already, OSError.
    """

def let_go() -> None:
    """End ``adopt``: publish what is settled, unmap; the segment goes on."""

def inherit() -> None:
    """Become the writer of the adopted segment, whose process has ended: probes record into it, ``interrupt_open`` ends
    what it left open, ``close`` marks it closed.  Raises RuntimeError where nothing is adopted."""

def adopted() -> bool: ...
def await_host(known: int, timeout: float, /) -> int:
    """Wait, GIL released, until another one than ``known`` (OT_HOST_*) is to drain; who that is."""

def ask_host(fd: int, host: int, /) -> None:
    """Say who is to drain the segment in ``fd``, and wake those who wait for it.  Raises ValueError, OSError."""

# ---- what is known of a process when it dies (docs/forensics.md) ------------------------------------

def critical(name: str, key: str, kind: int, state: int, latency: float, /) -> None:
    """Note a critical event with the state of the process (struct ot_vital): no lock, no system call.

    ``name`` is the symbol, the breach's kind, the event's name; ``key`` the client order id or ""; ``latency`` in
    seconds or NaN.  ``order_put`` notes each change of an order by itself.
    """

def beat(name: str, late_ns: int, /) -> None:
    """A loop of the program goes on; it is late when ``late_ns`` after this there was no other.  0: it rests, or has
    ended.
    Past OT_BEATS loops: a fault."""

def queue_gauge(gauge: Gauge | None, /) -> None:
    """Say which gauge is the length of the program's queue, for critical events and pulses."""

def ending(kind: int, code: int, name: str, /) -> None:
    """What the process can tell of its end (struct ot_life); the first that is told of an exception or a signal
    stays, and ``kind`` 0 takes it back."""

def note_signals(on: bool, /) -> None:
    """Have SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT noted as the process's end before they do what they would
    have done.

    Chains to the handlers that were there (faulthandler's); pure: does nothing, as Python can not.
    """

# ---- orders --------------------------------------------------------------------------------------

def order_put(
    key: str,
    trace_id: int,
    span_id: int,
    sampled: bool,
    state: int,
    sent_ns: int,
    changed_ns: int,
    quantity: float,
    price: float,
    filled: float,
    paid: float,
    symbol: str,
    side: int,
    /,
) -> None:
    """Enter an order, or change it; ``key`` has at most 64 bytes of UTF-8, else ValueError.  Without a segment nothing.

    Where all its places are taken, the one that changed longest ago goes, ended ones first.
    """

def order_get(key: str, /) -> OrderState | None: ...
def orders_open() -> int:
    """How many are neither filled, cancelled nor rejected."""

class Reader:
    """Read another process's (or a dead one's, or this one's) segment; never writes to it.

    Every method bounds what it believes; a hostile file gives ValueError from the constructor (with the
    reason) or missing records later, never a crash.
    """

    def __init__(self, fd: int, /) -> None: ...
    def close(self) -> None: ...
    def info(self) -> dict[str, Any]:
        """pid, uid, version, backend, clock, created_ns, process_start, boot_id (hex), closed, resource (str),
        rings (as in snapshot), switches, threshold, tier_words, heartbeat_age_ns, faults, names_refused."""
    def probes(self) -> list[tuple[str, int, int, bool, int, str]]:
        """(name, tier, sla_ns, leaf, kind, scope), by probe id."""
    def order(self, key: str, /) -> OrderState | None: ...
    def orders(self) -> list[tuple[str, OrderState]]: ...
    def accounts(self) -> list[dict[str, int]]: ...
    def read(self, limit: int, /) -> list[SpanState]:
        """Span records not yet seen by this reader, oldest first a ring; starts with the oldest there is."""
    def missed(self) -> tuple[int, int]:
        """(records overwritten before this reader came to them, records seen torn and left out)."""
    def open_spans(self) -> list[SpanState]: ...
    def life(self) -> dict[str, Any]:
        """``beats`` (list of dicts: name, unix_ns and age_ns or None where it rests, late_ns, late), ``ending`` (dict:
        kind, code (signed; −1 of an exit: not known), unix_ns, name or None), ``open_orders``, ``queue`` (the gauge's
        name or None), ``host``, ``host_now``, ``drained_by``, ``drain_missing``, ``vitals`` and ``pulses`` (how many
        there have ever been)."""
    def vitals(self, limit: int = 1024, /) -> list[dict[str, Any]]:
        """The newest critical events, oldest first, by the fields of struct ot_vital: unix_ns, kind, state, key, name,
        active_orders, market_age_ms or None, queue, memory_load, cpu_load, latency (floats or None), resident,
        trace_id."""
    def pulses(self, limit: int = 1024, /) -> list[dict[str, Any]]:
        """The newest looks at the process, oldest first, by the fields of struct ot_pulse; None for what is not
        known."""
    def instruments(self) -> list[dict[str, Any]]:
        """name, kind (1 counter, 2 gauge, 3 histogram), tier, unit, attributes, updates, value (None for a
        histogram)."""
    def markets(self) -> list[dict[str, Any]]:
        """symbol, exchange_ns, received_ns, updates, price (or None), volume."""
    def settled(self) -> bool:
        """Whether every span that has ended is settled: nothing is left for a drain to decide or to send."""

# ---- for tests and calibration ---------------------------------------------------------------------

def system_root(path: str, /) -> None:
    """Have pressure read below another directory than the root, "" = the root: for tests.

    In force when pressure is set up next: at ``govern_start``, or at a segment's first tick.
    """

def hardware_cycles() -> int | None:
    """CPU cycles of the calling thread in user space so far; None where the kernel or the machine gives no counter."""
