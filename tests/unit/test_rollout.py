"""A rollout's decisions: forward while the application's p99 is well, back where it is not, nowhere without data."""

from __future__ import annotations

import logging
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading.budget import rollout
from otel_trading.budget.rollout import CAREFUL, P0_ONLY, Change, Figure, Rollout, Step, parse
from otel_trading.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conftest import Recorder

GOOD = Figure(0.001, 10_000)
STEPS = parse("10% 10m,25% 10m,50% 10m,100%")


class Application:
    """An application whose p99 a test sets."""

    def __init__(self) -> None:
        """Begin well."""
        self.figure: Figure | None = GOOD
        self.asked: list[float] = []

    def measure(self, window: float) -> Figure | None:
        """Give it, and note over how many seconds it was asked for."""
        self.asked.append(window)
        return self.figure


def run(one: Rollout, seconds: float, now: float = 0.0, every: float = 1.0) -> list[tuple[float, float]]:
    """Call it every second for a while; the shares that it gave, with their times."""
    given_out = []
    for tick in range(round(seconds / every)):
        share = one.step(now + tick * every)
        if share is not None:
            given_out.append((now + tick * every, share))
    return given_out


# ---- schedules -------------------------------------------------------------------------------------


def test_schedules_are_read() -> None:
    """Shares and times, as one text or step by step; the last one needs no time."""
    assert parse(" 10% 10m, 25.5 % 30s,50% 1h,100%") == (
        Step(0.1, 600.0),
        Step(0.255, 30.0),
        Step(0.5, 3600.0),
        Step(1.0, 0.0),
    )
    assert parse(["10% 10m", "100%"]) == (Step(0.1, 600.0), Step(1.0, 0.0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "10% 10",
        "10% 10m 5",
        "110%",
        "-1% 5m",
        "ten% 1m",
        "50% 1m,10%",
        "10% 1m,10%",
        "\u0661\u0660%",
        "10%\n,",
    ],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    """Steps without a unit, shares that do not rise, and nonsense are told."""
    with pytest.raises(ConfigurationError):
        parse(text)


def test_a_schedule_has_an_end() -> None:
    """More than a hundred steps are refused."""
    with pytest.raises(ConfigurationError, match="100 steps"):
        parse([f"{number / 10}% 1s" for number in range(101)])


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000), st.sampled_from([0, 1, 30, 60, 90, 3600])),
        min_size=1,
        max_size=8,
        unique_by=lambda pair: pair[0],
    )
)
def test_a_schedule_is_written_as_it_is_read(pairs: list[tuple[int, int]]) -> None:
    """What is shown of a step is what can be typed."""
    steps = tuple(Step(share / 10_000, float(time)) for share, time in sorted(pairs))
    assert parse([str(step) for step in steps]) == tuple(
        Step(pytest.approx(step.share, rel=1e-3), step.seconds) for step in steps
    )


@given(st.text(max_size=30))
def test_any_text_is_a_schedule_or_an_error_of_ours(text: str) -> None:
    """Hostile text raises nothing else."""
    try:
        steps = parse(text)
    except ConfigurationError:
        return
    assert all(0.0 <= step.share <= 1.0 and math.isfinite(step.seconds) for step in steps)


def test_no_share_is_none() -> None:
    """0 % is P0 only; next to nothing is shown as 0 % too."""
    assert rollout.share_of("0%") == P0_ONLY
    assert rollout.percent(P0_ONLY) == rollout.percent(1e-9) == "0%"
    assert rollout.share_of("50") == 0.5
    assert [rollout.behind(share) for share in (1.0, 0.5, 0.1, P0_ONLY)] == [CAREFUL, CAREFUL, P0_ONLY, P0_ONLY]


# ---- forward ---------------------------------------------------------------------------------------


def test_a_healthy_application_is_rolled_out() -> None:
    """P0 only for a window to measure, then each step for its time, then the end."""
    application = Application()
    one = Rollout(STEPS, application.measure)
    assert run(one, 3000) == [(0, P0_ONLY), (60, 0.1), (660, 0.25), (1260, 0.5), (1860, 1.0)]
    assert one.over
    assert not one.rolled_back
    assert set(application.asked) == {60.0}
    assert [change.what for change in one.take()] == ["start", "step", "step", "step", "step", "done"]
    assert one.take() == []
    assert one.step(1e9) is None


