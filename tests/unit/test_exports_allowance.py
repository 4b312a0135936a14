"""What the budget lets exporters send: never more than its limit in a second, nothing where that is 0."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_trading import _layout as at
from otel_trading.budget.policy import Policy
from otel_trading.drain.allowance import SPAN, Allowance
from otel_trading.segment import Control
from otel_trading.segment.pages import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

LIMIT = 1000.0


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.now = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a clock that goes when told."""
    return Clock()


@pytest.fixture
def governed(recorder: Recorder) -> Iterator[Policy]:
    """Have a network budget in the segment, and no governor that changes modes."""
    numbers = [math.inf] * (at.BUDGETS * at.MODES)
    numbers[at.BUDGET_NETWORK * at.MODES : (at.BUDGET_NETWORK + 1) * at.MODES] = [LIMIT, LIMIT, LIMIT / 4, 0.0]
    with Policy(recorder.path) as policy:
        policy.write({"budget": numbers})
        policy.active = True
        yield policy
        policy.active = False


@pytest.fixture
def allowance(governed: Policy, recorder: Recorder, clock: Clock) -> Iterator[Allowance]:
    """Give what the budget allows."""
    del governed
    made = Allowance(str(recorder.path), clock)
    yield made
    made.close()


def force(recorder: Recorder, mode: int) -> None:
    """Have a mode."""
    with Control(recorder.path) as control:
        control.force(mode)


