"""The enforcer: what is given up where monitoring exceeds its budget, and taken back when it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import assert_balanced, child_environment
from governing import EMERGENCY, LIMITS, NORMAL, STRESSED, Decision, Governed, limits

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Recorder

USAGES = ("cpu", "memory", "latency", "network", "disk")
MANY = 1e9  # violations in a row that are borne, where a test wants more steps than P0 only leaves


@pytest.fixture
def make_governed(make_recorder: Callable[..., Recorder]) -> Iterator[Callable[..., Governed]]:
    """Give a function that makes a recorder of these settings with a governor of that policy."""
    made: list[Governed] = []

    def make(recorder: dict[str, object] | None = None, **policy: Any) -> Governed:
        made.append(Governed(make_recorder(**(recorder or {})), **policy))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def governed(make_governed: Callable[..., Governed]) -> Governed:
    """Give a governor with the policy of docs/budget.md."""
    return make_governed()


def kinds(decisions: list[Decision]) -> list[int]:
    """Give the decisions' kinds."""
    return [decision.kind for decision in decisions]


def rates(decisions: list[Decision]) -> list[tuple[int, float, float]]:
    """Give tier, share before and share after of the decisions about rates."""
    return [(d.tier, d.before, d.after) for d in decisions if d.kind == at.DECISION_RATE]


# ---- each limit of each mode ----


@pytest.mark.parametrize("mode", range(at.MODES))
@pytest.mark.parametrize("budget", range(at.BUDGETS))
def test_each_limit_of_each_mode(make_governed: Callable[..., Governed], budget: int, mode: int) -> None:
    """At its limit a figure is within the budget, and above it is a violation with that figure and limit."""
    governed = make_governed({"ring__slots": 4096})
    limit = LIMITS[budget * at.MODES + mode]
    governed.put("forced", mode + 1)
    governed.tick()
    assert kinds(governed.tick(1.0, **{USAGES[budget]: limit})) == []
    above = limit * 1.01 + 0.001 * (limit == 0.0)
    decisions = governed.tick(1.0, **{USAGES[budget]: above})
    assert {(d.reason, d.figure, d.limit, d.mode) for d in decisions} == {
        (at.REASON_BUDGET_CPU + budget, above, limit, mode)
    }
    assert [governed.number("violations", other) for other in range(at.BUDGETS)] == [
        int(other == budget) for other in range(at.BUDGETS)
    ]
    assert governed.reading("usage", budget) == above


def test_a_limit_of_infinity_is_none(make_governed: Callable[..., Governed]) -> None:
    """What is not limited is never exceeded."""
    governed = make_governed(budget=[inf] * at.BUDGETS * at.MODES)
    assert governed.ticks(5.0, 1.0, cpu=1e9, memory=1e18, latency=1e9, network=1e18, disk=1e9) == []


def test_a_step_follows_a_window_later_at_the_earliest(governed: Governed) -> None:
    """However often it is looked, a limit that is exceeded costs one step a window."""
    decisions = governed.tick(cpu=0.03)
    assert governed.ticks(0.9, 0.05, cpu=0.03) == []
    decisions += governed.ticks(1.2, 0.05, cpu=0.03)
    assert rates(decisions) == [(3, 1.0, 0.5), (3, 0.5, 0.25)] or rates(decisions) == [
        (3, 1.0, 0.5),
        (3, 0.5, 0.25),
        (3, 0.25, 0.125),
    ]


def test_a_new_mode_has_a_window_before_it_is_judged(governed: Governed) -> None:
    """What was used in the mode before is not held against the stricter limits of the new one."""
    governed.tick(cpu=0.02)
    assert kinds(governed.tick(1.0, cpu=0.02, cpu_load=0.95)) == [at.DECISION_MODE]
    assert governed.ticks(0.9, 0.1, cpu=0.02, cpu_load=0.95) == []
    assert kinds(governed.ticks(0.2, 0.1, cpu=0.02, cpu_load=0.95)) == [at.DECISION_VIOLATION]


# ---- CPU ----


