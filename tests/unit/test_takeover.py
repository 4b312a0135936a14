"""Who drains goes on where another one stopped, or was killed: nothing lost, nothing twice, exact accounts."""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from adopting import EVERYTHING, Adopting, Ledger, drained, sent, totals, wait_for_records
from adopting import adopting as adopting  # noqa: PLC0414  a fixture
from conftest import SMALL, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from conftest import Recorder

    from otel_trading._native import SpanState

PROBES = [ot.probe(f"takeover.p{tier}", tier=tier) for tier in range(4)]
PROBE = PROBES[1]
NONE = (0, 0, 0, 0)
pytestmark = pytest.mark.usefixtures("quiet")


def record(count: int, first: int = 0, tier: int = 1) -> None:
    """Record so many numbered spans."""
    for number in range(first, first + count):
        with PROBES[tier].span(number=number):
            pass


def numbers(states: list[SpanState]) -> list[int]:
    """Give the spans' numbers."""
    return [int(state[11]["number"]) for state in states]


# ---- batches


def test_a_batch_is_settled_once(recorder: Recorder) -> None:
    """What is refused is taken for the lowest tiers; only the first call counts."""
    core.keep(100)
    for tier in range(4):
        record(5, tier=tier)
    core.drain()
    batch = core.take(100)
    assert batch.settle(7) == ((5, 5, 3, 0), (0, 0, 2, 5))
    assert batch.settle() == (NONE, NONE)
    batch.sent()
    accounts = recorder.accounts()
    assert [accounts[tier]["exported"] for tier in range(4)] == [5, 5, 3, 0]
    assert [accounts[tier]["refused"] for tier in range(4)] == [0, 0, 2, 5]
    assert core.take(0).settle(3) == (NONE, NONE)


def test_more_refused_than_there_are(recorder: Recorder) -> None:
    """A receiver that refuses more spans than it got refuses all of them."""
    core.keep(100)
    record(3)
    core.drain()
    assert core.take(100).settle(10) == (NONE, (0, 3, 0, 0))
    assert recorder.accounts()[1]["refused"] == 3


# ---- in one process


def test_what_was_given_away_is_taken_again(recorder: Recorder) -> None:
    """What is settled stays so, what waits in the queue is decided anew, what came meanwhile as well."""
    core.keep(1000)
    record(40)
    core.drain()
    first = numbers(sent(core.take(10)))
    core.drain_give()
    assert recorder.accounts()[1] == {
        "recorded": 40,
        "exported": 10,
        "sampled_out": 0,
        "overwritten": 0,
        "refused": 0,
        "pending": 30,
    }
    record(20, 40)
    assert core.drain() == 0
    assert recorder.accounts()[1]["pending"] == 50
    core.drain_take()
    assert recorder.accounts()[1]["pending"] == 50
    core.keep(1000)
    assert first + numbers(drained()) == list(range(60))
    assert recorder.accounts()[1]["exported"] == 60
    assert ot.stats()["takeover.p1"]["count"] == 60


def test_nothing_is_decided_before_somebody_says_what_is_kept(recorder: Recorder) -> None:
    """After a takeover accounts and snapshots only look, until ``keep`` or a pass."""
    core.drain_give()
    record(5)
    core.drain_take()
    core.snapshot()
    assert recorder.accounts()[1]["pending"] == 5
    core.keep(10)
    core.drain()
    assert core.kept() == 5
    sent(core.take(10))


def test_a_process_that_drains_not_says_who(recorder: Recorder, adopting: Adopting) -> None:
    """The control page tells by whom the segment is drained."""

    def told() -> tuple[int, int]:
        return adopting.control(at.OFF_CONTROL_DRAINED_BY), adopting.control(at.OFF_CONTROL_HOST_NOW)

    assert recorder.path == adopting.path
    assert told() == (os.getpid(), at.HOST_EMBEDDED)
    core.drain_give()
    assert told()[0] == 0
    core.drain_take()
    assert told() == (os.getpid(), at.HOST_EMBEDDED)


