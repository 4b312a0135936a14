"""The bucket of bytes that may be kept, the thresholds that are planned by it, and the estimate that it is charged."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest
from keeping import ALL, HALF, INFINITY, Keeping, quiet, record, trace_ids, trace_of

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.budget.readings import Readings
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading._native import Batch

USABLE = 0.85  # of the network budget: exporters pace themselves below it
SPAN = 60  # bytes of a span with nothing in it, as it is estimated


def failed() -> int:
    """Record a trace of one span with an error; gives its id."""
    return record("keep.failed", error=True).trace_id


def take() -> Batch:
    """Have all decided; take what is kept, as exported."""
    core.drain(True)
    batch = core.take(100_000)
    batch.settle()
    return batch


class Flow:
    """Traces that other processes would have decided, as the shared page shows them: so many bytes a second."""

    def __init__(self, keeping: Keeping, network: float) -> None:
        """Plan with a network budget; the bucket stays half full."""
        self.keeping = keeping
        self.now = time.monotonic() + 1000.0
        self.half = round(network * USABLE * 60 / 2)
        keeping.network(network)
        keeping.shared.tokens = self.half
        core.govern(quiet(self.now))

    def run(self, seconds: float, *rates: float) -> tuple[int, ...]:
        """Go on for a while at such rates of P0 to P3 and of triggers; gives the thresholds."""
        words = self.keeping.shared.words
        places = [*(at.OFF_SHARED_CANDIDATES // 8 + tier for tier in range(4)), at.OFF_SHARED_TRIGGERED // 8]
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            for place, rate in zip(places, rates, strict=True):
                words[place] += round(rate / 10)
            words[at.OFF_SHARED_TOKENS // 8] = self.half
            core.govern(quiet(self.now))
        return self.keeping.shared.thresholds


# ---- the plan ----


def test_nothing_is_cut_while_all_fits(keeping: Keeping) -> None:
    """With less than the budget all thresholds are 0; without traffic too, and without a limit however much it is."""
    flow = Flow(keeping, 10_000)
    assert flow.run(1, 0, 0, 0, 0, 0) == (0,) * 4
    assert flow.run(10, 2000, 2000, 2000, 2000, 0) == (0,) * 4
    keeping.network(INFINITY)
    assert flow.run(10, 1e6, 1e6, 1e6, 1e6, 1e6) == (0,) * 4


def test_the_lowest_tier_goes_first(keeping: Keeping) -> None:
    """The budget is given to P0 first; the tier where it ends is cut in part, those below altogether."""
    flow = Flow(keeping, 10_000)
    best, second, third, last = flow.run(15, 1000, 4000, 10_000, 4000, 0)
    assert (best, second, last) == (0, 0, ALL)
    assert third / ALL == pytest.approx(1 - 3500 / 10_000, abs=0.03)
    assert third % (1 << 40) == 0


def test_triggers_are_served_before_plain_traces(keeping: Keeping) -> None:
    """What triggers take is not there for plain traces, P0's included."""
    flow = Flow(keeping, 10_000)
    best, second, third, last = flow.run(15, 1000, 4000, 10_000, 4000, 6000)
    assert (best, third, last) == (0, ALL, ALL)
    assert second / ALL == pytest.approx(1 - 1500 / 4000, abs=0.03)
    assert flow.run(15, 1000, 4000, 10_000, 4000, 20_000) == (ALL,) * 4


def test_what_was_cut_comes_back(keeping: Keeping) -> None:
    """When the load goes down the thresholds go back to 0."""
    flow = Flow(keeping, 10_000)
    assert flow.run(10, 10_000, 10_000, 10_000, 10_000, 0)[1:] == (ALL,) * 3
    assert flow.run(20, 1000, 1000, 1000, 1000, 0) == (0,) * 4


def test_a_full_bucket_allows_more_and_an_empty_one_less(keeping: Keeping) -> None:
    """What was saved is given out over some ten seconds; below a third there is nothing for plain traces."""
    flow = Flow(keeping, 10_000)
    flow.half *= 2
    assert flow.run(10, 30_000, 0, 0, 0, 0)[0] == 0
    flow.half //= 4
    assert flow.run(10, 2000, 0, 0, 0, 0) == (ALL,) * 4