def test_cpu_halves_the_lowest_tier_that_runs(make_governed: Callable[..., Governed]) -> None:
    """P3 first, down to 1/64 and off, then P2, then P1; P0 never."""
    governed = make_governed(violations=MANY)
    halvings = [1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 0.0]
    for tier in (3, 2, 1):
        for before, after in pairwise(halvings):
            assert rates(governed.tick(1.0, cpu=0.03)) == [(tier, before, after)]
            assert governed.shares[tier] == after
    assert governed.shares == (1.0, 0.0, 0.0, 0.0)
    assert governed.number("steps") == 21
    (helpless,) = governed.tick(1.0, cpu=0.03)
    assert (helpless.kind, helpless.reason) == (at.DECISION_VIOLATION, at.REASON_BUDGET_CPU)
    assert governed.ticks(5.0, 1.0, cpu=0.03) == []
    assert governed.shares[0] == 1.0


def test_tiers_that_do_not_run_are_passed_over(make_governed: Callable[..., Governed]) -> None:
    """What the mode or somebody has switched off has nothing to give."""
    governed = make_governed(violations=MANY)
    governed.put("asked", 0, 2)
    governed.tick(cpu_load=0.75)
    assert rates(governed.tick(1.0, cpu_load=0.75, cpu=0.02)) == [(1, 1.0, 0.5)]
    assert governed.shares == (1.0, 0.5, 0.0, 0.0)


def test_steps_come_on_top_of_the_mode(make_governed: Callable[..., Governed]) -> None:
    """In STRESSED P2 is at half already: a step leaves a quarter of its traces."""
    governed = make_governed(violations=MANY)
    governed.tick(cpu_load=0.75)
    assert rates(governed.tick(1.0, cpu_load=0.75, cpu=0.02)) == [(2, 1.0, 0.5)]
    assert governed.shares == (1.0, 1.0, 0.25, 0.0)


def test_in_emergency_nothing_is_left_for_cpu(governed: Governed) -> None:
    """Only P0 runs: that it costs too much is said once, and is no reason for the alert."""
    governed.put("forced", EMERGENCY + 1)
    governed.tick()
    decisions = governed.ticks(8.0, 1.0, cpu=0.02)
    assert kinds(decisions) == [at.DECISION_VIOLATION]
    assert governed.number("in_a_row") == 0
    governed.tick(1.0, cpu=0.0)
    assert kinds(governed.tick(1.0, cpu=0.02)) == [at.DECISION_VIOLATION]


def test_a_halved_tier_records_half_of_its_traces(governed: Governed) -> None:
    """The share in the word is the share of the traces that are recorded."""
    governed.tick(cpu=0.03)
    probe = ot.probe("enforcer.infrastructure", tier=3)
    for _ in range(800):
        with probe:
            pass
    assert 300 <= ot.stats()["enforcer.infrastructure"]["count"] <= 500


# ---- memory ----


def test_memory_shrinks_the_rings_by_quarters(make_governed: Callable[..., Governed]) -> None:
    """A quarter of the slots each time, as long as 64 are left; then nothing is left to give, said once."""
    governed = make_governed({"ring__slots": 4096}, violations=MANY)
    governed.tick(memory=0.0)
    got = [
        (d.kind, d.before, d.after)
        for d in governed.ticks(6.0, 1.0, memory=40e6)
        if d.reason == at.REASON_BUDGET_MEMORY
    ]
    assert got == [
        (at.DECISION_BUFFERS, 1.0, 1 / 4),
        (at.DECISION_BUFFERS, 1 / 4, 1 / 16),
        (at.DECISION_BUFFERS, 1 / 16, 1 / 64),
        (at.DECISION_VIOLATION, 0.0, 0.0),
    ]
    assert governed.word("buffers") == 6


def capacities() -> list[int]:
    """Give the rings' slots."""
    return [ring["capacity"] for ring in core.snapshot()["rings"]]