def test_a_batch_from_before_changes_nothing(recorder: Recorder) -> None:
    """A batch that is settled after the drain was given away leaves its spans to the next one."""
    core.keep(100)
    record(10)
    core.drain()
    batch = core.take(10)
    core.drain_give()
    batch.sent()
    batch.settle()
    core.drain_take()
    core.keep(100)
    assert len(drained()) == 10
    assert recorder.accounts()[1]["exported"] == 10


def test_sent_spans_are_not_sent_again(recorder: Recorder) -> None:
    """What the kernel has counts as exported for who takes over."""
    core.keep(100)
    record(10)
    core.drain()
    core.take(4).sent()
    core.drain_give()
    core.drain_take()
    core.keep(100)
    assert numbers(drained()) == list(range(4, 10))
    assert recorder.accounts()[1]["exported"] == 10


def test_what_a_receiver_would_not_take_is_not_sent(recorder: Recorder) -> None:
    """A mark that was taken back leaves the spans to whoever comes next; as if they had never been sent."""
    core.keep(100)
    record(10)
    core.drain()
    first, second = core.take(4), core.take(2)
    second.sent()
    first.sent()
    first.unsent()
    assert first.settle(1) == ((0, 3, 0, 0), (0, 1, 0, 0))
    third = core.take(2)
    third.sent()
    third.unsent()
    core.drain_give()
    third.unsent()
    core.drain_take()
    core.keep(100)
    assert numbers(drained()) == list(range(6, 10))
    account = recorder.accounts()[1]
    assert (account["exported"], account["refused"]) == (9, 1)


def test_dropped_and_refused_spans_are_not_decided_again(recorder: Recorder) -> None:
    """What was sampled out or found no room is settled, also behind spans that wait."""
    core.keep(8)
    record(20)
    core.drain()
    refused = recorder.accounts()[1]["refused"]
    assert refused == 20 - core.kept() > 0
    core.drain_give()
    core.drain_take()
    core.keep(100)
    assert numbers(drained()) == list(range(20 - refused))
    assert recorder.accounts()[1]["refused"] == refused


def test_values_and_unsampled_spans_are_settled_at_once(recorder: Recorder) -> None:
    """Histograms' values and spans outside the sample are in the aggregates once, whoever drains."""
    values = ot.histogram("takeover.values")
    core.keep(100)
    record(3)
    values.record(1.0)
    with core.remote(1, 1, False, None):
        record(4, 3)
    core.drain()
    core.drain_give()
    core.drain_take()
    core.keep(100)
    assert numbers(drained()) == [0, 1, 2]
    account = recorder.accounts()[1]
    assert (account["exported"], account["sampled_out"]) == (3, 4)
    (told,) = (one for one in core.snapshot()["instruments"] if one["name"] == "takeover.values")
    assert told["total"][1] == 1


def test_close_leaves_what_was_given_away(recorder: Recorder, adopting: Adopting, tmp_path: Path) -> None:
    """A process that does not drain only marks its segment closed; another one exports the rest."""
    core.keep(100)
    record(10)
    core.drain()
    sent(core.take(4))
    core.drain_give()
    record(10, 10)
    copy = tmp_path / "kept"
    os.link(recorder.path, copy)
    core.close()
    assert core.accounts()[1]["pending"] == 16
    adopting.adopt(copy)
    core.keep(100)
    assert numbers(drained()) == list(range(4, 20))
    assert totals()["exported"] == 20


def test_a_ring_that_came_round_meanwhile(recorder: Recorder) -> None:
    """What was overwritten while nobody drained is counted so, exactly, a tier."""
    core.drain_give()
    record(1000, tier=2)
    record(1000, 1000, tier=3)
    core.drain_take()
    core.keep(10_000)
    assert numbers(drained()) == list(range(976, 2000))
    accounts = recorder.accounts()
    assert [accounts[tier]["overwritten"] for tier in range(4)] == [0, 0, 976, 0]


def test_spans_that_wait_longer_than_the_ring_reaches(recorder: Recorder) -> None:
    """Spans in the queue whose places were taken by newer ones are settled like others."""
    core.keep(10_000)
    for lap in range(4):
        record(1000, 1000 * lap)
        core.drain()
    states = drained()
    assert numbers(states) == list(range(4000))
    core.drain_give()
    assert recorder.accounts()[1]["exported"] == 4000
    core.drain_take()
    core.keep(10)
    assert drained() == []