def test_without_a_network_no_plain_trace_is_kept(keeping: Keeping) -> None:
    """In EMERGENCY, where nothing may be sent, all thresholds are at their highest, at once."""
    flow = Flow(keeping, 10_000)
    with Control(keeping.recorder.path) as control:
        control.force("EMERGENCY")
    assert flow.run(0.2, 0, 0, 0, 0, 0) == (ALL,) * 4
    record(tier=0, parent=trace_of(ALL - 1))
    assert len(take()) == 0
    with Control(keeping.recorder.path) as control:
        control.force("NORMAL")
    assert flow.run(3, 0, 0, 0, 0, 0) == (0,) * 4


def test_a_plan_is_made_ten_times_a_second(keeping: Keeping) -> None:
    """However many ask for it, and at whatever times, one plan in a tenth of a second is made."""
    flow = Flow(keeping, 10_000)
    planned = at.OFF_SHARED_PLANNED_NS // 8
    before = keeping.shared.words[planned]
    core.govern(quiet(flow.now + 0.05))
    assert keeping.shared.words[planned] == before
    core.govern(quiet(flow.now + 0.11))
    assert keeping.shared.words[planned] == pytest.approx((flow.now + 0.11) * 1e9, abs=1000)


@pytest.mark.parametrize("word", [0, 1, 1 << 63, (1 << 64) - 1, 0x7FF8 << 48, 0x7FF0 << 48, 0xFFF0 << 48])
def test_whatever_stands_in_the_page(keeping: Keeping, word: int) -> None:
    """Numbers that no process would write there are bounded, and a plan some seconds later is a sane one again."""
    keeping.network(10_000)
    for place in range(at.OFF_SHARED_TOKENS // 8, at.SIZE_SHARED // 8):
        keeping.shared.words[place] = word
    now = time.monotonic()
    for step in range(20):
        core.govern(quiet(now + step / 10))
        record(error=step % 2 == 0)
        core.drain(step % 3 == 0)
    assert all(0 <= threshold <= (1 << 64) - 1 for threshold in keeping.shared.thresholds)
    assert -600_000 <= keeping.shared.tokens <= 600_000
    for step in range(1200):
        core.govern(quiet(now + 2 + step / 10))
    assert keeping.shared.thresholds == (0,) * 4
    take()
    assert keeping.account()["pending"] == 0


# ---- tokens ----


def test_a_new_bucket_is_full(keeping: Keeping) -> None:
    """The first process of a directory finds what may be saved up, as if it had been: a small program sees all."""
    keeping.network(1000)
    keeping.shared.words[at.OFF_SHARED_FILLED_NS // 8] = 0
    core.govern(quiet())
    assert keeping.shared.tokens == pytest.approx(1000 * USABLE * 60, rel=0.01)


def test_the_bucket_fills_up_and_is_full(keeping: Keeping) -> None:
    """Tokens come at the network's rate, and stop at what may be saved up; a clock that went back gives none."""
    keeping.network(1000)
    keeping.shared.tokens = 0
    now = time.monotonic() + 100
    core.govern(quiet(now))
    keeping.shared.words[at.OFF_SHARED_TOKENS // 8] = 0
    core.govern(quiet(now + 10))
    assert keeping.shared.tokens == pytest.approx(10 * 1000 * USABLE, rel=0.01)
    core.govern(quiet(now + 5))
    assert keeping.shared.tokens == pytest.approx(10 * 1000 * USABLE, rel=0.01)
    core.govern(quiet(now + 10_000))
    assert keeping.shared.tokens == pytest.approx(60 * 1000 * USABLE, rel=0.01)


def test_triggers_may_take_the_bucket_to_0(keeping: Keeping) -> None:
    """Without a network nothing is added: traces with a trigger are kept as long as there are tokens, then missed."""
    keeping.network(0)
    keeping.thresholds(ALL)
    keeping.shared.tokens = 3 * SPAN - 1
    ids = [failed() for _ in range(10)]
    assert trace_ids(take().states()) == set(ids[:3])
    assert keeping.shared.tokens == -1
    reading = keeping.readings()
    assert reading.missed[at.TRIGGER_ERROR] == 7
    assert reading.kept[at.TRIGGER_ERROR] == 3
    assert reading.tokens == -1


def test_slow_traces_leave_a_quarter_alone(keeping: Keeping, until: Callable[..., None]) -> None:
    """A trace that is only slow is kept while the bucket is more than a quarter full, an error while there is any."""
    keeping.network(1000)  # so that the bucket holds 51,000 bytes
    keeping.shared.tokens = 50_000
    keeping.thresholds(ALL)

    def slow_is_known() -> bool:
        for _ in range(200):
            record("keep.slow", tier=3)
        slow = record("keep.slow", tier=3, seconds=1.0)
        return trace_ids(take().states()) == {slow.trace_id}

    until(slow_is_known)
    keeping.shared.tokens = 10_000
    for _ in range(200):
        record("keep.slow", tier=3)
    record("keep.slow", tier=3, seconds=1.0)
    error = failed()
    assert trace_ids(take().states()) == {error}


def test_plain_traces_do_not_ask_the_bucket(keeping: Keeping) -> None:
    """A plain verdict depends on nothing but random bits and threshold: else the estimate of counts would be biased."""
    keeping.network(0)
    keeping.thresholds(HALF)
    keeping.shared.tokens = -1000
    span = record(parent=trace_of(HALF))
    record(parent=trace_of(HALF - 1))
    assert trace_ids(take().states()) == {span.trace_id}


def test_an_error_that_misses_is_a_plain_trace(keeping: Keeping) -> None:
    """What no trigger lets through may still pass the threshold, and stands for others then."""
    keeping.limits(error=0)
    keeping.thresholds(HALF)
    span = record(parent=trace_of(HALF), error=True)
    record(parent=trace_of(HALF - 1), error=True)
    (state,) = take().states()
    assert (state[2], state[10]) == (span.trace_id, "ot=th:8")
    reading = keeping.readings()
    assert reading.kept[at.TRIGGER_SHARE] == 1
    assert reading.missed[at.TRIGGER_ERROR] == 1


def test_what_is_kept_is_charged(keeping: Keeping) -> None:
    """Tokens go down by the estimate of what is kept; what was decided is counted by tier, and by triggers."""
    keeping.network(0)
    keeping.shared.tokens = 1_000_000
    for tier in range(4):
        for _ in range(tier + 1):
            record(tier=tier, attributes={"number": 1})
    failed()
    batch = take()
    assert batch.estimated_bytes == 11 * SPAN + 10 * 24
    assert keeping.shared.tokens == 1_000_000 - batch.estimated_bytes
    assert keeping.shared.decided == (84, 168, 252, 336, SPAN)
    keeping.thresholds(ALL)
    record(tier=2)
    assert len(take()) == 0
    assert keeping.shared.tokens == 1_000_000 - batch.estimated_bytes
    assert keeping.shared.decided == (84, 168, 252 + SPAN, 336, SPAN)


def test_late_spans_are_charged(keeping: Keeping) -> None:
    """Spans that follow a verdict are charged as its others were."""
    keeping.network(0)
    keeping.shared.tokens = 1_000_000
    root = record()
    take()
    record("keep.part", root)
    assert take().estimated_bytes == SPAN
    assert keeping.shared.tokens == 1_000_000 - 2 * SPAN
    assert keeping.shared.decided == (0, 2 * SPAN, 0, 0, 0)


def test_without_a_limit_nothing_is_charged(keeping: Keeping) -> None:
    """With no limit on the network there is no bucket: all triggers pass, and the readings say so."""
    keeping.thresholds(ALL)
    keeping.shared.tokens = -1_000_000
    ids = {failed() for _ in range(20)}
    assert trace_ids(take().states()) == ids
    assert keeping.readings().tokens == math.inf


def test_one_pass_does_not_empty_the_bucket(keeping: Keeping) -> None:
    """Where more comes at once than the bucket has, a share of it is kept by a threshold of that pass: P0's first."""
    keeping.network(10_000)  # so that the bucket holds 510,000 bytes
    for _ in range(100):
        record(tier=0)
        record(tier=2)
        for _ in range(3):
            record(tier=1)
    error = failed()
    keeping.shared.tokens = 510_000 // 4 + 300 * SPAN
    states = take().states()
    tiers = [state[1] for state in states if state[2] != error]
    assert error in trace_ids(states)
    assert tiers.count(0) == 100
    # of 300 traces two thirds: fewer than 150 or more than 250 come once in a hundred million runs
    assert 150 < tiers.count(1) < 250
    assert tiers.count(2) == 0
    for state in states:
        threshold = int(str(state[10])[len("ot=th:") :].ljust(14, "0"), 16) if state[10] else 0
        assert state[1] == 1 or threshold == 0
        assert state[2] == error or state[1] == 0 or threshold / ALL == pytest.approx(1 / 3, abs=0.03)


# ---- the queue ----


def test_the_last_quarter_of_the_queue_is_for_triggers(keeping: Keeping) -> None:
    """Once the queue is three quarters full plain traces are left out, until there is room again."""
    core.keep(100)
    for _ in range(80):
        record()
    core.drain()
    assert core.kept() == 76
    for _ in range(5):
        record()
        failed()
    core.drain(True)
    assert core.kept() == 81
    assert keeping.readings().thresholds == (1.0,) * 4
    assert len(keeping.taken()) == 81
    record()
    assert len(keeping.drained()) == 1
    account = keeping.account()
    assert (account["refused"], account["sampled_out"]) == (0, 9)


def test_what_waits_in_the_arena_fills_the_queue_too(keeping: Keeping) -> None:
    """The queue is full when its spans' texts have taken its bytes."""
    core.keep(1000, 10_000)
    for _ in range(8):
        record(attributes={"text": "x" * 1000})
    core.drain()
    record()
    core.drain(True)
    assert core.kept() == 8
    keeping.taken()


def test_the_queue_is_not_filled_up_by_plain_traces(keeping: Keeping) -> None:
    """Where exporters take less than comes, the lowest tiers are cut before the queue is full."""
    core.keep(1000)
    keeping.policy.write({"hold": 0.0})
    now = time.monotonic() + 1000
    for _ in range(300):
        now += 0.1
        core.govern(quiet(now))
        for tier, count in enumerate((10, 30, 40, 20)):
            for _ in range(count):
                record(tier=tier)
        core.drain()
        batch = core.take(30)
        batch.settle()
    thresholds = keeping.readings(now).thresholds
    assert thresholds[0] == 0.0
    assert 0.1 < thresholds[1] < 0.9, "20 of 30"
    assert thresholds[2:] == (1.0, 1.0)
    accounts = keeping.recorder.accounts()
    assert sum(account["refused"] for account in accounts.values()) == 0
    assert accounts[0]["sampled_out"] == 0
    assert keeping.shared.thresholds == (0,) * 4, "other processes have queues of their own"
    assert len(keeping.taken()) < 750


# ---- the estimate ----


def test_the_estimate_knows_attributes_and_texts(keeping: Keeping) -> None:
    """Inline attributes count a little, long texts what they have."""
    sizes = []
    for attributes in ({}, {"a": 1}, {"a": 1, "b": 2.0}, {"text": "x" * 1000}, {"text": "x" * 5000}):
        record(attributes=attributes)
        sizes.append(take().estimated_bytes)
    assert sizes[:3] == [SPAN, SPAN + 24, SPAN + 48]
    assert SPAN + 1000 <= sizes[3] <= SPAN + 1100
    assert SPAN + 5000 <= sizes[4] <= SPAN + 5100
    assert keeping.account()["exported"] == 5


def test_many_blocks_are_charged_as_they_are(keeping: Keeping) -> None:
    """What the bucket is charged for a trace before it is copied is what its spans have."""
    keeping.network(0)
    keeping.shared.tokens = 1_000_000
    record(attributes={f"key{number}": "x" * 100 for number in range(25)})
    batch = take()
    assert batch.estimated_bytes > 2500
    assert keeping.shared.tokens == 1_000_000 - batch.estimated_bytes


@pytest.mark.parametrize("real", [200, 1000])
def test_the_estimate_is_corrected_by_what_is_sent(keeping: Keeping, real: int) -> None:
    """What exporters say they sent corrects the estimate, within a factor of 4 upwards and 20 downwards."""
    for _ in range(60):
        for _ in range(10):
            record()
        batch = take()
        core.count_io(real, 0, batch.estimated_bytes)
    assert batch.estimated_bytes == pytest.approx(real, rel=0.05)
    for _ in range(60):
        record()
        core.count_io(1 << 30, 0, take().estimated_bytes)
    record()
    assert take().estimated_bytes == 4 * SPAN
    assert keeping.account()["pending"] == 0


def test_what_was_never_charged_is_taken_from_the_bucket(keeping: Keeping) -> None:
    """Bytes that were sent for no spans, as metrics are, are not there for spans."""
    keeping.network(0)
    keeping.shared.tokens = 1000
    core.count_io(1500, 3)
    assert keeping.shared.tokens == -500
    core.count_io(0, 3)
    assert keeping.shared.tokens == -500


# ---- the readings ----


def test_readings_tell_what_was_kept_and_why(keeping: Keeping) -> None:
    """Traces are counted by what they were kept for, those with a trigger that were not by that, and plain ones."""
    keeping.thresholds(ALL)
    keeping.limits(error=2, sla=1)
    for _ in range(3):
        failed()
        record("order.reject", error=True)
        record("risk.breach", error=True)
        record("keep.sla", sla="1ms", seconds=0.002, error=True)
        record()
    root = record()
    core.pin(root.trace_id)
    record("keep.part", root)
    take()
    reading = keeping.readings()
    kept = {name: reading.kept[getattr(at, f"TRIGGER_{name}")] for name in ("REJECT", "RISK", "PINNED", "SHARE")}
    assert kept == {"REJECT": 3, "RISK": 3, "PINNED": 1, "SHARE": 0}
    assert reading.kept[at.TRIGGER_ERROR] == 2
    assert reading.kept[at.TRIGGER_SLA] == 1
    assert reading.missed[at.TRIGGER_ERROR] + reading.missed[at.TRIGGER_SLA] == 3
    assert reading.dropped == 3
    assert reading.thresholds == (1.0,) * 4
    keeping.thresholds(0)
    failed()
    record()
    take()
    with Readings(keeping.recorder.path) as readings:
        assert readings.read().kept == reading.kept, "as of the last tick"
    reading = keeping.readings()
    assert (reading.kept[at.TRIGGER_ERROR], reading.kept[at.TRIGGER_SHARE]) == (3, 1)


def test_the_horizon(keeping: Keeping) -> None:
    """How far back traces can be kept whole: as long as they may wait, less where the rings come round faster."""
    keeping.policy.write({"hold": 5.0})
    record()
    core.drain()
    assert keeping.readings().horizon == 5.0
    for _ in range(20):
        for _ in range(900):
            record()
        core.drain()
    assert 0.0 < keeping.readings().horizon < 5.0


def test_the_tables_are_in_the_memory_that_is_told(keeping: Keeping, until: Callable[..., None]) -> None:
    """The governor knows of the drain's tables: of the traces', and of the queue with what its spans have."""
    record()
    core.drain()
    before = keeping.readings().memory_heap
    assert before >= 65_536  # the pure backend's table is as large as it is
    record(attributes={"text": "x" * 50_000})
    core.drain()
    until(lambda: keeping.readings().memory_heap >= before + 50_000)
    assert ot.stats()["keep.plain"]["count"] == 2
    keeping.taken()


# ---- waiting for the queue ----


def test_await_kept_sees_spans_and_blocks(keeping: Keeping) -> None:
    """The wait ends when as many spans are there, or as many bytes of what they have."""
    assert not core.await_kept(1, 1 << 30, 0.0)
    record()
    core.drain()
    assert core.await_kept(1, 1 << 30, 10.0)
    assert not core.await_kept(2, 1 << 30, 0.01)
    record(attributes={"text": "x" * 5000})
    core.drain()
    assert core.await_kept(1000, 5000, 10.0)
    assert not core.await_kept(1000, 1 << 30, float("nan"))
    keeping.taken()
    assert not core.await_kept(1, 1, -1.0)


def test_await_kept_is_ended_by_a_pass_and_by_wake(keeping: Keeping, until: Callable[..., None]) -> None:
    """A thread that waits goes on when a pass brings what it waits for, and when it is woken without."""
    import threading

    results: list[bool] = []

    def wait() -> None:
        results.append(core.await_kept(5, 1 << 30, 60.0))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        record()
    core.drain()
    for thread in threads:
        thread.join(20)
    assert results == [True] * 3
    keeping.taken()
    thread = threading.Thread(target=wait)
    thread.start()

    def woken() -> bool:
        core.wake()  # it ends the waits that are going on, and there may be none yet
        return not thread.is_alive()

    until(woken)
    assert results == [True] * 3 + [False]