def test_pages_go_back_and_no_record_is_lost(make_governed: Callable[..., Governed]) -> None:
    """The rings get their size while records wait in them; the file takes less space, and each record is drained."""
    governed = make_governed({"ring__slots": 8192, "ring__thread_slots": 1024})
    probe, values = ot.probe("enforcer.work", tier=1), ot.histogram("enforcer.sizes", tier=1)
    for number in range(3000):
        with probe:
            values.record(number)
    before = os.stat(governed.recorder.path).st_blocks
    governed.tick(memory=40e6)
    assert governed.word("buffers") == 2
    assert core.await_decision(1000, 20.0) >= 1  # rings that do not fit end the wait too
    given = core.fit_buffers()
    assert given == 6144 * at.SIZE_SLOT
    assert (before - os.stat(governed.recorder.path).st_blocks) * 512 == given
    assert capacities() == [2048]
    assert (governed.word("buffers_now"), core.fit_buffers()) == (2, 0)
    assert ot.stats()["enforcer.work"]["count"] == 3000
    for number in range(4000):
        with probe:
            pass
        if number % 100 == 0:
            core.drain()
    assert ot.stats()["enforcer.work"]["count"] == 7000
    assert ot.accounts()[1]["overwritten"] == 0
    assert core.snapshot()["segment"]["values_overwritten"] == 0


def test_rings_grow_back(make_governed: Callable[..., Governed]) -> None:
    """The space is reserved before it is used, and all of the ring's slots hold records again."""
    governed = make_governed({"ring__slots": 4096})
    probe = ot.probe("enforcer.work", tier=1)
    for buffers, bytes_back in ((4, 3840), (0, -3840)):
        governed.put("buffers", buffers)
        assert core.fit_buffers() == bytes_back * at.SIZE_SLOT
        assert capacities() == [4096 >> buffers]
        for _ in range(3000):
            with probe:
                pass
        expected = 3000 - (4096 >> buffers) if buffers else 0
        assert ot.accounts()[1]["overwritten"] == (3000 - 256)
        assert expected in (0, 3000 - 256)
    assert_balanced(ot.accounts())
    assert ot.stats()["enforcer.work"]["count"] == 3000 + 256


@pytest.mark.usefixtures("quiet")
def test_a_reader_is_not_misled(make_governed: Callable[..., Governed]) -> None:
    """Whoever reads along gets each record at most once and as it was; what is gone is counted as missed."""
    governed = make_governed({"ring__slots": 1024})
    reader, probe = governed.recorder.segment.reader, ot.probe("enforcer.work", tier=1)
    read: list[int] = []
    for number, buffers in enumerate((0, 2, 4, 2, 0, 4)):
        for place in range(60):
            with probe.span(number=number * 60 + place):
                pass
        if number % 2:
            read += [state[11]["number"] for state in reader.read(10_000)]
        governed.put("buffers", buffers)
        core.fit_buffers()
        core.drain()
    for place in range(60):
        with probe.span(number=360 + place):
            pass
    read += [state[11]["number"] for state in reader.read(10_000)]
    assert read == sorted(set(read))
    assert read[-60:] == list(range(360, 420))
    missed, torn = reader.missed()
    assert len(read) + missed + torn == 420


def test_threads_write_while_rings_change(make_governed: Callable[..., Governed]) -> None:
    """Rings of other threads, also of those that come later, have their size too, and nothing is lost on the way."""
    import threading

    governed = make_governed({"ring__slots": 4096, "ring__thread_slots": 1024})
    probe, each, stop = ot.probe("enforcer.work", tier=1), 3000, threading.Event()

    def work() -> None:
        for number in range(each):
            with probe:
                pass
            if number % 50 == 0:
                core.drain()

    def resize() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            governed.put("buffers", (0, 2, 4)[number % 3])
            core.fit_buffers()

    resizer = threading.Thread(target=resize)
    workers = [threading.Thread(target=work) for _ in range(3)]
    resizer.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stop.set()
    resizer.join()
    account = ot.accounts()[1]
    assert account["recorded"] == 3 * each
    assert ot.stats()["enforcer.work"]["count"] == 3 * each - account["overwritten"]
    governed.put("buffers", 2)
    core.fit_buffers()
    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert set(capacities()) == {1024, 256}


