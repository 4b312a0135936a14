"""The engine: which mode the pressure and the market ask for.

A heavier mode is entered at once.  A milder one follows when the readings have been below what would hold the present
one, by the policy's margin, for its dwell without a break, and the mode has lasted so long; one rung at a time.  While
somebody forces a mode the engine goes on, so that it knows where to be when that is over.
"""

from __future__ import annotations

import time
from math import inf, isnan, nan

from otel_trading import _layout as at
from otel_trading._pure.decisions import Decision
from otel_trading._pure.mapped import CONTROL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.rules import Policy

_FORCED = (CONTROL + at.OFF_CONTROL_FORCED) // 8
_MODE = (CONTROL + at.OFF_CONTROL_MODE) // 8
_SINCE = (CONTROL + at.OFF_CONTROL_MODE_SINCE_NS) // 8
_REASON = (CONTROL + at.OFF_CONTROL_MODE_REASON) // 8
_OWN = (at.REASON_CPU, at.REASON_MEMORY, at.REASON_MARKET)  # of what the engine can not do without


class Figures:
    """What a tick goes by; NaN is what can not be told."""

    __slots__ = (
        "cpu_load",
        "cpu_stall",
        "memory_load",
        "memory_stall",
        "now",
        "usage",
        "volatility",
        "volume",
    )

    def __init__(self, now: float) -> None:
        self.now = now  # seconds, monotonic
        self.cpu_load = self.memory_load = nan
        self.cpu_stall = self.memory_stall = nan
        self.volatility, self.volume = 0.0, 1.0
        self.usage = [0.0] * at.BUDGETS

    def of(self, reason: int) -> float:
        """Give the figure that a reason is about."""
        if reason == at.REASON_CPU:
            return self.cpu_load
        if reason == at.REASON_MEMORY:
            return self.memory_load
        if reason == at.REASON_MARKET:
            return self.volatility
        if reason == at.REASON_LATENCY:
            return self.usage[at.BUDGET_LATENCY]
        return 0.0

    def sources(self) -> dict[int, float]:
        """Give by REASON_* what has to be told."""
        market = self.volatility if isnan(self.volatility) else self.volume
        told = {at.REASON_CPU: self.cpu_load, at.REASON_MEMORY: self.memory_load, at.REASON_MARKET: market}
        return told | {at.REASON_BUDGET_CPU + budget: usage for budget, usage in enumerate(self.usage)}


class _Cause:
    """A mode, and what led to it."""

    __slots__ = ("figure", "limit", "mode", "reason")

    def __init__(self, mode: int, reason: int, figure: float = 0.0, limit: float = 0.0) -> None:
        self.mode = mode
        self.reason = reason
        self.figure = figure
        self.limit = limit


