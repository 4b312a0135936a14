"""The engine: which mode the system's pressure and the market ask for."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import pytest
from governing import EMERGENCY, HIGH_VOLATILITY, NORMAL, STRESSED, Decision, Governed, limits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

PERIOD = 0.05


@pytest.fixture
def make_governed(make_recorder: Callable[..., Recorder]) -> Iterator[Callable[..., Governed]]:
    """Give a function that makes a recorder with a governor; its arguments are the policy's."""
    made: list[Governed] = []

    def make(**policy: Any) -> Governed:
        made.append(Governed(make_recorder(), **policy))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def governed(make_governed: Callable[..., Governed]) -> Governed:
    """Give a governor with the policy of docs/budget.md."""
    return make_governed()


@pytest.mark.parametrize(
    ("readings", "mode", "reason"),
    [
        ({}, NORMAL, at.REASON_NONE),
        ({"cpu_load": 0.70}, NORMAL, at.REASON_NONE),
        ({"cpu_load": 0.71}, STRESSED, at.REASON_CPU),
        ({"cpu_load": 0.86}, EMERGENCY, at.REASON_CPU),
        ({"memory_load": 0.80}, NORMAL, at.REASON_NONE),
        ({"memory_load": 0.81}, STRESSED, at.REASON_MEMORY),
        ({"memory_load": 0.91}, EMERGENCY, at.REASON_MEMORY),
        ({"cpu_load": 0.71, "memory_load": 0.91}, EMERGENCY, at.REASON_MEMORY),
        ({"volatility": 0.9, "volume": 2.1}, HIGH_VOLATILITY, at.REASON_MARKET),
        ({"volatility": 0.9, "volume": 2.0}, NORMAL, at.REASON_NONE),
        ({"volatility": 0.8, "volume": 9.0}, NORMAL, at.REASON_NONE),
        ({"volatility": 0.9, "volume": 2.1, "cpu_load": 0.71}, STRESSED, at.REASON_CPU),
        ({"volatility": 0.9, "volume": 2.1, "memory_load": 0.91}, EMERGENCY, at.REASON_MEMORY),
    ],
)
def test_each_reason_leads_to_its_mode_at_once(
    governed: Governed, readings: dict[str, float], mode: int, reason: int
) -> None:
    """The tick that sees a reason enters its mode, and the stricter one of several wins."""
    decisions = governed.tick(**readings)
    assert (governed.mode, governed.word("mode_reason")) == (mode, reason)
    assert [(d.kind, d.reason, d.before, d.after, d.mode) for d in decisions] == (
        [] if mode == NORMAL else [(at.DECISION_MODE, reason, NORMAL, mode, mode)]
    )


@pytest.mark.parametrize(
    ("mode", "readings", "shares"),
    [
        (NORMAL, {}, (1.0, 1.0, 1.0, 1.0)),
        (HIGH_VOLATILITY, {"volatility": 0.9, "volume": 2.1}, (1.0, 1.0, 1.0, 1.0)),
        (STRESSED, {"cpu_load": 0.75}, (1.0, 1.0, 0.5, 0.0)),
        (EMERGENCY, {"cpu_load": 0.95}, (1.0, 0.0, 0.0, 0.0)),
    ],
)
def test_what_runs_in_each_mode(
    governed: Governed, mode: int, readings: dict[str, float], shares: tuple[float, ...]
) -> None:
    """Each mode leaves the tiers what docs/budget.md says."""
    generation = governed.word("generation")
    governed.tick(**readings)
    assert governed.mode == mode
    assert governed.shares == shares
    assert (governed.word("generation") > generation) == (shares != (1.0, 1.0, 1.0, 1.0))


def test_a_decision_has_the_figure_and_the_limit(governed: Governed) -> None:
    """The decision tells what was seen, and the threshold that it was over."""
    assert governed.tick(cpu_load=0.93) == [
        Decision(at.DECISION_MODE, at.REASON_CPU, 0, EMERGENCY, 0.93, 0.85, NORMAL, EMERGENCY)
    ]
    assert governed.number("ticks") == 1
    assert governed.reading("cpu_load") == 0.93


