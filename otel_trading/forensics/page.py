"""The report for people: a page of text for a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from otel_trading.budget.overview import columns
from otel_trading.forensics.evidence import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WIDTH = 118
_ROWS = 8
_MS = 1e-3


def lines(report: Mapping[str, Any]) -> list[str]:
    """Write a report, the most important first."""
    told = [*_head(report), "", *_cause(report)]
    for title, rows in (
        ("BEFORE THE END", _timeline(report)),
        ("ORDERS", _order_flow(report)),
        (f"CRITICAL EVENTS, the newest of {report['counts']['critical_events']}", _events(report)),
        (f"OPEN ORDERS, {report['counts']['open_orders']}", _open_orders(report)),
        (f"OPEN SPANS, {report['counts']['open_spans']}", _spans(report["open_spans"])),
        (f"ERRORS, {report['counts']['errors']} in the last {report['last_s']:g} s", _spans(report["errors"])),
        (f"SLOWEST of {report['counts']['spans']} spans in the last {report['last_s']:g} s", _spans(report["slowest"])),
        ("THREADS", _threads(report)),
        ("THE BUDGET'S DECISIONS", report["decisions"][-_ROWS:]),
        ("DAMAGE", report["damage"][:_ROWS]),
    ):
        if rows:
            told += ["", title, *(f"  {row}"[:_WIDTH] for row in rows)]
    return told


def _head(report: Mapping[str, Any]) -> list[str]:
    process, end = report["process"], report["end"]
    state = "is alive" if process["alive"] else end["text"]
    told = [f"{process['service']}, pid {process['pid']}: {state}"]
    lived = f"lived {seconds(process['lived_s'])}" if process["lived_s"] else "nobody knows for how long it lived"
    if not process["alive"]:
        lived += f", until {day(process['end_ns'])} {clock(process['end_ns'])}"
        lived += f"; says {end['source']}, certainty {end['certainty']:.0%}" if end["source"] else ""
    told.append(f"  {lived}{'' if process['same_boot'] else '; of an earlier boot of this machine'}")
    if end.get("oom"):
        told.append(f"  {end['oom']}"[:_WIDTH])
    return told


def day(unix_ns: int) -> str:
    """Write a date; "" for what is none."""
    try:
        return time.strftime("%Y-%m-%d", time.localtime(unix_ns // 1_000_000_000))
    except (OverflowError, ValueError, OSError):
        return ""


def _cause(report: Mapping[str, Any]) -> list[str]:
    cause = report["cause"]
    name, confidence = cause["name"], cause["confidence"]
    if name == "none":
        told = ["NOTHING WRONG IS SEEN"]
    else:
        told = ["CAUSE UNKNOWN" if name == "unknown" else f"LIKELY CAUSE  {name}, confidence {confidence:.0%}"]
    told += [f"  - {sentence}" for sentence in cause["evidence"]]
    others = [f"{one['name']} {one['confidence']:.0%}" for one in report["others"][:4]]
    if others and name != "unknown":
        told.append(f"  less likely: {', '.join(others)}")
    if report["recommendations"]:
        told += ["", "WHAT TO DO", *(f"  - {sentence}" for sentence in report["recommendations"])]
    return told


def seconds(value: float) -> str:
    """Write a duration in the unit that it is read in."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 120.0)):
        if value >= size:
            return f"{value / (60.0 if unit == 'min' else size):.1f} {unit}"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def _shown(value: float | None, form: str, factor: float = 1.0, unit: str = "") -> str:
    return "" if value is None else f"{value * factor:{form}}{unit}"


def _sampled(rows: list[Any]) -> list[Any]:
    """Take some rows evenly, the last always."""
    if len(rows) <= _ROWS:
        return rows
    return [rows[round(number * (len(rows) - 1) / (_ROWS - 1))] for number in range(_ROWS)]