def test_the_last_step_is_looked_at_too() -> None:
    """What 100 % does to the application is measured for a window before the rollout is over."""
    application = Application()
    one = Rollout(parse("100%"), application.measure)
    assert run(one, 100) == [(0, P0_ONLY), (60, 1.0)]
    assert not one.over
    application.figure = Figure(0.01, 10_000)
    assert run(one, 60, now=100) == [(120, CAREFUL)]


def test_small_drifts_are_no_reason() -> None:
    """A p99 is compared with that of the step before, times what is allowed."""
    application = Application()
    one = Rollout(parse("10% 1m,50% 1m,100%"), application.measure, worse=1.2)
    run(one, 61)
    for now, p99 in ((121, 0.00119), (181, 0.00142), (241, 0.00170)):
        application.figure = Figure(p99, 1000)
        run(one, 60, now=now - 60)
    run(one, 61, now=241)
    assert [change.after for change in one.take()] == [P0_ONLY, 0.1, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("figure", [None, Figure(0.001, 199), Figure(math.nan, 0)])
def test_without_data_there_is_no_step(figure: Figure | None) -> None:
    """Too few spans, or none, hold the rollout where it is, for as long as that lasts."""
    application = Application()
    application.figure = figure
    one = Rollout(STEPS, application.measure)
    assert run(one, 3600, every=10) == [(0, P0_ONLY)]
    application.figure = GOOD
    assert run(one, 61, now=3600) == [(3600, 0.1)]


def test_it_is_asked_no_more_than_it_has_to_be() -> None:
    """Between two windows nothing is measured, and ``due`` says when the next is."""
    application = Application()
    one = Rollout(STEPS, application.measure)
    assert one.due == -math.inf
    run(one, 600, every=0.5)
    assert one.due == 600.0
    assert len(application.asked) == 9


# ---- back ------------------------------------------------------------------------------------------


def test_a_worsened_application_is_rolled_back_in_two_steps() -> None:
    """From 50 % to 10 %, and where it is still worse than it was when it was well, to P0 only."""
    application = Application()
    one = Rollout(STEPS, application.measure)
    run(one, 1300)
    one.take()
    application.figure = Figure(0.00121, 10_000)
    assert run(one, 200, now=1300) == [(1320, CAREFUL), (1380, P0_ONLY)]
    assert one.over
    assert one.rolled_back
    worse, still = one.take()
    assert (worse.what, worse.before, worse.after) == ("worse", 0.5, CAREFUL)
    assert (worse.p99, worse.limit) == (0.00121, pytest.approx(0.0012))
    assert (still.what, still.before, still.after) == ("still_worse", CAREFUL, P0_ONLY)
    assert "0.5" not in str(worse)
    assert "50% -> 10%" in str(worse)
    assert "1,210.0 us" in str(worse)


def test_a_rollback_that_helps_stays_there() -> None:
    """At 10 % it is well again: it ends there, and goes nowhere by itself."""
    application = Application()
    one = Rollout(STEPS, application.measure)
    run(one, 1300)
    application.figure = Figure(0.002, 10_000)
    run(one, 21, now=1300)
    application.figure = GOOD
    assert run(one, 3600, now=1321) == []
    assert one.over
    assert one.rolled_back
    assert one.share == CAREFUL


def test_the_first_step_goes_back_to_p0_only() -> None:
    """A tenth is worse already: there is one step back, and no more."""
    application = Application()
    one = Rollout(STEPS, application.measure)
    run(one, 61)
    application.figure = Figure(0.002, 10_000)
    assert run(one, 300, now=61) == [(120, P0_ONLY)]
    assert one.over


@given(st.lists(st.one_of(st.none(), st.floats(1e-6, 1.0)), max_size=60))
def test_whatever_is_measured_it_ends_or_waits(p99s: list[float | None]) -> None:
    """Shares rise one step at a time, fall at most twice, and never rise again after that."""
    measured = iter(p99s)

    def measure(_: float) -> Figure | None:
        p99 = next(measured, None)
        return None if p99 is None else Figure(p99, 1000)

    one = Rollout(STEPS, measure, window=600.0)
    shares = [share for _, share in run(one, 60_000, every=300.0)]
    assert shares[0] == P0_ONLY
    falls = [number for number, (before, after) in enumerate(pairwise(shares)) if after < before]
    assert len(falls) <= 2
    assert not falls or all(after < before for before, after in pairwise(shares[falls[0] :]))
    assert set(shares) <= {P0_ONLY, 0.1, 0.25, 0.5, 1.0}


def test_stop_leaves_the_share() -> None:
    """A schedule that is stopped changes nothing any more."""
    one = Rollout(STEPS, Application().measure)
    run(one, 700)
    one.stop()
    one.stop()
    assert one.share == 0.25
    assert run(one, 3000, now=700) == []
    assert one.take()[-1].what == "stopped"
    assert not one.rolled_back


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, P0_ONLY])
def test_a_nudge_is_seen_and_changes_nothing(recorder: Recorder, share: float) -> None:
    """Through a control page, too, a share that was nudged is another one and shown as the same."""
    from otel_trading.segment import Control

    with Control(recorder.path) as control:
        control.rollout = share
        put = control.rollout
        assert not rollout.taken_over(control.rollout, put)
        control.rollout = rollout.nudged(control.rollout)
        assert rollout.taken_over(control.rollout, put)
        assert rollout.percent(control.rollout) == rollout.percent(share)
        control.rollout = 1.0


