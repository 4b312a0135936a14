"""Memory: what recording leaves behind is nothing, and the innermost forms allocate nothing at all."""

from __future__ import annotations

import gc
import itertools
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from conftest import SMALL

import otel_trading as ot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Recorder

NATIVE = ot.backend == "native"
TIMES = 1_000_000 if NATIVE else 100_000

PROBE = ot.probe("allocations.probe")
LEAF = ot.probe("allocations.leaf", leaf=True)
COUNTER = ot.counter("allocations.counter")
GAUGE = ot.gauge("allocations.gauge")
HISTOGRAM = ot.histogram("allocations.histogram")

pytestmark = pytest.mark.skipif(
    not hasattr(sys, "getallocatedblocks") or sys.getallocatedblocks() == 0,
    reason="this interpreter does not count its memory blocks",
)


def start_stop(times: Iterator[None]) -> None:
    """Record flat pairs."""
    start, stop = PROBE.start, PROBE.stop
    for _ in times:
        stop(start())


@LEAF
def leaf() -> None:
    """Do nothing."""


@PROBE
def function() -> None:
    """Do nothing."""


def leaf_calls(times: Iterator[None]) -> None:
    """Record calls of a leaf."""
    for _ in times:
        leaf()


def function_calls(times: Iterator[None]) -> None:
    """Record calls of a function that becomes current."""
    for _ in times:
        function()


def blocks(times: Iterator[None]) -> None:
    """Record blocks."""
    for _ in times:
        with PROBE:
            pass


def nested(times: Iterator[None]) -> None:
    """Record blocks with children."""
    for _ in times:
        with PROBE, LEAF, PROBE:
            pass


def attributes(times: Iterator[None]) -> None:
    """Record blocks with attributes."""
    for _ in times:
        with PROBE.span(symbol="BTCUSDT", qty=1.5):
            pass


def many_attributes(times: Iterator[None]) -> None:
    """Record blocks with more attributes than a slot holds, and a long one."""
    text = "x" * 200
    for _ in times:
        with PROBE.span(a=1, b=2, c=3, d=4, e=5, f=text):
            pass


def errors(times: Iterator[None]) -> None:
    """Record blocks that fail."""
    error = ValueError()
    for _ in times:
        try:
            with PROBE:
                raise error
        except ValueError:
            error.__traceback__ = None


def out_of_order(times: Iterator[None]) -> None:
    """Record blocks that are left in the order of their entry."""
    for _ in times:
        first, second = PROBE.span(), LEAF.span()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)


def instruments(times: Iterator[None]) -> None:
    """Record with all instruments."""
    for _ in times:
        COUNTER.add(1)
        COUNTER.add(0.5)
        GAUGE.set(2.0)
        HISTOGRAM.record(1.5)


def market_data(times: Iterator[None]) -> None:
    """Note updates of market data."""
    note = ot.market_data
    for _ in times:
        note("BTCUSDT", 1_700_000_000_000, 64_000.5, 0.25)


NOTHING_AT_ALL = (start_stop, leaf_calls, market_data)
NOTHING_LEFT = (*NOTHING_AT_ALL, function_calls, blocks, nested, attributes, many_attributes, errors, out_of_order,
                instruments)  # fmt: skip


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("form", NOTHING_LEFT, ids=lambda form: form.__name__)
def test_nothing_is_left_behind(recorder: Recorder, form: Callable[[Iterator[None]], None]) -> None:
    """A million records leave no memory block behind (a hundred thousand on the pure backend)."""
    times = TIMES if form in NOTHING_AT_ALL else TIMES // 10
    form(itertools.repeat(None, 3000))
    gc.collect()
    before = sys.getallocatedblocks()
    form(itertools.repeat(None, times))
    # Free lists may have grown, the interpreter's and the pure backend's; for each record it is nothing.
    assert sys.getallocatedblocks() - before < (64 if NATIVE else times // 100)
    assert recorder.faults == 0


@pytest.mark.usefixtures("quiet")
@pytest.mark.skipif(not NATIVE, reason="the pure backend makes and drops objects of its own")
@pytest.mark.parametrize("form", NOTHING_AT_ALL, ids=lambda form: form.__name__)
def test_nothing_is_allocated(recorder: Recorder, form: Callable[[Iterator[None]], None]) -> None:
    """Flat pairs, leaf calls and market data allocate nothing: no block that tracemalloc or the collector would see."""
    form(itertools.repeat(None, 3000))
    times: Any = itertools.repeat(None, 100_000)
    tracemalloc.start()
    try:
        form(times)  # what the interpreter allocates for a call of this function is allocated now
        times = itertools.repeat(None, 100_000)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        tracked = gc.get_count()[0]
        form(times)
        made = gc.get_count()[0] - tracked
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The readings themselves make a few objects; a record that allocates would show a hundred thousand.
    assert peak - before < 1024
    assert made < 16
    assert recorder.faults == 0


@pytest.mark.usefixtures("quiet")
def test_configure_and_shutdown_leave_nothing(tmp_path: Path) -> None:
    """Starting and ending the recorder again and again does not grow the process."""

    def cycle() -> None:
        ot.configure("test", tmp_path, SMALL)
        with PROBE.span(symbol="BTCUSDT"):
            pass
        ot.shutdown()

    for _ in range(10):
        cycle()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(50):
        cycle()
    gc.collect()
    # What coverage notes and free lists grow a little; a segment, a reader or a thread that is left is some 40 blocks.
    assert sys.getallocatedblocks() - before < 50 * 20