def test_without_a_policy_there_is_no_limit(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing is governed, and where there is no segment, all may leave."""
    for path in (None, str(recorder.path), str(recorder.directory / "nothing")):
        allowance = Allowance(path)
        assert allowance.room() == allowance.limit == math.inf
        assert allowance.wait(1e9) == 0.0
        assert (allowance.mode, allowance.slower) == (at.MODE_NORMAL, 1.0)
        allowance.spent(10**9, 1)
        assert allowance.room() == math.inf
        allowance.close()
    assert caplog.text.count("exports are not paced") == 1
    recorder.faults_expected = 1


def test_what_was_sent_is_free_again_later(allowance: Allowance, clock: Clock) -> None:
    """A request takes its bytes of the room for a little more than a second."""
    assert allowance.room() == LIMIT
    allowance.spent(600, 0)
    assert allowance.room() == 400
    clock.now += 0.5
    allowance.spent(400, 0)
    assert allowance.room() == 0
    assert allowance.wait(600) == pytest.approx(SPAN - 0.5)
    assert allowance.wait(601) == pytest.approx(SPAN)
    assert allowance.wait(10**9) == pytest.approx(SPAN)
    clock.now += SPAN - 0.5 + 1e-6
    assert allowance.room() == 600
    assert allowance.wait(600) == 0.0


def test_more_than_a_second_holds_is_paid_for_in_time(allowance: Allowance, clock: Clock) -> None:
    """A request that alone is three seconds' worth leaves no room for three seconds."""
    allowance.spent(3000, 0)
    clock.now += 3 * SPAN - 0.01
    assert allowance.room() < 0
    clock.now += 0.02
    assert allowance.room() == LIMIT


def test_a_flush_holds_nothing_up(allowance: Allowance) -> None:
    """Exempt bytes take no room."""
    allowance.spent(10**6, 0, exempt=True)
    assert allowance.room() == LIMIT


def test_metrics_find_room_beside_spans(allowance: Allowance, clock: Clock) -> None:
    """What metrics have reserved spans do not get, and wait for."""
    allowance.spent(900, 0)
    allowance.reserve(300)
    assert allowance.room() == -200
    assert allowance.room(metrics=True) == 100
    assert not allowance.claim(300, metrics=True)
    assert allowance.wait(300, metrics=True) == pytest.approx(SPAN)
    clock.now += SPAN + 1e-6
    assert allowance.room() == 700
    assert not allowance.claim(LIMIT)
    assert allowance.wait(LIMIT) > 0.0
    assert allowance.claim(300, metrics=True)
    allowance.spent(250, 0, metrics=True)
    assert allowance.room() == 750


def test_spans_find_room_beside_metrics(allowance: Allowance, clock: Clock) -> None:
    """Metrics get half of it, however many there are; and two at once never get the same room."""
    assert allowance.room(metrics=True) == LIMIT / 2
    assert allowance.claim(10 * LIMIT, metrics=True) is True  # more than there ever is: all that there is
    assert not allowance.claim(1)
    allowance.spent(400, 0, metrics=True)
    assert allowance.room(metrics=True) == 100
    assert allowance.claim(600)
    assert not allowance.claim(100, metrics=True)
    allowance.spent(600, 0)
    assert allowance.room() == allowance.room(metrics=True) == 0
    clock.now += SPAN + 1e-6
    assert (allowance.room(), allowance.room(metrics=True)) == (LIMIT, LIMIT / 2)


def test_the_mode_counts_at_once(allowance: Allowance, recorder: Recorder) -> None:
    """A heavier mode has less room and longer intervals, EMERGENCY none; the way back needs nothing."""
    force(recorder, at.MODE_STRESSED)
    assert (allowance.mode, allowance.room(), allowance.slower) == (at.MODE_STRESSED, LIMIT / 4, pytest.approx(1 / 0.3))
    force(recorder, at.MODE_EMERGENCY)
    assert (allowance.limit, allowance.slower) == (0.0, 1.0)
    assert allowance.room() == 0.0
    assert 0.0 < allowance.wait(1) <= 1.0
    force(recorder, at.MODE_NORMAL)
    assert allowance.room() == LIMIT


def test_nothing_is_claimed_where_nothing_may_be_sent(allowance: Allowance, recorder: Recorder) -> None:
    """With a limit of 0 not even a request for nothing gets its room, of spans or of metrics."""
    force(recorder, at.MODE_EMERGENCY)
    for size in (0.0, 1.0, 400.0):
        assert not allowance.claim(size)
        assert not allowance.claim(size, metrics=True)
    force(recorder, at.MODE_NORMAL)
    assert allowance.claim(400.0)


def test_exports_wait_where_the_governor_says_so(allowance: Allowance, recorder: Recorder) -> None:
    """While the word in the control page is set nothing is sent."""
    page = Page(recorder.path, "control page", at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL)
    page.words[at.OFF_CONTROL_EXPORTS_WAIT // 8] = 1
    assert allowance.room() == allowance.limit == 0.0
    page.words[at.OFF_CONTROL_EXPORTS_WAIT // 8] = 0
    assert allowance.room() == LIMIT
    page.close()


def test_a_limit_that_is_no_number_lets_nothing_out(allowance: Allowance, governed: Policy) -> None:
    """A damaged page is not taken for permission."""
    governed.words[at.OFF_POLICY_BUDGET // 8 + at.BUDGET_NETWORK * at.MODES] = 0x7FF8_0000_0000_0000
    assert allowance.limit == 0.0
    assert allowance.room() == 0.0


def test_after_the_end_there_is_no_limit(allowance: Allowance) -> None:
    """What is sent after the segment is gone is the end's."""
    allowance.close()
    allowance.close()
    assert allowance.room() == math.inf


@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 1500)), max_size=60))
def test_no_second_holds_more_than_the_limit(steps: list[tuple[float, int]]) -> None:
    """Whoever sends only what there is room for stays within the limit in each window of up to 1.1 s."""
    clock = Clock()
    allowance = _Limited(clock)
    sent: list[tuple[float, int]] = []
    for wait, size in steps:
        clock.now += wait
        if allowance.room() < size:
            pause = allowance.wait(size)
            assert pause > 0.0 or size > LIMIT
            clock.now += pause + 1e-6
        if allowance.room() >= size:
            allowance.spent(size, 0)
            sent.append((clock.now, size))
    for begin, _ in sent:
        assert sum(size for at_time, size in sent if begin <= at_time < begin + SPAN) <= LIMIT


class _Limited(Allowance):
    """Of a limit that is not in any segment."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(None, clock)

    def _now(self) -> tuple[int, float]:
        return at.MODE_NORMAL, LIMIT
