"""The thread that tells of the governor's decisions, and does what only Python can do for it.

It blocks in C without the interpreter's lock until there is something to do: a decision, rings that are to get another
size, a user's market function that is due, a step of a rollout.  So a program whose budget is kept does not notice it.
"""

from __future__ import annotations

import contextvars
import sys
import time
from math import nan

from otel_trading import _layout as at
from otel_trading import market, probes
from otel_trading._backend import core
from otel_trading._real_threads import real_threading
from otel_trading.budget.decisions import Decision, decision_of, level_of, raise_alert, sentence
from otel_trading.faults import report
from otel_trading.segment.control import Control
from otel_trading.segment.pages import Page

threading = real_threading()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading._backend import Counter, Probe
    from otel_trading.budget.rollout import Rollout
    from otel_trading.config import Settings

_ANY = 1 << 63  # more decisions than there can be
_LONGEST = 60.0  # seconds between two looks, where nothing happens
_MARKET_PERIOD = 0.1  # seconds between two calls of the user's market function
_AFTER_TROUBLE = 0.1  # seconds
_STEP = 0.02  # seconds between two attempts to wake the thread at its end
_WORDS = at.SIZE_DECISION // 8

_CRITICAL = 50  # as in the module logging, which may not be loaded

_counters: dict[tuple[str, str], Counter] = {}


def decision_probe() -> Probe:
    """Give the probe of the spans that tell of decisions."""
    return probes.probe("monitoring.decision", probes.P0)


def decision_counter(kind: str, reason: str) -> Counter:
    """Give the counter of the decisions of one kind and reason."""
    found = _counters.get((kind, reason))
    if found is None:
        attributes = f'{{"trading.monitoring.kind":"{kind}","trading.monitoring.reason":"{reason}"}}'
        found = core.Counter(
            "trading.monitoring.decisions", probes.P0, "{decision}", "Decisions of the budget's governor.", attributes
        )
        _counters[kind, reason] = found
    return found


