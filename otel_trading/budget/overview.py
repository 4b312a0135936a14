"""What a process's monitoring does now, for people and as JSON: mode, use and limits, tiers, keep rules, decisions."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from otel_trading.budget.decisions import sentence
from otel_trading.budget.modes import BUDGETS, MODES, REASONS, TRIGGERS, name_of
from otel_trading.budget.policy import Policy
from otel_trading.budget.readings import Readings
from otel_trading.budget.rollout import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otel_trading.budget.decisions import Decision

_SHOWN = {
    "cpu": (100.0, "%", ".2f"),
    "memory": (1e-6, "MB", ".1f"),
    "latency": (1e6, "µs", ".1f"),
    "network": (8e-3, "kbit/s", ".0f"),
    "disk": (1.0, "op/s", ".0f"),
}
"""Factor, unit and form in which people read a limit."""

_NEWEST = 5
"""Decisions that are shown."""


def document(path: str) -> dict[str, Any]:
    """Look at one segment; takes some 100 µs.  Figures that can not be told are None.

    CPU is a share of one core, memory bytes, latency seconds, network bytes a second, disk operations a second.
    Raises SegmentError where it is gone or damaged.
    """
    with Readings(path) as readings, Policy(path) as policy:
        now = readings.read()
        limits = policy.limits(now.mode if now.mode < len(MODES) else 0)
        newest = readings.decisions(max(0, now.decisions - _NEWEST))
        return {
            "governed": policy.active,
            "ticks": now.ticks,
            "tick_age_s": _number((time.time_ns() - now.unix_ns) / 1e9 if now.ticks else math.nan),
            "failed": now.failed,
            "mode": name_of(now.mode),
            "mode_since_unix_ns": now.mode_since_ns,
            "mode_reason": REASONS[now.mode_reason] if now.mode_reason < len(REASONS) else "unknown",
            "forced": None if now.forced is None else name_of(now.forced),
            "usage": {
                name: {"used": _number(used), "limit": _number(limits[name])}
                for name, used in zip(BUDGETS, now.usage, strict=True)
            },
            "cpu_parts": {
                name: _number(value)
                for name, value in (
                    ("recording", now.cpu_hot),
                    ("drain", now.cpu_drain),
                    ("exporters", now.cpu_export),
                    ("governor", now.cpu_governor),
                )
            },
            "pressure": {
                name: _number(value)
                for name, value in (
                    ("cpu", now.cpu_load),
                    ("memory", now.memory_load),
                    ("cpu_stall", now.cpu_stall),
                    ("memory_stall", now.memory_stall),
                )
            },
            "market": {"volatility": _number(now.volatility), "volume": _number(now.volume)},
            "rates": {f"P{tier}": rate for tier, rate in enumerate(now.rates)},
            "rollout": now.rollout,
            "buffers": 2.0 ** -min(now.buffers, 64),
            "steps": now.steps,
            "violations": dict(zip(BUDGETS, now.violations, strict=True)),
            "horizon_s": _number(now.horizon),
            "kept": dict(zip(TRIGGERS, now.kept, strict=True)),
            "missed": dict(zip(TRIGGERS, now.missed, strict=True)),
            "dropped": now.dropped,
            "keep": {
                "hold_s": _number(policy.number("hold")),
                "burst_s": _number(policy.number("burst")),
                "limits": {name: _number(limit) for name, limit in policy.trigger_limits().items()},
            },
            "shares": {f"P{tier}": 1.0 - left_out for tier, left_out in enumerate(now.thresholds)},
            "tokens": _number(now.tokens),
            "decision_count": now.decisions,
            "decisions": [_decision(decision) for decision in newest],
        }


def _number(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "number": decision.number,
        "unix_ns": decision.unix_ns,
        "kind": decision.kind_name,
        "reason": decision.reason_name,
        "tier": f"P{decision.tier}" if decision.kind_name == "rate" else None,
        "mode": decision.mode_name,
        "figure": _number(decision.figure),
        "limit": _number(decision.limit),
        "before": _number(decision.before),
        "after": _number(decision.after),
        "text": sentence(decision),
    }


# ---- for people ------------------------------------------------------------------------------------


def mode_text(found: Mapping[str, Any], now: float | None = None) -> str:
    """Write mode, reason and age: "STRESSED for 34 s (cpu)"."""
    text = str(found["mode"])
    if found["mode_since_unix_ns"]:
        age = (time.time() if now is None else now) - found["mode_since_unix_ns"] / 1e9
        text += f" for {max(0.0, age):,.0f} s"
    if found["forced"]:
        return f"{text}, forced" if found["forced"] == found["mode"] else f"{text}, {found['forced']} was asked for"
    return text if found["mode_reason"] == "none" else f"{text} ({found['mode_reason'].replace('_', ' ')})"


def used_text(name: str, used: float | None, limit: float | None) -> str:
    """Write a use beside its limit: "0.81 of 2.5 %"."""
    factor, unit, form = _SHOWN[name]
    text = "?" if used is None else format(used * factor, form)
    return f"{text} {unit}, no limit" if limit is None else f"{text} of {limit * factor:g} {unit}"


def lines(found: Mapping[str, Any]) -> list[str]:
    """Write what ``document`` gave, but for the mode; a line a subject."""
    if not found["governed"]:
        return ["nothing is governed (budget.enabled is false): everything is recorded and exported", _rates(found)]
    told = []
    if not found["ticks"]:
        told.append("the governor has not ticked yet")
    usage = found["usage"].items()
    told.append("uses      " + "; ".join(f"{name} {used_text(name, **pair)}" for name, pair in usage))
    pressure = {key.replace("_", " "): value for key, value in found["pressure"].items()}
    told.append("pressure  " + ", ".join(f"{key} {_percent(value)}" for key, value in pressure.items()))
    market = found["market"].items()
    told.append("market    " + ", ".join(f"{key} {'?' if value is None else f'{value:.2f}'}" for key, value in market))
    told.append(_rates(found))
    if found["buffers"] < 1.0:
        told.append(f"buffers   {percent(found['buffers'])} of their size")
    told += ["keeps     " + rules_text(found), "kept      " + kept_text(found)]
    if found["horizon_s"] is not None:
        told.append(f"horizon   {found['horizon_s']:.1f} s back a trace can still be kept whole")
    if found["failed"]:
        told.append("FAILED    the engine can not tell the pressure; recording stays as it is")
    return told + [f"{'decided' if not number else '':<8}  {text}" for number, text in enumerate(_decided(found))]


def _rates(found: Mapping[str, Any]) -> str:
    told = [f"{tier} {'off' if not rate else percent(rate)}" for tier, rate in found["rates"].items()]
    rollout = "" if found["rollout"] >= 1.0 else f"; rollout at {percent(found['rollout'])}"
    return "recorded  " + ", ".join(told) + rollout


def kept_parts(found: Mapping[str, Any]) -> list[str]:
    """Write how many traces were kept and why, how many plain ones were not, and what a trigger missed."""
    kept = [f"{name} {count:,}" for name, count in found["kept"].items() if count]
    missed = [f"{name} {count:,}" for name, count in found["missed"].items() if count]
    parts = ["traces: " + ", ".join(kept) if kept else "no trace so far"]
    parts += [f"{found['dropped']:,} plain ones were not"] if found["dropped"] else []
    return parts + ([f"MISSED {', '.join(missed)}"] if missed else [])


def kept_text(found: Mapping[str, Any]) -> str:
    """Write the same in one line."""
    return "; ".join(kept_parts(found))


def rules_text(found: Mapping[str, Any]) -> str:
    """Write the keep rules: which triggers keep all, which some, and what is kept of plain traces now."""
    limits = {name: limit for name, limit in found["keep"]["limits"].items() if name != "share"}
    told = [", ".join(name for name, limit in limits.items() if limit is None)]
    told += [f"{name} up to {limit:g}/s" for name, limit in limits.items() if limit is not None]
    shares = [f"{tier} {percent(share)}" for tier, share in found["shares"].items()]
    plain = "all plain traces" if min(found["shares"].values()) >= 1.0 else f"of plain traces {', '.join(shares)}"
    return f"{', '.join(filter(None, told))}; {plain}"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{share:.0%}"


def _decided(found: Mapping[str, Any]) -> Iterator[str]:
    for one in reversed(found["decisions"]):
        clock = time.strftime("%H:%M:%S", time.localtime(one["unix_ns"] / 1e9))
        yield f"{clock} {one['text']}"


def columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Set rows under each other, the first as the head."""
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