def test_the_next_record_obeys(governed: Governed) -> None:
    """What a mode sheds is not recorded from the next record on, and P0 is."""
    probes = [ot.probe(f"engine.tier.{tier}", tier=tier) for tier in range(at.TIERS)]
    for load in (0.1, 0.95):
        governed.tick(1.0, cpu_load=load)
        for probe in probes:
            with probe:
                pass
    assert [ot.stats()[f"engine.tier.{tier}"]["count"] for tier in range(at.TIERS)] == [2, 1, 1, 1]


def test_a_milder_mode_follows_one_at_a_time(governed: Governed) -> None:
    """A mode is left when it has lasted the dwell, and the readings have been below by the margin as long."""
    governed.tick(cpu_load=0.9)
    assert governed.ticks(1.9, cpu_load=0.1) == []
    (first,) = governed.tick(0.2, cpu_load=0.1)
    assert (first.kind, first.reason, first.before, first.after) == (
        at.DECISION_MODE,
        at.REASON_RECOVERED,
        EMERGENCY,
        STRESSED,
    )
    assert (first.figure, first.limit) == (0.1, 0.85)
    assert governed.ticks(1.9, cpu_load=0.1) == []
    (second,) = governed.tick(0.2, cpu_load=0.1)
    assert (second.reason, second.before, second.after) == (at.REASON_RECOVERED, STRESSED, NORMAL)
    assert governed.shares == (1.0, 1.0, 1.0, 1.0)


def test_the_margin_holds_a_mode(governed: Governed) -> None:
    """Just below its threshold is not below it: the margin has to be passed, for the whole dwell."""
    governed.tick(cpu_load=0.9)
    assert governed.ticks(10.0, cpu_load=0.81) == []
    assert governed.ticks(1.5, cpu_load=0.79) == []
    governed.tick(0.1, cpu_load=0.81)
    assert governed.ticks(1.9, cpu_load=0.79) == []
    assert [d.after for d in governed.ticks(0.2, cpu_load=0.79)] == [STRESSED]
    assert governed.ticks(10.0, cpu_load=0.79) == []
    assert governed.mode == STRESSED


def test_under_stress_the_market_waits(governed: Governed) -> None:
    """From STRESSED the next milder mode is HIGH_VOLATILITY while the market is, and NORMAL follows it."""
    market = {"volatility": 0.9, "volume": 2.5}
    governed.tick(cpu_load=0.75, **market)
    assert [d.after for d in governed.ticks(3.0, **market)] == [HIGH_VOLATILITY]
    assert governed.ticks(3.0, volatility=0.79, volume=1.95) == []  # within the margin of 5 %
    assert [d.after for d in governed.ticks(3.0, volatility=0.5, volume=2.5)] == [NORMAL]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 2.0), st.floats(0.0, 5.0)),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 30),
)
def test_flapping_readings_do_not_flap_modes(
    governed: Governed, pattern: list[tuple[float, float, float, float]], held: int
) -> None:
    """Whatever the readings do, a milder mode is entered at most once a dwell; so changes a minute are bounded."""
    seconds = 60.0
    decisions: list[Decision] = []
    for number in range(round(seconds / PERIOD)):
        cpu, memory, volatility, volume = pattern[number // held % len(pattern)]
        decisions += governed.tick(PERIOD, cpu_load=cpu, memory_load=memory, volatility=volatility, volume=volume)
    modes = [d for d in decisions if d.kind == at.DECISION_MODE]
    milder = [d for d in modes if d.after < d.before]
    assert len(milder) <= seconds / 2.0 + 1
    assert len(modes) <= 3 * (len(milder) + 1)  # one milder step leaves two modes at most


def test_the_worst_flapping_is_bounded(governed: Governed) -> None:
    """A load that comes back as soon as its mode has been left changes modes twice a dwell, not each tick."""
    changes = 0
    for _ in range(round(60 / PERIOD)):
        changes += len(governed.tick(PERIOD, cpu_load=0.75 if governed.mode == NORMAL else 0.1))
    assert 40 <= changes <= 61


# ---- what can not be told ----


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cpu_load", at.REASON_CPU),
        ("memory_load", at.REASON_MEMORY),
        ("volatility", at.REASON_MARKET),
        ("volume", at.REASON_MARKET),
        ("cpu", at.REASON_BUDGET_CPU),
        ("memory", at.REASON_BUDGET_MEMORY),
        ("latency", at.REASON_BUDGET_LATENCY),
        ("network", at.REASON_BUDGET_NETWORK),
        ("disk", at.REASON_BUDGET_DISK),
    ],
)
def test_a_reading_that_fails_is_said_once(governed: Governed, name: str, reason: int) -> None:
    """Recording stays as it was, the failure is a decision and a reading, and so is its end."""
    governed.tick(cpu_load=0.75)
    before = governed.shares
    (failed,) = governed.tick(0.1, **{"cpu_load": 0.75, name: nan})
    assert (failed.kind, failed.reason) == (at.DECISION_FAILED, reason)
    assert failed.figure != failed.figure
    assert governed.ticks(3.0, **{"cpu_load": 0.75, name: nan}) == []
    assert governed.number("failed") == 1
    assert (governed.mode, governed.shares) == (STRESSED, before)
    (works,) = governed.tick(0.1, cpu_load=0.75)
    assert (works.kind, works.reason) == (at.DECISION_WORKS, reason)
    assert governed.number("failed") == 0


