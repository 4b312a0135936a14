"""The recorder's interface: what a backend offers to the rest of the package.

``otel_trading._native`` (C) and ``otel_trading._pure`` (Python) both have exactly this shape, and the
same tests run on both.  Nothing here is public; the public names are in ``otel_trading``.

Nothing in the recording part raises into the caller for a reason of ours: misuse is counted in the
segment header's ``faults``.  Only wrong argument types raise ``TypeError``, as for any function.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, TypeVar, final

BACKEND: Final[Literal["native", "pure"]]

_F = TypeVar("_F", bound=Callable[..., Any])

AttributeValue: TypeAlias = bool | int | float | str

# (scale, count, sum, min, max, zero_count, positive_offset, positive_counts, negative_offset, negative_counts)
# The counts are native-endian uint64 arrays as bytes; bucket i of an array covers
# (base ** (offset + i), base ** (offset + i + 1)] with base = 2 ** 2 ** -scale: OpenTelemetry's layout.
HistogramState: TypeAlias = tuple[int, int, float, float, float, int, int, bytes, int, bytes]

# (value, trace_id, span_id, unix_ns)
ExemplarState: TypeAlias = tuple[float, int, int, int]

# (probe id, tier, trace id, span id, parent id or 0, start Unix ns, end Unix ns (0 = still open),
#  status, flags, name of the exception's type or None, tracestate or None, attributes,
#  number of attributes dropped)
SpanState: TypeAlias = tuple[
    int, int, int, int, int, int, int, int, int, str | None, str | None, dict[str, AttributeValue], int
]

@final
class Token:
    """What ``Probe.start`` gives and ``Probe.stop`` takes; an open flat span."""

@final
class Span:
    """A span, or the remote parent that ``remote`` makes.

    Life: made (by ``Probe.span``) → open (``__enter__`` or ``begin``) → ended (``__exit__`` or ``end``).
    A call that does not fit the state does nothing and counts as a fault.
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
    def set_attribute(self, key: str, value: AttributeValue, /) -> None: ...
    def __enter__(self) -> Span: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def begin(self) -> None:
        """Open without becoming current."""
    def end(self, error: BaseException | None = None, /) -> None:
        """End; leaves what is current alone."""
    def resume(self) -> None:
        """Become current until ``suspend`` (generators: once a step)."""
    def suspend(self) -> None:
        """Give the place back to what was current before ``resume``."""

@final
class Probe:
    """A named place in the program; makes spans.  Usable before ``open`` and after ``close``: then it does nothing."""

    name: str
    tier: int
    sla_ns: int
    leaf: bool
    kind: int
    id: int
    def __new__(cls, name: str, tier: int = 1, sla_ns: int = 0, leaf: bool = False, kind: int = 0) -> Probe: ...
    def __call__(self, function: _F, /) -> _F:
        """``otel_trading._wrap.wrap(self, function)``."""
    def __enter__(self) -> Span: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def span(self, parent: Span | None = None, /, **attributes: AttributeValue) -> Span: ...
    def start(self, parent: Span | None = None, /) -> Token: ...
    def stop(self, token: Token, error: BaseException | None = None, /) -> None: ...

def traced(probe: Probe, function: _F, /) -> _F:
    """Wrap a plain (not async, not generator) function; methods bind, introspection sees the original."""

@final
class Counter:
    id: int
    def __new__(
        cls, name: str, tier: int = 1, unit: str = "", description: str = "", attributes: str = ""
    ) -> Counter: ...
    def add(self, amount: float, /) -> None: ...

@final
class Gauge:
    id: int
    def __new__(
        cls, name: str, tier: int = 1, unit: str = "", description: str = "", attributes: str = ""
    ) -> Gauge: ...
    def set(self, value: float, /) -> None: ...

@final
class Histogram:
    id: int
    def __new__(
        cls, name: str, tier: int = 1, unit: str = "", description: str = "", attributes: str = ""
    ) -> Histogram: ...
    def record(self, value: float, /) -> None: ...

def current() -> Span | None:
    """The current span of this context: one of ours or a remote parent; None without one."""

def remote(trace_id: int, span_id: int, sampled: bool, tracestate: str | None, /) -> Span:
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
    /,
) -> None:
    """Lay a segment out in the empty file ``fd`` (which is duplicated), publish it, start recording.

    The calling thread gets the main ring.  Raises OSError (ENOSPC, ENOMEM, EINVAL …) with nothing left
    half done.  Raises RuntimeError where a segment is open already.
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
def drain() -> int:
    """One pass, now, in the calling thread (GIL released); returns how many records were handled."""

def keep(capacity: int, /) -> None:
    """Keep up to ``capacity`` sampled spans for ``take``; 0, the default, keeps none: then every span that
    was drained counts as sampled out."""

def take(limit: int, /) -> list[SpanState]:
    """Hand over the oldest kept spans; they count as pending until ``settle``."""

def settle(exported: tuple[int, int, int, int], refused: tuple[int, int, int, int], /) -> None: ...
def accounts() -> list[dict[str, int]]:
    """After a pass: one dict a tier with recorded, exported, sampled_out, overwritten, refused, pending."""

def snapshot() -> dict[str, Any]:
    """After a pass, all aggregates:

    ``unix_ns``, ``start_unix_ns``;
    ``probes``: list of dicts with name, tier, kind, sla_ns, count, errors, sla_breaches, total (HistogramState, in
    seconds), windows ({"1s": …, "5s": …, "1m": HistogramState}), exemplars (list of ExemplarState, seconds,
    at most one for each power of two);
    ``instruments``: list of dicts with name, unit, description, attributes, kind (1 counter, 2 gauge,
    3 histogram), tier, updates, value (counter: int or float, gauge: float or None before the first set), and
    for histograms total, windows, exemplars as above;
    ``rings``: list of dicts with thread_id, capacity, head, tail, backlog, backlog_max;
    ``drain``: dict with passes, cpu_ns, period_ms; ``segment``: dict with bytes, ring_bytes, resident_bytes,
    names_refused, faults, text_overwritten, values_overwritten, attributes_dropped, open_spans, clock.
    Probes and instruments that recorded nothing are in the lists with count 0.
    """

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
    def probes(self) -> list[tuple[str, int, int, bool, int]]:
        """(name, tier, sla_ns, leaf, kind), by probe id."""
    def accounts(self) -> list[dict[str, int]]: ...
    def read(self, limit: int, /) -> list[SpanState]:
        """Span records not yet seen by this reader, oldest first a ring; starts with the oldest there is."""
    def missed(self) -> tuple[int, int]:
        """(records overwritten before this reader came to them, records seen torn and left out)."""
    def open_spans(self) -> list[SpanState]: ...
