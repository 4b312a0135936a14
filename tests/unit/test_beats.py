"""Beats: loops of the program tell that they go on, and readers see which are late."""

from __future__ import annotations

import os
import threading
import time
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

SECOND = 1_000_000_000


def beats(recorder: Recorder) -> list[dict[str, Any]]:
    """Read all loops."""
    beats: list[dict[str, Any]] = recorder.segment.reader.life()["beats"]
    return beats


def test_a_beat(recorder: Recorder) -> None:
    """It is as old as it is, in time that all processes share."""
    assert beats(recorder) == []
    before, before_unix = time.monotonic_ns(), time.time_ns()
    core.beat("main", 5 * SECOND)
    after = time.monotonic_ns()
    (beat,) = beats(recorder)
    now = time.monotonic_ns()
    assert (beat["name"], beat["late_ns"], beat["late"]) == ("main", 5 * SECOND, False)
    assert 0 <= beat["age_ns"] <= now - before
    assert beat["age_ns"] <= now - before
    assert abs(beat["unix_ns"] - before_unix) < SECOND + after - before


def test_beats_that_are_late(recorder: Recorder, until: Callable[..., None]) -> None:
    """A loop is late when its beat is older than it said; a new beat ends that."""
    core.beat("slow", 1)
    core.beat("main", 3600 * SECOND)
    until(lambda: [beat["late"] for beat in beats(recorder)] == [True, False])
    core.beat("slow", 3600 * SECOND)
    assert [beat["late"] for beat in beats(recorder)] == [False, False]


def test_a_loop_that_rests(recorder: Recorder) -> None:
    """It is not late, has no age, and can begin again at its own place."""
    core.beat("main", 1)
    core.beat("other", 1)
    core.beat("main", 0)
    first, second = beats(recorder)
    assert (first["age_ns"], first["unix_ns"], first["late"]) == (None, None, False)
    assert second["age_ns"] is not None
    core.beat("main", 7)
    assert [(beat["name"], beat["late_ns"]) for beat in beats(recorder)] == [("main", 7), ("other", 1)]


def test_a_loop_that_was_never_there_does_not_rest(recorder: Recorder) -> None:
    """It takes no place."""
    core.beat("main", 0)
    assert beats(recorder) == []


def test_names_are_told_by_what_they_say(recorder: Recorder) -> None:
    """Two texts that are equal are one loop."""
    for name in ("main", str(b"main", "ascii"), "domain"[2:]):
        core.beat(name, 1)
    assert len(beats(recorder)) == 1


def test_more_loops_than_there_is_room_for(recorder: Recorder) -> None:
    """Each beat past the sixteenth loop is a fault; the others go on."""
    for number in range(at.BEATS):
        core.beat(f"loop-{number}", SECOND)
    core.beat("one more", SECOND)
    core.beat("one more", 0)
    assert [beat["name"] for beat in beats(recorder)] == [f"loop-{number}" for number in range(at.BEATS)]
    recorder.faults_expected = 1
    core.beat("loop-15", 2 * SECOND)
    assert beats(recorder)[15]["late_ns"] == 2 * SECOND


def test_how_late_is_late(recorder: Recorder) -> None:
    """Not less than nothing; more than the format holds is as long as it holds."""
    with pytest.raises(ValueError, match="negative"):
        core.beat("main", -1)
    with pytest.raises(ValueError, match="negative"):
        core.beat("main", -(1 << 70))
    assert beats(recorder) == []
    core.beat("main", 1 << 70)
    assert beats(recorder)[0]["late_ns"] == (1 << 63) - 1


def test_wrong_types(recorder: Recorder) -> None:
    """They are a TypeError."""
    for wrong in ((1, 1), ("main", 1.5), ("main", "1")):
        with pytest.raises(TypeError):
            core.beat(*wrong)  # type: ignore[arg-type]
    assert beats(recorder) == []


def test_without_a_segment() -> None:
    """Nothing happens."""
    assert not core.is_open()
    core.beat("main", 1)


def test_a_new_segment_has_no_beats(make_recorder: Callable[..., Recorder]) -> None:
    """Loops of an earlier segment are not in the next, but can beat there."""
    make_recorder()
    core.beat("first", 1)
    core.beat("second", 1)
    ot.shutdown(1.0)
    recorder = make_recorder()
    assert beats(recorder) == []
    core.beat("second", 1)
    assert [beat["name"] for beat in beats(recorder)] == ["second"]


def test_beats_of_many_threads(recorder: Recorder) -> None:
    """Each thread has its loop, and none is lost."""

    def loop(name: str) -> None:
        for _ in range(200):
            core.beat(name, 3600 * SECOND)

    threads = [threading.Thread(target=loop, args=(f"loop-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {beat["name"] for beat in beats(recorder)} == {f"loop-{number}" for number in range(8)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_beats_for_itself(run_python: Run) -> None:
    """Its loops are in a segment of its own; its parent's are as they were."""
    run_python(
        """
import os, otel_trading as ot
from otel_trading import lifecycle
from otel_trading._backend import core

def names():
    fd = os.open(lifecycle._host.path, os.O_RDONLY)
    return [beat["name"] for beat in core.Reader(fd).life()["beats"]]

ot.configure("forked")
core.beat("parent", 10**9)
child = os.fork()
if child == 0:
    core.beat("child", 10**9)
    os._exit(0 if names() == ["child"] else 1)
assert os.waitpid(child, 0)[1] == 0
core.beat("parent", 10**9)
assert names() == ["parent"], names()
"""
    )