def test_without_a_reading_no_milder_mode(governed: Governed) -> None:
    """What can not be told keeps the mode, however long, and the dwell begins when it can be told again."""
    governed.tick(cpu_load=0.9)
    governed.ticks(10.0, cpu_load=nan)
    assert governed.mode == EMERGENCY
    governed.ticks(1.9)
    assert governed.mode == EMERGENCY
    governed.ticks(0.2)
    assert governed.mode == STRESSED


def test_what_can_be_told_still_counts(governed: Governed) -> None:
    """Memory leads to EMERGENCY also while the CPU load can not be told."""
    governed.tick(cpu_load=nan)
    assert governed.mode == NORMAL
    governed.tick(0.1, cpu_load=nan, memory_load=0.95)
    assert (governed.mode, governed.word("mode_reason")) == (EMERGENCY, at.REASON_MEMORY)


def test_a_program_that_can_not_tell_the_market(governed: Governed) -> None:
    """Half a condition is none: the mode stays, and that is said; two NaN give the market back to its data."""
    core.market_condition(2.0, 3.0)
    governed.measured(memory=0.0, cpu=0.0)
    assert (governed.mode, governed.reading("volatility"), governed.reading("volume")) == (HIGH_VOLATILITY, 2.0, 3.0)
    core.market_condition(nan, 1.0)
    assert [(d.kind, d.reason) for d in governed.measured(3.0, memory=0.0, cpu=0.0)] == [
        (at.DECISION_FAILED, at.REASON_MARKET)
    ]
    assert governed.mode == HIGH_VOLATILITY
    core.market_condition(nan, nan)
    assert [(d.kind, d.reason) for d in governed.measured(1.0, memory=0.0, cpu=0.0)] == [
        (at.DECISION_WORKS, at.REASON_MARKET)
    ]
    assert [d.after for d in governed.measured(1.5, memory=0.0, cpu=0.0)] == [NORMAL]
    assert (governed.reading("volatility"), governed.reading("volume")) == (0.0, 1.0)


# ---- forced ----


def test_a_forced_mode_holds_until_it_is_released(governed: Governed) -> None:
    """The readings change nothing about it, and after it the mode is what they had led to meanwhile."""
    governed.put("forced", NORMAL + 1)
    governed.tick(cpu_load=0.99)
    assert governed.mode == NORMAL
    governed.put("forced", HIGH_VOLATILITY + 1)
    (forced,) = governed.tick(0.1, cpu_load=0.99)
    assert (forced.reason, forced.before, forced.after, forced.figure, forced.limit) == (
        at.REASON_FORCED,
        NORMAL,
        HIGH_VOLATILITY,
        0.0,
        0.0,
    )
    governed.put("forced", 0)
    (released,) = governed.tick(0.1, cpu_load=0.99)
    assert (released.before, released.after, released.reason) == (HIGH_VOLATILITY, EMERGENCY, at.REASON_CPU)


def test_a_forced_emergency_is_left_at_once(governed: Governed) -> None:
    """What was forced is not left step by step: nothing but the force had led there."""
    governed.tick()
    governed.put("forced", EMERGENCY + 1)
    governed.ticks(0.5)
    assert (governed.mode, governed.shares) == (EMERGENCY, (1.0, 0.0, 0.0, 0.0))
    governed.put("forced", 0)
    (released,) = governed.tick(0.1)
    assert (released.before, released.after, released.reason) == (EMERGENCY, NORMAL, at.REASON_RECOVERED)
    assert governed.shares == (1.0, 1.0, 1.0, 1.0)


