"""Evidence made for tests: the last seconds of a process, as a segment would have told them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_trading import _layout as at
from otel_trading.forensics.evidence import Evidence, Span
from otel_trading.forensics.how_it_ended import ALIVE, EXIT, GONE, SIGNAL, End

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_795_000_000_000_000_000
SECOND = 1_000_000_000

KILLED = End(SIGNAL, pid=7, signal=9, source="the kernel (pidfd)", certainty=1.0, unix_ns=NOW)
LIVES = End(ALIVE, pid=7)
UNTOLD = End(GONE, pid=7)


def by_signal(number: int, oom: str | None = None) -> End:
    """Give an end by a signal."""
    return End(SIGNAL, pid=7, signal=number, oom=oom, source="the kernel (pidfd)", certainty=1.0, unix_ns=NOW)


def by_exit(code: int, exception: str | None = None) -> End:
    """Give an end by an exit code."""
    return End(EXIT, pid=7, code=code, exception=exception, source="the kernel (pidfd)", certainty=1.0, unix_ns=NOW)


def pulse(ago: float, **changes: Any) -> dict[str, Any]:
    """Give a look at a calm process, ``ago`` seconds before the end."""
    calm = {
        "resident": 60_000_000,
        "process_cpu": 0.1,
        "cpu_load": 0.3,
        "memory_load": 0.2,
        "queue": 5.0,
        "spans": round((1_000 - ago) * 100),
        "active_orders": 2,
        "market_age_ms": 10,
        "threads": 3,
        "late_beats": 0,
        "orders": round((1_000 - ago) * 10),
        "rejects": 0,
        "updates": round((1_000 - ago) * 50),
        "major_faults": 0,
        "swap": 0,
    }
    return {"unix_ns": NOW - round(ago * SECOND), **calm, **changes}


def vital(ago: float, state: int = at.ORDER_ACKED, **changes: Any) -> dict[str, Any]:
    """Give a critical event: an order of a calm process."""
    calm = {
        "kind": at.VITAL_ORDER,
        "state": state,
        "key": "order-1",
        "name": "BTCUSDT",
        "active_orders": 2,
        "market_age_ms": 10,
        "queue": 5.0,
        "memory_load": 0.2,
        "cpu_load": 0.3,
        "latency": 0.001,
        "resident": 60_000_000,
        "trace_id": 1,
    }
    return {"unix_ns": NOW - round(ago * SECOND), **calm, **changes}


def span(name: str, ago: float, seconds: float = 0.001, **changes: Any) -> Span:
    """Give a span that ended ``ago`` seconds before the end, or, with ``open=True``, began then."""
    is_open = changes.pop("open", False)
    end = NOW - round(ago * SECOND)
    made = Span(
        name=name,
        tier=1,
        trace_id=changes.pop("trace_id", 1),
        span_id=changes.pop("span_id", abs(hash((name, ago))) + 1),
        parent_id=changes.pop("parent_id", 0),
        start=end if is_open else end - round(seconds * SECOND),
        end=0 if is_open else end,
        error=changes.pop("error", False),
        flags=changes.pop("flags", 0),
        exception=changes.pop("exception", ""),
        description=changes.pop("description", ""),
        attributes=changes.pop("attributes", {}),
    )
    assert not changes
    return made


def calm(seconds: int = 60, lived: float = 600.0, **series: Callable[[float], Any]) -> Evidence:
    """Give a process that traded calmly; ``series`` change a field of the pulses, by seconds before its end."""
    found = Evidence("made.seg", service="bot", pid=7, looked_ns=NOW + SECOND)
    found.created_ns = NOW - round(lived * SECOND)
    found.pulses = [
        pulse(float(ago), **{name: value(float(ago)) for name, value in series.items()})
        for ago in range(seconds, -1, -1)
    ]
    shared = {name: value for name, value in series.items() if name in {"queue", "memory_load", "cpu_load"}}
    found.vitals = [
        vital(ago / 10, **{name: value(ago / 10) for name, value in shared.items()}) for ago in range(100, -1, -1)
    ]
    found.markets = [
        {"symbol": "BTCUSDT", "exchange_ns": NOW, "received_ns": NOW, "updates": 50_000, "price": 1.0, "volume": 1.0}
    ]
    found.spans = [span("tick", ago / 10) for ago in range(300, -1, -1)]
    return found


def silent(found: Evidence, seconds: float, *, all_of_it: bool = False) -> Evidence:
    """Have market data stop ``seconds`` before the end; and everything else with it."""
    found.markets[0]["received_ns"] = NOW - round(seconds * SECOND)
    last = max((one["updates"] for one in found.pulses if one["unix_ns"] <= NOW - seconds * SECOND), default=0)
    spans = max((one["spans"] for one in found.pulses if one["unix_ns"] <= NOW - seconds * SECOND), default=0)
    for one in found.pulses:
        age = seconds - (NOW - one["unix_ns"]) / SECOND
        if age > 0.0:
            one["market_age_ms"], one["updates"] = round(age * 1000) + 10, last
            one["spans"] = spans if all_of_it else one["spans"]
    if all_of_it:
        since = NOW - round(seconds * SECOND)
        found.vitals = [one for one in found.vitals if one["unix_ns"] <= since]
        found.spans = [one for one in found.spans if one.end <= since]
    else:
        for one in found.vitals:
            age = seconds - (NOW - one["unix_ns"]) / SECOND
            one["market_age_ms"] = max(10, round(age * 1000) + 10)
    return found