def test_open_spans_stay_open_while_rings_change(make_governed: Callable[..., Governed]) -> None:
    """A span that is open meanwhile ends as any other, with its attributes."""
    governed = make_governed({"ring__slots": 1024})
    with ot.probe("enforcer.order", tier=0).span(symbol="BTCUSDT") as span:
        governed.put("buffers", 4)
        core.fit_buffers()
        span.set_attribute("text", "long " * 50)
    record = governed.recorder.only("enforcer.order")
    assert record.attributes == {"symbol": "BTCUSDT", "text": "long " * 50}


def test_an_unknown_size_is_bounded(governed: Governed) -> None:
    """Whatever stands in the page, a ring keeps 64 slots."""
    governed.put("buffers", (1 << 64) - 1)
    core.fit_buffers()
    assert capacities() == [64]


# ---- latency ----


def test_latency_stops_sampling_and_leads_to_emergency(governed: Governed) -> None:
    """P1 to P3 are recorded at 1/64, and the mode is EMERGENCY for a dwell; then it is left as any other."""
    governed.tick()
    decisions = governed.tick(1.0, latency=300e-6)
    assert rates(decisions) == [(3, 1.0, 1 / 64), (2, 1.0, 1 / 64), (1, 1.0, 1 / 64)]
    assert {d.reason for d in decisions if d.kind == at.DECISION_RATE} == {at.REASON_BUDGET_LATENCY}
    (mode,) = (d for d in decisions if d.kind == at.DECISION_MODE)
    assert (mode.reason, mode.figure, mode.limit, mode.after) == (at.REASON_LATENCY, 300e-6, 200e-6, EMERGENCY)
    assert (governed.mode, governed.word("mode_reason")) == (EMERGENCY, at.REASON_LATENCY)
    assert governed.shares == (1.0, 0.0, 0.0, 0.0)
    assert [d.after for d in governed.ticks(4.5)] == [STRESSED, NORMAL]
    assert governed.shares == (1.0, 1 / 64, 1 / 64, 1 / 64)
    assert rates(governed.ticks(1.0)) == [(3, 1 / 64, 1.0), (2, 1 / 64, 1.0), (1, 1 / 64, 1.0)]


def test_latency_in_emergency_has_nothing_left(governed: Governed) -> None:
    """When sampling is off and the mode is EMERGENCY, that P0 alone takes too long is said once."""
    governed.tick(latency=300e-6)
    decisions = governed.ticks(6.0, 1.0, latency=300e-6, cpu_load=0.95)
    assert kinds(decisions) == [at.DECISION_VIOLATION]


def test_a_forced_mode_is_not_left_for_latency(governed: Governed) -> None:
    """The budget applies to a forced mode; the mode stays."""
    governed.put("forced", NORMAL + 1)
    governed.tick()
    governed.tick(1.0, latency=300e-6)
    assert governed.mode == NORMAL
    assert governed.shares == (1.0, 1 / 64, 1 / 64, 1 / 64)


# ---- network and disk ----


@pytest.mark.parametrize(
    ("usage", "limit", "bit"), [("network", 32000.0, at.WAIT_NETWORK), ("disk", 25.0, at.WAIT_DISK)]
)
def test_exports_wait_until_the_window_is_within_the_limit(
    governed: Governed, usage: str, limit: float, bit: int
) -> None:
    """The bit is set at the first window over the limit, and cleared at the first within."""
    (wait,) = governed.tick(**{usage: limit + 1})
    assert (wait.kind, wait.before, wait.after) == (at.DECISION_EXPORTS, 0.0, 1.0)
    assert governed.word("exports_wait") == bit
    assert governed.number("steps") == 1
    assert kinds(governed.ticks(8.0, 1.0, **{usage: limit + 1})) == [at.DECISION_VIOLATION]
    assert governed.shares == (1.0, 1.0, 1.0, 1.0)
    (again,) = governed.tick(1.0, **{usage: limit})
    assert (again.kind, again.reason, again.before, again.after) == (
        at.DECISION_EXPORTS,
        at.REASON_RECOVERED,
        1.0,
        0.0,
    )
    assert (governed.word("exports_wait"), governed.number("steps")) == (0, 0)


