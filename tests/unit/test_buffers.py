"""The rings' sizes: a quarter and back again while they are written to, without losing a record."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from conftest import Segment, assert_balanced, wait_until
from governed import Governed

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

PROBE = ot.probe("buffers.work")
LEAST = 64  # slots that a ring keeps
SLOT = at.SIZE_SLOT
BIG = {"ring.slots": 16_384, "ring.thread_slots": 4096, "drain.period": 0.02}
# The collector's pauses would be records of their own.
pytestmark = pytest.mark.usefixtures("quiet")


def ask(recorder: Recorder, shift: int) -> None:
    """Ask for rings of their slots >> shift, as the governor does."""
    with Control(recorder.path) as control:
        control.words[at.OFF_CONTROL_BUFFERS // 8] = shift


def fitted(recorder: Recorder) -> int:
    """Give the shift that the rings have."""
    with Control(recorder.path) as control:
        return int(control.words[at.OFF_CONTROL_BUFFERS_NOW // 8])


def capacities(recorder: Recorder) -> list[int]:
    """Give the slots of each ring."""
    return [ring["capacity"] for ring in recorder.info["rings"]]  # type: ignore[attr-defined]


def space(recorder: Recorder) -> int:
    """Give the bytes that the file takes."""
    return os.stat(recorder.path).st_blocks * 512


def record(count: int, first: int = 0) -> None:
    """Record so many spans, numbered."""
    for number in range(first, first + count):
        with PROBE.span(number=number, twice=2 * number):
            pass


class Writers:
    """Threads that record numbered spans until they are told to stop."""

    def __init__(self, count: int) -> None:
        self.counts = [0] * count
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(index,)) for index in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, index: int) -> None:
        while not self._ending.is_set():
            for _ in range(20):
                number = self.counts[index]
                with PROBE.span(number=number, twice=2 * number, writer=index):
                    pass
                self.counts[index] = number + 1
            time.sleep(0.0005)

    def stop(self) -> int:
        """End them; gives how many spans they recorded."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        return sum(self.counts)


@pytest.fixture
def writers() -> Iterator[Callable[[int], Writers]]:
    """Give a function that starts threads which record; they end with the test."""
    made: list[Writers] = []

    def make(count: int) -> Writers:
        made.append(Writers(count))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_nothing_to_do(recorder: Recorder) -> None:
    """Where the rings have their size, nothing happens; without a segment neither."""
    assert core.fit_buffers() == 0
    assert capacities(recorder) == [1024]
    ot.shutdown()
    assert core.fit_buffers() == 0


def test_pages_go_back_and_come_again(make_recorder: Callable[..., Recorder]) -> None:
    """A shift of two leaves a quarter of the slots; what the file takes shrinks by just that, and grows again."""
    recorder = make_recorder(**BIG)
    whole = space(recorder)
    ask(recorder, 2)
    assert core.fit_buffers() == 12_288 * SLOT
    assert (capacities(recorder), fitted(recorder)) == ([4096], 2)
    assert space(recorder) == whole - 12_288 * SLOT
    assert core.fit_buffers() == 0
    ask(recorder, 4)
    assert core.fit_buffers() == 3072 * SLOT
    assert space(recorder) == whole - 15_360 * SLOT
    ask(recorder, 0)
    assert core.fit_buffers() == -15_360 * SLOT
    assert (capacities(recorder), fitted(recorder)) == ([16_384], 0)
    assert space(recorder) == whole


def test_a_ring_keeps_its_least_slots(recorder: Recorder) -> None:
    """However much is asked for, 64 slots are left, and they work."""
    ask(recorder, 20)
    core.fit_buffers()
    assert capacities(recorder) == [LEAST]
    for first in range(0, 300, 50):
        record(50, first)
        core.drain()
    assert recorder.accounts()[1] == {**recorder.accounts()[1], "recorded": 300, "sampled_out": 300, "overwritten": 0}