class Herald:
    """The thread of one segment, from ``start`` to ``stop``.  Nothing that goes wrong in it ends it before."""

    def __init__(self, path: str, settings: Settings) -> None:
        """Map what is looked at; what was decided before is not told again.  Raises SegmentError."""
        self._told = core.await_decision(_ANY, 0.0)
        self._control = Control(path)
        self._decisions = Page(path, "decisions", at.OFF_HEADER_DECISIONS_OFFSET, at.SIZE_DECISION * at.DECISIONS)
        self._rollout = _rollout_of(settings)
        self._rollout_share = 1.0
        self._market_due = 0.0
        self._market_told = False
        self._stopping = False
        self._attending = 0  # how often it has looked at what there is to do
        self._trouble = False
        self._thread = threading.Thread(target=self._run, name="otel-trading-budget", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def attend(self, timeout: float = 0.2) -> None:
        """Have the thread look at what there is to do now; waits a moment until it does."""
        before, deadline = self._attending, time.monotonic() + timeout
        # A wake ends the wait that is going on, and there may be none at this moment.
        while self._attending < before + 2 and self._alive() and time.monotonic() < deadline:
            core.wake()
            time.sleep(0.001)

    def stop(self, deadline: float) -> bool:
        """End the thread; False where ``deadline`` (of ``time.monotonic``) came first."""
        self._stopping = True
        while self._alive():
            left = deadline - time.monotonic()
            if left <= 0.0:
                return False
            core.wake()
            self._thread.join(min(left, _STEP))
        return True

    def _alive(self) -> bool:
        return bool(self._thread.is_alive() and self._thread is not threading.current_thread())

    # ---- in the thread ----

    def _run(self) -> None:
        self._guarded("thread", core.count_thread, True)
        told = self._told
        while not self._stopping:
            self._trouble = False
            number = self._await(told)
            if number > told:
                self._guarded("decisions", self._tell, told, number)
                told = number
            if not self._stopping:
                self._guarded("buffers", self._fit_buffers)
                self._guarded("market", self._ask_market)
                self._guarded("rollout", self._step_rollout)
            self._attending += 1
            if self._trouble and not self._stopping:
                time.sleep(_AFTER_TROUBLE)
        self._guarded("thread", core.count_thread, False)
        self._decisions.close()
        self._control.close()

    def _guarded(self, what: str, step: Callable[..., object], *arguments: object) -> None:
        try:
            step(*arguments)
        except Exception as error:  # noqa: BLE001  a user's function, a handler of log records: anything
            self._trouble = True
            report(f"budget:{what}", f"the budget's {what}: {error!r}")

    def _await(self, told: int) -> int:
        try:
            return core.await_decision(told, self._longest_wait())
        except Exception as error:  # noqa: BLE001  whatever it is, this must not become a loop that never waits
            self._trouble = True
            report("budget:await", f"the budget's decisions can not be waited for: {error!r}")
            return told

    def _longest_wait(self) -> float:
        due = time.monotonic() + _LONGEST
        if market.condition_function() is not None or self._market_told:
            due = min(due, self._market_due)
        if self._rollout is not None:
            due = min(due, self._rollout.due)
        return max(due - time.monotonic(), 0.0)

    # ---- decisions ----

    def _tell(self, first: int, behind: int) -> None:
        for number in range(max(first, behind - at.DECISIONS), behind):
            place = number % at.DECISIONS * _WORDS
            decision = decision_of(number, self._decisions.words[place : place + _WORDS].tobytes())
            if decision is None or self._decisions.words[place] != 2 * number + 2:
                continue  # a newer one has its place
            # Each by itself: where a log handler raises, the span and the count are there all the same.
            self._guarded("counter", decision_counter(decision.kind_name, decision.reason_name).add, 1)
            self._guarded("span", contextvars.Context().run, _record, decision)
            self._guarded("log", _log, decision)
            if decision.kind == at.DECISION_ALERT:
                self._guarded("alert", _alert, decision)

    # ---- rings ----

    def _fit_buffers(self) -> None:
        if not self._control.buffers_fit:
            core.fit_buffers()
            self._trouble = self._trouble or not self._control.buffers_fit  # wait a moment before the next attempt

    # ---- the market ----

    def _ask_market(self) -> None:
        function = market.condition_function()
        if function is None:
            if self._market_told:
                self._market_told = False
                core.market_condition(nan, nan)
            return
        now = time.monotonic()
        if now < self._market_due:
            return
        self._market_due = now + _MARKET_PERIOD
        self._market_told = True
        try:
            volatility, volume = function()
            core.market_condition(float(volatility), float(volume))
        except Exception as error:  # noqa: BLE001  a user's function
            core.market_condition(nan, 0.0)  # can not be told
            report("budget:market", f"the market function {function!r:.200} failed: {error!r}")

    # ---- the rollout ----

    def _step_rollout(self) -> None:
        rollout = self._rollout
        if rollout is None:
            return
        from otel_trading.budget import rollout as rollouts

        if rollouts.taken_over(self._control.rollout, self._rollout_share):
            rollout.stop()
            self._rollout = None
        else:
            share = rollout.step(time.monotonic())
            if share is not None:
                self._control.rollout = self._rollout_share = share
            if rollout.over:
                self._rollout = None
        for change in rollout.take():
            self._guarded("rollout", rollouts.announce, change)


def _rollout_of(settings: Settings) -> Rollout | None:
    if not settings.values["rollout.schedule"]:
        return None
    from otel_trading.budget import rollout

    return rollout.of_settings(settings.values)


def _record(decision: Decision) -> None:
    """Record a decision as a span in a trace of its own, with an event that has the figures."""
    span = decision_probe().span(
        None,
        **{
            "trading.monitoring.kind": decision.kind_name,
            "trading.monitoring.reason": decision.reason_name,
            "trading.monitoring.mode": decision.mode_name,
        },
    )
    span.begin()
    figures = {
        "trading.monitoring.figure": decision.figure,
        "trading.monitoring.limit": decision.limit,
        "trading.monitoring.before": decision.before,
        "trading.monitoring.after": decision.after,
        "trading.monitoring.tier": f"P{decision.tier}",
        "trading.monitoring.message": sentence(decision),
    }
    if decision.kind != at.DECISION_RATE:
        del figures["trading.monitoring.tier"]
    span.add_event("monitoring.decision", figures)
    span.finish()


def _log(decision: Decision) -> None:
    level = level_of(decision)
    # A program that has not set logging up is not to be told of each step, but it is of an alert.
    if "logging" not in sys.modules and level < _CRITICAL:
        return
    import logging

    logger = logging.getLogger("otel_trading.budget")
    if level >= _CRITICAL or logger.hasHandlers():
        logger.log(level, "%s", sentence(decision))


def _alert(decision: Decision) -> None:
    from otel_trading.lifecycle import settings

    asked = settings()
    raise_alert(decision, asked.service if asked is not None else None)
