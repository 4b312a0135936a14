"""The report: one dict that JSON can hold, of a schema with a version.

``SCHEMA`` changes its number when a field changes its meaning or goes; fields may be added.  Times are Unix
nanoseconds (``…_ns``) or seconds before the end (``ago_s``, negative); sizes bytes, CPU cores.

| field | what |
| --- | --- |
| ``schema``, ``looked_ns``, ``segment`` | of what, and when it was looked at |
| ``process`` | service, pid, alive, since when, for how long, mode of the budget |
| ``end`` | kind (alive, exit, signal, gone), code, signal, exception, oom, core_dumped, who says so, certainty |
| ``cause`` | name, confidence, evidence in sentences; ``others``: what else was found |
| ``recommendations`` | sentences |
| ``trends`` | memory, cpu, queue: begin, end, slope a second, tau, seconds |
| ``order_flow`` | orders a second before the end, by the second, with a pattern in a word |
| ``critical_events`` | the newest 100, oldest first |
| ``open_spans``, ``open_orders``, ``slowest``, ``errors`` | of the end; ``counts`` tells how many there are of each |
| ``timeline`` | the last pulses |
| ``threads`` | of a process that is alive: what each does, and where it waits in the kernel |
| ``markets``, ``accounts``, ``decisions``, ``damage`` | as the segment has them |
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from otel_trading import _layout as at
from otel_trading.forensics import trends
from otel_trading.forensics.causes import judge
from otel_trading.forensics.evidence import plain
from otel_trading.forensics.how_it_ended import signal_name
from otel_trading.forensics.recommendations import recommend
from otel_trading.forensics.signs import Signs
from otel_trading.forensics.threads import threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_trading.forensics.causes import Verdict
    from otel_trading.forensics.evidence import Evidence, Span
    from otel_trading.forensics.how_it_ended import End

SCHEMA = "otel-trading.forensics/1"
LAST = 30.0
"""Seconds before the end that are told, unless somebody asks for others."""
_MOST = 50
_SLOWEST = 10
_ERRORS = 10
_STEADY = 0.5  # Kendall's tau
_UP, _DOWN = 0.7, 0.3  # share of the orders that were sent in the later half
_STATES = {
    at.ORDER_SENT: "sent",
    at.ORDER_ACKED: "acked",
    at.ORDER_PARTLY_FILLED: "partly_filled",
    at.ORDER_FILLED: "filled",
    at.ORDER_CANCELLED: "cancelled",
    at.ORDER_REJECTED: "rejected",
}
_KINDS = {at.VITAL_ORDER: "order", at.VITAL_RISK: "risk_breach", at.VITAL_CRITICAL: "critical"}
_SIDES = {at.SIDE_BUY: "buy", at.SIDE_SELL: "sell"}


def document(evidence: Evidence, end: End, last: float = LAST, verdict: Verdict | None = None) -> dict[str, Any]:
    """Make the report; ``last``: seconds before the end whose spans and orders are told.  Some 10 ms."""
    signs = Signs(evidence, end)
    verdict = judge(evidence, end) if verdict is None else verdict
    spans = [span for span in evidence.spans if signs.ago(span.end) >= -last]
    opened = [(key, order) for key, order in evidence.orders if order[3] < at.ORDER_FILLED]
    opened.sort(key=lambda one: one[1][4], reverse=True)
    errors = [span for span in spans if span.error]
    return {
        "schema": SCHEMA,
        "looked_ns": evidence.looked_ns,
        "segment": evidence.path,
        "process": {
            "service": evidence.service,
            "pid": evidence.pid,
            "alive": evidence.alive,
            "created_ns": evidence.created_ns,
            "end_ns": signs.end_ns,
            "lived_s": round(signs.lived, 3),
            "backend": evidence.backend,
            "closed": evidence.closed,
            "same_boot": evidence.same_boot,
            "mode": evidence.mode,
        },
        "end": {
            **end.pack(),
            "text": end.text,
            "signal_name": None if end.signal is None else signal_name(end.signal),
        },
        "cause": {"name": verdict.cause, "confidence": verdict.confidence, "evidence": verdict.evidence},
        "others": [
            {"name": one.cause, "confidence": round(one.confidence, 2), "evidence": one.evidence}
            for one in verdict.others
        ],
        "recommendations": recommend(verdict, signs),
        "last_s": last,
        "trends": {
            "memory": _trend(signs.resident),
            "cpu": _trend(signs.process_cpu),
            "queue": _trend(signs.queue),
        },
        "order_flow": _order_flow(signs, last),
        "counts": {
            "critical_events": evidence.life.get("vitals", len(evidence.vitals)),
            "open_spans": len(evidence.open_spans),
            "open_orders": len(opened),
            "spans": len(spans),
            "errors": len(errors),
        },
        "critical_events": [_event(signs, one) for one in signs.vitals],
        "open_spans": [_span(signs, span) for span in evidence.open_spans[:_MOST]],
        "open_orders": [_order(signs, key, order) for key, order in opened[:_MOST]],
        "slowest": [
            _span(signs, span) for span in sorted(spans, key=lambda span: span.seconds, reverse=True)[:_SLOWEST]
        ],
        "errors": [_span(signs, span) for span in errors[-_ERRORS:]],
        "timeline": [_pulse(signs, one) for one in signs.pulses if signs.ago(one["unix_ns"]) >= -last],
        "threads": threads(evidence.pid) if evidence.alive else [],
        "markets": [_market(signs, one) for one in evidence.markets[:_MOST]],
        "accounts": {f"P{tier}": account for tier, account in enumerate(evidence.accounts)},
        "decisions": evidence.decisions,
        "damage": evidence.damage,
    }


def number(value: object) -> float | None:
    """Give a number that JSON can hold, None for what is none."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _trend(series: list[tuple[float, float]]) -> dict[str, Any] | None:
    found = trends.trend(series)
    if found is None:
        return None
    return {
        "begin": number(found.begin),
        "end": number(found.end),
        "slope_per_s": number(found.slope),
        "tau": round(found.tau, 3),
        "seconds": round(found.seconds, 3),
        "points": found.points,
        "direction": "rising" if found.tau >= _STEADY else "falling" if found.tau <= -_STEADY else "steady",
    }


