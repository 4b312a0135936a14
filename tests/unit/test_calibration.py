"""Calibration: what it measures, what it leaves behind, and when it may not run.  No figure is judged here."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.budget import calibration, herald
from otel_trading.budget.modes import COSTS

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def _unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each test measure anew, and leave the process's own figures alone."""
    monkeypatch.setattr(calibration, "_known", {})


def own() -> tuple[Any, Any]:
    """A probe and a counter of the package's own."""
    return herald.decision_probe(), herald.decision_counter("mode", "cpu")


def test_every_kind_of_record_has_a_cost() -> None:
    """All kinds are there, in the policy's order; a span costs more than nothing, and no figure is negative."""
    found = calibration.costs(*own())
    assert tuple(found) == COSTS
    assert found["span"] > 0.0
    assert found["flat"] > 0.0
    assert min(found.values()) >= 0.0
    assert max(found.values()) < 0.01  # they are seconds


def test_it_is_measured_once() -> None:
    """A second call gives the same figures, and what a caller does to them is not seen by the next one."""
    first = calibration.costs(*own())
    first["span"] = 7.0
    second = calibration.costs(*own())
    assert second != first
    assert {**first, "span": 0.0} == {**second, "span": 0.0}


def test_nothing_of_it_is_seen_afterwards(make_recorder: Callable[..., Any]) -> None:
    """No probe or instrument is added to the tables, and none of the records is in the recorder that comes next."""
    probe, counter = own()
    make_recorder()
    names = [[row["name"] for row in core.snapshot()[table]] for table in ("probes", "instruments")]
    ot.shutdown()
    calibration.costs(probe, counter)
    assert not core.is_open()
    recorder = make_recorder()
    snapshot = core.snapshot()
    assert [[row["name"] for row in snapshot[table]] for table in ("probes", "instruments")] == names
    assert sum(row["count"] for row in snapshot["probes"]) == 0
    assert [row["updates"] for row in snapshot["instruments"] if row["name"] != "gc.pause"] == [0] * (
        len(snapshot["instruments"]) - 1
    )
    assert recorder.records() == []
    assert recorder.accounts()[1]["recorded"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors and mappings are counted in /proc")
def test_its_segment_is_gone_when_the_recorder_runs(make_recorder: Callable[..., Any]) -> None:
    """No descriptor of it is left open, and nothing of it stays mapped."""
    calibration.costs(*own())
    make_recorder()
    names = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert [name for name in names if "calibration" in name] == []
    assert "otel-trading-calibration" not in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_an_open_segment_is_left_alone(make_recorder: Callable[..., Any]) -> None:
    """While a recorder runs there is nothing to calibrate on: an error, and the recorder goes on."""
    recorder = make_recorder()
    with pytest.raises(RuntimeError, match="open already"):
        calibration.costs(*own())
    with ot.probe("after"):
        pass
    assert recorder.only("after").name == "after"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(*, enabled: bool) -> None:
    """Collections are off while it measures, and afterwards as before."""
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        calibration.costs(*own())
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_a_machine_without_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the segment can not be made nothing is open afterwards, and the next call tries again."""
    refusing = os.open("/dev/full", os.O_RDWR)
    monkeypatch.setattr(calibration, "_anonymous", lambda: refusing)
    with pytest.raises(OSError, match=r".+"):
        calibration.costs(*own())
    assert not core.is_open()
    monkeypatch.undo()
    monkeypatch.setattr(calibration, "_known", {})
    assert calibration.costs(*own())["span"] > 0.0


def test_the_lower_quartile_counts() -> None:
    """Times that were held up do not count, be they many; nor does a lucky one alone."""
    assert calibration._lower_quartile([10, 90, 10, 90, 1, 10, 90, 100_000]) == 10.0
    assert calibration._lower_quartile([7]) == 7.0
