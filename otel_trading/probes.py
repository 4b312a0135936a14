"""What a program records with: ``probe``, ``counter``, ``gauge``, ``histogram``.

Each is made once by name and kept for the life of the process, so a call is for start-up or module level, and
what it returns is for the hot path.  All work before ``configure`` and after ``shutdown``: then they do nothing.
A wrong option is a fault, logged once, and never an exception.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from otel_trading._backend import core
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

    from otel_trading._backend import Counter, Gauge, Histogram, Probe

P0 = 0
"""What is never turned off: orders, risk."""
P1 = 1
"""The trading path; the default."""
P2 = 2
"""Detail."""
P3 = 3
"""What can go first."""

ALWAYS_P0 = frozenset(
    (
        "order.submit",
        "order.ack",
        "order.reject",
        "order.fill",
        "order.cancel",
        "risk.breach",
        "risk.breaches",
        "monitoring.decision",
        "monitoring.decisions",
    )
)
"""What is of tier P0 whoever defines it: orders, breaches of risk limits, and what the budget decides."""

_OFF_CPU = {
    "memory.usage": 80,
    "cache.hit_ratio": 85,
    "queue.size": 80,
    "disk.io.rate": 70,
    "network.io.rate": 75,
    "gc.pause": 60,
}
"""Percent of the system's CPU load from which an instrument of that name is off, unless it is of tier P0."""

_KINDS = {"internal": 0, "server": 1, "client": 2, "producer": 3, "consumer": 4}  # OpenTelemetry's SpanKind

_probes: dict[str, tuple[Probe, tuple[object, ...]]] = {}
_instruments: dict[tuple[str, str, str], tuple[Counter | Gauge | Histogram, tuple[object, ...]]] = {}


class _Lock:
    """Keeps two threads from registering one name twice; new in a forked child, whose holder may not exist."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = allocate_lock()


_making = _Lock()


def _tier(name: str, tier: object) -> int:
    if _short(name) in ALWAYS_P0:
        if tier in {P2, P3}:
            report(f"tier:{name}", f"{name!r} is always of tier P0, which can not be switched off: {tier!r} is ignored")
        return P0
    if isinstance(tier, int) and P0 <= tier <= P3:
        return int(tier)
    report(f"tier:{name}", f"{name!r}: tier {tier!r} is not one of P0 to P3; P1 is taken")
    return P1


def _short(name: str) -> str:
    return name.removeprefix("trading.") if isinstance(name, str) else ""


def probe(
    name: str,
    tier: int = P1,
    sla: str | float | datetime.timedelta | None = None,
    *,
    leaf: bool = False,
    kind: str = "internal",
) -> Probe:
    """Give the probe of that name; it makes the spans of one place in the program.

    ``sla`` is the longest time a span may take: text with a unit ("5ms", "200us", "750ns", "1s"), seconds, or a
    ``timedelta``.  ``leaf`` says that the spans of a decorated function have no children: cheaper, as they do not
    become current.  ``kind`` is internal, server, client, producer or consumer.

    The first definition of a name holds; another one with other options is a fault.  Raises TypeError where
    ``name`` is not text, and nothing else.  Takes microseconds: call it once, not in the hot path.
    """
    options = (tier, sla, leaf, kind)
    found = _probes.get(name)
    if found is None:
        with _making.lock:
            found = _probes.get(name)
            if found is None:
                made = core.Probe(name, _tier(name, tier), _sla_ns(name, sla), bool(leaf), _kind(name, kind))
                found = _probes[name] = (made, options)
    if found[1] != options and options != (P1, None, False, "internal"):
        report(
            f"probe:{name}",
            f"probe {name!r} exists with {_shown(found[1])}; its second definition, with {_shown(options)}, is ignored",
        )
    return found[0]


def defined(name: str) -> Probe | None:
    """Give the probe of that name where the program has defined it."""
    found = _probes.get(name)
    return None if found is None else found[0]


def _shown(options: tuple[object, ...]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in zip(("tier", "sla", "leaf", "kind"), options, strict=True))


def _sla_ns(name: str, sla: object) -> int:
    if sla is None:
        return 0
    from otel_trading.config import duration_ns

    try:
        return duration_ns(sla)
    except ValueError as error:
        report(f"sla:{name}", f"probe {name!r} has no SLA: {error}")
        return 0


def _kind(name: str, kind: object) -> int:
    number = _KINDS.get(kind) if isinstance(kind, str) else None
    if number is None:
        report(f"kind:{name}", f"probe {name!r}: kind {kind!r} is not one of {', '.join(_KINDS)}; internal is taken")
        return 0
    return number


def _text(name: str, attributes: Mapping[str, bool | float | str] | None) -> str:
    """Write attributes as a JSON object with sorted keys, "" without any."""
    if not attributes:
        return ""
    import json
    import math

    kept: dict[str, bool | float | str] = {}
    for key, value in dict(attributes).items():
        if (
            isinstance(key, str)
            and isinstance(value, (bool, int, float, str))
            and not (isinstance(value, float) and not math.isfinite(value))
        ):
            kept[key] = value
        else:
            report(
                f"attributes:{name}",
                f"{name!r}: attribute {key!r}={value!r} is left out: keys are text, values text, numbers or booleans",
            )
    return json.dumps(kept, sort_keys=True, ensure_ascii=False, separators=(",", ":")) if kept else ""


def _instrument(
    kind: type[Counter | Gauge | Histogram],
    name: str,
    tier: int,
    unit: str,
    description: str,
    attributes: Mapping[str, bool | float | str] | None,
) -> Counter | Gauge | Histogram:
    text = _text(name, attributes)
    key = (kind.__name__, name, text)
    options = (tier, unit, description)
    found = _instruments.get(key)
    if found is None:
        with _making.lock:
            found = _instruments.get(key)
            if found is None:
                number = _tier(name, tier)
                made = kind(name, number, unit, description, text, _OFF_CPU.get(_short(name), 0) if number else 0)
                found = _instruments[key] = (made, options)
    if found[1] != options and options != (P1, "", ""):
        report(
            f"instrument:{kind.__name__}:{name}",
            f"{kind.__name__.lower()} {name!r} exists with tier, unit and description {found[1]!r}; "
            f"its second definition, with {options!r}, is ignored",
        )
    return found[0]


def counter(
    name: str,
    tier: int = P1,
    unit: str = "",
    description: str = "",
    attributes: Mapping[str, bool | float | str] | None = None,
) -> Counter:
    """Give the counter of that name and those attributes: ``add(amount)`` raises its sum.

    ``unit`` is a UCUM code ("By", "{order}").  The first definition holds, as for ``probe``.
    """
    return _instrument(core.Counter, name, tier, unit, description, attributes)  # type: ignore[return-value]


def gauge(
    name: str,
    tier: int = P1,
    unit: str = "",
    description: str = "",
    attributes: Mapping[str, bool | float | str] | None = None,
) -> Gauge:
    """Give the gauge of that name and those attributes: ``set(value)`` replaces its value."""
    return _instrument(core.Gauge, name, tier, unit, description, attributes)  # type: ignore[return-value]


def histogram(
    name: str,
    tier: int = P1,
    unit: str = "",
    description: str = "",
    attributes: Mapping[str, bool | float | str] | None = None,
) -> Histogram:
    """Give the histogram of that name and those attributes: ``record(value)`` adds an observation.

    Each observation takes a slot of the ring, as a span does.
    """
    return _instrument(core.Histogram, name, tier, unit, description, attributes)  # type: ignore[return-value]
