"""The names of modes, reasons, decisions, triggers and limits, by their numbers in the segment."""

from __future__ import annotations

from otel_trading import _layout as at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MODES: Final = ("NORMAL", "HIGH_VOLATILITY", "STRESSED", "EMERGENCY")
"""By OT_MODE_*, the mildest first."""

NORMAL, HIGH_VOLATILITY, STRESSED, EMERGENCY = (
    at.MODE_NORMAL,
    at.MODE_HIGH_VOLATILITY,
    at.MODE_STRESSED,
    at.MODE_EMERGENCY,
)

REASONS: Final = (
    "none",
    "cpu",
    "memory",
    "market",
    "latency",
    "forced",
    "violations",
    "recovered",
    "budget_cpu",
    "budget_memory",
    "budget_latency",
    "budget_network",
    "budget_disk",
)
"""By OT_REASON_*: why a mode was entered, or a decision made."""

KINDS: Final = ("none", "mode", "rate", "buffers", "violation", "alert", "failed", "works", "exports")
"""By OT_DECISION_*."""

TRIGGERS: Final = ("error", "reject", "sla", "risk", "interrupted", "pinned", "slow", "share")
"""By OT_TRIGGER_*: why a trace is kept."""

BUDGETS: Final = ("cpu", "memory", "latency", "network", "disk")
"""By OT_BUDGET_*: what monitoring may use."""

COSTS: Final = ("flat", "span", "api", "attribute", "block", "value", "update", "market")
"""By OT_COST_*: kinds of records, each with its cost to the thread that makes it."""


def name_of(number: int) -> str:
    """Give a mode's name; of a number that is no mode's, as a damaged segment may have it, "UNKNOWN"."""
    return MODES[number] if 0 <= number < len(MODES) else "UNKNOWN"


def number_of(name: object) -> int:
    """Give the number of a mode by its name, in any case.  Raises ValueError."""
    text = name.strip().upper() if isinstance(name, str) else name
    if text not in MODES:
        raise ValueError(f"{name!r:.100} is no mode: the modes are {', '.join(MODES)}")
    return MODES.index(text)