def test_whoever_forces_a_mode_may_write_it_himself(governed: Governed) -> None:
    """The governor decides what another process has put in force already, and says so."""
    governed.tick()
    governed.put("forced", STRESSED + 1)
    governed.put("mode", STRESSED)
    (forced,) = governed.tick(0.1)
    assert (forced.kind, forced.before, forced.after) == (at.DECISION_MODE, NORMAL, STRESSED)
    assert governed.shares == (1.0, 1.0, 0.5, 0.0)


def test_a_force_that_is_no_mode_is_none(governed: Governed) -> None:
    """A number beyond the modes, from whatever process, forces nothing."""
    governed.put("forced", 77)
    governed.tick()
    assert governed.mode == NORMAL


# ---- words ----


def test_the_strictest_word_is_in_force(governed: Governed) -> None:
    """What people asked, what the mode leaves and the rollout are put together, and P0 is untouched."""
    half, quarter = 1 << 55, 3 << 54
    governed.put("asked", quarter << 8 | 1, 1)
    governed.put("rollout", half)
    governed.tick(cpu_load=0.75)
    assert governed.shares == (1.0, 0.25, 0.5, 0.0)
    governed.put("asked", 0, 2)
    governed.put("rollout", (1 << 64) - 1)
    governed.tick(0.1, cpu_load=0.1)
    assert governed.shares[0] == 1.0
    assert governed.word("tier_word", 0) == at.TIER_ON
    assert governed.shares[2] == 0.0
    assert governed.word("tier_word", 1) >> 8 == (1 << at.SAMPLE_BITS) - 1


def test_p0_stays_on_whatever_stands_in_the_page(governed: Governed) -> None:
    """Neither a word for P0 nor EMERGENCY nor a violation keeps a P0 record out."""
    for field in ("asked", "shed", "tier_word"):
        governed.put(field, 0, 0)
    governed.tick(cpu_load=0.99, cpu=1.0)
    with ot.probe("engine.order", tier=0):
        pass
    assert ot.stats()["engine.order"]["count"] == 1
    assert governed.word("tier_word", 0) == governed.word("shed", 0) == at.TIER_ON


@pytest.mark.parametrize("kind", ["Counter", "Gauge", "Histogram"])
def test_no_instrument_of_p0_goes_by_the_load(kind: str) -> None:
    """A switch-off point for P0 is refused where it is made."""
    with pytest.raises(ValueError, match="P0"):
        getattr(core, kind)("orders", 0, "", "", "", 80)
    with pytest.raises(ValueError, match="off_cpu"):
        getattr(core, kind)("orders", 1, "", "", "", 101)


def test_instruments_go_by_the_load_on_their_own(governed: Governed) -> None:
    """One is off from its switch-off point on, and on again 5 points below it; NaN is neither."""
    early, late = core.Gauge("engine.gc", 3, "", "", "", 60), core.Counter("engine.queue", 2, "", "", "", 80)
    plain = core.Counter("engine.plain", 2)
    got = []
    for load in (0.1, 0.6, 0.56, 0.81, nan, 0.76, 0.74, 0.54):
        governed.tick(0.1, cpu_load=load)
        governed.put("shed", at.TIER_ON, 2)
        for tier in (1, 2, 3):  # what the mode sheds is another matter
            governed.put("tier_word", at.TIER_ON, tier)
        before = [one["updates"] for one in updates()]
        early.set(1.0)
        late.add(1)
        plain.add(1)
        got.append(tuple(now["updates"] - then for now, then in zip(updates(), before, strict=True)))
    assert got == [
        (1, 1, 1),
        (0, 1, 1),
        (0, 1, 1),
        (0, 0, 1),
        (0, 0, 1),
        (0, 0, 1),
        (0, 1, 1),
        (1, 1, 1),
    ]


def updates() -> list[dict[str, Any]]:
    """Give the snapshot of the instruments of the test above."""
    found = {one["name"]: one for one in core.snapshot()["instruments"]}
    return [found[name] for name in ("engine.gc", "engine.queue", "engine.plain")]


# ---- life ----


