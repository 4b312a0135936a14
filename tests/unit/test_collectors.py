"""The derived metrics: what they say, how often they are made, and when they are not."""

from __future__ import annotations

import gc
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.budget import collectors
from otel_trading.budget.collectors import Collectors, Rates, join
from otel_trading.budget.modes import EMERGENCY, HIGH_VOLATILITY, NORMAL, STRESSED
from otel_trading.budget.readings import Readings
from otel_trading.drain import series
from otel_trading.drain.histogram import ExponentialHistogram
from otel_trading.drain.series import COUNTER, GAUGE, Family, Point

if TYPE_CHECKING:
    from conftest import Recorder

    from otel_trading.budget.readings import Reading


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        """Begin anywhere."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


def reading(recorder: Recorder, **changes: Any) -> Reading:
    """Give this process's reading, quiet but for what a test changes."""
    with Readings(recorder.path) as readings:
        quiet = readings.read()._replace(cpu_load=0.1, memory_load=0.1)
    return quiet._replace(**changes)


def values(families: list[Family], name: str) -> dict[Any, Any]:
    """Give a family's points as {value of the only attribute, or all of them: value}."""
    found = {}
    for family in families:
        if family.name == name:
            for point in family.points:
                keys = tuple(point.attributes.values())
                found[keys[0] if len(keys) == 1 else keys] = point.value
    return found


def names(families: list[Family]) -> set[str]:
    """Give the families' names."""
    return {family.name for family in families}


def test_orders_give_latency_and_reject_rate(recorder: Recorder) -> None:
    """Acks and fills are in the latency, each with its label; rejects are a share of what was sent."""
    for number in range(20):
        order = ot.order(f"c-{number}", symbol="BTC/USDT", side="buy", qty=1.0, price=10.0)
        if number < 1:
            order.reject("no funds")
        else:
            order.ack()
            order.fill(10.0, 1.0)
    found = Collectors().families(core.snapshot(), reading(recorder))
    latency = values(found, "trading.order.execution.latency")
    assert {key: value.count for key, value in latency.items()} == {"ack": 19, "fill": 19}
    assert values(found, "trading.order.reject_rate") == {"total": 0.05, "1m": 0.05}
    levels = values(found, "trading.metric.level")
    assert levels["trading.order.reject_rate"] == 2
    assert levels["trading.risk.breaches"] == 0


def test_without_orders_there_is_no_rate(recorder: Recorder) -> None:
    """Nothing sent is no rate of 0; nothing is judged but ok."""
    found = Collectors().families(core.snapshot(), reading(recorder))
    assert values(found, "trading.order.reject_rate") == {}
    assert values(found, "trading.order.execution.latency") == {}
    assert set(values(found, "trading.metric.level").values()) == {0}


def test_a_slow_order_is_critical(recorder: Recorder) -> None:
    """A fill that took longer than 50 ms shows in the level."""
    assert recorder
    clock = Clock()
    collected = Collectors(clock)
    probe = ot.probe("order.ack", ot.P0)
    begin = 1_700_000_000_000_000_000
    probe.record(None, begin, begin + 60_000_000, False, None)
    levels = values(collected.families(core.snapshot()), "trading.metric.level")
    assert levels["trading.order.execution.latency"] == 2


def test_a_value_is_made_once_in_its_period(recorder: Recorder) -> None:
    """Two exporters that ask within a period get the same; in the next one it is new; the mode sets how long it is."""
    clock = Clock()
    collected = Collectors(clock)
    ot.order("p-1", symbol="X", side="buy", qty=1.0).ack()

    def acks(mode: int) -> int:
        found = collected.families(core.snapshot(), reading(recorder, mode=mode))
        return int(values(found, "trading.order.execution.latency")["ack"].count)

    assert acks(NORMAL) == 1
    ot.order("p-2", symbol="X", side="buy", qty=1.0).ack()
    clock.now += 0.9
    assert acks(NORMAL) == 1
    assert acks(HIGH_VOLATILITY) == 2  # half the period there
    ot.order("p-3", symbol="X", side="buy", qty=1.0).ack()
    clock.now += 0.4
    assert acks(HIGH_VOLATILITY) == 2
    clock.now += 0.6
    assert acks(NORMAL) == 3


