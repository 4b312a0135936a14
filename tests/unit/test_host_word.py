"""Who is to drain: asked from outside, and waited for."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from conftest import wait_until
from segment_image import Image, write

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.segment import Control

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Recorder


def ask(path: Path, host: int) -> None:
    """Ask as another process does."""
    fd = os.open(path, os.O_RDWR)
    try:
        core.ask_host(fd, host)
    finally:
        os.close(fd)


class Waiter:
    """A thread that waits for another host."""

    def __init__(self, known: int) -> None:
        self.seen: list[int] = []
        self._thread = threading.Thread(target=lambda: self.seen.append(core.await_host(known, 60.0)))
        self._thread.start()

    def end(self) -> list[int]:
        """Wait for it; gives what it has seen."""
        wait_until(lambda: not self._thread.is_alive())
        return self.seen


def test_it_does_not_wait_for_what_is_so_already(recorder: Recorder) -> None:
    """Where another one is to drain already, or the time is over, it returns at once."""
    assert core.await_host(at.HOST_AGENT, 60.0) == at.HOST_EMBEDDED
    assert core.await_host(at.HOST_EMBEDDED, 0.01) == at.HOST_EMBEDDED
    ask(recorder.path, at.HOST_AGENT)
    assert core.await_host(at.HOST_EMBEDDED, 60.0) == at.HOST_AGENT


def test_who_waits_is_woken(recorder: Recorder) -> None:
    """A question from outside ends the wait."""
    waiter = Waiter(at.HOST_EMBEDDED)
    ask(recorder.path, at.HOST_AGENT)
    assert waiter.end() == [at.HOST_AGENT]
    with Control(recorder.path) as control:
        assert control.words[at.OFF_CONTROL_HOST // 8] == at.HOST_AGENT


@pytest.mark.parametrize("end", [core.wake, core.close])
def test_the_wait_is_ended_from_within(recorder: Recorder, end: Callable[[], None]) -> None:
    """``wake`` and ``close`` end it, with whatever host there was."""
    assert recorder.path.exists()
    waiter = Waiter(at.HOST_EMBEDDED)
    deadline = threading.Event()

    def again() -> bool:
        end()  # it may have come before the thread waited
        deadline.wait(0.01)
        return bool(waiter.seen)

    wait_until(again)
    assert waiter.end() == [at.HOST_EMBEDDED]


def test_without_a_segment(recorder: Recorder) -> None:
    """There is nothing to wait for."""
    assert recorder.path.exists()
    core.close()
    assert core.await_host(at.HOST_AGENT, 60.0) == at.HOST_AGENT


def test_what_is_asked_is_checked(tmp_path: Path) -> None:
    """Other hosts, and files that are no segments, are refused."""
    path = write(tmp_path / "file", Image())
    with pytest.raises(ValueError, match="host"):
        ask(path, 2)
    ask(path, at.HOST_AGENT)
    with Control(path) as control:
        assert control.words[at.OFF_CONTROL_HOST // 8] == at.HOST_AGENT
    for image in (
        Image(magic=1),
        Image(version=at.VERSION + 1),
        Image(control_offset=1 << 40),
        Image(control_offset=12345),
        Image(control_offset=0),
    ):
        with pytest.raises(ValueError, match=r"^(foreign|version|truncated|damaged): "):
            ask(write(tmp_path / "bad", image), at.HOST_AGENT)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match=r"^(foreign|truncated): "):
        ask(path, at.HOST_AGENT)
