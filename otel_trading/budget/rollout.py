"""Rollout: from recording a tenth of the traces to recording all, step by step, and back where the application suffers.

P0 is recorded at every share, so the application's p99 can be compared from step to step by the very spans that do
not change with it.  This module decides; whoever has the control page (the ``otel-trading rollout`` command, or the
process itself where ``rollout.schedule`` is set) puts the share in force.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import NamedTuple

from otel_trading.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from otel_trading._native import HistogramState

WINDOW = 60.0
"""Seconds over which a p99 is measured."""

LEAST = 200
"""Spans that a p99 needs: two lie above it then."""

WORSE = 1.2
"""The p99 may be so many times that of the step before."""

CAREFUL = 0.1
"""The share that a rollback goes to first."""

P0_ONLY = 0.0
"""The share at which nothing of P1 to P3 is recorded."""

TAKEN_OVER = 1e-10
"""A share that differs by half of this or more from the one that was set says that somebody else steers now."""

_STEP = re.compile(r"(\d+(?:\.\d+)?)\s*%(?:\s+(\d+(?:\.\d+)?)\s*(s|m|h))?", re.ASCII)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MOST_STEPS = 100
_PIECE = 5.0  # seconds
_NOTHING = 1e-6  # a share that is shown as 0 %


class Step(NamedTuple):
    """One step of a schedule."""

    share: float
    """Of the traces of P1 to P3 that are recorded, 0 to 1."""
    seconds: float
    """How long at least; 0: one window."""

    def __str__(self) -> str:
        return f"{percent(self.share)} {length(self.seconds)}" if self.seconds else percent(self.share)


class Figure(NamedTuple):
    """The application's latency over a window."""

    p99: float
    """Seconds."""
    spans: int
    """So many it comes from."""


class Change(NamedTuple):
    """What a rollout has done, and the figures that led to it."""

    what: str
    """``start``, ``step``, ``worse``, ``still_worse``, ``done``, or ``stopped``."""
    before: float
    """Share before …"""
    after: float
    """… and from now on."""
    p99: float
    """Seconds; NaN where nothing was measured."""
    limit: float
    """What it is held to, seconds; NaN where there is nothing to compare with."""

    def __str__(self) -> str:
        return _told(self)


def parse(schedule: str | Iterable[str]) -> tuple[Step, ...]:
    """Read a schedule: "10% 10m,25% 10m,100%", or its steps one by one; units are s, m and h.

    Raises ConfigurationError for what is no step, shares that do not rise, and more than 100 steps.
    """
    texts = schedule.split(",") if isinstance(schedule, str) else list(schedule)
    steps = tuple(map(_step, texts))
    if not steps or len(steps) > _MOST_STEPS:
        raise ConfigurationError(f"a rollout has 1 to {_MOST_STEPS} steps, this one {len(steps)}: write '10% 10m,100%'")
    for one, following in pairwise(steps):
        if following.share <= one.share:
            raise ConfigurationError(f"the rollout's step '{following}' follows '{one}': shares have to rise")
    return steps


def _step(text: str) -> Step:
    found = _STEP.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ConfigurationError(f"{text!r:.60} is no step of a rollout: write a share and a time, as in '10% 10m'")
    return Step(share_of(found[1]), float(found[2] or 0.0) * _UNITS[found[3] or "s"])


