"""Which probe a span's name and kind belong to: bounded in number, each with its tier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_trading._backend import core
from otel_trading.probes import P0, P1, P3

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from otel_trading._backend import Probe

MOST_OF_SCOPE = 1_000
"""Probes that one instrumentation scope's spans may make."""
MOST = 2_000
"""Probes that all spans of the API may make."""
OTHER = "other"
"""The name of the probe of all names past that."""

# One registry a process, as the segment's table is: providers come and go, their scopes' probes stay.
_probes: dict[tuple[str, str, int, int], Probe] = {}
_others: dict[tuple[str, int, int], Probe] = {}
_counts: dict[str, int] = {}


def tier_number(value: Any) -> int | None:
    """Read a tier: 0 to 3, or text such as "P0"; None for anything else."""
    if isinstance(value, str):
        text = value.strip().upper().removeprefix("P")
        return int(text) if text in ("0", "1", "2", "3") else None
    if isinstance(value, int) and not isinstance(value, bool) and P0 <= value <= P3:
        return int(value)
    return None


def make_probe(scope: str, name: str, kind: int, tier: Any) -> Probe:
    """Return the probe of a span's name and kind; ``tier`` is its attribute ``trading.tier``, or None.

    Without that the tier is by the rules of the configuration's ``tiers``, else P1.  A scope's first 1,000 probes,
    and a process' first 2,000, have names; the others share one, "other", for each kind and tier.
    """
    name = name if isinstance(name, str) else str(name)
    number = tier_number(tier)
    if number is None:
        number = tier_by_rule(name)
    key = (scope, name, kind, number)
    found = _probes.get(key)
    if found is not None:
        return found
    if _counts.get(scope, 0) >= MOST_OF_SCOPE or len(_probes) >= MOST:
        other = (scope, kind, number)
        found = _others.get(other)
        if found is None:
            found = _others[other] = core.Probe(OTHER, number, 0, False, kind, scope)
        return found
    # Two threads may come here with one name: the later finds the earlier's, and its own is forgotten unused.
    found = _probes.setdefault(key, core.Probe(name, number, 0, False, kind, scope))
    _counts[scope] = _counts.get(scope, 0) + 1
    return found


class _Rules:
    """The tiers' rules of the settings that are in force."""

    settings: object = None
    match: Callable[[str], int | None] | None = None  # set as a staticmethod: a class attribute would bind


def tier_by_rule(name: str) -> int:
    """Return the tier of a span's name by the rules of the configuration's ``tiers``, else P1."""
    from otel_trading import lifecycle

    settings = lifecycle.settings()
    if settings is None:
        return P1
    if _Rules.settings is not settings:
        from otel_trading.config.tiers import matcher

        _Rules.match = staticmethod(matcher(settings.tiers)) if settings.tiers else None
        _Rules.settings = settings
    match = _Rules.match
    number = None if match is None else match(name)
    return P1 if number is None else number
