"""Readers of the keys of budget, engine, keep rules and rollout."""

from __future__ import annotations

from math import inf

from otel_trading.config.values import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

P0_STAYS = (
    "tier P0 is never switched off or thinned out; `enabled: false` switches the recorder itself off, and the tiers "
    "P1 to P3 give way by themselves (docs/budget.md)"
)
_MODES = ("auto", "normal", "high_volatility", "stressed", "emergency")
_NO_MODES = {"off", "none", "disabled", "false", "0"}


def mode(value: object) -> str:
    """Read a mode's name in any case, or "auto"."""
    name = value.strip().lower() if isinstance(value, str) else value
    if name is False or name in _NO_MODES:
        raise ValueError(f"{shown(value)} is no mode; {P0_STAYS}")
    if not isinstance(name, str) or name not in _MODES:
        raise ValueError(f"{shown(value)} is no mode: use {', '.join(_MODES[:-1])} or {_MODES[-1]}")
    return name


def number(least: float, most: float) -> Callable[[Any], float]:
    """Read a number from ``least`` to ``most``."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise ValueError(f"{shown(value)} is not a number from {least:g} to {most:g}")
        return float(value)

    return read


def amount(value: object) -> float:
    """Read a number of 0 or more, or "none"; gives infinity for that."""
    if isinstance(value, str) and value.strip().lower() in {"none", "unset"}:
        return inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < inf:
        raise ValueError(f"{shown(value)} is not a number of 0 or more, nor 'none'")
    return float(value)


def schedule(value: object) -> tuple[str, ...]:
    """Read the steps of a rollout: a list of "10% 10m", or text with commas between them."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"{shown(value)} is not a list of steps: write them as in '10% 10m'")
    steps = tuple(item.strip() for item in items if item.strip())
    if not steps:
        return ()
    from otel_trading.budget import rollout
    from otel_trading.errors import ConfigurationError

    try:
        rollout.parse(steps)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return steps
