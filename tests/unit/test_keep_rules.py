"""Which traces are kept: triggers, limits, thresholds, waiting for the verdict, and exact accounts of all of it."""

from __future__ import annotations

import random
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import Recorder, assert_balanced
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from keeping import ALL, HALF, LONG, Keeping, record, spans_of, trace_ids, trace_of

import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.api import TracerProvider
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading._native import Span, SpanState


def plain(count: int = 1, tier: int = 1) -> list[int]:
    """Record traces of one span that nothing is wrong with; gives their ids."""
    return [record(tier=tier).trace_id for _ in range(count)]


def failed() -> Span:
    """Record a trace of one span with an error."""
    return record("keep.failed", error=True)


# ---- triggers ----


def test_all_is_kept_at_once_while_nothing_is_cut(keeping: Keeping) -> None:
    """With all thresholds 0 a span is in the queue after the pass that drains it, and its tracestate is left alone."""
    ids = plain(3)
    states = keeping.drained()
    assert [state[2] for state in states] == ids
    assert {state[10] for state in states} == {None}
    assert keeping.account()["pending"] == 0


def fail(root: Span) -> None:
    """Have a trace's error come."""
    record("keep.part", root, error=True)


def breach(root: Span) -> None:
    """Have a span take longer than its probe allows."""
    record("keep.sla", root, sla="1ms", seconds=0.002)


def interrupt(root: Span) -> None:
    """Have the process end in the trace."""
    token = ot.probe("keep.open").start(root)
    assert core.interrupt_open("test", False) == 1
    del token


def reject(root: Span) -> None:
    """Have an order rejected."""
    record("order.reject", root)


def risk(root: Span) -> None:
    """Have a limit breached."""
    record("risk.breach", root)


def pin(root: Span) -> None:
    """Have the program ask for the trace."""
    assert core.pin(root.trace_id)


BITS = {fail: "error", reject: "reject", breach: "sla", risk: "risk", interrupt: "interrupted", pin: "pinned"}


@pytest.mark.parametrize("trigger", BITS, ids=lambda trigger: str(BITS[trigger]))
def test_a_trigger_keeps_the_whole_trace(keeping: Keeping, trigger: Callable[[Span], None]) -> None:
    """Earlier spans that still wait, the trigger's own, and later ones go out; traces without a trigger do not."""
    keeping.thresholds(ALL)
    root = record()
    plain(5)
    first = record("keep.part", root)
    assert keeping.drained() == []
    trigger(root)
    last = record("keep.part", root)
    plain(5)
    states = keeping.decided()
    assert trace_ids(states) == {root.trace_id}
    ids = [state[3] for state in states]
    assert {root.span_id, first.span_id, last.span_id} <= set(ids)
    assert {state[10] for state in states} == {None}, "it stands for itself alone"
    late = record("keep.part", root)
    assert [state[3] for state in keeping.decided()] == [late.span_id]
    assert keeping.account()["sampled_out"] == 10


def test_slower_than_the_rolling_p99(keeping: Keeping, until: Callable[..., None]) -> None:
    """A span above its stage's p99 of the last minute is a trigger; the stage needs a hundred spans first."""
    keeping.thresholds(ALL)
    for _ in range(99):
        record("keep.slow")
    record("keep.other", seconds=5.0)
    assert keeping.decided() == []
    for _ in range(400):
        record("keep.slow")
    keeping.decided()

    def found() -> bool:
        for _ in range(200):  # so that the slow ones are less than one in a hundred
            record("keep.slow")
        slow = record("keep.slow", seconds=1.0)
        return trace_ids(keeping.decided()) == {slow.trace_id}

    until(found)
    record("keep.slow")
    assert keeping.decided() == []


