"""The score of what a program under pressure did: 100 points, by the formula in docs/impact.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otel_trading.budget.modes import BUDGETS, MODES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODE_POINTS, SPEED_POINTS, RECOVERY_POINTS, ACCOUNTS_POINTS = 40.0, 30.0, 20.0, 10.0
_SLOW = 20.0
"""Times the limit: from there on speed has no points."""


class Score(NamedTuple):
    """Points."""

    mode: float
    speed: float
    recovery: float
    accounts: float

    @property
    def total(self) -> float:
        """Of 100."""
        return sum(self)


def severity(mode: str) -> int:
    """Modes in the order of what they take away."""
    return MODES.index(mode) if mode in MODES else -1


def as_expected(expected: Sequence[str], changes: Sequence[str], mode: str) -> bool:
    """Tell whether an expected mode was reached; where NORMAL is expected, whether it was never left."""
    if "NORMAL" in expected:
        return mode == "NORMAL" and not changes
    return any(change in expected for change in changes) and mode in expected


def score(
    *,
    expected: bool,
    adapt_s: float | None,
    limit_s: float,
    within: float,
    recovered: bool,
    lost: int,
) -> Score:
    """Give the points.

    ``expected``: the expected mode was reached, or kept; ``adapt_s``: seconds until then, None where no other mode is
    expected: then the points of speed go by ``within``, the share of the mode's limits that monitoring kept.
    """
    if limit_s == 0.0:
        speed = within
    elif adapt_s is None:
        speed = 0.0
    else:
        speed = max(0.0, min(1.0, (_SLOW - max(0.0, adapt_s) / limit_s) / (_SLOW - 1.0)))
    return Score(
        MODE_POINTS * expected,
        SPEED_POINTS * speed,
        RECOVERY_POINTS * recovered,
        ACCOUNTS_POINTS * (lost == 0),
    )


def within_limits(usage: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """The share of the limits that are kept; both by ``modes.BUDGETS``."""
    return sum(usage[name] <= limits[name] for name in BUDGETS) / len(BUDGETS)