def _timeline(report: Mapping[str, Any]) -> list[str]:
    rows = [("s", "memory", "CPU", "load", "queue", "open orders", "data age", "late loops", "swap", "threads")]
    rows += [
        (
            f"{one['ago_s']:.1f}",
            _shown(one.get("resident"), ",.0f", 1e-6, " MB"),
            _shown(one.get("process_cpu"), ".2f"),
            _shown(one.get("cpu_load"), ".0%"),
            _shown(one.get("queue"), ",.0f"),
            _shown(one.get("active_orders"), ",.0f"),
            _shown(one.get("market_age_ms"), ".2f", _MS, " s"),
            f"{int(one['late_beats']):b}" if one.get("late_beats") else "",
            _shown(one.get("swap") or None, ",.0f", 1e-6, " MB"),
            _shown(one.get("threads"), ".0f"),
        )
        for one in _sampled(report["timeline"])
    ]
    return columns(rows) if len(rows) > 1 else []


def _order_flow(report: Mapping[str, Any]) -> list[str]:
    flow = report["order_flow"]
    if not flow["by_second"]:
        return []
    rows = [("s", "sent", "acked", "filled", "cancelled", "rejected")]
    rows += [
        (
            str(row["ago_s"]),
            str(row["sent"]),
            str(row["acked"]),
            str(row["filled"] + row["partly_filled"]),
            str(row["cancelled"]),
            str(row["rejected"]),
        )
        for row in flow["by_second"][-_ROWS:]
    ]
    head = f"{flow['pattern']} over {flow['seconds']:.0f} s; a second: {flow['sent_per_s']:g} sent"
    head += f", {flow['answered_per_s']:g} acknowledged or filled, {flow['rejected_per_s']:g} rejected"
    return [head, *columns(rows)]


def _events(report: Mapping[str, Any]) -> list[str]:
    rows = [("s", "event", "of", "order", "open orders", "queue", "data age", "latency")]
    rows += [
        (
            f"{one['ago_s']:.3f}",
            one["state"] or one["kind"],
            one["name"][:24],
            one["key"][:24],
            str(one["active_orders"]),
            _shown(one["queue"], ",.0f"),
            _shown(one["market_age_ms"], ".0f", 1.0, " ms"),
            "" if one["latency_s"] is None else seconds(one["latency_s"]),
        )
        for one in report["critical_events"][-_ROWS:]
    ]
    return columns(rows) if len(rows) > 1 else []


def _open_orders(report: Mapping[str, Any]) -> list[str]:
    rows = [("order", "state", "symbol", "side", "quantity", "filled", "price", "sent")]
    rows += [
        (
            one["order_id"][:32],
            one["state"],
            one["symbol"][:16],
            one["side"] or "",
            _shown(one["quantity"], "g"),
            _shown(one["filled"], "g"),
            "market" if one["price"] is None else f"{one['price']:g}",
            f"{seconds(max(0.0, -one['ago_s']))} before",
        )
        for one in report["open_orders"][:_ROWS]
    ]
    return columns(rows) if len(rows) > 1 else []


def _threads(report: Mapping[str, Any]) -> list[str]:
    rows = [("thread", "name", "state", "waits in", "CPU")]
    rows += [
        (
            str(one["thread"]),
            one["name"],
            one["state"],
            one["waits_in"] or "",
            "" if one["cpu_s"] is None else f"{one['cpu_s']:.2f} s",
        )
        for one in report["threads"][:_ROWS]
    ]
    return columns(rows) if len(rows) > 1 else []


def _spans(spans: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = [("span", "tier", "took", "s", "error", "trace")]
    rows += [
        (
            one["name"][:40],
            one["tier"],
            ("open " if one["open"] else "") + seconds(one["seconds"]),
            f"{one['ago_s']:.3f}",
            (one["exception"] or one["description"] or ("ERROR" if one["error"] else ""))[:30],
            one["trace_id"][:16],
        )
        for one in list(spans)[:_ROWS]
    ]
    return columns(rows) if len(rows) > 1 else []