# ---- too many in a row ----


def test_the_fourth_violation_in_a_row_leaves_p0_only(governed: Governed) -> None:
    """Three are borne; the fourth switches P1 to P3 off, and alerts."""
    decisions = [governed.tick(1.0, cpu=0.05) for _ in range(4)]
    assert [kinds(each) for each in decisions] == [[at.DECISION_RATE]] * 3 + [[at.DECISION_ALERT]]
    (alert,) = decisions[3]
    assert (alert.reason, alert.figure, alert.limit, alert.after) == (at.REASON_VIOLATIONS, 4.0, 3.0, 4.0)
    assert governed.shares == (1.0, 0.0, 0.0, 0.0)
    assert governed.number("in_a_row") == 4
    assert governed.mode == NORMAL


def test_a_window_within_the_budget_ends_the_row(governed: Governed) -> None:
    """Violations that are not in a row lead to steps, and to no alert."""
    found: list[Decision] = []
    for number in range(12):
        found += governed.tick(1.0, cpu=0.0 if number % 4 == 3 else 0.05)
    assert set(kinds(found)) == {at.DECISION_RATE}
    assert governed.number("violations", 0) == 9


def test_different_limits_make_one_row(governed: Governed) -> None:
    """It is windows that count, whichever limit each of them exceeds; two at once are one window and two steps."""
    assert sorted(kinds(governed.tick(cpu=0.05, memory=40e6))) == [at.DECISION_RATE, at.DECISION_BUFFERS]
    governed.tick(1.0, memory=40e6)
    governed.tick(1.0, network=1e6)
    assert at.DECISION_ALERT in kinds(governed.tick(1.0, cpu=0.05))
    assert governed.number("in_a_row") == 4


def test_the_alert_is_not_repeated(governed: Governed) -> None:
    """While P0 alone runs, what is still too much is a violation without a remedy."""
    governed.ticks(4.0, 1.0, cpu=0.05)
    assert kinds(governed.ticks(10.0, 1.0, cpu=0.05)) == [at.DECISION_VIOLATION]
    assert governed.shares == (1.0, 0.0, 0.0, 0.0)


# ---- back ----


def test_steps_are_taken_back_one_by_one(governed: Governed) -> None:
    """After 5 s within the budget the last step, and so on, one each 5 s, with what is used and allowed now."""
    governed.ticks(4.0, 1.0, cpu=0.05)
    assert governed.number("steps") == 4
    found = [(number / 2, governed.tick(0.5)) for number in range(1, 60)]
    found = [(seconds, decisions) for seconds, decisions in found if decisions]
    assert [seconds for seconds, _ in found] == [5.0, 10.0, 15.0, 20.0]
    assert {(d.reason, d.figure, d.limit) for _, decisions in found for d in decisions} == {
        (at.REASON_RECOVERED, 0.0, 0.025)
    }
    assert [rates(decisions) for _, decisions in found] == [
        [(3, 0.0, 1 / 8), (2, 0.0, 1.0), (1, 0.0, 1.0)],
        [(3, 1 / 8, 1 / 4)],
        [(3, 1 / 4, 1 / 2)],
        [(3, 1 / 2, 1.0)],
    ]
    assert (governed.shares, governed.number("steps")) == ((1.0, 1.0, 1.0, 1.0), 0)


def test_a_violation_puts_the_recovery_off(governed: Governed) -> None:
    """The time within the budget begins anew, and the next step is taken from where it stands."""
    governed.tick(cpu=0.05)
    assert governed.ticks(4.0, 1.0) == []
    assert rates(governed.tick(1.0, cpu=0.05)) == [(3, 0.5, 0.25)]
    assert governed.ticks(4.5, 0.5) == []
    assert rates(governed.ticks(1.0, 0.5)) == [(3, 0.25, 0.5)]