@pytest.mark.parametrize(("worse", "window", "least"), [(0.9, 60, 1), (math.inf, 60, 1), (1.2, 0, 1), (1.2, 60, 0)])
def test_limits_that_make_no_sense_are_refused(worse: float, window: float, least: int) -> None:
    """A rollout that could not work does not begin."""
    with pytest.raises(ConfigurationError):
        Rollout(STEPS, Application().measure, worse=worse, window=window, least=least)


# ---- in the process itself -------------------------------------------------------------------------


def test_the_configuration_starts_one() -> None:
    """Without a schedule there is none; with one, its steps and its limit are taken."""
    assert rollout.of_settings({"rollout.schedule": ()}) is None
    one = rollout.of_settings({"rollout.schedule": ("10% 10m", "100%"), "rollout.worse": 1.5, "rollout.probe": ""})
    assert one is not None
    assert one.steps[1:] == parse("10% 10m,100%")
    with pytest.raises(ConfigurationError):
        rollout.of_settings({"rollout.schedule": ("10 percent",)})


def test_the_application_is_its_busiest_p0_probe(recorder: Recorder) -> None:
    """The p99 of the last minute comes from the P0 probe with most spans, or from the one that is named."""
    assert recorder
    before = rollout.own_figure()
    assert before is None or before.spans == 0
    quiet, busy, other = ot.probe("ro.quiet", tier=ot.P0), ot.probe("ro.busy", tier=ot.P0), ot.probe("ro.other")
    for number in range(300):
        busy.stop(busy.start())
        other.stop(other.start())
        if number < 5:
            quiet.stop(quiet.start())
    figure = rollout.own_figure()
    assert figure is not None
    assert figure.spans == 300
    assert 0.0 < figure.p99 < 1.0
    named = rollout.own_figure("ro.quiet")
    assert named is not None
    assert named.spans == 5
    assert rollout.own_figure("ro.none") is None


def test_changes_are_told(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """A change is a log record, a warning where it goes back, and a span with its figures."""
    with caplog.at_level(logging.INFO, "otel_trading.budget"):
        rollout.announce(Change("start", 1.0, P0_ONLY, math.nan, math.nan))
        rollout.announce(Change("worse", 0.5, 0.1, 0.002, 0.0012))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    first, second = recorder.named("monitoring.rollout")
    assert first.tier == second.tier == 0
    assert second.attributes == {"trading.rollout.what": "worse"}
    assert len(second.events) == 1
    assert b"trading.rollout.latency" in second.events[0]
    assert b"trading.rollout.latency" not in first.events[0]