def test_unknown_readings_are_refused(governed: Governed) -> None:
    """A name that is none raises, and nothing has happened."""
    with pytest.raises(KeyError, match="cpu_lod"):
        core.govern({"now": 1.0, "cpu_lod": 0.99})
    with pytest.raises(TypeError):
        core.govern({"now": "soon"})
    assert governed.number("ticks") == 0


def test_without_a_policy_nothing_is_governed(recorder: Recorder) -> None:
    """As open leaves it, the policy is not active: ticks do nothing."""
    governed = Governed(recorder)
    governed.policy.active = False
    assert core.govern({"cpu_load": 0.99}) == 0
    assert (governed.mode, governed.number("ticks")) == (NORMAL, 0)
    governed.close()


def test_a_policy_that_is_withdrawn_gives_everything_back(governed: Governed) -> None:
    """Tiers, instruments and exports are as they were before, at the next tick."""
    core.Gauge("engine.early", 3, "", "", "", 60)
    governed.tick(cpu_load=0.95, network=1e9)
    governed.policy.active = False
    core.govern()
    assert (governed.mode, governed.shares) == (NORMAL, (1.0, 1.0, 1.0, 1.0))
    assert (governed.word("buffers"), governed.word("exports_wait")) == (0, 0)


def test_a_policy_of_nonsense_governs_nothing_away(make_governed: Callable[..., Governed]) -> None:
    """Pages of zeros and NaN, which any process may have written, lead to no crash, and P0 is recorded."""
    governed = make_governed(budget=limits(), period=0.0, window=0.0, dwell=0.0)
    for place in range(8, at.SIZE_POLICY // 8):
        governed.policy.words[place] = 0x7FF8_0000_0000_0000
    governed.ticks(1.0, cpu_load=0.99, cpu=1.0, memory=1e12)
    assert governed.shares[0] == 1.0


def test_without_a_segment() -> None:
    """Everything may be called before configure and after shutdown."""
    assert core.govern({"cpu_load": 0.99}) == 0
    core.govern_stop()
    core.govern_start()
    core.govern_stop()
    assert core.fit_buffers() == 0
    assert core.await_decision(0, 0.0) == 0
    assert core.mode() == NORMAL
    core.market("BTCUSDT", 1, 1.0, 1.0)
    core.count_io(0, 0)
    core.count_thread(True)
    core.count_thread(False)


def test_the_thread_ticks_and_wakes_whoever_waits(
    governed: Governed, until: Callable[[Callable[[], object]], None]
) -> None:
    """Started, the governor ticks by itself at the policy's period; a decision ends a wait."""
    governed.policy.write({"period": 0.005, "enter": (0.0, 0.0, 0.0, 0.0)})
    core.govern_start()
    assert core.await_decision(0, 20.0) >= 1
    ticks = governed.number("ticks")
    until(lambda: governed.number("ticks") > ticks + 3)
    assert governed.mode == EMERGENCY
    core.govern_stop()
    ticks = governed.number("ticks")
    assert core.await_decision(governed.number("decisions"), 0.05) == governed.number("decisions")
    assert governed.number("ticks") == ticks


def test_wake_ends_a_wait(governed: Governed, until: Callable[[Callable[[], object]], None]) -> None:
    """Who waits for a decision is sent home by wake."""
    import threading

    governed.tick()
    got: list[int] = []
    waiter = threading.Thread(target=lambda: got.append(core.await_decision(7, 60.0)))
    waiter.start()

    def home() -> bool:
        core.wake()
        return not waiter.is_alive()

    until(home)
    assert got == [0]


def test_a_forked_child_governs_itself(run_python: Callable[..., Any]) -> None:
    """The child of a fork has no governor until it records; then it has one of its own, and the parent goes on."""
    done = run_python(
        """
import os, time
import otel_trading as ot
from otel_trading._backend import core

ot.configure("fork", config={"budget.enabled": True, "engine.period": 0.01})
core.govern_start()
child = os.fork()
if child == 0:
    with ot.probe("in.child", tier=0):
        pass
    core.govern_start()
    core.govern({"cpu_load": 0.99})
    os._exit(core.mode())
_, status = os.waitpid(child, 0)
core.govern({"cpu_load": 0.0, "memory_load": 0.0})
print(os.waitstatus_to_exitcode(status))
ot.shutdown()
"""
    )
    assert done.stdout == f"{EMERGENCY}\n"