def share_of(text: str) -> float:
    """Read a share in percent, with or without its sign: "50%", "0.5".  Raises ConfigurationError."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 100.0:  # noqa: PLR2004  percent; refuses NaN too
        raise ConfigurationError(f"{text!r:.60} is no share: write a percentage from 0% to 100%")
    return value / 100.0


def percent(share: float) -> str:
    """Write a share."""
    return "0%" if share < _NOTHING else f"{share * 100:.4g}%"


def taken_over(found: float, put: float) -> bool:
    """Tell whether the share that is ``found`` in a control page is not the one that was ``put`` there."""
    return abs(found - put) >= TAKEN_OVER / 2


def nudged(share: float) -> float:
    """Give a share that is as good as this one, and tells whoever put it there that somebody else steers now."""
    return share - TAKEN_OVER if share > TAKEN_OVER else share + TAKEN_OVER


def behind(share: float) -> float:
    """Give the share that a rollback goes to from this one."""
    return CAREFUL if share > CAREFUL else P0_ONLY


def length(seconds: float) -> str:
    """Write a step's time as it is read."""
    for unit in ("h", "m"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0.0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


class Rollout:
    """A schedule under way.  It has no clock and no thread: ``step`` is called, and says which share is to be in force.

    It begins with P0 only, for one window: what is measured then is what the first step is compared with.  A step ends
    when its time is over and its last window is not worse than the step before by more than ``worse``; without enough
    spans it waits.  Where a window is worse, the share falls back to a tenth; where that is still worse than the step
    that was well, to P0 only.  Then it is over.
    """

    def __init__(
        self,
        schedule: Iterable[Step],
        measure: Callable[[float], Figure | None],
        *,
        worse: float = WORSE,
        window: float = WINDOW,
        least: int = LEAST,
        share: float = 1.0,
    ) -> None:
        """Take the steps, and ``measure(seconds)``, which gives the application's figure over that many last seconds.

        ``share`` is what is in force now.  Raises ConfigurationError for limits that make no sense.
        """
        self.steps = (Step(P0_ONLY, 0.0), *schedule)
        if not 1.0 <= worse < math.inf or not 0.0 < window < math.inf or least < 1:
            raise ConfigurationError("a rollout needs rollout.worse of 1 or more, and a window and a count above 0")
        self.share = share
        self.position = -1  # of self.steps; -1: it has not begun
        self.due = -math.inf
        """The time before which ``step`` has nothing to do, by the clock that it is given; infinite: it is over."""
        self.p99 = self.before = math.nan  # of the newest window, and of the step that was well
        self._measure = measure
        self._worse = worse
        self._window = window
        self._least = least
        self._began = 0.0
        self.rolled_back = False
        """Whether a p99 was worse than it may be."""
        self._changes: list[Change] = []

    @property
    def over(self) -> bool:
        """Whether it has come to its end, whichever."""
        return self.due == math.inf

    def step(self, now: float) -> float | None:
        """Look at ``now``, in seconds of any steady clock; gives the share to put in force, None: leave it."""
        if now < self.due:
            return None
        if self.position < 0:
            self.position = 0
            return self._go(now, self.steps[0].share, "start")
        self.due = now + self._window
        figure = self._measure(self._window)
        if figure is None or figure.spans < self._least or math.isnan(figure.p99):
            return None  # no data, no step
        self.p99 = figure.p99
        if figure.p99 > self._worse * self.before:  # false as long as there is nothing to compare with
            return self._fall_back(now)
        if self.rolled_back:
            self._end("done")
        elif now - self._began >= self.steps[self.position].seconds:
            return self._next(now)
        return None

    def _next(self, now: float) -> float | None:
        self.before = self.p99
        if self.position + 1 == len(self.steps):
            self._end("done")
            return None
        self.position += 1
        return self._go(now, self.steps[self.position].share, "step")

    def stop(self) -> None:
        """End it; the share stays as it is."""
        if not self.over:
            self._end("stopped")

    def take(self) -> list[Change]:
        """Give what has happened since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def _fall_back(self, now: float) -> float | None:
        what = "still_worse" if self.rolled_back else "worse"
        careful = self.share > CAREFUL and not self.rolled_back
        self.rolled_back = True
        if self.share <= P0_ONLY:  # there is nothing left to give up
            self._end(what)
            return None
        changed = self._go(now, CAREFUL if careful else P0_ONLY, what)
        if not careful:
            self.due = math.inf
        return changed

    def _go(self, now: float, share: float, what: str) -> float:
        self._note(what, share)
        self.share, self._began = share, now
        self.due = now + self._window
        return share

    def _end(self, what: str) -> None:
        self._note(what, self.share)
        self.due = math.inf

    def _note(self, what: str, after: float) -> None:
        self._changes.append(Change(what, self.share, after, self.p99, self._worse * self.before))


def _told(change: Change) -> str:
    shares = f"{percent(change.before)} -> {percent(change.after)}"
    measured = "" if math.isnan(change.p99) else f"p99 {change.p99 * 1e6:,.1f} us"
    if not math.isnan(change.limit):
        measured += f", at most {change.limit * 1e6:,.1f} us"
    measured = f" ({measured})" if measured else ""
    return {
        "start": f"rollout begins: {shares}, P0 only for a window, to compare with",
        "step": f"rollout, next step: {shares}{measured}",
        "worse": f"rollback: {shares}; the application's p99 has worsened{measured}",
        "still_worse": f"rollback: {shares}; the application's p99 is still worse{measured}",
        "done": f"rollout ends at {percent(change.after)}{measured}",
        "stopped": f"rollout stopped at {percent(change.after)}: somebody else steers, or asked for it",
    }[change.what]


# ---- in the process itself -------------------------------------------------------------------------


def of_settings(values: Mapping[str, Any]) -> Rollout | None:
    """Give the rollout that the configuration asks for (``rollout.*``), measured in this process; None for none.

    Raises ConfigurationError for a schedule that is none.
    """
    schedule = values.get("rollout.schedule")
    if not schedule:
        return None
    probe = values.get("rollout.probe") or None
    worse = float(values.get("rollout.worse") or WORSE)
    # The last minute of a snapshot is made of pieces of 5 s, and none of them may be of the step before.
    return Rollout(parse(schedule), lambda _: own_figure(probe), worse=worse, window=WINDOW + _PIECE)


def own_figure(probe: str | None = None) -> Figure | None:
    """Give the last minute of this process's probe; by default of the P0 probe with most spans then.

    Takes a snapshot: milliseconds, once a window.
    """
    from otel_trading._backend import core

    return figure_of(core.snapshot()["probes"], probe)


def figure_of(probes: Iterable[Mapping[str, Any]], name: str | None) -> Figure | None:
    """Give the last minute of a probe in a snapshot's list; None where there is no such probe."""
    from otel_trading.drain.histogram import ExponentialHistogram

    chosen: list[HistogramState] = [
        probe["windows"]["1m"]
        for probe in probes
        if (probe["name"] == name if name else is_application(probe["name"], probe["tier"]))
    ]
    if not chosen:
        return None
    busiest = max(chosen, key=lambda state: state[1])
    return Figure(ExponentialHistogram.from_state(busiest).quantile(0.99), busiest[1])


def is_application(name: str, tier: int) -> bool:
    """Tell whether a probe may be the one whose p99 counts where none is named: P0, and not monitoring's own."""
    return tier == 0 and not name.startswith("monitoring.")


def announce(change: Change) -> None:
    """Tell of a change in this process: a log record of ``otel_trading.budget``, and a span with its figures."""
    import logging

    from otel_trading import probes

    bad = change.what in ("worse", "still_worse")
    with probes.probe("monitoring.rollout", probes.P0).span(**{"trading.rollout.what": change.what}) as span:
        figures = {
            "trading.rollout.before": change.before,
            "trading.rollout.after": change.after,
            "trading.rollout.latency": change.p99,
            "trading.rollout.limit": change.limit,
        }
        span.add_event("monitoring.rollout", {key: value for key, value in figures.items() if not math.isnan(value)})
    logging.getLogger("otel_trading.budget").log(logging.WARNING if bad else logging.INFO, "%s", change)
