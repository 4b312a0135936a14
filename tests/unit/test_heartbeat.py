"""Beats of a program's loops, as the program makes them and a reader sees them."""

from __future__ import annotations

import asyncio
import os
from decimal import Decimal
from math import inf, nan
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]

NS = 1_000_000_000


def beats(recorder: Recorder) -> dict[str, dict[str, Any]]:
    """Give the loops by name, as a reader sees them."""
    rows = recorder.segment.reader.life()["beats"]
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


def test_a_loop_that_beats_is_not_late(recorder: Recorder) -> None:
    """The reader tells its name, how long ago it beat, and from when on it is late."""
    ot.heartbeat()
    ot.heartbeat("feed", late=2.5)
    found = beats(recorder)
    assert set(found) == {"main", "feed"}
    assert (found["main"]["late_ns"], found["feed"]["late_ns"]) == (5 * NS, int(2.5 * NS))
    assert 0 <= found["feed"]["age_ns"] <= found["main"]["age_ns"]
    assert not found["main"]["late"]


def test_a_loop_without_its_next_beat_is_late(recorder: Recorder, until: Callable[..., None]) -> None:
    """It is late until it beats again; another loop's beats do not help it."""
    ot.heartbeat("slow", late=0.02)
    until(lambda: beats(recorder)["slow"]["late"])
    ot.heartbeat("other")
    assert beats(recorder)["slow"]["late"]
    ot.heartbeat("slow", late=60.0)
    assert not beats(recorder)["slow"]["late"]


@pytest.mark.parametrize("late", [None, 0, 0.0])
def test_a_loop_can_rest(recorder: Recorder, late: float | None) -> None:
    """It has no age then, and is never late; one that was never heard of is not made up."""
    ot.heartbeat("unknown", late=late)
    assert beats(recorder) == {}
    ot.heartbeat("loop", late=1e-6)
    ot.heartbeat("loop", late=late)
    (row,) = recorder.segment.reader.life()["beats"]
    assert (row["name"], row["age_ns"], row["unix_ns"], row["late"]) == ("loop", None, None, False)
    ot.heartbeat("loop")
    assert beats(recorder)["loop"]["age_ns"] is not None


@pytest.mark.parametrize("late", [3, Decimal(3), "3"])
def test_times_of_other_types(recorder: Recorder, late: Any) -> None:
    """What can be a number of seconds is one."""
    ot.heartbeat("loop", late)
    assert beats(recorder)["loop"]["late_ns"] == 3 * NS


@pytest.mark.parametrize(
    ("name", "late"),
    [
        ("loop", nan),
        ("loop", inf),
        ("loop", -1.0),
        ("loop", True),
        ("loop", "soon"),
        ("", 5.0),
        (None, 5.0),
        (b"x", 5.0),
    ],
)
def test_what_is_no_name_or_no_time_is_a_fault(recorder: Recorder, name: Any, late: Any) -> None:
    """Nothing raises, and there is no beat."""
    ot.heartbeat(name, late)
    assert beats(recorder) == {}
    recorder.faults_expected = 1


def test_there_is_room_for_sixteen_loops(recorder: Recorder) -> None:
    """The next one is a fault, and the others go on."""
    for number in range(at.BEATS):
        ot.heartbeat(f"loop {number}")
    ot.heartbeat("one too many")
    ot.heartbeat("loop 0", late=1.0)
    found = beats(recorder)
    assert set(found) == {f"loop {number}" for number in range(at.BEATS)}
    assert found["loop 0"]["late_ns"] == NS
    recorder.faults_expected = 1


def test_nothing_is_needed_for_it() -> None:
    """Without a recorder all of it does nothing."""
    ot.heartbeat()
    ot.heartbeat("x", late=None)
    ot.critical("x", key="y")
    ot.queue(ot.gauge("some.queue"))
    ot.queue(None)


def test_the_backend_takes_what_it_says(recorder: Recorder) -> None:
    """Other types are TypeErrors, a time below 0 a ValueError; the longest one is taken."""
    with pytest.raises(TypeError):
        core.beat(None, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        core.beat("x", 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beat"):
        core.beat("x", -1)
    core.beat("x", 2**63 - 1)
    assert beats(recorder)["x"]["late_ns"] == 2**63 - 1


def test_asyncio_beats_until_it_is_cancelled(recorder: Recorder) -> None:
    """A task beats for its loop, again and again; when it is cancelled the loop rests."""

    async def program() -> None:
        beating = asyncio.create_task(ot.heartbeat.every(0.001, "loop", late=30.0))
        await asyncio.sleep(0)
        first = beats(recorder)["loop"]["unix_ns"]
        while beats(recorder)["loop"]["unix_ns"] <= first:  # noqa: ASYNC110  what is waited for is in the segment
            await asyncio.sleep(0.001)
        beating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beating

    asyncio.run(asyncio.wait_for(program(), 20))
    assert beats(recorder)["loop"]["age_ns"] is None


def test_asyncio_with_a_pause_that_is_too_long(recorder: Recorder) -> None:
    """Beating more seldom than the loop is late is a fault, and so is a pause that is no time."""

    async def program(seconds: Any) -> None:
        beating = asyncio.create_task(ot.heartbeat.every(seconds, late=0.5))
        await asyncio.sleep(0)
        beating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beating

    asyncio.run(program(10.0))
    assert recorder.faults == 1
    asyncio.run(program("often"))
    recorder.faults_expected = 3  # it is no time, and a second is too long as well


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_beats_for_itself(run_python: Run) -> None:
    """Its first beat makes its segment; the parent's loops stay the parent's."""
    done = run_python(
        "import os, sys, warnings\n"
        "import otel_trading as ot\n"
        "from otel_trading import lifecycle, segment\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "ot.configure('fork')\n"
        "ot.heartbeat('parent')\n"
        "def names():\n"
        "    reader = segment.attach(lifecycle.own_segment())\n"
        "    return [row['name'] for row in reader.life()['beats']]\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    ot.heartbeat('child')\n"
        "    print('child', names(), flush=True)\n"
        "    ot.shutdown()\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print('parent', names())\n"
    )
    assert done.stdout.splitlines() == ["child ['child']", "parent ['parent']"]