def test_other_libraries_names_are_no_triggers(keeping: Keeping) -> None:
    """A span of somebody's tracer that is called like one of ours triggers nothing."""
    keeping.thresholds(ALL)
    tracer = TracerProvider().get_tracer("somebody")
    for name in ("order.reject", "risk.breach"):
        tracer.start_span(name).end()
    assert keeping.decided() == []


def test_pins(keeping: Keeping) -> None:
    """A trace may be pinned before its first span; 0 is no trace; however many are pinned between two passes."""
    keeping.thresholds(ALL)
    parents = [trace_of(number) for number in range(1, 3001)]
    assert all(core.pin(parent.trace_id) for parent in parents)
    assert not core.pin(0)
    kept = [record(parent=parents[number]) for number in (0, 1500, 2999)]
    plain(3)
    assert [state[3] for state in keeping.decided()] == [span.span_id for span in kept]
    with pytest.raises((OverflowError, ValueError)):
        core.pin(1 << 128)
    with pytest.raises(TypeError):
        core.pin("1")  # type: ignore[arg-type]  # the point
    ot.shutdown(1.0)
    assert not core.pin(1)


def test_limits_are_per_trigger(keeping: Keeping) -> None:
    """A trigger keeps as many traces a second as its limit says, at least one at once unless it is 0."""
    keeping.thresholds(ALL)
    keeping.limits(error=3, reject=0.001, sla=0)
    for _ in range(10):
        failed()
        record("order.reject")
        record("keep.sla", sla="1ms", seconds=0.002)
        record("risk.breach")
    states = keeping.decided()
    names = [probe["name"] for probe in core.snapshot()["probes"]]
    counts = [[names[state[0]] for state in states].count(name) for name in ("keep.failed", "order.reject", "keep.sla")]
    assert counts == [3, 1, 0]
    assert len(states) == 14


def test_a_limit_fills_up_again(keeping: Keeping, until: Callable[..., None]) -> None:
    """After a while a trigger may keep traces again."""
    keeping.thresholds(ALL)
    keeping.limits(error=20)
    for _ in range(30):
        failed()
    assert len(keeping.decided()) == 20

    def again() -> bool:
        span = failed()
        return trace_ids(keeping.decided()) == {span.trace_id}

    until(again)


def test_a_trace_needs_only_one_trigger_that_has_room(keeping: Keeping) -> None:
    """Where one trigger's limit is used up the next one keeps the trace."""
    keeping.thresholds(ALL)
    keeping.limits(reject=0, error=1)
    both = record("order.reject", error=True)
    record("order.reject")
    assert trace_ids(keeping.decided()) == {both.trace_id}


# ---- thresholds ----


def test_the_share_is_of_whole_traces_by_their_random_bits(keeping: Keeping) -> None:
    """A plain trace is kept, whole, when its random bits are not below the threshold, and says so in its tracestate."""
    keeping.thresholds(HALF)
    roots = [record() for _ in range(40)]
    for root in roots:
        record("keep.part", root)
        record("keep.part", root)
    states = keeping.decided()
    kept = {root.trace_id for root in roots if root.trace_id % ALL >= HALF}
    assert trace_ids(states) == kept
    assert all(len(ids) == 3 for ids in spans_of(states).values())
    assert {state[10] for state in states} <= {"ot=th:8"}
    assert keeping.account()["sampled_out"] == 120 - 3 * len(kept)


def test_a_traces_tier_is_the_best_of_its_spans(keeping: Keeping) -> None:
    """A trace with one span of P0 is decided by P0's threshold."""
    keeping.thresholds(0, ALL, ALL, ALL)
    root = record(tier=3)
    record("keep.part", root, tier=2)
    record("keep.best", root, tier=0)
    plain(5, tier=3)
    states = keeping.decided()
    assert trace_ids(states) == {root.trace_id}
    assert len(states) == 3


