"""The thread behind an exporter: when it steps, and that nothing ends it early."""

from __future__ import annotations

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

    def step() -> tuple[bool, float]:
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
    due, asked, steps = [False], [0], [0]

    def is_due() -> bool:
        asked[0] += 1
        return due[0]

    def step() -> tuple[bool, float]:
        steps[0] += 1
        due[0] = False
        return True, 3_600.0

    worker = Worker("trial", 3_600.0, step, lambda: None, is_due)
    worker.start()
    until(lambda: asked[0] > 1)
    assert steps == [0]
    due[0] = True
    until(lambda: steps == [1])
    before = asked[0]
    until(lambda: asked[0] > before + 1)
    assert steps == [1]
    assert worker.stop(soon())
    assert steps == [2]


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
