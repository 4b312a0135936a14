"""A governor that a test drives tick by tick, with a policy and a clock of its own, and stand-ins for readings."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.budget.policy import Policy
from otel_trading.budget.readings import Readings
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_trading.budget.decisions import Decision
    from otel_trading.budget.readings import Reading

CALM = {
    "cpu_load": 0.1,
    "memory_load": 0.1,
    "cpu": 0.0,
    "memory": 0.0,
    "latency": 0.0,
    "network": 0.0,
    "disk": 0.0,
}
"""Readings that ask for nothing."""

RULES: dict[str, float | Sequence[float]] = {
    "budget": [inf] * (at.BUDGETS * at.MODES),
    "enter": [0.70, 0.85, 0.80, 0.90],
    "margin": 0.05,
    "dwell": 2.0,
    "volatility": 0.8,
    "volume": 2.0,
    "period": 0.05,
    "window": 1.0,
    "recover": 5.0,
    "violations": 3.0,
    "hold": 5.0,
    "burst": 60.0,
    "limit": [inf] * at.TRIGGERS,
    "cost": [1e-7] * at.COSTS,
    "base_memory": 0.0,
    "exporter_memory": 0.0,
}
"""The default policy, but that there is no limit."""


class Governed:
    """A segment of this process whose policy is active, and whose ticks are the test's."""

    def __init__(self, path: Path, now: float = 1000.0, **rules: float | Sequence[float]) -> None:
        """Write the policy, changed by ``rules``, and have it in force; the clock begins at ``now``, in seconds."""
        self.now = now
        self.control = Control(path)
        self.policy = Policy(path)
        self.readings = Readings(path)
        self.policy.write({**RULES, **rules})
        self.policy.active = True

    def tick(self, after: float = 0.05, **readings: float) -> Reading:
        """Make one tick, so much later, with stand-ins for what is measured; gives what it wrote."""
        self.now += after
        core.govern({**CALM, "now": self.now, **readings})
        return self.readings.read()

    def run(self, seconds: float, **readings: float) -> Reading:
        """Make a tick each 50 ms for so long."""
        for _ in range(round(seconds / 0.05)):
            self.tick(**readings)
        return self.readings.read()

    def decisions(self, kind: int | None = None) -> list[Decision]:
        """Give the decisions so far, or those of one kind."""
        return [decision for decision in self.readings.decisions() if kind is None or decision.kind == kind]

    def close(self) -> None:
        """Let the segment go."""
        self.control.close()
        self.policy.close()
        self.readings.close()