# ---- by the ring's own writer


def test_the_writer_fits_its_rings_where_another_drains(recorder: Recorder, adopting: Adopting) -> None:
    """A ring that is to be smaller soon is; what was not drained by then is overwritten, and counted."""
    core.drain_give()
    adopting.set_control(at.OFF_CONTROL_BUFFERS, 2)
    written = 0
    while adopting.control(at.OFF_CONTROL_BUFFERS_NOW) != 2:
        record(1024, written)
        written += 1024
        assert written < 100 * 1024
    assert recorder.info["rings"][0]["capacity"] == 256  # type: ignore[index]
    record(100, written)
    core.drain_take()
    core.keep(10_000)
    assert numbers(drained())[-100:] == list(range(written, written + 100))
    account = recorder.accounts()[1]
    assert account["exported"] + account["overwritten"] == written + 100
    core.drain_give()
    adopting.set_control(at.OFF_CONTROL_BUFFERS, 0)
    record(2048, written + 100)
    assert recorder.info["rings"][0]["capacity"] == 1024  # type: ignore[index]
    core.drain_take()
    core.keep(10_000)
    rest = numbers(drained())
    assert rest == list(range(written + 2148 - len(rest), written + 2148))
    account = recorder.accounts()[1]
    assert account["exported"] + account["overwritten"] == written + 2148


# ---- after a kill

BATCH = 64  # the most that a drain of the tests takes at once


def demand_exact(told: dict[str, int], ledger: Ledger, batches: int = 0) -> None:
    """Demand that what is missing is what was overwritten or refused.

    What was sent counts as overwritten where nothing tells of it any more: it was not marked yet, or its place was
    taken while nobody drained, of so many ``batches`` at most.
    """
    missing = set(range(told["recorded"])) - set(ledger.numbers)
    assert 0 <= told["overwritten"] + told["refused"] - len(missing) <= len(ledger.doubtful) + batches * BATCH


@pytest.mark.parametrize(("slots", "burst"), [(1024, 40), (1024, 900), (16_384, 40)])
def test_a_process_that_drained_itself_is_killed(adopting: Adopting, slots: int, burst: int) -> None:
    """Whatever it was doing: what it had sent is not sent again, the rest is, and what is missing was overwritten."""
    bot = adopting.bot(drains=True, slots=slots, burst=burst)
    wait_for_records(adopting, 2000)
    time.sleep(random.random() * 0.2)  # a moment of no account
    bot.kill()
    ledger = Ledger(adopting.directory)
    adopting.adopt()
    core.keep(EVERYTHING)
    ledger.add(drained())
    assert ledger.twice == set()
    told = totals()
    assert told["pending"] == 0
    demand_exact(told, ledger, batches=1)
    core.inherit()
    assert core.interrupt_open("killed", True) in (1, 2)
    left = drained()
    assert left[0][11] == {"open": True}
    assert all(state[9] == "killed" for state in left)


def test_hosts_that_are_killed_one_after_the_other(adopting: Adopting) -> None:
    """A program records all the time; its drain is killed and comes again; the sums are right to the span."""
    bot = adopting.bot(drains=False, burst=20, slots=8192)
    for turn in range(5):
        host = adopting.host(adopting.path, f"host{turn}-")
        before = adopting.heads()
        wait_for_records(adopting, before + 500)
        time.sleep(random.random() * 0.1)
        host.kill()
    bot.kill()
    ledger = Ledger(adopting.directory)
    assert ledger.numbers
    adopting.adopt()
    core.keep(EVERYTHING)
    ledger.add(drained())
    assert ledger.twice == set()
    told = totals()
    assert told["pending"] == 0
    demand_exact(told, ledger, batches=5)


def test_a_host_across_changes_of_size(adopting: Adopting) -> None:
    """A program changes its ring's size while another drains: nothing comes twice, what is missing is counted."""
    bot = adopting.bot(drains=False, burst=20, slots=4096)
    adopting.adopt()
    core.keep(EVERYTHING)
    ledger = Ledger(adopting.directory)
    for shift in (2, 0, 2, 0):
        adopting.set_control(at.OFF_CONTROL_BUFFERS, shift)

        def fitted(shift: int = shift) -> bool:
            ledger.add(drained())
            core.fit_buffers()
            return adopting.control(at.OFF_CONTROL_BUFFERS_NOW) == shift

        wait_until(fitted)
        ledger.add(drained())
    bot.kill()
    ledger.add(drained())
    assert ledger.twice == set()
    told = totals()
    demand_exact(told, ledger)
    core.let_go()
    adopting.adopt()
    again = totals()
    assert {**again, "pending": 0} == {**told, "pending": 0}