def _order_flow(signs: Signs, last: float) -> dict[str, Any]:
    """Count orders by the second before the end, of the critical events that are remembered."""
    seconds: dict[int, dict[str, int]] = {}
    for one in signs.evidence.vitals:
        ago = signs.ago(one["unix_ns"])
        if one.get("kind") == at.VITAL_ORDER and -last <= ago <= 1.0:
            row = seconds.setdefault(math.floor(ago), dict.fromkeys(_STATES.values(), 0))
            state = _STATES.get(int(one.get("state") or 0))
            if state is not None:
                row[state] += 1
    rows = [{"ago_s": ago, **seconds[ago]} for ago in sorted(seconds)]
    sent, rejected = (sum(row[state] for row in rows) for state in ("sent", "rejected"))
    acked = sum(row["acked"] + row["filled"] + row["partly_filled"] for row in rows)
    span = max(1.0, -rows[0]["ago_s"]) if rows else 0.0
    late = sum(row["sent"] for row in rows if row["ago_s"] >= -span / 2)
    if not rows:
        pattern = "none"
    elif rejected >= 0.5 * (acked + rejected) > 0:
        pattern = "rejected"
    elif rows[-1]["ago_s"] < -max(3.0, span / 3):
        pattern = "stopped"
    elif sent and not acked + rejected:
        pattern = "unanswered"
    else:
        pattern = "rising" if late > _UP * sent else "falling" if late < _DOWN * sent else "steady"
    return {
        "pattern": pattern,
        "seconds": round(span, 3),
        "sent_per_s": round(sent / span, 3) if span else 0.0,
        "answered_per_s": round(acked / span, 3) if span else 0.0,
        "rejected_per_s": round(rejected / span, 3) if span else 0.0,
        "by_second": rows,
    }


def event_text(one: Mapping[str, Any]) -> str:
    """Say in a few words what a critical event is: "order rejected BTCUSDT"."""
    kind = _KINDS.get(int(one.get("kind") or 0), "unknown")
    state = _STATES.get(int(one.get("state") or 0), "") if kind == "order" else ""
    return " ".join(filter(None, (kind, state, plain(one.get("name") or "", 64))))


def _event(signs: Signs, one: dict[str, Any]) -> dict[str, Any]:
    kind = _KINDS.get(int(one.get("kind") or 0), "unknown")
    return {
        "unix_ns": one["unix_ns"],
        "ago_s": round(signs.ago(one["unix_ns"]), 6),
        "kind": kind,
        "state": _STATES.get(int(one.get("state") or 0)) if kind == "order" else None,
        "name": plain(one.get("name") or ""),
        "key": plain(one.get("key") or ""),
        "active_orders": one.get("active_orders"),
        "market_age_ms": one.get("market_age_ms"),
        "queue": number(one.get("queue")),
        "memory_load": number(one.get("memory_load")),
        "cpu_load": number(one.get("cpu_load")),
        "resident": one.get("resident"),
        "latency_s": number(one.get("latency")),
        "trace_id": f"{int(one.get('trace_id') or 0):032x}",
    }


def _span(signs: Signs, span: Span) -> dict[str, Any]:
    end = span.end or signs.end_ns
    return {
        "name": span.name,
        "tier": f"P{span.tier}",
        "trace_id": f"{span.trace_id:032x}",
        "span_id": f"{span.span_id:016x}",
        "parent_id": f"{span.parent_id:016x}" if span.parent_id else None,
        "start_ns": span.start,
        "ago_s": round(signs.ago(end), 6),
        "seconds": round(max(0, end - span.start) / 1e9, 9),
        "open": not span.end,
        "error": span.error,
        "exception": span.exception or None,
        "description": span.description or None,
        "attributes": {plain(key, 100): _value(value) for key, value in list(span.attributes.items())[:20]},
    }


def _value(value: object) -> object:
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return number(value)
    return f"{len(value)} bytes" if isinstance(value, bytes) else plain(value, 200)


def _order(signs: Signs, key: str, order: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "order_id": plain(key, 64),
        "state": _STATES.get(order[3], "unknown"),
        "symbol": plain(order[10], 64),
        "side": _SIDES.get(order[11]),
        "quantity": number(order[6]),
        "price": number(order[7]),
        "filled": number(order[8]),
        "sent_ns": order[4],
        "ago_s": round(signs.ago(order[4]), 6),
        "trace_id": f"{order[0]:032x}",
    }


def _pulse(signs: Signs, one: dict[str, Any]) -> dict[str, Any]:
    told = {name: number(value) for name, value in one.items() if name not in {"unix_ns", "seq", "reserved"}}
    return {"unix_ns": one["unix_ns"], "ago_s": round(signs.ago(one["unix_ns"]), 3), **told}


def _market(signs: Signs, one: dict[str, Any]) -> dict[str, Any]:
    received = one.get("received_ns") or 0
    return {
        "symbol": plain(one.get("symbol") or "", 64),
        "age_s": round(-signs.ago(received), 3) if received else None,
        "updates": one.get("updates"),
        "price": number(one.get("price")),
    }
