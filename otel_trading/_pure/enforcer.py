"""The enforcer: what is given up where monitoring uses more than it may, and taken back when it no longer does."""

from __future__ import annotations

from math import inf, isnan, nan

from otel_trading import _layout as at
from otel_trading._pure import buffers
from otel_trading._pure.decisions import Decision
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.passes import drain
from otel_trading._pure.rules import mode_share, share_of, strictest, word_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.engine import Engine, Figures
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.rules import Policy

_LEAST_SHARE = 1 / 64  # of a tier's traces; below it the tier is off
_SHEDDABLE = (3, 2, 1)  # P0 never is
_WAITING = {at.BUDGET_NETWORK: 1, at.BUDGET_DISK: 2}  # bits of control.exports_wait
_HYSTERESIS = 5.0  # points of CPU load below which an instrument comes back
_WORD = CONTROL // 8 + at.OFF_CONTROL_TIER_WORD // 8
_ASKED = CONTROL // 8 + at.OFF_CONTROL_ASKED // 8
_SHED = CONTROL // 8 + at.OFF_CONTROL_SHED // 8
_ROLLOUT = CONTROL // 8 + at.OFF_CONTROL_ROLLOUT // 8
_GENERATION = CONTROL // 8 + at.OFF_CONTROL_GENERATION // 8
_EXPORTS_WAIT = CONTROL // 8 + at.OFF_CONTROL_EXPORTS_WAIT // 8
_VIOLATIONS = at.OFF_READINGS_VIOLATIONS // 8
_IN_A_ROW = at.OFF_READINGS_IN_A_ROW // 8
_CLOSE = 1e-9
_MOST_SHIFT = 32


class _Step:
    """What was as it was before a step, and what led to it."""

    __slots__ = ("budget", "buffers", "figure", "limit", "number", "only_p0", "shares")

    def __init__(self, budget: int, figure: float, limit: float) -> None:
        self.budget = budget
        self.figure = figure
        self.limit = limit
        self.shares: list[float] = []
        self.buffers = 0
        self.only_p0 = False
        self.number = 0

    def decision(self, kind: int, reason: int, before: float = 0.0, after: float = 0.0, tier: int = 0) -> Decision:
        return Decision(kind, reason, self.figure, self.limit, before, after, tier)