def test_rings_grow_back_only_where_they_fit(make_governed: Callable[..., Governed]) -> None:
    """A size that would exceed the limit again is not given back, and holds up no other step."""
    governed = make_governed({"ring__slots": 4096})
    governed.tick(cpu=0.05)
    governed.tick(1.0, memory=40e6)
    core.fit_buffers()
    more = 3072 * at.SIZE_SLOT
    decisions = governed.ticks(12.0, 1.0, memory=30e6 - more + 1)
    assert rates(decisions) == [(3, 0.5, 1.0)]
    assert at.DECISION_BUFFERS not in kinds(decisions)
    (back,) = governed.ticks(6.0, 1.0, memory=30e6 - more)
    assert (back.kind, back.before, back.after) == (at.DECISION_BUFFERS, 1 / 4, 1.0)
    assert core.fit_buffers() == -more


def test_what_nothing_helps_against_does_not_hold_up_the_rest(governed: Governed) -> None:
    """Memory that stays above its limit with the rings at their smallest keeps no tier from coming back."""
    found = governed.tick(cpu=0.05, memory=40e6)
    assert rates(found) == [(3, 1.0, 0.5)]
    found = governed.ticks(15.0, 1.0, memory=40e6)
    assert kinds(found).count(at.DECISION_VIOLATION) == 1
    assert rates(found) == [(3, 0.5, 1.0)]
    assert governed.number("in_a_row") == 0
    assert governed.word("buffers") == 4


NO_SPACE = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
import otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core
from governing import Governed

ot.configure("full", sys.argv[2], {"ring.slots": 1 << 15, "budget.enabled": False})
governed = Governed(SimpleNamespace(path=Path(lifecycle.own_segment())))
governed.tick(memory=40e6)
given = core.fit_buffers()
assert given > 0
governed.ticks(6.0, 1.0)
assert (governed.word("buffers"), governed.word("buffers_now")) == (0, 2)
free = os.statvfs(sys.argv[2]).f_bavail * 4096
with open(os.path.join(sys.argv[2], "taken"), "wb") as file:
    os.posix_fallocate(file.fileno(), 0, free - given // 2)
assert core.fit_buffers() == 0
assert governed.word("buffers") == governed.word("buffers_now") == 2
for _ in range(20000):
    with ot.probe("enforcer.work"):
        pass
    core.drain()
os.unlink(os.path.join(sys.argv[2], "taken"))
found = governed.ticks(12.0, 1.0)
assert governed.word("buffers") == 0, found
assert core.fit_buffers() == -given
assert ot.stats()["enforcer.work"]["count"] == 20000
governed.close()
ot.shutdown()
print("fine")
"""


def test_no_space_to_grow_back_is_tried_again(tmp_path: Path) -> None:
    """Where the file system is full the rings stay small, nothing breaks, and the step is taken back later again."""
    own = ["unshare", "--map-root-user", "--mount"] if shutil.which("unshare") else []
    if not own or subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a file system of a size of its own takes unshare and a user namespace")
    (tmp_path / "full").mkdir()
    (tmp_path / "script.py").write_text(NO_SPACE, encoding="utf-8")
    mount = 'mount -t tmpfs -o size=24m,mode=700 tmpfs "$1" && exec "$2" -W error "$3" "$4" "$1"'
    arguments = [tmp_path / "full", sys.executable, tmp_path / "script.py", Path(__file__).resolve().parent.parent]
    done = subprocess.run(
        [*own, "sh", "-c", mount, "sh", *map(str, arguments)],
        env=child_environment(tmp_path / "full"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_limits_of_one_mode_only(make_governed: Callable[..., Governed]) -> None:
    """A limit that is lifted in one mode holds in the others."""
    governed = make_governed(budget=limits(cpu=(NORMAL,)))
    assert governed.ticks(3.0, 1.0, cpu=0.9) == []
    governed.tick(cpu_load=0.75)
    assert rates(governed.ticks(2.0, 1.0, cpu=0.9, cpu_load=0.75))[0] == (2, 1.0, 0.5)
