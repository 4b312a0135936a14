"""The thread behind an exporter: when it steps, and that nothing ends it early."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from exporting import record, soon

from otel_trading._backend import core
from otel_trading.drain.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_step_that_raises_does_not_end_the_thread(segment: None, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong in a step or at the end is said, and a step that was asked for is over."""
    del segment
    outcomes = [True, False]

    def step(_called: bool) -> tuple[bool, float]:  # noqa: FBT001
        if not outcomes.pop():
            message = "no snapshot"
            raise RuntimeError(message)
        return True, 3_600.0

    def finish() -> None:
        message = "no end"
        raise RuntimeError(message)

    worker = Worker("trial", 3_600.0, step, finish)
    worker.start()
    assert not worker.wait(worker.ask(), soon())
    outcomes[:] = [True, True, True, True]
    assert worker.wait(worker.ask(), soon())
    assert worker.stop(soon())
    assert "exporting trial failed: RuntimeError: no snapshot" in caplog.text
    assert "the end of exporting trial failed: RuntimeError('no end')" in caplog.text


def test_a_step_comes_when_it_is_due(segment: None, until: Callable[..., None]) -> None:
    """Long before its interval is over, a step comes where there is a reason for it, and not where there is none."""
    del segment
    due, steps, pauses, woken = threading.Event(), [], [0], threading.Event()

    def pause(_seconds: float) -> bool:
        pauses[0] += 1
        while not woken.is_set():
            if due.wait(0.001):
                due.clear()
                return True
        woken.clear()
        return False

    def step(called: bool) -> tuple[bool, float]:  # noqa: FBT001
        steps.append(called)
        return True, 3_600.0

    worker = Worker("trial", 3_600.0, step, lambda: None, pause, woken.set)
    worker.start()
    until(lambda: pauses[0] == 1)
    assert steps == []
    due.set()
    until(lambda: pauses[0] == 2)
    assert steps == [False]
    assert worker.wait(worker.ask(), soon())
    assert steps == [False, True]
    woken.set()  # somebody else's reason
    until(lambda: pauses[0] >= 4)
    assert steps == [False, True]
    assert worker.stop(soon())
    assert steps == [False, True, True]


def test_a_wake_that_comes_too_early_is_said_again(segment: None, until: Callable[..., None]) -> None:
    """Who asks just before the thread begins to pause does not wait for the pause to be over by itself."""
    del segment
    entered, wakes = threading.Event(), [0]
    woken = threading.Event()

    def pause(_seconds: float) -> bool:
        entered.set()
        until(lambda: wakes[0] > 0)
        woken.clear()  # that one is lost
        woken.wait(60)
        return False

    def wake() -> None:
        wakes[0] += 1
        woken.set()

    worker = Worker("trial", 3_600.0, lambda _called: (True, 3_600.0), lambda: None, pause, wake)
    worker.start()
    assert entered.wait(20)
    assert worker.wait(worker.ask(), soon())
    wakes[0] = 0
    assert worker.stop(soon())


def test_a_pause_that_fails_leaves_the_clock(segment: None, caplog: pytest.LogCaptureFixture) -> None:
    """What the backend can not wait for is said once, and steps come by their interval."""
    del segment
    stepped = threading.Event()

    def pause(_seconds: float) -> bool:
        message = "no condition"
        raise RuntimeError(message)

    def step(_called: bool) -> tuple[bool, float]:  # noqa: FBT001
        stepped.set()
        return True, 3_600.0

    worker = Worker("trial", 0.02, step, lambda: None, pause)
    worker.start()
    assert stepped.wait(20)
    assert worker.wait(worker.ask(), soon())
    assert worker.stop(soon())
    assert caplog.text.count("by the clock alone: RuntimeError('no condition')") == 1


def test_spans_leave_early_from_a_queue_that_fills(
    start: Callable[..., Any], characters: Any, until: Callable[..., None]
) -> None:
    """At a quarter of the queue spans leave, however long the interval is."""
    start(export__traces="taking", export__queue=400)
    record(99)
    core.drain()
    assert core.kept() == 99
    record(1)
    core.drain()
    until(lambda: len(characters.spans) == 100)