@pytest.mark.parametrize("shift", [2, 4])
def test_what_waits_is_not_lost(recorder: Recorder, shift: int) -> None:
    """Records that nobody has drained yet are, before the ring gets smaller: all come out, oldest first."""
    core.keep(100_000)
    record(900)
    ask(recorder, shift)
    core.fit_buffers()
    assert capacities(recorder) == [1024 >> shift]
    record(40, 900)
    core.drain(True)
    batch = core.take(10_000)
    assert [state[11]["number"] for state in batch.states()] == list(range(940))
    assert batch.settle() == ((0, 940, 0, 0), (0, 0, 0, 0))
    assert recorder.accounts()[1]["exported"] == 940


def test_the_queue_shrinks_with_the_rings(recorder: Recorder) -> None:
    """Spans beyond what the queue has left are let go, refused and counted, the newest; it grows again too."""
    core.keep(400)
    record(300)
    core.drain(True)
    ask(recorder, 2)
    core.fit_buffers()
    assert core.kept() == 100
    batch = core.take(400)
    assert [state[11]["number"] for state in batch.states()] == list(range(100))
    assert recorder.accounts()[1]["refused"] == 200
    batch.settle()
    ask(recorder, 0)
    core.fit_buffers()
    record(300)
    core.drain(True)
    assert core.kept() == 300


def test_open_spans_and_long_attributes_survive(recorder: Recorder) -> None:
    """Spans that are open while the ring changes end in it as if nothing had been, with what they have in the arena."""
    text = "x" * 500
    with PROBE.span(number=1, note=text) as span:
        token = PROBE.start()
        ask(recorder, 4)
        core.fit_buffers()
        PROBE.stop(token)
        span.set_attribute("later", text)
    inner, outer = recorder.named("buffers.work")
    assert inner.parent_id == outer.span_id
    assert outer.attributes == {"number": 1, "note": text, "later": text}
    ask(recorder, 0)
    with PROBE.span(number=2):
        core.fit_buffers()
    assert recorder.only("buffers.work").attributes == {"number": 2}


def test_under_load(make_recorder: Callable[..., Recorder], writers: Callable[[int], Writers]) -> None:
    """Four threads record while the rings shrink and grow: each span is accounted for, and its numbers fit together."""
    recorder = make_recorder(**BIG)
    core.keep(1_000_000)
    running = writers(4)
    wait_until(lambda: all(running.counts))
    for _ in range(5):
        for shift in (2, 4, 0):
            before = sum(running.counts)
            ask(recorder, shift)
            wait_until(lambda shift=shift: core.fit_buffers() or fitted(recorder) == shift)
            wait_until(lambda shift=shift: (core.fit_buffers(), fitted(recorder) == shift)[1])
            wait_until(lambda before=before: sum(running.counts) > before + 200)
    total = running.stop()
    core.drain(True)
    account = recorder.accounts()[1]
    assert account["recorded"] == total
    batch = core.take(1_000_000)
    states = batch.states()
    assert len(states) == account["pending"]
    assert account["pending"] + account["overwritten"] == total
    seen = {(state[11]["writer"], state[11]["number"]) for state in states}
    assert len(seen) == len(states)
    assert all(state[11]["twice"] == 2 * state[11]["number"] for state in states)  # type: ignore[operator]
    batch.settle()
    assert_balanced(recorder.accounts())


def test_readers_stay_right(make_recorder: Callable[..., Recorder], writers: Callable[[int], Writers]) -> None:
    """A reader that is attached meanwhile gives only whole spans, each once, and knows how many it has missed."""
    recorder = make_recorder(**BIG)
    reader = Segment(recorder.path)
    running = writers(2)
    wait_until(lambda: all(running.counts))
    seen: list[tuple[object, object]] = []

    def read() -> None:
        for one in reader.records():
            number = one.attributes["number"]
            assert one.attributes["twice"] == 2 * number  # type: ignore[operator]
            seen.append((one.attributes["writer"], number))

    for _ in range(6):
        for shift in (4, 2, 0):
            ask(recorder, shift)
            wait_until(lambda shift=shift: (core.fit_buffers(), read(), fitted(recorder) == shift)[2])
            read()
    total = running.stop()
    read()
    assert len(set(seen)) == len(seen)
    assert len(seen) + sum(reader.reader.missed()) == total
    reader.close()


