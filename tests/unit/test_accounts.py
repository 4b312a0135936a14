"""The accounts: what was recorded is exported, sampled out, overwritten, refused, or pending, to the span."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder

    from otel_trading._native import Batch

PROBES = [ot.probe(f"accounts.p{tier}", tier=tier) for tier in range(4)]
VALUES = ot.histogram("accounts.values")
NOTHING = {"recorded": 0, "exported": 0, "sampled_out": 0, "overwritten": 0, "refused": 0, "pending": 0}


def record(count: int, tier: int = 1) -> None:
    """Record so many spans."""
    probe = PROBES[tier]
    for _ in range(count):
        probe.stop(probe.start())


def test_nothing(recorder: Recorder) -> None:
    """Before the first span all is zero, tier by tier."""
    assert recorder.accounts() == dict.fromkeys(range(4), NOTHING)


def test_without_exporters_all_is_sampled_out(recorder: Recorder) -> None:
    """Spans that nobody wants are drained into the metrics and count as sampled out, each in its tier."""
    for tier in range(4):
        record(10 * (tier + 1), tier)
    accounts = recorder.accounts()
    for tier in range(4):
        assert accounts[tier] == {**NOTHING, "recorded": 10 * (tier + 1), "sampled_out": 10 * (tier + 1)}


def test_kept_spans_are_pending_until_settled(recorder: Recorder) -> None:
    """Kept spans are pending in the queue and on their way, then exported or refused."""
    core.keep(100)
    record(30)
    assert recorder.accounts()[1] == {**NOTHING, "recorded": 30, "pending": 30}
    taken = core.take(20)
    assert len(taken) == 20
    assert recorder.accounts()[1] == {**NOTHING, "recorded": 30, "pending": 30}
    assert taken.settle(5) == ((0, 15, 0, 0), (0, 5, 0, 0))
    assert recorder.accounts()[1] == {**NOTHING, "recorded": 30, "exported": 15, "refused": 5, "pending": 10}
    taken = core.take(20)
    assert len(taken) == 10
    taken.settle()
    assert recorder.accounts()[1] == {**NOTHING, "recorded": 30, "exported": 25, "refused": 5}
    assert len(core.take(20)) == 0


def test_taken_spans_are_the_ones_recorded(recorder: Recorder) -> None:
    """What the exporters get is what a reader of the segment sees, oldest first."""
    core.keep(100)
    for number in range(10):
        with PROBES[2].span(number=number):
            pass
    core.drain()
    batch = core.take(100)
    taken = batch.states()
    assert [state[11]["number"] for state in taken] == list(range(10))
    assert [(state[2], state[3]) for state in taken] == [(r.trace_id, r.span_id) for r in recorder.records()]
    batch.settle()


def test_a_full_queue_refuses(recorder: Recorder) -> None:
    """Spans past the queue's end are refused, and counted so."""
    core.keep(8)
    record(20, tier=0)
    account = recorder.accounts()[0]
    assert account["recorded"] == 20
    assert account["pending"] == 8
    assert account["refused"] == 12


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("extra", [0, 1, 2, 500, 1024, 5000])
def test_wrap_around_is_counted_to_the_event(make_recorder: Callable[..., Recorder], extra: int) -> None:
    """What the ring's next round overwrites before the drain came is counted, to the span."""
    recorder = make_recorder(ring__slots=1024)
    record(1024 + extra, tier=3)
    account = recorder.accounts()[3]
    assert account["recorded"] == 1024 + extra
    assert account["overwritten"] == extra
    assert account["sampled_out"] == 1024
    assert len(recorder.records()) == 1024
    assert recorder.segment.reader.missed() == (extra, 0)


@pytest.mark.usefixtures("quiet")
def test_wrap_around_with_a_mix_of_tiers_and_values(make_recorder: Callable[..., Recorder]) -> None:
    """Overwritten records are counted in their own tiers, histogram values between them notwithstanding."""
    recorder = make_recorder(ring__slots=64)
    for number in range(1000):
        record(1, number % 4)
        VALUES.record(1.0)
    accounts = recorder.accounts()
    assert [account["recorded"] for account in accounts.values()] == [250] * 4
    assert [account["overwritten"] for account in accounts.values()] == [242] * 4
    assert len(recorder.records()) == 32


def test_drained_in_time_nothing_is_overwritten(make_recorder: Callable[..., Recorder]) -> None:
    """A ring that is drained before each round loses nothing however long it runs."""
    recorder = make_recorder(ring__slots=64)
    for _ in range(100):
        record(64)
        core.drain()
    assert recorder.accounts()[1] == {**NOTHING, "recorded": 6400, "sampled_out": 6400}


def test_tiers_that_are_off_record_nothing(recorder: Recorder) -> None:
    """Spans of a tier that is off are not recorded, those of the others are."""
    with Control(recorder.path) as control:
        for tier in range(1, 4):
            control.set_tier(tier, False)
        for tier in range(4):
            record(5, tier)
        assert [account["recorded"] for account in recorder.accounts().values()] == [5, 0, 0, 0]
        control.set_tier(2, True)
        record(5, 2)
    assert recorder.accounts()[2]["recorded"] == 5


def test_sampling_takes_whole_traces(recorder: Recorder) -> None:
    """The sampling rate keeps about its share of the traces, each whole."""
    with Control(recorder.path) as control:
        control.sampling_rate = 0.5
    core.keep(10_000)
    for _ in range(200):
        with PROBES[0], PROBES[1]:
            pass
    core.drain()
    batch = core.take(10_000)
    taken = batch.states()
    traces = [state[2] for state in taken]
    assert all(traces.count(trace) == 2 for trace in traces)
    # Of 200 fair coins fewer than 60 or more than 140 heads come once in a hundred million runs.
    assert 60 <= len(set(traces)) <= 140
    accounts = recorder.accounts()
    assert accounts[0]["sampled_out"] + len(set(traces)) == 200
    batch.settle()


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 0), (1.0, 50)])
def test_sampling_none_and_all(recorder: Recorder, rate: float, kept: int) -> None:
    """Rate 0 keeps none, rate 1 keeps all."""
    with Control(recorder.path) as control:
        control.sampling_rate = rate
    core.keep(100)
    record(50)
    assert recorder.accounts()[1]["pending"] == kept