# ---- any order of things

STEP = st.one_of(
    st.tuples(st.just("record"), st.integers(1, 700)),
    st.tuples(st.just("drain"), st.booleans()),
    st.tuples(st.just("take"), st.integers(1, 300)),
    st.tuples(st.just("sent"), st.integers(0, 3)),
    st.tuples(st.just("unsent"), st.integers(0, 3)),
    st.tuples(st.just("settle"), st.integers(0, 3)),
    st.tuples(st.just("hand over"), st.booleans()),
    st.tuples(st.just("size"), st.integers(0, 2)),
)


class Model:
    """A recorder, what was recorded, and what has become of it."""

    def __init__(self, directory: Path) -> None:
        """Record in ``directory``; a queue that holds all."""
        ot.configure("model", directory, {**SMALL, "ring.slots": 512})
        core.drain_stop(1.0)
        core.keep(EVERYTHING)
        self.recorded = 0
        self.exported: list[int] = []
        self.hands: list[tuple[Any, list[int], bool]] = []
        self.adopting = Adopting(directory)

    def record(self, count: int) -> None:
        """Record spans of all tiers, and values between them."""
        for number in range(self.recorded, self.recorded + count):
            with PROBES[number % 4].span(number=number):
                pass
        self.recorded += count

    def drain(self, decide: bool) -> None:  # noqa: FBT001  a step's argument
        """Make a pass."""
        core.drain(decide)

    def take(self, count: int) -> None:
        """Have a batch in hand."""
        batch = core.take(count)
        self.hands.append((batch, numbers(batch.states()), False))

    def sent(self, place: int) -> None:
        """Send a batch; it is not sent again, also where the answer never comes."""
        if self.hands:
            place %= len(self.hands)
            batch, spans, _ = self.hands[place]
            batch.sent()
            self.hands[place] = (batch, spans, True)

    def unsent(self, place: int) -> None:
        """Have a batch back that the receiver would not take."""
        if self.hands:
            place %= len(self.hands)
            batch, spans, _ = self.hands[place]
            batch.unsent()
            self.hands[place] = (batch, spans, False)

    def settle(self, place: int) -> None:
        """Have an answer to a batch."""
        if self.hands:
            batch, spans, _ = self.hands.pop(place % len(self.hands))
            batch.settle()
            self.exported += spans

    def hand_over(self, twice: bool) -> None:  # noqa: FBT001  a step's argument
        """Give the drain away and take it again."""
        for _ in range(1 + twice):
            core.drain_give()
            core.drain_take()
        for _, spans, sent_before in self.hands:
            self.exported += spans if sent_before else []
        self.hands.clear()
        core.keep(EVERYTHING)

    def size(self, shift: int) -> None:
        """Change the rings' size."""
        self.adopting.set_control(at.OFF_CONTROL_BUFFERS, shift)
        core.fit_buffers()

    def finish(self) -> None:
        """Export the rest; demand that all is accounted for."""
        while self.hands:
            self.settle(0)
        self.exported += numbers(drained())
        assert len(self.exported) == len(set(self.exported)), "sent twice"
        told = totals()
        assert (told["recorded"], told["pending"]) == (self.recorded, 0)
        core.drain_give()  # what the segment tells is what the drain told
        assert totals() == told
        assert told["exported"] == len(self.exported)


@settings(max_examples=60)
@given(st.lists(STEP, max_size=25))
def test_whatever_happens(steps: list[tuple[str, Any]]) -> None:
    """Spans go out at most once, and what is missing is counted, over laps, sizes, and hands."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            model = Model(Path(directory))
            for name, argument in steps:
                getattr(model, name.replace(" ", "_"))(argument)
            model.finish()
        finally:
            ot.shutdown(1.0)
