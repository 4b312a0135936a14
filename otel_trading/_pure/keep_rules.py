"""The keep rules: which traces go to the exporters.  docs/keeping.md says what they mean.

All of it is used with the drain's lock held, but for ``note``, which says the same however often it is said.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from math import inf, isnan
from time import monotonic_ns

from otel_trading import _layout as at
from otel_trading._pure.bucket import NEVER, Bucket, poured, rounded
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.room import Room
from otel_trading._pure.tables import OWN
from otel_trading._pure.traces import (
    ASKED,
    BEST_TIER,
    BY_TRIGGER,
    DECIDED,
    DROPPED,
    KEPT,
    ORDER,
    REMOTE,
    ROOT,
    THRESHOLD,
    THRESHOLDS,
    TIERS,
    TOLD,
    TRIGGER,
    TRIGGERS,
    UNREACHED,
    Traces,
    first_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_trading._pure.copies import Copy
    from otel_trading._pure.kept import Queue
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.shared_file import SharedFile
    from otel_trading._pure.tables import Tables

_LIMITING = TIERS | THRESHOLDS | UNREACHED
MASK = (1 << at.SAMPLE_BITS) - 1
_TIER = 56  # of a record's state word
SPAN_BYTES = 60
"""About what a span takes of a request, without its attributes."""
_NS = 1_000_000_000
_HALF = (1 << 64) - 1
_LONGEST_HOLD = 3600.0
_MODE = (CONTROL + at.OFF_CONTROL_MODE) // 8
_THRESHOLD = (CONTROL + at.OFF_CONTROL_THRESHOLD) // 8
_POLICY = struct.Struct(f"<Q{at.SIZE_POLICY // 8 - 1}d")
_NETWORK = at.OFF_POLICY_BUDGET // 8 + at.BUDGET_NETWORK * at.MODES
_MOST_PINS = 1024
_HOLD = at.OFF_POLICY_HOLD // 8
_BURST = at.OFF_POLICY_BURST // 8
_LIMIT = at.OFF_POLICY_LIMIT // 8
_BY_NAME = {"order.reject": at.TRIGGER_REJECT, "risk.breach": at.TRIGGER_RISK}
_UNIT = at.SAMPLE_BITS - at.THRESHOLD_BITS


def _number(value: float, instead: float, most: float = inf) -> float:
    return instead if isnan(value) or value < 0 else min(value, most)


class Rules:
    """What is known of the traces, and what is decided of them."""

    def __init__(self) -> None:
        self.traces = Traces()
        self.bucket = Bucket()
        self.tables: Tables = OWN
        self.reset()

    def reset(self) -> None:
        """Begin with nothing known, and a bucket of one's own."""
        self.active = False
        self.at_once = True  # all thresholds are 0
        self.hold_ns = 5 * _NS
        self.burst = 60.0
        self.normal = 0.0  # the network's budget in NORMAL
        self.allowance = [inf] * at.TRIGGERS
        self.thresholds = [0] * at.TIERS
        self.by_tiers = [0] * (TIERS + 1)  # the threshold of each set of tiers
        self.traces.clear()
        self.kept = [0] * at.TRIGGERS
        self.missed = [0] * at.TRIGGERS
        self.dropped = 0
        self.slow: dict[int, int] = {}  # ns, by probe
        self.now_ns = 0
        self.pins: deque[int] = deque(maxlen=_MOST_PINS)  # trace ids, since the last pass
        self.room = Room()
        self.waiting = [0.0] * at.TIERS  # about how many bytes of plain traces wait for their verdicts
        self.crowded = False  # more comes in a pass, or waits, than the bucket has
        self.mean_blocks = 0.0  # bytes that a span's blocks take, where it has any
        self.share(None)

    def share(self, shared: SharedFile | None) -> None:
        """Have verdicts and bucket in common with others, or no longer."""
        factor = self.bucket.factor
        self.shared: SharedFile | None = shared
        self.bucket = Bucket()
        self.bucket.factor = factor
        self.special = TRIGGERS
        if shared is not None:
            self.bucket.words = shared.words
            self.special |= REMOTE  # others may know better

    # ---- what is in force ----

    def begin(self, file: SegmentFile, queue: Queue, backlog: int) -> None:
        """Take in policy, mode and thresholds, before a pass that will meet so many records."""
        words = file.words
        self.active = words[file.policy // 8] != 0
        if not self.active:
            self.at_once = True
            self._read_pins()
            return
        policy = _POLICY.unpack_from(file.map, file.policy)
        now = monotonic_ns()
        passed = max(now - self.now_ns, 0) / _NS if self.now_ns else inf
        self.now_ns = now
        self.hold_ns = int(_number(policy[_HOLD], 5.0, _LONGEST_HOLD) * _NS)
        self.burst = _number(policy[_BURST], 60.0)
        for trigger in range(at.TRIGGERS):
            limit = _number(policy[_LIMIT + trigger], inf)
            most = max(limit, float(limit > 0))
            gained = limit * passed if 0 < limit < inf else 0.0
            self.allowance[trigger] = inf if limit == inf else min(self.allowance[trigger] + gained, most)
        budgets = policy[_NETWORK : _NETWORK + at.MODES]
        self.normal = _number(budgets[at.MODE_NORMAL], 0.0)
        self.bucket.fill(now, _number(budgets[words[_MODE] % at.MODES], 0.0), self.burst, self.normal)
        self._go_by([rounded(threshold) for threshold in self.planned(file, queue)])
        comes = self.bucket.charged(SPAN_BYTES * backlog) + sum(self.waiting)
        self.crowded = self.at_once and comes > max(self.bucket.spare(), 0.0)
        self.at_once = self.at_once and not self.crowded
        self._read_pins()
        if self.shared is not None and self.shared.look():
            self._follow(self.shared)

    def _go_by(self, thresholds: list[int]) -> None:
        self.thresholds = thresholds
        self.at_once = not any(thresholds)
        self.by_tiers = [thresholds[tier] for tier in BEST_TIER]

    def plan_pass(self) -> None:
        """Before any verdict: let no more through in this pass than the bucket has, of the best tiers first."""
        if not self.crowded:
            return
        free = self.bucket.spare()
        fits = sum(self.waiting) <= max(free, 0.0)
        self._go_by([0] * at.TIERS if fits else poured(self.waiting, free, [0] * at.TIERS))

    def planned(self, file: SegmentFile | None, queue: Queue) -> list[int]:
        """Give from where on a plain trace of each tier is kept, by the plans and by what people asked."""
        asked = 0 if file is None else min(file.words[_THRESHOLD], 1 << at.SAMPLE_BITS)
        plans = zip(self.bucket.thresholds(), self.room.thresholds(queue))  # noqa: B905  four each
        return [max(shared, own, asked if tier else 0) for tier, (shared, own) in enumerate(plans)]

    def _read_pins(self) -> None:
        while self.pins:
            trace = self.pins.popleft()
            self.trigger(trace & _HALF, trace >> 64, 1 << TRIGGER + at.TRIGGER_PINNED)

    def _follow(self, shared: SharedFile) -> None:
        """Answer who asked, and take over what others have found out."""
        traces = self.traces
        for low in shared.present.keys() & traces.keys():
            word = traces[low]
            if not word & DECIDED:
                continue
            high, said = shared.recent(low)
            state = said & 3
            if word & DROPPED and state == at.VERDICT_KEPT:
                traces[low] = self._as_said(low, word & ~DROPPED, said)
            elif state == at.VERDICT_ASKED:
                if word & DROPPED and said & TRIGGERS & ~word:
                    word = traces[low] = self._reconsidered(word | said & TRIGGERS)
                shared.answer(low, high, _verdict(word), self.now_ns)

    # ---- what is seen ----

    def by_record(self, probe: int, status: int, flags: int) -> int:
        """Give the triggers that every record of a kind has."""
        triggers = 0
        if status == at.STATUS_ERROR:
            triggers = 1 << TRIGGER + at.TRIGGER_ERROR
        if flags & at.FLAG_INTERRUPTED:
            triggers |= 1 << TRIGGER + at.TRIGGER_INTERRUPTED
        probes = self.tables.probes
        if probe < len(probes) and not probes[probe].scope:
            named = _BY_NAME.get(probes[probe].name)
            if named is not None:
                triggers |= 1 << TRIGGER + named
        return triggers

    def note(self, lows: Iterable[int], parents: Iterable[int], bits: int) -> None:
        """Remember of what tiers traces have spans, and where these have their parents."""
        traces = self.traces
        get = traces.get
        tier = bits & TIERS
        better = tier | tier - 1  # who has a span of these has met a threshold that counts
        threshold = self.by_tiers[tier]
        met = bits | (threshold >> _UNIT << THRESHOLD if threshold < NEVER else UNREACHED)
        traces.update(
            {
                low: word | bits if word & (better | DECIDED) else word & ~(THRESHOLDS | UNREACHED) | met
                for low in lows
                if (word := get(low, 0)) & bits != bits
            }
        )
        if self.shared is not None and not self.at_once and not bits & REMOTE:
            roots = [low for low, parent in zip(lows, parents) if not parent]  # noqa: B905  one each
            traces.update({low: traces[low] | ROOT for low in roots})

    def ask(self, lows: Iterable[int], highs: Sequence[int]) -> None:
        """Ask the other processes for verdicts on traces that came from them."""
        shared, traces = self.shared, self.traces
        if shared is None:
            return
        for low, high in zip(lows, highs):  # noqa: B905  one each
            word = traces.get(low, 0)
            if not word & (DECIDED | ASKED | ROOT):
                traces[low] = word | ASKED
                shared.note(low, high, 0, self.now_ns)

    def trigger(self, low: int, high: int, triggers: int) -> None:
        """Note that a trace has reasons to be kept; one that was left out is looked at again."""
        word = self.traces.get(low, 0)
        if not triggers & ~word:
            return
        word |= triggers
        now = self.now_ns or monotonic_ns()
        if self.shared is not None:
            self.shared.note(low, high, word & TRIGGERS, now)
        if word & DROPPED:
            word = self._reconsidered(word)
            if word & KEPT and self.shared is not None:
                self.shared.answer(low, high, _verdict(word), now)
        self.traces[low] = word

    def _reconsidered(self, word: int) -> int:
        """Ask again for a trace that was left out and has a trigger after all: what is left of it may be kept."""
        label = self._let_through(word)
        if label < 0:
            return self._missed(word)
        self.kept[label] += 1
        return word & ~(DROPPED | THRESHOLDS) | KEPT | BY_TRIGGER

    # ---- verdicts ----

    def settle(self, undecided: dict[int, int], copy: Copy, *, patient: bool, each: float, spare: int) -> set[int]:
        """Decide on traces, given with the place of a record in a copy; gives those that are to wait for an answer.

        Who is ``patient`` does not wait longer; ``each`` is about what a span costs; the queue has room for ``spare``
        spans of plain traces.
        """
        words, states = copy.words, copy.states
        traces = self.traces
        get = traces.get
        known = {low: get(low) or 1 << (states[place] >> _TIER & at.TIERS - 1) for low, place in undecided.items()}
        shared = self.shared
        present = shared.present if shared is not None else {}
        special = [low for low, word in known.items() if word & self.special or low in present]
        waiting = set()
        counts = Counter(copy.lows) if special else {}
        for low in special:
            word = known.pop(low)
            decided = self._judge(low, words[undecided[low] * (at.SIZE_SLOT // 8) + 1], word, patient)
            if decided:
                traces[low] = decided
                self.bucket.pending += counts[low] * each * (decided & KEPT != 0)
            else:
                waiting.add(low)
        if spare < len(copy.lows):
            self._squeeze(known, undecided, copy, spare)
        limits = {key: self._limit(key) for key in {word & _LIMITING for word in known.values()}}
        if not any(limits.values()):
            self.kept[at.TRIGGER_SHARE] += len(known)
            traces.update({low: word | KEPT for low, word in known.items()})
        else:
            passed = {
                low: word & ~THRESHOLDS | KEPT | limits[word & _LIMITING] >> _UNIT << THRESHOLD
                for low, word in known.items()
                if low & MASK >= limits[word & _LIMITING]
            }
            self.kept[at.TRIGGER_SHARE] += len(passed)
            self.dropped += len(known) - len(passed)
            traces.update({low: word & ~THRESHOLDS | DROPPED for low, word in known.items()})
            traces.update(passed)
        traces.bound()
        return waiting

    def _limit(self, word: int) -> int:
        """Give a waiting trace's threshold: the stricter of the present one, and of that which it met."""
        met = NEVER if word & UNREACHED else (word & THRESHOLDS) >> THRESHOLD << _UNIT
        return max(self.by_tiers[word & TIERS], met)

    def _squeeze(self, known: dict[int, int], undecided: dict[int, int], copy: Copy, spare: int) -> None:
        """Leave plain traces out that would take the last quarter of the queue, which is for those with a trigger."""
        counts = Counter(copy.lows)
        for low in sorted(known, key=undecided.__getitem__):
            if low & MASK < self._limit(known[low]):
                continue
            if spare <= 0:
                self.dropped += 1
                self.traces[low] = known.pop(low) & ~THRESHOLDS | DROPPED
            spare -= counts[low]

    def _judge(self, low: int, high: int, word: int, patient: bool) -> int:  # noqa: FBT001
        """Decide on a trace that has a trigger, came from elsewhere, or of which others spoke; 0 is to wait."""
        shared = self.shared
        threshold = self._limit(word)
        word &= ~THRESHOLDS
        said = shared.word(low, high) if shared is not None else None
        if said is not None:
            if said & 3 == at.VERDICT_KEPT:
                return self._as_said(low, word, said)
            word |= said & TRIGGERS
            if said & 3 == at.VERDICT_DROPPED:
                return self._left_out(word)
        foreign = shared is not None and word & (REMOTE | ROOT) == REMOTE
        label = self._let_through(word) if threshold else first_of(word)
        if label >= 0:
            self.kept[label] += 1
            word |= KEPT | (BY_TRIGGER if label != at.TRIGGER_SHARE else 0)
        elif foreign and not patient and not word & TRIGGERS:
            return 0
        elif low & MASK >= threshold:
            self.kept[at.TRIGGER_SHARE] += 1
            word |= KEPT | threshold >> _UNIT << THRESHOLD
        else:
            word = self._left_out(word)
        if shared is not None and (foreign or said is not None):
            shared.answer(low, high, _verdict(word), self.now_ns)
        return word

    def _as_said(self, low: int, word: int, said: int) -> int:
        """Keep a trace because another process does."""
        threshold = said & THRESHOLDS
        label = at.TRIGGER_SHARE if threshold else first_of(said)
        if low & MASK < threshold >> THRESHOLD << _UNIT:  # which it can not have passed
            threshold = 0
        word = word & ~THRESHOLDS | said & TRIGGERS | KEPT | threshold
        self.kept[label] += 1
        return word | (BY_TRIGGER if label != at.TRIGGER_SHARE else 0)

    def _left_out(self, word: int) -> int:
        if word & TRIGGERS:
            return self._missed(word) | DROPPED
        self.dropped += 1
        return word | DROPPED

    def _missed(self, word: int) -> int:
        if not word & TOLD:
            self.missed[first_of(word)] += 1
        return word | TOLD

    def _let_through(self, word: int) -> int:
        """Give the first of a trace's triggers that its limit and the bucket let through, -1 for none."""
        if word & TRIGGERS:
            for trigger in ORDER:
                if word >> TRIGGER + trigger & 1 and self.allowance[trigger] >= 1 and self.bucket.lets(trigger):
                    self.allowance[trigger] -= 1
                    return trigger
        return -1


def _verdict(word: int) -> int:
    """Give what others are told of a decided trace."""
    return word & (THRESHOLDS | TRIGGERS) | (at.VERDICT_KEPT if word & KEPT else at.VERDICT_DROPPED)