@pytest.mark.parametrize(
    ("load", "gone"),
    [
        (0.1, set()),
        (0.6, {"trading.gc.collections"}),
        (0.7, {"trading.gc.collections", "trading.disk.io.rate"}),
        (0.75, {"trading.gc.collections", "trading.disk.io.rate", "trading.network.io.rate"}),
        (
            0.8,
            {
                "trading.gc.collections",
                "trading.disk.io.rate",
                "trading.network.io.rate",
                "trading.memory.usage",
                "trading.queue.size",
            },
        ),
        (math.nan, set()),
    ],
)
def test_the_systems_load_switches_off_one_after_the_other(recorder: Recorder, load: float, gone: set[str]) -> None:
    """Each goes at its own point; where the load can not be told, none does."""
    snapshot = core.snapshot()
    all_of_them = names(Collectors().families(snapshot, reading(recorder)))
    left = names(Collectors().families(snapshot, reading(recorder, cpu_load=load)))
    assert all_of_them - left - {"trading.gc.collected", "trading.network.utilization"} == gone


def test_what_is_off_comes_back_five_points_below(recorder: Recorder) -> None:
    """A load that flaps about the switch-off point does not switch with it."""
    collected, snapshot = Collectors(), core.snapshot()
    seen = [
        "trading.gc.collections" in names(collected.families(snapshot, reading(recorder, cpu_load=load)))
        for load in (0.59, 0.61, 0.59, 0.56, 0.549, 0.59)
    ]
    assert seen == [True, False, False, False, True, True]


@pytest.mark.parametrize("mode", [STRESSED, EMERGENCY])
def test_modes_leave_what_the_catalogue_says(recorder: Recorder, mode: int) -> None:
    """STRESSED has no P3; EMERGENCY has P0 only."""
    left = names(Collectors().families(core.snapshot(), reading(recorder, mode=mode)))
    p0 = {"trading.order.execution.latency", "trading.market_data.staleness", "trading.order.reject_rate"}
    p2 = {"trading.memory.usage", "trading.queue.size"} if mode == STRESSED else set()
    assert left == p0 | p2 | {"trading.metric.level"}


def test_a_shed_tier_is_not_collected(recorder: Recorder) -> None:
    """A tier that the budget has switched off costs nothing here either; P0 stays."""
    found = names(Collectors().families(core.snapshot(), reading(recorder, rates=(1.0, 1.0, 0.0, 0.0))))
    assert "trading.memory.usage" not in found
    assert "trading.order.reject_rate" in found


def test_memory_and_queue(recorder: Recorder) -> None:
    """The process's memory is the system's figure, the recorder's is its segment and tables."""
    found = Collectors().families(core.snapshot(), reading(recorder, memory_heap=1e6))
    memory = values(found, "trading.memory.usage")
    assert memory["process"] > memory["recorder"] >= 1_000_000
    assert values(found, "trading.queue.size") == {"export": 0}
    without = Collectors().families(core.snapshot(), reading(recorder, memory_heap=math.nan))
    assert values(without, "trading.memory.usage")["recorder"] == memory["recorder"] - 1_000_000


def test_collections_are_counted(recorder: Recorder) -> None:
    """A collection of generation 2 is one more the next time."""
    clock = Clock()
    collected = Collectors(clock)
    before = values(collected.families(core.snapshot(), reading(recorder)), "trading.gc.collections")
    gc.collect()
    clock.now += 10.0
    after = values(collected.families(core.snapshot(), reading(recorder)), "trading.gc.collections")
    assert after[2] >= before[2] + 1