@pytest.mark.parametrize(
    ("threshold", "random_bits", "kept"),
    [
        (HALF, HALF, True),
        (HALF, HALF - 1, False),
        (1 << 40, 1 << 40, True),
        (1 << 40, (1 << 40) - 1, False),
        (ALL, ALL - 1, False),
        (2 * ALL, ALL - 1, False),
        ((1 << 64) - 1, ALL - 1, False),
    ],
)
def test_the_border(keeping: Keeping, threshold: int, random_bits: int, kept: bool) -> None:  # noqa: FBT001
    """Random bits equal to the threshold pass; a threshold past all of them lets none through."""
    keeping.thresholds(threshold)
    record(parent=trace_of(random_bits))
    assert len(keeping.decided()) == kept


def test_sampling_rate_spares_p0_and_triggers(keeping: Keeping) -> None:
    """The sampling rate takes of the plain traces of P1 to P3 only."""
    with Control(keeping.recorder.path) as control:
        control.sampling_rate = 0.0
    plain(10)
    best = record(tier=0)
    worst = failed()
    states = keeping.decided()
    assert trace_ids(states) == {best.trace_id, worst.trace_id}
    assert {state[10] for state in states} == {None}
    with Control(keeping.recorder.path) as control:
        control.sampling_rate = 0.25
    record(parent=trace_of(ALL * 3 // 4))
    record(parent=trace_of(ALL * 3 // 4 - 1))
    assert [state[10] for state in keeping.decided()] == ["ot=th:c"]


def test_the_stricter_of_both_thresholds_holds(keeping: Keeping) -> None:
    """Of the plan's threshold and the sampling rate's the larger one decides, and is told."""
    with Control(keeping.recorder.path) as control:
        control.sampling_rate = 0.5
    keeping.thresholds(0, ALL // 4, ALL * 7 // 8, 0)
    parents = [trace_of(ALL - 1 - tier) for tier in range(4)]
    for tier, parent in enumerate(parents):
        record(tier=tier, parent=parent)
    assert [state[10] for state in keeping.decided()] == [None, "ot=th:8", "ot=th:e", "ot=th:8"]


def test_unsampled_spans_do_not_wait(keeping: Keeping) -> None:
    """Spans that their sampler dropped are sampled out at once, whatever happens in them."""
    keeping.thresholds(ALL)
    waiting = record()
    parent = core.remote(5, 6, False, None)
    record(parent=parent)
    record(parent=parent, error=True)
    assert keeping.drained() == []
    account = keeping.account()
    assert (account["sampled_out"], account["pending"]) == (2, 1)
    record("keep.part", waiting, error=True)
    assert trace_ids(keeping.decided()) == {waiting.trace_id}


def test_without_takers_nothing_waits(keeping: Keeping) -> None:
    """What waits is decided before the queue goes, and then all is sampled out at once."""
    keeping.thresholds(ALL)
    plain(5)
    failed()
    keeping.drained()
    assert keeping.account()["pending"] == 6
    core.keep(0)
    assert keeping.account()["pending"] == 1
    assert len(keeping.taken()) == 1
    failed()
    assert keeping.account()["sampled_out"] == 6


def test_the_export_switch_lets_nothing_wait(keeping: Keeping) -> None:
    """With the export switch off, what waits and what comes is sampled out at the next pass."""
    keeping.thresholds(ALL)
    failed()
    keeping.drained()
    with Control(keeping.recorder.path) as control:
        control.export = False
        failed()
        assert keeping.drained() == []
        assert keeping.account()["sampled_out"] == 2
        control.export = True
        failed()
        assert len(keeping.decided()) == 1


def test_an_inactive_policy_selects_nothing(keeping: Keeping) -> None:
    """Without an active policy every span is kept as it is drained, by the sampling rate alone."""
    keeping.thresholds(ALL)
    plain(3)
    assert keeping.drained() == []
    keeping.policy.active = False
    plain(3)
    assert len(keeping.drained()) == 6
    with Control(keeping.recorder.path) as control:
        control.sampling_rate = 0.0
    record(tier=0)
    failed()
    assert keeping.decided() == []
    assert keeping.account()["pending"] == 0


# ---- waiting ----


def test_a_trace_waits_as_long_as_the_policy_says(keeping: Keeping, until: Callable[..., None]) -> None:
    """Before its time a trace is pending; then its verdict falls."""
    keeping.thresholds(HALF)
    plain(20)
    assert keeping.drained() == []
    assert keeping.account()["pending"] == 20
    keeping.policy.write({"hold": 0.05})

    def decided() -> bool:
        keeping.drained()
        account = keeping.account()
        return account["pending"] == 0 and account["exported"] + account["sampled_out"] == 20

    until(decided)


def test_nothing_waits_when_nothing_is_cut_any_more(keeping: Keeping) -> None:
    """Once all thresholds are 0 verdicts fall at once, by the threshold that a trace met when it came: no lumps."""
    keeping.thresholds(HALF)
    high, low = record(parent=trace_of(HALF)), record(parent=trace_of(HALF - 1))
    keeping.drained()
    keeping.thresholds(ALL)
    record(parent=trace_of(ALL - 1))
    best = record(parent=low, tier=0)
    assert best.trace_id == low.trace_id
    assert keeping.drained() == []
    keeping.thresholds(0)
    late = record(parent=trace_of(3))
    states = keeping.drained()
    assert {state[2]: state[10] for state in states} == {high.trace_id: "ot=th:8", late.trace_id: None}
    assert keeping.account()["pending"] == 0


def test_the_stricter_of_the_thresholds_then_and_now_holds(keeping: Keeping) -> None:
    """A trace is judged by the larger one of its tier's threshold when it came and the one at its verdict."""
    keeping.thresholds(ALL // 4)
    record(parent=trace_of(ALL // 4))
    both = record(parent=trace_of(HALF))
    keeping.drained()
    keeping.thresholds(HALF)
    assert [(state[2], state[10]) for state in keeping.decided()] == [(both.trace_id, "ot=th:8")]


def test_a_better_tier_comes_with_its_own_threshold(keeping: Keeping) -> None:
    """Where a later span makes the trace one of a better tier, that tier's threshold holds from then on."""
    keeping.thresholds(0, HALF, ALL, ALL)
    root = record(tier=3, parent=trace_of(1))
    keeping.drained()
    record("keep.best", root, tier=0)
    assert len(keeping.decided()) == 2


def test_late_spans_follow_the_verdict(keeping: Keeping) -> None:
    """Spans that come after the verdict on their trace go where the others went."""
    keeping.thresholds(HALF)
    low, high = (record(parent=trace_of(bits)) for bits in (HALF - 1, HALF))
    assert trace_ids(keeping.decided()) == {high.trace_id}
    keeping.thresholds(ALL)
    late = record("keep.part", high)
    keeping.thresholds(ALL // 8)
    record("keep.part", low)
    states = keeping.decided()
    assert [state[3] for state in states] == [late.span_id]
    assert states[0][10] == "ot=th:8", "as the others of its trace"


def test_a_late_trigger_saves_what_is_still_there(keeping: Keeping) -> None:
    """A trigger after the verdict to drop a trace keeps what comes from there on."""
    keeping.thresholds(ALL)
    root = record()
    assert keeping.decided() == []
    late = record("keep.part", root, error=True)
    later = record("keep.part", root)
    assert [state[3] for state in keeping.decided()] == [late.span_id, later.span_id]


@pytest.mark.usefixtures("quiet")
def test_half_a_ring_of_slots_waits_at_most(keeping: Keeping) -> None:
    """Where more than half of the ring's places wait the oldest traces are decided."""
    keeping.thresholds(HALF)
    plain(400)
    assert keeping.drained() == []
    plain(400)
    kept = keeping.drained()
    account = keeping.account()
    assert account["pending"] == 512
    assert account["overwritten"] == 0
    assert account["sampled_out"] + len(kept) == 288
    keeping.decided()
    assert keeping.account()["pending"] == 0


@pytest.mark.usefixtures("quiet")
def test_half_an_arena_waits_at_most(make_keeping: Callable[..., Keeping]) -> None:
    """Where what waits has taken half of the arena, the oldest traces are decided, with all of their attributes."""
    keeping = make_keeping(ring__arena_bytes=1 << 16)
    keeping.thresholds(0, HALF, HALF, HALF)
    states: list[SpanState] = []
    for _ in range(100):
        record(parent=trace_of(random.randrange(HALF, ALL)), attributes={"text": "x" * 4000})
        states += keeping.drained()
    account = keeping.account()
    assert 4 <= account["pending"] <= 9, "some 8 of them fill half of the arena"
    assert len(states) == 100 - account["pending"]
    states += keeping.decided()
    assert all(state[11]["text"] == "x" * 4000 for state in states)
    assert core.snapshot()["segment"]["text_overwritten"] == 0


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("extra", [0, 1, 700, 3000])
def test_what_is_overwritten_while_it_waits_is_counted(keeping: Keeping, extra: int) -> None:
    """Records that the ring's next round took before their verdict are overwritten, to the span, and in the metrics."""
    keeping.thresholds(ALL)
    plain(300)
    assert keeping.drained() == []
    plain(1024 - 300 + extra)
    keeping.drained()
    keeping.account()
    assert keeping.decided() == []
    account = keeping.account()
    assert account["recorded"] == 1024 + extra
    assert account["overwritten"] == extra
    assert account["sampled_out"] == 1024
    assert ot.stats()["keep.plain"]["count"] == (1024 + extra if extra <= 300 else 1024 + 300)


@pytest.mark.usefixtures("quiet")
def test_overruns_are_settled_while_others_still_wait(keeping: Keeping) -> None:
    """What was overwritten is told once the verdicts have come past it, though newer traces wait."""
    keeping.thresholds(ALL)
    for _ in range(20):
        plain(1500, tier=2)
        record(tier=3)
        keeping.drained()
    accounts = keeping.recorder.accounts()
    assert accounts[2]["pending"] + accounts[3]["pending"] <= 1024 + 2 * 1501
    assert accounts[2]["overwritten"] >= 15 * 476
    keeping.decided()
    accounts = keeping.recorder.accounts()
    assert accounts[2]["recorded"] == 30_000 == accounts[2]["overwritten"] + accounts[2]["sampled_out"]
    assert accounts[3]["recorded"] == 20 == accounts[3]["overwritten"] + accounts[3]["sampled_out"]
    lost = 1501 - 1024 + 19 * (1501 - 1024 + 512)  # from the second round on what waited, too
    assert accounts[2]["overwritten"] + accounts[3]["overwritten"] == lost


def test_values_do_not_wait(keeping: Keeping) -> None:
    """Histogram values between waiting spans are in the metrics at once, and hold nothing up."""
    keeping.thresholds(ALL)
    values = ot.histogram("keep.values")
    for _ in range(10):
        values.record(1.0)
        record()
    keeping.drained()
    (found,) = [i for i in core.snapshot()["instruments"] if i["name"] == "keep.values"]
    assert found["total"][1] == 10
    assert keeping.account()["pending"] == 10
    keeping.decided()
    assert keeping.account()["sampled_out"] == 10
    assert core.snapshot()["segment"]["values_overwritten"] == 0


def test_traces_over_threads(make_keeping: Callable[..., Keeping]) -> None:
    """A trace whose spans are in the rings of several threads is kept or dropped as one."""
    keeping = make_keeping(ring__thread_slots=1024)
    keeping.thresholds(HALF)
    roots: list[Span] = []

    def work(inherited: list[Span]) -> None:
        for root in inherited:
            record("keep.part", root)
        roots.extend(record() for _ in range(20))

    for _ in range(4):
        thread = threading.Thread(target=work, args=(list(roots),))
        thread.start()
        thread.join()
        work(list(roots))
        keeping.drained()
    last = [record("keep.last", root) for root in roots]
    states = keeping.decided()
    assert len(last) == 160
    expected = {root.trace_id for root in roots if root.trace_id % ALL >= HALF}
    assert trace_ids(states) == expected
    spans = {(record.trace_id, record.span_id) for record in keeping.recorder.records() if record.trace_id in expected}
    assert {(state[2], state[3]) for state in states} == spans


def test_close_decides_all(keeping: Keeping) -> None:
    """At the end nothing is pending: what is kept and never taken is refused."""
    keeping.thresholds(ALL)
    plain(5)
    failed()
    keeping.drained()
    ot.shutdown(0.0)
    account = ot.accounts()[1]
    assert_balanced(ot.accounts())
    assert account["pending"] == 0
    assert account["recorded"] == 6


def test_a_forked_child_has_no_verdicts_of_its_parent(run_python: Callable[..., object]) -> None:
    """A child decides anew, in a segment of its own and with the policy of that; the parent's waits on undisturbed."""
    run_python(
        """
import os, sys
import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
from otel_trading.budget.policy import Policy

ot.configure("forking", None, {"drain.period": 60, "budget.enabled": False})
core.keep(100)
policy = Policy(lifecycle._host.path)
policy.write({"hold": 3600.0, "limit": [1e9] * 8, "budget": [float("inf")] * 20})
policy.active = True
with lifecycle._host.control() as control:
    control.sampling_rate = 0.0
probe = ot.probe("fork")
probe.stop(probe.start())
core.drain()
assert ot.accounts()[1]["pending"] == 1
child = os.fork()
if child == 0:
    core.keep(100)
    probe.stop(probe.start())
    core.keep(100)
    probe.stop(probe.start())
    core.drain(True)
    account = ot.accounts()[1]
    ok = account["recorded"] == 2 and account["pending"] + account["sampled_out"] == 2
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert ot.accounts()[1]["pending"] == 1
core.drain(True)
assert ot.accounts()[1] == {**ot.accounts()[1], "recorded": 1, "sampled_out": 1, "pending": 0}
"""
    )


# ---- anything in any order ----


class Rules(RuleBasedStateMachine):
    """Traces that grow in several threads while thresholds change; a model knows which spans there are."""

    def __init__(self) -> None:
        """Start a recorder that selects."""
        super().__init__()
        ot.shutdown(1.0)
        self.directory = tempfile.TemporaryDirectory()
        config = {"ring.slots": 256, "ring.thread_slots": 64, "ring.open_spans": 64, "drain.period": 60}
        ot.configure("machine", self.directory.name, {**config, "budget.enabled": False})
        assert lifecycle._host.path is not None
        self.keeping = Keeping(Recorder(Path(self.directory.name)), Path(self.directory.name) / "traces.shared")
        self.roots: list[Span] = []
        self.spans: dict[int, int] = {}  # by trace
        self.late: set[int] = set()  # traces with a trigger that came after a pass, perhaps after the verdict
        self.passed: set[int] = set()
        self.recorded = [0] * 4
        self.states: list[SpanState] = []

    def teardown(self) -> None:
        """Decide the rest; each trace is there whole or not at all."""
        self.states += self.keeping.decided()
        accounts = ot.accounts()
        assert_balanced(accounts)
        assert [account["recorded"] for account in accounts.values()] == self.recorded
        assert all(account["pending"] == 0 for account in accounts.values())
        assert sum(account["exported"] for account in accounts.values()) == len(self.states)
        if not any(account["overwritten"] for account in accounts.values()):
            for trace, ids in spans_of(self.states).items():
                assert len(ids) == len(set(ids))
                assert trace in self.late or len(ids) == self.spans[trace]
        self.keeping.close()
        self.keeping.recorder.segment.close()
        ot.shutdown(1.0)
        self.directory.cleanup()

    def _record(self, parent: Span | None, tier: int, error: bool, elsewhere: bool) -> None:  # noqa: FBT001
        def go() -> None:
            span = record("machine", parent, tier=tier, error=error)
            self.recorded[tier] += 1
            self.spans[span.trace_id] = self.spans.get(span.trace_id, 0) + 1
            if parent is None:
                self.roots.append(span)
            if error and span.trace_id in self.passed:
                self.late.add(span.trace_id)

        if elsewhere:
            thread = threading.Thread(target=go)
            thread.start()
            thread.join()
        else:
            go()

    @rule(tier=st.integers(0, 3), count=st.integers(1, 30), error=st.booleans(), elsewhere=st.booleans())
    def begin(self, tier: int, count: int, error: bool, elsewhere: bool) -> None:  # noqa: FBT001
        """Begin traces; one of them with an error."""
        for number in range(count):
            self._record(None, tier, error and number == 0, elsewhere)

    @rule(tier=st.integers(0, 3), which=st.integers(0, 1 << 20), error=st.booleans(), elsewhere=st.booleans())
    def go_on(self, tier: int, which: int, error: bool, elsewhere: bool) -> None:  # noqa: FBT001
        """Add a span to a trace."""
        if self.roots:
            self._record(self.roots[which % len(self.roots)], tier, error, elsewhere)

    @rule(numbers=st.tuples(*[st.sampled_from([0, ALL // 4, HALF, ALL])] * 4))
    def plan(self, numbers: tuple[int, ...]) -> None:
        """Change the thresholds."""
        self.keeping.thresholds(*numbers)

    @rule(hold=st.sampled_from([0.0, LONG]))
    def wait(self, hold: float) -> None:
        """Change how long traces wait."""
        self.keeping.policy.write({"hold": hold})

    @rule(decide=st.booleans())
    def drain(self, decide: bool) -> None:  # noqa: FBT001
        """Make a pass."""
        self.passed.update(self.spans)
        self.states += self.keeping.drained(decide)

    @invariant()
    def balanced(self) -> None:
        """Demand balanced accounts that know what was recorded."""
        self.passed.update(self.spans)  # these are a pass too
        accounts = ot.accounts()
        assert_balanced(accounts)
        assert [account["recorded"] for account in accounts.values()] == self.recorded


TestRules = Rules.TestCase
TestRules.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_whole_traces_under_load(make_keeping: Callable[..., Keeping]) -> None:
    """While threads record and passes are made at any time, each kept trace is whole and the accounts are exact."""
    keeping = make_keeping(ring__slots=1 << 14, ring__thread_slots=1 << 13)
    keeping.policy.write({"hold": 0.02})
    keeping.thresholds(0, HALF, ALL // 4, ALL)
    states: list[SpanState] = []
    stop = threading.Event()

    def work(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(300):
            root = record(tier=choose.randrange(4))
            for _ in range(3):
                record("keep.part", root, tier=3, error=choose.random() < 0.01)

    def pass_on() -> None:
        while not stop.wait(0.001):
            core.drain()
            while len(batch := core.take(1000)):
                states.extend(batch.states())
                batch.settle()

    drain = threading.Thread(target=pass_on)
    drain.start()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    drain.join()
    states += keeping.decided()
    accounts = keeping.recorder.accounts()
    assert sum(account["recorded"] for account in accounts.values()) == 3 * 300 * 4
    assert sum(account["exported"] for account in accounts.values()) == len(states)
    assert not any(account["overwritten"] or account["pending"] for account in accounts.values())
    failed_traces = {state[2] for state in states if state[7] == 2}
    partial = {trace for trace, ids in spans_of(states).items() if len(ids) != 4}
    assert partial <= failed_traces, "only a trigger that comes after the verdict leaves a part"
