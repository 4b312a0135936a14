"""Pressure of five kinds on an instrumented program whose engine decides: what it does about it, and how fast.

How each kind is applied, and what the score is made of, is in docs/impact.md.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_trading import backend
from otel_trading.bench import machine
from otel_trading.bench.children import BenchmarkError
from otel_trading.bench.paced import ORDERS, RATE, trading_cpu
from otel_trading.bench.receiving import receiver
from otel_trading.impact import applying, groups, scoring
from otel_trading.impact.blocks import REJECTED, environment
from otel_trading.impact.feed import CALM
from otel_trading.impact.subject import Subject
from otel_trading.impact.trials import DWELL_S, longest_s, run_trials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Step = Callable[[str, float], object]

MOST_ORDERS = 5_000
CPU_SHARE = 0.9
MEMORY_LEVEL = 0.9
LOSS, DELAY = 0.05, 0.1
MOVES = 0.1
"""Of the price, in a minute; one standard deviation."""
VOLUME = 3.0
GROUP_MB = 512
"""Memory of the control group in which memory is made short."""
_MINUTES_A_YEAR = 365.0 * 1440.0
_MARKET_CALM = 34.0  # seconds: so long the engine looks before it knows what volume is usual
_SLACK = 120.0


class Pressure(NamedTuple):
    """One kind of pressure.  Times are seconds."""

    name: str
    label: str
    expected: tuple[str, ...]
    """Modes that are right."""
    adapt: float
    """Within so long the mode should be there; 0: it should stay NORMAL."""
    calm: float
    """Before the pressure."""
    held: float
    """How long the pressure stays on."""


PRESSURES = (
    Pressure("high_cpu", f"CPU at {CPU_SHARE:g}", ("EMERGENCY",), 0.1, 3.0, 6.0),
    # At 0.9 the thresholds of both are near: STRESSED from 0.8 on, EMERGENCY above 0.9.
    Pressure("high_memory", f"memory at {MEMORY_LEVEL:g}", ("STRESSED", "EMERGENCY"), 0.1, 3.0, 6.0),
    Pressure("high_order_flow", f"{MOST_ORDERS:,} orders/s", ("NORMAL",), 0.0, 3.0, 10.0),
    Pressure(
        "market_volatility",
        f"prices move {MOVES:.0%} a minute, {VOLUME:g} times the volume",
        ("HIGH_VOLATILITY",),
        10.0,  # what is looked at are the last 10 s
        _MARKET_CALM,
        15.0,
    ),
    Pressure(
        "network_issues", f"{LOSS:.0%} of segments lost, {DELAY * 1000:g} ms each way", ("NORMAL",), 0.0, 3.0, 10.0
    ),
)
SLOW_TO_START = ("market_volatility",)
"""Left out of a quick run: the engine has to know the market for half a minute first."""


class Plan(NamedTuple):
    """What is run.  Times are seconds."""

    pressures: tuple[Pressure, ...]
    recovery: float
    """The longest that is waited for NORMAL."""
    trials: int
    memory_mb: float | None
    """The most that may be allocated; None: as much as the level takes."""
    rate: int = RATE
    orders: int = ORDERS
    seed: int = 11

    @property
    def expected_s(self) -> float:
        """About how long it takes."""
        return sum(map(self.length, self.pressures)) + 1.5 * self.trials

    def length(self, one: Pressure) -> float:
        """About how long one kind takes."""
        return one.calm + one.held + min(self.recovery, 6.0)


def plan(*, quick: bool, only: str | None = None, trials: int | None = None, memory_mb: float | None = None) -> Plan:
    """Choose the kinds of pressure.  Raises BenchmarkError where ``only`` names none."""
    known = {one.name: one for one in PRESSURES}
    if only is not None and only not in known:
        message = f"there is no pressure {only!r}: the kinds are {', '.join(known)}"
        raise BenchmarkError(message)
    chosen = [one for one in PRESSURES if only in {None, one.name}]
    if quick and only is None:
        chosen = [one for one in chosen if one.name not in SLOW_TO_START]
    if quick:
        chosen = [one if one.name in SLOW_TO_START else one._replace(calm=0.5, held=1.5) for one in chosen]
    return Plan(tuple(chosen), 12.0 if quick else 30.0, (1 if quick else 10) if trials is None else trials, memory_mb)


def options(what: Plan, endpoint: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the bot is started with."""
    return {
        "variant": "ours",
        "endpoint": endpoint,
        "cpu": trading_cpu(),
        "rate": what.rate,
        "orders": what.orders,
        "rejected": REJECTED,
        "seed": what.seed,
        "config": config,
    }


