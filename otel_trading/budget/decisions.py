"""Decisions of a governor: how each is said in a sentence, how grave it is, and the alert that one of them is.

Light enough for the trading process, where somebody has to tell of them.
"""

from __future__ import annotations

import struct
from collections import namedtuple

from otel_trading import _layout as at
from otel_trading.budget.modes import BUDGETS, EMERGENCY, KINDS, MODES, REASONS, STRESSED, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Fields(NamedTuple):
        number: int
        unix_ns: int
        kind: int
        reason: int
        tier: int
        mode: int
        figure: float
        limit: float
        before: float
        after: float

else:
    _Fields = namedtuple(  # noqa: PYI024  without the module typing
        "_Fields", ("number", "unix_ns", "kind", "reason", "tier", "mode", "figure", "limit", "before", "after")
    )

_DECISION = struct.Struct("<QQ4dBBBBIQ")

assert _DECISION.size == at.SIZE_DECISION  # noqa: S101  the two say the same, or nothing here is right

_INFO, _WARNING, _ERROR, _CRITICAL = 20, 30, 40, 50  # as in the module logging, which may not be loaded
_TROUBLE = {at.DECISION_VIOLATION: _WARNING, at.DECISION_ALERT: _CRITICAL, at.DECISION_FAILED: _ERROR}

_FIRST_BUDGET = at.REASON_BUDGET_CPU
_BUDGETS = (  # by OT_BUDGET_*: what it is, and the factor and the unit of a figure that people read
    ("CPU, of one core", 100.0, "%"),
    ("memory", 1e-6, " MB"),
    ("latency added to an operation", 1e6, " \u00b5s"),
    ("network", 8e-3, " kbit/s"),
    ("disk writes", 1.0, " op/s"),
)
_WHAT = {
    at.DECISION_MODE: "mode {before} -> {after}",
    at.DECISION_RATE: "P{d.tier} {d.before:.4g} -> {d.after:.4g} of its traces",
    at.DECISION_BUFFERS: "rings {d.before:.4g} -> {d.after:.4g} of their size",
    at.DECISION_VIOLATION: "over the budget, and nothing is left to give up",
    at.DECISION_ALERT: "over the budget {d.after:.0f} times in a row, P0 only",
}
_TOLD = {
    at.DECISION_FAILED: "{subject} can not be told, so recording stays as it is",
    at.DECISION_WORKS: "{subject} can be told again",
}
_SUBJECTS = {
    at.REASON_CPU: "the system's CPU load",
    at.REASON_MEMORY: "the system's memory load",
    at.REASON_MARKET: "the market's condition",
}
_WHY = {
    at.REASON_CPU: "the system's CPU load, {d.figure:.3f}, {compared} {d.limit:.3f}",
    at.REASON_MEMORY: "the system's memory load, {d.figure:.3f}, {compared} {d.limit:.3f}",
    at.REASON_MARKET: "the market's volatility, {d.figure:.3g}, {compared} {d.limit:.3g}",
    at.REASON_LATENCY: "latency added to an operation, {us:.4g} \u00b5s, {compared} {limit_us:.4g} \u00b5s",
    at.REASON_FORCED: "somebody asked for it",
    at.REASON_VIOLATIONS: "{d.figure:.0f} violations in a row, {d.limit:.0f} are borne",
    at.REASON_RECOVERED: "what led to it is over",
}


class Decision(_Fields):
    """One decision of a governor, with the figure that led to it.

    ``number`` counts from 0; ``kind`` and ``reason`` are indexes of ``modes.KINDS`` and ``modes.REASONS``; ``tier`` is
    that of a changed rate; ``mode`` is in force after it.  ``figure`` is what was measured and ``limit`` what it is
    held to, in the units of ``readings.Reading``; ``before`` and ``after`` are modes, shares, or counts, by the kind.
    """

    __slots__ = ()

    @property
    def kind_name(self) -> str:
        """Kind as text."""
        return KINDS[self.kind] if self.kind < len(KINDS) else "unknown"

    @property
    def reason_name(self) -> str:
        """Reason as text."""
        return REASONS[self.reason] if self.reason < len(REASONS) else "unknown"

    @property
    def mode_name(self) -> str:
        """Name of the mode in force after it."""
        return name_of(self.mode)

    @property
    def milder(self) -> bool:
        """Whether monitoring does more after it than before."""
        if self.kind == at.DECISION_MODE:
            return self.after < self.before
        if self.kind == at.DECISION_EXPORTS:
            return self.after == 0.0
        if self.kind in {at.DECISION_RATE, at.DECISION_BUFFERS}:
            return self.after > self.before
        return self.kind == at.DECISION_WORKS


def decision_of(number: int, data: bytes) -> Decision | None:
    """Read decision ``number`` out of its entry; None where another one is there, or it is not complete."""
    seq, unix_ns, figure, limit, before, after, kind, reason, tier, mode, _, _ = _DECISION.unpack(data)
    if seq != (2 * number + 2) % (1 << 64):
        return None
    return Decision(number, unix_ns, kind, reason, tier, mode, figure, limit, before, after)


def sentence(decision: Decision) -> str:
    """Say what was decided and why, figures with their units, in one line."""
    if decision.kind in _TOLD:
        return _TOLD[decision.kind].format(subject=_SUBJECTS.get(decision.reason, "what monitoring uses"))
    what = _WHAT.get(decision.kind, "a decision of an unknown kind")
    if decision.kind == at.DECISION_EXPORTS:
        what = "exports wait" if decision.after else "exports go on"
    what = what.format(d=decision, before=_mode(decision.before), after=_mode(decision.after))
    return f"{what}: {_why(decision)}"


def level_of(decision: Decision) -> int:
    """Give the level of a decision's log record: INFO for what is milder, WARNING for what is given up."""
    if decision.kind in _TROUBLE:
        return _TROUBLE[decision.kind]
    if decision.kind == at.DECISION_MODE:
        heavy = not decision.milder and decision.mode in {STRESSED, EMERGENCY}
        return _WARNING if heavy else _INFO
    return _INFO if decision.milder else _WARNING


def raise_alert(decision: Decision, service: str | None) -> None:
    """Raise the alert that a decision of kind DECISION_ALERT is, of that service; it has to be in the log already."""
    from otel_trading import alerts

    labels = {"service": service} if service else {}
    figures = {"violations": decision.figure, "borne": decision.limit, "unix_ns": decision.unix_ns}
    alert = alerts.Alert("MonitoringBudgetExceeded", alerts.CRITICAL, sentence(decision), labels, figures)
    alerts.raise_alert(alert, logged=True)


def _mode(number: float) -> str:
    return name_of(int(number)) if -1.0 < number < len(MODES) else name_of(-1)  # NaN is no mode either


def _why(decision: Decision) -> str:
    figure, limit = decision.figure, decision.limit
    compared = "is above" if figure > limit else "is not above"
    if _FIRST_BUDGET <= decision.reason < _FIRST_BUDGET + len(BUDGETS):
        what, factor, unit = _BUDGETS[decision.reason - _FIRST_BUDGET]
        return f"monitoring's {what}, {figure * factor:.4g}{unit}, {compared} {limit * factor:.4g}{unit}"
    return _WHY.get(decision.reason, "reason {d.reason_name}").format(
        d=decision, compared=compared, us=figure * 1e6, limit_us=limit * 1e6
    )
