"""What the pure drain writes of a ring's settled spans, against a plain model, whenever it is read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from otel_trading import _layout as at
from otel_trading._pure.progress import GONE, Progress, code_of

_PAGE = at.PAGE


def made(capacity: int) -> tuple[Any, Any]:
    """Give what a Progress needs of a file and of a ring: the ring's marks are behind the counts."""
    memory = bytearray(2 * _PAGE)
    file = SimpleNamespace(words=memoryview(memory).cast("Q"), progress=0)
    writer = SimpleNamespace(index=0, piece=SimpleNamespace(map=memory), marks_at=_PAGE, capacity=capacity)
    return file, writer


class Settling(RuleBasedStateMachine):
    """Spans are decided on in order, and settled in any."""

    @initialize(capacity=st.sampled_from([8, 32, 64]))
    def begin(self, capacity: int) -> None:
        """Begin with an empty ring."""
        self.capacity = capacity
        self.file, self.writer = made(capacity)
        self.progress = Progress(self.file, self.writer)
        self.fates: list[tuple[int, int]] = []  # OT_MARK_* or GONE, and the tier, by number
        self.sent: set[int] = set()
        self.open: list[int] = []

    @rule(entries=st.lists(st.tuples(st.sampled_from([0, 0, 1, 4, GONE]), st.integers(0, 3)), min_size=1, max_size=20))
    def decide(self, entries: list[tuple[int, int]]) -> None:
        """Decide on some records."""
        while entries:
            first = len(self.fates)
            few = entries[: self.capacity - first % self.capacity]
            entries = entries[len(few) :]
            self.progress.enter(first, bytes(code_of(kind, tier) for kind, tier in few))
            self.fates += few
            self.open += [number for number, (kind, _) in enumerate(few, first) if kind == at.MARK_NONE]

    @rule(which=st.floats(0.0, 1.0, exclude_max=True), kind=st.sampled_from([3, 3, 4]))
    def settle(self, which: float, kind: int) -> None:
        """Say what became of one."""
        if self.open:
            number = self.open.pop(int(which * len(self.open)))
            tier = self.fates[number][1]
            self.progress.settle(number, tier, kind, number in self.sent)
            self.fates[number] = kind, tier
            self.sent.discard(number)
            self.progress.publish()

    @rule(which=st.floats(0.0, 1.0, exclude_max=True))
    def send(self, which: float) -> None:
        """Say that one is sent."""
        if self.open:
            number = self.open[int(which * len(self.open))]
            if number not in self.sent:
                self.sent.add(number)
                self.progress.settle(number, self.fates[number][1], at.MARK_SENT, sent=False)
                self.progress.publish()

    @rule(ahead=st.integers(0, 80))
    def passed(self, ahead: int) -> None:
        """End a pass, the writer being so many records ahead."""
        self.progress.advance(len(self.fates) + ahead - self.capacity)
        self.progress.publish()

    @rule(ahead=st.integers(1, 200))
    def overrun(self, ahead: int) -> None:
        """Have the writer overwrite what nobody has seen."""
        self.fates += [(GONE, 0)] * ahead
        self.progress.force(len(self.fates))

    @rule(capacity=st.sampled_from([8, 16, 64]))
    def resize(self, capacity: int) -> None:
        """Give the ring another size."""
        self.capacity = self.writer.capacity = capacity
        self.progress.resized(capacity, max(self.progress.done, len(self.fates) - capacity))

    @invariant()
    def told(self) -> None:
        """Demand that who takes over finds each span in exactly one place."""
        after = Progress(self.file, self.writer)
        done, exported, sampled_out, refused = after.stored()
        assert max(0, len(self.fates) - self.capacity) <= self.progress.stated or not self.progress._changed
        expected = {at.MARK_EXPORTED: [0] * 4, at.MARK_DROPPED: [0] * 4, at.MARK_REFUSED: [0] * 4}
        for number, (kind, tier) in enumerate(self.fates):
            fate = at.MARK_EXPORTED if number in self.sent else kind
            if fate in expected:
                expected[fate][tier] += 1
        found = {at.MARK_EXPORTED: exported, at.MARK_DROPPED: sampled_out, at.MARK_REFUSED: refused}
        for number in range(max(done, len(self.fates) - self.capacity), len(self.fates)):
            kind, tier = self.fates[number]
            (mark,) = after.stored_marks(number, 1, handed=False)
            mark = at.MARK_EXPORTED if mark == at.MARK_SENT else mark
            if kind != GONE and mark != at.MARK_NONE:
                found[mark][tier] += 1
            if kind == at.MARK_NONE and number not in self.sent:
                assert mark == at.MARK_NONE
        assert found == expected


TestSettling = Settling.TestCase
TestSettling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