def test_rates_need_two_looks(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disk and network are told from the second look on, as what has come since."""
    totals = {"read_bytes": 100, "write_bytes": 0}
    traffic = {"eth0": (1_000, 0)}
    monkeypatch.setattr(collectors, "disk_bytes", lambda: totals)
    monkeypatch.setattr(collectors, "network_bytes", lambda: traffic)
    clock = Clock()
    collected = Collectors(clock)
    assert values(collected.families(core.snapshot(), reading(recorder)), "trading.disk.io.rate") == {}
    totals["read_bytes"] += 5_000
    traffic["eth0"] = (21_000, 500)
    clock.now += 10.0
    found = collected.families(core.snapshot(), reading(recorder))
    assert values(found, "trading.disk.io.rate") == {"read": 500.0, "write": 0.0}
    assert values(found, "trading.network.io.rate") == {("eth0", "receive"): 2_000.0, ("eth0", "transmit"): 50.0}


@pytest.mark.skipif(not Path("/proc/net/dev").exists(), reason="not a system with /proc")
def test_the_systems_own_tables_are_read() -> None:
    """What Linux tells of this process and machine is understood; the loopback is left out."""
    assert "lo" not in collectors.network_bytes()
    assert all(received >= 0 and sent >= 0 for received, sent in collectors.network_bytes().values())
    if os.access("/proc/self/io", os.R_OK):
        assert {"read_bytes", "write_bytes"} <= set(collectors.disk_bytes())


@given(st.binary(max_size=400))
def test_any_table_is_read(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    """A table that says nonsense gives nothing, and no error."""
    path = tmp_path_factory.mktemp("proc", numbered=True) / "table"
    path.write_bytes(text)
    assert all(isinstance(value, int) for value in collectors.disk_bytes(str(path)).values())
    assert all(isinstance(value, tuple) for value in collectors.network_bytes(str(path)).values())


def test_no_table_no_figure(tmp_path: Path) -> None:
    """Where the system has no such table, there are no figures."""
    assert collectors.disk_bytes(str(tmp_path / "none")) == {}
    assert collectors.network_bytes(str(tmp_path / "none")) == {}


def test_rates() -> None:
    """A rate is the growth since the last look; what began anew, or is not known, has none."""
    rates = Rates()
    assert rates.of("x", 10, 1.0) is None
    assert rates.of("x", 30, 3.0) == 10.0
    assert rates.of("x", 30, 3.0) is None
    assert rates.of("x", 5, 4.0) is None
    assert rates.of("x", None, 5.0) is None
    assert rates.of("x", 15, 6.0) == 5.0


def test_one_that_fails_takes_no_other_with_it(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in one collector is a fault, and the others go on."""

    def broken() -> None:
        raise OSError("gone")

    monkeypatch.setattr(collectors, "_resident", broken)
    found = Collectors().families(core.snapshot(), reading(recorder))
    recorder.faults_expected = 1
    assert "trading.memory.usage" not in names(found)
    assert "trading.queue.size" in names(found)


def test_without_a_segment_it_goes_on() -> None:
    """A process that does not record has nothing to collect, and that is no error."""
    snapshot = {
        "unix_ns": 0,
        "probes": [],
        "segment": {"resident_bytes": 0},
    }
    assert "trading.metric.level" in names(Collectors().families(snapshot))


def test_a_family_that_the_program_feeds_too_is_one_family(recorder: Recorder) -> None:
    """Our queue and the program's stand in one metric, as Prometheus wants it."""
    ot.gauge("queue.size", tier=ot.P2, unit="{item}", attributes={"trading.queue": "orders"}).set(3)
    snapshot = core.snapshot()
    found = join(series.families(snapshot, core.accounts()), Collectors().families(snapshot, reading(recorder)))
    keys = [(family.name, family.kind) for family in found]
    assert len(keys) == len(set(keys))
    assert values(found, "trading.queue.size") == {"orders": 3, "export": 0}


def test_join_adds_what_is_new() -> None:
    """Families of other names or kinds are added as they are."""
    one = Family("a", GAUGE, "", "", [Point({}, 1)])
    joined = join([one], [Family("a", COUNTER, "", "", [Point({}, 2)]), Family("b", GAUGE, "", "")])
    assert [(family.name, family.kind) for family in joined] == [("a", GAUGE), ("a", COUNTER), ("b", GAUGE)]


def test_a_histogram_of_both_is_merged() -> None:
    """Points of the same attributes merge, as in any family."""
    first = Family("h", 3, "s", "", [])
    first.add(Point({}, ExponentialHistogram.of([1.0])))
    second = Family("h", 3, "s", "", [])
    second.add(Point({}, ExponentialHistogram.of([2.0])))
    (joined,) = join([first], [second])
    assert joined.points[0].value.count == 2  # type: ignore[union-attr]
