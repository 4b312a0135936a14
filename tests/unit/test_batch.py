"""The queue of kept spans, and the batches that are taken from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.api import TracerProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Recorder

NONE = (0, 0, 0, 0)


def record(count: int, tier: int = 1, text: str = "") -> None:
    """Record spans."""
    probe = ot.probe(f"batch.p{tier}", tier=tier)
    for number in range(count):
        with probe.span(number=number) as span:
            if text:
                span.set_attribute("text", text)


def test_a_batch_is_the_oldest_spans(recorder: Recorder) -> None:
    """Spans are handed over once, oldest first, and counted a tier."""
    core.keep(100)
    record(5, 0)
    record(10, 2)
    core.drain()
    assert core.kept() == 15
    first, second, third = core.take(8), core.take(100), core.take(100)
    assert core.kept() == 0
    assert (len(first), len(second), len(third)) == (8, 7, 0)
    assert (first.tiers, second.tiers, third.tiers) == ((5, 0, 3, 0), (0, 0, 7, 0), NONE)
    states = first.states() + second.states()
    assert [state[11]["number"] for state in states] == [*range(5), *range(10)]
    assert first.states() == first.states()
    assert (first.scopes(), third.scopes()) == ([""], [])
    assert recorder.accounts()[2]["pending"] == 10
    assert first.settle() == ((5, 0, 3, 0), NONE)
    assert second.settle(100) == (NONE, (0, 0, 7, 0))
    assert first.settle(3) == second.settle() == (NONE, NONE)
    assert recorder.accounts()[2] == {
        **dict.fromkeys(("sampled_out", "overwritten", "pending"), 0),
        "recorded": 10,
        "exported": 3,
        "refused": 7,
    }


def test_the_queue_is_bounded_in_spans(recorder: Recorder) -> None:
    """What finds no room is refused, and there is room again once spans were taken."""
    core.keep(10)
    record(15, 0)
    assert recorder.accounts()[0]["refused"] == 5
    batch = core.take(4)
    record(15, 0)
    assert recorder.accounts()[0]["refused"] == 16
    assert core.kept() == 10
    batch.settle()


def test_lower_tiers_find_less_room(recorder: Recorder) -> None:
    """Each tier leaves an eighth of the queue to the better ones, so that P0 is the last to be refused."""
    core.keep(80)
    for tier in (3, 2, 1, 0):
        record(100, tier)
    assert {tier: account["refused"] for tier, account in recorder.accounts().items()} == {3: 50, 2: 90, 1: 90, 0: 90}
    assert core.take(80).settle() == ((10, 10, 10, 50), NONE)


@pytest.mark.parametrize("tier", range(4))
def test_the_smallest_queue_has_room_for_any_tier(recorder: Recorder, tier: int) -> None:
    """One span is kept, of whatever tier."""
    core.keep(1)
    record(3, tier)
    assert recorder.accounts()[tier]["refused"] == 2
    assert core.take(1).settle()[0][tier] == 1


def test_lower_tiers_find_less_room_for_blocks(recorder: Recorder) -> None:
    """The same of what spans carry."""
    core.keep(1000, 80_000)
    for tier in (3, 0):
        record(200, tier, "x" * 968)  # with its head a block of 1,000 bytes
        core.drain()
    batch = core.take(1000)
    assert batch.tiers[3] == pytest.approx(50, abs=1)
    assert batch.tiers[0] == pytest.approx(30, abs=1)
    batch.settle()
    assert recorder.accounts()[3]["refused"] == 200 - batch.tiers[3]


def test_the_queue_is_bounded_in_bytes(recorder: Recorder) -> None:
    """Spans with blocks are refused where their bytes find no room; those without are kept; taking makes room."""
    core.keep(1000, 10_000)
    record(20, text="x" * 1000)
    record(5)
    account = recorder.accounts()[1]
    assert core.kept() == account["pending"] < 25
    assert account["refused"] == 20 - (account["pending"] - 5) >= 10
    taken = core.take(1000)
    states = taken.states()
    assert sum(len(str(state[11].get("text", ""))) for state in states) <= 10_000
    assert [state[11]["number"] for state in states[-5:]] == list(range(5))
    record(5, text="x" * 1000)
    assert recorder.accounts()[1]["refused"] == account["refused"]
    taken.settle()


def test_scopes_in_order_of_first_appearance(recorder: Recorder) -> None:
    """A batch names the instrumentation scopes of its spans, each once; "" is our own."""
    core.keep(100)
    provider = TracerProvider()
    two, one = provider.get_tracer("two"), provider.get_tracer("one", "1.0")
    with two.start_as_current_span("a"), one.start_as_current_span("b"), ot.probe("batch.own"):
        pass
    with two.start_as_current_span("c"):
        pass
    core.drain()
    batch = core.take(100)
    probes = core.snapshot()["probes"]
    scopes = [probes[state[0]]["scope"] for state in batch.states()]
    assert scopes[0] == ""
    assert "one" in scopes[1]
    assert "two" in scopes[2]
    assert scopes[2] == scopes[3]
    assert batch.scopes() == scopes[:3]
    named = {name: scope for name, *_, scope in recorder.segment.reader.probes()}
    assert (named["a"], named["b"], named["batch.own"]) == (scopes[2], scopes[1], "")
    batch.settle()


def test_times_as_the_program_gave_them(recorder: Recorder) -> None:
    """Spans with times of their own keep them, and their length is in the metrics."""
    core.keep(100)
    tracer = TracerProvider().get_tracer("test")
    tracer.start_span("batch.times", start_time=10**18).end(10**18 + 2 * 10**9)
    tracer.start_span("batch.times", start_time=10**18).end(10**18 - 1)
    tracer.start_span("batch.times").end(5)
    core.drain()
    batch = core.take(100)
    states = batch.states()
    assert [state[5:7] for state in states[:2]] == [(10**18, 10**18 + 2 * 10**9), (10**18, 10**18 - 1)]
    assert states[2][6] == 5
    (probe,) = [probe for probe in core.snapshot()["probes"] if probe["name"] == "batch.times"]
    _, count, total, least, most, *_ = probe["total"]
    assert (count, total, least, most) == (3, 2.0, 0.0, 2.0)
    assert recorder.accounts()[1]["recorded"] == 3
    batch.settle()


@pytest.mark.usefixtures("recorder")
def test_batches_are_made_by_take_only() -> None:
    """The type itself makes none, and bad arguments are errors."""
    batch = core.take(5)
    with pytest.raises(TypeError):
        type(batch)()  # type: ignore[call-arg]  # the point
    with pytest.raises((OverflowError, ValueError)):
        core.take(-1)
    with pytest.raises(ValueError, match="16777216"):
        core.keep(1 << 25)


@pytest.mark.usefixtures("quiet")
def test_taking_makes_room(make_recorder: Callable[..., Recorder]) -> None:
    """The room that taken spans had in the queue is there again, however often."""
    recorder = make_recorder(ring__arena_bytes=1 << 20)
    core.keep(1000, 1 << 20)
    for _ in range(50):
        record(100, text="x" * 1000)
        core.drain()
        batch = core.take(1000)
        assert len(batch) == 100
        batch.settle()
    assert recorder.accounts()[1]["exported"] == 5000