def test_a_reader_that_comes_after_a_growth(recorder: Recorder) -> None:
    """What was in the ring before it grew is gone for readers, counted missed and not torn."""
    record(200)
    ask(recorder, 4)
    core.fit_buffers()
    ask(recorder, 0)
    core.fit_buffers()
    record(10, 200)
    reader = Segment(recorder.path)
    assert [one.attributes["number"] for one in reader.records()][-10:] == list(range(200, 210))
    missed, torn = reader.reader.missed()
    assert torn == 0
    assert missed >= 200 - LEAST
    reader.close()


def test_a_ring_that_is_made_meanwhile(recorder: Recorder) -> None:
    """A thread that begins to record while the rings are small gets a small one; it grows with the others."""
    ask(recorder, 2)
    core.fit_buffers()
    before = space(recorder)
    thread = threading.Thread(target=record, args=(30,))
    thread.start()
    thread.join()
    assert capacities(recorder) == [256, LEAST]
    # the open spans and the arena are as large as ever; of the slots a quarter is there, the rest is a hole
    assert space(recorder) - before <= 64 * SLOT + (1 << 15) + 64 * SLOT + 4 * at.PAGE
    ask(recorder, 0)
    assert core.fit_buffers() == -(768 + 192) * SLOT
    assert capacities(recorder) == [1024, 256]
    record(10)
    assert recorder.accounts()[1]["recorded"] == 40


def test_the_enforcer_asks_and_takes_back(make_recorder: Callable[..., Recorder]) -> None:
    """Too much memory leads to smaller rings; when there is room for what they take more, they come back."""
    recorder = make_recorder(**BIG)
    governed = Governed(recorder.path)
    governed.policy.set_limit("memory", at.MODE_NORMAL, 10e6)
    governed.tick(memory=11e6)
    (shrunk,) = governed.decisions()
    assert (shrunk.kind, shrunk.reason) == (at.DECISION_BUFFERS, at.REASON_BUDGET_MEMORY)
    assert (shrunk.figure, shrunk.limit, shrunk.before, shrunk.after) == (11e6, 10e6, 1.0, 0.25)
    assert core.await_decision(1, 10.0) == 1  # does not fit: told at once
    assert core.fit_buffers() == 12_288 * SLOT
    assert governed.run(7.0, memory=9.5e6).buffers == 2  # it would be too much again
    assert governed.run(1.0, memory=8e6).buffers == 2  # asked for, not yet done
    core.fit_buffers()
    assert governed.tick().buffers == 0
    grown = governed.decisions()[-1]
    assert (grown.kind, grown.reason, grown.before, grown.after) == (
        at.DECISION_BUFFERS,
        at.REASON_RECOVERED,
        0.25,
        1.0,
    )
    governed.close()


def test_who_waits_for_decisions_is_told_of_the_same_rings_now_and_then(recorder: Recorder) -> None:
    """Rings that do not fit end a wait, but not again and again: somebody who can not fit them must not spin."""
    ask(recorder, 2)
    deadline = time.monotonic() + 0.5
    told = 0
    while time.monotonic() < deadline:
        assert core.await_decision(0, 0.5) == 0
        told += 1
    assert 1 <= told <= 8
    core.fit_buffers()


def test_withdrawing_the_policy_gives_the_rings_back(recorder: Recorder) -> None:
    """Where nothing is governed any longer the rings are to be as large as they were configured."""
    governed = Governed(recorder.path)
    governed.policy.set_limit("memory", at.MODE_NORMAL, 10e6)
    governed.tick(memory=11e6)
    core.fit_buffers()
    assert capacities(recorder) == [256]
    governed.policy.active = False
    governed.tick()
    core.fit_buffers()
    assert capacities(recorder) == [1024]
    governed.close()


def test_a_small_ring_that_is_overrun(recorder: Recorder) -> None:
    """Where more waits than any ring holds, the oldest are overwritten, counted, and the rest survives the change."""
    core.keep(100_000)
    record(3000)
    ask(recorder, 2)
    core.fit_buffers()
    core.drain(True)
    batch = core.take(10_000)
    numbers = [state[11]["number"] for state in batch.states()]
    assert numbers == list(range(3000 - len(numbers), 3000))
    account = recorder.accounts()[1]
    assert account["overwritten"] == 3000 - len(numbers)
    batch.settle()
