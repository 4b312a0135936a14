"""What only the pure backend's governor has to mind: exceptions in a tick, and platforms that lack something."""

from __future__ import annotations

import errno
import importlib
import math
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conftest import wait_until
from governed import Governed

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Recorder

pytestmark = pytest.mark.skipif(ot.backend != "pure", reason="C raises nothing, and has its own ways to the kernel")

PROBE = ot.probe("pure.governed", tier=3)
WORDS = [at.OFF_CONTROL_TIER_WORD // 8 + tier for tier in range(at.TIERS)]
PLACES = ["pressure.Pressure.look", "market.Market.look", "meter.Meter.look", "engine.Engine.tick"]


@pytest.fixture
def governed(recorder: Recorder) -> Iterator[Governed]:
    """Give a recorder whose ticks are the test's."""
    governed = Governed(recorder.path)
    yield governed
    governed.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Give what the exception hook was told."""
    told: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _trace: told.append(error))
    return told


def broken(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Have a part of the governor raise."""

    def fail(*_: Any) -> None:
        raise RuntimeError(place)

    module, *owner, name = place.split(".")
    found: Any = importlib.import_module(f"otel_trading._pure.{module}")
    monkeypatch.setattr(getattr(found, owner[0]) if owner else found, name, fail)


@pytest.mark.parametrize("place", PLACES)
def test_a_tick_that_fails(governed: Governed, told: list[BaseException], place: str) -> None:
    """Recording stays as it was, whatever it was; a decision says so once, another when it works again."""
    governed.policy.set_limit("cpu", at.MODE_STRESSED, 0.01)
    governed.tick(cpu_load=0.75)
    governed.run(1.1, cpu_load=0.75, cpu=0.5)
    before = [governed.control.words[word] for word in WORDS]
    assert before != [at.TIER_ON] * at.TIERS
    count = len(governed.decisions())
    with pytest.MonkeyPatch.context() as monkeypatch:
        broken(monkeypatch, place)
        reading = governed.run(3.0)
        assert reading.failed
        assert [governed.control.words[word] for word in WORDS] == before
    assert governed.control.mode == at.MODE_STRESSED
    (failed,) = governed.decisions()[count:]
    assert (failed.kind, failed.reason) == (at.DECISION_FAILED, at.REASON_NONE)
    assert math.isnan(failed.figure)
    assert [str(error) for error in told] == [place]
    PROBE.stop(PROBE.start())
    assert not governed.tick(cpu_load=0.75).failed
    works = governed.decisions()[count + 1]
    assert (works.kind, works.reason) == (at.DECISION_WORKS, at.REASON_NONE)


def test_keep_rules_that_fail(governed: Governed, told: list[BaseException]) -> None:
    """Modes and budget go on without them; the failure is said once all the same."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        broken(monkeypatch, "keeping.keep_plan")
        governed.run(1.0, cpu_load=0.9)
    assert core.mode() == at.MODE_EMERGENCY
    assert len(told) == len(governed.decisions(at.DECISION_FAILED)) == 1


def test_a_failure_does_not_hide_another(governed: Governed, told: list[BaseException]) -> None:
    """What could not be told before a failed tick is still not told after it, and is said to work only when it does."""
    governed.tick(cpu_load=math.nan)
    with pytest.MonkeyPatch.context() as monkeypatch:
        broken(monkeypatch, "meter.Meter.look")
        governed.tick()
    governed.tick(cpu_load=math.nan)
    governed.tick()
    assert len(told) == 1
    kinds = [(decision.kind, decision.reason) for decision in governed.decisions()]
    assert kinds == [
        (at.DECISION_FAILED, at.REASON_CPU),
        (at.DECISION_FAILED, at.REASON_NONE),
        (at.DECISION_WORKS, at.REASON_NONE),
        (at.DECISION_WORKS, at.REASON_CPU),
    ]


def test_the_thread_ticks_fails_and_ticks_again(governed: Governed, told: list[BaseException]) -> None:
    """It is a daemon of its name, goes on after a failed tick, and ends when it is told to."""

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "otel-budget"]

    governed.policy.write({"period": 0.005})
    core.govern_start()
    core.govern_start()
    (thread,) = threads()
    assert thread.daemon
    wait_until(lambda: governed.readings.read().ticks > 3)
    with pytest.MonkeyPatch.context() as monkeypatch:
        broken(monkeypatch, "market.Market.look")
        wait_until(lambda: governed.readings.read().failed)
    ticks = governed.readings.read().ticks
    wait_until(lambda: governed.readings.read().ticks > ticks + 3 and not governed.readings.read().failed)
    assert len(told) == 1
    core.govern_stop()
    core.govern_stop()
    assert threads() == []


def test_where_pages_can_not_be_given_back(governed: Governed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rings get smaller all the same, and nothing is said to have come of it."""
    governed.control.words[at.OFF_CONTROL_BUFFERS // 8] = 2
    monkeypatch.setattr("otel_trading._pure.ring_size._REMOVE", None)
    assert core.fit_buffers() == 0
    governed.control.words[at.OFF_CONTROL_BUFFERS // 8] = 4
    monkeypatch.setattr("otel_trading._pure.ring_size._REMOVE", -1)  # what a file system without holes answers
    assert core.fit_buffers() == 0
    assert governed.control.words[at.OFF_CONTROL_BUFFERS_NOW // 8] == 4
    PROBE.stop(PROBE.start())
    assert ot.accounts()[3]["recorded"] == 1


def test_where_there_is_no_space_to_grow_into(governed: Governed, recorder: Recorder) -> None:
    """The rings stay small and the step stays in force; it is taken back later, when there is space."""
    governed.policy.set_limit("memory", at.MODE_NORMAL, 1e7)
    governed.tick(memory=2e7)
    core.fit_buffers()
    governed.run(6.0)
    assert governed.control.words[at.OFF_CONTROL_BUFFERS // 8] == 0
    whole = recorder.path.stat().st_blocks

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("otel_trading._pure.buffers.reserve", full)
        assert core.fit_buffers() == 0
    assert recorder.path.stat().st_blocks == whole
    assert governed.control.words[at.OFF_CONTROL_BUFFERS // 8] == 2
    assert governed.tick().steps == 1
    governed.run(6.0)
    assert core.fit_buffers() < 0
    assert governed.tick().buffers == 0
