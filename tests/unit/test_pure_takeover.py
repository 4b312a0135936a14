"""What the pure drain does with marks that are taken back, and with what is late."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading._backend import core

if TYPE_CHECKING:
    from conftest import Recorder

pytestmark = pytest.mark.skipif(
    os.environ.get("OTEL_TRADING_BACKEND") != "pure", reason="of the pure backend alone; the native one has its own"
)


def record(count: int) -> None:
    """Record numbered spans."""
    probe = ot.probe("pure.takeover")
    for number in range(count):
        with probe.span(number=number):
            pass


def again() -> list[int]:
    """Hand the drain over, and give the numbers that the next one sends."""
    core.drain_give()
    core.drain_take()
    core.keep(10_000)
    core.drain(True)
    batch = core.take(10_000)
    numbers = [state[11]["number"] for state in batch.states()]
    batch.settle()
    return numbers


def test_a_mark_that_was_taken_back(recorder: Recorder) -> None:
    """Who takes over sends those again, and not what is still marked."""
    core.keep(100)
    record(20)
    core.drain()
    one, other = core.take(10), core.take(10)
    for batch in (one, other):
        batch.sent()
    one.unsent()
    one.unsent()
    assert again() == list(range(10))
    assert recorder.accounts()[1]["exported"] == 20


def test_a_late_mark_that_was_taken_back(recorder: Recorder) -> None:
    """Where their slots are taken they can not be sent again: overwritten, unless this drain sends them after all."""
    core.keep(100)
    record(10)
    core.drain()
    batch = core.take(10)
    batch.sent()
    core.keep(0)
    record(2000)
    core.drain()
    batch.unsent()
    batch.sent()
    batch.unsent()
    assert recorder.accounts()[1]["pending"] == 10
    assert again() == []
    account = recorder.accounts()[1]
    assert (account["exported"], account["pending"]) == (0, 0)
    assert account["sampled_out"] + account["overwritten"] == 2010


def test_a_batch_of_a_tenure_that_is_over_changes_nothing(recorder: Recorder) -> None:
    """What it says of its spans is the next drain's to say."""
    core.keep(100)
    record(10)
    core.drain()
    batch = core.take(10)
    assert again() == list(range(10))
    batch.sent()
    assert batch.settle(3) == ((0, 7, 0, 0), (0, 3, 0, 0))
    assert recorder.accounts()[1]["refused"] == 0
    assert recorder.accounts()[1]["exported"] == 10