class Enforcer:
    """One a segment."""

    def __init__(self, file: SegmentFile, engine: Engine) -> None:
        """Begin with nothing given up."""
        self.violations = [0] * at.BUDGETS
        self.in_a_row = 0
        self.only_p0 = False
        self._file = file
        self._engine = engine
        self._shares = [1.0] * at.TIERS  # of a tier's traces, that the steps leave; P0's is 1
        self._rates: list[_Step] = []  # CPU, latency, P0 only; each gives back what the one before it had left
        self._sizes: list[_Step] = []  # memory, likewise
        self._number = 0  # of steps so far
        self._mode = engine.in_force
        self._helpless: set[int] = set()  # limits that are exceeded with nothing left to do; said so already
        self._judged = inf  # when usage was last looked at, or the mode changed
        self._violated = -inf  # when a violation was last counted
        self._changed = -inf  # when a step was last taken back
        self._exceeded = [-inf] * at.BUDGETS

    @property
    def steps(self) -> int:
        """How many are in force."""
        waits = self._file.words[_EXPORTS_WAIT]
        return len(self._rates) + len(self._sizes) + sum(bool(waits & bit) for bit in _WAITING.values())

    def resume(self) -> None:
        """Go on with what another governor has given up: what it shed comes back as one step, sizes as they went."""
        words, first = self._file.words, self._file.readings // 8
        self.violations = list(words[first + _VIOLATIONS : first + _VIOLATIONS + at.BUDGETS])
        self.in_a_row = words[first + _IN_A_ROW]
        before = self._as_it_is(_Step(at.BUDGET_CPU, nan, nan))
        for tier in _SHEDDABLE:
            left = mode_share(self._mode, tier)
            share = share_of(words[_SHED + tier]) / left if left > 0 else 1.0  # what a mode takes all of is not known
            if share < 1.0 - _CLOSE:
                self._shares[tier] = share
        if self._shares != before.shares:
            self._push(self._rates, before)
        for shift in range(0, min(buffers.asked(self._file), _MOST_SHIFT), buffers.STEP):
            step = _Step(at.BUDGET_MEMORY, nan, nan)
            step.shares, step.buffers = before.shares, shift
            self._push(self._sizes, step)

    def tick(self, figures: Figures, policy: Policy) -> list[Decision]:
        """Give up what has to be, or take it back; gives the decisions."""
        now = figures.now
        if now < self._judged:  # the first tick, or another clock
            self._mode = self._engine.in_force
            self._judged = now - policy.window
            self._violated = self._changed = now
            self._exceeded = [now - policy.recover] * at.BUDGETS
        if self._engine.in_force != self._mode:  # what was used so far was another mode's
            self._mode = self._engine.in_force
            self._judged = now
        if buffers.small.taken():
            step = self._now(at.BUDGET_MEMORY, figures, policy)
            step.buffers = max(0, step.buffers - buffers.STEP)
            self._push(self._sizes, step)
        made: list[Decision] = []
        if now - self._judged >= policy.window:
            self._judged = now
            made = self._judge(figures, policy)
        return made + self._recover(figures, policy)

    def _now(self, budget: int, figures: Figures, policy: Policy) -> _Step:
        step = _Step(budget, figures.usage[budget], policy.limits(self._mode)[budget])
        return self._as_it_is(step)

    def _as_it_is(self, step: _Step) -> _Step:
        step.shares = self._shares.copy()
        step.buffers = buffers.asked(self._file)
        step.only_p0 = self.only_p0
        return step

    def _push(self, steps: list[_Step], step: _Step) -> None:
        step.number = self._number
        self._number += 1
        steps.append(step)

    def _runs(self, tier: int) -> bool:
        on = self._file.words[_ASKED + tier] & at.TIER_ON
        return bool(on) and not self.only_p0 and self._shares[tier] * mode_share(self._mode, tier) > 0

    # ---- a window is over ----

    def _judge(self, figures: Figures, policy: Policy) -> list[Decision]:
        made: list[Decision] = []
        over: list[_Step] = []
        for budget in range(at.BUDGETS):
            step = self._now(budget, figures, policy)
            if isnan(step.figure):
                continue
            if not step.figure > step.limit:
                made += self._within(step)
                continue
            self._exceeded[budget] = figures.now
            self.violations[budget] += 1
            if self._may_help(budget):
                over.append(step)
            elif budget not in self._helpless:
                self._helpless.add(budget)
                made.append(step.decision(at.DECISION_VIOLATION, at.REASON_BUDGET_CPU + budget))
        if not over:
            self.in_a_row = 0
            return made
        self.in_a_row += 1
        self._violated = figures.now
        if self.in_a_row > policy.violations and not self.only_p0:
            self._push(self._rates, over[0])
            self.only_p0 = True
            borne = float(self.in_a_row)
            return [*made, Decision(at.DECISION_ALERT, at.REASON_VIOLATIONS, borne, policy.violations, 0.0, borne)]
        for step in over:
            made += self._take(self._as_it_is(step), figures, policy)
        return made

    def _within(self, step: _Step) -> list[Decision]:
        self._helpless.discard(step.budget)
        words, bit = self._file.words, _WAITING.get(step.budget, 0)
        if not words[_EXPORTS_WAIT] & bit:
            return []
        words[_EXPORTS_WAIT] = words[_EXPORTS_WAIT] & ~bit
        return [step.decision(at.DECISION_EXPORTS, at.REASON_RECOVERED, 1.0, 0.0)]

    def _may_help(self, budget: int) -> bool:
        """Tell whether the step for it could still help."""
        if budget == at.BUDGET_CPU:
            return any(map(self._runs, _SHEDDABLE))
        if budget == at.BUDGET_MEMORY:
            return buffers.possible(self._file, buffers.asked(self._file) + buffers.STEP)
        if budget == at.BUDGET_LATENCY:
            return bool(self._sampled_too_much()) or self._engine.may_reach_emergency(self._file)
        return not self._file.words[_EXPORTS_WAIT] & _WAITING[budget]

    def _sampled_too_much(self) -> list[int]:
        return [tier for tier in _SHEDDABLE if not self.only_p0 and self._shares[tier] > _LEAST_SHARE]

    # ---- steps ----

    def _take(self, step: _Step, figures: Figures, policy: Policy) -> list[Decision]:
        if step.budget == at.BUDGET_CPU:
            return self._halve_lowest(step)
        if step.budget == at.BUDGET_MEMORY:
            return self._shrink(step)
        if step.budget == at.BUDGET_LATENCY:
            return self._stop_sampling(step, figures, policy)
        words = self._file.words
        words[_EXPORTS_WAIT] = words[_EXPORTS_WAIT] | _WAITING[step.budget]
        return [step.decision(at.DECISION_EXPORTS, at.REASON_BUDGET_CPU + step.budget, 0.0, 1.0)]

    def _halve_lowest(self, step: _Step) -> list[Decision]:
        for tier in filter(self._runs, _SHEDDABLE):
            before = self._shares[tier]
            after = self._shares[tier] = before / 2 if before / 2 >= _LEAST_SHARE else 0.0
            self._push(self._rates, step)
            return [step.decision(at.DECISION_RATE, at.REASON_BUDGET_CPU, before, after, tier)]
        return []

    def _shrink(self, step: _Step) -> list[Decision]:
        more = step.buffers + buffers.STEP
        if not buffers.possible(self._file, more):
            return []
        self._push(self._sizes, step)
        buffers.ask(self._file, more)
        return [step.decision(at.DECISION_BUFFERS, at.REASON_BUDGET_MEMORY, 0.5**step.buffers, 0.5**more)]

    def _stop_sampling(self, step: _Step, figures: Figures, policy: Policy) -> list[Decision]:
        made = []
        for tier in self._sampled_too_much():
            before, self._shares[tier] = self._shares[tier], _LEAST_SHARE
            made.append(step.decision(at.DECISION_RATE, at.REASON_BUDGET_LATENCY, before, _LEAST_SHARE, tier))
        if made:
            self._push(self._rates, step)
        if made or self._engine.may_reach_emergency(self._file):
            made += self._engine.emergency(self._file, figures, policy)
            self._mode = self._engine.in_force
        return made

    # ---- recovery ----

    def _recover(self, figures: Figures, policy: Policy) -> list[Decision]:
        """Take the newest step back that may be."""
        if figures.now - max(self._violated, self._changed) < policy.recover:
            return []
        tops = [steps for steps in (self._rates, self._sizes) if steps and self._may_return(steps, figures, policy)]
        if not tops:
            return []
        steps = max(tops, key=lambda steps: steps[-1].number)
        self._changed = figures.now
        step = steps.pop()
        step.figure = figures.usage[step.budget]
        step.limit = policy.limits(self._mode)[step.budget]
        if steps is self._rates:
            return self._give_back_rates(step)
        shift = buffers.asked(self._file)
        buffers.ask(self._file, step.buffers)
        return [step.decision(at.DECISION_BUFFERS, at.REASON_RECOVERED, 0.5**shift, 0.5**step.buffers)]

    def _may_return(self, steps: list[_Step], figures: Figures, policy: Policy) -> bool:
        """Tell whether the newest step of its kind may be taken back, as far as its own limit goes."""
        step = steps[-1]
        if figures.now - self._exceeded[step.budget] < policy.recover:
            return False
        if steps is self._rates:
            return True
        shift = buffers.asked(self._file)
        more = buffers.ring_bytes(self._file, step.buffers) - buffers.ring_bytes(self._file, shift)
        used = figures.usage[at.BUDGET_MEMORY]
        return (0.0 if isnan(used) else used) + more <= policy.limits(self._mode)[at.BUDGET_MEMORY]

    def _give_back_rates(self, step: _Step) -> list[Decision]:
        made = []
        for tier in _SHEDDABLE:
            before = 0.0 if self.only_p0 else self._shares[tier]
            after = 0.0 if step.only_p0 else step.shares[tier]
            self._shares[tier] = step.shares[tier]
            if before != after:
                made.append(step.decision(at.DECISION_RATE, at.REASON_RECOVERED, before, after, tier))
        self.only_p0 = step.only_p0
        return made

    # ---- what is in force ----

    def put_words(self) -> None:
        """Write what mode, steps, people and rollout leave of each tier."""
        words, mode, changed = self._file.words, self._engine.in_force, False
        for tier in range(at.TIERS):
            left = 0.0 if self.only_p0 and tier else self._shares[tier] * mode_share(mode, tier)
            shed = word_of(left)
            word = strictest(words[_ASKED + tier], shed, words[_ROLLOUT]) if tier else at.TIER_ON
            if words[_SHED + tier] != shed or words[_WORD + tier] != word:
                words[_SHED + tier] = shed
                words[_WORD + tier] = word
                changed = True
        if changed:
            words[_GENERATION] = (words[_GENERATION] + 1) % (1 << 64)

    def switch_instruments(self, cpu_load: float) -> None:
        """Switch instruments off and on that go by the CPU load; NaN leaves them as they are."""
        if isnan(cpu_load):
            return
        percent, memory = cpu_load * 100, self._file.map
        for number, instrument in enumerate(drain.tables.instruments):
            first = self._file.instruments + at.SIZE_INSTRUMENT * number
            off_cpu, place = memory[first + at.OFF_INSTRUMENT_OFF_CPU], first + at.OFF_INSTRUMENT_OFF
            if not off_cpu or not instrument.tier:
                continue
            if memory[place]:
                if percent < off_cpu - _HYSTERESIS:
                    memory[place] = 0
            elif percent >= off_cpu:
                memory[place] = 1

    def rest(self) -> None:
        """Give everything back but the words: nothing is governed any longer."""
        buffers.small.taken()
        buffers.ask(self._file, 0)
        self._file.words[_EXPORTS_WAIT] = 0
        for number in range(len(drain.tables.instruments)):
            self._file.map[self._file.instruments + at.SIZE_INSTRUMENT * number + at.OFF_INSTRUMENT_OFF] = 0
