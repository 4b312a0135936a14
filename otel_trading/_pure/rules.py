"""The policy page as one tick of the governor goes by it, and the words that carry shares of tiers."""

from __future__ import annotations

import struct
from math import inf

from otel_trading import _layout as at

_BUDGETS = at.BUDGETS * at.MODES
_PAGE = struct.Struct(f"<Q{_BUDGETS}d4d8d")
_COSTS = struct.Struct(f"<{at.COSTS}ddd")
_SCALE = 1 << at.SAMPLE_BITS
_SHORTEST, _LONGEST = 0.001, 3600.0  # seconds
_PERIOD, _WINDOW = 0.05, 1.0  # seconds, where somebody wrote what can not be

# What a mode leaves of each tier's traces.
_SHARES = {
    at.MODE_NORMAL: (1.0, 1.0, 1.0, 1.0),
    at.MODE_HIGH_VOLATILITY: (1.0, 1.0, 1.0, 1.0),
    at.MODE_STRESSED: (1.0, 1.0, 0.5, 0.0),
    at.MODE_EMERGENCY: (1.0, 0.0, 0.0, 0.0),
}


class Policy:
    """What is allowed: seconds, bytes, shares from 0 to 1."""

    __slots__ = (
        "_budgets",
        "active",
        "base_memory",
        "cost",
        "dwell",
        "enter",
        "exporter_memory",
        "margin",
        "period",
        "recover",
        "violations",
        "volatility",
        "volume",
        "window",
    )

    def __init__(self, page: bytes) -> None:
        """Understand the page; it is anybody's, so what can not be is taken for no rule."""
        active, *numbers = _PAGE.unpack_from(page)
        self.active = active == 1
        self._budgets = [_rule(limit, inf) for limit in numbers[:_BUDGETS]]
        self.enter = [_rule(limit, inf) for limit in numbers[_BUDGETS : _BUDGETS + 4]]
        margin, dwell, volatility, volume, period, window, recover, violations = numbers[_BUDGETS + 4 :]
        self.margin = _rule(margin, 0.0)
        self.dwell = _rule(dwell, 0.0)
        self.volatility = _rule(volatility, inf)
        self.volume = _rule(volume, inf)
        self.period = min(_rule(period, _PERIOD, _SHORTEST), _LONGEST)
        self.window = _rule(window, _WINDOW, _SHORTEST)
        self.recover = _rule(recover, 0.0)
        self.violations = _rule(violations, inf)
        costs = _COSTS.unpack_from(page, at.OFF_POLICY_COST)
        *self.cost, self.base_memory, self.exporter_memory = (_rule(cost, 0.0) for cost in costs)

    def limits(self, mode: int) -> list[float]:
        """Give a mode's budget, by BUDGET_*."""
        return [self._budgets[at.MODES * row + mode] for row in range(at.BUDGETS)]

    def load_limit(self, reason: int, mode: int) -> float:
        """Give the load from which a mode is entered for a reason; infinity where it is not for that."""
        if mode not in {at.MODE_STRESSED, at.MODE_EMERGENCY} or reason not in {at.REASON_CPU, at.REASON_MEMORY}:
            return inf
        limit: float = self.enter[2 * (reason == at.REASON_MEMORY) + (mode == at.MODE_EMERGENCY)]
        return limit


def mode_share(mode: int, tier: int) -> float:
    """Tell which part of a tier's traces a mode leaves."""
    return _SHARES[mode][tier]


def word_of(share: float) -> int:
    """Give the tier word under which that part of the traces is recorded."""
    if share >= 1.0:
        return at.TIER_ON
    return int((1.0 - share) * _SCALE) << 8 | at.TIER_ON if share > 0.0 else 0


def share_of(word: int) -> float:
    """Give the part of the traces that is recorded under a tier word."""
    return 1.0 - (word >> 8) / _SCALE if word & at.TIER_ON else 0.0


def strictest(asked: int, shed: int, rollout: int) -> int:
    """Give the word of P1 to P3 that is in force; ``rollout`` is a threshold."""
    threshold = max(asked >> 8, shed >> 8, min(rollout, _SCALE - 1))
    return threshold << 8 | asked & shed & at.TIER_ON


def _rule(number: float, otherwise: float, least: float = 0.0) -> float:
    return number if number >= least else otherwise  # NaN too