def test_sampled_out_spans_are_in_the_metrics(recorder: Recorder) -> None:
    """The share of traces that is exported does not change the statistics."""
    with Control(recorder.path) as control:
        control.sampling_rate = 0.0
    record(40)
    assert ot.stats()["accounts.p1"]["count"] == 40


def test_export_switch(recorder: Recorder) -> None:
    """With the export switch off spans are drained and count as sampled out."""
    core.keep(100)
    with Control(recorder.path) as control:
        control.export = False
        record(10)
        assert recorder.accounts()[1] == {**NOTHING, "recorded": 10, "sampled_out": 10}
        control.export = True
        record(10)
    assert recorder.accounts()[1] == {**NOTHING, "recorded": 20, "sampled_out": 10, "pending": 10}


class Accounts(RuleBasedStateMachine):
    """Anything that may happen to a recorder, in any order, with a model that knows what was recorded."""

    def __init__(self) -> None:
        """Start a recorder with a small ring."""
        super().__init__()
        ot.shutdown(1.0)
        ot.enable(True)
        self.directory = tempfile.TemporaryDirectory()
        config = {"ring.slots": 64, "ring.thread_slots": 16, "drain.period": 60}
        ot.configure("machine", self.directory.name, config)
        (path,) = (Path(root) / file for root, _, files in os.walk(self.directory.name) for file in files)
        self.control = Control(path)
        self.recorded = [0, 0, 0, 0]
        self.batches: list[Batch] = []
        self.on = [True] * 4
        self.enabled = True
        self.taken = [0, 0, 0, 0]

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.control.close()
        ot.shutdown(1.0)
        self.directory.cleanup()

    @initialize(capacity=st.sampled_from([0, 10, 1000]))
    def begin(self, capacity: int) -> None:
        """Choose how many spans are kept."""
        core.keep(capacity)

    @rule(tier=st.integers(0, 3), count=st.integers(1, 100))
    def record(self, tier: int, count: int) -> None:
        """Record spans."""
        record(count, tier)
        if self.enabled and (self.on[tier] or tier == 0):
            self.recorded[tier] += count

    @rule(count=st.integers(1, 40))
    def record_values(self, count: int) -> None:
        """Record values, which share the ring."""
        for _ in range(count):
            VALUES.record(1.0)

    @rule(depth=st.integers(1, 20))
    def nest(self, depth: int) -> None:
        """Record a trace over all tiers."""
        self._nest(depth)

    def _nest(self, depth: int) -> None:
        if not depth:
            return
        with PROBES[depth % 4].span(depth=depth):
            self._nest(depth - 1)
        if self.enabled and (self.on[depth % 4] or depth % 4 == 0):
            self.recorded[depth % 4] += 1

    @rule(rate=st.sampled_from([0.0, 0.3, 1.0]))
    def sample(self, rate: float) -> None:
        """Change the sampling rate."""
        self.control.sampling_rate = rate

    @rule(tier=st.integers(0, 3), on=st.booleans())
    def switch_tier(self, tier: int, on: bool) -> None:  # noqa: FBT001
        """Switch a tier."""
        self.control.set_tier(tier, on or tier == 0)
        self.on[tier] = on

    @rule(on=st.booleans())
    def switch_export(self, on: bool) -> None:  # noqa: FBT001
        """Switch the export."""
        self.control.export = on

    @rule(on=st.booleans())
    def switch_recording(self, on: bool) -> None:  # noqa: FBT001
        """Switch recording."""
        ot.enable(on)
        self.enabled = on

    @rule(capacity=st.sampled_from([0, 5, 50, 1000]))
    def keep(self, capacity: int) -> None:
        """Change how many spans are kept."""
        core.keep(capacity)

    @rule()
    def drain(self) -> None:
        """Make a pass."""
        core.drain()

    @rule(limit=st.integers(0, 50))
    def take(self, limit: int) -> None:
        """Take kept spans."""
        batch = core.take(limit)
        self.taken = [count + more for count, more in zip(self.taken, batch.tiers, strict=True)]
        self.batches.append(batch)

    @rule(which=st.floats(0.0, 1.0, exclude_max=True), share=st.floats(0.0, 1.0), sent=st.booleans())
    def settle(self, which: float, share: float, sent: bool) -> None:  # noqa: FBT001
        """Settle one of the batches that were taken, in any order, some of its spans one way, some the other."""
        if not self.batches:
            return
        batch = self.batches.pop(int(which * len(self.batches)))
        if sent:
            batch.sent()
        exported, refused = batch.settle(int(len(batch) * share))
        assert sum(refused) == int(len(batch) * share)
        assert [e + r for e, r in zip(exported, refused, strict=True)] == list(batch.tiers)
        self.taken = [c - e - r for c, e, r in zip(self.taken, exported, refused, strict=True)]

    @invariant()
    def balanced(self) -> None:
        """Demand that each tier's account is balanced, and knows what was recorded."""
        for tier, account in ot.accounts().items():
            parts = ("exported", "sampled_out", "overwritten", "refused", "pending")
            assert account["recorded"] == sum(account[part] for part in parts), (tier, account)
            assert account["recorded"] == self.recorded[tier], (tier, account)
            assert account["pending"] >= self.taken[tier], (tier, account)


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