def run(what: Plan, progress: Step | None = None) -> dict[str, Any]:
    """Apply each kind of pressure to a fresh program, then measure the trials.

    Gives ``pressures``, a list of what came of each, with its score; ``score``, of all that were applied; ``trials``.
    Raises BenchmarkError where a process of ours fails.
    """
    results: list[dict[str, Any]] = []
    with receiver(trading_cpu()) as (endpoint, _):
        for one in what.pressures:
            if progress is not None:
                progress(one.label, what.length(one))
            results.append(_apply(what, one, endpoint))
        trials = None
        if what.trials:
            longest = longest_s(what.trials)
            bot = options(what, endpoint, {"engine.dwell": DWELL_S})
            with (
                applying.Cpu(CPU_SHARE, longest) as pressure,
                Subject(bot, environment(endpoint, "auto"), longest) as subject,
            ):
                trials = run_trials(subject, pressure, what.trials, progress)
                subject.end()
    applied = [result["score"] for result in results if result["applied"]]
    return {
        "machine": machine.describe(),
        "backend": backend,
        "plan": {**what._asdict(), "pressures": [one._asdict() for one in what.pressures]},
        "pressures": results,
        "score": sum(applied) / len(applied) if applied else None,
        "trials": trials,
    }


def passed(results: dict[str, Any]) -> bool:
    """Tell whether each pressure was applied, led to an expected mode, and was recovered from."""
    return all(one["applied"] and one["as_expected"] and one["recovered"] for one in results["pressures"])


def _make(what: Plan, one: Pressure, endpoint: str, seconds: float, group: Path | None) -> applying.Applied:
    if one.name == "high_cpu":
        return applying.Cpu(CPU_SHARE, seconds)
    if one.name == "high_memory":
        limit = None if what.memory_mb is None else int(what.memory_mb * 1e6)
        return applying.Memory(MEMORY_LEVEL, limit, seconds, group)
    if one.name == "network_issues":
        return applying.BadConnection(LOSS, DELAY, endpoint, seconds)
    if one.name == "high_order_flow":
        return applying.OtherLoad({"orders": MOST_ORDERS}, {"orders": what.orders})
    moving = {"volatility": MOVES * _MINUTES_A_YEAR**0.5, "volume": VOLUME}
    return applying.OtherLoad(moving, {"volatility": CALM, "volume": 1.0})


def _apply(what: Plan, one: Pressure, endpoint: str) -> dict[str, Any]:
    """One kind of pressure on a fresh program, from calm to calm."""
    seconds = one.calm + one.held + 2.0 * what.recovery + _SLACK
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(groups.limited(GROUP_MB)) if one.name == "high_memory" else None
        pressure = stack.enter_context(_make(what, one, endpoint, seconds, group))
        through = pressure.endpoint or endpoint
        subject = stack.enter_context(Subject(options(what, through), environment(through, "auto"), seconds, group))
        calm = subject.wait_for("NORMAL", what.recovery)
        time.sleep(one.calm)
        before = subject.report()
        first = subject.decisions
        begun = pressure.begin(subject)
        time.sleep(one.held)
        during, readings = subject.report(), subject.readings()
        limits = subject.limits(readings["mode"])
        there = subject.changes(first)
        released_ns = pressure.end(subject)
        recovered = subject.wait_for("NORMAL", what.recovery)
        changes = subject.changes(first)
        after = subject.report()
        subject.end()
    found = {
        "name": one.name,
        "label": one.label,
        "expected": list(one.expected),
        "applied": begun.reached,
        "pressure": begun.told,
        "calm": calm,
        "mode": readings["mode"],
        "changes": [[(at - begun.unix_ns) * 1e-9, mode] for at, mode in changes],
        "adapt_limit_s": one.adapt,
        "adapt_s": next(((at - begun.unix_ns) * 1e-9 for at, mode in there if mode in one.expected), None),
        "recovered": recovered,
        "recovery_s": next(
            ((at - released_ns) * 1e-9 for at, mode in reversed(changes) if mode == "NORMAL" and at > released_ns), None
        ),
        "before": before,
        "during": during,
        "after": after,
        "readings": readings,
        "limits": limits,
        "lost_spans": after["accounts"]["overwritten"] + after["accounts"]["refused"],
    }
    return {**found, **_judged(one, found, [mode for _, mode in there])}


def _judged(one: Pressure, found: dict[str, Any], modes: list[str]) -> dict[str, Any]:
    expected = scoring.as_expected(one.expected, modes, found["mode"])
    points = scoring.score(
        expected=expected,
        adapt_s=found["adapt_s"],
        limit_s=one.adapt,
        within=scoring.within_limits(found["readings"]["usage"], found["limits"]),
        recovered=found["recovered"],
        lost=found["lost_spans"],
    )
    return {"as_expected": expected, "points": points._asdict(), "score": points.total}