class Engine:
    """One a segment."""

    def __init__(self) -> None:
        self.in_force = at.MODE_NORMAL
        self._mode = at.MODE_NORMAL  # its own
        self._reason = at.REASON_NONE  # of it; on the way down, what led up
        self._limit = 0.0  # likewise
        self._forced = False  # as of the last tick
        self._entered = inf  # when its own mode was
        self._held = inf  # when the readings last asked for it, or could not be told
        self._failing: set[int] = set()

    def resume(self, file: SegmentFile) -> None:
        """Go on with the mode that another governor has left in force."""
        words = file.words
        self.in_force = words[_MODE] if words[_MODE] < at.MODES else at.MODE_NORMAL
        self._forced = 1 <= words[_FORCED] <= at.MODES
        if not self._forced and self.in_force != at.MODE_NORMAL:
            self._mode, self._reason = self.in_force, words[_REASON]

    @property
    def failing(self) -> bool:
        """Whether something can not be told that has to be."""
        return bool(self._failing)

    def tick(self, file: SegmentFile, figures: Figures, policy: Policy) -> list[Decision]:
        """Put the mode into the control page that is due; gives the decisions."""
        now = figures.now
        if now < self._held:  # the first tick, or another clock
            self._entered = self._held = now
        made = self._look_for_failures(figures)
        wanted = _asked(figures, policy, 0.0)
        held = _asked(figures, policy, policy.margin).mode
        told = _Cause(self._mode, self._reason, figures.of(self._reason), self._limit)
        if wanted.mode > self._mode:
            told = wanted
            self._enter(wanted, now)
        elif self._failing.intersection(_OWN) or held >= self._mode:
            self._held = now
        elif now - self._held >= policy.dwell and now - self._entered >= policy.dwell:
            told = _Cause(self._milder(held), at.REASON_RECOVERED, told.figure, told.limit)
            led = self._reason
            self._enter(told, now)
            self._reason = led  # its figures are those of the next rung down too
        if self._forced and not file.words[_FORCED] and self._mode < self.in_force:
            told.reason = at.REASON_RECOVERED
        return made + self._put_in_force(file, told)

    def emergency(self, file: SegmentFile, figures: Figures, policy: Policy) -> list[Decision]:
        """Enter EMERGENCY for a dwell at least: an operation costs more than it may."""
        limit = policy.limits(self.in_force)[at.BUDGET_LATENCY]
        cause = _Cause(at.MODE_EMERGENCY, at.REASON_LATENCY, figures.usage[at.BUDGET_LATENCY], limit)
        self._enter(cause, figures.now)
        return self._put_in_force(file, cause)

    def may_reach_emergency(self, file: SegmentFile) -> bool:
        """Tell whether something is still to be gained by that."""
        return self.in_force != at.MODE_EMERGENCY and not 1 <= file.words[_FORCED] <= at.MODES

    def rest(self, file: SegmentFile) -> None:
        """Put the mode into the page that holds where nothing is governed: NORMAL, unless somebody forces another."""
        forced = file.words[_FORCED]
        self.in_force = forced - 1 if 1 <= forced <= at.MODES else at.MODE_NORMAL
        file.words[_MODE] = self.in_force

    def _look_for_failures(self, figures: Figures) -> list[Decision]:
        """Say once what can not be told, and once that it can be told again."""
        told = figures.sources()
        before, self._failing = self._failing, {source for source, value in told.items() if isnan(value)}
        return [
            Decision(at.DECISION_FAILED, source, told[source], 0.0, 0.0, 1.0)
            if source in self._failing
            else Decision(at.DECISION_WORKS, source, told[source], 0.0, 1.0, 0.0)
            for source in sorted(self._failing ^ before)
        ]

    def _milder(self, held: int) -> int:
        if self._mode == at.MODE_EMERGENCY:
            return at.MODE_STRESSED
        if self._mode == at.MODE_STRESSED and held == at.MODE_HIGH_VOLATILITY:
            return held
        return at.MODE_NORMAL

    def _enter(self, cause: _Cause, now: float) -> None:
        self._mode, self._reason, self._limit = cause.mode, cause.reason, cause.limit
        self._entered = self._held = now

    def _put_in_force(self, file: SegmentFile, cause: _Cause) -> list[Decision]:
        words = file.words
        forced = words[_FORCED]
        now_forced = 1 <= forced <= at.MODES
        if now_forced:
            cause = _Cause(forced - 1, at.REASON_FORCED)
        before, self.in_force = self.in_force, cause.mode
        was_forced, self._forced = self._forced, now_forced
        if cause.mode == before:
            if words[_MODE] != before or now_forced != was_forced:  # somebody else's stores, or a released force
                words[_MODE] = before
                words[_REASON] = at.REASON_FORCED if now_forced else self._reason
            return []
        words[_MODE] = cause.mode
        words[_SINCE] = time.time_ns()
        words[_REASON] = cause.reason
        return [Decision(at.DECISION_MODE, cause.reason, cause.figure, cause.limit, before, cause.mode)]


def _asked(figures: Figures, policy: Policy, margin: float) -> _Cause:
    """Tell the mode that the readings ask for, and why, with all thresholds less a margin; NaN asks for nothing."""
    for mode in (at.MODE_EMERGENCY, at.MODE_STRESSED):
        for reason in (at.REASON_CPU, at.REASON_MEMORY):
            limit = policy.load_limit(reason, mode)
            if figures.of(reason) > limit - margin:
                return _Cause(mode, reason, figures.of(reason), limit)
    share = 1.0 - margin
    if figures.volatility > policy.volatility * share and figures.volume > policy.volume * share:
        return _Cause(at.MODE_HIGH_VOLATILITY, at.REASON_MARKET, figures.volatility, policy.volatility)
    return _Cause(at.MODE_NORMAL, at.REASON_NONE)
